//! The functions of times: `to_char`, `to_date` and `to_timestamp`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, PrimitiveArray, StringBuilder, StringViewArray,
    Time64NanosecondArray, new_null_array,
};
use arrow::compute::{cast, filter, interleave};
use arrow::datatypes::{
    ArrowTimestampType, DataType, Decimal128Type, Field, FieldRef, Float64Type, TimeUnit,
};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use millstream_delta::sql_type;

use super::numbers::{self, Numbers, is_text};
use super::pattern::{self, Node};
use super::read_time::{self, Parsed};
use super::write_time::{self, Moment};
use crate::error::Error;
use crate::functions::moments::{self, Micros, Nanos, in_unit, timestamptz, zoned};
use crate::functions::postgres::patterns;
use crate::functions::postgres::time_parts::{DAY, SECOND, ShownZone, TimeColumn, TimeValue, is_time};
use crate::functions::scalar::{Kernel, Scalar, Typed, or_null};
use crate::functions::value_size_limit::check_column;
use crate::sqlstate;

/// A function of this file.
#[allow(clippy::enum_variant_names)] // They are the names of the functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    ToChar,
    ToDate,
    ToTimestamp,
}

/// Reads each text by its pattern.
type ByPattern = fn(&ArrayRef, &StringViewArray) -> Result<ArrayRef>;

/// Reads numbers.
type OfNumbers = fn(&ArrayRef) -> Result<ArrayRef>;

/// DataFusion's function with PostgreSQL's patterns.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Formatting {
    /// The function for patterns of strftime, and for other forms.
    other: Arc<ScalarUDF>,
    kind: Kind,
    /// The unit of the times that it returns.
    unit: TimeUnit,
    signature: Signature,
}

impl Formatting {
    pub(super) fn new(inner: Arc<ScalarUDF>, kind: Kind, unit: TimeUnit) -> Formatting {
        let signature = match kind {
            Kind::ToChar => Signature::any(2, Volatility::Immutable),
            Kind::ToDate | Kind::ToTimestamp => inner.signature().clone(),
        };
        Formatting { other: Arc::new(patterns::patterned(inner)), kind, unit, signature }
    }

    /// Calls the function by PostgreSQL's patterns.
    fn formatted(&self, values: &ArrayRef, patterns: &StringViewArray) -> Result<ArrayRef> {
        match self.kind {
            Kind::ToChar => to_char(values, patterns),
            Kind::ToDate => {
                let days = read_each(values, patterns, |_, parsed| {
                    i32::try_from(parsed.days).map_err(|_| {
                        Error::invalid("a time is out of the range of DATE")
                            .code(sqlstate::DATETIME_FIELD_OVERFLOW)
                    })
                })?;
                Ok(Arc::new(days.into_iter().collect::<Date32Array>()))
            }
            Kind::ToTimestamp => {
                let read: ByPattern = in_unit(self.unit, moments_of::<Micros>, moments_of::<Nanos>);
                read(values, patterns)
            }
        }
    }

    /// Calls the function by patterns of strftime.
    fn other(
        &self,
        mut arguments: ScalarFunctionArgs,
        values: ArrayRef,
        patterns: ArrayRef,
    ) -> Result<ArrayRef> {
        arguments.number_rows = values.len();
        let patterns = cast(&patterns, &DataType::Utf8)?;
        arguments.args = vec![ColumnarValue::Array(values), ColumnarValue::Array(patterns)];
        let rows = arguments.number_rows;
        self.other.inner().invoke_with_args(arguments)?.into_array(rows)
    }

    /// Calls the function by a column of patterns of either kind.
    fn by_column(
        &self,
        arguments: &ScalarFunctionArgs,
        values: ArrayRef,
        texts: ArrayRef,
    ) -> Result<ArrayRef> {
        let patterns = cast(&texts, &DataType::Utf8View)?;
        // DataFusion's function writes neither numbers nor months of intervals.
        let has_strftime = self.kind != Kind::ToChar
            || !(values.data_type().is_numeric() || matches!(values.data_type(), DataType::Interval(_)));
        let is_other = |pattern: Option<&str>| {
            Some(has_strftime && pattern.is_some_and(|pattern| pattern.contains('%')))
        };
        let others: BooleanArray = patterns.as_string_view().iter().map(is_other).collect();
        let target = arguments.return_type();
        let formatted = |values: &ArrayRef, patterns: &ArrayRef| -> Result<ArrayRef> {
            Ok(cast(&self.formatted(values, patterns.as_string_view())?, target)?)
        };
        if others.true_count() == 0 {
            return formatted(&values, &patterns);
        }
        let ours: BooleanArray = others.values().iter().map(|other| Some(!other)).collect();
        let one = formatted(&filter(&values, &ours)?, &filter(&patterns, &ours)?)?;
        let other = self.other(arguments.clone(), filter(&values, &others)?, filter(&patterns, &others)?)?;
        let other = cast(&other, target)?;
        let mut places = [0, 0];
        let rows: Vec<(usize, usize)> = others
            .values()
            .iter()
            .map(|is_other| {
                let from = usize::from(is_other);
                places[from] += 1;
                (from, places[from] - 1)
            })
            .collect();
        Ok(interleave(&[one.as_ref(), other.as_ref()], &rows)?)
    }
}

impl ScalarUDFImpl for Formatting {
    fn name(&self) -> &str {
        match self.kind {
            Kind::ToChar => "to_char",
            Kind::ToDate => "to_date",
            Kind::ToTimestamp => "to_timestamp",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.other.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        if self.kind != Kind::ToChar {
            return self.other.return_field_from_args(arguments);
        }
        match arguments.arg_fields {
            [value, pattern] if takes(value.data_type()) && is_text(pattern.data_type()) => {
                Ok(Arc::new(Field::new(self.name(), DataType::Utf8, true)))
            }
            fields => {
                let types: Vec<String> = fields.iter().map(|field| sql_type(field.data_type())).collect();
                Err(Error::invalid(format!("function \"to_char\" doesn't take {}", types.join(", ")))
                    .hint("It takes a time, an interval or a number, and a pattern: to_char(now(), 'YYYY-MM-DD').")
                    .into())
            }
        }
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.other.coerce_types(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let types: Vec<DataType> = arguments.args.iter().map(ColumnarValue::data_type).collect();
        let has_pattern = match (self.kind, &types[..]) {
            (Kind::ToChar, _) => true,
            (_, [text, pattern]) => is_text(text) && is_text(pattern),
            // Formats of a number have no effect.
            (Kind::ToTimestamp, [number, ..]) if number.is_numeric() => false,
            // DataFusion's function reads nanoseconds.
            (Kind::ToTimestamp, [text]) if is_text(text) && self.unit != TimeUnit::Nanosecond => {
                return arguments.args[0].cast_to(arguments.return_type(), None);
            }
            _ => return self.other.inner().invoke_with_args(arguments),
        };
        let is_scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { arguments.number_rows };
        let columns = arguments.args.iter().map(|argument| argument.clone().into_array(rows));
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let result = match (&columns[..], has_pattern) {
            ([values, patterns], true) => self.by_column(&arguments, values.clone(), patterns.clone())?,
            ([numbers, ..], false) => {
                let read: OfNumbers =
                    in_unit(self.unit, moments_after_1970::<Micros>, moments_after_1970::<Nanos>);
                cast(&read(numbers)?, arguments.return_type())?
            }
            _ => return Err(Error::invalid("to_char takes a value and a pattern").into()),
        };
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }
}

/// True for the types that `to_char` writes.
fn takes(data_type: &DataType) -> bool {
    data_type.is_numeric() || data_type.is_null() || is_time(data_type)
}

/// The nodes of the last pattern: most columns of patterns have one.
struct LastPattern {
    text: String,
    nodes: Vec<Node>,
}

impl LastPattern {
    fn new() -> LastPattern {
        LastPattern { text: String::new(), nodes: Vec::new() }
    }

    fn get(&mut self, pattern: &str) -> &[Node] {
        if self.text != pattern {
            *self = LastPattern { text: pattern.to_string(), nodes: pattern::parse(pattern) };
        }
        &self.nodes
    }
}

fn to_char(values: &ArrayRef, patterns: &StringViewArray) -> Result<ArrayRef> {
    if values.data_type().is_null() {
        return Ok(new_null_array(&DataType::Utf8, values.len()));
    }
    if values.data_type().is_numeric() {
        return numbers::to_char(&Numbers::new(values)?, patterns);
    }
    let moments = TimeColumn::local(values)?;
    let mut last = LastPattern::new();
    let mut out = StringBuilder::with_capacity(values.len(), 16 * values.len());
    let mut text = String::new();
    for (row, pattern) in patterns.iter().enumerate() {
        // As in PostgreSQL, an empty pattern gives NULL.
        let (Some(pattern), Some(moment)) = (pattern.filter(|pattern| !pattern.is_empty()), moments.get(row))
        else {
            out.append_null();
            continue;
        };
        text.clear();
        let moment = moment_of(moment, values.data_type(), moments.zone(row));
        write_time::write(&mut text, &moment, last.get(pattern))?;
        check_column("to_char", out.values_slice().len(), text.len())?;
        out.append_value(&text);
    }
    Ok(Arc::new(out.finish()))
}

/// Returns the parts of a value. A date has a zone, as in PostgreSQL.
fn moment_of(value: TimeValue, data_type: &DataType, zone: Option<ShownZone>) -> Moment {
    match value {
        TimeValue::Interval(interval) => Moment::of_interval(interval),
        TimeValue::Moment { days, nanoseconds } => {
            let zone = match data_type {
                DataType::Timestamp(_, None) => None,
                _ => Some(zone.unwrap_or_default()),
            };
            Moment::of_day(days, nanoseconds, zone)
        }
    }
}

/// Reads each text by its pattern.
fn read_each<T>(
    values: &ArrayRef,
    patterns: &StringViewArray,
    convert: impl Fn(&str, Parsed) -> Result<T, Error>,
) -> Result<Vec<Option<T>>> {
    let texts = cast(values, &DataType::Utf8View)?;
    let mut last = LastPattern::new();
    let rows = texts.as_string_view().iter().zip(patterns).map(|pair| {
        let (Some(text), Some(pattern)) = pair else { return Ok(None) };
        convert(text, read_time::read(text, last.get(pattern))?).map(Some)
    });
    Ok(rows.collect::<Result<_, Error>>()?)
}

/// Returns the function that reads a text by a pattern, and gives NULL for one that doesn't fit.
pub(super) fn try_to_timestamp(unit: TimeUnit) -> ScalarUDF {
    let typed: Typed = in_unit(unit, |_| Ok(timestamptz::<Micros>()), |_| Ok(timestamptz::<Nanos>()));
    let kernel: Kernel = in_unit(unit, moments_or_null::<Micros>, moments_or_null::<Nanos>);
    Scalar::exact("timestamp_or_null", vec![DataType::Utf8View; 2], typed, kernel)
}

fn moments_or_null<T: ArrowTimestampType>(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let read: Kernel = |columns| moments_of::<T>(&columns[0], columns[1].as_string_view());
    or_null(columns, &timestamptz::<T>(), read)
}

/// Returns the functions that read a time of day by a pattern: of another text, one is an error and one gives NULL.
pub(super) fn to_time() -> [ScalarUDF; 2] {
    const TIME: DataType = DataType::Time64(TimeUnit::Nanosecond);
    let texts = || vec![DataType::Utf8View; 2];
    [
        Scalar::exact("time_of_text", texts(), |_| Ok(TIME), read_times),
        Scalar::exact("time_or_null", texts(), |_| Ok(TIME), |columns| or_null(columns, &TIME, read_times)),
    ]
}

fn read_times(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let times = read_each(&columns[0], columns[1].as_string_view(), |text, parsed| {
        let is_time = (0..86_400_000_000).contains(&parsed.microseconds) && !text.trim().is_empty();
        is_time.then_some(parsed.microseconds * 1_000).ok_or_else(|| {
            Error::invalid(format!("'{text}' is no time of a day")).code(sqlstate::DATETIME_FIELD_OVERFLOW)
        })
    })?;
    Ok(Arc::new(times.into_iter().collect::<Time64NanosecondArray>()))
}

fn moments_of<T: ArrowTimestampType>(values: &ArrayRef, patterns: &StringViewArray) -> Result<ArrayRef> {
    let times = read_each(values, patterns, |_, parsed| Ok(nanoseconds(&parsed)))?;
    Ok(zoned(moments::moments::<T>(times.into_iter().map(Ok), out_of_range::<T>)?))
}

fn out_of_range<T: ArrowTimestampType>() -> Error {
    moments::out_of_range::<T>("TIMESTAMPTZ")
}

/// Reads each text by its pattern, as nanoseconds since 1970 in UTC. Also returns true for a text with an offset.
pub(in crate::functions) fn read_in_zone(
    texts: &ArrayRef,
    patterns: &StringViewArray,
) -> Result<Vec<Option<(i128, bool)>>> {
    read_each(texts, patterns, |_, parsed| Ok((nanoseconds(&parsed), parsed.has_offset)))
}

/// Reads texts by one pattern. A text that doesn't fit is NULL.
pub(in crate::functions) fn read_moments(texts: &ArrayRef, pattern: &str) -> Result<ArrayRef> {
    let texts = cast(texts, &DataType::Utf8View)?;
    let nodes = pattern::parse(pattern);
    let read = |text: &str| {
        let time = nanoseconds(&read_time::read(text, &nodes).ok()?);
        i64::try_from(time.div_euclid(1_000)).ok()
    };
    let times = texts.as_string_view().iter().map(|text| text.and_then(read));
    Ok(zoned(times.collect::<PrimitiveArray<Micros>>()))
}

/// Writes times by one pattern.
pub(in crate::functions) fn write_moments(times: &ArrayRef, pattern: &str) -> Result<ArrayRef> {
    let patterns = StringViewArray::from_iter_values(std::iter::repeat_n(pattern, times.len()));
    to_char(times, &patterns)
}

fn nanoseconds(parsed: &Parsed) -> i128 {
    i128::from(parsed.days) * i128::from(DAY) + i128::from(parsed.microseconds) * 1_000
        - i128::from(parsed.offset) * i128::from(SECOND)
}

/// Returns the times that are numbers of seconds after 1970. As in PostgreSQL, floats are rounded to microseconds.
fn moments_after_1970<T: ArrowTimestampType>(numbers: &ArrayRef) -> Result<ArrayRef> {
    let times: Vec<Option<i128>> = if numbers.data_type().is_integer() {
        let seconds = cast(numbers, &DataType::Decimal128(20, 0))?;
        let seconds = seconds.as_primitive::<Decimal128Type>().iter();
        seconds.map(|second| second.map(|second| second * i128::from(SECOND))).collect()
    } else if matches!(numbers.data_type(), DataType::Decimal128(..) | DataType::Decimal256(..)) {
        let digits = if T::UNIT == TimeUnit::Nanosecond { 9 } else { 6 };
        let exact = cast(numbers, &DataType::Decimal128(38, digits))?;
        let each = if digits == 9 { 1 } else { 1_000 };
        let exact = exact.as_primitive::<Decimal128Type>().iter();
        exact.map(|value| value.map(|value| value.saturating_mul(each))).collect()
    } else {
        let floats = cast(numbers, &DataType::Float64)?;
        let floats = floats.as_primitive::<Float64Type>().iter();
        let time = |value: f64| {
            let microseconds = (value * 1e6).round_ties_even();
            let fits = microseconds.abs() < 9.2e18;
            fits.then_some(microseconds as i128 * 1_000).ok_or_else(out_of_range::<T>)
        };
        floats.map(|value| value.map(time).transpose()).collect::<Result<_, Error>>()?
    };
    Ok(zoned(moments::moments::<T>(times.into_iter().map(Ok), out_of_range::<T>)?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_of_patterns_have_both_kinds() {
        let tables = crate::fixture::Tables::new().table(
            "t",
            "(id INT, d TIMESTAMP, p TEXT)",
            "VALUES (1, '2024-03-09 15:04:05', 'HH12 PM'), (2, '2024-03-09 15:04:05', '%Y'), (3, NULL, 'YYYY'), \
             (4, '2024-03-09 15:04:05', NULL), (5, '2024-03-09 15:04:05', '')",
        );
        tables.check("SELECT id, to_char(d, p) FROM t", &["1|03 PM", "2|2024", "3|NULL", "4|NULL", "5|NULL"]);
    }
}
