//! `variant_get(v, '$.a', 'int')` of Spark: the value at a path of a variant as a type.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use millstream_delta::sql_type;

use super::value::Value;
use super::variant::{find, steps};
use super::{typed, typed_schema};
use crate::error::Error;
use crate::functions::Registry;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    for (name, tries) in [("variant_as", false), ("variant_as_or_null", true)] {
        let signature = Signature::any(3, Volatility::Immutable);
        registry.add(ScalarUDF::from(VariantGet { name, tries, unit: registry.unit, signature }));
    }
}

/// The function.
#[derive(Debug)]
struct VariantGet {
    name: &'static str,
    /// True if a value that the type can't hold is NULL rather than an error.
    tries: bool,
    /// The unit of times.
    unit: TimeUnit,
    signature: Signature,
}

// The name identifies the function.
impl PartialEq for VariantGet {
    fn eq(&self, other: &VariantGet) -> bool {
        self.name == other.name
    }
}

impl Eq for VariantGet {}

impl Hash for VariantGet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for VariantGet {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Err(Error::invalid("variant_get takes a type that is a literal").into())
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        for (field, what) in arguments.arg_fields.iter().zip(["a variant first", "a path second"]) {
            let of = field.data_type();
            if !of.is_string() && !of.is_null() {
                return Err(Error::invalid(format!("variant_get takes {what}, not {}", sql_type(of))).into());
            }
        }
        let written = arguments.scalar_arguments.get(2).copied().flatten();
        let Some(Some(text)) = written.and_then(|value| value.try_as_str()) else {
            return Err(Error::invalid("variant_get takes a type that is a literal")
                .hint("variant_get(v, '$.a', 'int')")
                .into());
        };
        Ok(Arc::new(Field::new(self.name, typed_schema::parse(text, self.unit)?, true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let column = |at: usize| -> Result<StringViewArray> {
            let column = arguments.args[at].to_array(rows)?;
            Ok(cast(&column, &DataType::Utf8View)?.as_string_view().clone())
        };
        let (variants, paths) = (column(0)?, column(1)?);
        let values = variants.iter().zip(&paths).map(|(variant, path)| {
            let (Some(variant), Some(path)) = (variant, path) else { return Ok(None) };
            Ok(find(&Value::as_written(variant)?, &steps(path)?).cloned())
        });
        let values = values.collect::<Result<Vec<Option<Value>>>>()?;
        let values: Vec<Option<&Value>> =
            values.iter().map(|value| value.as_ref().filter(|value| **value != Value::Null)).collect();
        let of = arguments.return_field.data_type();
        let read = match of.is_nested() {
            true => typed::column(&values, of, false)?,
            false => leaves(&values, of)?,
        };
        if !self.tries
            && let Some(at) = (0..values.len()).find(|at| values[*at].is_some() && read.is_null(*at))
        {
            let (value, of) = (values[at].map(Value::compact).unwrap_or_default(), sql_type(of));
            let shown: String = value.chars().take(100).collect();
            return Err(Error::invalid(format!("the value {shown} of a variant is no {of}"))
                .hint("try_variant_get gives NULL there.")
                .into());
        }
        Ok(ColumnarValue::Array(read))
    }
}

/// Casts values to a type without parts. One that the type can't hold is NULL.
fn leaves(values: &[Option<&Value>], of: &DataType) -> Result<ArrayRef> {
    let is_number = of.is_numeric();
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) if is_number => Some(i32::from(*flag).to_string()),
        // A whole number has the digits before the point.
        Value::Number(digits) if of.is_integer() && !digits.contains(['e', 'E']) => {
            Some(digits.split('.').next().unwrap_or_default().to_string())
        }
        Value::Number(digits) if of.is_integer() => {
            let number = digits.parse::<f64>().ok().filter(|number| number.abs() < 9.2e18)?;
            Some((number as i64).to_string())
        }
        Value::Array(_) | Value::Object(_) if !of.is_string() => None,
        value => Some(value.compact()),
    };
    let texts: StringViewArray = values.iter().map(|value| value.and_then(text)).collect();
    let texts: ArrayRef = Arc::new(texts);
    Ok(match of {
        DataType::Utf8View => texts,
        _ => cast(&cast(&texts, &DataType::Utf8)?, of)?,
    })
}
