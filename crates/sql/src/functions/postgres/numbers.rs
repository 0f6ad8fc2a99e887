//! Functions of numbers: whole decimals without digits behind the point, the digits of a decimal, and the place of a value between
//! thresholds.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray, make_comparator};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Float64Type, i256};
use datafusion::error::Result;
use datafusion::functions::math::ceil::CeilFunc;
use datafusion::functions::math::floor::FloorFunc;
use datafusion::functions::math::trunc::TruncFunc;
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use millstream_delta::sql_type;

use crate::error::Error;
use crate::functions::Registry;
use crate::functions::recast::{Recast, Target};
use crate::functions::scalar::Scalar;
use crate::sqlstate;

/// Registers the functions.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    let whole = |inner| ScalarUDF::from(Recast { inner, target: Target::Whole });
    registry.replace("ceil", |function| function.inner().is::<CeilFunc>(), whole);
    registry.replace("floor", |function| function.inner().is::<FloorFunc>(), whole);
    registry.replace("trunc", |function| function.inner().is::<TruncFunc>(), whole);
    registry.add(Scalar::any("min_scale", min_scale_type, min_scale));
    registry.add(Scalar::any("width_bucket_of", bucket_type, bucket));
}

fn min_scale_type(found: &[DataType]) -> Result<DataType> {
    match found {
        [of] if of.is_numeric() || of.is_null() => Ok(DataType::Int32),
        _ => Err(Error::invalid("min_scale takes a number").into()),
    }
}

/// Returns the number of digits behind the point, without zeros at the end.
fn min_scale(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let column = &columns[0];
    Ok(Arc::new(match column.data_type() {
        DataType::Decimal128(_, scale) => {
            let values = column.as_primitive::<Decimal128Type>().iter();
            values.map(|value| Some(digits(i256::from_i128(value?), *scale))).collect::<Int32Array>()
        }
        DataType::Decimal256(_, scale) => {
            let values = column.as_primitive::<Decimal256Type>().iter();
            values.map(|value| Some(digits(value?, *scale))).collect()
        }
        of if of.is_floating() => {
            let values = cast(column, &DataType::Float64)?;
            let values = values.as_primitive::<Float64Type>().iter();
            let digits = |value: f64| {
                let text = format!("{value}");
                text.split_once('.').map_or(0, |(_, digits)| i32::try_from(digits.len()).unwrap_or(i32::MAX))
            };
            values.map(|value| value.filter(|value| value.is_finite()).map(digits)).collect()
        }
        _ => (0..column.len()).map(|row| column.is_valid(row).then_some(0)).collect(),
    }))
}

fn digits(value: i256, scale: i8) -> i32 {
    let ten = i256::from_i128(10);
    let (mut rest, mut scale) = (value, i32::from(scale.max(0)));
    while scale > 0 && rest % ten == i256::ZERO {
        rest /= ten;
        scale -= 1;
    }
    scale
}

fn bucket_type(found: &[DataType]) -> Result<DataType> {
    common(found).map(|_| DataType::Int32)
}

/// Returns the type in which a value is compared with the elements of an array.
fn common(found: &[DataType]) -> Result<DataType> {
    let common = match found {
        [value, DataType::List(item)] if value.is_null() => Some(item.data_type().clone()),
        [value, DataType::List(item)] => comparison_coercion(value, item.data_type()),
        _ => None,
    };
    common.ok_or_else(|| {
        let found: Vec<String> = found.iter().map(sql_type).collect();
        Error::invalid(format!("function \"width_bucket\" doesn't take {}", found.join(", ")))
            .hint("It takes a value and a sorted array of the same type, or a number, two bounds and a number of buckets.")
            .code(sqlstate::UNDEFINED_FUNCTION)
            .into()
    })
}

/// Returns the number of thresholds that are at most the value. As in PostgreSQL, they must be sorted.
fn bucket(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let common = common(&[columns[0].data_type().clone(), columns[1].data_type().clone()])?;
    let values = cast(&columns[0], &common)?;
    let lists: &ListArray = columns[1].as_list();
    let thresholds = cast(lists.values(), &common)?;
    let compare = make_comparator(&values, &thresholds, SortOptions::default())?;
    let offsets = lists.value_offsets();
    let rows = (0..values.len()).map(|row| {
        if values.is_null(row) || lists.is_null(row) {
            return Ok(None);
        }
        let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        if (start..end).any(|place| thresholds.is_null(place)) {
            return Err(Error::invalid("thresholds array must not contain NULLs")
                .code(sqlstate::NULL_VALUE_NOT_ALLOWED));
        }
        let (mut low, mut high) = (start, end);
        while low < high {
            let middle = low.midpoint(high);
            match compare(row, middle).is_lt() {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        Ok(i32::try_from(low - start).ok())
    });
    Ok(Arc::new(rows.collect::<Result<Int32Array, Error>>()?))
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn decimals_become_whole() {
        let tables = Tables::new().table(
            "t",
            "(a NUMERIC, b NUMERIC(5, 2), c DOUBLE, d NUMERIC(38, 0))",
            "VALUES (42.2, -7.5, 1.5, 3), (-0.5, 999.99, -1.5, -4), (NULL, NULL, NULL, NULL)",
        );
        tables.check(
            "SELECT ceil(a), floor(b), trunc(b), ceil(c), floor(d) FROM t",
            &["0|999|999|-1.0|-4", "43|-8|-7|2.0|3", "NULL|NULL|NULL|NULL|NULL"],
        );
        tables.check("SELECT ceil(a) + 1, trunc(b, 1) FROM t WHERE d = 3", &["44|-7.50"]);
        tables.check(
            "SELECT min_scale(a), min_scale(b), min_scale(c), min_scale(d), min_scale(8.4100) FROM t",
            &["1|1|1|0|2", "1|2|1|0|2", "NULL|NULL|NULL|NULL|2"],
        );
    }

    #[test]
    fn values_lie_between_thresholds() {
        let tables = Tables::new().table("t", "(v INT)", "VALUES (0), (1), (2), (3), (9), (NULL)");
        tables.check(
            "SELECT v, width_bucket(v, ARRAY[1, 3, 3.5]) FROM t",
            &["0|0", "1|1", "2|1", "3|2", "9|3", "NULL|NULL"],
        );
        tables.check("SELECT width_bucket('b', ARRAY['a', 'c']), width_bucket(1, '{}'::int[])", &["1|0"]);
        tables.fails(
            "SELECT width_bucket(v, ARRAY[1, NULL]) FROM t",
            "thresholds array must not contain NULLs",
        );
    }
}
