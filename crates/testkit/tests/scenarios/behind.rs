//! Lagging queries delay nobody, and their readers get the batch answer.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::DataType;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use futures::StreamExt;
use millstream_engine::{Engine, EngineBuilder, Following, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, within_a_minute};

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("a_slow_view_lets_the_others_go_on", || drive::block_on(others_go_on())),
    ("reads_of_what_is_behind_are_of_one_epoch", || drive::block_on(one_epoch())),
    ("transactions_read_what_is_behind_as_of_their_beginning", || drive::block_on(transactions())),
    ("views_over_what_is_behind_are_behind_with_it", || drive::block_on(chains())),
    ("a_flush_brings_all_to_the_present", || drive::block_on(flushed())),
    ("objects_change_while_a_query_is_stepped_elsewhere", || drive::block_on(changed())),
    ("what_fails_elsewhere_is_suspended", || drive::block_on(suspended())),
    ("an_engine_stops_while_a_query_is_stepped_elsewhere", || drive::block_on(stopped())),
    ("many_epochs_wait_as_one", || drive::block_on(many())),
    ("a_first_step_that_takes_long_keeps_nobody_waiting", || drive::block_on(first_step())),
    ("a_query_that_begins_keeps_nobody_waiting", || drive::block_on(beginning())),
    ("only_statements_that_feed_a_full_query_wait_for_it", || drive::block_on(full())),
];

/// Controls steps that evaluate its function: they pass, slowly or not at all.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<(Mutex<Door>, Condvar)>, Arc<AtomicUsize>);

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Door {
    #[default]
    Open,
    Slow,
    Closed,
    Broken,
}

impl Gate {
    pub(super) fn set(&self, door: Door) {
        let (known, changed) = &*self.0;
        *known.lock().unwrap_or_else(PoisonError::into_inner) = door;
        changed.notify_all();
    }

    /// Returns the number of steps and reads that wait at the closed gate.
    pub(super) fn waiting(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }

    fn pass(&self) {
        let (door, changed) = &*self.0;
        let mut door = door.lock().unwrap_or_else(PoisonError::into_inner);
        if *door == Door::Slow {
            // Longer than a step may take while others wait for it.
            std::thread::sleep(Duration::from_millis(150));
        }
        self.1.fetch_add(1, Ordering::SeqCst);
        while *door == Door::Closed {
            door = changed.wait(door).unwrap_or_else(PoisonError::into_inner);
        }
        self.1.fetch_sub(1, Ordering::SeqCst);
        let broken = *door == Door::Broken;
        drop(door);
        assert!(!broken, "the gate is broken");
    }

    pub(super) fn function(&self, name: &str) -> ScalarUDF {
        let gate = self.clone();
        let pass = move |arguments: &[ColumnarValue]| {
            gate.pass();
            Ok(arguments[0].clone())
        };
        let (of, immutable) = (vec![DataType::Int64], Volatility::Immutable);
        create_udf(name, of, DataType::Int64, immutable, Arc::new(pass))
    }
}

pub(super) async fn started(builder: EngineBuilder) -> Result<(Gate, Engine, Session)> {
    let gate = Gate::default();
    let engine = builder.scalar_function(gate.function("gate")).start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    // Steps that wait at the gate must leave some threads to the others.
    run(&mut session, "SET parallelism = 8").await?;
    Ok((gate, engine, session))
}

const TABLE: &str = "CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT, v BIGINT)";
const SLOW: &str =
    "CREATE MATERIALIZED VIEW slow AS SELECT k, count(*) AS n, sum(gate(v)) AS s FROM t GROUP BY k";
const FAST: &str = "CREATE MATERIALIZED VIEW fast AS SELECT count(*) AS n, sum(v) AS s FROM t";
const BATCH: &str = "SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k";
const STATUS: &str = "SELECT name, status FROM millstream.materialized_views";

async fn insert(session: &mut Session, ids: std::ops::Range<i64>) -> Result<()> {
    for id in ids {
        run(session, &format!("INSERT INTO t VALUES ({id}, {}, {})", id % 3, id * 10)).await?;
    }
    Ok(())
}

/// A sink whose query evaluates the gate's function.
fn sink(path: &Path) -> String {
    let with = format!("connector = 'file', path = '{}', format = 'json', changelog = true", path.display());
    format!("CREATE SINK out AS SELECT id, gate(v) AS v FROM t WITH ({with})")
}

/// Fails unless `slow` equals its query.
async fn equal(session: &mut Session) -> Result<()> {
    let batch = lines(session, BATCH).await?;
    let batch: Vec<&str> = batch.iter().map(String::as_str).collect();
    expect(session, "SELECT * FROM slow", &batch).await
}

async fn others_go_on() -> Result<()> {
    let (gate, engine, mut session) = started(Engine::builder()).await?;
    run_all(&mut session, &[TABLE, SLOW, FAST]).await?;
    insert(&mut session, 0..2).await?;
    expect(&mut session, STATUS, &["fast|running", "slow|running"]).await?;
    gate.set(Door::Slow);
    insert(&mut session, 2..5).await?;
    gate.set(Door::Closed);
    let epochs = "SELECT max(epoch) FROM millstream.epochs";
    let before = lines(&mut session, epochs).await?;
    insert(&mut session, 5..25).await?;
    expect(&mut session, "SELECT n FROM fast", &["25"]).await?;
    let after = lines(&mut session, epochs).await?;
    let number = |text: &[String]| text.concat().parse::<i64>().map_err(|error| error.to_string());
    ensure(number(&after)? == number(&before)? + 20, || format!("{before:?} epochs, then {after:?}"))?;
    expect(&mut session, STATUS, &["fast|running", "slow|behind"]).await?;
    let reason = "SELECT reason FROM millstream.materialized_views WHERE name = 'slow'";
    expect(&mut session, reason, &["20 epochs behind"]).await?;
    let operators = "SELECT count(*) > 1, sum(epochs) > 1 FROM millstream.operators WHERE query = 'slow'";
    expect(&mut session, operators, &["true|true"]).await?;
    run(&mut session, "EXPLAIN slow").await?;

    // A read waits for everything written before it, and for no more.
    let mut other = engine.session();
    let read = tokio::spawn(async move {
        let found = lines(&mut other, "SELECT sum(n) FROM slow").await;
        (other, found)
    });
    tokio::task::yield_now().await;
    ensure(!read.is_finished(), || "a read was answered before its view was stepped".into())?;
    gate.set(Door::Open);
    let (_, found) = within_a_minute("the read", read).await?.map_err(|error| error.to_string())?;
    ensure(found? == ["25"], || "the read is not of all that was written".into())?;
    equal(&mut session).await?;
    run(&mut session, "VERIFY slow").await?;

    // Once its steps are fast, the query runs with the others again.
    let mut id = 100;
    while lines(&mut session, STATUS).await? != ["fast|running", "slow|running"] || id < 120 {
        ensure(id < 2000, || "the view isn't stepped with the others again".into())?;
        insert(&mut session, id..id + 1).await?;
        equal(&mut session).await?;
        id += 1;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

/// Much waits for a view. Statements over its table wait, all others go on.
async fn full() -> Result<()> {
    let (gate, engine, mut session) = started(Engine::builder().statements_wait_above(2000)).await?;
    let counted = "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM other";
    run_all(&mut session, &[TABLE, SLOW, "CREATE TABLE other (v BIGINT)", counted]).await?;
    insert(&mut session, 0..2).await?;
    gate.set(Door::Slow);
    insert(&mut session, 2..5).await?;
    gate.set(Door::Closed);
    let (mut feeder, mut both, fed) = (engine.session(), engine.session(), Arc::new(AtomicUsize::new(0)));
    let count = fed.clone();
    let feeding = tokio::spawn(async move {
        for id in 5..200 {
            insert(&mut feeder, id..id + 1).await?;
            count.fetch_add(1, Ordering::SeqCst);
        }
        Ok::<(), String>(())
    });
    // Until one of them waits.
    let mut before = usize::MAX;
    while before != fed.load(Ordering::SeqCst) {
        before = fed.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    ensure(before < 195, || "no statement waits for the view".into())?;
    let committing = tokio::spawn(async move {
        let changes =
            ["BEGIN", "INSERT INTO t VALUES (1000, 1, 1)", "INSERT INTO other VALUES (1)", "COMMIT"];
        run_all(&mut both, &changes).await
    });
    let given_up = run(&mut session, "INSERT INTO t VALUES (2000, 1, 1)");
    ensure(tokio::time::timeout(Duration::from_millis(100), given_up).await.is_err(), || {
        "a statement doesn't wait".into()
    })?;
    for _ in 0..20 {
        within_a_minute("another table", run(&mut session, "INSERT INTO other VALUES (1)")).await??;
    }
    expect(&mut session, "SELECT n FROM counted", &["20"]).await?;
    ensure(!feeding.is_finished() && !committing.is_finished(), || "they don't wait any more".into())?;
    gate.set(Door::Open);
    within_a_minute("the statements", feeding).await?.map_err(|error| error.to_string())??;
    within_a_minute("the transaction", committing).await?.map_err(|error| error.to_string())??;
    expect(&mut session, "SELECT n FROM counted", &["21"]).await?;
    expect(&mut session, "SELECT count(*), max(id) FROM t", &["201|1000"]).await?;
    equal(&mut session).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn first_step() -> Result<()> {
    let (gate, engine, mut session) = started(Engine::builder()).await?;
    let pairs = "CREATE MATERIALIZED VIEW slow AS SELECT x.id, y.id AS other FROM t x JOIN t y \
                 ON x.k < y.k AND x.k > y.k - 3 AND gate(x.v) < y.v";
    let of_pairs = "CREATE MATERIALIZED VIEW of_slow AS SELECT count(*) AS n FROM slow";
    run_all(&mut session, &[TABLE, pairs, of_pairs, FAST]).await?;
    gate.set(Door::Closed);
    let put = |from, to| format!("INSERT INTO t SELECT g, g, g FROM generate_series({from}, {to}) x(g)");
    run(&mut session, &put(1, 2500)).await?;
    run(&mut session, &put(2501, 2510)).await?;
    expect(&mut session, "SELECT n FROM fast", &["2510"]).await?;
    expect(&mut session, STATUS, &["fast|running", "of_slow|behind", "slow|behind"]).await?;
    gate.set(Door::Open);
    expect(&mut session, "SELECT n FROM of_slow", &["5017"]).await?;
    for view in ["slow", "of_slow", "fast"] {
        expect(&mut session, &format!("VERIFY {view}"), &[]).await?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

/// A stream, a sink into a table and a query with closing windows backfill on threads. A backfill is dropped
/// when the client has disconnected.
async fn beginning() -> Result<()> {
    let (gate, engine, mut session) = started(Engine::builder()).await?;
    let timed = "CREATE TABLE timed (v BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 second')";
    let fill = "INSERT INTO t SELECT g, g % 3, g FROM generate_series(1, 9000) x(g)";
    let fill_timed =
        "INSERT INTO timed SELECT g, TIMESTAMP '2026-01-01 00:00:00' FROM generate_series(1, 9000) x(g)";
    run_all(&mut session, &[TABLE, timed, "CREATE TABLE kept (v BIGINT)", FAST, fill, fill_timed]).await?;
    let objects = [
        ("STREAM", "plain", "AS SELECT id, gate(v) AS v FROM t"),
        ("STREAM", "grouped", "AS SELECT k, sum(gate(v)) AS s FROM t GROUP BY k"),
        ("SINK", "into_kept", "INTO kept AS SELECT gate(v) FROM t"),
        (
            "MATERIALIZED VIEW",
            "closing",
            "AS SELECT date_trunc('minute', ts) AS w, sum(gate(v)) AS s FROM timed GROUP BY date_trunc('minute', ts) \
             EMIT ON WINDOW CLOSE",
        ),
    ];
    let known = "SELECT name FROM millstream.streams UNION ALL SELECT name FROM millstream.sinks UNION ALL \
                 SELECT name FROM millstream.materialized_views ORDER BY name";
    for (kind, name, query) in objects {
        for given_up in [true, false] {
            gate.set(Door::Closed);
            let mut other = engine.session();
            let sql = format!("CREATE {kind} {name} {query}");
            let creating = tokio::spawn(async move { run(&mut other, &sql).await });
            drive::expect_soon(&mut session, known, &sorted(&["fast", name])).await?;
            insert(&mut session, 10_000..10_003).await?;
            expect(&mut session, "SELECT n FROM fast", &["9003"]).await?;
            ensure(!creating.is_finished(), || format!("{name} is there before it has taken in its input"))?;
            if given_up {
                creating.abort();
                drive::expect_soon(&mut session, known, &["fast"]).await?;
                gate.set(Door::Open);
            } else {
                gate.set(Door::Open);
                let created = within_a_minute("CREATE", creating).await?;
                created.map_err(|error| error.to_string())??;
                run(&mut session, "FLUSH").await?;
            }
            run(&mut session, "DELETE FROM t WHERE id >= 10000").await?;
        }
        match name {
            "plain" => expect(&mut session, "SELECT count(*), sum(v) FROM plain", &["9000|40504500"]).await?,
            "into_kept" => {
                expect(&mut session, "SELECT count(*), sum(v) FROM kept", &["9000|40504500"]).await?
            }
            "grouped" => {
                let sums = ["0|13504500", "1|13498500", "2|13501500"];
                expect(&mut session, "SELECT k, s FROM grouped", &sums).await?;
            }
            _ => {
                run(&mut session, "INSERT INTO timed VALUES (1, TIMESTAMP '2026-01-01 00:02:00')").await?;
                expect(&mut session, "SELECT s FROM closing", &["40504500"]).await?;
            }
        }
        run(&mut session, &format!("DROP {kind} {name}")).await?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

fn sorted<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}

async fn one_epoch() -> Result<()> {
    let (_gate, engine, mut session) = started(Engine::builder().step_apart(3)).await?;
    run_all(&mut session, &[TABLE, SLOW, FAST]).await?;
    run(
        &mut session,
        "CREATE MATERIALIZED VIEW halves AS SELECT v / 2 AS h, count(*) AS n FROM t GROUP BY h",
    )
    .await?;
    let mut writer = engine.session();
    let writing = tokio::spawn(async move {
        for id in 0..300 {
            insert(&mut writer, id..id + 1).await?;
            if id % 7 == 0 {
                run(&mut writer, &format!("DELETE FROM t WHERE id = {}", id / 2)).await?;
            }
        }
        Ok::<(), String>(())
    });
    let of_all = "SELECT (SELECT count(*) FROM t), (SELECT coalesce(sum(n), 0) FROM slow), \
                  (SELECT n FROM fast), (SELECT coalesce(sum(n), 0) FROM halves)";
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut reader = engine.session();
        readers.push(tokio::spawn(async move {
            for _ in 0..40 {
                let found = lines(&mut reader, of_all).await?.concat();
                let counts: Vec<&str> = found.split('|').collect();
                let same = counts.windows(2).all(|pair| pair[0] == pair[1]);
                ensure(same, || format!("one read finds rows of several epochs: {found}"))?;
            }
            Ok::<(), String>(())
        }));
    }
    for task in readers.into_iter().chain([writing]) {
        within_a_minute("reads beside writes", task).await?.map_err(|error| error.to_string())??;
    }
    equal(&mut session).await?;
    // A session reads its own writes, also by key.
    for id in 1000..1010 {
        insert(&mut session, id..id + 1).await?;
        let n = lines(&mut session, &format!("SELECT count(*) FROM t WHERE k = {}", id % 3)).await?.concat();
        expect(&mut session, &format!("SELECT n FROM slow WHERE k = {}", id % 3), &[n.as_str()]).await?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

async fn transactions() -> Result<()> {
    let (gate, engine, mut session) = started(Engine::builder().step_apart(1)).await?;
    run_all(&mut session, &[TABLE, SLOW, FAST]).await?;
    insert(&mut session, 0..3).await?;
    gate.set(Door::Closed);
    insert(&mut session, 3..6).await?;
    let mut first = engine.session();
    run(&mut first, "BEGIN").await?;
    expect(&mut first, "SELECT count(*) FROM t", &["6"]).await?;
    insert(&mut session, 6..9).await?;
    let mut second = engine.session();
    run(&mut second, "BEGIN").await?;
    expect(&mut second, "SELECT count(*) FROM t", &["9"]).await?;
    insert(&mut session, 9..12).await?;
    gate.set(Door::Open);
    expect(&mut session, "SELECT sum(n) FROM slow", &["12"]).await?;
    expect(&mut second, "SELECT (SELECT sum(n) FROM slow), n FROM fast", &["9|9"]).await?;
    insert(&mut session, 12..15).await?;
    expect(&mut first, "SELECT (SELECT sum(n) FROM slow), n FROM fast", &["6|6"]).await?;
    run(&mut first, "INSERT INTO t VALUES (100, 1, 1)").await?;
    run_all(&mut first, &["COMMIT"]).await?;
    expect(&mut first, "SELECT sum(n) FROM slow", &["16"]).await?;
    run(&mut second, "ROLLBACK").await?;
    // A statement that writes what it reads there.
    run(&mut session, "CREATE TABLE copied (k BIGINT, n BIGINT)").await?;
    insert(&mut session, 15..18).await?;
    run(&mut session, "INSERT INTO copied SELECT k, n FROM slow").await?;
    expect(&mut session, "SELECT sum(n) FROM copied", &["19"]).await?;
    equal(&mut session).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn chains() -> Result<()> {
    let (gate, engine, mut session) = started(Engine::builder().step_apart(2)).await?;
    run_all(&mut session, &[TABLE, SLOW, FAST]).await?;
    let over = "CREATE MATERIALIZED VIEW over AS SELECT t.id, slow.n FROM t JOIN slow ON t.k = slow.k";
    run(&mut session, over).await?;
    let fail = |error: millstream_engine::Error| error.to_string();
    let told = Following { snapshot: true, progress: false };
    let mut followed = session.changes_with("over", told).await.map_err(fail)?;
    let mut query = session.changes_with("SELECT sum(n) AS n FROM slow", told).await.map_err(fail)?;
    insert(&mut session, 0..4).await?;
    gate.set(Door::Closed);
    insert(&mut session, 4..30).await?;
    expect(&mut session, "SELECT n FROM fast", &["30"]).await?;
    gate.set(Door::Open);
    insert(&mut session, 30..33).await?;
    expect(&mut session, "SELECT count(*), min(n), max(n) FROM over", &["33|11|11"]).await?;
    run_all(&mut session, &["VERIFY over", "FLUSH"]).await?;
    // The changes that each subscriber received add up to the content.
    let mut rows = 0;
    let mut last = 0;
    while rows != 33 {
        let change = within_a_minute("changes of over", followed.next()).await?;
        let change = change.ok_or("the changes end")?.map_err(fail)?;
        ensure(change.epoch.0 >= last, || format!("epoch {} comes after {last}", change.epoch.0))?;
        last = change.epoch.0;
        let weights = change.delta.chunks.iter().map(|chunk| chunk.weights_or_ones());
        rows += weights.map(|weights| weights.values().iter().sum::<i64>()).sum::<i64>();
    }
    let mut found = String::new();
    while found != "33" {
        let change = within_a_minute("changes of the query", query.next()).await?;
        for chunk in &change.ok_or("the changes end")?.map_err(fail)?.delta.chunks {
            let texts = drive::text(&chunk.rows)?;
            let weights = chunk.weights_or_ones();
            let new = texts.iter().zip(weights.values()).find(|(_, weight)| **weight > 0);
            found = new.map_or(found, |(text, _)| text.clone());
        }
    }
    engine.stop().await.map_err(|error| error.to_string())
}

async fn flushed() -> Result<()> {
    let (gate, engine, mut session) = started(Engine::builder().step_apart(1_000_000)).await?;
    let folder = super::folder()?;
    run_all(&mut session, &[TABLE, SLOW, FAST]).await?;
    let out = folder.path().join("out");
    run(&mut session, &sink(&out)).await?;
    insert(&mut session, 0..10).await?;
    expect(&mut session, STATUS, &["fast|behind", "slow|behind"]).await?;
    gate.set(Door::Closed);
    let mut other = engine.session();
    let flush = tokio::spawn(async move { run(&mut other, "FLUSH").await });
    insert(&mut session, 10..12).await?;
    ensure(!flush.is_finished(), || "a FLUSH was answered before all was taken in".into())?;
    gate.set(Door::Open);
    within_a_minute("the FLUSH", flush).await?.map_err(|error| error.to_string())??;
    run(&mut session, "FLUSH").await?;
    expect(&mut session, STATUS, &["fast|running", "slow|running"]).await?;
    expect(&mut session, "SELECT status FROM millstream.sinks", &["running"]).await?;
    let delivered = super::lines_in(&out)?;
    ensure(delivered.len() == 12, || format!("after a FLUSH the sink has {delivered:?}"))?;
    equal(&mut session).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn changed() -> Result<()> {
    let (gate, engine, mut session) = started(Engine::builder().step_apart(1)).await?;
    run_all(&mut session, &[TABLE, SLOW, FAST]).await?;
    insert(&mut session, 0..3).await?;
    gate.set(Door::Closed);
    insert(&mut session, 3..6).await?;
    let mut other = engine.session();
    let read = tokio::spawn(async move { lines(&mut other, "SELECT * FROM slow").await });
    tokio::task::yield_now().await;
    run(&mut session, "DROP MATERIALIZED VIEW slow").await?;
    let read = within_a_minute("the read of a view that was dropped", read).await?;
    let error = read.map_err(|error| error.to_string())?.err().unwrap_or_default();
    let said = error.contains("relation \"slow\"") && !error.contains("suspended");
    ensure(said, || format!("reading it says: {error}"))?;
    gate.set(Door::Open);
    run(&mut session, SLOW).await?;
    insert(&mut session, 6..9).await?;
    equal(&mut session).await?;

    gate.set(Door::Closed);
    insert(&mut session, 9..12).await?;
    let mut other = engine.session();
    let paused = tokio::spawn(async move { run(&mut other, "PAUSE slow").await });
    tokio::task::yield_now().await;
    gate.set(Door::Open);
    within_a_minute("PAUSE", paused).await?.map_err(|error| error.to_string())??;
    insert(&mut session, 12..15).await?;
    expect(&mut session, "SELECT sum(n) FROM slow", &["12"]).await?;
    run(&mut session, "RESUME slow").await?;
    expect(&mut session, "SELECT sum(n) FROM slow", &["15"]).await?;
    insert(&mut session, 15..18).await?;
    // A query FOR EACH BATCH over the content of a view lags with it, and has its content as of each batch.
    run(&mut session, "CREATE STREAM told AS SELECT k, now() AS at FROM slow FOR EACH BATCH").await?;
    insert(&mut session, 18..21).await?;
    expect(&mut session, "SELECT count(*), count(DISTINCT at) FROM told", &["9|3"]).await?;
    equal(&mut session).await?;
    run_all(&mut session, &["DROP STREAM told", "PAUSE ALL", "RESUME ALL"]).await?;
    insert(&mut session, 21..24).await?;
    equal(&mut session).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn suspended() -> Result<()> {
    let (gate, engine, mut session) = started(Engine::builder().step_apart(1)).await?;
    run_all(&mut session, &[TABLE, FAST]).await?;
    run(&mut session, "CREATE MATERIALIZED VIEW broken AS SELECT id, gate(v) AS v FROM t").await?;
    run(&mut session, "CREATE MATERIALIZED VIEW over AS SELECT count(*) AS n FROM broken").await?;
    insert(&mut session, 0..3).await?;
    expect(&mut session, "SELECT n FROM over", &["3"]).await?;
    gate.set(Door::Closed);
    insert(&mut session, 3..6).await?;
    gate.set(Door::Broken);
    for view in ["broken", "over"] {
        let sql = format!("SELECT * FROM {view}");
        let found = within_a_minute("a read of a view that is suspended", lines(&mut session, &sql)).await?;
        let error = found.err().unwrap_or_default();
        ensure(error.contains("is suspended"), || format!("reading {view} says: {error}"))?;
    }
    insert(&mut session, 6..9).await?;
    expect(&mut session, "SELECT n FROM fast", &["9"]).await?;
    expect(&mut session, STATUS, &["broken|suspended", "fast|running", "over|suspended"]).await?;
    run(&mut session, "FLUSH").await?;

    gate.set(Door::Open);
    run(&mut session, "CREATE MATERIALIZED VIEW ratio AS SELECT id, 100 / gate(v) AS r FROM t WHERE id > 0")
        .await?;
    gate.set(Door::Closed);
    run(&mut session, "INSERT INTO t VALUES (50, 0, 0)").await?;
    gate.set(Door::Open);
    let error = lines(&mut session, "SELECT * FROM ratio").await.err().unwrap_or_default();
    ensure(error.contains("\"ratio\" has errors"), || format!("reading ratio says: {error}"))?;
    run(&mut session, "DELETE FROM t WHERE id = 50").await?;
    expect(&mut session, "SELECT count(*) FROM ratio", &["8"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn stopped() -> Result<()> {
    let (gate, engine, mut session) = started(Engine::builder().step_apart(1)).await?;
    let folder = super::folder()?;
    let out = folder.path().join("out");
    run_all(&mut session, &[TABLE, SLOW, FAST]).await?;
    run(&mut session, &sink(&out)).await?;
    insert(&mut session, 0..3).await?;
    gate.set(Door::Closed);
    insert(&mut session, 3..6).await?;
    let stopping = tokio::spawn(async move { engine.stop().await });
    tokio::task::yield_now().await;
    gate.set(Door::Open);
    let stopped = within_a_minute("the stop", stopping).await?.map_err(|error| error.to_string())?;
    stopped.map_err(|error| error.to_string())?;
    let delivered = super::lines_in(&out)?;
    ensure(delivered.len() == 6, || format!("after the stop the sink has {delivered:?}"))?;

    // A lagging query ends by itself when nothing refers to it.
    let (gate, engine, mut session) = started(Engine::builder().step_apart(1)).await?;
    run_all(&mut session, &[TABLE, SLOW, FAST]).await?;
    gate.set(Door::Closed);
    insert(&mut session, 0..3).await?;
    drop((session, engine));
    gate.set(Door::Open);
    Ok(())
}

async fn many() -> Result<()> {
    let (gate, engine, mut session) = started(Engine::builder().step_apart(1)).await?;
    run_all(&mut session, &[TABLE, SLOW, FAST]).await?;
    insert(&mut session, 0..2).await?;
    gate.set(Door::Closed);
    insert(&mut session, 2..10).await?;
    let mut reader = engine.session();
    run(&mut reader, "BEGIN").await?;
    expect(&mut reader, "SELECT count(*) FROM t", &["10"]).await?;
    for id in 10..1300 {
        insert(&mut session, id..id + 1).await?;
        if id % 2 == 0 {
            run(&mut session, &format!("DELETE FROM t WHERE id = {id}")).await?;
        }
    }
    gate.set(Door::Open);
    expect(&mut reader, "SELECT sum(n) FROM slow", &["10"]).await?;
    equal(&mut session).await?;
    let steps = "SELECT max(epochs) < 60 FROM millstream.operators WHERE query = 'slow'";
    expect(&mut session, steps, &["true"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}
