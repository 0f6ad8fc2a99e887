//! What a transaction does to a table: looks keys up while it runs, and changes all at once at its end.

use arrow::array::ArrayRef;
use millstream_delta::{Chunk, Delta};
use millstream_sql::{Error, Result};
use millstream_state::Conflict;

use super::{Content, Table};
use crate::error;
use crate::transaction::{Found, PinnedTable, Write, conflict};

/// What to go back to when what was done to a table a moment ago is to be undone: how much had changed before it.
pub(crate) struct Undo(usize);

impl Table {
    /// The table as it is now.
    pub(crate) fn pinned(&self) -> PinnedTable {
        let key = match &self.rows {
            Content::Bag(_) => Vec::new(),
            Content::Keyed(rows) => rows.key_columns().to_vec(),
        };
        let staged = self.staged();
        let schema = staged.schema().clone();
        PinnedTable {
            published: self.published(),
            staged,
            schema,
            added: self.added.clone(),
            key,
            intake: self.intake,
            next_id: self.next_id(),
            version: self.version,
            settled: self.pending.is_empty(),
        }
    }

    /// The rows that have some keys; none in a table without a key.
    pub(crate) fn look_up(&self, keys: &[ArrayRef]) -> Result<Found> {
        match &self.rows {
            Content::Bag(_) => Ok(Vec::new()),
            Content::Keyed(rows) => rows.lookup(keys).map_err(error::change),
        }
    }

    /// Fails if another transaction has changed what this one changes.
    pub(crate) fn check(&self, write: &Write) -> Result<()> {
        match (&self.rows, write) {
            (Content::Keyed(rows), Write::Keyed { keys, base, .. }) => {
                match rows.lookup(keys).map_err(error::change)? == *base {
                    true => Ok(()),
                    false => Err(conflict()),
                }
            }
            (Content::Bag(_), Write::Bag { .. }) => Ok(()),
            _ => Err(Error::bug(
                "a table has a key to its transactions and none of its own, or the other way round",
            )),
        }
    }

    /// Carries out what was checked. Rows without a key may turn out to be gone, and then nothing changes.
    pub(crate) fn commit(&mut self, write: Write) -> Result<Undo> {
        self.stage();
        let undo = Undo(self.pending.chunks.len());
        match (&mut self.rows, write) {
            (Content::Bag(rows), Write::Bag { delta, .. }) => {
                rows.apply(&delta).map_err(|failed| match failed {
                    millstream_state::Error::Negative(_) => conflict(),
                    other => error::change(other),
                })?;
                self.pending.append(delta);
                Ok(undo)
            }
            (Content::Keyed(kept), Write::Keyed { gone, rows, .. }) => {
                let mut change = Delta::default();
                if !gone.is_empty() {
                    change.append(kept.delete_keys(&gone).map_err(error::change)?);
                }
                for batch in &rows {
                    change.append(kept.upsert(batch, Conflict::Replace).map_err(error::change)?);
                }
                self.pending.append(change);
                Ok(undo)
            }
            _ => Err(Error::bug("what is committed was checked before")),
        }
    }

    /// Takes back what was done a moment ago.
    pub(crate) fn undo(&mut self, undo: Undo) {
        let done = self.pending.chunks.split_off(undo.0.min(self.pending.chunks.len()));
        self.take_back(Delta { chunks: done });
    }
}

/// What takes a delta back.
pub(crate) fn negated(mut delta: Delta) -> Delta {
    for Chunk { weights, rows } in &mut delta.chunks {
        let old = std::mem::take(weights);
        *weights = Some(match old {
            Some(weights) => weights.unary(|weight| -weight),
            None => arrow::array::Int64Array::from(vec![-1; rows.num_rows()]),
        });
    }
    delta
}
