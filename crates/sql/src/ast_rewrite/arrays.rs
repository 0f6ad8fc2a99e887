//! Arrays: `ARRAY(SELECT …)`, and arrays of several dimensions.
//!
//! | written | planned as |
//! | --- | --- |
//! | `ARRAY(SELECT x FROM t)` | `(SELECT array_agg(x) FROM t)`, or an empty array |
//! | `array_fill(x, ARRAY[2, 3])` | `array_repeat(array_repeat(x, 3), 2)` |
//! | `'{{1,2},{3,4}}'::int[]` | `'{{1,2},{3,4}}'::int[][]` |
//! | `a[2:3]`, `a[:3]`, `a[2:]` | `array_section(a, 2, 3)` |

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, ArrayElemTypeDef, DataType as SqlType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArguments, GroupByExpr, Ident, OrderByKind, Query, SelectItem, SetExpr,
    Statement, Subscript, TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins, Value,
};

use super::call;
use super::postgres::parsed;
use super::shorthand::arguments;
use crate::ast_walk::visit_expressions;
use crate::error::{Error, Result};

/// The most dimensions of an array, as in PostgreSQL.
const DIMENSIONS_MAX: usize = 6;

/// Rewrites `array_fill(x, ARRAY[2, 3])` to an array of arrays.
pub(super) fn filled(function: &Function) -> Option<Expr> {
    if !function.name.to_string().eq_ignore_ascii_case("array_fill") {
        return None;
    }
    let [value, Expr::Function(lengths)] = <[Expr; 2]>::try_from(arguments(function)?).ok()? else {
        return None;
    };
    // An array in brackets is a call by now.
    let lengths = arguments(&lengths).filter(|_| lengths.name.to_string() == "make_array")?;
    if !(2..=DIMENSIONS_MAX).contains(&lengths.len()) {
        return None;
    }
    Some(lengths.into_iter().rev().fold(value, |value, length| call("array_repeat", vec![value, length])))
}

/// Rewrites a slice of an array. Returns none for subscripts and fields only.
pub(super) fn section(root: &mut Expr, chain: &mut [AccessExpr]) -> Result<Option<Expr>> {
    let is_slice = |access: &AccessExpr| matches!(access, AccessExpr::Subscript(Subscript::Slice { .. }));
    let Some(place) = chain.iter().position(is_slice) else { return Ok(None) };
    let is_subscript = |access: &AccessExpr| matches!(access, AccessExpr::Subscript(_));
    if chain.iter().filter(|access| is_subscript(access)).count() > 1 {
        return Err(Error::unsupported("a slice beside another subscript")
            .hint("Take the slice in a subquery, and its element or its slice around it."));
    }
    let (before, rest) = chain.split_at_mut(place);
    let [AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, stride }), after @ ..] = rest
    else {
        return Ok(None);
    };
    if stride.is_some() || !after.is_empty() {
        return Err(Error::unsupported("a slice with a step, or a field of one"));
    }
    let taken = |expression: &mut Expr| std::mem::replace(expression, Expr::value(Value::Null));
    let bound = |bound: &mut Option<Expr>, open: i64| match bound.take() {
        Some(bound) => bound,
        None => Expr::value(Value::Number(open.to_string(), false)),
    };
    let array = match before.is_empty() {
        true => taken(root),
        false => Expr::CompoundFieldAccess { root: Box::new(taken(root)), access_chain: before.to_vec() },
    };
    Ok(Some(call("array_section", vec![array, bound(lower_bound, 1), bound(upper_bound, i64::MAX)])))
}

/// Gives the type in a cast of a literal the dimensions that the literal has.
pub(super) fn add_dimensions(value: &Expr, data_type: &mut SqlType) {
    let (Expr::Value(value), SqlType::Array(ArrayElemTypeDef::SquareBracket(item, _))) = (value, &*data_type)
    else {
        return;
    };
    let (Value::SingleQuotedString(written), false) = (&value.value, matches!(**item, SqlType::Array(_)))
    else {
        return;
    };
    let dimensions = written.chars().filter(|c| !c.is_whitespace()).take_while(|c| *c == '{').count();
    for _ in 1..dimensions.min(DIMENSIONS_MAX) {
        let inner = std::mem::replace(data_type, SqlType::Unspecified);
        *data_type = SqlType::Array(ArrayElemTypeDef::SquareBracket(Box::new(inner), None));
    }
}

/// Rewrites `ARRAY(SELECT x …)` to an aggregate over the subquery's rows, in their order.
pub(super) fn array_of(function: &Function) -> Result<Option<Expr>> {
    let is_array = function.name.0.len() == 1 && function.name.to_string().eq_ignore_ascii_case("array");
    let FunctionArguments::Subquery(query) = &function.args else { return Ok(None) };
    if !is_array {
        return Ok(None);
    }
    let mut query = query.clone();
    let simple = query.limit_clause.is_none() && query.fetch.is_none();
    if let (true, SetExpr::Select(select)) = (simple, query.body.as_mut()) {
        let plain = select.distinct.is_none()
            && select.having.is_none()
            && matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
        if let (true, [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }]) =
            (plain, select.projection.as_mut_slice())
            && !has_set_or_aggregate(item)
        {
            let value = std::mem::replace(item, Expr::value(Value::Null));
            let order = query.order_by.take();
            *item = aggregate(value, order.map(|order| order.kind));
            return Ok(Some(or_empty(query)));
        }
    }
    Ok(ordered_elements(query)?.map(or_empty))
}

/// Returns `SELECT array_agg(element ORDER BY __order1, …) FROM (query) AS elements (element, __order1, …)`. The query gets a
/// column for each of its keys that isn't the element itself.
fn ordered_elements(mut query: Box<Query>) -> Result<Option<Box<Query>>> {
    let mut keys = match query.order_by.as_ref().map(|order| &order.kind) {
        Some(OrderByKind::Expressions(keys)) => keys.clone(),
        _ => Vec::new(),
    };
    let element = Ident::new("element");
    let mut columns = vec![element.clone()];
    // DISTINCT and set operations have only their own columns as keys.
    let select = match query.body.as_mut() {
        SetExpr::Select(select) => Some(select),
        _ => None,
    };
    let item = select.as_ref().and_then(|select| match select.projection.first() {
        Some(SelectItem::ExprWithAlias { expr, alias }) => Some((expr.clone(), Some(alias.clone()))),
        Some(SelectItem::UnnamedExpr(expr)) => Some((expr.clone(), None)),
        _ => None,
    });
    let is_element = |key: &Expr| match (key, &item) {
        (Expr::Value(_), _) => true,
        (Expr::Identifier(name), Some((_, Some(alias)))) if name == alias => true,
        (key, Some((item, _))) => key == item,
        _ => false,
    };
    let mut added = select.filter(|select| select.distinct.is_none());
    for key in &mut keys {
        let column = match (is_element(&key.expr), &mut added) {
            (false, Some(select)) => {
                let column = Ident::new(format!("__order{}", columns.len()));
                let expr = key.expr.clone();
                select.projection.push(SelectItem::ExprWithAlias { expr, alias: column.clone() });
                columns.push(column.clone());
                column
            }
            (false, None) if !matches!(key.expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) => {
                return Err(Error::unsupported(
                    "ARRAY of DISTINCT rows or of a set operation, ordered by an expression",
                )
                .hint("Order by the element: ARRAY(SELECT DISTINCT x FROM t ORDER BY x)."));
            }
            _ => element.clone(),
        };
        key.expr = Expr::Identifier(column);
    }
    let Ok(Statement::Query(mut outer)) = parsed("SELECT array_agg(element) FROM t") else { return Ok(None) };
    if let SetExpr::Select(select) = outer.body.as_mut() {
        let order = Some(keys).filter(|keys| !keys.is_empty()).map(OrderByKind::Expressions);
        select.projection = vec![SelectItem::UnnamedExpr(aggregate(Expr::Identifier(element), order))];
        let columns = columns.into_iter().map(|name| TableAliasColumnDef { name, data_type: None }).collect();
        select.from = vec![TableWithJoins {
            relation: TableFactor::Derived {
                lateral: false,
                subquery: query,
                alias: Some(TableAlias { explicit: true, name: Ident::new("elements"), columns, at: None }),
                sample: None,
            },
            joins: Vec::new(),
        }];
    }
    Ok(Some(outer))
}

/// Returns an empty array over no rows, where the aggregate is NULL.
fn or_empty(aggregated: Box<Query>) -> Expr {
    call("coalesce", vec![Expr::Subquery(aggregated), call("make_array", Vec::new())])
}

/// True if an element is a set-returning call (`unnest`) or computed from several rows.
fn has_set_or_aggregate(expression: &Expr) -> bool {
    let mut found = false;
    let _ = visit_expressions(expression, |part| {
        if let Expr::Function(function) = part {
            let name = function.name.to_string().to_lowercase();
            let name = name.rsplit('.').next().unwrap_or(&name).to_string();
            found |= function.over.is_some()
                || ["unnest", "generate_subscripts", "array_agg", "count", "sum", "min", "max", "string_agg"]
                    .contains(&name.as_str());
        }
        ControlFlow::<()>::Continue(())
    });
    found
}

fn aggregate(value: Expr, order: Option<OrderByKind>) -> Expr {
    let mut made = call("array_agg", vec![value]);
    if let Expr::Function(function) = &mut made
        && let FunctionArguments::List(list) = &mut function.args
        && let Some(OrderByKind::Expressions(keys)) = order
    {
        // `ORDER BY 1` means the element itself.
        let element = list.args.first().cloned();
        let keys = keys.into_iter().map(|mut key| {
            if let (Expr::Value(_), Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(element)))) =
                (&key.expr, &element)
            {
                key.expr = element.clone();
            }
            key
        });
        list.clauses.push(FunctionArgumentClause::OrderBy(keys.collect()));
    }
    made
}
