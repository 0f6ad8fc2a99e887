//! LSEG: a part of a line between two points.

use super::Shape;
use super::arithmetic::{eq, is_below, middle};
use super::line::Line;
use super::point::Point;
use super::text::{Cursor, put_points};
use crate::error::Result;

/// A segment of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Segment {
    pub(super) from: Point,
    pub(super) to: Point,
}

impl Shape for Segment {
    fn parse(text: &str) -> Result<Segment> {
        let mut cursor = Cursor::new("lseg", "a form like [(0,0),(1,1)]", text);
        let (points, _) = cursor.points(2, true)?;
        cursor.expect_end()?;
        let [from, to] = points.as_slice() else { return Err(cursor.wrong()) };
        Ok(Segment { from: *from, to: *to })
    }

    fn write(&self, out: &mut String) {
        out.push('[');
        put_points(out, &[self.from, self.to]);
        out.push(']');
    }
}

impl Segment {
    pub(super) fn of_points(from: &Point, to: &Point) -> Segment {
        Segment { from: *from, to: *to }
    }

    pub(super) fn length(&self) -> Result<f64> {
        self.from.distance(&self.to)
    }

    pub(super) fn center(&self) -> Result<Point> {
        Ok(Point { x: middle(self.from.x, self.to.x)?, y: middle(self.from.y, self.to.y)? })
    }

    pub(super) fn is_horizontal(&self) -> bool {
        self.from.is_horizontal_with(&self.to)
    }

    pub(super) fn is_vertical(&self) -> bool {
        self.from.is_vertical_with(&self.to)
    }

    fn slope(&self) -> Result<f64> {
        self.from.slope(&self.to)
    }

    fn line(&self) -> Result<Line> {
        Line::through(&self.from, self.slope()?)
    }

    pub(super) fn is_parallel(&self, other: &Segment) -> Result<bool> {
        Ok(eq(self.slope()?, other.slope()?))
    }

    pub(super) fn is_perpendicular(&self, other: &Segment) -> Result<bool> {
        Ok(eq(self.slope()?, other.from.perpendicular_slope(&other.to)?))
    }

    pub(super) fn is_same(&self, other: &Segment) -> bool {
        self.from.is_at(&other.from) && self.to.is_at(&other.to)
    }

    pub(super) fn is_different(&self, other: &Segment) -> bool {
        !self.is_same(other)
    }

    /// True if a point is between the ends: if the way by the point isn't longer.
    pub(super) fn contains(&self, point: &Point) -> Result<bool> {
        Ok(eq(point.distance(&self.from)? + point.distance(&self.to)?, self.length()?))
    }

    pub(super) fn is_on_line(&self, line: &Line) -> Result<bool> {
        Ok(line.contains(&self.from)? && line.contains(&self.to)?)
    }

    /// Returns the point where the segment meets a line.
    pub(super) fn intersection_with_line(&self, line: &Line) -> Result<Option<Point>> {
        let Some(found) = self.line()?.intersection(line)? else { return Ok(None) };
        if !self.contains(&found)? {
            return Ok(None);
        }
        // An end is exact, a computed point isn't.
        Ok(Some(match found {
            found if self.from.is_at(&found) => self.from,
            found if self.to.is_at(&found) => self.to,
            found => found,
        }))
    }

    pub(super) fn meets_line(&self, line: &Line) -> Result<bool> {
        Ok(self.intersection_with_line(line)?.is_some())
    }

    /// Returns the point where two segments meet.
    pub(super) fn intersection(&self, other: &Segment) -> Result<Option<Point>> {
        let Some(found) = self.intersection_with_line(&other.line()?)? else { return Ok(None) };
        Ok(if other.contains(&found)? { Some(found) } else { None })
    }

    pub(super) fn meets(&self, other: &Segment) -> Result<bool> {
        Ok(self.intersection(other)?.is_some())
    }

    /// Returns the point of the segment that is closest to a line, with their distance.
    fn closest_to_line(&self, line: &Line) -> Result<(Point, f64)> {
        if let Some(found) = self.intersection_with_line(line)? {
            return Ok((found, 0.0));
        }
        let (_, from) = line.closest_to(&self.from)?;
        let (_, to) = line.closest_to(&self.to)?;
        Ok(if from < to { (self.from, from) } else { (self.to, to) })
    }

    pub(super) fn distance_to_line(&self, line: &Line) -> Result<f64> {
        Ok(self.closest_to_line(line)?.1)
    }

    /// Returns the point of the segment that is closest to another point, with their distance.
    pub(super) fn closest_to(&self, point: &Point) -> Result<(Point, f64)> {
        let perpendicular = Line::through(point, self.from.perpendicular_slope(&self.to)?)?;
        let (closest, _) = self.closest_to_line(&perpendicular)?;
        Ok((closest, closest.distance(point)?))
    }

    pub(super) fn distance_to_point(&self, point: &Point) -> Result<f64> {
        Ok(self.closest_to(point)?.1)
    }

    /// Returns the point of the segment that is closest to another segment, with their distance.
    pub(super) fn closest_to_segment(&self, other: &Segment) -> Result<(Point, f64)> {
        if let Some(found) = self.intersection(other)? {
            return Ok((found, 0.0));
        }
        let mut closest = self.closest_to(&other.from)?;
        let mut offer = |point: Point, distance: f64| {
            if is_below(distance, closest.1) {
                closest = (point, distance);
            }
        };
        let (point, distance) = self.closest_to(&other.to)?;
        offer(point, distance);
        offer(self.from, other.distance_to_point(&self.from)?);
        offer(self.to, other.distance_to_point(&self.to)?);
        Ok(closest)
    }

    pub(super) fn distance(&self, other: &Segment) -> Result<f64> {
        Ok(self.closest_to_segment(other)?.1)
    }

    /// Returns the point of a segment that is closest to this one; none if they are parallel.
    pub(super) fn closest_on(&self, other: &Segment) -> Result<Option<Point>> {
        if self.slope()? == other.slope()? {
            return Ok(None);
        }
        Ok(known(other.closest_to_segment(self)?))
    }

    /// Returns the point of the segment that is closest to a line; none if they are parallel.
    pub(super) fn closest_on_from_line(&self, line: &Line) -> Result<Option<Point>> {
        if self.slope()? == line.slope()? {
            return Ok(None);
        }
        Ok(known(self.closest_to_line(line)?))
    }
}

/// Returns a point whose distance is a number.
pub(super) fn known((point, distance): (Point, f64)) -> Option<Point> {
    (!distance.is_nan()).then_some(point)
}
