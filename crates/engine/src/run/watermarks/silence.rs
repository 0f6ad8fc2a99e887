//! The watermark of a source without rows, under `source_idle_timeout_action = 'advance'`: it moves at the speed of the
//! clock.
//!
//! Deliberately absent: state. The watermark of an epoch is part of its cut, and the last rows are in `marks.rs`.

use std::time::Duration;

use millstream_delta::Timestamp;

use super::column::TimeColumn;
use super::marks::{LastRows, later};

/// The bounds of a step, in microseconds.
const STEP_MIN_US: i64 = 10_000;
const STEP_MAX_US: i64 = 60_000_000;

/// The silence of a source: its watermark as a function of the time, as long as no rows arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence<'a> {
    column: &'a TimeColumn,
    last: LastRows,
    begins: Timestamp,
    step_us: i64,
}

impl<'a> Silence<'a> {
    /// Returns the silence after the last rows. It counts once the source has been read for the timeout without any,
    /// and without a break: it may have rows that it could not bring.
    pub(crate) fn after(
        last: LastRows,
        reading_since: Timestamp,
        timeout: Duration,
        column: &'a TimeColumn,
    ) -> Silence<'a> {
        let begins = later(last.arrived.max(reading_since), timeout);
        // Moving the watermark takes an epoch of every query with windows, so it moves in steps. A tenth of the timeout
        // delays a window by little compared to the wait before: 3 seconds by default.
        let tenth = i64::try_from(timeout.as_micros() / 10).unwrap_or(i64::MAX);
        Silence { column, last, begins, step_us: tenth.clamp(STEP_MIN_US, STEP_MAX_US) }
    }

    /// Returns the time from which on the watermark moves.
    pub(crate) fn begins(&self) -> Timestamp {
        self.begins
    }

    /// Returns the length of a step in microseconds.
    pub(crate) fn step_us(&self) -> i64 {
        self.step_us
    }

    /// Returns the watermark of an epoch at `now`, in the unit of the column; `None` before it moves.
    pub(crate) fn watermark(&self, now: Timestamp) -> Option<i64> {
        let silent = Timestamp(now.0.saturating_sub(self.last.arrived.0));
        (self.begins <= now).then(|| self.last.watermark.saturating_add(self.column.count(silent)))
    }

    /// Returns the first step after an epoch that moves the watermark beyond `at`.
    pub(crate) fn next_step(&self, epoch: Timestamp, at: i64) -> Timestamp {
        // The watermark may have moved meanwhile because idle partitions were ignored.
        let beyond = at.saturating_sub(self.last.watermark).max(0).saturating_add(1);
        let passed = self.last.arrived.0.saturating_add(self.column.micros(beyond));
        let wait = passed.max(epoch.0.saturating_add(1)).saturating_sub(self.begins.0).max(0);
        let steps = wait / self.step_us + i64::from(wait % self.step_us != 0);
        Timestamp(self.begins.0.saturating_add(steps.saturating_mul(self.step_us)))
    }
}

/// Returns the least number from 0 to `most` for which something is due. What is due stays due for larger numbers.
pub(crate) fn first_due(most: i64, is_due: impl Fn(i64) -> bool) -> Option<i64> {
    if is_due(0) {
        return Some(0);
    }
    if !is_due(most) {
        return None;
    }
    // Near numbers first: the distance doubles.
    let (mut not_due, mut width) = (0, 1);
    while not_due + width < most && !is_due(not_due + width) {
        not_due += width;
        width *= 2;
    }
    let mut due = most.min(not_due + width);
    while due - not_due > 1 {
        let middle = not_due + (due - not_due) / 2;
        if is_due(middle) {
            due = middle;
        } else {
            not_due = middle;
        }
    }
    Some(due)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    use millstream_sql::Watermark;

    use super::*;
    use crate::catalog::{Definition, Intake};

    const SECOND: i64 = 1_000_000;

    fn column(unit: TimeUnit) -> TimeColumn {
        let schema = Arc::new(Schema::new(vec![Field::new("ts", DataType::Timestamp(unit, None), true)]));
        let watermark = Some(Watermark { column: 0, delay_ns: 0, function: None });
        let table = Definition::Table { schema, key: Vec::new(), intake: Intake::default(), watermark };
        TimeColumn::of(&table).unwrap()
    }

    fn silence(column: &TimeColumn, watermark: i64, reading_since: i64) -> Silence<'_> {
        let last = LastRows { watermark, arrived: Timestamp(100 * SECOND) };
        Silence::after(last, Timestamp(reading_since * SECOND), Duration::from_secs(20), column)
    }

    #[test]
    fn the_watermark_moves_with_the_clock_after_the_timeout() {
        let column = column(TimeUnit::Microsecond);
        let silence = silence(&column, 7 * SECOND, 0);
        assert_eq!(silence.begins(), Timestamp(120 * SECOND));
        assert_eq!(silence.watermark(Timestamp(120 * SECOND - 1)), None);
        assert_eq!(silence.watermark(Timestamp(120 * SECOND)), Some(27 * SECOND));
        assert_eq!(silence.watermark(Timestamp(3700 * SECOND + 5)), Some(3607 * SECOND + 5));
    }

    #[test]
    fn a_break_begins_the_timeout_again() {
        let column = column(TimeUnit::Microsecond);
        let silence = silence(&column, 7 * SECOND, 150);
        assert_eq!(silence.watermark(Timestamp(169 * SECOND)), None);
        assert_eq!(silence.watermark(Timestamp(170 * SECOND)), Some(77 * SECOND));
    }

    #[test]
    fn it_moves_in_steps_of_a_tenth_of_the_timeout() {
        let column = column(TimeUnit::Microsecond);
        let silence = silence(&column, 7 * SECOND, 0);
        let next = |epoch: i64, at: i64| silence.next_step(Timestamp(epoch), at).0;
        assert_eq!(next(100 * SECOND, 7 * SECOND), 120 * SECOND);
        assert_eq!(next(120 * SECOND, 27 * SECOND), 122 * SECOND);
        assert_eq!(next(121 * SECOND, 28 * SECOND), 122 * SECOND);
        // An epoch that began late doesn't shift the steps.
        assert_eq!(next(122 * SECOND + 9, 29 * SECOND + 9), 124 * SECOND);
        // The watermark is ahead already: the step that passes it is the next.
        assert_eq!(next(120 * SECOND, 37 * SECOND), 132 * SECOND);
    }

    #[test]
    fn each_step_moves_the_watermark_in_every_unit() {
        for (unit, per_second) in [
            (TimeUnit::Second, 1),
            (TimeUnit::Millisecond, 1_000),
            (TimeUnit::Microsecond, 1_000_000),
            (TimeUnit::Nanosecond, 1_000_000_000),
        ] {
            let column = column(unit);
            let last = LastRows { watermark: 7 * per_second, arrived: Timestamp(100 * SECOND + 1) };
            let silence = Silence::after(last, Timestamp::default(), Duration::from_millis(1), &column);
            let (mut epoch, mut at) = (last.arrived, last.watermark);
            for _ in 0..500 {
                epoch = silence.next_step(epoch, at);
                let moved = silence.watermark(epoch).unwrap();
                assert!(moved > at, "{unit:?}: {moved} at {epoch}");
                at = moved;
            }
            assert!(at >= 11 * per_second, "{unit:?}: {at}");
        }
    }

    #[test]
    fn the_first_due_step_is_found() {
        for most in [1, 2, 3, 7, 8, 100] {
            for first in 0..=most {
                assert_eq!(first_due(most, |number| number >= first), Some(first), "{first} of {most}");
            }
            assert_eq!(first_due(most, |_| false), None);
        }
        assert_eq!(first_due(1 << 40, |number| number >= 123_456_789), Some(123_456_789));
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        let column = column(TimeUnit::Nanosecond);
        let last = LastRows { watermark: i64::MAX - 1, arrived: Timestamp(i64::MAX - 1) };
        let silence = Silence::after(last, Timestamp::default(), Duration::MAX, &column);
        assert_eq!(silence.next_step(Timestamp(i64::MAX), i64::MAX), Timestamp(i64::MAX));
        assert_eq!(silence.watermark(Timestamp(i64::MAX)), Some(i64::MAX));
    }
}
