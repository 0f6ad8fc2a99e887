//! Reads numbers by a pattern: `NUM_processor` of PostgreSQL's formatting.c.

use super::number_pattern::{Node, Pattern};
use crate::error::{Error, Result};
use crate::sqlstate;

/// Characters that belong to a number.
const DATA: &str = "0123456789.,+-";

/// Reads a text by a pattern. Returns the number as text, as in `-12.5`.
pub(super) fn read(text: &str, pattern: &Pattern) -> Result<String> {
    for (used, word) in [(pattern.exponent, "EEEE"), (pattern.roman, "RN")] {
        if used {
            return Err(Error::invalid(format!("\"{word}\" is not supported by to_number, only by to_char")));
        }
    }
    let mut reader =
        Reader { pattern, text, at: 0, sign: None, number: String::new(), before: 0, after: 0, point: false };
    reader.run();
    let Reader { sign, number, before, after, .. } = reader;
    let number = number.strip_suffix('.').unwrap_or(&number);
    if before + after == 0 {
        return Err(Error::invalid(format!("to_number found no digits in '{text}'"))
            .code(sqlstate::INVALID_TEXT_REPRESENTATION));
    }
    let most = pattern.before + pattern.shift;
    let whole = number.split('.').next().unwrap_or("").trim_start_matches('0');
    if whole.len() > most {
        return Err(Error::invalid(format!(
            "numeric field overflow: '{text}' has more than the {most} digits of the pattern"
        ))
        .code(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE));
    }
    let sign = if sign == Some('-') { "-" } else { "" };
    let zero = if number.starts_with('.') { "0" } else { "" };
    Ok(format!("{sign}{zero}{number}"))
}

struct Reader<'a> {
    pattern: &'a Pattern,
    text: &'a str,
    at: usize,
    sign: Option<char>,
    /// The digits and the point that were read.
    number: String,
    /// The digits read before and behind the point.
    before: usize,
    after: usize,
    point: bool,
}

impl Reader<'_> {
    fn next(&self) -> Option<char> {
        self.text.get(self.at..)?.chars().next()
    }

    fn skip(&mut self) {
        self.at += self.next().map_or(0, char::len_utf8);
    }

    fn run(&mut self) {
        for node in &self.pattern.nodes {
            let Some(next) = self.next() else { break };
            match node {
                Node::Nine | Node::Zero => self.digit(true),
                Node::Point => self.digit(false),
                Node::Comma | Node::Group if next == ',' && (self.has_digits() || !self.pattern.unfilled) => {
                    self.skip();
                }
                Node::Currency => self.skip_other(1),
                Node::Ordinal { .. } if self.sign != Some('-') && !self.pattern.point => self.skip_other(2),
                Node::Minus if next == '-' => self.take_sign(),
                Node::Plus if next == '+' => self.take_sign(),
                Node::Sign if matches!(next, '-' | '+') => self.take_sign(),
                Node::Minus | Node::Plus | Node::Sign => self.skip_other(1),
                Node::Text(_) => self.skip(),
                _ => {}
            }
        }
    }

    fn has_digits(&self) -> bool {
        self.before + self.after > 0
    }

    fn take_sign(&mut self) {
        self.sign = self.next();
        self.skip();
    }

    /// Skips characters that are no part of a number.
    fn skip_other(&mut self, count: usize) {
        for _ in 0..count {
            match self.next() {
                Some(c) if !DATA.contains(c) => self.skip(),
                _ => break,
            }
        }
    }

    fn is_bracketed(&self) -> bool {
        self.pattern.signs.bracket
    }

    /// Reads a digit, or the point. `is_digit` is false at the point of the pattern.
    fn digit(&mut self, is_digit: bool) {
        if self.next() == Some(' ') {
            self.at += 1;
        }
        if self.sign.is_none() && is_digit && !self.has_digits() {
            match self.next() {
                Some('-' | '+') => self.take_sign(),
                Some('<') if self.is_bracketed() => {
                    self.sign = Some('-');
                    self.at += 1;
                }
                _ => {}
            }
        }
        let mut is_read = false;
        match self.next() {
            Some(digit) if digit.is_ascii_digit() => {
                if self.point && self.after == self.pattern.after {
                    return self.skip();
                }
                self.number.push(digit);
                *(if self.point { &mut self.after } else { &mut self.before }) += 1;
                is_read = true;
            }
            Some('.') if self.pattern.point && !self.point => {
                self.number.push('.');
                self.point = true;
                is_read = true;
            }
            None => return,
            _ => {}
        }
        if self.sign.is_none() && self.has_digits() {
            self.sign_behind(is_read);
        }
        // As in PostgreSQL, a character that doesn't fit a digit of the pattern is skipped.
        self.skip();
    }

    /// Reads a sign behind the last digit.
    fn sign_behind(&mut self, is_read: bool) {
        let signs = self.pattern.signs;
        if signs.anchor.is_some() && is_read {
            if let Some(c @ ('-' | '+')) = self.text.get(self.at + 1..).and_then(|rest| rest.chars().next()) {
                self.sign = Some(c);
                self.at += 1;
            }
        } else if !is_read
            && signs.anchor.is_none()
            && (signs.plus || signs.minus)
            && let Some(c @ ('-' | '+')) = self.next()
        {
            self.sign = Some(c);
        }
    }
}
