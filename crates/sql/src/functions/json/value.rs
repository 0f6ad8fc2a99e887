//! A JSON value in memory, and its canonical text, which is that of PostgreSQL's `jsonb`.
//!
//! Members of an object are ordered by the length of their names, then by their bytes. Of several members with
//! one name, the last one stays. Numbers keep their digits: `-0.10`, but `1e2` is `100`.

use std::cmp::Ordering;

use super::scan::{Scanner, unescaped};
use crate::error::{Error, Result};
use crate::sqlstate;

/// The most digits of a number before the point, and behind it.
const WHOLE_DIGITS_MAX: i64 = 131_072;
const FRACTION_DIGITS_MAX: i64 = 16_383;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// The digits, as PostgreSQL writes a `numeric`; of a value read as it was written, as written.
    Number(String),
    String(String),
    Array(Vec<Value>),
    Object(Vec<(String, Value)>),
}

/// Returns the canonical text of a JSON text.
pub(crate) fn canonical(text: &str) -> Result<String> {
    Ok(Value::parse(text)?.text())
}

impl Value {
    /// Reads a value as `jsonb` does.
    pub(crate) fn parse(text: &str) -> Result<Value> {
        Value::whole(text, true)
    }

    /// Reads a value and keeps the order of members, all of these, and the digits of numbers.
    pub(crate) fn as_written(text: &str) -> Result<Value> {
        Value::whole(text, false)
    }

    fn whole(text: &str, binary: bool) -> Result<Value> {
        let mut scanner = Scanner::new(text);
        let value = Value::read(&mut scanner, binary)?;
        scanner.end()?;
        Ok(value)
    }

    fn read(scanner: &mut Scanner<'_>, binary: bool) -> Result<Value> {
        match scanner.peek() {
            Some(b'{') => {
                let mut members = Vec::new();
                scanner.object(&mut |scanner, name| {
                    members.push((unescaped(name)?.into_owned(), Value::read(scanner, binary)?));
                    Ok(())
                })?;
                Ok(if binary { Value::object(members) } else { Value::Object(members) })
            }
            Some(b'[') => {
                let mut elements = Vec::new();
                scanner.array(&mut |scanner| {
                    elements.push(Value::read(scanner, binary)?);
                    Ok(())
                })?;
                Ok(Value::Array(elements))
            }
            Some(b'"') => Ok(Value::String(unescaped(scanner.string()?)?.into_owned())),
            _ => Ok(match scanner.value()? {
                "null" => Value::Null,
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                number if binary => {
                    let digits = numeric(number)?;
                    if digits.len() > number.len() {
                        scanner.expand(digits.len())?;
                    }
                    Value::Number(digits)
                }
                number => Value::Number(number.to_string()),
            }),
        }
    }

    /// Builds an object from members in any order.
    pub(crate) fn object(mut members: Vec<(String, Value)>) -> Value {
        // The sort is stable, so the last of equal names is the one that stays.
        members.sort_by(|(one, _), (other, _)| by_length(one, other));
        let mut kept: Vec<(String, Value)> = Vec::with_capacity(members.len());
        for member in members {
            match kept.last_mut() {
                Some(last) if last.0 == member.0 => *last = member,
                _ => kept.push(member),
            }
        }
        Value::Object(kept)
    }

    /// Returns the name of the value's type.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
    }

    /// Returns the value as `jsonb` is written: `{"a": 1, "b": [1, 2]}`.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, ", ", ": ");
        out
    }

    /// Returns the value without blanks.
    pub(crate) fn compact(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, ",", ":");
        out
    }

    fn write(&self, out: &mut String, comma: &str, colon: &str) {
        match self {
            Value::Null => out.push_str("null"),
            Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Value::Number(digits) => out.push_str(digits),
            Value::String(text) => quote(text, out),
            Value::Array(elements) => {
                out.push('[');
                for (at, element) in elements.iter().enumerate() {
                    out.push_str(if at > 0 { comma } else { "" });
                    element.write(out, comma, colon);
                }
                out.push(']');
            }
            Value::Object(members) => {
                out.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    out.push_str(if at > 0 { comma } else { "" });
                    quote(name, out);
                    out.push_str(colon);
                    value.write(out, comma, colon);
                }
                out.push('}');
            }
        }
    }

    /// Returns the value with a line for each element and member, four blanks further in each level.
    pub(super) fn pretty(&self) -> String {
        let mut out = String::new();
        self.write_pretty(&mut out, 0);
        out
    }

    fn write_pretty(&self, out: &mut String, level: usize) {
        let line = |out: &mut String, level: usize| {
            out.push('\n');
            (0..level).for_each(|_| out.push_str("    "));
        };
        match self {
            Value::Array(elements) => {
                out.push('[');
                for (at, element) in elements.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    line(out, level + 1);
                    element.write_pretty(out, level + 1);
                }
                line(out, level);
                out.push(']');
            }
            Value::Object(members) => {
                out.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    line(out, level + 1);
                    quote(name, out);
                    out.push_str(": ");
                    value.write_pretty(out, level + 1);
                }
                line(out, level);
                out.push('}');
            }
            scalar => scalar.write(out, ", ", ": "),
        }
    }

    /// Returns the value as text: a string without its quotes, null as none.
    pub(super) fn into_text(self) -> Option<String> {
        match self {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => Some(other.text()),
        }
    }

    /// Compares two values in PostgreSQL's order of `jsonb`.
    pub(crate) fn compare(&self, other: &Value) -> Ordering {
        // An empty array that is no part of a value is less than null: a peculiarity that PostgreSQL keeps for its
        // indexes.
        let is_empty = |value: &Value| matches!(value, Value::Array(elements) if elements.is_empty());
        let is_scalar = |value: &Value| !matches!(value, Value::Array(_) | Value::Object(_));
        if is_empty(self) && is_scalar(other) {
            return Ordering::Less;
        }
        if is_scalar(self) && is_empty(other) {
            return Ordering::Greater;
        }
        self.compare_parts(other)
    }

    fn compare_parts(&self, other: &Value) -> Ordering {
        let rank = |value: &Value| match value {
            Value::Null => 1,
            Value::String(_) => 2,
            Value::Number(_) => 3,
            Value::Bool(_) => 4,
            Value::Array(_) => 5,
            Value::Object(_) => 6,
        };
        match (self, other) {
            (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
            (Value::Number(one), Value::Number(other)) => compare_numbers(one, other),
            (Value::String(one), Value::String(other)) => one.cmp(other),
            (Value::Array(one), Value::Array(other)) => {
                let unequal = || one.iter().zip(other).map(|(one, other)| one.compare_parts(other));
                one.len()
                    .cmp(&other.len())
                    .then_with(|| unequal().find(|order| order.is_ne()).unwrap_or(Ordering::Equal))
            }
            (Value::Object(one), Value::Object(other)) => {
                let pair = |((a, x), (b, y)): (&(String, Value), &(String, Value))| {
                    a.cmp(b).then_with(|| x.compare_parts(y))
                };
                let unequal = || one.iter().zip(other).map(pair);
                one.len()
                    .cmp(&other.len())
                    .then_with(|| unequal().find(|order| order.is_ne()).unwrap_or(Ordering::Equal))
            }
            _ => rank(self).cmp(&rank(other)),
        }
    }

    /// True if two values are equal, numbers by their value: 1.0 is 1.
    pub(crate) fn equals(&self, other: &Value) -> bool {
        self.compare(other).is_eq()
    }
}

/// Orders names of members: the shorter one first.
fn by_length(one: &str, other: &str) -> Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

/// Writes a string in quotes.
pub(super) fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Returns a number as PostgreSQL's `numeric` writes it.
fn numeric(written: &str) -> Result<String> {
    let overflow = || {
        Error::invalid("value overflows numeric format: a number in JSON has too many digits")
            .code(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE)
    };
    let (mantissa, exponent) = written.split_once(['e', 'E']).unwrap_or((written, "0"));
    if mantissa == written && !written.starts_with('-') {
        return match written.len() as i64 > FRACTION_DIGITS_MAX {
            false => Ok(written.to_string()),
            true => checked_length(written).ok_or_else(overflow),
        };
    }
    let exponent: i64 = exponent.parse().map_err(|_| overflow())?;
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let is_zero = digits.bytes().all(|digit| digit == b'0');
    let point = (whole.len() as i64).saturating_add(exponent);
    let scale = (digits.len() as i64).saturating_sub(point).max(0);
    if scale > FRACTION_DIGITS_MAX || (!is_zero && point > WHOLE_DIGITS_MAX + 1) {
        return Err(overflow());
    }
    let scale = scale as usize;
    let sign = if is_zero { "" } else { sign };
    let zeros = |count: usize| "0".repeat(count);
    let (whole, fraction) = match usize::try_from(point) {
        _ if is_zero => ("0".to_string(), zeros(scale)),
        Ok(point) if point >= digits.len() => (digits.clone() + &zeros(point - digits.len()), String::new()),
        Ok(point) => (digits[..point].to_string(), digits[point..].to_string()),
        Err(_) => (String::new(), zeros(scale - digits.len()) + &digits),
    };
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        whole => whole,
    };
    let point = if fraction.is_empty() { "" } else { "." };
    let out = format!("{sign}{whole}{point}{fraction}");
    checked_length(&out).ok_or_else(overflow)
}

fn checked_length(number: &str) -> Option<String> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fits = whole.len() as i64 <= WHOLE_DIGITS_MAX + 1 && fraction.len() as i64 <= FRACTION_DIGITS_MAX;
    fits.then(|| number.to_string())
}

/// Compares two numbers without an exponent.
pub(super) fn compare_numbers(one: &str, other: &str) -> Ordering {
    let parts = |number: &str| -> (bool, String, String) {
        let (negative, digits) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        (negative, whole.trim_start_matches('0').to_string(), fraction.trim_end_matches('0').to_string())
    };
    let ((a_negative, a, a_fraction), (b_negative, b, b_fraction)) = (parts(one), parts(other));
    let is_zero = |whole: &str, fraction: &str| whole.is_empty() && fraction.is_empty();
    let sign = |negative: bool, zero: bool| if zero { 0 } else { 1 - 2 * i32::from(negative) };
    let (a_sign, b_sign) =
        (sign(a_negative, is_zero(&a, &a_fraction)), sign(b_negative, is_zero(&b, &b_fraction)));
    if a_sign != b_sign {
        return a_sign.cmp(&b_sign);
    }
    let order = a.len().cmp(&b.len()).then_with(|| a.cmp(&b)).then_with(|| a_fraction.cmp(&b_fraction));
    if a_sign < 0 { order.reverse() } else { order }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_canonical() {
        for (written, expected) in [
            (r#" {"bb":1,"a":2, "a" : {"y":[ ],"x":{} }} "#, r#"{"a": {"x": {}, "y": []}, "bb": 1}"#),
            (r#"{"é":1,"zz":2,"b":3}"#, r#"{"b": 3, "zz": 2, "é": 1}"#),
            (r#""\u00e4\/\u001f\n""#, "\"ä/\\u001f\\n\""),
            (
                "[-0, -0.10, 1.50, 1e2, 1.5e1, 1.50e1, 12e-1, 0e5, 0.0e-2, -0e0]",
                "[0, -0.10, 1.50, 100, 15, 15.0, 1.2, 0, 0.000, 0]",
            ),
            ("1.230e-5", "0.00001230"),
            (
                "12345678901234567890123456789012345678901234567890.10",
                "12345678901234567890123456789012345678901234567890.10",
            ),
        ] {
            assert_eq!(canonical(written).unwrap(), expected);
            assert_eq!(canonical(expected).unwrap(), expected);
        }
        assert_eq!(canonical("1e400").unwrap().len(), 401);
        for wrong in ["1e200000", "1e-20000", "1e99999999999999999999", "\"\\u0000\""] {
            assert!(canonical(wrong).is_err(), "{wrong}");
        }
        assert!(canonical(&format!("{}0", "9".repeat(200_000))).is_err());
        assert!(canonical(&format!("[{}1]", "1e100000,".repeat(1_000))).is_err());
    }

    #[test]
    fn values_are_ordered() {
        let sorted = [
            "[]",
            "null",
            "\"a\"",
            "\"b\"",
            "-2",
            "-1.5",
            "0",
            "0.5",
            "2",
            "10",
            "false",
            "true",
            "[1]",
            "[2]",
            "[1, 1]",
            "{}",
            "{\"a\": 1}",
            "{\"a\": 2}",
            "{\"aa\": 1}",
            "{\"b\": 1}",
            "{\"b\": []}",
            "{\"b\": [1]}",
        ];
        for (at, one) in sorted.iter().enumerate() {
            for (place, other) in sorted.iter().enumerate() {
                let order = Value::parse(one).unwrap().compare(&Value::parse(other).unwrap());
                assert_eq!(order, at.cmp(&place), "{one} {other}");
            }
        }
        assert!(Value::parse("[1.0, -0.0]").unwrap().equals(&Value::parse("[1.00, 0]").unwrap()));
    }
}
