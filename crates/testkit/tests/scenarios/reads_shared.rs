//! Reads of results on threads, of queries that share arrangements, beside checkpoints, sinks and events that wait.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use millstream_engine::{Engine, EngineBuilder, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, seeds, within_a_minute};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;

use super::behind::{Door, Gate, started};
use super::machine::Machine;
use super::{Scenario, folder, lines_in};

pub const ALL: &[Scenario] = &[
    ("a_read_of_a_view_that_shares_rows_keeps_nobody_waiting", || drive::block_on(shared())),
    ("reads_of_views_that_share_rows_are_as_of_one_epoch", || drive::block_on(one_epoch())),
    ("reads_on_threads_and_checkpoints_take_turns", || drive::block_on(turns())),
    ("a_read_waits_for_a_checkpoint_that_waits_for_a_read", || drive::block_on(due())),
    ("shared_rows_survive_their_last_reader_in_checkpoints", || drive::block_on(reopened())),
    ("a_view_is_read_on_a_thread_though_a_sink_into_a_table_reads_it", || drive::block_on(into_table())),
    ("a_sink_begins_with_content_that_a_thread_reads", || drive::block_on(sink())),
    ("statements_over_a_view_wait_for_no_stream_of_reads", || drive::block_on(statements())),
];

/// Every result is read on a thread, however small it is.
fn builder() -> EngineBuilder {
    Engine::builder().read_apart_above(0)
}

/// Two tables, and views that look their rows up by the same keys; each reads other columns. The first evaluates the
/// gate's function in each step and in each read, `fast` reads neither.
const OBJECTS: &[&str] = &[
    "CREATE TABLE c (id BIGINT PRIMARY KEY, name BIGINT, city BIGINT)",
    "CREATE TABLE o (id BIGINT PRIMARY KEY, customer BIGINT, amount BIGINT)",
    "CREATE MATERIALIZED VIEW fast AS SELECT count(*) AS n FROM o",
    "CREATE MATERIALIZED VIEW cities AS SELECT city, gate(n) AS n FROM \
     (SELECT c.city, count(*) AS n FROM o JOIN c ON o.customer = c.id GROUP BY c.city)",
    "CREATE MATERIALIZED VIEW names AS SELECT c.name, count(*) AS n FROM o JOIN c ON o.customer = c.id GROUP BY c.name",
    "CREATE MATERIALIZED VIEW amounts AS SELECT o.amount, count(*) AS n \
     FROM o JOIN c ON o.customer = c.id GROUP BY o.amount",
    "INSERT INTO c SELECT i, i % 7, i % 5 FROM generate_series(1, 200) g(i)",
    "INSERT INTO o SELECT i, i % 250, i % 11 FROM generate_series(1, 600) g(i)",
];

const VIEWS: [&str; 3] = ["cities", "names", "amounts"];

/// The number of pairs by each view and by the tables: all are the same in one epoch.
const COUNTS: &str = "SELECT (SELECT coalesce(sum(n), 0) FROM cities), (SELECT coalesce(sum(n), 0) FROM names), \
                      (SELECT coalesce(sum(n), 0) FROM amounts), (SELECT count(*) FROM o JOIN c ON o.customer = c.id)";

const CITIES: &str = "SELECT c.city, count(*) AS n FROM o JOIN c ON o.customer = c.id GROUP BY c.city";

fn reading(engine: &Engine, sql: &'static str) -> JoinHandle<Result<Vec<String>>> {
    let mut session = engine.session();
    tokio::spawn(async move { lines(&mut session, sql).await })
}

async fn done<T>(what: &str, task: JoinHandle<Result<T>>) -> Result<T> {
    within_a_minute(what, task).await?.map_err(|error| error.to_string())?
}

/// Begins a read of `cities`, whose thread waits at the closed gate.
async fn held(engine: &Engine, gate: &Gate) -> Result<JoinHandle<Result<Vec<String>>>> {
    gate.set(Door::Closed);
    let read = reading(engine, "SELECT city, n FROM cities");
    drive::until("the read", || gate.waiting() > 0).await?;
    Ok(read)
}

/// Inserts or deletes some rows of both tables.
async fn change(session: &mut Session, random: &mut SmallRng) -> Result<()> {
    let (id, other) = (random.random_range(0..800), random.random_range(0..300));
    let sql = match random.random_range(0..5) {
        0 => format!("DELETE FROM o WHERE id BETWEEN {id} AND {id} + 30"),
        1 => format!("DELETE FROM c WHERE id BETWEEN {other} AND {other} + 5"),
        2 => format!("UPDATE c SET name = name + 1, city = city + 2 WHERE id % 9 = {}", other % 9),
        3 => format!(
            "INSERT INTO c SELECT i, i % 7, i % 5 FROM generate_series({other}, {other} + 9) g(i) ON CONFLICT DO NOTHING"
        ),
        _ => format!(
            "INSERT INTO o SELECT i, i % 250, i % 11 FROM generate_series({id}, {id} + 40) g(i) ON CONFLICT DO NOTHING"
        ),
    };
    run(session, &sql).await.map(drop)
}

async fn compare(session: &mut Session) -> Result<()> {
    let found = lines(session, COUNTS).await?.concat();
    let counts: Vec<&str> = found.split('|').collect();
    ensure(counts.windows(2).all(|pair| pair[0] == pair[1]), || format!("rows of several epochs: {found}"))
}

async fn verified(session: &mut Session) -> Result<()> {
    for view in VIEWS {
        expect(session, &format!("VERIFY {view}"), &[]).await?;
    }
    Ok(())
}

/// Waits until all views share their rows: a query returns to the loop soon after a read.
async fn all_share(session: &mut Session) -> Result<()> {
    let mut said = String::new();
    for _ in 0..1000 {
        said = lines(session, "EXPLAIN names").await?.join("\n");
        // Queries are named in the order in which they were created.
        if said.contains("shared by cities, names, amounts") {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    Err(format!("the views share no rows:\n{said}"))
}

async fn shared() -> Result<()> {
    let (gate, engine, mut session) = started(builder()).await?;
    run_all(&mut session, OBJECTS).await?;
    all_share(&mut session).await?;
    let before = lines(&mut session, CITIES).await?;
    let read = held(&engine, &gate).await?;
    run_all(
        &mut session,
        &[
            "DELETE FROM o WHERE id % 3 = 0",
            "UPDATE c SET name = 3, city = 4 WHERE id % 2 = 0",
            "DELETE FROM c WHERE id < 20",
        ],
    )
    .await?;
    // Others go on with the rows that they share.
    expect(&mut session, "SELECT n FROM fast", &["400"]).await?;
    let pairs = lines(&mut session, "SELECT count(*) FROM o JOIN c ON o.customer = c.id").await?.concat();
    for view in ["names", "amounts"] {
        expect(&mut session, &format!("SELECT sum(n) FROM {view}"), &[&pairs]).await?;
    }
    let behind = "SELECT name, status FROM millstream.materialized_views WHERE status <> 'running'";
    expect(&mut session, behind, &["cities|behind"]).await?;
    ensure(!read.is_finished(), || "the read is done before its thread".into())?;
    // A read that is given up leaves nothing behind.
    let given_up = reading(&engine, "SELECT city, n FROM cities");
    tokio::task::yield_now().await;
    given_up.abort();
    gate.set(Door::Open);
    let found = done("the read", read).await?;
    ensure(found == before, || format!("the read is not of one epoch: {found:?}, {before:?}"))?;
    all_share(&mut session).await?;
    compare(&mut session).await?;
    verified(&mut session).await?;
    all_share(&mut session).await?;
    for view in VIEWS {
        run(&mut session, &format!("DROP MATERIALIZED VIEW {view}")).await?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

/// All views are read together and alone while their tables change: they leave their rows in any order.
async fn one_epoch() -> Result<()> {
    for seed in seeds(&[0], 0..3) {
        one_epoch_of(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn one_epoch_of(seed: u64) -> Result<()> {
    let (_gate, engine, mut session) = started(builder()).await?;
    run_all(&mut session, OBJECTS).await?;
    let readers = (0..3).map(|number| {
        let mut session = engine.session();
        tokio::spawn(async move {
            for round in 0..12 {
                match (number + round) % 3 {
                    0 => run(&mut session, &format!("SELECT * FROM {}", VIEWS[round % 3])).await.map(drop)?,
                    1 => {
                        run(&mut session, "BEGIN").await?;
                        compare(&mut session).await?;
                        compare(&mut session).await?;
                        run(&mut session, "COMMIT").await?;
                    }
                    _ => compare(&mut session).await?,
                }
            }
            Ok::<(), String>(())
        })
    });
    let readers: Vec<_> = readers.collect();
    let mut random = SmallRng::seed_from_u64(seed);
    while !readers.iter().all(JoinHandle::is_finished) {
        change(&mut session, &mut random).await?;
        compare(&mut session).await?;
    }
    for reader in readers {
        done("a reader", reader).await?;
    }
    all_share(&mut session).await?;
    verified(&mut session).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// A stream of reads postpones no checkpoint, and a stream of checkpoints no read.
async fn turns() -> Result<()> {
    let gate = Gate::default();
    let mut machine = Machine::start(move || builder().scalar_function(gate.function("gate")))?;
    run(&mut machine.session(), "SET checkpoint_interval = '1 ms'").await?;
    run_all(&mut machine.session(), OBJECTS).await?;
    let (end, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let readers = (0..4).map(|_| {
        let (mut session, end, reads) = (machine.session(), end.clone(), reads.clone());
        tokio::spawn(async move {
            while !end.load(Ordering::SeqCst) {
                compare(&mut session).await?;
                reads.fetch_add(1, Ordering::SeqCst);
            }
            Ok::<(), String>(())
        })
    });
    let readers: Vec<_> = readers.collect();
    let mut random = SmallRng::seed_from_u64(7);
    let (mut session, mut writer) = (machine.session(), machine.session());
    for _ in 0..10 {
        let before = reads.load(Ordering::SeqCst);
        change(&mut writer, &mut random).await?;
        within_a_minute("CHECKPOINT", run(&mut session, "CHECKPOINT")).await??;
        while reads.load(Ordering::SeqCst) == before {
            ensure(!readers.iter().all(JoinHandle::is_finished), || "the readers have ended".into())?;
            within_a_minute("CHECKPOINT", run(&mut session, "CHECKPOINT")).await??;
        }
    }
    end.store(true, Ordering::SeqCst);
    for reader in readers {
        done("a reader", reader).await?;
    }
    machine.crash_at(|| {}, &mut random).await?;
    let mut session = machine.session();
    compare(&mut session).await?;
    change(&mut session, &mut random).await?;
    verified(&mut session).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn due() -> Result<()> {
    let gate = Gate::default();
    let of_engine = gate.clone();
    let mut machine = Machine::start(move || builder().scalar_function(of_engine.function("gate")))?;
    let mut session = machine.session();
    run_all(&mut session, &["SET checkpoint_interval = 'off'", "SET parallelism = 8"]).await?;
    run_all(&mut session, OBJECTS).await?;
    let before = lines(&mut session, CITIES).await?;
    let first = held(&machine.engine, &gate).await?;
    let mut other = machine.session();
    let checkpoint = tokio::spawn(async move { run(&mut other, "CHECKPOINT").await });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let waiting = [
        "SELECT sum(n) FROM names",
        "SELECT sum(names.n) FROM names JOIN fast ON true",
        "INSERT INTO o SELECT max(n) + 2000, 100000, 1 FROM amounts",
        "VERIFY names",
    ];
    let waiting = waiting.map(|sql| (sql, reading(&machine.engine, sql)));
    let given_up = reading(&machine.engine, "SELECT * FROM names");
    // Nothing else waits, also no row that its key finds.
    run_all(&mut session, &["INSERT INTO o VALUES (1000, 1, 1)", "INSERT INTO o VALUES (1001, 2, 3)"])
        .await?;
    expect(&mut session, "SELECT n FROM names WHERE name = 100", &[]).await?;
    expect(&mut session, "SELECT count(*) FROM o WHERE id > 999", &["2"]).await?;
    let begun = waiting.iter().find(|(_, read)| read.is_finished()).map(|(sql, _)| *sql);
    ensure(begun.is_none() && !given_up.is_finished(), || format!("{begun:?} has not waited"))?;
    ensure(!checkpoint.is_finished(), || "the checkpoint has not waited for the read".into())?;
    given_up.abort();
    gate.set(Door::Open);
    done("the checkpoint", checkpoint).await?;
    let found = done("the read", first).await?;
    ensure(found == before, || format!("the read is not of one epoch: {found:?}, {before:?}"))?;
    for (sql, read) in waiting {
        done(sql, read).await?;
    }
    expect(&mut session, "SELECT reason FROM millstream.checkpoints", &["NULL"]).await?;
    verified(&mut session).await?;
    machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(1)).await?;
    verified(&mut machine.session()).await?;
    compare(&mut machine.session()).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

/// The last query that leaves shared rows keeps the columns of all, also in a checkpoint.
async fn reopened() -> Result<()> {
    let gate = Gate::default();
    let mut machine = Machine::start(move || builder().scalar_function(gate.function("gate")))?;
    let mut session = machine.session();
    run(&mut session, "SET checkpoint_interval = 'off'").await?;
    run_all(&mut session, OBJECTS).await?;
    let orders = [[0, 1, 2], [2, 1, 0], [1, 2, 0]];
    let mut random = SmallRng::seed_from_u64(11);
    for (round, order) in orders.iter().enumerate() {
        all_share(&mut session).await?;
        for view in order {
            run(&mut session, &format!("PAUSE {}", VIEWS[*view])).await?;
            change(&mut session, &mut random).await?;
        }
        run(&mut session, "CHECKPOINT").await?;
        change(&mut session, &mut random).await?;
        if round != 1 {
            run(&mut session, "CHECKPOINT").await?;
        }
        machine.crash_at(|| {}, &mut random).await?;
        session = machine.session();
        change(&mut session, &mut random).await?;
        for view in order {
            run(&mut session, &format!("RESUME {}", VIEWS[*view])).await?;
        }
        change(&mut session, &mut random).await?;
        compare(&mut session).await?;
        verified(&mut session).await?;
    }
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn into_table() -> Result<()> {
    let (gate, engine, mut session) = started(builder()).await?;
    run_all(&mut session, OBJECTS).await?;
    let objects = [
        "CREATE TABLE copy (city BIGINT, n BIGINT)",
        "CREATE SINK copying INTO copy AS SELECT city, n FROM cities",
        "CREATE MATERIALIZED VIEW copied AS SELECT coalesce(sum(n), 0) AS n, count(*) AS cities FROM copy",
    ];
    run_all(&mut session, &objects).await?;
    for round in 0..3 {
        let read = held(&engine, &gate).await?;
        run(&mut session, &format!("DELETE FROM o WHERE id % 4 = {round}")).await?;
        let counts = lines(&mut session, "SELECT count(*) FROM o").await?.concat();
        expect(&mut session, "SELECT n FROM fast", &[&counts]).await?;
        ensure(!read.is_finished(), || "the read is done before its thread".into())?;
        let of_copy = reading(&engine, "SELECT n FROM copied");
        gate.set(Door::Open);
        done("the read", read).await?;
        let sum = lines(&mut session, "SELECT sum(n) FROM cities").await?;
        ensure(done("the read of the table", of_copy).await? == sum, || "the table lacks changes".into())?;
        expect(&mut session, "SELECT sum(n) FROM copy", &[&sum.concat()]).await?;
    }
    verified(&mut session).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Fails unless a sink was told the rows of `cities`.
async fn told(session: &mut Session, out: &Path) -> Result<()> {
    run(session, "FLUSH").await?;
    let mut told = BTreeMap::<String, i64>::new();
    for line in lines_in(out)? {
        let (op, row) = line.split_once(',').ok_or("a line without columns")?;
        *told.entry(row.replace(',', "|")).or_default() += if op == "insert" { 1 } else { -1 };
    }
    told.retain(|_, count| *count != 0);
    let held = lines(session, "SELECT city, n FROM cities").await?;
    let held = held.into_iter().map(|row| (row, 1)).collect();
    ensure(told == held, || format!("the sink was told {told:?}, the view holds {held:?}"))
}

async fn sink() -> Result<()> {
    let (gate, out) = (Gate::default(), folder()?);
    let of_engine = gate.clone();
    let mut machine = Machine::start(move || builder().scalar_function(of_engine.function("gate")))?;
    let mut session = machine.session();
    run_all(&mut session, &["SET checkpoint_interval = 'off'", "SET parallelism = 8"]).await?;
    run_all(&mut session, OBJECTS).await?;
    let sink = |name: &str| {
        let path = out.path().join(name);
        format!(
            "CREATE SINK {name} FROM cities WITH (connector = 'file', path = '{}', format = 'csv', header = false, changelog = true)",
            path.display()
        )
    };
    gate.set(Door::Closed);
    run(&mut session, &sink("one")).await?;
    run_all(&mut session, &["DELETE FROM o WHERE id % 3 = 0", "UPDATE c SET city = 4 WHERE id % 2 = 0"])
        .await?;
    expect(&mut session, "SELECT n FROM fast", &["400"]).await?;
    let mut other = machine.session();
    let checkpoint = tokio::spawn(async move { run(&mut other, "CHECKPOINT").await });
    let mut other = machine.session();
    let second = sink("two");
    let second = tokio::spawn(async move { run(&mut other, &second).await });
    run(&mut session, "DELETE FROM o WHERE id % 5 = 0").await?;
    ensure(!checkpoint.is_finished(), || "a checkpoint lacks the content of a sink".into())?;
    gate.set(Door::Open);
    done("the checkpoint", checkpoint).await?;
    done("the second sink", second).await?;
    let mut random = SmallRng::seed_from_u64(13);
    for crash in [true, true, false] {
        for name in ["one", "two"] {
            told(&mut session, &out.path().join(name)).await?;
        }
        change(&mut session, &mut random).await?;
        if crash {
            machine.crash_at(|| {}, &mut random).await?;
            session = machine.session();
        }
    }
    verified(&mut session).await?;
    // The second sink waits until the view is back.
    run_all(&mut session, &[&sink("three"), &sink("four")]).await?;
    for name in ["three", "four"] {
        told(&mut session, &out.path().join(name)).await?;
    }
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn statements() -> Result<()> {
    let (_gate, engine, mut session) = started(builder()).await?;
    run_all(&mut session, OBJECTS).await?;
    run(&mut session, "CREATE TABLE kept (n BIGINT, pairs BIGINT)").await?;
    let end = Arc::new(AtomicBool::new(false));
    let readers = (0..4).map(|_| {
        let (mut session, end) = (engine.session(), end.clone());
        tokio::spawn(async move {
            while !end.load(Ordering::SeqCst) {
                compare(&mut session).await?;
            }
            Ok::<(), String>(())
        })
    });
    let readers: Vec<_> = readers.collect();
    let keep = "INSERT INTO kept SELECT (SELECT coalesce(sum(n), 0) FROM cities), \
                (SELECT count(*) FROM o JOIN c ON o.customer = c.id)";
    let mut random = SmallRng::seed_from_u64(5);
    for round in 0..8 {
        change(&mut session, &mut random).await?;
        within_a_minute("INSERT", run(&mut session, keep)).await??;
        let pausing = if round % 2 == 0 { "PAUSE names" } else { "RESUME names" };
        if round == 6 || round == 7 {
            within_a_minute("PAUSE", run(&mut session, pausing)).await??;
        }
        let view = format!("CREATE MATERIALIZED VIEW w{round} AS SELECT sum(n) AS n FROM amounts");
        within_a_minute("CREATE", run(&mut session, &view)).await??;
        within_a_minute("VERIFY", lines(&mut session, "VERIFY cities")).await??;
    }
    end.store(true, Ordering::SeqCst);
    for reader in readers {
        // While a view is paused, its rows are older.
        let _ = within_a_minute("a reader", reader).await?;
    }
    expect(&mut session, "SELECT count(*) FROM kept WHERE n <> pairs", &["0"]).await?;
    verified(&mut session).await?;
    engine.stop().await.map_err(|error| error.to_string())
}
