//! `ts_rank_cd`: the rank by cover density. A cover is a shortest part of a document that matches the query.
//!
//! C. Clarke, G. Cormack, E. Tudhope: Relevance Ranking for One to Three Term Queries (1999), as PostgreSQL computes it.

use std::collections::VecDeque;

use super::matching::{Truth, holds};
use super::query::{Node, Query};
use super::rank::{Normalization, Weights, length};
use super::vector::{Position, Vector};

/// An occurrence of one or several operands.
struct Occurrence {
    position: Position,
    /// The place of the lexeme.
    lexeme: usize,
    operands: Vec<usize>,
}

/// A cover: the places of its first and last occurrences.
struct Cover {
    first: usize,
    last: usize,
}

/// Returns the rank of a document.
pub(super) fn rank(weights: &Weights, vector: &Vector, query: &Query, how: Normalization) -> f32 {
    let Some(node) = &query.0 else { return 0.0 };
    let found = occurrences(vector, query);
    let mut covers = Covers { node, found: &found, operands: query.operands().len(), next: 0 };
    let (mut rank, mut sum, mut count, mut before) = (0.0_f64, 0.0_f64, 0_u32, 0.0_f64);
    while let Some(Cover { first, last }) = covers.next() {
        let within = found.get(first..=last).unwrap_or_default();
        let weight = |position: Position| weights.get(usize::from(position.weight)).copied().unwrap_or(1.0);
        let inverse: f64 = within.iter().map(|found| 1.0 / f64::from(weight(found.position))).sum();
        let ends = within.first().zip(within.last());
        let Some((start, end)) = ends.map(|(start, end)| (start.position.at, end.position.at)) else { break };
        // Positions beyond the greatest one are unknown: then half of the words are others.
        let others = i64::from(end) - i64::from(start) - (last - first) as i64;
        let others = if others < 0 { ((last - first) / 2) as i64 } else { others };
        rank += within.len() as f64 / inverse / (1 + others) as f64;
        let middle = (f64::from(end) + f64::from(start)) / 2.0;
        if count > 0 && middle > before {
            sum += 1.0 / (middle - before);
        }
        before = middle;
        count += 1;
    }
    normalized(rank, vector, how, f64::from(count), sum) as f32
}

fn normalized(mut rank: f64, vector: &Vector, how: Normalization, covers: f64, sum: f64) -> f64 {
    let (words, length) = (vector.lexemes.len(), length(vector) as f64);
    if words == 0 {
        return rank;
    }
    if how.log_length() {
        rank /= (length + 1.0).ln();
    }
    if how.length() {
        rank /= length;
    }
    if how.extents() && covers > 0.0 && sum > 0.0 {
        rank /= covers / sum;
    }
    if how.words() {
        rank /= words as f64;
    }
    if how.log_words() {
        rank /= ((words + 1) as f64).ln() / 2_f64.ln();
    }
    if how.below_one() {
        rank /= rank + 1.0;
    }
    rank
}

/// Returns the occurrences of operands in the order of their positions.
fn occurrences(vector: &Vector, query: &Query) -> Vec<Occurrence> {
    let mut all: Vec<Occurrence> = Vec::new();
    for operand in query.operands() {
        let found = vector.matching(&operand.text, operand.is_prefix);
        let first = found.first().and_then(|lexeme| vector.find(&lexeme.text)).unwrap_or_default();
        for (place, lexeme) in found.iter().enumerate() {
            let has_weight = |weight: u8| operand.weights == 0 || operand.weights & (1 << weight) != 0;
            let positions = lexeme.positions.iter().filter(|position| has_weight(position.weight));
            all.extend(positions.map(|position| Occurrence {
                position: *position,
                lexeme: first + place,
                operands: vec![operand.id],
            }));
        }
    }
    all.sort_by_key(|found| (found.position.at, found.position.weight, found.lexeme));
    all.dedup_by(|next, kept| {
        let is_same = next.position == kept.position && next.lexeme == kept.lexeme;
        if is_same {
            kept.operands.append(&mut next.operands);
        }
        is_same
    });
    all
}

struct Covers<'c> {
    node: &'c Node,
    found: &'c [Occurrence],
    /// The number of operands.
    operands: usize,
    /// The first occurrence that the next cover can have.
    next: usize,
}

impl Covers<'_> {
    /// Returns the first occurrence in an order up to which the query matches.
    fn reach(&self, order: impl Iterator<Item = usize>, is_backward: bool) -> Option<usize> {
        let mut seen: Vec<VecDeque<u32>> = vec![VecDeque::new(); self.operands];
        for at in order {
            let found = self.found.get(at)?;
            let position = u32::from(found.position.at);
            for operand in &found.operands {
                let Some(positions) = seen.get_mut(*operand) else { continue };
                if is_backward && positions.front() != Some(&position) {
                    positions.push_front(position);
                } else if !is_backward && positions.back() != Some(&position) {
                    positions.push_back(position);
                }
            }
            let is_match = holds(self.node, &|operand, wanted| {
                let positions = seen.get(operand.id).filter(|positions| !positions.is_empty());
                if let (Some(wanted), Some(positions)) = (wanted, positions) {
                    wanted.extend(positions);
                }
                if positions.is_some() { Truth::Yes } else { Truth::No }
            });
            if is_match {
                return Some(at);
            }
        }
        None
    }

    fn next(&mut self) -> Option<Cover> {
        while self.next < self.found.len() {
            let last = self.reach(self.next..self.found.len(), false)?;
            let first = self.reach((self.next..=last).rev(), true);
            match first {
                Some(first) => {
                    self.next = first + 1;
                    return Some(Cover { first, last });
                }
                None => self.next += 1,
            }
        }
        None
    }
}
