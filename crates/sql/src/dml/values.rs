//! The columns and values of an INSERT.

use arrow::datatypes::{Field, FieldRef, Schema};
use datafusion::logical_expr::Expr;
use datafusion::sql::sqlparser::ast::{ObjectName, Query as QueryTree, SetExpr};
use millstream_delta::{default_of, generated_of};

use super::insert::written_columns;
use super::{Scope, is_default, not_null, unknown_column};
use crate::defaults;
use crate::error::{Error, Result};
use crate::hidden_columns::last_name;

impl Scope<'_> {
    /// Checks that named columns exist and are distinct, and that omitted ones are nullable or have defaults.
    pub(super) fn check_columns(&self, named: &[ObjectName], table: &str, columns: &Schema) -> Result<()> {
        let mut seen: Vec<String> = Vec::new();
        for name in named {
            let column = last_name(name).unwrap_or_default();
            let error = match () {
                _ if columns.index_of(&column).is_err() => Some(unknown_column(&column, table, columns)),
                _ if seen.contains(&column) => {
                    Some(Error::invalid(format!("column \"{column}\" is named twice")))
                }
                _ => None,
            };
            if let Some(error) = error {
                return Err(self.place(error, name));
            }
            seen.push(column);
        }
        let missing = |field: &Field| !named.is_empty() && !seen.contains(field.name());
        let is_given = |field: &Field| default_of(field).is_some() || generated_of(field).is_some();
        let needed = |field: &Field| !field.is_nullable() && !is_given(field);
        match columns.fields().iter().find(|field| needed(field) && missing(field)) {
            Some(field) => Err(not_null(field.name(), table).hint(format!("Name \"{}\" too.", field.name()))),
            None => Ok(()),
        }
    }

    /// Returns the defaults of the columns that aren't named.
    pub(super) fn defaults(&self, named: &[ObjectName], columns: &Schema) -> Result<Vec<(String, Expr)>> {
        if named.is_empty() || columns.fields().iter().all(|field| default_of(field).is_none()) {
            return Ok(Vec::new());
        }
        let named: Vec<String> = named.iter().filter_map(last_name).collect();
        let missing = columns.fields().iter().filter(|field| !named.contains(field.name()));
        let value = |field: &FieldRef| {
            let value = defaults::default_expr(self.planner, field).transpose()?;
            Some(value.map(|value| (field.name().clone(), value)))
        };
        missing.filter_map(value).collect()
    }

    /// Checks the number of values in each row of VALUES, and replaces DEFAULT by the column's default.
    pub(super) fn fill_values(
        &self,
        source: &mut QueryTree,
        named: &[ObjectName],
        table: &str,
        columns: &Schema,
    ) -> Result<()> {
        let SetExpr::Values(values) = source.body.as_mut() else { return Ok(()) };
        let expected = if named.is_empty() { columns.fields().len() } else { named.len() };
        for row in &mut values.rows {
            let row = &mut row.content;
            if row.len() != expected {
                return Err(Error::invalid(format!(
                    "INSERT has {} values where \"{table}\" takes {expected} columns",
                    row.len()
                ))
                .hint(format!("The columns are {}.", written_columns(columns))));
            }
            for (place, value) in row.iter_mut().enumerate().filter(|(_, value)| is_default(value)) {
                let field = match named.get(place) {
                    Some(name) => columns.field_with_name(&last_name(name).unwrap_or_default()),
                    None => Ok(columns.field(place)),
                };
                *value = defaults::tree(field.map_err(|error| Error::bug(error.to_string()))?)?;
            }
        }
        Ok(())
    }
}
