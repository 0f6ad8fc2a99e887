//! Turns the subqueries of expressions, and LATERAL ones in FROM, into joins.
//!
//! ```sql
//! SELECT v > (SELECT avg(w) FROM b), k NOT IN (SELECT k FROM b) OR v = 0 FROM a;
//! ```
//!
//! DataFusion supports subqueries only in some places and forms, and answers some wrongly (`NOT IN` within OR
//! over a NULL). Here each subquery becomes columns joined to the rows of its expression, in any place and
//! with SQL's three-valued logic. [`value`] has the forms, and [`dependent`] handles subqueries that refer to
//! outer rows. DataFusion still plans the subqueries that it handles as well and at lower cost: see
//! [`plain`].
//!
//! A scalar subquery without a row is NULL; one with two rows fails if its value is used.
//!
//! Deliberately absent: subqueries in ON of outer joins that refer to both sides; aggregates in a subquery
//! that belong to the outer query.

mod dependent;
mod plain;
mod recursive;
mod references;
mod value;

use std::cell::Cell;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, JoinType, TableReference};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, EmptyRelation, Expr, Filter, Join, LogicalPlan, Operator, Projection, Union,
    Values, binary_expr,
};
use datafusion::optimizer::AnalyzerRule;

use self::dependent::{Domain, join_on_values};
use self::plain::{is_plain, is_plain_scalar};
use self::references::{has_subquery, is_lateral, outer_columns, subquery_of};
use self::value::Lift;
use crate::error::Error;
use crate::tree_rewrite::{ExpressionsRewrite, TreeRewrite};

/// The analyzer rule.
#[derive(Debug, Default)]
pub struct Subqueries;

impl AnalyzerRule for Subqueries {
    fn name(&self) -> &str {
        "subqueries"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let names = AliasGenerator::default();
        let mut changed = false;
        let plan = plan.rewrite_up(|node| {
            // A subquery's column may have become nullable, and so may expressions over it.
            let node = if changed { recompute(node)? } else { node };
            let lifted = lift(node, &names)?;
            changed |= lifted.transformed;
            Ok(Transformed::new(lifted.data, changed, lifted.tnr))
        })?;
        Ok(plan.data)
    }
}

/// Generates numbered names that no query has.
#[derive(Debug, Default)]
struct AliasGenerator(Cell<usize>);

impl AliasGenerator {
    fn next(&self, what: &str) -> TableReference {
        self.0.set(self.0.get() + 1);
        TableReference::bare(format!("__{what}_{}", self.0.get()))
    }
}

fn recompute(node: LogicalPlan) -> Result<LogicalPlan> {
    match node {
        LogicalPlan::Union(union) => {
            let nullable =
                |at: usize| union.inputs.iter().any(|input| input.schema().field(at).is_nullable());
            let fields = union.schema.iter().enumerate().map(|(at, (qualifier, field))| {
                let field = field.as_ref().clone().with_nullable(field.is_nullable() || nullable(at));
                (qualifier.cloned(), Arc::new(field))
            });
            let schema = DFSchema::new_with_metadata(fields.collect(), union.schema.metadata().clone())?;
            let schema =
                schema.with_functional_dependencies(union.schema.functional_dependencies().clone())?;
            Ok(LogicalPlan::Union(Union { inputs: union.inputs, schema: Arc::new(schema) }))
        }
        other => other.recompute_schema(),
    }
}

fn lift(node: LogicalPlan, names: &AliasGenerator) -> Result<Transformed<LogicalPlan>> {
    let node = match node {
        LogicalPlan::Join(join) if is_lateral(&join.right)? => {
            let joined = lateral(join, names)?;
            return Ok(Transformed::yes(lift(joined, names)?.data));
        }
        other => other,
    };
    if let LogicalPlan::Aggregate(aggregate) = &node {
        refuse_outer_aggregates(aggregate)?;
    }
    let mut found = false;
    node.apply_expressions(|expression| {
        found |= has_subquery(expression)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !found {
        return Ok(Transformed::no(node));
    }
    match node {
        LogicalPlan::Filter(filter) => self::filter(filter, names),
        LogicalPlan::Join(join) => condition(join, names),
        LogicalPlan::Values(rows) => values(rows, names).map(Transformed::yes),
        LogicalPlan::Projection(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Distinct(_) => one_input(node, names).map(Transformed::yes),
        LogicalPlan::Limit(_) => Err(Error::unsupported("a subquery in LIMIT or OFFSET").into()),
        other => Ok(Transformed::no(other)),
    }
}

/// Refuses `(SELECT max(a.v) FROM b)`: an aggregate over outer columns alone belongs to the outer query.
fn refuse_outer_aggregates(node: &Aggregate) -> Result<()> {
    let is_outer = |part: &Expr| match part {
        Expr::AggregateFunction(call) => {
            let arguments = &call.params.args;
            arguments.iter().any(Expr::contains_outer) && !arguments.iter().any(Expr::any_column_refs)
        }
        _ => false,
    };
    for call in &node.aggr_expr {
        if call.exists(|part| Ok(is_outer(part)))? {
            return Err(Error::unsupported(
                "an aggregate in a subquery over columns of an outer query alone",
            )
            .hint("In SQL it belongs to the outer query: compute it there, and refer to its result.")
            .into());
        }
    }
    Ok(())
}

/// Replaces the subqueries in the expressions of a node with one input.
fn one_input(node: LogicalPlan, names: &AliasGenerator) -> Result<LogicalPlan> {
    let Some(input) = node.inputs().first().map(|input| (*input).clone()) else { return Ok(node) };
    let selects = matches!(node, LogicalPlan::Projection(_));
    let keeps_columns = matches!(node, LogicalPlan::Window(_) | LogicalPlan::Sort(_));
    let schema = Arc::clone(node.schema());
    let mut lift = Lift::new(input, names);
    let preserver = NamePreserver::new(&node);
    let node = node.rewrite_expressions(|expression| {
        if matches!(expression, Expr::GroupingSet(_)) && has_subquery(&expression)? {
            return Err(Error::unsupported("a subquery in GROUPING SETS").into());
        }
        let name = preserver.save(&expression);
        let replaced = expression.rewrite_up(|part| match selects {
            true => lift_unless_plain(part, &mut lift),
            false => lift_value(part, &mut lift),
        })?;
        Ok(replaced.update_data(|expression| name.restore(expression)))
    })?;
    let plan = lift.plan;
    let node = node.data.map_children(|_| Ok(Transformed::yes(plan.clone())))?.data.recompute_schema()?;
    if keeps_columns { only(node, &schema) } else { Ok(node) }
}

fn lift_value(part: Expr, lift: &mut Lift<'_>) -> Result<Transformed<Expr>> {
    match subquery_of(&part) {
        Some(_) => lift.value(part).map(Transformed::yes),
        None => Ok(Transformed::no(part)),
    }
}

/// Projects a plan to the columns of `schema`.
fn only(plan: LogicalPlan, schema: &DFSchema) -> Result<LogicalPlan> {
    let columns = schema.columns().into_iter().map(Expr::Column).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?))
}

fn filter(filter: Filter, names: &AliasGenerator) -> Result<Transformed<LogicalPlan>> {
    let schema = Arc::clone(filter.input.schema());
    let mut lift = Lift::new(Arc::unwrap_or_clone(filter.input), names);
    let mut conditions = Vec::new();
    let mut lifted = false;
    for part in split_conjunction_owned(filter.predicate) {
        let replaced = lift_condition(part, &mut lift, true)?;
        lifted |= replaced.transformed;
        conditions.push(replaced.data);
    }
    let Some(predicate) = conjunction(conditions) else { return Ok(Transformed::no(lift.plan)) };
    let filtered = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(lift.plan))?);
    match lifted {
        true => Ok(Transformed::yes(only(filtered, &schema)?)),
        false => Ok(Transformed::no(filtered)),
    }
}

/// Lifts the subqueries of a WHERE condition, or of a part of it under AND and OR.
fn lift_condition(part: Expr, lift: &mut Lift<'_>, whole: bool) -> Result<Transformed<Expr>> {
    match part {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let left = lift_condition(*left, lift, false)?;
            let right = lift_condition(*right, lift, false)?;
            let both = binary_expr(left.data, op, right.data);
            Ok(Transformed::new(both, left.transformed || right.transformed, TreeNodeRecursion::Continue))
        }
        part if is_plain(&part, &lift.plan, whole)? => Ok(Transformed::no(part)),
        part => part.rewrite_up(|part| lift_unless_plain(part, lift)),
    }
}

/// Lifts a subquery in a WHERE clause or a SELECT list, unless it is plain.
fn lift_unless_plain(part: Expr, lift: &mut Lift<'_>) -> Result<Transformed<Expr>> {
    match &part {
        Expr::ScalarSubquery(subquery) if is_plain_scalar(&subquery.subquery, &lift.plan)? => {
            Ok(Transformed::no(part))
        }
        // The compared values become join keys, which can't contain subqueries.
        Expr::InSubquery(_) | Expr::SetComparison(_) => part.rewrite_up(|part| lift_value(part, lift)),
        _ => lift_value(part, lift),
    }
}

/// Lifts subqueries in ON. Those of an inner join filter its rows; others join the side they refer to.
fn condition(mut join: Join, names: &AliasGenerator) -> Result<Transformed<LogicalPlan>> {
    if join.join_type == JoinType::Inner {
        let (with, without): (Vec<_>, Vec<_>) = join
            .filter
            .take()
            .map(split_conjunction_owned)
            .unwrap_or_default()
            .into_iter()
            .partition(|part| has_subquery(part).unwrap_or(true));
        join.filter = conjunction(without);
        let Some(predicate) = conjunction(with) else { return Ok(Transformed::no(LogicalPlan::Join(join))) };
        let filter = Filter::try_new(predicate, Arc::new(LogicalPlan::Join(join)))?;
        return Ok(Transformed::yes(self::filter(filter, names)?.data));
    }
    let schema = Arc::clone(&join.schema);
    let mut left = Lift::new(Arc::unwrap_or_clone(join.left), names);
    let mut right = Lift::new(Arc::unwrap_or_clone(join.right), names);
    let predicate = match join.filter {
        None => None,
        Some(predicate) => Some(
            predicate
                .rewrite_up(|part| match subquery_of(&part) {
                    Some(_) => side(&part, &mut left, &mut right)?.value(part).map(Transformed::yes),
                    None => Ok(Transformed::no(part)),
                })?
                .data,
        ),
    };
    let joined = Join::try_new(
        Arc::new(left.plan),
        Arc::new(right.plan),
        join.on,
        predicate,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    Ok(Transformed::yes(only(LogicalPlan::Join(joined), &schema)?))
}

/// Returns the side of a join that a subquery, and the value it is compared with, refer to.
fn side<'a, 'n>(
    expression: &Expr,
    left: &'a mut Lift<'n>,
    right: &'a mut Lift<'n>,
) -> Result<&'a mut Lift<'n>> {
    let mut columns: Vec<_> = expression.column_refs().into_iter().cloned().collect();
    if let Some(subquery) = subquery_of(expression) {
        columns.extend(outer_columns(&subquery.subquery)?);
    }
    let of = |lift: &Lift<'_>| columns.iter().any(|column| lift.plan.schema().has_column(column));
    match (of(left), of(right)) {
        (true, true) => {
            Err(Error::unsupported("a subquery that refers to both sides of an outer join in its ON")
                .hint("Join with a subquery that computes it first.")
                .into())
        }
        (false, true) => Ok(right),
        _ => Ok(left),
    }
}

/// Rewrites VALUES with subqueries: each row becomes a SELECT.
fn values(rows: Values, names: &AliasGenerator) -> Result<LogicalPlan> {
    let nothing = EmptyRelation { produce_one_row: true, schema: Arc::new(DFSchema::empty()) };
    let nothing = Arc::new(LogicalPlan::EmptyRelation(nothing));
    let row = |row: Vec<Expr>| {
        let mut items = Vec::with_capacity(row.len());
        for (value, field) in row.into_iter().zip(rows.schema.fields()) {
            items.push(value.alias(field.name()));
        }
        let row = LogicalPlan::Projection(Projection::try_new(items, Arc::clone(&nothing))?);
        Ok(Arc::new(lift(row, names)?.data))
    };
    let mut plans = rows.values.into_iter().map(row).collect::<Result<Vec<_>>>()?;
    match (plans.pop(), plans.is_empty()) {
        (Some(one), true) => Ok(Arc::unwrap_or_clone(one)),
        (last, _) => {
            plans.extend(last);
            Ok(LogicalPlan::Union(Union::try_new_with_loose_types(plans)?))
        }
    }
}

/// Joins `FROM a, LATERAL (…)`: computes the subquery for the values in `a`, and joins the result to `a`.
fn lateral(join: Join, names: &AliasGenerator) -> Result<LogicalPlan> {
    let mut columns = outer_columns(&join.right)?;
    columns.retain(|column| join.left.schema().has_column(column));
    let right = without_lateral(Arc::unwrap_or_clone(join.right))?;
    if columns.is_empty() {
        return Ok(LogicalPlan::Join(Join { right: Arc::new(right), ..join }));
    }
    if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
        let kind = join.join_type.to_string().to_uppercase();
        return Err(Error::invalid(format!("{kind} JOIN LATERAL with a reference to its left side"))
            .hint("Only JOIN, CROSS JOIN and LEFT JOIN can be LATERAL.")
            .into());
    }
    let domain = Domain::new(&join.left, columns, names)?;
    let right = domain.rows_of(&right, names)?;
    let mut joined = join_on_values(Arc::unwrap_or_clone(join.left), right, domain.keys(), join.join_type)?;
    let equal = join.on.into_iter().map(|(left, right)| left.eq(right));
    joined.filter = conjunction(equal.chain(join.filter.filter(|filter| !is_true(filter))));
    let joined = condition_lifted(joined, names)?;
    only(joined, &join.schema)
}

fn condition_lifted(join: Join, names: &AliasGenerator) -> Result<LogicalPlan> {
    match &join.filter {
        Some(filter) if has_subquery(filter)? => Ok(condition(join, names)?.data),
        _ => Ok(LogicalPlan::Join(join)),
    }
}

fn is_true(expression: &Expr) -> bool {
    *expression == datafusion::logical_expr::lit(true)
}

/// Removes the marks of LATERAL subqueries from a plan.
fn without_lateral(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_up(|node| match node {
        LogicalPlan::Subquery(subquery) => Ok(Transformed::yes(Arc::unwrap_or_clone(subquery.subquery))),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        Tables::new()
            .table("a", "(k INT, v INT)", "VALUES (1, 10), (2, 20), (2, 21), (3, NULL), (NULL, 5)")
            .table("b", "(k INT, w INT)", "VALUES (1, 100), (2, 200), (2, 201), (NULL, 7)")
    }

    #[test]
    fn what_the_planner_joins_well_stays_one_join() {
        let tables = tables();
        for (condition, join) in [
            ("EXISTS (SELECT 1 FROM b WHERE b.k = a.k)", "LeftSemi"),
            ("NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k)", "LeftAnti"),
            ("k IN (SELECT k FROM b)", "LeftSemi"),
            ("k NOT IN (SELECT k FROM b)", "LeftAnti"),
            ("k IN (SELECT k FROM b) OR v = 5", "LeftMark"),
            ("v < (SELECT max(w) FROM b WHERE b.k = a.k)", "LeftSemi"),
        ] {
            let plan = tables.plan(&format!("SELECT v FROM a WHERE {condition}"));
            assert!(plan.contains(&format!("{join} Join: ")) && plan.matches("Join").count() == 1, "{plan}");
        }
    }

    #[test]
    fn two_rows_fail_for_who_asks() {
        let tables = tables();
        let many = "more than one row returned by a subquery used as an expression";
        tables.fails("SELECT (SELECT w FROM b WHERE b.k = a.k) FROM a", many);
        tables.fails("SELECT 1 FROM a WHERE v = (SELECT w FROM b)", many);
        tables.check("SELECT k, (SELECT w FROM b WHERE b.k = a.k) FROM a WHERE k <> 2", &["1|100", "3|NULL"]);
        tables.check(
            "SELECT k, CASE WHEN k <> 2 THEN (SELECT w FROM b WHERE b.k = a.k) END FROM a WHERE k < 3",
            &["1|100", "2|NULL", "2|NULL"],
        );
    }

    #[test]
    fn names_and_nullability_are_those_of_the_query() {
        let tables = tables();
        let sql = "SELECT (SELECT 1 WHERE false) AS x, k IN (SELECT k FROM b) AS y FROM a";
        let query = tables.planner.query(sql, &tables).unwrap();
        let fields: Vec<_> =
            query.schema.fields().iter().map(|f| (f.name().as_str(), f.is_nullable())).collect();
        assert_eq!(fields, [("x", true), ("y", true)]);
        let nothing = "SELECT (SELECT 1 WHERE false) AS x";
        tables.check(
            &format!("SELECT count(*) FROM ({nothing} UNION ALL {nothing}) AS t WHERE x IS NULL"),
            &["2"],
        );
    }

    #[test]
    fn what_is_not_built_is_refused() {
        let tables = tables();
        tables.fails(
            "SELECT (SELECT max(a.v) FROM b) FROM a",
            "an aggregate in a subquery over columns of an outer query alone is not supported yet\nHINT: In SQL it belongs to the outer query: compute it there, and refer to its result.",
        );
        tables.fails(
            "SELECT 1 FROM a LEFT JOIN b ON EXISTS (SELECT 1 FROM a AS c WHERE c.k = a.k AND c.v = b.w)",
            "a subquery that refers to both sides of an outer join in its ON is not supported yet\nHINT: Join with a subquery that computes it first.",
        );
        tables.fails(
            "SELECT (SELECT count(*) FROM (SELECT b.k FROM b WHERE b.w > a.v GROUP BY ROLLUP (b.k)) AS t) FROM a",
            "GROUPING SETS in a subquery that refers to rows outside it is not supported yet",
        );
    }
}
