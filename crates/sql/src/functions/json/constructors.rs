//! Functions that earlier versions have stored in plans: they build JSON from values, and split JSON
//! arrays.
//!
//! Statements get the functions of [`super::build`] and [`super::sets`] instead. Those that build JSON look at the marks of their arguments
//! when they run, and don't write canonical text for JSONB.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, StringViewArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::json::writer::{EncoderOptions, make_encoder};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use serde_json::Value;

use crate::error::Error;
use crate::functions::Registry;
use crate::functions::marks::Mark;
use crate::functions::scalar::Scalar;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    for (name, form) in [
        ("to_json", Form::Value),
        ("to_jsonb", Form::Value),
        ("row_to_json", Form::Value),
        ("array_to_json", Form::Value),
        ("json_build_array", Form::Array),
        ("jsonb_build_array", Form::Array),
        ("json_build_object", Form::Object),
        ("jsonb_build_object", Form::Object),
    ] {
        registry.add(ScalarUDF::from(MakeJson {
            name,
            form,
            signature: Signature::one_of(
                vec![
                    datafusion::logical_expr::TypeSignature::Nullary,
                    datafusion::logical_expr::TypeSignature::VariadicAny,
                ],
                Volatility::Immutable,
            ),
        }));
    }
    let one = vec![DataType::Utf8View];
    let list = |_: &[DataType]| Ok(DataType::new_list(DataType::Utf8View, true));
    registry.add(Scalar::exact("json_array_values", one.clone(), list, |c| elements(&c[0], false)));
    registry.add(Scalar::exact("json_array_texts", one, list, |c| elements(&c[0], true)));
}

/// True for one of these functions.
pub(super) fn is_stored(function: &ScalarUDF) -> bool {
    function.inner().is::<MakeJson>()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    Value,
    Array,
    Object,
}

#[derive(PartialEq, Eq, Hash)]
struct MakeJson {
    name: &'static str,
    form: Form,
    signature: Signature,
}

impl fmt::Debug for MakeJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MakeJson({})", self.name)
    }
}

impl ScalarUDFImpl for MakeJson {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let count = arguments.len();
        match self.form {
            Form::Value if count != 1 => Err(Error::invalid(format!("{} takes one value", self.name)).into()),
            Form::Object if count % 2 == 1 => {
                Err(Error::invalid(format!("{} takes alternating keys and values", self.name)).into())
            }
            _ => Ok(DataType::Utf8View),
        }
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> =
            arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Mark::Json.put(Field::new(self.name, self.return_type(&types)?, true))))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { arguments.number_rows };
        let columns: Vec<ArrayRef> =
            arguments.args.into_iter().map(|argument| argument.into_array(rows)).collect::<Result<_>>()?;
        let mut writers = Vec::with_capacity(columns.len());
        for (at, (column, field)) in columns.iter().zip(&arguments.arg_fields).enumerate() {
            let key = self.form == Form::Object && at % 2 == 0;
            writers.push(if key { text_of(column)? } else { values(column, field)? });
        }
        let mut out = StringViewBuilder::with_capacity(rows);
        for row in 0..rows {
            out.append_option(self.row(&writers, row)?);
        }
        let made: ArrayRef = Arc::new(out.finish());
        Ok(match scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?),
            false => ColumnarValue::Array(made),
        })
    }
}

impl MakeJson {
    fn row(&self, columns: &[StringViewArray], row: usize) -> Result<Option<String>> {
        let value = |column: &StringViewArray| match column.is_valid(row) {
            true => column.value(row).to_string(),
            false => "null".to_string(),
        };
        Ok(match self.form {
            Form::Value => columns[0].is_valid(row).then(|| value(&columns[0])),
            Form::Array => {
                let values: Vec<String> = columns.iter().map(value).collect();
                Some(format!("[{}]", values.join(", ")))
            }
            Form::Object => {
                let mut members = Vec::with_capacity(columns.len() / 2);
                for pair in columns.chunks(2) {
                    if !pair[0].is_valid(row) {
                        return Err(Error::invalid(format!("{}: a key is NULL", self.name)).into());
                    }
                    members.push(format!("{} : {}", string(pair[0].value(row)), value(&pair[1])));
                }
                Some(format!("{{{}}}", members.join(", ")))
            }
        })
    }
}

fn text_of(column: &ArrayRef) -> Result<StringViewArray> {
    Ok(cast(column, &DataType::Utf8View)?.as_string_view().clone())
}

fn string(text: &str) -> String {
    Value::String(text.to_string()).to_string()
}

/// Encodes each value as JSON.
pub(super) fn values(column: &ArrayRef, field: &FieldRef) -> Result<StringViewArray> {
    if Mark::of(field).is_some() {
        return text_of(column);
    }
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let encodable = Arc::new(field.as_ref().clone().with_data_type(column.data_type().clone()));
    let nulls = column.logical_nulls();
    let mut out = StringViewBuilder::with_capacity(column.len());
    match make_encoder(&encodable, column.as_ref(), &options) {
        Ok(mut encoder) => {
            let mut bytes = Vec::new();
            for row in 0..column.len() {
                if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    out.append_null();
                    continue;
                }
                bytes.clear();
                encoder.encode(row, &mut bytes);
                out.append_value(String::from_utf8_lossy(&bytes));
            }
        }
        // A type without a JSON encoding becomes text.
        Err(_) => {
            let texts = text_of(column)?;
            texts.iter().for_each(|text| out.append_option(text.map(string)));
        }
    }
    Ok(out.finish())
}

fn array(text: &str) -> std::result::Result<Vec<Value>, Error> {
    match serde_json::from_str(text) {
        Ok(Value::Array(values)) => Ok(values),
        Ok(_) => Err(Error::invalid(format!("'{text}' is no JSON array"))),
        Err(error) => Err(Error::invalid(format!("'{text}' is no JSON: {error}"))),
    }
}

/// Returns the elements of arrays as JSON, or as text: strings without quotes, null as NULL.
fn elements(column: &ArrayRef, as_text: bool) -> Result<ArrayRef> {
    let mut lists = ListBuilder::new(StringViewBuilder::new());
    for text in column.as_string_view() {
        let Some(text) = text else {
            lists.append(false);
            continue;
        };
        for value in array(text)? {
            lists.values().append_option(match value {
                Value::Null if as_text => None,
                Value::String(text) if as_text => Some(text),
                value => Some(value.to_string()),
            });
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}
