//! An engine as a part of somebody's program.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Accumulator, ColumnarValue, Volatility, create_udaf, create_udf};
use datafusion::prelude::SessionContext;
use millstream_engine::Engine;
use millstream_testkit::drive::{self, Result, expect, run, run_all};

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("an_engine_on_a_users_context", || drive::block_on(users_context())),
    ("a_session_reads_its_own_writes", || drive::block_on(own_writes())),
    ("sessions_write_at_the_same_time", || drive::block_on(concurrent_writes())),
    ("arrow_rows_in_and_out", || drive::block_on(arrow_rows())),
];

/// The sum of squares, without a way to take a row back.
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
    // Each row that is given goes once, not all of its copies.
    session.delete_rows("t", rows.slice(0, 1)).await.map_err(|error| error.to_string())?;
    expect(&mut session, "SELECT sum(1) FROM t", &["5"]).await?;
    // What isn't there can't go, and then nothing does.
    let three = drive::rows(&mut session, "SELECT * FROM t WHERE x = 2 UNION ALL SELECT 7, 'z'").await?;
    let refused = session.delete_rows("t", three).await;
    drive::ensure(refused.is_err(), || "a row that isn't there was deleted".into())?;
    expect(&mut session, "SELECT sum(1) FROM t", &["5"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}
