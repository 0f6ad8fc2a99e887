//! A client that subscribes to changes and never reads them: it delays nobody, costs bounded memory, and
//! leaves nothing behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::{TryStreamExt, pin_mut};
use millstream_testkit::drive::{Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_postgres::Client;

use super::Scenario;
use super::server::{connect, connect_with_socket, no_subscriptions, said, serve, text};

pub const ALL: &[Scenario] = &[
    ("a_subscriber_that_never_reads_holds_nobody_up", || serve(|port| beside(port, "SUBSCRIBE mv"))),
    ("a_copy_of_changes_that_nobody_reads_holds_nobody_up", || {
        serve(|port| beside(port, "COPY (SUBSCRIBE mv) TO STDOUT"))
    }),
    ("changes_of_a_query_that_nobody_reads_hold_nobody_up", || {
        serve(|port| beside(port, "SELECT id, v FROM t WHERE id >= 0 EMIT CHANGES"))
    }),
    ("what_an_unread_view_holds_goes_with_it", || serve(dropped)),
];

/// The setting for the bytes that may wait for a reader; and a generous bound of the bytes of one INSERT.
const BUFFER_BYTES: i64 = 4 << 20;
const INSERT_BYTES: i64 = 2 << 20;
const ROWS: i64 = 2_000;
const INSERTS: i64 = 40;

/// Connects a client that sends a statement and reads nothing, with the smallest possible receive buffer.
async fn mute(port: u16, sql: &str) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4().map_err(text)?;
    socket.set_recv_buffer_size(4096).map_err(text)?;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = socket.connect(address).await.map_err(text)?;
    let mut bytes = b"\0\0\0\x10\0\x03\0\0user\0x\0\0Q".to_vec();
    bytes.extend((sql.len() as u32 + 5).to_be_bytes());
    bytes.extend(sql.as_bytes());
    bytes.push(0);
    stream.write_all(&bytes).await.map_err(text)?;
    Ok(stream)
}

async fn prepared(port: u16) -> Result<Client> {
    let client = connect(port).await?;
    client
        .batch_execute(&format!(
            "SET subscription_buffer_max = {BUFFER_BYTES};
            CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT);
            CREATE MATERIALIZED VIEW mv AS SELECT id, v FROM t WHERE id >= 0"
        ))
        .await
        .map_err(|error| said(&error))?;
    Ok(client)
}

/// Waits until this number of subscriptions exists.
async fn subscribed(client: &Client, wanted: i64) -> Result<()> {
    for _ in 0..200 {
        let row = client.query_one("SELECT count(*) FROM millstream.subscriptions", &[]).await;
        if row.map_err(|error| said(&error))?.get::<_, i64>(0) == wanted {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(format!("{wanted} subscriptions don't come"))
}

/// Returns the largest number of bytes waiting for any reader.
async fn waiting_bytes(client: &Client) -> Result<i64> {
    let sql = "SELECT coalesce(max(waiting_bytes), 0) FROM millstream.subscriptions";
    let row = client.query_one(sql, &[]).await.map_err(|error| said(&error))?;
    Ok(row.get(0))
}

/// Inserts rows of some hundred bytes each.
async fn insert(client: &Client, round: i64) -> Result<()> {
    let first = round * ROWS;
    let sql = format!(
        "INSERT INTO t SELECT i, concat(repeat('x', 300), i) FROM generate_series({first}, {}) AS g(i)",
        first + ROWS - 1
    );
    client.batch_execute(&sql).await.map_err(|error| said(&error))
}

/// A writer, a point reader and another subscriber continue beside one that never reads.
async fn beside(port: u16, sql: &'static str) -> Result<()> {
    let writer = prepared(port).await?;
    let stuck = mute(port, sql).await?;
    subscribed(&writer, 1).await?;
    let reader = connect(port).await?;
    let (follower, socket) = connect_with_socket(port).await?;
    let none: [&(dyn tokio_postgres::types::ToSql + Sync); 0] = [];
    let followed = follower.query_raw("SUBSCRIBE mv", none).await.map_err(|error| said(&error))?;
    subscribed(&writer, 2).await?;
    let seen = Arc::new(AtomicU64::new(0));
    let counted = seen.clone();
    tokio::spawn(async move {
        pin_mut!(followed);
        while let Ok(Some(_)) = followed.try_next().await {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let point = reader.prepare("SELECT v FROM mv WHERE id = $1").await.map_err(|error| said(&error))?;
    let (mut most, mut slowest) = (0, Duration::ZERO);
    for round in 0..INSERTS {
        let begun = Instant::now();
        insert(&writer, round).await?;
        let id = round * ROWS;
        let row = reader.query_one(&point, &[&id]).await.map_err(|error| said(&error))?;
        slowest = slowest.max(begun.elapsed());
        ensure(row.get::<_, String>(0).ends_with(&format!("x{id}")), || format!("{row:?}"))?;
        most = most.max(waiting_bytes(&reader).await?);
    }
    ensure(slowest < Duration::from_secs(20), || format!("an INSERT and a read took {slowest:?}"))?;
    ensure(most < BUFFER_BYTES + INSERT_BYTES, || format!("{most} bytes were kept for a reader"))?;
    // The reading subscriber has seen everything; the other one was dropped.
    let all = (ROWS * INSERTS) as u64;
    for _ in 0..500 {
        if seen.load(Ordering::Relaxed) == all {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let seen = seen.load(Ordering::Relaxed);
    ensure(seen == all, || format!("{seen} of {all} changes have come to the one who reads"))?;
    subscribed(&writer, 1).await?;
    socket.abort();
    drop(stuck);
    no_subscriptions(&writer).await
}

/// Changes waiting for an idle reader are freed with the reader, and with the view.
async fn dropped(port: u16) -> Result<()> {
    let writer = prepared(port).await?;
    for how in ["the reader", "the view"] {
        writer.batch_execute("DELETE FROM t").await.map_err(|error| said(&error))?;
        let stuck = mute(port, "SUBSCRIBE mv").await?;
        subscribed(&writer, 1).await?;
        let mut round = 0;
        // Bytes in the buffers of the socket and the server don't count as waiting.
        while waiting_bytes(&writer).await? == 0 {
            insert(&writer, round).await?;
            round += 1;
            ensure(round < 200, || "all is taken by a reader who doesn't read".into())?;
        }
        match how {
            "the reader" => drop(stuck),
            _ => {
                writer.batch_execute("DROP MATERIALIZED VIEW mv").await.map_err(|error| said(&error))?;
                subscribed(&writer, 0).await?;
                drop(stuck);
            }
        }
        no_subscriptions(&writer).await?;
    }
    Ok(())
}
