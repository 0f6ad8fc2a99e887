//! A rate limit that changes while a source runs.
//!
//! Waiting arrivals were read before the new limit, and may hold the rows of an hour under it. An epoch takes an
//! arrival whole. So a replayable source reads them again in pieces that fit; for any other, the loop divides them.

use millstream_delta::Timestamp;

use super::RunningSource;
use crate::run::rate::Bound;
use crate::run::sources::Sources;
use crate::settings::Settings;

impl RunningSource {
    /// Returns the rows a second that epochs may take of it, if they are limited.
    pub(in crate::run) fn rate_limit(&self, settings: &Settings) -> Option<f64> {
        self.waiting.limit().per_second(settings)
    }

    /// Restarts the count of its rows under another limit.
    fn limit_anew(&mut self, bound: Option<Bound>, now: Timestamp) {
        self.waiting.restart_rate(now);
        let Some(rows_max) = bound.map(|bound| bound.batch_rows().max(1)) else { return };
        if !self.properties.replayable || self.properties.reliable {
            return;
        }
        if self.waiting.has_larger(rows_max) || !self.pulls.are_answered() {
            self.read_waiting_again();
        }
    }

    /// Returns true if the loop divides arrivals that exceed the limit.
    pub(super) fn divides_arrivals(&self) -> bool {
        let properties = &self.properties;
        !(properties.replayable || properties.reliable || properties.one_arrival_a_batch)
    }
}

impl Sources {
    /// Applies the setting to sources without a limit of their own.
    pub(in crate::run) fn limit_all_anew(&mut self, settings: &Settings, now: Timestamp) {
        for source in self.values_mut().filter(|source| !source.waiting.limit().is_declared()) {
            let bound = source.waiting.bound(settings);
            source.limit_anew(bound, now);
        }
    }
}
