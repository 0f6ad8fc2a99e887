//! Exact sums of intervals and their averages.

use arrow::datatypes::IntervalMonthDayNano;

const DAY_SECONDS: f64 = 86_400.0;
/// A microsecond in nanoseconds.
const MICROSECOND: i128 = 1000;

/// The sum of intervals, part by part, and their number. Each part is wide enough for all values of a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntervalTotal {
    /// The sum of the months.
    pub months: i64,
    /// The sum of the days.
    pub days: i64,
    /// The sum of the nanoseconds.
    pub nanoseconds: i128,
    /// The number of intervals.
    pub count: i64,
}

impl IntervalTotal {
    /// Adds an interval several times, or subtracts it.
    #[inline]
    pub fn add(&mut self, value: IntervalMonthDayNano, times: i64) {
        self.months = self.months.wrapping_add(i64::from(value.months).wrapping_mul(times));
        self.days = self.days.wrapping_add(i64::from(value.days).wrapping_mul(times));
        let nanoseconds = i128::from(value.nanoseconds).wrapping_mul(times.into());
        self.nanoseconds = self.nanoseconds.wrapping_add(nanoseconds);
        self.count += times;
    }

    /// Adds the intervals of another sum several times, or subtracts them.
    #[inline]
    pub fn merge(&mut self, other: &IntervalTotal, times: i64) {
        self.months = self.months.wrapping_add(other.months.wrapping_mul(times));
        self.days = self.days.wrapping_add(other.days.wrapping_mul(times));
        self.nanoseconds = self.nanoseconds.wrapping_add(other.nanoseconds.wrapping_mul(times.into()));
        self.count += times * other.count;
    }

    /// Returns the average; `None` of no intervals.
    ///
    /// This is the division of PostgreSQL's `interval_div`: a fraction of a month becomes days, a fraction of a day becomes
    /// time, which is rounded to microseconds.
    pub fn average(&self) -> Option<IntervalMonthDayNano> {
        if self.count == 0 {
            return None;
        }
        let count = self.count as f64;
        let (months, days) = (self.months as f64 / count, self.days as f64 / count);
        let more_days = microscopic((months - months.trunc()) * 30.0);
        let mut whole_days = days.trunc() + more_days.trunc();
        let mut seconds = microscopic((days.fract() + more_days.fract()) * DAY_SECONDS);
        if seconds.abs() >= DAY_SECONDS {
            whole_days += (seconds / DAY_SECONDS).trunc();
            seconds %= DAY_SECONDS;
        }
        let rest = (seconds * 1e9).round() as i128;
        let sum = self.nanoseconds + rest * i128::from(self.count);
        let nanoseconds = divided(sum, i128::from(self.count) * MICROSECOND) * MICROSECOND;
        Some(IntervalMonthDayNano::new(
            months as i32,
            whole_days as i32,
            i64::try_from(nanoseconds).unwrap_or(if nanoseconds > 0 { i64::MAX } else { i64::MIN }),
        ))
    }
}

/// Rounds to a millionth, as PostgreSQL rounds the remainders of months and days.
fn microscopic(value: f64) -> f64 {
    (value * 1e6).round_ties_even() / 1e6
}

/// Divides and rounds, halves to the even number.
fn divided(value: i128, by: i128) -> i128 {
    let (quotient, remainder) = (value.div_euclid(by), value.rem_euclid(by));
    match (remainder * 2).cmp(&by.abs()) {
        std::cmp::Ordering::Greater => quotient + 1,
        std::cmp::Ordering::Equal if quotient % 2 != 0 => quotient + 1,
        _ => quotient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_those_of_postgresql() {
        let check = |values: &[(i32, i32, i64)], expected: (i32, i32, i64)| {
            let mut total = IntervalTotal::default();
            for (months, days, seconds) in values {
                total.add(IntervalMonthDayNano::new(*months, *days, seconds * 1_000_000_000), 1);
            }
            let (months, days, seconds) = expected;
            let expected = IntervalMonthDayNano::new(months, days, seconds * 1_000_000_000);
            assert_eq!(total.average(), Some(expected), "{values:?}");
        };
        check(&[(0, 1, 0), (0, 2, 10_800)], (0, 1, 48_600));
        check(&[(1, 0, 0), (0, 0, 0)], (0, 15, 0));
        check(&[(-1, 0, 0), (0, 0, 0)], (0, -15, 0));
        check(&[(7, 0, 0), (0, 0, 0)], (3, 15, 0));
        check(&[(1, 1, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0)], (0, 7, 64_800));
        check(&[(0, -1, 0), (0, 0, -8)], (0, 0, -43_204));
        assert_eq!(IntervalTotal::default().average(), None);
    }

    #[test]
    fn subtracting_undoes_adding() {
        let mut total = IntervalTotal::default();
        let most = IntervalMonthDayNano::new(i32::MAX, i32::MAX, i64::MAX);
        for _ in 0..1000 {
            total.add(most, 1000);
        }
        assert_eq!(total.average().map(|average| (average.months, average.days)), Some((i32::MAX, i32::MAX)));
        let one = total;
        total.merge(&one, -1);
        assert_eq!(total, IntervalTotal::default());
    }
}
