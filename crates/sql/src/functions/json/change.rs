//! Changes of JSON: `||`, `-`, `#-`, `jsonb_set`, `jsonb_insert`, `jsonb_strip_nulls`, `jsonb_pretty`; and comparisons of
//! JSONB: `@>`, `?`, `<`.

use std::cmp::Ordering;

use arrow::datatypes::DataType;

use super::access::place;
use super::value::Value;
use crate::error::{Error, Result};
use crate::functions::marks::Mark;
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};
use crate::sqlstate;

/// Lists the functions.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    use Param::{Bool, Int, Json, Keys, Text};
    let jsonb = || Returns::Marked(Mark::Jsonb);
    let mut change =
        |name, params, kernel| add(MarkedFunction::new(name, params, jsonb(), Kernel::Text(kernel)));
    change("jsonb_concat", &[Json, Json], concat);
    change("jsonb_delete_key", &[Json, Text], delete_key);
    change("jsonb_delete_keys", &[Json, Keys], delete_keys);
    change("jsonb_delete_index", &[Json, Int], delete_index);
    change("jsonb_delete_path", &[Json, Keys], delete_path);
    change("jsonb_strip_nulls", &[Json], |all, row| each(all, row, |value| Ok(strip_nulls(value).text())));
    let params = &[Json, Keys, Json, Bool];
    add(MarkedFunction::new("jsonb_set", params, jsonb(), Kernel::Text(set)).optional(1));
    add(MarkedFunction::new("jsonb_insert", params, jsonb(), Kernel::Text(insert)).optional(1));
    let lax =
        MarkedFunction::new("jsonb_set_lax", &[Json, Keys, Json, Bool, Text], jsonb(), Kernel::Text(set_lax));
    add(lax.optional(2).called_on_null());
    let strip = |all: &Arguments, row: usize| match all.text(0, row) {
        None => Ok(None),
        Some(json) => Ok(Some(strip_nulls(Value::as_written(json)?).compact())),
    };
    add(MarkedFunction::new("json_strip_nulls", &[Json], Returns::Marked(Mark::Json), Kernel::Text(strip)));
    let pretty = Kernel::Text(|all, row| each(all, row, |value| Ok(value.pretty())));
    add(MarkedFunction::new("jsonb_pretty", &[Json], Returns::Type(DataType::Utf8View), pretty));
    let boolean = || Returns::Type(DataType::Boolean);
    let contains = Kernel::Bool(|all, row| pair(all, row, |one, other| holds(&one, &other)));
    add(MarkedFunction::new("jsonb_contains", &[Json, Json], boolean(), contains));
    let contained = Kernel::Bool(|all, row| pair(all, row, |one, other| holds(&other, &one)));
    add(MarkedFunction::new("jsonb_contained", &[Json, Json], boolean(), contained));
    add(MarkedFunction::new("jsonb_exists", &[Json, Text], boolean(), Kernel::Bool(exists)));
    add(MarkedFunction::new("jsonb_exists_any", &[Json, Keys], boolean(), Kernel::Bool(exists_any)));
    add(MarkedFunction::new("jsonb_exists_all", &[Json, Keys], boolean(), Kernel::Bool(exists_all)));
    let compare = Kernel::Int(|all, row| pair(all, row, |one, other| one.compare(&other) as i32));
    for (name, kernel) in [("jsonb_greatest", Kernel::Text(greatest)), ("jsonb_least", Kernel::Text(least))] {
        add(MarkedFunction::new(name, &[Json], Returns::Marked(Mark::Jsonb), kernel)
            .repeated()
            .called_on_null());
    }
    add(MarkedFunction::new("jsonb_cmp", &[Json, Json], Returns::Type(DataType::Int32), compare));
}

fn greatest(all: &Arguments, row: usize) -> Result<Option<String>> {
    extreme(all, row, Ordering::Greater)
}

fn least(all: &Arguments, row: usize) -> Result<Option<String>> {
    extreme(all, row, Ordering::Less)
}

/// Returns the argument that comes last or first in the order of JSONB, without those that are NULL.
fn extreme(all: &Arguments, row: usize, wanted: Ordering) -> Result<Option<String>> {
    let mut found: Option<Value> = None;
    for at in 0..all.columns.len() {
        let Some(value) = all.text(at, row).map(Value::parse).transpose()? else { continue };
        if found.as_ref().is_none_or(|found| value.compare(found) == wanted) {
            found = Some(value);
        }
    }
    Ok(found.map(|value| value.text()))
}

fn each(all: &Arguments, row: usize, change: fn(Value) -> Result<String>) -> Result<Option<String>> {
    all.text(0, row).map(|json| change(Value::parse(json)?)).transpose()
}

fn pair<T>(all: &Arguments, row: usize, compute: fn(Value, Value) -> T) -> Result<Option<T>> {
    let (Some(one), Some(other)) = (all.text(0, row), all.text(1, row)) else { return Ok(None) };
    Ok(Some(compute(Value::parse(one)?, Value::parse(other)?)))
}

fn concat(all: &Arguments, row: usize) -> Result<Option<String>> {
    let joined = pair(all, row, |one, other| match (one, other) {
        (Value::Object(mut one), Value::Object(other)) => {
            one.extend(other);
            Value::object(one)
        }
        (one, other) => {
            let elements = |value| match value {
                Value::Array(elements) => elements,
                scalar => vec![scalar],
            };
            let mut all = elements(one);
            all.extend(elements(other));
            Value::Array(all)
        }
    });
    Ok(joined?.map(|value| value.text()))
}

fn wrong(message: &str) -> Error {
    Error::invalid(message).code(sqlstate::INVALID_PARAMETER_VALUE)
}

fn without(value: Value, drops: impl Fn(&str) -> bool) -> Result<Value> {
    Ok(match value {
        Value::Object(members) => {
            Value::Object(members.into_iter().filter(|(name, _)| !drops(name)).collect())
        }
        Value::Array(elements) => {
            let is_dropped = |element: &Value| matches!(element, Value::String(text) if drops(text));
            Value::Array(elements.into_iter().filter(|element| !is_dropped(element)).collect())
        }
        _ => return Err(wrong("cannot delete from scalar")),
    })
}

fn delete_key(all: &Arguments, row: usize) -> Result<Option<String>> {
    let (Some(json), Some(key)) = (all.text(0, row), all.text(1, row)) else { return Ok(None) };
    Ok(Some(without(Value::parse(json)?, |name| name == key)?.text()))
}

fn delete_keys(all: &Arguments, row: usize) -> Result<Option<String>> {
    let (Some(json), Some(keys)) = (all.text(0, row), all.keys(1, row)?) else { return Ok(None) };
    let is_key = |name: &str| keys.iter().any(|key| key.as_deref() == Some(name));
    Ok(Some(without(Value::parse(json)?, is_key)?.text()))
}

fn delete_index(all: &Arguments, row: usize) -> Result<Option<String>> {
    let (Some(json), Some(place)) = (all.text(0, row), all.int(1, row)) else { return Ok(None) };
    match Value::parse(json)? {
        Value::Array(mut elements) => {
            let place = if place < 0 { place.saturating_add(elements.len() as i64) } else { place };
            if let Some(place) = usize::try_from(place).ok().filter(|place| *place < elements.len()) {
                elements.remove(place);
            }
            Ok(Some(Value::Array(elements).text()))
        }
        Value::Object(_) => Err(wrong("cannot delete from object using integer index")),
        _ => Err(wrong("cannot delete from scalar")),
    }
}

/// Removes members that are null.
fn strip_nulls(value: Value) -> Value {
    match value {
        Value::Array(elements) => Value::Array(elements.into_iter().map(strip_nulls).collect()),
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(_, value)| *value != Value::Null);
            Value::Object(kept.map(|(name, value)| (name, strip_nulls(value))).collect())
        }
        scalar => scalar,
    }
}

/// A change at a place.
enum Change {
    /// Replaces a value, or adds it if the flag is set.
    Set(Value, bool),
    /// Adds a value before an element, or after it if the flag is set.
    Insert(Value, bool),
    Delete,
}

fn change_path(json: &str, keys: Vec<Option<String>>, change: Change) -> Result<Option<String>> {
    let mut value = Value::parse(json)?;
    if !matches!(value, Value::Array(_) | Value::Object(_)) {
        return Err(wrong(match change {
            Change::Delete => "cannot delete path in scalar",
            _ => "cannot set path in scalar",
        }));
    }
    if let Some(at) = keys.iter().position(Option::is_none) {
        return Err(Error::invalid(format!("path element at position {} is null", at + 1))
            .code(sqlstate::NULL_VALUE_NOT_ALLOWED));
    }
    let keys: Vec<String> = keys.into_iter().flatten().collect();
    if !keys.is_empty() {
        apply(&mut value, &keys, 0, change)?;
    }
    Ok(Some(value.text()))
}

/// Applies a change below a value. `level` is the number of keys behind.
fn apply(value: &mut Value, keys: &[String], level: usize, change: Change) -> Result<()> {
    let Some(key) = keys.get(level) else { return Ok(()) };
    let is_last = level + 1 == keys.len();
    match value {
        Value::Object(members) => {
            let at = members.iter().position(|(name, _)| name == key);
            match (at, is_last, change) {
                (Some(at), false, change) => return apply(&mut members[at].1, keys, level + 1, change),
                (None, false, _) => {}
                (Some(at), true, Change::Set(new, _)) => members[at].1 = new,
                (Some(at), true, Change::Delete) => {
                    members.remove(at);
                }
                (Some(_), true, Change::Insert(..)) => {
                    return Err(wrong("cannot replace existing key")
                        .hint("Try using the function jsonb_set to replace key value."));
                }
                (None, true, Change::Set(new, true) | Change::Insert(new, _)) => {
                    members.push((key.clone(), new));
                    *value = Value::object(std::mem::take(members));
                }
                (None, true, Change::Set(_, false) | Change::Delete) => {}
            }
        }
        Value::Array(elements) => {
            let Some(written) = place(key) else {
                let message = format!("path element at position {} is not an integer: \"{key}\"", level + 1);
                return Err(Error::invalid(message).code(sqlstate::INVALID_TEXT_REPRESENTATION));
            };
            let count = elements.len() as i64;
            let place = if written < 0 { written + count } else { written };
            let at = usize::try_from(place).ok().filter(|at| *at < elements.len());
            match (at, is_last, change) {
                (Some(at), false, change) => return apply(&mut elements[at], keys, level + 1, change),
                (None, false, _) => {}
                (Some(at), true, Change::Set(new, _)) => elements[at] = new,
                (Some(at), true, Change::Delete) => {
                    elements.remove(at);
                }
                (Some(at), true, Change::Insert(new, after)) => elements.insert(at + usize::from(after), new),
                (None, true, Change::Set(new, true) | Change::Insert(new, _)) => {
                    let at = if place < 0 { 0 } else { elements.len() };
                    elements.insert(at, new);
                }
                (None, true, Change::Set(_, false) | Change::Delete) => {}
            }
        }
        _ => {}
    }
    Ok(())
}

fn delete_path(all: &Arguments, row: usize) -> Result<Option<String>> {
    let (Some(json), Some(keys)) = (all.text(0, row), all.keys(1, row)?) else { return Ok(None) };
    change_path(json, keys, Change::Delete)
}

fn set(all: &Arguments, row: usize) -> Result<Option<String>> {
    let Some(new) = all.text(2, row) else { return Ok(None) };
    let (Some(json), Some(keys)) = (all.text(0, row), all.keys(1, row)?) else { return Ok(None) };
    change_path(json, keys, Change::Set(Value::parse(new)?, all.flag(3, row).unwrap_or(true)))
}

fn insert(all: &Arguments, row: usize) -> Result<Option<String>> {
    let Some(new) = all.text(2, row) else { return Ok(None) };
    let (Some(json), Some(keys)) = (all.text(0, row), all.keys(1, row)?) else { return Ok(None) };
    change_path(json, keys, Change::Insert(Value::parse(new)?, all.flag(3, row).unwrap_or(false)))
}

fn set_lax(all: &Arguments, row: usize) -> Result<Option<String>> {
    let (Some(json), Some(keys)) = (all.text(0, row), all.keys(1, row)?) else { return Ok(None) };
    let creates = match all.columns.len() > 3 {
        true => all.flag(3, row),
        false => Some(true),
    };
    let Some(creates) = creates else { return Ok(None) };
    if let Some(new) = all.text(2, row) {
        return change_path(json, keys, Change::Set(Value::parse(new)?, creates));
    }
    let treatment = match all.columns.len() > 4 {
        true => all.text(4, row),
        false => Some("use_json_null"),
    };
    match treatment {
        Some("use_json_null") => change_path(json, keys, Change::Set(Value::Null, creates)),
        Some("delete_key") => change_path(json, keys, Change::Delete),
        Some("return_target") => Ok(Some(Value::parse(json)?.text())),
        Some("raise_exception") => {
            Err(Error::invalid("JSON value must not be null").code(sqlstate::NULL_VALUE_NOT_ALLOWED))
        }
        _ => Err(wrong(
            "null_value_treatment must be \"delete_key\", \"return_target\", \"use_json_null\", or \"raise_exception\"",
        )),
    }
}

/// True if a value contains another one, as `@>` means it.
fn holds(value: &Value, other: &Value) -> bool {
    match (value, other) {
        // An array contains a scalar that is one of its elements; only at the top.
        (Value::Array(elements), scalar) if !matches!(scalar, Value::Array(_) | Value::Object(_)) => {
            elements.iter().any(|element| element.equals(scalar))
        }
        _ => contains(value, other),
    }
}

fn contains(value: &Value, other: &Value) -> bool {
    match (value, other) {
        (Value::Object(members), Value::Object(others)) => others.iter().all(|(name, other)| {
            members.iter().any(|(known, value)| known == name && contains(value, other))
        }),
        (Value::Array(elements), Value::Array(others)) => {
            others.iter().all(|other| elements.iter().any(|element| contains(element, other)))
        }
        (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => false,
        (one, other) => one.equals(other),
    }
}

/// True if a string is a member's name or an element of a value, or the value itself.
fn has(value: &Value, key: &str) -> bool {
    let is_key = |value: &Value| matches!(value, Value::String(text) if text == key);
    match value {
        Value::Object(members) => members.iter().any(|(name, _)| name == key),
        Value::Array(elements) => elements.iter().any(is_key),
        scalar => is_key(scalar),
    }
}

fn exists(all: &Arguments, row: usize) -> Result<Option<bool>> {
    let (Some(json), Some(key)) = (all.text(0, row), all.text(1, row)) else { return Ok(None) };
    Ok(Some(has(&Value::parse(json)?, key)))
}

fn exists_any(all: &Arguments, row: usize) -> Result<Option<bool>> {
    let (Some(json), Some(keys)) = (all.text(0, row), all.keys(1, row)?) else { return Ok(None) };
    let value = Value::parse(json)?;
    Ok(Some(keys.iter().flatten().any(|key| has(&value, key))))
}

fn exists_all(all: &Arguments, row: usize) -> Result<Option<bool>> {
    let (Some(json), Some(keys)) = (all.text(0, row), all.keys(1, row)?) else { return Ok(None) };
    let value = Value::parse(json)?;
    Ok(Some(keys.iter().flatten().all(|key| has(&value, key))))
}
