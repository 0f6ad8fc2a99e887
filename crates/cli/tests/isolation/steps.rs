//! A sink into a table whose step takes long must not delay other statements, or the epoch that it belongs to.

// Any failure ends the test.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use super::hostile::{PATIENCE, Scale, Server, measure, prepare};
use super::{CANCELLED, MOST, program};

/// Rows that are joined with each other: in an unoptimized build that takes much longer than the trial.
const ROWS: u64 = 24_000;

const OBJECTS: &[&str] = &[
    "CREATE TABLE pairs (a BIGINT, b BIGINT)",
    "CREATE TABLE kept (n BIGINT)",
    "CREATE SINK into_kept INTO kept AS SELECT count(*) AS n FROM pairs x JOIN pairs y ON x.b < y.b AND x.a * y.a = 17",
    "CREATE MATERIALIZED VIEW of_kept AS SELECT count(*) AS n FROM kept",
    "INSERT INTO pairs VALUES (1, 1), (17, 2)",
];

#[test]
fn short_statements_go_on_beside_a_long_step_of_a_sink_into_a_table() {
    let place = tempfile::tempdir().unwrap();
    let mut server = Server::start(program(), place.path());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let first = server.client().await;
        prepare(&first, Scale { pairs: 10, rows: 10 }).await;
        for sql in OBJECTS {
            first.batch_execute(sql).await.unwrap();
        }
        let rows = first.query_one("SELECT n FROM kept", &[]).await.unwrap();
        assert_eq!(rows.get::<_, i64>(0), 1, "a quick step is part of its epoch");
        let began = Instant::now();
        let fill = format!("INSERT INTO pairs SELECT i, i FROM generate_series(100, {ROWS}) g(i)");
        first.batch_execute(&fill).await.unwrap();
        assert!(began.elapsed() < MOST, "the INSERT waited {:?} for the sink", began.elapsed());
        // This read waits for the sink.
        let reader = server.client().await;
        let token = reader.cancel_token();
        let read = tokio::spawn(async move { reader.query("SELECT n FROM of_kept", &[]).await.err() });
        let seen = measure(&server, Duration::from_secs(4), 1_000_000).await;
        for (what, times) in seen.all() {
            assert!(times.count() > 3, "{what}: {} in 4 s", times.count());
            assert!(times.at(1.0) < MOST, "{what}: {:?} at most", times.at(1.0));
        }
        let rows = first.query_one("SELECT status FROM millstream.sinks", &[]).await.unwrap();
        assert_eq!(rows.get::<_, &str>(0), "behind", "the step takes longer than this trial");
        assert!(!read.is_finished(), "the read waits");
        let cancelled = Instant::now();
        token.cancel_query(NoTls).await.unwrap();
        let error = tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
        let code = error.as_ref().and_then(|error| error.code());
        assert_eq!(code, Some(&SqlState::QUERY_CANCELED), "{error:?}");
        assert!(cancelled.elapsed() < CANCELLED, "{:?} until the read had ended", cancelled.elapsed());
    });
    assert!(server.is_running(), "the server lives");
}
