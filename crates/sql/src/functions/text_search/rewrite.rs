//! `ts_rewrite`: replaces a part of a query by another one.
//!
//! The parts of AND and OR are sorted first, so that a target is found in any order, as in PostgreSQL.

use std::cmp::Ordering;

use super::query::{Node, Operand, Query};
use crate::error::{Error, Result};
use crate::sqlstate;

/// The most operands of each query.
const OPERANDS_MAX: usize = 1000;

/// The operators in the order in which they are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Operator {
    Not,
    And,
    Or,
    Phrase,
}

/// A query as a tree. The last part of an operation is the first one that is written.
#[derive(Debug, Clone)]
enum Tree {
    Operand { key: i32, operand: Operand },
    Operation { operator: Operator, distance: u16, parts: Vec<Tree>, is_new: bool },
}

/// Replaces each occurrence of `target` in a query by `substitute`, or removes it if that is empty.
pub(super) fn rewrite(query: Query, target: Query, substitute: Query) -> Result<Query> {
    for part in [&query, &target, &substitute] {
        let found = part.operands().len();
        if found > OPERANDS_MAX {
            return Err(Error::invalid(format!(
                "ts_rewrite takes queries of at most {OPERANDS_MAX} operands, not of {found}"
            ))
            .hint("Rewrite parts of the query, and join them with &&.")
            .code(sqlstate::PROGRAM_LIMIT_EXCEEDED));
        }
    }
    let (node, target) = match (query.0, target.0) {
        (Some(node), Some(target)) => (node, target),
        (node, _) => return Ok(Query(node)),
    };
    let target = Tree::of(target).flat().sorted();
    let substitute = substitute.0.map(Tree::of);
    let replaced = Tree::of(node).flat().sorted().replaced(&target, substitute.as_ref());
    Ok(Query::whole(replaced.map(Tree::into_node)))
}

impl Tree {
    fn of(node: Node) -> Tree {
        let chain = |operator, parts: Vec<Node>| {
            let joined = parts
                .into_iter()
                .map(Tree::of)
                .reduce(|left, right| Tree::operation(operator, 0, vec![right, left]));
            joined.unwrap_or(Tree::operation(operator, 0, Vec::new()))
        };
        match node {
            Node::Operand(operand) => Tree::Operand { key: key(&operand.text), operand },
            Node::Stop => Tree::operation(Operator::Or, 0, Vec::new()),
            Node::Not(part) => Tree::operation(Operator::Not, 0, vec![Tree::of(*part)]),
            Node::And(parts) => chain(Operator::And, parts),
            Node::Or(parts) => chain(Operator::Or, parts),
            Node::Phrase(first, rest) => rest.into_iter().fold(Tree::of(*first), |left, (distance, part)| {
                Tree::operation(Operator::Phrase, distance, vec![Tree::of(part), left])
            }),
        }
    }

    fn operation(operator: Operator, distance: u16, parts: Vec<Tree>) -> Tree {
        Tree::Operation { operator, distance, parts, is_new: false }
    }

    /// Merges AND within AND, and OR within OR.
    fn flat(self) -> Tree {
        let Tree::Operation { operator, distance, parts, is_new } = self else { return self };
        let merge = |part: Tree| match part.flat() {
            Tree::Operation { operator: inner, parts, .. }
                if inner == operator && matches!(operator, Operator::And | Operator::Or) =>
            {
                parts
            }
            part => vec![part],
        };
        let parts = parts.into_iter().flat_map(merge).collect();
        Tree::Operation { operator, distance, parts, is_new }
    }

    /// Sorts the parts of AND and OR.
    fn sorted(self) -> Tree {
        let Tree::Operation { operator, distance, parts, is_new } = self else { return self };
        let mut parts: Vec<Tree> = parts.into_iter().map(Tree::sorted).collect();
        if operator != Operator::Phrase {
            parts.sort_by(Tree::compare);
        }
        Tree::Operation { operator, distance, parts, is_new }
    }

    fn compare(&self, other: &Tree) -> Ordering {
        match (self, other) {
            (Tree::Operand { .. }, Tree::Operation { .. }) => Ordering::Greater,
            (Tree::Operation { .. }, Tree::Operand { .. }) => Ordering::Less,
            (Tree::Operand { key: one, operand: left }, Tree::Operand { key: two, operand: right }) => {
                two.cmp(one).then_with(|| left.text.cmp(&right.text))
            }
            (
                Tree::Operation { operator: one, distance: near, parts: left, .. },
                Tree::Operation { operator: two, distance: far, parts: right, .. },
            ) => {
                let parts = || {
                    let each = left.iter().zip(right).map(|(one, two)| one.compare(two));
                    each.fold(Ordering::Equal, Ordering::then)
                };
                two.cmp(one).then(right.len().cmp(&left.len())).then_with(parts).then(far.cmp(near))
            }
        }
    }

    /// Replaces a target in the tree; returns none if nothing stays.
    fn replaced(self, target: &Tree, substitute: Option<&Tree>) -> Option<Tree> {
        let found = self.replaced_here(target, substitute)?;
        let Tree::Operation { operator, distance, parts, is_new: false } = found else { return Some(found) };
        let parts = parts.into_iter().filter_map(|part| part.replaced(target, substitute));
        let mut parts: Vec<Tree> = parts.collect();
        match parts.len() {
            0 => None,
            1 if operator != Operator::Not => parts.pop(),
            _ => Some(Tree::operation(operator, distance, parts)),
        }
    }

    fn replaced_here(self, target: &Tree, substitute: Option<&Tree>) -> Option<Tree> {
        if self.is_new() {
            return Some(self);
        }
        if self.compare(target) == Ordering::Equal {
            return substitute.map(Tree::marked_new);
        }
        match (self, target) {
            (
                Tree::Operation { operator, distance, parts, is_new },
                Tree::Operation { operator: wanted, parts: wanted_parts, .. },
            ) if operator == *wanted && parts.len() > wanted_parts.len() => {
                let Some(mut rest) = without(&parts, wanted_parts) else {
                    return Some(Tree::Operation { operator, distance, parts, is_new });
                };
                rest.extend(substitute.map(Tree::marked_new));
                Some(Tree::operation(operator, distance, rest).sorted())
            }
            (tree, _) => Some(tree),
        }
    }

    /// True for a substitute, in which nothing is replaced.
    fn is_new(&self) -> bool {
        match self {
            Tree::Operation { is_new, .. } => *is_new,
            Tree::Operand { operand, .. } => operand.id == usize::MAX,
        }
    }

    fn marked_new(&self) -> Tree {
        match self.clone() {
            Tree::Operation { operator, distance, parts, .. } => {
                Tree::Operation { operator, distance, parts, is_new: true }
            }
            Tree::Operand { key, operand } => {
                Tree::Operand { key, operand: Operand { id: usize::MAX, ..operand } }
            }
        }
    }

    fn into_node(self) -> Node {
        let (operator, distance, parts) = match self {
            Tree::Operand { operand, .. } => return Node::Operand(operand),
            Tree::Operation { operator, distance, parts, .. } => (operator, distance, parts),
        };
        let mut parts: Vec<Node> = parts.into_iter().map(Tree::into_node).collect();
        // An operation of more than two parts is written as PostgreSQL splits it into operations of two.
        if let Some(rest) = parts.get_mut(2..) {
            rest.reverse();
        }
        let join = |right: Node, left: Node| match operator {
            Operator::And => left.and(right),
            Operator::Or => left.or(right),
            _ => left.then(distance, right),
        };
        let joined = parts.into_iter().reduce(join).unwrap_or(Node::Stop);
        if operator == Operator::Not { Node::Not(Box::new(joined)) } else { joined }
    }
}

/// Returns sorted parts without others; none if one of these is missing.
fn without(parts: &[Tree], removed: &[Tree]) -> Option<Vec<Tree>> {
    let mut removed = removed.iter().peekable();
    let mut rest = Vec::new();
    for part in parts {
        let order = removed.peek().map(|next| part.compare(next));
        match order {
            Some(Ordering::Equal) => drop(removed.next()),
            Some(Ordering::Greater) => return None,
            _ => rest.push(part.clone()),
        }
    }
    removed.peek().is_none().then_some(rest)
}

/// Returns the key by which PostgreSQL sorts operands: a checksum of the text.
fn key(text: &str) -> i32 {
    let table = |index: u32| {
        (0..8).fold(index, |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 })
    };
    let step = |sum: u32, byte: u8| table(((sum >> 24) ^ u32::from(byte)) & 0xff) ^ (sum << 8);
    (text.bytes().fold(u32::MAX, step) ^ u32::MAX).cast_signed()
}
