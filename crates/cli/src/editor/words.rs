//! The words of SQL that are coloured and completed. Only the engine knows their meaning.

use millstream::statements;

/// Returns the words that may follow the first words of statements: `TABLE` or `MATERIALIZED VIEW` after
/// CREATE. Without such words, returns the words that begin a statement.
pub fn after(begun: &[&str]) -> Vec<String> {
    let mut after: Vec<String> = Vec::new();
    for words in forms() {
        if words.len() > begun.len() && is_begun(words, begun) {
            let rest = &words[begun.len()..];
            let rest = if begun.is_empty() { &rest[..1] } else { rest };
            after.push(rest.join(" "));
        }
    }
    after.sort_unstable();
    after.dedup();
    after
}

/// Returns true if these words are the first words of a statement, perhaps followed by others.
pub fn is_complete(begun: &[&str]) -> bool {
    forms().any(|words| words.len() <= begun.len() && is_begun(words, begun))
}

fn forms() -> impl Iterator<Item = &'static [&'static str]> {
    statements().iter().flat_map(|statement| statement.words).copied()
}

fn is_begun(words: &[&str], begun: &[&str]) -> bool {
    words.iter().zip(begun).all(|(known, word)| known.eq_ignore_ascii_case(word))
}

/// Returns the kinds of objects that can be created and dropped.
pub fn kinds() -> Vec<String> {
    after(&["CREATE"]).into_iter().filter(|kind| !kind.starts_with("OR ")).collect()
}

/// The arguments of SHOW beside settings.
pub const SHOWN: &[&str] = &[
    "ALL",
    "CREATE",
    "FUNCTIONS",
    "MATERIALIZED VIEWS",
    "SINKS",
    "SOURCES",
    "STREAMS",
    "SUBSCRIPTIONS",
    "TABLES",
    "VIEWS",
];

/// The words possible elsewhere.
pub const OTHERS: &[&str] = &[
    "ALL",
    "AND",
    "ANY",
    "APPEND ONLY",
    "AS",
    "ASC",
    "BATCH",
    "BETWEEN",
    "BY",
    "CASCADE",
    "CASE",
    "CAST",
    "CHANGES",
    "CONFLICT",
    "CROSS JOIN",
    "CUBE",
    "CURRENT ROW",
    "DEFAULT",
    "DESC",
    "DISTINCT",
    "DO NOTHING",
    "DO UPDATE SET",
    "ELSE",
    "EMIT CHANGES",
    "END",
    "EXCEPT",
    "EXISTS",
    "FALSE",
    "FILTER",
    "FIRST",
    "FOLLOWING",
    "FOR EACH BATCH",
    "FROM",
    "FULL JOIN",
    "GENERATED ALWAYS AS",
    "GROUP BY",
    "GROUPING SETS",
    "HAVING",
    "IF EXISTS",
    "IF NOT EXISTS",
    "IN",
    "INNER JOIN",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "KEY",
    "LAST",
    "LATERAL",
    "LEFT JOIN",
    "LIKE",
    "LIMIT",
    "NATURAL JOIN",
    "NOT",
    "NOT NULL",
    "NULL",
    "NULLS FIRST",
    "NULLS LAST",
    "OFFSET",
    "ON",
    "ON CONFLICT",
    "OR",
    "ORDER BY",
    "OUTER",
    "OVER",
    "PARTITION BY",
    "PRECEDING",
    "PRIMARY KEY",
    "PROGRESS",
    "RANGE",
    "RECURSIVE",
    "REPLACE",
    "RETURN",
    "RETURNS",
    "RIGHT JOIN",
    "ROLLUP",
    "ROWS",
    "SET",
    "SIMILAR TO",
    "SNAPSHOT",
    "THEN",
    "TIME",
    "TO",
    "TRUE",
    "UNBOUNDED",
    "UNION ALL",
    "UNNEST",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
    "WITHIN GROUP",
    "BIGINT",
    "BOOLEAN",
    "BYTEA",
    "DATE",
    "DECIMAL",
    "DOUBLE PRECISION",
    "INET",
    "INT",
    "JSON",
    "MACADDR",
    "NUMERIC",
    "REAL",
    "SMALLINT",
    "TEXT",
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "TSQUERY",
    "TSVECTOR",
    "UUID",
    "VARCHAR",
    "XML",
];

/// Returns true if a word is one of SQL's, in any case.
pub fn is_keyword(word: &str) -> bool {
    let is = |known: &&str| known.split(' ').any(|part| part.eq_ignore_ascii_case(word));
    [SHOWN, OTHERS].iter().any(|words| words.iter().any(is)) || forms().flatten().any(is)
}

/// Returns the text in capitals if the typed letters are all capitals. If nothing is typed, the text stays
/// as it is.
pub fn in_case_of(typed: &str, text: &str) -> String {
    let letters = || typed.chars().filter(|letter| letter.is_alphabetic());
    if letters().next().is_none() {
        return text.to_owned();
    }
    if letters().all(char::is_uppercase) { text.to_uppercase() } else { text.to_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_known_in_any_case() {
        assert!(
            is_keyword("select") && is_keyword("Materialized") && is_keyword("BY") && is_keyword("views")
        );
        assert!(!is_keyword("orders") && !is_keyword(""));
    }

    #[test]
    fn case_follows_what_was_typed() {
        assert_eq!(in_case_of("se", "SELECT"), "select");
        assert_eq!(in_case_of("SE", "SELECT"), "SELECT");
        assert_eq!(in_case_of("Se", "SELECT"), "select");
        assert_eq!(in_case_of("_", "SELECT"), "SELECT");
    }
}
