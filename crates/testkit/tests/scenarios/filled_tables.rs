//! CREATE TABLE … AS: the table has all rows of its query, or isn't there, through failures, cancellations and crashes.

use std::time::Duration;

use millstream_engine::Engine;
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, seeds, until};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scenario;
use super::crashes::run_script;
use super::machine::{Machine, open};

pub const ALL: &[Scenario] = &[
    ("a_table_with_the_rows_of_a_query_is_whole_after_a_crash", || drive::block_on(crashed())),
    ("a_failed_disk_leaves_no_part_of_a_table", || drive::block_on(failed_disk())),
    ("a_cancelled_create_table_as_leaves_nothing", || drive::block_on(cancelled())),
];

const SCRIPT: &str = "CREATE TABLE u (x INT);
    INSERT INTO u SELECT * FROM generate_series(1, 1000);
    CREATE TABLE t AS SELECT x, x * 2 AS y FROM u;
    CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n, sum(y) AS s FROM t;
    INSERT INTO t VALUES (0, 5);";

const TABLES: &str = "SELECT name FROM millstream.tables ORDER BY name";

async fn crashed() -> Result<()> {
    for seed in seeds(&[0, 1, 2, 3], 0..40) {
        crashed_seed(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

/// Crashes while the script runs, then runs it again.
async fn crashed_seed(seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut machine = Machine::start(Engine::builder)?;
    for _ in 0..4 {
        let mut session = machine.session();
        let running = tokio::spawn(async move { run_script(&mut session, SCRIPT).await.is_ok() });
        tokio::time::sleep(Duration::from_micros(random.random_range(0..30_000))).await;
        machine.crash(&mut random).await?;
        running.await.map_err(|error| error.to_string())?;
        let tables = lines(&mut machine.session(), TABLES).await?;
        ensure(tables.iter().all(|name| name == "t" || name == "u"), || format!("{tables:?}"))?;
        if tables.iter().any(|name| name == "t") {
            expect(&mut machine.session(), "SELECT count(*) FROM t WHERE x > 0", &["1000"]).await?;
        }
    }
    run_script(&mut machine.session(), SCRIPT).await?;
    expect(&mut machine.session(), "SELECT * FROM m", &["1001|1001005"]).await
}

/// Fails at each of the first writes.
async fn failed_disk() -> Result<()> {
    for n in 1..9 {
        let machine = Machine::start(Engine::builder)?;
        let mut session = machine.session();
        run_all(&mut session, &["CREATE TABLE u (x INT)", "INSERT INTO u VALUES (1), (2), (3)"]).await?;
        machine.disk.fail_at(n);
        let created = run(&mut session, "CREATE TABLE t AS SELECT x FROM u").await.is_ok();
        drop(session);
        machine.engine.stop().await.map_err(|error| error.to_string())?;
        let engine = open(&machine.disk.crash(|_| 0), Engine::builder())?;
        let mut session = engine.session();
        let tables = lines(&mut session, TABLES).await?;
        match created {
            true => expect(&mut session, "SELECT count(*) FROM t", &["3"]).await?,
            false => ensure(!tables.iter().any(|name| name != "u" && name != "t"), || format!("{tables:?}"))?,
        }
        if tables.iter().any(|name| name == "t") {
            expect(&mut session, "SELECT count(*) FROM t", &["3"]).await?;
        }
    }
    Ok(())
}

/// A cancelled statement fails the transaction that it is in.
async fn cancelled() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let rows = "INSERT INTO u SELECT * FROM generate_series(1, 3000)";
    run_all(&mut session, &["CREATE TABLE u (x INT)", rows]).await?;
    run_all(&mut session, &["CREATE TABLE v (x INT)", "BEGIN"]).await?;
    let heavy = "CREATE TABLE t AS SELECT sum(a.x % (b.x + c.x)) AS n FROM u AS a, u AS b, u AS c";
    let created = tokio::time::timeout(Duration::from_millis(300), run(&mut session, heavy)).await;
    ensure(created.is_err(), || format!("it has ended: {created:?}"))?;
    let Err(error) = run(&mut session, "INSERT INTO v VALUES (1)").await else {
        return Err("the transaction has not failed".into());
    };
    ensure(error.contains("the transaction has failed"), || error)?;
    run(&mut session, "ROLLBACK").await?;
    let mut other = engine.session();
    for _ in 0..200 {
        if lines(&mut other, TABLES).await? == ["u", "v"] {
            return expect(
                &mut session,
                "SELECT (SELECT count(*) FROM u), (SELECT count(*) FROM v)",
                &["3000|0"],
            )
            .await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until("the table to be dropped", || false).await
}
