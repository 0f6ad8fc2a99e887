//! Measures an epoch of a thousand changed rows as the state grows, operator by operator.
//!
//! ```text
//! cargo run --release --bin state_size -- [OPTIONS]
//!
//!   --rows N      rows of the largest input; the others have a tenth, a hundredth, … of it (default 10000000)
//!   --smallest N  down to so many (default 10000)
//!   --epochs N    how many epochs are measured (default 15)
//!   --only TEXT   only the queries whose name holds this (default all)
//! ```
//!
//! An epoch inserts 500 rows and the next deletes 500 others, from anywhere in the table; both together are
//! one measurement. The cost should depend on the change, not on the state. The yardstick of each size is
//! the same query over fewer rows.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use millstream::{Engine, Session};
use millstream_benches::options::Options;
use millstream_benches::{Result, measure, yardstick};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "state_size [--rows 10000000] [--smallest 10000] [--epochs 15] [--only TEXT]
Milliseconds an epoch of 1,000 changed rows, by operator and by the rows that are there.";

/// Number of rows inserted, and number of rows deleted.
const CHANGED: u64 = 500;

/// Number of rows in each INSERT of the initial load.
const LOADED: u64 = 100_000;

/// The first deletes of a table build its index.
const WARM_UP: usize = 3;

/// A query over `t (id, k, v)`, and `u (k, w)`, which has each key once.
struct Case {
    name: &'static str,
    select: &'static str,
    /// Returns the number of keys for a number of rows.
    keys: fn(u64) -> u64,
}

const CASES: [Case; 8] = [
    Case { name: "join", select: "SELECT t.id, u.w FROM t JOIN u ON t.k = u.k", keys: |rows| rows },
    Case {
        name: "left join",
        select: "SELECT t.id, u.w FROM t LEFT JOIN u ON t.k = u.k",
        keys: |rows| 2 * rows,
    },
    Case {
        name: "aggregate",
        select: "SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k",
        keys: |rows| rows / 10,
    },
    Case { name: "min, max", select: "SELECT k, min(v) AS a, max(v) AS b FROM t GROUP BY k", keys: |_| 100 },
    Case {
        name: "count distinct",
        select: "SELECT k, count(DISTINCT v) AS n FROM t GROUP BY k",
        keys: |_| 100,
    },
    Case { name: "top 100", select: "SELECT id, v FROM t ORDER BY v DESC LIMIT 100", keys: |rows| rows / 10 },
    Case {
        name: "row_number <= 3",
        select: "SELECT k, id, v FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY v DESC) AS n FROM t) AS x \
                 WHERE n <= 3",
        keys: |_| 100,
    },
    Case {
        name: "lag, lead",
        select: "SELECT k, id, v - lag(v) OVER (PARTITION BY k ORDER BY id) AS a, \
                 lead(v) OVER (PARTITION BY k ORDER BY id) AS b FROM t",
        keys: |_| 100,
    },
];

#[tokio::main]
async fn main() -> Result<()> {
    let options =
        Options::read(HELP, &[("rows", "10000000"), ("smallest", "10000"), ("epochs", "15"), ("only", "")])?;
    let smallest = options.number("smallest")? as u64;
    let (largest, epochs) = (options.number("rows")? as u64, options.number("epochs")?);
    let only = options.text("only");
    let mut sizes: Vec<u64> = vec![largest];
    while let Some(smaller) = sizes.last().map(|rows| rows / 10).filter(|rows| *rows >= smallest.max(1)) {
        sizes.push(smaller);
    }
    println!(
        "{epochs} epochs of {} changed rows: milliseconds each, and what a row of the state takes",
        2 * CHANGED
    );
    println!("  {:>16} {:>10}  {:>8} {:>8} {:>9}", "query", "rows", "wall", "CPU", "bytes/row");
    for case in CASES.iter().filter(|case| case.name.contains(only)) {
        for rows in sizes.iter().rev() {
            case.run(*rows, epochs).await?;
        }
    }
    Ok(())
}

impl Case {
    async fn run(&self, rows: u64, epochs: usize) -> Result<()> {
        let engine = Engine::start()?;
        let mut session = engine.session();
        session.execute("SET whole_rows_max = 100000000").await?;
        session.execute("CREATE TABLE t (id BIGINT, k BIGINT, v BIGINT)").await?;
        session.execute("CREATE TABLE u (k BIGINT, w BIGINT)").await?;
        let keys = (self.keys)(rows).max(1);
        for from in (0..rows).step_by(LOADED as usize) {
            let upto = rows.min(from + LOADED);
            session.insert("t", self.batch(from..upto, keys)?).await?;
            if self.select.contains(" u ") {
                let ids = || Int64Array::from_iter_values(from as i64..upto as i64);
                session.insert("u", batch(&[("k", ids()), ("w", ids())])?).await?;
            }
        }
        session.execute(&format!("CREATE MATERIALIZED VIEW m AS {}", self.select)).await?;
        let mut milliseconds = Vec::with_capacity(epochs);
        let mut cpu = measure::cpu_seconds()?;
        for epoch in 0..(WARM_UP + epochs) as u64 {
            if epoch == WARM_UP as u64 {
                milliseconds.clear();
                cpu = measure::cpu_seconds()?;
            }
            let come = self.batch(rows + epoch * CHANGED..rows + (epoch + 1) * CHANGED, keys)?;
            // Each row is deleted once: the step and the number of rows are coprime.
            let go = (0..CHANGED).map(|n| ((epoch * CHANGED + n) * 7_368_787) % rows);
            let go = self.batch(go, keys)?;
            let start = Instant::now();
            session.insert("t", come).await?;
            session.delete_rows("t", go).await?;
            milliseconds.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let cpu = (measure::cpu_seconds()? - cpu) * 1e3 / epochs as f64;
        let bytes = bytes(&mut session).await?;
        let wall = measure::median(milliseconds);
        println!(
            "  {:>16} {rows:>10}  {wall:>8.2} {cpu:>8.2} {:>9.1}",
            self.name,
            bytes as f64 / rows as f64
        );
        engine.stop().await?;
        Ok(())
    }

    /// Returns the rows with these numbers: the same number has the same row.
    fn batch(&self, numbers: impl IntoIterator<Item = u64>, keys: u64) -> Result<RecordBatch> {
        let numbers: Vec<u64> = numbers.into_iter().collect();
        let column =
            |of: &dyn Fn(u64) -> u64| Int64Array::from_iter_values(numbers.iter().map(|n| of(*n) as i64));
        let (id, k) = (column(&|n| n), column(&|n| mixed(n) % keys));
        batch(&[("id", id), ("k", k), ("v", column(&|n| mixed(n + (1 << 40)) % 1_000_000_000))])
    }
}

/// Returns a pseudorandom number: the finalizer of SplitMix64.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn batch(columns: &[(&str, Int64Array)]) -> Result<RecordBatch> {
    let columns = columns.iter().map(|(name, column)| (*name, Arc::new(column.clone()) as ArrayRef));
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// Returns the state size of the view's operators.
async fn bytes(session: &mut Session) -> Result<i64> {
    let state = yardstick::rows(session, "EXPLAIN (STATE) m").await?;
    let mut sum = 0;
    for batch in &state {
        let Some(at) = batch.schema().fields().iter().position(|field| field.name().contains("bytes")) else {
            return Err("EXPLAIN (STATE) has no bytes".into());
        };
        let of_result =
            arrow::util::display::array_value_to_string(batch.column(0), 0)?.starts_with("Result");
        let numbers = arrow::compute::cast(batch.column(at), &arrow::datatypes::DataType::Int64)?;
        let numbers = numbers.as_any().downcast_ref::<Int64Array>().ok_or("bytes are no numbers")?;
        sum += numbers.iter().skip(usize::from(of_result)).flatten().sum::<i64>();
    }
    Ok(sum)
}
