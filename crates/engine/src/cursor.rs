//! A query whose rows are taken some at a time.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{FutureExt, StreamExt, stream};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::changes::SUBSCRIPTION;
use crate::session::BINARY;

/// An open cursor. What of its rows nobody takes waits where they are made, which has a bound.
pub(crate) struct Cursor {
    rows: Arc<Mutex<Rows>>,
    schema: SchemaRef,
    /// How many savepoints the open transaction had when it was declared; none once it has outlived its transaction.
    pub(crate) level: Option<u32>,
    /// Whether it outlives its transaction.
    pub(crate) hold: bool,
    /// The durable subscription that it reads.
    subscription: Option<String>,
}

/// What is still to be taken.
struct Rows {
    stream: SendableRecordBatchStream,
    /// What was read and not taken.
    ready: VecDeque<RecordBatch>,
    ended: bool,
    /// Whether more may come for ever, so that a reader is given what is there.
    endless: bool,
    /// Of a durable subscription: the newest epoch all of whose rows were taken.
    whole: Option<u64>,
}

/// How many rows are taken, and how long is waited for the first of them where they may come for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Portion {
    /// None: all of them, or all that are there.
    pub(crate) rows: Option<usize>,
    /// None: for as long as it takes.
    pub(crate) timeout: Option<Duration>,
}

/// A portion that is being taken.
struct Taking {
    rows: Arc<Mutex<Rows>>,
    left: Option<usize>,
    until: Option<Instant>,
    begun: bool,
}

impl Cursor {
    /// Its columns.
    pub(crate) fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// A cursor over rows. In `binary`, clients that read them are sent binary values.
    pub(crate) fn new(stream: SendableRecordBatchStream, endless: bool, binary: bool, hold: bool) -> Cursor {
        let metadata = if binary { HashMap::from([(BINARY.into(), String::new())]) } else { HashMap::new() };
        let fields = stream.schema().fields().clone();
        let subscription = stream.schema().metadata().get(SUBSCRIPTION).cloned();
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        let rows = Rows { stream, ready: VecDeque::new(), ended: false, endless, whole: None };
        Cursor { rows: Arc::new(Mutex::new(rows)), schema, level: None, hold, subscription }
    }

    /// Of a durable subscription: the newest epoch all of whose rows were taken.
    pub(crate) fn taken_of(&self, subscription: &str) -> Option<u64> {
        // Where rows are being taken now, they aren't taken yet.
        self.rows.try_lock().ok()?.whole.filter(|_| self.subscription.as_deref() == Some(subscription))
    }

    /// Some rows as they come. What the reader of these doesn't take is there for the next.
    pub(crate) fn fetch(&self, portion: Portion) -> SendableRecordBatchStream {
        let until = portion.timeout.map(|timeout| Instant::now() + timeout);
        let taking = Taking { rows: self.rows.clone(), left: portion.rows, until, begun: false };
        let batches = stream::try_unfold(taking, |mut taking| async move {
            Ok(taking.next().await?.map(|batch| (batch, taking)))
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}

impl Taking {
    async fn next(&mut self) -> Result<Option<RecordBatch>, DataFusionError> {
        if self.left == Some(0) {
            return Ok(None);
        }
        let rows = self.rows.clone();
        let mut rows = rows.lock().await;
        loop {
            if rows.ready.is_empty() && !rows.read(self.begun, self.until).await? {
                return Ok(None);
            }
            let Some(batch) = rows.ready.pop_front() else { return Ok(None) };
            let count = batch.num_rows().min(self.left.unwrap_or(usize::MAX));
            if count < batch.num_rows() {
                rows.ready.push_front(batch.slice(count, batch.num_rows() - count));
            }
            if count == 0 {
                continue;
            }
            if count == batch.num_rows() {
                rows.whole = last_epoch(&batch).or(rows.whole);
            }
            self.begun = true;
            self.left = self.left.map(|left| left - count);
            return Ok(Some(batch.slice(0, count)));
        }
    }
}

/// The epoch of the last row of a subscription's batch, each of which has whole epochs.
fn last_epoch(batch: &RecordBatch) -> Option<u64> {
    let epochs = batch.columns().first()?.as_primitive_opt::<Int64Type>()?;
    epochs.values().last().and_then(|epoch| u64::try_from(*epoch).ok())
}

impl Rows {
    /// Reads a batch, if there is one for this reader: of rows that may come for ever the first is waited for until
    /// some time, and after it only what is there is taken.
    async fn read(&mut self, begun: bool, until: Option<Instant>) -> Result<bool, DataFusionError> {
        if self.ended {
            return Ok(false);
        }
        let next = self.stream.next();
        let batch = match (self.endless, begun, until) {
            (false, ..) | (true, false, None) => next.await,
            (true, true, _) => match next.now_or_never() {
                Some(batch) => batch,
                None => return Ok(false),
            },
            (true, false, Some(until)) => match tokio::time::timeout_at(until, next).await {
                Ok(batch) => batch,
                Err(_) => return Ok(false),
            },
        };
        self.ended = !matches!(batch, Some(Ok(_)));
        self.ready.extend(batch.transpose()?);
        Ok(!self.ready.is_empty())
    }
}
