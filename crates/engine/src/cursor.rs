//! Cursors: queries whose rows are fetched in portions.

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

/// An open cursor. Rows not yet fetched wait in a bounded buffer of their producer.
pub(crate) struct Cursor {
    rows: Arc<Mutex<Rows>>,
    schema: SchemaRef,
    /// The number of savepoints when it was declared; `None` after it has outlived its transaction.
    pub(crate) level: Option<u32>,
    /// True if it outlives its transaction.
    pub(crate) hold: bool,
    /// The durable subscription that it reads.
    subscription: Option<String>,
}

/// The remaining rows.
struct Rows {
    stream: SendableRecordBatchStream,
    /// Rows that were read but not fetched.
    ready: VecDeque<RecordBatch>,
    ended: bool,
    /// True if the rows may never end. Then a reader gets the rows that are available.
    endless: bool,
    /// For a durable subscription: the newest epoch whose rows were all fetched.
    whole: Option<u64>,
}

/// The number of rows to fetch. If they may never end, also the maximum wait for the first row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Portion {
    /// `None`: all of them, or all that are available.
    pub(crate) rows: Option<usize>,
    /// `None`: no limit.
    pub(crate) timeout: Option<Duration>,
}

/// The state of a fetch.
struct Taking {
    rows: Arc<Mutex<Rows>>,
    left: Option<usize>,
    until: Option<Instant>,
    begun: bool,
}

impl Cursor {
    /// Returns its columns.
    pub(crate) fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Creates a cursor over rows. If `binary`, clients receive binary values.
    pub(crate) fn new(stream: SendableRecordBatchStream, endless: bool, binary: bool, hold: bool) -> Cursor {
        let metadata = if binary { HashMap::from([(BINARY.into(), String::new())]) } else { HashMap::new() };
        let fields = stream.schema().fields().clone();
        let subscription = stream.schema().metadata().get(SUBSCRIPTION).cloned();
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        let rows = Rows { stream, ready: VecDeque::new(), ended: false, endless, whole: None };
        Cursor { rows: Arc::new(Mutex::new(rows)), schema, level: None, hold, subscription }
    }

    /// Returns, for a durable subscription, the newest epoch whose rows were all fetched.
    pub(crate) fn taken_of(&self, subscription: &str) -> Option<u64> {
        // Rows of a fetch in progress don't count as fetched.
        self.rows.try_lock().ok()?.whole.filter(|_| self.subscription.as_deref() == Some(subscription))
    }

    /// Returns some rows. Rows that this reader doesn't take are left for the next fetch.
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

/// Returns the epoch of the last row in a subscription's batch. Each batch has whole epochs.
fn last_epoch(batch: &RecordBatch) -> Option<u64> {
    let epochs = batch.columns().first()?.as_primitive_opt::<Int64Type>()?;
    epochs.values().last().and_then(|epoch| u64::try_from(*epoch).ok())
}

impl Rows {
    /// Reads a batch if there is one. If rows may never end, waits for the first until a deadline, and then
    /// returns only rows that are available.
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
