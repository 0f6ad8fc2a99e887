//! What a query keeps of the one whose place it takes.

use millstream_delta::Delta;
use millstream_sql::Result;

use super::{Kept, RunningQuery};
use crate::error;

impl RunningQuery {
    /// Keeps the result of a query whose place it takes and whose operators it goes on with.
    pub(crate) fn keep_result_of(&mut self, before: &RunningQuery) -> Result<()> {
        if let Kept::Beside(rows) = &mut self.kept {
            rows.apply(&Delta::from_iter(before.batches(None)?)).map_err(error::state)?;
        }
        Ok(())
    }

    /// True if it keeps its result where this query does.
    pub(crate) fn keeps_like(&self, other: &RunningQuery) -> bool {
        let pair = (&self.kept, &other.kept);
        !matches!(pair, (Kept::Operators, Kept::Beside(_)) | (Kept::Beside(_), Kept::Operators))
    }

    /// Keeps, of rows that only come, those that the query had kept whose place it takes: they were put out.
    pub(crate) fn keep_newest_of(&mut self, before: &mut RunningQuery) {
        if let (Kept::Newest(own), Kept::Newest(put_out)) = (&mut self.kept, &mut before.kept) {
            std::mem::swap(own, put_out);
        }
    }
}
