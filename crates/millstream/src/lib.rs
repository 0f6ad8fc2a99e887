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
//! Deliberately absent: anything of its own. This crate names what is public of the crates below it, so that they
//! can be cut as their work needs.

pub use millstream_engine::{
    Batch, Engine, EngineBuilder, Error, Kind, Listener, Outcome, Progress, Record, Response, Result, Script,
    Session, Tag,
};

/// The contracts of sources and sinks, and the connectors that come with the engine.
pub use millstream_connect as connect;
/// Changes and epochs, as sources make them and sinks get them.
pub use millstream_delta as delta;

/// The Arrow that the engine is built with: rows come as its record batches.
pub use arrow;
/// The DataFusion that the engine is built with.
pub use datafusion;
