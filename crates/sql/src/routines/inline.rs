//! Replaces calls of user-defined functions by their bodies.
//!
//! A call stays if its body uses a volatile argument more than once, or if the result would grow too large.
//! Such a call computes the same. [`query_body`](super::query_body) inlines bodies with subqueries.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, Volatility, WindowFunctionDefinition, cast,
};
use millstream_delta::sql_type;

use super::aggregate::UserAggregate;
use super::argument_types::is_text;
use super::body::{column_name, has_queries, uses};
use super::function::{UserFunction, volatility};
use super::query_body;
use crate::complexity::{parts, refuse_large};
use crate::error::Error;
use crate::rules::names::map_parts;
use crate::tree_rewrite::TreeRewrite;

/// The most nodes that an argument may have in all its places together.
const NODES_MAX: u64 = 64;

/// Inlines calls of user-defined functions in a plan where possible.
pub(crate) fn inline(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut queries = Queries::default();
    let plan = plan.rewrite_up(|node| replace_in(node, &mut queries))?.data;
    if queries.inlined {
        refuse_large(&plan)?;
    }
    Ok(plan)
}

/// The bodies with subqueries that a plan has got so far.
#[derive(Default)]
struct Queries {
    /// True if there is one.
    inlined: bool,
    /// The number of relations made of arguments.
    relations: usize,
}

fn replace_in(node: LogicalPlan, queries: &mut Queries) -> Result<Transformed<LogicalPlan>> {
    let mut calls = false;
    node.apply_expressions(|expression| {
        calls |= expression.exists(|part| {
            refuse_over(part)?;
            Ok(called(part).is_some())
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !calls {
        return Ok(Transformed::no(node));
    }
    map_parts(node, |part, schema| replace(part, schema, queries))
}

fn refuse_over(expression: &Expr) -> Result<()> {
    if let Expr::WindowFunction(window) = expression
        && let WindowFunctionDefinition::AggregateUDF(function) = &window.fun
        && function.inner().is::<UserAggregate>()
        && window.params.distinct
    {
        return Err(Error::unsupported(format!(
            "DISTINCT in \"{}\", an aggregate of a user's, with OVER",
            function.name()
        ))
        .into());
    }
    Ok(())
}

fn called(expression: &Expr) -> Option<&UserFunction> {
    let Expr::ScalarFunction(call) = expression else { return None };
    call.func.inner().downcast_ref::<UserFunction>()
}

fn replace(expression: Expr, schema: &DFSchema, queries: &mut Queries) -> Result<Transformed<Expr>> {
    let Some(function) = called(&expression) else { return Ok(Transformed::no(expression)) };
    let Expr::ScalarFunction(call) = &expression else { return Ok(Transformed::no(expression)) };
    let mut arguments = Vec::with_capacity(call.args.len());
    for (place, (argument, parameter)) in call.args.iter().zip(&function.parameters).enumerate() {
        let (found, wanted) = (argument.get_type(schema)?, &parameter.data_type);
        if is_text(&found) && !is_text(wanted) && !matches!(argument, Expr::Literal(..)) {
            let (found, wanted) = (sql_type(&found), sql_type(wanted));
            let message = format!("argument {} of {} is {found}", place + 1, function.name);
            let message = format!("{message}, {wanted} was declared");
            return Err(Error::invalid(message).hint(format!("Cast it: (…)::{wanted}.")).into());
        }
        // A computed DOUBLE PRECISION counts as NUMERIC in some places, and a REAL can become one.
        let same = found == *wanted && !wanted.is_floating();
        arguments.push(if same { argument.clone() } else { cast(argument.clone(), wanted.clone()) });
    }
    if has_queries(&function.body.expr) {
        queries.inlined = true;
        let value = query_body::inlined(function, &arguments, schema, &mut queries.relations)?;
        return Ok(Transformed::new(value, true, TreeNodeRecursion::Continue));
    }
    if !fits(function, &arguments) {
        return Ok(Transformed::no(expression));
    }
    let names: Vec<String> = function.parameters.iter().enumerate().map(column_name).collect();
    let replaced = function.body.expr.clone().rewrite_up(|part| match &part {
        Expr::Column(Column { name, .. }) => match names.iter().position(|other| other == name) {
            Some(place) => Ok(Transformed::yes(arguments[place].clone())),
            None => Ok(Transformed::no(part)),
        },
        _ => Ok(Transformed::no(part)),
    })?;
    // The body isn't visited again: calls in it were inlined when the function was created.
    Ok(Transformed::new(replaced.data, true, TreeNodeRecursion::Continue))
}

/// True if the body may replace the call.
fn fits(function: &UserFunction, arguments: &[Expr]) -> bool {
    // A body that depends on the time is inlined at any size, so that checks for such calls see it.
    let steady = volatility(&function.body.expr) == Volatility::Immutable;
    uses(&function.body.expr, &function.parameters).into_iter().zip(arguments).all(|(uses, argument)| {
        let once = uses == 1 || matches!(argument, Expr::Column(_) | Expr::Literal(..));
        let same = volatility(argument) != Volatility::Volatile;
        once || (same && (!steady || parts(argument).is_ok_and(|parts| parts * uses as u64 <= NODES_MAX)))
    })
}
