//! The changes of a query or a relation as a stream of values, an item an epoch.

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

/// How a query or a relation is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    /// Whether the first item is what it holds now.
    pub snapshot: bool,
    /// Whether epochs that change nothing are told too, by items without rows.
    pub progress: bool,
}

impl Default for Following {
    fn default() -> Following {
        Following { snapshot: true, progress: false }
    }
}

/// What one epoch changes: all of it, and nothing of another epoch.
#[derive(Clone, Debug)]
pub struct Change {
    /// The epoch. With progress and nothing changed: the newest one.
    pub epoch: Epoch,
    /// Its batch time; none where nothing changed.
    pub time: Option<Timestamp>,
    /// Whether this is what was there at the beginning, as of this epoch, rather than a change.
    pub is_snapshot: bool,
    /// The rows with their weights: +n comes n times, -n goes n times. A row is in it once where rows may go.
    pub delta: Delta,
    key: Option<Vec<usize>>,
}

impl Change {
    /// What happened row by row, as SUBSCRIBE tells it: n copies are n rows, and of a relation with a key the two rows
    /// of an update stand together. There is one [`Op`] a row.
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

    /// The rows that came, n copies as n rows.
    pub fn inserted(&self) -> Result<Vec<RecordBatch>> {
        let (inserts, _) = self.delta.split_by_sign().map_err(error::arrow)?;
        inserts.chunks.iter().map(|chunk| chunk.expand().map_err(error::arrow)).collect()
    }

    /// The rows that went, n copies as n rows.
    pub fn deleted(&self) -> Result<Vec<RecordBatch>> {
        let (_, deletes) = self.delta.split_by_sign().map_err(error::arrow)?;
        deletes.chunks.iter().map(|chunk| chunk.expand().map_err(error::arrow)).collect()
    }
}

/// A stream of [`Change`]s. It ends when nothing can change any more; to stop it, drop it: a query of its own stops
/// with it.
///
/// Who reads slowly holds nobody up: what waits is kept up to the setting `subscription_buffer_max`, and beyond that
/// the stream ends with an error that says so.
pub struct Changes {
    schema: SchemaRef,
    append_only: bool,
    key: Option<Vec<usize>>,
    notices: Vec<String>,
    items: BoxStream<'static, Result<Change>>,
}

impl Changes {
    /// The changes of a subscription that has begun.
    pub(crate) fn new(opened: Opened) -> Changes {
        let Opened { subscription, receiver, end, events, schema, append_only, key, durable: _, notices } =
            opened;
        let tap = Tap { receiver, end, guard: Guard { subscription, events } };
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

    /// The columns of the rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether rows only come.
    pub fn is_append_only(&self) -> bool {
        self.append_only
    }

    /// The places of columns that no two rows share, where some are known; empty: there is one row at most.
    pub fn key(&self) -> Option<&[usize]> {
        self.key.as_deref()
    }

    /// What the user should know besides.
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

/// An item an epoch.
fn items(portion: Portion, schema: &SchemaRef, key: Option<&[usize]>) -> Result<Vec<Change>> {
    let Portion { epochs, snapshot, told } = portion;
    let mut items = Vec::with_capacity(epochs.len() + 1);
    for (place, (cut, delta)) in epochs.into_iter().enumerate() {
        let delta = match delta.is_append_only() {
            true => delta,
            // What came and went within an epoch isn't told.
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
