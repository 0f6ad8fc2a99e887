//! Lagging queries: queries too slow for the pace. A thread of its own steps each over all input since its last step.
//!
//! Changes in the inputs of such a query wait here by epoch. A step takes the sum of all changes up to some epoch, so
//! its result is as of that epoch: the batch answer, as always, of fewer epochs. The queries that read a lagging query
//! lag with it, so that all of their inputs are as of one epoch. Nothing else waits.
//!
//! A query whose answer depends on how its input is split takes one epoch after the other (`lagging/in_order.rs`).
//!
//! So does every query while the engine keeps history, because history consists of every epoch. It goes as far as the
//! query has come; a read of a past moment waits for the query like any other read.

mod groups;
mod in_order;
mod leaving;
mod merging;
pub(super) mod reading;
mod rebuild;
mod saving;
mod starting;
mod stepping;
mod waiting_epochs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use merging::compacted;
use millstream_delta::{Cut, Delta, Epoch, Timestamp};
use millstream_flow::{Change, Flow, Interrupt};
use millstream_sql::{Error, Result};
use millstream_state::Rows;

use super::batches::step::Stepped;
use super::feed::Feed;
use super::own_flow::{self, Told};
use super::queries::{made_of, wanted_by_events};
use super::query::{RunningQuery, Status, beside};
use super::query_replacement::needs_of_successors;
use crate::content::AwaitedRows;
use crate::panics::PanicTrace;
use crate::run::dead_letters::add_late_rows;
use crate::run::deltas::Deltas;
use crate::run::flow_control::FlowControl;
use crate::run::outputs::Outputs;
use crate::run::queries::Queries;
pub(super) use reading::result_of;
use rebuild::Rebuild;
pub(super) use rebuild::rebuild_piece;
use waiting_epochs::WaitingEpochs;

/// Queries that can leave the loop do so before an epoch that changes more rows of tables, or that pairs more rows.
pub(super) const LARGE_ROWS: usize = 32 * 1024;
pub(super) const LARGE_PAIRS: usize = 1 << 22;

/// The approximate number of bytes that an operator keeps for a row.
pub(super) const ROW_BYTES: usize = 64;

/// A lagging query: a thread of its own steps it over several epochs at once.
#[derive(Debug)]
pub(crate) struct Lag {
    /// The epoch that its result is as of.
    through: Epoch,
    /// The steps of its inputs over several epochs, from one to another. No content exists for an epoch in between.
    lumps: Vec<(Epoch, Epoch)>,
    /// The changes of its inputs since `through`.
    waiting: WaitingEpochs,
    /// The cuts of the batches that a resumed query FOR EACH BATCH still runs, by the epochs that its readers know.
    batches: BTreeMap<Epoch, Cut>,
    /// The times up to which batches are skipped, by the epoch after which they are.
    skipped: BTreeMap<Epoch, Timestamp>,
    /// The duration of its newest step.
    took: Duration,
    /// True if it lags for a read alone.
    for_read: bool,
    step: Option<Step>,
    /// The progress of its rebuild after a panic.
    rebuild: Option<Rebuild>,
}

/// A step on a thread of its own.
#[derive(Debug)]
struct Step {
    /// The epoch that the result will be as of.
    through: Epoch,
    begun: Instant,
    cut: Cut,
    done: Receiver<Done>,
    work: Work,
    _given_up: GivenUp,
}

/// Ends the step of a thread when nobody needs its result.
#[derive(Debug, Default)]
pub(super) struct GivenUp(Interrupt);

impl GivenUp {
    /// Returns the interrupt that is raised once this is dropped.
    pub(super) fn interrupt(&self) -> Interrupt {
        self.0.clone()
    }

    /// Returns work that ends early once this is dropped.
    pub(super) fn ends<T, W: FnOnce() -> T>(&self, work: W) -> impl FnOnce() -> T + use<T, W> {
        let interrupt = self.interrupt();
        move || interrupt.run(work)
    }
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.raise();
    }
}

/// The work of a thread.
#[derive(Debug)]
enum Work {
    /// A step over this input.
    Inputs(Vec<Delta>),
    /// A step of a rebuild, whose rows are known already.
    Rebuild,
    /// A read of the result, and the rows for readers, if these may be other queries.
    Read(Option<AwaitedRows>),
}

/// The result of a step on a thread.
pub(super) struct Done {
    pub(super) flow: Flow,
    pub(super) told: Told,
    pub(super) change: Result<Change>,
    /// The windows and results of a query FOR EACH BATCH.
    pub(super) batches: Option<Stepped>,
    /// The rows of the result beside the operators, if a thread has changed or made them.
    pub(super) result: Option<Rows>,
    pub(super) panic: Option<PanicTrace>,
    pub(super) took: Duration,
    pub(super) rows: usize,
}

impl Lag {
    pub(super) fn new(through: Epoch) -> Lag {
        Lag {
            through,
            lumps: Vec::new(),
            batches: BTreeMap::new(),
            skipped: BTreeMap::new(),
            took: Duration::ZERO,
            for_read: false,
            waiting: WaitingEpochs::new(),
            step: None,
            rebuild: None,
        }
    }

    /// Returns a query of which a thread has begun the step over the epoch after `through`.
    pub(super) fn stepping(
        through: Epoch,
        cut: Cut,
        inputs: Vec<Delta>,
        (done, begun, _given_up): (Receiver<Done>, Instant, GivenUp),
    ) -> Lag {
        let step = Step { through: cut.epoch, begun, cut, done, work: Work::Inputs(inputs), _given_up };
        Lag { step: Some(step), ..Lag::new(through) }
    }

    pub(crate) fn through(&self) -> Epoch {
        self.through
    }

    /// True if a thread is stepping it, or it is being rebuilt.
    pub(crate) fn is_away(&self) -> bool {
        self.step.is_some() || self.rebuild.is_some()
    }

    /// Returns the approximate size in bytes of the changes that wait for it.
    pub(crate) fn bytes(&self) -> usize {
        self.waiting.bytes()
    }

    /// Keeps an epoch's changes of its inputs.
    pub(crate) fn wait(&mut self, cut: &Cut, inputs: &[&Delta]) {
        self.waiting.add(cut, inputs);
    }

    /// Returns the result of its step, if the step is done.
    fn done(&mut self) -> Option<(Step, Result<Done>)> {
        let done = match self.step.as_ref()?.done.try_recv() {
            Ok(done) => Ok(done),
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(Error::bug("the thread that stepped the query panicked")),
        };
        self.step.take().map(|step| (step, done))
    }
}

impl Done {
    /// Applies the change to the rows of the result, which it returns.
    fn kept_in(self, rows: Option<Rows>) -> Done {
        let Some(mut rows) = rows else { return self };
        let begun = Instant::now();
        let change = self.change.and_then(|change| beside::apply(&mut rows, &change.rows).map(|()| change));
        Done { change, result: Some(rows), took: self.took + begun.elapsed(), ..self }
    }
}

fn bytes_of(inputs: &[Delta]) -> usize {
    inputs.iter().map(Delta::memory_bytes).sum()
}

/// Returns several epochs as one, under the cut of the last.
pub(crate) fn together(epochs: impl Iterator<Item = (Cut, Vec<Delta>)>) -> Option<(Cut, Vec<Delta>)> {
    epochs.reduce(|(_, mut all), (cut, inputs)| {
        all.iter_mut().zip(inputs).for_each(|(all, delta)| all.append(delta));
        (cut, all)
    })
}

/// Returns the changes of several epochs by input, of which there are `inputs`.
pub(super) fn all_changes<'a>(inputs: usize, epochs: impl Iterator<Item = &'a Vec<Delta>>) -> Vec<Delta> {
    let mut all = vec![Delta::default(); inputs];
    for changes in epochs {
        all.iter_mut().zip(changes).for_each(|(all, delta)| all.append(delta.clone()));
    }
    all
}

impl RunningQuery {
    /// True if it can be stepped over several epochs at once: its answer is the same for every split of its input, also
    /// for the readers of its changes.
    pub(super) fn may_lag(&self) -> bool {
        self.flow.is_timeless()
            && !self.is_per_batch()
            && self.into.as_ref().is_none_or(|into| !into.keyed)
            && self.result.newest().is_none()
            && self.feeds.iter().all(Feed::is_plain)
    }
}

/// Passes the late rows of a lagging query's step to the queries that read them, which lag as well, and to logs.
fn hand_on_late_rows(queries: &mut Queries, outputs: &mut Outputs, place: usize, cut: &Cut) {
    let mut late = Deltas::new();
    add_late_rows(queries, place, &mut late);
    for (relation, rows) in late {
        hand_to_readers(queries, outputs, place, &relation, cut, &rows);
    }
}

/// Passes changes of a relation to the queries behind a place that read it, which lag as well, and to its log.
pub(super) fn hand_to_readers(
    queries: &mut Queries,
    outputs: &mut Outputs,
    place: usize,
    name: &Arc<str>,
    cut: &Cut,
    delta: &Delta,
) {
    for query in &mut queries[place + 1..] {
        let inputs = query.inputs(|of| (of == name.as_ref()).then_some(delta));
        if let Some(lag) = query.status.lag_mut()
            && inputs.iter().any(|delta| !delta.is_empty())
        {
            lag.wait(cut, &inputs);
        }
    }
    outputs.log(queries, name, cut, delta);
}

impl FlowControl<'_> {
    /// Returns the queries that must become current for something that waits.
    pub(super) fn wanted_at_present(&self) -> BTreeSet<Arc<str>> {
        let starting = self.queries.iter().filter(|query| matches!(query.status, Status::Waiting(_)));
        let starting = starting.flat_map(RunningQuery::reads).cloned();
        let mut wanted = made_of(
            self.queries,
            needs_of_successors(self.queries, &self.outputs.successors, &self.setup.catalog)
                .into_iter()
                .chain(starting),
        );
        wanted.append(&mut wanted_by_events(self.queries, self.waiters));
        wanted
    }
}

impl Queries {
    /// Returns true if all queries have reached an epoch.
    pub(super) fn are_through(&self, epoch: Epoch) -> bool {
        self.all.iter().filter_map(|query| query.status.lag()).all(|lag| lag.through >= epoch)
    }

    /// Suspends the queries that read a suspended one.
    fn suspend_after(&mut self, place: usize, epoch: Epoch) {
        if self.all[place].status.is_suspended() {
            for later in place + 1..self.all.len() {
                self.suspend_with_inputs(later, epoch);
            }
        }
    }

    /// Returns true if some query lags.
    pub(super) fn some_lag(&self) -> bool {
        self.all.iter().any(|query| query.status.lag().is_some())
    }
}

/// Runs a step on a thread, over compacted inputs.
fn step(flow: Flow, cut: &Cut, inputs: Vec<Delta>, read: bool) -> Done {
    step_for(flow, cut, inputs.into_iter().map(compacted).collect(), read, Told::of)
}

/// Runs a step over its inputs as they are.
pub(super) fn step_for(
    mut flow: Flow,
    cut: &Cut,
    inputs: Vec<Delta>,
    read: bool,
    tell: impl FnOnce(&Flow) -> Told,
) -> Done {
    let begun = Instant::now();
    let rows = inputs.iter().map(Delta::num_rows).sum();
    let (change, panic) = own_flow::step(&mut flow, cut, &inputs.iter().collect::<Vec<_>>(), read);
    let took = begun.elapsed();
    // After a panic the operators are inconsistent.
    let told = if change.is_ok() { tell(&flow) } else { Told::default() };
    Done { flow, told, change, result: None, batches: None, panic, took, rows }
}
