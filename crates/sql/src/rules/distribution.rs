//! Accepts `DISTRIBUTE BY` without effect: the distribution of rows over cores changes no answer and is the
//! engine's choice.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{ExprSchemable, LogicalPlan, Partitioning};
use datafusion::optimizer::AnalyzerRule;

use crate::tree_rewrite::TreeRewrite;

/// Removes nodes that distribute rows.
#[derive(Debug)]
pub(crate) struct Distribution;

impl AnalyzerRule for Distribution {
    fn name(&self) -> &str {
        "distribution"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let without = plan.rewrite_up(|node| match node {
            LogicalPlan::Repartition(spread) => {
                // Its expressions must be valid nevertheless.
                if let Partitioning::DistributeBy(exprs) = &spread.partitioning_scheme {
                    exprs.iter().try_for_each(|expr| expr.get_type(spread.input.schema()).map(|_| ()))?;
                }
                Ok(Transformed::yes(Arc::unwrap_or_clone(spread.input)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(without.data)
    }
}
