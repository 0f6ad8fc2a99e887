//! The last step of a query.

use std::time::Duration;

use millstream_flow::Cost;

use crate::run::speed::Speed;

/// The effect of the last step of a query, and the duration of its steps.
#[derive(Debug, Default)]
pub(crate) struct LastStep {
    changed: u64,
    ended_batch: bool,
    speed: Speed,
}

impl LastStep {
    /// Returns the number of rows that it changed in the result, with those that the operators left out.
    pub(crate) fn changed(&self) -> u64 {
        self.changed
    }

    /// Returns true if it ended a batch that the query runs for.
    pub(crate) fn ended_batch(&self) -> bool {
        self.ended_batch
    }

    /// Returns the durations of the steps.
    pub(in crate::run) fn speed(&self) -> Speed {
        self.speed
    }

    /// Begins another step.
    pub(in crate::run) fn begin(&mut self) {
        self.changed = 0;
    }

    /// Begins another step of a query FOR EACH BATCH.
    pub(in crate::run) fn begin_batch(&mut self) {
        (self.changed, self.ended_batch) = (0, false);
    }

    /// Records the number of changed rows.
    pub(in crate::run) fn change(&mut self, rows: u64) {
        self.changed = rows;
    }

    /// Records if the step ended a batch.
    pub(in crate::run) fn end_batch(&mut self, ended: bool) {
        self.ended_batch = ended;
    }

    /// Counts the duration of a step over a number of rows.
    pub(in crate::run) fn took(&mut self, time: Duration, rows: usize, cost: Cost) {
        self.speed.took(time, rows, cost);
    }

    /// Replaces the durations of the steps: those of another thread say nothing about this one's.
    pub(in crate::run) fn set_speed(&mut self, speed: Speed) {
        self.speed = speed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_forgets_the_last_one_and_keeps_the_speed() {
        let mut step = LastStep::default();
        step.change(3);
        step.end_batch(true);
        step.took(Duration::from_secs(2), 1, Cost::Delta);
        step.begin();
        assert_eq!((step.changed(), step.ended_batch()), (0, true));
        step.begin_batch();
        assert!(!step.ended_batch() && step.speed().is_slow());
        step.set_speed(Speed::default());
        assert!(!step.speed().is_slow());
    }
}
