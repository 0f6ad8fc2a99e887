//! Finds the verb of a statement that changes rows, also after a WITH.

use datafusion::sql::sqlparser::ast::{self, Query, SetExpr, Statement};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::Operation;
use crate::error::{Error, Result};
use crate::hidden_columns::fold;
use crate::reader::{TokenReader, is_word};

const VERBS: [(&str, Operation); 4] = [
    ("INSERT", Operation::Insert),
    ("UPDATE", Operation::Update),
    ("DELETE", Operation::Delete),
    ("MERGE", Operation::Merge),
];

impl Operation {
    /// Returns the kind of change that a statement makes; none for a statement of another kind.
    pub fn of(reader: &TokenReader<'_>) -> Option<Operation> {
        verb(reader.rest().iter().map(|lexeme| &lexeme.token.token)).map(|(_, operation)| operation)
    }
}

/// Returns the place of the verb among a statement's tokens.
pub(super) fn verb<'a>(tokens: impl Iterator<Item = &'a Token>) -> Option<(usize, Operation)> {
    let (mut depth, mut after_group) = (0, false);
    for (at, token) in tokens.enumerate() {
        if at == 0 || after_group {
            let found = VERBS.iter().find(|(word, _)| is_word(token, word));
            if let Some((_, operation)) = found {
                return Some((at, *operation));
            }
        }
        if at == 0 && !is_word(token, "WITH") {
            return None;
        }
        depth += i32::from(*token == Token::LParen) - i32::from(*token == Token::RParen);
        after_group = depth == 0 && *token == Token::RParen;
        // The group of a common table expression is followed by a comma or by the statement.
        let is_query = depth == 0 && ["SELECT", "VALUES", "TABLE"].iter().any(|word| is_word(token, word));
        if is_query {
            return None;
        }
    }
    None
}

/// Splits `WITH … INSERT …` into the WITH and the statement.
pub(super) fn split_with(statement: Statement) -> (Option<ast::With>, Statement) {
    let Statement::Query(mut query) = statement else { return (None, statement) };
    match *query.body {
        SetExpr::Insert(inner) | SetExpr::Update(inner) | SetExpr::Delete(inner) | SetExpr::Merge(inner) => {
            (query.with, inner)
        }
        body => {
            query.body = Box::new(body);
            (None, Statement::Query(query))
        }
    }
}

/// Puts a statement's WITH before the query of an INSERT.
pub(super) fn add_with(source: &mut Query, with: ast::With) {
    if source.with.is_none() {
        source.with = Some(with);
        return;
    }
    // The inner WITH can name the outer one's queries.
    let mut outer = source.clone();
    (outer.with, outer.order_by, outer.limit_clause, outer.fetch) = (Some(with), None, None, None);
    *outer.body = SetExpr::Query(Box::new(source.clone()));
    *source = outer;
}

/// Fails if a WITH has a query of the target's name: it would hide the table.
pub(super) fn check_target(with: &ast::With, table: &str) -> Result<()> {
    match with.cte_tables.iter().any(|cte| fold(&cte.alias.name) == table) {
        true => Err(Error::unsupported(format!("a query in WITH with the name of the target \"{table}\""))
            .hint("Give the query in WITH another name.")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verb_comes_first_or_after_with() {
        let check = |sql: &str, expected: Option<Operation>| {
            assert_eq!(Operation::of(&TokenReader::new(sql).unwrap()), expected, "{sql}");
        };
        check("INSERT INTO t VALUES (1)", Some(Operation::Insert));
        check("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", Some(Operation::Insert));
        check("with x (a) as (values (1)), update as (select 2) delete from t", Some(Operation::Delete));
        check("WITH x AS MATERIALIZED (SELECT 1) UPDATE t SET a = 1", Some(Operation::Update));
        for sql in [
            "SELECT 1",
            "WITH insert AS (SELECT 1) SELECT * FROM insert",
            "WITH x AS (SELECT 1) SELECT f(1) update FROM x",
            "EXPLAIN INSERT INTO t VALUES (1)",
            "",
        ] {
            check(sql, None);
        }
    }
}
