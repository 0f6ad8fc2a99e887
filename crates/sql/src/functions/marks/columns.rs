//! Finds the marks of a plan's columns by the expressions that compute them, as it was written.

use datafusion::common::Column;
use datafusion::logical_expr::logical_plan::Unnest;
use datafusion::logical_expr::{Distinct, Expr, JoinType, LogicalPlan};

use super::Mark;
use super::shape::Shape;

/// Returns the shape of a column of one of several plans.
pub(crate) fn column_of<'p>(plans: impl IntoIterator<Item = &'p LogicalPlan>, column: &Column) -> Shape {
    let known = plans.into_iter().find(|plan| plan.schema().has_column(column));
    known.map_or(Shape::Plain, |plan| column_in(plan, column))
}

/// Returns the shape of a column of a plan.
pub(crate) fn shape_at(plan: &LogicalPlan, at: usize) -> Shape {
    let (_, field) = plan.schema().qualified_field(at);
    // The field of a union has the mark of one of its inputs.
    let passes = matches!(
        plan,
        LogicalPlan::Union(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Distinct(Distinct::All(_))
    );
    if let Some(mark) = Mark::of(field).filter(|_| !passes) {
        return Shape::Marked(mark);
    }
    match plan {
        LogicalPlan::Projection(node) => of(node.expr.get(at), &node.input),
        LogicalPlan::Aggregate(node) => {
            let groups = node.group_expr_len().unwrap_or(node.group_expr.len());
            match at.checked_sub(groups) {
                None if groups != node.group_expr.len() => Shape::Plain,
                None => of(node.group_expr.get(at), &node.input),
                Some(at) => of(node.aggr_expr.get(at), &node.input),
            }
        }
        LogicalPlan::Window(node) => match at.checked_sub(node.input.schema().fields().len()) {
            Some(at) => of(node.window_expr.get(at), &node.input),
            None => shape_at(&node.input, at),
        },
        LogicalPlan::Filter(node) => shape_at(&node.input, at),
        LogicalPlan::Sort(node) => shape_at(&node.input, at),
        LogicalPlan::Limit(node) => shape_at(&node.input, at),
        LogicalPlan::SubqueryAlias(node) => shape_at(&node.input, at),
        LogicalPlan::Subquery(node) => shape_at(&node.subquery, at),
        LogicalPlan::Distinct(Distinct::On(node)) => of(node.select_expr.get(at), &node.input),
        LogicalPlan::Distinct(Distinct::All(input)) => shape_at(input, at),
        LogicalPlan::Join(node) => match node.join_type {
            JoinType::RightSemi | JoinType::RightAnti => shape_at(&node.right, at),
            _ => match at.checked_sub(node.left.schema().fields().len()) {
                Some(at) if at < node.right.schema().fields().len() => shape_at(&node.right, at),
                Some(_) => Shape::Plain,
                None => shape_at(&node.left, at),
            },
        },
        LogicalPlan::Union(node) => {
            let given = node.inputs.iter().filter(|input| !is_null(input, at));
            given.map(|input| shape_at(input, at)).reduce(joined).unwrap_or(Shape::Plain)
        }
        LogicalPlan::TableScan(scan) => match scan.source.get_logical_plan() {
            Some(view) => {
                let place = scan.projection.as_ref().map_or(Some(at), |columns| columns.get(at).copied());
                place
                    .filter(|at| *at < view.schema().fields().len())
                    .map_or(Shape::Plain, |at| shape_at(&view, at))
            }
            None => Shape::Plain,
        },
        LogicalPlan::Unnest(node) => unnested(node, at),
        _ => Shape::Plain,
    }
}

/// Returns the shape of a column of a union.
fn joined(one: Shape, other: Shape) -> Shape {
    match (&one, &other) {
        (Shape::Marked(left), Shape::Marked(right)) if left.is_bits() => Shape::marked(left.common(*right)),
        _ if one == other => one,
        _ => Shape::Plain,
    }
}

fn unnested(node: &Unnest, at: usize) -> Shape {
    let Some(from) = node.dependency_indices.get(at).copied() else { return Shape::Plain };
    let is_list = node.list_type_columns.iter().any(|(place, _)| *place == from);
    match shape_at(&node.input, from) {
        Shape::List(item) if is_list => *item,
        shape if !is_list && !node.struct_type_columns.contains(&from) => shape,
        _ => Shape::Plain,
    }
}

fn of(expression: Option<&Expr>, input: &LogicalPlan) -> Shape {
    expression.map_or(Shape::Plain, |expression| Shape::of(expression, &|column| column_in(input, column)))
}

/// Returns the shape of a column of a plan, by its name.
pub(crate) fn column_in(plan: &LogicalPlan, column: &Column) -> Shape {
    match plan.schema().maybe_index_of_column(column) {
        Some(at) => shape_at(plan, at),
        None => Shape::Plain,
    }
}

/// Returns true if a column is NULL in each row.
pub(crate) fn is_null(plan: &LogicalPlan, at: usize) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(node) => is_null(&node.input, at),
        LogicalPlan::Union(node) => node.inputs.iter().all(|input| is_null(input, at)),
        LogicalPlan::Projection(node) => {
            let mut value = node.expr.get(at);
            loop {
                value = match value {
                    Some(Expr::Alias(alias)) => Some(&alias.expr),
                    Some(Expr::Cast(cast)) => Some(&cast.expr),
                    Some(Expr::Literal(literal, _)) => return literal.is_null(),
                    Some(Expr::Column(column)) => {
                        let place = node.input.schema().maybe_index_of_column(column);
                        return place.is_some_and(|at| is_null(&node.input, at));
                    }
                    _ => return false,
                };
            }
        }
        _ => false,
    }
}
