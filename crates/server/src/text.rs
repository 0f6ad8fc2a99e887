//! Writes values in PostgreSQL's text format.

use std::io::Write;

use arrow::array::types::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType, UInt32Type,
};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, DurationMicrosecondType, IntervalMonthDayNano};
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, make_encoder};
use bytes::{BufMut, BytesMut};
use millstream_engine::{ZoneOffsets, write_offset};

use crate::map_keys::with_text_keys;
use crate::oid::{Kind, items};
use crate::rows::Writer;

/// A day in microseconds.
const DAY: i64 = 86_400_000_000;

/// Returns a writer of the values of an array that is canonical for its kind.
pub(crate) fn writer<'a>(kind: &Kind, array: &'a ArrayRef) -> Result<Writer<'a>, ArrowError> {
    Ok(match kind {
        Kind::Bool => {
            let values = array.as_boolean();
            Box::new(move |row, out| out.put_u8(if values.value(row) { b't' } else { b'f' }))
        }
        Kind::Int2 => integers(array.as_primitive::<Int16Type>().values()),
        Kind::Int4 => integers(array.as_primitive::<Int32Type>().values()),
        Kind::Int8 => integers(array.as_primitive::<Int64Type>().values()),
        Kind::Oid => integers(array.as_primitive::<UInt32Type>().values()),
        Kind::Float4 => {
            let values = array.as_primitive::<Float32Type>().values();
            Box::new(move |row, out| {
                let value = values[row];
                float(out, value.is_finite().then(|| format!("{value:e}")), value.into(), 6);
            })
        }
        Kind::Float8 => {
            let values = array.as_primitive::<Float64Type>().values();
            Box::new(move |row, out| {
                let value = values[row];
                float(out, value.is_finite().then(|| format!("{value:e}")), value, 15);
            })
        }
        Kind::Numeric(_) => numeric(array)?,
        Kind::Text
        | Kind::Xml
        | Kind::Inet
        | Kind::Cidr
        | Kind::Macaddr
        | Kind::Macaddr8
        | Kind::Range(_)
        | Kind::Multirange(_)
        | Kind::Tsvector
        | Kind::Tsquery
        | Kind::Geometric(_)
        | Kind::Bit(_)
        | Kind::Varbit(_) => strings(array),
        Kind::Bytea => {
            let values = array.as_binary::<i32>();
            Box::new(move |row, out| hex(out, values.value(row)))
        }
        Kind::Date => {
            let values = array.as_primitive::<Date32Type>().values();
            Box::new(move |row, out| {
                let before_christ = date(out, values[row].into());
                era(out, before_christ);
            })
        }
        Kind::Time => {
            let values = array.as_primitive::<Time64MicrosecondType>().values();
            Box::new(move |row, out| time(out, values[row]))
        }
        Kind::Timestamp => {
            let values = array.as_primitive::<TimestampMicrosecondType>().values();
            Box::new(move |row, out| timestamp(out, values[row], None))
        }
        Kind::Timestamptz => zoned(array)?,
        Kind::Interval => intervals(array),
        Kind::Uuid => uuids(array),
        Kind::Json | Kind::Jsonb => json(array)?,
        Kind::Array(item) => lists(item, array)?,
    })
}

fn integers<T: itoa::Integer + Copy>(values: &[T]) -> Writer<'_> {
    Box::new(move |row, out| out.put_slice(itoa::Buffer::new().format(values[row]).as_bytes()))
}

/// Writes the shortest digits (those of `{:e}`) in PostgreSQL's layout: with an exponent below 1e-4, and
/// from `digits_max` digits before the point on.
fn float(out: &mut BytesMut, shortest: Option<String>, value: f64, digits_max: i32) {
    let Some(shortest) = shortest else {
        return out.put_slice(match value {
            value if value.is_nan() => b"NaN",
            value if value > 0.0 => b"Infinity",
            _ => b"-Infinity",
        });
    };
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |digits| ("-", digits));
    out.put_slice(sign.as_bytes());
    if !(-4..digits_max).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return put(out, format_args!("{mantissa}e{sign}{:02}", exponent.unsigned_abs()));
    }
    let digits = mantissa.bytes().filter(|byte| *byte != b'.');
    if exponent < 0 {
        out.put_slice(b"0.");
        out.put_bytes(b'0', (-exponent - 1) as usize);
        return out.extend(digits);
    }
    let before = exponent as usize + 1;
    let mut count = 0;
    for digit in digits {
        if count == before {
            out.put_u8(b'.');
        }
        out.put_u8(digit);
        count += 1;
    }
    out.put_bytes(b'0', before.saturating_sub(count));
}

/// Returns a writer of decimals of 128 and 256 bits.
fn numeric(array: &ArrayRef) -> Result<Writer<'_>, ArrowError> {
    Ok(match array.data_type() {
        DataType::Decimal128(_, scale) => {
            let (values, scale) = (array.as_primitive::<Decimal128Type>().values(), *scale);
            Box::new(move |row, out| {
                let value = values[row];
                let mut digits = itoa::Buffer::new();
                point(out, value < 0, digits.format(value.unsigned_abs()), scale);
            })
        }
        DataType::Decimal256(_, scale) => {
            let (values, scale) = (array.as_primitive::<Decimal256Type>().values(), *scale);
            Box::new(move |row, out| {
                let digits = values[row].to_string();
                let digits = digits.strip_prefix('-').map_or((false, digits.as_str()), |rest| (true, rest));
                point(out, digits.0, digits.1, scale);
            })
        }
        other => return Err(ArrowError::InvalidArgumentError(format!("{other} is no decimal"))),
    })
}

/// Writes the digits of a number with its point inserted.
fn point(out: &mut BytesMut, negative: bool, digits: &str, scale: i8) {
    if negative {
        out.put_u8(b'-');
    }
    let Ok(scale) = usize::try_from(scale) else {
        out.put_slice(digits.as_bytes());
        return if digits != "0" {
            out.put_bytes(b'0', scale.unsigned_abs().into())
        };
    };
    let before = digits.len().saturating_sub(scale);
    out.put_slice(if before == 0 { b"0" } else { &digits.as_bytes()[..before] });
    if scale > 0 {
        out.put_u8(b'.');
        out.put_bytes(b'0', scale.saturating_sub(digits.len()));
        out.put_slice(&digits.as_bytes()[before..]);
    }
}

pub(crate) fn hex(out: &mut BytesMut, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.put_slice(b"\\x");
    for byte in bytes {
        out.put_u8(DIGITS[usize::from(byte >> 4)]);
        out.put_u8(DIGITS[usize::from(byte & 15)]);
    }
}

/// Returns a writer of another form of values, given one of their texts.
pub(crate) fn reread<'a>(text: Writer<'a>, form: impl Fn(&str, &mut BytesMut) + 'a) -> Writer<'a> {
    Box::new(move |row, out| {
        let mut written = BytesMut::new();
        text(row, &mut written);
        // The engine checks values when they are written.
        form(std::str::from_utf8(&written).unwrap_or_default(), out);
    })
}

/// Writes the date of a number of days since 1970. Returns true if it is BC.
///
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
fn date(out: &mut BytesMut, days: i64) -> bool {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    // There is no year 0: the year before 1 is 1 BC.
    let before = year <= 0;
    let year = if before { 1 - year } else { year };
    digits(out, year, 4);
    out.put_u8(b'-');
    digits(out, month, 2);
    out.put_u8(b'-');
    digits(out, day, 2);
    before
}

fn era(out: &mut BytesMut, before_christ: bool) {
    if before_christ {
        out.put_slice(b" BC");
    }
}

/// Writes a non-negative number with at least `width` digits.
fn digits(out: &mut BytesMut, value: i64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(value);
    out.put_bytes(b'0', width.saturating_sub(text.len()));
    out.put_slice(text.as_bytes());
}

/// Writes a time of day in microseconds, which isn't negative.
fn time(out: &mut BytesMut, microseconds: i64) {
    let seconds = microseconds / 1_000_000;
    digits(out, seconds / 3600, 2);
    out.put_u8(b':');
    digits(out, seconds / 60 % 60, 2);
    out.put_u8(b':');
    digits(out, seconds % 60, 2);
    let fraction = microseconds % 1_000_000;
    if fraction != 0 {
        out.put_u8(b'.');
        digits(out, fraction, 6);
        while out.last() == Some(&b'0') {
            out.truncate(out.len() - 1);
        }
    }
}

/// Writes times in the zone of their type.
fn zoned(array: &ArrayRef) -> Result<Writer<'_>, ArrowError> {
    let values = array.as_primitive::<TimestampMicrosecondType>().values();
    let zone = match array.data_type() {
        DataType::Timestamp(_, Some(zone)) => {
            ZoneOffsets::new(zone).map_err(|wrong| ArrowError::CastError(wrong.to_string()))?
        }
        _ => ZoneOffsets::default(),
    };
    Ok(Box::new(move |row, out| {
        let offset = zone.at(values[row].div_euclid(1_000_000));
        timestamp(out, values[row].saturating_add(offset * 1_000_000), Some(offset));
    }))
}

/// Writes a local time, with the seconds by which its zone is ahead of UTC.
fn timestamp(out: &mut BytesMut, microseconds: i64, offset: Option<i64>) {
    let before_christ = date(out, microseconds.div_euclid(DAY));
    out.put_u8(b' ');
    time(out, microseconds.rem_euclid(DAY));
    if let Some(offset) = offset {
        let _ = write_offset(out, offset);
    }
    era(out, before_christ);
}

fn intervals(array: &ArrayRef) -> Writer<'_> {
    if let DataType::Duration(_) = array.data_type() {
        let values = array.as_primitive::<DurationMicrosecondType>().values();
        return Box::new(move |row, out| {
            let days = (values[row] / DAY) as i32;
            interval(out, 0, days, values[row] % DAY);
        });
    }
    let values = array.as_primitive::<IntervalMonthDayNanoType>().values();
    Box::new(move |row, out| {
        let IntervalMonthDayNano { months, days, nanoseconds } = values[row];
        interval(out, months, days, nanoseconds / 1_000);
    })
}

/// Writes `1 year 2 mons 3 days 04:05:06.5`.
fn interval(out: &mut BytesMut, months: i32, days: i32, microseconds: i64) {
    let (mut first, mut negative) = (true, false);
    for (count, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if count != 0 {
            let gap = if first { "" } else { " " };
            // After a negative part, a positive one has a plus sign.
            let sign = if negative && count > 0 { "+" } else { "" };
            let plural = if count == 1 { "" } else { "s" };
            put(out, format_args!("{gap}{sign}{count} {unit}{plural}"));
            (first, negative) = (false, count < 0);
        }
    }
    if microseconds != 0 || first {
        if !first {
            out.put_u8(b' ');
        }
        match microseconds < 0 {
            true => out.put_u8(b'-'),
            false if negative => out.put_u8(b'+'),
            false => {}
        }
        time(out, microseconds.unsigned_abs() as i64);
    }
}

fn uuids(array: &ArrayRef) -> Writer<'_> {
    let Some(values) = array.as_fixed_size_binary_opt() else {
        return strings(array);
    };
    Box::new(move |row, out| {
        let mut text = BytesMut::new();
        hex(&mut text, values.value(row));
        for (place, digit) in text.iter().skip(2).enumerate() {
            if [8, 12, 16, 20].contains(&place) {
                out.put_u8(b'-');
            }
            out.put_u8(*digit);
        }
    })
}

/// Returns a writer of text in any of Arrow's encodings.
fn strings(array: &ArrayRef) -> Writer<'_> {
    match array.data_type() {
        DataType::Utf8View => {
            let values = array.as_string_view();
            Box::new(move |row, out| out.put_slice(values.value(row).as_bytes()))
        }
        DataType::LargeUtf8 => {
            let values = array.as_string::<i64>();
            Box::new(move |row, out| out.put_slice(values.value(row).as_bytes()))
        }
        _ => {
            let values = array.as_string::<i32>();
            Box::new(move |row, out| out.put_slice(values.value(row).as_bytes()))
        }
    }
}

/// Returns a writer of JSON, from text or from structs, maps and lists.
fn json(array: &ArrayRef) -> Result<Writer<'_>, ArrowError> {
    if matches!(array.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
        return Ok(strings(array));
    }
    let array = with_text_keys(array)?;
    let field = std::sync::Arc::new(arrow::datatypes::Field::new("", array.data_type().clone(), true));
    let options = EncoderOptions::default().with_explicit_nulls(true);
    make_encoder(&field, array.as_ref(), &options)?;
    Ok(Box::new(move |row, out| {
        let mut text = Vec::new();
        // Cannot fail: it succeeded above.
        if let Ok(mut encoder) = make_encoder(&field, array.as_ref(), &options) {
            encoder.encode(row, &mut text);
        }
        out.put_slice(&text);
    }))
}

/// Returns a writer of `{1,NULL,"a b"}`, and of `{{1},{2}}` for lists of lists.
fn lists<'a>(item: &Kind, array: &'a ArrayRef) -> Result<Writer<'a>, ArrowError> {
    let lists = array.as_list::<i32>();
    let values = item.canonical(items(array))?;
    let item = item.clone();
    // A canonical value may be an array of its own, so values are written one by one.
    Ok(Box::new(move |row, out| {
        let offsets = lists.value_offsets();
        let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        out.put_u8(b'{');
        let Ok(write) = writer(&item, &values) else { return };
        let nulls = values.logical_nulls();
        let mut text = BytesMut::new();
        for place in start..end {
            if place > start {
                out.put_u8(b',');
            }
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(place)) {
                out.put_slice(b"NULL");
                continue;
            }
            if let Kind::Array(_) = item {
                write(place, out);
                continue;
            }
            text.clear();
            write(place, &mut text);
            quote(out, &text);
        }
        out.put_u8(b'}');
    }))
}

/// Writes an item of a list, quoted if it would be ambiguous.
fn quote(out: &mut BytesMut, text: &[u8]) {
    let special = |byte: &u8| b"{},\"\\".contains(byte) || byte.is_ascii_whitespace();
    if !text.is_empty() && !text.eq_ignore_ascii_case(b"null") && !text.iter().any(special) {
        return out.put_slice(text);
    }
    out.put_u8(b'"');
    for byte in text {
        if b"\"\\".contains(byte) {
            out.put_u8(b'\\');
        }
        out.put_u8(*byte);
    }
    out.put_u8(b'"');
}

fn put(out: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    // Writing to memory never fails.
    let _ = out.writer().write_fmt(text);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::*;
    use arrow::datatypes::Int32Type as I32;

    use super::*;

    fn check(array: impl Array + 'static, expect: &[&str]) {
        let array: ArrayRef = Arc::new(array);
        let kind = Kind::of_type(array.data_type());
        let array = kind.canonical(&array).unwrap();
        let write = writer(&kind, &array).unwrap();
        let mut found = Vec::new();
        for row in 0..array.len() {
            let mut out = BytesMut::new();
            write(row, &mut out);
            found.push(String::from_utf8(out.to_vec()).unwrap());
        }
        assert_eq!(found, expect);
    }

    #[test]
    fn numbers() {
        check(Int64Array::from(vec![i64::MIN, 7]), &["-9223372036854775808", "7"]);
        check(UInt64Array::from(vec![u64::MAX]), &["18446744073709551615"]);
        // As PostgreSQL 15 answers.
        check(
            Float64Array::from(vec![
                1.0,
                0.1,
                -0.0,
                1e14,
                1e15,
                123456789012345680.0,
                0.0001,
                0.00001,
                1.5e300,
                f64::NAN,
                -f64::INFINITY,
                100.25,
                1e-7,
            ]),
            &[
                "1",
                "0.1",
                "-0",
                "100000000000000",
                "1e+15",
                "1.2345678901234568e+17",
                "0.0001",
                "1e-05",
                "1.5e+300",
                "NaN",
                "-Infinity",
                "100.25",
                "1e-07",
            ],
        );
        check(Float32Array::from(vec![0.1, 1e6, 123456.0]), &["0.1", "1e+06", "123456"]);
        let decimals = |scale| {
            Decimal128Array::from(vec![12300, -5, 0, 100]).with_precision_and_scale(10, scale).unwrap()
        };
        check(decimals(2), &["123.00", "-0.05", "0.00", "1.00"]);
        check(decimals(0), &["12300", "-5", "0", "100"]);
        check(decimals(-2), &["1230000", "-500", "0", "10000"]);
    }

    #[test]
    fn times() {
        check(
            TimestampMicrosecondArray::from(vec![0, -1, 1_704_067_200_500_000, -62_135_596_800_000_001]),
            &[
                "1970-01-01 00:00:00",
                "1969-12-31 23:59:59.999999",
                "2024-01-01 00:00:00.5",
                "0001-12-31 23:59:59.999999 BC",
            ],
        );
        check(
            TimestampNanosecondArray::from(vec![1_500]).with_timezone("+00:00"),
            &["1970-01-01 00:00:00.000001+00"],
        );
        check(
            TimestampNanosecondArray::from(vec![1_500]).with_timezone("+02:00"),
            &["1970-01-01 02:00:00.000001+02"],
        );
        check(Date32Array::from(vec![19_782, 2_932_897]), &["2024-02-29", "10000-01-01"]);
        check(Time64MicrosecondArray::from(vec![1]), &["00:00:00.000001"]);
        let intervals =
            [(14, 3, 14_706_500_000_000), (0, 0, 0), (-14, 1, -1_000_000_000), (0, -1, 3_600_000_000_000)];
        let intervals = intervals.map(|(months, days, time)| IntervalMonthDayNano::new(months, days, time));
        check(
            IntervalMonthDayNanoArray::from(intervals.to_vec()),
            &[
                "1 year 2 mons 3 days 04:05:06.5",
                "00:00:00",
                "-1 years -2 mons +1 day -00:00:01",
                "-1 days +01:00:00",
            ],
        );
        check(DurationSecondArray::from(vec![90_061]), &["1 day 01:01:01"]);
    }

    #[test]
    fn bytes_and_lists() {
        check(BinaryArray::from(vec![&b"\x00\xff"[..], b""]), &["\\x00ff", "\\x"]);
        check(BooleanArray::from(vec![true, false]), &["t", "f"]);
        let list = ListArray::from_iter_primitive::<I32, _, _>([Some(vec![Some(1), None]), Some(vec![])]);
        check(list, &["{1,NULL}", "{}"]);
        let mut words = ListBuilder::new(StringViewBuilder::new());
        words.append_value(["a", "", "a b", "null", "a\"\\"].map(Some));
        check(words.finish(), &["{a,\"\",\"a b\",\"null\",\"a\\\"\\\\\"}"]);
        let mut nested = ListBuilder::new(ListBuilder::new(StringViewBuilder::new()));
        nested.values().append_value(["a b", "c"].map(Some));
        nested.values().append_null();
        nested.append(true);
        check(nested.finish(), &["{{\"a b\",c},NULL}"]);
    }

    #[test]
    fn what_postgres_has_no_type_for_is_json() {
        let values: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
        let array = StructArray::from(vec![(
            Arc::new(arrow::datatypes::Field::new("a", DataType::Int32, true)),
            values,
        )]);
        check(array, &["{\"a\":1}", "{\"a\":null}"]);
        let mut map = MapBuilder::new(None, Int32Builder::new(), StringBuilder::new());
        map.keys().append_value(1);
        map.values().append_value("x");
        map.append(true).unwrap();
        map.append(true).unwrap();
        check(map.finish(), &["{\"1\":\"x\"}", "{}"]);
    }
}
