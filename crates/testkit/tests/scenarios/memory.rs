//! State that is larger than memory_limit.

use std::fs;

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{
    self, Result, block_on, ensure, expect, expect_soon, run, run_all, within_a_minute,
};

use super::behind::{self as lagging, Door};
use super::{Scenario, folder, write};

pub const ALL: &[Scenario] = &[
    ("memory_that_has_no_files_keeps_everything", || block_on(no_files())),
    ("memory_of_queries_that_are_behind_is_spilled_too", || block_on(behind())),
    ("memory_of_groups_is_spilled_with_their_keys_and_values", || block_on(groups())),
    ("memory_of_what_is_kept_in_order_is_spilled_with_its_order", || block_on(orders())),
    ("memory_of_a_query_that_reads_a_sources_past_is_its_statements", || block_on(of_statement())),
    ("memory_that_is_spilled_is_no_part_of_a_data_directory", || block_on(of_directory())),
];

const OBJECTS: [&str; 4] = [
    "CREATE TABLE t (id BIGINT, k BIGINT, text VARCHAR)",
    "CREATE TABLE u (k BIGINT PRIMARY KEY, name VARCHAR)",
    "CREATE MATERIALIZED VIEW m AS SELECT t.id, t.text, u.name FROM t JOIN u ON t.k = u.k",
    "INSERT INTO u SELECT i, concat('the name of ', i) FROM generate_series(0, 99) AS g(i)",
];

fn insert(from: usize, to: usize) -> String {
    format!(
        "INSERT INTO t SELECT i, i % 100, concat('the text of the row with number ', i) FROM generate_series({from}, {to}) \
         AS g(i)"
    )
}

/// Returns true if some rows are spilled, and the reason for exceeding memory_limit.
async fn spilled(session: &mut Session) -> Result<(bool, String)> {
    let rows = drive::lines(session, "SELECT spilled_bytes > 0, coalesce(reason, '') FROM millstream.memory")
        .await?;
    let line = rows.first().cloned().unwrap_or_default();
    let (some, reason) = line.split_once('|').unwrap_or((&line, ""));
    Ok((some == "true", reason.to_string()))
}

/// Waits until some rows are spilled: the engine does not spill after each epoch. Returns the reason.
async fn spilled_soon(session: &mut Session) -> Result<String> {
    let mut found = (false, String::new());
    for _ in 0..500 {
        found = spilled(session).await?;
        if found.0 {
            return Ok(found.1);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Err(format!("nothing is in files: {}", found.1))
}

/// Inserts and deletes rows, and compares maintained results with the batch answer.
async fn change_and_compare(session: &mut Session) -> Result<()> {
    run(session, &insert(20_001, 25_000)).await?;
    run_all(
        session,
        &[
            "DELETE FROM t WHERE id % 3 = 0",
            "UPDATE u SET name = 'another' WHERE k = 7",
            "DELETE FROM u WHERE k = 8",
        ],
    )
    .await?;
    compare(session).await
}

async fn change_back_and_compare(session: &mut Session) -> Result<()> {
    run(session, "INSERT INTO u VALUES (8, 'the name of 8 again')").await?;
    run(session, "DELETE FROM t WHERE id % 5 = 0").await?;
    compare(session).await
}

async fn compare(session: &mut Session) -> Result<()> {
    let query = "SELECT count(*), sum(id), count(DISTINCT text), count(DISTINCT name) FROM";
    let batch = format!("{query} (SELECT t.id, t.text, u.name FROM t JOIN u ON t.k = u.k) AS x");
    let expected = drive::lines(session, &batch).await?;
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    expect(session, &format!("{query} m"), &expected).await
}

/// A file in place of the directory acts as a disk that rejects writes.
async fn no_files() -> Result<()> {
    let place = tempfile::tempdir().map_err(|error| error.to_string())?;
    let directory = place.path().join("spill");
    fs::write(&directory, "in the way").map_err(|error| error.to_string())?;
    let engine = Engine::builder().spill_directory(&directory).start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run(&mut session, "SET memory_limit = 1000").await?;
    run_all(&mut session, &OBJECTS).await?;
    run(&mut session, &insert(1, 20_000)).await?;
    change_and_compare(&mut session).await?;
    let (some, reason) = spilled(&mut session).await?;
    let told = reason.contains("can't be written") && reason.contains("spill");
    ensure(!some && told, || format!("it isn't said why nothing is in files: {some} {reason}"))?;
    let warnings = engine.progress().warnings.join("; ");
    ensure(warnings.contains("memory_limit"), || format!("nobody is warned: {warnings:?}"))?;
    // Once the directory can be created, it is used.
    fs::remove_file(&directory).map_err(|error| error.to_string())?;
    let reason = spilled_soon(&mut session).await?;
    ensure(!reason.contains("can't be written"), || format!("it is still said: {reason}"))?;
    change_back_and_compare(&mut session).await?;
    let left = fs::read_dir(&directory).map_err(|error| error.to_string())?.count();
    ensure(left == 0, || format!("{left} files have names"))?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn behind() -> Result<()> {
    let engine = Engine::builder().step_apart(3).start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run(&mut session, "SET memory_limit = 1000").await?;
    run_all(&mut session, &OBJECTS).await?;
    for part in 0..12 {
        run(&mut session, &insert(part * 1000, part * 1000 + 999)).await?;
    }
    change_and_compare(&mut session).await?;
    let of_query = "SELECT bool_or(spilled_bytes > 0) FROM millstream.operators WHERE query = 'm'";
    drive::expect_soon(&mut session, of_query, &["true"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Groups by a number, by a text, by both, and a join on as many keys.
const GROUPED: [(&str, &str); 4] = [
    ("by_number", "SELECT k, count(*) AS n, sum(v) AS s, avg(x) AS a, max(v) AS m FROM g GROUP BY k"),
    ("by_text", "SELECT text, count(*) AS n, sum(x) AS s, stddev(x) AS d FROM g GROUP BY text"),
    ("by_both", "SELECT k, text, bool_or(v > 3) AS b, count(DISTINCT v) AS n FROM g GROUP BY k, text"),
    ("joined", "SELECT g.k, g.v, o.v AS w FROM g JOIN g AS o ON g.k = o.k AND g.v < o.v"),
];

/// Returns an insert of rows of groups: each of `to - from` numbers `each` times.
fn grouped(from: usize, to: usize, each: usize) -> String {
    format!(
        "INSERT INTO g SELECT i % {0} + {from}, concat('the group with number ', i % {0} + {from}), i % 7, i / 8.0 \
         FROM generate_series(0, {0} * {each} - 1) AS s(i)",
        to - from
    )
}

/// Checks that maintained results equal the batch answer.
async fn compare_all(session: &mut Session, queries: &[(&str, &str)]) -> Result<()> {
    for (name, query) in queries {
        let mut expected = drive::lines(session, query).await?;
        let mut found = drive::lines(session, &format!("SELECT * FROM {name}")).await?;
        expected.sort_unstable();
        found.sort_unstable();
        let differ = expected.iter().zip(&found).find(|(expected, found)| expected != found);
        ensure(expected.len() == found.len() && differ.is_none(), || {
            format!("{name}: {} rows, not {}: {differ:?}", found.len(), expected.len())
        })?;
    }
    Ok(())
}

/// Checks that most state of the queries' operators is spilled, and little of it is in memory.
async fn groups_are_spilled(session: &mut Session) -> Result<()> {
    for (name, operator) in
        [("by_number", "Aggregate"), ("by_text", "Aggregate"), ("by_both", "Aggregate"), ("joined", "Join")]
    {
        let query = format!(
            "SELECT bool_or(spilled_bytes > 50000 AND spilled_bytes > state_bytes) FROM millstream.operators \
             WHERE query = '{name}' AND operator LIKE '%{operator}%'"
        );
        drive::expect_soon(session, &query, &["true"]).await?;
    }
    Ok(())
}

async fn groups() -> Result<()> {
    let place = tempfile::tempdir().map_err(|error| error.to_string())?;
    let start = || Engine::builder().data(place.path()).start().map_err(|error| error.to_string());
    let engine = start()?;
    let mut session = engine.session();
    run(&mut session, "SET memory_limit = 1000").await?;
    run(&mut session, "CREATE TABLE g (k BIGINT, text VARCHAR, v BIGINT, x DOUBLE)").await?;
    for (name, query) in GROUPED {
        run(&mut session, &format!("CREATE MATERIALIZED VIEW {name} AS {query}")).await?;
    }
    run(&mut session, &grouped(0, 3000, 3)).await?;
    groups_are_spilled(&mut session).await?;
    run(&mut session, &grouped(2000, 6000, 2)).await?;
    run(&mut session, "DELETE FROM g WHERE k % 3 = 0 OR v = 5").await?;
    compare_all(&mut session, &GROUPED).await?;
    groups_are_spilled(&mut session).await?;
    run(&mut session, "CHECKPOINT").await?;
    run(&mut session, &grouped(0, 4000, 1)).await?;
    engine.stop().await.map_err(|error| error.to_string())?;
    drop((session, engine));
    let engine = start()?;
    let mut session = engine.session();
    compare_all(&mut session, &GROUPED).await?;
    groups_are_spilled(&mut session).await?;
    run(&mut session, "DELETE FROM g WHERE k % 2 = 0").await?;
    compare_all(&mut session, &GROUPED).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// The first of each partition, the first of all, neighbours in an order, numbers of peers, sessions: the
/// operator of each.
const ORDERED: [(&str, &str); 5] = [
    (
        "firsts",
        "SELECT k, v, text FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY v DESC, text) AS n FROM o) AS x \
         WHERE n <= 3",
    ),
    ("first", "SELECT v, text FROM o ORDER BY v, text LIMIT 5"),
    (
        "neighbours",
        "SELECT k, v, lag(text) OVER (PARTITION BY k ORDER BY v, text) AS a, lead(v) OVER (PARTITION BY k ORDER BY v, text) \
         AS b FROM o",
    ),
    ("ranked", "SELECT k, v, text, dense_rank() OVER (PARTITION BY k ORDER BY v) AS r FROM o"),
    (
        "sessions",
        "SELECT k, at, window_start, window_end FROM SESSION(o PARTITION BY k, at, INTERVAL '10 seconds')",
    ),
];

/// Returns an insert of rows at random positions of each order.
fn ordered(from: usize, to: usize) -> String {
    format!(
        "INSERT INTO o SELECT i % 500, i * 7919 % 1000, concat('a text of some length: ', i), \
         TIMESTAMPTZ '2024-05-01 00:00:00+00' + i * 104729 % 90000 * INTERVAL '1 second' FROM generate_series({from}, {to}) \
         AS s(i)"
    )
}

/// Checks that each sorting operator has more bytes spilled than in memory, in its rows and in their index.
async fn orders_are_spilled(session: &mut Session) -> Result<()> {
    for (name, operator) in [
        ("firsts", "TopN"),
        ("first", "TopN"),
        ("neighbours", "Over"),
        ("ranked", "Over"),
        ("sessions", "Session"),
    ] {
        let query = format!(
            "SELECT bool_or(spilled_bytes > 1000000 AND spilled_bytes > 4 * state_bytes) FROM millstream.operators \
             WHERE query = '{name}' AND operator LIKE '%{operator}%'"
        );
        if let Err(error) = drive::expect_soon(session, &query, &["true"]).await {
            let bytes = "SELECT query, operator, state_bytes, spilled_bytes FROM millstream.operators";
            return Err(format!("{name}: {error}: {:?}", drive::lines(session, bytes).await?));
        }
    }
    Ok(())
}

async fn orders() -> Result<()> {
    let place = tempfile::tempdir().map_err(|error| error.to_string())?;
    let start = || Engine::builder().data(place.path()).start().map_err(|error| error.to_string());
    let engine = start()?;
    let mut session = engine.session();
    run(&mut session, "SET memory_limit = 1000").await?;
    run(&mut session, "CREATE TABLE o (k BIGINT, v BIGINT, text VARCHAR, at TIMESTAMPTZ)").await?;
    for (name, query) in ORDERED {
        run(&mut session, &format!("CREATE MATERIALIZED VIEW {name} AS {query}")).await?;
    }
    run(&mut session, &ordered(0, 15_000)).await?;
    orders_are_spilled(&mut session).await?;
    run(&mut session, &ordered(15_001, 20_000)).await?;
    run(&mut session, "DELETE FROM o WHERE k % 3 = 0 OR v = 5").await?;
    compare_all(&mut session, &ORDERED).await?;
    run(&mut session, "CHECKPOINT").await?;
    run(&mut session, &ordered(20_001, 25_000)).await?;
    engine.stop().await.map_err(|error| error.to_string())?;
    drop((session, engine));
    let engine = start()?;
    let mut session = engine.session();
    compare_all(&mut session, &ORDERED).await?;
    orders_are_spilled(&mut session).await?;
    run(&mut session, "DELETE FROM o WHERE k % 2 = 0").await?;
    run(&mut session, &ordered(500, 1500)).await?;
    compare_all(&mut session, &ORDERED).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn of_directory() -> Result<()> {
    let place = tempfile::tempdir().map_err(|error| error.to_string())?;
    let start = || Engine::builder().data(place.path()).start().map_err(|error| error.to_string());
    let engine = start()?;
    let mut session = engine.session();
    run(&mut session, "SET memory_limit = 1000").await?;
    run_all(&mut session, &OBJECTS).await?;
    run(&mut session, &insert(1, 20_000)).await?;
    spilled_soon(&mut session).await?;
    let directory = place.path().join("spill");
    ensure(directory.is_dir(), || format!("there is no {}", directory.display()))?;
    run(&mut session, "CHECKPOINT").await?;
    run(&mut session, "DELETE FROM t WHERE id < 100").await?;
    engine.stop().await.map_err(|error| error.to_string())?;
    drop((session, engine));
    fs::remove_dir_all(&directory).map_err(|error| error.to_string())?;
    let engine = start()?;
    let mut session = engine.session();
    expect(&mut session, "SELECT count(*) FROM m", &["19901"]).await?;
    change_and_compare(&mut session).await?;
    spilled_soon(&mut session).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// A statement that creates a query over a source's past accounts for the query's state. It fails beyond its limit and
/// leaves nothing behind, and its progress can be seen.
async fn of_statement() -> Result<()> {
    let folder = folder()?;
    for file in 0..20 {
        let rows: String = (0..1000).map(|n| format!("{}\n", file * 1000 + n)).collect();
        write(folder.path(), &format!("{file}.csv"), &rows)?;
    }
    let (gate, engine, mut session) = lagging::started(Engine::builder()).await?;
    let source = format!(
        "CREATE SOURCE f (n BIGINT) WITH (connector = 'file', path = '{}', format = 'csv', header = false)",
        folder.path().display()
    );
    let made = [
        "SET max_batch_rows = 500",
        &source,
        "CREATE MATERIALIZED VIEW before AS SELECT count(*) AS n FROM f",
        "FLUSH",
        "SET query_memory_limit = '64 KiB'",
    ];
    run_all(&mut session, &made).await?;
    for sql in [
        "CREATE MATERIALIZED VIEW groups AS SELECT n, count(*) AS c FROM f GROUP BY n",
        "ALTER MATERIALIZED VIEW before AS SELECT count(DISTINCT n) AS n FROM f",
    ] {
        let error = run(&mut session, sql).await.err().unwrap_or_default();
        ensure(error.contains("more bytes of memory"), || format!("{sql}: {error}"))?;
        ensure(error.contains("raise query_memory_limit"), || format!("{sql}: {error}"))?;
    }
    expect(&mut session, "SELECT name FROM millstream.materialized_views", &["before"]).await?;
    run(&mut session, "SET query_memory_limit = 'auto'").await?;
    gate.set(Door::Slow);
    let mut other = engine.session();
    let making = tokio::spawn(async move {
        run(&mut other, "CREATE MATERIALIZED VIEW groups AS SELECT n, max(gate(n)) AS m FROM f GROUP BY n")
            .await
    });
    let job = "SELECT count(*) FROM millstream.jobs WHERE statement LIKE 'CREATE MAT%' AND rows_done > 0 AND memory_bytes > 0";
    expect_soon(&mut session, job, &["1"]).await?;
    gate.set(Door::Open);
    within_a_minute("CREATE", making).await?.map_err(|error| error.to_string())??;
    expect(&mut session, "SELECT count(*), sum(m) FROM groups", &["20000|199990000"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}
