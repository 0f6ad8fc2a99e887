//! Lists behind Spark's generators, which FROM expands: `explode_outer`, `posexplode`, `inline`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StructArray, UInt64Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::error::Result;
use millstream_delta::sql_type;

use super::Registry;
use super::lambdas::elements::Elements;
use super::maps::entry_fields;
use super::scalar::Scalar;
use crate::error::Error;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let same = |arguments: &[DataType]| element("explode_outer", arguments).map(list_of);
    registry.add(Scalar::any("array_or_null", same, array_or_null));
    registry.add(Scalar::any("array_places", places_type, array_places));
    registry.add(Scalar::any("inline_fields", inline_type, inline_fields));
}

/// Returns the field of the elements of the only argument.
fn element(name: &str, arguments: &[DataType]) -> Result<Arc<Field>> {
    match arguments {
        [DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _)] => {
            Ok(Arc::clone(field))
        }
        [DataType::Null] => Ok(Arc::new(Field::new_list_field(DataType::Null, true))),
        [DataType::Map(..)] => {
            Err(Error::invalid(format!("{name} of a map has a column for the key and one for the value"))
                .hint(format!("Name both: {name}(m) AS t(key, value)."))
                .into())
        }
        [other] => Err(Error::invalid(format!("{name} takes an array, not {}", sql_type(other))).into()),
        _ => Err(Error::invalid(format!("{name} takes one argument")).into()),
    }
}

fn list_of(element: Arc<Field>) -> DataType {
    DataType::List(Arc::new(
        element.as_ref().clone().with_name(Field::LIST_FIELD_DEFAULT_NAME).with_nullable(true),
    ))
}

/// Returns the elements of a column of arrays.
fn elements(column: &ArrayRef, element: Arc<Field>) -> Result<Elements> {
    Elements::of(&cast(column, &list_of(element))?)
}

fn list(element: Arc<Field>, lengths: &[usize], values: ArrayRef, nulls: &dyn Array) -> Result<ArrayRef> {
    let DataType::List(field) = list_of(element) else {
        return Err(Error::invalid("an array was expected").into());
    };
    let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
    Ok(Arc::new(ListArray::try_new(field, offsets, values, nulls.logical_nulls())?))
}

/// Returns an array with a NULL instead of one that is empty or NULL.
fn array_or_null(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let field = element("explode_outer", &[columns[0].data_type().clone()])?;
    let all = elements(&columns[0], Arc::clone(&field))?;
    let starts = all.starts();
    let rows = all.lengths.iter().zip(starts);
    let places = rows.flat_map(|(length, start)| {
        (0..(*length).max(1)).map(move |at| if at < *length { u64::try_from(start + at).ok() } else { None })
    });
    let values = take(&all.columns[0], &places.collect::<UInt64Array>(), None)?;
    let lengths: Vec<usize> = all.lengths.iter().map(|length| (*length).max(1)).collect();
    let no_nulls = arrow::array::BooleanArray::from(vec![true; lengths.len()]);
    list(field, &lengths, values, &no_nulls)
}

fn places_type(arguments: &[DataType]) -> Result<DataType> {
    Ok(list_of(placed(arguments)?))
}

/// Returns the field of elements with their places: of an array `pos` and `col`; of a map `pos`, `key` and `value`.
fn placed(arguments: &[DataType]) -> Result<Arc<Field>> {
    let place = Arc::new(Field::new("pos", DataType::Int64, true));
    let fields = match arguments.first().and_then(entry_fields) {
        Some((key, value)) => {
            let named =
                |field: &Field, name: &str| Arc::new(field.clone().with_name(name).with_nullable(true));
            vec![place, named(key, "key"), named(value, "value")]
        }
        None => {
            let field = element("posexplode", arguments)?;
            vec![place, Arc::new(field.as_ref().clone().with_name("col").with_nullable(true))]
        }
    };
    Ok(Arc::new(Field::new_list_field(DataType::Struct(Fields::from(fields)), true)))
}

fn array_places(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let field = placed(&[columns[0].data_type().clone()])?;
    let DataType::Struct(fields) = field.data_type().clone() else {
        return Err(Error::invalid("posexplode takes an array or a map").into());
    };
    let all = match columns[0].data_type() {
        DataType::Map(..) => Elements::of(&columns[0])?,
        _ => elements(&columns[0], element("posexplode", &[columns[0].data_type().clone()])?)?,
    };
    let places = all.lengths.iter().flat_map(|length| (0_i64..).take(*length));
    let mut parts: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(places))];
    parts.extend(all.columns.iter().cloned());
    let values = Arc::new(StructArray::try_new(fields, parts, None)?);
    list(field, &all.lengths, values, &columns[0])
}

fn inline_type(arguments: &[DataType]) -> Result<DataType> {
    Ok(list_of(inlined(arguments)?))
}

/// Returns the field of structs whose fields are named by their places: `c1`, `c2`.
fn inlined(arguments: &[DataType]) -> Result<Arc<Field>> {
    let field = element("inline", arguments)?;
    let DataType::Struct(fields) = field.data_type() else {
        return Err(Error::invalid(format!(
            "inline takes an array of structs, not of {}",
            sql_type(field.data_type())
        ))
        .into());
    };
    let named = fields
        .iter()
        .enumerate()
        .map(|(at, field)| field.as_ref().clone().with_name(format!("c{}", at + 1)).with_nullable(true));
    Ok(Arc::new(Field::new_list_field(DataType::Struct(named.collect()), true)))
}

fn inline_fields(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let of = columns[0].data_type().clone();
    let field = inlined(std::slice::from_ref(&of))?;
    let all = elements(&columns[0], element("inline", &[of])?)?;
    let rows = all.columns[0].as_struct();
    let DataType::Struct(fields) = field.data_type().clone() else {
        return Err(Error::invalid("inline takes an array of structs").into());
    };
    // The fields of a struct that is NULL are NULL.
    let parts = match rows.nulls() {
        None => rows.columns().to_vec(),
        Some(nulls) => {
            let absent = arrow::array::BooleanArray::new(!nulls.inner(), None);
            let parts = rows.columns().iter().map(|part| Ok(arrow::compute::nullif(part, &absent)?));
            parts.collect::<Result<_>>()?
        }
    };
    let values = Arc::new(StructArray::try_new(fields, parts, rows.nulls().cloned())?);
    list(field, &all.lengths, values, &columns[0])
}
