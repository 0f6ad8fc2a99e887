//! The columns that values of binary formats are read into.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryViewBuilder, BooleanBuilder, Decimal256Builder, Float64Builder, Int64Builder,
    IntervalMonthDayNanoBuilder, ListArray, MapArray, NullBufferBuilder, StringViewBuilder, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, FieldRef, Fields, IntervalUnit, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit, i256,
};
use chrono::Utc;
use millstream_delta::sql_type;

/// A column under construction.
pub(crate) struct Target {
    pub field: FieldRef,
    pub values: Values,
}

/// The values of a column, in the widest type of their kind.
pub(crate) enum Values {
    Boolean(BooleanBuilder),
    /// Whole numbers, dates and times, within bounds.
    Whole {
        values: Int64Builder,
        bounds: (i64, u64),
    },
    Float(Float64Builder),
    Decimal {
        values: Decimal256Builder,
        scale: i8,
        least: i256,
        /// The first number that is too large.
        bound: i256,
    },
    Text(StringViewBuilder),
    Bytes(BinaryViewBuilder),
    Interval(IntervalMonthDayNanoBuilder),
    List {
        ends: Vec<i32>,
        validity: NullBufferBuilder,
        item: Box<Target>,
    },
    Map {
        ends: Vec<i32>,
        validity: NullBufferBuilder,
        keys: Box<Target>,
        values: Box<Target>,
    },
    Struct(StructTarget),
}

/// The fields of records.
pub(crate) struct StructTarget {
    validity: NullBufferBuilder,
    pub children: Vec<Target>,
}

impl Target {
    /// Creates an empty column. Fails for types that values of such formats can't become.
    pub fn new(field: &FieldRef) -> Result<Target, String> {
        use DataType::{Time32, Time64, Timestamp};
        let whole =
            |least: i64, most: u64| Values::Whole { values: Int64Builder::new(), bounds: (least, most) };
        let values = match field.data_type() {
            DataType::Boolean => Values::Boolean(BooleanBuilder::new()),
            DataType::Int8 => whole(i8::MIN.into(), i8::MAX as u64),
            DataType::Int16 => whole(i16::MIN.into(), i16::MAX as u64),
            DataType::Int32 | DataType::Date32 => whole(i32::MIN.into(), i32::MAX as u64),
            DataType::UInt8 => whole(0, u8::MAX.into()),
            DataType::UInt16 => whole(0, u16::MAX.into()),
            DataType::UInt32 => whole(0, u32::MAX.into()),
            DataType::UInt64 => Values::Decimal {
                values: Decimal256Builder::new(),
                scale: 0,
                least: i256::ZERO,
                bound: i256::from_i128(1 << 64),
            },
            DataType::Int64 | Timestamp(..) => whole(i64::MIN, i64::MAX as u64),
            // A day has no later time.
            Time32(unit) | Time64(unit) => whole(0, 86_400 * per_second(unit) as u64 - 1),
            DataType::Float16 | DataType::Float32 | DataType::Float64 => Values::Float(Float64Builder::new()),
            DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
                let bound = i256::from(10).checked_pow(u32::from(*precision)).unwrap_or(i256::MAX);
                let least = bound.wrapping_neg().wrapping_add(i256::ONE);
                Values::Decimal { values: Decimal256Builder::new(), scale: *scale, least, bound }
            }
            DataType::Utf8 | DataType::Utf8View => Values::Text(StringViewBuilder::new()),
            DataType::Binary | DataType::BinaryView => Values::Bytes(BinaryViewBuilder::new()),
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                Values::Interval(IntervalMonthDayNanoBuilder::new())
            }
            DataType::List(item) => Values::List {
                ends: vec![0],
                validity: NullBufferBuilder::new(0),
                item: Box::new(Target::new(item)?),
            },
            DataType::Struct(fields) => Values::Struct(StructTarget::new(fields)?),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(fields) if fields.len() == 2 => Values::Map {
                    ends: vec![0],
                    validity: NullBufferBuilder::new(0),
                    keys: Box::new(Target::new(&fields[0])?),
                    values: Box::new(Target::new(&fields[1])?),
                },
                _ => return Err(unreadable(field)),
            },
            _ => return Err(unreadable(field)),
        };
        Ok(Target { field: field.clone(), values })
    }

    /// Returns the SQL type of the column.
    pub fn sql_type(&self) -> String {
        sql_type(self.field.data_type())
    }

    /// Appends NULL. Fails if the column is NOT NULL.
    pub fn push_null(&mut self) -> Result<(), Wrong> {
        if !self.field.is_nullable() {
            return Err(Wrong::new("is missing or null, but it is declared NOT NULL: a value was expected"));
        }
        self.push_absent();
        Ok(())
    }

    /// Appends a value that nobody sees: NULL, or one within a NULL.
    fn push_absent(&mut self) {
        match &mut self.values {
            Values::Boolean(values) => values.append_null(),
            Values::Whole { values, .. } => values.append_null(),
            Values::Float(values) => values.append_null(),
            Values::Decimal { values, .. } => values.append_null(),
            Values::Text(values) => values.append_null(),
            Values::Bytes(values) => values.append_null(),
            Values::Interval(values) => values.append_null(),
            Values::List { ends, validity, .. } | Values::Map { ends, validity, .. } => {
                ends.push(ends.last().copied().unwrap_or_default());
                validity.append_null();
            }
            Values::Struct(target) => {
                target.children.iter_mut().for_each(Target::push_absent);
                target.validity.append_null();
            }
        }
    }

    /// Appends a whole number, a date or a time.
    pub fn push_whole(&mut self, value: i64) -> Result<(), Wrong> {
        match &mut self.values {
            Values::Whole { values, bounds: (least, most) } => {
                if value < *least || (value > 0 && value as u64 > *most) {
                    return Err(self.too_large(&value.to_string()));
                }
                values.append_value(value);
                Ok(())
            }
            Values::Float(values) => {
                values.append_value(value as f64);
                Ok(())
            }
            Values::Decimal { .. } => self.push_decimal(i256::from(value), 0),
            _ => Err(self.mismatch("a whole number")),
        }
    }

    /// Appends the date, the time or the number that a text is.
    pub fn push_parsed(&mut self, text: &str) -> Result<(), Wrong> {
        let parsed = match self.field.data_type() {
            DataType::Date32 => Date32Type::parse(text).map(i64::from),
            DataType::Time32(TimeUnit::Second) => Time32SecondType::parse(text).map(i64::from),
            DataType::Time32(_) => Time32MillisecondType::parse(text).map(i64::from),
            DataType::Time64(TimeUnit::Nanosecond) => Time64NanosecondType::parse(text),
            DataType::Time64(_) => Time64MicrosecondType::parse(text),
            DataType::Timestamp(unit, _) => {
                let instant = string_to_datetime(&Utc, text).ok();
                instant.and_then(|instant| match unit {
                    TimeUnit::Second => Some(instant.timestamp()),
                    TimeUnit::Millisecond => Some(instant.timestamp_millis()),
                    TimeUnit::Microsecond => Some(instant.timestamp_micros()),
                    TimeUnit::Nanosecond => instant.timestamp_nanos_opt(),
                })
            }
            data_type if data_type.is_decimal() => {
                return match decimal(text) {
                    Some((value, scale)) => self.push_decimal(value, scale),
                    None => Err(self.mismatch(&format!("'{text}'"))),
                };
            }
            _ => None,
        };
        match parsed {
            Some(value) => self.push_whole(value),
            None => Err(self.mismatch(&format!("'{text}'"))),
        }
    }

    /// Appends a number of `scale` digits behind the point.
    pub fn push_decimal(&mut self, value: i256, scale: usize) -> Result<(), Wrong> {
        let Values::Decimal { values, scale: wanted, least, bound } = &mut self.values else {
            return Err(self.mismatch("a decimal"));
        };
        let more = i64::from(*wanted) - scale as i64;
        let factor = u32::try_from(more.unsigned_abs()).ok().and_then(|by| i256::from(10).checked_pow(by));
        let scaled = factor.and_then(|factor| match more >= 0 {
            true => value.checked_mul(factor),
            // Digits that would be lost don't fit.
            false => {
                value.checked_rem(factor).filter(|rest| *rest == i256::ZERO).and(value.checked_div(factor))
            }
        });
        match scaled.filter(|scaled| *scaled < *bound && *scaled >= *least) {
            Some(scaled) => {
                values.append_value(scaled);
                Ok(())
            }
            None if scale == 0 => Err(self.too_large(&value.to_string())),
            None => Err(self.too_large(&format!("{value}e-{scale}"))),
        }
    }

    /// Returns the error of a value that the column's type doesn't hold.
    pub fn too_large(&self, value: &str) -> Wrong {
        Wrong::new(format!("is {value}, which doesn't fit {}", self.sql_type()))
    }

    /// Returns the error of a value of another kind.
    pub fn mismatch(&self, found: &str) -> Wrong {
        Wrong::new(format!("is {found}, but the column is {}", self.sql_type()))
    }

    /// Returns the column.
    pub fn finish(self) -> Result<ArrayRef, String> {
        let data_type = self.field.data_type();
        let array: ArrayRef = match self.values {
            Values::Boolean(mut values) => Arc::new(values.finish()),
            Values::Whole { mut values, .. } => {
                let values: ArrayRef = Arc::new(values.finish());
                match data_type {
                    DataType::Date32 | DataType::Time32(_) => exactly(&values, &DataType::Int32)?,
                    _ => values,
                }
            }
            Values::Float(mut values) => Arc::new(values.finish()),
            Values::Decimal { values, scale, .. } => {
                let typed = values.with_precision_and_scale(76, scale);
                Arc::new(typed.map_err(|error| error.to_string())?.finish())
            }
            Values::Text(mut values) => Arc::new(values.finish()),
            Values::Bytes(mut values) => Arc::new(values.finish()),
            Values::Interval(mut values) => Arc::new(values.finish()),
            Values::List { ends, mut validity, item } => {
                let DataType::List(field) = data_type else { return Err(unreadable(&self.field)) };
                let ends = OffsetBuffer::new(ends.into());
                let list = ListArray::try_new(field.clone(), ends, item.finish()?, validity.finish());
                Arc::new(list.map_err(|error| error.to_string())?)
            }
            Values::Map { ends, mut validity, keys, values } => {
                let DataType::Map(entries, sorted) = data_type else { return Err(unreadable(&self.field)) };
                let DataType::Struct(fields) = entries.data_type() else {
                    return Err(unreadable(&self.field));
                };
                let columns = vec![keys.finish()?, values.finish()?];
                let ends = OffsetBuffer::new(ends.into());
                let map = StructArray::try_new(fields.clone(), columns, None).and_then(|pairs| {
                    MapArray::try_new(entries.clone(), ends, pairs, validity.finish(), *sorted)
                });
                Arc::new(map.map_err(|error| error.to_string())?)
            }
            Values::Struct(target) => {
                let DataType::Struct(fields) = data_type else { return Err(unreadable(&self.field)) };
                target.finish(fields)?
            }
        };
        exactly(&array, data_type)
    }
}

impl StructTarget {
    /// Creates empty columns.
    pub fn new(fields: &Fields) -> Result<StructTarget, String> {
        let children: Result<Vec<Target>, String> = fields.iter().map(Target::new).collect();
        Ok(StructTarget { validity: NullBufferBuilder::new(0), children: children? })
    }

    /// Ends a record whose fields were appended.
    pub fn push_valid(&mut self) {
        self.validity.append_non_null();
    }

    fn finish(mut self, fields: &Fields) -> Result<ArrayRef, String> {
        let validity = self.validity.finish();
        let columns = self.columns()?;
        let array = match columns.is_empty() {
            true => {
                Ok(StructArray::new_empty_fields(validity.as_ref().map_or(0, |nulls| nulls.len()), validity))
            }
            false => StructArray::try_new(fields.clone(), columns, validity),
        };
        Ok(Arc::new(array.map_err(|error| error.to_string())?))
    }

    /// Returns the columns of the fields.
    pub fn columns(self) -> Result<Vec<ArrayRef>, String> {
        self.children.into_iter().map(Target::finish).collect()
    }
}

/// A value that can't be read, or doesn't fit its column.
#[derive(Debug)]
pub(crate) struct Wrong {
    /// The field of the value, with the records around it; empty for the datum itself.
    path: String,
    what: String,
}

impl Wrong {
    /// Creates the error of a value; `what` follows its name in a sentence.
    pub fn new(what: impl Into<String>) -> Wrong {
        Wrong { path: String::new(), what: what.into() }
    }

    /// Returns the error of a value in a field.
    pub fn within(mut self, field: &str) -> Wrong {
        self.path = match self.path.is_empty() {
            true => field.to_string(),
            false => format!("{field}.{}", self.path),
        };
        self
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.path.is_empty() {
            true => write!(f, "the record's value {}", self.what),
            false => write!(f, "field '{}' {}", self.path, self.what),
        }
    }
}

/// Returns the units of a time in a second.
pub(crate) fn per_second(unit: &TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Returns true if texts become values of a type that is no text.
pub(crate) fn is_parsed(data_type: &DataType) -> bool {
    use DataType::{Date32, Time32, Time64, Timestamp};
    data_type.is_decimal() || matches!(data_type, Date32 | Time32(_) | Time64(_) | Timestamp(..))
}

/// Returns the digits of a number such as `-12.50`, and how many are behind the point.
fn decimal(text: &str) -> Option<(i256, usize)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = whole.strip_prefix(['-', '+']).unwrap_or(whole);
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if digits.len() + fraction.len() == 0 || !is_number(digits) || !is_number(fraction) {
        return None;
    }
    let all = format!("{}{fraction}", whole.trim_start_matches('+'));
    Some((i256::from_string(&all)?, fraction.len()))
}

fn exactly(array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, String> {
    if array.data_type() == data_type {
        return Ok(array.clone());
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, data_type, &options).map_err(|error| error.to_string())
}

fn unreadable(field: &FieldRef) -> String {
    format!(
        "column '{}' has type {}, which the format's values can't become",
        field.name(),
        sql_type(field.data_type())
    )
}
