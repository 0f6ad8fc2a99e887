//! Gives each call of `avg` the function for its argument: of intervals, or DataFusion's. See
//! [`crate::functions::interval_average`].

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ExprSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::{
    AggregateUDF, Expr, ExprSchemable, LogicalPlan, WindowFunctionDefinition, cast,
};
use datafusion::optimizer::AnalyzerRule;

use crate::functions::interval_average::{INTERVAL, is_either, resolved};
use crate::rules::names::map_named;

/// The analyzer rule.
#[derive(Debug, Default)]
pub struct IntervalAverages;

impl AnalyzerRule for IntervalAverages {
    fn name(&self) -> &str {
        "interval_averages"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(replace_in)?.data)
    }
}

fn replace_in(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let calls = |expression: &Expr| {
        expression.exists(|part| {
            Ok(match part {
                Expr::AggregateFunction(call) => is_either(&call.func),
                Expr::WindowFunction(call) => match &call.fun {
                    WindowFunctionDefinition::AggregateUDF(function) => is_either(function),
                    WindowFunctionDefinition::WindowUDF(_) => false,
                },
                _ => false,
            })
        })
    };
    let mut any = false;
    node.apply_expressions(|expression| {
        any |= calls(expression)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !any {
        return Ok(Transformed::no(node));
    }
    let mut schema = DFSchema::empty();
    for input in node.inputs() {
        schema.merge(input.schema());
    }
    map_named(node, |expression| expression.transform_up(|part| replace(part, &schema)))
}

fn replace(mut expression: Expr, schema: &dyn ExprSchema) -> Result<Transformed<Expr>> {
    let found = match &mut expression {
        Expr::AggregateFunction(call) => change(&mut call.func, &mut call.params.args, schema)?,
        Expr::WindowFunction(call) => match &mut call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => {
                change(function, &mut call.params.args, schema)?
            }
            WindowFunctionDefinition::WindowUDF(_) => false,
        },
        _ => false,
    };
    Ok(if found { Transformed::yes(expression) } else { Transformed::no(expression) })
}

fn change(function: &mut Arc<AggregateUDF>, arguments: &mut [Expr], schema: &dyn ExprSchema) -> Result<bool> {
    if !is_either(function) {
        return Ok(false);
    }
    let [argument] = arguments else { return Ok(false) };
    let found = argument.get_type(schema)?;
    let Some(resolved) = resolved(function, &found) else { return Ok(false) };
    if matches!(found, DataType::Interval(_)) && found != INTERVAL {
        let shorter = std::mem::replace(argument, Expr::Literal(ScalarValue::Null, None));
        *argument = cast(shorter, INTERVAL);
    }
    *function = resolved;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn averages_of_intervals_and_of_numbers() {
        let rows = "VALUES (1, INTERVAL '1 day', 1), (1, INTERVAL '2 days 03:00', 2), (2, NULL, 4), (3, INTERVAL '1 month', NULL)";
        let tables = Tables::new().table("t", "(k INT, i INTERVAL, n INT)", rows);
        tables.check(
            "SELECT k, avg(i), avg(n), mean(i) FROM t GROUP BY k",
            &[
                "1|1 days 13 hours 30 mins|1.5|1 days 13 hours 30 mins",
                "2|NULL|4.0|NULL",
                "3|1 mons|NULL|1 mons",
            ],
        );
        tables.check(
            "SELECT avg(DISTINCT i) FILTER (WHERE k = 1), avg(n * 1.5) FROM t",
            &["1 days 13 hours 30 mins|3.5"],
        );
        tables.check(
            "SELECT n, avg(i) OVER (ORDER BY n ROWS 1 PRECEDING) FROM t WHERE k = 1",
            &["1|1 days", "2|1 days 13 hours 30 mins"],
        );
    }
}
