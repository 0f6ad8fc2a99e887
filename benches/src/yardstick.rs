//! The tools that Millstream is compared with.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::prelude::{CsvReadOptions, SessionConfig, SessionContext};
use futures::TryStreamExt;
use millstream::{Engine, Response, Session};

use crate::Result;
use crate::measure::{self, Cost};

/// Number of cores that DataFusion may use, as stated with the figures.
const PARTITIONS: usize = 2;

/// Runs a query once in DataFusion over the text files of a folder as table `lines (line)`.
pub async fn datafusion(folder: &Path, sql: &str) -> Result<Vec<RecordBatch>> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(PARTITIONS));
    let schema = Schema::new(vec![Field::new("line", DataType::Utf8View, true)]);
    // A delimiter and a quote that don't occur, so that each line is one value.
    let options =
        CsvReadOptions::new().has_header(false).delimiter(1).quote(2).schema(&schema).file_extension(".txt");
    let folder = folder.to_str().ok_or("the folder's name is not UTF-8")?;
    context.register_csv("lines", folder, options).await?;
    Ok(millstream_batch::answer(&context, sql).await?)
}

/// Maintains a query in Millstream over the text files of a folder, as source `lines (line)`. Returns the
/// result once all files are read.
pub async fn millstream(folder: &Path, sql: &str) -> Result<Vec<RecordBatch>> {
    let engine = Engine::start()?;
    let mut session = engine.session();
    let source = format!(
        "CREATE SOURCE lines WITH (connector = 'file', path = '{}', format = 'text', bounded = true)",
        folder.display()
    );
    session.execute(&source).await?;
    session.execute(&format!("CREATE MATERIALIZED VIEW answer AS {sql}")).await?;
    engine.finished().await?;
    let rows = rows(&mut session, "SELECT * FROM answer").await?;
    engine.stop().await?;
    Ok(rows)
}

/// Returns the rows of a query.
pub async fn rows(session: &mut Session, sql: &str) -> Result<Vec<RecordBatch>> {
    match session.execute(sql).await? {
        Response::Rows(rows) => Ok(rows.try_collect().await?),
        other => Err(format!("{sql} gives no rows but {other:?}").into()),
    }
}

/// Returns the name of a text search tool, its cost, and the number of lines it counted.
pub fn searched(folder: &Path, pattern: &str) -> Result<(&'static str, Cost, u64)> {
    let ripgrep = Command::new("rg").arg("--version").output().is_ok();
    let (name, arguments): (_, &[&str]) = if ripgrep {
        ("rg", &["-c", "-F", "--no-filename", "--"])
    } else {
        ("grep", &["-r", "-c", "-h", "-F", "--"])
    };
    let (cpu, start) = (measure::children_cpu_seconds()?, Instant::now());
    let output = Command::new(name).args(arguments).arg(pattern).arg(folder).output()?;
    let wall_s = start.elapsed().as_secs_f64();
    let cost = Cost { wall_s, cpu_s: measure::children_cpu_seconds()? - cpu };
    let mut count = 0;
    for line in String::from_utf8(output.stdout)?.lines() {
        count += line.trim().parse::<u64>()?;
    }
    Ok((name, cost, count))
}

/// Returns the rows of (word, count) batches as a map, to compare two results.
pub fn counts(batches: &[RecordBatch]) -> Result<BTreeMap<String, i64>> {
    let mut counts = BTreeMap::new();
    for batch in batches {
        let words = cast(batch.column(0), &DataType::Utf8)?;
        let numbers = cast(batch.column(1), &DataType::Int64)?;
        let numbers = numbers.as_primitive::<Int64Type>();
        for (row, word) in words.as_string::<i32>().iter().enumerate() {
            let word = word.ok_or("a word is NULL")?.to_string();
            if counts.insert(word.clone(), numbers.value(row)).is_some() {
                return Err(format!("the word '{word}' is there twice").into());
            }
        }
    }
    Ok(counts)
}

/// Returns the only value of a result.
pub fn number(batches: &[RecordBatch]) -> Result<i64> {
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).ok_or("no row")?;
    let column = cast(batch.column(0), &DataType::Int64)?;
    let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if total != 1 {
        return Err(format!("one row was expected, {total} are there").into());
    }
    Ok(Arc::clone(&column).as_primitive::<Int64Type>().value(0))
}
