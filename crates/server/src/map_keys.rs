//! Gives maps keys of text, as JSON needs them: `{"1":"a"}`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, make_array};
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
            let is_text =
                |of: &DataType| matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
            let parts =
                parts.iter().enumerate().map(|(at, part)| match at == 0 && !is_text(part.data_type()) {
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
    convert(array, &text_type(array.data_type()))
}

fn convert(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    let parts: Vec<&DataType> = match to {
        DataType::Map(item, _)
        | DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _) => vec![item.data_type()],
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        _ => return cast(array, to),
    };
    let data = array.to_data();
    let children = data.child_data().iter().zip(parts);
    let children = children.map(|(child, to)| Ok(convert(&make_array(child.clone()), to)?.to_data()));
    let children = children.collect::<Result<Vec<_>, ArrowError>>()?;
    Ok(make_array(data.into_builder().data_type(to.clone()).child_data(children).build()?))
}
