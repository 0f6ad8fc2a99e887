//! Reads Millstream's own statements token by token.
//!
//! ```
//! use millstream_sql::TokenReader;
//! let mut reader = TokenReader::new("DROP SOURCE IF EXISTS \"Orders\" CASCADE").unwrap();
//! reader.expect_keyword(&["DROP", "SOURCE"]).unwrap();
//! assert!(reader.keyword(&["IF", "EXISTS"]));
//! assert_eq!(reader.identifier().unwrap(), "Orders");
//! assert!(reader.keyword(&["CASCADE"]));
//! reader.expect_end().unwrap();
//! ```
//!
//! Deliberately absent: expressions and queries, which the planner parses: pass it
//! [`TokenReader::rest_text`].

use std::ops::Range;
use std::sync::Arc;

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Error, Result};
pub(crate) use crate::grammar::is_word;
use crate::relation::{PUBLIC, SearchPath, name_on};
use crate::tokens::{Lexeme, tokenise};

/// A cursor over the tokens of a text. Clone it to look ahead.
#[derive(Debug, Clone)]
pub struct TokenReader<'a> {
    path: Option<Arc<dyn SearchPath>>,
    text: &'a str,
    lexemes: Arc<[Lexeme]>,
    at: usize,
    end: usize,
}

static EOF: Token = Token::EOF;

impl<'a> TokenReader<'a> {
    /// Tokenises a text and starts before its first token.
    pub fn new(text: &'a str) -> Result<TokenReader<'a>> {
        let lexemes: Arc<[Lexeme]> = tokenise(text)?.into();
        let end = lexemes.len();
        Ok(TokenReader { path: None, text, lexemes, at: 0, end })
    }

    /// Looks names of relations without a schema up in a path.
    pub fn on_path(self, path: Option<Arc<dyn SearchPath>>) -> TokenReader<'a> {
        TokenReader { path, ..self }
    }

    /// Returns the whole text.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Returns the next token; `Token::EOF` at the end.
    pub fn peek(&self) -> &Token {
        self.peek_at(0)
    }

    /// Returns the token `n` places after the next one.
    pub fn peek_at(&self, n: usize) -> &Token {
        match self.at + n < self.end {
            true => &self.lexemes[self.at + n].token.token,
            false => &EOF,
        }
    }

    /// Takes the next token.
    #[allow(clippy::should_implement_trait)] // There is always a next token: the end has one of its own.
    pub fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at = (self.at + 1).min(self.end);
        token
    }

    /// True if no token is left.
    pub fn is_end(&self) -> bool {
        self.at >= self.end
    }

    /// Returns the byte range of the next token; at the end, an empty range behind the last token.
    pub fn position(&self) -> Range<usize> {
        match self.at < self.end {
            true => self.lexemes[self.at].range.clone(),
            false => {
                let end = self.lexemes[..self.end].last().map_or(self.text.len(), |lexeme| lexeme.range.end);
                end..end
            }
        }
    }

    /// Returns the byte range of the token that was read last.
    pub fn last_position(&self) -> Range<usize> {
        match self.at.checked_sub(1) {
            Some(last) => self.lexemes[last].range.clone(),
            None => 0..0,
        }
    }

    /// True if these words come next (unquoted, in any case). Takes nothing.
    pub fn is_keyword(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(n, word)| is_word(self.peek_at(n), word))
    }

    /// Takes these words if they come next.
    pub fn keyword(&mut self, words: &[&str]) -> bool {
        let found = self.is_keyword(words);
        if found {
            self.at += words.len();
        }
        found
    }

    /// Takes these words or fails.
    pub fn expect_keyword(&mut self, words: &[&str]) -> Result<()> {
        for word in words {
            if !self.keyword(&[word]) {
                return Err(self.expected(word));
            }
        }
        Ok(())
    }

    /// Takes the first matching phrase and returns its index: `[&["MATERIALIZED", "VIEW"], &["VIEW"]]`.
    pub fn one_of(&mut self, phrases: &[&[&str]]) -> Option<usize> {
        phrases.iter().position(|words| self.keyword(words))
    }

    /// Takes a symbol if it comes next.
    pub fn symbol(&mut self, symbol: Token) -> bool {
        let found = *self.peek() == symbol;
        if found {
            self.at += 1;
        }
        found
    }

    /// Takes a symbol or fails.
    pub fn expect_symbol(&mut self, symbol: Token) -> Result<()> {
        match self.symbol(symbol.clone()) {
            true => Ok(()),
            false => Err(self.expected(&format!("\"{symbol}\""))),
        }
    }

    /// Takes a name, folded to lower case unless it is quoted.
    pub fn identifier(&mut self) -> Result<String> {
        let name = match self.peek() {
            Token::Word(word) if word.quote_style.is_some() => word.value.clone(),
            Token::Word(word) => word.value.to_lowercase(),
            _ => return Err(self.expected("a name")),
        };
        self.at += 1;
        Ok(name)
    }

    /// Takes the name of a function, which can have the schema `public` only.
    pub fn routine(&mut self) -> Result<String> {
        if self.is_qualified() && !self.is_keyword(&[PUBLIC]) {
            return Err(Error::unsupported("a function in another schema than public").at(self.position()));
        }
        if self.is_qualified() {
            self.at += 2;
        }
        self.identifier()
    }

    /// Takes the name of a relation. The schema `public` is dropped, others stay: `millstream.errors`. Of three parts, the
    /// first is the database, of which there is one.
    pub fn relation_name(&mut self) -> Result<String> {
        if self.is_qualified() { self.qualified_name() } else { self.single_name() }
    }

    /// Takes the name of a relation that has no schema.
    fn single_name(&mut self) -> Result<String> {
        let name = self.identifier()?;
        Ok(self.path.as_ref().and_then(|path| path.find(&name)).unwrap_or(name))
    }

    /// Takes the name of a relation that is to be created. Without a schema, it is one of the first schema of the search
    /// path.
    pub fn new_relation_name(&mut self) -> Result<String> {
        if self.is_qualified() {
            return self.qualified_name();
        }
        let name = self.identifier()?;
        Ok(self.path.as_ref().map(|path| path.place(&name)).unwrap_or(name))
    }

    fn qualified_name(&mut self) -> Result<String> {
        let mut parts = vec![self.identifier()?];
        while parts.len() < 3 && self.symbol(Token::Period) {
            parts.push(self.identifier()?);
        }
        let relation = parts.pop().unwrap_or_default();
        Ok(match parts.pop() {
            Some(schema) => name_on(self.path.as_deref(), &schema, &relation),
            None => relation,
        })
    }

    /// Returns true if the next name has a schema.
    pub fn is_qualified(&self) -> bool {
        matches!(self.peek(), Token::Word(_)) && *self.peek_at(1) == Token::Period
    }

    /// Takes a string literal.
    pub fn string(&mut self) -> Result<String> {
        let text = match self.peek() {
            Token::SingleQuotedString(text)
            | Token::EscapedStringLiteral(text)
            | Token::UnicodeStringLiteral(text)
            | Token::NationalStringLiteral(text) => text.clone(),
            Token::DollarQuotedString(text) => text.value.clone(),
            _ => return Err(self.expected("a string in single quotes")),
        };
        self.at += 1;
        Ok(text)
    }

    /// Takes a whole number that isn't negative.
    pub fn number(&mut self) -> Result<u64> {
        let number = match self.peek() {
            Token::Number(digits, _) => digits.parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.expected("a whole number"))?;
        self.at += 1;
        Ok(number)
    }

    /// Takes a literal or a bare word as text: `'x'`, `-1.5`, `true`, `json`, `INTERVAL '10 s'`.
    pub fn value(&mut self) -> Result<String> {
        self.keyword(&["INTERVAL"]);
        let minus = match self.peek() {
            Token::Minus if matches!(self.peek_at(1), Token::Number(..)) => {
                self.at += 1;
                "-"
            }
            _ => "",
        };
        match self.peek().clone() {
            Token::Number(digits, _) => {
                self.at += 1;
                Ok(format!("{minus}{digits}"))
            }
            Token::Word(word) => {
                self.at += 1;
                Ok(word.value)
            }
            _ => self.string().map_err(|_| self.expected("a value, as in 'text', 1 or true")),
        }
    }

    /// Takes the settings of `WITH (k = 'v', a.b.c = 1, "quoted" = true)` in their order; none without WITH.
    /// A duplicate key is an error.
    pub fn options(&mut self) -> Result<Vec<(String, String)>> {
        if !self.keyword(&["WITH"]) {
            return Ok(Vec::new());
        }
        self.option_list()
    }

    /// Takes the settings of `(k = 'v', …)`.
    pub fn option_list(&mut self) -> Result<Vec<(String, String)>> {
        let mut options: Vec<(String, String)> = Vec::new();
        self.expect_symbol(Token::LParen)?;
        if self.symbol(Token::RParen) {
            return Ok(options);
        }
        loop {
            let start = self.position();
            let key = self.option_key()?;
            if options.iter().any(|(other, _)| *other == key) {
                let place = start.start..self.last_position().end;
                return Err(Error::invalid(format!("option \"{key}\" is given twice")).at(place));
            }
            self.expect_symbol(Token::Eq)?;
            options.push((key, self.value()?));
            if self.symbol(Token::RParen) {
                return Ok(options);
            }
            if !self.symbol(Token::Comma) {
                return Err(self.expected("\",\" or \")\""));
            }
        }
    }

    fn option_key(&mut self) -> Result<String> {
        if matches!(self.peek(), Token::SingleQuotedString(_)) {
            return self.string();
        }
        let mut key = self.identifier().map_err(|_| self.expected("the name of an option"))?;
        while self.symbol(Token::Period) {
            key.push('.');
            key.push_str(&self.identifier()?);
        }
        Ok(key)
    }

    /// Takes a group in parentheses and returns the byte range of its content.
    pub fn group(&mut self) -> Result<Range<usize>> {
        let open = self.position();
        self.expect_symbol(Token::LParen)?;
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                Token::EOF => return Err(Error::invalid("syntax error: \"(\" is never closed").at(open)),
                _ => {}
            }
        }
        Ok(open.end..self.last_position().start)
    }

    /// Returns the byte range of the remaining tokens. Takes nothing.
    pub fn rest_text(&self) -> Range<usize> {
        match self.at < self.end {
            true => self.lexemes[self.at].range.start..self.lexemes[self.end - 1].range.end,
            false => self.position(),
        }
    }

    /// Returns the remaining tokens.
    pub fn rest(&self) -> &[Lexeme] {
        &self.lexemes[self.at..self.end]
    }

    /// Returns the remaining tokens in the form that the query parser takes.
    pub fn rest_tokens(&self) -> Vec<TokenWithSpan> {
        self.rest().iter().map(|lexeme| lexeme.token.clone()).collect()
    }

    /// Takes the remaining tokens and returns their byte range.
    pub fn take_rest(&mut self) -> Range<usize> {
        let rest = self.rest_text();
        self.at = self.end;
        rest
    }

    /// Hides the tokens from byte `from` on, as if the text ended there. Cuts a clause off the end.
    pub fn cut(&mut self, from: usize) {
        while self.end > self.at && self.lexemes[self.end - 1].range.start >= from {
            self.end -= 1;
        }
    }

    /// Cuts the `WITH (…)` that ends the text, if there is one, and returns its settings. `CREATE SINK k AS
    /// SELECT … FROM t WITH (…)` needs this: the query parser would take the settings for hints of t.
    pub fn cut_options(&mut self) -> Result<Vec<(String, String)>> {
        if self.end == self.at || self.lexemes[self.end - 1].token.token != Token::RParen {
            return Ok(Vec::new());
        }
        let mut depth = 0;
        let mut open = self.end;
        while open > self.at {
            open -= 1;
            match self.lexemes[open].token.token {
                Token::RParen => depth += 1,
                Token::LParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        if depth != 0 || open <= self.at || !is_word(&self.lexemes[open - 1].token.token, "WITH") {
            return Ok(Vec::new());
        }
        let mut tail = TokenReader { at: open - 1, ..self.clone() };
        let options = tail.options()?;
        self.end = open - 1;
        Ok(options)
    }

    /// Fails unless all tokens have been read.
    pub fn expect_end(&self) -> Result<()> {
        match self.is_end() {
            true => Ok(()),
            false => Err(self.expected("the end of the statement")),
        }
    }

    /// Returns the error `syntax error: expected …, found …` at the next token.
    pub fn expected(&self, what: &str) -> Error {
        let found = match self.peek() {
            Token::EOF => "the end of the statement".to_string(),
            token => token.to_string(),
        };
        Error::invalid(format!("syntax error: expected {what}, found {found}")).at(self.position())
    }
}

/// Reads `relation.column`, or `schema.relation.column`.
pub fn column_name(reader: &mut TokenReader<'_>) -> Result<(String, String)> {
    let start = reader.clone();
    let mut names = vec![reader.identifier()?];
    while reader.symbol(Token::Period) {
        names.push(reader.identifier()?);
    }
    let column = names.pop().unwrap_or_default();
    let name = match names.as_slice() {
        [_] => start.clone().single_name()?,
        [.., schema, relation] => name_on(start.path.as_deref(), schema, relation),
        [] => return Err(start.expected("a column, as in table.column")),
    };
    Ok((name, column))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails<T: std::fmt::Debug>(sql: &str, read: impl Fn(&mut TokenReader) -> Result<T>, expected: &str) {
        let mut reader = TokenReader::new(sql).unwrap();
        assert_eq!(read(&mut reader).unwrap_err().render(sql), expected);
    }

    fn options(sql: &str) -> Vec<(String, String)> {
        TokenReader::new(sql).unwrap().options().unwrap()
    }

    #[test]
    fn options_have_bare_dotted_and_quoted_keys() {
        let found =
            options("WITH (Connector = 'file', properties.bootstrap.server = 'x', \"Odd\" = true, n = -1.5)");
        let found: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let expected =
            [("connector", "file"), ("properties.bootstrap.server", "x"), ("Odd", "true"), ("n", "-1.5")];
        assert_eq!(found, expected);
        assert!(options("WITH ()").is_empty() && options("").is_empty());
        assert_eq!(options("WITH (t = INTERVAL '1 second')"), [("t".to_string(), "1 second".to_string())]);
    }

    #[test]
    fn errors_say_what_was_expected_where() {
        fails(
            "WITH (a 1)",
            |r| r.options(),
            "syntax error: expected \"=\", found 1\nLINE 1: WITH (a 1)\n                ^",
        );
        fails(
            "WITH (a = 1, a = 2)",
            |r| r.options(),
            "option \"a\" is given twice\nLINE 1: WITH (a = 1, a = 2)\n                     ^",
        );
        fails(
            "WITH (a = )",
            |r| r.options(),
            "syntax error: expected a value, as in 'text', 1 or true, found )\nLINE 1: WITH (a = )\n                  ^",
        );
        fails(
            "DROP",
            |r| r.expect_keyword(&["DROP", "TABLE"]),
            "syntax error: expected TABLE, found the end of the statement\nLINE 1: DROP\n            ^",
        );
        fails("1", |r| r.identifier(), "syntax error: expected a name, found 1\nLINE 1: 1\n        ^");
        fails("x", |r| r.number(), "syntax error: expected a whole number, found x\nLINE 1: x\n        ^");
        fails("(a", |r| r.group(), "syntax error: \"(\" is never closed\nLINE 1: (a\n        ^");
        fails(
            "a b",
            |r| {
                r.identifier()?;
                r.expect_end()
            },
            "syntax error: expected the end of the statement, found b\nLINE 1: a b\n          ^",
        );
    }

    #[test]
    fn names_fold_to_lower_case_unless_quoted() {
        let mut reader = TokenReader::new("Public.Orders \"Orders\"").unwrap();
        assert_eq!(reader.relation_name().unwrap(), "orders");
        assert_eq!(reader.relation_name().unwrap(), "Orders");
        let mut reader = TokenReader::new("S.t \"S\".\"T.u\" db.public.t db.s.t").unwrap();
        for name in ["s.t", "S.T.u", "t", "s.t"] {
            assert!(reader.is_qualified());
            assert_eq!(reader.relation_name().unwrap(), name);
        }
    }

    #[test]
    fn the_rest_and_a_group_are_byte_ranges() {
        let sql = "CREATE TABLE t (a INT, b NUMERIC(1,2)) AS  SELECT 'ä' -- end\n";
        let mut reader = TokenReader::new(sql).unwrap();
        reader.expect_keyword(&["CREATE", "TABLE", "T"]).unwrap();
        assert_eq!(&sql[reader.group().unwrap()], "a INT, b NUMERIC(1,2)");
        assert!(reader.keyword(&["AS"]));
        assert_eq!(&sql[reader.take_rest()], "SELECT 'ä'");
        assert!(reader.is_end());
    }

    #[test]
    fn options_at_the_end_are_cut_off() {
        let sql = "SELECT f(a) FROM t WITH (connector = 'print', limit = 3)";
        let mut reader = TokenReader::new(sql).unwrap();
        assert_eq!(reader.cut_options().unwrap().len(), 2);
        assert_eq!(&sql[reader.rest_text()], "SELECT f(a) FROM t");
        assert!(reader.cut_options().unwrap().is_empty());
    }
}
