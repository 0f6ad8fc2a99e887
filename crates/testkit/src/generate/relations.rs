//! Draws the relations in FROM.

use super::ast::{Body, Expr, From, Node, Query, Select};
use super::draw::{Column, Draw, NESTING_MAX, Readable, Scope, columns};
use super::family::Family;

/// A relation in FROM, with its columns.
pub(super) type Drawn = (From, Vec<Expr>);

/// Kinds of joins with a condition.
const JOINS: &[&str] = &[
    "JOIN",
    "JOIN",
    "JOIN",
    "LEFT JOIN",
    "LEFT JOIN",
    "RIGHT JOIN",
    "FULL JOIN",
    "LEFT SEMI JOIN",
    "LEFT ANTI JOIN",
];

/// Draws the relations of one FROM clause.
pub(super) struct FromClause<'d, 'a> {
    pub(super) draw: &'d mut Draw<'a>,
}

impl FromClause<'_, '_> {
    /// Draws the input of a SELECT: one relation, or a join.
    pub(super) fn from(&mut self, outer: &[Expr]) -> Drawn {
        let joins = match self.draw.dice.below(100) {
            0..50 => 0,
            50..85 => 1,
            _ => 2,
        };
        let joins = if self.draw.nesting > 1 { joins.min(1) } else { joins };
        let mut drawn = self.source();
        for at in 0..joins {
            drawn = self.join(drawn, at == 0 && joins == 1, at + 1 == joins, outer);
        }
        drawn
    }

    /// Draws one relation.
    pub(super) fn source(&mut self) -> Drawn {
        if !self.draw.commons.is_empty() && self.draw.dice.chance(60) {
            let common = self.pick_common();
            return self.read(&common);
        }
        if self.draw.nesting <= NESTING_MAX && self.draw.dice.chance(15) {
            return self.derived();
        }
        let table = self.draw.dice.pick(self.draw.tables);
        self.read(&table)
    }

    /// Draws a table alone.
    pub(super) fn table(&mut self) -> Drawn {
        let table = self.draw.dice.pick(self.draw.tables);
        self.read(&table)
    }

    fn pick_common(&mut self) -> Readable {
        let at = self.draw.dice.below(self.draw.commons.len());
        self.draw.commons[at].clone()
    }

    /// Returns `readable` under an alias of its own.
    pub(super) fn read(&mut self, readable: &Readable) -> Drawn {
        let alias = self.draw.dice.alias("a");
        let leaves = leaves(&alias, &readable.columns);
        (From::Table(readable.name.clone(), alias), leaves)
    }

    fn derived(&mut self) -> Drawn {
        let families: Vec<Family> = (0..1 + self.draw.dice.below(3)).map(|_| self.draw.family()).collect();
        let query = self.draw.query(Some(&families), &[]);
        self.named(query, &families, false)
    }

    fn named(&mut self, query: Query, families: &[Family], lateral: bool) -> Drawn {
        let alias = self.draw.dice.alias("d");
        let columns = columns(families);
        let leaves = leaves(&alias, &columns);
        let columns = columns.into_iter().map(|column| column.name).collect();
        (From::Derived { lateral, query: Box::new(query), alias, columns }, leaves)
    }

    /// Joins one more relation to `left`; `alone` and `last` are true for the only and the last join. A comma
    /// binds looser than JOIN, so only the last join can be one.
    fn join(&mut self, left: Drawn, alone: bool, last: bool, outer: &[Expr]) -> Drawn {
        let crosses: &[&str] = if last { &["CROSS JOIN", ","] } else { &["CROSS JOIN"] };
        let cross = self.draw.dice.pick(crosses);
        let lists: Vec<Expr> = left
            .1
            .iter()
            .filter(|leaf| matches!(leaf.family, Family::Integers | Family::Texts))
            .cloned()
            .collect();
        if let Some(list) = self.draw.dice.choose(&lists)
            && self.draw.dice.chance(30)
        {
            return self.unnested(left, list, cross);
        }
        if self.draw.dice.chance(4) {
            return self.lateral(left, cross);
        }
        let right = self.source();
        if self.draw.dice.chance(10) {
            return glued(cross, left, right, None, Vec::new());
        }
        if alone
            && self.draw.dice.chance(12)
            && let Some(joined) = self.using(&left, &right)
        {
            return joined;
        }
        let word = self.draw.dice.pick(JOINS);
        let on = self.on(&left.1, &right.1, outer);
        let (from, mut leaves) = glued(word, (left.0, left.1.clone()), right, Some(on), Vec::new());
        if word.contains("SEMI") || word.contains("ANTI") {
            leaves = left.1;
        }
        (from, leaves)
    }

    fn unnested(&mut self, left: Drawn, list: Expr, cross: &'static str) -> Drawn {
        let alias = self.draw.dice.alias("u");
        let family = if list.family == Family::Integers { Family::Integer } else { Family::Text };
        let leaf = Expr::column(family, &alias, "w");
        let right = (From::Unnest(list, alias, "w".to_string()), vec![leaf]);
        glued(cross, left, right, None, Vec::new())
    }

    /// Returns `left, LATERAL (SELECT … WHERE inner = left)`.
    fn lateral(&mut self, left: Drawn, cross: &'static str) -> Drawn {
        let family = self.draw.family();
        let (from, inner) = self.table();
        let scope = Scope { leaves: inner.clone(), outer: Vec::new(), subqueries: false };
        let item = self.draw.expr(&scope, family, 1);
        let filter = self.equality(&inner, &left.1);
        let select = Select {
            distinct: false,
            on: Vec::new(),
            items: vec![(item, "c0".to_string())],
            from: Some(from),
            filter,
            group: None,
            having: None,
        };
        let right = self.named(Query::of(Body::Select(Box::new(select))), &[family], true);
        glued(cross, left, right, None, Vec::new())
    }

    /// Joins by the columns that both tables have under one name.
    fn using(&mut self, left: &Drawn, right: &Drawn) -> Option<Drawn> {
        let (From::Table(_, first), From::Table(_, second)) = (&left.0, &right.0) else { return None };
        let shared = |leaf: &&Expr| {
            let Node::Column(_, name) = &leaf.node else { return false };
            right.1.contains(&Expr::column(leaf.family, second, name))
        };
        let common: Vec<Expr> = left.1.iter().filter(shared).cloned().collect();
        let picked = self.draw.dice.choose(&common)?;
        let name = picked.to_string().split('.').nth(1)?.to_string();
        let word = self.draw.dice.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let merged = Expr::column(picked.family, "", &name);
        let sided = |leaf: &Expr| {
            [first, second].iter().any(|alias| *leaf == Expr::column(picked.family, alias, &name))
        };
        let (from, mut leaves) = glued(word, left.clone(), right.clone(), None, vec![name.clone()]);
        leaves.retain(|leaf| !sided(leaf));
        leaves.extend([merged.clone(), merged]);
        Some((from, leaves))
    }

    /// Draws the condition of a join.
    fn on(&mut self, left: &[Expr], right: &[Expr], outer: &[Expr]) -> Expr {
        let both: Vec<Expr> = left.iter().chain(right).cloned().collect();
        let subqueries = self.draw.nesting <= NESTING_MAX && self.draw.dice.chance(20);
        let scope = Scope { leaves: both, outer: outer.to_vec(), subqueries };
        let mut parts = Vec::new();
        if !self.draw.dice.chance(12) {
            parts.extend(self.equality(left, right));
            if self.draw.dice.chance(25) {
                parts.extend(self.equality(left, right));
            }
        }
        if parts.is_empty() || self.draw.dice.chance(30) {
            parts.push(self.draw.condition(&scope, 2));
        }
        conjunction(parts)
    }

    /// Draws an equality between `left` and `right`.
    pub(super) fn equality(&mut self, left: &[Expr], right: &[Expr]) -> Option<Expr> {
        let pairs: Vec<(&Expr, &Expr)> = left
            .iter()
            .flat_map(|one| {
                right.iter().filter(|other| other.family == one.family).map(move |other| (one, other))
            })
            .collect();
        // Keys of joins have the fewest values, so that they match.
        let keys: Vec<(&Expr, &Expr)> =
            pairs.iter().filter(|(one, other)| is_named_k(one) && is_named_k(other)).copied().collect();
        let (one, other) = match self.draw.dice.chance(45) {
            true => self.draw.dice.choose(&keys).or(self.draw.dice.choose(&pairs))?,
            false => self.draw.dice.choose(&pairs)?,
        };
        let word = if self.draw.dice.chance(8) { " IS NOT DISTINCT FROM " } else { " = " };
        Some(Expr::form(Family::Boolean, &["(", word, ")"], vec![one.clone(), other.clone()]))
    }
}

fn is_named_k(expr: &Expr) -> bool {
    matches!(&expr.node, Node::Column(_, name) if name == "k")
}

/// Returns the conjunction of all parts.
pub(super) fn conjunction(parts: Vec<Expr>) -> Expr {
    let mut parts = parts.into_iter();
    let Some(first) = parts.next() else { return Expr::literal(Family::Boolean, "true") };
    parts.fold(first, |all, part| Expr::form(Family::Boolean, &["(", " AND ", ")"], vec![all, part]))
}

fn leaves(alias: &str, columns: &[Column]) -> Vec<Expr> {
    columns.iter().map(|column| Expr::column(column.family, alias, &column.name)).collect()
}

fn glued(word: &'static str, left: Drawn, right: Drawn, on: Option<Expr>, using: Vec<String>) -> Drawn {
    let mut leaves = left.1;
    leaves.extend(right.1);
    (From::Join { word, left: Box::new(left.0), right: Box::new(right.0), on, using }, leaves)
}
