//! The binary forms of TSVECTOR and TSQUERY in PostgreSQL's protocol.
//!
//! | value | bytes |
//! | --- | --- |
//! | TSVECTOR | the number of lexemes; of each its text, a zero, the number of positions, and these: 2 bits of weight, 14 of place |
//! | TSQUERY | the number of operands and operators; of each a kind and its parts, an operator before its right and left operands |

use super::query::{DISTANCE_MAX, Node, Operand, Query};
use super::query_reader::{DEPTH_MAX, read};
use super::vector::{LEXEME_BYTES_MAX, Lexeme, Position, Vector};

const OPERAND: u8 = 1;
const OPERATOR: u8 = 2;
const NOT: u8 = 1;
const AND: u8 = 2;
const OR: u8 = 3;
const PHRASE: u8 = 4;

/// Returns the binary form of a TSVECTOR that is given as text.
pub fn tsvector_to_binary(text: &str) -> crate::Result<Vec<u8>> {
    let vector = Vector::read(text)?;
    let mut out = length(vector.lexemes.len());
    for lexeme in &vector.lexemes {
        put_text(&lexeme.text, &mut out);
        out.extend(u16::try_from(lexeme.positions.len()).unwrap_or(u16::MAX).to_be_bytes());
        for position in &lexeme.positions {
            out.extend((u16::from(position.weight) << 14 | position.at).to_be_bytes());
        }
    }
    Ok(out)
}

/// Returns the text of the binary form of a TSVECTOR; none if the bytes are no such form.
pub fn tsvector_of_binary(bytes: &[u8]) -> Option<String> {
    let mut bytes = Bytes(bytes);
    let count = bytes.number::<4>()?;
    let mut vector = Vector::default();
    for _ in 0..count {
        let text = bytes.text()?;
        let mut positions = Vec::new();
        for _ in 0..bytes.number::<2>()? {
            let found = u16::try_from(bytes.number::<2>()?).ok()?;
            let position = Position { at: found & ((1 << 14) - 1), weight: (found >> 14) as u8 };
            positions.push(Some(position).filter(|position| position.at > 0)?);
        }
        vector.lexemes.push(Lexeme { text, positions });
    }
    // Lexemes and positions may come in any order.
    let read = Vector::read(&vector.to_string()).ok()?;
    bytes.0.is_empty().then(|| read.to_string())
}

/// Returns the binary form of a TSQUERY that is given as text.
pub fn tsquery_to_binary(text: &str) -> crate::Result<Vec<u8>> {
    let query = read(text, None)?;
    let count = query.0.as_ref().map_or(0, Node::count);
    let mut out = length(count);
    if let Some(node) = &query.0 {
        put(node, &mut out);
    }
    Ok(out)
}

/// Returns the text of the binary form of a TSQUERY; none if the bytes are no such form.
pub fn tsquery_of_binary(bytes: &[u8]) -> Option<String> {
    let mut bytes = Bytes(bytes);
    let count = bytes.number::<4>()?;
    let node = match count {
        0 => None,
        _ => Some(bytes.node(0)?),
    };
    let is_whole = bytes.0.is_empty() && node.as_ref().map_or(0, Node::count) == count;
    is_whole.then(|| Query(node).to_string())
}

fn length(count: usize) -> Vec<u8> {
    u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes().to_vec()
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.extend(text.as_bytes());
    out.push(0);
}

fn put(node: &Node, out: &mut Vec<u8>) {
    match node {
        Node::Operand(operand) => {
            out.extend([OPERAND, operand.weights, u8::from(operand.is_prefix)]);
            put_text(&operand.text, out);
        }
        Node::Stop => {}
        Node::Not(part) => {
            out.extend([OPERATOR, NOT]);
            put(part, out);
        }
        Node::And(parts) | Node::Or(parts) => {
            let operator = if matches!(node, Node::And(_)) { AND } else { OR };
            // A chain is (a & b) & c: its last operator comes first, with its right operand.
            for (place, part) in parts.iter().enumerate().rev() {
                if place > 0 {
                    out.extend([OPERATOR, operator]);
                }
                put(part, out);
            }
        }
        Node::Phrase(first, rest) => {
            for (distance, part) in rest.iter().rev() {
                out.extend([OPERATOR, PHRASE]);
                out.extend(distance.to_be_bytes());
                put(part, out);
            }
            put(first, out);
        }
    }
}

/// The bytes that are still to be read.
struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn number<const WIDTH: usize>(&mut self) -> Option<usize> {
        let (number, rest) = self.0.split_first_chunk::<WIDTH>()?;
        self.0 = rest;
        Some(number.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn text(&mut self) -> Option<String> {
        let end = self.0.iter().take(LEXEME_BYTES_MAX + 1).position(|byte| *byte == 0)?;
        let (text, rest) = self.0.split_at_checked(end)?;
        self.0 = rest.get(1..)?;
        String::from_utf8(text.to_vec()).ok().filter(|text| !text.is_empty())
    }

    /// Reads an operand, or operators with their operands. Operators before a left operand are read in a loop, since
    /// chains may be long.
    fn node(&mut self, depth: usize) -> Option<Node> {
        if depth > DEPTH_MAX {
            return None;
        }
        let mut pending: Vec<(u8, u16, Node)> = Vec::new();
        let mut node = loop {
            if self.number::<1>()? == usize::from(OPERAND) {
                let weights = u8::try_from(self.number::<1>()?).ok().filter(|weights| *weights < 16)?;
                let is_prefix = self.number::<1>()? > 0;
                break Node::Operand(Operand { text: self.text()?, weights, is_prefix, id: 0 });
            }
            let operator = u8::try_from(self.number::<1>()?).ok()?;
            let distance = if operator == PHRASE { u16::try_from(self.number::<2>()?).ok()? } else { 0 };
            if operator == NOT {
                break Node::Not(Box::new(self.node(depth + 1)?));
            }
            let is_known = matches!(operator, AND | OR | PHRASE) && distance <= DISTANCE_MAX;
            pending.push(Some((operator, distance, self.node(depth + 1)?)).filter(|_| is_known)?);
        };
        while let Some((operator, distance, right)) = pending.pop() {
            node = match operator {
                AND => node.and(right),
                OR => node.or(right),
                _ => node.then(distance, right),
            };
        }
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_forms_are_postgresql_s() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let vector = |text: &str, expected: &str| {
            let bytes = tsvector_to_binary(text).unwrap();
            assert_eq!(hex(&bytes), expected);
            assert_eq!(tsvector_of_binary(&bytes).as_deref(), Some(text));
        };
        vector("", "00000000");
        vector("'a':3A 'fat':2,4", "0000000261000001c00366617400000200020004");
        let query = |text: &str, expected: &str| {
            let bytes = tsquery_to_binary(text).unwrap();
            assert_eq!(hex(&bytes), expected);
            assert_eq!(tsquery_of_binary(&bytes).as_deref(), Some(text));
        };
        query("", "00000000");
        query(
            "'a' & !'b':*A | 'c' <3> ( 'd' <-> 'e' ) & 'f'",
            "0000000c02030202010000660002040003020400010100006500010000640001000063000202020101080162000100006100",
        );
        for wrong in [&[][..], &[0, 0, 0, 1], &[0, 0, 0, 1, 1, 0, 0, b'a'], &[0, 0, 0, 2, 1, 0, 0, b'a', 0]] {
            assert_eq!(tsquery_of_binary(wrong), None, "{wrong:?}");
        }
        assert_eq!(tsquery_of_binary(&[0, 0, 4, 0].repeat(1000)), None);
        assert_eq!(tsvector_of_binary(&[0, 0, 0, 1, b'a', 0, 0, 1, 0, 0]), None);
    }
}
