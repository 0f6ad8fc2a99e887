//! The steps of lagging queries: their begin, their results, and the return to the loop.

use std::collections::BTreeSet;
use std::time::Instant;

use millstream_delta::{Cut, Delta, Epoch};
use millstream_sql::Result;

use super::groups::{is_held_back, next_through, stop_after};
use super::merging::merge_waiting;
use super::rebuild::rebuilt_some;
use super::{Done, GivenUp, Lag, Step, Work, hand_on_late_rows, hand_to_readers};
use crate::run::QuerySteps;
use crate::run::batches::{content_is_away, later_changes};
use crate::run::catch_up::begin_past_pieces;
use crate::run::contents::Bases;
use crate::run::into_table::IntoTable;
use crate::run::own_flow::Told;
use crate::run::queries::lagging_of;
use crate::run::query::Status;
use crate::run::sharing::Arranging;
use crate::run::sink::RunningSink;
use crate::run::subscription::DurableSubscription;

impl QuerySteps<'_> {
    /// Takes over the steps that threads have done.
    pub(in crate::run) fn take_steps(&mut self) {
        for place in 0..self.queries.len() {
            let Some((step, done)) = self.queries[place].status.lag_mut().and_then(Lag::done) else {
                continue;
            };
            match step.work {
                Work::Inputs(inputs) => {
                    self.take_step(place, done, (step.through, step.cut, inputs), step.begun);
                }
                Work::Rebuild => rebuilt_some(self.queries, self.clock.epoch, place, done),
                Work::Read(_) => {
                    let query = &mut self.queries[place];
                    match done {
                        Ok(done) => query.flow.take_back(done.flow, done.told),
                        Err(reason) => query.suspend(reason, query.progress.epoch()),
                    }
                }
            }
            self.queries.suspend_after(place, self.clock.epoch);
        }
        self.outputs.sinks.values_mut().for_each(RunningSink::take_awaited);
        self.outputs.subscriptions.durable.values_mut().for_each(DurableSubscription::take_awaited);
        self.go_on_rebuilding();
    }

    fn take_step(&mut self, place: usize, done: Result<Done>, of: (Epoch, Cut, Vec<Delta>), begun: Instant) {
        let query = &mut self.queries[place];
        query.last_step.begin();
        match done.and_then(|done| query.take_done(&of.1, done)) {
            Ok(delta) => {
                if let Some(lag) = query.status.lag_mut() {
                    (lag.through, lag.took) = (of.0, begun.elapsed());
                }
                self.hand_on(place, &of.1, delta);
            }
            Err(reason) => {
                let before = std::mem::replace(&mut query.status, Status::Running);
                query.suspend(reason, of.1.epoch);
                self.fail_lagging(place, before, of);
            }
        }
    }

    /// Passes the changes of a lagging query to all that read it: queries, which lag as well, and logs.
    pub(super) fn hand_on(&mut self, place: usize, cut: &Cut, delta: Delta) {
        self.measures.count_apart(self.queries[place].last_step.changed());
        hand_on_late_rows(self.queries, self.outputs, place, cut);
        if self.queries[place].into.is_some() {
            return self.intake().take_lagging(place, cut, delta);
        }
        let name = self.queries[place].name.clone();
        if delta.is_empty() {
            if self.queries[place].last_step.ended_batch() {
                self.outputs.log_empty_batch(&name, cut);
            }
            return;
        }
        hand_to_readers(self.queries, self.outputs, place, &name, cut, &delta);
    }

    /// Makes queries current that must be, or that have become quick. Returns true if there were some.
    pub(in crate::run) fn bring_back(&mut self) -> bool {
        if !self.queries.some_lag() {
            return false;
        }
        let wanted = self.flow_control().wanted_at_present();
        let mut some = false;
        for place in 0..self.queries.len() {
            let query = &self.queries[place];
            let Some(lag) = query.status.lag() else { continue };
            if self.tables.keep_lagging(query) {
                continue;
            }
            let idle = || !lag.is_away() && query.step_end(self.clock.epoch).is_none();
            let quick =
                query.last_step.speed().is_quick() && self.setup.execution.options.apart.is_none() && idle();
            let reads_present = lagging_of(self.queries, query.reads().cloned()).is_empty();
            let wanted = !self.setup.settings.may_leave(query) || wanted.contains(&query.name);
            // A read that has begun needs the whole group as of its epoch.
            let held = || is_held_back(self.queries, self.waiters, self.clock.epoch, place);
            let starts = self.durability.is_recovering();
            let wanted = (wanted && (lag.is_little_left() || starts))
                || (starts && lag.is_full_at_start())
                || (lag.returns_after_read() && !query.last_step.speed().is_slow());
            if (quick || wanted) && !lag.is_away() && reads_present && !held() {
                self.step_to_present(place);
                some = true;
            }
        }
        some
    }

    /// Takes in all changes that wait for a query, and returns it to the loop.
    pub(super) fn step_to_present(&mut self, place: usize) {
        while let Some(through) = self.queries[place]
            .status
            .lag()
            .map(|lag| stop_after(self.queries, &self.outputs.transactions, self.clock.epoch, place, lag))
        {
            self.step_here(place, through);
            if through == self.clock.epoch || self.queries[place].is_away() {
                break;
            }
        }
        let query = &self.queries[place];
        if query.status.lag().is_some() && !query.is_away() {
            self.queries[place].skip_missed(self.clock.epoch.next());
            self.queries[place].status = Status::Running;
            self.queries.share_or_suspend(
                Bases::new(self.tables, self.sources),
                self.clock.epoch,
                place,
                Arranging::Never,
            );
        }
        self.queries.suspend_after(place, self.clock.epoch);
    }

    /// Begins the steps of queries with waiting changes.
    pub(in crate::run) fn begin_steps(&mut self) {
        begin_past_pieces(
            self.queries,
            self.outputs,
            self.durability,
            &self.setup.settings,
            self.tasks,
            self.waiters,
            self.clock.epoch,
        );
        self.queries.forget_lumps();
        let held = self.flow_control().held_by_checkpoint();
        let wanted = if self.setup.execution.options.apart.is_some() {
            self.flow_control().wanted_at_present()
        } else {
            BTreeSet::new()
        };
        let (mut away, mut ready) = (0, Vec::new());
        for place in 0..self.queries.len() {
            let Some(lag) = self.queries[place].status.lag() else { continue };
            let query = &self.queries[place];
            if query.is_away() {
                // A table that gets changes in pieces needs no thread.
                away += usize::from(lag.is_away());
                continue;
            }
            let is_excluded = |into: &IntoTable| self.tables.reserved.excludes_sinks_into(&into.table);
            let holds_up = || {
                let into = query.into.as_ref();
                into.is_some_and(|into| {
                    self.durability.waits_for_statements(
                        self.queries,
                        self.tables,
                        self.sources,
                        &self.setup.settings,
                    ) || is_excluded(into)
                })
            };
            if held.is_some_and(|took_max| lag.took >= took_max) || holds_up() {
                continue;
            }
            let (from, through) = (
                lag.through,
                next_through(
                    self.queries,
                    &self.outputs.transactions,
                    self.waiters,
                    self.clock.epoch,
                    place,
                    lag,
                ),
            );
            let Some(end) = self.queries[place].step_end(through) else {
                self.queries[place].status.lag_mut().into_iter().for_each(|lag| lag.pass(through));
                continue;
            };
            let hurried = || {
                wanted.contains(&self.queries[place].name) || self.waiters.hurry(&self.queries[place].name)
            };
            if self.clock.epoch.0 - from.0 >= self.setup.execution.options.apart.unwrap_or(1) || hurried() {
                ready.push((from, place, end));
            }
        }
        merge_waiting(self.queries, &self.outputs.transactions, self.waiters);
        // The queries that lag most come first.
        ready.sort();
        let free = self.setup.settings.threads().get().saturating_sub(away);
        ready.into_iter().take(free).for_each(|(_, place, through)| self.begin_step(place, through));
    }

    fn begin_step(&mut self, place: usize, through: Epoch) {
        if content_is_away(self.queries, &self.queries[place]) {
            return;
        }
        let is_unread = self.outputs.is_unread(self.queries, self.waiters, place);
        self.queries[place].result.set_unread(is_unread);
        let query = &mut self.queries[place];
        let Some(lag) = query.status.lag_mut() else { return };
        let (from, in_order) = (lag.through, lag.is_in_order());
        let Some((cut, taken)) = lag.waiting.take(through) else { return };
        let own = lag.batches.remove(&through);
        query.skip_missed(through);
        let later = later_changes(query);
        let of = own.as_ref().unwrap_or(&cut);
        let contents = Bases::new(self.tables, self.sources).contents(self.queries).contents_to_lend(
            place,
            of,
            &taken.iter().collect::<Vec<_>>(),
            &later,
        );
        let query = &mut self.queries[place];
        let lent = contents.and_then(|contents| query.lend_step(of, (&taken, contents), in_order, Told::of));
        let step = match lent {
            Ok(step) => step,
            Err(reason) => {
                query.suspend(reason, cut.epoch);
                return self.queries.suspend_after(place, self.clock.epoch);
            }
        };
        let given_up = GivenUp::default();
        match self.tasks.on_a_thread(given_up.ends(step)) {
            Ok(done) => {
                if let Some(lag) = self.queries[place].status.lag_mut() {
                    let work = Work::Inputs(taken);
                    let begun = Instant::now();
                    lag.step = Some(Step { through, begun, cut, done, work, _given_up: given_up });
                }
                self.queries.note_lump(place, from, through);
            }
            Err(reason) => {
                self.queries[place].suspend(reason, cut.epoch);
                self.queries.suspend_after(place, self.clock.epoch);
            }
        }
    }
}
