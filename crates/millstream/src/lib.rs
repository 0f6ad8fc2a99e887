//! Streaming SQL as a library: continuous queries whose results stay correct as data arrives.
//!
//! An [`Engine`] holds relations and queries over them. A [`Session`] runs SQL. A materialized view
//! maintains the answer of a query under inserts, updates and deletes.
//!
//! # Starting
//!
//! [`Engine::start`] creates an engine in memory with its own threads. One process may have several
//! engines. Sessions are cheap: create one for each task. [`Session::execute`] runs a statement.
//! [`Session::collect`] returns all rows of a query, and [`Session::stream`] returns them as the query
//! produces them.
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
//! A program doesn't have to format its rows as text. [`Session::create_table`] creates a table from an
//! Arrow schema. [`Session::insert`] and [`Session::delete_rows`] take record batches. Texts, bytes,
//! numbers and times may have any encoding of their kind. `insert` also adds rows to a source with
//! `connector = 'queue'`: each call is a batch, and waits while the queue is full. To feed a stream
//! continuously, use a [channel](connect::channel()): it is bounded, it can end, and it reports which rows
//! the engine has processed.
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
//! [`Session::changes`] follows a relation or a query as a `futures::Stream`. The first item is the present
//! content; each further item is the whole change of one epoch. After each item, the sum of all items is
//! the query's answer as of that epoch. A [`Change`] returns its rows with weights, or row by row with the
//! operation ([`Op`]). Dropping the stream ends it. A slow reader delays nobody.
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
//! `session.changes("SELECT … FOR EACH BATCH")` runs a query once per batch. Use a sink to deliver changes
//! to other programs.
//!
//! # User-defined functions and connectors
//!
//! [`EngineBuilder::scalar_function`] and [`EngineBuilder::aggregate_function`] take DataFusion's
//! functions. Continuous queries accept any aggregate, even if its accumulator cannot retract rows.
//! [`EngineBuilder::session_context`] takes a whole `SessionContext`. A connector implements
//! [`connect::Connector`] and opens [`connect::Source`]s, [`connect::Sink`]s, or both. A connector's crate
//! needs only `millstream-connect`, `millstream-delta` and Arrow. In the example `custom_connector`, the
//! source's server keeps unacknowledged messages, and the sink applies each batch once.
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
//! # Errors
//!
//! The [`Kind`] of an [`Error`] says who must act: the user, the operator of an external system, an
//! administrator, or the authors of the engine. Where the text of a statement is at fault, [`Error::span`]
//! is the range of its bytes. A row that a query has no answer for doesn't end the query. Reading that
//! query fails until the row is deleted; all other queries continue.
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
//! The engine notifies a [`Listener`] of batches, sources and sinks. [`Engine::progress`] returns the engine's
//! progress.
//!
//! Deliberately absent: code of its own. This crate re-exports the public items of the crates below it,
//! which may therefore be split freely.

pub use millstream_engine::{
    Announced, Batch, BatchWork, Busy, Change, Changes, CheckpointWritten, CopyFormat, CopyHeader, CopyIn,
    CopyOptions, CopyOut, Engine, EngineBuilder, Error, Following, History, InspectedCheckpoint,
    InspectedPart, InspectedPlan, Inspection, Kind, Listener, Metric, MetricDoc, MetricKind, MetricValue,
    Names, ObjectName, Op, OperatorStep, Outcome, Prepared, Progress, Record, Recovered, Response, Result,
    Sample, Script, Second, Series, Session, SettingDoc, ShutdownSettings, SinkDelivery, Statement,
    StorePrefix, Tag, Totals, TransactionStatus, as_shown, inspect, inspect_store, metrics, object_store,
    quoted_ident, settings, sqlstate, statements,
};

/// The traits of sources and sinks, the built-in connectors, and channels that feed an engine.
pub use millstream_connect as connect;
/// Deltas and epochs: sources produce them, sinks receive them.
pub use millstream_delta as delta;

/// The version of Arrow that the engine uses; rows are its record batches.
pub use arrow;
/// The version of DataFusion that the engine uses.
pub use datafusion;
