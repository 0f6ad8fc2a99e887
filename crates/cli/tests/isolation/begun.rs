//! Expensive queries that begin over large inputs of every kind must not delay other statements. Cancelling
//! one of them leaves nothing behind.

// Any failure ends the test.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write;
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use super::hostile::{PATIENCE, Scale, Server, measure, prepare};
use super::{CANCELLED, MOST, program};

/// Rows of each input that is joined with itself.
const ROWS: u64 = 12_000;

const INPUTS: &[&str] = &[
    "CREATE SOURCE read (a BIGINT, b BIGINT) \
     WITH (connector = 'file', path = 'read.csv', format = 'csv', header = false)",
    "CREATE MATERIALIZED VIEW of_read AS SELECT count(*) AS n FROM read",
    "FLUSH",
    "CREATE TABLE timed (a BIGINT, b BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')",
    "CREATE TABLE kept (n BIGINT)",
    "CREATE MATERIALIZED VIEW changed AS SELECT 1::BIGINT AS n",
    // This view is created at once, and processes its source's rows outside of the loop.
    "CREATE SOURCE fresh (a BIGINT, b BIGINT) \
     WITH (connector = 'file', path = 'read.csv', format = 'csv', header = false)",
    "CREATE MATERIALIZED VIEW of_fresh AS \
     SELECT count(*) AS n FROM fresh x JOIN fresh y ON x.b < y.b AND x.a * y.a = 17",
];

/// Each query keeps a processor busy for long, wherever it is evaluated.
const BEGUN: &[&str] = &[
    "CREATE MATERIALIZED VIEW of_source AS SELECT count(*) AS n FROM read x JOIN read y ON x.b < y.b AND x.a * y.a = 17",
    "CREATE STREAM of_table AS SELECT count(*) AS n FROM sm x JOIN sm y ON x.b < y.b AND x.a * y.a = 17",
    "CREATE STREAM rows_of_both AS SELECT x.a FROM sm x JOIN read y ON x.b < y.b AND x.a * y.a = -17",
    "CREATE MATERIALIZED VIEW closing AS SELECT date_trunc('minute', x.ts) AS w, count(*) AS n FROM timed x JOIN sm y \
     ON x.a < y.b AND x.a * y.a = 17 GROUP BY date_trunc('minute', x.ts) EMIT ON WINDOW CLOSE",
    "CREATE SINK into_table INTO kept AS SELECT count(*) AS n FROM sm x JOIN read y ON x.b < y.b AND x.a * y.a = 17",
    "BEGIN; CREATE VIEW both_of_it AS SELECT x.a FROM sm x JOIN sm y ON x.b < y.b AND x.a * y.a = 17; \
     CREATE MATERIALIZED VIEW one AS SELECT count(*) AS n FROM both_of_it; \
     CREATE MATERIALIZED VIEW two AS SELECT max(a) AS n FROM both_of_it; COMMIT",
    "ALTER MATERIALIZED VIEW changed AS SELECT x.a AS n FROM sm x JOIN sm y ON x.b < y.b AND x.a * y.a = 17",
];

#[test]
fn short_statements_go_on_beside_queries_that_begin_and_these_can_be_cancelled() {
    let place = tempfile::tempdir().unwrap();
    let mut text = String::new();
    (0..ROWS).for_each(|row| writeln!(text, "{row},{row}").unwrap());
    std::fs::write(place.path().join("read.csv"), text).unwrap();
    let mut server = Server::start(program(), place.path());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let first = server.client().await;
        prepare(&first, Scale { pairs: ROWS, rows: 1_000 }).await;
        for sql in INPUTS {
            first.batch_execute(sql).await.unwrap();
        }
        let fill = format!(
            "INSERT INTO timed SELECT i, i, TIMESTAMP '2026-01-01 00:00:00' FROM generate_series(1, {ROWS}) g(i)"
        );
        first.batch_execute(&fill).await.unwrap();
        let mut running = Vec::new();
        for sql in BEGUN {
            let client = server.client().await;
            let token = client.cancel_token();
            running.push((tokio::spawn(async move { client.batch_execute(sql).await.err() }), token, sql));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let seen = measure(&server, Duration::from_secs(4), 1_000_000).await;
        for (what, times) in seen.all() {
            assert!(times.count() > 3, "{what}: {} in 4 s", times.count());
            assert!(times.at(1.0) < MOST, "{what}: {:?} at most", times.at(1.0));
        }
        let cancelled = Instant::now();
        for (task, token, sql) in &running {
            assert!(!task.is_finished(), "it takes longer than this trial: {sql}");
            token.cancel_query(NoTls).await.unwrap();
        }
        for (task, _, sql) in running {
            let error = tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
            let code = error.as_ref().and_then(|error| error.code());
            assert_eq!(code, Some(&SqlState::QUERY_CANCELED), "{sql}: {error:?}");
        }
        assert!(cancelled.elapsed() < CANCELLED, "{:?} until all had ended", cancelled.elapsed());
        // Objects created before the cancellation are dropped a little later.
        let left = "SELECT name FROM millstream.materialized_views UNION ALL SELECT name FROM millstream.streams \
                    UNION ALL SELECT name FROM millstream.sinks UNION ALL SELECT viewname FROM pg_views WHERE schemaname = 'public' ORDER BY 1";
        let until = Instant::now() + CANCELLED;
        loop {
            let rows = first.query(left, &[]).await.unwrap();
            let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            if names == ["changed", "of_fresh", "of_read", "unrelated"] {
                break;
            }
            assert!(Instant::now() < until, "what was cancelled isn't there: {names:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let rows = first.query_one("SELECT n FROM changed", &[]).await.unwrap();
        assert_eq!(rows.get::<_, i64>(0), 1, "an ALTER that was cancelled has changed nothing");
        let rows = first.query_one("SELECT count(*) FROM kept", &[]).await.unwrap();
        assert_eq!(rows.get::<_, i64>(0), 0, "a sink that was cancelled has put nothing");
    });
    assert!(server.is_running(), "the server lives");
}
