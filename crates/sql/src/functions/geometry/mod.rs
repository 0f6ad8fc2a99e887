//! Geometric types, stored as text: POINT, LINE, LSEG, BOX, PATH, POLYGON and CIRCLE, with PostgreSQL's functions and
//! operators.
//!
//! | part | |
//! | --- | --- |
//! | [`point`], [`line`], [`segment`], [`rectangle`], [`path`], [`polygon`], [`circle`] | the types |
//! | [`arithmetic`], [`text`] | their coordinates, and their texts |
//! | [`relations`], [`measures`], [`shapes`] | the functions: from shapes to BOOLEAN, to numbers, and to shapes |
//! | [`overloads`], [`operators`] | which function a call or an operator means |
//!
//! The text of a value is the one that PostgreSQL writes. Two texts can mean the same shape, since comparisons have a
//! tolerance, so nothing may compare values by their texts.

mod arithmetic;
mod circle;
mod line;
mod measures;
pub(crate) mod operators;
pub(crate) mod overloads;
mod path;
mod point;
mod polygon;
mod rectangle;
mod relations;
mod segment;
mod shapes;
mod text;

use self::circle::Circle;
use self::line::Line;
use self::path::Path;
use self::point::Point;
use self::polygon::Polygon;
use self::rectangle::Rectangle;
use self::segment::Segment;
use super::marks::Mark;
use super::marks::function::{Arguments, MarkedFunction, Param};
use crate::error::{Error, Result};

const POINT: Param = Param::Value(Mark::Point);
const LINE: Param = Param::Value(Mark::Line);
const LSEG: Param = Param::Value(Mark::Lseg);
const BOX: Param = Param::Value(Mark::Box);
const PATH: Param = Param::Value(Mark::Path);
const POLYGON: Param = Param::Value(Mark::Polygon);
const CIRCLE: Param = Param::Value(Mark::Circle);

/// A value of a geometric type.
trait Shape: Sized {
    /// Reads a text. Doesn't refuse values that only computations give, such as a circle with a negative radius.
    fn parse(text: &str) -> Result<Self>;

    /// Returns the value that a user's text has; fails if it has none.
    fn checked(self, _text: &str) -> Result<Self> {
        Ok(self)
    }

    /// Appends the text.
    fn write(&self, out: &mut String);

    fn to_text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }
}

/// Returns the canonical text of a value of one of these types.
pub(super) fn canonical(mark: Mark, text: &str) -> Result<String> {
    fn read<S: Shape>(text: &str) -> Result<String> {
        Ok(S::parse(text)?.checked(text)?.to_text())
    }
    match mark {
        Mark::Point => read::<Point>(text),
        Mark::Line => read::<Line>(text),
        Mark::Lseg => read::<Segment>(text),
        Mark::Box => read::<Rectangle>(text),
        Mark::Path => read::<Path>(text),
        Mark::Polygon => read::<Polygon>(text),
        Mark::Circle => read::<Circle>(text),
        other => Err(Error::bug(format!("{} is no geometric type", other.name()))),
    }
}

/// Returns the function that a call or a cast means if its first argument has a type.
pub(crate) fn overload(name: &str, mark: Mark) -> Option<&'static str> {
    Some(match (name, mark) {
        ("character_length", Mark::Lseg) => "lseg_length",
        ("character_length", Mark::Path) => "path_length",
        ("read_point", Mark::Lseg) => "lseg_center",
        ("read_point", Mark::Box) => "box_center",
        ("read_point", Mark::Polygon) => "poly_center",
        ("read_point", Mark::Circle) => "circle_center",
        ("read_lseg", Mark::Box) => "box_diagonal",
        ("read_box", Mark::Point) => "point_box",
        ("read_box", Mark::Polygon) => "poly_box",
        ("read_box", Mark::Circle) => "circle_box",
        ("read_path", Mark::Polygon) => "poly_path",
        ("read_polygon", Mark::Box) => "box_poly",
        ("read_polygon", Mark::Path) => "path_poly",
        ("read_polygon", Mark::Circle) => "poly_of_circle",
        ("read_circle", Mark::Box) => "box_circle",
        ("read_circle", Mark::Polygon) => "poly_circle",
        _ => return None,
    })
}

/// A function with the names and the operators that call it if the arguments have the types of its parameters.
struct Entry {
    function: MarkedFunction,
    called: &'static [&'static str],
}

/// Passes on all entries.
fn entries(add: &mut dyn FnMut(Entry)) {
    relations::list(add);
    measures::list(add);
    shapes::list(add);
}

/// Lists the functions.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    entries(&mut |entry| add(entry.function));
    overloads::list(add);
}

fn argument<S: Shape>(all: &Arguments, at: usize, row: usize) -> Result<Option<S>> {
    all.text(at, row).map(S::parse).transpose()
}

/// Computes a result from the first argument.
fn one<S: Shape, T>(all: &Arguments, row: usize, of: impl Fn(&S) -> Result<T>) -> Result<Option<T>> {
    argument(all, 0, row)?.as_ref().map(of).transpose()
}

/// Computes a result from two arguments.
fn two<S: Shape, O: Shape, T>(
    all: &Arguments,
    row: usize,
    of: impl Fn(&S, &O) -> Result<T>,
) -> Result<Option<T>> {
    let (one, other): (Option<S>, Option<O>) = (argument(all, 0, row)?, argument(all, 1, row)?);
    one.zip(other).map(|(one, other)| of(&one, &other)).transpose()
}

/// Computes a result from two arguments, the second of which comes first.
fn swapped<S: Shape, O: Shape, T>(
    all: &Arguments,
    row: usize,
    of: impl Fn(&O, &S) -> Result<T>,
) -> Result<Option<T>> {
    two(all, row, |one: &S, other: &O| of(other, one))
}

/// Makes a function of one argument one that can fail.
fn sure<S, T>(of: impl Fn(&S) -> T) -> impl Fn(&S) -> Result<T> {
    move |one| Ok(of(one))
}

/// Makes a function of two arguments one that can fail.
fn sure_of_two<S, O, T>(of: impl Fn(&S, &O) -> T) -> impl Fn(&S, &O) -> Result<T> {
    move |one, other| Ok(of(one, other))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringViewArray};

    use super::*;
    use crate::functions::marks::function::Kernel;

    /// Returns an argument as a statement passes it on.
    fn argument(param: &Param, text: &str) -> Result<ArrayRef> {
        Ok(match param {
            Param::Value(mark) => Arc::new(StringViewArray::from(vec![canonical(*mark, text)?.as_str()])),
            Param::Int => Arc::new(Int64Array::from(vec![text.parse::<i64>().unwrap()])),
            _ => Arc::new(Float64Array::from(vec![text.parse::<f64>().unwrap()])),
        })
    }

    fn number(value: f64) -> String {
        let mut out = String::new();
        text::put_number(&mut out, value);
        out
    }

    fn result(functions: &HashMap<&str, MarkedFunction>, name: &str, args: &[&str]) -> Result<String> {
        if let Some(mark) = name.strip_prefix("in_").and_then(Mark::named) {
            return canonical(mark, args[0]);
        }
        let function = &functions[name];
        let columns = function.params.iter().zip(args).map(|(param, text)| argument(param, text));
        let all = Arguments { columns: columns.collect::<Result<_>>()?, rows: 1 };
        let found = match function.kernel {
            Kernel::Text(compute) => compute(&all, 0)?,
            Kernel::Bool(compute) => compute(&all, 0)?.map(|flag| if flag { "t" } else { "f" }.to_string()),
            Kernel::Int(compute) => compute(&all, 0)?.map(|number| number.to_string()),
            Kernel::Float(compute) => compute(&all, 0)?.map(number),
            _ => unreachable!("{name}"),
        };
        Ok(found.unwrap_or("NULL".into()))
    }

    #[test]
    fn results_are_those_of_postgresql() {
        let mut functions = HashMap::new();
        list(&mut |function| {
            functions.insert(function.name, function);
        });
        for line in include_str!("cases.txt").lines().filter(|line| !line.starts_with('#')) {
            let parts: Vec<&str> = line.split(" | ").collect();
            let [name, args @ .., expected] = parts.as_slice() else { unreachable!("{line}") };
            let found =
                result(&functions, name, args).unwrap_or_else(|error| format!("error: {}", error.message));
            assert_eq!(found, *expected, "{line}");
        }
    }

    #[test]
    fn long_and_deep_texts_are_no_problem() {
        let deep = format!("{}1,2{}", "(".repeat(100_000), ")".repeat(100_000));
        for mark in Mark::all().filter(|mark| mark.is_geometric()) {
            for text in ["", " ", "(", ",", "(,)", "1,2,", "<", "{", "((", "[", "é", deep.as_str()] {
                assert!(canonical(mark, text).is_err(), "{} {}", mark.name(), text.len());
            }
        }
        let zeros = format!("({}1,.{}1)", "0".repeat(100_000), "0".repeat(100));
        assert_eq!(canonical(Mark::Point, &zeros).unwrap(), "(1,1e-101)");
        let last = if millstream_seeds::all_seeds() { 1999 } else { 499 };
        let corners: Vec<String> = (0..=last).map(|at| format!("({at},{})", at % 2)).collect();
        let comb = Polygon::parse(&format!("({})", corners.join(","))).unwrap();
        let strip = Polygon::parse(&format!("((0.4,0.5),({last},0.5),({last},0.6))")).unwrap();
        assert!(!comb.contains(&strip).unwrap());
        assert!(comb.contains(&comb).unwrap() && comb.overlaps(&strip).unwrap());
    }
}
