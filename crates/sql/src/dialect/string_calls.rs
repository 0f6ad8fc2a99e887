//! Calls and operators that the parser doesn't know: `substring(s SIMILAR p ESCAPE e)`, `trim(BOTH FROM s, characters)`, and
//! PostgreSQL's prefix operators `|/ x`, `||/ x`, `@ x` and `~ x`; Spark's literals `r'\d'` and `TIMESTAMP_NTZ '…'`.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::calls::closing;
use crate::reader::is_word;

/// Rewrites every such call in the tokens to a form that is parsed. Positions in errors stay those of the text.
pub(crate) fn rewrite(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut tokens = enclose_operands(plain_literals(tokens));
    let mut at = 0;
    while at + 1 < tokens.len() {
        if tokens[at + 1].token == Token::LParen {
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

/// Writes `'a\b'` for `r'a\b'`, whose backslashes mean themselves in any literal, and `TIMESTAMP '…'` for
/// `TIMESTAMP_NTZ '…'`.
fn plain_literals(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    for at in 0..tokens.len() {
        let is_literal =
            |at: usize| matches!(tokens.get(at).map(|next| &next.token), Some(Token::SingleQuotedString(_)));
        let plain = match &tokens[at].token {
            Token::SingleQuotedRawStringLiteral(text) | Token::DoubleQuotedRawStringLiteral(text) => {
                Some(Token::SingleQuotedString(text.clone()))
            }
            word if is_word(word, "TIMESTAMP_NTZ") && is_literal(at + 1) => {
                Some(Token::make_keyword("TIMESTAMP"))
            }
            word if is_word(word, "TIMESTAMP_LTZ") && is_literal(at + 1) => {
                Some(Token::make_keyword("TIMESTAMPTZ"))
            }
            _ => None,
        };
        if let Some(plain) = plain {
            tokens[at].token = plain;
        }
    }
    tokens
}

/// Returns the function of a prefix operator, empty for `~`, which is parsed. `@` before a word is a parameter.
fn prefix_function(tokens: &[TokenWithSpan], at: usize) -> Option<&'static str> {
    let next = tokens.get(at + 1).map(|next| &next.token);
    match tokens[at].token {
        Token::PGSquareRoot => Some("sqrt"),
        Token::PGCubeRoot => Some("cbrt"),
        Token::DoubleExclamationMark => Some("tsquery_not"),
        Token::AtSign if matches!(next, Some(Token::Minus | Token::LParen | Token::Number(..))) => {
            Some("abs")
        }
        Token::Tilde if at.checked_sub(1).is_none_or(|before| !ends_operand(&tokens[before].token)) => {
            Some("")
        }
        _ => None,
    }
}

/// True if a token may be the end of an operand: an operator behind it has two operands.
fn ends_operand(token: &Token) -> bool {
    const BEFORE: [&str; 12] =
        ["SELECT", "WHERE", "AND", "OR", "NOT", "WHEN", "THEN", "ELSE", "ON", "HAVING", "BY", "DISTINCT"];
    match token {
        Token::Word(_) => !BEFORE.iter().any(|word| is_word(token, word)),
        Token::LParen | Token::LBracket | Token::Comma | Token::Tilde | Token::PGSquareRoot => false,
        Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::Mod | Token::Caret => false,
        Token::Eq | Token::Neq | Token::Lt | Token::Gt | Token::LtEq | Token::GtEq => false,
        Token::Ampersand | Token::Pipe | Token::Sharp | Token::ShiftLeft | Token::ShiftRight => false,
        Token::PGCubeRoot | Token::AtSign | Token::StringConcat | Token::SemiColon => false,
        _ => true,
    }
}

/// Writes parentheses around the operands of prefix operators, and calls of their functions.
fn enclose_operands(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut ends = vec![None; tokens.len()];
    for at in (0..tokens.len()).rev() {
        if prefix_function(&tokens, at).is_some() {
            ends[at] = operand_end(&tokens, at + 1, &ends);
        }
    }
    if ends.iter().all(Option::is_none) {
        return tokens;
    }
    let functions: Vec<_> = (0..tokens.len()).map(|at| prefix_function(&tokens, at)).collect();
    let mut closings = vec![0_usize; tokens.len() + 1];
    for end in ends.iter().flatten() {
        closings[*end] += 1;
    }
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len() + 8);
    let close = |out: &mut Vec<TokenWithSpan>, at: usize| {
        if let Some(span) = out.last().map(|last| last.span) {
            let count = closings[at];
            out.extend((0..count).map(|_| TokenWithSpan { token: Token::RParen, span }));
        }
    };
    let count = tokens.len();
    for (at, token) in tokens.into_iter().enumerate() {
        close(&mut out, at);
        let span = token.span;
        match functions[at].filter(|_| ends[at].is_some()) {
            Some("") => out.push(token),
            Some(function) => out.push(TokenWithSpan { token: Token::make_word(function, None), span }),
            None => {
                out.push(token);
                continue;
            }
        }
        out.push(TokenWithSpan { token: Token::LParen, span });
    }
    close(&mut out, count);
    out
}

/// Returns the place behind the operand of a prefix operator. As in PostgreSQL, arithmetic binds tighter.
fn operand_end(tokens: &[TokenWithSpan], start: usize, ends: &[Option<usize>]) -> Option<usize> {
    let token = |at: usize| tokens.get(at).map(|token| &token.token);
    let mut at = start;
    loop {
        while matches!(token(at), Some(Token::Minus | Token::Plus)) {
            at += 1;
        }
        if let Some(end) = ends.get(at).copied().flatten() {
            return Some(end);
        }
        at = primary_end(tokens, at)?;
        while token(at) == Some(&Token::DoubleColon) {
            at = primary_end(tokens, at + 1)?;
        }
        match token(at) {
            Some(Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::Mod | Token::Caret) => at += 1,
            _ => return Some(at),
        }
    }
}

/// Returns the place behind a number, a text, a name, a call or a group in parentheses, with its subscripts.
fn primary_end(tokens: &[TokenWithSpan], start: usize) -> Option<usize> {
    let token = |at: usize| tokens.get(at).map(|token| &token.token);
    let mut at = start;
    match token(at)? {
        Token::LParen => at = closing(tokens, at)? + 1,
        word @ Token::Word(_) if !is_word(word, "CASE") => {
            at += 1;
            while token(at) == Some(&Token::Period) {
                at += 2;
            }
            match token(at) {
                Some(Token::LParen) => at = closing(tokens, at)? + 1,
                Some(Token::SingleQuotedString(_)) => at += 1,
                _ => {}
            }
        }
        Token::Number(..) | Token::SingleQuotedString(_) | Token::Placeholder(_) => at += 1,
        _ => return None,
    }
    while token(at) == Some(&Token::LBracket) {
        let rest = tokens.get(at..)?;
        at += rest.iter().position(|token| token.token == Token::RBracket)? + 1;
    }
    (at <= tokens.len()).then_some(at)
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
    if commas > 1 {
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
        check("trim(trailing from a)", "rtrim ( a )");
        check("r'\\d', timestamp_ntz '2020-01-01'", "'\\d' , TIMESTAMP '2020-01-01'");
        check("|/ 25.0 + ||/ t.x < 2", "sqrt ( 25.0 + cbrt ( t . x ) ) < 2");
        check("~ 5 + a::int - ~2", "~ ( 5 + a :: int - ~ ( 2 ) )");
        check("select ~a[1] & 3, b ~ 'x', |/ case", "select ~ ( a [ 1 ] ) & 3 , b ~ 'x' , |/ case");
        check("@ -5 < @ (a - b)", "abs ( - 5 ) < abs ( ( a - b ) )");
    }
}
