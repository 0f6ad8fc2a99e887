//! Readers of changes while others write.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::StreamExt;
use millstream_engine::{Engine, Response, Session};
use millstream_testkit::drive::{self, Result, ensure, expect_soon, run, run_all, within_a_minute};
use millstream_testkit::parts::Numbers;

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("changes_follow_the_snapshot", || drive::block_on(after_snapshot())),
    ("progress_is_told_epoch_by_epoch", || drive::block_on(progress())),
    ("a_late_reader_hears_one_sum_of_the_past", || drive::block_on(late())),
    ("a_slow_reader_is_told_and_holds_nobody_up", || drive::block_on(slow())),
    ("a_reader_that_goes_leaves_nothing_behind", || drive::block_on(gone())),
    ("a_reader_hears_how_it_ends", || drive::block_on(ends())),
    ("epochs_are_followed_as_they_run", || drive::block_on(epochs())),
    ("a_paused_view_hands_on_what_it_missed", || drive::block_on(resumed())),
];

/// A reader of a subscription.
pub struct Reader {
    rows: SendableRecordBatchStream,
    waiting: Vec<String>,
}

impl Reader {
    /// Begins to read a statement's rows.
    pub async fn new(session: &mut Session, sql: &str) -> Result<Reader> {
        match session.execute(sql).await.map_err(|error| format!("{error}\n  in: {sql}"))? {
            Response::Rows(rows) => Ok(Reader { rows, waiting: Vec::new() }),
            other => Err(format!("{sql} gave {other:?}")),
        }
    }

    /// Returns the next batch; `None` at the end.
    async fn batch(&mut self) -> Result<Option<RecordBatch>> {
        let next = within_a_minute("the next change", self.rows.next()).await?;
        next.transpose().map_err(|error| error.to_string())
    }

    /// Fails unless the next rows equal `expected`.
    pub async fn expect(&mut self, expected: &[&str]) -> Result<()> {
        while self.waiting.len() < expected.len() {
            match self.batch().await? {
                Some(batch) => self.waiting.extend(drive::text(&batch)?),
                None => break,
            }
        }
        let found: Vec<String> = self.waiting.drain(..expected.len().min(self.waiting.len())).collect();
        ensure(found == expected, || format!("the next rows are {found:?}, expected {expected:?}"))
    }

    /// Fails unless the rows end with an error that contains `part`.
    async fn expect_error(&mut self, part: &str) -> Result<()> {
        loop {
            match self.batch().await {
                Ok(Some(_)) => {}
                Ok(None) => return Err(format!("it ended well, expected an error with {part:?}")),
                Err(error) => {
                    return ensure(error.contains(part), || format!("{error}\n  expected {part:?} in it"));
                }
            }
        }
    }
}

async fn after_snapshot() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let (mut session, mut other) = (engine.session(), engine.session());
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (id INT PRIMARY KEY, k TEXT)",
            "CREATE TABLE bag (a INT)",
            "CREATE MATERIALIZED VIEW m AS SELECT k, count(*) AS c FROM t GROUP BY k",
            "INSERT INTO t VALUES (1, 'a')",
        ],
    )
    .await?;
    let mut table = Reader::new(&mut other, "SELECT * FROM t EMIT CHANGES").await?;
    let mut view = Reader::new(&mut other, "SUBSCRIBE m").await?;
    let mut bag = Reader::new(&mut other, "SUBSCRIBE TO bag").await?;
    let mut since = Reader::new(&mut other, "SUBSCRIBE (SELECT c FROM m) WITH (SNAPSHOT = false)").await?;
    table.expect(&["insert|1|a"]).await?;
    view.expect(&["1|insert|a|1"]).await?;
    run(&mut session, "INSERT INTO t VALUES (2, 'a'), (3, 'b')").await?;
    table.expect(&["insert|2|a", "insert|3|b"]).await?;
    view.expect(&["2|update_delete|a|1", "2|update_insert|a|2", "2|insert|b|1"]).await?;
    since.expect(&["2|insert|2"]).await?;
    run(&mut session, "UPDATE t SET k = 'b' WHERE id = 2").await?;
    table.expect(&["update_delete|2|a", "update_insert|2|b"]).await?;
    run(&mut session, "DELETE FROM t").await?;
    run_all(&mut session, &["INSERT INTO bag VALUES (7), (7)", "DELETE FROM bag WHERE a = 7"]).await?;
    bag.expect(&["5|insert|7", "5|insert|7", "6|delete|7", "6|delete|7"]).await?;
    table.expect(&["delete|1|a", "delete|3|b", "delete|2|b"]).await?;
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(|error| error.to_string())?;
    view.expect_error("the engine has stopped").await
}

async fn progress() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(&mut session, &["CREATE TABLE t (a INT)", "CREATE TABLE u (a INT)", "INSERT INTO t VALUES (1)"])
        .await?;
    let mut told = Reader::new(&mut session, "SUBSCRIBE t WITH (PROGRESS = true)").await?;
    told.expect(&["1|insert|1", "1|progress|NULL"]).await?;
    run_all(&mut session, &["INSERT INTO u VALUES (1)", "INSERT INTO t VALUES (2)"]).await?;
    told.expect(&["2|progress|NULL", "3|insert|2", "3|progress|NULL"]).await
}

async fn late() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "SET max_batch_rows = 10",
            "CREATE SOURCE n (n BIGINT) WITH (connector = 'datagen', rows = 1000, fields.n.kind = 'sequence')",
            "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS c FROM n",
        ],
    )
    .await?;
    expect_soon(&mut session, "SELECT c FROM m", &["1000"]).await?;
    let mut sum = Reader::new(&mut session, "SELECT sum(n) AS s FROM n EMIT CHANGES").await?;
    sum.expect(&["insert|499500"]).await?;
    ensure(sum.batch().await?.is_none(), || "a source that has ended can't change its sum".into())?;
    let mut rows = Reader::new(&mut session, "SELECT n FROM n EMIT CHANGES").await?;
    let mut count = 0;
    while let Some(batch) = rows.batch().await? {
        count += batch.num_rows();
    }
    ensure(count == 1000, || format!("{count} rows were read again, expected 1000"))?;
    let mut none = Reader::new(&mut session, "SUBSCRIBE n WITH (SNAPSHOT = false)").await?;
    ensure(none.batch().await?.is_none(), || "nothing was to be told".into())
}

async fn slow() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let (mut session, mut other) = (engine.session(), engine.session());
    run_all(&mut session, &["SET subscription_buffer_max = '1 MiB'", "CREATE TABLE t (a TEXT)"]).await?;
    let mut slow = Reader::new(&mut other, "SELECT a FROM t EMIT CHANGES").await?;
    for _ in 0..40 {
        run(&mut session, "INSERT INTO t SELECT repeat('x', 100000) FROM generate_series(1, 2)").await?;
    }
    expect_soon(&mut session, "SELECT count(*) FROM t", &["80"]).await?;
    slow.expect_error("the reader fell behind").await
}

async fn gone() -> Result<()> {
    let numbers = Numbers::default();
    let engine =
        Engine::builder().connector(Arc::new(numbers.clone())).start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(&mut session, &["SET max_batch_rows = 100", "CREATE SOURCE n WITH (connector = 'numbers')"])
        .await?;
    let operators = "SELECT count(*) FROM millstream.operators";
    let mut reader = Reader::new(&mut session, "SELECT n FROM n WHERE n < 3 EMIT CHANGES LIMIT 3").await?;
    reader.expect(&["0", "1", "2"]).await?;
    ensure(reader.batch().await?.is_none(), || "the limit ends it".into())?;
    drop(reader);
    expect_soon(&mut session, operators, &["0"]).await?;
    let reader = Reader::new(&mut session, "SUBSCRIBE n").await?;
    drop(reader);
    expect_soon(&mut session, operators, &["0"]).await?;
    expect_soon(&mut session, "SELECT status FROM millstream.sources", &["unused"]).await
}

async fn ends() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(&mut session, &["CREATE TABLE t (a INT)", "CREATE TABLE u (a INT)", "INSERT INTO t VALUES (1)"])
        .await?;
    let mut fails = Reader::new(&mut session, "SELECT 10 / a AS q FROM t EMIT CHANGES").await?;
    fails.expect(&["insert|10"]).await?;
    run(&mut session, "INSERT INTO t VALUES (0)").await?;
    fails.expect_error("division by zero for (0)").await?;
    run(&mut session, "CREATE MATERIALIZED VIEW m AS SELECT 10 / a AS q FROM t").await?;
    let refused = Reader::new(&mut session, "SUBSCRIBE m").await.err().unwrap_or_default();
    ensure(refused.contains("\"m\" has errors"), || format!("it was to be refused: {refused}"))?;
    let mut all = Reader::new(&mut session, "SUBSCRIBE u").await?;
    let mut own = Reader::new(&mut session, "SELECT a + 1 AS b FROM u EMIT CHANGES").await?;
    run(&mut session, "DROP TABLE u").await?;
    all.expect_error("\"u\" was dropped").await?;
    own.expect_error("\"u\" was dropped").await
}

async fn epochs() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let (mut session, mut other) = (engine.session(), engine.session());
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (a INT)",
            "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS c FROM t",
            "INSERT INTO t VALUES (1)",
        ],
    )
    .await?;
    let mut reader = Reader::new(&mut other, "SUBSCRIBE millstream.epochs").await?;
    let first = |batch: RecordBatch| drive::text(&batch).map(|lines| lines.join("\n"));
    let told = first(reader.batch().await?.ok_or("there was an epoch")?)?;
    ensure(told.starts_with("1|insert|1|") && told.contains("|1|2|"), || format!("{told} is not epoch 1"))?;
    run(&mut session, "INSERT INTO t VALUES (2), (3)").await?;
    let told = first(reader.batch().await?.ok_or("there was another epoch")?)?;
    ensure(told.starts_with("2|insert|2|") && told.contains("|2|2|"), || format!("{told} is not epoch 2"))
}

async fn resumed() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let (mut session, mut other) = (engine.session(), engine.session());
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "CREATE MATERIALIZED VIEW m AS SELECT id, a + 1 AS b FROM t",
            "INSERT INTO t VALUES (1, 10)",
        ],
    )
    .await?;
    let mut reader = Reader::new(&mut other, "SELECT * FROM m EMIT CHANGES").await?;
    reader.expect(&["insert|1|11"]).await?;
    run_all(&mut session, &["PAUSE m", "INSERT INTO t VALUES (2, 20)", "DELETE FROM t WHERE id = 1"]).await?;
    run_all(&mut session, &["FLUSH", "RESUME m"]).await?;
    reader.expect(&["insert|2|21", "delete|1|11"]).await
}
