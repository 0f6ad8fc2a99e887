//! A function of DataFusion with another type of results.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// The types of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// BIGINT for BIGINT UNSIGNED.
    Signed,
    /// Decimals without digits behind the point, of calls with one argument.
    Whole,
}

impl Target {
    fn of(self, result: DataType, arguments: usize) -> DataType {
        let digits = |precision: u8, scale: i8| (i16::from(precision) - i16::from(scale) + 1).max(1) as u8;
        match (self, result) {
            (Target::Signed, DataType::UInt64) => DataType::Int64,
            (Target::Whole, found) if arguments == 1 => match found {
                DataType::Decimal32(precision, scale @ 1..) => {
                    DataType::Decimal32(digits(precision, scale).min(precision), 0)
                }
                DataType::Decimal64(precision, scale @ 1..) => {
                    DataType::Decimal64(digits(precision, scale).min(precision), 0)
                }
                DataType::Decimal128(precision, scale @ 1..) => {
                    DataType::Decimal128(digits(precision, scale).min(precision), 0)
                }
                DataType::Decimal256(precision, scale @ 1..) => {
                    DataType::Decimal256(digits(precision, scale).min(precision), 0)
                }
                other => other,
            },
            (_, other) => other,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Recast {
    pub(super) inner: Arc<ScalarUDF>,
    pub(super) target: Target,
}

impl ScalarUDFImpl for Recast {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let result = self.inner.inner().return_type(arguments)?;
        Ok(self.target.of(result, arguments.len()))
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let count = arguments.args.len();
        let found = self.inner.inner().invoke_with_args(arguments)?;
        let (own, target) = (found.data_type(), self.target.of(found.data_type(), count));
        if own == target { Ok(found) } else { found.cast_to(&target, None) }
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}
