//! Forms of PostgreSQL that the parser lacks, and that mean no more than others that it has.
//!
//! | written | read as |
//! | --- | --- |
//! | `FROM ONLY t`, `FROM t *` | `FROM t`: tables have no children |
//! | `WITH t AS [NOT] MATERIALIZED (…)` | `WITH t AS (…)` |
//! | `ORDER BY a USING <`, `USING >` | `ORDER BY a ASC`, `DESC` |
//! | `f(a, VARIADIC ARRAY[b, c])` | `f(a, b, c)` |
//! | `inet '10.0.0.1'` | `CAST('10.0.0.1' AS inet)` |
//! | `a <<= b`, `a <-> b`, `a ?- b`, `a -|- b` and the like | one operator each |
//! | `a @@@ b` | `a @@ b` |
//! | `STRUCT(a INT, b TEXT)` as a type | `STRUCT<a INT, b TEXT>` |
//! | `COLLATION FOR (a)`, `COLLATION FOR (a COLLATE "C")` | `pg_collation_for(a)`, `pg_collation_for(a, '"C"')` |

use datafusion::sql::sqlparser::keywords::RESERVED_FOR_TABLE_ALIAS;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::functions::marks::Mark;
use crate::functions::quote_ident;
use crate::reader::is_word;

/// The old spelling of `@@`, which the tokenizer takes for a word.
const SEARCH: &str = "@@@";

/// Operators of several symbols, each of which the tokeniser reads alone.
const OPERATORS: [&str; 19] = [
    "<<=", ">>=", "<->", "##", "&<", "&>", "<<|", "|>>", "&<|", "|&>", "<^", ">^", "?#", "?-", "?|", "?-|",
    "?||", "~=", "-|-",
];

/// The operator for the length of a path.
const LENGTH: &str = "@-@";

/// Words before which an operand ends, so that another one begins after them.
const BEFORE_OPERANDS: [&str; 26] = [
    "SELECT",
    "DISTINCT",
    "ALL",
    "ANY",
    "SOME",
    "WHERE",
    "HAVING",
    "ON",
    "AND",
    "OR",
    "XOR",
    "NOT",
    "IN",
    "LIKE",
    "BETWEEN",
    "SYMMETRIC",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "BY",
    "VALUES",
    "RETURNING",
    "RETURN",
    "DEFAULT",
    "FROM",
];

/// Words behind the first operand of a call's argument, unlike a type.
const BEHIND_OPERANDS: [&str; 16] = [
    "AS", "AND", "OR", "IS", "IN", "NOT", "LIKE", "ILIKE", "RLIKE", "SIMILAR", "BETWEEN", "COLLATE", "AT",
    "DIV", "ORDER", "OVERLAPS",
];

/// Returns the text of a token that can be a part of an operator.
fn symbol(token: &Token) -> Option<&'static str> {
    Some(match token {
        Token::Lt => "<",
        Token::Gt => ">",
        Token::Eq => "=",
        Token::Pipe => "|",
        Token::Ampersand => "&",
        Token::Caret => "^",
        Token::Tilde => "~",
        Token::Sharp => "#",
        Token::Minus => "-",
        Token::Arrow => "->",
        Token::StringConcat => "||",
        Token::ShiftLeft => "<<",
        Token::ShiftRight => ">>",
        Token::VerticalBarRightAngleBracket => "|>",
        Token::Placeholder(mark) if mark == "?" => "?",
        _ => return None,
    })
}

/// Rewrites all such forms. Positions in errors stay those of the text.
pub(crate) fn rewrite(found: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let words = ["ONLY", "MATERIALIZED", "USING", "VARIADIC", "COLLATION", "STRUCT"];
    let may_have = |token: &TokenWithSpan| match &token.token {
        Token::Mul => true,
        token if symbol(token).is_some() => true,
        Token::Word(word) => {
            word.value.starts_with(LENGTH)
                || is_word(&token.token, SEARCH)
                || words.iter().any(|known| is_word(&token.token, known))
                || Mark::named(&word.value.to_lowercase()).is_some()
        }
        _ => false,
    };
    if !found.iter().any(may_have) {
        return found;
    }
    let mut out = Vec::with_capacity(found.len());
    let mut closed: Vec<usize> = Vec::new();
    let mut collated: Option<(usize, Token)> = None;
    let mut ends_of_structs: Vec<usize> = Vec::new();
    let mut at = 0;
    while at < found.len() {
        let tokens = Tokens(&found);
        let here = |token: Token| TokenWithSpan { token, span: found[at].span };
        if closed.contains(&at) || tokens.is_only(at) || tokens.is_star(at) {
            at += 1;
        } else if ends_of_structs.contains(&at) {
            out.push(here(Token::Gt));
            at += 1;
        } else if let Some(end) = tokens.struct_type(at) {
            out.push(found[at].clone());
            out.push(TokenWithSpan { token: Token::Lt, span: found[at + 1].span });
            ends_of_structs.push(end);
            at += 2;
        } else if let Some((_, name)) = collated.take_if(|(place, _)| *place == at) {
            out.extend([Token::Comma, name].map(here));
            at += 2;
        } else if tokens.is_collation_for(at) {
            out.push(here(Token::make_word("pg_collation_for", None)));
            collated = tokens.collation_at_end(at + 2);
            at += 2;
        } else if is_word(&found[at].token, SEARCH) {
            out.push(here(Token::AtAt));
            at += 1;
        } else if let Some((operator, width)) = tokens.operator(at) {
            out.push(here(Token::CustomBinaryOperator(operator.into())));
            at += width;
        } else if let Some(split) = tokens.length(at) {
            out.extend(split.into_iter().map(here));
            at += 1;
        } else if let Some(literal) = tokens.typed_literal(at) {
            out.extend(literal.into_iter().map(here));
            at += 2;
        } else if let Some(width) = tokens.materialized(at) {
            at += width;
        } else if let Some(word) = tokens.direction(at) {
            out.push(here(Token::make_keyword(word)));
            at += 2;
        } else if let Some(end) = tokens.variadic(at) {
            closed.push(end);
            at += 3;
        } else {
            out.push(found[at].clone());
            at += 1;
        }
    }
    out
}

struct Tokens<'a>(&'a [TokenWithSpan]);

impl Tokens<'_> {
    fn get(&self, at: usize) -> Option<&Token> {
        self.0.get(at).map(|token| &token.token)
    }

    fn is(&self, at: usize, words: &[&str]) -> bool {
        self.get(at).is_some_and(|token| words.iter().any(|word| is_word(token, word)))
    }

    /// True if a token is a name rather than the beginning of a clause.
    fn is_name(&self, at: usize) -> bool {
        match self.get(at) {
            Some(Token::Word(word)) => {
                word.quote_style.is_some() || !RESERVED_FOR_TABLE_ALIAS.contains(&word.keyword)
            }
            _ => false,
        }
    }

    /// True for ONLY before a table.
    fn is_only(&self, at: usize) -> bool {
        let is_table = self.is_name(at + 1) || self.get(at + 1) == Some(&Token::LParen);
        self.is(at, &["ONLY"]) && is_table && at > 0 && self.is(at - 1, &["FROM", "JOIN", "UPDATE"])
    }

    /// True for `*` after a table.
    fn is_star(&self, at: usize) -> bool {
        let ends = match self.get(at + 1) {
            None | Some(Token::RParen | Token::Comma | Token::SemiColon | Token::EOF) => true,
            Some(_) => self.is(at + 1, &["AS"]) || (self.is_word(at + 1) && !self.is_name(at + 1)),
        };
        if self.get(at) != Some(&Token::Mul) || !ends {
            return false;
        }
        let Some(mut first) = at.checked_sub(1).filter(|name| self.is_name(*name)) else { return false };
        while first >= 2 && self.get(first - 1) == Some(&Token::Period) && self.is_name(first - 2) {
            first -= 2;
        }
        first > 0 && self.is(first - 1, &["FROM", "JOIN", "ONLY"])
    }

    fn is_word(&self, at: usize) -> bool {
        matches!(self.get(at), Some(Token::Word(_)))
    }

    /// Returns the number of tokens of `[NOT] MATERIALIZED` between AS and the query.
    fn materialized(&self, at: usize) -> Option<usize> {
        let width = if self.is(at, &["NOT"]) { 2 } else { 1 };
        let is_clause = at > 0
            && self.is(at - 1, &["AS"])
            && self.is(at + width - 1, &["MATERIALIZED"])
            && self.get(at + width) == Some(&Token::LParen);
        is_clause.then_some(width)
    }

    /// Returns the operator of symbols without blanks between them, and the number of their tokens.
    fn operator(&self, at: usize) -> Option<(&'static str, usize)> {
        let mut written = symbol(self.get(at)?)?.to_string();
        let mut found = None;
        for width in 2..=3 {
            let (last, next) = (self.0.get(at + width - 2)?, self.0.get(at + width - 1));
            let Some(next) = next.filter(|next| last.span.end == next.span.start) else { break };
            let Some(text) = symbol(&next.token) else { break };
            written.push_str(text);
            found = OPERATORS.iter().find(|known| **known == written).map(|known| (*known, width)).or(found);
        }
        found
    }

    /// Returns the operator `@-@`, which the tokeniser takes for the beginning of a name, and the rest of that name.
    fn length(&self, at: usize) -> Option<Vec<Token>> {
        let Some(Token::Word(word)) = self.get(at) else { return None };
        let rest = word.value.strip_prefix(LENGTH).filter(|_| word.quote_style.is_none())?;
        let name = (!rest.is_empty()).then(|| Token::make_word(rest, None));
        Some([Token::CustomBinaryOperator(LENGTH.into())].into_iter().chain(name).collect())
    }

    /// Returns a literal of a type whose name the parser doesn't know, as a cast.
    fn typed_literal(&self, at: usize) -> Option<[Token; 6]> {
        let (Token::Word(word), text @ Token::SingleQuotedString(_)) = (self.get(at)?, self.get(at + 1)?)
        else {
            return None;
        };
        // The parser reads BIT '101', whose length is that of the text, unlike that of a cast to BIT.
        let named = Mark::named(&word.value.to_lowercase()).filter(|mark| *mark != Mark::Bit);
        let is_type = word.quote_style.is_none() && named.is_some();
        (is_type && self.may_begin_operand(at)).then(|| {
            let word = Token::Word(word.clone());
            [
                Token::make_keyword("CAST"),
                Token::LParen,
                text.clone(),
                Token::make_keyword("AS"),
                word,
                Token::RParen,
            ]
        })
    }

    /// True if an operand may begin with a token. `a INT PATH '$.a'` has a path of JSON after a type, not a literal.
    fn may_begin_operand(&self, at: usize) -> bool {
        match at.checked_sub(1).and_then(|before| self.get(before)) {
            Some(Token::Word(word)) if word.quote_style.is_none() => {
                word.value == LENGTH
                    || BEFORE_OPERANDS.iter().any(|known| word.value.eq_ignore_ascii_case(known))
            }
            Some(Token::Word(_) | Token::RParen | Token::RBracket) => false,
            Some(Token::Number(..) | Token::SingleQuotedString(_)) => false,
            _ => true,
        }
    }

    /// Returns the direction that `USING <` or `USING >` stands for.
    fn direction(&self, at: usize) -> Option<&'static str> {
        match self.get(at + 1) {
            Some(Token::Lt) if self.is(at, &["USING"]) => Some("ASC"),
            Some(Token::Gt) if self.is(at, &["USING"]) => Some("DESC"),
            _ => None,
        }
    }

    /// True for COLLATION FOR before an operand in parentheses.
    fn is_collation_for(&self, at: usize) -> bool {
        self.is(at, &["COLLATION"]) && self.is(at + 1, &["FOR"]) && self.get(at + 2) == Some(&Token::LParen)
    }

    /// Returns the closing parenthesis of `STRUCT(a INT, …)`, a type; none for a call, `struct(a, b)`.
    fn struct_type(&self, at: usize) -> Option<usize> {
        if !self.is(at, &["STRUCT"]) || self.get(at + 1) != Some(&Token::LParen) {
            return None;
        }
        let is_field = self.is_name(at + 2)
            && !self.is(at + 2, &["DISTINCT", "ALL", "NOT", "CASE", "INTERVAL", "DATE", "TIMESTAMP"])
            && self.is_word(at + 3)
            && !self.is(at + 3, &BEHIND_OPERANDS);
        if is_field { self.end_of_group(at + 1) } else { None }
    }

    /// Returns the place of COLLATE at the end of an operand in parentheses, and the collation's name as a text.
    fn collation_at_end(&self, open: usize) -> Option<(usize, Token)> {
        let end = self.end_of_group(open)?;
        match self.get(end - 1) {
            Some(Token::Word(name)) if self.is(end - 2, &["COLLATE"]) => {
                Some((end - 2, Token::SingleQuotedString(quote_ident(&name.value))))
            }
            _ => None,
        }
    }

    /// Returns the closing parenthesis of a group.
    fn end_of_group(&self, open: usize) -> Option<usize> {
        let mut depth = 0;
        self.0.iter().enumerate().skip(open).find_map(|(place, token)| {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            (depth == 0).then_some(place)
        })
    }

    /// Returns the closing bracket of `VARIADIC ARRAY[a, b]`, the last argument of a call.
    fn variadic(&self, at: usize) -> Option<usize> {
        if !self.is(at, &["VARIADIC"]) || !self.is(at + 1, &["ARRAY"]) {
            return None;
        }
        let mut depth = 0;
        for (place, token) in self.0.iter().enumerate().skip(at + 2) {
            match token.token {
                Token::LBracket => depth += 1,
                Token::RBracket => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let is_last = self.get(place + 1) == Some(&Token::RParen) && place > at + 3;
                return is_last.then_some(place);
            }
        }
        None
    }
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
    fn tables_have_no_children() {
        check("SELECT * FROM ONLY t", "SELECT * FROM t");
        check("SELECT * FROM ONLY (s.t) AS x", "SELECT * FROM ( s . t ) AS x");
        check("SELECT a * b FROM s.t * WHERE a = 1", "SELECT a * b FROM s . t WHERE a = 1");
        check("SELECT 1 FROM (SELECT * FROM ONLY t *) AS u", "SELECT 1 FROM ( SELECT * FROM t ) AS u");
        check("SELECT extract(day FROM t * 2) FROM t", "SELECT extract ( day FROM t * 2 ) FROM t");
        check("SELECT * FROM only WHERE a", "SELECT * FROM only WHERE a");
    }

    #[test]
    fn other_forms_are_plain_ones() {
        check("WITH t AS NOT MATERIALIZED (SELECT 1) SELECT 2", "WITH t AS ( SELECT 1 ) SELECT 2");
        check("WITH t AS MATERIALIZED (SELECT 1) SELECT 2", "WITH t AS ( SELECT 1 ) SELECT 2");
        check("SELECT 1 AS materialized", "SELECT 1 AS materialized");
        check("SELECT a FROM t ORDER BY a USING > , b USING <", "SELECT a FROM t ORDER BY a DESC , b ASC");
        check("SELECT f('%s', VARIADIC ARRAY['a', b[1]])", "SELECT f ( '%s' , 'a' , b [ 1 ] )");
        check("SELECT f(VARIADIC a)", "SELECT f ( VARIADIC a )");
        check("SELECT a @@@ b, c <-> d, e < -1", "SELECT a @@ b , c <-> d , e < - 1");
        check("SELECT a <-> b, a<<|b, a ?-| b, ?- c", "SELECT a <-> b , a <<| b , a ?-| b , ?- c");
        check("SELECT a < -> b, a ? - b", "SELECT a < -> b , a ? - b");
        check("SELECT @-@ path '[(0,0)]'", "SELECT @-@ CAST ( '[(0,0)]' AS path )");
        check("SELECT x FROM j (a INT PATH '$.a')", "SELECT x FROM j ( a INT PATH '$.a' )");
        check(
            "CREATE TABLE t (x STRUCT(a INT, b STRUCT(c DECIMAL(5, 2)))[])",
            "CREATE TABLE t ( x STRUCT < a INT , b STRUCT < c DECIMAL ( 5 , 2 ) > > [ ] )",
        );
        check(
            "SELECT struct(a AS x, b), struct(a IS NULL), struct(a.b)",
            "SELECT struct ( a AS x , b ) , struct ( a IS NULL ) , struct ( a . b )",
        );
        check("SELECT COLLATION FOR (a), 1", "SELECT pg_collation_for ( a ) , 1");
        check("SELECT collation for ((a) COLLATE \"C\")", "SELECT pg_collation_for ( ( a ) , '\"C\"' )");
    }
}
