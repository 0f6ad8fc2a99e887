//! Functions of Flink that PostgreSQL lacks.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, TimestampNanosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::error::Result;

use crate::error::Error;
use crate::functions::Registry;
use crate::functions::scalar::Scalar;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    registry.add(Scalar::any("to_timestamp_ltz", moment, to_timestamp_ltz));
}

/// The type of a moment in time.
fn moment(arguments: &[DataType]) -> Result<DataType> {
    let is_number = |data_type: &DataType| data_type.is_integer() || data_type.is_null();
    match arguments {
        [count] | [count, _] if !is_number(count) => Err(Error::invalid(
            "to_timestamp_ltz takes a whole number of seconds or milliseconds since 1970-01-01 00:00:00 UTC",
        )
        .hint("Cast a text: x::TIMESTAMPTZ. Cast a number: x::BIGINT.")
        .into()),
        [_] => Ok(DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()))),
        [_, precision] if is_number(precision) => {
            Ok(DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())))
        }
        _ => Err(Error::invalid(
            "to_timestamp_ltz takes a number and a precision: 0 for seconds, 3 for milliseconds",
        )
        .into()),
    }
}

/// Returns the moment that is a number of units after 1970. The unit follows from the precision: 0 seconds, 3
/// milliseconds, 6 microseconds, 9 nanoseconds. Flink has 0 and 3, and 3 if none is given.
fn to_timestamp_ltz(columns: &[ArrayRef]) -> Result<ArrayRef> {
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
        let out_of_range = || {
            Error::invalid(format!(
                "to_timestamp_ltz({count}, {precision}) is out of the range of timestamps"
            ))
            .hint("Timestamps are between 1677-09-21 and 2262-04-11. Is the number in another unit?")
        };
        count.checked_mul(unit).map(Some).ok_or_else(out_of_range)
    };
    let moments = counts.as_primitive::<Int64Type>().iter().enumerate().map(|(row, count)| match count {
        Some(count) => nanos(row, count),
        None => Ok(None),
    });
    let moments = moments.collect::<std::result::Result<TimestampNanosecondArray, Error>>()?;
    Ok(Arc::new(moments.with_timezone("+00:00")))
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
        Tables::new().fails(
            "SELECT to_timestamp_ltz(9223372036854775807, 0)",
            "to_timestamp_ltz(9223372036854775807, 0) is out of the range of timestamps\nHINT: Timestamps are between \
             1677-09-21 and 2262-04-11. Is the number in another unit?",
        );
    }
}
