//! The start of epochs, and their batch times.

use std::time::{Duration, Instant};

use millstream_delta::{Closes, Cut, Timestamp};
use millstream_sql::{Error, Result};

use super::Loop;
use super::backpressure::HeldBack;
use super::batches::{next_timer, timer_after};
use super::clock::{Clock, Left, Moving};
use super::compile::{check_windows, next_multiple};
use super::measure::Measures;
use super::monotonic_clock::MonotonicClock;
use super::query::RunningQuery;
use super::source::RunningSource;
use super::sources::Sources;
use super::tables::BaseTables;
use crate::event::Reply;
use crate::run::schedule::Schedule;
use crate::settings::{ClockKind, MissedBatches, Pace, Settings};

/// Maximum number of missed ticks that wait at a time; any number may have been missed.
const MISSED_MAX: usize = 16;

/// If more ticks than this exceed the queue, the clock merges them at once, without a loop over them.
const MERGED_SINGLY_MAX: i64 = 1000;

/// Maximum wait before the loop reads the machine's clock again, since someone may set that clock meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The input and the timers that a manual clock may move to.
struct Upcoming {
    /// True if a batch may find input.
    something_waits: bool,
    /// The next step that a query needs without input.
    wake: Option<Timestamp>,
    /// True if a query asks for each batch.
    owes_ticks: bool,
    /// The next timer at auto pace.
    timer: Option<Timestamp>,
}

/// The outcome of moving a manual clock.
enum Moved {
    Nothing,
    /// To the next batch, for which all sources are asked.
    ToBatch,
    /// An ADVANCE is done.
    Whole(Reply<()>),
}

impl Clock {
    /// Returns the time of an event now that is no batch: before a batch that is due and has not run.
    pub(super) fn time_between(
        &self,
        queries: &[RunningQuery],
        settings: &Settings,
        now: Timestamp,
    ) -> Timestamp {
        let due = match settings.pace {
            Pace::Auto => next_timer(queries, settings, self),
            Pace::Fixed(_) => self.due.front().copied().or(self.next_tick),
        };
        if due.is_some_and(|due| due <= now) { self.last() } else { now }
    }
}

impl Loop {
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let mut settings = self.setup.settings.clone();
        settings.set(name, value)?;
        check_windows(&self.queries, settings.pace)?;
        if settings.clock != self.setup.settings.clock {
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
        if settings.clock != self.setup.settings.clock && self.clock.last.0 == 0 {
            self.clock.batch = match settings.clock {
                ClockKind::System => self.clock.fixed_time.unwrap_or_else(|| self.clock.system.now()),
                ClockKind::Manual => Timestamp::default(),
            };
        }
        self.setup.execution.driver.set_threads(settings.threads());
        // A script that runs again sets the same values: batches that were missed stay due.
        let keeps_pace =
            (settings.pace, settings.clock) == (self.setup.settings.pace, self.setup.settings.clock);
        let keeps_limit = settings.source_rate_limit == self.setup.settings.source_rate_limit;
        self.setup.settings = settings;
        self.queries.keep_every_epoch = self.setup.settings.keeps_history();
        if !keeps_limit {
            self.sources.limit_all_anew(&self.setup.settings, self.clock.now(&self.setup.settings));
        }
        self.setup.publish_settings();
        self.durability.set_interval(self.setup.settings.journal_interval);
        if !keeps_pace {
            self.clock.forget_ticks();
        }
        if name == "missed_batches" && self.setup.settings.missed_batches == MissedBatches::Skip {
            self.clock.miss_batches(&mut self.queries, &mut self.durability, &self.setup.settings);
        }
        self.watermarks.plan_moves(&self.setup.settings);
        if name == "memory_limit" {
            self.memory.look_again();
            self.memory.keep_within(&mut self.queries, &mut self.tables, &self.setup.settings);
        }
        Ok(())
    }

    /// Moves the clock to the batches that are due.
    pub(super) fn advance_clock(&mut self) {
        let settings = &self.setup.settings;
        match (settings.clock, settings.pace) {
            (ClockKind::System, Pace::Auto) => {}
            // A tick without input runs nothing, unless a query asks for all its batches, empty or not.
            (ClockKind::System, Pace::Fixed(_)) if !self.schedule().needs_ticks() => {
                self.clock.forget_ticks();
            }
            (ClockKind::System, Pace::Fixed(interval)) => {
                self.clock.advance_system(settings, interval, &mut self.measures);
            }
            (ClockKind::Manual, _) => {
                let (schedule, something_waits) =
                    (self.schedule(), self.sources.something_waits(&self.queries, &self.tables));
                let ahead = Upcoming {
                    something_waits,
                    wake: schedule.next_flow_wake(),
                    owes_ticks: schedule.owes_ticks(),
                    timer: schedule.next_action(),
                };
                match self.clock.advance_manual(settings, &ahead) {
                    Moved::Nothing => {}
                    Moved::ToBatch => {
                        let limit = self.budget.limit(settings);
                        self.sources.collect(settings, limit, self.clock.now(settings));
                    }
                    Moved::Whole(reply) => self.durability.when_durable(move |done| reply.send(done)),
                }
            }
        }
    }
}

impl Clock {
    fn advance_system(&mut self, settings: &Settings, interval: Duration, measures: &mut Measures) {
        let (now, interval) = (self.system.now(), interval.as_micros() as i64);
        let mut next = self.next_tick.unwrap_or_else(|| next_multiple(interval, now));
        if self.missed_until.is_some_and(|until| next > until && self.due.is_empty()) {
            self.missed_until = None;
        }
        let missed = self.missed_until;
        let more = (now.0 - next.0) / interval - settings.max_queued_batches as i64;
        if missed.is_none() && more > MERGED_SINGLY_MAX {
            next = Timestamp(next.0 + more * interval);
            self.merged += more as u64;
        }
        while next <= now && (missed.is_none() || self.due.len() < MISSED_MAX) {
            self.due.push_back(next);
            measures.batch_is_due(next);
            next = Timestamp(next.0 + interval);
        }
        self.next_tick = Some(next);
        while missed.is_none() && self.due.len() > settings.max_queued_batches {
            self.due.pop_front();
            self.merged += 1;
        }
    }

    /// Starts the next batch of an ADVANCE: asks the sources for their rows.
    fn advance_manual(&mut self, settings: &Settings, ahead: &Upcoming) -> Moved {
        let step = settings.step_us();
        let Some(moving) = &mut self.moving else { return Moved::Nothing };
        if moving.collecting {
            return Moved::Nothing;
        }
        let target = match &mut moving.left {
            Left::Batches(0) => None,
            Left::Batches(count) => {
                *count -= 1;
                Some(Timestamp((self.manual.0 / step + 1) * step))
            }
            Left::To(time) => {
                // At auto pace, only the input that waits now and timers are due on the way; at a fixed pace, each tick
                // is.
                let end = *time;
                let (tick, due) = match settings.pace {
                    Pace::Auto => match ahead.timer.filter(|timer| *timer <= end) {
                        Some(timer) => (timer, true),
                        None => (end, ahead.something_waits),
                    },
                    Pace::Fixed(_) => {
                        let owed = ahead.owes_ticks || ahead.wake.is_some_and(|wake| wake <= end);
                        (Timestamp((self.manual.0 / step + 1) * step), ahead.something_waits || owed)
                    }
                };
                if self.manual >= end {
                    None
                } else if tick > end || !due {
                    // Skips ticks without input.
                    self.manual = end;
                    None
                } else {
                    Some(tick)
                }
            }
        };
        match target {
            Some(time) => {
                moving.collecting = true;
                self.manual = time;
                Moved::ToBatch
            }
            None => self.moving.take().map_or(Moved::Nothing, |Moving { reply, .. }| Moved::Whole(reply)),
        }
    }

    /// Begins an epoch now, still without a number. Returns its cut, and true if it takes rows of sources. `ends`: rows
    /// no longer wait for a tick.
    pub(super) fn begin_epoch(
        &mut self,
        queries: &[RunningQuery],
        settings: &Settings,
        ends: bool,
    ) -> (Cut, bool) {
        if settings.clock == ClockKind::Manual {
            if let Some(moving) = &mut self.moving {
                moving.collecting = false;
            }
            let manual = self.manual;
            return (self.begin(manual, Closes::All), true);
        }
        let now = self.system.now();
        match settings.pace {
            Pace::Auto => {
                match next_timer(queries, settings, self).filter(|timer| *timer <= now) {
                    // Of several timers that are due, the last takes the rows: the others lie before the arrival of these.
                    Some(timer) => {
                        let cut = self.begin(timer, Closes::Filled);
                        let last = timer_after(queries, settings, self, timer).is_none_or(|next| next > now);
                        (cut, last)
                    }
                    None => (self.begin(now, Closes::Filled), true),
                }
            }
            // Between two ticks an epoch takes in changes by statements, and no rows of sources.
            Pace::Fixed(interval) => match self.due.pop_front() {
                Some(tick) => {
                    let rows_are_of_it = !self.is_followed(tick, interval);
                    (self.begin(tick, Closes::All), rows_are_of_it)
                }
                None if ends => (self.begin(now, Closes::All), true),
                None => {
                    let before = self.next_tick.map_or(now, |tick| Timestamp(now.0.min(tick.0 - 1)));
                    (self.begin(before, Closes::None), false)
                }
            },
        }
    }
}

impl Schedule<'_> {
    /// Returns true if an epoch must run now.
    pub(super) fn epoch_is_due(&self) -> bool {
        if self.clock.held {
            return false;
        }
        if self.settings.clock == ClockKind::Manual {
            return self.clock.is_collecting() && self.sources.values().all(RunningSource::has_answered);
        }
        if self.sources.statements_wait(self.queries, self.tables) {
            return true;
        }
        match self.settings.pace {
            Pace::Auto => self.rows_are_due() || self.timer_is_due(self.clock.now(self.settings)),
            // When the engine stops gracefully, rows that have arrived don't wait for the next tick.
            Pace::Fixed(_) => !self.clock.due.is_empty() || (self.waiters.gracefully && self.rows_are_due()),
        }
    }

    /// Returns true if the ticks of a fixed interval must run: rows wait for one, or a query asks for each.
    fn needs_ticks(&self) -> bool {
        self.sources.rows_wait(&self.flow_control.held_back()) || self.owes_ticks()
    }

    pub(super) fn rows_are_due(&self) -> bool {
        self.sources
            .rows_are_due_in(self.settings, &self.clock.system, &self.flow_control.held_back())
            .is_some_and(|wait| wait.is_zero())
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
        let holds = self.queries.iter().filter_map(|query| query.status.hold_ends());
        self.wake_for_rows().into_iter().chain(holds).min()
    }

    fn wake_for_rows(&self) -> Option<Instant> {
        let now = self.clock.system.now();
        let until = |time: Timestamp| Duration::from_micros((time.0 - now.0).max(0) as u64).min(LOOK_EVERY);
        if self.settings.pace == Pace::Auto {
            // If a sink's backlog holds sources back, its next delivery wakes the loop.
            let rows = self
                .sources
                .rows_are_due_in(self.settings, &self.clock.system, &self.flow_control.held_back())
                .filter(|wait| !wait.is_zero());
            let timer = self.next_action().map(until);
            return Instant::now().checked_add(rows.into_iter().chain(timer).min()?);
        }
        if !self.needs_ticks() {
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

    /// Returns the time until waiting rows of some source may be taken in.
    fn rows_are_due_in(
        &self,
        settings: &Settings,
        monotonic_clock: &MonotonicClock,
        held: &HeldBack,
    ) -> Option<Duration> {
        let now = monotonic_clock.now();
        let used = self.iter().filter(|(name, source)| source.is_read() && !held.contains_key(*name));
        used.filter_map(|(_, source)| source.due_in(settings, now)).min()
    }

    /// Returns true if a batch of a manual clock may find input.
    pub(super) fn something_waits(&self, queries: &[RunningQuery], tables: &BaseTables) -> bool {
        self.statements_wait(queries, tables)
            || self.values().any(|source| source.is_read() && (!source.has_ended() || source.has_rows()))
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
