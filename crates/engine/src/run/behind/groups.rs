//! Queries behind that go together: those that some query reads at once, directly or through others, and what reads them.
//!
//! What reads two relations must find both as of one epoch, and of a relation that was stepped over several epochs at
//! once, here a lump, nothing between the first and the last can be had. So all queries of a group stop where its newest
//! lump ends, and none goes on from there before all have come.

use std::collections::BTreeSet;
use std::time::Duration;

use millstream_delta::Epoch;

use super::Behind;
use crate::run::Loop;
use crate::run::query::RunningQuery;

/// A query whose last step took longer isn't stepped while a checkpoint is due.
const LONG_STEP: Duration = Duration::from_secs(1);

/// Whether an epoch lies within a lump.
pub(super) fn is_inside(lumps: &[(Epoch, Epoch)], epoch: Epoch) -> bool {
    lumps.iter().any(|(from, to)| *from < epoch && epoch < *to)
}

impl Loop {
    /// The places of all queries that are behind.
    pub(super) fn places_behind(&self) -> Vec<usize> {
        (0..self.queries.len()).filter(|place| self.queries[*place].behind().is_some()).collect()
    }

    /// The queries behind that go together with one, and itself.
    pub(super) fn going_with(&self, place: usize) -> BTreeSet<usize> {
        let behind = self.places_behind();
        let reads = |by: usize, of: usize| self.queries[by].reads_from(&self.queries[of].name);
        let (mut group, mut left) = (BTreeSet::from([place]), vec![place]);
        while let Some(place) = left.pop() {
            for other in &behind {
                if (reads(place, *other) || reads(*other, place)) && group.insert(*other) {
                    left.push(*other);
                }
            }
        }
        group
    }

    /// The lumps of a group.
    pub(super) fn lumps_of(&self, group: &BTreeSet<usize>) -> Vec<(Epoch, Epoch)> {
        let behind = group.iter().filter_map(|place| self.queries[*place].behind());
        behind.flat_map(|behind| behind.lumps.iter().copied()).collect()
    }

    /// Tells who reads a query that it takes several epochs at once.
    pub(super) fn note_lump(&mut self, place: usize, from: Epoch, to: Epoch) {
        // In order, the epochs in between change nothing.
        let in_order = self.queries[place].behind().is_some_and(Behind::is_in_order);
        if to.0 <= from.0 + 1 || in_order {
            return;
        }
        let name = self.queries[place].name.clone();
        for query in &mut self.queries[place + 1..] {
            if query.reads_from(&name)
                && let Some(behind) = query.behind_mut()
            {
                behind.lumps.push((from, to));
            }
        }
    }

    /// Forgets the lumps that all of a group are past.
    pub(super) fn forget_lumps(&mut self) {
        for place in 0..self.queries.len() {
            if self.queries[place].behind().is_none_or(|behind| behind.lumps.is_empty()) {
                continue;
            }
            let group = self.going_with(place);
            let behind = group.iter().filter_map(|place| self.queries[*place].behind());
            let least = behind.map(Behind::through).min().unwrap_or_default();
            if let Some(behind) = self.queries[place].behind_mut() {
                behind.lumps.retain(|(_, to)| *to > least);
            }
        }
    }

    /// Where a group stops for reads that have begun and for transactions: at the newest epoch where for none.
    pub(super) fn stop_of(&self, group: &BTreeSet<usize>) -> Epoch {
        let of = |place: &usize| {
            let query = &self.queries[*place];
            let reads = self.waiters.reads.iter().filter_map(|read| read.holds_at(&query.name));
            let transactions = query.behind().map(|behind| self.stop_after(*place, behind));
            reads.chain(transactions).min()
        };
        group.iter().filter_map(of).min().unwrap_or(self.epoch)
    }

    /// Whether a read that has begun keeps the group of a query at an epoch that isn't the newest.
    pub(super) fn is_held_back(&self, place: usize) -> bool {
        let group = self.going_with(place);
        let names = group.iter().map(|place| &self.queries[*place].name);
        let reads = |name| self.waiters.reads.iter().filter_map(move |read| read.holds_at(name));
        names.flat_map(reads).any(|epoch| epoch < self.epoch)
    }

    /// While a checkpoint waits for the ends of steps: how long the newest step of a query must have taken for it not to be
    /// stepped. As long as a long step is away those that are quick go on.
    pub(in crate::run) fn held_by_checkpoint(&self) -> Option<Duration> {
        // A step that begins beside a large statement would still be under way when that is over.
        if !self.checkpoint_waits_for_steps() && !self.checkpoint_waits_for_statements() {
            return None;
        }
        let steps = self.queries.iter().filter_map(RunningQuery::behind);
        let is_long = |behind: &Behind| {
            let step = behind.step.as_ref();
            step.is_some_and(|step| behind.took.max(step.begun.elapsed()) > LONG_STEP)
        };
        Some(if steps.into_iter().any(is_long) { LONG_STEP } else { Duration::ZERO })
    }
}
