//! Sinks into tables that are too slow for the pace keep nobody waiting; their tables get all of their changes, and each once,
//! through crashes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::DataType;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, seeds, within_a_minute};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::behind::{Door, Gate};
use super::machine::Machine;
use super::{Scenario, folder, lines_in};

pub const ALL: &[Scenario] = &[
    ("a_slow_sink_into_a_table_keeps_nobody_waiting", || drive::block_on(others_go_on())),
    ("a_slow_sink_into_a_table_brings_each_change_once_through_crashes", || drive::block_on(crashes())),
    ("a_slow_sink_that_a_table_refuses_is_suspended_once", || drive::block_on(refused())),
    ("large_changes_of_sinks_and_statements_share_a_table", || drive::block_on(large())),
    ("large_changes_of_sinks_come_once_through_crashes", || drive::block_on(large_crashes())),
    ("a_table_refuses_a_large_change_of_a_sink_as_a_whole", || drive::block_on(large_refused())),
    ("the_loop_evaluates_no_statement_over_a_table_that_a_sink_changes", || drive::block_on(contended())),
    ("resumed_batches_run_one_by_one_and_keep_nobody_waiting", || drive::block_on(resumed_batches())),
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

/// The content of tables, and the statements that make it.
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
    for seed in seeds(&[0, 1, 2], 0..6) {
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
        "ALTER TABLE keyed ADD COLUMN more BIGINT DEFAULT 7",
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
        let says_why = "SELECT count(*) FROM millstream.sinks WHERE reason LIKE \
            '%column \"v\" is NOT NULL and a row has no value for it%'";
        expect(&mut session, says_why, &["1"]).await?;
        expect(&mut session, "SELECT n, v FROM over", &["2|30"]).await?;
        expect(&mut session, "SELECT k, v, more FROM keyed", &["1|10|7", "2|20|7"]).await?;
        machine.crash(&mut random).await?;
        session = machine.session();
    }
    Ok(())
}

/// More rows than the loop applies at once.
const LARGE: i64 = 40_000;

/// Sinks that begin with much and go on with much, beside large and small statements over the same tables.
async fn large() -> Result<()> {
    let engine = Engine::builder().start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let set_up = [
        "CREATE TABLE t (id BIGINT, v BIGINT)",
        "CREATE TABLE bag (id BIGINT, v BIGINT)",
        "CREATE TABLE keyed (id BIGINT PRIMARY KEY, v BIGINT)",
        "CREATE MATERIALIZED VIEW over AS SELECT count(*) AS n, sum(v) AS v FROM bag WHERE id >= 0",
        "CREATE MATERIALIZED VIEW of_keys AS SELECT count(*) AS n, sum(v) AS v FROM keyed WHERE id >= 0",
    ];
    run_all(&mut session, &set_up).await?;
    run(&mut session, &format!("INSERT INTO t SELECT g, 1 FROM generate_series(1, {LARGE}) s(g)")).await?;
    run(&mut session, "CREATE SINK filling INTO bag AS SELECT id, v FROM t").await?;
    run(&mut session, "CREATE SINK by_key INTO keyed AS SELECT id, max(v) AS v FROM t GROUP BY id").await?;
    let first = format!("{LARGE}|{LARGE}");
    expect(&mut session, "SELECT n, v FROM over", &[&first]).await?;
    expect(&mut session, "SELECT n, v FROM of_keys", &[&first]).await?;
    let mut others = Vec::new();
    for table in ["bag", "keyed"] {
        let mut other = engine.session();
        others.push(tokio::spawn(async move {
            let (low, high) = (-LARGE, -1);
            run(
                &mut other,
                &format!("INSERT INTO {table} SELECT g, 1 FROM generate_series({low}, {high}) s(g)"),
            )
            .await?;
            run(&mut other, &format!("UPDATE {table} SET v = v + 1 WHERE id BETWEEN {low} AND {high}")).await
        }));
        let mut other = engine.session();
        others.push(tokio::spawn(async move {
            let mut last = String::new();
            for id in 1..20 {
                last = run(&mut other, &format!("INSERT INTO {table} VALUES ({}, 7)", -LARGE - id)).await?;
            }
            Ok(last)
        }));
    }
    for _ in 0..3 {
        run(&mut session, "UPDATE t SET v = v + 1").await?;
    }
    for other in others {
        within_a_minute("a statement", other).await?.map_err(|error| error.to_string())??;
    }
    let expected = format!("{LARGE}|{}", 4 * LARGE);
    expect(&mut session, "SELECT n, v FROM over", &[&expected]).await?;
    expect(&mut session, "SELECT n, v FROM of_keys", &[&expected]).await?;
    for table in ["bag", "keyed"] {
        let own = format!("SELECT count(*), sum(v) FROM {table} WHERE id < 0");
        expect(&mut session, &own, &[&format!("{}|{}", LARGE + 19, 2 * LARGE + 19 * 7)]).await?;
    }
    for statement in
        ["PAUSE filling", "UPDATE t SET v = 0", "RESUME filling", "DROP SINK filling", "DROP SINK by_key"]
    {
        run(&mut session, statement).await?;
    }
    expect(&mut session, "SELECT n, v FROM over", &[&format!("{LARGE}|0")]).await?;
    expect(&mut session, "SELECT n, v FROM of_keys", &[&format!("{LARGE}|0")]).await?;
    for view in ["over", "of_keys"] {
        run(&mut session, &format!("VERIFY {view}")).await?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

async fn large_crashes() -> Result<()> {
    for seed in seeds(&[0, 1], 0..4) {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut machine = Machine::start(move || match seed % 2 {
            0 => Engine::builder(),
            _ => Engine::builder().step_apart(1 + seed),
        })?;
        let mut session = machine.session();
        let set_up = [
            "CREATE TABLE t (id BIGINT, v BIGINT)",
            "CREATE TABLE bag (id BIGINT, v BIGINT)",
            "CREATE MATERIALIZED VIEW over AS SELECT count(*) AS n, sum(v) AS v FROM bag",
            "CREATE MATERIALIZED VIEW of_t AS SELECT count(*) AS n, sum(v) AS v FROM t",
            &format!("INSERT INTO t SELECT g, 1 FROM generate_series(1, {LARGE}) s(g)"),
            "CREATE SINK filling INTO bag AS SELECT id, v FROM t",
        ];
        run_all(&mut session, &set_up).await?;
        let mut paused = false;
        for round in 0..6 {
            machine.set_interval(&mut random).await?;
            for _ in 0..random.random_range(1..4) {
                let id = random.random_range(1..9) * LARGE;
                let statement = match random.random_range(0..6) {
                    0 => "UPDATE t SET v = v + 1".to_string(),
                    1 => format!("DELETE FROM t WHERE id % 4 = {}", id % 4),
                    2 if paused => "RESUME filling".into(),
                    2 => "PAUSE filling".into(),
                    3 => format!("INSERT INTO t SELECT {id} + g, 1 FROM generate_series(1, {LARGE}) s(g)"),
                    4 => "UPDATE t SET v = v + 1 WHERE id % 3 = 0".into(),
                    _ => format!("INSERT INTO t VALUES ({id}, 3)"),
                };
                paused = if statement.starts_with("PAUSE") {
                    true
                } else {
                    paused && statement != "RESUME filling"
                };
                run(&mut session, &statement).await?;
            }
            let pause = random.random_range(0..60);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            machine.crash(&mut random).await?;
            session = machine.session();
            if !paused {
                let of_t = lines(&mut session, "SELECT n, v FROM of_t").await?;
                let over = lines(&mut session, "SELECT n, v FROM over").await?;
                ensure(of_t == over, || format!("seed {seed}, round {round}: {of_t:?} became {over:?}"))?;
            }
        }
        run(&mut session, "RESUME filling").await?;
        let of_t = lines(&mut session, "SELECT n, v FROM of_t").await?;
        let over = lines(&mut session, "SELECT n, v FROM over").await?;
        ensure(of_t == over, || format!("seed {seed}: {of_t:?} became {over:?}"))?;
        expect(&mut session, "SELECT count(*) FROM (SELECT * FROM t EXCEPT ALL SELECT * FROM bag) d", &["0"])
            .await?;
        run(&mut session, "VERIFY over").await?;
        machine.engine.stop().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Statements read a table that a sink changes in every epoch, and take longer than an epoch.
async fn contended() -> Result<()> {
    let threads: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let engine = Engine::builder().scalar_function(slow(threads.clone())).start();
    let engine = engine.map_err(|error| error.to_string())?;
    let (mut session, stop) = (engine.session(), Arc::new(AtomicBool::new(false)));
    let set_up = [
        "CREATE TABLE t (id BIGINT, n BIGINT)",
        "CREATE TABLE sums (id BIGINT PRIMARY KEY, n BIGINT)",
        "CREATE TABLE seen (slow BIGINT, n BIGINT)",
        "CREATE SINK summing INTO sums AS SELECT id, sum(n) AS n FROM t GROUP BY id",
        "INSERT INTO t SELECT i, 1 FROM generate_series(1, 10) g(i)",
    ];
    run_all(&mut session, &set_up).await?;
    let (mut feeder, mut reader) = (engine.session(), engine.session());
    let (ends, reads_end) = (stop.clone(), stop.clone());
    let feeding = tokio::spawn(async move {
        let mut fed = 0;
        while !ends.load(Ordering::Relaxed) {
            run(&mut feeder, "INSERT INTO t VALUES (1, 1)").await?;
            fed += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok::<i64, String>(fed)
    });
    let reading = tokio::spawn(async move {
        while !reads_end.load(Ordering::Relaxed) {
            run(&mut reader, "SELECT sum(n) FROM sums").await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok::<(), String>(())
    });
    for _ in 0..3 {
        let insert = run(&mut session, "INSERT INTO seen SELECT slow(count(*)), sum(n) FROM sums");
        within_a_minute("the INSERT", insert).await??;
        let upsert = "INSERT INTO sums SELECT slow(id) + 100, n FROM sums WHERE id = 2 ON CONFLICT (id) DO UPDATE SET n = \
                      sums.n + slow(excluded.n)";
        within_a_minute("ON CONFLICT", run(&mut session, upsert)).await??;
    }
    stop.store(true, Ordering::Relaxed);
    let fed = within_a_minute("the feeder", feeding).await?.map_err(|error| error.to_string())??;
    within_a_minute("the reader", reading).await?.map_err(|error| error.to_string())??;
    expect(&mut session, "SELECT count(*), min(slow), max(slow) FROM seen", &["3|10|11"]).await?;
    expect(&mut session, "SELECT n FROM sums WHERE id = 1", &[&(fed + 1).to_string()]).await?;
    expect(&mut session, "SELECT n FROM sums WHERE id = 102", &["3"]).await?;
    let threads = threads.lock().map_err(|error| error.to_string())?.clone();
    ensure(!threads.contains("millstream-loop"), || format!("statements were evaluated on {threads:?}"))?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Returns a function that takes longer than an epoch, and notes the threads that evaluate it.
fn slow(threads: Arc<Mutex<BTreeSet<String>>>) -> ScalarUDF {
    let evaluate = move |arguments: &[ColumnarValue]| {
        let thread = std::thread::current().name().unwrap_or_default().to_string();
        threads.lock().unwrap_or_else(PoisonError::into_inner).insert(thread);
        std::thread::sleep(Duration::from_millis(40));
        Ok(arguments[0].clone())
    };
    let (of, immutable) = (vec![DataType::Int64], Volatility::Immutable);
    create_udf("slow", of, DataType::Int64, immutable, Arc::new(evaluate))
}

async fn large_refused() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(9);
    let mut machine = Machine::start(Engine::builder)?;
    let mut session = machine.session();
    let set_up = [
        "CREATE TABLE t (k BIGINT, v BIGINT)",
        "CREATE TABLE keyed (k BIGINT PRIMARY KEY, v BIGINT NOT NULL)",
        "CREATE TABLE bag (k BIGINT, v BIGINT)",
        "CREATE SINK by_key INTO keyed AS SELECT k, v FROM t",
        "CREATE SINK filling INTO bag AS SELECT k, v FROM t WHERE v IS NOT NULL",
        "INSERT INTO t VALUES (1, 10)",
        "INSERT INTO keyed VALUES (-2, 20)",
    ];
    run_all(&mut session, &set_up).await?;
    let all = format!(
        "INSERT INTO t SELECT g + 5, CASE WHEN g < {LARGE} THEN g END FROM generate_series(1, {LARGE}) s(g)"
    );
    run(&mut session, &all).await?;
    run(&mut session, "FLUSH").await?;
    // The sink can't take back the row that a statement has deleted.
    run(&mut session, "DELETE FROM bag WHERE k = 9").await?;
    run(&mut session, "DELETE FROM t WHERE v IS NOT NULL").await?;
    run(&mut session, "FLUSH").await?;
    for _ in 0..3 {
        let status = "SELECT name, status FROM millstream.sinks ORDER BY name";
        expect(&mut session, status, &["by_key|suspended", "filling|suspended"]).await?;
        expect(&mut session, "SELECT k, v FROM keyed ORDER BY k", &["-2|20", "1|10"]).await?;
        expect(&mut session, "SELECT count(*) FROM bag", &[&(LARGE - 1).to_string()]).await?;
        machine.crash(&mut random).await?;
        session = machine.session();
    }
    machine.engine.stop().await.map_err(|error| error.to_string())
}

/// A query FOR EACH BATCH that is resumed runs all batches since its pause beside the loop, each under its own time.
async fn resumed_batches() -> Result<()> {
    let (gate, out) = (Gate::default(), folder()?);
    let function = gate.function("gate");
    let mut machine =
        Machine::start(move || Engine::builder().step_apart(1).scalar_function(function.clone()))?;
    let mut session = machine.session();
    let told = format!(
        "CREATE SINK told FROM each WITH (connector = 'file', path = '{}', format = 'csv', header = false)",
        out.path().display()
    );
    let set_up = [
        "SET parallelism = 8",
        "SET checkpoint_interval = 'off'",
        "CREATE TABLE t (k BIGINT, v BIGINT) APPEND ONLY",
        "CREATE TABLE other (v BIGINT)",
        "CREATE TABLE copy (s BIGINT, at TIMESTAMPTZ)",
        "CREATE MATERIALIZED VIEW fast AS SELECT count(*) AS n FROM other",
        "CREATE STREAM rows AS SELECT k, v FROM t",
        "CREATE STREAM each AS SELECT sum(gate(v))::BIGINT AS s, now() AS at FROM rows FOR EACH BATCH",
        "CREATE MATERIALIZED VIEW sums AS SELECT sum(s) AS s, count(*) AS n, count(DISTINCT at) AS at FROM each",
        "CREATE SINK copying INTO copy AS SELECT s, at FROM each",
        &told,
        "INSERT INTO t VALUES (0, 1), (1, 1)",
        "PAUSE each",
    ];
    run_all(&mut session, &set_up).await?;
    for id in 0..20 {
        run(&mut session, &format!("INSERT INTO t VALUES ({id}, 1), ({id}, 2)")).await?;
    }
    expect(&mut session, "SELECT s, n FROM sums", &["2|1"]).await?;
    gate.set(Door::Closed);
    within_a_minute("RESUME", run(&mut session, "RESUME each")).await??;
    within_a_minute("an insert", run(&mut session, "INSERT INTO other VALUES (1)")).await??;
    within_a_minute("an insert", run(&mut session, "INSERT INTO t VALUES (30, 5)")).await??;
    within_a_minute("a read", expect(&mut session, "SELECT n FROM fast", &["1"])).await??;
    gate.set(Door::Open);
    for round in 0..3 {
        expect(&mut session, "SELECT s, n, at FROM sums", &["67|22|22"]).await?;
        expect(&mut session, "SELECT sum(s), count(*), count(DISTINCT at) FROM copy", &["67|22|22"]).await?;
        expect(&mut session, "SELECT count(*) FROM each JOIN copy USING (s, at)", &["22"]).await?;
        run(&mut session, "FLUSH").await?;
        let lines = lines_in(out.path())?;
        ensure(lines.len() == 22, || format!("round {round}: the sink was told {lines:?}"))?;
        machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(round)).await?;
        session = machine.session();
    }
    machine.engine.stop().await.map_err(|error| error.to_string())
}
