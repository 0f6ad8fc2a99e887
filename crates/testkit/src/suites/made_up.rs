//! Rows for tables whose files the package lacks. They are random but reproducible, with repeated values,
//! values that the file's queries name, and NULLs in nullable columns.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, UInt32Array, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::oracle::compare::classes;

/// Number of rows of a table.
const ROWS: usize = 60;

/// Days since 1970 from 1992 to 2020, the range of the suites' dates.
const DAYS: std::ops::Range<i64> = 8035..18262;

/// Returns rows of a schema with distinct values of `key` (which is empty if there is none).
pub fn rows(
    schema: &SchemaRef,
    key: &[usize],
    name: &str,
    words: &[String],
    seed: u64,
) -> Result<RecordBatch, ArrowError> {
    let mut hasher = DefaultHasher::new();
    (seed, name).hash(&mut hasher);
    let mut rng = SmallRng::seed_from_u64(hasher.finish());
    let mut columns = Vec::new();
    for (at, field) in schema.fields().iter().enumerate() {
        let alone = key == [at];
        let nullable = field.is_nullable() && !key.contains(&at);
        columns.push(column(field.data_type(), nullable, alone, words, &mut rng)?);
    }
    let rows = RecordBatch::try_new(schema.clone(), columns)?;
    if key.is_empty() {
        return Ok(rows);
    }
    let keys = classes(&[&rows.project(key)?])?.pop().unwrap_or_default();
    let first = keys
        .iter()
        .enumerate()
        .filter(|(row, key)| keys.iter().position(|other| other == *key) == Some(*row));
    take_record_batch(&rows, &UInt32Array::from_iter_values(first.map(|(row, _)| row as u32)))
}

/// Returns a word, a phrase or a letter.
fn text(words: &[String], rng: &mut SmallRng) -> String {
    match rng.random_range(0..4) {
        0 | 1 if !words.is_empty() => words[rng.random_range(0..words.len())].clone(),
        2 => format!("word {}", rng.random_range(0..1000)),
        _ => char::from(b'a' + rng.random_range(0..5)).to_string(),
    }
}

/// Returns one column: numbers are drawn as integers and cast to the type.
fn column(
    data_type: &DataType,
    nullable: bool,
    distinct: bool,
    words: &[String],
    rng: &mut SmallRng,
) -> Result<ArrayRef, ArrowError> {
    let null = |rng: &mut SmallRng| nullable && rng.random_bool(0.1);
    let numbers = |make: &mut dyn FnMut(&mut SmallRng, usize) -> i64, rng: &mut SmallRng| -> ArrayRef {
        Arc::new((0..ROWS).map(|row| (!null(rng)).then(|| make(rng, row))).collect::<Int64Array>())
    };
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let made: ArrayRef = match data_type {
        DataType::Boolean => {
            Arc::new((0..ROWS).map(|_| (!null(rng)).then(|| rng.random_bool(0.5))).collect::<BooleanArray>())
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = (0..ROWS).map(|row| match distinct {
                true => Some(format!("key {row}")),
                false => (!null(rng)).then(|| text(words, rng)),
            });
            Arc::new(texts.collect::<StringArray>())
        }
        DataType::Date32 => {
            let days = numbers(&mut |rng, _| rng.random_range(DAYS), rng);
            cast_with_options(&days, &DataType::Int32, &options)?
        }
        DataType::Date64 | DataType::Timestamp(..) => {
            let seconds =
                numbers(&mut |rng, _| rng.random_range(DAYS) * 86_400 + rng.random_range(0..86_400), rng);
            let timestamps = DataType::Timestamp(arrow::datatypes::TimeUnit::Second, None);
            cast_with_options(&seconds, &timestamps, &options)?
        }
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let thousandths = numbers(&mut |rng, _| rng.random_range(-200..1200), rng);
            let floats = cast_with_options(&thousandths, &DataType::Float64, &options)?;
            arrow::compute::kernels::numeric::div(&floats, &arrow::array::Float64Array::new_scalar(1000.0))?
        }
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) if *scale > 0 => {
            let hundredths = numbers(&mut |rng, _| rng.random_range(-2_000..10_000), rng);
            let decimals = cast_with_options(&hundredths, &DataType::Decimal128(38, 2), &options)?;
            arrow::compute::kernels::numeric::div(
                &decimals,
                &arrow::array::Scalar::new(cast_with_options(
                    &Int64Array::from(vec![100]),
                    &DataType::Decimal128(20, 0),
                    &options,
                )?),
            )?
        }
        _ if data_type.is_numeric() => numbers(
            &mut |rng, row| match rng.random_range(0..4) {
                _ if distinct => row as i64 + 1,
                0 => rng.random_range(-120..120),
                _ => rng.random_range(0..20),
            },
            rng,
        ),
        other => return Ok(new_null_array(other, ROWS)),
    };
    let cast = cast_with_options(&made, data_type, &options)?;
    // An unsigned column can hold no negative numbers; if NULL isn't allowed either, they become zero.
    if nullable || cast.null_count() == 0 {
        return Ok(cast);
    }
    let zeros = cast_with_options(&Int64Array::from(vec![0; ROWS]), data_type, &options)?;
    arrow::compute::kernels::zip::zip(&arrow::compute::is_null(&cast)?, &zeros, &cast)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Array;
    use arrow::datatypes::{Field, Schema, TimeUnit};

    #[test]
    fn every_type_has_values_and_keys_are_distinct() {
        let types = [
            DataType::Int64,
            DataType::UInt8,
            DataType::Float32,
            DataType::Utf8View,
            DataType::Date32,
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            DataType::Decimal128(15, 2),
            DataType::Boolean,
        ];
        let fields: Vec<Field> =
            types.iter().enumerate().map(|(at, t)| Field::new(format!("c{at}"), t.clone(), at > 3)).collect();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let made = rows(&schema, &[0], "t", &["x".into()], 1).unwrap();
        assert_eq!(made.num_rows(), ROWS);
        assert!(made.columns().iter().all(|column| column.null_count() < ROWS / 2));
        assert_eq!(made, rows(&schema, &[0], "t", &["x".into()], 1).unwrap());
    }
}
