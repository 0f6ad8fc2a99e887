//! Batches that were due while no process ran, or that the machine's clock was set past: each is run, or none.

use std::time::Duration;

use millstream_delta::Timestamp;
use millstream_durable::Entry;

use super::Loop;
use super::compile::next_multiple;
use crate::settings::{ClockKind, MissedBatches, Pace};

impl Loop {
    /// Decides what becomes of the batches that were due since the last one.
    pub(super) fn miss_batches(&mut self) {
        // What is done again skips what the journal says.
        if self.settings.clock != ClockKind::System || self.durability.is_recovering() {
            return;
        }
        let now = self.machine.now();
        match (self.settings.missed_batches, self.settings.pace) {
            (MissedBatches::Run, Pace::Fixed(interval)) => self.run_missed(interval, now),
            // Queries that slide at auto pace run at each of their times by themselves.
            (MissedBatches::Run, Pace::Auto) => {}
            (MissedBatches::Skip, _) => {
                self.clock.forget_ticks();
                let late = self.queries.iter().any(|query| query.is_running() && query.is_late(now));
                if late {
                    self.skip_batches(now);
                    self.journal(Entry::Skipped { to: now });
                }
            }
        }
    }

    /// Lets the ticks run, empty or not, that some query is owed.
    fn run_missed(&mut self, interval: Duration, now: Timestamp) {
        if self.queries.iter().any(|query| query.is_running() && query.is_per_batch()) {
            let next = next_multiple(interval.as_micros() as i64, self.clock.last().max(self.clock.batch()));
            self.clock.run_ticks(next, now);
        }
    }

    /// Lets queries that slide go on with the first batch after this time.
    pub(super) fn skip_batches(&mut self, to: Timestamp) {
        for query in self.queries.iter_mut().filter(|query| query.is_running()) {
            query.skip_batches(to);
        }
    }
}
