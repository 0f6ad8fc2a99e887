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
use crate::evaluate::keys_of;
use crate::event::{Asked, Content, Evaluated, Modification, Reply, Staged, TableVersion};
use crate::point;
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
        if self.sources.contains_key(modification.table()) {
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
        self.check_sinks_of(modification.table())?;
        match modification {
            Modification::Statement(dml) => {
                self.columns(&dml.table)?;
                let rows = self.run_over_tables(&dml.query.plan, None)?;
                rows.iter().try_for_each(|rows| dml.check(rows))?;
                self.modify_by(&dml, &rows, None)
            }
            Modification::Evaluated(evaluated) => {
                let Evaluated { dml, rows, updated, read, .. } = *evaluated;
                self.check_unchanged(&read)?;
                self.modify_by(&dml, &rows, updated)
            }
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

    /// Fails if some table isn't as it was when a statement read it.
    pub(super) fn check_unchanged(&self, read: &[TableVersion]) -> Result<()> {
        let is_same = |read: &TableVersion| {
            let table = self.tables.get_key_value(&read.name);
            table
                .is_some_and(|(name, table)| Arc::ptr_eq(name, &read.name) && table.version() == read.version)
        };
        match read.iter().find(|read| !is_same(read)) {
            None => Ok(()),
            Some(TableVersion { name, .. }) => {
                let error = format!("table \"{name}\" was changed while the statement read it");
                Err(Error::external(error).hint("Run it again.").code(sqlstate::SERIALIZATION_FAILURE))
            }
        }
    }

    /// The rows of relations as a statement sees them that changes rows.
    pub(super) fn read_staged(&self, asked: &[Asked]) -> Result<Staged> {
        let mut staged = Staged { relations: Vec::new(), versions: Vec::new() };
        for asked in asked {
            let Some((name, table)) = self.tables.get_key_value(&asked.name) else {
                staged.relations.push(Content::Batches(self.content(&asked.name)?));
                continue;
            };
            // What a source brings changes all the time: it is read as of one moment, as a view is.
            if !self.sources.contains_key(name) {
                staged.versions.push(TableVersion { name: name.clone(), version: table.version() });
            }
            let wanted = table.staged_wanted(&asked.wanted)?;
            staged.relations.push(wanted.map_or_else(|| Content::Snapshot(table.staged()), Content::Batches));
        }
        Ok(staged)
    }

    /// Takes what a statement's query gave, and where that is known what the one of its ON CONFLICT DO UPDATE did.
    fn modify_by(
        &mut self,
        dml: &Dml,
        batches: &[RecordBatch],
        updated: Option<Vec<RecordBatch>>,
    ) -> Result<(u64, Arc<str>)> {
        let name: Arc<str> = dml.table.as_str().into();
        let schema = self.columns(&name)?;
        if dml.columns.fields().len() != schema.fields().len() {
            let error = format!("table \"{name}\" got a column while the statement was planned");
            return Err(Error::external(error).hint("Run it again.").code(sqlstate::SERIALIZATION_FAILURE));
        }
        let named = |error: Error| Error { message: format!("table \"{name}\": {error}"), ..error };
        let part = |batches: &[RecordBatch], place| part(batches, place, &schema).map_err(named);
        let rows = part(batches, 0)?;
        let on_conflict = match &dml.on_conflict {
            Some(OnConflict::DoUpdate(query)) => {
                self.table(&name)?.check_distinct_keys(&rows).map_err(named)?;
                let changed = match updated {
                    Some(updated) => updated,
                    None => self.run_over_tables(&query.plan, Some((&name, &rows)))?,
                };
                changed.iter().try_for_each(|batch| dml.check_update(batch))?;
                let (old, new) = (part(&changed, 0)?, part(&changed, 1)?);
                self.check_event_time(&name, &[rows.clone(), new.clone()])?;
                let count = self.table(&name)?.merge(rows, old, new).map_err(named)?;
                return Ok((count, name));
            }
            Some(OnConflict::DoNothing) => Some(Conflict::Keep),
            None => None,
        };
        let new = if dml.operation == Operation::Update { Some(part(batches, 1)?) } else { None };
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
    /// given, the rows that an INSERT would add to a table.
    pub(super) fn run_over_tables(
        &self,
        plan: &LogicalPlan,
        excluded: Option<(&str, &RecordBatch)>,
    ) -> Result<Vec<RecordBatch>> {
        let mut asked = point::asked(plan)?;
        if let Some((target, rows)) = excluded
            && point::scans_of(plan, target)? == 1
        {
            // Rows of other keys conflict with none.
            let key = self.scope().key(target).unwrap_or_default();
            let of_target = asked.iter_mut().filter(|asked| asked.name.as_ref() == target);
            of_target.for_each(|asked| asked.wanted = keys_of(rows, &key));
        }
        let plan = millstream_sql::bind(plan.clone(), &mut |name, schema| {
            if let Some((_, rows)) = excluded.filter(|_| name == EXCLUDED) {
                return snapshot::table(std::slice::from_ref(rows), schema, 1);
            }
            let wanted = asked.iter().find(|asked| asked.name.as_ref() == name).map(|asked| &asked.wanted);
            let batches = match self.tables.get(name) {
                Some(table) => {
                    match wanted.map(|wanted| table.staged_wanted(wanted)).transpose()?.flatten() {
                        Some(found) => found,
                        None => table.staged().batches().map_err(error::arrow)?,
                    }
                }
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
