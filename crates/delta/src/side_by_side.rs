//! Work on several threads, with results in the order of the work.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Builder;

/// Does something with each item, on this thread and one more for each of `helpers`, which its thread keeps as long as
/// it works; the results come in the order of the items. `name` is that of the threads. Whoever gets an item does all of
/// it, so a result can't depend on the number of threads.
pub fn side_by_side<T: Send, R: Send, H: Send>(
    name: &str,
    items: Vec<T>,
    helpers: Vec<H>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    if helpers.is_empty() {
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
    let take_and_do = &take_and_do;
    std::thread::scope(|scope| {
        for helper in helpers {
            let help = move || {
                let _helper = helper;
                take_and_do();
            };
            // Where the system has no thread to give, this one does the work.
            let _ = Builder::new().name(name.to_owned()).spawn_scoped(scope, help);
        }
        take_and_do();
    });
    let done = |result: Mutex<Option<R>>| result.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().filter_map(done).collect()
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
        for helpers in [0, 1, 6] {
            let squares = side_by_side("a-test", (0..1000_u64).collect(), vec![(); helpers], |n| n * n);
            assert!(squares.into_iter().eq((0..1000).map(|n| n * n)));
        }
    }
}
