//! JOIN … USING and NATURAL JOIN, which merge a column that both sides have.
//!
//! The merged column is the left side's in an inner or left join, and the right side's in a right join. In a
//! full join it is the one that is not NULL. As in PostgreSQL, `*` shows the merged columns first and omits
//! the sides' own. DataFusion takes the first table's column for an unqualified name. For `*` it takes that
//! of the table whose name sorts first, whatever the join.
//!
//! [`nest`] puts such a join in parentheses in the parsed statement, so that DataFusion asks the planner here
//! about it. The planner adds the merged columns, under a qualifier that no query has, to those of both
//! sides. A join with one empty row on top tells DataFusion's planner that all columns of a name are one. The
//! rule [`crate::rules::using_joins`] removes that join again.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::{Column, DFSchema, NullEquality, TableReference};
use datafusion::error::Result as PlanResult;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::utils::expand_wildcard;
use datafusion::logical_expr::{
    EmptyRelation, Expr, Join, JoinConstraint, JoinType, LogicalPlan, Projection, lit,
};
use datafusion::sql::sqlparser::ast::{
    Expr as ExprTree, Ident, Join as JoinTree, JoinConstraint as Constraint, JoinOperator, Query, Select,
    TableAlias, TableFactor, TableWithJoins, Value, VisitorMut,
};

use crate::ast_walk::walk_mut;
use crate::error::Error;
use crate::hidden_columns::{fold, last_name};
use crate::time_joins::{TimeJoin, at_present};

/// The prefix of merged columns' qualifiers. It sorts before any name that needs no quotes.
const QUALIFIER: &str = "!using_";

/// Plans joins that merge columns.
#[derive(Debug, Default)]
pub(crate) struct MergedColumns {
    /// The number of NATURAL joins planned so far, for their generated names.
    natural: AtomicUsize,
}

impl RelationPlanner for MergedColumns {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> PlanResult<RelationPlanning> {
        let TableFactor::NestedJoin { table_with_joins, alias } = relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let Some((kind, names)) = merging(&table_with_joins) else {
            return Ok(RelationPlanning::Original(Box::new(TableFactor::NestedJoin {
                table_with_joins,
                alias,
            })));
        };
        let TableWithJoins { relation, joins } = *table_with_joins;
        let left = context.plan(relation)?;
        let joined = joins.into_iter().next().ok_or_else(|| Error::bug("a join without a right side"))?;
        let in_time = TimeJoin::of(&joined);
        let right = match in_time {
            Some(_) => context.plan(at_present(joined.relation))?,
            None => context.plan(joined.relation)?,
        };
        let names = match names {
            Some(names) => names,
            None => common(&left, &right)?,
        };
        let keys = keys(&left, &right, &names)?;
        let (qualifier, alias) = match alias {
            Some(alias) if alias.name.value.starts_with(QUALIFIER) => (alias.name.value, None),
            other => {
                let count = self.natural.fetch_add(1, Ordering::Relaxed);
                (format!("{QUALIFIER}natural_{count}"), other)
            }
        };
        let plan = match in_time {
            Some(in_time) => in_time.by_columns(left, right, keys.clone(), context)?,
            None => join(left, right, kind, &keys)?,
        };
        let mut plan = merge(plan, kind, &names, &keys, &TableReference::bare(qualifier))?;
        if alias.is_some() {
            let visible = expand_wildcard(plan.schema(), &plan, None)?;
            plan = LogicalPlan::Projection(Projection::try_new(visible, Arc::new(plan))?);
        }
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// Returns the kind of a single merging join and its columns; all common ones if none are named.
fn merging(joins: &TableWithJoins) -> Option<(JoinType, Option<Vec<String>>)> {
    let [join] = joins.joins.as_slice() else { return None };
    merged_by(join)
}

fn merged_by(join: &JoinTree) -> Option<(JoinType, Option<Vec<String>>)> {
    if let Some((left, constraint)) = TimeJoin::constraint(join) {
        let kind = if left { JoinType::Left } else { JoinType::Inner };
        return columns_of(constraint).map(|names| (kind, names));
    }
    let (kind, constraint) = match &join.join_operator {
        JoinOperator::Join(by) | JoinOperator::Inner(by) => (JoinType::Inner, by),
        JoinOperator::Left(by) | JoinOperator::LeftOuter(by) => (JoinType::Left, by),
        JoinOperator::Right(by) | JoinOperator::RightOuter(by) => (JoinType::Right, by),
        JoinOperator::FullOuter(by) => (JoinType::Full, by),
        _ => return None,
    };
    let lateral = match &join.relation {
        TableFactor::Derived { lateral, .. } | TableFactor::Function { lateral, .. } => *lateral,
        TableFactor::UNNEST { .. } => true,
        _ => false,
    };
    if lateral { None } else { columns_of(constraint).map(|names| (kind, names)) }
}

/// Returns the columns that a constraint merges: all common ones if none are named.
fn columns_of(constraint: &Constraint) -> Option<Option<Vec<String>>> {
    match constraint {
        Constraint::Natural => Some(None),
        Constraint::Using(names) => {
            let names = names.iter().map(|name| if name.0.len() == 1 { last_name(name) } else { None });
            Some(Some(names.collect::<Option<_>>()?))
        }
        _ => None,
    }
}

/// Returns the columns that both sides show, in the order of the left side.
fn common(left: &LogicalPlan, right: &LogicalPlan) -> PlanResult<Vec<String>> {
    let names = |plan: &LogicalPlan| -> PlanResult<Vec<String>> {
        let shown = expand_wildcard(plan.schema(), plan, None)?;
        Ok(shown.into_iter().filter_map(|item| item.try_as_col().map(|column| column.name.clone())).collect())
    };
    let right = names(right)?;
    Ok(names(left)?.into_iter().filter(|name| right.contains(name)).collect())
}

/// Returns the only column of this name that a side shows.
fn shown(plan: &LogicalPlan, name: &str, side: &str) -> PlanResult<Column> {
    let all = expand_wildcard(plan.schema(), plan, None)?;
    let mut found = all.iter().filter_map(Expr::try_as_col).filter(|column| column.name == name);
    match (found.next(), found.next()) {
        (Some(column), None) => Ok(column.clone()),
        (Some(_), Some(_)) => Err(Error::invalid(format!(
            "column \"{name}\" of USING appears more than once on the {side} of the join"
        ))
        .hint("Use ON with a qualified name.")
        .into()),
        (None, _) => {
            let names: Vec<&str> = all.iter().filter_map(Expr::try_as_col).map(|c| c.name.as_str()).collect();
            Err(Error::invalid(format!("column \"{name}\" of USING is not on the {side} of the join"))
                .hint(format!("There is {}.", names.join(", ")))
                .into())
        }
    }
}

/// Returns the columns of these names on both sides.
fn keys(left: &LogicalPlan, right: &LogicalPlan, names: &[String]) -> PlanResult<Vec<(Column, Column)>> {
    names.iter().map(|name| Ok((shown(left, name, "left")?, shown(right, name, "right")?))).collect()
}

fn join(
    left: LogicalPlan,
    right: LogicalPlan,
    kind: JoinType,
    keys: &[(Column, Column)],
) -> PlanResult<LogicalPlan> {
    let (on, filter) = match keys.is_empty() {
        true => (Vec::new(), (kind != JoinType::Inner).then(|| lit(true))),
        false => {
            let pair = |(l, r): &(Column, Column)| (Expr::Column(l.clone()), Expr::Column(r.clone()));
            (keys.iter().map(pair).collect(), None)
        }
    };
    let nulls = NullEquality::NullEqualsNothing;
    let (left, right) = (Arc::new(left), Arc::new(right));
    let joined = Join::try_new(left, right, on, filter, kind, JoinConstraint::On, nulls, false)?;
    Ok(LogicalPlan::Join(joined))
}

/// Adds the merged columns of a join to those of both sides.
fn merge(
    joined: LogicalPlan,
    kind: JoinType,
    names: &[String],
    keys: &[(Column, Column)],
    qualifier: &TableReference,
) -> PlanResult<LogicalPlan> {
    let mut items = Vec::new();
    for (left, right) in keys {
        let (left, right) = (Expr::Column(left.clone()), Expr::Column(right.clone()));
        let merged = match kind {
            JoinType::Full => coalesce(vec![left, right]),
            JoinType::Right => right,
            _ => left,
        };
        items.push(merged);
    }
    let mut items: Vec<Expr> = items
        .into_iter()
        .zip(names)
        .map(|(item, name)| item.alias_qualified(Some(qualifier.clone()), name))
        .collect();
    // A column that was merged before is part of the new one.
    let merged_again = |column: &Column| {
        keys.iter().any(|(left, _)| left == column)
            && column.relation.as_ref().is_some_and(|relation| relation.table().starts_with(QUALIFIER))
    };
    let sides = joined.schema().columns().into_iter();
    items.extend(sides.filter(|column| !merged_again(column)).map(Expr::Column));
    let merged = Projection::try_new(items, Arc::new(joined))?;
    Ok(marked(LogicalPlan::Projection(merged), names, qualifier))
}

/// Adds a join that changes no rows, but records which columns of the plan are one.
fn marked(plan: LogicalPlan, names: &[String], qualifier: &TableReference) -> LogicalPlan {
    let mut on = Vec::new();
    for column in plan.schema().columns() {
        if names.contains(&column.name) && column.relation.as_ref() != Some(qualifier) {
            let merged = Column::new(Some(qualifier.clone()), column.name.clone());
            on.push((Expr::Column(merged), Expr::Column(column)));
        }
    }
    let nothing = EmptyRelation { produce_one_row: true, schema: Arc::new(DFSchema::empty()) };
    LogicalPlan::Join(Join {
        schema: Arc::clone(plan.schema()),
        left: Arc::new(plan),
        right: Arc::new(LogicalPlan::EmptyRelation(nothing)),
        on,
        filter: None,
        join_type: JoinType::Inner,
        join_constraint: JoinConstraint::Using,
        null_equality: NullEquality::NullEqualsNothing,
        null_aware: false,
    })
}

/// Returns the plan under such a join; none for any other join.
pub(crate) fn unmarked(join: &Join) -> Option<&Arc<LogicalPlan>> {
    let nothing = matches!(join.right.as_ref(), LogicalPlan::EmptyRelation(empty) if empty.produce_one_row);
    (nothing && join.join_constraint == JoinConstraint::Using).then_some(&join.left)
}

/// Puts the joins of a SELECT that merge columns, and temporal joins, in parentheses. Adds the qualifier to
/// unqualified merged columns. Without it, a subquery's columns would be taken for those of an outer query.
pub(crate) fn nest_select(select: &mut Select, count: &mut usize) {
    let mut merged = Vec::new();
    for table in &mut select.from {
        nest(table, count, &mut merged);
    }
    if !merged.is_empty() {
        let from = std::mem::take(&mut select.from);
        let _ = walk_mut(select, &mut Qualify { merged: &merged, depth: 0 });
        select.from = from;
    }
}

/// Does the same for a join in parentheses.
pub(crate) fn nest_factor(factor: &mut TableFactor, count: &mut usize) {
    if let TableFactor::NestedJoin { table_with_joins, alias: _ } = factor
        && table_with_joins.joins.len() > 1
    {
        nest(table_with_joins, count, &mut Vec::new());
    }
}

fn nest(table: &mut TableWithJoins, count: &mut usize, merged: &mut Vec<(String, Ident)>) {
    if !table.joins.iter().any(|join| merged_by(join).is_some() || TimeJoin::constraint(join).is_some()) {
        return;
    }
    let mut done: Vec<JoinTree> = Vec::new();
    for mut join in std::mem::take(&mut table.joins) {
        let _ = walk_mut(&mut join.join_operator, &mut Qualify { merged, depth: 0 });
        let named = merged_by(&join);
        if named.is_none() && TimeJoin::constraint(&join).is_none() {
            done.push(join);
            continue;
        }
        let alias = named.map(|(_, names)| {
            *count += 1;
            let name = Ident::with_quote('"', format!("{QUALIFIER}{count}"));
            for column in names.into_iter().flatten() {
                merged.retain(|(known, _)| *known != column);
                merged.push((column, name.clone()));
            }
            TableAlias { explicit: true, name, columns: Vec::new(), at: None }
        });
        if !done.is_empty() {
            let inner =
                TableWithJoins { relation: take(&mut table.relation), joins: std::mem::take(&mut done) };
            table.relation = parenthesised(inner, None);
        }
        let inner = TableWithJoins { relation: take(&mut table.relation), joins: vec![join] };
        table.relation = parenthesised(inner, alias);
    }
    table.joins = done;
}

fn parenthesised(joins: TableWithJoins, alias: Option<TableAlias>) -> TableFactor {
    TableFactor::NestedJoin { table_with_joins: Box::new(joins), alias }
}

fn take(factor: &mut TableFactor) -> TableFactor {
    let nothing = TableFactor::TableFunction { expr: ExprTree::value(Value::Null), alias: None };
    std::mem::replace(factor, nothing)
}

struct Qualify<'a> {
    merged: &'a [(String, Ident)],
    /// The number of enclosing subqueries. Names within a subquery may belong to its own tables.
    depth: usize,
}

impl VisitorMut for Qualify<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expression: &mut ExprTree) -> ControlFlow<()> {
        if self.depth == 0
            && let ExprTree::Identifier(name) = expression
            && let Some((_, qualifier)) = self.merged.iter().find(|(column, _)| *column == fold(name))
        {
            *expression = ExprTree::CompoundIdentifier(vec![qualifier.clone(), name.clone()]);
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        Tables::new()
            .table("a", "(v INT, k INT)", "VALUES (10, 1), (20, 2), (30, NULL)")
            .table("b", "(k INT, w INT)", "VALUES (1, 100), (3, 300), (NULL, 7)")
            .table("c", "(x INT, k BIGINT)", "VALUES (1000, 1), (4000, 4), (3000, 3)")
            .table("o", "(k INT)", "VALUES (2)")
    }

    fn names(tables: &Tables, sql: &str) -> Vec<String> {
        let query = tables.planner.query(sql, tables).unwrap_or_else(|error| panic!("{}", error.render(sql)));
        query.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    #[test]
    fn the_merged_column_is_the_one_that_is_there() {
        let tables = tables();
        for join in ["USING (k)", "NATURAL"] {
            let from = |kind: &str| match join {
                "NATURAL" => format!("a NATURAL {kind} JOIN b"),
                using => format!("a {kind} JOIN b {using}"),
            };
            let check = |kind: &str, rows: &[&str]| {
                tables.check(&format!("SELECT k, v, w FROM {}", from(kind)), rows);
                tables.check(&format!("SELECT * FROM {}", from(kind)), rows);
                assert_eq!(names(&tables, &format!("SELECT * FROM {}", from(kind))), ["k", "v", "w"]);
            };
            check("", &["1|10|100"]);
            check("LEFT", &["1|10|100", "2|20|NULL", "NULL|30|NULL"]);
            check("RIGHT", &["1|10|100", "3|NULL|300", "NULL|NULL|7"]);
            check("FULL", &["1|10|100", "2|20|NULL", "3|NULL|300", "NULL|30|NULL", "NULL|NULL|7"]);
        }
        tables.check("SELECT * FROM b LEFT JOIN a USING (k)", &["1|100|10", "3|300|NULL", "NULL|7|NULL"]);
    }

    #[test]
    fn the_sides_keep_their_own() {
        let tables = tables();
        tables.check(
            "SELECT k, a.k, b.k FROM a FULL JOIN b USING (k) WHERE k > 1 ORDER BY k",
            &["2|2|NULL", "3|NULL|3"],
        );
        tables.check("SELECT a.*, b.w FROM a RIGHT JOIN b USING (k) WHERE k = 3", &["NULL|NULL|300"]);
        tables.check("SELECT k, count(*) FROM a FULL JOIN b USING (k) GROUP BY k HAVING k > 2", &["3|1"]);
        tables.check("SELECT v FROM a FULL JOIN b USING (k) ORDER BY k LIMIT 1", &["10"]);
    }

    #[test]
    fn chains_merge_what_was_merged() {
        let tables = tables();
        let chain = "a FULL JOIN b USING (k) FULL JOIN c USING (k)";
        let rows = ["1|10|100|1000", "2|20|NULL|NULL", "3|NULL|300|3000", "4|NULL|NULL|4000"];
        tables.check(&format!("SELECT * FROM {chain} WHERE k IS NOT NULL"), &rows);
        tables.check(&format!("SELECT k, v, w, x FROM {chain} WHERE k > 0"), &rows);
        let natural = "SELECT * FROM a NATURAL FULL JOIN b NATURAL FULL JOIN c";
        tables.check(&format!("SELECT * FROM ({natural}) AS n WHERE k > 0"), &rows);
        tables.check("SELECT * FROM a FULL JOIN (b FULL JOIN c USING (k)) USING (k) WHERE k > 0", &rows);
        assert_eq!(names(&tables, &format!("SELECT * FROM {chain}")), ["k", "v", "w", "x"]);
        tables.check("SELECT k, x FROM a FULL JOIN b USING (k) JOIN c ON c.k = k + 1", &["2|3000", "3|4000"]);
        tables.check("SELECT j.k, j.w FROM (a RIGHT JOIN b USING (k)) AS j WHERE j.k = 3", &["3|300"]);
    }

    #[test]
    fn a_name_in_a_subquery_is_its_own() {
        let tables = tables();
        tables.check("SELECT k FROM o WHERE EXISTS (SELECT 1 FROM a JOIN b USING (k) WHERE k = 2)", &[]);
        tables.check(
            "SELECT k FROM o WHERE EXISTS (SELECT 1 FROM a LEFT JOIN b USING (k) WHERE k = o.k)",
            &["2"],
        );
        tables.check("SELECT k FROM a JOIN b USING (k) WHERE k IN (SELECT k FROM c)", &["1"]);
    }

    #[test]
    fn what_is_not_on_both_sides_is_refused() {
        let tables = tables();
        tables.fails(
            "SELECT * FROM a JOIN b USING (v)",
            "column \"v\" of USING is not on the right of the join\nHINT: There is k, w.",
        );
        tables.fails(
            "SELECT * FROM a CROSS JOIN o JOIN b USING (k)",
            "column \"k\" of USING appears more than once on the left of the join\nHINT: Use ON with a \
             qualified name.",
        );
        tables.check("SELECT count(*) FROM o NATURAL LEFT JOIN (SELECT 1 AS z WHERE false) AS e", &["1"]);
    }
}
