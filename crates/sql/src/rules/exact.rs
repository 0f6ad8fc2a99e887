//! Replaces `sum` and `avg` over floats by exact ones, so that order, split and core count don't show in the result.
//!
//! Runs after types are settled: an integer's average is a float sum by then too. Integers, decimals and durations
//! keep the query engine's own, which are exact.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ExprSchema};
use datafusion::error::Result;
use datafusion::functions_aggregate::average::Avg;
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::{AggregateUDF, Expr, ExprSchemable, LogicalPlan, WindowFunctionDefinition};
use datafusion::optimizer::AnalyzerRule;

use crate::functions::exact_sum;

/// The rule.
#[derive(Debug, Default)]
pub struct ExactSums;

impl AnalyzerRule for ExactSums {
    fn name(&self) -> &str {
        "exact_sums"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(replace_in)?.data)
    }
}

fn replace_in(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !matches!(node, LogicalPlan::Aggregate(_) | LogicalPlan::Window(_)) {
        return Ok(Transformed::no(node));
    }
    let mut schema = DFSchema::empty();
    for input in node.inputs() {
        schema.merge(input.schema());
    }
    node.map_expressions(|expression| expression.transform_up(|part| replace(part, &schema)))
}

fn replace(mut expression: Expr, schema: &dyn ExprSchema) -> Result<Transformed<Expr>> {
    let replaced = match &mut expression {
        Expr::AggregateFunction(call) => {
            exact(&call.func, &call.params.args, schema)?.map(|func| call.func = func)
        }
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(func) => exact(func, &call.params.args, schema)?
                .map(|func| call.fun = WindowFunctionDefinition::AggregateUDF(func)),
            WindowFunctionDefinition::WindowUDF(_) => None,
        },
        _ => None,
    };
    Ok(match replaced {
        Some(()) => Transformed::yes(expression),
        None => Transformed::no(expression),
    })
}

/// The exact function for one of the query engine's own over floats; a user's function of that name is left alone.
fn exact(
    func: &AggregateUDF,
    arguments: &[Expr],
    schema: &dyn ExprSchema,
) -> Result<Option<Arc<AggregateUDF>>> {
    let inner = func.inner().as_ref() as &dyn std::any::Any;
    let exact = match (inner.is::<Sum>(), inner.is::<Avg>()) {
        (true, _) => exact_sum::sum(),
        (_, true) => exact_sum::average(),
        _ => return Ok(None),
    };
    match arguments {
        [argument] if argument.get_type(schema)? == DataType::Float64 => Ok(Some(exact)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        let rows: Vec<String> =
            (0..60).map(|n| format!("({}, {}, {})", n % 3, [1e17, 0.1, -1e17, 0.7][n % 4], n)).collect();
        Tables::new().table("t", "(k INT, x DOUBLE, n BIGINT)", &format!("VALUES {}", rows.join(", ")))
    }

    #[test]
    fn sums_of_floats_are_the_same_in_any_order() {
        let tables = tables();
        tables.check("SELECT sum(x), avg(x) FROM t", &["12.0|0.2"]);
        tables.check("SELECT k, sum(x) FROM t GROUP BY k", &["0|4.0", "1|4.0", "2|4.0"]);
        tables.check(
            "SELECT sum(DISTINCT x), avg(DISTINCT x), count(DISTINCT n) FROM t",
            &["0.7999999999999999|0.19999999999999998|60"],
        );
        tables.check("SELECT sum(x) FILTER (WHERE n < 2), sum(n) FROM t", &["1e17|1770"]);
        tables.check("SELECT max(s) FROM (SELECT sum(x) OVER (PARTITION BY k) AS s FROM t)", &["4.0"]);
        tables.check(
            "SELECT max(s) FROM (SELECT sum(x) OVER (ORDER BY n ROWS BETWEEN 3 PRECEDING AND CURRENT ROW) AS s FROM t WHERE n > 20)",
            &["0.7999999999999999"],
        );
        tables.check("SELECT sum(x::REAL) FROM t WHERE n IN (1, 3)", &["0.7999999895691872"]);
    }

    #[test]
    fn names_types_and_other_arguments_stay() {
        let tables = tables();
        let sql = "SELECT sum(x), avg(n), sum(n), sum(x) OVER (ORDER BY n) FROM t GROUP BY x, n";
        let query = tables.planner.query(sql, &tables).unwrap();
        let columns: Vec<String> =
            query.schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
        assert_eq!(
            columns,
            [
                "sum(t.x) Float64",
                "avg(t.n) Float64",
                "sum(t.n) Int64",
                "sum(t.x) ORDER BY [t.n ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW Float64"
            ]
        );
        tables.check("SELECT avg(n), sum(x) FROM t WHERE n > 1000", &["NULL|NULL"]);
        tables.check("SELECT avg(n::NUMERIC(5,1)) FROM t", &["29.50000"]);
    }
}
