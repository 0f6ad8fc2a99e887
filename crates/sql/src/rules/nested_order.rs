//! Sorts structs, lists and maps in one order, by their [`row_key`]: field by field, item by item, NULL last.
//!
//! DataFusion sorts them in that order too. But where it compares two of them, as for the least value or the
//! first row of a group, the result for a NULL inside is undefined.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ExprSchema};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Distinct, Expr, ExprSchemable, LogicalPlan, SortExpr};
use datafusion::optimizer::AnalyzerRule;

use crate::functions::row_key::row_key;
use crate::rules::names::input_schema;
use crate::tree_rewrite::{ExpressionsRewrite, TreeRewrite};

/// The analyzer rule.
#[derive(Debug)]
pub struct NestedOrder;

impl AnalyzerRule for NestedOrder {
    fn name(&self) -> &str {
        "nested_order"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.rewrite_up(in_node)?.data)
    }
}

fn in_node(mut node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = input_schema(&node);
    let mut changed = false;
    match &mut node {
        LogicalPlan::Sort(sort) => changed |= keyed(&mut sort.expr, &schema)?,
        LogicalPlan::Distinct(Distinct::On(on)) => {
            for expression in &mut on.on_expr {
                changed |= keyed_in_place(expression, &schema)?;
            }
            if let Some(keys) = &mut on.sort_expr {
                changed |= keyed(keys, &schema)?;
            }
        }
        LogicalPlan::Window(_) | LogicalPlan::Aggregate(_) => {
            let names = NamePreserver::new_for_projection();
            return node.rewrite_expressions(|expression| {
                let name = names.save(&expression);
                let replaced = expression.rewrite_up(|mut part| {
                    let changed = match &mut part {
                        // DISTINCT accepts no other key than the argument itself.
                        Expr::AggregateFunction(call) if call.params.distinct => false,
                        Expr::AggregateFunction(call) => keyed(&mut call.params.order_by, &schema)?,
                        Expr::WindowFunction(call) => keyed(&mut call.params.order_by, &schema)?,
                        _ => false,
                    };
                    Ok(if changed { Transformed::yes(part) } else { Transformed::no(part) })
                })?;
                match replaced.transformed {
                    true => Ok(replaced.update_data(|expression| name.restore(expression))),
                    false => Ok(replaced),
                }
            });
        }
        _ => {}
    }
    Ok(if changed { Transformed::yes(node) } else { Transformed::no(node) })
}

fn keyed(keys: &mut [SortExpr], schema: &DFSchema) -> Result<bool> {
    let mut changed = false;
    for key in keys {
        changed |= keyed_in_place(&mut key.expr, schema)?;
    }
    Ok(changed)
}

fn keyed_in_place(expression: &mut Expr, schema: &dyn ExprSchema) -> Result<bool> {
    if let Expr::Alias(alias) = expression {
        return keyed_in_place(&mut alias.expr, schema);
    }
    if !expression.get_type(schema)?.is_nested() {
        return Ok(false);
    }
    *expression = row_key(std::mem::take(expression));
    Ok(true)
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        Tables::new().table(
            "t",
            "(k INT, s STRUCT<a INT, b TEXT>, l INT[])",
            "VALUES (1, named_struct('a', 1, 'b', 'x'), [1, NULL]), (2, named_struct('a', NULL, 'b', ''), [1, 2]), \
             (3, named_struct('a', 1, 'b', NULL), []), (4, NULL, NULL), (5, named_struct('a', NULL, 'b', NULL), [NULL])",
        )
    }

    #[test]
    fn rows_are_sorted_by_structs_and_lists() {
        let tables = tables();
        let number = |order: &str| format!("SELECT k, row_number() OVER (ORDER BY {order}) FROM t");
        tables.check(&number("s"), &["1|1", "2|3", "3|2", "4|5", "5|4"]);
        tables.check(&number("s DESC"), &["1|5", "2|3", "3|4", "4|1", "5|2"]);
        tables.check(&number("l NULLS FIRST"), &["1|4", "2|3", "3|2", "4|1", "5|5"]);
        tables.check("SELECT k FROM t ORDER BY s LIMIT 2", &["1", "3"]);
        tables.check("SELECT DISTINCT ON (k > 2) k FROM t ORDER BY k > 2, s DESC NULLS LAST", &["2", "5"]);
        tables.check("SELECT DISTINCT ON (s) k FROM t WHERE k < 4 ORDER BY s, k", &["1", "2", "3"]);
        tables.check("SELECT array_agg(k ORDER BY s DESC NULLS LAST, k) FROM t", &["[5, 2, 3, 1, 4]"]);
        tables.check(
            "SELECT k, count(*) OVER (ORDER BY s GROUPS 1 PRECEDING) FROM t",
            &["1|1", "2|2", "3|2", "4|2", "5|2"],
        );
    }

    #[test]
    fn structs_and_lists_have_ends() {
        let tables = tables();
        tables.check(
            "SELECT min(s), max(s), min(l), max(l), max(DISTINCT s) FILTER (WHERE k < 3) FROM t",
            &["{a: 1, b: x}|{a: NULL, b: NULL}|[]|[NULL]|{a: NULL, b: }"],
        );
        tables.check("SELECT k % 2, min(l) FROM t GROUP BY k % 2", &["0|[1, 2]", "1|[]"]);
        tables.check(
            "SELECT k, max(l) OVER (ORDER BY k ROWS 1 PRECEDING) FROM t",
            &["1|[1, NULL]", "2|[1, NULL]", "3|[1, 2]", "4|[]", "5|[NULL]"],
        );
        tables.check(
            "SELECT k, min(s) OVER () FROM t WHERE k IN (2, 5)",
            &["2|{a: NULL, b: }", "5|{a: NULL, b: }"],
        );
        tables.check("SELECT min(s) IS NULL, max(l) IS NULL FROM t WHERE k = 4", &["true|true"]);
    }
}
