//! Functions of numbers and arrays that Spark and Flink have: `bin`, `conv`, `pmod`, `hypot`, `bround` and others.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, Int64Builder, ListArray, ListBuilder, StringViewArray,
};
use arrow::buffer::{BooleanBuffer, OffsetBuffer};
use arrow::compute::{cast, filter, is_not_null};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::error::Result;

use super::Registry;
use super::scalar::{Kernel, Scalar};
use super::value_size_limit::VALUE_BYTES_MAX;
use crate::error::Error;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let floats: [(&'static str, Kernel); 3] = [
        ("expm1", |columns| each(columns, f64::exp_m1)),
        ("log1p", |columns| each(columns, f64::ln_1p)),
        ("rint", |columns| each(columns, f64::round_ties_even)),
    ];
    for (name, kernel) in floats {
        registry.add(Scalar::exact(name, vec![DataType::Float64], |_| Ok(DataType::Float64), kernel));
    }
    registry.add(Scalar::exact(
        "hypot",
        vec![DataType::Float64; 2],
        |_| Ok(DataType::Float64),
        |columns| {
            let pairs =
                columns[0].as_primitive::<Float64Type>().iter().zip(columns[1].as_primitive::<Float64Type>());
            Ok(Arc::new(pairs.map(|(x, y)| Some(x?.hypot(y?))).collect::<Float64Array>()))
        },
    ));
    registry.add(Scalar::exact(
        "bin",
        vec![DataType::Int64],
        |_| Ok(DataType::Utf8View),
        |columns| {
            let numbers = columns[0].as_primitive::<Int64Type>().iter();
            Ok(Arc::new(
                numbers.map(|number| number.map(|number| format!("{number:b}"))).collect::<StringViewArray>(),
            ))
        },
    ));
    let conv_arguments = vec![DataType::Utf8View, DataType::Int64, DataType::Int64];
    registry.add(Scalar::exact("conv", conv_arguments, |_| Ok(DataType::Utf8View), conv));
    registry.add(Scalar::any("pmod", pmod_type, pmod));
    registry.add(Scalar::any("bround", bround_type, bround));
    registry.add(Scalar::any("without_nulls", list_type, without_nulls));
    let sequence_type = |_: &[DataType]| Ok(DataType::new_list(DataType::Int64, true));
    registry.add(Scalar::exact("array_sequence", vec![DataType::Int64; 2], sequence_type, sequence));
    registry.add(Scalar::any("slice", slice_type, slice));
}

fn each(columns: &[ArrayRef], of: fn(f64) -> f64) -> Result<ArrayRef> {
    let values = columns[0].as_primitive::<Float64Type>().iter();
    Ok(Arc::new(values.map(|value| value.map(of)).collect::<Float64Array>()))
}

/// Converts a number from a base to another. The result is unsigned, unless the new base is negative.
fn conv(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let texts = columns[0].as_string_view();
    let (from, to) = (columns[1].as_primitive::<Int64Type>(), columns[2].as_primitive::<Int64Type>());
    let rows = (0..texts.len()).map(|row| {
        if columns.iter().any(|column| column.is_null(row)) {
            return None;
        }
        converted(texts.value(row), from.value(row), to.value(row))
    });
    Ok(Arc::new(rows.collect::<StringViewArray>()))
}

fn converted(text: &str, from: i64, to: i64) -> Option<String> {
    let base = |base: i64| u32::try_from(base.unsigned_abs()).ok().filter(|base| (2..=36).contains(base));
    let (from, radix) = (base(from)?, base(to)?);
    let (negative, digits) = match text.trim().strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.trim()),
    };
    let mut value: u64 = 0;
    for digit in digits.chars().map_while(|c| c.to_digit(from)) {
        value = value
            .checked_mul(u64::from(from))
            .and_then(|sum| sum.checked_add(u64::from(digit)))
            .unwrap_or(u64::MAX);
    }
    let (sign, mut rest) = match (negative, to < 0) {
        (true, true) => ("-", value),
        (true, false) => ("", value.wrapping_neg()),
        _ => ("", value),
    };
    let mut out = Vec::new();
    loop {
        let digit = u32::try_from(rest % u64::from(radix)).ok()?;
        out.push(char::from_digit(digit, radix)?.to_ascii_uppercase());
        rest /= u64::from(radix);
        if rest == 0 {
            break;
        }
    }
    Some(format!("{sign}{}", out.into_iter().rev().collect::<String>()))
}

fn pmod_type(types: &[DataType]) -> Result<DataType> {
    let is_number = |of: &DataType| of.is_numeric() || of.is_null();
    match types {
        [a, b] if a.is_integer() && b.is_integer() => Ok(DataType::Int64),
        [a, b] if is_number(a) && is_number(b) => Ok(DataType::Float64),
        _ => Err(Error::invalid("pmod takes two numbers").into()),
    }
}

/// Returns the remainder that has the sign of the divisor; NULL for a divisor of 0.
fn pmod(columns: &[ArrayRef]) -> Result<ArrayRef> {
    if columns.iter().all(|column| column.data_type().is_integer()) {
        let (a, b) = (cast(&columns[0], &DataType::Int64)?, cast(&columns[1], &DataType::Int64)?);
        let pairs = a.as_primitive::<Int64Type>().iter().zip(b.as_primitive::<Int64Type>());
        let rows = pairs.map(|(a, b)| {
            let (a, b) = (i128::from(a?), i128::from(b?));
            if b == 0 { None } else { i64::try_from(((a % b) + b) % b).ok() }
        });
        return Ok(Arc::new(rows.collect::<Int64Array>()));
    }
    let (a, b) = (cast(&columns[0], &DataType::Float64)?, cast(&columns[1], &DataType::Float64)?);
    let pairs = a.as_primitive::<Float64Type>().iter().zip(b.as_primitive::<Float64Type>());
    let rows = pairs.map(|(a, b)| {
        let (a, b) = (a?, b?);
        (b != 0.0).then(|| ((a % b) + b) % b)
    });
    Ok(Arc::new(rows.collect::<Float64Array>()))
}

fn bround_type(types: &[DataType]) -> Result<DataType> {
    match types {
        [of] | [of, _] if of.is_integer() => Ok(DataType::Int64),
        [of] | [of, _] if of.is_numeric() || of.is_null() => Ok(DataType::Float64),
        _ => Err(Error::invalid("bround takes a number and the digits to keep").into()),
    }
}

/// Rounds half to even.
fn bround(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let is_whole = columns[0].data_type().is_integer();
    let places = columns.get(1).map(|places| cast(places, &DataType::Int64)).transpose()?;
    let places = |row: usize| match &places {
        Some(places) if places.is_null(row) => None,
        Some(places) => Some(places.as_primitive::<Int64Type>().value(row).clamp(-400, 400)),
        None => Some(0),
    };
    if is_whole {
        let values = cast(&columns[0], &DataType::Int64)?;
        let rows = values.as_primitive::<Int64Type>().iter().enumerate().map(|(row, value)| {
            let (Some(places), Some(value)) = (places(row), value) else { return Ok(None) };
            whole_bround(value, places).map(Some)
        });
        return Ok(Arc::new(rows.collect::<Result<Int64Array, Error>>()?));
    }
    let values = cast(&columns[0], &DataType::Float64)?;
    let rows = values.as_primitive::<Float64Type>().iter().enumerate();
    Ok(Arc::new(rows.map(|(row, value)| Some(float_bround(value?, places(row)?))).collect::<Float64Array>()))
}

fn whole_bround(value: i64, places: i64) -> Result<i64, Error> {
    let power = u32::try_from(places.min(0).unsigned_abs()).unwrap_or(u32::MAX);
    // Half of a greater unit is more than any value.
    let Some(unit) = 10_i128.checked_pow(power).filter(|_| power < 20) else { return Ok(0) };
    let value = i128::from(value);
    let (below, rest) = (value.div_euclid(unit), value.rem_euclid(unit));
    let is_above = rest * 2 > unit || (rest * 2 == unit && below % 2 != 0);
    i64::try_from((below + i128::from(is_above)) * unit)
        .map_err(|_| Error::invalid(format!("bround({value}, {places}) is out of the range of BIGINT")))
}

fn float_bround(value: f64, places: i64) -> f64 {
    let unit = 10_f64.powi(i32::try_from(places.unsigned_abs()).unwrap_or(i32::MAX));
    let scaled = if places < 0 { value / unit } else { value * unit };
    match places {
        // The value has no digits that far behind the point.
        0.. if !scaled.is_finite() => value,
        0.. => scaled.round_ties_even() / unit,
        _ if !unit.is_finite() && value.is_finite() => 0.0,
        _ => scaled.round_ties_even() * unit,
    }
}

fn list_type(types: &[DataType]) -> Result<DataType> {
    match types {
        [list @ DataType::List(_)] => Ok(list.clone()),
        _ => Err(Error::invalid("an array was expected").into()),
    }
}

/// Returns arrays without their NULLs. Of no array, it is an empty one.
fn without_nulls(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let lists = columns[0].as_list::<i32>();
    let DataType::List(item) = lists.data_type() else {
        return Err(Error::bug("a list was expected").into());
    };
    let mut parts: Vec<ArrayRef> = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        let values = if lists.is_null(row) { lists.values().slice(0, 0) } else { lists.value(row) };
        parts.push(filter(&values, &is_not_null(&values)?)?);
    }
    joined(item, &parts, None)
}

fn joined(
    item: &arrow::datatypes::FieldRef,
    parts: &[ArrayRef],
    valid: Option<Vec<bool>>,
) -> Result<ArrayRef> {
    let offsets = OffsetBuffer::from_lengths(parts.iter().map(|part| part.len()));
    let values = match parts.is_empty() {
        true => arrow::array::new_empty_array(item.data_type()),
        false => arrow::compute::concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>())?,
    };
    let nulls = valid.map(|valid| BooleanBuffer::from(valid).into());
    Ok(Arc::new(ListArray::try_new(item.clone(), offsets, values, nulls)?))
}

/// Returns the numbers from one to another, also downwards.
fn sequence(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (from, to) = (columns[0].as_primitive::<Int64Type>(), columns[1].as_primitive::<Int64Type>());
    let mut out = ListBuilder::new(Int64Builder::new());
    for (from, to) in from.iter().zip(to) {
        let (Some(from), Some(to)) = (from, to) else {
            out.append(false);
            continue;
        };
        if from.abs_diff(to) >= VALUE_BYTES_MAX / 8 {
            return Err(Error::invalid(format!("sequence({from}, {to}) is too long")).into());
        }
        let step = if from <= to { 1 } else { -1 };
        let mut value = from;
        while value != to {
            out.values().append_value(value);
            value += step;
        }
        out.values().append_value(to);
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

fn slice_type(types: &[DataType]) -> Result<DataType> {
    match types {
        [list @ DataType::List(_), start, length] if start.is_integer() && length.is_integer() => {
            Ok(list.clone())
        }
        _ => Err(Error::invalid("slice takes an array, a start and a length").into()),
    }
}

/// Returns a number of elements from a place on; from the end for a place below 0.
fn slice(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let lists = columns[0].as_list::<i32>();
    let DataType::List(item) = lists.data_type() else {
        return Err(Error::bug("a list was expected").into());
    };
    let (starts, lengths) = (cast(&columns[1], &DataType::Int64)?, cast(&columns[2], &DataType::Int64)?);
    let (starts, lengths) = (starts.as_primitive::<Int64Type>(), lengths.as_primitive::<Int64Type>());
    let mut parts: Vec<ArrayRef> = Vec::with_capacity(lists.len());
    let mut valid = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        let is_valid = columns.iter().all(|column| column.is_valid(row));
        valid.push(is_valid);
        if !is_valid {
            parts.push(lists.values().slice(0, 0));
            continue;
        }
        let values = lists.value(row);
        let (start, length) = (starts.value(row), lengths.value(row));
        if start == 0 || length < 0 {
            return Err(Error::invalid(format!(
                "slice(…, {start}, {length}): a start other than 0 and a length of at least 0 were expected"
            ))
            .into());
        }
        let count = i64::try_from(values.len()).unwrap_or(i64::MAX);
        let from = if start > 0 { start - 1 } else { count.saturating_add(start) };
        let (from, length) = match (0..count).contains(&from) {
            true => (from, length.min(count - from)),
            false => (0, 0),
        };
        let place = |number: i64| usize::try_from(number).unwrap_or(0);
        parts.push(values.slice(place(from), place(length)));
    }
    joined(item, &parts, Some(valid))
}
