//! `json_object`: an object of an array of names and values; and casts of JSON to numbers and booleans.

use arrow::array::AsArray;
use arrow::datatypes::DataType;

use super::scan::whole;
use super::value::{Value, canonical, compare_numbers, quote};
use crate::error::{Error, Result};
use crate::functions::marks::Mark;
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};
use crate::literals::array::Arrays;
use crate::sqlstate;

/// Lists the functions.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    use Param::{Json, Keys, Text};
    for (name, mark) in [("json_object", Mark::Json), ("jsonb_object", Mark::Jsonb)] {
        let kernel = match mark {
            Mark::Jsonb => {
                Kernel::Text(|all, row| object(all, row)?.map(|text| canonical(&text)).transpose())
            }
            _ => Kernel::Text(object),
        };
        add(MarkedFunction::new(name, &[Keys, Keys], Returns::Marked(mark), kernel).optional(1));
    }
    let text = || Returns::Type(DataType::Utf8View);
    add(MarkedFunction::new("jsonb_number_text", &[Json, Text], text(), Kernel::Text(number_text)));
    add(MarkedFunction::new("jsonb_boolean_text", &[Json], text(), Kernel::Text(boolean_text)));
}

fn wrong(message: &str) -> Error {
    Error::invalid(message).code(sqlstate::INVALID_PARAMETER_VALUE)
}

type Texts = Vec<Option<String>>;

/// Names and values.
type Pairs = Vec<(Option<String>, Option<String>)>;

/// Returns the names and values of an array: alternating, or in pairs.
fn pairs(all: &Arguments, row: usize) -> Result<Option<Pairs>> {
    let nested = match all.text(0, row) {
        Some(text)
            if text.trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with('{')) =>
        {
            let mut arrays = Arrays::new(2);
            arrays.push(Some(text)).map_err(|expected| wrong(&format!("'{text}': expected {expected}")))?;
            Some(arrays.finish().map_err(|error| Error::bug(error.to_string()))?)
        }
        _ => None,
    };
    let Some(nested) = nested else {
        let Some(flat) = all.keys(0, row)? else { return Ok(None) };
        if flat.len() % 2 == 1 {
            return Err(wrong("array must have even number of elements"));
        }
        return Ok(Some(flat.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()));
    };
    let lists = nested.as_list::<i32>().value(0);
    let mut found = Vec::new();
    for pair in lists.as_list::<i32>().iter().flatten() {
        let texts: Texts = pair.as_string_view().iter().map(|text| text.map(str::to_string)).collect();
        let [name, value] = &texts[..] else { return Err(wrong("array must have two columns")) };
        found.push((name.clone(), value.clone()));
    }
    Ok(Some(found))
}

fn object(all: &Arguments, row: usize) -> Result<Option<String>> {
    let members = match all.columns.len() {
        1 => pairs(all, row)?,
        _ => {
            let (Some(names), Some(values)) = (all.keys(0, row)?, all.keys(1, row)?) else { return Ok(None) };
            if names.len() != values.len() {
                return Err(wrong("mismatched array dimensions"));
            }
            Some(names.into_iter().zip(values).collect())
        }
    };
    let Some(members) = members else { return Ok(None) };
    let mut out = String::from("{");
    for (at, (name, value)) in members.into_iter().enumerate() {
        let Some(name) = name else {
            return Err(Error::invalid("null value not allowed for object key")
                .code(sqlstate::NULL_VALUE_NOT_ALLOWED));
        };
        out.push_str(if at > 0 { ", " } else { "" });
        quote(&name, &mut out);
        out.push_str(" : ");
        match value {
            Some(value) => quote(&value, &mut out),
            None => out.push_str("null"),
        }
    }
    out.push('}');
    Ok(Some(out))
}

fn cannot_cast(value: &Value, target: &str) -> Error {
    let found = match value {
        Value::Number(_) => "numeric",
        Value::Array(_) | Value::Object(_) => "array or object",
        other => other.type_name(),
    };
    wrong(&format!("cannot cast jsonb {found} to type {target}"))
}

/// Returns the digits of a number for a cast to a type: of an integer type without a fraction, rounded.
fn number_text(all: &Arguments, row: usize) -> Result<Option<String>> {
    let (Some(json), Some(target)) = (all.text(0, row), all.text(1, row)) else { return Ok(None) };
    let value = Value::parse(whole(json)?)?;
    let Value::Number(digits) = &value else { return Err(cannot_cast(&value, target)) };
    let is_integer = matches!(target, "smallint" | "integer" | "bigint");
    Ok(Some(if is_integer { rounded(digits) } else { digits.clone() }))
}

/// Rounds a number to an integer, a half away from zero.
pub(super) fn rounded(digits: &str) -> String {
    let Some((whole, fraction)) = digits.split_once('.') else { return digits.to_string() };
    if fraction.as_bytes().first().is_none_or(|first| *first < b'5') {
        return if compare_numbers(whole, "0").is_eq() { "0".into() } else { whole.to_string() };
    }
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |rest| ("-", rest));
    let mut bytes = whole.as_bytes().to_vec();
    let mut carries = true;
    for digit in bytes.iter_mut().rev() {
        if !carries {
            break;
        }
        carries = *digit == b'9';
        *digit = if carries { b'0' } else { *digit + 1 };
    }
    let one = if carries { "1" } else { "" };
    format!("{sign}{one}{}", String::from_utf8_lossy(&bytes))
}

fn boolean_text(all: &Arguments, row: usize) -> Result<Option<String>> {
    let Some(json) = all.text(0, row) else { return Ok(None) };
    match Value::parse(json)? {
        Value::Bool(flag) => Ok(Some(flag.to_string())),
        other => Err(cannot_cast(&other, "boolean")),
    }
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn numbers_are_rounded_away_from_zero() {
        for (digits, expected) in [
            ("1.4", "1"),
            ("1.5", "2"),
            ("-1.5", "-2"),
            ("9.99", "10"),
            ("-0.4", "0"),
            ("0.5", "1"),
            ("7", "7"),
        ] {
            assert_eq!(rounded(digits), expected);
        }
    }
}
