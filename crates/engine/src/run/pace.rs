//! The start of epochs, and their batch times.

use std::time::{Duration, Instant};

use millstream_delta::{Closes, Cut, Timestamp};
use millstream_durable::Entry;
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
use crate::metrics::Queue;
use crate::run::read_view::ReadView;
use crate::run::recover::answer_durably;
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
            Pace::Fixed(_) => self.ticks.due.front().copied().or(self.ticks.next),
        };
        if due.is_some_and(|due| due <= now) { self.last() } else { now }
    }
}

impl Loop {
    /// Changes a setting, durably.
    pub(super) fn set(&mut self, name: String, value: String, reply: Reply<()>) {
        let checked = self.durability.check_journal();
        let settings = checked.and_then(|()| self.read_view().settings_with(&name, &value));
        let set = settings.map(|settings| {
            self.setup.execution.driver.set_threads(settings.threads());
            let before = std::mem::replace(&mut self.setup.settings, settings);
            let settings = &self.setup.settings;
            self.clock.adopt(&before, settings);
            self.queries.keep_every_epoch = settings.keeps_history();
            if settings.sources.rate_limit != before.sources.rate_limit {
                self.sources.limit_all_anew(settings, self.clock.now(settings));
            }
            self.setup.publish_settings();
            self.durability.set_interval(settings.durability.journal_interval);
            if name == "missed_batches" && settings.batches.missed == MissedBatches::Skip {
                self.clock.miss_batches(&mut self.queries, &mut self.durability, settings);
            }
            self.watermarks.plan_moves(settings);
            if name == "memory_limit" {
                self.memory.look_again();
                self.memory.keep_within(&mut self.queries, &mut self.tables, settings);
            }
        });
        answer_durably(&mut self.durability, self.clock.epoch, set, || Entry::Set { name, value }, reply);
    }

    /// Moves the clock to the batches that are due.
    pub(super) fn advance_clock(&mut self) {
        let settings = &self.setup.settings;
        self.watermarks.note_reading(&self.sources, settings, self.clock.now(settings));
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
                        self.sources.collect(settings, self.clock.now(settings));
                    }
                    Moved::Whole(reply) => self.durability.when_durable(move |done| reply.send(done)),
                }
            }
        }
    }
}

impl Clock {
    /// Continues with other settings.
    fn adopt(&mut self, before: &Settings, settings: &Settings) {
        if settings.clock != before.clock {
            if let Some(moving) = self.moving.take() {
                let error = Error::invalid("the clock was set to 'system' while it was advancing");
                moving.reply.send(Err(error));
            }
            if self.last.0 == 0 {
                self.batch = match settings.clock {
                    ClockKind::System => self.fixed_time.unwrap_or_else(|| self.system.now()),
                    ClockKind::Manual => Timestamp::default(),
                };
            }
        }
        // A script that runs again sets the same values: batches that were missed stay due.
        if (settings.pace, settings.clock) != (before.pace, before.clock) {
            self.forget_ticks();
        }
    }

    fn advance_system(&mut self, settings: &Settings, interval: Duration, measures: &mut Measures) {
        let (now, interval) = (self.system.now(), interval.as_micros() as i64);
        let mut next = self.ticks.next.unwrap_or_else(|| next_multiple(interval, now));
        if self.ticks.missed_until.is_some_and(|until| next > until && self.ticks.due.is_empty()) {
            self.ticks.missed_until = None;
        }
        let missed = self.ticks.missed_until;
        let more = (now.0 - next.0) / interval - settings.batches.queued_max as i64;
        if missed.is_none() && more > MERGED_SINGLY_MAX {
            next = Timestamp(next.0 + more * interval);
            self.ticks.merged += more as u64;
        }
        while next <= now && (missed.is_none() || self.ticks.due.len() < MISSED_MAX) {
            self.ticks.due.push_back(next);
            measures.batch_is_due(next);
            next = Timestamp(next.0 + interval);
        }
        self.ticks.next = Some(next);
        while missed.is_none() && self.ticks.due.len() > settings.batches.queued_max {
            self.ticks.due.pop_front();
            self.ticks.merged += 1;
        }
    }

    /// Returns the batches that follow the one that starts, under a fixed interval.
    pub(super) fn queue(&self, settings: &Settings) -> Option<Queue> {
        let (ClockKind::System, Pace::Fixed(interval)) = (settings.clock, settings.pace) else { return None };
        let max = self.ticks.missed_until.is_none().then_some(settings.batches.queued_max);
        let due = self.ticks.due.iter().copied().collect();
        Some(Queue { due, next: self.ticks.next?, interval_us: interval.as_micros() as i64, max })
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
            Pace::Fixed(interval) => match self.ticks.due.pop_front() {
                Some(tick) => {
                    let rows_are_of_it = !self.is_followed(tick, interval);
                    (self.begin(tick, Closes::All), rows_are_of_it)
                }
                None if ends => (self.begin(now, Closes::All), true),
                None => {
                    let before = self.ticks.next.map_or(now, |tick| Timestamp(now.0.min(tick.0 - 1)));
                    (self.begin(before, Closes::None), false)
                }
            },
        }
    }
}

impl ReadView<'_> {
    /// Returns the settings with one of them changed, if the queries and the clock allow it.
    fn settings_with(&self, name: &str, value: &str) -> Result<Settings> {
        let mut settings = self.setup.settings.clone();
        settings.set(name, value)?;
        check_windows(self.queries, settings.pace)?;
        if settings.clock != self.setup.settings.clock
            && self.clock.last.0 > 0
            && settings.clock == ClockKind::Manual
        {
            return Err(Error::invalid("the clock can't become manual after the first epoch")
                .hint("SET clock = 'manual' before any row is written or read."));
        }
        Ok(settings)
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
            Pace::Fixed(_) => {
                !self.clock.ticks.due.is_empty() || (self.waiters.ending.gracefully && self.rows_are_due())
            }
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
        Some(Instant::now() + self.clock.ticks.next.map_or(Duration::ZERO, until))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::listener::Listeners;
    use crate::metrics::History;
    use crate::settings::BatchSettings;

    const SECOND: i64 = 1_000_000;

    /// Returns a clock at 100 seconds, and the time that it reads. It moves on by itself, as slowly as a test runs.
    fn clock() -> (Clock, Arc<AtomicI64>) {
        let time = Arc::new(AtomicI64::new(100 * SECOND));
        let source = time.clone();
        (Clock::start(MonotonicClock::new(Arc::new(move || Timestamp(source.load(Ordering::Relaxed))))), time)
    }

    fn every_second(max_queued_batches: usize) -> Settings {
        Settings {
            pace: Pace::Fixed(Duration::from_secs(1)),
            batches: BatchSettings { queued_max: max_queued_batches, ..BatchSettings::default() },
            ..Settings::default()
        }
    }

    fn manual() -> Settings {
        Settings { clock: ClockKind::Manual, pace: Pace::Auto, ..Settings::default() }
    }

    fn upcoming(something_waits: bool, timer: Option<i64>) -> Upcoming {
        Upcoming { something_waits, wake: None, owes_ticks: false, timer: timer.map(Timestamp) }
    }

    fn tick(clock: &mut Clock, settings: &Settings) -> Vec<i64> {
        let mut measures = Measures::new(Listeners::default(), None, History::default());
        clock.advance_system(settings, Duration::from_secs(1), &mut measures);
        clock.ticks.due.iter().map(|due| due.0 / SECOND).collect()
    }

    #[test]
    fn ticks_beyond_the_queue_are_merged() {
        let (mut clock, time) = clock();
        assert_eq!(tick(&mut clock, &every_second(2)), [0; 0]);
        time.store(106 * SECOND, Ordering::Relaxed);
        assert_eq!(tick(&mut clock, &every_second(2)), [105, 106]);
        assert_eq!((clock.ticks.merged, clock.ticks.next), (4, Some(Timestamp(107 * SECOND))));
        // So many are merged without a loop over them.
        time.store(1_000_106 * SECOND, Ordering::Relaxed);
        assert_eq!(tick(&mut clock, &every_second(2)), [1_000_105, 1_000_106]);
        assert_eq!(clock.ticks.merged, 1_000_004);
    }

    #[test]
    fn missed_ticks_run_one_by_one() {
        let (mut clock, time) = clock();
        time.store(150 * SECOND, Ordering::Relaxed);
        clock.run_ticks(Timestamp(101 * SECOND), Timestamp(150 * SECOND));
        assert_eq!(tick(&mut clock, &every_second(2)), (101..117).collect::<Vec<i64>>());
        let (cut, takes_rows) = clock.begin_epoch(&[], &every_second(2), false);
        assert_eq!((cut.now, cut.closes, takes_rows), (Timestamp(101 * SECOND), Closes::All, false));
        assert_eq!((tick(&mut clock, &every_second(2)).len(), clock.ticks.merged), (MISSED_MAX, 0));
    }

    #[test]
    fn an_epoch_between_ticks_closes_no_batch() {
        let (mut clock, _) = clock();
        tick(&mut clock, &every_second(2));
        let (cut, takes_rows) = clock.begin_epoch(&[], &every_second(2), false);
        assert_eq!((cut.now.0 / SECOND, cut.closes, takes_rows), (100, Closes::None, false));
        // When the engine stops, the rows don't wait for the next tick.
        let (cut, takes_rows) = clock.begin_epoch(&[], &every_second(2), true);
        assert_eq!((cut.closes, takes_rows), (Closes::All, true));
    }

    #[test]
    fn an_advance_stops_where_input_or_a_timer_waits() {
        let (mut clock, _) = clock();
        let (reply, mut answer) = Reply::new();
        clock.advance(&manual(), crate::event::Advance::To(Timestamp(9 * SECOND)), reply);
        let due = upcoming(false, Some(4 * SECOND));
        assert!(matches!(clock.advance_manual(&manual(), &due), Moved::ToBatch));
        assert_eq!(clock.now(&manual()), Timestamp(4 * SECOND));
        // The sources have not answered yet.
        assert!(matches!(clock.advance_manual(&manual(), &due), Moved::Nothing));
        clock.begin_epoch(&[], &manual(), false);
        assert!(matches!(clock.advance_manual(&manual(), &upcoming(true, None)), Moved::ToBatch));
        clock.begin_epoch(&[], &manual(), false);
        let Moved::Whole(reply) = clock.advance_manual(&manual(), &upcoming(true, None)) else {
            panic!("the clock shows {}", clock.now(&manual()))
        };
        assert_eq!(clock.now(&manual()), Timestamp(9 * SECOND));
        assert!(answer.try_recv().is_err());
        reply.send(Ok(()));
        assert!(answer.try_recv().unwrap().is_ok());
    }

    #[test]
    fn another_clock_ends_an_advance() {
        let (mut clock, _) = clock();
        let (reply, mut answer) = Reply::new();
        clock.advance(&manual(), crate::event::Advance::Batches(3), reply);
        clock.adopt(&manual(), &manual());
        assert!(clock.is_moving());
        clock.adopt(&manual(), &Settings::default());
        assert!(!clock.is_moving());
        let error = answer.try_recv().unwrap().unwrap_err();
        assert_eq!(error.message, "the clock was set to 'system' while it was advancing");
    }

    #[test]
    fn another_pace_forgets_ticks_and_the_same_keeps_them() {
        let (mut clock, time) = clock();
        tick(&mut clock, &every_second(9));
        time.store(103 * SECOND, Ordering::Relaxed);
        assert_eq!(tick(&mut clock, &every_second(9)), [101, 102, 103]);
        clock.adopt(&every_second(9), &every_second(8));
        assert_eq!(clock.ticks.due.len(), 3);
        clock.adopt(&every_second(9), &Settings { pace: Pace::Auto, ..Settings::default() });
        assert_eq!((clock.ticks.due.len(), clock.ticks.next), (0, None));
    }
}
