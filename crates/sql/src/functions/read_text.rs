//! Casts from text that follow PostgreSQL where DataFusion's differ.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, IntervalMonthDayNanoBuilder, RecordBatch, StringViewArray,
    StringViewBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, IntervalUnit, Schema};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use millstream_delta::BitType;

use serde_json::{Value, json};

use crate::error::Error;
use crate::functions::Registry;
use crate::functions::bits::{self, value as value_of_bits};
use crate::functions::json::{scan, value};
use crate::functions::marks::function::is_text;
use crate::functions::marks::{Mark, enum_type, enums};
use crate::functions::value_size_limit::check_column;
use crate::functions::{geometry, network, ranges, text_search, xml};
use crate::literals::{self, array, interval, shown, time};
use crate::sqlstate;
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
    /// A type whose values are stored as text, in its canonical form.
    Marked(Mark),
    /// Bit strings of this length: by a cast, which cuts or extends them, or for a column, which refuses others.
    Bits { of: BitType, is_cast: bool },
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
    /// True in conditions: a join by a call adds a column of the call's name, which must differ from that of its argument.
    is_condition: bool,
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
    for kind in Mark::all().map(Kind::Marked) {
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
            Kind::Marked(Mark::Enum(_)) => "read_enum".to_string(),
            Kind::Marked(mark) => format!("read_{}", mark.name()),
            Kind::Bits { of, is_cast: true } => read_bits(*of),
            Kind::Bits { of, is_cast: false } => format!("check_{}", of.name()),
            Kind::Length { .. } => "check_length".to_string(),
        };
        let name = if lenient { format!("try_{name}") } else { name };
        ReadText {
            name,
            kind,
            lenient,
            is_condition: false,
            signature: Signature::any(1, Volatility::Immutable),
        }
    }

    /// Returns the function that a cast to an enum type, or to bit strings of a length, calls by this name.
    pub(crate) fn of_type(name: &str) -> Option<Arc<ScalarUDF>> {
        let (name, lenient) = name.strip_prefix("try_").map_or((name, false), |name| (name, true));
        let kind = match enum_type::read_by(name) {
            Some(of) => Kind::Marked(Mark::Enum(of)),
            None => Kind::Bits { of: bits_read_by(name)?, is_cast: true },
        };
        Some(Arc::new(ReadText::new(kind, lenient).into()))
    }

    /// Builds the call that reads an expression.
    pub(crate) fn call(kind: Kind, lenient: bool, argument: Expr) -> Expr {
        ScalarUDF::from(ReadText::new(kind, lenient)).call(vec![argument])
    }

    /// Returns the call as a condition has it; none for another expression.
    pub(crate) fn in_condition(expression: &Expr) -> Option<Expr> {
        let Expr::ScalarFunction(call) = expression else { return None };
        let read = call.func.inner().downcast_ref::<ReadText>().filter(|read| !read.is_condition)?;
        let named = ReadText { is_condition: true, ..ReadText::new(read.kind.clone(), read.lenient) };
        Some(ScalarUDF::from(named).call(call.args.clone()))
    }

    /// Returns true if an expression is such a call.
    pub(crate) fn is_call(expression: &Expr, kind: &Kind) -> bool {
        let Expr::ScalarFunction(call) = expression else { return false };
        call.func.inner().downcast_ref::<ReadText>().is_some_and(|read| read.kind == *kind)
    }

    /// Returns the mark of the results.
    pub(crate) fn mark(&self) -> Option<Mark> {
        match self.kind {
            Kind::Marked(mark) => Some(mark),
            Kind::Bits { of, .. } => Some(Mark::of_bits(of)),
            _ => None,
        }
    }

    /// Returns the mark of an expression's results, if it is such a call.
    pub(crate) fn mark_of(expression: &Expr) -> Option<Mark> {
        let Expr::ScalarFunction(call) = expression else { return None };
        call.func.inner().downcast_ref::<ReadText>()?.mark()
    }

    /// Encodes the function for a stored plan.
    pub(crate) fn to_json(&self) -> Value {
        let kind = match &self.kind {
            Kind::Bytes => json!(["bytes"]),
            Kind::Lists(depth) => json!(["lists", depth]),
            Kind::Interval => json!(["interval"]),
            Kind::Time => json!(["timestamp"]),
            Kind::Marked(Mark::Enum(of)) => json!(["enum", of.spelling()]),
            Kind::Marked(mark) => json!([mark.name()]),
            Kind::Bits { of, is_cast } => json!(["bits", of.to_string(), is_cast]),
            Kind::Length { column, length } => json!(["length", column, length]),
        };
        match self.is_condition {
            true => json!({"read": kind, "lenient": self.lenient, "condition": true}),
            false => json!({"read": kind, "lenient": self.lenient}),
        }
    }

    /// Decodes the function from a stored plan.
    pub(crate) fn from_json(written: &Value) -> Option<ReadText> {
        let kind = written.get("read")?;
        let kind = match kind.get(0)?.as_str()? {
            "bytes" => Kind::Bytes,
            "lists" => Kind::Lists(usize::try_from(kind.get(1)?.as_u64()?).ok()?),
            "interval" => Kind::Interval,
            "timestamp" => Kind::Time,
            "length" => {
                Kind::Length { column: kind.get(1)?.as_str()?.into(), length: kind.get(2)?.as_u64()? }
            }
            "bits" => {
                Kind::Bits { of: BitType::spelled(kind.get(1)?.as_str()?)?, is_cast: kind.get(2)?.as_bool()? }
            }
            "enum" => Kind::Marked(Mark::spelled(kind.get(1)?.as_str()?)?),
            name => Kind::Marked(Mark::named(name)?),
        };
        let is_condition = written.get("condition").and_then(Value::as_bool).unwrap_or(false);
        Some(ReadText { is_condition, ..ReadText::new(kind, written.get("lenient")?.as_bool()?) })
    }

    /// Builds the check of a value for a column.
    pub(crate) fn checked(field: &Field, argument: Expr) -> Option<Expr> {
        Some(ReadText::call(ReadText::kind_of(field)?, false, argument))
    }

    fn kind_of(field: &Field) -> Option<Kind> {
        Some(match Checked::declared(field)? {
            Checked::Marked(mark) => Kind::Marked(mark),
            Checked::Bits(of) => Kind::Bits { of, is_cast: false },
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
            Kind::Marked(mark) => match bit_type(*mark) {
                Some(of) => self.bits(texts, of, true)?,
                None => self.canonical(texts, *mark)?,
            },
            Kind::Bits { of, is_cast } => self.bits(texts, *of, *is_cast)?,
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

    fn canonical(&self, texts: &StringViewArray, mark: Mark) -> Result<ArrayRef> {
        let mut out = StringViewBuilder::with_capacity(texts.len());
        for text in texts {
            match text.map(|text| canonical(mark, text)).transpose() {
                Ok(text) => out.append_option(text),
                Err(_) if self.lenient => out.append_null(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Arc::new(out.finish()))
    }

    fn bits(&self, texts: &StringViewArray, of: BitType, is_cast: bool) -> Result<ArrayRef> {
        let mut out = StringViewBuilder::with_capacity(texts.len());
        let mut bytes = 0;
        for text in texts {
            let fitted = |text| {
                let digits = value_of_bits::read(text)?;
                match is_cast {
                    true => Ok(value_of_bits::cast_to(digits, of)),
                    false => value_of_bits::check(&digits, of).map(|()| digits),
                }
            };
            match text.map(fitted).transpose() {
                Ok(digits) => {
                    check_column(of.name(), bytes, digits.as_deref().map_or(0, str::len))?;
                    bytes += digits.as_deref().map_or(0, str::len);
                    out.append_option(digits);
                }
                Err(_) if self.lenient => out.append_null(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Arc::new(out.finish()))
    }

    /// Returns the bits of whole numbers.
    fn bits_of_numbers(&self, numbers: &ArrayRef) -> Result<ArrayRef> {
        let length = match self.kind {
            Kind::Bits { of, .. } => of.length.unwrap_or(1),
            _ => 1,
        };
        let numbers = cast(numbers, &DataType::Int64)?;
        let mut out = StringViewBuilder::with_capacity(numbers.len());
        let mut bytes = 0;
        for number in numbers.as_primitive::<Int64Type>() {
            check_column("bit", bytes, length as usize)?;
            bytes += length as usize;
            out.append_option(number.map(|number| value_of_bits::of_int(number, length)));
        }
        Ok(Arc::new(out.finish()))
    }

    /// Fails if values of a type have no cast to bit strings.
    fn check_bits(&self, argument: &Field) -> Result<()> {
        let to = match self.mark() {
            Some(Mark::Bit) => "bit",
            Some(Mark::Varbit) => "bit varying",
            _ => return Ok(()),
        };
        let found = argument.data_type();
        let from = match Mark::of(argument) {
            Some(mark) if mark.is_bits() => return Ok(()),
            Some(mark) => mark.shown().to_string(),
            None if is_text(found) || found.is_null() => return Ok(()),
            None if to == "bit" && matches!(found, DataType::Int32 | DataType::Int64) => return Ok(()),
            None => bits::type_name(found),
        };
        Err(Error::invalid(format!("cannot cast type {from} to {to}"))
            .hint("INT and BIGINT have casts to BIT(n), and TEXT has casts to BIT(n) and VARBIT.")
            .code(sqlstate::CANNOT_COERCE)
            .into())
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

/// Returns the type of bit strings of any length, or none for other types.
fn bit_type(mark: Mark) -> Option<BitType> {
    mark.is_bits().then_some(BitType { is_varying: mark == Mark::Varbit, length: None })
}

/// The beginning of the names of functions that cast to bit strings of a length. The name of the type and the length follow.
const READ_BITS: &str = "bits.read.";

/// Returns the name of the function that casts to a type of bit strings, in a statement.
pub(crate) fn read_bits(of: BitType) -> String {
    match of.length {
        Some(length) => format!("{READ_BITS}{}.{length}", of.name()),
        None => format!("read_{}", of.name()),
    }
}

/// Returns the type that such a function casts to.
fn bits_read_by(name: &str) -> Option<BitType> {
    let (name, length) = name.strip_prefix(READ_BITS)?.split_once('.')?;
    Some(BitType { is_varying: name == "varbit", length: Some(length.parse().ok()?) })
}

/// Returns the canonical form of a text of a type.
fn canonical(mark: Mark, text: &str) -> crate::error::Result<String> {
    match mark {
        Mark::Json => scan::check(text).map(|()| text.to_string()),
        Mark::Jsonb => value::canonical(text),
        Mark::Xml => xml::canonical(text),
        Mark::Uuid => literals::uuid(text).map_err(|expected| invalid_text(mark, text, expected)),
        Mark::Enum(of) => enums::checked(of, text),
        Mark::Inet | Mark::Cidr | Mark::Macaddr | Mark::Macaddr8 => network::canonical(mark, text),
        Mark::Point | Mark::Line | Mark::Lseg | Mark::Box | Mark::Path | Mark::Polygon | Mark::Circle => {
            geometry::canonical(mark, text)
        }
        Mark::Tsvector | Mark::Tsquery | Mark::Regconfig => text_search::canonical(mark, text),
        Mark::Bit | Mark::Varbit => Ok(value_of_bits::read(text)?.into_owned()),
        range => ranges::canonical(range, text),
    }
}

/// Returns the error of a text that is no value of a type.
pub(in crate::functions) fn invalid_text(mark: Mark, text: &str, expected: &str) -> Error {
    Error::invalid(format!("invalid input syntax for type {}: \"{}\"", mark.name(), shown(text)))
        .hint(format!("Expected {expected}."))
        .code(sqlstate::INVALID_TEXT_REPRESENTATION)
}

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
        let argument =
            arguments.first().map(|argument| argument.schema_name().to_string()).unwrap_or_default();
        Ok(if self.is_condition { format!("{}({argument})", self.name) } else { argument })
    }

    fn return_type(&self, _argument_types: &[DataType]) -> Result<DataType> {
        Ok(match &self.kind {
            Kind::Bytes => DataType::Binary,
            Kind::Lists(depth) => array::list_type(*depth),
            Kind::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Kind::Time | Kind::Marked(_) | Kind::Bits { .. } | Kind::Length { .. } => DataType::Utf8View,
        })
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        arguments.arg_fields.iter().try_for_each(|field| self.check_bits(field))?;
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
        let read = match values.data_type() {
            found if found.is_integer() && self.mark().is_some_and(Mark::is_bits) => {
                self.bits_of_numbers(&values)?
            }
            DataType::Union(..) => self.read(json_text(&values)?.as_string_view())?,
            _ => self.read(cast(&values, &DataType::Utf8View)?.as_string_view())?,
        };
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
