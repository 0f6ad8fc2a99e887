//! Creating and dropping objects between two epochs.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use millstream_connect::{Delivery, Sink, Source};
use millstream_delta::{Delta, Timestamp};
use millstream_durable::Entry;
use millstream_sql::{Error, Result};
use millstream_state::Conflict;

use super::alter_table::{PreparedTable, install_altered, prepare_altered};
use super::backfill::{Backfill, taken};
use super::compile::Scope;
use super::ddl_log::DdlChanges;
use super::dead_letters::has_lost_dead_letters;
use super::durable::Durability;
use super::execution::Execution;
use super::initial_content::InitialContent;
use super::into_table::{IntoTable, put_newest_before_readers};
use super::measure::Measures;
use super::outputs::Outputs;
use super::queries::Queries;
use super::query::{Keep, RunningQuery};
use super::retained::Retained;
use super::sink::RunningSink;
use super::source::{Opened, RunningSource};
use super::sources::Sources;
use super::table::Table;
use super::tables::BaseTables;
use super::tasks::Tasks;
use super::waiters::{Awaits, Changing, Undo};
use super::watermarks::column::TimeColumn;
use super::watermarks::{Watched, Watermarks};
use crate::catalog::{Catalog, Definition, Intake, Object};
use crate::error;
use crate::event::{Change, Reply};
use crate::run::CatalogChanges;
use crate::run::contents::Bases;
use crate::run::durable::begin_change;
use crate::settings::{ClockKind, Pace, Settings, interval_text};
use crate::statements::own_relation;

/// A change that is checked and opened, but not yet part of the engine.
pub(super) enum Prepared {
    Source {
        object: Arc<Object>,
        opened: Opened,
        /// The current rows of a change feed with a key.
        table: Option<Box<Table>>,
    },
    Table(Arc<Object>, Box<Table>),
    /// A change of the catalog alone.
    Done,
    /// A new definition: its watermark, or the options of its sequence.
    Define(Arc<Object>),
    /// Other columns or constraints of a table.
    AlterTable(Box<PreparedTable>),
    /// A rename, from one name to another.
    Rename(Arc<str>, Arc<str>),
    /// The object's own query is the last one; only that query reads the others.
    Queries(Arc<Object>, Vec<RunningQuery>),
    Sink {
        object: Arc<Object>,
        from: Arc<str>,
        columns: usize,
        sink: Box<dyn Sink>,
        queries: Vec<RunningQuery>,
    },
    SinkInto(Box<RunningQuery>),
    Subscription(Arc<Object>),
    Drop(Vec<Arc<str>>),
}

impl Prepared {
    /// Returns the name of the new object and the columns of its late rows, if it has windows that close.
    fn late(&self) -> Option<(Arc<str>, SchemaRef)> {
        let (name, query) = match self {
            Prepared::Queries(object, queries) => (&object.name, queries.last()?),
            Prepared::Sink { object, queries, .. } => (&object.name, queries.last()?),
            Prepared::SinkInto(query) => (&query.into.as_ref()?.sink, query.as_ref()),
            Prepared::Source { .. }
            | Prepared::Table(..)
            | Prepared::Done
            | Prepared::Subscription(_)
            | Prepared::Define(_)
            | Prepared::AlterTable(_)
            | Prepared::Rename(..)
            | Prepared::Drop(_) => {
                return None;
            }
        };
        Some((name.clone(), query.result.late.as_ref()?.schema().clone()))
    }
}

impl CatalogChanges<'_> {
    fn install_queries(&mut self, new: Vec<RunningQuery>, notices: &mut Vec<String>) {
        for query in new {
            notice_missed(self.queries, self.tables, self.sources, &query, notices);
            let (name, has_late_rows) = (query.name.clone(), query.result.late.as_ref().is_some());
            let query = self.durability.as_it_began(query);
            self.queries.push(query);
            if has_late_rows {
                put_newest_before_readers(self.queries, &name);
            }
        }
    }

    /// Applies a group of changes, all or nothing. Replies `Ok(None)` if the catalog has changed since.
    pub(super) fn change(
        &mut self,
        base: u64,
        changes: Vec<Change>,
        entry: Entry,
        reply: Reply<Option<Vec<String>>>,
    ) {
        // A statement that was cancelled before its turn is not executed.
        if reply.is_closed() {
            return;
        }
        if base != self.setup.catalog.version {
            return reply.send(Ok(None));
        }
        if self.waiters.replay.is_some() {
            let error = Error::external("a recorded epoch is being replayed: try again when it has finished");
            return reply.send(Err(error));
        }
        if let Err(error) = self.durability.check_journal() {
            return reply.send(Err(error));
        }
        let mut catalog = self.setup.catalog.as_ref().clone();
        let mut prepared = Vec::with_capacity(changes.len());
        let is_filled = |change: &Change| matches!(change, Change::Create { backfill: Some(_), .. });
        let begins_apart = !changes.iter().any(is_filled);
        let (ddl, undo) = (DdlChanges::of(&changes), Undo::of(&changes, &entry));
        for change in changes {
            match self.prepare(change, &mut catalog, &prepared) {
                Ok(part) => prepared.push(part),
                Err(error) => return reply.send(Err(error)),
            }
        }
        let mut names = Vec::new();
        let mut notices = Vec::new();
        begin_change(self.clock, self.durability, &self.setup.settings, entry, ddl, begins_apart);
        self.setup.publish_catalog(catalog);
        let is_alone = prepared.len() == 1;
        for part in prepared {
            self.install(part, is_alone, &mut names, &mut notices);
        }
        self.sources.mark_used(self.measures, self.queries, self.tables, self.outputs);
        self.starts().start_queries();
        // Dropped queries no longer maintain shared arrangements.
        self.queries.readers_left();
        self.clock.end_change(self.durability.is_recovering());
        let entry = self.durability.last();
        let reply = Awaits::Change(reply);
        self.waiters.changes.push(Changing { names, notices, entry, reply, undo });
    }

    fn prepare(&self, change: Change, catalog: &mut Catalog, before: &[Prepared]) -> Result<Prepared> {
        let (object, source, backfill) = match change {
            Change::Drop { names } => {
                names.iter().for_each(|name| catalog.remove(name));
                return Ok(Prepared::Drop(names));
            }
            Change::Alter { object } => {
                Scope::new(self.setup, self.queries).check_alter(&object)?;
                catalog.replace(object.clone());
                return Ok(Prepared::Define(object));
            }
            Change::AlterTable(altered) => {
                let table = prepare_altered(self.queries, self.tables, self.outputs, catalog, *altered)?;
                return Ok(Prepared::AlterTable(table.into()));
            }
            Change::Comment { on, column, text } => {
                catalog.set_comment(&on, column.as_deref(), text.as_deref());
                return Ok(Prepared::Done);
            }
            Change::Rename { from, to } => {
                catalog.rename(&from, &to)?;
                return Ok(Prepared::Rename(from, to));
            }
            Change::Create { object, source, backfill } => {
                (object, source, backfill.as_ref().and_then(taken))
            }
        };
        catalog.add(object.clone())?;
        if let Some(backfill) = &backfill {
            self.outputs.transactions.check_pinned(backfill.pin.guard.number)?;
        }
        let scope = Scope { catalog, before, ..Scope::new(self.setup, self.queries) };
        let settings = &self.setup.settings;
        let prepared = match &object.definition {
            Definition::Source { .. } => prepare_source(object, source)?,
            Definition::Table { schema, key, intake, .. } => {
                let mut table = Table::new(&object.name, schema, key, self.setup.execution.intake(*intake))?;
                table.sequences = self.tables.sequences.create(schema);
                Prepared::Table(object, Box::new(table))
            }
            Definition::View { .. }
            | Definition::Function(_)
            | Definition::Aggregate(_)
            | Definition::Schema
            | Definition::Type(_)
            | Definition::Sequence(_) => Prepared::Define(object),
            Definition::MaterializedView { on_error, .. } | Definition::Stream { on_error, .. } => {
                let on_error = on_error.unwrap_or(settings.on_error);
                let queries = match backfill {
                    Some(backfill) => vec![backfill.into_query(on_error)],
                    None => queries_of(settings, &object, &scope)?,
                };
                Prepared::Queries(object, queries)
            }
            Definition::SinkInto { table, query } => {
                prepare_into(self.tables, settings, &object.name, table, query, &scope)?
            }
            Definition::Sink { .. } => prepare_sink(self.durability, settings, object, &scope, backfill)?,
            Definition::Subscription { .. } => Prepared::Subscription(object),
        };
        if let Some((name, late)) = prepared.late() {
            catalog.keep_late(name, late);
        }
        Ok(prepared)
    }

    fn install(
        &mut self,
        part: Prepared,
        is_alone: bool,
        names: &mut Vec<Arc<str>>,
        notices: &mut Vec<String>,
    ) {
        match part {
            Prepared::Source { object, opened, table } => {
                let now = self.clock.now(&self.setup.settings);
                let running = started_source(&object, opened, now, self.tasks);
                if let Some(table) = table {
                    self.tables.insert(object.name.clone(), *table);
                }
                self.watermarks.watch(&object);
                self.sources.insert(object.name.clone(), running);
            }
            Prepared::Table(object, table) => {
                self.watermarks.watch(&object);
                self.tables.insert(object.name.clone(), *table);
            }
            Prepared::Done => {}
            Prepared::Define(object) => {
                self.tables.sequences.define(&object);
                let now = self.clock.now(&self.setup.settings);
                self.watermarks.alter(self.sources, self.tables, &self.setup.settings, now, &object);
            }
            Prepared::AlterTable(table) => install_altered(self.tables, self.outputs, *table),
            Prepared::Rename(from, to) => self.rename(&from, &to),
            Prepared::Queries(object, queries) => {
                names.push(object.name.clone());
                self.install_queries(queries, notices);
            }
            Prepared::Sink { object, from, columns, sink, queries } => {
                notices.extend(sink.notice().map(|notice| format!("sink \"{}\": {notice}", object.name)));
                let mut running = RunningSink::start(
                    object.name.clone(),
                    (from.clone(), columns, self.outputs.logs.end(&from)),
                    sink,
                    self.tasks,
                    self.durability.is_on().then_some(self.clock.epoch),
                );
                if queries.is_empty() {
                    running.begin_with(self.initial_content(&from, is_alone));
                } else {
                    names.push(from);
                    self.install_queries(queries, notices);
                }
                self.outputs.sinks.insert(object.name.clone(), running);
            }
            Prepared::SinkInto(query) => {
                names.push(query.name.clone());
                let table = query.into.as_ref().map(|into| into.table.clone());
                notice_missed(self.queries, self.tables, self.sources, &query, notices);
                self.queries.push(self.durability.as_it_began(*query));
                if let Some(table) = table {
                    put_newest_before_readers(self.queries, &table);
                }
            }
            Prepared::Subscription(object) => self.install_subscription(&object, is_alone),
            Prepared::Drop(dropped) => {
                self.delivery().end_subscriptions_to(&dropped, "was dropped");
                self.remove(&dropped);
            }
        }
    }

    /// Returns the present content of a relation for a new reader of its changes. A thread may read that, unless other
    /// changes of the same statements need the relation at present.
    pub(super) fn initial_content(&mut self, from: &str, is_alone: bool) -> InitialContent {
        let cut = self.clock.standing_cut(&self.setup.settings, self.watermarks.current());
        match if is_alone { self.departures().read_apart(from) } else { Ok(None) } {
            Ok(Some(rows)) => InitialContent::awaited(cut, rows),
            _ => {
                let contents = Bases::new(self.tables, self.sources).contents(self.queries);
                InitialContent::of(cut, Delta::from_iter(contents.answered(from).unwrap_or_default()))
            }
        }
    }

    fn remove(&mut self, names: &[Arc<str>]) {
        let feeds = |query: &RunningQuery, name: &Arc<str>| {
            query.into.as_ref().is_some_and(|into| into.sink == *name)
        };
        for name in names {
            self.measures.hear_dropped(self.sources, name);
            if let Some(place) = self.queries.iter().position(|query| feeds(query, name)) {
                self.intake().stage_again(place);
            }
            self.tables.remove(name);
            self.tables.sequences.remove(name);
            self.outputs.logs.remove(name);
            self.sources.remove(name);
            self.watermarks.remove(name);
            self.outputs.subscriptions.durable.remove(name);
            self.outputs.logs.histories.remove(name);
            if let Some(sink) = self.outputs.sinks.remove(name)
                && self.setup.catalog.find(&sink.from).is_none()
            {
                self.queries.retain(|query| !query.belongs_to(&sink.from));
            }
            self.queries.retain(|query| !query.belongs_to(name) && !feeds(query, name));
        }
    }
}

fn started_source(object: &Object, opened: Opened, now: Timestamp, tasks: &Tasks) -> RunningSource {
    let mut running = RunningSource::start(object.name.clone(), opened, now, tasks);
    if let Definition::Source { retention, .. } = &object.definition {
        running.retained = retention.map(Retained::new);
    }
    running.times.set_column(TimeColumn::of(&object.definition));
    running
}

impl Watermarks {
    /// Watches the event time of a new relation, if it declares a watermark.
    fn watch(&mut self, object: &Object) {
        if let Some(watched) = Watched::of(&object.definition) {
            self.insert(object.name.clone(), watched);
        }
    }
}

impl Sources {
    /// Marks the sources that are read: something depends on them, or they keep rows themselves.
    pub(super) fn mark_used(
        &mut self,
        measures: &mut Measures,
        queries: &[RunningQuery],
        tables: &BaseTables,
        outputs: &Outputs,
    ) {
        let before: Vec<(Arc<str>, bool)> =
            self.iter().map(|(name, source)| (name.clone(), source.used)).collect();
        for (name, source) in self.iter_mut() {
            let read = queries.iter().any(|query| query.reads_from(name));
            let keeps = source.retained.is_some() || tables.contains_key(name);
            source.used = read || keeps || outputs.sinks.values().any(|sink| sink.from == *name);
        }
        self.tell_wanted(queries, tables, outputs);
        measures.hear_used(self, &before);
    }
}

impl Execution {
    /// Returns the way in which a table takes rows in this engine.
    pub(super) fn intake(&self, declared: Intake) -> Intake {
        if self.options.append_only_tables {
            Intake { append_only: true, on_conflict: Conflict::Fail }
        } else {
            declared
        }
    }
}

/// Adds notices about rows that a query misses because its input can't be read again.
pub(super) fn notice_missed(
    queries: &Queries,
    tables: &BaseTables,
    sources: &Sources,
    query: &RunningQuery,
    notices: &mut Vec<String>,
) {
    if query.is_per_batch() {
        // It starts with the next batch, and never sees earlier rows.
        return;
    }
    let shown = match query.role.is_temporary() {
        true => "the query".to_string(),
        false => format!("\"{}\"", query.name.trim_start_matches('\0')),
    };
    for name in query.reads() {
        let missed = match (sources.get(name), queries.query(name).and_then(|query| query.result.newest())) {
            (Some(_), _) if tables.contains_key(name) => None,
            (Some(source), _) if !source.is_replayable() && !source.position.is_start() => {
                Some(("source", source.retained.as_ref()))
            }
            (_, Some(newest)) if newest.has_lost => Some(("stream", Some(newest))),
            _ if has_lost_dead_letters(queries, sources, name) => {
                notices.push(format!(
                    "{name} no longer has all its rows: {shown} starts with those that are kept"
                ));
                None
            }
            _ => None,
        };
        notices.extend(missed.map(|(kind, retained)| match retained {
            None => {
                format!("source \"{name}\" can't be read again: {shown} starts with the rows that arrive from now on")
            }
            Some(retained) => format!(
                "{kind} \"{name}\" keeps its rows for {}: {shown} starts with these",
                interval_text(retained.length())
            ),
        }));
    }
}

fn prepare_source(object: Arc<Object>, source: Option<Box<dyn Source>>) -> Result<Prepared> {
    let (Definition::Source { schema, spec, rate_limit, table, .. }, Some(source)) =
        (&object.definition, source)
    else {
        return Err(Error::bug("a source was not opened"));
    };
    let intake = table.or_else(|| (!spec.key.is_empty()).then(Intake::default));
    let table = |intake| Table::new(&object.name, schema, &spec.key, intake).map(Box::new);
    let table = intake.map(table).transpose()?;
    let opened = Opened { source, health: spec.health.clone(), rate_limit: *rate_limit };
    Ok(Prepared::Source { object, opened, table })
}

fn prepare_into(
    tables: &BaseTables,
    settings: &Settings,
    sink: &Arc<str>,
    table: &Arc<str>,
    plan: &LogicalPlan,
    scope: &Scope<'_>,
) -> Result<Prepared> {
    let lowered = scope.lower(plan)?;
    if scope.append_only(table) && !lowered.flow.append_only().map_err(error::flow)? {
        return Err(Error::invalid(format!(
            "table \"{table}\" is APPEND ONLY, but sink \"{sink}\" also delivers updates or deletes"
        )));
    }
    let mut query = RunningQuery::new(own_relation(sink), lowered, Keep::Nothing, settings.on_error)?;
    let keyed = tables.get(table).is_some_and(Table::is_keyed);
    query.into = Some(IntoTable::new(sink.clone(), table.clone(), keyed));
    Ok(Prepared::SinkInto(Box::new(query)))
}

fn prepare_sink(
    durability: &Durability,
    settings: &Settings,
    object: Arc<Object>,
    scope: &Scope<'_>,
    backfill: Option<Box<Backfill>>,
) -> Result<Prepared> {
    let Definition::Sink { from, query, connector, spec } = &object.definition else {
        return Err(Error::bug(format!("\"{}\" is no sink in the catalog", object.name)));
    };
    let queries = match (query, backfill) {
        (None, _) => Vec::new(),
        (Some(_), Some(backfill)) => vec![backfill.into_query(settings.on_error)],
        (Some(query), None) => scope.queries(from, query, &|_| Keep::Nothing, settings.on_error)?,
    };
    let mut spec = spec.clone();
    (spec.append_only, spec.key) = match queries.last() {
        Some(query) => (query.append_only(), query.key().map(<[usize]>::to_vec)),
        None => (scope.append_only(from), scope.key(from)),
    };
    let by_batch = queries.last().or(scope.query_of(from)).is_some_and(RunningQuery::is_per_batch);
    spec.auto_pace = settings.clock == ClockKind::System && settings.pace == Pace::Auto && !by_batch;
    let sink = connector.sink(&spec).map_err(error::connect)?;
    if let (true, Delivery::Unknown(reason)) = (durability.is_on(), sink.delivery()) {
        return Err(Error::invalid(format!(
            "sink \"{}\" could lose rows, or deliver some twice, after a crash: {reason}",
            object.name
        )));
    }
    let columns = spec.columns.fields().len();
    Ok(Prepared::Sink { from: from.clone(), columns, object, sink, queries })
}

/// Returns the queries that maintain a materialized view or a stream. Its own is the last one.
pub(super) fn queries_of(
    settings: &Settings,
    object: &Object,
    scope: &Scope<'_>,
) -> Result<Vec<RunningQuery>> {
    match &object.definition {
        Definition::MaterializedView { plan, on_close, on_error, keeping, .. } => {
            let lowered = scope.keeping(*keeping).closing(*on_close).lower(plan)?;
            let on_error = on_error.unwrap_or(settings.on_error);
            Ok(vec![RunningQuery::new(object.name.clone(), lowered, Keep::Result, on_error)?])
        }
        Definition::Stream { query, on_error, keeping, retention, .. } => {
            let on_error = on_error.unwrap_or(settings.on_error);
            let keep = |append_only| match append_only {
                true => Keep::Newest(*retention),
                false => Keep::Result,
            };
            scope.keeping(*keeping).queries(&object.name, query, &keep, on_error)
        }
        other => Err(Error::bug(format!("a {} has no query of its own", other.kind()))),
    }
}
