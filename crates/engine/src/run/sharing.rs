//! Rows that several queries look up by the same key, kept once for all of them.
//!
//! A query keeps the sides of its joins by itself until another one looks up the same rows of a relation by the
//! same key. From then on both read one arrangement, which lives as long as its last reader. A query shares only while
//! it is current: one that backfills, or is paused, has rows of another epoch.

use std::sync::{Arc, Weak};

use millstream_delta::{Delta, Epoch};
use millstream_flow::{Arrangement, By, needs_content, share_rows};
use millstream_sql::Result;

use super::contents::Bases;
use super::queries::{Queries, QueryGraph};
use super::query::RunningQuery;
use super::query_names::displayed_name;
use super::tables::BaseTables;
use crate::error;

/// The rows that a query looks up.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sought {
    relation: Arc<str>,
    /// The number of known columns: a reader that knows more can't use the rows of one that knows fewer.
    columns: usize,
    by: By,
}

/// The way to share rows if no query keeps all columns that the readers need.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Arranging {
    /// Arrange the content of the relation.
    Anew,
    /// Don't share. A query that returns to the loop would make it wait; the last reader that left kept all columns.
    Never,
}

impl QueryGraph {
    /// Makes a query that has become current share rows with others. Its next step may be its first, which gives it the
    /// content of its inputs.
    pub(super) fn share(
        &mut self,
        bases: Bases<'_>,
        epoch: Epoch,
        place: usize,
        arranging: Arranging,
    ) -> Result<()> {
        self.note_current(place);
        self.drop_own_rows(place);
        for sought in sought(&self.queries[place]) {
            let readers: Vec<(usize, usize)> = (0..self.queries.len())
                .filter(|other| {
                    *other == place || take_in_the_same(&self.queries, bases, place, *other, &sought.relation)
                })
                .filter_map(|other| Some((other, place_of(&self.queries[other], &sought)?)))
                .collect();
            if readers.len() < 2 {
                continue;
            }
            let flow = |(query, place): &(usize, usize)| Some((self.queries[*query].flow.here()?, *place));
            let flows: Vec<_> = readers.iter().filter_map(flow).collect();
            let content = match needs_content(&flows) {
                // A relation that isn't kept can't be arranged again: each query continues with its own columns.
                true if arranging == Arranging::Never
                    || !is_kept(&self.queries, bases.tables, &sought.relation) =>
                {
                    continue;
                }
                true => Some(Delta::from_iter(bases.contents(&self.queries).answered(&sought.relation)?)),
                false => None,
            };
            let mut next = readers.iter().peekable();
            let mut flows = Vec::with_capacity(readers.len());
            for (number, query) in self.queries.iter_mut().enumerate() {
                if let Some((_, place)) = next.next_if(|(reader, _)| *reader == number) {
                    flows.extend(query.flow.here_mut().map(|flow| (flow, *place)));
                }
            }
            share_rows(&mut flows, epoch.0, content.as_ref()).map_err(error::flow)?;
        }
        self.name_readers()
    }

    /// The same for a query that took in what it had missed; a failure suspends it.
    pub(super) fn share_or_suspend(
        &mut self,
        bases: Bases<'_>,
        epoch: Epoch,
        place: usize,
        arranging: Arranging,
    ) {
        if let Err(reason) = self.share(bases, epoch, place, arranging) {
            self.queries[place].suspend(reason, epoch);
        }
    }
}

impl QueryGraph {
    /// Sets the readers of each arrangement; the oldest reader accounts for its memory.
    pub(super) fn name_readers(&mut self) -> Result<()> {
        let mut all: Vec<(Arc<Arrangement>, Vec<Arc<str>>)> = Vec::new();
        let shown = |query| displayed_name(&self.queries, query).into();
        let names: Vec<Arc<str>> = self.queries.iter().map(shown).collect();
        for (query, name) in self.queries.iter_mut().zip(names) {
            let shared: Vec<(usize, Arc<Arrangement>)> = query
                .flow
                .shareable()
                .iter()
                .filter_map(|found| Some((found.place, found.shared?.clone())))
                .collect();
            for (place, arrangement) in shared {
                let known = all.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &arrangement));
                if let Some(flow) = query.flow.here_mut() {
                    flow.sharing().count(place, known.is_none()).map_err(error::flow)?;
                }
                match known {
                    Some((_, readers)) => readers.push(name.clone()),
                    None => all.push((arrangement, vec![name.clone()])),
                }
            }
        }
        self.arrangements = all.iter().map(|(arrangement, _)| Arc::downgrade(arrangement)).collect();
        all.into_iter().for_each(|(arrangement, readers)| arrangement.set_readers(readers));
        Ok(())
    }

    /// Merges the changes of an epoch into the shared rows, now that all readers have read them. A broken arrangement
    /// fails again for its next reader.
    pub(super) fn settle(&self, epoch: Epoch) {
        for arrangement in self.arrangements.iter().filter_map(Weak::upgrade) {
            if let Err(reason) = arrangement.settle(epoch.0) {
                tracing::warn!(reason = %reason, "an arrangement is broken");
            }
        }
    }

    /// Names the readers again after queries are gone: another query may have to account for shared rows.
    pub(super) fn readers_left(&mut self) {
        self.some_left = true;
        if let Err(reason) = self.name_readers() {
            tracing::warn!(reason = %reason, "the readers of an arrangement can't be named");
        }
    }

    /// Gives a query that is no longer current its own copy of the shared rows. `before`: within an epoch that some queries
    /// have stepped, a copy as of before the epoch.
    pub(super) fn unshare(&mut self, place: usize, before: bool) -> Result<()> {
        if !before {
            // The last reader takes the rows over. Queries that a thread stepped have been left out so far.
            self.name_readers()?;
        }
        let Some(flow) = self.queries[place].flow.here_mut() else { return Ok(()) };
        let shared: Vec<usize> =
            flow.shareable().iter().filter(|found| found.shared.is_some()).map(|found| found.place).collect();
        for place in shared {
            flow.sharing().unshare(place, before).map_err(error::flow)?;
        }
        self.name_readers()
    }

    /// Gives the readers of arrangements that a thread continues to read copies of their own. A reader of a broken
    /// arrangement fails in its next step.
    pub(super) fn fork_for_others(&mut self, lent: Vec<Arc<Arrangement>>) {
        for before in lent {
            let forked = before.fork_whole().map(Arc::new).and_then(|copy| {
                let mut flows = self.queries.iter_mut().filter_map(|query| query.flow.here_mut());
                flows.try_for_each(|flow| flow.sharing().read_instead(&before, &copy))
            });
            if let Err(reason) = forked {
                tracing::warn!(reason = %reason, "an arrangement can't be copied");
            }
        }
        self.readers_left();
    }
}

/// Returns true if two queries have taken in the same rows of a relation.
fn take_in_the_same(queries: &Queries, bases: Bases<'_>, one: usize, other: usize, relation: &str) -> bool {
    let (one, other) = (&queries[one], &queries[other]);
    other.status.is_running()
        && (can_be_read_again(queries, bases, relation) || one.progress.since() == other.progress.since())
}

/// Returns true if queries created at any time take in the same rows of a relation: the engine keeps them all, or reads
/// them again.
pub(super) fn can_be_read_again(queries: &Queries, bases: Bases<'_>, relation: &str) -> bool {
    is_kept(queries, bases.tables, relation)
        || bases.sources.get(relation).is_some_and(|source| source.is_replayable())
}

/// Returns the rows that a query looks up and may share.
fn sought(query: &RunningQuery) -> Vec<Sought> {
    if query.is_per_batch() {
        return Vec::new();
    }
    let shareable = query.flow.shareable().into_iter().filter_map(|found| {
        let feed = query.feeds.get(found.relation)?;
        let plain = feed.stamped.is_none() && feed.window.is_none();
        let columns = query.flow.columns_known(found.relation);
        plain.then(|| Sought { relation: feed.of.clone(), columns, by: found.by.clone() })
    });
    shareable.collect()
}

/// Returns true if the engine keeps all rows of a relation, for queries created at any time.
fn is_kept(queries: &Queries, tables: &BaseTables, relation: &str) -> bool {
    tables.contains_key(relation) || queries.query(relation).is_some_and(|query| query.result.shows_at_once())
}

/// Returns the place among a query's shareable parts at which it looks up these rows.
fn place_of(query: &RunningQuery, wanted: &Sought) -> Option<usize> {
    if !sought(query).contains(wanted) {
        return None;
    }
    let found = query.flow.shareable().into_iter().find(|found| {
        found.by == &wanted.by
            && query.flow.columns_known(found.relation) == wanted.columns
            && query.feeds.get(found.relation).is_some_and(|feed| feed.of == wanted.relation)
    });
    found.map(|found| found.place)
}
