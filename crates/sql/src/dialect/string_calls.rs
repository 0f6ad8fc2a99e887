//! Calls and operators that the parser doesn't know: `substring(s SIMILAR p ESCAPE e)`, `trim(BOTH FROM s, characters)`, and
//! PostgreSQL's prefix operators `|/ x`, `||/ x` and `@ x`.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::calls::closing;
use crate::reader::is_word;

/// Rewrites every such call in the tokens to a form that is parsed. Positions in errors stay those of the text.
pub(crate) fn rewrite(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut at = 0;
    while at + 1 < tokens.len() {
        if let Some(function) = prefix_function(&tokens, at) {
            enclose(&mut tokens, at, function);
        } else if tokens[at + 1].token == Token::LParen {
            if is_word(&tokens[at].token, "SUBSTRING") {
                similar(&mut tokens, at + 1);
            } else if is_word(&tokens[at].token, "TRIM") {
                trim(&mut tokens, at);
            }
        }
        at += 1;
    }
    tokens
}

/// Returns the function of a prefix operator. `@` before a word is a parameter.
fn prefix_function(tokens: &[TokenWithSpan], at: usize) -> Option<&'static str> {
    let next = tokens.get(at + 1).map(|next| &next.token);
    match tokens[at].token {
        Token::PGSquareRoot => Some("sqrt"),
        Token::PGCubeRoot => Some("cbrt"),
        Token::AtSign if matches!(next, Some(Token::Minus | Token::LParen | Token::Number(..))) => {
            Some("abs")
        }
        _ => None,
    }
}

/// Writes a call of a function for a prefix operator and its operand.
fn enclose(tokens: &mut Vec<TokenWithSpan>, operator: usize, function: &str) {
    let Some(end) = operand_end(tokens, operator + 1) else { return };
    let span = tokens[operator].span;
    let with_span = |token: Token| TokenWithSpan { token, span };
    tokens.insert(end, with_span(Token::RParen));
    tokens[operator] = with_span(Token::make_word(function, None));
    tokens.insert(operator + 1, with_span(Token::LParen));
}

/// Returns the place behind a number, a name, a call or a group in parentheses, with its sign.
fn operand_end(tokens: &[TokenWithSpan], start: usize) -> Option<usize> {
    let mut at = start;
    while matches!(tokens.get(at).map(|token| &token.token), Some(Token::Minus | Token::Plus)) {
        at += 1;
    }
    match &tokens.get(at)?.token {
        Token::LParen => return closing(tokens, at).map(|close| close + 1),
        Token::Word(_) => {}
        Token::Number(..) | Token::SingleQuotedString(_) | Token::Placeholder(_) => return Some(at + 1),
        _ => return None,
    }
    at += 1;
    while tokens.get(at).is_some_and(|token| token.token == Token::Period) {
        at += 2;
    }
    match tokens.get(at).map(|token| &token.token) {
        Some(Token::LParen) => closing(tokens, at).map(|close| close + 1),
        _ => Some(at.min(tokens.len())),
    }
}

/// Returns the places of the words at the top level between two parentheses.
fn top_level(tokens: &[TokenWithSpan], open: usize, close: usize) -> Vec<usize> {
    let mut depth = 0;
    let mut places = Vec::new();
    for (at, token) in tokens.iter().enumerate().take(close).skip(open + 1) {
        match token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth -= 1,
            _ if depth == 0 => places.push(at),
            _ => {}
        }
    }
    places
}

/// Writes FROM for SIMILAR, and FOR for ESCAPE.
fn similar(tokens: &mut [TokenWithSpan], open: usize) {
    let Some(close) = closing(tokens, open) else { return };
    let places = top_level(tokens, open, close);
    let find = |word: &str| places.iter().copied().find(|at| is_word(&tokens[*at].token, word));
    if let (Some(similar), Some(escape)) = (find("SIMILAR"), find("ESCAPE"))
        && similar < escape
    {
        tokens[similar].token = Token::make_keyword("FROM");
        tokens[escape].token = Token::make_keyword("FOR");
    }
}

/// Writes `btrim(s, characters)` for `trim(BOTH FROM s, characters)`, and `ltrim` and `rtrim` for the other sides.
fn trim(tokens: &mut Vec<TokenWithSpan>, name: usize) {
    let open = name + 1;
    let Some(close) = closing(tokens, open) else { return };
    let side =
        ["BOTH", "LEADING", "TRAILING"].into_iter().find(|side| is_word(&tokens[open + 1].token, side));
    let from = open + 1 + usize::from(side.is_some());
    if !tokens.get(from).is_some_and(|token| is_word(&token.token, "FROM")) {
        return;
    }
    let commas =
        top_level(tokens, open, close).into_iter().filter(|at| tokens[*at].token == Token::Comma).count();
    if commas != 1 {
        return;
    }
    let function = match side {
        Some("LEADING") => "ltrim",
        Some("TRAILING") => "rtrim",
        _ => "btrim",
    };
    tokens[name].token = Token::make_word(function, None);
    tokens.drain(open + 1..=from);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::TokenReader;

    #[test]
    fn calls_have_words_that_are_parsed() {
        let check = |sql: &str, expected: &str| {
            let tokens = rewrite(TokenReader::new(sql).unwrap().rest_tokens());
            let words: Vec<String> = tokens.iter().map(|token| token.token.to_string()).collect();
            let spaced = words.join(" ");
            assert_eq!(spaced.split_whitespace().collect::<Vec<_>>().join(" "), expected);
        };
        check("substring(a similar 'x' escape '#')", "substring ( a FROM 'x' FOR '#' )");
        check("substring(f(similar) from 2)", "substring ( f ( similar ) from 2 )");
        check("trim(leading from a, 'x')", "ltrim ( a , 'x' )");
        check("trim(from f(a, b), 'x')", "btrim ( f ( a , b ) , 'x' )");
        check("trim(both 'x' from a)", "trim ( both 'x' from a )");
        check("trim(a)", "trim ( a )");
        check("|/ 25.0 + ||/ t.x", "sqrt ( 25.0 ) + cbrt ( t . x )");
        check("@ -5 < @ (a - b)", "abs ( - 5 ) < abs ( ( a - b ) )");
    }
}
