//! The boundaries of time windows: the timeline of a column, cut at equal steps.
//!
//! Lengths of hours and less are measured in elapsed time from 1970-01-01 00:00:00 UTC. Months, and days of a
//! column with a time zone, follow that zone's calendar: a day begins at midnight and may have 23 or 25
//! hours.

use std::str::FromStr;

use arrow::array::timezone::Tz;
use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use datafusion::error::DataFusionError;

use crate::error::{Error, Result};

const DAY_NANOS: i128 = 86_400_000_000_000;

/// The most windows that one row may be in.
pub(super) const WINDOWS_MAX: i64 = 100_000;

/// The unit in which lengths are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    /// The unit of the timestamps.
    Clock,
    Days,
    Months,
}

/// A length of time on a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Length {
    scale: Scale,
    /// The number of units, above zero.
    count: i64,
}

/// The timeline of a timestamp type, shifted by an offset.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    unit: TimeUnit,
    /// The time zone; none for UTC and for timestamps without a zone.
    zone: Option<Tz>,
    offset: IntervalMonthDayNano,
    /// The offset in the timestamps' unit, if it has no months.
    offset_ticks: i64,
}

fn too_far() -> Error {
    Error::invalid("a window around this time would begin or end outside the range of its type")
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

impl Timeline {
    /// Creates the timeline of a column of this type. Its windows begin later by the offset.
    pub(super) fn new(data_type: &DataType, offset: IntervalMonthDayNano) -> Result<Timeline> {
        let DataType::Timestamp(unit, zone) = data_type else {
            let found = millstream_delta::sql_type(data_type);
            return Err(Error::invalid(format!("windows are over a timestamp, not over {found}")));
        };
        let zone = match zone.as_deref() {
            None | Some("+00:00" | "UTC" | "Z" | "Etc/UTC") => None,
            Some(name) => Some(Tz::from_str(name).map_err(DataFusionError::from)?),
        };
        let offset_ticks = ticks(*unit, "offset of a window", IntervalMonthDayNano { months: 0, ..offset })?;
        Ok(Timeline { unit: *unit, zone, offset, offset_ticks })
    }

    /// Converts an interval to a length. `what` names the length in errors.
    pub(super) fn length(&self, what: &str, interval: IntervalMonthDayNano) -> Result<Length> {
        let IntervalMonthDayNano { months, days, nanoseconds } = interval;
        let (scale, count) = match (months, days, nanoseconds) {
            (_, 0, 0) if months != 0 => (Scale::Months, i64::from(months)),
            (0, _, 0) if self.zone.is_some() && days != 0 => (Scale::Days, i64::from(days)),
            (0, _, _) => (Scale::Clock, ticks(self.unit, what, interval)?),
            _ => {
                return Err(Error::invalid(format!("the {what} mixes months with days or hours"))
                    .hint("Give it in months only, or without months."));
            }
        };
        if count <= 0 {
            return Err(Error::invalid(format!("the {what} must be above zero")));
        }
        Ok(Length { scale, count })
    }

    /// Returns how often `short` fits into `long`, rounded down, and true if it fits exactly.
    pub(super) fn ratio(&self, long: Length, short: Length) -> Result<(i64, bool)> {
        if long.scale != short.scale {
            return Err(Error::invalid("the lengths of a window are given in different kinds of units")
                .hint("Give all in months, all in days, or all in hours and less."));
        }
        Ok((long.count / short.count, long.count % short.count == 0))
    }

    /// Returns the start of the step that a time is in.
    fn floor(&self, time: i64, step: Length) -> Result<i64> {
        let place = self.place(time, step.scale)?;
        Ok(place - place.rem_euclid(step.count))
    }

    /// Returns the index of the tick, day or month that a time is in.
    fn place(&self, time: i64, scale: Scale) -> Result<i64> {
        if scale == Scale::Clock {
            return time.checked_sub(self.offset_ticks).ok_or_else(too_far);
        }
        let local = self.local(time)?;
        let shift = TimeDelta::nanoseconds(self.offset.nanoseconds);
        let shifted = local.checked_sub_signed(shift).ok_or_else(too_far)?;
        let shifted = shifted.checked_sub_signed(TimeDelta::days(self.offset.days.into()));
        let date = shifted.ok_or_else(too_far)?.date();
        let mut place = match scale {
            Scale::Months => {
                i64::from(date.year() - 1970) * 12 + i64::from(date.month0()) - i64::from(self.offset.months)
            }
            _ => i64::from(date.num_days_from_ce()) - EPOCH_DAYS,
        };
        // If clocks go back over midnight, the day still begins only once.
        while self.time(place + 1, scale)? <= time {
            place += 1;
        }
        while self.time(place, scale)? > time {
            place -= 1;
        }
        Ok(place)
    }

    /// Returns the time at which a tick, day or month begins.
    fn time(&self, place: i64, scale: Scale) -> Result<i64> {
        let date = match scale {
            Scale::Clock => return place.checked_add(self.offset_ticks).ok_or_else(too_far),
            Scale::Days => i32::try_from(place + EPOCH_DAYS)
                .ok()
                .and_then(NaiveDate::from_num_days_from_ce_opt)
                .ok_or_else(too_far)?,
            Scale::Months => {
                let month = place + i64::from(self.offset.months);
                let year = i32::try_from(1970 + month.div_euclid(12)).map_err(|_| too_far())?;
                let month = month.rem_euclid(12) as u32 + 1;
                NaiveDate::from_ymd_opt(year, month, 1).ok_or_else(too_far)?
            }
        };
        let midnight = date.and_hms_opt(0, 0, 0).ok_or_else(too_far)?;
        let shifted = midnight.checked_add_signed(TimeDelta::days(self.offset.days.into()));
        let shifted =
            shifted.and_then(|t| t.checked_add_signed(TimeDelta::nanoseconds(self.offset.nanoseconds)));
        self.absolute(shifted.ok_or_else(too_far)?)
    }

    /// Returns the local time in the zone.
    fn local(&self, time: i64) -> Result<NaiveDateTime> {
        let second = per_second(self.unit);
        let nanos = time.rem_euclid(second) * (1_000_000_000 / second);
        let utc =
            DateTime::<Utc>::from_timestamp(time.div_euclid(second), nanos as u32).ok_or_else(too_far)?;
        Ok(match self.zone {
            None => utc.naive_utc(),
            Some(zone) => {
                let offset = zone.offset_from_utc_datetime(&utc.naive_utc()).fix();
                utc.naive_utc().checked_add_offset(offset).ok_or_else(too_far)?
            }
        })
    }

    /// Returns the first time with this local time in the zone. For a skipped local time, returns the time of
    /// the change.
    fn absolute(&self, local: NaiveDateTime) -> Result<i64> {
        let utc = match self.zone {
            None => local,
            Some(zone) => match zone.offset_from_local_datetime(&local).earliest() {
                Some(offset) => local.checked_sub_offset(offset.fix()).ok_or_else(too_far)?,
                None => after_gap(zone, local).ok_or_else(too_far)?,
            },
        };
        let second = per_second(self.unit);
        let whole = utc.and_utc().timestamp().checked_mul(second);
        let rest = i64::from(utc.and_utc().timestamp_subsec_nanos()) / (1_000_000_000 / second);
        whole.and_then(|whole| whole.checked_add(rest)).ok_or_else(too_far)
    }

    /// Returns the tumbling window that a time is in.
    pub(super) fn tumble(&self, time: i64, size: Length) -> Result<(i64, i64)> {
        let place = self.floor(time, size)?;
        let end = place.checked_add(size.count).ok_or_else(too_far)?;
        Ok((self.time(place, size.scale)?, self.time(end, size.scale)?))
    }

    /// Returns the end of the window that begins at a time.
    pub(super) fn end(&self, start: i64, size: Length) -> Result<i64> {
        let place = self.place(start, size.scale)?;
        self.time(place.checked_add(size.count).ok_or_else(too_far)?, size.scale)
    }

    /// Adds a length to a time. Days and months follow the zone's calendar.
    pub(super) fn after(&self, time: i64, length: Length) -> Result<i64> {
        let moved = match length.scale {
            Scale::Clock => return time.checked_add(length.count).ok_or_else(too_far),
            Scale::Days => u64::try_from(length.count).ok().map(Days::new).map(Step::Days),
            Scale::Months => u32::try_from(length.count).ok().map(Months::new).map(Step::Months),
        };
        let local = self.local(time)?;
        let local = match moved.ok_or_else(too_far)? {
            Step::Days(days) => local.checked_add_days(days),
            Step::Months(months) => local.checked_add_months(months),
        };
        self.absolute(local.ok_or_else(too_far)?)
    }

    /// Adds the times from one on to before another, in steps of a length, and returns their number. The first one is always
    /// there. `fits` fails if there are too many.
    pub(super) fn steps(
        &self,
        from: i64,
        end: i64,
        step: Length,
        fits: impl Fn(usize) -> Result<()>,
        times: &mut Vec<i64>,
    ) -> Result<usize> {
        if step.scale == Scale::Clock {
            let span = i128::from(end) - i128::from(from);
            let count = if span > 0 { (span - 1) / i128::from(step.count) + 1 } else { 1 };
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            fits(count)?;
            let mut time = from;
            for _ in 0..count {
                times.push(time);
                time = time.saturating_add(step.count);
            }
            return Ok(count);
        }
        let (mut time, mut count) = (from, 0);
        loop {
            count += 1;
            fits(count)?;
            times.push(time);
            time = self.after(time, step)?;
            if time >= end {
                return Ok(count);
            }
        }
    }

    /// Adds the starts of the windows that a time is in, in their order. A window begins at each slide.
    pub(super) fn hop(&self, time: i64, slide: Length, size: Length, starts: &mut Vec<i64>) -> Result<()> {
        let place = self.place(time, slide.scale)?;
        let last = place - place.rem_euclid(slide.count);
        let ago = place - last;
        // Counts back to the first window that ends after the time.
        let before = if size.count > ago { (size.count - ago - 1) / slide.count } else { -1 };
        for step in (0..=before).rev() {
            let start = slide.count.checked_mul(step).and_then(|by| last.checked_sub(by));
            starts.push(self.time(start.ok_or_else(too_far)?, slide.scale)?);
        }
        Ok(())
    }

    /// Adds the ends of the windows that a time is in. Windows grow by a step up to the largest size.
    pub(super) fn cumulate(&self, time: i64, step: Length, size: Length, ends: &mut Vec<i64>) -> Result<()> {
        let place = self.place(time, step.scale)?;
        let start = place - place.rem_euclid(size.count);
        let first = (place - start) / step.count + 1;
        for n in first..=size.count / step.count {
            let end = step.count.checked_mul(n).and_then(|by| start.checked_add(by));
            ends.push(self.time(end.ok_or_else(too_far)?, step.scale)?);
        }
        Ok(())
    }
}

enum Step {
    Days(Days),
    Months(Months),
}

/// The days from the day before 0001-01-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_163;

/// Returns the time at which a zone's clock is moved forward past a local time.
fn after_gap(zone: Tz, local: NaiveDateTime) -> Option<NaiveDateTime> {
    // The offset before the move: no gap is longer than a day.
    let before = local.checked_sub_days(Days::new(1))?;
    let offset = zone.offset_from_local_datetime(&before).earliest()?;
    // The time of `local` without the move. It is as far after the move as `local` is into the gap.
    let at = local.checked_sub_offset(offset.fix())?;
    let moved = zone.offset_from_utc_datetime(&at).fix();
    let into = at.checked_add_offset(moved)?.signed_duration_since(local);
    let gap = into.num_seconds();
    // Searches for the move: the first second with the new offset.
    let (mut low, mut high) = (at.checked_sub_signed(TimeDelta::seconds(gap.max(0)))?, at);
    while high.signed_duration_since(low) > TimeDelta::seconds(1) {
        let middle = low + high.signed_duration_since(low) / 2;
        match zone.offset_from_utc_datetime(&middle).fix() == moved {
            true => high = middle,
            false => low = middle,
        }
    }
    Some(high)
}

/// Returns a length without months in the unit of timestamps.
fn ticks(unit: TimeUnit, what: &str, interval: IntervalMonthDayNano) -> Result<i64> {
    let nanos = i128::from(interval.days) * DAY_NANOS + i128::from(interval.nanoseconds);
    let tick = i128::from(1_000_000_000 / per_second(unit));
    if nanos % tick != 0 {
        return Err(Error::invalid(format!("the {what} is finer than its timestamps"))
            .hint("Cast the column to a finer type: ts::TIMESTAMP(9)."));
    }
    i64::try_from(nanos / tick).map_err(|_| Error::invalid(format!("the {what} is too long")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(months: i32, days: i32, seconds: i64) -> IntervalMonthDayNano {
        IntervalMonthDayNano { months, days, nanoseconds: seconds * 1_000_000_000 }
    }

    fn timeline(zone: Option<&str>, offset: IntervalMonthDayNano) -> Timeline {
        let zone = zone.map(|zone| zone.into());
        Timeline::new(&DataType::Timestamp(TimeUnit::Second, zone), offset).unwrap()
    }

    fn at(text: &str) -> i64 {
        text.parse::<DateTime<Utc>>().unwrap().timestamp()
    }

    fn show(time: i64) -> String {
        DateTime::from_timestamp(time, 0).unwrap().format("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    #[track_caller]
    fn tumbles(
        zone: Option<&str>,
        offset: IntervalMonthDayNano,
        size: IntervalMonthDayNano,
        time: &str,
        window: (&str, &str),
    ) {
        let timeline = timeline(zone, offset);
        let size = timeline.length("size", size).unwrap();
        let (start, end) = timeline.tumble(at(time), size).unwrap();
        assert_eq!((show(start).as_str(), show(end).as_str()), window);
        assert_eq!(timeline.end(start, size).unwrap(), end);
    }

    #[test]
    fn windows_tile_the_time_before_1970_too() {
        let none = interval(0, 0, 0);
        let ten = interval(0, 0, 10);
        tumbles(None, none, ten, "2024-05-01T00:00:19Z", ("2024-05-01T00:00:10Z", "2024-05-01T00:00:20Z"));
        tumbles(None, none, ten, "1969-12-31T23:59:59Z", ("1969-12-31T23:59:50Z", "1970-01-01T00:00:00Z"));
        tumbles(
            None,
            interval(0, 0, 3),
            ten,
            "2024-05-01T00:00:02Z",
            ("2024-04-30T23:59:53Z", "2024-05-01T00:00:03Z"),
        );
        tumbles(
            None,
            none,
            interval(1, 0, 0),
            "2024-02-29T23:59:59Z",
            ("2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
        );
        tumbles(
            None,
            interval(3, 0, 0),
            interval(12, 0, 0),
            "2024-02-29T00:00:00Z",
            ("2023-04-01T00:00:00Z", "2024-04-01T00:00:00Z"),
        );
        tumbles(
            None,
            none,
            interval(3, 0, 0),
            "1969-11-05T00:00:00Z",
            ("1969-10-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        );
    }

    #[test]
    fn days_are_those_of_the_zone() {
        let (none, day) = (interval(0, 0, 0), interval(0, 1, 0));
        // Days of 25 and of 23 hours, and a midnight that doesn't exist.
        tumbles(
            Some("Europe/Berlin"),
            none,
            day,
            "2024-10-27T12:00:00Z",
            ("2024-10-26T22:00:00Z", "2024-10-27T23:00:00Z"),
        );
        tumbles(
            Some("Europe/Berlin"),
            none,
            day,
            "2024-03-31T12:00:00Z",
            ("2024-03-30T23:00:00Z", "2024-03-31T22:00:00Z"),
        );
        tumbles(
            Some("America/Sao_Paulo"),
            none,
            day,
            "2018-11-04T12:00:00Z",
            ("2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"),
        );
        tumbles(
            Some("+05:30"),
            none,
            day,
            "2024-01-01T20:00:00Z",
            ("2024-01-01T18:30:00Z", "2024-01-02T18:30:00Z"),
        );
        tumbles(
            Some("Europe/Berlin"),
            none,
            interval(1, 0, 0),
            "2024-03-31T12:00:00Z",
            ("2024-02-29T23:00:00Z", "2024-03-31T22:00:00Z"),
        );
        // Hours are elapsed time.
        tumbles(
            Some("Europe/Berlin"),
            none,
            interval(0, 0, 7200),
            "2024-03-31T01:30:00Z",
            ("2024-03-31T00:00:00Z", "2024-03-31T02:00:00Z"),
        );
    }

    #[test]
    fn every_time_is_in_one_window_whatever_clocks_do() {
        for zone in ["America/Sao_Paulo", "Europe/Berlin", "America/Havana", "Australia/Lord_Howe"] {
            let timeline = timeline(Some(zone), interval(0, 0, 0));
            let day = timeline.length("size", interval(0, 1, 0)).unwrap();
            let mut time = at("2017-01-01T00:00:00Z");
            let mut window = timeline.tumble(time, day).unwrap();
            while time < at("2019-01-01T00:00:00Z") {
                let found = timeline.tumble(time, day).unwrap();
                assert!(found.0 <= time && time < found.1, "{zone} {}", show(time));
                assert!(found == window || found.0 == window.1, "{zone} {}", show(time));
                window = found;
                time += 1800;
            }
        }
    }

    #[test]
    fn hops_and_growing_windows_hold_the_time() {
        let line = timeline(None, interval(0, 0, 0));
        let length = |seconds| line.length("size", interval(0, 0, seconds)).unwrap();
        let hop = |time, slide, size| {
            let mut starts = Vec::new();
            line.hop(time, length(slide), length(size), &mut starts).unwrap();
            starts
        };
        assert_eq!(hop(25, 10, 30), [0, 10, 20]);
        assert_eq!(hop(20, 10, 30), [0, 10, 20]);
        assert_eq!(hop(25, 10, 25), [10, 20]);
        assert_eq!(hop(24, 10, 25), [0, 10, 20]);
        assert_eq!(hop(25, 10, 4), [0; 0]);
        assert_eq!(hop(23, 10, 4), [20]);
        assert_eq!(hop(-1, 10, 20), [-20, -10]);
        let mut ends = Vec::new();
        line.cumulate(25, length(10), length(60), &mut ends).unwrap();
        assert_eq!(ends, [30, 40, 50, 60]);
        let mut starts = Vec::new();
        let months = |n| line.length("size", interval(n, 0, 0)).unwrap();
        line.hop(at("2024-03-15T00:00:00Z"), months(1), months(3), &mut starts).unwrap();
        let starts: Vec<String> = starts.into_iter().map(show).collect();
        assert_eq!(starts, ["2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"]);
    }

    #[test]
    fn steps_end_before_the_end() {
        let line = timeline(None, interval(0, 0, 0));
        let steps = |from: i64, end: i64, step| {
            let mut times = Vec::new();
            let step = line.length("interval", step).unwrap();
            let count = line.steps(from, end, step, |_| Ok(()), &mut times).unwrap();
            assert_eq!(count, times.len());
            times
        };
        assert_eq!(steps(10, 40, interval(0, 0, 10)), [10, 20, 30]);
        assert_eq!(steps(10, 41, interval(0, 0, 10)), [10, 20, 30, 40]);
        assert_eq!(steps(10, 20, interval(0, 0, 10)), [10]);
        assert_eq!(steps(10, 10, interval(0, 0, 10)), [10]);
        assert_eq!(steps(i64::MAX - 15, i64::MAX, interval(0, 0, 10)), [i64::MAX - 15, i64::MAX - 5]);
        let months = steps(at("2024-01-31T00:00:00Z"), at("2024-04-30T00:00:00Z"), interval(1, 0, 0));
        let months: Vec<String> = months.into_iter().map(show).collect();
        assert_eq!(
            months,
            ["2024-01-31T00:00:00Z", "2024-02-29T00:00:00Z", "2024-03-29T00:00:00Z", "2024-04-29T00:00:00Z"]
        );
        let second = line.length("interval", interval(0, 0, 1)).unwrap();
        let few = |count: usize| if count > 9 { Err(too_far()) } else { Ok(()) };
        assert!(line.steps(i64::MIN, i64::MAX, second, few, &mut Vec::new()).is_err());
    }

    #[test]
    fn what_is_no_length_is_refused() {
        let timeline = timeline(None, interval(0, 0, 0));
        let refused = |interval, expected: &str| {
            let error = timeline.length("size", interval).unwrap_err();
            assert!(error.message.contains(expected), "{}", error.message);
        };
        refused(interval(0, 0, 0), "must be above zero");
        refused(interval(0, -1, 0), "must be above zero");
        refused(interval(1, 1, 0), "mixes months");
        refused(IntervalMonthDayNano { months: 0, days: 0, nanoseconds: 5 }, "finer than");
        assert!(timeline.tumble(i64::MAX, timeline.length("size", interval(0, 0, 10)).unwrap()).is_err());
        assert!(timeline.tumble(i64::MAX, timeline.length("size", interval(1, 0, 0)).unwrap()).is_err());
    }
}
