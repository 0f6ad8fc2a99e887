//! Extensions of the dialect: clauses at the end of a query and streaming table functions.
//!
//! They are found by their tokens before the query parser sees the text: the parser would take `EMIT` for an
//! alias.

pub(crate) mod calls;
pub(crate) mod foreign_clauses;
pub(crate) mod lambdas;
pub(crate) mod map_lists;
pub(crate) mod postgres_forms;
pub(crate) mod rows_from;
pub(crate) mod sql_json;
pub(crate) mod string_calls;
pub(crate) mod table;
pub(crate) mod update_state;
pub(crate) mod xml;

use std::ops::Range;

use datafusion::sql::sqlparser::tokenizer::Token;

use crate::error::{Error, Result};
use crate::reader::{TokenReader, is_word};

/// The way in which a query's result is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// `EMIT CHANGES`: each change as it happens.
    Changes,
    /// `EMIT ON WINDOW CLOSE`: each window once, when it closes. ksqlDB's `EMIT FINAL` is the same.
    OnWindowClose,
    /// `FOR EACH BATCH`: the query runs again over each batch.
    EachBatch,
}

impl Emit {
    /// Returns the clause as it is written.
    pub fn clause(self) -> &'static str {
        match self {
            Emit::Changes => "EMIT CHANGES",
            Emit::OnWindowClose => "EMIT ON WINDOW CLOSE",
            Emit::EachBatch => "FOR EACH BATCH",
        }
    }

    /// Returns the words of all spellings of the clause, the first as [`Emit::clause`] has it.
    pub fn spellings(self) -> &'static [&'static [&'static str]] {
        match self {
            Emit::Changes => &[&["EMIT", "CHANGES"]],
            Emit::OnWindowClose => &[&["EMIT", "ON", "WINDOW", "CLOSE"], &["EMIT", "FINAL"]],
            Emit::EachBatch => &[&["FOR", "EACH", "BATCH"]],
        }
    }

    /// Returns a hint on what to write instead where the clause isn't supported.
    pub fn instead(self) -> &'static str {
        match self {
            Emit::Changes => "Use a SELECT of its own: SELECT … EMIT CHANGES.",
            Emit::OnWindowClose => {
                "Leave it out: each window then shows its result so far, which is final when the window closes."
            }
            Emit::EachBatch => "CREATE STREAM s AS SELECT … FOR EACH BATCH, and SELECT from that.",
        }
    }
}

/// Table functions of a query FOR EACH BATCH. They are also plausible names of columns or of scalar
/// functions, so they count only right after FROM or JOIN.
const OVER_BATCHES: [&str; 2] = ["LAST", "CHANGES"];

/// Finds the clause that ends a query at its top level. Its byte range extends to the end of the text.
pub fn trailing_emit(reader: &TokenReader) -> Option<(Emit, Range<usize>)> {
    let tokens = reader.rest();
    let end = tokens.last()?.range.end;
    let mut depth = 0;
    let mut found = None;
    for (at, lexeme) in tokens.iter().enumerate() {
        match &lexeme.token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth -= 1,
            _ if depth > 0 => {}
            _ => {
                // The words are a clause only at the end of the query, or before a LIMIT of changes.
                let ends = |words: &[&str]| {
                    let after = at + words.len();
                    let next = tokens.get(after).map(|next| &next.token.token);
                    words.iter().zip(&tokens[at..]).all(|(word, next)| is_word(&next.token.token, word))
                        && (after == tokens.len() || next.is_some_and(|next| is_word(next, "LIMIT")))
                };
                let all = [Emit::Changes, Emit::OnWindowClose, Emit::EachBatch];
                let clause = all.into_iter().find(|emit| emit.spellings().iter().any(|words| ends(words)));
                if let Some(emit) = clause {
                    found = Some((emit, lexeme.range.start..end));
                }
            }
        }
    }
    found
}

/// Refuses clauses that the engine doesn't support yet, and functions that need FOR EACH BATCH.
pub(crate) fn refuse_unbuilt(reader: &TokenReader) -> Result<()> {
    match trailing_emit(reader) {
        Some((Emit::EachBatch, span)) => {
            Err(Error::unsupported("FOR EACH BATCH other than in SELECT, CREATE STREAM and CREATE SINK")
                .hint("CREATE STREAM s AS SELECT … FOR EACH BATCH, and use that.")
                .at(span))
        }
        Some((emit, span)) => Err(Error::unsupported(emit.clause()).hint(emit.instead()).at(span)),
        None => refuse(reader),
    }
}

fn refuse(reader: &TokenReader) -> Result<()> {
    let tokens = reader.rest();
    for (at, lexeme) in tokens.iter().enumerate() {
        let token = &lexeme.token.token;
        let called = tokens.get(at + 1).is_some_and(|next| next.token.token == Token::LParen);
        let before = at.checked_sub(1).map(|before| &tokens[before].token.token);
        let after_from = before.is_some_and(|token| is_word(token, "FROM") || is_word(token, "JOIN"));
        let name = OVER_BATCHES.iter().find(|name| is_word(token, name));
        if let Some(name) = name.filter(|_| called && after_from) {
            return Err(Error::invalid(format!("{name}(…) needs batches, which this query doesn't have"))
                .hint("End the query with FOR EACH BATCH.")
                .at(lexeme.range.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emit(sql: &str) -> Option<(Emit, &str)> {
        let reader = TokenReader::new(sql).unwrap();
        trailing_emit(&reader).map(|(emit, span)| (emit, &sql[span]))
    }

    #[test]
    fn a_clause_counts_at_the_top_level_only() {
        assert_eq!(emit("SELECT * FROM t EMIT CHANGES"), Some((Emit::Changes, "EMIT CHANGES")));
        assert_eq!(
            emit("SELECT * FROM t emit changes LIMIT 3"),
            Some((Emit::Changes, "emit changes LIMIT 3"))
        );
        assert_eq!(
            emit("SELECT 1 EMIT ON WINDOW CLOSE"),
            Some((Emit::OnWindowClose, "EMIT ON WINDOW CLOSE"))
        );
        assert_eq!(emit("SELECT 1 EMIT FINAL"), Some((Emit::OnWindowClose, "EMIT FINAL")));
        assert_eq!(emit("SELECT emit FROM final"), None);
        assert_eq!(emit("SELECT 1 FOR EACH BATCH"), Some((Emit::EachBatch, "FOR EACH BATCH")));
        assert_eq!(emit("SELECT (SELECT 1 EMIT CHANGES)"), None);
        assert_eq!(emit("SELECT emit FROM t emit"), None);
        assert_eq!(emit("SELECT emit changes FROM t"), None);
    }

    fn refused(sql: &str, expected: &str) {
        let error = refuse_unbuilt(&TokenReader::new(sql).unwrap()).unwrap_err();
        assert_eq!(error.message, expected);
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        refused(
            "SELECT 1 FOR EACH BATCH",
            "FOR EACH BATCH other than in SELECT, CREATE STREAM and CREATE SINK is not supported yet",
        );
        refused(
            "SELECT * FROM LAST(t, INTERVAL '1 s')",
            "LAST(…) needs batches, which this query doesn't have",
        );
    }

    #[test]
    fn columns_of_these_names_are_left_alone() {
        for sql in ["SELECT last, session, hop FROM tumble", "SELECT a, last(b) FROM t"] {
            assert!(refuse_unbuilt(&TokenReader::new(sql).unwrap()).is_ok(), "{sql}");
        }
    }
}
