//! Conditions under which a query can replace another one.
//!
//! The readers of a relation are compiled for its columns, its key, and for being append-only. A start compiles them
//! again, from the same statements over the new definition. So if the relation has readers, these properties must stay:
//! then the readers get the same operators, which fit their saved state. A plain view over it depends on its columns
//! alone.
//!
//! A relation may get more columns behind these, which the readers don't see. Streams may not: their readers find the columns
//! of the batch behind the last one. The readers of a plain view have its plan as a part, so its present columns must keep
//! their plan.

use std::sync::Arc;

use arrow::datatypes::Schema;
use millstream_delta::sql_type_of;
use millstream_sql::{Error, Result};

use super::super::compile::Scope;
use super::super::query::RunningQuery;
use crate::catalog::{Catalog, Definition, Object, Runs, late_rows_name};
use crate::run::dead_letters::has_lost_dead_letters;
use crate::run::flow_control::FlowControl;
use crate::run::queries::Queries;
use crate::run::query_names::SharedParts;
use crate::run::query_names::shown_name;
use crate::run::query_replacement::added_columns::AddedColumns;
use crate::run::query_replacement::ddl_place::stays_in_place;
use crate::run::sources::Sources;
use crate::run::tables::BaseTables;

/// The difference by which a relation's new query doesn't fit its readers.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::run) struct Unfit {
    /// The difference: `column "b" is gone`.
    what: String,
    /// True if it is in the columns, on which views depend too.
    columns: bool,
}

impl Catalog {
    /// Returns true if an object has a query of its own, or delivers.
    fn is_maintained(&self, name: &str) -> bool {
        let definition = self.find(name).map(|object| &object.definition);
        definition.is_some_and(|definition| !matches!(definition, Definition::View { .. }))
    }
}

/// Fails if a relation can't get another query now, or if its readers would no longer fit. `extends`: it is a plain view, and
/// its present columns keep their plan.
pub(super) fn check_place(
    view: FlowControl<'_>,
    object: &Object,
    extends: bool,
    new: Option<&RunningQuery>,
) -> Result<()> {
    let FlowControl { queries, sources, outputs, setup, durability, .. } = view;
    let catalog = &setup.catalog;
    let name = &object.name;
    let dependants = catalog.dependants(name);
    for of in std::iter::once(name).chain(&dependants) {
        if outputs.is_paused(queries, sources, of) {
            return Err(Error::invalid(format!("\"{name}\" can't be altered while \"{of}\" is paused"))
                .hint(format!("RESUME {of} first.")));
        }
    }
    let maintained = dependants.iter().filter(|of| catalog.is_maintained(of));
    let maintained: Vec<&str> = maintained.map(AsRef::as_ref).collect();
    if let Definition::View { .. } = object.definition
        && !dependants.is_empty()
        && !extends
    {
        let named = dependants.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
        return Err(Error::invalid(format!(
            "view \"{name}\" is part of {named}, so its present columns can't have another query"
        ))
        .hint("Add columns at its end, drop what reads it first and create that again, or alter that in its place."));
    }
    if queries.query(name).is_some_and(|query| query.status.is_starting()) {
        return Err(Error::external(format!(
            "\"{name}\" is still reading the existing rows of its inputs: try again later"
        )));
    }
    if queries.query(name).is_some_and(|query| query.status.is_suspended()) && !maintained.is_empty() {
        return Err(Error::invalid(format!(
            "\"{name}\" is suspended, and with it what reads it: {}",
            maintained.join(", ")
        ))
        .hint("Drop these first, alter it, and create them again."));
    }
    if let Some(reader) = queries.iter().find(|query| query.reads_from(&late_rows_name(name))) {
        let reader = shown_name(queries, reader);
        return Err(Error::invalid(format!("the late rows of \"{name}\" are read by \"{reader}\""))
            .hint(format!("Drop \"{reader}\" first, alter \"{name}\", and create it again.")));
    }
    match stays_in_place(durability, catalog, object) {
        true => check_reads(catalog, object, &dependants)?,
        false => check_alike(queries, catalog, Scope::new(setup, queries), name, &dependants)?,
    }
    let Some(Unfit { what, columns }) = unfit(queries, catalog, object, new) else {
        return Ok(());
    };
    let readers: Vec<&str> = match columns {
        true => dependants.iter().map(AsRef::as_ref).collect(),
        false => maintained,
    };
    if readers.is_empty() {
        return Ok(());
    }
    let kind = object.definition.kind();
    Err(Error::invalid(format!(
        "{kind} \"{name}\" is read by {}, which it would no longer fit: {what}",
        readers.join(", ")
    ))
    .hint(
        "Let the new query have the same columns, and new ones at the end, or drop what reads it first and create that \
         again.",
    ))
}

/// Fails if a relation that gets its new query in its place no longer reads what it reads now. A start runs its older
/// statements as well, so what these read must stay.
fn check_reads(catalog: &Catalog, object: &Object, dependants: &[Arc<str>]) -> Result<()> {
    let name = &object.name;
    let mut before = catalog.find(name).into_iter().flat_map(|before| &before.reads);
    let Some(lost) = before.find(|read| !object.reads.contains(read)) else { return Ok(()) };
    Err(Error::invalid(format!(
        "{} \"{name}\" gets columns while {} reads it, so it must go on reading \"{lost}\"",
        object.definition.kind(),
        dependants.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
    ))
    .hint("Drop what reads it first and create that again, or let the new query read the same relations, and more."))
}

/// Fails if a reader of the relation would get other operators if it were created now. A start creates it after the
/// relation, and so after all that was altered since its creation.
fn check_alike(
    queries: &[RunningQuery],
    catalog: &Catalog,
    scope: Scope<'_>,
    name: &Arc<str>,
    dependants: &[Arc<str>],
) -> Result<()> {
    for query in queries.iter().filter(|query| !query.role.is_temporary() && !query.role.is_part()) {
        let shown = shown_name(queries, query);
        let plan = match catalog.find(shown).map(|object| &object.definition) {
            Some(
                Definition::MaterializedView { plan, .. }
                | Definition::Stream { query: Runs::Maintained { plan, .. }, .. }
                | Definition::Sink { query: Some(Runs::Maintained { plan, .. }), .. }
                | Definition::SinkInto { query: plan, .. },
            ) if dependants.iter().any(|name| **name == *shown) => plan,
            _ => continue,
        };
        // A query that is lent to a thread depends on nothing but rows.
        let Some(flow) = query.flow.here() else { continue };
        let scope = Scope { limits: flow.limits(), ..scope };
        let (fresh, _) = query.role.divide(scope.lower(plan)?.flow)?;
        if !fresh.is_made_like(flow) {
            return Err(Error::invalid(format!(
                "\"{shown}\", which reads \"{name}\", was created before an object that it depends on was \
                 altered, such as a watermark"
            ))
            .hint(format!("Drop \"{shown}\" and create it again, then alter \"{name}\".")));
        }
    }
    Ok(())
}

/// Fails if a query can't get all rows that it would have had from the beginning.
pub(in crate::run) fn check_can_be_read(
    queries: &Queries,
    tables: &BaseTables,
    sources: &Sources,
    of: &str,
    query: &RunningQuery,
) -> Result<()> {
    let from_now =
        "Use WITH (start = 'now') to start with the retained rows and those that arrive from now on";
    for (relation, stamped) in SharedParts::of(queries).base_feeds(query) {
        let name = relation.as_ref();
        let source = sources.get(name).filter(|source| !tables.contains_key(name) && source.has_brought());
        let lost = match source {
            Some(source) if source.is_replayable() && stamped.is_some() => format!(
                "it reads the batch of each row of source \"{name}\", which reading the source again can't restore"
            ),
            Some(source) if source.is_replayable() => continue,
            Some(source) if source.retained.as_ref().is_some_and(|kept| !kept.has_lost) => continue,
            Some(_) => {
                format!("source \"{name}\" can't be read again, and some of its rows are not kept")
            }
            None if queries
                .query(name)
                .and_then(|query| query.result.newest())
                .is_some_and(|newest| newest.has_lost) =>
            {
                format!("stream \"{name}\" no longer keeps all its rows")
            }
            None if has_lost_dead_letters(queries, sources, name) => {
                format!("\"{name}\" no longer keeps all its rows")
            }
            None => continue,
        };
        return Err(Error::invalid(format!("\"{of}\" can't be rebuilt from its beginning: {lost}")).hint(
            format!(
                "{from_now}; or read the source into a table, from which queries can be made at any time."
            ),
        ));
    }
    Ok(())
}

/// Returns the difference that the readers of a relation would find, if any.
pub(in crate::run) fn unfit(
    queries: &Queries,
    catalog: &Catalog,
    object: &Object,
    new: Option<&RunningQuery>,
) -> Option<Unfit> {
    let before = catalog.find(&object.name)?;
    let mut known = usize::MAX;
    if let (Some(old), Some(new)) = (before.definition.schema(), object.definition.schema()) {
        known = old.fields().len();
        if let Some(what) = difference(old, new).or_else(|| longer_stream(object, known)) {
            return Some(Unfit { what, columns: true });
        }
    }
    let (Some(old), Some(new)) = (queries.query(&object.name), new) else { return None };
    let known_times = new.flow.times().iter().filter(|(column, _)| *column < known);
    let has_same_times = known_times.eq(old.flow.times());
    let what = match (old.append_only(), new.append_only()) {
        (true, false) => Some("it was append-only, and now its rows would be updated or deleted".to_string()),
        (false, true) => {
            Some("its rows were updated or deleted, and now it would be append-only".to_string())
        }
        (true, true) if old.result.shows_at_once() || new.result.shows_at_once() => {
            Some("it is append-only, and some rows of the old result would be deleted".to_string())
        }
        _ if old.key() != new.key() => Some(format!(
            "its key was {}, and now it would be {}",
            named(old.key(), before),
            named(new.key(), object)
        )),
        _ if !has_same_times => Some("the watermarks of its columns derive from something else".to_string()),
        _ => AddedColumns::of(before, object).err().map(|error| error.message),
    };
    what.map(|what| Unfit { what, columns: false })
}

/// Returns the first difference in the columns of before.
fn difference(old: &Schema, new: &Schema) -> Option<String> {
    for (place, field) in old.fields().iter().enumerate() {
        let name = field.name();
        let Some(other) = new.fields().get(place).filter(|other| other.name() == name) else {
            return Some(match new.index_of(name) {
                Err(_) => format!("it no longer has a column \"{name}\""),
                Ok(_) => format!("its column \"{name}\" would be at another position"),
            });
        };
        let (was, is) = (sql_type_of(field), sql_type_of(other));
        if other.data_type() != field.data_type() || was != is {
            return Some(format!("its column \"{name}\" was of type {was} and would be of type {is}"));
        }
        match (field.is_nullable(), other.is_nullable()) {
            (false, true) => return Some(format!("its column \"{name}\" was never NULL and may be")),
            (true, false) => return Some(format!("its column \"{name}\" might be NULL and would never be")),
            _ => {}
        }
    }
    None
}

/// Returns the difference if a stream would have more columns than these.
fn longer_stream(object: &Object, known: usize) -> Option<String> {
    let Definition::Stream { schema, .. } = &object.definition else { return None };
    let added = schema.fields().get(known)?;
    Some(format!(
        "it would have another column, \"{}\", and in a stream the columns of the batch follow the last one",
        added.name()
    ))
}

/// Returns a key as text.
fn named(key: Option<&[usize]>, object: &Object) -> String {
    let Some((key, schema)) = key.zip(object.definition.schema()) else { return "nothing".into() };
    let names = key.iter().filter_map(|place| schema.fields().get(*place)).map(|field| field.name().as_str());
    format!("({})", names.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;

    fn schema(columns: &[(&str, DataType, bool)]) -> Schema {
        let field = |(name, data_type, nullable): &(&str, DataType, bool)| {
            Field::new(*name, data_type.clone(), *nullable)
        };
        Schema::new(columns.iter().map(field).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_different_is_named() {
        let a = || ("a", DataType::Int64, true);
        let b = || ("b", DataType::Utf8View, false);
        let check = |new: &[(&str, DataType, bool)], expected: Option<&str>| {
            assert_eq!(difference(&schema(&[a(), b()]), &schema(new)).as_deref(), expected);
        };
        check(&[a(), b()], None);
        check(&[a()], Some("it no longer has a column \"b\""));
        check(&[b(), a()], Some("its column \"a\" would be at another position"));
        check(&[a(), b(), ("c", DataType::Int8, true)], None);
        check(
            &[a(), ("c", DataType::Int8, true), b()],
            Some("its column \"b\" would be at another position"),
        );
        let int = ("a", DataType::Int32, true);
        check(&[int, b()], Some("its column \"a\" was of type BIGINT and would be of type INT"));
        let nullable = ("b", DataType::Utf8View, true);
        check(&[a(), nullable], Some("its column \"b\" was never NULL and may be"));
    }
}
