//! Exact variances, covariances, correlations and regressions. They are independent of order, splits, merges
//! and retractions; each is the true result rounded once at the end.
//!
//! ```
//! use millstream_delta::{Moments, Statistic};
//! let mut moments = Moments::default();
//! for x in [1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0] {
//!     moments.add(x, 1);
//! }
//! moments.add(1e300, 1);
//! moments.add(1e300, -1); // takes it back, without a trace
//! assert_eq!(Statistic::VarSamp.of(&moments), Some(1.0));
//! ```
//!
//! The state is the exact sums of the numbers, their squares and their products, as [`Expansion`]s. A product
//! of two floats is a float and an error term, exactly (Dekker, "A Floating-Point Technique for Extending the
//! Available Precision", 1971; here by one fused multiply-add).
//!
//! The textbook formulas, such as `(n Σx² - (Σx)²) / (n (n - 1))`, lose all digits in floating point. So
//! other systems update means (Welford 1962; Chan, Golub and LeVeque 1983), and their results depend on the
//! order. Over exact sums the formulas are exact, and a retracted number leaves no trace.
//!
//! **Overflow, underflow.** Products near the ends of the range of floats are stored scaled by 2^±1200.
//!
//! **Not numbers.** Infinities and NaN make a result NaN; they are counted, so they can be retracted too.

use crate::dyadic::{Dyadic, Quotient};
use crate::expansion::Expansion;

/// Nonzero products below this may have an error term that is no float.
const SMALL: f64 = f64::from_bits((1023 - 900) << 52);
/// Products from here on are stored scaled.
const BIG: f64 = f64::from_bits((1023 + 896) << 52);
/// The scale of each factor of a far product.
const FACTOR_EXPONENT: i64 = 600;
const FACTOR_UP: f64 = f64::from_bits((1023 + 600) << 52);
const FACTOR_DOWN: f64 = f64::from_bits((1023 - 600) << 52);

/// An exact sum of products.
#[derive(Clone, Debug, Default)]
struct Products {
    sum: Expansion,
    far: Option<Box<Far>>,
}

/// Products near the ends of the range of floats.
#[derive(Clone, Debug, Default)]
struct Far {
    /// Small products, scaled up.
    small: Expansion,
    /// Big products, scaled down.
    big: Expansion,
}

impl Products {
    /// Adds `times` copies of `x * y`; both are finite.
    #[inline]
    fn add(&mut self, x: f64, y: f64, times: i64) {
        let product = x * y;
        if product.abs() >= SMALL && product.abs() < BIG {
            self.sum.add_times(product, times);
            self.sum.add_times(x.mul_add(y, -product), times);
        } else if x != 0.0 && y != 0.0 {
            self.add_far(x, y, times);
        }
    }

    #[cold]
    fn add_far(&mut self, x: f64, y: f64, times: i64) {
        let far = self.far.get_or_insert_default();
        let (sum, factor) =
            if (x * y).abs() < 1.0 { (&mut far.small, FACTOR_UP) } else { (&mut far.big, FACTOR_DOWN) };
        let (x, y) = (x * factor, y * factor);
        let product = x * y;
        sum.add_times(product, times);
        sum.add_times(x.mul_add(y, -product), times);
    }

    fn merge(&mut self, other: &Products) {
        self.sum.merge(&other.sum);
        if let Some(theirs) = &other.far {
            let far = self.far.get_or_insert_default();
            far.small.merge(&theirs.small);
            far.big.merge(&theirs.big);
        }
    }

    fn exactly(&self) -> Dyadic {
        let sum = self.sum.exactly();
        let Some(far) = &self.far else { return sum };
        let small = far.small.exactly().times(&Dyadic::float(1.0, -2 * FACTOR_EXPONENT));
        let big = far.big.exactly().times(&Dyadic::float(1.0, 2 * FACTOR_EXPONENT));
        sum.plus(&small).plus(&big)
    }

    fn heap_bytes(&self) -> usize {
        let far = self
            .far
            .as_ref()
            .map_or(0, |far| size_of::<Far>() + far.small.heap_bytes() + far.big.heap_bytes());
        self.sum.heap_bytes() + far
    }

    fn parts(&self) -> [Option<&Expansion>; 3] {
        let far = self.far.as_deref();
        [Some(&self.sum), far.map(|far| &far.small), far.map(|far| &far.big)]
    }

    fn negated(&self) -> Products {
        let far =
            self.far.as_ref().map(|far| Box::new(Far { small: far.small.negated(), big: far.big.negated() }));
        Products { sum: self.sum.negated(), far }
    }

    fn from_parts([sum, small, big]: [Expansion; 3]) -> Products {
        let far = [&small, &big].iter().any(|part| !part.exactly().is_zero());
        Products { sum, far: far.then(|| Box::new(Far { small, big })) }
    }
}

/// A sum of numbers and the sum of their squares.
#[derive(Clone, Debug, Default)]
struct Powers {
    sum: Expansion,
    squares: Products,
}

impl Powers {
    #[inline]
    fn add(&mut self, x: f64, times: i64) {
        self.sum.add_times(x, times);
        if x.is_finite() {
            self.squares.add(x, x, times);
        }
    }

    fn merge(&mut self, other: &Powers) {
        self.sum.merge(&other.sum);
        self.squares.merge(&other.squares);
    }

    fn negated(&self) -> Powers {
        Powers { sum: self.sum.negated(), squares: self.squares.negated() }
    }

    /// Returns `n Σx² - (Σx)²`: n² times the variance.
    fn spread(&self, count: i64) -> Dyadic {
        let sum = self.sum.exactly();
        self.squares.exactly().times(&Dyadic::whole(count)).minus(&sum.times(&sum))
    }

    fn heap_bytes(&self) -> usize {
        self.sum.heap_bytes() + self.squares.heap_bytes()
    }
}

/// The sums of pairs, other than the powers of their first numbers.
#[derive(Clone, Debug, Default)]
struct Second {
    powers: Powers,
    products: Products,
}

/// The count of numbers or pairs, and their exact sums, sums of squares and sums of products.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    count: i64,
    first: Powers,
    second: Option<Box<Second>>,
}

impl Moments {
    /// Adds copies of a number; a negative count removes copies.
    #[inline]
    pub fn add(&mut self, x: f64, times: i64) {
        self.count += times;
        self.first.add(x, times);
    }

    /// Adds copies of a pair; a negative count removes copies.
    pub fn add_pair(&mut self, first: f64, second: f64, times: i64) {
        self.add(first, times);
        let other = self.second.get_or_insert_default();
        other.powers.add(second, times);
        if first.is_finite() && second.is_finite() {
            other.products.add(first, second, times);
        }
    }

    /// Adds all numbers or pairs of `other`.
    pub fn merge(&mut self, other: &Moments) {
        self.count += other.count;
        self.first.merge(&other.first);
        if let Some(theirs) = &other.second {
            let second = self.second.get_or_insert_default();
            second.powers.merge(&theirs.powers);
            second.products.merge(&theirs.products);
        }
    }

    /// Removes all numbers or pairs of `other`.
    pub fn subtract(&mut self, other: &Moments) {
        let second = other.second.as_ref().map(|second| {
            Box::new(Second { powers: second.powers.negated(), products: second.products.negated() })
        });
        self.merge(&Moments { count: -other.count, first: other.first.negated(), second });
    }

    /// Returns the count of numbers or pairs.
    pub fn count(&self) -> i64 {
        self.count
    }

    /// Returns the bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.first.heap_bytes()
            + self.second.as_ref().map_or(0, |second| {
                size_of::<Second>() + second.powers.heap_bytes() + second.products.heap_bytes()
            })
    }

    /// Appends the state as a list of floats for [`Moments::decode`]: the count, then each sum after its
    /// length.
    pub fn encode(&self, list: &mut Vec<f64>) {
        // A count is exact as a float up to 2^53, more rows than one key can have.
        list.push(self.count as f64);
        let mut powers = |powers: &Powers| {
            put(list, Some(&powers.sum));
            powers.squares.parts().into_iter().for_each(|part| put(list, part));
        };
        powers(&self.first);
        if let Some(second) = &self.second {
            powers(&second.powers);
            second.products.parts().into_iter().for_each(|part| put(list, part));
        }
    }

    /// Decodes the list of [`Moments::encode`]; `None` if the list is invalid.
    pub fn decode(list: &[f64]) -> Option<Moments> {
        let (count, mut list) = list.split_first()?;
        let powers = |list: &mut &[f64]| {
            let sum = get(list)?;
            Some(Powers { sum, squares: Products::from_parts([get(list)?, get(list)?, get(list)?]) })
        };
        let first = powers(&mut list)?;
        let second = match list.is_empty() {
            true => None,
            false => {
                let powers = powers(&mut list)?;
                let products = Products::from_parts([get(&mut list)?, get(&mut list)?, get(&mut list)?]);
                Some(Box::new(Second { powers, products }))
            }
        };
        list.is_empty().then_some(Moments { count: *count as i64, first, second })
    }
}

/// Appends a sum after its length.
fn put(list: &mut Vec<f64>, part: Option<&Expansion>) {
    let place = list.len();
    list.push(0.0);
    if let Some(part) = part {
        part.encode(list);
    }
    list[place] = (list.len() - place - 1) as f64;
}

/// Removes a sum from the front of a list.
fn get(list: &mut &[f64]) -> Option<Expansion> {
    let (length, tail) = list.split_first()?;
    let (part, tail) = tail.split_at_checked(*length as usize)?;
    *list = tail;
    Expansion::decode(part)
}

/// A statistic of numbers or of pairs, computed from their [`Moments`]; the variants are named as in SQL.
///
/// As in SQL's `regr_slope(y, x)`, y is the first argument of a pair and x, the independent variable, the
/// second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Statistic {
    /// The variance of a population.
    VarPop,
    /// The variance of a sample.
    VarSamp,
    /// The standard deviation of a population.
    StddevPop,
    /// The standard deviation of a sample.
    StddevSamp,
    /// The covariance of a population of pairs.
    CovarPop,
    /// The covariance of a sample of pairs.
    CovarSamp,
    /// Pearson's coefficient of correlation.
    Corr,
    /// The slope of the line through pairs by least squares.
    RegrSlope,
    /// The value of that line at x = 0.
    RegrIntercept,
    /// The number of pairs.
    RegrCount,
    /// The square of the coefficient of correlation.
    RegrR2,
    /// The average of x, as `avg` computes it.
    RegrAvgX,
    /// The average of y, as `avg` computes it.
    RegrAvgY,
    /// The sum of squares of the deviations of x from its average.
    RegrSxx,
    /// The sum of squares of the deviations of y from its average.
    RegrSyy,
    /// The sum of products of the deviations of x and y from their averages.
    RegrSxy,
}

impl Statistic {
    /// All statistics, with the names of DataFusion's functions.
    pub const ALL: [(Statistic, &str); 16] = [
        (Statistic::VarPop, "var_pop"),
        (Statistic::VarSamp, "var"),
        (Statistic::StddevPop, "stddev_pop"),
        (Statistic::StddevSamp, "stddev"),
        (Statistic::CovarPop, "covar_pop"),
        (Statistic::CovarSamp, "covar_samp"),
        (Statistic::Corr, "corr"),
        (Statistic::RegrSlope, "regr_slope"),
        (Statistic::RegrIntercept, "regr_intercept"),
        (Statistic::RegrCount, "regr_count"),
        (Statistic::RegrR2, "regr_r2"),
        (Statistic::RegrAvgX, "regr_avgx"),
        (Statistic::RegrAvgY, "regr_avgy"),
        (Statistic::RegrSxx, "regr_sxx"),
        (Statistic::RegrSyy, "regr_syy"),
        (Statistic::RegrSxy, "regr_sxy"),
    ];

    /// Returns the statistic that DataFusion's function of this name computes.
    pub fn of_name(name: &str) -> Option<Statistic> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(statistic, _)| *statistic)
    }

    /// Returns the name of its function.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(known, _)| *known == self).map_or("", |(_, name)| name)
    }

    /// Returns true if the statistic is of pairs, not of single numbers.
    pub fn is_of_pairs(self) -> bool {
        !matches!(self, Statistic::VarPop | Statistic::VarSamp | Statistic::StddevPop | Statistic::StddevSamp)
    }

    /// Returns the statistic of these numbers or pairs; `None` if it is undefined.
    pub fn of(self, moments: &Moments) -> Option<f64> {
        let count = moments.count;
        match self {
            _ if count <= 0 => (self == Statistic::RegrCount).then_some(0.0),
            Statistic::VarPop | Statistic::StddevPop => self.deviation(&moments.first, count, count),
            Statistic::VarSamp | Statistic::StddevSamp => self.deviation(&moments.first, count, count - 1),
            Statistic::RegrCount => Some(count as f64),
            _ => self.of_pairs(moments, moments.second.as_deref()?),
        }
    }

    /// Returns a variance or its square root.
    fn deviation(self, powers: &Powers, count: i64, divisor: i64) -> Option<f64> {
        if divisor == 0 {
            return None;
        }
        if !powers.sum.is_finite() {
            return Some(f64::NAN);
        }
        let quotient =
            Quotient::new(&powers.spread(count), &Dyadic::whole(count).times(&Dyadic::whole(divisor)));
        Some(match self {
            Statistic::StddevPop | Statistic::StddevSamp => quotient.root(),
            _ => quotient.value(),
        })
    }

    fn of_pairs(self, moments: &Moments, second: &Second) -> Option<f64> {
        let count = moments.count;
        let (y, x) = (&moments.first, &second.powers);
        let all = y.sum.is_finite() && x.sum.is_finite();
        let n = || Dyadic::whole(count);
        let over = |finite: bool, dividend: &dyn Fn() -> Dyadic, divisor: Dyadic| {
            Some(if finite { Quotient::new(&dividend(), &divisor).value() } else { f64::NAN })
        };
        let cross = || {
            let products = second.products.exactly().times(&n());
            products.minus(&x.sum.exactly().times(&y.sum.exactly()))
        };
        match self {
            Statistic::CovarPop => over(all, &cross, n().times(&n())),
            Statistic::CovarSamp if count > 1 => over(all, &cross, n().times(&Dyadic::whole(count - 1))),
            Statistic::RegrAvgX => Some(x.sum.value() / count as f64),
            Statistic::RegrAvgY => Some(y.sum.value() / count as f64),
            Statistic::RegrSxx => over(x.sum.is_finite(), &|| x.spread(count), n()),
            Statistic::RegrSyy => over(y.sum.is_finite(), &|| y.spread(count), n()),
            Statistic::RegrSxy => over(all, &cross, n()),
            Statistic::Corr => correlation(moments, second, &cross),
            Statistic::RegrSlope | Statistic::RegrIntercept | Statistic::RegrR2 if count > 1 => {
                self.of_line(moments, second, &cross)
            }
            _ => None,
        }
    }

    /// Returns a statistic of the line through more than one pair.
    fn of_line(self, moments: &Moments, second: &Second, cross: &dyn Fn() -> Dyadic) -> Option<f64> {
        let (y, x) = (&moments.first, &second.powers);
        // All values are equal: there is no line, even if the other argument is not finite.
        let flat = |powers: &Powers| powers.sum.is_finite() && powers.spread(moments.count).is_zero();
        if flat(x) || (self == Statistic::RegrR2 && flat(y)) {
            return None;
        }
        if !(x.sum.is_finite() && y.sum.is_finite()) {
            return Some(f64::NAN);
        }
        let spread = x.spread(moments.count);
        let quotient = match self {
            Statistic::RegrSlope => Quotient::new(&cross(), &spread),
            Statistic::RegrIntercept => {
                let dividend = y.sum.exactly().times(&x.squares.exactly());
                Quotient::new(&dividend.minus(&x.sum.exactly().times(&second.products.exactly())), &spread)
            }
            _ => square_of_correlation(&cross(), &spread, &y.spread(moments.count)),
        };
        Some(quotient.value())
    }
}

fn square_of_correlation(cross: &Dyadic, x: &Dyadic, y: &Dyadic) -> Quotient {
    Quotient::new(&cross.times(cross), &x.times(y))
}

/// Returns the coefficient of correlation. As in DataFusion, it is NaN only if neither argument is finite.
fn correlation(moments: &Moments, second: &Second, cross: &dyn Fn() -> Dyadic) -> Option<f64> {
    let (y, x) = (&moments.first, &second.powers);
    match (y.sum.is_finite(), x.sum.is_finite()) {
        (false, false) => return Some(f64::NAN),
        (true, true) => {}
        _ => return None,
    }
    let (x, y) = (x.spread(moments.count), y.spread(moments.count));
    if x.is_zero() || y.is_zero() {
        return None;
    }
    let cross = cross();
    let magnitude = square_of_correlation(&cross, &x, &y).root();
    Some(if cross.is_negative() { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests;
