//! Substitutes the values of `--set name=value` in SQL text, as psql does.
//!
//! `:'name'` becomes a string, `:"name"` a quoted name, and `:name` the value itself. Strings, quoted
//! names, comments and `::` casts stay unchanged. So does a bare `:name` that isn't set, since a colon has
//! other uses.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::scan::{self, Kind, Piece};

/// The variables by name.
#[derive(Clone, Debug, Default)]
pub struct Variables(BTreeMap<String, String>);

/// A text with its variables substituted, and the origin of its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Substituted {
    /// The text for the engine.
    pub text: String,
    /// For each value: its range in `text`, and the original range of its `:name`.
    values: Vec<(Range<usize>, Range<usize>)>,
}

/// The error of a variable that isn't set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unset {
    /// The message, with a remedy.
    pub message: String,
    /// Position in the text, in bytes.
    pub at: usize,
}

impl Variables {
    /// Creates variables in the order given: the last value of a name counts.
    pub fn new(values: impl IntoIterator<Item = (String, String)>) -> Self {
        Variables(values.into_iter().collect())
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: String) {
        self.0.insert(name.to_owned(), value);
    }

    /// Returns the value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Removes a variable; returns false if it wasn't set.
    pub fn unset(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// Returns all variables, by name.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Substitutes the variables in `text`.
    pub fn substitute(&self, text: &str) -> Result<Substituted, Unset> {
        let mut result = Substituted::default();
        let mut copied = 0;
        for (range, value) in self.values(text)? {
            result.text.push_str(&text[copied..range.start]);
            let start = result.text.len();
            result.text.push_str(&value);
            result.values.push((start..result.text.len(), range.clone()));
            copied = range.end;
        }
        result.text.push_str(&text[copied..]);
        Ok(result)
    }

    /// Returns the replacements: ranges of `text` with their values, in order.
    fn values(&self, text: &str) -> Result<Vec<(Range<usize>, String)>, Unset> {
        let pieces = scan::pieces(text);
        let mut found = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            match piece.kind {
                Kind::Code => self.bare(text, piece.range.clone(), &mut found),
                Kind::Text | Kind::Name => {
                    let before = index.checked_sub(1).map(|before| &pieces[before]);
                    if before.is_some_and(|before| ends_in_colon(text, before)) {
                        found.extend(self.quoted(text, piece)?);
                    }
                }
                Kind::Comment => {}
            }
        }
        Ok(found)
    }

    /// Finds `:name` within code.
    fn bare(&self, text: &str, code: Range<usize>, found: &mut Vec<(Range<usize>, String)>) {
        let bytes = text.as_bytes();
        let mut at = code.start;
        while at < code.end {
            if bytes[at] != b':' {
                at += 1;
                continue;
            }
            let colons = bytes[at..code.end].iter().take_while(|byte| **byte == b':').count();
            let start = at + colons;
            let length = bytes[start..code.end].iter().take_while(|byte| scan::is_name_byte(**byte)).count();
            if colons == 1
                && let Some(value) = self.0.get(&text[start..start + length])
            {
                found.push((at..start + length, value.clone()));
            }
            at = start + length;
        }
    }

    /// Returns the value for the string or quoted name after a colon.
    fn quoted(&self, text: &str, piece: &Piece) -> Result<Option<(Range<usize>, String)>, Unset> {
        let quote = &text[piece.range.start..piece.range.start + 1];
        let Some(name) =
            text[piece.range.clone()].strip_prefix(quote).and_then(|name| name.strip_suffix(quote))
        else {
            return Ok(None);
        };
        if !is_name(name) || quote == "`" {
            return Ok(None);
        }
        let at = piece.range.start - 1;
        let Some(value) = self.0.get(name) else { return Err(self.missing(name, at)) };
        let doubled = value.replace(quote, &format!("{quote}{quote}"));
        Ok(Some((at..piece.range.end, format!("{quote}{doubled}{quote}"))))
    }

    fn missing(&self, name: &str, at: usize) -> Unset {
        let set: Vec<&str> = self.0.keys().map(String::as_str).collect();
        let set = match set.as_slice() {
            [] => "no variable is set".to_owned(),
            [one] => format!("the only one set is {one}"),
            many => format!("those set are {}", many.join(", ")),
        };
        Unset {
            message: format!(
                "variable '{name}' is not set ({set}): give it with --set {name}=… or \\set {name} …"
            ),
            at,
        }
    }
}

impl Substituted {
    /// Returns the original position of byte `at`; within a value, that of its `:name`.
    pub fn origin(&self, at: usize) -> usize {
        match self.values.iter().rev().find(|(value, _)| value.start <= at) {
            Some((value, name)) if at < value.end => name.start,
            Some((value, name)) => name.end + (at - value.end),
            None => at,
        }
    }
}

/// Returns true if `name` can name a variable.
pub fn is_name(name: &str) -> bool {
    name.bytes().all(scan::is_name_byte) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// Returns true if a piece of code ends in a single colon: two are a cast.
fn ends_in_colon(text: &str, piece: &Piece) -> bool {
    let code = &text[piece.range.clone()];
    piece.kind == Kind::Code && code.ends_with(':') && !code.ends_with("::")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let pairs = [("path", "it's/here"), ("table", "my \"t\""), ("n", "10"), ("größe", "5")];
        Variables::new(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())))
    }

    fn check(text: &str, expect: &str) {
        assert_eq!(variables().substitute(text).unwrap().text, expect, "{text}");
    }

    #[test]
    fn values_are_put_in() {
        check("WITH (path = :'path')", "WITH (path = 'it''s/here')");
        check("FROM :\"table\";", "FROM \"my \"\"t\"\"\";");
        check("LIMIT :n", "LIMIT 10");
        check("LIMIT :n+:n", "LIMIT 10+10");
        check("LIMIT :größe", "LIMIT 5");
        check(":n:'path'", "10'it''s/here'");
    }

    #[test]
    fn all_else_is_left_alone() {
        for text in [
            "SELECT ':n', ':''n''', \":n\" -- :n\n/* :'n' */",
            "SELECT x::n, x::\"table\", '1'::n",
            "SELECT a[1:2], a[:m], :other, f(x := 1), x ::: n",
            "SELECT :'not a name', $$ :n $$",
            "SELECT '12:n:00'",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn an_unset_quoted_variable_is_an_error() {
        let error = variables().substitute("SELECT 1,\n  :'pth'").unwrap_err();
        assert_eq!(error.at, 12);
        assert_eq!(
            error.message,
            "variable 'pth' is not set (those set are größe, n, path, table): give it with --set pth=… or \\set pth …"
        );
        let error = Variables::default().substitute(":\"x\"").unwrap_err();
        assert_eq!(
            error.message,
            "variable 'x' is not set (no variable is set): give it with --set x=… or \\set x …"
        );
    }

    #[test]
    fn positions_lead_back() {
        let result = variables().substitute("a :n b :'path' c").unwrap();
        assert_eq!(result.text, "a 10 b 'it''s/here' c");
        let origins: Vec<usize> = [0, 2, 3, 4, 5, 7, 12, 20].map(|at| result.origin(at)).to_vec();
        assert_eq!(origins, [0, 2, 2, 4, 5, 7, 7, 15]);
    }
}
