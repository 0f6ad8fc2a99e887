//! AND and OR that look at their right side only for the rows that their left side leaves open.
//!
//! The query engine looks at the right side of an `x <> 0 AND 10 / x > y` for all rows of a batch or for few, which
//! depends on the other rows of the batch, and so does whether it fails. A CASE looks at each branch for its own rows
//! alone. Where the right side can't fail, nothing changes.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{BinaryExpr, Case, Expr, LogicalPlan, Operator, binary_expr, lit};
use datafusion::scalar::ScalarValue;

use crate::Error;
use crate::lower::{cannot_fail, is_time};

/// The plan with such ANDs and ORs only, so that it fails where a row of it fails alone, whatever rows are beside.
pub fn guarded(plan: LogicalPlan) -> Result<LogicalPlan> {
    let guarded = plan.transform_down_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr.transform_up(guard)?.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(guarded.data)
}

/// The expression with such ANDs and ORs only.
pub(crate) fn guarded_expr(expr: Expr) -> Result<Expr> {
    Ok(expr.transform_up(guard)?.data)
}

fn guard(expr: Expr) -> Result<Transformed<Expr>> {
    if is_time(&expr) {
        let message = "now() can't be asked for in this part of the query yet: compare with it in WHERE, outside of \
                       correlated subqueries";
        return Err(DataFusionError::External(Box::new(Error::Limit(message.into()))));
    }
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return Ok(Transformed::no(expr)) };
    // What the left side must be for the right side to say nothing.
    let decides = match op {
        Operator::And => false,
        Operator::Or => true,
        _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
    };
    if cannot_fail(&right)? {
        return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
    }
    let unknown = binary_expr((*right).clone(), op, Expr::Literal(ScalarValue::Boolean(None), None));
    Ok(Transformed::yes(Expr::Case(Case {
        expr: Some(left),
        when_then_expr: vec![
            (Box::new(lit(decides)), Box::new(lit(decides))),
            (Box::new(lit(!decides)), right),
        ],
        else_expr: Some(Box::new(unknown)),
    })))
}
