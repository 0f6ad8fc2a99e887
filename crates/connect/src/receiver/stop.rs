//! Ends a source's threads, which may be blocked in the operating system.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Minimum and maximum pause between attempts of a receiver.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Returns the pause before the `attempt`-th restart. It doubles up to a bound, less a random part of up to
/// a half, so that receivers that failed together don't restart together.
pub(crate) fn backoff(attempt: u32) -> Duration {
    let whole = PAUSE_MIN.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(PAUSE_MAX);
    let random = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
    whole.mul_f64(1.0 - random / 2.0)
}

/// A stop signal that also unblocks threads in blocking calls.
#[derive(Default)]
pub(crate) struct Stop {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    stopped: bool,
    next: u64,
    /// Functions that unblock threads, by registration.
    unblocks: BTreeMap<u64, Box<dyn Fn() + Send>>,
}

/// Removes the registration when dropped.
pub(crate) struct Registered {
    stop: Arc<Stop>,
    key: u64,
}

impl Stop {
    /// Stops all threads.
    pub fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        state.unblocks.values().for_each(|unblock| unblock());
        self.bell.notify_all();
    }

    /// Returns true after [`Stop::stop`].
    pub fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Registers a function for [`Stop::stop`] to call; calls it at once if already stopped. Dropping the
    /// result unregisters the function.
    pub fn register(self: &Arc<Self>, unblock: impl Fn() + Send + 'static) -> Registered {
        let mut state = self.state();
        if state.stopped {
            unblock();
        }
        let key = state.next;
        state.next += 1;
        state.unblocks.insert(key, Box::new(unblock));
        Registered { stop: self.clone(), key }
    }

    /// Waits for `pause`, or until stopped. Returns true if stopped.
    pub fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut state = self.state();
        while !state.stopped {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.bell.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("stopped", &self.is_stopped()).finish_non_exhaustive()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.stop.state().unblocks.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        for attempt in 1..50 {
            let pause = backoff(attempt);
            assert!(pause >= PAUSE_MIN / 2 && pause <= PAUSE_MAX, "{pause:?}");
        }
        assert!(backoff(40) >= PAUSE_MAX / 2);
        assert_ne!(backoff(9), backoff(9));
    }

    #[test]
    fn a_pause_ends_with_the_stop() {
        let stop = Arc::new(Stop::default());
        let other = stop.clone();
        let waiting = std::thread::spawn(move || other.pause(Duration::from_secs(600)));
        stop.stop();
        assert!(waiting.join().unwrap());
        assert!(stop.pause(Duration::from_secs(600)));
    }
}
