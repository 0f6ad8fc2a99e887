//! Functions of times of Spark: of TIME, `time_trunc('HOUR', t)`, `time_diff('HOUR', a, b)`, `time_from_millis(n)`, and
//! `unix_nanos(ts)`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, Time64NanosecondArray,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use datafusion::error::Result;

use super::Registry;
use super::moments::{Nanos, nanoseconds, out_of_range};
use super::of_times::of_times;
use super::other_times::{self, ticks};
use super::scalar::{Kernel, Scalar};
use crate::error::Error;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;
const TIME: DataType = DataType::Time64(TimeUnit::Nanosecond);

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let time = |_: &[DataType]| Ok(TIME);
    let integer = |_: &[DataType]| Ok(DataType::Int64);
    registry.add(Scalar::exact("time_trunc", vec![DataType::Utf8View, TIME], time, truncate));
    registry.add(Scalar::exact("time_diff", vec![DataType::Utf8View, TIME, TIME], integer, difference));
    let from: [(&'static str, Kernel); 2] = [
        ("time_from_millis", |columns| from_units("time_from_millis", columns, 1_000_000)),
        ("time_from_micros", |columns| from_units("time_from_micros", columns, 1_000)),
    ];
    for (name, kernel) in from {
        registry.add(Scalar::exact(name, vec![DataType::Int64], time, kernel));
    }
    registry.add(Scalar::exact("time_from_seconds", vec![DataType::Float64], time, from_seconds));
    let to: [(&'static str, Kernel); 2] = [
        ("time_to_millis", |columns| to_units(columns, 1_000_000)),
        ("time_to_micros", |columns| to_units(columns, 1_000)),
    ];
    for (name, kernel) in to {
        registry.add(Scalar::exact(name, vec![TIME], integer, kernel));
    }
    let seconds = |_: &[DataType]| Ok(DataType::Decimal128(14, 6));
    registry.add(Scalar::exact("time_to_seconds", vec![TIME], seconds, |columns| {
        let times = ticks(&columns[0])?;
        let seconds: Decimal128Array = times.iter().map(|time| Some(i128::from(time? / 1_000))).collect();
        Ok(Arc::new(seconds.with_precision_and_scale(14, 6)?))
    }));
    registry.add(of_times("unix_nanos", vec![registry.timestamp()], integer, |columns| {
        let numbers = nanoseconds(&columns[0])?.into_iter().map(|time| match time.map(i64::try_from) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(out_of_range::<Nanos>("unix_nanos")),
        });
        Ok(Arc::new(numbers.collect::<Result<Int64Array, Error>>()?))
    }));
    let months = vec![registry.timestamp(), registry.timestamp(), DataType::Boolean];
    registry.add(of_times(
        "months_between_rounded",
        months,
        |_| Ok(DataType::Float64),
        |columns| {
            let rounds = columns[2].as_boolean();
            let months = other_times::months_between_all(columns)?.into_iter().zip(rounds);
            let months = months.map(|(months, rounds)| {
                let months = months?;
                Some(if rounds? { other_times::rounded(months) } else { months })
            });
            Ok(Arc::new(months.collect::<Float64Array>()))
        },
    ));
}

/// Returns the length of a unit of a TIME.
fn unit(name: &str, unit: &str) -> Result<i64> {
    Ok(match unit.to_lowercase().as_str() {
        "hour" | "hours" => 3_600 * SECOND,
        "minute" | "minutes" => 60 * SECOND,
        "second" | "seconds" => SECOND,
        "millisecond" | "milliseconds" => 1_000_000,
        "microsecond" | "microseconds" => 1_000,
        other => {
            return Err(Error::invalid(format!("{name} has no unit '{other}'"))
                .hint("Units are HOUR, MINUTE, SECOND, MILLISECOND and MICROSECOND.")
                .into());
        }
    })
}

fn truncate(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let times = ticks(&columns[1])?;
    let rows = columns[0].as_string_view().iter().zip(&times).map(|(name, time)| {
        let (Some(name), Some(time)) = (name, time) else { return Ok(None) };
        let unit = unit("time_trunc", name)?;
        Ok(Some(time - time % unit))
    });
    Ok(Arc::new(rows.collect::<Result<Time64NanosecondArray>>()?))
}

/// Returns the number of whole units from one time to another.
fn difference(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (units, from, to) = (columns[0].as_string_view(), ticks(&columns[1])?, ticks(&columns[2])?);
    let rows = (0..units.len()).map(|row| {
        if columns.iter().any(|column| column.is_null(row)) {
            return Ok(None);
        }
        Ok(Some((to.value(row) - from.value(row)) / unit("time_diff", units.value(row))?))
    });
    Ok(Arc::new(rows.collect::<Result<Int64Array>>()?))
}

fn no_time(name: &str, given: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("{name}({given}) is no time of a day"))
        .hint("A time is from 00:00:00 to 23:59:59.999999.")
}

fn from_units(name: &str, columns: &[ArrayRef], unit: i64) -> Result<ArrayRef> {
    let rows = columns[0].as_primitive::<Int64Type>().iter().map(|count| {
        let Some(count) = count else { return Ok(None) };
        let time = count.checked_mul(unit).filter(|time| (0..DAY).contains(time));
        time.map(Some).ok_or_else(|| no_time(name, &count).into())
    });
    Ok(Arc::new(rows.collect::<Result<Time64NanosecondArray>>()?))
}

/// Seconds are rounded to microseconds.
fn from_seconds(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let rows = columns[0].as_primitive::<Float64Type>().iter().map(|seconds| {
        let Some(seconds) = seconds else { return Ok(None) };
        let microseconds = (seconds * 1e6).round();
        match (0.0..86_400e6).contains(&microseconds) {
            true => Ok(Some(microseconds as i64 * 1_000)),
            false => Err(no_time("time_from_seconds", &seconds).into()),
        }
    });
    Ok(Arc::new(rows.collect::<Result<Time64NanosecondArray>>()?))
}

fn to_units(columns: &[ArrayRef], unit: i64) -> Result<ArrayRef> {
    let times = ticks(&columns[0])?;
    Ok(Arc::new(times.iter().map(|time| Some(time? / unit)).collect::<Int64Array>()))
}
