//! The values of one generated column: value i is a function of the column's seed and i alone.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, PrimitiveArray, StringArray,
    StringViewBuilder,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use millstream_delta::sql_type;

use crate::{Error, Options, Result};

/// Default maximum of random numbers.
const RANDOM_MAX: i128 = 999_999;

/// Default length of random texts, in characters.
const TEXT_LENGTH: usize = 10;

/// Maximum length of random texts.
const TEXT_LENGTH_MAX: usize = 1 << 20;

const FIRST_DAY: &str = "2000-01-01";
const LAST_DAY: &str = "2029-12-31";

/// The generator of one column.
pub(super) struct Column {
    data_type: DataType,
    seed: u64,
    values: Values,
    cardinality: Option<u64>,
    null_ratio: f64,
}

/// The kind of values. Whole numbers stand for values of any type: the digits of a decimal, the days since
/// 1970 of a date, the units since 1970 of a timestamp.
enum Values {
    Sequence { start: i128, step: i128, count: u128 },
    Random { min: i128, count: u128 },
    Float { min: f64, max: f64 },
    Text { length: usize },
}

/// Returns a pseudorandom number from two numbers (splitmix64; Steele, Lea and Flood, OOPSLA 2014).
pub(super) fn mix(seed: u64, i: u64) -> u64 {
    let mut z = seed.wrapping_add(i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Maps a random number to the range from 0 up to but not including 1.
fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

/// The options of one column.
struct ColumnOptions<'a> {
    field: &'a Field,
    options: &'a Options,
}

impl ColumnOptions<'_> {
    fn name(&self, option: &str) -> String {
        format!("fields.{}.{option}", self.field.name().to_ascii_lowercase())
    }

    fn text(&self, option: &str) -> Option<&str> {
        self.options.get(&self.name(option))
    }

    /// Parses the option as a value of the column's type and returns it as a whole number.
    fn number(&self, option: &str, default: i128) -> Result<i128> {
        let Some(text) = self.text(option) else { return Ok(default) };
        let as_number = match self.field.data_type() {
            DataType::Utf8View | DataType::Utf8 | DataType::Float32 | DataType::Float64 => &DataType::Int64,
            other => other,
        };
        whole_number(text, as_number).ok_or_else(|| {
            Error::Invalid(format!(
                "option '{}' is '{text}', but a value of type {} was expected",
                self.name(option),
                sql_type(as_number)
            ))
        })
    }

    fn parse<T: std::str::FromStr>(&self, option: &str, what: &str) -> Result<Option<T>> {
        self.options.parse(&self.name(option), what)
    }

    fn invalid<T>(&self, what: &str) -> Result<T> {
        Err(Error::Invalid(format!("column '{}': {what}", self.field.name())))
    }
}

fn whole_number(text: &str, data_type: &DataType) -> Option<i128> {
    if matches!(data_type, DataType::Boolean) {
        return text.parse().ok().map(|value: bool| i128::from(value));
    }
    let options = CastOptions { safe: false, ..Default::default() };
    let text: ArrayRef = Arc::new(StringArray::from(vec![text.trim()]));
    let value = cast_with_options(&text, data_type, &options).ok()?;
    match data_type {
        DataType::Decimal128(..) => Some(value.as_primitive::<Decimal128Type>().value(0)),
        DataType::Date32 => Some(value.as_primitive::<Date32Type>().value(0).into()),
        DataType::UInt64 => Some(value.as_primitive::<UInt64Type>().value(0).into()),
        _ => {
            let value = cast_with_options(&value, &DataType::Int64, &options).ok()?;
            Some(value.as_primitive::<Int64Type>().value(0).into())
        }
    }
}

/// Returns the minimum and the maximum of a type, and the step of its sequences; `None` for unsupported
/// types.
fn range(data_type: &DataType) -> Option<(i128, i128, i128)> {
    let seconds = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    Some(match data_type {
        DataType::Boolean => (0, 1, 1),
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into(), 1),
        DataType::Int16 => (i16::MIN.into(), i16::MAX.into(), 1),
        DataType::Int32 | DataType::Date32 => (i32::MIN.into(), i32::MAX.into(), 1),
        DataType::Int64 | DataType::Float32 | DataType::Float64 | DataType::Utf8View | DataType::Utf8 => {
            (i64::MIN.into(), i64::MAX.into(), 1)
        }
        DataType::UInt8 => (0, u8::MAX.into(), 1),
        DataType::UInt16 => (0, u16::MAX.into(), 1),
        DataType::UInt32 => (0, u32::MAX.into(), 1),
        DataType::UInt64 => (0, u64::MAX.into(), 1),
        DataType::Decimal128(precision, scale) => {
            let greatest = 10i128.checked_pow((*precision).into())? - 1;
            (-greatest, greatest, 10i128.checked_pow(u32::try_from(*scale).ok()?)?)
        }
        DataType::Timestamp(unit, _) => (i64::MIN.into(), i64::MAX.into(), seconds(unit)),
        _ => return None,
    })
}

impl Column {
    /// Creates the generator of `field` from `options`.
    pub fn new(field: &Field, options: &Options, seed: u64) -> Result<Column> {
        let data_type = field.data_type().clone();
        let column = ColumnOptions { field, options };
        let Some((least, greatest, step)) = range(&data_type) else {
            return column
                .invalid(&format!("datagen can't generate values of type {}", sql_type(&data_type)));
        };
        let kind = options.get(&column.name("kind")).unwrap_or("random").to_ascii_lowercase();
        let is_time = matches!(data_type, DataType::Date32 | DataType::Timestamp(..));
        let day = |text| if is_time { whole_number(text, &data_type) } else { None };
        let first = day(FIRST_DAY).unwrap_or(0);
        let is_float = matches!(data_type, DataType::Float32 | DataType::Float64);
        let values = match kind.as_str() {
            "sequence" => {
                let start = column.number("start", first)?;
                let end = column.number("end", greatest)?;
                if end < start {
                    return column.invalid("'end' comes before 'start'");
                }
                Values::Sequence {
                    start,
                    step,
                    count: (end - start).unsigned_abs() / step.unsigned_abs() + 1,
                }
            }
            "random" if is_float => {
                let min = column.parse("min", "a number")?.unwrap_or(0.0);
                let max = column.parse("max", "a number")?.unwrap_or(f64::max(1.0, min));
                if !(min <= max && f64::is_finite(max - min)) {
                    return column.invalid("'max' is less than 'min'");
                }
                Values::Float { min, max }
            }
            "random" if matches!(data_type, DataType::Utf8View | DataType::Utf8) => {
                let length = column.parse("length", "a number of characters")?.unwrap_or(TEXT_LENGTH);
                if length > TEXT_LENGTH_MAX {
                    return column.invalid(&format!(
                        "'length' is {length}, but at most {TEXT_LENGTH_MAX} is possible"
                    ));
                }
                Values::Text { length }
            }
            "random" => {
                let usual = day(LAST_DAY).unwrap_or(RANDOM_MAX * step).min(greatest);
                let min = column.number("min", first)?.max(least);
                let max = column.number("max", if min <= usual { usual } else { greatest })?;
                if max < min {
                    return column.invalid("'max' is less than 'min'");
                }
                Values::Random { min, count: (max - min).unsigned_abs() + 1 }
            }
            other => {
                return column.invalid(&format!("'kind' is '{other}', but sequence or random was expected"));
            }
        };
        let cardinality = column.parse("cardinality", "a number of values")?;
        if cardinality == Some(0) {
            return column.invalid("'cardinality' is 0, but at least 1 was expected");
        }
        let null_ratio = column.parse("null_ratio", "a number from 0 to 1")?.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&null_ratio) {
            return column
                .invalid(&format!("'null_ratio' is {null_ratio}, but a number from 0 to 1 was expected"));
        }
        if null_ratio > 0.0 && !field.is_nullable() {
            return column.invalid("it is NOT NULL, so 'null_ratio' must be 0");
        }
        Ok(Column { data_type, seed, values, cardinality, null_ratio })
    }

    /// Returns the approximate size of a value in bytes.
    pub fn value_bytes(&self) -> usize {
        match self.values {
            Values::Text { length } => 16 + length,
            _ => self.data_type.primitive_width().unwrap_or(16),
        }
    }

    fn is_null(&self, i: u64) -> bool {
        self.null_ratio > 0.0 && unit(mix(self.seed ^ 0x6e75_6c6c, i)) < self.null_ratio
    }

    /// Returns the random number that determines value i.
    fn random(&self, i: u64) -> u64 {
        let random = mix(self.seed, i);
        match self.cardinality {
            Some(cardinality) => mix(self.seed ^ 0x6361_7264, random % cardinality),
            None => random,
        }
    }

    fn whole(&self, i: u64) -> i128 {
        match self.values {
            Values::Sequence { start, step, count } => start + (u128::from(i) % count) as i128 * step,
            // The high bits of the product select from the range (Lemire, 2019). Lemire's correction is
            // left out: the ranges are far smaller than 2^64, so no value is noticeably more frequent.
            Values::Random { min, count } => match u64::try_from(count) {
                Ok(count) => min + ((u128::from(self.random(i)) * u128::from(count)) >> 64) as i128,
                Err(_) => {
                    let wide = u128::from(self.random(i)) << 64 | u128::from(mix(self.seed, self.random(i)));
                    min + (wide % count) as i128
                }
            },
            Values::Float { .. } | Values::Text { .. } => 0,
        }
    }

    fn float(&self, i: u64) -> f64 {
        match self.values {
            Values::Float { min, max } => min + unit(self.random(i)) * (max - min),
            _ => self.whole(i) as f64,
        }
    }

    /// Returns the values of `rows`.
    pub fn values(&self, rows: Range<u64>) -> Result<ArrayRef> {
        let array: ArrayRef = match &self.data_type {
            DataType::Boolean => Arc::new(
                rows.map(|i| (!self.is_null(i)).then(|| self.whole(i) & 1 == 1)).collect::<BooleanArray>(),
            ),
            DataType::Int8 => self.numbers::<Int8Type>(rows, |i| self.whole(i) as i8),
            DataType::Int16 => self.numbers::<Int16Type>(rows, |i| self.whole(i) as i16),
            DataType::Int32 => self.numbers::<Int32Type>(rows, |i| self.whole(i) as i32),
            DataType::Int64 => self.numbers::<Int64Type>(rows, |i| self.whole(i) as i64),
            DataType::UInt8 => self.numbers::<UInt8Type>(rows, |i| self.whole(i) as u8),
            DataType::UInt16 => self.numbers::<UInt16Type>(rows, |i| self.whole(i) as u16),
            DataType::UInt32 => self.numbers::<UInt32Type>(rows, |i| self.whole(i) as u32),
            DataType::UInt64 => self.numbers::<UInt64Type>(rows, |i| self.whole(i) as u64),
            DataType::Float32 => self.numbers::<Float32Type>(rows, |i| self.float(i) as f32),
            DataType::Float64 => self.numbers::<Float64Type>(rows, |i| self.float(i)),
            DataType::Date32 => Arc::new(
                rows.map(|i| (!self.is_null(i)).then(|| self.whole(i) as i32)).collect::<Date32Array>(),
            ),
            DataType::Decimal128(..) => {
                let values = rows.map(|i| (!self.is_null(i)).then(|| self.whole(i)));
                Arc::new(values.collect::<Decimal128Array>().with_data_type(self.data_type.clone()))
            }
            DataType::Timestamp(TimeUnit::Second, _) => {
                self.numbers::<TimestampSecondType>(rows, |i| self.whole(i) as i64)
            }
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                self.numbers::<TimestampMillisecondType>(rows, |i| self.whole(i) as i64)
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                self.numbers::<TimestampMicrosecondType>(rows, |i| self.whole(i) as i64)
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                self.numbers::<TimestampNanosecondType>(rows, |i| self.whole(i) as i64)
            }
            _ => self.texts(rows),
        };
        if array.data_type() == &self.data_type {
            return Ok(array);
        }
        arrow::compute::cast(&array, &self.data_type)
            .map_err(|error| Error::Bug(format!("datagen made values of another type: {error}")))
    }

    fn numbers<T: ArrowPrimitiveType>(&self, rows: Range<u64>, value: impl Fn(u64) -> T::Native) -> ArrayRef {
        let array: PrimitiveArray<T> = if self.null_ratio > 0.0 {
            rows.map(|i| (!self.is_null(i)).then(|| value(i))).collect()
        } else {
            PrimitiveArray::from_iter_values(rows.map(value))
        };
        match self.data_type {
            DataType::Timestamp(..) => Arc::new(array.with_data_type(self.data_type.clone())),
            _ => Arc::new(array),
        }
    }

    fn texts(&self, rows: Range<u64>) -> ArrayRef {
        let mut texts = StringViewBuilder::with_capacity((rows.end - rows.start) as usize);
        let mut text = String::new();
        for i in rows {
            if self.is_null(i) {
                texts.append_null();
                continue;
            }
            text.clear();
            match self.values {
                Values::Text { length } => letters(self.random(i), length, &mut text),
                _ => text.push_str(&self.whole(i).to_string()),
            }
            texts.append_value(&text);
        }
        Arc::new(texts.finish())
    }
}

/// Appends `length` letters determined by `seed`.
fn letters(seed: u64, length: usize, text: &mut String) {
    let mut bits = 0;
    for at in 0..length {
        // A letter uses a bit less than five of the 64 bits.
        if at % 12 == 0 {
            bits = mix(seed, (at / 12) as u64);
        }
        text.push(char::from(b'a' + (bits % 26) as u8));
        bits /= 26;
    }
}
