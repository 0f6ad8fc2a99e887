//! Times read, added and cut by the calendar of a zone: what the rule [`crate::rules::session_zone`] calls.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringViewBuilder};
use arrow::compute::cast;
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{
    ArrowTimestampType, DataType, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};
use chrono::{DateTime, Days, FixedOffset, Months, NaiveDateTime, TimeDelta};
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ScalarUDF, lit};
use datafusion::scalar::ScalarValue;

use crate::error::Error;
use crate::functions::Registry;
use crate::functions::moments::{Micros, Nanos, in_unit, moments, timestamptz, zoned};
use crate::functions::postgres::{
    SECOND, ZoneOffsets, Zones, date_trunc_in_zone, local_offset, read_in_zone, timezone_function,
    units_of_second, utc_offset,
};
use crate::functions::scalar::{Kernel, Scalar, Typed};
use crate::literals::time::rewrite_literal;
use crate::sqlstate;

/// Registers the functions, which stored plans name.
pub(super) fn register(registry: &mut Registry<'_>) {
    registry.add(offset_function());
    registry.add(sum_function("add_in_zone"));
    registry.add(sum_function("subtract_in_zone"));
    registry.add(read_function(registry.unit));
}

/// Reads a text as a local time of a zone: adds the zone's offset unless the text has one.
pub(crate) fn with_offset(text: Expr, zone_name: &str) -> Transformed<Expr> {
    let is_done = |call: &ScalarFunction| call.name() == OFFSET;
    match text {
        Expr::Literal(value, metadata) => {
            let written = value.try_as_str().flatten();
            let zone = ZoneOffsets::new(zone_name).ok();
            let added = written.zip(zone).and_then(|(text, zone)| offset_added(text, |at| zone.at_local(at)));
            match added {
                Some(text) => Transformed::yes(Expr::Literal(ScalarValue::from(text), metadata)),
                None => Transformed::no(Expr::Literal(value, metadata)),
            }
        }
        Expr::ScalarFunction(call) if is_done(&call) => Transformed::no(Expr::ScalarFunction(call)),
        text => Transformed::yes(offset_function().call(vec![text, lit(zone_name)])),
    }
}

/// Builds `timezone(zone, time)`.
pub(crate) fn timezone(zone: &str, time: Expr) -> Expr {
    timezone_function().call(vec![lit(zone), time])
}

/// Builds the sum, or the difference, of a time and an interval.
pub(crate) fn add(time: Expr, interval: Expr, is_minus: bool, zone: &str) -> Expr {
    let function = sum_function(if is_minus { "subtract_in_zone" } else { "add_in_zone" });
    function.call(vec![time, interval, lit(zone)])
}

/// Builds `date_trunc_in_zone(unit, time, zone)`.
pub(crate) fn truncated(unit: Expr, time: Expr, zone: &str) -> Expr {
    date_trunc_in_zone().call(vec![unit, time, lit(zone)])
}

/// Builds the call that reads a text by a pattern, as a local time of a zone.
pub(crate) fn read(text: Expr, pattern: Expr, zone: &str, unit: TimeUnit) -> Expr {
    read_function(unit).call(vec![text, pattern, lit(zone)])
}

const OFFSET: &str = "text_in_zone";

fn offset_function() -> ScalarUDF {
    let texts = vec![DataType::Utf8View; 2];
    Scalar::exact(
        OFFSET,
        texts,
        |_| Ok(DataType::Utf8View),
        |columns| {
            let mut zones = Zones::new(&columns[1])?;
            let texts = cast(&columns[0], &DataType::Utf8View)?;
            let mut out = StringViewBuilder::with_capacity(texts.len());
            for (row, text) in texts.as_string_view().iter().enumerate() {
                match (text, zones.get(row)?) {
                    (Some(text), Some(zone)) => {
                        let added = offset_added(text, |local| local_offset(zone, local));
                        out.append_value(added.as_deref().unwrap_or(text));
                    }
                    _ => out.append_null(),
                }
            }
            Ok(Arc::new(out.finish()))
        },
    )
}

/// Returns the text of a TIMESTAMPTZ in UTC if it is a local time of the zone. A text that has an offset, or is no time,
/// stays.
pub fn in_utc<'a>(text: &'a str, zone: &ZoneOffsets) -> Cow<'a, str> {
    offset_added(text, |local| zone.at_local(local)).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Returns a local time of a zone as a text in UTC; none if it has an offset, or is no time. The function returns the
/// zone's offset at a local time, in seconds.
fn offset_added(text: &str, offset_at: impl Fn(i64) -> Option<i64>) -> Option<String> {
    if text.trim().eq_ignore_ascii_case("epoch") {
        return Some("1970-01-01T00:00:00Z".into());
    }
    let shaped = rewrite_literal(text, "TIMESTAMPTZ").ok()?;
    let shaped = shaped.as_deref().unwrap_or(text.trim());
    let read = |offset: i32| string_to_datetime(&FixedOffset::east_opt(offset)?, shaped).ok();
    let (time, other) = (read(0)?, read(3_600)?);
    // The offset of the text, not that of the reader, decides about both.
    if time == other {
        return None;
    }
    let local = time.naive_utc();
    let offset = offset_at(local.and_utc().timestamp())?;
    let utc = local.checked_sub_signed(TimeDelta::seconds(offset))?;
    Some(utc.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string())
}

fn sum_function(name: &'static str) -> ScalarUDF {
    let typed = |types: &[DataType]| match types {
        [DataType::Timestamp(unit, Some(_)), ..] => Ok(DataType::Timestamp(*unit, Some("+00:00".into()))),
        _ => Err(Error::bug("an interval is added to a TIMESTAMPTZ").into()),
    };
    match name {
        "add_in_zone" => Scalar::any(name, typed, |columns| sum(columns, false)),
        _ => Scalar::any(name, typed, |columns| sum(columns, true)),
    }
}

fn sum(columns: &[ArrayRef], is_minus: bool) -> Result<ArrayRef> {
    let [times, intervals, zones] = columns else {
        return Err(Error::bug("an interval is added to a time in a zone").into());
    };
    let DataType::Timestamp(unit, _) = times.data_type() else {
        return Err(Error::bug("an interval is added to a TIMESTAMPTZ").into());
    };
    let units = units_of_second(*unit);
    let mut zones = Zones::new(zones)?;
    let ticks = cast(times, &DataType::Int64)?;
    let ticks = ticks.as_primitive::<Int64Type>();
    let intervals = cast(intervals, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
    let sums = (0..ticks.len()).map(|row| {
        let zone = zones.get(row)?;
        let (Some(zone), true, true) = (zone, ticks.is_valid(row), intervals.is_valid(row)) else {
            return Ok(None);
        };
        let by = intervals.value(row);
        let sign = if is_minus { -1 } else { 1 };
        let days = (i64::from(by.months) * sign, i64::from(by.days) * sign);
        let rest = i128::from(by.nanoseconds) * i128::from(sign) / i128::from(SECOND / units);
        let moved = moved(ticks.value(row), units, days, zone).map(i128::from);
        let sum = moved.and_then(|moved| i64::try_from(moved + rest).ok());
        sum.map(Some).ok_or_else(out_of_range)
    });
    let sums = sums.collect::<std::result::Result<Int64Array, Error>>()?;
    Ok(cast(&sums, &DataType::Timestamp(*unit, Some("+00:00".into())))?)
}

/// Adds months, then days, to a local time of the zone; none out of range.
fn moved(ticks: i64, units: i64, (months, days): (i64, i64), zone: &Tz) -> Option<i64> {
    if (months, days) == (0, 0) {
        return Some(ticks);
    }
    let (seconds, fraction) = (ticks.div_euclid(units), ticks.rem_euclid(units));
    let local = seconds.checked_add(utc_offset(zone, seconds)?)?;
    let local = by_calendar(DateTime::from_timestamp(local, 0)?.naive_utc(), months, days)?;
    let local = local.and_utc().timestamp();
    let seconds = local - local_offset(zone, local)?;
    seconds.checked_mul(units)?.checked_add(fraction)
}

fn by_calendar(local: NaiveDateTime, months: i64, days: i64) -> Option<NaiveDateTime> {
    let count = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    let local = match months < 0 {
        true => local.checked_sub_months(count)?,
        false => local.checked_add_months(count)?,
    };
    let count = Days::new(days.unsigned_abs());
    if days < 0 { local.checked_sub_days(count) } else { local.checked_add_days(count) }
}

fn read_function(unit: TimeUnit) -> ScalarUDF {
    let texts = vec![DataType::Utf8View; 3];
    let typed: Typed = in_unit(unit, |_| Ok(timestamptz::<Micros>()), |_| Ok(timestamptz::<Nanos>()));
    let kernel: Kernel = in_unit(unit, read_columns::<Micros>, read_columns::<Nanos>);
    Scalar::exact("to_timestamp_in_zone", texts, typed, kernel)
}

fn read_columns<T: ArrowTimestampType>(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let texts = cast(&columns[0], &DataType::Utf8View)?;
    let patterns = cast(&columns[1], &DataType::Utf8View)?;
    let mut zones = Zones::new(&columns[2])?;
    let local = read_in_zone(&texts, patterns.as_string_view())?;
    let times = local.into_iter().enumerate().map(|(row, read)| {
        let (Some((time, has_zone)), Some(zone)) = (read, zones.get(row)?) else { return Ok(None) };
        if has_zone {
            return Ok(Some(time));
        }
        let seconds = i64::try_from(time.div_euclid(i128::from(SECOND))).map_err(|_| out_of_range())?;
        let offset = local_offset(zone, seconds).ok_or_else(out_of_range)?;
        Ok(Some(time - i128::from(offset) * i128::from(SECOND)))
    });
    Ok(zoned(moments::<T>(times, out_of_range)?))
}

fn out_of_range() -> Error {
    Error::invalid("timestamp out of range").code(sqlstate::DATETIME_FIELD_OVERFLOW)
}
