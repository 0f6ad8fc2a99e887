//! The rows of a relation at one point in time, as the loop hands them to a reader beside it.

use std::fmt;
use std::panic::AssertUnwindSafe;

use arrow::array::RecordBatch;
use futures::FutureExt;
use futures::future::Shared;
use millstream_delta::{Delta, consolidate};
use millstream_flow::{RowStages, Wanted};
use millstream_sql::{Error, Result};
use millstream_state::RowsSnapshot;
use tokio::sync::oneshot;

use crate::error;
use crate::panics::panicked;

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

/// The result of a query that a thread reads, for all that wait for it.
#[derive(Clone, Debug)]
pub(crate) struct AwaitedRows {
    rows: Shared<oneshot::Receiver<Result<Vec<RecordBatch>>>>,
    through: Option<ThroughPart>,
}

/// The way from the rows of a part that queries have in common to the result of one of these.
#[derive(Clone, Debug)]
pub(crate) struct ThroughPart {
    /// The changes of the part that the query has not taken in yet.
    since: Delta,
    stages: RowStages,
}

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
            Content::Awaited(AwaitedRows { rows, through }) => {
                through_part(through, rows.await.map_err(lost)??)
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

impl AwaitedRows {
    /// Returns the rows that a thread will send.
    pub(crate) fn new(rows: oneshot::Receiver<Result<Vec<RecordBatch>>>) -> AwaitedRows {
        AwaitedRows { rows: rows.shared(), through: None }
    }

    /// Returns the result of a query that reads these rows.
    pub(crate) fn through(&self, through: Option<ThroughPart>) -> AwaitedRows {
        AwaitedRows { rows: self.rows.clone(), through }
    }

    /// Returns the rows if they are there; an error if the thread has ended without them.
    pub(crate) fn batches_if_there(&self) -> Option<Result<Vec<RecordBatch>>> {
        let rows = self.rows.clone().now_or_never()?.unwrap_or_else(|reason| Err(lost(reason)));
        Some(rows.and_then(|rows| through_part(self.through.clone(), rows)))
    }
}

impl ThroughPart {
    pub(crate) fn new(since: Delta, stages: RowStages) -> ThroughPart {
        ThroughPart { since, stages }
    }

    /// Returns the result, given all rows of the part.
    pub(crate) fn rows(self, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let ThroughPart { since, stages } = self;
        let through = AssertUnwindSafe(|| stages.content(without(rows, since)?).map_err(error::flow));
        std::panic::catch_unwind(through)
            .unwrap_or_else(|said| Err(panicked("reading the result of the query", said.as_ref())))
    }

    /// Returns the rows of the part that make the wanted rows of the result, and perhaps others.
    pub(crate) fn wanted(&self, wanted: &Wanted) -> Wanted {
        self.stages.wanted(wanted)
    }

    /// Returns true if the result has a row for each row of the part.
    pub(crate) fn hands_on(&self) -> bool {
        self.since.is_empty() && self.stages.hands_on()
    }
}

fn lost(_: oneshot::error::RecvError) -> Error {
    Error::bug("the thread that reads the result of the query has ended")
}

/// Returns the result of a query, given the rows of the part that it reads, or its own.
pub(crate) fn through_part(through: Option<ThroughPart>, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    match through {
        Some(through) => through.rows(rows),
        None => Ok(rows),
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
