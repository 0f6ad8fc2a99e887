//! Measures the longest epoch while state grows. Growing must not move the existing state.
//!
//! ```text
//! cargo run --release --bin growth -- [OPTIONS]
//!
//!   --rows N     how many rows come (default 5000000)
//!   --epoch N    how many rows an epoch brings (default 10000)
//!   --only TEXT  only the keys whose name holds this (default all)
//! ```
//!
//! Each row brings a new key to `count(*) … GROUP BY k` and to a join. If a full hash table were copied,
//! one epoch would take as long as all rows before it. The yardstick is the median epoch of the same run.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use millstream::Engine;
use millstream_benches::options::Options;
use millstream_benches::{Result, measure};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "growth [--rows 5000000] [--epoch 10000] [--only TEXT]
Milliseconds of the median and of the longest epoch while new keys come, by the type of the key.";

/// A type of keys, and the function from numbers to keys.
struct Case {
    name: &'static str,
    sql_type: &'static str,
    key: fn(&[i64]) -> ArrayRef,
}

const CASES: [Case; 3] = [
    Case { name: "integers", sql_type: "BIGINT", key: |n| Arc::new(Int64Array::from(n.to_vec())) },
    Case { name: "short texts", sql_type: "TEXT", key: |n| texts(n, |n| format!("{n}")) },
    Case { name: "long texts", sql_type: "TEXT", key: |n| texts(n, |n| format!("customer number {n:>20}")) },
];

fn texts(numbers: &[i64], of: fn(i64) -> String) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(numbers.iter().map(|n| of(*n))))
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(HELP, &[("rows", "5000000"), ("epoch", "10000"), ("only", "")])?;
    let (rows, epoch) = (options.number("rows")?, options.number("epoch")?.max(1));
    println!("{rows} rows in epochs of {epoch}, each with a new key: milliseconds");
    println!("  {:>12} {:>12}  {:>8} {:>8} {:>8}", "query", "key", "median", "p99", "longest");
    for case in CASES.iter().filter(|case| case.name.contains(options.text("only"))) {
        case.run("aggregate", "SELECT k, count(*) AS n FROM s GROUP BY k", rows, epoch).await?;
        case.run("join", "SELECT s.k, u.v FROM s JOIN u ON s.k = u.k", rows, epoch).await?;
    }
    Ok(())
}

impl Case {
    async fn run(&self, query: &str, select: &str, rows: usize, epoch: usize) -> Result<()> {
        let engine = Engine::start()?;
        let mut session = engine.session();
        session.execute(&format!("CREATE TABLE s (k {}) APPEND ONLY", self.sql_type)).await?;
        session.execute(&format!("CREATE TABLE u (k {}, v BIGINT)", self.sql_type)).await?;
        session.execute(&format!("CREATE MATERIALIZED VIEW m AS {select}")).await?;
        let mut milliseconds = Vec::with_capacity(rows / epoch);
        for from in (0..rows).step_by(epoch) {
            let numbers: Vec<i64> = (from..rows.min(from + epoch)).map(|n| n as i64).collect();
            let batch = RecordBatch::try_from_iter([("k", (self.key)(&numbers))])?;
            let start = Instant::now();
            session.insert("s", batch).await?;
            milliseconds.push(start.elapsed().as_secs_f64() * 1e3);
        }
        milliseconds.sort_by(f64::total_cmp);
        let longest = milliseconds.last().copied().unwrap_or(f64::NAN);
        let p99 = milliseconds.get(milliseconds.len() * 99 / 100).copied().unwrap_or(longest);
        let median = measure::median(milliseconds);
        println!("  {query:>12} {:>12}  {median:>8.2} {p99:>8.2} {longest:>8.2}", self.name);
        engine.stop().await?;
        Ok(())
    }
}
