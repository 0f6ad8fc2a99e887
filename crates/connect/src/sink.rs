//! The contract of a sink.

use std::time::Instant;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream_delta::{Cut, Delta, Epoch};

#[cfg(doc)]
use crate::Error;
use crate::{Options, Result};

/// What a sink is opened with.
#[derive(Clone, Debug)]
pub struct SinkSpec {
    /// The sink's name in the catalog, for messages.
    pub name: String,
    /// The columns of the relation it delivers.
    pub columns: SchemaRef,
    /// Whether the relation only ever appends. Otherwise its deltas hold deletes, and a sink that can't express
    /// them refuses to open, saying what to write instead.
    pub append_only: bool,
    /// Columns that no two rows of the relation share, where some are known; none of them where it has one row at most.
    pub key: Option<Vec<usize>>,
    /// True if epochs begin as soon as rows are there, up to hundreds a second. A sink with a cost per commit may gather
    /// several of them by default.
    pub auto_pace: bool,
    /// The `WITH` options.
    pub options: Options,
}

/// How often what a sink is handed is there outside, where the engine survives crashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Once: [`Sink::recover`] says what earlier runs have published.
    ExactlyOnce,
    /// Once or more: [`Sink::commit`] publishes, but after a crash the engine knows only about how far that had come.
    AtLeastOnce,
    /// It can't be said, for a reason: an engine that survives crashes refuses it.
    Unknown(String),
}

/// Delivery of a relation's changes to the outside, an epoch at a time.
///
/// The engine keeps each epoch until `commit` or `flush` has named it as durable. After a crash it opens the sink again, asks
/// [`Sink::recover`], and writes all that follows once more.
#[async_trait]
pub trait Sink: Send {
    /// Stages the delta of one epoch. Called once an epoch, in their order, and again after an [`Error::External`]:
    /// the epoch's number, which the cut has, tells what was written before. The delta isn't empty unless
    /// [`Sink::takes_empty_batches`] says so.
    async fn write(&mut self, cut: &Cut, delta: &Delta) -> Result<()>;
    /// Publishes what was staged up to `through`, and returns the epoch through which all of it is durable outside: it
    /// survives a crash of this process and of the machine. Idempotent.
    ///
    /// A sink that gathers epochs returns an earlier epoch than `through` while it holds rows in memory. It names in
    /// [`Sink::commit_due`] when it wants to be called again; the engine also calls `commit` after each later epoch.
    async fn commit(&mut self, through: Epoch) -> Result<Epoch>;
    /// The same, but holds nothing back: returns `through`. Called by FLUSH, by the end of the engine, and when too
    /// many rows wait.
    async fn flush(&mut self, through: Epoch) -> Result<Epoch> {
        self.commit(through).await
    }
    /// When `commit` is to be called again though no epoch comes; none if nothing is held back.
    fn commit_due(&self) -> Option<Instant> {
        None
    }
    /// The last epoch it holds; the engine sends again from there. What was staged and not published is forgotten.
    async fn recover(&mut self) -> Result<Epoch>;
    /// How often what it is handed is there outside, where the engine survives crashes.
    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }
    /// What the user who creates it should know, in a sentence.
    fn notice(&self) -> Option<String> {
        None
    }
    /// Whether it wants the batches of a query FOR EACH BATCH also where they have no rows.
    fn takes_empty_batches(&self) -> bool {
        false
    }
}
