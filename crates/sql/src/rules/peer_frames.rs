//! Turns RANGE frames without distances into GROUPS frames, for types that DataFusion's RANGE doesn't
//! support.
//!
//! An ORDER BY over TIME, INTERVAL, BYTEA or a struct in OVER implies such a frame. Without a distance both
//! kinds of frames end with whole groups of peers, so they contain the same rows.

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::logical_plan::Window;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, WindowFrame, WindowFrameUnits};
use datafusion::optimizer::AnalyzerRule;

use super::orderings::{free, with_calls};
use crate::tree_rewrite::TreeRewrite;

/// The analyzer rule.
#[derive(Debug, Default)]
pub struct PeerFrames;

impl AnalyzerRule for PeerFrames {
    fn name(&self) -> &str {
        "peer_frames"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.rewrite_up(|node| match node {
            LogicalPlan::Window(window) => rewrite(window),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(rewritten.data)
    }
}

fn rewrite(window: Window) -> Result<Transformed<LogicalPlan>> {
    let mut changed = false;
    let call = |call: &Expr| match call {
        Expr::WindowFunction(function) if is_without_range(function, &window.input) => {
            changed = true;
            Expr::WindowFunction(Box::new(by_groups(function)))
        }
        other => other.clone(),
    };
    let calls: Vec<Expr> = window.window_expr.iter().map(call).collect();
    match changed {
        true => with_calls(window, calls),
        false => Ok(Transformed::no(LogicalPlan::Window(window))),
    }
}

/// True for a RANGE frame without a distance, over a type that DataFusion's RANGE doesn't support.
fn is_without_range(function: &WindowFunction, input: &LogicalPlan) -> bool {
    let params = &function.params;
    let frame = &params.window_frame;
    let by_peers =
        frame.units == WindowFrameUnits::Range && free(&frame.start_bound) && free(&frame.end_bound);
    let Some(first) = params.order_by.first() else { return false };
    let Ok(found) = first.expr.get_type(input.schema()) else { return false };
    by_peers
        && matches!(
            found,
            DataType::Time32(_)
                | DataType::Time64(_)
                | DataType::Interval(_)
                | DataType::Duration(_)
                | DataType::Binary
                | DataType::LargeBinary
                | DataType::BinaryView
                | DataType::FixedSizeBinary(_)
                | DataType::Struct(_)
        )
}

fn by_groups(function: &WindowFunction) -> WindowFunction {
    let mut function = function.clone();
    let frame = &function.params.window_frame;
    let (start, end) = (frame.start_bound.clone(), frame.end_bound.clone());
    function.params.window_frame = WindowFrame::new_bounds(WindowFrameUnits::Groups, start, end);
    function
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn peers_of_every_type_count_together() {
        let tables = Tables::new().table(
            "t",
            "(id INT, b BYTEA, m TIME, i INTERVAL)",
            "VALUES (1, X'61', '12:00', INTERVAL '1 day'), (2, X'61', '13:00', INTERVAL '2 days'), \
             (3, X'62', '12:00', INTERVAL '1 day'), (4, NULL, NULL, NULL)",
        );
        for (key, expected) in [
            ("b", ["1|2|1", "2|2|1", "3|3|3", "4|4|4"]),
            ("m", ["1|2|1", "2|3|3", "3|2|1", "4|4|4"]),
            ("i", ["1|2|1", "2|3|3", "3|2|1", "4|4|4"]),
            ("named_struct('b', b)", ["1|2|1", "2|2|1", "3|3|3", "4|4|4"]),
        ] {
            let sql =
                format!("SELECT id, count(*) OVER (ORDER BY {key}), rank() OVER (ORDER BY {key}) FROM t");
            tables.check(&sql, &expected);
        }
    }
}
