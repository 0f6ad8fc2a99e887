//! Draws a SELECT.

use super::ast::{Aggregate, Body, Expr, From, Group, Node, Order, Query, Select, Shape};
use super::draw::{Column, DIRECTIONS, Draw, NESTING_MAX, Scope, is_column};
use super::family::Family;
use super::relations::{FromClause, conjunction};

impl Draw<'_> {
    /// Draws a SELECT of columns c0, c1, … of `families`.
    pub(super) fn select(&mut self, families: &[Family], outer: &[Expr]) -> Query {
        let mut select = Select {
            distinct: false,
            on: Vec::new(),
            items: Vec::new(),
            from: None,
            filter: None,
            group: None,
            having: None,
        };
        let mut scope = Scope { leaves: Vec::new(), outer: outer.to_vec(), subqueries: false };
        if !self.dice.chance(2) {
            let (from, leaves) = FromClause { draw: self }.from(outer);
            select.from = Some(from);
            scope.leaves = leaves;
            scope.subqueries = self.nesting <= NESTING_MAX;
            if self.dice.chance(40) {
                select.filter = Some(self.filter(&scope));
            }
        }
        let mut order = Vec::new();
        match self.dice.below(100) {
            0..35 if select.from.is_some() => self.grouped(&mut select, &scope, families),
            35..55 if select.from.is_some() => {
                select.items = self.windowed(&scope, families);
                select.distinct = self.dice.chance(8);
            }
            55..61 if select.from.is_some() => order = self.distinct_on(&mut select, &scope, families),
            _ => {
                select.items = self.items(&scope, families, 3);
                select.distinct = self.dice.chance(15);
            }
        }
        let mut query = Query::of(Body::Select(Box::new(select)));
        query.order = order;
        query
    }

    /// Draws a SELECT whose rows are those of FROM that pass its WHERE.
    pub(super) fn filtered(&mut self) -> Query {
        self.nesting += 1;
        let (from, leaves) = FromClause { draw: self }.from(&[]);
        let scope = Scope { leaves, outer: Vec::new(), subqueries: false };
        let families: Vec<Family> = (0..1 + self.dice.below(3)).map(|_| self.family()).collect();
        let select = Select {
            distinct: false,
            on: Vec::new(),
            items: self.items(&scope, &families, 1),
            from: Some(from),
            filter: Some(self.condition(&scope, 3)),
            group: None,
            having: None,
        };
        self.nesting -= 1;
        Query::of(Body::Select(Box::new(select)))
    }

    /// Draws expressions with their names.
    fn items(&mut self, scope: &Scope, families: &[Family], depth: usize) -> Vec<(Expr, String)> {
        let named = |(at, family): (usize, &Family)| {
            let depth = if self.dice.chance(40) { 0 } else { depth };
            (self.expr(scope, *family, depth), format!("c{at}"))
        };
        families.iter().enumerate().map(named).collect()
    }

    /// Draws WHERE.
    fn filter(&mut self, scope: &Scope) -> Expr {
        let mut parts = Vec::new();
        if scope.subqueries && self.dice.chance(25) {
            let predicate = self.predicate(scope);
            parts.push(predicate);
        }
        if parts.is_empty() || self.dice.chance(50) {
            let condition = self.condition(scope, 3);
            let either = scope.subqueries && self.dice.chance(10);
            parts.push(match either {
                true => {
                    let predicate = self.predicate(scope);
                    Expr::form(Family::Boolean, &["(", " OR ", ")"], vec![condition, predicate])
                }
                false => condition,
            });
        }
        conjunction(parts)
    }

    /// Draws GROUP BY with aggregates, or aggregates over all rows.
    fn grouped(&mut self, select: &mut Select, scope: &Scope, families: &[Family]) {
        let plain = Scope { subqueries: false, outer: Vec::new(), ..scope.clone() };
        let mut keys: Vec<Expr> = Vec::new();
        for _ in 0..self.dice.below(4) {
            let key = match self.dice.chance(80) {
                true => self.dice.choose(&plain.leaves),
                false => {
                    let family = self.family();
                    Some(self.expr(&plain, family, 2))
                }
            };
            keys.extend(key.filter(|key| !keys.contains(key) && !matches!(key.node, Node::Literal(_))));
        }
        let shape = self.shape(&mut keys);
        let mut leaves = keys.clone();
        for family in families {
            if self.dice.chance(75) {
                leaves.extend(self.aggregate(&plain, *family, true));
            }
        }
        if shape != Shape::Plain
            && self.dice.chance(40)
            && let Some(key) = self.dice.choose(&keys)
        {
            leaves.push(Expr::form(Family::Integer, &["grouping(", ")"], vec![key.clone()]));
        }
        if leaves.is_empty() || self.dice.chance(20) {
            leaves.push(count_all());
        }
        let inner = Scope { leaves, outer: Vec::new(), subqueries: scope.subqueries };
        select.items = match self.dice.chance(15) {
            true => self.windowed(&Scope { subqueries: false, ..inner.clone() }, families),
            false => self.items(&inner, families, 1),
        };
        if self.dice.chance(20) {
            select.having = Some(self.having(&inner));
        }
        select.distinct = self.dice.chance(6);
        let aggregates =
            select.items.iter().any(|(item, _)| inner.leaves.iter().any(|leaf| is_in(leaf, item)));
        if keys.is_empty() && !aggregates {
            // Without keys and aggregates the SELECT is not grouped, so it can have no HAVING.
            select.having = None;
        }
        select.group = Some(Group { keys, shape });
    }

    fn having(&mut self, scope: &Scope) -> Expr {
        let plain = Scope { subqueries: false, ..scope.clone() };
        let condition = self.condition(&plain, 2);
        if self.nesting <= NESTING_MAX && self.dice.chance(15) {
            let predicate = self.predicate(&plain);
            return conjunction(vec![condition, predicate]);
        }
        condition
    }

    fn shape(&mut self, keys: &mut [Expr]) -> Shape {
        if keys.is_empty() || !self.dice.chance(25) {
            return Shape::Plain;
        }
        match self.dice.below(3) {
            0 => Shape::Word("ROLLUP"),
            1 => Shape::Word("CUBE"),
            _ => {
                let mut sets: Vec<Vec<usize>> = (0..1 + self.dice.below(3))
                    .map(|_| (0..keys.len()).filter(|_| self.dice.chance(50)).collect())
                    .collect();
                // A key must be in some set.
                let mut rest: Vec<usize> = (0..keys.len()).collect();
                rest.retain(|at| !sets.iter().any(|set| set.contains(at)));
                sets[0].extend(rest);
                Shape::Sets(sets)
            }
        }
    }

    /// Draws DISTINCT ON with the ORDER BY that it needs.
    fn distinct_on(&mut self, select: &mut Select, scope: &Scope, families: &[Family]) -> Vec<Order> {
        let plain = Scope { subqueries: false, ..scope.clone() };
        select.items = self.items(&plain, families, 1);
        let columns: Vec<Expr> = plain.leaves.iter().filter(|leaf| is_column(leaf)).cloned().collect();
        let Some(first) = self.dice.choose(&columns) else { return Vec::new() };
        select.on.push(first);
        if self.dice.chance(30)
            && let Some(second) = self.dice.choose(&columns)
        {
            select.on.push(second);
        }
        let mut order: Vec<Order> = Vec::new();
        for expr in select.on.clone() {
            order.push(Order { expr, suffix: self.dice.pick(DIRECTIONS) });
        }
        if let Some(expr) = self.dice.choose(&columns) {
            order.push(Order { expr, suffix: self.dice.pick(DIRECTIONS) });
        }
        order
    }

    /// Draws the part of a recursive query that reads itself, and ends after three rounds.
    pub(super) fn step(&mut self, name: &str, columns: &[Column]) -> Query {
        let alias = self.dice.alias("r");
        let round = Expr::column(Family::Integer, &alias, &columns[0].name);
        let carried = Expr::column(columns[1].family, &alias, &columns[1].name);
        let mut from = From::Table(name.to_string(), alias);
        let mut leaves = vec![round.clone(), carried.clone()];
        if self.dice.chance(50) {
            let (table, right) = FromClause { draw: self }.table();
            let on = FromClause { draw: self }.equality(&[carried], &right);
            if let Some(on) = on {
                let word = self.dice.pick(&["JOIN", "JOIN", "LEFT JOIN"]);
                let (left, right_side) = (Box::new(from), Box::new(table));
                from = From::Join { word, left, right: right_side, on: Some(on), using: Vec::new() };
                leaves.extend(right);
            }
        }
        let scope = Scope { leaves, outer: Vec::new(), subqueries: false };
        let next = Expr::form(Family::Integer, &["", " + 1"], vec![round.clone()]);
        let item = self.expr(&scope, columns[1].family, 2);
        let mut filter = Expr::form(Family::Boolean, &["(", " < 3)"], vec![round]);
        if self.dice.chance(30) {
            filter = conjunction(vec![filter, self.condition(&scope, 1)]);
        }
        let select = Select {
            distinct: false,
            on: Vec::new(),
            items: vec![(next, "c0".to_string()), (item, "c1".to_string())],
            from: Some(from),
            filter: Some(filter),
            group: None,
            having: None,
        };
        Query::of(Body::Select(Box::new(select)))
    }
}

/// Returns `count(*)`.
fn count_all() -> Expr {
    let call = Aggregate {
        function: "count",
        arguments: Vec::new(),
        distinct: false,
        order: Vec::new(),
        within: Vec::new(),
        filter: None,
    };
    Expr { family: Family::Integer, node: Node::Aggregate(Box::new(call)) }
}

/// Returns true if `part` occurs in `whole`.
fn is_in(part: &Expr, whole: &Expr) -> bool {
    let mut found = false;
    super::visit::each_in(&mut whole.clone(), &mut |expr| found |= expr == part);
    found
}
