//! An engine embedded in a program.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Accumulator, ColumnarValue, Volatility, create_udaf, create_udf};
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use millstream_engine::{Change, Changes, Engine, Following, Op};
use millstream_testkit::drive::{self, Result, ensure, expect, expect_soon, run, run_all, within_a_minute};

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("an_engine_on_a_users_context", || drive::block_on(users_context())),
    ("a_session_reads_its_own_writes", || drive::block_on(own_writes())),
    ("sessions_write_at_the_same_time", || drive::block_on(concurrent_writes())),
    ("arrow_rows_in_and_out", || drive::block_on(arrow_rows())),
    ("changes_are_followed_as_values", || drive::block_on(typed_changes())),
    ("a_query_per_batch_is_followed_by_hand", || drive::block_on(batches_by_hand())),
];

/// The sum of squares, without support for retraction.
#[derive(Debug, Default)]
struct Squares {
    sum: i64,
}

impl Accumulator for Squares {
    fn update_batch(&mut self, values: &[ArrayRef]) -> datafusion::error::Result<()> {
        self.sum += values[0].as_primitive::<Int64Type>().iter().flatten().map(|x| x * x).sum::<i64>();
        Ok(())
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> datafusion::error::Result<()> {
        self.sum += states[0].as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
        Ok(())
    }
    fn state(&mut self) -> datafusion::error::Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::from(self.sum)])
    }
    fn evaluate(&mut self) -> datafusion::error::Result<ScalarValue> {
        Ok(ScalarValue::from(self.sum))
    }
    fn size(&self) -> usize {
        size_of::<Squares>()
    }
}

fn twice(arguments: &[ColumnarValue]) -> datafusion::error::Result<ColumnarValue> {
    let numbers = ColumnarValue::values_to_arrays(arguments)?;
    let doubled: Int64Array = numbers[0].as_primitive::<Int64Type>().unary(|x| 2 * x);
    Ok(ColumnarValue::Array(Arc::new(doubled)))
}

async fn users_context() -> Result<()> {
    let context = SessionContext::new();
    let number = || DataType::Int64;
    context.register_udf(create_udf(
        "twice",
        vec![number()],
        number(),
        Volatility::Immutable,
        Arc::new(twice),
    ));
    context.register_udaf(create_udaf(
        "squares",
        vec![number()],
        Arc::new(number()),
        Volatility::Immutable,
        Arc::new(|_| Ok(Box::new(Squares::default()))),
        Arc::new(vec![number()]),
    ));
    let engine = Engine::builder().session_context(context).start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (k TEXT, x BIGINT)",
            "CREATE MATERIALIZED VIEW m AS SELECT k, squares(twice(x)) AS s FROM t GROUP BY k",
            "INSERT INTO t VALUES ('a', 1), ('a', 2), ('b', 3)",
        ],
    )
    .await?;
    expect(&mut session, "SELECT * FROM m", &["a|20", "b|36"]).await?;
    expect(&mut session, "SELECT k, squares(twice(x)) FROM t GROUP BY k", &["a|20", "b|36"]).await?;
    run(&mut session, "DELETE FROM t WHERE x = 2").await?;
    run(&mut session, "INSERT INTO t VALUES ('b', 1)").await?;
    expect(&mut session, "SELECT * FROM m", &["a|4", "b|40"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn own_writes() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run(&mut session, "CREATE TABLE t (x INT)").await?;
    run(&mut session, "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS c, sum(x) AS s FROM t").await?;
    let mut sum = 0;
    for x in 1..=50 {
        run(&mut session, &format!("INSERT INTO t VALUES ({x})")).await?;
        sum += x;
        expect(&mut session, "SELECT count(*), sum(x) FROM t", &[&format!("{x}|{sum}")]).await?;
        expect(&mut session, "SELECT c, s FROM m", &[&format!("{x}|{sum}")]).await?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

async fn concurrent_writes() -> Result<()> {
    const WRITERS: usize = 4;
    const ROWS: usize = 25;
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run(&mut session, "CREATE TABLE t (writer INT, x INT)").await?;
    run(&mut session, "CREATE MATERIALIZED VIEW m AS SELECT writer, count(*) AS c FROM t GROUP BY writer")
        .await?;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let mut session = engine.session();
            tokio::spawn(async move {
                for x in 1..=ROWS {
                    run(&mut session, &format!("INSERT INTO t VALUES ({writer}, {x})")).await?;
                    let own = format!("SELECT c FROM m WHERE writer = {writer}");
                    expect(&mut session, &own, &[&x.to_string()]).await?;
                }
                Ok::<(), String>(())
            })
        })
        .collect();
    for writer in writers {
        writer.await.map_err(|error| error.to_string())??;
    }
    expect(&mut session, "SELECT sum(c) FROM m", &[&(WRITERS * ROWS).to_string()]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn arrow_rows() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run(&mut session, "CREATE TABLE t (x BIGINT, y TEXT)").await?;
    run(&mut session, "INSERT INTO t VALUES (1, 'a'), (1, 'a'), (2, NULL)").await?;
    let rows = drive::rows(&mut session, "SELECT * FROM t").await?;
    session.insert("t", rows.slice(0, 3)).await.map_err(|error| error.to_string())?;
    expect(&mut session, "SELECT x, y, count(*) FROM t GROUP BY x, y", &["1|a|4", "2|NULL|2"]).await?;
    // Each given row is deleted once, not in all its copies.
    session.delete_rows("t", rows.slice(0, 1)).await.map_err(|error| error.to_string())?;
    expect(&mut session, "SELECT sum(1) FROM t", &["5"]).await?;
    // Absent rows can't be deleted, and then nothing is.
    let three = drive::rows(&mut session, "SELECT * FROM t WHERE x = 2 UNION ALL SELECT 7, 'z'").await?;
    let refused = session.delete_rows("t", three).await;
    drive::ensure(refused.is_err(), || "a row that isn't there was deleted".into())?;
    expect(&mut session, "SELECT sum(1) FROM t", &["5"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn next(changes: &mut Changes) -> Result<Change> {
    let next = within_a_minute("the next change", changes.next()).await?;
    next.ok_or("the changes end")?.map_err(|error| error.to_string())
}

/// Returns the operations of a change, one line per row.
fn told(change: &Change) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (rows, ops) in change.ops().map_err(|error| error.to_string())? {
        let rows = drive::text(&rows)?;
        ensure(rows.len() == ops.len(), || "there is one op a row".into())?;
        lines.extend(ops.iter().zip(rows).map(|(op, row)| format!("{} {row}", op.name())));
    }
    Ok(lines)
}

async fn typed_changes() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let setup = [
        "CREATE TABLE t (k TEXT PRIMARY KEY, x BIGINT)",
        "CREATE MATERIALIZED VIEW big AS SELECT x FROM t WHERE x > 1",
        "INSERT INTO t VALUES ('a', 1), ('b', 2)",
    ];
    run_all(&mut session, &setup).await?;
    let fail = |error: millstream_engine::Error| error.to_string();
    let mut table = session.changes("t").await.map_err(fail)?;
    let mut view =
        session.changes_with("big", Following { snapshot: false, progress: false }).await.map_err(fail)?;
    let told_too = Following { snapshot: true, progress: true };
    let mut query =
        session.changes_with("SELECT count(*) FROM t EMIT CHANGES", told_too).await.map_err(fail)?;
    let first = next(&mut table).await?;
    ensure(first.is_snapshot && first.delta.num_rows() == 2, || format!("the snapshot is {first:?}"))?;
    ensure(table.key() == Some(&[0]) && !table.is_append_only(), || format!("{table:?}"))?;
    ensure(next(&mut query).await?.is_snapshot, || "a query has a snapshot".into())?;

    run(&mut session, "UPDATE t SET x = x + 1 WHERE k = 'a'").await?;
    let change = next(&mut table).await?;
    let expected = ["update_delete a|1", "update_insert a|2"];
    ensure(told(&change)? == expected && !change.is_snapshot, || format!("{change:?}"))?;
    let came = next(&mut view).await?;
    ensure(told(&came)? == ["insert 2"] && came.epoch == change.epoch, || format!("{came:?}"))?;
    // The count is unchanged: the epoch is reported all the same.
    let quiet = next(&mut query).await?;
    ensure(quiet.delta.is_empty() && quiet.time.is_none() && quiet.epoch >= change.epoch, || {
        format!("{quiet:?}")
    })?;
    run(&mut session, "DELETE FROM t WHERE x = 2").await?;
    let gone = next(&mut view).await?;
    ensure(told(&gone)? == ["delete 2", "delete 2"], || format!("{gone:?}"))?;
    let deleted = gone.deleted().map_err(fail)?;
    ensure(deleted.iter().map(|rows| rows.num_rows()).sum::<usize>() == 2, || format!("{deleted:?}"))?;
    ensure(gone.inserted().map_err(fail)?.is_empty(), || "nothing came".into())?;
    let ops = next(&mut table).await?.ops().map_err(fail)?;
    ensure(ops.iter().all(|(_, ops)| ops.iter().all(|op| *op == Op::Delete)), || format!("{ops:?}"))?;
    for wrong in ["nope", "SELECT * FROM t EMIT CHANGES LIMIT 3", "t u"] {
        ensure(session.changes(wrong).await.is_err(), || format!("{wrong} can be followed"))?;
    }
    let endless = session.collect("SELECT * FROM t EMIT CHANGES").await;
    ensure(endless.is_err(), || "rows without end are collected".into())?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// The reader of a query FOR EACH BATCH gets the rows of each batch; the query ends with its reader.
async fn batches_by_hand() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let setup = [
        "SET clock = 'manual'",
        "SET batch_interval = '1 second'",
        "CREATE SOURCE s (k TEXT, n BIGINT) WITH (connector = 'queue')",
        "CREATE FUNCTION total(v BIGINT[], s BIGINT) RETURNS BIGINT RETURN coalesce(s, 0) + array_sum(v)::BIGINT",
    ];
    run_all(&mut session, &setup).await?;
    let sql =
        "SELECT k, state FROM UPDATE_STATE(TABLE s PARTITION BY k, value => n, fn => 'total') FOR EACH BATCH";
    let mut changes = session.changes(sql).await.map_err(|error| error.to_string())?;
    ensure(changes.is_append_only(), || "rows of batches only come".into())?;
    for (rows, expected) in [
        ("('a', 1), ('b', 2)", ["insert a|1", "insert b|2"]),
        ("('a', 5), ('c', 3)", ["insert a|6", "insert c|3"]),
    ] {
        run(&mut session, &format!("INSERT INTO s VALUES {rows}")).await?;
        run(&mut session, "ADVANCE BATCH").await?;
        let change = next(&mut changes).await?;
        let mut lines = told(&change)?;
        lines.sort();
        ensure(lines == expected, || format!("{change:?}"))?;
    }
    let used = "SELECT status FROM millstream.sources";
    expect(&mut session, used, &["running"]).await?;
    drop(changes);
    expect_soon(&mut session, used, &["unused"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}
