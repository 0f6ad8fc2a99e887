//! Reads of large results that operators keep, while the views change.

use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use millstream_engine::{Engine, Response, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, seeds, within_a_minute};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scenario;
use super::machine::Machine;

pub const ALL: &[Scenario] = &[
    ("reads_of_large_views_are_as_of_one_epoch", || drive::block_on(one_epoch())),
    ("reads_of_large_views_through_crashes", || drive::block_on(crashes())),
    ("statements_over_large_views_are_as_of_one_epoch", || drive::block_on(statements())),
    ("a_large_view_can_be_dropped_while_it_is_read", || drive::block_on(dropped())),
];

/// Enough groups for a read on a thread.
const KEYS: usize = 120_000;

async fn make(session: &mut Session) -> Result<()> {
    let fill = format!("INSERT INTO t SELECT i, 0 FROM generate_series(1, {KEYS}) g(i)");
    let statements = [
        "CREATE TABLE t (k BIGINT, v BIGINT)",
        &fill,
        "CREATE MATERIALIZED VIEW v AS SELECT k, sum(v) AS s, max(v) AS m, count(*) AS n FROM t GROUP BY k",
        "CREATE MATERIALIZED VIEW above AS SELECT sum(s) AS s, sum(n) AS n, count(*) AS keys FROM v",
    ];
    run_all(session, &statements).await
}

/// Inserts rows that add up to zero, or deletes some.
async fn change(session: &mut Session, random: &mut SmallRng) -> Result<()> {
    let (k, x) = (random.random_range(0..KEYS), random.random_range(1..1000));
    let sql = match random.random_range(0..4) {
        0 => format!("DELETE FROM t WHERE k = {k} AND v = 0"),
        _ => format!("INSERT INTO t VALUES ({k}, {x}), ({}, -{x})", k + 1),
    };
    run(session, &sql).await.map(drop)
}

/// Compares a large view with a view above it: its sum, and the differences in rows and in keys. All are 0.
const COMPARED: &str = "SELECT l.s, l.n - a.n, l.keys - a.keys FROM \
                        (SELECT sum(s) AS s, sum(n) AS n, count(*) AS keys FROM v) AS l CROSS JOIN above AS a";

/// Compares a large view and a view above it, which one statement reads.
async fn compare(session: &mut Session) -> Result<()> {
    let found = lines(session, COMPARED).await?;
    ensure(found == ["0|0|0"], || format!("sum, difference in rows and in keys: {found:?}"))
}

async fn one_epoch() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    make(&mut engine.session()).await?;
    let readers = (0..2).map(|_| {
        let mut session = engine.session();
        tokio::spawn(async move {
            for _ in 0..6 {
                compare(&mut session).await?;
            }
            Ok::<(), String>(())
        })
    });
    let readers: Vec<_> = readers.collect();
    let (mut session, mut random, mut changes) = (engine.session(), SmallRng::seed_from_u64(1), 0);
    while !readers.iter().all(tokio::task::JoinHandle::is_finished) {
        change(&mut session, &mut random).await?;
        changes += 1;
    }
    for reader in readers {
        reader.await.map_err(|error| error.to_string())??;
    }
    ensure(changes > 3, || format!("there were {changes} changes meanwhile"))?;
    // A read that is given up leaves nothing behind.
    let waited = tokio::time::timeout(Duration::from_millis(2), run(&mut session, "SELECT * FROM v")).await;
    drop(waited);
    compare(&mut session).await?;
    expect(&mut session, "VERIFY v", &[]).await?;
    expect(&mut session, "VERIFY above", &[]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Runs statements that read large views in other ways than SELECT does, while the views change.
async fn statements() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    make(&mut engine.session()).await?;
    run(&mut engine.session(), "CREATE TABLE copy (s BIGINT, n BIGINT, keys BIGINT)").await?;
    let mut reader = engine.session();
    let read = tokio::spawn(async move {
        for round in 0..3 {
            of_all_kinds(&mut reader, round).await?;
        }
        Ok::<(), String>(())
    });
    let (mut session, mut random) = (engine.session(), SmallRng::seed_from_u64(2));
    while !read.is_finished() {
        change(&mut session, &mut random).await?;
    }
    read.await.map_err(|error| error.to_string())??;
    for view in ["v", "above", "w0", "w1", "w2"] {
        expect(&mut session, &format!("VERIFY {view}"), &[]).await?;
    }
    let keys = lines(&mut session, "SELECT count(*) FROM v").await?;
    let shown =
        lines(&mut session, "SELECT rows FROM millstream.materialized_views WHERE name = 'v'").await?;
    ensure(keys == shown, || format!("the view has {keys:?} rows, shown are {shown:?}"))?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn of_all_kinds(session: &mut Session, round: usize) -> Result<()> {
    expect(session, "VERIFY v", &[]).await?;
    expect(session, "VERIFY above", &[]).await?;
    // Two views in one statement that changes a table.
    run(session, &format!("INSERT INTO copy {COMPARED}")).await?;
    expect(session, "SELECT DISTINCT s, n, keys FROM copy", &["0|0|0"]).await?;
    // A new query begins with the content of a large view, and goes on with its changes.
    let view =
        format!("CREATE MATERIALIZED VIEW w{round} AS SELECT k % 7 AS g, sum(s) AS s FROM v GROUP BY k % 7");
    run(session, &view).await?;
    // A transaction sees one state, whatever happens meanwhile.
    run(session, "BEGIN").await?;
    let sum = "SELECT sum(s), sum(n), count(*), sum(k * s) FROM v";
    let first = lines(session, sum).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let again = lines(session, sum).await?;
    run(session, "COMMIT").await?;
    ensure(first == again, || format!("a transaction reads {first:?}, then {again:?}"))?;
    lines(session, "EXPLAIN ANALYZE SELECT s, count(*) FROM v GROUP BY s").await?;
    let sum = snapshot_sum(session, "v").await?;
    ensure(sum == 0, || format!("the initial content of a subscription adds up to {sum}"))?;
    // The content of a durable subscription is that of its creation.
    run(session, "CREATE SUBSCRIPTION held FROM v").await?;
    let sum = snapshot_sum(session, "held").await?;
    ensure(sum == 0, || format!("the initial content of a durable subscription adds up to {sum}"))?;
    run(session, "DROP SUBSCRIPTION held").await.map(drop)
}

/// Returns the sum of column `s` in the initial content of a subscription.
async fn snapshot_sum(session: &mut Session, to: &str) -> Result<i64> {
    let sql = format!("SUBSCRIBE {to} WITH (PROGRESS = true)");
    let response = session.execute(&sql).await.map_err(|error| error.to_string())?;
    let Response::Rows(mut rows) = response else { return Err(format!("{sql} gives {response:?}")) };
    let mut sum = 0;
    while let Some(batch) = rows.try_next().await.map_err(|error| error.to_string())? {
        let told = batch.column_by_name("_op").map(|op| op.as_string_view().value(0) == "progress");
        if told.ok_or("the rows have no operation")? {
            return Ok(sum);
        }
        let values = batch.column_by_name("s").ok_or("the rows have no column s")?;
        sum += values.as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
    }
    Err("the subscription ends without progress".into())
}

async fn crashes() -> Result<()> {
    for seed in seeds(&[0], 0..2) {
        crashes_of(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn crashes_of(seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut machine = Machine::start(Engine::builder)?;
    machine.set_interval(&mut random).await?;
    make(&mut machine.session()).await?;
    for _ in 0..4 {
        let mut session = machine.session();
        let mut reader = machine.session();
        let read = tokio::spawn(async move { compare(&mut reader).await });
        for _ in 0..random.random_range(1..5) {
            change(&mut session, &mut random).await?;
        }
        if random.random_bool(0.5) {
            read.await.map_err(|error| error.to_string())??;
        }
        machine.crash(&mut random).await?;
        compare(&mut machine.session()).await?;
    }
    let mut session = machine.session();
    expect(&mut session, "VERIFY v", &[]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn dropped() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    for _ in 0..3 {
        make(&mut session).await?;
        let mut reader = engine.session();
        let read = tokio::spawn(async move { run(&mut reader, "SELECT * FROM v").await.map(drop) });
        run_all(&mut session, &["DROP MATERIALIZED VIEW above", "DROP MATERIALIZED VIEW v", "DROP TABLE t"])
            .await?;
        if let Err(error) = within_a_minute("the read", read).await?.map_err(|error| error.to_string())? {
            ensure(error.contains("\"v\""), || format!("the read fails with {error}"))?;
        }
    }
    expect(&mut session, "SELECT 1", &["1"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}
