//! Looking up rows of a table by their key, or by an index.

use arrow::array::RecordBatch;
use millstream_delta::{Delta, consolidate};
use millstream_flow::{Wanted, keys_wanted};
use millstream_sql::Result;

use super::index::Entries;
use super::{Content, Table};
use crate::error;

/// Maximum of pending changes that are undone for one reader.
const PENDING_ROWS_MAX: usize = 1000;

/// Rows of a table that a reader wants, and perhaps others.
pub(crate) struct FoundRows {
    pub(crate) rows: Vec<RecordBatch>,
    /// The columns by whose values they were found.
    pub(crate) by: Vec<usize>,
}

impl Table {
    /// Returns a number that rises with every change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Returns the wanted rows as of the last epoch, and perhaps others; `None` if their key doesn't find them.
    pub(crate) fn published_wanted(&self, wanted: &Wanted) -> Result<Option<Vec<RecordBatch>>> {
        if self.pending.num_rows() > PENDING_ROWS_MAX {
            return Ok(None);
        }
        let Some(FoundRows { rows, .. }) = self.staged_wanted(wanted)? else { return Ok(None) };
        if self.pending.is_empty() {
            return Ok(Some(rows));
        }
        // Undo the pending changes: deleted rows return, whatever their key, and inserted ones go.
        let mut all = Delta::from_iter(rows);
        all.append(self.pending.clone().negated());
        let Ok(all) = consolidate(all, self.staged().schema()) else { return Ok(None) };
        let rows = all.chunks.iter().map(|chunk| chunk.expand().map_err(error::arrow));
        rows.collect::<Result<_>>().map(Some)
    }

    /// The same as statements see the rows; `None` also while a large statement is applied.
    pub(crate) fn staged_wanted(&self, wanted: &Wanted) -> Result<Option<FoundRows>> {
        if self.applying.is_some() {
            return Ok(None);
        }
        let key = self.rows.key_columns();
        let by_key = keys_wanted(wanted, key.iter().copied()).transpose().map_err(error::flow)?;
        let (keys, by) = match by_key {
            Some(keys) => (keys, key),
            None => match self.indexes.find(wanted)? {
                None => return Ok(None),
                Some((Entries::Keys(keys), by)) => (keys, by),
                Some((Entries::Rows(rows), by)) => return Ok(Some(FoundRows { rows, by: by.to_vec() })),
            },
        };
        let Content::Keyed(kept) = &self.rows else { return Ok(None) };
        let mut ids: Vec<u64> = kept.lookup(&keys).map_err(error::change)?.into_iter().flatten().collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(Some(FoundRows { rows: vec![kept.gather(&ids).map_err(error::state)?], by: by.to_vec() }))
    }
}
