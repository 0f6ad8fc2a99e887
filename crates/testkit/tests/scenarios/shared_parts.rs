//! Parts that several queries have in common are maintained once, and the queries stay independent of each other.

use millstream_engine::{Engine, EngineBuilder, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, expect_like, lines, run, run_all, seeds};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scenario;
use super::machine::Machine;

pub const ALL: &[Scenario] = &[
    ("equal_parts_of_queries_are_one_operator", || drive::block_on(once())),
    ("queries_with_a_part_in_common_come_and_go", || drive::block_on(coming_and_going())),
    ("errors_of_a_shared_part_are_those_of_its_readers", || drive::block_on(errors())),
    ("shared_parts_survive_crashes", || drive::block_on(crashes())),
    ("an_empty_result_of_a_shared_part_stays_paused", || drive::block_on(empty())),
    ("shared_parts_lag_with_their_readers", || drive::block_on(lagging())),
    ("results_of_shared_parts_are_read_beside_the_loop", || drive::block_on(read_apart())),
    ("results_of_shared_parts_are_found_by_their_key", || drive::block_on(points())),
];

/// Two tables, a view with a join and one with an aggregate, and queries over these.
const OBJECTS: &[&str] = &[
    "CREATE TABLE c (id BIGINT PRIMARY KEY, name BIGINT, city BIGINT)",
    "CREATE TABLE o (id BIGINT PRIMARY KEY, customer BIGINT, amount BIGINT)",
    "INSERT INTO c SELECT i, i % 7, i % 5 FROM generate_series(1, 60) g(i)",
    "INSERT INTO o SELECT i, i % 80, i % 11 FROM generate_series(1, 200) g(i)",
    "CREATE VIEW joined AS SELECT o.amount, c.city FROM o JOIN c ON o.customer = c.id",
    "CREATE VIEW sums AS SELECT city, sum(amount) AS s FROM joined GROUP BY city",
];

/// Queries by name. All but `alone` have the join in common; `most` to `two` the sums, too, which are the result of `per`
/// and `two`.
const VIEWS: &[(&str, &str)] = &[
    ("cities", "SELECT city, count(*) AS n, max(amount) AS most FROM joined GROUP BY city"),
    ("pairs", "SELECT amount, city, count(*) AS n FROM joined GROUP BY amount, city"),
    ("most", "SELECT max(s) AS s, min(s) AS least FROM sums"),
    ("spread", "SELECT s % 3 AS r, count(*) AS n FROM sums GROUP BY s % 3"),
    ("per", "SELECT city, sum(amount) AS s FROM joined GROUP BY city"),
    ("two", "SELECT s * 2 AS twice, city FROM sums WHERE s % 2 = 0"),
    ("alone", "SELECT name, count(*) AS n FROM c GROUP BY name"),
    ("best", "SELECT amount, city FROM joined ORDER BY amount DESC, city LIMIT 5"),
];

const JOINS: &str = "SELECT count(*) FROM millstream.operators WHERE operator = 'Join'";

async fn create(session: &mut Session, name: &str) -> Result<()> {
    let query = VIEWS.iter().find(|(view, _)| *view == name).map_or("", |(_, query)| query);
    run(session, &format!("CREATE MATERIALIZED VIEW {name} AS {query}")).await.map(drop)
}

async fn created(session: &mut Session) -> Result<()> {
    run_all(session, OBJECTS).await?;
    for (name, _) in VIEWS {
        create(session, name).await?;
    }
    Ok(())
}

/// Compares each view with its query over the tables.
async fn compare(session: &mut Session, views: &[&str]) -> Result<()> {
    for name in views {
        let query = VIEWS.iter().find(|(view, _)| view == name).map_or("", |(_, query)| query);
        let mut expected = lines(session, query).await?;
        let found = sorted(session, name).await?;
        expected.sort();
        ensure(found == expected, || format!("{name} has {found:?}, not {expected:?}"))?;
        expect(session, &format!("VERIFY {name}"), &[]).await?;
    }
    Ok(())
}

/// Returns the rows of a view in order.
async fn sorted(session: &mut Session, name: &str) -> Result<Vec<String>> {
    let mut rows = lines(session, &format!("SELECT * FROM {name}")).await?;
    rows.sort();
    Ok(rows)
}

fn names() -> Vec<&'static str> {
    VIEWS.iter().map(|(name, _)| *name).collect()
}

async fn change(session: &mut Session, random: &mut SmallRng) -> Result<()> {
    let (id, other) = (random.random_range(0..250), random.random_range(0..80));
    let sql = match random.random_range(0..5) {
        0 => format!("DELETE FROM o WHERE id BETWEEN {id} AND {id} + 20"),
        1 => format!("DELETE FROM c WHERE id BETWEEN {other} AND {other} + 5"),
        2 => format!("UPDATE c SET name = name + 1, city = (city + 2) % 6 WHERE id % 9 = {}", other % 9),
        3 => format!(
            "INSERT INTO c SELECT i, i % 7, i % 5 FROM generate_series({other}, {other} + 9) g(i) ON CONFLICT DO NOTHING"
        ),
        _ => format!(
            "INSERT INTO o SELECT i, i % 80, i % 11 FROM generate_series({id}, {id} + 30) g(i) ON CONFLICT DO NOTHING"
        ),
    };
    run(session, &sql).await.map(drop)
}

async fn started(builder: EngineBuilder) -> Result<(Engine, Session)> {
    let engine = builder.start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    created(&mut session).await?;
    Ok((engine, session))
}

async fn once() -> Result<()> {
    let (_engine, mut session) = started(Engine::builder()).await?;
    expect(&mut session, JOINS, &["1"]).await?;
    let plan = lines(&mut session, "EXPLAIN spread").await?.join("\n");
    let of_join = "computed once for cities, pairs, most, spread, per, two, best";
    for shared in ["computed once for most, spread, per, two", of_join] {
        ensure(plan.contains(shared), || format!("EXPLAIN says\n{plan}"))?;
    }
    let aggregates = "SELECT count(*) FROM millstream.operators WHERE operator = 'Aggregate'";
    expect(&mut session, aggregates, &["6"]).await?;
    let mut random = SmallRng::seed_from_u64(3);
    for _ in 0..20 {
        change(&mut session, &mut random).await?;
        compare(&mut session, &names()).await?;
    }
    // The state and the work of a part count once, as those of its oldest reader.
    let with_state = "SELECT name FROM millstream.materialized_views WHERE state_bytes > 0 ORDER BY name";
    expect(&mut session, with_state, &["alone", "best", "cities", "most", "pairs", "spread"]).await?;
    expect(&mut session, "SELECT query FROM millstream.operators WHERE operator = 'Join'", &["cities"]).await
}

/// Drops, pauses, alters, renames and creates queries in random order; the others go on.
async fn coming_and_going() -> Result<()> {
    for seed in seeds(&[1, 2], 0..12) {
        let (_engine, mut session) = started(Engine::builder()).await?;
        let mut random = SmallRng::seed_from_u64(seed);
        let mut there = names();
        for _ in 0..40 {
            let name = VIEWS[random.random_range(0..VIEWS.len())].0;
            match (random.random_range(0..7), there.contains(&name)) {
                (0, true) => {
                    run(&mut session, &format!("DROP MATERIALIZED VIEW {name}")).await?;
                    there.retain(|other| *other != name);
                }
                (1, true) => {
                    run(&mut session, &format!("PAUSE {name}")).await?;
                    let before = sorted(&mut session, name).await?;
                    change(&mut session, &mut random).await?;
                    let found = sorted(&mut session, name).await?;
                    ensure(found == before, || format!("paused, {name} has {found:?}, not {before:?}"))?;
                    let others: Vec<&str> = there.iter().copied().filter(|other| *other != name).collect();
                    compare(&mut session, &others).await?;
                    run(&mut session, &format!("RESUME {name}")).await?;
                }
                (2, true) => {
                    let query = VIEWS.iter().find(|(view, _)| *view == name).map_or("", |(_, query)| query);
                    let altered = format!("ALTER MATERIALIZED VIEW {name} AS SELECT * FROM ({query}) AS q");
                    run(&mut session, &altered).await?;
                }
                (3, true) => {
                    run(&mut session, &format!("ALTER MATERIALIZED VIEW {name} RENAME TO other")).await?;
                    change(&mut session, &mut random).await?;
                    run(&mut session, &format!("ALTER MATERIALIZED VIEW other RENAME TO {name}")).await?;
                }
                (4, true) => {
                    run_all(&mut session, &["ALTER TABLE o RENAME TO p", "ALTER TABLE p RENAME TO o"])
                        .await?;
                }
                (_, false) => {
                    create(&mut session, name).await?;
                    there.push(name);
                }
                _ => change(&mut session, &mut random).await?,
            }
            change(&mut session, &mut random).await?;
            compare(&mut session, &there).await?;
        }
        for name in &there {
            run(&mut session, &format!("DROP MATERIALIZED VIEW {name}")).await?;
        }
        expect(&mut session, "SELECT count(*) FROM millstream.operators", &["0"]).await?;
    }
    Ok(())
}

/// A part whose rows fail: each reader shows the errors, and has an answer again when they are gone.
async fn errors() -> Result<()> {
    let engine = Engine::builder().start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let objects = [
        "CREATE TABLE t (k BIGINT, v BIGINT)",
        "INSERT INTO t VALUES (1, 5), (2, 7)",
        "CREATE VIEW q AS SELECT k, sum(100 / v) AS s FROM t GROUP BY k",
        "CREATE MATERIALIZED VIEW a AS SELECT max(s) AS m FROM q",
        "CREATE MATERIALIZED VIEW b AS SELECT s, count(*) AS n FROM q GROUP BY s",
        "INSERT INTO t VALUES (3, 0)",
    ];
    run_all(&mut session, &objects).await?;
    let plan = lines(&mut session, "EXPLAIN b").await?.join("\n");
    ensure(plan.contains("computed once for a, b"), || format!("EXPLAIN says\n{plan}"))?;
    for view in ["a", "b"] {
        let read = lines(&mut session, &format!("SELECT * FROM {view}")).await;
        ensure(read.as_ref().is_err_and(|error| error.contains("division by zero")), || {
            format!("{view}: {read:?}")
        })?;
        let counted = format!("SELECT count(*) FROM millstream.errors WHERE query = '{view}'");
        expect(&mut session, &counted, &["1"]).await?;
    }
    run(&mut session, "DELETE FROM t WHERE v = 0").await?;
    expect(&mut session, "SELECT * FROM a", &["20"]).await?;
    expect(&mut session, "SELECT * FROM b ORDER BY s", &["14|1", "20|1"]).await
}

async fn crashes() -> Result<()> {
    for seed in seeds(&[4, 5], 0..10) {
        let mut machine = Machine::start(Engine::builder)?;
        let mut session = machine.session();
        let mut random = SmallRng::seed_from_u64(seed);
        run(&mut session, "SET checkpoint_interval = 'off'").await?;
        created(&mut session).await?;
        let mut there = names();
        for _ in 0..8 {
            for _ in 0..3 {
                change(&mut session, &mut random).await?;
            }
            let name = VIEWS[random.random_range(0..VIEWS.len())].0;
            if there.contains(&name) {
                run(&mut session, &format!("DROP MATERIALIZED VIEW {name}")).await?;
                there.retain(|other| *other != name);
            } else {
                create(&mut session, name).await?;
                there.push(name);
            }
            let paused = there.first().copied().filter(|_| random.random_bool(0.3));
            if let Some(name) = paused {
                run(&mut session, &format!("PAUSE {name}")).await?;
                change(&mut session, &mut random).await?;
            }
            if random.random_bool(0.7) {
                run(&mut session, "CHECKPOINT").await?;
            }
            change(&mut session, &mut random).await?;
            machine.crash_at(|| {}, &mut random).await?;
            session = machine.session();
            change(&mut session, &mut random).await?;
            if let Some(name) = paused {
                run(&mut session, &format!("RESUME {name}")).await?;
            }
            compare(&mut session, &there).await?;
        }
        machine.engine.stop().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A paused reader of a part has no rows yet. A checkpoint has no table for these.
async fn empty() -> Result<()> {
    let mut machine = Machine::start(Engine::builder)?;
    let mut session = machine.session();
    let mut random = SmallRng::seed_from_u64(9);
    let objects = [
        "CREATE TABLE t (k INT, v INT)",
        "CREATE MATERIALIZED VIEW a AS SELECT k, sum(v) AS s FROM t GROUP BY k",
        "CREATE MATERIALIZED VIEW b AS SELECT k, sum(v) AS s FROM t GROUP BY k",
        "PAUSE a",
        "INSERT INTO t VALUES (1, 1)",
        "CHECKPOINT",
    ];
    run_all(&mut session, &objects).await?;
    for _ in 0..2 {
        machine.crash(&mut random).await?;
        session = machine.session();
        expect(&mut session, "SELECT * FROM a", &[]).await?;
        expect(&mut session, "SELECT * FROM b", &["1|1"]).await?;
    }
    run_all(&mut session, &["CREATE MATERIALIZED VIEW c AS SELECT * FROM a", "RESUME a"]).await?;
    for view in ["a", "b", "c"] {
        expect(&mut session, &format!("SELECT * FROM {view}"), &["1|1"]).await?;
        expect(&mut session, &format!("VERIFY {view}"), &[]).await?;
    }
    Ok(())
}

/// All queries step beside the loop, over several epochs at once. Queries over results of a part lag with these.
async fn lagging() -> Result<()> {
    for epochs in [1, 3] {
        let (_engine, mut session) = started(Engine::builder().step_apart(epochs)).await?;
        let over = "CREATE MATERIALIZED VIEW over AS SELECT count(*) AS n, sum(s) AS s FROM per";
        run(&mut session, over).await?;
        let mut random = SmallRng::seed_from_u64(epochs);
        for round in 0..30 {
            change(&mut session, &mut random).await?;
            if random.random_bool(0.3) {
                compare(&mut session, &names()).await?;
                compare_over(&mut session).await?;
            }
            if round == 15 {
                run_all(&mut session, &["DROP MATERIALIZED VIEW over", over]).await?;
            }
        }
        compare(&mut session, &names()).await?;
        compare_over(&mut session).await?;
    }
    Ok(())
}

async fn compare_over(session: &mut Session) -> Result<()> {
    expect_like(session, "SELECT * FROM over", "SELECT count(*), sum(s) FROM sums").await?;
    expect(session, "VERIFY over", &[]).await
}

/// Results of parts that threads read, while the parts and their readers go on, are as of one epoch: the total of each
/// part is that of its readers.
async fn read_apart() -> Result<()> {
    for seed in seeds(&[6, 7], 0..10) {
        let apart = |builder: EngineBuilder| if seed % 2 == 0 { builder.step_apart(2) } else { builder };
        let (engine, mut session) = started(apart(Engine::builder().read_apart_above(0))).await?;
        let mut random = SmallRng::seed_from_u64(seed);
        let mut reader = engine.session();
        let mut open = false;
        for _ in 0..30 {
            change(&mut session, &mut random).await?;
            let city = random.random_range(0..6);
            let both = format!(
                "SELECT 2 * (SELECT coalesce(sum(s), 0) FROM per WHERE city = {city} AND s % 2 = 0) \
                     - (SELECT coalesce(sum(twice), 0) FROM two WHERE city = {city}), \
                     (SELECT max(s) FROM per) - (SELECT s FROM most)"
            );
            expect(&mut reader, &both, &["0|0"]).await?;
            // A transaction reads older epochs.
            run(&mut reader, if open { "COMMIT" } else { "BEGIN" }).await?;
            open = !open;
            expect(&mut reader, &both, &["0|0"]).await?;
            if random.random_bool(0.2) {
                compare(&mut session, &names()).await?;
            }
            if random.random_bool(0.2) {
                let query = "SELECT city, sum(amount) + 1 - 1 AS s FROM joined GROUP BY city";
                run(&mut session, &format!("ALTER MATERIALIZED VIEW per AS {query}")).await?;
                run(&mut session, "ALTER MATERIALIZED VIEW per AS SELECT city, s FROM sums").await?;
            }
        }
    }
    Ok(())
}

/// A view whose rows a part keeps is found by its key, also through the stages above it.
async fn points() -> Result<()> {
    let (_engine, mut session) = started(Engine::builder()).await?;
    for sql in ["SELECT s FROM per WHERE city = 3", "SELECT twice / 2 FROM two WHERE city = 3"] {
        let plan = lines(&mut session, &format!("EXPLAIN {sql}")).await?.join("\n");
        ensure(plan.contains("(city)"), || format!("EXPLAIN {sql} says\n{plan}"))?;
    }
    let mut random = SmallRng::seed_from_u64(8);
    for _ in 0..20 {
        change(&mut session, &mut random).await?;
        let city = random.random_range(0..7);
        let query = format!("SELECT city, s FROM sums WHERE city = {city}");
        expect_like(&mut session, &format!("SELECT * FROM per WHERE city = {city}"), &query).await?;
        let even = format!("SELECT twice, city FROM two WHERE city = {city}");
        let query = format!("SELECT s * 2, city FROM sums WHERE s % 2 = 0 AND city = {city}");
        expect_like(&mut session, &even, &query).await?;
    }
    Ok(())
}
