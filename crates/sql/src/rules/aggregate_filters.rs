//! Keeps a condition without columns above an aggregate that returns a row for an empty input.
//!
//! DataFusion takes such a condition, for example `0.1 > 1`, for one on group columns, and filters the input
//! with it. But a global aggregate returns a row nevertheless, and so do GROUPING SETS, ROLLUP and CUBE for
//! their total.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Aggregate, Expr, Filter, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// The rule that pushes filters down, guarded.
#[derive(Debug)]
pub(super) struct AggregateFilters {
    pub(super) rule: Arc<dyn OptimizerRule + Send + Sync>,
}

impl OptimizerRule for AggregateFilters {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Filter(filter) if stays(filter) => Ok(Transformed::no(plan)),
            _ => self.rule.rewrite(plan, config),
        }
    }
}

/// True if a filter over such an aggregate has such a condition. (No other condition could be pushed down.)
fn stays(filter: &Filter) -> bool {
    let LogicalPlan::Aggregate(Aggregate { group_expr, .. }) = filter.input.as_ref() else { return false };
    let stands = group_expr.is_empty() || group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)));
    stands && split_conjunction(&filter.predicate).iter().any(|part| part.column_refs().is_empty())
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn a_total_is_filtered_too() {
        let tables = Tables::new().table("t", "(k INT)", "VALUES (1), (2)");
        let of = |condition: &str| {
            [
                format!(
                    "SELECT count(*) FROM (SELECT 0.1 AS x FROM t GROUP BY CUBE (k)) AS d WHERE {condition}"
                ),
                format!(
                    "SELECT count(*) FROM (SELECT 0.1 AS x, count(*) AS n FROM t) AS d WHERE {condition}"
                ),
            ]
        };
        for (condition, expected) in
            [("x >= 1e16", ["0", "0"]), ("x < 1e16", ["3", "1"]), ("(x >= 1e16) IS NULL", ["0", "0"])]
        {
            for (sql, expected) in of(condition).iter().zip(expected) {
                tables.check(sql, &[expected]);
            }
        }
    }
}
