//! The limits of a query.

use crate::error::PUTS_OUT;
use crate::{Error, Result};

/// Limits of a query, fixed at its creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of input rows that a FullRecompute operator may keep.
    pub whole_rows_max: usize,
    /// The maximum number of rounds of a recursive query.
    pub recursion_max: usize,
    /// The maximum number of rows that an operator may output in one epoch.
    pub output_rows_max: usize,
    /// The microseconds after which idle keys are forgotten; `None`: never.
    pub state_ttl_us: Option<i64>,
    /// The microseconds by which the watermark must pass the end of a window before it closes.
    pub allowed_lateness_us: i64,
    /// True if each window is emitted once, when it closes.
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
    /// Fails if an operator, or a run of its plan, outputs too many rows.
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
