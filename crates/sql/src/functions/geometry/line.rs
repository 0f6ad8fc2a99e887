//! LINE: the endless line `ax + by + c = 0`.

use super::Shape;
use super::arithmetic::{eq, is_same, is_zero, length, minus, over, plus, times, without_sign};
use super::point::Point;
use super::text::{Cursor, put_number};
use crate::error::{Error, Result};
use crate::sqlstate;

/// A line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line {
    a: f64,
    b: f64,
    c: f64,
}

/// Returns the error of a line through one point, with its SQLSTATE.
fn one_point(code: &'static str) -> Error {
    Error::invalid("invalid line specification: must be two distinct points").code(code)
}

impl Shape for Line {
    fn parse(text: &str) -> Result<Line> {
        let expected = "a form like {1,-1,0} or [(0,0),(1,1)]";
        let mut cursor = Cursor::new("line", expected, text);
        if cursor.take('{') {
            let a = cursor.number()?;
            cursor.expect(',')?;
            let b = cursor.number()?;
            cursor.expect(',')?;
            let c = cursor.number()?;
            cursor.close(&['}'])?;
            cursor.expect_end()?;
            return Ok(Line { a, b, c });
        }
        let (points, _) = cursor.points(2, true)?;
        cursor.expect_end()?;
        let [from, to] = points.as_slice() else { return Err(cursor.wrong()) };
        if from.is_at(to) {
            return Err(one_point(sqlstate::INVALID_TEXT_REPRESENTATION));
        }
        Line::through(from, from.slope(to)?)
    }

    fn checked(self, _text: &str) -> Result<Line> {
        if is_zero(self.a) && is_zero(self.b) {
            let message = "invalid line specification: A and B cannot both be zero";
            return Err(Error::invalid(message).code(sqlstate::INVALID_TEXT_REPRESENTATION));
        }
        Ok(self)
    }

    fn write(&self, out: &mut String) {
        for (mark, number) in [('{', self.a), (',', self.b), (',', self.c)] {
            out.push(mark);
            put_number(out, number);
        }
        out.push('}');
    }
}

impl Line {
    /// Returns the line through a point with a slope.
    pub(super) fn through(point: &Point, slope: f64) -> Result<Line> {
        if slope.is_infinite() {
            return Ok(Line { a: -1.0, b: 0.0, c: point.x });
        }
        if slope == 0.0 {
            return Ok(Line { a: 0.0, b: -1.0, c: point.y });
        }
        let c = minus(point.y, times(slope, point.x)?)?;
        Ok(Line { a: slope, b: -1.0, c: without_sign(c) })
    }

    /// Returns the line through two points.
    pub(super) fn of_points(from: &Point, to: &Point) -> Result<Line> {
        if from.is_at(to) {
            return Err(one_point(sqlstate::INVALID_PARAMETER_VALUE));
        }
        Line::through(from, from.slope(to)?)
    }

    /// Returns `a`, `b` and `c`.
    pub(super) fn factors(&self) -> [f64; 3] {
        [self.a, self.b, self.c]
    }

    pub(super) fn is_horizontal(&self) -> bool {
        is_zero(self.a)
    }

    pub(super) fn is_vertical(&self) -> bool {
        is_zero(self.b)
    }

    /// True if one equation is a multiple of the other. With NaN the numbers must be the same.
    pub(super) fn is_same(&self, other: &Line) -> Result<bool> {
        let mut pairs = self.factors().into_iter().zip(other.factors());
        if pairs.clone().any(|(one, other)| one.is_nan() || other.is_nan()) {
            return Ok(pairs.all(|(one, other)| is_same(one, other)));
        }
        let divisor = pairs.clone().find(|(_, divisor)| !is_zero(*divisor));
        let ratio = divisor.map_or(Ok(1.0), |(factor, divisor)| over(factor, divisor))?;
        for (one, other) in pairs {
            if !eq(one, times(ratio, other)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn is_perpendicular(&self, other: &Line) -> Result<bool> {
        if is_zero(self.a) {
            return Ok(is_zero(other.b));
        }
        if is_zero(other.a) {
            return Ok(is_zero(self.b));
        }
        if is_zero(self.b) {
            return Ok(is_zero(other.a));
        }
        if is_zero(other.b) {
            return Ok(is_zero(self.a));
        }
        Ok(eq(over(times(self.a, other.a)?, times(self.b, other.b)?)?, -1.0))
    }

    pub(super) fn meets(&self, other: &Line) -> Result<bool> {
        Ok(self.intersection(other)?.is_some())
    }

    pub(super) fn is_parallel(&self, other: &Line) -> Result<bool> {
        Ok(self.intersection(other)?.is_none())
    }

    /// Returns the slope: infinity if the line is vertical.
    pub(super) fn slope(&self) -> Result<f64> {
        if is_zero(self.a) {
            return Ok(0.0);
        }
        if is_zero(self.b) {
            return Ok(f64::INFINITY);
        }
        over(self.a, -self.b)
    }

    /// Returns the slope of a perpendicular line.
    fn perpendicular_slope(&self) -> Result<f64> {
        if is_zero(self.a) {
            return Ok(f64::INFINITY);
        }
        if is_zero(self.b) {
            return Ok(0.0);
        }
        over(self.b, self.a)
    }

    /// Returns the point where two lines meet; none if they are parallel or the same.
    pub(super) fn intersection(&self, other: &Line) -> Result<Option<Point>> {
        // The equation of `first` gives y, so it may not be that of a vertical line.
        let (first, second) = if !is_zero(self.b) {
            (self, other)
        } else if !is_zero(other.b) {
            (other, self)
        } else {
            return Ok(None);
        };
        if eq(second.a, times(first.a, over(second.b, first.b)?)?) {
            return Ok(None);
        }
        let x = over(
            minus(times(first.b, second.c)?, times(second.b, first.c)?)?,
            minus(times(first.a, second.b)?, times(second.a, first.b)?)?,
        )?;
        let y = over(-plus(times(first.a, x)?, first.c)?, first.b)?;
        Ok(Some(Point { x: without_sign(x), y: without_sign(y) }))
    }

    pub(super) fn contains(&self, point: &Point) -> Result<bool> {
        Ok(is_zero(plus(plus(times(self.a, point.x)?, times(self.b, point.y)?)?, self.c)?))
    }

    /// Returns the distance of two lines: 0 if they meet.
    pub(super) fn distance(&self, other: &Line) -> Result<f64> {
        if self.meets(other)? {
            return Ok(0.0);
        }
        let counts = |factor: f64| !is_zero(factor) && !factor.is_nan();
        let ratio = if counts(self.a) && counts(other.a) {
            over(self.a, other.a)?
        } else if counts(self.b) && counts(other.b) {
            over(self.b, other.b)?
        } else {
            1.0
        };
        over(minus(self.c, times(ratio, other.c)?)?.abs(), length(self.a, self.b)?)
    }

    /// Returns the point of the line that is closest to another point, with their distance: NaN if there is none.
    pub(super) fn closest_to(&self, point: &Point) -> Result<(Point, f64)> {
        let perpendicular = Line::through(point, self.perpendicular_slope()?)?;
        match perpendicular.intersection(self)? {
            Some(closest) => Ok((closest, closest.distance(point)?)),
            None => Ok((*point, f64::NAN)),
        }
    }
}
