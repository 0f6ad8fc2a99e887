//! Waiting until tables have the changes of lagging sinks.
//!
//! A lagging sink into a table applies its changes in a later epoch than the one that caused them. Readers of the
//! table, FLUSH, and the end of the engine wait until the table has the changes of the epoch that they find. Then comes
//! the next sink, which may read that table, and so on.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_delta::Epoch;

use super::Loop;
use super::dead_letters::late_for;
use super::query::RunningQuery;
use super::rename::Names;

/// The sinks into tables that a reader waits for.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    /// The epoch whose changes the tables must have.
    epoch: Epoch,
    /// The queries of the remaining sinks, in topological order.
    sinks: Vec<Arc<str>>,
}

impl Settling {
    /// Returns the newest epoch that was waited for.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sinks.is_empty()
    }

    /// Renames relations.
    pub(super) fn rename(&mut self, names: &Names) {
        names.put_all(&mut self.sinks);
    }
}

impl Loop {
    /// Returns the sinks into tables that these relations derive from, as of the newest epoch.
    pub(super) fn settling_of(&self, names: impl IntoIterator<Item = Arc<str>>) -> Settling {
        if self.all_have_brought() {
            return Settling { epoch: self.epoch, sinks: Vec::new() };
        }
        let (mut all, mut left) = (BTreeSet::new(), names.into_iter().collect::<Vec<_>>());
        while let Some(name) = left.pop() {
            let makes = |query: &&RunningQuery| {
                query.name == name || query.into.as_ref().is_some_and(|into| into.table == name)
            };
            for query in self.queries.iter().filter(makes) {
                if all.insert(query.name.clone()) {
                    left.extend(query.reads().cloned());
                }
            }
            let late = late_for(&self.queries, &name);
            let late = late.iter().map(|place| self.queries[*place].name.clone());
            left.extend(late.filter(|query| !all.contains(query)));
        }
        self.settling(|query| all.contains(&query.name))
    }

    /// Returns all sinks into tables, as of the newest epoch.
    pub(super) fn settling_all(&self) -> Settling {
        self.settling(|_| true)
    }

    fn settling(&self, has: impl Fn(&RunningQuery) -> bool) -> Settling {
        let sinks = self.queries.iter().filter(|query| query.into.is_some() && has(query));
        Settling { epoch: self.epoch, sinks: sinks.map(|query| query.name.clone()).collect() }
    }

    fn all_have_brought(&self) -> bool {
        let has = |query: &RunningQuery| {
            query.into.as_ref().is_none_or(|into| into.has_brought(self.epoch, query.behind()))
        };
        self.queries.iter().all(has)
    }

    /// True if nothing is left to wait for. While no epoch may begin, nobody waits.
    pub(super) fn is_settled(&self, settling: &mut Settling) -> bool {
        if self.clock.held {
            return true;
        }
        let has_brought = |query: &RunningQuery, epoch| {
            query.into.as_ref().is_none_or(|into| into.has_brought(epoch, query.behind()))
        };
        while let Some(first) = settling.sinks.first() {
            if !self.queries.query(first).is_none_or(|query| has_brought(query, settling.epoch)) {
                return false;
            }
            settling.sinks.remove(0);
            // Readers of the table have its changes from the newest epoch on, at the latest.
            settling.epoch = self.epoch;
        }
        true
    }
}
