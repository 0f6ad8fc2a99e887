//! Reads JSON text: checks its grammar and finds the places of its parts.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::sqlstate;

/// The most arrays and objects within each other. Values are read and written recursively.
pub(super) const DEPTH_MAX: usize = 256;

/// The most digits that numbers with exponents of one text may become.
const EXPANDED_MAX: usize = 16 << 20;

/// The most characters of a wrong text that a message shows.
const SHOWN_MAX: usize = 60;

/// A cursor over a JSON text.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// The digits that numbers with exponents became so far.
    expanded: usize,
}

/// Fails unless a text is one JSON value.
pub(crate) fn check(text: &str) -> Result<()> {
    whole(text).map(|_| ())
}

/// Returns the value of a text, without the blanks around it.
pub(super) fn whole(text: &str) -> Result<&str> {
    let mut scanner = Scanner::new(text);
    let value = scanner.value()?;
    scanner.end()?;
    Ok(value)
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Scanner<'a> {
        Scanner { text, at: 0, depth: 0, expanded: 0 }
    }

    /// Returns the next byte that is no blank, without reading it.
    pub(super) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    /// Reads a byte if it is the next one.
    pub(super) fn takes(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Counts the digits of a number that was written with an exponent.
    pub(super) fn expand(&mut self, digits: usize) -> Result<()> {
        self.expanded += digits;
        match self.expanded > EXPANDED_MAX {
            true => {
                Err(Error::invalid("numbers in JSON have too many digits")
                    .code(sqlstate::PROGRAM_LIMIT_EXCEEDED))
            }
            false => Ok(()),
        }
    }

    /// Fails unless the text ends here.
    pub(super) fn end(&mut self) -> Result<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("the end of the input")),
        }
    }

    /// Returns the error for something else than expected.
    pub(super) fn expected(&self, expected: &str) -> Error {
        let found = match self.text.get(self.at..).filter(|rest| !rest.is_empty()) {
            None => "the end of the input".to_string(),
            Some(rest) => {
                let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
                let mut word: String = rest.chars().take_while(is_word).take(SHOWN_MAX).collect();
                if word.is_empty() {
                    word.extend(rest.chars().next());
                }
                format!("\"{word}\"")
            }
        };
        self.wrong(&format!("expected {expected}, found {found}"))
    }

    fn wrong(&self, detail: &str) -> Error {
        wrong(self.text, detail)
    }

    /// Reads a value and returns its text.
    pub(super) fn value(&mut self) -> Result<&'a str> {
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'{') => self.object(&mut |scanner, _| scanner.value().map(|_| ()))?,
            Some(b'[') => self.array(&mut |scanner| scanner.value().map(|_| ()))?,
            Some(b'"') => {
                self.string()?;
            }
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => self.word()?,
        }
        Ok(&self.text[start..self.at])
    }

    /// Reads an object. `each` reads the value of a member, whose name it gets as written.
    pub(super) fn object(
        &mut self,
        each: &mut dyn FnMut(&mut Scanner<'a>, &'a str) -> Result<()>,
    ) -> Result<()> {
        self.enter(b'{', "an object")?;
        if !self.takes(b'}') {
            loop {
                if self.peek() != Some(b'"') {
                    return Err(self.expected("a string or \"}\""));
                }
                let name = self.string()?;
                if !self.takes(b':') {
                    return Err(self.expected("\":\""));
                }
                each(self, name)?;
                if self.takes(b',') {
                    continue;
                }
                if self.takes(b'}') {
                    break;
                }
                return Err(self.expected("\",\" or \"}\""));
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads an array. `each` reads an element.
    pub(super) fn array(&mut self, each: &mut dyn FnMut(&mut Scanner<'a>) -> Result<()>) -> Result<()> {
        self.enter(b'[', "an array")?;
        if !self.takes(b']') {
            loop {
                each(self)?;
                if self.takes(b',') {
                    continue;
                }
                if self.takes(b']') {
                    break;
                }
                return Err(self.expected("\",\" or \"]\""));
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn enter(&mut self, open: u8, expected: &str) -> Result<()> {
        if !self.takes(open) {
            return Err(self.expected(expected));
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let message = format!("JSON with more than {DEPTH_MAX} arrays and objects within each other");
            return Err(Error::invalid(message).code(sqlstate::STATEMENT_TOO_COMPLEX));
        }
        Ok(())
    }

    /// Reads a string and returns it as written, without its quotes.
    pub(super) fn string(&mut self) -> Result<&'a str> {
        let bytes = self.text.as_bytes();
        self.at += 1;
        let start = self.at;
        loop {
            match bytes.get(self.at) {
                None => return Err(self.expected("\"\\\"\" at the end of a string")),
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(0..=0x1f) => {
                    return Err(self.wrong("a control character in a string must be escaped"));
                }
                Some(_) => self.at += 1,
            }
        }
        let found = &self.text[start..self.at];
        self.at += 1;
        Ok(found)
    }

    fn escape(&mut self) -> Result<()> {
        let bytes = self.text.as_bytes();
        self.at += 2;
        match bytes.get(self.at - 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => {
                let digits = bytes.get(self.at..self.at + 4);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(self.wrong("\"\\u\" must be followed by four hexadecimal digits"));
                }
                self.at += 4;
                Ok(())
            }
            _ => Err(self.wrong("an escape sequence is invalid")),
        }
    }

    fn number(&mut self) -> Result<()> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let digits = |mut at: usize| {
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            at
        };
        let mut at = start + usize::from(bytes[start] == b'-');
        let whole = at;
        at = digits(at);
        let mut is_valid = at > whole && (bytes[whole] != b'0' || at == whole + 1);
        if bytes.get(at) == Some(&b'.') {
            let end = digits(at + 1);
            is_valid &= end > at + 1;
            at = end;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            let first = at + 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let end = digits(first);
            is_valid &= end > first;
            at = end;
        }
        let is_joined = self.text[at..].chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_');
        if !is_valid || is_joined {
            return Err(self.expected("a JSON value"));
        }
        self.at = at;
        Ok(())
    }

    fn word(&mut self) -> Result<()> {
        let rest = &self.text[self.at..];
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        match &rest[..length] {
            "true" | "false" | "null" => {
                self.at += length;
                Ok(())
            }
            _ => Err(self.expected("a JSON value")),
        }
    }
}

/// Returns PostgreSQL's error for a text that is no JSON.
fn wrong(text: &str, detail: &str) -> Error {
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    Error::invalid(format!("invalid input syntax for type json: {detail}, in '{shown}'"))
        .code(sqlstate::INVALID_TEXT_REPRESENTATION)
}

/// Returns the characters that a string as written stands for.
pub(super) fn unescaped(written: &str) -> Result<Cow<'_, str>> {
    if !written.contains('\\') {
        return Ok(Cow::Borrowed(written));
    }
    let mut out = String::with_capacity(written.len());
    let mut rest = written;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let (escape, after) = rest[at + 1..].split_at_checked(1).unwrap_or(("", ""));
        rest = after;
        match escape {
            "b" => out.push('\u{8}'),
            "f" => out.push('\u{c}'),
            "n" => out.push('\n'),
            "r" => out.push('\r'),
            "t" => out.push('\t'),
            "u" => {
                let (character, after) = code_point(written, rest)?;
                out.push(character);
                rest = after;
            }
            other => out.push_str(other),
        }
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

/// Reads the digits behind `\u`, and a second escape if they are half of a pair.
fn code_point<'a>(written: &str, rest: &'a str) -> Result<(char, &'a str)> {
    let unit = |rest: &'a str| {
        let (digits, after) = rest.split_at_checked(4)?;
        Some((u32::from_str_radix(digits, 16).ok()?, after))
    };
    let invalid = || wrong(written, "\"\\u\" must be followed by four hexadecimal digits");
    let (first, after) = unit(rest).ok_or_else(invalid)?;
    let low = |detail: &str| wrong(written, detail);
    match first {
        0 => Err(Error::invalid("unsupported Unicode escape sequence: \\u0000 cannot be converted to text")
            .code(sqlstate::UNTRANSLATABLE_CHARACTER)),
        0xd800..=0xdbff => {
            let second = after.strip_prefix("\\u").and_then(unit);
            match second {
                Some((second @ 0xdc00..=0xdfff, after)) => {
                    let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                    Ok((char::from_u32(code).ok_or_else(invalid)?, after))
                }
                Some((0xd800..=0xdbff, _)) => {
                    Err(low("Unicode high surrogate must not follow a high surrogate"))
                }
                _ => Err(low("Unicode low surrogate must follow a high surrogate")),
            }
        }
        0xdc00..=0xdfff => Err(low("Unicode low surrogate must follow a high surrogate")),
        code => Ok((char::from_u32(code).ok_or_else(invalid)?, after)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        for text in
            ["1", " [1, {\"a\" : []}] ", "\"\\u00e4\\n\"", "-0.5e+7", "null", "{}", "[[],{}]", "1e400"]
        {
            assert!(check(text).is_ok(), "{text}");
        }
        for text in [
            "",
            " ",
            "01",
            "1.",
            ".5",
            "-",
            "1e",
            "+1",
            "1a",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{a:1}",
            "{\"a\":1,}",
            "'a'",
            "\"a",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12\"",
            "nul",
            "nulls",
            "[1",
            "[1]]",
            "{\"a\":1 \"b\":2}",
            "ä",
        ] {
            assert!(check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(check(&nested(DEPTH_MAX)).is_ok());
        assert!(check(&nested(DEPTH_MAX + 1)).is_err());
        assert!(check(&"{\"a\":".repeat(100_000)).is_err());
    }

    #[test]
    fn escapes_are_resolved() {
        assert_eq!(unescaped("a\\\"\\\\\\/\\u00e4\\ud83d\\ude00").unwrap(), "a\"\\/ä😀");
        for wrong in ["\\u0000", "\\ud83d", "\\ud83dx", "\\ud83d\\ud83d", "\\ude00"] {
            assert!(unescaped(wrong).is_err(), "{wrong}");
        }
    }
}
