//! INSERT INTO a source.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use millstream_connect::Inlet;
use millstream_delta::fitted;
use millstream_sql::{Dml, Error, Operation, Result, is_hidden};

use super::Writes;
use super::sources::Sources;
use crate::catalog::{Catalog, Definition};
use crate::error;
use crate::event::{Modification, Reply};
use crate::run::read_view::ReadView;

impl Writes<'_> {
    /// Inserts rows into a source. If it has an inlet, a task waits for room there, so that the loop doesn't. Otherwise
    /// the next epoch takes them, beside the rows that the source brings.
    pub(super) fn insert_into_source(
        &mut self,
        name: &Arc<str>,
        rows: Result<(Option<Arc<dyn Inlet>>, RecordBatch)>,
        idempotency_key: Option<String>,
        reply: Reply<u64>,
    ) {
        match rows {
            Err(error) => reply.send(Err(error)),
            Ok((None, rows)) => {
                self.durability.record_idempotency_key(idempotency_key);
                let now = self.clock.now(&self.setup.settings);
                let fits = self.setup.catalog.with_hidden(name, &rows).and_then(|rows| {
                    let all = std::slice::from_ref(&rows);
                    self.watermarks.check_event_time(&self.setup.settings, now, name, all)?;
                    Ok(rows)
                });
                self.sources.insert_rows(name, fits, &self.setup.settings, reply);
            }
            Ok((Some(inlet), rows)) => {
                self.durability.record_idempotency_key(idempotency_key);
                let count = rows.num_rows() as u64;
                self.tasks.handle.spawn(async move {
                    reply.send(inlet.insert(rows).await.map(|()| count).map_err(error::connect));
                });
            }
        }
    }
}

impl ReadView<'_> {
    pub(super) fn rows_for_source(
        &self,
        modification: Modification,
    ) -> Result<(Option<Arc<dyn Inlet>>, RecordBatch)> {
        let name = modification.table();
        let is_insert = match &modification {
            Modification::Statement(dml) => dml.operation == Operation::Insert,
            Modification::Evaluated(evaluated) => evaluated.dml.operation == Operation::Insert,
            Modification::Insert { .. } => true,
            Modification::Delete { .. } => false,
        };
        let (inlet, schema) = self.sources.inlet_of(&self.setup.catalog, name, is_insert)?;
        let fit = |rows: &RecordBatch| {
            fitted(rows, &schema)
                .map_err(|error| Error::invalid(format!("the rows don't fit source \"{name}\": {error}")))
        };
        let rows = match &modification {
            Modification::Insert { rows, .. } => {
                let rows = rows.iter().map(fit).collect::<Result<Vec<_>>>()?;
                concat_batches(&schema, &rows).map_err(error::arrow)?
            }
            Modification::Delete { rows, .. } => fit(rows)?,
            Modification::Statement(dml) => {
                let batches = self.run_over_tables(&dml.query.plan, None)?;
                inserted(dml, &batches, fit, &schema)?
            }
            Modification::Evaluated(evaluated) => {
                self.tables.check_unchanged(&evaluated.read)?;
                inserted(&evaluated.dml, &evaluated.rows, fit, &schema)?
            }
        };
        Ok((inlet, rows))
    }
}

/// Returns the rows of an INSERT under the source's schema.
fn inserted(
    dml: &Dml,
    batches: &[RecordBatch],
    fit: impl Fn(&RecordBatch) -> Result<RecordBatch>,
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    if dml.on_conflict.is_some() {
        let error =
            format!("ON CONFLICT of an INSERT into \"{}\", whose rows come from a connector,", dml.table);
        return Err(Error::unsupported(error)
            .hint("Leave it out. ON CONFLICT of CREATE TABLE says which row of a key stays."));
    }
    batches.iter().try_for_each(|batch| dml.check(batch))?;
    let fitting = batches.iter().map(fit).collect::<Result<Vec<_>>>()?;
    concat_batches(schema, &fitting).map_err(error::arrow)
}

impl Sources {
    /// Returns the inlet of a source, if any, and its visible columns.
    fn inlet_of(
        &self,
        catalog: &Catalog,
        name: &str,
        is_insert: bool,
    ) -> Result<(Option<Arc<dyn Inlet>>, SchemaRef)> {
        let inlet = self.get(name).and_then(|source| source.inserts.inlet().cloned());
        let Definition::Source { schema, .. } = &catalog.get(name)?.definition else {
            return Err(Error::bug(format!("\"{name}\" runs as a source but is none")));
        };
        if !is_insert {
            let what = match catalog.get(name)?.definition.kind() {
                "table" => "table with a connector",
                kind => kind,
            };
            return Err(Error::invalid(format!(
                "\"{name}\" is a {what}: its rows can't be updated or deleted"
            ))
            .hint("Store the rows in a table without a connector to update or delete them."));
        }
        let visible: Vec<_> = schema.fields().iter().filter(|field| !is_hidden(field)).cloned().collect();
        Ok((inlet, Arc::new(Schema::new(visible))))
    }
}
