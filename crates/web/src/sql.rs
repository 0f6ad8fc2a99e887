//! `POST /api/sql`: runs statements in a session of their own and returns their results as JSON.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use millstream_delta::sql_type_of;
use millstream_engine::{Engine, Error, Outcome, Response, Script, as_shown, rows_tag, sqlstate};
use millstream_server::TextRows;
use serde_json::{Value, json};

/// Maximum number of rows returned of one result.
const ROWS_MAX: usize = 1000;

/// Maximum bytes of the values returned by one request.
const BYTES_MAX: usize = 16 << 20;

/// The time for which rows of a result without an end are read.
const ENDLESS: Duration = Duration::from_secs(2);

/// The user of the sessions, as `millstream.jobs` shows it.
const USER: &str = "millstream_page";

/// The number of the last session. Sessions of PostgreSQL's clients count up from 1, these down from the largest.
static SESSIONS: AtomicU32 = AtomicU32::new(0);

/// The results of a request.
#[derive(Debug, Default)]
struct Results {
    all: Vec<Value>,
    bytes: usize,
}

/// Runs the statements of a text. Dropping the future cancels the one that runs.
pub(crate) async fn run(engine: &Engine, sql: &str) -> Value {
    let began = Instant::now();
    let mut session = engine.session();
    session.connected_as(USER, "millstream");
    session.numbered(i32::MAX as u32 - SESSIONS.fetch_add(1, Ordering::Relaxed) % (1 << 20));
    let mut results = Results::default();
    let mut failure = Value::Null;
    match Script::parse(sql) {
        Err(error) => failure = failed(&error, sql),
        Ok(mut script) => loop {
            let outcomes = match session.step(&mut script).await {
                Ok(Some(outcomes)) => outcomes,
                Ok(None) => break,
                Err(error) => {
                    failure = failed(&error, sql);
                    break;
                }
            };
            if let Err(error) = add(&mut results, outcomes).await {
                failure = failed(&error, sql);
                break;
            }
        },
    }
    json!({ "results": results.all, "error": failure, "milliseconds": began.elapsed().as_millis() as u64 })
}

async fn add(results: &mut Results, outcomes: Vec<Outcome>) -> Result<(), Error> {
    for Outcome { sql, response } in outcomes {
        let notices = response.notices();
        let is_endless = response.is_endless();
        match response {
            Response::Done(tag) => results.all.push(json!({ "tag": tag.text, "notices": notices })),
            Response::Rows(rows) => {
                let shown = as_shown(&rows.schema());
                let texts = TextRows::new(&rows.schema());
                let batches = rows.map(|batch| batch.map_err(Error::from)).boxed();
                let mut fetched = Fetched { texts, rows: Vec::new(), bytes: 0, is_cut: false };
                let room = BYTES_MAX.saturating_sub(results.bytes);
                if is_endless {
                    // The time is up, or the result has an error or as many rows as are returned.
                    let fetch = fetched.fetch(batches, room);
                    if let Some(done) = tokio::time::timeout(ENDLESS, fetch).map(Result::ok).await {
                        done?;
                    }
                } else {
                    fetched.fetch(batches, room).await?;
                }
                results.bytes += fetched.bytes;
                results.all.push(json!({
                    "columns": fetched.texts.names().collect::<Vec<_>>(),
                    "types": shown.fields().iter().map(|field| sql_type_of(field)).collect::<Vec<_>>(),
                    "tag": rows_tag(&sql).text(fetched.rows.len()),
                    "notices": notices,
                    "is_cut": fetched.is_cut || is_endless,
                    "is_endless": is_endless,
                    "rows": fetched.rows,
                }));
            }
            Response::CopyIn(_) | Response::CopyOut(_) => {
                let message = "COPY with STDIN or STDOUT needs a client that sends or takes rows";
                return Err(Error::invalid(message)
                    .code(sqlstate::FEATURE_NOT_SUPPORTED)
                    .hint("Use psql with \\copy, or the shell of Millstream."));
            }
        }
    }
    Ok(())
}

/// The first rows of a result.
struct Fetched {
    texts: TextRows,
    rows: Vec<Vec<Option<String>>>,
    bytes: usize,
    is_cut: bool,
}

impl Fetched {
    /// Reads rows to the end, or until there are too many of them, or too many bytes.
    async fn fetch(
        &mut self,
        mut batches: BoxStream<'static, Result<RecordBatch, Error>>,
        room: usize,
    ) -> Result<(), Error> {
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let left = ROWS_MAX - self.rows.len();
            self.is_cut = batch.num_rows() > left;
            let rows = self.texts.rows(&batch.slice(0, batch.num_rows().min(left)));
            for row in rows.map_err(|error| Error::bug(error.to_string()))? {
                self.bytes += row.iter().flatten().map(String::len).sum::<usize>();
                self.rows.push(row);
                if self.bytes > room {
                    self.is_cut = true;
                    return Ok(());
                }
            }
            if self.is_cut {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Returns an error as JSON. Its position counts characters of the text from 1.
fn failed(error: &Error, sql: &str) -> Value {
    let start = error.span.as_ref().and_then(|span| sql.get(..span.start));
    json!({
        "sqlstate": error.sqlstate(),
        "message": error.message,
        "hint": error.hint,
        "position": start.map(|before| before.chars().count() + 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_in(engine: &Engine, sql: &str) -> Value {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(engine, sql))
    }

    #[test]
    fn results_have_columns_types_tags_and_rows() {
        let engine = Engine::start().unwrap();
        let all = run_in(
            &engine,
            "CREATE TABLE t (id BIGINT PRIMARY KEY, \"<script>\" TEXT, at TIMESTAMPTZ);
             INSERT INTO t VALUES (1, '<b>', '2024-01-02 03:04:05+00'), (2, NULL, NULL); SELECT * FROM t ORDER BY id",
        );
        let results = &all["results"];
        assert_eq!(all["error"], Value::Null);
        assert_eq!((&results[0]["tag"], &results[1]["tag"]), (&json!("CREATE TABLE"), &json!("INSERT 0 2")));
        assert_eq!(results[2]["columns"], json!(["id", "<script>", "at"]));
        assert_eq!(results[2]["types"], json!(["BIGINT", "TEXT", "TIMESTAMPTZ"]));
        let rows = json!([["1", "<b>", "2024-01-02 03:04:05+00"], ["2", null, null]]);
        assert_eq!((&results[2]["rows"], &results[2]["tag"]), (&rows, &json!("SELECT 2")));
    }

    #[test]
    fn a_long_result_is_cut_and_says_so() {
        let engine = Engine::start().unwrap();
        let all = run_in(&engine, "SELECT g FROM generate_series(1, 1000) x(g)");
        assert_eq!(all["results"][0]["is_cut"], json!(false));
        let all = run_in(&engine, "SELECT g FROM generate_series(1, 20000) x(g)");
        assert_eq!(all["results"][0]["rows"].as_array().unwrap().len(), ROWS_MAX);
        assert_eq!(all["results"][0]["is_cut"], json!(true));
    }

    #[test]
    fn an_error_has_its_sqlstate_and_position() {
        let engine = Engine::start().unwrap();
        let all = run_in(&engine, "SELECT 1; SELECT 'é', nowhere");
        assert_eq!(all["results"].as_array().unwrap().len(), 1);
        assert_eq!((&all["error"]["sqlstate"], &all["error"]["position"]), (&json!("42703"), &json!(23)));
        let all = run_in(&engine, "CREATE TABLE t (id BIGINT); COPY t FROM STDIN");
        assert_eq!(all["error"]["sqlstate"], "0A000");
        let all = run_in(&engine, "");
        assert_eq!((&all["results"], &all["error"]), (&json!([]), &Value::Null));
    }

    #[test]
    fn rows_of_a_result_without_an_end_are_read_for_a_moment() {
        let engine = Engine::start().unwrap();
        let all = run_in(&engine, "CREATE TABLE t (id BIGINT); INSERT INTO t VALUES (7); SUBSCRIBE t");
        assert_eq!(all["error"], Value::Null);
        assert_eq!(all["results"][2]["is_endless"], json!(true));
        assert_eq!(all["results"][2]["rows"].as_array().unwrap().len(), 1);
    }
}
