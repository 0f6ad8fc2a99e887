//! Runs a rule that changes the types of columns: the plan above follows, and so do references of subqueries to outer columns.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::logical_plan::Join;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::rules::names::input_schema;
use crate::tree_rewrite::{ExpressionsRewrite, TreeRewrite};

/// The most passes over a plan. A type that changes in an outer query can change one in a subquery, which needs another pass.
const PASSES_MAX: usize = 16;

/// Changes each node of a plan, inputs and subqueries first. `change` must change nothing more when it sees its own result.
pub(crate) fn retyped(
    mut plan: LogicalPlan,
    mut change: impl FnMut(LogicalPlan) -> Result<Transformed<LogicalPlan>>,
) -> Result<LogicalPlan> {
    for _ in 0..PASSES_MAX {
        let mut has_changed = false;
        let pass = plan.rewrite_up(|node| {
            // The types of the columns below may have changed.
            let node = if has_changed { node.recompute_schema()? } else { node };
            let changed = change(node)?;
            has_changed |= changed.transformed;
            match changed.transformed {
                true => changed.map_data(LogicalPlan::recompute_schema),
                false => Ok(changed),
            }
        })?;
        plan = pass.data;
        if !has_changed {
            break;
        }
        let refreshed = plan.rewrite_down(refresh_node)?;
        plan = refreshed.data;
        if !refreshed.transformed {
            break;
        }
        let recompute = |node: LogicalPlan| Ok(Transformed::yes(node.recompute_schema()?));
        plan = plan.rewrite_up(recompute)?.data;
    }
    Ok(plan)
}

/// Gives the references of a node's subqueries to its columns the types of these columns.
fn refresh_node(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = input_schema(&node);
    let node = match node {
        LogicalPlan::Join(join) => refresh_lateral(join)?,
        other => Transformed::no(other),
    };
    let changed = node.transformed;
    let node = node.data.map_subqueries(|subquery| refresh(subquery, &schema))?;
    Ok(Transformed::new_transformed(node.data, changed || node.transformed))
}

/// Refreshes the references of a LATERAL subquery to the left side of its join.
fn refresh_lateral(mut join: Join) -> Result<Transformed<LogicalPlan>> {
    let left = Arc::clone(join.left.schema());
    let right = Arc::unwrap_or_clone(join.right).transform_down(|node| match node {
        LogicalPlan::Subquery(_) => {
            let refreshed = refresh(node, &left)?;
            Ok(Transformed::new(refreshed.data, refreshed.transformed, TreeNodeRecursion::Jump))
        }
        other => Ok(Transformed::no(other)),
    })?;
    join.right = Arc::new(right.data);
    Ok(Transformed::new_transformed(LogicalPlan::Join(join), right.transformed))
}

/// Gives references to columns of an outer query their types, also in inner subqueries. References of these to a column of the
/// same name in between are refreshed later.
fn refresh(plan: LogicalPlan, outer: &DFSchema) -> Result<Transformed<LogicalPlan>> {
    plan.rewrite_down(|node| match node {
        LogicalPlan::Subquery(mut subquery) => {
            let mut changed = false;
            for column in &mut subquery.outer_ref_columns {
                let refreshed = refresh_part(std::mem::take(column), outer)?;
                changed |= refreshed.transformed;
                *column = refreshed.data;
            }
            Ok(Transformed::new_transformed(LogicalPlan::Subquery(subquery), changed))
        }
        node => {
            node.rewrite_expressions(|expression| expression.rewrite_up(|part| refresh_part(part, outer)))
        }
    })
}

fn refresh_part(part: Expr, outer: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::OuterReferenceColumn(field, column) = part else { return Ok(Transformed::no(part)) };
    let present = outer.maybe_index_of_column(&column).map(|at| outer.field(at).data_type().clone());
    Ok(match present.filter(|present| present != field.data_type()) {
        Some(present) => {
            let field = Arc::new(field.as_ref().clone().with_data_type(present));
            Transformed::yes(Expr::OuterReferenceColumn(field, column))
        }
        None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
    })
}
