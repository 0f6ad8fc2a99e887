//! The reader's side of a subscription: converts deltas to rows with their operations.

mod op;
mod typed;

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream;
use millstream_delta::{Cut, Delta, Epoch, under_schema};
use millstream_sql::Result;
use tokio::sync::mpsc::Receiver;

use crate::content::Content;
use crate::error;
use crate::event::Event;
use crate::run::in_sum;
use crate::session::{ENDLESS, NOTICE, Response};
pub use op::Op;
use op::told;
pub use typed::{Change, Changes, Following};

/// A group of changes that is sent to a reader at once.
#[derive(Debug)]
pub(crate) struct Portion {
    /// The content of the relation at the beginning, if a reader assembles it. It comes before all epochs.
    pub(crate) content: Option<(Cut, Content)>,
    /// The changes by epoch.
    pub(crate) epochs: Vec<(Cut, Delta)>,
    /// True if the first epoch is the initial content of the relation.
    pub(crate) snapshot: bool,
    /// The progress to report: the epoch reported last, and the epoch reached now.
    pub(crate) told: Option<(Epoch, Epoch)>,
}

/// The end of a subscription. The loop sets it before it drops the subscription.
#[derive(Clone, Debug, Default)]
pub(crate) struct End(Arc<Mutex<Option<Result<()>>>>);

impl End {
    /// Sets the result.
    pub(crate) fn set(&self, end: Result<()>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }

    /// Returns the result. If the loop ended without setting one, returns the error that the engine has
    /// stopped.
    fn take(&self) -> Result<()> {
        let end = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        end.unwrap_or_else(|| Err(error::stopped()))
    }
}

/// A subscription that has begun.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) subscription: u64,
    pub(crate) receiver: Receiver<Portion>,
    pub(crate) end: End,
    pub(crate) events: Sender<Event>,
    /// The relation's columns.
    pub(crate) schema: SchemaRef,
    /// True if the relation is append-only.
    pub(crate) append_only: bool,
    /// The columns of a key, if one is known.
    pub(crate) key: Option<Vec<usize>>,
    /// The durable subscription that is read.
    pub(crate) durable: Option<Arc<str>>,
    pub(crate) notices: Vec<String>,
}

/// The extra columns before those of the relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The operation, unless the relation is append-only.
    Emit,
    /// The batch and the operation.
    Subscribe,
}

/// Notifies the loop when the reader goes away.
struct Guard {
    subscription: u64,
    events: Sender<Event>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Unsubscribe { subscription: self.subscription });
    }
}

/// The receiving end of a subscription.
struct Tap {
    receiver: Receiver<Portion>,
    end: End,
    guard: Guard,
    /// The number of the relation's first columns that the reader gets.
    columns: usize,
}

impl Tap {
    fn new(receiver: Receiver<Portion>, end: End, guard: Guard, schema: &Schema) -> Tap {
        Tap { receiver, end, guard, columns: schema.fields().len() }
    }

    /// Returns the next portion, or `None` at the end.
    async fn next(&mut self) -> Result<Option<Portion>> {
        let Some(mut portion) = self.receiver.recv().await else {
            return self.end.take().map(|()| None);
        };
        if let Some((cut, content)) = portion.content.take() {
            let content = Delta::from_iter(content.batches().await?);
            let content = content.first_columns(self.columns).map_err(error::arrow)?.into_owned();
            portion.epochs.insert(0, (cut, content));
        }
        // The reader now has room for the next portion while it works on this one.
        let _ = self.guard.events.send(Event::Room);
        Ok(Some(portion))
    }
}

/// The state of a change stream between two batches.
struct Reader {
    tap: Tap,
    form: Form,
    ready: VecDeque<RecordBatch>,
    /// The number of rows still to return, if limited.
    left: Option<usize>,
}

/// The conversion of deltas to rows.
struct Form {
    shape: Shape,
    /// The relation's columns.
    columns: SchemaRef,
    /// The result's columns.
    schema: SchemaRef,
    append_only: bool,
    key: Option<Vec<usize>>,
    /// True if all rows of an epoch form one batch, so a reader that took a batch has the whole epoch. Then
    /// progress is reported only for epochs known to be complete. A lagging query may step several epochs at
    /// once: those before the one with changes are not known to be.
    whole: bool,
}

/// The operation of a row that only reports progress.
const PROGRESS: &str = "progress";

/// The schema metadata key with the name of the durable subscription that is read.
pub(crate) const SUBSCRIPTION: &str = "millstream.subscription";

/// The columns before those of the relation.
const BATCH_ID: &str = "_batch_id";
const OP: &str = "_op";

/// Returns the rows of a subscription, at most `limit`.
pub(crate) fn response(opened: Opened, shape: Shape, limit: Option<usize>) -> Response {
    let Opened { subscription, receiver, end, events, schema, append_only, key, durable, notices } = opened;
    let mut form = Form::new(shape, schema, append_only, key, &notices);
    if let Some(name) = durable {
        form.whole = true;
        form.mark(SUBSCRIPTION, &name);
    }
    let schema = form.schema.clone();
    let tap = Tap::new(receiver, end, Guard { subscription, events }, &form.columns);
    let reader = Reader { tap, form, ready: VecDeque::new(), left: limit };
    let rows = stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await.map_err(DataFusionError::from)?.map(|batch| (batch, reader)))
    });
    let rows: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(schema, rows));
    Response::Rows(rows)
}

impl Reader {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if self.left == Some(0) {
            return Ok(None);
        }
        while self.ready.is_empty() {
            let Some(portion) = self.tap.next().await? else { return Ok(None) };
            self.ready.extend(self.form.rows_of(portion).map_err(error::arrow)?);
        }
        let Some(mut batch) = self.ready.pop_front() else { return Ok(None) };
        if let Some(left) = &mut self.left {
            batch = batch.slice(0, batch.num_rows().min(*left));
            *left -= batch.num_rows();
        }
        Ok(Some(batch))
    }
}

impl Form {
    fn new(
        shape: Shape,
        columns: SchemaRef,
        append_only: bool,
        key: Option<Vec<usize>>,
        notices: &[String],
    ) -> Form {
        let mut fields = Vec::with_capacity(columns.fields().len() + 2);
        if shape == Shape::Subscribe {
            fields.push(Field::new(BATCH_ID, DataType::Int64, false));
        }
        if shape == Shape::Subscribe || !append_only {
            fields.push(Field::new(OP, DataType::Utf8View, false));
        }
        // A row that reports progress has no values, so every column is nullable.
        fields.extend(columns.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)));
        let mut metadata = HashMap::from([(ENDLESS.to_string(), String::new())]);
        if !notices.is_empty() {
            metadata.insert(NOTICE.to_string(), notices.join("\n"));
        }
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        Form { shape, columns, schema, append_only, key, whole: false }
    }

    /// Adds an entry to the schema's metadata.
    fn mark(&mut self, name: &str, value: &str) {
        let mut metadata = self.schema.metadata().clone();
        metadata.insert(name.to_string(), value.to_string());
        self.schema = Arc::new(Schema::new_with_metadata(self.schema.fields().clone(), metadata));
    }

    fn rows_of(&self, portion: Portion) -> Result<Vec<RecordBatch>, ArrowError> {
        let Portion { epochs, snapshot, told, .. } = portion;
        let mut batches = Vec::new();
        let (mut after, through) = told.unwrap_or_default();
        for (place, (cut, delta)) in epochs.into_iter().enumerate() {
            let is_snapshot = snapshot && place == 0;
            if told.is_some() && !is_snapshot && !self.whole {
                self.tell(after, Epoch(cut.epoch.0 - 1), &mut batches)?;
            }
            self.changes(cut.epoch, delta, &mut batches)?;
            if told.is_some() {
                // The end of the initial snapshot is reported too.
                self.tell(cut.epoch.previous(), cut.epoch, &mut batches)?;
                after = cut.epoch;
            }
        }
        if told.is_some() {
            let after = if self.whole { after.max(through.previous()) } else { after };
            self.tell(after, through, &mut batches)?;
        }
        Ok(batches)
    }

    /// Adds one progress row for each epoch in `(after, through]`.
    fn tell(&self, after: Epoch, through: Epoch, batches: &mut Vec<RecordBatch>) -> Result<(), ArrowError> {
        if through <= after {
            return Ok(());
        }
        let epochs = Int64Array::from_iter_values((after.0 + 1..=through.0).map(|epoch| epoch as i64));
        let count = epochs.len();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(epochs),
            Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(PROGRESS, count))),
        ];
        let fields = self.columns.fields().iter();
        columns.extend(fields.map(|field| new_null_array(field.data_type(), count)));
        batches.push(RecordBatch::try_new(self.schema.clone(), columns)?);
        Ok(())
    }

    /// Adds the changes of one epoch; n copies of a row become n rows.
    fn changes(&self, epoch: Epoch, delta: Delta, batches: &mut Vec<RecordBatch>) -> Result<(), ArrowError> {
        if delta.is_append_only() {
            let chunks = match self.whole {
                true => delta.into_one(&self.columns)?.into_iter().collect(),
                false => delta.chunks,
            };
            for chunk in &chunks {
                let rows = chunk.expand()?;
                let ops = vec![Op::Insert.name(); rows.num_rows()];
                batches.push(self.with_ops(epoch, &rows, &ops)?);
            }
            return Ok(());
        }
        let Some(chunk) = in_sum(delta).into_one(&self.columns)? else { return Ok(()) };
        let (rows, ops) = told(&chunk, self.key.as_deref())?;
        let ops: Vec<&str> = ops.into_iter().map(Op::name).collect();
        batches.push(self.with_ops(epoch, &rows, &ops)?);
        Ok(())
    }

    fn with_ops(&self, epoch: Epoch, rows: &RecordBatch, ops: &[&str]) -> Result<RecordBatch, ArrowError> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(rows.num_columns() + 2);
        if self.shape == Shape::Subscribe {
            columns.push(Arc::new(Int64Array::from(vec![epoch.0 as i64; rows.num_rows()])));
        }
        if self.shape == Shape::Subscribe || !self.append_only {
            columns.push(Arc::new(StringViewArray::from_iter_values(ops)));
        }
        if columns.is_empty() {
            return under_schema(rows, &self.schema);
        }
        columns.extend(rows.columns().iter().cloned());
        RecordBatch::try_new(self.schema.clone(), columns)
    }
}
