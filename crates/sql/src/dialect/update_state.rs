//! Rewrites `FROM UPDATE_STATE(TABLE s PARTITION BY k, value => v, fn => 'f', all_keys => true, timeout =>
//! INTERVAL '1 hour')` in the tokens for the query parser.
//!
//! The call becomes `(SELECT * FROM (SELECT k, "update_state(f)"(v, true, …) AS state FROM s GROUP BY k)
//! WHERE state IS NOT NULL)`. The filter drops keys without a state, and keeps the optimizer from removing
//! the state.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer};

use super::calls::{arguments, closing};
use crate::error::{Error, Result};
use crate::reader::is_word;
use crate::routines::aggregate_name;
use crate::suggestion;
use crate::tokens;

/// The names of the optional arguments.
const ARGUMENTS: [&str; 4] = ["value", "fn", "all_keys", "timeout"];

/// Rewrites every call in the tokens. Positions in errors stay those of the text.
pub(crate) fn rewrite(found: Vec<TokenWithSpan>, text: &str) -> Result<Vec<TokenWithSpan>> {
    let is_call = |at: usize| {
        is_word(&found[at].token, "UPDATE_STATE")
            && found.get(at + 1).is_some_and(|t| t.token == Token::LParen)
    };
    if !(0..found.len()).any(is_call) {
        return Ok(found);
    }
    let mut out = Vec::with_capacity(found.len());
    let mut at = 0;
    while at < found.len() {
        if !is_call(at) {
            out.push(found[at].clone());
            at += 1;
            continue;
        }
        let end = closing(&found, at + 1).ok_or_else(|| wrong("\"(\" is never closed", &found[at], text))?;
        let call = Call { text, name: &found[at], inner: &found[at + 2..end] };
        // Calls within the input are rewritten too.
        out.extend(rewrite(call.rewritten()?, text)?);
        at = end + 1;
    }
    Ok(out)
}

fn wrong(message: &str, at: &TokenWithSpan, text: &str) -> Error {
    let start = at.span.start;
    Error::invalid(format!("UPDATE_STATE: {message}")).at(tokens::token_at(text, start.line, start.column))
}

/// A call: its name and the tokens in its parentheses.
struct Call<'a> {
    text: &'a str,
    name: &'a TokenWithSpan,
    inner: &'a [TokenWithSpan],
}

/// The named arguments.
#[derive(Default)]
struct Named<'a> {
    values: [Option<&'a [TokenWithSpan]>; 4],
}

impl<'a> Call<'a> {
    fn wrong(&self, message: &str) -> Error {
        wrong(message, self.name, self.text).hint(
            "Write UPDATE_STATE(TABLE s PARTITION BY k, value => v, fn => 'f' [, all_keys => true] [, timeout => \
             INTERVAL '1 hour']).",
        )
    }

    fn rewritten(&self) -> Result<Vec<TokenWithSpan>> {
        let given = arguments(self.inner);
        let (input, named) = given.split_first().ok_or_else(|| self.wrong("no arguments"))?;
        let by = input
            .windows(2)
            .position(|pair| is_word(&pair[0].token, "PARTITION") && is_word(&pair[1].token, "BY"))
            .ok_or_else(|| self.wrong("PARTITION BY is missing"))?;
        let (mut relation, keys) = (&input[..by], &input[by + 2..]);
        if relation.first().is_some_and(|token| is_word(&token.token, "TABLE")) {
            relation = &relation[1..];
        }
        if relation.is_empty() || keys.is_empty() {
            return Err(self.wrong("a relation and what to partition it by are needed"));
        }
        let keys = match keys {
            [open, rest @ .., _]
                if open.token == Token::LParen && closing(keys, 0) == Some(keys.len() - 1) =>
            {
                rest
            }
            keys => keys,
        };
        let named = self.named(named)?;
        let [Some(value), Some(function), all_keys, timeout] = named.values else {
            return Err(self.wrong("value and fn are needed"));
        };
        let function = self.function(function)?;
        let mut out = Written { span: self.name.span, tokens: Vec::new() };
        out.words("(SELECT * FROM (SELECT")?;
        out.tokens.extend_from_slice(keys);
        out.words(&format!(", \"{}\"(", aggregate_name(&function).replace('"', "\"\"")))?;
        out.tokens.extend_from_slice(value);
        out.words(",")?;
        out.or(all_keys, "FALSE")?;
        out.words(",")?;
        out.or(timeout, "NULL")?;
        out.words(") AS \"state\" FROM")?;
        out.tokens.extend_from_slice(relation);
        out.words("GROUP BY")?;
        out.tokens.extend_from_slice(keys);
        out.words(") WHERE \"state\" IS NOT NULL)")?;
        Ok(out.tokens)
    }

    fn named(&self, arguments: &[&'a [TokenWithSpan]]) -> Result<Named<'a>> {
        let mut named = Named::default();
        for argument in arguments {
            let [name, arrow, value @ ..] = argument else {
                return Err(self.wrong("an argument has no name"));
            };
            if arrow.token != Token::RArrow || value.is_empty() {
                return Err(self.wrong("its arguments are written name => value"));
            }
            let Some(place) = ARGUMENTS.iter().position(|known| is_word(&name.token, known)) else {
                let written = name.token.to_string();
                return Err(wrong(&format!("there is no argument {written}"), name, self.text)
                    .maybe_hint(suggestion::hint(&written, "arguments", ARGUMENTS)));
            };
            if named.values[place].replace(value).is_some() {
                return Err(wrong(&format!("{} is given twice", ARGUMENTS[place]), name, self.text));
            }
        }
        Ok(named)
    }

    /// Returns the name of a function, which is written as text or as a name.
    fn function(&self, tokens: &[TokenWithSpan]) -> Result<String> {
        match tokens {
            [token] => match &token.token {
                Token::SingleQuotedString(name) => Ok(name.clone()),
                Token::Word(word) if word.quote_style.is_some() => Ok(word.value.clone()),
                Token::Word(word) => Ok(word.value.to_lowercase()),
                _ => Err(self.wrong("fn is the name of a function")),
            },
            _ => Err(self.wrong("fn is the name of a function")),
        }
    }
}

/// Generated tokens with the position of the call.
struct Written {
    span: Span,
    tokens: Vec<TokenWithSpan>,
}

impl Written {
    fn words(&mut self, sql: &str) -> Result<()> {
        let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize();
        let tokens = tokens.map_err(|error| Error::bug(error.to_string()))?;
        let tokens = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_)));
        self.tokens.extend(tokens.map(|token| TokenWithSpan { token, span: self.span }));
        Ok(())
    }

    fn or(&mut self, given: Option<&[TokenWithSpan]>, otherwise: &str) -> Result<()> {
        match given {
            Some(tokens) => self.tokens.extend_from_slice(tokens),
            None => self.words(otherwise)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::TokenReader;

    fn rewritten(sql: &str) -> Result<String> {
        let tokens = TokenReader::new(sql).unwrap().rest_tokens();
        let words: Vec<String> =
            rewrite(tokens, sql)?.into_iter().map(|token| token.token.to_string()).collect();
        Ok(words.join(" "))
    }

    #[test]
    fn a_call_becomes_an_aggregate() {
        assert_eq!(
            rewritten("SELECT * FROM update_state(TABLE s PARTITION BY k, value => v + 1, fn => 'f') AS u")
                .unwrap(),
            "SELECT * FROM ( SELECT * FROM ( SELECT k , \"update_state(f)\" ( v + 1 , FALSE , NULL ) AS \"state\" FROM \
             s GROUP BY k ) WHERE \"state\" IS NOT NULL ) AS u"
        );
        assert_eq!(
            rewritten("UPDATE_STATE((SELECT 1) PARTITION BY (a, b), fn => F, value => v, all_keys => true, timeout => x)")
                .unwrap(),
            "( SELECT * FROM ( SELECT a , b , \"update_state(f)\" ( v , true , x ) AS \"state\" FROM ( SELECT 1 ) \
             GROUP BY a , b ) WHERE \"state\" IS NOT NULL )"
        );
        assert_eq!(rewritten("SELECT update_state FROM t").unwrap(), "SELECT update_state FROM t");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (sql, message) in [
            ("UPDATE_STATE(TABLE s, value => v, fn => 'f')", "UPDATE_STATE: PARTITION BY is missing"),
            ("UPDATE_STATE(TABLE s PARTITION BY k, fn => 'f')", "UPDATE_STATE: value and fn are needed"),
            (
                "UPDATE_STATE(TABLE s PARTITION BY k, value => v, fun => 'f')",
                "UPDATE_STATE: there is no argument fun",
            ),
            (
                "UPDATE_STATE(TABLE s PARTITION BY k, value => v, value => w, fn => f)",
                "UPDATE_STATE: value is given twice",
            ),
            ("UPDATE_STATE(TABLE s PARTITION BY k, v, fn => f)", "UPDATE_STATE: an argument has no name"),
            (
                "UPDATE_STATE(TABLE s PARTITION BY k, value => v, fn => 1)",
                "UPDATE_STATE: fn is the name of a function",
            ),
        ] {
            assert_eq!(rewritten(sql).unwrap_err().message, message, "{sql}");
        }
    }
}
