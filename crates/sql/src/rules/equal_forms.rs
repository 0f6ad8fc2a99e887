//! Gives values that are equal in SQL one form: 0.0 and -0.0, all NaN, and intervals of one length such as 24 hours and a
//! day.
//!
//! The rule wraps floats and intervals in the function [`one_form`] where they are distinguished:
//!
//! - keys of GROUP BY, DISTINCT, PARTITION BY, ORDER BY, joins and set operations;
//! - operands of comparisons, IN and CASE;
//! - arguments of DISTINCT aggregates and of those that sort them.
//!
//! So results don't depend on which of several equal values came first, nor on the sign that a processor
//! gives to the NaN of `0.0 / 0`. Values themselves stay: `SELECT -0.0` is -0.0. A group of intervals, or DISTINCT, gives
//! that of them with the fewest months, then days: most groups have one form only.
//!
//! Not covered: comparisons with a column of an outer query that couldn't become a join; comparisons inside
//! functions other than `nullif`, `greatest` and `least`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::min;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::{Aggregate, Join, Projection, Subquery, Window};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    Distinct, Expr, ExprSchemable, LogicalPlan, Operator, SortExpr, WindowFunctionDefinition, when,
};
use datafusion::optimizer::AnalyzerRule;
use millstream_delta::{has_equal_forms, interval_length, one_form as form_of};

use crate::functions::one_form;
use crate::rules::names::{input_schema, under_name};
use crate::tree_rewrite::{ExpressionsRewrite, TreeRewrite};

/// The analyzer rule.
#[derive(Debug)]
pub struct EqualForms;

impl AnalyzerRule for EqualForms {
    fn name(&self) -> &str {
        "equal_forms"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.rewrite_up(in_node)?.data)
    }
}

fn in_node(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = input_schema(&node);
    match node {
        LogicalPlan::Aggregate(node) => aggregate(node, &schema),
        LogicalPlan::Window(node) => window(node, &schema),
        LogicalPlan::Join(node) => join(node, &schema),
        LogicalPlan::Distinct(Distinct::All(input)) if has_intervals(input.schema()) => {
            let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
            aggregate(Aggregate::try_new(input, columns, Vec::new())?, &schema)
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            Ok(canonical_columns(&input)?.update_data(|input| LogicalPlan::Distinct(Distinct::All(input))))
        }
        LogicalPlan::Distinct(Distinct::On(mut on)) => {
            let mut changed = false;
            for expression in &mut on.on_expr {
                changed |= wrap_in_place(expression, &schema)?;
            }
            for key in on.sort_expr.iter_mut().flatten() {
                changed |= wrap_in_place(&mut key.expr, &schema)?;
            }
            let node = LogicalPlan::Distinct(Distinct::On(on));
            Ok(if changed { Transformed::yes(node) } else { Transformed::no(node) })
        }
        LogicalPlan::Sort(mut sort) => {
            let changed = wrap_keys(&mut sort.expr, &schema)?;
            let node = LogicalPlan::Sort(sort);
            Ok(if changed { Transformed::yes(node) } else { Transformed::no(node) })
        }
        node => {
            let names = NamePreserver::new(&node);
            node.rewrite_expressions(|expression| {
                let name = names.save(&expression);
                Ok(in_expression(expression, &schema)?.update_data(|expression| name.restore(expression)))
            })
        }
    }
}

/// Makes all floats of a plan canonical.
fn canonical_columns(plan: &Arc<LogicalPlan>) -> Result<Transformed<Arc<LogicalPlan>>> {
    let schema = plan.schema();
    if !schema.fields().iter().any(|field| has_equal_forms(field.data_type())) {
        return Ok(Transformed::no(Arc::clone(plan)));
    }
    let column = |(qualifier, field): (Option<&_>, &Arc<arrow::datatypes::Field>)| {
        let column = Expr::Column(Column::from((qualifier, field.as_ref())));
        match has_equal_forms(field.data_type()) {
            true => one_form::call(column).alias_qualified(qualifier.cloned(), field.name()),
            false => column,
        }
    };
    let items: Vec<Expr> = schema.iter().map(column).collect();
    let plan = LogicalPlan::Projection(Projection::try_new(items, Arc::clone(plan))?);
    Ok(Transformed::yes(Arc::new(plan)))
}

fn has_intervals(schema: &DFSchema) -> bool {
    schema.fields().iter().any(|field| is_interval(field.data_type()))
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_)) && has_equal_forms(data_type)
}

/// Returns the keys of an aggregate that are intervals, by the numbers of their columns.
fn interval_keys(node: &Aggregate, schema: &DFSchema) -> Result<Vec<(usize, Expr)>> {
    let mut found = Vec::new();
    for (place, key) in grouping_set_to_exprlist(&node.group_expr)?.into_iter().enumerate() {
        if is_interval(&key.get_type(schema)?) {
            found.push((place, key.clone().unalias()));
        }
    }
    Ok(found)
}

fn aggregate(mut node: Aggregate, schema: &DFSchema) -> Result<Transformed<LogicalPlan>> {
    let intervals = interval_keys(&node, schema)?;
    let mut changed = !intervals.is_empty();
    for key in &mut node.group_expr {
        changed |= match key {
            Expr::GroupingSet(_) => {
                let replaced = std::mem::take(key).map_children(|part| wrapped_deep(part, schema))?;
                *key = replaced.data;
                replaced.transformed
            }
            key => wrap_in_place(key, schema)?,
        };
    }
    for call in &mut node.aggr_expr {
        changed |= in_place(call, |call| in_expression(call, schema))?;
    }
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Aggregate(node)));
    }
    let names = Arc::clone(&node.schema);
    let first = names.fields().len();
    let shown =
        intervals.iter().enumerate().map(|(at, (_, key))| min(key.clone()).alias(format!("shown_{at}")));
    node.aggr_expr.extend(shown);
    let plan = LogicalPlan::Aggregate(Aggregate::try_new(node.input, node.group_expr, node.aggr_expr)?);
    let column = |place: usize| Expr::Column(Column::from(plan.schema().qualified_field(place)));
    // Of the intervals of a group, which are equal, the least one by form is shown. A key that a grouping set leaves out is
    // NULL.
    let shown = intervals.iter().enumerate().map(|(at, (place, _))| {
        let value = when(column(*place).is_not_null(), column(first + at)).end()?;
        Ok((*place, value))
    });
    let shown = shown.collect::<Result<BTreeMap<usize, Expr>>>()?;
    let items = names.iter().enumerate().map(|(place, (qualifier, field))| match shown.get(&place) {
        Some(value) => value.clone().alias_qualified(qualifier.cloned(), field.name()),
        None => under_name(column(place), qualifier, field.name()),
    });
    let items: Vec<Expr> = items.collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(items, Arc::new(plan.clone()))?)))
}

fn window(mut node: Window, schema: &DFSchema) -> Result<Transformed<LogicalPlan>> {
    let mut changed = false;
    for call in &mut node.window_expr {
        changed |= in_place(call, |call| in_expression(call, schema))?;
    }
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Window(node)));
    }
    let names = Arc::clone(&node.schema);
    let plan = Window::try_new(node.window_expr, node.input)?;
    renamed(LogicalPlan::Window(plan), &names)
}

/// Restores the names of a plan's columns.
fn renamed(plan: LogicalPlan, names: &DFSchema) -> Result<Transformed<LogicalPlan>> {
    let items = plan.schema().iter().zip(names.iter()).map(|((qualifier, field), (old, name))| {
        under_name(Expr::Column(Column::from((qualifier, field.as_ref()))), old, name.name())
    });
    let items: Vec<Expr> = items.collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(items, Arc::new(plan))?)))
}

fn join(mut node: Join, schema: &DFSchema) -> Result<Transformed<LogicalPlan>> {
    let mut changed = false;
    for (left, right) in &mut node.on {
        changed |= wrap_in_place(left, node.left.schema().as_ref())?;
        changed |= wrap_in_place(right, node.right.schema().as_ref())?;
    }
    if let Some(filter) = &mut node.filter {
        changed |= in_place(filter, |filter| in_expression(filter, schema))?;
    }
    let node = LogicalPlan::Join(node);
    Ok(if changed { Transformed::yes(node) } else { Transformed::no(node) })
}

fn in_place(expression: &mut Expr, f: impl FnOnce(Expr) -> Result<Transformed<Expr>>) -> Result<bool> {
    let replaced = f(std::mem::take(expression))?;
    *expression = replaced.data;
    Ok(replaced.transformed)
}

/// Makes comparisons in an expression, and the keys of its calls, canonical.
fn in_expression(expression: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expression.rewrite_up(|mut part| {
        let changed = in_part(&mut part, schema)?;
        Ok(if changed { Transformed::yes(part) } else { Transformed::no(part) })
    })
}

fn in_part(part: &mut Expr, schema: &DFSchema) -> Result<bool> {
    let mut operands: Vec<&mut Expr> = Vec::new();
    let mut changed = false;
    match part {
        Expr::BinaryExpr(binary) if is_comparison(binary.op) => {
            operands.extend([binary.left.as_mut(), binary.right.as_mut()]);
        }
        Expr::Between(between) => {
            operands.extend([between.expr.as_mut(), between.low.as_mut(), between.high.as_mut()]);
        }
        Expr::InList(list) => operands.extend([list.expr.as_mut()].into_iter().chain(&mut list.list)),
        Expr::Case(case) => {
            if let Some(base) = &mut case.expr {
                operands.push(base.as_mut());
                operands.extend(case.when_then_expr.iter_mut().map(|(when, _)| when.as_mut()));
            }
        }
        Expr::InSubquery(subquery) => {
            changed |= canonical_subquery(&mut subquery.subquery)?;
            operands.push(subquery.expr.as_mut());
        }
        Expr::SetComparison(comparison) => {
            changed |= canonical_subquery(&mut comparison.subquery)?;
            operands.push(comparison.expr.as_mut());
        }
        Expr::ScalarFunction(call) if matches!(call.func.name(), "nullif" | "greatest" | "least") => {
            operands.extend(&mut call.args);
        }
        Expr::AggregateFunction(call) => {
            changed |= wrap_keys(&mut call.params.order_by, schema)?;
            if canonical_arguments(call.func.name(), call.params.distinct) {
                operands.extend(&mut call.params.args);
            }
        }
        Expr::WindowFunction(call) => {
            let aggregates = matches!(&call.fun, WindowFunctionDefinition::AggregateUDF(_));
            let canonical = canonical_arguments(call.fun.name(), call.params.distinct);
            let params = &mut call.params;
            changed |= wrap_keys(&mut params.order_by, schema)?;
            operands.extend(&mut params.partition_by);
            if aggregates && canonical {
                operands.extend(&mut params.args);
            }
        }
        _ => return Ok(false),
    }
    if operands.iter().any(|operand| operand.contains_outer()) {
        return Ok(changed);
    }
    if let Some(replaced) = as_differences(&mut operands, schema)? {
        return Ok(changed || replaced);
    }
    for operand in operands {
        changed |= wrap_in_place(operand, schema)?;
    }
    Ok(changed)
}

/// Gives literals that are compared with differences of times the form of these, nanoseconds alone, so that both need no
/// function. Other rules recognise such comparisons. Returns true if a literal changed, and `None` if there is another
/// operand.
fn as_differences(operands: &mut [&mut Expr], schema: &DFSchema) -> Result<Option<bool>> {
    let mut differences = 0;
    let mut literals = Vec::with_capacity(operands.len());
    for operand in operands.iter() {
        literals.push(match operand {
            Expr::Cast(cast) if matches!(cast.expr.get_type(schema)?, DataType::Duration(_)) => {
                differences += 1;
                None
            }
            Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(value)), _) => match nanoseconds(*value) {
                Some(alone) => Some(alone),
                None => return Ok(None),
            },
            _ => return Ok(None),
        });
    }
    if differences == 0 {
        return Ok(None);
    }
    let mut changed = false;
    for (operand, alone) in operands.iter_mut().zip(literals) {
        if let (Expr::Literal(value, _), Some(alone)) = (&mut **operand, alone) {
            let alone = ScalarValue::IntervalMonthDayNano(Some(alone));
            changed |= *value != alone;
            *value = alone;
        }
    }
    Ok(Some(changed))
}

/// Returns an interval of the same length without months and days, if that fits.
fn nanoseconds(value: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let alone = i64::try_from(interval_length(value)).ok()?;
    Some(IntervalMonthDayNano::new(0, 0, alone))
}

/// True for an operator that compares two values, in order or for being equal.
pub(crate) fn is_comparison(operator: Operator) -> bool {
    use Operator::*;

    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// True if an aggregate distinguishes the values of its arguments, or sorts them. (min and max have their own
/// order, and DISTINCT doesn't affect them.)
fn canonical_arguments(name: &str, distinct: bool) -> bool {
    match name {
        "min" | "max" => false,
        "median" | "percentile_cont" | "quantile_cont" => true,
        _ => distinct,
    }
}

/// Makes a subquery's result canonical.
fn canonical_subquery(subquery: &mut Subquery) -> Result<bool> {
    let replaced = canonical_columns(&subquery.subquery)?;
    subquery.subquery = replaced.data;
    Ok(replaced.transformed)
}

fn wrap_keys(keys: &mut [SortExpr], schema: &DFSchema) -> Result<bool> {
    let mut changed = false;
    for key in keys {
        changed |= wrap_in_place(&mut key.expr, schema)?;
    }
    Ok(changed)
}

/// Wraps the parts of a grouping set: keys, or tuples of keys.
fn wrapped_deep(mut part: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let changed = wrap_in_place(&mut part, schema)?;
    Ok(Transformed::new(part, changed, TreeNodeRecursion::Continue))
}

fn wrap_in_place(expression: &mut Expr, schema: &dyn ExprSchema) -> Result<bool> {
    if let Expr::Alias(alias) = expression {
        return wrap_in_place(&mut alias.expr, schema);
    }
    if !is_odd(expression, schema)? {
        return Ok(false);
    }
    *expression = one_form::call(std::mem::take(expression));
    Ok(true)
}

/// True if an expression may return a float that isn't canonical.
fn is_odd(expression: &Expr, schema: &dyn ExprSchema) -> Result<bool> {
    Ok(match expression {
        Expr::Literal(value, _) if has_equal_forms(&value.data_type()) => {
            let array = value.to_array()?;
            !Arc::ptr_eq(&array, &form_of(&array)?)
        }
        Expr::Literal(..) => false,
        Expr::Cast(cast)
            if cast.field.data_type().is_floating() && is_whole(&cast.expr.get_type(schema)?) =>
        {
            false
        }
        other if one_form::is_call(other) => false,
        other => has_equal_forms(&other.get_type(schema)?),
    })
}

/// True if numbers of this type are neither NaN nor -0.0.
fn is_whole(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_decimal()
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        let rows = "VALUES (1, 0.0, 'a'), (2, -0.0, 'b'), (3, 'NaN', 'c'), (4, -('NaN'::DOUBLE), 'd'), (5, 1.5, 'e'), \
                    (6, NULL, 'f'), (7, -1.5, 'g')";
        Tables::new().table("t", "(id INT, x DOUBLE, s TEXT)", rows)
    }

    #[test]
    fn intervals_are_equal_by_length() {
        let intervals = "VALUES (1, INTERVAL '1 month'), (2, INTERVAL '30 days'), (3, INTERVAL '24 hours'), \
                         (4, INTERVAL '1 day'), (5, INTERVAL '-1 hour'), (6, INTERVAL '40 days'), (7, NULL)";
        let tables = Tables::new().table("t", "(id INT, i INTERVAL)", intervals);
        tables.check(
            "SELECT i, count(*) FROM t GROUP BY i",
            &["-1 hours|1", "24 hours|2", "30 days|2", "40 days|1", "NULL|1"],
        );
        tables.check("SELECT DISTINCT i FROM t WHERE id < 5", &["24 hours", "30 days"]);
        tables.check("SELECT i FROM t WHERE id = 1 UNION SELECT i FROM t WHERE id = 2", &["30 days"]);
        tables.check("SELECT i FROM t WHERE id = 1 EXCEPT SELECT i FROM t WHERE id = 2", &[]);
        tables.check(
            "SELECT count(*), i FROM t GROUP BY ROLLUP (i) HAVING count(*) > 1",
            &["2|24 hours", "2|30 days", "7|NULL"],
        );
        tables.check("SELECT min(i), max(i), count(DISTINCT i) FROM t", &["-1 hours|40 days|4"]);
        tables.check("SELECT min(i), max(i) FROM t WHERE id < 3", &["30 days|1 mons"]);
        tables.check("SELECT a.id, b.id FROM t a JOIN t b ON a.i = b.i AND a.id < b.id", &["1|2", "3|4"]);
        tables.check("SELECT id FROM t WHERE i > INTERVAL '25 hours'", &["1", "2", "6"]);
        tables.check("SELECT id FROM t WHERE i IN (INTERVAL '720 hours')", &["1", "2"]);
        tables.check(
            "SELECT id, rank() OVER (ORDER BY i DESC NULLS LAST) FROM t WHERE id < 4",
            &["1|1", "2|1", "3|3"],
        );
        tables.check(
            "SELECT TIMESTAMP '2026-02-01' - TIMESTAMP '2026-01-01' > INTERVAL '7 days', INTERVAL '1 day' <> INTERVAL '24 hours'",
            &["true|false"],
        );
    }

    #[test]
    fn keys_that_are_equal_are_one() {
        let tables = tables();
        let groups = ["-1.5|1", "0.0|2", "1.5|1", "NULL|1", "NaN|2"];
        tables.check("SELECT x, count(*) FROM t GROUP BY x", &groups);
        tables.check("SELECT t.x, count(*) FROM t GROUP BY ROLLUP(t.x) HAVING t.x = 0", &["0.0|2"]);
        tables.check("SELECT DISTINCT x FROM t", &["-1.5", "0.0", "1.5", "NULL", "NaN"]);
        tables.check("SELECT x FROM t UNION SELECT -x FROM t", &["-1.5", "0.0", "1.5", "NULL", "NaN"]);
        tables.check("SELECT x FROM t EXCEPT SELECT -x FROM t", &[]);
        tables.check("SELECT x FROM t INTERSECT SELECT -x FROM t WHERE x <> 1.5", &["0.0", "1.5", "NaN"]);
        tables.check("SELECT DISTINCT ON (x) id FROM t ORDER BY x, id", &["1", "3", "5", "6", "7"]);
        tables.check(
            "SELECT count(DISTINCT x), sum(DISTINCT x), count(DISTINCT x) FILTER (WHERE id < 5), count(*) FROM t",
            &["4|NaN|2|7"],
        );
        tables.check("SELECT array_agg(DISTINCT x) FROM t", &["[-1.5, 0.0, 1.5, NaN, NULL]"]);
        tables.check("SELECT a.id, b.id FROM t a JOIN t b ON a.x = b.x AND a.id < b.id", &["1|2", "3|4"]);
        tables.check("SELECT count(*) FROM t a JOIN t b USING (x)", &["10"]);
    }

    #[test]
    fn fields_of_structs_are_keys_of_joins() {
        let rows = "(SELECT id, named_struct('a', x) AS s FROM t) AS";
        tables().check(
            &format!("SELECT p.id, q.id FROM {rows} p JOIN {rows} q ON p.s['a'] = q.s['a'] AND p.id < q.id"),
            &["1|2", "3|4"],
        );
    }

    #[test]
    fn comparisons_know_one_nan_and_one_zero() {
        let tables = tables();
        tables.check("SELECT id FROM t WHERE x > 100", &["3", "4"]);
        tables.check("SELECT id FROM t WHERE x < -100", &[]);
        tables.check("SELECT id FROM t WHERE -x = 'NaN'::DOUBLE", &["3", "4"]);
        tables.check(
            "SELECT id FROM t WHERE 0.0 / x IS NOT DISTINCT FROM 'NaN'::DOUBLE",
            &["1", "2", "3", "4"],
        );
        tables.check("SELECT id FROM t WHERE x IN (0.0, 7, 8, 9, 'NaN'::DOUBLE)", &["1", "2", "3", "4"]);
        tables.check("SELECT id FROM t WHERE x BETWEEN 2 AND 'NaN'::DOUBLE", &["3", "4"]);
        tables.check("SELECT id FROM t WHERE x IN (SELECT -x FROM t)", &["1", "2", "3", "4", "5", "7"]);
        tables.check(
            "SELECT id, CASE x WHEN -0.0 THEN 'z' WHEN 'NaN' THEN 'n' END FROM t WHERE id < 5",
            &["1|z", "2|z", "3|n", "4|n"],
        );
        tables.check("SELECT id FROM t WHERE greatest(x, 5.0) > 5", &["3", "4"]);
        tables.check("SELECT id FROM t WHERE nullif(x, 0.0) IS NULL", &["1", "2", "6"]);
        tables.check("SELECT id FROM t WHERE struct(x) = struct(0.0::DOUBLE)", &["1", "2"]);
    }

    #[test]
    fn peers_and_orders_know_them_too() {
        let tables = tables();
        tables.check(
            "SELECT id, rank() OVER (ORDER BY x), sum(id) OVER (PARTITION BY x) FROM t",
            &["1|2|3", "2|2|3", "3|5|7", "4|5|7", "5|4|5", "6|7|6", "7|1|7"],
        );
        tables.check("SELECT id FROM t ORDER BY x DESC, id LIMIT 3", &["3", "4", "6"]);
        tables.check(
            "SELECT median(x), array_agg(x ORDER BY x DESC NULLS LAST) FROM t WHERE id IN (3, 4, 5)",
            &["NaN|[NaN, NaN, 1.5]"],
        );
        tables.check("SELECT -x FROM t WHERE id = 1", &["-0.0"]);
    }

    #[test]
    fn other_keys_and_names_stay() {
        let tables = tables();
        let plan = tables.plan("SELECT s, count(*) FROM t WHERE id > 1.5 AND s <> 'x' GROUP BY s");
        assert!(!plan.contains("canonical_float"), "{plan}");
        let query =
            tables.planner.query("SELECT t.x, sum(x) OVER (ORDER BY x) FROM t GROUP BY x", &tables).unwrap();
        let names: Vec<&str> = query.schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(
            names,
            ["x", "sum(t.x) ORDER BY [t.x ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"]
        );
        // A comparison with a column of an outer query has become a join when this rule runs.
        tables.check(
            "SELECT id FROM t a WHERE id = (SELECT max(id) FROM t b WHERE b.x = a.x)",
            &["2", "4", "5", "7"],
        );
    }
}
