//! Patterns of SIMILAR TO as regular expressions: `similar_escape` of PostgreSQL's regexp.c.

use super::options::Options;
use super::translate::{translate, wrong};
use crate::error::{Error, Result};

/// Returns the regular expression, of the crate `regex`, that is equivalent to a pattern.
pub(crate) fn pattern(pattern: &str, escape: Option<char>) -> Result<String> {
    match &parts(pattern, escape, false)?[..] {
        [whole] => translated(&format!("^(?:{whole})$")),
        _ => Err(wrong(pattern, "the escape character before a double quote is only for substring")),
    }
}

/// Returns the regular expression whose first group is the part between two marks: the escape character and `"`.
pub(crate) fn substring(pattern: &str, escape: Option<char>) -> Result<String> {
    if let [whole] = &parts(pattern, escape, false)?[..] {
        return translated(&format!("^({whole})$"));
    }
    // The text that precedes the part is as short as possible.
    match &parts(pattern, escape, true)?[..] {
        [before, part] => translated(&format!("^(?:{before})({part})$")),
        [before, part, after] => translated(&format!("^(?:{before})({part})(?:{after})$")),
        _ => Err(wrong(pattern, "more than two marks of the escape character and a double quote")),
    }
}

fn translated(advanced: &str) -> Result<String> {
    translate(advanced, Options::default()).map(|translated| translated.text)
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

/// Returns the parts between the marks, as regular expressions of PostgreSQL. Those of a lazy start are as short as possible.
fn parts(pattern: &str, escape: Option<char>, is_lazy: bool) -> Result<Vec<String>> {
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
        let any = if is_lazy && parts.len() == 1 { ".*?" } else { ".*" };
        let Some(out) = parts.last_mut() else { break };
        match c {
            // As in PostgreSQL, an escaped letter may be a class, such as \d.
            c if Some(c) == escape => match chars.next() {
                Some(next) => out.extend(['\\', next]),
                None => return Err(wrong(pattern, "it ends with its escape character")),
            },
            '^' if starts => {
                out.push('^');
                class_start = true;
            }
            ']' if in_class && starts => out.push(']'),
            c if in_class => {
                in_class = c != ']';
                match c {
                    '\\' => out.push_str("\\\\"),
                    // A class such as [:alpha:].
                    '[' if chars.as_str().starts_with([':', '.', '=']) => {
                        let rest = chars.as_str();
                        let end: String = rest.chars().take(1).chain([']']).collect();
                        let end = rest.get(1..).and_then(|rest| rest.find(&end)).map_or(0, |end| end + 3);
                        out.push('[');
                        out.push_str(&rest[..end]);
                        chars = rest[end..].chars();
                    }
                    c => out.push(c),
                }
            }
            '[' => {
                (in_class, class_start) = (true, true);
                out.push('[');
            }
            '%' => out.push_str(any),
            '_' => out.push('.'),
            '(' => out.push_str("(?:"),
            '\\' | '.' | '^' | '$' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    Ok(parts)
}
