//! `count_min_sketch(x, eps, confidence, seed)`: a sketch of how often values occur, in Spark's binary format.
//!
//! Cormode and Muthukrishnan, "An Improved Data Stream Summary: The Count-Min Sketch and its Applications" (2005).

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::error::Result;

use super::{Key, Keys, Registry, number, of_list, sketch_rows};
use crate::error::Error;
use crate::functions::hashes::murmur3;
use crate::functions::lambdas::elements::Elements;
use crate::functions::scalar::Scalar;

const NAME: &str = "count_min_sketch";
/// The most counters.
const COUNTERS_MAX: u64 = 1 << 22;
/// A prime: hashes of numbers are below it.
const PRIME: i64 = (1 << 31) - 1;

/// Registers the function.
pub(super) fn register(registry: &mut Registry<'_>) {
    let typed = |types: &[DataType]| match types {
        [list, eps, confidence, seed]
            if [eps, confidence].into_iter().all(|of| of.is_numeric()) && seed.is_integer() =>
        {
            match list {
                DataType::List(field) if field.data_type().is_floating() => {
                    Err(Error::invalid(format!("{NAME} counts whole numbers, TEXT and BYTEA")).into())
                }
                _ => of_list(NAME, std::slice::from_ref(list), true),
            }
        }
        _ => Err(Error::invalid(format!("{NAME} takes a value, an error, a confidence and a seed"))
            .hint("count_min_sketch(x, 0.01, 0.95, 1)")
            .into()),
    };
    registry.add(Scalar::any("count_min_sketch_of", typed, build));
}

fn build(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let elements = Elements::of(&columns[0])?;
    let (keys, starts) = (Keys::of(NAME, &elements.columns[0])?, elements.starts());
    let [eps, confidence] = [1, 2].map(|at| cast(&columns[at], &DataType::Float64));
    let (eps, confidence) = (eps?, confidence?);
    let option = |column: &ArrayRef, row: usize| {
        let column = column.as_primitive::<Float64Type>();
        column.is_valid(row).then(|| column.value(row))
    };
    sketch_rows(elements.lengths.len(), |row| {
        let (Some(eps), Some(confidence)) = (option(&eps, row), option(&confidence, row)) else {
            return Err(Error::invalid(format!(
                "{NAME} takes an error and a confidence, but NULL was given"
            ))
            .into());
        };
        let seed = number(columns, 3, row)?.unwrap_or(0);
        let mut sketch = CountMin::new(eps, confidence, seed)?;
        for key in (starts[row]..starts[row] + elements.lengths[row]).filter_map(|at| keys.get(at)) {
            sketch.add(&key);
        }
        Ok(Some(sketch.serialize()))
    })
}

/// The sketch: rows of counters. A value counts in one place of each.
struct CountMin {
    count: i64,
    width: i64,
    factors: Vec<i64>,
    counters: Vec<Vec<i64>>,
}

impl CountMin {
    fn new(eps: f64, confidence: f64, seed: i64) -> Result<CountMin> {
        if !(eps > 0.0 && eps.is_finite() && confidence > 0.0 && confidence < 1.0) {
            let found = format!("{eps} and {confidence} were given");
            return Err(Error::invalid(format!(
                "{NAME} takes an error above 0 and a confidence between 0 and 1, but {found}"
            ))
            .into());
        }
        let width = (2.0 / eps).ceil() as u64;
        let depth = (-(1.0 - confidence).ln() / 2.0_f64.ln()).ceil() as u64;
        if width.saturating_mul(depth) > COUNTERS_MAX {
            return Err(Error::invalid(format!(
                "{NAME} with the error {eps} would have {width} counters in a row"
            ))
            .hint(format!("It has at most {COUNTERS_MAX} counters."))
            .into());
        }
        let mut random = JavaRandom::new(seed);
        Ok(CountMin {
            count: 0,
            width: width as i64,
            factors: (0..depth).map(|_| random.below_prime()).collect(),
            counters: (0..depth).map(|_| vec![0; width as usize]).collect(),
        })
    }

    fn add(&mut self, key: &Key<'_>) {
        self.count += 1;
        let (first, second) = match key {
            Key::Bytes(bytes) => {
                let first = murmur3(bytes, 0);
                (first, murmur3(bytes, first))
            }
            Key::Long(_) | Key::Double(_) => (0, 0),
        };
        for row in 0..self.counters.len() {
            let place = match key {
                Key::Long(number) => {
                    let hash = self.factors[row].wrapping_mul(*number);
                    (hash.wrapping_add(hash >> 32) & PRIME) % self.width
                }
                Key::Bytes(_) => {
                    let hash = first.wrapping_add((row as u32).wrapping_mul(second));
                    (i64::from(hash.cast_signed()) % self.width).abs()
                }
                Key::Double(_) => continue,
            };
            if let Some(counter) = usize::try_from(place).ok().and_then(|at| self.counters[row].get_mut(at)) {
                *counter += 1;
            }
        }
    }

    fn serialize(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(1_i32.to_be_bytes());
        out.extend(self.count.to_be_bytes());
        out.extend((self.factors.len() as i32).to_be_bytes());
        out.extend((self.width as i32).to_be_bytes());
        for number in self.factors.iter().chain(self.counters.iter().flatten()) {
            out.extend(number.to_be_bytes());
        }
        out
    }
}

/// The generator of `java.util.Random`.
struct JavaRandom(u64);

impl JavaRandom {
    const FACTOR: u64 = 0x5_deec_e66d;
    const MASK: u64 = (1 << 48) - 1;

    fn new(seed: i64) -> JavaRandom {
        JavaRandom((seed.cast_unsigned() ^ JavaRandom::FACTOR) & JavaRandom::MASK)
    }

    /// Returns a number below the prime.
    fn below_prime(&mut self) -> i64 {
        loop {
            self.0 = (self.0.wrapping_mul(JavaRandom::FACTOR) + 0xb) & JavaRandom::MASK;
            let found = (self.0 >> 17) as i64;
            if found < PRIME {
                return found;
            }
        }
    }
}
