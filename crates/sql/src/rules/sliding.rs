//! Wraps aggregates that can't retract rows for sliding frames.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, WindowFunctionDefinition};
use datafusion::optimizer::AnalyzerRule;

use crate::functions::sliding::sliding;
use crate::tree_rewrite::{ExpressionsRewrite, TreeRewrite};

/// The rule. It must run after all other replacements of functions.
#[derive(Debug, Default)]
pub struct SlidingFrames;

impl AnalyzerRule for SlidingFrames {
    fn name(&self) -> &str {
        "sliding_frames"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let replaced = plan.rewrite_up(|node| match node {
            LogicalPlan::Window(_) => node.rewrite_expressions(|call| call.rewrite_up(replace)),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(replaced.data)
    }
}

/// These retract rows, and DataFusion recognizes them by their names.
const TAKE_BACK: [&str; 5] = ["count", "sum", "avg", "min", "max"];

fn replace(mut expression: Expr) -> Result<Transformed<Expr>> {
    if let Expr::WindowFunction(call) = &mut expression
        && let WindowFunctionDefinition::AggregateUDF(function) = &call.fun
        && !call.params.window_frame.is_ever_expanding()
        && !TAKE_BACK.contains(&function.name())
    {
        call.fun = WindowFunctionDefinition::AggregateUDF(sliding(Arc::clone(function)));
        return Ok(Transformed::yes(expression));
    }
    Ok(Transformed::no(expression))
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn what_takes_no_row_back_slides() {
        let tables = Tables::new().table(
            "t",
            "(g INT, n INT, b BOOLEAN, s TEXT)",
            "VALUES (1, 1, true, 'a'), (1, 2, false, 'b'), (1, 4, NULL, 'c'), (1, 8, true, NULL), (2, 3, true, 'd')",
        );
        tables.check(
            "SELECT n, bit_or(n) OVER w, bit_and(n) OVER w, bool_and(b) OVER w, bool_or(b) OVER w FROM t \
             WINDOW w AS (PARTITION BY g ORDER BY n ROWS 1 PRECEDING)",
            &[
                "1|1|1|true|true",
                "2|3|0|false|true",
                "3|3|3|true|true",
                "4|6|0|false|false",
                "8|12|0|true|true",
            ],
        );
        tables.check(
            "SELECT n, string_agg(s, '-') OVER (ORDER BY n ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) FROM t",
            &["1|a-b", "2|a-b-d", "3|b-d-c", "4|d-c", "8|c"],
        );
        tables.check(
            "SELECT n, bool_or(b) FILTER (WHERE n > 1) OVER (ORDER BY n ROWS BETWEEN CURRENT ROW AND UNBOUNDED \
             FOLLOWING), approx_distinct(g) OVER (ORDER BY n ROWS 1 PRECEDING), bit_xor(n) OVER (ORDER BY n ROWS \
             BETWEEN 2 PRECEDING AND 1 PRECEDING) FROM t",
            &["1|true|1|NULL", "2|true|1|1", "3|true|2|3", "4|true|2|1", "8|true|1|7"],
        );
        tables.check(
            "SELECT n, bit_xor(CASE WHEN n < 3 THEN n END) OVER (ORDER BY n ROWS 1 PRECEDING) FROM t",
            &["1|1", "2|3", "3|2", "4|NULL", "8|NULL"],
        );
    }
}
