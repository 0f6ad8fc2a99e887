//! The connector `queue`: what INSERT INTO the source puts in, a statement a batch.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream_delta::{Position, Span};
use tokio::sync::Notify;

use super::has_no;
use crate::{
    Arrival, Connector, Error, Inlet, Limit, More, OptionDoc, Result, Sink, SinkSpec, Source, SourceSpec,
};

/// Rows and statements that may wait, and for how long a statement waits for room, unless options say otherwise.
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
        doc: "true: each INSERT is a batch of its own, however many rows it has, and a batch takes one of them; false: a \
              batch takes all that wait.",
    },
    OptionDoc {
        name: "rows_max",
        default: Some("1000000"),
        doc: "How many rows may wait. An INSERT waits until there is room; one that is larger waits until it is alone.",
    },
    OptionDoc {
        name: "statements_max",
        default: Some("10000"),
        doc: "How many INSERTs may wait to be taken.",
    },
    OptionDoc {
        name: "insert_timeout",
        default: Some("30 seconds"),
        doc: "How long an INSERT waits for room before it fails.",
    },
];

impl Connector for Queue {
    fn name(&self) -> &'static str {
        "queue"
    }

    fn summary(&self) -> &'static str {
        "Takes rows from INSERT INTO the source, each statement as a batch."
    }

    fn source_options(&self) -> &'static [OptionDoc] {
        SOURCE_OPTIONS
    }

    fn sink_options(&self) -> &'static [OptionDoc] {
        &[]
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
        let waiting = Waiting {
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
        Ok(Box::new(QueueSource { schema, one_at_a_time, waiting: Arc::new(waiting), taken: 0 }))
    }

    fn sink(&self, _spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        Err(has_no("sink", "queue", "source"))
    }
}

/// What waits, between those who insert and the source.
struct Waiting {
    source: String,
    rows_max: usize,
    statements_max: usize,
    insert_timeout: Duration,
    /// Held by the statement that is next, so that they come in their order.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    arrived: Notify,
    taken: Notify,
}

#[derive(Default)]
struct State {
    batches: VecDeque<RecordBatch>,
    rows: usize,
    /// Whether the source is gone.
    closed: bool,
}

impl Waiting {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a batch in, if there is room.
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
                "the queue of source '{}' is full: {rows} rows of {statements} statements wait, and none was taken for \
                 {:?}: create a view or a sink that reads it, wait, or make rows_max or statements_max larger",
                self.source, self.insert_timeout
            )))
        })
    }
}

struct QueueSource {
    schema: SchemaRef,
    one_at_a_time: bool,
    waiting: Arc<Waiting>,
    /// How many statements were taken.
    taken: u64,
}

#[async_trait]
impl Source for QueueSource {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn replayable(&self) -> bool {
        false
    }

    fn bounded(&self) -> bool {
        false
    }

    fn one_arrival_a_batch(&self) -> bool {
        self.one_at_a_time
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
            rows.extend(state.batches.pop_front());
            self.taken += 1;
        }
        let more = if state.batches.is_empty() { More::Later } else { More::Now };
        drop(state);
        let mut spans = Vec::new();
        if self.taken > from {
            self.waiting.taken.notify_one();
            spans.push(Span { split: SPLIT.into(), from, to: self.taken, done: false });
        }
        Ok(Arrival { rows, spans, bad_rows: vec![], more })
    }

    async fn ready(&mut self) -> Result<()> {
        while self.waiting.state().batches.is_empty() {
            self.waiting.arrived.notified().await;
        }
        Ok(())
    }

    async fn replay(&mut self, _span: &Span, _limit: Limit) -> Result<Arrival> {
        Err(Error::Bug("a queue can't be read again, and says so".into()))
    }

    async fn acknowledge(&mut self, _through: &Position) -> Result<()> {
        Ok(())
    }
}

impl Drop for QueueSource {
    fn drop(&mut self) {
        let mut state = self.waiting.state();
        state.closed = true;
        state.batches.clear();
        drop(state);
        // The one that waits fails, and those behind it find that out in their turn.
        self.waiting.taken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema};

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
            options,
            max_record_bytes: 1,
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
