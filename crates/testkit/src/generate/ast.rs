//! Syntax trees of queries, which can be drawn at random, printed and reduced.

use std::fmt;

use super::family::Family;

/// An expression with the family of its type.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// The family of its type.
    pub family: Family,
    /// The node.
    pub node: Node,
}

/// A node of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A column of a relation in FROM; the merged column of USING has no alias.
    Column(String, String),
    /// A value.
    Literal(String),
    /// Pieces of text with operands in between: one more piece than operands.
    Form(Vec<String>, Vec<Expr>),
    /// `left piece (query)`, without `left` for EXISTS and scalar subqueries.
    Subquery(Option<Box<Expr>>, &'static str, Box<Query>),
    /// An aggregate over a group.
    Aggregate(Box<Aggregate>),
    /// A function over a window.
    Window(Box<Window>),
}

/// An aggregate call.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The function.
    pub function: &'static str,
    /// Its arguments; none for `count(*)`.
    pub arguments: Vec<Expr>,
    /// True for DISTINCT.
    pub distinct: bool,
    /// ORDER BY among the arguments.
    pub order: Vec<Order>,
    /// ORDER BY after WITHIN GROUP.
    pub within: Vec<Order>,
    /// The condition of FILTER (WHERE …).
    pub filter: Option<Expr>,
}

/// A call with OVER.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// The function.
    pub call: Aggregate,
    /// PARTITION BY.
    pub partition: Vec<Expr>,
    /// ORDER BY.
    pub order: Vec<Order>,
    /// The frame as text, or empty.
    pub frame: String,
}

/// One item of an ORDER BY.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// The sort key.
    pub expr: Expr,
    /// The direction and the position of NULL, as text.
    pub suffix: &'static str,
}

/// A query.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Common table expressions.
    pub with: Vec<Common>,
    /// The source of the rows.
    pub body: Body,
    /// ORDER BY.
    pub order: Vec<Order>,
    /// LIMIT.
    pub limit: Option<u32>,
    /// OFFSET.
    pub offset: Option<u32>,
}

/// A common table expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Common {
    /// Its name.
    pub name: String,
    /// The names of its columns.
    pub columns: Vec<String>,
    /// True if it may read itself.
    pub recursive: bool,
    /// Its query.
    pub query: Query,
}

/// The source of a query's rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// SELECT.
    Select(Box<Select>),
    /// A set operation of two queries.
    Set(&'static str, Box<Query>, Box<Query>),
    /// Rows of values.
    Values(Vec<Vec<Expr>>),
}

/// A SELECT.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// True for DISTINCT.
    pub distinct: bool,
    /// The expressions of DISTINCT ON.
    pub on: Vec<Expr>,
    /// The selected expressions, each with its name.
    pub items: Vec<(Expr, String)>,
    /// FROM.
    pub from: Option<From>,
    /// WHERE.
    pub filter: Option<Expr>,
    /// GROUP BY.
    pub group: Option<Group>,
    /// HAVING.
    pub having: Option<Expr>,
}

/// GROUP BY.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The keys.
    pub keys: Vec<Expr>,
    /// The shape of the groups.
    pub shape: Shape,
}

/// The groups that the keys of a GROUP BY form.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// One group per combination of all keys.
    Plain,
    /// ROLLUP or CUBE.
    Word(&'static str),
    /// GROUPING SETS of some keys each.
    Sets(Vec<Vec<usize>>),
}

/// A relation in FROM.
#[derive(Clone, Debug, PartialEq)]
pub enum From {
    /// A table or common table expression, with its alias.
    Table(String, String),
    /// A query in FROM.
    Derived {
        /// True if it may refer to relations before it.
        lateral: bool,
        /// The query.
        query: Box<Query>,
        /// Its alias.
        alias: String,
        /// The names of its columns.
        columns: Vec<String>,
    },
    /// `UNNEST(list) AS alias(column)`.
    Unnest(Expr, String, String),
    /// Two relations.
    Join {
        /// The join operator.
        word: &'static str,
        /// The left relation.
        left: Box<From>,
        /// The right relation.
        right: Box<From>,
        /// ON.
        on: Option<Expr>,
        /// USING.
        using: Vec<String>,
    },
}

impl Expr {
    /// Returns a column.
    pub fn column(family: Family, alias: &str, name: &str) -> Expr {
        Expr { family, node: Node::Column(alias.to_string(), name.to_string()) }
    }

    /// Returns a literal, given as SQL.
    pub fn literal(family: Family, text: impl Into<String>) -> Expr {
        Expr { family, node: Node::Literal(text.into()) }
    }

    /// Returns operands between pieces of text.
    pub fn form(family: Family, pieces: &[&str], operands: Vec<Expr>) -> Expr {
        let pieces = pieces.iter().map(|piece| piece.to_string()).collect();
        Expr { family, node: Node::Form(pieces, operands) }
    }
}

impl Query {
    /// Returns a query that consists of `body` only.
    pub fn of(body: Body) -> Query {
        Query { with: Vec::new(), body, order: Vec::new(), limit: None, offset: None }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Node::Column(alias, name) if alias.is_empty() => write!(f, "{name}"),
            Node::Column(alias, name) => write!(f, "{alias}.{name}"),
            Node::Literal(text) => write!(f, "{text}"),
            Node::Form(pieces, operands) => {
                for (at, piece) in pieces.iter().enumerate() {
                    write!(f, "{piece}")?;
                    if let Some(operand) = operands.get(at) {
                        write!(f, "{operand}")?;
                    }
                }
                Ok(())
            }
            Node::Subquery(None, word, query) => write!(f, "{word}({query})"),
            Node::Subquery(Some(left), word, query) => write!(f, "({left} {word} ({query}))"),
            Node::Aggregate(call) => write!(f, "{call}"),
            Node::Window(window) => write!(f, "{window}"),
        }
    }
}

/// Joins items with commas.
fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.expr, self.suffix)
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let distinct = if self.distinct { "DISTINCT " } else { "" };
        let arguments = match self.arguments.is_empty() && self.function == "count" {
            true => "*".to_string(),
            false => list(&self.arguments),
        };
        write!(f, "{}({distinct}{arguments}", self.function)?;
        if !self.order.is_empty() {
            write!(f, " ORDER BY {}", list(&self.order))?;
        }
        write!(f, ")")?;
        if !self.within.is_empty() {
            write!(f, " WITHIN GROUP (ORDER BY {})", list(&self.within))?;
        }
        if let Some(filter) = &self.filter {
            write!(f, " FILTER (WHERE {filter})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut clauses = Vec::new();
        if !self.partition.is_empty() {
            clauses.push(format!("PARTITION BY {}", list(&self.partition)));
        }
        if !self.order.is_empty() {
            clauses.push(format!("ORDER BY {}", list(&self.order)));
        }
        if !self.frame.is_empty() {
            clauses.push(self.frame.clone());
        }
        write!(f, "{} OVER ({})", self.call, clauses.join(" "))
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.with.is_empty() {
            let recursive = self.with.iter().any(|common| common.recursive);
            write!(f, "WITH {}{} ", if recursive { "RECURSIVE " } else { "" }, list(&self.with))?;
        }
        write!(f, "{}", self.body)?;
        if !self.order.is_empty() {
            write!(f, " ORDER BY {}", list(&self.order))?;
        }
        if let Some(limit) = self.limit {
            write!(f, " LIMIT {limit}")?;
        }
        if let Some(offset) = self.offset {
            write!(f, " OFFSET {offset}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}) AS ({})", self.name, self.columns.join(", "), self.query)
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Select(select) => write!(f, "{select}"),
            Body::Set(word, left, right) => write!(f, "({left}) {word} ({right})"),
            Body::Values(rows) => {
                let rows: Vec<String> = rows.iter().map(|row| format!("({})", list(row))).collect();
                write!(f, "VALUES {}", rows.join(", "))
            }
        }
    }
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SELECT ")?;
        match self.on.is_empty() {
            true if self.distinct => write!(f, "DISTINCT ")?,
            true => {}
            false => write!(f, "DISTINCT ON ({}) ", list(&self.on))?,
        }
        let items: Vec<String> = self.items.iter().map(|(item, name)| format!("{item} AS {name}")).collect();
        write!(f, "{}", items.join(", "))?;
        if let Some(from) = &self.from {
            write!(f, " FROM {from}")?;
        }
        if let Some(filter) = &self.filter {
            write!(f, " WHERE {filter}")?;
        }
        if let Some(group) = &self.group {
            write!(f, "{group}")?;
        }
        if let Some(having) = &self.having {
            write!(f, " HAVING {having}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shape {
            Shape::Plain if self.keys.is_empty() => Ok(()),
            Shape::Plain => write!(f, " GROUP BY {}", list(&self.keys)),
            Shape::Word(word) => write!(f, " GROUP BY {word} ({})", list(&self.keys)),
            Shape::Sets(sets) => {
                let key = |at: &usize| self.keys.get(*at).map(Expr::to_string);
                let set = |set: &Vec<usize>| set.iter().filter_map(key).collect::<Vec<_>>().join(", ");
                let sets: Vec<String> = sets.iter().map(|one| format!("({})", set(one))).collect();
                write!(f, " GROUP BY GROUPING SETS ({})", sets.join(", "))
            }
        }
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            From::Table(name, alias) => write!(f, "{name} AS {alias}"),
            From::Derived { lateral, query, alias, columns } => {
                let word = if *lateral { "LATERAL " } else { "" };
                write!(f, "{word}({query}) AS {alias}({})", columns.join(", "))
            }
            From::Unnest(list, alias, column) => write!(f, "UNNEST({list}) AS {alias}({column})"),
            From::Join { word: ",", left, right, .. } => write!(f, "{left}, {right}"),
            From::Join { word, left, right, on, using } => {
                // A join on the right side needs parentheses.
                match right.as_ref() {
                    From::Join { .. } => write!(f, "{left} {word} ({right})")?,
                    _ => write!(f, "{left} {word} {right}")?,
                }
                match on {
                    Some(on) => write!(f, " ON {on}")?,
                    None if !using.is_empty() => write!(f, " USING ({})", using.join(", "))?,
                    None => {}
                }
                Ok(())
            }
        }
    }
}
