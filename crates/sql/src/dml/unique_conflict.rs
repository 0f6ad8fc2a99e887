//! `INSERT … ON CONFLICT` that names the columns, or the constraint, of a UNIQUE constraint instead of the primary key.
//!
//! Such an INSERT is planned as a MERGE:
//!
//! ```sql
//! MERGE INTO t USING (the rows of the INSERT) AS excluded ON t.u = excluded.u
//! WHEN MATCHED AND … THEN UPDATE SET … WHEN NOT MATCHED THEN INSERT (…) VALUES (excluded.…)
//! ```
//!
//! With DO NOTHING, the first of several rows of the INSERT with the same values counts. With DO UPDATE, they are an error
//! if the table has such a row.

use std::collections::HashSet;
use std::ops::ControlFlow;

use arrow::datatypes::{Field, Schema};
use datafusion::sql::sqlparser::ast::{
    self, ConflictTarget, MergeAction, OnConflict, OnConflictAction, OnInsert, Query, SetExpr, Statement,
    TableFactor, VisitorMut,
};
use millstream_delta::{default_of, generated_of, sql_type_of};

use super::conflict::EXCLUDED;
use super::tree::{named_factor, quoted};
use super::{Dml, Scope, refuse};
use crate::ast_rewrite::parsed;
use crate::ast_walk::walk_mut;
use crate::error::{Error, Result};
use crate::functions::quote_ident;
use crate::hidden_columns::{fold, last_name};
use crate::identity::Identity;
use crate::indexes::TableIndex;
use crate::relation::{Relation, parts_of};

/// The alias of the query that the rows of the INSERT replace. Users can't name it by accident.
const ROWS: &str = "rows of the insert";

/// The columns that number the rows, and the rows with the same values.
const PLACE: &str = "place of the row";
const AMONG: &str = "place among equal rows";

impl Scope<'_> {
    /// Returns the UNIQUE constraint or index that an ON CONFLICT clause names, if it doesn't name the primary key.
    pub(super) fn unique_conflict(
        &self,
        on: Option<&OnInsert>,
        table: &str,
        columns: &Schema,
    ) -> Option<TableIndex> {
        let Some(OnInsert::OnConflict(OnConflict { conflict_target: Some(target), .. })) = on else {
            return None;
        };
        let key = match self.relations.get(table) {
            Some(Relation::Rows { key: Some(key), .. }) => key,
            _ => Vec::new(),
        };
        let mut unique = TableIndex::all(columns).into_iter().filter(TableIndex::is_unique);
        match target {
            ConflictTarget::Columns(named) => {
                let named: HashSet<String> = named.iter().map(fold).collect();
                let are = |places: &[usize]| {
                    let names = places.iter().map(|place| columns.field(*place).name().clone());
                    names.collect::<HashSet<_>>() == named
                };
                if are(&key) { None } else { unique.find(|index| are(&index.columns)) }
            }
            ConflictTarget::OnConstraint(name) => {
                let name = last_name(name)?;
                unique.find(|index| index.name_in(table) == name)
            }
        }
    }

    /// Plans such an INSERT; its source gives values to the named columns, or to the first ones.
    pub(super) fn insert_or_update(
        &self,
        mut insert: ast::Insert,
        (table, columns): (&str, &Schema),
        index: &TableIndex,
    ) -> Result<Dml> {
        if insert.returning.is_some() {
            return Err(Error::unsupported("RETURNING with ON CONFLICT on a UNIQUE constraint")
                .hint("Leave RETURNING out, and SELECT the rows afterwards; or name the primary key."));
        }
        let (Some(OnInsert::OnConflict(clause)), Some(mut source)) = (insert.on.take(), insert.source.take())
        else {
            return Err(Error::bug("an INSERT with ON CONFLICT has rows"));
        };
        let given =
            given_columns(&insert.columns.iter().filter_map(last_name).collect::<Vec<_>>(), &source, columns);
        let (schema, local) = parts_of(table, self.relations);
        let alias = self.alias.clone().unwrap_or_else(|| quoted(local));
        refuse(fold(&alias) == EXCLUDED, "a table named \"excluded\" in ON CONFLICT")?;
        let is_once = clause.action == OnConflictAction::DoNothing;
        let is_numbered = number_values(&mut source);
        let text = merge_text(&fold(&alias), &given, columns, index, is_once, is_numbered);
        let Ok(Statement::Merge(mut merge)) = parsed(&text) else {
            return Err(Error::bug(format!("the MERGE of an INSERT can't be read: {text}")));
        };
        merge.table = named_factor(vec![quoted(schema), quoted(local)].into(), alias);
        let _ = walk_mut(&mut merge.source, &mut PutRows(Some(source)));
        match (clause.action, merge.clauses.first_mut()) {
            (OnConflictAction::DoUpdate(update), Some(matched)) => {
                matched.predicate = update.selection;
                if let MergeAction::Update(action) = &mut matched.action {
                    action.assignments = update.assignments;
                }
            }
            // A row that matches no clause is left alone.
            (OnConflictAction::DoNothing, _) => drop(merge.clauses.remove(0)),
            (OnConflictAction::DoUpdate(_), None) => return Err(Error::bug("a MERGE without clauses")),
        }
        self.merge(merge)
    }
}

/// Numbers rows of VALUES, which have an order. Returns false for another query, whose rows have none.
fn number_values(source: &mut Query) -> bool {
    let SetExpr::Values(values) = source.body.as_mut() else { return false };
    for (place, row) in values.rows.iter_mut().enumerate() {
        let number = ast::Value::Number(place.to_string(), false);
        row.content.push(ast::Expr::Value(number.into()));
    }
    true
}

/// Puts the rows of the INSERT in the place of a query.
struct PutRows(Option<Box<Query>>);

impl VisitorMut for PutRows {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Derived { subquery, alias: Some(alias), .. } = factor
            && alias.name.value == ROWS
            && let Some(rows) = self.0.take()
        {
            *subquery = rows;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// Returns the names of the columns that an INSERT gives values to.
fn given_columns(named: &[String], source: &Query, columns: &Schema) -> Vec<String> {
    if !named.is_empty() {
        return named.to_vec();
    }
    let plain = columns.fields().iter().filter(|field| generated_of(field).is_none());
    let names = plain.map(|field| field.name().clone());
    match source.body.as_ref() {
        SetExpr::Values(values) => {
            names.take(values.rows.first().map_or(0, |row| row.content.len())).collect()
        }
        _ => names.collect(),
    }
}

/// Returns the MERGE, without its table, rows and assignments.
fn merge_text(
    alias: &str,
    given: &[String],
    columns: &Schema,
    index: &TableIndex,
    is_once: bool,
    is_numbered: bool,
) -> String {
    let alias = quote_ident(alias);
    let unique: Vec<String> =
        index.columns.iter().map(|place| quote_ident(columns.field(*place).name())).collect();
    let equal = if index.nulls_distinct { "=" } else { "IS NOT DISTINCT FROM" };
    let on: Vec<String> =
        unique.iter().map(|name| format!("{alias}.{name} {equal} {EXCLUDED}.{name}")).collect();
    let plain = || columns.fields().iter().filter(|field| generated_of(field).is_none());
    // Numbers of an identity column are taken for the rows that are inserted.
    let is_given = |field: &Field| given.contains(field.name());
    let inserted: Vec<String> = plain()
        .filter(|field| is_given(field) || Identity::of(field).is_none())
        .map(|field| quote_ident(field.name()))
        .collect();
    let value = |field: &Field| {
        let name = quote_ident(field.name());
        let value = match (is_given(field), default_of(field).filter(|_| Identity::of(field).is_none())) {
            (true, _) => name.clone(),
            (false, Some(default)) => format!("({default})"),
            (false, None) => "NULL".into(),
        };
        format!("CAST({value} AS {}) AS {name}", cast_type(field))
    };
    let values: Vec<String> = plain().map(|field| value(field)).collect();
    let mut listed: Vec<String> = given.iter().map(|name| quote_ident(name)).collect();
    let place = match is_numbered {
        true => format!("\"{PLACE}\""),
        false => format!("row_number() OVER () AS \"{PLACE}\""),
    };
    listed.extend(is_numbered.then(|| place.clone()));
    let mut rows = format!(
        "SELECT {}, {place} FROM (SELECT 1) AS \"{ROWS}\" ({})",
        values.join(", "),
        listed.join(", "),
    );
    if is_once {
        let among = format!(
            "row_number() OVER (PARTITION BY {} ORDER BY \"{PLACE}\") AS \"{AMONG}\"",
            unique.join(", ")
        );
        let nulls: Vec<String> = match index.nulls_distinct {
            true => unique.iter().map(|name| format!(" OR {name} IS NULL")).collect(),
            false => Vec::new(),
        };
        rows = format!(
            "SELECT * FROM (SELECT *, {among} FROM ({rows}) AS r) AS r WHERE \"{AMONG}\" = 1{}",
            nulls.concat()
        );
    }
    format!(
        "MERGE INTO t AS {alias} USING ({rows}) AS {EXCLUDED} ON {} WHEN MATCHED THEN UPDATE SET x = NULL WHEN NOT MATCHED \
         THEN INSERT ({}) VALUES ({})",
        on.join(" AND "),
        inserted.join(", "),
        inserted.iter().map(|name| format!("{EXCLUDED}.{name}")).collect::<Vec<_>>().join(", "),
    )
}

/// Returns the type that a value is cast to. Lengths of texts are verified later: a cast would cut them.
fn cast_type(field: &Field) -> String {
    let name = sql_type_of(field);
    let is_text = ["VARCHAR", "CHAR", "BPCHAR"].iter().any(|text| name.starts_with(text));
    if is_text && !name.ends_with(']') { "TEXT".into() } else { name }
}
