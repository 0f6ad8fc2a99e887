//! The declared types of columns of bit strings: `BIT(n)` and `BIT VARYING(n)`.

use std::fmt;

/// The type of a bit string, with its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BitType {
    /// True for BIT VARYING.
    pub is_varying: bool,
    /// The length of each value, or the largest one of BIT VARYING; none if values may have any length.
    pub length: Option<u32>,
}

/// The name of BIT without a length, as in PostgreSQL: `BIT` alone means `BIT(1)`.
const ANY: &str = "\"bit\"";

const FIXED: &str = "BIT";
const VARYING: &str = "BIT VARYING";

impl BitType {
    /// Returns the type that a declared type spells.
    pub fn spelled(spelling: &str) -> Option<BitType> {
        if spelling == ANY {
            return Some(BitType { is_varying: false, length: None });
        }
        if spelling == VARYING {
            return Some(BitType { is_varying: true, length: None });
        }
        let (is_varying, rest) = match spelling.strip_prefix(VARYING) {
            Some(rest) => (true, rest),
            None => (false, spelling.strip_prefix(FIXED)?),
        };
        let digits = rest.strip_prefix('(')?.strip_suffix(')')?;
        Some(BitType { is_varying, length: Some(digits.parse().ok()?) })
    }

    /// Returns the name of the type in PostgreSQL's catalog.
    pub fn name(self) -> &'static str {
        if self.is_varying { "varbit" } else { "bit" }
    }
}

impl fmt::Display for BitType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_varying, self.length) {
            (false, None) => f.write_str(ANY),
            (true, None) => f.write_str(VARYING),
            (false, Some(length)) => write!(f, "{FIXED}({length})"),
            (true, Some(length)) => write!(f, "{VARYING}({length})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_written() {
        for text in ["BIT(3)", "BIT VARYING(83886080)", "BIT VARYING", "\"bit\""] {
            assert_eq!(BitType::spelled(text).unwrap().to_string(), text);
        }
        for text in ["BIT", "BIT()", "BIT(-1)", "bit", "BIT VARYING()", "BIT(3", "TEXT"] {
            assert_eq!(BitType::spelled(text), None, "{text}");
        }
    }
}
