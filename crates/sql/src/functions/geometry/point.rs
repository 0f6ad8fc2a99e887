//! POINT: a place on the plane.

use super::Shape;
use super::arithmetic::{eq, gt, is_same, length, lt, minus, over, plus, times};
use super::text::{Cursor, put_point};
use crate::error::Result;

/// A point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
}

impl Shape for Point {
    fn parse(text: &str) -> Result<Point> {
        let mut cursor = Cursor::new("point", "a form like (1,2)", text);
        let point = cursor.pair()?;
        cursor.expect_end()?;
        Ok(point)
    }

    fn write(&self, out: &mut String) {
        put_point(out, *self);
    }
}

impl Point {
    /// True if the points are at the same place, or close. NaN is at the same place as NaN.
    pub(super) fn is_at(&self, other: &Point) -> bool {
        (eq(self.x, other.x) && eq(self.y, other.y)) || (is_same(self.x, other.x) && is_same(self.y, other.y))
    }

    pub(super) fn distance(&self, other: &Point) -> Result<f64> {
        length(minus(self.x, other.x)?, minus(self.y, other.y)?)
    }

    /// Returns the slope of the line through two points: infinity if it is vertical.
    pub(super) fn slope(&self, other: &Point) -> Result<f64> {
        if self.is_vertical_with(other) {
            return Ok(f64::INFINITY);
        }
        if self.is_horizontal_with(other) {
            return Ok(0.0);
        }
        over(minus(self.y, other.y)?, minus(self.x, other.x)?)
    }

    /// Returns the slope of a line that is perpendicular to the line through two points.
    pub(super) fn perpendicular_slope(&self, other: &Point) -> Result<f64> {
        if self.is_vertical_with(other) {
            return Ok(0.0);
        }
        if self.is_horizontal_with(other) {
            return Ok(f64::INFINITY);
        }
        over(minus(self.x, other.x)?, minus(other.y, self.y)?)
    }

    pub(super) fn is_vertical_with(&self, other: &Point) -> bool {
        eq(self.x, other.x)
    }

    pub(super) fn is_horizontal_with(&self, other: &Point) -> bool {
        eq(self.y, other.y)
    }

    pub(super) fn is_left_of(&self, other: &Point) -> bool {
        lt(self.x, other.x)
    }

    pub(super) fn is_right_of(&self, other: &Point) -> bool {
        gt(self.x, other.x)
    }

    pub(super) fn is_below(&self, other: &Point) -> bool {
        lt(self.y, other.y)
    }

    pub(super) fn is_above(&self, other: &Point) -> bool {
        gt(self.y, other.y)
    }

    pub(super) fn plus(&self, other: &Point) -> Result<Point> {
        Ok(Point { x: plus(self.x, other.x)?, y: plus(self.y, other.y)? })
    }

    pub(super) fn minus(&self, other: &Point) -> Result<Point> {
        Ok(Point { x: minus(self.x, other.x)?, y: minus(self.y, other.y)? })
    }

    /// Multiplies the points as complex numbers, which scales and rotates one by the other.
    pub(super) fn times(&self, other: &Point) -> Result<Point> {
        Ok(Point {
            x: minus(times(self.x, other.x)?, times(self.y, other.y)?)?,
            y: plus(times(self.x, other.y)?, times(self.y, other.x)?)?,
        })
    }

    /// Divides the points as complex numbers.
    pub(super) fn over(&self, other: &Point) -> Result<Point> {
        let square = plus(times(other.x, other.x)?, times(other.y, other.y)?)?;
        Ok(Point {
            x: over(plus(times(self.x, other.x)?, times(self.y, other.y)?)?, square)?,
            y: over(minus(times(self.y, other.x)?, times(self.x, other.y)?)?, square)?,
        })
    }
}
