//! Plans `(array_agg(x))[n]` and `nth_value(x, n)`: the value at a position within a group.
//!
//! DataFusion plans both as `nth_value`, which keeps only n values. But it accepts only a nonzero literal
//! position, and ignores DISTINCT. All other calls become an element of the array, NULL if there is none.

use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::functions_aggregate::array_agg::{ArrayAgg, array_agg_udaf};
use datafusion::functions_aggregate::nth_value::{NthValueAgg, nth_value_udaf};
use datafusion::functions_nested::extract::array_element;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr, RawFieldAccessExpr};
use datafusion::logical_expr::{Expr, GetFieldAccess};
use datafusion::scalar::ScalarValue;

/// The planner. It must be asked before DataFusion's.
#[derive(Debug)]
pub(crate) struct Nth;

impl ExprPlanner for Nth {
    fn plan_field_access(
        &self,
        written: RawFieldAccessExpr,
        _schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let RawFieldAccessExpr { field_access, expr } = written;
        Ok(match (expr, field_access) {
            (Expr::AggregateFunction(call), GetFieldAccess::ListIndex { key })
                if call.func.inner().is::<ArrayAgg>() =>
            {
                PlannerResult::Planned(taken(call.params, *key))
            }
            (expr, field_access) => PlannerResult::Original(RawFieldAccessExpr { field_access, expr }),
        })
    }

    fn plan_aggregate(&self, written: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        if !written.func.inner().is::<NthValueAgg>() || written.args.len() != 2 {
            return Ok(PlannerResult::Original(written));
        }
        let RawAggregateExpr { mut args, distinct, filter, order_by, null_treatment, .. } = written;
        let place = args.pop().unwrap_or_default();
        let params = AggregateFunctionParams { args, distinct, filter, order_by, null_treatment };
        Ok(PlannerResult::Planned(taken(params, place)))
    }
}

/// Returns the element at a position of the `array_agg` with these parameters.
fn taken(mut params: AggregateFunctionParams, place: Expr) -> Expr {
    let counts = matches!(place, Expr::Literal(ScalarValue::Int64(Some(n)), _) if n != 0);
    if !counts || params.distinct {
        let func = array_agg_udaf();
        return array_element(Expr::AggregateFunction(AggregateFunction { func, params }), place);
    }
    params.args.push(place);
    Expr::AggregateFunction(AggregateFunction { func: nth_value_udaf(), params })
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn a_value_is_taken_by_its_place() {
        let tables = Tables::new().table("t", "(k INT, x INT)", "VALUES (1, 5), (1, 5), (1, 7), (2, NULL)");
        let check = |call: &str, expected: &[&str]| {
            tables.check(&format!("SELECT k, {call} FROM t GROUP BY k ORDER BY k"), expected);
        };
        check("(array_agg(x))[2]", &["1|5", "2|NULL"]);
        check("(array_agg(x ORDER BY x DESC))[1]", &["1|7", "2|NULL"]);
        check("(array_agg(x))[-1]", &["1|7", "2|NULL"]);
        for nowhere in ["0", "1 - 1", "NULL", "9"] {
            check(
                &format!("(array_agg(x))[{nowhere}] AS a, nth_value(x, {nowhere}) AS b"),
                &["1|NULL|NULL", "2|NULL|NULL"],
            );
        }
        check("(array_agg(x))[k] AS a, nth_value(x, k + 2) AS b", &["1|5|7", "2|NULL|NULL"]);
        check("(array_agg(DISTINCT x))[2] AS a, nth_value(DISTINCT x, 2) AS b", &["1|7|7", "2|NULL|NULL"]);
        check("(array_agg(x) FILTER (WHERE x > 5))[1]", &["1|7", "2|NULL"]);
        tables
            .check("SELECT (array_agg(x))[0] AS a, nth_value(x, 0) AS b FROM t WHERE k > 2", &["NULL|NULL"]);
    }
}
