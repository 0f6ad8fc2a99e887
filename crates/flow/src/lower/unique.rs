//! Which columns no two rows of a fragment's result share.

use datafusion::common::JoinType;
use datafusion::logical_expr::logical_plan::{Join, Projection};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::leaf::Leaf;

/// The places of columns that no two rows of `plan` share, where they follow from those of its leaves, which `leaf`
/// gives by their numbers.
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

/// Where the columns are after a projection, if all of them still are.
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
        // Rows of either side whose columns are all NULL look alike when they have no match.
        Full => return None,
        Inner | Left | Right => {}
    }
    let (left, right) = (columns(&node.left, leaf)?, columns(&node.right, leaf)?);
    // A side whose columns are all joined by has one row at most for a row of the other.
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
