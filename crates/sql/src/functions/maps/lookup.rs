//! `element_at`, `try_element_at` and `map_contains_key`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt64Array, new_null_array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Int64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::error::Result;
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::type_coercion::binary::type_union_resolution;
use millstream_delta::sql_type;

use super::entry_fields;
use crate::error::Error;
use crate::functions::Registry;
use crate::functions::lambdas::elements::Elements;
use crate::functions::scalar::Scalar;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    // DataFusion's function of this name returns an array.
    registry.replace("element_at", |function| function.name() == "map_extract", |_| element_at());
    let element_of = |types: &[DataType]| element_type("try_element_at", types);
    registry.add(Scalar::any("try_element_at", element_of, |columns| element(columns, true)));
    registry.add(Scalar::any("map_contains_key", contains_type, contains_key));
}

/// Returns the function of an element of an array or a map.
pub(crate) fn element_at() -> ScalarUDF {
    let typed = |types: &[DataType]| element_type("element_at", types);
    Scalar::any("element_at", typed, |columns| element(columns, false))
}

fn element_type(name: &str, arguments: &[DataType]) -> Result<DataType> {
    match arguments {
        [DataType::Null, _] => Ok(DataType::Null),
        [DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _), place]
            if place.is_integer() || place.is_null() =>
        {
            Ok(field.data_type().clone())
        }
        [map @ DataType::Map(..), _] => {
            Ok(entry_fields(map).map_or(DataType::Null, |(_, value)| value.data_type().clone()))
        }
        [of, at] => Err(Error::invalid(format!(
            "{name} takes an array and a whole number, or a map and a key, not {} and {}",
            sql_type(of),
            sql_type(at)
        ))
        .into()),
        _ => Err(Error::invalid(format!("{name} takes an array and a place, or a map and a key")).into()),
    }
}

/// Returns the element at a place, counted from 1 or, if negative, from the end; or the value of a key.
fn element(columns: &[ArrayRef], tries: bool) -> Result<ArrayRef> {
    let rows = columns[0].len();
    match columns[0].data_type() {
        DataType::Null => Ok(new_null_array(&DataType::Null, rows)),
        DataType::Map(..) => {
            let elements = Elements::of(&columns[0])?;
            let places: UInt64Array = places_of_keys(&elements, &columns[1])?.into_iter().collect();
            Ok(take(&elements.columns[1], &places, None)?)
        }
        other => {
            let element = element_type("element_at", &[other.clone(), DataType::Int64])?;
            let elements = Elements::of(&cast(&columns[0], &DataType::new_list(element, true))?)?;
            let wanted = cast(&columns[1], &DataType::Int64)?;
            let wanted = wanted.as_primitive::<Int64Type>();
            let starts = elements.starts();
            let places = (0..rows).map(|row| {
                if columns[0].is_null(row) || wanted.is_null(row) {
                    return Ok(None);
                }
                let (place, length) = (wanted.value(row), elements.lengths[row]);
                let found = match place {
                    0 => return Err(at_zero(tries)),
                    1.. => usize::try_from(place - 1).ok().filter(|at| *at < length),
                    _ => usize::try_from(place.unsigned_abs()).ok().and_then(|back| length.checked_sub(back)),
                };
                match found {
                    Some(at) => Ok(u64::try_from(starts[row] + at).ok()),
                    None if tries => Ok(None),
                    None => Err(Error::invalid(format!(
                        "element_at({place}) of an array of {length} elements is outside of it"
                    ))
                    .hint("try_element_at gives NULL there.")),
                }
            });
            let places = places.collect::<std::result::Result<UInt64Array, Error>>()?;
            Ok(take(&elements.columns[0], &places, None)?)
        }
    }
}

fn at_zero(tries: bool) -> Error {
    let name = if tries { "try_element_at" } else { "element_at" };
    Error::invalid(format!("{name} of an array counts from 1, or from -1 at its end, but 0 was given"))
}

/// Returns the place of each row's key among the entries.
fn places_of_keys(elements: &Elements, keys: &ArrayRef) -> Result<Vec<Option<u64>>> {
    let of = elements.columns[0].data_type();
    if of.is_null() {
        return Ok(vec![None; elements.lengths.len()]);
    }
    let types = [of.clone(), keys.data_type().clone()];
    let Some(common) = type_union_resolution(&types) else {
        let (of, other) = (sql_type(of), sql_type(keys.data_type()));
        return Err(
            Error::invalid(format!("the map has keys of type {of}, but the key is of type {other}")).into()
        );
    };
    let (has, keys) = (cast(&elements.columns[0], &common)?, cast(keys, &common)?);
    let converter = RowConverter::new(vec![SortField::new(common)])?;
    let has = converter.convert_columns(&[has])?;
    let wanted = converter.convert_columns(std::slice::from_ref(&keys))?;
    let starts = elements.starts();
    let rows = (0..elements.lengths.len()).map(|row| {
        let mut entries = starts[row]..starts[row] + elements.lengths[row];
        let found = entries.find(|at| keys.is_valid(row) && has.row(*at) == wanted.row(row));
        found.and_then(|at| u64::try_from(at).ok())
    });
    Ok(rows.collect())
}

fn contains_type(arguments: &[DataType]) -> Result<DataType> {
    match arguments {
        [DataType::Map(..) | DataType::Null, _] => Ok(DataType::Boolean),
        [other, _] => {
            Err(Error::invalid(format!("map_contains_key takes a map, not {}", sql_type(other))).into())
        }
        _ => Err(Error::invalid("map_contains_key takes a map and a key").into()),
    }
}

fn contains_key(columns: &[ArrayRef]) -> Result<ArrayRef> {
    if columns.iter().any(|column| column.data_type().is_null()) {
        return Ok(new_null_array(&DataType::Boolean, columns[0].len()));
    }
    let elements = Elements::of(&columns[0])?;
    let places = places_of_keys(&elements, &columns[1])?;
    let rows = places.into_iter().enumerate();
    let found = rows.map(|(row, place)| {
        (columns[0].is_valid(row) && columns[1].is_valid(row)).then_some(place.is_some())
    });
    Ok(Arc::new(found.collect::<BooleanArray>()))
}
