//! Threads that stand by to help with work, with results in the order of the work.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Builder;

use rayon_core::{ThreadPool, ThreadPoolBuilder};

use crate::stack::STACK_BYTES;

/// Threads that help; they end with it.
#[derive(Debug)]
pub struct Pool {
    name: &'static str,
    /// None where nobody is to help, or the system has no threads to give: then who asks does the work.
    threads: Option<ThreadPool>,
}

impl Pool {
    /// So many threads of this name.
    pub fn new(name: &'static str, threads: usize) -> Pool {
        let builder = ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK_BYTES);
        let builder = builder.thread_name(move |_| name.to_owned());
        let threads = if threads == 0 { None } else { builder.build().ok() };
        Pool { name, threads }
    }

    /// How many they are.
    pub fn threads(&self) -> usize {
        self.threads.as_ref().map_or(0, ThreadPool::current_num_threads)
    }

    /// Does something with each item, on this thread and one of the pool for each of `helpers`, which it keeps as long as it
    /// works; the results come in the order of the items. Whoever gets an item does all of it, so a result can't depend
    /// on the number of threads.
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
            // A thread of the pool would do other work while it waits, under the locks that it holds.
            Some(_) => std::thread::scope(|scope| {
                for helper in helpers {
                    // Where the system has no thread to give, this one does the work.
                    let _ = Builder::new().name(self.name.to_owned()).spawn_scoped(scope, help(helper));
                }
                take_and_do();
            }),
        }
        let done = |result: Mutex<Option<R>>| result.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.into_iter().filter_map(done).collect()
    }
}

/// What a lock guards; work that panics ends the scope, whatever the lock says.
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
            // Work that is part of work of the same threads doesn't wait for itself.
            let sums = pool.spread((0..20_u64).collect(), vec![(); threads], |n| {
                pool.spread((0..50).collect(), vec![(); threads], |m| n * m).into_iter().sum::<u64>()
            });
            assert!(sums.into_iter().eq((0..20).map(|n| n * 49 * 50 / 2)));
        }
    }
}
