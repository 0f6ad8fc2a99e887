//! Functions of Flink that PostgreSQL lacks.

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{ArrowTimestampType, DataType, Int64Type};
use datafusion::error::Result;

use crate::error::Error;
use crate::functions::Registry;
use crate::functions::moments::{self, Micros, Nanos, timestamptz, zoned};
use crate::functions::scalar::{Kernel, Scalar, Typed};

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let (typed, kernel): (Typed, Kernel) = registry.in_unit(
        (moment::<Micros>, to_timestamp_ltz::<Micros>),
        (moment::<Nanos>, to_timestamp_ltz::<Nanos>),
    );
    registry.add(Scalar::any("to_timestamp_ltz", typed, kernel));
}

/// The type of a moment in time.
fn moment<T: ArrowTimestampType>(arguments: &[DataType]) -> Result<DataType> {
    let is_number = |data_type: &DataType| data_type.is_integer() || data_type.is_null();
    match arguments {
        [count] | [count, _] if !is_number(count) => Err(Error::invalid(
            "to_timestamp_ltz takes a whole number of seconds or milliseconds since 1970-01-01 00:00:00 UTC",
        )
        .hint("Cast a text: x::TIMESTAMPTZ. Cast a number: x::BIGINT.")
        .into()),
        [_] => Ok(timestamptz::<T>()),
        [_, precision] if is_number(precision) => Ok(timestamptz::<T>()),
        _ => Err(Error::invalid(
            "to_timestamp_ltz takes a number and a precision: 0 for seconds, 3 for milliseconds",
        )
        .into()),
    }
}

/// Returns the moment that is a number of units after 1970. The unit follows from the precision: 0 seconds, 3
/// milliseconds, 6 microseconds, 9 nanoseconds. Flink has 0 and 3, and 3 if none is given.
fn to_timestamp_ltz<T: ArrowTimestampType>(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let counts = cast(&columns[0], &DataType::Int64)?;
    let precisions = columns.get(1).map(|column| cast(column, &DataType::Int64)).transpose()?;
    let nanos = |row: usize, count: i64| {
        let precision = match &precisions {
            Some(precisions) if arrow::array::Array::is_null(precisions, row) => return Ok(None),
            Some(precisions) => precisions.as_primitive::<Int64Type>().value(row),
            None => 3,
        };
        let unit = match precision {
            0 => 1_000_000_000,
            3 => 1_000_000,
            6 => 1_000,
            9 => 1,
            other => {
                return Err(Error::invalid(format!(
                    "the precision of to_timestamp_ltz is {other}, but 0 (seconds), 3 (milliseconds), 6 or 9 was expected"
                )));
            }
        };
        Ok(Some(i128::from(count) * unit))
    };
    let moments = counts.as_primitive::<Int64Type>().iter().enumerate().map(|(row, count)| match count {
        Some(count) => nanos(row, count),
        None => Ok(None),
    });
    let moments = moments::moments::<T>(moments, || {
        moments::out_of_range::<T>("to_timestamp_ltz").hint("Is the number in another unit?")
    })?;
    Ok(zoned(moments))
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn moments_are_counted_in_units_of_a_precision() {
        let check = |sql: &str, expected: &str| Tables::new().check(&format!("SELECT {sql}"), &[expected]);
        check("to_timestamp_ltz(1767225600, 0)", "2026-01-01T00:00:00Z");
        check("to_timestamp_ltz(1767225600123, 3)", "2026-01-01T00:00:00.123Z");
        check("to_timestamp_ltz(1767225600123)", "2026-01-01T00:00:00.123Z");
        check("to_timestamp_ltz(-1::int, 3)", "1969-12-31T23:59:59.999Z");
        check("to_timestamp_ltz(NULL, 3)", "NULL");
        check("to_timestamp_ltz(253402300799, 0)", "9999-12-31T23:59:59Z");
        Tables::new().fails(
            "SELECT to_timestamp_ltz(9223372036854775807, 0)",
            "a time is out of the range of to_timestamp_ltz, which is from 290301 BC to 294247 AD\nHINT: Is the number in \
             another unit?",
        );
    }
}
