//! A query that the engine maintains.

pub(super) mod beside;
pub(super) mod errors;
mod last_step;
mod progress;
mod reading;
mod result_store;
pub(super) mod role;
mod saving;
mod status;
mod stores;

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use millstream_delta::{Cut, Delta, Epoch};
use millstream_flow::{Change, Explained, ExplainedState, FailingRows, Flow};
use millstream_sql::{Error, Result};

pub(in crate::run) use result_store::ResultRows;
pub(crate) use result_store::{Keep, ResultStore};
pub(crate) use saving::{put_rows, take_rows};

use self::errors::with_texts;
use self::last_step::LastStep;
use self::progress::QueryProgress;
use self::role::QueryRole;
use super::NOTHING;
use super::backfill::Beginning;
use super::batches::Batches;
use super::catch_up::CatchUp;
use super::feed::Feed;
use super::into_table::IntoTable;
use super::lagging::Lag;
use super::late_insert::StagedCorrection;
use super::log::Place;
use super::own_flow::OwnFlow;
use super::rebuild::Panics;
use super::window::Window;
use crate::panics::panicked;
use crate::settings::OnError;

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
    pub(crate) status: Status,
    pub(crate) role: QueryRole,
    /// The table that takes its changes, if it is a sink into one.
    pub(crate) into: Option<IntoTable>,
    /// The part of its result that it keeps for readers.
    pub(crate) result: ResultStore,
    /// A correction by late rows that waits for its epoch.
    pub(crate) correction: Option<StagedCorrection>,
    pub(crate) progress: QueryProgress,
    pub(crate) last_step: LastStep,
    /// Facts about its panics.
    pub(super) panics: Panics,
}

/// A compiled query, with the feed of each relation that its flow reads.
#[derive(Debug)]
pub(crate) struct Lowered {
    pub(crate) flow: Flow,
    pub(crate) feeds: Vec<Feed>,
    pub(crate) batches: Option<Batches>,
}

/// The state of a query.
#[derive(Debug)]
pub(crate) enum Status {
    /// It waits for the queries that it reads, to begin in this way.
    Waiting(Beginning),
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
        let result = ResultStore::new(&mut flow, keep, batches.is_some(), on_error)?;
        Ok(RunningQuery {
            name,
            flow: OwnFlow::new(flow)?,
            feeds,
            batches,
            status: Status::Waiting(Beginning::default()),
            role: QueryRole::default(),
            into: None,
            result,
            correction: None,
            progress: QueryProgress::default(),
            last_step: LastStep::default(),
            panics: Panics::default(),
        })
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
        self.name == *name || self.role.owner() == Some(name)
    }

    /// Returns the relations that it reads.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &Arc<str>> {
        self.feeds.iter().map(|feed| &feed.of)
    }

    /// Returns true if it reads this relation.
    pub(crate) fn reads_from(&self, name: &str) -> bool {
        self.reads().any(|relation| relation.as_ref() == name)
    }

    /// Returns its position in the log of a relation, if it still reads that log.
    pub(crate) fn place_in(&self, name: &str) -> Option<Place> {
        let places = match &self.status {
            Status::CatchingUp(catch_up) | Status::Paused(catch_up) => &catch_up.places,
            Status::Waiting(Beginning::Backfilled(backfilled)) => backfilled.places(),
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
        self.last_step.begin();
        let begun = Instant::now();
        let rows = inputs.as_ref().map_or(0, |inputs| inputs.iter().map(|delta| delta.num_rows()).sum());
        let stepped = inputs.and_then(|inputs| {
            let inputs: Vec<&Delta> = inputs.iter().map(AsRef::as_ref).collect();
            let change = self.step_flow(cut, &inputs)?;
            self.take_up(cut, change, false)
        });
        let delta = stepped.unwrap_or_else(|reason| {
            self.suspend(reason, cut.epoch);
            Delta::default()
        });
        self.last_step.took(begun.elapsed(), rows, self.flow.cost());
        delta
    }

    /// Keeps the changes of a step, and returns the change of the result. `is_kept`: rows that are kept beside the
    /// operators have it already.
    pub(super) fn take_up(&mut self, cut: &Cut, change: Change, is_kept: bool) -> Result<Delta> {
        // Errors that go with their batch are compared as texts.
        let change = if self.result.keeps_errors_by_batch() { with_texts(change)? } else { change };
        let kept =
            AssertUnwindSafe(|| self.keep(cut, (&change.rows, is_kept), &change.errors, &change.failing));
        std::panic::catch_unwind(kept)
            .unwrap_or_else(|said| Err(panicked("keeping the result of the query", said.as_ref())))?;
        self.last_step.change(change.rows.num_rows() as u64 + change.left_out);
        if let Some(late) = &mut self.result.late {
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
            None => self.result.needs_changes(),
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
        let is_held = self.status.is_held();
        self.result.keep(cut, (rows, is_kept), is_held, (errors, failing))?;
        self.progress.take_in(cut.epoch);
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

    /// Returns the operators from the root down, below the result if that is kept beside them.
    pub(crate) fn operators(&self) -> Vec<Explained> {
        let mut operators = match self.flow.here() {
            Some(flow) => explained(flow, &self.feeds, self.batches.as_ref()),
            None => self.flow.operators(),
        };
        if let Some(mut result) = self.result.rows.explained(self.flow.closed()) {
            if self.is_per_batch() {
                operators[0].state.put_beside(result.state);
                return operators;
            }
            operators.iter_mut().for_each(|operator| operator.place.depth += 1);
            result.place.node = operators.len();
            result.append_only = self.append_only();
            result.key = operators.first().and_then(|root| root.key.clone());
            operators.insert(0, result);
        }
        operators
    }

    /// Returns the approximate bytes of its state.
    pub(crate) fn state_bytes(&self) -> usize {
        let windows = self.feeds.iter().filter_map(|feed| feed.window.as_ref()).map(Window::memory_bytes);
        let batches = windows.sum::<usize>() + self.batches.as_ref().map_or(0, Batches::memory_bytes);
        self.flow.state_bytes() + self.result.memory_bytes(self.flow.closed()) + batches
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
            (operator.state.rows, operator.state.bytes) = (window.num_rows(), window.memory_bytes());
        }
    }
    if let Some(batches) = batches {
        operators.iter_mut().for_each(|operator| operator.place.depth += 1);
        let top = Explained {
            state: ExplainedState::none().with_size((batches.num_rows(), batches.memory_bytes())),
            ..Explained::above(operators.len(), batches.title(), true)
        };
        operators.insert(0, top);
    }
    operators
}
