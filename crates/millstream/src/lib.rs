//! Streaming SQL as a library: continuous queries that stay right as data arrives.
//!
//! An [`Engine`] keeps relations and queries over them; a [`Session`] takes SQL. What a query answers once over a
//! table, a materialized view of it maintains for ever, with inserts and deletes.
//!
//! # Starting
//!
//! [`Engine::start`] makes an engine in memory, with threads of its own; several may live in one process. Sessions are
//! cheap: one for each task that talks to it. [`Session::execute`] runs a statement, [`Session::collect`] a query whose
//! rows are wanted, [`Session::stream`] one whose rows are taken as they come.
//!
//! ```
//! use millstream::Engine;
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
//! // A session reads what it has written, through every view.
//! let batches = session.collect("SELECT customer, total FROM totals").await?;
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
//! # Arrow in
//!
//! Rows that a program has are not written as text: [`Session::create_table`] makes a table from an Arrow schema,
//! [`Session::insert`] and [`Session::delete_rows`] take record batches. Texts, bytes, numbers and times may have any
//! encoding of their kind. `insert` also puts rows into a source: with `connector = 'queue'` each call is a batch, and
//! waits while the queue is full. A program that feeds a stream for long takes a [channel](connect::channel()): bounded,
//! with an end, and with word of what was taken in.
//!
//! ```
//! use std::sync::Arc;
//!
//! use millstream::Engine;
//! use millstream::arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, StringArray};
//! use millstream::arrow::datatypes::{DataType, Field, Int64Type, Schema};
//! use millstream::connect::channel;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let columns = vec![Field::new("word", DataType::Utf8View, true), Field::new("n", DataType::Int64, true)];
//! let schema = Arc::new(Schema::new(columns));
//! let words: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a"]));
//! let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
//! let rows = RecordBatch::try_from_iter([("word", words), ("n", numbers)])?;
//!
//! let (sender, connector) = channel("words", schema.clone(), 1_000);
//! let engine = Engine::builder().connector(connector).start()?;
//! let mut session = engine.session();
//! session.execute("CREATE SOURCE streamed WITH (connector = 'words')").await?;
//! session.create_table("kept", schema, &[]).await?;
//! session
//!     .execute("CREATE MATERIALIZED VIEW joined AS SELECT sum(s.n * k.n) AS x FROM streamed s JOIN kept k USING (word)")
//!     .await?;
//!
//! session.insert("kept", rows.clone()).await?;
//! session.delete_rows("kept", rows.slice(0, 1)).await?;
//! sender.send(rows).await?;
//! sender.flush().await; // until it is taken in
//!
//! let batches = session.collect("SELECT x FROM joined").await?;
//! assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 1 * 3 + 2 * 2 + 3 * 3);
//! # Ok(())
//! # }
//! ```
//!
//! # Changes as they come
//!
//! [`Session::changes`] follows a relation, or a query of the reader's own, as a `futures::Stream`: first
//! what it holds, then what each epoch changes in it, whole: after each item the sum of all is what the query would
//! answer then. A [`Change`] has its rows with weights, or row by row with what was done ([`Op`]). Who drops the stream
//! ends it; who reads slowly holds nobody up.
//!
//! ```
//! use futures::StreamExt;
//! use millstream::arrow::array::AsArray;
//! use millstream::{Engine, Op};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::start()?;
//! let mut session = engine.session();
//! session.execute("CREATE TABLE stock (item TEXT PRIMARY KEY, pieces BIGINT)").await?;
//! session.execute("INSERT INTO stock VALUES ('bolt', 7), ('nut', 0)").await?;
//!
//! let mut missing = session.changes("SELECT item FROM stock WHERE pieces = 0").await?;
//! let first = missing.next().await.ok_or("it holds something")??;
//! assert!(first.is_snapshot);
//!
//! session.execute("UPDATE stock SET pieces = 1 - pieces WHERE item = 'nut'").await?;
//! session.execute("UPDATE stock SET pieces = 0 WHERE item = 'bolt'").await?;
//! let mut seen = Vec::new();
//! while seen.len() < 2 {
//!     let change = missing.next().await.ok_or("it goes on")??;
//!     for (rows, ops) in change.ops()? {
//!         let items = rows.column(0).as_string_view();
//!         seen.extend(ops.into_iter().enumerate().map(|(row, op)| (op, items.value(row).to_string())));
//!     }
//! }
//! assert_eq!(seen, [(Op::Delete, "nut".to_string()), (Op::Insert, "bolt".to_string())]);
//! # Ok(())
//! # }
//! ```
//!
//! A query may be followed once per batch, too: `session.changes("SELECT … FOR EACH BATCH")`. What other programs are to
//! have goes into a sink.
//!
//! # Functions and connectors of one's own
//!
//! [`EngineBuilder::scalar_function`] and [`EngineBuilder::aggregate_function`] take DataFusion's; aggregates work in
//! queries that are maintained as well, whether their accumulators can take rows back or not.
//! [`EngineBuilder::session_context`] takes a whole `SessionContext`. A connector is a value that implements
//! [`connect::Connector`] and has [`connect::Source`]s, [`connect::Sink`]s, or both; whoever writes one compiles Arrow
//! alone, through the crates `millstream-connect` and `millstream-delta`. The example `custom_connector` has a source
//! whose sender keeps what is not acknowledged, and a sink that books each batch once.
//!
//! ```
//! use std::sync::Arc;
//!
//! use millstream::Engine;
//! use millstream::arrow::array::{AsArray, Int64Array};
//! use millstream::arrow::datatypes::{DataType, Int64Type};
//! use millstream::datafusion::error::Result;
//! use millstream::datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
//!
//! fn twice(arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
//!     let numbers = ColumnarValue::values_to_arrays(arguments)?;
//!     let doubled: Int64Array = numbers[0].as_primitive::<Int64Type>().unary(|x| 2 * x);
//!     Ok(ColumnarValue::Array(Arc::new(doubled)))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
//! let number = || DataType::Int64;
//! let function = create_udf("twice", vec![number()], number(), Volatility::Immutable, Arc::new(twice));
//! let engine = Engine::builder().scalar_function(function).start()?;
//! let batches = engine.session().collect("SELECT twice(21)").await?;
//! assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 42);
//! # Ok(())
//! # }
//! ```
//!
//! # What goes wrong
//!
//! An [`Error`] says who must act ([`Kind`]): the user, whoever runs what is outside, an administrator, or us; and, where
//! the text of a statement is at fault, which bytes of it. A row that a query has no answer for doesn't end the query:
//! it is an error of that query until the row goes, reading the query says so, and all others go on.
//!
//! ```
//! use millstream::{Engine, Kind};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::start()?;
//! let mut session = engine.session();
//! let error = session.execute("SELECT * FROM oders").await.expect_err("there is no such table");
//! assert_eq!((error.kind, error.span), (Kind::Invalid, Some(14..19)));
//!
//! session.execute("CREATE TABLE t (x INT)").await?;
//! session.execute("CREATE MATERIALIZED VIEW inverses AS SELECT 12 / x AS y FROM t").await?;
//! session.execute("INSERT INTO t VALUES (3), (0)").await?;
//! assert!(session.collect("SELECT * FROM inverses").await.is_err());
//! session.execute("DELETE FROM t WHERE x = 0").await?;
//! assert_eq!(session.collect("SELECT * FROM inverses").await?[0].num_rows(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! A [`Listener`] hears of batches and sources while an engine runs; [`Engine::progress`] says how far it has come.
//!
//! Deliberately absent: anything of its own. This crate names what is public of the crates below it, so that they
//! can be cut as their work needs.

pub use millstream_engine::{
    Batch, Change, Changes, CopyFormat, CopyHeader, CopyIn, CopyOptions, CopyOut, Engine, EngineBuilder,
    Error, Following, InspectedCheckpoint, InspectedPart, InspectedPlan, Inspection, Kind, Listener, Names,
    ObjectName, Op, Outcome, Prepared, Progress, Record, Recovered, Response, Result, Script, Session,
    SettingDoc, ShutdownSettings, StorePrefix, Tag, TransactionStatus, as_shown, inspect, inspect_store,
    object_store, settings, sqlstate,
};

/// The contracts of sources and sinks, the connectors that come with the engine, and channels to feed it by.
pub use millstream_connect as connect;
/// Changes and epochs, as sources make them and sinks get them.
pub use millstream_delta as delta;

/// The Arrow that the engine is built with: rows come as its record batches.
pub use arrow;
/// The DataFusion that the engine is built with.
pub use datafusion;
