//! Queries FOR EACH BATCH: when a batch ends, and the query's result at that time.
//!
//! A query that reads only the rows of the batch is recomputed over these. A query that also reads tables, or windows
//! of several batches, is maintained like any other: rows that leave a window are retracted. Its result for a batch is
//! the whole maintained result at the end of the batch.

pub(super) mod step;

use std::time::Instant;

use millstream_delta::{Closes, Cut, Delta, Timestamp};
use millstream_flow::{ERRORS, Flow, Order};
use millstream_sql::{BatchClock, BatchQuery, Result, length_text};
use millstream_state::{Rows, Spillable, Tables};

use self::step::Answer;
use super::catch_up::begins_apart;
use super::clock::Clock;
use super::compile::next_multiple;
use super::contents::{Bases, Contents, Results};
use super::feed::Feed;
use super::lagging::Lag;
use super::queries::{Queries, QueryGraph};
use super::query::{RunningQuery, Status, put_rows, take_rows};
use super::schedule::Schedule;
use super::watermarks::silence::first_due;
use crate::content::Content;
use crate::error;
use crate::run::QueryStarts;
use crate::settings::{ClockKind, Pace, Settings};

/// The interval, in microseconds, at which keys time out by the system clock.
const WAKES_US: i64 = 10_000;

/// The longest silence, in microseconds, for which the engine looks for windows that close: ten years.
const SILENCE_MAX_US: i64 = 3652 * 86_400_000_000;

/// The way in which a query runs once per batch.
#[derive(Debug)]
pub(crate) struct Batches {
    /// True if it starts from nothing each time.
    anew: bool,
    /// The clock that returns the batch time within the query.
    clock: Option<BatchClock>,
    /// The interval of its runs. Without one, it runs at each batch.
    slide: Option<i64>,
    /// The time of its next run, if it has an interval.
    next: Timestamp,
    /// The maintained result, unless the flow's operators keep it.
    current: Option<Rows>,
    /// The present errors of the flow.
    failing: Rows,
    /// The order of a batch's rows, if the query declares one.
    order: Option<Order>,
}

impl Batches {
    pub(crate) fn new(flow: &Flow, anew: bool, query: &BatchQuery, order: Option<Order>) -> Result<Batches> {
        let beside = !anew && flow.content().is_none();
        let current = match beside {
            true => Some(Rows::new(flow.schema().map_err(error::flow)?.clone())),
            false => None,
        };
        let failing = Rows::new(ERRORS.clone());
        let (clock, slide) = (query.clock.clone(), query.slide());
        Ok(Batches { anew, clock, slide, next: Timestamp::default(), current, failing, order })
    }

    /// Saves the state that it keeps besides the flow.
    pub(crate) fn save(&self) -> Result<Tables> {
        let mut all = Tables::default();
        all.put_number("next", self.next.0);
        if let Some(current) = &self.current {
            put_rows(&mut all, "current", current)?;
        }
        put_rows(&mut all, "failing", &self.failing)?;
        Ok(all)
    }

    /// Loads the saved state.
    pub(crate) fn load(&mut self, all: &mut Tables) -> Result<()> {
        self.next = Timestamp(all.take_number("next").map_err(error::state)?);
        if let Some(current) = &mut self.current {
            take_rows(all, "current", current)?;
        }
        take_rows(all, "failing", &mut self.failing)
    }

    /// Moves all of it out for a thread, and leaves it empty here.
    fn lend(&mut self) -> Batches {
        let current = self.current.as_ref().map(|rows| Rows::new(rows.schema().clone()));
        let (clock, failing) = (self.clock.clone(), Rows::new(ERRORS.clone()));
        let empty = Batches {
            anew: self.anew,
            clock,
            slide: self.slide,
            next: self.next,
            current,
            failing,
            order: None,
        };
        std::mem::replace(self, empty)
    }

    /// Returns its line of EXPLAIN.
    pub(crate) fn title(&self) -> String {
        let what = if self.anew { "the whole query" } else { "the maintained result" };
        let every = self.slide.map_or_else(String::new, |slide| format!(", every {}", length_text(slide)));
        format!("EachBatch [{what}{every}]")
    }

    /// Sets its first run of its own interval, if it has one. Its first batch is the next one.
    fn run_after(&mut self, now: Timestamp) {
        self.next = self.slide.map_or(Timestamp::default(), |slide| next_multiple(slide, now));
    }

    /// True if it runs at times of its own, not at each batch.
    pub(crate) fn slides(&self) -> bool {
        self.slide.is_some()
    }

    /// True if it also runs, even without rows, when its flow must be stepped: when a key of UPDATE_STATE times out.
    fn wakes(&self) -> bool {
        !self.anew && self.slide.is_none()
    }

    /// True if it uses the changes of the flow's result.
    pub(crate) fn takes_changes(&self) -> bool {
        self.anew || self.current.is_some()
    }

    /// Returns the number of rows that it keeps besides the flow.
    pub(crate) fn num_rows(&self) -> usize {
        self.current.as_ref().map_or(0, Rows::num_rows)
    }

    /// Returns their approximate size in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.current.as_ref().map_or(0, Rows::memory_bytes) + self.failing.memory_bytes()
    }

    /// Returns the number of bytes of their rows in files.
    pub(crate) fn spilled_bytes(&self) -> usize {
        self.current.as_ref().map_or(0, Rows::spilled_bytes)
    }

    /// Shows the stores whose rows may be spilled.
    pub(crate) fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        self.current.iter_mut().for_each(|rows| show(rows));
    }

    /// Skips its runs up to a time, if it has an interval.
    pub(super) fn skip_to(&mut self, to: Timestamp) {
        if let Some(slide) = self.slide {
            self.next = self.next.max(next_multiple(slide, to));
        }
    }

    /// Returns the times, up to this cut's, at which it must run now.
    fn due(&mut self, cut: &Cut, filled: bool) -> Vec<Timestamp> {
        let Some(slide) = self.slide else {
            let runs = filled || cut.closes == Closes::All;
            return if runs { vec![cut.now] } else { Vec::new() };
        };
        let mut due = Vec::new();
        while self.next <= cut.now {
            due.push(self.next);
            self.next = Timestamp(self.next.0 + slide);
        }
        due
    }
}

impl RunningQuery {
    /// True if it is recomputed at each batch over the content of tables or queries.
    pub(super) fn reads_contents(&self) -> bool {
        let is_anew = self.batches.as_ref().is_some_and(|batches| batches.anew);
        is_anew && self.feeds.iter().any(|feed| feed.window.is_none())
    }

    /// Takes in the content of tables and views at its creation.
    fn begin_batches(&mut self, cut: &Cut, contents: &[Delta]) -> Result<()> {
        if self.batches.as_ref().is_some_and(|batches| batches.anew) {
            return Ok(());
        }
        let mut step = self.per_batch()?;
        let begun = step.maintain(cut, &contents.iter().collect::<Vec<_>>());
        let panic = step.panic.take();
        self.flow.note_panic(panic);
        begun
    }

    /// Keeps the results of batches, and returns them.
    pub(super) fn take_answers(&mut self, answers: Vec<(Cut, Answer)>, ended: bool) -> Result<Delta> {
        self.last_step.end_batch(ended);
        let mut rows = Delta::default();
        for (cut, answer) in answers {
            self.keep(&cut, (&answer.rows, false), &answer.errors, &[])?;
            rows.append(answer.rows);
        }
        self.last_step.change(rows.num_rows() as u64);
        Ok(rows)
    }

    /// Returns the next time of its own at which it runs after all epochs so far, the last of which is of this time.
    pub(super) fn next_batch(&self, last: Timestamp) -> Option<Timestamp> {
        let batches =
            self.batches.as_ref().filter(|_| self.status.is_running() || self.status.lag().is_some())?;
        let slide = batches.slide?;
        // The epochs that wait for a lagging query have passed some of its times, and others are skipped.
        let passed = self.status.lag().map(|lag| last.max(lag.skipped_to().unwrap_or(last)));
        let next = passed.map(|passed| next_multiple(slide, passed));
        Some(batches.next.max(next.unwrap_or_default()))
    }
}

impl QueryGraph {
    /// Takes in an epoch's changes of the inputs of a query that runs once per batch. Returns the results of the
    /// batches that the epoch ends. `later` holds the changes of its inputs since this epoch, if they have any.
    pub(super) fn step_batches(
        &mut self,
        bases: Bases<'_>,
        place: usize,
        cut: &Cut,
        inputs: &[&Delta],
        later: &[Delta],
    ) -> Delta {
        let begun = Instant::now();
        let rows = inputs.iter().map(|delta| delta.num_rows()).sum();
        let query = &mut self.queries[place];
        query.last_step.begin_batch();
        let delta = self.try_step_batches(bases, place, cut, inputs, later).unwrap_or_else(|reason| {
            self.queries[place].suspend(reason, cut.epoch);
            Delta::default()
        });
        let query = &mut self.queries[place];
        if query.last_step.ended_batch() {
            query.last_step.took(begun.elapsed(), rows, query.flow.cost());
        }
        delta
    }

    fn try_step_batches(
        &mut self,
        bases: Bases<'_>,
        place: usize,
        cut: &Cut,
        inputs: &[&Delta],
        later: &[Delta],
    ) -> Result<Delta> {
        let query = &mut self.queries[place];
        let due = query.per_batch()?.gather(cut, inputs)?;
        let contents = match query.reads_contents() && !due.is_empty() {
            true => all_rows(bases.contents(&self.queries).contents_of(place, later)?)?,
            false => Vec::new(),
        };
        let query = &mut self.queries[place];
        let mut step = query.per_batch()?;
        let answers = step.run(cut, &due, inputs, &contents);
        let panic = step.panic.take();
        query.flow.note_panic(panic);
        query.take_answers(answers?, !due.is_empty())
    }
}

impl QueryStarts<'_> {
    /// Lets a new query take in the content of tables and views. If that is large, a thread does so, and the query lags
    /// from its beginning on. Under an exact clock the loop does.
    pub(super) fn start_batches(&mut self, place: usize) -> Result<()> {
        // Nothing is run before the next batch.
        let cut = Cut {
            closes: Closes::None,
            ..self.clock.standing_cut(&self.setup.settings, self.watermarks.current())
        };
        let query = &self.queries[place];
        let contents = if query.reads_contents() {
            // It reads them when a batch ends.
            self.queries.suspend_with_inputs(place, cut.epoch);
            Vec::new()
        } else {
            all_rows(Bases::new(self.tables, self.sources).contents(self.queries).contents_of(place, &[])?)?
        };
        if self.queries[place].status.is_suspended() {
            return Ok(());
        }
        let may_lag = (!self.durability.is_recovering() || self.flow_control().may_lag_at_start(&[place]))
            && self.waiters.replay.is_none()
            && self.flow_control().leaving_with(place).is_some_and(|leaving| leaving.len() == 1);
        let is_apart = may_lag
            && begins_apart(self.queries, &self.setup.execution, &self.setup.settings, place, &contents);
        let query = &mut self.queries[place];
        if let Some(batches) = &mut query.batches {
            batches.run_after(cut.now);
        }
        if !is_apart {
            query.status = Status::Running;
            return query.begin_batches(&cut, &contents);
        }
        query.flow.tell();
        query.status = Status::Lagging(Box::new(Lag::beginning(&cut, &contents).in_order(true)));
        Ok(())
    }
}

impl Contents<'_> {
    /// Returns the content of a query's inputs that are not windows, as of the epoch before the changes in `later`.
    fn contents_of(&self, place: usize, later: &[Delta]) -> Result<Vec<Content>> {
        let content = |(input, feed): (usize, &Feed)| {
            if feed.window.is_some() {
                return Ok(Content::Batches(Vec::new()));
            }
            let present = self.content_as(&feed.of, None)?;
            Ok(match later.get(input).filter(|later| !later.is_empty()) {
                Some(later) => Content::Before(Box::new(present), later.clone()),
                None => present,
            })
        };
        self.queries[place].feeds.iter().enumerate().map(content).collect()
    }

    /// Returns the contents over which a thread recomputes a query in a step; none for other queries.
    pub(super) fn contents_to_lend(
        &self,
        place: usize,
        cut: &Cut,
        inputs: &[&Delta],
        later: &[Delta],
    ) -> Result<Vec<Content>> {
        match may_read_contents(&self.queries[place], cut, inputs) {
            true => self.contents_of(place, later),
            false => Ok(Vec::new()),
        }
    }
}

impl Schedule<'_> {
    /// Returns the next timer, or the time at which a query must be stepped next at auto pace, even without input.
    pub(super) fn next_action(&self) -> Option<Timestamp> {
        let timer = next_timer(self.queries, self.settings, self.clock);
        timer.into_iter().chain(self.next_wake()).min()
    }

    /// Returns when a query must be stepped next at auto pace, even without input, if at no exact time. A key of
    /// UPDATE_STATE times out then, an input that holds a watermark back is idle, or the watermark of a silent source moves.
    /// Under the system clock, many are handled together.
    fn next_wake(&self) -> Option<Timestamp> {
        let next = self.next_flow_wake().filter(|_| self.settings.pace == Pace::Auto)?;
        match self.settings.clock {
            ClockKind::Manual => Some(next),
            ClockKind::System => Some(next_multiple(WAKES_US, Timestamp(next.0 - 1))),
        }
    }

    /// Returns true if each tick of a fixed interval must run, even without rows.
    pub(super) fn owes_ticks(&self) -> bool {
        let tick = Cut { closes: Closes::All, ..Cut::new(self.clock.epoch, Timestamp::default()) };
        let owed = |query: &RunningQuery| query.is_per_batch() || query.flow.is_due(&tick);
        let now = self.clock.now(self.settings);
        let awake = || self.next_flow_wake().is_some_and(|wake| wake <= now);
        let system = self.settings.clock == ClockKind::System;
        // A query that a thread has, or for which epochs wait, does not know yet.
        let takes_all =
            |query: &RunningQuery| query.status.lag().is_some_and(|lag| lag.is_in_order() && !lag.is_idle());
        let steps = |query: &RunningQuery| query.status.is_running() || query.status.lag().is_some();
        let owes = |query: &RunningQuery| takes_all(query) || (steps(query) && owed(query));
        self.queries.iter().any(owes) || (system && awake())
    }

    /// Returns true if the system clock has reached the next timer, or the time at which a query must be stepped next.
    pub(super) fn timer_is_due(&self, now: Timestamp) -> bool {
        self.settings.clock == ClockKind::System && self.next_action().is_some_and(|at| at <= now)
    }

    /// Returns when a query must be stepped next even without input, or a watermark moves, at any pace.
    pub(super) fn next_flow_wake(&self) -> Option<Timestamp> {
        // A lagging query knows once it has taken in everything that waits for it.
        let is_idle = |query: &RunningQuery| query.status.lag().is_some_and(Lag::is_idle);
        let wakes = |query: &&RunningQuery| {
            query.batches.as_ref().is_none_or(Batches::wakes) && (query.status.is_running() || is_idle(query))
        };
        let queries = self.queries.iter().filter(wakes).filter_map(|query| query.flow.wake_at());
        queries.chain(self.watermarks.next_move(self.clock)).chain(self.next_advance()).min()
    }

    /// Returns when the watermark of a silent source must move next with the clock. Without a query that closes windows
    /// by it, it moves in epochs that run for other reasons.
    fn next_advance(&self) -> Option<Timestamp> {
        let steps = self.watermarks.next_steps(self.sources, self.settings, self.clock);
        let due = steps.filter_map(|(next, step_us)| {
            let at = |count: i64| Timestamp(next.0.saturating_add(count.saturating_mul(step_us)));
            let count = first_due(SILENCE_MAX_US / step_us, |count| self.is_due_without_rows(at(count)))?;
            Some(at(count))
        });
        due.min()
    }

    /// Returns true if a query must be stepped because the watermarks of silent sources have moved until then.
    fn is_due_without_rows(&self, at: Timestamp) -> bool {
        let watermarks = self.watermarks.without_rows(self.sources, self.settings, at);
        // The time is that of the last epoch, so only the watermarks make a query due.
        let moved = Cut { watermarks, ..Cut::new(self.clock.epoch, self.clock.last()) };
        let steps = |query: &&RunningQuery| query.status.is_running() || query.status.lag().is_some();
        self.queries.iter().filter(steps).any(|query| query.flow.is_due(&moved))
    }
}

/// Returns the first timer after the one that is about to be taken.
pub(super) fn timer_after(
    queries: &[RunningQuery],
    settings: &Settings,
    clock: &Clock,
    taken: Timestamp,
) -> Option<Timestamp> {
    timers(queries, settings, clock)
        .map(|(next, slide)| Timestamp(next.0.max((taken.0.div_euclid(slide) + 1) * slide)))
        .min()
}

/// Returns the next time at which a window must be evaluated, even without input. At auto pace no epoch may span
/// it.
pub(super) fn next_timer(queries: &[RunningQuery], settings: &Settings, clock: &Clock) -> Option<Timestamp> {
    timers(queries, settings, clock).map(|(next, _)| next).min()
}

/// Returns the next time of each query, and its interval.
fn timers(
    queries: &[RunningQuery],
    settings: &Settings,
    clock: &Clock,
) -> impl Iterator<Item = (Timestamp, i64)> {
    let auto = settings.pace == Pace::Auto;
    let stepped = queries.iter().filter(move |_| auto);
    stepped.filter_map(move |query| {
        let slide = query.batches.as_ref()?.slide?;
        Some((query.next_batch(clock.last())?, slide))
    })
}

/// True if a query may read the contents of its inputs in a step over these changes.
fn may_read_contents(query: &RunningQuery, cut: &Cut, inputs: &[&Delta]) -> bool {
    let Some(batches) = query.batches.as_ref().filter(|_| query.reads_contents()) else { return false };
    let has_windows = query.feeds.iter().any(|feed| feed.window.is_some());
    let may_be_filled = has_windows || inputs.iter().any(|delta| !delta.is_empty());
    match batches.slide {
        Some(_) => batches.next <= cut.now && cut.closes != Closes::None,
        None => cut.closes == Closes::All || (cut.closes != Closes::None && may_be_filled),
    }
}

/// Returns the number of rows over which a query is recomputed in such a step. `content` returns those of a relation.
pub(super) fn recomputed_rows(
    query: &RunningQuery,
    cut: &Cut,
    inputs: &[&Delta],
    content: impl Fn(&str) -> usize,
) -> usize {
    let contents = query.feeds.iter().filter(|feed| feed.window.is_none());
    if may_read_contents(query, cut, inputs) { contents.map(|feed| content(&feed.of)).sum() } else { 0 }
}

/// Returns the waiting changes of the inputs over which a lagging query is recomputed; none for other queries.
pub(super) fn later_changes(query: &RunningQuery) -> Vec<Delta> {
    let lag = query.status.lag().filter(|_| query.reads_contents());
    lag.map_or_else(Vec::new, |lag| lag.waiting_changes(query.feeds.len()))
}

/// True if a thread has the content of an input over which a query is recomputed: it steps or reads it there.
pub(super) fn content_is_away(queries: &Queries, query: &RunningQuery) -> bool {
    query.reads_contents() && query.reads().any(|name| Results(queries).is_away(name))
}

/// Returns the rows of contents.
fn all_rows(contents: Vec<Content>) -> Result<Vec<Delta>> {
    contents.into_iter().map(|content| content.batches_now().map(Delta::from_iter)).collect()
}

impl Settings {
    /// True if a query per batch may run without new rows.
    pub(super) fn runs_empty_batches(&self, query: &RunningQuery) -> bool {
        let slides = query.batches.as_ref().is_some_and(|batches| batches.slide.is_some());
        slides || self.pace != Pace::Auto || self.clock == ClockKind::Manual
    }
}
