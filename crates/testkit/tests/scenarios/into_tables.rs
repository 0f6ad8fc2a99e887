//! Sinks into tables that are too slow for the pace keep nobody waiting; their tables get all of their changes, and each once,
//! through crashes.

use std::time::Duration;

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, within_a_minute};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::behind::{Door, Gate};
use super::machine::Machine;
use super::{Scenario, folder, lines_in};

pub const ALL: &[Scenario] = &[
    ("a_slow_sink_into_a_table_keeps_nobody_waiting", || drive::block_on(others_go_on())),
    ("a_slow_sink_into_a_table_brings_each_change_once_through_crashes", || drive::block_on(crashes())),
    ("a_slow_sink_that_a_table_refuses_is_suspended_once", || drive::block_on(refused())),
];

const STATUS: &str = "SELECT name, status FROM millstream.sinks";

async fn others_go_on() -> Result<()> {
    let gate = Gate::default();
    let engine = Engine::builder().scalar_function(gate.function("gate")).start();
    let engine = engine.map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let set_up = [
        "SET parallelism = 8",
        "CREATE TABLE t (id BIGINT, v BIGINT)",
        "CREATE TABLE copy (id BIGINT, v BIGINT)",
        "CREATE MATERIALIZED VIEW fast AS SELECT count(*) AS n FROM t",
        "CREATE MATERIALIZED VIEW over AS SELECT count(*) AS n, sum(v) AS v FROM copy",
        "CREATE SINK copying INTO copy AS SELECT id, gate(v) AS v FROM t",
    ];
    run_all(&mut session, &set_up).await?;
    run(&mut session, "INSERT INTO t VALUES (0, 1)").await?;
    expect(&mut session, "SELECT n, v FROM over", &["1|1"]).await?;
    gate.set(Door::Slow);
    for id in 1..5 {
        run(&mut session, &format!("INSERT INTO t VALUES ({id}, 1)")).await?;
    }
    expect(&mut session, "SELECT n, v FROM over", &["5|5"]).await?;
    gate.set(Door::Closed);
    for id in 5..10 {
        run(&mut session, &format!("INSERT INTO t VALUES ({id}, 1)")).await?;
        // The table takes rows of others.
        run(&mut session, &format!("INSERT INTO copy VALUES ({}, 100)", id + 1000)).await?;
    }
    expect(&mut session, "SELECT n FROM fast", &["10"]).await?;
    expect(&mut session, STATUS, &["copying|behind"]).await?;
    waiting(&engine, &gate).await?;
    expect(&mut session, "SELECT n, v FROM over", &["10|10"]).await?;
    changed(&mut session, &gate).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Reads of the table, and of what is made of it, wait for what was there when they began.
async fn waiting(engine: &Engine, gate: &Gate) -> Result<()> {
    let mut reads = Vec::new();
    for sql in [
        "SELECT count(*), sum(v) FROM copy",
        "SELECT n, v FROM over",
        "SELECT count(*), (SELECT sum(v) FROM over) FROM over JOIN copy ON copy.v = 1",
        "DELETE FROM copy WHERE v = 100",
        "FLUSH",
    ] {
        let mut other = engine.session();
        reads.push(tokio::spawn(async move {
            let found = match sql.starts_with("SELECT") {
                true => lines(&mut other, sql).await,
                false => run(&mut other, sql).await.map(|_| Vec::new()),
            };
            (sql, found)
        }));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ensure(reads.iter().all(|read| !read.is_finished()), || "a read did not wait for the sink".into())?;
    // One that is given up holds nothing up.
    let mut other = engine.session();
    let read = lines(&mut other, "SELECT * FROM copy");
    ensure(tokio::time::timeout(Duration::from_millis(50), read).await.is_err(), || "it didn't wait".into())?;
    gate.set(Door::Open);
    let mut found = Vec::new();
    for read in reads {
        let (sql, of) = within_a_minute("a read", read).await?.map_err(|error| error.to_string())?;
        found.push((sql, of?.concat()));
    }
    let expected = ["15|510", "15|510", "10|510", "", ""];
    ensure(found.iter().map(|(_, rows)| rows.as_str()).eq(expected), || format!("{found:?}"))
}

/// A view over the table, a pause, and the end of the sink.
async fn changed(session: &mut Session, gate: &Gate) -> Result<()> {
    gate.set(Door::Slow);
    for id in 10..14 {
        run(session, &format!("INSERT INTO t VALUES ({id}, 1)")).await?;
    }
    run(session, "CREATE MATERIALIZED VIEW later AS SELECT count(*) AS n FROM copy").await?;
    expect(session, "SELECT n FROM later", &["14"]).await?;
    run(session, "INSERT INTO t VALUES (14, 1)").await?;
    run(session, "PAUSE copying").await?;
    run(session, "INSERT INTO t VALUES (15, 1)").await?;
    expect(session, "SELECT n FROM later", &["15"]).await?;
    run(session, "RESUME copying").await?;
    expect(session, "SELECT n FROM later", &["16"]).await?;
    run(session, "INSERT INTO t VALUES (16, 1)").await?;
    run(session, "DROP SINK copying").await?;
    run(session, "INSERT INTO t VALUES (17, 1)").await?;
    expect(session, "SELECT n FROM later", &["17"]).await?;
    Ok(())
}

/// Sinks into tables with a key and without one, one after the other, and what is made of these tables.
const QUERIES: &[&str] = &[
    "SET parallelism = 8",
    "CREATE TABLE t (id BIGINT, k BIGINT, v BIGINT)",
    "CREATE TABLE bag (id BIGINT, v BIGINT)",
    "CREATE TABLE keyed (k BIGINT PRIMARY KEY, n BIGINT, s BIGINT)",
    "CREATE TABLE last (k BIGINT PRIMARY KEY, n BIGINT)",
    "CREATE SINK one INTO bag AS SELECT id, gate_a(v) AS v FROM t",
    "CREATE MATERIALIZED VIEW sums AS SELECT k, count(*) AS n, sum(gate_b(v))::BIGINT AS s FROM t GROUP BY k",
    "CREATE SINK two INTO keyed FROM sums",
    "CREATE SINK three INTO last AS SELECT n % 5, count(*) FROM keyed JOIN bag ON bag.id % 5 = keyed.k GROUP BY n % 5",
    "CREATE MATERIALIZED VIEW over AS SELECT k, n, (SELECT count(*) FROM bag) AS of FROM last",
];

/// What tables hold, and what makes it.
const PAIRS: &[(&str, &str)] = &[
    ("SELECT id, v FROM bag WHERE id < 1000 ORDER BY id, v", "SELECT id, v FROM t ORDER BY id, v"),
    ("SELECT * FROM keyed ORDER BY k", "SELECT k, count(*), sum(v) FROM t GROUP BY k ORDER BY k"),
    (
        "SELECT * FROM last ORDER BY k",
        "SELECT n % 5, count(*) FROM keyed JOIN bag ON bag.id % 5 = keyed.k GROUP BY n % 5 ORDER BY 1",
    ),
    ("SELECT * FROM over ORDER BY k", "SELECT k, n, (SELECT count(*) FROM bag) FROM last ORDER BY k"),
];

fn statement(random: &mut SmallRng, next: &mut i64) -> String {
    match random.random_range(0..8) {
        0 => format!("DELETE FROM t WHERE k = {}", random.random_range(0..4)),
        1 => format!("UPDATE t SET v = v + 1 WHERE k = {}", random.random_range(0..4)),
        2 => {
            *next += 1;
            format!("INSERT INTO bag VALUES ({}, 0)", 1000 + *next)
        }
        _ => {
            *next += 1;
            format!("INSERT INTO t VALUES ({next}, {}, {})", *next % 4, random.random_range(0..9))
        }
    }
}

async fn equal(session: &mut Session) -> Result<()> {
    for (table, query) in PAIRS {
        let (held, expected) = (lines(session, table).await?, lines(session, query).await?);
        ensure(held == expected, || format!("{table} gives {held:?}\n{query} gives {expected:?}"))?;
    }
    Ok(())
}

async fn crashes() -> Result<()> {
    for seed in 0..6 {
        crashes_of(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn crashes_of(seed: u64) -> Result<()> {
    let (folder, mut random) = (folder()?, SmallRng::seed_from_u64(seed));
    let gates = [Gate::default(), Gate::default()];
    let functions = [gates[0].function("gate_a"), gates[1].function("gate_b")];
    let mut machine = Machine::start(move || {
        let builder = functions.iter().cloned().fold(Engine::builder(), |all, one| all.scalar_function(one));
        builder.step_apart(1 + seed % 3)
    })?;
    let mut session = machine.session();
    run_all(&mut session, QUERIES).await?;
    let with = format!(
        "connector = 'file', path = '{}', format = 'csv', header = false, changelog = true",
        folder.path().display()
    );
    run(&mut session, &format!("CREATE SINK outside FROM over WITH ({with})")).await?;
    let mut next = 0;
    for _ in 0..8 {
        machine.set_interval(&mut random).await?;
        for _ in 0..random.random_range(1..12) {
            for gate in &gates {
                gate.set([Door::Open, Door::Open, Door::Closed][random.random_range(0..3)]);
            }
            run(&mut session, &statement(&mut random, &mut next)).await?;
            if random.random_range(0..3) == 0 {
                tokio::time::sleep(Duration::from_millis(random.random_range(0..8))).await;
            }
        }
        gates.iter().for_each(|gate| gate.set(Door::Open));
        match random.random_range(0..4) {
            0 => drop(run(&mut session, "FLUSH").await?),
            1 => equal(&mut session).await?,
            2 => {
                run(&mut session, "PAUSE one").await?;
                run(&mut session, &statement(&mut random, &mut next)).await?;
                run(&mut session, "RESUME one").await?;
            }
            _ => {}
        }
        machine.crash(&mut random).await?;
        session = machine.session();
        equal(&mut session).await?;
    }
    run(&mut session, "FLUSH").await?;
    equal(&mut session).await?;
    run(&mut session, "VERIFY over").await?;
    // What was delivered outside is what the view holds in sum.
    let mut sum = std::collections::BTreeMap::<String, i64>::new();
    for line in lines_in(folder.path())? {
        let (op, row) = line.split_once(',').ok_or("no change")?;
        *sum.entry(row.into()).or_default() += if op.contains("insert") { 1 } else { -1 };
    }
    sum.retain(|_, count| *count != 0);
    let held = lines(&mut session, "SELECT k, n, of FROM over").await?;
    let mut held: Vec<String> = held.iter().map(|row| row.replace('|', ",")).collect();
    held.sort();
    ensure(sum.keys().eq(&held) && sum.values().all(|count| *count == 1), || {
        format!("delivered {sum:?}, held {held:?}")
    })?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn refused() -> Result<()> {
    let (gate, mut random) = (Gate::default(), SmallRng::seed_from_u64(7));
    let function = gate.function("gate");
    let mut machine =
        Machine::start(move || Engine::builder().step_apart(1).scalar_function(function.clone()))?;
    let mut session = machine.session();
    let set_up = [
        "CREATE TABLE t (k BIGINT, v BIGINT)",
        "CREATE TABLE keyed (k BIGINT PRIMARY KEY, v BIGINT NOT NULL)",
        "CREATE MATERIALIZED VIEW over AS SELECT count(*) AS n, sum(v) AS v FROM keyed",
        "CREATE SINK filling INTO keyed AS SELECT k, gate(v) AS v FROM t",
        "INSERT INTO t VALUES (1, 10)",
        "INSERT INTO keyed VALUES (2, 20)",
    ];
    run_all(&mut session, &set_up).await?;
    expect(&mut session, "SELECT n, v FROM over", &["2|30"]).await?;
    gate.set(Door::Closed);
    // The table can't take the second; nothing is left of those that came with it.
    run(&mut session, "INSERT INTO t VALUES (3, 30), (2, NULL)").await?;
    run(&mut session, "INSERT INTO t VALUES (4, 40)").await?;
    gate.set(Door::Open);
    run(&mut session, "FLUSH").await?;
    for _ in 0..3 {
        expect(&mut session, "SELECT name, status FROM millstream.sinks", &["filling|suspended"]).await?;
        expect(&mut session, "SELECT n, v FROM over", &["2|30"]).await?;
        expect(&mut session, "SELECT k, v FROM keyed", &["1|10", "2|20"]).await?;
        machine.crash(&mut random).await?;
        session = machine.session();
    }
    Ok(())
}
