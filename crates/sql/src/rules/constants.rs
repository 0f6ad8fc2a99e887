//! Computes integer arithmetic on constants, which the optimizer would let wrap around.
//!
//! A result out of its type's range becomes a cast of the exact result to the type, which fails. As in
//! PostgreSQL, the query may fail even if no row needs the result, as in a branch of CASE that is never
//! taken.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, cast, lit};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::rules::names::has_part;
use crate::tree_rewrite::{ExpressionsRewrite, TreeRewrite};

/// The rule. It must run before the one that simplifies expressions.
#[derive(Debug, Default)]
pub(crate) struct Constants;

impl OptimizerRule for Constants {
    fn name(&self) -> &str {
        "integer_constants"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if !has_part(&plan, is_arithmetic)? {
            return Ok(Transformed::no(plan));
        }
        let names = NamePreserver::new(&plan);
        let options = config.options();
        plan.rewrite_expressions(|expr| {
            let name = names.save(&expr);
            let computed = expr.rewrite_up(|part| compute(part, &options))?;
            Ok(computed.update_data(|expr| name.restore(expr)))
        })
    }
}

/// Computes arithmetic on constants in an expression.
pub(crate) fn computed(expr: Expr, options: &Arc<ConfigOptions>) -> Result<Expr> {
    Ok(expr.rewrite_up(|part| compute(part, options))?.data)
}

fn is_arithmetic(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(binary) => {
            matches!(binary.op, Operator::Plus | Operator::Minus | Operator::Multiply)
        }
        Expr::Negative(_) => true,
        _ => false,
    }
}

/// Computes arithmetic whose operands are constants.
fn compute(expr: Expr, options: &Arc<ConfigOptions>) -> Result<Transformed<Expr>> {
    if !is_arithmetic(&expr) {
        return Ok(Transformed::no(expr));
    }
    let found = match &expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            match (constant(left, options)?, constant(right, options)?) {
                (Some((left, data_type)), Some((right, other))) if data_type == other => {
                    let exact = match op {
                        Operator::Plus => left.saturating_add(right),
                        Operator::Minus => left.saturating_sub(right),
                        _ => left.saturating_mul(right),
                    };
                    Some((exact, data_type))
                }
                _ => None,
            }
        }
        Expr::Negative(inner) => constant(inner, options)?.map(|(value, data_type)| (-value, data_type)),
        _ => None,
    };
    Ok(match found {
        Some((exact, data_type)) => Transformed::yes(value(exact, &data_type)?),
        None => Transformed::no(expr),
    })
}

/// Returns an expression's constant integer value and its type.
fn constant(expr: &Expr, options: &Arc<ConfigOptions>) -> Result<Option<(i128, DataType)>> {
    let simple;
    let value = match expr {
        Expr::Literal(value, _) => value,
        Expr::Column(_) => return Ok(None),
        expr if is_arithmetic(expr) || reads(expr)? => return Ok(None),
        expr => {
            let context = SimplifyContext::builder().with_config_options(Arc::clone(options)).build();
            match ExprSimplifier::new(context).simplify(expr.clone()) {
                Ok(Expr::Literal(value, _)) => {
                    simple = value;
                    &simple
                }
                // An expression that fails stays, and fails at run time.
                _ => return Ok(None),
            }
        }
    };
    let data_type = value.data_type();
    if !data_type.is_integer() {
        return Ok(None);
    }
    Ok(match value.cast_to(&DataType::Decimal128(38, 0))? {
        ScalarValue::Decimal128(Some(value), ..) => Some((value, data_type)),
        _ => None,
    })
}

/// Returns true if the value of an expression may differ between rows or over time.
fn reads(expr: &Expr) -> Result<bool> {
    expr.exists(|part| {
        Ok(!matches!(
            part,
            Expr::Literal(..)
                | Expr::ScalarFunction(_)
                | Expr::BinaryExpr(_)
                | Expr::Cast(_)
                | Expr::Case(_)
                | Expr::Negative(_)
        ) || part.is_volatile_node())
    })
}

/// Returns the literal, or a failing cast if the type can't hold the value.
fn value(exact: i128, data_type: &DataType) -> Result<Expr> {
    let exact = ScalarValue::Decimal128(Some(exact), 38, 0);
    Ok(match exact.cast_to(data_type) {
        Ok(value) => lit(value),
        Err(_) => cast(lit(exact), data_type.clone()),
    })
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        Tables::new().table("t", "(n BIGINT)", "VALUES (1)")
    }

    #[test]
    fn constants_are_computed_in_their_range() {
        let tables = tables();
        tables.check(
            "SELECT 9223372036854775806 + 1, -9223372036854775807 - 1, 3 * -4 + 2 - 1",
            &["9223372036854775807|-9223372036854775808|-11"],
        );
        tables.check("SELECT abs(-2) * 4 + n FROM t", &["9"]);
        tables.check("SELECT n + x FROM t, (SELECT 2 AS x)", &["3"]);
    }

    #[test]
    fn constants_that_are_out_of_range_are_errors() {
        let tables = tables();
        for sql in [
            "SELECT 9223372036854775807 + 1",
            "SELECT 9223372036854775807 + 1 - 1",
            "SELECT abs(-9223372036854775807) + 1",
            "SELECT -(-9223372036854775807 - 1)",
            "SELECT 5000000000 * 5000000000 * 5000000000 * 5000000000 * 5000000000",
            "SELECT x + 1 FROM (SELECT 9223372036854775807 AS x)",
            "SELECT n FROM t WHERE n < 2147483647::INT + 1::INT",
        ] {
            let error = match tables.planner.query(sql, &tables) {
                Ok(query) => tables.execute(&query.plan, &|batch| vec![batch]).unwrap_err(),
                Err(error) => error,
            };
            let text = error.render(sql);
            assert!(text.contains(" is out of the range of "), "{sql}: {text}");
        }
    }
}
