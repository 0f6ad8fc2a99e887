//! Functions of a random number behind Spark's `uniform`, `randstr` and `shuffle`. The number is their last argument, so
//! they are deterministic themselves.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, StringViewArray, UInt64Array, new_null_array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::error::Result;
use millstream_delta::sql_type;

use super::Registry;
use super::lambdas::elements::Elements;
use super::lambdas::lists::list;
use super::scalar::Scalar;
use crate::error::Error;

/// The most characters of a random text.
const LENGTH_MAX: i64 = 1_000_000;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let number = |types: &[DataType]| match types {
        [low, high, DataType::Float64] if low.is_integer() && high.is_integer() => Ok(DataType::Int64),
        [low, high, DataType::Float64] if low.is_numeric() && high.is_numeric() => Ok(DataType::Float64),
        _ => Err(Error::invalid("uniform takes two numbers").hint("uniform(1, 6)").into()),
    };
    registry.add(Scalar::any("number_between", number, number_between));
    let length = vec![DataType::Int64, DataType::Float64];
    registry.add(Scalar::exact("text_of_chance", length, |_| Ok(DataType::Utf8View), random_text));
    let shuffled = |types: &[DataType]| match types {
        [of @ DataType::List(_), DataType::Float64] | [of @ DataType::Null, DataType::Float64] => {
            Ok(of.clone())
        }
        [of, _] => Err(Error::invalid(format!("shuffle takes an array, not {}", sql_type(of))).into()),
        _ => Err(Error::invalid("shuffle takes an array").into()),
    };
    registry.add(Scalar::any("array_shuffled", shuffled, shuffle));
}

/// Returns a number between two bounds; a whole number if both are whole, and then with the upper bound.
fn number_between(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let chance = columns[2].as_primitive::<Float64Type>();
    if columns[0].data_type().is_integer() && columns[1].data_type().is_integer() {
        let (low, high) = (cast(&columns[0], &DataType::Int64)?, cast(&columns[1], &DataType::Int64)?);
        let bounds = low.as_primitive::<Int64Type>().iter().zip(high.as_primitive::<Int64Type>());
        let numbers = bounds.zip(chance).map(|((one, other), chance)| {
            let (low, high) = (i128::from(one?.min(other?)), i128::from(one?.max(other?)));
            let ahead = (chance? * (high - low + 1) as f64) as i128;
            i64::try_from(low + ahead.min(high - low)).ok()
        });
        return Ok(Arc::new(numbers.collect::<Int64Array>()));
    }
    let (low, high) = (cast(&columns[0], &DataType::Float64)?, cast(&columns[1], &DataType::Float64)?);
    let bounds = low.as_primitive::<Float64Type>().iter().zip(high.as_primitive::<Float64Type>());
    let numbers = bounds.zip(chance).map(|((low, high), chance)| Some(low? + chance? * (high? - low?)));
    Ok(Arc::new(numbers.collect::<Float64Array>()))
}

/// Random bits: SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
struct Bits(u64);

impl Bits {
    fn of(chance: f64) -> Bits {
        Bits(chance.to_bits())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

/// Returns letters and digits.
fn random_text(columns: &[ArrayRef]) -> Result<ArrayRef> {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let rows = columns[0].as_primitive::<Int64Type>().iter().zip(columns[1].as_primitive::<Float64Type>());
    let texts = rows.map(|(length, chance)| {
        let (Some(length), Some(chance)) = (length, chance) else { return Ok(None) };
        if !(0..=LENGTH_MAX).contains(&length) {
            return Err(Error::invalid(format!(
                "randstr takes a length from 0 to {LENGTH_MAX}, but {length} was given"
            )));
        }
        let mut bits = Bits::of(chance);
        Ok(Some((0..length).map(|_| char::from(LETTERS[bits.below(LETTERS.len())])).collect::<String>()))
    });
    Ok(Arc::new(texts.collect::<std::result::Result<StringViewArray, Error>>()?))
}

/// Fisher and Yates: each element changes places with one of those up to it.
fn shuffle(columns: &[ArrayRef]) -> Result<ArrayRef> {
    if columns[0].data_type().is_null() {
        return Ok(new_null_array(&DataType::Null, columns[0].len()));
    }
    let elements = Elements::of(&columns[0])?;
    let chance = columns[1].as_primitive::<Float64Type>();
    let mut order: Vec<u64> = (0_u64..).take(elements.columns[0].len()).collect();
    for (row, start) in elements.starts().into_iter().enumerate() {
        let mut bits = Bits::of(if chance.is_valid(row) { chance.value(row) } else { 0.0 });
        for at in (1..elements.lengths[row]).rev() {
            order.swap(start + at, start + bits.below(at + 1));
        }
    }
    let shuffled = take(&elements.columns[0], &UInt64Array::from(order), None)?;
    list(columns[0].data_type(), elements.offsets(), shuffled, elements.nulls)
}
