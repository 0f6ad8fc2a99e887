//! A key to sort values by whose type has no order, such as maps: any order will do where one has to be decided.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::logical_expr::Expr;

use super::scalar::Scalar;

/// The key of a value. Keys are equal where values are.
pub(crate) fn row_key(value: Expr) -> Expr {
    let function = Scalar::any(
        "row_key",
        |_| Ok(DataType::Binary),
        |columns| {
            let converter = RowConverter::new(vec![SortField::new(columns[0].data_type().clone())])?;
            let rows = converter.convert_columns(&columns[..1])?;
            let keys: ArrayRef =
                Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| row.data().to_vec())));
            Ok(keys)
        },
    );
    function.call(vec![value])
}
