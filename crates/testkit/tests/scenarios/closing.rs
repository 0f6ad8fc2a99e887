//! Windows close at the watermark. Each has the batch answer over all rows up to the epoch that closed it.
//! Later rows for it are kept as late rows and change nothing.

use std::collections::BTreeMap;

use millstream_engine::{Engine, EngineBuilder, Session};
use millstream_testkit::drive::{self, Result, ensure, lines, run, run_all, seeds};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Scenario, time};

pub const ALL: &[Scenario] = &[
    ("windows_have_the_batch_answer_as_of_their_closing", || drive::block_on(random())),
    ("what_windows_keep_goes_when_they_close", || drive::block_on(flat())),
    ("windows_from_panes_are_those_that_are_counted_one_by_one", || drive::block_on(from_panes())),
];

/// The delay of the watermark in seconds.
const DELAY: i64 = 5;

/// Windows over a table `t` of k, v and ts.
const WINDOWS: &[&str] = &[
    "TUMBLE(t, ts, INTERVAL '10 seconds')",
    "HOP(t, ts, INTERVAL '4 seconds', INTERVAL '10 seconds')",
    "HOP(t, ts, INTERVAL '2 seconds', INTERVAL '12 seconds', INTERVAL '1 second')",
    "CUMULATE(t, ts, INTERVAL '5 seconds', INTERVAL '20 seconds')",
];

fn answer(windows: &str, condition: &str) -> String {
    format!(
        "SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s, min(v) AS least FROM {windows} \
         {condition} GROUP BY window_start, window_end, k"
    )
}

/// A view of some windows, and its expected content.
struct Expected {
    windows: &'static str,
    closed: Vec<String>,
    /// The net number of late arrivals of each row: inserts minus deletes.
    late: BTreeMap<String, i64>,
}

async fn random() -> Result<()> {
    for seed in seeds(&[0], 0..2) {
        run_seed(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn run_seed(seed: u64) -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let table = format!(
        "CREATE TABLE t (k INT, v INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '{DELAY} seconds')"
    );
    run_all(&mut session, &["SET clock = 'manual'", &table]).await?;
    let mut views = Vec::new();
    for (at, windows) in WINDOWS.iter().enumerate() {
        let query = answer(windows, "");
        run(&mut session, &format!("CREATE STREAM closed_{at} AS {query} EMIT ON WINDOW CLOSE")).await?;
        run(&mut session, &format!("CREATE MATERIALIZED VIEW so_far_{at} AS {query}")).await?;
        views.push(Expected { windows, closed: Vec::new(), late: BTreeMap::new() });
    }
    let mut random = SmallRng::seed_from_u64(seed);
    let mut below = |bound: i64| random.random_range(0..bound);
    let (mut watermark, mut newest): (Option<i64>, Option<i64>) = (None, None);
    for epoch in 0..30 {
        let mut changes = Vec::new();
        if below(3) == 0 {
            let about = time(epoch * 2 - below(40));
            changes.push(format!(
                "DELETE FROM t WHERE v < 4 AND ts > {about} AND ts < {about} + INTERVAL '5 s'"
            ));
        }
        let mut rows = Vec::new();
        for _ in 0..below(5) {
            let seconds = epoch * 2 + below(12) - if below(4) == 0 { 30 } else { 6 };
            rows.push(format!("({}, {}, {})", below(3), below(9), time(seconds)));
            newest = newest.max(Some(seconds));
        }
        if !rows.is_empty() {
            changes.push(format!("INSERT INTO t VALUES {}", rows.join(", ")));
        }
        let before: Vec<Vec<String>> = match watermark {
            None => Vec::new(),
            Some(at) => rows_of_closed(&mut session, &views, at).await?,
        };
        for sql in &changes {
            run(&mut session, sql).await?;
        }
        run(&mut session, "ADVANCE BATCH").await?;
        if let Some(at) = watermark {
            let after = rows_of_closed(&mut session, &views, at).await?;
            for ((view, before), after) in views.iter_mut().zip(&before).zip(&after) {
                before.iter().for_each(|row| *view.late.entry(row.clone()).or_default() -= 1);
                after.iter().for_each(|row| *view.late.entry(row.clone()).or_default() += 1);
                view.late.retain(|_, weight| *weight != 0);
            }
        }
        let passed = newest.map(|newest| newest - DELAY).max(watermark);
        close(&mut session, &mut views, watermark, passed).await?;
        watermark = passed;
        check(&mut session, &views, watermark).await.map_err(|error| format!("epoch {epoch}: {error}"))?;
    }
    ensure(views.iter().all(|view| !view.late.is_empty() && view.closed.len() > 10), || {
        "nothing was late".into()
    })?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Returns all rows of the table in windows that had closed at a watermark.
async fn rows_of_closed(session: &mut Session, views: &[Expected], at: i64) -> Result<Vec<Vec<String>>> {
    let mut all = Vec::new();
    for view in views {
        let (windows, at) = (view.windows, time(at));
        all.push(
            lines(
                session,
                &format!("SELECT window_start, window_end, k, v FROM {windows} WHERE window_end <= {at}"),
            )
            .await?,
        );
    }
    Ok(all)
}

/// Adds the batch answers of the windows that an epoch has closed.
async fn close(
    session: &mut Session,
    views: &mut [Expected],
    from: Option<i64>,
    to: Option<i64>,
) -> Result<()> {
    let Some(to) = to else { return Ok(()) };
    for view in views {
        let closed_before = from.map_or(String::new(), |from| format!("AND window_end > {}", time(from)));
        let condition = format!("WHERE window_end <= {} {closed_before}", time(to));
        view.closed.extend(lines(session, &answer(view.windows, &condition)).await?);
        view.closed.sort();
    }
    Ok(())
}

async fn check(session: &mut Session, views: &[Expected], watermark: Option<i64>) -> Result<()> {
    for (at, view) in views.iter().enumerate() {
        let found = lines(session, &format!("SELECT * FROM closed_{at}")).await?;
        ensure(found == view.closed, || format!("closed_{at}: {found:#?} is not {:#?}", view.closed))?;
        let mut so_far = view.closed.clone();
        let condition = watermark.map_or(String::new(), |at| format!("WHERE window_end > {}", time(at)));
        so_far.extend(lines(session, &answer(view.windows, &condition)).await?);
        so_far.sort();
        let found = lines(session, &format!("SELECT * FROM so_far_{at}")).await?;
        ensure(found == so_far, || format!("so_far_{at}: {found:#?} is not {so_far:#?}"))?;
        let late: Vec<String> = view.late.iter().map(|(row, weight)| format!("{row}|{weight}")).collect();
        for view in ["closed", "so_far"] {
            let sql = format!(
                "SELECT window_start, window_end, k, v, sum(_weight) FROM late_rows('{view}_{at}') \
                 GROUP BY window_start, window_end, k, v HAVING sum(_weight) <> 0"
            );
            let found = lines(session, &sql).await?;
            ensure(found == late, || format!("late rows of {view}_{at}: {found:#?}, not {late:#?}"))?;
        }
    }
    Ok(())
}

/// After a day of event time only the open windows take memory.
async fn flat() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "SET clock = 'manual'",
            "CREATE TABLE t (k INT, v INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') APPEND ONLY",
            "CREATE STREAM closed AS SELECT window_start, k, sum(v) AS s FROM TUMBLE(t, ts, INTERVAL '1 minute') \
             GROUP BY window_start, k EMIT ON WINDOW CLOSE",
        ],
    )
    .await?;
    for hour in 0..24 {
        let rows = format!(
            "INSERT INTO t SELECT i % 10, i, TIMESTAMP '2024-05-01 00:00:00' + INTERVAL '{hour} hours' \
             + i * INTERVAL '1 second' FROM generate_series(0, 3599) AS g(i)"
        );
        run_all(&mut session, &[&rows, "ADVANCE BATCH"]).await?;
        let kept =
            lines(&mut session, "SELECT max(state_rows) FROM millstream.operators WHERE late_rows = 0")
                .await?;
        // The last minute is open.
        ensure(kept == ["10"], || format!("{kept:?} groups after hour {hour}"))?;
    }
    drive::expect(&mut session, "SELECT count(*), sum(s) FROM closed", &["14390|155262630"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Queries over overlapping windows of a table `t` of k, v, f, s and ts, whose streams close.
const FROM_PANES: &[&str] = &[
    "SELECT window_start, window_end, k, count(*) AS n, count(v) AS some, sum(v) AS total, avg(v) AS mean, min(v) AS least, \
     max(v) AS most FROM HOP(t, ts, INTERVAL '4 seconds', INTERVAL '10 seconds') GROUP BY window_start, window_end, k",
    "SELECT window_end, sum(f) AS total, avg(f) AS mean, stddev(f) AS spread, min(f) AS least, max(f) AS most \
     FROM HOP(t, ts, INTERVAL '1 second', INTERVAL '20 seconds', INTERVAL '-3 seconds') GROUP BY window_end",
    "SELECT s, window_start, k, min(s) AS least, max(s) AS most, bool_and(v > 3) AS every, bool_or(v > 3) AS any_of, \
     bit_and(v) AS of_all, bit_or(v) AS of_some, bit_xor(v) AS parity \
     FROM HOP(t, ts, INTERVAL '5 seconds', INTERVAL '15 seconds') WHERE v <> 7 GROUP BY s, window_start, k",
    "SELECT window_start, window_end, upper(s) AS s, count(*) FILTER (WHERE v > 4) AS large, sum(v * 2) FILTER (WHERE k = 1) AS ones \
     FROM HOP(t, ts, INTERVAL '7 seconds', INTERVAL '9 seconds') GROUP BY window_start, window_end, upper(s)",
    "SELECT window_start, window_end, k, count(*) AS n, min(v) AS least, max(s) AS most, sum(f) AS total \
     FROM CUMULATE(t, ts, INTERVAL '5 seconds', INTERVAL '20 seconds') GROUP BY window_start, window_end, k",
    "SELECT DISTINCT window_end, k FROM HOP(t, ts, INTERVAL '4 seconds', INTERVAL '10 seconds')",
];

/// Windows and late rows computed from panes equal those computed by adding each row to each of its windows:
/// with rows that are inserted and deleted, and with append-only rows.
async fn from_panes() -> Result<()> {
    for seed in seeds(&[0, 3], 0..4) {
        let start = |builder: EngineBuilder| match seed % 2 {
            0 => builder.start(),
            _ => builder.append_only_tables().start(),
        };
        let engines = [
            start(Engine::builder().spread_from(8)).map_err(|error| error.to_string())?,
            start(Engine::builder().each_window()).map_err(|error| error.to_string())?,
        ];
        let mut sessions = [engines[0].session(), engines[1].session()];
        for session in &mut sessions {
            declare(session, seed).await?;
        }
        compare(&mut sessions, seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
        for engine in engines {
            engine.stop().await.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

async fn declare(session: &mut Session, seed: u64) -> Result<()> {
    let table = format!(
        "CREATE TABLE t (k INT, v INT, f DOUBLE PRECISION, s TEXT, ts TIMESTAMP, \
         WATERMARK FOR ts AS ts - INTERVAL '{DELAY} seconds')"
    );
    let lateness = if seed < 2 { "" } else { "WITH (allowed_lateness = '3 seconds')" };
    run_all(session, &["SET clock = 'manual'", &table]).await?;
    for (at, query) in FROM_PANES.iter().enumerate() {
        run(session, &format!("CREATE STREAM q{at} {lateness} AS {query} EMIT ON WINDOW CLOSE")).await?;
    }
    Ok(())
}

async fn compare(sessions: &mut [Session; 2], seed: u64) -> Result<()> {
    let by_pane =
        "SELECT DISTINCT query FROM millstream.operators WHERE operator = 'HoppingAggregate' ORDER BY query";
    let all: Vec<String> = (0..FROM_PANES.len()).map(|at| format!("q{at}")).collect();
    let found = lines(&mut sessions[0], by_pane).await?;
    ensure(found == all, || format!("only {found:?} have panes"))?;
    ensure(lines(&mut sessions[1], by_pane).await?.is_empty(), || "some have panes all the same".into())?;
    let mut random = SmallRng::seed_from_u64(seed);
    let mut seconds = 0;
    for epoch in 0..40 {
        // Time advances by steps, and sometimes far beyond all windows.
        seconds += if random.random_range(0..12) == 0 { 45 } else { random.random_range(0..5) };
        for sql in rows_about(&mut random, seconds, seed.is_multiple_of(2)) {
            for session in sessions.iter_mut() {
                run(session, &sql).await?;
            }
        }
        for session in sessions.iter_mut() {
            run(session, "ADVANCE BATCH").await?;
        }
        for at in 0..FROM_PANES.len() {
            // The columns of late rows that are equal for both.
            for sql in [
                format!("SELECT * FROM q{at}"),
                format!("SELECT * EXCLUDE (_operator, _relation, _event_time, _row) FROM late_rows('q{at}')"),
            ] {
                let [panes, each] = sessions;
                let (found, expected) = (lines(panes, &sql).await?, lines(each, &sql).await?);
                ensure(found == expected, || {
                    format!("epoch {epoch}, {sql}: {found:#?} is not {expected:#?}")
                })?;
            }
        }
    }
    let counted = lines(&mut sessions[0], "SELECT count(*) > 20 FROM q0").await?;
    let late = lines(&mut sessions[0], "SELECT count(*) > 20 FROM late_rows('q0')").await?;
    ensure(counted == ["true"] && late == ["true"], || format!("too little came: {counted:?}, {late:?}"))
}

/// Returns statements that insert rows near a time, and that delete some if rows may be deleted.
fn rows_about(random: &mut SmallRng, now: i64, delete: bool) -> Vec<String> {
    let mut below = |bound: i64| random.random_range(0..bound);
    let mut statements = Vec::new();
    if delete && below(2) == 0 {
        let about = time(now - below(30));
        statements
            .push(format!("DELETE FROM t WHERE v < 5 AND ts > {about} AND ts < {about} + INTERVAL '6 s'"));
    }
    let mut rows = Vec::new();
    for _ in 0..below(14) {
        let seconds = now - if below(4) == 0 { below(40) } else { below(6) };
        let at = if below(20) == 0 { "NULL".into() } else { time(seconds) };
        let value = |n: i64| if n == 0 { "NULL".to_string() } else { n.to_string() };
        let float = ["0.1", "-0.0", "1e100", "-1e100", "CAST('NaN' AS DOUBLE PRECISION)", "0.25", "NULL"]
            [below(7) as usize];
        let text = ["'a'", "'b'", "'long text that is kept aside'", "NULL"][below(4) as usize];
        rows.push(format!("({}, {}, {float}, {text}, {at})", value(below(4)), value(below(9))));
    }
    if !rows.is_empty() {
        statements.push(format!("INSERT INTO t VALUES {}", rows.join(", ")));
    }
    statements
}
