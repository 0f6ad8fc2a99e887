//! ON CONFLICT: the treatment of an INSERT's row whose key exists already.
//!
//! The rows of DO UPDATE are planned as a second query over the rows that the INSERT would add. Code that
//! runs the statement binds these to the relation `excluded`.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, ConflictTarget, DoUpdate, Ident, OnConflictAction, OnInsert, SelectItem,
};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tree::{aliased, column, named_factor, plain_from, quoted, select_of};
use super::verb::verb;
use super::with_relation::WithRelation;
use super::{Scope, Target, not_null, refuse};
use crate::checks::constraint_name_in;
use crate::error::{Error, Result};
use crate::hidden_columns::{fold, last_name};
use crate::planner::{Query, Raw};
use crate::reader::is_word;
use crate::relation::{Relation, Relations, parts_of};

/// The relation of the rows that an INSERT would add.
pub const EXCLUDED: &str = "excluded";

/// The treatment of a row whose key exists already.
#[derive(Debug, Clone)]
pub enum OnConflict {
    /// Skips the row.
    DoNothing,
    /// Updates the existing row. The query reads [`EXCLUDED`] and returns old and new columns side by side.
    DoUpdate(Box<Query>),
}

impl Scope<'_> {
    /// Plans the ON CONFLICT clause of an INSERT.
    pub(super) fn conflict(&self, on: OnInsert, table: &str, columns: &SchemaRef) -> Result<OnConflict> {
        let OnInsert::OnConflict(clause) = on else {
            return Err(Error::unsupported("ON DUPLICATE KEY UPDATE").hint("Use ON CONFLICT … DO UPDATE."));
        };
        let key = match self.relations.get(table) {
            Some(Relation::Rows { key: Some(key), .. }) => key,
            _ => Vec::new(),
        };
        match &clause.conflict_target {
            Some(ConflictTarget::Columns(named)) => check_target(named, table, columns, &key)?,
            Some(ConflictTarget::OnConstraint(name))
                if last_name(name).is_some_and(|name| name == constraint_name_in(table, ".pkey"))
                    && !key.is_empty() => {}
            Some(ConflictTarget::OnConstraint(_)) => {
                return Err(Error::unsupported("ON CONFLICT ON CONSTRAINT")
                    .hint("Name the columns of the primary key."));
            }
            None => {}
        }
        match clause.action {
            OnConflictAction::DoNothing => Ok(OnConflict::DoNothing),
            OnConflictAction::DoUpdate(_) if key.is_empty() => Err(no_key(table)),
            OnConflictAction::DoUpdate(update) => {
                let alias = self.alias.clone().unwrap_or_else(|| quoted(parts_of(table, self.relations).1));
                refuse(fold(&alias) == EXCLUDED, "a table named \"excluded\" in ON CONFLICT DO UPDATE")?;
                self.do_update(update, table, alias, columns, key)
            }
        }
    }

    /// Plans the query for the rows of a table with the keys of [`EXCLUDED`]; none if it has no primary key.
    pub(super) fn existing(&self, table: &str, columns: &SchemaRef) -> Result<Option<Query>> {
        let Some(Relation::Rows { key: Some(key), .. }) = self.relations.get(table) else { return Ok(None) };
        if key.is_empty() {
            return Ok(None);
        }
        refuse(table == EXCLUDED, "RETURNING of an INSERT into a table named \"excluded\"")?;
        let relations = self.with_excluded(columns, &key);
        let scope = self.over(&relations);
        let alias = quoted(table);
        let target = self.target_of(table, alias, columns);
        let mut tree = scope.template()?;
        let select = select_of(&mut tree)?;
        let fields = columns.fields().iter();
        select.projection = fields.map(|f| aliased(&target.alias, f.name(), f.name())).collect();
        join_excluded(select, &target, &key, None);
        Ok(Some(self.planner.finish(scope.translate(tree)?, self.reader.text())?))
    }

    /// Returns the relations, with `excluded` among them. Code that runs the statement ensures that its keys are unique.
    fn with_excluded(&self, columns: &SchemaRef, key: &[usize]) -> WithRelation<'_> {
        let (columns, key) = (Arc::clone(columns), Some(key.to_vec()));
        WithRelation { all: self.relations, name: EXCLUDED, columns, key }
    }

    /// Returns the scope of a query of its own over other relations.
    fn over<'a>(&'a self, relations: &'a dyn Relations) -> Scope<'a> {
        Scope { relations, shown: self.shown.clone(), alias: None, with: None, ..*self }
    }

    fn target_of(&self, table: &str, alias: Ident, columns: &SchemaRef) -> Target {
        let (schema, local) = parts_of(table, self.relations);
        let factor = named_factor(vec![quoted(schema), quoted(local)].into(), alias.clone());
        Target { name: table.to_string(), alias, factor, columns: Arc::clone(columns) }
    }

    fn do_update(
        &self,
        update: DoUpdate,
        table: &str,
        alias: Ident,
        columns: &SchemaRef,
        key: Vec<usize>,
    ) -> Result<OnConflict> {
        let relations = self.with_excluded(columns, &key);
        let scope = self.over(&relations);
        let target = self.target_of(table, alias, columns);
        let mut values = scope.assignments(&target, update.assignments)?;
        let mut tree = scope.template()?;
        let select = select_of(&mut tree)?;
        let fields = columns.fields();
        select.projection =
            fields.iter().map(|f| aliased(&target.alias, f.name(), &format!("old.{}", f.name()))).collect();
        for (at, field) in fields.iter().enumerate() {
            let expr = values[at].take().unwrap_or_else(|| column(&target.alias, field.name()));
            let alias = quoted(&format!("new.{}", field.name()));
            select.projection.push(SelectItem::ExprWithAlias { expr, alias });
        }
        join_excluded(select, &target, &key, update.selection);
        let raw = scope.translate(tree)?;
        let raw = Raw { plan: scope.cast_new(raw.plan, columns)?, ..raw };
        let raw = scope.with_generated_and_checks(raw, columns.fields().len(), table, columns)?;
        Ok(OnConflict::DoUpdate(Box::new(scope.finish(raw, columns.fields().len(), columns)?)))
    }
}

/// Makes a query one over the rows of a table that have keys of [`EXCLUDED`] and meet a condition.
fn join_excluded(select: &mut ast::Select, target: &Target, key: &[usize], condition: Option<ast::Expr>) {
    let excluded = quoted(EXCLUDED);
    let rows = named_factor(vec![excluded.clone()].into(), excluded.clone());
    select.from = vec![plain_from(target.factor.clone()), plain_from(rows)];
    let equal = |at: &usize| {
        let name = target.columns.field(*at).name();
        both(column(&target.alias, name), BinaryOperator::Eq, column(&excluded, name))
    };
    let condition = condition.map(|condition| ast::Expr::Nested(Box::new(condition)));
    let conditions = key.iter().map(equal).chain(condition);
    select.selection = conditions.reduce(|one, other| both(one, BinaryOperator::And, other));
}

/// Takes the `AS x` of `INSERT INTO table AS x` out of a statement's tokens: the grammar doesn't know it.
pub(super) fn take_alias(tokens: &mut Vec<TokenWithSpan>) -> Option<Ident> {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| is_word(&token.token, word));
    let (first, _) = verb(tokens.iter().map(|token| &token.token))?;
    if !is(first, "INSERT") || !is(first + 1, "INTO") {
        return None;
    }
    let mut at = first + 3;
    while tokens.get(at).is_some_and(|token| token.token == Token::Period) {
        at += 2;
    }
    if !is(at, "AS") {
        return None;
    }
    let Token::Word(word) = tokens.get(at + 1)?.token.clone() else { return None };
    tokens.drain(at..at + 2);
    Some(match word.quote_style {
        Some(quote) => Ident::with_quote(quote, word.value),
        None => Ident::new(word.value),
    })
}

fn both(left: ast::Expr, op: BinaryOperator, right: ast::Expr) -> ast::Expr {
    ast::Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn no_key(table: &str) -> Error {
    Error::invalid(format!("table \"{table}\" has no primary key, so its rows can't conflict"))
        .hint("Leave ON CONFLICT out, or declare a PRIMARY KEY.")
}

/// Checks that the named columns are those of the primary key.
fn check_target(named: &[Ident], table: &str, columns: &Schema, key: &[usize]) -> Result<()> {
    if key.is_empty() {
        return Err(no_key(table));
    }
    let expected: Vec<&str> = key.iter().map(|at| columns.field(*at).name().as_str()).collect();
    let found: Vec<String> = named.iter().map(fold).collect();
    let same = expected.iter().copied().collect::<HashSet<_>>() == found.iter().map(String::as_str).collect();
    if same {
        return Ok(());
    }
    let (found, expected) = (found.join(", "), expected.join(", "));
    Err(Error::invalid(format!(
        "ON CONFLICT names ({found}), but the primary key of \"{table}\" is ({expected})"
    )))
}

/// Fails if a new row lacks a required value. Its columns start at index `first`.
pub(super) fn check_new(
    columns: &Schema,
    table: &str,
    rows: &arrow::array::RecordBatch,
    first: usize,
) -> Result<()> {
    use arrow::array::Array;
    for (at, field) in columns.fields().iter().enumerate() {
        if !field.is_nullable() && rows.column(first + at).logical_null_count() > 0 {
            return Err(not_null(field.name(), table));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Tables, lines};

    fn tables() -> Tables {
        Tables::new()
            .table("t", "(id INT PRIMARY KEY, name TEXT, n INT)", "VALUES (1, 'a', 1), (2, 'b', NULL)")
            .table("bag", "(id INT)", "")
            // Stands in for the rows that an INSERT would add.
            .table("excluded", "(id INT PRIMARY KEY, name TEXT, n INT)", "VALUES (1, 'x', 10), (3, 'y', 30)")
    }

    fn updates(sql: &str, expected: &[&str]) {
        let tables = tables();
        let dml = tables.planner.dml(sql, &tables).unwrap_or_else(|error| panic!("{}", error.render(sql)));
        let Some(OnConflict::DoUpdate(query)) = dml.on_conflict else { panic!("{sql}") };
        let rows = tables.execute(&query.plan, &|batch| vec![batch]).unwrap();
        assert_eq!(lines(&rows), expected, "{sql}");
    }

    #[test]
    fn rows_that_are_there_are_updated() {
        let insert = "INSERT INTO t VALUES (1, 'x', 10), (3, 'y', 30) ON CONFLICT";
        updates(&format!("{insert} (id) DO UPDATE SET name = excluded.name"), &["1|a|1|1|x|1"]);
        updates(&format!("{insert} DO UPDATE SET n = t.n + excluded.n"), &["1|a|1|1|a|11"]);
        updates(&format!("{insert} DO UPDATE SET n = 7 WHERE t.n > 1"), &[]);
        updates(
            "INSERT INTO t AS old VALUES (1, 'x', 10) ON CONFLICT DO UPDATE SET n = old.n - 1, name = upper(old.name)",
            &["1|a|1|1|A|0"],
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let fails = |sql: &str, expected: &str| {
            let tables = tables();
            assert_eq!(tables.planner.dml(sql, &tables).unwrap_err().message, expected);
        };
        fails(
            "INSERT INTO bag VALUES (1) ON CONFLICT DO UPDATE SET id = 1",
            "table \"bag\" has no primary key, so its rows can't conflict",
        );
        fails(
            "INSERT INTO t VALUES (1, 'x', 1) ON CONFLICT (name) DO NOTHING",
            "ON CONFLICT names (name), but the primary key of \"t\" is (id)",
        );
        fails(
            "INSERT INTO t VALUES (1, 'x', 1) ON CONFLICT DO UPDATE SET nam = 'x'",
            "column \"nam\" not found in \"t\"",
        );
    }
}
