//! The syntax of temporal joins: forms that the query parser takes, and forms that are rewritten before.
//!
//! The parser takes `a ASOF JOIN b MATCH_CONDITION (a.ts >= b.ts) ON a.k = b.k`, and no other ASOF JOIN. One
//! without MATCH_CONDITION becomes a `GLOBAL JOIN`, which the parser takes and queries don't use. `LEFT ASOF
//! JOIN … MATCH_CONDITION` becomes `GLOBAL ASOF JOIN`.
//!
//! A dialect of its own takes `FOR SYSTEM_TIME AS OF …` after a table.

use datafusion::sql::sqlparser::ast::{Expr, Join, JoinConstraint, JoinOperator, TableFactor, TableVersion};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Error, Result};
use crate::grammar::Grammar;
use crate::reader::{TokenReader, is_word};
use crate::tokens::{DIALECT, DIALECT_OF_VERSIONS};

/// The words that end the right table of a join.
const AFTER_TABLE: [&str; 3] = ["MATCH_CONDITION", "ON", "USING"];

/// Rewrites every ASOF JOIN in the tokens to a form that the parser takes.
pub(crate) fn rewrite(found: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    refuse_global(&found)?;
    if !found.iter().any(|token| is_word(&token.token, "ASOF")) {
        return Ok(found);
    }
    let mut out = Vec::with_capacity(found.len());
    let mut at = 0;
    while at < found.len() {
        let Some(words) = Words::at(&found[at..])? else {
            out.push(found[at].clone());
            at += 1;
            continue;
        };
        let word = |text: &str| TokenWithSpan { token: Token::make_word(text, None), span: found[at].span };
        let end = at + words.count;
        match (has_match_condition(&found[end..]), words.left) {
            (true, true) => out.extend([word("GLOBAL"), word("ASOF"), word("JOIN")]),
            (true, false) => out.extend([word("ASOF"), word("JOIN")]),
            (false, true) => out.extend([word("GLOBAL"), word("LEFT"), word("JOIN")]),
            (false, false) => out.extend([word("GLOBAL"), word("JOIN")]),
        }
        at = end;
    }
    Ok(out)
}

/// The words of `ASOF JOIN` or a variant.
struct Words {
    left: bool,
    /// The number of tokens.
    count: usize,
}

impl Words {
    /// Returns the words at the start of the tokens.
    fn at(tokens: &[TokenWithSpan]) -> Result<Option<Words>> {
        let is = |at: usize, word: &str| tokens.get(at).is_some_and(|next| is_word(&next.token, word));
        let kind_at = |at: usize| match () {
            _ if is(at, "LEFT") && is(at + 1, "OUTER") => Some(("LEFT", 2)),
            _ => {
                ["LEFT", "INNER", "RIGHT", "FULL"].into_iter().find(|kind| is(at, kind)).map(|kind| (kind, 1))
            }
        };
        let (before, skipped) = kind_at(0).map_or((None, 0), |(kind, count)| (Some(kind), count));
        if !is(skipped, "ASOF") {
            return Ok(None);
        }
        let (behind, more) = kind_at(skipped + 1).map_or((None, 0), |(kind, count)| (Some(kind), count));
        if !is(skipped + 1 + more, "JOIN") {
            return Ok(None);
        }
        match before.or(behind) {
            Some(kind @ ("RIGHT" | "FULL")) => {
                Err(Error::unsupported(format!("{kind} ASOF JOIN")).hint("An ASOF JOIN is inner or LEFT."))
            }
            kind => Ok(Some(Words { left: kind == Some("LEFT"), count: skipped + more + 2 })),
        }
    }
}

fn has_match_condition(after: &[TokenWithSpan]) -> bool {
    let mut depth = 0;
    for token in after {
        match &token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return false;
        }
        if depth == 0 && AFTER_TABLE.iter().any(|word| is_word(&token.token, word)) {
            return is_word(&token.token, "MATCH_CONDITION");
        }
    }
    false
}

/// Refuses `GLOBAL JOIN`, which has a meaning in other dialects and would be silently ignored.
fn refuse_global(tokens: &[TokenWithSpan]) -> Result<()> {
    let kinds = ["JOIN", "LEFT", "RIGHT", "FULL", "INNER", "ASOF", "CROSS"];
    let global = tokens.windows(2).any(|pair| {
        is_word(&pair[0].token, "GLOBAL") && kinds.iter().any(|kind| is_word(&pair[1].token, kind))
    });
    match global {
        true => Err(Error::unsupported("GLOBAL JOIN").hint("Write JOIN.")),
        false => Ok(()),
    }
}

/// Returns a temporal join's constraint, and true if left rows without a match are kept.
pub(super) fn in_time(join: &Join) -> Option<(bool, &JoinConstraint)> {
    let in_time = join.global || version(&join.relation).is_some();
    match &join.join_operator {
        JoinOperator::AsOf { constraint, .. } => Some((join.global, constraint)),
        JoinOperator::Join(by) | JoinOperator::Inner(by) if in_time => Some((false, by)),
        JoinOperator::Left(by) | JoinOperator::LeftOuter(by) if in_time => Some((true, by)),
        _ => None,
    }
}

/// Returns the moment as of which the right table of a join is read.
pub(super) fn version(factor: &TableFactor) -> Option<&Expr> {
    match factor {
        TableFactor::Table { version: Some(TableVersion::ForSystemTimeAsOf(at)), .. } => Some(at),
        _ => None,
    }
}

/// Returns the grammar for a text. If the text uses versions, more words after a table are keywords.
pub(crate) fn dialect(reader: &TokenReader) -> &'static Grammar {
    let versions = reader
        .rest()
        .windows(2)
        .any(|pair| is_word(&pair[0].token.token, "FOR") && is_word(&pair[1].token.token, "SYSTEM_TIME"));
    if versions { &DIALECT_OF_VERSIONS } else { &DIALECT }
}
