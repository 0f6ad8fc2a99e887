//! The state that a successor takes from the query that it replaces.

use millstream_delta::Delta;
use millstream_sql::Result;

use super::{Kept, RunningQuery};
use crate::error;

impl Kept {
    /// Exchanges results that are kept beside the operators.
    pub(in crate::run) fn exchange(&mut self, other: &mut Kept) {
        if let (Kept::Beside(own), Kept::Beside(rows)) = (self, other) {
            std::mem::swap(own, rows);
        }
    }
}

impl RunningQuery {
    /// Copies the result of the query that it replaces and whose operators' state it continues.
    pub(crate) fn keep_result_of(&mut self, before: &RunningQuery) -> Result<()> {
        if let Kept::Beside(rows) = &mut self.kept {
            let before = before.kept_content(None)?.batches_now()?;
            rows.here_mut()?.apply(&Delta::from_iter(before)).map_err(error::state)?;
        }
        Ok(())
    }

    /// Returns false if one query keeps its result in its operators, and the other beside them.
    pub(crate) fn keeps_like(&self, other: &RunningQuery) -> bool {
        let pair = (&self.kept, &other.kept);
        !matches!(pair, (Kept::Operators, Kept::Beside(_)) | (Kept::Beside(_), Kept::Operators))
    }

    /// Takes over the newest rows of the query that it replaces: readers have seen these.
    pub(crate) fn keep_newest_of(&mut self, before: &mut RunningQuery) {
        if let (Kept::Newest(own), Kept::Newest(put_out)) = (&mut self.kept, &mut before.kept) {
            std::mem::swap(own, put_out);
        }
    }
}
