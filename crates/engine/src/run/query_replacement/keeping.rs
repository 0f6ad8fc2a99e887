//! Continuing with the state of the old query's operators.
//!
//! If all operators are the same, they are moved to the successor. Otherwise the successor gets a copy of those that are
//! the same, and recomputes the others. A large state is copied on threads (`catch_up/inherited.rs`), while the old query
//! and its readers lag.

use std::sync::Arc;

use millstream_delta::Delta;
use millstream_flow::{StateCopy, Succession};
use millstream_sql::{Error, Result};

use super::Successor;
use crate::run::contents::{Bases, Results};
use crate::run::execution::Execution;
use crate::run::feed::Feed;
use crate::run::flow_control::FlowControl;
use crate::run::lagging::{LARGE_ROWS, ROW_BYTES};
use crate::run::queries::Queries;
use crate::run::query::{RunningQuery, Status};
use crate::run::query_replacement::check_can_be_read;
use crate::run::sources::Sources;
use crate::run::tables::BaseTables;
use crate::run::{NOTHING, Successors, own_flow};
use crate::settings::ClockKind;

impl Successors<'_> {
    /// Lets a successor continue from the state of the old query. If all operators are the same they are moved, else
    /// copied.
    pub(super) fn take_over(
        &mut self,
        name: &Arc<str>,
        query: &mut RunningQuery,
        succession: &Succession,
    ) -> Result<()> {
        let gone = || Error::bug(format!("the query of \"{name}\" is gone or elsewhere"));
        let place = self.queries.iter().position(|old| old.name == *name).ok_or_else(gone)?;
        if can_move(&self.queries[place], query, succession) {
            let old = &mut self.queries[place];
            std::mem::swap(&mut query.flow, &mut old.flow);
            query.result.rows.exchange(&mut old.result.rows);
            query.status = Status::Running;
            return Ok(());
        }
        let cut = self.clock.standing_cut(&self.setup.settings, self.watermarks.current());
        let mut contents = Vec::with_capacity(query.feeds.len());
        for (relation, feed) in query.feeds.iter().enumerate() {
            let is_needed = succession.needs(relation);
            let rows = if is_needed {
                Bases::new(self.tables, self.sources)
                    .contents(self.queries)
                    .first_content(feed)?
                    .batches_now()?
            } else {
                Vec::new()
            };
            contents.push(Delta::from_iter(rows));
        }
        let old = &self.queries[place];
        let before = old.flow.here().ok_or_else(gone)?;
        let contents: Vec<&Delta> = contents.iter().collect();
        let copy =
            own_flow::read("copying the state of the query", before, |flow| StateCopy::of(flow, succession))?;
        let change = query.flow.succeed(succession, copy, &cut, &contents)?;
        query.take_up(&cut, change, false)?;
        if succession.is_same() {
            query.result.copy_rows(&old.result, &old.flow)?;
        }
        query.status = Status::Running;
        // The kept state may have work due at this time, as the recomputed state has just had.
        if query.flow.is_due(&cut) {
            let nothing = vec![&NOTHING; query.feeds.len()];
            query.step(&cut, &nothing);
        }
        match &query.status {
            Status::Suspended { reason, .. } => Err(reason.clone()),
            _ => Ok(()),
        }
    }
}

impl FlowControl<'_> {
    /// Returns the state of the old query that a successor can keep. `None` if no operator is the same in both, if the
    /// kept rows don't suffice for the others, or if it does better to begin anew beside the old one.
    pub(super) fn succession(&self, name: &str, new: &RunningQuery, from_now: bool) -> Option<Succession> {
        let old = self.queries.query(name)?;
        if !from_now && !are_made_alike(old, new) && self.is_better_apart(old, new) {
            return None;
        }
        if !is_whole(old) {
            return None;
        }
        let (flow, before) = (new.flow.here()?, old.flow.here()?);
        let same_rows = |feed: &Feed| {
            let other = old.feeds.iter().find(|other| other.of == feed.of);
            other.is_none_or(|other| other.stamped == feed.stamped)
        };
        if !new.feeds.iter().all(same_rows) {
            return None;
        }
        let has = |relation: usize| {
            new.feeds
                .get(relation)
                .is_some_and(|feed| holds_all(self.queries, self.tables, self.sources, feed))
        };
        Succession::of(flow, before, &has).filter(Succession::keeps_some)
    }
}

impl FlowControl<'_> {
    /// Returns true if a successor reads large tables and views, or would keep much of the old query's state: until that
    /// is copied, readers of the relation would wait. A start may keep the state, since either way the answer is the
    /// same.
    pub(super) fn is_better_apart(&self, old: &RunningQuery, new: &RunningQuery) -> bool {
        let is_held = |name: &Arc<str>| self.tables.contains_key(name) || !self.sources.contains_key(name);
        let rows = || new.reads().map(|name| self.tables.rows_in(self.queries, name)).sum();
        !self.durability.is_recovering()
            && self.setup.execution.may_succeed_apart(self.setup.settings.clock, old, new)
            && new.reads().all(is_held)
            && self.setup.execution.is_much(old, rows)
    }

    /// Returns the queries that lag while threads copy the state of the old query, itself first. `None` if the loop
    /// copies it at once.
    pub(super) fn copied_apart(
        &self,
        old: &RunningQuery,
        new: &RunningQuery,
        succession: &Succession,
    ) -> Option<Vec<usize>> {
        let needed = new.feeds.iter().enumerate().filter(|(relation, _)| succession.needs(*relation));
        let rows = || needed.map(|(_, feed)| self.tables.rows_in(self.queries, &feed.of)).sum();
        if can_move(old, new, succession)
            || self.durability.is_recovering()
            || !self.setup.execution.may_succeed_apart(self.setup.settings.clock, old, new)
            || !self.setup.execution.is_much(old, rows)
        {
            return None;
        }
        self.leaving_with(self.queries.iter().position(|query| query.name == old.name)?)
    }
}

impl Execution {
    /// Returns true if a successor may take its time: its answer doesn't depend on it, and nobody sees it before.
    fn may_succeed_apart(&self, clock: ClockKind, old: &RunningQuery, new: &RunningQuery) -> bool {
        let same_answer = |query: &RunningQuery| query.may_lag() && query.result.shows_at_once();
        (self.options.apart.is_some() || clock == ClockKind::System) && same_answer(old) && same_answer(new)
    }

    /// Returns true if others would wait long for the state of an old query and so many rows.
    fn is_much(&self, old: &RunningQuery, rows: impl FnOnce() -> usize) -> bool {
        self.options.apart.is_some() || rows() + old.state_bytes() / ROW_BYTES > LARGE_ROWS
    }
}

impl BaseTables {
    /// Returns the number of rows in a table or in the result of a query, if it is known.
    fn rows_in(&self, queries: &Queries, name: &str) -> usize {
        match (self.get(name), queries.query(name)) {
            (Some(table), _) => table.published().num_rows(),
            (None, Some(query)) => Results(queries).num_rows(query).unwrap_or(0) as usize,
            (None, None) => 0,
        }
    }
}

/// Fails if a start could not repeat what a successor did that kept state: the start keeps the state as of the end of
/// the ALTER, or reads all inputs again.
pub(super) fn check_repeatable(
    queries: &Queries,
    tables: &BaseTables,
    sources: &Sources,
    successor: &Successor,
    new: &RunningQuery,
) -> Result<()> {
    let Some(keeping) = &successor.keeping else { return Ok(()) };
    let name = &successor.object.name;
    let Some(old) = queries.query(name) else { return Ok(()) };
    let is_held =
        |(relation, feed)| !keeping.succession.needs(relation) || holds_all(queries, tables, sources, feed);
    if is_whole(old) && new.feeds.iter().enumerate().all(is_held) {
        return Ok(());
    }
    if !keeping.from_now {
        return check_can_be_read(queries, tables, sources, name, new);
    }
    let first = old.result.errors.first().map_or_else(String::new, |error| format!(": {}", error.text()));
    Err(Error::external(format!("the state that it keeps was lost during the ALTER{first}"))
        .hint("Fix the reported problem, if there is one, then repeat the statement."))
}

/// Returns true if all rows that a relation ever held (its present ones, if it is updating) are available now.
pub(super) fn holds_all(queries: &Queries, tables: &BaseTables, sources: &Sources, feed: &Feed) -> bool {
    let name = feed.of.as_ref();
    if tables.contains_key(name) {
        return true;
    }
    if let Some(source) = sources.get(name) {
        let is_new = match source.is_replayable() {
            true => !source.has_past(),
            false => source.position.is_start(),
        };
        return is_new
            || !source.is_replayable() && source.retained.as_ref().is_some_and(|kept| !kept.has_lost);
    }
    queries.query(name).is_some_and(|query| {
        query.status.is_running()
            && (query.result.shows_at_once() || query.result.newest().is_some_and(|newest| !newest.has_lost))
    })
}

/// The state that threads copy for a successor.
#[derive(Clone, Debug)]
pub(super) struct Keeping {
    pub(super) succession: Arc<Succession>,
    /// The queries that lag meanwhile.
    pub(super) leaving: Vec<usize>,
    /// True if without this state it would begin with the rows from now on.
    pub(super) from_now: bool,
}

/// Returns true if the state of a query can be kept. Errors don't say which operator they belong to.
fn is_whole(old: &RunningQuery) -> bool {
    old.status.is_running() && !old.is_per_batch() && old.result.errors.count() == 0
}

/// Returns true if a successor has the operators and the result of the old query.
fn can_move(old: &RunningQuery, new: &RunningQuery, succession: &Succession) -> bool {
    succession.is_same() && are_made_alike(old, new) && new.result.rows.is_stored_like(&old.result.rows)
}

fn are_made_alike(old: &RunningQuery, new: &RunningQuery) -> bool {
    old.flow.here().zip(new.flow.here()).is_some_and(|(old, new)| new.is_made_like(old))
}
