//! The output of a flow's step.

use arrow::array::RecordBatch;
use millstream_delta::Delta;

use crate::failing_rows::FailingRows;

/// The change of a query's result and errors in one epoch.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The change of the result.
    pub rows: Delta,
    /// The change of the errors, with the columns of [`crate::ERRORS`].
    pub errors: Delta,
    /// The change of further errors, as the rows that fail.
    pub failing: Vec<FailingRows>,
    /// The number of further changed rows of the result, left out since nobody reads them.
    pub left_out: u64,
    /// The late rows, with the columns of `Flow::late_schema` and then a column for their operator's input.
    pub late: Vec<RecordBatch>,
}
