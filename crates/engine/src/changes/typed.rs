//! The changes of a query or a relation as a stream of values, one item per epoch.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::Stream;
use futures::stream::{self, BoxStream, StreamExt};
use millstream_delta::{Delta, Epoch, Timestamp};
use millstream_sql::Result;

use super::op::told;
use super::{Guard, Op, Opened, Portion, Tap};
use crate::error;
use crate::run::in_sum;

/// The options of a subscription to a query or a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    /// True if the first item is the current content.
    pub snapshot: bool,
    /// True if epochs without changes are reported too, by items without rows.
    pub progress: bool,
}

impl Default for Following {
    fn default() -> Following {
        Following { snapshot: true, progress: false }
    }
}

/// All changes of one epoch, and only of that epoch.
#[derive(Clone, Debug)]
pub struct Change {
    /// The epoch. For a progress item without changes: the newest epoch.
    pub epoch: Epoch,
    /// The batch time; `None` for a progress item.
    pub time: Option<Timestamp>,
    /// True if this is the initial content as of this epoch, not a change.
    pub is_snapshot: bool,
    /// The rows with their weights: +n inserts n copies, -n deletes n. Each row occurs once, unless the
    /// relation is append-only.
    pub delta: Delta,
    key: Option<Vec<usize>>,
}

impl Change {
    /// Returns the changes row by row, as SUBSCRIBE reports them, with one [`Op`] per row. n copies are n
    /// rows. If the relation has a key, the two rows of an update are adjacent.
    pub fn ops(&self) -> Result<Vec<(RecordBatch, Vec<Op>)>> {
        let mut parts = Vec::with_capacity(self.delta.chunks.len());
        for chunk in &self.delta.chunks {
            parts.push(match &chunk.weights {
                None => (chunk.rows.clone(), vec![Op::Insert; chunk.rows.num_rows()]),
                Some(_) => told(chunk, self.key.as_deref()).map_err(error::arrow)?,
            });
        }
        Ok(parts)
    }

    /// Returns the inserted rows, n copies as n rows.
    pub fn inserted(&self) -> Result<Vec<RecordBatch>> {
        let (inserts, _) = self.delta.split_by_sign().map_err(error::arrow)?;
        inserts.chunks.iter().map(|chunk| chunk.expand().map_err(error::arrow)).collect()
    }

    /// Returns the deleted rows, n copies as n rows.
    pub fn deleted(&self) -> Result<Vec<RecordBatch>> {
        let (_, deletes) = self.delta.split_by_sign().map_err(error::arrow)?;
        deletes.chunks.iter().map(|chunk| chunk.expand().map_err(error::arrow)).collect()
    }
}

/// A stream of [`Change`]s. It ends when nothing can change any more. Drop the stream to stop it; its own
/// query stops too.
///
/// A slow reader delays nobody. Waiting changes are kept up to the setting `subscription_buffer_max`. Beyond
/// that the stream ends with an error that names the setting.
pub struct Changes {
    schema: SchemaRef,
    append_only: bool,
    key: Option<Vec<usize>>,
    notices: Vec<String>,
    items: BoxStream<'static, Result<Change>>,
}

impl Changes {
    /// Creates the stream of a subscription that has begun.
    pub(crate) fn new(opened: Opened) -> Changes {
        let Opened { subscription, receiver, end, events, schema, append_only, key, durable: _, notices } =
            opened;
        let tap = Tap::new(receiver, end, Guard { subscription, events }, &schema);
        let columns = (schema.clone(), key.clone());
        let items = stream::try_unfold((tap, columns), |(mut tap, (schema, key))| async move {
            let Some(portion) = tap.next().await? else { return Ok(None) };
            let items = items(portion, &schema, key.as_deref())?;
            Ok::<_, millstream_sql::Error>(Some((items, (tap, (schema, key)))))
        });
        let items = items
            .flat_map(|items: Result<Vec<Change>>| match items {
                Ok(items) => stream::iter(items.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            })
            .boxed();
        Changes { schema, append_only, key, notices, items }
    }

    /// Returns the columns of the rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns true if the relation is append-only.
    pub fn is_append_only(&self) -> bool {
        self.append_only
    }

    /// Returns the positions of a key's columns, if a key is known. An empty key means at most one row.
    pub fn key(&self) -> Option<&[usize]> {
        self.key.as_deref()
    }

    /// Returns notices for the user.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }
}

impl Stream for Changes {
    type Item = Result<Change>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Change>>> {
        self.items.poll_next_unpin(context)
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("schema", &self.schema)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Returns one item per epoch.
fn items(portion: Portion, schema: &SchemaRef, key: Option<&[usize]>) -> Result<Vec<Change>> {
    let Portion { epochs, snapshot, told, .. } = portion;
    let mut items = Vec::with_capacity(epochs.len() + 1);
    for (place, (cut, delta)) in epochs.into_iter().enumerate() {
        let delta = match delta.is_append_only() {
            true => delta,
            // Changes that cancel out within an epoch are not reported.
            false => {
                in_sum(delta).into_one(schema).map_err(error::arrow)?.map_or_else(Delta::default, Delta::of)
            }
        };
        items.push(Change {
            epoch: cut.epoch,
            time: Some(cut.now),
            is_snapshot: snapshot && place == 0,
            delta,
            key: key.map(<[usize]>::to_vec),
        });
    }
    let last = items.last().map_or(Epoch::default(), |item| item.epoch);
    if let Some((_, through)) = told
        && through > last
    {
        let (time, delta, key) = (None, Delta::default(), None);
        items.push(Change { epoch: through, time, is_snapshot: false, delta, key });
    }
    Ok(items)
}
