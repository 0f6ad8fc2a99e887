//! The types of JSON values as Spark writes them: `schema_of_json(text)` and `schema_of_variant(v)`.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::value::Value;

/// The most digits of a DECIMAL.
const DIGITS_MAX: usize = 38;

/// The names of types, and the type of different ones together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::functions) enum Style {
    /// Those of `schema_of_json`: `STRUCT`, and STRING for other types.
    Json,
    /// Those of `schema_of_variant`: `OBJECT`, and VARIANT for other types.
    Variant,
}

/// The type of a value, or of several.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::functions) enum Schema {
    Void,
    Boolean,
    Bigint,
    /// The digits before the point, and behind it.
    Decimal(usize, usize),
    Double,
    String,
    Mixed,
    Array(Box<Schema>),
    Object(BTreeMap<String, Schema>),
}

impl Schema {
    pub(in crate::functions) fn of(value: &Value, style: Style) -> Schema {
        match value {
            Value::Null => Schema::Void,
            Value::Bool(_) => Schema::Boolean,
            Value::Number(digits) => number(digits, style),
            Value::String(_) => Schema::String,
            Value::Array(elements) => {
                let elements = elements.iter().map(|element| Schema::of(element, style));
                Schema::Array(Box::new(elements.fold(Schema::Void, |all, element| all.with(element, style))))
            }
            Value::Object(members) => {
                let members = members.iter().map(|(name, value)| (name.clone(), Schema::of(value, style)));
                Schema::Object(members.collect())
            }
        }
    }

    /// Returns the type of values of two types.
    pub(in crate::functions) fn with(self, other: Schema, style: Style) -> Schema {
        use Schema::{Array, Bigint, Decimal, Double, Mixed, Object, String, Void};
        // The digits of a BIGINT.
        const WHOLE: usize = 19;
        match (self, other) {
            (Void, other) | (other, Void) => other,
            (one, other) if one == other => one,
            (Bigint, Decimal(whole, scale)) | (Decimal(whole, scale), Bigint) => {
                decimal(whole.max(WHOLE), scale)
            }
            (Decimal(one, scale), Decimal(other, other_scale)) => {
                decimal(one.max(other), scale.max(other_scale))
            }
            (Double, Bigint | Decimal(..)) | (Bigint | Decimal(..), Double) => Double,
            (Array(one), Array(other)) => Array(Box::new(one.with(*other, style))),
            (Object(mut one), Object(other)) => {
                for (name, of) in other {
                    let known = one.remove(&name).unwrap_or(Void);
                    one.insert(name, known.with(of, style));
                }
                Object(one)
            }
            _ if style == Style::Json => String,
            _ => Mixed,
        }
    }

    pub(in crate::functions) fn written(&self, style: Style) -> String {
        let mut out = String::new();
        self.write(&mut out, style);
        out
    }

    fn write(&self, out: &mut String, style: Style) {
        match self {
            // A value that is always NULL is a STRING in JSON.
            Schema::Void => out.push_str(if style == Style::Json { "STRING" } else { "VOID" }),
            Schema::Boolean => out.push_str("BOOLEAN"),
            Schema::Bigint => out.push_str("BIGINT"),
            Schema::Decimal(whole, scale) => {
                // Writing to a text doesn't fail.
                let _ = write!(out, "DECIMAL({},{scale})", whole + scale);
            }
            Schema::Double => out.push_str("DOUBLE"),
            Schema::String => out.push_str("STRING"),
            Schema::Mixed => out.push_str("VARIANT"),
            Schema::Array(element) => {
                out.push_str("ARRAY<");
                element.write(out, style);
                out.push('>');
            }
            Schema::Object(members) => {
                out.push_str(if style == Style::Json { "STRUCT<" } else { "OBJECT<" });
                for (at, (name, of)) in members.iter().enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                    match is_plain && !name.is_empty() {
                        true => out.push_str(name),
                        false => {
                            let _ = write!(out, "`{}`", name.replace('`', "``"));
                        }
                    }
                    out.push_str(": ");
                    of.write(out, style);
                }
                out.push('>');
            }
        }
    }
}

fn decimal(whole: usize, scale: usize) -> Schema {
    if whole + scale > DIGITS_MAX { Schema::Double } else { Schema::Decimal(whole, scale) }
}

fn number(digits: &str, style: Style) -> Schema {
    let plain = digits.trim_start_matches('-');
    match plain.split_once('.') {
        _ if plain.contains(['e', 'E']) => Schema::Double,
        Some(_) if style == Style::Json => Schema::Double,
        Some((whole, fraction)) => {
            let fraction = fraction.trim_end_matches('0');
            match fraction.is_empty() {
                true => number(whole, style),
                false => {
                    let whole = whole.trim_start_matches('0').len();
                    // The digits are at least those behind the point.
                    decimal(whole, fraction.len())
                }
            }
        }
        None if digits.parse::<i64>().is_ok() => Schema::Bigint,
        None => decimal(plain.len(), 0),
    }
}

/// Removes the zeros before the other digits of numbers.
pub(super) fn without_leading_zeros(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut chars = json.chars().peekable();
    let (mut in_string, mut before) = (false, ' ');
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_string => {
                out.push(c);
                out.extend(chars.next());
                continue;
            }
            '"' => in_string = !in_string,
            '0' if !in_string
                && !before.is_ascii_alphanumeric()
                && before != '.'
                && chars.peek().is_some_and(char::is_ascii_digit) =>
            {
                continue;
            }
            _ => {}
        }
        out.push(c);
        before = c;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_those_of_spark() {
        let check = |json: &str, in_json: &str, of_variant: &str| {
            let value = Value::as_written(json).unwrap();
            let written = |style| Schema::of(&value, style).written(style);
            assert_eq!(
                (written(Style::Json).as_str(), written(Style::Variant).as_str()),
                (in_json, of_variant)
            );
        };
        check("null", "STRING", "VOID");
        check("[{\"col\":0}]", "ARRAY<STRUCT<col: BIGINT>>", "ARRAY<OBJECT<col: BIGINT>>");
        check("[1, 2.5, null]", "ARRAY<DOUBLE>", "ARRAY<DECIMAL(20,1)>");
        check("[1, \"a\"]", "ARRAY<STRING>", "ARRAY<VARIANT>");
        check(
            "{\"b c\": 1e2, \"a\": []}",
            "STRUCT<a: ARRAY<STRING>, `b c`: DOUBLE>",
            "OBJECT<a: ARRAY<VOID>, `b c`: DOUBLE>",
        );
        assert_eq!(without_leading_zeros(r#"[007, 0.01, "00\"01", 10, 0]"#), r#"[7, 0.01, "00\"01", 10, 0]"#);
    }
}
