//! A reading of the engine's system tables, shared by all who ask within a moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMillisecondType};
use futures::TryStreamExt;
use millstream_engine::{Engine, Error, Response, Session};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

/// The time for which a reading is shared.
const FRESH: Duration = Duration::from_millis(900);

/// Maximum time of a reading.
pub(crate) const READING_MAX: Duration = Duration::from_secs(5);

/// The user of the sessions that read system tables, as `millstream.jobs` shows it.
const USER: &str = "millstream_web";

const SOURCES: &str = "SELECT * FROM millstream.sources ORDER BY name";
const QUERIES: &str = "SELECT 'materialized view' AS kind, * FROM millstream.materialized_views \
                       UNION ALL SELECT 'stream' AS kind, * FROM millstream.streams ORDER BY name";
const SINKS: &str = "SELECT * FROM millstream.sinks ORDER BY name";
const MEMORY: &str = "SELECT * FROM millstream.memory";
const CHECKPOINTS: &str = "SELECT * FROM millstream.checkpoints ORDER BY at";
const BATCHES: &str = "SELECT * FROM millstream.epochs ORDER BY epoch DESC";
const INTERVAL: &str = "SELECT value FROM millstream.settings WHERE name = 'batch_interval'";

/// A row of a system table: BIGINT is a number, a time is in milliseconds since 1970, the rest is text.
pub(crate) type Row = Map<String, Value>;

/// The content of the system tables at one time.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) sources: Vec<Row>,
    /// Materialized views and streams, with a column `kind`.
    pub(crate) queries: Vec<Row>,
    pub(crate) sinks: Vec<Row>,
    pub(crate) memory: Row,
    /// The last checkpoints, newest last.
    pub(crate) checkpoints: Vec<Row>,
    /// The last 1,000 epochs, newest first.
    pub(crate) batches: Vec<Row>,
    /// Statements that run, without those of readings.
    pub(crate) statements: u64,
    /// The setting `batch_interval`; `None` if it is `auto`.
    pub(crate) interval: Option<Duration>,
}

/// The reason why there is no reading.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Unread {
    /// The engine did not answer in time.
    #[error("the engine has not answered for {} seconds", READING_MAX.as_secs())]
    Busy,
    /// The engine failed or stopped.
    #[error("{0}")]
    Failed(String),
}

impl From<Error> for Unread {
    fn from(error: Error) -> Unread {
        Unread::Failed(error.message)
    }
}

/// The outcome of a reading, which all who asked for it share.
type Outcome = Result<Arc<Reading>, Unread>;

/// The last reading.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    last: Mutex<Option<(Instant, Outcome)>>,
}

impl Readings {
    /// Returns a reading that is at most about a second old. Many who ask at once share one.
    pub(crate) async fn read(&self, engine: &Engine) -> Outcome {
        let mut last = self.last.lock().await;
        if let Some((at, reading)) = &*last
            && at.elapsed() < FRESH
        {
            return reading.clone();
        }
        let read = tokio::time::timeout(READING_MAX, read(engine)).await;
        let reading = read.unwrap_or(Err(Unread::Busy)).map(Arc::new);
        *last = Some((Instant::now(), reading.clone()));
        reading
    }
}

async fn read(engine: &Engine) -> Result<Reading, Unread> {
    let mut session = session(engine);
    let others = format!("SELECT count(*) AS n FROM millstream.jobs WHERE \"user\" <> '{USER}'");
    let jobs = first(rows(&mut session, &others).await?);
    let interval = first(rows(&mut session, INTERVAL).await?);
    Ok(Reading {
        sources: rows(&mut session, SOURCES).await?,
        queries: rows(&mut session, QUERIES).await?,
        sinks: rows(&mut session, SINKS).await?,
        memory: first(rows(&mut session, MEMORY).await?),
        checkpoints: rows(&mut session, CHECKPOINTS).await?,
        batches: rows(&mut session, BATCHES).await?,
        statements: number(&jobs, "n").unwrap_or_default(),
        interval: interval_of(text(&interval, "value").unwrap_or_default()),
    })
}

/// Reads the memory and the checkpoints alone, for a sample.
pub(crate) async fn read_memory(engine: &Engine) -> Result<(Row, Option<u64>), Unread> {
    let read = async {
        let mut session = session(engine);
        let memory = first(rows(&mut session, MEMORY).await?);
        let newest = rows(&mut session, CHECKPOINTS).await?;
        Ok::<_, Unread>((memory, last_success(&newest)))
    };
    tokio::time::timeout(READING_MAX, read).await.unwrap_or(Err(Unread::Busy))
}

/// Returns the time of the newest checkpoint that succeeded, in milliseconds since 1970.
pub(crate) fn last_success(checkpoints: &[Row]) -> Option<u64> {
    let newest = checkpoints.iter().rev().find(|row| text(row, "reason").is_none());
    newest.and_then(|row| number(row, "at"))
}

pub(crate) fn session(engine: &Engine) -> Session {
    let mut session = engine.session();
    session.connected_as(USER, "millstream");
    session
}

/// Returns a number that isn't negative.
pub(crate) fn number(row: &Row, column: &str) -> Option<u64> {
    row.get(column).and_then(Value::as_i64).map(|number| number.max(0) as u64)
}

pub(crate) fn text<'a>(row: &'a Row, column: &str) -> Option<&'a str> {
    row.get(column).and_then(Value::as_str)
}

fn first(rows: Vec<Row>) -> Row {
    rows.into_iter().next().unwrap_or_default()
}

pub(crate) async fn rows(session: &mut Session, sql: &str) -> Result<Vec<Row>, Unread> {
    let Response::Rows(rows) = session.execute(sql).await? else { return Ok(Vec::new()) };
    let batches: Vec<RecordBatch> = rows.try_collect().await.map_err(Error::from)?;
    let mut all = Vec::new();
    for batch in &batches {
        all.extend(rows_of(batch)?);
    }
    Ok(all)
}

fn rows_of(batch: &RecordBatch) -> Result<Vec<Row>, Unread> {
    let mut rows = vec![Row::new(); batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let values = values(column).map_err(|error| Unread::Failed(error.to_string()))?;
        for (row, value) in rows.iter_mut().zip(values) {
            row.insert(field.name().clone(), value);
        }
    }
    Ok(rows)
}

fn values(column: &ArrayRef) -> Result<Vec<Value>, arrow::error::ArrowError> {
    Ok(match column.data_type() {
        data_type if data_type.is_integer() => {
            let numbers = cast(column, &DataType::Int64)?;
            numbers.as_primitive::<Int64Type>().iter().map(Value::from).collect()
        }
        DataType::Timestamp(_, zone) => {
            let times = cast(column, &DataType::Timestamp(TimeUnit::Millisecond, zone.clone()))?;
            times.as_primitive::<TimestampMillisecondType>().iter().map(Value::from).collect()
        }
        _ => {
            let texts = cast(column, &DataType::Utf8)?;
            texts.as_string::<i32>().iter().map(Value::from).collect()
        }
    })
}

/// Parses the value of a setting such as `500 milliseconds` or `1 minute 30 seconds`.
fn interval_of(text: &str) -> Option<Duration> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (pairs, rest) = words.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return None;
    }
    let part = |[count, unit]: &[&str; 2]| {
        let seconds = match unit.trim_end_matches('s') {
            "microsecond" | "u" => 1e-6,
            "millisecond" | "m" => 1e-3,
            "second" => 1.0,
            "minute" => 60.0,
            "hour" => 3600.0,
            "day" => 86_400.0,
            _ => return None,
        };
        let count = count.parse::<f64>().ok()?;
        Duration::try_from_secs_f64(count * seconds).ok()
    };
    pairs.iter().map(part).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_settings() {
        assert_eq!(interval_of("auto"), None);
        assert_eq!(interval_of("1 second"), Some(Duration::from_secs(1)));
        assert_eq!(interval_of("250 milliseconds"), Some(Duration::from_millis(250)));
        assert_eq!(interval_of("250 ms"), Some(Duration::from_millis(250)));
        assert_eq!(interval_of("1 minute 30 seconds"), Some(Duration::from_secs(90)));
        assert_eq!(interval_of("2 fortnights"), None);
    }

    #[test]
    fn an_engine_is_read() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let engine = Engine::start().unwrap();
        let (reading, shared) = runtime.block_on(async {
            let mut session = engine.session();
            for sql in [
                "SET batch_interval = '250 ms'",
                "CREATE TABLE \"<b>\" (id BIGINT PRIMARY KEY)",
                "CREATE MATERIALIZED VIEW \"a\"\"b\" AS SELECT id FROM \"<b>\"",
                "CREATE STREAM s AS SELECT id FROM \"<b>\"",
                "INSERT INTO \"<b>\" VALUES (1), (2)",
            ] {
                session.execute(sql).await.unwrap();
            }
            let readings = Readings::default();
            let first = readings.read(&engine).await.unwrap();
            (first.clone(), Arc::ptr_eq(&first, &readings.read(&engine).await.unwrap()))
        });
        assert!(shared);
        let names: Vec<_> =
            reading.queries.iter().map(|row| (text(row, "name"), text(row, "kind"))).collect();
        assert_eq!(names, [(Some("a\"b"), Some("materialized view")), (Some("s"), Some("stream"))]);
        assert_eq!(number(&reading.queries[0], "rows"), Some(2));
        assert_eq!(reading.interval, Some(Duration::from_millis(250)));
        assert_eq!((reading.statements, reading.sources.len()), (0, 0));
        assert!(number(&reading.memory, "state_bytes").is_some_and(|bytes| bytes > 0));
        assert!(number(&reading.batches[0], "input_rows").is_some_and(|rows| rows >= 2));
        assert!(number(&reading.batches[0], "batch_time").is_some_and(|time| time > 1_600_000_000_000));
    }
}
