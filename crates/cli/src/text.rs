//! SQL text that is being run, and where in it things go wrong.

use millstream::{Error, Kind};

use crate::scan;
use crate::stop::Stop;
use crate::variables::{Substituted, Variables};

/// SQL text and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// What to call it in messages: a file's name.
    pub name: Option<&'a str>,
    /// The text, its variables not yet put in.
    pub sql: &'a str,
    /// The line of the file in which it begins, from 1 on.
    pub line: usize,
    /// Whether all that creates and drops objects goes before the first epoch.
    pub gather: bool,
    /// What COPY … FROM STDIN reads, with which it may end.
    pub rows: Rows<'a>,
}

/// Where rows of a COPY … FROM STDIN come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows<'a> {
    /// They stand behind it.
    Here(&'a str),
    /// From the program's standard input.
    Input,
    /// There are none.
    Nowhere,
}

/// A text with its variables put in, of which some statements have been run.
#[derive(Debug)]
pub struct Running<'a> {
    text: Text<'a>,
    sql: Substituted,
    /// Where the statement begins that is run now, in `sql`.
    at: usize,
    /// Where the one after it begins.
    next: usize,
}

impl<'a> Text<'a> {
    /// Puts the variables in.
    pub fn start(self, variables: &Variables) -> Result<Running<'a>, Stop> {
        let sql = variables
            .substitute(self.sql)
            .map_err(|unset| Stop::Statement(format!("{}error: {unset}", self.place(Some(unset.at)))))?;
        let next = statement_start(&sql.text, 0);
        Ok(Running { text: self, sql, at: next, next })
    }

    /// The file and line of byte `at`, as a message begins; nothing for a text that has no name.
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
    /// The text as the engine gets it.
    pub fn sql(&self) -> &str {
        &self.sql.text
    }

    /// Takes note that what comes next is about the statement `sql`, which follows the last one.
    pub fn enter(&mut self, sql: &str) {
        self.at = self.next;
        if self.sql.text[self.at..].starts_with(sql) {
            self.next = statement_start(&self.sql.text, self.at + sql.len());
        }
    }

    /// Takes note that what comes next is about a statement that is not known yet, the one after the last.
    pub fn leave(&mut self) {
        self.at = self.next;
    }

    /// A statement that failed, as the user is told.
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

/// Where the first statement begins at or after byte `at`: behind semicolons, white space and comments.
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

/// The variable that a message of the engine is about: what was left as `:name` is a placeholder to it.
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
