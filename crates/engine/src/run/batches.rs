//! Queries FOR EACH BATCH: when a batch ends, and what the query's result is then.
//!
//! A query that only reads what the batch brought is run anew over it. One that also reads tables, or windows of
//! several batches, is maintained like any other, with what leaves a window taken back; its result for a batch is all
//! that is maintained at the batch's end.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use millstream_delta::{Chunk, Closes, Cut, Delta, Timestamp, consolidate};
use millstream_flow::{ERRORS, Flow, Order};
use millstream_sql::{BatchClock, BatchQuery, Result, length_text};
use millstream_state::{Rows, Spillable, Tables};

use super::Loop;
use super::behind::Behind;
use super::compile::next_multiple;
use super::epoch::Deltas;
use super::query::{RunningQuery, Status, put_rows, take_rows};
use crate::error;
use crate::settings::{ClockKind, Pace};

/// How far apart the times are at which keys time out by the machine's clock, in microseconds.
const WAKES_US: i64 = 10_000;

/// How a query runs once per batch.
#[derive(Debug)]
pub(crate) struct Batches {
    /// Whether it starts from nothing each time.
    anew: bool,
    /// What it asks for the time of the batch.
    clock: Option<BatchClock>,
    /// It runs at multiples of it; without one, at each batch.
    slide: Option<i64>,
    /// The next of these.
    next: Timestamp,
    /// The maintained result, where the flow's operators don't keep it.
    current: Option<Rows>,
    /// What the flow has no answer for now.
    failing: Rows,
    /// The order of a batch's rows, where the query says one.
    order: Option<Order>,
}

impl Batches {
    /// How a compiled query runs.
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

    /// What it keeps besides the flow.
    pub(crate) fn save(&self) -> Result<Tables> {
        let mut all = Tables::default();
        all.put_number("next", self.next.0);
        if let Some(current) = &self.current {
            put_rows(&mut all, "current", current)?;
        }
        put_rows(&mut all, "failing", &self.failing)?;
        Ok(all)
    }

    /// What was saved.
    pub(crate) fn load(&mut self, all: &mut Tables) -> Result<()> {
        self.next = Timestamp(all.take_number("next").map_err(error::state)?);
        if let Some(current) = &mut self.current {
            take_rows(all, "current", current)?;
        }
        take_rows(all, "failing", &mut self.failing)
    }

    /// For EXPLAIN.
    pub(crate) fn title(&self) -> String {
        let what = if self.anew { "the query anew" } else { "the maintained result" };
        let every = self.slide.map_or_else(String::new, |slide| format!(", every {}", length_text(slide)));
        format!("EachBatch [{what}{every}]")
    }

    /// Whether it makes use of how the flow's result changes.
    pub(crate) fn takes_changes(&self) -> bool {
        self.anew || self.current.is_some()
    }

    /// How many rows it keeps besides what the flow does.
    pub(crate) fn num_rows(&self) -> usize {
        self.current.as_ref().map_or(0, Rows::num_rows)
    }

    /// How many bytes these take, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.current.as_ref().map_or(0, Rows::memory_bytes) + self.failing.memory_bytes()
    }

    /// Shows what the rows lie in that may be read from files.
    pub(crate) fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        self.current.iter_mut().for_each(|rows| show(rows));
    }

    /// The times, up to this cut's, at which it must be run now.
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

/// What was inserted in all, as rows.
fn inserted(delta: Delta) -> Result<Vec<RecordBatch>, ArrowError> {
    let taken_back = |chunk: &Chunk| {
        chunk.weights.as_ref().is_some_and(|weights| weights.values().iter().any(|weight| *weight < 0))
    };
    let delta = match delta.chunks.first().map(|chunk| chunk.rows.schema()) {
        Some(schema) if delta.chunks.iter().any(taken_back) => consolidate(delta, &schema)?,
        _ => delta,
    };
    delta.chunks.iter().map(Chunk::expand).collect()
}

/// The rows of one evaluation, and its failures.
struct Answer {
    rows: Delta,
    errors: Delta,
}

impl RunningQuery {
    /// Whether it starts from nothing at each batch, so that it needs all that its inputs hold.
    pub(crate) fn is_anew(&self) -> bool {
        self.batches.as_ref().is_some_and(|batches| batches.anew)
    }

    /// Takes in what tables and views hold when it is made. Its first batch is the next one.
    pub(crate) fn begin_batches(&mut self, cut: &Cut, contents: &[Delta]) -> Result<()> {
        if let Some(batches) = &mut self.batches {
            batches.next = batches.slide.map_or(Timestamp::default(), |slide| next_multiple(slide, cut.now));
        }
        if self.is_anew() { Ok(()) } else { self.maintain(cut, &contents.iter().collect::<Vec<_>>()) }
    }

    /// Whether a time has passed at which it was to be run.
    pub(crate) fn is_late(&self, now: Timestamp) -> bool {
        self.batches.as_ref().is_some_and(|batches| batches.slide.is_some() && batches.next <= now)
    }

    /// Goes on with the first of its times after this one.
    pub(crate) fn skip_batches(&mut self, to: Timestamp) {
        if let Some(batches) = &mut self.batches
            && let Some(slide) = batches.slide
        {
            batches.next = batches.next.max(next_multiple(slide, to));
        }
    }

    /// Takes in an epoch; returns the times at which it is to be run now.
    fn gather<'a>(&mut self, cut: &Cut, find: &dyn Fn(&str) -> Option<&'a Delta>) -> Result<Vec<Timestamp>> {
        // What names no stream has a batch in each epoch that changes what it names.
        let bare = self.feeds.iter().all(|feed| feed.window.is_none());
        let mut filled =
            bare && self.feeds.iter().any(|feed| find(&feed.of).is_some_and(|delta| !delta.is_empty()));
        for feed in &mut self.feeds {
            let Some(window) = &mut feed.window else { continue };
            if let Some(delta) = find(&feed.of) {
                window.take(delta)?;
            }
            filled |= window.has_rows();
            if cut.closes != Closes::None {
                window.close(cut.into(), feed.stamped.as_ref())?;
            }
        }
        if cut.closes == Closes::None {
            return Ok(Vec::new());
        }
        Ok(self.batches.as_mut().map_or_else(Vec::new, |batches| batches.due(cut, filled)))
    }

    /// Steps the flow and keeps what it makes of the changes.
    fn maintain(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<()> {
        let change = self.step_flow(cut, inputs)?;
        if let Some(batches) = &mut self.batches {
            if let Some(current) = &mut batches.current {
                current.apply(&change.rows).map_err(error::state)?;
            }
            batches.failing.apply(&change.errors).map_err(error::state)?;
        }
        Ok(())
    }

    /// What the query comes to at a time; `changes` are those of the inputs that aren't windows, or all that these
    /// hold if it runs anew.
    fn answer(&mut self, cut: &Cut, changes: &[&Delta]) -> Result<Answer> {
        let anew = self.is_anew();
        let mut inputs = Vec::with_capacity(self.feeds.len());
        for (feed, change) in self.feeds.iter_mut().zip(changes) {
            inputs.push(match &mut feed.window {
                None => (*change).clone(),
                Some(window) if anew => window.rows_at(cut.now),
                Some(window) => window.slide_to(cut.now),
            });
        }
        if let Some(clock) = self.batches.as_ref().and_then(|batches| batches.clock.as_ref()) {
            clock.set(cut.now.0);
        }
        let inputs: Vec<&Delta> = inputs.iter().collect();
        if anew {
            self.flow.reset()?;
            let change = self.step_flow(cut, &inputs)?;
            let rows = self.in_order(inserted(change.rows).map_err(error::arrow)?)?;
            return Ok(Answer { rows, errors: change.errors });
        }
        self.maintain(cut, &inputs)?;
        let Some(batches) = &self.batches else {
            return Ok(Answer { rows: Delta::default(), errors: Delta::default() });
        };
        let rows: Vec<RecordBatch> = match &batches.current {
            Some(current) => current.snapshot().batches().map_err(error::arrow)?,
            None => self.flow.content()?,
        };
        let errors = batches.failing.snapshot().batches().map_err(error::arrow)?;
        Ok(Answer { rows: self.in_order(rows)?, errors: Delta::from_iter(errors) })
    }

    /// The rows of a batch as they are handed on.
    fn in_order(&self, rows: Vec<RecordBatch>) -> Result<Delta> {
        let order = self.batches.as_ref().and_then(|batches| batches.order.as_ref());
        let rows = match order {
            Some(order) => order.sort(rows).map_err(error::flow)?,
            None => rows,
        };
        Ok(Delta::from_iter(rows))
    }

    /// Runs it at each of these times.
    fn run_batches(&mut self, cut: &Cut, due: &[Timestamp], changes: &[&Delta]) -> Result<Delta> {
        let nothing = vec![&super::NOTHING; changes.len()];
        let mut rows = Delta::default();
        for (place, at) in due.iter().enumerate() {
            let cut = Cut { started: cut.started, closes: cut.closes, ..Cut::new(cut.epoch, *at) };
            // Run anew, each time sees all; maintained, the first has taken the changes in.
            let first = place == 0 || self.is_anew();
            let answer = self.answer(&cut, if first { changes } else { &nothing })?;
            self.keep(&cut, &answer.rows, &answer.errors)?;
            rows.append(answer.rows);
        }
        Ok(rows)
    }
}

impl RunningQuery {
    /// Takes in what can't wait until it is run: changes of tables and views, and batches that its operators keep in
    /// their own way.
    fn take_between(&mut self, cut: &Cut, changes: &[&Delta]) -> Result<()> {
        let mut inputs = Vec::with_capacity(self.feeds.len());
        for (place, feed) in self.feeds.iter_mut().enumerate() {
            let batches = feed.window.as_mut().map(|window| window.hand_on(cut.now));
            let change = || changes.get(place).map_or_else(Delta::default, |delta| (*delta).clone());
            inputs.push(batches.unwrap_or_else(change));
        }
        if inputs.iter().all(Delta::is_empty) {
            return Ok(());
        }
        self.maintain(cut, &inputs.iter().collect::<Vec<_>>())
    }
}

impl Loop {
    /// Takes an epoch into a query that runs once per batch; returns the results of the batches that it ends.
    pub(super) fn step_batches(&mut self, place: usize, cut: &Cut, deltas: &Deltas) -> Delta {
        self.try_step_batches(place, cut, deltas).unwrap_or_else(|reason| {
            self.queries[place].suspend(reason, cut.epoch);
            Delta::default()
        })
    }

    fn try_step_batches(&mut self, place: usize, cut: &Cut, deltas: &Deltas) -> Result<Delta> {
        let query = &mut self.queries[place];
        let due = query.gather(cut, &|name| deltas.get(name))?;
        query.ended_batch = !due.is_empty();
        if query.is_anew() {
            if due.is_empty() {
                return Ok(Delta::default());
            }
            let contents = self.contents_of(place)?;
            return self.queries[place].run_batches(cut, &due, &contents.iter().collect::<Vec<_>>());
        }
        let change = |name: &str| deltas.get(name).unwrap_or(&super::NOTHING);
        let changes: Vec<&Delta> = query
            .feeds
            .iter()
            .map(|feed| if feed.window.is_none() { change(&feed.of) } else { &super::NOTHING })
            .collect();
        let rows = query.run_batches(cut, &due, &changes)?;
        query.take_between(cut, if due.is_empty() { &changes } else { &[] })?;
        Ok(rows)
    }

    /// What the inputs of a query hold that aren't windows.
    pub(super) fn contents_of(&self, place: usize) -> Result<Vec<Delta>> {
        let content = |feed: &super::feed::Feed| match feed.window {
            Some(_) => Ok(Delta::default()),
            None => Ok(Delta::from_iter(self.answered(&feed.of)?)),
        };
        self.queries[place].feeds.iter().map(content).collect()
    }

    /// Starts a query that runs once per batch.
    pub(super) fn start_batches(&mut self, place: usize) -> Result<()> {
        let cut = self.standing_cut();
        let contents = self.contents_of(place)?;
        let query = &mut self.queries[place];
        query.status = Status::Running;
        query.begin_batches(&cut, &contents)
    }

    /// Whether a query per batch may be run when no rows come.
    pub(super) fn runs_empty_batches(&self, query: &RunningQuery) -> bool {
        let slides = query.batches.as_ref().is_some_and(|batches| batches.slide.is_some());
        slides || self.settings.pace != Pace::Auto || self.settings.clock == ClockKind::Manual
    }

    /// Whether each tick of a fixed interval must run, rows or not.
    pub(super) fn owes_ticks(&self) -> bool {
        let tick = Cut { closes: Closes::All, ..Cut::new(self.epoch, Timestamp::default()) };
        let owed = |query: &RunningQuery| query.is_per_batch() || query.flow.is_due(&tick);
        let awake = || self.next_flow_wake().is_some_and(|wake| wake <= self.now());
        let system = self.settings.clock == ClockKind::System;
        let takes_all = |query: &RunningQuery| query.behind().is_some_and(Behind::is_in_order);
        let owes = |query: &RunningQuery| takes_all(query) || (query.is_running() && owed(query));
        self.queries.iter().any(owes) || (system && awake())
    }

    /// The next time at which a window must be evaluated whatever comes: at auto pace no epoch may span it.
    pub(super) fn next_timer(&self) -> Option<Timestamp> {
        self.timers().map(|(next, _)| next).min()
    }

    /// The first of these times after the one that is about to be taken.
    pub(super) fn timer_after(&self, taken: Timestamp) -> Option<Timestamp> {
        self.timers()
            .map(|(next, slide)| Timestamp(next.0.max((taken.0.div_euclid(slide) + 1) * slide)))
            .min()
    }

    /// Each query's next time, and how far the one after it is.
    fn timers(&self) -> impl Iterator<Item = (Timestamp, i64)> {
        let auto = self.settings.pace == Pace::Auto;
        let running = self.queries.iter().filter(move |query| auto && query.is_running());
        running
            .filter_map(|query| query.batches.as_ref())
            .filter_map(|batches| Some((batches.next, batches.slide?)))
    }

    /// When a query must be stepped next at auto pace whatever comes, if at no exact time: a key of UPDATE_STATE times
    /// out then, or what holds a watermark back is idle. By the machine's clock many of them are done together.
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        let next = self.next_flow_wake().filter(|_| self.settings.pace == Pace::Auto)?;
        match self.settings.clock {
            ClockKind::Manual => Some(next),
            ClockKind::System => Some(next_multiple(WAKES_US, Timestamp(next.0 - 1))),
        }
    }

    /// When some query that is maintained must be stepped next whatever comes, or a watermark moves, at any pace.
    pub(super) fn next_flow_wake(&self) -> Option<Timestamp> {
        // One that is behind finds out when it has taken in all that waits for it.
        let is_idle = |query: &RunningQuery| query.behind().is_some_and(Behind::is_idle);
        let maintained =
            |query: &&RunningQuery| !query.is_per_batch() && (query.is_running() || is_idle(query));
        let queries = self.queries.iter().filter(maintained).filter_map(|query| query.flow.wake_at());
        queries.chain(self.next_mark()).min()
    }

    /// Whether the machine's clock has come to such a time.
    pub(super) fn timer_is_due(&self) -> bool {
        let due = |timer: Option<Timestamp>| timer.is_some_and(|timer| timer <= self.now());
        self.settings.clock == ClockKind::System && (due(self.next_timer()) || due(self.next_wake()))
    }
}
