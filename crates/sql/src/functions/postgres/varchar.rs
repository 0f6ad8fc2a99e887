//! `x::VARCHAR(n)`: `varchar_of(x::TEXT, n)`, the first characters of a text. The declared type of the result is VARCHAR(n).

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringViewArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ScalarUDF, Signature, Volatility};
use datafusion::scalar::ScalarValue;

use crate::functions::Registry;
use crate::functions::scalar::{Label, Scalar};

/// The function's name.
pub(crate) const VARCHAR_OF: &str = "varchar_of";

/// Registers the function.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    let arguments = vec![DataType::Utf8View, DataType::Int64];
    registry.add(ScalarUDF::from(Scalar {
        name: VARCHAR_OF,
        signature: Signature::exact(arguments, Volatility::Immutable),
        typed: |_| Ok(DataType::Utf8View),
        kernel: cut,
        // The columns of stored views have this name.
        label: Label::Written("left"),
    }));
}

/// Returns the length of the VARCHAR(n) that a call returns; none if it is a call of another function.
pub(crate) fn varchar_length(call: &ScalarFunction) -> Option<u64> {
    match call.args.as_slice() {
        [_, Expr::Literal(ScalarValue::Int64(Some(length)), _)] if call.name() == VARCHAR_OF => {
            u64::try_from(*length).ok()
        }
        _ => None,
    }
}

fn cut(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let rows = columns[0].as_string_view().iter().zip(columns[1].as_primitive::<Int64Type>());
    let rows = rows.map(|(text, length)| {
        let (text, length) = (text?, usize::try_from(length?).unwrap_or(0));
        let end = text.char_indices().nth(length).map_or(text.len(), |(at, _)| at);
        Some(&text[..end])
    });
    Ok(Arc::new(rows.collect::<StringViewArray>()))
}
