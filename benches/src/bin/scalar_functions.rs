//! Measures functions of times and casts of numbers that Millstream computes in its own way.
//!
//! ```text
//! cargo run --release --bin scalar_functions -- [OPTIONS]
//!
//!   --rows N   how many rows each function is computed for (default 20000000)
//!   --runs N   how many times, of which the median counts (default 5)
//! ```
//!
//! The yardstick is DataFusion, with its functions, over the same rows in the same process. Times are in microseconds, as in a
//! TIMESTAMP, and in nanoseconds, as in a `TIMESTAMP(9)`.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, RecordBatch, TimestampMicrosecondArray, TimestampNanosecondArray,
};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use millstream::{Engine, Session};
use millstream_benches::options::Options;
use millstream_benches::{Result, measure, yardstick};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "scalar_functions [--rows 20000000] [--runs 5]
CPU milliseconds of functions over a table, beside DataFusion's functions.";

/// Rows of a batch.
const BATCH: usize = 8192;

/// Functions of a time, called `ts`, whose greatest value is asked for.
const OF_TIMES: [&str; 6] = [
    "ts",
    "date_trunc('hour', ts)",
    "date_trunc('month', ts)",
    "date_bin(INTERVAL '5 minutes', ts)",
    "date_bin(INTERVAL '1 month', ts)",
    "CASE WHEN ts < DATE '2020-01-01' THEN 1 ELSE 2 END",
];

/// Functions of a DOUBLE PRECISION called `d`.
const OF_NUMBERS: [&str; 2] = ["CAST(d AS BIGINT)", "CAST(round(d) AS BIGINT)"];

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(HELP, &[("rows", "20000000"), ("runs", "5")])?;
    let (rows, runs) = (options.number("rows")?, options.number("runs")?);
    let batches = batches(rows)?;
    let engine = Engine::start()?;
    let mut session = engine.session();
    session.execute("CREATE TABLE t (us TIMESTAMP, ns TIMESTAMP(9), d DOUBLE PRECISION)").await?;
    for batch in &batches {
        session.insert("t", batch.clone()).await?;
    }
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let table = MemTable::try_new(batches[0].schema(), vec![batches])?;
    context.register_table("t", Arc::new(table))?;

    println!("{rows} rows: CPU milliseconds, median of {runs}");
    println!("  {:<52} {:>10} {:>10} {:>6}", "", "Millstream", "DataFusion", "ratio");
    for (column, unit) in [("us", "microseconds"), ("ns", "nanoseconds")] {
        for function in OF_TIMES {
            let of = format!("{function} of {unit}");
            compare(&of, &function.replace("ts", column), &mut session, &context, runs).await?;
        }
    }
    for function in OF_NUMBERS {
        compare(function, function, &mut session, &context, runs).await?;
    }
    engine.stop().await?;
    Ok(())
}

/// Prints the cost of a function in both systems.
async fn compare(
    shown: &str,
    function: &str,
    session: &mut Session,
    context: &SessionContext,
    runs: usize,
) -> Result<()> {
    let sql = format!("SELECT max({function}) FROM t");
    let (mut ours, mut theirs) = (Vec::with_capacity(runs), Vec::with_capacity(runs));
    for _ in 0..runs {
        let (_, cost) = measure::measure(yardstick::rows(session, &sql)).await?;
        ours.push(cost);
        let run = async { Ok(millstream_batch::answer(context, &sql).await?) };
        theirs.push(measure::measure::<Vec<RecordBatch>>(run).await?.1);
    }
    let (ours, theirs) = (measure::median_cost(&ours).cpu_s * 1e3, measure::median_cost(&theirs).cpu_s * 1e3);
    println!("  {shown:<52} {ours:>10.0} {theirs:>10.0} {:>6.2}", ours / theirs);
    Ok(())
}

/// Returns rows of random times between 1970 and 2033, and random numbers.
fn batches(rows: usize) -> Result<Vec<RecordBatch>> {
    let mut random = SmallRng::seed_from_u64(7);
    let mut batches = Vec::new();
    let mut rest = rows;
    while rest > 0 {
        let count = rest.min(BATCH);
        let us: Vec<i64> = (0..count).map(|_| random.random_range(0..2_000_000_000_000_000)).collect();
        let ns = TimestampNanosecondArray::from_iter_values(us.iter().map(|us| us * 1_000));
        let d = Float64Array::from_iter_values((0..count).map(|_| random.random_range(-1e9..1e9)));
        let columns: [(&str, ArrayRef); 3] =
            [("us", Arc::new(TimestampMicrosecondArray::from(us))), ("ns", Arc::new(ns)), ("d", Arc::new(d))];
        batches.push(RecordBatch::try_from_iter(columns)?);
        rest -= count;
    }
    Ok(batches)
}
