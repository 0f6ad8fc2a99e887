//! INSERT, UPDATE, DELETE: one after the other, each over the rows that those before it have left.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use millstream_delta::{fitted, under_schema};
use millstream_sql::{Dml, EXCLUDED, Error, OnConflict, Operation, Result, sqlstate};
use millstream_state::Conflict;

use super::Loop;
use super::table::Table;
use crate::catalog::{Definition, first_columns};
use crate::error;
use crate::event::{Modification, Reply};
use crate::settings::ClockKind;
use crate::snapshot;

impl Loop {
    pub(super) fn modify(&mut self, modification: Modification, once: Option<String>, reply: Reply<u64>) {
        // A statement that was given up before its turn came isn't done.
        if reply.is_closed() {
            return;
        }
        if let Err(error) = self.check_journal() {
            return reply.send(Err(error));
        }
        let target = match &modification {
            Modification::Statement(dml) => dml.table.as_str(),
            Modification::Insert { table, .. } | Modification::Delete { table, .. } => table.as_ref(),
        };
        if self.sources.contains_key(target) {
            return self.insert_into_source(modification, once, reply);
        }
        self.measures.rows_wait_since(Instant::now());
        let result = self.change_rows(modification);
        if result.is_ok() {
            self.durability.do_once(once);
        }
        match result {
            Ok((count, table)) => match self.tables.get_mut(&table) {
                Some(table) if self.settings.clock == ClockKind::System => table.wait(reply, count),
                _ => reply.send(Ok(count)),
            },
            Err(error) => reply.send(Err(error)),
        }
    }

    /// Changes a table and says which, and how many rows.
    fn change_rows(&mut self, modification: Modification) -> Result<(u64, Arc<str>)> {
        let named: &str = match &modification {
            Modification::Statement(dml) => &dml.table,
            Modification::Insert { table, .. } | Modification::Delete { table, .. } => table,
        };
        self.check_sinks_of(named)?;
        match modification {
            Modification::Statement(dml) => self.modify_by(&dml),
            Modification::Insert { table, rows } => {
                let rows = rows.into_iter().map(|rows| self.fitting(&table, rows));
                let rows = rows.collect::<Result<Vec<_>>>()?;
                self.check_event_time(&table, &rows)?;
                Ok((self.table(&table)?.insert(&rows, None)?, table))
            }
            Modification::Delete { table, rows } => {
                self.fitting(&table, rows).and_then(|rows| Ok((self.table(&table)?.delete(&[rows])?, table)))
            }
        }
    }

    fn table(&mut self, name: &str) -> Result<&mut Table> {
        self.tables.get_mut(name).ok_or_else(|| Error::invalid(format!("there is no table \"{name}\"")))
    }

    fn columns(&self, name: &str) -> Result<SchemaRef> {
        match &self.catalog.get(name)?.definition {
            Definition::Table { schema, .. } => Ok(schema.clone()),
            other => Err(Error::invalid(format!("\"{name}\" is a {}, not a table", other.kind()))),
        }
    }

    /// Rows from a program, under the table's schema.
    fn fitting(&self, table: &str, rows: RecordBatch) -> Result<RecordBatch> {
        let schema = self.columns(table)?;
        let fit = |rows: &RecordBatch, schema: &SchemaRef| {
            fitted(rows, schema).map_err(|error| {
                let error =
                    format!("the rows don't fit the columns of table \"{table}\" ({schema}): {error}");
                Error::invalid(error)
            })
        };
        // Who gives them may know it without columns that it got meanwhile.
        let rows = fit(&rows, &first_columns(&schema, rows.num_columns()))?;
        let rows = self.tables.get(table).map_or(Ok(rows.clone()), |table| table.whole(&rows))?;
        fit(&rows, &schema)
    }

    fn modify_by(&mut self, dml: &Dml) -> Result<(u64, Arc<str>)> {
        let name: Arc<str> = dml.table.as_str().into();
        let schema = self.columns(&name)?;
        if dml.columns.fields().len() != schema.fields().len() {
            let error = format!("table \"{name}\" got a column while the statement was planned");
            return Err(Error::external(error).hint("Run it again.").code(sqlstate::SERIALIZATION_FAILURE));
        }
        let batches = self.run_over_tables(&dml.query.plan, None)?;
        batches.iter().try_for_each(|batch| dml.check(batch))?;
        let named = |error: Error| Error { message: format!("table \"{name}\": {error}"), ..error };
        let part = |batches: &[RecordBatch], place| part(batches, place, &schema).map_err(named);
        let rows = part(&batches, 0)?;
        let on_conflict = match &dml.on_conflict {
            Some(OnConflict::DoUpdate(query)) => {
                self.table(&name)?.check_distinct_keys(&rows).map_err(named)?;
                let changed = self.run_over_tables(&query.plan, Some(&rows))?;
                changed.iter().try_for_each(|batch| dml.check_update(batch))?;
                let (old, new) = (part(&changed, 0)?, part(&changed, 1)?);
                self.check_event_time(&name, &[rows.clone(), new.clone()])?;
                let count = self.table(&name)?.merge(rows, old, new).map_err(named)?;
                return Ok((count, name));
            }
            Some(OnConflict::DoNothing) => Some(Conflict::Keep),
            None => None,
        };
        let new = if dml.operation == Operation::Update { Some(part(&batches, 1)?) } else { None };
        if dml.operation != Operation::Delete {
            self.check_event_time(&name, std::slice::from_ref(new.as_ref().unwrap_or(&rows)))?;
        }
        let table = self.table(&name)?;
        let count = match (dml.operation, new) {
            (Operation::Update, Some(new)) => table.update(rows, new),
            (Operation::Delete, _) => table.delete(&[rows]),
            _ => table.insert(&[rows], on_conflict),
        };
        Ok((count.map_err(named)?, name))
    }

    /// Runs a statement's query over the staged rows of tables, the present result of views and, where they are
    /// given, the rows that an INSERT would add.
    pub(super) fn run_over_tables(
        &self,
        plan: &LogicalPlan,
        excluded: Option<&RecordBatch>,
    ) -> Result<Vec<RecordBatch>> {
        let plan = millstream_sql::bind(plan.clone(), &mut |name, schema| {
            if let Some(rows) = excluded.filter(|_| name == EXCLUDED) {
                return snapshot::table(std::slice::from_ref(rows), schema, 1);
            }
            let batches = match self.tables.get(name) {
                Some(table) => table.staged().batches().map_err(error::arrow)?,
                None => self.content(name)?,
            };
            snapshot::table(&batches, schema, 1)
        })?;
        let driver = self.driver.bounded(self.settings.limits);
        let physical = driver.plan(&plan).map_err(error::flow)?;
        driver.run(&physical).map_err(error::flow)
    }
}

/// The columns of a table out of rows where they stand, or stand for the second time.
pub(crate) fn part(batches: &[RecordBatch], place: usize, schema: &SchemaRef) -> Result<RecordBatch> {
    let width = schema.fields().len();
    let columns: Vec<usize> = (place * width..(place + 1) * width).collect();
    let parts = batches
        .iter()
        .map(|batch| under_schema(&batch.project(&columns)?, schema))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Error::invalid(format!("the rows don't fit: {error}")))?;
    concat_batches(schema, &parts).map_err(error::arrow)
}
