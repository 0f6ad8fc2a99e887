//! Times in parts that every function here shares: the date and the time of day of timestamps, dates, times and intervals.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};
use chrono::{DateTime, TimeZone};
use chrono_tz::OffsetName;
use datafusion::error::Result;

use super::zone_offsets::{utc_offset, zone};
use crate::error::Error;
use crate::zones::is_utc;

/// The nanoseconds of a second and of a day.
pub(crate) const SECOND: i64 = 1_000_000_000;
pub(super) const DAY: i64 = 86_400 * SECOND;

/// A value of a type of time.
#[derive(Clone, Copy, Debug)]
pub(super) enum TimeValue {
    /// The days since 1970 and the nanoseconds of the day.
    Moment {
        days: i64,
        nanoseconds: i64,
    },
    Interval(IntervalMonthDayNano),
}

/// A column of a type of time.
pub(super) struct TimeColumn {
    values: ArrayRef,
    kind: Kind,
    /// The offsets of a column that is in a zone other than UTC.
    zones: Option<Vec<Option<ShownZone>>>,
}

/// A zone at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShownZone {
    /// The seconds by which it is ahead of UTC.
    pub(super) offset: i64,
    abbreviation: [u8; ABBREVIATION_BYTES],
}

/// The length of the longest abbreviation, such as `+1030` and `CHADT`.
const ABBREVIATION_BYTES: usize = 8;

impl Default for ShownZone {
    fn default() -> ShownZone {
        ShownZone::new(0, "UTC")
    }
}

impl ShownZone {
    fn new(offset: i64, name: &str) -> ShownZone {
        let mut abbreviation = [0; ABBREVIATION_BYTES];
        let length = name.len().min(ABBREVIATION_BYTES);
        abbreviation[..length].copy_from_slice(&name.as_bytes()[..length]);
        ShownZone { offset, abbreviation }
    }

    /// Returns the name of the zone at the time, such as `CEST`.
    pub(super) fn abbreviation(&self) -> String {
        let bytes = self.abbreviation.iter().copied().take_while(|byte| *byte != 0);
        bytes.map(char::from).collect()
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Interval,
    Days,
    /// The number of units of a second.
    Moment(i64),
    Length(i64),
}

/// Returns the number of units that a second has.
pub(crate) fn units_of_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => SECOND,
    }
}

/// True for the types that have such parts.
pub(super) fn is_time(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Date32
            | DataType::Date64
            | DataType::Timestamp(..)
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::Interval(_)
            | DataType::Duration(_)
    )
}

impl TimeColumn {
    pub(super) fn new(values: &ArrayRef) -> Result<TimeColumn> {
        let whole = |values: &ArrayRef| cast(values, &DataType::Int64);
        let (values, kind) = match values.data_type() {
            DataType::Interval(_) => {
                (cast(values, &DataType::Interval(IntervalUnit::MonthDayNano))?, Kind::Interval)
            }
            DataType::Date32 => (values.clone(), Kind::Days),
            DataType::Date64 => (whole(values)?, Kind::Moment(1_000)),
            DataType::Timestamp(unit, _) => (whole(values)?, Kind::Moment(units_of_second(*unit))),
            DataType::Time32(unit) => {
                (whole(&cast(values, &DataType::Int32)?)?, Kind::Length(units_of_second(*unit)))
            }
            DataType::Time64(unit) | DataType::Duration(unit) => {
                (whole(values)?, Kind::Length(units_of_second(*unit)))
            }
            other => return Err(Error::bug(format!("{other} is no type of time")).into()),
        };
        Ok(TimeColumn { values, kind, zones: None })
    }

    /// Reads a column whose times with a zone are taken apart by the zone's calendar.
    pub(super) fn local(values: &ArrayRef) -> Result<TimeColumn> {
        let utc = TimeColumn::new(values)?;
        let DataType::Timestamp(unit, Some(name)) = values.data_type() else { return Ok(utc) };
        if is_utc(name) {
            return Ok(utc);
        }
        let (zone, units) = (zone(name)?, units_of_second(*unit));
        let named: Option<chrono_tz::Tz> = name.parse().ok();
        let ticks = utc.values.as_primitive::<Int64Type>();
        let zones: Vec<Option<ShownZone>> = ticks
            .iter()
            .map(|tick| {
                let seconds = tick?.div_euclid(units);
                let at = DateTime::from_timestamp(seconds, 0)?.naive_utc();
                let named = named.map(|zone| zone.offset_from_utc_datetime(&at));
                let abbreviation = named.as_ref().and_then(OffsetName::abbreviation);
                Some(ShownZone::new(utc_offset(&zone, seconds)?, abbreviation.unwrap_or(name)))
            })
            .collect();
        let local: Int64Array = ticks
            .iter()
            .zip(&zones)
            .map(|(tick, zone)| {
                tick.zip(*zone).and_then(|(tick, zone)| tick.checked_add(zone.offset * units))
            })
            .collect();
        Ok(TimeColumn { values: Arc::new(local), kind: utc.kind, zones: Some(zones) })
    }

    /// Returns the zone of a row's time; none unless the column is in a zone other than UTC.
    pub(super) fn zone(&self, row: usize) -> Option<ShownZone> {
        self.zones.as_ref().and_then(|zones| zones[row])
    }

    /// Returns the value of a row. The difference of two times is an interval of days and time.
    pub(super) fn get(&self, row: usize) -> Option<TimeValue> {
        if self.values.is_null(row) {
            return None;
        }
        let number = || self.values.as_primitive::<Int64Type>().value(row);
        Some(match self.kind {
            Kind::Interval => {
                TimeValue::Interval(self.values.as_primitive::<IntervalMonthDayNanoType>().value(row))
            }
            Kind::Days => {
                let days = i64::from(self.values.as_primitive::<Date32Type>().value(row));
                TimeValue::Moment { days, nanoseconds: 0 }
            }
            Kind::Moment(of_second) => {
                let of_day = of_second * 86_400;
                let nanoseconds = number().rem_euclid(of_day) * (SECOND / of_second);
                TimeValue::Moment { days: number().div_euclid(of_day), nanoseconds }
            }
            Kind::Length(of_second) => {
                let total = i128::from(number()) * i128::from(SECOND / of_second);
                let days = i32::try_from(total / i128::from(DAY)).unwrap_or(i32::MAX);
                let rest = i64::try_from(total % i128::from(DAY)).unwrap_or_default();
                TimeValue::Interval(IntervalMonthDayNano::new(0, days, rest))
            }
        })
    }
}
