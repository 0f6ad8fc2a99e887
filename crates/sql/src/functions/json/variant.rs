//! Variants of Spark: `parse_json(text)`, `schema_of_variant(v)`, `variant_set(v, '$.a', 1)`.
//!
//! A variant is JSON: its text has no blanks, and members in the order of their names. As in Spark, variants are neither
//! compared nor grouped.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, ListArray, StringViewArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields};

use super::schema::{Schema, Style, without_leading_zeros};
use super::value::Value;
use crate::error::{Error, Result};
use crate::functions::marks::Mark;
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};

/// Lists the functions.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    use Param::{Json, Keys, Text};
    let variant = || Returns::Marked(Mark::Json);
    let text = || Returns::Type(DataType::Utf8View);
    let parse = Kernel::Text(|all, row| read(all, row)?.map(sorted).transpose().map(compact));
    add(MarkedFunction::new("parse_json", &[Json], variant(), parse));
    add(MarkedFunction::new("json_sorted", &[Json], variant(), parse));
    let try_parse = Kernel::Text(|all, row| {
        let Some(json) = all.text(0, row) else { return Ok(None) };
        Ok(Value::as_written(json).and_then(sorted).ok().map(|value| value.compact()))
    });
    add(MarkedFunction::new("try_parse_json", &[Json], variant(), try_parse));
    let is_valid = Kernel::Bool(|all, row| Ok(all.text(0, row).map(|json| Value::as_written(json).is_ok())));
    add(MarkedFunction::new("is_valid_variant", &[Json], Returns::Type(DataType::Boolean), is_valid));
    let is_null = Kernel::Bool(|all, row| Ok(Some(read(all, row)? == Some(Value::Null))));
    add(MarkedFunction::new("is_variant_null", &[Json], Returns::Type(DataType::Boolean), is_null)
        .called_on_null());
    let schema = Kernel::Text(|all, row| {
        let value = read(all, row)?;
        Ok(value.map(|value| Schema::of(&value, Style::Variant).written(Style::Variant)))
    });
    add(MarkedFunction::new("schema_of_variant", &[Json], text(), schema));
    add(MarkedFunction::new("schema_of_variants", &[Keys], text(), Kernel::Text(schema_of_all))
        .called_on_null());
    add(MarkedFunction::new(
        "schema_of_json",
        &[Json],
        text(),
        Kernel::Text(|all, row| schema_of(all, row, false)),
    ));
    add(MarkedFunction::new(
        "schema_of_json_with_zeros",
        &[Json],
        text(),
        Kernel::Text(|all, row| schema_of(all, row, true)),
    ));
    add(MarkedFunction::new("variant_at", &[Json, Text], variant(), Kernel::Text(at)));
    changes(add);
    for (name, kernel) in [
        ("variant_entries", Kernel::Column(|all| entries(all, false))),
        ("variant_entries_or_null", Kernel::Column(|all| entries(all, true))),
    ] {
        let list = DataType::new_list(DataType::Struct(entry_fields()), true);
        add(MarkedFunction::new(name, &[Json], Returns::Type(list), kernel));
    }
}

/// Lists the functions that change a variant.
fn changes(add: &mut dyn FnMut(MarkedFunction)) {
    use Param::{Bool, Json, Text};
    let variant = || Returns::Marked(Mark::Json);
    let changes: [(&'static str, Kernel); 6] = [
        ("variant_insert_json", Kernel::Text(|all, row| changed(all, row, insert))),
        ("try_variant_insert_json", Kernel::Text(|all, row| tried(all, row, insert))),
        ("variant_append_json", Kernel::Text(|all, row| changed(all, row, append))),
        ("try_variant_append_json", Kernel::Text(|all, row| tried(all, row, append))),
        ("variant_set_json", Kernel::Text(|all, row| changed(all, row, set))),
        ("try_variant_set_json", Kernel::Text(|all, row| tried(all, row, set))),
    ];
    for (name, kernel) in changes {
        add(MarkedFunction::new(name, &[Json, Text, Json, Bool], variant(), kernel).optional(1));
    }
    let delete = Kernel::Text(|all, row| {
        let Some(mut value) = read(all, row)? else { return Ok(None) };
        for at in 1..all.columns.len() {
            let Some(path) = all.text(at, row) else { return Ok(None) };
            delete(&mut value, &steps(path)?);
        }
        Ok(Some(value.compact()))
    });
    add(MarkedFunction::new("variant_delete", &[Json, Text], variant(), delete).repeated());
    let strip = Kernel::Text(|all, row| {
        let arrays = all.flag(1, row).unwrap_or(true);
        Ok(compact(read(all, row)?.map(|value| without_nulls(value, arrays))))
    });
    add(MarkedFunction::new("variant_strip_nulls", &[Json, Bool], variant(), strip).optional(1));
}

fn read(all: &Arguments, row: usize) -> Result<Option<Value>> {
    all.text(0, row).map(Value::as_written).transpose()
}

fn compact(value: Option<Value>) -> Option<String> {
    value.map(|value| value.compact())
}

/// Puts members in the order of their names. Two members of one name are an error.
fn sorted(value: Value) -> Result<Value> {
    Ok(match value {
        Value::Array(elements) => Value::Array(elements.into_iter().map(sorted).collect::<Result<_>>()?),
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| Ok((name, sorted(value)?)));
            let mut members = members.collect::<Result<Vec<_>>>()?;
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            if let Some([(name, _), _]) = members.array_windows::<2>().find(|[one, other]| one.0 == other.0) {
                return Err(Error::invalid(format!("an object has the member \"{name}\" twice")).hint(
                    "A member of a variant occurs once. The type JSON keeps both, JSONB the last one.",
                ));
            }
            Value::Object(members)
        }
        other => other,
    })
}

fn schema_of(all: &Arguments, row: usize, zeros: bool) -> Result<Option<String>> {
    let Some(json) = all.text(0, row) else { return Ok(None) };
    let value = match zeros {
        true => Value::as_written(&without_leading_zeros(json))?,
        false => Value::as_written(json)?,
    };
    Ok(Some(Schema::of(&value, Style::Json).written(Style::Json)))
}

fn schema_of_all(all: &Arguments, row: usize) -> Result<Option<String>> {
    let mut schema = Schema::Void;
    for json in all.keys(0, row)?.unwrap_or_default().iter().flatten() {
        schema = schema.with(Schema::of(&Value::as_written(json)?, Style::Variant), Style::Variant);
    }
    Ok(Some(schema.written(Style::Variant)))
}

/// A step of a path.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Member(String),
    Element(usize),
}

/// Reads a path: `$.a[0]['b c']`.
pub(super) fn steps(path: &str) -> Result<Vec<Step>> {
    let wrong = || {
        Error::invalid(format!("'{path}' is no path in a variant"))
            .hint("A path is written as in '$.a[0][\"b c\"]'.")
    };
    let mut rest = path.strip_prefix('$').ok_or_else(wrong)?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(name) = rest.strip_prefix('.') {
            let end = name.find(['.', '[']).unwrap_or(name.len());
            if end == 0 {
                return Err(wrong());
            }
            steps.push(Step::Member(name[..end].to_string()));
            rest = &name[end..];
            continue;
        }
        let inner = rest.strip_prefix('[').ok_or_else(wrong)?;
        let quote = inner.chars().next().filter(|c| matches!(c, '"' | '\''));
        rest = match quote {
            Some(quote) => {
                let (name, behind) = inner[1..].split_once(quote).ok_or_else(wrong)?;
                steps.push(Step::Member(name.to_string()));
                behind.strip_prefix(']').ok_or_else(wrong)?
            }
            None => {
                let (place, behind) = inner.split_once(']').ok_or_else(wrong)?;
                steps.push(Step::Element(place.trim().parse().map_err(|_| wrong())?));
                behind
            }
        };
    }
    Ok(steps)
}

/// Returns the value at a path; none if there is no such value.
pub(super) fn find<'v>(value: &'v Value, steps: &[Step]) -> Option<&'v Value> {
    steps.iter().try_fold(value, |value, step| match (value, step) {
        (Value::Object(members), Step::Member(name)) => {
            members.iter().find(|(known, _)| known == name).map(|(_, value)| value)
        }
        (Value::Array(elements), Step::Element(place)) => elements.get(*place),
        _ => None,
    })
}

fn find_mut<'v>(value: &'v mut Value, steps: &[Step]) -> Option<&'v mut Value> {
    steps.iter().try_fold(value, |value, step| match (value, step) {
        (Value::Object(members), Step::Member(name)) => {
            members.iter_mut().find(|(known, _)| known == name).map(|(_, value)| value)
        }
        (Value::Array(elements), Step::Element(place)) => elements.get_mut(*place),
        _ => None,
    })
}

fn at(all: &Arguments, row: usize) -> Result<Option<String>> {
    let (Some(value), Some(path)) = (read(all, row)?, all.text(1, row)) else { return Ok(None) };
    Ok(find(&value, &steps(path)?).map(Value::compact))
}

/// Changes a value at a path. The flag is the last option, true by default.
type Change = fn(&mut Value, &[Step], Value, bool) -> std::result::Result<(), &'static str>;

fn changed(all: &Arguments, row: usize, change: Change) -> Result<Option<String>> {
    let (Some(mut value), Some(path), Some(new)) = (read(all, row)?, all.text(1, row), all.text(2, row))
    else {
        return Ok(None);
    };
    let new = sorted(Value::as_written(new)?)?;
    change(&mut value, &steps(path)?, new, all.flag(3, row).unwrap_or(true)).map_err(|problem| {
        Error::invalid(format!("a variant can't be changed at '{path}': {problem}"))
            .hint("The function with try_ before its name gives NULL there.")
    })?;
    Ok(Some(sorted(value)?.compact()))
}

fn tried(all: &Arguments, row: usize, change: Change) -> Result<Option<String>> {
    if let Some(path) = all.text(1, row) {
        steps(path)?;
    }
    Ok(changed(all, row, change).unwrap_or(None))
}

fn insert(value: &mut Value, path: &[Step], new: Value, _: bool) -> std::result::Result<(), &'static str> {
    let Some((last, parents)) = path.split_last() else { return Err("the root is there") };
    match (find_mut(value, parents), last) {
        (Some(Value::Object(members)), Step::Member(name)) => {
            match members.iter().any(|(known, _)| known == name) {
                true => Err("the member is there"),
                false => {
                    members.push((name.clone(), new));
                    Ok(())
                }
            }
        }
        (Some(Value::Array(elements)), Step::Element(place)) if *place <= elements.len() => {
            elements.insert(*place, new);
            Ok(())
        }
        (Some(Value::Array(_)), Step::Element(_)) => Err("the array is shorter"),
        _ => Err("nothing there has such a part"),
    }
}

fn append(value: &mut Value, path: &[Step], new: Value, _: bool) -> std::result::Result<(), &'static str> {
    match find_mut(value, path) {
        Some(Value::Array(elements)) => {
            elements.push(new);
            Ok(())
        }
        Some(_) => Err("no array is there"),
        None => Err("nothing is there"),
    }
}

/// Without `creates`, only a value that is there is replaced.
fn set(value: &mut Value, path: &[Step], new: Value, creates: bool) -> std::result::Result<(), &'static str> {
    if let Some(known) = find_mut(value, path) {
        *known = new;
        return Ok(());
    }
    if creates { insert(value, path, new, true) } else { Ok(()) }
}

/// Removes the value at a path, if there is one.
fn delete(value: &mut Value, path: &[Step]) {
    let Some((last, parents)) = path.split_last() else { return };
    match (find_mut(value, parents), last) {
        (Some(Value::Object(members)), Step::Member(name)) => members.retain(|(known, _)| known != name),
        (Some(Value::Array(elements)), Step::Element(place)) if *place < elements.len() => {
            elements.remove(*place);
        }
        _ => {}
    }
}

fn without_nulls(value: Value, arrays: bool) -> Value {
    match value {
        Value::Object(members) => {
            let present = members.into_iter().filter(|(_, value)| *value != Value::Null);
            Value::Object(present.map(|(name, value)| (name, without_nulls(value, arrays))).collect())
        }
        Value::Array(elements) => {
            let present = elements.into_iter().filter(|value| !arrays || *value != Value::Null);
            Value::Array(present.map(|value| without_nulls(value, arrays)).collect())
        }
        other => other,
    }
}

/// The fields of a row of `variant_explode`.
fn entry_fields() -> Fields {
    Fields::from(vec![
        Field::new("pos", DataType::Int32, true),
        Field::new("key", DataType::Utf8View, true),
        Field::new("value", DataType::Utf8View, true),
    ])
}

/// Returns the members of an object or the elements of an array. If `outer`, one row of NULLs stands for none.
fn entries(all: &Arguments, outer: bool) -> Result<ArrayRef> {
    let (mut places, mut keys, mut values, mut lengths) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in 0..all.rows {
        let begin = places.len();
        let parts: Vec<(Option<String>, Value)> = match read(all, row)? {
            Some(Value::Object(members)) => {
                members.into_iter().map(|(name, value)| (Some(name), value)).collect()
            }
            Some(Value::Array(elements)) => elements.into_iter().map(|value| (None, value)).collect(),
            _ => Vec::new(),
        };
        for (place, (key, value)) in (0_i32..).zip(parts) {
            places.push(Some(place));
            keys.push(key);
            values.push(Some(value.compact()));
        }
        if outer && places.len() == begin {
            places.push(None);
            keys.push(None);
            values.push(None);
        }
        lengths.push(places.len() - begin);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(places)),
        Arc::new(keys.into_iter().collect::<StringViewArray>()),
        Arc::new(values.into_iter().collect::<StringViewArray>()),
    ];
    let built = || {
        let entries = StructArray::try_new(entry_fields(), columns, None)?;
        let field = Arc::new(Field::new_list_field(DataType::Struct(entry_fields()), true));
        let nulls: Option<NullBuffer> = None;
        ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), Arc::new(entries), nulls)
    };
    Ok(Arc::new(built().map_err(|error| Error::bug(error.to_string()))?))
}
