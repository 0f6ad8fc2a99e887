//! Exact sums of floats. They are independent of order, splits, merges and retractions, and rounded once at
//! the end.
//!
//! ```
//! use millstream_delta::Expansion;
//! let mut sum = Expansion::default();
//! for x in [1e100, 1.0, -1e100] {
//!     sum.add(x);
//! }
//! assert_eq!(sum.value(), 1.0);
//! sum.add_times(0.1, -10); // takes ten copies of 0.1 back
//! assert!(sum.value() < 0.0 && sum.value() > -1e-15);
//! ```
//!
//! A sum is stored as an unevaluated sum of floats that don't overlap (Shewchuk, "Adaptive Precision
//! Floating-Point Arithmetic", 1997, section 2; rounding as in Python's `fsum`). Two terms hold nearly every
//! sum that occurs in practice and are stored inline; more terms move to the heap.
//!
//! **Overflow.** An input of at least 2^896 is summed separately, scaled down by 2^600. This is exact since
//! its lowest bit is far from the smallest float. So neither part can overflow in less than 2^63 additions;
//! the value combines both exactly. A value beyond the largest float is infinite, in any order of additions.
//!
//! **Not numbers.** NaN and infinities are counted, so they can be retracted too.
//!
//! **Zero.** A sum of zero is +0.0.
//!
//! Deliberately absent: SQL's NULL for an empty sum; the caller counts its rows.

use crate::dyadic::Dyadic;

/// Inputs from here on are stored scaled.
const BIG: f64 = f64::from_bits((1023 + 896) << 52);
/// Below this an input times any weight stays below [`BIG`].
const BIG_TIMES: f64 = f64::from_bits((1023 + 800) << 52);
/// The scale of the big inputs.
const SCALE_EXPONENT: i64 = 600;
const SCALE: f64 = f64::from_bits((1023 - 600) << 52);

/// An exact sum of floats.
#[derive(Debug, Clone, Default)]
pub struct Expansion {
    /// The sum so far, as one float.
    high: f64,
    /// The exact remainder. (Additions may make it overlap with `high`.)
    low: f64,
    rest: Option<Box<Rest>>,
}

/// The state that few sums need. If present, it holds all terms, and none are inline.
#[derive(Debug, Clone, Default)]
struct Rest {
    /// The terms, in ascending order; they don't overlap.
    terms: Vec<f64>,
    /// The terms of the scaled sum, in ascending order.
    big: Vec<f64>,
    nans: i64,
    infinities: i64,
    negative_infinities: i64,
}

impl Expansion {
    /// Adds a number.
    #[inline]
    pub fn add(&mut self, x: f64) {
        if x.abs() < BIG && self.rest.is_none() {
            let (high, lost) = two_sum(self.high, x);
            let (low, remainder) = two_sum(self.low, lost);
            if remainder == 0.0 {
                (self.high, self.low) = (high, low);
                return;
            }
            // The terms may have come to overlap. After separation, two are usually enough.
            let (high, low) = two_sum(high, low);
            let (low, remainder) = two_sum(low, remainder);
            if remainder == 0.0 {
                (self.high, self.low) = (high, low);
                return;
            }
        }
        self.add_slowly(x, 1);
    }

    /// Adds `times` copies of a number; a negative count removes copies.
    pub fn add_times(&mut self, x: f64, times: i64) {
        match times {
            1 => self.add(x),
            -1 if x.is_finite() => self.add(-x),
            _ => self.add_slowly(x, times),
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Expansion) {
        if self.rest.is_none() && other.rest.is_none() {
            self.add(other.low);
            self.add(other.high);
            return;
        }
        let rest = self.rest();
        other.inline().for_each(|term| grow(&mut rest.terms, term));
        if let Some(theirs) = &other.rest {
            theirs.terms.iter().for_each(|term| grow(&mut rest.terms, *term));
            theirs.big.iter().for_each(|term| grow(&mut rest.big, *term));
            rest.nans += theirs.nans;
            rest.infinities += theirs.infinities;
            rest.negative_infinities += theirs.negative_infinities;
        }
        self.tidy();
    }

    /// Subtracts another sum.
    pub fn subtract(&mut self, other: &Expansion) {
        self.merge(&other.negated());
    }

    /// Returns the negated sum: numbers with their sign flipped, counts negated.
    pub(crate) fn negated(&self) -> Expansion {
        let rest = self.rest.as_ref().map(|rest| {
            let turned = |terms: &[f64]| terms.iter().map(|term| -term).collect();
            Box::new(Rest {
                terms: turned(&rest.terms),
                big: turned(&rest.big),
                nans: -rest.nans,
                infinities: -rest.infinities,
                negative_infinities: -rest.negative_infinities,
            })
        });
        Expansion { high: -self.high, low: -self.low, rest }
    }

    /// Returns the sum, rounded to the nearest float (ties to even).
    pub fn value(&self) -> f64 {
        let Some(rest) = &self.rest else { return self.high + self.low + 0.0 };
        if rest.nans != 0 || (rest.infinities != 0 && rest.negative_infinities != 0) {
            f64::NAN
        } else if rest.infinities != 0 {
            f64::INFINITY
        } else if rest.negative_infinities != 0 {
            f64::NEG_INFINITY
        } else if rest.big.is_empty() {
            round(&rest.terms) + 0.0
        } else {
            self.exactly().value()
        }
    }

    /// Returns true if the sum contains no NaN or infinity.
    pub fn is_finite(&self) -> bool {
        let counts = self.rest.as_ref().map(|rest| (rest.nans, rest.infinities, rest.negative_infinities));
        counts.is_none_or(|counts| counts == (0, 0, 0))
    }

    /// Returns the sum of the finite inputs, not rounded.
    pub(crate) fn exactly(&self) -> Dyadic {
        let mut sum = Dyadic::default();
        let mut add = |term: f64, scale: i64| sum = sum.plus(&Dyadic::float(term, scale));
        self.inline().for_each(|term| add(term, 0));
        if let Some(rest) = &self.rest {
            rest.terms.iter().for_each(|term| add(*term, 0));
            rest.big.iter().for_each(|term| add(*term, SCALE_EXPONENT));
        }
        sum
    }

    /// Returns the bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| {
            size_of::<Rest>() + (rest.terms.capacity() + rest.big.capacity()) * size_of::<f64>()
        })
    }

    /// Appends the sum as a list of floats for [`Expansion::decode`]. If the sum consists of inline terms
    /// only, the list is the terms. Else it is a NaN, the counts of NaN, infinity and minus infinity, the
    /// number of scaled terms, the scaled terms, and the other terms.
    pub fn encode(&self, list: &mut Vec<f64>) {
        match &self.rest {
            None => list.extend(self.inline()),
            Some(rest) => {
                let counts = [rest.nans, rest.infinities, rest.negative_infinities, rest.big.len() as i64];
                list.push(f64::NAN);
                // Counts are exact as floats up to 2^53, more rows than one key can have.
                list.extend(counts.map(|count| count as f64));
                list.extend(&rest.big);
                list.extend(&rest.terms);
            }
        }
    }

    /// Decodes the list of [`Expansion::encode`]; `None` if the list is invalid.
    pub fn decode(list: &[f64]) -> Option<Expansion> {
        let mut sum = Expansion::default();
        let Some((first, tail)) = list.split_first() else { return Some(sum) };
        if !first.is_nan() {
            return list.iter().all(|term| term.is_finite()).then(|| {
                list.iter().for_each(|term| sum.add(*term));
                sum
            });
        }
        let (counts, terms) = tail.split_at_checked(4)?;
        let (big, terms) = terms.split_at_checked(counts[3] as usize)?;
        if !big.iter().chain(terms).all(|term| term.is_finite()) {
            return None;
        }
        let rest = sum.rest();
        terms.iter().for_each(|term| grow(&mut rest.terms, *term));
        big.iter().for_each(|term| grow(&mut rest.big, *term));
        (rest.nans, rest.infinities, rest.negative_infinities) =
            (counts[0] as i64, counts[1] as i64, counts[2] as i64);
        sum.tidy();
        Some(sum)
    }

    /// Adds any number with any weight.
    #[cold]
    fn add_slowly(&mut self, x: f64, times: i64) {
        if times == 0 {
            return;
        }
        if x.is_nan() {
            self.rest().nans += times;
        } else if x == f64::INFINITY {
            self.rest().infinities += times;
        } else if x == f64::NEG_INFINITY {
            self.rest().negative_infinities += times;
        } else if x.abs() < BIG_TIMES || (times == 1 && x.abs() < BIG) {
            products(x, times, |part| self.grow(part));
        } else {
            let rest = self.rest();
            products(x * SCALE, times, |part| grow(&mut rest.big, part));
        }
        self.tidy();
    }

    /// Returns the state on the heap, and moves the inline terms there first.
    fn rest(&mut self) -> &mut Rest {
        let (high, low) = two_sum(std::mem::take(&mut self.high), std::mem::take(&mut self.low));
        let rest = self.rest.get_or_insert_default();
        rest.terms.extend([low, high].iter().filter(|term| **term != 0.0));
        rest
    }

    /// Adds a term; the heap has space for any number of terms.
    fn grow(&mut self, x: f64) {
        grow(&mut self.rest().terms, x);
    }

    /// Returns the inline terms; none if all terms are on the heap.
    fn inline(&self) -> impl Iterator<Item = f64> {
        [self.low, self.high].into_iter().filter(|term| *term != 0.0)
    }

    /// Moves the sum back inline if one term is enough. (Not at two terms: a sum that alternates between two
    /// and three would move back and forth.)
    fn tidy(&mut self) {
        let small = |rest: &Rest| {
            rest.terms.len() <= 1
                && rest.big.is_empty()
                && (rest.nans, rest.infinities, rest.negative_infinities) == (0, 0, 0)
        };
        if self.rest.as_deref().is_some_and(small) {
            let rest = self.rest.take().unwrap_or_default();
            self.high = rest.terms.first().copied().unwrap_or(0.0);
        }
    }
}

/// Returns the rounded sum and the exact rounding error (Knuth).
#[inline(always)]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// Adds a number to non-overlapping terms in ascending order; omits zeros.
fn grow(terms: &mut Vec<f64>, x: f64) {
    let mut sum = x;
    let mut kept = 0;
    for at in 0..terms.len() {
        let (next, lost) = two_sum(sum, terms[at]);
        if lost != 0.0 {
            terms[kept] = lost;
            kept += 1;
        }
        sum = next;
    }
    terms.truncate(kept);
    if sum != 0.0 {
        terms.push(sum);
    }
}

/// Rounds a sum of non-overlapping terms to the nearest float.
fn round(terms: &[f64]) -> f64 {
    let mut below = terms.iter().rev();
    let Some(first) = below.next() else { return 0.0 };
    let mut high = *first;
    while let Some(term) = below.next() {
        let (sum, lost) = two_sum(high, *term);
        high = sum;
        if lost != 0.0 {
            // A loss of half a unit is a tie: then the sign of the remaining terms decides.
            let next = below.next().copied().unwrap_or(0.0);
            if (lost < 0.0 && next < 0.0) || (lost > 0.0 && next > 0.0) {
                let twice = lost * 2.0;
                let other = high + twice;
                if other - high == twice {
                    high = other;
                }
            }
            return high;
        }
    }
    high
}

/// Calls `f` with numbers whose exact sum is `x * times`: pieces of 26 and 27 bits, whose products fit a
/// float.
fn products(x: f64, times: i64, mut f: impl FnMut(f64)) {
    if times == 1 {
        return f(x);
    }
    let high = f64::from_bits(x.to_bits() & !((1 << 27) - 1));
    let low = x - high;
    let sign = if times < 0 { -1.0 } else { 1.0 };
    let mut left = times.unsigned_abs();
    let mut unit = sign;
    while left > 0 {
        let digit = (left & ((1 << 26) - 1)) as f64 * unit;
        if digit != 0.0 {
            f(high * digit);
            f(low * digit);
        }
        left >>= 26;
        unit *= (1u64 << 26) as f64;
    }
}

#[cfg(test)]
mod tests {
    use millstream_seeds::Random;

    use super::*;

    /// Returns a finite float: of any exponent, or near the others, so that they cancel.
    fn random_float(random: &mut Random, kind: usize) -> f64 {
        let fraction = random.bits() & ((1 << 52) - 1);
        let exponent = match kind {
            0 => random.bits() % 2046,
            1 => 1023 + random.bits() % 4,
            2 => random.bits() % 60,
            3 => 2046 - random.bits() % 3,
            4 => 1023 + 890 + random.bits() % 12,
            _ => 1000 + random.bits() % 60,
        };
        let fraction = if random.bits().is_multiple_of(4) { fraction & !0xffff_ffff_ffff } else { fraction };
        f64::from_bits((random.bits() & 1) << 63 | exponent << 52 | fraction)
    }

    /// Returns the same sum in exact arithmetic, without terms.
    fn exact(numbers: &[f64]) -> f64 {
        let sum = |sum: Dyadic, x: &f64| sum.plus(&Dyadic::float(*x, 0));
        numbers.iter().fold(Dyadic::default(), sum).value()
    }

    fn sum(numbers: &[f64]) -> Expansion {
        let mut sum = Expansion::default();
        numbers.iter().for_each(|x| sum.add(*x));
        sum
    }

    #[test]
    fn exact_arithmetic_agrees_with_integers() {
        let mut random = Random(1);
        for _ in 0..1000 {
            let numbers: Vec<i64> = (0..8).map(|_| random.bits() as i64 >> (random.bits() % 50)).collect();
            let whole: i128 = numbers.iter().map(|n| ((*n as f64) as i128) << 3).sum();
            let floats: Vec<f64> = numbers.iter().map(|n| *n as f64 * 8.0).collect();
            assert_eq!(exact(&floats), whole as f64);
        }
        assert_eq!(exact(&[5e-324, 5e-324]), 1e-323);
        assert_eq!(exact(&[f64::MAX, f64::MAX]), f64::INFINITY);
        assert_eq!(exact(&[f64::MAX, f64::MAX, -f64::MAX]), f64::MAX);
        assert_eq!(exact(&[-1.0, 2f64.powi(-54)]), -1.0);
        assert_eq!(exact(&[1.0, 2f64.powi(-53), 5e-324]), 1.0 + f64::EPSILON);
    }

    #[test]
    fn sums_are_exact_in_any_order() {
        let mut random = Random(7);
        for round in 0..3000 {
            let kind = round % 7;
            let count = 1 + random.index(40);
            let mut numbers: Vec<f64> = (0..count)
                .map(|_| random_float(&mut random, if kind == 6 { round % 6 } else { kind }))
                .collect();
            if kind == 6 {
                let copies: Vec<f64> = numbers.iter().skip(1).map(|x| -x).collect();
                numbers.extend(copies);
            }
            let expected = exact(&numbers);
            for _ in 0..4 {
                random.shuffle(&mut numbers);
                assert_eq!(sum(&numbers).value().to_bits(), expected.to_bits(), "{numbers:?}");
            }
        }
    }

    #[test]
    fn splits_merges_and_codes_change_nothing() {
        let mut random = Random(11);
        for round in 0..2000 {
            let numbers: Vec<f64> =
                (0..2 + random.index(40)).map(|_| random_float(&mut random, round % 6)).collect();
            let (left, right) = numbers.split_at(random.index(numbers.len()));
            let mut merged = sum(left);
            merged.merge(&sum(right));
            assert_eq!(merged.value().to_bits(), sum(&numbers).value().to_bits());
            let mut list = Vec::new();
            merged.encode(&mut list);
            let decoded = Expansion::decode(&list).unwrap();
            assert_eq!(decoded.value().to_bits(), merged.value().to_bits());
        }
        assert!(Expansion::decode(&[f64::INFINITY]).is_none());
        assert!(Expansion::decode(&[f64::NAN, 1.0]).is_none());
    }

    #[test]
    fn what_is_taken_back_leaves_nothing() {
        let mut random = Random(13);
        for round in 0..2000 {
            let mut total = Expansion::default();
            let numbers: Vec<f64> =
                (0..1 + random.index(20)).map(|_| random_float(&mut random, round % 6)).collect();
            numbers.iter().for_each(|x| total.add(*x));
            let gone = random.index(numbers.len() + 1);
            numbers[..gone].iter().for_each(|x| total.add_times(*x, -1));
            assert_eq!(total.value().to_bits(), sum(&numbers[gone..]).value().to_bits());
            numbers[gone..].iter().for_each(|x| total.add_times(*x, -1));
            assert_eq!(total.value().to_bits(), 0f64.to_bits());
            assert!(total.rest.is_none(), "{total:?}");
        }
    }

    #[test]
    fn weights_multiply_exactly() {
        let mut random = Random(17);
        for round in 0..2000 {
            let x = random_float(&mut random, round % 6);
            let times = random.index(50) as i64 - 25;
            let mut weighted = Expansion::default();
            weighted.add_times(x, times);
            let copies = vec![if times < 0 { -x } else { x }; times.unsigned_abs() as usize];
            assert_eq!(weighted.value().to_bits(), exact(&copies).to_bits());
            let large = random.bits() as i64 >> 1;
            weighted.add_times(x, large);
            weighted.add_times(x, -large);
            weighted.add_times(x, -times);
            assert_eq!(weighted.value(), 0.0);
        }
        let mut huge = Expansion::default();
        huge.add_times(1.0, i64::MIN);
        assert_eq!(huge.value(), i64::MIN as f64);
    }

    #[test]
    fn what_is_no_number_is_counted() {
        let mut sum = Expansion::default();
        sum.add(1.5);
        sum.add(f64::INFINITY);
        assert_eq!(sum.value(), f64::INFINITY);
        sum.add(f64::NEG_INFINITY);
        assert!(sum.value().is_nan());
        sum.add_times(f64::INFINITY, -1);
        assert_eq!(sum.value(), f64::NEG_INFINITY);
        sum.add(f64::NAN);
        assert!(sum.value().is_nan());
        sum.add_times(f64::NAN, -1);
        sum.add_times(f64::NEG_INFINITY, -1);
        assert_eq!(sum.value(), 1.5);
        assert_eq!(sum.heap_bytes(), 0);
    }

    #[test]
    fn zero_is_positive_and_overflow_does_not_depend_on_order() {
        assert_eq!(sum(&[-0.0]).value().to_bits(), 0f64.to_bits());
        assert_eq!(sum(&[f64::MAX, f64::MAX]).value(), f64::INFINITY);
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]).value(), f64::MAX);
        assert_eq!(sum(&[f64::MAX, -f64::MAX, f64::MAX]).value(), f64::MAX);
    }
}
