//! A table as a transaction reads it: pinned, and looked up by key. At its end, the transaction applies a
//! [`super::Change`].

use arrow::array::ArrayRef;
use millstream_delta::Delta;
use millstream_sql::Result;

use super::{Content, Table};
use crate::error;
use crate::transaction::{Found, PinnedTable};

/// A point to return to in an undo: the number of changes before it.
pub(crate) struct Undo(usize);

impl Table {
    /// Pins the present state of the table.
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
            sequences: self.sequences.clone(),
        }
    }

    /// Returns the rows that have these keys; none in a table without a key.
    pub(crate) fn look_up(&self, keys: &[ArrayRef]) -> Result<Found> {
        self.rows.look_up(keys)
    }

    /// Returns the point to which an undo can return now.
    pub(crate) fn undo_point(&mut self) -> Undo {
        self.stage();
        Undo(self.pending.chunks.len())
    }

    /// Undoes the changes since a point.
    pub(crate) fn undo(&mut self, undo: Undo) {
        let done = self.pending.chunks.split_off(undo.0.min(self.pending.chunks.len()));
        self.rows.undo(&mut self.indexes, Delta { chunks: done });
    }
}

impl Content {
    /// Returns the rows that have these keys; none without a key.
    pub(super) fn look_up(&self, keys: &[ArrayRef]) -> Result<Found> {
        match self {
            Content::Bag(_) => Ok(Vec::new()),
            Content::Keyed(rows) => rows.lookup(keys).map_err(error::change),
        }
    }
}
