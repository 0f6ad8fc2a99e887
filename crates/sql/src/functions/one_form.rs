//! Gives values that are equal in SQL one form, also within lists and structs: 0.0 for -0.0, a single NaN, and intervals
//! by their length.
//!
//! The rule [`crate::rules::equal_forms`] wraps the function around values that are keys or are compared. SQL can't name
//! it. Its name, `canonical_float`, is that under which stored plans have it.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use millstream_delta::one_form;

use crate::error::Error;

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OneForm {
    signature: Signature,
}

static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(ScalarUDF::from(OneForm { signature }))
});

/// Returns the function, which exists once.
pub(crate) fn function() -> Arc<ScalarUDF> {
    Arc::clone(&FUNCTION)
}

/// Builds a call of the function.
pub fn call(argument: Expr) -> Expr {
    FUNCTION.call(vec![argument])
}

/// True if an expression is a call of the function.
pub fn is_call(expression: &Expr) -> bool {
    matches!(expression, Expr::ScalarFunction(call) if Arc::ptr_eq(&call.func, &FUNCTION))
}

impl ScalarUDFImpl for OneForm {
    fn name(&self) -> &str {
        "canonical_float"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [data_type] => Ok(data_type.clone()),
            _ => Err(Error::bug("canonical_float takes one argument").into()),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::clone(&args.arg_fields[0]))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match &args.args[0] {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(one_form(array)?)),
            ColumnarValue::Scalar(value) => {
                let array = one_form(&value.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
        }
    }
}
