//! Whether a query's steps are short enough for the loop.

use std::time::Duration;

use millstream_flow::Cost;

/// A step as long as this, several times in a row, keeps others waiting.
const SLOW: Duration = Duration::from_millis(100);
const SLOW_STEPS: u32 = 3;

/// Many rows may take long: a step is slow that takes as long as this for each, or that would for fewer rows, too.
const SLOW_ROW: Duration = Duration::from_micros(100);

/// A single step that takes as long is enough.
const VERY_SLOW: Duration = Duration::from_secs(1);

/// A query whose steps are as short as this, as often in a row, can be stepped in each epoch again.
const QUICK: Duration = Duration::from_millis(25);
const QUICK_STEPS: u32 = 8;

/// How long a query's last steps took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Speed {
    slow: u32,
    quick: u32,
}

impl Speed {
    /// Counts a step over so many rows.
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
