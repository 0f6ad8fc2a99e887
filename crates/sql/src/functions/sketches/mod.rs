//! Sketches of Apache DataSketches and of Spark: `hll_sketch_agg`, `theta_union`, `kll_sketch_get_quantile_bigint`.
//!
//! A sketch is a value of the type BYTEA. An aggregate of sketches is a function of `array_agg`, see
//! [`crate::ast_rewrite`]: the elements there have one order, so the same rows give the same bytes, also after deletes.
//! The state has all rows; a sketch is small where it is stored or sent.

mod count_min;
mod hll;
mod kll;
mod kll_functions;
mod theta;
mod top_k;
mod tuple;
mod tuple_sets;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::error::Result;
use datasketches::hash::value::{canonical_float, raw_bytes};
use millstream_delta::sql_type;

use super::Registry;
use super::spark_texts::bytes_of;
use crate::error::Error;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    hll::register(registry);
    theta::register(registry);
    tuple::register(registry);
    tuple_sets::register(registry);
    kll_functions::register(registry);
    count_min::register(registry);
    top_k::register(registry);
}

/// The values that a sketch counts.
enum Keys {
    Long(Int64Array),
    Double(Float64Array),
    Bytes(BinaryViewArray),
}

/// A value that a sketch counts. Its hash is that of DataSketches in Java and C++.
enum Key<'a> {
    Long(i64),
    Double(f64),
    Bytes(&'a [u8]),
}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Key::Long(number) => number.hash(state),
            Key::Double(number) => canonical_float::from_f64(*number).hash(state),
            Key::Bytes(bytes) => raw_bytes::from_slice(bytes).hash(state),
        }
    }
}

impl Keys {
    fn of(name: &str, column: &ArrayRef) -> Result<Keys> {
        Ok(match column.data_type() {
            of if of.is_integer() || of.is_null() => {
                Keys::Long(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            DataType::Float32 | DataType::Float64 => {
                Keys::Double(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
            }
            of if of.is_string() || of.is_binary() => Keys::Bytes(bytes_of(column)?.as_binary_view().clone()),
            other => return Err(keys_error(name, other)),
        })
    }

    /// Returns a value; none for NULL and, as in DataSketches, for an empty text.
    fn get(&self, at: usize) -> Option<Key<'_>> {
        match self {
            Keys::Long(numbers) => numbers.is_valid(at).then(|| Key::Long(numbers.value(at))),
            Keys::Double(numbers) => numbers.is_valid(at).then(|| Key::Double(numbers.value(at))),
            Keys::Bytes(bytes) => {
                bytes.is_valid(at).then(|| bytes.value(at)).filter(|bytes| !bytes.is_empty()).map(Key::Bytes)
            }
        }
    }
}

fn keys_error(name: &str, found: &DataType) -> datafusion::error::DataFusionError {
    let found = sql_type(found);
    Error::invalid(format!("{name} counts whole numbers, DOUBLE PRECISION, TEXT and BYTEA, not {found}"))
        .hint("Cast the value, as in x::TEXT.")
        .into()
}

/// Returns the type of a list's elements.
fn element_type<'a>(name: &str, list: &'a DataType) -> Result<&'a DataType> {
    match list {
        DataType::List(field) => Ok(field.data_type()),
        DataType::Null => Ok(list),
        other => Err(Error::invalid(format!("{name} takes an array, not {}", sql_type(other))).into()),
    }
}

/// Checks that an argument is a sketch.
fn is_sketch(of: &DataType) -> bool {
    of.is_binary() || of.is_null()
}

/// Returns the type of a function whose first arguments are sketches and whose other ones are options.
fn of_sketches(name: &str, types: &[DataType], sketches: usize, returned: DataType) -> Result<DataType> {
    match types.get(..sketches).is_some_and(|types| types.iter().all(is_sketch)) {
        true => Ok(returned),
        false => {
            let what = if sketches == 1 { "a sketch".to_string() } else { format!("{sketches} sketches") };
            let problem = format!("{name} takes {what}, that is BYTEA");
            Err(Error::invalid(problem).hint("An aggregate such as hll_sketch_agg makes one.").into())
        }
    }
}

/// Returns the type of an aggregate's function of an array: of values if `keys`, or else of sketches.
fn of_list(name: &str, types: &[DataType], keys: bool) -> Result<DataType> {
    let Some(list) = types.first() else {
        return Err(Error::invalid(format!("{name} takes an array")).into());
    };
    let element = element_type(name, list)?;
    let is_key = element.is_integer()
        || matches!(element, DataType::Float32 | DataType::Float64 | DataType::Null)
        || element.is_string()
        || element.is_binary();
    match keys {
        true if !is_key => Err(keys_error(name, element)),
        false => of_sketches(name, std::slice::from_ref(element), 1, DataType::Binary),
        true => Ok(DataType::Binary),
    }
}

/// Returns a column of sketches.
fn sketches(column: &ArrayRef) -> Result<BinaryViewArray> {
    Ok(cast(column, &DataType::BinaryView)?.as_binary_view().clone())
}

/// Returns a whole number of an option; none if it is NULL or left out.
fn number(columns: &[ArrayRef], at: usize, row: usize) -> Result<Option<i64>> {
    let Some(column) = columns.get(at).filter(|column| column.is_valid(row)) else { return Ok(None) };
    match column.data_type() {
        of if of.is_integer() => {
            let value = cast(&column.slice(row, 1), &DataType::Int64)?;
            let value = value.as_primitive::<Int64Type>();
            Ok(value.is_valid(0).then(|| value.value(0)))
        }
        DataType::Null => Ok(None),
        other => Err(Error::invalid(format!("a whole number was expected, not {}", sql_type(other))).into()),
    }
}

/// Returns the base-2 logarithm of a sketch's size; an error if it isn't in the range.
fn lg_size(name: &str, given: Option<i64>, default: u8, range: std::ops::RangeInclusive<u8>) -> Result<u8> {
    let Some(given) = given else { return Ok(default) };
    u8::try_from(given).ok().filter(|size| range.contains(size)).ok_or_else(|| {
        let (least, most) = range.into_inner();
        Error::invalid(format!(
            "{name} takes the logarithm of its size from {least} to {most}, but {given} was given"
        ))
        .into()
    })
}

/// Returns the error for bytes that are no sketch of a function, or for sketches that don't fit.
fn broken(name: &str, error: &datasketches::error::Error) -> datafusion::error::DataFusionError {
    Error::invalid(format!("{name} can't read a sketch: {}", error.message()))
        .hint("It takes sketches of its own kind, as its aggregate makes them.")
        .into()
}

/// Makes a sketch for each row.
fn sketch_rows(rows: usize, each: impl FnMut(usize) -> Result<Option<Vec<u8>>>) -> Result<ArrayRef> {
    let sketches = (0..rows).map(each).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(sketches.iter().map(Option::as_deref).collect::<BinaryArray>()))
}
