//! Delivers the changes of a relation to a table of PostgreSQL, each epoch exactly once.
//!
//! ```sql
//! CREATE SINK k FROM totals WITH (connector = 'postgres', url = 'postgres://ann@host/shop', table = 'totals');
//! ```
//!
//! The rows of an epoch and its number are written in one transaction (`sink.rs`). So the target database
//! itself records the last epoch; the sink reads it there after a lost answer or a crash. Values are sent
//! as arrays of text (`text.rs`, `statements.rs`), many rows a statement, and PostgreSQL casts them to the
//! types of its columns.
//!
//! Deliberately absent: a source, and TLS, for which the workspace has no library.

mod columns;
mod connection;
mod failure;
mod options;
mod progress;
mod sink;
mod statements;
mod table;
mod text;

use async_trait::async_trait;
use millstream_connect::{Connector, OptionDoc, Result, Sink, SinkSpec};

use crate::options::Settings;
use crate::sink::PostgresSink;

/// The connector `postgres`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Postgres;

#[async_trait]
impl Connector for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn summary(&self) -> &'static str {
        "Delivers changes into a table of PostgreSQL: append-only rows are inserted, others are upserted and \
         deleted by a key."
    }

    fn sink_options(&self) -> &'static [OptionDoc] {
        options::SINK_OPTIONS
    }

    async fn check_sink(&self, spec: &SinkSpec) -> Result<()> {
        table::check(&Settings::of(spec)?, &spec.columns).await
    }

    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        Ok(Box::new(PostgresSink::new(spec)?))
    }
}
