//! Draws subqueries in expressions.

use super::ast::{Body, Expr, Group, Node, Order, Query, Select, Shape};
use super::draw::{Draw, Scope, is_column};
use super::family::Family;
use super::relations::{FromClause, conjunction};

impl Draw<'_> {
    /// Draws a condition with a subquery.
    pub(super) fn predicate(&mut self, scope: &Scope) -> Expr {
        self.nesting += 1;
        let predicate = match self.dice.below(10) {
            0..3 => self.exists(scope),
            3..8 => self.compared_with_list(scope),
            _ => self.compared_with_each(scope),
        };
        self.nesting -= 1;
        predicate
    }

    fn exists(&mut self, scope: &Scope) -> Expr {
        let word = self.dice.pick(&["EXISTS ", "EXISTS ", "NOT EXISTS "]);
        let (mut select, _) = self.inner(scope);
        select.items.push((Expr::literal(Family::Integer, "1"), "c0".to_string()));
        let query = Box::new(Query::of(Body::Select(Box::new(select))));
        Expr { family: Family::Boolean, node: Node::Subquery(None, word, query) }
    }

    fn compared_with_list(&mut self, scope: &Scope) -> Expr {
        let word = self.dice.pick(&["IN", "IN", "NOT IN"]);
        self.compared(scope, word)
    }

    fn compared_with_each(&mut self, scope: &Scope) -> Expr {
        let word =
            self.dice.pick(&["= ANY", "> ANY", "<= ANY", "<> ANY", "> ALL", "<= ALL", "<> ALL", "= ALL"]);
        self.compared(scope, word)
    }

    fn compared(&mut self, scope: &Scope, word: &'static str) -> Expr {
        let family = self.ordered_family(scope);
        let plain = Scope { outer: Vec::new(), subqueries: false, ..scope.clone() };
        let left = self.expr(&plain, family, 0);
        let query = if self.dice.chance(40) {
            self.query(Some(&[family]), &[])
        } else {
            let (mut select, leaves) = self.inner(scope);
            let item = self.inner_item(leaves, family);
            select.items.push((item, "c0".to_string()));
            Query::of(Body::Select(Box::new(select)))
        };
        Expr { family: Family::Boolean, node: Node::Subquery(Some(Box::new(left)), word, Box::new(query)) }
    }

    fn inner_item(&mut self, leaves: Vec<Expr>, family: Family) -> Expr {
        let depth = if self.dice.chance(70) { 0 } else { 1 };
        self.expr(&Scope { leaves, outer: Vec::new(), subqueries: false }, family, depth)
    }

    /// Draws a SELECT without items over a table, often with a condition on the enclosing query.
    fn inner(&mut self, scope: &Scope) -> (Select, Vec<Expr>) {
        let (from, inner) = FromClause { draw: self }.table();
        let columns: Vec<Expr> = scope.leaves.iter().filter(|leaf| is_column(leaf)).cloned().collect();
        let mut parts = Vec::new();
        if self.dice.chance(65) {
            parts.extend(FromClause { draw: self }.equality(&inner, &columns));
            if self.dice.chance(20) {
                let both = Scope { leaves: inner.clone(), outer: columns, subqueries: false };
                parts.push(self.condition(&both, 1));
            }
        }
        if self.dice.chance(30) {
            let alone = Scope { leaves: inner.clone(), outer: Vec::new(), subqueries: false };
            parts.push(self.condition(&alone, 2));
        }
        let select = Select {
            distinct: false,
            on: Vec::new(),
            items: Vec::new(),
            from: Some(from),
            filter: (!parts.is_empty()).then(|| conjunction(parts)),
            group: None,
            having: None,
        };
        (select, inner)
    }

    /// Draws a subquery that returns one value: an aggregate, or the first row.
    pub(super) fn scalar_subquery(&mut self, scope: &Scope, family: Family) -> Expr {
        self.nesting += 1;
        let (mut select, leaves) = self.inner(scope);
        let item = self.inner_item(leaves, family);
        let inner = Scope { leaves: vec![item.clone()], outer: Vec::new(), subqueries: false };
        let aggregate = self.aggregate(&inner, family, true);
        self.nesting -= 1;
        let mut query;
        match aggregate {
            Some(aggregate) if self.dice.chance(85) => {
                select.items.push((aggregate, "c0".to_string()));
                select.group = Some(Group { keys: Vec::new(), shape: Shape::Plain });
                query = Query::of(Body::Select(Box::new(select)));
            }
            _ => {
                select.items.push((item, "c0".to_string()));
                select.filter = None;
                query = Query::of(Body::Select(Box::new(select)));
                query.order.push(Order { expr: Expr::literal(Family::Integer, "1"), suffix: "" });
                query.limit = Some(1);
            }
        }
        Expr { family, node: Node::Subquery(None, "", Box::new(query)) }
    }
}
