//! Altered queries over a source that can't be read again: a successor takes over a copy of the old query's state, which
//! threads make while other statements run.

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, expect_soon, lines, run, run_all, seeds};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scenario;
use super::behind::{self as lagging, Door};
use super::machine::Machine;

pub const ALL: &[Scenario] = &[
    ("altered_queries_keep_their_state_while_rows_arrive", || drive::block_on(meanwhile())),
    ("kept_state_survives_crashes_during_and_after_an_alter", || drive::block_on(through_crashes())),
    ("an_alter_that_copies_state_keeps_nobody_waiting", || drive::block_on(nobody_waits())),
    ("a_row_that_fails_during_an_alter_leaves_the_old_query", || drive::block_on(failing())),
    ("an_alter_needs_no_more_memory_than_its_statement_may_have", || drive::block_on(memory())),
];

const GROUPS: &str = "SELECT v % 5 AS g, count(*) AS n, sum(v) AS s FROM q GROUP BY v % 5";

/// Queries for `m` that keep the groups, with other operators above them.
fn queries() -> Vec<String> {
    let of = |sql: &str| sql.replace("groups", &format!("({GROUPS}) AS x"));
    vec![
        GROUPS.to_string(),
        of("SELECT g, n, s FROM groups WHERE n > 2"),
        of("SELECT g, n + 1 AS n, s FROM groups WHERE s % 2 = 0"),
        of("SELECT g, n * 2 AS n, s FROM groups WHERE n <> 3"),
        of("SELECT g, n, -s AS s FROM groups"),
    ]
}

const READER: &str = "SELECT n, count(*) AS c, sum(s) AS s FROM m GROUP BY n";

async fn make(session: &mut Session) -> Result<()> {
    run_all(
        session,
        &[
            "CREATE SOURCE q (v INT) WITH (connector = 'queue')",
            "CREATE TABLE same (v INT)",
            "CREATE TABLE u (g INT PRIMARY KEY, w BIGINT)",
            "INSERT INTO u VALUES (0, 10), (1, 20), (3, 30)",
            &format!("CREATE MATERIALIZED VIEW m AS {GROUPS}"),
            &format!("CREATE MATERIALIZED VIEW over_m AS {READER}"),
            "CREATE TABLE copy (g INT, n BIGINT, s BIGINT)",
            "CREATE SINK copying INTO copy FROM m",
        ],
    )
    .await
}

/// Adds rows to the source, and to the table that has the same rows.
async fn arrive(session: &mut Session, random: &mut SmallRng) -> Result<()> {
    let v = random.random_range(0..60);
    for to in ["q", "same"] {
        run(session, &format!("INSERT INTO {to} VALUES ({v}), ({})", v + 1)).await?;
    }
    if random.random_range(0..4) == 0 {
        let g = random.random_range(0..5);
        run(session, &format!("UPDATE u SET w = w + {v} WHERE g = {g}")).await?;
    }
    Ok(())
}

/// Compares `m` and its readers with the batch answer of this query.
async fn check(session: &mut Session, query: &str) -> Result<()> {
    run(session, "FLUSH").await?;
    let m = query.replace("FROM q", "FROM same AS q");
    let readers = [("m", "SELECT * FROM m"), ("copy", "SELECT * FROM m"), ("over_m", READER)];
    for (name, reader) in readers {
        let batch = lines(session, &reader.replace("FROM m", &format!("FROM ({m}) AS m"))).await?;
        let batch: Vec<&str> = batch.iter().map(String::as_str).collect();
        let wrong = |error: String| format!("{name} as {query}: {error}");
        expect(session, &format!("SELECT * FROM {name}"), &batch).await.map_err(wrong)?;
    }
    Ok(())
}

fn alteration(random: &mut SmallRng, query: &str) -> String {
    match random.random_range(0..2) {
        0 => format!("ALTER MATERIALIZED VIEW m AS {query}"),
        _ => format!("CREATE OR REPLACE MATERIALIZED VIEW m AS {query}"),
    }
}

async fn meanwhile() -> Result<()> {
    let queries = queries();
    for seed in seeds(&[0, 1, 2], 0..6) {
        let mut random = SmallRng::seed_from_u64(seed);
        let engine = Engine::builder().step_apart(1 + seed % 3).start().map_err(|error| error.to_string())?;
        let mut session = engine.session();
        make(&mut session).await?;
        let mut query = &queries[0];
        for round in 0..8 {
            let before = query;
            query = &queries[random.random_range(0..queries.len())];
            let (mut other, sql) = (engine.session(), alteration(&mut random, query));
            let altered = tokio::spawn(async move { run(&mut other, &sql).await });
            let given_up = random.random_range(0..4) == 0;
            if given_up {
                arrive(&mut session, &mut random).await?;
                altered.abort();
            }
            while !altered.is_finished() {
                arrive(&mut session, &mut random).await?;
            }
            let wrong = |error: String| format!("seed {seed}, round {round}, from {before}: {error}");
            match altered.await {
                Ok(altered) => drop(altered.map_err(wrong)?),
                Err(_) => {
                    // The engine may still be at the statement that was given up, or may have done it.
                    let sql = format!("ALTER MATERIALIZED VIEW m AS {query}");
                    while let Err(error) = run(&mut session, &sql).await {
                        ensure(error.contains("is being altered"), || wrong(error))?;
                        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                    }
                }
            }
            check(&mut session, query).await.map_err(wrong)?;
            arrive(&mut session, &mut random).await?;
            check(&mut session, query).await.map_err(wrong)?;
        }
    }
    Ok(())
}

async fn through_crashes() -> Result<()> {
    for seed in seeds(&[0, 1, 2], 0..8) {
        through_crashes_seed(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn through_crashes_seed(seed: u64) -> Result<()> {
    let (queries, mut random) = (queries(), SmallRng::seed_from_u64(seed));
    let mut machine = Machine::start(move || Engine::builder().step_apart(1 + seed % 3))?;
    machine.set_interval(&mut random).await?;
    make(&mut machine.session()).await?;
    let mut query = &queries[0];
    for round in 0..6 {
        let next = &queries[random.random_range(0..queries.len())];
        let asked = tokio::spawn({
            let (mut session, sql) = (machine.session(), alteration(&mut random, next));
            async move { run(&mut session, &sql).await }
        });
        let mut session = machine.session();
        for _ in 0..random.random_range(0..6) {
            arrive(&mut session, &mut random).await?;
        }
        let is_done = random.random_range(0..2) == 0;
        while is_done && !asked.is_finished() {
            arrive(&mut session, &mut random).await?;
        }
        machine.crash(&mut random).await?;
        let told = asked.await.map_err(|error| error.to_string())?;
        ensure(!is_done || told.is_ok(), || format!("round {round}: {told:?}"))?;
        let mut session = machine.session();
        query = match check(&mut session, query).await {
            Ok(()) if told.is_err() => query,
            _ => next,
        };
        let wrong = |error: String| format!("round {round}, told {told:?}: {error}");
        check(&mut session, query).await.map_err(wrong)?;
        arrive(&mut session, &mut random).await?;
        check(&mut session, query).await.map_err(wrong)?;
        expect(
            &mut session,
            "SELECT name, reason FROM millstream.materialized_views WHERE reason IS NOT NULL",
            &[],
        )
        .await?;
    }
    Ok(())
}

/// The successor's operators wait at a gate: rows arrive, and all relations can be read.
async fn nobody_waits() -> Result<()> {
    let (gate, engine, mut session) = lagging::started(Engine::builder().step_apart(1)).await?;
    make(&mut session).await?;
    run_all(
        &mut session,
        &["CREATE MATERIALIZED VIEW other AS SELECT count(*) AS n FROM q", "INSERT INTO q VALUES (1)"],
    )
    .await?;
    let alter = format!(
        "ALTER MATERIALIZED VIEW m AS SELECT g, n + 1 AS n, s FROM ({GROUPS}) AS x WHERE gate(n) > 0"
    );
    let explained = lines(&mut session, &format!("EXPLAIN {alter}")).await?;
    let copied = "m|changes once its state is copied; until then the old query continues".to_string();
    ensure(explained.contains(&copied), || format!("{explained:?}"))?;
    for is_given_up in [true, false] {
        run(&mut session, "FLUSH").await?;
        gate.set(Door::Closed);
        let (mut altering, sql) = (engine.session(), alter.clone());
        let altered = tokio::spawn(async move { run(&mut altering, &sql).await });
        let count = "SELECT count(*) FROM millstream.jobs WHERE statement LIKE 'ALTER%' AND memory_bytes > 0";
        expect_soon(&mut session, count, &["1"]).await?;
        run(&mut session, "INSERT INTO q VALUES (1)").await?;
        run(&mut session, "INSERT INTO same VALUES (1)").await?;
        let n = if is_given_up { "2" } else { "3" };
        expect_soon(&mut session, "SELECT n FROM other", &[n]).await?;
        expect_soon(&mut session, "SELECT * FROM m", &[&format!("1|{n}|{n}")]).await?;
        expect_soon(&mut session, "SELECT * FROM over_m", &[&format!("{n}|1|{n}")]).await?;
        let again = run(&mut session, &format!("ALTER MATERIALIZED VIEW m AS {GROUPS}")).await;
        ensure(again.as_ref().is_err_and(|error| error.contains("is being altered")), || {
            format!("{again:?}")
        })?;
        if is_given_up {
            altered.abort();
            let _ = altered.await;
            gate.set(Door::Open);
            expect_soon(
                &mut session,
                "SELECT count(*) FROM millstream.jobs WHERE statement LIKE 'ALTER%'",
                &["0"],
            )
            .await?;
            expect(&mut session, "SELECT * FROM m", &["1|2|2"]).await?;
            // The loop sees that the statement is gone with its next event.
            run(&mut session, "FLUSH").await?;
        } else {
            gate.set(Door::Open);
            altered.await.map_err(|error| error.to_string())??;
        }
    }
    expect(&mut session, "SELECT * FROM m", &["1|4|3"]).await?;
    run_all(&mut session, &["INSERT INTO q VALUES (1), (2)", "FLUSH"]).await?;
    expect(&mut session, "SELECT * FROM m", &["1|5|4", "2|2|2"]).await?;
    expect(&mut session, "SELECT * FROM over_m", &["2|1|2", "5|1|4"]).await?;
    expect(&mut session, "SELECT * FROM copy", &["1|5|4", "2|2|2"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// If a row without an answer arrives for the old query during the ALTER, a start couldn't keep the state. The new query
/// may have rows without an answer from its beginning.
async fn failing() -> Result<()> {
    let (gate, engine, mut session) = lagging::started(Engine::builder().step_apart(1)).await?;
    let groups = "SELECT v % 5 AS g, count(*) AS n, sum(100 / v) AS s FROM q GROUP BY v % 5";
    run_all(
        &mut session,
        &[
            "CREATE SOURCE q (v INT) WITH (connector = 'queue')",
            &format!("CREATE MATERIALIZED VIEW m AS {groups}"),
            "INSERT INTO q VALUES (1), (2), (2)",
            "FLUSH",
        ],
    )
    .await?;
    let failing = format!("ALTER MATERIALIZED VIEW m AS SELECT g, 10 / (n - 1) AS n, s FROM ({groups}) AS x");
    run(&mut session, &failing).await?;
    let read = run(&mut session, "SELECT * FROM m").await;
    ensure(read.as_ref().is_err_and(|error| error.contains("division by zero")), || format!("{read:?}"))?;
    let back = run(&mut session, &format!("ALTER MATERIALIZED VIEW m AS {groups}")).await;
    ensure(back.as_ref().is_err_and(|error| error.contains("can't be rebuilt")), || format!("{back:?}"))?;
    run_all(&mut session, &["INSERT INTO q VALUES (1)", "FLUSH"]).await?;
    expect(&mut session, "SELECT * FROM m", &["1|10|200", "2|10|100"]).await?;
    gate.set(Door::Closed);
    let mut altering = engine.session();
    let gated = format!("ALTER MATERIALIZED VIEW m AS SELECT g, gate(n) AS n, s FROM ({groups}) AS x");
    let altered = tokio::spawn(async move { run(&mut altering, &gated).await });
    let count = "SELECT count(*) FROM millstream.jobs WHERE statement LIKE 'ALTER%' AND memory_bytes > 0";
    expect_soon(&mut session, count, &["1"]).await?;
    run_all(&mut session, &["INSERT INTO q VALUES (0)", "FLUSH"]).await?;
    gate.set(Door::Open);
    let altered = altered.await.map_err(|error| error.to_string())?;
    ensure(
        altered
            .as_ref()
            .is_err_and(|error| error.contains("\"m\" is unchanged") && error.contains("can't be rebuilt")),
        || format!("{altered:?}"),
    )?;
    let read = run(&mut session, "SELECT * FROM m").await;
    ensure(read.as_ref().is_err_and(|error| error.contains("division by zero")), || format!("{read:?}"))?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn memory() -> Result<()> {
    let engine = Engine::builder().step_apart(1).start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let rows =
        |from: i64| format!("INSERT INTO q SELECT i FROM generate_series({from}, {}) AS s(i)", from + 4999);
    run_all(
        &mut session,
        &[
            "CREATE SOURCE q (v BIGINT) WITH (connector = 'queue')",
            "CREATE MATERIALIZED VIEW m AS SELECT v AS g, count(*) AS n FROM q GROUP BY v",
            "CREATE MATERIALIZED VIEW over_m AS SELECT count(*) AS c, sum(n) AS n FROM m",
            "CREATE TABLE t (v BIGINT)",
            "INSERT INTO t SELECT i FROM generate_series(1, 20000) AS s(i)",
            "CREATE MATERIALIZED VIEW of_t AS SELECT v AS g, 1 AS n FROM t",
            "CREATE MATERIALIZED VIEW over_t AS SELECT count(*) AS c, sum(g) AS g FROM of_t",
        ],
    )
    .await?;
    for part in 0..4 {
        run(&mut session, &rows(5000 * part)).await?;
    }
    run_all(&mut session, &["FLUSH", "SET query_memory_limit = '64 KiB'"]).await?;
    let state = "ALTER MATERIALIZED VIEW m AS \
                 SELECT g, n FROM (SELECT v AS g, count(*) AS n FROM q GROUP BY v) AS x WHERE n > 1";
    // Its own state is small.
    let comparison = "ALTER MATERIALIZED VIEW of_t AS SELECT v AS g, 1 AS n FROM t WHERE v < 10";
    for sql in [state, comparison] {
        let error = run(&mut session, sql).await.err().unwrap_or_default();
        let is_told = error.contains("is unchanged") && error.contains("more bytes of memory");
        ensure(is_told && error.contains("raise query_memory_limit"), || format!("{sql}: {error}"))?;
    }
    expect(&mut session, "SELECT * FROM over_m", &["20000|20000"]).await?;
    expect(&mut session, "SELECT * FROM over_t", &["20000|200010000"]).await?;
    run_all(&mut session, &["SET query_memory_limit = 'auto'", state, comparison]).await?;
    expect(&mut session, "SELECT * FROM over_m", &["0|NULL"]).await?;
    expect(&mut session, "SELECT * FROM over_t", &["9|45"]).await?;
    run_all(&mut session, &["INSERT INTO q VALUES (7)", "FLUSH"]).await?;
    expect(&mut session, "SELECT * FROM over_m", &["1|2"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}
