//! `from_json(text, 'a INT, b ARRAY<STRING>')` of Spark: JSON as a struct, an array or a map.
//!
//! A text that is no JSON gives a struct whose fields are NULL. So does a value of another type than its field's.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListArray, StringViewArray,
    StructArray, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use millstream_delta::sql_type;

use super::typed_schema;
use super::value::Value;
use crate::error::Error;
use crate::functions::Registry;
use crate::functions::maps::{entry_fields, map_array};
use crate::functions::spark_options::{with_moments, with_texts};

/// Registers the function.
pub(super) fn register(registry: &mut Registry<'_>) {
    let signature = Signature::variadic_any(Volatility::Immutable);
    registry.add(ScalarUDF::from(FromJson { unit: registry.unit, signature }));
}

/// The function.
#[derive(Debug)]
struct FromJson {
    /// The unit of times.
    unit: TimeUnit,
    signature: Signature,
}

impl PartialEq for FromJson {
    fn eq(&self, _: &FromJson) -> bool {
        true
    }
}

impl Eq for FromJson {}

impl Hash for FromJson {
    fn hash<H: Hasher>(&self, state: &mut H) {
        "from_json".hash(state);
    }
}

impl ScalarUDFImpl for FromJson {
    fn name(&self) -> &'static str {
        "from_json"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Err(Error::invalid("from_json takes a type that is a literal").into())
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if let Some(of) = arguments.arg_fields.first().map(|field| field.data_type())
            && !of.is_string()
            && !of.is_null()
        {
            return Err(Error::invalid(format!("from_json takes a text first, not {}", sql_type(of))).into());
        }
        let written = arguments.scalar_arguments.get(1).copied().flatten();
        let Some(Some(text)) = written.and_then(|value| value.try_as_str()) else {
            return Err(Error::invalid("from_json takes a type that is a literal")
                .hint("from_json(text, 'a INT, b ARRAY<STRING>')")
                .into());
        };
        if let Some(pattern) = arguments.scalar_arguments.get(2)
            && pattern.and_then(|pattern| pattern.try_as_str()).flatten().is_none()
        {
            return Err(Error::invalid("from_json takes the pattern of timestamps as a literal").into());
        }
        let of = typed_schema::parse(text, self.unit)?;
        match of {
            DataType::Struct(_) | DataType::List(_) | DataType::Map(..) => {
                Ok(Arc::new(Field::new("from_json", of, true)))
            }
            _ => Err(Error::invalid(format!(
                "from_json makes a struct, an array or a map, not {}",
                sql_type(&of)
            ))
            .hint("Cast a text that is a number, as in x::INT.")
            .into()),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let texts = arguments.args.first().map(|text| text.to_array(rows)).transpose()?;
        let Some(texts) = texts else { return Err(Error::invalid("from_json takes a text").into()) };
        let texts = cast(&texts, &DataType::Utf8View)?;
        let promised = arguments.return_field.data_type();
        let pattern = match arguments.args.get(2) {
            Some(ColumnarValue::Scalar(pattern)) => pattern.try_as_str().flatten(),
            _ => None,
        };
        let texts_of = pattern.map(|_| with_texts(promised));
        let of = texts_of.as_ref().unwrap_or(promised);
        // Of a text that is no JSON, a struct has fields that are NULL, and an array or a map is NULL.
        let is_struct = matches!(of, DataType::Struct(_));
        let read = |text: &str| match Value::as_written(text) {
            _ if text.trim().is_empty() => None,
            Ok(value) => Some(value),
            Err(_) => is_struct.then(|| Value::Object(Vec::new())),
        };
        let values: Vec<Option<Value>> =
            texts.as_string_view().iter().map(|text| text.and_then(read)).collect();
        let values: Vec<Option<&Value>> = values.iter().map(Option::as_ref).collect();
        let read = column(&values, of, true)?;
        Ok(ColumnarValue::Array(match pattern {
            Some(pattern) => with_moments(&read, promised, pattern)?,
            None => read,
        }))
    }
}

/// Returns values as a column of a type. A value of another type is NULL.
pub(super) fn column(values: &[Option<&Value>], of: &DataType, is_root: bool) -> Result<ArrayRef> {
    match of {
        DataType::Struct(fields) => structs(values, fields, is_root),
        DataType::List(element) => {
            let lists: Vec<Option<&[Value]>> = values
                .iter()
                .map(|value| match value {
                    Some(Value::Array(elements)) => Some(elements.as_slice()),
                    // At the root, Spark takes one object for an array of it.
                    Some(value @ Value::Object(members)) if is_root && !members.is_empty() => {
                        Some(std::slice::from_ref(*value))
                    }
                    _ => None,
                })
                .collect();
            let elements: Vec<Option<&Value>> =
                lists.iter().flatten().flat_map(|list| list.iter()).map(present).collect();
            let elements = column(&elements, element.data_type(), false)?;
            let offsets = OffsetBuffer::from_lengths(lists.iter().map(|list| list.map_or(0, <[_]>::len)));
            let nulls = NullBuffer::from_iter(lists.iter().map(Option::is_some));
            Ok(Arc::new(ListArray::try_new(Arc::clone(element), offsets, elements, Some(nulls))?))
        }
        DataType::Map(..) => maps(values, of),
        _ => Ok(leaves(values, of)?),
    }
}

fn present(value: &Value) -> Option<&Value> {
    (*value != Value::Null).then_some(value)
}

fn structs<'v>(values: &[Option<&'v Value>], fields: &Fields, is_root: bool) -> Result<ArrayRef> {
    let objects: Vec<Option<&'v Vec<(String, Value)>>> = values
        .iter()
        .map(|value| match value {
            Some(Value::Object(members)) => Some(members),
            _ => None,
        })
        .collect();
    let columns = fields.iter().map(|field| {
        let member = |object: &&'v Vec<(String, Value)>| {
            let found = object.iter().rev().find(|(name, _)| name == field.name());
            found.and_then(|(_, value)| present(value))
        };
        let members: Vec<Option<&Value>> =
            objects.iter().map(|object| object.as_ref().and_then(member)).collect();
        column(&members, field.data_type(), false)
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let is_present = |at: usize| if is_root { values[at].is_some() } else { objects[at].is_some() };
    let nulls = NullBuffer::from_iter((0..values.len()).map(is_present));
    Ok(match columns.is_empty() {
        true => Arc::new(StructArray::new_empty_fields(values.len(), Some(nulls))),
        false => Arc::new(StructArray::try_new(fields.clone(), columns, Some(nulls))?),
    })
}

fn maps(values: &[Option<&Value>], of: &DataType) -> Result<ArrayRef> {
    let Some((_, field)) = entry_fields(of) else { return Ok(new_null_array(of, values.len())) };
    let (mut names, mut found, mut lengths, mut nulls) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for value in values {
        let Some(Value::Object(members)) = value else {
            lengths.push(0);
            nulls.push(false);
            continue;
        };
        let begin = names.len();
        let mut places = HashMap::new();
        for (name, value) in members {
            // The last member of a name counts.
            let place = *places.entry(name.as_str()).or_insert(names.len());
            if place < names.len() {
                found[place] = present(value);
                continue;
            }
            names.push(name.as_str());
            found.push(present(value));
        }
        lengths.push(names.len() - begin);
        nulls.push(true);
    }
    let keys = Arc::new(StringViewArray::from_iter_values(names));
    let found = column(&found, field.data_type(), false)?;
    map_array("from_json", keys, found, &lengths, Some(NullBuffer::from(nulls)))
}

/// Returns the values of a type without parts.
fn leaves(values: &[Option<&Value>], of: &DataType) -> Result<ArrayRef> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        value => value.compact(),
    };
    let column: ArrayRef = match of {
        DataType::Boolean => Arc::new(BooleanArray::from_iter(values.iter().map(|value| match value {
            Some(Value::Bool(flag)) => Some(*flag),
            _ => None,
        }))),
        of if of.is_integer() => Arc::new(Int64Array::from_iter(values.iter().map(|value| match value {
            Some(Value::Number(digits)) => digits.parse::<i64>().ok(),
            _ => None,
        }))),
        DataType::Float32 | DataType::Float64 => {
            Arc::new(Float64Array::from_iter(values.iter().map(|value| match value {
                Some(Value::Number(digits)) => digits.parse::<f64>().ok(),
                Some(Value::String(text)) => match text.as_str() {
                    "NaN" => Some(f64::NAN),
                    "Infinity" | "+Infinity" | "+INF" => Some(f64::INFINITY),
                    "-Infinity" | "-INF" => Some(f64::NEG_INFINITY),
                    _ => None,
                },
                _ => None,
            })))
        }
        DataType::Decimal128(..) => {
            Arc::new(StringViewArray::from_iter(values.iter().map(|value| match value {
                Some(Value::Number(_) | Value::String(_)) => value.map(text),
                _ => None,
            })))
        }
        DataType::Utf8View => {
            return Ok(Arc::new(StringViewArray::from_iter(values.iter().map(|value| value.map(text)))));
        }
        _ => Arc::new(StringViewArray::from_iter(values.iter().map(|value| match value {
            Some(Value::String(_)) => value.map(text),
            _ => None,
        }))),
    };
    // A value that the type can't hold becomes NULL.
    let column = if column.data_type().is_string() { cast(&column, &DataType::Utf8)? } else { column };
    Ok(cast(&column, of)?)
}
