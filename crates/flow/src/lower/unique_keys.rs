//! Derives columns that together are unique in a fragment's result.

use datafusion::common::JoinType;
use datafusion::logical_expr::logical_plan::{Join, Projection};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::leaf::Leaf;

/// Returns the places of columns that together are unique in `plan`, derived from those of its leaves; `leaf`
/// returns these by the leaf's number.
pub(super) fn columns(plan: &LogicalPlan, leaf: &dyn Fn(usize) -> Option<Vec<usize>>) -> Option<Vec<usize>> {
    match plan {
        LogicalPlan::Extension(extension) => leaf(extension.node.as_any().downcast_ref::<Leaf>()?.id()),
        LogicalPlan::Filter(node) => columns(&node.input, leaf),
        LogicalPlan::SubqueryAlias(node) => columns(&node.input, leaf),
        LogicalPlan::Window(node) => columns(&node.input, leaf),
        LogicalPlan::Projection(node) => projected(node, &columns(&node.input, leaf)?),
        LogicalPlan::Aggregate(node) => {
            let sets = matches!(node.group_expr[..], [Expr::GroupingSet(_)]);
            (!sets).then(|| (0..node.group_expr.len()).collect())
        }
        LogicalPlan::Join(node) => joined(node, leaf),
        _ => None,
    }
}

/// Returns the places of the columns after a projection, if all of them are still there.
fn projected(node: &Projection, below: &[usize]) -> Option<Vec<usize>> {
    let schema = node.input.schema();
    let is = |expr: &Expr, place: usize| match expr.clone().unalias() {
        Expr::Column(column) => schema.maybe_index_of_column(&column) == Some(place),
        _ => false,
    };
    below.iter().map(|place| node.expr.iter().position(|expr| is(expr, *place))).collect()
}

fn joined(node: &Join, leaf: &dyn Fn(usize) -> Option<Vec<usize>>) -> Option<Vec<usize>> {
    use JoinType::*;
    match node.join_type {
        LeftSemi | LeftAnti | LeftMark => return columns(&node.left, leaf),
        RightSemi | RightAnti | RightMark => return columns(&node.right, leaf),
        // Two unmatched rows, one of either side, whose columns are all NULL look alike.
        Full => return None,
        Inner | Left | Right => {}
    }
    let (left, right) = (columns(&node.left, leaf)?, columns(&node.right, leaf)?);
    // If all unique columns of a side are joined on, it has at most one row for a row of the other side.
    let one = |side: &LogicalPlan, columns: &[usize], exprs: Vec<&Expr>| {
        let is = |expr: &&Expr, place: usize| match expr {
            Expr::Column(column) => side.schema().maybe_index_of_column(column) == Some(place),
            _ => false,
        };
        columns.iter().all(|place| exprs.iter().any(|expr| is(expr, *place)))
    };
    let one_right = one(&node.right, &right, node.on.iter().map(|(_, right)| right).collect());
    let one_left = one(&node.left, &left, node.on.iter().map(|(left, _)| left).collect());
    let shift = node.left.schema().fields().len();
    let right = right.into_iter().map(|place| place + shift);
    Some(match node.join_type {
        Inner | Left if one_right => left,
        Inner | Right if one_left => right.collect(),
        _ => left.into_iter().chain(right).collect(),
    })
}
