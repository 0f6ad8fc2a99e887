//! The functions of numbers: `to_char` and `to_number`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, StringBuilder, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use millstream_delta::sql_type;

use super::number_pattern::Pattern;
use super::read_number;
use super::write_number::{self, DOUBLE_DIGITS, Number, REAL_DIGITS};
use crate::error::Error;
use crate::functions::value_size_limit::check_column;
use crate::sqlstate;

/// The digits of a NUMERIC.
const PRECISION: u8 = 38;

/// The digits behind the point of a result whose pattern isn't known when types are.
const SCALE: i8 = 10;

/// A column of numbers.
pub(super) struct Numbers {
    values: ArrayRef,
    /// The digits that count in a float; none for exact numbers, whose values are texts.
    digits: Option<usize>,
    /// True for an exact number of up to 32 bits, whose exponent PostgreSQL writes as that of a float.
    is_small: bool,
}

impl Numbers {
    pub(super) fn new(values: &ArrayRef) -> Result<Numbers> {
        let found = values.data_type();
        let digits = match found {
            DataType::Float16 | DataType::Float32 => Some(REAL_DIGITS),
            DataType::Float64 => Some(DOUBLE_DIGITS),
            _ => None,
        };
        let is_small = found.is_integer() && found.primitive_width().is_some_and(|width| width <= 4);
        let target = if digits.is_some() { DataType::Float64 } else { DataType::Utf8View };
        Ok(Numbers { values: cast(values, &target)?, digits, is_small })
    }

    fn get(&self, row: usize, pattern: &Pattern) -> Option<Number> {
        if self.values.is_null(row) {
            return None;
        }
        Some(match self.digits {
            Some(digits) => Number::Float(self.values.as_primitive::<Float64Type>().value(row), digits),
            None => {
                let text = self.values.as_string_view().value(row);
                match text.parse::<f64>() {
                    Ok(float) if self.is_small && pattern.exponent => Number::Float(float, DOUBLE_DIGITS),
                    _ => Number::Exact(text.to_string()),
                }
            }
        })
    }
}

/// The last pattern: most columns of patterns have one.
#[derive(Default)]
struct LastPattern {
    text: String,
    pattern: Pattern,
}

impl LastPattern {
    fn get(&mut self, text: &str) -> Result<&Pattern, Error> {
        if self.text != text {
            *self = LastPattern { text: text.to_string(), pattern: Pattern::parse(text)? };
        }
        Ok(&self.pattern)
    }
}

/// Writes numbers by patterns.
pub(super) fn to_char(numbers: &Numbers, patterns: &StringViewArray) -> Result<ArrayRef> {
    let mut last = LastPattern::default();
    let mut out = StringBuilder::with_capacity(patterns.len(), 8 * patterns.len());
    let mut text = String::new();
    for (row, pattern) in patterns.iter().enumerate() {
        // As in PostgreSQL, an empty pattern gives NULL.
        let Some(pattern) = pattern.filter(|pattern| !pattern.is_empty()) else {
            out.append_null();
            continue;
        };
        let pattern = last.get(pattern)?;
        match numbers.get(row, pattern) {
            Some(number) => {
                text.clear();
                write_number::write(&mut text, &number, pattern);
                check_column("to_char", out.values_slice().len(), text.len())?;
                out.append_value(&text);
            }
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// Builds `to_number(text, pattern)`.
pub(super) fn to_number() -> ScalarUDF {
    ScalarUDF::from(ToNumber { signature: Signature::any(2, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToNumber {
    signature: Signature,
}

/// True for text, and for a NULL without a type.
pub(super) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
}

impl ScalarUDFImpl for ToNumber {
    fn name(&self) -> &str {
        "to_number"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Decimal128(PRECISION, SCALE))
    }

    /// The result has as many digits behind the point as a literal pattern.
    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        if let Some(wrong) = arguments.arg_fields.iter().find(|field| !is_text(field.data_type())) {
            let found = sql_type(wrong.data_type());
            return Err(Error::invalid(format!("to_number takes a text and a pattern, not {found}"))
                .hint("Write to_number('1,234.5', '9,999.9').")
                .into());
        }
        let literal =
            arguments.scalar_arguments.get(1).copied().flatten().and_then(|value| value.try_as_str());
        let scale = match literal {
            Some(Some(pattern)) => {
                let pattern = Pattern::parse(pattern)?;
                i8::try_from(pattern.after + pattern.shift).unwrap_or(i8::MAX).min(PRECISION as i8)
            }
            _ => SCALE,
        };
        Ok(Arc::new(Field::new(self.name(), DataType::Decimal128(PRECISION, scale), true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scale = match arguments.return_type() {
            DataType::Decimal128(_, scale) => *scale,
            other => return Err(Error::bug(format!("to_number returns {other}")).into()),
        };
        let is_scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { arguments.number_rows };
        let texts = |at: usize| -> Result<ArrayRef> {
            Ok(cast(&arguments.args[at].clone().into_array(rows)?, &DataType::Utf8View)?)
        };
        let (texts, patterns) = (texts(0)?, texts(1)?);
        let mut last = LastPattern::default();
        let numbers = texts.as_string_view().iter().zip(patterns.as_string_view()).map(|pair| {
            let (Some(text), Some(pattern)) = pair else { return Ok(None) };
            if pattern.is_empty() {
                return Ok(None);
            }
            let pattern = last.get(pattern)?;
            let number = read_number::read(text, pattern)?;
            decimal(&number, pattern.shift, scale).map(Some).ok_or_else(|| {
                Error::invalid(format!("'{text}' is out of the range of NUMERIC({PRECISION}, {scale})"))
                    .code(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE)
            })
        });
        let numbers = numbers.collect::<Result<Decimal128Array, Error>>()?;
        let result: ArrayRef = Arc::new(numbers.with_precision_and_scale(PRECISION, scale)?);
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }
}

/// Returns a number divided by a power of ten, in units of a scale.
fn decimal(number: &str, shift: usize, scale: i8) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let unscaled: i128 = format!("{whole}{fraction}").parse().ok()?;
    let found = i64::try_from(fraction.len() + shift).ok()?;
    let power = |exponent: i64| 10_i128.checked_pow(u32::try_from(exponent).ok()?);
    let value = match i64::from(scale) - found {
        more @ 0.. => unscaled.checked_mul(power(more)?)?,
        less => {
            let unit = power(-less)?;
            (unscaled + unscaled.signum() * (unit / 2)) / unit
        }
    };
    (value.unsigned_abs() < 10_u128.pow(u32::from(PRECISION))).then_some(value)
}
