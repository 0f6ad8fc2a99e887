//! The speed of a query's steps, by which the loop decides if it can step the query itself.

use std::time::Duration;

use millstream_flow::Cost;

/// Steps longer than this, several times in a row, make a query slow.
const SLOW: Duration = Duration::from_millis(100);
const SLOW_STEPS: u32 = 3;

/// A step over many rows may take this long for each row, unless it would be slow with fewer rows, too.
const SLOW_ROW: Duration = Duration::from_micros(100);

/// A single step longer than this makes a query slow.
const VERY_SLOW: Duration = Duration::from_secs(1);

/// A query with this many steps in a row that are shorter than this can be stepped in each epoch again.
const QUICK: Duration = Duration::from_millis(25);
const QUICK_STEPS: u32 = 8;

/// The durations of a query's last steps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Speed {
    slow: u32,
    quick: u32,
}

impl Speed {
    /// Counts a step over a number of rows.
    pub(crate) fn took(&mut self, time: Duration, rows: usize, cost: Cost) {
        let for_rows = SLOW_ROW.saturating_mul(u32::try_from(rows).unwrap_or(u32::MAX));
        let slow = time > SLOW && (time > for_rows || cost >= Cost::Few);
        self.slow = match slow {
            true if time > VERY_SLOW => SLOW_STEPS,
            true => self.slow + 1,
            false => 0,
        };
        self.quick = if time < QUICK { self.quick + 1 } else { 0 };
    }

    pub(super) fn is_slow(self) -> bool {
        self.slow >= SLOW_STEPS
    }

    pub(super) fn is_quick(self) -> bool {
        self.quick >= QUICK_STEPS
    }
}
