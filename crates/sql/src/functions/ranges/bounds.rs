//! Reads values that are compared with bounds, and returns the bounds of ranges.

use std::sync::Arc;

use arrow::array::types::{
    Date32Type, Decimal128Type, Decimal256Type, Float64Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow::array::{Array, ArrayRef, AsArray, Date32Array, PrimitiveArray, StringViewArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{ArrowTimestampType, DataType, TimeUnit};

use super::range::Bound;
use super::set::Set;
use super::time::{DAY, Form};
use super::value::Value;
use super::{SET, number};
use crate::error::{Error, Result};
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Returns};
use crate::functions::marks::subtype::{Subtype, TYPES};
use crate::sqlstate;

/// Computes a column from the arguments of all rows.
type Compute = fn(&Arguments) -> Result<ArrayRef>;

/// Returns the function that returns a bound.
pub(super) fn name(subtype: Subtype, is_lower: bool) -> &'static str {
    match (subtype, is_lower) {
        (Subtype::Int4, true) => "lower_of_int4range",
        (Subtype::Int4, false) => "upper_of_int4range",
        (Subtype::Int8, true) => "lower_of_int8range",
        (Subtype::Int8, false) => "upper_of_int8range",
        (Subtype::Numeric, true) => "lower_of_numrange",
        (Subtype::Numeric, false) => "upper_of_numrange",
        (Subtype::Timestamp, true) => "lower_time_of_tsrange",
        (Subtype::Timestamp, false) => "upper_time_of_tsrange",
        (Subtype::Timestamptz, true) => "lower_time_of_tstzrange",
        (Subtype::Timestamptz, false) => "upper_time_of_tstzrange",
        (Subtype::Date, true) => "lower_of_daterange",
        (Subtype::Date, false) => "upper_of_daterange",
    }
}

pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    for (.., subtype) in TYPES {
        let (lower, upper): (Compute, Compute) = match subtype {
            Subtype::Int4 => (|all| lower(all, Subtype::Int4), |all| upper(all, Subtype::Int4)),
            Subtype::Int8 => (|all| lower(all, Subtype::Int8), |all| upper(all, Subtype::Int8)),
            Subtype::Numeric => (|all| lower(all, Subtype::Numeric), |all| upper(all, Subtype::Numeric)),
            Subtype::Timestamp => {
                (|all| lower(all, Subtype::Timestamp), |all| upper(all, Subtype::Timestamp))
            }
            Subtype::Timestamptz => {
                (|all| lower(all, Subtype::Timestamptz), |all| upper(all, Subtype::Timestamptz))
            }
            Subtype::Date => (|all| lower(all, Subtype::Date), |all| upper(all, Subtype::Date)),
        };
        for (is_lower, kernel) in [(true, lower), (false, upper)] {
            let returns = Returns::Type(subtype.arrow());
            add(MarkedFunction::new(name(subtype, is_lower), &[SET], returns, Kernel::Column(kernel)));
        }
    }
    earlier(add);
}

/// Returns the function of earlier versions in the place of one that returns microseconds.
pub(super) fn earlier_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "lower_time_of_tsrange" => "lower_of_tsrange",
        "upper_time_of_tsrange" => "upper_of_tsrange",
        "lower_time_of_tstzrange" => "lower_of_tstzrange",
        "upper_time_of_tstzrange" => "upper_of_tstzrange",
        _ => return None,
    })
}

/// The functions that plans of earlier versions mean: they return nanoseconds.
fn earlier(add: &mut dyn FnMut(MarkedFunction)) {
    let all: [(&str, Option<&str>, Compute); 4] = [
        ("lower_of_tsrange", None, |all| of_nanoseconds(all, false, |set| set.lower().cloned())),
        ("upper_of_tsrange", None, |all| of_nanoseconds(all, false, |set| set.upper().cloned())),
        ("lower_of_tstzrange", Some(UTC), |all| of_nanoseconds(all, true, |set| set.lower().cloned())),
        ("upper_of_tstzrange", Some(UTC), |all| of_nanoseconds(all, true, |set| set.upper().cloned())),
    ];
    for (name, zone, kernel) in all {
        let returns = Returns::Type(DataType::Timestamp(TimeUnit::Nanosecond, zone.map(Into::into)));
        add(MarkedFunction::new(name, &[SET], returns, Kernel::Column(kernel)));
    }
}

/// The zone of a TIMESTAMPTZ.
const UTC: &str = "+00:00";

fn of_nanoseconds(
    all: &Arguments,
    is_zoned: bool,
    of: impl for<'s> Fn(&Set<'s>) -> Option<Bound<'s>>,
) -> Result<ArrayRef> {
    time_bounds::<TimestampNanosecondType>(&values(all, of)?, is_zoned)
}

/// Returns bounds that are times; NULL where there is none.
fn time_bounds<T: ArrowTimestampType>(values: &[Option<Value<'_>>], is_zoned: bool) -> Result<ArrayRef> {
    let each = if T::UNIT == TimeUnit::Nanosecond { 1 } else { 1_000 };
    let times = values.iter().map(|value| match value {
        None => Ok(None),
        Some(bound @ Value::Time(time, _)) if !bound.is_infinite() => {
            i64::try_from(time.div_euclid(each)).map(Some).map_err(|_| unrepresentable(bound, "TIMESTAMP"))
        }
        Some(value) => Err(unrepresentable(value, "TIMESTAMP")),
    });
    let times = times.collect::<Result<PrimitiveArray<T>>>()?;
    Ok(Arc::new(if is_zoned { times.with_timezone(UTC) } else { times }))
}

/// Returns the bounds of a column.
fn values<'a>(
    all: &'a Arguments,
    of: impl for<'s> Fn(&Set<'s>) -> Option<Bound<'s>>,
) -> Result<Vec<Option<Value<'a>>>> {
    let value = |row: usize| -> Result<Option<Value<'a>>> {
        let Some(text) = all.text(0, row) else { return Ok(None) };
        Ok(of(&Set::of_canonical(text)?).and_then(|bound| bound.value))
    };
    (0..all.rows).map(value).collect()
}

/// Returns an argument as a value that can be compared with bounds; none if it is NULL.
pub(super) fn element(all: &Arguments, at: usize, row: usize) -> Result<Option<Value<'static>>> {
    let Some(column) = all.columns.get(at).filter(|column| column.is_valid(row)) else { return Ok(None) };
    let number = |text: String| number::canonical(&text).map(|number| Value::Number(number.into()));
    let scaled = |units: i64, unit: i128, zone: &Option<Arc<str>>| {
        let form = if zone.is_some() { Form::Timestamptz } else { Form::Timestamp };
        Some(Value::Time(i128::from(units) * unit, form))
    };
    let value = match column.data_type() {
        DataType::Int64 => number(column.as_primitive::<Int64Type>().value(row).to_string()),
        DataType::Float64 => number(column.as_primitive::<Float64Type>().value(row).to_string()),
        DataType::Decimal128(..) => number(column.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Decimal256(..) => number(column.as_primitive::<Decimal256Type>().value_as_string(row)),
        DataType::Date32 => {
            Some(Value::Time(i128::from(column.as_primitive::<Date32Type>().value(row)) * DAY, Form::Date))
        }
        DataType::Timestamp(TimeUnit::Second, zone) => {
            scaled(column.as_primitive::<TimestampSecondType>().value(row), 1_000_000_000, zone)
        }
        DataType::Timestamp(TimeUnit::Millisecond, zone) => {
            scaled(column.as_primitive::<TimestampMillisecondType>().value(row), 1_000_000, zone)
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            scaled(column.as_primitive::<TimestampMicrosecondType>().value(row), 1_000, zone)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            scaled(column.as_primitive::<TimestampNanosecondType>().value(row), 1, zone)
        }
        _ => None,
    };
    let found = column.data_type();
    value.map(Some).ok_or_else(|| Error::bug(format!("a value of type {found} can't be a bound")))
}

fn lower(all: &Arguments, subtype: Subtype) -> Result<ArrayRef> {
    ends(all, subtype, |set| set.lower().cloned())
}

fn upper(all: &Arguments, subtype: Subtype) -> Result<ArrayRef> {
    ends(all, subtype, |set| set.upper().cloned())
}

/// Returns the bounds of a column; NULL where there is none.
fn ends(
    all: &Arguments,
    subtype: Subtype,
    of: impl for<'s> Fn(&Set<'s>) -> Option<Bound<'s>>,
) -> Result<ArrayRef> {
    let values = values(all, of)?;
    Ok(match subtype {
        Subtype::Date => {
            let days = values.iter().map(|value| match value {
                None => Ok(None),
                Some(bound @ Value::Time(time, _)) if !bound.is_infinite() => {
                    i32::try_from(time.div_euclid(DAY))
                        .map(Some)
                        .map_err(|_| Error::bug("a date is out of range"))
                }
                Some(value) => Err(unrepresentable(value, "DATE")),
            });
            Arc::new(days.collect::<Result<Date32Array>>()?)
        }
        Subtype::Timestamp | Subtype::Timestamptz => {
            time_bounds::<TimestampMicrosecondType>(&values, subtype == Subtype::Timestamptz)?
        }
        _ => {
            let text = |value: &Value<'_>| {
                let mut out = String::new();
                value.push(&mut out);
                out
            };
            let texts: ArrayRef =
                Arc::new(values.iter().map(|value| value.as_ref().map(text)).collect::<StringViewArray>());
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(&texts, &subtype.arrow(), &options).map_err(|_| {
                Error::invalid(format!("a bound doesn't fit into {}", subtype.name()))
                    .hint("Cast the range to TEXT to see it.")
                    .code(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE)
            })?
        }
    })
}

fn unrepresentable(value: &Value<'_>, type_name: &str) -> Error {
    let mut shown = String::new();
    value.push(&mut shown);
    Error::invalid(format!("the bound {shown} is out of range for {type_name}"))
        .hint("Cast the range to TEXT to see it, or test it with lower_inf() and upper_inf().")
        .code(sqlstate::DATETIME_FIELD_OVERFLOW)
}
