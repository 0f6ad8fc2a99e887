//! Removes the joins that only mark merged columns, see [`crate::using_joins`].

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::AnalyzerRule;

use crate::tree_rewrite::TreeRewrite;
use crate::using_joins;

/// The analyzer rule.
#[derive(Debug, Default)]
pub struct UsingJoins;

impl AnalyzerRule for UsingJoins {
    fn name(&self) -> &str {
        "merged_columns"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.rewrite_up(|node| match &node {
            LogicalPlan::Join(join) => match using_joins::unmarked(join) {
                Some(plan) => Ok(Transformed::yes(Arc::unwrap_or_clone(Arc::clone(plan)))),
                None => Ok(Transformed::no(node)),
            },
            _ => Ok(Transformed::no(node)),
        })?;
        Ok(plan.data)
    }
}
