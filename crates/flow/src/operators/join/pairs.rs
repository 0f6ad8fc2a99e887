//! The pairs that the rows of a change make with those of the other side.

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use millstream_delta::Chunk;

use super::views::Views;
use super::{Join, PAIRS, some_weights};
use crate::Result;

/// Pairs to make: rows of the change, and as many rows of the other side.
pub(super) struct Batch {
    pub(super) rows: Vec<u32>,
    pub(super) theirs: Theirs,
}

/// Rows of the other side.
pub(super) enum Theirs {
    /// Those that are kept, by their ids.
    Kept(Vec<u64>),
    /// Those that this epoch changes, of a side that is kept elsewhere: the staged chunk, and the row in it.
    Staged(Vec<(usize, usize)>),
}

impl Join {
    /// The pairs of rows of a change with the other side's rows of their keys, some at a time. `slots` has their keys
    /// as the other side knows them.
    pub(super) fn each_batch(
        &self,
        at: usize,
        slots: &[u32],
        views: &Views<'_>,
        mut take: impl FnMut(Batch) -> Result<()>,
    ) -> Result<()> {
        let others = self.rows(1 - at, views)?;
        in_batches(
            slots,
            |slot| others.ids(slot),
            |rows, ids| take(Batch { rows, theirs: Theirs::Kept(ids) }),
        )?;
        match views.of(1 - at) {
            Some(others) if views.both() && at == 1 => in_batches(
                slots,
                |slot| others.staged(slot),
                |rows, places| take(Batch { rows, theirs: Theirs::Staged(places) }),
            ),
            _ => Ok(()),
        }
    }

    /// The rows of pairs with their weights, and how many copies there are of the other side's.
    pub(super) fn pairs(
        &self,
        at: usize,
        chunk: &Chunk,
        batch: &Batch,
        views: &Views<'_>,
    ) -> Result<(Chunk, Vec<i64>)> {
        let columns = &self.sides[1 - at].columns;
        let (theirs, counts) = match (&batch.theirs, views.of(1 - at)) {
            (Theirs::Staged(places), Some(others)) => others.gather_staged(places, columns)?,
            (Theirs::Kept(ids), _) => self.rows(1 - at, views)?.gather_counted(ids, columns)?,
            (Theirs::Staged(_), None) => return Err(super::no_rows()),
        };
        let mine = take_record_batch(&chunk.rows, &UInt32Array::from(batch.rows.clone()))?;
        let weights: Vec<i64> =
            batch.rows.iter().zip(&counts).map(|(row, count)| chunk.weight(*row as usize) * count).collect();
        let rows = self.pairs.pair(at, &mine, &theirs)?;
        Ok((Chunk { rows, weights: some_weights(weights) }, counts))
    }
}

/// Rows beside what `of` has for their slots, as many at a time as pairs are made at once.
fn in_batches<'a, T: Copy + 'a>(
    slots: &[u32],
    of: impl Fn(u32) -> &'a [T],
    mut take: impl FnMut(Vec<u32>, Vec<T>) -> Result<()>,
) -> Result<()> {
    let (mut rows, mut theirs) = (Vec::new(), Vec::new());
    for (row, slot) in slots.iter().enumerate() {
        let mut rest = of(*slot);
        while !rest.is_empty() {
            let (some, more) = rest.split_at(rest.len().min(PAIRS - theirs.len()));
            theirs.extend_from_slice(some);
            rows.resize(theirs.len(), row as u32);
            rest = more;
            if theirs.len() == PAIRS {
                take(std::mem::take(&mut rows), std::mem::take(&mut theirs))?;
            }
        }
    }
    if rows.is_empty() { Ok(()) } else { take(rows, theirs) }
}
