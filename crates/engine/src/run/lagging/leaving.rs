//! Leaving the loop: when queries begin to lag, and which others lag with them.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_delta::{Cut, Delta, Epoch};
use millstream_flow::Cost;
use millstream_sql::Result;

use super::{LARGE_PAIRS, LARGE_ROWS, Lag, ROW_BYTES};
use crate::catalog::ALL_LATE_ROWS;
use crate::run::Departures;
use crate::run::batches::recomputed_rows;
use crate::run::dead_letters::{late_for, takes_from};
use crate::run::deltas::Deltas;
use crate::run::flow_control::FlowControl;
use crate::run::outputs::Outputs;
use crate::run::queries::{Queries, QueryGraph, made_of};
use crate::run::query::{RunningQuery, Status};
use crate::run::speed::Speed;
use crate::settings::{ClockKind, Settings};

impl Departures<'_> {
    /// Makes slow queries leave the loop if others wait for them.
    pub(in crate::run) fn let_leave(&mut self) {
        let forced = self.setup.execution.options.apart.is_some();
        let slow =
            |query: &RunningQuery| query.status.is_running() && (forced || query.last_step.speed().is_slow());
        let may = forced || self.setup.settings.clock == ClockKind::System;
        if !may || !self.queries.iter().any(slow) {
            return;
        }
        let wanted = self.flow_control().wanted_at_present();
        for place in 0..self.queries.len() {
            if !slow(&self.queries[place]) {
                continue;
            }
            let Some(leaving) = self.flow_control().leaving_with(place) else { continue };
            let stays = leaving.iter().any(|place| wanted.contains(&self.queries[*place].name));
            if !stays && (forced || others_wait(self.queries, self.outputs, &leaving)) {
                leaving.into_iter().for_each(|place| self.queries.leave(place, self.clock.epoch));
            }
        }
    }

    /// Makes queries leave the loop before an epoch in which statements change so much that others would wait. A thread
    /// of its own steps each over this change.
    pub(in crate::run) fn let_leave_before(
        &mut self,
        cut: &Cut,
        changes: &[(Arc<str>, Delta)],
        deltas: &Deltas,
    ) {
        if self.setup.settings.clock != ClockKind::System || self.setup.execution.options.apart.is_some() {
            return;
        }
        self.let_sinks_leave_before(cut, deltas);
        if changes.is_empty() {
            return;
        }
        let dear = |query: &RunningQuery| query.flow.cost() == Cost::Pairs;
        let most = changes.iter().map(|(_, delta)| delta.num_rows()).max().unwrap_or(0);
        if most <= LARGE_ROWS && !self.queries.iter().any(dear) {
            return;
        }
        let is_large = |query: &RunningQuery| {
            let of = |(name, delta): &(Arc<str>, Delta)| query.reads_from(name).then(|| delta.num_rows());
            let rows: usize = changes.iter().filter_map(of).sum();
            let pairs = || rows.saturating_mul(query.flow.state_bytes() / ROW_BYTES);
            rows > LARGE_ROWS || (rows > 0 && dear(query) && pairs() > LARGE_PAIRS)
        };
        let wanted = self.flow_control().wanted_at_present();
        for place in 0..self.queries.len() {
            if !self.queries[place].status.is_running() || !is_large(&self.queries[place]) {
                continue;
            }
            let Some(leaving) = self.flow_control().leaving_with(place) else { continue };
            // A correction of late rows is part of this epoch: the view's step must be, too.
            let stays = |query: &RunningQuery| {
                wanted.contains(&query.name) || changes.iter().any(|(name, _)| *name == query.name)
            };
            if !leaving.iter().any(|place| stays(&self.queries[*place])) {
                let before = self.clock.epoch.previous();
                leaving.into_iter().for_each(|place| self.queries.leave(place, before));
            }
        }
    }

    /// Makes sinks into tables leave before an epoch over which they, or queries that they read, may take long. Within
    /// the epoch none of these can leave.
    fn let_sinks_leave_before(&mut self, cut: &Cut, deltas: &Deltas) {
        let feeds =
            |place: &usize| self.queries[*place].status.is_running() && self.queries[*place].into.is_some();
        let sinks: Vec<usize> = (0..self.queries.len()).filter(feeds).collect();
        for place in sinks {
            let above = made_of(self.queries, [self.queries[place].name.clone()]);
            let above = || above.iter().filter_map(|name| self.queries.query(name));
            let read: BTreeSet<&Arc<str>> = above().flat_map(RunningQuery::reads).collect();
            let rows: usize = read.iter().filter_map(|name| deltas.get(*name)).map(Delta::num_rows).sum();
            let recomputed = |query: &RunningQuery| {
                let inputs = query.inputs(|name| deltas.get(name));
                recomputed_rows(query, cut, &inputs, |name| self.tables.content_rows(self.queries, name))
            };
            let takes_long = |query: &RunningQuery| {
                query.status.is_running() && query.may_take_long(rows + recomputed(query), cut)
            };
            if (above().any(takes_long) || (rows > 0 && self.tables.may_index_for(&self.queries[place])))
                && let Some(leaving) = self.flow_control().leaving_with(place)
                && !leaving
                    .iter()
                    .any(|place| self.flow_control().wanted_at_present().contains(&self.queries[*place].name))
            {
                let before = cut.epoch.previous();
                leaving.into_iter().for_each(|place| self.queries.leave(place, before));
            }
        }
    }
}

impl FlowControl<'_> {
    /// Returns the queries that leave with one within an epoch. None with sinks: their changes are part of the epoch.
    pub(in crate::run) fn leaving_within_epoch(&self, place: usize) -> Option<Vec<usize>> {
        let brings =
            |place: &usize| self.queries[*place].into.is_some() && self.queries[*place].status.is_running();
        self.leaving_with(place).filter(|leaving| !leaving.iter().any(brings))
    }

    /// Returns a query and all that read it. None if one of these must be stepped in each epoch.
    pub(in crate::run) fn leaving_with(&self, place: usize) -> Option<Vec<usize>> {
        let mut leaving = vec![place];
        for (later, query) in self.queries.iter().enumerate().skip(place + 1) {
            if query.status.is_suspended() || !leaving.iter().any(|of| takes_from(self.queries, later, *of)) {
                continue;
            }
            if !self.setup.settings.may_leave(query) || query.status.is_starting() {
                return None;
            }
            leaving.push(later);
        }
        // Lagging queries would add to that log out of order.
        let late_rows_logged = self.outputs.is_read(self.queries, ALL_LATE_ROWS)
            && late_for(self.queries, ALL_LATE_ROWS).iter().any(|place| leaving.contains(place));
        (self.setup.settings.may_leave(&self.queries[place]) && !late_rows_logged).then_some(leaving)
    }
}

impl QueryGraph {
    /// Makes a query leave the loop that has taken in all epochs up to `epoch`.
    pub(in crate::run) fn leave(&mut self, place: usize, epoch: Epoch) {
        if self.queries[place].status.is_running() {
            let unshared = self.unshare(place, false);
            self.queries[place].flow.tell();
            self.queries.left(place, epoch, unshared);
        }
    }

    /// The same within the epoch after `epoch`.
    pub(in crate::run) fn leave_before(&mut self, place: usize, epoch: Epoch) {
        if self.queries[place].status.is_running() {
            let unshared = self.unshare(place, true);
            self.queries[place].flow.tell();
            self.queries.left(place, epoch, unshared);
        }
    }
}

impl Settings {
    /// True if sinks into tables may lag: epochs come by themselves.
    pub(in crate::run) fn may_lag(&self) -> bool {
        self.clock == ClockKind::System
    }

    /// True if a query can be stepped apart from the loop.
    pub(super) fn may_leave(&self, query: &RunningQuery) -> bool {
        query.into.is_none() || self.may_lag()
    }
}

impl Queries {
    pub(super) fn left(&mut self, place: usize, epoch: Epoch, unshared: Result<()>) {
        let in_order = self.is_stepped_in_order(place);
        let query = &mut self.all[place];
        query.last_step.set_speed(Speed::default());
        if let Some(into) = &mut query.into {
            into.staged = Some(epoch);
        }
        match unshared {
            Ok(()) => query.status = Status::Lagging(Box::new(Lag::new(epoch).in_order(in_order))),
            Err(reason) => query.suspend(reason, epoch),
        }
    }
}

/// True if something other than these queries continues sooner without them.
fn others_wait(queries: &[RunningQuery], outputs: &Outputs, leaving: &[usize]) -> bool {
    let names: BTreeSet<&Arc<str>> = leaving.iter().map(|place| &queries[*place].name).collect();
    let steps = |query: &RunningQuery| query.status.is_running() || query.status.lag().is_some();
    let queries = queries.iter().filter(|query| steps(query)).map(|query| &query.name);
    let sinks = outputs.sinks.values().map(|sink| &sink.from);
    let subscribed = outputs.subscriptions.values().map(|subscription| subscription.follows());
    queries.chain(sinks).chain(subscribed).any(|name| !names.contains(name))
}
