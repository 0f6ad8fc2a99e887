//! The bounds of a query.

use crate::error::PUTS_OUT;
use crate::{Error, Result};

/// Bounds of a query, fixed at its creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many rows of input a Whole operator may keep.
    pub whole_rows_max: usize,
    /// How many rounds a recursive query may take.
    pub recursion_max: usize,
    /// How many rows an operator may put out in one epoch.
    pub output_rows_max: usize,
    /// After how many microseconds keys are forgotten that no row touches; none: never.
    pub state_ttl_us: Option<i64>,
    /// By how many microseconds the watermark must have passed the end of a window when it closes.
    pub allowed_lateness_us: i64,
    /// Whether each window is put out once, when it closes.
    pub on_close: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            whole_rows_max: 1_000_000,
            recursion_max: 10_000,
            output_rows_max: 100_000_000,
            state_ttl_us: None,
            allowed_lateness_us: 0,
            on_close: false,
        }
    }
}

impl Limits {
    /// Fails where an operator, or a run of its plan, puts out more rows than it may.
    pub(crate) fn check_output(&self, rows: usize) -> Result<()> {
        if rows <= self.output_rows_max {
            return Ok(());
        }
        Err(Error::Limit(format!(
            "{PUTS_OUT} more than {} rows in one epoch, which is output_rows_max: narrow the query, or SET \
             output_rows_max higher first",
            self.output_rows_max
        )))
    }
}
