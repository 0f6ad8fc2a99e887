//! The methods of items, and the times that `.datetime()` reads.

use std::cmp::Ordering;

use chrono::{Datelike, Duration, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

use super::eval::{Context, Evaluated, Fail, Item, soft};
use super::numbers;
use super::syntax::Method;
use super::template;
use crate::error::Error;
use crate::functions::json::value::Value;
use crate::sqlstate;

/// A date, a time or both. Seconds east of UTC are its zone.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Time {
    Date(NaiveDate),
    Clock(NaiveTime),
    ClockTz(NaiveTime, i32),
    Timestamp(NaiveDateTime),
    TimestampTz(NaiveDateTime, i32),
}

fn clock(time: NaiveTime) -> String {
    let fraction = match time.nanosecond() / 1_000 {
        0 => String::new(),
        micros => format!(".{micros:06}").trim_end_matches('0').to_string(),
    };
    format!("{}{fraction}", time.format("%H:%M:%S"))
}

fn day(date: NaiveDate) -> String {
    format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day())
}

/// Writes a zone: `+05:30`; a time of day has no minutes that are zero.
fn zone(seconds: i32, short: bool) -> String {
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.abs() / 60;
    match minutes % 60 {
        0 if short => format!("{sign}{:02}", minutes / 60),
        rest => format!("{sign}{:02}:{rest:02}", minutes / 60),
    }
}

impl Time {
    /// Returns the name of the type in SQL.
    fn type_name(&self) -> &'static str {
        match self {
            Time::Date(_) => "date",
            Time::Clock(_) => "time without time zone",
            Time::ClockTz(..) => "time with time zone",
            Time::Timestamp(_) => "timestamp without time zone",
            Time::TimestampTz(..) => "timestamp with time zone",
        }
    }

    fn short_name(&self) -> &'static str {
        match self {
            Time::Date(_) => "date",
            Time::Clock(_) => "time",
            Time::ClockTz(..) => "timetz",
            Time::Timestamp(_) => "timestamp",
            Time::TimestampTz(..) => "timestamptz",
        }
    }

    /// Returns the time as a string of JSON.
    pub(super) fn text(&self) -> String {
        match self {
            Time::Date(date) => day(*date),
            Time::Clock(time) => clock(*time),
            Time::ClockTz(time, offset) => clock(*time) + &zone(*offset, true),
            Time::Timestamp(both) => format!("{}T{}", day(both.date()), clock(both.time())),
            Time::TimestampTz(both, offset) => {
                format!("{}T{}{}", day(both.date()), clock(both.time()), zone(*offset, false))
            }
        }
    }

    /// Compares two times; none if they have no order.
    pub(super) fn compare(&self, other: &Time, zones: bool) -> Evaluated<Option<Ordering>> {
        let needs_zone = || {
            let (from, to) = match self.has_zone() {
                true => (other, self),
                false => (self, other),
            };
            let message = format!(
                "cannot convert value from {} to {} without time zone usage",
                from.short_name(),
                to.short_name()
            );
            Fail::Hard(
                Error::invalid(message)
                    .hint("Use *_tz() function for time zone support.")
                    .code(sqlstate::FEATURE_NOT_SUPPORTED),
            )
        };
        let zoned = self.has_zone() != other.has_zone();
        Ok(match (self.instant(), other.instant()) {
            (Some(_), Some(_)) if zoned && !zones => return Err(needs_zone()),
            (Some(one), Some(other)) => Some(one.cmp(&other)),
            (None, None) => {
                if zoned && !zones {
                    return Err(needs_zone());
                }
                let of_day = |time: &Time| match time {
                    Time::ClockTz(time, offset) => Some((seconds(*time, *offset), -i64::from(*offset))),
                    Time::Clock(time) => Some((seconds(*time, 0), 0)),
                    _ => None,
                };
                of_day(self).zip(of_day(other)).map(|(one, other)| one.cmp(&other))
            }
            _ => None,
        })
    }

    fn has_zone(&self) -> bool {
        matches!(self, Time::ClockTz(..) | Time::TimestampTz(..))
    }

    /// Returns the moment in UTC; none for a time of day.
    fn instant(&self) -> Option<NaiveDateTime> {
        match self {
            Time::Date(date) => Some(date.and_time(NaiveTime::MIN)),
            Time::Timestamp(both) => Some(*both),
            Time::TimestampTz(both, offset) => {
                Some(both.checked_sub_signed(Duration::seconds(i64::from(*offset))).unwrap_or(*both))
            }
            Time::Clock(_) | Time::ClockTz(..) => None,
        }
    }
}

/// Returns the microseconds of a time of day in UTC.
fn seconds(time: NaiveTime, offset: i32) -> i64 {
    let micros =
        i64::from(time.num_seconds_from_midnight()) * 1_000_000 + i64::from(time.nanosecond() / 1_000);
    micros - i64::from(offset) * 1_000_000
}

/// True if a method is applied to the elements of an array in lax mode.
pub(super) fn unwraps(method: &Method) -> bool {
    !matches!(method, Method::Type | Method::Size)
}

/// Applies a method to an item.
pub(super) fn apply<'v>(
    context: &Context<'v>,
    method: &Method,
    item: Item<'v>,
    lenient: bool,
) -> Evaluated<Vec<Item<'v>>> {
    let wrong = |expected: &str, code| {
        soft(format!("jsonpath item method .{}() can only be applied to {expected}", method.name()), code)
    };
    Ok(vec![match method {
        Method::Type => Item::Made(Value::String(match &item {
            Item::Time(time) => time.type_name().to_string(),
            other => other.value().map_or("null", Value::type_name).to_string(),
        })),
        Method::Size => match item.elements() {
            Some(elements) => Item::Made(Value::Number(elements.len().to_string())),
            None if !context.strict => Item::Made(Value::Number("1".into())),
            None if lenient => return Ok(Vec::new()),
            None => return Err(wrong("an array", sqlstate::SQL_JSON_ARRAY_NOT_FOUND)),
        },
        Method::Double => double(item)?,
        Method::Ceiling | Method::Floor | Method::Abs => {
            let Some(digits) = item.number() else {
                return Err(wrong("a numeric value", sqlstate::NON_NUMERIC_SQL_JSON_ITEM));
            };
            Item::Made(Value::Number(match method {
                Method::Abs => digits.trim_start_matches('-').to_string(),
                _ => numbers::integer(digits, *method == Method::Ceiling),
            }))
        }
        Method::KeyValue => {
            let id = place(context.root, &item);
            let Value::Object(members) = item.into_value() else {
                return Err(wrong("an object", sqlstate::SQL_JSON_OBJECT_NOT_FOUND));
            };
            let row = |(name, value): (String, Value)| {
                Item::Made(Value::object(vec![
                    ("id".into(), Value::Number(id.to_string())),
                    ("key".into(), Value::String(name)),
                    ("value".into(), value),
                ]))
            };
            return Ok(members.into_iter().map(row).collect());
        }
        Method::DateTime(form) => {
            let Some(Value::String(text)) = item.value() else {
                return Err(wrong("a string", sqlstate::INVALID_ARGUMENT_FOR_SQL_JSON_DATETIME));
            };
            let read = match form {
                Some(form) => template::read(text, form).map_err(Fail::Soft)?,
                None => template::read_any(text).ok_or_else(|| {
                    Fail::Soft(
                        Error::invalid(format!("datetime format is not recognized: \"{text}\""))
                            .hint("Use a datetime template argument to specify the input data format.")
                            .code(sqlstate::INVALID_ARGUMENT_FOR_SQL_JSON_DATETIME),
                    )
                })?,
            };
            Item::Time(read)
        }
    }])
}

fn double(item: Item<'_>) -> Evaluated<Item<'_>> {
    let wrong = |what: &str| {
        let message = format!(
            "{what} of jsonpath item method .double() is not a valid representation of a double precision number"
        );
        soft(message, sqlstate::NON_NUMERIC_SQL_JSON_ITEM)
    };
    match item.value() {
        Some(Value::Number(digits)) => match digits.parse::<f64>() {
            Ok(float) if float.is_finite() => Ok(item),
            _ => Err(wrong("numeric argument")),
        },
        Some(Value::String(text)) => match text.trim().parse::<f64>() {
            Ok(float) if float.is_finite() => Ok(Item::Made(Value::Number(numbers::from_float(float)))),
            _ => Err(wrong("string argument")),
        },
        _ => {
            let message = "jsonpath item method .double() can only be applied to a string or numeric value";
            Err(soft(message, sqlstate::NON_NUMERIC_SQL_JSON_ITEM))
        }
    }
}

/// Returns a number that tells objects of a value apart: 0 for the value itself.
fn place(root: &Value, item: &Item<'_>) -> usize {
    let Item::Part(wanted) = item else { return 0 };
    fn find(value: &Value, wanted: &Value, count: &mut usize) -> bool {
        if std::ptr::eq(value, wanted) {
            return true;
        }
        *count += 1;
        match value {
            Value::Array(elements) => elements.iter().any(|element| find(element, wanted, count)),
            Value::Object(members) => members.iter().any(|(_, value)| find(value, wanted, count)),
            _ => false,
        }
    }
    let mut count = 0;
    if find(root, wanted, &mut count) { count } else { 0 }
}
