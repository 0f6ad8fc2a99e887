//! Builds a scalar function from a type rule and a kernel.

use std::fmt;
use std::hash::{Hash, Hasher};

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// Evaluates a call on columns of one length.
pub(crate) type Kernel = fn(&[ArrayRef]) -> Result<ArrayRef>;

/// Returns the result type for these argument types, or an error if the function doesn't accept them.
pub(crate) type Typed = fn(&[DataType]) -> Result<DataType>;

/// A deterministic function.
pub(crate) struct Scalar {
    pub(crate) name: &'static str,
    pub(crate) signature: Signature,
    pub(crate) typed: Typed,
    pub(crate) kernel: Kernel,
}

impl Scalar {
    /// Builds a function of arguments of any types; `typed` checks them.
    pub(crate) fn any(name: &'static str, typed: Typed, kernel: Kernel) -> ScalarUDF {
        let signature = Signature::variadic_any(Volatility::Immutable);
        ScalarUDF::from(Scalar { name, signature, typed, kernel })
    }

    /// Builds a function of arguments of exactly these types. Other types are cast to them.
    pub(crate) fn exact(
        name: &'static str,
        arguments: Vec<DataType>,
        typed: Typed,
        kernel: Kernel,
    ) -> ScalarUDF {
        let signature = Signature::exact(arguments, Volatility::Immutable);
        ScalarUDF::from(Scalar { name, signature, typed, kernel })
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scalar({})", self.name)
    }
}

// The name identifies the function: there is one of each name.
impl PartialEq for Scalar {
    fn eq(&self, other: &Scalar) -> bool {
        self.name == other.name
    }
}

impl Eq for Scalar {}

impl Hash for Scalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Scalar {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        (self.typed)(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { arguments.number_rows };
        let columns = arguments.args.into_iter().map(|argument| argument.into_array(rows));
        let result = (self.kernel)(&columns.collect::<Result<Vec<_>>>()?)?;
        Ok(match scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }
}
