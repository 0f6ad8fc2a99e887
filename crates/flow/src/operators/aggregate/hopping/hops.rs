//! Overlapping windows, cut into panes: spans of time that each lie wholly inside or outside of any window.
//!
//! ```text
//! HOP 4, 10        [---------)
//!                      [---------)
//!                          [---------)
//! panes            [-|-|-|-|-|-|-|-|-)
//! ```
//!
//! A window begins at a multiple of the slide, and ends the remainder of size by slide after one. So a slide
//! has two panes, or one if the remainder is zero. The windows of CUMULATE begin together; their panes are
//! the steps by which they grow. Windows are identified by their ends, in whose order they close. (Paired
//! windows: Krishnamurthy, Wu and Franklin, *On-the-Fly Sharing for Streamed Aggregation*, SIGMOD 2006.)

use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};

/// Overlapping windows of HOP or CUMULATE, in the unit of their timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hops {
    /// The distance of one window's end from the next.
    step: i64,
    /// The length of a window, for CUMULATE that of the longest.
    size: i64,
    offset: i64,
    /// True if windows begin together and end one step after the other, as those of CUMULATE.
    grows: bool,
    /// The remainder of the size by the step.
    rest: i64,
}

impl Hops {
    /// Returns the windows for timestamps of a type; `None` if each row is in one window at most. Returns an
    /// error text if the windows have no panes, since their lengths depend on a calendar.
    pub(crate) fn new(
        data_type: &DataType,
        [step, size, offset]: [IntervalMonthDayNano; 3],
        grows: bool,
    ) -> Result<Option<Hops>, String> {
        let DataType::Timestamp(unit, zone) = data_type else { return Ok(None) };
        let zoned = !matches!(zone.as_deref(), None | Some("+00:00" | "UTC" | "Z" | "Etc/UTC"));
        let of_calendar = |length: IntervalMonthDayNano| {
            length.months != 0 || (zoned && length.days != 0 && length.nanoseconds == 0)
        };
        if of_calendar(step) || of_calendar(size) {
            return Err("its windows are as long as the months or days of a calendar".into());
        }
        let ticks = |length| ticks(*unit, length);
        let (Some(step), Some(size), Some(offset)) = (ticks(step), ticks(size), ticks(offset)) else {
            return Ok(None);
        };
        if step <= 0 || size <= step || (grows && size % step != 0) {
            return Ok(None);
        }
        Ok(Some(Hops { step, size, offset, grows, rest: size % step }))
    }

    /// Returns the distance of one window's end from the next.
    pub(crate) fn step(&self) -> i64 {
        self.step
    }

    /// Returns the maximum number of windows that contain a row.
    pub(crate) fn windows(&self) -> i64 {
        self.size / self.step + i64::from(self.rest > 0)
    }

    /// Returns true if windows are identified by their ends alone.
    pub(crate) fn grows(&self) -> bool {
        self.grows
    }

    /// Returns the number of panes of the longest window.
    pub(crate) fn panes(&self) -> i64 {
        match self.rest {
            0 => self.size / self.step,
            _ => 2 * (self.size / self.step) + 1,
        }
    }

    /// Returns the start of the pane that contains a time; `None` if its windows are outside of the
    /// representable range.
    #[inline(always)]
    pub(super) fn pane(&self, time: i64) -> Option<i64> {
        let place = time.checked_sub(self.offset)?;
        let around = self.size.checked_add(self.step)?;
        time.checked_sub(around)?;
        time.checked_add(around)?;
        place.checked_sub(around)?;
        let into = place.rem_euclid(self.step);
        // Without a remainder the first of a step's two panes is empty.
        let begins = if into >= self.rest { self.rest } else { 0 };
        Some(time - into + begins)
    }

    /// Returns the end of the first window that contains a pane.
    pub(super) fn first_end(&self, pane: i64) -> i64 {
        if self.grows {
            return pane + self.step;
        }
        let into = (pane - self.offset).rem_euclid(self.step);
        pane - into - (self.size - into - 1) / self.step * self.step + self.size
    }

    /// Returns the start of the window with this end.
    pub(super) fn start(&self, end: i64) -> i64 {
        match self.grows {
            true => end - self.step - (end - self.step - self.offset).rem_euclid(self.size),
            false => end - self.size,
        }
    }

    /// Returns the first window end at or after a time.
    pub(super) fn end_from(&self, time: i64) -> i64 {
        let into = time.saturating_sub(self.offset).saturating_sub(self.size).rem_euclid(self.step);
        if into == 0 { time } else { time.saturating_add(self.step - into) }
    }

    /// Returns the first end of windows that begin at or after a time.
    pub(super) fn end_of_start(&self, start: i64) -> i64 {
        self.end_from(start.saturating_add(if self.grows { self.step } else { self.size }))
    }
}

/// Returns a length without months in the unit of timestamps; `None` if it isn't a whole number of units.
fn ticks(unit: TimeUnit, length: IntervalMonthDayNano) -> Option<i64> {
    let tick: i128 = match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    let nanos = i128::from(length.days) * 86_400_000_000_000 + i128::from(length.nanoseconds);
    if nanos % tick != 0 {
        return None;
    }
    i64::try_from(nanos / tick).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: i64) -> IntervalMonthDayNano {
        IntervalMonthDayNano { months: 0, days: 0, nanoseconds: seconds * 1_000_000_000 }
    }

    fn zoned(zone: Option<&str>) -> DataType {
        DataType::Timestamp(TimeUnit::Second, zone.map(Into::into))
    }

    fn hops(step: i64, size: i64, offset: i64, grows: bool) -> Hops {
        let lengths = [seconds(step), seconds(size), seconds(offset)];
        Hops::new(&zoned(None), lengths, grows).unwrap().unwrap()
    }

    /// Returns the starts and ends of the windows around some times, by definition.
    fn windows(step: i64, size: i64, offset: i64, grows: bool) -> Vec<(i64, i64)> {
        let begins = |time: &i64| (time - offset).rem_euclid(if grows { size } else { step }) == 0;
        let of = |start: i64| match grows {
            true => (1..=size / step).map(|n| (start, start + n * step)).collect(),
            false => vec![(start, start + size)],
        };
        let mut all: Vec<_> = (-200..200).filter(begins).flat_map(of).collect();
        all.sort_by_key(|(_, end)| *end);
        all
    }

    #[test]
    fn a_pane_lies_in_the_windows_of_each_of_its_times() {
        let hop = [(1, 60, 0), (4, 10, 0), (4, 10, 3), (5, 7, -2), (3, 9, 1), (2, 3, 0)];
        let cumulate = [(1, 60, 0), (5, 20, 3), (2, 4, -1)];
        let all = hop.map(|of| (of, false)).into_iter().chain(cumulate.map(|of| (of, true)));
        for ((step, size, offset), grows) in all {
            let hops = hops(step, size, offset, grows);
            let windows = windows(step, size, offset, grows);
            let with = |time: i64| windows.iter().filter(move |(start, end)| (*start..*end).contains(&time));
            for time in -60..60 {
                let pane = hops.pane(time).unwrap();
                assert!(pane <= time && pane > time - step, "{hops:?} {time} {pane}");
                assert!(with(pane).eq(with(time)), "{hops:?} {time}");
                assert_eq!(
                    Some(hops.first_end(pane)),
                    with(time).next().map(|(_, end)| *end),
                    "{hops:?} {time}"
                );
                assert!(with(time).count() as i64 <= hops.windows());
                let next = windows.iter().find(|(_, end)| *end >= time).unwrap();
                assert_eq!((hops.start(next.1), hops.end_from(time)), *next, "{hops:?} {time}");
                let from = windows.iter().find(|(start, _)| *start >= time).unwrap();
                assert_eq!(hops.end_of_start(from.0), from.1);
            }
            let longest = windows.iter().find(|(start, end)| *start > -60 && end - start == size).unwrap();
            let panes = (longest.0..longest.1).filter(|time| hops.pane(*time) == Some(*time));
            assert_eq!(panes.count() as i64, hops.panes(), "{hops:?}");
        }
    }

    #[test]
    fn times_whose_windows_can_not_be_told_have_no_pane() {
        let hops = hops(1, 60, 0, false);
        assert_eq!(hops.pane(i64::MAX - 10), None);
        assert_eq!(hops.pane(i64::MIN + 10), None);
        assert_eq!(hops.pane(i64::MAX - 61), Some(i64::MAX - 61));
    }

    #[test]
    fn only_windows_that_overlap_and_are_always_as_long_have_panes() {
        let days = |days| IntervalMonthDayNano { months: 0, days, nanoseconds: 0 };
        let of = |zone, step, size| {
            Hops::new(&zoned(zone), [step, size, seconds(0)], false).map(|hops| hops.is_some())
        };
        assert_eq!(of(None, seconds(5), seconds(5)), Ok(false));
        assert_eq!(of(None, seconds(5), seconds(3)), Ok(false));
        assert_eq!(of(None, days(1), days(7)), Ok(true));
        assert_eq!(of(Some("UTC"), days(1), days(7)), Ok(true));
        assert!(of(Some("Europe/Berlin"), days(1), days(7)).is_err());
        assert_eq!(of(Some("Europe/Berlin"), seconds(5), seconds(60)), Ok(true));
        let month = IntervalMonthDayNano { months: 1, days: 0, nanoseconds: 0 };
        assert!(of(None, month, IntervalMonthDayNano { months: 3, ..month }).is_err());
    }
}
