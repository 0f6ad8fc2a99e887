//! The syntax of MATCH_RECOGNIZE: forms that the query parser takes, and forms that are rewritten before.
//!
//! - SUBSET and WITHIN come between PATTERN and DEFINE, where the parser expects neither. They move to the
//!   end of DEFINE, under names that users can't write.
//! - `{- a -}`, which the parser takes for a quantifier, becomes a group.
//! - `FINAL LAST(x)` becomes a call of the function `"final last"`.
//! - SKIP TO x becomes the equivalent SKIP TO LAST x.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::dialect::calls::{arguments, closing};
use crate::reader::is_word;

/// The name of a SUBSET in DEFINE.
pub(super) const SUBSET: &str = "!subset";

/// The function whose argument is the subquery that is the clause's input.
pub(super) const ROWS: &str = "!rows";

/// The first element of the group that replaces `{- … -}`.
pub(super) const WITHOUT: &str = "!without";

/// The name of WITHIN in DEFINE.
pub(super) const WITHIN: &str = "!within";

/// Rewrites every clause in the tokens to the form that the parser takes.
pub(crate) fn rewrite(found: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let begins = |at: usize| {
        is_word(&found[at].token, "MATCH_RECOGNIZE")
            && found.get(at + 1).is_some_and(|next| next.token == Token::LParen)
    };
    if !(0..found.len()).any(begins) {
        return found;
    }
    let mut out = Vec::with_capacity(found.len() + 8);
    let mut at = 0;
    while at < found.len() {
        match if begins(at) { closing(&found, at + 1) } else { None } {
            Some(end) => {
                named(&mut out);
                out.extend_from_slice(&found[at..at + 2]);
                out.extend(clause(&found[at + 2..end]));
                out.push(found[end].clone());
                at = end + 1;
            }
            None => {
                out.push(found[at].clone());
                at += 1;
            }
        }
    }
    out
}

/// Wraps a subquery at the end of the tokens, with or without an alias, in the function [`ROWS`]. The parser
/// accepts the clause only after a name.
fn named(out: &mut Vec<TokenWithSpan>) {
    let is_name = |token: &TokenWithSpan| matches!(token.token, Token::Word(_));
    let close = match out.as_slice() {
        [.., close, word, name]
            if close.token == Token::RParen && is_word(&word.token, "AS") && is_name(name) =>
        {
            out.len() - 3
        }
        [.., close, name] if close.token == Token::RParen && is_name(name) => out.len() - 2,
        [.., close] if close.token == Token::RParen => out.len() - 1,
        _ => return,
    };
    let mut depth = 0;
    let open = (0..=close).rev().find(|at| {
        match out[*at].token {
            Token::RParen => depth += 1,
            Token::LParen => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    let Some(open) = open else { return };
    let begins = ["SELECT", "WITH", "VALUES", "TABLE"];
    let is_query = out.get(open + 1).is_some_and(|next| begins.iter().any(|word| is_word(&next.token, word)));
    let called = open.checked_sub(1).is_some_and(|before| {
        is_name(&out[before]) && !["FROM", "JOIN"].iter().any(|word| is_word(&out[before].token, word))
    });
    if is_query && !called {
        let at = |token| TokenWithSpan { token, span: out[open].span };
        let (name, left, right) =
            (at(Token::make_word(ROWS, Some('"'))), at(Token::LParen), at(Token::RParen));
        out.insert(close, right);
        out.splice(open..open, [name, left]);
    }
}

/// Returns the position of a word in a clause, outside of nested parentheses.
fn find(inner: &[TokenWithSpan], word: &str, from: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, token) in inner.iter().enumerate().skip(from) {
        match token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth -= 1,
            _ if depth == 0 && is_word(&token.token, word) => return Some(at),
            _ => {}
        }
    }
    None
}

/// Rewrites the content of a clause.
fn clause(inner: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let pattern = (0..inner.len()).find(|at| {
        is_word(&inner[*at].token, "PATTERN")
            && inner.get(at + 1).is_some_and(|next| next.token == Token::LParen)
    });
    let Some((open, close)) = pattern.and_then(|at| Some((at + 1, closing(inner, at + 1)?))) else {
        return inner.to_vec();
    };
    let mut out = before(&inner[..open]);
    out.extend(pattern_of(&inner[open..=close]));
    let Some(define) = find(inner, "DEFINE", close + 1) else {
        out.extend_from_slice(&inner[close + 1..]);
        return out;
    };
    let between = &inner[close + 1..define];
    let (within, subset) = (find(between, "WITHIN", 0), find(between, "SUBSET", 0));
    let part = |from: Option<usize>, other: Option<usize>| {
        let from = from?;
        let end = other.filter(|other| *other > from).unwrap_or(between.len());
        Some(&between[from + 1..end])
    };
    let known = within.into_iter().chain(subset).min().unwrap_or(between.len());
    out.extend_from_slice(&between[..known]);
    out.extend(semantics(&inner[define..]));
    for set in part(subset, within).map(arguments).unwrap_or_default() {
        define_as(SUBSET, set, &inner[define], &mut out);
    }
    if let Some(length) = part(within, subset) {
        define_as(WITHIN, length, &inner[define], &mut out);
    }
    out
}

/// Rewrites the part before PATTERN.
fn before(inner: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut out = semantics(inner);
    let to = (2..out.len()).find(|at| {
        is_word(&out[*at].token, "TO")
            && is_word(&out[at - 1].token, "SKIP")
            && is_word(&out[at - 2].token, "MATCH")
    });
    let named =
        |token: &TokenWithSpan| ["NEXT", "FIRST", "LAST"].iter().any(|word| is_word(&token.token, word));
    if let Some(to) = to
        && out.get(to + 1).is_some_and(|next| !named(next))
    {
        let span = out[to].span;
        out.insert(to + 1, TokenWithSpan { token: Token::make_keyword("LAST"), span });
    }
    out
}

/// Merges FINAL and RUNNING with the name behind them.
fn semantics(inner: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut out = Vec::with_capacity(inner.len());
    let mut at = 0;
    while at < inner.len() {
        let word = ["final", "running"].into_iter().find(|word| is_word(&inner[at].token, word));
        if let (Some(word), [_, name, open, ..]) = (word, &inner[at..])
            && let (Token::Word(function), Token::LParen) = (&name.token, &open.token)
        {
            let name = format!("{word} {}", function.value.to_lowercase());
            out.push(TokenWithSpan { token: Token::make_word(&name, Some('"')), span: inner[at].span });
            at += 2;
            continue;
        }
        out.push(inner[at].clone());
        at += 1;
    }
    out
}

/// Rewrites a pattern for the parser: PERMUTE in capitals, and `{- a b -}` as a marked group.
fn pattern_of(inner: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut out = Vec::with_capacity(inner.len());
    let mut at = 0;
    while at < inner.len() {
        let span = inner[at].span;
        let pair = (&inner[at].token, inner.get(at + 1).map(|next| &next.token));
        let (tokens, length) = match pair {
            (Token::LBrace, Some(Token::Minus)) => {
                (vec![Token::LParen, Token::make_word(WITHOUT, Some('"')), Token::LParen], 2)
            }
            (Token::Minus, Some(Token::RBrace)) => (vec![Token::RParen, Token::RParen], 2),
            (token, _) if is_word(token, "PERMUTE") => (vec![Token::make_word("PERMUTE", None)], 1),
            (token, _) => (vec![token.clone()], 1),
        };
        out.extend(tokens.into_iter().map(|token| TokenWithSpan { token, span }));
        at += length;
    }
    out
}

fn define_as(name: &str, what: &[TokenWithSpan], at: &TokenWithSpan, out: &mut Vec<TokenWithSpan>) {
    let words = [Token::Comma, Token::make_word(name, Some('"')), Token::make_keyword("AS")];
    out.extend(words.map(|token| TokenWithSpan { token, span: at.span }));
    out.extend_from_slice(what);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::TokenReader;

    fn check(inner: &str, expected: &str) {
        let sql = format!("MATCH_RECOGNIZE ({inner})");
        let tokens = rewrite(TokenReader::new(&sql).unwrap().rest_tokens());
        let words: Vec<String> = tokens.iter().map(|token| token.token.to_string()).collect();
        assert_eq!(words.join(" "), format!("MATCH_RECOGNIZE ( {expected} )"));
    }

    #[test]
    fn a_subquery_stands_under_a_name() {
        for (from, expected) in [
            ("FROM (SELECT 1) MATCH_RECOGNIZE ()", "FROM \"!rows\" ( ( SELECT 1 ) ) MATCH_RECOGNIZE ( )"),
            ("FROM (SELECT 1) t MATCH_RECOGNIZE ()", "FROM \"!rows\" ( ( SELECT 1 ) ) t MATCH_RECOGNIZE ( )"),
            (
                "x, (SELECT f(1)) AS t MATCH_RECOGNIZE ()",
                "x , \"!rows\" ( ( SELECT f ( 1 ) ) ) AS t MATCH_RECOGNIZE ( )",
            ),
            (
                "FROM TUMBLE((SELECT 1)) MATCH_RECOGNIZE ()",
                "FROM TUMBLE ( ( SELECT 1 ) ) MATCH_RECOGNIZE ( )",
            ),
        ] {
            let tokens = rewrite(TokenReader::new(from).unwrap().rest_tokens());
            let words: Vec<String> = tokens.iter().map(|token| token.token.to_string()).collect();
            assert_eq!(words.join(" "), expected);
        }
    }

    #[test]
    fn what_the_parser_does_not_know_stands_in_define() {
        check(
            "PATTERN (a b) WITHIN INTERVAL '1' HOUR SUBSET u = (a, b), v = (b) DEFINE a AS TRUE",
            "PATTERN ( a b ) DEFINE a AS TRUE , \"!subset\" AS u = ( a , b ) , \"!subset\" AS v = ( b ) , \
             \"!within\" AS INTERVAL '1' HOUR",
        );
        check(
            "MEASURES final last(a.x) AS x AFTER MATCH SKIP TO b PATTERN (permute(a, b)) DEFINE a AS running sum(x) > 1",
            "MEASURES \"final last\" ( a . x ) AS x AFTER MATCH SKIP TO LAST b PATTERN ( PERMUTE ( a , b ) ) DEFINE a AS \
             \"running sum\" ( x ) > 1",
        );
        check("PATTERN (a {- b -}+)", "PATTERN ( a ( \"!without\" ( b ) ) + )");
        check("PATTERN (a) DEFINE within AS x", "PATTERN ( a ) DEFINE within AS x");
        check("AFTER MATCH SKIP TO NEXT ROW PATTERN (a)", "AFTER MATCH SKIP TO NEXT ROW PATTERN ( a )");
    }
}
