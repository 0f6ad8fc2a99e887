//! Patterns of SIMILAR TO as regular expressions: `similar_escape` of PostgreSQL's regexp.c.

use super::translate::wrong;
use crate::error::{Error, Result};

/// Returns the regular expression, of the crate `regex`, that is equivalent to a pattern.
pub(crate) fn pattern(pattern: &str, escape: Option<char>) -> Result<String> {
    let parts = parts(pattern, escape)?;
    match &parts[..] {
        [whole] => Ok(format!("^(?:{whole})$")),
        _ => Err(wrong(pattern, "the escape character before a double quote is only for substring")),
    }
}

/// Returns the regular expression whose first group is the part between two marks: the escape character and `"`.
pub(crate) fn substring(pattern: &str, escape: Option<char>) -> Result<String> {
    match &parts(pattern, escape)?[..] {
        [whole] => Ok(format!("^({whole})$")),
        [before, part] => Ok(format!("^(?:{})({part})$", lazy(before))),
        [before, part, after] => Ok(format!("^(?:{})({part})(?:{after})$", lazy(before))),
        _ => Err(wrong(pattern, "more than two marks of the escape character and a double quote")),
    }
}

/// Makes the text that precedes the part as short as possible.
fn lazy(before: &str) -> String {
    before.replace("(?s:.*)", "(?s:.*?)")
}

/// Reads the escape character: one, or none.
pub(crate) fn escape(text: &str) -> Result<Option<char>> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (first, None) => Ok(first),
        _ => Err(Error::invalid(format!(
            "invalid escape string '{text}': one character, or none, was expected"
        ))),
    }
}

/// Returns the parts between the marks.
fn parts(pattern: &str, escape: Option<char>) -> Result<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut in_class = false;
    let mut class_start = false;
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let starts = std::mem::take(&mut class_start);
        if Some(c) == escape && chars.as_str().starts_with('"') && !in_class {
            chars.next();
            parts.push(String::new());
            continue;
        }
        let Some(out) = parts.last_mut() else { break };
        match c {
            c if Some(c) == escape => match chars.next() {
                Some(next) => literal(next, out),
                None => return Err(wrong(pattern, "it ends with its escape character")),
            },
            '^' if starts => {
                out.push('^');
                class_start = true;
            }
            ']' if in_class && starts => out.push_str("\\]"),
            c if in_class => {
                in_class = c != ']';
                match c {
                    '\\' | '&' | '~' => literal(c, out),
                    // A class such as [:alpha:].
                    '[' if chars.as_str().starts_with(':') => {
                        let end = chars.as_str().find(":]").map_or(0, |end| end + 2);
                        out.push('[');
                        out.extend(chars.by_ref().take(end));
                    }
                    '[' => out.push_str("\\["),
                    c => out.push(c),
                }
            }
            '[' => {
                (in_class, class_start) = (true, true);
                out.push('[');
            }
            '%' => out.push_str("(?s:.*)"),
            '_' => out.push_str("(?s:.)"),
            '(' => out.push_str("(?:"),
            '|' | '*' | '+' | '?' | '{' | '}' | ')' => out.push(c),
            c => literal(c, out),
        }
    }
    Ok(parts)
}

fn literal(c: char, out: &mut String) {
    let mut buffer = [0; 4];
    out.push_str(&regex::escape(c.encode_utf8(&mut buffer)));
}
