//! Groups of lagging queries: queries that share a reader, directly or through others, and their readers.
//!
//! A query over two relations must read both as of one epoch. A relation that was stepped over several epochs at once,
//! here a lump, has no content for an epoch in between. So all queries of a group stop at the end of its newest lump,
//! and none continues before all have arrived there.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use millstream_delta::Epoch;

use super::{Lag, Step, Work};
use crate::run::dead_letters::takes_from;
use crate::run::flow_control::FlowControl;
use crate::run::queries::{Queries, content_epoch};
use crate::run::query::RunningQuery;
use crate::run::transactions::Transactions;
use crate::run::waiters::Waiters;

/// While a checkpoint is due, a query whose last step took longer is not stepped.
const LONG_STEP: Duration = Duration::from_secs(1);

/// Returns true if an epoch lies within a lump.
pub(super) fn is_inside(lumps: &[(Epoch, Epoch)], epoch: Epoch) -> bool {
    lumps.iter().any(|(from, to)| *from < epoch && epoch < *to)
}

impl FlowControl<'_> {
    /// While a checkpoint waits for steps to end, returns the duration from which on a query is not stepped, by its
    /// newest step. Quick queries continue as long as a long step is under way.
    pub(in crate::run) fn held_by_checkpoint(&self) -> Option<Duration> {
        // A step that begins beside a large statement would still be under way after it.
        if !self.checkpoint_waits_for_steps()
            && !self.durability.waits_for_statements(
                self.queries,
                self.tables,
                self.sources,
                &self.setup.settings,
            )
        {
            return None;
        }
        let is_long = |lag: &Lag| lag.step.as_ref().is_some_and(|step| step.is_long(lag.took));
        let mut steps = self.queries.iter().filter_map(|query| query.status.lag());
        Some(if steps.any(is_long) { LONG_STEP } else { Duration::ZERO })
    }

    /// Returns something if a read on a thread would postpone a checkpoint: the time at which it no longer would, if
    /// known. Beside a long step or a large statement it would not, since no other one of these begins. Beside another
    /// read it would: a stream of reads would postpone it for ever.
    pub(in crate::run) fn reads_wait(&self) -> Option<Option<Instant>> {
        let lags = self.queries.iter().filter_map(|query| query.status.lag());
        let steps = lags.filter_map(|lag| Some((lag.step.as_ref()?, lag.took)));
        let steps: Vec<_> = steps.filter(|(step, _)| !step.is_read()).collect();
        let waits = self.held_by_checkpoint().is_some()
            && self.tables.applied.is_empty()
            && !steps.iter().any(|(step, before)| step.is_long(*before));
        waits.then(|| steps.iter().map(|(step, _)| step.begun + LONG_STEP).min())
    }
}

impl Step {
    /// True if it takes long by now, or if the one before, which took `before`, did.
    fn is_long(&self, before: Duration) -> bool {
        before.max(self.begun.elapsed()) > LONG_STEP
    }

    pub(super) fn is_read(&self) -> bool {
        matches!(self.work, Work::Read(_))
    }
}

impl Queries {
    /// Returns the places of all lagging queries.
    pub(super) fn lagging_places(&self) -> Vec<usize> {
        (0..self.all.len()).filter(|place| self.all[*place].status.lag().is_some()).collect()
    }

    /// Returns the group of a lagging query, itself included.
    pub(super) fn going_with(&self, place: usize) -> BTreeSet<usize> {
        let lagging = self.lagging_places();
        let reads = |by: usize, of: usize| takes_from(self, by, of);
        let (mut group, mut left) = (BTreeSet::from([place]), vec![place]);
        while let Some(place) = left.pop() {
            for other in &lagging {
                if (reads(place, *other) || reads(*other, place)) && group.insert(*other) {
                    left.push(*other);
                }
            }
        }
        group
    }

    pub(super) fn lumps_of(&self, group: &BTreeSet<usize>) -> Vec<(Epoch, Epoch)> {
        let lags = group.iter().filter_map(|place| self.all[*place].status.lag());
        lags.flat_map(|lag| lag.lumps.iter().copied()).collect()
    }

    /// Tells the readers of a query that it takes several epochs at once.
    pub(super) fn note_lump(&mut self, place: usize, from: Epoch, to: Epoch) {
        // In order, the epochs in between change nothing.
        let in_order = self.all[place].status.lag().is_some_and(Lag::is_in_order);
        if to.0 <= from.0 + 1 || in_order {
            return;
        }
        for later in place + 1..self.all.len() {
            if takes_from(self, later, place)
                && let Some(lag) = self.all[later].status.lag_mut()
            {
                lag.lumps.push((from, to));
            }
        }
    }

    /// Removes the lumps that all queries of a group have passed.
    pub(super) fn forget_lumps(&mut self) {
        for place in 0..self.all.len() {
            if self.all[place].status.lag().is_none_or(|lag| lag.lumps.is_empty()) {
                continue;
            }
            let group = self.going_with(place);
            let lags = group.iter().filter_map(|place| self.all[*place].status.lag());
            let least = lags.map(Lag::through).min().unwrap_or_default();
            if let Some(lag) = self.all[place].status.lag_mut() {
                lag.lumps.retain(|(_, to)| *to > least);
            }
        }
    }
}

/// Returns the epoch where a group stops for reads that have begun and for transactions; without any, the newest
/// epoch.
pub(super) fn stop_of(
    queries: &[RunningQuery],
    transactions: &Transactions,
    waiters: &Waiters,
    epoch: Epoch,
    group: &BTreeSet<usize>,
) -> Epoch {
    let of = |place: &usize| {
        let query = &queries[*place];
        let reads = waiters.reads.iter().filter_map(|read| read.holds_at(&query.name));
        let transactions =
            query.status.lag().map(|lag| stop_after(queries, transactions, epoch, *place, lag));
        reads.chain(transactions).min()
    };
    group.iter().filter_map(of).min().unwrap_or(epoch)
}

/// Returns true if a read that has begun holds the group of a query at an older epoch.
pub(super) fn is_held_back(queries: &Queries, waiters: &Waiters, epoch: Epoch, place: usize) -> bool {
    let group = queries.going_with(place);
    let names = group.iter().map(|place| &queries[*place].name);
    let reads = |name| waiters.reads.iter().filter_map(move |read| read.holds_at(name));
    names.flat_map(reads).any(|held_at| held_at < epoch)
}

/// Returns the last epoch that a query's next step may reach. Transactions need its result as of their beginning.
pub(in crate::run) fn stop_after(
    queries: &[RunningQuery],
    transactions: &Transactions,
    epoch: Epoch,
    place: usize,
    lag: &Lag,
) -> Epoch {
    let name = &queries[place].name;
    let begun = transactions.values().filter_map(|open| open.begun_with(name));
    begun.filter(|epoch| *epoch > lag.through).chain([epoch]).min().unwrap_or(epoch)
}

/// Returns the last epoch that the next step of a lagging query can reach; its present epoch if it must wait.
pub(in crate::run) fn next_through(
    queries: &Queries,
    transactions: &Transactions,
    waiters: &Waiters,
    epoch: Epoch,
    place: usize,
    lag: &Lag,
) -> Epoch {
    let group = queries.going_with(place);
    let lumps = queries.lumps_of(&group);
    let meeting = lumps.iter().map(|(_, to)| *to).max().unwrap_or_default();
    let stop = stop_of(queries, transactions, waiters, epoch, &group);
    let all_have_met =
        group.iter().filter_map(|place| queries[*place].status.lag()).all(|one| one.through >= meeting);
    let can_stop = || lag.through < stop && stop < meeting && !is_inside(&lumps, stop);
    let next = if all_have_met || can_stop() { stop } else { meeting };
    let inputs = queries[place].reads().map(|name| content_epoch(queries, epoch, name));
    let inputs_through = inputs.min().unwrap_or(epoch);
    match next.min(inputs_through) {
        all if all == next => next.max(lag.through),
        // In order, a query follows slow inputs as far as they have come.
        some if lag.is_in_order() && !is_inside(&lumps, some) => some.max(lag.through),
        _ => lag.through,
    }
}
