//! The values of TSQUERY: lexemes, joined by operators.

use std::fmt::{self, Write};

use super::vector::{letter, quote};

/// A lexeme that is searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operand {
    pub(super) text: String,
    /// The weights that match, a bit each; 0 for all.
    pub(super) weights: u8,
    /// True if all lexemes that begin with the text match.
    pub(super) is_prefix: bool,
    /// The place among the operands of the query.
    pub(super) id: usize,
}

/// A part of a query. Chains of an operator are one part, so only brackets nest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Operand(Operand),
    /// A stop word; it is removed when the query is complete.
    Stop,
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    /// A part, and those that follow it with their distances.
    Phrase(Box<Node>, Vec<(u16, Node)>),
}

/// The greatest distance in a phrase.
pub(super) const DISTANCE_MAX: u16 = 1 << 14;

/// A query; none if it has no lexemes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query(pub(super) Option<Node>);

impl Node {
    /// Joins two parts with AND.
    pub(super) fn and(self, other: Node) -> Node {
        Node::And(Node::chain(self, other, |node| match node {
            Node::And(parts) => Ok(parts),
            node => Err(node),
        }))
    }

    /// Joins two parts with OR.
    pub(super) fn or(self, other: Node) -> Node {
        Node::Or(Node::chain(self, other, |node| match node {
            Node::Or(parts) => Ok(parts),
            node => Err(node),
        }))
    }

    fn chain(one: Node, other: Node, parts: impl Fn(Node) -> Result<Vec<Node>, Node>) -> Vec<Node> {
        let mut all = parts(one).unwrap_or_else(|node| vec![node]);
        match parts(other) {
            Ok(more) => all.extend(more),
            Err(node) => all.push(node),
        }
        all
    }

    /// Joins two parts: the second one follows the first one at a distance.
    pub(super) fn then(self, distance: u16, other: Node) -> Node {
        let (first, mut rest) = match self {
            Node::Phrase(first, rest) => (first, rest),
            node => (Box::new(node), Vec::new()),
        };
        rest.push((distance, other));
        Node::Phrase(first, rest)
    }

    /// Calls a function for each operand from left to right.
    pub(super) fn each<'n>(&'n self, visit: &mut dyn FnMut(&'n Operand)) {
        match self {
            Node::Operand(operand) => visit(operand),
            Node::Stop => {}
            Node::Not(part) => part.each(visit),
            Node::And(parts) | Node::Or(parts) => parts.iter().for_each(|part| part.each(visit)),
            Node::Phrase(first, rest) => {
                first.each(visit);
                rest.iter().for_each(|(_, part)| part.each(visit));
            }
        }
    }

    /// True if a part is negated.
    pub(super) fn has_negations(&self) -> bool {
        match self {
            Node::Operand(_) | Node::Stop => false,
            Node::Not(_) => true,
            Node::And(parts) | Node::Or(parts) => parts.iter().any(Node::has_negations),
            Node::Phrase(first, rest) => {
                first.has_negations() || rest.iter().any(|(_, part)| part.has_negations())
            }
        }
    }

    fn number(&mut self, next: &mut usize) {
        match self {
            Node::Operand(operand) => {
                operand.id = *next;
                *next += 1;
            }
            Node::Stop => {}
            Node::Not(part) => part.number(next),
            Node::And(parts) | Node::Or(parts) => parts.iter_mut().for_each(|part| part.number(next)),
            Node::Phrase(first, rest) => {
                first.number(next);
                rest.iter_mut().for_each(|(_, part)| part.number(next));
            }
        }
    }

    /// Returns the number of operands and operators.
    pub(super) fn count(&self) -> usize {
        match self {
            Node::Operand(_) | Node::Stop => 1,
            Node::Not(part) => 1 + part.count(),
            Node::And(parts) | Node::Or(parts) => {
                parts.iter().map(Node::count).sum::<usize>() + parts.len().saturating_sub(1)
            }
            Node::Phrase(first, rest) => {
                first.count() + rest.iter().map(|(_, part)| 1 + part.count()).sum::<usize>()
            }
        }
    }

    /// Returns what an index can search: the part without negations.
    pub(super) fn without_negations(self) -> Option<Node> {
        match self {
            Node::Not(_) => None,
            Node::And(parts) => parts.into_iter().filter_map(Node::without_negations).reduce(Node::and),
            Node::Or(parts) => {
                let kept: Option<Vec<Node>> = parts.into_iter().map(Node::without_negations).collect();
                kept?.into_iter().reduce(Node::or)
            }
            Node::Phrase(first, rest) => {
                rest.into_iter().fold(first.without_negations(), |left, (distance, part)| {
                    match (left, part.without_negations()) {
                        (Some(left), Some(part)) => Some(left.then(distance, part)),
                        (left, part) => left.or(part),
                    }
                })
            }
            node => Some(node),
        }
    }

    fn priority(&self) -> u8 {
        match self {
            Node::Operand(_) | Node::Stop => 5,
            Node::Not(_) => 4,
            Node::Phrase(..) => 3,
            Node::And(_) => 2,
            Node::Or(_) => 1,
        }
    }

    /// Writes a part within another one of a priority.
    fn write(&self, within: u8, is_right_of_phrase: bool, out: &mut String) -> fmt::Result {
        let is_phrase = matches!(self, Node::Phrase(..));
        let has_brackets = self.priority() < within || (is_phrase && is_right_of_phrase);
        if has_brackets {
            out.push_str("( ");
        }
        match self {
            Node::Operand(operand) => operand.write(out),
            Node::Stop => {}
            Node::Not(part) => {
                out.push('!');
                part.write(4, false, out)?;
            }
            Node::And(parts) | Node::Or(parts) => {
                let operator = if matches!(self, Node::And(_)) { " & " } else { " | " };
                for (place, part) in parts.iter().enumerate() {
                    if place > 0 {
                        out.push_str(operator);
                    }
                    part.write(self.priority(), false, out)?;
                }
            }
            Node::Phrase(first, rest) => {
                first.write(3, false, out)?;
                for (distance, part) in rest {
                    match distance {
                        1 => out.push_str(" <-> "),
                        distance => write!(out, " <{distance}> ")?,
                    }
                    part.write(3, true, out)?;
                }
            }
        }
        if has_brackets {
            out.push_str(" )");
        }
        Ok(())
    }
}

impl Operand {
    fn write(&self, out: &mut String) {
        quote(&self.text, out);
        if self.is_prefix || self.weights > 0 {
            out.push(':');
        }
        if self.is_prefix {
            out.push('*');
        }
        for weight in (0..4_u8).rev().filter(|weight| self.weights & (1 << weight) != 0) {
            out.push(letter(weight));
        }
    }
}

impl Query {
    /// Returns a query without its stop words: distances of phrases grow by them.
    pub(super) fn of(node: Option<Node>) -> Query {
        Query::whole(node.and_then(|node| Cleaned::of(node).node))
    }

    /// Returns a query of a complete tree.
    pub(super) fn whole(mut node: Option<Node>) -> Query {
        if let Some(node) = &mut node {
            node.number(&mut 0);
        }
        Query(node)
    }

    /// Returns the operands from left to right.
    pub(super) fn operands(&self) -> Vec<&Operand> {
        let mut all = Vec::new();
        if let Some(node) = &self.0 {
            node.each(&mut |operand| all.push(operand));
        }
        all
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        if let Some(node) = &self.0 {
            node.write(0, false, &mut out)?;
        }
        f.write_str(&out)
    }
}

/// A part without stop words, and the number of places by which they move its ends.
struct Cleaned {
    node: Option<Node>,
    left: u32,
    right: u32,
}

impl Cleaned {
    fn of(node: Node) -> Cleaned {
        match node {
            Node::Stop => Cleaned { node: None, left: 0, right: 0 },
            Node::Not(part) => {
                let part = Cleaned::of(*part);
                Cleaned { node: part.node.map(|part| Node::Not(Box::new(part))), ..part }
            }
            Node::And(parts) => Cleaned::joined(parts, Node::and),
            Node::Or(parts) => Cleaned::joined(parts, Node::or),
            Node::Phrase(first, rest) => {
                rest.into_iter().fold(Cleaned::of(*first), |left, (distance, part)| {
                    left.then(distance.into(), Cleaned::of(part))
                })
            }
            node => Cleaned { node: Some(node), left: 0, right: 0 },
        }
    }

    fn joined(parts: Vec<Node>, join: impl Fn(Node, Node) -> Node) -> Cleaned {
        let parts = parts.into_iter().map(Cleaned::of);
        let both = |one: Cleaned, other: Cleaned| match (one.node, other.node) {
            (None, None) => {
                let width = one.left.max(other.left);
                Cleaned { node: None, left: width, right: width }
            }
            (None, node) => Cleaned { node, ..other },
            (node, None) => Cleaned { node, ..one },
            (Some(left), Some(right)) => Cleaned { node: Some(join(left, right)), left: 0, right: 0 },
        };
        parts.reduce(both).unwrap_or(Cleaned { node: None, left: 0, right: 0 })
    }

    fn then(self, distance: u32, other: Cleaned) -> Cleaned {
        let (left, right) = (self.left, other.right);
        match (self.node, other.node) {
            (None, None) => {
                let width = left.saturating_add(distance).saturating_add(other.left);
                Cleaned { node: None, left: width, right: width }
            }
            (None, node) => {
                Cleaned { node, left: left.saturating_add(distance).saturating_add(other.left), right }
            }
            (node, None) => {
                Cleaned { node, left, right: self.right.saturating_add(distance).saturating_add(right) }
            }
            (Some(one), Some(two)) => {
                let distance = distance.saturating_add(self.right).saturating_add(other.left);
                let distance = u16::try_from(distance).map_or(DISTANCE_MAX, |found| found.min(DISTANCE_MAX));
                Cleaned { node: Some(one.then(distance, two)), left, right }
            }
        }
    }
}
