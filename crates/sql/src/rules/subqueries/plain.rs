//! The subqueries that DataFusion joins correctly by itself:
//!
//! - In WHERE, under AND and OR, where FALSE and NULL are the same: EXISTS and IN. The subquery may refer to
//!   outer rows only in its own WHERE.
//! - In WHERE, as a whole condition: NOT IN over an uncorrelated subquery.
//! - In WHERE and in a SELECT list: an aggregate over the rows that equal the outer row in some columns.
//!
//! DataFusion's joins cost less than ours, which compute each subquery for all outer rows at once.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ExprSchema};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use millstream_delta::has_equal_forms;

use super::references::{has_subquery, outer_columns};

/// True if DataFusion can plan a WHERE condition over `input`, or a part of it under AND and OR.
pub(super) fn is_plain(condition: &Expr, input: &LogicalPlan, whole: bool) -> Result<bool> {
    match condition {
        Expr::Not(inner) => match inner.as_ref() {
            Expr::Exists(exists) => is_plain_exists(exists, input),
            Expr::InSubquery(within) if whole || within.negated => {
                is_plain_within(within, !within.negated, input, whole)
            }
            _ => Ok(false),
        },
        Expr::Exists(exists) => is_plain_exists(exists, input),
        Expr::InSubquery(within) if whole || !within.negated => {
            is_plain_within(within, within.negated, input, whole)
        }
        _ => Ok(false),
    }
}

/// True if DataFusion can plan a scalar subquery in a WHERE clause or a SELECT list over `input`.
pub(super) fn is_plain_scalar(subquery: &LogicalPlan, input: &LogicalPlan) -> Result<bool> {
    let outer = outer_columns(subquery)?;
    if outer.is_empty() || !all_of(&outer, input) {
        return Ok(false);
    }
    let (items, aggregate) = match subquery {
        LogicalPlan::Projection(node) => (node.expr.as_slice(), node.input.as_ref()),
        other => (&[] as &[Expr], other),
    };
    let LogicalPlan::Aggregate(aggregate) = aggregate else { return Ok(false) };
    let usual = |call: &Expr| match call {
        Expr::AggregateFunction(call) => {
            matches!(call.func.name(), "count" | "sum" | "avg" | "min" | "max")
        }
        _ => false,
    };
    let steady = |item: &Expr| !item.contains_outer() && !item.is_volatile();
    let name = subquery.schema().field(0).name();
    Ok(aggregate.group_expr.is_empty()
        && aggregate.aggr_expr.iter().all(|call| usual(call) && steady(call))
        && items.iter().all(steady)
        && is_filtered_scan(&aggregate.input)?
        && correlations(&aggregate.input)?.iter().all(is_equal_column)
        && !compares_floats(&aggregate.input)?
        && compared_columns(&aggregate.input)?.iter().all(|column| column.name != *name))
}

/// True if a condition equates a column with an outer one.
fn is_equal_column(condition: &Expr) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return false };
    matches!(
        (left.as_ref(), right.as_ref()),
        (Expr::Column(_), Expr::OuterReferenceColumn(..)) | (Expr::OuterReferenceColumn(..), Expr::Column(_))
    )
}

fn is_plain_exists(exists: &Exists, input: &LogicalPlan) -> Result<bool> {
    let subquery = &exists.subquery.subquery;
    let outer = outer_columns(subquery)?;
    Ok(outer.is_empty()
        || (all_of(&outer, input) && is_filtered_scan(subquery)? && !compares_floats(subquery)?))
}

fn is_plain_within(within: &InSubquery, negated: bool, input: &LogicalPlan, whole: bool) -> Result<bool> {
    // A constant can't be a join key, and a join without keys ignores NULLs.
    if !within.expr.any_column_refs() || within.expr.contains_outer() || has_subquery(&within.expr)? {
        return Ok(false);
    }
    let subquery = &within.subquery.subquery;
    let outer = outer_columns(subquery)?;
    if outer.is_empty() || negated {
        return Ok(outer.is_empty() && (whole || is_filtered_scan(subquery)?));
    }
    // DataFusion adds the compared columns to the subquery's column, so their names must differ.
    let [name] = subquery.schema().field_names().try_into().unwrap_or([String::new()]);
    let name = name.rsplit('.').next().unwrap_or_default().to_string();
    let compared = compared_columns(subquery)?;
    let selects_itself = match subquery.as_ref() {
        LogicalPlan::Projection(projection) => matches!(projection.expr.as_slice(), [Expr::Column(_)]),
        _ => false,
    };
    Ok(all_of(&outer, input)
        && is_filtered_scan(subquery)?
        && !compares_floats(subquery)?
        && (selects_itself || compared.iter().all(|column| column.name != name)))
}

fn all_of(columns: &[Column], input: &LogicalPlan) -> bool {
    columns.iter().all(|column| input.schema().has_column(column))
}

/// True if a subquery consists of filters and projections over one relation. Only its conditions may refer to
/// outer rows, and each of these must also refer to a column of its own.
fn is_filtered_scan(plan: &LogicalPlan) -> Result<bool> {
    match plan {
        LogicalPlan::TableScan(_) => Ok(true),
        LogicalPlan::Projection(node) => {
            let steady = node.expr.iter().all(|item| !item.contains_outer() && !item.is_volatile());
            Ok(steady && is_filtered_scan(&node.input)?)
        }
        // DataFusion would look for columns compared below a nested alias under the inner alias.
        LogicalPlan::SubqueryAlias(node) => {
            Ok(correlations(&node.input)?.is_empty() && is_filtered_scan(&node.input)?)
        }
        LogicalPlan::Filter(node) => {
            let usual = |part: &&Expr| !part.contains_outer() || part.any_column_refs();
            let joinable = split_conjunction(&node.predicate).iter().all(usual);
            Ok(joinable && !has_subquery(&node.predicate)? && is_filtered_scan(&node.input)?)
        }
        _ => Ok(false),
    }
}

/// Returns the subquery's own columns in conditions that refer to outer rows.
fn compared_columns(plan: &LogicalPlan) -> Result<Vec<Column>> {
    let conditions = correlations(plan)?;
    Ok(conditions.iter().flat_map(|part| part.column_refs().into_iter().cloned()).collect())
}

/// True if a condition that refers to outer rows contains floats. Equal floats become one value before
/// DataFusion turns the remaining subqueries into joins.
fn compares_floats(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        let LogicalPlan::Filter(filter) = node else { return Ok(TreeNodeRecursion::Continue) };
        for part in split_conjunction(&filter.predicate).into_iter().filter(|part| part.contains_outer()) {
            found |= part.exists(|part| {
                Ok(match part {
                    Expr::Column(column) => {
                        has_equal_forms(filter.input.schema().field_from_column(column)?.data_type())
                    }
                    Expr::OuterReferenceColumn(field, _) => has_equal_forms(field.data_type()),
                    _ => false,
                })
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Returns the conditions of a subquery that refer to outer rows.
fn correlations(plan: &LogicalPlan) -> Result<Vec<Expr>> {
    let mut found = Vec::new();
    plan.apply(|node| {
        if let LogicalPlan::Filter(filter) = node {
            let parts = split_conjunction(&filter.predicate).into_iter();
            found.extend(parts.filter(|part| part.contains_outer()).cloned());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
