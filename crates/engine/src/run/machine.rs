//! The machine's clock, as the engine goes by it: it never goes back.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millstream_delta::Timestamp;

/// Says what time it is.
pub type TimeSource = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A clock that moves so much further than the time that passes was set forward.
const LEAP: Duration = Duration::from_secs(10);

/// While the machine's clock shows an earlier time than was shown before, time goes on slower by one part of so many, until
/// that has come up.
const SLOWER: u32 = 10;

/// A clock that may be set, and shows no earlier time after a later one.
pub(super) struct MachineClock {
    source: TimeSource,
    /// What was shown last, and when.
    shown: Cell<(Timestamp, Instant)>,
    /// What was shown when it was last looked whether the clock was set.
    looked: (Timestamp, Instant),
}

impl MachineClock {
    pub(super) fn new(source: TimeSource) -> MachineClock {
        let begun = (source(), Instant::now());
        MachineClock { source, shown: Cell::new(begun), looked: begun }
    }

    /// The time now. Where the machine's clock was set back, the time goes on from what was shown.
    pub(super) fn now(&self) -> Timestamp {
        let (shown, at) = self.shown.get();
        let now = Instant::now();
        let passed = now - at;
        let at_least = shown.0 + (passed - passed / SLOWER).as_micros() as i64;
        let time = Timestamp((self.source)().0.max(at_least));
        self.shown.set((time, now));
        time
    }

    /// Shows no earlier time than this from now on: that of the last epoch of the process before.
    pub(super) fn begin_after(&mut self, last: Timestamp) {
        let (shown, at) = self.shown.get();
        self.shown.set((shown.max(last), at));
        self.looked = (self.now(), Instant::now());
    }

    /// Whether the clock was set forward since that was asked last.
    pub(super) fn has_leapt(&mut self) -> bool {
        let (time, now) = (self.now(), Instant::now());
        let (before, at) = std::mem::replace(&mut self.looked, (time, now));
        time.0 - before.0 > (now - at + LEAP).as_micros() as i64
    }
}

impl fmt::Debug for MachineClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineClock").field("shown", &self.shown.get().0).finish_non_exhaustive()
    }
}

/// What the operating system says.
pub(crate) fn system_time() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    const HOUR_US: i64 = 3_600_000_000;

    fn clock(time: &Arc<AtomicI64>) -> MachineClock {
        let time = time.clone();
        MachineClock::new(Arc::new(move || Timestamp(time.load(Ordering::Relaxed))))
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
