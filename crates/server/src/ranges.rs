//! The binary forms of ranges and multiranges, whose values are text.

use arrow::array::ArrayRef;
use arrow::error::ArrowError;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::decode;
use crate::oid::Kind;
use crate::rows::Writer;
use crate::{binary, text};

/// The type of a range's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subtype {
    Int4,
    Int8,
    Numeric,
    Timestamp,
    Timestamptz,
    Date,
}

/// The flags of a range's binary form.
const EMPTY: u8 = 0x01;
const LOWER_INCLUSIVE: u8 = 0x02;
const UPPER_INCLUSIVE: u8 = 0x04;
const LOWER_INFINITE: u8 = 0x08;
const UPPER_INFINITE: u8 = 0x10;

/// The binary forms of the dates and times `infinity` and `-infinity`.
const INFINITIES: [(&str, i32, i64); 2] =
    [("infinity", i32::MAX, i64::MAX), ("-infinity", i32::MIN, i64::MIN)];

/// The binary forms of numbers that aren't finite.
const NUMBERS: [(&str, [u8; 8]); 3] = [
    ("NaN", [0, 0, 0, 0, 0xC0, 0, 0, 0]),
    ("Infinity", [0, 0, 0, 0, 0xD0, 0, 0, 0x20]),
    ("-Infinity", [0, 0, 0, 0, 0xF0, 0, 0, 0x20]),
];

impl Subtype {
    /// Returns the name of the type of ranges.
    pub(crate) fn range_name(self) -> &'static str {
        match self {
            Subtype::Int4 => "int4range",
            Subtype::Int8 => "int8range",
            Subtype::Numeric => "numrange",
            Subtype::Timestamp => "tsrange",
            Subtype::Timestamptz => "tstzrange",
            Subtype::Date => "daterange",
        }
    }

    /// Returns the name of the type of multiranges.
    pub(crate) fn multirange_name(self) -> &'static str {
        match self {
            Subtype::Int4 => "int4multirange",
            Subtype::Int8 => "int8multirange",
            Subtype::Numeric => "nummultirange",
            Subtype::Timestamp => "tsmultirange",
            Subtype::Timestamptz => "tstzmultirange",
            Subtype::Date => "datemultirange",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Subtype::Int4 => Kind::Int4,
            Subtype::Int8 => Kind::Int8,
            Subtype::Numeric => Kind::Numeric(None),
            Subtype::Timestamp => Kind::Timestamp,
            Subtype::Timestamptz => Kind::Timestamptz,
            Subtype::Date => Kind::Date,
        }
    }

    fn is_time(self) -> bool {
        matches!(self, Subtype::Timestamp | Subtype::Timestamptz | Subtype::Date)
    }
}

/// Returns a writer of the binary form: of a range the flags and the bounds, each after its length; of a multirange the
/// number of ranges, each after its length.
pub(crate) fn writer<'a>(kind: &Kind, array: &'a ArrayRef) -> Result<Writer<'a>, ArrowError> {
    let kind = kind.clone();
    let text = text::writer(&kind, array)?;
    Ok(text::reread(text, move |written, out| match kind {
        Kind::Range(subtype) => put_range(subtype, written, out),
        Kind::Multirange(subtype) => {
            let ranges = ranges(written);
            out.put_u32(ranges.len() as u32);
            for range in ranges {
                let mut form = BytesMut::new();
                put_range(subtype, range, &mut form);
                out.put_u32(form.len() as u32);
                out.put_slice(&form);
            }
        }
        _ => {}
    }))
}

/// Returns the texts of a multirange's ranges.
fn ranges(text: &str) -> Vec<&str> {
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or_default();
    inner.split_inclusive([')', ']']).map(|range| range.trim_start_matches(',')).collect()
}

fn put_range(subtype: Subtype, text: &str, out: &mut BytesMut) {
    let bounds = text.get(1..text.len().saturating_sub(1)).and_then(|bounds| bounds.split_once(','));
    let Some((lower, upper)) = bounds else { return out.put_u8(EMPTY) };
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    out.put_u8(
        flag(text.starts_with('['), LOWER_INCLUSIVE)
            | flag(text.ends_with(']'), UPPER_INCLUSIVE)
            | flag(lower.is_empty(), LOWER_INFINITE)
            | flag(upper.is_empty(), UPPER_INFINITE),
    );
    for bound in [lower, upper].into_iter().filter(|bound| !bound.is_empty()) {
        let mut form = BytesMut::new();
        put_bound(subtype, bound.trim_matches('"'), &mut form);
        out.put_u32(form.len() as u32);
        out.put_slice(&form);
    }
}

fn put_bound(subtype: Subtype, text: &str, out: &mut BytesMut) {
    if let Some((_, days, microseconds)) = INFINITIES.iter().find(|(word, ..)| *word == text) {
        return match subtype {
            Subtype::Date => out.put_i32(*days),
            _ => out.put_i64(*microseconds),
        };
    }
    if subtype == Subtype::Numeric
        && let Some((_, form)) = NUMBERS.iter().find(|(word, _)| *word == text)
    {
        return out.put_slice(form);
    }
    let (text, cycles) = match subtype.is_time() {
        true => within_cycle(text),
        false => (text.to_string(), 0),
    };
    let kind = subtype.kind();
    let Ok(value) = decode::from_text(&kind, &text) else { return };
    let Ok(write) = binary::writer(&kind, &value) else { return };
    let mut form = BytesMut::new();
    write(0, &mut form);
    let days = cycles * CYCLE_DAYS;
    match (cycles, form.len()) {
        (0, _) => out.put_slice(&form),
        (_, 4) => out.put_i32(form.get_i32().saturating_add(i32::try_from(days).unwrap_or(i32::MAX))),
        (_, 8) => out.put_i64(form.get_i64().saturating_add(days.saturating_mul(DAY_MICROSECONDS))),
        _ => {}
    }
}

/// The days after which dates repeat, of 400 years.
const CYCLE_DAYS: i64 = 146_097;
const DAY_MICROSECONDS: i64 = 86_400_000_000;

/// Moves a date before Christ or after 9999, which Arrow doesn't read, to the same day of a year from 2000 to 2399. Returns
/// the number of cycles that it was moved by.
fn within_cycle(text: &str) -> (String, i64) {
    let (rest, before_christ) = match text.strip_suffix(" BC") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let Some((year, rest)) = rest.split_once('-') else { return (text.into(), 0) };
    let Ok(year) = year.parse::<i64>() else { return (text.into(), 0) };
    let year = if before_christ { 1_i64.saturating_sub(year) } else { year };
    if (1..=9999).contains(&year) {
        return (text.into(), 0);
    }
    let past = year.saturating_sub(2000);
    (format!("{}-{rest}", 2000 + past.rem_euclid(400)), past.div_euclid(400))
}

/// Returns the text of a binary form.
pub(crate) fn read(kind: &Kind, mut bytes: Bytes) -> Option<String> {
    match kind {
        Kind::Range(subtype) => range(*subtype, &mut bytes),
        Kind::Multirange(subtype) => {
            let count = number(&mut bytes)?;
            let mut ranges = Vec::new();
            for _ in 0..count {
                ranges.push(range(*subtype, &mut piece(&mut bytes)?)?);
            }
            bytes.is_empty().then(|| format!("{{{}}}", ranges.join(",")))
        }
        _ => None,
    }
}

fn number(bytes: &mut Bytes) -> Option<usize> {
    (bytes.len() >= 4).then(|| usize::try_from(bytes.get_i32()).ok())?
}

fn piece(bytes: &mut Bytes) -> Option<Bytes> {
    let length = number(bytes)?;
    (bytes.len() >= length).then(|| bytes.split_to(length))
}

fn range(subtype: Subtype, bytes: &mut Bytes) -> Option<String> {
    let flags = bytes.first().copied()?;
    bytes.advance(1);
    if flags & EMPTY != 0 {
        return bytes.is_empty().then(|| "empty".into());
    }
    let mut bound = |infinite: u8| {
        if flags & infinite != 0 { Some(String::new()) } else { bound(subtype, piece(bytes)?) }
    };
    let (lower, upper) = (bound(LOWER_INFINITE)?, bound(UPPER_INFINITE)?);
    let opening = if flags & LOWER_INCLUSIVE != 0 { '[' } else { '(' };
    let closing = if flags & UPPER_INCLUSIVE != 0 { ']' } else { ')' };
    bytes.is_empty().then(|| format!("{opening}{lower},{upper}{closing}"))
}

/// Returns the text of a bound, in quotes.
fn bound(subtype: Subtype, bytes: Bytes) -> Option<String> {
    let number = match bytes.as_ref().try_into() {
        Ok(raw) => i32::from_be_bytes(raw).into(),
        Err(_) => bytes.as_ref().try_into().map(i64::from_be_bytes).unwrap_or(0),
    };
    let is_word = |(_, days, microseconds): &&(&str, i32, i64)| match bytes.len() {
        4 => i64::from(*days) == number,
        _ => *microseconds == number,
    };
    if subtype.is_time()
        && let Some((word, ..)) = INFINITIES.iter().find(is_word)
    {
        return Some((*word).into());
    }
    if subtype == Subtype::Numeric
        && let Some((word, _)) = NUMBERS.iter().find(|(_, form)| form.get(..6) == bytes.get(..6))
    {
        return Some((*word).into());
    }
    let kind = subtype.kind();
    let value = decode::from_binary(&kind, bytes).ok()?;
    let mut written = BytesMut::new();
    text::writer(&kind, &value).ok()?(0, &mut written);
    Some(format!("\"{}\"", std::str::from_utf8(&written).ok()?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringArray;

    use super::*;

    fn check(kind: Kind, given: &str, expected: &str, text: &str) {
        let array: ArrayRef = Arc::new(StringArray::from(vec![given]));
        let mut out = BytesMut::new();
        writer(&kind, &array).unwrap()(0, &mut out);
        let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected, "{given}");
        assert_eq!(read(&kind, out.freeze()).as_deref(), Some(text));
    }

    /// The expected forms are those of PostgreSQL's `range_send` and `multirange_send`.
    #[test]
    fn binary_forms_are_postgresql_s() {
        check(
            Kind::Range(Subtype::Date),
            r#"[0044-03-15 BC,10000-02-29)"#,
            "0200000004fff49d7b00000004002c960f",
            r#"["0044-03-15 BC","10000-02-29")"#,
        );
        check(
            Kind::Range(Subtype::Timestamp),
            r#"["0001-02-29 12:00:00 BC","10000-12-31 23:59:59.5"]"#,
            "0600000008ff1fcaea0b3ff00000000008038103ce3b1f1ee0",
            r#"["0001-02-29 12:00:00 BC","10000-12-31 23:59:59.5"]"#,
        );
        check(Kind::Range(Subtype::Int4), r#"[1,5)"#, "0200000004000000010000000400000005", r#"["1","5")"#);
        check(Kind::Range(Subtype::Int4), r#"empty"#, "01", r#"empty"#);
        check(Kind::Range(Subtype::Int8), r#"(,7)"#, "08000000080000000000000007", r#"(,"7")"#);
        check(
            Kind::Range(Subtype::Numeric),
            r#"(-1.5,100]"#,
            "040000000c0002000040000001000113880000000a00010000000000000064",
            r#"("-1.5","100"]"#,
        );
        check(
            Kind::Range(Subtype::Numeric),
            r#"[NaN,NaN]"#,
            "060000000800000000c00000000000000800000000c0000000",
            r#"[NaN,NaN]"#,
        );
        check(
            Kind::Range(Subtype::Date),
            r#"[2024-01-01,infinity)"#,
            "02000000040000223e000000047fffffff",
            r#"["2024-01-01",infinity)"#,
        );
        check(
            Kind::Range(Subtype::Timestamp),
            r#"["2024-01-01 10:00:00",)"#,
            "12000000080002b0de36ada800",
            r#"["2024-01-01 10:00:00",)"#,
        );
        check(
            Kind::Range(Subtype::Timestamptz),
            r#"("2024-01-01 10:00:00.5+00","2025-01-01 00:00:00+00"]"#,
            "04000000080002b0de36b54920000000080002cd987ed48000",
            r#"("2024-01-01 10:00:00.5+00","2025-01-01 00:00:00+00"]"#,
        );
        check(
            Kind::Multirange(Subtype::Int4),
            r#"{[1,3),[5,8)}"#,
            "00000002000000110200000004000000010000000400000003000000110200000004000000050000000400000008",
            r#"{["1","3"),["5","8")}"#,
        );
        check(Kind::Multirange(Subtype::Int4), r#"{}"#, "00000000", r#"{}"#);
        check(
            Kind::Multirange(Subtype::Timestamp),
            r#"{(,"2024-01-01 10:00:00"],["2025-01-01 10:00:00",)}"#,
            "000000020000000d0c000000080002b0de36ada8000000000d12000000080002cda0e098e800",
            r#"{(,"2024-01-01 10:00:00"],["2025-01-01 10:00:00",)}"#,
        );
    }

    #[test]
    fn wrong_forms_are_refused() {
        for wrong in
            [&[][..], &[2], &[1, 1], &[2, 0, 0, 0, 4, 0, 0, 0], &[2, 255, 255, 255, 255, 0], &[24, 7]]
        {
            assert_eq!(read(&Kind::Range(Subtype::Int4), Bytes::copy_from_slice(wrong)), None, "{wrong:?}");
            assert_eq!(
                read(&Kind::Multirange(Subtype::Date), Bytes::copy_from_slice(wrong)),
                None,
                "{wrong:?}"
            );
        }
    }
}
