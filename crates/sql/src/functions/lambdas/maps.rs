//! `map_filter`, `transform_keys`, `transform_values` and `map_zip_with`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::{interleave, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::row::{RowConverter, SortField};
use datafusion::error::Result;
use datafusion::logical_expr::LambdaParametersProgress;
use datafusion::logical_expr::type_coercion::binary::type_union_resolution;
use millstream_delta::sql_type;

use super::elements::Elements;
use super::{Call, Rules, boolean, parameter};
use crate::functions::maps::{entry_fields, map_array, map_type};

/// The functions.
pub(super) static FUNCTIONS: &[Rules] = &[
    Rules {
        name: "map_filter",
        values: 1,
        lambdas: (1, 1),
        cast: maps,
        parameters: key_and_value,
        result: |values, lambdas| boolean("map_filter", lambdas).map(|()| values[0].data_type().clone()),
        kernel: filter,
    },
    Rules {
        name: "transform_keys",
        values: 1,
        lambdas: (1, 1),
        cast: maps,
        parameters: key_and_value,
        result: |values, lambdas| {
            let value = entry_fields(values[0].data_type()).map(|(_, value)| value);
            Ok(map_type(lambdas[0].data_type(), value.map_or(&DataType::Null, |of| of.data_type())))
        },
        kernel: |call| {
            let elements = Elements::of(&call.values[0])?;
            let keys = call.evaluate(0, &elements.rows(), &elements.columns)?;
            map_array(
                call.rules.name,
                keys,
                Arc::clone(&elements.columns[1]),
                &elements.lengths,
                elements.nulls,
            )
        },
    },
    Rules {
        name: "transform_values",
        values: 1,
        lambdas: (1, 1),
        cast: maps,
        parameters: key_and_value,
        result: |values, lambdas| {
            let key = entry_fields(values[0].data_type()).map(|(key, _)| key);
            Ok(map_type(key.map_or(&DataType::Null, |of| of.data_type()), lambdas[0].data_type()))
        },
        kernel: |call| {
            let elements = Elements::of(&call.values[0])?;
            let values = call.evaluate(0, &elements.rows(), &elements.columns)?;
            map_array(
                call.rules.name,
                Arc::clone(&elements.columns[0]),
                values,
                &elements.lengths,
                elements.nulls,
            )
        },
    },
    Rules {
        name: "map_zip_with",
        values: 2,
        lambdas: (1, 1),
        cast: maps_of_one_key,
        parameters: |values, _| {
            let fields = values.iter().filter_map(|of| entry_fields(of.data_type()));
            let mut parameters = Vec::new();
            for (key, value) in fields {
                if parameters.is_empty() {
                    parameters.push(parameter(key));
                }
                parameters.push(parameter(value));
            }
            Ok(LambdaParametersProgress::Complete(vec![parameters]))
        },
        result: |values, lambdas| {
            let key = entry_fields(values[0].data_type()).map(|(key, _)| key);
            Ok(map_type(key.map_or(&DataType::Null, |of| of.data_type()), lambdas[0].data_type()))
        },
        kernel: zip_with,
    },
];

/// Returns the types if they are maps. NULL counts as one without entries.
fn maps(rules: &Rules, types: &[DataType]) -> Result<Vec<DataType>> {
    let map = |of: &DataType| match of {
        DataType::Map(entries, _) => Ok(DataType::Map(Arc::clone(entries), false)),
        DataType::Null => Ok(map_type(&DataType::Null, &DataType::Null)),
        other => Err(rules.error(&format!("takes a map first, not {}", sql_type(other))).into()),
    };
    types.iter().map(map).collect()
}

fn maps_of_one_key(rules: &Rules, types: &[DataType]) -> Result<Vec<DataType>> {
    let types = maps(rules, types)?;
    let fields: Vec<(&FieldRef, &FieldRef)> = types.iter().filter_map(entry_fields).collect();
    let keys: Vec<DataType> = fields.iter().map(|(key, _)| key.data_type().clone()).collect();
    let Some(key) = type_union_resolution(&keys) else {
        return Err(rules.error("takes two maps whose keys have one type").into());
    };
    Ok(fields.iter().map(|(_, value)| map_type(&key, value.data_type())).collect())
}

fn key_and_value(values: &[FieldRef], _: &[Option<FieldRef>]) -> Result<LambdaParametersProgress> {
    let parameters = match entry_fields(values[0].data_type()) {
        Some((key, value)) => vec![parameter(key), parameter(value)],
        None => ["key", "value"].map(|name| Arc::new(Field::new(name, DataType::Null, true))).into(),
    };
    Ok(LambdaParametersProgress::Complete(vec![parameters]))
}

fn filter(call: &Call<'_>) -> Result<ArrayRef> {
    let elements = Elements::of(&call.values[0])?;
    let mask = call.test(&elements.rows(), &elements.columns)?;
    let kept = elements.filtered(&mask)?;
    let (keys, values) = (Arc::clone(&kept.columns[0]), Arc::clone(&kept.columns[1]));
    map_array(call.rules.name, keys, values, &kept.lengths, kept.nulls)
}

/// Returns a value for each key of either map: first those of the first one, then the others.
fn zip_with(call: &Call<'_>) -> Result<ArrayRef> {
    let (one, other) = (Elements::of(&call.values[0])?, Elements::of(&call.values[1])?);
    let nulls = NullBuffer::union(one.nulls.as_ref(), other.nulls.as_ref());
    let converter = RowConverter::new(vec![SortField::new(one.columns[0].data_type().clone())])?;
    let rows_of = |of: &Elements| converter.convert_columns(std::slice::from_ref(&of.columns[0]));
    let (one_rows, other_rows) = (rows_of(&one)?, rows_of(&other)?);
    let (one_starts, other_starts) = (one.starts(), other.starts());
    // The places of the key, and of both values.
    let mut keys: Vec<(usize, usize)> = Vec::new();
    let mut places: [Vec<Option<u64>>; 2] = [Vec::new(), Vec::new()];
    let mut lengths = vec![0; call.rows];
    for row in (0..call.rows).filter(|row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row))) {
        let begin = keys.len();
        let mut known = HashMap::new();
        for at in one_starts[row]..one_starts[row] + one.lengths[row] {
            known.insert(one_rows.row(at), keys.len());
            keys.push((0, at));
            places[0].push(u64::try_from(at).ok());
            places[1].push(None);
        }
        for at in other_starts[row]..other_starts[row] + other.lengths[row] {
            match known.get(&other_rows.row(at)) {
                Some(place) => places[1][*place] = u64::try_from(at).ok(),
                None => {
                    keys.push((1, at));
                    places[0].push(None);
                    places[1].push(u64::try_from(at).ok());
                }
            }
        }
        lengths[row] = keys.len() - begin;
    }
    let sources: [&dyn Array; 2] = [one.columns[0].as_ref(), other.columns[0].as_ref()];
    let keys = interleave(&sources, &keys)?;
    let [one_places, other_places] = places.map(UInt64Array::from);
    let parameters = [
        Arc::clone(&keys),
        take(&one.columns[1], &one_places, None)?,
        take(&other.columns[1], &other_places, None)?,
    ];
    let zipped = Elements { columns: Vec::new(), lengths, nulls };
    let values = call.evaluate(0, &zipped.rows(), &parameters)?;
    map_array(call.rules.name, keys, values, &zipped.lengths, zipped.nulls)
}
