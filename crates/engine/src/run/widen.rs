//! Columns that a table gets, between two epochs: all that is kept of its rows has them from then on, and what was made
//! before reads those that it knows.
//!
//! The new columns stand behind all others, so what was made before reads the first ones of each row: flows, sinks and
//! subscriptions cut what they are given to these. What brings rows of these alone, such as a sink into the table, has
//! the default in the others.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use millstream_sql::{Error, Result};

use super::Loop;
use super::log::Log;
use super::table::{Table, wider_delta};
use crate::catalog::{Definition, Object};

/// A table with its new columns, which is to take the place of the one without.
pub(super) struct Widened {
    object: Arc<Object>,
    table: Box<Table>,
    /// What readers have yet to take of it.
    log: Option<Log>,
}

impl Loop {
    /// The table as it is to be; an error where rows would lack a value that must be there.
    pub(super) fn prepare_widened(&self, object: &Arc<Object>, added: &[ScalarValue]) -> Result<Widened> {
        let name = &object.name;
        let Definition::Table { schema, .. } = &object.definition else {
            return Err(Error::bug(format!("\"{name}\" is no table in the catalog")));
        };
        let table =
            self.tables.get(name).ok_or_else(|| Error::bug(format!("table \"{name}\" doesn't run")))?;
        let fields = schema.fields().iter().skip(schema.fields().len().saturating_sub(added.len()));
        let needed = fields.zip(added).find(|(field, value)| value.is_null() && !field.is_nullable());
        if let Some((field, _)) = needed {
            let column = field.name();
            let rows = table.size().0.max(table.published().num_rows());
            let hint = format!(
                "Give it a default: ADD COLUMN {column} … NOT NULL DEFAULT …, or leave NOT NULL out."
            );
            if rows > 0 {
                return Err(Error::invalid(format!(
                    "column \"{column}\" is NOT NULL and has no default, but table \"{name}\" has {rows} rows, which would \
                     have no value there"
                ))
                .hint(hint));
            }
            if let Some(sink) = self.sink_into(name) {
                return Err(Error::invalid(format!(
                    "column \"{column}\" is NOT NULL and has no default, but sink \"{sink}\" delivers rows into table \
                     \"{name}\" that have no value there"
                ))
                .hint(hint));
            }
        }
        let table = Box::new(table.widened(schema, added)?);
        let log = self.logs.get(name).map(|log| log.mapped(|delta| wider_delta(delta, schema, added)));
        Ok(Widened { object: object.clone(), table, log: log.transpose()? })
    }

    /// A sink that delivers into a table.
    pub(super) fn sink_into(&self, table: &str) -> Option<&Arc<str>> {
        let mut into = self.queries.iter().filter_map(|query| query.into.as_ref());
        into.find(|into| into.table.as_ref() == table).map(|into| &into.sink)
    }

    /// Lets a table with its new columns take the place of the one without; the catalog has it already.
    pub(super) fn install_widened(&mut self, widened: Widened) {
        let Widened { object, mut table, log } = widened;
        // Transactions know a table by its copy of the name: those that have changed rows of the table as it was fail.
        let name: Arc<str> = object.name.as_ref().into();
        if let Some(mut before) = self.tables.remove(&object.name) {
            table.take_waiting(&mut before);
        }
        if let Some(log) = log {
            self.logs.insert(name.clone(), log);
        }
        self.tables.insert(name, *table);
    }
}
