//! Statements and transactions that change whole tables, a few rows at a time, while other sessions
//! continue. No reader may see a partial change, and a cancelled one leaves nothing behind.

// Any failure ends the test.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::hostile::{PATIENCE, Server};
use super::program;

/// Rows of each table; a piece has three.
const ROWS: i64 = 3000;

const TABLES: &[&str] = &[
    "CREATE TABLE keyed (k BIGINT PRIMARY KEY, v BIGINT)",
    "CREATE TABLE bag (k BIGINT, v BIGINT)",
    "CREATE TABLE named (k BIGINT, v BIGINT)",
    "CREATE TABLE lefts (k BIGINT PRIMARY KEY, v BIGINT)",
    "CREATE TABLE rights (k BIGINT, v BIGINT)",
    "CREATE TABLE seen (n BIGINT, low BIGINT, high BIGINT)",
    "CREATE MATERIALIZED VIEW of_keyed AS SELECT count(*) AS n, min(v) AS low, max(v) AS high FROM keyed",
    "CREATE MATERIALIZED VIEW of_bag AS SELECT count(*) AS n, min(v) AS low, max(v) AS high FROM bag",
    "CREATE MATERIALIZED VIEW of_both AS SELECT a.k, a.v - b.v AS d FROM keyed a JOIN bag b USING (k)",
    "CREATE TABLE copy (k BIGINT, v BIGINT)",
    "CREATE SINK copying INTO copy AS SELECT k, v FROM keyed",
    "CREATE MATERIALIZED VIEW beside AS SELECT k, v FROM bag",
    "CREATE MATERIALIZED VIEW of_pairs AS SELECT a.k, a.v - b.v AS d FROM lefts a JOIN rights b USING (k)",
];

/// Queries that check an invariant: each statement keeps the number of rows, and all rows have the same
/// value.
const READS: &[&str] = &[
    "SELECT count(*), min(v), max(v) FROM keyed",
    "SELECT count(*), min(v), max(v) FROM bag",
    "SELECT n, low, high FROM of_keyed",
    "SELECT n, low, high FROM of_bag",
    "SELECT count(*), min(v), max(v) FROM beside",
    "SELECT count(*), min(v), max(v) FROM copy",
];

/// Statements that change every row and succeed.
const CHANGES: &[&str] = &[
    "UPDATE keyed SET v = v + 1",
    "UPDATE bag SET v = v + 1",
    "UPDATE keyed SET k = k + 1",
    "UPDATE keyed SET k = -k",
    "INSERT INTO keyed SELECT k, v + 1 FROM keyed ON CONFLICT DO UPDATE SET v = EXCLUDED.v",
];

/// A statement that fails only at its end.
const FAILS: &str = "UPDATE keyed SET v = v + 1, \
     k = CASE WHEN k = (SELECT max(k) FROM keyed) THEN (SELECT min(k) FROM keyed) ELSE k END";

/// Statements that are cancelled at any time.
const CANCELLED: &[&str] = &[
    "UPDATE bag SET v = v + 1000000",
    "INSERT INTO keyed SELECT k, v + 1000000 FROM keyed",
    "UPDATE keyed SET v = v + 1000000, k = k + 1",
];

/// A transaction that changes all rows of two tables.
const TRANSACTION: [&str; 3] =
    ["BEGIN", "UPDATE lefts SET v = v + 1", "UPDATE rights SET v = v + 1 WHERE k IN (SELECT k FROM lefts)"];

/// The minimum and maximum of both tables, which are all equal.
const PAIRS: &str = "SELECT (SELECT min(v) FROM lefts), (SELECT max(v) FROM lefts), \
     (SELECT min(v) FROM rights), (SELECT max(v) FROM rights)";

async fn numbers(client: &Client, sql: &str) -> Vec<Option<i64>> {
    let row = client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    (0..row.len()).map(|column| row.get(column)).collect()
}

async fn check_uniform(client: &Client, sql: &str) -> i64 {
    let seen = numbers(client, sql).await;
    assert_eq!(seen[0], Some(ROWS), "{sql}: {seen:?}");
    assert!(seen[1].is_some() && seen[1] == seen[2], "{sql}: {seen:?}");
    seen[1].unwrap_or_default()
}

/// Work in a session of its own until the time is over.
struct Beside<'a> {
    server: &'a Server,
    over: &'a AtomicBool,
}

impl Beside<'_> {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    async fn reads(&self) {
        let client = self.server.client().await;
        while self.goes_on() {
            for sql in READS {
                check_uniform(&client, sql).await;
            }
            client.batch_execute("BEGIN").await.unwrap();
            let first = check_uniform(&client, READS[0]).await;
            assert_eq!(check_uniform(&client, READS[0]).await, first, "a transaction sees one moment");
            let key = "SELECT count(*), min(v), max(v) FROM keyed WHERE k IN (SELECT k FROM keyed LIMIT 1)";
            let seen = numbers(&client, key).await;
            assert_eq!(seen, [Some(1), Some(first), Some(first)]);
            client.batch_execute("COMMIT").await.unwrap();
        }
    }

    /// Returns how often each statement was done.
    async fn changes(&self) -> u64 {
        let client = self.server.client().await;
        let mut done = 0;
        while self.goes_on() {
            for sql in CHANGES {
                match client.execute(*sql, &[]).await {
                    Ok(count) => assert_eq!(count, ROWS as u64, "{sql}"),
                    Err(error) => panic!("{sql}: {error:?}"),
                }
                done += 1;
            }
        }
        done
    }

    async fn fails(&self) {
        let client = self.server.client().await;
        while self.goes_on() {
            let error = client.batch_execute(FAILS).await.unwrap_err();
            assert!(format!("{error:?}").contains("table \\\"keyed\\\""), "{error:?}");
        }
    }

    async fn is_cancelled(&self, given: &AtomicI64) {
        let client = self.server.client().await;
        let mut statements = CANCELLED.iter().cycle();
        while self.goes_on()
            && let Some(sql) = statements.next()
        {
            let token = client.cancel_token();
            let wait = Duration::from_millis(rand::random_range(0..400));
            let cancel = async {
                tokio::time::sleep(wait).await;
                token.cancel_query(NoTls).await.unwrap();
            };
            let update = client.simple_query(sql);
            match tokio::join!(update, cancel).0 {
                Ok(_) => _ = given.fetch_add(1000000, Ordering::Relaxed),
                Err(error) => assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error:?}"),
            }
        }
    }

    /// Other transactions and catalog changes may wait, but never see a partial change.
    async fn other_statements(&self) {
        let client = self.server.client().await;
        while self.goes_on() {
            let sql = "CREATE MATERIALIZED VIEW later AS SELECT count(*) AS n, min(v) AS low, max(v) AS high FROM keyed";
            client.batch_execute(sql).await.unwrap();
            check_uniform(&client, "SELECT n, low, high FROM later").await;
            client.batch_execute("DROP MATERIALIZED VIEW later").await.unwrap();
            client.batch_execute("BEGIN").await.unwrap();
            let change = "UPDATE keyed SET v = v WHERE k = (SELECT max(k) FROM keyed)";
            let change = client.execute(change, &[]).await;
            let done = match change {
                Ok(_) => client.batch_execute("COMMIT").await,
                Err(error) => {
                    client.batch_execute("ROLLBACK").await.unwrap();
                    Err(error)
                }
            };
            if let Err(error) = done {
                assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{error:?}");
            }
        }
    }

    /// A statement that reads the table to change another one sees no partial change.
    async fn is_copied(&self) {
        let client = self.server.client().await;
        while self.goes_on() {
            client.execute("INSERT INTO seen SELECT count(*), min(v), max(v) FROM keyed", &[]).await.unwrap();
        }
        let parts = "SELECT count(*) FROM seen WHERE n <> 3000 OR low <> high";
        assert_eq!(numbers(&client, parts).await, [Some(0)]);
    }

    /// Concurrent transactions on the same rows: some succeed, some fail, and some are cancelled during
    /// COMMIT.
    async fn transacts(&self, wait_max: u64, done: &AtomicI64) {
        let client = self.server.client().await;
        let lost = |error: tokio_postgres::Error| {
            let codes = [SqlState::QUERY_CANCELED, SqlState::T_R_SERIALIZATION_FAILURE];
            assert!(error.code().is_some_and(|code| codes.contains(code)), "{error:?}");
        };
        while self.goes_on() {
            if let Err(error) = client.batch_execute(&TRANSACTION.join("; ")).await {
                lost(error);
                client.batch_execute("ROLLBACK").await.unwrap();
                continue;
            }
            let token = client.cancel_token();
            let wait = Duration::from_millis(rand::random_range(0..wait_max));
            let cancel = async {
                tokio::time::sleep(wait).await;
                token.cancel_query(NoTls).await.unwrap();
            };
            let commit = client.batch_execute("COMMIT");
            match tokio::join!(commit, cancel).0 {
                Ok(()) => _ = done.fetch_add(1, Ordering::Relaxed),
                Err(error) => lost(error),
            }
            let _ = client.batch_execute("ROLLBACK").await;
        }
    }

    async fn pairs_agree(&self) {
        let client = self.server.client().await;
        while self.goes_on() {
            let seen = numbers(&client, PAIRS).await;
            assert!(seen[0].is_some() && seen.iter().all(|value| *value == seen[0]), "{seen:?}");
            let seen = numbers(&client, "SELECT count(*), min(d), max(d) FROM of_pairs").await;
            assert_eq!(seen, [Some(ROWS), Some(0), Some(0)], "a part of a transaction was taken in");
        }
    }

    /// A statement that would rename a table waits for the statement that changes its rows.
    async fn is_renamed(&self) {
        let (client, other) = (self.server.client().await, self.server.client().await);
        while self.goes_on() {
            let update = client.execute("UPDATE named SET v = v + 1", &[]);
            let rename = async {
                tokio::time::sleep(Duration::from_millis(rand::random_range(0..200))).await;
                other.batch_execute("ALTER TABLE named RENAME TO renamed").await.unwrap();
            };
            let (updated, ()) = tokio::join!(update, rename);
            if let Ok(count) = updated {
                assert_eq!(count, ROWS as u64);
            }
            check_uniform(&other, "SELECT count(*), min(v), max(v) FROM renamed").await;
            other.batch_execute("ALTER TABLE renamed RENAME TO named").await.unwrap();
        }
    }
}

async fn verify(client: &Client) {
    for view in ["of_keyed", "of_bag", "of_both", "of_pairs"] {
        let said = client.simple_query(&format!("VERIFY MATERIALIZED VIEW {view}")).await.unwrap();
        let differs = said.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_)));
        assert!(!differs, "{view}: {said:?}");
    }
}

#[test]
fn nobody_sees_a_part_of_a_statement_that_changes_a_whole_table() {
    let place = tempfile::tempdir().unwrap();
    let start = || {
        Server::start_with(program(), place.path(), |command| {
            command.args(["--data", "data"]).env("MILLSTREAM_PAGES", "3");
        })
    };
    let server = start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let values = runtime.block_on(async {
        let client = server.client().await;
        for sql in TABLES {
            client.batch_execute(sql).await.unwrap();
        }
        for table in ["keyed", "bag", "named", "lefts", "rights"] {
            let sql = format!("INSERT INTO {table} SELECT i, 0 FROM generate_series(1, {ROWS}) g(i)");
            client.batch_execute(&sql).await.unwrap();
        }
        let (over, given, committed) = (AtomicBool::new(false), AtomicI64::new(0), AtomicI64::new(0));
        let beside = Beside { server: &server, over: &over };
        let end = async {
            let began = Instant::now();
            tokio::time::sleep(Duration::from_secs(10)).await;
            while committed.load(Ordering::Relaxed) == 0 && began.elapsed() < PATIENCE / 2 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            over.store(true, Ordering::Relaxed);
        };
        let all = async {
            let (reads, fails, cancelled) = (beside.reads(), beside.fails(), beside.is_cancelled(&given));
            let (others, renamed, copied) =
                (beside.other_statements(), beside.is_renamed(), beside.is_copied());
            let (one, other) = (beside.transacts(400, &committed), beside.transacts(4000, &committed));
            let statements = async { tokio::join!(reads, beside.changes(), fails, cancelled, others).1 };
            tokio::join!(statements, end, renamed, copied, one, other, beside.pairs_agree()).0
        };
        let began = Instant::now();
        let done = tokio::time::timeout(PATIENCE, all).await.unwrap();
        let committed = committed.load(Ordering::Relaxed);
        assert!(done > 0 && committed > 0, "{done} and {committed} were done in {:?}", began.elapsed());
        let pairs = numbers(&client, PAIRS).await;
        assert!(pairs[0] >= Some(committed), "{pairs:?} after {committed} transactions");
        let keyed = check_uniform(&client, READS[0]).await;
        let bag = check_uniform(&client, READS[1]).await;
        let given = given.load(Ordering::Relaxed);
        assert!(keyed + bag >= given, "{keyed} and {bag} of {given}: what was done is there");
        verify(&client).await;
        [keyed, bag, pairs[0].unwrap_or_default()]
    });
    drop(server);
    let server = start();
    runtime.block_on(async {
        let client = server.client().await;
        let (keyed, bag) = (check_uniform(&client, READS[0]).await, check_uniform(&client, READS[1]).await);
        let there = [keyed, bag, numbers(&client, PAIRS).await[0].unwrap_or_default()];
        assert_eq!(there, values, "all of it survives the death of the process");
        verify(&client).await;
    });
}
