//! One form of values that are equal in SQL: 0.0 for -0.0, one NaN for all, and intervals by their length.

use arrow::array::{Array, ArrayData, ArrayRef, make_array};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, IntervalDayTime, IntervalMonthDayNano, IntervalUnit};
use arrow::error::ArrowError;

use crate::total_order::{DAY, interval_length};

/// Returns true if values of this type contain floats at any depth.
pub fn contains_floats(data_type: &DataType) -> bool {
    contains(data_type, &DataType::is_floating)
}

/// Returns true if a type or one of its parts is of some kind.
fn contains(data_type: &DataType, is_wanted: &dyn Fn(&DataType) -> bool) -> bool {
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => contains(field.data_type(), is_wanted),
        DataType::Struct(fields) => fields.iter().any(|field| contains(field.data_type(), is_wanted)),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| contains(field.data_type(), is_wanted)),
        DataType::Dictionary(_, values) => contains(values, is_wanted),
        DataType::RunEndEncoded(_, values) => contains(values.data_type(), is_wanted),
        data_type => is_wanted(data_type),
    }
}

/// Returns true if values of a type may be equal in SQL but differ in form: floats, and intervals, of which 24 hours are
/// a day and 30 days a month.
pub fn has_equal_forms(data_type: &DataType) -> bool {
    contains(data_type, &|leaf| leaf.is_floating() || is_interval(leaf))
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(IntervalUnit::MonthDayNano | IntervalUnit::DayTime))
}

/// Returns the same values with 0.0 for -0.0 and one NaN for all, at any depth. Returns the same array if
/// nothing differs.
pub fn canonical(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    rewritten_array(array, false)
}

/// Returns the same values in one form each, at any depth: floats as [`canonical`] has them, and intervals with less
/// than 30 days, and less than a day of time, neither negative. Intervals in this form have the order of their lengths.
pub fn one_form(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    rewritten_array(array, true)
}

fn rewritten_array(array: &ArrayRef, intervals: bool) -> Result<ArrayRef, ArrowError> {
    let data = array.to_data();
    if is_canonical(&data, intervals) {
        return Ok(ArrayRef::clone(array));
    }
    Ok(make_array(rewritten(data, intervals)?))
}

/// Returns the form of all intervals that are as long as this one.
fn canonical_interval(value: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let length = interval_length(value);
    let (days, nanoseconds) = (length.div_euclid(DAY), length.rem_euclid(DAY));
    // Beyond the range of months, days go on.
    let months = days.div_euclid(30).clamp(i32::MIN.into(), i32::MAX.into());
    let days = (days - months * 30).clamp(i32::MIN.into(), i32::MAX.into());
    IntervalMonthDayNano::new(months as i32, days as i32, nanoseconds as i64)
}

/// Returns the form of all intervals of days and milliseconds that are as long as this one.
fn canonical_day_time(value: IntervalDayTime) -> IntervalDayTime {
    const MILLIS: i64 = 86_400_000;
    let millis = i64::from(value.days) * MILLIS + i64::from(value.milliseconds);
    let days = millis.div_euclid(MILLIS).clamp(i32::MIN.into(), i32::MAX.into());
    IntervalDayTime::new(days as i32, millis.rem_euclid(MILLIS) as i32)
}

/// Returns the canonical bits of all doubles that equal `value`.
pub fn canonical_f64(value: f64) -> u64 {
    if value.is_nan() { f64::NAN.to_bits() } else { (value + 0.0).to_bits() }
}

/// Returns the canonical bits of all floats that equal `value`.
pub fn canonical_f32(value: f32) -> u32 {
    if value.is_nan() { f32::NAN.to_bits() } else { (value + 0.0).to_bits() }
}

/// Returns the canonical bits of a half float. An exponent of all ones with a nonzero fraction is a NaN.
pub fn canonical_f16(bits: u16) -> u16 {
    match bits {
        0x8000 => 0,
        bits if bits & 0x7fff > 0x7c00 => 0x7e00,
        bits => bits,
    }
}

fn is_canonical(data: &ArrayData, intervals: bool) -> bool {
    // The fold has no early exit, so that the compiler can vectorize a window.
    match data.data_type() {
        DataType::Float16 => {
            let values = &data.buffer::<u16>(0)[..data.len()];
            values
                .chunks(1024)
                .all(|window| window.iter().fold(true, |all, x| all & (canonical_f16(*x) == *x)))
        }
        DataType::Float32 => {
            let values = &data.buffer::<f32>(0)[..data.len()];
            let same = |x: &f32| canonical_f32(*x) == x.to_bits();
            values.chunks(1024).all(|window| window.iter().fold(true, |all, x| all & same(x)))
        }
        DataType::Float64 => {
            let values = &data.buffer::<f64>(0)[..data.len()];
            let same = |x: &f64| canonical_f64(*x) == x.to_bits();
            values.chunks(1024).all(|window| window.iter().fold(true, |all, x| all & same(x)))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) if intervals => {
            let values = &data.buffer::<IntervalMonthDayNano>(0)[..data.len()];
            values.iter().all(|value| canonical_interval(*value) == *value)
        }
        DataType::Interval(IntervalUnit::DayTime) if intervals => {
            let values = &data.buffer::<IntervalDayTime>(0)[..data.len()];
            values.iter().all(|value| canonical_day_time(*value) == *value)
        }
        data_type if has_equal_forms(data_type) => {
            data.child_data().iter().all(|child| is_canonical(child, intervals))
        }
        _ => true,
    }
}

fn rewritten(data: ArrayData, intervals: bool) -> Result<ArrayData, ArrowError> {
    if is_canonical(&data, intervals) {
        return Ok(data);
    }
    let buffer = match data.data_type() {
        DataType::Float16 => {
            let values = &data.buffer::<u16>(0)[..data.len()];
            Buffer::from_vec(values.iter().map(|bits| canonical_f16(*bits)).collect::<Vec<u16>>())
        }
        DataType::Float32 => {
            let values = &data.buffer::<f32>(0)[..data.len()];
            Buffer::from_vec(values.iter().map(|value| canonical_f32(*value)).collect::<Vec<u32>>())
        }
        DataType::Float64 => {
            let values = &data.buffer::<f64>(0)[..data.len()];
            Buffer::from_vec(values.iter().map(|value| canonical_f64(*value)).collect::<Vec<u64>>())
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let values = &data.buffer::<IntervalMonthDayNano>(0)[..data.len()];
            Buffer::from_vec(values.iter().map(|value| canonical_interval(*value)).collect::<Vec<_>>())
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            let values = &data.buffer::<IntervalDayTime>(0)[..data.len()];
            Buffer::from_vec(values.iter().map(|value| canonical_day_time(*value)).collect::<Vec<_>>())
        }
        _ => {
            let children = data.child_data().iter().map(|child| rewritten(child.clone(), intervals));
            let children = children.collect::<Result<Vec<_>, ArrowError>>()?;
            return data.into_builder().child_data(children).build();
        }
    };
    let nulls = data.nulls().cloned();
    ArrayData::builder(data.data_type().clone()).len(data.len()).add_buffer(buffer).nulls(nulls).build()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Float32Array, Float64Array, Int32Array, StructArray};
    use arrow::datatypes::{Field, Float32Type, Float64Type};

    use super::*;

    #[test]
    fn equal_floats_have_one_pattern_at_any_depth_and_others_stay() {
        let odd = f64::from_bits(f64::NAN.to_bits() | 1 << 63 | 5);
        let doubles =
            Float64Array::from(vec![Some(-0.0), Some(odd), None, Some(-1.5), Some(f64::NEG_INFINITY)]);
        let floats: ArrayRef = Arc::new(Float32Array::from(vec![-f32::NAN, 1.0, -0.0, 2.0, 3.0]));
        let field = Arc::new(Field::new("x", DataType::Float32, true));
        let nested: ArrayRef = Arc::new(StructArray::from(vec![(field, floats)]));
        for start in [0, 1] {
            let array: ArrayRef = Arc::new(doubles.slice(start, 4));
            let found = canonical(&array).unwrap();
            let bits = found.as_primitive::<Float64Type>().iter().map(|x| x.map(f64::to_bits));
            let expected = doubles.slice(start, 4);
            let expected = expected.iter().map(|x| x.map(canonical_f64));
            assert!(bits.eq(expected));
            let found = canonical(&nested.slice(start, 4)).unwrap();
            let column = found.as_struct().column(0).as_primitive::<Float32Type>().clone();
            assert_eq!(column.value(2 - start).to_bits(), 0);
            assert_eq!(
                column.value(0).to_bits(),
                if start == 0 { f32::NAN.to_bits() } else { 1f32.to_bits() }
            );
        }
        let plain: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 0.0, f64::NAN]));
        assert!(Arc::ptr_eq(&plain, &canonical(&plain).unwrap()));
        let integers: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        assert!(Arc::ptr_eq(&integers, &canonical(&integers).unwrap()));
        assert_eq!(canonical_f16(0x8000), 0);
        assert_eq!(canonical_f16(0xfe01), 0x7e00);
    }
}
