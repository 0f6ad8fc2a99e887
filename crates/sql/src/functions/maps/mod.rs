//! Maps of Spark and Flink: `map_concat`, `map_from_arrays`, `map_from_entries`, `str_to_map`, `element_at`.
//!
//! The keys of a map aren't NULL, and differ from each other.

mod build;
mod lookup;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, MapArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use datafusion::error::Result;

pub(crate) use self::lookup::element_at;
use super::Registry;
use crate::error::Error;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    build::register(registry);
    lookup::register(registry);
}

/// Returns the type of a map.
pub(super) fn map_type(key: &DataType, value: &DataType) -> DataType {
    let entries =
        Fields::from(vec![Field::new("key", key.clone(), false), Field::new("value", value.clone(), true)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
}

/// Returns the fields of a map's keys and values.
pub(super) fn entry_fields(data_type: &DataType) -> Option<(&FieldRef, &FieldRef)> {
    let DataType::Map(entries, _) = data_type else { return None };
    match entries.data_type() {
        DataType::Struct(fields) => Some((fields.first()?, fields.get(1)?)),
        _ => None,
    }
}

/// Builds a column of maps; an error if a key is NULL or occurs twice in a map.
pub(super) fn map_array(
    name: &str,
    keys: ArrayRef,
    values: ArrayRef,
    lengths: &[usize],
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    if keys.null_count() > 0 || (keys.data_type().is_null() && !keys.is_empty()) {
        return Err(Error::invalid(format!("{name} makes a map with a key that is NULL"))
            .hint("Leave such entries out, or use coalesce.")
            .into());
    }
    // The row format has no NULL type.
    let keys = if keys.data_type().is_null() { cast(&keys, &DataType::Utf8)? } else { keys };
    refuse_duplicates(name, &keys, lengths)?;
    let DataType::Map(field, sorted) = map_type(keys.data_type(), values.data_type()) else {
        return Err(Error::invalid(format!("{name} makes no map")).into());
    };
    let DataType::Struct(fields) = field.data_type() else {
        return Err(Error::invalid(format!("{name} makes no map")).into());
    };
    let entries = StructArray::try_new(fields.clone(), vec![keys, values], None)?;
    let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
    Ok(Arc::new(MapArray::try_new(field, offsets, entries, nulls, sorted)?))
}

fn refuse_duplicates(name: &str, keys: &ArrayRef, lengths: &[usize]) -> Result<()> {
    if lengths.iter().all(|length| *length < 2) {
        return Ok(());
    }
    let converter = RowConverter::new(vec![SortField::new(keys.data_type().clone())])?;
    let rows = converter.convert_columns(std::slice::from_ref(keys))?;
    let mut start = 0;
    for length in lengths {
        let mut seen = HashSet::with_capacity(*length);
        if let Some(at) = (start..start + length).find(|at| !seen.insert(rows.row(*at))) {
            let key = array_value_to_string(keys, at)?;
            return Err(Error::invalid(format!("{name} makes a map with the key {key} twice"))
                .hint("A key occurs once in a map.")
                .into());
        }
        start += length;
    }
    Ok(())
}
