//! `DISTRIBUTE BY` is taken and has no effect: how rows are spread over cores changes no answer, and is the engine's
//! choice.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::AnalyzerRule;

/// Leaves out what spreads rows.
#[derive(Debug)]
pub(crate) struct Distribution;

impl AnalyzerRule for Distribution {
    fn name(&self) -> &str {
        "distribution"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let without = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Repartition(spread) => Ok(Transformed::yes(Arc::unwrap_or_clone(spread.input))),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(without.data)
    }
}
