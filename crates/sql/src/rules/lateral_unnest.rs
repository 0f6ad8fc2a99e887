//! Turns `FROM t, UNNEST(f(t.x)) AS u(w)` into an unnest over t.
//!
//! DataFusion plans a join of t with a subquery that refers to t's rows, and can't execute it. Here the left
//! side replaces the single empty row that the subquery starts from. A column of the outer row is then an
//! ordinary column, and each row of t is returned with its own elements.
//!
//! `LEFT JOIN UNNEST(…) ON TRUE` keeps a row without elements, with NULL for the element. So the columns of its right side
//! must be NULL if the element is.
//!
//! Deliberately absent: LEFT JOIN UNNEST with another condition, which is refused.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, NullHandling, ScalarValue, TableReference};
use datafusion::error::Result;
use datafusion::logical_expr::logical_plan::{Filter, Join, Projection, SubqueryAlias, Unnest};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{EmptyRelation, Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

use crate::error::Error;
use crate::tree_rewrite::TreeRewrite;

/// The analyzer rule.
#[derive(Debug, Default)]
pub struct LateralUnnest;

impl AnalyzerRule for LateralUnnest {
    fn name(&self) -> &str {
        "lateral_unnest"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.rewrite_up(rewrite)?.data)
    }
}

fn rewrite(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Join(join) = node else { return Ok(Transformed::no(node)) };
    if !is_lateral_unnest(&join.right) {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    match join.join_type {
        JoinType::Inner => {
            let joined = graft(&Outer { plan: &join.left, keeps_rows: false }, &join.right)?;
            Ok(Transformed::yes(filter(joined, &join)?))
        }
        JoinType::Left => Ok(Transformed::yes(left_join(&join)?)),
        other => Err(Error::unsupported(format!("{} JOIN with UNNEST", other.to_string().to_uppercase()))
            .hint("Write FROM t, UNNEST(…) if rows without elements may be left out.")
            .into()),
    }
}

/// Returns a left join whose rows without elements are kept.
fn left_join(join: &Join) -> Result<LogicalPlan> {
    let is_true = |condition: &Expr| matches!(condition, Expr::Literal(ScalarValue::Boolean(Some(true)), _));
    if !join.on.is_empty() || !join.filter.iter().all(is_true) {
        return Err(Error::unsupported("LEFT JOIN with UNNEST and a condition other than TRUE")
            .hint("Write ON TRUE, or FROM t, UNNEST(…) WHERE … if rows without elements may be left out.")
            .into());
    }
    if !is_null_without_element(&join.right, false) {
        return Err(Error::unsupported(
            "LEFT JOIN with a subquery over UNNEST that filters rows, or computes values that NULL elements have, too,",
        )
        .hint("Join UNNEST itself, and compute the values in the select list.")
        .into());
    }
    graft(&Outer { plan: &join.left, keeps_rows: true }, &join.right)
}

/// True if all columns of a subquery over one unnest are NULL where the element is. `below`: the plan lies below the
/// unnest.
fn is_null_without_element(plan: &LogicalPlan, below: bool) -> bool {
    match plan {
        LogicalPlan::Subquery(subquery) => is_null_without_element(&subquery.subquery, below),
        LogicalPlan::SubqueryAlias(alias) => is_null_without_element(&alias.input, below),
        LogicalPlan::Projection(projection) => {
            (below || projection.expr.iter().all(keeps_null))
                && is_null_without_element(&projection.input, below)
        }
        LogicalPlan::Unnest(unnest) => {
            // Other columns of its input have values beside a missing element.
            let has_elements_alone = unnest.exec_columns.len() == unnest.input.schema().fields().len();
            !below && has_elements_alone && is_null_without_element(&unnest.input, true)
        }
        LogicalPlan::EmptyRelation(_) => below,
        _ => false,
    }
}

/// True if an expression is NULL where the columns in it are.
fn keeps_null(expression: &Expr) -> bool {
    match expression {
        Expr::Column(_) => true,
        Expr::Alias(alias) => keeps_null(&alias.expr),
        Expr::Cast(cast) => keeps_null(&cast.expr),
        Expr::ScalarFunction(function) => {
            let is_strict = ["get_field", "json_same", "jsonb_same"].contains(&function.name());
            is_strict && function.args.first().is_some_and(keeps_null)
        }
        _ => false,
    }
}

/// Applies the join's own condition.
fn filter(joined: LogicalPlan, join: &Join) -> Result<LogicalPlan> {
    let equal = join.on.iter().map(|(left, right)| left.clone().eq(right.clone()));
    match conjunction(equal.chain(join.filter.iter().cloned())) {
        Some(condition) => Ok(LogicalPlan::Filter(Filter::try_new(condition, Arc::new(joined))?)),
        None => Ok(joined),
    }
}

/// True if a plan is a subquery that unnests columns of an outer row, and contains no other unknown nodes.
fn is_lateral_unnest(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => is_lateral_unnest(&alias.input),
        LogicalPlan::Subquery(subquery) => starts_from_one_row(&subquery.subquery, false),
        // `FROM t, UNNEST(t.x) AS u(w) JOIN v ON …`: t x (u join v) is (t x u) join v.
        LogicalPlan::Join(join) => {
            matches!(join.join_type, JoinType::Inner | JoinType::Left) && is_lateral_unnest(&join.left)
        }
        _ => false,
    }
}

fn starts_from_one_row(plan: &LogicalPlan, unnests: bool) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. })
        | LogicalPlan::Projection(Projection { input, .. })
        | LogicalPlan::Filter(Filter { input, .. }) => starts_from_one_row(input, unnests),
        LogicalPlan::Unnest(Unnest { input, .. }) => starts_from_one_row(input, true),
        LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row, .. }) => unnests && *produce_one_row,
        _ => false,
    }
}

/// The rows before a lateral UNNEST.
struct Outer<'a> {
    plan: &'a Arc<LogicalPlan>,
    /// True if a row without elements is kept.
    keeps_rows: bool,
}

/// Replaces the single empty row of a plan by `left`. The plan's columns come after those of `left`.
fn graft(left: &Outer<'_>, plan: &LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::EmptyRelation(_) => Ok(left.plan.as_ref().clone()),
        LogicalPlan::Subquery(subquery) => graft(left, &subquery.subquery),
        LogicalPlan::Join(join) => Ok(LogicalPlan::Join(Join::try_new(
            Arc::new(graft(left, &join.left)?),
            Arc::clone(&join.right),
            join.on.clone(),
            join.filter.clone(),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?)),
        LogicalPlan::SubqueryAlias(alias) => match without_mark(&alias.input) {
            // Applies the alias at once: an unqualified name may be that of a column of `left`.
            LogicalPlan::Projection(projection) => project(left, projection, plan.schema()),
            input => rename(left, graft(left, input)?, plan.schema(), Some(&alias.alias)),
        },
        LogicalPlan::Projection(projection) => project(left, projection, plan.schema()),
        LogicalPlan::Filter(filter) => {
            let input = graft(left, &filter.input)?;
            let condition = inner(filter.predicate.clone(), left.plan.schema())?;
            Ok(LogicalPlan::Filter(Filter::try_new(condition, Arc::new(input))?))
        }
        LogicalPlan::Unnest(unnest) => {
            let input = Arc::new(graft(left, &unnest.input)?);
            let options = match left.keeps_rows {
                true => unnest.options.clone().with_null_handling(NullHandling::PreserveAndExpandEmpty),
                false => unnest.options.clone(),
            };
            Ok(LogicalPlan::Unnest(Unnest::try_new(input, unnest.exec_columns.clone(), options)?))
        }
        other => Err(Error::bug(format!("{} in a lateral UNNEST", other.display())).into()),
    }
}

/// Returns the plan within a node that only marks a subquery.
fn without_mark(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Subquery(subquery) => without_mark(&subquery.subquery),
        other => other,
    }
}

/// Applies a projection of the subquery, under the names of `schema`, after the columns of `left`.
fn project(left: &Outer<'_>, projection: &Projection, schema: &DFSchema) -> Result<LogicalPlan> {
    let input = graft(left, &projection.input)?;
    let mut items = columns_of(left.plan);
    for (at, item) in projection.expr.iter().enumerate() {
        let (qualifier, field) = schema.qualified_field(at);
        let item = inner(item.clone(), left.plan.schema())?.unalias();
        items.push(item.alias_qualified(qualifier.cloned(), field.name()));
    }
    Ok(LogicalPlan::Projection(Projection::try_new(items, Arc::new(input))?))
}

/// Gives the columns after those of `left` the names of `schema`, under an alias.
fn rename(
    left: &Outer<'_>,
    input: LogicalPlan,
    schema: &DFSchema,
    alias: Option<&TableReference>,
) -> Result<LogicalPlan> {
    let mut items = columns_of(left.plan);
    let first = items.len();
    for (at, field) in schema.fields().iter().enumerate() {
        let column = Expr::Column(Column::from(input.schema().qualified_field(first + at)));
        items.push(column.alias_qualified(alias.cloned(), field.name()));
    }
    Ok(LogicalPlan::Projection(Projection::try_new(items, Arc::new(input))?))
}

fn columns_of(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema().columns().into_iter().map(Expr::Column).collect()
}

/// Adapts an expression of the subquery to the grafted plan: outer columns in `left` become ordinary ones.
fn inner(expression: Expr, left: &DFSchema) -> Result<Expr> {
    let replaced = expression.rewrite_up(|part| match part {
        Expr::OuterReferenceColumn(_, column) if left.has_column(&column) => {
            Ok(Transformed::yes(Expr::Column(column)))
        }
        other => Ok(Transformed::new(other, false, TreeNodeRecursion::Continue)),
    })?;
    Ok(replaced.data)
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        Tables::new()
            .table(
                "t",
                "(id INT PRIMARY KEY, line TEXT, ns INT[])",
                "VALUES (1, 'a b a', [1, 2]), (2, NULL, [3]), (3, 'c', NULL), (4, '', [NULL, 4])",
            )
            .table("u", "(id INT, w TEXT)", "VALUES (1, 'a'), (3, 'c')")
            .view("words", "SELECT id, w FROM t, UNNEST(string_to_array(line, ' ')) AS x(w)")
    }

    #[test]
    fn each_row_comes_with_its_own_elements() {
        let tables = tables();
        let expected = ["1|a", "1|a", "1|b", "3|c"];
        for from in [
            "t, UNNEST(string_to_array(line, ' ')) AS u(w)",
            "t, UNNEST(string_to_array(t.line, ' ')) AS u(w)",
            "t CROSS JOIN UNNEST(string_to_array(t.line, ' ')) AS u(w)",
            "t JOIN UNNEST(string_to_array(t.line, ' ')) AS u(w) ON TRUE",
            "t, LATERAL (SELECT UNNEST(string_to_array(t.line, ' ')) AS w) AS u",
            "words AS u(id, w)",
        ] {
            let id = if from.starts_with("words") { "u" } else { "t" };
            tables.check(&format!("SELECT {id}.id, u.w FROM {from}"), &expected);
        }
        tables.check("SELECT w, count(*) FROM words GROUP BY w", &["a|2", "b|1", "c|1"]);
    }

    #[test]
    fn it_nests_filters_and_joins() {
        let tables = tables();
        tables.check("SELECT id, n FROM t, UNNEST(ns) AS x(n) WHERE n > 1", &["1|2", "2|3", "4|4"]);
        tables.check(
            "SELECT id, w, n FROM t, UNNEST(string_to_array(line, ' ')) AS a(w), UNNEST(ns) AS b(n) WHERE n = 1",
            &["1|a|1", "1|a|1", "1|b|1"],
        );
        tables.check("SELECT t.id, n FROM t JOIN UNNEST(t.ns) AS x(n) ON x.n = t.id + 1", &["1|2", "2|3"]);
        tables.check(
            "SELECT u.id, x.w FROM t, UNNEST(string_to_array(line, ' ')) AS x(w) JOIN u ON u.w = x.w",
            &["1|a", "1|a", "3|c"],
        );
        tables.check(
            "SELECT * FROM (SELECT id FROM t) s, UNNEST([s.id, 10]) AS x(n) WHERE id = 1",
            &["1|1", "1|10"],
        );
        tables.check(
            "SELECT count(*) FROM t WHERE EXISTS (SELECT 1 FROM u, UNNEST([u.id]) AS x(n) WHERE n = t.id)",
            &["2"],
        );
        tables.check("SELECT a, b FROM UNNEST([1, 2], [3]) AS x(a, b)", &["1|3", "2|NULL"]);
    }

    #[test]
    fn only_the_columns_that_are_needed_come_along() {
        let plan =
            tables().plan("SELECT w, count(*) FROM t, UNNEST(string_to_array(line, ' ')) AS u(w) GROUP BY w");
        assert!(plan.contains("TableScan: t projection=[line]"), "{plan}");
        assert!(!plan.contains("Join"), "{plan}");
    }

    #[test]
    fn columns_keep_their_names() {
        let tables = tables();
        let query = tables.planner.query("SELECT * FROM t, UNNEST(ns) AS x(n)", &tables).unwrap();
        let names: Vec<&str> = query.schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["id", "line", "ns", "n"]);
    }

    #[test]
    fn a_left_join_keeps_rows_without_elements() {
        let tables = tables();
        let expected = ["1|1", "1|2", "2|3", "3|NULL", "4|4", "4|NULL"];
        tables.check("SELECT id, n FROM t LEFT JOIN UNNEST(t.ns) AS x(n) ON TRUE", &expected);
        tables.check(
            "SELECT t.id, x.key, x.value FROM t LEFT JOIN LATERAL json_each('{\"a\":1}') AS x ON TRUE WHERE id = 1",
            &["1|a|1"],
        );
        tables.check(
            "SELECT s.id, n FROM (SELECT id, m, ns FROM t, UNNEST(ns) AS y(m)) s LEFT JOIN UNNEST(s.ns) AS x(n) ON TRUE \
             WHERE id = 2",
            &["2|3"],
        );
        tables.fails(
            "SELECT * FROM t LEFT JOIN UNNEST(t.ns) AS x(n) ON n > 1",
            "LEFT JOIN with UNNEST and a condition other than TRUE is not supported yet\nHINT: Write ON TRUE, or FROM t, \
             UNNEST(…) WHERE … if rows without elements may be left out.",
        );
        tables.fails(
            "SELECT * FROM t LEFT JOIN LATERAL (SELECT 1 AS one, UNNEST(t.ns) AS n) AS x ON TRUE",
            "LEFT JOIN with a subquery over UNNEST that filters rows, or computes values that NULL elements have, too, is \
             not supported yet\nHINT: Join UNNEST itself, and compute the values in the select list.",
        );
    }

    #[test]
    fn a_key_is_no_key_of_the_elements() {
        let tables = tables();
        tables.check(
            "SELECT id, n, count(*) FROM t, UNNEST(ns) AS x(n) WHERE id < 3 GROUP BY id, n",
            &["1|1|1", "1|2|1", "2|3|1"],
        );
        tables.check(
            "SELECT id, n, count(*) FROM (SELECT id, unnest(ns) AS n FROM t) WHERE id < 3 GROUP BY id, n",
            &["1|1|1", "1|2|1", "2|3|1"],
        );
        tables
            .check("SELECT id, line, count(*) FROM t GROUP BY id HAVING id < 3", &["1|a b a|1", "2|NULL|1"]);
    }
}
