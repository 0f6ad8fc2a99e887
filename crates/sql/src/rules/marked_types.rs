//! Resolves which values are JSON, UUIDs or addresses, once and for all: functions that build JSON get it as a literal
//! argument.
//!
//! | written, for a column `j` of type JSONB | planned as |
//! | --- | --- |
//! | `jsonb_build_object('a', j)` | `jsonb_built('jsonb_build_object o.j', 'a', j)` |
//! | `j = '{"b":1}'`, `j IN ('1')`, `coalesce(j, '{}')` | the literal becomes JSONB: `j = read_jsonb('{"b":1}')` |
//! | `j < k` | `jsonb_cmp(j, k) < 0` |
//! | `j BETWEEN k AND l` | `jsonb_cmp(j, k) >= 0 AND jsonb_cmp(j, l) <= 0` |
//! | `greatest(j, k)` | `jsonb_greatest(j, k)` |
//! | `m || '{}'`, for a column `m` of a subquery whose field has no mark | `jsonb_concat(m, '{}')` |
//! | `j::INT` | `jsonb_number_text(j, 'integer')::INT` |
//! | `pg_typeof(j)` | `'jsonb'` |
//!
//! | written, for a column `i` of type INET | planned as |
//! | --- | --- |
//! | `i < k` | `inet_key(i) < inet_key(k)` |
//! | `greatest(i, k)` | `inet_of_key(greatest(inet_key(i), inet_key(k)))` |
//! | `i = c`, for a column `c` of type CIDR | `i = inet_of_cidr(c)` |
//! | `abbrev(c)` | `abbrev_cidr(c)` |
//! | `i::TEXT` | `inet_text(i)` |
//! | ORDER BY, `min` and `max` | see [`super::marked_order`] |
//!
//! Geometric types, bit strings and XML have rules of their own: see [`super::marked_geometry`], [`super::marked_bits`] and
//! [`super::marked_xml`].
//!
//! Plans that run don't depend on the marks of fields, which operators of a continuous query don't keep.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Cast, InList, ScalarFunction};
use datafusion::logical_expr::{
    Between, BinaryExpr, Expr, LogicalPlan, Operator, WindowFunctionDefinition, lit,
};
use datafusion::optimizer::AnalyzerRule;

use super::marked_bits;
use super::marked_geometry;
use super::marked_order::{self, key_of};
use super::marked_pairs;
use super::marked_xml;
use crate::functions::json::build::Written;
use crate::functions::marks::catalog::call;
use crate::functions::marks::columns::{column_of, shape_at};
use crate::functions::marks::enum_type::EnumType;
use crate::functions::marks::enums::EnumFunction;
use crate::functions::marks::expressions::{Columns, expected_mark, is_literal, passes, returns_marked};
use crate::functions::marks::function::is_text;
use crate::functions::marks::overloaded::{Overloaded, overload};
use crate::functions::marks::shape::{EITHER, Shape};
use crate::functions::marks::{Mark, Order};
use crate::functions::read_text::{Kind, ReadText};
use crate::functions::text_search;
use crate::rules::equal_forms::is_comparison;
use crate::rules::names::{has_part, map_named};
use crate::tree_rewrite::TreeRewrite;

/// The analyzer rule.
#[derive(Debug, Default)]
pub struct MarkedTypes;

impl AnalyzerRule for MarkedTypes {
    fn name(&self) -> &str {
        "marked_types"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        match has_marked(&plan)? {
            true => Ok(plan.rewrite_up(resolve_in)?.data),
            false => Ok(plan),
        }
    }
}

/// True if a value in a plan has a mark.
fn has_marked(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= node.schema().fields().iter().any(|field| Mark::of(field).is_some());
        found = found || has_part(node, returns_marked)?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn resolve_in(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let inputs: Vec<LogicalPlan> = node.inputs().into_iter().cloned().collect();
    let columns = |column: &Column| column_of(&inputs, column);
    let is_condition = matches!(node, LogicalPlan::Join(_) | LogicalPlan::Filter(_));
    let resolved = map_named(node, |expression| {
        expression.rewrite_up(|part| {
            let resolved = resolve(part, &columns)?;
            Ok(match ReadText::in_condition(&resolved.data).filter(|_| is_condition) {
                Some(named) => Transformed::yes(named),
                None => resolved,
            })
        })
    })?;
    marked_pairs::check(&resolved.data)?;
    marked_geometry::check(&resolved.data, &columns)?;
    resolved.transform_data(|node| marked_order::order_in(node, &columns))
}

fn resolve(expression: Expr, columns: &Columns<'_>) -> Result<Transformed<Expr>> {
    if let Some(planned) = marked_geometry::resolve(&expression, columns)? {
        let planned = resolve_case(planned, columns);
        return Ok(Transformed { transformed: true, ..planned });
    }
    if let Some(planned) = marked_bits::resolve(&expression, columns)? {
        return Ok(Transformed::yes(planned));
    }
    match expression {
        Expr::ScalarFunction(mut call) => {
            let changed = marked_xml::prepare(&mut call, columns)?;
            let resolved = resolve_call(call, columns);
            Ok(Transformed { transformed: changed || resolved.transformed, ..resolved })
        }
        Expr::BinaryExpr(compared) => Ok(resolve_comparison(compared, columns)),
        Expr::InList(mut list) => {
            let InList { expr, list: elements, .. } = &mut list;
            let mut operands: Vec<&mut Expr> = [expr.as_mut()].into_iter().chain(elements).collect();
            let changed = Adapted::of(&mut operands, columns, true).is_some_and(|adapted| adapted.is_changed);
            Ok(Transformed::new_transformed(Expr::InList(list), changed))
        }
        Expr::InSubquery(mut found) => {
            let given = shape_at(&found.subquery.subquery, 0);
            let changed = read_as(&mut found.expr, given.clone());
            marked_pairs::refuse_different("IN", &Shape::of(&found.expr, columns), &given)?;
            Ok(Transformed::new_transformed(Expr::InSubquery(found), changed))
        }
        Expr::Case(_) => Ok(resolve_case(expression, columns)),
        Expr::Between(between) => Ok(resolve_between(between, columns)),
        Expr::SetComparison(comparison) => marked_order::set_comparison(comparison, columns),
        Expr::AggregateFunction(mut call) => {
            let resolved = marked_bits::resolve_aggregate(&mut call.func, &call.params.args, columns);
            let changed = resolved | marked_order::keys(&mut call.params.order_by, columns);
            Ok(Transformed::new_transformed(Expr::AggregateFunction(call), changed))
        }
        Expr::WindowFunction(mut call) => {
            let resolved = match &mut call.fun {
                WindowFunctionDefinition::AggregateUDF(function) => {
                    marked_bits::resolve_aggregate(function, &call.params.args, columns)
                }
                WindowFunctionDefinition::WindowUDF(_) => false,
            };
            let changed = resolved | marked_order::keys(&mut call.params.order_by, columns);
            Ok(Transformed::new_transformed(Expr::WindowFunction(call), changed))
        }
        Expr::Cast(Cast { expr, field }) => match cast_input(&expr, field.data_type(), columns) {
            Some(text) => Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(text), field }))),
            None => Ok(Transformed::no(Expr::Cast(Cast { expr, field }))),
        },
        other => Ok(Transformed::no(other)),
    }
}

/// Operands that have got one type.
struct Adapted {
    mark: Mark,
    is_changed: bool,
    /// True if all operands have the type: none is a text of unknown form.
    is_complete: bool,
}

impl Adapted {
    /// Gives operands the type that they have in common, and literals too. Returns none if they have none. As in
    /// PostgreSQL, a CIDR is compared with a literal as INET.
    fn of(operands: &mut [&mut Expr], columns: &Columns<'_>, is_compared: bool) -> Option<Adapted> {
        let marks: Vec<Option<Mark>> = operands.iter().map(|part| Shape::mark(part, columns)).collect();
        let mut known = marks.iter().flatten().copied();
        let first = known.next()?;
        let mut mark = known.try_fold(first, Mark::common)?;
        if mark == Mark::Json {
            return None;
        }
        if is_compared && mark == Mark::Cidr && operands.iter().any(|part| is_written(part)) {
            mark = Mark::Inet;
        }
        let (mut is_changed, mut is_complete) = (false, true);
        for (operand, found) in operands.iter_mut().zip(marks) {
            is_complete &= found.is_some() || is_literal(operand);
            if is_written(operand) {
                **operand = ReadText::call(Kind::Marked(mark), false, std::mem::take(*operand));
                is_changed = true;
            } else if let Some(converted) = found.and_then(|found| converted(operand, found, mark)) {
                **operand = converted;
                is_changed = true;
            }
        }
        Some(Adapted { mark, is_changed, is_complete })
    }
}

/// Returns a value in the type that it is compared in, if it has another.
fn converted(value: &Expr, from: Mark, to: Mark) -> Option<Expr> {
    let name = match (from, to) {
        (Mark::Cidr, Mark::Inet) => "inet_of_cidr",
        (Mark::Macaddr, Mark::Macaddr8) => "macaddr8_of_macaddr",
        _ => return None,
    };
    call(name, vec![value.clone()])
}

/// Reads a literal as a value of the type that it is compared with. Returns true if it is one.
fn read_as(operand: &mut Expr, other: Shape) -> bool {
    let Shape::Marked(mark) = other else { return false };
    let is_read = is_written(operand) && mark != Mark::Json;
    if is_read {
        *operand = ReadText::call(Kind::Marked(mark), false, std::mem::take(operand));
    }
    is_read
}

/// True for a literal text, or a parameter.
fn is_written(operand: &Expr) -> bool {
    is_literal(operand) && !matches!(operand, Expr::Literal(value, _) if value.is_null())
}

fn resolve_call(mut written: ScalarFunction, columns: &Columns<'_>) -> Transformed<Expr> {
    if let Some(function) = written.func.inner().downcast_ref::<Written>() {
        let shapes: Vec<Shape> = written.args.iter().map(|part| Shape::of(part, columns)).collect();
        return Transformed::yes(function.resolved(written.args.clone(), &shapes));
    }
    if written.name() == EITHER {
        return Transformed::yes(unnested(written, columns));
    }
    let reads = read_ranges(&mut written, columns);
    let marks: Vec<Option<Mark>> = written.args.iter().map(|value| Shape::mark(value, columns)).collect();
    let first = marks.first().copied().flatten();
    if let Some(function) = written.func.inner().downcast_ref::<Overloaded>() {
        let func = function.resolved(&marks);
        return Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: written.args }));
    }
    if let Some(function) = written.func.inner().downcast_ref::<EnumFunction>()
        && !function.is_resolved()
        && let Some(of) = written.args.iter().find_map(|value| enum_of(value, columns))
    {
        let func = Arc::new(function.resolved(of));
        return Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: written.args }));
    }
    if let Some(mark) = first.filter(|_| written.name() == "sql_typeof") {
        return Transformed::yes(lit(mark.shown()));
    }
    if let Some(found) = overload(written.name(), &marks).and_then(|name| call(name, written.args.clone())) {
        return Transformed::yes(found);
    }
    if !passes(written.name()) && written.name() != "make_array" {
        return Transformed::new_transformed(Expr::ScalarFunction(written), reads);
    }
    let skipped = usize::from(written.name() == "nvl2");
    let mut operands: Vec<&mut Expr> = written.args.iter_mut().skip(skipped).collect();
    let adapted = Adapted::of(&mut operands, columns, written.func.name() == "nullif");
    match adapted {
        Some(adapted) => match extreme(&written, &adapted) {
            Some(found) => Transformed::yes(found),
            None => Transformed::new_transformed(Expr::ScalarFunction(written), adapted.is_changed),
        },
        None => Transformed::no(Expr::ScalarFunction(written)),
    }
}

/// Returns the enum type of a value.
fn enum_of(value: &Expr, columns: &Columns<'_>) -> Option<&'static EnumType> {
    match Shape::mark(value, columns) {
        Some(Mark::Enum(of)) => Some(of),
        _ => None,
    }
}

/// Reads the literals among the arguments of a function of ranges. Returns true if there are any.
fn read_ranges(written: &mut ScalarFunction, columns: &Columns<'_>) -> bool {
    let expected = |at: usize| expected_mark(&written.func, at).filter(|mark| mark.is_range());
    let found = || written.args.iter().find_map(|argument| Shape::mark(argument, columns));
    let mark = if written.name().starts_with("range_") { found() } else { expected(0) };
    let Some(mark) = mark else { return false };
    let mut changed = false;
    for argument in &mut written.args {
        changed |= read_as(argument, Shape::Marked(mark));
    }
    changed
}

/// Returns the array whose elements `unnest` returns.
fn unnested(written: ScalarFunction, columns: &Columns<'_>) -> Expr {
    match written.args.as_slice() {
        [multirange] if Shape::mark(multirange, columns).is_some() => {
            call("multirange_elements", vec![multirange.clone()]).unwrap_or(Expr::ScalarFunction(written))
        }
        [array] => array.clone(),
        _ => Expr::ScalarFunction(written),
    }
}

/// Returns `greatest` or `least` in the order of a type.
fn extreme(written: &ScalarFunction, adapted: &Adapted) -> Option<Expr> {
    let is_greatest = match written.name() {
        "greatest" => true,
        "least" => false,
        _ => return None,
    };
    if !adapted.is_complete {
        return None;
    }
    match adapted.mark.order()? {
        Order::Text => None,
        Order::Compared { greatest, least, .. } => {
            call(if is_greatest { greatest } else { least }, written.args.clone())
        }
        Order::Key { key, value } => {
            let args = written.args.iter().map(|part| call(key, vec![part.clone()]));
            let args = args.collect::<Option<Vec<Expr>>>()?;
            call(value, vec![Expr::ScalarFunction(ScalarFunction { func: written.func.clone(), args })])
        }
    }
}

fn resolve_case(mut expression: Expr, columns: &Columns<'_>) -> Transformed<Expr> {
    let Expr::Case(case) = &mut expression else { return Transformed::no(expression) };
    let results = case.when_then_expr.iter_mut().map(|(_, then)| then).chain(&mut case.else_expr);
    let mut results: Vec<&mut Expr> = results.map(AsMut::as_mut).collect();
    let is_changed = |adapted: Option<Adapted>| adapted.is_some_and(|adapted| adapted.is_changed);
    let mut changed = is_changed(Adapted::of(&mut results, columns, false));
    if let Some(operand) = &mut case.expr {
        let whens = case.when_then_expr.iter_mut().map(|(when, _)| when.as_mut());
        let mut operands: Vec<&mut Expr> = [operand.as_mut()].into_iter().chain(whens).collect();
        changed |= is_changed(Adapted::of(&mut operands, columns, true));
    }
    Transformed::new_transformed(expression, changed)
}

/// Plans BETWEEN as comparisons in the order of a type.
fn resolve_between(mut between: Between, columns: &Columns<'_>) -> Transformed<Expr> {
    let mut sides = [between.expr.as_mut(), between.low.as_mut(), between.high.as_mut()];
    let Some(adapted) = Adapted::of(&mut sides, columns, true) else {
        return Transformed::no(Expr::Between(between));
    };
    let order = adapted.mark.order().filter(|_| adapted.is_complete);
    let compared = |bound: &Expr| {
        let sides = vec![between.expr.as_ref().clone(), bound.clone()];
        match order? {
            Order::Compared { by, .. } => call(by, sides),
            _ => None,
        }
    };
    if let (Some(low), Some(high)) = (compared(&between.low), compared(&between.high)) {
        let within = low.gt_eq(lit(0_i32)).and(high.lt_eq(lit(0_i32)));
        return Transformed::yes(if between.negated { Expr::Not(Box::new(within)) } else { within });
    }
    let mut changed = adapted.is_changed;
    if let Some(Order::Key { key, .. }) = order {
        for side in [&mut between.expr, &mut between.low, &mut between.high] {
            changed |= key_of(side, key);
        }
    }
    Transformed::new_transformed(Expr::Between(between), changed)
}

/// Plans an operator of JSONB, of ranges or of full text search whose operands have no marks in their fields: columns of subqueries
/// that compute them with CASE and the like.
fn resolve_operator(written: &BinaryExpr, columns: &Columns<'_>) -> Option<Expr> {
    let BinaryExpr { left, op, right } = written;
    let range_mark = |side: &Expr| Shape::mark(side, columns).filter(|mark| mark.is_range());
    if let Some(mark) = range_mark(left).or_else(|| range_mark(right)) {
        let name = match op {
            Operator::AtArrow => "range_contains",
            Operator::ArrowAt => "range_contained",
            Operator::Minus => "range_minus",
            _ => return None,
        };
        let mut sides = vec![left.as_ref().clone(), right.as_ref().clone()];
        for side in &mut sides {
            read_as(side, Shape::Marked(mark));
        }
        return call(name, sides);
    }
    let marks = (Shape::mark(left, columns), Shape::mark(right, columns));
    if let Some(name) = text_search::operators::function(*op, left, right, marks) {
        return call(name, vec![left.as_ref().clone(), right.as_ref().clone()]);
    }
    let json_mark = |mark: Option<Mark>| mark.filter(|mark| mark.is_json());
    let marks = (json_mark(marks.0), json_mark(marks.1));
    let is_jsonb = |mark: Option<Mark>, side: &Expr| mark == Some(Mark::Jsonb) || is_literal(side);
    let name = match op {
        Operator::StringConcat
            if marks.0.or(marks.1) == Some(Mark::Jsonb)
                && is_jsonb(marks.0, left)
                && is_jsonb(marks.1, right) =>
        {
            "jsonb_concat"
        }
        Operator::AtArrow if marks.0.or(marks.1).is_some() => "jsonb_contains",
        Operator::ArrowAt if marks.0.or(marks.1).is_some() => "jsonb_contained",
        Operator::Minus if marks.0 == Some(Mark::Jsonb) => match right.as_ref() {
            Expr::Literal(place, _) if place.data_type().is_integer() => "jsonb_delete_index",
            side if is_literal(side) => "jsonb_delete_key",
            _ => return None,
        },
        _ => return None,
    };
    call(name, vec![left.as_ref().clone(), right.as_ref().clone()])
}

fn resolve_comparison(mut compared: BinaryExpr, columns: &Columns<'_>) -> Transformed<Expr> {
    use Operator::{Gt, GtEq, Lt, LtEq, StringConcat};
    if let Some(planned) = resolve_operator(&compared, columns) {
        return Transformed::yes(planned);
    }
    if compared.op == StringConcat {
        let mut changed = false;
        for side in [&mut compared.left, &mut compared.right] {
            if let Some(text) = cast_input(side, &DataType::Utf8View, columns) {
                **side = text;
                changed = true;
            }
        }
        return Transformed::new_transformed(Expr::BinaryExpr(compared), changed);
    }
    if !is_comparison(compared.op) {
        return Transformed::no(Expr::BinaryExpr(compared));
    }
    let orders = matches!(compared.op, Lt | LtEq | Gt | GtEq);
    let mut sides = [compared.left.as_mut(), compared.right.as_mut()];
    let Some(adapted) = Adapted::of(&mut sides, columns, true) else {
        return Transformed::no(Expr::BinaryExpr(compared));
    };
    let mut changed = adapted.is_changed;
    match adapted.mark.order().filter(|_| orders && adapted.is_complete) {
        Some(Order::Compared { by, .. }) => {
            let sides = vec![(*compared.left).clone(), (*compared.right).clone()];
            if let Some(order) = call(by, sides) {
                compared = BinaryExpr::new(Box::new(order), compared.op, Box::new(lit(0_i32)));
                changed = true;
            }
        }
        Some(Order::Key { key, .. }) => {
            changed |= key_of(&mut compared.left, key);
            changed |= key_of(&mut compared.right, key);
        }
        Some(Order::Text) | None => {}
    }
    Transformed::new_transformed(Expr::BinaryExpr(compared), changed)
}

/// Returns what a cast to another type reads: the text of a number or boolean in JSONB, or that of an INET, which always
/// has the length of its prefix.
fn cast_input(value: &Expr, target: &DataType, columns: &Columns<'_>) -> Option<Expr> {
    if is_text(target) {
        let mark = Shape::mark(value, columns)?;
        return call(overload("text", &[Some(mark)])?, vec![value.clone()]);
    }
    let name = match target {
        DataType::Boolean => {
            Shape::mark(value, columns).filter(|mark| mark.is_json())?;
            return call("jsonb_boolean_text", vec![value.clone()]);
        }
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint",
        DataType::Int32 | DataType::UInt16 => "integer",
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "bigint",
        DataType::Float16 | DataType::Float32 => "real",
        DataType::Float64 => "double precision",
        target if target.is_decimal() => "numeric",
        _ => return None,
    };
    Shape::mark(value, columns).filter(|mark| mark.is_json())?;
    call("jsonb_number_text", vec![value.clone(), lit(name)])
}
