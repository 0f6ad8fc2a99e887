//! Functions of BYTEA that DataFusion lacks: bits, bytes and encodings; and `to_ascii` and `unistr` of text.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, Int32Array, Int64Array, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, ScalarUDF, lit};
use millstream_delta::sql_type;

use crate::error::Error;
use crate::functions::Registry;
use crate::functions::scalar::Scalar;
use crate::literals;
use crate::sqlstate;

/// Registers the functions.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    register_bits(registry);
    register_encodings(registry);
}

/// Registers the functions of bits and bytes.
fn register_bits(registry: &mut Registry<'_>) {
    registry.add(Scalar::any(
        "bit_count",
        |types| match types {
            [number] if number.is_integer() => Ok(DataType::Int64),
            _ => typed("bit_count", types, "b", DataType::Int64),
        },
        |columns| {
            if columns[0].data_type().is_integer() {
                let numbers = numbers(&columns[0])?;
                let counts = numbers.as_primitive::<Int64Type>().iter();
                let count = |number: i64| i64::from(number.count_ones());
                return Ok(Arc::new(counts.map(|number| number.map(count)).collect::<Int64Array>()));
            }
            let bits = |bytes: &[u8]| bytes.iter().map(|byte| i64::from(byte.count_ones())).sum();
            let counts = Bytes::new(&columns[0])?;
            Ok(Arc::new((0..columns[0].len()).map(|row| counts.get(row).map(bits)).collect::<Int64Array>()))
        },
    ));
    registry.add(Scalar::any(
        "get_byte",
        |types| typed("get_byte", types, "bi", DataType::Int32),
        |columns| read(columns, 8, |bytes, at| i32::from(bytes[at])),
    ));
    registry.add(Scalar::any(
        "get_bit",
        |types| typed("get_bit", types, "bi", DataType::Int32),
        |columns| read(columns, 1, |bytes, at| i32::from(bytes[at / 8] >> (at % 8) & 1)),
    ));
    registry.add(Scalar::any(
        "set_byte",
        |types| typed("set_byte", types, "bii", DataType::Binary),
        |columns| {
            // As in PostgreSQL, only the low 8 bits of the value count.
            change(columns, 8, |bytes, at, value| {
                bytes[at] = (value & 255) as u8;
                Ok(())
            })
        },
    ));
    registry.add(Scalar::any(
        "set_bit",
        |types| typed("set_bit", types, "bii", DataType::Binary),
        |columns| {
            change(columns, 1, |bytes, at, value| match value {
                0 => {
                    bytes[at / 8] &= !(1 << (at % 8));
                    Ok(())
                }
                1 => {
                    bytes[at / 8] |= 1 << (at % 8);
                    Ok(())
                }
                other => Err(wrong(format!("the new bit is {other}, but 0 or 1 was expected"))),
            })
        },
    ));
}

/// Registers conversions between encodings.
fn register_encodings(registry: &mut Registry<'_>) {
    registry.add(Scalar::any("convert", |types| typed("convert", types, "btt", DataType::Binary), convert));
    registry.add(convert_from());
    registry.add(Scalar::any("convert_to", |types| typed("convert_to", types, "tt", DataType::Binary), to));
    registry.add(Scalar::any(
        "encoded_length",
        |types| typed("length", types, "bt", DataType::Int32),
        |columns| {
            let texts = from(columns)?;
            let lengths = texts.as_string_view().iter();
            let lengths =
                lengths.map(|text| text.map(|text| i32::try_from(text.chars().count()).unwrap_or(i32::MAX)));
            Ok(Arc::new(lengths.collect::<Int32Array>()))
        },
    ));
    registry.add(Scalar::any("to_ascii", ascii_type, to_ascii));
    registry.add(Scalar::exact(
        "unistr",
        vec![DataType::Utf8View],
        |_| Ok(DataType::Utf8View),
        |columns| {
            let texts = columns[0].as_string_view().iter().map(|text| text.map(unescaped).transpose());
            Ok(Arc::new(texts.collect::<Result<StringViewArray, Error>>()?))
        },
    ));
}

fn convert_from() -> ScalarUDF {
    Scalar::any("convert_from", |types| typed("convert_from", types, "bt", DataType::Utf8View), from)
}

/// Builds an expression that reads bytes as UTF-8.
pub(crate) fn read_utf8(bytes: Expr) -> Expr {
    convert_from().call(vec![bytes, lit("UTF8")])
}

fn wrong(message: String) -> Error {
    Error::invalid(message).code(sqlstate::INVALID_PARAMETER_VALUE)
}

/// Checks the types of arguments: `b` bytes, `t` text, `i` a whole number. A text stands for the bytes that it spells.
fn typed(name: &str, types: &[DataType], expected: &str, result: DataType) -> Result<DataType> {
    let fits = |(kind, of): (char, &DataType)| {
        of.is_null()
            || match kind {
                'b' => of.is_binary() || of.is_string(),
                't' => of.is_string(),
                _ => of.is_integer(),
            }
    };
    if types.len() == expected.len() && expected.chars().zip(types).all(fits) {
        return Ok(result);
    }
    let names: Vec<&str> = expected
        .chars()
        .map(|kind| match kind {
            'b' => "BYTEA",
            't' => "TEXT",
            _ => "INT",
        })
        .collect();
    let found: Vec<String> = types.iter().map(sql_type).collect();
    Err(Error::invalid(format!("function \"{name}\" doesn't take {}", found.join(", ")))
        .hint(format!("It takes {name}({}).", names.join(", ")))
        .code(sqlstate::UNDEFINED_FUNCTION)
        .into())
}

/// A column of bytes. A text stands for the bytes that it spells.
pub(super) struct Bytes {
    pub(super) values: ArrayRef,
}

impl Bytes {
    pub(super) fn new(column: &ArrayRef) -> Result<Bytes> {
        if !column.data_type().is_string() {
            return Ok(Bytes { values: cast(column, &DataType::LargeBinary)? });
        }
        let texts = cast(column, &DataType::Utf8View)?;
        let mut out = BinaryBuilder::new();
        for text in texts.as_string_view() {
            let bytes = text.map(literals::bytes).transpose();
            out.append_option(
                bytes.map_err(|expected| wrong(format!("a text is no BYTEA: expected {expected}")))?,
            );
        }
        let bytes: ArrayRef = Arc::new(out.finish());
        Ok(Bytes { values: cast(&bytes, &DataType::LargeBinary)? })
    }

    fn get(&self, row: usize) -> Option<&[u8]> {
        self.values.is_valid(row).then(|| self.values.as_binary::<i64>().value(row))
    }
}

fn numbers(column: &ArrayRef) -> Result<ArrayRef> {
    Ok(cast(column, &DataType::Int64)?)
}

fn number(column: &ArrayRef, row: usize) -> Option<i64> {
    column.is_valid(row).then(|| column.as_primitive::<Int64Type>().value(row))
}

/// Checks the place of a byte or a bit, of `size` bits.
fn place(bytes: &[u8], at: i64, size: usize) -> Result<usize, Error> {
    let count = bytes.len() * 8 / size;
    match usize::try_from(at) {
        Ok(place) if place < count => Ok(place),
        _ => {
            let last = count as i64 - 1;
            Err(wrong(format!("index {at} out of valid range, 0..{last}")))
        }
    }
}

fn read(columns: &[ArrayRef], size: usize, get: impl Fn(&[u8], usize) -> i32) -> Result<ArrayRef> {
    let (bytes, places) = (Bytes::new(&columns[0])?, numbers(&columns[1])?);
    let rows = (0..columns[0].len()).map(|row| {
        let (Some(bytes), Some(at)) = (bytes.get(row), number(&places, row)) else { return Ok(None) };
        Ok(Some(get(bytes, place(bytes, at, size)?)))
    });
    Ok(Arc::new(rows.collect::<Result<Int32Array, Error>>()?))
}

fn change(
    columns: &[ArrayRef],
    size: usize,
    set: impl Fn(&mut [u8], usize, i64) -> Result<(), Error>,
) -> Result<ArrayRef> {
    let (bytes, places, values) = (Bytes::new(&columns[0])?, numbers(&columns[1])?, numbers(&columns[2])?);
    let mut out = BinaryBuilder::new();
    for row in 0..columns[0].len() {
        let (Some(bytes), Some(at), Some(value)) =
            (bytes.get(row), number(&places, row), number(&values, row))
        else {
            out.append_null();
            continue;
        };
        let at = place(bytes, at, size)?;
        let mut changed = bytes.to_vec();
        set(&mut changed, at, value)?;
        out.append_value(&changed);
    }
    Ok(Arc::new(out.finish()))
}

/// An encoding of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Latin1,
    Ascii,
}

impl Encoding {
    fn of(name: &str) -> Result<Encoding, Error> {
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        match plain.to_ascii_uppercase().as_str() {
            "UTF8" | "UNICODE" => Ok(Encoding::Utf8),
            "LATIN1" | "ISO88591" => Ok(Encoding::Latin1),
            "SQLASCII" => Ok(Encoding::Ascii),
            _ => Err(wrong(format!("the encoding \"{name}\" is not supported"))
                .hint("UTF8, LATIN1 and SQL_ASCII are.")),
        }
    }

    fn decode(self, bytes: &[u8]) -> Result<String, Error> {
        match self {
            Encoding::Latin1 => Ok(bytes.iter().map(|byte| char::from(*byte)).collect()),
            _ => String::from_utf8(bytes.to_vec()).map_err(|error| {
                let at = error.utf8_error().valid_up_to();
                wrong(format!("invalid byte sequence for encoding \"UTF8\" at byte {at}"))
            }),
        }
    }

    fn encode(self, text: &str) -> Result<Vec<u8>, Error> {
        match self {
            Encoding::Latin1 => text
                .chars()
                .map(|c| {
                    u8::try_from(u32::from(c))
                        .map_err(|_| wrong(format!("the character {c} has no equivalent in LATIN1")))
                })
                .collect(),
            _ => Ok(text.as_bytes().to_vec()),
        }
    }
}

/// Returns the value of a text argument.
fn text(column: &ArrayRef, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.as_string_view().value(row))
}

fn convert(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let bytes = Bytes::new(&columns[0])?;
    let (sources, targets) =
        (cast(&columns[1], &DataType::Utf8View)?, cast(&columns[2], &DataType::Utf8View)?);
    let mut out = BinaryBuilder::new();
    for row in 0..columns[0].len() {
        match (bytes.get(row), text(&sources, row), text(&targets, row)) {
            (Some(bytes), Some(source), Some(target)) => {
                let decoded = Encoding::of(source)?.decode(bytes)?;
                out.append_value(Encoding::of(target)?.encode(&decoded)?);
            }
            _ => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn from(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let bytes = Bytes::new(&columns[0])?;
    let sources = cast(&columns[1], &DataType::Utf8View)?;
    let rows = (0..columns[0].len()).map(|row| {
        let (Some(bytes), Some(source)) = (bytes.get(row), text(&sources, row)) else { return Ok(None) };
        Encoding::of(source)?.decode(bytes).map(Some)
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray, Error>>()?))
}

fn to(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, targets) = (cast(&columns[0], &DataType::Utf8View)?, cast(&columns[1], &DataType::Utf8View)?);
    let mut out = BinaryBuilder::new();
    for row in 0..columns[0].len() {
        match (text(&texts, row), text(&targets, row)) {
            (Some(text), Some(target)) => out.append_value(Encoding::of(target)?.encode(text)?),
            _ => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// The letters of ASCII for those of LATIN1 from character 160 on, as PostgreSQL has them (`ascii.c`).
const LATIN1: &[u8; 96] =
    b"  cL Y  \"Ca  -R     'u .,      ?AAAAAAACEEEEIIII NOOOOOxOUUUUYTBaaaaaaaceeeeiiii nooooo/ouuuuyty";

fn ascii_type(types: &[DataType]) -> Result<DataType> {
    let encoding = |of: &DataType| of.is_string() || of.is_integer();
    match types {
        [of] if of.is_string() || of.is_null() => Ok(DataType::Utf8View),
        [of, of_encoding] if (of.is_string() || of.is_null()) && encoding(of_encoding) => {
            Ok(DataType::Utf8View)
        }
        _ => Err(Error::invalid("to_ascii takes a text and an encoding: to_ascii(x, 'LATIN1')").into()),
    }
}

/// Writes letters of LATIN1 without their accents.
fn to_ascii(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let texts = cast(&columns[0], &DataType::Utf8View)?;
    let encodings = columns.get(1).map(|column| cast(column, &DataType::Utf8View)).transpose()?;
    let plain = |c: char| match u32::from(c) {
        code @ 160..256 => char::from(LATIN1[code as usize - 160]),
        0..128 => c,
        _ => ' ',
    };
    let rows = (0..texts.len()).map(|row| {
        let encoding = match &encodings {
            Some(encodings) => text(encodings, row),
            None => Some("UTF8"),
        };
        let (Some(text), Some(encoding)) = (text(&texts, row), encoding) else { return Ok(None) };
        match encoding.to_ascii_uppercase().as_str() {
            "LATIN1" | "8" => Ok(Some(text.chars().map(plain).collect::<String>())),
            _ => Err(wrong(format!("encoding conversion from {encoding} to ASCII not supported"))
                .hint("Write to_ascii(x, 'LATIN1').")),
        }
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray, Error>>()?))
}

/// Replaces `\0061`, `\+000061`, `\u0061` and `\U00000061` by characters.
fn unescaped(text: &str) -> Result<String, Error> {
    let invalid = || {
        wrong(format!("invalid Unicode escape in '{text}'"))
            .hint("Unicode escapes must be \\XXXX, \\+XXXXXX, \\uXXXX, or \\UXXXXXXXX.")
    };
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut buffer = [0; 2];
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c != '\\' {
            units.extend_from_slice(c.encode_utf16(&mut buffer));
            continue;
        }
        if let Some(after) = rest.strip_prefix('\\') {
            units.push(u16::from(b'\\'));
            rest = after;
            continue;
        }
        let (skip, count) = match rest.chars().next() {
            Some('+') => (1, 6),
            Some('u') => (1, 4),
            Some('U') => (1, 8),
            _ => (0, 4),
        };
        let digits =
            rest.get(skip..skip + count).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or_else(invalid)?;
        rest = &rest[skip + count..];
        match (u16::try_from(code), char::from_u32(code)) {
            // Two halves of a pair are one character.
            (Ok(unit), _) => units.push(unit),
            (Err(_), Some(c)) => units.extend_from_slice(c.encode_utf16(&mut buffer)),
            _ => return Err(invalid()),
        }
    }
    String::from_utf16(&units).map_err(|_| wrong(format!("invalid Unicode surrogate pair in '{text}'")))
}
