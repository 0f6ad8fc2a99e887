//! Functions of numbers of Spark: `try_add` and its kin, `ceil(x, 2)`, `shiftrightunsigned`, the places in bitmaps.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, new_null_array};
use arrow::compute::kernels::{cmp, numeric};
use arrow::compute::{cast, concat, nullif};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use millstream_delta::sql_type;

use super::Registry;
use super::lambdas::elements::Elements;
use super::scalar::{Kernel, Scalar, Typed};
use crate::error::Error;

/// The bits of one of Spark's bitmaps.
const BITMAP_BITS: i64 = 32_768;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let tries: [(&'static str, Typed, Kernel); 5] = [
        ("try_add", |types| result_type(types, Operator::Plus), |columns| tried(columns, Operator::Plus)),
        (
            "try_subtract",
            |types| result_type(types, Operator::Minus),
            |columns| tried(columns, Operator::Minus),
        ),
        (
            "try_multiply",
            |types| result_type(types, Operator::Multiply),
            |columns| tried(columns, Operator::Multiply),
        ),
        (
            "try_divide",
            |types| result_type(types, Operator::Divide),
            |columns| tried(columns, Operator::Divide),
        ),
        ("try_mod", |types| result_type(types, Operator::Modulo), |columns| tried(columns, Operator::Modulo)),
    ];
    for (name, typed, kernel) in tries {
        registry.add(Scalar::any(name, typed, kernel));
    }
    let number = |_: &[DataType]| Ok(DataType::Float64);
    let scaled = || vec![DataType::Float64, DataType::Int64];
    registry.add(Scalar::exact("ceil_to", scaled(), number, |columns| rounded(columns, f64::ceil)));
    registry.add(Scalar::exact("floor_to", scaled(), number, |columns| rounded(columns, f64::floor)));
    let shifted = |types: &[DataType]| match types {
        [of @ (DataType::Int32 | DataType::Int64), by] if by.is_integer() || by.is_null() => Ok(of.clone()),
        [of, by] if (of.is_integer() || of.is_null()) && (by.is_integer() || by.is_null()) => {
            Ok(DataType::Int64)
        }
        _ => Err(Error::invalid("shiftrightunsigned takes two whole numbers").into()),
    };
    registry.add(Scalar::any("shiftrightunsigned", shifted, shift_right_unsigned));
    let integer = |_: &[DataType]| Ok(DataType::Int64);
    let one = || vec![DataType::Int64];
    registry.add(Scalar::exact("bitmap_bit_position", one(), integer, |columns| {
        each(columns, |x| if x > 0 { (x - 1) % BITMAP_BITS } else { -(x % BITMAP_BITS) })
    }));
    registry.add(Scalar::exact("bitmap_bucket_number", one(), integer, |columns| {
        each(columns, |x| if x > 0 { 1 + (x - 1) / BITMAP_BITS } else { x / BITMAP_BITS })
    }));
    registry.add(Scalar::any("array_skewness", floats, |columns| moments(columns, |m| m.skewness())));
    registry.add(Scalar::any("array_kurtosis", floats, |columns| moments(columns, |m| m.kurtosis())));
    registry.add(Scalar::any("assert_true", asserted, assert_true));
    registry.add(Scalar::any("counter_step", counted, counter_step));
}

fn each(columns: &[ArrayRef], of: fn(i64) -> i64) -> Result<ArrayRef> {
    let numbers = columns[0].as_primitive::<Int64Type>().iter();
    Ok(Arc::new(numbers.map(|number| number.map(of)).collect::<Int64Array>()))
}

/// Returns the types to which the operands are cast, and that of the result.
fn coerced(types: &[DataType], operator: Operator) -> Result<(DataType, DataType, DataType)> {
    let [left, right] = types else {
        return Err(Error::invalid(format!("two operands of {operator} were expected")).into());
    };
    let is_date = matches!(left, DataType::Date32) && (right.is_integer() || right.is_null());
    if is_date && matches!(operator, Operator::Plus | Operator::Minus) {
        return Ok((DataType::Int64, DataType::Int64, DataType::Date32));
    }
    let is_whole = |of: &DataType| of.is_integer() || of.is_null();
    if operator == Operator::Divide && is_whole(left) && is_whole(right) {
        return Ok((DataType::Float64, DataType::Float64, DataType::Float64));
    }
    let coercer = BinaryTypeCoercer::new(left, &operator, right);
    let (one, other) = coercer.get_input_types()?;
    let result = BinaryTypeCoercer::new(&one, &operator, &other).get_result_type()?;
    match one.is_numeric() || one.is_temporal() || matches!(one, DataType::Interval(_)) {
        true => Ok((one, other, result)),
        false => {
            let (left, right) = (sql_type(left), sql_type(right));
            Err(Error::invalid(format!("{left} {operator} {right} is not there")).into())
        }
    }
}

fn result_type(types: &[DataType], operator: Operator) -> Result<DataType> {
    coerced(types, operator).map(|(_, _, result)| result)
}

/// Computes an operation. Where it fails, the result is NULL.
fn tried(columns: &[ArrayRef], operator: Operator) -> Result<ArrayRef> {
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    let (left, right, result) = coerced(&types, operator)?;
    let days = |column: &ArrayRef| match (column.data_type(), &left) {
        (DataType::Date32, DataType::Int64) => cast(column, &DataType::Int32),
        _ => Ok(Arc::clone(column)),
    };
    let left = cast(&days(&columns[0])?, &left)?;
    let mut right = cast(&columns[1], &right)?;
    if matches!(operator, Operator::Divide | Operator::Modulo) {
        let zero = cast(&Int64Array::new_scalar(0).into_inner(), right.data_type())?;
        let is_zero = cmp::eq(&right, &arrow::array::Scalar::new(zero))?;
        right = nullif(&right, &is_zero)?;
    }
    let compute = |left: &ArrayRef, right: &ArrayRef| match operator {
        Operator::Plus => numeric::add(left, right),
        Operator::Minus => numeric::sub(left, right),
        Operator::Multiply => numeric::mul(left, right),
        Operator::Divide => numeric::div(left, right),
        _ => numeric::rem(left, right),
    };
    let finish = |computed: &ArrayRef| match (computed.data_type(), &result) {
        (DataType::Int64, DataType::Date32) => cast(&cast(computed, &DataType::Int32)?, &result),
        _ => cast(computed, &result),
    };
    if let Ok(computed) = compute(&left, &right) {
        return Ok(finish(&computed)?);
    }
    let rows = (0..left.len()).map(|row| {
        compute(&left.slice(row, 1), &right.slice(row, 1)).unwrap_or_else(|_| new_null_array(&result, 1))
    });
    let rows = rows.map(|row| finish(&row)).collect::<std::result::Result<Vec<_>, _>>()?;
    let rows: Vec<&dyn Array> = rows.iter().map(|row| row.as_ref()).collect();
    Ok(if rows.is_empty() { new_null_array(&result, 0) } else { concat(&rows)? })
}

/// Rounds to so many decimals, or to a power of ten if negative.
fn rounded(columns: &[ArrayRef], round: fn(f64) -> f64) -> Result<ArrayRef> {
    let numbers = columns[0].as_primitive::<Float64Type>().iter();
    let rows = numbers.zip(columns[1].as_primitive::<Int64Type>()).map(|(number, scale)| {
        let (number, scale) = (number?, i32::try_from(scale?.clamp(-400, 400)).ok()?);
        let factor = 10_f64.powi(scale.abs());
        Some(match scale {
            0.. if !(number * factor).is_finite() => number,
            0.. => round(number * factor) / factor,
            _ => {
                let whole = round(number / factor);
                if whole == 0.0 { 0.0 } else { whole * factor }
            }
        })
    });
    Ok(Arc::new(rows.collect::<Float64Array>()))
}

/// Shifts the bits of a number to the right and fills up with 0. As in Java, the width is that of the type.
fn shift_right_unsigned(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let is_short = *columns[0].data_type() == DataType::Int32;
    let [numbers, counts] = [0, 1].map(|at| cast(&columns[at], &DataType::Int64));
    let (numbers, counts) = (numbers?, counts?);
    let pairs = numbers.as_primitive::<Int64Type>().iter().zip(counts.as_primitive::<Int64Type>());
    let rows = pairs.map(|(number, count)| {
        let (bits, count) = (number?.cast_unsigned(), count?);
        Some(match is_short {
            true => i64::from((((bits & 0xffff_ffff) as u32) >> (count & 31)).cast_signed()),
            false => (bits >> (count & 63)).cast_signed(),
        })
    });
    let shifted: ArrayRef = Arc::new(rows.collect::<Int64Array>());
    Ok(if is_short { cast(&shifted, &DataType::Int32)? } else { shifted })
}

fn floats(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Float64)
}

/// The central moments of numbers, each times their count.
struct Moments {
    count: f64,
    second: f64,
    third: f64,
    fourth: f64,
}

impl Moments {
    fn of(numbers: &[f64]) -> Moments {
        let count = numbers.len() as f64;
        let mean = numbers.iter().sum::<f64>() / count;
        let power = |exponent: i32| numbers.iter().map(|x| (x - mean).powi(exponent)).sum::<f64>();
        Moments { count, second: power(2), third: power(3), fourth: power(4) }
    }

    fn skewness(&self) -> Option<f64> {
        match self.second {
            0.0 => None,
            second => Some(self.count.sqrt() * self.third / second.powi(3).sqrt()),
        }
    }

    fn kurtosis(&self) -> Option<f64> {
        match self.second {
            0.0 => None,
            second => Some(self.count * self.fourth / (second * second) - 3.0),
        }
    }
}

fn moments(columns: &[ArrayRef], of: fn(&Moments) -> Option<f64>) -> Result<ArrayRef> {
    if columns[0].data_type().is_null() {
        return Ok(new_null_array(&DataType::Float64, columns[0].len()));
    }
    let elements = Elements::of(&columns[0])?;
    let numbers = cast(&elements.columns[0], &DataType::Float64)?;
    let numbers = numbers.as_primitive::<Float64Type>();
    let rows = elements.starts().into_iter().zip(&elements.lengths).map(|(start, length)| {
        let present = (start..start + length).filter(|at| numbers.is_valid(*at));
        let present: Vec<f64> = present.map(|at| numbers.value(at)).collect();
        if present.is_empty() { None } else { of(&Moments::of(&present)) }
    });
    Ok(Arc::new(rows.collect::<Float64Array>()))
}

fn counted(types: &[DataType]) -> Result<DataType> {
    match types {
        [now, before, ..] if now.is_numeric() && before == now => Ok(now.clone()),
        _ => {
            Err(Error::invalid("counter_diff takes a number, and the time at which the counter began").into())
        }
    }
}

/// Returns the growth of a counter since the row before. It is NULL if the counter is less or began at another time.
fn counter_step(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let restarts = cmp::lt(&columns[0], &columns[1])?;
    let mut steps = nullif(&numeric::sub_wrapping(&columns[0], &columns[1])?, &restarts)?;
    if let [_, _, began, before] = columns {
        steps = nullif(&steps, &cmp::neq(began, before)?)?;
    }
    Ok(steps)
}

fn asserted(types: &[DataType]) -> Result<DataType> {
    match types {
        [DataType::Boolean | DataType::Null] => Ok(DataType::Null),
        [DataType::Boolean | DataType::Null, of] if of.is_string() => Ok(DataType::Null),
        _ => Err(Error::invalid("assert_true takes a condition, and the message of the error").into()),
    }
}

/// Returns NULL, or an error if the condition isn't true.
fn assert_true(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let conditions = cast(&columns[0], &DataType::Boolean)?;
    let conditions: &BooleanArray = conditions.as_boolean();
    if let Some(row) = conditions.iter().position(|condition| condition != Some(true)) {
        let message = match columns.get(1) {
            Some(texts) => cast(texts, &DataType::Utf8View)?.as_string_view().value(row).to_string(),
            None => "assert_true: the condition isn't true".to_string(),
        };
        return Err(Error::invalid(message).into());
    }
    Ok(new_null_array(&DataType::Null, columns[0].len()))
}
