//! AND and OR that evaluate their right side only for rows that the left side leaves open. Also integer
//! arithmetic that fails instead of wrapping around.
//!
//! DataFusion evaluates the right side of `x <> 0 AND 10 / x > y` for all rows of a batch or for few of them,
//! depending on the other rows of the batch; so other rows decide if the condition fails. Such a condition
//! becomes one [`Guard`], which holds each of its terms once, however deeply conditions are nested. If no
//! right side can fail, nothing changes.

mod condition;
mod display;
mod overflow;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, binary_expr};

use crate::Error;
use crate::expressions::{cannot_fail, is_time};
use condition::Guard;
pub(crate) use condition::terms;
pub(crate) use display::{DisplayAsWritten, as_written};

/// The maximum number of terms outside of a [`Guard`]. Longer conditions become one even if no term can fail,
/// which avoids deep recursion.
const CHAIN_MAX: usize = 64;

/// Rewrites a plan to guarded ANDs and ORs and checked arithmetic: it then fails only if one of its rows
/// fails alone, whatever other rows are beside it.
pub fn guarded(plan: LogicalPlan) -> Result<LogicalPlan> {
    let guarded = plan.transform_down_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let schema = match computes(&node)? {
            true => Some(overflow::schema_of(&node)?),
            false => None,
        };
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let checked = match &schema {
                Some(schema) => Transformed::yes(overflow::checked(expr, schema)?),
                None => Transformed::no(expr),
            };
            let guarded = checked.transform_data(|expr| expr.transform_down(guard))?;
            Ok(guarded.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(guarded.data)
}

/// Returns true if an expression of the node is arithmetic whose result may be out of range.
fn computes(node: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(|expr| {
        found = overflow::computes(expr)?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Rewrites an expression over these columns in the same way.
pub(crate) fn guarded_expr(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    with_guards(overflow::checked(expr, schema)?)
}

fn with_guards(expr: Expr) -> Result<Expr> {
    Ok(expr.transform_down(guard)?.data)
}

fn guard(expr: Expr) -> Result<Transformed<Expr>> {
    if is_time(&expr) {
        let message = "now() is not supported in this part of the query yet: compare with it in WHERE, outside of \
                       correlated subqueries";
        return Err(DataFusionError::External(Box::new(Error::Limit(message.into()))));
    }
    let op = match &expr {
        Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), .. }) => *op,
        _ => return Ok(Transformed::no(expr)),
    };
    let terms = terms_of(expr, op);
    let mut may_fail = terms.iter().map(|term| Ok(!cannot_fail(term)?)).collect::<Result<Vec<_>>>()?;
    let terms = terms.into_iter().map(with_guards).collect::<Result<Vec<_>>>()?;
    // The first term is evaluated for every row in any case.
    let fails_late = may_fail.iter().skip(1).any(|may_fail| *may_fail);
    if let Some(first) = may_fail.first_mut() {
        *first = false;
    }
    let guarded = match fails_late || terms.len() > CHAIN_MAX {
        true => Guard::of(op, terms, may_fail)?,
        false => terms.into_iter().reduce(|left, right| binary_expr(left, op, right)).unwrap_or_default(),
    };
    Ok(Transformed::new(guarded, true, TreeNodeRecursion::Jump))
}

/// Returns the terms of a condition in their order, regardless of parentheses.
fn terms_of(expr: Expr, op: Operator) -> Vec<Expr> {
    let (mut terms, mut open) = (Vec::new(), vec![expr]);
    while let Some(expr) = open.pop() {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: found, right }) if found == op => {
                open.push(*right);
                open.push(*left);
            }
            term => terms.push(term),
        }
    }
    terms
}
