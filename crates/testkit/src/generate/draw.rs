//! Draws queries at random. One random generator makes every choice.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::ast::{Body, Common, Expr, Node, Order, Query};
use super::family::{self, Family};

/// A column that can be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The family of its type.
    pub family: Family,
}

/// A readable table or common table expression.
#[derive(Clone, Debug)]
pub struct Readable {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
}

/// The building blocks of an expression.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Columns; in a grouped SELECT, also its keys and aggregates.
    pub leaves: Vec<Expr>,
    /// Columns of the enclosing query.
    pub outer: Vec<Expr>,
    /// True if scalar subqueries may occur.
    pub subqueries: bool,
}

/// Makes every choice of a draw, and names what it draws.
#[derive(Debug)]
pub(super) struct Dice {
    rng: SmallRng,
    aliases: usize,
}

/// The state of a draw.
#[derive(Debug)]
pub struct Draw<'a> {
    pub(super) dice: Dice,
    /// The tables.
    pub(super) tables: &'a [Readable],
    /// Common table expressions that are readable at this point.
    pub(super) commons: Vec<Readable>,
    /// The number of enclosing queries.
    pub(super) nesting: usize,
}

/// The maximum nesting of queries.
pub(super) const NESTING_MAX: usize = 2;

/// Directions of an ORDER BY item.
pub(super) const DIRECTIONS: &[&str] =
    &["", "", " DESC", " ASC NULLS FIRST", " DESC NULLS LAST", " NULLS LAST", " DESC NULLS FIRST"];

impl Dice {
    /// Returns true in `percent` of 100 cases.
    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    /// Returns a number in `0..end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end.max(1))
    }

    /// Returns one of `items`, which must not be empty.
    pub(super) fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    /// Returns one of `items`, or `None` if there are none.
    pub(super) fn choose<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        if items.is_empty() { None } else { Some(self.pick(items)) }
    }

    /// Returns a name that occurs nowhere else in the query.
    pub(super) fn alias(&mut self, letter: &str) -> String {
        self.aliases += 1;
        format!("{letter}{}", self.aliases)
    }
}

impl<'a> Draw<'a> {
    /// Draws from `tables`; the seed determines all choices.
    pub fn new(seed: u64, tables: &'a [Readable]) -> Draw<'a> {
        let dice = Dice { rng: SmallRng::seed_from_u64(seed), aliases: 0 };
        Draw { dice, tables, commons: Vec::new(), nesting: 0 }
    }

    /// Draws a whole query.
    pub fn statement(&mut self) -> Query {
        self.query(None, &[])
    }

    /// Draws a query that returns columns of the `wanted` families (of any, if `None`) and may use columns of
    /// `outer`.
    pub(super) fn query(&mut self, wanted: Option<&[Family]>, outer: &[Expr]) -> Query {
        let known = self.commons.len();
        self.nesting += 1;
        let mut with = Vec::new();
        if self.nesting <= 2 && self.dice.chance(if self.nesting == 1 { 15 } else { 4 }) {
            for _ in 0..1 + self.dice.below(2) {
                let common = if self.dice.chance(25) { self.recursion() } else { self.common() };
                with.push(common);
            }
        }
        let families: Vec<Family> = match wanted {
            Some(wanted) => wanted.to_vec(),
            None => (0..1 + self.dice.below(4)).map(|_| self.family()).collect(),
        };
        let mut query = match self.dice.below(100) {
            0..15 if self.nesting <= NESTING_MAX => Query::of(self.set_operation(&families)),
            15..18 => Query::of(Body::Values(self.values(&families))),
            _ => self.select(&families, outer),
        };
        query.with = with;
        self.limit(&mut query, &families);
        self.nesting -= 1;
        self.commons.truncate(known);
        query
    }

    /// Draws a family; more versatile families are more frequent.
    pub(super) fn family(&mut self) -> Family {
        if self.dice.chance(60) {
            let at = self.dice.below(self.tables.len());
            let families: Vec<Family> = self.tables[at].columns.iter().map(|column| column.family).collect();
            return self.dice.pick(&families);
        }
        match self.dice.below(10) {
            0..3 => Family::Integer,
            3 => Family::Text,
            4 => Family::Float,
            5 => Family::Decimal,
            _ => self.dice.pick(family::ALL),
        }
    }

    fn set_operation(&mut self, families: &[Family]) -> Body {
        const WORDS: &[&str] = &[
            "UNION ALL",
            "UNION ALL",
            "UNION",
            "UNION",
            "UNION ALL",
            "INTERSECT",
            "INTERSECT ALL",
            "EXCEPT",
            "EXCEPT ALL",
        ];
        let word = self.dice.pick(WORDS);
        let left = self.query(Some(families), &[]);
        let right = self.query(Some(families), &[]);
        Body::Set(word, Box::new(left), Box::new(right))
    }

    fn values(&mut self, families: &[Family]) -> Vec<Vec<Expr>> {
        let scope = Scope::default();
        let rows = 1 + self.dice.below(4);
        (0..rows).map(|_| families.iter().map(|family| self.leaf(&scope, *family)).collect()).collect()
    }

    /// Draws ORDER BY and LIMIT, by the number of a column or by its name.
    fn limit(&mut self, query: &mut Query, families: &[Family]) {
        let columns = families.len();
        let ordered = !query.order.is_empty();
        if !ordered && self.dice.chance(15) {
            for _ in 0..1 + self.dice.below(columns) {
                let number = Expr::literal(Family::Integer, (1 + self.dice.below(columns)).to_string());
                query.order.push(Order { expr: number, suffix: self.dice.pick(DIRECTIONS) });
            }
        }
        let percent = if query.order.is_empty() { 4 } else { 70 };
        if self.dice.chance(percent) {
            query.limit = (!self.dice.chance(10)).then(|| self.dice.below(9) as u32);
            query.offset = self.dice.chance(20).then(|| self.dice.below(4) as u32);
        }
    }

    fn common(&mut self) -> Common {
        let families: Vec<Family> = (0..1 + self.dice.below(3)).map(|_| self.family()).collect();
        let query = self.query(Some(&families), &[]);
        let name = self.dice.alias("w");
        let columns = columns(&families);
        let names = columns.iter().map(|column| column.name.clone()).collect();
        self.commons.push(Readable { name: name.clone(), columns });
        Common { name, columns: names, recursive: false, query }
    }

    /// Draws a recursive common table expression, which ends since it counts its rounds.
    fn recursion(&mut self) -> Common {
        let carried = if self.dice.chance(50) { Family::Integer } else { Family::Text };
        let families = [Family::Integer, carried];
        let name = self.dice.alias("w");
        let columns = columns(&families);
        let mut start = self.select(&families, &[]);
        start.order.clear();
        start.limit = None;
        start.offset = None;
        if let Body::Select(select) = &mut start.body
            && select.on.is_empty()
            && let Some((first, _)) = select.items.first_mut()
        {
            *first = Expr::literal(Family::Integer, "1");
        }
        let step = self.step(&name, &columns);
        let word = self.dice.pick(&["UNION ALL", "UNION ALL", "UNION"]);
        let names = columns.iter().map(|column| column.name.clone()).collect();
        self.commons.push(Readable { name: name.clone(), columns });
        let query = Query::of(Body::Set(word, Box::new(start), Box::new(step)));
        Common { name, columns: names, recursive: true, query }
    }
}

/// Returns columns c0, c1, … of some families.
pub(super) fn columns(families: &[Family]) -> Vec<Column> {
    let column = |(at, family): (usize, &Family)| Column { name: format!("c{at}"), family: *family };
    families.iter().enumerate().map(column).collect()
}

/// Returns true if an expression is just a column.
pub(super) fn is_column(expr: &Expr) -> bool {
    matches!(expr.node, Node::Column(..))
}
