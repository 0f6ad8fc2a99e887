//! Functions of timestamps that also take dates and texts.
//!
//! DataFusion casts these only to timestamps in nanoseconds.

use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::either::coerced;
use super::scalar::{Kernel, Scalar, Typed};

/// Builds a function of arguments of exactly these types. Where one is a TIMESTAMP, dates, texts and other times are cast to
/// it.
pub(super) fn of_times(
    name: &'static str,
    arguments: Vec<DataType>,
    typed: Typed,
    kernel: Kernel,
) -> ScalarUDF {
    let inner = Scalar::exact(name, arguments.clone(), typed, kernel);
    ScalarUDF::from(OfTimes { inner, arguments, signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfTimes {
    inner: ScalarUDF,
    arguments: Vec<DataType>,
    signature: Signature,
}

impl ScalarUDFImpl for OfTimes {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        self.inner.schema_name(arguments)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        let as_time = |(at, found): (usize, &DataType)| match (self.arguments.get(at), found) {
            (Some(time @ DataType::Timestamp(..)), DataType::Date32 | DataType::Timestamp(..)) => {
                time.clone()
            }
            (Some(time @ DataType::Timestamp(..)), text) if text.is_string() => time.clone(),
            _ => found.clone(),
        };
        let found: Vec<DataType> = found.iter().enumerate().map(as_time).collect();
        coerced(&found, &self.inner)
    }

    fn return_type(&self, found: &[DataType]) -> Result<DataType> {
        self.inner.return_type(found)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(arguments)
    }
}
