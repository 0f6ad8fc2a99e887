//! The contract of a sink.

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
#[async_trait]
pub trait Sink: Send {
    /// Stages the delta of one epoch. Called once an epoch, in their order, and again after an [`Error::External`]:
    /// the epoch's number, which the cut has, tells what was written before. The delta isn't empty unless
    /// [`Sink::takes_empty_batches`] says so.
    async fn write(&mut self, cut: &Cut, delta: &Delta) -> Result<()>;
    /// Publishes all that was staged up to `through`. Idempotent.
    async fn commit(&mut self, through: Epoch) -> Result<()>;
    /// The last epoch it holds; the engine sends again from there.
    async fn recover(&mut self) -> Result<Epoch>;
    /// How often what it is handed is there outside, where the engine survives crashes.
    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }
    /// Whether it wants the batches of a query FOR EACH BATCH also where they have no rows.
    fn takes_empty_batches(&self) -> bool {
        false
    }
}
