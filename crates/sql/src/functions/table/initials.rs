//! `initials(text)`: the first letter of each word.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringViewArray};
use arrow::datatypes::DataType;
use datafusion::error::Result;

use crate::functions::Registry;
use crate::functions::scalar::Scalar;

/// Registers the function.
pub(super) fn register(registry: &mut Registry<'_>) {
    let text = |_: &[DataType]| Ok(DataType::Utf8View);
    registry.add(Scalar::exact("initials", vec![DataType::Utf8View], text, initials));
}

fn initials(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let first =
        |text: &str| -> String { text.split_whitespace().filter_map(|word| word.chars().next()).collect() };
    let initials = columns[0].as_string_view().iter().map(|text| text.map(first));
    Ok(Arc::new(initials.collect::<StringViewArray>()))
}
