//! Followers of changes end up with the present content: random sinks into tables and subscribers.

use std::collections::BTreeMap;

use futures::StreamExt;
use millstream_engine::{Engine, EngineBuilder, Response, Session};
use millstream_seeds::Random;
use millstream_testkit::drive::{self, Result, ensure, lines, run, run_all, within_a_minute};

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("what_follows_a_query_holds_its_rows", || drive::block_on(followed())),
    ("ticks_that_wait_too_long_are_merged", || drive::block_on(merged())),
];

const ROUNDS: u64 = 150;

/// The contents of tables, and the queries that they must equal.
const PAIRS: &[(&str, &str)] = &[
    ("SELECT k, s FROM keyed", "SELECT k, s FROM sums"),
    ("SELECT id, k FROM bag", "SELECT id, k FROM joined"),
    ("SELECT k, c FROM above", "SELECT k, count(*) AS c FROM bag GROUP BY k"),
];

/// Tables, queries and sinks, not in the order of the data flow.
const SETUP: &[&str] = &[
    "CREATE TABLE t (id INT PRIMARY KEY, k INT, v INT)",
    "CREATE TABLE ticks (n INT)",
    "CREATE TABLE names (k INT PRIMARY KEY, name TEXT)",
    "CREATE TABLE keyed (k INT PRIMARY KEY, s BIGINT)",
    "CREATE TABLE bag (id INT, k INT)",
    "CREATE MATERIALIZED VIEW above AS SELECT k, count(*) AS c FROM bag GROUP BY k",
    "CREATE MATERIALIZED VIEW sums AS SELECT k, sum(v) AS s FROM t WHERE k IS NOT NULL GROUP BY k",
    "CREATE MATERIALIZED VIEW joined AS SELECT t.id, names.k FROM t JOIN names ON t.k = names.k OR t.v = 3",
    "CREATE SINK one INTO keyed FROM sums",
    "CREATE SINK two INTO bag FROM joined",
];

/// The relations that subscribers follow.
const FOLLOWED: [&str; 4] =
    ["sums", "joined", "above", "(SELECT k % 2 AS odd, count(*) AS c FROM keyed GROUP BY k % 2)"];

fn statement(random: &mut Random, paused: bool) -> String {
    let (id, k, v) = (random.number(12), random.number(4), random.number(6));
    match random.number(9) {
        0 => format!("DELETE FROM t WHERE id = {id}"),
        1 => format!("UPDATE t SET k = {k} WHERE v = {v}"),
        2 => format!("INSERT INTO names VALUES ({k}, 'x') ON CONFLICT DO NOTHING"),
        3 => format!("DELETE FROM names WHERE k = {k}"),
        4 => format!(
            "INSERT INTO t VALUES ({id}, {k}, {v}) ON CONFLICT (id) DO UPDATE SET v = t.v + 1 WHERE t.v < 9"
        ),
        5 if paused && random.number(2) == 0 => "RESUME ALL".to_string(),
        5 if paused && random.number(2) == 0 => {
            let what = ["sums", "joined", "one", "two"][random.index(4)];
            format!("RESUME {what}")
        }
        5 => {
            let what = ["sums", "joined", "one", "two", "ALL"][random.index(5)];
            format!("PAUSE {what}")
        }
        _ => format!("INSERT INTO t SELECT {id} + i, {k} AS k, {v} AS v FROM generate_series(0, 2) AS g(i)"),
    }
}

async fn followed() -> Result<()> {
    followed_in(Engine::builder()).await?;
    // Every query that may is stepped apart from the loop, sinks into tables too.
    for epochs in 1..=3 {
        let apart = followed_in(Engine::builder().step_apart(epochs)).await;
        apart.map_err(|error| format!("stepped every {epochs} epochs: {error}"))?;
    }
    Ok(())
}

async fn followed_in(engine: EngineBuilder) -> Result<()> {
    let engine = engine.start().map_err(|error| error.to_string())?;
    let (mut session, mut other) = (engine.session(), engine.session());
    run_all(&mut session, SETUP).await?;
    let mut readers = Vec::new();
    for relation in FOLLOWED {
        readers.push((relation, follow(&mut other, relation).await?));
    }
    let mut random = Random(0x5EED);
    let mut paused = false;
    for round in 0..ROUNDS {
        let sql = statement(&mut random, paused);
        paused = sql.starts_with("PAUSE") || (paused && sql != "RESUME ALL");
        run(&mut session, &sql).await?;
        if paused || !round.is_multiple_of(3) {
            continue;
        }
        for (table, query) in PAIRS {
            let (held, expected) = (lines(&mut session, table).await?, lines(&mut session, query).await?);
            ensure(held == expected, || {
                format!("after {sql} (round {round}):\n{table} gives {held:?}\n{query} gives {expected:?}")
            })?;
        }
    }
    run(&mut session, "RESUME ALL").await?;
    run(&mut session, "INSERT INTO t VALUES (1000, 1000, 1000)").await?;
    run(&mut session, "FLUSH").await?;
    let last = lines(&mut session, "SELECT max(epoch) FROM millstream.epochs").await?.concat();
    let last: i64 = last.parse().map_err(|_| format!("{last} is no epoch"))?;
    run(&mut session, "INSERT INTO ticks VALUES (1)").await?;
    for (relation, rows) in &mut readers {
        let held = gathered(rows, last).await?;
        let query = match relation.strip_prefix('(').and_then(|query| query.strip_suffix(')')) {
            Some(query) => query.to_string(),
            None => format!("SELECT * FROM {relation}"),
        };
        let expected = lines(&mut session, &query).await?;
        ensure(held == expected, || {
            format!("{relation}: a subscriber holds {held:?}, there is {expected:?}")
        })?;
    }
    Ok(())
}

type Rows = datafusion::physical_plan::SendableRecordBatchStream;

async fn follow(session: &mut Session, relation: &str) -> Result<Rows> {
    let sql = format!("SUBSCRIBE {relation} WITH (PROGRESS = true)");
    match session.execute(&sql).await.map_err(|error| format!("{error}\n  in: {sql}"))? {
        Response::Rows(rows) => Ok(rows),
        _ => Err("a subscription gives rows".into()),
    }
}

/// Returns the rows that a subscriber holds after the first epoch later than `epoch`, sorted.
async fn gathered(rows: &mut Rows, epoch: i64) -> Result<Vec<String>> {
    let mut held: BTreeMap<String, i64> = BTreeMap::new();
    loop {
        let batch = within_a_minute("progress", rows.next()).await?.ok_or("it ended")?;
        for line in drive::text(&batch.map_err(|error| error.to_string())?)? {
            let mut parts = line.splitn(3, '|');
            let id: i64 = parts.next().and_then(|id| id.parse().ok()).ok_or("no batch id")?;
            let (op, row) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            match op {
                "insert" | "update_insert" => *held.entry(row.into()).or_default() += 1,
                "delete" | "update_delete" => *held.entry(row.into()).or_default() -= 1,
                _ if id > epoch => {
                    let gone = held.iter().find(|(_, count)| **count < 0);
                    ensure(gone.is_none(), || format!("{gone:?} was deleted too often"))?;
                    let copies = |(row, count): (&String, &i64)| vec![row.clone(); *count as usize];
                    return Ok(held.iter().flat_map(copies).collect());
                }
                _ => {}
            }
        }
    }
}

async fn merged() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "SET batch_interval = '5 ms'",
            "SET max_queued_batches = 2",
            "SET max_batch_rows = 400",
            "CREATE SOURCE n (n BIGINT) WITH (connector = 'datagen', rows = 4000, fields.n.kind = 'sequence')",
            // Each batch is joined with all before it, which takes much longer than the interval.
            "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS c FROM n AS a JOIN n AS b ON a.n < b.n",
        ],
    )
    .await?;
    within_a_minute("all to be taken in", engine.finished()).await?.map_err(|error| error.to_string())?;
    drive::expect(&mut session, "SELECT c FROM m", &["7998000"]).await?;
    let late = "SELECT count(*) > 0 FROM millstream.epochs WHERE scheduling_delay_us > 5000";
    drive::expect(&mut session, late, &["true"]).await?;
    let merged = "SELECT sum(merged_intervals) > 0 FROM millstream.epochs";
    drive::expect(&mut session, merged, &["true"]).await
}
