//! Functions from shapes to BOOLEAN: comparisons and positions.

use arrow::datatypes::DataType;

use super::arithmetic::{eq, ge, gt, le, lt, ne};
use super::circle::Circle;
use super::line::Line;
use super::path::Path;
use super::point::Point;
use super::polygon::Polygon;
use super::rectangle::Rectangle;
use super::segment::Segment;
use super::{
    BOX, CIRCLE, Entry, LINE, LSEG, PATH, POINT, POLYGON, Shape, one, sure, sure_of_two, swapped, two,
};
use crate::error::Result;
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};

type Rows = fn(&Arguments, usize) -> Result<Option<bool>>;

/// A row of a table: the name, the names and operators that call it, the parameters and the kernel.
type Row = (&'static str, &'static [&'static str], &'static [Param], Rows);

/// Passes on the entries.
pub(super) fn list(add: &mut dyn FnMut(Entry)) {
    let tables = [
        &POINTS[..],
        &LINES,
        &SEGMENTS,
        &BOXES,
        &BOXES_BY_AREA,
        &PATHS,
        &POLYGONS,
        &CIRCLES,
        &CIRCLES_BY_AREA,
    ];
    for (name, called, params, kernel) in tables.concat() {
        let returns = Returns::Type(DataType::Boolean);
        add(Entry { function: MarkedFunction::new(name, params, returns, Kernel::Bool(kernel)), called });
    }
}

/// Compares a number of two shapes.
fn compared<S: Shape>(
    all: &Arguments,
    row: usize,
    number: fn(&S) -> Result<f64>,
    compare: fn(f64, f64) -> bool,
) -> Result<Option<bool>> {
    two(all, row, |one: &S, other: &S| Ok(compare(number(one)?, number(other)?)))
}

const POINTS: [Row; 17] = [
    ("point_eq", &["~="], &[POINT; 2], |all, row| two(all, row, sure_of_two(Point::is_at))),
    ("point_ne", &["<>"], &[POINT; 2], |all, row| {
        two(all, row, |one: &Point, other: &Point| Ok(!one.is_at(other)))
    }),
    ("point_left", &["<<"], &[POINT; 2], |all, row| two(all, row, sure_of_two(Point::is_left_of))),
    ("point_right", &[">>"], &[POINT; 2], |all, row| two(all, row, sure_of_two(Point::is_right_of))),
    ("point_below", &["<<|", "<^"], &[POINT; 2], |all, row| two(all, row, sure_of_two(Point::is_below))),
    ("point_above", &["|>>", ">^"], &[POINT; 2], |all, row| two(all, row, sure_of_two(Point::is_above))),
    ("point_horiz", &["?-", "ishorizontal"], &[POINT; 2], |all, row| {
        two(all, row, sure_of_two(Point::is_horizontal_with))
    }),
    ("point_vert", &["?|", "isvertical"], &[POINT; 2], |all, row| {
        two(all, row, sure_of_two(Point::is_vertical_with))
    }),
    ("on_pl", &["<@"], &[POINT, LINE], |all, row| swapped(all, row, Line::contains)),
    ("on_ps", &["<@"], &[POINT, LSEG], |all, row| swapped(all, row, Segment::contains)),
    ("on_pb", &["<@"], &[POINT, BOX], |all, row| swapped(all, row, sure_of_two(Rectangle::contains_point))),
    ("on_ppath", &["<@"], &[POINT, PATH], |all, row| swapped(all, row, Path::contains)),
    ("pt_contained_poly", &["<@"], &[POINT, POLYGON], |all, row| swapped(all, row, Polygon::contains_point)),
    ("pt_contained_circle", &["<@"], &[POINT, CIRCLE], |all, row| swapped(all, row, Circle::contains_point)),
    ("path_contain_pt", &["@>"], &[PATH, POINT], |all, row| two(all, row, Path::contains)),
    ("poly_contain_pt", &["@>"], &[POLYGON, POINT], |all, row| two(all, row, Polygon::contains_point)),
    ("circle_contain_pt", &["@>"], &[CIRCLE, POINT], |all, row| two(all, row, Circle::contains_point)),
];

const LINES: [Row; 6] = [
    ("line_eq", &["="], &[LINE; 2], |all, row| two(all, row, Line::is_same)),
    ("line_intersect", &["?#"], &[LINE; 2], |all, row| two(all, row, Line::meets)),
    ("line_parallel", &["?||", "isparallel"], &[LINE; 2], |all, row| two(all, row, Line::is_parallel)),
    ("line_perp", &["?-|", "isperp"], &[LINE; 2], |all, row| two(all, row, Line::is_perpendicular)),
    ("line_horizontal", &["?-", "ishorizontal"], &[LINE], |all, row| {
        one(all, row, sure(Line::is_horizontal))
    }),
    ("line_vertical", &["?|", "isvertical"], &[LINE], |all, row| one(all, row, sure(Line::is_vertical))),
];

const SEGMENTS: [Row; 15] = [
    ("lseg_eq", &["="], &[LSEG; 2], |all, row| two(all, row, sure_of_two(Segment::is_same))),
    ("lseg_ne", &["<>"], &[LSEG; 2], |all, row| two(all, row, sure_of_two(Segment::is_different))),
    ("lseg_lt", &["<"], &[LSEG; 2], |all, row| compared(all, row, Segment::length, lt)),
    ("lseg_le", &["<="], &[LSEG; 2], |all, row| compared(all, row, Segment::length, le)),
    ("lseg_gt", &[">"], &[LSEG; 2], |all, row| compared(all, row, Segment::length, gt)),
    ("lseg_ge", &[">="], &[LSEG; 2], |all, row| compared(all, row, Segment::length, ge)),
    ("lseg_intersect", &["?#"], &[LSEG; 2], |all, row| two(all, row, Segment::meets)),
    ("inter_sl", &["?#"], &[LSEG, LINE], |all, row| two(all, row, Segment::meets_line)),
    ("inter_sb", &["?#"], &[LSEG, BOX], |all, row| swapped(all, row, Rectangle::meets_segment)),
    ("lseg_parallel", &["?||", "isparallel"], &[LSEG; 2], |all, row| two(all, row, Segment::is_parallel)),
    ("lseg_perp", &["?-|", "isperp"], &[LSEG; 2], |all, row| two(all, row, Segment::is_perpendicular)),
    ("lseg_horizontal", &["?-", "ishorizontal"], &[LSEG], |all, row| {
        one(all, row, sure(Segment::is_horizontal))
    }),
    ("lseg_vertical", &["?|", "isvertical"], &[LSEG], |all, row| one(all, row, sure(Segment::is_vertical))),
    ("on_sl", &["<@"], &[LSEG, LINE], |all, row| two(all, row, Segment::is_on_line)),
    ("on_sb", &["<@"], &[LSEG, BOX], |all, row| swapped(all, row, sure_of_two(Rectangle::contains_segment))),
];

const BOXES: [Row; 16] = [
    ("box_same", &["~="], &[BOX; 2], |all, row| two(all, row, sure_of_two(Rectangle::is_same))),
    ("box_overlap", &["&&", "?#"], &[BOX; 2], |all, row| two(all, row, sure_of_two(Rectangle::overlaps))),
    ("box_contain", &["@>"], &[BOX; 2], |all, row| two(all, row, sure_of_two(Rectangle::contains))),
    ("box_contained", &["<@"], &[BOX; 2], |all, row| swapped(all, row, sure_of_two(Rectangle::contains))),
    ("box_contain_pt", &["@>"], &[BOX, POINT], |all, row| {
        two(all, row, sure_of_two(Rectangle::contains_point))
    }),
    ("inter_lb", &["?#"], &[LINE, BOX], |all, row| swapped(all, row, Rectangle::meets_line)),
    ("box_left", &["<<"], &[BOX; 2], |all, row| two(all, row, sure_of_two(Rectangle::is_left_of))),
    ("box_right", &[">>"], &[BOX; 2], |all, row| two(all, row, sure_of_two(Rectangle::is_right_of))),
    ("box_below", &["<<|"], &[BOX; 2], |all, row| two(all, row, sure_of_two(Rectangle::is_below))),
    ("box_above", &["|>>"], &[BOX; 2], |all, row| two(all, row, sure_of_two(Rectangle::is_above))),
    ("box_overleft", &["&<"], &[BOX; 2], |all, row| two(all, row, sure_of_two(Rectangle::ends_left_of))),
    ("box_overright", &["&>"], &[BOX; 2], |all, row| two(all, row, sure_of_two(Rectangle::begins_right_of))),
    ("box_overbelow", &["&<|"], &[BOX; 2], |all, row| two(all, row, sure_of_two(Rectangle::ends_below))),
    ("box_overabove", &["|&>"], &[BOX; 2], |all, row| two(all, row, sure_of_two(Rectangle::begins_above))),
    ("box_below_eq", &["<^"], &[BOX; 2], |all, row| {
        two(all, row, sure_of_two(Rectangle::is_below_or_touches))
    }),
    ("box_above_eq", &[">^"], &[BOX; 2], |all, row| {
        two(all, row, sure_of_two(Rectangle::is_above_or_touches))
    }),
];

const BOXES_BY_AREA: [Row; 5] = [
    ("box_eq", &["="], &[BOX; 2], |all, row| compared(all, row, Rectangle::area, eq)),
    ("box_lt", &["<"], &[BOX; 2], |all, row| compared(all, row, Rectangle::area, lt)),
    ("box_le", &["<="], &[BOX; 2], |all, row| compared(all, row, Rectangle::area, le)),
    ("box_gt", &[">"], &[BOX; 2], |all, row| compared(all, row, Rectangle::area, gt)),
    ("box_ge", &[">="], &[BOX; 2], |all, row| compared(all, row, Rectangle::area, ge)),
];

const PATHS: [Row; 8] = [
    ("path_n_eq", &["="], &[PATH; 2], |all, row| two(all, row, sure_of_two(Path::has_same_count))),
    ("path_n_lt", &["<"], &[PATH; 2], |all, row| two(all, row, sure_of_two(Path::has_fewer))),
    ("path_n_le", &["<="], &[PATH; 2], |all, row| two(all, row, sure_of_two(Path::has_fewer_or_same))),
    ("path_n_gt", &[">"], &[PATH; 2], |all, row| two(all, row, sure_of_two(Path::has_more))),
    ("path_n_ge", &[">="], &[PATH; 2], |all, row| two(all, row, sure_of_two(Path::has_more_or_same))),
    ("path_inter", &["?#"], &[PATH; 2], |all, row| two(all, row, Path::meets)),
    ("isclosed", &["isclosed"], &[PATH], |all, row| one(all, row, |path: &Path| Ok(path.is_closed))),
    ("isopen", &["isopen"], &[PATH], |all, row| one(all, row, sure(Path::is_open))),
];

const POLYGONS: [Row; 12] = [
    ("poly_same", &["~="], &[POLYGON; 2], |all, row| two(all, row, Polygon::is_same)),
    ("poly_overlap", &["&&"], &[POLYGON; 2], |all, row| two(all, row, Polygon::overlaps)),
    ("poly_contain", &["@>"], &[POLYGON; 2], |all, row| two(all, row, Polygon::contains)),
    ("poly_contained", &["<@"], &[POLYGON; 2], |all, row| swapped(all, row, Polygon::contains)),
    ("poly_left", &["<<"], &[POLYGON; 2], |all, row| two(all, row, sure_of_two(Polygon::is_left_of))),
    ("poly_right", &[">>"], &[POLYGON; 2], |all, row| two(all, row, sure_of_two(Polygon::is_right_of))),
    ("poly_below", &["<<|"], &[POLYGON; 2], |all, row| two(all, row, sure_of_two(Polygon::is_below))),
    ("poly_above", &["|>>"], &[POLYGON; 2], |all, row| two(all, row, sure_of_two(Polygon::is_above))),
    ("poly_overleft", &["&<"], &[POLYGON; 2], |all, row| two(all, row, sure_of_two(Polygon::ends_left_of))),
    ("poly_overright", &["&>"], &[POLYGON; 2], |all, row| {
        two(all, row, sure_of_two(Polygon::begins_right_of))
    }),
    ("poly_overbelow", &["&<|"], &[POLYGON; 2], |all, row| two(all, row, sure_of_two(Polygon::ends_below))),
    ("poly_overabove", &["|&>"], &[POLYGON; 2], |all, row| two(all, row, sure_of_two(Polygon::begins_above))),
];

const CIRCLES: [Row; 12] = [
    ("circle_same", &["~="], &[CIRCLE; 2], |all, row| two(all, row, sure_of_two(Circle::is_same))),
    ("circle_overlap", &["&&"], &[CIRCLE; 2], |all, row| two(all, row, Circle::overlaps)),
    ("circle_contain", &["@>"], &[CIRCLE; 2], |all, row| two(all, row, Circle::contains)),
    ("circle_contained", &["<@"], &[CIRCLE; 2], |all, row| swapped(all, row, Circle::contains)),
    ("circle_left", &["<<"], &[CIRCLE; 2], |all, row| two(all, row, Circle::is_left_of)),
    ("circle_right", &[">>"], &[CIRCLE; 2], |all, row| two(all, row, Circle::is_right_of)),
    ("circle_below", &["<<|"], &[CIRCLE; 2], |all, row| two(all, row, Circle::is_below)),
    ("circle_above", &["|>>"], &[CIRCLE; 2], |all, row| two(all, row, Circle::is_above)),
    ("circle_overleft", &["&<"], &[CIRCLE; 2], |all, row| two(all, row, Circle::ends_left_of)),
    ("circle_overright", &["&>"], &[CIRCLE; 2], |all, row| two(all, row, Circle::begins_right_of)),
    ("circle_overbelow", &["&<|"], &[CIRCLE; 2], |all, row| two(all, row, Circle::ends_below)),
    ("circle_overabove", &["|&>"], &[CIRCLE; 2], |all, row| two(all, row, Circle::begins_above)),
];

const CIRCLES_BY_AREA: [Row; 6] = [
    ("circle_eq", &["="], &[CIRCLE; 2], |all, row| compared(all, row, Circle::area, eq)),
    ("circle_ne", &["<>"], &[CIRCLE; 2], |all, row| compared(all, row, Circle::area, ne)),
    ("circle_lt", &["<"], &[CIRCLE; 2], |all, row| compared(all, row, Circle::area, lt)),
    ("circle_le", &["<="], &[CIRCLE; 2], |all, row| compared(all, row, Circle::area, le)),
    ("circle_gt", &[">"], &[CIRCLE; 2], |all, row| compared(all, row, Circle::area, gt)),
    ("circle_ge", &[">="], &[CIRCLE; 2], |all, row| compared(all, row, Circle::area, ge)),
];
