//! Measures what more views of one aggregate over one join cost.
//!
//! ```text
//! cargo run --release --bin shared_parts -- [OPTIONS]
//!
//!   --rows N      how many orders there are, of a tenth as many customers (default 1000000)
//!   --changed N   how many orders an epoch inserts (default 1000)
//!   --epochs N    how many epochs are measured (default 50)
//! ```
//!
//! The engine maintains equal parts of queries once. So ten views should cost little more than one, in time and in state.
//! The yardsticks are one view, and an engine that maintains each view by itself; there, the views still share the rows that
//! their joins look up.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use millstream::{Engine, Session};
use millstream_benches::options::Options;
use millstream_benches::{Result, measure, yardstick};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "shared_parts [--rows 1000000] [--changed 1000] [--epochs 50]
Milliseconds an epoch, and the state, of several views of one aggregate over one join.";

/// Numbers of views.
const VIEWS: [usize; 3] = [1, 2, 10];

/// The first epochs build indexes.
const WARM_UP: usize = 3;

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(HELP, &[("rows", "1000000"), ("changed", "1000"), ("epochs", "50")])?;
    let input = Input { rows: options.number("rows")?, changed: options.number("changed")? };
    let epochs = options.number("epochs")?;
    println!(
        "{epochs} epochs of {} new orders of {}: milliseconds each, wall and CPU",
        input.changed, input.rows
    );
    println!("  {:>5}  {:>17} {:>9}  {:>17} {:>9}", "views", "shared", "MiB", "separate", "MiB");
    for views in VIEWS {
        let shared = input.run(Engine::start()?, views, epochs).await?;
        let separate = input.run(Engine::builder().separate_parts().start()?, views, epochs).await?;
        println!("  {views:>5}  {shared}  {separate}");
    }
    Ok(())
}

/// Returns the number that a query returns.
async fn number(session: &mut Session, sql: &str) -> Result<i64> {
    yardstick::number(&yardstick::rows(session, sql).await?)
}

/// The size of the input and of the changes.
struct Input {
    rows: usize,
    changed: usize,
}

impl Input {
    /// Returns the milliseconds of an epoch, in wall time and CPU time, and the MiB of the views' state.
    async fn run(&self, engine: Engine, views: usize, epochs: usize) -> Result<String> {
        let mut random = SmallRng::seed_from_u64(7);
        let mut session = engine.session();
        let customers = (self.rows / 10).max(1);
        session.execute("CREATE TABLE customers (id BIGINT PRIMARY KEY, city BIGINT)").await?;
        session.execute("CREATE TABLE orders (customer BIGINT, amount BIGINT)").await?;
        let filled = format!(
            "INSERT INTO customers SELECT i, i % 1000 FROM generate_series(0, {}) AS g(i)",
            customers - 1
        );
        session.execute(&filled).await?;
        session.insert("orders", self.orders(self.rows, customers, &mut random)?).await?;
        for view in 0..views {
            // No two of them are written alike.
            let query = format!(
                "SELECT customer, city, sum(amount) AS s{view}, max(amount) + {view} AS most \
                 FROM orders JOIN customers ON customer = customers.id GROUP BY customer, city"
            );
            session.execute(&format!("CREATE MATERIALIZED VIEW m{view} AS {query}")).await?;
        }
        let mut milliseconds = Vec::with_capacity(epochs);
        let mut cpu = measure::cpu_seconds()?;
        for epoch in 0..WARM_UP + epochs {
            if epoch == WARM_UP {
                milliseconds.clear();
                cpu = measure::cpu_seconds()?;
            }
            let rows = self.orders(self.changed, customers, &mut random)?;
            let start = Instant::now();
            session.insert("orders", rows).await?;
            milliseconds.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let cpu_ms = (measure::cpu_seconds()? - cpu) * 1e3 / epochs.max(1) as f64;
        let bytes =
            number(&mut session, "SELECT sum(state_bytes)::BIGINT FROM millstream.materialized_views")
                .await?;
        let expected = number(&mut session, "SELECT sum(amount)::BIGINT FROM orders").await?;
        for view in 0..views {
            let found = number(&mut session, &format!("SELECT sum(s{view})::BIGINT FROM m{view}")).await?;
            if found != expected {
                return Err(format!("the sums of m{view} are {found} together, not {expected}").into());
            }
        }
        engine.stop().await?;
        let mib = bytes as f64 / f64::from(1 << 20);
        Ok(format!("{:8.2} {:8.2} {mib:9.1}", measure::median(milliseconds), cpu_ms))
    }

    /// Returns new orders of random customers.
    fn orders(&self, rows: usize, customers: usize, random: &mut SmallRng) -> Result<RecordBatch> {
        let customer =
            Int64Array::from_iter_values((0..rows).map(|_| random.random_range(0..customers as i64)));
        let amount = Int64Array::from_iter_values((0..rows).map(|_| random.random_range(0..1000)));
        let columns: [(&str, ArrayRef); 2] = [("customer", Arc::new(customer)), ("amount", Arc::new(amount))];
        Ok(RecordBatch::try_from_iter(columns)?)
    }
}
