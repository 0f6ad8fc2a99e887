//! INSERT, UPDATE, DELETE: one after the other, each over the rows as left by those before it.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use millstream_delta::{checks_of, fitted, sql_type_of, under_schema};
use millstream_sql::{Dml, EXCLUDED, Error, OnConflict, Operation, Result, changed_twice, sqlstate};
use millstream_state::Conflict;

use super::durable::Durability;
use super::table::{Change, Table};
use super::tables::BaseTables;
use super::{Loop, Writes};
use crate::catalog::{Catalog, Definition, first_columns};
use crate::content::Content;
use crate::event::{Asked, Evaluated, Modification, Reply, Staged, TableVersion};
use crate::point::keys_of;
use crate::run::read_view::ReadView;
use crate::run::sources::Sources;
use crate::settings::{ClockKind, Settings};
use crate::{error, point, snapshot};

impl Loop {
    /// Answers a statement that changes rows: applies its change, or begins to.
    pub(super) fn modify(
        &mut self,
        modification: Modification,
        idempotency_key: Option<String>,
        reply: Reply<u64>,
    ) {
        // A statement that was cancelled before its turn is not executed.
        if reply.is_closed() {
            return;
        }
        if let Err(error) = self.durability.check_journal() {
            return reply.send(Err(error));
        }
        let name: Arc<str> = modification.table().into();
        if self.sources.contains_key(&name) {
            let rows = self.read_view().rows_for_source(modification);
            return self.writes().insert_into_source(&name, rows, idempotency_key, reply);
        }
        self.measures.rows_wait_since(Instant::now());
        let change = self.outputs.check_sinks_of(&self.queries, &self.setup.settings, &name);
        if let (Ok(()), Modification::Evaluated(evaluated)) = (&change, &modification) {
            self.tables.reserved.exclude_sinks(evaluated.reservation, false);
        }
        match change.and_then(|()| self.read_view().change_of(modification)) {
            Ok(change) => self.writes().write(change, idempotency_key, reply),
            Err(error) => reply.send(Err(error)),
        }
    }
}

impl Writes<'_> {
    /// Applies the change of a statement, or begins to.
    fn write(&mut self, change: (Arc<str>, Change), idempotency_key: Option<String>, reply: Reply<u64>) {
        let changes = [change];
        if self.tables.are_large(&changes) {
            return self.tables.begin_pieces(changes.into(), false, idempotency_key, reply, self.queries);
        }
        let [(table, change)] = changes;
        let done = self.tables.table(&table).and_then(|of| of.change(change));
        let done = done.map_err(|error| named(&table, error));
        self.tables.answer_change(
            self.durability,
            &self.setup.settings,
            &table,
            idempotency_key,
            reply,
            done,
        );
    }
}

impl ReadView<'_> {
    /// Returns the change that a statement makes, and its table.
    fn change_of(&self, modification: Modification) -> Result<(Arc<str>, Change)> {
        match modification {
            Modification::Statement(dml) => {
                self.setup.catalog.columns(&dml.table)?;
                let rows = self.run_over_tables(&dml.query.plan, None)?;
                rows.iter().try_for_each(|rows| dml.check(rows))?;
                self.change_by(&dml, &rows, None)
            }
            Modification::Evaluated(evaluated) => {
                let Evaluated { dml, rows, updated, read, .. } = *evaluated;
                self.tables.check_unchanged(&read)?;
                self.change_by(&dml, &rows, updated)
            }
            Modification::Insert { table, rows } => {
                let schema = self.setup.catalog.columns(&table)?;
                if !rows.iter().all(|rows| are_checked(rows, &schema)) {
                    return Err(altered(&table));
                }
                let rows =
                    rows.into_iter().map(|rows| fitting(self.tables, &self.setup.catalog, &table, rows));
                let rows = rows.collect::<Result<Vec<_>>>()?;
                self.watermarks.check_event_time(
                    &self.setup.settings,
                    self.clock.now(&self.setup.settings),
                    &table,
                    &rows,
                )?;
                Ok((table, Change::insert(&rows, None)?))
            }
            Modification::Delete { table, rows } => {
                let rows = fitting(self.tables, &self.setup.catalog, &table, rows)?;
                Ok((table, Change::delete(&[rows])?))
            }
        }
    }

    /// Returns the change by the rows of a statement's query and, if known, by those of its ON CONFLICT DO UPDATE.
    fn change_by(
        &self,
        dml: &Dml,
        batches: &[RecordBatch],
        updated: Option<Vec<RecordBatch>>,
    ) -> Result<(Arc<str>, Change)> {
        let name: Arc<str> = dml.table.as_str().into();
        let schema = self.setup.catalog.columns(&name)?;
        if dml.columns.fields() != schema.fields() {
            return Err(altered(&name));
        }
        let parts = |batches: &[RecordBatch], place| {
            parts(batches, place, &schema).map_err(|error| named(&name, error))
        };
        let check_event_time = |rows: &[RecordBatch]| {
            let now = self.clock.now(&self.setup.settings);
            self.watermarks.check_event_time(&self.setup.settings, now, &name, rows)
        };
        let rows = || parts(batches, 0);
        let change = match (dml.operation, &dml.on_conflict) {
            (Operation::Merge, _) => {
                let merged = dml.merged(batches)?;
                let (updated, inserted) = (parts(&merged.updated, 1)?, parts(&merged.inserted, 1)?);
                check_event_time(&updated)?;
                check_event_time(&inserted)?;
                let old = parts(&merged.old, 0)?;
                let of = self.tables.get(&name).ok_or_else(|| no_table(&name))?;
                of.check_distinct_keys(&concat_batches(&schema, &old).map_err(error::arrow)?)
                    .map_err(|_| changed_twice(&name))?;
                Change::replace(&old, &updated, &inserted)?
            }
            (Operation::Update, _) => {
                let new = parts(batches, 1)?;
                check_event_time(&new)?;
                Change::update(&rows()?, &new)?
            }
            (Operation::Delete, _) => Change::delete(&rows()?)?,
            (Operation::Insert, Some(OnConflict::DoUpdate(query))) => {
                let rows = rows()?;
                let changed = match updated {
                    Some(updated) => updated,
                    None => {
                        let rows = concat_batches(&schema, &rows).map_err(error::arrow)?;
                        let of = self.tables.get(&name).ok_or_else(|| no_table(&name))?;
                        of.check_distinct_keys(&rows).map_err(|error| named(&name, error))?;
                        self.run_over_tables(&query.plan, Some((&name, &rows)))?
                    }
                };
                changed.iter().try_for_each(|batch| dml.check_update(batch))?;
                let (old, new) = (parts(&changed, 0)?, parts(&changed, 1)?);
                check_event_time(&rows)?;
                check_event_time(&new)?;
                Change::merge(&rows, &old, &new)?
            }
            (Operation::Insert, on_conflict) => {
                let rows = rows()?;
                check_event_time(&rows)?;
                Change::insert(&rows, on_conflict.as_ref().map(|_| Conflict::Keep))?
            }
        };
        Ok((name, change))
    }
}

impl ReadView<'_> {
    /// Runs a statement's query over the staged rows of tables and the present results of views. `excluded`: the rows
    /// that an INSERT would add to a table.
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
                        Some(found) => found.rows,
                        None => table.staged().batches().map_err(error::arrow)?,
                    }
                }
                None => self.content(name)?,
            };
            snapshot::table(&batches, schema, 1)
        })?;
        let driver = self.setup.execution.driver.bounded(self.setup.settings.limits);
        let physical = driver.plan(&plan).map_err(error::flow)?;
        driver.run(&physical).map_err(error::flow)
    }
}

impl Catalog {
    fn columns(&self, name: &str) -> Result<SchemaRef> {
        match &self.get(name)?.definition {
            Definition::Table { schema, .. } => Ok(schema.clone()),
            other => Err(Error::invalid(format!("\"{name}\" is a {}, not a table", other.kind()))),
        }
    }
}

impl BaseTables {
    /// Adds the rows of a table as a statement that changes rows sees them. Returns false for another relation.
    pub(super) fn add_staged(&self, sources: &Sources, asked: &Asked, staged: &mut Staged) -> Result<bool> {
        let Some((name, table)) = self.get_key_value(&asked.name) else { return Ok(false) };
        // A source changes the rows of its table all the time. They are read as of one moment, like a view.
        if !sources.contains_key(name) {
            staged.versions.push(TableVersion { name: name.clone(), version: table.version() });
        }
        let wanted = table.staged_wanted(&asked.wanted)?;
        staged.relations.push(
            wanted.map_or_else(|| Content::Snapshot(table.staged()), |found| Content::Batches(found.rows)),
        );
        Ok(true)
    }

    pub(super) fn table(&mut self, name: &str) -> Result<&mut Table> {
        self.get_mut(name).ok_or_else(|| no_table(name))
    }

    /// Returns an error if a table has changed since a statement read it.
    pub(super) fn check_unchanged(&self, read: &[TableVersion]) -> Result<()> {
        let is_same = |read: &TableVersion| {
            let table = self.get_key_value(&read.name);
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

    /// Lets a successful statement wait for the epoch that takes in its changes.
    pub(super) fn answer_change(
        &mut self,
        durability: &mut Durability,
        settings: &Settings,
        table: &str,
        idempotency_key: Option<String>,
        reply: Reply<u64>,
        done: Result<u64>,
    ) {
        if done.is_ok() {
            durability.record_idempotency_key(idempotency_key);
        }
        match (done, self.get_mut(table)) {
            (Ok(count), Some(table)) if settings.clock == ClockKind::System => table.wait(reply, count),
            (done, _) => reply.send(done),
        }
    }
}

/// Returns true if rows from a program were checked for all constraints that their table has.
fn are_checked(rows: &RecordBatch, schema: &SchemaRef) -> bool {
    let given = rows.schema_ref().fields().iter();
    let has_all = |field: &Field, given: &Field| {
        let checks = checks_of(given);
        checks_of(field).iter().all(|check| checks.contains(check))
    };
    schema.fields().iter().zip(given).all(|(field, given)| has_all(field, given))
}

fn altered(table: &str) -> Error {
    Error::external(format!("table \"{table}\" was altered while the statement was planned"))
        .hint("Run it again.")
        .code(sqlstate::SERIALIZATION_FAILURE)
}

fn no_table(name: &str) -> Error {
    Error::invalid(format!("there is no table \"{name}\""))
}

/// Returns rows from a program under the table's schema.
fn fitting(tables: &BaseTables, catalog: &Catalog, table: &str, rows: RecordBatch) -> Result<RecordBatch> {
    let schema = catalog.columns(table)?;
    let fit = |rows: &RecordBatch, schema: &SchemaRef| {
        fitted(rows, schema).map_err(|error| {
            let columns =
                schema.fields().iter().map(|field| format!("{} {}", field.name(), sql_type_of(field)));
            let columns = columns.collect::<Vec<_>>().join(", ");
            Error::invalid(format!(
                "the rows don't fit the columns of table \"{table}\" ({columns}): {error}"
            ))
        })
    };
    // The program may not know columns that were added meanwhile.
    let rows = fit(&rows, &first_columns(&schema, rows.num_columns()))?;
    let rows = tables.get(table).map_or(Ok(rows.clone()), |table| table.whole(&rows))?;
    fit(&rows, &schema)
}

/// Returns an error that names its table.
pub(super) fn named(table: &str, error: Error) -> Error {
    Error { message: format!("table \"{table}\": {}", error.message), ..error }
}

/// Returns the columns of a table out of rows that hold them once or twice: those of the first or the second time.
fn parts(batches: &[RecordBatch], place: usize, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let width = schema.fields().len();
    let columns: Vec<usize> = (place * width..(place + 1) * width).collect();
    let part = |batch: &RecordBatch| under_schema(&batch.project(&columns)?, schema);
    let parts = batches.iter().map(part).collect::<std::result::Result<_, _>>();
    parts.map_err(|error| Error::invalid(format!("the rows don't fit: {error}")))
}

/// Returns the same as one batch.
pub(crate) fn part(batches: &[RecordBatch], place: usize, schema: &SchemaRef) -> Result<RecordBatch> {
    concat_batches(schema, &parts(batches, place, schema)?).map_err(error::arrow)
}
