//! Sort keys for values whose type has no order, such as maps. Also for types with two orders: DataFusion
//! sorts and compares structs, and lists with NULLs inside, differently.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::logical_expr::{Expr, ScalarUDF};

use super::scalar::Scalar;

/// Builds the key of a value, NULL for NULL. Keys are equal if values are; within a value NULL sorts last.
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
