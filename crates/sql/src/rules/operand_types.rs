//! Gives a date or a text beside a TIMESTAMP the unit of the TIMESTAMP, and an integer beside a REAL the type DOUBLE PRECISION.
//!
//! DataFusion compares times in nanoseconds, whose range ends in 2262: `ts < DATE '9999-12-31'` of a TIMESTAMP in
//! microseconds would be an error. The rule writes the cast that is meant before types are resolved:
//!
//! | expression | becomes |
//! | --- | --- |
//! | `ts < date`, `ts - date`, `ts IN (date, …)`, `CASE … THEN ts ELSE date END`, `coalesce(ts, date)` | `CAST(date AS TIMESTAMP)` |
//! | `ts < '2024-01-01'` | `CAST('2024-01-01' AS TIMESTAMP)` |
//! | `ts - ts < INTERVAL '30 days'` | the interval as a duration |
//! | `date + time` | `CAST(date AS TIMESTAMP) +` the time as a duration |
//! | `date AT TIME ZONE zone`, `date_trunc('hour', date)`, `date_bin(interval, date)` | the function of `CAST(date AS TIMESTAMP)` |
//! | `real < int`, `real + numeric`, `double = numeric` | both as DOUBLE PRECISION, as in PostgreSQL |
//! | `coalesce(double, numeric)`, a UNION of both | DOUBLE PRECISION, as there; DataFusion makes it NUMERIC |
//!
//! Beside a TIMESTAMP in nanoseconds everything stays in nanoseconds.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{InList, InSubquery, ScalarFunction, SetComparison};
use datafusion::logical_expr::logical_plan::{Join, RecursiveQuery, Subquery, Union};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, cast};
use datafusion::optimizer::AnalyzerRule;

use crate::compatibility_level::CompatibilityLevel;
use crate::expression_type::type_of;
use crate::functions::marks::catalog;
use crate::functions::ranges;
use crate::rules::names::{map_parts, with_casts};
use crate::rules::retyped::retyped;
use crate::tree_rewrite::TreeRewrite;
use crate::zones::UTC;

/// Functions whose arguments have one type, from the first place on.
const OF_ONE_TYPE: [&str; 7] = ["coalesce", "greatest", "least", "nullif", "ifnull", "nvl", "make_array"];

/// Functions of times, and the places of their times, that also take a date.
const OF_TIMES: [(&str, &[usize]); 4] =
    [("timezone", &[1]), ("date_trunc", &[1]), ("date_trunc_in_zone", &[1]), ("date_bin", &[1, 2])];

/// NUMERIC of some digits.
const NUMERIC: DataType = DataType::Decimal128(38, 10);

/// The analyzer rule.
#[derive(Debug)]
pub struct OperandTypes {
    level: CompatibilityLevel,
}

impl AnalyzerRule for OperandTypes {
    fn name(&self) -> &str {
        "operand_types"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        if self.level == CompatibilityLevel::One {
            let earlier = |node| map_parts(node, |part, _| Ok(earlier_bound(part)));
            return Ok(plan.rewrite_up(earlier)?.data);
        }
        retyped(plan, |node| self.change_node(node))
    }
}

impl OperandTypes {
    pub(crate) fn new(level: CompatibilityLevel) -> OperandTypes {
        OperandTypes { level }
    }

    fn change_node(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        match node {
            LogicalPlan::Union(union) => self.unite(union),
            LogicalPlan::RecursiveQuery(query) if self.level.has_postgres_numbers() => keep_types(query),
            LogicalPlan::Join(join) if !join.on.is_empty() => {
                let join = self.join_on(join);
                let rest = map_parts(join.data, |part, schema| self.change(part, schema))?;
                Ok(Transformed::new_transformed(rest.data, join.transformed || rest.transformed))
            }
            node => map_parts(node, |part, schema| self.change(part, schema)),
        }
    }

    fn change(&self, mut part: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let changed = match &mut part {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => {
                self.align(&mut [left.as_mut(), right.as_mut()], Place::Operand, schema)
                    || measure(left.as_ref(), right.as_mut(), schema)
                    || measure(right.as_ref(), left.as_mut(), schema)
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right })
                if ![&*left, &*right].iter().any(|of| type_of(of, schema).is_string()) =>
            {
                self.sum(left, right, true, schema)
                    || self.align(&mut [left.as_mut(), right.as_mut()], Place::Operand, schema)
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
                self.sum(left, right, false, schema)
                    || self.align_operands(&mut [left.as_mut(), right.as_mut()], schema)
            }
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::Multiply | Operator::Divide | Operator::Modulo,
                right,
            }) => self.align_operands(&mut [left.as_mut(), right.as_mut()], schema),
            Expr::Between(between) => {
                let mut all = [between.expr.as_mut(), between.low.as_mut(), between.high.as_mut()];
                self.align(&mut all, Place::Operand, schema)
            }
            Expr::InList(InList { expr, list, .. }) => {
                // As in PostgreSQL, several constants have one type with the value.
                let place = match list.len() > 1 && !list.iter().any(Expr::any_column_refs) {
                    true => Place::Value,
                    false => Place::Operand,
                };
                let mut all: Vec<&mut Expr> = std::iter::once(expr.as_mut()).chain(list).collect();
                self.align(&mut all, place, schema)
            }
            Expr::InSubquery(InSubquery { expr, subquery, .. })
            | Expr::SetComparison(SetComparison { expr, subquery, .. }) => {
                self.align_query(expr, subquery, schema)?
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
                    self.align(&mut whens, Place::Operand, schema)
                });
                self.align(&mut results, Place::Value, schema) || is_one_of
            }
            Expr::ScalarFunction(call) if OF_ONE_TYPE.contains(&call.name()) => {
                let place = if call.name() == "nullif" { Place::Operand } else { Place::Value };
                let mut all: Vec<&mut Expr> = call.args.iter_mut().collect();
                self.align(&mut all, place, schema)
            }
            Expr::ScalarFunction(call) => self.cast_times(call, schema),
            _ => false,
        };
        Ok(Transformed::new_transformed(part, changed))
    }

    /// Casts the dates that a function of times takes. Returns true if one has changed.
    fn cast_times(&self, call: &mut ScalarFunction, schema: &DFSchema) -> bool {
        let places = OF_TIMES.into_iter().find(|(name, _)| *name == call.name());
        let places = places.map_or(&[][..], |(_, places)| places);
        let is_in_zone = call.name() == "date_trunc_in_zone";
        let mut changed = false;
        for (_, time) in call.args.iter_mut().enumerate().filter(|(at, _)| places.contains(at)) {
            let target = match type_of(time, schema) {
                DataType::Date32 => DataType::Timestamp(self.level.timestamp_unit(), None),
                DataType::Timestamp(unit, None) if is_in_zone => DataType::Timestamp(unit, Some(UTC.into())),
                _ => continue,
            };
            replace(time, |date| cast(date, target));
            changed = true;
        }
        changed
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
        replace(date, |date| cast(date, DataType::Timestamp(self.level.timestamp_unit(), None)));
        replace(time, |time| cast(cast(time, DataType::Int64), DataType::Duration(unit)));
        true
    }

    /// Casts an expression, or the column of a subquery with which it is compared. Returns true if one has changed.
    fn align_query(&self, expr: &mut Expr, subquery: &mut Subquery, schema: &DFSchema) -> Result<bool> {
        let column = subquery.subquery.schema().fields().first().map(|field| field.data_type().clone());
        let types = [type_of(expr, schema), column.unwrap_or(DataType::Null)];
        let Some(targets) = self.common(&types, Place::Operand) else { return Ok(false) };
        let [of_expr, of_column] = &targets[..] else { return Ok(false) };
        if let Some(target) = of_expr {
            replace(expr, |of| cast(of, target.clone()));
        }
        if of_column.is_some() {
            let plan = Arc::clone(&subquery.subquery);
            subquery.subquery = with_casts(plan, std::slice::from_ref(of_column))?;
        }
        Ok(true)
    }

    /// Casts the keys of a join.
    fn join_on(&self, mut join: Join) -> Transformed<LogicalPlan> {
        let mut changed = false;
        for (left, right) in &mut join.on {
            let types = [type_of(left, join.left.schema()), type_of(right, join.right.schema())];
            let Some(targets) = self.common(&types, Place::Operand) else { continue };
            changed |= cast_each([left, right], targets);
        }
        Transformed::new_transformed(LogicalPlan::Join(join), changed)
    }

    /// Gives expressions of numbers or times their common type. Returns true if one has changed.
    fn align(&self, all: &mut [&mut Expr], place: Place, schema: &DFSchema) -> bool {
        cast_to(all, schema, |types| self.common(types, place))
    }

    /// Gives the operands of an operation with numbers their common type. Returns true if one has changed.
    fn align_operands(&self, all: &mut [&mut Expr], schema: &DFSchema) -> bool {
        cast_to(all, schema, |types| self.common_numbers(types, Place::Operand))
    }

    /// Returns the types to which values are cast; none if there is nothing to cast.
    fn common(&self, types: &[DataType], place: Place) -> Option<Vec<Option<DataType>>> {
        common_times(types).or_else(|| self.common_numbers(types, place))
    }

    fn common_numbers(&self, types: &[DataType], place: Place) -> Option<Vec<Option<DataType>>> {
        if !self.level.has_postgres_numbers() || !types.iter().all(|of| of.is_numeric() || of.is_null()) {
            return None;
        }
        let has_decimals = types.iter().any(DataType::is_decimal);
        let has_integers = types.iter().any(DataType::is_integer);
        let (has_reals, has_doubles) =
            (types.contains(&DataType::Float32), types.contains(&DataType::Float64));
        let target = match place {
            Place::Operand if has_reals && (has_integers || has_decimals) => DataType::Float64,
            _ if has_doubles && has_decimals => DataType::Float64,
            Place::Value if has_reals && has_decimals => DataType::Float32,
            _ => return None,
        };
        Some(types.iter().map(|of| (*of != target).then(|| target.clone())).collect())
    }

    /// Casts the columns of a union's inputs.
    fn unite(&self, union: Union) -> Result<Transformed<LogicalPlan>> {
        let mut casts: Vec<Vec<Option<DataType>>> = vec![Vec::new(); union.inputs.len()];
        for at in 0..union.schema.fields().len() {
            let types: Option<Vec<DataType>> =
                union.inputs.iter().map(|input| column_type(input, at)).collect();
            let targets = types.and_then(|types| self.common(&types, Place::Value)).unwrap_or_default();
            let mut targets = targets.into_iter();
            for (input, casts) in union.inputs.iter().zip(&mut casts) {
                let found = input.schema().field(at).data_type();
                casts.push(targets.next().flatten().filter(|target| target != found));
            }
        }
        let has_casts = casts.iter().flatten().any(Option::is_some);
        let inputs = union.inputs.into_iter().zip(casts).map(|(input, casts)| with_casts(input, &casts));
        let united = Union::try_new_with_loose_types(inputs.collect::<Result<_>>()?)?;
        // The types of the inputs may have changed.
        let types = |schema: &DFSchema| -> Vec<DataType> {
            schema.fields().iter().map(|field| field.data_type().clone()).collect()
        };
        match has_casts || types(&united.schema) != types(&union.schema) {
            true => Ok(Transformed::yes(LogicalPlan::Union(united))),
            false => Ok(Transformed::no(LogicalPlan::Union(Union { schema: union.schema, ..united }))),
        }
    }
}

/// Where numbers of different types meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In an operation or a comparison.
    Operand,
    /// In a list, a CASE or a UNION, whose values have one type.
    Value,
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

fn replace(expression: &mut Expr, change: impl FnOnce(Expr) -> Expr) {
    let old = std::mem::replace(expression, Expr::Literal(ScalarValue::Null, None));
    *expression = change(old);
}

/// Casts expressions to the types that `common` gives for theirs. Returns true if one has changed.
fn cast_to(
    all: &mut [&mut Expr],
    schema: &DFSchema,
    common: impl FnOnce(&[DataType]) -> Option<Vec<Option<DataType>>>,
) -> bool {
    let types: Vec<DataType> = all.iter().map(|of| written_type(of, schema)).collect();
    let Some(targets) = common(&types) else { return false };
    // A literal that counts as NUMERIC can have the type already.
    let targets = all.iter().zip(targets).map(|(of, target)| target.filter(|to| type_of(of, schema) != *to));
    let targets: Vec<Option<DataType>> = targets.collect();
    cast_each(all.iter_mut().map(|of| &mut **of), targets)
}

/// Casts each expression that has a target. Returns true if one has.
fn cast_each<'e>(all: impl IntoIterator<Item = &'e mut Expr>, targets: Vec<Option<DataType>>) -> bool {
    let mut changed = false;
    for (of, target) in all.into_iter().zip(targets) {
        if let Some(target) = target {
            replace(of, |of| cast(of, target));
            changed = true;
        }
    }
    changed
}

/// Returns the type of an expression. A literal with a point, which is a DOUBLE PRECISION here, counts as NUMERIC, and so does
/// arithmetic of such literals and integers: `n < 0.06 + 0.01` compares as NUMERIC.
fn written_type(expression: &Expr, schema: &DFSchema) -> DataType {
    match expression {
        Expr::Literal(ScalarValue::Float64(Some(_)), _) => NUMERIC,
        Expr::Negative(inner) => written_type(inner, schema),
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if op.is_numerical_operators() && !expression.any_column_refs() =>
        {
            let types = [written_type(left, schema), written_type(right, schema)];
            match types.iter().all(|of| of.is_integer() || of.is_decimal()) && types.contains(&NUMERIC) {
                true => NUMERIC,
                false => type_of(expression, schema),
            }
        }
        other => type_of(other, schema),
    }
}

/// Returns the type of a plan's column, which is NUMERIC as in [`written_type`].
fn column_type(plan: &LogicalPlan, at: usize) -> Option<DataType> {
    match plan {
        LogicalPlan::Projection(node) => {
            let mut item = node.expr.get(at)?;
            while let Expr::Alias(alias) = item {
                item = &alias.expr;
            }
            Some(written_type(item, node.input.schema()))
        }
        other => Some(other.schema().fields().get(at)?.data_type().clone()),
    }
}

/// Gives the terms of a recursive query the number types with which the query was planned.
fn keep_types(query: RecursiveQuery) -> Result<Transformed<LogicalPlan>> {
    let casts = |term: &LogicalPlan| -> Vec<Option<DataType>> {
        let fields = term.schema().fields().iter().zip(query.schema.fields());
        let cast = |found: &DataType, planned: &DataType| {
            (found != planned && found.is_numeric() && planned.is_floating()).then(|| planned.clone())
        };
        fields.map(|(found, planned)| cast(found.data_type(), planned.data_type())).collect()
    };
    let (first, next) = (casts(&query.static_term), casts(&query.recursive_term));
    if first.iter().chain(&next).all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::RecursiveQuery(query)));
    }
    let (first, next) = (with_casts(query.static_term, &first)?, with_casts(query.recursive_term, &next)?);
    let query = RecursiveQuery::try_new(query.name, first, next, query.is_distinct)?;
    Ok(Transformed::yes(LogicalPlan::RecursiveQuery(query)))
}

/// Returns the types to which dates and texts beside a TIMESTAMP are cast; none if there is nothing to cast.
fn common_times(types: &[DataType]) -> Option<Vec<Option<DataType>>> {
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

    #[test]
    fn numbers_of_different_types_are_doubles() {
        let tables = Tables::new().table(
            "n",
            "(id INT, d DOUBLE, r REAL, n NUMERIC(6, 2), i INT)",
            "VALUES (1, 1e300, 0.1, 0.1, 3), (2, 0.1, 16777216, 1.5, 16777217)",
        );
        tables.check(
            "SELECT arrow_typeof(r + i), arrow_typeof(r * n), arrow_typeof(d - n), arrow_typeof(r + 1.5), arrow_typeof(n + 1.5) FROM n WHERE id = 1",
            &["Float64|Float64|Float64|Float64|Float64"],
        );
        tables.check("SELECT id FROM n WHERE r = i", &[]);
        tables.check("SELECT id FROM n WHERE d > n", &["1"]);
        tables.check("SELECT a.id, b.id AS o FROM n AS a JOIN n AS b ON a.d = b.n", &["2|1"]);
        tables.check("SELECT id FROM n WHERE d IN (SELECT n FROM n)", &["2"]);
        tables.check("SELECT id FROM n WHERE r BETWEEN n AND i", &["1", "2"]);
        tables.check(
            "SELECT coalesce(d, n), CASE id WHEN 1 THEN n ELSE d END, [d, n], d IN (n, 0.1) FROM n",
            &["0.1|0.1|[0.1, 1.5]|true", "1e300|0.1|[1e300, 0.1]|false"],
        );
        tables.check("SELECT d FROM n UNION ALL SELECT n FROM n", &["0.1", "0.1", "1.5", "1e300"]);
        // A literal with a point is NUMERIC.
        tables.check("SELECT n > 0.5, coalesce(n, 0.5) > 0.5 FROM n", &["false|false", "true|true"]);
    }

    #[test]
    fn subqueries_see_the_types_of_outer_columns() {
        let tables = Tables::new().table(
            "n",
            "(id INT, r REAL, n NUMERIC(6, 2), d DOUBLE, i INT)",
            "VALUES (1, 0.5, 1.5, 2.5, 3)",
        );
        let from = "FROM (SELECT id, r + i AS a, r AS b, coalesce(n, d) AS c, n FROM n) AS s";
        let check = |sql: &str, expected: &str| tables.check(sql, &[expected]);
        check(&format!("SELECT x {from}, LATERAL (SELECT a + b AS x) AS u"), "4.0");
        check(
            &format!("SELECT id {from} WHERE EXISTS (SELECT 1 FROM n AS q WHERE greatest(s.a, s.b) > q.d)"),
            "1",
        );
        check(&format!("SELECT (SELECT coalesce(s.c, s.n)) {from}"), "1.5");
        check(&format!("SELECT (SELECT array_agg([s.a, q.r]) FROM n AS q) {from}"), "[[3.5, 0.5]]");
        check(&format!("SELECT (SELECT (SELECT s.a + q.r)  FROM n AS q) {from}"), "4.0");
        tables.check(
            &format!("SELECT v FROM (SELECT a, b {from}) AS s UNPIVOT (v FOR k IN (a, b)) AS p"),
            &["0.5", "3.5"],
        );
    }

    #[test]
    fn unions_and_recursion_follow() {
        let tables = Tables::new().table(
            "n",
            "(id INT, r REAL, n NUMERIC(6, 2), d DOUBLE)",
            "VALUES (3, 0.5, 1.5, 1e300)",
        );
        tables.check(
            "SELECT n AS x FROM n UNION ALL SELECT d FROM n UNION ALL SELECT id FROM n",
            &["1.5", "1e300", "3.0"],
        );
        tables.check("SELECT coalesce(n, d) AS x FROM n UNION ALL SELECT id FROM n", &["1.5", "3.0"]);
        tables.check(
            "SELECT id * 1e30 AS x FROM n UNION ALL SELECT n FROM n",
            &["1.5", "3.0000000000000003e30"],
        );
        tables.check(
            "WITH RECURSIVE q AS (SELECT r AS x FROM n UNION ALL SELECT x + 1 FROM q WHERE x < 2) SELECT x FROM q",
            &["0.5", "1.5", "2.5"],
        );
    }

    #[test]
    fn a_single_value_is_compared_as_by_an_operator() {
        let tables = Tables::new().table("n", "(r REAL, i INT)", "VALUES (16777216, 16777217)");
        tables.check(
            "SELECT r IN (i), r IN (16777217), r IN (16777217, 1), nullif(r, i) IS NULL, CASE r WHEN 16777217 THEN 1 END FROM n",
            &["false|false|true|false|NULL"],
        );
    }
}
