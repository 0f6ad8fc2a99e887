//! One side of a join: its rows by key, or how many there are of each key.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::not;
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::{Chunk, Delta};
use millstream_state::{Arranged, KeyIndex, Paged, Placed, Spillable};

use super::shape::{Alone, Shape};
use super::views::Views;
use crate::arrangement::{Arrangement, Moved, whole};
use crate::drive::evaluate;
use crate::failure::{Failure, keep, surviving_exprs};
use crate::spread::Threads;
use crate::{Error, Result};

/// What is kept of one side.
#[derive(Debug)]
pub struct Side {
    /// What it is joined by, over its rows; none: every row is of one key.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// Its rows, where they are ever looked at again.
    pub rows: Option<Arranged>,
    /// By slot how many rows there are, where rows of the other side ask only that.
    pub totals: Option<Paged<i64>>,
    /// Where its rows are kept instead, if others read them there, too.
    pub elsewhere: Option<Elsewhere>,
    /// Where its columns lie in rows that are kept.
    pub columns: Vec<usize>,
}

/// An arrangement that keeps a side's rows, for others as well.
#[derive(Debug)]
pub struct Elsewhere {
    /// It.
    pub arrangement: Arc<Arrangement>,
    /// Whether this reader answers for what it takes; of all readers one does.
    pub counted: bool,
}

/// Rows of a change.
#[derive(Default)]
pub struct Change {
    /// Those that may have matches, with their keys.
    pub keyed: Vec<Keyed>,
    /// Those whose key holds a NULL that equals nothing.
    pub apart: Vec<Chunk>,
}

/// Rows of a change that may have matches.
pub struct Keyed {
    /// With the slots of their keys on their own side; none where that side is kept elsewhere.
    pub placed: Placed,
    /// The slots of the same keys on the other side, where they are others.
    others: Option<Vec<u32>>,
}

/// Looks for the keys of a side's changes.
struct Finder<'a> {
    side: &'a Side,
    at: usize,
    index: Option<&'a KeyIndex>,
    views: &'a Views<'a>,
    nulls_match: bool,
    /// Whether it looks for slots on this side, where it is kept here.
    looks: bool,
}

/// Rows of a change and what is known of their keys so far.
struct Found {
    chunk: Chunk,
    keys: Vec<ArrayRef>,
    /// On their own side, where they were looked for.
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
        // The slots of the same keys on the other side, where they are others there.
        let other = self.views.of(1 - self.at).map(|other| &other.index).or((!here).then_some(index));
        if let Some(other) = other {
            other.find(&keys, others.insert(Vec::with_capacity(chunk.rows.num_rows())))?;
        }
        Ok(Found { chunk, keys, slots, others, apart })
    }
}

impl Keyed {
    /// By row the slot of its key on the other side.
    pub fn others(&self) -> &[u32] {
        self.others.as_deref().unwrap_or(&self.placed.slots)
    }
}

impl Side {
    /// The `at`th side, of which nothing is there yet.
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

    /// Forgets all rows.
    pub fn reset(&mut self) {
        self.rows = self.rows.take().map(|rows| Arranged::new(rows.schema().clone()));
        self.totals = self.totals.take().map(|_| Paged::default());
    }

    /// Forgets the rows of some keys.
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

    /// Finds the keys of changes of this side, the `at`th. Rows whose key can't be computed become failures.
    pub fn place(
        &self,
        at: usize,
        (index, views): (&mut Option<KeyIndex>, &Views<'_>),
        nulls_match: bool,
        (delta, threads): (&Delta, &Threads),
        failures: &mut Vec<Failure>,
    ) -> Result<Change> {
        let mut change = Change::default();
        let rows = delta.num_rows();
        if !threads.cuts(rows) {
            for chunk in &delta.chunks {
                let pieces = surviving_exprs(&self.keys, chunk.clone(), failures, |chunk| {
                    evaluate(&self.keys, &chunk.rows)
                })?;
                for (chunk, keys) in pieces {
                    let finder =
                        Finder { side: self, at, index: index.as_ref(), views, nulls_match, looks: false };
                    let found = finder.look_up(chunk, keys)?;
                    self.settle(found, index, false, &mut change)?;
                }
            }
            return Ok(change);
        }
        // Looking keys up changes nothing; then one thread gives slots to those that are new, in the order of the rows.
        let looks = threads.share(rows);
        let finder = Finder { side: self, at, index: index.as_ref(), views, nulls_match, looks };
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
            found.into_iter().try_for_each(|found| self.settle(found, index, looks, &mut change))?;
        }
        Ok(change)
    }

    /// Gives slots to keys that are new where this side is kept here; `looked` says whether the others have theirs.
    fn settle(
        &self,
        found: Found,
        index: &mut Option<KeyIndex>,
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

    /// How many rows there are of a key, where that is kept.
    pub fn total(&self, slot: u32) -> i64 {
        let totals = self.totals.as_ref().filter(|totals| (slot as usize) < totals.len());
        totals.map_or(0, |totals| totals[slot as usize])
    }

    /// Whether nothing is kept of a key.
    pub fn is_empty(&self, slot: u32) -> bool {
        match &self.rows {
            Some(rows) => rows.rows_of(slot) == 0,
            None => self.total(slot) == 0,
        }
    }

    /// Counts changes into the totals, and says which moved; nothing where no totals are kept.
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

    /// About how many bytes it takes.
    pub fn memory_bytes(&self) -> usize {
        let rows = self.rows.as_ref().map_or(0, Arranged::memory_bytes);
        rows + self.totals.as_ref().map_or(0, Paged::memory_bytes) + self.counted(Arrangement::memory_bytes)
    }

    /// How many rows it keeps.
    pub fn num_rows(&self) -> usize {
        self.rows.as_ref().map_or(0, Arranged::num_rows) + self.counted(Arrangement::num_rows)
    }

    /// Shows what of it may lie in files.
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

    /// Takes in rows that are there already.
    pub fn take(&mut self, placed: Placed) -> Result<()> {
        let keyed = [Keyed { placed, others: None }];
        self.count(&keyed);
        let [Keyed { placed, .. }] = keyed;
        if let Some(rows) = &mut self.rows {
            rows.apply(vec![placed])?;
        }
        Ok(())
    }

    /// From now on its rows are kept elsewhere; `columns` says where its columns lie in them.
    pub fn move_out(&mut self, arrangement: Arc<Arrangement>, columns: Vec<usize>) {
        (self.rows, self.totals) = (None, None);
        self.elsewhere = Some(Elsewhere { arrangement, counted: false });
        self.columns = columns;
    }

    /// All its rows, where it keeps them itself under these keys.
    pub fn content(&self, index: Option<&KeyIndex>) -> Result<Delta> {
        let (Some(rows), Some(index)) = (&self.rows, index) else {
            return Err(Error::Bug("a join that keeps its own rows by key gives them away".into()));
        };
        Ok(rows.delta(&index.live())?)
    }
}
