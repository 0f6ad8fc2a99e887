//! The syntax of SQL/XML that the parser lacks.
//!
//! | written | read as |
//! | --- | --- |
//! | `xmlelement(NAME a, xmlattributes(x AS b, c), y)` | `xmlelement('a b c', xml_attribute(x), xml_attribute(c), xml_content(y))` |
//! | `xmlforest(x AS a, t.b)` | `xmlforest_of('a b', xml_content(x), xml_content(t.b))` |
//! | `xmlpi(NAME a, x)` | `xmlpi('a', x)` |
//! | `xmlparse(DOCUMENT x)` | `xmlparse_document(x)` |
//! | `xmlserialize(CONTENT x AS TEXT)` | `CAST(xmlserialize_content(x) AS TEXT)` |
//! | `xmlroot(x, VERSION NO VALUE, STANDALONE YES)` | `xmlroot(x, NULL, 'yes')` |
//! | `xmlexists(p PASSING BY REF x)` | `xmlexists(p, x)` |
//! | `x IS DOCUMENT` | `xml_is_document(x)` |
//! | `LATERAL XMLTABLE(… PASSING BY VALUE x COLUMNS a INT NOT NULL PATH 'a')` | `XMLTABLE(… PASSING x COLUMNS a INT PATH 'a' NOT NULL)` |

use datafusion::sql::sqlparser::ast::{CastKind, Expr, Ident, UnaryOperator, Value};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::calls::{arguments, call, closing};

/// The character between names in the first argument of a function.
const SEPARATOR: &str = "\u{1f}";

/// A form and the function that reads it behind its opening bracket.
type Form = (&'static str, fn(&mut Parser<'_>) -> Result<Expr, ParserError>);

const FORMS: [Form; 7] = [
    ("xmlelement", element),
    ("xmlforest", forest),
    ("xmlpi", instruction),
    ("xmlparse", parsed),
    ("xmlserialize", serialized),
    ("xmlroot", root),
    ("xmlexists", exists),
];

/// The functions that such forms become, and the names of their columns.
const SHOWN: [(&str, Option<&str>); 6] = [
    ("xmlforest_of", Some("xmlforest")),
    ("xmlparse_content", Some("xmlparse")),
    ("xmlparse_document", Some("xmlparse")),
    ("xmlserialize_content", Some("xmlserialize")),
    ("xmlserialize_document", Some("xmlserialize")),
    ("xml_is_document", None),
];

/// Returns the name of a column that such a form makes; none if a call isn't one.
pub(crate) fn shown_name(function: &str) -> Option<Option<&'static str>> {
    SHOWN.iter().find(|(known, _)| *known == function).map(|(_, shown)| *shown)
}

/// True if a token is this word, unquoted and in any case.
fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}

pub(super) fn is_next(parser: &Parser<'_>, at: usize, word: &str) -> bool {
    is_word(&parser.peek_nth_token_ref(at).token, word)
}

/// Reads a form, if one is next.
pub(crate) fn parse(parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
    if parser.peek_nth_token_ref(1).token != Token::LParen {
        return None;
    }
    let (name, read) = FORMS.iter().find(|(name, _)| is_next(parser, 0, name))?;
    // A call of the function that the form becomes.
    let is_call = match *name {
        "xmlelement" | "xmlpi" => {
            matches!(parser.peek_nth_token_ref(2).token, Token::SingleQuotedString(_))
        }
        _ => false,
    };
    if is_call {
        return None;
    }
    parser.advance_token();
    parser.advance_token();
    Some(read(parser).and_then(|read| {
        parser.expect_token(&Token::RParen)?;
        Ok(read)
    }))
}

/// Reads `IS [NOT] DOCUMENT` behind an operand.
pub(crate) fn parse_test(parser: &mut Parser<'_>, left: &Expr) -> Option<Expr> {
    let negated = is_next(parser, 1, "NOT");
    let width = if negated { 3 } else { 2 };
    if !is_next(parser, 0, "IS") || !is_next(parser, width - 1, "DOCUMENT") {
        return None;
    }
    (0..width).for_each(|_| parser.advance_token());
    let test = call("xml_is_document", vec![left.clone()]);
    Some(match negated {
        true => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(test) },
        false => test,
    })
}

pub(super) fn takes(parser: &mut Parser<'_>, words: &[&str]) -> bool {
    let found = words.iter().enumerate().all(|(at, word)| is_next(parser, at, word));
    if found {
        words.iter().for_each(|_| parser.advance_token());
    }
    found
}

pub(super) fn expected<T>(parser: &Parser<'_>, what: &str) -> Result<T, ParserError> {
    parser.expected_ref(what, parser.peek_token_ref())
}

pub(super) fn text(text: impl Into<String>) -> Expr {
    Expr::value(Value::SingleQuotedString(text.into()))
}

fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

/// Reads `NAME a`.
fn name(parser: &mut Parser<'_>) -> Result<String, ParserError> {
    if !takes(parser, &["NAME"]) {
        return expected(parser, "NAME");
    }
    Ok(folded(&parser.parse_identifier()?))
}

/// Reads values with names, which are those of columns if none are given.
fn named(parser: &mut Parser<'_>, what: &str) -> Result<Vec<(String, Expr)>, ParserError> {
    parser.parse_comma_separated(|parser| {
        let value = parser.parse_expr()?;
        let name = match (parser.parse_keyword(Keyword::AS), &value) {
            (true, _) => folded(&parser.parse_identifier()?),
            (false, Expr::Identifier(name)) => folded(name),
            (false, Expr::CompoundIdentifier(names)) => names.last().map(folded).unwrap_or_default(),
            _ => {
                return Err(ParserError::ParserError(format!(
                    "unnamed XML {what} value must be a column reference: write {value} AS name"
                )));
            }
        };
        Ok((name, value))
    })
}

fn element(parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
    let mut names = vec![name(parser)?];
    let mut values = Vec::new();
    let mut has_attributes = false;
    while parser.consume_token(&Token::Comma) {
        let is_first = !has_attributes && values.is_empty();
        if is_first && takes(parser, &["XMLATTRIBUTES"]) {
            has_attributes = true;
            parser.expect_token(&Token::LParen)?;
            for (name, value) in named(parser, "attribute")? {
                if names[1..].contains(&name) {
                    let message = format!("XML attribute name \"{name}\" appears more than once");
                    return Err(ParserError::ParserError(message));
                }
                names.push(name);
                values.push(call("xml_attribute", vec![value]));
            }
            parser.expect_token(&Token::RParen)?;
        } else {
            values.push(call("xml_content", vec![parser.parse_expr()?]));
        }
    }
    values.insert(0, text(names.join(SEPARATOR)));
    Ok(call("xmlelement", values))
}

fn forest(parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
    let (names, values): (Vec<String>, Vec<Expr>) = named(parser, "element")?.into_iter().unzip();
    let values = values.into_iter().map(|value| call("xml_content", vec![value]));
    Ok(call("xmlforest_of", [text(names.join(SEPARATOR))].into_iter().chain(values).collect()))
}

fn instruction(parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
    let mut values = vec![text(name(parser)?)];
    if parser.consume_token(&Token::Comma) {
        values.push(parser.parse_expr()?);
    }
    Ok(call("xmlpi", values))
}

/// Reads DOCUMENT or CONTENT, and returns one of two names.
fn option(parser: &mut Parser<'_>, names: [&'static str; 2]) -> Result<&'static str, ParserError> {
    match () {
        () if takes(parser, &["DOCUMENT"]) => Ok(names[0]),
        () if takes(parser, &["CONTENT"]) => Ok(names[1]),
        () => expected(parser, "DOCUMENT or CONTENT"),
    }
}

fn parsed(parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
    let function = option(parser, ["xmlparse_document", "xmlparse_content"])?;
    let value = parser.parse_expr()?;
    if takes(parser, &["STRIP", "WHITESPACE"]) {
        // PostgreSQL 15 keeps blanks, too.
    } else {
        takes(parser, &["PRESERVE", "WHITESPACE"]);
    }
    Ok(call(function, vec![value]))
}

fn serialized(parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
    let function = option(parser, ["xmlserialize_document", "xmlserialize_content"])?;
    let value = parser.parse_expr()?;
    parser.expect_keyword_is(Keyword::AS)?;
    let data_type = parser.parse_data_type()?;
    Ok(Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(call(function, vec![value])),
        data_type,
        array: false,
        format: None,
    })
}

fn root(parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
    let value = parser.parse_expr()?;
    parser.expect_token(&Token::Comma)?;
    // A call of the function that the form becomes has no such word.
    let has_word = takes(parser, &["VERSION"]);
    let version = match has_word && takes(parser, &["NO", "VALUE"]) {
        true => Expr::value(Value::Null),
        false => parser.parse_expr()?,
    };
    let mut standalone = text("");
    if parser.consume_token(&Token::Comma) {
        standalone = match () {
            () if !takes(parser, &["STANDALONE"]) => parser.parse_expr()?,
            () if takes(parser, &["YES"]) => text("yes"),
            () if takes(parser, &["NO", "VALUE"]) => text("no value"),
            () if takes(parser, &["NO"]) => text("no"),
            () => return expected(parser, "YES, NO or NO VALUE"),
        };
    }
    Ok(call("xmlroot", vec![value, version, standalone]))
}

fn exists(parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
    let path = parser.parse_expr()?;
    // A call of the function that the form becomes has a comma.
    if !parser.consume_token(&Token::Comma) && !takes(parser, &["PASSING"]) {
        return expected(parser, "PASSING");
    }
    let value = parser.parse_expr()?;
    Ok(call("xmlexists", vec![path, value]))
}

/// Drops words that mean nothing, and puts the clauses of XMLTABLE's columns in order. Positions in errors stay those of the text.
pub(crate) fn rewrite(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is = |token: &TokenWithSpan, word: &str| is_word(&token.token, word);
    if !tokens.iter().any(|token| is(token, "PASSING")) {
        return tokens;
    }
    let mut at = 0;
    while at < tokens.len() {
        let token = |at: usize| tokens.get(at);
        let is_at = |at: usize, word: &str| token(at).is_some_and(|token| is(token, word));
        let is_mechanism = is_at(at, "BY") && (is_at(at + 1, "REF") || is_at(at + 1, "VALUE"));
        let ends =
            || is_at(at + 2, "COLUMNS") || token(at + 2).is_some_and(|next| next.token == Token::RParen);
        if is_mechanism && (at.checked_sub(1).is_some_and(|before| is_at(before, "PASSING")) || ends()) {
            tokens.drain(at..at + 2);
        } else if is_at(at, "LATERAL") && is_at(at + 1, "XMLTABLE") {
            tokens.remove(at);
        } else {
            at += 1;
        }
    }
    for at in 0..tokens.len() {
        let is_table =
            is(&tokens[at], "XMLTABLE") && tokens.get(at + 1).is_some_and(|next| next.token == Token::LParen);
        if let Some(close) = closing(&tokens, at + 1).filter(|_| is_table) {
            order_clauses(&mut tokens, at + 2, close);
        }
    }
    tokens
}

/// Puts PATH before DEFAULT, and that before NOT NULL, in the columns of an XMLTABLE whose arguments are in a range.
fn order_clauses(tokens: &mut [TokenWithSpan], start: usize, close: usize) {
    let is = |token: &TokenWithSpan, word: &str| is_word(&token.token, word);
    let mut depth = 0;
    let columns = tokens[start..close].iter().position(|token| {
        match token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth -= 1,
            _ => {}
        }
        depth == 0 && is(token, "COLUMNS")
    });
    let Some(columns) = columns else { return };
    let mut ordered: Vec<TokenWithSpan> = Vec::with_capacity(close - start);
    let inner = tokens[start + columns + 1..close].to_vec();
    for (number, column) in arguments(&inner).into_iter().enumerate() {
        if number > 0 {
            // The comma.
            ordered.push(inner[ordered.len()].clone());
        }
        let mut clauses: [Vec<TokenWithSpan>; 4] = Default::default();
        let (mut depth, mut clause) = (0, 0);
        for (at, token) in column.iter().enumerate() {
            match token.token {
                Token::LParen | Token::LBracket => depth += 1,
                Token::RParen | Token::RBracket => depth -= 1,
                // The first two tokens are the name and the type.
                _ if depth == 0 && at > 1 => {
                    let is_not = is(token, "NOT") && column.get(at + 1).is_some_and(|next| is(next, "NULL"));
                    clause = match () {
                        () if is(token, "PATH") => 1,
                        () if is(token, "DEFAULT") => 2,
                        () if is_not => 3,
                        () => clause,
                    };
                }
                _ => {}
            }
            clauses[clause].push(token.clone());
        }
        ordered.extend(clauses.into_iter().flatten());
    }
    for (place, token) in tokens[start + columns + 1..close].iter_mut().zip(ordered) {
        *place = token;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::TokenReader;

    #[test]
    fn clauses_of_columns_have_an_order() {
        let check = |sql: &str, expected: &str| {
            let tokens = rewrite(TokenReader::new(sql).unwrap().rest_tokens());
            let words: Vec<String> = tokens.iter().map(|token| token.token.to_string()).collect();
            let spaced = words.join(" ");
            assert_eq!(spaced.split_whitespace().collect::<Vec<_>>().join(" "), expected);
        };
        check(
            "lateral xmltable('r' passing by ref x by value columns n for ordinality, a int not null default f(1, 2) path 'a', b text)",
            "xmltable ( 'r' passing x columns n for ordinality , a int path 'a' default f ( 1 , 2 ) not null , b text )",
        );
        check("xmlexists('a' passing by value x)", "xmlexists ( 'a' passing x )");
    }
}
