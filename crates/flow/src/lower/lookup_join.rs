//! Lookup joins, whose left rows look up the right side when they arrive. A marker function in the join's
//! condition, which always returns true, identifies them.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::logical_plan::Join as JoinNode;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::{Error, Result};

/// The name of the function. The SQL planner inserts it.
const MARK: &str = "looked_up";

fn is_mark(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.name() == MARK)
}

fn holds_mark(expr: &Expr) -> Result<bool> {
    Ok(expr.exists(|expr| Ok(is_mark(expr)))?)
}

/// Returns true if the join is a lookup join.
pub(super) fn is_marked(join: &JoinNode) -> Result<bool> {
    join.filter.as_ref().map_or(Ok(false), holds_mark)
}

/// Returns the join without the marker, if it is a lookup join.
pub(super) fn without_mark(join: &JoinNode) -> Result<Option<JoinNode>> {
    let Some(filter) = join.filter.as_ref().filter(|_| is_marked(join).unwrap_or(false)) else {
        return Ok(None);
    };
    let rest = split_conjunction(filter).into_iter().filter(|part| !is_mark(part)).cloned();
    let rest = conjunction(rest);
    if let Some(rest) = &rest
        && holds_mark(rest)?
    {
        return Err(refused("its condition was merged into another"));
    }
    Ok(Some(JoinNode { filter: rest, ..join.clone() }))
}

/// Removes the markers that the optimizer derives for one side of a lookup join, as it does for any condition
/// by the join's equalities. Fails if a marker was moved out of its join.
pub(super) fn without_derived(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut derived = false;
    let plan = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Filter(mut filter) = node else { return Ok(Transformed::no(node)) };
        let parts = split_conjunction(&filter.predicate);
        let rest: Vec<Expr> =
            parts.iter().filter(|part| !is_mark(part)).map(|part| (*part).clone()).collect();
        if rest.len() == parts.len() {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        }
        derived = true;
        match conjunction(rest) {
            Some(rest) => {
                filter.predicate = rest;
                Ok(Transformed::yes(LogicalPlan::Filter(filter)))
            }
            None => Ok(Transformed::yes(Arc::unwrap_or_clone(filter.input))),
        }
    })?;
    if derived && !is_within(&plan.data)? {
        return Err(refused("the enclosing query moves its condition: put it into a view of its own"));
    }
    Ok(plan.data)
}

/// Returns true if a plan contains a lookup join.
pub(super) fn is_within(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Join(join) = node {
            found |= join.filter.as_ref().is_some_and(|filter| holds_mark(filter).unwrap_or(false));
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Returns the error for a lookup join that can't be maintained.
pub(super) fn refused(reason: &str) -> Error {
    Error::Limit(format!("a join FOR SYSTEM_TIME AS OF PROCTIME() can't be maintained here: {reason}"))
}
