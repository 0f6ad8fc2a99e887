//! The rows of a table as a table of a checkpoint.

use millstream_delta::Delta;
use millstream_sql::Result;
use millstream_state::{Conflict, Keyed, Rows, Tables};

use super::{Content, Table};
use crate::error;

impl Table {
    /// Its rows; of statements nothing may wait.
    pub(crate) fn save(&self) -> Result<Tables> {
        let mut all = Tables::default();
        let delta = self.rows.snapshot().delta().map_err(error::arrow)?;
        all.put_delta("rows", &delta).map_err(error::state)?;
        Ok(all)
    }

    /// The rows that were saved, in the place of those that are there: a sink into it may have put some over no input.
    pub(crate) fn load(&mut self, all: &mut Tables) -> Result<()> {
        let delta = all.take_delta("rows").map_err(error::state)?;
        (self.pending, self.published) = (Delta::default(), None);
        match &mut self.rows {
            Content::Bag(rows) => {
                *rows = Rows::new(rows.schema().clone());
                rows.apply(&delta).map_err(error::state)?;
            }
            Content::Keyed(rows) => {
                **rows =
                    Keyed::new(rows.schema().clone(), rows.key_columns().to_vec()).map_err(error::state)?;
                for chunk in delta.chunks {
                    rows.upsert(&chunk.rows, Conflict::Fail).map_err(error::state)?;
                }
            }
        }
        Ok(())
    }
}
