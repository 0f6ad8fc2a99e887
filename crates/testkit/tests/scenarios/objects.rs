//! Objects are created and dropped while others run; engines share nothing.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, run, run_all};
use millstream_testkit::parts::Numbers;

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("adding_and_dropping_while_others_run", || drive::block_on(adding_and_dropping())),
    ("what_is_in_use_is_not_dropped", || drive::block_on(in_use())),
    ("several_engines_in_one_process", || drive::block_on(several_engines())),
    ("a_suspended_query_is_alone", || drive::block_on(suspended_alone())),
];

/// Returns a column of integers.
fn numbers(batch: &RecordBatch, column: usize) -> Result<Vec<i64>> {
    let column = cast(batch.column(column), &DataType::Int64).map_err(|error| error.to_string())?;
    Ok(column.as_primitive::<Int64Type>().values().to_vec())
}

async fn adding_and_dropping() -> Result<()> {
    let source = Numbers::default();
    let engine = Engine::builder().connector(Arc::new(source)).start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run(&mut session, "SET max_batch_rows = 1000").await?;
    run(&mut session, "CREATE SOURCE n WITH (connector = 'numbers')").await?;
    run(&mut session, "CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(n) AS s FROM n").await?;
    let mut counted = 0;
    for round in 0..if drive::all_seeds() { 10 } else { 4 } {
        let create = format!("CREATE MATERIALIZED VIEW v{round} AS SELECT count(*) AS c, sum(n) AS s FROM n");
        run(&mut session, &create).await?;
        // However late a view was created, it has read the same rows as the others, from the same start.
        for _ in 0..5 {
            let both = drive::rows(
                &mut session,
                &format!("SELECT t.c, t.s, v.c AS vc, v.s AS vs FROM total AS t CROSS JOIN v{round} AS v"),
            )
            .await?;
            ensure(both.num_rows() == 1, || format!("one row was expected: {both:?}"))?;
            let (c, vc) = (numbers(&both, 0)?[0], numbers(&both, 2)?[0]);
            ensure(c == vc, || format!("one snapshot, but total counts {c} and v{round} {vc}"))?;
            ensure(c >= counted, || format!("total fell from {counted} to {c}"))?;
            if c > 0 {
                let (s, vs) = (numbers(&both, 1)?[0], numbers(&both, 3)?[0]);
                ensure(s == c * (c - 1) / 2 && vs == s, || {
                    format!("sums {s} and {vs} of the first {c} numbers")
                })?;
            }
            counted = c;
        }
        if round % 2 == 0 {
            run(&mut session, &format!("DROP MATERIALIZED VIEW v{round}")).await?;
        }
    }
    engine.stop().await.map_err(|error| error.to_string())
}

async fn in_use() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (x INT)",
            "CREATE VIEW v AS SELECT x + 1 AS y FROM t",
            "CREATE MATERIALIZED VIEW m AS SELECT sum(y) AS s FROM v",
            "CREATE MATERIALIZED VIEW other AS SELECT count(*) AS c FROM t",
            "INSERT INTO t VALUES (1), (2)",
        ],
    )
    .await?;
    let refused = run(&mut session, "DROP VIEW v").await.err().unwrap_or_default();
    ensure(refused.contains('m'), || format!("the dependant m isn't named: {refused:?}"))?;
    run(&mut session, "DROP VIEW v CASCADE").await?;
    ensure(run(&mut session, "SELECT * FROM m").await.is_err(), || "m is still there".into())?;
    run(&mut session, "INSERT INTO t VALUES (3)").await?;
    expect(&mut session, "SELECT c FROM other", &["3"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn several_engines() -> Result<()> {
    let mut engines = Vec::new();
    for number in 0..3 {
        let engine = Engine::start().map_err(|error| error.to_string())?;
        let mut session = engine.session();
        run(&mut session, "CREATE TABLE t (x INT)").await?;
        run(&mut session, "CREATE MATERIALIZED VIEW m AS SELECT sum(x) AS s FROM t").await?;
        run(&mut session, &format!("INSERT INTO t VALUES ({number}), (10)")).await?;
        engines.push((engine, session));
    }
    let (first, _) = engines.remove(0);
    first.stop().await.map_err(|error| error.to_string())?;
    for (number, (engine, session)) in engines.iter_mut().enumerate() {
        run(session, "INSERT INTO t VALUES (100)").await?;
        expect(session, "SELECT s FROM m", &[&format!("{}", number + 1 + 110)]).await?;
        engine.stop().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn suspended_alone() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session: Session = engine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (x INT)",
            "SET whole_rows_max = 2",
            "CREATE MATERIALIZED VIEW fragile AS SELECT approx_distinct(x) AS s FROM t",
            "CREATE MATERIALIZED VIEW sturdy AS SELECT count(*) AS c FROM t",
            "INSERT INTO t VALUES (1), (2)",
        ],
    )
    .await?;
    expect(&mut session, "SELECT s FROM fragile", &["2"]).await?;
    run(&mut session, "INSERT INTO t VALUES (0)").await?;
    let refused = run(&mut session, "SELECT s FROM fragile").await.err().unwrap_or_default();
    ensure(refused.contains("whole_rows_max"), || format!("the reason isn't said: {refused:?}"))?;
    let shown = drive::lines(&mut session, "SHOW MATERIALIZED VIEWS").await?;
    let of = |name: &str| shown.iter().find(|line| line.starts_with(name)).cloned().unwrap_or_default();
    ensure(of("fragile").contains("whole_rows_max"), || format!("SHOW doesn't say why: {shown:?}"))?;
    ensure(of("fragile").contains("suspended"), || format!("SHOW doesn't say suspended: {shown:?}"))?;
    ensure(!of("sturdy").contains("suspended"), || format!("sturdy is suspended too: {shown:?}"))?;
    run(&mut session, "INSERT INTO t VALUES (3)").await?;
    expect(&mut session, "SELECT c FROM sturdy", &["4"]).await?;
    // Recreated under a higher limit, it works again.
    run(&mut session, "SET whole_rows_max = 100").await?;
    run(&mut session, "DROP MATERIALIZED VIEW fragile").await?;
    run(&mut session, "CREATE MATERIALIZED VIEW fragile AS SELECT approx_distinct(x) AS s FROM t").await?;
    expect(&mut session, "SELECT s FROM fragile", &["4"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}
