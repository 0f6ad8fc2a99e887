//! Refuses functions in a continuous query that return another value each time. [`crate::temporal_filter`] covers the
//! places where such a query may use the present time.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility, WindowFunctionDefinition};

use crate::batches::BATCH_TIME;
use crate::error::{Error, Result};

/// Fails if a plan as written contains such a function.
pub(crate) fn check(plan: &LogicalPlan) -> Result<()> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                found = found.take().or_else(|| refuse_nondeterministic(part));
                Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    match found {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Functions of the present time. The optimizer folds each to a literal.
pub(crate) const CLOCKS: [&str; 8] = [
    "now",
    "current_timestamp",
    "current_date",
    "current_time",
    "localtimestamp",
    "localtime",
    "today",
    "transaction_timestamp",
];

fn refuse_nondeterministic(expression: &Expr) -> Option<Error> {
    let (name, volatility) = match expression {
        Expr::ScalarFunction(f) => (f.func.name(), f.func.signature().volatility),
        Expr::AggregateFunction(f) => (f.func.name(), f.func.signature().volatility),
        Expr::WindowFunction(f) => match &f.fun {
            WindowFunctionDefinition::AggregateUDF(fun) => (fun.name(), fun.signature().volatility),
            WindowFunctionDefinition::WindowUDF(fun) => (fun.name(), fun.signature().volatility),
        },
        _ => return None,
    };
    (volatility == Volatility::Volatile && name != BATCH_TIME).then(|| {
        Error::invalid(format!("{name}() in a continuous query is not supported yet")).hint(
            "It returns a different value each time. Use a SELECT, which runs once, or store the value \
                   with INSERT.",
        )
    })
}
