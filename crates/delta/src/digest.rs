//! Digests of deltas: one number for all changes of a relation, independent of their order and of the chunks.
//!
//! A delta's digest is the sum, over its rows, of a row's weight times a hash of the row, modulo 2^128. So an
//! insert and its delete cancel each other, copies count by their number, and the digest of several deltas is
//! the sum of theirs. (Sums of hashes: Bellare and Micciancio, *A New Paradigm for Collision-free Hashing*,
//! EUROCRYPT 1997. Theirs withstands an adversary who looks for collisions. Here there is none: 128 bits are
//! enough against chance.)
//!
//! Deliberately absent: the names of columns. The compared rows come from the same query.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;
use std::str::FromStr;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use siphasher::sip128::SipHasher13;

use crate::{Chunk, Delta, RowEncoder, canonical};

/// The version of the algorithm. Digests of another version are not comparable.
const WAY: &str = "1-";

/// The keys of the hash: constant, so that every run computes the same digests.
const KEYS: (u64, u64) = (0x6d69_6c6c_7374_7265, 0x616d_2064_6967_6573);

/// Number of rows encoded at a time.
const ROWS: usize = 4096;

/// The digest of a delta.
///
/// ```
/// # use std::sync::Arc;
/// # use arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// use millstream_delta::{Chunk, Delta, Digest};
///
/// let rows = |numbers: Vec<i64>| {
///     RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(numbers)) as ArrayRef)])
/// };
/// let mut delta = Delta::insert(rows(vec![3, 1, 2])?);
/// delta.push(Chunk::delete(rows(vec![2])?));
/// assert_eq!(Digest::of(&delta)?, Digest::of(&Delta::insert(rows(vec![1, 3])?))?);
/// # Ok::<(), arrow::error::ArrowError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(u128);

impl Digest {
    /// Returns the digest of a delta; fails if its rows have a type without a row encoding.
    pub fn of(delta: &Delta) -> Result<Digest, ArrowError> {
        let mut encoder: Option<RowEncoder> = None;
        let mut sum = 0_u128;
        for chunk in &delta.chunks {
            let schema = chunk.rows.schema();
            if schema.fields().is_empty() {
                let rows: i64 = (0..chunk.rows.num_rows()).map(|row| chunk.weight(row)).sum();
                sum = sum.wrapping_add(weighted(hash(&[]), rows));
                continue;
            }
            let encoder = match &mut encoder {
                Some(encoder) => encoder,
                none => none.insert(RowEncoder::new(&schema)?),
            };
            for from in (0..chunk.rows.num_rows()).step_by(ROWS) {
                let some = chunk.slice(from, ROWS.min(chunk.rows.num_rows() - from));
                sum = sum.wrapping_add(sum_of(&some, encoder)?);
            }
        }
        Ok(Digest(sum))
    }
}

/// Returns the sum over the rows of a chunk that has columns.
fn sum_of(chunk: &Chunk, encoder: &RowEncoder) -> Result<u128, ArrowError> {
    let columns = chunk.rows.columns().iter().map(canonical).collect::<Result<Vec<_>, _>>()?;
    let rows = encoder.encode(&RecordBatch::try_new(chunk.rows.schema(), columns)?)?;
    let mut sum = 0_u128;
    match &chunk.weights {
        None => rows.iter().for_each(|row| sum = sum.wrapping_add(hash(row.as_ref()))),
        Some(weights) => rows
            .iter()
            .zip(weights.values())
            .for_each(|(row, weight)| sum = sum.wrapping_add(weighted(hash(row.as_ref()), *weight))),
    }
    Ok(sum)
}

fn weighted(hash: u128, weight: i64) -> u128 {
    hash.wrapping_mul(i128::from(weight) as u128)
}

fn hash(row: &[u8]) -> u128 {
    SipHasher13::new_with_keys(KEYS.0, KEYS.1).hash(row).as_u128()
}

impl Add for Digest {
    type Output = Digest;

    fn add(self, other: Digest) -> Digest {
        Digest(self.0.wrapping_add(other.0))
    }
}

impl Sum for Digest {
    fn sum<I: Iterator<Item = Digest>>(digests: I) -> Digest {
        digests.fold(Digest::default(), Add::add)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{WAY}{:032x}", self.0)
    }
}

/// The text is no digest, or a digest of another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no digest that this version makes")]
pub struct NoDigest;

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Digest, NoDigest> {
        let digits = text.strip_prefix(WAY).filter(|digits| digits.len() == 32).ok_or(NoDigest)?;
        u128::from_str_radix(digits, 16).map(Digest).map_err(|_| NoDigest)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, DictionaryArray, Float64Array, Int64Array, ListArray, RecordBatchOptions, StringArray,
        StringViewArray,
    };
    use arrow::compute::take_record_batch;
    use arrow::datatypes::{Float64Type, Int32Type, Schema};
    use millstream_seeds::Random;

    use super::*;

    /// Returns rows of few distinct values, so that many are duplicates.
    fn rows(random: &mut Random, count: usize) -> RecordBatch {
        let doubles = [0.0, -0.0, 1.5, f64::NAN, f64::from_bits(f64::NAN.to_bits() | 1 << 63 | 5)];
        let numbers: Vec<Option<i64>> =
            (0..count).map(|_| Some(random.index(5) as i64).filter(|n| *n > 0)).collect();
        let texts: Vec<Option<&str>> =
            (0..count).map(|_| [None, Some(""), Some("a"), Some("ab")][random.index(4)]).collect();
        let lists: Vec<Option<Vec<Option<f64>>>> = (0..count)
            .map(|_| {
                let length = random.index(4);
                (length < 3).then(|| (0..length).map(|_| Some(doubles[random.index(5)])).collect())
            })
            .collect();
        let floats: Vec<f64> = (0..count).map(|_| doubles[random.index(5)]).collect();
        RecordBatch::try_from_iter_with_nullable([
            ("n", Arc::new(Int64Array::from(numbers)) as ArrayRef, true),
            ("t", Arc::new(StringViewArray::from(texts)), true),
            ("f", Arc::new(Float64Array::from(floats)), true),
            ("l", Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(lists)), true),
        ])
        .unwrap()
    }

    fn chunk(random: &mut Random, count: usize) -> Chunk {
        let rows = rows(random, count);
        let weights: Vec<i64> = (0..count).map(|_| random.index(7) as i64 - 3).collect();
        let weights = (random.index(3) > 0).then(|| Int64Array::from(weights));
        Chunk { rows, weights }
    }

    /// Returns the same rows and weights in another order.
    fn shuffled(chunk: &Chunk, random: &mut Random) -> Chunk {
        let count = chunk.rows.num_rows();
        let mut order: Vec<usize> = (0..count).collect();
        random.shuffle(&mut order);
        let rows = take_record_batch(
            &chunk.rows,
            &arrow::array::UInt32Array::from_iter_values(order.iter().map(|row| *row as u32)),
        );
        let weights = Int64Array::from_iter_values(order.iter().map(|row| chunk.weight(*row)));
        Chunk { rows: rows.unwrap(), weights: Some(weights) }
    }

    /// The order of rows, the boundaries of chunks and rows that cancel each other change nothing.
    #[test]
    fn a_digest_depends_on_what_changes_in_sum_alone() {
        for seed in 0..60 {
            let mut random = Random(seed);
            let mut delta = Delta::default();
            for _ in 0..random.index(4) {
                let count = random.index(40) + usize::from(seed % 20 == 0) * 2 * ROWS;
                delta.push(chunk(&mut random, count));
            }
            let mut other = Delta::default();
            for whole in &delta.chunks {
                let whole = shuffled(whole, &mut random);
                let cut = random.index(whole.rows.num_rows() + 1);
                other.push(whole.slice(cut, whole.rows.num_rows() - cut));
                let noise = chunk(&mut random, 5);
                let back = Int64Array::from_iter_values((0..5).map(|row| -noise.weight(row)));
                other.push(noise.clone());
                other.push(whole.slice(0, cut));
                other.push(shuffled(&Chunk { rows: noise.rows, weights: Some(back) }, &mut random));
            }
            let digest = Digest::of(&delta).unwrap();
            assert_eq!(Digest::of(&other).unwrap(), digest, "seed {seed}");
            if let Some(first) = delta.chunks.first() {
                let sum = crate::consolidate(delta.clone(), &first.rows.schema()).unwrap();
                assert_eq!(Digest::of(&sum).unwrap(), digest, "seed {seed}: consolidated");
                let parts = delta.chunks.iter().map(|chunk| Digest::of(&Delta::of(chunk.clone())).unwrap());
                assert_eq!(parts.sum::<Digest>(), digest, "seed {seed}: by parts");
                other.push(first.slice(0, 1));
                let changed = first.weight(0) != 0;
                assert_eq!(Digest::of(&other).unwrap() != digest, changed, "seed {seed}: one row more");
            }
            assert_eq!(digest.to_string().parse(), Ok(digest));
        }
    }

    #[test]
    fn a_value_has_one_digest_in_whatever_type_it_is_kept() {
        let digest = |texts: ArrayRef| {
            Digest::of(&Delta::insert(RecordBatch::try_from_iter([("t", texts)]).unwrap())).unwrap()
        };
        let texts = vec![Some("a"), None, Some("longer than a view has room for"), Some("a")];
        let dictionary: DictionaryArray<Int32Type> = texts.iter().copied().collect();
        let plain = digest(Arc::new(StringArray::from(texts.clone())));
        assert_eq!(digest(Arc::new(StringViewArray::from(texts))), plain);
        assert_eq!(digest(Arc::new(dictionary)), plain);
    }

    #[test]
    fn rows_without_columns_count() {
        let options = RecordBatchOptions::new().with_row_count(Some(3));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
        let three = Delta::insert(rows.clone());
        let weighted = Delta::of(Chunk { rows, weights: Some(vec![5, -4, 2].into()) });
        assert_eq!(Digest::of(&three).unwrap(), Digest::of(&weighted).unwrap());
        assert_ne!(Digest::of(&three).unwrap(), Digest::default());
    }

    /// Journals store digests. If this fails because the row encoding changed, give `WAY` a new value.
    #[test]
    fn digests_of_this_way_stay_what_they_are() {
        let mut random = Random(7);
        let delta = Delta { chunks: vec![chunk(&mut random, 50), chunk(&mut random, 30)] };
        assert_eq!(Digest::of(&delta).unwrap().to_string(), "1-98352462f1dbc9a1a1e876f37d22f4b7");
        assert_eq!("2-00000000000000000000000000000000".parse::<Digest>(), Err(NoDigest));
    }
}
