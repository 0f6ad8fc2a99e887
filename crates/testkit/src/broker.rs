//! Examples of user-defined connectors: a broker that keeps messages until they are acknowledged, and a table
//! written in batches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_connect::{
    Arrival, Connector, Delivery, Error, Limit, More, OptionDoc, Result, Sink, SinkSpec, Source,
    SourceProperties, SourceSpec,
};
use millstream_delta::{Cut, Delta, Epoch, Position, Span};

/// Neither connector needs an option; the engine rejects unknown options by name.
const OPTIONS: &[OptionDoc] =
    &[OptionDoc { name: "unused", default: Some("none"), doc: "No test says anything here." }];

/// Maximum number of messages per delivery.
const DELIVERY: u64 = 4;

/// `connector = 'broker'`: numbers from 0 on. The broker forgets acknowledged messages. Its connection breaks
/// repeatedly, and then restarts at the first unacknowledged message.
#[derive(Clone, Debug, Default)]
pub struct Broker(Arc<Mutex<Messages>>);

/// The state of a broker.
#[derive(Debug, Default)]
pub struct Messages {
    /// The number of messages.
    pub sent: u64,
    /// The number of acknowledged messages.
    pub acknowledged: u64,
    /// The number of delivered messages, with redeliveries.
    pub delivered: u64,
    /// The number of broken connections.
    pub breaks: u64,
    /// The number of deliveries after which the connection breaks; 0: never.
    pub break_after: u64,
    /// True if the source declares itself reliable.
    pub reliable: bool,
}

impl Broker {
    /// Returns its state.
    pub fn messages(&self) -> MutexGuard<'_, Messages> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Connector for Broker {
    fn name(&self) -> &'static str {
        "broker"
    }
    fn summary(&self) -> &'static str {
        "Delivers again what was not acknowledged."
    }
    fn source_options(&self) -> &'static [OptionDoc] {
        OPTIONS
    }
    fn source(&self, _: &SourceSpec) -> Result<Box<dyn Source>> {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let reliable = self.messages().reliable;
        Ok(Box::new(BrokerSource { schema, broker: self.clone(), reliable, next: 0, deliveries: 0 }))
    }
}

struct BrokerSource {
    schema: SchemaRef,
    broker: Broker,
    reliable: bool,
    /// The next message that this connection delivers.
    next: u64,
    /// The number of deliveries of this connection.
    deliveries: u64,
}

#[async_trait]
impl Source for BrokerSource {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }
    fn properties(&self) -> SourceProperties {
        SourceProperties { reliable: self.reliable, ..SourceProperties::default() }
    }
    async fn next(&mut self, _: Limit) -> Result<Arrival> {
        let mut messages = self.broker.messages();
        if messages.break_after > 0 && self.deliveries >= messages.break_after {
            messages.breaks += 1;
            self.deliveries = 0;
            self.next = messages.acknowledged;
            return Err(Error::External("the broker has closed the connection".into()));
        }
        // Deliveries have fixed boundaries, so none mixes old messages with new ones.
        let to = messages.sent.min((self.next / DELIVERY + 1) * DELIVERY);
        let from = std::mem::replace(&mut self.next, to);
        let more = if to < messages.sent { More::Now } else { More::Later };
        if from == to {
            return Ok(Arrival::nothing(more));
        }
        self.deliveries += 1;
        messages.delivered += to - from;
        let column = Arc::new(Int64Array::from_iter_values(from as i64..to as i64));
        let rows = RecordBatch::try_new(self.schema.clone(), vec![column])
            .map_err(|error| Error::Bug(format!("numbers don't fit their schema: {error}")))?;
        let span = Span { split: "messages".into(), from, to, done: false };
        Ok(Arrival { rows: vec![rows], spans: vec![span], bad_rows: vec![], more, splits: Vec::new() })
    }
    async fn ready(&mut self) -> Result<()> {
        loop {
            if self.next < self.broker.messages().sent {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
    async fn acknowledge(&mut self, through: &Position) -> Result<()> {
        let through = through.splits.values().map(|progress| progress.through).max().unwrap_or(0);
        let mut messages = self.broker.messages();
        messages.acknowledged = messages.acknowledged.max(through);
        Ok(())
    }
}

/// `connector = 'database'`: sums the column `n`, one transaction per batch, over pooled connections. A
/// transaction stores the batch's number with the rows, so that a repeated batch changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Database(Arc<Mutex<Content>>);

/// The content of the database.
#[derive(Debug, Default)]
pub struct Content {
    /// The sum of each batch, by its number.
    pub sums: BTreeMap<u64, i64>,
    /// The number of idle open connections.
    pool: usize,
    /// The number of connections ever opened.
    pub opened: usize,
    /// The number of transactions begun.
    pub begun: usize,
    /// The number of transactions after which the answer to one is lost, repeatedly.
    pub lose_answer_after: usize,
}

impl Database {
    /// Returns its content.
    pub fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Connector for Database {
    fn name(&self) -> &'static str {
        "database"
    }
    fn summary(&self) -> &'static str {
        "Adds up a column by batches."
    }
    fn sink_options(&self) -> &'static [OptionDoc] {
        OPTIONS
    }
    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        let column = spec.columns.index_of("n").map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(Box::new(DatabaseSink { database: self.clone(), column }))
    }
}

struct DatabaseSink {
    database: Database,
    column: usize,
}

#[async_trait]
impl Sink for DatabaseSink {
    async fn write(&mut self, cut: &Cut, delta: &Delta) -> Result<()> {
        let mut content = self.database.content();
        match content.pool.checked_sub(1) {
            Some(left) => content.pool = left,
            None => content.opened += 1,
        }
        content.begun += 1;
        let mut sum = 0;
        for chunk in &delta.chunks {
            let numbers = chunk.rows.column(self.column).as_primitive::<Int64Type>();
            sum += (0..chunk.rows.num_rows()).map(|row| numbers.value(row) * chunk.weight(row)).sum::<i64>();
        }
        content.sums.entry(cut.epoch.0).or_insert(sum);
        if content.lose_answer_after > 0 && content.begun.is_multiple_of(content.lose_answer_after) {
            return Err(Error::External("the database did not answer".into()));
        }
        content.pool += 1;
        Ok(())
    }
    async fn commit(&mut self, through: Epoch) -> Result<Epoch> {
        Ok(through)
    }
    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }
    async fn recover(&mut self) -> Result<Epoch> {
        Ok(Epoch(self.database.content().sums.keys().last().copied().unwrap_or(0)))
    }
}
