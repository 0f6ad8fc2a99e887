//! Generated columns in the column list and the values of an INSERT: only DEFAULT may be given for them.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::sql::sqlparser::ast::{ObjectName, Query, SetExpr};
use millstream_delta::{checks_of, generated_of};

use super::tree::quoted;
use super::{Scope, is_default};
use crate::checks;
use crate::error::{Error, Result};
use crate::generated_columns::GeneratedExprs;
use crate::hidden_columns::last_name;
use crate::planner::Raw;
use crate::relation::Relation;
use crate::rules::names::with_casts;

impl Scope<'_> {
    /// Computes the generated columns of a table, and enforces its constraints, in a plan that has its visible columns from
    /// number `first` on.
    pub(super) fn with_generated_and_checks(
        &self,
        raw: Raw,
        first: usize,
        table: &str,
        columns: &Schema,
    ) -> Result<Raw> {
        let Some(Relation::Rows { schema, .. }) = self.relations.get(table) else { return Ok(raw) };
        let wrong = |error| Error::from_datafusion(&error, self.reader.text());
        let mut plan = raw.plan;
        let generated = GeneratedExprs::of(self.planner, &schema)?;
        if generated.is_some() || schema.fields().iter().any(|field| !checks_of(field).is_empty()) {
            // What is computed of a column doesn't depend on the way in which its value was written.
            let fields = plan.schema().fields().iter().enumerate();
            let own = |(at, field): (usize, &FieldRef)| {
                (at >= first && field.data_type().is_floating()).then(|| field.data_type().clone())
            };
            let casts: Vec<Option<DataType>> = fields.map(own).collect();
            plan = Arc::unwrap_or_clone(with_casts(Arc::new(plan), &casts).map_err(wrong)?);
        }
        if let Some(generated) = generated {
            plan = generated.compute(plan, first, columns).map_err(wrong)?;
        }
        Ok(Raw { plan: checks::enforce(self.planner, plan, first, table, columns, &schema)?, ..raw })
    }
}

/// The error of a statement that gives a generated column a value.
pub(super) fn is_generated(column: &str, table: &str) -> Error {
    let of = if table.is_empty() { String::new() } else { format!(" of \"{table}\"") };
    Error::invalid(format!("column \"{column}\"{of} is generated, so it can't be given a value"))
        .hint("Leave it out, or write DEFAULT.")
}

/// Leaves generated columns out of an INSERT's column list and rows. Without a list, rows may omit them or have DEFAULT
/// in their places. An error comes with the name that it is about, if that is written.
pub(super) fn leave_out_generated(
    source: &mut Query,
    named: &mut Vec<ObjectName>,
    columns: &Schema,
) -> std::result::Result<(), (Error, Option<ObjectName>)> {
    let generated =
        |name: &str| columns.field_with_name(name).is_ok_and(|field| generated_of(field).is_some());
    if !columns.fields().iter().any(|field| generated(field.name())) {
        return Ok(());
    }
    let written = !named.is_empty();
    if !written {
        *named = columns.fields().iter().map(|field| ObjectName::from(vec![quoted(field.name())])).collect();
    }
    let is_generated_name = |name: &ObjectName| last_name(name).is_some_and(|name| generated(&name));
    let places: Vec<usize> = (0..named.len()).filter(|place| is_generated_name(&named[*place])).collect();
    let given = |place: usize, named: &[ObjectName]| {
        let name = &named[place];
        (is_generated(&last_name(name).unwrap_or_default(), ""), written.then(|| name.clone()))
    };
    match source.body.as_mut() {
        SetExpr::Values(values) => {
            let count = named.len();
            for row in values.rows.iter_mut().map(|row| &mut row.content).filter(|row| row.len() == count) {
                if let Some(place) = places.iter().find(|place| !is_default(&row[**place])) {
                    return Err(given(*place, named));
                }
                let mut all = 0..count;
                row.retain(|_| all.next().is_some_and(|place| !places.contains(&place)));
            }
        }
        _ if written => {
            if let Some(place) = places.first() {
                return Err(given(*place, named));
            }
        }
        _ => {}
    }
    named.retain(|name| !is_generated_name(name));
    Ok(())
}
