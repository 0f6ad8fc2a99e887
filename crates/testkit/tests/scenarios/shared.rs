//! Arrangements shared by several queries are kept once, whatever the queries do.

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run_all};

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::Scenario;
use super::behind::{Door, Gate};
use super::machine::Machine;

pub const ALL: &[Scenario] = &[
    ("five_queries_keep_a_table_once", || drive::block_on(once())),
    ("a_query_that_keeps_shared_rows_is_in_checkpoints", || drive::block_on(left_with_rows())),
    ("queries_come_and_go_around_shared_rows", || drive::block_on(coming_and_going())),
];

const STATE_BYTES: &str = "SELECT coalesce(sum(state_bytes), 0) FROM millstream.operators";
const JOIN_ROWS: &str =
    "SELECT query, state_rows FROM millstream.operators WHERE operator = 'Join' ORDER BY query";

async fn started() -> Result<(Engine, Session)> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE customers (id INT PRIMARY KEY, name TEXT, city TEXT)",
            "CREATE TABLE orders (id INT PRIMARY KEY, customer INT, amount INT)",
            "INSERT INTO customers SELECT i, concat('customer number ', i), concat('city ', i % 99) \
             FROM generate_series(1, 60000) AS g(i)",
            "INSERT INTO orders SELECT i, i * 7 % 20000, i % 17 FROM generate_series(1, 100) AS g(i)",
        ],
    )
    .await?;
    Ok((engine, session))
}

async fn number(session: &mut Session, sql: &str) -> Result<i64> {
    let found = lines(session, sql).await?.concat();
    found.parse().map_err(|_| format!("{sql} gives {found}"))
}

/// Returns the `number`th view over both tables.
fn view(number: usize) -> String {
    let columns = ["c.name", "c.city", "c.name, c.city", "o.amount, c.city, c.name", "c.name AS n"];
    format!(
        "CREATE MATERIALIZED VIEW v{number} AS SELECT o.id, {} FROM orders AS o JOIN customers AS c ON o.customer = c.id \
         WHERE o.amount <> {number}",
        columns[number % 5]
    )
}

async fn verified(session: &mut Session, views: &[&str]) -> Result<()> {
    for view in views {
        expect(session, &format!("VERIFY {view}"), &[] as &[&str]).await?;
    }
    Ok(())
}

async fn once() -> Result<()> {
    let (_engine, mut session) = started().await?;
    let both = "CREATE MATERIALIZED VIEW v2 AS SELECT o.id, c.name, c.city FROM orders AS o JOIN customers AS c \
                ON o.customer = c.id";
    drive::run(&mut session, both).await?;
    let one = number(&mut session, STATE_BYTES).await?;
    ensure(one > 1_000_000, || format!("one view keeps {one} bytes"))?;
    for number in [0, 1, 3, 4] {
        drive::run(&mut session, &view(number)).await?;
    }
    let five = number(&mut session, STATE_BYTES).await?;
    // Five separate arrangements would take five times as much.
    ensure(five < one * 3 / 2, || format!("one view keeps {one} bytes, five keep {five}"))?;
    let plan = lines(&mut session, "EXPLAIN v3").await?.join("\n");
    let shared = "the right one in an arrangement shared by v2, v0, v1, v3, v4";
    ensure(plan.contains(shared), || format!("EXPLAIN says\n{plan}"))?;
    verified(&mut session, &["v0", "v1", "v2", "v3", "v4"]).await?;
    // When the first query is dropped, another one owns the rows.
    run_all(&mut session, &["DROP MATERIALIZED VIEW v2"]).await?;
    let four = number(&mut session, STATE_BYTES).await?;
    ensure(four > one * 3 / 4, || format!("one view keeps {one} bytes, four keep {four}"))?;
    run_all(&mut session, &["DELETE FROM customers WHERE id > 100", "DELETE FROM orders WHERE id > 50"])
        .await?;
    verified(&mut session, &["v0", "v1", "v3", "v4"]).await?;
    let few = number(&mut session, STATE_BYTES).await?;
    // State by slot keeps room for keys that may return.
    ensure(few < one * 2 / 3, || format!("{few} bytes are left of {one}"))?;
    for view in ["v0", "v1", "v3", "v4"] {
        drive::run(&mut session, &format!("DROP MATERIALIZED VIEW {view}")).await?;
    }
    expect(&mut session, STATE_BYTES, &["0"]).await
}

/// Queries are paused and resumed, are created over shared rows, and read views that share rows.
async fn coming_and_going() -> Result<()> {
    let (_engine, mut session) = started().await?;
    for number in [0, 1] {
        drive::run(&mut session, &view(number)).await?;
    }
    let views = [
        "CREATE MATERIALIZED VIEW cities AS SELECT city, count(*) AS n FROM customers GROUP BY city",
        "CREATE MATERIALIZED VIEW near AS SELECT o.id, t.n FROM orders AS o JOIN customers AS c ON o.customer = c.id \
         LEFT JOIN cities AS t ON t.city = c.city",
        "CREATE MATERIALIZED VIEW far AS SELECT t.city, c.name FROM cities AS t FULL JOIN customers AS c \
         ON t.city = c.city AND c.id < t.n",
        "CREATE MATERIALIZED VIEW alike AS SELECT a.id AS a, b.id AS b FROM orders AS a JOIN orders AS b \
         ON a.customer = b.customer",
        "CREATE MATERIALIZED VIEW kinds AS SELECT t.city FROM cities AS t WHERE NOT EXISTS \
         (SELECT FROM customers AS c WHERE c.city = t.city AND c.id > 50)",
    ];
    run_all(&mut session, &views).await?;
    let all = ["v0", "v1", "near", "far", "alike", "kinds"];
    verified(&mut session, &all).await?;
    let change = |round: usize| {
        vec![
            format!("DELETE FROM customers WHERE id % 7 = {round}"),
            format!("UPDATE customers SET city = 'city 5' WHERE id % 11 = {round}"),
            format!(
                "INSERT INTO orders SELECT i, i % 50, {round} FROM generate_series({round}1000, {round}1020) AS g(i)"
            ),
            format!("UPDATE orders SET customer = customer + 1 WHERE id % 5 = {round}"),
            format!(
                "INSERT INTO customers SELECT i, 'new', 'city 7' FROM generate_series({round}0000000, {round}0000005) AS g(i)"
            ),
        ]
    };
    for round in 1..5 {
        let paused = all[round];
        drive::run(&mut session, &format!("PAUSE {paused}")).await?;
        for sql in change(round) {
            drive::run(&mut session, &sql).await?;
        }
        if round == 2 {
            drive::run(&mut session, &view(4)).await?;
        }
        drive::run(&mut session, &format!("RESUME {paused}")).await?;
        verified(&mut session, &all).await?;
        drive::run(&mut session, &format!("DELETE FROM orders WHERE id % 9 = {round}")).await?;
        verified(&mut session, &all).await?;
    }
    verified(&mut session, &["v4"]).await?;
    let sharing = lines(&mut session, JOIN_ROWS).await?;
    ensure(sharing.len() >= 7, || format!("the joins are {sharing:?}"))
}

/// A query whose step takes long leaves the loop with the rows that it shared, and others get copies: checkpoints before
/// and after that have the rows of both.
async fn left_with_rows() -> Result<()> {
    let gate = Gate::default();
    let of_engine = gate.clone();
    let mut machine = Machine::start(move || Engine::builder().scalar_function(of_engine.function("gate")))?;
    let view = |name: &str, number: &str| {
        format!(
            "CREATE MATERIALIZED VIEW {name} AS SELECT count(*) AS n FROM pairs x JOIN pairs y ON x.a = y.a AND {number}"
        )
    };
    let made = [
        "SET checkpoint_interval = 'off'",
        "SET parallelism = 8",
        "CREATE TABLE pairs (a BIGINT, b BIGINT)",
        &view("one", "gate(x.b) * y.b = 17"),
        &view("other", "x.b * y.b = 34"),
        "INSERT INTO pairs SELECT i, i FROM generate_series(1, 4000) g(i)",
        "CHECKPOINT",
    ];
    let mut session = machine.session();
    run_all(&mut session, &made).await?;
    for round in 0..3 {
        gate.set(Door::Closed);
        let fill =
            format!("INSERT INTO pairs SELECT i % 100, i + {round} FROM generate_series(1, 3000) g(i)");
        drive::run(&mut session, &fill).await?;
        let status = "SELECT status FROM millstream.materialized_views WHERE name = 'one'";
        expect(&mut session, status, &["behind"]).await?;
        run_all(&mut session, &["DELETE FROM pairs WHERE b % 7 = 3", "INSERT INTO pairs VALUES (1, 17)"])
            .await?;
        gate.set(Door::Open);
        run_all(&mut session, &["FLUSH", "CHECKPOINT", "INSERT INTO pairs VALUES (1, 2)"]).await?;
        verified(&mut session, &["one", "other"]).await?;
        machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(round)).await?;
        session = machine.session();
        verified(&mut session, &["one", "other"]).await?;
        drive::run(&mut session, "CHECKPOINT").await?;
    }
    machine.engine.stop().await.map_err(|error| error.to_string())
}
