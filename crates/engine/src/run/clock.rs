//! The clock of batch times: the time of the last epoch, due ticks, and a running ADVANCE.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use millstream_delta::{Closes, Cut, Epoch, Timestamp};
use millstream_durable::Standing;
use millstream_sql::{Error, Result};
use millstream_state::Tables;

use super::monotonic_clock::MonotonicClock;
use crate::error;
use crate::event::{Advance, Reply};
use crate::settings::{ClockKind, Settings};

/// The clock of epochs and their batch times: both strictly increase, whatever the time comes from.
#[derive(Debug)]
pub(crate) struct Clock {
    /// The last epoch.
    pub(super) epoch: Epoch,
    /// The time of the machine.
    pub(super) system: MonotonicClock,
    /// The time of the epoch or entry at hand, once it is fixed: read from the journal, or from the system at its begin.
    pub(super) fixed_time: Option<Timestamp>,
    /// The time of the last epoch.
    pub(super) last: Timestamp,
    /// The time of the last epoch that closed a batch.
    pub(super) batch: Timestamp,
    /// The time of a manual clock.
    pub(super) manual: Timestamp,
    pub(super) ticks: Ticks,
    pub(super) moving: Option<Moving>,
    /// The batch time of the last epoch that was stepped.
    pub(super) stepped: Timestamp,
    /// True while no epoch starts and no source is read.
    pub(super) held: bool,
}

/// The batch times of a fixed interval.
#[derive(Debug, Default)]
pub(super) struct Ticks {
    /// The batch times that are due and have not run.
    pub(super) due: VecDeque<Timestamp>,
    /// The number of intervals that were merged because too many waited.
    pub(super) merged: u64,
    /// The next multiple of the interval.
    pub(super) next: Option<Timestamp>,
    /// The last missed tick: the ticks up to it run one by one.
    pub(super) missed_until: Option<Timestamp>,
}

/// An ADVANCE that is running.
#[derive(Debug)]
pub(super) struct Moving {
    pub(super) left: Left,
    pub(super) collecting: bool,
    pub(super) reply: Reply<()>,
}

/// The rest of an ADVANCE.
#[derive(Clone, Copy, Debug)]
pub(super) enum Left {
    Batches(u64),
    To(Timestamp),
}

impl Clock {
    /// Starts with the machine's clock; the first batch begins now.
    pub(super) fn start(system: MonotonicClock) -> Clock {
        Clock {
            epoch: Epoch::default(),
            batch: system.now(),
            system,
            fixed_time: None,
            last: Timestamp::default(),
            manual: Timestamp::default(),
            ticks: Ticks::default(),
            moving: None,
            stepped: Timestamp::default(),
            held: false,
        }
    }

    /// Returns the time now: of the entry that is being replayed, or by the clock in force.
    pub(super) fn now(&self, settings: &Settings) -> Timestamp {
        self.fixed_time.unwrap_or_else(|| match settings.clock {
            ClockKind::System => self.system.now(),
            ClockKind::Manual => self.manual,
        })
    }

    /// Returns the cut of a change between epochs: the number of the last epoch, the present time, and the watermarks.
    pub(super) fn standing_cut(&self, settings: &Settings, watermarks: Vec<(Arc<str>, i64)>) -> Cut {
        let now = self.now(settings).max(self.last);
        Cut { started: self.batch, watermarks, ..Cut::new(self.epoch, now) }
    }

    /// Returns the last epoch and the present time. Queries may begin outside of the loop.
    pub(super) fn standing(&self, settings: &Settings) -> Standing {
        Standing { epoch: self.epoch, now: self.now(settings), begins_apart: true }
    }

    /// Takes the epoch and the time of the journal's entry that is replayed next.
    pub(super) fn stand(&mut self, standing: &Standing) {
        (self.epoch, self.fixed_time) = (standing.epoch, Some(standing.now));
    }

    /// Fixes the time of a change between two epochs, if it is journalled: the journal has the same.
    pub(super) fn fix_time(&mut self, settings: &Settings, is_journalled: bool) {
        if is_journalled {
            self.fixed_time = Some(self.standing(settings).now);
        }
    }

    /// Lets the time move again after a change, unless a replay sets it.
    pub(super) fn end_change(&mut self, is_recovering: bool) {
        if !is_recovering {
            self.fixed_time = None;
        }
    }

    /// Runs each tick from `next` to `until`, without merging any.
    pub(super) fn run_ticks(&mut self, next: Timestamp, until: Timestamp) {
        if next <= until {
            self.ticks.next = Some(self.ticks.due.front().copied().unwrap_or(next));
            self.ticks.due.clear();
            self.ticks.missed_until = Some(until);
        }
    }

    /// Drops the ticks that are due, and continues with the next one.
    pub(super) fn forget_ticks(&mut self) {
        self.ticks.due.clear();
        (self.ticks.next, self.ticks.missed_until) = (None, None);
    }

    /// Returns true if a tick was missed and another one after it: rows that have arrived since are no part of it.
    pub(super) fn is_followed(&self, tick: Timestamp, interval: Duration) -> bool {
        self.ticks.missed_until.is_some_and(|until| tick.0 + interval.as_micros() as i64 <= until.0)
    }

    /// Saves the times.
    pub(super) fn save(&self) -> Tables {
        let mut all = Tables::default();
        all.put_number("last", self.last.0);
        all.put_number("batch", self.batch.0);
        all.put_number("manual", self.manual.0);
        all.put_number("merged", self.ticks.merged as i64);
        all
    }

    /// Restores the saved times.
    pub(super) fn load(&mut self, all: &mut Tables) -> Result<()> {
        let mut time = |name: &str| all.take_number(name).map(Timestamp).map_err(error::state);
        (self.last, self.batch, self.manual) = (time("last")?, time("batch")?, time("manual")?);
        self.ticks.merged = time("merged")?.0 as u64;
        Ok(())
    }

    /// Sets the beginning of the first batch.
    pub(super) fn begin_at(&mut self, at: Timestamp) {
        if self.last.0 == 0 {
            self.batch = at;
        }
    }

    /// Moves a manual clock to the time of the last epoch, if it shows an earlier one.
    pub(super) fn catch_up(&mut self) {
        self.manual = self.manual.max(self.last);
    }

    /// Returns the time of the last epoch.
    pub(crate) fn last(&self) -> Timestamp {
        self.last
    }

    /// Returns the time of the last epoch that closed a batch.
    pub(crate) fn batch(&self) -> Timestamp {
        self.batch
    }

    /// Returns true if an ADVANCE waits for its sources.
    pub(crate) fn is_collecting(&self) -> bool {
        self.moving.as_ref().is_some_and(|moving| moving.collecting)
    }

    /// Returns true if an ADVANCE is running.
    pub(crate) fn is_moving(&self) -> bool {
        self.moving.is_some()
    }

    /// Returns the batch time of an epoch that begins at `at`.
    pub(crate) fn stamp(&mut self, at: Timestamp) -> Timestamp {
        self.last = Timestamp(at.0.max(self.last.0 + 1));
        self.last
    }

    /// Begins an epoch at `at`; it has no number yet.
    pub(super) fn begin(&mut self, at: Timestamp, closes: Closes) -> Cut {
        Cut { started: self.batch, closes, ..Cut::new(Epoch::default(), self.stamp(at)) }
    }

    /// Records that an epoch is decided.
    pub(crate) fn decided(&mut self, cut: &Cut) {
        if cut.closes != Closes::None {
            self.batch = cut.now;
        }
    }

    /// Begins an ADVANCE of a manual clock.
    pub(super) fn advance(&mut self, settings: &Settings, advance: Advance, reply: Reply<()>) {
        if settings.clock != ClockKind::Manual {
            let error = Error::invalid("ADVANCE needs a manual clock").hint("SET clock = 'manual' first.");
            return reply.send(Err(error));
        }
        if self.moving.is_some() {
            return reply.send(Err(Error::external("another ADVANCE is running: try again when it is done")));
        }
        let left = match advance {
            Advance::Batches(count) => Left::Batches(count),
            Advance::To(time) if time < self.manual => {
                let error =
                    format!("the clock can't go back: it shows {}, {time} was asked for", self.manual);
                return reply.send(Err(Error::invalid(error)));
            }
            Advance::To(time) => Left::To(time),
        };
        self.moving = Some(Moving { left, collecting: false, reply });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    /// Returns a clock that begins at 100 seconds. It moves on while a test runs.
    fn clock() -> Clock {
        Clock::start(MonotonicClock::new(Arc::new(|| Timestamp(100 * SECOND))))
    }

    fn seconds(time: Timestamp) -> i64 {
        time.0 / SECOND / 100 * 100
    }

    #[test]
    fn the_time_is_that_of_the_clock_in_force() {
        let mut clock = clock();
        let manual = Settings { clock: ClockKind::Manual, ..Settings::default() };
        assert_eq!((seconds(clock.now(&Settings::default())), clock.now(&manual)), (100, Timestamp(0)));
        clock.fixed_time = Some(Timestamp(7));
        assert_eq!((clock.now(&Settings::default()), clock.now(&manual)), (Timestamp(7), Timestamp(7)));
        clock.end_change(true);
        assert_eq!(clock.now(&manual), Timestamp(7));
        clock.end_change(false);
        assert_eq!(clock.now(&manual), Timestamp(0));
    }

    #[test]
    fn a_change_between_epochs_is_not_before_the_last_one() {
        let mut clock = clock();
        clock.epoch = Epoch(3);
        let last = clock.stamp(Timestamp(500 * SECOND));
        let cut = clock.standing_cut(&Settings::default(), Vec::new());
        assert_eq!((cut.epoch, cut.now, seconds(cut.started)), (Epoch(3), last, 100));
        let standing = clock.standing(&Settings::default());
        assert_eq!((standing.epoch, seconds(standing.now)), (Epoch(3), 100));
    }
}
