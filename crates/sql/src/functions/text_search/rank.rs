//! `ts_rank`: how often and how near the lexemes of a query are in a document. The formulas are PostgreSQL's.

use super::query::{Node, Operand, Query};
use super::vector::{Lexeme, POSITION_MAX, Position, Vector};

/// The weights of D, C, B and A.
pub(super) type Weights = [f32; 4];

/// The weights of calls that name none.
pub(super) const WEIGHTS: Weights = [0.1, 0.2, 0.4, 1.0];

/// How the length of a document changes its rank: the bits of the argument `normalization`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Normalization(pub(super) i64);

impl Normalization {
    pub(super) fn log_length(self) -> bool {
        self.0 & 1 != 0
    }

    pub(super) fn length(self) -> bool {
        self.0 & 2 != 0
    }

    pub(super) fn extents(self) -> bool {
        self.0 & 4 != 0
    }

    pub(super) fn words(self) -> bool {
        self.0 & 8 != 0
    }

    pub(super) fn log_words(self) -> bool {
        self.0 & 16 != 0
    }

    pub(super) fn below_one(self) -> bool {
        self.0 & 32 != 0
    }
}

/// Returns the number of words of a document.
pub(super) fn length(vector: &Vector) -> usize {
    vector.lexemes.iter().map(|lexeme| lexeme.positions.len().max(1)).sum()
}

/// Returns the rank of a document.
pub(super) fn rank(weights: &Weights, vector: &Vector, query: &Query, how: Normalization) -> f32 {
    let Some(node) = query.0.as_ref().filter(|_| !vector.lexemes.is_empty()) else { return 0.0 };
    let operands = distinct(query);
    let is_together = matches!(node, Node::And(_) | Node::Phrase(..)) && operands.len() > 1;
    let mut rank = match is_together {
        true => together(weights, vector, &operands),
        false => alone(weights, vector, &operands),
    };
    if rank < 0.0 {
        rank = 1e-20;
    }
    let (words, length) = (vector.lexemes.len(), length(vector));
    if how.log_length() {
        rank = (f64::from(rank) / (((length + 1) as f64).ln() / 2_f64.ln())) as f32;
    }
    if how.length() && length > 0 {
        rank /= length as f32;
    }
    if how.words() {
        rank /= words as f32;
    }
    if how.log_words() {
        rank = (f64::from(rank) / (((words + 1) as f64).ln() / 2_f64.ln())) as f32;
    }
    if how.below_one() {
        rank /= rank + 1.0;
    }
    rank
}

/// Returns the operands of a query with different texts, in their order.
fn distinct(query: &Query) -> Vec<&Operand> {
    let mut all = query.operands();
    all.reverse();
    all.sort_by(|one, other| one.text.cmp(&other.text));
    all.dedup_by(|one, other| one.text == other.text);
    all
}

fn weight(weights: &Weights, position: Position) -> f32 {
    weights.get(usize::from(position.weight)).copied().unwrap_or_default()
}

/// Adds up the occurrences of each operand.
fn alone(weights: &Weights, vector: &Vector, operands: &[&Operand]) -> f32 {
    let unknown = [Position { at: 0, weight: 0 }];
    let mut rank: f32 = 0.0;
    for operand in operands {
        for lexeme in vector.matching(&operand.text, operand.is_prefix) {
            let positions = if lexeme.positions.is_empty() { unknown.as_slice() } else { &lexeme.positions };
            let (mut sum, mut best, mut best_at): (f32, f32, usize) = (0.0, -1.0, 0);
            for (place, position) in positions.iter().enumerate() {
                let weight = weight(weights, *position);
                sum += weight / ((place + 1) * (place + 1)) as f32;
                if weight > best {
                    (best, best_at) = (weight, place);
                }
            }
            let rest = best / ((best_at + 1) * (best_at + 1)) as f32;
            // The sum of 1/i² has the limit π²/6.
            rank = (f64::from(rank) + f64::from(best + sum - rest) / 1.64493406685) as f32;
        }
    }
    if operands.is_empty() { rank } else { rank / operands.len() as f32 }
}

/// Adds up the distances between the occurrences of different operands.
fn together(weights: &Weights, vector: &Vector, operands: &[&Operand]) -> f32 {
    let unknown = [Position { at: POSITION_MAX, weight: 0 }];
    let places = |lexeme: &'_ Lexeme| -> (Vec<Position>, bool) {
        match lexeme.positions.is_empty() {
            true => (unknown.to_vec(), true),
            false => (lexeme.positions.clone(), false),
        }
    };
    let mut before: Vec<(Vec<Position>, bool)> = Vec::new();
    let mut rank: f32 = -1.0;
    for operand in operands {
        let mut last = None;
        for lexeme in vector.matching(&operand.text, operand.is_prefix) {
            let found = places(lexeme);
            for other in &before {
                for one in &found.0 {
                    for two in &other.0 {
                        let distance = match one.at.abs_diff(two.at) {
                            0 if found.1 || other.1 => POSITION_MAX + 1,
                            0 => continue,
                            distance => distance,
                        };
                        let near = weight(weights, *one) * weight(weights, *two) * nearness(distance);
                        let near = f64::from(near).sqrt() as f32;
                        rank = match rank < 0.0 {
                            true => near,
                            false => (1.0 - (1.0 - f64::from(rank)) * (1.0 - f64::from(near))) as f32,
                        };
                    }
                }
            }
            last = Some(found);
        }
        before.extend(last);
    }
    rank
}

/// Returns a factor that is the smaller the farther two words are from each other.
fn nearness(distance: u16) -> f32 {
    match distance {
        101.. => 1e-30,
        distance => (1.0 / (1.005 + 0.05 * f64::from(f32::from(distance) / 1.5 - 2.0).exp())) as f32,
    }
}
