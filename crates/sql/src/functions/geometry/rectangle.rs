//! BOX: a rectangle with sides parallel to the axes, by its upper right and its lower left corner.

use super::Shape;
use super::arithmetic::{ge, greatest, gt, is_below, le, least, lt, middle, minus, plus, times};
use super::circle::Circle;
use super::line::Line;
use super::point::Point;
use super::polygon::Polygon;
use super::segment::{Segment, known};
use super::text::{Cursor, put_points};
use crate::error::Result;

/// A box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rectangle {
    pub(super) high: Point,
    pub(super) low: Point,
}

impl Shape for Rectangle {
    fn parse(text: &str) -> Result<Rectangle> {
        let mut cursor = Cursor::new("box", "a form like (1,1),(0,0)", text);
        let (points, _) = cursor.points(2, false)?;
        cursor.expect_end()?;
        let [high, low] = points.as_slice() else { return Err(cursor.wrong()) };
        Ok(Rectangle { high: *high, low: *low })
    }

    fn checked(mut self, _text: &str) -> Result<Rectangle> {
        if is_below(self.high.x, self.low.x) {
            std::mem::swap(&mut self.high.x, &mut self.low.x);
        }
        if is_below(self.high.y, self.low.y) {
            std::mem::swap(&mut self.high.y, &mut self.low.y);
        }
        Ok(self)
    }

    fn write(&self, out: &mut String) {
        put_points(out, &[self.high, self.low]);
    }
}

impl Rectangle {
    /// Returns the box with these corners, in any order.
    pub(super) fn of_points(one: &Point, other: &Point) -> Rectangle {
        let ordered = |one: f64, other: f64| if is_below(other, one) { (one, other) } else { (other, one) };
        let (high_x, low_x) = ordered(one.x, other.x);
        let (high_y, low_y) = ordered(one.y, other.y);
        Rectangle { high: Point { x: high_x, y: high_y }, low: Point { x: low_x, y: low_y } }
    }

    pub(super) fn of_point(point: &Point) -> Rectangle {
        Rectangle { high: *point, low: *point }
    }

    /// Returns the smallest box with all points.
    pub(super) fn around(points: &[Point]) -> Rectangle {
        let mut points = points.iter();
        let first = points.next().copied().unwrap_or(Point { x: 0.0, y: 0.0 });
        points.fold(Rectangle::of_point(&first), |found, point| Rectangle {
            high: Point { x: greatest(point.x, found.high.x), y: greatest(point.y, found.high.y) },
            low: Point { x: least(point.x, found.low.x), y: least(point.y, found.low.y) },
        })
    }

    /// Returns the smallest box with both boxes.
    pub(super) fn bound(&self, other: &Rectangle) -> Rectangle {
        Rectangle {
            high: Point { x: greatest(self.high.x, other.high.x), y: greatest(self.high.y, other.high.y) },
            low: Point { x: least(self.low.x, other.low.x), y: least(self.low.y, other.low.y) },
        }
    }

    /// Returns the part that two boxes share.
    pub(super) fn intersection(&self, other: &Rectangle) -> Option<Rectangle> {
        self.overlaps(other).then(|| Rectangle {
            high: Point { x: least(self.high.x, other.high.x), y: least(self.high.y, other.high.y) },
            low: Point { x: greatest(self.low.x, other.low.x), y: greatest(self.low.y, other.low.y) },
        })
    }

    pub(super) fn width(&self) -> Result<f64> {
        minus(self.high.x, self.low.x)
    }

    pub(super) fn height(&self) -> Result<f64> {
        minus(self.high.y, self.low.y)
    }

    pub(super) fn area(&self) -> Result<f64> {
        times(self.width()?, self.height()?)
    }

    pub(super) fn center(&self) -> Result<Point> {
        Ok(Point { x: middle(self.high.x, self.low.x)?, y: middle(self.high.y, self.low.y)? })
    }

    pub(super) fn diagonal(&self) -> Segment {
        Segment { from: self.high, to: self.low }
    }

    pub(super) fn polygon(&self) -> Polygon {
        let Rectangle { high, low } = *self;
        Polygon { points: vec![low, Point { x: low.x, y: high.y }, high, Point { x: high.x, y: low.y }] }
    }

    /// Returns the circle around the box.
    pub(super) fn circle(&self) -> Result<Circle> {
        let center = self.center()?;
        Ok(Circle { center, radius: center.distance(&self.high)? })
    }

    fn edges(&self) -> [Segment; 4] {
        let Rectangle { high, low } = *self;
        let (upper_left, lower_right) = (Point { x: low.x, y: high.y }, Point { x: high.x, y: low.y });
        [(low, upper_left), (high, upper_left), (low, lower_right), (high, lower_right)]
            .map(|(from, to)| Segment { from, to })
    }

    pub(super) fn plus(&self, by: &Point) -> Result<Rectangle> {
        Ok(Rectangle { high: self.high.plus(by)?, low: self.low.plus(by)? })
    }

    pub(super) fn minus(&self, by: &Point) -> Result<Rectangle> {
        Ok(Rectangle { high: self.high.minus(by)?, low: self.low.minus(by)? })
    }

    pub(super) fn times(&self, by: &Point) -> Result<Rectangle> {
        Ok(Rectangle::of_points(&self.high.times(by)?, &self.low.times(by)?))
    }

    pub(super) fn over(&self, by: &Point) -> Result<Rectangle> {
        Ok(Rectangle::of_points(&self.high.over(by)?, &self.low.over(by)?))
    }

    pub(super) fn is_same(&self, other: &Rectangle) -> bool {
        self.high.is_at(&other.high) && self.low.is_at(&other.low)
    }

    pub(super) fn overlaps(&self, other: &Rectangle) -> bool {
        le(self.low.x, other.high.x)
            && le(other.low.x, self.high.x)
            && le(self.low.y, other.high.y)
            && le(other.low.y, self.high.y)
    }

    pub(super) fn contains(&self, other: &Rectangle) -> bool {
        ge(self.high.x, other.high.x)
            && le(self.low.x, other.low.x)
            && ge(self.high.y, other.high.y)
            && le(self.low.y, other.low.y)
    }

    pub(super) fn contains_point(&self, point: &Point) -> bool {
        self.high.x >= point.x && self.low.x <= point.x && self.high.y >= point.y && self.low.y <= point.y
    }

    pub(super) fn contains_segment(&self, segment: &Segment) -> bool {
        self.contains_point(&segment.from) && self.contains_point(&segment.to)
    }

    pub(super) fn is_left_of(&self, other: &Rectangle) -> bool {
        lt(self.high.x, other.low.x)
    }

    pub(super) fn is_right_of(&self, other: &Rectangle) -> bool {
        gt(self.low.x, other.high.x)
    }

    pub(super) fn is_below(&self, other: &Rectangle) -> bool {
        lt(self.high.y, other.low.y)
    }

    pub(super) fn is_above(&self, other: &Rectangle) -> bool {
        gt(self.low.y, other.high.y)
    }

    /// True if the box doesn't extend to the right of another.
    pub(super) fn ends_left_of(&self, other: &Rectangle) -> bool {
        le(self.high.x, other.high.x)
    }

    /// True if the box doesn't extend to the left of another.
    pub(super) fn begins_right_of(&self, other: &Rectangle) -> bool {
        ge(self.low.x, other.low.x)
    }

    /// True if the box doesn't extend above another.
    pub(super) fn ends_below(&self, other: &Rectangle) -> bool {
        le(self.high.y, other.high.y)
    }

    /// True if the box doesn't extend below another.
    pub(super) fn begins_above(&self, other: &Rectangle) -> bool {
        ge(self.low.y, other.low.y)
    }

    /// True if the box is below another; both may touch.
    pub(super) fn is_below_or_touches(&self, other: &Rectangle) -> bool {
        le(self.high.y, other.low.y)
    }

    /// True if the box is above another; both may touch.
    pub(super) fn is_above_or_touches(&self, other: &Rectangle) -> bool {
        ge(self.low.y, other.high.y)
    }

    /// Returns the distance of the centers.
    pub(super) fn distance(&self, other: &Rectangle) -> Result<f64> {
        self.center()?.distance(&other.center()?)
    }

    /// Returns the point of the box that is closest to another point, with their distance.
    fn closest_to(&self, point: &Point) -> Result<(Point, f64)> {
        if self.contains_point(point) {
            return Ok((*point, 0.0));
        }
        closest(self.edges().iter().map(|edge| edge.closest_to(point)))
    }

    pub(super) fn distance_to_point(&self, point: &Point) -> Result<f64> {
        Ok(self.closest_to(point)?.1)
    }

    pub(super) fn closest_point(&self, point: &Point) -> Result<Option<Point>> {
        Ok(known(self.closest_to(point)?))
    }

    /// True if a segment has a point in the box.
    pub(super) fn meets_segment(&self, segment: &Segment) -> Result<bool> {
        if !Rectangle::around(&[segment.from, segment.to]).overlaps(self) {
            return Ok(false);
        }
        if self.contains_point(&segment.from) || self.contains_point(&segment.to) {
            return Ok(true);
        }
        for edge in self.edges() {
            if edge.meets(segment)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn meets_line(&self, line: &Line) -> Result<bool> {
        for edge in self.edges() {
            if edge.meets_line(line)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn distance_to_segment(&self, segment: &Segment) -> Result<f64> {
        if self.meets_segment(segment)? {
            return Ok(0.0);
        }
        Ok(closest(self.edges().iter().map(|edge| edge.closest_to_segment(segment)))?.1)
    }

    /// Returns the point of the box that is closest to a segment. If they meet: the point of the segment that is closest
    /// to the center of the box.
    pub(super) fn closest_point_to_segment(&self, segment: &Segment) -> Result<Option<Point>> {
        // Fails before it is known whether they meet, as in PostgreSQL.
        let may_meet = self.overlaps(&Rectangle::around(&[segment.from, segment.to]));
        let nearest = if may_meet { Some(segment.closest_to(&self.center()?)?.0) } else { None };
        if self.meets_segment(segment)? {
            return Ok(nearest);
        }
        Ok(known(closest(self.edges().iter().map(|edge| edge.closest_to_segment(segment)))?))
    }
}

impl Circle {
    /// Returns the box whose corners are on the circle.
    pub(super) fn rectangle(&self) -> Result<Rectangle> {
        let half = super::arithmetic::over(self.radius, std::f64::consts::SQRT_2)?;
        let Point { x, y } = self.center;
        Ok(Rectangle {
            high: Point { x: plus(x, half)?, y: plus(y, half)? },
            low: Point { x: minus(x, half)?, y: minus(y, half)? },
        })
    }
}

/// Returns the first point with the least distance.
fn closest(all: impl Iterator<Item = Result<(Point, f64)>>) -> Result<(Point, f64)> {
    let mut closest: Option<(Point, f64)> = None;
    for found in all {
        let found = found?;
        if closest.is_none_or(|closest| is_below(found.1, closest.1)) {
            closest = Some(found);
        }
    }
    Ok(closest.unwrap_or((Point { x: f64::NAN, y: f64::NAN }, f64::NAN)))
}
