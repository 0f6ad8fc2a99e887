//! Writes values of any type as JSON, as PostgreSQL's `to_json` does.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion::error::Result;

use super::constructors;
use super::value::quote;
use crate::error::Error;
use crate::functions::marks::shape::Shape;
use crate::functions::time_text;
use crate::sqlstate;

/// Appends the JSON of a row.
pub(super) type Writer = Box<dyn Fn(usize, &mut String)>;

/// Returns the writer of a column. `shape` says which texts are JSON.
pub(super) fn writer(column: &ArrayRef, shape: &Shape) -> Result<Writer> {
    let inner = not_null_writer(column, shape)?;
    let Some(nulls) = column.logical_nulls() else { return Ok(inner) };
    Ok(Box::new(move |row, out| match nulls.is_null(row) {
        true => out.push_str("null"),
        false => inner(row, out),
    }))
}

fn not_null_writer(column: &ArrayRef, shape: &Shape) -> Result<Writer> {
    Ok(match column.data_type() {
        DataType::Null => Box::new(|_, out: &mut String| out.push_str("null")),
        DataType::Dictionary(_, values) => return writer(&cast(column, values)?, shape),
        DataType::RunEndEncoded(_, values) => return writer(&cast(column, values.data_type())?, shape),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = texts(column)?;
            match shape {
                Shape::Marked(_) => Box::new(move |row, out: &mut String| out.push_str(texts.value(row))),
                _ => Box::new(move |row, out: &mut String| quote(texts.value(row), out)),
            }
        }
        found if found.is_floating() => {
            let texts = texts(column)?;
            Box::new(move |row, out: &mut String| match texts.value(row) {
                "NaN" => out.push_str("\"NaN\""),
                "inf" | "Infinity" => out.push_str("\"Infinity\""),
                "-inf" | "-Infinity" => out.push_str("\"-Infinity\""),
                number => out.push_str(number),
            })
        }
        found if found.is_numeric() || *found == DataType::Boolean => {
            let texts = texts(column)?;
            Box::new(move |row, out: &mut String| out.push_str(texts.value(row)))
        }
        DataType::Timestamp(_, zone) => {
            let (texts, zoned) = (texts(&time_text::with_texts(column)?)?, zone.is_some());
            Box::new(move |row, out: &mut String| quote(&iso(texts.value(row), zoned), out))
        }
        found if time_text::is_written(found) || found.is_temporal() => {
            let texts = texts(&time_text::with_texts(column)?)?;
            Box::new(move |row, out: &mut String| quote(texts.value(row), out))
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            let bytes = cast(column, &DataType::Binary)?;
            Box::new(move |row, out: &mut String| {
                let hex = |byte: &u8| format!("{byte:02x}");
                let value = bytes.as_binary_opt::<i32>().map_or(&[][..], |bytes| bytes.value(row));
                out.push_str("\"\\\\x");
                out.extend(value.iter().map(hex));
                out.push('"');
            })
        }
        DataType::List(_) => list_writer(column, shape)?,
        DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => {
            return writer(&cast(column, &DataType::List(item.clone()))?, shape);
        }
        DataType::Struct(_) => row_writer(column, shape)?,
        DataType::Map(..) => map_writer(column)?,
        _ => {
            // Values of `json_get`, which are JSON of several types.
            let field = Arc::new(Field::new("value", column.data_type().clone(), true));
            let texts = constructors::values(column, &field)?;
            Box::new(move |row, out: &mut String| out.push_str(texts.value(row)))
        }
    })
}

fn texts(column: &ArrayRef) -> Result<StringViewArray> {
    Ok(cast(column, &DataType::Utf8View)?.as_string_view().clone())
}

/// Returns a time in the form of ISO 8601.
fn iso(text: &str, zoned: bool) -> String {
    let text = text.replacen(' ', "T", 1);
    // JSON has the minutes of each offset: `+02:00`.
    match zoned && matches!(text.as_bytes(), [.., b'+' | b'-', _, _]) {
        true => format!("{text}:00"),
        false => text,
    }
}

fn list_writer(column: &ArrayRef, shape: &Shape) -> Result<Writer> {
    let lists = column.as_list::<i32>().clone();
    let item = match shape {
        Shape::List(item) => item.as_ref(),
        _ => &Shape::Plain,
    };
    let write = writer(lists.values(), item)?;
    Ok(Box::new(move |row, out| {
        let offsets = lists.value_offsets();
        let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        out.push('[');
        for place in start..end {
            out.push_str(if place > start { "," } else { "" });
            write(place, out);
        }
        out.push(']');
    }))
}

/// Returns the writer of arrays that an aggregate collected: `[1, 2, null]`.
pub(super) fn elements_writer(column: &ArrayRef, shape: &Shape) -> Result<Writer> {
    let Some(lists) = column.as_list_opt::<i32>().cloned() else { return writer(column, &Shape::Plain) };
    let item = match shape {
        Shape::List(item) => item.as_ref(),
        _ => &Shape::Plain,
    };
    // As in PostgreSQL, arrays and rows are on lines of their own.
    let comma = if lists.values().data_type().is_nested() { ", \n " } else { ", " };
    let nested = lists.values().data_type().is_nested().then(|| lists.values().logical_nulls()).flatten();
    let write = writer(lists.values(), item)?;
    Ok(Box::new(move |row, out| {
        let offsets = lists.value_offsets();
        let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        out.push('[');
        for place in start..end {
            let is_null = nested.as_ref().is_some_and(|nulls| nulls.is_null(place));
            out.push_str(if place == start {
                ""
            } else if is_null {
                ", "
            } else {
                comma
            });
            write(place, out);
        }
        out.push(']');
    }))
}

/// Returns the writer of members that an aggregate collected: `{ "a" : 1, "b" : null }`.
pub(super) fn members_writer(column: &ArrayRef, shape: &Shape, name: &str) -> Result<Writer> {
    let Some(lists) = column.as_list_opt::<i32>().cloned() else { return writer(column, &Shape::Plain) };
    let Some(members) = lists.values().as_struct_opt().filter(|members| members.num_columns() == 2) else {
        return Err(Error::bug("an array of names and values was expected").into());
    };
    let plain = Shape::Plain;
    let value = match shape {
        Shape::List(item) => match item.as_ref() {
            Shape::Row(parts) => parts.get(1).unwrap_or(&plain),
            _ => &plain,
        },
        _ => &plain,
    };
    let keys = texts(&time_text::with_texts(members.column(0))?)?;
    for row in (0..lists.len()).filter(|row| lists.is_valid(*row)) {
        let offsets = lists.value_offsets();
        if (offsets[row]..offsets[row + 1]).any(|place| keys.is_null(place as usize)) {
            let name = name.trim_end_matches("_of");
            return Err(Error::invalid(format!("{name}: field name must not be null"))
                .code(sqlstate::NULL_VALUE_NOT_ALLOWED)
                .into());
        }
    }
    let write = writer(members.column(1), value)?;
    Ok(object_writer(lists.offsets().clone(), keys, write, ["{ ", " : ", ", ", " }"]))
}

/// Returns the writer of objects whose members lie between two offsets, with the texts that open an object, follow a name,
/// follow a member and close the object.
fn object_writer(
    offsets: OffsetBuffer<i32>,
    keys: StringViewArray,
    write: Writer,
    [open, colon, comma, close]: [&'static str; 4],
) -> Writer {
    Box::new(move |row, out| {
        let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        out.push_str(open);
        for place in start..end {
            out.push_str(if place > start { comma } else { "" });
            quote(keys.value(place), out);
            out.push_str(colon);
            write(place, out);
        }
        out.push_str(close);
    })
}

fn row_writer(column: &ArrayRef, shape: &Shape) -> Result<Writer> {
    let Some(rows) = column.as_struct_opt() else {
        return Err(Error::bug("a struct was expected").into());
    };
    let plain = Shape::Plain;
    // The fields of ROW(…) have no names; PostgreSQL calls them f1, f2 and so on.
    let is_row = rows.fields().iter().enumerate().all(|(at, field)| *field.name() == format!("c{at}"));
    let mut fields = Vec::with_capacity(rows.num_columns());
    for (at, (field, column)) in rows.fields().iter().zip(rows.columns()).enumerate() {
        let shape = match shape {
            Shape::Row(parts) => parts.get(at).unwrap_or(&plain),
            _ => &plain,
        };
        let mut name = String::from(if at > 0 { "," } else { "" });
        match is_row {
            true => quote(&format!("f{}", at + 1), &mut name),
            false => quote(field.name(), &mut name),
        }
        name.push(':');
        fields.push((name, writer(column, shape)?));
    }
    Ok(Box::new(move |row, out| {
        out.push('{');
        for (name, write) in &fields {
            out.push_str(name);
            write(row, out);
        }
        out.push('}');
    }))
}

fn map_writer(column: &ArrayRef) -> Result<Writer> {
    let Some(maps) = column.as_map_opt().cloned() else {
        return Err(Error::bug("a map was expected").into());
    };
    let keys = match maps.keys().as_struct_opt() {
        Some(keys) => struct_texts(keys)?,
        None => texts(&time_text::with_texts(maps.keys())?)?,
    };
    let write = writer(maps.values(), &Shape::Plain)?;
    Ok(object_writer(maps.offsets().clone(), keys, write, ["{", ":", ",", "}"]))
}

/// Returns structs that are keys as texts, as Spark does: `[1,a]`.
fn struct_texts(structs: &StructArray) -> Result<StringViewArray> {
    let parts = structs.columns().iter().map(|part| texts(&time_text::with_texts(part)?));
    let parts = parts.collect::<Result<Vec<_>>>()?;
    let text = |row: usize| {
        let parts = parts.iter().map(|part| if part.is_valid(row) { part.value(row) } else { "null" });
        format!("[{}]", parts.collect::<Vec<_>>().join(","))
    };
    Ok(StringViewArray::from_iter_values((0..structs.len()).map(text)))
}
