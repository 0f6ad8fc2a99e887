//! Exact arithmetic for results that are rounded once: integers times powers of two, and their quotients.
//!
//! Every finite float is such a number, and so are sums and products of floats, however far apart. Only a
//! division or a root may leave this set. [`Quotient`] rounds it correctly (to nearest, ties to even), even
//! if the result is subnormal or infinite. Long division as in Knuth, The Art of Computer Programming, volume
//! 2, section 4.3.1, algorithm D.
//!
//! Deliberately absent: speed for many limbs. Sums of numbers of similar size have two or three.

use std::cmp::Ordering;

/// The number of bits of a limb.
const LIMB: i64 = 64;
/// The exponent of the smallest float above zero.
const BOTTOM: i64 = -1074;
/// The number of bits of a float's mantissa.
const MANTISSA: i64 = 53;

/// An integer times a power of two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dyadic {
    negative: bool,
    /// The magnitude, lowest limb first. Neither the first nor the last limb is zero; zero has no limbs.
    limbs: Vec<u64>,
    /// The lowest limb counts units of 2^(64 * place).
    place: i64,
}

impl Dyadic {
    /// Returns a finite float times 2^`scale`.
    pub(crate) fn float(x: f64, scale: i64) -> Dyadic {
        let bits = x.to_bits();
        let exponent = ((bits >> 52) & 0x7ff) as i64;
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, exponent) =
            if exponent == 0 { (fraction, BOTTOM) } else { (fraction | 1 << 52, exponent - 1075) };
        let exponent = exponent + scale;
        let wide = u128::from(mantissa) << exponent.rem_euclid(LIMB);
        Dyadic {
            negative: x < 0.0,
            limbs: vec![wide as u64, (wide >> 64) as u64],
            place: exponent.div_euclid(LIMB),
        }
        .trimmed()
    }

    /// Returns an integer.
    pub(crate) fn whole(n: i64) -> Dyadic {
        Dyadic { negative: n < 0, limbs: vec![n.unsigned_abs()], place: 0 }.trimmed()
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.limbs.is_empty()
    }

    pub(crate) fn is_negative(&self) -> bool {
        self.negative
    }

    pub(crate) fn plus(&self, other: &Dyadic) -> Dyadic {
        if self.is_zero() || other.is_zero() {
            return if self.is_zero() { other.clone() } else { self.clone() };
        }
        if self.negative == other.negative {
            return self.combined(other, self.negative, |a, b, carry| {
                let (sum, over) = a.overflowing_add(b);
                let (sum, more) = sum.overflowing_add(carry);
                (sum, u64::from(over | more))
            });
        }
        let subtract = |a: u64, b: u64, borrow: u64| {
            let (rest, under) = a.overflowing_sub(b);
            let (rest, more) = rest.overflowing_sub(borrow);
            (rest, u64::from(under | more))
        };
        match self.compare_magnitude(other) {
            Ordering::Less => other.combined(self, other.negative, subtract),
            _ => self.combined(other, self.negative, subtract),
        }
    }

    pub(crate) fn minus(&self, other: &Dyadic) -> Dyadic {
        let negated = Dyadic { negative: !other.negative, ..other.clone() };
        self.plus(&negated)
    }

    pub(crate) fn times(&self, other: &Dyadic) -> Dyadic {
        let mut limbs = vec![0; self.limbs.len() + other.limbs.len()];
        for (i, a) in self.limbs.iter().enumerate() {
            let mut carry = 0u128;
            for (j, b) in other.limbs.iter().enumerate() {
                let sum = u128::from(*a) * u128::from(*b) + u128::from(limbs[i + j]) + carry;
                limbs[i + j] = sum as u64;
                carry = sum >> 64;
            }
            limbs[i + other.limbs.len()] = carry as u64;
        }
        let negative = self.negative != other.negative;
        Dyadic { negative, limbs, place: self.place + other.place }.trimmed()
    }

    /// Returns the number rounded to the nearest float.
    pub(crate) fn value(&self) -> f64 {
        Quotient::new(self, &Dyadic::whole(1)).value()
    }

    /// Combines the limbs of two magnitudes one by one, lowest first, with a carry.
    fn combined(&self, other: &Dyadic, negative: bool, limb: impl Fn(u64, u64, u64) -> (u64, u64)) -> Dyadic {
        let place = self.place.min(other.place);
        let end = self.end().max(other.end());
        let mut limbs = Vec::with_capacity((end - place) as usize + 1);
        let mut carry = 0;
        for at in place..=end {
            let (sum, over) = limb(self.limb(at), other.limb(at), carry);
            limbs.push(sum);
            carry = over;
        }
        Dyadic { negative, limbs, place }.trimmed()
    }

    fn compare_magnitude(&self, other: &Dyadic) -> Ordering {
        let places = (self.place.min(other.place)..self.end().max(other.end())).rev();
        let mut pairs = places.map(|at| self.limb(at).cmp(&other.limb(at)));
        pairs.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }

    /// Returns the end of the limbs.
    fn end(&self) -> i64 {
        self.place + self.limbs.len() as i64
    }

    fn limb(&self, at: i64) -> u64 {
        let index = usize::try_from(at - self.place);
        index.ok().and_then(|index| self.limbs.get(index)).copied().unwrap_or(0)
    }

    fn trimmed(mut self) -> Dyadic {
        let end = self.limbs.iter().rposition(|limb| *limb != 0).map_or(0, |last| last + 1);
        self.limbs.truncate(end);
        let zeros = self.limbs.iter().take_while(|limb| **limb == 0).count();
        self.limbs.drain(..zeros);
        if end == 0 {
            return Dyadic::default();
        }
        self.place += zeros as i64;
        self
    }
}

/// A quotient of two numbers: about 125 bits, and a flag for a remainder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quotient {
    negative: bool,
    bits: u128,
    /// The exponent: the bits count units of 2^exponent.
    exponent: i64,
    /// True if a remainder is left below the bits.
    more: bool,
}

/// The minimum number of computed bits of a quotient; there may be one more. A square root of it has more
/// bits than a float.
const QUOTIENT_BITS: i64 = 124;

impl Quotient {
    /// Returns `dividend / divisor`; the divisor is not zero.
    pub(crate) fn new(dividend: &Dyadic, divisor: &Dyadic) -> Quotient {
        debug_assert!(!divisor.is_zero());
        if dividend.is_zero() {
            return Quotient { negative: false, bits: 0, exponent: 0, more: false };
        }
        let shift = QUOTIENT_BITS + bit_length(&divisor.limbs) - bit_length(&dividend.limbs);
        let (bits, more) = divide(
            &shifted(&dividend.limbs, shift.max(0) as usize),
            &shifted(&divisor.limbs, (-shift).max(0) as usize),
        );
        let exponent = (dividend.place - divisor.place) * LIMB - shift;
        Quotient { negative: dividend.negative != divisor.negative, bits, exponent, more }
    }

    /// Returns the quotient rounded to the nearest float.
    pub(crate) fn value(self) -> f64 {
        let magnitude = round(self.bits, self.more, self.exponent);
        if self.negative { -magnitude } else { magnitude }
    }

    /// Returns the square root of the magnitude, rounded to the nearest float.
    pub(crate) fn root(self) -> f64 {
        let odd = self.exponent.rem_euclid(2);
        let bits = self.bits << odd;
        let root = bits.isqrt();
        round(root, self.more || root * root != bits, (self.exponent - odd) / 2)
    }
}

fn bit_length(limbs: &[u64]) -> i64 {
    limbs.last().map_or(0, |top| limbs.len() as i64 * LIMB - i64::from(top.leading_zeros()))
}

/// Returns the limbs of a number times 2^`shift`.
fn shifted(limbs: &[u64], shift: usize) -> Vec<u64> {
    let mut moved = vec![0; shift / 64];
    let bits = shift % 64;
    let mut carry = 0;
    for limb in limbs {
        moved.push(limb << bits | carry);
        carry = if bits == 0 { 0 } else { limb >> (64 - bits) };
    }
    moved.push(carry);
    trim(&mut moved);
    moved
}

fn trim(limbs: &mut Vec<u64>) {
    while limbs.last() == Some(&0) {
        limbs.pop();
    }
}

/// Returns the integer part of a quotient below 2^128, and true if there is a remainder. Neither number has
/// zeros at its top.
fn divide(dividend: &[u64], divisor: &[u64]) -> (u128, bool) {
    let [first, second @ ..] = divisor else { return (0, false) };
    if second.is_empty() {
        return divide_by_limb(dividend, *first);
    }
    // Normalizes the divisor, so that a guess from the highest limbs alone is too large by at most two.
    let up = divisor.last().map_or(0, |top| top.leading_zeros()) as usize;
    let divisor = shifted(divisor, up);
    let mut rest = shifted(dividend, up);
    rest.resize(rest.len().max(divisor.len()) + 1, 0);
    let (high, low) = (divisor[divisor.len() - 1], divisor[divisor.len() - 2]);
    let mut quotient = 0u128;
    for at in (0..rest.len() - divisor.len()).rev() {
        let window = &mut rest[at..=at + divisor.len()];
        let guess = guess(window, high, low);
        quotient = quotient << 64 | u128::from(subtract_times(window, &divisor, guess));
    }
    (quotient, rest.iter().any(|limb| *limb != 0))
}

fn divide_by_limb(dividend: &[u64], divisor: u64) -> (u128, bool) {
    let (mut quotient, mut rest) = (0u128, 0u128);
    for limb in dividend.iter().rev() {
        let part = rest << 64 | u128::from(*limb);
        quotient = (quotient << 64) | (part / u128::from(divisor));
        rest = part % u128::from(divisor);
    }
    (quotient, rest != 0)
}

/// Returns a guess for the next limb of the quotient, from the highest three limbs of the remainder and the
/// highest two of the divisor. It may be too large by one.
fn guess(window: &[u64], high: u64, low: u64) -> u64 {
    let top = window.len() - 1;
    let two = u128::from(window[top]) << 64 | u128::from(window[top - 1]);
    let (mut guess, mut rest) = (two / u128::from(high), two % u128::from(high));
    while guess >> 64 != 0 || guess * u128::from(low) > (rest << 64 | u128::from(window[top - 2])) {
        guess -= 1;
        rest += u128::from(high);
        if rest >> 64 != 0 {
            break;
        }
    }
    guess as u64
}

/// Subtracts the divisor `guess` times, or once less if that is too much; returns the number of times.
fn subtract_times(window: &mut [u64], divisor: &[u64], guess: u64) -> u64 {
    let mut carry = 0u128;
    let mut borrow = false;
    for (limb, part) in window.iter_mut().zip(divisor.iter().chain([&0])) {
        let product = u128::from(*part) * u128::from(guess) + carry;
        carry = product >> 64;
        let (rest, under) = limb.overflowing_sub(product as u64);
        let (rest, more) = rest.overflowing_sub(u64::from(borrow));
        (*limb, borrow) = (rest, under | more);
    }
    if !borrow {
        return guess;
    }
    let mut over = false;
    for (limb, part) in window.iter_mut().zip(divisor.iter().chain([&0])) {
        let (sum, carry) = limb.overflowing_add(*part);
        let (sum, more) = sum.overflowing_add(u64::from(over));
        (*limb, over) = (sum, carry | more);
    }
    guess - 1
}

/// Returns the float nearest to `bits * 2^exponent`. If `more` is set, adds a fraction of the last bit.
fn round(bits: u128, more: bool, exponent: i64) -> f64 {
    let length = 128 - i64::from(bits.leading_zeros());
    let drop = (length - MANTISSA).max(BOTTOM - exponent);
    if drop <= 0 {
        return scale(bits as f64, exponent);
    }
    if drop > length {
        // Below half of the smallest float.
        return 0.0;
    }
    let (kept, left) = (bits >> (drop - 1) >> 1, bits & ((1 << drop) - 1));
    let half = 1u128 << (drop - 1);
    let up = left > half || (left == half && (more || kept & 1 == 1));
    scale((kept + u128::from(up)) as f64, exponent + drop)
}

/// Returns `x * 2^exponent`, in steps that are exact.
fn scale(mut x: f64, mut exponent: i64) -> f64 {
    while exponent > 0 && x.is_finite() {
        let step = exponent.min(1000);
        x *= f64::from_bits(((1023 + step) as u64) << 52);
        exponent -= step;
    }
    while exponent < 0 {
        let step = (-exponent).min(1000);
        x *= f64::from_bits(((1023 - step) as u64) << 52);
        exponent += step;
    }
    x
}

#[cfg(test)]
mod tests {
    use millstream_seeds::Random;

    use super::*;

    /// Returns a sum of a few floats with an exponent in this range.
    fn random_number(random: &mut Random, exponents: std::ops::Range<u64>) -> Dyadic {
        let mut sum = Dyadic::default();
        for _ in 0..1 + random.bits() % 4 {
            let exponent = exponents.start + random.bits() % (exponents.end - exponents.start);
            let mut fraction = random.bits() & ((1 << 52) - 1);
            if random.bits().is_multiple_of(3) {
                fraction &= !0xffff_ffff_ffff;
            }
            let x = f64::from_bits((random.bits() & 1) << 63 | exponent << 52 | fraction);
            sum = sum.plus(&Dyadic::float(x, 0));
        }
        sum
    }

    fn magnitude(number: &Dyadic) -> Dyadic {
        Dyadic { negative: false, ..number.clone() }
    }

    /// Returns twice the distance of a float from a quotient, times the divisor.
    fn distance(x: f64, dividend: &Dyadic, divisor: &Dyadic) -> Dyadic {
        magnitude(&dividend.minus(&Dyadic::float(x, 0).times(divisor)))
    }

    fn at_most(left: &Dyadic, right: &Dyadic) -> bool {
        !right.minus(left).is_negative()
    }

    #[test]
    fn arithmetic_agrees_with_integers() {
        let mut random = Random(1);
        for _ in 0..3000 {
            let (a, b) = (random.bits() as i64 >> 2, random.bits() as i64 >> (2 + random.bits() % 60));
            let (x, y) = (Dyadic::whole(a), Dyadic::whole(b));
            assert_eq!(x.plus(&y), Dyadic::whole(a + b));
            assert_eq!(x.minus(&y), Dyadic::whole(a - b));
            assert_eq!(x.times(&y).value(), (i128::from(a) * i128::from(b)) as f64);
            assert_eq!(x.minus(&x), Dyadic::default());
            assert_eq!(x.value(), a as f64);
        }
        assert_eq!(Dyadic::whole(i64::MIN).value(), i64::MIN as f64);
    }

    #[test]
    fn floats_come_back_as_they_went_in() {
        for x in [0.0, 1.5, -0.1, 5e-324, -2.2e-308, f64::MAX, f64::MIN_POSITIVE] {
            assert_eq!(Dyadic::float(x, 0).value(), x);
            assert_eq!(Dyadic::float(x, 1200).times(&Dyadic::float(1.0, -1200)).value(), x);
        }
        let double = Dyadic::float(f64::MAX, 1);
        assert_eq!(double.value(), f64::INFINITY);
        assert_eq!(double.minus(&Dyadic::float(f64::MAX, 0)).value(), f64::MAX);
        assert_eq!(Dyadic::float(5e-324, -1).value(), 0.0);
        assert_eq!(Dyadic::float(1.5e-323, -1).value(), 1e-323);
        assert_eq!(Dyadic::float(-1.0, -4000).value(), 0.0);
    }

    #[test]
    fn quotients_are_the_nearest_floats() {
        let mut random = Random(2);
        for round in 0..6000 {
            let ranges =
                [(1000..1040, 1000..1040), (1..2000, 1..2000), (1..60, 1020..1060), (1..40, 1060..1110)];
            let (of, by) = ranges[round % 4].clone();
            let (mut dividend, mut divisor) =
                (random_number(&mut random, of), random_number(&mut random, by));
            if round % 5 == 0 {
                dividend = dividend.times(&divisor).times(&Dyadic::whole(3));
                divisor = divisor.times(&random_number(&mut random, 1000..1001));
            }
            if divisor.is_zero() {
                continue;
            }
            let found = Quotient::new(&dividend, &divisor).value();
            if found.is_infinite() || dividend.is_zero() {
                continue;
            }
            let here = distance(found, &dividend, &divisor);
            for next in [found.next_up(), found.next_down()] {
                if next.is_finite() {
                    let there = distance(next, &dividend, &divisor);
                    assert!(at_most(&here, &there), "{dividend:?} / {divisor:?} is not {found}");
                    assert!(here != there || found.to_bits() & 1 == 0, "{found} isn't even");
                }
            }
        }
    }

    #[test]
    fn roots_are_the_nearest_floats() {
        let mut random = Random(3);
        for round in 0..4000 {
            let range = [1000..1040, 1..2000, 1..60, 1900..2046][round % 4].clone();
            let (dividend, divisor) = (
                magnitude(&random_number(&mut random, range.clone())),
                magnitude(&random_number(&mut random, range)),
            );
            if divisor.is_zero() || dividend.is_zero() {
                continue;
            }
            let found = Quotient::new(&dividend, &divisor).root();
            // The square of the middle between two floats is never a tie.
            let middle = |next: f64| Dyadic::float(found, -1).plus(&Dyadic::float(next, -1));
            let square = |number: Dyadic| number.times(&number).times(&divisor);
            assert!(at_most(&dividend, &square(middle(found.next_up()))));
            assert!(at_most(&square(middle(found.next_down())), &dividend));
        }
        let square = Dyadic::float(1e300, 0).times(&Dyadic::float(1e300, 0));
        assert_eq!(Quotient::new(&square, &Dyadic::whole(4)).root(), 5e299);
        assert_eq!(Quotient::new(&square, &Dyadic::whole(4)).value(), f64::INFINITY);
    }

    #[test]
    fn long_division_takes_guesses_back() {
        // Divisors with the smallest highest limb, and with the largest other limbs.
        let number = |limbs: &[u64]| Dyadic { negative: false, limbs: limbs.to_vec(), place: 0 };
        let divisor = number(&[u64::MAX, u64::MAX, 1 << 63]);
        for factor in [&[u64::MAX, u64::MAX][..], &[1, u64::MAX], &[3, 1 << 63], &[u64::MAX]] {
            let dividend = divisor.times(&number(factor));
            assert_eq!(Quotient::new(&dividend, &divisor).value(), number(factor).value());
            let less = dividend.minus(&Dyadic::whole(1));
            assert_eq!(Quotient::new(&less, &number(factor)).value(), divisor.value());
        }
    }
}
