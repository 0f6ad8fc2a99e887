//! Failing rows between checkpoints, crashes and deletes.

use millstream_engine::Engine;
use millstream_testkit::drive::{self, Result, expect, run, run_all, seeds};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scenario;
use super::machine::Machine;

pub const ALL: &[Scenario] = &[
    ("failing_rows_are_exact_through_crashes", || drive::block_on(crashes())),
    ("the_first_error_of_many_is_quickly_found", || drive::block_on(many())),
];

/// Queries about the errors and rows of the views, and the queries with the expected answers.
const CHECKS: &[(&str, &str)] = &[
    (
        "SELECT coalesce(sum(count), 0) FROM millstream.errors WHERE query = 'm' AND message = 'division by zero'",
        "SELECT count(*) FROM t WHERE d = 0",
    ),
    (
        "SELECT coalesce(sum(count), 0) FROM millstream.errors WHERE query = 'm' AND strpos(message, '''x') > 0",
        "SELECT count(*) FROM t WHERE d BETWEEN 1 AND 3 AND strpos(s, 'x') > 0",
    ),
    (
        "SELECT coalesce(sum(count), 0) FROM millstream.errors WHERE query = 'g'",
        "SELECT count(*) FROM t WHERE d = 0 OR strpos(s, 'x') > 0",
    ),
    (
        "SELECT errors FROM millstream.materialized_views WHERE name = 'm'",
        "SELECT count(*) FROM t WHERE d = 0 OR d < 4 AND strpos(s, 'x') > 0",
    ),
    ("SELECT count(*) FROM m", "SELECT count(*) FROM t WHERE d BETWEEN 1 AND 3 AND strpos(s, 'x') = 0"),
    (
        "SELECT coalesce(sum(n), 0) FROM g",
        "SELECT coalesce(sum(CASE strpos(s, 'x') WHEN 0 THEN s ELSE '0' END::INT), 0) FROM t WHERE d <> 0",
    ),
];

async fn crashes() -> Result<()> {
    for seed in seeds(&[0, 1, 2], 0..4) {
        crashes_of(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

/// Rows fail in a filter, in a projection above it, in the key and in an argument of an aggregate.
async fn crashes_of(seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let apart = seed % 3;
    let mut machine = Machine::start(move || match apart {
        0 => Engine::builder(),
        _ => Engine::builder().step_apart(apart),
    })?;
    machine.set_interval(&mut random).await?;
    let statements = [
        "CREATE TABLE t (id INT, s TEXT, d INT)",
        "CREATE MATERIALIZED VIEW m WITH (on_error = 'keep') AS \
         SELECT id, CAST(s AS INT) + 1 AS n FROM t WHERE 10 / d > 2",
        "CREATE MATERIALIZED VIEW g WITH (on_error = 'keep') AS \
         SELECT 12 / d AS k, sum(CAST(s AS INT)) AS n FROM t GROUP BY 12 / d",
    ];
    run_all(&mut machine.session(), &statements).await?;
    for _ in 0..7 {
        for _ in 0..random.random_range(1..4) {
            let mut session = machine.session();
            let count = random.random_range(1..9);
            let rows: Vec<String> = (0..count)
                .map(|_| {
                    let id = random.random_range(0..20);
                    let text = if random.random_bool(0.5) { format!("x{}", id % 3) } else { id.to_string() };
                    format!("({id}, '{text}', {})", random.random_range(0..5))
                })
                .collect();
            run(&mut session, &format!("INSERT INTO t VALUES {}", rows.join(", "))).await?;
            match random.random_range(0..3) {
                0 => {
                    run(&mut session, &format!("DELETE FROM t WHERE id % 4 = {}", random.random_range(0..4)))
                        .await?
                }
                1 => {
                    run(&mut session, &format!("UPDATE t SET d = {} WHERE id < 7", random.random_range(0..3)))
                        .await?
                }
                _ => run(&mut session, "FLUSH").await?,
            };
        }
        machine.crash(&mut random).await?;
        let mut session = machine.session();
        // Queries may lag after a start; their errors are those of the last step.
        run(&mut session, "FLUSH").await?;
        for (found, expected) in CHECKS {
            let expected = drive::lines(&mut session, expected).await?;
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            expect(&mut session, found, &expected).await?;
        }
    }
    let mut session = machine.session();
    // A read of a view waits for its steps, unlike a read of the errors.
    run_all(&mut session, &["DELETE FROM t", "SELECT * FROM m", "SELECT * FROM g"]).await?;
    expect(&mut session, "SELECT count(*) FROM millstream.errors", &["0"]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

/// The message of a reader of a view with many errors names one of them.
async fn many() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let statements = [
        "CREATE TABLE t (x INT)",
        "INSERT INTO t SELECT i % 10 FROM generate_series(1, 50000) g(i)",
        "CREATE MATERIALIZED VIEW m AS SELECT 10 / (x - x) AS r FROM t",
    ];
    run_all(&mut session, &statements).await?;
    let error = run(&mut session, "SELECT * FROM m").await.err().unwrap_or_default();
    drive::ensure(error.contains("division by zero for (0), and 49999 more"), || {
        format!("it says: {error}")
    })?;
    expect(&mut session, "SELECT count(*), sum(count) FROM millstream.errors", &["10|50000"]).await?;
    run(&mut session, "DELETE FROM t WHERE x < 9").await?;
    let error = run(&mut session, "SELECT * FROM m").await.err().unwrap_or_default();
    drive::ensure(error.contains("division by zero for (9), and 4999 more"), || format!("it says: {error}"))?;
    engine.stop().await.map_err(|error| error.to_string())
}
