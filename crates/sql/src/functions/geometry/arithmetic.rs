//! Arithmetic of coordinates as in PostgreSQL: a result out of range is an error, and comparisons have a tolerance.

use crate::error::{Error, Result};
use crate::sqlstate;

/// The distance below which two coordinates are the same.
const EPSILON: f64 = 1.0e-6;

/// The most pairs of edges that one operator compares.
const PAIRS_MAX: usize = 100_000_000;

fn out_of_range(direction: &str) -> Error {
    Error::invalid(format!("value out of range: {direction}")).code(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE)
}

/// Fails if finite operands gave an infinite result.
fn finite(result: f64, has_infinite: bool) -> Result<f64> {
    if result.is_infinite() && !has_infinite { Err(out_of_range("overflow")) } else { Ok(result) }
}

/// Returns `a + b`.
pub(super) fn plus(a: f64, b: f64) -> Result<f64> {
    finite(a + b, a.is_infinite() || b.is_infinite())
}

/// Returns `a - b`.
pub(super) fn minus(a: f64, b: f64) -> Result<f64> {
    finite(a - b, a.is_infinite() || b.is_infinite())
}

/// Returns `a * b`.
pub(super) fn times(a: f64, b: f64) -> Result<f64> {
    let result = finite(a * b, a.is_infinite() || b.is_infinite())?;
    if result == 0.0 && a != 0.0 && b != 0.0 { Err(out_of_range("underflow")) } else { Ok(result) }
}

/// Returns `a / b`.
pub(super) fn over(a: f64, b: f64) -> Result<f64> {
    if b == 0.0 && !a.is_nan() {
        return Err(Error::invalid("division by zero").code(sqlstate::DIVISION_BY_ZERO));
    }
    let result = finite(a / b, a.is_infinite())?;
    if result == 0.0 && a != 0.0 && !b.is_infinite() { Err(out_of_range("underflow")) } else { Ok(result) }
}

/// Returns the value between two others.
pub(super) fn middle(a: f64, b: f64) -> Result<f64> {
    over(plus(a, b)?, 2.0)
}

/// Returns the length of a vector.
pub(super) fn length(x: f64, y: f64) -> Result<f64> {
    if x.is_infinite() || y.is_infinite() {
        return Ok(f64::INFINITY);
    }
    if x.is_nan() || y.is_nan() {
        return Ok(f64::NAN);
    }
    let (x, y) = (x.abs(), y.abs());
    let (long, short) = if x < y { (y, x) } else { (x, y) };
    if short == 0.0 {
        return Ok(long);
    }
    let ratio = short / long;
    let result = finite(long * (1.0 + ratio * ratio).sqrt(), false)?;
    if result == 0.0 { Err(out_of_range("underflow")) } else { Ok(result) }
}

/// Returns zero for both of its forms.
pub(super) fn without_sign(value: f64) -> f64 {
    if value == 0.0 { 0.0 } else { value }
}

/// True if a number is zero or close to it.
pub(super) fn is_zero(a: f64) -> bool {
    a.abs() <= EPSILON
}

/// True if `a` and `b` are equal or close.
pub(super) fn eq(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= EPSILON
}

/// True if `a` and `b` are neither equal nor close.
pub(super) fn ne(a: f64, b: f64) -> bool {
    a != b && (a - b).abs() > EPSILON
}

/// True if `a` is less than `b`, and not close to it.
pub(super) fn lt(a: f64, b: f64) -> bool {
    a + EPSILON < b
}

/// True if `a` is less than `b`, or close to it.
pub(super) fn le(a: f64, b: f64) -> bool {
    a <= b + EPSILON
}

/// True if `a` is greater than `b`, and not close to it.
pub(super) fn gt(a: f64, b: f64) -> bool {
    a > b + EPSILON
}

/// True if `a` is greater than `b`, or close to it.
pub(super) fn ge(a: f64, b: f64) -> bool {
    a + EPSILON >= b
}

/// True if `a` is below `b` in the order in which NaN is the greatest number.
pub(super) fn is_below(a: f64, b: f64) -> bool {
    !a.is_nan() && (b.is_nan() || a < b)
}

/// True for two equal numbers, and for two NaN.
pub(super) fn is_same(a: f64, b: f64) -> bool {
    if a.is_nan() { b.is_nan() } else { a == b }
}

/// Returns the lower number; NaN is the greatest.
pub(super) fn least(a: f64, b: f64) -> f64 {
    if is_below(a, b) { a } else { b }
}

/// Returns the greater number; NaN is the greatest.
pub(super) fn greatest(a: f64, b: f64) -> f64 {
    if is_below(b, a) { a } else { b }
}

/// Fails if two shapes have too many pairs of edges to compare them all.
pub(super) fn check_pairs(one: usize, other: usize) -> Result<()> {
    if one.saturating_mul(other) <= PAIRS_MAX {
        return Ok(());
    }
    let message =
        format!("too many points: shapes of {one} and {other} points, whose product exceeds {PAIRS_MAX}");
    Err(Error::invalid(message)
        .hint("Compare shapes with fewer points.")
        .code(sqlstate::PROGRAM_LIMIT_EXCEEDED))
}
