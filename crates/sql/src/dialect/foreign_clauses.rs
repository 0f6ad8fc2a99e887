//! Clauses of other systems that the parser doesn't know: errors that say what to write instead.

use datafusion::sql::sqlparser::tokenizer::Token;

use crate::error::Error;
use crate::reader::{TokenReader, is_word};
use crate::tokens::Lexeme;

/// A clause of another system.
struct ForeignClause {
    name: &'static str,
    /// Returns true if the clause begins with the first of these tokens.
    begins: fn(&[Lexeme]) -> bool,
    hint: &'static str,
}

const CLAUSES: &[ForeignClause] = &[
    ForeignClause {
        name: "JOIN … WITHIN",
        begins: |tokens| {
            let length = tokens.get(1).map(|next| &next.token.token);
            words(tokens, &["WITHIN"]) && matches!(length, Some(Token::Number(..) | Token::LParen))
        },
        hint: "Write the condition of time in ON: a JOIN b ON a.k = b.k AND b.ts BETWEEN a.ts - INTERVAL '1 hour' AND a.ts + \
               INTERVAL '1 hour'.",
    },
    ForeignClause {
        name: "WINDOW TUMBLING",
        begins: |tokens| words(tokens, &["WINDOW", "TUMBLING"]) && is_group(tokens),
        hint: "Write FROM TUMBLE(s, ts, INTERVAL '10 seconds') … GROUP BY window_start, window_end.",
    },
    ForeignClause {
        name: "WINDOW HOPPING",
        begins: |tokens| words(tokens, &["WINDOW", "HOPPING"]) && is_group(tokens),
        hint: "Write FROM HOP(s, ts, INTERVAL '5 seconds', INTERVAL '10 seconds') … GROUP BY window_start, window_end: the \
               slide comes first.",
    },
    ForeignClause {
        name: "WINDOW SESSION",
        begins: |tokens| words(tokens, &["WINDOW", "SESSION"]) && is_group(tokens),
        hint: "Write FROM SESSION(s PARTITION BY k, ts, INTERVAL '60 seconds') … GROUP BY k, window_start, window_end.",
    },
    ForeignClause {
        name: "AS CHANGELOG FROM",
        begins: |tokens| words(tokens, &["AS", "CHANGELOG", "FROM"]),
        hint: "A changelog is no function of a table's rows. SUBSCRIBE t returns its changes, and CREATE SINK k FROM t WITH (…) \
               FORMAT DEBEZIUM ENCODE JSON writes them.",
    },
];

/// Returns the error of a statement that the parser refused. If the statement has a clause of another system, the error
/// names it.
pub(crate) fn explain(reader: &TokenReader<'_>, error: Error) -> Error {
    let tokens = reader.rest();
    let found = (0..tokens.len()).find_map(|at| {
        let clause = CLAUSES.iter().find(|clause| (clause.begins)(&tokens[at..]))?;
        Some((clause, tokens[at].range.clone()))
    });
    match found {
        Some((clause, place)) => Error::unsupported(clause.name).hint(clause.hint).at(place),
        None => error,
    }
}

fn words(tokens: &[Lexeme], words: &[&str]) -> bool {
    tokens.len() >= words.len()
        && words.iter().zip(tokens).all(|(word, lexeme)| is_word(&lexeme.token.token, word))
}

/// Returns true if a group in parentheses follows two words.
fn is_group(tokens: &[Lexeme]) -> bool {
    tokens.get(2).is_some_and(|lexeme| lexeme.token.token == Token::LParen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(sql: &str) -> String {
        explain(&TokenReader::new(sql).unwrap(), Error::invalid("syntax error")).message
    }

    #[test]
    fn clauses_of_other_systems_are_named() {
        for (sql, expected) in [
            ("SELECT * FROM a JOIN b WITHIN 1 HOUR ON a.k = b.k", "JOIN … WITHIN is not supported yet"),
            (
                "SELECT * FROM a JOIN b WITHIN (1 HOUR, 2 HOURS) ON a.k = b.k",
                "JOIN … WITHIN is not supported yet",
            ),
            ("SELECT 1 FROM s WINDOW TUMBLING (SIZE 1 MINUTE)", "WINDOW TUMBLING is not supported yet"),
            ("WITH c AS changelog FROM t SELECT * FROM c", "AS CHANGELOG FROM is not supported yet"),
            ("SELECT within FROM", "syntax error"),
            ("SELECT 1 FROM s WINDOW", "syntax error"),
        ] {
            assert_eq!(explained(sql), expected, "{sql}");
        }
    }
}
