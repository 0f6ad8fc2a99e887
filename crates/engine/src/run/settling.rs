//! Waiting until tables have the changes of lagging sinks.
//!
//! A lagging sink into a table applies its changes in a later epoch than the one that caused them. Readers of the
//! table, FLUSH, and the end of the engine wait until the table has the changes of the epoch that they find. Then comes
//! the next sink, which may read that table, and so on.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_delta::Epoch;

use super::clock::Clock;
use super::dead_letters::late_for;
use super::queries::Queries;
use super::query::RunningQuery;
use super::rename::Names;
use crate::catalog::as_of;

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

/// Returns the sinks into tables that these relations derive from, as of the newest epoch.
pub(super) fn settling_of(
    queries: &[RunningQuery],
    epoch: Epoch,
    names: impl IntoIterator<Item = Arc<str>>,
) -> Settling {
    if all_have_brought(queries, epoch) {
        return Settling { epoch, sinks: Vec::new() };
    }
    let (mut all, mut left) = (BTreeSet::new(), names.into_iter().collect::<Vec<_>>());
    while let Some(name) = left.pop() {
        let makes = |query: &&RunningQuery| {
            query.name == name || query.into.as_ref().is_some_and(|into| into.table == name)
        };
        for query in queries.iter().filter(makes) {
            if all.insert(query.name.clone()) {
                left.extend(query.reads().cloned());
            }
        }
        left.extend(as_of(&name).map(|(relation, _)| Arc::from(relation)));
        let late = late_for(queries, &name);
        let late = late.iter().map(|place| queries[*place].name.clone());
        left.extend(late.filter(|query| !all.contains(query)));
    }
    settling(queries, epoch, |query| all.contains(&query.name))
}

/// Returns all sinks into tables, as of the newest epoch.
pub(super) fn settling_all(queries: &[RunningQuery], epoch: Epoch) -> Settling {
    settling(queries, epoch, |_| true)
}

fn all_have_brought(queries: &[RunningQuery], epoch: Epoch) -> bool {
    let has = |query: &RunningQuery| {
        query.into.as_ref().is_none_or(|into| into.has_brought(epoch, query.status.lag()))
    };
    queries.iter().all(has)
}

/// True if nothing is left to wait for. While no epoch may begin, nobody waits.
pub(super) fn is_settled(queries: &Queries, clock: &Clock, epoch: Epoch, settling: &mut Settling) -> bool {
    if clock.held {
        return true;
    }
    let has_brought = |query: &RunningQuery, epoch| {
        query.into.as_ref().is_none_or(|into| into.has_brought(epoch, query.status.lag()))
    };
    while let Some(first) = settling.sinks.first() {
        if !queries.query(first).is_none_or(|query| has_brought(query, settling.epoch)) {
            return false;
        }
        settling.sinks.remove(0);
        // Readers of the table have its changes from the newest epoch on, at the latest.
        settling.epoch = epoch;
    }
    true
}

fn settling(queries: &[RunningQuery], epoch: Epoch, has: impl Fn(&RunningQuery) -> bool) -> Settling {
    let sinks = queries.iter().filter(|query| query.into.is_some() && has(query));
    Settling { epoch, sinks: sinks.map(|query| query.name.clone()).collect() }
}
