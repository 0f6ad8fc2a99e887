//! `get_json_object(json, '$.a[0]')` of Spark, and the columns of `json_tuple(json, 'a', 'b')`.
//!
//! A text that is no JSON, and a path that finds nothing, give NULL. A string loses its quotes.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringViewArray};
use arrow::datatypes::DataType;
use datafusion::error::Result;

use super::value::{Value, quote};
use crate::error::Error;
use crate::functions::Registry;
use crate::functions::scalar::Scalar;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let texts = || vec![DataType::Utf8View; 2];
    let text = |_: &[DataType]| Ok(DataType::Utf8View);
    registry.add(Scalar::exact("get_json_object", texts(), text, |columns| {
        each(columns, |json, path| {
            let steps = steps(path)?;
            let mut found = found(Value::as_written(json).ok()?, &steps, Style::Raw);
            let value = if found.is_empty() { None } else { Some(found.swap_remove(0)) }?;
            Some(match value {
                Value::String(text) if !steps.contains(&Step::All) => text,
                value => value.compact(),
            })
        })
    }));
    registry.add(Scalar::exact("json_field", texts(), text, |columns| {
        each(columns, |json, name| match Value::as_written(json).ok()? {
            Value::Object(members) => match member(members, name)? {
                Value::String(text) => Some(text),
                value => Some(value.compact()),
            },
            _ => None,
        })
    }));
    let one = vec![DataType::Utf8View];
    registry.add(Scalar::exact("json_quote", one.clone(), text, |columns| {
        each(&[Arc::clone(&columns[0]), Arc::clone(&columns[0])], |text, _| {
            let mut quoted = String::new();
            quote(text, &mut quoted);
            Some(quoted)
        })
    }));
    registry.add(Scalar::exact("json_unquote", one, text, json_unquote));
}

/// Computes each row. NULL in an argument gives NULL.
fn each(columns: &[ArrayRef], of: impl Fn(&str, &str) -> Option<String>) -> Result<ArrayRef> {
    let pairs = columns[0].as_string_view().iter().zip(columns[1].as_string_view());
    Ok(Arc::new(pairs.map(|(one, other)| of(one?, other?)).collect::<StringViewArray>()))
}

/// Returns the text of a JSON string. Another text stays as it is.
fn json_unquote(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let texts = columns[0].as_string_view().iter().map(|text| {
        let Some(text) = text else { return Ok(None) };
        let trimmed = text.trim();
        if !(trimmed.len() > 1 && trimmed.starts_with('"') && trimmed.ends_with('"')) {
            return Ok(Some(text.to_string()));
        }
        match Value::as_written(trimmed) {
            Ok(Value::String(inner)) => Ok(Some(inner)),
            _ => Err(Error::invalid(format!("json_unquote takes a JSON string, but {text} is none"))),
        }
    });
    Ok(Arc::new(texts.collect::<std::result::Result<StringViewArray, Error>>()?))
}

/// A step of a path.
#[derive(Debug, PartialEq)]
enum Step {
    /// `.name`, `['name']`
    Name(String),
    /// `[0]`
    Place(usize),
    /// `[*]`
    All,
}

/// The values that surround the ones to find.
#[derive(Clone, Copy, PartialEq)]
enum Style {
    /// No `[*]` came before.
    Raw,
    /// Values of a `[*]` are elements of an array.
    Quoted,
    /// After `[*][*]`, arrays are replaced by their elements.
    Flat,
}

/// Reads a path; none if it isn't one.
fn steps(path: &str) -> Option<Vec<Step>> {
    let mut rest = path.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let name = after.get(..end).filter(|name| !name.is_empty())?;
            steps.push(Step::Name(name.to_string()));
            rest = &after[end..];
        } else if let Some(after) = rest.strip_prefix("['") {
            let end = after.find("']")?;
            steps.push(Step::Name(after.get(..end)?.to_string()));
            rest = after.get(end + 2..)?;
        } else {
            let after = rest.strip_prefix('[')?;
            let end = after.find(']')?;
            steps.push(match after.get(..end)? {
                "*" => Step::All,
                place => Step::Place(place.parse().ok()?),
            });
            rest = after.get(end + 1..)?;
        }
    }
    Some(steps)
}

/// Returns the first member of this name that isn't null.
fn member(members: Vec<(String, Value)>, name: &str) -> Option<Value> {
    members.into_iter().find(|(found, value)| found == name && *value != Value::Null).map(|(_, value)| value)
}

/// Returns the values that a path finds.
fn found(value: Value, path: &[Step], style: Style) -> Vec<Value> {
    let Some((step, rest)) = path.split_first() else {
        return match value {
            Value::Array(elements) if style == Style::Flat => {
                elements.into_iter().flat_map(|element| found(element, path, style)).collect()
            }
            value => vec![value],
        };
    };
    match (step, value) {
        (Step::Name(name), Value::Object(members)) => {
            member(members, name).map_or_else(Vec::new, |value| found(value, rest, style))
        }
        (Step::Place(place), Value::Array(mut elements)) if *place < elements.len() => {
            let style = if rest.first() == Some(&Step::All) { Style::Quoted } else { style };
            found(elements.swap_remove(*place), rest, style)
        }
        (Step::All, Value::Array(elements)) => {
            let each = |rest: &[Step], style: Style, elements: Vec<Value>| -> Vec<Value> {
                elements.into_iter().flat_map(|element| found(element, rest, style)).collect()
            };
            match (rest, style) {
                ([Step::All, rest @ ..], _) => vec![Value::Array(each(rest, Style::Flat, elements))],
                (_, Style::Quoted) => vec![Value::Array(each(rest, Style::Quoted, elements))],
                _ => {
                    let style = if style == Style::Raw { Style::Quoted } else { style };
                    let mut all = each(rest, style, elements);
                    if all.len() > 1 { vec![Value::Array(all)] } else { all.pop().into_iter().collect() }
                }
            }
        }
        _ => Vec::new(),
    }
}
