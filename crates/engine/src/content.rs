//! The rows of a relation at one point in time, as the loop hands them to a reader beside it.

use std::fmt;

use arrow::array::RecordBatch;
use millstream_delta::{Delta, consolidate};
use millstream_sql::{Error, Result};
use millstream_state::RowsSnapshot;
use tokio::sync::oneshot;

use crate::error;

/// The rows of a relation at one point in time.
#[derive(Debug)]
pub(crate) enum Content {
    Batches(Vec<RecordBatch>),
    /// Rows shared with the loop. The reader assembles them.
    Snapshot(RowsSnapshot),
    /// Rows that the reader computes.
    Computed(Computed),
    /// Rows that a thread reads from the operators of a query.
    Awaited(AwaitedRows),
    /// Rows without those of later changes, which the reader takes away.
    Before(Box<Content>, Delta),
}

/// The result of a query that a thread reads.
pub(crate) type AwaitedRows = oneshot::Receiver<Result<Vec<RecordBatch>>>;

/// A computation of rows over a snapshot.
pub(crate) struct Computed {
    /// The number of rows.
    pub(crate) rows: usize,
    pub(crate) compute: Box<dyn FnOnce() -> Result<Vec<RecordBatch>> + Send>,
}

impl fmt::Debug for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Computed({} rows)", self.rows)
    }
}

impl Content {
    /// Returns the number of rows, if it is known yet.
    pub(crate) fn num_rows(&self) -> Option<usize> {
        match self {
            Content::Batches(batches) => Some(batches.iter().map(RecordBatch::num_rows).sum()),
            Content::Snapshot(rows) => Some(rows.num_rows()),
            Content::Computed(computed) => Some(computed.rows),
            Content::Awaited(_) | Content::Before(..) => None,
        }
    }

    /// Returns the rows, as soon as they are there.
    pub(crate) async fn batches(self) -> Result<Vec<RecordBatch>> {
        match self {
            Content::Awaited(rows) => {
                let lost = |_| Error::bug("the thread that reads the result of the query has ended");
                rows.await.map_err(lost)?
            }
            Content::Before(rows, since) => without(Box::pin(rows.batches()).await?, since),
            there => there.batches_now(),
        }
    }

    /// Returns the rows of a content that no thread is reading.
    pub(crate) fn batches_now(self) -> Result<Vec<RecordBatch>> {
        match self {
            Content::Batches(batches) => Ok(batches),
            Content::Snapshot(rows) => rows.batches().map_err(error::arrow),
            Content::Computed(computed) => (computed.compute)(),
            Content::Awaited(_) => Err(Error::bug("a thread still reads these rows")),
            Content::Before(rows, since) => without(rows.batches_now()?, since),
        }
    }
}

/// Undoes later changes in rows.
pub(crate) fn without(rows: Vec<RecordBatch>, since: Delta) -> Result<Vec<RecordBatch>> {
    let Some(first) = since.chunks.first() else { return Ok(rows) };
    let schema = rows.first().map_or_else(|| first.rows.schema(), RecordBatch::schema);
    let mut all = Delta::from_iter(rows);
    all.append(since.negated().with_schema(&schema).map_err(error::arrow)?);
    let all = consolidate(all, &schema).map_err(error::arrow)?;
    all.chunks.iter().map(|chunk| chunk.expand().map_err(error::arrow)).collect()
}
