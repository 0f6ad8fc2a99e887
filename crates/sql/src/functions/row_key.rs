//! A key to sort values by whose type has no order, such as maps, or more than one, such as structs and lists with NULLs
//! inside, which the query engine sorts in one way and compares in another.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::logical_expr::{Expr, ScalarUDF};

use super::scalar::Scalar;

/// The key of a value, NULL for NULL. Keys are equal where values are; within a value NULL is above all others.
pub(crate) fn row_key(value: Expr) -> Expr {
    function().call(vec![value])
}

/// The function.
pub(crate) fn function() -> Arc<ScalarUDF> {
    Arc::new(Scalar::any(
        "row_key",
        |_| Ok(DataType::Binary),
        |columns| {
            let value = &columns[0];
            let order = SortOptions { descending: false, nulls_first: false };
            let field = SortField::new_with_options(value.data_type().clone(), order);
            let rows = RowConverter::new(vec![field])?.convert_columns(&columns[..1])?;
            let keys = rows.iter().enumerate();
            let keys = keys.map(|(at, row)| value.is_valid(at).then(|| row.data().to_vec()));
            let keys: ArrayRef = Arc::new(BinaryArray::from_iter(keys));
            Ok(keys)
        },
    ))
}
