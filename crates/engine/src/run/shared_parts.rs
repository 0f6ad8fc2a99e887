//! Parts that several queries have in common, each maintained once.
//!
//! When a query has become current, the loop looks for operators that it has in common with another query
//! ([`CommonPart`]). Such a part becomes a query of its own, with the state that one of both has had; the other drops its
//! own. From then on both read the part's changes, as they would read those of a view. So whatever a query may do by
//! itself (lag, be paused, fail, be dropped) it does without regard to the others. A part ends with its last reader.
//!
//! No statement can name a part: it belongs to its oldest reader in system tables, and its errors are those of all
//! readers. A checkpoint says where each reader was divided (`save`), since a start makes the queries from their
//! statements.
//!
//! A query shares only over relations whose rows can be read again, so that it can be altered, or rebuilt after it was
//! suspended, without the part.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millstream_flow::{CommonPart, Divided, Explained, Flow, Sharer, part_hashes};
use millstream_sql::{Error, Kind, Result};
use millstream_state::Tables;

use super::catalog_changes::CatalogChanges;
use super::contents::Bases;
use super::feed::Feed;
use super::outputs::Outputs;
use super::own_flow::OwnFlow;
use super::queries::{Queries, QueryGraph};
use super::query::errors::FirstError;
use super::query::role::PartRead;
use super::query::{Keep, Lowered, ResultRows, RunningQuery, Status};
use super::query_names::displayed_name;
use super::sharing::{is_kept, take_in_the_same};
use super::tables::BaseTables;
use crate::error;
use crate::settings::OnError;

/// The beginning of the names of parts.
const PART: &str = "\0shared part ";

/// The smallest part that a query has in common with another one.
struct Found {
    other: usize,
    part: CommonPart,
}

/// The parts that queries read, and the readers of each. A part counts with its readers in all that users see.
#[derive(Clone, Copy)]
pub(super) struct SharedParts<'a> {
    queries: &'a Queries,
}

fn is_part(name: &str) -> bool {
    name.starts_with(PART)
}

/// Returns true if parts of a query may be maintained for others as well.
fn may_share(query: &RunningQuery) -> bool {
    query.status.is_running()
        && !query.is_per_batch()
        && !query.role.is_temporary()
        && query.role.owner().is_none()
        && query.correction.is_none()
        && query.result.errors.count() == 0
        && query.feeds.iter().all(Feed::is_plain)
}

/// Returns the flow of a query, to look for parts that it has in common with others.
fn sharer(query: &RunningQuery) -> Option<Sharer<'_>> {
    let holds_result = matches!(query.result.rows, ResultRows::Operators);
    Some(Sharer { flow: query.flow.here()?, holds_result, is_part: query.role.is_part() })
}

/// Divides the flow of a query at an operator. Returns the part; from now on the query reads that under this name.
fn divide(query: &mut RunningQuery, node: usize, name: &Arc<str>) -> Result<Flow> {
    let flow = query.flow.lend().ok_or_else(|| Error::bug("a query that is elsewhere is divided"))?;
    let Divided { part, rest } = Divided::of(flow, node, name.clone()).map_err(error::flow)?;
    query.feeds = feeds_of(&rest);
    query.flow = OwnFlow::new(rest)?;
    query.role.read_part(PartRead { node, name: name.clone() });
    Ok(part)
}

/// Returns the feeds of a flow that takes the changes of all its relations as they arrive.
fn feeds_of(flow: &Flow) -> Vec<Feed> {
    let feed = |(place, name): (usize, &Arc<str>)| Feed {
        of: name.clone(),
        stamped: None,
        columns: flow.inputs().columns_read(place),
        window: None,
    };
    flow.relations().iter().enumerate().map(feed).collect()
}

/// Returns the query that maintains a part.
fn query_of_part(name: Arc<str>, flow: Flow) -> Result<RunningQuery> {
    let feeds = feeds_of(&flow);
    // Its readers decide by their own settings if an error fails them.
    let mut query =
        RunningQuery::new(name, Lowered { flow, feeds, batches: None }, Keep::Nothing, OnError::Fail)?;
    query.status = Status::Running;
    query.role.make_part();
    Ok(query)
}

impl QueryGraph {
    /// Notes that a query has become current: it may have parts in common with others.
    pub(super) fn note_current(&mut self, place: usize) {
        let name = &self.queries[place].name;
        if !self.unmatched.contains(name) {
            self.unmatched.push(name.clone());
        }
    }

    /// Lets queries that have become current read the parts that they have in common with others. Returns true if the
    /// queries have changed.
    pub(super) fn share_parts(&mut self, bases: Bases<'_>) -> bool {
        let mut changed = false;
        while let Some(name) = self.unmatched.pop() {
            while let Some(place) = self.queries.iter().position(|query| query.name == name)
                && let Some(found) = self.find_part(bases, place)
            {
                changed = true;
                if let Err(reason) = self.share_part(place, &found) {
                    tracing::error!(query = %name, %reason, "a part of a query can't be shared");
                    break;
                }
            }
        }
        if changed {
            self.readers_left();
        }
        changed
    }

    /// Returns the smallest part that a query has in common with another, of equal ones that of an existing part. So what
    /// is below a part is a part already, and no part has to be divided.
    fn find_part(&self, bases: Bases<'_>, place: usize) -> Option<Found> {
        let query = Some(&self.queries[place]).filter(|query| may_share(query) && !query.role.is_part())?;
        let own = sharer(query)?;
        let hashes = part_hashes(own.flow);
        let others = self.queries.iter().enumerate().filter(|(other, query)| {
            let is_alike = |flow: &Flow| part_hashes(flow).iter().any(|hash| hashes.contains(hash));
            *other != place && may_share(query) && query.flow.here().is_some_and(is_alike)
        });
        let found = others.filter_map(|(other, query)| {
            let part = CommonPart::of(own, sharer(query)?)?;
            let is_same = |relation: &Arc<str>| {
                is_part(relation)
                    || (can_be_read_again(&self.queries, bases, relation)
                        && take_in_the_same(&self.queries, bases, place, other, relation))
            };
            part.relations_of(own.flow).iter().all(is_same).then_some(Found { other, part })
        });
        found.min_by_key(|found| (found.part.nodes, !self.queries[found.other].role.is_part()))
    }

    /// Makes a query of a part, unless it is one already, and lets both queries read it.
    fn share_part(&mut self, place: usize, found: &Found) -> Result<()> {
        let Found { other, part } = found;
        if self.queries[*other].role.is_part() {
            let name = self.queries[*other].name.clone();
            drop(divide(&mut self.queries[place], part.one, &name)?);
            if place < *other {
                // What the part reads, the reader has read as well, so it is before both.
                let part = self.queries.remove(*other);
                self.queries.insert(place, part);
            }
            return Ok(());
        }
        let name = self.new_part_name();
        let flow = divide(&mut self.queries[place], part.one, &name)?;
        drop(divide(&mut self.queries[*other], part.other, &name)?);
        let mut query = query_of_part(name, flow)?;
        query.progress.take_over(self.queries[place].progress.epoch());
        self.queries.insert(place.min(*other), query);
        Ok(())
    }

    fn new_part_name(&self) -> Arc<str> {
        let numbers = self.queries.iter().filter_map(|query| query.name.strip_prefix(PART)?.parse().ok());
        let last: u64 = numbers.max().unwrap_or(0);
        format!("{PART}{}", last + 1).into()
    }

    /// Drops the parts that no query reads any more. Returns true if there were any.
    pub(super) fn drop_unread_parts(&mut self, outputs: &mut Outputs) -> bool {
        let mut dropped = false;
        loop {
            let read: BTreeSet<Arc<str>> =
                self.queries.iter().flat_map(RunningQuery::reads).cloned().collect();
            let is_unread = |query: &RunningQuery| query.role.is_part() && !read.contains(&query.name);
            let Some(place) = self.queries.iter().position(is_unread) else { break };
            let query = self.queries.remove(place);
            outputs.logs.remove(&query.name);
            dropped = true;
        }
        if dropped {
            self.readers_left();
        }
        dropped
    }
}

impl CatalogChanges<'_> {
    /// Lets current queries read the parts that they have in common, and drops parts without readers.
    pub(super) fn share_parts(&mut self) {
        let mut changed = self.queries.drop_unread_parts(self.outputs);
        let is_on = self.setup.execution.options.share_parts;
        // A start repeats what happened, one by one; history has each query's own epochs.
        let waits = self.durability.is_recovering() || self.waiters.replay.is_some();
        if !is_on || self.setup.settings.keeps_history() {
            self.queries.unmatched.clear();
        } else if !waits {
            changed |= self.queries.share_parts(Bases::new(self.tables, self.sources));
        }
        if changed {
            self.sources.mark_used(self.measures, self.queries, self.tables, self.outputs);
        }
    }
}

/// Returns true if all rows of a relation can be read again at any time.
fn can_be_read_again(queries: &Queries, bases: Bases<'_>, relation: &str) -> bool {
    let tables: &BaseTables = bases.tables;
    is_kept(queries, tables, relation)
        || bases.sources.get(relation).is_some_and(|source| source.is_replayable())
}

impl<'a> SharedParts<'a> {
    /// Returns the parts of these queries.
    pub(super) fn of(queries: &'a Queries) -> SharedParts<'a> {
        SharedParts { queries }
    }

    /// Returns the parts that a query reads, directly or through others.
    pub(super) fn parts_of(self, query: &'a RunningQuery) -> Vec<&'a RunningQuery> {
        let mut all: Vec<&RunningQuery> = Vec::new();
        let mut left = vec![query];
        while let Some(query) = left.pop() {
            for part in query.role.parts().iter().filter_map(|read| self.queries.query(&read.name)) {
                if !all.iter().any(|known| known.name == part.name) {
                    all.push(part);
                    left.push(part);
                }
            }
        }
        all
    }

    /// Returns the queries that read a part, directly or through others, in their order.
    pub(super) fn readers_of(self, part: &RunningQuery) -> Vec<&'a RunningQuery> {
        let mut names = BTreeSet::from([part.name.clone()]);
        let mut readers = Vec::new();
        for query in self.queries {
            if query.reads().any(|name| names.contains(name)) {
                match query.role.is_part() {
                    true => drop(names.insert(query.name.clone())),
                    false => readers.push(query),
                }
            }
        }
        readers
    }

    /// Returns the relations that a query and its parts read, and their columns with those of a batch if they are read.
    pub(super) fn base_feeds(self, query: &'a RunningQuery) -> Vec<(Arc<str>, Option<SchemaRef>)> {
        let parts = self.parts_of(query);
        let all = std::iter::once(query).chain(parts).flat_map(|query| &query.feeds);
        let mut feeds: Vec<(Arc<str>, Option<SchemaRef>)> = Vec::new();
        for feed in all.filter(|feed| !is_part(&feed.of)) {
            if !feeds.iter().any(|(of, _)| *of == feed.of) {
                feeds.push((feed.of.clone(), feed.stamped.clone()));
            }
        }
        feeds
    }

    /// Returns the number of errors of a query and its parts.
    pub(super) fn error_count(self, query: &'a RunningQuery) -> usize {
        let parts = self.parts_of(query);
        query.result.errors.count() + parts.iter().map(|part| part.result.errors.count()).sum::<usize>()
    }

    /// Returns the first error of a query, or of one of its parts.
    pub(super) fn first_error(self, query: &'a RunningQuery) -> Option<FirstError> {
        let of_parts = || self.parts_of(query).into_iter().find_map(|part| part.result.errors.first());
        query.result.errors.first().or_else(of_parts)
    }

    /// Returns the operators of a query from the root down, those of its parts in their places.
    pub(super) fn operators_of(self, query: &'a RunningQuery) -> Vec<Explained> {
        let mut all = Vec::new();
        for operator in query.operators() {
            let part = operator.title.strip_prefix("Input ").filter(|name| is_part(name));
            let Some(part) = part.and_then(|name| self.queries.query(name)) else {
                all.push(operator);
                continue;
            };
            let of_part = self.operators_of(part);
            let readers = self.readers_of(part);
            for (number, mut below) in of_part.into_iter().enumerate() {
                below.place.depth += operator.place.depth;
                below.place.repeated |= operator.place.repeated;
                if number == 0 {
                    let names = readers.iter().map(|reader| displayed_name(self.queries, reader).into());
                    below.state.kept_once_for = names.collect();
                }
                all.push(below);
            }
        }
        all
    }

    /// Saves the places where queries were divided.
    pub(super) fn save(self, state: &mut Tables) {
        let reads =
            self.queries.iter().flat_map(|query| query.role.parts().iter().map(move |read| (query, read)));
        for (number, (query, read)) in reads.enumerate() {
            state.put_text_if(&format!("part{number}.of"), Some(&query.name));
            state.put_text_if(&format!("part{number}.name"), Some(&read.name));
            state.put_number(&format!("part{number}.node"), read.node as i64);
        }
    }
}

/// Divides queries as they were saved.
pub(super) fn load_parts(queries: &mut Queries, state: &mut Tables) -> Result<()> {
    for number in 0.. {
        let Some(of) = state.take_text_if(&format!("part{number}.of")) else { break };
        let name: Arc<str> = state.take_text_if(&format!("part{number}.name")).unwrap_or_default().into();
        let node = state.take_number(&format!("part{number}.node")).map_err(error::state)?;
        let unfit = |reason: &str| {
            Error::new(Kind::Corrupt, format!("\"{of}\" can't be divided at operator {node}: {reason}"))
        };
        let place = queries.iter().position(|query| query.name.as_ref() == of);
        let place = place.ok_or_else(|| unfit("there is no such query"))?;
        let flow =
            divide(&mut queries[place], node as usize, &name).map_err(|error| unfit(&error.message))?;
        match queries.query(&name) {
            Some(part) if part.flow.here().is_some_and(|part| part.is_made_like(&flow)) => {}
            Some(_) => return Err(unfit("other queries have another part there")),
            None => queries.insert(place, query_of_part(name, flow)?),
        }
    }
    Ok(())
}
