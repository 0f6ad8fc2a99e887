//! CIRCLE: the area within a distance of a point.

use std::f64::consts::PI;

use super::Shape;
use super::arithmetic::{eq, ge, gt, is_zero, le, length, lt, minus, over, plus, times};
use super::point::Point;
use super::polygon::Polygon;
use super::text::{Cursor, put_number, put_point};
use crate::error::{Error, Result};
use crate::sqlstate;

/// The most points of a polygon that a circle becomes.
const POINTS_MAX: i64 = 1_000_000;

/// A circle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Circle {
    pub(super) center: Point,
    pub(super) radius: f64,
}

/// The forms of a circle, for errors.
const FORM: &str = "a form like <(0,0),1>, with a radius that isn't negative";

impl Shape for Circle {
    fn parse(text: &str) -> Result<Circle> {
        let mut cursor = Cursor::new("circle", FORM, text);
        let has_bracket = cursor.take('<') || cursor.take_double();
        let center = cursor.pair()?;
        cursor.take(',');
        let radius = cursor.number()?;
        if has_bracket {
            cursor.close(&[')', '>'])?;
        }
        cursor.expect_end()?;
        Ok(Circle { center, radius })
    }

    fn checked(self, text: &str) -> Result<Circle> {
        if self.radius < 0.0 { Err(Cursor::new("circle", FORM, text).wrong()) } else { Ok(self) }
    }

    fn write(&self, out: &mut String) {
        out.push('<');
        put_point(out, self.center);
        out.push(',');
        put_number(out, self.radius);
        out.push('>');
    }
}

impl Circle {
    pub(super) fn new(center: &Point, radius: f64) -> Circle {
        Circle { center: *center, radius }
    }

    pub(super) fn area(&self) -> Result<f64> {
        times(times(self.radius, self.radius)?, PI)
    }

    pub(super) fn diameter(&self) -> Result<f64> {
        times(self.radius, 2.0)
    }

    fn left(&self) -> Result<f64> {
        minus(self.center.x, self.radius)
    }

    fn right(&self) -> Result<f64> {
        plus(self.center.x, self.radius)
    }

    fn bottom(&self) -> Result<f64> {
        minus(self.center.y, self.radius)
    }

    fn top(&self) -> Result<f64> {
        plus(self.center.y, self.radius)
    }

    pub(super) fn is_same(&self, other: &Circle) -> bool {
        let same_radius = (self.radius.is_nan() && other.radius.is_nan()) || eq(self.radius, other.radius);
        same_radius && self.center.is_at(&other.center)
    }

    pub(super) fn overlaps(&self, other: &Circle) -> Result<bool> {
        Ok(le(self.center.distance(&other.center)?, plus(self.radius, other.radius)?))
    }

    pub(super) fn contains(&self, other: &Circle) -> Result<bool> {
        Ok(le(self.center.distance(&other.center)?, minus(self.radius, other.radius)?))
    }

    pub(super) fn contains_point(&self, point: &Point) -> Result<bool> {
        Ok(self.center.distance(point)? <= self.radius)
    }

    pub(super) fn is_left_of(&self, other: &Circle) -> Result<bool> {
        Ok(lt(self.right()?, other.left()?))
    }

    pub(super) fn is_right_of(&self, other: &Circle) -> Result<bool> {
        Ok(gt(self.left()?, other.right()?))
    }

    pub(super) fn is_below(&self, other: &Circle) -> Result<bool> {
        Ok(lt(self.top()?, other.bottom()?))
    }

    pub(super) fn is_above(&self, other: &Circle) -> Result<bool> {
        Ok(gt(self.bottom()?, other.top()?))
    }

    /// True if the circle doesn't extend to the right of another.
    pub(super) fn ends_left_of(&self, other: &Circle) -> Result<bool> {
        Ok(le(self.right()?, other.right()?))
    }

    /// True if the circle doesn't extend to the left of another.
    pub(super) fn begins_right_of(&self, other: &Circle) -> Result<bool> {
        Ok(ge(self.left()?, other.left()?))
    }

    /// True if the circle doesn't extend above another.
    pub(super) fn ends_below(&self, other: &Circle) -> Result<bool> {
        Ok(le(self.top()?, other.top()?))
    }

    /// True if the circle doesn't extend below another.
    pub(super) fn begins_above(&self, other: &Circle) -> Result<bool> {
        Ok(ge(self.bottom()?, other.bottom()?))
    }

    pub(super) fn plus(&self, by: &Point) -> Result<Circle> {
        Ok(Circle { center: self.center.plus(by)?, radius: self.radius })
    }

    pub(super) fn minus(&self, by: &Point) -> Result<Circle> {
        Ok(Circle { center: self.center.minus(by)?, radius: self.radius })
    }

    pub(super) fn times(&self, by: &Point) -> Result<Circle> {
        Ok(Circle { center: self.center.times(by)?, radius: times(self.radius, length(by.x, by.y)?)? })
    }

    pub(super) fn over(&self, by: &Point) -> Result<Circle> {
        Ok(Circle { center: self.center.over(by)?, radius: over(self.radius, length(by.x, by.y)?)? })
    }

    /// Returns the distance between the edges of two circles: 0 if they overlap.
    pub(super) fn distance(&self, other: &Circle) -> Result<f64> {
        let gap = minus(self.center.distance(&other.center)?, plus(self.radius, other.radius)?)?;
        Ok(not_negative(gap))
    }

    /// Returns the distance of a point from the edge: 0 if it is within the circle.
    pub(super) fn distance_to_point(&self, point: &Point) -> Result<f64> {
        Ok(not_negative(minus(point.distance(&self.center)?, self.radius)?))
    }

    pub(super) fn distance_to_polygon(&self, polygon: &Polygon) -> Result<f64> {
        Ok(not_negative(minus(polygon.distance_to_point(&self.center)?, self.radius)?))
    }

    /// Returns the polygon with this many points on the circle.
    pub(super) fn polygon(&self, count: i64) -> Result<Polygon> {
        if is_zero(self.radius) {
            return Err(Error::invalid("cannot convert circle with radius zero to polygon")
                .code(sqlstate::FEATURE_NOT_SUPPORTED));
        }
        if count < 2 {
            return Err(Error::invalid("must request at least 2 points")
                .hint(format!("{count} were requested."))
                .code(sqlstate::INVALID_PARAMETER_VALUE));
        }
        if count > POINTS_MAX {
            return Err(Error::invalid("too many points requested")
                .hint(format!("{count} were requested, {POINTS_MAX} is the maximum."))
                .code(sqlstate::PROGRAM_LIMIT_EXCEEDED));
        }
        let step = over(2.0 * PI, count as f64)?;
        let corner = |at: i64| {
            let angle = times(step, at as f64)?;
            Ok(Point {
                x: minus(self.center.x, times(self.radius, angle.cos())?)?,
                y: plus(self.center.y, times(self.radius, angle.sin())?)?,
            })
        };
        Ok(Polygon { points: (0..count).map(corner).collect::<Result<_>>()? })
    }
}

fn not_negative(distance: f64) -> f64 {
    if distance < 0.0 { 0.0 } else { distance }
}
