//! The running queries, in the order of their creation. A query reads only queries before it.

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};
use std::time::Duration;

use millstream_delta::Epoch;
use millstream_flow::Arrangement;

use super::activity::Activity;
use super::dead_letters::late_for;
use super::lagging::Lag;
use super::query::RunningQuery;
use super::waiters::Waiters;
use crate::catalog::as_of;

/// The owner of all running queries: finds them, what they read of each other, and which of them lag or are suspended.
///
/// Its methods lie in the modules of their topics.
#[derive(Debug, Default)]
pub(super) struct Queries {
    pub(super) all: Vec<RunningQuery>,
    /// True during a RESUME that stages what sinks bring into tables for the next epoch.
    pub(super) stage_sinks: bool,
    /// True if each epoch of a query is part of its history.
    pub(super) keep_every_epoch: bool,
}

impl Deref for Queries {
    type Target = Vec<RunningQuery>;

    fn deref(&self) -> &Vec<RunningQuery> {
        &self.all
    }
}

impl DerefMut for Queries {
    fn deref_mut(&mut self) -> &mut Vec<RunningQuery> {
        &mut self.all
    }
}

impl<'a> IntoIterator for &'a Queries {
    type Item = &'a RunningQuery;
    type IntoIter = std::slice::Iter<'a, RunningQuery>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter()
    }
}

impl<'a> IntoIterator for &'a mut Queries {
    type Item = &'a mut RunningQuery;
    type IntoIter = std::slice::IterMut<'a, RunningQuery>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter_mut()
    }
}

/// The time for which the loop waits for steps in an epoch.
const WAIT: Duration = Duration::from_millis(500);

/// The owner of all running queries and of the rows that several of them look up: whoever leaves the loop, or joins it,
/// stops or starts sharing.
///
/// Its methods lie in the modules of their topics.
#[derive(Debug)]
pub(super) struct QueryGraph {
    /// The queries in the order of their creation, which is topological.
    pub(super) queries: Queries,
    /// Rows that several queries look up by the same key. The queries that read them keep them alive.
    pub(super) arrangements: Vec<Weak<Arrangement>>,
    /// The queries that have become current, and may have parts in common with others.
    pub(super) unmatched: Vec<Arc<str>>,
    /// True if queries are gone, so that parts may have lost their last reader.
    pub(super) some_left: bool,
    /// The time for which this epoch still waits for steps that may take long.
    pub(super) patience: Duration,
}

impl Default for QueryGraph {
    fn default() -> QueryGraph {
        QueryGraph {
            queries: Queries::default(),
            arrangements: Vec::new(),
            unmatched: Vec::new(),
            some_left: false,
            patience: WAIT,
        }
    }
}

impl QueryGraph {
    /// Begins an epoch, which waits for long steps anew.
    pub(super) fn begin_epoch(&mut self) {
        self.patience = WAIT;
    }

    /// Counts the work of operators since the last call.
    pub(super) fn report_work(&mut self, activity: &mut Activity) {
        for query in &mut self.queries.all {
            let name = &query.name;
            query.flow.report(|node, meter| activity.count(name, node, &meter));
        }
        let all = &self.queries.all;
        activity.forget_dropped(all.len(), |name| all.iter().any(|query| *query.name == *name));
    }
}

impl Deref for QueryGraph {
    type Target = Queries;

    fn deref(&self) -> &Queries {
        &self.queries
    }
}

impl DerefMut for QueryGraph {
    fn deref_mut(&mut self) -> &mut Queries {
        &mut self.queries
    }
}

/// Returns the queries among these relations, and among all that they are computed from.
pub(super) fn made_of(queries: &Queries, names: impl IntoIterator<Item = Arc<str>>) -> BTreeSet<Arc<str>> {
    let mut all = BTreeSet::new();
    let mut left: Vec<Arc<str>> = names.into_iter().collect();
    while let Some(name) = left.pop() {
        let Some(query) = queries.query(&name) else {
            left.extend(as_of(&name).map(|(relation, _)| Arc::from(relation)));
            let late = late_for(queries, &name);
            let late = late.iter().map(|place| queries[*place].name.clone());
            left.extend(late.filter(|query| !all.contains(query)));
            continue;
        };
        if all.insert(query.name.clone()) {
            left.extend(query.reads().cloned());
        }
    }
    all
}

/// Returns the lagging queries among these relations, and among all that they are computed from.
pub(super) fn lagging_of(queries: &Queries, names: impl IntoIterator<Item = Arc<str>>) -> Vec<Arc<str>> {
    if !queries.some_lag() {
        return Vec::new();
    }
    let is_lagging = |name: &Arc<str>| queries.query(name).is_some_and(|query| query.status.lag().is_some());
    made_of(queries, names).into_iter().filter(is_lagging).collect()
}

/// Returns the epoch that a relation's content is as of.
pub(super) fn content_epoch(queries: &Queries, epoch: Epoch, name: &str) -> Epoch {
    let query = queries.query(name);
    let late = late_for(queries, name);
    let lags = late.iter().map(|place| &queries[*place]).chain(query);
    lags.filter_map(|query| query.status.lag()).map(Lag::through).min().unwrap_or(epoch)
}

/// Returns the queries that must become current for events and corrections, which wait for a short time.
pub(super) fn wanted_by_events(queries: &Queries, waiters: &Waiters) -> BTreeSet<Arc<str>> {
    let for_events = waiters.deferred.iter().flat_map(|aside| aside.needs.iter().cloned());
    let corrected = queries.iter().filter(|query| query.correction.is_some());
    made_of(queries, for_events.chain(corrected.map(|query| query.name.clone())))
}
