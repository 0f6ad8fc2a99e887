//! The difference between the old answer and the new one, which the readers of a relation get when its query is
//! replaced.
//!
//! It takes time in proportion to both results. So a thread computes it from both as of one epoch. Meanwhile both
//! queries continue, and the logs keep their changes. If many changes have come by the time that it is done, a thread
//! adds them, and so on. The readers then get, in this order, the old query's newest changes taken back, the
//! difference, and the new query's newest changes. So no prefix of them takes back a row that isn't there.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use millstream_delta::Delta;
use millstream_sql::{Error, Result};

use super::Successor;
use crate::content::Content;
use crate::run::Loop;
use crate::run::behind::LARGE_ROWS;
use crate::run::log::{Logs, Place};
use crate::run::queries::Queries;
use crate::run::query::RunningQuery;
use crate::run::sink::in_sum;

/// The maximum number of times that a thread adds the changes that have come meanwhile.
const ROUNDS_MAX: usize = 4;

/// The comparison of the old answer with the new one.
#[derive(Debug)]
pub(super) struct Comparison {
    /// The places in the logs of the old query and of the new one up to which they are compared.
    old: Place,
    new: Place,
    rounds: usize,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    Computing(Receiver<Result<Delta>>),
    Done(Result<Delta>),
}

impl Comparison {
    /// Returns true if a thread is computing it.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.progress, Progress::Computing(_))
    }
}

impl Successor {
    /// Returns the oldest place in a relation's log that the comparison still needs.
    pub(in crate::run) fn place_in(&self, name: &str) -> Option<Place> {
        let comparison = self.comparison.as_ref()?;
        match name {
            _ if name == self.object.name.as_ref() => Some(comparison.old),
            _ if name == self.name.as_ref() => Some(comparison.new),
            _ => None,
        }
    }
}

impl Loop {
    /// Takes the differences that threads have computed.
    pub(in crate::run) fn take_differences(&mut self) {
        for comparison in self.successors.iter_mut().filter_map(|successor| successor.comparison.as_mut()) {
            let Progress::Computing(computing) = &comparison.progress else { continue };
            comparison.progress = match computing.try_recv() {
                Ok(done) => Progress::Done(done),
                Err(TryRecvError::Empty) => continue,
                Err(TryRecvError::Disconnected) => Progress::Done(Err(Error::bug(
                    "the comparison of its old answer with the new one panicked",
                ))),
            };
        }
    }

    /// Returns true if the readers of a relation can get the difference of both answers without a delay for others.
    /// Otherwise a thread computes it, or goes on with it.
    pub(super) fn is_compared(&mut self, successor: &mut Successor) -> Result<bool> {
        let Some(comparison) = &mut successor.comparison else {
            let Some((old, new)) = self.to_compare(successor) else { return Ok(true) };
            let rows = |query: &RunningQuery| query.result_rows().unwrap_or(LARGE_ROWS as u64 + 1);
            let is_large = rows(old) + rows(new) > LARGE_ROWS as u64;
            if self.durability.is_recovering() || !(is_large || self.execution.apart.is_some()) {
                return Ok(true);
            }
            let contents = (old.content(None)?, new.content(None)?);
            let progress = self.tasks.on_a_thread(move || {
                let (old, new) = (contents.0.batches_now()?, contents.1.batches_now()?);
                Ok(changed(Delta::from_iter(old), Delta::default(), Delta::from_iter(new)))
            })?;
            let end = |name: &str| self.logs.end(name);
            successor.comparison = Some(Comparison {
                old: end(&successor.object.name),
                new: end(&successor.name),
                rounds: 0,
                progress: Progress::Computing(progress),
            });
            return Ok(false);
        };
        match &comparison.progress {
            Progress::Computing(_) => return Ok(false),
            Progress::Done(Err(error)) => return Err(error.clone()),
            Progress::Done(Ok(_)) => {}
        }
        let (old, new) = self.logs.since_compared(successor);
        let Some(comparison) = &mut successor.comparison else { return Ok(true) };
        let little = if self.execution.apart.is_some() { 0 } else { LARGE_ROWS };
        if old.num_rows() + new.num_rows() <= little || comparison.rounds >= ROUNDS_MAX {
            return Ok(true);
        }
        let Progress::Done(Ok(before)) = &mut comparison.progress else { return Ok(false) };
        let before = std::mem::take(before);
        comparison.progress =
            Progress::Computing(self.tasks.on_a_thread(move || Ok(changed(old, before, new)))?);
        let end = |name: &str| self.logs.end(name);
        comparison.rounds += 1;
        (comparison.old, comparison.new) = (end(&successor.object.name), end(&successor.name));
        Ok(false)
    }

    /// Returns the new answer minus the old one, if both queries keep theirs.
    pub(super) fn difference(&self, successor: &mut Successor, query: &RunningQuery) -> Option<Delta> {
        let since = self.logs.since_compared(successor);
        let old = self.queries.old_to_compare(successor, query)?;
        let place = self.queries.iter().position(|query| query.name == old.name)?;
        if self.is_unread(place) {
            return Some(Delta::default());
        }
        if let Some(Comparison { progress: Progress::Done(Ok(difference)), .. }) = successor.comparison.take()
        {
            let mut change = since.0.negated();
            change.append(difference);
            change.append(since.1);
            return Some(if change.num_rows() <= LARGE_ROWS { in_sum(change) } else { change });
        }
        let read = |query: &RunningQuery| query.content(None).and_then(Content::batches_now);
        let (old, new) = (read(old).ok()?, read(query).ok()?);
        Some(changed(Delta::from_iter(old), Delta::default(), Delta::from_iter(new)))
    }

    /// Returns the old query and the new one, if a reader of the relation gets the difference of their answers.
    fn to_compare(&self, successor: &Successor) -> Option<(&RunningQuery, &RunningQuery)> {
        let new = self.queries.query(&successor.name)?;
        let old = self.queries.iter().position(|query| query.name == successor.object.name)?;
        let is_compared = !self.is_unread(old) && self.queries[old].is_running() && new.is_running();
        (is_compared && self.unfit(&successor.object, Some(new)).is_none())
            .then(|| self.queries.old_to_compare(successor, new).map(|old| (old, new)))
            .flatten()
    }
}

impl Logs {
    /// Returns the changes of the old query and of the new one since the comparison.
    fn since_compared(&self, successor: &Successor) -> (Delta, Delta) {
        let since = |name: &Arc<str>| {
            let mut all = Delta::default();
            let log = successor.place_in(name).zip(self.get(name));
            let epochs = log.into_iter().flat_map(|(place, log)| log.from(place));
            epochs.for_each(|(_, delta)| all.append(delta.clone()));
            all
        };
        (since(&successor.object.name), since(&successor.name))
    }
}

impl Queries {
    fn old_to_compare(&self, successor: &Successor, new: &RunningQuery) -> Option<&RunningQuery> {
        // Nobody has the output of a suspended query any more: all its readers are suspended, too.
        let both_are_there = |old: &RunningQuery| !old.is_suspended() && !new.is_suspended();
        let old = self.query(&successor.object.name).filter(|old| both_are_there(old))?;
        (old.shows_at_once() && new.shows_at_once()).then_some(old)
    }
}

/// Returns the sum of a difference and of what was to be added to it: rows of the old answer, and of the new one.
fn changed(old: Delta, difference: Delta, new: Delta) -> Delta {
    let mut change = old.negated();
    change.append(difference);
    change.append(new);
    in_sum(change)
}
