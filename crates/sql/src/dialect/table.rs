//! `TABLE t`, PostgreSQL's short form of `SELECT * FROM t`, wherever a query may begin.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::reader::is_word;

/// Expands every such query in the tokens. Positions in errors stay those of the text.
pub(crate) fn rewrite(found: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    if !(0..found.len()).any(|at| begins(&found, at)) {
        return found;
    }
    let mut out = Vec::with_capacity(found.len() + 2);
    let mut at = 0;
    while at < found.len() {
        if !begins(&found, at) {
            out.push(found[at].clone());
            at += 1;
            continue;
        }
        let span = found[at].span;
        let word = |keyword: &str| Token::make_keyword(keyword);
        out.extend([word("SELECT"), Token::Mul, word("FROM")].map(|token| TokenWithSpan { token, span }));
        at += 1;
        let only = is_word(&found[at].token, "ONLY") && found.get(at + 1).is_some_and(is_name);
        at += usize::from(only);
        out.push(found[at].clone());
        at += 1;
        while at + 1 < found.len() && found[at].token == Token::Period {
            out.extend_from_slice(&found[at..at + 2]);
            at += 2;
        }
        at += usize::from(found.get(at).is_some_and(|next| next.token == Token::Mul));
    }
    out
}

/// True if a query of this form begins at a token.
fn begins(tokens: &[TokenWithSpan], at: usize) -> bool {
    let is = |at: usize, words: &[&str]| words.iter().any(|word| is_word(&tokens[at].token, word));
    if !is(at, &["TABLE"]) || !tokens.get(at + 1).is_some_and(is_name) {
        return false;
    }
    let sets = &["UNION", "INTERSECT", "EXCEPT"];
    let Some(before) = at.checked_sub(1) else { return true };
    match &tokens[before].token {
        Token::LParen => true,
        _ if is(before, sets) => true,
        _ if is(before, &["ALL", "DISTINCT"]) => before.checked_sub(1).is_some_and(|at| is(at, sets)),
        // INSERT INTO t [(columns)] TABLE u
        Token::RParen | Token::Word(_) => {
            is(0, &["INSERT"]) && tokens[..at].iter().all(|token| !selects(token))
        }
        _ => false,
    }
}

fn selects(token: &TokenWithSpan) -> bool {
    ["SELECT", "VALUES", "DEFAULT"].iter().any(|word| is_word(&token.token, word))
}

/// True if a token can be a name: a quoted one, or a word that isn't reserved here.
fn is_name(token: &TokenWithSpan) -> bool {
    let Token::Word(word) = &token.token else { return false };
    word.quote_style.is_some() || !matches!(word.keyword, Keyword::FROM | Keyword::AS | Keyword::WHERE)
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
    fn a_table_is_its_rows() {
        check("TABLE t", "SELECT * FROM t");
        check("table only a.b * ORDER BY c LIMIT 2", "SELECT * FROM a . b ORDER BY c LIMIT 2");
        check("TABLE t UNION ALL (TABLE \"U\")", "SELECT * FROM t UNION ALL ( SELECT * FROM \"U\" )");
        check("INSERT INTO t (a) TABLE u", "INSERT INTO t ( a ) SELECT * FROM u");
        check("INSERT INTO t TABLE u", "INSERT INTO t SELECT * FROM u");
    }

    #[test]
    fn other_tables_stay() {
        for sql in
            ["SELECT a AS table FROM t", "SELECT ( table ) FROM t", "INSERT INTO t SELECT table b FROM c"]
        {
            check(sql, sql);
        }
    }
}
