//! Inlines calls of functions whose bodies contain subqueries.
//!
//! The subqueries of a body refer to the parameters as to columns of an outer query. A call is replaced by one of
//! two forms:
//!
//! | arguments | form |
//! | --- | --- |
//! | small, and of columns that no relation in the body has | the body, with the arguments in the place of the parameters |
//! | all others | `(SELECT body FROM (SELECT argument AS parameter, …) AS "f() 1")` |
//!
//! In both forms, a column of the caller is never taken for a column of the body.
//!
//! Deliberately absent: volatile arguments. A subquery over an argument such as `random()` refers to no row, so it
//! would be evaluated once for all rows.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, Spans, TableReference};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::logical_plan::Subquery;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, Volatility,
};

use super::body::{column_name, has_queries};
use super::function::{UserFunction, volatility};
use crate::complexity::{parts, subquery_of};
use crate::error::Error;
use crate::rules::names::map_named;
use crate::tree_rewrite::TreeRewrite;

/// The most nodes of an argument that may take the place of a parameter.
const PARTS_MAX: u64 = 4;

/// Returns the value of a call over rows of `schema`. `calls` counts the derived relations of the plan.
pub(super) fn inlined(
    function: &UserFunction,
    arguments: &[Expr],
    schema: &DFSchema,
    calls: &mut usize,
) -> Result<Expr> {
    refuse_arguments(function, arguments)?;
    let names: Vec<String> = function.parameters.iter().enumerate().map(column_name).collect();
    let outer = all_outer(arguments, schema)?;
    let body = function.body.expr.clone();
    if is_direct(&body, arguments)? {
        return Substitution { routine: &function.name, names, inner: arguments.to_vec(), outer }.apply(body);
    }
    *calls += 1;
    let qualifier = TableReference::bare(format!("{}() {calls}", function.name));
    let items = outer.into_iter().zip(&names).map(|(argument, name)| argument.alias(name)).collect();
    let one_row = LogicalPlanBuilder::empty(true).build()?;
    let rows = LogicalPlan::Projection(Projection::try_new(items, Arc::new(one_row))?);
    let rows = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(rows), qualifier.clone())?);
    let column = |name: &String| Expr::Column(Column::new(Some(qualifier.clone()), name.clone()));
    let columns: Vec<Expr> = names.iter().map(column).collect();
    let outer = all_outer(&columns, rows.schema())?;
    let value = Substitution { routine: &function.name, names, inner: columns, outer }.apply(body)?;
    let plan = Projection::try_new(vec![value.alias("value")], Arc::new(rows))?;
    Ok(Expr::ScalarSubquery(subquery(LogicalPlan::Projection(plan), Spans::new())))
}

/// Returns the rows of a function that returns a table, with these arguments in the place of the parameters.
pub(super) fn rows_with(
    function: &UserFunction,
    arguments: Vec<Expr>,
    rows: LogicalPlan,
) -> Result<LogicalPlan> {
    let names = function.parameters.iter().enumerate().map(column_name).collect();
    let outer = arguments.clone();
    let substitution = Substitution { routine: &function.name, names, inner: arguments, outer };
    Ok(rows.rewrite_up(|node| substitution.in_node(node))?.data)
}

fn refuse_arguments(function: &UserFunction, arguments: &[Expr]) -> Result<()> {
    for argument in arguments {
        let what = if volatility(argument) == Volatility::Volatile {
            "a volatile argument"
        } else if argument.exists(|part| Ok(matches!(part, Expr::LambdaVariable(_))))? {
            "a lambda's parameter as an argument"
        } else {
            continue;
        };
        let name = &function.name;
        return Err(Error::unsupported(format!("{what} of \"{name}\", whose body contains a subquery,"))
            .hint("Pass a column instead, which a subquery in FROM computes.")
            .into());
    }
    Ok(())
}

/// True if the arguments may take the place of the parameters.
fn is_direct(body: &Expr, arguments: &[Expr]) -> Result<bool> {
    let mut columns = Vec::new();
    for argument in arguments {
        if has_queries(argument) || parts(argument)? > PARTS_MAX {
            return Ok(false);
        }
        argument.apply(|part| {
            if let Expr::Column(column) | Expr::OuterReferenceColumn(_, column) = part {
                columns.push(column.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(!captures(body, &columns)?)
}

/// True if a relation in a subquery of the body has one of these columns.
pub(super) fn captures(body: &Expr, columns: &[Column]) -> Result<bool> {
    let mut found = false;
    body.apply(|part| {
        let Some(plan) = subquery_of(part) else { return Ok(TreeNodeRecursion::Continue) };
        plan.apply_with_subqueries(|node| {
            found |= columns.iter().any(|column| node.schema().has_column(column));
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(found)
}

/// Turns columns of these expressions into columns of an outer query.
fn all_outer(expressions: &[Expr], schema: &DFSchema) -> Result<Vec<Expr>> {
    let outer = |expression: &Expr| {
        let replaced = expression.clone().rewrite_up(|part| match part {
            Expr::Column(column) => {
                let field = Arc::clone(schema.field_from_column(&column)?);
                Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(replaced.data)
    };
    expressions.iter().map(outer).collect()
}

/// Returns a subquery with its references to outer rows.
fn subquery(plan: LogicalPlan, spans: Spans) -> Subquery {
    let outer_ref_columns = plan.all_out_ref_exprs();
    Subquery { subquery: Arc::new(plan), outer_ref_columns, spans }
}

/// Replaces the parameters of a body.
struct Substitution<'a> {
    /// The function's name, which qualifies its parameters.
    routine: &'a str,
    names: Vec<String>,
    /// The values of the parameters outside subqueries.
    inner: Vec<Expr>,
    /// The values of the parameters within subqueries.
    outer: Vec<Expr>,
}

impl Substitution<'_> {
    fn apply(&self, body: Expr) -> Result<Expr> {
        let replaced = body.rewrite_up(|part| match part {
            Expr::Column(column) => Ok(match self.place(&column) {
                Some(place) => Transformed::yes(self.inner[place].clone()),
                None => Transformed::no(Expr::Column(column)),
            }),
            other => self.in_subquery(other),
        })?;
        Ok(replaced.data)
    }

    fn place(&self, column: &Column) -> Option<usize> {
        let is_own = column.relation.as_ref().is_some_and(|relation| relation.table() == self.routine);
        let place = self.names.iter().position(|name| *name == column.name);
        place.filter(|_| is_own)
    }

    /// Replaces the parameters in the plan of an expression that is a subquery.
    fn in_subquery(&self, expression: Expr) -> Result<Transformed<Expr>> {
        let replaced = match expression {
            Expr::ScalarSubquery(subquery) => Expr::ScalarSubquery(self.in_plan(subquery)?),
            Expr::Exists(Exists { subquery, negated }) => {
                Expr::Exists(Exists { subquery: self.in_plan(subquery)?, negated })
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                Expr::InSubquery(InSubquery { expr, subquery: self.in_plan(subquery)?, negated })
            }
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
                Expr::SetComparison(SetComparison { expr, subquery: self.in_plan(subquery)?, op, quantifier })
            }
            other => return Ok(Transformed::no(other)),
        };
        Ok(Transformed::yes(replaced))
    }

    fn in_plan(&self, found: Subquery) -> Result<Subquery> {
        let plan = Arc::unwrap_or_clone(found.subquery);
        let plan = plan.rewrite_up(|node| self.in_node(node))?.data;
        Ok(subquery(plan, found.spans))
    }

    fn in_node(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        if let LogicalPlan::Subquery(found) = node {
            let plan = Arc::unwrap_or_clone(found.subquery);
            // With constants as arguments, a relation of LATERAL is one of its own.
            let lateral = subquery(plan, found.spans);
            return Ok(Transformed::yes(match lateral.outer_ref_columns.is_empty() {
                true => Arc::unwrap_or_clone(lateral.subquery),
                false => LogicalPlan::Subquery(lateral),
            }));
        }
        map_named(node, |expression| {
            expression.rewrite_up(|part| match part {
                Expr::OuterReferenceColumn(field, column) => Ok(match self.place(&column) {
                    Some(place) => Transformed::yes(self.outer[place].clone()),
                    None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
                }),
                other => Ok(Transformed::no(other)),
            })
        })
    }
}
