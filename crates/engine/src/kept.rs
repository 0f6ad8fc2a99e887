//! Plans of prepared queries that are kept from one run to the next.
//!
//! Planning a short query takes longer than answering it, so a query whose plan depends on nothing but the catalog is
//! planned once, with its parameters left open. Other queries are planned anew for each run: those with the time or
//! other functions that change, with parts whose plans depend on values, and with decimal parameters, whose digits count.

use std::sync::{Mutex, PoisonError};

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use millstream_sql::{Query, Result};

use crate::settings::Settings;
use crate::statements::reads_batch;

/// A plan, good for one state of the catalog.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) version: u64,
    pub(crate) plan: LogicalPlan,
    pub(crate) settings: Settings,
}

/// Where a prepared statement keeps its plan; nothing where it can't be kept.
#[derive(Debug, Default)]
pub(crate) struct Place(Mutex<Option<Kept>>);

impl Place {
    pub(crate) fn get(&self) -> Option<Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, kept: Option<Kept>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }
}

/// Whether the plan of a query with parameters of these types stays the same whatever their values.
pub(crate) fn can_be_kept(query: &Query, parameters: &[DataType]) -> Result<bool> {
    if parameters.iter().any(DataType::is_decimal) || reads_batch(&query.plan)? {
        return Ok(false);
    }
    let mut steady = true;
    query.raw.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                steady &= !changes(expr);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    query.plan.apply_with_subqueries(|node| {
        steady &= is_plain(node);
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                steady &= !changes(expr);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(steady)
}

/// Whether an expression may give another value the next time, or holds a query of its own.
fn changes(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(function) => function.func.signature().volatility != Volatility::Immutable,
        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::OuterReferenceColumn(..) => true,
        _ => false,
    }
}

/// Whether a part of a plan stays as it is when parameters get their values.
fn is_plain(node: &LogicalPlan) -> bool {
    match node {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::TableScan(_)
        | LogicalPlan::SubqueryAlias(_) => true,
        LogicalPlan::Limit(limit) => {
            let literal = |bound: &Option<Box<Expr>>| {
                bound.as_ref().is_none_or(|bound| matches!(bound.as_ref(), Expr::Literal(..)))
            };
            literal(&limit.skip) && literal(&limit.fetch)
        }
        _ => false,
    }
}
