//! Reading the result of a query.

use arrow::array::RecordBatch;
use millstream_flow::Wanted;
use millstream_sql::{Error, Kind, Result};

use super::{MEND, ResultRows, RunningQuery, Status};

impl RunningQuery {
    /// Fails if there is no result to read: the query is suspended, or still backfills.
    pub(crate) fn check_there(&self) -> Result<()> {
        match &self.status {
            Status::Suspended { reason, epoch } => Err(Error::new(
                Kind::Invalid,
                format!("\"{}\" is suspended since epoch {epoch}: {}", self.name, reason.message),
            )
            .hint(reason.hint.as_deref().filter(|hint| hint.contains("RESUME")).unwrap_or(MEND))),
            Status::Waiting(_) | Status::CatchingUp(_) => Err(Error::external(format!(
                "\"{}\" is still reading the existing rows of its inputs: try again later",
                self.name
            ))),
            Status::Running | Status::Paused(_) | Status::Lagging(_) => Ok(()),
        }
    }

    /// Returns the wanted rows of the result, and perhaps others, if its operators find them by their key.
    pub(crate) fn read_wanted(&self, wanted: &Wanted) -> Option<Result<Vec<RecordBatch>>> {
        let there = matches!(self.status, Status::Running | Status::Paused(_) | Status::Lagging(_));
        let kept = matches!(self.result.rows, ResultRows::Operators) && !self.is_per_batch();
        if there && kept { self.flow.content_wanted(wanted) } else { None }
    }
}
