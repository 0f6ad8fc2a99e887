//! Measures an epoch that changes some partitions of `row_number() OVER (PARTITION BY …)`.
//!
//! ```text
//! cargo run --release --bin per_key -- [OPTIONS]
//!
//!   --touched N   how many partitions an epoch touches, with a new row each (default 100)
//!   --epochs N    how many epochs are measured (default 50)
//! ```
//!
//! The cost should depend on the rows of those partitions only. So two series are measured: a growing
//! number of partitions of ten rows, where it should stay constant; and 10,000 partitions with a growing
//! number of rows, where it should grow. The yardstick is the operator Whole, which runs the query again
//! over all rows.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use millstream::Engine;
use millstream_benches::options::Options;
use millstream_benches::{Result, measure, yardstick};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "per_key [--touched 100] [--epochs 50]
Milliseconds an epoch that touches some partitions of row_number() OVER (PARTITION BY …).";

const SELECT: &str = "SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v) AS n FROM t";

/// Numbers of partitions, and of rows in each.
const SIZES: [(usize, usize); 5] = [(1_000, 10), (10_000, 10), (100_000, 10), (10_000, 30), (10_000, 100)];

/// Maximum rows of an input for Whole.
const WHOLE_ROWS_MAX: usize = 100_000;

/// The first retractions of a result build its index.
const WARM_UP: usize = 2;

/// Number of measured epochs of Whole.
const WHOLE_EPOCHS: usize = 5;

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(HELP, &[("touched", "100"), ("epochs", "50")])?;
    let (touched, epochs) = (options.number("touched")?, options.number("epochs")?);
    println!(
        "{epochs} epochs that touch {touched} partitions of row_number(): milliseconds each, wall and CPU"
    );
    println!("  {:>10} {:>5} {:>10}  {:>17} {:>17}", "partitions", "rows", "in all", "PerKey", "Whole");
    for (partitions, rows) in SIZES {
        let input = Input { partitions, rows, touched: touched.min(partitions) };
        let per_key = input.run(Engine::start()?, epochs).await?;
        let whole = if partitions * rows <= WHOLE_ROWS_MAX {
            let engine = Engine::builder().whole_only().start()?;
            input.run(engine, epochs.min(WHOLE_EPOCHS)).await?
        } else {
            String::new()
        };
        let all = partitions * rows;
        println!("  {partitions:>10} {rows:>5} {all:>10}  {per_key} {whole}");
    }
    Ok(())
}

/// The size of the input and of the changes.
struct Input {
    partitions: usize,
    rows: usize,
    touched: usize,
}

impl Input {
    /// Returns the milliseconds of an epoch, in wall time and CPU time.
    async fn run(&self, engine: Engine, epochs: usize) -> Result<String> {
        let mut random = SmallRng::seed_from_u64(7);
        let mut session = engine.session();
        session.execute("SET whole_rows_max = 10000000").await?;
        session.execute("CREATE TABLE t (k BIGINT, v BIGINT)").await?;
        for _ in 0..self.rows {
            session.insert("t", batch(0..self.partitions, &mut random)?).await?;
        }
        session.execute(&format!("CREATE MATERIALIZED VIEW m AS {SELECT}")).await?;
        let mut milliseconds = Vec::with_capacity(epochs);
        let mut cpu = measure::cpu_seconds()?;
        for epoch in 0..WARM_UP + epochs {
            if epoch == WARM_UP {
                milliseconds.clear();
                cpu = measure::cpu_seconds()?;
            }
            let keys: Vec<usize> =
                (0..self.touched).map(|_| random.random_range(0..self.partitions)).collect();
            let rows = batch(keys.into_iter(), &mut random)?;
            let start = Instant::now();
            session.insert("t", rows).await?;
            milliseconds.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let cpu_ms = (measure::cpu_seconds()? - cpu) * 1e3 / epochs as f64;
        let counted = yardstick::rows(&mut session, "SELECT count(*) FROM m").await?;
        let expected = self.partitions * self.rows + self.touched * (WARM_UP + epochs);
        let found = yardstick::number(&counted)?;
        if found != expected as i64 {
            return Err(format!("the view has {found} rows, not {expected}").into());
        }
        engine.stop().await?;
        Ok(format!("{:8.2} {:8.2}", measure::median(milliseconds), cpu_ms))
    }
}

/// Returns a row for each of these partitions.
fn batch(keys: impl Iterator<Item = usize>, random: &mut SmallRng) -> Result<RecordBatch> {
    let keys = Int64Array::from_iter_values(keys.map(|key| key as i64));
    let values = Int64Array::from_iter_values((0..keys.len()).map(|_| random.random_range(0..1_000_000_000)));
    let columns: [(&str, ArrayRef); 2] = [("k", Arc::new(keys)), ("v", Arc::new(values))];
    Ok(RecordBatch::try_from_iter(columns)?)
}
