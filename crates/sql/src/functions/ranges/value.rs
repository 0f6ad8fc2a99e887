//! The values that bound ranges.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Write;

use super::number;
use super::time::{self, ALWAYS, DAY, FOREVER, Form};
use crate::error::{Error, Result};
use crate::functions::marks::subtype::Subtype;
use crate::literals::shown;
use crate::sqlstate;

/// The first and last days of dates, and the end of timestamps, since 1970: as in PostgreSQL.
const FIRST_DAY: i128 = -2_440_588;
const LAST_DAY: i128 = 2_145_042_905;
const LAST_TIMESTAMP_DAY: i128 = 106_762_939;

/// Times in keys are clamped to this many nanoseconds around 1970.
const KEY_LIMIT: i128 = 1_000_000_000_000_000_000_000_000_000_000;

/// A value that bounds a range, or that is looked for in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// The canonical text of a number.
    Number(Cow<'a, str>),
    /// Nanoseconds since 1970.
    Time(i128, Form),
}

impl<'a> Value<'a> {
    /// Reads a value of a type, as its own literals are read.
    pub(super) fn read(subtype: Subtype, text: &str) -> Result<Value<'static>> {
        let form = match subtype {
            Subtype::Numeric => {
                let number = number::canonical(text).ok_or_else(|| invalid(subtype, text))?;
                return Ok(Value::Number(number.into()));
            }
            Subtype::Int4 | Subtype::Int8 => return whole(subtype, text),
            Subtype::Timestamp => Form::Timestamp,
            Subtype::Timestamptz => Form::Timestamptz,
            Subtype::Date => Form::Date,
        };
        let time = time::read(text, form == Form::Timestamptz).map_err(|wrong| match wrong {
            time::Wrong::Syntax => invalid(subtype, text).code(sqlstate::INVALID_DATETIME_FORMAT),
            time::Wrong::Field => {
                Error::invalid(format!("date/time field value out of range: \"{}\"", shown(text)))
                    .code(sqlstate::DATETIME_FIELD_OVERFLOW)
            }
        })?;
        Value::Time(time, form).of(subtype).map_err(|error| {
            let message = format!("{}: \"{}\"", error.message, shown(text));
            Error { message, ..error }
        })
    }

    /// Returns a value of a type from one that it accepts. Fails if it is out of range.
    pub(super) fn of(self, subtype: Subtype) -> Result<Value<'a>> {
        let (time, form) = match self {
            Value::Number(number) if matches!(subtype, Subtype::Int4 | Subtype::Int8) => {
                return whole(subtype, &number);
            }
            Value::Number(number) => return Ok(Value::Number(number)),
            Value::Time(time, _) => match subtype {
                Subtype::Date => (time, Form::Date),
                Subtype::Timestamptz => (time, Form::Timestamptz),
                _ => (time, Form::Timestamp),
            },
        };
        if time == FOREVER || time == ALWAYS {
            return Ok(Value::Time(time, form));
        }
        let day = time.div_euclid(DAY);
        let last = if form == Form::Date { LAST_DAY } else { LAST_TIMESTAMP_DAY };
        if !(FIRST_DAY..=last).contains(&day) {
            let name = if form == Form::Date { "date" } else { "timestamp" };
            return Err(out_of_range(name));
        }
        Ok(Value::Time(if form == Form::Date { day * DAY } else { time }, form))
    }

    /// Reads a bound of a canonical text.
    pub(super) fn of_canonical(text: Cow<'a, str>) -> Option<Value<'a>> {
        let is_time = matches!(text.as_ref(), "infinity" | "-infinity") || text.get(1..)?.contains('-');
        if !is_time {
            return number::is_canonical(&text).then_some(Value::Number(text));
        }
        let form = match (text.contains(':'), text.contains('+')) {
            (false, _) => Form::Date,
            (true, false) => Form::Timestamp,
            (true, true) => Form::Timestamptz,
        };
        Some(Value::Time(time::read(&text, true).ok()?, form))
    }

    /// Returns the value that follows; the same one for infinite dates.
    pub(super) fn next(self, subtype: Subtype) -> Result<Value<'a>> {
        match self {
            Value::Time(time, form) if time == FOREVER || time == ALWAYS => Ok(Value::Time(time, form)),
            Value::Time(time, form) => Value::Time(time.saturating_add(DAY), form).of(subtype),
            Value::Number(number) => {
                let number = number.parse::<i128>().map_err(|_| invalid(subtype, &number))?;
                let next = number.saturating_add(1);
                if !integers(subtype).contains(&next) {
                    return Err(out_of_range(subtype.name()));
                }
                Ok(Value::Number(next.to_string().into()))
            }
        }
    }

    /// True for the dates that have none after or before them.
    pub(super) fn is_infinite(&self) -> bool {
        matches!(self, Value::Time(FOREVER | ALWAYS, _))
    }

    pub(super) fn compare(&self, other: &Value<'_>) -> Ordering {
        match (self, other) {
            (Value::Number(one), Value::Number(other)) => number::compare(one, other),
            (Value::Time(one, _), Value::Time(other, _)) => one.cmp(other),
            // Values of one range are of one type.
            (Value::Number(_), Value::Time(..)) => Ordering::Less,
            (Value::Time(..), Value::Number(_)) => Ordering::Greater,
        }
    }

    /// Appends the text that PostgreSQL writes.
    pub(super) fn push(&self, out: &mut String) {
        match self {
            Value::Number(number) => out.push_str(number),
            Value::Time(time, form) => time::push(*time, *form, out),
        }
    }

    /// Appends a text with the order of the values, none of which is the beginning of another.
    pub(super) fn push_key(&self, out: &mut String) {
        match self {
            Value::Number(number) => number::push_key(number, out),
            Value::Time(time, _) => {
                // Writing to a string can't fail.
                let _ = write!(out, "{:031}", (*time).clamp(-KEY_LIMIT, KEY_LIMIT).saturating_add(KEY_LIMIT));
            }
        }
    }
}

/// Returns the whole numbers of a type.
fn integers(subtype: Subtype) -> std::ops::RangeInclusive<i128> {
    match subtype {
        Subtype::Int4 => i32::MIN.into()..=i32::MAX.into(),
        _ => i64::MIN.into()..=i64::MAX.into(),
    }
}

fn whole(subtype: Subtype, text: &str) -> Result<Value<'static>> {
    let trimmed = text.trim();
    let digits = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid(subtype, text));
    }
    let number = trimmed.parse::<i128>().ok().filter(|number| integers(subtype).contains(number));
    let number = number.ok_or_else(|| {
        let message = format!("value \"{}\" is out of range for type {}", shown(text), subtype.name());
        Error::invalid(message).code(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE)
    })?;
    Ok(Value::Number(number.to_string().into()))
}

fn invalid(subtype: Subtype, text: &str) -> Error {
    Error::invalid(format!("invalid input syntax for type {}: \"{}\"", subtype.name(), shown(text)))
        .code(sqlstate::INVALID_TEXT_REPRESENTATION)
}

fn out_of_range(name: &str) -> Error {
    let code = match name {
        "date" | "timestamp" => sqlstate::DATETIME_FIELD_OVERFLOW,
        _ => sqlstate::NUMERIC_VALUE_OUT_OF_RANGE,
    };
    Error::invalid(format!("{name} out of range")).code(code)
}
