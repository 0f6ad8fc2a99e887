//! Measures an epoch of ten rows through a filter and an aggregate.
//!
//! ```text
//! cargo run --release --bin small_epoch -- [OPTIONS]
//!
//!   --epochs N   how many epochs a run (default 10000)
//!   --rows N     how many rows an epoch (default 10)
//!   --runs N     how many runs (default 5)
//! ```
//!
//! Two figures: epochs fed by a source, back to back inside the loop (`ADVANCE BATCH n`); and epochs that a
//! session starts one by one with ten rows and waits for, including the way through two threads and back.
//! The yardstick is DataFusion planning and running the same query once over the same ten rows.

mod ten_rows;

use std::sync::Arc;
use std::time::Instant;

use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use millstream::{Engine, Session};
use millstream_benches::options::Options;
use millstream_benches::{Result, measure, yardstick};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "small_epoch [--epochs 10000] [--rows 10] [--runs 5]
Microseconds an epoch of ten rows through a filter and an aggregate.";

const SELECT: &str = "SELECT k, count(*) AS c, sum(v) AS s";
const WHERE: &str = "WHERE v > 2 GROUP BY k";

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(HELP, &[("epochs", "10000"), ("rows", "10"), ("runs", "5")])?;
    let (epochs, rows) = (options.number("epochs")?, options.number("rows")?);
    let (mut looped, mut one_by_one, mut planned) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.number("runs")? {
        looped.push(in_the_loop(epochs, rows).await?);
        one_by_one.push(through_a_session(epochs, rows).await?);
        planned.push(planned_each_time(epochs.div_ceil(20), rows).await?);
    }
    println!("epochs of {rows} rows through a filter and an aggregate, {epochs} a run");
    println!("  inside the loop, from a source        {:8.1} us an epoch", measure::median(looped));
    println!("  Session::insert, waited for each      {:8.1} us an epoch", measure::median(one_by_one));
    println!("  DataFusion, planned and run each time {:8.1} us", measure::median(planned));
    Ok(())
}

/// Fails unless the query's answer after `epochs` epochs counts every row that passes the filter.
async fn check(session: &mut Session, relation: &str, epochs: usize, rows: usize) -> Result<()> {
    let counted = yardstick::rows(session, &format!("SELECT sum(c) FROM {relation}")).await?;
    let expected = ten_rows::passing(rows) * epochs;
    let found = yardstick::number(&counted)?;
    if found == expected as i64 {
        Ok(())
    } else {
        Err(format!("{found} rows were counted, not {expected}").into())
    }
}

async fn in_the_loop(epochs: usize, rows: usize) -> Result<f64> {
    let engine = Engine::builder().connector(Arc::new(ten_rows::TenRows)).start()?;
    let mut session = engine.session();
    for sql in [
        "SET clock = 'manual'",
        &format!("SET max_batch_rows = {rows}"),
        "CREATE SOURCE t WITH (connector = 'ten_rows')",
        &format!("CREATE MATERIALIZED VIEW m AS {SELECT} FROM t {WHERE}"),
        "ADVANCE BATCH 100",
    ] {
        session.execute(sql).await?;
    }
    let start = Instant::now();
    session.execute(&format!("ADVANCE BATCH {epochs}")).await?;
    let microseconds = start.elapsed().as_secs_f64() * 1e6 / epochs as f64;
    check(&mut session, "m", epochs + 100, rows).await?;
    engine.stop().await?;
    Ok(microseconds)
}

async fn through_a_session(epochs: usize, rows: usize) -> Result<f64> {
    let engine = Engine::start()?;
    let mut session = engine.session();
    session.execute("CREATE TABLE t (k BIGINT, v BIGINT)").await?;
    session.execute(&format!("CREATE MATERIALIZED VIEW m AS {SELECT} FROM t {WHERE}")).await?;
    let batch = ten_rows::batch(0, rows)?;
    let start = Instant::now();
    for _ in 0..epochs {
        session.insert("t", batch.clone()).await?;
    }
    let microseconds = start.elapsed().as_secs_f64() * 1e6 / epochs as f64;
    check(&mut session, "m", epochs, rows).await?;
    engine.stop().await?;
    Ok(microseconds)
}

async fn planned_each_time(times: usize, rows: usize) -> Result<f64> {
    let context = SessionContext::new();
    let batch = ten_rows::batch(0, rows)?;
    context.register_table("t", Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))?;
    let start = Instant::now();
    for _ in 0..times {
        millstream_batch::answer(&context, &format!("{SELECT} FROM t {WHERE}")).await?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / times as f64)
}
