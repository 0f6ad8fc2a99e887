//! Drops sort keys of aggregates and windows that say again what one before them says.
//!
//! The query engine counts on there being none, and panics otherwise. Keys that are written differently may be one when
//! they are simplified: `CASE WHEN false THEN a ELSE v END` and `v`. So the rule runs after simplification.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, SortExpr};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// The rule, to be run last.
#[derive(Debug, Default)]
pub(crate) struct DifferentSortKeys;

impl OptimizerRule for DifferentSortKeys {
    fn name(&self) -> &str {
        "different_sort_keys"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, node: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if !matches!(node, LogicalPlan::Aggregate(_) | LogicalPlan::Window(_)) {
            return Ok(Transformed::no(node));
        }
        let names = NamePreserver::new_for_projection();
        node.map_expressions(|expression| {
            let name = names.save(&expression);
            let replaced = expression.transform_up(|mut part| {
                let changed = match &mut part {
                    Expr::AggregateFunction(call) => without_repeated(&mut call.params.order_by),
                    Expr::WindowFunction(call) => without_repeated(&mut call.params.order_by),
                    _ => false,
                };
                Ok(if changed { Transformed::yes(part) } else { Transformed::no(part) })
            })?;
            match replaced.transformed {
                true => Ok(replaced.update_data(|expression| name.restore(expression))),
                false => Ok(replaced),
            }
        })
    }
}

/// Drops keys that say again what one before them says.
pub(super) fn without_repeated(keys: &mut Vec<SortExpr>) -> bool {
    let before = keys.len();
    let mut known: Vec<Expr> = Vec::with_capacity(before);
    keys.retain(|key| {
        let expression = key.expr.clone().unalias_nested().data;
        let fresh = !known.contains(&expression);
        known.push(expression);
        fresh
    });
    keys.len() < before
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn keys_that_become_one_are_one() {
        let tables = Tables::new().table(
            "t",
            "(g INT, k INT PRIMARY KEY, v INT)",
            "VALUES (1, 1, 7), (1, 2, 5), (2, 3, NULL), (2, 4, 9)",
        );
        tables.check(
            "SELECT g, first_value(CASE WHEN false THEN v ELSE v END ORDER BY v) FROM t GROUP BY g",
            &["1|5", "2|9"],
        );
        tables.check("SELECT array_agg(coalesce(k, k) ORDER BY k DESC) FROM t", &["[4, 3, 2, 1]"]);
        tables.check(
            "SELECT k, last_value(k) OVER (PARTITION BY g ORDER BY v, CASE WHEN true THEN v END) AS l FROM t",
            &["1|1", "2|2", "3|3", "4|4"],
        );
    }
}
