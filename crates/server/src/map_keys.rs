//! Gives maps keys of text, as JSON needs them: `{"1":"a"}`.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use arrow::error::ArrowError;

/// Returns the type with keys of text in all maps.
fn text_type(of: &DataType) -> DataType {
    let field = |field: &FieldRef| -> FieldRef {
        Arc::new(field.as_ref().clone().with_data_type(text_type(field.data_type())))
    };
    match of {
        DataType::Map(entries, sorted) => {
            let DataType::Struct(parts) = entries.data_type() else { return of.clone() };
            let parts =
                parts.iter().enumerate().map(|(at, part)| match at == 0 && !part.data_type().is_string() {
                    true => Arc::new(part.as_ref().clone().with_data_type(DataType::Utf8)),
                    false => field(part),
                });
            let entries = entries.as_ref().clone().with_data_type(DataType::Struct(parts.collect()));
            DataType::Map(Arc::new(entries), *sorted)
        }
        DataType::List(item) => DataType::List(field(item)),
        DataType::LargeList(item) => DataType::LargeList(field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(field(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        other => other.clone(),
    }
}

/// Returns an array with keys of text in all maps.
pub(crate) fn with_text_keys(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    cast(array, &text_type(array.data_type()))
}
