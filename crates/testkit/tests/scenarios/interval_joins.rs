//! Interval joins have the batch answer over all rows that arrived in time, and deletes that did. Late rows
//! are counted and change nothing. The joins keep no row that nothing in time could match or retract.
//!
//! The model stores the rows in time in tables without a watermark, and queries these as a batch.

use millstream_engine::{Engine, Session};
use millstream_seeds::Random;
use millstream_testkit::drive::{self, Result, ensure, lines, run, seeds};

use super::{Scenario, time};

pub const ALL: &[Scenario] =
    &[("interval_joins_equal_the_batch_over_what_came_in_time", || drive::block_on(random()))];

/// The delays of the watermarks in seconds.
const DELAYS: [i64; 2] = [4, 7];

/// Rows of `b` match within these seconds before and after rows of `a`.
const BEFORE: i64 = 3;
const AFTER: i64 = 6;

/// Returns the join condition: bounds of times, or their difference.
fn condition(apart: bool) -> String {
    let times = match apart {
        false => {
            format!("b.ts BETWEEN a.ts - INTERVAL '{BEFORE} seconds' AND a.ts + INTERVAL '{AFTER} seconds'")
        }
        true => format!(
            "b.ts - a.ts <= INTERVAL '{AFTER} seconds' AND INTERVAL '{BEFORE} seconds' >= a.ts - b.ts"
        ),
    };
    format!("a.k = b.k AND {times} AND a.v + b.v <> 9")
}

/// Returns the joins, over tables that end with a suffix.
fn queries(suffix: &str, apart: bool) -> Vec<String> {
    let (on, tables) = (condition(apart), |kind: &str| format!("a{suffix} a {kind} JOIN b{suffix} b"));
    let mut all: Vec<String> = ["INNER", "LEFT", "RIGHT", "FULL"]
        .iter()
        .map(|kind| {
            format!("SELECT a.k, a.v, a.ts, b.k AS bk, b.v AS bv, b.ts AS bts FROM {} ON {on}", tables(kind))
        })
        .collect();
    for exists in ["EXISTS", "NOT EXISTS"] {
        all.push(format!(
            "SELECT k, v, ts FROM a{suffix} a WHERE {exists} (SELECT 1 FROM b{suffix} b WHERE {on})"
        ));
    }
    all
}

/// Returns the condition under which rows without a match are final, by query. The other queries only have
/// rows that match.
fn finals(closed: [Option<i64>; 2]) -> Vec<Option<String>> {
    let [a, b] = closed.map(|at| at.map(time));
    let none = || "false".to_string();
    let of_a = b.map_or_else(none, |b| {
        format!("(a.k IS NULL OR a.ts IS NULL OR a.ts + INTERVAL '{AFTER} seconds' < {b})")
    });
    let of_b = a.map_or_else(none, |a| {
        format!("(b.k IS NULL OR b.ts IS NULL OR b.ts < {a} - INTERVAL '{BEFORE} seconds')")
    });
    let (of_a, of_b) = (
        format!("(b.v IS NULL AND (a.k IS NULL OR {of_a}))"),
        format!("(a.v IS NULL AND (b.k IS NULL OR {of_b}))"),
    );
    let pairs = "(a.v IS NOT NULL AND b.v IS NOT NULL)";
    vec![
        None,
        Some(format!("WHERE {pairs} OR {of_a}")),
        Some(format!("WHERE {pairs} OR {of_b}")),
        Some(format!("WHERE {pairs} OR {of_a} OR {of_b}")),
        None,
        Some(format!("AND {}", of_a.replace("b.v IS NULL AND", ""))),
    ]
}

async fn random() -> Result<()> {
    for seed in seeds(&[0, 1], 0..4) {
        run_seed(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

/// The state of a side.
#[derive(Clone, Copy, Default)]
struct Known {
    newest: Option<i64>,
    /// The time below which rows are late: its watermark after the last epoch.
    closed: Option<i64>,
    /// The number of late rows, of the table with deletes and of the append-only one.
    late: [i64; 2],
}

async fn made(session: &mut Session, apart: bool) -> Result<()> {
    run(session, "SET clock = 'manual'").await?;
    for (name, delay) in ["a", "b"].iter().zip(DELAYS) {
        let columns = "(k INT, v INT, ts TIMESTAMP";
        let watermark = format!("WATERMARK FOR ts AS ts - INTERVAL '{delay} seconds')");
        run(session, &format!("CREATE TABLE {name} {columns}, {watermark}")).await?;
        run(session, &format!("CREATE TABLE {name}_only {columns}, {watermark} APPEND ONLY")).await?;
        run(session, &format!("CREATE TABLE {name}_in {columns})")).await?;
        run(session, &format!("CREATE TABLE {name}_only_in {columns})")).await?;
    }
    for (at, (query, only)) in queries("", apart).iter().zip(queries("_only", apart)).enumerate() {
        run(session, &format!("CREATE MATERIALIZED VIEW q{at} AS {query}")).await?;
        run(session, &format!("CREATE MATERIALIZED VIEW only{at} AS {only}")).await?;
        run(session, &format!("CREATE MATERIALIZED VIEW final{at} AS {only} EMIT ON WINDOW CLOSE")).await?;
    }
    Ok(())
}

async fn run_seed(seed: u64) -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    made(&mut session, seed % 2 == 1).await?;
    let mut random = Random(seed);
    let mut sides = [Known::default(); 2];
    for epoch in 0..30 {
        let mut changes = Vec::new();
        for (at, name) in ["a", "b"].into_iter().enumerate() {
            let side = &mut sides[at];
            delete(&mut session, &mut random, (name, side), epoch, &mut changes).await?;
            insert(&mut random, (name, side), epoch, &mut changes);
        }
        for sql in &changes {
            run(&mut session, sql).await?;
        }
        run(&mut session, "ADVANCE BATCH").await?;
        for (side, delay) in sides.iter_mut().zip(DELAYS) {
            side.closed = side.newest.map(|newest| newest - delay).max(side.closed);
        }
        check(&mut session, &sides).await.map_err(|error| format!("epoch {epoch}: {error}"))?;
    }
    ensure(sides.iter().all(|side| side.late.iter().all(|late| *late > 0)), || "nothing was late".into())?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Deletes some rows of a side with deletes; rows in time also from the model's table.
async fn delete(
    session: &mut Session,
    random: &mut Random,
    (name, side): (&str, &mut Known),
    epoch: i64,
    changes: &mut Vec<String>,
) -> Result<()> {
    if random.number(3) > 0 {
        return Ok(());
    }
    let about = time(epoch * 2 - random.number(24));
    let these = format!("v < 4 AND (ts > {about} AND ts < {about} + INTERVAL '8 s' OR ts IS NULL)");
    changes.push(format!("DELETE FROM {name} WHERE {these}"));
    let in_time = match side.closed {
        None => "true".into(),
        Some(closed) => format!("(ts IS NULL OR ts >= {})", time(closed)),
    };
    changes.push(format!("DELETE FROM {name}_in WHERE {these} AND {in_time}"));
    let late = format!("SELECT count(*) FROM {name} WHERE {these} AND NOT {in_time}");
    side.late[0] += number(session, &late).await?;
    Ok(())
}

fn insert(random: &mut Random, (name, side): (&str, &mut Known), epoch: i64, changes: &mut Vec<String>) {
    let (mut all, mut in_time) = (Vec::new(), Vec::new());
    for _ in 0..random.number(6) {
        let seconds = epoch * 2 + random.number(10) - if random.number(4) == 0 { 20 } else { 5 };
        let seconds = Some(seconds).filter(|_| random.number(12) > 0);
        let k = if random.number(10) == 0 { "NULL".to_string() } else { random.number(2).to_string() };
        let row = format!("({k}, {}, {})", random.number(9), seconds.map_or("NULL".into(), time));
        if side.closed.zip(seconds).is_some_and(|(closed, seconds)| seconds < closed) {
            side.late[0] += 1;
            side.late[1] += 1;
        } else {
            in_time.push(row.clone());
        }
        all.push(row);
        side.newest = side.newest.max(seconds);
    }
    for (tables, rows) in [(["", "_only"], all), (["_in", "_only_in"], in_time)] {
        for table in tables.iter().filter(|_| !rows.is_empty()) {
            changes.push(format!("INSERT INTO {name}{table} VALUES {}", rows.join(", ")));
        }
    }
}

async fn number(session: &mut Session, sql: &str) -> Result<i64> {
    let found = lines(session, sql).await?;
    let number = found.first().and_then(|line| line.parse().ok());
    number.ok_or_else(|| format!("{sql} gave {found:?}"))
}

async fn check(session: &mut Session, sides: &[Known; 2]) -> Result<()> {
    let closed = sides.map(|side| side.closed);
    let finals = finals(closed);
    for (at, (query, only)) in queries("_in", false).iter().zip(queries("_only_in", false)).enumerate() {
        let when = finals[at].clone().unwrap_or_default();
        let views = [
            (format!("q{at}"), query.clone()),
            (format!("only{at}"), only.clone()),
            (format!("final{at}"), format!("{only} {when}")),
        ];
        for (view, query) in views {
            let found = lines(session, &format!("SELECT * FROM {view}")).await?;
            let expected = lines(session, &query).await?;
            ensure(found == expected, || format!("{view}: {found:#?} is not {expected:#?}, {query}"))?;
        }
    }
    for (views, suffix) in [(["q"].as_slice(), 0), (["only", "final"].as_slice(), 1)] {
        let late = sides.iter().map(|side| side.late[suffix]).sum::<i64>();
        let kept = number(session, &kept(closed, suffix)).await?;
        for view in views {
            let sql = format!(
                "SELECT DISTINCT late_rows, state_rows FROM millstream.operators WHERE operator = 'Join' AND query LIKE '{view}%'"
            );
            let found = lines(session, &sql).await?;
            ensure(found == [format!("{late}|{kept}")], || {
                format!("{view}: {found:?}, not {late} late and {kept} kept")
            })?;
        }
    }
    Ok(())
}

/// Returns a query for the number of rows of both sides that something in time could still match or retract.
fn kept(closed: [Option<i64>; 2], suffix: usize) -> String {
    let updates = suffix == 0;
    let table = if updates { "_in" } else { "_only_in" };
    let bounds = [
        closed[1].map(|b| format!("ts + INTERVAL '{AFTER} seconds' < {}", time(b))),
        closed[0].map(|a| format!("ts < {} - INTERVAL '{BEFORE} seconds'", time(a))),
    ];
    let of = |at: usize| {
        let name = ["a", "b"][at];
        let passed = bounds[at].clone().map_or("false".into(), |bound| match updates {
            true => format!("({bound} AND ts < {})", closed[at].map_or("NULL".into(), time)),
            false => format!("({bound} OR ts IS NULL)"),
        });
        format!("(SELECT count(*) FROM {name}{table} WHERE k IS NOT NULL AND {passed} IS NOT TRUE)")
    };
    format!("SELECT {} + {}", of(0), of(1))
}
