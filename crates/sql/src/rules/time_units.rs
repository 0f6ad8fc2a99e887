//! Gives a date or a text beside a TIMESTAMP the unit of the TIMESTAMP.
//!
//! DataFusion compares both in nanoseconds, whose range ends in 2262: `ts < DATE '9999-12-31'` of a TIMESTAMP in
//! microseconds would be an error. The rule writes the cast that is meant before types are resolved:
//!
//! | expression | becomes |
//! | --- | --- |
//! | `ts < date`, `ts - date`, `ts IN (date, …)`, `CASE … THEN ts ELSE date END`, `coalesce(ts, date)` | `CAST(date AS TIMESTAMP)` |
//! | `ts < '2024-01-01'` | `CAST('2024-01-01' AS TIMESTAMP)` |
//! | `ts - ts < INTERVAL '30 days'` | the interval as a duration |
//! | `date + time` | `CAST(date AS TIMESTAMP) +` the time as a duration |
//! | `date AT TIME ZONE zone`, `date_trunc('hour', date)`, `date_bin(interval, date)` | the function of `CAST(date AS TIMESTAMP)` |
//!
//! Beside a TIMESTAMP in nanoseconds everything stays in nanoseconds.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{InList, InSubquery, SetComparison};
use datafusion::logical_expr::logical_plan::{Join, Subquery, Union};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, cast,
};
use datafusion::optimizer::AnalyzerRule;

use crate::functions::marks::catalog;
use crate::functions::ranges;
use crate::rules::names::map_parts;
use crate::zones::UTC;

/// Functions whose arguments have one type, from the first place on.
const OF_ONE_TYPE: [&str; 7] = ["coalesce", "greatest", "least", "nullif", "ifnull", "nvl", "make_array"];

/// Functions of times, and the places of their times, that also take a date.
const OF_TIMES: [(&str, &[usize]); 4] =
    [("timezone", &[1]), ("date_trunc", &[1]), ("date_trunc_in_zone", &[1]), ("date_bin", &[1, 2])];

/// The analyzer rule.
#[derive(Debug)]
pub struct TimeUnits {
    /// The unit of a TIMESTAMP without digits.
    unit: TimeUnit,
}

impl AnalyzerRule for TimeUnits {
    fn name(&self) -> &str {
        "time_units"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        if self.unit == TimeUnit::Nanosecond {
            let earlier = |node| map_parts(node, |part, _| Ok(earlier_bound(part)));
            return Ok(plan.transform_up_with_subqueries(earlier)?.data);
        }
        let mut has_changed = false;
        let changed = plan.transform_up_with_subqueries(|node| {
            // The types of the columns below may have changed.
            let node = if has_changed { node.recompute_schema()? } else { node };
            let changed = self.change_node(node)?;
            has_changed |= changed.transformed;
            match changed.transformed {
                true => changed.map_data(LogicalPlan::recompute_schema),
                false => Ok(changed),
            }
        })?;
        Ok(changed.data)
    }
}

impl TimeUnits {
    pub(crate) fn new(unit: TimeUnit) -> TimeUnits {
        TimeUnits { unit }
    }

    fn change_node(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        match node {
            LogicalPlan::Union(union) => unite(union),
            LogicalPlan::Join(join) if !join.on.is_empty() => {
                let join = join_on(join)?;
                let rest = map_parts(join.data, |part, schema| self.change(part, schema))?;
                Ok(Transformed::new_transformed(rest.data, join.transformed || rest.transformed))
            }
            node => map_parts(node, |part, schema| self.change(part, schema)),
        }
    }

    fn change(&self, mut part: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let changed = match &mut part {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => {
                align(&mut [left.as_mut(), right.as_mut()], schema)
                    || measure(left.as_ref(), right.as_mut(), schema)
                    || measure(right.as_ref(), left.as_mut(), schema)
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right })
                if ![&*left, &*right].iter().any(|of| type_of(of, schema).is_string()) =>
            {
                self.sum(left, right, true, schema) || align(&mut [left.as_mut(), right.as_mut()], schema)
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
                self.sum(left, right, false, schema)
            }
            Expr::Between(between) => {
                align(&mut [between.expr.as_mut(), between.low.as_mut(), between.high.as_mut()], schema)
            }
            Expr::InList(InList { expr, list, .. }) => {
                let mut all: Vec<&mut Expr> = std::iter::once(expr.as_mut()).chain(list).collect();
                align(&mut all, schema)
            }
            Expr::InSubquery(InSubquery { expr, subquery, .. })
            | Expr::SetComparison(SetComparison { expr, subquery, .. }) => {
                align_query(expr, subquery, schema)?
            }
            Expr::Case(case) => {
                let (mut whens, mut results) = (Vec::new(), Vec::new());
                for (when, then) in &mut case.when_then_expr {
                    whens.push(when.as_mut());
                    results.push(then.as_mut());
                }
                results.extend(case.else_expr.as_deref_mut());
                let is_one_of = case.expr.as_deref_mut().is_some_and(|of| {
                    whens.push(of);
                    align(&mut whens, schema)
                });
                align(&mut results, schema) || is_one_of
            }
            Expr::ScalarFunction(call) if OF_ONE_TYPE.contains(&call.name()) => {
                let mut all: Vec<&mut Expr> = call.args.iter_mut().collect();
                align(&mut all, schema)
            }
            Expr::ScalarFunction(call) => {
                let places = OF_TIMES.into_iter().find(|(name, _)| *name == call.name());
                let places = places.map_or(&[][..], |(_, places)| places);
                let is_in_zone = call.name() == "date_trunc_in_zone";
                let mut changed = false;
                for (_, time) in call.args.iter_mut().enumerate().filter(|(at, _)| places.contains(at)) {
                    let target = match type_of(time, schema) {
                        DataType::Date32 => DataType::Timestamp(self.unit, None),
                        DataType::Timestamp(unit, None) if is_in_zone => {
                            DataType::Timestamp(unit, Some(UTC.into()))
                        }
                        _ => continue,
                    };
                    replace(time, |date| cast(date, target));
                    changed = true;
                }
                changed
            }
            _ => false,
        };
        Ok(Transformed::new_transformed(part, changed))
    }

    /// Adds a time of a day to a date, or subtracts it. Returns true if these are the two.
    fn sum(&self, left: &mut Expr, right: &mut Expr, is_minus: bool, schema: &DFSchema) -> bool {
        let (date, time, unit) = match (type_of(left, schema), type_of(right, schema)) {
            (DataType::Date32, DataType::Time32(unit) | DataType::Time64(unit)) => (left, right, unit),
            (DataType::Time32(unit) | DataType::Time64(unit), DataType::Date32) if !is_minus => {
                (right, left, unit)
            }
            _ => return false,
        };
        replace(date, |date| cast(date, DataType::Timestamp(self.unit, None)));
        replace(time, |time| cast(cast(time, DataType::Int64), DataType::Duration(unit)));
        true
    }
}

/// Gives a call the function of earlier versions, if it returns the bound of a range of times.
fn earlier_bound(part: Expr) -> Transformed<Expr> {
    let Expr::ScalarFunction(mut call) = part else { return Transformed::no(part) };
    match ranges::earlier_bound(call.name()).and_then(catalog::function) {
        Some(function) => {
            call.func = function;
            Transformed::yes(Expr::ScalarFunction(call))
        }
        None => Transformed::no(Expr::ScalarFunction(call)),
    }
}

fn compares(operator: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// Gives an interval that is compared with a difference of times the type of the difference. DataFusion compares both as
/// intervals, which have at most 292 years of hours. Returns true if it has changed.
fn measure(difference: &Expr, interval: &mut Expr, schema: &DFSchema) -> bool {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(length)), _) = interval else { return false };
    let IntervalMonthDayNano { months: 0, days, nanoseconds } = *length else { return false };
    let days = i64::from(days).checked_mul(86_400_000_000);
    let Some(length) = days.and_then(|days| days.checked_add(nanoseconds / 1_000)) else { return false };
    let is_exact = nanoseconds % 1_000 == 0;
    if !is_exact || type_of(difference, schema) != DataType::Duration(TimeUnit::Microsecond) {
        return false;
    }
    *interval = Expr::Literal(ScalarValue::DurationMicrosecond(Some(length)), None);
    true
}

fn type_of(expression: &Expr, schema: &DFSchema) -> DataType {
    expression.get_type(schema).unwrap_or(DataType::Null)
}

fn replace(expression: &mut Expr, change: impl FnOnce(Expr) -> Expr) {
    let old = std::mem::replace(expression, Expr::Literal(ScalarValue::Null, None));
    *expression = change(old);
}

/// Casts the dates and texts among expressions of one type. Returns true if one has changed.
fn align(all: &mut [&mut Expr], schema: &DFSchema) -> bool {
    let types: Vec<DataType> = all.iter().map(|of| type_of(of, schema)).collect();
    let Some(targets) = common(&types) else { return false };
    for (of, target) in all.iter_mut().zip(targets) {
        if let Some(target) = target {
            replace(of, |of| cast(of, target));
        }
    }
    true
}

/// Casts an expression, or the column of a subquery with which it is compared. Returns true if one has changed.
fn align_query(expr: &mut Expr, subquery: &mut Subquery, schema: &DFSchema) -> Result<bool> {
    let column = subquery.subquery.schema().fields().first().map(|field| field.data_type().clone());
    let types = [type_of(expr, schema), column.unwrap_or(DataType::Null)];
    match common(&types).as_deref() {
        Some([Some(target), _]) => replace(expr, |of| cast(of, target.clone())),
        Some([_, Some(target)]) => {
            let plan = Arc::clone(&subquery.subquery);
            subquery.subquery = with_casts(plan, &[Some(target.clone())])?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Returns the types to which dates and texts beside a TIMESTAMP are cast; none if there is nothing to cast.
fn common(types: &[DataType]) -> Option<Vec<Option<DataType>>> {
    let mut finest: Option<(TimeUnit, Option<Arc<str>>)> = None;
    for data_type in types {
        match data_type {
            DataType::Timestamp(TimeUnit::Nanosecond, _) => return None,
            DataType::Timestamp(unit, zone) => {
                let (found, known) = finest.unwrap_or((*unit, None));
                finest = Some((found.max(*unit), known.or_else(|| zone.clone())));
            }
            DataType::Date32 | DataType::Null => {}
            text if text.is_string() => {}
            _ => return None,
        }
    }
    let (unit, zone) = finest?;
    let target = |data_type: &DataType| match data_type {
        DataType::Date32 => Some(DataType::Timestamp(unit, zone.clone())),
        // A text may have more digits than the TIMESTAMP.
        text if text.is_string() => Some(DataType::Timestamp(TimeUnit::Microsecond, zone.clone())),
        _ => None,
    };
    let targets: Vec<Option<DataType>> = types.iter().map(target).collect();
    targets.iter().any(Option::is_some).then_some(targets)
}

/// Casts the keys of a join.
fn join_on(mut join: Join) -> Result<Transformed<LogicalPlan>> {
    let mut changed = false;
    for (left, right) in &mut join.on {
        let types = [type_of(left, join.left.schema()), type_of(right, join.right.schema())];
        let Some(targets) = common(&types) else { continue };
        for (key, target) in [left, right].into_iter().zip(targets) {
            if let Some(target) = target {
                replace(key, |key| cast(key, target));
                changed = true;
            }
        }
    }
    Ok(Transformed::new_transformed(LogicalPlan::Join(join), changed))
}

/// Casts the columns of a union's inputs.
fn unite(union: Union) -> Result<Transformed<LogicalPlan>> {
    let type_at = |input: &LogicalPlan, at: usize| {
        input.schema().fields().get(at).map(|field| field.data_type().clone())
    };
    let mut casts: Vec<Vec<Option<DataType>>> = vec![Vec::new(); union.inputs.len()];
    for at in 0..union.schema.fields().len() {
        let types: Option<Vec<DataType>> = union.inputs.iter().map(|input| type_at(input, at)).collect();
        let mut targets = types.as_deref().and_then(common).unwrap_or_default().into_iter();
        casts.iter_mut().for_each(|input| input.push(targets.next().flatten()));
    }
    if casts.iter().flatten().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    let inputs = union.inputs.into_iter().zip(casts).map(|(input, casts)| with_casts(input, &casts));
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    Ok(Transformed::yes(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?)))
}

/// Casts the columns of a plan, which keep their names.
fn with_casts(input: Arc<LogicalPlan>, casts: &[Option<DataType>]) -> Result<Arc<LogicalPlan>> {
    if casts.iter().all(Option::is_none) {
        return Ok(input);
    }
    let columns = input.schema().iter().zip(casts).map(|((qualifier, field), target)| {
        let column = Expr::Column((qualifier, field).into());
        match target {
            Some(target) => cast(column, target.clone()).alias_qualified(qualifier.cloned(), field.name()),
            None => column,
        }
    });
    let columns: Vec<Expr> = columns.collect();
    Ok(Arc::new(LogicalPlanBuilder::from(Arc::unwrap_or_clone(input)).project(columns)?.build()?))
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        let rows = "VALUES (1, '9999-12-31 23:59:59.999999', '9999-12-31', '12:30'), (2, '2024-01-02', '2024-01-02', '00:00'), \
                    (3, NULL, NULL, NULL)";
        Tables::new().table("t", "(id INT, ts TIMESTAMP, d DATE, c TIME)", rows)
    }

    #[test]
    fn dates_beside_times_have_the_range_of_microseconds() {
        let tables = tables();
        let ids = |condition: &str, ids: &[&str]| {
            tables.check(&format!("SELECT id FROM t WHERE {condition} ORDER BY id"), ids);
        };
        ids("ts > d", &["1"]);
        ids("ts = d", &["2"]);
        ids("d IN (ts)", &["2"]);
        ids("ts IN (SELECT d FROM t)", &["2"]);
        ids("d NOT IN (SELECT ts FROM t WHERE ts IS NOT NULL)", &["1"]);
        ids("ts BETWEEN d AND '9999-12-31 23:59:59.999999'", &["1", "2"]);
        ids("ts >= '9999-12-31'", &["1"]);
        ids("ts < TIMESTAMPTZ '3000-01-01 00:00+00'", &["2"]);
        ids("ts - d < INTERVAL '1 minute'", &["2"]);
        tables.check(
            "SELECT id, coalesce(ts, DATE '5000-01-01'), d + c FROM t",
            &[
                "1|9999-12-31T23:59:59.999999|9999-12-31T12:30:00",
                "2|2024-01-02T00:00:00|2024-01-02T00:00:00",
                "3|5000-01-01T00:00:00|NULL",
            ],
        );
        tables.check(
            "SELECT ts FROM t WHERE id = 1 UNION ALL SELECT d FROM t WHERE id = 2",
            &["2024-01-02T00:00:00", "9999-12-31T23:59:59.999999"],
        );
        tables.check("SELECT a.id FROM t AS a JOIN t AS b ON a.ts = b.d", &["2"]);
        tables.check(
            "SELECT CASE id WHEN 1 THEN ts ELSE d END FROM t",
            &["2024-01-02T00:00:00", "9999-12-31T23:59:59.999999", "NULL"],
        );
    }

    #[test]
    fn functions_of_times_take_dates_beyond_2262() {
        let check = |sql: &str, expected: &str| Tables::new().check(&format!("SELECT {sql}"), &[expected]);
        check("DATE '5000-01-01' AT TIME ZONE 'UTC'", "5000-01-01T00:00:00Z");
        check("date_trunc('year', DATE '5000-07-01')", "5000-01-01T00:00:00");
        check("date_bin('1 day', DATE '5000-07-01')", "5000-07-01T00:00:00");
    }
}
