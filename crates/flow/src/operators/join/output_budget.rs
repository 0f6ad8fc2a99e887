//! The limit of a join's output.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Result;
use crate::limits::Limits;

/// Refuses a step that emits too many rows; threads share the count of pairs.
#[derive(Debug)]
pub(super) struct OutputBudget {
    limits: Limits,
    /// The number of pairs that this step has emitted.
    paired: AtomicUsize,
}

impl OutputBudget {
    pub(super) fn new(limits: Limits) -> OutputBudget {
        OutputBudget { limits, paired: AtomicUsize::new(0) }
    }

    /// Begins a step.
    pub(super) fn begin(&mut self) {
        *self.paired.get_mut() = 0;
    }

    /// Fails if this is too large an output.
    pub(super) fn check(&self, rows: usize) -> Result<()> {
        self.limits.check_output(rows)
    }

    /// Counts pairs of this step; fails if these are too many.
    pub(super) fn pair(&self, count: usize) -> Result<()> {
        self.limits.check_output(self.paired.fetch_add(count, Ordering::Relaxed) + count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_one_step_add_up() {
        let mut budget = OutputBudget::new(Limits { output_rows_max: 5, ..Limits::default() });
        assert!(budget.pair(3).is_ok() && budget.check(5).is_ok());
        assert!(budget.pair(3).is_err() && budget.check(6).is_err());
        budget.begin();
        assert!(budget.pair(5).is_ok());
    }
}
