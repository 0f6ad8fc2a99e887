//! A step that takes long must not delay other statements, or the epoch that it belongs to.

// Any failure ends the test.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use super::hostile::{PATIENCE, Scale, Server, measure, prepare};
use super::{CANCELLED, MOST, program};

/// Most time until a server ends in which no step is under way any more. It waits for steps for 30 s.
const ENDED: Duration = Duration::from_secs(15);

/// A step that takes long. It joins rows with each other: in an unoptimized build that takes much longer than the trial.
struct Trial {
    objects: &'static [&'static str],
    /// The view that waits for the step, and its number before that.
    view: &'static str,
    before: i64,
    /// Statements that begin the step, none of which waits for it.
    begin: &'static [&'static str],
    /// A statement that says whether the step is under way.
    status: &'static str,
}

const SINK_INTO_A_TABLE: Trial = Trial {
    objects: &[
        "CREATE TABLE pairs (a BIGINT, b BIGINT)",
        "CREATE TABLE kept (n BIGINT)",
        "CREATE SINK into_kept INTO kept AS SELECT count(*) AS n FROM pairs x JOIN pairs y ON x.b < y.b AND x.a * y.a = 17",
        "CREATE MATERIALIZED VIEW of_kept AS SELECT sum(n)::BIGINT AS n FROM kept",
        "INSERT INTO pairs VALUES (1, 1), (17, 2)",
    ],
    view: "of_kept",
    before: 1,
    begin: &["INSERT INTO pairs SELECT i, i FROM generate_series(100, 24000) g(i)"],
    status: "SELECT status FROM millstream.sinks",
};

/// The rows of `pairs` by `a` lie in one arrangement. It is the first step that takes long.
const SHARED_ROWS: Trial = Trial {
    objects: &[
        "CREATE TABLE pairs (a BIGINT, b BIGINT)",
        "CREATE MATERIALIZED VIEW one AS SELECT count(*) AS n FROM pairs x JOIN pairs y ON x.a = y.a AND x.b * y.b = 17",
        "CREATE MATERIALIZED VIEW other AS SELECT count(*) AS n FROM pairs x JOIN pairs y ON x.a = y.a AND x.b * y.b = 34",
        "INSERT INTO pairs VALUES (1, 1), (1, 17)",
    ],
    view: "one",
    before: 2,
    begin: &["INSERT INTO pairs SELECT 1, i FROM generate_series(100, 24000) g(i)"],
    status: "SELECT status FROM millstream.materialized_views WHERE name = 'one'",
};

const RESUMED: Trial = Trial {
    objects: &[
        "CREATE TABLE pairs (a BIGINT, b BIGINT)",
        "CREATE MATERIALIZED VIEW held AS SELECT count(*) AS n FROM pairs x JOIN pairs y ON x.b < y.b AND x.a * y.a = 17",
        "CREATE MATERIALIZED VIEW of_held AS SELECT n FROM held",
        "INSERT INTO pairs VALUES (1, 1), (17, 2)",
    ],
    view: "of_held",
    before: 1,
    begin: &[
        "PAUSE held",
        "INSERT INTO pairs SELECT i, i FROM generate_series(100, 24000) g(i)",
        "RESUME held",
    ],
    status: "SELECT status FROM millstream.materialized_views WHERE name = 'held'",
};

const ALL_RESUMED: Trial = Trial {
    objects: &[
        "CREATE TABLE pairs (a BIGINT, b BIGINT)",
        "CREATE MATERIALIZED VIEW held AS SELECT count(*) AS n FROM pairs x JOIN pairs y ON x.b < y.b AND x.a * y.a = 17",
        "INSERT INTO pairs VALUES (1, 1), (17, 2)",
    ],
    view: "held",
    begin: &[
        "PAUSE ALL",
        "INSERT INTO pairs SELECT i, i FROM generate_series(100, 24000) g(i)",
        "RESUME ALL",
    ],
    ..RESUMED
};

/// The query begins over a large table.
const FOR_EACH_BATCH: Trial = Trial {
    objects: &[
        "CREATE TABLE pairs (a BIGINT, b BIGINT)",
        "CREATE STREAM held WITH (retention = '1 hour') AS SELECT count(*) AS n \
         FROM pairs x JOIN pairs y ON x.b < y.b AND x.a * y.a = 17 FOR EACH BATCH",
        "INSERT INTO pairs VALUES (1, 1), (17, 2)",
    ],
    view: "held",
    before: 1,
    begin: &[
        "DROP STREAM held",
        "INSERT INTO pairs SELECT i, i FROM generate_series(100, 24000) g(i)",
        "CREATE STREAM held WITH (retention = '1 hour') AS SELECT count(*) AS n \
         FROM pairs x JOIN pairs y ON x.b < y.b AND x.a * y.a = 17 FOR EACH BATCH",
    ],
    status: "SELECT status FROM millstream.streams",
};

/// The query is recomputed over a table that has become large.
const RECOMPUTED: Trial = Trial {
    objects: &[
        "CREATE TABLE pairs (a BIGINT, b BIGINT)",
        "CREATE STREAM held WITH (retention = '1 hour') AS SELECT count(*) AS n, max(now()) AS at \
         FROM pairs x JOIN pairs y ON x.b < y.b AND x.a * y.a = 17 FOR EACH BATCH",
        "INSERT INTO pairs VALUES (1, 1), (17, 2)",
    ],
    view: "held",
    before: 1,
    begin: &["INSERT INTO pairs SELECT i, i FROM generate_series(100, 24000) g(i)"],
    status: "SELECT status FROM millstream.streams",
};

#[test]
fn short_statements_go_on_beside_a_long_step_of_a_sink_into_a_table() {
    goes_on_beside(&SINK_INTO_A_TABLE);
}

#[test]
fn short_statements_go_on_beside_the_first_long_step_of_views_that_share_rows() {
    goes_on_beside(&SHARED_ROWS);
}

#[test]
fn short_statements_go_on_beside_a_view_that_is_resumed() {
    goes_on_beside(&RESUMED);
}

#[test]
fn short_statements_go_on_beside_a_view_that_is_resumed_with_all_others() {
    goes_on_beside(&ALL_RESUMED);
}

#[test]
fn short_statements_go_on_beside_a_query_for_each_batch_that_begins() {
    goes_on_beside(&FOR_EACH_BATCH);
}

#[test]
fn short_statements_go_on_beside_a_query_that_is_recomputed_for_each_batch() {
    goes_on_beside(&RECOMPUTED);
}

fn goes_on_beside(trial: &Trial) {
    let place = tempfile::tempdir().unwrap();
    let mut server = Server::start(program(), place.path());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let first = server.client().await;
        prepare(&first, Scale { pairs: 10, rows: 10 }).await;
        for sql in trial.objects {
            first.batch_execute(sql).await.unwrap();
        }
        let read = format!("SELECT n FROM {}", trial.view);
        let rows = first.query_one(&read, &[]).await.unwrap();
        assert_eq!(rows.get::<_, i64>(0), trial.before, "a quick step is part of its epoch");
        for sql in trial.begin {
            let began = Instant::now();
            first.batch_execute(sql).await.unwrap();
            assert!(began.elapsed() < MOST, "{sql} waited {:?} for the step", began.elapsed());
        }
        // This read waits for the step.
        let reader = server.client().await;
        let token = reader.cancel_token();
        let read = tokio::spawn(async move { reader.query(&read, &[]).await.err() });
        let seen = measure(&server, Duration::from_secs(4), 1_000_000).await;
        for (what, times) in seen.all() {
            assert!(times.count() > 3, "{what}: {} in 4 s", times.count());
            assert!(times.at(1.0) < MOST, "{what}: {:?} at most", times.at(1.0));
        }
        let rows = first.query_one(trial.status, &[]).await.unwrap();
        assert_eq!(rows.get::<_, &str>(0), "behind", "the step takes longer than this trial");
        assert!(!read.is_finished(), "the read waits");
        let cancelled = Instant::now();
        token.cancel_query(NoTls).await.unwrap();
        let error = tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
        let code = error.as_ref().and_then(|error| error.code());
        assert_eq!(code, Some(&SqlState::QUERY_CANCELED), "{error:?}");
        assert!(cancelled.elapsed() < CANCELLED, "{:?} until the read had ended", cancelled.elapsed());
        // A sink into a table would be dropped once its changes are there.
        if trial.view != "of_kept" {
            first.batch_execute("DROP TABLE pairs CASCADE").await.unwrap();
        }
    });
    assert!(server.is_running(), "the server lives");
    if trial.view != "of_kept" {
        let took = terminated(&mut server);
        assert!(took < ENDED, "{took:?} until the server had ended: a step went on without its query");
    }
}

/// Tells a server to end, and returns how long that took.
fn terminated(server: &mut Server) -> Duration {
    let began = Instant::now();
    let sent = Command::new("kill").args(["-TERM", &server.child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    while server.is_running() && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    began.elapsed()
}
