//! Properties of expressions that do not depend on the plan around them.

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::{Expr, Operator};

/// The function that returns the time of the epoch.
const EPOCH_TIME: &str = "epoch_time";

/// Returns true if an expression has a value for every row.
pub(crate) fn cannot_fail(expr: &Expr) -> Result<bool> {
    let may_fail = expr.exists(|expr| {
        Ok(!match expr {
            Expr::BinaryExpr(binary) => is_comparison(binary.op),
            Expr::Column(_)
            | Expr::Literal(..)
            | Expr::Alias(_)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotUnknown(_)
            | Expr::Between(_)
            | Expr::InList(_)
            | Expr::Case(_) => true,
            // A field of a struct exists or is NULL.
            Expr::ScalarFunction(call) => call.name() == "get_field",
            _ => false,
        })
    })?;
    Ok(!may_fail)
}

/// Returns true if an expression is the time of the epoch.
pub(crate) fn is_time(part: &Expr) -> bool {
    matches!(part, Expr::ScalarFunction(call) if call.func.name() == EPOCH_TIME)
}

fn is_comparison(operator: Operator) -> bool {
    use Operator::*;
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | And | Or | IsDistinctFrom | IsNotDistinctFrom)
}
