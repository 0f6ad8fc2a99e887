//! Hashes of Spark: `hash` (Murmur3), `xxhash64`, `sha1`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit};
use datafusion::error::Result;
use millstream_delta::sql_type;

use super::Registry;
use super::lambdas::elements::Elements;
use super::scalar::Scalar;
use super::spark_texts::bytes_of;
use crate::error::Error;

/// The seed of both hashes in Spark.
const SEED: u32 = 42;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    registry.add(Scalar::any(
        "hash",
        |types| hashable("hash", types).map(|()| DataType::Int32),
        |columns| {
            let hashes = hash_rows::<Murmur3>(columns, SEED)?;
            Ok(Arc::new(Int32Array::from_iter_values(hashes.into_iter().map(u32::cast_signed))))
        },
    ));
    registry.add(Scalar::any(
        "xxhash64",
        |types| hashable("xxhash64", types).map(|()| DataType::Int64),
        |columns| {
            let hashes = hash_rows::<XxHash64>(columns, u64::from(SEED))?;
            Ok(Arc::new(Int64Array::from_iter_values(hashes.into_iter().map(u64::cast_signed))))
        },
    ));
    for name in ["sha", "sha1"] {
        let text = |types: &[DataType]| match types {
            [of] if of.is_string() || of.is_binary() || of.is_null() => Ok(DataType::Utf8View),
            _ => Err(Error::invalid("sha1 takes one text or BYTEA").into()),
        };
        registry.add(Scalar::any(name, text, |columns| {
            let bytes = bytes_of(&columns[0])?;
            let digests = bytes.as_binary_view().iter().map(|bytes| bytes.map(sha1));
            Ok(Arc::new(digests.collect::<StringViewArray>()))
        }));
    }
}

fn hashable(name: &str, types: &[DataType]) -> Result<()> {
    match types.iter().find(|of| !is_hashable(of)) {
        None => Ok(()),
        Some(DataType::Map(..)) => {
            Err(Error::invalid(format!("{name} takes no map: the order of its entries would count"))
                .hint("Hash map_entries(m) if the order is known.")
                .into())
        }
        Some(of) => Err(Error::invalid(format!("{name} takes no {}", sql_type(of))).into()),
    }
}

fn is_hashable(of: &DataType) -> bool {
    match of {
        DataType::List(field) => is_hashable(field.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| is_hashable(field.data_type())),
        DataType::Decimal128(..) | DataType::Boolean | DataType::Date32 | DataType::Null => true,
        DataType::Timestamp(..) | DataType::Float32 | DataType::Float64 => true,
        of => of.is_signed_integer() || of.is_string() || of.is_binary(),
    }
}

/// A hash that continues with a seed: that of the columns before.
trait Hasher: 'static {
    type Seed: Copy + 'static;
    fn int(value: i32, seed: Self::Seed) -> Self::Seed;
    fn long(value: i64, seed: Self::Seed) -> Self::Seed;
    fn bytes(value: &[u8], seed: Self::Seed) -> Self::Seed;
}

/// Returns the hash of each row. A NULL leaves the seed as it is.
fn hash_rows<H: Hasher>(columns: &[ArrayRef], seed: H::Seed) -> Result<Vec<H::Seed>> {
    let rows = columns.first().map_or(0, |column| column.len());
    let mut seeds = vec![seed; rows];
    for column in columns {
        let hash = hasher::<H>(column)?;
        seeds.iter_mut().enumerate().for_each(|(row, seed)| *seed = hash(row, *seed));
    }
    Ok(seeds)
}

/// Returns the hash of the values of a column. A NULL leaves the seed as it is.
fn hasher<H: Hasher>(column: &ArrayRef) -> Result<Continue<H>> {
    let nulls = column.logical_nulls();
    let is_null = move |at: usize| nulls.as_ref().is_some_and(|nulls| nulls.is_null(at));
    let hash: Continue<H> = match column.data_type() {
        DataType::List(_) => {
            let elements = Elements::of(column)?;
            let (starts, inner) = (elements.starts(), hasher::<H>(&elements.columns[0])?);
            let lengths = elements.lengths;
            Box::new(move |at, seed| {
                (starts[at]..starts[at] + lengths[at]).fold(seed, |seed, place| inner(place, seed))
            })
        }
        DataType::Struct(_) => {
            let fields = column.as_struct().columns().iter().map(hasher::<H>).collect::<Result<Vec<_>>>()?;
            Box::new(move |at, seed| fields.iter().fold(seed, |seed, field| field(at, seed)))
        }
        _ => leaf::<H>(column)?,
    };
    Ok(Box::new(move |at, seed| if is_null(at) { seed } else { hash(at, seed) }))
}

/// Continues a hash with the value at a place.
type Continue<H> = Box<dyn Fn(usize, <H as Hasher>::Seed) -> <H as Hasher>::Seed>;

/// Returns the hash of the values of a column without parts.
fn leaf<H: Hasher>(column: &ArrayRef) -> Result<Continue<H>> {
    Ok(match column.data_type() {
        DataType::Null => Box::new(|_, seed| seed),
        DataType::Boolean => {
            let values = column.as_boolean().clone();
            Box::new(move |at, seed| H::int(i32::from(values.value(at)), seed))
        }
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Date32 => {
            let values = cast(column, &DataType::Int32)?.as_primitive::<Int32Type>().clone();
            Box::new(move |at, seed| H::int(values.value(at), seed))
        }
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>().clone();
            Box::new(move |at, seed| H::long(values.value(at), seed))
        }
        DataType::Timestamp(_, zone) => {
            let micros = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
            let micros = cast(&micros, &DataType::Int64)?.as_primitive::<Int64Type>().clone();
            Box::new(move |at, seed| H::long(micros.value(at), seed))
        }
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>().clone();
            let bits = |value: f32| match value {
                0.0 => 0,
                value if value.is_nan() => 0x7fc0_0000,
                value => value.to_bits(),
            };
            Box::new(move |at, seed| H::int(bits(values.value(at)).cast_signed(), seed))
        }
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>().clone();
            let bits = |value: f64| match value {
                0.0 => 0,
                value if value.is_nan() => 0x7ff8_0000_0000_0000,
                value => value.to_bits(),
            };
            Box::new(move |at, seed| H::long(bits(values.value(at)).cast_signed(), seed))
        }
        DataType::Decimal128(precision, _) => {
            let values = column.as_primitive::<Decimal128Type>().clone();
            let is_short = *precision <= 18;
            Box::new(move |at, seed| match i64::try_from(values.value(at)) {
                Ok(value) if is_short => H::long(value, seed),
                _ => H::bytes(shortest(&values.value(at).to_be_bytes()), seed),
            })
        }
        _ => {
            let bytes = bytes_of(column)?.as_binary_view().clone();
            Box::new(move |at, seed| H::bytes(bytes.value(at), seed))
        }
    })
}

/// Returns the fewest bytes of a two's complement that have the value, as Java's BigInteger does.
fn shortest(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [first, second, ..] = rest {
        let redundant = (*first == 0 && *second < 0x80) || (*first == 0xff && *second >= 0x80);
        if !redundant {
            break;
        }
        rest = &rest[1..];
    }
    rest
}

/// Murmur3 x86 32, as in Spark: the bytes of a text that don't fill a word are mixed one by one.
struct Murmur3;

impl Murmur3 {
    fn mix(hash: u32, word: u32) -> u32 {
        let word = word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
        (hash ^ word).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
    }

    fn finish(hash: u32, length: u32) -> u32 {
        let mut hash = hash ^ length;
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
        hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
        hash ^ (hash >> 16)
    }
}

impl Hasher for Murmur3 {
    type Seed = u32;

    fn int(value: i32, seed: u32) -> u32 {
        Murmur3::finish(Murmur3::mix(seed, value.cast_unsigned()), 4)
    }

    fn long(value: i64, seed: u32) -> u32 {
        let bits = value.cast_unsigned();
        let low = Murmur3::mix(seed, (bits & 0xffff_ffff) as u32);
        Murmur3::finish(Murmur3::mix(low, (bits >> 32) as u32), 8)
    }

    fn bytes(value: &[u8], seed: u32) -> u32 {
        let (words, rest) = value.as_chunks::<4>();
        let hash = words.iter().fold(seed, |hash, word| Murmur3::mix(hash, u32::from_le_bytes(*word)));
        let single = |byte: u8| i32::from(byte.cast_signed()).cast_unsigned();
        let hash = rest.iter().fold(hash, |hash, byte| Murmur3::mix(hash, single(*byte)));
        Murmur3::finish(hash, value.len() as u32)
    }
}

/// Returns the Murmur3 hash of bytes, as Spark computes it.
pub(super) fn murmur3(bytes: &[u8], seed: u32) -> u32 {
    Murmur3::bytes(bytes, seed)
}

/// xxHash of 64 bits, <https://github.com/Cyan4973/xxHash>.
struct XxHash64;

const PRIMES: [u64; 5] = [
    0x9e37_79b1_85eb_ca87,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0x85eb_ca77_c2b2_ae63,
    0x27d4_eb2f_1656_67c5,
];

impl XxHash64 {
    fn round(sum: u64, word: u64) -> u64 {
        sum.wrapping_add(word.wrapping_mul(PRIMES[1])).rotate_left(31).wrapping_mul(PRIMES[0])
    }

    fn mix(hash: u64, word: u64) -> u64 {
        (hash ^ XxHash64::round(0, word)).rotate_left(27).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3])
    }

    fn mix_half(hash: u64, half: u32) -> u64 {
        (hash ^ u64::from(half).wrapping_mul(PRIMES[0]))
            .rotate_left(23)
            .wrapping_mul(PRIMES[1])
            .wrapping_add(PRIMES[2])
    }

    fn finish(hash: u64) -> u64 {
        let hash = (hash ^ (hash >> 33)).wrapping_mul(PRIMES[1]);
        let hash = (hash ^ (hash >> 29)).wrapping_mul(PRIMES[2]);
        hash ^ (hash >> 32)
    }

    fn begin(seed: u64, length: u64) -> u64 {
        seed.wrapping_add(PRIMES[4]).wrapping_add(length)
    }
}

impl Hasher for XxHash64 {
    type Seed = u64;

    fn int(value: i32, seed: u64) -> u64 {
        XxHash64::finish(XxHash64::mix_half(XxHash64::begin(seed, 4), value.cast_unsigned()))
    }

    fn long(value: i64, seed: u64) -> u64 {
        XxHash64::finish(XxHash64::mix(XxHash64::begin(seed, 8), value.cast_unsigned()))
    }

    fn bytes(value: &[u8], seed: u64) -> u64 {
        let length = value.len() as u64;
        let (blocks, rest) = value.as_chunks::<32>();
        let mut hash = if blocks.is_empty() {
            XxHash64::begin(seed, length)
        } else {
            let start = seed.wrapping_add(PRIMES[0]).wrapping_add(PRIMES[1]);
            let mut sums = [start, seed.wrapping_add(PRIMES[1]), seed, seed.wrapping_sub(PRIMES[0])];
            for block in blocks {
                for (sum, word) in sums.iter_mut().zip(block.as_chunks::<8>().0) {
                    *sum = XxHash64::round(*sum, u64::from_le_bytes(*word));
                }
            }
            let rotated = sums.iter().zip([1, 7, 12, 18]).map(|(sum, by)| sum.rotate_left(by));
            let mut hash = rotated.fold(0_u64, u64::wrapping_add);
            for sum in sums {
                hash = (hash ^ XxHash64::round(0, sum)).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]);
            }
            hash.wrapping_add(length)
        };
        let (words, rest) = rest.as_chunks::<8>();
        hash = words.iter().fold(hash, |hash, word| XxHash64::mix(hash, u64::from_le_bytes(*word)));
        let (halves, rest) = rest.as_chunks::<4>();
        hash = halves.iter().fold(hash, |hash, half| XxHash64::mix_half(hash, u32::from_le_bytes(*half)));
        let single = |hash: u64, byte: &u8| {
            (hash ^ u64::from(*byte).wrapping_mul(PRIMES[4])).rotate_left(11).wrapping_mul(PRIMES[0])
        };
        XxHash64::finish(rest.iter().fold(hash, single))
    }
}

/// Returns the hexadecimal digits of the SHA-1 of some bytes (RFC 3174).
fn sha1(bytes: &[u8]) -> String {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = bytes.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() < bytes.len() + 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let length = padded.len();
    padded[length - 8..].copy_from_slice(&(8 * bytes.len() as u64).to_be_bytes());
    for block in padded.as_chunks::<64>().0 {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        for at in 16..80 {
            words[at] = (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (mixed, constant) = match at / 20 {
                0 => ((b & c) | (!b & d), 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(mixed)
                .wrapping_add(e)
                .wrapping_add(constant)
                .wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(part);
        }
    }
    state.iter().map(|word| format!("{word:08x}")).collect()
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn hashes_are_those_of_spark() {
        let check = |sql: &str, expected: &str| Tables::new().check(&format!("SELECT {sql}"), &[expected]);
        check("hash('Spark', array(123::INT), 2::INT)", "-1321691492");
        check("xxhash64('Spark', array(123::INT), 2::INT)", "5602566077635097486");
        check(
            "sha1('Spark'), sha('')",
            "85f5955f4b27a9a4c2aab6ffe5d7189fc298b92c|da39a3ee5e6b4b0d3255bfef95601890afd80709",
        );
        check("sha1(repeat('a', 56))", "c2db330f6083854c99d4b5bfb6e8f29f201be699");
    }
}
