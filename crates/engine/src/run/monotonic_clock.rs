//! The system clock as the engine uses it: it never goes back.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millstream_delta::Timestamp;

/// A function that returns the time.
pub type TimeSource = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A clock was set forward if it moves so much further than the time that passes.
const LEAP: Duration = Duration::from_secs(10);

/// The system clock may show an earlier time than was shown before. Then time runs slower by one part in so many, until
/// the system clock has caught up.
const SLOWER: u32 = 10;

/// A clock that may be set, but never shows an earlier time after a later one.
pub(super) struct MonotonicClock {
    source: TimeSource,
    /// The time shown last, and the moment of that.
    shown: Cell<(Timestamp, Instant)>,
    /// The time shown at the last check for a change of the clock, and the moment of that.
    looked: (Timestamp, Instant),
}

impl MonotonicClock {
    pub(super) fn new(source: TimeSource) -> MonotonicClock {
        let begun = (source(), Instant::now());
        MonotonicClock { source, shown: Cell::new(begun), looked: begun }
    }

    /// Returns the present time. If the system clock was set back, the time continues from the last one shown.
    pub(super) fn now(&self) -> Timestamp {
        let (shown, at) = self.shown.get();
        let now = Instant::now();
        let passed = now - at;
        let at_least = shown.0 + (passed - passed / SLOWER).as_micros() as i64;
        let time = Timestamp((self.source)().0.max(at_least));
        self.shown.set((time, now));
        time
    }

    /// Shows no time before `last` from now on: that of the last epoch of the previous process.
    pub(super) fn begin_after(&mut self, last: Timestamp) {
        let (shown, at) = self.shown.get();
        self.shown.set((shown.max(last), at));
        self.looked = (self.now(), Instant::now());
    }

    /// Returns true if the clock was set forward since the last call.
    pub(super) fn has_leapt(&mut self) -> bool {
        let (time, now) = (self.now(), Instant::now());
        let (before, at) = std::mem::replace(&mut self.looked, (time, now));
        time.0 - before.0 > (now - at + LEAP).as_micros() as i64
    }
}

impl fmt::Debug for MonotonicClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonotonicClock").field("shown", &self.shown.get().0).finish_non_exhaustive()
    }
}

/// Returns the time of the operating system.
pub(crate) fn system_time() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    const HOUR_US: i64 = 3_600_000_000;

    fn clock(time: &Arc<AtomicI64>) -> MonotonicClock {
        let time = time.clone();
        MonotonicClock::new(Arc::new(move || Timestamp(time.load(Ordering::Relaxed))))
    }

    #[test]
    fn it_goes_on_where_it_is_set_back() {
        let time = Arc::new(AtomicI64::new(10 * HOUR_US));
        let mut clock = clock(&time);
        time.store(8 * HOUR_US, Ordering::Relaxed);
        let before = clock.now();
        std::thread::sleep(Duration::from_millis(5));
        let after = clock.now();
        assert!(before.0 >= 10 * HOUR_US && after.0 >= before.0 + 4_000, "{before} {after}");
        assert!(after.0 < 10 * HOUR_US + 60_000_000);
        assert!(!clock.has_leapt());
        time.store(11 * HOUR_US, Ordering::Relaxed);
        assert_eq!(clock.now().0, 11 * HOUR_US);
        assert!(clock.has_leapt());
        assert!(!clock.has_leapt());
    }

    #[test]
    fn it_begins_behind_what_was_before() {
        let time = Arc::new(AtomicI64::new(8 * HOUR_US));
        let mut clock = clock(&time);
        clock.begin_after(Timestamp(10 * HOUR_US));
        assert!(clock.now().0 >= 10 * HOUR_US);
        assert!(!clock.has_leapt());
    }
}
