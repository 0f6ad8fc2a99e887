//! The functions over the catalog and the session, evaluated row by row.
//!
//! Only a one-time SELECT may use them, since their results change with the catalog.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use millstream_sql::Result;

use super::facts::Facts;
use super::rows::{Value, column};
use crate::system::UTC;

mod addresses;
mod descriptions;
mod properties;
mod registered;
mod session;

/// The result type of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    Bool,
    Int,
    Text,
    Texts,
    Time,
}

impl Gives {
    fn data_type(self) -> DataType {
        match self {
            Gives::Bool => DataType::Boolean,
            Gives::Int => DataType::Int64,
            Gives::Text => DataType::Utf8View,
            Gives::Texts => DataType::new_list(DataType::Utf8View, true),
            Gives::Time => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        }
    }
}

/// The function that computes the result for one row's arguments.
pub(super) type Answer = fn(&Facts, &[Value]) -> Result<Value>;

/// A function: its name, result type and implementation.
pub(super) type Known = (&'static str, Gives, Answer);

fn find(name: &str) -> Option<&'static Known> {
    let lists = [
        addresses::FUNCTIONS,
        descriptions::FUNCTIONS,
        properties::FUNCTIONS,
        registered::FUNCTIONS,
        session::FUNCTIONS,
    ];
    lists.into_iter().flatten().find(|(known, ..)| *known == name)
}

/// Returns true if there is a function of this name.
pub(super) fn is_function(name: &str) -> bool {
    find(name).is_some()
}

/// Returns the function of this name.
pub(super) fn scalar(name: &str, facts: &Arc<Facts>) -> Option<Arc<ScalarUDF>> {
    let (name, gives, answer) = find(name)?;
    let volatility = match *name {
        "set_config" | "current_setting" | "pg_cancel_backend" => Volatility::Volatile,
        _ => Volatility::Stable,
    };
    let signature = Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], volatility);
    let function = Function { name, gives: *gives, answer: *answer, facts: facts.clone(), signature };
    Some(Arc::new(ScalarUDF::from(function)))
}

struct Function {
    name: &'static str,
    gives: Gives,
    answer: Answer,
    facts: Arc<Facts>,
    signature: Signature,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.facts, &other.facts)
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> PlanResult<DataType> {
        Ok(self.gives.data_type())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let once = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let count = if once { 1 } else { arguments.number_rows };
        let columns = arguments.args.into_iter().map(|argument| values(argument.into_array(count)?));
        let columns = columns.collect::<PlanResult<Vec<_>>>()?;
        let mut answers = Vec::with_capacity(count);
        for row in 0..count {
            let row: Vec<Value> = columns.iter().map(|column| column[row].clone()).collect();
            answers.push((self.answer)(&self.facts, &row)?);
        }
        let result = column(answers.iter(), count, &self.gives.data_type())?;
        Ok(match once {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }
}

/// Converts an argument's values: numbers, booleans, everything else as text.
fn values(array: ArrayRef) -> PlanResult<Vec<Value>> {
    let rows = array.len();
    Ok(match array.data_type() {
        DataType::List(item) if item.data_type().is_string() => {
            let texts = cast(&array, &DataType::new_list(DataType::Utf8View, true))?;
            let lists = texts.as_list::<i32>().iter();
            lists.map(|list| list.map(|list| Value::Texts(texts_of(&list))).into()).collect()
        }
        DataType::Null | DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
            vec![Value::Null; rows]
        }
        DataType::Boolean => array.as_boolean().iter().map(Value::from).collect(),
        integer if integer.is_integer() => {
            let array = cast(&array, &DataType::Int64)?;
            array.as_primitive::<Int64Type>().iter().map(Value::from).collect()
        }
        _ => {
            let array = cast(&array, &DataType::Utf8View)?;
            array.as_string_view().iter().map(Value::from).collect()
        }
    })
}

/// Returns the texts of a list, without NULLs.
fn texts_of(list: &ArrayRef) -> Vec<String> {
    list.as_string_view().iter().flatten().map(str::to_string).collect()
}

/// Returns the argument at this position, if it is a number or text of one.
pub(super) fn int(arguments: &[Value], place: usize) -> Option<i64> {
    match arguments.get(place)? {
        Value::Int(value) => Some(*value),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Returns the argument at this position, if it is text.
pub(super) fn text(arguments: &[Value], place: usize) -> Option<&str> {
    match arguments.get(place)? {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// Returns true if an argument is NULL, in which case the result is NULL.
pub(super) fn any_null(arguments: &[Value]) -> bool {
    arguments.contains(&Value::Null)
}
