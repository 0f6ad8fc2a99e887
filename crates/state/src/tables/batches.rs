//! The content of a table: batches, or a snapshot from which a reader builds them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::Result;

/// Builds the batches of a table, on any thread, and equal ones on every call.
type Build = dyn Fn() -> Result<Vec<RecordBatch>> + Send + Sync;

/// The batches of a table.
///
/// A checkpoint's state is collected while no query can continue, so a large table holds only a snapshot at
/// first. The thread that writes the table builds its batches. Every reader goes through [`Batches::get`], so
/// none can miss the rows of such a table.
#[derive(Clone)]
pub struct Batches(Form);

#[derive(Clone)]
enum Form {
    Built(Vec<RecordBatch>),
    Deferred(Arc<Build>),
}

impl Batches {
    pub(super) fn deferred(build: impl Fn() -> Result<Vec<RecordBatch>> + Send + Sync + 'static) -> Batches {
        Batches(Form::Deferred(Arc::new(build)))
    }

    /// Returns the batches that have rows. Deferred ones are built by each call.
    pub fn get(&self) -> Result<Cow<'_, [RecordBatch]>> {
        match &self.0 {
            Form::Built(batches) => Ok(Cow::Borrowed(batches)),
            Form::Deferred(build) => Ok(Cow::Owned(with_rows(build()?))),
        }
    }

    /// Does the same for an owner.
    pub(super) fn into_vec(self) -> Result<Vec<RecordBatch>> {
        match self.0 {
            Form::Built(batches) => Ok(batches),
            Form::Deferred(build) => Ok(with_rows(build()?)),
        }
    }
}

impl From<Vec<RecordBatch>> for Batches {
    fn from(batches: Vec<RecordBatch>) -> Batches {
        Batches(Form::Built(with_rows(batches)))
    }
}

impl fmt::Debug for Batches {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Built(batches) => batches.fmt(formatter),
            Form::Deferred(_) => formatter.write_str("Deferred"),
        }
    }
}

fn with_rows(mut batches: Vec<RecordBatch>) -> Vec<RecordBatch> {
    batches.retain(|batch| batch.num_rows() > 0);
    batches
}
