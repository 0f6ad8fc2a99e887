//! A pool of helper threads. Results come in the order of the work items.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Builder;

use rayon_core::{ThreadPool, ThreadPoolBuilder};

use crate::stack::STACK_BYTES;

/// A pool of threads, which end with it.
#[derive(Debug)]
pub struct Pool {
    name: &'static str,
    /// `None` if the pool has no threads, or the system provides none: then the calling thread does all work.
    threads: Option<ThreadPool>,
}

impl Pool {
    /// Starts a pool of `threads` threads.
    pub fn new(name: &'static str, threads: usize) -> Pool {
        let builder = ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK_BYTES);
        let builder = builder.thread_name(move |_| name.to_owned());
        let threads = if threads == 0 { None } else { builder.build().ok() };
        Pool { name, threads }
    }

    /// Returns the number of threads.
    pub fn threads(&self) -> usize {
        self.threads.as_ref().map_or(0, ThreadPool::current_num_threads)
    }

    /// Applies `work` to each item, on this thread and on one thread of the pool per element of `helpers`. A
    /// helper thread holds its element while it works. The results come in the order of the items. One thread
    /// does all of an item, so results don't depend on the number of threads.
    pub fn spread<T: Send, R: Send, H: Send>(
        &self,
        items: Vec<T>,
        helpers: Vec<H>,
        work: impl Fn(T) -> R + Sync,
    ) -> Vec<R> {
        let Some(threads) = self.threads.as_ref().filter(|_| !helpers.is_empty() && items.len() > 1) else {
            return items.into_iter().map(work).collect();
        };
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
        let take_and_do = &take_and_do;
        let help = |helper: H| {
            move || {
                let _helper = helper;
                take_and_do();
            }
        };
        match threads.current_thread_index() {
            None => threads.in_place_scope(|scope| {
                helpers.into_iter().map(help).for_each(|help| scope.spawn(move |_| help()));
                take_and_do();
            }),
            // A thread of the pool would run other jobs while it waits, under the locks that it holds.
            Some(_) => std::thread::scope(|scope| {
                for helper in helpers {
                    // If the system provides no thread, this one does the work.
                    let _ = Builder::new().name(self.name.to_owned()).spawn_scoped(scope, help(helper));
                }
                take_and_do();
            }),
        }
        let done = |result: Mutex<Option<R>>| result.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.into_iter().filter_map(done).collect()
    }
}

/// Locks a mutex, poisoned or not: a panic of the work ends the scope anyway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_work() {
        for threads in [0, 1, 6] {
            let pool = Pool::new("a-test", threads);
            assert_eq!(pool.threads(), threads);
            let squares = pool.spread((0..1000_u64).collect(), vec![(); threads], |n| n * n);
            assert!(squares.into_iter().eq((0..1000).map(|n| n * n)));
            // Nested work on the same threads doesn't deadlock.
            let sums = pool.spread((0..20_u64).collect(), vec![(); threads], |n| {
                pool.spread((0..50).collect(), vec![(); threads], |m| n * m).into_iter().sum::<u64>()
            });
            assert!(sums.into_iter().eq((0..20).map(|n| n * 49 * 50 / 2)));
        }
    }
}
