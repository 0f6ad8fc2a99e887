//! Columns of TIMESTAMP and TIMESTAMPTZ that functions read and return.
//!
//! Functions compute in nanoseconds of 128 bits. What they return is in microseconds, or in nanoseconds in data directories
//! of earlier versions.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowTimestampType, DataType, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use datafusion::error::Result;

use super::postgres::units_of_second;
use crate::error::Error;
use crate::sqlstate;

pub(super) type Micros = TimestampMicrosecondType;
pub(super) type Nanos = TimestampNanosecondType;

/// Returns one of two functions: the one that returns times in microseconds, or in nanoseconds.
pub(super) fn in_unit<T>(unit: TimeUnit, microseconds: T, nanoseconds: T) -> T {
    match unit {
        TimeUnit::Nanosecond => nanoseconds,
        _ => microseconds,
    }
}

/// The nanoseconds of a second.
const SECOND: i128 = 1_000_000_000;

/// Returns the type of a TIMESTAMPTZ.
pub(super) fn timestamptz<T: ArrowTimestampType>() -> DataType {
    DataType::Timestamp(T::UNIT, Some("+00:00".into()))
}

/// Returns a column of times from nanoseconds since 1970. What is below the unit is rounded down.
pub(super) fn moments<T: ArrowTimestampType>(
    nanoseconds: impl IntoIterator<Item = Result<Option<i128>, Error>>,
    out_of_range: impl Fn() -> Error,
) -> Result<PrimitiveArray<T>> {
    let each = nanoseconds_of(T::UNIT);
    let ticks = nanoseconds.into_iter().map(|time| match time? {
        None => Ok(None),
        Some(time) => i64::try_from(time.div_euclid(each)).map(Some).map_err(|_| out_of_range()),
    });
    Ok(ticks.collect::<Result<PrimitiveArray<T>, Error>>()?)
}

/// Returns the times of a column in nanoseconds since 1970.
pub(super) fn nanoseconds(column: &ArrayRef) -> Result<Vec<Option<i128>>> {
    let DataType::Timestamp(unit, _) = column.data_type() else {
        return Err(Error::bug(format!("{} is no timestamp", column.data_type())).into());
    };
    let each = nanoseconds_of(*unit);
    let ticks = cast(column, &DataType::Int64)?;
    Ok(ticks
        .as_primitive::<Int64Type>()
        .iter()
        .map(|tick| tick.map(|tick| i128::from(tick) * each))
        .collect())
}

/// Rounds times down to whole strides from an origin, both in the unit of the times.
pub(super) fn rounded_down(
    times: &ArrayRef,
    stride: i64,
    origin: i64,
    out_of_range: impl Fn() -> Error,
) -> Result<ArrayRef> {
    let ticks = cast(times, &DataType::Int64)?;
    let rounded = ticks.as_primitive::<Int64Type>().try_unary::<_, Int64Type, Error>(|tick| {
        let rest = tick.checked_sub(origin).map(|length| length.rem_euclid(stride));
        rest.and_then(|rest| tick.checked_sub(rest)).ok_or_else(&out_of_range)
    })?;
    Ok(cast(&rounded, times.data_type())?)
}

/// Returns the nanoseconds of a unit.
pub(super) fn nanoseconds_of(unit: TimeUnit) -> i128 {
    SECOND / i128::from(units_of_second(unit))
}

/// Returns the first and the last day of a unit, as an error shows them.
fn range(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Nanosecond => "1677-09-21 to 2262-04-11",
        _ => "290301 BC to 294247 AD",
    }
}

/// Returns the error of a time that has no value in a unit.
pub(super) fn out_of_range<T: ArrowTimestampType>(type_name: &str) -> Error {
    Error::invalid(format!("a time is out of the range of {type_name}, which is from {}", range(T::UNIT)))
        .code(sqlstate::DATETIME_FIELD_OVERFLOW)
}

/// Returns a column as times with a zone.
pub(super) fn zoned<T: ArrowTimestampType>(times: PrimitiveArray<T>) -> ArrayRef {
    Arc::new(times.with_timezone("+00:00"))
}
