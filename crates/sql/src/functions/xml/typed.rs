//! `from_xml(text, 'a INT')`, `to_xml(struct)` and `schema_of_xml(text)`.
//!
//! An element is a struct of its attributes, which have a `_` before their name, of its elements, and of its text,
//! `_VALUE`. An element with only a text is that text; elements of one name are an array.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, TimeUnit};
use datafusion::error::Result;
use millstream_delta::sql_type;

use super::tree::Document;
use crate::error::Error;
use crate::functions::Registry;
use crate::functions::json::schema::{Schema, Style};
use crate::functions::json::typed_schema;
use crate::functions::json::value::Value;
use crate::functions::maps::entry_fields;
use crate::functions::scalar::Scalar;
use crate::functions::time_text;

/// The most levels of a value.
const DEPTH_MAX: usize = 200;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let text = |_: &[DataType]| Ok(DataType::Utf8View);
    // The JSON of a document, as `from_json` reads it for the type of `from_xml`.
    registry.add(Scalar::exact("xml_to_json", vec![DataType::Utf8View; 2], text, |columns| {
        let shape = columns[1].as_string_view().iter().next().flatten();
        let parse = |text: &str| typed_schema::parse(text, TimeUnit::Microsecond);
        let shape = shape.map(parse).transpose()?;
        let rows = columns[0].as_string_view().iter().map(|xml| {
            let document = Document::read(xml?).ok()?;
            let value = value_of(&document, document.nodes[0].children[0], true, 0);
            let value = match &shape {
                Some(shape) => fitted(value, shape),
                None => value,
            };
            Some(value.text())
        });
        Ok(Arc::new(rows.collect::<StringViewArray>()))
    }));
    let schema = vec![DataType::Utf8View, DataType::Boolean];
    registry.add(Scalar::exact("schema_of_xml_with", schema, text, |columns| {
        let rows = columns[0].as_string_view().iter().zip(columns[1].as_boolean());
        let schemas = rows.map(|(xml, attributes)| {
            let (Some(xml), Some(attributes)) = (xml, attributes) else { return Ok(None) };
            let document = Document::read(xml)?;
            let value = value_of(&document, document.nodes[0].children[0], attributes, 0);
            Ok(Some(Schema::of(&guessed(value), Style::Json).written(Style::Json)))
        });
        Ok(Arc::new(schemas.collect::<Result<StringViewArray>>()?))
    }));
    let written = |types: &[DataType]| match types {
        [DataType::Struct(_) | DataType::Map(..)] => Ok(DataType::Utf8View),
        [other] => Err(Error::invalid(format!("to_xml takes a struct, not {}", sql_type(other))).into()),
        _ => Err(Error::invalid("to_xml takes a struct").into()),
    };
    registry.add(Scalar::any("to_xml", written, to_xml));
}

/// Returns an element as a value: all texts are strings.
fn value_of(document: &Document, place: usize, with_attributes: bool, depth: usize) -> Value {
    let node = &document.nodes[place];
    let mut members: Vec<(String, Value)> = Vec::new();
    if with_attributes {
        let attributes = node.attributes.iter();
        members.extend(attributes.map(|(name, value)| (format!("_{name}"), Value::String(value.clone()))));
    }
    let children = node.children.iter().filter(|_| depth < DEPTH_MAX);
    let (elements, texts): (Vec<usize>, Vec<usize>) =
        children.partition(|child| document.nodes[**child].name.is_some());
    let text: String = texts.iter().filter_map(|text| document.nodes[*text].text.as_deref()).collect();
    let text = text.trim();
    for element in elements {
        let name = document.nodes[element].name.clone().unwrap_or_default();
        let value = value_of(document, element, with_attributes, depth + 1);
        match members.iter_mut().find(|(known, _)| *known == name) {
            Some((_, Value::Array(values))) => values.push(value),
            Some((_, known)) => *known = Value::Array(vec![std::mem::replace(known, Value::Null), value]),
            None => members.push((name, value)),
        }
    }
    match (members.is_empty(), text.is_empty()) {
        (true, true) => Value::Null,
        (true, false) => Value::String(text.to_string()),
        (false, false) => {
            members.push(("_VALUE".to_string(), Value::String(text.to_string())));
            Value::Object(members)
        }
        (false, true) => Value::Object(members),
    }
}

/// Gives texts the form of JSON that a type is read from. One element stands for an array of it.
fn fitted(value: Value, of: &DataType) -> Value {
    match (of, value) {
        (DataType::List(field), Value::Array(elements)) => {
            Value::Array(elements.into_iter().map(|element| fitted(element, field.data_type())).collect())
        }
        (DataType::List(_), Value::Null) => Value::Null,
        (DataType::List(field), element) => Value::Array(vec![fitted(element, field.data_type())]),
        (DataType::Struct(fields), Value::Object(members)) => {
            let fitted = members.into_iter().map(|(name, value)| {
                let field = fields.iter().find(|field| *field.name() == name);
                let value = field.map_or(Value::Null, |field| fitted(value, field.data_type()));
                (name, value)
            });
            Value::Object(fitted.collect())
        }
        (DataType::Struct(fields), text @ Value::String(_)) => {
            let value = fields.iter().find(|field| field.name() == "_VALUE");
            match value {
                Some(field) => Value::Object(vec![("_VALUE".into(), fitted(text, field.data_type()))]),
                None => Value::Object(Vec::new()),
            }
        }
        (DataType::Map(..), Value::Object(members)) => match entry_fields(of) {
            Some((_, field)) => Value::Object(
                members.into_iter().map(|(name, value)| (name, fitted(value, field.data_type()))).collect(),
            ),
            None => Value::Null,
        },
        // An element with attributes as well is its text.
        (of, Value::Object(members)) if !of.is_nested() => {
            let text = members.into_iter().find(|(name, _)| name == "_VALUE");
            text.map_or(Value::Null, |(_, value)| fitted(value, of))
        }
        (of, Value::String(text)) if of.is_numeric() || *of == DataType::Boolean => as_json(&text),
        (_, other) => other,
    }
}

/// Returns the number or the flag that a text is; the text itself otherwise.
fn as_json(text: &str) -> Value {
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match Value::parse(text) {
            Ok(number @ Value::Number(_)) => number,
            _ => Value::String(text.to_string()),
        },
    }
}

fn guessed(value: Value) -> Value {
    match value {
        Value::String(text) => as_json(&text),
        Value::Array(elements) => Value::Array(elements.into_iter().map(guessed).collect()),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, value)| (name, guessed(value))).collect())
        }
        other => other,
    }
}

/// Writes the value of a row as elements of a name, a level deeper than the one around it.
type Writer = Box<dyn Fn(&mut String, &str, usize, usize)>;

fn to_xml(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let write = writer(&columns[0])?;
    let rows = (0..columns[0].len()).map(|row| {
        columns[0].is_valid(row).then(|| {
            let mut out = String::new();
            write(&mut out, "ROW", 0, row);
            out.trim_end().to_string()
        })
    });
    Ok(Arc::new(rows.collect::<StringViewArray>()))
}

fn indent(out: &mut String, level: usize) {
    out.push_str(&"    ".repeat(level));
}

/// Writes an element around others.
fn around(out: &mut String, name: &str, level: usize, inner: impl FnOnce(&mut String)) {
    indent(out, level);
    // Writing to a text doesn't fail.
    let _ = writeln!(out, "<{name}>");
    inner(out);
    indent(out, level);
    let _ = writeln!(out, "</{name}>");
}

fn writer(column: &ArrayRef) -> Result<Writer> {
    let column = Arc::clone(column);
    Ok(match column.data_type().clone() {
        DataType::Struct(fields) => {
            let parts =
                column.as_struct().columns().iter().zip(&fields).map(|(part, field): (_, &FieldRef)| {
                    Ok((element_name(field.name())?, Arc::clone(part), writer(part)?))
                });
            let parts = parts.collect::<Result<Vec<_>>>()?;
            Box::new(move |out, name, level, row| {
                around(out, name, level, |out| {
                    for (name, part, write) in &parts {
                        if part.is_valid(row) {
                            write(out, name, level + 1, row);
                        }
                    }
                });
            })
        }
        DataType::List(_) => {
            let list = column.as_list::<i32>().clone();
            let write = writer(list.values())?;
            Box::new(move |out, name, level, row| {
                let offsets = list.value_offsets();
                let bound = |at: usize| usize::try_from(offsets[at]).unwrap_or(0);
                for at in bound(row)..bound(row + 1) {
                    match list.values().is_valid(at) {
                        true => write(out, name, level, at),
                        false => {
                            indent(out, level);
                            let _ = writeln!(out, "<{name}/>");
                        }
                    }
                }
            })
        }
        DataType::Map(..) => {
            let map = column.as_map().clone();
            let names = cast(map.keys(), &DataType::Utf8View)?;
            let names = names.as_string_view().iter().flatten().map(element_name);
            let names = names.collect::<Result<Vec<_>>>()?;
            let write = writer(map.values())?;
            Box::new(move |out, name, level, row| {
                let offsets = map.value_offsets();
                let bound = |at: usize| usize::try_from(offsets[at]).unwrap_or(0);
                around(out, name, level, |out| {
                    for at in bound(row)..bound(row + 1) {
                        if let Some(name) = names.get(at).filter(|_| map.values().is_valid(at)) {
                            write(out, name, level + 1, at);
                        }
                    }
                });
            })
        }
        of => {
            let texts = match time_text::is_written(&of) {
                true => time_text::with_texts(&column)?,
                false => cast(&column, &DataType::Utf8View)?,
            };
            let texts = texts.as_string_view().clone();
            Box::new(move |out, name, level, row| {
                indent(out, level);
                let _ = writeln!(out, "<{name}>{}</{name}>", quick_xml::escape::escape(texts.value(row)));
            })
        }
    })
}

/// Returns a name if an element can have it.
fn element_name(name: &str) -> Result<String> {
    let begins = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    match begins && name.chars().all(is_part) {
        true => Ok(name.to_string()),
        false => Err(Error::invalid(format!("to_xml can't make an element of the name \"{name}\""))
            .hint("A name begins with a letter, and has letters, digits, '_', '-' and '.'.")
            .into()),
    }
}
