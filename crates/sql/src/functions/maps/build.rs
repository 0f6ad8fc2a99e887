//! Functions that make maps: of other maps, of arrays and of text.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, interleave};
use arrow::datatypes::{DataType, FieldRef};
use arrow::row::{RowConverter, SortField};
use datafusion::error::Result;
use datafusion::functions_nested::map::MapFunc;
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::type_coercion::binary::type_union_resolution;
use millstream_delta::sql_type;

use super::{entry_fields, map_array, map_type};
use crate::error::Error;
use crate::functions::Registry;
use crate::functions::lambdas::elements::Elements;
use crate::functions::scalar::{Scalar, Typed};
use crate::functions::spark_texts::Patterns;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let one_type = |arguments: &[DataType]| common_type("map_concat", arguments);
    registry.add(Scalar::any("map_concat", one_type, |columns| united("map_concat", columns, false)));
    let one_type = |arguments: &[DataType]| common_type("map_union", arguments);
    registry.add(Scalar::any("map_union", one_type, |columns| united("map_union", columns, true)));
    let of_arrays: Typed = |arguments| type_of_arrays("map_from_arrays", arguments);
    registry.add(Scalar::any("map_from_arrays", of_arrays, |columns| {
        map_from_arrays("map_from_arrays", columns)
    }));
    // DataFusion's takes values of other rows if one of the arrays is NULL or has another length.
    let is_theirs = |function: &ScalarUDF| function.inner().is::<MapFunc>();
    registry.replace("map", is_theirs, |_| {
        let of_arrays: Typed = |arguments| type_of_arrays("map", arguments);
        Scalar::any("map", of_arrays, |columns| map_from_arrays("map", columns))
    });
    registry.add(Scalar::any("map_from_entries", type_of_entries, map_from_entries));
    let text = |_: &[DataType]| Ok(map_type(&DataType::Utf8View, &DataType::Utf8View));
    registry.add(Scalar::exact("text_to_map", vec![DataType::Utf8View; 3], text, text_to_map));
}

/// Returns the type of maps to which all arguments can be cast.
fn common_type(name: &str, arguments: &[DataType]) -> Result<DataType> {
    let mut fields: Vec<(&FieldRef, &FieldRef)> = Vec::new();
    for argument in arguments.iter().filter(|argument| !argument.is_null()) {
        match entry_fields(argument) {
            Some(found) => fields.push(found),
            None => {
                return Err(Error::invalid(format!("{name} takes maps, not {}", sql_type(argument))).into());
            }
        }
    }
    let resolved = |of: &dyn Fn(&(&FieldRef, &FieldRef)) -> DataType| {
        let types: Vec<DataType> = fields.iter().map(of).collect();
        if types.is_empty() { Some(DataType::Null) } else { type_union_resolution(&types) }
    };
    let (key, value) =
        (resolved(&|(key, _)| key.data_type().clone()), resolved(&|(_, value)| value.data_type().clone()));
    match (key, value) {
        (Some(key), Some(value)) => Ok(map_type(&key, &value)),
        _ => Err(Error::invalid(format!("{name} takes maps whose keys and values have one type"))
            .hint("Cast a map: m::MAP(TEXT, INT) has no short form; build it of values that are cast.")
            .into()),
    }
}

/// Returns the maps with the entries of all arguments. If `replaces`, the last entry of a key counts.
fn united(name: &str, columns: &[ArrayRef], replaces: bool) -> Result<ArrayRef> {
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    let result = common_type(name, &types)?;
    let Some((key, _)) = entry_fields(&result) else { return Ok(Arc::clone(&columns[0])) };
    let maps = columns.iter().map(|column| Elements::of(&cast(column, &result)?));
    let maps = maps.collect::<Result<Vec<_>>>()?;
    let rows = maps.first().map_or(0, |map| map.lengths.len());
    let nulls = maps.iter().fold(None, |nulls, map| NullBuffer::union(nulls.as_ref(), map.nulls.as_ref()));
    let converter = RowConverter::new(vec![SortField::new(key.data_type().clone())])?;
    let keys = maps.iter().map(|map| converter.convert_columns(std::slice::from_ref(&map.columns[0])));
    let keys = keys.collect::<std::result::Result<Vec<_>, _>>()?;
    let starts: Vec<Vec<usize>> = maps.iter().map(Elements::starts).collect();
    let mut places: Vec<(usize, usize)> = Vec::new();
    let mut values: Vec<(usize, usize)> = Vec::new();
    let mut lengths = vec![0; rows];
    for row in (0..rows).filter(|row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row))) {
        let begin = places.len();
        let mut known = HashMap::new();
        for (map, elements) in maps.iter().enumerate() {
            for at in starts[map][row]..starts[map][row] + elements.lengths[row] {
                match known.insert(keys[map].row(at), places.len()).filter(|_| replaces) {
                    Some(place) => {
                        values[place] = (map, at);
                        known.insert(keys[map].row(at), place);
                    }
                    None => {
                        places.push((map, at));
                        values.push((map, at));
                    }
                }
            }
        }
        lengths[row] = places.len() - begin;
    }
    let column = |at: usize, places: &[(usize, usize)]| {
        let columns: Vec<&dyn Array> = maps.iter().map(|map| map.columns[at].as_ref()).collect();
        interleave(&columns, places)
    };
    map_array(name, column(0, &places)?, column(1, &values)?, &lengths, nulls)
}

fn element_type(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            Some(field.data_type())
        }
        DataType::Null => Some(data_type),
        _ => None,
    }
}

fn type_of_arrays(name: &str, arguments: &[DataType]) -> Result<DataType> {
    let found = match arguments {
        [keys, values] => element_type(keys).zip(element_type(values)),
        _ => None,
    };
    let Some((key, value)) = found else {
        return Err(Error::invalid(format!("{name} takes an array of keys and one of values")).into());
    };
    Ok(map_type(key, value))
}

/// Returns the elements of a column of arrays of any kind.
fn elements(column: &ArrayRef) -> Result<Elements> {
    let element = element_type(column.data_type()).cloned().unwrap_or(DataType::Null);
    Elements::of(&cast(column, &DataType::new_list(element, true))?)
}

fn map_from_arrays(name: &str, columns: &[ArrayRef]) -> Result<ArrayRef> {
    let nulls = NullBuffer::union(columns[0].logical_nulls().as_ref(), columns[1].logical_nulls().as_ref());
    let only_both = |column: &ArrayRef| -> Result<ArrayRef> {
        let Some(nulls) = &nulls else { return Ok(Arc::clone(column)) };
        let absent = arrow::array::BooleanArray::new(!nulls.inner(), None);
        Ok(arrow::compute::nullif(column, &absent)?)
    };
    let (keys, values) = (elements(&only_both(&columns[0])?)?, elements(&only_both(&columns[1])?)?);
    let mut lengths = keys.lengths.iter().zip(&values.lengths);
    if let Some((keys, values)) = lengths.find(|(keys, values)| keys != values) {
        let found = format!("{name} has {keys} keys and {values} values");
        return Err(Error::invalid(found).hint("Both arrays must have the same length.").into());
    }
    let (keys, values, lengths) = (&keys.columns[0], &values.columns[0], &keys.lengths);
    map_array(name, Arc::clone(keys), Arc::clone(values), lengths, nulls)
}

fn type_of_entries(arguments: &[DataType]) -> Result<DataType> {
    let error = || {
        Error::invalid("map_from_entries takes an array of structs with two fields")
            .hint("map_from_entries(ARRAY[struct('a', 1), struct('b', 2)])")
    };
    match arguments {
        [DataType::Null] => Ok(map_type(&DataType::Null, &DataType::Null)),
        [of] => match element_type(of) {
            Some(DataType::Struct(fields)) if fields.len() == 2 => {
                Ok(map_type(fields[0].data_type(), fields[1].data_type()))
            }
            _ => Err(error().into()),
        },
        _ => Err(error().into()),
    }
}

/// An array with an entry that is NULL makes NULL.
fn map_from_entries(columns: &[ArrayRef]) -> Result<ArrayRef> {
    if columns[0].data_type().is_null() {
        return Ok(arrow::array::new_null_array(&type_of_entries(&[DataType::Null])?, columns[0].len()));
    }
    let all = elements(&columns[0])?;
    let entries = all.columns[0].as_struct();
    let starts = all.starts();
    let has_null = |row: usize| (starts[row]..starts[row] + all.lengths[row]).any(|at| entries.is_null(at));
    let whole = |row: usize| all.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) && !has_null(row);
    let present: Vec<bool> = (0..all.lengths.len()).map(whole).collect();
    let lengths: Vec<usize> = all
        .lengths
        .iter()
        .zip(&present)
        .map(|(length, present)| if *present { *length } else { 0 })
        .collect();
    let rows = all.lengths.iter().zip(&present);
    let mask = rows.flat_map(|(length, present)| std::iter::repeat_n(*present, *length));
    let mask = mask.collect::<Vec<bool>>().into();
    let column = |at: usize| arrow::compute::filter(entries.column(at), &mask);
    map_array("map_from_entries", column(0)?, column(1)?, &lengths, Some(NullBuffer::from(present)))
}

/// Splits a text at one pattern into pairs, and each pair at another into a key and a value.
fn text_to_map(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [texts, pairs, parts] = [0, 1, 2].map(|at| columns[at].as_string_view());
    let mut patterns = Patterns::default();
    let (mut keys, mut values) = (StringViewBuilder::new(), StringViewBuilder::new());
    let mut lengths = vec![0; texts.len()];
    let mut present = vec![false; texts.len()];
    for row in 0..texts.len() {
        if columns.iter().any(|column| column.is_null(row)) {
            continue;
        }
        present[row] = true;
        let between = patterns.get("str_to_map", pairs.value(row))?;
        let within = patterns.get("str_to_map", parts.value(row))?;
        for pair in between.split(texts.value(row)) {
            let mut parts = within.splitn(pair, 2);
            keys.append_value(parts.next().unwrap_or(""));
            values.append_option(parts.next());
            lengths[row] += 1;
        }
    }
    let (keys, values) = (Arc::new(keys.finish()), Arc::new(values.finish()));
    map_array("str_to_map", keys, values, &lengths, Some(NullBuffer::from(present)))
}
