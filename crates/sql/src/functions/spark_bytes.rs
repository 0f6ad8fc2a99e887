//! Functions of bytes, texts and types of Spark: `hmac`, `to_binary`, `sentences`, `typeof`, and `reverse` of arrays.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, ListBuilder, StringViewArray, StringViewBuilder, UInt64Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::DataType;
use datafusion::error::Result;
use hmac::{Hmac, KeyInit, Mac};
use millstream_delta::sql_type;
use sha2::{Sha224, Sha256, Sha384, Sha512};

use super::Registry;
use super::lambdas::elements::Elements;
use super::lambdas::lists::list;
use super::maps::entry_fields;
use super::scalar::{Scalar, or_null};
use super::spark_texts::bytes_of;
use crate::error::Error;
use crate::literals::hex;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let hmac = |types: &[DataType]| match types {
        [key, message, name]
            if [key, message].into_iter().all(is_bytes) && (name.is_string() || name.is_null()) =>
        {
            Ok(DataType::Binary)
        }
        _ => Err(Error::invalid("hmac takes a key, a message and the name of a hash").into()),
    };
    registry.add(Scalar::any("hmac_of", hmac, hmac_of));
    let two = || vec![DataType::Utf8View; 2];
    let bytes = |_: &[DataType]| Ok(DataType::Binary);
    registry.add(Scalar::exact("bytes_of_text", two(), bytes, bytes_of_text));
    registry.add(Scalar::exact("bytes_of_text_or_null", two(), bytes, |columns| {
        or_null(columns, &DataType::Binary, bytes_of_text)
    }));
    let sentences = |types: &[DataType]| match types {
        [_] | [_, _] | [_, _, _] if types.iter().all(|of| of.is_string() || of.is_null()) => {
            Ok(DataType::new_list(DataType::new_list(DataType::Utf8View, true), true))
        }
        _ => Err(Error::invalid("sentences takes a text, a language and a country").into()),
    };
    registry.add(Scalar::any("sentences", sentences, sentences_of));
    let of_any = |types: &[DataType]| match types {
        [_] => Ok(DataType::Utf8View),
        _ => Err(Error::invalid("typeof takes one value").into()),
    };
    registry.add(Scalar::any("typeof", of_any, |columns| {
        let name = type_name(columns[0].data_type());
        Ok(Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(name, columns[0].len()))))
    }));
    registry.replace(
        "reverse",
        |function| function.name() == "reverse",
        |_| {
            let same = |types: &[DataType]| match types {
                [of @ DataType::List(_)] => Ok(of.clone()),
                [of] if of.is_binary() => Ok(DataType::Binary),
                [of] if of.is_string() || of.is_null() => Ok(DataType::Utf8View),
                [of] if !of.is_nested() => Ok(DataType::Utf8View),
                [of] => Err(Error::invalid(format!(
                    "reverse takes a text, bytes or an array, not {}",
                    sql_type(of)
                ))
                .into()),
                _ => Err(Error::invalid("reverse takes one argument").into()),
            };
            Scalar::any("reverse", same, reverse)
        },
    );
}

fn is_bytes(of: &DataType) -> bool {
    of.is_binary() || of.is_string() || of.is_null()
}

fn hmac_of(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (keys, messages) = (bytes_of(&columns[0])?, bytes_of(&columns[1])?);
    let names = cast(&columns[2], &DataType::Utf8View)?;
    let rows = keys.as_binary_view().iter().zip(messages.as_binary_view()).zip(names.as_string_view());
    let codes = rows.map(|((key, message), name)| match (key, message, name) {
        (Some(key), Some(message), Some(name)) => code(key, message, name).map(Some),
        _ => Ok(None),
    });
    let codes = codes.collect::<std::result::Result<Vec<_>, Error>>()?;
    Ok(Arc::new(codes.iter().map(Option::as_deref).collect::<BinaryArray>()))
}

/// Returns the code that authenticates a message (RFC 2104).
fn code(key: &[u8], message: &[u8], name: &str) -> std::result::Result<Vec<u8>, Error> {
    fn by<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        let mut mac = <M as KeyInit>::new_from_slice(key).map_err(|error| Error::bug(error.to_string()))?;
        mac.update(message);
        Ok(mac.finalize().into_bytes().to_vec())
    }
    match name.to_uppercase().as_str() {
        "SHA-224" | "SHA224" => by::<Hmac<Sha224>>(key, message),
        "SHA-256" | "SHA256" => by::<Hmac<Sha256>>(key, message),
        "SHA-384" | "SHA384" => by::<Hmac<Sha384>>(key, message),
        "SHA-512" | "SHA512" => by::<Hmac<Sha512>>(key, message),
        _ => Err(Error::invalid(format!("hmac has no hash '{name}'"))
            .hint("Hashes are SHA-224, SHA-256, SHA-384 and SHA-512.")),
    }
}

/// Reads texts in a form: hexadecimal digits, Base64, or UTF-8.
fn bytes_of_text(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let rows = columns[0].as_string_view().iter().zip(columns[1].as_string_view());
    let read = rows.map(|(text, form)| {
        let (Some(text), Some(form)) = (text, form) else { return Ok(None) };
        let wrong = || Error::invalid(format!("to_binary can't read '{text}' as {form}"));
        match form.to_lowercase().as_str() {
            "utf-8" | "utf8" => Ok(Some(text.as_bytes().to_vec())),
            "hex" => {
                // As in Spark, a digit alone is the last one of a byte.
                let digits = if text.len() % 2 == 1 { format!("0{text}") } else { text.to_string() };
                hex(digits.as_bytes()).map(Some).ok_or_else(wrong)
            }
            "base64" => from_base64(text).map(Some).ok_or_else(wrong),
            other => Err(Error::invalid(format!("to_binary has no form '{other}'"))
                .hint("Forms are 'hex', 'base64' and 'utf-8'.")),
        }
    });
    let read = read.collect::<std::result::Result<Vec<_>, Error>>()?;
    Ok(Arc::new(read.iter().map(Option::as_deref).collect::<BinaryArray>()))
}

/// Reads Base64 (RFC 4648), with blanks and without the padding, too.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let letters: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let end = letters.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    if letters.len() - end > 2 || end % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(end / 4 * 3 + 2);
    for group in letters[..end].chunks(4) {
        let mut bits = 0_u32;
        for letter in group {
            let value = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = (bits << 6) | u32::from(value);
        }
        let bytes = (bits << (6 * (4 - group.len()))).to_be_bytes();
        out.extend(&bytes[1..group.len()]);
    }
    Some(out)
}

/// Returns the words of each sentence. A sentence ends with `.`, `!` or `?` before a blank; a word has letters, digits,
/// and apostrophes or hyphens between them. The language and the country make no difference.
fn sentences_of(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(ListBuilder::new(StringViewBuilder::new()));
    let texts = cast(&columns[0], &DataType::Utf8View)?;
    for text in texts.as_string_view() {
        let Some(text) = text else {
            out.append_null();
            continue;
        };
        for sentence in sentences(text) {
            let is_word = |c: char| c.is_alphanumeric() || matches!(c, '\'' | '’' | '-' | '_');
            let words =
                sentence.split(|c| !is_word(c)).map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
            let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
            if !words.is_empty() {
                words.into_iter().for_each(|word| out.values().values().append_value(word));
                out.values().append(true);
            }
        }
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        if matches!(c, '.' | '!' | '?') && text[end..].starts_with(char::is_whitespace) {
            found.push(&text[start..end]);
            start = end;
        }
    }
    found.push(&text[start..]);
    found
}

/// Returns the name of a type in Spark.
fn type_name(of: &DataType) -> String {
    let field = |field: &arrow::datatypes::FieldRef| type_name(field.data_type());
    match of {
        DataType::Null => "void".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Int8 => "tinyint".into(),
        DataType::Int16 => "smallint".into(),
        DataType::Int32 => "int".into(),
        DataType::Int64 => "bigint".into(),
        DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(_, Some(_)) => "timestamp".into(),
        DataType::Timestamp(_, None) => "timestamp_ntz".into(),
        DataType::Time64(_) => "time(6)".into(),
        DataType::Interval(_) => "interval".into(),
        of if of.is_string() => "string".into(),
        of if of.is_binary() => "binary".into(),
        DataType::List(element) => format!("array<{}>", field(element)),
        DataType::Struct(fields) => {
            let mut out = String::from("struct<");
            for (at, part) in fields.iter().enumerate() {
                let comma = if at > 0 { "," } else { "" };
                // Writing to a text doesn't fail.
                let _ = write!(out, "{comma}{}:{}", part.name(), field(part));
            }
            out + ">"
        }
        DataType::Map(..) => match entry_fields(of) {
            Some((key, value)) => format!("map<{},{}>", field(key), field(value)),
            None => "map".into(),
        },
        other => sql_type(other).to_string().to_lowercase(),
    }
}

/// Reverses the elements of an array, the bytes of a BYTEA or the characters of a text.
fn reverse(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let column = &columns[0];
    match column.data_type() {
        of @ DataType::List(_) => {
            let elements = Elements::of(column)?;
            let rows = elements.starts().into_iter().zip(&elements.lengths);
            let places = rows.flat_map(|(start, length)| (start..start + length).rev());
            let places = UInt64Array::from_iter_values(places.filter_map(|at| u64::try_from(at).ok()));
            let reversed = take(&elements.columns[0], &places, None)?;
            list(of, elements.offsets(), reversed, elements.nulls)
        }
        of if of.is_binary() => {
            let bytes = cast(column, &DataType::BinaryView)?;
            let reversed = bytes.as_binary_view().iter();
            let reversed =
                reversed.map(|bytes| bytes.map(|bytes| bytes.iter().rev().copied().collect::<Vec<u8>>()));
            Ok(Arc::new(reversed.collect::<BinaryArray>()))
        }
        _ => {
            let texts = cast(column, &DataType::Utf8View)?;
            let reversed = texts
                .as_string_view()
                .iter()
                .map(|text| text.map(|text| text.chars().rev().collect::<String>()));
            Ok(Arc::new(reversed.collect::<StringViewArray>()))
        }
    }
}
