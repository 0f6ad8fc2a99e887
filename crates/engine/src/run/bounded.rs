//! Steps that may take long. They begin on a thread; the loop waits for a moment, then continues without the query.
//!
//! The duration of a step is not known before: a join may find one row for each new row, or all. So a step that may
//! take long is lent to a thread at once. Most steps are done in time, with the same result as on the loop. Otherwise
//! the query lags (`lagging.rs`), with all that read it.
//!
//! A query that shares arrangements keeps them until its step is done. If the loop continues without it, the other
//! readers get copies. That is quick: only keys and lists are copied, not rows (`sharing.rs`).
//!
//! Deliberately absent: queries that may not lag, or with a reader that may not; and sinks into tables, which leave
//! before an epoch (`lagging/leaving.rs`).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use millstream_delta::{Closes, Cut, Delta};
use millstream_flow::{Arrangement, Cost};
use millstream_sql::Result;

use super::batches::recomputed_rows;
use super::contents::Bases;
use super::lagging::{Done, GivenUp, LARGE_PAIRS, LARGE_ROWS, Lag, ROW_BYTES};
use super::own_flow::Told;
use super::query::{RunningQuery, Status};
use super::window::Window;
use crate::query_pool::Priority;
use crate::run::flow_control::FlowControl;
use crate::run::queries::QueryGraph;
use crate::run::{Departures, QuerySteps};
use crate::settings::ClockKind;

/// A step on a thread, for which the loop waits until the epoch's patience ends.
pub(super) struct LentStep {
    pub(super) place: usize,
    /// The query and its readers, which leave the loop if the step isn't done in time.
    leaving: Vec<usize>,
    inputs: Vec<Delta>,
    shared: Vec<Arc<Arrangement>>,
    done: Receiver<Done>,
    begun: Instant,
    priority: Arc<Priority>,
    given_up: GivenUp,
}

impl RunningQuery {
    /// True if a step over so many rows may take long.
    pub(super) fn may_take_long(&self, rows: usize, cut: &Cut) -> bool {
        let windows = self.feeds.iter().filter_map(|feed| feed.window.as_ref());
        let rows = match cut.closes {
            Closes::None => rows,
            // A query FOR EACH BATCH takes in the gathered rows when the batch ends.
            _ => rows + windows.map(Window::num_rows).sum::<usize>(),
        };
        let kept = rows + self.flow.state_bytes() / ROW_BYTES;
        // All windows may close, or rows of all keys may leave.
        if kept > LARGE_ROWS && (self.flow.is_due(cut) || (self.is_per_batch() && rows > LARGE_ROWS)) {
            return true;
        }
        // An equality join reads all rows of a key.
        let pairs = || self.flow.cost() > Cost::Delta || !self.flow.shareable().is_empty();
        match self.flow.cost() {
            _ if rows == 0 => false,
            Cost::Few | Cost::Whole => kept > LARGE_ROWS,
            Cost::Delta | Cost::Keys | Cost::Pairs => rows.saturating_mul(kept) > LARGE_PAIRS && pairs(),
        }
    }

    /// Takes over a step that a thread has done.
    pub(super) fn take_done(&mut self, cut: &Cut, done: Done) -> Result<Delta> {
        self.flow.take_back(done.flow, done.told);
        let is_kept = done.result.is_some();
        done.result.into_iter().for_each(|rows| self.result.rows.take_back(rows));
        let owned = self.flow.own_shared();
        self.flow.note_panic(done.panic);
        self.last_step.took(done.took, done.rows, self.flow.cost());
        match (done.change.and_then(|change| owned.map(|()| change))?, done.batches) {
            (_, Some(stepped)) => self.take_stepped(stepped),
            (change, None) => self.take_up(cut, change, is_kept),
        }
    }
}

impl QueryGraph {
    /// Steps a query over an epoch on the loop. `later` holds the changes of its inputs since then, if they have any.
    pub(super) fn step_one(
        &mut self,
        bases: Bases<'_>,
        place: usize,
        cut: &Cut,
        inputs: &[&Delta],
        later: &[Delta],
    ) -> Delta {
        match self.queries[place].is_per_batch() {
            true => self.step_batches(bases, place, cut, inputs, later),
            false => self.queries[place].step(cut, inputs),
        }
    }

    /// Waits for such a step as long as the epoch may. None: it isn't done, and goes on apart.
    pub(super) fn await_long_step(&mut self, cut: &Cut, step: LentStep) -> Option<Delta> {
        let LentStep { place, leaving, inputs, shared, done, begun, priority, given_up } = step;
        let waited = Instant::now();
        let answer = done.recv_timeout(self.patience);
        self.patience = self.patience.saturating_sub(waited.elapsed());
        let query = &mut self.queries[place];
        match answer {
            Ok(done) => Some(query.take_done(cut, done).unwrap_or_else(|reason| {
                query.suspend(reason, cut.epoch);
                Delta::default()
            })),
            // If the thread panicked outside of the operators, `take_steps` reports it.
            Err(reason) => {
                if reason == RecvTimeoutError::Timeout {
                    priority.lower_for_long();
                }
                query.flow.shares_no_more();
                self.fork_for_others(shared);
                let before = cut.epoch.previous();
                let in_order = self.queries.is_stepped_in_order(place);
                let stepped =
                    Lag::stepping(before, cut.clone(), inputs, (done, begun, given_up)).in_order(in_order);
                self.queries[place].status = Status::Lagging(Box::new(stepped));
                leaving.into_iter().skip(1).for_each(|place| self.leave_before(place, before));
                None
            }
        }
    }
}

impl QuerySteps<'_> {
    /// Steps a running query over an epoch. None: the step is not done, and the query lags.
    pub(super) fn step_or_leave(&mut self, place: usize, cut: &Cut, inputs: &[&Delta]) -> Option<Delta> {
        let Some(leaving) = self.flow_control().leaving_over(place, cut, inputs) else {
            return Some(self.queries.step_one(
                Bases::new(self.tables, self.sources),
                place,
                cut,
                inputs,
                &[],
            ));
        };
        self.departures()
            .lend_long_step(place, cut, inputs, leaving)
            .map_or_else(|left| left, |step| self.queries.await_long_step(cut, step))
    }
}

impl Departures<'_> {
    /// Lends a step to a thread. `Err`: the query has left the loop with the step still to do, or is suspended and changes
    /// nothing.
    pub(super) fn lend_long_step(
        &mut self,
        place: usize,
        cut: &Cut,
        inputs: &[&Delta],
        leaving: Vec<usize>,
    ) -> Result<LentStep, Option<Delta>> {
        let starts = self.durability.is_recovering();
        if starts
            || self.flow_control().held_by_checkpoint().is_some()
            || may_index_many(&self.queries[place], inputs)
        {
            // A start steps nothing on threads. A step under way would postpone a checkpoint that is due, so the step
            // begins after it. An index of many rows is not done in time.
            let before = cut.epoch.previous();
            leaving.into_iter().for_each(|place| self.queries.leave_before(place, before));
            if let Some(lag) = self.queries[place].status.lag_mut() {
                lag.wait(cut, inputs);
            }
            return Err(None);
        }
        let contents = Bases::new(self.tables, self.sources).contents(self.queries).contents_to_lend(
            place,
            cut,
            inputs,
            &[],
        );
        let query = &mut self.queries[place];
        let shared = query.flow.shared();
        query.last_step.begin();
        query.flow.tell_little();
        let inputs: Vec<Delta> = inputs.iter().map(|delta| (*delta).clone()).collect();
        let priority = Arc::<Priority>::default();
        let step =
            contents.and_then(|contents| query.lend_step(cut, (&inputs, contents), true, Told::little_of));
        let given_up = GivenUp::default();
        let done = step.and_then(|step| self.tasks.on_a_thread_for(priority.clone(), given_up.ends(step)));
        match done {
            Ok(done) => {
                let begun = Instant::now();
                Ok(LentStep { place, leaving, inputs, shared, done, begun, priority, given_up })
            }
            Err(reason) => {
                self.queries[place].suspend(reason, cut.epoch);
                Err(Some(Delta::default()))
            }
        }
    }
}

impl FlowControl<'_> {
    /// Returns a query whose step over these rows may take long, and the queries that would leave the loop with it.
    pub(super) fn leaving_over(&self, place: usize, cut: &Cut, inputs: &[&Delta]) -> Option<Vec<usize>> {
        let query = &self.queries[place];
        let changed: usize = inputs.iter().map(|delta| delta.num_rows()).sum();
        let rows = changed
            + recomputed_rows(query, cut, inputs, |name| self.tables.content_rows(self.queries, name));
        let starts = self.durability.is_recovering();
        let forced = self.setup.execution.options.apart.is_some();
        let may = (if forced { starts } else { self.setup.settings.clock == ClockKind::System })
            && (forced || query.may_take_long(rows, cut) || may_index_many(query, inputs));
        if !may {
            return None;
        }
        let leaving = self.leaving_within_epoch(place)?;
        if starts && !self.may_lag_at_start(&leaving) {
            return None;
        }
        let wanted = self.wanted_at_present();
        // A correction of late rows is part of this epoch: the view's step must be, too.
        let stays =
            |query: &RunningQuery| wanted.contains(&query.name) || query.progress.epoch() == cut.epoch;
        (!leaving.iter().any(|place| stays(&self.queries[*place]))).then_some(leaving)
    }
}

/// True if a step over these inputs may delete rows of its result, and must index many rows first.
fn may_index_many(query: &RunningQuery, inputs: &[&Delta]) -> bool {
    let may_delete =
        || !query.flow.shareable().is_empty() || inputs.iter().any(|delta| !delta.is_append_only());
    query.result.rows.num_unindexed() > LARGE_ROWS && may_delete()
}
