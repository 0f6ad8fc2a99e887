//! Functions from shapes to numbers: lengths, areas, distances and counts.

use arrow::datatypes::DataType;

use super::circle::Circle;
use super::line::Line;
use super::path::Path;
use super::point::Point;
use super::polygon::Polygon;
use super::rectangle::Rectangle;
use super::segment::Segment;
use super::shapes::part;
use super::{BOX, CIRCLE, Entry, LINE, LSEG, PATH, POINT, POLYGON, argument, one, sure, swapped, two};
use crate::error::Result;
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};

type Rows = fn(&Arguments, usize) -> Result<Option<f64>>;

/// A row of a table: the name, the names and operators that call it, the parameters and the kernel.
type Row = (&'static str, &'static [&'static str], &'static [Param], Rows);

/// Passes on the entries.
pub(super) fn list(add: &mut dyn FnMut(Entry)) {
    for (name, called, params, kernel) in [&MEASURES[..], &DISTANCES, &DISTANCES_OF_POINTS].concat() {
        let returns = Returns::Type(DataType::Float64);
        add(Entry { function: MarkedFunction::new(name, params, returns, Kernel::Float(kernel)), called });
    }
    let mut count = |name, params, kernel| {
        let returns = Returns::Type(DataType::Int32);
        let function = MarkedFunction::new(name, params, returns, Kernel::Int(kernel));
        add(Entry { function, called: &["npoints", "#"] });
    };
    count("path_npoints", &[PATH], |all, row| one(all, row, sure(Path::count)));
    count("poly_npoints", &[POLYGON], |all, row| one(all, row, sure(Polygon::count)));
}

const MEASURES: [Row; 12] = [
    ("box_area", &["area"], &[BOX], |all, row| one(all, row, Rectangle::area)),
    ("circle_area", &["area"], &[CIRCLE], |all, row| one(all, row, Circle::area)),
    ("path_area", &["area"], &[PATH], |all, row| Ok(one(all, row, Path::area)?.flatten())),
    ("box_width", &["width"], &[BOX], |all, row| one(all, row, Rectangle::width)),
    ("box_height", &["height"], &[BOX], |all, row| one(all, row, Rectangle::height)),
    ("circle_diameter", &["diameter"], &[CIRCLE], |all, row| one(all, row, Circle::diameter)),
    ("circle_radius", &["radius"], &[CIRCLE], |all, row| one(all, row, |circle: &Circle| Ok(circle.radius))),
    ("lseg_length", &["length", "@-@"], &[LSEG], |all, row| one(all, row, Segment::length)),
    ("path_length", &["length", "@-@"], &[PATH], |all, row| one(all, row, Path::length)),
    ("point_slope", &["slope"], &[POINT; 2], |all, row| two(all, row, Point::slope)),
    ("point_number", &["[]"], &[POINT, Param::Int], |all, row| {
        let point: Option<Point> = argument(all, 0, row)?;
        Ok(point.and_then(|point| part(all, row, [point.x, point.y])))
    }),
    ("line_number", &["[]"], &[LINE, Param::Int], |all, row| {
        let line: Option<Line> = argument(all, 0, row)?;
        Ok(line.and_then(|line| part(all, row, line.factors())))
    }),
];

const DISTANCES: [Row; 11] = [
    ("line_distance", &["<->"], &[LINE; 2], |all, row| two(all, row, Line::distance)),
    ("lseg_distance", &["<->"], &[LSEG; 2], |all, row| two(all, row, Segment::distance)),
    ("box_distance", &["<->"], &[BOX; 2], |all, row| two(all, row, Rectangle::distance)),
    ("path_distance", &["<->"], &[PATH; 2], |all, row| Ok(two(all, row, Path::distance)?.flatten())),
    ("poly_distance", &["<->"], &[POLYGON; 2], |all, row| Ok(two(all, row, Polygon::distance)?.flatten())),
    ("circle_distance", &["<->"], &[CIRCLE; 2], |all, row| two(all, row, Circle::distance)),
    ("dist_sl", &["<->"], &[LSEG, LINE], |all, row| two(all, row, Segment::distance_to_line)),
    ("dist_ls", &["<->"], &[LINE, LSEG], |all, row| swapped(all, row, Segment::distance_to_line)),
    ("dist_bs", &["<->"], &[BOX, LSEG], |all, row| two(all, row, Rectangle::distance_to_segment)),
    ("dist_sb", &["<->"], &[LSEG, BOX], |all, row| swapped(all, row, Rectangle::distance_to_segment)),
    ("dist_cpoly", &["<->"], &[CIRCLE, POLYGON], |all, row| two(all, row, Circle::distance_to_polygon)),
];

const DISTANCES_OF_POINTS: [Row; 14] = [
    ("dist_polyc", &["<->"], &[POLYGON, CIRCLE], |all, row| swapped(all, row, Circle::distance_to_polygon)),
    ("point_distance", &["<->"], &[POINT; 2], |all, row| two(all, row, Point::distance)),
    ("dist_lp", &["<->"], &[LINE, POINT], |all, row| distance_of_line(all, row, 0)),
    ("dist_pl", &["<->"], &[POINT, LINE], |all, row| distance_of_line(all, row, 1)),
    ("dist_sp", &["<->"], &[LSEG, POINT], |all, row| two(all, row, Segment::distance_to_point)),
    ("dist_ps", &["<->"], &[POINT, LSEG], |all, row| swapped(all, row, Segment::distance_to_point)),
    ("dist_bp", &["<->"], &[BOX, POINT], |all, row| two(all, row, Rectangle::distance_to_point)),
    ("dist_pb", &["<->"], &[POINT, BOX], |all, row| swapped(all, row, Rectangle::distance_to_point)),
    ("dist_pathp", &["<->"], &[PATH, POINT], |all, row| two(all, row, Path::distance_to_point)),
    ("dist_ppath", &["<->"], &[POINT, PATH], |all, row| swapped(all, row, Path::distance_to_point)),
    ("dist_polyp", &["<->"], &[POLYGON, POINT], |all, row| two(all, row, Polygon::distance_to_point)),
    ("dist_ppoly", &["<->"], &[POINT, POLYGON], |all, row| swapped(all, row, Polygon::distance_to_point)),
    ("dist_cpoint", &["<->"], &[CIRCLE, POINT], |all, row| two(all, row, Circle::distance_to_point)),
    ("dist_pc", &["<->"], &[POINT, CIRCLE], |all, row| swapped(all, row, Circle::distance_to_point)),
];

/// Returns the distance of a line from a point; `line` is the place of the line among the arguments.
fn distance_of_line(all: &Arguments, row: usize, line: usize) -> Result<Option<f64>> {
    let found: (Option<Line>, Option<Point>) = (argument(all, line, row)?, argument(all, 1 - line, row)?);
    let (Some(line), Some(point)) = found else { return Ok(None) };
    Ok(Some(line.closest_to(&point)?.1))
}
