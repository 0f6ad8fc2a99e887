//! Saving the rows of a table, and loading them.

use millstream_delta::Delta;
use millstream_sql::Result;
use millstream_state::{Conflict, Keyed, Tables};

use super::{Content, Table};
use crate::error;
use crate::run::query::{put_rows, take_rows};

impl Table {
    /// Saves the rows; no change by a statement may wait.
    pub(crate) fn save(&self) -> Result<Tables> {
        let mut all = Tables::default();
        match &self.rows {
            Content::Bag(rows) => put_rows(&mut all, "rows", rows)?,
            Content::Keyed(rows) => rows.save_changed("rows", &mut all).map_err(error::state)?,
        }
        self.sequences.save(&mut all);
        Ok(all)
    }

    /// Replaces the rows by the saved ones: a sink into the table may have inserted some without input.
    pub(crate) fn load(&mut self, all: &mut Tables) -> Result<()> {
        (self.pending, self.published) = (Delta::default(), None);
        match &mut self.rows {
            Content::Bag(rows) => take_rows(all, "rows", rows)?,
            Content::Keyed(rows) => {
                **rows =
                    Keyed::new(rows.schema().clone(), rows.key_columns().to_vec()).map_err(error::state)?;
                for chunk in all.take_delta("rows").map_err(error::state)?.chunks {
                    rows.upsert(&chunk.rows, Conflict::Fail).map_err(error::state)?;
                }
            }
        }
        self.sequences.load(all);
        let (rows, key) = (self.rows.snapshot(), self.rows.key_columns().to_vec());
        self.indexes.rebuild(rows.schema(), &key, &rows)
    }
}
