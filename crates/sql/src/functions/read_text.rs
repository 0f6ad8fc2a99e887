//! Casts from text that follow PostgreSQL where DataFusion's differ.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, IntervalMonthDayNanoBuilder, RecordBatch, StringViewArray,
    StringViewBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, Schema};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use serde_json::{Value, json};

use crate::error::Error;
use crate::functions::Registry;
use crate::functions::json::marks::Mark;
use crate::functions::json::{scan, value};
use crate::literals::{self, array, interval, time};
use crate::type_names::Checked;

/// The type to read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Bytes: `\xff` and escapes.
    Bytes,
    /// Arrays with this many dimensions: `{1,2}`. Elements stay text.
    Lists(usize),
    /// Intervals: `1-2`, `P1D`, and the forms that DataFusion reads.
    Interval,
    /// Timestamps in a form that DataFusion reads: with seconds, and without words. They stay text.
    Time,
    /// UUIDs, in canonical form.
    Uuid,
    /// JSON, as written.
    Json,
    /// JSONB, in canonical form.
    Jsonb,
    /// Text for a column, with at most this many characters apart from trailing blanks.
    Length { column: String, length: u64 },
}

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct ReadText {
    name: String,
    kind: Kind,
    /// True for TRY_CAST: a text that can't be read becomes NULL.
    lenient: bool,
    signature: Signature,
}

/// Checks and converts rows for columns that accept less than their Arrow types. Fails on a wrong value.
pub fn checked_rows(rows: RecordBatch, columns: &Schema) -> crate::error::Result<RecordBatch> {
    if columns.fields().iter().all(|field| Checked::declared(field).is_none()) {
        return Ok(rows);
    }
    let value = |(field, array): (&FieldRef, &ArrayRef)| -> Result<ArrayRef> {
        let Some(kind) = ReadText::kind_of(field) else { return Ok(array.clone()) };
        let read = ReadText::new(kind, false).read(cast(array, &DataType::Utf8View)?.as_string_view())?;
        Ok(cast(&read, array.data_type())?)
    };
    let checked = columns.fields().iter().zip(rows.columns()).map(value).collect::<Result<_>>()?;
    RecordBatch::try_new(rows.schema(), checked)
        .map_err(|error| Error::bug(format!("checked rows are of other types: {error}")))
}

/// Registers the functions that a rewritten statement can name.
pub(super) fn register(registry: &mut Registry<'_>) {
    for kind in [Kind::Uuid, Kind::Json, Kind::Jsonb] {
        registry.add(ScalarUDF::from(ReadText::new(kind.clone(), false)));
        registry.add(ScalarUDF::from(ReadText::new(kind, true)));
    }
}

impl ReadText {
    fn new(kind: Kind, lenient: bool) -> ReadText {
        let name = match &kind {
            Kind::Bytes => "read_bytea".to_string(),
            Kind::Lists(depth) => format!("read_array_{depth}"),
            Kind::Interval => "read_interval".to_string(),
            Kind::Time => "read_timestamp".to_string(),
            Kind::Uuid => "read_uuid".to_string(),
            Kind::Json => "read_json".to_string(),
            Kind::Jsonb => "read_jsonb".to_string(),
            Kind::Length { .. } => "check_length".to_string(),
        };
        let name = if lenient { format!("try_{name}") } else { name };
        ReadText { name, kind, lenient, signature: Signature::any(1, Volatility::Immutable) }
    }

    /// Builds the call that reads an expression.
    pub(crate) fn call(kind: Kind, lenient: bool, argument: Expr) -> Expr {
        ScalarUDF::from(ReadText::new(kind, lenient)).call(vec![argument])
    }

    /// Returns true if an expression is such a call.
    pub(crate) fn is_call(expression: &Expr, kind: &Kind) -> bool {
        let Expr::ScalarFunction(call) = expression else { return false };
        call.func.inner().downcast_ref::<ReadText>().is_some_and(|read| read.kind == *kind)
    }

    /// Returns the mark of the results.
    pub(crate) fn mark(&self) -> Option<Mark> {
        match self.kind {
            Kind::Json => Some(Mark::Json),
            Kind::Jsonb => Some(Mark::Jsonb),
            _ => None,
        }
    }

    /// Encodes the function for a stored plan.
    pub(crate) fn to_json(&self) -> Value {
        let kind = match &self.kind {
            Kind::Bytes => json!(["bytes"]),
            Kind::Lists(depth) => json!(["lists", depth]),
            Kind::Interval => json!(["interval"]),
            Kind::Time => json!(["timestamp"]),
            Kind::Uuid => json!(["uuid"]),
            Kind::Json => json!(["json"]),
            Kind::Jsonb => json!(["jsonb"]),
            Kind::Length { column, length } => json!(["length", column, length]),
        };
        json!({"read": kind, "lenient": self.lenient})
    }

    /// Decodes the function from a stored plan.
    pub(crate) fn from_json(written: &Value) -> Option<ReadText> {
        let kind = written.get("read")?;
        let kind = match kind.get(0)?.as_str()? {
            "bytes" => Kind::Bytes,
            "lists" => Kind::Lists(usize::try_from(kind.get(1)?.as_u64()?).ok()?),
            "interval" => Kind::Interval,
            "timestamp" => Kind::Time,
            "uuid" => Kind::Uuid,
            "json" => Kind::Json,
            "jsonb" => Kind::Jsonb,
            "length" => {
                Kind::Length { column: kind.get(1)?.as_str()?.into(), length: kind.get(2)?.as_u64()? }
            }
            _ => return None,
        };
        Some(ReadText::new(kind, written.get("lenient")?.as_bool()?))
    }

    /// Builds the check of a value for a column.
    pub(crate) fn checked(field: &Field, argument: Expr) -> Option<Expr> {
        Some(ReadText::call(ReadText::kind_of(field)?, false, argument))
    }

    fn kind_of(field: &Field) -> Option<Kind> {
        Some(match Checked::declared(field)? {
            Checked::Uuid => Kind::Uuid,
            Checked::Json => Kind::Json,
            Checked::Jsonb => Kind::Jsonb,
            Checked::Length(length) => Kind::Length { column: field.name().clone(), length },
        })
    }

    fn read(&self, texts: &StringViewArray) -> Result<ArrayRef> {
        Ok(match &self.kind {
            Kind::Bytes => {
                let mut out = BinaryBuilder::new();
                for text in texts {
                    out.append_option(self.each(text, "BYTEA", literals::bytes)?);
                }
                Arc::new(out.finish())
            }
            Kind::Interval => {
                let mut out = IntervalMonthDayNanoBuilder::new();
                for text in texts {
                    out.append_option(self.each(text, "INTERVAL", interval::read)?);
                }
                Arc::new(out.finish())
            }
            Kind::Lists(depth) => {
                let mut out = array::Arrays::new(*depth);
                for text in texts {
                    if let Err(expected) = out.push(text) {
                        if !self.lenient {
                            return Err(wrong(text.unwrap_or_default(), "an array", expected));
                        }
                        // A NULL can always be added.
                        let _ = out.push(None);
                    }
                }
                out.finish()?
            }
            Kind::Time => self.times(texts)?,
            Kind::Uuid => self.texts(texts, "UUID", literals::uuid)?,
            Kind::Json => self.json(texts, |text| scan::check(text).map(|()| text.to_string()))?,
            Kind::Jsonb => self.json(texts, value::canonical)?,
            Kind::Length { column, length } => {
                let mut out = StringViewBuilder::with_capacity(texts.len());
                for text in texts {
                    let fitted =
                        text.map(|text| fitted(text, *length).ok_or_else(|| too_long(text, column, *length)));
                    out.append_option(fitted.transpose()?);
                }
                Arc::new(out.finish())
            }
        })
    }

    fn times(&self, texts: &StringViewArray) -> Result<ArrayRef> {
        let is_whole =
            |text: &str| text.len() >= 19 && [13, 16].iter().all(|at| text.as_bytes()[*at] == b':');
        if texts.iter().flatten().all(is_whole) {
            return Ok(Arc::new(texts.clone()));
        }
        let mut out = StringViewBuilder::with_capacity(texts.len());
        for text in texts {
            let read = text.map(|text| time::rewrite_literal(text, "TIMESTAMP")).transpose();
            match read {
                Ok(Some(Some(rewritten))) => out.append_value(rewritten),
                Ok(_) => out.append_option(text),
                Err(_) if self.lenient => out.append_null(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Arc::new(out.finish()))
    }

    fn json(
        &self,
        texts: &StringViewArray,
        read: impl Fn(&str) -> crate::error::Result<String>,
    ) -> Result<ArrayRef> {
        let mut out = StringViewBuilder::with_capacity(texts.len());
        for text in texts {
            match text.map(&read).transpose() {
                Ok(text) => out.append_option(text),
                Err(_) if self.lenient => out.append_null(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Arc::new(out.finish()))
    }

    fn texts<E: ToString>(
        &self,
        texts: &StringViewArray,
        type_name: &str,
        read: impl Fn(&str) -> std::result::Result<String, E>,
    ) -> Result<ArrayRef> {
        let mut out = StringViewBuilder::with_capacity(texts.len());
        for text in texts {
            out.append_option(self.each(text, type_name, &read)?);
        }
        Ok(Arc::new(out.finish()))
    }

    fn each<T, E: ToString>(
        &self,
        text: Option<&str>,
        type_name: &str,
        read: impl Fn(&str) -> std::result::Result<T, E>,
    ) -> Result<Option<T>> {
        let Some(text) = text else { return Ok(None) };
        match read(text) {
            Ok(value) => Ok(Some(value)),
            Err(_) if self.lenient => Ok(None),
            Err(expected) => Err(wrong(text, type_name, expected)),
        }
    }
}

/// The most characters of a wrong text that a message shows.
const SHOWN_MAX: usize = 60;

fn wrong(text: &str, type_name: &str, expected: impl ToString) -> datafusion::error::DataFusionError {
    let shown = shown(text);
    Error::invalid(format!("'{shown}' is no value for {type_name}: expected {}", expected.to_string())).into()
}

fn too_long(text: &str, column: &str, length: u64) -> datafusion::error::DataFusionError {
    let shown = shown(text);
    let found = text.chars().count();
    Error::invalid(format!(
        "value too long for type character varying({length}): '{shown}' for column \"{column}\" has {found} characters"
    ))
    .into()
}

/// Shortens a text for a message.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// Removes trailing blanks from a text that is too long with them. Returns none if it is still too long.
fn fitted(text: &str, length: u64) -> Option<&str> {
    let Some((end, _)) = text.char_indices().nth(usize::try_from(length).unwrap_or(usize::MAX)) else {
        return Some(text);
    };
    text[end..].trim_end_matches(' ').is_empty().then_some(&text[..end])
}

impl ScalarUDFImpl for ReadText {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// A cast doesn't appear in a column's name.
    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        Ok(arguments.first().map(|argument| argument.schema_name().to_string()).unwrap_or_default())
    }

    fn return_type(&self, _argument_types: &[DataType]) -> Result<DataType> {
        Ok(match &self.kind {
            Kind::Bytes => DataType::Binary,
            Kind::Lists(depth) => array::list_type(*depth),
            Kind::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Kind::Time | Kind::Uuid | Kind::Json | Kind::Jsonb | Kind::Length { .. } => DataType::Utf8View,
        })
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = self.lenient || arguments.arg_fields.iter().any(|field| field.is_nullable());
        let field = Field::new(self.name(), self.return_type(&[])?, nullable);
        Ok(Arc::new(match self.mark() {
            Some(mark) => mark.put(field),
            None => field,
        }))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(argument) = arguments.args.into_iter().next() else {
            return Err(Error::bug(format!("{} was called without an argument", self.name)).into());
        };
        let (values, scalar) = match argument {
            ColumnarValue::Scalar(value) => (value.to_array()?, true),
            ColumnarValue::Array(values) => (values, false),
        };
        let values = match values.data_type() {
            DataType::Union(..) => json_text(&values)?,
            _ => cast(&values, &DataType::Utf8View)?,
        };
        let read = self.read(values.as_string_view())?;
        Ok(match scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&read, 0)?),
            false => ColumnarValue::Array(read),
        })
    }
}

/// Converts the result of `json_get` to text.
fn json_text(values: &ArrayRef) -> Result<ArrayRef> {
    let field = Arc::new(Field::new("json", values.data_type().clone(), true));
    let text =
        datafusion_functions_json::udfs::json_union_to_text_udf().invoke_with_args(ScalarFunctionArgs {
            args: vec![ColumnarValue::Array(values.clone())],
            arg_fields: vec![field],
            number_rows: values.len(),
            return_field: Arc::new(Field::new("json", DataType::Utf8View, true)),
            config_options: Arc::default(),
        })?;
    text.into_array(values.len())
}
