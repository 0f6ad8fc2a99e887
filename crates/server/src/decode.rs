//! Decodes parameter values from PostgreSQL's text and binary formats.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal256Array, Float32Array, Float64Array,
    Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, cast_with_options, concat};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, i256};
use bytes::{Buf, Bytes};
use millstream_engine::{tsquery_of_binary, tsvector_of_binary};

use crate::binary::{EPOCH_DAYS, EPOCH_MICROSECONDS};
use crate::bits;
use crate::geometry;
use crate::message::Format;
use crate::network;
use crate::oid::Kind;
use crate::ranges;

/// Maximum digits of a decimal.
const DIGITS_MAX: usize = 76;

/// The reason why a value is invalid for its type: the value found and the value expected.
pub(crate) type Wrong = String;

/// Returns the value of one parameter as an array of length one.
pub(crate) fn value(kind: &Kind, format: Format, bytes: Option<Bytes>) -> Result<ArrayRef, Wrong> {
    let Some(bytes) = bytes else { return Ok(new_null_array(&kind.arrow(), 1)) };
    match format {
        Format::Text => {
            let text =
                std::str::from_utf8(&bytes).map_err(|_| "text that is not UTF-8 was found".to_string())?;
            from_text(kind, text)
        }
        Format::Binary => from_binary(kind, bytes),
    }
}

/// Parses a value from its text.
pub(crate) fn from_text(kind: &Kind, text: &str) -> Result<ArrayRef, Wrong> {
    let wrong = || format!("invalid input for type {}: \"{text}\"", name(kind));
    Ok(match kind {
        Kind::Text
        | Kind::Json
        | Kind::Jsonb
        | Kind::Xml
        | Kind::Uuid
        | Kind::Inet
        | Kind::Cidr
        | Kind::Macaddr
        | Kind::Macaddr8
        | Kind::Range(_)
        | Kind::Multirange(_)
        | Kind::Tsvector
        | Kind::Tsquery
        | Kind::Geometric(_)
        | Kind::Bit(_)
        | Kind::Varbit(_) => string(text),
        Kind::Bool => Arc::new(BooleanArray::from(vec![boolean(text.trim()).ok_or_else(wrong)?])),
        Kind::Bytea => Arc::new(BinaryArray::from(vec![bytea(text).ok_or_else(wrong)?.as_slice()])),
        Kind::Numeric(_) => numeric(text.trim()).ok_or_else(wrong)?,
        Kind::Array(item) => list(item, elements(text).ok_or_else(wrong)?, &wrong)?,
        kind => {
            let spelled = match kind {
                Kind::Interval => units(text).ok_or_else(wrong)?,
                // Like PostgreSQL, ignore the zone of a type without one, and the time of a date.
                Kind::Date => text.split_whitespace().next().unwrap_or_default().to_string(),
                Kind::Time | Kind::Timestamp => without_zone(text.trim()).to_string(),
                _ => text.trim().to_string(),
            };
            let text: ArrayRef = Arc::new(StringArray::from(vec![spelled]));
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(&text, &kind.arrow(), &options).map_err(|_| wrong())?
        }
    })
}

/// Returns the name of a type, for messages.
pub(crate) fn name(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "boolean",
        Kind::Int2 => "smallint",
        Kind::Int4 => "integer",
        Kind::Int8 => "bigint",
        Kind::Oid => "oid",
        Kind::Float4 => "real",
        Kind::Float8 => "double precision",
        Kind::Numeric(_) => "numeric",
        Kind::Text => "text",
        Kind::Bytea => "bytea",
        Kind::Date => "date",
        Kind::Time => "time",
        Kind::Timestamp => "timestamp",
        Kind::Timestamptz => "timestamp with time zone",
        Kind::Interval => "interval",
        Kind::Uuid => "uuid",
        Kind::Inet => "inet",
        Kind::Cidr => "cidr",
        Kind::Macaddr => "macaddr",
        Kind::Macaddr8 => "macaddr8",
        Kind::Range(subtype) => subtype.range_name(),
        Kind::Multirange(subtype) => subtype.multirange_name(),
        Kind::Tsvector => "tsvector",
        Kind::Tsquery => "tsquery",
        Kind::Geometric(found) => found.name(),
        Kind::Json => "json",
        Kind::Jsonb => "jsonb",
        Kind::Bit(_) => "bit",
        Kind::Varbit(_) => "bit varying",
        Kind::Xml => "xml",
        Kind::Array(item) => return format!("{}[]", name(item)),
    }
    .to_string()
}

/// Parses the spellings that PostgreSQL accepts: prefixes of true, false, yes, no, on, off, and 1 and 0.
fn boolean(text: &str) -> Option<bool> {
    let text = text.to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if begins("true", 1) || begins("yes", 1) || begins("on", 2) || text == "1" {
        Some(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || text == "0" {
        Some(false)
    } else {
        None
    }
}

/// Parses `\x0aff`, or text with a backslash before three octal digits or another backslash.
fn bytea(text: &str) -> Option<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("\\x") {
        let digits: Vec<u32> = digits.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
        let (pairs, []) = digits.as_chunks::<2>() else { return None };
        return Some(pairs.iter().map(|[high, low]| (high << 4 | low) as u8).collect());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
        } else if let Some(after) = rest.strip_prefix(b"\\") {
            bytes.push(b'\\');
            rest = after;
        } else {
            let (digits, after) = rest.split_first_chunk::<3>()?;
            let octal = std::str::from_utf8(digits).ok()?;
            bytes.push(u8::from_str_radix(octal, 8).ok()?);
            rest = after;
        }
    }
    Some(bytes)
}

/// Returns a time without the zone at its end: `Z`, `+02`, `-03:30`.
fn without_zone(text: &str) -> &str {
    let text = text.trim_end_matches(['Z', 'z']);
    let Some(at) = text.rfind(['+', '-']) else { return text };
    let (before, zone) = text.split_at(at);
    let is_zone = zone[1..].bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    // Only a time of day can have a zone.
    if is_zone && before.contains(':') { before.trim_end() } else { text }
}

/// Rewrites the time of day in an interval, `-04:05:06.5`, as numbers of units.
fn units(text: &str) -> Option<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let Some((hours, rest)) = word.split_once(':') else {
            words.push(word.to_string());
            continue;
        };
        let (sign, hours) = match hours.strip_prefix('-') {
            Some(hours) => ("-", hours),
            None => ("", hours.strip_prefix('+').unwrap_or(hours)),
        };
        let (minutes, seconds) = rest.split_once(':').unwrap_or((rest, "0"));
        let is_number =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if ![hours, minutes, seconds].into_iter().all(is_number) {
            return None;
        }
        words.push(format!("{sign}{hours} hours {sign}{minutes} minutes {sign}{seconds} seconds"));
    }
    Some(words.join(" "))
}

/// Parses a decimal with as many digits after its point as are written.
fn numeric(text: &str) -> Option<ArrayRef> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    decimal(negative, digits, scale)
}

/// Returns the number with these digits, `scale` of them after the point.
fn decimal(negative: bool, mut digits: String, mut scale: i32) -> Option<ArrayRef> {
    if scale < 0 {
        let zeros = usize::try_from(-scale).ok().filter(|zeros| *zeros <= DIGITS_MAX)?;
        digits.push_str(&"0".repeat(zeros));
        scale = 0;
    }
    let significant = digits.trim_start_matches('0');
    let precision = significant.len().max(scale as usize).max(1);
    if precision > DIGITS_MAX {
        return None;
    }
    let mut value = i256::ZERO;
    for digit in significant.bytes() {
        value = value.wrapping_mul(i256::from_i128(10)).wrapping_add(i256::from_i128((digit - b'0').into()));
    }
    let value = if negative { value.wrapping_neg() } else { value };
    let array =
        Decimal256Array::from(vec![value]).with_precision_and_scale(precision as u8, scale as i8).ok()?;
    let array: ArrayRef = Arc::new(array);
    match precision <= 38 {
        true => arrow::compute::cast(&array, &DataType::Decimal128(precision as u8, scale as i8)).ok(),
        false => Some(array),
    }
}

/// Returns the items of `{1,NULL,"a b"}`, as text.
fn elements(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut elements = Vec::new();
    let mut rest = inner.chars().peekable();
    if inner.trim().is_empty() {
        return Some(elements);
    }
    loop {
        while rest.next_if(|next| next.is_whitespace()).is_some() {}
        let (mut element, quoted) = (String::new(), rest.next_if_eq(&'"').is_some());
        if !quoted && rest.peek() == Some(&',') {
            return None;
        }
        loop {
            match rest.next() {
                Some('"') if quoted => break,
                Some('\\') => element.push(rest.next()?),
                Some('{' | '}' | '"') if !quoted => return None,
                Some(next) => element.push(next),
                None if quoted => return None,
                None => break,
            }
            if !quoted && rest.peek().is_none_or(|next| *next == ',') {
                break;
            }
        }
        let plain = !quoted;
        let element = if plain { element.trim_end().to_string() } else { element };
        if plain && element.is_empty() {
            return None;
        }
        elements.push((!(plain && element.eq_ignore_ascii_case("null"))).then_some(element));
        while rest.next_if(|next| next.is_whitespace()).is_some() {}
        match rest.next() {
            None => return Some(elements),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

fn list(item: &Kind, elements: Vec<Option<String>>, wrong: &dyn Fn() -> Wrong) -> Result<ArrayRef, Wrong> {
    let values = elements.into_iter().map(|element| match element {
        Some(text) => from_text(item, &text).map(Some),
        None => Ok(None),
    });
    gather(item, values.collect::<Result<_, _>>()?).ok_or_else(wrong)
}

/// Combines single values to one list.
fn gather(item: &Kind, values: Vec<Option<ArrayRef>>) -> Option<ArrayRef> {
    // Each decimal has a scale of its own; all get the largest one.
    let data_type = match item {
        Kind::Numeric(_) => {
            let scale = values.iter().flatten().filter_map(|value| match value.data_type() {
                DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => Some(*scale),
                _ => None,
            });
            DataType::Decimal256(76, scale.max().unwrap_or(0))
        }
        other => other.arrow(),
    };
    let cast = |value: Option<ArrayRef>| match value {
        Some(value) => arrow::compute::cast(&value, &data_type).ok(),
        None => Some(new_null_array(&data_type, 1)),
    };
    let values: Vec<ArrayRef> = values.into_iter().map(cast).collect::<Option<_>>()?;
    let values = match values.is_empty() {
        true => new_null_array(&data_type, 0),
        false => concat(&values.iter().map(AsRef::as_ref).collect::<Vec<_>>()).ok()?,
    };
    let field = Arc::new(Field::new_list_field(data_type, true));
    let offsets = OffsetBuffer::from_lengths([values.len()]);
    Some(Arc::new(ListArray::try_new(field, offsets, values, None).ok()?))
}

fn string(text: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![text]))
}

pub(crate) fn from_binary(kind: &Kind, mut bytes: Bytes) -> Result<ArrayRef, Wrong> {
    let length = bytes.len();
    let wrong = || format!("invalid binary value of {length} bytes for type {}", name(kind));
    let value: Option<ArrayRef> = match kind {
        Kind::Bool => fixed(&bytes).map(|[byte]: [u8; 1]| Arc::new(BooleanArray::from(vec![byte != 0])) as _),
        // Whole numbers may have another width than the parameter.
        Kind::Int2 | Kind::Int4 | Kind::Int8 => integer(kind, &bytes),
        Kind::Oid => fixed(&bytes).map(|raw| Arc::new(UInt32Array::from(vec![u32::from_be_bytes(raw)])) as _),
        Kind::Float4 => {
            fixed(&bytes).map(|raw| Arc::new(Float32Array::from(vec![f32::from_be_bytes(raw)])) as _)
        }
        Kind::Float8 => {
            fixed(&bytes).map(|raw| Arc::new(Float64Array::from(vec![f64::from_be_bytes(raw)])) as _)
        }
        Kind::Numeric(_) => groups(&mut bytes),
        Kind::Bytea => Some(Arc::new(BinaryArray::from(vec![bytes.as_ref()]))),
        Kind::Text | Kind::Json | Kind::Jsonb | Kind::Xml => {
            // The binary form of jsonb begins with its version.
            let text = match kind {
                Kind::Json | Kind::Jsonb => bytes.strip_prefix(&[1]).unwrap_or(&bytes),
                _ => &bytes,
            };
            std::str::from_utf8(text).ok().map(string)
        }
        Kind::Uuid => fixed(&bytes).map(|raw: [u8; 16]| string(&uuid(raw))),
        Kind::Inet | Kind::Cidr | Kind::Macaddr | Kind::Macaddr8 => {
            network::read(kind, &bytes).as_deref().map(string)
        }
        Kind::Range(_) | Kind::Multirange(_) => ranges::read(kind, bytes).as_deref().map(string),
        Kind::Tsvector => tsvector_of_binary(&bytes).as_deref().map(string),
        Kind::Tsquery => tsquery_of_binary(&bytes).as_deref().map(string),
        Kind::Geometric(found) => geometry::read(*found, &bytes).as_deref().map(string),
        Kind::Bit(_) | Kind::Varbit(_) => bits::read(&bytes).as_deref().map(string),
        Kind::Date => fixed(&bytes)
            .and_then(|raw| i32::from_be_bytes(raw).checked_add(EPOCH_DAYS))
            .map(|days| Arc::new(Date32Array::from(vec![days])) as _),
        Kind::Time => fixed(&bytes)
            .map(i64::from_be_bytes)
            .filter(|time| (0..86_400_000_000).contains(time))
            .map(|time| Arc::new(Time64MicrosecondArray::from(vec![time])) as _),
        Kind::Timestamp | Kind::Timestamptz => fixed(&bytes)
            .and_then(|raw| i64::from_be_bytes(raw).checked_add(EPOCH_MICROSECONDS))
            .map(|time| {
                let array = TimestampMicrosecondArray::from(vec![time]);
                Arc::new(if *kind == Kind::Timestamptz { array.with_timezone("+00:00") } else { array }) as _
            }),
        Kind::Interval => interval(&mut bytes),
        Kind::Array(item) => array(item, &mut bytes),
    };
    value.ok_or_else(wrong)
}

fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn integer(kind: &Kind, bytes: &[u8]) -> Option<ArrayRef> {
    let value = match bytes.len() {
        2 => i16::from_be_bytes(fixed(bytes)?).into(),
        4 => i32::from_be_bytes(fixed(bytes)?).into(),
        _ => i64::from_be_bytes(fixed(bytes)?),
    };
    Some(match kind {
        Kind::Int2 => Arc::new(Int16Array::from(vec![i16::try_from(value).ok()?])),
        Kind::Int4 => Arc::new(Int32Array::from(vec![i32::try_from(value).ok()?])),
        _ => Arc::new(Int64Array::from(vec![value])),
    })
}

fn uuid(raw: [u8; 16]) -> String {
    let digits = raw.map(|byte| format!("{byte:02x}")).concat();
    let part = |range: std::ops::Range<usize>| &digits[range];
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}

fn interval(bytes: &mut Bytes) -> Option<ArrayRef> {
    if bytes.len() != 16 {
        return None;
    }
    let (microseconds, days, months) = (bytes.get_i64(), bytes.get_i32(), bytes.get_i32());
    let value = IntervalMonthDayNano::new(months, days, microseconds.checked_mul(1_000)?);
    Some(Arc::new(IntervalMonthDayNanoArray::from(vec![value])))
}

/// Parses a number in groups of four decimal digits.
fn groups(bytes: &mut Bytes) -> Option<ArrayRef> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let field = |place: usize| i16::from_be_bytes([head[place], head[place + 1]]);
    let (count, weight, sign, scale) = (field(0), i32::from(field(2)), field(4), i32::from(field(6)));
    let (found, []) = rest.as_chunks::<2>() else { return None };
    // NaN and the infinities have signs of their own; a decimal can't hold them.
    if found.len() != usize::try_from(count).ok()? || ![0, 0x4000].contains(&sign) || scale < 0 {
        return None;
    }
    let mut digits = String::new();
    for group in found {
        let group = u16::from_be_bytes(*group);
        if group > 9999 {
            return None;
        }
        digits.push_str(&format!("{group:04}"));
    }
    // Number of given digits after the point; PostgreSQL omits zeros at the end.
    let mut after = digits.len() as i32 - 4 * (weight + 1);
    if after < scale {
        let zeros = usize::try_from(scale - after).ok().filter(|zeros| *zeros <= 4 * DIGITS_MAX)?;
        digits.push_str(&"0".repeat(zeros));
        after = scale;
    }
    while after > scale && digits.ends_with('0') {
        digits.pop();
        after -= 1;
    }
    decimal(sign != 0, if digits.is_empty() { "0".into() } else { digits }, after)
}

fn array(item: &Kind, bytes: &mut Bytes) -> Option<ArrayRef> {
    if bytes.len() < 12 {
        return None;
    }
    let (dimensions, _, oid) = (bytes.get_i32(), bytes.get_i32(), bytes.get_u32());
    let item = Kind::from_oid(oid).filter(|found| found.oid() == item.oid())?;
    if dimensions == 0 {
        return gather(&item, Vec::new());
    }
    if dimensions != 1 || bytes.len() < 8 {
        return None;
    }
    let (count, _) = (usize::try_from(bytes.get_i32()).ok()?, bytes.get_i32());
    if count > bytes.len() / 4 {
        return None;
    }
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        if bytes.len() < 4 {
            return None;
        }
        let length = bytes.get_i32();
        values.push(match usize::try_from(length) {
            Err(_) => None,
            Ok(length) if length <= bytes.len() => Some(from_binary(&item, bytes.split_to(length)).ok()?),
            Ok(_) => return None,
        });
    }
    gather(&item, values)
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;
    use bytes::BytesMut;

    use super::*;
    use crate::{binary, text};

    /// Parses a value, writes it in binary, reads that, and writes it as text.
    fn round(kind: Kind, given: &str, expect: &str) {
        let first = from_text(&kind, given).unwrap();
        let mut bytes = BytesMut::new();
        let canonical = kind.canonical(&first).unwrap();
        binary::writer(&kind, &canonical).unwrap()(0, &mut bytes);
        let again = value(&kind, Format::Binary, Some(bytes.freeze())).unwrap();
        for array in [first, again] {
            let mut out = BytesMut::new();
            let canonical = kind.canonical(&array).unwrap();
            text::writer(&kind, &canonical).unwrap()(0, &mut out);
            assert_eq!(std::str::from_utf8(&out).unwrap(), expect, "{kind:?} {given}");
        }
    }

    #[test]
    fn values_come_back() {
        round(Kind::Bool, "yes", "t");
        round(Kind::Int2, " -7 ", "-7");
        round(Kind::Int8, "9223372036854775807", "9223372036854775807");
        round(Kind::Float8, "1e300", "1e+300");
        for (given, expect) in [
            ("0", "0"),
            ("-0.05", "-0.05"),
            ("123456789.123456789", "123456789.123456789"),
            ("10000.00", "10000.00"),
            ("1e5", "100000"),
            ("1.5e-3", "0.0015"),
            ("0.00001", "0.00001"),
        ] {
            round(Kind::Numeric(None), given, expect);
        }
        let wide = "1".repeat(60);
        round(Kind::Numeric(None), &wide, &wide);
        round(Kind::Text, "ein Wort", "ein Wort");
        round(Kind::Bytea, "\\x00ff", "\\x00ff");
        round(Kind::Bytea, "a\\\\\\001", "\\x615c01");
        round(Kind::Date, "2024-02-29", "2024-02-29");
        round(Kind::Time, "01:02:03.5", "01:02:03.5");
        round(Kind::Timestamp, "2024-02-29 12:00:00.25", "2024-02-29 12:00:00.25");
        round(Kind::Timestamp, "2024-02-29 12:00:00+02", "2024-02-29 12:00:00");
        round(Kind::Date, "2024-02-29 +00", "2024-02-29");
        round(Kind::Timestamptz, "2024-02-29 12:00:00+02", "2024-02-29 10:00:00+00");
        round(Kind::Uuid, "550e8400-e29b-41d4-a716-446655440000", "550e8400-e29b-41d4-a716-446655440000");
        round(Kind::Interval, "1 day 02:00:00", "1 day 02:00:00");
        let array = |kind| Kind::Array(Box::new(kind));
        round(array(Kind::Int4), "{1, NULL ,3}", "{1,NULL,3}");
        round(array(Kind::Text), "{\"a b\",\"null\",NULL,\"\\\"\"}", "{\"a b\",\"null\",NULL,\"\\\"\"}");
        round(array(Kind::Int4), "{}", "{}");
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (kind, text) in [
            (Kind::Int4, "x"),
            (Kind::Int4, "3000000000"),
            (Kind::Bool, "maybe"),
            (Kind::Numeric(None), "1.2.3"),
            (Kind::Numeric(None), "1e400"),
            (Kind::Bytea, "\\x0"),
            (Kind::Date, "2024-02-30"),
            (Kind::Array(Box::new(Kind::Int4)), "{1,2"),
            (Kind::Array(Box::new(Kind::Int4)), "{1,{2}}"),
            (Kind::Array(Box::new(Kind::Int4)), "{1,,2}"),
        ] {
            let error = from_text(&kind, text).unwrap_err();
            assert_eq!(error, format!("invalid input for type {}: \"{text}\"", name(&kind)));
        }
        let kinds = [Kind::Int4, Kind::Numeric(None), Kind::Interval, Kind::Array(Box::new(Kind::Int4))];
        for kind in &kinds {
            for length in [0, 1, 3, 5, 7, 11, 13, 19, 21] {
                let bytes = Bytes::from(vec![0x7f; length]);
                assert!(value(kind, Format::Binary, Some(bytes)).is_err(), "{kind:?} {length}");
            }
        }
        assert!(value(&Kind::Int4, Format::Text, None).unwrap().is_null(0));
    }

    #[test]
    fn a_type_alias_is_read_in_its_own_width() {
        let value = value(&Kind::Int8, Format::Binary, Some(Bytes::from_static(&[0, 0, 0, 9]))).unwrap();
        assert_eq!(value.data_type(), &DataType::Int64);
    }
}
