//! The start of epochs, and their batch times.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use millstream_delta::{Closes, Cut, Epoch, Timestamp};
use millstream_sql::{Error, Result};
use millstream_state::Tables;

use super::Loop;
use super::backpressure::HeldBack;
use super::compile::next_multiple;
use super::source::RunningSource;
use super::sources::Sources;
use crate::error;
use crate::event::{Advance, Reply};
use crate::settings::{ClockKind, MissedBatches, Pace, Settings};

/// Maximum number of missed ticks that wait at a time; any number may have been missed.
const MISSED_MAX: usize = 16;

/// If more ticks than this exceed the queue, the clock merges them at once, without a loop over them.
const MERGED_SINGLY_MAX: i64 = 1000;

/// Maximum wait before the loop reads the machine's clock again, since someone may set that clock meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The clock of batch times: strictly increasing, whatever the time comes from.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    last: Timestamp,
    /// The time of the last epoch that closed a batch.
    batch: Timestamp,
    /// The time of a manual clock.
    manual: Timestamp,
    /// Batch times of a fixed interval that are due and have not run.
    due: VecDeque<Timestamp>,
    /// The number of intervals that were merged because too many waited.
    pub(crate) merged: u64,
    /// The next multiple of a fixed interval.
    next_tick: Option<Timestamp>,
    /// The last missed tick: the ticks up to it run one by one.
    missed_until: Option<Timestamp>,
    moving: Option<Moving>,
    /// The batch time of the last epoch that was stepped.
    pub(super) stepped: Timestamp,
    /// True while no epoch starts and no source is read.
    pub(super) held: bool,
}

/// An ADVANCE that is running.
#[derive(Debug)]
struct Moving {
    left: Left,
    collecting: bool,
    reply: Reply<()>,
}

#[derive(Clone, Copy, Debug)]
enum Left {
    Batches(u64),
    To(Timestamp),
}

impl Clock {
    /// Starts with the machine's clock; the first batch begins now.
    pub(crate) fn start(now: Timestamp) -> Clock {
        Clock { batch: now, ..Clock::default() }
    }

    /// Runs each tick from `next` to `until`, without merging any.
    pub(super) fn run_ticks(&mut self, next: Timestamp, until: Timestamp) {
        if next <= until {
            self.next_tick = Some(self.due.front().copied().unwrap_or(next));
            self.due.clear();
            self.missed_until = Some(until);
        }
    }

    /// Drops the ticks that are due, and continues with the next one.
    pub(super) fn forget_ticks(&mut self) {
        self.due.clear();
        (self.next_tick, self.missed_until) = (None, None);
    }

    /// Returns true if a tick was missed and another one after it: rows that have arrived since are no part of it.
    fn is_followed(&self, tick: Timestamp, interval: Duration) -> bool {
        self.missed_until.is_some_and(|until| tick.0 + interval.as_micros() as i64 <= until.0)
    }

    /// Saves the times.
    pub(super) fn save(&self) -> Tables {
        let mut all = Tables::default();
        all.put_number("last", self.last.0);
        all.put_number("batch", self.batch.0);
        all.put_number("manual", self.manual.0);
        all.put_number("merged", self.merged as i64);
        all
    }

    /// Restores the saved times.
    pub(super) fn load(&mut self, all: &mut Tables) -> Result<()> {
        let mut time = |name: &str| all.take_number(name).map(Timestamp).map_err(error::state);
        (self.last, self.batch, self.manual) = (time("last")?, time("batch")?, time("manual")?);
        self.merged = time("merged")?.0 as u64;
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
    fn begin(&mut self, at: Timestamp, closes: Closes) -> Cut {
        Cut { started: self.batch, closes, ..Cut::new(Epoch::default(), self.stamp(at)) }
    }

    /// Records that an epoch is decided.
    pub(crate) fn decided(&mut self, cut: &Cut) {
        if cut.closes != Closes::None {
            self.batch = cut.now;
        }
    }
}

impl Loop {
    /// Returns the time now, by the clock in force.
    pub(super) fn now(&self) -> Timestamp {
        if let Some(at) = self.durability.at {
            return at;
        }
        match self.settings.clock {
            ClockKind::System => self.machine.now(),
            ClockKind::Manual => self.clock.manual,
        }
    }

    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let mut settings = self.settings.clone();
        settings.set(name, value)?;
        self.check_windows(settings.pace)?;
        if settings.clock != self.settings.clock {
            if self.clock.last.0 > 0 && settings.clock == ClockKind::Manual {
                return Err(Error::invalid("the clock can't become manual after the first epoch")
                    .hint("SET clock = 'manual' before any row is written or read."));
            }
            if let Some(moving) = self.clock.moving.take() {
                moving
                    .reply
                    .send(Err(Error::invalid("the clock was set to 'system' while it was advancing")));
            }
        }
        if settings.clock != self.settings.clock && self.clock.last.0 == 0 {
            self.clock.batch = match settings.clock {
                ClockKind::System => self.durability.at.unwrap_or_else(|| self.machine.now()),
                ClockKind::Manual => Timestamp::default(),
            };
        }
        self.execution.driver.set_threads(settings.threads());
        // A script that runs again sets the same values: batches that were missed stay due.
        let keeps_pace = (settings.pace, settings.clock) == (self.settings.pace, self.settings.clock);
        let keeps_limit = settings.source_rate_limit == self.settings.source_rate_limit;
        self.settings = settings;
        if !keeps_limit {
            self.limit_sources();
        }
        self.publish_settings();
        self.durability.set_interval(self.settings.journal_interval);
        if !keeps_pace {
            self.clock.forget_ticks();
        }
        if name == "missed_batches" && self.settings.missed_batches == MissedBatches::Skip {
            self.miss_batches();
        }
        self.plan_watermarks();
        if name == "memory_limit" {
            self.memory.look_again();
            self.keep_within_memory();
        }
        Ok(())
    }

    pub(super) fn advance(&mut self, advance: Advance, reply: Reply<()>) {
        if self.settings.clock != ClockKind::Manual {
            let error = Error::invalid("ADVANCE needs a manual clock").hint("SET clock = 'manual' first.");
            return reply.send(Err(error));
        }
        if self.clock.moving.is_some() {
            return reply.send(Err(Error::external("another ADVANCE is running: try again when it is done")));
        }
        let left = match advance {
            Advance::Batches(count) => Left::Batches(count),
            Advance::To(time) if time < self.clock.manual => {
                let error =
                    format!("the clock can't go back: it shows {}, {time} was asked for", self.clock.manual);
                return reply.send(Err(Error::invalid(error)));
            }
            Advance::To(time) => Left::To(time),
        };
        self.clock.moving = Some(Moving { left, collecting: false, reply });
    }

    /// Moves the clock as far as possible before an epoch must run.
    pub(super) fn advance_clock(&mut self) {
        match self.settings.clock {
            ClockKind::System => self.advance_system(),
            ClockKind::Manual => self.advance_manual(),
        }
    }

    fn advance_system(&mut self) {
        let Pace::Fixed(interval) = self.settings.pace else { return };
        // A tick without input runs nothing, unless a query asks for all its batches, empty or not.
        if !self.sources.rows_wait(&self.held_back()) && !self.owes_ticks() {
            return self.clock.forget_ticks();
        }
        let (now, interval) = (self.machine.now(), interval.as_micros() as i64);
        let mut next = self.clock.next_tick.unwrap_or_else(|| next_multiple(interval, now));
        if self.clock.missed_until.is_some_and(|until| next > until && self.clock.due.is_empty()) {
            self.clock.missed_until = None;
        }
        let missed = self.clock.missed_until;
        let more = (now.0 - next.0) / interval - self.settings.max_queued_batches as i64;
        if missed.is_none() && more > MERGED_SINGLY_MAX {
            next = Timestamp(next.0 + more * interval);
            self.clock.merged += more as u64;
        }
        while next <= now && (missed.is_none() || self.clock.due.len() < MISSED_MAX) {
            self.clock.due.push_back(next);
            self.measures.batch_is_due(next);
            next = Timestamp(next.0 + interval);
        }
        self.clock.next_tick = Some(next);
        while missed.is_none() && self.clock.due.len() > self.settings.max_queued_batches {
            self.clock.due.pop_front();
            self.clock.merged += 1;
        }
    }

    /// Starts the next batch of an ADVANCE: asks the sources for their rows.
    fn advance_manual(&mut self) {
        let step = self.settings.step_us();
        let something_waits = self.something_waits();
        let wake = self.next_flow_wake();
        let (owed, timer) = (self.owes_ticks(), self.next_timer().into_iter().chain(self.next_wake()).min());
        let Some(moving) = &mut self.clock.moving else { return };
        if moving.collecting {
            return;
        }
        let target = match &mut moving.left {
            Left::Batches(0) => None,
            Left::Batches(count) => {
                *count -= 1;
                Some(Timestamp((self.clock.manual.0 / step + 1) * step))
            }
            Left::To(time) => {
                // At auto pace, only the input that waits now and timers are due on the way; at a fixed pace, each tick
                // is.
                let end = *time;
                let (tick, due) = match self.settings.pace {
                    Pace::Auto => match timer.filter(|timer| *timer <= end) {
                        Some(timer) => (timer, true),
                        None => (end, something_waits),
                    },
                    Pace::Fixed(_) => {
                        let owed = owed || wake.is_some_and(|wake| wake <= end);
                        (Timestamp((self.clock.manual.0 / step + 1) * step), something_waits || owed)
                    }
                };
                if self.clock.manual >= end {
                    None
                } else if tick > end || !due {
                    // Skips ticks without input.
                    self.clock.manual = end;
                    None
                } else {
                    Some(tick)
                }
            }
        };
        match target {
            Some(time) => {
                moving.collecting = true;
                self.clock.manual = time;
                self.collect_sources();
            }
            None => {
                if let Some(Moving { reply, .. }) = self.clock.moving.take() {
                    self.durability.when_durable(move |done| reply.send(done));
                }
            }
        }
    }

    /// Returns true if an epoch must run now.
    pub(super) fn epoch_is_due(&self) -> bool {
        if self.clock.held {
            return false;
        }
        if self.settings.clock == ClockKind::Manual {
            return self.clock.is_collecting() && self.sources.values().all(RunningSource::has_answered);
        }
        if self.statements_wait() {
            return true;
        }
        match self.settings.pace {
            Pace::Auto => self.rows_are_due() || self.timer_is_due(),
            // When the engine stops gracefully, rows that have arrived don't wait for the next tick.
            Pace::Fixed(_) => !self.clock.due.is_empty() || (self.waiters.gracefully && self.rows_are_due()),
        }
    }

    /// Returns true if a batch of a manual clock may find input.
    pub(super) fn something_waits(&self) -> bool {
        self.statements_wait()
            || self
                .sources
                .values()
                .any(|source| source.is_read() && (!source.has_ended() || source.has_rows()))
    }

    fn rows_are_due(&self) -> bool {
        self.rows_are_due_in().is_some_and(|wait| wait.is_zero())
    }

    /// Returns the time until waiting rows of some source may be taken in.
    fn rows_are_due_in(&self) -> Option<Duration> {
        let now = self.machine.now();
        let held = self.held_back();
        let used = self.sources.iter().filter(|(name, source)| source.is_read() && !held.contains_key(*name));
        used.filter_map(|(_, source)| source.due_in(&self.settings, now)).min()
    }

    /// Begins an epoch now, still without a number. Returns its cut, and true if it takes rows of sources.
    pub(super) fn begin_epoch(&mut self) -> (Cut, bool) {
        if self.settings.clock == ClockKind::Manual {
            if let Some(moving) = &mut self.clock.moving {
                moving.collecting = false;
            }
            let manual = self.clock.manual;
            return (self.clock.begin(manual, Closes::All), true);
        }
        let now = self.machine.now();
        match self.settings.pace {
            Pace::Auto => match self.next_timer().filter(|timer| *timer <= now) {
                // Of several timers that are due, the last takes the rows: the others lie before the arrival of these.
                Some(timer) => {
                    let cut = self.clock.begin(timer, Closes::Filled);
                    let last = self.timer_after(timer).is_none_or(|next| next > now);
                    (cut, last)
                }
                None => (self.clock.begin(now, Closes::Filled), true),
            },
            // Between two ticks an epoch takes in changes by statements, and no rows of sources.
            Pace::Fixed(interval) => match self.clock.due.pop_front() {
                Some(tick) => {
                    let rows_are_of_it = !self.clock.is_followed(tick, interval);
                    (self.clock.begin(tick, Closes::All), rows_are_of_it)
                }
                None if self.waiters.gracefully && self.rows_are_due() => {
                    (self.clock.begin(now, Closes::All), true)
                }
                None => {
                    let before = self.clock.next_tick.map_or(now, |tick| Timestamp(now.0.min(tick.0 - 1)));
                    (self.clock.begin(before, Closes::None), false)
                }
            },
        }
    }

    /// Returns the time of an event now that is no batch: before a batch that is due and has not run.
    pub(super) fn time_between(&self) -> Timestamp {
        let now = self.now();
        let due = match self.settings.pace {
            Pace::Auto => self.next_timer(),
            Pace::Fixed(_) => self.clock.due.front().copied().or(self.clock.next_tick),
        };
        if due.is_some_and(|due| due <= now) { self.clock.last() } else { now }
    }

    /// Returns the time at which the loop must act even without an event.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        if self.clock.held || self.durability.holds_back() {
            return None;
        }
        if self.epoch_is_due() {
            return Some(Instant::now());
        }
        if self.settings.clock == ClockKind::Manual {
            return None;
        }
        let holds = self.queries.iter().filter_map(super::query::RunningQuery::hold_ends);
        self.wake_for_rows().into_iter().chain(holds).min()
    }

    fn wake_for_rows(&self) -> Option<Instant> {
        let now = self.machine.now();
        let until = |time: Timestamp| Duration::from_micros((time.0 - now.0).max(0) as u64).min(LOOK_EVERY);
        if self.settings.pace == Pace::Auto {
            // If a sink's backlog holds sources back, its next delivery wakes the loop.
            let rows = self.rows_are_due_in().filter(|wait| !wait.is_zero());
            let timers = self.next_timer().into_iter().chain(self.next_wake());
            let timer = timers.map(until).min();
            return Instant::now().checked_add(rows.into_iter().chain(timer).min()?);
        }
        if !self.sources.rows_wait(&self.held_back()) && !self.owes_ticks() {
            return self.next_flow_wake().map(|wake| Instant::now() + until(wake));
        }
        Some(Instant::now() + self.clock.next_tick.map_or(Duration::ZERO, until))
    }
}

impl Sources {
    /// Returns true if rows of a source that isn't held back wait.
    pub(super) fn rows_wait(&self, held: &HeldBack) -> bool {
        let mut open = self.iter().filter(|(name, _)| !held.contains_key(*name));
        open.any(|(_, source)| source.is_read() && source.has_rows())
    }
}

impl Settings {
    /// Returns the microseconds by which one batch moves a manual clock.
    fn step_us(&self) -> i64 {
        match self.pace {
            Pace::Auto => 1_000,
            Pace::Fixed(interval) => interval.as_micros() as i64,
        }
    }
}
