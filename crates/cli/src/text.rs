//! Running SQL text, and the positions of its errors.

use millstream::{Error, Kind};

use crate::scan;
use crate::stop::Stop;
use crate::variables::{Substituted, Variables};

/// SQL text and its origin.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// Its name in messages: that of a file.
    pub name: Option<&'a str>,
    /// The text, before the substitution of variables.
    pub sql: &'a str,
    /// The line of the file in which it begins, counted from 1.
    pub line: usize,
    /// True if all CREATE and DROP statements run before the first epoch.
    pub gather: bool,
    /// The rows for a COPY … FROM STDIN at the end of the text.
    pub rows: Rows<'a>,
}

/// The origin of the rows of a COPY … FROM STDIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows<'a> {
    /// They follow the statement.
    Here(&'a str),
    /// They come from the program's standard input.
    Input,
    /// There are none.
    Nowhere,
}

/// A text with its variables substituted, some of whose statements have run.
#[derive(Debug)]
pub struct Running<'a> {
    text: Text<'a>,
    sql: Substituted,
    /// Start of the running statement in `sql`.
    at: usize,
    /// Start of the statement after it.
    next: usize,
}

impl<'a> Text<'a> {
    /// Substitutes the variables.
    pub fn start(self, variables: &Variables) -> Result<Running<'a>, Stop> {
        let sql = variables
            .substitute(self.sql)
            .map_err(|unset| Stop::Statement(format!("{}error: {unset}", self.place(Some(unset.at)))))?;
        let next = statement_start(&sql.text, 0);
        Ok(Running { text: self, sql, at: next, next })
    }

    /// Returns the file and line of byte `at`, as a message's prefix; empty for a text without a name.
    fn place(&self, at: Option<usize>) -> String {
        let before = at.and_then(|at| self.sql.as_bytes().get(..at));
        match (self.name, before) {
            (None, _) => String::new(),
            (Some(name), None) => format!("{name}: "),
            (Some(name), Some(before)) => {
                format!("{name}:{}: ", self.line + before.iter().filter(|byte| **byte == b'\n').count())
            }
        }
    }
}

impl Running<'_> {
    /// Returns the text for the engine.
    pub fn sql(&self) -> &str {
        &self.sql.text
    }

    /// Notes that the next errors belong to the statement `sql`, which follows the last one.
    pub fn enter(&mut self, sql: &str) {
        self.at = self.next;
        if self.sql.text[self.at..].starts_with(sql) {
            self.next = statement_start(&self.sql.text, self.at + sql.len());
        }
    }

    /// Notes that the next errors belong to the statement after the last one, whose text isn't known yet.
    pub fn leave(&mut self) {
        self.at = self.next;
    }

    /// Returns the error of a failed statement for the user.
    pub fn failure(&self, error: &Error) -> Stop {
        let at = error.span.as_ref().map_or(self.at, |span| span.start);
        let place = self.text.place(Some(self.sql.origin(at)));
        let hint = unset_variable(error).map_or_else(String::new, |name| {
            format!("\nHINT: If :{name} is a variable, give its value with --set {name}=….")
        });
        let message = format!("{place}error: {}{hint}", error.render(&self.sql.text));
        if error.kind == Kind::External { Stop::External(message) } else { Stop::Statement(message) }
    }
}

/// Returns the start of the first statement at or after byte `at`, skipping semicolons, white space and
/// comments.
fn statement_start(sql: &str, at: usize) -> usize {
    let rest = &sql[at..];
    for piece in scan::pieces(rest) {
        let skipped = match piece.kind {
            scan::Kind::Comment => continue,
            scan::Kind::Code => {
                rest[piece.range.clone()].find(|letter: char| letter != ';' && !letter.is_whitespace())
            }
            scan::Kind::Text | scan::Kind::Name => Some(0),
        };
        if let Some(skipped) = skipped {
            return at + piece.range.start + skipped;
        }
    }
    sql.len()
}

/// Returns the unset variable that an engine error is about: the engine sees `:name` as a placeholder.
fn unset_variable(error: &Error) -> Option<&str> {
    let rest = &error.message[error.message.find("placeholder ':")? + "placeholder ':".len()..];
    let name = &rest[..rest.find('\'')?];
    (error.hint.is_none() && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(stop: Stop) -> String {
        stop.to_string()
    }

    #[test]
    fn an_error_without_a_place_is_that_of_its_statement() {
        let sql = "-- first\nSELECT :x;;\n /* ; */ SELECT\n 2;\nSELECT 3";
        let variables = Variables::new([("x".to_owned(), "a\nb".to_owned())]);
        let text = Text { name: Some("a.sql"), sql, line: 1, gather: false, rows: Rows::Nowhere };
        let mut running = text.start(&variables).unwrap();
        let error = Error::invalid("m");
        running.leave();
        assert_eq!(message(running.failure(&error)), "a.sql:2: error: m");
        running.enter("SELECT a\nb");
        assert_eq!(message(running.failure(&error)), "a.sql:2: error: m");
        running.enter("SELECT\n 2");
        assert_eq!(message(running.failure(&error)), "a.sql:3: error: m");
        running.leave();
        assert_eq!(message(running.failure(&error)), "a.sql:5: error: m");
    }

    #[test]
    fn text_without_a_name_has_no_places() {
        let text = Text { name: None, sql: "SELECT 1", line: 1, gather: false, rows: Rows::Nowhere };
        let running = text.start(&Variables::default()).unwrap();
        assert_eq!(message(running.failure(&Error::external("m"))), "error: m");
    }

    #[test]
    fn a_variable_that_was_left_is_explained() {
        let text = Text { name: None, sql: "SELECT :n", line: 1, gather: false, rows: Rows::Nowhere };
        let running = text.start(&Variables::default()).unwrap();
        let shown = message(running.failure(&Error::invalid("placeholder ':n' was not provided a value")));
        assert!(shown.ends_with("\nHINT: If :n is a variable, give its value with --set n=…."), "{shown}");
        let shown = message(running.failure(&Error::invalid("placeholder '$1' was not provided a value")));
        assert!(!shown.contains("HINT"), "{shown}");
    }
}
