//! Input that is meant badly, or might as well be: each ends in an answer or in an error that says what to do, and
//! concerns nobody else.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, UnionArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema, UnionFields};
use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all};

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("a_sum_that_overflows_comes_back", || drive::block_on(overflow())),
    ("keys_of_odd_types_are_kept_or_refused", || drive::block_on(odd_keys())),
    ("a_key_with_many_rows_on_both_sides_ends_in_a_limit", || drive::block_on(many_pairs())),
];

fn started() -> Result<(Engine, Session)> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let session = engine.session();
    Ok((engine, session))
}

async fn error(session: &mut Session, sql: &str) -> Result<String> {
    match run(session, sql).await {
        Err(error) => Ok(error),
        Ok(_) => Err(format!("{sql} is done, but an error was expected")),
    }
}

/// A sum beyond its type is what a batch makes of it, and right again when rows have gone.
async fn overflow() -> Result<()> {
    let (_engine, mut session) = started()?;
    let nines = "9".repeat(76);
    let many = vec![format!("('a', {nines})"); 7].join(", ");
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (g TEXT, d NUMERIC(76, 0))",
            "CREATE MATERIALIZED VIEW v AS SELECT g, sum(d) AS s, count(*) AS n FROM t GROUP BY g",
            "INSERT INTO t VALUES ('a', 5), ('b', 1)",
        ],
    )
    .await?;
    let same = "SELECT count(*) FROM v JOIN (SELECT g, sum(d) AS s FROM t GROUP BY g) AS q ON v.g = q.g AND v.s = q.s";
    run(&mut session, &format!("INSERT INTO t VALUES {many}")).await?;
    expect(&mut session, same, &["2"]).await?;
    run(&mut session, "DELETE FROM t WHERE d > 5").await?;
    expect(&mut session, same, &["2"]).await?;
    expect(&mut session, "SELECT * FROM v", &["a|5|1", "b|1|1"]).await
}

/// Columns of three rows, of types that SQL has no name for.
fn odd_columns() -> Result<Vec<(&'static str, ArrayRef)>> {
    let members: UnionFields = [
        (0_i8, Arc::new(Field::new("i", DataType::Int32, true))),
        (1, Arc::new(Field::new("s", DataType::Utf8, true))),
    ]
    .into_iter()
    .collect();
    let ids = ScalarBuffer::from(vec![0_i8, 1, 0]);
    let children: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![Some(1), None, Some(1)])),
        Arc::new(StringArray::from(vec![None, Some("one"), None])),
    ];
    let union = UnionArray::try_new(members, ids, None, children).map_err(|error| error.to_string())?;
    let ends = Int32Array::from(vec![2, 3]);
    let runs = arrow::array::RunArray::<Int32Type>::try_new(&ends, &StringArray::from(vec!["a", "b"]));
    let runs = runs.map_err(|error| error.to_string())?;
    let structs = arrow::array::StructArray::try_new(
        Fields::from(vec![Field::new("x", DataType::Int32, true)]),
        vec![Arc::new(Int32Array::from(vec![1, 1, 2])) as ArrayRef],
        None,
    );
    Ok(vec![
        ("u", Arc::new(union)),
        ("r", Arc::new(runs)),
        ("st", Arc::new(structs.map_err(|error| error.to_string())?)),
    ])
}

/// They are keys of groups and of joins, or refused with the reason.
async fn odd_keys() -> Result<()> {
    let (_engine, mut session) = started()?;
    for (name, column) in odd_columns()? {
        let schema = Arc::new(Schema::new(vec![Field::new(name, column.data_type().clone(), true)]));
        let table = format!("t_{name}");
        if let Err(error) = session.create_table(&table, schema.clone(), &[]).await {
            let said = error.to_string();
            ensure(said.contains(name), || format!("{name}: {said}"))?;
            continue;
        }
        let rows = RecordBatch::try_new(schema, vec![column]).map_err(|error| error.to_string())?;
        if let Err(error) = session.insert(&table, rows).await {
            let said = error.to_string();
            ensure(!said.contains("bug"), || format!("{name}: {said}"))?;
            continue;
        }
        for (view, query) in [
            ("grouped", format!("SELECT {name}, count(*) AS n FROM {table} GROUP BY {name}")),
            (
                "joined",
                format!("SELECT count(*) AS n FROM {table} AS a JOIN {table} AS b ON a.{name} = b.{name}"),
            ),
        ] {
            let batch = lines(&mut session, &format!("SELECT sum(n) FROM ({query}) AS q")).await;
            let view = format!("{view}_{name}");
            let made = run(&mut session, &format!("CREATE MATERIALIZED VIEW {view} AS {query}")).await;
            let read = lines(&mut session, &format!("SELECT sum(n) FROM {view}")).await;
            match (batch, made, read) {
                (Ok(batch), Ok(_), Ok(read)) => {
                    ensure(batch == read, || format!("{view}: {read:?}, not {batch:?}"))?
                }
                (Ok(_), made, read) => {
                    return Err(format!("{view} fails where the batch answers: {made:?} {read:?}"));
                }
                (Err(_), made, read) => {
                    let said = format!("{made:?} {read:?}");
                    ensure(said.contains("Err"), || format!("{view} answers where the batch fails"))?;
                    ensure(!said.contains("bug") && !said.contains("panicked"), || {
                        format!("{view}: {said}")
                    })?;
                }
            }
        }
    }
    Ok(())
}

/// 10^10 pairs are never made: the query that asks for them is suspended, and it alone.
async fn many_pairs() -> Result<()> {
    let (_engine, mut session) = started()?;
    run_all(
        &mut session,
        &[
            "SET output_rows_max = 200000",
            "CREATE TABLE a (k INT, v INT)",
            "CREATE TABLE b (k INT, w INT)",
            "CREATE MATERIALIZED VIEW pairs AS SELECT v, w FROM a JOIN b ON a.k = b.k",
            "CREATE MATERIALIZED VIEW few AS SELECT count(*) AS n FROM a WHERE EXISTS (SELECT FROM b WHERE b.k = a.k)",
            "INSERT INTO a SELECT 1, i FROM generate_series(1, 100000) AS g(i)",
        ],
    )
    .await?;
    run(&mut session, "INSERT INTO b SELECT 1, i FROM generate_series(1, 100000) AS g(i)").await?;
    let said = error(&mut session, "SELECT * FROM pairs").await?;
    let parts = ["\"pairs\" is suspended", "operator Join", "200000", "output_rows_max"];
    ensure(parts.iter().all(|part| said.contains(part)), || said.clone())?;
    expect(&mut session, "SELECT n FROM few", &["100000"]).await?;
    run(&mut session, "DELETE FROM b WHERE w > 1").await?;
    expect(&mut session, "SELECT n FROM few", &["100000"]).await
}
