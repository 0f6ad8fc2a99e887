//! Determines from a statement's text its effect on the catalog and the relations it reads.

use std::collections::BTreeSet;

use datafusion::common::TableReference;
use datafusion::sql::parser::DFParserBuilder;
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// The kind of an object, as far as the oracle needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A relation that takes DML and keeps its rows.
    Table,
    /// A named query, maintained or not.
    View,
    /// Rows from outside.
    Source,
    /// A function or an aggregate. Its name ends with `()`.
    Function,
    /// A schema. Its name ends with a dot.
    Schema,
    /// An enum or a domain.
    Type,
    /// A relation of one session, which no maintained query reads.
    Temporary,
    /// Anything else, such as a sink.
    Other,
}

/// The effect of a statement on the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Creates an object.
    Create {
        /// Its kind.
        kind: Kind,
        /// Its name in the catalog.
        name: String,
        /// True if the statement has no effect when the name is taken.
        if_not_exists: bool,
    },
    /// Drops objects.
    Drop,
    /// Changes objects in a way that their DDL doesn't show.
    Alter,
    /// Changes a setting.
    Set(String),
    /// Nothing.
    None,
}

/// Returns the tokens of `sql` without white space and comments, up to the first unreadable one.
pub fn tokens(sql: &str) -> Vec<Token> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().unwrap_or_default();
    tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect()
}

/// Returns the statements of a text, separated by `;`.
pub fn pieces(sql: &str) -> Vec<String> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().unwrap_or_default();
    let cut = tokens.split(separators());
    let is_blank = |tokens: &&[Token]| tokens.iter().all(|token| matches!(token, Token::Whitespace(_)));
    let kept: Vec<&[Token]> = cut.filter(|tokens| !is_blank(tokens)).collect();
    if kept.len() <= 1 {
        // Return the text itself, since tokens don't preserve every spelling.
        return vec![sql.trim().trim_end_matches(';').trim().to_string()];
    }
    kept.iter()
        .map(|tokens| tokens.iter().map(Token::to_string).collect::<String>().trim().to_string())
        .collect()
}

/// Returns a test for the `;` between statements. It reads all tokens of a text in order: within `BEGIN ATOMIC … END`, a
/// `;` ends no statement.
fn separators() -> impl FnMut(&Token) -> bool {
    let (mut depth, mut begins) = (0_usize, false);
    move |token| {
        if matches!(token, Token::Whitespace(_)) {
            return false;
        }
        let is = |word: &str| matches!(token, Token::Word(found) if found.value.eq_ignore_ascii_case(word));
        let after_begin = std::mem::replace(&mut begins, is("BEGIN"));
        match depth {
            0 if after_begin && is("ATOMIC") => depth = 1,
            0 => return *token == Token::SemiColon,
            _ if is("CASE") => depth += 1,
            _ if is("END") => depth -= 1,
            _ => {}
        }
        false
    }
}

/// Returns the statement with watermarks so far behind that no window closes: then each window has the answer
/// of a batch.
pub fn patient(ddl: &str) -> String {
    let tokens = Tokenizer::new(&GenericDialect {}, ddl).with_unescape(false).tokenize().unwrap_or_default();
    let (mut text, mut before, mut depth, mut until) = (String::new(), Vec::new(), 0, None);
    for token in tokens {
        match token {
            Token::RParen => depth -= 1,
            Token::LParen => depth += 1,
            _ => {}
        }
        let ends = match token {
            Token::RParen => until == Some(depth + 1),
            Token::Comma => until == Some(depth),
            _ => false,
        };
        if ends {
            until = None;
        }
        if until.is_some() {
            continue;
        }
        text.push_str(&token.to_string());
        if !matches!(token, Token::Whitespace(_)) {
            before.push(token);
        }
        if let [.., watermark, of, column, word] = &before[..]
            && [watermark, of, word].map(keyword) == ["WATERMARK", "FOR", "AS"]
        {
            text.push_str(&format!(" {column} - INTERVAL '100000 days'"));
            until = Some(depth);
            before.clear();
        }
    }
    if text.is_empty() { ddl.to_string() } else { text }
}

/// Returns a word as the catalog spells it: in lower case unless it was quoted.
fn name_of(token: &Token) -> Option<String> {
    let Token::Word(word) = token else { return None };
    Some(if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() })
}

/// Returns unquoted words in upper case, for keywords.
fn keyword(token: &Token) -> String {
    match token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_uppercase(),
        other => other.to_string(),
    }
}

/// Returns the first words of a statement as keywords.
pub fn first_words(sql: &str) -> Vec<String> {
    tokens(sql).iter().take(8).map(keyword).collect()
}

/// Returns the effect of `sql` on the catalog.
pub fn effect(sql: &str) -> Effect {
    let tokens = tokens(sql);
    let words: Vec<String> = tokens.iter().map(keyword).collect();
    match words.first().map(String::as_str) {
        Some("CREATE") => create(&tokens, &words),
        Some("DROP") => Effect::Drop,
        Some("ALTER") => Effect::Alter,
        Some("SELECT" | "WITH") => select_into(&tokens).unwrap_or(Effect::None),
        Some("SET" | "RESET") => Effect::Set(words.get(1).cloned().unwrap_or_default().to_lowercase()),
        _ => Effect::None,
    }
}

/// Returns the effect of `SELECT … INTO name FROM …`.
fn select_into(tokens: &[Token]) -> Option<Effect> {
    let others = ["FROM", "INSERT", "UPDATE", "DELETE", "MERGE"];
    let words = at_top(tokens).take_while(|(_, token)| !others.contains(&keyword(token).as_str()));
    let (at, _) = words.filter(|(_, token)| keyword(token) == "INTO").last()?;
    let mut at = at + 1;
    let kind = match is_temporary(&keyword(tokens.get(at)?)) {
        true => Kind::Temporary,
        false => Kind::Table,
    };
    at += usize::from(kind == Kind::Temporary);
    at += usize::from(keyword(tokens.get(at)?) == "TABLE");
    let name = tokens.get(at).and_then(name_of)?;
    Some(Effect::Create { kind, name, if_not_exists: false })
}

/// Returns the tokens outside parentheses, with their places.
fn at_top(tokens: &[Token]) -> impl Iterator<Item = (usize, &Token)> {
    let mut depth = 0;
    tokens.iter().enumerate().filter(move |(_, token)| {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

/// Returns true if a query gives a new table its columns and rows.
pub fn has_rows_of_query(ddl: &str) -> bool {
    let tokens = tokens(ddl);
    match effect(ddl) {
        Effect::Create { kind: Kind::Table, .. } => {
            let mut words = at_top(&tokens).map(|(_, token)| keyword(token));
            words.any(|word| word == "AS" || word == "INTO")
        }
        _ => false,
    }
}

fn is_temporary(word: &str) -> bool {
    matches!(word, "TEMP" | "TEMPORARY")
}

fn create(tokens: &[Token], words: &[String]) -> Effect {
    let skipped = |word: &str| {
        matches!(word, "OR" | "REPLACE" | "LOCAL" | "GLOBAL" | "UNBOUNDED" | "UNLOGGED" | "RECURSIVE")
    };
    let (mut at, mut temporary) = (1, false);
    while words.get(at).is_some_and(|word| skipped(word) || is_temporary(word)) {
        temporary |= is_temporary(&words[at]);
        at += 1;
    }
    let kind = match words.get(at).map(String::as_str) {
        Some("TABLE" | "VIEW") if temporary => Kind::Temporary,
        Some("TABLE") => Kind::Table,
        Some("VIEW") => Kind::View,
        Some("MATERIALIZED") => Kind::View,
        Some("SOURCE" | "STREAM") => Kind::Source,
        Some("FUNCTION" | "AGGREGATE") => Kind::Function,
        Some("SCHEMA") => Kind::Schema,
        Some("TYPE" | "DOMAIN") => Kind::Type,
        _ => Kind::Other,
    };
    at += if words.get(at).is_some_and(|word| word == "MATERIALIZED") { 2 } else { 1 };
    let if_not_exists = words.get(at).is_some_and(|word| word == "IF");
    at += if if_not_exists { 3 } else { 0 };
    let Some(name) = tokens.get(at).and_then(name_of) else { return Effect::None };
    let inner = tokens.get(at + 1).filter(|token| **token == Token::Period).and(tokens.get(at + 2));
    let name = match (kind, inner.and_then(name_of)) {
        (Kind::Function, _) => format!("{name}()"),
        (Kind::Schema, _) => format!("{name}."),
        (_, Some(inner)) if name == "public" => inner,
        (_, Some(inner)) => format!("{name}.{inner}"),
        (_, None) => name,
    };
    Effect::Create { kind, name, if_not_exists }
}

/// Returns true if `sql` only reads: SELECT, WITH, VALUES, or one of them in parentheses.
pub fn is_query(sql: &str) -> bool {
    let words = first_words(sql);
    let first = words.iter().find(|word| *word != "(");
    matches!(first.map(String::as_str), Some("SELECT" | "WITH" | "VALUES" | "TABLE" | "FROM"))
}

/// Returns the names of the relations that `sql` reads (perhaps with a view's own name). If the text can't be
/// parsed as plain SQL, returns all its names.
pub fn relations(sql: &str) -> BTreeSet<String> {
    let parsed = DFParserBuilder::new(sql)
        .with_dialect(&GenericDialect {})
        .build()
        .and_then(|mut parser| parser.parse_statement())
        .and_then(|statement| resolve_table_references(&statement, true));
    let of = |relation: &TableReference| match relation.schema() {
        Some(schema) if schema != "public" => format!("{schema}.{}", relation.table()),
        _ => relation.table().to_string(),
    };
    match parsed {
        Ok((relations, _)) => relations.iter().map(of).chain(windowed(sql)).collect(),
        Err(_) => names(sql),
    }
}

/// Returns the first arguments of windows that are names.
fn windowed(sql: &str) -> Vec<String> {
    let tokens = tokens(sql);
    let windows = ["TUMBLE", "HOP", "CUMULATE", "SESSION", "GAP_FILL"];
    let opens = |at: &[Token]| windows.contains(&keyword(&at[0]).as_str()) && at[1] == Token::LParen;
    tokens.windows(3).filter(|at| opens(at)).filter_map(|at| name_of(&at[2])).collect()
}

/// Returns all names in `sql`: relations, columns, functions, keywords in lower case.
pub fn names(sql: &str) -> BTreeSet<String> {
    tokens(sql).iter().filter_map(name_of).collect()
}

/// Returns the columns of the primary key that a CREATE TABLE declares, in the key's order; none if there is
/// no key.
pub fn primary_key(ddl: &str) -> Vec<String> {
    let tokens = tokens(ddl);
    let Some(open) = tokens.iter().position(|token| *token == Token::LParen) else { return Vec::new() };
    let mut depth = 0;
    let mut element = open + 1;
    for at in open..tokens.len() {
        match &tokens[at] {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::Comma if depth == 1 => element = at + 1,
            _ if depth == 1 && keyword(&tokens[at]) == "PRIMARY" => {
                return key_columns(&tokens[element..=at], &tokens[at + 1..]);
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    Vec::new()
}

/// Returns the key's columns, from the tokens of the table element before and after PRIMARY.
fn key_columns(before: &[Token], after: &[Token]) -> Vec<String> {
    let first = before.first().map(keyword).unwrap_or_default();
    if first != "PRIMARY" && first != "CONSTRAINT" {
        return before.first().and_then(name_of).into_iter().collect();
    }
    after.iter().skip(2).take_while(|token| **token != Token::RParen).filter_map(name_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_apart() {
        let table = |name: &str, if_not_exists| Effect::Create {
            kind: Kind::Table,
            name: name.into(),
            if_not_exists,
        };
        assert_eq!(effect("CREATE TABLE T (a INT)"), table("t", false));
        assert_eq!(effect("SELECT (SELECT 1 FROM u) AS a INTO T FROM u"), table("t", false));
        assert_eq!(effect("SELECT a FROM u"), Effect::None);
        assert_eq!(effect("WITH q AS (SELECT 1) INSERT INTO t SELECT * FROM q"), Effect::None);
        assert!(["CREATE TABLE t AS SELECT 1", "SELECT 1 INTO t"].into_iter().all(has_rows_of_query));
        assert!(!has_rows_of_query("CREATE TABLE t (a INT, b AS (a + 1))"));
        assert_eq!(effect("create table if not exists \"T\" (a int)"), table("T", true));
        let view = Effect::Create { kind: Kind::View, name: "v".into(), if_not_exists: false };
        assert_eq!(effect("CREATE OR REPLACE VIEW v AS SELECT 1"), view);
        assert_eq!(effect("CREATE MATERIALIZED VIEW v AS SELECT 1"), view);
        assert_eq!(effect("SET TimeZone = 'UTC'"), Effect::Set("timezone".into()));
        assert_eq!(effect("INSERT INTO t VALUES (1)"), Effect::None);
        assert_eq!(effect("CREATE TABLE public.T (a INT)"), table("t", false));
        assert_eq!(effect("CREATE TABLE IF NOT EXISTS \"S\".t (a INT)"), table("S.t", true));
        let schema = Effect::Create { kind: Kind::Schema, name: "s.".into(), if_not_exists: false };
        assert_eq!(effect("CREATE SCHEMA s"), schema);
    }

    #[test]
    fn watermarks_are_put_far_behind() {
        let ddl =
            |delay: &str| format!("CREATE TABLE t (WATERMARK FOR \"Ts\" AS \"Ts\"{delay}, \"Ts\" TIMESTAMP)");
        let far = ddl(" - INTERVAL '100000 days'");
        assert_eq!([ddl(""), ddl(" - (INTERVAL '5 s')")].map(|ddl| patient(&ddl)), [far.clone(), far]);
        let last = "CREATE TABLE t (ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 s') APPEND ONLY";
        assert_eq!(patient(last), last.replace("'1 s'", "'100000 days'"));
        assert_eq!(patient("CREATE TABLE t (a INT)"), "CREATE TABLE t (a INT)");
    }

    #[test]
    fn texts_are_cut_between_statements() {
        assert_eq!(
            pieces("SELECT ';' ; INSERT INTO t\nVALUES (1);"),
            ["SELECT ';'", "INSERT INTO t\nVALUES (1)"]
        );
        assert_eq!(pieces("SELECT 1 ;\n"), ["SELECT 1"]);
        let block = "CREATE FUNCTION f() RETURNS INT BEGIN ATOMIC SELECT 1; SELECT 2; END";
        assert_eq!(pieces(block), [block]);
    }

    #[test]
    fn queries_are_told_from_other_statements() {
        assert!(is_query("-- why\nSELECT 1"));
        assert!(is_query("((VALUES (1)))"));
        assert!(!is_query("EXPLAIN SELECT 1"));
    }

    #[test]
    fn relations_are_found_without_common_tables() {
        let found =
            relations("WITH c AS (SELECT * FROM a) SELECT (SELECT max(x) FROM B) FROM c JOIN s.t USING (x)");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a", "b", "s.t"]);
        let found = relations("SELECT * FROM TUMBLE(clicks, ts, INTERVAL '1 second')");
        assert!(found.contains("clicks"), "{found:?}");
    }

    #[test]
    fn keys_are_found() {
        assert_eq!(primary_key("CREATE TABLE t (id INT PRIMARY KEY, v NUMERIC(10,2))"), ["id"]);
        assert_eq!(primary_key("CREATE TABLE t (a INT, b TEXT, PRIMARY KEY (b, a))"), ["b", "a"]);
        assert_eq!(primary_key("CREATE TABLE t (a NUMERIC(10,2) NOT NULL, b TEXT)"), [""; 0]);
    }
}
