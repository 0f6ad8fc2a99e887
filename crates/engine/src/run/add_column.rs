//! Adding columns to a table, between two epochs: all kept rows of the table get them.
//!
//! The new columns follow all others. Flows, sinks and subscriptions that were created before read only the first
//! columns of each row, which they know. Rows from a writer that doesn't know the new columns, such as a sink into the
//! table, get their defaults.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use millstream_sql::{Error, Result};

use super::log::Log;
use super::outputs::Outputs;
use super::table::{ExtendedTable, extended_delta};
use super::tables::BaseTables;
use crate::catalog::{Definition, Object};
use crate::run::queries::Queries;

/// The rows of a table with its new columns, which will replace the old ones.
pub(super) struct AddedColumns {
    object: Arc<Object>,
    rows: Box<ExtendedTable>,
    /// The log of the table, with the changes that its readers have yet to take.
    log: Option<Log>,
}

impl Queries {
    /// Returns a sink that delivers into a table.
    pub(super) fn sink_into(&self, table: &str) -> Option<&Arc<str>> {
        let mut into = self.all.iter().filter_map(|query| query.into.as_ref());
        into.find(|into| into.table.as_ref() == table).map(|into| &into.sink)
    }
}

/// Returns the rows of a table with its new columns. Fails if rows would lack a value in a NOT NULL column.
pub(super) fn prepare_added_columns(
    queries: &Queries,
    tables: &BaseTables,
    outputs: &Outputs,
    object: &Arc<Object>,
    added: &[ScalarValue],
) -> Result<AddedColumns> {
    let name = &object.name;
    let Definition::Table { schema, .. } = &object.definition else {
        return Err(Error::bug(format!("\"{name}\" is no table in the catalog")));
    };
    let table = tables.get(name).ok_or_else(|| Error::bug(format!("table \"{name}\" doesn't run")))?;
    let fields = schema.fields().iter().skip(schema.fields().len().saturating_sub(added.len()));
    let needed = fields.zip(added).find(|(field, value)| value.is_null() && !field.is_nullable());
    if let Some((field, _)) = needed {
        let column = field.name();
        let rows = table.size().0.max(table.published().num_rows());
        let hint =
            format!("Give it a default: ADD COLUMN {column} … NOT NULL DEFAULT …, or leave NOT NULL out.");
        if rows > 0 {
            return Err(Error::invalid(format!(
                "column \"{column}\" is NOT NULL and has no default, but table \"{name}\" has {rows} rows, which would \
                 have no value there"
            ))
            .hint(hint));
        }
        if let Some(sink) = queries.sink_into(name) {
            return Err(Error::invalid(format!(
                "column \"{column}\" is NOT NULL and has no default, but sink \"{sink}\" delivers rows into table \
                 \"{name}\" that have no value there"
            ))
            .hint(hint));
        }
    }
    let rows = Box::new(table.extended(schema, added)?);
    let log = outputs.logs.get(name).map(|log| log.mapped(|delta| extended_delta(delta, schema, added)));
    Ok(AddedColumns { object: object.clone(), rows, log: log.transpose()? })
}

/// Gives a table its new columns; the catalog has these already.
pub(super) fn install_added_columns(tables: &mut BaseTables, outputs: &mut Outputs, columns: AddedColumns) {
    let AddedColumns { object, rows, log } = columns;
    // Transactions identify a table by its copy of the name. So those that have changed rows of the old table fail.
    let name: Arc<str> = object.name.as_ref().into();
    if let Some(log) = log {
        outputs.logs.insert(name.clone(), log);
    }
    if let Some(mut table) = tables.remove(&object.name) {
        table.install_extended(*rows);
        tables.insert(name, table);
    }
}
