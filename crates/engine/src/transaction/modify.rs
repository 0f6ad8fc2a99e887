//! INSERT, UPDATE and DELETE inside a transaction: they read its snapshot and add to its own changes.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use millstream_delta::under_schema;
use millstream_sql::{
    Dml, EXCLUDED, Error, OnConflict, Operation, RETURNED, Result, changed_twice, sqlstate,
};
use millstream_state::{Conflict, Keyed, Size};

use super::own::{Found, Own, altered};
use super::read::Rows;
use super::{PinnedTable, Transaction, View};
use crate::catalog::{begins_with, first_columns};
use crate::engine::Shared;
use crate::error;
use crate::event::{Asked, Event, Modification, Question};
use crate::point::{self, keys_of};
use crate::returning::{Affected, DmlResult, changed_rows, skips_rows};
use crate::run::{check_distinct_keys, extended, part};
use crate::statements::select;

/// The maximum size of a transaction's changes before COMMIT.
const OWN_BYTES_MAX: usize = 1 << 30;

/// The maximum number of keys that the loop looks up at once.
const LOOKED_UP_MAX: Size = Size::of(8 * 1024);

/// A change of a table's rows.
enum Edit {
    Insert {
        rows: RecordBatch,
        conflict: Option<Conflict>,
    },
    /// Under `strict` all rows were seen.
    Delete {
        rows: RecordBatch,
        strict: bool,
    },
    Update {
        old: RecordBatch,
        new: RecordBatch,
    },
    /// A MERGE: it deletes the old rows, and inserts the new ones.
    Replace {
        old: RecordBatch,
        updated: RecordBatch,
        inserted: RecordBatch,
    },
    /// An INSERT with ON CONFLICT DO UPDATE.
    Merge {
        rows: RecordBatch,
        old: RecordBatch,
        new: RecordBatch,
    },
}

impl Edit {
    fn batches(&self) -> Vec<&RecordBatch> {
        match self {
            Edit::Insert { rows, .. } | Edit::Delete { rows, .. } => vec![rows],
            Edit::Update { old, new } => vec![old, new],
            Edit::Replace { old, updated, inserted } => vec![old, updated, inserted],
            Edit::Merge { rows, old, new } => vec![rows, old, new],
        }
    }

    /// Returns the operation that an append-only table refuses, if any.
    fn changes(&self) -> Option<&'static str> {
        match self {
            Edit::Insert { .. } => None,
            Edit::Delete { rows, .. } => (rows.num_rows() > 0).then_some("DELETE"),
            Edit::Update { old, .. } => (old.num_rows() > 0).then_some("UPDATE"),
            Edit::Replace { old, .. } => (old.num_rows() > 0).then_some("MERGE with UPDATE or DELETE"),
            Edit::Merge { .. } => Some("ON CONFLICT DO UPDATE"),
        }
    }
}

impl Transaction {
    /// Changes rows of the transaction's snapshot.
    pub(crate) async fn modify(&mut self, shared: &Shared, modification: Modification) -> Result<DmlResult> {
        let (name, operation) = match &modification {
            Modification::Statement(dml) => (dml.table.as_str(), dml.operation),
            Modification::Evaluated(evaluated) => (evaluated.dml.table.as_str(), evaluated.dml.operation),
            Modification::Insert { table, .. } => (table.as_ref(), Operation::Insert),
            Modification::Delete { table, .. } => (table.as_ref(), Operation::Delete),
        };
        if self.modes.read_only {
            let word = match operation {
                Operation::Insert => "INSERT",
                Operation::Update => "UPDATE",
                Operation::Delete => "DELETE",
                Operation::Merge => "MERGE",
            };
            return Err(Error::invalid(format!("{word} can't be run in a transaction that is READ ONLY"))
                .code(sqlstate::READ_ONLY_SQL_TRANSACTION));
        }
        let (name, table) = self.target(shared, name).await?;
        let named = |error: Error| Error { message: format!("table \"{name}\": {error}"), ..error };
        let mut returned = None;
        let edit = match modification {
            Modification::Insert { rows, .. } => {
                let mut count = 0;
                for rows in rows {
                    let rows = fitting(&name, &rows, &table)?;
                    let edit = Edit::Insert { rows, conflict: None };
                    count += self.carry_out(shared, &name, &table, edit).await.map_err(named)?;
                }
                return Ok(DmlResult { count, returned: None });
            }
            Modification::Delete { rows, .. } => {
                Edit::Delete { rows: fitting(&name, &rows, &table)?, strict: table.key.is_empty() }
            }
            Modification::Evaluated(_) => {
                return Err(Error::bug("a transaction evaluates its statements itself"));
            }
            Modification::Statement(dml) => {
                let edit = self.edit(shared, &dml, &table).await.map_err(|failed| match failed {
                    Failed::Statement(error) => error,
                    Failed::Rows(error) => named(error),
                })?;
                returned = self.returned(shared, &dml, &table, &edit).await?;
                edit
            }
        };
        let count = self.carry_out(shared, &name, &table, edit).await.map_err(named)?;
        Ok(DmlResult { count, returned })
    }

    /// Evaluates the RETURNING clause of a statement, if it has one.
    async fn returned(
        &mut self,
        shared: &Shared,
        dml: &Dml,
        table: &PinnedTable,
        edit: &Edit,
    ) -> Result<Option<Vec<RecordBatch>>> {
        let Some(returning) = &dml.returning else { return Ok(None) };
        let (rows, updated) = match edit {
            Edit::Insert { rows, .. } | Edit::Delete { rows, .. } | Edit::Update { new: rows, .. } => {
                (rows, None)
            }
            Edit::Replace { .. } => return Err(Error::bug("a MERGE has no RETURNING")),
            Edit::Merge { rows, new, .. } => (rows, Some(new)),
        };
        let mut existing = None;
        if let Some(query) = returning.existing.as_ref().filter(|_| skips_rows(dml, table.intake.on_conflict))
        {
            existing = Some(self.run(shared, &query.plan, Some((EXCLUDED, rows))).await?);
        }
        let of_table = table.intake.on_conflict;
        let affected = Affected { rows, updated, existing: existing.as_deref(), of_table };
        let changed = changed_rows(dml, &table.key, &affected)?;
        self.run(shared, &returning.query.plan, Some((RETURNED, &changed))).await.map(Some)
    }

    /// Returns the snapshot of the table to change.
    async fn target(&mut self, shared: &Shared, name: &str) -> Result<(Arc<str>, PinnedTable)> {
        let catalog = shared.catalog();
        let object = catalog.find(name);
        let kind = object.map(|object| object.definition.base_kind());
        let columns = object.and_then(|object| object.definition.schema());
        let view = self.view(shared).await?;
        match (view.begun.tables.get_key_value(name), kind) {
            // The snapshot has the current rows of sources, too.
            (_, Some("source")) => Err(Error::unsupported("INSERT into a source inside a transaction").hint(
                "COMMIT first: INSERT into a source, or into a table with a connector, takes effect at once.",
            )),
            (Some((_, table)), Some("table"))
                if columns.is_none_or(|now| {
                    now.fields().len() != table.schema.fields().len() || !begins_with(now, &table.schema)
                }) =>
            {
                Err(altered(name))
            }
            (Some((name, table)), _) => Ok((name.clone(), table.clone())),
            (None, Some("table")) => {
                Err(Error::external(format!("table \"{name}\" was created after the transaction began"))
                    .hint("Use ROLLBACK and start again.")
                    .code(sqlstate::SERIALIZATION_FAILURE))
            }
            (None, Some(kind)) => Err(Error::invalid(format!("\"{name}\" is a {kind}, not a table"))),
            (None, None) => Err(Error::invalid(format!("there is no table \"{name}\""))),
        }
    }

    /// Returns the rows that a statement changes.
    async fn edit(&mut self, shared: &Shared, dml: &Dml, table: &PinnedTable) -> Result<Edit, Failed> {
        let schema = &table.schema;
        let batches = self.run(shared, &dml.query.plan, None).await?;
        batches.iter().try_for_each(|batch| dml.check(batch))?;
        let of = |batches: &[RecordBatch], place| part(batches, place, schema).map_err(Failed::Rows);
        let rows = || of(&batches, 0);
        Ok(match (&dml.on_conflict, dml.operation) {
            (Some(OnConflict::DoUpdate(query)), _) => {
                let rows = rows()?;
                if !table.key.is_empty() {
                    check_distinct_keys(&rows, &table.key).map_err(Failed::Rows)?;
                }
                let changed = self.run(shared, &query.plan, Some((EXCLUDED, &rows))).await?;
                changed.iter().try_for_each(|batch| dml.check_update(batch))?;
                Edit::Merge { rows, old: of(&changed, 0)?, new: of(&changed, 1)? }
            }
            (Some(OnConflict::DoNothing), _) => {
                Edit::Insert { rows: rows()?, conflict: Some(Conflict::Keep) }
            }
            (None, Operation::Insert) => Edit::Insert { rows: rows()?, conflict: None },
            (None, Operation::Delete) => Edit::Delete { rows: rows()?, strict: true },
            (None, Operation::Update) => Edit::Update { old: rows()?, new: of(&batches, 1)? },
            (None, Operation::Merge) => {
                let merged = dml.merged(&batches)?;
                let (updated, inserted) = (of(&merged.updated, 1)?, of(&merged.inserted, 1)?);
                let old = of(&merged.old, 0)?;
                if !table.key.is_empty() {
                    check_distinct_keys(&old, &table.key).map_err(|_| changed_twice(&dml.table))?;
                }
                Edit::Replace { old, updated, inserted }
            }
        })
    }

    /// Runs a statement's query over the transaction's snapshot, and over the rows of a relation of the statement's own.
    async fn run(
        &mut self,
        shared: &Shared,
        plan: &LogicalPlan,
        given: Option<(&str, &RecordBatch)>,
    ) -> Result<Vec<RecordBatch>> {
        let mut relations = point::asked(plan)?;
        relations.retain(|asked| given.is_none_or(|(name, _)| asked.name.as_ref() != name));
        let mut contents = self.contents(shared, relations, false, Rows::Staged).await?;
        if let Some((name, rows)) = given {
            contents.insert(name.to_string(), vec![rows.clone()]);
        }
        let (settings, now) = self.settings(shared).await?;
        let planner = shared.planner.at(now.0);
        select::collect(shared, &planner, plan.clone(), contents, &settings).await
    }

    /// Returns a change whose new rows have the values of existing ones instead of NULL, if that is the table's rule.
    async fn merged(
        &mut self,
        shared: &Shared,
        name: &Arc<str>,
        table: &PinnedTable,
        edit: Edit,
    ) -> Result<Edit> {
        let rows = match edit {
            Edit::Insert { rows, conflict: None } if table.intake.on_conflict == Conflict::Merge => rows,
            other => return Ok(other),
        };
        let asked = Asked { name: name.clone(), wanted: keys_of(&rows, &table.key) };
        let mut contents = self.contents(shared, vec![asked], false, Rows::Staged).await?;
        let existing = contents.remove(name.as_ref()).unwrap_or_default();
        let mut keyed = Keyed::new(table.schema.clone(), table.key.clone()).map_err(error::state)?;
        keyed.upsert(&part(&existing, 0, &table.schema)?, Conflict::Replace).map_err(error::change)?;
        let rows = keyed.merge(&rows).map_err(error::change)?;
        Ok(Edit::Insert { rows, conflict: Some(Conflict::Replace) })
    }

    async fn carry_out(
        &mut self,
        shared: &Shared,
        name: &Arc<str>,
        table: &PinnedTable,
        edit: Edit,
    ) -> Result<u64> {
        if let Some(what) = edit.changes().filter(|_| table.intake.append_only) {
            return Err(Error::invalid(format!("it is APPEND ONLY, which doesn't allow {what}")));
        }
        let edit = self.merged(shared, name, table, edit).await?;
        let found = look_up(shared, name, table, &edit).await?;
        let level = self.level;
        let Some(view) = &mut self.view else { return Err(Error::bug("its target was seen")) };
        check_room(view, &edit)?;
        edit.batches().into_iter().for_each(|rows| table.sequences.pass(rows));
        let own = own_of(view, name, table)?;
        let ids = |place: usize| found.get(place).map_or(&[] as &[Option<u64>], Vec::as_slice);
        match edit {
            Edit::Insert { rows, conflict } => {
                own.insert(rows, ids(0), conflict.unwrap_or(table.intake.on_conflict), level)
            }
            Edit::Delete { rows, strict } => own.delete(rows, ids(0), strict, level),
            Edit::Update { old, new } => {
                let count = own.delete(old, ids(0), true, level)?;
                own.insert(new, ids(1), Conflict::Fail, level)?;
                Ok(count)
            }
            Edit::Replace { old, updated, inserted } => {
                let count = own.delete(old, ids(0), true, level)?;
                own.insert(updated, ids(1), Conflict::Fail, level)?;
                Ok(count + own.insert(inserted, ids(2), Conflict::Fail, level)?)
            }
            Edit::Merge { rows, old, new } => {
                let inserted = own.insert(rows, ids(0), Conflict::Keep, level)?;
                let updated = own.delete(old, ids(1), true, level)?;
                own.insert(new, ids(2), Conflict::Fail, level)?;
                Ok(inserted + updated)
            }
        }
    }
}

/// Returns the present rows with the keys of the changed rows, for each batch.
async fn look_up(shared: &Shared, name: &Arc<str>, table: &PinnedTable, edit: &Edit) -> Result<Vec<Found>> {
    if table.key.is_empty() {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for batch in edit.batches() {
        let mut found = Found::with_capacity(batch.num_rows());
        // The loop serves others in between. If a row changes meanwhile, COMMIT finds out.
        while found.len() < batch.num_rows() {
            let (from, left) = (found.len(), batch.num_rows() - found.len());
            let piece = batch.slice(from, left.min(LOOKED_UP_MAX.get()));
            let keys = table.key.iter().map(|place| piece.column(*place).clone()).collect();
            let table = name.clone();
            found.extend(shared.ask(|reply| Event::Ask(Question::LookUp { table, keys, reply })).await?);
        }
        all.push(found);
    }
    Ok(all)
}

/// The failure of a statement itself, or of its rows.
enum Failed {
    Statement(Error),
    Rows(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Statement(error)
    }
}

fn own_of<'a>(view: &'a mut View, name: &Arc<str>, table: &PinnedTable) -> Result<&'a mut Own> {
    if !view.own.contains_key(name) {
        view.own.insert(name.clone(), Own::new(table)?);
    }
    view.own.get_mut(name).ok_or_else(|| Error::bug("it was put there"))
}

/// Returns rows from a program under the table's schema. The rows may lack columns that were added later.
fn fitting(name: &str, rows: &RecordBatch, table: &PinnedTable) -> Result<RecordBatch> {
    let fit = |rows: &RecordBatch, schema: &SchemaRef| {
        under_schema(rows, schema).map_err(|error| {
            let error = format!("the rows don't fit the columns of table \"{name}\" ({schema}): {error}");
            Error::invalid(error)
        })
    };
    let rows = fit(rows, &first_columns(&table.schema, rows.num_columns()))?;
    fit(&extended(&rows, &table.schema, &table.added)?, &table.schema)
}

/// Adds the size of a statement's changes, and checks the limit.
fn check_room(view: &mut View, edit: &Edit) -> Result<()> {
    view.own_bytes += edit.batches().iter().map(|batch| batch.get_array_memory_size()).sum::<usize>();
    if view.own_bytes <= OWN_BYTES_MAX {
        return Ok(());
    }
    Err(Error::external(format!(
        "the transaction has changed {} bytes of rows, which are kept in memory until COMMIT, up to {OWN_BYTES_MAX}",
        view.own_bytes
    ))
    .hint("COMMIT more often.")
    .code(sqlstate::OUT_OF_MEMORY))
}
