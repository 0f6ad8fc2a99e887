//! Limits that aren't constants, and those with ties, as conditions over window functions.
//!
//! | written | planned as |
//! | --- | --- |
//! | `SELECT a FROM t ORDER BY b FETCH FIRST 3 ROWS WITH TIES` | `SELECT a FROM t QUALIFY rank() OVER (ORDER BY b) <= 3 ORDER BY b` |
//! | `SELECT a FROM t ORDER BY b LIMIT (SELECT n FROM s)` | `SELECT a FROM t QUALIFY coalesce(row_number() OVER (ORDER BY b) <= (SELECT n FROM s), true) ORDER BY b` |
//! | `… OFFSET (SELECT m FROM s)` | `… QUALIFY row_number() OVER (ORDER BY b) > coalesce((SELECT m FROM s), 0) …` |
//!
//! A query with DISTINCT, QUALIFY or a set operation becomes a subquery first.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, LimitClause, OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr,
    Statement, TableFactor, Value, Visitor, WindowSpec, WindowType,
};

use super::{call, parsed};
use crate::ast_walk::walk;
use crate::error::{Error, Result};

/// The limits of a query.
struct Limits {
    count: Option<Expr>,
    has_ties: bool,
    skipped: Option<Expr>,
}

/// Rewrites the limits of a query. Constants without ties stay as they are.
pub(super) fn rewrite(query: &mut Query) -> Result<()> {
    let Some(limits) = Limits::take(query)? else { return Ok(()) };
    let order = match &query.order_by {
        None => Vec::new(),
        Some(order) => match &order.kind {
            OrderByKind::Expressions(sorted) => sorted.clone(),
            OrderByKind::All(_) => return Err(Error::unsupported("ORDER BY ALL with such a LIMIT")),
        },
    };
    if limits.has_ties && order.is_empty() {
        return Err(Error::invalid("WITH TIES needs an ORDER BY: it says which rows are equal"));
    }
    let select = qualified(query)?;
    let order = order.into_iter().map(|part| resolved(part, &select.projection));
    select.qualify = Some(limits.condition(&order.collect::<Result<Vec<_>>>()?));
    Ok(())
}

impl Limits {
    /// Removes the limits of a query, if they must be rewritten.
    fn take(query: &mut Query) -> Result<Option<Limits>> {
        let (fetched, has_ties) = match &query.fetch {
            Some(fetch) if fetch.percent => return Err(Error::unsupported("FETCH … PERCENT")),
            Some(fetch) => (Some(fetch.quantity.clone().unwrap_or_else(|| number("1"))), fetch.with_ties),
            None => (None, false),
        };
        let (limit, skipped) = match &query.limit_clause {
            None => (None, None),
            Some(LimitClause::LimitOffset { limit, offset, limit_by }) if limit_by.is_empty() => {
                (limit.clone(), offset.as_ref().map(|offset| offset.value.clone()))
            }
            Some(LimitClause::LimitOffset { .. }) => return Err(Error::unsupported("LIMIT … BY")),
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
                (Some(limit.clone()), Some(offset.clone()))
            }
        };
        if fetched.is_some() && limit.is_some() {
            return Err(Error::invalid("both LIMIT and FETCH are given"));
        }
        let count = fetched.or(limit);
        let reads = |part: &Option<Expr>| part.as_ref().is_some_and(has_query);
        if !has_ties && !reads(&count) && !reads(&skipped) {
            return Ok(None);
        }
        (query.fetch, query.limit_clause) = (None, None);
        Ok(Some(Limits { count, has_ties, skipped }))
    }

    /// Returns the condition for the rows that stay.
    fn condition(self, order: &[OrderByExpr]) -> Expr {
        let row = || over(call("row_number", Vec::new()), order);
        let skipped = self.skipped.map(|skipped| call("coalesce", vec![nested(skipped), number("0")]));
        let first = skipped.clone().map(|skipped| binary(row(), BinaryOperator::Gt, skipped));
        let last = self.count.map(|count| {
            let end = match skipped {
                Some(skipped) => nested(binary(nested(count.clone()), BinaryOperator::Plus, skipped)),
                None => nested(count.clone()),
            };
            let place = if self.has_ties { over(call("rank", Vec::new()), order) } else { row() };
            let within = call("coalesce", vec![binary(place, BinaryOperator::LtEq, end), truth()]);
            // No row is equal to the last one of none.
            let is_some = binary(nested(count), BinaryOperator::NotEq, number("0"));
            match self.has_ties {
                true => binary(within, BinaryOperator::And, call("coalesce", vec![is_some, truth()])),
                false => within,
            }
        });
        match (first, last) {
            (Some(first), Some(last)) => binary(first, BinaryOperator::And, last),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => truth(),
        }
    }
}

/// Returns the select of a query that a condition can be added to. Others become its subquery.
fn qualified(query: &mut Query) -> Result<&mut Select> {
    let is_plain = matches!(query.body.as_ref(), SetExpr::Select(select) if select.distinct.is_none() && select.qualify.is_none());
    if !is_plain {
        let wrapped = parsed("SELECT * FROM (SELECT 1) AS limited_rows");
        let Ok(Statement::Query(mut outer)) = wrapped else {
            return Err(Error::bug("a query wasn't parsed"));
        };
        if let SetExpr::Select(select) = outer.body.as_mut()
            && let Some(TableFactor::Derived { subquery, .. }) =
                select.from.first_mut().map(|from| &mut from.relation)
        {
            std::mem::swap(&mut subquery.body, &mut query.body);
        }
        query.body = outer.body;
    }
    match query.body.as_mut() {
        SetExpr::Select(select) => Ok(select),
        _ => Err(Error::bug("a query without a select")),
    }
}

/// Returns what a part of ORDER BY sorts by, in place of the name or the position of an output.
fn resolved(part: OrderByExpr, outputs: &[SelectItem]) -> Result<OrderByExpr> {
    let expr = match &part.expr {
        Expr::Identifier(name) => outputs.iter().find_map(|output| match output {
            SelectItem::ExprWithAlias { expr, alias } if alias.value == name.value => Some(expr.clone()),
            _ => None,
        }),
        Expr::Value(value) if matches!(value.value, Value::Number(..)) => {
            let place = value.value.to_string().parse::<usize>().ok().and_then(|place| place.checked_sub(1));
            match place.and_then(|place| outputs.get(place)) {
                Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => {
                    Some(expr.clone())
                }
                _ => {
                    let error =
                        Error::unsupported("the position of a column in the ORDER BY of such a LIMIT");
                    return Err(error.hint("Name the column."));
                }
            }
        }
        _ => None,
    };
    Ok(match expr {
        Some(expr) => OrderByExpr { expr, ..part },
        None => part,
    })
}

/// Returns true if an expression has a subquery.
pub(super) fn has_query(expression: &Expr) -> bool {
    struct Queries;
    impl Visitor for Queries {
        type Break = ();

        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    walk(expression, &mut Queries).is_break()
}

fn over(call: Expr, order: &[OrderByExpr]) -> Expr {
    let Expr::Function(mut function) = call else { return call };
    function.over = Some(WindowType::WindowSpec(WindowSpec {
        window_name: None,
        partition_by: Vec::new(),
        order_by: order.to_vec(),
        window_frame: None,
    }));
    Expr::Function(function)
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn nested(expression: Expr) -> Expr {
    Expr::Nested(Box::new(expression))
}

fn number(text: &str) -> Expr {
    Expr::value(Value::Number(text.into(), false))
}

fn truth() -> Expr {
    Expr::value(Value::Boolean(true))
}
