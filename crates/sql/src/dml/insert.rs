//! INSERT: its query returns whole new rows. VALUES take the types of the columns; a query is cast to them.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{self, Ident, ObjectName, Query, SetExpr, Statement, TableObject};
use millstream_delta::generated_of;

use super::column_aliases::alias_items;
use super::column_checks::check_declared_types;
use super::generated::leave_out_generated;
use super::insert_target::InsertTarget;
use super::{Dml, Operation, Scope, is_default, refuse, verb};
use crate::ast_rewrite::parsed;
use crate::error::{Error, Result};
use crate::hidden_columns::{self, last_name};
use crate::identity;
use crate::planner::Raw;

impl Scope<'_> {
    pub(super) fn insert(&self, mut insert: ast::Insert) -> Result<Dml> {
        refuse(insert.or.is_some() || insert.ignore, "INSERT OR …")?;
        if insert.overwrite || insert.replace_into {
            return Err(Error::unsupported("INSERT OVERWRITE")
                .hint("In one transaction: BEGIN; TRUNCATE t; INSERT INTO t …; COMMIT."));
        }
        refuse(!insert.assignments.is_empty(), "INSERT … SET")?;
        let TableObject::TableName(name) = &insert.table else {
            return Err(Error::unsupported("INSERT into a table function"));
        };
        let (table, columns) = self.table(name)?;
        let unique = self.unique_conflict(insert.on.as_ref(), &table, &columns);
        let (mut on_conflict, mut returning) = (None, None);
        if unique.is_none() {
            on_conflict = insert.on.take().map(|on| self.conflict(on, &table, &columns)).transpose()?;
            returning = self.returning_of_insert(insert.returning.take(), &table, &columns)?;
        }
        if insert.source.is_none() {
            (insert.columns, insert.source) = default_values(&columns)?;
        }
        let source = insert.source.as_mut().ok_or_else(|| Error::bug("an INSERT has a query"))?;
        alias_items(source);
        leave_out_generated(source, &mut insert.columns, &columns).map_err(|(error, name)| match name {
            Some(name) => self.place(error, &name),
            None => error,
        })?;
        if !self.is_overriding {
            identity::refuse_values(source, &insert.columns, &columns, is_default)?;
        }
        self.check_columns(&insert.columns, &table, &columns)?;
        self.fill_values(source, &insert.columns, &table, &columns)?;
        if let Some(with) = self.with.clone() {
            verb::add_with(source, with);
        }
        if let Some(index) = unique {
            return self.insert_or_update(insert, (&table, &columns), &index);
        }
        let defaults = self.defaults(&insert.columns, &columns)?;
        let Raw { plan, reads } = match source.body.as_ref() {
            SetExpr::Values(_) => self.insert_values(insert, &table, &columns, &defaults)?,
            _ => self.insert_query(insert, &columns, &defaults)?,
        };
        let plan = check_declared_types(plan, &columns)
            .map_err(|error| Error::from_datafusion(&error, self.reader.text()))?;
        let raw = self.with_generated_and_checks(Raw { plan, reads }, 0, &table, &columns)?;
        let query = self.finish(raw, 0, &columns)?;
        Ok(Dml { operation: Operation::Insert, table, columns, query, on_conflict, returning })
    }

    /// Plans the rows of `INSERT … VALUES`. The values have the types of the table's columns.
    fn insert_values(
        &self,
        mut insert: ast::Insert,
        table: &str,
        columns: &SchemaRef,
        defaults: &[(String, Expr)],
    ) -> Result<Raw> {
        if let Some(source) = insert.source.as_mut() {
            hidden_columns::narrow_wildcards(source, &self.shown, self.relations)?;
        }
        let relations = InsertTarget { all: self.relations, table, columns, defaults };
        let plan =
            self.planner.translate(Statement::Insert(insert), &self.shown, &relations, self.reader.text());
        let Raw { plan, reads } = plan.map_err(|error| wrong_count(error, columns))?;
        match plan {
            LogicalPlan::Dml(plan) => Ok(Raw { plan: plan.input.as_ref().clone(), reads }),
            _ => Err(Error::bug("an INSERT was planned as something else")),
        }
    }

    /// Plans the rows of `INSERT … SELECT`.
    fn insert_query(
        &self,
        insert: ast::Insert,
        columns: &Schema,
        defaults: &[(String, Expr)],
    ) -> Result<Raw> {
        let source = insert.source.ok_or_else(|| Error::bug("an INSERT has a query"))?;
        let Raw { plan, reads } = self.translate(source)?;
        let schema = Arc::clone(plan.schema());
        let named: Vec<String> = match insert.columns.is_empty() {
            true => columns.fields().iter().map(|field| field.name().clone()).collect(),
            false => insert.columns.iter().filter_map(last_name).collect(),
        };
        if named.len() != schema.fields().len() {
            return Err(other_count(columns));
        }
        let item = |field: &FieldRef| {
            let name = field.name();
            if let Some(place) = named.iter().position(|named| named == name) {
                let item = Expr::Column(Column::from(schema.qualified_field(place)));
                return Ok(self.cast(item, &schema, field)?.alias(name));
            }
            let default = defaults.iter().find(|(column, _)| column == name).map(|(_, value)| value.clone());
            let null = || ScalarValue::try_from(field.data_type()).map(|null| Expr::Literal(null, None));
            Ok(default.map_or_else(null, Ok)?.alias(name))
        };
        let items = columns.fields().iter().map(item).collect::<Result<Vec<_>>>()?;
        let plan = LogicalPlanBuilder::from(plan).project(items).and_then(LogicalPlanBuilder::build);
        let plan = plan.map_err(|error| Error::from_datafusion(&error, self.reader.text()))?;
        Ok(Raw { plan, reads })
    }
}

/// Returns the columns and the query of `INSERT … DEFAULT VALUES`: a row with the default of each column.
fn default_values(columns: &Schema) -> Result<(Vec<ObjectName>, Option<Box<Query>>)> {
    let plain = columns.fields().iter().filter(|field| generated_of(field).is_none());
    let names: Vec<ObjectName> =
        plain.map(|field| ObjectName::from(vec![Ident::with_quote('"', field.name())])).collect();
    let row = vec!["DEFAULT"; names.len()].join(", ");
    match parsed(&format!("VALUES ({row})")) {
        Ok(Statement::Query(query)) => Ok((names, Some(query))),
        _ => Err(Error::bug("VALUES of defaults is a query")),
    }
}

fn wrong_count(error: Error, columns: &Schema) -> Error {
    match error.message.contains("olumn count doesn't match") {
        false => error,
        true => other_count(columns),
    }
}

fn other_count(columns: &Schema) -> Error {
    Error::invalid("the query of the INSERT returns a different number of columns than the table has")
        .hint(format!("The columns are {}.", written_columns(columns)))
}

/// Returns the names of the columns that an INSERT gives.
pub(super) fn written_columns(columns: &Schema) -> String {
    let plain = columns.fields().iter().filter(|field| generated_of(field).is_none());
    plain.map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
}
