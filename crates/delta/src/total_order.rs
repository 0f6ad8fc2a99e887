//! The order of values in SQL, made total: values that are equal in SQL but differ in form are ordered, too.

use std::cmp::Ordering;

use arrow::array::{ArrowNativeTypeOp, ArrowPrimitiveType};
use arrow::datatypes::{IntervalDayTime, IntervalMonthDayNano, i256};

/// Nanoseconds in a day of an interval.
pub(crate) const DAY: i128 = 86_400_000_000_000;

/// Returns the length of an interval in nanoseconds. As in PostgreSQL a month has 30 days and a day 24 hours.
pub fn interval_length(value: IntervalMonthDayNano) -> i128 {
    (i128::from(value.months) * 30 + i128::from(value.days)) * DAY + i128::from(value.nanoseconds)
}

/// A native value with a total order that agrees with SQL's.
pub trait TotalOrder: Copy {
    /// Compares two values.
    fn total_order(self, other: Self) -> Ordering;
}

macro_rules! by_value {
    ($($native:ty),*) => {
        $(impl TotalOrder for $native {
            #[inline(always)]
            fn total_order(self, other: Self) -> Ordering {
                self.cmp(&other)
            }
        })*
    };
}

by_value!(i8, i16, i32, i64, i128, i256, u8, u16, u32, u64);

/// NaN, whatever its sign, is above all numbers, and -0.0 is below 0.0.
macro_rules! by_number {
    ($($native:ty),*) => {
        $(impl TotalOrder for $native {
            #[allow(clippy::eq_op)]
            #[inline(always)]
            fn total_order(self, other: Self) -> Ordering {
                // Only a NaN differs from itself.
                match (self != self, other != other) {
                    (true, false) => Ordering::Greater,
                    (false, true) => Ordering::Less,
                    _ => self.compare(other),
                }
            }
        })*
    };
}

by_number!(half::f16, f32, f64);

/// Intervals have the order of their lengths. Equally long ones have that of their months, then of their days.
impl TotalOrder for IntervalMonthDayNano {
    fn total_order(self, other: Self) -> Ordering {
        interval_length(self).cmp(&interval_length(other)).then(self.cmp(&other))
    }
}

impl TotalOrder for IntervalDayTime {
    fn total_order(self, other: Self) -> Ordering {
        let millis = |value: Self| i64::from(value.days) * 86_400_000 + i64::from(value.milliseconds);
        millis(self).cmp(&millis(other)).then(self.cmp(&other))
    }
}

/// A primitive type whose values have such an order.
pub trait OrderedType: ArrowPrimitiveType<Native: TotalOrder> {
    /// Compares two values of the type.
    #[inline(always)]
    fn order(left: Self::Native, right: Self::Native) -> Ordering {
        left.total_order(right)
    }
}

impl<T: ArrowPrimitiveType<Native: TotalOrder>> OrderedType for T {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_the_order_of_their_lengths() {
        let interval =
            |months, days, hours: i64| IntervalMonthDayNano::new(months, days, hours * 3_600_000_000_000);
        let ordered = [
            interval(-1, 0, 0),
            interval(0, -29, 0),
            interval(0, 0, -1),
            interval(0, 0, 23),
            interval(0, 0, 24),
            interval(0, 1, 0),
            interval(0, 0, 25),
            interval(0, 29, 0),
            interval(0, 30, 0),
            interval(1, 0, 0),
            interval(0, 40, 0),
            interval(i32::MAX, i32::MAX, 0),
        ];
        for pair in ordered.windows(2) {
            assert_eq!(pair[0].total_order(pair[1]), Ordering::Less, "{pair:?}");
        }
    }

    #[test]
    fn no_number_is_above_not_a_number() {
        assert_eq!((-f64::NAN).total_order(f64::INFINITY), Ordering::Greater);
        assert_eq!((-0.0_f32).total_order(0.0), Ordering::Less);
    }
}
