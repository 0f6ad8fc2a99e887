//! Time functions: zones and parts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{ArrowTimestampType, DataType, Float64Type, Int64Type, TimeUnit};
use chrono::{NaiveDate, NaiveTime};
use datafusion::error::Result;
use datafusion::logical_expr::ScalarUDF;

use super::time_parts::units_of_second;
use super::zone_offsets::{Zones, local_offset, utc_offset};
use crate::error::Error;
use crate::functions::Registry;
use crate::functions::moments::{Micros, Nanos, moments, out_of_range};
use crate::functions::scalar::{Kernel, Scalar, Typed, or_null};

/// Registers the functions.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    registry.add(timezone_function());
    let mut parts = vec![DataType::Int64; 5];
    parts.push(DataType::Float64);
    let typed: Typed = registry.in_unit(local_type::<Micros>, local_type::<Nanos>);
    let kernel: Kernel = registry.in_unit(from_parts::<Micros>, from_parts::<Nanos>);
    let kernel_or_null: Kernel = registry.in_unit(from_parts_or_null::<Micros>, from_parts_or_null::<Nanos>);
    registry.add(Scalar::exact("timestamp_from_parts", parts.clone(), typed, kernel));
    registry.add(Scalar::exact("timestamp_from_parts_or_null", parts, typed, kernel_or_null));
}

fn local_type<T: ArrowTimestampType>(_arguments: &[DataType]) -> Result<DataType> {
    Ok(DataType::Timestamp(T::UNIT, None))
}

fn from_parts_or_null<T: ArrowTimestampType>(columns: &[ArrayRef]) -> Result<ArrayRef> {
    or_null(columns, &local_type::<T>(&[])?, from_parts::<T>)
}

/// Returns the function `timezone(zone, x)`.
pub(crate) fn timezone_function() -> ScalarUDF {
    Scalar::any("timezone", timezone_type, timezone)
}

/// Returns the type of `timezone(zone, x)`: TIMESTAMP for a TIMESTAMPTZ, and TIMESTAMPTZ for a local time.
fn timezone_type(arguments: &[DataType]) -> Result<DataType> {
    match arguments {
        [zone, DataType::Timestamp(unit, from)] if is_text(zone) => {
            Ok(DataType::Timestamp(*unit, if from.is_some() { None } else { Some("+00:00".into()) }))
        }
        [zone, DataType::Date32] if is_text(zone) => {
            Ok(DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())))
        }
        _ => {
            Err(Error::invalid("AT TIME ZONE takes a TIMESTAMP or TIMESTAMPTZ and the name of a zone").into())
        }
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
}

fn timezone(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let target = timezone_type(&[columns[0].data_type().clone(), columns[1].data_type().clone()])?;
    let DataType::Timestamp(unit, to) = &target else { return Err(Error::bug("a time has a unit").into()) };
    let mut zones = Zones::new(&columns[0])?;
    let times = match columns[1].data_type() {
        DataType::Date32 => cast(&columns[1], &DataType::Timestamp(TimeUnit::Nanosecond, None))?,
        _ => columns[1].clone(),
    };
    let times = cast(&times, &DataType::Int64)?;
    let second = units_of_second(*unit);
    let moved = times.as_primitive::<Int64Type>().iter().enumerate().map(|(row, time)| {
        let Some(time) = time else { return Ok(None) };
        let Some(zone) = zones.get(row)? else { return Ok(None) };
        let seconds = time.div_euclid(second);
        let offset = match to {
            None => utc_offset(zone, seconds),
            Some(_) => local_offset(zone, seconds).map(|offset| -offset),
        };
        let moved = offset.and_then(|offset| time.checked_add(offset * second));
        let out_of_range = || Error::invalid(format!("a time is out of range in zone '{}'", zones.name(row)));
        moved.map(Some).ok_or_else(out_of_range)
    });
    let moved = moved.collect::<std::result::Result<Int64Array, Error>>()?;
    Ok(cast(&moved, &target)?)
}

/// As in PostgreSQL, 60 seconds and 24 hours are the beginning of the next minute and day.
fn from_parts<T: ArrowTimestampType>(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let rows = (0..columns[0].len()).map(|row| {
        if columns.iter().any(|column| column.is_null(row)) {
            return Ok(None);
        }
        let part = |at: usize| columns[at].as_primitive::<Int64Type>().value(row);
        let seconds = columns[5].as_primitive::<Float64Type>().value(row);
        let wrong = || {
            let parts: Vec<String> = (0..5).map(|at| part(at).to_string()).collect();
            Error::invalid(format!("make_timestamp({}, {seconds}) is no time", parts.join(", ")))
        };
        let unsigned = |at: usize| u32::try_from(part(at)).map_err(|_| wrong());
        let date =
            NaiveDate::from_ymd_opt(i32::try_from(part(0)).map_err(|_| wrong())?, unsigned(1)?, unsigned(2)?)
                .ok_or_else(wrong)?;
        let fits =
            (0..=24).contains(&part(3)) && (0..60).contains(&part(4)) && (0.0..=60.0).contains(&seconds);
        let time = (part(3) * 60 + part(4)) * 60_000_000_000 + (seconds * 1e9).round() as i64;
        if !fits || time > 86_400_000_000_000 {
            return Err(wrong());
        }
        let midnight = date.and_time(NaiveTime::MIN).and_utc().timestamp();
        Ok(Some(i128::from(midnight) * 1_000_000_000 + i128::from(time)))
    });
    Ok(Arc::new(moments::<T>(rows, || out_of_range::<T>("TIMESTAMP"))?))
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn check(sql: &str, expected: &str) {
        Tables::new().check(&format!("SELECT {sql}"), &[expected]);
    }

    #[test]
    fn zones_move_times() {
        let berlin = "AT TIME ZONE 'Europe/Berlin'";
        check(&format!("TIMESTAMP '2024-07-01 12:00:00' {berlin}"), "2024-07-01T10:00:00Z");
        check(&format!("TIMESTAMPTZ '2024-07-01 12:00:00+00' {berlin}"), "2024-07-01T14:00:00");
        check(&format!("TIMESTAMP '2024-10-27 02:30:00' {berlin}"), "2024-10-27T01:30:00Z");
        check(&format!("TIMESTAMP '2024-03-31 02:30:00' {berlin}"), "2024-03-31T01:30:00Z");
        check("DATE '2024-01-01' AT TIME ZONE '+02:00'", "2023-12-31T22:00:00Z");
        Tables::new().fails(
            "SELECT TIMESTAMP '2024-01-01' AT TIME ZONE 'Nowhere'",
            "time zone 'Nowhere' not found\nHINT: Write it as in 'Europe/Berlin', 'UTC' or '+02:00'.",
        );
    }

    #[test]
    fn parts_are_times() {
        check("make_timestamp(2024, 2, 29, 1, 2, 3.5)", "2024-02-29T01:02:03.500");
        check("make_timestamp(9999, 12, 31, 23, 59, 59.999999)", "9999-12-31T23:59:59.999999");
    }
}
