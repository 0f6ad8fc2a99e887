//! Lambdas: `transform(a, x -> x + 1)`, `reduce(a, 0, (acc, x) -> acc + x)`.
//!
//! Elsewhere `x -> 1` is an element of a JSON value. An argument of a higher-order function that begins with names and `->`
//! is a lambda. Its arrow becomes a token that nothing else has.

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, LambdaFunction, LambdaFunctionParameter, LambdaSyntax, OneOrManyWithParens,
};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::calls::{arguments, closing};

/// The functions, with their names in the registry.
const FUNCTIONS: [(&str, &str); 22] = [
    ("aggregate", "aggregate"),
    ("any_match", "any_match"),
    ("array_any_match", "array_any_match"),
    ("array_filter", "array_filter"),
    ("array_first", "array_first"),
    ("array_sort", "array_sort_by"),
    ("array_transform", "array_transform"),
    ("exists", "exists"),
    ("filter", "filter"),
    ("forall", "forall"),
    ("list_any_match", "list_any_match"),
    ("list_filter", "list_filter"),
    ("list_first", "list_first"),
    ("list_reduce", "reduce"),
    ("list_transform", "list_transform"),
    ("map_filter", "map_filter"),
    ("map_zip_with", "map_zip_with"),
    ("reduce", "reduce"),
    ("transform", "transform"),
    ("transform_keys", "transform_keys"),
    ("transform_values", "transform_values"),
    ("zip_with", "zip_with"),
];

/// The words that begin a subquery or a condition.
const STARTS: [&str; 6] = ["SELECT", "WITH", "VALUES", "TABLE", "FROM", "WHERE"];

/// The text of the token for the arrow of a lambda.
const ARROW: &str = "->";

/// Marks the arrows of lambdas. Positions in errors stay those of the text.
pub(crate) fn rewrite(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    if !tokens.iter().any(|token| token.token == Token::Arrow) {
        return tokens;
    }
    for at in 0..tokens.len() {
        let Some(name) = function_at(&tokens, at) else { continue };
        let Some(close) = closing(&tokens, at + 1) else { continue };
        let mut start = at + 2;
        let mut arrows = Vec::new();
        for (number, argument) in arguments(&tokens[start..close]).into_iter().enumerate() {
            if let Some(arrow) = arrow_of(argument).filter(|_| number > 0) {
                arrows.push(start + arrow);
            }
            start += argument.len() + 1;
        }
        if !arrows.is_empty() {
            // In quotes, EXISTS and FILTER are no keywords.
            tokens[at].token = Token::make_word(name, Some('"'));
            arrows.into_iter().for_each(|at| tokens[at].token = Token::CustomBinaryOperator(ARROW.into()));
        }
    }
    tokens
}

/// Returns the registered name of a function with lambdas that is called here.
fn function_at(tokens: &[TokenWithSpan], at: usize) -> Option<&'static str> {
    let Token::Word(word) = &tokens[at].token else { return None };
    if tokens.get(at + 1)?.token != Token::LParen {
        return None;
    }
    // EXISTS (SELECT a, b -> 'k' …) and FILTER (WHERE …) have no lambdas.
    let first = &tokens.get(at + 2)?.token;
    if let Token::Word(first) = first
        && first.quote_style.is_none()
        && STARTS.iter().any(|start| first.value.eq_ignore_ascii_case(start))
    {
        return None;
    }
    let found = FUNCTIONS.iter().find(|(name, _)| match word.quote_style {
        Some(_) => word.value == *name,
        None => word.value.eq_ignore_ascii_case(name),
    });
    found.map(|(_, name)| *name)
}

/// Returns the place of the arrow in an argument that is a lambda.
fn arrow_of(argument: &[TokenWithSpan]) -> Option<usize> {
    let token = |at: usize| argument.get(at).map(|token| &token.token);
    let arrow = match token(0)? {
        Token::Word(_) => 1,
        Token::LParen => {
            let mut at = 1;
            while let (Some(Token::Word(_)), Some(Token::Comma)) = (token(at), token(at + 1)) {
                at += 2;
            }
            match (token(at), token(at + 1)) {
                (Some(Token::Word(_)), Some(Token::RParen)) => at + 2,
                _ => return None,
            }
        }
        _ => return None,
    };
    (token(arrow) == Some(&Token::Arrow)).then_some(arrow)
}

/// Parses a lambda whose arrow is marked; none if another expression begins here.
pub(crate) fn parse(parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
    let is_arrow = |token: &Token| matches!(token, Token::CustomBinaryOperator(text) if text == ARROW);
    let name = |parser: &Parser<'_>, at: usize| match &parser.peek_nth_token_ref(at).token {
        Token::Word(word) => {
            Some(Ident { value: word.value.clone(), quote_style: word.quote_style, ..Ident::new("") })
        }
        _ => None,
    };
    let mut names = Vec::new();
    let arrow = match &parser.peek_token_ref().token {
        Token::Word(_) => {
            names.extend(name(parser, 0));
            1
        }
        Token::LParen => {
            let mut at = 1;
            loop {
                names.push(name(parser, at)?);
                match parser.peek_nth_token_ref(at + 1).token {
                    Token::Comma => at += 2,
                    Token::RParen => break at + 2,
                    _ => return None,
                }
            }
        }
        _ => return None,
    };
    if !is_arrow(&parser.peek_nth_token_ref(arrow).token) {
        return None;
    }
    (0..=arrow).for_each(|_| parser.advance_token());
    let params = names.into_iter().map(|name| LambdaFunctionParameter { name, data_type: None });
    let params = OneOrManyWithParens::Many(params.collect());
    let body = parser.parse_expr();
    Some(body.map(|body| {
        Expr::Lambda(LambdaFunction { params, body: Box::new(body), syntax: LambdaSyntax::Arrow })
    }))
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn arrows_of_json_stay() {
        let check = |sql: &str, expected: &str| Tables::new().check(&format!("SELECT {sql}"), &[expected]);
        check("transform(ARRAY['{\"k\": 1}'::JSON], x -> x -> 'k')", "[1]");
        check("coalesce('{\"a\": 1}'::JSON -> 'a', '{}'::JSON)", "1");
        check("exists(ARRAY[1, 2], \"X\" -> \"X\" > 1), EXISTS (SELECT 1)", "true|true");
        check("EXISTS (SELECT 1, x -> 'a' FROM (VALUES ('{}'::JSON)) AS t(x))", "true");
        check("count(*) FILTER (WHERE '{\"a\": 1}'::JSON -> 'a' IS NOT NULL)", "1");
    }
}
