//! PATH: points that lines connect; a closed path also connects the last one with the first.

use super::Shape;
use super::arithmetic::{check_pairs, eq, is_below, minus, over, plus, times};
use super::point::Point;
use super::polygon::{Polygon, surrounds};
use super::rectangle::Rectangle;
use super::segment::Segment;
use super::text::{Cursor, put_points};
use crate::error::{Error, Result};
use crate::sqlstate;

/// A path.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Path {
    pub(super) points: Vec<Point>,
    pub(super) is_closed: bool,
}

impl Shape for Path {
    fn parse(text: &str) -> Result<Path> {
        let expected = "a form like [(0,0),(1,1)], or ((0,0),(1,1)) for a closed path";
        let mut cursor = Cursor::new("path", expected, text);
        let count = cursor.count()?;
        let has_bracket = cursor.take_only();
        let (points, is_open) = cursor.points(count, true)?;
        if has_bracket {
            cursor.close(&[')'])?;
        }
        cursor.expect_end()?;
        Ok(Path { points, is_closed: !is_open })
    }

    fn write(&self, out: &mut String) {
        out.push(if self.is_closed { '(' } else { '[' });
        put_points(out, &self.points);
        out.push(if self.is_closed { ')' } else { ']' });
    }
}

/// Returns the edges between points, in order. The first edge of closed ones is that from the last to the first point.
pub(super) fn edges(points: &[Point], is_closed: bool) -> impl Iterator<Item = Segment> {
    let closing = points.last().zip(points.first()).filter(|_| is_closed);
    closing
        .into_iter()
        .chain(points.iter().zip(points.iter().skip(1)))
        .map(|(from, to)| Segment::of_points(from, to))
}

/// Returns the least distance of edges; none if one side has no edges.
pub(super) fn least_distance(
    one: impl Iterator<Item = Segment>,
    other: impl Iterator<Item = Segment> + Clone,
) -> Result<Option<f64>> {
    let mut least: Option<f64> = None;
    for edge in one {
        for other in other.clone() {
            let distance = edge.distance(&other)?;
            if least.is_none_or(|least| is_below(distance, least)) {
                least = Some(distance);
            }
        }
    }
    Ok(least)
}

/// True if two edges meet.
pub(super) fn any_meets(
    one: impl Iterator<Item = Segment>,
    other: impl Iterator<Item = Segment> + Clone,
) -> Result<bool> {
    for edge in one {
        for other in other.clone() {
            if edge.meets(&other)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

impl Path {
    fn edges(&self) -> impl Iterator<Item = Segment> + Clone {
        let (points, is_closed) = (&self.points, self.is_closed);
        edges(points, is_closed).collect::<Vec<_>>().into_iter()
    }

    pub(super) fn count(&self) -> i32 {
        i32::try_from(self.points.len()).unwrap_or(i32::MAX)
    }

    pub(super) fn is_open(&self) -> bool {
        !self.is_closed
    }

    pub(super) fn closed(&self) -> Path {
        Path { is_closed: true, ..self.clone() }
    }

    pub(super) fn opened(&self) -> Path {
        Path { is_closed: false, ..self.clone() }
    }

    pub(super) fn length(&self) -> Result<f64> {
        self.edges().try_fold(0.0, |sum, edge| plus(sum, edge.length()?))
    }

    /// Returns the area within a closed path; none of an open one.
    pub(super) fn area(&self) -> Result<Option<f64>> {
        if !self.is_closed {
            return Ok(None);
        }
        let next = self.points.iter().cycle().skip(1);
        let doubled = self.points.iter().zip(next).try_fold(0.0, |area, (from, to)| {
            minus(plus(area, times(from.x, to.y)?)?, times(from.y, to.x)?)
        })?;
        Ok(Some(over(doubled.abs(), 2.0)?))
    }

    /// Returns the polygon of a closed path.
    pub(super) fn polygon(&self) -> Result<Polygon> {
        if self.is_closed {
            return Ok(Polygon { points: self.points.clone() });
        }
        Err(Error::invalid("open path cannot be converted to polygon")
            .hint("Close it with pclose.")
            .code(sqlstate::INVALID_PARAMETER_VALUE))
    }

    pub(super) fn has_same_count(&self, other: &Path) -> bool {
        self.points.len() == other.points.len()
    }

    pub(super) fn has_fewer(&self, other: &Path) -> bool {
        self.points.len() < other.points.len()
    }

    pub(super) fn has_fewer_or_same(&self, other: &Path) -> bool {
        self.points.len() <= other.points.len()
    }

    pub(super) fn has_more(&self, other: &Path) -> bool {
        self.points.len() > other.points.len()
    }

    pub(super) fn has_more_or_same(&self, other: &Path) -> bool {
        self.points.len() >= other.points.len()
    }

    /// Returns the points of two open paths one after the other; none if one is closed.
    pub(super) fn concatenated(&self, other: &Path) -> Option<Path> {
        if self.is_closed || other.is_closed {
            return None;
        }
        Some(Path { points: self.points.iter().chain(&other.points).copied().collect(), is_closed: false })
    }

    fn each(&self, of: impl Fn(&Point) -> Result<Point>) -> Result<Path> {
        let points = self.points.iter().map(of).collect::<Result<_>>()?;
        Ok(Path { points, is_closed: self.is_closed })
    }

    pub(super) fn plus(&self, by: &Point) -> Result<Path> {
        self.each(|point| point.plus(by))
    }

    pub(super) fn minus(&self, by: &Point) -> Result<Path> {
        self.each(|point| point.minus(by))
    }

    pub(super) fn times(&self, by: &Point) -> Result<Path> {
        self.each(|point| point.times(by))
    }

    pub(super) fn over(&self, by: &Point) -> Result<Path> {
        self.each(|point| point.over(by))
    }

    pub(super) fn meets(&self, other: &Path) -> Result<bool> {
        check_pairs(self.points.len(), other.points.len())?;
        if !Rectangle::around(&self.points).overlaps(&Rectangle::around(&other.points)) {
            return Ok(false);
        }
        any_meets(self.edges(), other.edges())
    }

    /// Returns the distance of two paths; none if one is an open path of one point.
    pub(super) fn distance(&self, other: &Path) -> Result<Option<f64>> {
        check_pairs(self.points.len(), other.points.len())?;
        least_distance(self.edges(), other.edges())
    }

    pub(super) fn distance_to_point(&self, point: &Point) -> Result<f64> {
        let mut least: Option<f64> = None;
        for edge in self.edges() {
            let distance = edge.distance_to_point(point)?;
            if least.is_none_or(|least| is_below(distance, least)) {
                least = Some(distance);
            }
        }
        Ok(least.unwrap_or(0.0))
    }

    /// True if a point is on an open path, or within a closed one.
    pub(super) fn contains(&self, point: &Point) -> Result<bool> {
        if self.is_closed {
            return surrounds(&self.points, point);
        }
        for edge in self.edges() {
            let way = plus(point.distance(&edge.from)?, point.distance(&edge.to)?)?;
            if eq(way, edge.length()?) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
