//! Statements that exceed their time limit, and the scope of the setting.

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt, pin_mut};
use millstream_engine::Engine;
use millstream_testkit::drive::{self, Result, ensure};

use super::Scenario;
use super::server::{connect, said, serve};

pub const ALL: &[Scenario] = &[
    ("a_statement_that_takes_too_long_is_ended", || serve(queries)),
    ("a_subscription_ends_with_its_time", || serve(subscription)),
    ("a_copy_that_nobody_goes_on_with_is_ended", || serve(copy)),
    ("a_portal_has_its_time_anew_for_each_portion", || serve(portal)),
    ("a_program_s_statements_have_a_time_too", || futures::executor::block_on(program())),
];

const ENDLESS: &str =
    "SELECT count(*) FROM generate_series(1, 100000) AS a(x), generate_series(1, 1000000) AS b(y)";
const TIMED_OUT: &str = "57014 canceling statement due to statement timeout";

async fn queries(port: u16) -> Result<()> {
    let client = connect(port).await?;
    let run = async |sql: &'static str| client.batch_execute(sql).await.map_err(|error| said(&error));
    // Long enough for fast statements, however busy the machine is.
    run("SET statement_timeout = '1s'").await?;
    let begun = Instant::now();
    let error = run(ENDLESS).await.err().ok_or("it came to its end")?;
    ensure(error == TIMED_OUT, || error)?;
    let error = client.query(ENDLESS, &[]).await.err().map(|error| said(&error));
    ensure(error.as_deref() == Some(TIMED_OUT), || format!("{error:?}"))?;
    ensure(begun.elapsed() < Duration::from_secs(60), || format!("{:?}", begun.elapsed()))?;
    // A timeout makes a transaction fail.
    run("BEGIN").await?;
    run(ENDLESS).await.err().ok_or("it came to its end")?;
    let error = run("SELECT 1").await.err().ok_or("the transaction goes on")?;
    ensure(error.starts_with("25P02"), || error)?;
    run("ROLLBACK").await?;
    // For one transaction only.
    run("SET statement_timeout = 0").await?;
    run("BEGIN; SET LOCAL statement_timeout = 1000").await?;
    let error = run(ENDLESS).await.err().ok_or("it came to its end")?;
    ensure(error == TIMED_OUT, || error)?;
    run("ROLLBACK").await?;
    let row = client.query_one("SHOW statement_timeout", &[]).await.map_err(|error| said(&error))?;
    ensure(row.get::<_, &str>(0) == "0", || format!("{row:?}"))?;
    // Fast statements complete, whatever came before.
    run("SET statement_timeout = '1min'; CREATE TABLE t (id INT); INSERT INTO t VALUES (1); SELECT * FROM t")
        .await
}

async fn subscription(port: u16) -> Result<()> {
    let client = connect(port).await?;
    client
        .batch_execute("CREATE TABLE t (id INT); SET statement_timeout = 300")
        .await
        .map_err(|error| said(&error))?;
    let none: [&(dyn tokio_postgres::types::ToSql + Sync); 0] = [];
    let rows = client.query_raw("SUBSCRIBE t", none).await.map_err(|error| said(&error))?;
    pin_mut!(rows);
    match rows.next().await {
        Some(Err(error)) => ensure(said(&error) == TIMED_OUT, || said(&error)),
        other => Err(format!("{other:?}")),
    }
}

async fn copy(port: u16) -> Result<()> {
    let client = connect(port).await?;
    client
        .batch_execute("CREATE TABLE t (id INT); SET statement_timeout = 300")
        .await
        .map_err(|error| said(&error))?;
    let sink = client.copy_in("COPY t FROM STDIN").await.map_err(|error| said(&error))?;
    pin_mut!(sink);
    sink.send(bytes::Bytes::from("1\n")).await.map_err(|error| said(&error))?;
    tokio::time::sleep(Duration::from_millis(900)).await;
    // Data sent after the end is ignored.
    let _ = sink.send(bytes::Bytes::from("2\n")).await;
    let error = sink.finish().await.err().map(|error| said(&error)).ok_or("it is taken")?;
    ensure(error == TIMED_OUT, || error)?;
    let row = client.query_one("SELECT count(*) FROM t", &[]).await.map_err(|error| said(&error))?;
    ensure(row.get::<_, i64>(0) == 0, || format!("{row:?}"))
}

async fn portal(port: u16) -> Result<()> {
    let mut client = connect(port).await?;
    client.batch_execute("SET statement_timeout = 4000").await.map_err(|error| said(&error))?;
    let transaction = client.transaction().await.map_err(|error| said(&error))?;
    let sql = "SELECT i FROM generate_series(1, 100000) AS g(i)";
    let portal = transaction.bind(sql, &[]).await.map_err(|error| said(&error))?;
    for _ in 0..3 {
        let rows = transaction.query_portal(&portal, 100).await.map_err(|error| said(&error))?;
        ensure(rows.len() == 100, || format!("{} rows", rows.len()))?;
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    transaction.commit().await.map_err(|error| said(&error))
}

/// A program that drives a session needs no timers of its own.
async fn program() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    drive::run(&mut session, "SET statement_timeout = '100ms'").await?;
    let error = drive::rows(&mut session, ENDLESS).await.err().ok_or("it came to its end")?;
    ensure(error.contains("canceling statement due to statement timeout"), || error)?;
    // The engine continues, and serves sessions without a limit.
    drive::expect(&mut engine.session(), "SELECT 1", &["1"]).await
}
