//! Plans calls, operators and comparisons of geometric types, and refuses orderings, which the types lack. XML has neither
//! comparisons nor orderings.
//!
//! | written, for columns `b` and `c` of type BOX, and `p` of type POINT | planned as |
//! | --- | --- |
//! | `area(b)`, `b <-> c`, if their types weren't known before | `box_area(b)`, `box_distance(b, c)` |
//! | `b = c`, `b < c` | `box_eq(b, c)`, `box_lt(b, c)`, which compare areas |
//! | `b IN (c, '(1,1),(0,0)')`; NOT IN uses `<>` | `box_eq(b, c) OR box_eq(b, read_box('(1,1),(0,0)'))` |
//! | `b BETWEEN c AND d` | `box_ge(b, c) AND box_le(b, d)` |
//! | `b IS DISTINCT FROM c` | `NOT (b IS NULL AND c IS NULL) AND box_eq(b, c) IS NOT TRUE` |
//! | `CASE b WHEN c THEN 1 END`, `nullif(b, c)` | `CASE WHEN box_eq(b, c) THEN 1 END`, and so on |
//! | `b::POINT` | `box_center(b)` |
//! | `p = p`, `x = x` for a column `x` of type XML, `GROUP BY b`, `ORDER BY b`, `max(b)` | an error, as in PostgreSQL |

use datafusion::common::JoinType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{Case, ScalarFunction};
use datafusion::logical_expr::{Between, BinaryExpr, Distinct, Expr, LogicalPlan, Operator, SortExpr, lit};

use crate::complexity::refuse_repeated;
use crate::error::Error;
use crate::functions::geometry::overloads::{self, Given, is_geometric_only};
use crate::functions::marks::Mark;
use crate::functions::marks::catalog::is_listed;
use crate::functions::marks::columns::shape_at;
use crate::functions::marks::expressions::{Columns, is_literal};
use crate::functions::marks::function::is_text;
use crate::functions::marks::overloaded::overload;
use crate::functions::marks::shape::Shape;
use crate::functions::postgres::quantified;
use crate::functions::read_text::{Kind, ReadText};
use crate::rules::equal_forms::is_comparison;
use crate::sqlstate;

/// Returns the plan of an expression with operands of such types; none if it has none, or needs no plan of its own.
pub(super) fn resolve(expression: &Expr, columns: &Columns<'_>) -> Result<Option<Expr>> {
    let mark = |part: &Expr| mark(part, columns);
    match expression {
        Expr::ScalarFunction(call) => resolve_call(expression, call, columns),
        Expr::BinaryExpr(binary) => resolve_operator(binary, columns),
        Expr::InList(list) => {
            let all = || [list.expr.as_ref()].into_iter().chain(&list.list);
            if !all().any(|part| mark(part).is_some()) {
                return Ok(None);
            }
            refuse_repeated(&list.expr, list.list.len())?;
            let symbol = if list.negated { "<>" } else { "=" };
            let each = list.list.iter().map(|element| compared(symbol, &list.expr, element, columns));
            let joined = if list.negated { Expr::and } else { Expr::or };
            Ok(each.collect::<Result<Vec<_>>>()?.into_iter().reduce(joined))
        }
        Expr::Between(between) => resolve_between(between, columns),
        Expr::Case(case) => resolve_case(case, columns),
        Expr::InSubquery(found) => refuse_subquery(&found.expr, &found.subquery.subquery, columns),
        Expr::SetComparison(found) => refuse_subquery(&found.expr, &found.subquery.subquery, columns),
        Expr::Cast(cast) => match mark(&cast.expr) {
            Some(found) if !is_text(cast.field.data_type()) => {
                let target = millstream_delta::sql_type(cast.field.data_type());
                Err(no_cast(found, &target.to_lowercase()))
            }
            _ => Ok(None),
        },
        Expr::AggregateFunction(call) => {
            let params = &call.params;
            check_extreme(call.func.name(), &params.args, columns)?;
            if params.distinct {
                check_equal(params.args.iter().map(|part| Shape::of(part, columns)))?;
            }
            check_sorted(&params.order_by, columns)?;
            Ok(None)
        }
        Expr::WindowFunction(call) => {
            let params = &call.params;
            check_extreme(call.fun.name(), &params.args, columns)?;
            check_equal(params.partition_by.iter().map(|part| Shape::of(part, columns)))?;
            check_sorted(&params.order_by, columns)?;
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// Returns the type of an expression, if it is geometric or XML.
fn mark(expression: &Expr, columns: &Columns<'_>) -> Option<Mark> {
    Shape::mark(expression, columns).filter(|mark| mark.is_unordered())
}

/// Returns such a type of the values within a shape.
fn within(shape: &Shape) -> Option<Mark> {
    match shape {
        Shape::Plain => None,
        Shape::Marked(mark) => Some(*mark).filter(|mark| mark.is_unordered()),
        Shape::List(item) => within(item),
        Shape::Row(parts) => parts.iter().find_map(within),
    }
}

/// Builds a comparison of two shapes.
fn compared(symbol: &str, left: &Expr, right: &Expr, columns: &Columns<'_>) -> Result<Expr> {
    Ok(overloads::plan(symbol, vec![left.clone(), right.clone()], columns)?)
}

fn resolve_call(expression: &Expr, call: &ScalarFunction, columns: &Columns<'_>) -> Result<Option<Expr>> {
    let name = call.name();
    let args = call.args.as_slice();
    let first = args.first().and_then(|value| mark(value, columns));
    if let Some(target) = ReadText::mark_of(expression) {
        return resolve_cast(target, first, args);
    }
    let is_unresolved = is_geometric_only(name) || name == "#";
    if is_unresolved && is_listed(&call.func) {
        return Ok(Some(match (args, Mark::named(name)) {
            // `point('(1,2)')` is a cast.
            ([text], Some(mark)) if is_literal(text) => {
                ReadText::call(Kind::Marked(mark), false, text.clone())
            }
            _ => overloads::plan(name, args.to_vec(), columns)?,
        }));
    }
    if quantified::operands(call).is_some_and(|(value, array)| {
        [value, array].iter().any(|part| within(&Shape::of(part, columns)).is_some())
    }) {
        let found = args.iter().find_map(|part| within(&Shape::of(part, columns)));
        return found.map_or(Ok(None), |mark| Err(unequal(mark)));
    }
    let Some(any) = args.iter().find_map(|value| mark(value, columns)) else { return Ok(None) };
    match (name, args) {
        ("greatest" | "least", _) => {
            Err(Error::invalid(format!("could not identify a comparison function for type {}", any.name()))
                .hint(match any {
                    Mark::Xml => "Compare the texts: x::TEXT.",
                    _ => "Compare areas or lengths, as in greatest(area(x), area(y)).",
                })
                .code(sqlstate::UNDEFINED_FUNCTION)
                .into())
        }
        ("nullif", [value, other]) => {
            refuse_repeated(value, 2)?;
            let is_equal = compared("=", value, other, columns)?;
            let cases = vec![(Box::new(is_equal), Box::new(lit(datafusion::common::ScalarValue::Null)))];
            Ok(Some(Expr::Case(Case::new(None, cases, Some(Box::new(value.clone()))))))
        }
        _ => Ok(None),
    }
}

/// Plans a cast to a type that is stored as text, from a geometric type.
fn resolve_cast(target: Mark, from: Option<Mark>, args: &[Expr]) -> Result<Option<Expr>> {
    match (from, args) {
        (Some(from), [value]) if from == target => Ok(Some(value.clone())),
        (Some(from), _) if overload(&format!("read_{}", target.name()), &[Some(from)]).is_none() => {
            Err(no_cast(from, target.name()))
        }
        _ => Ok(None),
    }
}

/// Returns an operator as it is written, if shapes have it.
fn symbol(op: Operator) -> Option<&'static str> {
    Some(match op {
        Operator::Eq => "=",
        Operator::NotEq => "<>",
        Operator::Lt => "<",
        Operator::LtEq => "<=",
        Operator::Gt => ">",
        Operator::GtEq => ">=",
        Operator::Plus => "+",
        Operator::Minus => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::BitwiseShiftLeft => "<<",
        Operator::BitwiseShiftRight => ">>",
        Operator::AtArrow => "@>",
        Operator::ArrowAt => "<@",
        Operator::BitwiseXor => "#",
        _ => return None,
    })
}

fn resolve_operator(binary: &BinaryExpr, columns: &Columns<'_>) -> Result<Option<Expr>> {
    let BinaryExpr { left, op, right } = binary;
    if matches!(op, Operator::And | Operator::Or) {
        return Ok(None);
    }
    let sides = [left, right].map(|side| Shape::of(side, columns));
    let Some(found) = sides.iter().find_map(within) else { return Ok(None) };
    let is_plain = sides.iter().all(|side| matches!(side, Shape::Plain | Shape::Marked(_)));
    match op {
        _ if !is_plain && is_comparison(*op) => Err(unequal(found)),
        _ if !is_plain => Ok(None),
        Operator::IsDistinctFrom | Operator::IsNotDistinctFrom => {
            let is_equal = compared("=", left, right, columns)?;
            let is_null = |side: &Expr| Expr::IsNull(Box::new(side.clone()));
            let are_null = is_null(left).and(is_null(right));
            let is_same = are_null.or(Expr::IsTrue(Box::new(is_equal)));
            Ok(Some(match op {
                Operator::IsNotDistinctFrom => is_same,
                _ => Expr::Not(Box::new(is_same)),
            }))
        }
        // A shape and a text are joined as texts.
        Operator::StringConcat if sides.iter().any(|side| within(side).is_none()) => Ok(None),
        op => match symbol(*op) {
            Some(symbol) => Ok(Some(compared(symbol, left, right, columns)?)),
            None => {
                let given = [left, right].map(|side| Given::of(side, columns));
                Err(overloads::missing(&op.to_string(), &given).into())
            }
        },
    }
}

fn resolve_between(between: &Between, columns: &Columns<'_>) -> Result<Option<Expr>> {
    let Between { expr, negated, low, high } = between;
    if [expr, low, high].iter().all(|part| mark(part, columns).is_none()) {
        return Ok(None);
    }
    let within = compared(">=", expr, low, columns)?.and(compared("<=", expr, high, columns)?);
    Ok(Some(if *negated { Expr::Not(Box::new(within)) } else { within }))
}

/// Plans a CASE that compares a shape as one with conditions.
fn resolve_case(case: &Case, columns: &Columns<'_>) -> Result<Option<Expr>> {
    let Some(operand) = &case.expr else { return Ok(None) };
    let whens = case.when_then_expr.iter().map(|(when, _)| when);
    if [operand].into_iter().chain(whens).all(|part| mark(part, columns).is_none()) {
        return Ok(None);
    }
    refuse_repeated(operand, case.when_then_expr.len())?;
    let cases = case
        .when_then_expr
        .iter()
        .map(|(when, then)| Ok((Box::new(compared("=", operand, when, columns)?), then.clone())));
    let cases = cases.collect::<Result<Vec<_>>>()?;
    Ok(Some(Expr::Case(Case::new(None, cases, case.else_expr.clone()))))
}

/// Fails for a shape that is compared with those of a subquery.
fn refuse_subquery(value: &Expr, plan: &LogicalPlan, columns: &Columns<'_>) -> Result<Option<Expr>> {
    let given = if plan.schema().fields().is_empty() { Shape::Plain } else { shape_at(plan, 0) };
    let found = mark(value, columns).or_else(|| within(&given));
    let Some(found) = found else { return Ok(None) };
    let what = format!("IN, ANY or ALL with a subquery of type {}", found.name());
    Err(Error::unsupported(what).hint("Use EXISTS (SELECT … WHERE x = y).").into())
}

/// Fails for a node that compares or sorts shapes.
pub(super) fn check(node: &LogicalPlan, columns: &Columns<'_>) -> Result<()> {
    let of = |part: &Expr| Shape::of(part, columns);
    match node {
        LogicalPlan::Sort(sort) => check_sorted(&sort.expr, columns),
        LogicalPlan::Aggregate(node) => check_equal(node.group_expr.iter().map(of)),
        LogicalPlan::Distinct(Distinct::On(on)) => {
            check_sorted(on.sort_expr.as_deref().unwrap_or_default(), columns)?;
            check_equal(on.on_expr.iter().map(of))
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            check_equal((0..input.schema().fields().len()).map(|at| shape_at(input, at)))
        }
        LogicalPlan::RecursiveQuery(query) if query.is_distinct => {
            let input = &query.static_term;
            check_equal((0..input.schema().fields().len()).map(|at| shape_at(input, at)))
        }
        // INTERSECT and EXCEPT are joins of these kinds.
        LogicalPlan::Join(join) if matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti) => {
            check_equal(join.on.iter().flat_map(|(left, right)| [of(left), of(right)]))
        }
        LogicalPlan::Join(join) => {
            let sides =
                join.on.iter().map(|(left, right)| [left, right].map(|side| Given::of(side, columns)));
            let found = sides.into_iter().find(|sides| sides.iter().any(|side| side.is_unordered()));
            found.map_or(Ok(()), |sides| Err(overloads::missing("=", &sides).into()))
        }
        _ => Ok(()),
    }
}

fn check_equal(mut shapes: impl Iterator<Item = Shape>) -> Result<()> {
    shapes.find_map(|shape| within(&shape)).map_or(Ok(()), |mark| Err(unequal(mark)))
}

fn check_sorted(sorted: &[SortExpr], columns: &Columns<'_>) -> Result<()> {
    let found = sorted.iter().find_map(|part| within(&Shape::of(&part.expr, columns)));
    let Some(mark) = found else { return Ok(()) };
    Err(Error::invalid(format!("could not identify an ordering operator for type {}", mark.name()))
        .hint(match mark {
            Mark::Xml => "Order by the text: x::TEXT.",
            _ => "Order by a number, such as a distance or an area, or by the text: x::TEXT.",
        })
        .code(sqlstate::UNDEFINED_FUNCTION)
        .into())
}

fn check_extreme(name: &str, args: &[Expr], columns: &Columns<'_>) -> Result<()> {
    let found = args.first().and_then(|value| mark(value, columns));
    match found.filter(|_| matches!(name, "min" | "max")) {
        Some(mark) => Err(Error::invalid(format!("function {name}({}) does not exist", mark.name()))
            .hint(match mark {
                Mark::Xml => format!("Aggregate the text: {name}(x::TEXT)."),
                _ => format!("Aggregate a number, such as an area, or the text: {name}(x::TEXT)."),
            })
            .code(sqlstate::UNDEFINED_FUNCTION)
            .into()),
        None => Ok(()),
    }
}

fn unequal(mark: Mark) -> DataFusionError {
    Error::invalid(format!("could not identify an equality operator for type {}", mark.name()))
        .hint("Compare the texts: x::TEXT.")
        .code(sqlstate::UNDEFINED_FUNCTION)
        .into()
}

fn no_cast(from: Mark, target: &str) -> DataFusionError {
    Error::invalid(format!("cannot cast type {} to {target}", from.name()))
        .hint("Cast it to TEXT, or use a function that returns the type.")
        .code(sqlstate::CANNOT_COERCE)
        .into()
}
