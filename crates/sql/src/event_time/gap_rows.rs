//! The row itself and the rows of the gap after it, as a list: `gap_rows(ts, next_ts, interval, v, next_v, …)`.
//!
//! An element is a struct of the time, a flag that is true for the row itself, and the interpolated values. The function
//! is in no registry: the planner replaces `GAP_FILL(…)` by it.
//!
//! Interpolated values are RisingWave's: a float or a whole number grows by the same step from row to row, which is
//! rounded down for whole numbers. A decimal lies on the straight line, rounded to its scale.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanBuilder, Int64Array, ListArray, PrimitiveBuilder,
    StructArray, new_empty_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, Field, Fields, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type, i256,
};
use datafusion::error::Result;
use datafusion::logical_expr::ScalarUDF;

use super::grid::{Length, Timeline};
use crate::error::Error;
use crate::functions::scalar::Scalar;
use crate::functions::value_size_limit::check_column;

/// The field with the time.
pub(super) const TIME: &str = "time";
/// The field that is true for the row itself.
pub(super) const GIVEN: &str = "given";

/// The bytes of an element: its time, its flag, and each value.
const TIME_BYTES: usize = 9;
const VALUE_BYTES: usize = 8;

/// Returns the name of the field with an interpolated value.
pub(super) fn value_name(number: usize) -> String {
    format!("value_{number}")
}

/// Returns the function.
pub(super) fn function() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(Scalar::any("gap_rows", list_type, lists)));
    Arc::clone(&FUNCTION)
}

/// True if values of a type can be interpolated.
pub(super) fn interpolates(data_type: &DataType) -> bool {
    use DataType::{Decimal128, Decimal256, Float32, Float64};
    data_type.is_integer() || matches!(data_type, Float32 | Float64 | Decimal128(..) | Decimal256(..))
}

fn list_type(arguments: &[DataType]) -> Result<DataType> {
    Ok(DataType::new_list(DataType::Struct(fields(arguments)?), true))
}

/// Returns the fields of an element.
fn fields(arguments: &[DataType]) -> Result<Fields> {
    let wrong = || Error::bug("gap_rows takes a time, the next one, an interval, and pairs of numbers");
    let [time @ DataType::Timestamp(..), next, interval, values @ ..] = arguments else {
        return Err(wrong().into());
    };
    if next != time || *interval != DataType::Interval(IntervalUnit::MonthDayNano) {
        return Err(wrong().into());
    }
    let mut fields = vec![Field::new(TIME, time.clone(), true), Field::new(GIVEN, DataType::Boolean, true)];
    for (number, pair) in values.chunks(2).enumerate() {
        match pair {
            [value, after] if value == after && interpolates(value) => {
                fields.push(Field::new(value_name(number), value.clone(), true));
            }
            _ => return Err(wrong().into()),
        }
    }
    Ok(Fields::from(fields))
}

fn lists(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    let fields = fields(&types)?;
    let element = DataType::Struct(fields.clone());
    let [times, nexts, interval, values @ ..] = columns else {
        return Err(Error::bug("too few arguments").into());
    };
    if times.is_empty() {
        return Ok(new_empty_array(&DataType::new_list(element, true)));
    }
    // The interval is a literal, the same for all rows.
    let interval = interval.as_primitive::<IntervalMonthDayNanoType>().value(0);
    let line = Timeline::new(times.data_type(), IntervalMonthDayNano::ZERO)?;
    let step = line.length("interval", interval)?;
    let width = TIME_BYTES + VALUE_BYTES * (values.len() / 2);
    let ticks = |column: &ArrayRef| -> Result<Int64Array> {
        Ok(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
    };
    let (found, counts) = times_of(&ticks(times)?, &ticks(nexts)?, (&line, step), width)?;
    let mut arrays: Vec<ArrayRef> = vec![cast(&found, times.data_type())?, Arc::new(given(&counts))];
    for pair in values.chunks_exact(2) {
        arrays.push(between(&pair[0], &pair[1], &counts)?);
    }
    let rows = StructArray::try_new(fields, arrays, None)?;
    let field = Arc::new(Field::new_list_field(element, true));
    let offsets = OffsetBuffer::from_lengths(counts);
    Ok(Arc::new(ListArray::try_new(field, offsets, Arc::new(rows), None)?))
}

/// Returns the times of all lists, and the number of each list's elements. A list contains at least the row itself.
fn times_of(
    times: &Int64Array,
    nexts: &Int64Array,
    (line, step): (&Timeline, Length),
    width: usize,
) -> crate::Result<(Int64Array, Vec<usize>)> {
    let mut found: Vec<i64> = Vec::with_capacity(times.len());
    let mut unknown = Vec::new();
    let mut counts = Vec::with_capacity(times.len());
    for (time, next) in times.iter().zip(nexts.iter()) {
        let count = match (time, next) {
            (Some(time), Some(next)) => {
                let bytes = found.len().saturating_mul(width);
                let fits = |count: usize| check_column("GAP_FILL", bytes, count.saturating_mul(width));
                line.steps(time, next, step, fits, &mut found)?
            }
            (Some(time), None) => {
                found.push(time);
                1
            }
            (None, _) => {
                unknown.push(found.len());
                found.push(0);
                1
            }
        };
        counts.push(count);
    }
    let nulls = (!unknown.is_empty()).then(|| {
        let mut valid = vec![true; found.len()];
        unknown.into_iter().for_each(|at| valid[at] = false);
        valid.into()
    });
    Ok((Int64Array::new(found.into(), nulls), counts))
}

/// Returns true for the first element of each list, false for the others.
fn given(counts: &[usize]) -> arrow::array::BooleanArray {
    let mut given = BooleanBuilder::with_capacity(counts.iter().sum());
    for count in counts {
        given.append_value(true);
        given.append_n(count.saturating_sub(1), false);
    }
    given.finish()
}

/// A row in a gap, which begins with the value `from` and ends before the value `to`.
struct Place<N> {
    from: N,
    to: N,
    /// The value of the row before.
    last: N,
    /// The place of the row, from 1.
    number: usize,
    /// The place of the row with the value `to`.
    steps: usize,
}

/// Returns the values of all lists, from each value towards the next one.
fn between(values: &ArrayRef, nexts: &ArrayRef, counts: &[usize]) -> Result<ArrayRef> {
    macro_rules! whole {
        ($type:ty) => {
            spread::<$type>(values, nexts, counts, |place| {
                let (from, to) = (i128::from(place.from), i128::from(place.to));
                let step = (to - from).div_euclid(i128::try_from(place.steps).ok()?);
                (i128::from(place.last) + step).try_into().ok()
            })
        };
    }
    match values.data_type() {
        DataType::Int8 => whole!(Int8Type),
        DataType::Int16 => whole!(Int16Type),
        DataType::Int32 => whole!(Int32Type),
        DataType::Int64 => whole!(Int64Type),
        DataType::UInt8 => whole!(UInt8Type),
        DataType::UInt16 => whole!(UInt16Type),
        DataType::UInt32 => whole!(UInt32Type),
        DataType::UInt64 => whole!(UInt64Type),
        DataType::Float32 => spread::<Float32Type>(values, nexts, counts, |place| {
            Some(place.last + (place.to - place.from) / place.steps as f32)
        }),
        DataType::Float64 => spread::<Float64Type>(values, nexts, counts, |place| {
            Some(place.last + (place.to - place.from) / place.steps as f64)
        }),
        DataType::Decimal128(..) => spread::<Decimal128Type>(values, nexts, counts, |place| {
            let (from, to) = (i256::from_i128(place.from), i256::from_i128(place.to));
            on_line(from, to, place.number, place.steps)?.to_i128()
        }),
        DataType::Decimal256(..) => spread::<Decimal256Type>(values, nexts, counts, |place| {
            on_line(place.from, place.to, place.number, place.steps)
        }),
        other => Err(Error::bug(format!("{other} is not interpolated")).into()),
    }
}

/// Computes the values of all lists. A NULL stays, and a value before NULL is carried on.
fn spread<T: ArrowPrimitiveType>(
    values: &ArrayRef,
    nexts: &ArrayRef,
    counts: &[usize],
    value_at: impl Fn(Place<T::Native>) -> Option<T::Native>,
) -> Result<ArrayRef> {
    let (values, nexts) = (values.as_primitive::<T>(), nexts.as_primitive::<T>());
    let data_type = values.data_type().clone();
    let mut out = PrimitiveBuilder::<T>::with_capacity(counts.iter().sum()).with_data_type(data_type);
    for (row, steps) in counts.iter().copied().enumerate() {
        if values.is_null(row) {
            out.append_nulls(steps);
            continue;
        }
        let from = values.value(row);
        if nexts.is_null(row) {
            out.append_value_n(from, steps);
            continue;
        }
        let (to, mut last) = (nexts.value(row), from);
        out.append_value(from);
        for number in 1..steps {
            last = value_at(Place { from, to, last, number, steps }).ok_or_else(out_of_range)?;
            out.append_value(last);
        }
    }
    Ok(Arc::new(out.finish()))
}

fn out_of_range() -> Error {
    Error::invalid("INTERPOLATE: a value would be outside the range of the column's type")
        .hint("Cast the column to NUMERIC or DOUBLE PRECISION in a subquery.")
}

/// Returns a value on the straight line, with halves rounded away from zero; none if it can't be computed.
fn on_line(from: i256, to: i256, number: usize, steps: usize) -> Option<i256> {
    let whole = |count: usize| i128::try_from(count).ok().map(i256::from_i128);
    let (number, steps) = (whole(number)?, whole(steps)?);
    let product = to.checked_sub(from)?.checked_mul(number)?;
    let (quotient, rest) = (product.checked_div(steps)?, product.checked_rem(steps)?);
    let is_half = rest.wrapping_abs().checked_mul(i256::from_i128(2))? >= steps;
    let rounded = if is_half { quotient.checked_add(product.signum())? } else { quotient };
    from.checked_add(rounded)
}
