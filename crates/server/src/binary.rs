//! Writes values in PostgreSQL's binary format.

use std::ops::Range;

use arrow::array::types::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType, UInt32Type,
};
use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::datatypes::{DataType, DurationMicrosecondType};
use arrow::error::ArrowError;
use bytes::{BufMut, BytesMut};
use millstream_engine::{Error, tsquery_to_binary, tsvector_to_binary};

use crate::bits;
use crate::geometry;
use crate::network;
use crate::oid::{Kind, items};
use crate::ranges;
use crate::rows::{Writer, value};
use crate::text;

/// Days from 1970 to 2000, the start of PostgreSQL's count.
pub(crate) const EPOCH_DAYS: i32 = 10_957;

/// Microseconds from 1970 to 2000.
pub(crate) const EPOCH_MICROSECONDS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;

/// Returns a writer of the values of an array that is canonical for its kind.
pub(crate) fn writer<'a>(kind: &Kind, array: &'a ArrayRef) -> Result<Writer<'a>, ArrowError> {
    Ok(match kind {
        Kind::Bool => {
            let values = array.as_boolean();
            Box::new(move |row, out| out.put_u8(values.value(row).into()))
        }
        Kind::Int2 => {
            let values = array.as_primitive::<Int16Type>().values();
            Box::new(move |row, out| out.put_i16(values[row]))
        }
        Kind::Int4 => {
            let values = array.as_primitive::<Int32Type>().values();
            Box::new(move |row, out| out.put_i32(values[row]))
        }
        Kind::Int8 => {
            let values = array.as_primitive::<Int64Type>().values();
            Box::new(move |row, out| out.put_i64(values[row]))
        }
        Kind::Oid => {
            let values = array.as_primitive::<UInt32Type>().values();
            Box::new(move |row, out| out.put_u32(values[row]))
        }
        Kind::Float4 => {
            let values = array.as_primitive::<Float32Type>().values();
            Box::new(move |row, out| out.put_f32(values[row]))
        }
        Kind::Float8 => {
            let values = array.as_primitive::<Float64Type>().values();
            Box::new(move |row, out| out.put_f64(values[row]))
        }
        Kind::Numeric(_) => numeric(array)?,
        Kind::Bytea => {
            let values = array.as_binary::<i32>();
            Box::new(move |row, out| out.put_slice(values.value(row)))
        }
        Kind::Date => {
            let values = array.as_primitive::<Date32Type>().values();
            Box::new(move |row, out| out.put_i32(values[row].saturating_sub(EPOCH_DAYS)))
        }
        Kind::Time => {
            let values = array.as_primitive::<Time64MicrosecondType>().values();
            Box::new(move |row, out| out.put_i64(values[row]))
        }
        Kind::Timestamp | Kind::Timestamptz => {
            let values = array.as_primitive::<TimestampMicrosecondType>().values();
            Box::new(move |row, out| out.put_i64(values[row].saturating_sub(EPOCH_MICROSECONDS)))
        }
        Kind::Interval => intervals(array),
        Kind::Uuid => match array.as_fixed_size_binary_opt() {
            Some(values) => Box::new(move |row, out| out.put_slice(values.value(row))),
            None => text::reread(text::writer(kind, array)?, put_uuid),
        },
        Kind::Inet | Kind::Cidr | Kind::Macaddr | Kind::Macaddr8 => network::writer(kind, array)?,
        Kind::Range(_) | Kind::Multirange(_) => ranges::writer(kind, array)?,
        Kind::Tsvector => formed(text::writer(kind, array)?, tsvector_to_binary),
        Kind::Tsquery => formed(text::writer(kind, array)?, tsquery_to_binary),
        Kind::Geometric(found) => geometry::writer(*found, array)?,
        Kind::Bit(_) | Kind::Varbit(_) => bits::writer(kind, array)?,
        Kind::Text | Kind::Json | Kind::Xml => text::writer(kind, array)?,
        Kind::Jsonb => jsonb(text::writer(kind, array)?),
        Kind::Array(item) => lists(item, array)?,
    })
}

/// Returns a writer of the form that a function makes of a value's text.
fn formed(text: Writer<'_>, form: fn(&str) -> Result<Vec<u8>, Error>) -> Writer<'_> {
    text::reread(text, move |text, out| out.put_slice(&form(text).unwrap_or_default()))
}

/// Returns a writer of JSONB, given that of its text.
fn jsonb(text: Writer<'_>) -> Writer<'_> {
    Box::new(move |row, out| {
        // The version of the form.
        out.put_u8(1);
        text(row, out);
    })
}

/// Writes the bytes of a UUID, given its text.
fn put_uuid(text: &str, out: &mut BytesMut) {
    let digits: Vec<u8> =
        text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).for_each(|pair| out.put_u8(pair[0] << 4 | pair[1]));
}

fn intervals(array: &ArrayRef) -> Writer<'_> {
    const DAY: i64 = 86_400_000_000;
    if let DataType::Duration(_) = array.data_type() {
        let values = array.as_primitive::<DurationMicrosecondType>().values();
        return Box::new(move |row, out| {
            out.put_i64(values[row] % DAY);
            out.put_i32((values[row] / DAY) as i32);
            out.put_i32(0);
        });
    }
    let values = array.as_primitive::<IntervalMonthDayNanoType>().values();
    Box::new(move |row, out| {
        out.put_i64(values[row].nanoseconds / 1_000);
        out.put_i32(values[row].days);
        out.put_i32(values[row].months);
    })
}

fn numeric(array: &ArrayRef) -> Result<Writer<'_>, ArrowError> {
    Ok(match array.data_type() {
        DataType::Decimal128(_, scale) => {
            let (values, scale) = (array.as_primitive::<Decimal128Type>().values(), *scale);
            Box::new(move |row, out| {
                let mut digits = itoa::Buffer::new();
                let value = values[row];
                groups(out, value < 0, digits.format(value.unsigned_abs()).as_bytes(), scale);
            })
        }
        DataType::Decimal256(_, scale) => {
            let (values, scale) = (array.as_primitive::<Decimal256Type>().values(), *scale);
            Box::new(move |row, out| {
                let text = values[row].to_string();
                let digits = text.trim_start_matches('-');
                groups(out, text.starts_with('-'), digits.as_bytes(), scale);
            })
        }
        other => return Err(ArrowError::InvalidArgumentError(format!("{other} is no decimal"))),
    })
}

/// Writes a number in PostgreSQL's numeric format: groups of four decimal digits, of which the first stands
/// for 10000 to the power of `weight`.
fn groups(out: &mut BytesMut, negative: bool, digits: &[u8], scale: i8) {
    let scale = i32::from(scale);
    // The power of ten of the first digit, and its place in its group of four.
    let exponent = digits.len() as i32 - 1 - scale;
    let weight = exponent.div_euclid(4);
    let first = (3 - exponent.rem_euclid(4)) as usize;
    let mut found: Vec<i16> = vec![0; (first + digits.len()).div_ceil(4)];
    for (place, digit) in (first..).zip(digits) {
        found[place / 4] += i16::from(digit - b'0') * [1000, 100, 10, 1][place % 4];
    }
    while found.last() == Some(&0) {
        found.pop();
    }
    let leading = found.iter().take_while(|group| **group == 0).count();
    let found = &found[leading..];
    let weight = if found.is_empty() { 0 } else { weight - leading as i32 };
    out.put_i16(found.len() as i16);
    out.put_i16(weight as i16);
    out.put_u16(if negative && !found.is_empty() { 0x4000 } else { 0 });
    out.put_i16(scale.max(0) as i16);
    found.iter().for_each(|group| out.put_i16(*group));
}

/// Returns a writer of arrays with one dimension.
fn lists<'a>(item: &Kind, array: &'a ArrayRef) -> Result<Writer<'a>, ArrowError> {
    let mut item = item;
    let mut layers = vec![array.as_list::<i32>().clone()];
    let mut values = item.canonical(items(array))?;
    while let Kind::Array(inner) = item {
        layers.push(values.as_list::<i32>().clone());
        item = inner;
        values = item.canonical(items(&values))?;
    }
    let shapes = (0..array.len())
        .map(|row| if array.is_null(row) { Ok(Shape::default()) } else { shape(&layers, row) });
    let shapes = shapes.collect::<Result<Vec<Shape>, ArrowError>>()?;
    let item = item.clone();
    Ok(Box::new(move |row, out| {
        let Shape { lengths, values: places } = &shapes[row];
        let nulls = values.logical_nulls();
        let is_null = |place| nulls.as_ref().is_some_and(|nulls| nulls.is_null(place));
        out.put_i32(lengths.len() as i32);
        out.put_i32(i32::from(places.clone().any(is_null)));
        out.put_u32(item.oid());
        for length in lengths {
            out.put_i32(*length);
            out.put_i32(1);
        }
        let Ok(write) = writer(&item, &values) else { return };
        for place in places.clone() {
            value(out, &write, is_null(place), place);
        }
    }))
}

/// The lengths of an array's dimensions, none if it is empty, and the places of its values.
#[derive(Default)]
struct Shape {
    lengths: Vec<i32>,
    values: Range<usize>,
}

/// Returns the shape of a row. Fails for lists of different lengths, since an array of PostgreSQL has one for each dimension.
fn shape(layers: &[ListArray], row: usize) -> Result<Shape, ArrowError> {
    let mut places = row..row + 1;
    let mut lengths = Vec::with_capacity(layers.len());
    for lists in layers {
        let offsets = &lists.value_offsets()[places.start..=places.end];
        let length = offsets.get(1).map_or(0, |end| end - offsets[0]);
        let is_ragged = offsets.windows(2).any(|pair| pair[1] - pair[0] != length);
        if is_ragged || places.clone().any(|place| lists.is_null(place)) {
            return Err(ArrowError::InvalidArgumentError(
                "an array of arrays of different lengths has no binary form in PostgreSQL; ask for text, or cast it to JSONB"
                    .into(),
            ));
        }
        lengths.push(length);
        places = offsets[0] as usize..offsets[offsets.len() - 1] as usize;
    }
    if places.is_empty() {
        lengths.clear();
    }
    Ok(Shape { lengths, values: places })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Builder, ListBuilder};

    use super::*;

    fn check(negative: bool, digits: &str, scale: i8, expect: &[i16]) {
        let mut out = BytesMut::new();
        groups(&mut out, negative, digits.as_bytes(), scale);
        let found: Vec<i16> = out.chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect();
        assert_eq!(found, expect, "{digits} {scale}");
    }

    #[test]
    fn arrays_have_dimensions() {
        let lists = |rows: &[&[&[i32]]]| {
            let mut lists = ListBuilder::new(ListBuilder::new(Int32Builder::new()));
            for row in rows {
                row.iter().for_each(|inner| lists.values().append_value(inner.iter().copied().map(Some)));
                lists.append(true);
            }
            Arc::new(lists.finish()) as ArrayRef
        };
        let kind = Kind::of_type(lists(&[]).data_type());
        let array = lists(&[&[&[9]], &[&[1, 2, 3], &[4, 5, 6]], &[&[], &[]], &[]]);
        let write = writer(&kind, &array).unwrap();
        let written = |row| {
            let mut out = BytesMut::new();
            write(row, &mut out);
            out.chunks(4).map(|word| i32::from_be_bytes(word.try_into().unwrap())).collect::<Vec<_>>()
        };
        // Dimensions, NULLs, the type, length and first subscript of each dimension, length and value of each item.
        let matrix = [2, 0, 23, 2, 1, 3, 1, 4, 1, 4, 2, 4, 3, 4, 4, 4, 5, 4, 6];
        assert_eq!((kind.oid(), written(1)), (1007, matrix.to_vec()));
        assert_eq!((written(2), written(3)), (vec![0, 0, 23], vec![0, 0, 23]));
        let ragged = lists(&[&[&[1], &[2, 3]]]);
        assert!(writer(&kind, &ragged).err().unwrap().to_string().contains("different lengths"));
    }

    #[test]
    fn numerics_are_groups_of_four_digits() {
        // Count, weight, sign, digits after the point, groups; as in PostgreSQL's numeric_send.
        check(false, "0", 2, &[0, 0, 0, 2]);
        check(false, "12345", 2, &[2, 0, 0, 2, 123, 4500]);
        check(true, "5", 2, &[1, -1, 0x4000, 2, 500]);
        check(false, "10000", 0, &[1, 1, 0, 0, 1]);
        check(false, "123456789", 0, &[3, 2, 0, 0, 1, 2345, 6789]);
        check(false, "1", 8, &[1, -2, 0, 8, 1]);
        check(false, "7", -4, &[1, 1, 0, 0, 7]);
    }
}
