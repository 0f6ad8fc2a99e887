//! Reads the lexemes in the texts of TSVECTOR and TSQUERY.

use super::characters::is_space;
use super::vector::{LEXEME_BYTES_MAX, POSITION_MAX, Position, weight_of};
use crate::error::{Error, Result};
use crate::sqlstate;

/// The reader.
#[derive(Debug)]
pub(super) struct ValueReader<'t> {
    text: &'t str,
    pub(super) at: usize,
    /// True for a TSQUERY, whose operators end a lexeme.
    is_query: bool,
    /// True if quotes and backslashes are parts of words.
    is_web: bool,
}

/// The most characters of a text that a message shows.
const SHOWN_MAX: usize = 60;

impl<'t> ValueReader<'t> {
    /// Creates a reader of a TSVECTOR.
    pub(super) fn of_vector(text: &'t str) -> ValueReader<'t> {
        ValueReader { text, at: 0, is_query: false, is_web: false }
    }

    /// Creates a reader of a TSQUERY.
    pub(super) fn of_query(text: &'t str) -> ValueReader<'t> {
        ValueReader { text, at: 0, is_query: true, is_web: false }
    }

    /// Creates a reader of the words of a web search.
    pub(super) fn of_web(text: &'t str) -> ValueReader<'t> {
        ValueReader { text, at: 0, is_query: true, is_web: true }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.text.get(self.at..)?.chars().next()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    /// Reads a character if it is this one.
    pub(super) fn take(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        if found {
            self.at += expected.len_utf8();
        }
        found
    }

    pub(super) fn skip_spaces(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.next();
        }
    }

    /// Returns the rest of the text.
    pub(super) fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Returns the error of a text that can't be read.
    pub(super) fn wrong(&self, what: &str) -> Error {
        let mut shown: String = self.text.chars().take(SHOWN_MAX).collect();
        if shown.len() < self.text.len() {
            shown.push('…');
        }
        let (type_name, hint) = match self.is_query {
            true => (
                "tsquery",
                "Write words between the operators & | ! <-> and brackets, as in 'fat & (rat | cat)'.",
            ),
            false => ("tsvector", "Write lexemes with their positions, as in 'fat:2,4A cat:3'."),
        };
        Error::invalid(format!("{what} in {type_name}: \"{shown}\"")).hint(hint).code(sqlstate::SYNTAX_ERROR)
    }

    fn syntax(&self) -> Error {
        self.wrong("syntax error")
    }

    fn is_operator(&self, c: char) -> bool {
        self.is_query && matches!(c, '!' | '&' | '|' | '(' | ')' | '<')
    }

    /// Reads a lexeme with its positions; none at the end of the text.
    pub(super) fn lexeme(&mut self) -> Result<Option<(String, Vec<Position>)>> {
        let Some(word) = self.word()? else { return Ok(None) };
        if word.len() > LEXEME_BYTES_MAX {
            return Err(too_long(word.len(), "word is too long"));
        }
        let positions = if self.take(':') { self.positions()? } else { Vec::new() };
        Ok(Some((word, positions)))
    }

    /// Reads a word in quotes or without; none at the end of the text.
    pub(super) fn word(&mut self) -> Result<Option<String>> {
        self.skip_spaces();
        match self.peek() {
            None => return Ok(None),
            Some('\'') if !self.is_web => {
                self.next();
                return self.quoted().map(Some);
            }
            Some(c) if self.is_operator(c) => return Err(self.syntax()),
            Some(_) => {}
        }
        let mut word = String::new();
        let mut is_first = true;
        while let Some(c) = self.peek() {
            let ends = is_space(c) || self.is_operator(c) || (c == ':' && !is_first);
            if ends || (self.is_web && c == '"') {
                break;
            }
            self.next();
            match c {
                '\\' if !self.is_web => word.push(self.next().ok_or_else(|| self.syntax())?),
                c => word.push(c),
            }
            is_first = false;
        }
        Ok(Some(word))
    }

    /// Reads the rest of a word in quotes.
    fn quoted(&mut self) -> Result<String> {
        let mut word = String::new();
        loop {
            match self.next() {
                Some('\'') if self.take('\'') => word.push('\''),
                Some('\'') if word.is_empty() => return Err(self.syntax()),
                Some('\'') => return Ok(word),
                Some('\\') => word.push(self.next().ok_or_else(|| self.syntax())?),
                Some(c) => word.push(c),
                None => return Err(self.syntax()),
            }
        }
    }

    /// Reads positions with their weights: `2,4A`.
    fn positions(&mut self) -> Result<Vec<Position>> {
        let mut found = Vec::new();
        loop {
            let digits = self.digits();
            if digits.is_empty() {
                return Err(self.syntax());
            }
            let at = digits.parse::<i64>().map_or(i64::from(POSITION_MAX), |at| at.min(POSITION_MAX.into()));
            if at == 0 {
                return Err(self.wrong("wrong position info"));
            }
            let mut position = Position::new(usize::try_from(at).unwrap_or(usize::MAX));
            let mut has_weight = false;
            loop {
                match self.peek() {
                    Some(',') => break,
                    None => {
                        found.push(position);
                        return Ok(found);
                    }
                    Some(c) if is_space(c) => {
                        found.push(position);
                        return Ok(found);
                    }
                    Some(c) if c.is_ascii_digit() => {}
                    Some(c) => {
                        let weight = if c == '*' { Some(3) } else { weight_of(c) };
                        position.weight = weight.filter(|_| !has_weight).ok_or_else(|| self.syntax())?;
                        has_weight = position.weight > 0;
                    }
                }
                self.next();
            }
            self.next();
            found.push(position);
        }
    }

    /// Reads digits.
    pub(super) fn digits(&mut self) -> &'t str {
        let rest = self.rest();
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        self.at += digits;
        rest.get(..digits).unwrap_or_default()
    }
}

/// Returns the error of a word that is too long.
pub(super) fn too_long(bytes: usize, what: &str) -> Error {
    Error::invalid(format!("{what} ({bytes} bytes, max {LEXEME_BYTES_MAX} bytes)"))
        .hint("Shorten it.")
        .code(sqlstate::PROGRAM_LIMIT_EXCEEDED)
}
