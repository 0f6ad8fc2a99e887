//! Parts of JSON: members, elements, paths, names, lengths and types.
//!
//! A part of JSON is returned as written. A part of JSONB, whose text is canonical, is canonical, too.

use arrow::datatypes::DataType;

use super::scan::{Scanner, unescaped, whole};
use super::value::{Value, canonical};
use crate::error::{Error, Result};
use crate::functions::marks::Mark;
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};
use crate::sqlstate;

const TEXT: Returns = Returns::Type(DataType::Utf8View);

/// Lists the functions.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    use Param::{Int, Json, Keys, Text};
    for (mark, names) in [
        (Mark::Json, ["json_object_field", "json_array_element", "json_get_path"]),
        (Mark::Jsonb, ["jsonb_object_field", "jsonb_array_element", "jsonb_get_path"]),
    ] {
        let returns = || Returns::Marked(mark);
        add(MarkedFunction::new(names[0], &[Json, Text], returns(), Kernel::Text(object_field)));
        let element = if mark == Mark::Json { array_element } else { binary_element };
        add(MarkedFunction::new(names[1], &[Json, Int], returns(), Kernel::Text(element)));
        add(MarkedFunction::new(names[2], &[Json, Keys], returns(), Kernel::Text(get_path)));
    }
    for names in [
        ["json_object_field_text", "json_array_element_text", "json_get_path_text"],
        ["jsonb_object_field_text", "jsonb_array_element_text", "jsonb_get_path_text"],
    ] {
        add(MarkedFunction::new(
            names[0],
            &[Json, Text],
            TEXT,
            Kernel::Text(|all, row| text_of(object_field(all, row)?)),
        ));
        let element = match names[1] {
            "json_array_element_text" => Kernel::Text(|all, row| text_of(array_element(all, row)?)),
            _ => Kernel::Text(|all, row| text_of(binary_element(all, row)?)),
        };
        add(MarkedFunction::new(names[1], &[Json, Int], TEXT, element));
        add(MarkedFunction::new(
            names[2],
            &[Json, Keys],
            TEXT,
            Kernel::Text(|all, row| text_of(get_path(all, row)?)),
        ));
    }
    let json = Returns::Marked(Mark::Json);
    let jsonb = Returns::Marked(Mark::Jsonb);
    add(MarkedFunction::new("json_extract_path", &[Json, Text], json, Kernel::Text(extract))
        .optional(1)
        .repeated());
    let binary = Kernel::Text(|all, row| extract(all, row)?.map(|part| canonical(&part)).transpose());
    add(MarkedFunction::new("jsonb_extract_path", &[Json, Text], jsonb, binary).optional(1).repeated());
    for (name, binary) in [("json_extract_path_text", false), ("jsonb_extract_path_text", true)] {
        let kernel = match binary {
            true => Kernel::Text(|all, row| {
                Ok(extract(all, row)?.map(|part| Value::parse(&part)).transpose()?.and_then(Value::into_text))
            }),
            false => Kernel::Text(|all, row| text_of(extract(all, row)?)),
        };
        add(MarkedFunction::new(name, &[Json, Text], TEXT, kernel).optional(1).repeated());
    }
    for name in ["json_typeof", "jsonb_typeof"] {
        add(MarkedFunction::new(name, &[Json], TEXT, Kernel::Text(type_of)));
    }
    for name in ["json_array_length", "jsonb_array_length"] {
        let returns = Returns::Type(DataType::Int32);
        add(MarkedFunction::new(name, &[Json], returns, Kernel::Int(array_length)));
    }
}

/// Returns the member of this name as written, the last one of several.
pub(super) fn member<'a>(text: &'a str, name: &str) -> Result<Option<&'a str>> {
    let mut scanner = Scanner::new(text);
    let mut found = None;
    match scanner.peek() {
        Some(b'{') => scanner.object(&mut |scanner, written| {
            let value = scanner.value()?;
            if unescaped(written)? == name {
                found = Some(value);
            }
            Ok(())
        })?,
        _ => {
            scanner.value()?;
        }
    }
    scanner.end()?;
    Ok(found)
}

/// Returns the elements of an array as written; none if the text is no array.
pub(super) fn array_elements(text: &str) -> Result<Option<Vec<&str>>> {
    let mut scanner = Scanner::new(text);
    let mut found = None;
    match scanner.peek() {
        Some(b'[') => {
            let mut elements = Vec::new();
            scanner.array(&mut |scanner| {
                elements.push(scanner.value()?);
                Ok(())
            })?;
            found = Some(elements);
        }
        _ => {
            scanner.value()?;
        }
    }
    scanner.end()?;
    Ok(found)
}

/// Returns the members of an object, their values as written; none if the text is no object.
pub(super) fn object_members(text: &str) -> Result<Option<Vec<(String, &str)>>> {
    let mut scanner = Scanner::new(text);
    let mut found = None;
    match scanner.peek() {
        Some(b'{') => {
            let mut members = Vec::new();
            scanner.object(&mut |scanner, name| {
                members.push((unescaped(name)?.into_owned(), scanner.value()?));
                Ok(())
            })?;
            found = Some(members);
        }
        _ => {
            scanner.value()?;
        }
    }
    scanner.end()?;
    Ok(found)
}

/// Returns an element of an array, counted from 0, or from -1 at the end.
fn element(text: &str, place: i64) -> Result<Option<&str>> {
    let Some(elements) = array_elements(text)? else { return Ok(None) };
    let place = if place < 0 { place.saturating_add(elements.len() as i64) } else { place };
    Ok(usize::try_from(place).ok().and_then(|place| elements.get(place).copied()))
}

fn part<'a>(text: &'a str, path: impl Iterator<Item = Option<&'a str>>) -> Result<Option<&'a str>> {
    let mut found = whole(text)?;
    for step in path {
        let Some(step) = step else { return Ok(None) };
        let next = match found.as_bytes().first() {
            Some(b'{') => member(found, step)?,
            Some(b'[') => match place(step) {
                Some(place) => element(found, place)?,
                None => None,
            },
            _ => None,
        };
        let Some(next) = next else { return Ok(None) };
        found = next;
    }
    Ok(Some(found))
}

/// Returns the place of an element that a step of a path stands for.
pub(super) fn place(step: &str) -> Option<i64> {
    step.trim_start().parse::<i32>().ok().map(i64::from)
}

/// Returns a part as text: a string without quotes, null as NULL.
pub(super) fn as_text(part: &str) -> Result<Option<String>> {
    Ok(match part.as_bytes().first() {
        Some(b'n') => None,
        Some(b'"') => Some(unescaped(part.get(1..part.len() - 1).unwrap_or_default())?.into_owned()),
        _ => Some(part.to_string()),
    })
}

fn text_of(part: Option<String>) -> Result<Option<String>> {
    part.map_or(Ok(None), |part| as_text(&part))
}

fn object_field(all: &Arguments, row: usize) -> Result<Option<String>> {
    let (Some(json), Some(name)) = (all.text(0, row), all.text(1, row)) else { return Ok(None) };
    Ok(member(json, name)?.map(str::to_string))
}

fn array_element(all: &Arguments, row: usize) -> Result<Option<String>> {
    let (Some(json), Some(place)) = (all.text(0, row), all.int(1, row)) else { return Ok(None) };
    Ok(element(json, place)?.map(str::to_string))
}

/// Returns an element of JSONB. As in PostgreSQL, a scalar is its own only element there.
fn binary_element(all: &Arguments, row: usize) -> Result<Option<String>> {
    let (Some(json), Some(place)) = (all.text(0, row), all.int(1, row)) else { return Ok(None) };
    if matches!(place, 0 | -1) && !matches!(whole(json)?.as_bytes().first(), Some(b'[' | b'{')) {
        return Ok(Some(json.to_string()));
    }
    Ok(element(json, place)?.map(str::to_string))
}

fn get_path(all: &Arguments, row: usize) -> Result<Option<String>> {
    let (Some(json), Some(keys)) = (all.text(0, row), all.keys(1, row)?) else { return Ok(None) };
    let keys: Vec<Option<&str>> = keys.iter().map(Option::as_deref).collect();
    Ok(part(json, keys.into_iter())?.map(str::to_string))
}

fn extract(all: &Arguments, row: usize) -> Result<Option<String>> {
    let Some(json) = all.text(0, row) else { return Ok(None) };
    let keys = (1..all.columns.len()).map(|at| all.text(at, row));
    Ok(part(json, keys)?.map(str::to_string))
}

fn type_of(all: &Arguments, row: usize) -> Result<Option<String>> {
    let Some(json) = all.text(0, row) else { return Ok(None) };
    Ok(Some(type_name(whole(json)?).to_string()))
}

/// Returns the name of the type of a value as written.
pub(super) fn type_name(value: &str) -> &'static str {
    match value.as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    }
}

/// Returns the error for a value that should be an array or an object.
pub(super) fn cannot(what: &str, value: &str, expected: &str) -> Error {
    let kind = type_name(value.trim_start());
    let found = match kind {
        "array" | "object" => format!("a non-{expected}"),
        _ => "a scalar".to_string(),
    };
    Error::invalid(format!("{what} {found}: expected {expected}, found {kind}"))
        .code(sqlstate::INVALID_PARAMETER_VALUE)
}

fn array_length(all: &Arguments, row: usize) -> Result<Option<i32>> {
    let Some(json) = all.text(0, row) else { return Ok(None) };
    let elements =
        array_elements(json)?.ok_or_else(|| cannot("cannot get array length of", json, "array"))?;
    Ok(i32::try_from(elements.len()).ok())
}
