//! A scalar function of ours from a type rule and a kernel.

use std::fmt;
use std::hash::{Hash, Hasher};

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The columns of a call, all of one length.
pub(crate) type Kernel = fn(&[ArrayRef]) -> Result<ArrayRef>;

/// The type of the result for these types of arguments; what it doesn't take is an error.
pub(crate) type Typed = fn(&[DataType]) -> Result<DataType>;

/// A function whose result is a function of its arguments.
pub(crate) struct Scalar {
    pub(crate) name: &'static str,
    pub(crate) signature: Signature,
    pub(crate) typed: Typed,
    pub(crate) kernel: Kernel,
}

impl Scalar {
    /// Of arguments of any types, of which `typed` decides.
    pub(crate) fn any(name: &'static str, typed: Typed, kernel: Kernel) -> ScalarUDF {
        let signature = Signature::variadic_any(Volatility::Immutable);
        ScalarUDF::from(Scalar { name, signature, typed, kernel })
    }

    /// Of arguments of just these types, to which others are cast.
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

// The name stands for all of it: there is one function of each.
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
