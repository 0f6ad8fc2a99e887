//! Builds a scalar function from a type rule and a kernel.

use std::fmt;
use std::hash::{Hash, Hasher};

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// Evaluates a call on columns of one length.
pub(crate) type Kernel = fn(&[ArrayRef]) -> Result<ArrayRef>;

/// Returns the result type for these argument types, or an error if the function doesn't accept them.
pub(crate) type Typed = fn(&[DataType]) -> Result<DataType>;

/// Evaluates a call. A row for which the kernel fails is NULL.
pub(crate) fn or_null(columns: &[ArrayRef], result: &DataType, kernel: Kernel) -> Result<ArrayRef> {
    if let Ok(computed) = kernel(columns) {
        return Ok(computed);
    }
    let rows = columns.first().map_or(0, |column| column.len());
    let each = (0..rows).map(|row| {
        let row: Vec<ArrayRef> = columns.iter().map(|column| column.slice(row, 1)).collect();
        kernel(&row).unwrap_or_else(|_| new_null_array(result, 1))
    });
    let each: Vec<ArrayRef> = each.collect();
    let each: Vec<&dyn Array> = each.iter().map(|row| row.as_ref()).collect();
    Ok(if each.is_empty() { new_null_array(result, 0) } else { concat(&each)? })
}

/// The name of the column that a call makes, if nothing else names it.
#[derive(Clone, Copy)]
pub(crate) enum Label {
    /// The function's own name, and the arguments.
    Own,
    /// The name that the statement has, and the arguments.
    Written(&'static str),
    /// The first argument: a rewrite of it calls the function.
    Argument,
}

/// A deterministic function.
pub(crate) struct Scalar {
    pub(crate) name: &'static str,
    pub(crate) signature: Signature,
    pub(crate) typed: Typed,
    pub(crate) kernel: Kernel,
    pub(crate) label: Label,
}

impl Scalar {
    /// Builds a function of arguments of any types; `typed` checks them.
    pub(crate) fn any(name: &'static str, typed: Typed, kernel: Kernel) -> ScalarUDF {
        let signature = Signature::variadic_any(Volatility::Immutable);
        ScalarUDF::from(Scalar { name, signature, typed, kernel, label: Label::Own })
    }

    /// Builds a function like [`Scalar::any`] whose columns have another name.
    pub(crate) fn labelled(name: &'static str, label: Label, typed: Typed, kernel: Kernel) -> ScalarUDF {
        let signature = Signature::variadic_any(Volatility::Immutable);
        ScalarUDF::from(Scalar { name, signature, typed, kernel, label })
    }

    /// Builds a function of arguments of exactly these types. Other types are cast to them.
    pub(crate) fn exact(
        name: &'static str,
        arguments: Vec<DataType>,
        typed: Typed,
        kernel: Kernel,
    ) -> ScalarUDF {
        let signature = Signature::exact(arguments, Volatility::Immutable);
        ScalarUDF::from(Scalar { name, signature, typed, kernel, label: Label::Own })
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

    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        let name = match self.label {
            Label::Own => self.name,
            Label::Written(name) => name,
            Label::Argument => {
                return Ok(arguments.first().map_or(String::new(), |of| of.schema_name().to_string()));
            }
        };
        let arguments: Vec<String> = arguments.iter().map(|of| of.schema_name().to_string()).collect();
        Ok(format!("{name}({})", arguments.join(",")))
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
