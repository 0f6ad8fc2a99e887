//! A step of a query FOR EACH BATCH: on the loop, or on a thread that borrows its operators, windows and results.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use millstream_delta::{Chunk, Closes, Cut, Delta, Timestamp, consolidate};
use millstream_flow::{Change, Flow};
use millstream_sql::{Error, Result};

use super::{Batches, all_rows};
use crate::content::Content;
use crate::error;
use crate::panics::PanicTrace;
use crate::run::feed::Feed;
use crate::run::query::RunningQuery;
use crate::run::query::errors::with_texts;
use crate::run::{NOTHING, own_flow};

/// The rows and the errors of one evaluation.
pub(in crate::run) struct Answer {
    pub(super) rows: Delta,
    pub(super) errors: Delta,
}

/// Everything that a step changes.
pub(in crate::run) struct PerBatch<'a> {
    flow: &'a mut Flow,
    feeds: &'a mut [Feed],
    batches: &'a mut Batches,
    /// True if a reader takes the changes of the flow's result.
    read: bool,
    /// The trace of the panic that ended a step of the flow.
    pub(in crate::run) panic: Option<PanicTrace>,
}

/// The windows and results of a query, lent to a thread together with its operators.
pub(in crate::run) struct Lent {
    feeds: Vec<Feed>,
    batches: Batches,
    read: bool,
}

pub(in crate::run) struct Stepped {
    lent: Lent,
    answers: Vec<(Cut, Answer)>,
    ended: bool,
}

impl PerBatch<'_> {
    /// Takes in an epoch, by input. Returns the times at which the query must run now.
    pub(super) fn gather(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Vec<Timestamp>> {
        // A query that names no stream has a batch in each epoch that changes its inputs.
        let bare = self.feeds.iter().all(|feed| feed.window.is_none());
        let mut filled = bare && inputs.iter().any(|delta| !delta.is_empty());
        for (feed, delta) in self.feeds.iter_mut().zip(inputs) {
            let Some(window) = &mut feed.window else { continue };
            if !delta.is_empty() {
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
        let is_awake = || self.flow.wake_at().is_some_and(|at| at <= cut.now);
        filled |= self.batches.wakes() && is_awake();
        Ok(self.batches.due(cut, filled))
    }

    /// Runs the query at each of these times, and takes in changes that can't wait until then. `contents` holds its
    /// inputs that are not windows, if it is recomputed.
    pub(super) fn run(
        &mut self,
        cut: &Cut,
        due: &[Timestamp],
        inputs: &[&Delta],
        contents: &[Delta],
    ) -> Result<Vec<(Cut, Answer)>> {
        if self.batches.anew {
            let contents: Vec<&Delta> = contents.iter().collect();
            return due.iter().map(|at| self.run_at(cut, *at, &contents)).collect();
        }
        let of_windows = |(feed, delta): (&Feed, _)| if feed.window.is_none() { delta } else { &NOTHING };
        let changes: Vec<&Delta> = self.feeds.iter().zip(inputs.iter().copied()).map(of_windows).collect();
        let nothing = vec![&NOTHING; changes.len()];
        let mut answers = Vec::with_capacity(due.len());
        for (place, at) in due.iter().enumerate() {
            // The first run has taken the changes in.
            answers.push(self.run_at(cut, *at, if place == 0 { &changes } else { &nothing })?);
        }
        self.take_between(cut, if due.is_empty() { &changes } else { &nothing })?;
        Ok(answers)
    }

    fn run_at(&mut self, cut: &Cut, at: Timestamp, changes: &[&Delta]) -> Result<(Cut, Answer)> {
        let cut = Cut { started: cut.started, closes: cut.closes, ..Cut::new(cut.epoch, at) };
        let answer = self.answer(&cut, changes)?;
        Ok((cut, answer))
    }

    /// Steps the flow and keeps the change of its result.
    pub(super) fn maintain(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<()> {
        let change = self.step(cut, inputs)?;
        if let Some(current) = &mut self.batches.current {
            current.apply(&change.rows).map_err(error::state)?;
        }
        self.batches.failing.apply(&change.errors).map_err(error::state)
    }

    fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Change> {
        let (change, panic) = own_flow::step(self.flow, cut, inputs, self.read);
        self.panic = panic;
        change.and_then(with_texts)
    }

    /// Returns the answer of the query at a time. `changes` holds the changes of inputs that are not windows, or their
    /// whole content if the query is recomputed.
    fn answer(&mut self, cut: &Cut, changes: &[&Delta]) -> Result<Answer> {
        let anew = self.batches.anew;
        let mut inputs = Vec::with_capacity(self.feeds.len());
        for (place, feed) in self.feeds.iter_mut().enumerate() {
            inputs.push(match &mut feed.window {
                None => changes.get(place).map_or_else(Delta::default, |delta| (*delta).clone()),
                Some(window) if anew => window.rows_at(cut.now),
                Some(window) => window.slide_to(cut.now),
            });
        }
        if let Some(clock) = &self.batches.clock {
            clock.set(cut.now.0);
        }
        let inputs: Vec<&Delta> = inputs.iter().collect();
        if anew {
            self.flow.reset().map_err(error::flow)?;
            let change = self.step(cut, &inputs)?;
            let rows = self.in_order(inserted(change.rows).map_err(error::arrow)?)?;
            return Ok(Answer { rows, errors: change.errors });
        }
        self.maintain(cut, &inputs)?;
        let rows: Vec<RecordBatch> = match &self.batches.current {
            Some(current) => current.snapshot().batches().map_err(error::arrow)?,
            None => self.flow.content().unwrap_or(Ok(Vec::new())).map_err(error::flow)?,
        };
        let errors = self.batches.failing.snapshot().batches().map_err(error::arrow)?;
        Ok(Answer { rows: self.in_order(rows)?, errors: Delta::from_iter(errors) })
    }

    /// Returns the rows of a batch in the query's order.
    fn in_order(&self, rows: Vec<RecordBatch>) -> Result<Delta> {
        let rows = match &self.batches.order {
            Some(order) => order.sort(rows).map_err(error::flow)?,
            None => rows,
        };
        Ok(Delta::from_iter(rows))
    }

    /// Takes in changes that can't wait until the query runs: changes of tables and views, and batches that its
    /// operators keep in their own way.
    fn take_between(&mut self, cut: &Cut, changes: &[&Delta]) -> Result<()> {
        let mut inputs = Vec::with_capacity(self.feeds.len());
        for (feed, change) in self.feeds.iter_mut().zip(changes) {
            let batches = feed.window.as_mut().map(|window| window.hand_on(cut.now));
            inputs.push(batches.unwrap_or_else(|| (*change).clone()));
        }
        if inputs.iter().all(Delta::is_empty) {
            return Ok(());
        }
        self.maintain(cut, &inputs.iter().collect::<Vec<_>>())
    }
}

impl Lent {
    /// Steps on a thread. `contents` holds the inputs that are not windows, if the query is recomputed.
    pub(in crate::run) fn step(
        mut self,
        flow: &mut Flow,
        cut: &Cut,
        inputs: &[&Delta],
        contents: Vec<Content>,
    ) -> (Result<Stepped>, Option<PanicTrace>) {
        let Lent { feeds, batches, read } = &mut self;
        let mut step = PerBatch { flow, feeds, batches, read: *read, panic: None };
        let done = step.gather(cut, inputs).and_then(|due| {
            let contents = if due.is_empty() { Vec::new() } else { all_rows(contents)? };
            Ok((step.run(cut, &due, inputs, &contents)?, !due.is_empty()))
        });
        let panic = step.panic.take();
        (done.map(|(answers, ended)| Stepped { lent: self, answers, ended }), panic)
    }
}

impl RunningQuery {
    /// Returns the parts that a step on the loop changes.
    pub(super) fn per_batch(&mut self) -> Result<PerBatch<'_>> {
        let read = self.needs_changes();
        match (self.flow.here_mut(), &mut self.batches) {
            (Some(flow), Some(batches)) => {
                Ok(PerBatch { flow, feeds: &mut self.feeds, batches, read, panic: None })
            }
            _ => Err(Error::bug("a query FOR EACH BATCH is being stepped elsewhere")),
        }
    }

    /// Lends its windows and results if it runs once per batch. Both are empty here meanwhile.
    pub(in crate::run) fn lend_batches(&mut self) -> Option<Lent> {
        let read = self.needs_changes();
        let batches = self.batches.as_mut()?.lend();
        Some(Lent { feeds: self.feeds.iter_mut().map(Feed::lend).collect(), batches, read })
    }

    /// Takes over a step that a thread has done. Returns the results of the batches that it ended.
    pub(in crate::run) fn take_stepped(&mut self, stepped: Stepped) -> Result<Delta> {
        let Stepped { lent, answers, ended } = stepped;
        for (feed, lent) in self.feeds.iter_mut().zip(lent.feeds) {
            feed.window = lent.window;
        }
        self.batches = Some(lent.batches);
        self.take_answers(answers, ended)
    }
}

/// Returns the inserted rows after consolidation.
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
