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
//! If a part keeps the result of a reader, and that computes each row of it by itself, readers get the result through the
//! part ([`Results`]), without the changes that the query has not taken in yet. A paused query keeps its rows itself.
//!
//! A query shares only over relations whose rows can be read again, so that it can be altered, or rebuilt after it was
//! suspended, without the part.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_flow::{CommonPart, Divided, Flow, RowStages, Sharer};
use millstream_sql::{Error, Kind, Result};
use millstream_state::Tables;

use super::contents::{Bases, Results};
use super::feed::Feed;
use super::outputs::Outputs;
use super::own_flow::OwnFlow;
use super::queries::QueryGraph;
use super::query::role::PartRead;
use super::query::{Keep, Lowered, ResultRows, RunningQuery, Status};
use super::sharing::can_be_read_again;
use crate::error;
use crate::settings::OnError;

/// The beginning of the names of parts.
const PART: &str = "\0shared part ";

/// The smallest part that a query has in common with another one.
struct Found {
    other: usize,
    part: CommonPart,
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
    if let (true, ResultRows::Operators, Some(stages)) =
        (part.result().is_kept_by_root(), &query.result.rows, RowStages::of(&rest))
    {
        query.result.rows = ResultRows::Part(stages);
    }
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
        let others = self.queries.iter().enumerate().filter(|(other, candidate)| {
            *other != place && candidate.flow.may_have_parts_of(&query.flow) && may_share(candidate)
        });
        let found = others.filter_map(|(other, query)| {
            let part = CommonPart::of(own, sharer(query)?)?;
            let is_same = |relation: &Arc<str>| {
                self.queries.query(relation).is_some_and(|query| query.role.is_part())
                    || can_be_read_again(&self.queries, bases, relation)
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

    /// Copies the rows that a query reads from a part, so that it can stay behind the part.
    pub(super) fn keep_own_rows(&mut self, place: usize) -> Result<()> {
        let query = &self.queries[place];
        if !matches!(query.result.rows, ResultRows::Part(_)) {
            return Ok(());
        }
        let rows = Results(&self.queries).content(query, None)?.batches_now()?;
        let query = &mut self.queries[place];
        query.result.keep_beside(&mut query.flow, rows)
    }

    /// Drops these rows again: the query has become as current as the part.
    pub(super) fn drop_own_rows(&mut self, place: usize) {
        let query = &self.queries[place];
        let part = query.role.parts().last().and_then(|read| self.queries.query(&read.name));
        let keeps = |part: &RunningQuery| {
            part.status.is_running() && part.flow.here().is_some_and(|flow| flow.result().is_kept_by_root())
        };
        if let (ResultRows::Beside(_), true, Some(stages)) =
            (&query.result.rows, part.is_some_and(keeps), query.flow.here().and_then(RowStages::of))
        {
            self.queries[place].result.rows = ResultRows::Part(stages);
        }
    }

    fn new_part_name(&self) -> Arc<str> {
        let numbers = self.queries.iter().filter_map(|query| query.name.strip_prefix(PART)?.parse().ok());
        let last: u64 = numbers.max().unwrap_or(0);
        format!("{PART}{}", last + 1).into()
    }

    /// Drops the parts that no query reads any more. Returns true if there were any.
    pub(super) fn drop_unread_parts(&mut self, outputs: &mut Outputs) -> bool {
        if !std::mem::take(&mut self.some_left) {
            return false;
        }
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

impl QueryGraph {
    /// Divides queries as they were saved.
    pub(super) fn load_parts(&mut self, state: &mut Tables) -> Result<()> {
        for number in 0.. {
            let Some(of) = state.take_text_if(&format!("part{number}.of")) else { break };
            let name: Arc<str> = state.take_text_if(&format!("part{number}.name")).unwrap_or_default().into();
            let node = state.take_number(&format!("part{number}.node")).map_err(error::state)?;
            let unfit = |reason: &str| {
                Error::new(Kind::Corrupt, format!("\"{of}\" can't be divided at operator {node}: {reason}"))
            };
            let place = self.queries.iter().position(|query| query.name.as_ref() == of);
            let place = place.ok_or_else(|| unfit("there is no such query"))?;
            let flow = divide(&mut self.queries[place], node as usize, &name)
                .map_err(|error| unfit(&error.message))?;
            match self.queries.query(&name) {
                Some(part) if part.flow.here().is_some_and(|part| part.is_made_like(&flow)) => {}
                Some(_) => return Err(unfit("other queries have another part there")),
                None => self.queries.insert(place, query_of_part(name, flow)?),
            }
        }
        Ok(())
    }
}
