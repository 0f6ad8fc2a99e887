//! Functions of text of Spark and Flink: `regexp_extract`, `parse_url`, `split` with a limit, `format_number`, Base32 and UTF-8.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int64Array, ListBuilder,
    StringViewArray, StringViewBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::error::Result;
use millstream_delta::sql_type;
use regex::Regex;

use super::Registry;
use super::other_texts::url_decode;
use super::scalar::{Kernel, Scalar};
use crate::error::Error;

/// The letters of Base32 (RFC 4648).
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let text = |_: &[DataType]| Ok(DataType::Utf8View);
    let texts = |_: &[DataType]| Ok(DataType::new_list(DataType::Utf8View, true));
    let two = || vec![DataType::Utf8View; 2];
    let with_number = || vec![DataType::Utf8View, DataType::Utf8View, DataType::Int64];
    registry.add(Scalar::exact("text_extract", with_number(), text, regexp_extract));
    registry.add(Scalar::exact("text_extract_all", with_number(), texts, regexp_extract_all));
    registry.add(Scalar::exact("text_split", with_number(), texts, split));
    registry.add(Scalar::exact("url_part", two(), text, |columns| url_parts(columns, false)));
    registry.add(Scalar::exact("url_part_or_null", two(), text, |columns| url_parts(columns, true)));
    let three = vec![DataType::Utf8View; 3];
    registry.add(Scalar::exact("url_parameter", three.clone(), text, |columns| url_parts(columns, false)));
    registry.add(Scalar::exact("url_parameter_or_null", three, text, |columns| url_parts(columns, true)));
    registry.add(Scalar::exact("try_url_decode", vec![DataType::Utf8View], text, |columns| {
        let texts = columns[0].as_string_view().iter();
        Ok(Arc::new(texts.map(|text| url_decode(text?).ok()).collect::<StringViewArray>()))
    }));
    let integer = |_: &[DataType]| Ok(DataType::Int64);
    registry.add(Scalar::exact("levenshtein_up_to", with_number(), integer, levenshtein));
    let similarity = |_: &[DataType]| Ok(DataType::Float64);
    registry.add(Scalar::exact("jaro_winkler_similarity", two(), similarity, |columns| {
        let pairs = columns[0].as_string_view().iter().zip(columns[1].as_string_view());
        let similar = pairs.map(|(one, other)| Some(strsim::jaro_winkler(one?, other?)));
        Ok(Arc::new(similar.collect::<Float64Array>()))
    }));
    let number = vec![DataType::Float64, DataType::Int64];
    registry.add(Scalar::exact("format_number", number, text, format_number));
    let bytes = |_: &[DataType]| Ok(DataType::Binary);
    registry.add(Scalar::exact("from_base32", vec![DataType::Utf8View], bytes, from_base32));
    registry.add(Scalar::any("to_base32", |types| of_bytes(types, DataType::Utf8View), to_base32));
    registry.add(Scalar::any(
        "is_valid_utf8",
        |types| of_bytes(types, DataType::Boolean),
        |columns| {
            let bytes = bytes_of(&columns[0])?;
            let valid = bytes.as_binary_view().iter().map(|bytes| Some(std::str::from_utf8(bytes?).is_ok()));
            Ok(Arc::new(valid.collect::<BooleanArray>()))
        },
    ));
    let utf8: [(&'static str, Kernel); 3] = [
        ("make_valid_utf8", |columns| {
            utf8(columns, |bytes| Ok(Some(String::from_utf8_lossy(bytes).into_owned())))
        }),
        ("try_validate_utf8", |columns| utf8(columns, |bytes| Ok(String::from_utf8(bytes.to_vec()).ok()))),
        ("validate_utf8", |columns| {
            utf8(columns, |bytes| match String::from_utf8(bytes.to_vec()) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(Error::invalid("validate_utf8 found bytes that are no UTF-8")
                    .hint("try_validate_utf8 gives NULL there, make_valid_utf8 replaces them.")),
            })
        }),
    ];
    for (name, kernel) in utf8 {
        registry.add(Scalar::any(name, |types| of_bytes(types, DataType::Utf8View), kernel));
    }
}

fn of_bytes(types: &[DataType], returned: DataType) -> Result<DataType> {
    match types {
        [of] if of.is_string() || of.is_binary() || of.is_null() => Ok(returned),
        [of] => Err(Error::invalid(format!("a text or BYTEA was expected, not {}", sql_type(of))).into()),
        _ => Err(Error::invalid("one argument was expected").into()),
    }
}

/// Returns a column of texts or bytes as bytes.
pub(super) fn bytes_of(column: &ArrayRef) -> Result<ArrayRef> {
    let texts =
        if column.data_type().is_string() { cast(column, &DataType::Utf8View)? } else { column.clone() };
    Ok(cast(&texts, &DataType::BinaryView)?)
}

type Read = fn(&[u8]) -> std::result::Result<Option<String>, Error>;

fn utf8(columns: &[ArrayRef], read: Read) -> Result<ArrayRef> {
    let bytes = bytes_of(&columns[0])?;
    let texts = bytes.as_binary_view().iter().map(|bytes| bytes.map_or(Ok(None), read));
    Ok(Arc::new(texts.collect::<std::result::Result<StringViewArray, Error>>()?))
}

/// The patterns of a batch, each parsed once.
#[derive(Default)]
pub(super) struct Patterns(HashMap<String, Regex>);

impl Patterns {
    /// Returns a pattern; an error that names the function if it can't be read.
    pub(super) fn get(&mut self, name: &str, pattern: &str) -> Result<Regex> {
        if let Some(known) = self.0.get(pattern) {
            return Ok(known.clone());
        }
        let parsed = Regex::new(pattern).map_err(|error| {
            Error::invalid(format!("'{pattern}' is no regular expression for {name}: {error}"))
                .hint("Lookaround and back references are not there.")
        })?;
        self.0.insert(pattern.to_string(), parsed.clone());
        Ok(parsed)
    }
}

/// Returns the number of a group; an error if the pattern has fewer.
fn group(name: &str, pattern: &Regex, number: i64) -> Result<usize> {
    let groups = pattern.captures_len() - 1;
    usize::try_from(number).ok().filter(|number| *number <= groups).ok_or_else(|| {
        Error::invalid(format!("{name} asks for group {number}, but '{pattern}' has {groups} groups"))
            .hint("Group 0 is the whole match.")
            .into()
    })
}

/// A text, a pattern and a number; none where one of them is NULL.
type PatternRow<'a> = Option<(&'a str, &'a Regex, i64)>;

/// Calls `each` with the text, the pattern and the number of each row, with none where one of them is NULL.
fn with_pattern(
    name: &str,
    columns: &[ArrayRef],
    each: &mut dyn FnMut(PatternRow<'_>) -> Result<()>,
) -> Result<()> {
    let mut known = Patterns::default();
    let (texts, patterns) = (columns[0].as_string_view(), columns[1].as_string_view());
    let numbers = columns[2].as_primitive::<Int64Type>();
    for row in 0..texts.len() {
        if columns.iter().any(|column| column.is_null(row)) {
            each(None)?;
            continue;
        }
        let pattern = known.get(name, patterns.value(row))?;
        each(Some((texts.value(row), &pattern, numbers.value(row))))?;
    }
    Ok(())
}

/// Returns a group of the first match; an empty text if there is none.
fn regexp_extract(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let mut out = StringViewBuilder::new();
    with_pattern("regexp_extract", columns, &mut |row| {
        let Some((text, pattern, number)) = row else {
            out.append_null();
            return Ok(());
        };
        let number = group("regexp_extract", pattern, number)?;
        let found = pattern.captures(text).and_then(|found| found.get(number));
        out.append_value(found.map_or("", |found| found.as_str()));
        Ok(())
    })?;
    Ok(Arc::new(out.finish()))
}

fn regexp_extract_all(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(StringViewBuilder::new());
    with_pattern("regexp_extract_all", columns, &mut |row| {
        if let Some((text, pattern, number)) = row {
            let number = group("regexp_extract_all", pattern, number)?;
            for found in pattern.captures_iter(text) {
                out.values().append_value(found.get(number).map_or("", |found| found.as_str()));
            }
        }
        out.append(row.is_some());
        Ok(())
    })?;
    Ok(Arc::new(out.finish()))
}

/// Splits a text at a pattern into at most so many parts; with a limit of 0 or less, into all.
fn split(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(StringViewBuilder::new());
    with_pattern("split", columns, &mut |row| {
        if let Some((text, pattern, limit)) = row {
            let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
            pattern.splitn(text, limit).for_each(|part| out.values().append_value(part));
        }
        out.append(row.is_some());
        Ok(())
    })?;
    Ok(Arc::new(out.finish()))
}

/// Returns a part of each URL, or the value of a parameter. If `tries`, a text that is no URL gives NULL.
fn url_parts(columns: &[ArrayRef], tries: bool) -> Result<ArrayRef> {
    let texts: Vec<_> = columns.iter().map(|column| column.as_string_view()).collect();
    let rows = (0..columns[0].len()).map(|row| {
        if columns.iter().any(|column| column.is_null(row)) {
            return Ok(None);
        }
        let (url, part) = (texts[0].value(row), texts[1].value(row));
        let Some(found) = Url::read(url) else {
            return match tries {
                true => Ok(None),
                false => Err(Error::invalid(format!("parse_url takes a URL, but '{url}' is none"))
                    .hint("try_parse_url gives NULL there.")),
            };
        };
        let key = texts.get(2).map(|keys| keys.value(row));
        Ok(match key {
            Some(key) if part == "QUERY" => found.parameter(key),
            Some(_) => None,
            None => found.part(part),
        }
        .map(str::to_string))
    });
    Ok(Arc::new(rows.collect::<std::result::Result<StringViewArray, Error>>()?))
}

/// The parts of a URL, `protocol://user@host:port/path?query#ref`.
struct Url<'a> {
    protocol: Option<&'a str>,
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
    reference: Option<&'a str>,
}

impl<'a> Url<'a> {
    fn read(text: &'a str) -> Option<Url<'a>> {
        let forbidden = |c: char| c.is_whitespace() || c.is_control() || "\"<>\\^`{|}".contains(c);
        if text.contains(forbidden) {
            return None;
        }
        let (text, reference) = match text.split_once('#') {
            Some((before, reference)) => (before, Some(reference)),
            None => (text, None),
        };
        let (text, query) = match text.split_once('?') {
            Some((before, query)) => (before, Some(query)),
            None => (text, None),
        };
        let is_scheme = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        };
        let (protocol, rest) = match text.split_once(':').filter(|(name, _)| is_scheme(name)) {
            Some((name, rest)) => (Some(name), rest),
            None => (None, text),
        };
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let end = rest.find('/').unwrap_or(rest.len());
                (Some(&rest[..end]), &rest[end..])
            }
            None => (None, rest),
        };
        Some(Url { protocol, authority, path, query, reference })
    }

    fn part(&self, part: &str) -> Option<&'a str> {
        let host = |authority: &'a str| authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        match part {
            "PROTOCOL" => self.protocol,
            "HOST" => {
                let host = host(self.authority?);
                let end =
                    if host.starts_with('[') { host.find(']').map(|at| at + 1) } else { host.find(':') };
                Some(&host[..end.unwrap_or(host.len())]).filter(|host| !host.is_empty())
            }
            "PATH" => Some(self.path),
            "QUERY" => self.query,
            "REF" => self.reference,
            "AUTHORITY" => self.authority,
            "USERINFO" => self.authority?.rsplit_once('@').map(|(user, _)| user),
            _ => None,
        }
    }

    fn parameter(&self, key: &str) -> Option<&'a str> {
        let mut parameters = self.query?.split('&');
        parameters
            .find_map(|parameter| parameter.split_once('=').filter(|(name, _)| *name == key))
            .map(|(_, value)| value)
    }
}

/// Returns the distance of two texts; -1 if it is greater than a bound.
fn levenshtein(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let pairs = columns[0].as_string_view().iter().zip(columns[1].as_string_view());
    let rows = pairs.zip(columns[2].as_primitive::<Int64Type>()).map(|((one, other), most)| {
        let distance = i64::try_from(strsim::levenshtein(one?, other?)).ok()?;
        most.map(|most| if distance > most { -1 } else { distance })
    });
    Ok(Arc::new(rows.collect::<Int64Array>()))
}

/// Returns a number with so many decimals and a comma between thousands. Half is rounded to the even digit.
fn format_number(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let numbers = columns[0].as_primitive::<Float64Type>().iter();
    let rows = numbers.zip(columns[1].as_primitive::<Int64Type>()).map(|(number, decimals)| {
        let decimals = usize::try_from(decimals?).ok().filter(|decimals| *decimals <= 300)?;
        let number = number?;
        if !number.is_finite() {
            return Some(if number.is_nan() {
                "NaN".into()
            } else if number > 0.0 {
                "∞".into()
            } else {
                "-∞".into()
            });
        }
        let written = format!("{:.decimals$}", number.abs());
        let (whole, fraction) = written.split_at(written.find('.').unwrap_or(written.len()));
        let mut out = String::with_capacity(written.len() * 2);
        if number.is_sign_negative() {
            out.push('-');
        }
        for (at, digit) in whole.chars().enumerate() {
            if at > 0 && (whole.len() - at) % 3 == 0 {
                out.push(',');
            }
            out.push(digit);
        }
        out.push_str(fraction);
        Some(out)
    });
    Ok(Arc::new(rows.collect::<StringViewArray>()))
}

fn to_base32(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let bytes = bytes_of(&columns[0])?;
    let encode = |bytes: &[u8]| {
        let mut out = String::with_capacity(bytes.len().div_ceil(5) * 8);
        for chunk in bytes.chunks(5) {
            let mut group = [0_u8; 8];
            group[3..3 + chunk.len()].copy_from_slice(chunk);
            let bits = u64::from_be_bytes(group);
            let letters = (chunk.len() * 8).div_ceil(5);
            for at in 0..8 {
                let letter = usize::try_from((bits >> (35 - 5 * at)) & 31).unwrap_or(0);
                out.push(if at < letters { char::from(BASE32[letter]) } else { '=' });
            }
        }
        out
    };
    let texts = bytes.as_binary_view().iter().map(|bytes| bytes.map(encode));
    Ok(Arc::new(texts.collect::<StringViewArray>()))
}

fn from_base32(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let decode = |text: &str| {
        let wrong = || {
            Error::invalid(format!(
                "from_base32 takes letters from A to Z and digits from 2 to 7, not '{text}'"
            ))
        };
        let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
        let (mut bits, mut count) = (0_u32, 0);
        for letter in text.trim_end_matches('=').bytes() {
            let letter = letter.to_ascii_uppercase();
            let value = BASE32.iter().position(|known| *known == letter).ok_or_else(wrong)?;
            bits = (bits << 5) | u32::try_from(value).unwrap_or(0);
            count += 5;
            if count >= 8 {
                count -= 8;
                bytes.push(((bits >> count) & 0xff) as u8);
                bits &= (1 << count) - 1;
            }
        }
        Ok::<Vec<u8>, Error>(bytes)
    };
    let all = columns[0].as_string_view().iter().map(|text| text.map(decode).transpose());
    let all = all.collect::<std::result::Result<Vec<_>, Error>>()?;
    Ok(Arc::new(BinaryArray::from_iter(all)))
}
