//! The data of one part of the page is read of the engine on demand, and shared by all who ask within a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch, StringViewArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use millstream_engine::Engine;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::reading::{Unread, rows_of};

/// Maximum time of a reading.
const READING_MAX: Duration = Duration::from_secs(5);

/// The shortest time for which a detail is shared.
const FRESH_MIN: Duration = Duration::from_millis(900);

/// A detail is shared for this many times as long as it took to read, so that reading takes a small part of the
/// engine's time, however many pages are open.
const FRESH_TIMES: u32 = 10;

/// The longest time for which a detail is shared.
const FRESH_MAX: Duration = Duration::from_secs(3);

/// The longest time that one detail waits after another.
const REST_MAX: Duration = Duration::from_secs(1);

/// The seconds of which the busy times of a moment are.
const BUSY_SECONDS: u64 = 5;

/// Maximum number of partitions returned.
const PARTITIONS_MAX: usize = 2000;

/// Maximum number of operators with state returned, the largest ones.
const STATES_MAX: usize = 500;

/// A part of the page.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Detail {
    /// All objects, how they depend on each other, and what each query has done.
    Graph,
    /// The operators of a query.
    Query(String),
    /// An epoch, with its slowest operators.
    Batch(u64),
    /// The partitions of the sources.
    Partitions,
    /// The state of the queries and operators, and the checkpoints.
    State,
    /// The busiest queries and operators around a second since the start.
    Busy(u64),
}

/// A detail that was read, and until when it is shared.
#[derive(Debug)]
struct Kept {
    until: Instant,
    outcome: Result<Arc<str>, Unread>,
}

/// The details that were read within the last moment.
#[derive(Debug, Default)]
pub(crate) struct Details {
    kept: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    kept: BTreeMap<Detail, Kept>,
    /// The time until which no other detail is read.
    rests_until: Option<Instant>,
}

impl Details {
    /// Returns a detail as JSON text. Readings follow each other, so that many pages don't crowd the engine.
    pub(crate) async fn read(&self, engine: &Engine, detail: Detail) -> Result<Arc<str>, Unread> {
        let mut recent = self.kept.lock().await;
        let now = Instant::now();
        recent.kept.retain(|_, kept| kept.until > now);
        if let Some(kept) = recent.kept.get(&detail) {
            return kept.outcome.clone();
        }
        if let Some(until) = recent.rests_until {
            tokio::time::sleep_until(until.into()).await;
        }
        let began = Instant::now();
        let read = tokio::time::timeout(READING_MAX, detail.read(engine)).await;
        let outcome =
            read.unwrap_or(Err(Unread::Busy(READING_MAX))).map(|value| Arc::from(value.to_string()));
        let now = Instant::now();
        let rest = (now - began) * FRESH_TIMES;
        recent.rests_until = Some(now + rest.min(REST_MAX));
        let until = now + rest.clamp(FRESH_MIN, FRESH_MAX);
        recent.kept.insert(detail, Kept { until, outcome: outcome.clone() });
        outcome
    }
}

impl Detail {
    async fn read(&self, engine: &Engine) -> Result<Value, Unread> {
        match self {
            Detail::Graph => {
                let [objects, operators] = tables(engine, ["dependencies", "operators"]).await?;
                let loads: Vec<Value> = loads(&operators)?.iter().map(Load::json).collect();
                Ok(json!({ "at_us": clock_us(), "objects": rows_of(&objects)?, "loads": loads }))
            }
            Detail::Query(name) => {
                let [operators] = tables(engine, ["operators"]).await?;
                let queries = texts(&operators, "query")?;
                let is_wanted: BooleanArray =
                    queries.iter().map(|query| Some(query == Some(name.as_str()))).collect();
                let operators = rows_of(&filtered(&operators, &is_wanted)?)?;
                Ok(json!({ "at_us": clock_us(), "query": name, "operators": operators }))
            }
            Detail::Batch(epoch) => batch(engine, *epoch).await,
            Detail::Partitions => {
                let [partitions] = tables(engine, ["source_partitions"]).await?;
                let partitions = partitions.slice(0, partitions.num_rows().min(PARTITIONS_MAX));
                Ok(json!({ "partitions": rows_of(&partitions)? }))
            }
            Detail::State => state(engine).await,
            Detail::Busy(second) => busy(engine, *second).await,
        }
    }
}

/// Returns the microseconds since an arbitrary time, with which the times of operators are compared.
fn clock_us() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_micros() as u64
}

async fn tables<const N: usize>(engine: &Engine, names: [&str; N]) -> Result<[RecordBatch; N], Unread> {
    engine.system_tables(&names).await?.try_into().map_err(|_| missing(names[0]))
}

fn missing(what: &str) -> Unread {
    Unread::Failed(format!("\"{what}\" is missing in the system tables"))
}

fn texts<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringViewArray, Unread> {
    let column = batch.column_by_name(name).and_then(|column| column.as_string_view_opt());
    column.ok_or_else(|| missing(name))
}

fn numbers<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a Int64Array, Unread> {
    let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
    column.ok_or_else(|| missing(name))
}

fn filtered(batch: &RecordBatch, is_wanted: &BooleanArray) -> Result<RecordBatch, Unread> {
    filter_record_batch(batch, is_wanted).map_err(|error| Unread::Failed(error.to_string()))
}

/// The operators of a query, summed up.
#[derive(Debug, Default, PartialEq, Eq)]
struct Load {
    query: String,
    operators: u64,
    time_us: i64,
    /// Rows of the changes of its inputs.
    rows_in: i64,
    /// Rows of the changes of its result.
    rows_out: i64,
    /// The operator whose output is the result: the one with the highest number.
    last: i64,
    state_rows: i64,
    state_bytes: i64,
    spilled_bytes: i64,
    errors: i64,
    late_rows: Option<i64>,
}

impl Load {
    fn json(&self) -> Value {
        json!({
            "query": self.query,
            "operators": self.operators,
            "time_us": self.time_us,
            "rows_in": self.rows_in,
            "rows_out": self.rows_out,
            "state_rows": self.state_rows,
            "state_bytes": self.state_bytes,
            "spilled_bytes": self.spilled_bytes,
            "errors": self.errors,
            "late_rows": self.late_rows,
        })
    }
}

/// Returns the load of each query, in the order of `operators`, where those of a query follow each other.
fn loads(operators: &RecordBatch) -> Result<Vec<Load>, Unread> {
    let (queries, names) = (texts(operators, "query")?, texts(operators, "operator")?);
    let number = |name| numbers(operators, name);
    let (nodes, times) = (number("node")?, number("time_us")?);
    let (outputs, errors, late) = (number("rows_out")?, number("errors")?, number("late_rows")?);
    let (rows, bytes, spilled) = (number("state_rows")?, number("state_bytes")?, number("spilled_bytes")?);
    let of = |column: &Int64Array, row: usize| if column.is_null(row) { 0 } else { column.value(row) };
    let mut all: Vec<Load> = Vec::new();
    for row in 0..operators.num_rows() {
        let query = queries.value(row);
        if all.last().is_none_or(|load| load.query != query) {
            all.push(Load { query: query.to_string(), last: -1, ..Load::default() });
        }
        let Some(load) = all.last_mut() else { continue };
        load.operators += 1;
        load.time_us += of(times, row);
        load.state_rows += of(rows, row);
        load.state_bytes += of(bytes, row);
        load.spilled_bytes += of(spilled, row);
        load.errors += of(errors, row);
        if !late.is_null(row) {
            load.late_rows = Some(load.late_rows.unwrap_or_default() + late.value(row));
        }
        if names.value(row) == "Input" {
            load.rows_in += of(outputs, row);
        }
        if of(nodes, row) > load.last {
            (load.last, load.rows_out) = (of(nodes, row), of(outputs, row));
        }
    }
    Ok(all)
}

async fn batch(engine: &Engine, epoch: u64) -> Result<Value, Unread> {
    let read = engine.system_tables_of(&["epochs", "epoch_operators"], epoch).await?;
    let [epochs, operators] = &read[..] else { return Err(missing("epochs")) };
    Ok(json!({ "epoch": epoch, "batch": rows_of(epochs)?.first(), "operators": rows_of(operators)? }))
}

/// Returns the time of queries and operators in the seconds around one, summed up.
async fn busy(engine: &Engine, second: u64) -> Result<Value, Unread> {
    let from = second.saturating_sub(BUSY_SECONDS / 2);
    let rows = engine.operator_history(from, from + BUSY_SECONDS).await?;
    let (queries, nodes, times) =
        (texts(&rows, "query")?, numbers(&rows, "node")?, numbers(&rows, "time_us")?);
    let mut sums: BTreeMap<(&str, Option<i64>), i64> = BTreeMap::new();
    for row in 0..rows.num_rows() {
        let node = nodes.is_valid(row).then(|| nodes.value(row));
        *sums.entry((queries.value(row), node)).or_default() += times.value(row);
    }
    let busy: Vec<Value> = sums
        .into_iter()
        .map(|((query, node), time_us)| json!({ "query": query, "node": node, "time_us": time_us }))
        .collect();
    Ok(json!({ "from": from, "seconds": BUSY_SECONDS, "busy": busy }))
}

async fn state(engine: &Engine) -> Result<Value, Unread> {
    let [operators, checkpoints] = tables(engine, ["operators", "checkpoints"]).await?;
    let mut queries = loads(&operators)?;
    queries.retain(|load| load.state_bytes + load.spilled_bytes > 0);
    queries.sort_by_key(|load| std::cmp::Reverse(load.state_bytes + load.spilled_bytes));
    queries.truncate(STATES_MAX);
    let (bytes, spilled) = (numbers(&operators, "state_bytes")?, numbers(&operators, "spilled_bytes")?);
    let sizes: Vec<i64> =
        (0..operators.num_rows()).map(|row| bytes.value(row) + spilled.value(row)).collect();
    let wanted = largest(&sizes, STATES_MAX);
    let is_wanted: BooleanArray = (0..sizes.len()).map(|row| Some(wanted.contains(&row))).collect();
    let mut operators = rows_of(&filtered(&operators, &is_wanted)?)?;
    let size = |row: &crate::reading::Row, name| row.get(name).and_then(Value::as_i64).unwrap_or_default();
    operators.sort_by_key(|row| std::cmp::Reverse(size(row, "state_bytes") + size(row, "spilled_bytes")));
    let mut checkpoints = rows_of(&checkpoints)?;
    checkpoints.reverse();
    let queries: Vec<Value> = queries.iter().map(Load::json).collect();
    Ok(json!({ "queries": queries, "operators": operators, "checkpoints": checkpoints }))
}

/// Returns the places of the largest sizes, at most `count` of them, without zeros.
fn largest(sizes: &[i64], count: usize) -> BTreeSet<usize> {
    let mut places: Vec<usize> = (0..sizes.len()).filter(|place| sizes[*place] > 0).collect();
    places.sort_by_key(|place| std::cmp::Reverse(sizes[*place]));
    places.truncate(count);
    places.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sizes_are_listed_too() {
        assert_eq!(largest(&[7; 600], STATES_MAX).len(), STATES_MAX);
        assert_eq!(largest(&[0, 3, 0, 9, 3], 2), BTreeSet::from([1, 3]));
        assert!(largest(&[0, 0], 2).is_empty());
    }

    #[test]
    fn a_detail_is_shared_for_a_moment() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let engine = Engine::start().unwrap();
        runtime.block_on(async {
            let mut session = engine.session();
            let view =
                "CREATE MATERIALIZED VIEW v AS SELECT id % 2 AS k, count(*) AS n FROM t GROUP BY id % 2";
            for sql in ["CREATE TABLE t (id BIGINT PRIMARY KEY)", view, "INSERT INTO t VALUES (1), (2), (3)"]
            {
                session.execute(sql).await.unwrap();
            }
            let details = Details::default();
            let first = details.read(&engine, Detail::Graph).await.unwrap();
            assert!(Arc::ptr_eq(&first, &details.read(&engine, Detail::Graph).await.unwrap()));
            let graph: Value = serde_json::from_str(&first).unwrap();
            let load = &graph["loads"][0];
            assert_eq!(
                (&load["query"], &load["rows_in"], &load["rows_out"]),
                (&json!("v"), &json!(3), &json!(2))
            );
            assert_eq!((&load["late_rows"], &load["errors"]), (&Value::Null, &json!(0)));
        });
    }
}
