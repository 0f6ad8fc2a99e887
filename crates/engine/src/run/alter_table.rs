//! Changing the columns and the constraints of a table, between two epochs.
//!
//! New columns follow all others, and all kept rows get them. Flows, sinks and subscriptions that were created before read
//! only the first columns of each row, which they know. Rows from a writer that doesn't know the new columns, such as a
//! sink into the table, get their defaults.
//!
//! The statement has verified that the rows meet new constraints, and has built new indexes over them. If the rows have
//! changed since, it does so again.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use millstream_delta::{Delta, checks_of};
use millstream_sql::{Error, Result};

use super::log::Log;
use super::outputs::Outputs;
use super::table::{ExtendedTable, Indexes, RowsAnew, extended_delta};
use super::tables::BaseTables;
use crate::catalog::{Catalog, Definition, Object};
use crate::event::AlteredTable;
use crate::run::queries::Queries;

/// The rows of a table with other columns or constraints, which will replace the old ones.
pub(super) struct PreparedTable {
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

/// Puts a table as altered into the catalog, and returns its rows. Fails if rows would lack a value in a NOT NULL column, if the table has changed
/// since its rows were verified, and if a reader wouldn't survive the change.
pub(super) fn prepare_altered(
    queries: &Queries,
    tables: &BaseTables,
    outputs: &Outputs,
    catalog: &mut Catalog,
    altered: AlteredTable,
) -> Result<PreparedTable> {
    let AlteredTable { object, added, verified, affects_readers, columns } = altered;
    let name = &object.name;
    let Definition::Table { schema, .. } = &object.definition else {
        return Err(Error::bug(format!("\"{name}\" is no table in the catalog")));
    };
    let table = tables.get(name).ok_or_else(|| Error::bug(format!("table \"{name}\" doesn't run")))?;
    if let Some(change) = affects_readers {
        check_readers(queries, outputs, catalog, name, (change, columns.is_some()))?;
    }
    check_new_columns(queries, tables, &object, &added)?;
    let (new, anew) = match verified {
        Some(verified) => {
            tables.check_unchanged(&verified.versions)?;
            let has_new_key = matches!(verified.anew, Some(RowsAnew::Keyed(_)));
            check_sinks(queries, catalog, &object, has_new_key)?;
            (verified.indexes, verified.anew)
        }
        None => (Indexes::default(), None),
    };
    let columns = columns.as_ref();
    let rows = Box::new(table.extended(schema, &added, new, anew, columns)?);
    let changed = |delta: &Delta| match columns {
        Some(columns) => columns.delta(delta),
        None => extended_delta(delta, schema, &added),
    };
    let log = outputs.logs.get(name).map(|log| log.mapped(changed)).transpose()?;
    if columns.is_none() {
        catalog.move_column_comments(&object);
    }
    catalog.replace(object.clone());
    Ok(PreparedTable { object, rows, log })
}

/// Fails if an object or a subscriber's query reads a table. A subscriber of the table itself survives all but the loss of a
/// column, or of its type.
fn check_readers(
    queries: &Queries,
    outputs: &Outputs,
    catalog: &Catalog,
    name: &Arc<str>,
    (change, loses_columns): (&str, bool),
) -> Result<()> {
    let reader = catalog.dependants(name).into_iter().next();
    let reader = reader.and_then(|reader| catalog.find(&reader));
    let temporary = |query: &&super::query::RunningQuery| query.role.is_temporary() && query.reads_from(name);
    let follows = || outputs.subscriptions.values().any(|subscription| subscription.follows() == name);
    let reader = match (reader, queries.all.iter().find(temporary)) {
        (None, None) if loses_columns && follows() => "a subscriber follows".into(),
        (Some(reader), _) => format!("{} \"{}\" uses", reader.definition.kind(), reader.name),
        (None, Some(_)) => "a query that is being followed uses".into(),
        (None, None) => return Ok(()),
    };
    Err(Error::invalid(format!("can't {change} a column of table \"{name}\": {reader} the table"))
        .hint("Drop its readers first, and create them again afterwards."))
}

/// Fails if existing rows, or those of a sink, would lack a value in a new column.
fn check_new_columns(
    queries: &Queries,
    tables: &BaseTables,
    object: &Object,
    added: &[ScalarValue],
) -> Result<()> {
    let (name, schema) = (&object.name, object.definition.schema());
    let (Some(schema), Some(table)) = (schema, tables.get(name)) else { return Ok(()) };
    let fields = schema.fields().iter().skip(schema.fields().len().saturating_sub(added.len()));
    let mut needed = fields.zip(added).filter(|(field, value)| value.is_null() && !field.is_nullable());
    let Some((field, _)) = needed.next() else { return Ok(()) };
    let column = field.name();
    let rows = table.size().0.max(table.published().num_rows());
    let hint = format!("Give it a default: ADD COLUMN {column} … NOT NULL DEFAULT …, or leave NOT NULL out.");
    if rows > 0 {
        return Err(Error::invalid(format!(
            "column \"{column}\" is NOT NULL and has no default, but table \"{name}\" has {rows} rows, which would \
             have no value there"
        ))
        .hint(hint));
    }
    match queries.sink_into(name) {
        None => Ok(()),
        Some(sink) => Err(Error::invalid(format!(
            "column \"{column}\" is NOT NULL and has no default, but sink \"{sink}\" delivers rows into table \
             \"{name}\" that have no value there"
        ))
        .hint(hint)),
    }
}

/// Fails if a sink delivers into a table with a new CHECK constraint, or with a new key: its query was planned without.
fn check_sinks(queries: &Queries, catalog: &Catalog, object: &Object, has_new_key: bool) -> Result<()> {
    let name = &object.name;
    let before = catalog.find(name).and_then(|before| before.definition.schema());
    let known: Vec<(&str, &str)> =
        before.into_iter().flat_map(|schema| schema.fields()).flat_map(|field| checks_of(field)).collect();
    let fields = object.definition.schema().into_iter().flat_map(|schema| schema.fields());
    let has_new_check = fields.flat_map(|field| checks_of(field)).any(|check| !known.contains(&check));
    let new = if has_new_key { "primary key" } else { "CHECK constraint" };
    match queries.sink_into(name).filter(|_| has_new_key || has_new_check) {
        None => Ok(()),
        Some(sink) => Err(Error::invalid(format!(
            "table \"{name}\" can't get a {new}: sink \"{sink}\" delivers rows without regard to it"
        ))
        .hint(format!("DROP SINK {sink} first, and create it again afterwards."))),
    }
}

/// Gives a table its new columns and constraints; the catalog has these already.
pub(super) fn install_altered(tables: &mut BaseTables, outputs: &mut Outputs, altered: PreparedTable) {
    let PreparedTable { object, rows, log } = altered;
    // Transactions identify a table by its copy of the name. So those that have changed rows of the old table fail.
    let name: Arc<str> = object.name.as_ref().into();
    if let Some(log) = log {
        outputs.logs.insert(name.clone(), log);
    }
    if let Some(mut table) = tables.remove(&object.name) {
        table.install_extended(*rows);
        if let Some(schema) = object.definition.schema() {
            tables.sequences.follow(schema, &mut table.sequences);
        }
        tables.insert(name, table);
    }
}
