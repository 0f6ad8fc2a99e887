//! Continuing with the state of the old query's operators.

use std::sync::Arc;

use millstream_delta::Delta;
use millstream_flow::Succession;
use millstream_sql::{Error, Result};

use crate::error;
use crate::run::behind::{LARGE_ROWS, ROW_BYTES};
use crate::run::feed::Feed;
use crate::run::query::{RunningQuery, Status};
use crate::run::{Loop, NOTHING};
use crate::settings::ClockKind;

impl Loop {
    /// Returns the state of the old query that a successor can keep. `None` if no operator is the same in both, if the
    /// kept rows don't suffice for the others, or if it does better to begin anew beside the old one.
    pub(super) fn succession(
        &self,
        name: &str,
        new: &RunningQuery,
        from_now: bool,
    ) -> Result<Option<Succession>> {
        // Errors don't say which operator they belong to.
        let whole = |old: &&RunningQuery| old.is_running() && !old.is_per_batch() && old.errors() == 0;
        let Some(old) = self.queries.query(name).filter(whole) else { return Ok(None) };
        let (Some(flow), Some(before)) = (new.flow.here(), old.flow.here()) else { return Ok(None) };
        if !from_now && !flow.is_made_like(before) && self.is_better_apart(old, new) {
            return Ok(None);
        }
        let same_rows = |feed: &Feed| {
            let other = old.feeds.iter().find(|other| other.of == feed.of);
            other.is_none_or(|other| other.stamped == feed.stamped)
        };
        if !new.feeds.iter().all(same_rows) {
            return Ok(None);
        }
        let has = |relation: usize| new.feeds.get(relation).is_some_and(|feed| self.holds_all(feed));
        let succession = flow.succession(before, &has).map_err(error::flow)?;
        Ok(succession.filter(Succession::keeps_some))
    }

    /// Returns true if a successor reads large tables and views, or would keep much of the old query's state: to do that
    /// at once would hold up others. A start may keep the state, since either way the answer is the same.
    pub(super) fn is_better_apart(&self, old: &RunningQuery, new: &RunningQuery) -> bool {
        let may = self.execution.apart.is_some() || self.settings.clock == ClockKind::System;
        let same_answer = |query: &RunningQuery| query.may_be_behind() && query.shows_at_once();
        let is_held = |name: &Arc<str>| self.tables.contains_key(name) || !self.sources.contains_key(name);
        if self.durability.is_recovering()
            || !(may && same_answer(old) && same_answer(new) && new.reads().all(is_held))
        {
            return false;
        }
        let rows = |name: &Arc<str>| match (self.tables.get(name), self.queries.query(name)) {
            (Some(table), _) => table.published().num_rows(),
            (None, Some(query)) => query.result_rows().unwrap_or(0) as usize,
            (None, None) => 0,
        };
        let all = new.reads().map(rows).sum::<usize>() + old.flow.state_bytes() / ROW_BYTES;
        self.execution.apart.is_some() || all > LARGE_ROWS
    }

    /// Returns true if all rows that a relation ever held (its present ones, if it is updating) are available now.
    pub(super) fn holds_all(&self, feed: &Feed) -> bool {
        let name = feed.of.as_ref();
        if self.tables.contains_key(name) {
            return true;
        }
        if let Some(source) = self.sources.get(name) {
            let is_new = match source.replayable {
                true => !source.has_past(),
                false => source.position.splits.is_empty(),
            };
            return is_new
                || !source.replayable && source.retained.as_ref().is_some_and(|kept| !kept.has_lost);
        }
        self.queries.query(name).is_some_and(|query| {
            query.is_running()
                && (query.shows_at_once() || query.newest().is_some_and(|newest| !newest.has_lost))
        })
    }

    /// Lets a successor continue from the state of the old query, which doesn't change.
    pub(super) fn take_over(
        &self,
        name: &Arc<str>,
        query: &mut RunningQuery,
        succession: Succession,
    ) -> Result<()> {
        let cut = self.standing_cut();
        let mut contents = Vec::with_capacity(query.feeds.len());
        for (relation, feed) in query.feeds.iter().enumerate() {
            let rows = if succession.needs(relation) { self.first_content(feed)? } else { Vec::new() };
            contents.push(Delta::from_iter(rows));
        }
        let old = self.queries.query(name).and_then(|old| Some((old, old.flow.here()?)));
        let (old, before) =
            old.ok_or_else(|| Error::bug(format!("the query of \"{name}\" is gone or elsewhere")))?;
        let is_same = succession.is_same();
        let contents: Vec<&Delta> = contents.iter().collect();
        let change = query.flow.succeed(before, succession, &cut, &contents)?;
        query.take_up(&cut, change)?;
        if is_same {
            query.keep_result_of(old)?;
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
