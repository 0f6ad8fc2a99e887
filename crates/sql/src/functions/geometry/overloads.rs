//! Resolves calls and operators by the types of their arguments, as PostgreSQL does.
//!
//! The types aren't known when a name is looked up, nor always when an operator is planned. So the planner gets a function
//! of the written name that computes nothing, and the rule in `rules/marked_types.rs` replaces each call.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use datafusion::logical_expr::Expr;

use super::{Entry, entries};
use crate::error::{Error, Result};
use crate::functions::marks::Mark;
use crate::functions::marks::catalog::call;
use crate::functions::marks::expressions::{Columns, is_literal};
use crate::functions::marks::function::{Kernel, MarkedFunction, Param, Returns};
use crate::functions::marks::shape::Shape;
use crate::functions::read_text::{Kind, ReadText};
use crate::sqlstate;

/// Operators and functions that the planner knows without this module.
const KNOWN: [&str; 16] =
    ["+", "-", "*", "/", "=", "<>", "<", "<=", ">", ">=", "<<", ">>", "&&", "@>", "<@", "length"];

/// The type of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    Marked(Mark),
    /// A text without a type of its own, or NULL.
    Unknown,
    Other,
}

impl Given {
    /// Returns the type of an expression.
    pub(crate) fn of(expression: &Expr, columns: &Columns<'_>) -> Given {
        match Shape::mark(expression, columns) {
            Some(mark) => Given::Marked(mark),
            None if is_literal(expression) => Given::Unknown,
            None => Given::Other,
        }
    }

    /// True for a geometric type.
    pub(crate) fn is_geometric(self) -> bool {
        matches!(self, Given::Marked(mark) if mark.is_geometric())
    }

    /// True for a geometric type and for XML.
    pub(crate) fn is_unordered(self) -> bool {
        matches!(self, Given::Marked(mark) if mark.is_unordered())
    }
}

/// A function that a name or an operator can mean.
#[derive(Debug)]
struct Candidate {
    name: &'static str,
    params: &'static [Param],
    returns: Returns,
}

static CANDIDATES: LazyLock<BTreeMap<&'static str, Vec<Candidate>>> = LazyLock::new(|| {
    let mut all: BTreeMap<&'static str, Vec<Candidate>> = BTreeMap::new();
    entries(&mut |Entry { function, called }| {
        for name in called {
            let (params, returns) = (function.params, function.returns.clone());
            all.entry(name).or_default().push(Candidate { name: function.name, params, returns });
        }
    });
    all
});

/// Lists the functions that a rule replaces.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    for (name, candidates) in CANDIDATES.iter().filter(|(name, _)| !KNOWN.contains(name)) {
        // The prefix operator `#` returns another type than the one between two shapes, which isn't planned as a call.
        let Some(first) = candidates.iter().min_by_key(|candidate| candidate.params.len()) else { continue };
        if candidates.iter().all(|candidate| candidate.name != *name) {
            let unresolved = Kernel::Column(|_| {
                Err(Error::invalid("the types of a geometric function's arguments are unknown")
                    .hint("Cast the arguments, as in area(x::BOX).")
                    .code(sqlstate::UNDEFINED_FUNCTION))
            });
            let function = MarkedFunction::new(name, &[Param::Any], first.returns.clone(), unresolved);
            add(function.repeated().called_on_null());
        }
    }
}

impl Candidate {
    /// Returns the type that the function expects of an argument.
    fn mark(&self, at: usize) -> Option<Mark> {
        match self.params.get(at)? {
            Param::Value(mark) => Some(*mark),
            _ => None,
        }
    }

    fn accepts(&self, given: &[Given]) -> bool {
        let fits = |(at, given): (usize, &Given)| match (given, self.mark(at)) {
            (Given::Unknown, _) => true,
            (Given::Marked(given), Some(expected)) => *given == expected,
            (Given::Other, expected) => expected.is_none(),
            (Given::Marked(_), None) => false,
        };
        self.params.len() == given.len() && given.iter().enumerate().all(fits)
    }
}

/// Returns a name or an operator that has functions in this module.
pub(crate) fn known(called: &str) -> Option<&'static str> {
    CANDIDATES.get_key_value(called).map(|(known, _)| *known)
}

/// True for a name or an operator that only shapes have.
pub(crate) fn is_geometric_only(called: &str) -> bool {
    known(called).is_some() && !KNOWN.contains(&called) && called != "#"
}

/// Builds the call that a name or an operator means for these arguments.
pub(crate) fn plan(called: &str, args: Vec<Expr>, columns: &Columns<'_>) -> Result<Expr> {
    let given: Vec<Given> = args.iter().map(|argument| Given::of(argument, columns)).collect();
    let found = resolve(called, &given)?;
    let read = |(at, argument): (usize, Expr)| match found.mark(at) {
        Some(mark) if given.get(at) == Some(&Given::Unknown) && !is_null(&argument) => {
            ReadText::call(Kind::Marked(mark), false, argument)
        }
        _ => argument,
    };
    let args = args.into_iter().enumerate().map(read).collect();
    call(found.name, args).ok_or_else(|| Error::bug(format!("function {} is not registered", found.name)))
}

fn is_null(argument: &Expr) -> bool {
    matches!(argument, Expr::Literal(value, _) if value.is_null())
}

/// Returns the function that a name or an operator means for these arguments.
fn resolve(called: &str, given: &[Given]) -> Result<&'static Candidate> {
    let all = CANDIDATES.get(called).map(Vec::as_slice).unwrap_or_default();
    // An operand without a type has that of the other, if there is such a function.
    if let [one, other] = given
        && let Some(known) = [*one, *other].into_iter().find(|side| *side != Given::Unknown)
        && (*one == Given::Unknown || *other == Given::Unknown)
        && let Some(found) = all.iter().find(|candidate| candidate.accepts(&[known; 2]))
    {
        return Ok(found);
    }
    let mut accepting = all.iter().filter(|candidate| candidate.accepts(given));
    match (accepting.next(), accepting.next()) {
        (Some(found), None) => Ok(found),
        (None, _) => Err(missing(called, given)),
        (Some(_), Some(_)) => Err(ambiguous(called, given)),
    }
}

fn is_operator(called: &str) -> bool {
    !called.starts_with(|first: char| first.is_ascii_alphabetic())
}

/// Returns a call or an operator with the types of its arguments, as errors show it.
fn written(called: &str, given: &[Given]) -> String {
    let name = |given: &Given| match given {
        Given::Marked(mark) => mark.name(),
        Given::Unknown => "unknown",
        Given::Other => "another type",
    };
    let names: Vec<&str> = given.iter().map(name).collect();
    match names.as_slice() {
        [value, _] if called == "[]" => format!("{value}[…]"),
        [operand] if is_operator(called) => format!("{called} {operand}"),
        [left, right] if is_operator(called) => format!("{left} {called} {right}"),
        names => format!("{called}({})", names.join(", ")),
    }
}

fn ambiguous(called: &str, given: &[Given]) -> Error {
    let written = written(called, given);
    let message = match is_operator(called) {
        true => format!("operator is not unique: {written}"),
        false => format!("function {written} is not unique"),
    };
    Error::invalid(message).hint("Cast an argument, as in x::BOX.").code(sqlstate::AMBIGUOUS_FUNCTION)
}

/// Returns the error that a name or an operator has no function for these arguments.
pub(crate) fn missing(called: &str, given: &[Given]) -> Error {
    let message = match is_operator(called) {
        true => format!("operator does not exist: {}", written(called, given)),
        false => format!("function {} does not exist", written(called, given)),
    };
    let all = CANDIDATES.get(called).map(Vec::as_slice).unwrap_or_default();
    let known = all.iter().filter(|candidate| candidate.params.len() == given.len()).map(|candidate| {
        let mark = |at| candidate.mark(at).map_or(Given::Other, Given::Marked);
        written(called, &(0..given.len()).map(mark).collect::<Vec<_>>()).replace("another type", "number")
    });
    let known = known.collect::<Vec<_>>().join(", ");
    let hint = match (called, known.is_empty()) {
        ("=" | "<>", _) => "To compare texts, cast both sides, as in x::TEXT = y::TEXT.".to_string(),
        (_, true) => "Cast an argument to a type that has it.".to_string(),
        _ => format!("There is: {known}."),
    };
    Error::invalid(message).hint(hint).code(sqlstate::UNDEFINED_FUNCTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(called: &str, given: &[Given], expected: Result<&str, &str>) {
        let found = resolve(called, given);
        let found = found.as_ref().map(|found| found.name).map_err(|error| error.message.as_str());
        assert_eq!(found, expected);
    }

    #[test]
    fn operators_are_resolved_as_in_postgresql() {
        use Given::{Marked, Other, Unknown};
        let (point, found, circle) = (Marked(Mark::Point), Marked(Mark::Box), Marked(Mark::Circle));
        check("+", &[found, point], Ok("box_add"));
        check("+", &[found, Unknown], Ok("box_add"));
        check("+", &[Unknown, point], Ok("point_add"));
        check("=", &[found, Unknown], Ok("box_eq"));
        check("=", &[point, point], Err("operator does not exist: point = point"));
        check("<@", &[point, Unknown], Err("operator is not unique: point <@ unknown"));
        check("<->", &[Unknown, Unknown], Err("operator is not unique: unknown <-> unknown"));
        check("area", &[point], Err("function area(point) does not exist"));
        check("area", &[circle], Ok("circle_area"));
        check("area", &[Unknown], Err("function area(unknown) is not unique"));
        check("polygon", &[Other, circle], Ok("circle_poly"));
        check("circle", &[point, Other], Ok("cr_circle"));
        check("?-", &[Marked(Mark::Line)], Ok("line_horizontal"));
        check("#", &[Marked(Mark::Path)], Ok("path_npoints"));
    }

    #[test]
    fn an_overload_has_one_function_for_its_types() {
        for (called, candidates) in CANDIDATES.iter() {
            for (at, one) in candidates.iter().enumerate() {
                assert!(candidates.iter().skip(at + 1).all(|other| other.params != one.params), "{called}");
                assert!(call(one.name, Vec::new()).is_some(), "{}", one.name);
            }
        }
    }
}
