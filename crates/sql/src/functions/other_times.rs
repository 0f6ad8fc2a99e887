//! Functions of times that Spark and Flink have: `timestampdiff`, `next_day`, `months_between`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Date32Array, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Int64Type};
use datafusion::error::Result;

use super::Registry;
use super::moments::nanoseconds;
use super::of_times::of_times;
use super::postgres::calendar::{self, Date};
use super::scalar::Scalar;
use crate::error::Error;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let timestamp = registry.timestamp();
    let difference = vec![DataType::Utf8View, timestamp.clone(), timestamp.clone()];
    registry.add(of_times("timestamp_difference", difference, |_| Ok(DataType::Int64), difference_of));
    let day = vec![DataType::Date32, DataType::Utf8View];
    registry.add(Scalar::exact("next_day", day, |_| Ok(DataType::Date32), next_day));
    let months = vec![timestamp; 2];
    registry.add(of_times("months_between", months, |_| Ok(DataType::Float64), months_between));
}

/// Returns the nanoseconds of a column of times of a day.
pub(super) fn ticks(column: &ArrayRef) -> Result<Int64Array> {
    Ok(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// Returns the number of whole units between two times.
fn difference_of(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let units = columns[0].as_string_view();
    let times = nanoseconds(&columns[1])?.into_iter().zip(nanoseconds(&columns[2])?);
    let rows = units.iter().zip(times).map(|row| {
        let (Some(unit), (Some(from), Some(to))) = row else { return Ok(None) };
        let length = to - from;
        let of = |unit: i64| i64::try_from(length / i128::from(unit)).ok();
        let months = || months(from, to);
        Ok(match unit.trim_end_matches('s') {
            "microsecond" => of(1_000),
            "millisecond" => of(1_000_000),
            "second" => of(SECOND),
            "minute" => of(60 * SECOND),
            "hour" => of(3_600 * SECOND),
            "day" => of(DAY),
            "week" => of(7 * DAY),
            "month" => Some(months()),
            "quarter" => Some(months() / 3),
            "year" => Some(months() / 12),
            _ => {
                return Err(Error::invalid(format!("TIMESTAMPDIFF has no unit {unit}"))
                    .hint("Units are SECOND, MINUTE, HOUR, DAY, WEEK, MONTH, QUARTER and YEAR."));
            }
        })
    });
    Ok(Arc::new(rows.collect::<Result<Int64Array, Error>>()?))
}

/// Returns the date of a time, and the nanoseconds of the day.
fn date_and_time(nanoseconds: i128) -> (Date, i64) {
    let day = i128::from(DAY);
    (Date::of_days(nanoseconds.div_euclid(day) as i64), nanoseconds.rem_euclid(day) as i64)
}

/// Returns the number of whole months between two times.
fn months(from: i128, to: i128) -> i64 {
    if to < from {
        return -months(to, from);
    }
    let ((start, from), (end, to)) = (date_and_time(from), date_and_time(to));
    let months = (end.year - start.year) * 12 + end.month - start.month;
    let is_short = (end.day, to) < (start.day, from);
    months - i64::from(is_short)
}

fn next_day(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let days = columns[0].as_primitive::<Date32Type>();
    let rows = days.iter().zip(columns[1].as_string_view()).map(|pair| {
        let (Some(day), Some(name)) = pair else { return Ok(None) };
        let names = ["su", "mo", "tu", "we", "th", "fr", "sa"];
        let lower = name.to_ascii_lowercase();
        let Some(wanted) = names.iter().position(|name| lower.starts_with(name)) else {
            return Err(Error::invalid(format!(
                "'{name}' is no day of the week; 'Monday', 'Mon' or 'Mo' is one"
            )));
        };
        let found = calendar::day_of_week(i64::from(day));
        let ahead = (i64::try_from(wanted).unwrap_or(0) - found + 6).rem_euclid(7) + 1;
        Ok(i32::try_from(i64::from(day) + ahead).ok())
    });
    Ok(Arc::new(rows.collect::<Result<Date32Array, Error>>()?))
}

/// Returns the months between two times. Between the same days of months, or two last days, it is whole.
pub(super) fn months_between_all(columns: &[ArrayRef]) -> Result<Vec<Option<f64>>> {
    let (to, from) = (nanoseconds(&columns[0])?, nanoseconds(&columns[1])?);
    let rows = to.into_iter().zip(from).map(|(to, from)| {
        let ((end, to), (start, from)) = (date_and_time(to?), date_and_time(from?));
        let months = ((end.year - start.year) * 12 + end.month - start.month) as f64;
        let is_last = |date: Date| date.day == calendar::days_of_month(date.year, date.month);
        if end.day == start.day || (is_last(end) && is_last(start)) {
            return Some(months);
        }
        let seconds = |day: i64, time: i64| (day * DAY + time) as f64 / SECOND as f64;
        let rest = (seconds(end.day, to) - seconds(start.day, from)) / (31.0 * 86_400.0);
        Some(months + rest)
    });
    Ok(rows.collect())
}

/// Rounds months to 8 decimals.
pub(super) fn rounded(months: f64) -> f64 {
    (months * 1e8).round() / 1e8
}

fn months_between(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let months = months_between_all(columns)?.into_iter().map(|months| months.map(rounded));
    Ok(Arc::new(months.collect::<Float64Array>()))
}
