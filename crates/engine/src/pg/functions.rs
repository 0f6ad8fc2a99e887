//! The functions that tell of the catalog and of the session, one row at a time.
//!
//! They are there for a SELECT that runs once: what they answer changes with the catalog.

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

mod descriptions;
mod registered;
mod session;

/// What a function gives.
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
            Gives::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())),
        }
    }
}

/// The result for one row's arguments.
pub(super) type Answer = fn(&Facts, &[Value]) -> Result<Value>;

/// A function: its name, what it gives, and how.
pub(super) type Known = (&'static str, Gives, Answer);

fn find(name: &str) -> Option<&'static Known> {
    let lists = [descriptions::FUNCTIONS, registered::FUNCTIONS, session::FUNCTIONS];
    lists.into_iter().flatten().find(|(known, ..)| *known == name)
}

/// Whether there is a function of this name.
pub(super) fn is_function(name: &str) -> bool {
    find(name).is_some()
}

/// The function of this name.
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

/// A name as SQL has to write it.
pub(super) fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
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

/// The values of an argument: numbers, truths, and anything else as text.
fn values(array: ArrayRef) -> PlanResult<Vec<Value>> {
    let rows = array.len();
    Ok(match array.data_type() {
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

/// The argument at a place, where it is a number or says one.
pub(super) fn int(arguments: &[Value], place: usize) -> Option<i64> {
    match arguments.get(place)? {
        Value::Int(value) => Some(*value),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The argument at a place, where it is text.
pub(super) fn text(arguments: &[Value], place: usize) -> Option<&str> {
    match arguments.get(place)? {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// Whether an argument is NULL, of which comes NULL.
pub(super) fn any_null(arguments: &[Value]) -> bool {
    arguments.contains(&Value::Null)
}
