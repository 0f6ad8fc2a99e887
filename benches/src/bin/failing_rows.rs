//! Measures what rows cost for which an expression fails, beside the same rows when it doesn't.
//!
//! ```text
//! cargo run --release --bin failing_rows -- [OPTIONS]
//!
//!   --rows N     rows of each view (default 1000000)
//!   --rounds N   how often each view is made (default 5)
//! ```
//!
//! Makes a view over a table of which every row passes, one row in ten fails, or every row fails. The rows that
//! fail are counted by `millstream.errors`, and the view has the others.

use std::time::Instant;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use millstream::{Engine, Session};
use millstream_benches::options::Options;
use millstream_benches::{Result, measure, yardstick};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "failing_rows [--rows 1000000] [--rounds 5]
Milliseconds to make views of which no rows, some rows or all rows fail.";

/// An expression over the columns of `t`, whose column is the share of rows that fail in percent.
const EXPRESSIONS: &[(&str, &str)] = &[
    ("division by zero", "id / z{share}"),
    ("an integer out of range", "id + o{share}"),
    ("a text that is no number", "CAST(s{share} AS BIGINT)"),
    ("a CASE with a division", "CASE WHEN id > 0 THEN id / z{share} ELSE 0 END"),
    ("a condition that fails", "id / z{share} > 5 AND id > 0"),
];

const SHARES: [usize; 3] = [0, 10, 100];

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(HELP, &[("rows", "1000000"), ("rounds", "5")])?;
    let (rows, rounds) = (options.number("rows")?, options.number("rounds")?.max(1));
    let engine = Engine::start()?;
    let mut session = engine.session();
    let fails = |share: usize| format!("i % 100 < {share}");
    let columns: Vec<String> = SHARES
        .iter()
        .map(|share| {
            let fails = fails(*share);
            format!(
                "CASE WHEN {fails} THEN 0 ELSE 7 END AS z{share}, \
                 CASE WHEN {fails} THEN 9223372036854775807 ELSE 7 END AS o{share}, \
                 CASE WHEN {fails} THEN 'x' || i ELSE i::TEXT END AS s{share}"
            )
        })
        .collect();
    let types = SHARES.map(|share| format!("z{share} BIGINT, o{share} BIGINT, s{share} TEXT")).join(", ");
    session.execute(&format!("CREATE TABLE t (id BIGINT, {types})")).await?;
    let fill = format!("INSERT INTO t SELECT i, {} FROM generate_series(1, {rows}) g(i)", columns.join(", "));
    session.execute(&fill).await?;
    println!("{rows} rows in each view, medians of {rounds}");
    for (name, expression) in EXPRESSIONS {
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            for (share, times) in SHARES.iter().zip(&mut times) {
                times.push(
                    made(&mut session, &expression.replace("{share}", &share.to_string()), rows, *share)
                        .await?,
                );
            }
        }
        let [none, some, all] = times.map(measure::median);
        println!(
            "  {name:<26} none {none:7.1} ms, one in ten {some:7.1} ms ({:.2} times), all {all:7.1} ms ({:.2} times)",
            some / none,
            all / none
        );
    }
    Ok(engine.stop().await?)
}

/// Makes a view and checks how many rows it has. Returns the milliseconds.
async fn made(session: &mut Session, expression: &str, rows: usize, share: usize) -> Result<f64> {
    let began = Instant::now();
    session
        .execute(&format!(
            "CREATE MATERIALIZED VIEW v WITH (on_error = 'keep') AS SELECT id, {expression} AS x FROM t"
        ))
        .await?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    let passed = rows - rows / 100 * share;
    let found = yardstick::rows(session, "SELECT count(*) AS n FROM v").await?;
    let found: i64 = found.iter().map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0)).sum();
    if found != passed as i64 {
        return Err(format!("{expression}: the view has {found} rows, not {passed}").into());
    }
    session.execute("DROP MATERIALIZED VIEW v").await?;
    Ok(took)
}
