//! The connector `queue`: returns the rows of INSERT INTO the source, one batch a statement.
//!
//! With a PRIMARY KEY the rows are upserts. The column named by `op_column` turns a row into a delete by
//! key.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, BinaryViewBuilder, BooleanArray, Int64Array, RecordBatch, StringViewArray, StructArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use millstream_delta::{Position, Span, sql_type_of};
use tokio::sync::Notify;

use crate::formats::goes;
use crate::{
    Arrival, Connector, Error, Inlet, Limit, More, OptionDoc, Result, Source, SourceProperties, SourceSpec,
    deleted_field,
};

/// Default maximum of waiting rows and statements, and default time that a statement waits for room.
const ROWS_MAX: usize = 1_000_000;
const STATEMENTS_MAX: usize = 10_000;
const INSERT_TIMEOUT: Duration = Duration::from_secs(30);

/// The name of the only split.
const SPLIT: &str = "queue";

/// The connector `queue`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Queue;

const SOURCE_OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        name: "one_at_a_time",
        default: Some("true"),
        doc: "true: each INSERT is a batch of its own, however many rows it has, and a batch reads one of \
              them; false: a batch reads all that wait.",
    },
    OptionDoc {
        name: "rows_max",
        default: Some("1000000"),
        doc: "How many rows may wait. An INSERT waits until there is room; one that is larger waits until it is alone.",
    },
    OptionDoc {
        name: "statements_max",
        default: Some("10000"),
        doc: "The maximum number of waiting INSERTs.",
    },
    OptionDoc {
        name: "insert_timeout",
        default: Some("30 seconds"),
        doc: "How long an INSERT waits for room before it fails.",
    },
    OptionDoc {
        name: "op_column",
        default: Some("none"),
        doc: "For a queue with a PRIMARY KEY, the TEXT column with the operation of a row: NULL or upsert \
              (or insert, update): insert the row, or replace the row with its key; delete: delete that \
              row. Without it no row is deleted.",
    },
];

impl Connector for Queue {
    fn name(&self) -> &'static str {
        "queue"
    }

    fn summary(&self) -> &'static str {
        "Reads rows from INSERT INTO the source, each statement as a batch."
    }

    fn source_options(&self) -> &'static [OptionDoc] {
        SOURCE_OPTIONS
    }

    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        let options = &spec.options;
        let Some(schema) = spec.columns.clone() else {
            return Err(Error::Invalid(format!(
                "source '{}' declares no columns, which a queue needs: CREATE SOURCE {} (column type, …) WITH …",
                spec.name, spec.name
            )));
        };
        let count = |name: &str, default: usize| -> Result<usize> {
            match options.parse(name, "a whole number above zero")? {
                Some(0) => Err(Error::Invalid(format!(
                    "option '{name}' is '0', but a whole number above zero was expected"
                ))),
                count => Ok(count.unwrap_or(default)),
            }
        };
        let operation = operation(spec, &schema)?;
        let waiting = Waiting {
            operation,
            source: spec.name.clone(),
            rows_max: count("rows_max", ROWS_MAX)?,
            statements_max: count("statements_max", STATEMENTS_MAX)?,
            insert_timeout: options.duration("insert_timeout")?.unwrap_or(INSERT_TIMEOUT),
            turn: tokio::sync::Mutex::default(),
            state: Mutex::default(),
            arrived: Notify::new(),
            taken: Notify::new(),
        };
        let one_at_a_time = options.parse("one_at_a_time", "true or false")?.unwrap_or(true);
        let is_feed = !spec.key.is_empty();
        Ok(Box::new(QueueSource { schema, is_feed, one_at_a_time, waiting: Arc::new(waiting), taken: 0 }))
    }
}

/// Returns the number and the name of the column that holds the operation.
fn operation(spec: &SourceSpec, columns: &SchemaRef) -> Result<Option<(usize, String)>> {
    let Some(name) = spec.options.get("op_column") else { return Ok(None) };
    let wrong =
        |what: String| Error::Invalid(format!("source '{}' has op_column = '{name}', but {what}", spec.name));
    if spec.key.is_empty() {
        return Err(wrong(
            "no PRIMARY KEY, by which rows are changed: declare one, or leave op_column out".into(),
        ));
    }
    match columns.fields().iter().position(|field| field.name() == name) {
        None => Err(wrong(format!("no column '{name}': declare it, as in ({name} TEXT)"))),
        Some(place) if columns.field(place).data_type() == &DataType::Utf8View => {
            Ok(Some((place, name.to_string())))
        }
        Some(place) => {
            Err(wrong(format!("column '{name}' is {}: TEXT was expected", sql_type_of(columns.field(place)))))
        }
    }
}

/// The statements on their way from INSERT to the source.
struct Waiting {
    operation: Option<(usize, String)>,
    source: String,
    rows_max: usize,
    statements_max: usize,
    insert_timeout: Duration,
    /// Lock of the statement that is next, which keeps statements in order.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    arrived: Notify,
    taken: Notify,
}

#[derive(Default)]
struct State {
    batches: VecDeque<RecordBatch>,
    rows: usize,
    /// True if the source was dropped.
    closed: bool,
}

impl Waiting {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true for each row to delete. Fails if a row's operation is unknown.
    fn goes(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        let Some((place, name)) = &self.operation else {
            return Ok(BooleanArray::from(vec![false; rows.num_rows()]));
        };
        goes(rows.column(*place).as_string_view()).map_err(|word| {
            Error::Invalid(format!(
                "column '{name}' of source '{}' is '{word}', but 'upsert' (or insert, update) or 'delete' was expected",
                self.source
            ))
        })
    }

    /// Returns a statement's rows as changes, with the origin of each delete.
    fn changes(&self, rows: &RecordBatch, statement: u64) -> Result<RecordBatch> {
        let goes = self.goes(rows)?;
        let mut fields = rows.schema().fields().to_vec();
        fields.push(Arc::new(deleted_field()));
        let mut columns = rows.columns().to_vec();
        let mut records = BinaryViewBuilder::with_capacity(rows.num_rows());
        for (row, goes) in goes.values().iter().enumerate() {
            records.append_value(if goes { text_of(rows, row) } else { String::new() });
        }
        let DataType::Struct(of_deleted) = deleted_field().data_type().clone() else {
            return Err(Error::Bug("what tells of a row that goes is a struct".into()));
        };
        let origin: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(SPLIT, rows.num_rows()))),
            Arc::new(Int64Array::from(vec![statement as i64; rows.num_rows()])),
            Arc::new(records.finish()),
        ];
        let nulls = NullBuffer::new(goes.values().clone());
        columns.push(Arc::new(StructArray::new(of_deleted, origin, Some(nulls))));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
            .map_err(|error| Error::Bug(error.to_string()))
    }

    /// Adds a batch. Returns false if there is no room.
    fn put(&self, rows: &RecordBatch) -> Result<bool> {
        let mut state = self.state();
        if state.closed {
            return Err(Error::Invalid(format!("source '{}' was dropped", self.source)));
        }
        let fits = state.rows + rows.num_rows() <= self.rows_max && state.batches.len() < self.statements_max;
        if !fits && !state.batches.is_empty() {
            return Ok(false);
        }
        state.rows += rows.num_rows();
        state.batches.push_back(rows.clone());
        drop(state);
        self.arrived.notify_one();
        Ok(true)
    }
}

#[async_trait]
impl Inlet for Waiting {
    async fn insert(&self, rows: RecordBatch) -> Result<()> {
        self.goes(&rows)?;
        let insert = async {
            let _turn = self.turn.lock().await;
            while !self.put(&rows)? {
                self.taken.notified().await;
            }
            Ok(())
        };
        tokio::time::timeout(self.insert_timeout, insert).await.unwrap_or_else(|_| {
            let (rows, statements) = {
                let state = self.state();
                (state.rows, state.batches.len())
            };
            Err(Error::External(format!(
                "the queue of source '{}' is full: {rows} rows of {statements} statements wait, and none was \
                 read for \
                 {:?}: create a view or a sink that reads it, wait, or make rows_max or statements_max larger",
                self.source, self.insert_timeout
            )))
        })
    }
}

/// Returns a row's values as bad rows show them.
fn text_of(rows: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let value = |column: &ArrayRef| {
        ArrayFormatter::try_new(column, &options)
            .map_or_else(|_| "…".into(), |text| text.value(row).to_string())
    };
    let values: Vec<String> = rows.columns().iter().map(value).collect();
    format!("({})", values.join(", "))
}

struct QueueSource {
    schema: SchemaRef,
    is_feed: bool,
    one_at_a_time: bool,
    waiting: Arc<Waiting>,
    /// Number of statements read.
    taken: u64,
}

#[async_trait]
impl Source for QueueSource {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties {
            brings_changes: self.is_feed,
            one_arrival_a_batch: self.one_at_a_time,
            ..SourceProperties::default()
        }
    }

    fn inlet(&self) -> Option<Arc<dyn Inlet>> {
        Some(self.waiting.clone())
    }

    async fn seek(&mut self, after: &Position) -> Result<()> {
        self.taken = after.splits.get(SPLIT).map_or(0, |progress| progress.through);
        Ok(())
    }

    async fn next(&mut self, limit: Limit) -> Result<Arrival> {
        let mut state = self.waiting.state();
        let (from, mut rows, mut count) = (self.taken, Vec::new(), 0);
        while let Some(batch) = state.batches.front() {
            // A statement is never divided.
            if !rows.is_empty() && (self.one_at_a_time || count + batch.num_rows() > limit.rows) {
                break;
            }
            count += batch.num_rows();
            state.rows -= batch.num_rows();
            self.taken += 1;
            let Some(batch) = state.batches.pop_front() else { break };
            rows.push(if self.is_feed { self.waiting.changes(&batch, self.taken)? } else { batch });
        }
        let more = if state.batches.is_empty() { More::Later } else { More::Now };
        drop(state);
        let mut spans = Vec::new();
        if self.taken > from {
            self.waiting.taken.notify_one();
            spans.push(Span { split: SPLIT.into(), from, to: self.taken, done: false });
        }
        Ok(Arrival { rows, spans, bad_rows: vec![], more, splits: Vec::new() })
    }

    async fn ready(&mut self) -> Result<()> {
        while self.waiting.state().batches.is_empty() {
            self.waiting.arrived.notified().await;
        }
        Ok(())
    }
}

impl Drop for QueueSource {
    fn drop(&mut self) {
        let mut state = self.waiting.state();
        state.closed = true;
        state.batches.clear();
        drop(state);
        // The waiting statement fails; those behind it notice in their turn.
        self.waiting.taken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use arrow::datatypes::Field;

    use super::*;
    use crate::{Health, Options};

    const LIMIT: Limit = Limit { rows: 100, bytes: 1 << 20 };

    fn rows(count: i64) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
        RecordBatch::try_from_iter_with_nullable([("n", column, true)]).unwrap()
    }

    fn source(more: &[(&str, &str)]) -> Box<dyn Source> {
        let options =
            Options(more.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect());
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let spec = SourceSpec {
            name: "q".into(),
            columns: Some(schema),
            key: vec![],
            options,
            max_record_bytes: 1,
            timestamp_unit: arrow::datatypes::TimeUnit::Microsecond,
            health: Health::default(),
        };
        Queue.source(&spec).unwrap()
    }

    #[tokio::test]
    async fn statements_wait_for_room_in_their_order() {
        let mut source = source(&[("rows_max", "5")]);
        let inlet = source.inlet().unwrap();
        inlet.insert(rows(4)).await.unwrap();
        let waiting: Vec<_> = [2, 1, 3]
            .map(|count| {
                let inlet = inlet.clone();
                tokio::spawn(async move { inlet.insert(rows(count)).await })
            })
            .into();
        let mut taken = Vec::new();
        while taken.len() < 4 {
            tokio::task::yield_now().await;
            let arrival = source.next(LIMIT).await.unwrap();
            taken.extend(arrival.rows.iter().map(RecordBatch::num_rows));
            assert!(arrival.rows.len() <= 1);
        }
        assert_eq!(taken, [4, 2, 1, 3]);
        for insert in waiting {
            insert.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn statements_that_wait_fail_when_the_source_is_dropped() {
        let source = source(&[("statements_max", "1")]);
        let inlet = source.inlet().unwrap();
        inlet.insert(rows(1)).await.unwrap();
        let began = Instant::now();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let inlet = inlet.clone();
                tokio::spawn(async move { inlet.insert(rows(1)).await })
            })
            .collect();
        tokio::task::yield_now().await;
        drop(source);
        for insert in waiting {
            assert_eq!(insert.await.unwrap().unwrap_err().to_string(), "source 'q' was dropped");
        }
        assert!(began.elapsed() < INSERT_TIMEOUT / 2);
    }
}
