//! Visitors of query trees.

use super::ast::{Aggregate, Body, Expr, From, Node, Order, Query};

/// Calls `see` with every expression of the query, outer expressions first.
pub fn each_expr(query: &mut Query, see: &mut dyn FnMut(&mut Expr)) {
    query.with.iter_mut().for_each(|common| each_expr(&mut common.query, see));
    match &mut query.body {
        Body::Select(select) => {
            select.on.iter_mut().for_each(|expr| each_in(expr, see));
            select.items.iter_mut().for_each(|(item, _)| each_in(item, see));
            if let Some(from) = &mut select.from {
                each_in_from(from, see);
            }
            select.filter.iter_mut().for_each(|expr| each_in(expr, see));
            if let Some(group) = &mut select.group {
                group.keys.iter_mut().for_each(|expr| each_in(expr, see));
            }
            select.having.iter_mut().for_each(|expr| each_in(expr, see));
        }
        Body::Set(_, left, right) => {
            each_expr(left, see);
            each_expr(right, see);
        }
        Body::Values(rows) => rows.iter_mut().flatten().for_each(|expr| each_in(expr, see)),
    }
    each_order(&mut query.order, see);
}

fn each_in_from(from: &mut From, see: &mut dyn FnMut(&mut Expr)) {
    match from {
        From::Table(..) => {}
        From::Derived { query, .. } => each_expr(query, see),
        From::Unnest(list, ..) => each_in(list, see),
        From::Join { left, right, on, .. } => {
            each_in_from(left, see);
            each_in_from(right, see);
            on.iter_mut().for_each(|on| each_in(on, see));
        }
    }
}

fn each_order(order: &mut [Order], see: &mut dyn FnMut(&mut Expr)) {
    order.iter_mut().for_each(|order| each_in(&mut order.expr, see));
}

fn each_in_call(call: &mut Aggregate, see: &mut dyn FnMut(&mut Expr)) {
    call.arguments.iter_mut().for_each(|expr| each_in(expr, see));
    each_order(&mut call.order, see);
    each_order(&mut call.within, see);
    call.filter.iter_mut().for_each(|expr| each_in(expr, see));
}

/// Calls `see` with `expr`, then with all expressions inside it as `see` left it.
pub fn each_in(expr: &mut Expr, see: &mut dyn FnMut(&mut Expr)) {
    see(expr);
    match &mut expr.node {
        Node::Column(..) | Node::Literal(_) => {}
        Node::Form(_, operands) => operands.iter_mut().for_each(|operand| each_in(operand, see)),
        Node::Subquery(left, _, query) => {
            left.iter_mut().for_each(|left| each_in(left, see));
            each_expr(query, see);
        }
        Node::Aggregate(call) => each_in_call(call, see),
        Node::Window(window) => {
            each_in_call(&mut window.call, see);
            window.partition.iter_mut().for_each(|expr| each_in(expr, see));
            each_order(&mut window.order, see);
        }
    }
}

/// Calls `see` with every relation in FROM, of the query and of all its subqueries.
pub fn each_from(query: &Query, see: &mut dyn FnMut(&From)) {
    let mut sources = |query: &Query| {
        if let Body::Select(select) = &query.body
            && let Some(from) = &select.from
        {
            each_source(from, see);
        }
    };
    sources(query);
    queries_in(query).into_iter().for_each(sources);
}

fn each_source(from: &From, see: &mut dyn FnMut(&From)) {
    see(from);
    if let From::Join { left, right, .. } = from {
        each_source(left, see);
        each_source(right, see);
    }
}

/// Returns all queries inside a query.
pub fn queries_in(query: &Query) -> Vec<&Query> {
    let mut found = Vec::new();
    collect(query, &mut found);
    found
}

fn collect<'a>(query: &'a Query, found: &mut Vec<&'a Query>) {
    let take = |inner: &'a Query, found: &mut Vec<&'a Query>| {
        found.push(inner);
        collect(inner, found);
    };
    query.with.iter().for_each(|common| take(&common.query, found));
    let mut exprs: Vec<&'a Expr> = query.order.iter().map(|order| &order.expr).collect();
    match &query.body {
        Body::Select(select) => {
            if let Some(from) = &select.from {
                collect_from(from, found);
            }
            exprs.extend(select.items.iter().map(|(item, _)| item));
            exprs.extend(select.on.iter().chain(&select.filter).chain(&select.having));
            exprs.extend(select.group.iter().flat_map(|group| &group.keys));
        }
        Body::Set(_, left, right) => [left, right].into_iter().for_each(|side| take(side, found)),
        Body::Values(rows) => exprs.extend(rows.iter().flatten()),
    }
    exprs.into_iter().for_each(|expr| collect_expr(expr, found));
}

fn collect_from<'a>(from: &'a From, found: &mut Vec<&'a Query>) {
    match from {
        From::Table(..) => {}
        From::Derived { query, .. } => {
            found.push(query);
            collect(query, found);
        }
        From::Unnest(list, ..) => collect_expr(list, found),
        From::Join { left, right, on, .. } => {
            collect_from(left, found);
            collect_from(right, found);
            on.iter().for_each(|on| collect_expr(on, found));
        }
    }
}

fn collect_expr<'a>(expr: &'a Expr, found: &mut Vec<&'a Query>) {
    match &expr.node {
        Node::Column(..) | Node::Literal(_) => {}
        Node::Form(_, operands) => operands.iter().for_each(|operand| collect_expr(operand, found)),
        Node::Subquery(left, _, query) => {
            left.iter().for_each(|left| collect_expr(left, found));
            found.push(query);
            collect(query, found);
        }
        Node::Aggregate(call) => collect_call(call, found),
        Node::Window(window) => {
            collect_call(&window.call, found);
            let order = window.order.iter().map(|order| &order.expr);
            window.partition.iter().chain(order).for_each(|expr| collect_expr(expr, found));
        }
    }
}

fn collect_call<'a>(call: &'a Aggregate, found: &mut Vec<&'a Query>) {
    let order = call.order.iter().chain(&call.within).map(|order| &order.expr);
    call.arguments.iter().chain(order).chain(&call.filter).for_each(|expr| collect_expr(expr, found));
}
