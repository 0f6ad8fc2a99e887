//! Work spread over threads, with results in the order of the work.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream_delta::{Chunk, Delta, Pool};

use crate::interrupt::{self, Interrupt};

/// The minimum number of rows for spreading work, unless a test sets another: starting threads for fewer
/// costs more.
const FROM_ROWS: usize = 16_384;

/// The maximum number of threads, and the minimum number of rows. Clones share the threads: nested work gets
/// those that are free.
#[derive(Clone, Debug)]
pub struct Threads {
    count: Arc<Count>,
    from_rows: usize,
}

#[derive(Debug)]
struct Count {
    most: AtomicUsize,
    /// The number of threads at work beside the caller.
    helping: AtomicUsize,
    /// The pool of helping threads, created on first use.
    pool: Mutex<Option<Arc<Pool>>>,
}

impl Count {
    fn pool(&self) -> Arc<Pool> {
        let threads = self.most.load(Ordering::Relaxed).saturating_sub(1);
        let mut pool = lock(&self.pool);
        if let Some(pool) = pool.as_ref().filter(|pool| pool.threads() == threads) {
            return pool.clone();
        }
        pool.insert(Arc::new(Pool::new("millstream-step", threads))).clone()
    }
}

/// A permission for one helping thread; returned on drop.
struct Helper<'a>(&'a Count);

impl Threads {
    /// Returns the calling thread alone, until [`Threads::set`].
    pub(crate) fn one() -> Threads {
        let count = Count { most: AtomicUsize::new(1), helping: AtomicUsize::new(0), pool: Mutex::default() };
        Threads { count: Arc::new(count), from_rows: FROM_ROWS }
    }

    /// Sets the number of threads.
    pub(crate) fn set(&self, most: NonZeroUsize) {
        self.count.most.store(most.get(), Ordering::Relaxed);
    }

    /// Returns the same threads with another minimum number of rows.
    pub(crate) fn over_from(&self, rows: usize) -> Threads {
        Threads { from_rows: rows, ..self.clone() }
    }

    /// Returns true if this number of rows is cut into pieces; the number of threads doesn't matter.
    pub(crate) fn cuts(&self, rows: usize) -> bool {
        rows >= self.from_rows
    }

    /// Returns true if several threads may work.
    pub(crate) fn are_several(&self) -> bool {
        self.count.most.load(Ordering::Relaxed) > 1
    }

    /// Returns true if several threads may work on this number of rows.
    pub(crate) fn share(&self, rows: usize) -> bool {
        self.cuts(rows) && self.are_several()
    }

    /// Returns the maximum number of rows of a piece.
    pub fn piece_rows(&self) -> usize {
        (self.from_rows / 2).max(1)
    }

    /// Returns the number of rows to process at once: `most`, or fewer if a test spreads small changes.
    pub(crate) fn at_once(&self, most: usize) -> usize {
        most.min(self.from_rows).max(1)
    }

    /// Returns the chunks of changes, cut into pieces.
    pub(crate) fn pieces(&self, inputs: &[&Delta]) -> Vec<Chunk> {
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

    /// Does the same if there are enough rows to be cut, else returns the chunks unchanged.
    pub(crate) fn cut(&self, inputs: &[&Delta]) -> Vec<Chunk> {
        match self.cuts(inputs.iter().map(|delta| delta.num_rows()).sum()) {
            true => self.pieces(inputs),
            false => inputs.iter().flat_map(|delta| &delta.chunks).cloned().collect(),
        }
    }

    /// Returns the ranges of the pieces of `rows` rows.
    pub(crate) fn ranges(&self, rows: usize) -> Vec<Range<usize>> {
        let most = self.piece_rows();
        (0..rows).step_by(most).map(|from| from..rows.min(from + most)).collect()
    }

    /// Cuts many items into pieces in their order; items of the same group stay together.
    pub(crate) fn groups<'a, T>(&self, items: &'a [T], same: impl Fn(&T, &T) -> bool) -> Vec<&'a [T]> {
        let (mut groups, mut rest) = (Vec::new(), items);
        while self.cuts(items.len()) && rest.len() > self.piece_rows() {
            let mut end = self.piece_rows();
            while end < rest.len() && same(&rest[end - 1], &rest[end]) {
                end += 1;
            }
            groups.push(&rest[..end]);
            rest = &rest[end..];
        }
        if !rest.is_empty() {
            groups.push(rest);
        }
        groups
    }

    /// Processes each item on this thread and on free ones; results are in the order of the items. One thread
    /// processes an item completely, so a result doesn't depend on the number of threads.
    pub fn spread<T: Send, R: Send>(&self, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
        let helpers = self.helpers(items.len().saturating_sub(1));
        if helpers.is_empty() {
            return items.into_iter().map(work).collect();
        }
        let interrupt = Interrupt::current();
        let work = |item| interrupt::run_with(interrupt.as_ref(), || work(item));
        self.count.pool().spread(items, helpers, work)
    }

    /// Does the same if the items have enough rows in total, else works on this thread alone.
    pub(crate) fn spread_over<T: Send, R: Send>(
        &self,
        rows: usize,
        items: Vec<T>,
        work: impl Fn(T) -> R + Sync,
    ) -> Vec<R> {
        if self.cuts(rows) { self.spread(items, work) } else { items.into_iter().map(work).collect() }
    }

    /// Takes permissions for at most `wanted` helping threads.
    fn helpers(&self, wanted: usize) -> Vec<Helper<'_>> {
        let Count { most, helping, .. } = &*self.count;
        let most = most.load(Ordering::Relaxed).saturating_sub(1);
        let free = |busy: usize| Some(busy + wanted.min(most.saturating_sub(busy)));
        let before = helping.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).unwrap_or(most);
        let got = wanted.min(most.saturating_sub(before));
        (0..got).map(|_| Helper(&self.count)).collect()
    }
}

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        self.0.helping.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Locks a mutex, ignoring poison: a panic of a work item ends the scope anyway.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn threads(count: usize) -> Threads {
        let threads = Threads::one();
        threads.set(NonZeroUsize::new(count).unwrap());
        threads
    }

    #[test]
    fn pieces_are_all_rows_in_their_order() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
        let rows = RecordBatch::try_from_iter([("x", column)]).unwrap();
        let small = Chunk { rows: rows.slice(0, 3), weights: Some(Int64Array::from(vec![1, -1, 2])) };
        let delta = Delta { chunks: vec![small, Chunk::insert(rows)] };
        let pieces = Threads::one().over_from(20).pieces(&[&delta]);
        let counts: Vec<usize> = pieces.iter().map(|piece| piece.rows.num_rows()).collect();
        assert_eq!(counts, [[3].as_slice(), &[10; 10]].concat());
        assert_eq!(pieces[0].weight(1), -1);
        let values = |piece: &Chunk| piece.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        assert!(pieces[1..].iter().flat_map(values).eq(0..100));
    }

    #[test]
    fn results_come_in_the_order_of_the_work() {
        for count in [1, 2, 7] {
            let threads = threads(count);
            let squares = threads.spread((0..1000_u64).collect(), |n| n * n);
            assert!(squares.into_iter().eq((0..1000).map(|n| n * n)));
            assert!(threads.spread(Vec::<u64>::new(), |n| n).is_empty());
        }
    }

    #[test]
    fn no_more_threads_work_than_there_may_be() {
        let threads = threads(3);
        let (working, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let parts = threads.spread((0..8).collect(), |part: u64| {
            threads.spread((0..40).collect(), |n: u64| {
                most.fetch_max(working.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                working.fetch_sub(1, Ordering::SeqCst);
                part * 100 + n
            })
        });
        let distinct: HashSet<u64> = parts.into_iter().flatten().collect();
        assert_eq!(distinct.len(), 8 * 40);
        assert!((1..=3).contains(&most.into_inner()));
        assert_eq!(threads.helpers(9).len(), 2);
        let panicked = std::panic::catch_unwind(|| threads.spread(vec![1, 2, 3], |n| assert!(n > 9)));
        assert!(panicked.is_err());
        assert_eq!(threads.helpers(9).len(), 2, "threads that panic are free again");
    }
}
