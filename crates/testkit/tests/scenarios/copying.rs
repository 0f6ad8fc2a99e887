//! COPY without its bytes: all rows or none, inside and outside of transactions.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringViewArray};
use futures::TryStreamExt;
use millstream_engine::{
    CopyFormat, CopyIn, CopyOptions, CopyOut, Engine, Response, Session, TransactionStatus, sqlstate,
};
use millstream_testkit::drive::{self, Result, ensure, expect, run, run_all};

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("a_copy_is_taken_in_whole_or_not_at_all", || drive::block_on(whole())),
    ("a_copy_has_the_default_of_each_column_that_does_not_come", || drive::block_on(defaults())),
    ("a_copy_inside_a_transaction", || drive::block_on(within())),
    ("rows_are_copied_out", || drive::block_on(out())),
    ("the_options_of_copy", || drive::block_on(options())),
];

async fn copy_in(session: &mut Session, sql: &str) -> Result<CopyIn> {
    match session.execute(sql).await.map_err(|error| format!("{error}\n  in: {sql}"))? {
        Response::CopyIn(copy) => Ok(*copy),
        other => Err(format!("{sql} gives {other:?}")),
    }
}

async fn copy_out(session: &mut Session, sql: &str) -> Result<CopyOut> {
    match session.execute(sql).await.map_err(|error| format!("{error}\n  in: {sql}"))? {
        Response::CopyOut(copy) => Ok(*copy),
        other => Err(format!("{sql} gives {other:?}")),
    }
}

fn rows(ids: &[i32], names: &[Option<&str>]) -> Result<RecordBatch> {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("name", Arc::new(names.iter().collect::<StringViewArray>())),
        ("id", Arc::new(Int32Array::from(ids.to_vec()))),
    ];
    RecordBatch::try_from_iter(columns).map_err(|error| error.to_string())
}

async fn engine() -> Result<(Engine, Session)> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (id INT PRIMARY KEY, n INT, name TEXT)",
            "CREATE TABLE bag (id INT NOT NULL, name TEXT)",
            "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS c FROM t",
            "INSERT INTO t VALUES (1, 1, 'one')",
        ],
    )
    .await?;
    Ok((engine, session))
}

async fn whole() -> Result<()> {
    let (engine, mut session) = engine().await?;
    let mut copy = copy_in(&mut session, "COPY t (name, id) FROM STDIN").await?;
    let names: Vec<&str> = copy.columns().fields().iter().map(|field| field.name().as_str()).collect();
    ensure(names == ["name", "id"], || format!("{names:?}"))?;
    copy.push(rows(&[2, 3], &[Some("two"), None])?).map_err(|error| error.to_string())?;
    copy.push(rows(&[1, 3], &[Some("uno"), Some("three")])?).map_err(|error| error.to_string())?;
    expect(&mut engine.session(), "SELECT * FROM t", &["1|1|one"]).await?;
    let tag = copy.finish(&mut session).await.map_err(|error| error.to_string())?;
    ensure(tag.text == "COPY 4", || tag.text.clone())?;
    expect(&mut session, "SELECT * FROM t", &["1|NULL|uno", "2|NULL|two", "3|NULL|three"]).await?;
    expect(&mut session, "SELECT c FROM m", &["3"]).await?;
    expect(&mut session, "SELECT input_rows FROM millstream.epochs ORDER BY epoch DESC LIMIT 1", &["4"])
        .await?;
    // A cancelled COPY has no effect.
    let mut copy = copy_in(&mut session, "COPY t (name, id) FROM STDIN").await?;
    copy.push(rows(&[9], &[None])?).map_err(|error| error.to_string())?;
    drop(copy);
    expect(&mut session, "SELECT count(*) FROM t", &["3"]).await?;
    // A NULL in a NOT NULL column.
    let mut copy = copy_in(&mut session, "COPY bag (name, id) FROM STDIN").await?;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("name", Arc::new(StringViewArray::from(vec![Some("x")]))),
        ("id", Arc::new(Int32Array::from(vec![None]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).map_err(|error| error.to_string())?;
    let Err(error) = copy.push(batch) else { return Err("NULL was taken".into()) };
    ensure(error.sqlstate() == sqlstate::NOT_NULL_VIOLATION, || error.to_string())?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Columns that are not named, or were added after the COPY began, get their defaults.
async fn defaults() -> Result<()> {
    let (engine, mut session) = engine().await?;
    let mut copy = copy_in(&mut session, "COPY bag (name, id) FROM STDIN").await?;
    copy.push(rows(&[1], &[Some("a")])?).map_err(|error| error.to_string())?;
    run(&mut engine.session(), "ALTER TABLE bag ADD COLUMN c INT DEFAULT 5 NOT NULL").await?;
    copy.finish(&mut session).await.map_err(|error| error.to_string())?;
    let mut copy = copy_in(&mut session, "COPY bag (name, id) FROM STDIN").await?;
    copy.push(rows(&[2], &[None])?).map_err(|error| error.to_string())?;
    copy.finish(&mut session).await.map_err(|error| error.to_string())?;
    expect(&mut session, "SELECT * FROM bag", &["1|a|5", "2|NULL|5"]).await?;
    // A program that knows the table as it was.
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int32Array::from(vec![3]))),
        ("name", Arc::new(StringViewArray::from(vec![Some("c")]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).map_err(|error| error.to_string())?;
    session.insert("bag", batch.clone()).await.map_err(|error| error.to_string())?;
    session.insert("bag", batch.clone()).await.map_err(|error| error.to_string())?;
    session.delete_rows("bag", batch.clone()).await.map_err(|error| error.to_string())?;
    expect(&mut session, "SELECT * FROM bag", &["1|a|5", "2|NULL|5", "3|c|5"]).await?;
    run(&mut session, "BEGIN").await?;
    session.insert("bag", batch.clone()).await.map_err(|error| error.to_string())?;
    expect(&mut session, "SELECT * FROM bag WHERE id = 3", &["3|c|5", "3|c|5"]).await?;
    run(&mut session, "ROLLBACK").await?;
    // An original column must be given.
    let id = batch.project(&[0]).map_err(|error| error.to_string())?;
    let failed = session.insert("bag", id).await.err().map(|error| error.to_string()).unwrap_or_default();
    ensure(failed.contains("don't fit the columns"), || format!("it says {failed}"))?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn within() -> Result<()> {
    let (engine, mut session) = engine().await?;
    run(&mut session, "BEGIN").await?;
    for (table, ids) in [("t", [2, 3]), ("bag", [2, 2])] {
        let mut copy = copy_in(&mut session, &format!("COPY {table} (name, id) FROM STDIN")).await?;
        copy.push(rows(&ids, &[Some("a"), Some("b")])?).map_err(|error| error.to_string())?;
        copy.finish(&mut session).await.map_err(|error| error.to_string())?;
    }
    expect(&mut session, "SELECT id, name FROM t", &["1|one", "2|a", "3|b"]).await?;
    expect(&mut session, "SELECT * FROM bag", &["2|a", "2|b"]).await?;
    expect(&mut engine.session(), "SELECT count(*) FROM bag", &["0"]).await?;
    run(&mut session, "COMMIT").await?;
    expect(&mut engine.session(), "SELECT count(*) FROM bag", &["2"]).await?;
    // A client that stops half way.
    run(&mut session, "BEGIN").await?;
    let copy = copy_in(&mut session, "COPY t (name, id) FROM STDIN").await?;
    drop(copy);
    ensure(session.transaction_status() == TransactionStatus::Failed, || "it has failed".into())?;
    run(&mut session, "ROLLBACK").await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn out() -> Result<()> {
    let (engine, mut session) = engine().await?;
    let wanted = [
        ("COPY t TO STDOUT", "1|1|one"),
        ("COPY t (name, id) TO STDOUT", "one|1"),
        ("COPY m TO STDOUT", "1"),
        ("COPY (SELECT id + 1 AS x FROM t) TO STDOUT", "2"),
    ];
    for (sql, line) in wanted {
        let copy = copy_out(&mut session, sql).await?;
        let batches: Vec<RecordBatch> = copy.rows.try_collect().await.map_err(|error| error.to_string())?;
        let mut lines = Vec::new();
        for batch in &batches {
            lines.extend(drive::text(batch)?);
        }
        ensure(lines == [line], || format!("{sql} gives {lines:?}"))?;
    }
    let copy = copy_out(&mut session, "COPY (SUBSCRIBE m) TO STDOUT").await?;
    ensure(copy.is_endless, || "changes have no end".into())?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn options() -> Result<()> {
    let (engine, mut session) = engine().await?;
    let text = CopyOptions {
        format: CopyFormat::Text,
        delimiter: b'\t',
        null: "\\N".into(),
        header: millstream_engine::CopyHeader::No,
        quote: b'"',
        escape: b'"',
        force_quote: vec![false; 2],
        force_not_null: vec![false; 2],
        force_null: vec![false; 2],
    };
    let csv = CopyOptions { format: CopyFormat::Csv, delimiter: b',', null: String::new(), ..text.clone() };
    let header = millstream_engine::CopyHeader::Yes;
    let wanted = [
        ("", text.clone()),
        ("WITH (FORMAT text)", text.clone()),
        ("(DELIMITER '|', NULL 'nil')", CopyOptions { delimiter: b'|', null: "nil".into(), ..text.clone() }),
        (
            "WITH DELIMITER AS '|' NULL AS ''",
            CopyOptions { delimiter: b'|', null: String::new(), ..text.clone() },
        ),
        ("USING DELIMITERS ';'", CopyOptions { delimiter: b';', ..text.clone() }),
        ("CSV HEADER", CopyOptions { header, ..csv.clone() }),
        (
            "WITH CSV HEADER QUOTE '''' ESCAPE '\\'",
            CopyOptions { header, quote: b'\'', escape: b'\\', ..csv.clone() },
        ),
        ("WITH (FORMAT csv, HEADER)", CopyOptions { header, ..csv.clone() }),
        ("(FORMAT 'csv', HEADER off, ENCODING 'UTF-8', FREEZE)", csv.clone()),
        ("(FORMAT csv, QUOTE '$')", CopyOptions { quote: b'$', escape: b'$', ..csv.clone() }),
        ("(FORMAT csv, FORCE_NULL (name))", CopyOptions { force_null: vec![false, true], ..csv.clone() }),
        ("CSV FORCE NOT NULL id, name", CopyOptions { force_not_null: vec![true; 2], ..csv.clone() }),
        ("BINARY", CopyOptions { format: CopyFormat::Binary, ..text.clone() }),
    ];
    for (options, expected) in wanted {
        let found = copy_in(&mut session, &format!("COPY bag FROM STDIN {options}")).await?.options().clone();
        ensure(found == expected, || format!("{options}: {found:?}"))?;
    }
    let found = copy_out(&mut session, "COPY bag TO STDOUT (FORMAT csv, FORCE_QUOTE *)").await?.options;
    ensure(found.force_quote == [true; 2], || format!("{found:?}"))?;
    engine.stop().await.map_err(|error| error.to_string())
}
