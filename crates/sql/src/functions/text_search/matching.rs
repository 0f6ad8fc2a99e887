//! Searches a query: `tsvector @@ tsquery`.

use super::query::{Node, Operand, Query};
use super::vector::Vector;

/// The result of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    No,
    Yes,
    /// The lexemes have no positions, which a phrase needs.
    Maybe,
}

impl Truth {
    fn of(found: bool) -> Truth {
        if found { Truth::Yes } else { Truth::No }
    }
}

/// Searches an operand. If positions are wanted, it adds them in ascending order.
pub(super) type Find<'f> = dyn Fn(&Operand, Option<&mut Vec<u32>>) -> Truth + 'f;

/// Returns true if a vector matches a query. An empty query matches nothing.
pub(super) fn matches(vector: &Vector, query: &Query) -> bool {
    query.0.as_ref().is_some_and(|node| holds(node, &|operand, positions| find(vector, operand, positions)))
}

fn find(vector: &Vector, operand: &Operand, positions: Option<&mut Vec<u32>>) -> Truth {
    let lexemes = vector.matching(&operand.text, operand.is_prefix);
    if lexemes.is_empty() {
        return Truth::No;
    }
    let has_weight = |weight: u8| operand.weights == 0 || operand.weights & (1 << weight) != 0;
    let all = lexemes.iter().flat_map(|lexeme| &lexeme.positions).filter(|found| has_weight(found.weight));
    let is_unknown = lexemes.iter().any(|lexeme| lexeme.positions.is_empty());
    let Some(positions) = positions else {
        return Truth::of(operand.weights == 0 || is_unknown || all.count() > 0);
    };
    if is_unknown {
        return Truth::Maybe;
    }
    positions.extend(all.map(|found| u32::from(found.at)));
    if lexemes.len() > 1 {
        positions.sort_unstable();
        positions.dedup();
    }
    Truth::of(!positions.is_empty())
}

/// Returns true if a query matches, as far as the operands tell.
pub(super) fn holds(node: &Node, find: &Find<'_>) -> bool {
    truth(node, find) != Truth::No
}

fn truth(node: &Node, find: &Find<'_>) -> Truth {
    match node {
        Node::Operand(operand) => find(operand, None),
        Node::Stop => Truth::No,
        Node::Not(part) => match truth(part, find) {
            Truth::No => Truth::Yes,
            Truth::Yes => Truth::No,
            Truth::Maybe => Truth::Maybe,
        },
        Node::And(parts) => {
            let mut all = Truth::Yes;
            for part in parts {
                match truth(part, find) {
                    Truth::No => return Truth::No,
                    Truth::Maybe => all = Truth::Maybe,
                    Truth::Yes => {}
                }
            }
            all
        }
        Node::Or(parts) => {
            let mut any = Truth::No;
            for part in parts {
                match truth(part, find) {
                    Truth::Yes => return Truth::Yes,
                    Truth::Maybe => any = Truth::Maybe,
                    Truth::No => {}
                }
            }
            any
        }
        // Without positions nothing is a phrase.
        Node::Phrase(..) => Truth::of(places(node, find).0 == Truth::Yes),
    }
}

/// The places where a part of a phrase ends.
#[derive(Debug, Default)]
struct Places {
    at: Vec<u32>,
    /// True if these are the places where it doesn't end.
    is_negated: bool,
    /// The number of words before the end.
    width: u32,
}

type Found = (Truth, Places);

/// Returns the places of a part of a phrase, as PostgreSQL defines them for parts with operators.
fn places(node: &Node, find: &Find<'_>) -> Found {
    match node {
        Node::Operand(operand) => {
            let mut at = Vec::new();
            let truth = find(operand, Some(&mut at));
            (truth, Places { at, ..Places::default() })
        }
        Node::Stop => (Truth::No, Places::default()),
        Node::Not(part) => negated(places(part, find)),
        Node::And(parts) => folded(
            parts,
            |left, part| match left.0 {
                Truth::No => left,
                _ => both(left, places(part, find), None),
            },
            find,
        ),
        Node::Or(parts) => folded(parts, |left, part| either(left, places(part, find)), find),
        Node::Phrase(first, rest) => {
            rest.iter().fold(places(first, find), |left, (distance, part)| match left.0 {
                Truth::No => left,
                _ => both(left, places(part, find), Some(u32::from(*distance))),
            })
        }
    }
}

fn folded(parts: &[Node], join: impl Fn(Found, &Node) -> Found, find: &Find<'_>) -> Found {
    let Some((first, rest)) = parts.split_first() else { return (Truth::No, Places::default()) };
    rest.iter().fold(places(first, find), join)
}

fn negated((truth, found): Found) -> Found {
    let nowhere = found.at.is_empty();
    match truth {
        Truth::Maybe => (Truth::Maybe, found),
        // Nowhere becomes everywhere, and the reverse.
        Truth::No => (Truth::Yes, Places { is_negated: true, ..Places::default() }),
        Truth::Yes if nowhere && found.is_negated => (Truth::No, Places { is_negated: false, ..found }),
        Truth::Yes => (Truth::Yes, Places { is_negated: !found.is_negated, ..found }),
    }
}

/// Returns the places where both parts end or, with a distance, where the second part ends behind the first one.
fn both(left: Found, right: Found, distance: Option<u32>) -> Found {
    if right.0 == Truth::No {
        return (Truth::No, Places::default());
    }
    if left.0 == Truth::Maybe || right.0 == Truth::Maybe {
        return (Truth::Maybe, Places::default());
    }
    let (left, right) = (left.1, right.1);
    let (left_by, right_by, width) = match distance {
        Some(distance) => {
            let behind = distance.saturating_add(right.width);
            (behind, 0, behind.saturating_add(left.width))
        }
        None => aligned(&left, &right),
    };
    let merged = |kept| merged((&left, left_by), (&right, right_by), kept);
    let (at, is_negated) = match (left.is_negated, right.is_negated) {
        (true, true) => (merged([true; 3]), true),
        (true, false) => (merged([false, false, true]), false),
        (false, true) => (merged([true, false, false]), false),
        (false, false) => (merged([false, true, false]), false),
    };
    let truth = Truth::of(is_negated || !at.is_empty());
    (truth, Places { at, is_negated, width })
}

/// Returns the places where one of two parts ends.
fn either(left: Found, right: Found) -> Found {
    let (one, other) = (left.0, right.0);
    if one == Truth::No && other == Truth::No {
        return (Truth::No, Places::default());
    }
    if one == Truth::Maybe || other == Truth::Maybe {
        return (Truth::Maybe, Places::default());
    }
    let known = |truth, found: Places| if truth == Truth::No { Places::default() } else { found };
    let (left, right) = (known(one, left.1), known(other, right.1));
    let (left_by, right_by, width) = aligned(&left, &right);
    let merged = |kept| merged((&left, left_by), (&right, right_by), kept);
    let (at, is_negated) = match (left.is_negated, right.is_negated) {
        (true, true) => (merged([false, true, false]), true),
        (true, false) => (merged([true, false, false]), true),
        (false, true) => (merged([false, false, true]), true),
        (false, false) => (merged([true; 3]), false),
    };
    (Truth::of(is_negated || !at.is_empty()), Places { at, is_negated, width })
}

/// Returns the offsets that align the beginnings of two parts, and the width of both.
fn aligned(left: &Places, right: &Places) -> (u32, u32, u32) {
    let width = left.width.max(right.width);
    (width - left.width, width - right.width, width)
}

/// Merges places. `kept` tells if those of the left part alone, of both, and of the right part alone stay.
fn merged((left, left_by): (&Places, u32), (right, right_by): (&Places, u32), kept: [bool; 3]) -> Vec<u32> {
    let [left_only, in_both, right_only] = kept;
    let mut lefts = left.at.iter().map(|at| at.saturating_add(left_by)).peekable();
    let mut rights = right.at.iter().map(|at| at.saturating_add(right_by)).peekable();
    let mut out = Vec::new();
    loop {
        let (at, is_kept) = match (lefts.peek().copied(), rights.peek().copied()) {
            (None, None) => return out,
            (Some(one), Some(other)) if one == other => {
                lefts.next();
                rights.next();
                (one, in_both)
            }
            (Some(one), other) if other.is_none_or(|other| one < other) => {
                lefts.next();
                (one, left_only)
            }
            (_, Some(other)) => {
                rights.next();
                (other, right_only)
            }
            (Some(one), None) => {
                lefts.next();
                (one, left_only)
            }
        };
        if is_kept {
            out.push(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::text_search::query_reader::read;

    #[test]
    fn phrases_have_postgresql_s_results() {
        let check = |vector: &str, query: &str, expected: bool| {
            let found = matches(&Vector::read(vector).unwrap(), &read(query, None).unwrap());
            assert_eq!(found, expected, "{vector} @@ {query}");
        };
        let vector = "a:1 b:2 c:3A a:4";
        for query in
            ["a <-> b", "a <2> c", "(a | b) <-> c", "b <-> !b", "!(b <-> a)", "a <-> (b <-> c)", "c:A", "a:*"]
        {
            check(vector, query, true);
        }
        for query in ["b <-> a", "a <-> !b & c <-> b", "c:B", "d", "!a", "(a & b) <-> c & d", ""] {
            check(vector, query, false);
        }
        check("a b", "a <-> b", false);
        check("a", "a:A", true);
        check("", "!a", true);
        let far = vec!["a"; 1000].join(" <16384> ");
        check(vector, &far, false);
    }
}
