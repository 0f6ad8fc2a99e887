//! Keeps the column types of a recursive query as its recursive term was planned with.
//!
//! These are the types of the first term as written. When DataFusion resolves types later, the first term's
//! types may change, as for `CASE WHEN a THEN i ELSE 5 END` over an `i INT`. The two terms then no longer
//! match. The rule casts the first term to its original types.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::logical_plan::{Projection, RecursiveQuery};
use datafusion::logical_expr::{Expr, LogicalPlan, cast};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;

use crate::tree_rewrite::TreeRewrite;

/// The rule. It must run before types are resolved.
#[derive(Debug)]
pub struct Recursions;

impl AnalyzerRule for Recursions {
    fn name(&self) -> &str {
        "recursions"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let settled = plan.rewrite_up(|node| match node {
            LogicalPlan::RecursiveQuery(query) => as_planned(query, config),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(settled.data)
    }
}

fn as_planned(mut query: RecursiveQuery, config: &ConfigOptions) -> Result<Transformed<LogicalPlan>> {
    let planned = query.static_term.schema().clone();
    let settled = TypeCoercion::new().analyze(query.static_term.as_ref().clone(), config)?;
    let (types, settled) = (planned.fields(), settled.schema().fields());
    if types.iter().zip(settled).all(|(planned, settled)| planned.data_type() == settled.data_type()) {
        return Ok(Transformed::no(LogicalPlan::RecursiveQuery(query)));
    }
    let columns = planned.iter().zip(settled).map(|((qualifier, field), settled)| {
        let column = Expr::Column(Column::from((qualifier, field)));
        match field.data_type() == settled.data_type() {
            true => column,
            false => {
                cast(column, field.data_type().clone()).alias_qualified(qualifier.cloned(), field.name())
            }
        }
    });
    let columns = columns.collect();
    query.static_term = Arc::new(LogicalPlan::Projection(Projection::try_new(columns, query.static_term)?));
    Ok(Transformed::yes(LogicalPlan::RecursiveQuery(query)))
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn terms_fit_together_where_the_first_has_several_types() {
        let tables =
            Tables::new().table("t", "(k INT, b BOOLEAN)", "VALUES (7, true), (8, false), (9, NULL)");
        tables.check(
            "WITH RECURSIVE w(n, c) AS (SELECT 1, CASE WHEN b THEN k WHEN NOT b THEN 5 END FROM t \
             UNION ALL SELECT n + 1, c + 1 FROM w WHERE n < 2) SELECT n, c, arrow_typeof(c) FROM w",
            &["1|5|Int32", "1|7|Int32", "1|NULL|Int32", "2|6|Int32", "2|8|Int32", "2|NULL|Int32"],
        );
    }
}
