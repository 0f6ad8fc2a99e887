//! Corrects tokens to PostgreSQL's: the numbers `1_000`, `0xff`, `0o17`, `0b101`, and `?` as an operator.
//!
//! The tokeniser splits `1_000` into `1` and a name `_000`, which the parser would take for an alias. A
//! number directly followed by a name is one number, or an error, but never two tokens.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::Lexeme;
use crate::error::{Error, Result};

/// Joins the tokens of each number.
pub(super) fn join(sql: &str, lexemes: Vec<Lexeme>) -> Result<Vec<Lexeme>> {
    let mut joined: Vec<Lexeme> = Vec::with_capacity(lexemes.len());
    let mut all = lexemes.into_iter().peekable();
    // The open parentheses of `PATTERN ( … )`, where a question mark is a quantifier.
    let mut pattern = 0_usize;
    while let Some(mut lexeme) = all.next() {
        match &lexeme.token.token {
            Token::LParen if pattern > 0 || joined.last().is_some_and(is_pattern) => pattern += 1,
            Token::RParen => pattern = pattern.saturating_sub(1),
            _ => {}
        }
        let (sure, likely) =
            (joined.last().is_some_and(ends_operand), joined.last().is_some_and(may_be_name));
        if pattern == 0 && is_question_mark(&lexeme) && (sure || likely) {
            let gap = sure && joined.last().is_some_and(|before| before.range.end < lexeme.range.start);
            if let Some(token) = operator(&mut all.clone(), &lexeme, gap) {
                if token != Token::Question
                    && let Some(rest) = all.next()
                {
                    lexeme.range.end = rest.range.end;
                    lexeme.token.span.end = rest.token.span.end;
                }
                lexeme.token.token = token;
            }
        }
        let written = &sql[lexeme.range.clone()];
        let radix = match &lexeme.token.token {
            Token::Number(_, false) => false,
            // `X'ff'` is bytes, `0xff` a number.
            Token::HexStringLiteral(_) if written.starts_with('0') => true,
            _ => {
                joined.push(lexeme);
                continue;
            }
        };
        let alone = lexeme.range.end;
        // `1..2` and `a.1` have their own meaning. Only names, and tokens behind these, belong to the number.
        while let Some(next) = all.peek()
            && next.range.start == lexeme.range.end
            && belongs(&next.token.token, lexeme.range.end > alone)
        {
            lexeme.range.end = next.range.end;
            lexeme.token.span.end = next.token.span.end;
            all.next();
        }
        if radix || lexeme.range.end > alone {
            let written = &sql[lexeme.range.clone()];
            let Some(number) = read(written) else {
                return Err(Error::invalid(format!("syntax error: \"{written}\" is not a number"))
                    .hint("Put a space between a number and a name.")
                    .at(lexeme.range));
            };
            lexeme.token.token = Token::Number(number, false);
        }
        joined.push(lexeme);
    }
    Ok(joined)
}

fn is_question_mark(lexeme: &Lexeme) -> bool {
    matches!(&lexeme.token.token, Token::Placeholder(mark) if mark == "?")
}

/// True for the word before the parentheses of a row pattern.
fn is_pattern(before: &Lexeme) -> bool {
    matches!(&before.token.token, Token::Word(word) if word.keyword == Keyword::PATTERN && word.quote_style.is_none())
}

/// True for words that are usual names of columns and that the grammar also has a meaning for.
fn may_be_name(before: &Lexeme) -> bool {
    use Keyword::{DATA, INPUT, KEY, METADATA, NAME, OBJECT, OUTPUT, SOURCE, TAG, TYPE, VALUE};
    let Token::Word(word) = &before.token.token else { return false };
    let names = [DATA, INPUT, KEY, METADATA, NAME, OBJECT, OUTPUT, SOURCE, TAG, TYPE, VALUE];
    names.contains(&word.keyword)
}

/// True if an operand may end with a token.
fn ends_operand(before: &Lexeme) -> bool {
    match &before.token.token {
        Token::Word(word) => {
            let is_type = matches!(word.keyword, Keyword::JSON | Keyword::JSONB);
            word.keyword == Keyword::NoKeyword || word.quote_style.is_some() || is_type
        }
        Token::RParen | Token::RBracket | Token::SingleQuotedString(_) => true,
        _ => false,
    }
}

/// Returns the operator that a question mark between two operands begins, as in `json ? 'key'` and `json ?| keys`,
/// rather than a parameter or a quantifier of a row pattern. Before an operand other than a literal it needs a gap.
fn operator(after: &mut dyn Iterator<Item = Lexeme>, mark: &Lexeme, gap: bool) -> Option<Token> {
    let first = after.next()?;
    let joined = match &first.token.token {
        Token::Pipe => Some(Token::QuestionPipe),
        Token::Ampersand => Some(Token::QuestionAnd),
        _ => None,
    };
    let joined = joined.filter(|_| first.range.start == mark.range.end);
    let (operator, operand) = match joined {
        Some(operator) => (operator, after.next()?),
        None => (Token::Question, first),
    };
    let begins = match &operand.token.token {
        Token::SingleQuotedString(_) | Token::Placeholder(_) => true,
        Token::Word(word) if word.keyword == Keyword::ARRAY => true,
        Token::Word(word) => gap && (word.keyword == Keyword::NoKeyword || word.quote_style.is_some()),
        Token::LParen | Token::LBracket => gap,
        _ => false,
    };
    begins.then_some(operator)
}

/// True if a token directly after a number is part of it.
fn belongs(token: &Token, joined: bool) -> bool {
    match token {
        Token::Word(word) => word.quote_style.is_none(),
        // The rest of `1_000.5` after `1_000`.
        Token::Number(text, _) => joined && text.starts_with('.'),
        _ => false,
    }
}

/// Returns the decimal digits of a number; none if the text is not a number.
fn read(written: &str) -> Option<String> {
    let digits = |text: &str, valid: fn(char) -> bool| {
        let apart = text.split('_').all(|part| !part.is_empty() && part.chars().all(valid));
        apart.then(|| text.replace('_', ""))
    };
    let lower = written.to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(rest) = lower.strip_prefix(prefix) {
            let rest = rest.strip_prefix('_').unwrap_or(rest);
            let digits = digits(rest, |c| c.is_ascii_hexdigit())?;
            return u128::from_str_radix(&digits, radix).ok().map(|number| number.to_string());
        }
    }
    let (mantissa, exponent) = match lower.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (lower.as_str(), None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let mut number = digits(whole, |c| c.is_ascii_digit())?;
    match fraction {
        Some("") => number.push('.'),
        Some(fraction) => number = format!("{number}.{}", digits(fraction, |c| c.is_ascii_digit())?),
        None => {}
    }
    if let Some(exponent) = exponent {
        number = format!("{number}e{}", digits(exponent, |c| c.is_ascii_digit())?);
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::super::tokenise;
    use super::*;

    fn numbers(sql: &str, expected: &[&str]) {
        let found: Vec<String> = tokenise(sql)
            .unwrap()
            .into_iter()
            .filter_map(|lexeme| match lexeme.token.token {
                Token::Number(text, _) => Some(text),
                _ => None,
            })
            .collect();
        assert_eq!(found, expected, "{sql}");
    }

    #[test]
    fn underscores_and_radices_are_part_of_a_number() {
        numbers(
            "SELECT 1_000, 1_000.25, 0xff, 0x_F_f, 0o17, 0b101, 1e3",
            &["1000", "1000.25", "255", "255", "15", "5", "1e3"],
        );
        numbers("SELECT 1 _000, x1, 1.5, .5, a[1]", &["1", "1.5", ".5", "1"]);
        assert!(matches!(tokenise("X'ff'").unwrap()[0].token.token, Token::HexStringLiteral(_)));
    }

    #[test]
    fn a_name_that_touches_a_number_is_an_error() {
        for sql in ["SELECT 1abc", "SELECT 1__0", "SELECT 0b12", "SELECT 0xfg"] {
            let error = tokenise(sql).unwrap_err();
            assert!(error.message.ends_with("is not a number"), "{sql}: {error}");
        }
    }
}
