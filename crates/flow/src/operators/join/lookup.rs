//! A join that doesn't keep its left side: left rows are matched when they arrive.

use millstream_delta::Delta;

use super::probe::ProbeResult;
use super::side::Change;
use super::views::SideArrangements;
use super::{Alone, Batch, Join, deleted};
use crate::operator::Output;
use crate::{Error, Result};

impl Join {
    /// Returns the join without the state of its left side.
    pub(crate) fn without_left(mut self) -> Join {
        self.sides[0].rows = None;
        self.sides[0].totals = None;
        self
    }

    /// Applies the changes of the right side, then joins the left rows with the right side's rows.
    pub(crate) fn look_up(&mut self, inputs: &[&Delta]) -> Result<Output> {
        let [left, right] = inputs else { return Err(Error::Bug("a join has two inputs".into())) };
        self.budget.begin();
        let kept = SideArrangements::of(&self.sides);
        let views = kept.read()?;
        let mut made = ProbeResult::default();
        let failures = &mut made.output.failures;
        let from = (&mut self.keys, &views);
        let theirs = self.sides[1].place(1, from, (right, &self.threads), failures)?;
        self.sides[1].count(&theirs.keyed);
        let changes = [Vec::new(), theirs.keyed];
        let mut touched = deleted(&changes);
        let [_, theirs] = changes;
        self.apply(1, theirs)?;
        let from = (&mut self.keys, &views);
        let Change { keyed, apart } = self.sides[0].place(0, from, (left, &self.threads), failures)?;
        touched.extend(keyed.iter().flat_map(|keyed| &keyed.placed.slots));
        let keeps_left = self.shape.alone[0] != Alone::Never;
        for chunk in apart.iter().filter(|_| keeps_left) {
            self.put_alone(0, chunk, |_| false, &mut made.output.rows)?;
        }
        self.take_in(0, keyed, false, &mut made, |join, keyed, made| {
            let chunk = &keyed.placed.chunk;
            let mut found = vec![0; chunk.rows.num_rows()];
            if join.condition.is_some() {
                let examine = |batch: &Batch| join.examine(0, &views, chunk, batch);
                join.each_batch(0, keyed.others(), &views, examine, |batch, examined| {
                    join.count(chunk, &batch, examined, &mut found, made)
                })?;
            } else if !join.shape.pairs {
                let total = |slot: &u32| join.total(1, *slot, &views);
                found = keyed.others().iter().map(total).collect();
            } else {
                let pairs = |batch: &Batch| Ok(join.pairs(0, chunk, batch, &views)?.0);
                join.each_batch(0, keyed.others(), &views, pairs, |batch, pairs| {
                    batch.rows.iter().for_each(|row| found[*row as usize] += 1);
                    join.put_pairs(pairs, made)
                })?;
            }
            if keeps_left {
                join.put_alone(0, chunk, |row| found[row] > 0, &mut made.output.rows)?;
            }
            Ok(())
        })?;
        touched.sort_unstable();
        touched.dedup();
        self.keys.free_empty(&touched, |slot| self.sides[1].is_empty(slot));
        Ok(made.output)
    }
}
