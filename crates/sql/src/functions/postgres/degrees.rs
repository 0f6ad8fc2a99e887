//! Trigonometry in degrees, and the gamma function.
//!
//! Degrees are exact where PostgreSQL's are: `sind(30)` is 0.5.
//!
//! The method is PostgreSQL's (`src/backend/utils/adt/float.c`): an angle is reduced to the first quadrant, and a result is
//! scaled by the value that the library has at 30, 45 or 60 degrees.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::error::Result;

use crate::error::Error;
use crate::functions::Registry;
use crate::functions::scalar::Scalar;

/// Registers the functions.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    let double = |_: &[DataType]| Ok(DataType::Float64);
    let one = || vec![DataType::Float64];
    registry.add(Scalar::exact("sind", one(), double, |columns| each(columns, finite(sind))));
    registry.add(Scalar::exact("cosd", one(), double, |columns| each(columns, finite(cosd))));
    registry.add(Scalar::exact("tand", one(), double, |columns| each(columns, finite(tand))));
    registry.add(Scalar::exact("cotd", one(), double, |columns| each(columns, finite(cotd))));
    registry.add(Scalar::exact("asind", one(), double, |columns| each(columns, inverse("asind", asind))));
    registry.add(Scalar::exact("acosd", one(), double, |columns| each(columns, inverse("acosd", acosd))));
    registry.add(Scalar::exact("atand", one(), double, |columns| {
        each(columns, |x| Ok(x.atan() / ATAN_1 * 45.0))
    }));
    registry.add(Scalar::exact("gamma", one(), double, |columns| each(columns, gamma)));
    registry.add(Scalar::exact("lgamma", one(), double, |columns| each(columns, lgamma)));
    registry.add(Scalar::exact("atan2d", vec![DataType::Float64; 2], double, atan2d));
}

const ATAN_1: f64 = std::f64::consts::FRAC_PI_4;

fn each(columns: &[ArrayRef], value: impl Fn(f64) -> std::result::Result<f64, Error>) -> Result<ArrayRef> {
    let values = columns[0].as_primitive::<Float64Type>().iter().map(|x| x.map(&value).transpose());
    Ok(Arc::new(values.collect::<std::result::Result<Float64Array, Error>>()?))
}

/// The gamma function, as in PostgreSQL 18: an error where the result is too large or too small, and at its poles.
fn gamma(x: f64) -> std::result::Result<f64, Error> {
    if x.is_nan() || x == f64::INFINITY {
        return Ok(x);
    }
    let is_pole = x == f64::NEG_INFINITY || (x <= 0.0 && x.fract() == 0.0);
    let value = libm::tgamma(x);
    match () {
        () if is_pole || value.is_infinite() => {
            Err(Error::invalid(format!("gamma({x}): value out of range: overflow")))
        }
        () if value == 0.0 => Err(Error::invalid(format!("gamma({x}): value out of range: underflow"))),
        () => Ok(value),
    }
}

/// The natural logarithm of the absolute value of the gamma function.
fn lgamma(x: f64) -> std::result::Result<f64, Error> {
    let value = libm::lgamma(x);
    let is_pole = x <= 0.0 && x.fract() == 0.0;
    match value.is_infinite() && x.is_finite() && !is_pole {
        true => Err(Error::invalid(format!("lgamma({x}): value out of range: overflow"))),
        false => Ok(value),
    }
}

/// Applies a function to an angle that is a number.
fn finite(of: fn(f64) -> f64) -> impl Fn(f64) -> std::result::Result<f64, Error> {
    move |x| match x {
        x if x.is_nan() => Ok(x),
        x if x.is_infinite() => {
            Err(Error::invalid("an angle is infinite, but a finite number of degrees was expected"))
        }
        x => Ok(of(x)),
    }
}

/// Applies a function to a number between -1 and 1.
fn inverse(name: &'static str, of: fn(f64) -> f64) -> impl Fn(f64) -> std::result::Result<f64, Error> {
    move |x| match x {
        x if x.is_nan() => Ok(x),
        x if (-1.0..=1.0).contains(&x) => Ok(of(x)),
        x => {
            Err(Error::invalid(format!("{name}({x}) doesn't exist: a number between -1 and 1 was expected")))
        }
    }
}

fn atan2d(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let pairs = columns[0].as_primitive::<Float64Type>().iter().zip(columns[1].as_primitive::<Float64Type>());
    let values = pairs.map(|(y, x)| Some(y?.atan2(x?) / ATAN_1 * 45.0));
    Ok(Arc::new(values.collect::<Float64Array>()))
}

fn sind_0_to_30(x: f64) -> f64 {
    x.to_radians().sin() / 30_f64.to_radians().sin() / 2.0
}

fn cosd_0_to_60(x: f64) -> f64 {
    1.0 - (1.0 - x.to_radians().cos()) / (1.0 - 60_f64.to_radians().cos()) / 2.0
}

/// The sine of an angle in the first quadrant.
fn sind_q1(x: f64) -> f64 {
    if x <= 30.0 { sind_0_to_30(x) } else { cosd_0_to_60(90.0 - x) }
}

/// The cosine of an angle in the first quadrant.
fn cosd_q1(x: f64) -> f64 {
    if x <= 60.0 { cosd_0_to_60(x) } else { sind_0_to_30(90.0 - x) }
}

/// Returns an angle of the first quadrant, and the signs of sine and cosine of the original one.
fn reduced(x: f64) -> (f64, f64, f64) {
    let (mut x, mut sine, mut cosine) = (x % 360.0, 1.0, 1.0);
    if x < 0.0 {
        (x, sine) = (-x, -sine);
    }
    if x > 180.0 {
        (x, sine) = (360.0 - x, -sine);
    }
    if x > 90.0 {
        (x, cosine) = (180.0 - x, -cosine);
    }
    (x, sine, cosine)
}

fn sind(x: f64) -> f64 {
    let (x, sine, _) = reduced(x);
    sine * sind_q1(x)
}

fn cosd(x: f64) -> f64 {
    let (x, _, cosine) = reduced(x);
    cosine * cosd_q1(x)
}

fn tand(x: f64) -> f64 {
    let (x, sine, cosine) = reduced(x);
    let tangent = sind_q1(x) / cosd_q1(x) / (sind_q1(45.0) / cosd_q1(45.0));
    // No -0.0 at 0 and 180 degrees.
    if tangent == 0.0 { 0.0 } else { sine * cosine * tangent }
}

fn cotd(x: f64) -> f64 {
    let (x, sine, cosine) = reduced(x);
    let cotangent = cosd_q1(x) / sind_q1(x) / (cosd_q1(45.0) / sind_q1(45.0));
    if cotangent == 0.0 { 0.0 } else { sine * cosine * cotangent }
}

fn asind_q1(x: f64) -> f64 {
    match x <= 0.5 {
        true => x.asin() / 0.5_f64.asin() * 30.0,
        false => 90.0 - x.acos() / 0.5_f64.acos() * 60.0,
    }
}

fn acosd_q1(x: f64) -> f64 {
    match x <= 0.5 {
        true => 90.0 - x.asin() / 0.5_f64.asin() * 30.0,
        false => x.acos() / 0.5_f64.acos() * 60.0,
    }
}

fn asind(x: f64) -> f64 {
    if x >= 0.0 { asind_q1(x) } else { -asind_q1(-x) }
}

fn acosd(x: f64) -> f64 {
    if x >= 0.0 { acosd_q1(x) } else { 90.0 + asind_q1(-x) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Tables;

    #[test]
    fn angles_of_thirty_forty_five_and_sixty_degrees_are_exact() {
        for turn in [-720.0, -360.0, 0.0, 360.0] {
            let found = [30.0, 150.0, 210.0, 330.0].map(|x| sind(x + turn));
            assert_eq!(found, [0.5, 0.5, -0.5, -0.5]);
            let found = [60.0, 120.0, 240.0, 300.0].map(|x| cosd(x + turn));
            assert_eq!(found, [0.5, -0.5, -0.5, 0.5]);
            assert_eq!([45.0, 135.0, 180.0].map(|x| tand(x + turn)), [1.0, -1.0, 0.0]);
            assert_eq!([45.0, 135.0, 90.0].map(|x| cotd(x + turn)), [1.0, -1.0, 0.0]);
        }
        assert_eq!([-1.0, -0.5, 0.0, 0.5, 1.0].map(asind), [-90.0, -30.0, 0.0, 30.0, 90.0]);
        assert_eq!([-1.0, -0.5, 0.0, 0.5, 1.0].map(acosd), [180.0, 120.0, 90.0, 60.0, 0.0]);
    }

    #[test]
    fn statements_call_them() {
        Tables::new().check(
            "SELECT sind(30), cosd(60), tand(45), atan2d(1, 0), atand(-1), sind(NULL)",
            &["0.5|0.5|1.0|90.0|-45.0|NULL"],
        );
        Tables::new()
            .fails("SELECT asind(2)", "asind(2) doesn't exist: a number between -1 and 1 was expected");
        Tables::new().fails(
            "SELECT cosd('inf'::DOUBLE)",
            "an angle is infinite, but a finite number of degrees was expected",
        );
    }
}
