//! Integer arithmetic that fails instead of wrapping around, in expressions that are run outside of plans.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::BinaryExpr;

/// The expression with checked arithmetic.
pub(crate) fn checked(expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let checked =
        expr.transform_up(|part| {
            Ok(match part.downcast_ref::<BinaryExpr>() {
                Some(binary)
                    if matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply) =>
                {
                    Transformed::yes(
                        Arc::new(binary.clone().with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>
                    )
                }
                _ => Transformed::no(part),
            })
        })?;
    Ok(checked.data)
}
