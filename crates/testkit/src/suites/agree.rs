//! Compares our answers with those of plain DataFusion: the same rows in any order, exact except for the last
//! digits of floats, whose sums are exact here.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::drive;
use crate::oracle::compare;

/// The relative tolerance of 64-bit and 32-bit floats.
const TOLERANCE: f64 = 1e-9;
const TOLERANCE_32: f64 = 1e-5;

/// Maximum number of rows that a message shows of each side.
const SHOWN_MAX: usize = 8;

/// A row: all values that must be equal, as text, then the floats.
type Row = (Vec<String>, Vec<f64>);

/// Describes the difference between our answer and the plain one; `None` if they agree.
pub fn disagreement(ours: &RecordBatch, plain: &RecordBatch) -> drive::Result<Option<String>> {
    let (ours, plain) = (&in_narrow_floats(ours, plain)?, &in_our_types(plain, ours)?);
    if compare::difference(ours, plain)?.is_none() {
        return Ok(None);
    }
    let types = |batch: &RecordBatch| -> Vec<(String, DataType)> {
        let fields = batch.schema();
        fields
            .fields()
            .iter()
            .map(|field| (field.name().clone(), compare::plain(field.data_type())))
            .collect()
    };
    let (our_types, plain_types) = (types(ours), types(plain));
    if our_types.len() != plain_types.len() {
        return Ok(Some(format!("our columns: {our_types:?}\nplain columns: {plain_types:?}")));
    }
    for ((our_name, our_type), (plain_name, plain_type)) in our_types.iter().zip(&plain_types) {
        // Ranks and lengths are signed here.
        let signed = (our_type, plain_type) == (&DataType::Int64, &DataType::UInt64);
        if (our_type != plain_type && !signed) || our_name != plain_name {
            return Ok(Some(format!(
                "our column {our_name:?} is {our_type}, the plain one {plain_name:?} is {plain_type}"
            )));
        }
    }
    let (first, second) = (rows(ours)?, rows(plain)?);
    let tolerances: Vec<f64> =
        ours.columns().iter().filter_map(|column| tolerance(column.data_type())).collect();
    let same = first.len() == second.len()
        && first.iter().zip(&second).all(|(a, b)| a.0 == b.0 && are_close(&a.1, &b.1, &tolerances));
    if same {
        return Ok(None);
    }
    let show = |rows: &[Row], others: &[Row]| -> String {
        let only = rows.iter().filter(|row| {
            !others.iter().any(|other| row.0 == other.0 && are_close(&row.1, &other.1, &tolerances))
        });
        let lines: Vec<String> =
            only.take(SHOWN_MAX).map(|row| format!("    {:?} {:?}", row.0, row.1)).collect();
        lines.join("\n")
    };
    Ok(Some(format!(
        "ours ({} rows) has\n{}\n  plain DataFusion ({} rows) has\n{}",
        first.len(),
        show(&first, &second),
        second.len(),
        show(&second, &first)
    )))
}

/// Casts columns to the types that they have here: functions return microseconds, and a NUMERIC with a DOUBLE PRECISION is a
/// DOUBLE PRECISION.
fn in_our_types(plain: &RecordBatch, ours: &RecordBatch) -> drive::Result<RecordBatch> {
    cast_columns(plain, ours, |plain, ours| match (plain, ours) {
        (DataType::Timestamp(TimeUnit::Nanosecond, zone), DataType::Timestamp(_, our_zone)) => {
            zone == our_zone
        }
        (decimal, DataType::Float64) => decimal.is_decimal(),
        _ => false,
    })
}

/// Casts columns to REAL that are DOUBLE PRECISION only here, such as sums of REAL and integers.
fn in_narrow_floats(ours: &RecordBatch, plain: &RecordBatch) -> drive::Result<RecordBatch> {
    cast_columns(ours, plain, |ours, plain| (ours, plain) == (&DataType::Float64, &DataType::Float32))
}

/// Casts columns to the types of another batch, where `is_cast` accepts both types.
fn cast_columns(
    batch: &RecordBatch,
    other: &RecordBatch,
    is_cast: fn(&DataType, &DataType) -> bool,
) -> drive::Result<RecordBatch> {
    let (schema, other_schema) = (batch.schema(), other.schema());
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    let mut columns = batch.columns().to_vec();
    for ((field, column), other) in fields.iter_mut().zip(&mut columns).zip(other_schema.fields()) {
        if is_cast(field.data_type(), other.data_type()) {
            *column = cast(column, other.data_type()).map_err(|error| error.to_string())?;
            *field = field.clone().with_data_type(other.data_type().clone());
        }
    }
    let schema = Arc::new(Schema::new(fields));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema, columns, &options).map_err(|error| error.to_string())
}

/// Returns true if all rows of `part` are rows of `whole`, with at most as many copies.
pub fn is_part(part: &RecordBatch, whole: &RecordBatch) -> drive::Result<bool> {
    let tolerances: Vec<f64> =
        part.columns().iter().filter_map(|column| tolerance(column.data_type())).collect();
    let (part, mut whole) = (rows(part)?, rows(whole)?);
    Ok(part.iter().all(|row| {
        let place =
            whole.iter().position(|other| row.0 == other.0 && are_close(&row.1, &other.1, &tolerances));
        place.map(|place| whole.swap_remove(place)).is_some()
    }))
}

fn tolerance(data_type: &DataType) -> Option<f64> {
    match data_type {
        DataType::Float64 => Some(TOLERANCE),
        DataType::Float32 => Some(TOLERANCE_32),
        _ => None,
    }
}

fn are_close(first: &[f64], second: &[f64], tolerances: &[f64]) -> bool {
    first.iter().zip(second).zip(tolerances).all(|((a, b), tolerance)| {
        a == b || a.total_cmp(b).is_eq() || (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1e-3)
    })
}

/// Returns all rows, sorted.
fn rows(batch: &RecordBatch) -> drive::Result<Vec<Row>> {
    let batch = compare::canonical_rows(batch).map_err(|error| error.to_string())?;
    let options = FormatOptions::default().with_null("NULL");
    let mut rows: Vec<Row> = vec![Row::default(); batch.num_rows()];
    for column in batch.columns() {
        if tolerance(column.data_type()).is_some() {
            for (row, value) in rows.iter_mut().zip(floats(column)) {
                // The texts record NULL.
                row.0.push(if value.is_some() { String::new() } else { "NULL".into() });
                row.1.push(value.unwrap_or(0.0));
            }
            continue;
        }
        let formatter = ArrayFormatter::try_new(column, &options).map_err(|error| error.to_string())?;
        let nested = column.data_type().is_nested();
        for (at, row) in rows.iter_mut().enumerate() {
            let text = formatter.value(at).try_to_string().map_err(|error| error.to_string())?;
            row.0.push(if nested { rounded(&text) } else { text });
        }
    }
    rows.sort_by(|a, b| {
        let floats = || a.1.iter().zip(&b.1).map(|(x, y)| x.total_cmp(y)).find(|order| order.is_ne());
        a.0.cmp(&b.0).then_with(|| floats().unwrap_or(std::cmp::Ordering::Equal))
    });
    Ok(rows)
}

fn floats(column: &ArrayRef) -> Vec<Option<f64>> {
    match column.data_type() {
        DataType::Float32 => column.as_primitive::<Float32Type>().iter().map(|x| x.map(f64::from)).collect(),
        _ => column.as_primitive::<Float64Type>().iter().collect(),
    }
}

/// Returns a nested value's text with its floats rounded.
fn rounded(text: &str) -> String {
    let is_number = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
    let mut result = String::new();
    let mut word = String::new();
    let flush = |word: &mut String, result: &mut String| {
        match word.parse::<f64>() {
            Ok(number) if word.contains('.') => result.push_str(&format!("{number:.8e}")),
            _ => result.push_str(word),
        }
        word.clear();
    };
    for c in text.chars() {
        if is_number(c) {
            word.push(c);
        } else {
            flush(&mut word, &mut result);
            result.push(c);
        }
    }
    flush(&mut word, &mut result);
    result
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, ListArray};

    use super::*;

    fn batch(ids: Vec<i64>, floats: Vec<f64>) -> RecordBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from(ids));
        let floats: ArrayRef = Arc::new(Float64Array::from(floats));
        RecordBatch::try_from_iter([("id", ids), ("x", floats)]).unwrap()
    }

    #[test]
    fn only_last_digits_of_floats_may_differ() {
        let first = batch(vec![1, 2], vec![0.6, 5.0]);
        assert_eq!(disagreement(&first, &batch(vec![2, 1], vec![5.0, 0.6000000000000001])).unwrap(), None);
        assert!(disagreement(&first, &batch(vec![2, 1], vec![5.0, 0.61])).unwrap().is_some());
        assert!(disagreement(&first, &batch(vec![2, 3], vec![5.0, 0.6])).unwrap().is_some());
    }

    #[test]
    fn so_in_lists() {
        let lists = |x: f64| {
            let list = ListArray::from_iter_primitive::<Float64Type, _, _>([Some(vec![Some(x), None])]);
            RecordBatch::try_from_iter([("l", Arc::new(list) as ArrayRef)]).unwrap()
        };
        assert_eq!(disagreement(&lists(0.6), &lists(0.6000000000000001)).unwrap(), None);
        assert!(disagreement(&lists(0.6), &lists(0.7)).unwrap().is_some());
    }
}
