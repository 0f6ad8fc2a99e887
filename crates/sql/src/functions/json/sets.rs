//! The lists behind functions that return a row for each part: `jsonb_array_elements`, `jsonb_each`,
//! `jsonb_object_keys`, `jsonb_to_record`. `ast_rewrite/json.rs` puts them into UNNEST.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, ListBuilder, StringViewArray, StringViewBuilder, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields};

use super::access::{array_elements, as_text, cannot, member, object_members};
use super::scan::whole;
use super::value::{Value, canonical};
use crate::error::{Error, Result};
use crate::functions::marks::Mark;
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};
use crate::sqlstate;

/// Lists the functions.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    use Param::{Json, Text};
    let texts = || Returns::Type(DataType::new_list(DataType::Utf8View, true));
    let members = || {
        let item = DataType::Struct(member_fields());
        Returns::Type(DataType::new_list(item, true))
    };
    let mut column =
        |name, returns, kernel| add(MarkedFunction::new(name, &[Json], returns, Kernel::Column(kernel)));
    // `json_array_values` and `json_array_texts` are names of `constructors.rs`.
    column("json_elements", texts(), |all| lists(all, |json| values(json, false)));
    column("json_element_texts", texts(), |all| lists(all, |json| values(json, true)));
    column("jsonb_array_values", texts(), |all| lists(all, |json| values(&canonical(json)?, false)));
    column("jsonb_array_texts", texts(), |all| lists(all, |json| values(&canonical(json)?, true)));
    column("json_keys", texts(), |all| lists(all, |json| keys(json, "json_object_keys")));
    column("jsonb_keys", texts(), |all| lists(all, |json| keys(&canonical(json)?, "jsonb_object_keys")));
    column("json_members", members(), |all| pairs(all, false, false));
    column("json_member_texts", members(), |all| pairs(all, false, true));
    column("jsonb_members", members(), |all| pairs(all, true, false));
    column("jsonb_member_texts", members(), |all| pairs(all, true, true));
    let same = |all: &Arguments, row: usize| Ok(all.text(0, row).map(str::to_string));
    for (name, mark) in [("json_same", Mark::Json), ("jsonb_same", Mark::Jsonb)] {
        add(MarkedFunction::new(name, &[Json], Returns::Marked(mark), Kernel::Text(same)));
    }
    let text = || Returns::Type(DataType::Utf8View);
    add(MarkedFunction::new("json_record_text", &[Json, Text], text(), Kernel::Text(record_text)));
    add(MarkedFunction::new("json_record_array", &[Json, Text], text(), Kernel::Text(record_array)));
}

fn member_fields() -> Fields {
    vec![Field::new("key", DataType::Utf8View, true), Field::new("value", DataType::Utf8View, true)].into()
}

/// Computes a list of texts from each JSON.
fn lists(all: &Arguments, of: impl Fn(&str) -> Result<Vec<Option<String>>>) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(StringViewBuilder::new());
    for row in 0..all.rows {
        match all.text(0, row) {
            Some(json) => {
                of(json)?.into_iter().for_each(|text| out.values().append_option(text));
                out.append(true);
            }
            None => out.append(false),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn values(json: &str, as_texts: bool) -> Result<Vec<Option<String>>> {
    let elements =
        array_elements(json)?.ok_or_else(|| cannot("cannot extract elements from", json, "array"))?;
    let value = |element: &str| if as_texts { as_text(element) } else { Ok(Some(element.to_string())) };
    elements.into_iter().map(value).collect()
}

fn keys(json: &str, name: &str) -> Result<Vec<Option<String>>> {
    let members =
        object_members(json)?.ok_or_else(|| cannot(&format!("cannot call {name} on"), json, "object"))?;
    Ok(members.into_iter().map(|(name, _)| Some(name)).collect())
}

/// Returns the members of objects as `key` and `value`.
fn pairs(all: &Arguments, binary: bool, as_texts: bool) -> Result<ArrayRef> {
    let (mut names, mut parts) = (Vec::new(), Vec::new());
    let (mut lengths, mut valid) = (Vec::with_capacity(all.rows), Vec::with_capacity(all.rows));
    for row in 0..all.rows {
        let before = names.len();
        let json = all.text(0, row);
        valid.push(json.is_some());
        if let Some(json) = json {
            let json = if binary { canonical(json)? } else { json.to_string() };
            let members = object_members(&json)?;
            for (name, value) in members.ok_or_else(|| cannot("cannot deconstruct", &json, "object"))? {
                names.push(name);
                parts.push(if as_texts { as_text(value)? } else { Some(value.to_string()) });
            }
        }
        lengths.push(names.len() - before);
    }
    let names: ArrayRef = Arc::new(StringViewArray::from_iter_values(names));
    let parts: ArrayRef = Arc::new(StringViewArray::from_iter(parts));
    let bug = |error: arrow::error::ArrowError| Error::bug(error.to_string());
    let rows = StructArray::try_new(member_fields(), vec![names, parts], None).map_err(bug)?;
    let item = Arc::new(Field::new_list_field(DataType::Struct(member_fields()), true));
    let (offsets, nulls) = (OffsetBuffer::from_lengths(lengths), NullBuffer::from(valid));
    Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(rows), Some(nulls)).map_err(bug)?))
}

/// Returns the member of a record; none if it has no such member. A record is an object.
fn record_member(all: &Arguments, row: usize) -> Result<Option<&str>> {
    let (Some(json), Some(name)) = (all.text(0, row), all.text(1, row)) else { return Ok(None) };
    if !whole(json)?.starts_with('{') {
        let message = format!("cannot read a record from JSON: expected an object, found {json}");
        return Err(Error::invalid(message).code(sqlstate::INVALID_PARAMETER_VALUE));
    }
    member(json, name)
}

fn record_text(all: &Arguments, row: usize) -> Result<Option<String>> {
    record_member(all, row)?.map_or(Ok(None), as_text)
}

/// Returns an array of JSON as the text of an array: `{1,NULL,"a b"}`.
fn record_array(all: &Arguments, row: usize) -> Result<Option<String>> {
    let Some(part) = record_member(all, row)? else { return Ok(None) };
    match Value::as_written(part)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Array(elements) => {
            let mut out = String::new();
            write_array(&elements, &mut out);
            Ok(Some(out))
        }
        other => {
            let message = format!("expected JSON array, found {}", other.type_name());
            Err(Error::invalid(message).code(sqlstate::INVALID_TEXT_REPRESENTATION))
        }
    }
}

fn write_array(elements: &[Value], out: &mut String) {
    out.push('{');
    for (at, element) in elements.iter().enumerate() {
        out.push_str(if at > 0 { "," } else { "" });
        let text = match element {
            Value::Null => {
                out.push_str("NULL");
                continue;
            }
            Value::Array(elements) => {
                write_array(elements, out);
                continue;
            }
            Value::String(text) => text.clone(),
            other => other.text(),
        };
        out.push('"');
        for c in text.chars() {
            out.push_str(if matches!(c, '"' | '\\') { "\\" } else { "" });
            out.push(c);
        }
        out.push('"');
    }
    out.push('}');
}
