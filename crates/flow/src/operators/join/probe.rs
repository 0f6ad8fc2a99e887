//! Matches the changes of one side with the rows of the other, piece by piece.

use std::collections::HashMap;

use arrow::array::AsArray;
use foldhash::fast::FixedState;
use millstream_delta::{Chunk, Delta};
use millstream_state::{Arranged, Placed};

use super::pairs::{Batch, Theirs};
use super::side::Keyed;
use super::views::Views;
use super::{Alone, Join, truths};
use crate::driver::evaluate;
use crate::failure::{Failure, keep, surviving_at};
use crate::operator::Output;
use crate::{Error, Result};

/// The outcome for some rows of a change.
#[derive(Default)]
pub(super) struct ProbeResult {
    pub(super) output: Output,
    /// Changes of unpaired rows that the matches cause.
    pub(super) alone: Delta,
    /// The changes of the numbers of matches of the other side's rows.
    pub(super) theirs: HashMap<u64, i64, FixedState>,
}

impl ProbeResult {
    fn append(&mut self, mut other: ProbeResult) {
        self.output.rows.append(other.output.rows);
        self.output.failures.append(&mut other.output.failures);
        self.alone.append(other.alone);
        if self.theirs.is_empty() {
            self.theirs = other.theirs;
        } else {
            other.theirs.into_iter().for_each(|(id, matches)| *self.theirs.entry(id).or_insert(0) += matches);
        }
    }
}

/// The result of the condition for some pairs.
#[derive(Default)]
pub(super) struct Examined {
    /// The matching pairs, if pairs are in the result.
    pairs: Vec<Chunk>,
    /// The places of matching pairs, if matches are counted.
    matches: Vec<usize>,
    /// For each pair, the number of copies of the other side's row.
    counts: Vec<i64>,
    failures: Vec<Failure>,
}

/// A task of one of several threads for a side's changes.
enum Task<'a> {
    /// Applies changes to the side.
    Apply(&'a mut Arranged, Vec<Placed>),
    /// Processes some of the changes.
    Work(&'a mut Keyed),
}

impl Join {
    /// Processes each piece of a side's changes and applies the changes to the side: in parallel if there are
    /// many, unless `needs_work` requires the results first.
    pub(super) fn take_in(
        &mut self,
        at: usize,
        mut changes: Vec<Keyed>,
        needs_work: bool,
        made: &mut ProbeResult,
        work: impl Fn(&Join, &mut Keyed, &mut ProbeResult) -> Result<()> + Sync,
    ) -> Result<()> {
        let rows = changes.iter().map(|keyed| keyed.placed.chunk.rows.num_rows()).sum();
        if !self.threads.share(rows) {
            changes.iter_mut().try_for_each(|keyed| work(self, keyed, made))?;
            return self.apply(at, changes);
        }
        // The work reads only the other side's rows.
        let mut side = if needs_work { None } else { self.sides[at].rows.take() };
        let placed = side.is_some().then(|| changes.iter().map(|keyed| keyed.placed.clone()).collect());
        let mut tasks: Vec<Task<'_>> =
            side.as_mut().zip(placed).map(|(rows, placed)| Task::Apply(rows, placed)).into_iter().collect();
        tasks.extend(changes.iter_mut().map(Task::Work));
        let join = &*self;
        let mut done = join.threads.spread(tasks, |task| match task {
            Task::Apply(rows, placed) => Ok((ProbeResult::default(), rows.apply(placed))),
            Task::Work(keyed) => {
                let mut made = ProbeResult::default();
                work(join, keyed, &mut made).map(|()| (made, Ok(())))
            }
        });
        let applies = usize::from(side.is_some());
        if let Some(rows) = side {
            self.sides[at].rows = Some(rows);
        }
        // The reported failure is the first one in sequential order.
        done.rotate_left(applies);
        for done in done {
            let (some, applied) = done?;
            made.append(some);
            self.budget.check(made.output.rows.num_rows())?;
            applied?;
        }
        if applies > 0 { Ok(()) } else { self.apply(at, changes) }
    }

    /// Evaluates the condition for pairs.
    pub(super) fn examine(
        &self,
        at: usize,
        views: &Views<'_>,
        chunk: &Chunk,
        batch: &Batch,
    ) -> Result<Examined> {
        let (pairs, counts) = self.pairs(at, chunk, batch, views)?;
        let condition = self.condition.as_slice();
        let mut examined = Examined { counts, ..Examined::default() };
        let pieces = surviving_at(pairs, &mut examined.failures, |pairs| evaluate(condition, &pairs.rows))?;
        for piece in pieces {
            let [answers] = &piece.value[..] else {
                return Err(Error::Bug("a join without a condition".into()));
            };
            let answers = truths(answers.as_boolean());
            if self.shape.alone != [Alone::Never; 2] {
                examined.matches.extend(answers.values().set_indices().map(|row| piece.from + row));
            }
            if self.shape.pairs {
                examined.pairs.push(keep(&piece.chunk, &answers)?);
            }
        }
        Ok(examined)
    }

    /// Emits the matching pairs, and counts them.
    pub(super) fn count(
        &self,
        chunk: &Chunk,
        batch: &Batch,
        examined: Examined,
        mine: &mut [i64],
        made: &mut ProbeResult,
    ) -> Result<()> {
        made.output.failures.extend(examined.failures);
        for place in examined.matches {
            let row = batch.rows[place] as usize;
            mine[row] += examined.counts[place];
            if let Theirs::Kept(ids) = &batch.theirs {
                *made.theirs.entry(ids[place]).or_insert(0) += chunk.weight(row);
            }
        }
        examined.pairs.into_iter().try_for_each(|pairs| self.put_pairs(pairs, made))
    }

    pub(super) fn put_pairs(&self, pairs: Chunk, made: &mut ProbeResult) -> Result<()> {
        let count = pairs.rows.num_rows();
        self.budget.pair(count)?;
        self.put(pairs, &mut made.output.rows)
    }
}
