//! Malicious or extreme input: each case ends in an answer, or in an error that says what to do, and affects
//! nothing else.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, StringViewArray, UnionArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema, UnionFields};
use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all};

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("a_sum_that_overflows_comes_back", || drive::block_on(overflow())),
    ("keys_of_odd_types_are_kept_or_refused", || drive::block_on(odd_keys())),
    ("a_key_with_a_million_rows_on_both_sides_ends_in_a_limit", || drive::block_on(many_pairs())),
    ("a_text_of_100_mb_is_a_key_and_a_value_like_others", || drive::block_on(long_texts())),
    ("a_delete_of_what_never_came_changes_nothing", || drive::block_on(never_came())),
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

/// A sum that overflows equals the batch answer, and is right again after rows have been deleted.
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
    expect(&mut session, "SELECT * FROM v", &["a|5|1", "b|1|1"]).await?;
    // Integer overflow is an error of its group or its row, in a batch, too.
    run_all(
        &mut session,
        &[
            "CREATE TABLE i (g TEXT, n BIGINT)",
            "CREATE MATERIALIZED VIEW w AS SELECT g, sum(n) AS s FROM i GROUP BY g",
            "CREATE MATERIALIZED VIEW running AS SELECT g, n, sum(n) OVER (PARTITION BY g ORDER BY n) AS s FROM i",
            "INSERT INTO i VALUES ('a', 7), ('a', 9223372036854775807), ('a', 9223372036854775806), ('b', 1)",
        ],
    )
    .await?;
    for sql in [
        "SELECT * FROM w",
        "SELECT * FROM running",
        "SELECT g, sum(n) FROM i GROUP BY g",
        "SELECT g, n, sum(n) OVER (PARTITION BY g ORDER BY n) AS s FROM i",
    ] {
        let error = lines(&mut session, sql).await.err().unwrap_or_default();
        ensure(error.contains("is out of the range of BIGINT"), || format!("{sql}: {error}"))?;
    }
    run(&mut session, "DELETE FROM i WHERE n > 7").await?;
    expect(&mut session, "SELECT * FROM w", &["a|7", "b|1"]).await?;
    expect(&mut session, "SELECT * FROM running", &["a|7|7", "b|1|1"]).await
}

/// Returns columns of three rows, of types without an SQL name.
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

/// Returns queries that hash or compare a column, each with a number `n` in its rows.
fn odd_queries(name: &str, table: &str) -> [(&'static str, String); 7] {
    [
        ("grouped", format!("SELECT {name}, count(*) AS n FROM {table} GROUP BY {name}")),
        (
            "joined",
            format!("SELECT count(*) AS n FROM {table} AS a JOIN {table} AS b ON a.{name} = b.{name}"),
        ),
        ("distinct", format!("SELECT count(*) AS n FROM (SELECT DISTINCT {name} FROM {table}) AS q")),
        ("distinct_values", format!("SELECT count(DISTINCT {name}) AS n FROM {table}")),
        ("ordered", format!("SELECT 1 AS n FROM (SELECT {name} FROM {table} ORDER BY {name} LIMIT 2) AS q")),
        (
            "partitioned",
            format!("SELECT row_number() OVER (PARTITION BY {name} ORDER BY {name}) AS n FROM {table}"),
        ),
        ("extreme", format!("SELECT count(m) AS n FROM (SELECT max({name}) AS m FROM {table}) AS q")),
    ]
}

/// Such columns are keys of groups, joins and sorts, or are rejected with the reason.
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
        for (view, query) in odd_queries(name, &table) {
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

/// 10^12 pairs are never built: only the query that asks for them is suspended.
async fn many_pairs() -> Result<()> {
    let (_engine, mut session) = started()?;
    run_all(
        &mut session,
        &[
            "SET output_rows_max = 1000000",
            "CREATE TABLE a (k INT, v INT)",
            "CREATE TABLE b (k INT, w INT)",
            "CREATE MATERIALIZED VIEW pairs AS SELECT v, w FROM a JOIN b ON a.k = b.k",
            "CREATE MATERIALIZED VIEW few AS SELECT count(*) AS n FROM a WHERE EXISTS (SELECT FROM b WHERE b.k = a.k)",
        ],
    )
    .await?;
    session.insert("a", of_one_key("v")?).await.map_err(|error| error.to_string())?;
    session.insert("b", of_one_key("w")?).await.map_err(|error| error.to_string())?;
    let said = error(&mut session, "SELECT * FROM pairs").await?;
    let parts = ["\"pairs\" is suspended", "operator Join", "1000000", "output_rows_max"];
    ensure(parts.iter().all(|part| said.contains(part)), || said.clone())?;
    expect(&mut session, "SELECT n FROM few", &["1000000"]).await?;
    run(&mut session, "DELETE FROM b").await?;
    expect(&mut session, "SELECT n FROM few", &["0"]).await
}

/// Returns a million rows whose key `k` is 1, with their number as another column.
fn of_one_key(number: &str) -> Result<RecordBatch> {
    let keys: ArrayRef = Arc::new(Int32Array::from(vec![1; 1_000_000]));
    let numbers: ArrayRef = Arc::new(Int32Array::from_iter_values(1..=1_000_000));
    RecordBatch::try_from_iter([("k", keys), (number, numbers)]).map_err(|error| error.to_string())
}

/// The size of the long text in bytes, and of another one that is its prefix.
const LONG: usize = 100_000_000;
const LESS_LONG: usize = 1_000_000;

/// The rows that a query must return.
type Lines = &'static [&'static str];

/// Queries with a text as the key or the value. Each has its answers over a short text and the long ones, and
/// its answers after the longest has been deleted.
const LONG_CASES: [(&str, &str, &str, Lines, Lines); 6] = [
    (
        "joined",
        "SELECT x.v AS v, y.v AS w FROM t AS x JOIN t AS y ON x.s = y.s",
        "SELECT v, w FROM joined",
        &["1|1", "2|2", "3|3"],
        &["1|1", "2|2"],
    ),
    (
        "grouped",
        "SELECT s, sum(v) AS v FROM t GROUP BY s",
        "SELECT v, octet_length(s) FROM grouped",
        &["1|5", "2|1000000", "3|100000000"],
        &["1|5", "2|1000000"],
    ),
    (
        "extremes",
        "SELECT g, min(s) AS a, max(s) AS b FROM t GROUP BY g",
        "SELECT octet_length(a), t.v FROM extremes JOIN t ON t.s = b",
        &["5|3"],
        &["5|2"],
    ),
    (
        "top",
        "SELECT v, s FROM t ORDER BY s DESC LIMIT 1",
        "SELECT v, octet_length(s) FROM top",
        &["3|100000000"],
        &["2|1000000"],
    ),
    (
        "together",
        "SELECT g, string_agg(s, '-' ORDER BY v) AS a FROM t GROUP BY g",
        "SELECT octet_length(a) FROM together",
        &["101000007"],
        &["1000006"],
    ),
    (
        "numbered",
        "SELECT v, row_number() OVER (ORDER BY s) AS n, lag(v) OVER (ORDER BY s) AS b FROM t",
        "SELECT v, n, b FROM numbered",
        &["1|1|NULL", "2|2|1", "3|3|2"],
        &["1|1|NULL", "2|2|1"],
    ),
];

/// Long texts are inserted, compared in full length, and deleted.
async fn long_texts() -> Result<()> {
    let (_engine, mut session) = started()?;
    run(&mut session, "CREATE TABLE t (g INT, v INT, s VARCHAR)").await?;
    let texts = ["short".to_string(), "x".repeat(LESS_LONG), "x".repeat(LONG)];
    let rows = RecordBatch::try_from_iter([
        ("g", Arc::new(Int32Array::from(vec![1; 3])) as ArrayRef),
        ("v", Arc::new(Int32Array::from(vec![1, 2, 3]))),
        ("s", Arc::new(StringViewArray::from_iter_values(texts))),
    ])
    .map_err(|error| error.to_string())?;
    for (name, query, ..) in LONG_CASES {
        run(&mut session, &format!("CREATE MATERIALIZED VIEW {name} AS {query}")).await?;
    }
    session.insert("t", rows).await.map_err(|error| error.to_string())?;
    for (_, _, read, expected, _) in LONG_CASES {
        expect(&mut session, read, expected).await?;
    }
    run(&mut session, "DELETE FROM t WHERE v = 3").await?;
    for (_, _, read, _, left) in LONG_CASES {
        expect(&mut session, read, left).await?;
    }
    run(&mut session, "DELETE FROM t").await?;
    expect(&mut session, "SELECT count(*) FROM joined", &["0"]).await
}

/// Rows that are deleted more often than they were inserted, from a table and from a change feed, under
/// queries of all kinds.
async fn never_came() -> Result<()> {
    let (_engine, mut session) = started()?;
    let place = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = place.path().join("changes.json");
    let changes = [
        r#"{"_op": "delete", "id": 1}"#,
        r#"{"id": 1, "n": 5}"#,
        r#"{"id": 2, "n": 6}"#,
        r#"{"_op": "delete", "id": 2}"#,
        r#"{"_op": "delete", "id": 2}"#,
        r#"{"_op": "delete", "id": 9}"#,
    ];
    std::fs::write(&path, changes.join("\n")).map_err(|error| error.to_string())?;
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (id INT, n INT)",
            &format!(
                "CREATE SOURCE f (id INT PRIMARY KEY, n INT) WITH (connector = 'file', path = '{}', format = 'upsert_json', \
                 bounded = true)",
                path.display()
            ),
            "CREATE MATERIALIZED VIEW joined AS SELECT t.id, f.n FROM t JOIN f ON t.id = f.id",
            "CREATE MATERIALIZED VIEW summed AS SELECT id, sum(n) AS s, min(n) AS m, count(*) AS c FROM t GROUP BY id",
            "CREATE MATERIALIZED VIEW of_feed AS SELECT sum(n) AS s, max(n) AS m, count(*) AS c FROM f",
            "CREATE MATERIALIZED VIEW top AS SELECT id, n FROM t ORDER BY n DESC, id LIMIT 2",
            "INSERT INTO t VALUES (1, 10), (1, 10), (2, 20)",
        ],
    )
    .await?;
    drive::expect_soon(
        &mut session,
        "SELECT count(*) FROM bad_rows('f') WHERE reason LIKE 'there is no row to delete%'",
        &["3"],
    )
    .await?;
    let row = |id: Vec<i32>, n: Vec<i32>| {
        let columns = [("id", Int32Array::from(id)), ("n", Int32Array::from(n))];
        RecordBatch::try_from_iter(columns.map(|(name, column)| (name, Arc::new(column) as ArrayRef)))
            .map_err(|error| error.to_string())
    };
    // All or nothing: the first of these rows exists, the second only twice, the third never existed.
    for rows in [row(vec![2, 1, 1, 1], vec![20, 10, 10, 10])?, row(vec![2, 7], vec![20, 70])?] {
        match session.delete_rows("t", rows).await {
            Ok(tag) => return Err(format!("{tag:?}, but an error was expected")),
            Err(error) => {
                let said = error.to_string();
                ensure(
                    said.contains("1 distinct rows were deleted more often than they are present"),
                    || said,
                )?;
            }
        }
    }
    run(&mut session, "DELETE FROM t WHERE id = 7").await?;
    expect(&mut session, "SELECT * FROM joined", &["1|5", "1|5"]).await?;
    expect(&mut session, "SELECT * FROM summed", &["1|20|10|2", "2|20|20|1"]).await?;
    expect(&mut session, "SELECT * FROM of_feed", &["5|5|1"]).await?;
    expect(&mut session, "SELECT * FROM top", &["1|10", "2|20"]).await?;
    session.delete_rows("t", row(vec![2, 1], vec![20, 10])?).await.map_err(|error| error.to_string())?;
    expect(&mut session, "SELECT * FROM joined", &["1|5"]).await?;
    expect(&mut session, "SELECT * FROM summed", &["1|10|10|1"]).await?;
    expect(&mut session, "SELECT * FROM top", &["1|10"]).await
}
