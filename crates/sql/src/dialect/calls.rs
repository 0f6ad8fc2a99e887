//! Calls in the tokens of a query: their end and their arguments.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// Returns the index of the token that closes the group opened at `open`.
pub(crate) fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Splits the tokens between a call's parentheses at the commas at the top level.
pub(crate) fn arguments(inner: &[TokenWithSpan]) -> Vec<&[TokenWithSpan]> {
    let mut depth = 0;
    let parts = inner.split(|token| {
        match token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth -= 1,
            _ => {}
        }
        depth == 0 && token.token == Token::Comma
    });
    parts.collect()
}
