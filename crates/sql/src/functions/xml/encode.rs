//! Writes SQL's values as XML, as PostgreSQL does: `2020-01-02T03:04:05`, base64, `<element>1</element>`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type};

use super::nodes::escape;
use super::paths::decimal;
use crate::error::{Error, Result};
use crate::functions::marks::function::is_text;
use crate::functions::time_text;

/// The characters of a line of base64.
const LINE: usize = 72;

/// The form of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Texts {
    /// Text as the content of an element.
    Escaped,
    /// Text as it is: XML, or the value of an attribute.
    Plain,
}

/// Returns the values of a column. Elements of arrays have the form `items`.
pub(super) fn texts(column: &ArrayRef, form: Texts, items: Texts) -> Result<ArrayRef> {
    if column.data_type().is_null() {
        return Ok(new_null_array(&DataType::Utf8View, column.len()));
    }
    let write = writer(column, form, items)?;
    let nulls = column.logical_nulls();
    let rows = (0..column.len()).map(|row| {
        let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
        (!is_null).then(|| {
            let mut out = String::new();
            write(row, &mut out);
            out
        })
    });
    Ok(Arc::new(rows.collect::<StringViewArray>()))
}

type Writer = Box<dyn Fn(usize, &mut String)>;

fn writer(column: &ArrayRef, form: Texts, items: Texts) -> Result<Writer> {
    let texts = |column: &ArrayRef| -> Result<StringViewArray> {
        let texts = cast(column, &DataType::Utf8View).map_err(|error| Error::invalid(error.to_string()))?;
        Ok(texts.as_string_view().clone())
    };
    let written =
        |column: &ArrayRef| time_text::with_texts(column).map_err(|error| Error::from_datafusion(&error, ""));
    Ok(match column.data_type() {
        DataType::Dictionary(_, values) => {
            let values = cast(column, values).map_err(|error| Error::invalid(error.to_string()))?;
            return writer(&values, form, items);
        }
        found if is_text(found) => {
            let texts = texts(column)?;
            Box::new(move |row, out| match form {
                Texts::Escaped => escape(texts.value(row), out),
                Texts::Plain => out.push_str(texts.value(row)),
            })
        }
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>().clone();
            Box::new(move |row, out| out.push_str(&decimal(&format!("{:e}", values.value(row)), 15)))
        }
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>().clone();
            Box::new(move |row, out| out.push_str(&decimal(&format!("{:e}", values.value(row)), 6)))
        }
        DataType::Timestamp(_, zone) => {
            let (texts, is_zoned) = (texts(&written(column)?)?, zone.is_some());
            Box::new(move |row, out| {
                let text = texts.value(row).replacen(' ', "T", 1);
                out.push_str(&text);
                out.push_str(if is_zoned && text.ends_with("+00") { ":00" } else { "" });
            })
        }
        found if found.is_temporal() => {
            let texts = texts(&written(column)?)?;
            Box::new(move |row, out| out.push_str(texts.value(row)))
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            let bytes = cast(column, &DataType::Binary).map_err(|error| Error::invalid(error.to_string()))?;
            let bytes = bytes.as_binary::<i32>().clone();
            Box::new(move |row, out| base64(bytes.value(row), out))
        }
        DataType::List(_) => list_writer(column, items)?,
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            let list = DataType::List(item.clone());
            let list = cast(column, &list).map_err(|error| Error::invalid(error.to_string()))?;
            return writer(&list, form, items);
        }
        found if found.is_numeric() || *found == DataType::Boolean => {
            let texts = texts(column)?;
            Box::new(move |row, out| out.push_str(texts.value(row)))
        }
        other => {
            let found = millstream_delta::sql_type(other);
            return Err(Error::unsupported(format!("a value of type {found} in XML"))
                .hint("Cast it to TEXT, or write an element for each field."));
        }
    })
}

/// Returns the writer of arrays: an element for each value that isn't NULL, also for those of arrays within.
fn list_writer(column: &ArrayRef, items: Texts) -> Result<Writer> {
    let lists = column.as_list::<i32>().clone();
    let is_nested = matches!(lists.values().data_type(), DataType::List(_));
    let write = writer(lists.values(), items, items)?;
    let nulls = lists.values().logical_nulls();
    Ok(Box::new(move |row, out| {
        let offsets = lists.value_offsets();
        for place in offsets[row] as usize..offsets[row + 1] as usize {
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(place)) {
                continue;
            }
            if is_nested {
                write(place, out);
                continue;
            }
            out.push_str("<element>");
            write(place, out);
            out.push_str("</element>");
        }
    }))
}

/// Appends bytes as base64, in lines.
fn base64(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (at, group) in bytes.chunks(3).enumerate() {
        if at > 0 && (at * 4) % LINE == 0 {
            out.push_str("\r\n");
        }
        let bits = group.iter().fold(0_usize, |bits, byte| (bits << 8) | usize::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for digit in 0..4 {
            match digit <= group.len() {
                true => out.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) & 63])),
                false => out.push('='),
            }
        }
    }
}
