//! The changes that sinks bring into a table: at once, or as a [`Change`] in pieces.

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use millstream_delta::{Chunk, Delta, consolidate};
use millstream_sql::{Error, Result};

use super::extended::extended_delta;
use super::{Change, Content, Table};
use crate::error;

/// The changes of a sink, with all that is needed to make them fit a table without the table.
pub(crate) struct ToBring {
    delta: Delta,
    schema: SchemaRef,
    added: Vec<ScalarValue>,
    is_keyed: bool,
}

impl ToBring {
    /// Returns the changes of a sink with all that is needed to make them fit a table.
    pub(crate) fn of(table: &Table, delta: Delta) -> ToBring {
        let schema = table.staged().schema().clone();
        ToBring { delta, schema, added: table.added.clone(), is_keyed: table.is_keyed() }
    }

    /// Returns the changes under the table's schema. Each row occurs once if some are deleted.
    fn fitted(self) -> Result<Delta> {
        let ToBring { delta, schema, added, .. } = self;
        // Rows of before columns were added don't have them yet.
        for (at, field) in schema.fields().iter().enumerate().filter(|(_, field)| !field.is_nullable()) {
            let missing = |chunk: &Chunk| chunk.rows.columns().get(at).map_or(0, Array::logical_null_count);
            if delta.chunks.iter().any(|chunk| missing(chunk) > 0) {
                let name = field.name();
                return Err(Error::invalid(format!(
                    "column \"{name}\" is NOT NULL and a row has no value for it"
                )));
            }
        }
        let delta = extended_delta(&delta, &schema, &added)?;
        let delta = delta.with_schema(&schema).map_err(error::arrow)?;
        Ok(if delta.is_append_only() { delta } else { consolidate(delta.clone(), &schema).unwrap_or(delta) })
    }

    /// Returns the same as a change in pieces.
    pub(crate) fn into_change(self) -> Result<Change> {
        let is_keyed = self.is_keyed;
        Change::bring(self.fitted()?, is_keyed)
    }

    /// Applies the changes and returns those of the table.
    fn apply_to(self, table: &mut Table) -> Result<Delta> {
        let change = self.apply_to_rows(table)?;
        table.rows.index(&mut table.indexes, change)
    }

    /// The same for the rows alone. A keyed table first deletes by key, then inserts by its rules for conflicts.
    fn apply_to_rows(self, table: &mut Table) -> Result<Delta> {
        let schema = self.schema.clone();
        let delta = self.fitted()?;
        table.sequences.pass_all(&delta);
        let Content::Keyed(rows) = &mut table.rows else {
            let Content::Bag(rows) = &mut table.rows else { return Ok(Delta::default()) };
            rows.apply(&delta).map_err(error::change)?;
            return Ok(delta);
        };
        let (inserts, deletes) = delta.split_by_sign().map_err(error::arrow)?;
        let mut change = Delta::default();
        let gone = deletes.chunks.into_iter().map(|chunk| (chunk, false));
        for (chunk, comes) in gone.chain(inserts.chunks.into_iter().map(|chunk| (chunk, true))) {
            let done = match comes {
                true => rows.upsert(&chunk.rows, table.intake.on_conflict),
                false => rows.delete(&chunk.rows),
            };
            match done {
                Ok(delta) => change.append(delta),
                Err(error) => {
                    table.rows.take_back(change);
                    return Err(error::change(error));
                }
            }
        }
        Ok(if change.is_append_only() {
            change
        } else {
            consolidate(change.clone(), &schema).unwrap_or(change)
        })
    }
}

impl Table {
    /// Applies the changes of a sink and returns those of the table, within an epoch that has taken in all pending changes.
    pub(crate) fn bring_now(&mut self, delta: Delta) -> Result<Delta> {
        self.published = None;
        self.version += 1;
        ToBring::of(self, delta).apply_to(self)
    }

    /// The same for the next epoch.
    pub(crate) fn stage_brought(&mut self, delta: Delta) -> Result<Delta> {
        if delta.is_empty() {
            return Ok(delta);
        }
        self.stage();
        let change = ToBring::of(self, delta).apply_to(self)?;
        self.pending.append(change.clone());
        Ok(change)
    }
}
