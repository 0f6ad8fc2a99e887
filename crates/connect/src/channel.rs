//! A source that a program feeds with record batches over a bounded channel.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream_delta::{Position, Span, fitted};
use tokio::sync::Notify;

use crate::{
    Arrival, Connector, Error, Limit, More, Result, Sink, SinkSpec, Source, SourceProperties, SourceSpec,
};

/// The name of the only split.
const SPLIT: &str = "channel";

/// Creates a channel for rows of `schema` that buffers at most `rows_max` rows. Returns the sender and the
/// connector `name`, whose source reads the channel.
///
/// The source ends when every [`Sender`] is dropped and the channel is empty. Only one source at a time
/// reads it.
pub fn channel(name: &'static str, schema: SchemaRef, rows_max: usize) -> (Sender, Arc<dyn Connector>) {
    let state = State { senders: 1, ..State::default() };
    let shared = Arc::new(Shared { schema, rows_max, state: Mutex::new(state), changed: Notify::new() });
    (Sender { shared: shared.clone() }, Arc::new(Channel { name, shared }))
}

/// The state that the sender and the source share.
struct Shared {
    schema: SchemaRef,
    rows_max: usize,
    state: Mutex<State>,
    /// Notified when rows are sent, read or acknowledged, or when a sender or the source is dropped.
    changed: Notify,
}

#[derive(Default)]
struct State {
    batches: VecDeque<RecordBatch>,
    /// Number of buffered rows.
    waiting: usize,
    /// Numbers of rows sent so far, read by the source, and acknowledged by a finished epoch.
    sent: u64,
    taken: u64,
    acknowledged: u64,
    senders: usize,
    /// True if a source reads the channel.
    is_read: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready` returns a value.
    async fn until<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            // Register before the check, so that no notification is missed.
            let changed = self.changed.notified();
            if let Some(found) = ready(&mut self.state()) {
                return found;
            }
            changed.await;
        }
    }
}

/// The sending end of a [`channel`]. Senders may be cloned.
pub struct Sender {
    shared: Arc<Shared>,
}

impl Sender {
    /// Sends rows as soon as the channel has room for them. A batch larger than the channel is sent once
    /// the channel is empty. Columns are matched by position, and their types must be of the same kind.
    pub async fn send(&self, rows: RecordBatch) -> Result<()> {
        let schema = &self.shared.schema;
        let rows = fitted(&rows, schema).map_err(|error| {
            Error::Invalid(format!("rows for a channel with the columns {schema} don't fit: {error}"))
        })?;
        let count = rows.num_rows();
        if count == 0 {
            return Ok(());
        }
        let max = self.shared.rows_max;
        self.shared
            .until(|state| {
                let fits = state.waiting == 0 || state.waiting + count <= max;
                fits.then(|| {
                    state.batches.push_back(rows.clone());
                    state.waiting += count;
                    state.sent += count as u64;
                })
            })
            .await;
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// Waits until a finished epoch has processed every row sent so far. Waits for ever if no source reads
    /// the channel.
    pub async fn flush(&self) {
        let target = self.shared.state().sent;
        self.shared.until(|state| (state.acknowledged >= target).then_some(())).await;
    }

    /// Returns the number of buffered rows.
    pub fn waiting(&self) -> usize {
        self.shared.state().waiting
    }
}

impl Clone for Sender {
    fn clone(&self) -> Sender {
        self.shared.state().senders += 1;
        Sender { shared: self.shared.clone() }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.state().senders -= 1;
        self.shared.changed.notify_waiters();
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

struct Channel {
    name: &'static str,
    shared: Arc<Shared>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({})", self.name)
    }
}

impl Connector for Channel {
    fn name(&self) -> &'static str {
        self.name
    }

    fn summary(&self) -> &'static str {
        "Reads rows that the embedding program sends."
    }

    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        let name = &spec.name;
        if let Some(columns) = &spec.columns
            && columns.fields().len() != self.shared.schema.fields().len()
        {
            return Err(Error::Invalid(format!(
                "source '{name}' declares {} columns, but the channel '{}' has {}: leave them out to use the \
                 columns of the channel",
                columns.fields().len(),
                self.name,
                self.shared.schema.fields().len()
            )));
        }
        if std::mem::replace(&mut self.shared.state().is_read, true) {
            return Err(Error::Invalid(format!(
                "source '{name}': another source reads the channel '{}'",
                self.name
            )));
        }
        let schema = spec.columns.clone().unwrap_or_else(|| self.shared.schema.clone());
        Ok(Box::new(ChannelSource { schema, shared: self.shared.clone() }))
    }

    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        Err(Error::Invalid(format!("sink '{}': the channel '{}' has no sink", spec.name, self.name)))
    }
}

struct ChannelSource {
    schema: SchemaRef,
    shared: Arc<Shared>,
}

#[async_trait]
impl Source for ChannelSource {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties { bounded: true, reliable: true, ..SourceProperties::default() }
    }

    async fn next(&mut self, limit: Limit) -> Result<Arrival> {
        let (from, to, rows, more) = {
            let mut state = self.shared.state();
            let (from, mut rows, mut left) = (state.taken, Vec::new(), limit.rows.max(1));
            while left > 0
                && let Some(mut batch) = state.batches.pop_front()
            {
                if batch.num_rows() > left {
                    state.batches.push_front(batch.slice(left, batch.num_rows() - left));
                    batch = batch.slice(0, left);
                }
                left -= batch.num_rows();
                state.waiting -= batch.num_rows();
                state.taken += batch.num_rows() as u64;
                rows.push(batch);
            }
            let more = match (state.batches.is_empty(), state.senders) {
                (false, _) => More::Now,
                (true, 0) => More::Never,
                (true, _) => More::Later,
            };
            (from, state.taken, rows, more)
        };
        self.shared.changed.notify_waiters();
        let fitting = rows.iter().map(|rows| fitted(rows, &self.schema));
        let rows = fitting.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| {
            Error::Invalid(format!("the rows of a channel don't fit the columns declared: {error}"))
        })?;
        let span = Span { split: SPLIT.into(), from, to, done: more == More::Never };
        let spans = if rows.is_empty() { Vec::new() } else { vec![span] };
        Ok(Arrival { rows, spans, bad_rows: Vec::new(), more, splits: Vec::new() })
    }

    async fn ready(&mut self) -> Result<()> {
        self.shared.until(|state| (!state.batches.is_empty() || state.senders == 0).then_some(())).await;
        Ok(())
    }

    async fn acknowledge(&mut self, through: &Position) -> Result<()> {
        let through = through.splits.get(SPLIT).map_or(0, |progress| progress.through);
        self.shared.state().acknowledged = through;
        self.shared.changed.notify_waiters();
        Ok(())
    }
}

impl Drop for ChannelSource {
    fn drop(&mut self) {
        self.shared.state().is_read = false;
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::{Health, Options};

    fn rows(values: std::ops::Range<i64>) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        RecordBatch::try_from_iter_with_nullable([("n", column, true)]).unwrap()
    }

    fn spec() -> SourceSpec {
        let (options, health) = (Options::default(), Health::default());
        let timestamp_unit = arrow::datatypes::TimeUnit::Microsecond;
        SourceSpec {
            name: "s".into(),
            columns: None,
            key: vec![],
            options,
            max_record_bytes: 1,
            timestamp_unit,
            health,
        }
    }

    #[tokio::test]
    async fn rows_wait_for_room_and_the_source_ends_with_its_senders() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let (sender, connector) = channel("test", schema, 5);
        let mut source = connector.source(&spec()).unwrap();
        let second = connector.source(&spec()).err().map(|error| error.to_string());
        assert!(second.is_some_and(|error| error.contains("another source reads")));
        sender.send(rows(0..4)).await.unwrap();
        let other = sender.clone();
        let waits = tokio::spawn(async move { other.send(rows(4..7)).await });
        tokio::task::yield_now().await;
        assert_eq!(sender.waiting(), 4);
        let limit = Limit { rows: 3, bytes: 1 << 20 };
        let mut taken = Vec::new();
        drop(sender);
        loop {
            let arrival = source.next(limit).await.unwrap();
            taken.extend(arrival.rows.iter().map(RecordBatch::num_rows));
            match arrival.more {
                More::Now => {}
                More::Later => source.ready().await.unwrap(),
                More::Never => break,
            }
        }
        waits.await.unwrap().unwrap();
        assert_eq!(taken.iter().sum::<usize>(), 7);
        assert!(taken.iter().all(|rows| *rows <= 3));
    }

    #[tokio::test]
    async fn other_columns_are_refused() {
        let schema = Arc::new(Schema::new(vec![Field::new("s", DataType::Utf8View, true)]));
        let (sender, _) = channel("test", schema, 5);
        let error = sender.send(rows(0..1)).await.unwrap_err().to_string();
        assert!(error.contains("don't fit"), "{error}");
    }
}
