//! `ROWS FROM (f(x), g(y))`: functions side by side in FROM. The parser lacks it.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::reader::is_word;

/// The call that marks a function of ROWS FROM within UNNEST.
pub(crate) const ROWS_FROM: &str = "rows_from";

/// Writes each such list as `UNNEST(rows_from(f(x)), rows_from(g(y)))`. Positions in errors stay those of the text.
pub(crate) fn rewrite(found: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    if !(0..found.len()).any(|at| begins(&found, at)) {
        return found;
    }
    let mut out = Vec::with_capacity(found.len() + 8);
    // The number of open parentheses where a list began.
    let mut lists: Vec<usize> = Vec::new();
    let (mut depth, mut at) = (0usize, 0);
    while at < found.len() {
        let span = found[at].span;
        let mut add = |token: Token| out.push(TokenWithSpan { token, span });
        let mark = || [Token::make_word(ROWS_FROM, None), Token::LParen];
        if begins(&found, at) {
            depth += 1;
            lists.push(depth);
            [Token::make_keyword("UNNEST"), Token::LParen].into_iter().chain(mark()).for_each(add);
            at += 3;
            continue;
        }
        let in_list = lists.last() == Some(&depth);
        match &found[at].token {
            Token::LParen => depth += 1,
            Token::RParen => {
                if in_list {
                    lists.pop();
                    add(Token::RParen);
                }
                depth = depth.saturating_sub(1);
            }
            Token::Comma if in_list => {
                [Token::RParen, Token::Comma].into_iter().chain(mark()).for_each(add);
                at += 1;
                continue;
            }
            _ => {}
        }
        out.push(found[at].clone());
        at += 1;
    }
    out
}

/// True if such a list begins at a token.
fn begins(tokens: &[TokenWithSpan], at: usize) -> bool {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| is_word(&token.token, word));
    let Some(before) = at.checked_sub(1) else { return false };
    is(at, "ROWS")
        && is(at + 1, "FROM")
        && tokens.get(at + 2).is_some_and(|token| token.token == Token::LParen)
        && (tokens[before].token == Token::Comma
            || ["FROM", "JOIN", "LATERAL"].iter().any(|word| is(before, word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::TokenReader;

    fn check(sql: &str, expected: &str) {
        let tokens = rewrite(TokenReader::new(sql).unwrap().rest_tokens());
        let words: Vec<String> = tokens.iter().map(|token| token.token.to_string()).collect();
        let spaced = words.join(" ");
        assert_eq!(spaced.split_whitespace().collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn functions_stand_side_by_side() {
        check(
            "SELECT * FROM ROWS FROM (f(1, (2)), g()) AS x(a, b)",
            "SELECT * FROM UNNEST ( rows_from ( f ( 1 , ( 2 ) ) ) , rows_from ( g ( ) ) ) AS x ( a , b )",
        );
        check(
            "SELECT 1 FROM t, LATERAL ROWS FROM(f(a))",
            "SELECT 1 FROM t , LATERAL UNNEST ( rows_from ( f ( a ) ) )",
        );
    }

    #[test]
    fn other_rows_stay() {
        for sql in ["SELECT rows FROM ( SELECT 1 ) AS t", "SELECT a , rows FROM t"] {
            check(sql, sql);
        }
    }
}
