//! Errors about a statement: the problem, who must act, and the position in the text.
//!
//! ```
//! use millstream_sql::Error;
//! let sql = "SELECT amout FROM orders";
//! let error = Error::invalid("column \"amout\" not found").hint("Did you mean \"amount\"?").at(7..12);
//! assert_eq!(
//!     error.render(sql),
//!     "column \"amout\" not found\nLINE 1: SELECT amout FROM orders\n               ^^^^^\nHINT: Did you mean \"amount\"?"
//! );
//! ```

use std::ops::Range;

use datafusion::error::DataFusionError;

use crate::failure;
use crate::sqlstate;

/// The party that must act on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The user must change the statement or the data.
    Invalid,
    /// An external system failed; the same call may succeed later.
    External,
    /// Stored data is damaged; an administrator must act.
    Corrupt,
    /// A bug in Millstream.
    Bug,
}

/// An error about a statement. `span` is a byte range of the statement's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", hint_line(.hint))]
pub struct Error {
    /// The party that must act.
    pub kind: Kind,
    /// The problem: the object, the value found, the value expected.
    pub message: String,
    /// Advice on how to fix the problem.
    pub hint: Option<String>,
    /// The position in the text, in bytes.
    pub span: Option<Range<usize>>,
    /// The SQLSTATE, if the code that created the error set one; see [`Error::sqlstate`].
    pub code: Option<&'static str>,
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Creates an error of this kind, without a hint or a position.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), hint: None, span: None, code: None }
    }

    /// Creates an error that the user must fix by changing the statement or the data.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(Kind::Invalid, message)
    }

    /// Creates an error for a failed external system.
    pub fn external(message: impl Into<String>) -> Error {
        Error::new(Kind::External, message)
    }

    /// Creates an error for damaged stored data.
    pub fn corrupt(message: impl Into<String>) -> Error {
        Error::new(Kind::Corrupt, message)
    }

    /// Creates an error for a bug in Millstream; its message says so.
    pub fn bug(message: impl Into<String>) -> Error {
        Error::new(Kind::Bug, format!("{} (this is a bug in Millstream)", message.into()))
    }

    /// Creates an error for a feature that is planned but not built yet.
    pub fn unsupported(what: impl std::fmt::Display) -> Error {
        Error::invalid(format!("{what} is not supported yet"))
    }

    /// Sets the hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the hint if there is one.
    pub fn maybe_hint(mut self, hint: Option<String>) -> Error {
        self.hint = hint.or(self.hint);
        self
    }

    /// Sets the SQLSTATE, a constant of [`crate::sqlstate`].
    pub fn code(mut self, code: &'static str) -> Error {
        self.code = Some(code);
        self
    }

    /// Returns the SQLSTATE: the five characters by which PostgreSQL's clients tell errors apart.
    pub fn sqlstate(&self) -> &'static str {
        sqlstate::of(self)
    }

    /// Sets the position, in bytes of the statement's text.
    pub fn at(mut self, span: Range<usize>) -> Error {
        self.span = Some(span);
        self
    }

    /// Returns the position within the part of the text that follows a prefix, if all of it lies there. `prefix` and
    /// `length` are the bytes of both.
    pub(crate) fn span_behind(&self, prefix: usize, length: usize) -> Option<Range<usize>> {
        let span = self.span.as_ref()?;
        let (start, end) = (span.start.checked_sub(prefix)?, span.end.checked_sub(prefix)?);
        (end <= length).then_some(start..end)
    }

    /// Moves the position for a text in which the original text starts at byte `offset`.
    pub fn shift(mut self, offset: usize) -> Error {
        self.span = self.span.map(|span| span.start + offset..span.end + offset);
        self
    }

    /// Converts a DataFusion error about this text into a message for the user.
    pub fn from_datafusion(error: &DataFusionError, sql: &str) -> Error {
        failure::explain(error, Some(sql))
    }

    /// Renders the message, the line with carets under the position, and the hint.
    pub fn render(&self, sql: &str) -> String {
        let mut text = self.message.clone();
        if let Some(lines) = self.span.as_ref().and_then(|span| pointer(sql, span)) {
            text.push('\n');
            text.push_str(&lines);
        }
        text.push_str(&hint_line(&self.hint));
        text
    }
}

fn hint_line(hint: &Option<String>) -> String {
    hint.as_ref().map_or_else(String::new, |hint| format!("\nHINT: {hint}"))
}

/// Converts an error without a position, since the text is unknown.
impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Error {
        failure::explain(&error, None)
    }
}

/// Lets one of our errors pass through DataFusion's planner unchanged.
impl From<Error> for DataFusionError {
    fn from(error: Error) -> DataFusionError {
        DataFusionError::External(Box::new(error))
    }
}

/// The most characters shown of a line. A longer line is cut around the position.
const WIDTH_MAX: usize = 100;

/// Returns `LINE n: text` and a line of carets below the span.
fn pointer(sql: &str, span: &Range<usize>) -> Option<String> {
    let start = span.start.min(sql.len());
    let before = sql.get(..start)?;
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line_end = sql.get(start..)?.find('\n').map_or(sql.len(), |at| start + at);
    let number = before.matches('\n').count() + 1;
    let line: Vec<char> = sql[line_start..line_end].trim_end_matches('\r').chars().collect();
    let from = sql[line_start..start].chars().count();
    let carets =
        sql.get(start..span.end.clamp(start, line_end)).map_or(1, |text| text.chars().count()).max(1);

    let skip = if line.len() > WIDTH_MAX && from > WIDTH_MAX / 2 { from - WIDTH_MAX / 2 } else { 0 };
    let cut = line.len() > skip + WIDTH_MAX;
    let mut shown = String::new();
    shown.push_str(if skip > 0 { "…" } else { "" });
    shown.extend(line.iter().skip(skip).take(WIDTH_MAX).map(|c| if *c == '\t' { ' ' } else { *c }));
    shown.push_str(if cut { "…" } else { "" });

    let label = format!("LINE {number}: ");
    let indent = label.len() + from - skip + usize::from(skip > 0);
    let carets = carets.min(WIDTH_MAX.saturating_sub(from - skip)).max(1);
    Some(format!("{label}{shown}\n{}{}", " ".repeat(indent), "^".repeat(carets)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, span: Range<usize>, expected: &str) {
        assert_eq!(Error::invalid("m").at(span).render(sql), expected);
    }

    #[test]
    fn a_caret_points_at_the_span() {
        check("SELECT a", 7..8, "m\nLINE 1: SELECT a\n               ^");
        check("SELECT\n  abc,\n d", 9..12, "m\nLINE 2:   abc,\n          ^^^");
        check("SELECT ä, bc", 11..13, "m\nLINE 1: SELECT ä, bc\n                  ^^");
    }

    #[test]
    fn the_end_of_the_text_and_spans_beyond_a_line_are_shown() {
        check("SELECT", 6..6, "m\nLINE 1: SELECT\n              ^");
        check("a b\nc", 2..5, "m\nLINE 1: a b\n          ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let sql = format!("SELECT {}x", "1 + ".repeat(100));
        let shown = Error::invalid("m").at(407..408).render(&sql);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].starts_with("LINE 1: …") && lines[1].ends_with('x'));
        assert_eq!(lines[2].chars().count(), lines[1].chars().count());
    }

    #[test]
    fn a_shifted_error_points_into_the_whole_text() {
        assert_eq!(Error::invalid("m").at(1..2).shift(10).span, Some(11..12));
    }
}
