//! The pairs of a change's rows with those of the other side.

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use millstream_delta::Chunk;

use super::views::Views;
use super::{Join, PAIRS, some_weights};
use crate::{Error, Result, interrupt};

/// The maximum number of batches of pairs that wait to be processed in parallel.
const BATCHES: usize = 16;

/// Pairs to make: rows of the change, and one row of the other side for each.
pub(super) struct Batch {
    pub(super) rows: Vec<u32>,
    pub(super) theirs: Theirs,
}

/// Rows of the other side.
pub(super) enum Theirs {
    /// Kept rows, by their ids.
    Kept(Vec<u64>),
    /// Rows that this epoch changes in an arrangement: the staged chunk, and the row in it.
    Staged(Vec<(usize, usize)>),
}

impl Join {
    /// Processes the pairs of a change's rows with the other side's rows of their keys, some at a time and in
    /// parallel if there are many. Passes the results to `take` in the order of the pairs. `slots` are the
    /// other side's slots of the rows' keys.
    pub(super) fn each_batch<R: Send>(
        &self,
        at: usize,
        slots: &[u32],
        views: &Views<'_>,
        work: impl Fn(&Batch) -> Result<R> + Sync,
        mut take: impl FnMut(Batch, R) -> Result<()>,
    ) -> Result<()> {
        let most = self.threads.at_once(PAIRS.get());
        let mut waiting = Vec::new();
        let mut push = |batch: Batch, waiting: &mut Vec<Batch>| {
            interrupt::check()?;
            if waiting.is_empty() && batch.rows.len() < most {
                let done = work(&batch)?;
                return take(batch, done);
            }
            waiting.push(batch);
            if waiting.len() < BATCHES { Ok(()) } else { self.work_on(waiting, &work, &mut take) }
        };
        let others = self.rows(1 - at, views)?;
        in_batches(
            most,
            slots,
            |slot| others.ids(slot),
            |rows, ids| push(Batch { rows, theirs: Theirs::Kept(ids) }, &mut waiting),
        )?;
        if let Some(others) = views.of(1 - at).filter(|_| views.both() && at == 1) {
            in_batches(
                most,
                slots,
                |slot| others.staged(slot),
                |rows, places| push(Batch { rows, theirs: Theirs::Staged(places) }, &mut waiting),
            )?;
        }
        self.work_on(&mut waiting, &work, &mut take)
    }

    fn work_on<R: Send>(
        &self,
        batches: &mut Vec<Batch>,
        work: &(impl Fn(&Batch) -> Result<R> + Sync),
        take: &mut impl FnMut(Batch, R) -> Result<()>,
    ) -> Result<()> {
        if batches.is_empty() {
            return Ok(());
        }
        let done = self.threads.spread(std::mem::take(batches), |batch| {
            let done = work(&batch)?;
            Ok::<_, Error>((done, batch))
        });
        done.into_iter().try_for_each(|done| done.and_then(|(done, batch)| take(batch, done)))
    }

    /// Returns the rows of pairs with their weights, and the number of copies of the other side's rows.
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

/// Pairs rows with the items of their slots, `most` at a time.
fn in_batches<'a, T: Copy + 'a>(
    most: usize,
    slots: &[u32],
    of: impl Fn(u32) -> &'a [T],
    mut take: impl FnMut(Vec<u32>, Vec<T>) -> Result<()>,
) -> Result<()> {
    let (mut rows, mut theirs) = (Vec::new(), Vec::new());
    for (row, slot) in slots.iter().enumerate() {
        let mut rest = of(*slot);
        while !rest.is_empty() {
            let (some, more) = rest.split_at(rest.len().min(most - theirs.len()));
            theirs.extend_from_slice(some);
            rows.resize(theirs.len(), row as u32);
            rest = more;
            if theirs.len() == most {
                take(std::mem::take(&mut rows), std::mem::take(&mut theirs))?;
            }
        }
    }
    if rows.is_empty() { Ok(()) } else { take(rows, theirs) }
}
