//! `generate_series` and `range` of times in microseconds. DataFusion's functions return nanoseconds.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, ListBuilder, PrimitiveArray, TimestampMicrosecondBuilder, timezone::Tz,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::value_size_limit::{ELEMENT_BYTES, VALUE_BYTES_MAX};
use crate::error::Error;
use crate::sqlstate;

/// The elements of the longest list.
const ELEMENTS_MAX: u64 = VALUE_BYTES_MAX / ELEMENT_BYTES;

/// The name of the function whose lists have their end.
const INCLUSIVE: &str = "generate_series";

/// Adds times that aren't in nanoseconds to the types of a function of DataFusion.
pub(super) fn around(inner: Arc<ScalarUDF>) -> ScalarUDF {
    ScalarUDF::from(TimeSeries { inner })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeSeries {
    inner: Arc<ScalarUDF>,
}

/// Returns the type of the elements of a series of times; none for another series.
fn element(arguments: &[DataType]) -> Option<DataType> {
    match arguments {
        [DataType::Timestamp(unit, zone), DataType::Timestamp(..), DataType::Interval(_)]
            if *unit != TimeUnit::Nanosecond =>
        {
            Some(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))
        }
        _ => None,
    }
}

impl ScalarUDFImpl for TimeSeries {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match element(arguments) {
            Some(data_type) => Ok(DataType::new_list(data_type, true)),
            None => self.inner.inner().return_type(arguments),
        }
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let types: Vec<DataType> = arguments.args.iter().map(ColumnarValue::data_type).collect();
        let Some(data_type) = element(&types) else { return self.inner.inner().invoke_with_args(arguments) };
        let columns = ColumnarValue::values_to_arrays(&arguments.args)?;
        Ok(ColumnarValue::Array(series(self.name(), &columns, &data_type)?))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

/// Computes the list of each row; NULL if an argument is. Each element is the one before plus the step, by the calendar.
fn series(name: &str, columns: &[ArrayRef], data_type: &DataType) -> Result<ArrayRef> {
    let zone: Tz = match data_type {
        DataType::Timestamp(_, Some(zone)) => zone.parse()?,
        _ => "+00:00".parse()?,
    };
    let times = |at: usize| -> Result<PrimitiveArray<TimestampMicrosecondType>> {
        Ok(cast(&columns[at], data_type)?.as_primitive().clone())
    };
    let (starts, ends) = (times(0)?, times(1)?);
    let steps = cast(&columns[2], &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let steps = steps.as_primitive::<IntervalMonthDayNanoType>();
    let mut lists = ListBuilder::new(TimestampMicrosecondBuilder::new().with_data_type(data_type.clone()));
    for ((start, end), step) in starts.iter().zip(&ends).zip(steps) {
        let (Some(start), Some(end), Some(step)) = (start, end, step) else {
            lists.append_null();
            continue;
        };
        let next = |time: i64| TimestampMicrosecondType::add_month_day_nano(time, step, zone);
        let first = next(start).ok_or_else(out_of_range)?;
        if first == start {
            return Err(Error::invalid("step size cannot equal zero")
                .hint("The shortest step is a microsecond.")
                .into());
        }
        let is_down = first < start;
        let is_over = |time: i64| match (name == INCLUSIVE, is_down) {
            (true, false) => time > end,
            (true, true) => time < end,
            (false, false) => time >= end,
            (false, true) => time <= end,
        };
        if !is_over(start) && least_count(start, end, step) > ELEMENTS_MAX {
            return Err(too_long(name).into());
        }
        let (mut time, mut count) = (Some(start), 0);
        while let Some(found) = time.filter(|time| !is_over(*time)) {
            count += 1;
            if count > ELEMENTS_MAX {
                return Err(too_long(name).into());
            }
            lists.values().append_value(found);
            // The series ends where times end.
            time = next(found).filter(|next| (*next < found) == is_down && *next != found);
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}

/// Returns a number of elements that a series has at least, so that one that is too long is refused before it is made: no
/// month has more than 31 days, and no day more than 26 hours.
fn least_count(start: i64, end: i64, step: IntervalMonthDayNano) -> u64 {
    const HOUR: u128 = 3_600_000_000;
    let days = u128::from(step.months.unsigned_abs()) * 31 + u128::from(step.days.unsigned_abs());
    let longest = days * 26 * HOUR + u128::from(step.nanoseconds.unsigned_abs()).div_ceil(1000);
    (u128::from(start.abs_diff(end)) / longest.max(1)) as u64
}

fn too_long(name: &str) -> Error {
    let message =
        format!("{name} would make a value of more than {VALUE_BYTES_MAX} bytes, which is the maximum");
    Error::invalid(message).code(sqlstate::PROGRAM_LIMIT_EXCEEDED)
}

fn out_of_range() -> Error {
    Error::invalid("timestamp out of range").code(sqlstate::DATETIME_FIELD_OVERFLOW)
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn series_of_times_have_the_range_of_microseconds() {
        let tables = Tables::new().table(
            "t",
            "(k INT, a TIMESTAMP, b TIMESTAMP, s INTERVAL)",
            "VALUES (1, '9999-01-31', '9999-04-01', '1 month'), (2, NULL, '2024-01-01', '1 day'), (3, '2024-01-02', '2024-01-01', '1 day')",
        );
        tables.check(
            "SELECT k, generate_series(a, b, s) FROM t",
            &["1|9999-01-31T00:00:00", "1|9999-02-28T00:00:00", "1|9999-03-28T00:00:00"],
        );
        tables.check(
            "SELECT generate_series(TIMESTAMP '2024-01-02', TIMESTAMP '2024-01-01', INTERVAL '-12 hours')",
            &["2024-01-01T00:00:00", "2024-01-01T12:00:00", "2024-01-02T00:00:00"],
        );
        tables.check(
            "SELECT unnest(range(TIMESTAMP '2024-01-01', TIMESTAMP '2024-01-02', INTERVAL '12 hours'))",
            &["2024-01-01T00:00:00", "2024-01-01T12:00:00"],
        );
        tables.fails(
            "SELECT generate_series(TIMESTAMP '2024-01-01', TIMESTAMP '2024-01-02', INTERVAL '1 nanosecond')",
            "step size cannot equal zero\nHINT: The shortest step is a microsecond.",
        );
        tables.fails(
            "SELECT generate_series(TIMESTAMP '2024-01-01', TIMESTAMP '2025-01-01', INTERVAL '1 microsecond')",
            "generate_series would make a value of more than 268435456 bytes, which is the maximum",
        );
    }
}
