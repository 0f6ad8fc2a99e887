//! A subquery's references to outer queries, and its possible number of rows.

use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::logical_plan::{FetchType, Subquery};
use datafusion::logical_expr::{Distinct, Expr, Join, JoinType, LogicalPlan};

/// Returns the distinct columns of outer queries that a plan refers to, in the order of their first use.
///
/// References of a nested subquery to rows of this plan don't count.
pub(super) fn outer_columns(plan: &LogicalPlan) -> Result<Vec<Column>> {
    let mut found = Vec::new();
    plan.apply(|node| {
        node.apply_expressions(|expression| {
            for column in outer_columns_of(expression, &node.inputs())? {
                add(&mut found, column);
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// Returns the columns of outer queries that an expression over rows of `inputs` refers to.
pub(super) fn outer_columns_of(expression: &Expr, inputs: &[&LogicalPlan]) -> Result<Vec<Column>> {
    let mut found = Vec::new();
    expression.apply(|part| {
        if let Expr::OuterReferenceColumn(_, column) = part {
            add(&mut found, column.clone());
        } else if let Some(subquery) = subquery_of(part) {
            let near = |column: &Column| inputs.iter().any(|input| input.schema().has_column(column));
            outer_columns(&subquery.subquery)?
                .into_iter()
                .filter(|column| !near(column))
                .for_each(|column| add(&mut found, column));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn add(found: &mut Vec<Column>, column: Column) {
    if !found.contains(&column) {
        found.push(column);
    }
}

/// Returns the subquery if an expression is one.
pub(super) fn subquery_of(expression: &Expr) -> Option<&Subquery> {
    match expression {
        Expr::ScalarSubquery(subquery) => Some(subquery),
        Expr::Exists(exists) => Some(&exists.subquery),
        Expr::InSubquery(within) => Some(&within.subquery),
        Expr::SetComparison(comparison) => Some(&comparison.subquery),
        _ => None,
    }
}

/// True if an expression contains a subquery.
pub(super) fn has_subquery(expression: &Expr) -> Result<bool> {
    expression.exists(|part| Ok(subquery_of(part).is_some()))
}

/// True if a plan is, or joins, a LATERAL subquery that still refers to rows beside it.
pub(super) fn is_lateral(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Subquery(_))))
}

/// The possible number of a plan's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    One,
    AtMostOne,
    Many,
}

impl Rows {
    /// Returns the number of rows for each combination of the outer columns.
    pub(super) fn of(plan: &LogicalPlan) -> Rows {
        match plan {
            LogicalPlan::Projection(node) => Rows::of(&node.input),
            LogicalPlan::SubqueryAlias(node) => Rows::of(&node.input),
            LogicalPlan::Subquery(node) => Rows::of(&node.subquery),
            LogicalPlan::Window(node) => Rows::of(&node.input),
            LogicalPlan::Sort(node) => Rows::of(&node.input),
            LogicalPlan::Distinct(Distinct::All(input)) => Rows::of(input),
            LogicalPlan::Distinct(Distinct::On(node)) => Rows::of(&node.input),
            LogicalPlan::Filter(node) => Rows::of(&node.input).or_none(),
            LogicalPlan::Aggregate(node) if node.group_expr.is_empty() => Rows::One,
            LogicalPlan::EmptyRelation(node) if node.produce_one_row => Rows::One,
            LogicalPlan::EmptyRelation(_) => Rows::AtMostOne,
            LogicalPlan::Values(node) if node.values.len() == 1 => Rows::One,
            LogicalPlan::Limit(node) => {
                let input = Rows::of(&node.input);
                match (node.get_fetch_type(), &node.skip) {
                    (Ok(FetchType::Literal(Some(1))), None) if input == Rows::One => Rows::One,
                    (Ok(FetchType::Literal(Some(0 | 1))), _) => Rows::AtMostOne,
                    _ => input.or_none(),
                }
            }
            LogicalPlan::Join(join) => Rows::of_join(join),
            _ => Rows::Many,
        }
    }

    fn of_join(join: &Join) -> Rows {
        let (left, right) = (Rows::of(&join.left), Rows::of(&join.right));
        match join.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => left.or_none(),
            JoinType::RightSemi | JoinType::RightAnti => right.or_none(),
            JoinType::LeftMark => left,
            JoinType::RightMark => right,
            _ if left == Rows::Many || right == Rows::Many => Rows::Many,
            JoinType::Left => left,
            JoinType::Right => right,
            JoinType::Inner if join.on.is_empty() && join.filter.is_none() && left == right => left,
            JoinType::Inner => Rows::AtMostOne,
            JoinType::Full => Rows::Many,
        }
    }

    fn or_none(self) -> Rows {
        if self == Rows::Many { Rows::Many } else { Rows::AtMostOne }
    }
}
