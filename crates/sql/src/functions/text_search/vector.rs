//! The values of TSVECTOR: sorted lexemes, each with its positions and their weights.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::dictionary::Config;
use super::lexer::Lexer;
use super::value_reader::ValueReader;
use crate::error::{Error, Result};
use crate::sqlstate;

/// The greatest position; greater ones become this.
pub(super) const POSITION_MAX: u16 = (1 << 14) - 1;

/// The number of positions that a lexeme keeps.
const POSITIONS_MAX: usize = 255;

/// The most bytes of a lexeme.
pub(super) const LEXEME_BYTES_MAX: usize = (1 << 11) - 2;

/// The most bytes of a value's lexemes and positions.
const VECTOR_BYTES_MAX: usize = (1 << 20) - 1;

/// The place of a word in a document, and its weight: 0 for D to 3 for A.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) at: u16,
    pub(super) weight: u8,
}

impl Position {
    /// Creates a position with the least weight.
    pub(super) fn new(at: usize) -> Position {
        let at = u16::try_from(at).unwrap_or(POSITION_MAX).min(POSITION_MAX);
        Position { at, weight: 0 }
    }
}

/// A lexeme with its positions; none if the value has no positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lexeme {
    pub(super) text: String,
    pub(super) positions: Vec<Position>,
}

/// A value, with its lexemes in the order of their bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Vector {
    pub(super) lexemes: Vec<Lexeme>,
}

/// Returns the letter of a weight.
pub(super) fn letter(weight: u8) -> char {
    match weight {
        3 => 'A',
        2 => 'B',
        1 => 'C',
        _ => 'D',
    }
}

/// Returns the weight of a letter.
pub(super) fn weight_of(letter: char) -> Option<u8> {
    Some(match letter.to_ascii_uppercase() {
        'A' => 3,
        'B' => 2,
        'C' => 1,
        'D' => 0,
        _ => return None,
    })
}

impl Vector {
    /// Reads a value as PostgreSQL writes it, or with its lexemes in any order.
    pub(super) fn read(text: &str) -> Result<Vector> {
        let mut found: BTreeMap<String, Vec<Position>> = BTreeMap::new();
        let mut reader = ValueReader::of_vector(text);
        while let Some((lexeme, positions)) = reader.lexeme()? {
            found.entry(lexeme).or_default().extend(positions);
        }
        let lexeme = |(text, positions)| Lexeme { text, positions: unique(positions) };
        Vector { lexemes: found.into_iter().map(lexeme).collect() }.checked()
    }

    /// Fails if the value is too long.
    pub(super) fn checked(self) -> Result<Vector> {
        let bytes = |lexeme: &Lexeme| match lexeme.positions.len() {
            0 => lexeme.text.len(),
            count => lexeme.text.len().next_multiple_of(2) + 2 + 2 * count,
        };
        let all: usize = self.lexemes.iter().map(bytes).sum();
        if all <= VECTOR_BYTES_MAX {
            return Ok(self);
        }
        let message = format!("string is too long for tsvector ({all} bytes, max {VECTOR_BYTES_MAX} bytes)");
        Err(Error::invalid(message)
            .hint("Split the document into several rows.")
            .code(sqlstate::PROGRAM_LIMIT_EXCEEDED))
    }

    /// Returns the lexemes of words, without repeated positions.
    pub(super) fn of_words(words: Words) -> Result<Vector> {
        let mut found: BTreeMap<String, Vec<Position>> = BTreeMap::new();
        for Word { lexeme, at } in words.found {
            let positions = found.entry(lexeme).or_default();
            let position = Position::new(at);
            let is_last =
                positions.last().is_some_and(|last| last.at == POSITION_MAX || last.at == position.at);
            if positions.len() < POSITIONS_MAX && !is_last {
                positions.push(position);
            }
        }
        let lexemes = found.into_iter().map(|(text, positions)| Lexeme { text, positions });
        Vector { lexemes: lexemes.collect() }.checked()
    }

    /// Returns the place of a lexeme.
    pub(super) fn find(&self, text: &str) -> Option<usize> {
        self.lexemes.binary_search_by(|lexeme| lexeme.text.as_str().cmp(text)).ok()
    }

    /// Returns the lexemes that are a word or, if `is_prefix`, begin with it.
    pub(super) fn matching(&self, word: &str, is_prefix: bool) -> &[Lexeme] {
        let first = self.lexemes.partition_point(|lexeme| lexeme.text.as_str() < word);
        let rest = self.lexemes.get(first..).unwrap_or_default();
        let is_match = |lexeme: &Lexeme| match is_prefix {
            true => lexeme.text.starts_with(word),
            false => lexeme.text == word,
        };
        let count = rest.partition_point(is_match);
        rest.get(..count).unwrap_or_default()
    }

    /// Returns the greatest position, or 0.
    pub(super) fn last_position(&self) -> u16 {
        self.lexemes
            .iter()
            .flat_map(|lexeme| &lexeme.positions)
            .map(|position| position.at)
            .max()
            .unwrap_or(0)
    }

    /// Returns this value followed by another, whose positions are moved behind those of this one.
    pub(super) fn followed_by(self, other: Vector) -> Result<Vector> {
        let by = self.last_position();
        let mut found: BTreeMap<String, Vec<Position>> =
            self.lexemes.into_iter().map(|lexeme| (lexeme.text, lexeme.positions)).collect();
        for lexeme in other.lexemes {
            let positions = found.entry(lexeme.text).or_default();
            for Position { at, weight } in lexeme.positions {
                let at = at.saturating_add(by).min(POSITION_MAX);
                let is_last = positions.last().is_some_and(|last| last.at == POSITION_MAX);
                if positions.len() >= POSITIONS_MAX || is_last {
                    break;
                }
                positions.push(Position { at, weight });
            }
        }
        let lexemes = found.into_iter().map(|(text, positions)| Lexeme { text, positions });
        Vector { lexemes: lexemes.collect() }.checked()
    }
}

/// Sorts positions. Of equal ones the greatest weight stays.
fn unique(mut positions: Vec<Position>) -> Vec<Position> {
    positions.sort_by(|one, other| one.at.cmp(&other.at).then(other.weight.cmp(&one.weight)));
    positions.dedup_by_key(|position| position.at);
    positions.truncate(POSITIONS_MAX);
    positions
}

/// Appends a word in quotes.
pub(super) fn quote(word: &str, out: &mut String) {
    out.push('\'');
    for c in word.chars() {
        if matches!(c, '\'' | '\\') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('\'');
}

impl std::fmt::Display for Vector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = String::new();
        for lexeme in &self.lexemes {
            if !out.is_empty() {
                out.push(' ');
            }
            quote(&lexeme.text, &mut out);
            for (place, position) in lexeme.positions.iter().enumerate() {
                write!(out, "{}{}", if place == 0 { ':' } else { ',' }, position.at)?;
                if position.weight > 0 {
                    out.push(letter(position.weight));
                }
            }
        }
        f.write_str(&out)
    }
}

/// A word of a document, as the dictionary returns it.
#[derive(Debug, Clone)]
pub(super) struct Word {
    pub(super) lexeme: String,
    /// Its place among the words; the first one has 1.
    pub(super) at: usize,
}

/// The words of one or several texts.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) found: Vec<Word>,
    /// The place of the last word, including stop words.
    pub(super) last: usize,
}

impl Words {
    /// Adds the words of a text. Words that are too long for a lexeme are left out.
    pub(super) fn add(&mut self, config: Config, text: &str) {
        for token in Lexer::new(text) {
            let dictionary = config.dictionary(token.kind);
            let Some(dictionary) = dictionary.filter(|_| token.text.len() <= LEXEME_BYTES_MAX) else {
                continue;
            };
            self.last += 1;
            if let Some(lexeme) = dictionary.lexeme(token.text) {
                self.found.push(Word { lexeme, at: self.last });
            }
        }
    }

    /// Returns the words of a text.
    pub(super) fn of(config: Config, text: &str) -> Words {
        let mut words = Words::default();
        words.add(config, text);
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_canonical() {
        let check =
            |text: &str, expected: &str| assert_eq!(Vector::read(text).unwrap().to_string(), expected);
        check("", "");
        check("b a:3,1A,1B 'c d':99999", "'a':1A,3 'b' 'c d':16383");
        check("'it''s' x\\:y", "'it''s' 'x:y'");
        for wrong in ["a:", "a:x", "a:0", "''", "'a", "a:1AB", "a\\"] {
            assert!(Vector::read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Vector::read(&"a".repeat(2047)).unwrap_err().sqlstate(), "54000");
        let long: String = (0..300_000).map(|n| format!("{n} ")).collect();
        assert_eq!(Vector::read(&long).unwrap_err().sqlstate(), "54000");
    }
}
