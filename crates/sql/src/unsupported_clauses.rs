//! Refuses clauses that the parser accepts, and that DataFusion would ignore or read in its own way.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Join, JoinConstraint, JoinOperator, Query, Select, SetExpr, Spanned, Statement, TableFactor,
    TableWithJoins, Visitor,
};

use crate::ast_walk::walk;
use crate::error::{Error, Result};
use crate::hidden_columns::{fold, last_name};
use crate::sqlstate;
use crate::tokens;

/// Refuses `SELECT … INTO`.
pub(crate) fn refuse_into(query: &Query) -> Result<()> {
    match query.body.as_ref() {
        SetExpr::Select(select) if select.into.is_some() => Err(Error::unsupported("SELECT INTO")
            .hint("Use CREATE TABLE and INSERT, or CREATE MATERIALIZED VIEW.")),
        _ => Ok(()),
    }
}

/// Refuses `a JOIN b` without ON, USING or NATURAL. DataFusion joins all pairs of rows.
pub(crate) fn refuse_open_joins(statement: &Statement, text: &str) -> Result<()> {
    match walk(statement, &mut OpenJoins { text }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct OpenJoins<'a> {
    text: &'a str,
}

impl Visitor for OpenJoins<'_> {
    type Break = Error;

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        select.from.iter().try_for_each(|from| self.check(from))
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
        match factor {
            TableFactor::NestedJoin { table_with_joins, .. } => self.check(table_with_joins),
            _ => ControlFlow::Continue(()),
        }
    }
}

impl OpenJoins<'_> {
    fn check(&self, from: &TableWithJoins) -> ControlFlow<Error> {
        let mut left = &from.relation;
        for join in &from.joins {
            if is_open(join) {
                return ControlFlow::Break(self.error(left, &join.relation));
            }
            left = &join.relation;
        }
        ControlFlow::Continue(())
    }

    fn error(&self, left: &TableFactor, right: &TableFactor) -> Error {
        let start = right.span().start;
        Error::invalid(format!("the JOIN of {} and {} has no condition", name_of(left), name_of(right)))
            .hint("Add ON or USING; for all pairs of rows, write CROSS JOIN.")
            .code(sqlstate::SYNTAX_ERROR)
            .at(tokens::token_at(self.text, start.line, start.column))
    }
}

/// True if a join must have a condition and has none.
fn is_open(join: &Join) -> bool {
    let constraint = match &join.join_operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::Semi(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::RightSemi(constraint)
        | JoinOperator::Anti(constraint)
        | JoinOperator::LeftAnti(constraint)
        | JoinOperator::RightAnti(constraint)
        | JoinOperator::StraightJoin(constraint) => constraint,
        _ => return false,
    };
    matches!(constraint, JoinConstraint::None)
}

/// Returns the name that a table in FROM goes by, for messages.
fn name_of(factor: &TableFactor) -> String {
    let alias = match factor {
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::UNNEST { alias, .. }
        | TableFactor::NestedJoin { alias, .. } => alias.as_ref(),
        _ => None,
    };
    let name = match (alias, factor) {
        (Some(alias), _) => Some(fold(&alias.name)),
        (None, TableFactor::Table { name, .. } | TableFactor::Function { name, .. }) => last_name(name),
        _ => None,
    };
    match (name, factor) {
        (Some(name), _) => format!("\"{name}\""),
        (None, TableFactor::NestedJoin { .. }) => "a join in parentheses".into(),
        (None, TableFactor::Derived { .. }) => "a subquery".into(),
        (None, _) => "a table".into(),
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;
    use crate::planner::replaying;

    fn tables() -> Tables {
        Tables::new().table("a", "(k INT)", "VALUES (1), (2)").table("b", "(k INT)", "VALUES (2), (3)")
    }

    #[test]
    fn joins_without_a_condition_are_refused() {
        let tables = tables();
        tables.fails(
            "SELECT * FROM a JOIN b",
            "the JOIN of \"a\" and \"b\" has no condition\nLINE 1: SELECT * FROM a JOIN b\n                             \
             ^\nHINT: Add ON or USING; for all pairs of rows, write CROSS JOIN.",
        );
        for sql in [
            "SELECT * FROM a LEFT JOIN b",
            "SELECT * FROM a CROSS JOIN b JOIN b AS c",
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM (a JOIN b) JOIN a AS c ON c.k = a.k)",
        ] {
            let error = tables.planner.query(sql, &tables).unwrap_err();
            assert!(error.message.contains("has no condition"), "{sql}: {error}");
            assert_eq!(error.sqlstate(), "42601");
        }
    }

    #[test]
    fn other_joins_are_planned() {
        let tables = tables();
        tables.check("SELECT count(*) FROM a CROSS JOIN b", &["4"]);
        tables.check("SELECT count(*) FROM a, b JOIN a AS c USING (k)", &["2"]);
        tables.check("SELECT count(*) FROM a NATURAL JOIN b", &["1"]);
    }

    #[test]
    fn a_replayed_statement_may_lack_a_condition() {
        let tables = tables();
        let planner = replaying(&tables.planner, true);
        assert!(planner.query("SELECT * FROM a JOIN b", &tables).is_ok());
    }
}
