//! Drops redundant sort keys of aggregates and windows, and splits windows whose calls have different keys.
//!
//! DataFusion relies on the absence of both, and panics otherwise. Different expressions may become equal
//! when simplified: `CASE WHEN false THEN a ELSE v END` and `v`. Functions over `PARTITION BY f` share a
//! node, whether they have `ORDER BY f, k` or `ORDER BY k`. If partitions use a form of `f` in which all NaNs
//! are equal, these are two orders. So the rule runs after all others.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::{Projection, Window};
use datafusion::logical_expr::utils::generate_sort_key;
use datafusion::logical_expr::{Expr, LogicalPlan, SortExpr};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::tree_rewrite::{ExpressionsRewrite, TreeRewrite};

/// The keys by which a window's rows are sorted. The flag is true for keys of the partition.
type SortKey = Vec<(SortExpr, bool)>;

/// The rule. It must run last.
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
        let replaced = node.rewrite_expressions(|expression| {
            let name = names.save(&expression);
            let replaced = expression.rewrite_up(|mut part| {
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
        })?;
        replaced.transform_data(|node| match node {
            LogicalPlan::Window(window) => by_their_keys(window),
            other => Ok(Transformed::no(other)),
        })
    }
}

/// Splits a window into one node for each sort order of its calls.
fn by_their_keys(window: Window) -> Result<Transformed<LogicalPlan>> {
    let mut parts: Vec<(SortKey, Vec<Expr>)> = Vec::new();
    for call in &window.window_expr {
        let keys = sort_key(call)?;
        match parts.iter_mut().find(|(known, _)| *known == keys) {
            Some((_, calls)) => calls.push(call.clone()),
            None => parts.push((keys, vec![call.clone()])),
        }
    }
    if parts.len() < 2 {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let columns = window.schema.columns().into_iter().map(Expr::Column).collect();
    let mut plan = window.input;
    for (_, calls) in parts {
        plan = Arc::new(LogicalPlan::Window(Window::try_new(calls, plan)?));
    }
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, plan)?)))
}

/// Returns the sort order of a call.
fn sort_key(call: &Expr) -> Result<SortKey> {
    match call {
        Expr::Alias(alias) => sort_key(&alias.expr),
        Expr::WindowFunction(call) => generate_sort_key(&call.params.partition_by, &call.params.order_by),
        _ => Ok(SortKey::new()),
    }
}

/// Drops keys that repeat an earlier one. Returns true if there were any.
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

    #[test]
    fn rows_of_a_partition_are_sorted_where_its_key_is_there_twice() {
        let tables =
            Tables::new().table("t", "(k INT, v INT)", "VALUES (2, NULL), (1, NULL), (4, 7), (3, 7)");
        tables.check(
            "SELECT array_agg(k) OVER (PARTITION BY v, v) AS a, row_number() OVER (PARTITION BY v, k) AS n FROM t",
            &["[1, 2]|1", "[1, 2]|1", "[3, 4]|1", "[3, 4]|1"],
        );
    }

    #[test]
    fn calls_whose_orders_differ_by_now_are_windows_of_their_own() {
        let tables = Tables::new().table(
            "t",
            "(k INT PRIMARY KEY, f DOUBLE)",
            "VALUES (1, 0.0), (2, -0.0), (3, -0.0), (4, 0.0), (5, 1.5)",
        );
        tables.check(
            "SELECT k, row_number() OVER (PARTITION BY f ORDER BY f, k) AS a, \
             row_number() OVER (PARTITION BY f ORDER BY k) AS b, \
             lag(k) OVER (PARTITION BY f ORDER BY f DESC, k) AS c FROM t",
            &["1|1|1|NULL", "2|2|2|1", "3|3|3|2", "4|4|4|3", "5|1|1|NULL"],
        );
    }
}
