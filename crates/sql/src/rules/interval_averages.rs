//! Gives each call of `avg` the function for its argument: of intervals, or DataFusion's. See
//! [`crate::functions::interval_average`].

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, WindowFunctionDefinition, cast};
use datafusion::optimizer::AnalyzerRule;

use crate::functions::either::{self, Takes};
use crate::functions::interval_average::INTERVAL;
use crate::rules::names::map_parts;
use crate::tree_rewrite::TreeRewrite;

/// The analyzer rule.
#[derive(Debug, Default)]
pub struct IntervalAverages;

impl AnalyzerRule for IntervalAverages {
    fn name(&self) -> &str {
        "interval_averages"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.rewrite_up(replace_in)?.data)
    }
}

fn replace_in(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match node {
        LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) => map_parts(node, replace),
        other => Ok(Transformed::no(other)),
    }
}

fn replace(mut expression: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let (function, arguments) = match &mut expression {
        Expr::AggregateFunction(call) => (&mut call.func, &mut call.params.args),
        Expr::WindowFunction(call) => match &mut call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => (function, &mut call.params.args),
            WindowFunctionDefinition::WindowUDF(_) => return Ok(Transformed::no(expression)),
        },
        _ => return Ok(Transformed::no(expression)),
    };
    let either = either::of(function).filter(|either| either.takes == Takes::Intervals);
    let (Some(either), [argument]) = (either, arguments.as_mut_slice()) else {
        return Ok(Transformed::no(expression));
    };
    let found = argument.get_type(schema)?;
    if matches!(found, DataType::Interval(_)) && found != INTERVAL {
        let shorter = std::mem::replace(argument, Expr::Literal(ScalarValue::Null, None));
        *argument = cast(shorter, INTERVAL);
    }
    *function = Arc::clone(either.resolved(&found));
    Ok(Transformed::yes(expression))
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
