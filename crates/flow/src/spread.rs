//! Work spread over threads, with results in the order of the work.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use millstream_delta::{Chunk, Delta};

/// Does something with each item, on this thread and so many others; the results come in the order of the items.
/// Whoever gets an item does all of it, so a result can't depend on the number of threads.
pub fn spread<T: Send, R: Send>(
    threads: NonZeroUsize,
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let others = threads.get().min(items.len()).saturating_sub(1);
    if others == 0 {
        return items.into_iter().map(work).collect();
    }
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::default()).collect();
    let waiting = Mutex::new(items.into_iter().zip(&results));
    let take_and_do = || {
        loop {
            let next = lock(&waiting).next();
            let Some((item, result)) = next else { break };
            let done = work(item);
            *lock(result) = Some(done);
        }
    };
    std::thread::scope(|scope| {
        (0..others).for_each(|_| {
            scope.spawn(take_and_do);
        });
        take_and_do();
    });
    let done = |result: Mutex<Option<R>>| result.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().filter_map(done).collect()
}

/// On how many threads an operator works, and over how many rows at least: fewer are done sooner than threads start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Threads {
    pub(crate) count: NonZeroUsize,
    pub(crate) from_rows: usize,
}

impl Threads {
    /// The calling thread alone.
    pub(crate) const ONE: Threads = Threads { count: NonZeroUsize::MIN, from_rows: 16_384 };

    /// Whether so many rows are cut into pieces; that doesn't depend on the number of threads.
    pub(crate) fn cuts(self, rows: usize) -> bool {
        rows >= self.from_rows
    }

    /// On how many threads so many rows are worked on.
    pub(crate) fn over(self, rows: usize) -> NonZeroUsize {
        if self.cuts(rows) { self.count } else { NonZeroUsize::MIN }
    }

    /// How many rows a piece has at most.
    pub(crate) fn piece_rows(self) -> usize {
        (self.from_rows / 2).max(1)
    }

    /// The chunks of changes, cut to pieces.
    pub(crate) fn pieces(self, inputs: &[&Delta]) -> Vec<Chunk> {
        let mut pieces = Vec::new();
        for chunk in inputs.iter().flat_map(|delta| &delta.chunks) {
            let (rows, most) = (chunk.rows.num_rows(), self.piece_rows());
            match rows <= most {
                true => pieces.push(chunk.clone()),
                false => pieces
                    .extend((0..rows).step_by(most).map(|from| chunk.slice(from, most.min(rows - from)))),
            }
        }
        pieces
    }
}

/// What a lock guards; work that panics ends the scope, whatever the lock says.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn pieces_are_all_rows_in_their_order() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
        let rows = RecordBatch::try_from_iter([("x", column)]).unwrap();
        let small = Chunk { rows: rows.slice(0, 3), weights: Some(Int64Array::from(vec![1, -1, 2])) };
        let delta = Delta { chunks: vec![small, Chunk::insert(rows)] };
        let pieces = Threads { from_rows: 20, ..Threads::ONE }.pieces(&[&delta]);
        let counts: Vec<usize> = pieces.iter().map(|piece| piece.rows.num_rows()).collect();
        assert_eq!(counts, [[3].as_slice(), &[10; 10]].concat());
        assert_eq!(pieces[0].weight(1), -1);
        let values = |piece: &Chunk| piece.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        assert!(pieces[1..].iter().flat_map(values).eq(0..100));
    }

    #[test]
    fn results_come_in_the_order_of_the_work() {
        for threads in [1, 2, 7] {
            let threads = NonZeroUsize::new(threads).unwrap();
            let squares = spread(threads, (0..1000_u64).collect(), |n| n * n);
            assert!(squares.into_iter().eq((0..1000).map(|n| n * n)));
            assert!(spread(threads, Vec::<u64>::new(), |n| n).is_empty());
        }
    }
}
