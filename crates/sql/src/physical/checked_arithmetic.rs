//! Integer arithmetic that fails instead of wrapping around, in expressions evaluated outside of plans.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Literal, NegativeExpr};

/// Makes an expression over these columns use checked arithmetic. A negation becomes a subtraction from zero.
pub(crate) fn checked(expr: Arc<dyn PhysicalExpr>, columns: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let check = |binary: BinaryExpr| -> Transformed<Arc<dyn PhysicalExpr>> {
        Transformed::yes(Arc::new(binary.with_fail_on_overflow(true)))
    };
    let checked = expr.transform_up(|part| {
        if let Some(negative) = part.downcast_ref::<NegativeExpr>() {
            let data_type = negative.arg().data_type(columns)?;
            if data_type.is_integer() {
                let zero = Arc::new(Literal::new(ScalarValue::new_zero(&data_type)?));
                return Ok(check(BinaryExpr::new(zero, Operator::Minus, Arc::clone(negative.arg()))));
            }
        }
        let computes = |binary: &&BinaryExpr| {
            matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply)
        };
        let found = part.downcast_ref::<BinaryExpr>().filter(computes).cloned();
        Ok(found.map_or_else(|| Transformed::no(part), check))
    })?;
    Ok(checked.data)
}
