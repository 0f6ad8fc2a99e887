//! The tokens of a path.

use crate::error::{Error, Result};
use crate::sqlstate;

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Symbol(&'static str),
    Word(String),
    Text(String),
    Number(String),
    Variable(String),
}

impl Token {
    /// Returns the token for a message.
    pub(super) fn shown(&self) -> String {
        match self {
            Token::Symbol(symbol) => format!("\"{symbol}\""),
            Token::Word(text) | Token::Text(text) | Token::Number(text) => format!("\"{text}\""),
            Token::Variable(name) => format!("\"${name}\""),
        }
    }
}

/// The symbols, longer ones first.
const SYMBOLS: [&str; 30] = [
    "**", "==", "!=", "<>", "<=", ">=", "&&", "||", "$", "@", "?", "(", ")", "[", "]", "{", "}", ".", ",",
    "*", "+", "-", "/", "%", "<", ">", "!", "=", "&", "|",
];

fn is_special(c: char) -> bool {
    c.is_whitespace() || "?%$.[]{}()|&!=<>@#,*:-+/\\\"".contains(c)
}

fn wrong(text: &str, what: &str) -> Error {
    Error::invalid(format!("{what} of jsonpath input '{text}'")).code(sqlstate::SYNTAX_ERROR)
}

/// Splits a path into tokens.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut out = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { return Ok(out) };
        if let Some(comment) = rest.strip_prefix("/*") {
            let end = comment.find("*/").ok_or_else(|| wrong(text, "unexpected end of comment"))?;
            rest = &comment[end + 2..];
            continue;
        }
        if first == '"' {
            let (string, after) = quoted(text, &rest[1..])?;
            out.push(Token::Text(string));
            rest = after;
            continue;
        }
        if let Some(name) = rest.strip_prefix('$') {
            if let Some(quotation) = name.strip_prefix('"') {
                let (string, after) = quoted(text, quotation)?;
                out.push(Token::Variable(string));
                rest = after;
                continue;
            }
            let length = name.find(is_special).unwrap_or(name.len());
            rest = &name[length..];
            out.push(match length {
                0 => Token::Symbol("$"),
                length => Token::Variable(name[..length].to_string()),
            });
            continue;
        }
        let is_fraction = first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit());
        let after_operand = matches!(
            out.last(),
            Some(
                Token::Word(_)
                    | Token::Text(_)
                    | Token::Variable(_)
                    | Token::Symbol("$" | "@" | ")" | "]" | "*")
            )
        );
        if first.is_ascii_digit() || (is_fraction && !after_operand) {
            let (number, after) = number(text, rest)?;
            out.push(Token::Number(number));
            rest = after;
            continue;
        }
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            out.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
            continue;
        }
        if is_special(first) && first != '\\' {
            return Err(wrong(text, &format!("syntax error at or near \"{first}\"")));
        }
        let length = rest.find(is_special).unwrap_or(rest.len());
        if length == 0 {
            return Err(wrong(text, &format!("syntax error at or near \"{first}\"")));
        }
        out.push(Token::Word(rest[..length].to_string()));
        rest = &rest[length..];
    }
}

/// Reads a number, as JSON has it.
fn number<'a>(text: &str, rest: &'a str) -> Result<(String, &'a str)> {
    let bytes = rest.as_bytes();
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let whole = digits(0);
    let mut at = whole;
    if bytes.get(at) == Some(&b'.') && bytes.get(at + 1) != Some(&b'.') {
        at = digits(at + 1);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let first = at + 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let end = digits(first);
        if end == first {
            return Err(wrong(text, &format!("invalid numeric literal at or near \"{}\"", &rest[..first])));
        }
        at = end;
    }
    let is_joined = rest[at..].chars().next().is_some_and(|c| !is_special(c));
    if is_joined || (whole > 1 && bytes[0] == b'0') {
        return Err(wrong(
            text,
            &format!("trailing junk after numeric literal at or near \"{}\"", &rest[..at]),
        ));
    }
    let written = &rest[..at];
    // JSON needs digits on both sides of a point.
    let number = match written.strip_prefix('.') {
        Some(fraction) => format!("0.{fraction}"),
        None => written.strip_suffix('.').unwrap_or(written).replace(".e", "e").replace(".E", "E"),
    };
    Ok((number, &rest[at..]))
}

/// Reads a string behind its first quotation mark.
fn quoted<'a>(text: &str, rest: &'a str) -> Result<(String, &'a str)> {
    let mut out = String::new();
    let mut chars = rest.char_indices();
    let mut units: Vec<u16> = Vec::new();
    while let Some((at, c)) = chars.next() {
        if c != '\\' || !rest[at..].starts_with("\\u") {
            flush(text, &mut units, &mut out)?;
        }
        match c {
            '"' => return Ok((out, &rest[at + 1..])),
            '\\' => match chars.next().map(|(_, escape)| escape) {
                Some('b') => out.push('\u{8}'),
                Some('f') => out.push('\u{c}'),
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some('v') => out.push('\u{b}'),
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).map(|(_, digit)| digit).collect();
                    let unit = u16::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4);
                    units.push(unit.ok_or_else(|| wrong(text, "invalid Unicode escape sequence"))?);
                }
                Some('x') => {
                    let digits: String = chars.by_ref().take(2).map(|(_, digit)| digit).collect();
                    let code = u8::from_str_radix(&digits, 16).ok().filter(|code| *code > 0);
                    out.push(char::from(
                        code.ok_or_else(|| wrong(text, "invalid hexadecimal character sequence"))?,
                    ));
                }
                Some(other) => out.push(other),
                None => break,
            },
            other => out.push(other),
        }
    }
    Err(wrong(text, "unterminated quoted string"))
}

/// Appends the characters of units of UTF-16.
fn flush(text: &str, units: &mut Vec<u16>, out: &mut String) -> Result<()> {
    if units.contains(&0) {
        return Err(Error::invalid(
            "unsupported Unicode escape sequence: \\u0000 cannot be converted to text",
        )
        .code(sqlstate::UNTRANSLATABLE_CHARACTER));
    }
    match String::from_utf16(units) {
        Ok(characters) => out.push_str(&characters),
        Err(_) => return Err(wrong(text, "Unicode low surrogate must follow a high surrogate")),
    }
    units.clear();
    Ok(())
}
