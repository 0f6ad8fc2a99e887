//! Resolves which values are JSON, once and for all: functions that build JSON get it as a literal argument.
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
//! Plans that run don't depend on the marks of fields, which operators of a continuous query don't keep.

use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Cast, InList, ScalarFunction, TryCast};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, LogicalPlan, Operator, lit};
use datafusion::optimizer::AnalyzerRule;

use crate::functions::json::build::Written;
use crate::functions::json::catalog::call;
use crate::functions::json::columns::column_in;
use crate::functions::json::marks::Mark;
use crate::functions::json::shape::Shape;
use crate::functions::json::shapes::{Columns, is_literal, passes, returns_json};
use crate::functions::read_text::{Kind, ReadText};
use crate::rules::names::map_named;

/// The analyzer rule.
#[derive(Debug, Default)]
pub struct JsonTypes;

impl AnalyzerRule for JsonTypes {
    fn name(&self) -> &str {
        "json_types"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        match has_json(&plan)? {
            true => Ok(plan.transform_up_with_subqueries(resolve_in)?.data),
            false => Ok(plan),
        }
    }
}

/// True if a value in a plan is JSON.
fn has_json(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= node.schema().fields().iter().any(|field| Mark::of(field).is_some());
        if !found {
            node.apply_expressions(|expression| {
                found |= expression.exists(|part| Ok(returns_json(part)))?;
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn resolve_in(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let inputs: Vec<LogicalPlan> = node.inputs().into_iter().cloned().collect();
    let columns = |column: &Column| {
        let known = inputs.iter().find(|input| input.schema().has_column(column));
        known.map_or(Shape::Plain, |input| column_in(input, column))
    };
    map_named(node, |expression| expression.transform_up(|part| resolve(part, &columns)))
}

fn resolve(expression: Expr, columns: &Columns<'_>) -> Result<Transformed<Expr>> {
    match expression {
        Expr::ScalarFunction(call) => Ok(resolve_call(call, columns)),
        Expr::BinaryExpr(compared) => Ok(resolve_comparison(compared, columns)),
        Expr::InList(mut list) if Shape::mark(&list.expr, columns) == Some(Mark::Jsonb) => {
            let InList { list: elements, .. } = &mut list;
            let changed = count(elements.iter_mut().map(canonical)) > 0;
            Ok(Transformed::new_transformed(Expr::InList(list), changed))
        }
        Expr::Case(_) => Ok(resolve_case(expression, columns)),
        Expr::Between(between) => Ok(resolve_between(between, columns)),
        Expr::Cast(Cast { expr, field }) => match scalar_text(&expr, field.data_type(), columns) {
            Some(text) => Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(text), field }))),
            None => Ok(Transformed::no(Expr::Cast(Cast { expr, field }))),
        },
        Expr::TryCast(TryCast { expr, field }) => Ok(Transformed::no(Expr::TryCast(TryCast { expr, field }))),
        other => Ok(Transformed::no(other)),
    }
}

/// Returns the number of changes. All of them are made.
fn count(changes: impl Iterator<Item = bool>) -> usize {
    changes.filter(|changed| *changed).count()
}

/// Makes a literal text canonical.
fn canonical(literal: &mut Expr) -> bool {
    let is_text = is_literal(literal) && !matches!(literal, Expr::Literal(value, _) if value.is_null());
    if is_text {
        *literal = ReadText::call(Kind::Jsonb, false, std::mem::take(literal));
    }
    is_text
}

fn resolve_call(mut written: ScalarFunction, columns: &Columns<'_>) -> Transformed<Expr> {
    if let Some(function) = written.func.inner().downcast_ref::<Written>() {
        let shapes: Vec<Shape> = written.args.iter().map(|part| Shape::of(part, columns)).collect();
        return Transformed::yes(function.resolved(written.args.clone(), &shapes));
    }
    if let ("sql_typeof", [value]) = (written.name(), &written.args[..])
        && let Some(mark) = Shape::mark(value, columns)
    {
        return Transformed::yes(lit(mark.type_name().to_lowercase()));
    }
    let all_jsonb = |args: &[Expr]| {
        let is_jsonb = |part: &Expr| Shape::mark(part, columns) == Some(Mark::Jsonb);
        args.iter().any(is_jsonb) && args.iter().all(|part| is_jsonb(part) || is_literal(part))
    };
    let extreme = match written.name() {
        "greatest" => Some("jsonb_greatest"),
        "least" => Some("jsonb_least"),
        _ => None,
    };
    if let Some(name) = extreme
        && all_jsonb(&written.args)
        && let Some(found) = call(name, written.args.clone())
    {
        return Transformed::yes(found);
    }
    let changed = passes(written.name())
        && written.args.iter().any(|part| Shape::mark(part, columns) == Some(Mark::Jsonb))
        && count(written.args.iter_mut().map(canonical)) > 0;
    Transformed::new_transformed(Expr::ScalarFunction(written), changed)
}

fn resolve_case(mut expression: Expr, columns: &Columns<'_>) -> Transformed<Expr> {
    let is_jsonb = Shape::mark(&expression, columns) == Some(Mark::Jsonb);
    let Expr::Case(case) = &mut expression else { return Transformed::no(expression) };
    let mut changes = 0;
    if is_jsonb {
        let results = case.when_then_expr.iter_mut().map(|(_, then)| then).chain(&mut case.else_expr);
        changes += count(results.map(|result| canonical(result)));
    }
    if let Some(operand) = &mut case.expr {
        let is_jsonb = |part: &Expr| Shape::mark(part, columns) == Some(Mark::Jsonb);
        if is_jsonb(operand) {
            changes += count(case.when_then_expr.iter_mut().map(|(when, _)| canonical(when)));
        } else if case.when_then_expr.iter().any(|(when, _)| is_jsonb(when)) {
            changes += count(std::iter::once(canonical(operand)));
        }
    }
    Transformed::new_transformed(expression, changes > 0)
}

/// Plans BETWEEN as comparisons of JSONB.
fn resolve_between(between: Between, columns: &Columns<'_>) -> Transformed<Expr> {
    let sides: [&Expr; 3] = [&between.expr, &between.low, &between.high];
    let is_jsonb = |part: &&Expr| Shape::mark(part, columns) == Some(Mark::Jsonb);
    if !sides.iter().any(is_jsonb) || !sides.iter().all(|part| is_jsonb(part) || is_literal(part)) {
        return Transformed::no(Expr::Between(between));
    }
    let compared = |bound: &Expr| call("jsonb_cmp", vec![between.expr.as_ref().clone(), bound.clone()]);
    match (compared(&between.low), compared(&between.high)) {
        (Some(low), Some(high)) => {
            let within = low.gt_eq(lit(0_i32)).and(high.lt_eq(lit(0_i32)));
            Transformed::yes(if between.negated { Expr::Not(Box::new(within)) } else { within })
        }
        _ => Transformed::no(Expr::Between(between)),
    }
}

/// Plans an operator of JSONB whose operands have no marks in their fields: columns of subqueries that compute them
/// with CASE and the like.
fn resolve_operator(written: &BinaryExpr, columns: &Columns<'_>) -> Option<Expr> {
    let BinaryExpr { left, op, right } = written;
    let marks = (Shape::mark(left, columns), Shape::mark(right, columns));
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
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    if let Some(planned) = resolve_operator(&compared, columns) {
        return Transformed::yes(planned);
    }
    let orders = matches!(compared.op, Lt | LtEq | Gt | GtEq);
    if !orders && !matches!(compared.op, Eq | NotEq | IsDistinctFrom | IsNotDistinctFrom) {
        return Transformed::no(Expr::BinaryExpr(compared));
    }
    let is_jsonb = |side: &Expr| Shape::mark(side, columns) == Some(Mark::Jsonb);
    let (left, right) = (is_jsonb(&compared.left), is_jsonb(&compared.right));
    let mut changed = false;
    if left != right {
        changed = canonical(if left { &mut compared.right } else { &mut compared.left });
    }
    if orders && ((left && right) || changed) {
        let sides = vec![(*compared.left).clone(), (*compared.right).clone()];
        if let Some(order) = call("jsonb_cmp", sides) {
            compared = BinaryExpr::new(Box::new(order), compared.op, Box::new(lit(0_i32)));
            changed = true;
        }
    }
    Transformed::new_transformed(Expr::BinaryExpr(compared), changed)
}

/// Returns the text of a number or boolean in JSONB, for a cast to another type.
fn scalar_text(value: &Expr, target: &DataType, columns: &Columns<'_>) -> Option<Expr> {
    let name = match target {
        DataType::Boolean => {
            Shape::mark(value, columns)?;
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
    Shape::mark(value, columns)?;
    call("jsonb_number_text", vec![value.clone(), lit(name)])
}
