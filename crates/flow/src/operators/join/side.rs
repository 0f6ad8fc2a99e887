//! One side of a join: its rows by key, or how many there are of each key.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::not;
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::{Chunk, Delta};
use millstream_state::{Arranged, KeyIndex, Paged, Placed};

use super::shape::{Alone, Shape};
use super::views::Views;
use crate::arrangement::{Arrangement, Moved, whole};
use crate::drive::evaluate;
use crate::failure::{Failure, keep, surviving};
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
        delta: &Delta,
        failures: &mut Vec<Failure>,
    ) -> Result<Change> {
        let mut change = Change::default();
        for chunk in &delta.chunks {
            let pieces = surviving(chunk.clone(), failures, |chunk| evaluate(&self.keys, &chunk.rows))?;
            for (chunk, keys) in pieces {
                let Some(index) = index else {
                    let slots = vec![0; chunk.rows.num_rows()];
                    let placed = Placed { chunk, slots, tallies: None };
                    change.keyed.push(Keyed { placed, others: None });
                    continue;
                };
                let (mut chunk, mut keys) = (chunk, keys);
                if !nulls_match && keys.iter().any(|key| key.logical_null_count() > 0) {
                    let whole = whole(&keys);
                    change.apart.push(keep(&chunk, &not(&whole)?)?);
                    chunk = keep(&chunk, &whole)?;
                    keys = keys
                        .iter()
                        .map(|key| arrow::compute::filter(key, &whole))
                        .collect::<Result<_, _>>()?;
                }
                let (slots, others) = self.slots(at, index, views, &keys)?;
                change.keyed.push(Keyed { placed: Placed { chunk, slots, tallies: None }, others });
            }
        }
        Ok(change)
    }

    /// The slots of keys on this side, where it is kept here, and on the other, where they are others there.
    fn slots(
        &self,
        at: usize,
        index: &mut KeyIndex,
        views: &Views<'_>,
        keys: &[ArrayRef],
    ) -> Result<(Vec<u32>, Option<Vec<u32>>)> {
        let count = keys.first().map_or(0, |key| key.len());
        let (mut slots, mut others) = (Vec::new(), Vec::with_capacity(count));
        if self.elsewhere.is_none() {
            slots.reserve(count);
            index.slots(keys, &mut slots)?;
        }
        match views.of(1 - at) {
            Some(other) => other.index.find(keys, &mut others)?,
            None if self.elsewhere.is_some() => index.find(keys, &mut others)?,
            None => return Ok((slots, None)),
        }
        Ok((slots, Some(others)))
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
    pub fn content(&self, index: Option<&KeyIndex>) -> Result<Vec<arrow::array::RecordBatch>> {
        let (Some(rows), Some(index)) = (&self.rows, index) else {
            return Err(Error::Bug("a join that keeps its own rows by key gives them away".into()));
        };
        let mut batches = Vec::new();
        for slots in index.live().chunks(4096) {
            batches.extend(rows.gather(slots)?);
        }
        Ok(batches)
    }
}
