//! Engines whose data directory is on an object store: two engines, and a store that fails.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use millstream_durable::StorePrefix;
use millstream_durable::object_store::{ObjectStore, ObjectStoreExt};
use millstream_durable::simulated_store::{Fault, SimulatedStore};
use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, until};
use millstream_testkit::slt;

use super::crashes::run_script;
use super::{Scenario, folder};

pub const ALL: &[Scenario] = &[
    ("the_engine_that_loses_an_object_store_ends", || drive::block_on(loser())),
    ("a_store_that_is_away_pauses_the_engine", || drive::block_on(away())),
    ("a_prefix_that_was_copied_is_a_directory", || drive::block_on(copied())),
    ("a_prefix_of_a_version_before_is_gone_on_with", || drive::block_on(before())),
    ("every_call_to_a_store_may_fail", || drive::block_on(failing())),
];

/// Returns the common prefix of the tests' engines.
pub fn prefix(store: &SimulatedStore) -> StorePrefix {
    let pause = Duration::from_micros(200);
    StorePrefix::new(Arc::new(store.clone()), "an/app", "memory:///an/app").tries_again_after(pause)
}

fn start(store: &SimulatedStore) -> Result<Engine> {
    Engine::builder().data_store(prefix(store)).start().map_err(|error| error.to_string())
}

const MADE: &[&str] = &[
    "SET journal_interval = '1 ms'",
    "SET checkpoint_interval = 'off'",
    "CREATE TABLE t (x INT)",
    "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n, sum(x) AS s FROM t",
];

async fn insert(session: &mut Session, x: i64) -> Result<()> {
    run(session, &format!("INSERT INTO t VALUES ({x})")).await.map(drop)
}

/// A second engine takes over the prefix of the first. The first one's next change isn't durable; it reports
/// the reason, and ends.
async fn loser() -> Result<()> {
    let store = SimulatedStore::default();
    let first = start(&store)?;
    let mut told = first.session();
    run_all(&mut told, MADE).await?;
    for x in 1..=10 {
        insert(&mut told, x).await?;
    }
    let second = start(&store.another())?;
    let mut session = second.session();
    expect(&mut session, "SELECT n, s FROM m", &["10|55"]).await?;
    let Err(error) = insert(&mut told, 1000).await else {
        return Err("both engines take rows".into());
    };
    let parts = ["this change was not made durable", "process ", "has taken over 'memory:///an/app'"];
    ensure(parts.iter().all(|part| error.contains(part)), || error.clone())?;
    until("the first engine to end", || first.has_stopped()).await?;
    let problems = first.progress().problems.join("; ");
    ensure(problems.contains("this engine stops, since process"), || problems.clone())?;
    ensure(insert(&mut told, 1001).await.is_err(), || "an engine that has ended takes rows".into())?;
    insert(&mut session, 11).await?;
    run(&mut session, "CHECKPOINT").await?;
    second.stop().await.map_err(|error| error.to_string())?;
    let third = start(&store.another())?;
    expect(&mut third.session(), "SELECT n, s FROM m", &["11|66"]).await
}

/// While a store is unreachable the engine acknowledges nothing and reports the problem; then everything
/// continues.
async fn away() -> Result<()> {
    let store = SimulatedStore::default();
    let engine = start(&store)?;
    let mut session = engine.session();
    run_all(&mut session, MADE).await?;
    insert(&mut session, 1).await?;
    store.set_away(true);
    let mut waiting = engine.session();
    let mut asked = tokio::spawn(async move { insert(&mut waiting, 2).await });
    until("it to be said", || {
        engine.progress().problems.iter().any(|problem| {
            problem.contains("writing journal 'memory:///an/app/journal/") && problem.contains("retrying")
        })
    })
    .await?;
    let early = tokio::time::timeout(Duration::from_millis(50), &mut asked).await;
    ensure(early.is_err(), || "what isn't written was acknowledged".into())?;
    // Reads don't wait.
    ensure(lines(&mut session, "SELECT count(*) FROM t").await?.len() == 1, || "a read fails".into())?;
    store.set_away(false);
    asked.await.map_err(|error| error.to_string())??;
    until("the trouble to be over", || engine.progress().problems.is_empty()).await?;
    expect(&mut session, "SELECT n, s FROM m", &["2|3"]).await
}

/// A copy of the prefix can be opened as a local directory, wherever its journal begins by then.
async fn copied() -> Result<()> {
    let store = SimulatedStore::default();
    for x in 0..4 {
        let engine = start(&store.another())?;
        if x == 0 {
            run_all(&mut engine.session(), MADE).await?;
        }
        insert(&mut engine.session(), x).await?;
        run(&mut engine.session(), "CHECKPOINT").await?;
        insert(&mut engine.session(), 10 * x).await?;
    }
    let folder = folder()?;
    let data = folder.path().join("data");
    copy_out(&store, &data).await?;
    let found = millstream_engine::inspect(&data).map_err(|error| error.to_string())?;
    ensure(found.is_whole() && found.checkpoints.len() == 2, || format!("{found:?}"))?;
    for more in [0, 1] {
        let engine = Engine::builder().data(&data).start().map_err(|error| error.to_string())?;
        let expected = [format!("{}|{}", 8 + more, 66 + more)];
        expect(&mut engine.session(), "SELECT n, s FROM m", &[&expected[0]]).await?;
        insert(&mut engine.session(), 1).await?;
        engine.stop().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Copies all objects below the prefix to files below a folder.
async fn copy_out(store: &SimulatedStore, data: &Path) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let mut objects = store.list(None);
    while let Some(object) = objects.next().await {
        let location = object.map_err(|error| failed(&error))?.location;
        let bytes = store.get(&location).await.map_err(|error| failed(&error))?.bytes().await;
        let path = data.join(location.as_ref().trim_start_matches("an/app/"));
        fs::create_dir_all(path.parent().ok_or("a file without a folder")?)
            .map_err(|error| failed(&error))?;
        fs::write(&path, bytes.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// Copies the files below a folder to objects below the prefix.
async fn copy_in(store: &SimulatedStore, data: &Path) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", data.display());
    let mut folders = vec![(data.to_path_buf(), "an/app".to_string())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| failed(&error))? {
            let path = entry.map_err(|error| failed(&error))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).ok_or("a name that is no text")?;
            let name = format!("{prefix}/{name}");
            if path.is_dir() {
                folders.push((path, name));
                continue;
            }
            let bytes = fs::read(&path).map_err(|error| failed(&error))?;
            store.put(&name.into(), bytes.into()).await.map_err(|error| failed(&error))?;
        }
    }
    Ok(())
}

/// Opens a prefix that an older version wrote and that is kept unchanged: three processes, each of which took
/// over from the previous one. `FIXTURE=name cargo test …` writes one.
async fn before() -> Result<()> {
    let fixtures = slt::project_root().join("crates/testkit/tests/fixtures");
    if let Ok(name) = std::env::var("FIXTURE") {
        write_prefix(&fixtures.join(name)).await?;
    }
    let store = SimulatedStore::default();
    copy_in(&store, &fixtures.join("format-1-store/state")).await?;
    for more in [0, 10] {
        let engine = start(&store.another())?;
        let mut session = engine.session();
        expect(
            &mut session,
            "SELECT count(*), sum(k) FROM t",
            &[&format!("{}|{}", 5 + more / 10, 20 + more)],
        )
        .await?;
        expect(&mut session, "SELECT g, n FROM m", &["1|7", &format!("2|{}", 13 + more)]).await?;
        run(&mut session, "DECLARE c SUBSCRIPTION CURSOR FOR kept").await?;
        let handed_out = lines(&mut session, "FETCH ALL FROM c WITH (timeout = '50 ms')").await?;
        ensure(handed_out.iter().filter(|line| line.contains("|insert|")).count() == 2, || {
            format!("{handed_out:?}")
        })?;
        run(&mut session, "INSERT INTO t VALUES (10, 2)").await?;
        run(&mut session, "CHECKPOINT").await?;
        drop(engine);
    }
    Ok(())
}

/// Writes such a prefix: the objects of its script, and the work of two more processes.
async fn write_prefix(fixture: &Path) -> Result<()> {
    let state = fixture.join("state");
    ensure(!state.exists(), || format!("{} is kept as it is: write another", fixture.display()))?;
    let made = fs::read_to_string(fixture.join("made.sql")).map_err(|error| error.to_string())?;
    let store = SimulatedStore::default();
    let first = start(&store)?;
    run_script(&mut first.session(), &made).await?;
    let store = store.crash();
    let second = start(&store)?;
    let more = ["INSERT INTO t VALUES (5, 1)", "CHECKPOINT", "INSERT INTO t VALUES (6, 2)"];
    run_all(&mut second.session(), &more).await?;
    let store = store.crash();
    let third = start(&store)?;
    run(&mut third.session(), "DELETE FROM t WHERE k = 1").await?;
    copy_out(&store.crash(), &state).await
}

/// Any call may fail, or be the last one of the process: acknowledged changes exist for the next engine.
async fn failing() -> Result<()> {
    for fault in [Fault::Fails, Fault::AnswerLost, Fault::Stops, Fault::StopsAfter] {
        for n in (1..40).step_by(2) {
            failing_at(n, fault).await.map_err(|error| format!("{fault:?} at call {n}: {error}"))?;
        }
    }
    Ok(())
}

async fn failing_at(n: u64, fault: Fault) -> Result<()> {
    let store = SimulatedStore::default();
    let engine = start(&store)?;
    run_all(&mut engine.session(), MADE).await?;
    store.at(n, fault);
    let (mut asked_for, mut acknowledged) = (0, 0);
    for x in 1..=8 {
        let mut session = engine.session();
        let (sql, rows) = match x % 3 {
            0 => ("CHECKPOINT".to_owned(), 0),
            _ => (format!("INSERT INTO t VALUES ({x})"), x),
        };
        asked_for += rows;
        let asked = tokio::spawn(async move { run(&mut session, &sql).await.is_ok() });
        // A process that is gone gets no answer.
        until("an answer", || asked.is_finished() || store.is_gone()).await?;
        if !asked.is_finished() {
            break;
        }
        if asked.await.map_err(|error| error.to_string())? {
            acknowledged += rows;
        }
    }
    let next = store.crash();
    let found = start(&next)?;
    let sum = lines(&mut found.session(), "SELECT coalesce(s, 0) FROM m").await?.concat();
    let sum: i64 = sum.parse().map_err(|_| format!("{sum:?} is no sum"))?;
    // A change that was not acknowledged may exist or not.
    ensure(sum >= acknowledged && sum <= asked_for, || {
        format!("{sum} is there, {acknowledged} was acknowledged, {asked_for} was asked for")
    })?;
    // The engine ends by itself, or because it is stopped.
    store.come_back();
    engine.stop().await.map_err(|error| error.to_string())
}
