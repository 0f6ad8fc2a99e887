//! Times in parts that every function here shares: the date and the time of day of timestamps, dates, times and intervals.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};
use datafusion::error::Result;

use crate::error::Error;

/// The nanoseconds of a second and of a day.
pub(super) const SECOND: i64 = 1_000_000_000;
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
pub(super) fn units_of_second(unit: TimeUnit) -> i64 {
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
        Ok(TimeColumn { values, kind })
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
