//! Reduces queries, one step at a time.

use std::collections::{BTreeMap, HashSet};

use super::ast::{Aggregate, Body, Common, Expr, From, Group, Node, Order, Query, Select, Shape, Window};
use super::family::Family;
use super::visit::{each_expr, each_from, queries_in};

/// Returns all queries that are one step smaller, the biggest steps first. Some of them cannot be planned.
pub fn reductions(query: &Query) -> Vec<Query> {
    let mut found: Vec<Query> = queries_in(query).into_iter().cloned().collect();
    found.extend(smaller_query(query));
    found.extend((0..width(query)).filter_map(|at| without_column(query, at)));
    // A recursive query must stay below its WITH.
    found.retain(|smaller| {
        !smaller.to_string().contains(" AS r") || smaller.to_string().contains("RECURSIVE")
    });
    let mut seen = HashSet::from([query.to_string()]);
    found.iter_mut().for_each(repair);
    found.retain(|query| seen.insert(query.to_string()));
    found.sort_by_key(|query| query.to_string().len());
    found
}

/// Replaces names of missing columns by literals.
fn repair(query: &mut Query) {
    let mut known: BTreeMap<String, Option<Vec<String>>> = BTreeMap::new();
    each_from(query, &mut |from| {
        match from {
            From::Table(_, alias) => known.insert(alias.clone(), None),
            From::Derived { alias, columns, .. } => known.insert(alias.clone(), Some(columns.clone())),
            From::Unnest(_, alias, column) => known.insert(alias.clone(), Some(vec![column.clone()])),
            From::Join { .. } => None,
        };
    });
    each_expr(query, &mut |expr| {
        if let Node::Column(alias, name) = &expr.node
            && !alias.is_empty()
        {
            let there = known
                .get(alias)
                .is_some_and(|columns| columns.as_ref().is_none_or(|columns| columns.contains(name)));
            if !there {
                *expr = simple(expr.family);
            }
        }
    });
}

/// Returns the simplest value of a family.
fn simple(family: Family) -> Expr {
    let value = family.values().first().copied().unwrap_or("NULL");
    Expr::literal(family, family.typed(value))
}

/// Returns the number of columns of a query.
fn width(query: &Query) -> usize {
    match &query.body {
        Body::Select(select) => select.items.len(),
        Body::Set(_, left, _) => width(left),
        Body::Values(rows) => rows.first().map_or(0, Vec::len),
    }
}

/// Returns the query without one of its columns, if others are left.
fn without_column(query: &Query, at: usize) -> Option<Query> {
    if width(query) < 2 {
        return None;
    }
    let mut query = query.clone();
    match &mut query.body {
        Body::Select(select) => {
            select.items.remove(at);
        }
        Body::Set(_, left, right) => {
            **left = without_column(left, at)?;
            **right = without_column(right, at)?;
        }
        Body::Values(rows) => rows.iter_mut().for_each(|row| {
            row.remove(at);
        }),
    }
    // Numbers in ORDER BY follow the columns.
    query.order.retain(|order| order.expr.to_string() != (at + 1).to_string());
    for order in &mut query.order {
        if let Node::Literal(text) = &mut order.expr.node
            && let Ok(number) = text.parse::<usize>()
            && number > at + 1
        {
            *text = (number - 1).to_string();
        }
    }
    Some(query)
}

/// Returns `items` without one of them, or with one of them smaller.
fn smaller_list<T: Clone>(items: &[T], least: usize, smaller: impl Fn(&T) -> Vec<T>) -> Vec<Vec<T>> {
    let mut found = Vec::new();
    for at in 0..items.len() {
        if items.len() > least {
            let mut fewer = items.to_vec();
            fewer.remove(at);
            found.push(fewer);
        }
        for item in smaller(&items[at]) {
            let mut changed = items.to_vec();
            changed[at] = item;
            found.push(changed);
        }
    }
    found
}

fn smaller_order(order: &Order) -> Vec<Order> {
    let mut found: Vec<Order> =
        smaller_expr(&order.expr).into_iter().map(|expr| Order { expr, ..order.clone() }).collect();
    if !order.suffix.is_empty() {
        found.push(Order { suffix: "", ..order.clone() });
    }
    found
}

/// Returns nothing, or smaller expressions.
fn smaller_option(expr: &Option<Expr>) -> Vec<Option<Expr>> {
    let Some(expr) = expr else { return Vec::new() };
    std::iter::once(None).chain(smaller_expr(expr).into_iter().map(Some)).collect()
}

fn smaller_query(query: &Query) -> Vec<Query> {
    let mut found = Vec::new();
    if !query.order.is_empty() {
        found.push(Query { order: Vec::new(), limit: None, offset: None, ..query.clone() });
    }
    if query.limit.is_some() {
        found.push(Query { limit: None, ..query.clone() });
    }
    if query.offset.is_some() {
        found.push(Query { offset: None, ..query.clone() });
    }
    let with = smaller_list(&query.with, 0, smaller_common);
    found.extend(with.into_iter().map(|with| Query { with, ..query.clone() }));
    found.extend(smaller_body(&query.body).into_iter().map(|body| Query { body, ..query.clone() }));
    let order = smaller_list(&query.order, 0, smaller_order);
    found.extend(order.into_iter().map(|order| Query { order, ..query.clone() }));
    found
}

fn smaller_common(common: &Common) -> Vec<Common> {
    let queries = smaller_query(&common.query).into_iter();
    let kept = queries.filter(|query| !common.recursive || ends(query));
    kept.map(|query| Common { query, ..common.clone() }).collect()
}

/// Returns true if a recursive query still counts its rounds.
fn ends(query: &Query) -> bool {
    let Body::Set(_, _, step) = &query.body else { return false };
    let Body::Select(select) = &step.body else { return false };
    let counts = select.items.first().is_some_and(|(item, _)| item.to_string().ends_with(" + 1"));
    counts && select.filter.as_ref().is_some_and(|filter| filter.to_string().contains(" < 3)"))
}

fn smaller_body(body: &Body) -> Vec<Body> {
    match body {
        Body::Select(select) => {
            smaller_select(select).into_iter().map(|select| Body::Select(Box::new(select))).collect()
        }
        Body::Set(word, left, right) => {
            let mut found = Vec::new();
            for side in [left, right] {
                if side.with.is_empty()
                    && side.order.is_empty()
                    && side.limit.is_none()
                    && side.offset.is_none()
                {
                    found.push(side.body.clone());
                }
            }
            let lefts = smaller_query(left).into_iter();
            found.extend(lefts.map(|left| Body::Set(word, Box::new(left), right.clone())));
            let rights = smaller_query(right).into_iter();
            found.extend(rights.map(|right| Body::Set(word, left.clone(), Box::new(right))));
            found
        }
        Body::Values(rows) => {
            let smaller_row = |row: &Vec<Expr>| smaller_list(row, row.len(), smaller_expr);
            smaller_list(rows, 1, smaller_row).into_iter().map(Body::Values).collect()
        }
    }
}

fn smaller_select(select: &Select) -> Vec<Select> {
    let mut found = Vec::new();
    if select.distinct {
        found.push(Select { distinct: false, ..select.clone() });
    }
    if let Some(from) = &select.from {
        let froms = smaller_from(from).into_iter();
        found.extend(froms.map(|from| Select { from: Some(from), ..select.clone() }));
    }
    let filters = smaller_option(&select.filter).into_iter();
    found.extend(filters.map(|filter| Select { filter, ..select.clone() }));
    let havings = smaller_option(&select.having).into_iter();
    found.extend(havings.map(|having| Select { having, ..select.clone() }));
    found.extend(smaller_group(select));
    let on = smaller_list(&select.on, 0, smaller_expr);
    found.extend(on.into_iter().map(|on| Select { on, ..select.clone() }));
    let smaller_item = |item: &(Expr, String)| -> Vec<(Expr, String)> {
        smaller_expr(&item.0).into_iter().map(|expr| (expr, item.1.clone())).collect()
    };
    let items = smaller_list(&select.items, select.items.len(), smaller_item);
    found.extend(items.into_iter().map(|items| Select { items, ..select.clone() }));
    found
}

/// Returns the SELECT with fewer keys and fewer sets; removed keys become values elsewhere.
fn smaller_group(select: &Select) -> Vec<Select> {
    let Some(group) = &select.group else { return Vec::new() };
    let mut found = Vec::new();
    let aggregates = select.items.iter().any(|(item, _)| item.to_string().contains('('));
    if !aggregates && select.having.is_none() {
        found.push(Select { group: None, ..select.clone() });
    }
    if group.shape != Shape::Plain {
        let group = Group { shape: Shape::Plain, ..group.clone() };
        found.push(Select { group: Some(group), ..select.clone() });
    }
    if let Shape::Sets(sets) = &group.shape {
        for sets in smaller_list(sets, 1, |set| smaller_list(set, 0, |_| Vec::new())) {
            let group = Group { shape: Shape::Sets(sets), ..group.clone() };
            found.push(Select { group: Some(group), ..select.clone() });
        }
        return found;
    }
    for at in 0..group.keys.len() {
        let mut fewer = group.clone();
        let key = fewer.keys.remove(at);
        if fewer.keys.is_empty() {
            fewer.shape = Shape::Plain;
        }
        let mut select = Select { group: Some(fewer), ..select.clone() };
        let mut replace = |expr: &mut Expr| {
            if *expr == key {
                *expr = simple(key.family);
            }
        };
        let mut items = std::mem::take(&mut select.items);
        items.iter_mut().for_each(|(item, _)| super::visit::each_in(item, &mut replace));
        select.items = items;
        if let Some(having) = &mut select.having {
            super::visit::each_in(having, &mut replace);
        }
        found.push(select);
    }
    found
}

fn smaller_from(from: &From) -> Vec<From> {
    match from {
        From::Table(..) => Vec::new(),
        From::Derived { lateral, query, alias, columns } => {
            let derived = |query: Query, columns: Vec<String>| From::Derived {
                lateral: *lateral,
                query: Box::new(query),
                alias: alias.clone(),
                columns,
            };
            let mut found: Vec<From> =
                smaller_query(query).into_iter().map(|query| derived(query, columns.clone())).collect();
            for at in 0..columns.len() {
                let mut fewer = columns.clone();
                fewer.remove(at);
                found.extend(without_column(query, at).map(|query| derived(query, fewer)));
            }
            found
        }
        From::Unnest(list, alias, column) => {
            let lists = smaller_expr(list).into_iter();
            lists.map(|list| From::Unnest(list, alias.clone(), column.clone())).collect()
        }
        From::Join { word, left, right, on, using } => {
            let mut found = vec![left.as_ref().clone(), right.as_ref().clone()];
            let join = |left: &From, right: &From, on: &Option<Expr>| From::Join {
                word,
                left: Box::new(left.clone()),
                right: Box::new(right.clone()),
                on: on.clone(),
                using: using.clone(),
            };
            found.extend(smaller_from(left).iter().map(|left| join(left, right, on)));
            found.extend(smaller_from(right).iter().map(|right| join(left, right, on)));
            let conditions = on.iter().flat_map(smaller_expr);
            found.extend(conditions.map(|on| join(left, right, &Some(on))));
            found
        }
    }
}

fn smaller_expr(expr: &Expr) -> Vec<Expr> {
    let family = expr.family;
    let with = |node: Node| Expr { family, node };
    let mut found = Vec::new();
    match &expr.node {
        Node::Literal(_) => return found,
        Node::Column(..) => {}
        Node::Form(pieces, operands) => {
            found.extend(operands.iter().filter(|operand| operand.family == family).cloned());
            found.push(simple(family));
            for operands in smaller_list(operands, operands.len(), smaller_expr) {
                found.push(with(Node::Form(pieces.clone(), operands)));
            }
            return found;
        }
        Node::Subquery(left, word, query) => {
            found.push(simple(family));
            let queries = smaller_query(query).into_iter();
            found.extend(queries.map(|query| with(Node::Subquery(left.clone(), word, Box::new(query)))));
            for left in left.iter().flat_map(|left| smaller_expr(left)) {
                found.push(with(Node::Subquery(Some(Box::new(left)), word, query.clone())));
            }
            return found;
        }
        Node::Aggregate(call) => {
            let calls = smaller_call(call).into_iter();
            found.extend(calls.map(|call| with(Node::Aggregate(Box::new(call)))));
        }
        Node::Window(window) => {
            let windows = smaller_window(window).into_iter();
            found.extend(windows.map(|window| with(Node::Window(Box::new(window)))));
        }
    }
    found.push(simple(family));
    found
}

fn smaller_call(call: &Aggregate) -> Vec<Aggregate> {
    let mut found = Vec::new();
    if call.distinct {
        found.push(Aggregate { distinct: false, ..call.clone() });
    }
    let filters = smaller_option(&call.filter).into_iter();
    found.extend(filters.map(|filter| Aggregate { filter, ..call.clone() }));
    let orders = smaller_list(&call.order, 0, smaller_order).into_iter();
    found.extend(orders.map(|order| Aggregate { order, ..call.clone() }));
    let withins = smaller_list(&call.within, call.within.len(), smaller_order).into_iter();
    found.extend(withins.map(|within| Aggregate { within, ..call.clone() }));
    let arguments = smaller_list(&call.arguments, call.arguments.len(), smaller_expr).into_iter();
    found.extend(arguments.map(|arguments| Aggregate { arguments, ..call.clone() }));
    found
}

fn smaller_window(window: &Window) -> Vec<Window> {
    let mut found = Vec::new();
    if !window.frame.is_empty() {
        found.push(Window { frame: String::new(), ..window.clone() });
    }
    let partitions = smaller_list(&window.partition, 0, smaller_expr).into_iter();
    found.extend(partitions.map(|partition| Window { partition, ..window.clone() }));
    let orders = smaller_list(&window.order, 0, smaller_order).into_iter();
    found.extend(orders.map(|order| Window { order, ..window.clone() }));
    found.extend(smaller_call(&window.call).into_iter().map(|call| Window { call, ..window.clone() }));
    found
}
