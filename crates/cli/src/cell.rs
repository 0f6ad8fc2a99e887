//! Formats a value as text, the same in tables and in test suites.
//!
//! Numbers have the shortest form that reads back unchanged. Times, intervals and bytes are formatted like
//! PostgreSQL's, nested values like Arrow's.

use arrow::array::{Array, ArrayRef, AsArray, IntervalMonthDayNanoArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, DurationFormat, FormatOptions};

const OPTIONS: FormatOptions<'static> = FormatOptions::new()
    .with_display_error(true)
    .with_null("NULL")
    .with_date_format(Some("%Y-%m-%d"))
    .with_datetime_format(Some("%Y-%m-%d"))
    .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
    .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f%:z"))
    .with_time_format(Some("%H:%M:%S%.f"))
    .with_duration_format(DurationFormat::Pretty);

/// The format of a column of times with a zone: offsets before 1900 have seconds.
const ZONED: FormatOptions<'static> = OPTIONS.with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f%::z"));

/// A day in nanoseconds.
const DAY: i128 = 86_400_000_000_000;

/// Formats the values of one column.
pub struct Cells<'a> {
    formatter: ArrayFormatter<'a>,
    nulls: Option<NullBuffer>,
    data_type: &'a DataType,
    intervals: Option<IntervalMonthDayNanoArray>,
}

impl<'a> Cells<'a> {
    /// Creates a formatter of `column`. Fails for a type without a text form.
    pub fn new(column: &'a ArrayRef) -> Result<Self, ArrowError> {
        let options = match column.data_type() {
            DataType::Timestamp(_, Some(_)) => &ZONED,
            _ => &OPTIONS,
        };
        let formatter = ArrayFormatter::try_new(column.as_ref(), options)?;
        let intervals = match column.data_type() {
            DataType::Interval(_) | DataType::Duration(_) => Some(as_intervals(column)?),
            _ => None,
        };
        Ok(Cells { formatter, nulls: column.logical_nulls(), data_type: column.data_type(), intervals })
    }

    /// Returns the value at `row`; `None` is NULL.
    pub fn get(&self, row: usize) -> Option<String> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return None;
        }
        if let Some(intervals) = &self.intervals {
            return Some(interval(intervals.value(row)));
        }
        let text = self.formatter.value(row).to_string();
        Some(match self.data_type {
            data_type if data_type.is_binary() => format!("\\x{text}"),
            DataType::Float16 | DataType::Float32 | DataType::Float64 => float(text),
            DataType::Timestamp(_, Some(_)) => short_offset(text),
            _ => text,
        })
    }
}

/// Returns true if values of this type are numbers, which are right-aligned.
pub fn is_number(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_number(values),
        other => other.is_numeric(),
    }
}

/// Converts intervals of every unit, and durations, to the widest unit.
fn as_intervals(column: &ArrayRef) -> Result<IntervalMonthDayNanoArray, ArrowError> {
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    if let DataType::Duration(unit) = column.data_type() {
        let each = match unit {
            TimeUnit::Second => 1_000_000_000,
            TimeUnit::Millisecond => 1_000_000,
            TimeUnit::Microsecond => 1_000,
            TimeUnit::Nanosecond => 1,
        };
        let ticks = cast(column, &DataType::Int64)?;
        return Ok(ticks.as_primitive::<Int64Type>().unary(|tick| {
            let time = i128::from(tick) * each;
            IntervalMonthDayNano::new(0, (time / DAY) as i32, (time % DAY) as i64)
        }));
    }
    Ok(cast(column, &interval)?.as_primitive().clone())
}

/// Returns `1 year 2 mons 3 days 04:05:06.5`, as PostgreSQL writes it.
fn interval(value: IntervalMonthDayNano) -> String {
    let mut parts = Vec::new();
    let mut negative = false;
    for (count, unit) in [(value.months / 12, "year"), (value.months % 12, "mon"), (value.days, "day")] {
        if count != 0 {
            // After a negative part, a positive one has a plus sign.
            let sign = if negative && count > 0 { "+" } else { "" };
            negative = count < 0;
            parts.push(format!("{sign}{count} {unit}{}", if count == 1 { "" } else { "s" }));
        }
    }
    if value.nanoseconds != 0 || parts.is_empty() {
        let time = value.nanoseconds.unsigned_abs();
        let sign = match value.nanoseconds < 0 {
            true => "-",
            false if negative => "+",
            false => "",
        };
        let (seconds, fraction) = (time / 1_000_000_000, time % 1_000_000_000);
        let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let fraction = format!(".{fraction:09}");
        parts.push(format!("{sign}{clock}{}", fraction.trim_end_matches('0').trim_end_matches('.')));
    }
    parts.join(" ")
}

/// PostgreSQL spells the infinities out.
fn float(text: String) -> String {
    match text.as_str() {
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        _ => text,
    }
}

/// Removes seconds that are 0 from an offset such as `+02:00:00`, and then minutes that are 0.
fn short_offset(mut text: String) -> String {
    for length in [9, 6] {
        let sign = text.len().checked_sub(length).and_then(|at| text.as_bytes().get(at));
        if text.ends_with(":00") && matches!(sign, Some(b'+' | b'-')) {
            text.truncate(text.len() - 3);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::*;
    use arrow::datatypes::{Int32Type, Int64Type};

    use super::*;

    fn check(column: impl Array + 'static, expect: &[Option<&str>]) {
        let column: ArrayRef = Arc::new(column);
        let cells = Cells::new(&column).unwrap();
        let values: Vec<Option<String>> = (0..column.len()).map(|row| cells.get(row)).collect();
        assert_eq!(values, expect.iter().map(|value| value.map(str::to_owned)).collect::<Vec<_>>());
    }

    #[test]
    fn numbers() {
        check(Int64Array::from(vec![Some(-1), None]), &[Some("-1"), None]);
        check(
            Float64Array::from(vec![1.0, 0.1, 1.5e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
            &[Some("1.0"), Some("0.1"), Some("1.5e300"), Some("NaN"), Some("Infinity"), Some("-Infinity")],
        );
        check(Float32Array::from(vec![0.1]), &[Some("0.1")]);
        let decimals = Decimal128Array::from(vec![12300, -5]).with_precision_and_scale(10, 2).unwrap();
        check(decimals, &[Some("123.00"), Some("-0.05")]);
        assert!(is_number(&DataType::Decimal128(10, 2)) && !is_number(&DataType::Boolean));
    }

    #[test]
    fn times() {
        let second = 1_704_067_200;
        check(TimestampSecondArray::from(vec![second]), &[Some("2024-01-01 00:00:00")]);
        check(
            TimestampMicrosecondArray::from(vec![second * 1_000_000 + 500_000]),
            &[Some("2024-01-01 00:00:00.500")],
        );
        let zoned = |zone: &str| TimestampSecondArray::from(vec![second]).with_timezone(zone);
        check(zoned("UTC"), &[Some("2024-01-01 00:00:00+00")]);
        check(zoned("+05:30"), &[Some("2024-01-01 05:30:00+05:30")]);
        let early = TimestampSecondArray::from(vec![-2_524_524_808]).with_timezone("Europe/Berlin");
        check(early, &[Some("1890-01-01 00:00:00+00:53:28")]);
        check(Date32Array::from(vec![19723]), &[Some("2024-01-01")]);
        check(Time64MicrosecondArray::from(vec![1]), &[Some("00:00:00.000001")]);
    }

    #[test]
    fn intervals_and_bytes() {
        let values =
            [(14, 3, 14_706_500_000_000), (0, 0, 0), (-14, 1, -1_000_000_000), (0, -1, 3_600_000_000_000)];
        let values = values.map(|(months, days, time)| IntervalMonthDayNano::new(months, days, time));
        check(
            IntervalMonthDayNanoArray::from(values.to_vec()),
            &[
                Some("1 year 2 mons 3 days 04:05:06.5"),
                Some("00:00:00"),
                Some("-1 years -2 mons +1 day -00:00:01"),
                Some("-1 days +01:00:00"),
            ],
        );
        check(IntervalYearMonthArray::from(vec![14]), &[Some("1 year 2 mons")]);
        check(DurationSecondArray::from(vec![90_061]), &[Some("1 day 01:01:01")]);
        check(BinaryArray::from(vec![&b"\x00\xff"[..], b""]), &[Some("\\x00ff"), Some("\\x")]);
    }

    #[test]
    fn all_else() {
        check(BooleanArray::from(vec![Some(true), Some(false), None]), &[Some("true"), Some("false"), None]);
        check(StringViewArray::from(vec!["", "a b"]), &[Some(""), Some("a b")]);
        check(NullArray::new(1), &[None]);
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
        check(list, &[Some("[1, NULL]"), None]);
        let keyed: DictionaryArray<Int64Type> = [Some("x"), None].into_iter().collect();
        check(keyed, &[Some("x"), None]);
    }
}
