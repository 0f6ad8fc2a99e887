//! Finds the marks of expressions, while a statement is planned.
//!
//! Arrow's type of all marked values is text. A column's field has a mark ([`Mark`]); functions have a type of their own
//! or pass on that of an argument. Plans that run don't depend on it.

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction, WindowFunction};
use datafusion::logical_expr::{AggregateUDF, Expr, ScalarUDF, WindowFunctionDefinition};

use super::Mark;
use super::columns::shape_at;
use super::enums::EnumFunction;
use super::function::{MarkedFunction, Param, Returns, is_text};
use super::overloaded::Overloaded;
use super::shape::{EITHER, Shape};
use crate::functions::either::{self, Takes};
use crate::functions::geometry::overloads::is_geometric_only;
use crate::functions::json::build::{Built, Written};
use crate::functions::read_text::ReadText;

/// Returns the shape of a column.
pub(crate) type Columns<'a> = dyn Fn(&Column) -> Shape + 'a;

/// Functions whose result is one of their arguments.
const PASSING: [&str; 7] = ["coalesce", "nvl", "ifnull", "nullif", "greatest", "least", "nvl2"];

/// True if a function returns one of its arguments.
pub(crate) fn passes(name: &str) -> bool {
    PASSING.contains(&name)
}

/// Aggregates and window functions whose result is a value of their first argument.
const CHOOSING: [&str; 8] =
    ["min", "max", "first_value", "last_value", "nth_value", "any_value", "lag", "lead"];

impl Shape {
    /// Returns the shape of an expression.
    pub(crate) fn of(expression: &Expr, columns: &Columns<'_>) -> Shape {
        match expression {
            Expr::Alias(alias) => Shape::of(&alias.expr, columns),
            Expr::Column(column) => columns(column),
            Expr::OuterReferenceColumn(field, _) => Shape::marked(Mark::of(field)),
            Expr::ScalarSubquery(subquery) => match subquery.subquery.schema().fields().is_empty() {
                true => Shape::Plain,
                false => shape_at(&subquery.subquery, 0),
            },
            Expr::ScalarFunction(call) => Shape::of_call(call, columns),
            Expr::AggregateFunction(AggregateFunction { func, params }) => {
                Shape::of_choice(func.name(), &params.args, columns)
            }
            Expr::WindowFunction(window) => {
                let WindowFunction { fun, params } = window.as_ref();
                Shape::of_choice(fun.name(), &params.args, columns)
            }
            Expr::Case(case) => {
                let results = case.when_then_expr.iter().map(|(_, then)| then.as_ref());
                // As in PostgreSQL, ELSE comes first.
                Shape::common(case.else_expr.as_deref().into_iter().chain(results), columns)
            }
            _ => Shape::Plain,
        }
    }

    /// Returns the mark of an expression.
    pub(crate) fn mark(expression: &Expr, columns: &Columns<'_>) -> Option<Mark> {
        match Shape::of(expression, columns) {
            Shape::Marked(mark) => Some(mark),
            _ => None,
        }
    }

    fn of_call(call: &ScalarFunction, columns: &Columns<'_>) -> Shape {
        let args = &call.args;
        let function = match call.func.inner().downcast_ref::<Overloaded>() {
            Some(written) => {
                let marks: Vec<Option<Mark>> = args.iter().map(|value| Shape::mark(value, columns)).collect();
                &written.resolved(&marks)
            }
            None => &call.func,
        };
        if let Some(shape) = Shape::derived(function, args, columns) {
            return shape;
        }
        if let Some(mark) = mark_of(function) {
            return Shape::Marked(mark);
        }
        match call.name() {
            "nullif" => Shape::common(args.iter().take(1), columns),
            "nvl2" => Shape::common(args.iter().skip(1), columns),
            name if PASSING.contains(&name) => Shape::common(args.iter(), columns),
            "make_array" => Shape::List(Box::new(Shape::common(args.iter(), columns))),
            EITHER => match args.first().map(|list| Shape::of(list, columns)) {
                Some(Shape::Marked(mark)) => Shape::List(Box::new(Shape::marked(mark.range()))),
                shape => shape.unwrap_or(Shape::Plain),
            },
            "array_element" => match args.first().map(|list| Shape::of(list, columns)) {
                Some(Shape::List(item)) => *item,
                _ => Shape::Plain,
            },
            "struct" | "row" => Shape::Row(args.iter().map(|part| Shape::of(part, columns)).collect()),
            "named_struct" => {
                Shape::Row(args.iter().skip(1).step_by(2).map(|part| Shape::of(part, columns)).collect())
            }
            _ => Shape::Plain,
        }
    }

    /// Returns the shape of a result whose type follows from those of the arguments.
    fn derived(function: &ScalarUDF, args: &[Expr], columns: &Columns<'_>) -> Option<Shape> {
        let returns = &function.inner().downcast_ref::<MarkedFunction>()?.returns;
        let (Returns::Of(of) | Returns::ListOf(of)) = returns else { return None };
        let found = args.iter().find_map(|argument| match Shape::of(argument, columns) {
            Shape::Marked(mark) => of(mark),
            Shape::List(item) => match *item {
                Shape::Marked(mark) => of(mark),
                _ => None,
            },
            _ => None,
        });
        Some(match returns {
            Returns::ListOf(_) => Shape::List(Box::new(Shape::marked(found))),
            _ => Shape::marked(found),
        })
    }

    fn of_choice(name: &str, args: &[Expr], columns: &Columns<'_>) -> Shape {
        let Some(first) = args.first() else { return Shape::Plain };
        match name {
            "array_agg" => Shape::List(Box::new(Shape::of(first, columns))),
            // As in PostgreSQL, which has no such functions of CIDR.
            "min" | "max" if Shape::mark(first, columns) == Some(Mark::Cidr) => Shape::Marked(Mark::Inet),
            "bit_and" | "bit_or" | "bit_xor" => {
                Shape::marked(Shape::mark(first, columns).filter(|mark| mark.is_bits()).map(|_| Mark::Bit))
            }
            name if CHOOSING.contains(&name) => Shape::of(first, columns),
            _ => Shape::Plain,
        }
    }

    /// Returns the shape that expressions share. Literals take the type of the others.
    fn common<'e>(all: impl Iterator<Item = &'e Expr>, columns: &Columns<'_>) -> Shape {
        let mut shapes = all.filter(|part| !is_literal(part)).map(|part| Shape::of(part, columns));
        let Some(first) = shapes.next() else { return Shape::Plain };
        shapes.fold(first, |common, shape| match (common, shape) {
            (common, shape) if common == shape => common,
            (Shape::Marked(one), Shape::Marked(other)) => Shape::marked(one.common(other)),
            _ => Shape::Plain,
        })
    }
}

/// Returns the type that a function expects of an argument.
pub(crate) fn expected_mark(function: &ScalarUDF, at: usize) -> Option<Mark> {
    match function.inner().downcast_ref::<MarkedFunction>()?.params.get(at)? {
        Param::Value(mark) => Some(*mark),
        _ => None,
    }
}

/// True if an expression is a call of a function whose results can have a mark, or that has to be resolved by marks.
pub(crate) fn returns_marked(expression: &Expr) -> bool {
    match expression {
        Expr::ScalarFunction(call) => {
            let inner = call.func.inner();
            let is_written = inner.is::<Overloaded>()
                || inner.is::<EnumFunction>()
                || is_geometric_only(call.name())
                || call.name() == "xml_xpath";
            is_written || mark_of(&call.func).is_some()
        }
        Expr::AggregateFunction(call) => has_bits(&call.func),
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => has_bits(function),
            WindowFunctionDefinition::WindowUDF(_) => false,
        },
        _ => false,
    }
}

/// True for an aggregate that may be of bit strings.
fn has_bits(function: &AggregateUDF) -> bool {
    either::of(function).is_some_and(|either| either.takes == Takes::Texts)
}

/// Returns the mark of a function's results.
fn mark_of(function: &ScalarUDF) -> Option<Mark> {
    let inner = function.inner();
    if let Some(function) = inner.downcast_ref::<MarkedFunction>() {
        return match &function.returns {
            Returns::Marked(mark) => Some(*mark),
            Returns::Type(_) | Returns::Of(_) | Returns::ListOf(_) => None,
        };
    }
    if let Some(read) = inner.downcast_ref::<ReadText>() {
        return read.mark();
    }
    if let Some(function) = inner.downcast_ref::<EnumFunction>() {
        return function.mark();
    }
    if let Some(written) = inner.downcast_ref::<Written>() {
        return Some(written.mark);
    }
    if let Some(built) = inner.downcast_ref::<Built>() {
        return Some(built.mark);
    }
    (function.name() == "json_get_json").then_some(Mark::Json)
}

/// True if an expression is a text without a type of its own, NULL, or a parameter that can be such a text.
pub(crate) fn is_literal(expression: &Expr) -> bool {
    match expression {
        Expr::Literal(value, None) => {
            value.is_null() || matches!(value, ScalarValue::Utf8(_) | ScalarValue::Utf8View(_))
        }
        Expr::Placeholder(parameter) => parameter
            .field
            .as_ref()
            .is_none_or(|field| is_text(field.data_type()) || field.data_type().is_null()),
        _ => false,
    }
}
