//! Functions of arrays behind Spark's aggregates: `try_sum`, `mode(x, true)`, `bitmap_or_agg`, `vector_sum`; and functions of
//! vectors.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, Float32Array, Float64Array, Int64Array,
    ListArray, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Decimal128Type, Field, Float32Type, Float64Type, Int64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::error::Result;
use millstream_delta::sql_type;

use super::Registry;
use super::lambdas::elements::Elements;
use super::scalar::{Kernel, Scalar, Typed};
use crate::error::Error;

/// The bytes of a bitmap.
const BITMAP_BYTES: usize = 4_096;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let all: [(&'static str, Typed, Kernel); 9] = [
        ("sum_or_null", sum_type, sum_or_null),
        ("mode_of", mode_type, mode),
        ("bitmap_of_bits", |types| bitmap_type(types, false), bitmap_of_bits),
        (
            "bitmaps_and",
            |types| bitmap_type(types, true),
            |columns| bitmaps(columns, |one, other| one & other),
        ),
        (
            "bitmaps_or",
            |types| bitmap_type(types, true),
            |columns| bitmaps(columns, |one, other| one | other),
        ),
        ("vectors_sum", vectors_type, |columns| vectors(columns, false)),
        ("vectors_avg", vectors_type, |columns| vectors(columns, true)),
        ("vector_norm", |types| vector_type("vector_norm", types, DataType::Float32), norms),
        ("vector_normalize", |types| vector_type("vector_normalize", types, vector()), normalized),
    ];
    for (name, typed, kernel) in all {
        registry.add(Scalar::any(name, typed, kernel));
    }
}

fn element(list: Option<&DataType>) -> DataType {
    match list {
        Some(DataType::List(field)) => field.data_type().clone(),
        _ => DataType::Null,
    }
}

/// Returns the places of the elements of each row that aren't NULL.
fn present(elements: &Elements) -> impl Iterator<Item = Vec<usize>> {
    let rows = elements.starts().into_iter().zip(&elements.lengths);
    let nulls = elements.columns[0].logical_nulls();
    let is_valid = move |at: &usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*at));
    rows.map(move |(start, length)| (start..start + length).filter(&is_valid).collect())
}

fn sum_type(types: &[DataType]) -> Result<DataType> {
    match element(types.first()) {
        of if of.is_integer() || of.is_null() => Ok(DataType::Int64),
        DataType::Float32 | DataType::Float64 => Ok(DataType::Float64),
        DataType::Decimal128(precision, scale) => {
            Ok(DataType::Decimal128(precision.saturating_add(10).min(38), scale))
        }
        other => Err(Error::invalid(format!("try_sum takes numbers, not {}", sql_type(&other))).into()),
    }
}

/// Adds up each array. A sum that the type can't hold is NULL.
fn sum_or_null(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let elements = Elements::of(&columns[0])?;
    let result = sum_type(&[columns[0].data_type().clone()])?;
    let values = &elements.columns[0];
    if result == DataType::Float64 {
        let values = cast(values, &DataType::Float64)?;
        let values = values.as_primitive::<Float64Type>();
        let sums = present(&elements)
            .map(|places| (!places.is_empty()).then(|| places.into_iter().map(|at| values.value(at)).sum()));
        return Ok(Arc::new(sums.collect::<Float64Array>()));
    }
    let exact = match result {
        DataType::Decimal128(_, scale) => cast(values, &DataType::Decimal128(38, scale))?,
        _ => cast(values, &DataType::Decimal128(38, 0))?,
    };
    let exact = exact.as_primitive::<Decimal128Type>();
    let sums = present(&elements).map(|places| {
        let (first, rest) = places.split_first()?;
        rest.iter().try_fold(exact.value(*first), |sum, at| sum.checked_add(exact.value(*at)))
    });
    match result {
        DataType::Decimal128(precision, scale) => {
            let most = 10_i128.pow(u32::from(precision));
            let sums: Decimal128Array = sums.map(|sum| sum.filter(|sum| sum.abs() < most)).collect();
            Ok(Arc::new(sums.with_precision_and_scale(precision, scale)?))
        }
        _ => Ok(Arc::new(sums.map(|sum| i64::try_from(sum?).ok()).collect::<Int64Array>())),
    }
}

fn mode_type(types: &[DataType]) -> Result<DataType> {
    match types {
        [_, DataType::Boolean | DataType::Null] => Ok(element(types.first())),
        _ => Err(Error::invalid("mode takes a value, and true or false").into()),
    }
}

/// Returns the most frequent element of each array: of several, the least one.
fn mode(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let elements = Elements::of(&columns[0])?;
    let values = &elements.columns[0];
    if values.data_type().is_null() {
        return Ok(arrow::array::new_null_array(&DataType::Null, columns[0].len()));
    }
    let converter = RowConverter::new(vec![SortField::new(values.data_type().clone())])?;
    let keys = converter.convert_columns(std::slice::from_ref(values))?;
    let places = present(&elements).map(|mut places| {
        places.sort_by_key(|at| keys.row(*at));
        let runs = places.chunk_by(|one, other| keys.row(*one) == keys.row(*other));
        // Of equal maxima, `max_by_key` returns the last one.
        let most = runs.rev().max_by_key(|run| run.len());
        most.and_then(|run| u64::try_from(run[0]).ok())
    });
    Ok(take(values, &places.collect::<UInt64Array>(), None)?)
}

fn bitmap_type(types: &[DataType], of_bitmaps: bool) -> Result<DataType> {
    match element(types.first()) {
        of if of.is_null() => Ok(DataType::Binary),
        of if of_bitmaps && of.is_binary() => Ok(DataType::Binary),
        of if !of_bitmaps && of.is_integer() => Ok(DataType::Binary),
        of => {
            let (name, wanted) = match of_bitmaps {
                true => ("bitmap_and_agg and bitmap_or_agg take", "BYTEA"),
                false => ("bitmap_construct_agg takes", "whole numbers"),
            };
            Err(Error::invalid(format!("{name} {wanted}, not {}", sql_type(&of)))
                .hint("bitmap_construct_agg(bitmap_bit_position(x))")
                .into())
        }
    }
}

fn bitmap_of_bits(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let elements = Elements::of(&columns[0])?;
    let bits = cast(&elements.columns[0], &DataType::Int64)?;
    let bits = bits.as_primitive::<Int64Type>();
    let bitmaps = present(&elements).map(|places| {
        let mut bitmap = vec![0_u8; BITMAP_BYTES];
        for bit in places.into_iter().map(|at| bits.value(at)) {
            let place = usize::try_from(bit).ok().filter(|place| *place < 8 * BITMAP_BYTES);
            let place = place.ok_or_else(|| {
                Error::invalid(format!(
                    "bitmap_construct_agg takes bits from 0 to 32767, but {bit} was given"
                ))
                .hint("bitmap_bit_position(x) makes them.")
            })?;
            bitmap[place / 8] |= 1 << (place % 8);
        }
        Ok(bitmap)
    });
    let bitmaps = bitmaps.collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(BinaryArray::from_iter_values(bitmaps)))
}

/// Combines the bitmaps of each array. A shorter one counts as filled up with 0.
fn bitmaps(columns: &[ArrayRef], combine: fn(u8, u8) -> u8) -> Result<ArrayRef> {
    let elements = Elements::of(&columns[0])?;
    let values = cast(&elements.columns[0], &DataType::BinaryView)?;
    let values = values.as_binary_view();
    let bitmaps = present(&elements).map(|places| {
        let mut all = places.into_iter().map(|at| {
            let mut bitmap = values.value(at).to_vec();
            bitmap.resize(BITMAP_BYTES, 0);
            bitmap
        });
        let first = all.next().unwrap_or_else(|| vec![0; BITMAP_BYTES]);
        all.fold(first, |one, other| {
            one.into_iter().zip(other).map(|(one, other)| combine(one, other)).collect()
        })
    });
    Ok(Arc::new(BinaryArray::from_iter_values(bitmaps)))
}

fn vector() -> DataType {
    DataType::new_list(DataType::Float32, true)
}

fn is_vector(of: &DataType) -> bool {
    match of {
        DataType::List(field) => field.data_type().is_numeric() || field.data_type().is_null(),
        other => other.is_null(),
    }
}

fn vectors_type(types: &[DataType]) -> Result<DataType> {
    match element(types.first()) {
        of if is_vector(&of) => Ok(vector()),
        of => Err(Error::invalid(format!("a vector is an array of REAL, not {}", sql_type(&of))).into()),
    }
}

fn vector_type(name: &str, types: &[DataType], returned: DataType) -> Result<DataType> {
    match types {
        [of] | [of, _] if !is_vector(of) => {
            Err(Error::invalid(format!("{name} takes an array of REAL, not {}", sql_type(of))).into())
        }
        [_] => Ok(returned),
        [_, degree] if degree.is_numeric() || degree.is_null() => Ok(returned),
        _ => Err(Error::invalid(format!("{name} takes a vector and the degree of a norm")).into()),
    }
}

/// Adds up the vectors of each array, or returns their mean.
fn vectors(columns: &[ArrayRef], mean: bool) -> Result<ArrayRef> {
    let all = Elements::of(&columns[0])?;
    let inner = Elements::of(&cast(&all.columns[0], &vector())?)?;
    let (numbers, starts) = (inner.columns[0].as_primitive::<Float32Type>(), inner.starts());
    let (mut values, mut lengths, mut nulls) = (Vec::new(), Vec::new(), Vec::new());
    for places in present(&all) {
        // As in Spark, a vector with an element that is NULL doesn't count.
        let whole = |at: &usize| {
            inner.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*at))
                && (starts[*at]..starts[*at] + inner.lengths[*at]).all(|at| numbers.is_valid(at))
        };
        let places: Vec<usize> = places.into_iter().filter(whole).collect();
        let length = places.first().map_or(0, |at| inner.lengths[*at]);
        if let Some(other) = places.iter().map(|at| inner.lengths[*at]).find(|other| *other != length) {
            let found = format!("vectors of {length} and of {other} elements can't be added");
            return Err(Error::invalid(found).hint("All vectors must have the same length.").into());
        }
        let mut sums = vec![0.0_f64; length];
        for at in &places {
            for (place, sum) in sums.iter_mut().enumerate() {
                *sum += f64::from(numbers.value(starts[*at] + place));
            }
        }
        let count = if mean { places.len() as f64 } else { 1.0 };
        values.extend(sums.into_iter().map(|sum| (sum / count) as f32));
        lengths.push(length);
        nulls.push(!places.is_empty());
    }
    let field = Arc::new(Field::new_list_field(DataType::Float32, true));
    let values = Arc::new(Float32Array::from(values));
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(field, offsets, values, Some(NullBuffer::from(nulls)))?))
}

/// Returns the norm of a vector of a degree: 1, 2 or infinity, or any that is at least 1.
fn norm(vector: &[f64], degree: f64) -> f64 {
    match degree {
        _ if degree.is_infinite() => vector.iter().fold(0.0, |most, x| x.abs().max(most)),
        2.0 => vector.iter().fold(0.0, |sum, x| sum + x * x).sqrt(),
        _ => vector.iter().fold(0.0, |sum, x| sum + x.abs().powf(degree)).powf(degree.recip()),
    }
}

/// A vector with the degree of its norm; none where one is NULL.
type Normed<'a> = Option<(&'a [f64], f64)>;

/// Calls `each` with the vector and the degree of each row.
fn with_norm(name: &str, columns: &[ArrayRef], each: &mut dyn FnMut(Normed<'_>)) -> Result<()> {
    let inner = Elements::of(&cast(&columns[0], &DataType::new_list(DataType::Float64, true))?)?;
    let degrees = columns.get(1).map(|degrees| cast(degrees, &DataType::Float64)).transpose()?;
    let degrees = degrees.as_ref().map(|degrees| degrees.as_primitive::<Float64Type>());
    let (numbers, starts) = (inner.columns[0].as_primitive::<Float64Type>(), inner.starts());
    let nulls = columns[0].logical_nulls();
    for (row, start) in starts.into_iter().enumerate() {
        let range = start..start + inner.lengths[row];
        let is_whole = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
            && range.clone().all(|at| numbers.is_valid(at));
        let degree = match degrees {
            Some(degrees) => degrees.is_valid(row).then(|| degrees.value(row)),
            None => Some(2.0),
        };
        if let Some(degree) = degree.filter(|degree| degree.is_nan() || *degree < 1.0) {
            return Err(Error::invalid(format!("{name} takes a degree from 1 on, but {degree} was given"))
                .hint("1, 2 and 'Infinity'::REAL are degrees.")
                .into());
        }
        let vector: Vec<f64> = range.map(|at| numbers.value(at)).collect();
        each(degree.filter(|_| is_whole).map(|degree| (vector.as_slice(), degree)));
    }
    Ok(())
}

fn norms(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let mut norms: Vec<Option<f32>> = Vec::with_capacity(columns[0].len());
    with_norm("vector_norm", columns, &mut |row| {
        norms.push(row.map(|(vector, degree)| norm(vector, degree) as f32));
    })?;
    Ok(Arc::new(Float32Array::from(norms)))
}

/// Divides each vector by its norm. One whose norm is 0 gives NULL.
fn normalized(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (mut values, mut lengths, mut nulls) = (Vec::new(), Vec::new(), Vec::new());
    with_norm("vector_normalize", columns, &mut |row| {
        let row = row.map(|(vector, degree)| (vector, norm(vector, degree)));
        let row = row.filter(|(_, norm)| *norm > 0.0);
        nulls.push(row.is_some());
        lengths.push(row.map_or(0, |(vector, _)| vector.len()));
        if let Some((vector, norm)) = row {
            values.extend(vector.iter().map(|x| (x / norm) as f32));
        }
    })?;
    let field = Arc::new(Field::new_list_field(DataType::Float32, true));
    let values = Arc::new(Float32Array::from(values));
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(field, offsets, values, Some(NullBuffer::from(nulls)))?))
}
