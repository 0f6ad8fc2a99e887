//! The trait of sinks.

use std::time::Instant;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream_delta::{Cut, Delta, Epoch};

#[cfg(doc)]
use crate::Error;
use crate::{Options, Result};

/// The parameters of a new sink.
#[derive(Clone, Debug)]
pub struct SinkSpec {
    /// The sink's name in the catalog, for messages.
    pub name: String,
    /// The columns of the delivered relation.
    pub columns: SchemaRef,
    /// True if the relation is append-only. Otherwise its deltas contain deletes; a sink that can't express
    /// deletes refuses to open and suggests what to write instead.
    pub append_only: bool,
    /// Columns that identify a row, if known. Empty if the relation has at most one row.
    pub key: Option<Vec<usize>>,
    /// True if epochs begin as soon as rows arrive, up to hundreds a second. A sink with a cost per commit
    /// may gather several of them by default.
    pub auto_pace: bool,
    /// The `WITH` options.
    pub options: Options,
}

/// The delivery guarantee, if the engine survives crashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Exactly once: [`Sink::recover`] returns the last epoch that earlier runs published.
    ExactlyOnce,
    /// At least once: [`Sink::commit`] publishes, but after a crash the engine knows the last epoch only
    /// approximately.
    AtLeastOnce,
    /// No guarantee, for this reason: an engine that survives crashes rejects the sink.
    Unknown(String),
}

/// Delivers a relation's changes to an external system, one epoch at a time.
///
/// The engine keeps each epoch until `commit` or `flush` reports it as durable. After a crash the engine
/// reopens the sink, calls [`Sink::recover`], and writes all later epochs again.
#[async_trait]
pub trait Sink: Send {
    /// Stages the delta of one epoch. Called once an epoch, in order, and again after an
    /// [`Error::External`]: the cut has the epoch's number, by which the sink recognizes a repeated epoch.
    /// The delta isn't empty unless [`Sink::takes_empty_batches`] returns true.
    async fn write(&mut self, cut: &Cut, delta: &Delta) -> Result<()>;
    /// Publishes the staged epochs up to `through`. Returns the last epoch that is durable outside: its
    /// rows survive a crash of this process and of the machine. Idempotent.
    ///
    /// A sink that gathers epochs returns an epoch before `through` while it buffers rows.
    /// [`Sink::commit_due`] returns the time for the next call; the engine also calls `commit` after each
    /// later epoch.
    async fn commit(&mut self, through: Epoch) -> Result<Epoch>;
    /// Publishes like `commit`, but buffers nothing: returns `through`. Called by FLUSH, at the end of the
    /// engine, and when too many rows wait.
    async fn flush(&mut self, through: Epoch) -> Result<Epoch> {
        self.commit(through).await
    }
    /// Returns the time to call `commit` again even if no epoch follows; `None` if no rows are buffered.
    fn commit_due(&self) -> Option<Instant> {
        None
    }
    /// Returns the last published epoch, and discards staged epochs. The engine resends all later epochs.
    async fn recover(&mut self) -> Result<Epoch>;
    /// Returns the delivery guarantee, if the engine survives crashes.
    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }
    /// Returns a notice for the user who creates the sink, in a sentence.
    fn notice(&self) -> Option<String> {
        None
    }
    /// Returns true if the sink wants the batches of a query FOR EACH BATCH even if they have no rows.
    fn takes_empty_batches(&self) -> bool {
        false
    }
}
