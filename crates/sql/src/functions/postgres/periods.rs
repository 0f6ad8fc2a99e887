//! Periods and parts of times: OVERLAPS, `isfinite`, `make_time`, and times rounded to a number of digits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, Time64NanosecondArray};
use arrow::compute::kernels::numeric::add;
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type, TimeUnit};
use datafusion::error::Result;
use millstream_delta::sql_type;

use super::time_parts::{SECOND, is_time, units_of_second};
use crate::error::Error;
use crate::functions::Registry;
use crate::functions::scalar::Scalar;
use crate::sqlstate;

/// Registers the functions.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    registry.add(Scalar::any("periods_overlap", overlap_type, overlap));
    registry.add(Scalar::any("isfinite", finite_type, |columns| {
        let valid = columns[0].logical_nulls();
        let rows = (0..columns[0].len())
            .map(|row| valid.as_ref().is_none_or(|nulls| nulls.is_valid(row)).then_some(true));
        Ok(Arc::new(rows.collect::<BooleanArray>()))
    }));
    let parts = vec![DataType::Int64, DataType::Int64, DataType::Float64];
    registry.add(Scalar::exact("time_from_parts", parts, |_| Ok(TIME), from_parts));
    registry.add(Scalar::any("round_time", rounded_type, rounded));
}

const TIME: DataType = DataType::Time64(TimeUnit::Nanosecond);

fn finite_type(arguments: &[DataType]) -> Result<DataType> {
    match arguments {
        [of] if is_time(of) || of.is_null() => Ok(DataType::Boolean),
        _ => Err(Error::invalid("isfinite takes a date, a timestamp or an interval").into()),
    }
}

fn overlap_type(arguments: &[DataType]) -> Result<DataType> {
    let is_point = |of: &DataType| {
        (is_time(of) && !matches!(of, DataType::Interval(_) | DataType::Duration(_))) || of.is_null()
    };
    match arguments {
        [start, end, other, other_end]
            if is_point(start)
                && is_point(other)
                && [end, other_end].iter().all(|of| is_time(of) || of.is_null()) =>
        {
            Ok(DataType::Boolean)
        }
        _ => {
            let types: Vec<String> = arguments.iter().map(sql_type).collect();
            Err(Error::invalid(format!("OVERLAPS takes two periods of times, not of {}", types.join(", ")))
                .hint("Write (start, end) OVERLAPS (start, INTERVAL '1 day').")
                .into())
        }
    }
}

/// Returns times in a unit. Days are beyond the range of nanoseconds.
fn points(column: &ArrayRef, unit: TimeUnit) -> Result<ArrayRef> {
    let target = DataType::Timestamp(unit, None);
    let exactly = CastOptions { safe: false, ..CastOptions::default() };
    if *column.data_type() == DataType::Date32 {
        let of_day = 86_400 * units_of_second(unit);
        let out_of_range = || {
            Error::invalid("a date is out of the range of OVERLAPS").code(sqlstate::DATETIME_FIELD_OVERFLOW)
        };
        let times = column.as_primitive::<Date32Type>().iter().map(|day| {
            day.map(|day| i64::from(day).checked_mul(of_day).ok_or_else(out_of_range)).transpose()
        });
        return Ok(cast(&times.collect::<Result<Int64Array, Error>>()?, &target)?);
    }
    let timed = match column.data_type() {
        DataType::Time32(_) | DataType::Time64(_) => {
            let nanoseconds = cast(&cast(column, &TIME)?, &DataType::Int64)?;
            cast(&nanoseconds, &DataType::Timestamp(TimeUnit::Nanosecond, None))?
        }
        DataType::Timestamp(unit, _) => cast(column, &DataType::Timestamp(*unit, None))?,
        _ => column.clone(),
    };
    Ok(cast_with_options(&timed, &target, &exactly)?)
}

/// Returns the ends of periods that are given by times or by lengths.
fn ends(starts: &ArrayRef, ends: &ArrayRef, unit: TimeUnit) -> Result<ArrayRef> {
    match ends.data_type() {
        DataType::Interval(_) | DataType::Duration(_) => Ok(add(starts, ends)?),
        _ => points(ends, unit),
    }
}

fn overlap(columns: &[ArrayRef]) -> Result<ArrayRef> {
    // Days are beyond the range of nanoseconds. Times of a day are not.
    let is = |of: fn(&DataType) -> bool| columns.iter().any(|column| of(column.data_type()));
    let has_nanoseconds = is(|of| {
        matches!(of, DataType::Timestamp(TimeUnit::Nanosecond, _) | DataType::Time64(TimeUnit::Nanosecond))
    });
    let has_days = is(|of| *of == DataType::Date32);
    let unit = if has_nanoseconds && !has_days { TimeUnit::Nanosecond } else { TimeUnit::Microsecond };
    let starts = [points(&columns[0], unit)?, points(&columns[2], unit)?];
    let ends = [ends(&starts[0], &columns[1], unit)?, ends(&starts[1], &columns[3], unit)?];
    let numbers = |column: &ArrayRef| -> Result<Int64Array> {
        Ok(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
    };
    let (starts, ends) =
        ([numbers(&starts[0])?, numbers(&starts[1])?], [numbers(&ends[0])?, numbers(&ends[1])?]);
    let at = |column: &Int64Array, row: usize| column.is_valid(row).then(|| column.value(row));
    let rows = (0..columns[0].len()).map(|row| {
        let one = ordered(at(&starts[0], row), at(&ends[0], row))?;
        let other = ordered(at(&starts[1], row), at(&ends[1], row))?;
        let (first, second) = if one.0 <= other.0 { (one, other) } else { (other, one) };
        match (first.1, second.1) {
            // Periods that begin together overlap, if both have an end.
            (Some(_), Some(_)) if first.0 == second.0 => Some(true),
            (Some(end), _) if first.0 != second.0 && second.0 < end => Some(true),
            (Some(_), Some(_)) => Some(false),
            _ => None,
        }
    });
    Ok(Arc::new(rows.collect::<BooleanArray>()))
}

/// Returns the start of a period, and its end if it isn't NULL; none if both are NULL.
fn ordered(start: Option<i64>, end: Option<i64>) -> Option<(i64, Option<i64>)> {
    match (start, end) {
        (Some(start), Some(end)) => Some((start.min(end), Some(start.max(end)))),
        (Some(one), None) | (None, Some(one)) => Some((one, None)),
        (None, None) => None,
    }
}

fn from_parts(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (hours, minutes) = (columns[0].as_primitive::<Int64Type>(), columns[1].as_primitive::<Int64Type>());
    let seconds = columns[2].as_primitive::<Float64Type>();
    let rows = (0..hours.len()).map(|row| {
        if columns.iter().any(|column| column.is_null(row)) {
            return Ok(None);
        }
        let (hour, minute, second) = (hours.value(row), minutes.value(row), seconds.value(row));
        let is_time = (0..24).contains(&hour) && (0..60).contains(&minute) && (0.0..=60.0).contains(&second);
        if !is_time {
            return Err(Error::invalid(format!("time field value out of range: {hour}:{minute}:{second}"))
                .code(sqlstate::DATETIME_FIELD_OVERFLOW));
        }
        // As in PostgreSQL, seconds are rounded to microseconds.
        let microseconds = (second * 1e6).round_ties_even() as i64;
        Ok(Some(((hour * 3600 + minute * 60) * SECOND + microseconds * 1_000).min(86_400 * SECOND - 1)))
    });
    Ok(Arc::new(rows.collect::<Result<Time64NanosecondArray, Error>>()?))
}

fn rounded_type(arguments: &[DataType]) -> Result<DataType> {
    match arguments {
        [time @ (DataType::Timestamp(..) | DataType::Time64(_)), digits] if digits.is_integer() => {
            Ok(time.clone())
        }
        _ => Err(Error::invalid("the precision of a time is a number of digits, from 0 to 6").into()),
    }
}

/// Rounds times to a number of digits of their seconds.
fn rounded(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let found = columns[0].data_type().clone();
    let of_second = match &found {
        DataType::Timestamp(unit, _) | DataType::Time64(unit) => units_of_second(*unit),
        other => return Err(Error::bug(format!("{other} is no time")).into()),
    };
    let is_clock = matches!(found, DataType::Time64(_));
    let ticks = cast(&columns[0], &DataType::Int64)?;
    let digits = cast(&columns[1], &DataType::Int64)?;
    let pairs = ticks.as_primitive::<Int64Type>().iter().zip(digits.as_primitive::<Int64Type>());
    let rows = pairs.map(|pair| {
        let (Some(ticks), Some(digits)) = pair else { return Ok(None) };
        let digits = u32::try_from(digits.min(6))
            .map_err(|_| Error::invalid(format!("the precision {digits} of a time is negative")))?;
        let unit = (of_second / 10_i64.pow(digits)).max(1);
        let rounded = ticks.checked_add(unit / 2).map(|sum| sum - sum.rem_euclid(unit));
        // There is no TIME '24:00:00'.
        let last = if is_clock { 86_400 * of_second - 1 } else { i64::MAX };
        Ok(rounded.map(|rounded| rounded.min(last)))
    });
    Ok(cast(&rows.collect::<Result<Int64Array, Error>>()?, &found)?)
}
