//! Sums decimals with many digits in wider ones, and checks the digits of the final sum.
//!
//! A sum of `DECIMAL(p, s)` is a `DECIMAL(p + 10, s)`, with at most 38 digits. Beyond 28 digits DataFusion's
//! sum may exceed its type and silently wraps around. Here that is an error of the group, which disappears
//! when values are retracted that make the sum too large. Intermediate sums may have more digits, so the
//! order of the values doesn't matter. A sum of BIGINT over a window is also computed as a decimal.
//!
//! Deliberately absent: sums of decimals with more than 66 digits, for which there is no wider type.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, ExprSchema};
use datafusion::error::Result;
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::{
    Aggregate, AggregateUDF, Expr, ExprSchemable, LogicalPlan, Projection, Window, WindowFunctionDefinition,
    cast,
};
use datafusion::optimizer::AnalyzerRule;

use super::exact_aggregates;
use crate::tree_rewrite::TreeRewrite;

/// The most digits of values whose sum always fits its type.
const DIGITS_MAX: u8 = DECIMAL128_MAX_PRECISION - 10;

/// The digits to which values are widened: ten more than they have. Their sums have another ten.
const SUMMED_DIGITS: u8 = DECIMAL128_MAX_PRECISION + 10;

/// The analyzer rule.
#[derive(Debug, Default)]
pub struct WideSums;

impl AnalyzerRule for WideSums {
    fn name(&self) -> &str {
        "wide_sums"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.rewrite_up(in_node)?.data)
    }
}

fn in_node(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match node {
        LogicalPlan::Aggregate(mut node) => {
            if !widen_any(&mut node.aggr_expr, &node.input)? {
                return Ok(Transformed::no(LogicalPlan::Aggregate(node)));
            }
            let before = Arc::clone(&node.schema);
            let plan = Aggregate::try_new(node.input, node.group_expr, node.aggr_expr)?;
            checked(LogicalPlan::Aggregate(plan), &before)
        }
        LogicalPlan::Window(mut node) => {
            if !widen_any(&mut node.window_expr, &node.input)? {
                return Ok(Transformed::no(LogicalPlan::Window(node)));
            }
            let before = Arc::clone(&node.schema);
            let plan = Window::try_new(node.window_expr, node.input)?;
            checked(LogicalPlan::Window(plan), &before)
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Widens the arguments of sums over an input where needed. Returns true if there were any.
fn widen_any(calls: &mut [Expr], input: &LogicalPlan) -> Result<bool> {
    let mut changed = false;
    for call in calls {
        changed |= widen(call, input.schema().as_ref())?;
    }
    Ok(changed)
}

/// Widens the argument of a sum where needed.
fn widen(call: &mut Expr, schema: &dyn ExprSchema) -> Result<bool> {
    let (function, arguments) = match call {
        Expr::Alias(alias) => return widen(&mut alias.expr, schema),
        Expr::AggregateFunction(call) if is_sum(&call.func) => (&call.func, &mut call.params.args),
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) if is_sum(function) => {
                (function, &mut call.params.args)
            }
            _ => return Ok(false),
        },
        _ => return Ok(false),
    };
    let long = exact_aggregates::sums_long(function, arguments, schema);
    let [argument] = arguments.as_mut_slice() else { return Ok(false) };
    match argument.get_type(schema)? {
        DataType::Decimal128(digits, scale) if digits > DIGITS_MAX => {
            *argument = cast(std::mem::take(argument), DataType::Decimal256(SUMMED_DIGITS, scale));
            Ok(true)
        }
        // Another function has replaced the sum of GROUP BY already.
        DataType::Int64 | DataType::UInt64 if long => {
            *argument = cast(std::mem::take(argument), DataType::Decimal128(DIGITS_MAX, 0));
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn is_sum(function: &AggregateUDF) -> bool {
    (function.inner().as_ref() as &dyn std::any::Any).is::<Sum>()
}

/// Restores the names and types of a plan's columns.
fn checked(plan: LogicalPlan, before: &DFSchema) -> Result<Transformed<LogicalPlan>> {
    let items = plan.schema().iter().zip(before.iter()).map(|((qualifier, field), (old, named))| {
        let mut item = Expr::Column(Column::from((qualifier, field.as_ref())));
        if field.data_type() != named.data_type() {
            item = cast(item, named.data_type().clone());
        } else if qualifier == old && field.name() == named.name() {
            return item;
        }
        item.alias_qualified(old.cloned(), named.name())
    });
    let items: Vec<Expr> = items.collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(items, Arc::new(plan))?)))
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn sums_have_as_many_digits_as_their_type_or_are_errors() {
        let nines = "9".repeat(38);
        let rows =
            format!("VALUES (1, {nines}), (1, {nines}), (1, -{nines}), (2, {nines}), (2, 1), (3, NULL)");
        let tables = Tables::new().table("t", "(k INT, d NUMERIC(38, 0))", &rows);
        // In some orders, intermediate sums exceed the type.
        tables.check("SELECT k, sum(d) FROM t WHERE k <> 2 GROUP BY k", &[&format!("1|{nines}"), "3|NULL"]);
        tables.check("SELECT sum(DISTINCT d) FROM t WHERE k = 1", &["0"]);
        tables.check(
            "SELECT k, sum(d) OVER (PARTITION BY k) AS s FROM t WHERE k <> 2",
            &[&format!("1|{nines}"), &format!("1|{nines}"), &format!("1|{nines}"), "3|NULL"],
        );
        for sql in [
            "SELECT k, sum(d) FROM t GROUP BY k",
            "SELECT sum(d) FROM t WHERE k = 2",
            "SELECT k, sum(d) OVER (PARTITION BY k) FROM t",
            "SELECT count(*) FROM t GROUP BY ROLLUP (k) HAVING sum(d) > 0",
        ] {
            let query = tables.planner.query(sql, &tables).unwrap();
            let error = tables.execute(&query.plan, &|batch| vec![batch]).unwrap_err();
            let text = error.render(sql);
            assert!(text.contains("is out of the range of"), "{sql}: {text}");
        }
    }

    #[test]
    fn names_and_types_stay() {
        let tables =
            Tables::new().table("t", "(k INT, d NUMERIC(30, 2), e NUMERIC(28, 2))", "VALUES (1, 2, 3)");
        let query = tables.planner.query("SELECT k, sum(d), sum(e) + 1 FROM t GROUP BY k", &tables).unwrap();
        let columns: Vec<String> =
            query.schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
        assert_eq!(columns[1], "sum(t.d) Decimal128(38, 2)");
        tables.check(
            "SELECT k, sum(d), sum(e) FROM t GROUP BY GROUPING SETS ((k), ())",
            &["1|2.00|3.00", "NULL|2.00|3.00"],
        );
    }
}
