//! The functions of enum types.
//!
//! | written, for a column `m` of type mood | planned as |
//! | --- | --- |
//! | `m < 'ok'`, `ORDER BY m` | `enum_key(m) < enum_key(read_enum('ok'))`, `ORDER BY enum_key(m)` |
//! | `max(m)` | `enum_of_key(max(enum_key(m)))` |
//! | `enum_range(m)` | the function of this name for mood |

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Int32Array, ListBuilder, StringViewArray, StringViewBuilder, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int32Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use serde_json::{Value, json};

use super::Mark;
use super::enum_type::{EnumType, numbered};
use crate::error::{Error, Result as SqlResult};
use crate::functions::Registry;
use crate::sqlstate;

/// The most labels that a message shows.
const LABELS_SHOWN: usize = 20;

/// Checks a value of a type.
pub(crate) fn checked(of: &EnumType, text: &str) -> SqlResult<String> {
    if of.place(text).is_some() {
        return Ok(text.to_string());
    }
    let quoted = |label: &String| format!("'{}'", label.replace('\'', "''"));
    let labels: Vec<String> = of.labels().iter().take(LABELS_SHOWN).map(quoted).collect();
    let rest = if labels.len() < of.labels().len() { ", …" } else { "" };
    Err(Error::invalid(format!("invalid input value for enum {}: \"{text}\"", of.name()))
        .hint(format!("The values are {}{rest}.", labels.join(", ")))
        .code(sqlstate::INVALID_TEXT_REPRESENTATION))
}

/// Returns a function of a type's order.
pub(crate) fn function(name: &str) -> Option<Arc<ScalarUDF>> {
    let (kind, of) = numbered(name)?;
    let kind = match kind {
        "key" => Kind::Key,
        "value" => Kind::Value,
        _ => return None,
    };
    Some(Arc::new(EnumFunction::new(kind, Some(of)).into()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// From a value to its number.
    Key,
    /// From a number to the value.
    Value,
    First,
    Last,
    Range,
}

const KINDS: [(Kind, &str); 5] = [
    (Kind::Key, "enum_key"),
    (Kind::Value, "enum_of_key"),
    (Kind::First, "enum_first"),
    (Kind::Last, "enum_last"),
    (Kind::Range, "enum_range"),
];

/// A function of an enum type, or of one that isn't known yet.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct EnumFunction {
    kind: Kind,
    of: Option<&'static EnumType>,
    signature: Signature,
}

/// Registers the functions that statements name. The rule in `rules/marked_types.rs` gives them their type.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    for kind in [Kind::First, Kind::Last, Kind::Range] {
        registry.add(EnumFunction::new(kind, None).into());
    }
}

impl EnumFunction {
    fn new(kind: Kind, of: Option<&'static EnumType>) -> EnumFunction {
        EnumFunction { kind, of, signature: Signature::variadic_any(Volatility::Immutable) }
    }

    /// Returns the function for a type.
    pub(crate) fn resolved(&self, of: &'static EnumType) -> ScalarUDF {
        EnumFunction::new(self.kind, Some(of)).into()
    }

    /// Returns true if the type is known.
    pub(crate) fn is_resolved(&self) -> bool {
        self.of.is_some()
    }

    /// Returns the mark of its results.
    pub(crate) fn mark(&self) -> Option<Mark> {
        match self.kind {
            Kind::Value | Kind::First | Kind::Last => self.of.map(Mark::Enum),
            Kind::Key | Kind::Range => None,
        }
    }

    /// Encodes the function for a stored plan.
    pub(crate) fn to_json(&self) -> Value {
        json!({"enum": self.of.map(EnumType::spelling), "function": self.name()})
    }

    /// Decodes the function from a stored plan.
    pub(crate) fn from_json(written: &Value) -> Option<EnumFunction> {
        let named = written.get("function")?.as_str()?;
        let (kind, _) = KINDS.into_iter().find(|(_, name)| *name == named)?;
        Some(EnumFunction::new(kind, Some(EnumType::spelled(written.get("enum")?.as_str()?)?)))
    }

    fn compute(&self, of: &EnumType, columns: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let texts = |at: usize| -> Result<StringViewArray> {
            let column = columns.get(at).map(|column| cast(column, &DataType::Utf8View)).transpose()?;
            let column = column.unwrap_or_else(|| new_null_array(&DataType::Utf8View, rows));
            Ok(column.as_string_view().clone())
        };
        let constant = |label: Option<&String>| -> ArrayRef {
            Arc::new(StringViewArray::from_iter(std::iter::repeat_n(label, rows)))
        };
        Ok(match self.kind {
            Kind::Key => {
                let texts = texts(0)?;
                let places = texts.iter().map(|text| text.map(|text| place(of, text)).transpose());
                Arc::new(places.collect::<SqlResult<Int32Array>>()?)
            }
            Kind::Value => {
                let Some(numbers) = columns.first() else { return Ok(constant(None)) };
                let numbers = cast(numbers, &DataType::Int32)?;
                let label = |number: i32| of.labels().get(usize::try_from(number).ok()?);
                let labels = numbers.as_primitive::<Int32Type>().iter().map(|number| label(number?));
                Arc::new(labels.collect::<StringViewArray>())
            }
            Kind::First => constant(of.labels().first()),
            Kind::Last => constant(of.labels().last()),
            Kind::Range => {
                let (from, to) =
                    if columns.len() > 1 { (texts(0)?, texts(1)?) } else { (texts(1)?, texts(1)?) };
                let mut out = ListBuilder::new(StringViewBuilder::new());
                for (from, to) in from.iter().zip(to.iter()) {
                    let from = from.map(|text| place(of, text)).transpose()?.unwrap_or(0);
                    let to = to.map(|text| place(of, text)).transpose()?.unwrap_or(i32::MAX);
                    let within = of.labels().iter().zip(0..).filter(|(_, at)| (from..=to).contains(at));
                    within.for_each(|(label, _)| out.values().append_value(label));
                    out.append(true);
                }
                Arc::new(out.finish())
            }
        })
    }

    fn data_type(&self) -> DataType {
        match self.kind {
            Kind::Key => DataType::Int32,
            Kind::Value | Kind::First | Kind::Last => DataType::Utf8View,
            Kind::Range => DataType::new_list(DataType::Utf8View, true),
        }
    }
}

fn place(of: &EnumType, text: &str) -> SqlResult<i32> {
    match of.place(text) {
        Some(place) => Ok(place),
        None => checked(of, text).map(|_| 0),
    }
}

impl ScalarUDFImpl for EnumFunction {
    fn name(&self) -> &str {
        KINDS.iter().find(|(kind, _)| *kind == self.kind).map_or("", |(_, name)| name)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.data_type())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        let field = Field::new(self.name(), self.data_type(), true);
        Ok(Arc::new(match self.mark() {
            Some(mark) => mark.put(field),
            None => field,
        }))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(of) = self.of else {
            let error = format!("{} needs a value of an enum type", self.name());
            return Err(Error::invalid(error).hint("Cast NULL to it: NULL::mood.").into());
        };
        let scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { arguments.number_rows };
        let columns = arguments.args.into_iter().map(|argument| argument.into_array(rows));
        let result = self.compute(of, &columns.collect::<Result<Vec<_>>>()?, rows)?;
        Ok(match scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }
}
