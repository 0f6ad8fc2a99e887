//! State is freed together with its owner, according to the engine's accounts.

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run_all};

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("what_a_drop_frees_is_freed", || drive::block_on(dropped())),
    ("rows_that_go_leave_nothing_behind", || drive::block_on(deleted())),
];

const VIEWS: &[&str] = &[
    "CREATE MATERIALIZED VIEW totals AS SELECT customer, sum(amount) AS s, max(amount) AS m, count(DISTINCT amount) AS d \
     FROM orders GROUP BY customer",
    "CREATE MATERIALIZED VIEW named AS SELECT o.id, c.name FROM orders AS o JOIN customers AS c ON o.customer = c.id",
    "CREATE MATERIALIZED VIEW ranked AS SELECT id, row_number() OVER (PARTITION BY customer ORDER BY amount, id) AS r \
     FROM orders",
    "CREATE MATERIALIZED VIEW top AS SELECT id, amount FROM orders ORDER BY amount DESC, id LIMIT 10",
    "CREATE SINK copies INTO copy AS SELECT id, amount FROM orders",
];

const DROPS: &[&str] = &[
    "DROP MATERIALIZED VIEW totals",
    "DROP MATERIALIZED VIEW named",
    "DROP MATERIALIZED VIEW ranked",
    "DROP MATERIALIZED VIEW top",
    "DROP SINK copies",
];

const FILL: &[&str] = &[
    "INSERT INTO customers SELECT i, concat('customer ', i) FROM generate_series(1, 500) AS g(i)",
    "INSERT INTO orders SELECT i, i % 500 + 1, i % 17 FROM generate_series(1, 5000) AS g(i)",
];

const EMPTY: &[&str] = &["DELETE FROM orders", "DELETE FROM customers"];

async fn number(session: &mut Session, sql: &str) -> Result<i64> {
    let found = lines(session, sql).await?.concat();
    found.parse().map_err(|_| format!("{sql} gives {found}"))
}

async fn started() -> Result<(Engine, Session)> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE orders (id INT PRIMARY KEY, customer INT, amount INT)",
            "CREATE TABLE customers (id INT PRIMARY KEY, name TEXT)",
            "CREATE TABLE copy (id INT, amount INT)",
        ],
    )
    .await?;
    Ok((engine, session))
}

const STATE_BYTES: &str = "SELECT coalesce(sum(state_bytes), 0) FROM millstream.operators";
const STATE_ROWS: &str = "SELECT coalesce(sum(state_rows), 0) FROM millstream.operators";

/// Each round costs the same, and nothing is left between two.
async fn dropped() -> Result<()> {
    let (_engine, mut session) = started().await?;
    let mut first = None;
    for round in 0..3 {
        run_all(&mut session, VIEWS).await?;
        run_all(&mut session, FILL).await?;
        let bytes = number(&mut session, STATE_BYTES).await?;
        ensure(bytes > 100_000, || format!("{bytes} bytes are kept"))?;
        let expected = *first.get_or_insert(bytes);
        ensure((bytes - expected).abs() * 10 <= expected, || {
            format!("round {round} keeps {bytes} bytes, the first one kept {expected}")
        })?;
        run_all(&mut session, DROPS).await?;
        expect(&mut session, "SELECT count(*) FROM millstream.operators", &["0"]).await?;
        run_all(&mut session, EMPTY).await?;
        expect(&mut session, "SELECT sum(rows) FROM millstream.tables WHERE name <> 'copy'", &["0"]).await?;
        run_all(&mut session, &["DROP TABLE copy", "CREATE TABLE copy (id INT, amount INT)"]).await?;
    }
    Ok(())
}

/// Operators keep no state of deleted rows, however often rows are inserted and deleted.
async fn deleted() -> Result<()> {
    let (_engine, mut session) = started().await?;
    run_all(&mut session, VIEWS).await?;
    let rows = number(&mut session, STATE_ROWS).await?;
    let mut after_first = None;
    for round in 0..4 {
        run_all(&mut session, FILL).await?;
        run_all(&mut session, EMPTY).await?;
        let left = number(&mut session, STATE_ROWS).await?;
        ensure(left == rows, || format!("{left} rows are kept after round {round}, where {rows} were"))?;
        let bytes = number(&mut session, STATE_BYTES).await?;
        let most = *after_first.get_or_insert(bytes);
        ensure(bytes <= most + most / 4 + 4096, || {
            format!("{bytes} bytes after round {round}, {most} after the first")
        })?;
    }
    Ok(())
}
