//! Small frequent operations: point reads, changes for subscribers, many connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, pin_mut};
use millstream_benches::Result;
use tokio::time::MissedTickBehavior;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};

use crate::target::Target;

/// Number of keys of the view.
const KEYS: i64 = 100_000;

/// Changed rows a second.
const RATE: usize = 10_000;

async fn connect(target: &Target) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(&target.config(), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn percentiles(mut milliseconds: Vec<f64>) -> String {
    milliseconds.sort_by(f64::total_cmp);
    let at = |share: f64| milliseconds[((milliseconds.len() - 1) as f64 * share) as usize];
    format!("p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms of {}", at(0.5), at(0.99), at(1.0), milliseconds.len())
}

/// Creates a view with many keys in a fresh server.
async fn view(client: &Client) -> Result<()> {
    client
        .batch_execute(&format!(
            "CREATE TABLE t (k BIGINT, v BIGINT);
             INSERT INTO t SELECT i % {KEYS}, i FROM generate_series(1, {}) AS g(i);
             CREATE MATERIALIZED VIEW mv AS SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k;
             FLUSH",
            2 * KEYS
        ))
        .await?;
    Ok(())
}

/// Inserts a hundred rows each hundredth of a second, until `stop` is true.
async fn update(client: Client, stop: Arc<AtomicBool>) -> Result<usize> {
    let insert = client
        .prepare(
            "INSERT INTO t SELECT ($1::BIGINT + i * 7919) % 100000, i FROM generate_series(1, 100) AS g(i)",
        )
        .await?;
    let mut interval = every(Duration::from_millis(10));
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        interval.tick().await;
        client.execute(&insert, &[&(rounds as i64)]).await?;
        rounds += 1;
    }
    Ok(rounds * 100)
}

/// Measures point reads of a view's key while the view is updated.
pub async fn point(target: &Target, seconds: usize) -> Result<()> {
    let client = connect(target).await?;
    view(&client).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let updates = tokio::spawn({
        let (client, stop) = (connect(target).await?, stop.clone());
        async move { update(client, stop).await.map_err(|error| error.to_string()) }
    });
    let read = client.prepare("SELECT n, s FROM mv WHERE k = $1").await?;
    let mut interval = every(Duration::from_millis(1));
    let (began, mut milliseconds) = (Instant::now(), Vec::new());
    let mut key = 0_i64;
    while began.elapsed().as_secs() < seconds as u64 {
        interval.tick().await;
        key = (key * 31 + 17) % KEYS;
        let asked = Instant::now();
        let rows = client.query(&read, &[&key]).await?;
        milliseconds.push(asked.elapsed().as_secs_f64() * 1e3);
        if rows.len() != 1 {
            return Err(format!("key {key} has {} rows", rows.len()).into());
        }
    }
    let rate = milliseconds.len() / seconds;
    stop.store(true, Ordering::Relaxed);
    let updated = updates.await?? / seconds;
    println!(
        "point reads of a view of {KEYS} keys by its key, prepared once, {rate} a second, beside {updated} new rows a second:"
    );
    println!("  {}", percentiles(milliseconds));
    Ok(())
}

/// Measures the time from the INSERT of a change to its arrival at a subscriber.
pub async fn changes(target: &Target, seconds: usize) -> Result<()> {
    let writer = connect(target).await?;
    writer.batch_execute("CREATE TABLE t (sent BIGINT, v BIGINT); CREATE MATERIALIZED VIEW mv AS SELECT * FROM t WHERE v >= 0").await?;
    let reader = connect(target).await?;
    let began = Instant::now();
    let reading = tokio::spawn(async move {
        let none: [&(dyn ToSql + Sync); 0] = [];
        let rows = reader.query_raw("SELECT sent FROM mv EMIT CHANGES", none).await?;
        pin_mut!(rows);
        let mut milliseconds = Vec::new();
        while let Some(row) = rows.next().await {
            let sent: i64 = row?.get("sent");
            if sent < 0 {
                break;
            }
            milliseconds.push((began.elapsed().as_nanos() as i64 - sent) as f64 / 1e6);
        }
        Ok::<_, tokio_postgres::Error>(milliseconds)
    });
    // Wait until the subscriber listens.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let insert =
        writer.prepare("INSERT INTO t SELECT $1::BIGINT, i FROM generate_series(1, 20) AS g(i)").await?;
    let mut interval = every(Duration::from_millis(2));
    while began.elapsed().as_secs() < seconds as u64 {
        interval.tick().await;
        writer.execute(&insert, &[&(began.elapsed().as_nanos() as i64)]).await?;
    }
    writer.execute("INSERT INTO t VALUES (-1, 0)", &[]).await?;
    let milliseconds = reading.await??;
    println!(
        "a row from its INSERT to a subscriber of a view, {} rows a second (to be {RATE}):",
        milliseconds.len() / seconds
    );
    println!("  {}", percentiles(milliseconds));
    Ok(())
}

/// Measures idle connections, and subscribers of one view.
pub async fn many(target: &Target, seconds: usize) -> Result<()> {
    const IDLE: usize = 1000;
    const SUBSCRIBERS: usize = 100;
    let writer = connect(target).await?;
    view(&writer).await?;
    let memory = |target: &Target| -> Result<f64> { Ok(target.memory_mib()?.map_or(0.0, |(now, _)| now)) };
    let epochs = async || -> Result<f64> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut client = connect(target).await?;
        let updates = tokio::spawn({
            let (stop, client) = (stop.clone(), std::mem::replace(&mut client, connect(target).await?));
            async move { update(client, stop).await.map_err(|error| error.to_string()) }
        });
        tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
        stop.store(true, Ordering::Relaxed);
        updates.await??;
        let row = client
            .query_one(
                "SELECT CAST(median(processing_us) AS DOUBLE PRECISION) AS m FROM millstream.epochs WHERE input_rows > 0",
                &[],
            )
            .await?;
        Ok(row.get::<_, f64>(0) / 1e3)
    };
    let alone = (memory(target)?, epochs().await?);
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(connect(target).await?);
    }
    let with_idle = (memory(target)?, epochs().await?);
    let mut subscribers = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let client = connect(target).await?;
        subscribers.push(tokio::spawn(async move {
            let none: [&(dyn ToSql + Sync); 0] = [];
            let Ok(rows) = client.query_raw("SUBSCRIBE mv WITH (SNAPSHOT = false)", none).await else {
                return 0;
            };
            rows.count().await
        }));
    }
    let with_subscribers = (epochs().await?, memory(target)?);
    println!("memory of the server and the middle epoch of 100 rows at 100 epochs a second:");
    println!("  alone                      {:>8.1} MiB {:>8.2} ms", alone.0, alone.1);
    println!("  with {IDLE} idle connections {:>8.1} MiB {:>8.2} ms", with_idle.0, with_idle.1);
    println!(
        "  and {SUBSCRIBERS} subscribers        {:>8.1} MiB {:>8.2} ms",
        with_subscribers.1, with_subscribers.0
    );
    drop(idle);
    subscribers.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}
