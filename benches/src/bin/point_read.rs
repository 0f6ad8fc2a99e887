//! Measures the latency of a SELECT of one key of a view while the view is updated.
//!
//! ```text
//! cargo run --release --bin point_read -- [OPTIONS]
//!
//!   --keys N      how many keys the view has (default 1000000)
//!   --rate N      SELECTs a second (default 1000)
//!   --updates N   rows that change a second, in a hundred statements (default 10000)
//!   --seconds N   how long (default 20)
//! ```
//!
//! The SELECT is prepared once, in a session of this process, and runs with another key each time. A
//! SELECT's time counts from its scheduled start, so waiting for the previous one is included. At a rate of
//! 1,000, 99 of 100 must take less than two milliseconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use millstream::arrow::array::{ArrayRef, Int64Array, RecordBatch};
use millstream::{Engine, Prepared, Response, Session};
use millstream_benches::Result;
use millstream_benches::options::Options;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "point_read [--keys 1000000] [--rate 1000] [--updates 10000] [--seconds 20]
Milliseconds of a prepared SELECT of one key of a view that is updated.";

/// Number of updating statements a second.
const STATEMENTS: usize = 100;

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(
        HELP,
        &[("keys", "1000000"), ("rate", "1000"), ("updates", "10000"), ("seconds", "20")],
    )?;
    let (keys, rate) = (options.number("keys")?.max(1), options.number("rate")?.max(1));
    let (updates, seconds) = (options.number("updates")?, options.number("seconds")?);
    let engine = Engine::start()?;
    let mut session = engine.session();
    for sql in [
        "CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT, v BIGINT)",
        "CREATE MATERIALIZED VIEW m AS SELECT k, count(*) AS c, sum(v) AS s FROM t GROUP BY k",
        &format!(
            "INSERT INTO t SELECT value, value % {keys} AS k, 1 AS v FROM generate_series(0, {}) AS g(value)",
            keys - 1
        ),
    ] {
        session.execute(sql).await?;
    }
    let prepared =
        session.prepare("SELECT c, s FROM m WHERE k = $1", &[]).await?.ok_or("it is a statement")?;
    let end = Instant::now() + Duration::from_secs(seconds as u64);
    let updating = tokio::spawn(update(engine.session(), keys, updates, end));
    let mut times = read(&mut session, &prepared, keys, rate, end).await?;
    let changed = updating.await??;
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{keys} keys, {} SELECTs, {changed} rows changed, {seconds} seconds", times.len());
    println!(
        "  p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, most {:.3} ms",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    Ok(engine.stop().await?)
}

/// Reads one key after the other. Returns the milliseconds since the scheduled start of each read.
async fn read(
    session: &mut Session,
    prepared: &Prepared,
    keys: usize,
    rate: usize,
    end: Instant,
) -> Result<Vec<f64>> {
    let start = Instant::now();
    let mut times = Vec::new();
    for number in 0_u64.. {
        let due = start + Duration::from_secs(1) * number as u32 / rate as u32;
        if due >= end {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let key = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % keys as u64;
        let value: ArrayRef = Arc::new(Int64Array::from(vec![key as i64]));
        let Response::Rows(rows) = session.execute_prepared(prepared, &[value]).await? else {
            return Err("a SELECT gives rows".into());
        };
        let batches: Vec<RecordBatch> = rows.try_collect().await?;
        if batches.iter().map(RecordBatch::num_rows).sum::<usize>() != 1 {
            return Err(format!("key {key} has one row: {batches:?}").into());
        }
        times.push(due.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// Changes rows until the end. Returns their number.
async fn update(mut session: Session, keys: usize, updates: usize, end: Instant) -> Result<usize> {
    let each = updates / STATEMENTS;
    let (start, mut changed) = (Instant::now(), 0);
    for number in 0_u64.. {
        let due = start + Duration::from_secs(1) * number as u32 / STATEMENTS as u32;
        if due >= end || each == 0 {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let first = (number as usize * each) % keys;
        let ids = || (0..each).map(|row| ((first + row) % keys) as i64);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(Int64Array::from_iter_values(ids()))),
            ("k", Arc::new(Int64Array::from_iter_values(ids()))),
            ("v", Arc::new(Int64Array::from_iter_values(ids().map(|id| id + number as i64)))),
        ];
        session.insert("t", RecordBatch::try_from_iter(columns)?).await?;
        changed += each;
    }
    Ok(changed)
}
