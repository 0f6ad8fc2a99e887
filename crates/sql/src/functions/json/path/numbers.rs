//! Arithmetic with the numbers of JSON, which PostgreSQL computes as `numeric`.

use std::cmp::Ordering;

use arrow::datatypes::i256;

use super::syntax::Operator;
use crate::error::{Error, Result};
use crate::sqlstate;

/// The fewest digits of a quotient that mean something.
const QUOTIENT_DIGITS: i64 = 16;

/// The most digits behind the point of a quotient.
const SCALE_MAX: i64 = 1_000;

/// The most digits behind the point of a number.
const FRACTION_DIGITS_MAX: usize = 16_383;

/// A number as an integer, divided by a power of ten.
struct Number {
    units: i256,
    scale: usize,
}

fn too_large() -> Error {
    Error::invalid("a number in a jsonpath has more digits than this engine computes with")
        .hint("Up to 76 digits work.")
        .code(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE)
}

fn power(exponent: usize) -> Result<i256> {
    let mut power = i256::ONE;
    for _ in 0..exponent {
        power = power.checked_mul(i256::from_i128(10)).ok_or_else(too_large)?;
    }
    Ok(power)
}

impl Number {
    fn read(digits: &str) -> Result<Number> {
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let units = i256::from_string(&format!("{whole}{fraction}")).ok_or_else(too_large)?;
        Ok(Number { units, scale: fraction.len() })
    }

    fn at_scale(&self, scale: usize) -> Result<i256> {
        self.units.checked_mul(power(scale.saturating_sub(self.scale))?).ok_or_else(too_large)
    }

    fn text(&self) -> String {
        let digits = self.units.to_string();
        let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
        let zeros = (self.scale + 1).saturating_sub(digits.len());
        let padded = format!("{}{digits}", "0".repeat(zeros));
        let (whole, fraction) = padded.split_at(padded.len() - self.scale);
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{sign}{whole}{point}{fraction}")
    }
}

/// Computes an operation with the digits that PostgreSQL's result has.
pub(super) fn compute(operator: Operator, left: &str, right: &str) -> Result<String> {
    let (one, other) = (Number::read(left)?, Number::read(right)?);
    let scale = one.scale.max(other.scale);
    if matches!(operator, Operator::Divide | Operator::Remainder) && other.units == i256::ZERO {
        return Err(Error::invalid("division by zero").code(sqlstate::DIVISION_BY_ZERO));
    }
    let aligned = || Ok::<_, Error>((one.at_scale(scale)?, other.at_scale(scale)?));
    let (units, scale) = match operator {
        Operator::Add => {
            let (one, other) = aligned()?;
            (one.checked_add(other), scale)
        }
        Operator::Subtract => {
            let (one, other) = aligned()?;
            (one.checked_sub(other), scale)
        }
        Operator::Multiply if one.scale + other.scale > FRACTION_DIGITS_MAX => return Err(too_large()),
        Operator::Multiply => (one.units.checked_mul(other.units), one.scale + other.scale),
        Operator::Remainder => {
            let (one, other) = aligned()?;
            (one.checked_rem(other), scale)
        }
        Operator::Divide => {
            let scale = quotient_scale(left, right, one.scale, other.scale);
            (Some(quotient(&one, &other, scale)?), scale)
        }
    };
    Ok(Number { units: units.ok_or_else(too_large)?, scale }.text())
}

fn quotient(one: &Number, other: &Number, scale: usize) -> Result<i256> {
    // one / other at the scale is units * 10^(scale + other.scale - one.scale) / units.
    let up = (scale + other.scale).saturating_sub(one.scale);
    let down = one.scale.saturating_sub(scale + other.scale);
    let dividend = one.units.checked_mul(power(up)?).ok_or_else(too_large)?;
    let divisor = other.units.checked_mul(power(down)?).ok_or_else(too_large)?;
    let whole = dividend.checked_div(divisor).ok_or_else(too_large)?;
    let rest = dividend.checked_rem(divisor).ok_or_else(too_large)?;
    // A half is rounded away from zero.
    let doubled = rest.wrapping_abs().checked_mul(i256::from_i128(2)).ok_or_else(too_large)?;
    if doubled < divisor.wrapping_abs() {
        return Ok(whole);
    }
    let is_negative = (one.units < i256::ZERO) != (other.units < i256::ZERO);
    let step = if is_negative { i256::MINUS_ONE } else { i256::ONE };
    whole.checked_add(step).ok_or_else(too_large)
}

/// Returns the number of digits behind the point that PostgreSQL gives a quotient.
fn quotient_scale(left: &str, right: &str, left_scale: usize, right_scale: usize) -> usize {
    let ((left_weight, left_first), (right_weight, right_first)) =
        (leading_group(left), leading_group(right));
    let weight = left_weight - right_weight - i64::from(left_first <= right_first);
    let scale = (QUOTIENT_DIGITS - 4 * weight).max(left_scale as i64).max(right_scale as i64).max(0);
    scale.min(SCALE_MAX) as usize
}

/// Returns the place and the value of the first group of four digits that isn't zero.
fn leading_group(digits: &str) -> (i64, u32) {
    let digits = digits.strip_prefix('-').unwrap_or(digits);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let pad = (4 - whole.len() % 4) % 4;
    let groups = whole.len().div_ceil(4) as i64;
    let all = format!("{}{whole}{fraction}", "0".repeat(pad));
    for (at, group) in all.as_bytes().chunks(4).enumerate() {
        let value = group.iter().fold(0_u32, |value, digit| 10 * value + u32::from(digit - b'0'));
        let value = value * 10_u32.pow(4 - group.len() as u32);
        if value > 0 {
            return (groups - 1 - at as i64, value);
        }
    }
    (0, 0)
}

/// Returns the integer next to a number in a direction.
pub(super) fn integer(digits: &str, up: bool) -> String {
    let Some((whole, fraction)) = digits.split_once('.') else { return digits.to_string() };
    let (is_negative, is_whole) = (whole.starts_with('-'), fraction.bytes().all(|digit| digit == b'0'));
    let whole = if whole == "-0" { "0" } else { whole };
    if is_whole || is_negative == up {
        return whole.to_string();
    }
    let step = if up { Operator::Add } else { Operator::Subtract };
    compute(step, whole, "1").unwrap_or_else(|_| whole.to_string())
}

/// Returns a number without its fraction, if it is a 32-bit integer.
pub(super) fn truncated(digits: &str) -> Option<i64> {
    let whole = digits.split_once('.').map_or(digits, |(whole, _)| whole);
    whole.parse::<i32>().ok().map(i64::from)
}

/// Returns a float as a number with at most 15 digits.
pub(super) fn from_float(float: f64) -> String {
    let written = format!("{float:.14e}");
    let (mantissa, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits = mantissa.replace('.', "");
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() {
        return "0".into();
    }
    let point = exponent + 1;
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or(0));
    match usize::try_from(point) {
        Ok(0) | Err(_) => format!("{sign}0.{}{digits}", zeros(-point)),
        Ok(at) if at >= digits.len() => format!("{sign}{digits}{}", zeros(point - digits.len() as i64)),
        Ok(at) => format!("{sign}{}.{}", &digits[..at], &digits[at..]),
    }
}

/// Compares two numbers.
pub(super) fn compare(one: &str, other: &str) -> Ordering {
    crate::functions::json::value::compare_numbers(one, other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_the_digits_of_numeric() {
        for (operator, left, right, expected) in [
            (Operator::Add, "2", "3.50", "5.50"),
            (Operator::Subtract, "7", "9.1", "-2.1"),
            (Operator::Multiply, "1.9", "2", "3.8"),
            (Operator::Divide, "8.5", "2", "4.2500000000000000"),
            (Operator::Divide, "1", "3", "0.33333333333333333333"),
            (Operator::Divide, "20000", "3", "6666.6666666666666667"),
            (Operator::Divide, "-2", "3", "-0.66666666666666666667"),
            (Operator::Remainder, "-7.5", "2", "-1.5"),
        ] {
            assert_eq!(compute(operator, left, right).unwrap(), expected);
        }
        assert!(compute(Operator::Divide, "1", "0.0").is_err());
        assert!(compute(Operator::Multiply, &"9".repeat(76), "100").is_err());
    }

    #[test]
    fn integers_are_near() {
        for (digits, floor, ceiling) in [
            ("1.3", "1", "2"),
            ("-1.3", "-2", "-1"),
            ("-0.3", "-1", "0"),
            ("2.00", "2", "2"),
            ("7", "7", "7"),
        ] {
            assert_eq!((integer(digits, false).as_str(), integer(digits, true).as_str()), (floor, ceiling));
        }
        assert_eq!(from_float(1.9), "1.9");
        assert_eq!(from_float(-1.5e20), "-150000000000000000000");
        assert_eq!(from_float(0.001), "0.001");
    }
}
