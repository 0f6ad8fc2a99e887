//! The subqueries that the query engine joins rightly by itself, as semi and anti joins.
//!
//! They are conditions of a WHERE clause: EXISTS and IN over a subquery that refers to outer rows in its own WHERE at
//! most, and NOT IN over one that doesn't refer to them at all. Its joins are cheaper than ours, which compute each
//! subquery for all outer rows at once.

use datafusion::common::Column;
use datafusion::common::tree_node::TreeNode;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::references::{has_subquery, outer_columns};

/// Whether a condition over `input` can be left to the query engine.
pub(super) fn is_plain(condition: &Expr, input: &LogicalPlan) -> Result<bool> {
    match condition {
        Expr::Not(inner) => match inner.as_ref() {
            Expr::Exists(exists) => is_plain_exists(exists, input),
            Expr::InSubquery(within) => is_plain_within(within, !within.negated, input),
            _ => Ok(false),
        },
        Expr::Exists(exists) => is_plain_exists(exists, input),
        Expr::InSubquery(within) => is_plain_within(within, within.negated, input),
        _ => Ok(false),
    }
}

fn is_plain_exists(exists: &Exists, input: &LogicalPlan) -> Result<bool> {
    let subquery = &exists.subquery.subquery;
    let outer = outer_columns(subquery)?;
    Ok(outer.is_empty() || (all_of(&outer, input) && is_filtered_scan(subquery)?))
}

fn is_plain_within(within: &InSubquery, negated: bool, input: &LogicalPlan) -> Result<bool> {
    // A constant is no join key, and without one NULLs aren't seen.
    if !within.expr.any_column_refs() || within.expr.contains_outer() || has_subquery(&within.expr)? {
        return Ok(false);
    }
    let subquery = &within.subquery.subquery;
    let outer = outer_columns(subquery)?;
    if outer.is_empty() || negated {
        return Ok(outer.is_empty());
    }
    // The columns that the conditions compare are added to the subquery's one, so names must not meet.
    let [name] = subquery.schema().field_names().try_into().unwrap_or([String::new()]);
    let name = name.rsplit('.').next().unwrap_or_default().to_string();
    let compared = compared_columns(subquery)?;
    let selects_itself = match subquery.as_ref() {
        LogicalPlan::Projection(projection) => matches!(projection.expr.as_slice(), [Expr::Column(_)]),
        _ => false,
    };
    Ok(all_of(&outer, input)
        && is_filtered_scan(subquery)?
        && (selects_itself || compared.iter().all(|column| column.name != name)))
}

fn all_of(columns: &[Column], input: &LogicalPlan) -> bool {
    columns.iter().all(|column| input.schema().has_column(column))
}

/// Whether a subquery is filters and projections over one relation, whose conditions alone refer to outer rows, each
/// to a column of its own as well.
fn is_filtered_scan(plan: &LogicalPlan) -> Result<bool> {
    match plan {
        LogicalPlan::TableScan(_) => Ok(true),
        LogicalPlan::Projection(node) => {
            let steady = node.expr.iter().all(|item| !item.contains_outer() && !item.is_volatile());
            Ok(steady && is_filtered_scan(&node.input)?)
        }
        LogicalPlan::SubqueryAlias(node) => is_filtered_scan(&node.input),
        LogicalPlan::Filter(node) => {
            let usual = |part: &&Expr| !part.contains_outer() || part.any_column_refs();
            let joinable = split_conjunction(&node.predicate).iter().all(usual);
            Ok(joinable && !has_subquery(&node.predicate)? && is_filtered_scan(&node.input)?)
        }
        _ => Ok(false),
    }
}

/// The subquery's own columns in conditions that refer to outer rows.
fn compared_columns(plan: &LogicalPlan) -> Result<Vec<Column>> {
    let mut found = Vec::new();
    plan.apply(|node| {
        if let LogicalPlan::Filter(filter) = node {
            for part in split_conjunction(&filter.predicate).into_iter().filter(|part| part.contains_outer())
            {
                found.extend(part.column_refs().into_iter().cloned());
            }
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
