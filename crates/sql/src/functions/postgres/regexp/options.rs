//! Options of regular expressions: the letters of a flags argument and of `(?…)` at the start of a pattern.

use crate::error::{Error, Result};
use crate::sqlstate;

/// The kind of a regular expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    /// PostgreSQL's own, with escapes such as `\d`.
    Advanced,
    Extended,
    Basic,
    /// Every character is itself.
    Literal,
}

/// The options that hold for a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) syntax: Syntax,
    /// None if the operator decides, as in `~*`.
    pub(super) ignore_case: Option<bool>,
    /// True if `.` and `[^…]` don't match a line feed.
    pub(super) lines: bool,
    /// True if `^` and `$` match at lines.
    pub(super) anchors: bool,
    /// True if blanks and comments are no part of the pattern.
    pub(super) expanded: bool,
    /// True if all matches are meant. Only a flags argument says so.
    pub(super) global: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            syntax: Syntax::Advanced,
            ignore_case: None,
            lines: false,
            anchors: false,
            expanded: false,
            global: false,
        }
    }
}

/// The letters that may be embedded in a pattern.
const EMBEDDED: &str = "bceimnpqstwx";

impl Options {
    /// Reads a flags argument.
    pub(super) fn of_flags(flags: &str) -> Result<Options> {
        let mut options = Options::default();
        for letter in flags.chars() {
            match letter {
                'g' => options.global = true,
                letter if !options.set(letter) => {
                    return Err(Error::invalid(format!("invalid regular expression option: \"{letter}\""))
                        .hint("The options are b, c, e, g, i, m, n, p, q, s, t, w and x.")
                        .code(sqlstate::INVALID_PARAMETER_VALUE));
                }
                _ => {}
            }
        }
        Ok(options)
    }

    /// Sets an option. Returns false if there is none of that letter.
    fn set(&mut self, letter: char) -> bool {
        match letter {
            'b' => self.syntax = Syntax::Basic,
            'c' => self.ignore_case = Some(false),
            'e' => self.syntax = Syntax::Extended,
            'i' => self.ignore_case = Some(true),
            'm' | 'n' => (self.lines, self.anchors) = (true, true),
            'p' => (self.lines, self.anchors) = (true, false),
            'q' => self.syntax = Syntax::Literal,
            's' => (self.lines, self.anchors) = (false, false),
            't' => self.expanded = false,
            'w' => (self.lines, self.anchors) = (false, true),
            'x' => self.expanded = true,
            _ => return false,
        }
        true
    }

    /// Reads the options at the start of a pattern. Returns the rest of it.
    pub(super) fn embedded<'a>(&mut self, pattern: &'a str) -> &'a str {
        if let Some(literal) = pattern.strip_prefix("***=") {
            self.syntax = Syntax::Literal;
            return literal;
        }
        let rest = match pattern.strip_prefix("***:") {
            Some(rest) => {
                self.syntax = Syntax::Advanced;
                rest
            }
            None => pattern,
        };
        let letters = rest.strip_prefix("(?").and_then(|rest| rest.split_once(')'));
        match letters {
            Some((letters, rest))
                if self.syntax == Syntax::Advanced
                    && !letters.is_empty()
                    && letters.chars().all(|letter| EMBEDDED.contains(letter)) =>
            {
                letters.chars().for_each(|letter| {
                    self.set(letter);
                });
                rest
            }
            _ => rest,
        }
    }
}
