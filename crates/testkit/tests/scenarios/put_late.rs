//! Late rows are put into their windows. Each window has the batch answer over its rows in time and the late
//! rows put in, and a replay of the records produces the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use millstream_engine::{Engine, Record, Session};
use millstream_testkit::drive::{self, Result, ensure, lines, run, run_all, seeds};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Scenario, folder, time, write};

pub const ALL: &[Scenario] = &[
    ("late_rows_are_put_into_their_windows", || drive::block_on(random())),
    ("late_rows_of_files_are_put_into_their_windows", || drive::block_on(files())),
];

/// The delay of the watermark in seconds.
const DELAY: i64 = 5;

/// The columns of a window's rows that a query uses, and the query over such rows.
const QUERIES: &[(&str, &str)] = &[
    (
        "window_start, window_end, k, v",
        "SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s, min(v) AS least FROM {rows} \
         GROUP BY window_start, window_end, k",
    ),
    (
        "window_end, k, v",
        "SELECT window_end, count(DISTINCT k) AS ks, max(v) AS most, median(v) AS middle FROM {rows} GROUP BY window_end",
    ),
    (
        "window_start, window_end, k, v",
        "SELECT window_start, window_end, k, v, r FROM (SELECT window_start, window_end, k, v, row_number() OVER \
         (PARTITION BY window_start, window_end ORDER BY v DESC, k) AS r FROM {rows}) WHERE r <= 2",
    ),
    (
        "window_end, k",
        "SELECT window_end, max(n) AS n FROM (SELECT window_end, k, count(*) AS n FROM {rows} GROUP BY window_end, k) \
         GROUP BY window_end",
    ),
];

const WINDOWS: &[&str] = &[
    "TUMBLE(t, ts, INTERVAL '10 seconds')",
    "HOP(t, ts, INTERVAL '4 seconds', INTERVAL '10 seconds')",
    "CUMULATE(t, ts, INTERVAL '5 seconds', INTERVAL '20 seconds')",
];

/// A view, and its late rows that were not put in, with their counts.
struct Expected {
    name: String,
    windows: &'static str,
    columns: &'static str,
    query: &'static str,
    late: Counts,
}

type Counts = BTreeMap<String, i64>;

fn add(counts: &mut Counts, rows: &[String], weight: i64) {
    rows.iter().for_each(|row| *counts.entry(row.clone()).or_default() += weight);
    counts.retain(|_, weight| *weight != 0);
}

async fn random() -> Result<()> {
    for seed in seeds(&[0], 0..2) {
        run_seed(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn prepare(session: &mut Session) -> Result<Vec<Expected>> {
    let table = format!(
        "CREATE TABLE t (k INT, v INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '{DELAY} seconds')"
    );
    run_all(session, &["SET clock = 'manual'", &table]).await?;
    let mut views = Vec::new();
    for (of, windows) in WINDOWS.iter().enumerate() {
        for (at, (columns, query)) in QUERIES.iter().enumerate() {
            let name = format!("view_{of}_{at}");
            let sql = query.replace("{rows}", windows);
            run(session, &format!("CREATE MATERIALIZED VIEW {name} AS {sql}")).await?;
            // A query over the view takes its corrections like any change.
            run(session, &format!("CREATE MATERIALIZED VIEW copy_of_{name} AS SELECT * FROM {name}")).await?;
            views.push(Expected { name, windows, columns, query, late: Counts::new() });
        }
    }
    Ok(views)
}

async fn run_seed(seed: u64) -> Result<()> {
    let records: Arc<Mutex<Vec<Record>>> = Arc::default();
    let seen = records.clone();
    let recorder = move |record: &Record| {
        if let Ok(mut seen) = seen.lock() {
            seen.push(record.clone());
        }
    };
    let engine = Engine::builder().recorder(recorder).start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let mut views = prepare(&mut session).await?;
    // Computes batch answers.
    let aside = Engine::start().map_err(|error| error.to_string())?;
    let mut batch = aside.session();
    let rows = "CREATE TABLE rows (window_start TIMESTAMP, window_end TIMESTAMP, k INT, v INT)";
    run(&mut batch, rows).await?;
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut watermark, mut newest): (Option<i64>, Option<i64>) = (None, None);
    let mut put = 0;
    for epoch in 0..24 {
        let before = rows_of_closed(&mut session, &views, watermark).await?;
        for sql in changes(&mut random, epoch, &mut newest) {
            run(&mut session, &sql).await?;
        }
        put += put_in(&mut session, &mut views, &mut random).await?;
        run(&mut session, "ADVANCE BATCH").await?;
        let after = rows_of_closed(&mut session, &views, watermark).await?;
        for ((view, before), after) in views.iter_mut().zip(&before).zip(&after) {
            add(&mut view.late, before, -1);
            add(&mut view.late, after, 1);
        }
        watermark = newest.map(|newest| newest - DELAY).max(watermark);
        for view in &views {
            check(&mut session, &mut batch, view)
                .await
                .map_err(|error| format!("epoch {epoch}, {}: {error}", view.name))?;
        }
    }
    ensure(put > 50, || format!("only {put} rows were put in"))?;
    let mut shown = Vec::new();
    for view in &views {
        shown.push(everything(&mut session, view).await?);
    }
    engine.stop().await.map_err(|error| error.to_string())?;
    aside.stop().await.map_err(|error| error.to_string())?;
    let records = records.lock().map_err(|error| error.to_string())?.clone();
    replay(records, &shown).await
}

/// Returns statements that insert rows near the time of an epoch, some of them far behind, and that delete
/// some.
fn changes(random: &mut SmallRng, epoch: i64, newest: &mut Option<i64>) -> Vec<String> {
    let mut below = |bound: i64| random.random_range(0..bound);
    let mut changes = Vec::new();
    if below(3) == 0 {
        let about = time(epoch * 2 - below(40));
        changes.push(format!("DELETE FROM t WHERE v < 4 AND ts > {about} AND ts < {about} + INTERVAL '5 s'"));
    }
    let mut rows = Vec::new();
    for _ in 0..below(6) {
        let seconds = epoch * 2 + below(12) - if below(3) == 0 { 30 } else { 6 };
        rows.push(format!("({}, {}, {})", below(3), below(9), time(seconds)));
        *newest = (*newest).max(Some(seconds));
    }
    if !rows.is_empty() {
        changes.push(format!("INSERT INTO t VALUES {}", rows.join(", ")));
    }
    changes
}

/// Puts some late rows of some views into their windows, and returns their number.
async fn put_in(session: &mut Session, views: &mut [Expected], random: &mut SmallRng) -> Result<usize> {
    let mut put = 0;
    for view in views {
        let (name, columns) = (&view.name, view.columns);
        let condition = match random.random_range(0..6) {
            0 => "true".to_string(),
            1 => format!("k = {}", random.random_range(0..3)),
            2 => format!("_window > {}", time(random.random_range(0..40))),
            _ => continue,
        };
        let sql = format!("SELECT {columns}, _weight FROM late_rows('{name}') WHERE {condition}");
        for row in lines(session, &sql).await? {
            let (row, weight) = row.rsplit_once('|').ok_or("a row with its weight")?;
            add(
                &mut view.late,
                &[row.to_string()],
                -weight.parse::<i64>().map_err(|error| error.to_string())?,
            );
            put += 1;
        }
        run(session, &format!("INSERT INTO {name} SELECT * FROM late_rows('{name}') WHERE {condition}"))
            .await?;
    }
    Ok(put)
}

/// Returns, for each view, the rows of the table in windows that had closed at a watermark.
async fn rows_of_closed(
    session: &mut Session,
    views: &[Expected],
    watermark: Option<i64>,
) -> Result<Vec<Vec<String>>> {
    let mut all = Vec::new();
    for Expected { windows, columns, .. } in views {
        let Some(at) = watermark.map(time) else {
            all.push(Vec::new());
            continue;
        };
        all.push(lines(session, &format!("SELECT {columns} FROM {windows} WHERE window_end <= {at}")).await?);
    }
    Ok(all)
}

/// Checks that the view has the batch answer over all rows except the late ones, and that late_rows has
/// exactly these.
async fn check(session: &mut Session, batch: &mut Session, view: &Expected) -> Result<()> {
    let Expected { name, windows, columns, query, late } = view;
    let mut rows = Counts::new();
    add(&mut rows, &lines(session, &format!("SELECT {columns} FROM {windows}")).await?, 1);
    late.iter().for_each(|(row, weight)| *rows.entry(row.clone()).or_default() -= weight);
    let mut values = Vec::new();
    for (row, weight) in &rows {
        ensure(*weight >= 0, || format!("{row} counts {weight} times"))?;
        let value = format!("('{}')", row.split('|').collect::<Vec<_>>().join("', '"));
        values.extend((0..*weight).map(|_| value.clone()));
    }
    run(batch, "DELETE FROM rows").await?;
    if !values.is_empty() {
        run(batch, &format!("INSERT INTO rows ({columns}) VALUES {}", values.join(", "))).await?;
    }
    let expected = lines(batch, &query.replace("{rows}", "rows")).await?;
    for of in [name.clone(), format!("copy_of_{name}")] {
        let found = lines(session, &format!("SELECT * FROM {of}")).await?;
        ensure(found == expected, || format!("{of}: {found:#?} is not {expected:#?}"))?;
    }
    let sql = format!(
        "SELECT {columns}, sum(_weight) FROM late_rows('{name}') GROUP BY {columns} HAVING sum(_weight) <> 0"
    );
    let (found, late) = (lines(session, &sql).await?, late.iter());
    let late: Vec<String> = late.map(|(row, weight)| format!("{row}|{weight}")).collect();
    ensure(found == late, || format!("late rows: {found:#?}, not {late:#?}"))
}

async fn everything(session: &mut Session, view: &Expected) -> Result<[Vec<String>; 2]> {
    let rows = lines(session, &format!("SELECT * FROM {}", view.name)).await?;
    Ok([rows, lines(session, &format!("SELECT * FROM late_rows('{}')", view.name)).await?])
}

/// A second engine that replays the records ends with the same content.
async fn replay(records: Vec<Record>, expected: &[[Vec<String>; 2]]) -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let views = prepare(&mut session).await?;
    for record in records {
        engine.replay(record).await.map_err(|error| error.to_string())?;
    }
    for (view, expected) in views.iter().zip(expected) {
        let found = everything(&mut session, view).await?;
        ensure(found == *expected, || {
            format!("{} after a replay: {found:#?}, not {expected:#?}", view.name)
        })?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

/// Late rows of a source are read from it again; if it has changed, nothing is put in.
async fn files() -> Result<()> {
    let folder = folder()?;
    let path = folder.path();
    write(path, "1.csv", "1,2024-05-01 00:00:01\n2,2024-05-01 00:00:26\n")?;
    write(path, "2.csv", "3,2024-05-01 00:00:02\n4,2024-05-01 00:00:03\n")?;
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let source = format!(
        "CREATE SOURCE s (v INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') \
         WITH (connector = 'file', path = '{}', format = 'csv', header = false, bounded = true)",
        path.display()
    );
    let view = "CREATE MATERIALIZED VIEW sums AS SELECT window_start, sum(v) AS s \
                FROM TUMBLE(s, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end";
    run_all(&mut session, &["SET clock = 'manual'", "SET max_batch_rows = 2", &source, view]).await?;
    run(&mut session, "ADVANCE BATCH 4").await?;
    drive::expect(&mut session, "SELECT v FROM late_rows('sums')", &["3", "4"]).await?;
    let put = "INSERT INTO sums SELECT * FROM late_rows('sums')";
    run_all(&mut session, &[&format!("{put} WHERE v = 3"), "ADVANCE BATCH"]).await?;
    let after = ["2024-05-01T00:00:00|4", "2024-05-01T00:00:20|2"];
    drive::expect(&mut session, "SELECT * FROM sums", &after).await?;
    // A query that reads the source again has no late rows, and publishes the closed windows at once.
    let later = view.replace("VIEW sums", "VIEW later") + " EMIT ON WINDOW CLOSE";
    run(&mut session, &later).await?;
    drive::expect_soon(&mut session, "SELECT * FROM later", &["2024-05-01T00:00:00|8"]).await?;
    write(path, "1.csv", "9,2024-05-01 00:00:01\n2,2024-05-01 00:00:26\n")?;
    let error = run(&mut session, put).await.err().unwrap_or_default();
    ensure(error.contains("don't match the current content of its inputs"), || {
        format!("not refused: {error}")
    })?;
    drive::expect(&mut session, "SELECT * FROM sums", &after).await?;
    drive::expect(&mut session, "SELECT v FROM late_rows('sums')", &["4"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}
