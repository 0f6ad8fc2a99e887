//! One side of a join: its rows by key, or the number of rows of each key.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::not;
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::{Chunk, Delta};
use millstream_state::{Arranged, KeyIndex, Paged, Placed, Spillable};

use super::keys::JoinKeys;
use super::shape::{Alone, Shape};
use super::views::Views;
use crate::arrangement::{Arrangement, Moved, whole};
use crate::driver::evaluate;
use crate::failure::{Failure, keep, surviving_exprs};
use crate::parallelism::Threads;
use crate::{Error, Result};

/// The state of one side.
#[derive(Debug)]
pub struct Side {
    /// The key's expressions over its rows; empty: every row has the same key.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// Its rows, if they are ever read again.
    pub rows: Option<Arranged>,
    /// The number of rows by slot, if the other side's rows need it.
    pub totals: Option<Paged<i64>>,
    /// The arrangement of its rows, if others read it too.
    pub elsewhere: Option<SharedSide>,
    /// The places of its columns in the kept rows.
    pub columns: Vec<usize>,
}

/// A shared arrangement of a side's rows.
#[derive(Debug)]
pub struct SharedSide {
    /// The arrangement.
    pub arrangement: Arc<Arrangement>,
    /// True if this reader accounts for the arrangement in its state; exactly one of the readers does.
    pub counted: bool,
}

/// Rows of a change.
#[derive(Default)]
pub struct Change {
    /// The rows that may have matches, with their keys.
    pub keyed: Vec<Keyed>,
    /// The rows whose key contains a NULL that equals nothing.
    pub apart: Vec<Chunk>,
}

/// Rows of a change that may have matches.
pub struct Keyed {
    /// The rows with the slots of their keys on their own side; without slots if that side is in an
    /// arrangement.
    pub placed: Placed,
    /// The slots of the same keys on the other side, if they differ.
    others: Option<Vec<u32>>,
}

/// Looks up the keys of a side's changes.
struct Finder<'a> {
    side: &'a Side,
    at: usize,
    index: Option<&'a KeyIndex>,
    views: &'a Views<'a>,
    nulls_match: bool,
    /// True if it looks up slots on this side, if the join keeps it.
    looks: bool,
}

/// Rows of a change and the known slots of their keys.
struct Found {
    chunk: Chunk,
    keys: Vec<ArrayRef>,
    /// The slots on their own side, if they were looked up.
    slots: Vec<u32>,
    others: Option<Vec<u32>>,
    apart: Option<Chunk>,
}

impl Finder<'_> {
    fn look_up(&self, mut chunk: Chunk, mut keys: Vec<ArrayRef>) -> Result<Found> {
        let (mut slots, mut others, mut apart) = (Vec::new(), None, None);
        let Some(index) = self.index else { return Ok(Found { chunk, keys, slots, others, apart }) };
        if !self.nulls_match && keys.iter().any(|key| key.logical_null_count() > 0) {
            let whole = whole(&keys);
            apart = Some(keep(&chunk, &not(&whole)?)?);
            chunk = keep(&chunk, &whole)?;
            keys = keys.iter().map(|key| arrow::compute::filter(key, &whole)).collect::<Result<_, _>>()?;
        }
        let here = self.side.elsewhere.is_none();
        if here && self.looks {
            slots.reserve(chunk.rows.num_rows());
            index.find(&keys, &mut slots)?;
        }
        // The slots of the same keys on the other side, if they differ there.
        let other = self.views.of(1 - self.at).map(|other| &other.index).or((!here).then_some(index));
        if let Some(other) = other {
            other.find(&keys, others.insert(Vec::with_capacity(chunk.rows.num_rows())))?;
        }
        Ok(Found { chunk, keys, slots, others, apart })
    }
}

impl Keyed {
    /// Returns the slot of each row's key on the other side.
    pub fn others(&self) -> &[u32] {
        self.others.as_deref().unwrap_or(&self.placed.slots)
    }
}

impl Side {
    /// Returns side number `at` without rows.
    pub fn new(shape: &Shape, conditional: bool, at: usize, keys: Vec<Arc<dyn PhysicalExpr>>) -> Side {
        let schema = &shape.sides[at];
        let keeps_rows = shape.pairs || conditional || shape.alone[at] != Alone::Never;
        let keeps_totals = !conditional && shape.alone[1 - at] != Alone::Never;
        Side {
            keys,
            rows: keeps_rows.then(|| Arranged::new(schema.clone())),
            totals: keeps_totals.then(Paged::default),
            elsewhere: None,
            columns: (0..schema.fields().len()).collect(),
        }
    }

    /// Removes all rows.
    pub fn reset(&mut self) {
        self.rows = self.rows.take().map(|rows| Arranged::new(rows.schema().clone()));
        self.totals = self.totals.take().map(|_| Paged::default());
    }

    /// Removes the rows of some keys.
    pub fn forget(&mut self, slots: &[u32]) -> Result<()> {
        if let Some(totals) = &mut self.totals {
            let end = totals.len();
            slots.iter().filter(|slot| (**slot as usize) < end).for_each(|slot| totals[*slot as usize] = 0);
        }
        if let Some(rows) = &mut self.rows {
            rows.forget(slots)?;
        }
        Ok(())
    }

    /// Looks up the keys of changes of side number `at`. Rows whose key can't be computed become failures.
    pub fn place(
        &self,
        at: usize,
        (all, views): (&mut JoinKeys, &Views<'_>),
        (delta, threads): (&Delta, &Threads),
        failures: &mut Vec<Failure>,
    ) -> Result<Change> {
        let (mut change, nulls_match) = (Change::default(), all.nulls_match());
        let rows = delta.num_rows();
        if !threads.cuts(rows) {
            for chunk in &delta.chunks {
                let pieces = surviving_exprs(&self.keys, chunk.clone(), failures, |chunk| {
                    evaluate(&self.keys, &chunk.rows)
                })?;
                for (chunk, keys) in pieces {
                    let finder =
                        Finder { side: self, at, index: all.index(), views, nulls_match, looks: false };
                    let found = finder.look_up(chunk, keys)?;
                    self.settle(found, all.index_mut(), false, &mut change)?;
                }
            }
            return Ok(change);
        }
        // Lookups change nothing, so threads share them. One thread then gives new keys slots, in row order.
        let looks = threads.share(rows);
        let finder = Finder { side: self, at, index: all.index(), views, nulls_match, looks };
        let found = threads.spread(threads.pieces(&[delta]), |chunk| {
            let mut failures = Vec::new();
            let pieces =
                surviving_exprs(&self.keys, chunk, &mut failures, |chunk| evaluate(&self.keys, &chunk.rows))?;
            let found = pieces.into_iter().map(|(chunk, keys)| finder.look_up(chunk, keys));
            Ok::<_, Error>((found.collect::<Result<Vec<_>>>()?, failures))
        });
        for found in found {
            let (found, mut failed) = found?;
            failures.append(&mut failed);
            found
                .into_iter()
                .try_for_each(|found| self.settle(found, all.index_mut(), looks, &mut change))?;
        }
        Ok(change)
    }

    /// Gives slots to new keys if the join keeps this side; `looked` is true if the other keys already have
    /// theirs.
    fn settle(
        &self,
        found: Found,
        index: Option<&mut KeyIndex>,
        looked: bool,
        change: &mut Change,
    ) -> Result<()> {
        let Found { chunk, keys, mut slots, others, apart } = found;
        match index {
            None => slots = vec![0; chunk.rows.num_rows()],
            Some(_) if self.elsewhere.is_some() => {}
            Some(index) if looked => index.settle(&keys, &mut slots)?,
            Some(index) => {
                slots.reserve(chunk.rows.num_rows());
                index.slots(&keys, &mut slots)?;
            }
        }
        change.apart.extend(apart);
        change.keyed.push(Keyed { placed: Placed { chunk, slots, tallies: None }, others });
        Ok(())
    }

    /// Returns the number of rows of a key, if it is kept.
    pub fn total(&self, slot: u32) -> i64 {
        let totals = self.totals.as_ref().filter(|totals| (slot as usize) < totals.len());
        totals.map_or(0, |totals| totals[slot as usize])
    }

    /// Returns true if there is no state of a key.
    pub fn is_empty(&self, slot: u32) -> bool {
        match &self.rows {
            Some(rows) => rows.rows_of(slot) == 0,
            None => self.total(slot) == 0,
        }
    }

    /// Adds changes to the totals, and returns the changed totals; nothing if no totals are kept.
    pub fn count(&mut self, changes: &[Keyed]) -> Moved {
        let mut moved = Moved::default();
        let Some(totals) = &mut self.totals else { return moved };
        for Keyed { placed: Placed { chunk, slots, .. }, .. } in changes {
            for (row, slot) in slots.iter().enumerate() {
                totals.resize(*slot as usize + 1, 0);
                let total = &mut totals[*slot as usize];
                moved.by(*slot, *total, chunk.weight(row));
                *total += chunk.weight(row);
            }
        }
        moved
    }

    /// Returns the approximate size in bytes.
    pub fn memory_bytes(&self) -> usize {
        let rows = self.rows.as_ref().map_or(0, Arranged::memory_bytes);
        rows + self.totals.as_ref().map_or(0, Paged::memory_bytes) + self.counted(Arrangement::memory_bytes)
    }

    /// Returns the number of kept rows.
    pub fn num_rows(&self) -> usize {
        self.rows.as_ref().map_or(0, Arranged::num_rows) + self.counted(Arrangement::num_rows)
    }

    /// Shows the parts that may be spilled.
    pub fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        self.rows.iter_mut().for_each(|rows| show(rows));
        self.totals.iter_mut().for_each(|totals| show(totals));
        let elsewhere = self.elsewhere.as_ref().filter(|elsewhere| elsewhere.counted);
        elsewhere.iter().for_each(|elsewhere| elsewhere.arrangement.each_store(show));
    }

    fn counted(&self, number: fn(&Arrangement) -> usize) -> usize {
        let elsewhere = self.elsewhere.as_ref().filter(|elsewhere| elsewhere.counted);
        elsewhere.map_or(0, |elsewhere| number(&elsewhere.arrangement))
    }

    /// Adds existing rows.
    pub fn take(&mut self, placed: Placed) -> Result<()> {
        let keyed = [Keyed { placed, others: None }];
        self.count(&keyed);
        let [Keyed { placed, .. }] = keyed;
        if let Some(rows) = &mut self.rows {
            rows.apply(vec![placed])?;
        }
        Ok(())
    }

    /// Moves its rows to an arrangement; `columns` are the places of its columns there.
    pub fn move_out(&mut self, arrangement: Arc<Arrangement>, columns: Vec<usize>) {
        (self.rows, self.totals) = (None, None);
        self.elsewhere = Some(SharedSide { arrangement, counted: false });
        self.columns = columns;
    }

    /// Returns all its rows, if the join keeps them under these keys.
    pub fn content(&self, index: Option<&KeyIndex>) -> Result<Delta> {
        let (Some(rows), Some(index)) = (&self.rows, index) else {
            return Err(Error::Bug("a join that keeps its own rows by key gives them away".into()));
        };
        Ok(rows.delta(&index.live())?)
    }
}
