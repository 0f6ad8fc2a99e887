//! The rows of a table that a source fills: the changes that an epoch takes of the source apply at once.

use arrow::array::RecordBatch;
use millstream_connect::{BadRow, Changes};
use millstream_delta::Delta;
use millstream_sql::{Error, Result};
use millstream_state::Changed;

use super::{Content, Table};
use crate::error;

impl Table {
    /// Applies changes in order. Returns their delta, and the records that should delete missing rows, except tombstones.
    pub(crate) fn follow(&mut self, batches: &[RecordBatch]) -> Result<(Delta, Vec<BadRow>)> {
        let Content::Keyed(rows) = &mut self.rows else { return Err(no_key()) };
        (self.published, self.version) = (None, self.version + 1);
        let (mut delta, mut bad) = (Delta::default(), Vec::new());
        for batch in batches {
            let changes = Changes::of(batch).map_err(error::connect)?;
            let Changed { delta: changed, missing } =
                rows.change(&changes.rows, &changes.goes).map_err(error::change)?;
            delta.append(changed);
            bad.extend(missing.into_iter().filter_map(|row| {
                let row = row as usize;
                let key = || changes.text(row, rows.key_columns());
                changes.bad_row(row, || format!("there is no row to delete with the key {}", key()))
            }));
        }
        Ok((delta, bad))
    }

    /// Inserts rows. A row with an existing key replaces that row, or is skipped, as the table's rules say.
    pub(crate) fn follow_rows(&mut self, delta: &Delta) -> Result<Delta> {
        (self.published, self.version) = (None, self.version + 1);
        let rows = match &mut self.rows {
            Content::Bag(rows) => {
                rows.apply(delta).map_err(error::state)?;
                return Ok(delta.clone());
            }
            Content::Keyed(rows) => rows,
        };
        let mut change = Delta::default();
        for chunk in &delta.chunks {
            change.append(rows.upsert(&chunk.rows, self.intake.on_conflict).map_err(error::change)?);
        }
        Ok(change)
    }
}

fn no_key() -> Error {
    Error::bug("a source of changes keeps its rows by key")
}
