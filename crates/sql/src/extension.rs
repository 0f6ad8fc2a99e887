//! Compares the first columns of two queries: a view may get more columns behind the present ones while other queries have
//! its present plan as a part.

use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::Optimizer;

use crate::error::Result;
use crate::planner::Planner;

/// The optimizer's rules that remove unused columns. Before the others, since these may share a part of two columns.
const RULES: [&str; 2] = ["hidden_keys", "optimize_projections"];

/// Returns true if the first columns of `new` are the columns of `old`, with the same rows. Both are plans as written
/// ([`crate::Query::raw`]). They are compared as typed plans without unused columns, so it may return false for plans that
/// mean the same, but not true for others.
///
/// # Errors
/// If a plan with fewer columns can't be analysed.
pub fn extends(planner: &Planner, new: &LogicalPlan, old: &LogicalPlan) -> Result<bool> {
    let width = old.schema().fields().len();
    if new.schema().fields().len() < width {
        return Ok(false);
    }
    let rules = planner.state().optimizer().rules.iter().filter(|rule| RULES.contains(&rule.name()));
    let optimizer = Optimizer::with_rules(rules.cloned().collect());
    let first_columns = |plan: &LogicalPlan| -> Result<LogicalPlan> {
        let columns = plan.schema().columns().into_iter().take(width).map(Expr::Column);
        let plan = LogicalPlanBuilder::from(plan.clone()).project(columns)?.build()?;
        Ok(optimizer.optimize(planner.analysed(plan)?, planner.state(), |_, _| {})?)
    };
    Ok(first_columns(new)? == first_columns(old)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Tables;

    #[test]
    fn only_columns_at_the_end_extend_a_query() {
        let tables = Tables::new().table("t", "(k INT PRIMARY KEY, g TEXT, v INT)", "");
        let check = |old: &str, new: &str, expected: bool| {
            let raw = |sql: &str| tables.planner.query(sql, &tables).unwrap().raw;
            assert_eq!(extends(&tables.planner, &raw(new), &raw(old)).unwrap(), expected, "{old}; {new}");
        };
        check("SELECT v FROM t", "SELECT v FROM t", true);
        check("SELECT v FROM t", "SELECT v, k FROM t", true);
        check("SELECT v + 1 AS w FROM t WHERE k > 1", "SELECT v + 1 AS w, g FROM t WHERE k > 1", true);
        check(
            "SELECT g, sum(v) AS s FROM t GROUP BY g",
            "SELECT g, sum(v) AS s, max(k) FROM t GROUP BY g",
            true,
        );
        check("SELECT sum(v) AS s FROM t", "SELECT sum(v) AS s, avg(v) AS a FROM t", true);
        check("SELECT v + 1 AS w FROM t", "SELECT v + 1 AS w, v + 2 AS x FROM t", true);
        check("SELECT v FROM t", "SELECT k, v FROM t", false);
        check("SELECT v, k FROM t", "SELECT v FROM t", false);
        check("SELECT v FROM t", "SELECT v + 1 AS v, k FROM t", false);
        check("SELECT v FROM t", "SELECT v AS w, k FROM t", false);
        check("SELECT v FROM t", "SELECT v, k FROM t WHERE k > 1", false);
        check("SELECT DISTINCT v FROM t", "SELECT DISTINCT v, k FROM t", false);
    }
}
