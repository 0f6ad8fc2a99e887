//! Builds a function of marked values from its parameters and a kernel that computes one row.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array,
    StringViewBuilder,
};
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use millstream_delta::sql_type;

use super::Mark;
use super::subtype::{Subtype, refuse_mixed};
use crate::error::{Error, Result as SqlResult};
use crate::functions::value_size_limit::check_column;
use crate::literals::array;

/// A parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::functions) enum Param {
    /// JSON as text.
    Json,
    /// Text of a type.
    Value(Mark),
    Text,
    /// An array of text, or one as a literal: `{a,0}`.
    Keys,
    /// An array of numbers, or one as a literal: `{0.1,1}`.
    Reals,
    Int,
    Float,
    Bool,
    /// A value that a range may hold.
    Element,
    /// A bound of a range, or its text.
    Bound(Subtype),
    /// A value of any type.
    Any,
}

/// The type of a function's result.
#[derive(Debug, Clone)]
pub(in crate::functions) enum Returns {
    Marked(Mark),
    /// A type that follows from that of the first argument that has one, or whose elements have one.
    Of(fn(Mark) -> Option<Mark>),
    /// An array of such a type.
    ListOf(fn(Mark) -> Option<Mark>),
    Type(DataType),
}

/// Computes results from the arguments of a row.
#[derive(Clone, Copy)]
pub(in crate::functions) enum Kernel {
    Text(fn(&Arguments, usize) -> SqlResult<Option<String>>),
    Bool(fn(&Arguments, usize) -> SqlResult<Option<bool>>),
    Int(fn(&Arguments, usize) -> SqlResult<Option<i32>>),
    Long(fn(&Arguments, usize) -> SqlResult<Option<i64>>),
    Real(fn(&Arguments, usize) -> SqlResult<Option<f32>>),
    Float(fn(&Arguments, usize) -> SqlResult<Option<f64>>),
    /// Computes all rows at once, also those with NULLs.
    Column(fn(&Arguments) -> SqlResult<ArrayRef>),
}

/// The function.
pub(in crate::functions) struct MarkedFunction {
    pub(in crate::functions) name: &'static str,
    pub(in crate::functions) params: &'static [Param],
    /// Other lists of parameters that it takes.
    others: &'static [&'static [Param]],
    /// The number of parameters at the end that may be left out.
    pub(in crate::functions) optional: usize,
    /// True if the last parameter may be repeated.
    pub(in crate::functions) repeats: bool,
    pub(in crate::functions) returns: Returns,
    /// True if a NULL in any argument makes the result NULL.
    pub(in crate::functions) strict: bool,
    pub(in crate::functions) kernel: Kernel,
    signature: Signature,
}

impl MarkedFunction {
    /// Creates a strict function with fixed parameters.
    pub(in crate::functions) fn new(
        name: &'static str,
        params: &'static [Param],
        returns: Returns,
        kernel: Kernel,
    ) -> MarkedFunction {
        let signature = Signature::user_defined(Volatility::Immutable);
        MarkedFunction {
            name,
            params,
            others: &[],
            optional: 0,
            repeats: false,
            returns,
            strict: true,
            kernel,
            signature,
        }
    }

    pub(in crate::functions) fn optional(self, optional: usize) -> MarkedFunction {
        MarkedFunction { optional, ..self }
    }

    /// Adds other lists of parameters.
    pub(in crate::functions) fn or(self, others: &'static [&'static [Param]]) -> MarkedFunction {
        MarkedFunction { others, ..self }
    }

    pub(in crate::functions) fn repeated(self) -> MarkedFunction {
        MarkedFunction { repeats: true, ..self }
    }

    /// Lets the kernel see NULLs.
    pub(in crate::functions) fn called_on_null(self) -> MarkedFunction {
        MarkedFunction { strict: false, ..self }
    }

    pub(in crate::functions) fn udf(self) -> ScalarUDF {
        ScalarUDF::from(self)
    }

    fn param(&self, at: usize) -> Option<Param> {
        match self.params.get(at) {
            None if self.repeats => self.params.last().copied(),
            found => found.copied(),
        }
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Field {
        let text = || Field::new(self.name, DataType::Utf8View, true);
        match &self.returns {
            Returns::Of(of) => match arguments.iter().find_map(|field| of(Mark::of(field)?)) {
                Some(mark) => mark.put(text()),
                None => text(),
            },
            Returns::ListOf(_) => Field::new(self.name, DataType::new_list(DataType::Utf8View, true), true),
            Returns::Marked(mark) => mark.put(text()),
            Returns::Type(data_type) => Field::new(self.name, data_type.clone(), true),
        }
    }
}

impl fmt::Debug for MarkedFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MarkedFunction({})", self.name)
    }
}

// The name identifies the function: there is one of each name.
impl PartialEq for MarkedFunction {
    fn eq(&self, other: &MarkedFunction) -> bool {
        self.name == other.name
    }
}

impl Eq for MarkedFunction {}

impl Hash for MarkedFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// True if values of a type are text.
pub(crate) fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        other => matches!(other, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
    }
}

impl Param {
    fn expected(self) -> &'static str {
        match self {
            Param::Json => "JSON",
            Param::Value(mark) => mark.type_name(),
            Param::Text => "TEXT",
            Param::Keys => "TEXT[]",
            Param::Reals => "REAL[]",
            Param::Int => "INT",
            Param::Float => "DOUBLE PRECISION",
            Param::Bool => "BOOLEAN",
            Param::Element => "a number or a time",
            Param::Bound(subtype) => subtype.name(),
            Param::Any => "a value",
        }
    }

    /// Returns the type that an argument is cast to.
    fn accepts(self, found: &DataType) -> Option<DataType> {
        let is_null = found.is_null();
        match self {
            Param::Json | Param::Value(_) | Param::Text => {
                (is_null || is_text(found)).then_some(DataType::Utf8View)
            }
            Param::Int => (is_null || found.is_integer()).then_some(DataType::Int64),
            Param::Float => (is_null || found.is_numeric()).then_some(DataType::Float64),
            Param::Any => Some(found.clone()),
            Param::Bool => (is_null || *found == DataType::Boolean).then_some(DataType::Boolean),
            Param::Bound(_) if is_null || is_text(found) => Some(DataType::Utf8View),
            Param::Bound(subtype) if !subtype.accepts(found) => None,
            Param::Element | Param::Bound(_) => comparable(found),
            Param::Reals => match found {
                DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                    let is_numbers = item.data_type().is_null() || item.data_type().is_numeric();
                    is_numbers.then(|| DataType::new_list(DataType::Float32, true))
                }
                found => (is_null || is_text(found)).then_some(DataType::Utf8View),
            },
            Param::Keys => match found {
                DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                    let is_keys = item.data_type().is_null() || is_text(item.data_type());
                    is_keys.then(|| DataType::new_list(DataType::Utf8View, true))
                }
                found => (is_null || is_text(found)).then_some(DataType::Utf8View),
            },
        }
    }
}

/// Returns the type in which a value is compared with the bounds of a range.
fn comparable(found: &DataType) -> Option<DataType> {
    Some(match found {
        DataType::UInt64 => DataType::Decimal128(20, 0),
        found if found.is_integer() => DataType::Int64,
        found if found.is_floating() => DataType::Float64,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::Timestamp(..) => found.clone(),
        _ => return None,
    })
}

impl ScalarUDFImpl for MarkedFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        for params in self.others {
            let types = params.iter().zip(found).map(|(param, found)| param.accepts(found));
            let types = types.collect::<Option<Vec<DataType>>>().filter(|_| params.len() == found.len());
            if let Some(types) = types {
                return Ok(types);
            }
        }
        let least = self.params.len() - self.optional;
        if found.len() < least || (!self.repeats && found.len() > self.params.len()) {
            let count = match self.optional {
                0 => least.to_string(),
                _ => format!("from {least} to {}", self.params.len()),
            };
            let at_least = if self.repeats { "at least " } else { "" };
            let message =
                format!("{} takes {at_least}{count} arguments, but {} were given", self.name, found.len());
            return Err(Error::invalid(message).into());
        }
        let each = found.iter().enumerate().map(|(at, found)| {
            let Some(param) = self.param(at) else { return Ok(found.clone()) };
            param.accepts(found).ok_or_else(|| {
                let (name, expected) = (self.name, param.expected());
                let message =
                    format!("{name}: argument {} must be {expected}, not {}", at + 1, sql_type(found));
                Error::invalid(message).hint("Cast it.").into()
            })
        });
        each.collect()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.return_field(&[]).data_type().clone())
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let expected = self.params.iter().map(|param| match param {
            Param::Value(mark) => Some(*mark),
            _ => None,
        });
        refuse_mixed(self.name, expected, arguments.arg_fields)?;
        Ok(Arc::new(self.return_field(arguments.arg_fields)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { arguments.number_rows };
        let columns = arguments.args.into_iter().map(|argument| argument.into_array(rows));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let all = Arguments { columns, rows };
        let result = self.compute(&all)?;
        Ok(match scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }
}

impl MarkedFunction {
    fn compute(&self, all: &Arguments) -> SqlResult<ArrayRef> {
        match self.kernel {
            Kernel::Text(compute) => self.texts(all, compute),
            Kernel::Bool(compute) => self.rows::<_, BooleanArray>(all, compute),
            Kernel::Int(compute) => self.rows::<_, Int32Array>(all, compute),
            Kernel::Long(compute) => self.rows::<_, Int64Array>(all, compute),
            Kernel::Real(compute) => self.rows::<_, Float32Array>(all, compute),
            Kernel::Float(compute) => self.rows::<_, Float64Array>(all, compute),
            Kernel::Column(compute) => compute(all),
        }
    }

    /// Returns the results of a function that computes one text at a time. Fails if they are too long for one batch.
    fn texts(
        &self,
        all: &Arguments,
        compute: fn(&Arguments, usize) -> SqlResult<Option<String>>,
    ) -> SqlResult<ArrayRef> {
        let mut bytes = 0;
        let mut out = StringViewBuilder::with_capacity(all.rows);
        for row in 0..all.rows {
            let text = if self.skips(all, row) { None } else { compute(all, row)? };
            let length = text.as_ref().map_or(0, String::len);
            check_column(self.name, bytes, length)?;
            bytes += length;
            out.append_option(text);
        }
        Ok(Arc::new(out.finish()))
    }

    /// True if an argument that is NULL makes the result NULL.
    fn skips(&self, all: &Arguments, row: usize) -> bool {
        self.strict && all.columns.iter().any(|column| column.is_null(row))
    }

    /// Returns the results of a function that computes one row at a time.
    fn rows<T, A: Array + FromIterator<Option<T>> + 'static>(
        &self,
        all: &Arguments,
        compute: fn(&Arguments, usize) -> SqlResult<Option<T>>,
    ) -> SqlResult<ArrayRef> {
        let rows = (0..all.rows).map(|row| if self.skips(all, row) { Ok(None) } else { compute(all, row) });
        Ok(Arc::new(rows.collect::<SqlResult<A>>()?))
    }
}

/// The arguments of a call.
pub(in crate::functions) struct Arguments {
    pub(in crate::functions) columns: Vec<ArrayRef>,
    pub(in crate::functions) rows: usize,
}

impl Arguments {
    /// Returns a text or JSON; none if it is NULL or left out.
    pub(in crate::functions) fn text(&self, at: usize, row: usize) -> Option<&str> {
        let column = self.columns.get(at)?.as_string_view_opt()?;
        column.is_valid(row).then(|| column.value(row))
    }

    /// Returns a number; none if it is NULL or left out.
    pub(in crate::functions) fn int(&self, at: usize, row: usize) -> Option<i64> {
        let column = self.columns.get(at)?.as_primitive_opt::<Int64Type>()?;
        column.is_valid(row).then(|| column.value(row))
    }

    /// Returns a number with a fraction; none if it is NULL or left out.
    pub(in crate::functions) fn float(&self, at: usize, row: usize) -> Option<f64> {
        let column = self.columns.get(at)?.as_primitive_opt::<Float64Type>()?;
        column.is_valid(row).then(|| column.value(row))
    }

    /// Returns a flag; none if it is NULL or left out.
    pub(in crate::functions) fn flag(&self, at: usize, row: usize) -> Option<bool> {
        let column = self.columns.get(at)?.as_boolean_opt()?;
        column.is_valid(row).then(|| column.value(row))
    }

    /// Returns the elements of an array of numbers; none if it is NULL or left out.
    pub(in crate::functions) fn reals(&self, at: usize, row: usize) -> SqlResult<Option<Vec<Option<f32>>>> {
        let list = self.columns.get(at).and_then(|column| column.as_list_opt::<i32>());
        if let Some(list) = list {
            let numbers = list.is_valid(row).then(|| list.value(row));
            return Ok(numbers.and_then(|numbers| {
                numbers.as_primitive_opt::<Float32Type>().map(|numbers| numbers.iter().collect())
            }));
        }
        let read = |text: Option<String>| -> SqlResult<Option<f32>> {
            let Some(text) = text else { return Ok(None) };
            text.trim().parse().map(Some).map_err(|_| Error::invalid(format!("'{text}' is no number")))
        };
        self.keys(at, row)?.map(|texts| texts.into_iter().map(read).collect()).transpose()
    }

    /// Returns the elements of an array of text; none if it is NULL or left out.
    pub(in crate::functions) fn keys(&self, at: usize, row: usize) -> SqlResult<Option<Vec<Option<String>>>> {
        let Some(column) = self.columns.get(at).filter(|column| column.is_valid(row)) else {
            return Ok(None);
        };
        let texts = match column.as_list_opt::<i32>() {
            Some(lists) => lists.value(row).as_string_view_opt().cloned(),
            None => match self.text(at, row) {
                None => None,
                Some(text) => Some(array::elements(text).map_err(|expected| {
                    Error::invalid(format!("'{text}' is no value for an array: expected {expected}"))
                })?),
            },
        };
        Ok(texts.map(|texts| texts.iter().map(|text| text.map(str::to_string)).collect()))
    }
}
