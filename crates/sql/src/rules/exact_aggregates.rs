//! Replaces `sum`, `avg`, `min` and `max` of floats, `min` and `max` of intervals, and variances, covariances and regressions. The results
//! of the replacements only depend on the multiset of arguments: not on order, split or core count.
//!
//! The rule runs after types are resolved: an integer's average is then a float sum too. Other sums of
//! integers, decimals and durations keep DataFusion's functions, which are exact. But a sum of BIGINT is
//! replaced by one that doesn't wrap.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::ExprSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::functions_aggregate::average::Avg;
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::{AggregateUDF, Expr, ExprSchemable, LogicalPlan, WindowFunctionDefinition};
use datafusion::optimizer::AnalyzerRule;

use crate::functions::{exact_moments, exact_sum, extreme};
use crate::rules::names::map_parts;
use crate::tree_rewrite::TreeRewrite;

/// The analyzer rule.
#[derive(Debug, Default)]
pub struct ExactFloats;

impl AnalyzerRule for ExactFloats {
    fn name(&self) -> &str {
        "exact_floats"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.rewrite_up(replace_in)?.data)
    }
}

fn replace_in(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !matches!(node, LogicalPlan::Aggregate(_) | LogicalPlan::Window(_)) {
        return Ok(Transformed::no(node));
    }
    map_parts(node, |part, schema| replace(part, schema))
}

fn replace(mut expression: Expr, schema: &dyn ExprSchema) -> Result<Transformed<Expr>> {
    let replaced = match &mut expression {
        Expr::AggregateFunction(call) => exact(&call.func, &call.params.args, schema)?.map(|func| {
            // DISTINCT doesn't affect min and max, which are cheaper to maintain without it.
            call.params.distinct &= !extreme::is_extreme(&func);
            call.func = func;
        }),
        Expr::WindowFunction(call) => match &call.fun {
            // An overflow in one row must not fail other rows: sums that may overflow are widened instead.
            WindowFunctionDefinition::AggregateUDF(func) if sums_long(func, &call.params.args, schema) => {
                None
            }
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

/// Returns the exact function for one of DataFusion's over floats. A user's function of that name stays.
fn exact(
    func: &AggregateUDF,
    arguments: &[Expr],
    schema: &dyn ExprSchema,
) -> Result<Option<Arc<AggregateUDF>>> {
    if let Some(func) = exact_moments::exact(func) {
        // All of these only accept floats; other numbers have been cast before.
        return Ok(Some(func));
    }
    let [argument] = arguments else { return Ok(None) };
    let inner = func.inner().as_ref() as &dyn std::any::Any;
    let (exact, narrow): (fn() -> Arc<AggregateUDF>, bool) = match () {
        () if inner.is::<Sum>() => (exact_sum::sum, false),
        () if inner.is::<Avg>() => (exact_sum::average, false),
        () if inner.is::<Min>() => (extreme::least, true),
        () if inner.is::<Max>() => (extreme::greatest, true),
        () => return Ok(None),
    };
    Ok(match argument.get_type(schema)? {
        DataType::Float64 => Some(exact()),
        DataType::Int64 | DataType::UInt64 if sums_long(func, arguments, schema) => Some(exact()),
        // Sums of narrower floats have been widened before.
        DataType::Float16 | DataType::Float32 if narrow => Some(exact()),
        DataType::Interval(IntervalUnit::MonthDayNano | IntervalUnit::DayTime) if narrow => Some(exact()),
        _ => None,
    })
}

/// Returns true for a sum of 64-bit integers, which may overflow. Sums of narrower integers can't in
/// practice: it takes four billion of the largest INT to overflow BIGINT.
pub(super) fn sums_long(func: &AggregateUDF, arguments: &[Expr], schema: &dyn ExprSchema) -> bool {
    let [argument] = arguments else { return false };
    let is_sum = (func.inner().as_ref() as &dyn std::any::Any).is::<Sum>();
    let long = |of: &DataType| matches!(of, DataType::Int64 | DataType::UInt64);
    let short = |of: DataType| of.is_integer() && !long(&of);
    let widened = match argument {
        Expr::Cast(cast) => cast.expr.get_type(schema).is_ok_and(short),
        _ => false,
    };
    is_sum && !widened && argument.get_type(schema).is_ok_and(|of| long(&of))
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

    /// Creates numbers for which DataFusion's answer is wrong or depends on the order.
    fn extremes() -> Tables {
        Tables::new().table(
            "t",
            "(k INT, x DOUBLE, n BIGINT)",
            "VALUES (1, 'NaN', 0), (1, 1.5, 1), (1, -2.5, 2), (1, NULL, 3), (1, 0.5, 4), (2, '-Infinity', 5), \
             (2, '-Infinity', 6), (3, 'Infinity', 7), (4, 0.0, 8), (4, -0.0, 9), (5, NULL, 10), \
             (6, 'NaN', 11), (6, 'NaN', 12)",
        )
    }

    const BY_K: [&str; 6] =
        ["1|-2.5|NaN", "2|-inf|-inf", "3|inf|inf", "4|-0.0|0.0", "5|NULL|NULL", "6|NaN|NaN"];

    #[test]
    fn extremes_of_floats_are_the_same_in_any_order() {
        let tables = extremes();
        for call in ["(x)", "(DISTINCT x)", "(x) FILTER (WHERE n >= 0)"] {
            tables.check(&format!("SELECT k, min{call}, max{call} FROM t GROUP BY k"), &BY_K);
            tables.check(&format!("SELECT min{call}, max{call} FROM t"), &["-inf|NaN"]);
            let one = |k: u32| format!("SELECT k, min{call}, max{call} FROM t WHERE k = {k} GROUP BY k");
            (1..=6).for_each(|k| tables.check(&one(k), &[BY_K[k as usize - 1]]));
        }
        for order in ["", " ORDER BY x ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"] {
            let over = format!("OVER (PARTITION BY k{order})");
            let rows = format!("SELECT k, min(x) {over} AS lo, max(x) {over} AS hi FROM t");
            tables.check(&format!("SELECT k, min(lo), max(hi) FROM ({rows}) GROUP BY k"), &BY_K);
            tables.check(&format!("SELECT k, max(lo), min(hi) FROM ({rows}) GROUP BY k"), &BY_K);
        }
        tables.check("SELECT min(x), max(x::REAL) FROM t WHERE n > 1000", &["NULL|NULL"]);
        tables.check("SELECT min(x::REAL), max(x::REAL) FROM t WHERE k IN (1, 3)", &["-2.5|NaN"]);
        tables.check("SELECT max(x), count(DISTINCT x), min(DISTINCT x) FROM t WHERE k = 4", &["0.0|1|-0.0"]);
    }

    #[test]
    fn extremes_slide() {
        let sql = "SELECT n, min(x) OVER w, max(x) OVER w FROM t WHERE k <= 2 \
                   WINDOW w AS (ORDER BY n ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)";
        let rows =
            ["0|NaN|NaN", "1|1.5|NaN", "2|-2.5|1.5", "3|-2.5|-2.5", "4|0.5|0.5", "5|-inf|0.5", "6|-inf|-inf"];
        extremes().check(sql, &rows);
        let sql = "SELECT n, min(x) FILTER (WHERE n % 2 = 1) OVER w, max(DISTINCT x) OVER w FROM t WHERE k = 1 \
                   WINDOW w AS (ORDER BY n ROWS BETWEEN 1 FOLLOWING AND 2 FOLLOWING)";
        extremes().check(sql, &["0|1.5|1.5", "1|NULL|-2.5", "2|NULL|0.5", "3|NULL|0.5", "4|NULL|NULL"]);
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
        for having in ["", "HAVING count(DISTINCT k) > 0"] {
            let sql = format!("SELECT max(DISTINCT x), min(x::REAL), min(n), sum(x) FROM t {having}");
            let query = tables.planner.query(&sql, &tables).unwrap();
            let columns: Vec<String> =
                query.schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
            assert_eq!(
                columns,
                ["max(DISTINCT t.x) Float64", "min(t.x) Float32", "min(t.n) Int64", "sum(t.x) Float64"]
            );
        }
        tables.check("SELECT avg(n), sum(x) FROM t WHERE n > 1000", &["NULL|NULL"]);
        tables.check("SELECT avg(n::NUMERIC(5,1)) FROM t", &["29.50000"]);
    }
}
