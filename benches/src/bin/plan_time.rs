//! Measures the planning time of a SELECT with a random condition, beside DataFusion.
//!
//! ```text
//! cargo run --release --bin plan_time -- [OPTIONS]
//!
//!   --statements N   how many SELECTs (default 1000)
//!   --depth N        how deep conditions lie in one another at most (default 6)
//!   --views N        how many of them are made materialized views, too (default 200)
//! ```
//!
//! The conditions are of the kind in SQLite's test suite: comparisons, arithmetic, BETWEEN, IN, IS NULL and
//! NOT over columns of integers, floats and texts, combined by AND and OR. The tables are empty, so the
//! bench measures parsing and planning only.

use std::time::Instant;

use datafusion::prelude::SessionContext;
use millstream::Engine;
use millstream_benches::options::Options;
use millstream_benches::{Result, measure, yardstick};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "plan_time [--statements 1000] [--depth 6] [--views 200]
Milliseconds to plan SELECTs with random conditions, beside DataFusion.";

const TABLE: &str = "CREATE TABLE tab0 (pk INTEGER, col0 INTEGER, col1 DOUBLE, col2 TEXT, col3 INTEGER, col4 DOUBLE, \
                     col5 TEXT)";

#[tokio::main]
async fn main() -> Result<()> {
    let known = [("statements", "1000"), ("depth", "6"), ("views", "200")];
    let options = Options::read(HELP, &known)?;
    let (statements, depth) = (options.number("statements")?.max(1), options.number("depth")?);
    let mut random = SmallRng::seed_from_u64(7);
    let conditions: Vec<String> = (0..statements).map(|_| condition(&mut random, depth)).collect();

    let engine = Engine::start()?;
    let mut session = engine.session();
    session.execute(TABLE).await?;
    let theirs = SessionContext::new();
    millstream_batch::answer(&theirs, TABLE).await?;

    let (mut ours_ms, mut theirs_ms, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for condition in &conditions {
        let sql = format!("SELECT pk FROM tab0 WHERE {condition}");
        let start = Instant::now();
        yardstick::rows(&mut session, &sql).await?;
        let ours = start.elapsed().as_secs_f64() * 1e3;
        let start = Instant::now();
        millstream_batch::answer(&theirs, &sql).await?;
        let their = start.elapsed().as_secs_f64() * 1e3;
        ours_ms.push(ours);
        theirs_ms.push(their);
        ratios.push(ours / their);
    }
    let terms: usize =
        conditions.iter().map(|text| text.matches(" AND ").count() + text.matches(" OR ").count() + 1).sum();
    println!("{statements} SELECTs, conditions of {:.1} terms on average", terms as f64 / statements as f64);
    let total = |all: &[f64]| all.iter().sum::<f64>();
    println!(
        "  all              {:9.0} ms  (DataFusion: {:.0} ms, ratio {:.2})",
        total(&ours_ms),
        total(&theirs_ms),
        total(&ours_ms) / total(&theirs_ms)
    );
    let (ours, their) = (sorted(ours_ms), sorted(theirs_ms));
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("most", 1.0)] {
        println!("  {name:<16} {:9.2} ms  (DataFusion: {:.2} ms)", at(&ours, share), at(&their, share));
    }
    let ratios = sorted(ratios);
    println!(
        "  ratio by statement: p50 {:.2}, p99 {:.2}, most {:.2}",
        at(&ratios, 0.5),
        at(&ratios, 0.99),
        at(&ratios, 1.0)
    );

    let mut made = Vec::new();
    for (number, condition) in conditions.iter().take(options.number("views")?).enumerate() {
        let sql = format!("CREATE MATERIALIZED VIEW v{number} AS SELECT pk FROM tab0 WHERE {condition}");
        let start = Instant::now();
        session.execute(&sql).await?;
        made.push(start.elapsed().as_secs_f64() * 1e3);
    }
    println!("  CREATE MATERIALIZED VIEW of {}: median {:.2} ms", made.len(), measure::median(made));
    Ok(engine.stop().await?)
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn at(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

/// Returns a random condition of at most this depth.
fn condition(random: &mut SmallRng, depth: usize) -> String {
    let choice = if depth == 0 { 0 } else { random.random_range(0..4) };
    match choice {
        0 => term(random),
        1 => format!("NOT ({})", condition(random, depth - 1)),
        other => {
            let operator = if other == 2 { "AND" } else { "OR" };
            let left = condition(random, depth - 1);
            format!("({left} {operator} {})", condition(random, depth - 1))
        }
    }
}

/// Returns a random comparison of a column.
fn term(random: &mut SmallRng) -> String {
    let column = ["col0", "col3", "pk", "col1", "col4", "col2", "col5"][random.random_range(0..7)];
    let value = |random: &mut SmallRng| match column {
        "col1" | "col4" => format!("{:.2}", random.random_range(0.0..1000.0)),
        "col2" | "col5" => format!("'t{}'", random.random_range(0..1000)),
        _ => random.random_range(1..1000).to_string(),
    };
    let is_text = column == "col2" || column == "col5";
    let comparison = ["=", "<", ">", "<=", ">=", "<>"][random.random_range(0..6)];
    match random.random_range(0..6) {
        0 => format!("{column} IS NULL"),
        1 => format!("{column} BETWEEN {} AND {}", value(random), value(random)),
        2 => {
            let values: Vec<String> = (0..random.random_range(2..6)).map(|_| value(random)).collect();
            format!("{column} IN ({})", values.join(", "))
        }
        3 if !is_text => format!("{column} + {} * col0 {comparison} {}", value(random), value(random)),
        _ => format!("{column} {comparison} {}", value(random)),
    }
}
