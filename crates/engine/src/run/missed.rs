//! Missed batches: due while no process ran, or skipped by a change of the system clock. Each is run, or none.

use std::time::Duration;

use millstream_delta::{Epoch, Timestamp};
use millstream_durable::Entry;

use super::batches::Batches;
use super::clock::Clock;
use super::compile::next_multiple;
use super::durable::Durability;
use super::query::{RunningQuery, Status};
use crate::run::queries::Queries;
use crate::settings::{ClockKind, MissedBatches, Pace, Settings};

impl Queries {
    /// Makes queries with an interval continue, after this epoch, with the first batch after this time.
    pub(super) fn skip_batches(&mut self, after: Epoch, to: Timestamp) {
        for query in self.all.iter_mut().filter(|query| query.batches.as_ref().is_some_and(Batches::slides)) {
            match &mut query.status {
                Status::Running => query.batches.iter_mut().for_each(|batches| batches.skip_to(to)),
                // The waiting epochs run their batches first.
                Status::Lagging(lag) => lag.skip_batches(after, to),
                _ => {}
            }
        }
    }
}

impl Clock {
    /// Runs or skips the batches that were due since the last one.
    pub(super) fn miss_batches(
        &mut self,
        queries: &mut Queries,
        durability: &mut Durability,
        settings: &Settings,
    ) {
        // A replay skips the batches that the journal records.
        if settings.clock != ClockKind::System || durability.is_recovering() {
            return;
        }
        let now = self.system.now();
        match (settings.batches.missed, settings.pace) {
            (MissedBatches::Run, Pace::Fixed(interval)) => self.run_missed(queries, interval, now),
            // Queries with an interval at auto pace run at each of their times by themselves.
            (MissedBatches::Run, Pace::Auto) => {}
            (MissedBatches::Skip, _) => {
                self.forget_ticks();
                let passed = self.last();
                if queries.iter().any(|query| query.next_batch(passed).is_some_and(|next| next <= now)) {
                    queries.skip_batches(self.epoch, now);
                    durability.append(Entry::Skipped { to: now }, self.epoch);
                }
            }
        }
    }

    /// Runs the missed ticks, empty or not, if some query runs once per batch.
    fn run_missed(&mut self, queries: &[RunningQuery], interval: Duration, now: Timestamp) {
        let steps = |query: &RunningQuery| query.status.is_running() || query.status.lag().is_some();
        if queries.iter().any(|query| steps(query) && query.is_per_batch()) {
            let next = next_multiple(interval.as_micros() as i64, self.last().max(self.batch()));
            self.run_ticks(next, now);
        }
    }
}
