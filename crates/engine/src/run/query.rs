//! A query that the engine maintains.

pub(super) mod beside;
pub(super) mod errors;
mod reading;
mod replacement;
mod saving;
mod stores;

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_delta::{Cut, Delta, Epoch, Timestamp};
use millstream_flow::{Change, Explained, FailingRows, Flow};
use millstream_sql::{Error, Result};
use millstream_state::Rows;

pub(crate) use saving::{put_rows, take_rows};

use self::beside::Beside;
use self::errors::{ErrorsSnapshot, FirstError, QueryErrors, with_texts};
use super::NOTHING;
use super::backfill::Beginning;
use super::batches::Batches;
use super::catch_up::CatchUp;
use super::feed::Feed;
use super::into_table::IntoTable;
use super::lagging::Lag;
use super::late_insert::StagedCorrection;
use super::late_rows::LateRows;
use super::log::Place;
use super::own_flow::OwnFlow;
use super::rebuild::Panics;
use super::rename::Names;
use super::retained::Retained;
use super::speed::Speed;
use super::window::Window;
use crate::error;
use crate::panics::panicked;
use crate::settings::OnError;

/// The retention of the errors of a query FOR EACH BATCH whose rows nobody keeps.
const ERRORS_LENGTH: Duration = Duration::from_secs(600);

/// The hint for a suspended query whose reason has none.
const MEND: &str = "Fix the reported problem, then RESUME it, or drop it and create it again.";

/// One materialized view or stream, or the query of a sink.
#[derive(Debug)]
pub(crate) struct RunningQuery {
    /// The name of its result.
    pub(crate) name: Arc<str>,
    pub(crate) flow: OwnFlow,
    /// One feed for each of the flow's relations.
    pub(crate) feeds: Vec<Feed>,
    /// The state of a query FOR EACH BATCH.
    pub(crate) batches: Option<Batches>,
    /// The query that this one is a part of, and its only reader.
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) status: Status,
    /// True if it is a subscriber's own query, which no statement can name.
    pub(crate) temporary: bool,
    /// True if it is a successor: it replaces another query once it is current.
    pub(crate) succeeds: bool,
    /// The table that takes its changes, if it is a sink into one.
    pub(crate) into: Option<IntoTable>,
    /// The behaviour of reads while it has errors.
    pub(crate) on_error: OnError,
    pub(in crate::run) kept: Kept,
    /// The rows, or keys, without an answer.
    errors: QueryErrors,
    /// The errors by batch, if the query keeps them as long as the rows of their batch.
    errors_of: Option<Retained>,
    /// The late rows, if its windows close.
    late: Option<LateRows>,
    /// A correction by late rows that waits for its epoch.
    pub(crate) correction: Option<StagedCorrection>,
    /// True if nobody takes the changes of its result, so the operators may leave them out.
    pub(crate) unread: bool,
    /// The number of rows that the last step changed in the result, including those left out.
    pub(crate) changed: u64,
    /// True if the last epoch ended a batch that the query runs for.
    pub(crate) ended_batch: bool,
    /// The epoch after which it started.
    pub(crate) since: Epoch,
    /// The last epoch that it took in.
    pub(crate) epoch: Epoch,
    /// The number of epochs, and of pieces of its backfill, that it took in.
    pub(crate) steps: u64,
    /// The durations of its steps.
    pub(crate) speed: Speed,
    /// Facts about its panics.
    pub(super) panics: Panics,
    /// The way in which it begins, until it is started.
    pub(super) beginning: Beginning,
}

/// A compiled query, with the feed of each relation that its flow reads.
#[derive(Debug)]
pub(crate) struct Lowered {
    pub(crate) flow: Flow,
    pub(crate) feeds: Vec<Feed>,
    pub(crate) batches: Option<Batches>,
}

/// The part of a query's result that readers will ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Nothing: it only passes its changes on.
    Nothing,
    /// Its result.
    Result,
    /// Its newest rows; it is append-only.
    Newest(Duration),
}

/// The store of the result for readers.
#[derive(Debug)]
pub(in crate::run) enum Kept {
    Nothing,
    /// The result, by its operators.
    Operators,
    /// The result, beside its operators.
    Beside(Beside),
    /// The newest rows.
    Newest(Retained),
}

/// The state of a query.
#[derive(Debug)]
pub(crate) enum Status {
    /// It waits for the queries that it reads.
    Waiting,
    /// It backfills.
    CatchingUp(Box<CatchUp>),
    /// It is paused: the logs keep the epochs that it hasn't taken in.
    Paused(Box<CatchUp>),
    /// It takes in each epoch.
    Running,
    /// It lags: it takes in several epochs at once, on a thread of its own.
    Lagging(Box<Lag>),
    /// It failed, and isn't stepped until RESUME.
    Suspended {
        /// The error that suspended it.
        reason: Error,
        /// The epoch in which that happened.
        epoch: Epoch,
    },
}

impl RunningQuery {
    /// Creates a query that is not started.
    pub(crate) fn new(
        name: Arc<str>,
        lowered: Lowered,
        keep: Keep,
        on_error: OnError,
    ) -> Result<RunningQuery> {
        let Lowered { mut flow, feeds, batches } = lowered;
        let kept = match keep {
            Keep::Nothing => Kept::Nothing,
            Keep::Result if flow.keep_result() => Kept::Operators,
            Keep::Result => {
                Kept::Beside(Beside::Here(Rows::new(flow.schema().map_err(error::flow)?.clone())))
            }
            Keep::Newest(length) => Kept::Newest(Retained::new(length)),
        };
        let errors_of = match keep {
            Keep::Newest(length) => Some(Retained::new(length)),
            _ if batches.is_some() => Some(Retained::new(ERRORS_LENGTH)),
            _ => None,
        };
        let late = flow.late_schema().cloned().map(LateRows::new);
        Ok(RunningQuery {
            name,
            flow: OwnFlow::new(flow)?,
            feeds,
            batches,
            owner: None,
            status: Status::Waiting,
            temporary: false,
            succeeds: false,
            into: None,
            on_error,
            kept,
            errors: QueryErrors::default(),
            errors_of,
            late,
            correction: None,
            unread: false,
            changed: 0,
            ended_batch: false,
            since: Epoch::default(),
            epoch: Epoch::default(),
            steps: 0,
            speed: Speed::default(),
            panics: Panics::default(),
            beginning: Beginning::default(),
        })
    }

    /// Stops keeping the result: from now on the query only passes its changes on.
    pub(crate) fn forget_result(&mut self) {
        self.kept = Kept::Nothing;
    }

    /// Keeps the result beside the operators from now on, since theirs is no longer right.
    pub(super) fn keep_beside(&mut self) -> Result<()> {
        if !matches!(self.kept, Kept::Operators) {
            return Ok(());
        }
        let flow =
            self.flow.here_mut().ok_or_else(|| Error::bug("the operators of a query are elsewhere"))?;
        let mut rows = Rows::new(flow.schema().map_err(error::flow)?.clone());
        let content = flow.content().unwrap_or(Ok(Vec::new())).map_err(error::flow)?;
        rows.apply(&Delta::from_iter(content)).map_err(error::state)?;
        flow.forget_closed();
        self.kept = Kept::Beside(Beside::Here(rows));
        Ok(())
    }

    /// Returns true if the result can be read; a sink's own query only passes its changes on.
    pub(crate) fn is_readable(&self) -> bool {
        !matches!(self.kept, Kept::Nothing)
    }

    /// Returns true if it is a query FOR EACH BATCH.
    pub(crate) fn is_per_batch(&self) -> bool {
        self.batches.is_some()
    }

    /// Returns true if the result is append-only.
    pub(crate) fn append_only(&self) -> bool {
        self.is_per_batch() || self.flow.append_only()
    }

    /// Returns columns that no two rows of the result share, if known.
    pub(crate) fn key(&self) -> Option<&[usize]> {
        if self.is_per_batch() { None } else { self.flow.key() }
    }

    /// Returns true if it is the query of this name, or a part of it.
    pub(crate) fn belongs_to(&self, name: &Arc<str>) -> bool {
        self.name == *name || self.owner.as_ref() == Some(name)
    }

    /// Returns true if readers see the result only once it is complete; other queries pass rows on as they arrive.
    pub(crate) fn shows_at_once(&self) -> bool {
        matches!(self.kept, Kept::Operators | Kept::Beside(_))
    }

    /// Returns the newest rows, if the query keeps only these.
    pub(crate) fn newest(&self) -> Option<&Retained> {
        if let Kept::Newest(rows) = &self.kept { Some(rows) } else { None }
    }

    /// Returns the relations that it reads.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &Arc<str>> {
        self.feeds.iter().map(|feed| &feed.of)
    }

    /// Renames relations that its backfill still reads.
    pub(super) fn rename_read(&mut self, names: &Names) {
        if let Status::CatchingUp(catch_up) = &mut self.status {
            catch_up.rename_read(names);
        }
    }

    /// Returns true if it reads this relation.
    pub(crate) fn reads_from(&self, name: &str) -> bool {
        self.reads().any(|relation| relation.as_ref() == name)
    }

    /// Returns true if its result is not available yet.
    pub(crate) fn is_starting(&self) -> bool {
        matches!(self.status, Status::Waiting | Status::CatchingUp(_))
    }

    /// Returns true if it takes in each epoch.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.status, Status::Running)
    }

    /// Returns the state of a lagging query.
    pub(crate) fn lag(&self) -> Option<&Lag> {
        if let Status::Lagging(lag) = &self.status { Some(lag) } else { None }
    }

    /// Returns the state of a lagging query for changes.
    pub(crate) fn lag_mut(&mut self) -> Option<&mut Lag> {
        if let Status::Lagging(lag) = &mut self.status { Some(lag) } else { None }
    }

    /// Returns true if it is suspended.
    pub(crate) fn is_suspended(&self) -> bool {
        matches!(self.status, Status::Suspended { .. })
    }

    /// Returns its position in the log of a relation, if it still reads that log.
    pub(crate) fn place_in(&self, name: &str) -> Option<Place> {
        let places = match (&self.status, &self.beginning) {
            (Status::CatchingUp(catch_up) | Status::Paused(catch_up), _) => &catch_up.places,
            (Status::Waiting, Beginning::Backfilled(backfilled)) => backfilled.places(),
            _ => return None,
        };
        let relation = self.reads().position(|relation| relation.as_ref() == name)?;
        places.get(relation).copied()
    }

    /// Takes in one epoch, or a piece of the backfill. A failure suspends this query, and no other.
    pub(crate) fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Delta {
        let stamped = self.feeds.iter().zip(inputs).map(|(feed, delta)| feed.stamp(delta, cut.into()));
        let inputs = stamped.collect::<Result<Vec<_>>>();
        self.step_stamped(cut, inputs)
    }

    /// The same for rows that already have the columns of their batch.
    pub(crate) fn step_stamped(&mut self, cut: &Cut, inputs: Result<Vec<Cow<'_, Delta>>>) -> Delta {
        self.changed = 0;
        let begun = Instant::now();
        let rows = inputs.as_ref().map_or(0, |inputs| inputs.iter().map(|delta| delta.num_rows()).sum());
        let delta = inputs.and_then(|inputs| self.try_step(cut, &inputs)).unwrap_or_else(|reason| {
            self.suspend(reason, cut.epoch);
            Delta::default()
        });
        self.speed.took(begun.elapsed(), rows, self.flow.cost());
        delta
    }

    fn try_step(&mut self, cut: &Cut, inputs: &[Cow<'_, Delta>]) -> Result<Delta> {
        let inputs: Vec<&Delta> = inputs.iter().map(AsRef::as_ref).collect();
        let change = self.step_flow(cut, &inputs)?;
        self.take_up(cut, change, false)
    }

    /// Keeps the changes of a step, and returns the change of the result. `is_kept`: rows that are kept beside the
    /// operators have it already.
    pub(super) fn take_up(&mut self, cut: &Cut, change: Change, is_kept: bool) -> Result<Delta> {
        // Errors that go with their batch are compared as texts.
        let change = if self.errors_of.is_some() { with_texts(change)? } else { change };
        let kept =
            AssertUnwindSafe(|| self.keep(cut, (&change.rows, is_kept), &change.errors, &change.failing));
        std::panic::catch_unwind(kept)
            .unwrap_or_else(|said| Err(panicked("keeping the result of the query", said.as_ref())))?;
        self.changed = change.rows.num_rows() as u64 + change.left_out;
        if let Some(late) = &mut self.late {
            late.receive(change.late)?;
        }
        Ok(change.rows)
    }

    /// Steps the operators. Errors have the same messages as in a SELECT.
    pub(super) fn step_flow(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Change> {
        let read = self.needs_changes();
        self.flow.step(cut, inputs, read)
    }

    /// Returns true if anybody takes the changes of the flow's result, including this query itself.
    pub(super) fn needs_changes(&self) -> bool {
        match &self.batches {
            Some(batches) => batches.takes_changes(),
            None => !self.unread || matches!(self.kept, Kept::Beside(_) | Kept::Newest(_)),
        }
    }

    /// Keeps the changes of an epoch for readers: of the result and of the errors. `is_kept`: rows that are kept beside the
    /// operators have them already.
    pub(super) fn keep(
        &mut self,
        cut: &Cut,
        (rows, is_kept): (&Delta, bool),
        errors: &Delta,
        failing: &[FailingRows],
    ) -> Result<()> {
        let is_held = self.is_held();
        match &mut self.kept {
            Kept::Beside(kept) if !is_kept => kept.here_mut()?.apply(rows).map_err(error::state)?,
            Kept::Newest(kept) if !is_held => kept.push(cut, rows),
            Kept::Newest(_) | Kept::Beside(_) | Kept::Nothing | Kept::Operators => {}
        }
        self.errors.apply(errors, failing)?;
        if let Some(errors_of) = self.errors_of.as_mut().filter(|_| !is_held) {
            errors_of.push(cut, errors);
        }
        self.epoch = cut.epoch;
        self.steps += 1;
        Ok(())
    }

    /// Drops rows and errors older than their retention.
    pub(crate) fn trim(&mut self, now: Timestamp) -> Result<()> {
        if let Kept::Newest(rows) = &mut self.kept {
            rows.trim(now);
        }
        for mut gone in self.errors_of.as_mut().map_or_else(Vec::new, |errors| errors.trim(now)) {
            for chunk in &mut gone.chunks {
                chunk.weights = Some(chunk.weights_or_ones().unary(|weight| -weight));
            }
            self.errors.apply(&gone, &[])?;
        }
        Ok(())
    }

    /// Suspends it, with the reason.
    pub(crate) fn suspend(&mut self, reason: Error, epoch: Epoch) {
        tracing::warn!(query = %self.name, epoch = epoch.0, reason = %reason, "a query is suspended");
        self.status = Status::Suspended { reason, epoch };
    }

    /// Returns the deltas of its inputs in an epoch.
    pub(crate) fn inputs<'a>(&self, find: impl Fn(&str) -> Option<&'a Delta>) -> Vec<&'a Delta> {
        self.reads().map(|name| find(name).unwrap_or(&NOTHING)).collect()
    }

    /// Returns the late rows, if its windows close.
    pub(crate) fn late(&self) -> Option<&LateRows> {
        self.late.as_ref()
    }

    /// Returns the late rows for changes.
    pub(super) fn late_mut(&mut self) -> Option<&mut LateRows> {
        self.late.as_mut()
    }

    /// Returns the number of rows, or keys, without an answer.
    pub(crate) fn errors(&self) -> usize {
        self.errors.count()
    }

    /// Returns the first error, if there is one.
    pub(crate) fn first_error(&self) -> Option<FirstError> {
        self.errors.first()
    }

    /// Returns all errors, for a reader beside the loop.
    pub(crate) fn all_errors(&self) -> ErrorsSnapshot {
        self.errors.snapshot()
    }

    /// Returns the operators from the root down, below the result if that is kept beside them.
    pub(crate) fn operators(&self) -> Vec<Explained> {
        let mut operators = match self.flow.here() {
            Some(flow) => explained(flow, &self.feeds, self.batches.as_ref()),
            None => self.flow.operators(),
        };
        if let Some(mut result) = self.kept.explained(self.flow.closed()) {
            if self.is_per_batch() {
                let top = &mut operators[0];
                (top.state, top.growth) = (result.state, result.growth);
                top.state_rows += result.state_rows;
                top.state_bytes += result.state_bytes;
                return operators;
            }
            operators.iter_mut().for_each(|operator| operator.depth += 1);
            result.node = operators.len();
            result.append_only = self.append_only();
            result.key = operators.first().and_then(|root| root.key.clone());
            operators.insert(0, result);
        }
        operators
    }

    /// Returns the approximate bytes of its state.
    pub(crate) fn state_bytes(&self) -> usize {
        let kept = match &self.kept {
            Kept::Nothing => 0,
            Kept::Operators => self.flow.closed().map_or(0, |(_, bytes)| bytes),
            Kept::Beside(rows) => rows.memory_bytes(),
            Kept::Newest(rows) => rows.memory_bytes(),
        };
        let errors_of = self.errors_of.as_ref().map_or(0, Retained::memory_bytes);
        let windows = self.feeds.iter().filter_map(|feed| feed.window.as_ref()).map(Window::memory_bytes);
        let batches = windows.sum::<usize>() + self.batches.as_ref().map_or(0, Batches::memory_bytes);
        let late = self.late.as_ref().map_or(0, LateRows::memory_bytes);
        self.flow.state_bytes() + kept + self.errors.memory_bytes() + errors_of + batches + late
    }
}

impl Lowered {
    /// Returns the operators from the root down.
    pub(crate) fn operators(&self) -> Vec<Explained> {
        explained(&self.flow, &self.feeds, self.batches.as_ref())
    }
}

/// Returns the operators of a flow from the root down, below the node that runs them once per batch.
fn explained(flow: &Flow, feeds: &[Feed], batches: Option<&Batches>) -> Vec<Explained> {
    let mut operators = flow.operators();
    for (name, feed) in flow.relations().iter().zip(feeds) {
        let Some(window) = &feed.window else { continue };
        let title = format!("Input {name}");
        for operator in operators.iter_mut().filter(|operator| operator.title == title) {
            (operator.state_rows, operator.state_bytes) = (window.num_rows(), window.memory_bytes());
        }
    }
    if let Some(batches) = batches {
        operators.iter_mut().for_each(|operator| operator.depth += 1);
        let top = Explained {
            state_rows: batches.num_rows(),
            state_bytes: batches.memory_bytes(),
            ..Explained::above(operators.len(), batches.title(), true)
        };
        operators.insert(0, top);
    }
    operators
}
