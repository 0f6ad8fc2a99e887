//! `date_trunc` with all of PostgreSQL's fields, of intervals, and by the calendar of a zone.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, IntervalMonthDayNanoArray, new_empty_array, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, FieldRef, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};
use datafusion::common::types::logical_string;
use datafusion::error::Result;
use datafusion::functions::datetime::date_trunc::DateTruncFunc;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    Coercion, ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, TypeSignature, TypeSignatureClass, Volatility,
};
use datafusion::scalar::ScalarValue;

use super::calendar::{self, Date};
use super::time_parts::{SECOND, units_of_second};
use super::zone_offsets::{Zones, local_offset, utc_offset};
use crate::error::Error;
use crate::functions::Registry;
use crate::functions::moments::rounded_down;
use crate::functions::scalar::Scalar;
use crate::sqlstate;
use crate::zones::is_utc;

/// Registers the functions.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    registry.replace("date_trunc", |function| function.inner().is::<DateTruncFunc>(), wrapped);
    registry.add(date_trunc_in_zone());
}

/// Returns the function `date_trunc_in_zone(unit, time, zone)`.
pub(crate) fn date_trunc_in_zone() -> ScalarUDF {
    Scalar::any("date_trunc_in_zone", in_zone_type, in_zone)
}

/// The length to which a time is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
}

impl Unit {
    fn of(name: &str) -> Result<Unit, Error> {
        Ok(match name.trim().to_ascii_lowercase().as_str() {
            "microseconds" | "microsecond" | "usec" | "usecs" | "us" => Unit::Microsecond,
            "milliseconds" | "millisecond" | "msec" | "msecs" | "ms" => Unit::Millisecond,
            "second" | "seconds" | "sec" | "secs" | "s" => Unit::Second,
            "minute" | "minutes" | "min" | "mins" => Unit::Minute,
            "hour" | "hours" | "hr" | "hrs" | "h" => Unit::Hour,
            "day" | "days" => Unit::Day,
            "week" | "weeks" => Unit::Week,
            "month" | "months" | "mon" | "mons" => Unit::Month,
            "quarter" | "qtr" => Unit::Quarter,
            "year" | "years" | "yr" | "yrs" => Unit::Year,
            "decade" | "decades" | "dec" | "decs" => Unit::Decade,
            "century" | "centuries" | "cent" => Unit::Century,
            "millennium" | "millennia" | "mil" | "mils" => Unit::Millennium,
            _ => {
                return Err(Error::invalid(format!("unit \"{name}\" not recognized by date_trunc")).hint(
                    "It takes microseconds, milliseconds, second, minute, hour, day, week, month, quarter, year, \
                     decade, century and millennium.",
                ));
            }
        })
    }

    /// Returns the name that DataFusion's function knows; none if it lacks the unit.
    fn name(self) -> Option<&'static str> {
        Some(match self {
            Unit::Microsecond => "microsecond",
            Unit::Millisecond => "millisecond",
            Unit::Second => "second",
            Unit::Minute => "minute",
            Unit::Hour => "hour",
            Unit::Day => "day",
            Unit::Week => "week",
            Unit::Month => "month",
            Unit::Quarter => "quarter",
            Unit::Year => "year",
            Unit::Decade | Unit::Century | Unit::Millennium => return None,
        })
    }

    /// Returns the seconds of a unit of the clock that is at least a second.
    fn seconds(self) -> i64 {
        match self {
            Unit::Hour => 3_600,
            Unit::Minute => 60,
            _ => 1,
        }
    }

    /// Returns the nanoseconds of a unit that always has the same; none of the others.
    fn length(self) -> Option<i64> {
        match self {
            Unit::Microsecond => Some(1_000),
            Unit::Millisecond => Some(1_000_000),
            Unit::Second | Unit::Minute | Unit::Hour => Some(self.seconds() * SECOND),
            Unit::Day => Some(86_400 * SECOND),
            _ => None,
        }
    }

    /// Cuts a local time in nanoseconds since 1970.
    fn cut(self, time: i128) -> i128 {
        const DAY: i128 = 86_400_000_000_000;
        match self.length() {
            Some(length) => time - time.rem_euclid(i128::from(length)),
            None => i128::from(self.first_day(i64::try_from(time.div_euclid(DAY)).unwrap_or(0))) * DAY,
        }
    }

    /// Returns the first day of the unit to which a day belongs, both in days since 1970. A unit of the clock begins on the day
    /// itself.
    fn first_day(self, day: i64) -> i64 {
        let date = Date::of_days(day);
        let start = |year: i64, month: i64| Date { year, month, day: 1 }.days();
        // The first century begins in the year 1.
        let first = |length: i64| (date.year - 1).div_euclid(length) * length + 1;
        match self {
            Unit::Week => day - (calendar::day_of_week(day) + 6) % 7,
            Unit::Month => day - (date.day - 1),
            Unit::Quarter => start(date.year, (date.month - 1) / 3 * 3 + 1),
            Unit::Year => start(date.year, 1),
            Unit::Decade => start(date.year.div_euclid(10) * 10, 1),
            Unit::Century => start(first(100), 1),
            Unit::Millennium => start(first(1_000), 1),
            _ => day,
        }
    }

    fn cut_interval(self, value: IntervalMonthDayNano) -> Result<IntervalMonthDayNano, Error> {
        let months = |length: i32| IntervalMonthDayNano::new(value.months / length * length, 0, 0);
        let time = |length: i64| {
            IntervalMonthDayNano::new(value.months, value.days, value.nanoseconds / length * length)
        };
        Ok(match self {
            Unit::Microsecond => time(1_000),
            Unit::Millisecond => time(1_000_000),
            Unit::Second | Unit::Minute | Unit::Hour => time(self.seconds() * SECOND),
            Unit::Day => IntervalMonthDayNano::new(value.months, value.days, 0),
            Unit::Week => {
                return Err(Error::invalid("date_trunc can't cut an interval to weeks")
                    .hint("Months usually have fractional weeks."));
            }
            Unit::Month => months(1),
            Unit::Quarter => months(3),
            Unit::Year => months(12),
            Unit::Decade => months(120),
            Unit::Century => months(1_200),
            Unit::Millennium => months(12_000),
        })
    }
}

fn out_of_range() -> Error {
    Error::invalid("date_trunc returns a time out of the range of its type")
        .code(sqlstate::DATETIME_FIELD_OVERFLOW)
}

/// Wraps DataFusion's function.
fn wrapped(inner: Arc<ScalarUDF>) -> ScalarUDF {
    let text = || Coercion::new_exact(TypeSignatureClass::Native(logical_string()));
    let interval = Coercion::new_exact(TypeSignatureClass::Interval);
    let mut forms = match &inner.signature().type_signature {
        TypeSignature::OneOf(forms) => forms.clone(),
        other => vec![other.clone()],
    };
    forms.push(TypeSignature::Coercible(vec![text(), interval]));
    let signature = Signature::one_of(forms, Volatility::Immutable);
    ScalarUDF::from(DateTrunc { inner, signature })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.inner().return_field_from_args(arguments)
    }

    fn invoke_with_args(&self, mut arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let name = match &arguments.args[0] {
            ColumnarValue::Scalar(name) => name.try_as_str().flatten().map(str::to_string),
            ColumnarValue::Array(_) => None,
        };
        let Some(name) = name else { return self.inner.inner().invoke_with_args(arguments) };
        let unit = Unit::of(&name)?;
        let value = &arguments.args[1];
        let (rows, is_scalar) = match value {
            ColumnarValue::Scalar(_) => (1, true),
            ColumnarValue::Array(_) => (arguments.number_rows, false),
        };
        // DataFusion's function computes in nanoseconds.
        let is_wide = |of: TimeUnit, zone: &Option<Arc<str>>| {
            of != TimeUnit::Nanosecond && zone.as_deref().is_none_or(is_utc)
        };
        let result = match (value.data_type(), unit.name()) {
            (DataType::Interval(_), _) => intervals(&value.clone().into_array(rows)?, unit)?,
            (DataType::Timestamp(of, zone), _) if is_wide(of, &zone) => {
                let values = value.clone().into_array(rows)?;
                match unit.length() {
                    Some(length) => {
                        // A unit that is shorter than one of the times cuts nothing.
                        let stride = (length / (SECOND / units_of_second(of))).max(1);
                        rounded_down(&values, stride, 0, out_of_range)?
                    }
                    None => first_days(&values, unit, 86_400 * units_of_second(of))?,
                }
            }
            (DataType::Timestamp(..), None) => {
                times(&value.clone().into_array(rows)?, |time| Ok(unit.cut(time)))?
            }
            (_, known) => {
                let known = known.unwrap_or(&name).to_string();
                arguments.args[0] = ColumnarValue::Scalar(ScalarValue::Utf8(Some(known)));
                return self.inner.inner().invoke_with_args(arguments);
            }
        };
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.inner().output_ordering(input)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

fn intervals(values: &ArrayRef, unit: Unit) -> Result<ArrayRef> {
    let found = values.data_type().clone();
    let values = cast(values, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let values = values.as_primitive::<IntervalMonthDayNanoType>().iter();
    let cut = values.map(|value| value.map(|value| unit.cut_interval(value)).transpose());
    let cut: ArrayRef = Arc::new(cut.collect::<Result<IntervalMonthDayNanoArray, Error>>()?);
    Ok(cast(&cut, &found)?)
}

/// Cuts times to the first day of a unit. A day has this many ticks of the times.
fn first_days(times: &ArrayRef, unit: Unit, ticks_of_day: i64) -> Result<ArrayRef> {
    let ticks = cast(times, &DataType::Int64)?;
    let cut = ticks.as_primitive::<Int64Type>().try_unary::<_, Int64Type, Error>(|tick| {
        unit.first_day(tick.div_euclid(ticks_of_day)).checked_mul(ticks_of_day).ok_or_else(out_of_range)
    })?;
    Ok(cast(&cut, times.data_type())?)
}

/// Changes each time, in nanoseconds since 1970.
fn times(values: &ArrayRef, change: impl Fn(i128) -> Result<i128, Error>) -> Result<ArrayRef> {
    let found = values.data_type().clone();
    let unit = match &found {
        DataType::Timestamp(unit, _) => i128::from(SECOND / units_of_second(*unit)),
        other => return Err(Error::bug(format!("{other} is no timestamp")).into()),
    };
    let ticks = cast(values, &DataType::Int64)?;
    let changed = ticks.as_primitive::<Int64Type>().iter().map(|tick| {
        let Some(tick) = tick else { return Ok(None) };
        let time = change(i128::from(tick) * unit)?;
        i64::try_from(time.div_euclid(unit)).map(Some).map_err(|_| out_of_range())
    });
    Ok(cast(&changed.collect::<Result<Int64Array, Error>>()?, &found)?)
}

fn in_zone_type(arguments: &[DataType]) -> Result<DataType> {
    match arguments {
        [_, time @ DataType::Timestamp(_, Some(_)), _] => Ok(time.clone()),
        [_, DataType::Timestamp(..) | DataType::Date32 | DataType::Null, _] => {
            Ok(DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())))
        }
        _ => {
            Err(Error::invalid("date_trunc with a zone takes a unit, a TIMESTAMPTZ and the name of the zone")
                .into())
        }
    }
}

fn in_zone(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    let target = in_zone_type(&types)?;
    let times_utc = cast(&columns[1], &target)?;
    let units = cast(&columns[0], &DataType::Utf8View)?;
    let units = units.as_string_view();
    let mut zones = Zones::new(&columns[2])?;
    let rows = (0..times_utc.len()).map(|row| {
        let zone = if units.is_null(row) || times_utc.is_null(row) { None } else { zones.get(row)? };
        let Some(zone) = zone else { return Ok(new_null_array(&target, 1)) };
        let unit = Unit::of(units.value(row))?;
        times(&times_utc.slice(row, 1), |time| cut_in(zone, unit, time))
    });
    let rows = rows.collect::<Result<Vec<ArrayRef>>>()?;
    let parts: Vec<&dyn Array> = rows.iter().map(AsRef::as_ref).collect();
    match parts.is_empty() {
        true => Ok(new_empty_array(&target)),
        false => Ok(arrow::compute::concat(&parts)?),
    }
}

/// Cuts a time in UTC by the calendar of a zone.
fn cut_in(zone: &Tz, unit: Unit, time: i128) -> Result<i128, Error> {
    let second = i128::from(SECOND);
    let seconds = |time: i128| i64::try_from(time.div_euclid(second)).ok();
    let offset = seconds(time).and_then(|utc| utc_offset(zone, utc)).ok_or_else(out_of_range)?;
    let cut = unit.cut(time + i128::from(offset) * second);
    // As in PostgreSQL, the offset is that of the result for units of at least a day.
    let offset = match unit < Unit::Day {
        true => offset,
        false => seconds(cut).and_then(|local| local_offset(zone, local)).ok_or_else(out_of_range)?,
    };
    Ok(cut - i128::from(offset) * second)
}
