//! Orders values whose texts have another order than their type, such as INET.
//!
//! | written, for a column `i` of type INET | planned as |
//! | --- | --- |
//! | `ORDER BY i`, also within aggregates and windows | `ORDER BY inet_key(i)` |
//! | `DISTINCT ON (i) … ORDER BY i` | both of `inet_key(i)` |
//! | `min(i)` | `min(inet_key(i))`, and a projection with `inet_of_key` above the aggregate |
//! | `i > ALL (SELECT k …)` | `inet_key(i) > ALL (SELECT inet_key(k) …)` |

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::expr::SetComparison;
use datafusion::logical_expr::logical_plan::{Aggregate, Projection, Window};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, Operator, SortExpr};

use crate::functions::marks::catalog::call;
use crate::functions::marks::columns::shape_at;
use crate::functions::marks::expressions::Columns;
use crate::functions::marks::shape::Shape;
use crate::functions::marks::{Mark, Order};
use crate::rules::names::under_name;

/// Replaces a value by its key. Returns true if the function exists.
pub(super) fn key_of(value: &mut Expr, key: &str) -> bool {
    match call(key, vec![value.clone()]) {
        Some(found) => {
            *value = found;
            true
        }
        None => false,
    }
}

/// Returns the key of a value's type.
fn key(value: &Expr, columns: &Columns<'_>) -> Option<&'static str> {
    match Shape::mark(value, columns)?.order()? {
        Order::Key { key, .. } => Some(key),
        _ => None,
    }
}

/// Replaces values that a list sorts by their keys. Returns true if there are any.
pub(super) fn keys(sorted: &mut [SortExpr], columns: &Columns<'_>) -> bool {
    let mut changed = false;
    for part in sorted {
        changed |= key(&part.expr, columns).is_some_and(|key| key_of(&mut part.expr, key));
    }
    changed
}

/// Orders the rows of a node, and its `min` and `max`.
pub(super) fn order_in(node: LogicalPlan, columns: &Columns<'_>) -> Result<Transformed<LogicalPlan>> {
    match node {
        LogicalPlan::Sort(mut sort) => {
            let changed = keys(&mut sort.expr, columns);
            Ok(Transformed::new_transformed(LogicalPlan::Sort(sort), changed))
        }
        LogicalPlan::Distinct(Distinct::On(mut on)) => {
            let mut changed = false;
            for value in &mut on.on_expr {
                changed |= key(value, columns).is_some_and(|key| key_of(value, key));
            }
            changed |= on.sort_expr.as_mut().is_some_and(|sorted| keys(sorted, columns));
            Ok(Transformed::new_transformed(LogicalPlan::Distinct(Distinct::On(on)), changed))
        }
        LogicalPlan::Aggregate(mut node) => {
            let found = extremes(&mut node.aggr_expr, columns);
            if found.is_empty() {
                return Ok(Transformed::no(LogicalPlan::Aggregate(node)));
            }
            let names = Arc::clone(&node.schema);
            let plan = Aggregate::try_new(node.input, node.group_expr, node.aggr_expr)?;
            values(LogicalPlan::Aggregate(plan), &names, &found)
        }
        LogicalPlan::Window(mut node) => {
            let found = extremes(&mut node.window_expr, columns);
            if found.is_empty() {
                return Ok(Transformed::no(LogicalPlan::Window(node)));
            }
            let names = Arc::clone(&node.schema);
            let plan = Window::try_new(node.window_expr, node.input)?;
            values(LogicalPlan::Window(plan), &names, &found)
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Replaces the arguments of `min` and `max` by their keys. Returns for each call the function that reads its result.
fn extremes(calls: &mut [Expr], columns: &Columns<'_>) -> Vec<Option<&'static str>> {
    let found: Vec<_> = calls.iter_mut().map(|call| extreme(call, columns)).collect();
    if found.iter().all(Option::is_none) { Vec::new() } else { found }
}

fn extreme(mut written: &mut Expr, columns: &Columns<'_>) -> Option<&'static str> {
    while let Expr::Alias(alias) = written {
        written = alias.expr.as_mut();
    }
    let value = match Shape::mark(written, columns).and_then(Mark::order) {
        Some(Order::Key { value, .. }) => value,
        _ => return None,
    };
    let (name, args) = match written {
        Expr::AggregateFunction(call) => (call.func.name(), &mut call.params.args),
        Expr::WindowFunction(call) => (call.fun.name(), &mut call.params.args),
        _ => return None,
    };
    if !matches!(name, "min" | "max") {
        return None;
    }
    let argument = args.first_mut()?;
    let key = key(argument, columns)?;
    key_of(argument, key).then_some(value)
}

/// Reads the results of the last columns of a plan, and gives all columns their names.
fn values(
    plan: LogicalPlan,
    names: &DFSchema,
    found: &[Option<&'static str>],
) -> Result<Transformed<LogicalPlan>> {
    let first = names.fields().len().saturating_sub(found.len());
    let items = names.iter().enumerate().map(|(place, (qualifier, field))| {
        let column = Expr::Column(Column::from(plan.schema().qualified_field(place)));
        let value = place.checked_sub(first).and_then(|at| found.get(at).copied().flatten());
        match value.and_then(|value| call(value, vec![column.clone()])) {
            Some(value) => value.alias_qualified(qualifier.cloned(), field.name()),
            None => under_name(column, qualifier, field.name()),
        }
    });
    let items: Vec<Expr> = items.collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(items, Arc::new(plan))?)))
}

/// Compares a value with those of a subquery in the order of its type.
pub(super) fn set_comparison(
    mut comparison: SetComparison,
    columns: &Columns<'_>,
) -> Result<Transformed<Expr>> {
    use Operator::{Gt, GtEq, Lt, LtEq};
    let plan = &comparison.subquery.subquery;
    let orders = matches!(comparison.op, Lt | LtEq | Gt | GtEq) && plan.schema().fields().len() == 1;
    let found = key(&comparison.expr, columns).filter(|_| orders);
    let is_same = |mark: Mark| matches!(mark.order(), Some(Order::Key { key, .. }) if Some(key) == found);
    let has_key = matches!(shape_at(plan, 0), Shape::Marked(mark) if is_same(mark));
    let column = Expr::Column(Column::from(plan.schema().qualified_field(0)));
    let Some((key, item)) = found.filter(|_| has_key).and_then(|key| Some((key, call(key, vec![column])?)))
    else {
        return Ok(Transformed::no(Expr::SetComparison(comparison)));
    };
    let keyed = Projection::try_new(vec![item], Arc::clone(plan))?;
    comparison.subquery.subquery = Arc::new(LogicalPlan::Projection(keyed));
    key_of(&mut comparison.expr, key);
    Ok(Transformed::yes(Expr::SetComparison(comparison)))
}
