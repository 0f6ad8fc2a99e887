//! Times as PostgreSQL writes them, in the zone of their Arrow type: `2026-01-01 10:00:00.5+00`, `10:00:00.5`, `1 day 02:00:00`.
//!
//! Arrow's cast gives `2026-01-01T10:00:00.500Z`, `10:00:00.500` and `1 days 2 hours`. The rule
//! [`crate::rules::casts`] replaces casts of these types to text by this function. Times within arrays and
//! structs become texts there.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder, make_array};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    TimeUnit,
};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::Error;
use crate::functions::postgres::ZoneOffsets;
use crate::functions::postgres::calendar::Date;

const SECOND: i64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeText {
    signature: Signature,
}

/// Returns the function. It is in no registry, so statements can't name it.
pub(crate) fn function() -> ScalarUDF {
    ScalarUDF::from(TimeText { signature: Signature::any(1, Volatility::Immutable) })
}

impl ScalarUDFImpl for TimeText {
    fn name(&self) -> &str {
        "time_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> Result<DataType> {
        Ok(argument_types.first().and_then(text_type).unwrap_or(DataType::Utf8View))
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = arguments.arg_fields.iter().any(|field| field.is_nullable());
        let types: Vec<DataType> =
            arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match arguments.args.into_iter().next() {
            Some(ColumnarValue::Scalar(value)) => {
                let text = with_texts(&value.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&text, 0)?))
            }
            Some(ColumnarValue::Array(values)) => Ok(ColumnarValue::Array(with_texts(&values)?)),
            None => Err(Error::bug("time_text was called without an argument").into()),
        }
    }
}

/// Returns the type with text in place of times, or none if it holds no times.
pub(crate) fn text_type(data_type: &DataType) -> Option<DataType> {
    let with_item = |item: &FieldRef| {
        let inner = text_type(item.data_type())?;
        Some(Arc::new(item.as_ref().clone().with_data_type(inner)))
    };
    match data_type {
        written if is_written(written) => Some(DataType::Utf8View),
        DataType::List(item) => with_item(item).map(DataType::List),
        DataType::LargeList(item) => with_item(item).map(DataType::LargeList),
        DataType::FixedSizeList(item, size) => {
            with_item(item).map(|item| DataType::FixedSizeList(item, *size))
        }
        DataType::Struct(fields) => {
            let found: Vec<Option<FieldRef>> = fields.iter().map(with_item).collect();
            let with_texts =
                |(field, text): (&FieldRef, Option<FieldRef>)| text.unwrap_or_else(|| field.clone());
            found
                .iter()
                .any(Option::is_some)
                .then(|| DataType::Struct(fields.iter().zip(found).map(with_texts).collect()))
        }
        _ => None,
    }
}

/// Returns a column with text in place of times, also within arrays and structs.
pub(crate) fn with_texts(column: &ArrayRef) -> Result<ArrayRef> {
    let found = column.data_type();
    if is_written(found) {
        return written(column);
    }
    let Some(text_type) = text_type(found) else { return Ok(column.clone()) };
    let data = column.to_data();
    let children =
        data.child_data().iter().map(|child| Ok(with_texts(&make_array(child.clone()))?.to_data()));
    let children = children.collect::<Result<Vec<_>>>()?;
    Ok(make_array(data.into_builder().data_type(text_type).child_data(children).build()?))
}

/// True if Arrow writes values of this type in another way than PostgreSQL.
pub(crate) fn is_written(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Timestamp(..)
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::Interval(_)
            | DataType::Duration(_)
    )
}

/// Writes each value of a column of times.
fn written(column: &ArrayRef) -> Result<ArrayRef> {
    let mut out = StringViewBuilder::with_capacity(column.len());
    let mut text = String::new();
    let mut each = |valid: bool, write: &dyn Fn(&mut String)| {
        text.clear();
        match valid {
            true => {
                write(&mut text);
                out.append_value(&text);
            }
            false => out.append_null(),
        }
    };
    if let DataType::Interval(_) = column.data_type() {
        let intervals = cast(column, &DataType::Interval(IntervalUnit::MonthDayNano))?;
        let values = intervals.as_primitive::<IntervalMonthDayNanoType>();
        for row in 0..values.len() {
            each(values.is_valid(row), &|out| interval(out, values.value(row)));
        }
        return Ok(Arc::new(out.finish()));
    }
    let (unit, zone) = match column.data_type() {
        DataType::Timestamp(unit, zone) => (*unit, zone.as_deref().map(ZoneOffsets::new).transpose()?),
        DataType::Time32(unit) | DataType::Time64(unit) | DataType::Duration(unit) => (*unit, None),
        other => return Err(Error::bug(format!("{other} is no type of time")).into()),
    };
    let ticks = ticks(column)?;
    let ticks = ticks.as_primitive::<Int64Type>();
    for row in 0..ticks.len() {
        each(ticks.is_valid(row), &|out| match column.data_type() {
            DataType::Timestamp(..) => timestamp(out, parts(ticks.value(row), unit), zone.as_ref()),
            DataType::Duration(_) => duration(out, parts(ticks.value(row), unit)),
            _ => time(out, parts(ticks.value(row), unit)),
        });
    }
    Ok(Arc::new(out.finish()))
}

/// Returns the values as numbers in the type's own unit.
fn ticks(column: &ArrayRef) -> Result<ArrayRef> {
    let whole = match column.data_type() {
        DataType::Time32(_) => cast(column, &DataType::Int32)?,
        _ => column.clone(),
    };
    Ok(cast(&whole, &DataType::Int64)?)
}

/// Returns whole seconds and the nanoseconds above them.
fn parts(ticks: i64, unit: TimeUnit) -> (i64, i64) {
    let of_second = match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => SECOND,
    };
    (ticks.div_euclid(of_second), ticks.rem_euclid(of_second) * (SECOND / of_second))
}

/// Writes an offset as PostgreSQL does: `+02`, `-03:30`, `+00:53:28`.
pub fn write_offset(out: &mut impl Write, offset: i64) -> std::fmt::Result {
    let (sign, seconds) = (if offset < 0 { '-' } else { '+' }, offset.abs());
    write!(out, "{sign}{:02}", seconds / 3_600)?;
    if seconds % 3_600 != 0 {
        write!(out, ":{:02}", seconds / 60 % 60)?;
    }
    if seconds % 60 != 0 {
        write!(out, ":{:02}", seconds % 60)?;
    }
    Ok(())
}

/// Writes the date of a time in seconds since 1970.
pub(crate) fn date(out: &mut String, seconds: i64) {
    let is_before_christ = write_date(out, seconds);
    out.push_str(era(is_before_christ));
}

/// Writes a time of seconds since 1970 and the nanoseconds above them, in a zone with its offset, if there is one.
pub(crate) fn timestamp(out: &mut String, (seconds, nanoseconds): (i64, i64), zone: Option<&ZoneOffsets>) {
    let offset = zone.map(|zone| zone.at(seconds));
    let seconds = seconds + offset.unwrap_or(0);
    let is_before_christ = write_date(out, seconds);
    out.push(' ');
    time(out, (seconds.rem_euclid(DAY_SECONDS), nanoseconds));
    if let Some(offset) = offset {
        // Writing to a string cannot fail.
        let _ = write_offset(out, offset);
    }
    out.push_str(era(is_before_christ));
}

fn era(is_before_christ: bool) -> &'static str {
    if is_before_christ { " BC" } else { "" }
}

/// Writes the date of a time in seconds since 1970, without its era. Returns true if it is BC.
fn write_date(out: &mut String, seconds: i64) -> bool {
    let Date { year, month, day } = Date::of_days(seconds.div_euclid(DAY_SECONDS));
    // There is no year 0: the year before 1 is 1 BC.
    let shown = if year <= 0 { 1 - year } else { year };
    put(out, format_args!("{shown:04}-{month:02}-{day:02}"));
    year <= 0
}

/// Writes a time of day, or hours beyond a day, without zeros at the end of the fraction.
fn time(out: &mut String, (seconds, nanoseconds): (i64, i64)) {
    put(out, format_args!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    if nanoseconds != 0 {
        put(out, format_args!(".{nanoseconds:09}"));
        out.truncate(out.trim_end_matches('0').len());
    }
}

fn duration(out: &mut String, (seconds, nanoseconds): (i64, i64)) {
    // Days and time have the same sign.
    let total = i128::from(seconds) * i128::from(SECOND) + i128::from(nanoseconds);
    let day = i128::from(DAY_SECONDS) * i128::from(SECOND);
    let days = i32::try_from(total / day).unwrap_or(i32::MAX);
    let nanoseconds = i64::try_from(total % day).unwrap_or_default();
    interval(out, IntervalMonthDayNano::new(0, days, nanoseconds));
}

/// Writes `1 year 2 mons 3 days 04:05:06.5`.
fn interval(out: &mut String, value: IntervalMonthDayNano) {
    let (mut gap, mut negative) = ("", false);
    for (count, unit) in [(value.months / 12, "year"), (value.months % 12, "mon"), (value.days, "day")] {
        if count != 0 {
            // After a negative part, a positive one has a plus sign.
            let sign = if negative && count > 0 { "+" } else { "" };
            let plural = if count == 1 { "" } else { "s" };
            put(out, format_args!("{gap}{sign}{count} {unit}{plural}"));
            (gap, negative) = (" ", count < 0);
        }
    }
    if value.nanoseconds == 0 && !gap.is_empty() {
        return;
    }
    let sign = match value.nanoseconds < 0 {
        true => "-",
        false if negative => "+",
        false => "",
    };
    put(out, format_args!("{gap}{sign}"));
    let nanoseconds = value.nanoseconds.unsigned_abs();
    let second = SECOND.unsigned_abs();
    time(out, ((nanoseconds / second) as i64, (nanoseconds % second) as i64));
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    /// The results are PostgreSQL 15's.
    #[test]
    fn times_are_written_as_in_postgres() {
        let tables = Tables::new().table(
            "t",
            "(id INT, at TIMESTAMP, z TIMESTAMPTZ, c TIME, i INTERVAL)",
            "VALUES (1, '2026-01-01 10:00', '2026-01-01 10:00+02', '10:00:00.5', INTERVAL '1 day 2 hours'), \
             (2, '1969-12-31 23:59:59.25', '2026-01-01 10:00:00.000001+00', '00:00', \
             INTERVAL '-13 mons 1 day'), (3, NULL, NULL, NULL, NULL)",
        );
        tables.check(
            "SELECT id, at::TEXT, z::TEXT, c::TEXT, i::TEXT FROM t",
            &[
                "1|2026-01-01 10:00:00|2026-01-01 08:00:00+00|10:00:00.5|1 day 02:00:00",
                "2|1969-12-31 23:59:59.25|2026-01-01 10:00:00.000001+00|00:00:00|-1 years -1 mons +1 day",
                "3|NULL|NULL|NULL|NULL",
            ],
        );
        tables.check("SELECT at || '.' AS d FROM t WHERE id = 1", &["2026-01-01 10:00:00."]);
        tables.check("SELECT id FROM t WHERE at::TEXT = '2026-01-01 10:00:00'", &["1"]);
        tables.check("SELECT (INTERVAL '-90 minutes')::TEXT, (INTERVAL '0')::TEXT", &["-01:30:00|00:00:00"]);
    }

    #[test]
    fn times_within_arrays_are_written_alike() {
        let tables = Tables::new().table(
            "t",
            "(id INT, at TIMESTAMP, z TIMESTAMPTZ, i INTERVAL)",
            "VALUES (1, '2026-01-01 10:00:00.5', '2026-01-01 10:00+02', INTERVAL '1 day 2 hours'), \
             (2, NULL, NULL, NULL)",
        );
        tables.check(
            "SELECT id, ARRAY[at, NULL]::TEXT, array_to_string(ARRAY[z, z], ';'), array_to_string([i], ';', '-'), \
             format('%s|%L', at, z) FROM t",
            &[
                "1|[2026-01-01 10:00:00.5, ]|2026-01-01 08:00:00+00;2026-01-01 08:00:00+00|1 day 02:00:00|\
                 2026-01-01 10:00:00.5|'2026-01-01 08:00:00+00'",
                "2|[, ]||-||NULL",
            ],
        );
        tables.check("SELECT ARRAY[ARRAY[at]]::TEXT FROM t WHERE id = 1", &["[[2026-01-01 10:00:00.5]]"]);
        tables.check("SELECT format('%s', ARRAY[at]) FROM t WHERE id = 1", &["[2026-01-01 10:00:00.5]"]);
    }
}
