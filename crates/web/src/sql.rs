//! `POST /api/sql`: runs statements in a session of their own and returns their results as JSON.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use futures::StreamExt;
use millstream_delta::sql_type_of;
use millstream_engine::{Engine, Error, Outcome, Response, Script, Tag, as_shown, rows_tag, sqlstate};
use millstream_server::TextRows;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, Sender};

use crate::ending::{Phase, Running, stopping};
use crate::results::{Results as KeptResults, Spool};

/// The user of the sessions, as `millstream.jobs` shows it.
const USER: &str = "millstream_page";

/// The number of the last session. Sessions of PostgreSQL's clients count up from 1, these down from the largest.
static SESSIONS: AtomicU32 = AtomicU32::new(0);

/// Bytes of rows that are turned into text at a time, about.
const PIECE_BYTES: usize = 256 << 10;

/// The time between two counts of the rows of a long result.
const COUNTED: Duration = Duration::from_millis(500);

/// Maximum number of characters of a message.
const MESSAGE_MAX: usize = 16 << 10;

/// Bounds of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Maximum number of rows of each result with an end.
    pub(crate) rows: usize,
    /// Maximum bytes of all results with an end, as JSON.
    pub(crate) bytes: usize,
    /// The time for which rows of a result without an end are read; `None`: as long as the reader is there.
    pub(crate) endless: Option<Duration>,
}

/// The bounds of `POST /api/sql`.
const LIMITS: Limits = Limits { rows: 1000, bytes: 16 << 20, endless: Some(Duration::from_secs(2)) };

/// A part of an answer. Texts are JSON.
#[derive(Debug)]
pub(crate) enum Part {
    /// A statement without rows.
    Done { tag: String, notices: String },
    /// The beginning of a result with rows.
    Begin { columns: String, types: String, is_endless: bool },
    /// Rows of it.
    Rows(Vec<String>),
    /// Its end.
    End(End),
    /// An error, which ends the answer.
    Failed(String),
    /// The number of rows so far of a result of which no more are sent.
    Count(usize),
}

/// The end of a result with rows.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) tag: String,
    pub(crate) notices: String,
    pub(crate) is_cut: bool,
    pub(crate) rows: usize,
    /// The name by which the page reads all rows, if they are kept.
    pub(crate) kept: Option<String>,
}

/// Runs the statements of a text and returns the answer as JSON. Dropping the future cancels the one that runs.
pub(crate) async fn run(engine: &Engine, sql: &str, running: Running) -> String {
    let began = Instant::now();
    let (sender, mut parts) = mpsc::channel(4);
    let collect = async {
        let mut results = Results { text: String::new(), error: "null".into() };
        while let Some(part) = parts.recv().await {
            results.add(part);
        }
        results
    };
    let (results, ()) = futures::join!(collect, answer(engine, sql, LIMITS, None, (sender, running)));
    let milliseconds = began.elapsed().as_millis();
    let Results { text, error } = results;
    format!("{{\"error\":{error},\"milliseconds\":{milliseconds},\"results\":[{text}]}}")
}

/// The results of a request, as JSON.
struct Results {
    text: String,
    error: String,
}

impl Results {
    fn add(&mut self, part: Part) {
        let text = &mut self.text;
        match part {
            Part::Done { tag, notices } => {
                separate(text);
                text.push_str(&format!("{{\"notices\":{notices},\"tag\":{tag}}}"));
            }
            Part::Begin { columns, types, is_endless } => {
                separate(text);
                text.push_str(&format!(
                    "{{\"columns\":{columns},\"types\":{types},\"is_endless\":{is_endless},\"rows\":["
                ));
            }
            Part::Rows(rows) => {
                for row in rows {
                    separate(text);
                    text.push_str(&row);
                }
            }
            Part::Count(_) => {}
            Part::End(End { tag, notices, is_cut, .. }) => {
                text.push_str(&format!("],\"is_cut\":{is_cut},\"notices\":{notices},\"tag\":{tag}}}"));
            }
            Part::Failed(error) => self.error = error,
        }
    }
}

/// Separates an element of an array from the one before.
fn separate(text: &mut String) {
    if !text.is_empty() && !text.ends_with('[') {
        text.push(',');
    }
}

/// Runs the statements of a text and sends the parts of the answer. Dropping the future, or the receiver, cancels
/// the statement that runs.
/// `results` keeps all rows of the results with an end.
pub(crate) async fn answer(
    engine: &Engine,
    sql: &str,
    limits: Limits,
    results: Option<&KeptResults>,
    (sender, running): (Sender<Part>, Running),
) {
    let gone = sender.clone();
    let ending = running.clone();
    let mut answer = Answer { sender, limits, results, running, left: limits.bytes };
    tokio::select! {
        result = answer.run(engine, sql) => {
            if let Err(error) = result {
                let _ = gone.send(Part::Failed(failed(&error, sql).to_string())).await;
            }
        }
        () = gone.closed() => {}
        () = ending.reached(Phase::Stopping) => {
            let _ = gone.send(Part::Failed(failed(&stopping(), sql).to_string())).await;
        }
    }
}

/// The state of an answer.
struct Answer<'a> {
    sender: Sender<Part>,
    limits: Limits,
    results: Option<&'a KeptResults>,
    running: Running,
    /// Bytes that the answer may still have.
    left: usize,
}

impl Answer<'_> {
    async fn run(&mut self, engine: &Engine, sql: &str) -> Result<(), Error> {
        let mut session = engine.session();
        let number = i32::MAX as u32 - SESSIONS.fetch_add(1, Ordering::Relaxed) % (1 << 20);
        session.connected_as(USER, "millstream", number);
        let mut script = Script::parse(sql)?;
        while let Some(outcomes) = session.step(&mut script).await? {
            for outcome in outcomes {
                self.add(outcome).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, part: Part) -> Result<(), Error> {
        // `answer` ends when the receiver is gone.
        self.sender.send(part).await.map_err(|_| Error::invalid("the reader is gone"))
    }

    /// Takes bytes of the answer's room. Returns false if there is no room for them.
    fn take(&mut self, bytes: usize) -> bool {
        let has_room = bytes <= self.left;
        self.left = self.left.saturating_sub(bytes);
        has_room
    }

    /// Returns texts as JSON, if there is room for them.
    fn texts(&mut self, texts: &[impl AsRef<str>]) -> Result<String, Error> {
        let texts = json!(texts.iter().map(AsRef::as_ref).collect::<Vec<&str>>()).to_string();
        if self.take(texts.len()) {
            return Ok(texts);
        }
        let message = format!("the results have more than {} bytes", self.limits.bytes);
        Err(Error::invalid(message)
            .code(sqlstate::PROGRAM_LIMIT_EXCEEDED)
            .hint("Run fewer statements at once, or select fewer rows."))
    }

    async fn add(&mut self, outcome: Outcome) -> Result<(), Error> {
        let Outcome { sql, response } = outcome;
        let notices: Vec<String> = response.notices().iter().map(|notice| shortened(notice)).collect();
        let is_endless = response.is_endless();
        match response {
            Response::Done(Tag { text, .. }) => {
                let (tag, notices) = (json!(text).to_string(), self.texts(&notices)?);
                self.send(Part::Done { tag, notices }).await
            }
            Response::Rows(rows) => {
                let texts = TextRows::new(&rows.schema());
                let shown = as_shown(&rows.schema());
                let types: Vec<String> = shown.fields().iter().map(|field| sql_type_of(field)).collect();
                let columns = self.texts(&texts.names().collect::<Vec<_>>())?;
                let types = self.texts(&types)?;
                let notices = self.texts(&notices)?;
                self.send(Part::Begin { columns, types, is_endless }).await?;
                let results = self.results.filter(|_| !is_endless);
                let spool = results.map(|results| Spool::new(&rows.schema(), results.bytes()));
                let mut fetched = Fetched {
                    texts,
                    rows: 0,
                    sent: 0,
                    spool,
                    is_full: false,
                    is_cut: is_endless,
                    is_endless,
                };
                let batches = rows.map(|batch| batch.map_err(Error::from));
                match self.limits.endless.filter(|_| is_endless) {
                    // The time is up, or the result has an error or as many rows as are returned.
                    Some(time) => {
                        if let Ok(done) = tokio::time::timeout(time, self.fetch(&mut fetched, batches)).await
                        {
                            done?;
                        }
                    }
                    None => self.fetch(&mut fetched, batches).await?,
                }
                let tag = json!(rows_tag(&sql).text(fetched.rows)).to_string();
                let (rows, is_cut) = (fetched.rows, fetched.is_cut);
                let kept = match fetched.spool {
                    Some(mut spool) => {
                        let spool = blocking(move || spool.finish().map(|()| spool)).await?;
                        self.results.map(|results| results.keep(spool))
                    }
                    None => None,
                };
                self.send(Part::End(End { tag, notices, is_cut, rows, kept })).await
            }
            Response::CopyIn(_) | Response::CopyOut(_) => {
                let message = "COPY with STDIN or STDOUT needs a client that sends or takes rows";
                Err(Error::invalid(message)
                    .code(sqlstate::FEATURE_NOT_SUPPORTED)
                    .hint("Use psql with \\copy, or the shell of Millstream."))
            }
        }
    }

    /// Reads rows to the end of the result, or until there are too many of them, or too many bytes. Sends the first ones.
    async fn fetch(
        &mut self,
        fetched: &mut Fetched,
        batches: impl futures::Stream<Item = Result<RecordBatch, Error>>,
    ) -> Result<(), Error> {
        let mut batches = std::pin::pin!(batches);
        let mut counted = Instant::now();
        let running = self.running.clone();
        loop {
            let batch = tokio::select! {
                batch = batches.next() => batch,
                // A result without an end is not waited for.
                () = running.reached(Phase::Draining), if fetched.is_endless => return Err(stopping()),
            };
            let Some(batch) = batch else { break };
            let batch = batch?;
            if let Some(mut spool) = fetched.spool.take() {
                let added = batch.clone();
                let (spool, has_room) =
                    blocking(move || spool.add(&added).map(|has_room| (spool, has_room))).await?;
                fetched.rows = spool.rows();
                fetched.spool = Some(spool);
                if !has_room {
                    fetched.is_cut = true;
                    return Ok(());
                }
            }
            if !fetched.is_full {
                self.send_rows(fetched, &batch).await?;
            }
            if fetched.spool.is_none() {
                fetched.rows = fetched.sent;
            }
            match (fetched.is_full, &fetched.spool) {
                (true, None) => {
                    fetched.is_cut = true;
                    return Ok(());
                }
                (true, Some(_)) if counted.elapsed() >= COUNTED => {
                    counted = Instant::now();
                    self.send(Part::Count(fetched.rows)).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends rows, as far as there is room for them.
    async fn send_rows(&mut self, fetched: &mut Fetched, batch: &RecordBatch) -> Result<(), Error> {
        let is_bounded = !fetched.is_endless || self.limits.endless.is_some();
        let bytes_a_row = batch.get_array_memory_size() / batch.num_rows().max(1);
        let length = (PIECE_BYTES / bytes_a_row.max(1)).clamp(1, 1024);
        let mut place = 0;
        while place < batch.num_rows() {
            let mut wanted = length.min(batch.num_rows() - place);
            if is_bounded {
                wanted = wanted.min(self.limits.rows - fetched.sent);
            }
            let rows = fetched.texts.rows(&batch.slice(place, wanted));
            let rows = rows.map_err(|error| Error::bug(error.to_string()))?;
            let mut all: Vec<String> = rows.iter().map(|row| json!(row).to_string()).collect();
            if is_bounded {
                let fitting = all.iter().take_while(|row| self.take(row.len() + 1)).count();
                all.truncate(fitting);
            }
            let sent = all.len();
            (place, fetched.sent) = (place + sent, fetched.sent + sent);
            self.send(Part::Rows(all)).await?;
            if sent < wanted || wanted == 0 {
                fetched.is_full = true;
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Runs work that waits for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|error| Err(error.to_string()));
    done.map_err(Error::external)
}

/// A result that is being read.
struct Fetched {
    texts: TextRows,
    /// Rows that were read and kept, or sent.
    rows: usize,
    /// Rows that were sent.
    sent: usize,
    /// All rows, if they are kept.
    spool: Option<Spool>,
    /// True if no more rows are sent.
    is_full: bool,
    /// True if the result has more rows.
    is_cut: bool,
    is_endless: bool,
}

/// Returns the beginning of a message.
fn shortened(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_string(),
    }
}

/// Returns an error as JSON. Its position counts characters of the text from 1.
fn failed(error: &Error, sql: &str) -> Value {
    let start = error.span.as_ref().and_then(|span| sql.get(..span.start));
    json!({
        "sqlstate": error.sqlstate(),
        "message": shortened(&error.message),
        "hint": error.hint.as_deref().map(shortened),
        "position": start.map(|before| before.chars().count() + 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ending::Ending;

    fn run_in(engine: &Engine, sql: &str) -> Value {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        serde_json::from_str(&runtime.block_on(run(engine, sql, Ending::default().begin().unwrap()))).unwrap()
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
        assert_eq!(all["results"][0]["rows"].as_array().unwrap().len(), LIMITS.rows);
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

    #[test]
    fn an_answer_has_a_bound_in_bytes() {
        let engine = Engine::start().unwrap();
        // A row of 1 MB, in bytes that JSON writes as two.
        let sql = "SELECT repeat('\"', 1000000) AS v FROM generate_series(1, 500) x(g); SELECT 1";
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let text = runtime.block_on(run(&engine, sql, Ending::default().begin().unwrap()));
        assert!(text.len() < LIMITS.bytes + 4096, "{}", text.len());
        let all: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(all["results"][0]["rows"].as_array().unwrap().len(), 8);
        assert_eq!(all["results"][0]["is_cut"], json!(true));
        let all = run_in(&engine, "SELECT repeat('x', 20000000); SELECT 1");
        assert_eq!((&all["results"][0]["rows"], &all["results"][0]["is_cut"]), (&json!([]), &json!(true)));
        assert_eq!(all["error"]["sqlstate"], "54000");
    }
}
