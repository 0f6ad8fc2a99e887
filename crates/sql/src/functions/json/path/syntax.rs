//! The tree of a path of SQL/JSON.

use regex::Regex;

use crate::functions::json::value::Value;

/// A path: `lax $.a[*] ? (@ > 1)`.
#[derive(Debug)]
pub(super) struct Path {
    /// True if a missing part is an error.
    pub(super) strict: bool,
    pub(super) root: Node,
}

/// An expression whose value is a sequence of items.
#[derive(Debug)]
pub(super) enum Node {
    Root,
    /// `@`, the item that a filter looks at.
    Current,
    /// The subscript of the last element.
    Last,
    Variable(String),
    Literal(Value),
    Access(Box<Node>, Accessor),
    Sign(Sign, Box<Node>),
    Arithmetic(Operator, Box<Node>, Box<Node>),
    Predicate(Box<Predicate>),
}

/// A part of an item.
#[derive(Debug)]
pub(super) enum Accessor {
    Member(String),
    AnyMember,
    AnyElement,
    /// `[0, 2 to last]`.
    Elements(Vec<(Node, Option<Node>)>),
    /// `.**{first to last}`; no last level means all.
    Descendants(u32, Option<u32>),
    Filter(Box<Predicate>),
    Method(Method),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Method {
    Type,
    Size,
    Double,
    Ceiling,
    Floor,
    Abs,
    KeyValue,
    DateTime(Option<String>),
}

impl Method {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Method::Type => "type",
            Method::Size => "size",
            Method::Double => "double",
            Method::Ceiling => "ceiling",
            Method::Floor => "floor",
            Method::Abs => "abs",
            Method::KeyValue => "keyvalue",
            Method::DateTime(_) => "datetime",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Plus,
    Minus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Operator {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Operator::Add => "+",
            Operator::Subtract => "-",
            Operator::Multiply => "*",
            Operator::Divide => "/",
            Operator::Remainder => "%",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// An expression that is true, false or unknown.
#[derive(Debug)]
pub(super) enum Predicate {
    Compare(Comparison, Node, Node),
    And(Box<Predicate>, Box<Predicate>),
    Or(Box<Predicate>, Box<Predicate>),
    Not(Box<Predicate>),
    IsUnknown(Box<Predicate>),
    Exists(Node),
    StartsWith(Node, Node),
    Matches(Node, Regex),
}
