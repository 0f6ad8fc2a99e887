//! Drives a session from a test.

use std::future::Future;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use millstream_engine::{Response, Session};
pub use millstream_seeds::{all_seeds, seeds};

/// The result of a test step; the error message is for people.
pub type Result<T, E = String> = std::result::Result<T, E>;

/// Runs a future to completion on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| format!("can't start a runtime: {error}"))?;
    runtime.block_on(future)
}

/// Runs one statement and returns its rows as one batch; the batch is empty if the statement returns no rows.
pub async fn rows(session: &mut Session, sql: &str) -> Result<RecordBatch> {
    let fail = |error: &dyn std::fmt::Display| format!("{error}\n  in: {sql}");
    match session.execute(sql).await.map_err(|error| fail(&error))? {
        Response::Rows(stream) => {
            let schema = stream.schema();
            let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(|error| fail(&error))?;
            // A stream may say "not null" where its batches don't, and vice versa.
            let schema = batches.first().map_or(schema, RecordBatch::schema);
            concat_batches(&schema, &batches).map_err(|error| fail(&error))
        }
        _ => Ok(RecordBatch::new_empty(arrow::datatypes::Schema::empty().into())),
    }
}

/// Runs one statement and returns its command tag, or an empty string if it returned rows.
pub async fn run(session: &mut Session, sql: &str) -> Result<String> {
    match session.execute(sql).await.map_err(|error| format!("{error}\n  in: {sql}"))? {
        Response::Done(tag) => Ok(tag.text),
        Response::Rows(stream) => {
            let done: Result<Vec<_>, _> = stream.try_collect().await;
            done.map(|_| String::new()).map_err(|error| format!("{error}\n  in: {sql}"))
        }
        other => Err(format!("{sql} gives {other:?}")),
    }
}

/// Runs statements in order.
pub async fn run_all(session: &mut Session, statements: &[&str]) -> Result<()> {
    for sql in statements {
        run(session, sql).await?;
    }
    Ok(())
}

/// Returns the rows of a query as text, sorted, columns joined by `|`.
pub async fn lines(session: &mut Session, sql: &str) -> Result<Vec<String>> {
    let mut lines = text(&rows(session, sql).await?)?;
    lines.sort();
    Ok(lines)
}

/// Returns the rows of a batch as text in order, columns joined by `|`.
pub fn text(batch: &RecordBatch) -> Result<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let columns = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    let line = |row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|");
    Ok((0..batch.num_rows()).map(line).collect())
}

/// Fails unless the rows of `sql`, as sorted text, equal `expected`.
pub async fn expect(session: &mut Session, sql: &str, expected: &[&str]) -> Result<()> {
    let found = lines(session, sql).await?;
    if found == expected {
        return Ok(());
    }
    Err(format!("{sql}\n  gives    {found:?}\n  expected {expected:?}"))
}

/// Fails unless the rows of `sql` are those of `query`, in any order.
pub async fn expect_like(session: &mut Session, sql: &str, query: &str) -> Result<()> {
    let expected = lines(session, query).await?;
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    expect(session, sql, &expected).await
}

/// Fetches changes one by one. Each is its operation and its row, without the epoch.
pub async fn fetch(session: &mut Session, cursor: &str, count: usize) -> Result<Vec<String>> {
    let mut fetched = Vec::new();
    for _ in 0..count {
        let changes = lines(session, &format!("FETCH 1 FROM {cursor}")).await?;
        let change = |line: String| line.split_once('|').map_or(line.clone(), |(_, change)| change.into());
        fetched.extend(changes.into_iter().map(change));
    }
    Ok(fetched)
}

/// Repeats a query until its rows, as sorted text, equal `expected`; fails after a minute.
pub async fn expect_soon(session: &mut Session, sql: &str, expected: &[&str]) -> Result<()> {
    let mut last = Ok(());
    for _ in 0..6000 {
        last = expect(session, sql, expected).await;
        if last.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    last.map_err(|error| format!("after a minute, {error}"))
}

/// Waits until `holds` returns true; fails after a minute, with `what` in the message.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    for _ in 0..6000 {
        if holds() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(format!("waited a minute for: {what}"))
}

/// Waits for a future; fails after a minute, with `what` in the message, so that no test hangs.
pub async fn within_a_minute<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    let waited = tokio::time::timeout(Duration::from_secs(60), future).await;
    waited.map_err(|_| format!("waited a minute for: {what}"))
}

/// Fails with `what` unless `holds` is true.
pub fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Returns true if this process ignores SIGHUP, as do the programs that it starts.
pub fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
