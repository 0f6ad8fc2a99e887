//! Functions of text that Spark and Flink have: `url_encode`, `soundex`, `mask`, `elt`, `is_digit` and others.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, StringViewArray, StringViewBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;
use millstream_delta::sql_type;

use super::Registry;
use super::scalar::Scalar;
use super::time_text::with_texts;
use crate::error::Error;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    each_text(registry, "url_encode", |columns| fallible(columns, |text| Ok(url_encode(text))));
    each_text(registry, "url_decode", |columns| fallible(columns, url_decode));
    each_text(registry, "soundex", |columns| fallible(columns, |text| Ok(soundex(text))));
    each_text(registry, "quote", |columns| {
        fallible(columns, |text| Ok(format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))))
    });
    predicate(registry, "is_alpha", |columns| tested(columns, |text| text.chars().all(char::is_alphabetic)));
    predicate(registry, "is_digit", |columns| tested(columns, |text| text.chars().all(|c| c.is_numeric())));
    predicate(registry, "is_decimal", |columns| tested(columns, |text| text.trim().parse::<f64>().is_ok()));
    predicate(registry, "luhn_check", |columns| tested(columns, luhn));
    registry.add(Scalar::any(
        "crc32",
        |types| match types {
            [of] if of.is_string() || of.is_binary() || of.is_null() => Ok(DataType::Int64),
            _ => Err(Error::invalid("crc32 takes one text or BYTEA").into()),
        },
        |columns| {
            let of = match columns[0].data_type().is_string() {
                true => cast(&columns[0], &DataType::LargeUtf8)?,
                false => columns[0].clone(),
            };
            let bytes = cast(&of, &DataType::LargeBinary)?;
            let all = bytes.as_binary::<i64>().iter();
            Ok(Arc::new(all.map(|bytes| bytes.map(crc32)).collect::<Int64Array>()))
        },
    ));
    registry.add(Scalar::exact(
        "inet_aton",
        vec![DataType::Utf8View],
        |_| Ok(DataType::Int64),
        |columns| {
            let all = columns[0].as_string_view().iter();
            Ok(Arc::new(all.map(|text| text.and_then(inet_aton)).collect::<Int64Array>()))
        },
    ));
    registry.add(Scalar::exact(
        "inet_ntoa",
        vec![DataType::Int64],
        |_| Ok(DataType::Utf8View),
        |columns| {
            let all = columns[0].as_primitive::<Int64Type>().iter();
            let address = |number: i64| {
                u32::try_from(number).ok().map(|bits| std::net::Ipv4Addr::from(bits).to_string())
            };
            Ok(Arc::new(all.map(|number| number.and_then(address)).collect::<StringViewArray>()))
        },
    ));
    let places = vec![DataType::Utf8View, DataType::Utf8View, DataType::Int64, DataType::Int64];
    registry.add(Scalar::exact("text_position", places, |_| Ok(DataType::Int32), text_position));
    registry.add(Scalar::any("elt", elt_type, elt));
    registry.add(Scalar::any("mask", mask_type, mask));
    registry.add(Scalar::any("printf", printf_type, printf));
    registry.add(Scalar::any("format_string", printf_type, printf));
}

fn each_text(registry: &mut Registry<'_>, name: &'static str, kernel: super::scalar::Kernel) {
    registry.add(Scalar::exact(name, vec![DataType::Utf8View], |_| Ok(DataType::Utf8View), kernel));
}

fn predicate(registry: &mut Registry<'_>, name: &'static str, kernel: super::scalar::Kernel) {
    registry.add(Scalar::exact(name, vec![DataType::Utf8View], |_| Ok(DataType::Boolean), kernel));
}

fn fallible(columns: &[ArrayRef], change: impl Fn(&str) -> Result<String, Error>) -> Result<ArrayRef> {
    let texts = columns[0].as_string_view().iter().map(|text| text.map(&change).transpose());
    Ok(Arc::new(texts.collect::<Result<StringViewArray, Error>>()?))
}

/// Tests each text. An empty text has no character that could pass.
fn tested(columns: &[ArrayRef], test: impl Fn(&str) -> bool) -> Result<ArrayRef> {
    let tests =
        columns[0].as_string_view().iter().map(|text| text.map(|text| !text.is_empty() && test(text)));
    Ok(Arc::new(tests.collect::<BooleanArray>()))
}

fn url_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            // Writing to a text doesn't fail.
            byte => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

pub(super) fn url_decode(text: &str) -> Result<String, Error> {
    let wrong = || Error::invalid(format!("'{text}' is no encoded URL: %XX was expected behind each %"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digit = |at: usize| {
                    after.get(at).and_then(|byte| char::from(*byte).to_digit(16)).ok_or_else(wrong)
                };
                bytes.push((digit(0)? * 16 + digit(1)?) as u8);
                rest = &after[2..];
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

fn soundex(text: &str) -> String {
    let code = |c: char| match c.to_ascii_uppercase() {
        'B' | 'F' | 'P' | 'V' => '1',
        'C' | 'G' | 'J' | 'K' | 'Q' | 'S' | 'X' | 'Z' => '2',
        'D' | 'T' => '3',
        'L' => '4',
        'M' | 'N' => '5',
        'R' => '6',
        'H' | 'W' => '7',
        _ => '0',
    };
    let Some(first) = text.chars().next().filter(char::is_ascii_alphabetic) else { return text.to_string() };
    let mut out = String::from(first.to_ascii_uppercase());
    let mut last = code(first);
    for c in text.chars().skip(1).filter(char::is_ascii_alphabetic) {
        match code(c) {
            // Letters of one code count once, also with H or W between them.
            '7' => {}
            found => {
                if found != '0' && found != last {
                    out.push(found);
                }
                last = found;
            }
        }
        if out.len() == 4 {
            break;
        }
    }
    format!("{out:0<4}")
}

/// Checks the last digit of a number by Luhn's formula.
fn luhn(text: &str) -> bool {
    let mut sum = 0;
    for (place, c) in text.chars().rev().enumerate() {
        let Some(digit) = c.to_digit(10) else { return false };
        let doubled = digit * 2;
        sum += match place % 2 {
            0 => digit,
            _ if doubled > 9 => doubled - 9,
            _ => doubled,
        };
    }
    sum % 10 == 0
}

fn crc32(bytes: &[u8]) -> i64 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    i64::from(!crc)
}

fn inet_aton(text: &str) -> Option<i64> {
    text.parse::<std::net::Ipv4Addr>().ok().map(|address| i64::from(u32::from(address)))
}

/// Returns the place of the n-th occurrence of a text within another from a place on; from the end for a place below 0.
fn text_position(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, parts) = (columns[0].as_string_view(), columns[1].as_string_view());
    let (starts, counts) = (columns[2].as_primitive::<Int64Type>(), columns[3].as_primitive::<Int64Type>());
    let rows = (0..texts.len()).map(|row| {
        if columns.iter().any(|column| column.is_null(row)) {
            return None;
        }
        let found = nth_place(texts.value(row), parts.value(row), starts.value(row), counts.value(row));
        Some(found.and_then(|place| i32::try_from(place).ok()).unwrap_or(0))
    });
    Ok(Arc::new(rows.collect::<Int32Array>()))
}

fn nth_place(text: &str, part: &str, start: i64, nth: i64) -> Option<usize> {
    let nth = usize::try_from(nth.checked_sub(1)?).ok()?;
    let starts: Vec<usize> = text.char_indices().map(|(byte, _)| byte).chain([text.len()]).collect();
    let is_there = |place: &usize| text[starts[*place]..].starts_with(part);
    let length = starts.len() - 1;
    let place = match start {
        0 => None,
        1.. => (usize::try_from(start).ok()? - 1..starts.len()).filter(is_there).nth(nth),
        _ => {
            let last = length.checked_sub(usize::try_from(start.unsigned_abs()).ok()?)?;
            (0..=last).rev().filter(is_there).nth(nth)
        }
    };
    place.map(|place| place + 1)
}

fn elt_type(types: &[DataType]) -> Result<DataType> {
    match types {
        [index, _, ..] if index.is_integer() || index.is_null() => Ok(DataType::Utf8View),
        _ => Err(Error::invalid("elt takes a number n and values, of which it returns the n-th").into()),
    }
}

fn text_columns(columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    columns.iter().map(|column| Ok(cast(&with_texts(column)?, &DataType::Utf8View)?)).collect()
}

fn elt(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let indices = cast(&columns[0], &DataType::Int64)?;
    let values = text_columns(&columns[1..])?;
    let mut out = StringViewBuilder::new();
    for (row, index) in indices.as_primitive::<Int64Type>().iter().enumerate() {
        let place =
            index.and_then(|index| usize::try_from(index).ok()).and_then(|index| index.checked_sub(1));
        let value = place.and_then(|place| values.get(place)).filter(|column| column.is_valid(row));
        out.append_option(value.map(|column| column.as_string_view().value(row)));
    }
    Ok(Arc::new(out.finish()))
}

fn mask_type(types: &[DataType]) -> Result<DataType> {
    match (1..=5).contains(&types.len()) && types.iter().all(|of| of.is_string() || of.is_null()) {
        true => Ok(DataType::Utf8View),
        false => {
            Err(Error::invalid("mask takes a text, and characters for upper, lower, digits and others")
                .into())
        }
    }
}

/// Replaces letters and digits. A replacement that is NULL keeps the characters.
fn mask(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let columns = text_columns(columns)?;
    let rows = (0..columns[0].len()).map(|row| {
        let by = |at: usize, default: Option<char>| match columns.get(at) {
            None => default,
            Some(column) if column.is_null(row) => None,
            Some(column) => column.as_string_view().value(row).chars().next(),
        };
        let (upper, lower, digit, other) =
            (by(1, Some('X')), by(2, Some('x')), by(3, Some('n')), by(4, None));
        let masked = |c: char| match c {
            c if c.is_uppercase() => upper.unwrap_or(c),
            c if c.is_lowercase() => lower.unwrap_or(c),
            c if c.is_ascii_digit() => digit.unwrap_or(c),
            c => other.unwrap_or(c),
        };
        let text = columns[0].as_string_view();
        text.is_valid(row).then(|| text.value(row).chars().map(masked).collect::<String>())
    });
    Ok(Arc::new(rows.collect::<StringViewArray>()))
}

fn printf_type(types: &[DataType]) -> Result<DataType> {
    match types.first() {
        Some(format) if format.is_string() || format.is_null() => Ok(DataType::Utf8View),
        Some(format) => {
            Err(Error::invalid(format!("printf takes a format first, not {}", sql_type(format))).into())
        }
        None => Err(Error::invalid("printf takes a format and values for it").into()),
    }
}

fn printf(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let columns = text_columns(columns)?;
    let rows = (0..columns[0].len()).map(|row| {
        let value = |at: usize| {
            let column = columns.get(at)?.as_string_view();
            Some(if column.is_valid(row) { column.value(row) } else { "null" })
        };
        match columns[0].is_valid(row) {
            true => filled(value(0).unwrap_or(""), |at| value(at + 1)).map(Some),
            false => Ok(None),
        }
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray, Error>>()?))
}

/// The widest field of a format.
const WIDTH_MAX: usize = 10_000;

/// Pads a value by the flags and the width of its field. Zeros come behind a sign.
fn padded(width: &str, letter: char, shown: &str) -> String {
    let digits = width.trim_start_matches(['-', '+', '0']);
    let flags = &width[..width.len() - digits.len()];
    let size = digits.parse().unwrap_or(0).min(WIDTH_MAX);
    let (sign, digits) = match shown.strip_prefix('-').filter(|_| letter != 's') {
        Some(digits) => ("-", digits),
        None if flags.contains('+') && matches!(letter, 'd' | 'f') => ("+", shown),
        None => ("", shown),
    };
    if flags.contains('-') {
        return format!("{:<size$}", format!("{sign}{digits}"));
    }
    let is_finite = digits.starts_with(|c: char| c.is_ascii_hexdigit());
    if flags.contains('0') && letter != 's' && is_finite {
        return format!("{sign}{digits:0>count$}", count = size.saturating_sub(sign.len()));
    }
    format!("{:>size$}", format!("{sign}{digits}"))
}

/// Fills in `%s`, `%d`, `%5.2f`, `%x` and `%%`.
fn filled<'a>(format: &str, value: impl Fn(usize) -> Option<&'a str>) -> Result<String, Error> {
    let wrong = |what: &str| Error::invalid(format!("printf('{format}', …): {what}"));
    let mut out = String::new();
    let mut rest = format;
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let spec = rest.len()
            - rest.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '-' | '.' | '+')).len();
        let (layout, after) = rest.split_at(spec);
        let Some(letter) = after.chars().next() else { return Err(wrong("it ends within a field")) };
        rest = &after[letter.len_utf8()..];
        match letter {
            '%' => {
                out.push('%');
                continue;
            }
            'n' => {
                out.push('\n');
                continue;
            }
            _ => {}
        }
        let Some(text) = value(next) else { return Err(wrong("there are fewer values than fields")) };
        next += 1;
        let (width, precision) = layout.split_once('.').unwrap_or((layout, ""));
        let number = || text.parse::<f64>().map_err(|_| wrong(&format!("'{text}' is no number")));
        let places: usize = precision.parse().unwrap_or(6).min(100);
        let shown = match letter {
            's' => text.to_string(),
            'd' => {
                text.parse::<i128>().map_err(|_| wrong(&format!("'{text}' is no whole number")))?.to_string()
            }
            'f' => format!("{:.places$}", number()?),
            'x' => format!(
                "{:x}",
                text.parse::<i64>().map_err(|_| wrong(&format!("'{text}' is no whole number")))?
            ),
            'X' => format!(
                "{:X}",
                text.parse::<i64>().map_err(|_| wrong(&format!("'{text}' is no whole number")))?
            ),
            _ => return Err(wrong(&format!("%{letter} is no field; %s, %d, %f, %x and %% are"))),
        };
        out.push_str(&padded(width, letter, &shown));
    }
    out.push_str(rest);
    Ok(out)
}
