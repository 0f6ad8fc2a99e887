//! Streaming SQL as a library: continuous queries that stay right as data arrives.
//!
//! An [`Engine`] keeps relations and queries over them; a [`Session`] takes SQL. What a query answers once over a
//! table, a materialized view of it maintains for ever, with inserts and deletes.
//!
//! ```
//! use futures::TryStreamExt;
//! use millstream::{Engine, Response};
//! use millstream::arrow::util::pretty::pretty_format_batches;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::start()?;
//! let mut session = engine.session();
//! session.execute("CREATE TABLE orders (id BIGINT PRIMARY KEY, customer TEXT, amount BIGINT)").await?;
//! session
//!     .execute("CREATE MATERIALIZED VIEW totals AS SELECT customer, sum(amount) AS total FROM orders GROUP BY customer")
//!     .await?;
//!
//! session.execute("INSERT INTO orders VALUES (1, 'ann', 10), (2, 'ben', 5), (3, 'ann', 7)").await?;
//! session.execute("DELETE FROM orders WHERE id = 2").await?;
//!
//! let Response::Rows(rows) = session.execute("SELECT customer, total FROM totals").await? else {
//!     return Err("a SELECT gives rows".into());
//! };
//! let batches: Vec<_> = rows.try_collect().await?;
//! assert_eq!(
//!     pretty_format_batches(&batches)?.to_string(),
//!     "\
//! +----------+-------+
//! | customer | total |
//! +----------+-------+
//! | ann      | 17    |
//! +----------+-------+"
//! );
//! engine.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Several engines may live in one process. [`Engine::builder`] starts one on a `SessionContext` of yours, with your
//! functions, or with connectors of your own, which are written against [`connect`] and [`delta`].
//!
//! # Connectors
//!
//! A source of somebody's own, whose sender keeps what is not acknowledged, and a sink that writes each batch once:
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::{Arc, Mutex};
//!
//! use async_trait::async_trait;
//! use millstream::Engine;
//! use millstream::arrow::array::{ArrayRef, Int64Array, RecordBatch};
//! use millstream::connect::{
//!     Arrival, Connector, Error, Limit, More, OptionDoc, Result, Sink, SinkSpec, Source, SourceSpec,
//! };
//! use millstream::arrow::datatypes::SchemaRef;
//! use millstream::delta::{Cut, Delta, Epoch, Position, Span};
//!
//! /// A mailbox with ten messages, and a ledger with a line a batch.
//! #[derive(Clone, Debug, Default)]
//! struct Mail {
//!     acknowledged: Arc<Mutex<u64>>,
//!     ledger: Arc<Mutex<BTreeMap<u64, usize>>>,
//! }
//!
//! fn messages(from: i64, to: i64) -> RecordBatch {
//!     let column: ArrayRef = Arc::new(Int64Array::from_iter_values(from..to));
//!     RecordBatch::try_from_iter_with_nullable([("n", column, true)]).expect("one column is a batch")
//! }
//!
//! impl Connector for Mail {
//!     fn name(&self) -> &'static str { "mail" }
//!     fn summary(&self) -> &'static str { "Reads a mailbox, writes a ledger." }
//!     fn source_options(&self) -> &'static [OptionDoc] { &[] }
//!     fn sink_options(&self) -> &'static [OptionDoc] { &[] }
//!     fn source(&self, _: &SourceSpec) -> Result<Box<dyn Source>> {
//!         Ok(Box::new(Mailbox { mail: self.clone(), schema: messages(0, 0).schema(), next: 0 }))
//!     }
//!     fn sink(&self, _: &SinkSpec) -> Result<Box<dyn Sink>> { Ok(Box::new(Ledger(self.clone()))) }
//! }
//!
//! struct Mailbox { mail: Mail, schema: SchemaRef, next: u64 }
//!
//! #[async_trait]
//! impl Source for Mailbox {
//!     fn schema(&self) -> &SchemaRef { &self.schema }
//!     fn replayable(&self) -> bool { false }
//!     fn bounded(&self) -> bool { true }
//!     fn reliable(&self) -> bool { true }
//!     async fn seek(&mut self, _: &Position) -> Result<()> { Ok(()) }
//!     async fn next(&mut self, limit: Limit) -> Result<Arrival> {
//!         let (from, to) = (self.next, 10.min(self.next + limit.rows as u64));
//!         self.next = to;
//!         let span = Span { split: "inbox".into(), from, to, done: to == 10 };
//!         let more = if to == 10 { More::Never } else { More::Now };
//!         let rows = vec![messages(from as i64, to as i64)];
//!         Ok(Arrival { rows, spans: vec![span], bad_rows: vec![], more })
//!     }
//!     async fn ready(&mut self) -> Result<()> { Ok(()) }
//!     async fn replay(&mut self, _: &Span, _: Limit) -> Result<Arrival> {
//!         Err(Error::Bug("what was acknowledged is gone".into()))
//!     }
//!     async fn acknowledge(&mut self, through: &Position) -> Result<()> {
//!         *self.mail.acknowledged.lock().expect("nobody panics") = through.splits["inbox"].through;
//!         Ok(())
//!     }
//! }
//!
//! struct Ledger(Mail);
//!
//! #[async_trait]
//! impl Sink for Ledger {
//!     async fn write(&mut self, cut: &Cut, delta: &Delta) -> Result<()> {
//!         // One connection and one transaction a batch; a batch that is there already stays as it is.
//!         let mut ledger = self.0.ledger.lock().expect("nobody panics");
//!         ledger.entry(cut.epoch.0).or_insert(delta.num_rows());
//!         Ok(())
//!     }
//!     async fn commit(&mut self, _: Epoch) -> Result<()> { Ok(()) }
//!     async fn recover(&mut self) -> Result<Epoch> {
//!         let ledger = self.0.ledger.lock().expect("nobody panics");
//!         Ok(Epoch(ledger.keys().last().copied().unwrap_or(0)))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
//! let mail = Mail::default();
//! let engine = Engine::builder().connector(Arc::new(mail.clone())).start()?;
//! let mut session = engine.session();
//! session.execute("SET max_batch_rows = 4").await?;
//! session.execute("CREATE SOURCE inbox WITH (connector = 'mail')").await?;
//! session.execute("CREATE SINK k AS SELECT n FROM inbox WHERE n > 0 WITH (connector = 'mail')").await?;
//! engine.finished().await?;
//! engine.stop().await?;
//! assert_eq!(mail.ledger.lock().unwrap().values().sum::<usize>(), 9);
//! assert_eq!(*mail.acknowledged.lock().unwrap(), 10);
//! # Ok(())
//! # }
//! ```
//!
//! Deliberately absent: anything of its own. This crate names what is public of the crates below it, so that they
//! can be cut as their work needs.

pub use millstream_engine::{
    Batch, Engine, EngineBuilder, Error, Kind, Listener, Names, ObjectName, Outcome, Progress, Record,
    Response, Result, Script, Session, SettingDoc, Tag,
};

/// The contracts of sources and sinks, and the connectors that come with the engine.
pub use millstream_connect as connect;
/// Changes and epochs, as sources make them and sinks get them.
pub use millstream_delta as delta;

/// The Arrow that the engine is built with: rows come as its record batches.
pub use arrow;
/// The DataFusion that the engine is built with.
pub use datafusion;
