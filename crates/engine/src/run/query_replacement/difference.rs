//! The difference between the old answer and the new one, which the readers of a relation get when its query is
//! replaced.
//!
//! It takes time in proportion to both results. So a thread computes it from both as of one epoch. If operators keep a
//! result, another thread reads them, and that query lags until it has. Meanwhile both queries continue, and the logs
//! keep their changes. If many changes have come by the time that it is done, a thread adds them, and so on. The readers
//! then get, in this order, the old query's newest changes taken back, the difference, and the new query's newest changes.
//! So no prefix of them takes back a row that isn't there.
//!
//! If the new query has more columns, the rows of the old answer get them, too (`added_columns.rs`).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use arrow::array::RecordBatch;
use datafusion::execution::memory_pool::MemoryReservation;
use millstream_delta::Delta;
use millstream_sql::{Error, Result};

use super::Successor;
use crate::catalog::Catalog;
use crate::content::{Content, through_part};
use crate::run::Successors;
use crate::run::catch_up::BeginningMemory;
use crate::run::contents::Results;
use crate::run::deltas::in_sum;
use crate::run::lagging::{LARGE_ROWS, result_of};
use crate::run::log::{Logs, Place};
use crate::run::outputs::Outputs;
use crate::run::queries::Queries;
use crate::run::query::{ResultRows, RunningQuery};
use crate::run::query_replacement::added_columns::AddedColumns;
use crate::run::query_replacement::fits::unfit;
use crate::run::waiters::Waiters;
use crate::settings::{ClockKind, Settings};
use crate::statement_memory::{AllStatements, Buffers, reservation};

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
    memory: Memory,
}

/// The memory of a comparison, counted as its statement's.
#[derive(Clone, Debug)]
struct Memory(Option<Arc<MemoryReservation>>);

/// One of the answers, for the thread that compares them.
enum Answer {
    Content(Content),
    /// The rows that another thread reads.
    Read(Receiver<Result<Vec<RecordBatch>>>),
}

#[derive(Debug)]
enum Progress {
    Computing(Receiver<Result<Delta>>),
    Done(Result<Delta>),
}

impl Memory {
    /// Fails if the statement can't have the memory for these rows and their sum.
    fn count(&self, parts: &[&Delta]) -> Result<()> {
        let mut buffers = Buffers::default();
        let chunks = parts.iter().flat_map(|delta| &delta.chunks);
        let bytes: usize = chunks.map(|chunk| buffers.add(&chunk.rows)).sum();
        self.0.as_ref().map_or(Ok(()), |memory| Ok(memory.try_resize(2 * bytes)?))
    }

    /// Returns the sum of rows of the old answer, taken away, of a difference, and of rows of the new answer.
    fn changed(&self, old: Delta, difference: Delta, new: Delta) -> Result<Delta> {
        self.count(&[&old, &difference, &new])?;
        let change = changed(old, difference, new);
        if let Some(memory) = &self.0 {
            memory.try_resize(change.memory_bytes().min(memory.size()))?;
        }
        Ok(change)
    }
}

impl Answer {
    fn rows(self) -> Result<Delta> {
        let rows = match self {
            Answer::Content(content) => content.batches_now()?,
            Answer::Read(rows) => {
                rows.recv().map_err(|_| Error::external("a query ended while its answer was compared"))??
            }
        };
        Ok(Delta::from_iter(rows))
    }
}

impl Comparison {
    /// Returns the comparison of a query with the same query.
    pub(super) fn of_same(end: Place) -> Comparison {
        let progress = Progress::Done(Ok(Delta::default()));
        Comparison { old: end, new: end, rounds: 0, progress, memory: Memory(None) }
    }

    /// Returns true if a thread is computing it.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.progress, Progress::Computing(_))
    }
}

impl Successor {
    /// Returns the memory of the comparison, counted as the statement's.
    fn memory_of_comparison(&mut self, all: Option<&AllStatements>, settings: &Settings) -> Memory {
        let begin = || all.map(|all| Arc::new(BeginningMemory::begin(all, settings)));
        let memory = self.memory.take().or_else(begin);
        if let (Some(job), Some(memory)) = (self.reply.job(), &memory) {
            job.counts_memory(&memory.pool);
        }
        let of = |memory: &Arc<BeginningMemory>| reservation(&memory.pool, "the comparison of both answers");
        let counted = memory.as_ref().map(of).map(Arc::new);
        self.memory = memory;
        Memory(counted)
    }

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

impl Successors<'_> {
    /// Returns true if the readers of a relation can get the difference of both answers without a delay for others.
    /// Otherwise a thread computes it, or goes on with it.
    pub(super) fn is_compared(&mut self, successor: &mut Successor) -> Result<bool> {
        let Some(comparison) = &mut successor.comparison else {
            let Some((old, new)) =
                to_compare(self.queries, self.outputs, self.waiters, &self.setup.catalog, successor)
            else {
                return Ok(true);
            };
            let rows =
                |query: &RunningQuery| Results(self.queries).num_rows(query).unwrap_or(LARGE_ROWS as u64 + 1);
            let is_large = rows(old) + rows(new) > LARGE_ROWS as u64;
            if self.durability.is_recovering() || !(is_large || self.setup.execution.options.apart.is_some())
            {
                return Ok(true);
            }
            self.begin_comparison(successor)?;
            return Ok(false);
        };
        match &comparison.progress {
            Progress::Computing(_) => return Ok(false),
            Progress::Done(Err(error)) => return Err(error.clone()),
            Progress::Done(Ok(_)) => {}
        }
        let (old, new) = self.outputs.logs.since_compared(successor)?;
        let Some(comparison) = &mut successor.comparison else { return Ok(true) };
        let little = if self.setup.execution.options.apart.is_some() { 0 } else { LARGE_ROWS };
        if old.num_rows() + new.num_rows() <= little || comparison.rounds >= ROUNDS_MAX {
            return Ok(true);
        }
        let Progress::Done(Ok(before)) = &mut comparison.progress else { return Ok(false) };
        let (before, memory) = (std::mem::take(before), comparison.memory.clone());
        comparison.progress =
            Progress::Computing(self.tasks.on_a_thread(move || memory.changed(old, before, new))?);
        let end = |name: &str| self.outputs.logs.end(name);
        comparison.rounds += 1;
        (comparison.old, comparison.new) = (end(&successor.object.name), end(&successor.name));
        Ok(false)
    }

    fn begin_comparison(&mut self, successor: &mut Successor) -> Result<()> {
        let shared = self.setup.shared.upgrade();
        let memory = successor.memory_of_comparison(
            shared.as_ref().map(|shared| &shared.statements.memory),
            &self.setup.settings,
        );
        let (old, new) = (successor.object.name.clone(), successor.name.clone());
        let answers = (self.answer_apart(&old)?, self.answer_apart(&new)?);
        let (old, new) = (self.outputs.logs.end(&old), self.outputs.logs.end(&new));
        let (counted, added) = (memory.clone(), successor.added_columns());
        let computing = self.tasks.on_a_thread(move || {
            let old = with_added(added.as_ref(), answers.0.rows()?)?;
            counted.count(&[&old])?;
            counted.changed(old, Delta::default(), answers.1.rows()?)
        })?;
        let progress = Progress::Computing(computing);
        successor.comparison = Some(Comparison { old, new, rounds: 0, progress, memory });
        Ok(())
    }

    /// Returns the answer of a query for a thread. If operators keep it, another thread reads them.
    fn answer_apart(&mut self, name: &Arc<str>) -> Result<Answer> {
        let gone = || Error::bug(format!("the query of \"{name}\" is gone or elsewhere"));
        let place = self.queries.iter().position(|query| query.name == *name).ok_or_else(gone)?;
        let may =
            self.setup.execution.options.apart.is_some() || self.setup.settings.clock == ClockKind::System;
        let query = &self.queries[place];
        let results = Results(self.queries);
        let (keeper, through) = (results.keeper(query), results.through(query));
        let is_read = may && (through.is_some() || matches!(query.result.rows, ResultRows::Operators));
        let place = self.queries.iter().position(|query| query.name == keeper.name).ok_or_else(gone)?;
        let Some(leaving) = self.flow_control().leaving_with(place).filter(|_| is_read) else {
            return Ok(Answer::Content(results.content(query, None)?));
        };
        let (sender, rows) = channel();
        // If the statement was cancelled, nobody receives them.
        let lent = self.queries.lend_to_read(self.tasks, self.clock.epoch, place, leaving, move |flow| {
            drop(sender.send(result_of(flow).and_then(|rows| through_part(through, rows))))
        })?;
        if lent { Ok(Answer::Read(rows)) } else { Err(gone()) }
    }
}

impl Logs {
    /// Returns the changes of the old query and of the new one since the comparison, with the same columns.
    fn since_compared(&self, successor: &Successor) -> Result<(Delta, Delta)> {
        let since = |name: &Arc<str>| {
            let mut all = Delta::default();
            let log = successor.place_in(name).zip(self.get(name));
            let epochs = log.into_iter().flat_map(|(place, log)| log.from(place));
            epochs.for_each(|(_, delta)| all.append(delta.clone()));
            all
        };
        let old = with_added(successor.added_columns().as_ref(), since(&successor.object.name))?;
        Ok((old, since(&successor.name)))
    }
}

impl Queries {
    fn old_to_compare(&self, successor: &Successor, new: &RunningQuery) -> Option<&RunningQuery> {
        // Nobody has the output of a suspended query any more: all its readers are suspended, too.
        let both_are_there = |old: &RunningQuery| !old.status.is_suspended() && !new.status.is_suspended();
        let old = self.query(&successor.object.name).filter(|old| both_are_there(old))?;
        (old.result.shows_at_once() && new.result.shows_at_once()).then_some(old)
    }
}

/// Returns the new answer minus the old one, if both queries keep theirs.
pub(super) fn difference_of_answers(
    queries: &Queries,
    outputs: &Outputs,
    waiters: &Waiters,
    successor: &mut Successor,
    query: &RunningQuery,
) -> Option<Delta> {
    let since = outputs.logs.since_compared(successor).ok()?;
    let old = queries.old_to_compare(successor, query)?;
    let place = queries.iter().position(|query| query.name == old.name)?;
    if outputs.is_unread(queries, waiters, place) {
        return Some(Delta::default());
    }
    if let Some(Comparison { progress: Progress::Done(Ok(difference)), .. }) = successor.comparison.take() {
        let mut change = since.0.negated();
        change.append(difference);
        change.append(since.1);
        return Some(if change.num_rows() <= LARGE_ROWS { in_sum(change) } else { change });
    }
    let read = |query: &RunningQuery| Results(queries).content(query, None).and_then(Content::batches_now);
    let (old, new) = (read(old).ok()?, read(query).ok()?);
    let old = with_added(successor.added_columns().as_ref(), Delta::from_iter(old)).ok()?;
    Some(changed(old, Delta::default(), Delta::from_iter(new)))
}

/// Returns the old query and the new one, if a reader of the relation gets the difference of their answers.
fn to_compare<'a>(
    queries: &'a Queries,
    outputs: &Outputs,
    waiters: &Waiters,
    catalog: &Catalog,
    successor: &Successor,
) -> Option<(&'a RunningQuery, &'a RunningQuery)> {
    let new = queries.query(&successor.name)?;
    let old = queries.iter().position(|query| query.name == successor.object.name)?;
    let is_compared = !outputs.is_unread(queries, waiters, old)
        && queries[old].status.is_running()
        && new.status.is_running();
    (is_compared && unfit(queries, catalog, &successor.object, Some(new)).is_none())
        .then(|| queries.old_to_compare(successor, new).map(|old| (old, new)))
        .flatten()
}

/// Takes the differences that threads have computed.
pub(in crate::run) fn take_differences(successors: &mut [Successor]) {
    for comparison in successors.iter_mut().filter_map(|successor| successor.comparison.as_mut()) {
        let Progress::Computing(computing) = &comparison.progress else { continue };
        comparison.progress = match computing.try_recv() {
            Ok(done) => Progress::Done(done),
            Err(TryRecvError::Empty) => continue,
            Err(TryRecvError::Disconnected) => {
                Progress::Done(Err(Error::bug("the comparison of its old answer with the new one panicked")))
            }
        };
    }
}

/// Returns the sum of a difference and of what was to be added to it: rows of the old answer, and of the new one.
fn changed(old: Delta, difference: Delta, new: Delta) -> Delta {
    let mut change = old.negated();
    change.append(difference);
    change.append(new);
    in_sum(change)
}

/// Returns changes of the old answer with the columns that the new query adds.
fn with_added(added: Option<&AddedColumns>, old: Delta) -> Result<Delta> {
    match added {
        Some(added) => added.extend(&old),
        None => Ok(old),
    }
}
