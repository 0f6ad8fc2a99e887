//! The value of a subquery that must return at most one row.
//!
//! `single_row(value, rows)` returns `value`, but fails if `rows` exceeds one. The rule
//! [`crate::rules::subqueries`] replaces a scalar subquery by it. So a subquery with two rows fails only for
//! the outer rows that need its value.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::cast::as_int64_array;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::Error;

/// The error for two rows, in PostgreSQL's words.
const MANY: &str = "more than one row returned by a subquery used as an expression";

static SINGLE_ROW: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    Arc::new(ScalarUDF::from(SingleRow { signature: Signature::any(2, Volatility::Immutable) }))
});

/// The function.
pub(crate) fn function() -> Arc<ScalarUDF> {
    Arc::clone(&SINGLE_ROW)
}

/// Builds a call with the value and the number of rows.
pub(crate) fn single_row(value: Expr, rows: Expr) -> Expr {
    SINGLE_ROW.call(vec![value, rows])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleRow {
    signature: Signature,
}

impl ScalarUDFImpl for SingleRow {
    fn name(&self) -> &str {
        "single_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Err(Error::bug("single_row was asked for its type without its arguments").into())
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        match arguments.arg_fields {
            [value, _] => Ok(Arc::new(Field::new(self.name(), value.data_type().clone(), true))),
            _ => Err(Error::bug("single_row takes a value and a count").into()),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut arguments = arguments.args.into_iter();
        let (Some(value), Some(rows)) = (arguments.next(), arguments.next()) else {
            return Err(Error::bug("single_row takes a value and a count").into());
        };
        let rows = match &rows {
            ColumnarValue::Array(rows) => Arc::clone(rows),
            ColumnarValue::Scalar(rows) => rows.to_array()?,
        };
        let counts = as_int64_array(&rows)?;
        let many = match counts.null_count() {
            0 => counts.values().iter().any(|count| *count > 1),
            _ => rows.as_primitive::<Int64Type>().iter().flatten().any(|count| count > 1),
        };
        if many { exec_err!("{MANY}") } else { Ok(value) }
    }
}
