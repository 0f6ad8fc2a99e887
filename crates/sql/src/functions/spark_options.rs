//! The option `timestampFormat` of Spark's `from_json`, `to_json`, `from_csv` and `to_csv`: times in a value by a pattern.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, make_array};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result;

use super::Registry;
use super::java_patterns::translated;
use super::postgres::formatting::{read_moments, write_moments};
use super::scalar::Scalar;
use crate::error::Error;

/// Registers the function.
pub(super) fn register(registry: &mut Registry<'_>) {
    let typed = |types: &[DataType]| match types {
        [of, pattern] if pattern.is_string() => Ok(with_texts(of)),
        _ => Err(Error::invalid("timestampFormat is a text that is a pattern").into()),
    };
    registry.add(Scalar::any("times_by_pattern", typed, |columns| {
        let pattern = pattern_of(&columns[1])?;
        convert(&columns[0], &with_texts(columns[0].data_type()), &|column| write_moments(column, &pattern))
    }));
}

/// Returns PostgreSQL's pattern of the first row; all rows have the same one.
fn pattern_of(column: &ArrayRef) -> Result<String> {
    let texts = arrow::compute::cast(column, &DataType::Utf8View)?;
    let texts = arrow::array::AsArray::as_string_view(&texts);
    Ok(if texts.is_empty() { String::new() } else { translated(texts.value(0))? })
}

fn is_moment(of: &DataType) -> bool {
    matches!(of, DataType::Timestamp(..))
}

/// Returns the type with texts in place of timestamps.
pub(super) fn with_texts(of: &DataType) -> DataType {
    let field = |field: &FieldRef| -> FieldRef {
        Arc::new(field.as_ref().clone().with_data_type(with_texts(field.data_type())))
    };
    match of {
        of if is_moment(of) => DataType::Utf8View,
        DataType::List(element) => DataType::List(field(element)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
        other => other.clone(),
    }
}

/// Reads the texts that stand for timestamps of a type by a pattern of Java. A text that doesn't fit is NULL.
pub(super) fn with_moments(column: &ArrayRef, of: &DataType, pattern: &str) -> Result<ArrayRef> {
    let pattern = translated(pattern)?;
    convert(column, of, &|column| read_moments(column, &pattern))
}

/// Converts the parts of a column whose type becomes another one.
fn convert(
    column: &ArrayRef,
    of: &DataType,
    leaf: &dyn Fn(&ArrayRef) -> Result<ArrayRef>,
) -> Result<ArrayRef> {
    if column.data_type() == of {
        return Ok(Arc::clone(column));
    }
    let children: Vec<&DataType> = match of {
        DataType::List(field) | DataType::Map(field, _) => vec![field.data_type()],
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        _ => return Ok(arrow::compute::cast(&leaf(column)?, of)?),
    };
    let data = column.to_data();
    let parts = data.child_data().iter().zip(children);
    let parts = parts.map(|(part, of)| Ok(convert(&make_array(part.clone()), of, leaf)?.to_data()));
    let parts = parts.collect::<Result<Vec<_>>>()?;
    Ok(make_array(data.into_builder().data_type(of.clone()).child_data(parts).build()?))
}
