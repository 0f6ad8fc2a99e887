//! A reading of the engine's system tables, shared by all who ask within a moment.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMillisecondType};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use millstream_engine::{Engine, Error};
use serde_json::{Map, Value, json};

/// The time for which a reading is shared.
const FRESH: Duration = Duration::from_millis(900);

/// The time for which a request waits for a new reading, before it gets the last one.
const PATIENCE: Duration = Duration::from_secs(2);

/// The time without an answer from which on the engine counts as not ready.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The system tables of a reading.
const TABLES: [&str; 9] = [
    "sources",
    "materialized_views",
    "streams",
    "sinks",
    "memory",
    "checkpoints",
    "jobs",
    "settings",
    "problems",
];

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
    /// The problems, the worst first.
    pub(crate) problems: Vec<Row>,
    /// The last checkpoints, newest last.
    pub(crate) checkpoints: Vec<Row>,
    /// Statements that run.
    pub(crate) statements: u64,
    /// The setting `batch_interval`; `None` if it is `auto`.
    pub(crate) interval: Option<Duration>,
    text: OnceLock<String>,
}

/// The reason why there is no reading.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Unread {
    /// The engine has not answered for some time.
    #[error("the engine has not answered for {} seconds", .0.as_secs())]
    Busy(Duration),
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

/// A reading, perhaps an old one.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) reading: Arc<Reading>,
    /// The time since it was made.
    pub(crate) age: Duration,
}

/// The last readings, and the one that runs.
#[derive(Debug, Default)]
struct Last {
    /// The last outcome.
    outcome: Option<(Instant, Outcome)>,
    /// The last reading that succeeded.
    good: Option<(Instant, Arc<Reading>)>,
    /// The reading that runs, and its begin.
    running: Option<(Instant, Shared<BoxFuture<'static, Outcome>>)>,
}

/// Readings, of which one runs at a time.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    last: Arc<Mutex<Last>>,
}

impl Readings {
    /// Returns a reading that is at most about a second old. Many who ask at once share one. While the engine is busy,
    /// it is the last one.
    pub(crate) async fn read(&self, engine: &Engine) -> Result<Read, Unread> {
        let (begun, running) = {
            let mut last = lock(&self.last);
            if let Some((at, outcome)) = &last.outcome
                && at.elapsed() < FRESH
            {
                return outcome.clone().map(|reading| Read { reading, age: at.elapsed() });
            }
            last.running.get_or_insert_with(|| (Instant::now(), self.begin(engine))).clone()
        };
        match tokio::time::timeout(PATIENCE, running).await {
            Ok(outcome) => outcome.map(|reading| Read { reading, age: Duration::ZERO }),
            Err(_) => {
                let good = lock(&self.last).good.clone();
                let (at, reading) = good.ok_or(Unread::Busy(begun.elapsed()))?;
                Ok(Read { reading, age: at.elapsed() })
            }
        }
    }

    /// Begins a reading, which goes on if nobody waits for it any more.
    fn begin(&self, engine: &Engine) -> Shared<BoxFuture<'static, Outcome>> {
        let (engine, last) = (engine.clone(), self.last.clone());
        let task = tokio::spawn(async move {
            let outcome = read(&engine).await.map(Arc::new);
            let mut last = lock(&last);
            let now = Instant::now();
            if let Ok(reading) = &outcome {
                last.good = Some((now, reading.clone()));
            }
            (last.outcome, last.running) = (Some((now, outcome.clone())), None);
            outcome
        });
        task.map(|done| done.unwrap_or_else(|error| Err(Unread::Failed(error.to_string())))).boxed().shared()
    }

    /// Fails if the engine has not answered for a long time.
    pub(crate) fn check(&self) -> Result<(), Unread> {
        match &lock(&self.last).running {
            Some((begun, _)) if begun.elapsed() > ANSWER_MAX => Err(Unread::Busy(begun.elapsed())),
            _ => Ok(()),
        }
    }
}

fn lock(last: &Mutex<Last>) -> MutexGuard<'_, Last> {
    last.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read(engine: &Engine) -> Result<Reading, Unread> {
    let batches: [RecordBatch; TABLES.len()] = engine
        .system_tables(&TABLES)
        .await?
        .try_into()
        .map_err(|_| Unread::Failed("a system table is missing".into()))?;
    let [sources, views, streams, sinks, memory, checkpoints, jobs, settings, problems] = batches;
    let mut queries = Vec::new();
    for (batch, kind) in [(&views, "materialized view"), (&streams, "stream")] {
        for mut row in rows_of(batch)? {
            row.insert("kind".into(), kind.into());
            queries.push(row);
        }
    }
    queries.sort_by(|a, b| text(a, "name").cmp(&text(b, "name")));
    let settings = rows_of(&settings)?;
    let interval = settings.iter().find(|row| text(row, "name") == Some("batch_interval"));
    Ok(Reading {
        sources: rows_of(&sources)?,
        queries,
        sinks: rows_of(&sinks)?,
        problems: rows_of(&problems)?,
        memory: rows_of(&memory)?.into_iter().next().unwrap_or_default(),
        checkpoints: rows_of(&checkpoints)?,
        statements: jobs.num_rows() as u64,
        interval: interval.and_then(|row| interval_of(text(row, "value")?)),
        ..Reading::default()
    })
}

impl Reading {
    /// Returns what all pages show of it, as a JSON object.
    pub(crate) fn text(&self) -> &str {
        self.text.get_or_init(|| {
            let interval_ms = self.interval.map(|interval| interval.as_secs_f64() * 1e3);
            json!({
                "interval_ms": interval_ms,
                "memory": self.memory,
                "sources": self.sources,
                "queries": self.queries,
                "sinks": self.sinks,
                "checkpoints": self.checkpoints,
                "statements": self.statements,
            })
            .to_string()
        })
    }
}

/// Returns a number that isn't negative.
#[cfg(test)]
pub(crate) fn number(row: &Row, column: &str) -> Option<u64> {
    row.get(column).and_then(Value::as_i64).map(|number| number.max(0) as u64)
}

pub(crate) fn text<'a>(row: &'a Row, column: &str) -> Option<&'a str> {
    row.get(column).and_then(Value::as_str)
}

pub(crate) fn rows_of(batch: &RecordBatch) -> Result<Vec<Row>, Unread> {
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
            let second = readings.read(&engine).await.unwrap();
            (first.reading.clone(), Arc::ptr_eq(&first.reading, &second.reading))
        });
        assert!(shared);
        let names: Vec<_> =
            reading.queries.iter().map(|row| (text(row, "name"), text(row, "kind"))).collect();
        assert_eq!(names, [(Some("a\"b"), Some("materialized view")), (Some("s"), Some("stream"))]);
        assert_eq!(number(&reading.queries[0], "rows"), Some(2));
        assert_eq!(reading.interval, Some(Duration::from_millis(250)));
        // The last statement may still be listed.
        assert!(reading.statements <= 1 && reading.sources.is_empty());
        assert!(number(&reading.memory, "state_bytes").is_some_and(|bytes| bytes > 0));
    }
}
