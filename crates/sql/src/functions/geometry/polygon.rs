//! POLYGON: the area within points that lines connect.

use super::Shape;
use super::arithmetic::{check_pairs, ge, gt, is_below, is_zero, le, lt, middle, minus, over, plus, times};
use super::circle::Circle;
use super::path::{Path, any_meets, edges, least_distance};
use super::point::Point;
use super::rectangle::Rectangle;
use super::segment::Segment;
use super::text::{Cursor, put_points};
use crate::error::Result;

/// A polygon.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Polygon {
    pub(super) points: Vec<Point>,
}

impl Shape for Polygon {
    fn parse(text: &str) -> Result<Polygon> {
        let mut cursor = Cursor::new("polygon", "a form like ((0,0),(1,1),(1,0))", text);
        let (points, _) = cursor.points(cursor.count()?, false)?;
        cursor.expect_end()?;
        Ok(Polygon { points })
    }

    fn write(&self, out: &mut String) {
        out.push('(');
        put_points(out, &self.points);
        out.push(')');
    }
}

impl Polygon {
    fn edges(&self) -> impl Iterator<Item = Segment> + Clone {
        edges(&self.points, true).collect::<Vec<_>>().into_iter()
    }

    pub(super) fn count(&self) -> i32 {
        i32::try_from(self.points.len()).unwrap_or(i32::MAX)
    }

    /// Returns the smallest box with all points.
    pub(super) fn bounds(&self) -> Rectangle {
        Rectangle::around(&self.points)
    }

    pub(super) fn path(&self) -> Path {
        Path { points: self.points.clone(), is_closed: true }
    }

    pub(super) fn center(&self) -> Result<Point> {
        Ok(self.circle()?.center)
    }

    /// Returns the circle around the mean of the points, whose radius is the mean of their distances from it.
    pub(super) fn circle(&self) -> Result<Circle> {
        let count = self.points.len() as f64;
        let sum = self.points.iter().try_fold(Point { x: 0.0, y: 0.0 }, |sum, point| sum.plus(point))?;
        let center = Point { x: over(sum.x, count)?, y: over(sum.y, count)? };
        let sum = self.points.iter().try_fold(0.0, |sum, point| plus(sum, point.distance(&center)?))?;
        Ok(Circle { center, radius: over(sum, count)? })
    }

    pub(super) fn is_left_of(&self, other: &Polygon) -> bool {
        self.bounds().high.x < other.bounds().low.x
    }

    pub(super) fn is_right_of(&self, other: &Polygon) -> bool {
        self.bounds().low.x > other.bounds().high.x
    }

    pub(super) fn is_below(&self, other: &Polygon) -> bool {
        self.bounds().high.y < other.bounds().low.y
    }

    pub(super) fn is_above(&self, other: &Polygon) -> bool {
        self.bounds().low.y > other.bounds().high.y
    }

    /// True if the polygon doesn't extend to the right of another.
    pub(super) fn ends_left_of(&self, other: &Polygon) -> bool {
        self.bounds().high.x <= other.bounds().high.x
    }

    /// True if the polygon doesn't extend to the left of another.
    pub(super) fn begins_right_of(&self, other: &Polygon) -> bool {
        self.bounds().low.x >= other.bounds().low.x
    }

    /// True if the polygon doesn't extend above another.
    pub(super) fn ends_below(&self, other: &Polygon) -> bool {
        self.bounds().high.y <= other.bounds().high.y
    }

    /// True if the polygon doesn't extend below another.
    pub(super) fn begins_above(&self, other: &Polygon) -> bool {
        self.bounds().low.y >= other.bounds().low.y
    }

    /// True if the points are the same in the same or in the opposite order, from any of them on.
    pub(super) fn is_same(&self, other: &Polygon) -> Result<bool> {
        let count = self.points.len();
        let Some(first) = self.points.first().filter(|_| count == other.points.len()) else {
            return Ok(false);
        };
        let is_equal = |(one, other): (&Point, &Point)| other.is_at(one);
        let starts: Vec<usize> = other
            .points
            .iter()
            .enumerate()
            .filter(|(_, point)| point.is_at(first))
            .map(|(at, _)| at)
            .collect();
        check_pairs(starts.len(), count)?;
        Ok(starts.into_iter().any(|at| {
            let forward = other.points.iter().cycle().skip(at);
            let backward = other.points.iter().rev().cycle().skip(count - 1 - at);
            self.points.iter().zip(forward).all(is_equal) || self.points.iter().zip(backward).all(is_equal)
        }))
    }

    pub(super) fn contains_point(&self, point: &Point) -> Result<bool> {
        surrounds(&self.points, point)
    }

    pub(super) fn overlaps(&self, other: &Polygon) -> Result<bool> {
        check_pairs(self.points.len(), other.points.len())?;
        if !self.bounds().overlaps(&other.bounds()) {
            return Ok(false);
        }
        if any_meets(self.edges(), other.edges())? {
            return Ok(true);
        }
        // Without common edges, one is within the other with all its points, or with none.
        let has_first = |points: &[Point], of: &Polygon| match of.points.first() {
            Some(first) => surrounds(points, first),
            None => Ok(false),
        };
        Ok(has_first(&other.points, self)? || has_first(&self.points, other)?)
    }

    pub(super) fn contains(&self, other: &Polygon) -> Result<bool> {
        check_pairs(self.points.len(), other.points.len())?;
        if !self.bounds().contains(&other.bounds()) {
            return Ok(false);
        }
        for edge in other.edges() {
            if !self.contains_segment(edge)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// True if a segment is within the polygon. Edges cut the segment into parts, which wait for edges that come later.
    fn contains_segment(&self, segment: Segment) -> Result<bool> {
        let edges: Vec<Segment> = self.edges().collect();
        let mut parts = vec![(segment, 0)];
        while let Some((part, start)) = parts.pop() {
            if !self.contains_part(part, edges.iter().enumerate().skip(start), &mut parts)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn contains_part<'e>(
        &self,
        part: Segment,
        edges: impl Iterator<Item = (usize, &'e Segment)>,
        parts: &mut Vec<(Segment, usize)>,
    ) -> Result<bool> {
        let mut is_cut = false;
        for (at, edge) in edges {
            let next = at + 1;
            let has_end = edge.contains(&part.to)?;
            if edge.contains(&part.from)? {
                if has_end {
                    return Ok(true);
                }
                parts.extend(beyond(&part.from, &part.to, edge)?.map(|rest| (rest, next)));
            } else if has_end {
                parts.extend(beyond(&part.to, &part.from, edge)?.map(|rest| (rest, next)));
            } else if let Some(cut) = part.intersection(edge)? {
                is_cut = true;
                parts.push((Segment { from: part.to, to: cut }, next));
                parts.push((Segment { from: part.from, to: cut }, next));
            }
        }
        if is_cut {
            return Ok(true);
        }
        let center = Point { x: middle(part.from.x, part.to.x)?, y: middle(part.from.y, part.to.y)? };
        surrounds(&self.points, &center)
    }

    pub(super) fn distance(&self, other: &Polygon) -> Result<Option<f64>> {
        if self.overlaps(other)? {
            return Ok(Some(0.0));
        }
        least_distance(self.edges(), other.edges())
    }

    pub(super) fn distance_to_point(&self, point: &Point) -> Result<f64> {
        if surrounds(&self.points, point)? {
            return Ok(0.0);
        }
        let mut edges = edges(&self.points, true);
        // The edge that closes the polygon has the first point first.
        let closing = edges.next().map(|edge| Segment { from: edge.to, to: edge.from });
        let mut least: Option<f64> = None;
        for edge in closing.into_iter().chain(edges) {
            let distance = edge.distance_to_point(point)?;
            if least.is_none_or(|least| is_below(distance, least)) {
                least = Some(distance);
            }
        }
        Ok(least.unwrap_or(f64::NAN))
    }
}

/// Returns the part of a segment from `start` to `end` that an edge on the same line doesn't cover. `start` is on the edge,
/// `end` isn't.
fn beyond(start: &Point, end: &Point, edge: &Segment) -> Result<Option<Segment>> {
    let segment = Segment { from: *start, to: *end };
    let candidates = match () {
        _ if start.is_at(&edge.from) => vec![edge.to],
        _ if start.is_at(&edge.to) => vec![edge.from],
        _ => vec![edge.from, edge.to],
    };
    for end_of_edge in candidates {
        if segment.contains(&end_of_edge)? {
            return Ok(Some(Segment { from: *end, to: end_of_edge }));
        }
    }
    Ok(None)
}

/// A place of an edge relative to a point.
enum Crossing {
    /// The edge has the point.
    On,
    /// The part of a turn around the point, in quarters.
    Turn(i64),
}

/// True if a point is within points that lines connect, or on one of the lines.
pub(super) fn surrounds(points: &[Point], point: &Point) -> Result<bool> {
    let relative = points.iter().map(|corner| corner.minus(point)).collect::<Result<Vec<Point>>>()?;
    let closing = relative.last().zip(relative.first());
    let mut turns = 0_i64;
    for (from, to) in relative.iter().zip(relative.iter().skip(1)).chain(closing) {
        match crossing(to, from)? {
            Crossing::On => return Ok(true),
            Crossing::Turn(turn) => turns = turns.saturating_add(turn),
        }
    }
    Ok(turns != 0)
}

/// Returns how an edge crosses the right half of the horizontal axis: by 2 up or down, or by 1 if it begins or ends there.
fn crossing(to: &Point, from: &Point) -> Result<Crossing> {
    let on_unless = |is_off: bool| if is_off { Crossing::Turn(0) } else { Crossing::On };
    if is_zero(to.y) {
        return Ok(if is_zero(to.x) {
            Crossing::On
        } else if gt(to.x, 0.0) {
            match is_zero(from.y) {
                true => on_unless(gt(from.x, 0.0)),
                false => Crossing::Turn(if lt(from.y, 0.0) { 1 } else { -1 }),
            }
        } else if is_zero(from.y) {
            on_unless(lt(from.x, 0.0))
        } else {
            Crossing::Turn(0)
        });
    }
    let direction = if gt(to.y, 0.0) { 1 } else { -1 };
    let has_direction = |y: f64| (direction < 0 && lt(y, 0.0)) || (direction > 0 && gt(y, 0.0));
    if is_zero(from.y) {
        return Ok(Crossing::Turn(if lt(from.x, 0.0) { 0 } else { direction }));
    }
    if has_direction(from.y) {
        return Ok(Crossing::Turn(0));
    }
    if ge(to.x, 0.0) && gt(from.x, 0.0) {
        return Ok(Crossing::Turn(2 * direction));
    }
    if lt(to.x, 0.0) && le(from.x, 0.0) {
        return Ok(Crossing::Turn(0));
    }
    let side = minus(times(minus(to.x, from.x)?, to.y)?, times(minus(to.y, from.y)?, to.x)?)?;
    Ok(match is_zero(side) {
        true => Crossing::On,
        false => Crossing::Turn(if has_direction(side) { 0 } else { 2 * direction }),
    })
}
