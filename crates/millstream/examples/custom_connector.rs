//! A user-defined source and sink. The source is a mailbox that keeps its messages until they are
//! acknowledged. The sink is a ledger that applies each batch once, however often the engine sends it.
//!
//! ```sh
//! cargo run --example custom_connector
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use millstream::arrow::array::{AsArray, Int64Array, RecordBatch};
use millstream::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use millstream::connect::{
    Arrival, Connector, Error, Limit, More, OptionDoc, Result, Sink, SinkSpec, Source, SourceProperties,
    SourceSpec,
};
use millstream::delta::{Cut, Delta, Epoch, Position, Span};
use millstream::{Engine, arrow};

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A message server. After each broken connection it sends the unacknowledged messages again.
#[derive(Debug)]
struct Mailbox {
    messages: Vec<i64>,
    acknowledged: usize,
    /// Number of deliveries until the connection breaks.
    breaks_in: usize,
    breaks: usize,
}

/// `connector = 'mail'`
#[derive(Debug)]
struct Mail {
    mailbox: Arc<Mutex<Mailbox>>,
}

/// The options of CREATE SOURCE, with their documentation.
const OPTIONS: &[OptionDoc] =
    &[OptionDoc { name: "at_once", default: Some("4"), doc: "How many messages the server sends at once." }];

impl Connector for Mail {
    fn name(&self) -> &'static str {
        "mail"
    }
    fn summary(&self) -> &'static str {
        "Reads a mailbox."
    }
    fn source_options(&self) -> &'static [OptionDoc] {
        OPTIONS
    }
    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        let at_once: Option<usize> = spec.options.parse("at_once", "a whole number")?;
        Ok(Box::new(MailSource {
            schema: Arc::new(Schema::new(vec![Field::new("amount", DataType::Int64, true)])),
            mailbox: self.mailbox.clone(),
            at_once: at_once.unwrap_or(4).max(1),
            next: 0,
        }))
    }
}

struct MailSource {
    schema: SchemaRef,
    mailbox: Arc<Mutex<Mailbox>>,
    at_once: usize,
    /// The message that this connection sends next.
    next: usize,
}

#[async_trait]
impl Source for MailSource {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }
    // The server drops acknowledged messages, so the source cannot be read again.
    // The engine acknowledges what it has stored, and it ignores rows that are delivered twice.
    fn properties(&self) -> SourceProperties {
        SourceProperties { bounded: true, reliable: true, ..SourceProperties::default() }
    }
    async fn next(&mut self, limit: Limit) -> Result<Arrival> {
        let mut mailbox = locked(&self.mailbox);
        if mailbox.breaks_in == 0 {
            (mailbox.breaks_in, self.next) = (7, mailbox.acknowledged);
            mailbox.breaks += 1;
            // `External`: the engine retries after a pause.
            return Err(Error::External("the server has closed the connection".into()));
        }
        mailbox.breaks_in -= 1;
        // Deliveries are always cut at the same places. None mixes messages the engine has with new ones.
        let end = (self.next / self.at_once + 1) * self.at_once;
        let to = end.min(mailbox.messages.len()).min(self.next + limit.rows);
        let from = std::mem::replace(&mut self.next, to);
        let amounts = Arc::new(Int64Array::from_iter_values(mailbox.messages[from..to].iter().copied()));
        let rows = RecordBatch::try_new(self.schema.clone(), vec![amounts])
            .map_err(|error| Error::Bug(format!("amounts don't fit their schema: {error}")))?;
        let done = to == mailbox.messages.len();
        let span = Span { split: "inbox".into(), from: from as u64, to: to as u64, done };
        let more = if done { More::Never } else { More::Now };
        Ok(Arrival { rows: vec![rows], spans: vec![span], bad_rows: vec![], more, splits: Vec::new() })
    }
    async fn ready(&mut self) -> Result<()> {
        Ok(())
    }
    async fn acknowledge(&mut self, through: &Position) -> Result<()> {
        let through = through.splits.get("inbox").map_or(0, |progress| progress.through as usize);
        locked(&self.mailbox).acknowledged = through;
        Ok(())
    }
}

/// A database that stores the amount of each batch, by the batch's number.
#[derive(Debug, Default)]
struct Ledger {
    booked: BTreeMap<u64, i64>,
    transactions: usize,
}

/// `connector = 'ledger'`
#[derive(Debug)]
struct Books {
    ledger: Arc<Mutex<Ledger>>,
}

impl Connector for Books {
    fn name(&self) -> &'static str {
        "ledger"
    }
    fn summary(&self) -> &'static str {
        "Adds up a column, batch by batch."
    }
    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        let column = spec
            .columns
            .index_of("amount")
            .map_err(|_| Error::Invalid(format!("sink '{}' delivers no column \"amount\"", spec.name)))?;
        Ok(Box::new(BooksSink { ledger: self.ledger.clone(), column }))
    }
}

struct BooksSink {
    ledger: Arc<Mutex<Ledger>>,
    column: usize,
}

#[async_trait]
impl Sink for BooksSink {
    /// Writes the rows and the batch's number in one transaction. A batch that the ledger already has stays
    /// unchanged.
    async fn write(&mut self, cut: &Cut, delta: &Delta) -> Result<()> {
        let mut sum = 0;
        for chunk in &delta.chunks {
            let amounts = chunk.rows.column(self.column).as_primitive::<Int64Type>();
            // A weight is the number of copies added; a negative weight removes copies.
            sum += (0..chunk.rows.num_rows()).map(|row| amounts.value(row) * chunk.weight(row)).sum::<i64>();
        }
        let mut ledger = locked(&self.ledger);
        ledger.transactions += 1;
        ledger.booked.entry(cut.epoch.0).or_insert(sum);
        // The reply to every third transaction is lost. The engine sends the batch again, which changes
        // nothing.
        match ledger.transactions % 3 {
            0 => Err(Error::External("the database did not answer".into())),
            _ => Ok(()),
        }
    }
    /// Returns `through`: `write` has already made the rows visible.
    async fn commit(&mut self, through: Epoch) -> Result<Epoch> {
        Ok(through)
    }
    async fn recover(&mut self) -> Result<Epoch> {
        Ok(Epoch(locked(&self.ledger).booked.keys().last().copied().unwrap_or(0)))
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let messages: Vec<i64> = (1..=50).collect();
    let mailbox = Mailbox { messages, acknowledged: 0, breaks_in: 5, breaks: 0 };
    let (mailbox, ledger) = (Arc::new(Mutex::new(mailbox)), Arc::new(Mutex::new(Ledger::default())));
    let engine = Engine::builder()
        .connector(Arc::new(Mail { mailbox: mailbox.clone() }))
        .connector(Arc::new(Books { ledger: ledger.clone() }))
        .start()?;
    let mut session = engine.session();
    session.execute("SET max_batch_rows = 8").await?;
    session.execute("CREATE SOURCE inbox WITH (connector = 'mail', at_once = 4)").await?;
    session
        .execute(
            "CREATE SINK books AS SELECT amount FROM inbox WHERE amount > 10 WITH (connector = 'ledger')",
        )
        .await?;

    // Wait until the mailbox is empty and the ledger has every message.
    tokio::time::timeout(Duration::from_secs(60), engine.finished()).await??;
    let status = session.collect("SELECT name, rows, duplicates, restarts FROM millstream.sources").await?;
    println!("{}", arrow::util::pretty::pretty_format_batches(&status)?);
    engine.stop().await?;

    let (mailbox, ledger) = (locked(&mailbox), locked(&ledger));
    let total: i64 = ledger.booked.values().sum();
    println!(
        "{} messages are acknowledged, over {} broken connections",
        mailbox.acknowledged, mailbox.breaks
    );
    println!(
        "{total} is booked, in {} batches and {} transactions",
        ledger.booked.len(),
        ledger.transactions
    );
    assert_eq!((mailbox.acknowledged, total), (50, (11..=50).sum()));
    Ok(())
}
