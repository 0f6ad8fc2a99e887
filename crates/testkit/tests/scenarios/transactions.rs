//! Several sessions with concurrent transactions, compared with a plain map.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use millstream_engine::{Engine, Error, Response, Session, TransactionStatus, sqlstate};
use millstream_testkit::drive::{self, Result, ensure, expect, expect_soon, run, run_all};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("the_first_to_commit_wins", || drive::block_on(first_wins())),
    ("a_transaction_sees_one_epoch", || drive::block_on(one_epoch())),
    ("a_transaction_that_loses_takes_nobody_along", || drive::block_on(loses_alone())),
    ("a_commit_is_one_epoch", || drive::block_on(one_commit())),
    ("a_transaction_that_is_given_up_has_failed", || drive::block_on(given_up())),
    ("tables_that_go_and_come_under_a_transaction", || drive::block_on(tables_change())),
    ("random_transactions_against_a_model", || drive::block_on(random())),
];

async fn engine(statements: &[&str]) -> Result<(Engine, Session)> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(&mut session, statements).await?;
    Ok((engine, session))
}

/// Returns the error of a statement whose rows are read to the end.
async fn error(session: &mut Session, sql: &str) -> Result<Error> {
    match session.execute(sql).await {
        Err(error) => Ok(error),
        Ok(Response::Rows(rows)) => {
            let failed = rows.collect::<Vec<_>>().await.into_iter().find_map(std::result::Result::err);
            failed.map(Error::from).ok_or_else(|| format!("{sql} went well"))
        }
        Ok(other) => Err(format!("{sql} went well: {other:?}")),
    }
}

async fn loses(session: &mut Session, sql: &str) -> Result<()> {
    let error = error(session, sql).await?;
    ensure(error.sqlstate() == sqlstate::SERIALIZATION_FAILURE, || format!("{sql}: {error}"))
}

async fn first_wins() -> Result<()> {
    let (engine, mut one) = engine(&[
        "CREATE TABLE t (id INT PRIMARY KEY, n INT)",
        "CREATE TABLE bag (x INT)",
        "INSERT INTO t VALUES (1, 1), (2, 2)",
        "INSERT INTO bag VALUES (1), (1), (2)",
    ])
    .await?;
    let mut two = engine.session();
    // If two transactions change one row, the second fails, at its COMMIT or before, and has no effect.
    run_all(&mut one, &["BEGIN", "UPDATE t SET n = n + 1 WHERE id = 1", "INSERT INTO bag VALUES (9)"])
        .await?;
    run_all(&mut two, &["BEGIN", "UPDATE t SET n = n + 10 WHERE id = 1", "INSERT INTO bag VALUES (8)"])
        .await?;
    run(&mut two, "COMMIT").await?;
    loses(&mut one, "COMMIT").await?;
    ensure(one.transaction_status() == TransactionStatus::Idle, || "a COMMIT that fails ends it".into())?;
    expect(&mut one, "SELECT * FROM t", &["1|11", "2|2"]).await?;
    expect(&mut one, "SELECT * FROM bag", &["1", "1", "2", "8"]).await?;
    // A row that another transaction has changed can't be changed.
    run_all(&mut one, &["BEGIN", "SELECT * FROM t"]).await?;
    run(&mut two, "UPDATE t SET n = 0 WHERE id = 2").await?;
    expect(&mut one, "SELECT * FROM t", &["1|11", "2|2"]).await?;
    loses(&mut one, "UPDATE t SET n = n + 1 WHERE id = 2").await?;
    let refused = error(&mut one, "SELECT 1").await?;
    ensure(refused.sqlstate() == sqlstate::IN_FAILED_SQL_TRANSACTION, || refused.to_string())?;
    run(&mut one, "ROLLBACK").await?;
    // Two transactions insert one key; others don't conflict.
    run_all(&mut one, &["BEGIN", "INSERT INTO t VALUES (3, 3)"]).await?;
    run_all(&mut two, &["BEGIN", "INSERT INTO t VALUES (4, 4)", "COMMIT"]).await?;
    run(&mut two, "INSERT INTO t VALUES (3, 33)").await?;
    loses(&mut one, "COMMIT").await?;
    run_all(&mut one, &["BEGIN", "DELETE FROM t WHERE id = 3"]).await?;
    run_all(&mut two, &["DELETE FROM t WHERE id = 4"]).await?;
    run(&mut one, "COMMIT").await?;
    expect(&mut one, "SELECT * FROM t", &["1|11", "2|0"]).await?;
    // Both transactions delete the two copies of a row without a key; only one of them can.
    run_all(&mut one, &["BEGIN", "DELETE FROM bag WHERE x = 1", "UPDATE t SET n = 5"]).await?;
    run(&mut two, "DELETE FROM bag WHERE x = 1").await?;
    loses(&mut one, "COMMIT").await?;
    expect(&mut one, "SELECT * FROM t", &["1|11", "2|0"]).await?;
    expect(&mut one, "SELECT * FROM bag", &["2", "8"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn one_epoch() -> Result<()> {
    let (engine, mut one) = engine(&[
        "CREATE TABLE t (id INT PRIMARY KEY, n INT)",
        "CREATE MATERIALIZED VIEW sums AS SELECT n % 2 AS odd, count(*) AS c, sum(n) AS s FROM t GROUP BY n % 2",
        "CREATE MATERIALIZED VIEW large AS SELECT id, n FROM t WHERE n > 2",
        "CREATE MATERIALIZED VIEW top AS SELECT id FROM t ORDER BY n DESC LIMIT 2",
        "CREATE MATERIALIZED VIEW over_sums AS SELECT s FROM sums WHERE odd = 1",
        "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3), (4, 4)",
    ])
    .await?;
    let mut two = engine.session();
    run(&mut one, "BEGIN").await?;
    expect(&mut one, "SELECT count(*) FROM t", &["4"]).await?;
    for n in 5..50 {
        run(&mut two, &format!("INSERT INTO t VALUES ({n}, {n})")).await?;
        run(&mut two, &format!("DELETE FROM t WHERE id = {}", n - 4)).await?;
    }
    expect(&mut two, "SELECT * FROM top", &["48", "49"]).await?;
    for _ in 0..2 {
        expect(&mut one, "SELECT * FROM sums", &["0|2|6", "1|2|4"]).await?;
        expect(&mut one, "SELECT * FROM large", &["3|3", "4|4"]).await?;
        expect(&mut one, "SELECT * FROM top", &["3", "4"]).await?;
        expect(&mut one, "SELECT * FROM over_sums", &["4"]).await?;
        expect(&mut one, "SELECT * FROM t", &["1|1", "2|2", "3|3", "4|4"]).await?;
        run(&mut two, "UPDATE t SET n = n + 1").await?;
    }
    run(&mut one, "COMMIT").await?;
    expect(&mut one, "SELECT * FROM top", &["48", "49"]).await?;
    // Too many changes since: relations not read yet can't be read; everything else continues.
    run(&mut two, "SET subscription_buffer_max = 10000").await?;
    run(&mut one, "BEGIN").await?;
    expect(&mut one, "SELECT count(*) FROM large", &["4"]).await?;
    run(&mut two, "INSERT INTO t SELECT value, value AS n FROM generate_series(1000, 5000)").await?;
    expect(&mut two, "SELECT count(*) FROM large", &["4005"]).await?;
    expect(&mut one, "SELECT count(*) FROM large", &["4"]).await?;
    expect(&mut one, "SELECT count(*) FROM t", &["4"]).await?;
    let old = error(&mut one, "SELECT * FROM sums").await?;
    ensure(old.sqlstate() == sqlstate::SNAPSHOT_TOO_OLD, || old.to_string())?;
    run(&mut one, "ROLLBACK").await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn loses_alone() -> Result<()> {
    let (engine, mut one) = engine(&[
        "CREATE TABLE a (id INT PRIMARY KEY, v INT)",
        "CREATE TABLE b (id INT PRIMARY KEY, v INT)",
        "INSERT INTO a SELECT i, 0 FROM generate_series(1, 100) g(i)",
        "INSERT INTO b SELECT i, 0 FROM generate_series(1, 100) g(i)",
    ])
    .await?;
    let (mut two, mut three) = (engine.session(), engine.session());
    run_all(&mut one, &["BEGIN", "SELECT v FROM a WHERE id = 1"]).await?;
    run_all(&mut two, &["BEGIN", "UPDATE a SET v = v + 1", "UPDATE b SET v = v + 1"]).await?;
    run(&mut three, "UPDATE b SET v = 9 WHERE id = 7").await?;
    loses(&mut two, "COMMIT").await?;
    // The failed transaction has changed nothing, so no other one conflicts with it.
    run_all(&mut one, &["UPDATE a SET v = 5 WHERE id = 1", "COMMIT"]).await?;
    expect(&mut one, "SELECT sum(v) FROM a", &["5"]).await?;
    expect(&mut one, "SELECT sum(v) FROM b", &["9"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn one_commit() -> Result<()> {
    let (engine, mut one) = engine(&[
        "CREATE TABLE a (id INT PRIMARY KEY)",
        "CREATE TABLE b (id INT)",
        "CREATE MATERIALIZED VIEW both AS SELECT id FROM a UNION ALL SELECT id FROM b",
    ])
    .await?;
    let mut two = engine.session();
    let Ok(Response::Rows(mut rows)) = two.execute("SUBSCRIBE both WITH (SNAPSHOT = false)").await else {
        return Err("SUBSCRIBE gives rows".into());
    };
    run(&mut one, "BEGIN").await?;
    for id in 0..20 {
        run(&mut one, &format!("INSERT INTO a VALUES ({id})")).await?;
        run(&mut one, &format!("INSERT INTO b VALUES ({id})")).await?;
    }
    let early = tokio::time::timeout(Duration::from_millis(50), rows.next()).await;
    ensure(early.is_err(), || "nothing is told before COMMIT".into())?;
    run(&mut one, "COMMIT").await?;
    let (mut batches, mut count) = (BTreeSet::new(), 0);
    while count < 40 {
        let next = drive::within_a_minute("the rows of the COMMIT", rows.next()).await?;
        let batch = next.ok_or("it ended")?.map_err(|error| error.to_string())?;
        count += batch.num_rows();
        batches.extend(
            drive::text(&batch)?.iter().filter_map(|line| line.split('|').next().map(str::to_string)),
        );
    }
    ensure(batches.len() == 1, || format!("one batch was expected: {batches:?}"))?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn given_up() -> Result<()> {
    let (engine, mut one) = engine(&["CREATE TABLE t (id INT PRIMARY KEY)"]).await?;
    run_all(&mut one, &["BEGIN", "INSERT INTO t VALUES (1)"]).await?;
    // Dropped before it has done anything.
    let _ =
        futures::poll!(Box::pin(one.execute("INSERT INTO t SELECT value FROM generate_series(1, 100000)")));
    ensure(one.transaction_status() == TransactionStatus::Failed, || "half a statement fails it".into())?;
    let tag = run(&mut one, "COMMIT").await?;
    ensure(tag == "ROLLBACK", || tag.clone())?;
    expect_soon(&mut one, "SELECT * FROM t", &[]).await?;
    // The end of a session rolls its transaction back.
    run_all(&mut one, &["BEGIN", "INSERT INTO t VALUES (2)"]).await?;
    drop(one);
    expect(&mut engine.session(), "SELECT * FROM t", &[]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn tables_change() -> Result<()> {
    let (engine, mut one) =
        engine(&["CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE u (x INT)"]).await?;
    let mut two = engine.session();
    run_all(&mut one, &["BEGIN", "INSERT INTO t VALUES (1)", "INSERT INTO u VALUES (1)"]).await?;
    run_all(&mut two, &["DROP TABLE t", "CREATE TABLE t (id INT PRIMARY KEY)"]).await?;
    loses(&mut one, "COMMIT").await?;
    expect(&mut one, "SELECT * FROM u", &[]).await?;
    run_all(&mut one, &["BEGIN", "SELECT * FROM t"]).await?;
    run_all(&mut two, &["CREATE TABLE late (x INT)", "INSERT INTO late VALUES (1)"]).await?;
    expect(&mut one, "SELECT * FROM late", &["1"]).await?;
    loses(&mut one, "INSERT INTO late VALUES (2)").await?;
    run(&mut one, "ROLLBACK").await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// A table with a key, and the step of each key's last change.
#[derive(Clone, Default)]
struct Model {
    rows: BTreeMap<i64, i64>,
    changed: BTreeMap<i64, usize>,
}

/// A session with its expected view.
struct Party {
    session: Session,
    open: Option<Open>,
}

struct Open {
    began: usize,
    sees: BTreeMap<i64, i64>,
    touched: BTreeSet<i64>,
}

const KEYS: i64 = 12;

async fn random() -> Result<()> {
    let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let mut random = SmallRng::seed_from_u64(seed);
    let (engine, _) = engine(&[
        "CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT)",
        "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c, sum(n) AS s FROM t",
    ])
    .await?;
    let mut model = Model::default();
    let mut parties: Vec<Party> = (0..3).map(|_| Party { session: engine.session(), open: None }).collect();
    let (mut time, mut commits, mut losses) = (0, 0, 0);
    for step in 0..600 {
        let place = random.random_range(0..parties.len());
        let party = &mut parties[place];
        let context = |error: String| format!("seed {seed}, step {step}: {error}");
        let Some(open) = &mut party.open else {
            run(&mut party.session, "BEGIN").await?;
            shows(&mut party.session, &model.rows).await.map_err(context)?;
            let sees = model.rows.clone();
            party.open = Some(Open { began: time, sees, touched: BTreeSet::new() });
            continue;
        };
        let key = random.random_range(0..KEYS);
        let (sql, touched) = statement(random.random_range(0..10), key, step);
        let is_there = touched.iter().any(|key| open.sees.contains_key(key));
        if is_there || sql.starts_with("INSERT") {
            open.touched.extend(touched);
        }
        let lost = |open: &Open| {
            open.touched.iter().any(|key| model.changed.get(key).is_some_and(|changed| *changed > open.began))
        };
        match party.session.execute(&sql).await {
            Err(error) => {
                ensure(error.sqlstate() == sqlstate::SERIALIZATION_FAILURE, || context(error.to_string()))?;
                ensure(lost(open), || context(format!("{sql} fails without a reason: {error}")))?;
                losses += 1;
                run(&mut party.session, "ROLLBACK").await?;
                party.open = None;
            }
            Ok(_) if sql == "COMMIT" => {
                time += 1;
                commits += usize::from(!open.touched.is_empty());
                for key in &open.touched {
                    match open.sees.get(key) {
                        Some(n) => model.rows.insert(*key, *n),
                        None => model.rows.remove(key),
                    };
                    model.changed.insert(*key, time);
                }
                party.open = None;
                let sum: i64 = model.rows.values().sum();
                let sum = if model.rows.is_empty() { "NULL".into() } else { sum.to_string() };
                let answer = format!("{}|{sum}", model.rows.len());
                shows(&mut engine.session(), &model.rows).await.map_err(context)?;
                expect(&mut engine.session(), "SELECT * FROM v", &[&answer]).await.map_err(context)?;
            }
            Ok(_) if sql == "ROLLBACK" => party.open = None,
            Ok(_) => {
                apply(&sql, &mut open.sees, key, step);
                shows(&mut party.session, &open.sees).await.map_err(context)?;
            }
        }
    }
    ensure(commits > 10 && losses > 5, || format!("seed {seed}: {commits} commits, {losses} losses"))?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Returns a statement, and the keys whose rows it changes.
fn statement(kind: u32, key: i64, step: i64) -> (String, Vec<i64>) {
    let other = KEYS - key;
    match kind {
        0..=2 => (format!("INSERT INTO t VALUES ({key}, {step})"), vec![key]),
        3..=5 => (format!("UPDATE t SET n = n + 1 WHERE id = {key}"), vec![key]),
        6 => (format!("DELETE FROM t WHERE id = {key}"), vec![key]),
        7 => (format!("UPDATE t SET id = {KEYS} - id WHERE id IN ({key}, {other})"), vec![key, other]),
        8 => ("ROLLBACK".into(), vec![]),
        _ => ("COMMIT".into(), vec![]),
    }
}

/// Applies the effect of a statement to a map.
fn apply(sql: &str, rows: &mut BTreeMap<i64, i64>, key: i64, step: i64) {
    if sql.starts_with("INSERT") {
        rows.insert(key, step);
    } else if sql.starts_with("DELETE") {
        rows.remove(&key);
    } else if sql.starts_with("UPDATE t SET n") {
        rows.entry(key).and_modify(|n| *n += 1);
    } else {
        let (one, other) = (rows.remove(&key), rows.remove(&(KEYS - key)));
        rows.extend(one.map(|n| (KEYS - key, n)));
        rows.extend(other.map(|n| (key, n)));
    }
}

/// Fails unless the table has these rows.
async fn shows(session: &mut Session, rows: &BTreeMap<i64, i64>) -> Result<()> {
    let mut expected: Vec<String> = rows.iter().map(|(id, n)| format!("{id}|{n}")).collect();
    expected.sort();
    let found = drive::lines(session, "SELECT * FROM t").await?;
    ensure(found == expected, || format!("t shows {found:?}\n  expected {expected:?}"))
}
