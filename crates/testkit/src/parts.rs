//! Connectors for tests: a source that counts its rows, a source that the test fills, a sink that the test
//! blocks.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_connect::{
    Arrival, Connector, Error, Limit, More, OptionDoc, Result, Sink, SinkSpec, Source, SourceProperties,
    SourceSpec,
};
use millstream_delta::{Cut, Delta, Epoch, Position, Span};
use tokio::sync::{Notify, Semaphore};

/// A connector declares by its options that it has a source, or a sink.
const OPTIONS: &[OptionDoc] = &[OptionDoc { name: "label", default: Some("none"), doc: "Means nothing." }];

/// `connector = 'numbers'`: one BIGINT column `n` that counts from 0 and never ends; replayable.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    taken: Arc<AtomicU64>,
}

impl Numbers {
    /// Returns the number of rows taken so far.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::SeqCst)
    }
}

impl Connector for Numbers {
    fn name(&self) -> &'static str {
        "numbers"
    }
    fn summary(&self) -> &'static str {
        "Counts from 0 without end."
    }
    fn source_options(&self) -> &'static [OptionDoc] {
        OPTIONS
    }
    fn source(&self, _: &SourceSpec) -> Result<Box<dyn Source>> {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        Ok(Box::new(NumbersSource { schema, next: 0, taken: self.taken.clone() }))
    }
}

struct NumbersSource {
    schema: SchemaRef,
    next: u64,
    taken: Arc<AtomicU64>,
}

impl NumbersSource {
    fn read(&self, from: u64, to: u64) -> Result<Arrival> {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(from as i64..to as i64));
        let rows = RecordBatch::try_new(self.schema.clone(), vec![column])
            .map_err(|error| Error::Bug(format!("numbers don't fit their schema: {error}")))?;
        let span = Span { split: "numbers".into(), from, to, done: false };
        Ok(Arrival {
            rows: vec![rows],
            spans: vec![span],
            bad_rows: Vec::new(),
            more: More::Now,
            splits: Vec::new(),
        })
    }
}

#[async_trait]
impl Source for NumbersSource {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }
    fn properties(&self) -> SourceProperties {
        SourceProperties { replayable: true, ..SourceProperties::default() }
    }
    async fn seek(&mut self, after: &Position) -> Result<()> {
        self.next = after.splits.values().map(|progress| progress.through).max().unwrap_or(0);
        Ok(())
    }
    async fn next(&mut self, limit: Limit) -> Result<Arrival> {
        let to = self.next + limit.rows.min(limit.bytes / 8).max(1) as u64;
        let arrival = self.read(self.next, to)?;
        self.taken.fetch_add(to - self.next, Ordering::SeqCst);
        self.next = to;
        Ok(arrival)
    }
    async fn ready(&mut self) -> Result<()> {
        Ok(())
    }
    async fn replay(&mut self, span: &Span, limit: Limit) -> Result<Arrival> {
        let to = span.to.min(span.from + limit.rows.max(1) as u64);
        let mut arrival = self.read(span.from, to)?;
        arrival.more = if to < span.to { More::Now } else { More::Later };
        Ok(arrival)
    }
}

/// `connector = 'pushed'`: rows of the declared columns that the test pushes; not replayable.
#[derive(Clone, Debug, Default)]
pub struct Pushed {
    shared: Arc<PushedShared>,
}

#[derive(Debug, Default)]
struct PushedShared {
    queue: Mutex<PushedQueue>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct PushedQueue {
    batches: VecDeque<RecordBatch>,
    taken: u64,
    ended: bool,
}

impl PushedShared {
    fn queue(&self) -> MutexGuard<'_, PushedQueue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Pushed {
    /// Pushes rows as one arrival.
    pub fn push(&self, rows: RecordBatch) {
        self.shared.queue().batches.push_back(rows);
        self.shared.changed.notify_one();
    }

    /// Ends the source.
    pub fn end(&self) {
        self.shared.queue().ended = true;
        self.shared.changed.notify_one();
    }

    /// Returns the number of rows taken so far.
    pub fn taken(&self) -> u64 {
        self.shared.queue().taken
    }
}

impl Connector for Pushed {
    fn name(&self) -> &'static str {
        "pushed"
    }
    fn summary(&self) -> &'static str {
        "Rows that the test pushes."
    }
    fn source_options(&self) -> &'static [OptionDoc] {
        OPTIONS
    }
    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        let schema = spec.columns.clone();
        let schema =
            schema.ok_or_else(|| Error::Invalid(format!("source '{}': declare its columns", spec.name)))?;
        Ok(Box::new(PushedSource { schema, shared: self.shared.clone() }))
    }
}

struct PushedSource {
    schema: SchemaRef,
    shared: Arc<PushedShared>,
}

#[async_trait]
impl Source for PushedSource {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }
    async fn next(&mut self, limit: Limit) -> Result<Arrival> {
        let mut queue = self.shared.queue();
        let from = queue.taken;
        let mut rows = Vec::new();
        if let Some(batch) = queue.batches.pop_front() {
            let taken = batch.num_rows().min(limit.rows.max(1));
            if taken < batch.num_rows() {
                queue.batches.push_front(batch.slice(taken, batch.num_rows() - taken));
            }
            queue.taken += taken as u64;
            rows.push(batch.slice(0, taken));
        }
        let more = match (queue.batches.is_empty(), queue.ended) {
            (false, _) => More::Now,
            (true, false) => More::Later,
            (true, true) => More::Never,
        };
        let span = Span { split: "pushed".into(), from, to: queue.taken, done: more == More::Never };
        let spans = if rows.is_empty() { Vec::new() } else { vec![span] };
        Ok(Arrival { rows, spans, bad_rows: Vec::new(), more, splits: Vec::new() })
    }
    async fn ready(&mut self) -> Result<()> {
        loop {
            let changed = self.shared.changed.notified();
            {
                let queue = self.shared.queue();
                if !queue.batches.is_empty() || queue.ended {
                    return Ok(());
                }
            }
            changed.await;
        }
    }
}

/// `connector = 'gate'`: a sink whose every write waits for the test's permit.
#[derive(Clone, Debug)]
pub struct Gate {
    permits: Arc<Semaphore>,
    delivered: Arc<AtomicU64>,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate { permits: Arc::new(Semaphore::new(0)), delivered: Arc::default() }
    }
}

impl Gate {
    /// Permits `writes` more writes.
    pub fn open(&self, writes: usize) {
        self.permits.add_permits(writes);
    }

    /// Returns the number of rows delivered so far.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::SeqCst)
    }
}

impl Connector for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }
    fn summary(&self) -> &'static str {
        "Lets through what the test allows."
    }
    fn sink_options(&self) -> &'static [OptionDoc] {
        OPTIONS
    }
    fn sink(&self, _: &SinkSpec) -> Result<Box<dyn Sink>> {
        Ok(Box::new(GateSink { gate: self.clone(), held: Epoch(0) }))
    }
}

struct GateSink {
    gate: Gate,
    held: Epoch,
}

#[async_trait]
impl Sink for GateSink {
    async fn write(&mut self, cut: &Cut, delta: &Delta) -> Result<()> {
        let permit = self.gate.permits.acquire().await;
        permit.map_err(|_| Error::External("the gate is gone".into()))?.forget();
        self.gate.delivered.fetch_add(delta.num_rows() as u64, Ordering::SeqCst);
        self.held = cut.epoch;
        Ok(())
    }
    async fn commit(&mut self, through: Epoch) -> Result<Epoch> {
        Ok(through)
    }
    async fn recover(&mut self) -> Result<Epoch> {
        Ok(self.held)
    }
}
