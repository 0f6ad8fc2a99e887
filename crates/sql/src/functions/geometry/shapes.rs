//! Functions that return shapes: constructors, conversions and arithmetic.

use super::circle::Circle;
use super::line::Line;
use super::path::Path;
use super::point::Point;
use super::polygon::Polygon;
use super::rectangle::Rectangle;
use super::segment::{Segment, known};
use super::{
    BOX, CIRCLE, Entry, LINE, LSEG, PATH, POINT, POLYGON, Shape, argument, one, sure, sure_of_two, two,
};
use crate::error::Result;
use crate::functions::marks::Mark;
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};

type Rows = fn(&Arguments, usize) -> Result<Option<String>>;

/// A row of a table: the name, the names and operators that call it, the parameters, the result and the kernel.
type Row = (&'static str, &'static [&'static str], &'static [Param], Mark, Rows);

/// The points of a polygon that a circle becomes if their number is left out.
const CORNERS: i64 = 12;

/// Passes on the entries.
pub(super) fn list(add: &mut dyn FnMut(Entry)) {
    for (name, called, params, mark, kernel) in
        [&CONSTRUCTORS[..], &CONVERSIONS, &ARITHMETIC, &MEETINGS].concat()
    {
        let returns = Returns::Marked(mark);
        add(Entry { function: MarkedFunction::new(name, params, returns, Kernel::Text(kernel)), called });
    }
}

/// Returns the text of a result.
fn text<S: Shape>(found: Option<S>) -> Result<Option<String>> {
    Ok(found.map(|shape| shape.to_text()))
}

/// Returns the part of a value that the second argument numbers, from 0 on.
pub(super) fn part<T: Copy>(all: &Arguments, row: usize, parts: impl AsRef<[T]>) -> Option<T> {
    parts.as_ref().get(usize::try_from(all.int(1, row)?).ok()?).copied()
}

const CONSTRUCTORS: [Row; 10] = [
    ("construct_point", &["point"], &[Param::Float; 2], Mark::Point, |all, row| {
        let coordinates = all.float(0, row).zip(all.float(1, row));
        text(coordinates.map(|(x, y)| Point { x, y }))
    }),
    ("line_construct_pp", &["line"], &[POINT; 2], Mark::Line, |all, row| {
        text(two(all, row, Line::of_points)?)
    }),
    ("lseg_construct", &["lseg"], &[POINT; 2], Mark::Lseg, |all, row| {
        text(two(all, row, sure_of_two(Segment::of_points))?)
    }),
    ("points_box", &["box"], &[POINT; 2], Mark::Box, |all, row| {
        text(two(all, row, sure_of_two(Rectangle::of_points))?)
    }),
    ("cr_circle", &["circle"], &[POINT, Param::Float], Mark::Circle, |all, row| {
        let found = argument::<Point>(all, 0, row)?.zip(all.float(1, row));
        text(found.map(|(center, radius)| Circle::new(&center, radius)))
    }),
    ("boxes_bound_box", &["bound_box"], &[BOX; 2], Mark::Box, |all, row| {
        text(two(all, row, sure_of_two(Rectangle::bound))?)
    }),
    ("pclose", &["pclose"], &[PATH], Mark::Path, |all, row| text(one(all, row, sure(Path::closed))?)),
    ("popen", &["popen"], &[PATH], Mark::Path, |all, row| text(one(all, row, sure(Path::opened))?)),
    ("circle_poly", &["polygon"], &[Param::Int, CIRCLE], Mark::Polygon, |all, row| {
        let found = all.int(0, row).zip(argument::<Circle>(all, 1, row)?);
        text(found.map(|(count, circle)| circle.polygon(count)).transpose()?)
    }),
    ("poly_of_circle", &["polygon"], &[CIRCLE], Mark::Polygon, |all, row| {
        text(one(all, row, |circle: &Circle| circle.polygon(CORNERS))?)
    }),
];

const CONVERSIONS: [Row; 15] = [
    ("box_center", &["center", "@@", "point"], &[BOX], Mark::Point, |all, row| {
        text(one(all, row, Rectangle::center)?)
    }),
    ("circle_center", &["center", "@@", "point"], &[CIRCLE], Mark::Point, |all, row| {
        text(one(all, row, |circle: &Circle| Ok(circle.center))?)
    }),
    ("lseg_center", &["@@", "point"], &[LSEG], Mark::Point, |all, row| text(one(all, row, Segment::center)?)),
    ("poly_center", &["@@", "point"], &[POLYGON], Mark::Point, |all, row| {
        text(one(all, row, Polygon::center)?)
    }),
    ("box_diagonal", &["diagonal", "lseg"], &[BOX], Mark::Lseg, |all, row| {
        text(one(all, row, sure(Rectangle::diagonal))?)
    }),
    ("point_box", &["box"], &[POINT], Mark::Box, |all, row| text(one(all, row, sure(Rectangle::of_point))?)),
    ("circle_box", &["box"], &[CIRCLE], Mark::Box, |all, row| text(one(all, row, Circle::rectangle)?)),
    ("poly_box", &["box"], &[POLYGON], Mark::Box, |all, row| text(one(all, row, sure(Polygon::bounds))?)),
    ("box_circle", &["circle"], &[BOX], Mark::Circle, |all, row| text(one(all, row, Rectangle::circle)?)),
    ("poly_circle", &["circle"], &[POLYGON], Mark::Circle, |all, row| text(one(all, row, Polygon::circle)?)),
    ("poly_path", &["path"], &[POLYGON], Mark::Path, |all, row| text(one(all, row, sure(Polygon::path))?)),
    ("box_poly", &["polygon"], &[BOX], Mark::Polygon, |all, row| {
        text(one(all, row, sure(Rectangle::polygon))?)
    }),
    ("path_poly", &["polygon"], &[PATH], Mark::Polygon, |all, row| text(one(all, row, Path::polygon)?)),
    ("lseg_point", &["[]"], &[LSEG, Param::Int], Mark::Point, |all, row| {
        let lseg: Option<Segment> = argument(all, 0, row)?;
        text(lseg.and_then(|lseg| part(all, row, [lseg.from, lseg.to])))
    }),
    ("box_point", &["[]"], &[BOX, Param::Int], Mark::Point, |all, row| {
        let found: Option<Rectangle> = argument(all, 0, row)?;
        text(found.and_then(|found| part(all, row, [found.high, found.low])))
    }),
];

const ARITHMETIC: [Row; 17] = [
    ("point_add", &["+"], &[POINT; 2], Mark::Point, |all, row| text(two(all, row, Point::plus)?)),
    ("point_sub", &["-"], &[POINT; 2], Mark::Point, |all, row| text(two(all, row, Point::minus)?)),
    ("point_mul", &["*"], &[POINT; 2], Mark::Point, |all, row| text(two(all, row, Point::times)?)),
    ("point_div", &["/"], &[POINT; 2], Mark::Point, |all, row| text(two(all, row, Point::over)?)),
    ("box_add", &["+"], &[BOX, POINT], Mark::Box, |all, row| text(two(all, row, Rectangle::plus)?)),
    ("box_sub", &["-"], &[BOX, POINT], Mark::Box, |all, row| text(two(all, row, Rectangle::minus)?)),
    ("box_mul", &["*"], &[BOX, POINT], Mark::Box, |all, row| text(two(all, row, Rectangle::times)?)),
    ("box_div", &["/"], &[BOX, POINT], Mark::Box, |all, row| text(two(all, row, Rectangle::over)?)),
    ("path_add", &["+"], &[PATH; 2], Mark::Path, |all, row| {
        text(two(all, row, sure_of_two(Path::concatenated))?.flatten())
    }),
    ("path_add_pt", &["+"], &[PATH, POINT], Mark::Path, |all, row| text(two(all, row, Path::plus)?)),
    ("path_sub_pt", &["-"], &[PATH, POINT], Mark::Path, |all, row| text(two(all, row, Path::minus)?)),
    ("path_mul_pt", &["*"], &[PATH, POINT], Mark::Path, |all, row| text(two(all, row, Path::times)?)),
    ("path_div_pt", &["/"], &[PATH, POINT], Mark::Path, |all, row| text(two(all, row, Path::over)?)),
    ("circle_add_pt", &["+"], &[CIRCLE, POINT], Mark::Circle, |all, row| text(two(all, row, Circle::plus)?)),
    ("circle_sub_pt", &["-"], &[CIRCLE, POINT], Mark::Circle, |all, row| text(two(all, row, Circle::minus)?)),
    ("circle_mul_pt", &["*"], &[CIRCLE, POINT], Mark::Circle, |all, row| text(two(all, row, Circle::times)?)),
    ("circle_div_pt", &["/"], &[CIRCLE, POINT], Mark::Circle, |all, row| text(two(all, row, Circle::over)?)),
];

/// Points where shapes meet, and points that are closest to another shape.
const MEETINGS: [Row; 9] = [
    ("line_interpt", &["#"], &[LINE; 2], Mark::Point, |all, row| {
        text(two(all, row, Line::intersection)?.flatten())
    }),
    ("lseg_interpt", &["#"], &[LSEG; 2], Mark::Point, |all, row| {
        text(two(all, row, Segment::intersection)?.flatten())
    }),
    ("box_intersect", &["#"], &[BOX; 2], Mark::Box, |all, row| {
        text(two(all, row, sure_of_two(Rectangle::intersection))?.flatten())
    }),
    ("close_pl", &["##"], &[POINT, LINE], Mark::Point, |all, row| {
        text(two(all, row, |point: &Point, line: &Line| Ok(known(line.closest_to(point)?)))?.flatten())
    }),
    ("close_ps", &["##"], &[POINT, LSEG], Mark::Point, |all, row| {
        text(two(all, row, |point: &Point, lseg: &Segment| Ok(known(lseg.closest_to(point)?)))?.flatten())
    }),
    ("close_pb", &["##"], &[POINT, BOX], Mark::Point, |all, row| {
        text(two(all, row, |point: &Point, found: &Rectangle| found.closest_point(point))?.flatten())
    }),
    ("close_ls", &["##"], &[LINE, LSEG], Mark::Point, |all, row| {
        text(two(all, row, |line: &Line, lseg: &Segment| lseg.closest_on_from_line(line))?.flatten())
    }),
    ("close_lseg", &["##"], &[LSEG; 2], Mark::Point, |all, row| {
        text(two(all, row, Segment::closest_on)?.flatten())
    }),
    ("close_sb", &["##"], &[LSEG, BOX], Mark::Point, |all, row| {
        text(
            two(all, row, |lseg: &Segment, found: &Rectangle| found.closest_point_to_segment(lseg))?
                .flatten(),
        )
    }),
];
