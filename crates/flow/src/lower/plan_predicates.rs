//! Predicates on parts of a plan, for lowering.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::{Resolve, external, keys};
use crate::Result;

/// Removes the ORDER BYs without effect: that of the final result, and those whose order no node above uses.
pub(super) fn without_order(plan: LogicalPlan, taken: bool) -> Result<LogicalPlan, DataFusionError> {
    let taken = match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() && !taken => {
            return without_order(Arc::unwrap_or_clone(sort.input), false);
        }
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => taken,
        LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::Sort(_) => false,
        _ => true,
    };
    Ok(plan.map_children(|input| Ok(Transformed::yes(without_order(input, taken)?)))?.data)
}

/// Returns true if a plan reads relations of the catalog.
pub(super) fn reads_relations(plan: &LogicalPlan, resolve: Resolve<'_>) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found |= resolve(scan).is_some();
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Returns a reason if the node's own expressions contain a subquery.
pub(super) fn holds_subquery(plan: &LogicalPlan) -> Result<Option<&'static str>> {
    let mut found = None;
    plan.apply_expressions(|expr| {
        expr.apply(|expr| {
            found = match expr {
                Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) => {
                    Some("a subquery in an expression has no cheaper operator yet")
                }
                Expr::OuterReferenceColumn(..) => Some("a correlated subquery has no cheaper operator yet"),
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            Ok(TreeNodeRecursion::Stop)
        })
    })?;
    Ok(found)
}

/// Returns true if the plan is not self-contained: it reads a recursive query's own rows or an outer query's
/// columns.
pub(super) fn is_open(plan: &LogicalPlan) -> Result<bool> {
    let mut open = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let provider = datafusion::datasource::source_as_provider(&scan.source)?;
            open |= provider.downcast_ref::<datafusion::datasource::cte_worktable::CteWorkTable>().is_some();
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                open |= matches!(expr, Expr::OuterReferenceColumn(..));
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(open)
}

/// Returns true if a plan that occurs twice returns the same rows in both places.
pub(super) fn gives_the_same(plan: &LogicalPlan) -> Result<bool> {
    let mut same = true;
    plan.apply_with_subqueries(|node| {
        same &= !matches!(node, LogicalPlan::Extension(_)) && keys::is_stable(node).map_err(external)?;
        Ok(if same { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(same)
}

pub(super) fn node_name(plan: &LogicalPlan) -> &'static str {
    match plan {
        LogicalPlan::Join(_) => "a join",
        LogicalPlan::Window(_) => "OVER",
        LogicalPlan::Distinct(_) => "DISTINCT ON",
        LogicalPlan::Extension(_) => "an extension",
        _ => "this part of the query",
    }
}
