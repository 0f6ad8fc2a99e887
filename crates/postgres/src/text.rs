//! Formats values as text. PostgreSQL converts the text to the type of the column.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, make_encoder};
use arrow::temporal_conversions::{date32_to_datetime, timestamp_us_to_datetime};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{Datelike, NaiveDateTime};

use crate::columns::Kind;

/// The reason why a value can't be delivered.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// The row, and the reason.
    Row(usize, String),
    /// The whole column, because of a bug.
    Column(ArrowError),
}

impl From<ArrowError> for Unfit {
    fn from(error: ArrowError) -> Unfit {
        Unfit::Column(error)
    }
}

/// Returns the values of a column as text; NULL stays NULL.
pub(crate) fn texts(kind: &Kind, field: &Field, array: &ArrayRef) -> Result<StringArray, Unfit> {
    let array = plain(array)?;
    let mut out = StringBuilder::with_capacity(array.len(), array.len() * 8);
    let write = writer(kind, field, &array)?;
    let mut text = String::new();
    for row in 0..array.len() {
        if array.is_null(row) {
            out.append_null();
            continue;
        }
        text.clear();
        write(row, &mut text).map_err(|reason| Unfit::Row(row, reason))?;
        if text.as_bytes().contains(&0) {
            return Err(Unfit::Row(
                row,
                "has a NUL character, which text in PostgreSQL can't hold: take it out, as with replace(…, chr(0), '')"
                    .into(),
            ));
        }
        out.append_value(&text);
    }
    Ok(out.finish())
}

/// Writes the value of a row, which isn't NULL.
type Writer<'a> = Box<dyn Fn(usize, &mut String) -> Result<(), String> + 'a>;

/// Converts values to the plainest of Arrow's encodings, and times to microseconds as in PostgreSQL.
fn plain(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let wanted = match array.data_type() {
        DataType::Dictionary(_, values) => return plain(&cast(array, values)?),
        DataType::RunEndEncoded(_, values) => return plain(&cast(array, values.data_type())?),
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Duration(_) => DataType::Duration(TimeUnit::Microsecond),
        DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => DataType::List(item.clone()),
        _ => return Ok(array.clone()),
    };
    cast(array, &wanted)
}

/// Casts values. Fails if a value has no equivalent, instead of returning NULL.
fn cast(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, wanted, &CastOptions { safe: false, ..CastOptions::default() })
}

fn writer<'a>(kind: &'a Kind, field: &'a Field, array: &'a ArrayRef) -> Result<Writer<'a>, ArrowError> {
    Ok(match (kind, array.data_type()) {
        (Kind::Json, data_type) if data_type.is_nested() => json(field, array)?,
        (Kind::Array(item), DataType::List(inner)) => list(item, inner, array)?,
        (_, DataType::Utf8) => {
            let values = array.as_string::<i32>();
            Box::new(move |row, out| {
                out.push_str(values.value(row));
                Ok(())
            })
        }
        (_, DataType::Binary) => {
            let values = array.as_binary::<i32>();
            Box::new(move |row, out| {
                out.push_str("\\x");
                values.value(row).iter().for_each(|byte| put(out, format_args!("{byte:02x}")));
                Ok(())
            })
        }
        (_, DataType::Date32) => {
            let values = array.as_primitive::<arrow::datatypes::Date32Type>().values();
            Box::new(move |row, out| date(out, date32_to_datetime(values[row]), false, ""))
        }
        (_, DataType::Timestamp(_, zone)) => {
            let zone = if zone.is_some() { "+00" } else { "" };
            let values = array.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().values();
            Box::new(move |row, out| date(out, timestamp_us_to_datetime(values[row]), true, zone))
        }
        (_, DataType::Interval(_)) => {
            let values = array.as_primitive::<IntervalMonthDayNanoType>().values();
            Box::new(move |row, out| {
                let value = values[row];
                let microseconds = value.nanoseconds / 1_000;
                put(
                    out,
                    format_args!("{} months {} days {microseconds} microseconds", value.months, value.days),
                );
                Ok(())
            })
        }
        (_, DataType::Duration(_)) => {
            let values = array.as_primitive::<arrow::datatypes::DurationMicrosecondType>().values();
            Box::new(move |row, out| {
                put(out, format_args!("{} microseconds", values[row]));
                Ok(())
            })
        }
        _ => {
            let format = ArrayFormatter::try_new(array.as_ref(), &FORMAT)?;
            Box::new(move |row, out| format.value(row).write(out).map_err(|error| error.to_string()))
        }
    })
}

const FORMAT: FormatOptions<'static> = FormatOptions::new().with_display_error(false);

/// Writes `2024-02-29`, `2024-02-29 12:00:00.5+00`, `0044-03-15 BC`.
fn date(out: &mut String, at: Option<NaiveDateTime>, with_time: bool, zone: &str) -> Result<(), String> {
    let Some(at) = at else {
        return Err("is a time so far away that PostgreSQL has none like it".into());
    };
    // There is no year 0: the year before 1 is 1 BC.
    let (year, era) = if at.year() <= 0 { (1 - at.year(), " BC") } else { (at.year(), "") };
    put(out, format_args!("{year:04}-{:02}-{:02}", at.month(), at.day()));
    if with_time {
        put(out, format_args!(" {}{zone}", at.time()));
    }
    out.push_str(era);
    Ok(())
}

/// Returns a writer of structs, maps and lists of lists.
fn json<'a>(field: &'a Field, array: &'a ArrayRef) -> Result<Writer<'a>, ArrowError> {
    let field = std::sync::Arc::new(field.clone());
    let options = EncoderOptions::default().with_explicit_nulls(true);
    make_encoder(&field, array.as_ref(), &options)?;
    Ok(Box::new(move |row, out| {
        let mut text = Vec::new();
        let mut encoder =
            make_encoder(&field, array.as_ref(), &options).map_err(|error| error.to_string())?;
        encoder.encode(row, &mut text);
        out.push_str(&String::from_utf8(text).map_err(|error| error.to_string())?);
        Ok(())
    }))
}

/// Returns a writer of `{"1",NULL,"a b"}`. Every item is quoted, so that none is ambiguous.
fn list<'a>(item: &Kind, inner: &Field, array: &'a ArrayRef) -> Result<Writer<'a>, ArrowError> {
    let lists = array.as_list::<i32>();
    let items = match texts(item, inner, lists.values()) {
        Ok(items) => items,
        Err(Unfit::Column(error)) => return Err(error),
        Err(Unfit::Row(_, reason)) => return Ok(Box::new(move |_, _| Err(reason.clone()))),
    };
    Ok(Box::new(move |row, out| {
        let offsets = lists.value_offsets();
        out.push('{');
        for place in offsets[row] as usize..offsets[row + 1] as usize {
            if place > offsets[row] as usize {
                out.push(',');
            }
            if items.is_null(place) {
                out.push_str("NULL");
                continue;
            }
            out.push('"');
            for character in items.value(place).chars() {
                if matches!(character, '"' | '\\') {
                    out.push('\\');
                }
                out.push(character);
            }
            out.push('"');
        }
        out.push('}');
        Ok(())
    }))
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to memory never fails.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::*;
    use arrow::datatypes::{Int32Type, IntervalMonthDayNano, i256};

    use super::*;

    fn check(array: impl Array + 'static, expect: &[&str]) {
        let array: ArrayRef = Arc::new(array);
        let field = Field::new("a", array.data_type().clone(), true);
        let kind = Kind::of(&field).unwrap();
        let found = texts(&kind, &field, &array).unwrap();
        assert_eq!(found.iter().map(|text| text.unwrap_or("(null)")).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn numbers() {
        check(Int64Array::from(vec![Some(i64::MIN), None]), &["-9223372036854775808", "(null)"]);
        check(UInt64Array::from(vec![u64::MAX]), &["18446744073709551615"]);
        check(
            Float64Array::from(vec![0.1, f64::NAN, f64::NEG_INFINITY, -0.0]),
            &["0.1", "NaN", "-inf", "-0.0"],
        );
        check(BooleanArray::from(vec![true, false]), &["true", "false"]);
        check(NullArray::new(1), &["(null)"]);
        let widest = i256::from_string(&"9".repeat(76)).unwrap();
        let decimals = Decimal256Array::from(vec![widest, i256::from(-5)]).with_precision_and_scale(76, 2);
        check(decimals.unwrap(), &[&format!("{}.99", "9".repeat(74)), "-0.05"]);
    }

    #[test]
    fn times() {
        check(
            Date32Array::from(vec![19_782, 2_932_897, -719_163]),
            &["2024-02-29", "10000-01-01", "0001-12-31 BC"],
        );
        check(
            TimestampNanosecondArray::from(vec![1_704_067_200_500_000_999]).with_timezone("+02:00"),
            &["2024-01-01 00:00:00.500+00"],
        );
        check(
            TimestampMicrosecondArray::from(vec![-62_135_596_800_000_001]),
            &["0001-12-31 23:59:59.999999 BC"],
        );
        check(Time64NanosecondArray::from(vec![1_500]), &["00:00:00.000001"]);
        check(
            IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(-14, 3, -1_500_000)]),
            &["-14 months 3 days -1500 microseconds"],
        );
        let far: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(0), Some(i64::MAX)]));
        let field = Field::new("a", far.data_type().clone(), true);
        let found = texts(&Kind::of(&field).unwrap(), &field, &far);
        assert!(matches!(found, Err(Unfit::Row(1, _))));
    }

    #[test]
    fn bytes_lists_and_what_has_no_type() {
        check(BinaryViewArray::from(vec![&b"\x00\xff"[..], b""]), &["\\x00ff", "\\x"]);
        check(
            ListArray::from_iter_primitive::<Int32Type, _, _>([
                Some(vec![Some(1), None]),
                Some(vec![]),
                None,
            ]),
            &["{\"1\",NULL}", "{}", "(null)"],
        );
        let mut words = ListBuilder::new(StringViewBuilder::new());
        words.append_value(["", "null", "a\"\\,}"].map(Some));
        check(words.finish(), &["{\"\",\"null\",\"a\\\"\\\\,}\"}"]);
        let values: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
        let row = StructArray::from(vec![(Arc::new(Field::new("x", DataType::Int32, true)), values)]);
        check(row, &["{\"x\":1}", "{\"x\":null}"]);
    }

    #[test]
    fn text_with_a_nul_is_told_by_its_row() {
        let array: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "b\0c"]));
        let field = Field::new("a", DataType::Utf8View, true);
        let Err(Unfit::Row(row, reason)) = texts(&Kind::Text, &field, &array) else {
            unreachable!("it has a NUL")
        };
        assert_eq!(row, 1);
        assert!(reason.contains("NUL"), "{reason}");
    }
}
