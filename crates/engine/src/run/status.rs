//! Reading relations, and the status of every object.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_connect::Limit;
use millstream_delta::{Epoch, Timestamp};
use millstream_flow::Wanted;
use millstream_sql::{Error, Kind, Result};

use super::Loop;
use super::backpressure::{holds_back, shown_status};
use super::compile::Scope;
use super::contents::Results;
use super::durable::Durability;
use super::observe::explain_what;
use super::outputs::Outputs;
use super::query::errors::FirstError;
use super::query::{RunningQuery, Status};
use super::query_names::SharedParts;
use super::query_names::{query_called, shown_name};
use super::source::RunningSource;
use super::sources::Sources;
use super::table::Table;
use super::tables::BaseTables;
use super::transact::look_up;
use crate::catalog::{Catalog, as_of, is_of_engine, watermark_of};
use crate::content::Content;
use crate::engine::Progress;
use crate::event::{Asked, ObjectStatus, Question};
use crate::run::queries::Queries;
use crate::run::read_view::ReadView;
use crate::settings::{OnError, Settings};
use crate::system::{self, Excerpt};

impl Loop {
    /// Returns the rows that a reader asks for; under `stamped`, with the columns of the batch if rows have one.
    pub(super) fn content_asked(&mut self, asked: &Asked, stamped: bool) -> Result<Content> {
        // The reader assembles the rows of a table from a snapshot.
        if let Some(table) = self.tables.get(&asked.name) {
            let found = if asked.wanted.is_empty() { None } else { table.published_wanted(&asked.wanted)? };
            return Ok(found.map_or_else(|| Content::Snapshot(table.published()), Content::Batches));
        }
        if let Some(table) = system::table_name(&asked.name).and_then(system::find)
            && table.name == system::ERRORS
        {
            return Ok(Content::Computed(self.read_view().errors().computed(table)));
        }
        let stamped = self.setup.catalog.stamped(&asked.name).filter(|_| stamped);
        self.queries.check_readable(&asked.name)?;
        if stamped.is_none()
            && !asked.wanted.is_empty()
            && let Some(query) = self.queries.query(&asked.name)
            && let Some(rows) = Results(&self.queries).wanted(query, &asked.wanted)
        {
            return rows.map(Content::Batches);
        }
        self.content_beside(&asked.name, stamped.as_ref())
    }

    /// Returns the rows of a relation that have an answer, for a reader beside the loop: also of one that describes the
    /// engine.
    pub(super) fn content_beside(&mut self, name: &str, stamped: Option<&SchemaRef>) -> Result<Content> {
        match self.steps().departures().read_apart(name)? {
            Some(rows) => Ok(Content::Awaited(rows)),
            None => self.read_view().content_as(name, stamped),
        }
    }
}

impl ReadView<'_> {
    /// Returns the rows of a relation that have an answer: sinks and subscriptions begin with these.
    pub(super) fn answered(&self, name: &str) -> Result<Vec<RecordBatch>> {
        self.content_as(name, None)?.batches_now()
    }

    /// Returns the rows of a relation, also of one that describes the engine. `stamped` adds the columns of the batch
    /// that it ends with, if rows have a batch.
    pub(super) fn content_as(&self, name: &str, stamped: Option<&SchemaRef>) -> Result<Content> {
        if let Some((relation, moment)) = as_of(name) {
            return self.content_as_of(&relation, moment).map(Content::Batches);
        }
        if let Some(relation) = watermark_of(name) {
            return Ok(Content::Batches(vec![self.watermarks.row(relation)?]));
        }
        match system::table_name(name).and_then(system::find).filter(|_| is_of_engine(name)) {
            Some(table) => Ok(Content::Batches(vec![self.system_rows(table, Excerpt::All)?])),
            None => self.contents().content_as(name, stamped),
        }
    }

    /// Returns the progress of the engine.
    pub(super) fn progress(&self) -> Progress {
        let used: Vec<&RunningSource> = self.sources.values().filter(|source| source.used).collect();
        let open = used.iter().filter(|source| !source.has_ended());
        Progress {
            epochs: self.clock.epoch.0,
            rows: used.iter().map(|source| source.counts.rows()).sum(),
            bad_rows: used.iter().map(|source| source.bad.count()).sum(),
            sources: used.len(),
            sources_open: open.clone().count(),
            sources_following: used.iter().filter(|source| !source.is_bounded()).count(),
            share: open.filter_map(|source| source.share()).reduce(f64::min),
            problems: self.outputs.problems(self.queries, self.sources, self.durability),
            warnings: self.memory.trouble().into_iter().chain(self.measures.alerts.texts()).collect(),
        }
    }

    /// Returns the number of rows of a table that a source fills.
    fn stored_rows(&self, name: &Arc<str>) -> Option<u64> {
        let is_table =
            self.setup.catalog.find(name).is_some_and(|object| object.definition.kind() == "table");
        let table = self.tables.get(name).filter(|_| is_table);
        table.map(|table| table.published().num_rows() as u64)
    }

    pub(super) fn status_of(&self, name: &Arc<str>) -> ObjectStatus {
        let mut status = ObjectStatus {
            name: name.clone(),
            status: "running",
            reason: None,
            rows: None,
            bad_rows: None,
            epoch: None,
            state_bytes: None,
            errors: None,
            on_error: None,
        };
        if let Some(source) = self.sources.get(name) {
            let (limit, held) =
                (self.sources.budget.limit(&self.setup.settings), self.flow_control.held_back());
            (status.status, status.reason) = shown_status(
                &self.setup.settings,
                limit,
                self.clock.now(&self.setup.settings),
                name,
                source,
                &held,
            );
            status.rows = self.stored_rows(name).or(Some(source.counts.rows()));
            status.bad_rows = Some(source.bad.count());
        } else if let Some(table) = self.tables.get(name) {
            status.rows = Some(table.published().num_rows() as u64);
        } else if let Some(sink) = self.outputs.sinks.get(name) {
            status.rows = Some(sink.rows);
            status.epoch = Some(sink.delivered.0);
            if let Some(reason) = sink.failure.reason() {
                let attempts = sink.failure.attempts();
                status.status = if sink.failure.is_final() { "failed" } else { "retrying" };
                status.reason = Some(format!("{reason} (attempt {attempts})"));
            }
            if let Some(holds) = holds_back(&self.flow_control.held_back(), name) {
                let reason = status.reason.take().map_or_else(String::new, |reason| format!("{reason}; "));
                status.reason = Some(format!("{reason}{holds}"));
            }
        }
        let relation = self.outputs.sinks.get(name).map_or(name, |sink| &sink.from);
        if let Some(query) = query_called(self.queries, relation) {
            status.state_bytes = Some(SharedParts::of(self.queries).state_bytes(query) as u64);
            if !self.outputs.sinks.contains_key(name) {
                status.rows = match &query.into {
                    Some(into) => Some(into.rows),
                    None => Results(self.queries).num_rows(query),
                };
                status.epoch = Some(query.progress.epoch().0);
            }
            status.errors = Some(SharedParts::of(self.queries).error_count(query) as u64);
            status.on_error = Some(query.result.on_error().name());
            let is_sink = self.outputs.sinks.contains_key(name);
            let first = SharedParts::of(self.queries).first_error(query).map(|first| first.text());
            describe(&mut status, query, first, self.clock.epoch, is_sink);
        }
        if self.outputs.is_paused(self.queries, self.sources, name) {
            status.status = "paused";
        }
        status
    }

    /// Returns all rows of a relation as of the last epoch. Fails if some have no answer.
    pub(super) fn content(&self, name: &str) -> Result<Vec<RecordBatch>> {
        self.queries.check_readable(name)?;
        self.answered(name)
    }

    /// Answers an event that only reads.
    pub(super) fn answer(&self, question: Question) {
        match question {
            Question::ExplainReplace { object, from_now, extends, reply } => {
                reply.send(self.explain_replace(&object, (from_now, extends)));
            }
            // Who asked while the engine was busy may have given up.
            Question::SystemTables { reply, .. } if reply.is_closed() => {}
            Question::Metrics { reply } if reply.is_closed() => {}
            Question::SystemTables { tables, excerpt, reply } => {
                reply.send(tables.into_iter().map(|table| self.system_rows(table, excerpt)).collect());
            }
            Question::Metrics { reply } => reply.send(self.metrics()),
            Question::Sample { reply } => reply.send(self.sample()),
            Question::WasDone { name, reply } => reply.send(Ok(self.durability.was_done(&name))),
            Question::LookUp { table, keys, reply } => {
                reply.send(look_up(
                    self.queries,
                    self.tables,
                    self.outputs,
                    &self.setup.settings,
                    &table,
                    &keys,
                ));
            }
            Question::ReadTable { table, wanted, version, reply } => {
                reply.send(self.tables.read_table(&table, &wanted, version));
            }
            Question::FoundByKey { relations, reply } => {
                let found =
                    found_by_key(self.queries, self.tables, &self.setup.catalog, self.scope(), &relations);
                reply.send(Ok(found));
            }
            Question::Explain { what, reply } => {
                let (tables, sources) = (self.tables, self.sources);
                reply.send(explain_what(
                    self.queries,
                    tables,
                    sources,
                    &self.setup.catalog,
                    self.scope(),
                    what,
                ));
            }
            Question::ExplainWhy { name, reply } => reply.send(match name {
                Some(name) => self.explain_why(&name),
                None => Ok(self.explain_engine()),
            }),
            Question::Status { reply } => {
                reply.send(Ok(self.statuses().0.into_iter().map(|(_, status)| status).collect()));
            }
            Question::Settings { reply } => {
                reply.send(Ok((self.setup.settings.clone(), self.clock.now(&self.setup.settings))))
            }
            Question::Paused { reply } => reply.send(Ok(self.flow_control.paused_with_much())),
        }
    }
}

/// Completes the status of an object by that of its query.
fn describe(
    status: &mut ObjectStatus,
    query: &RunningQuery,
    first: Option<String>,
    epoch: Epoch,
    is_sink: bool,
) {
    match &query.status {
        Status::Running | Status::Paused(_) => {
            status.reason = status.reason.take().or(first);
        }
        Status::Lagging(lag) => {
            status.reason = status.reason.take().or(first);
            let epochs = epoch.0.saturating_sub(lag.through().0);
            if epochs > 0 && !is_sink {
                status.status = "behind";
                status.reason.get_or_insert_with(|| format!("{epochs} epochs behind"));
            }
        }
        Status::Waiting(_) | Status::CatchingUp(_) => status.status = "starting",
        Status::Suspended { reason, epoch } => {
            status.status = "suspended";
            status.reason = Some(format!("{} (epoch {epoch})", reason.message));
        }
    }
}

impl Catalog {
    /// Returns the columns of a relation with those of the batch, if its rows have one.
    pub(super) fn stamped(&self, name: &str) -> Option<SchemaRef> {
        self.find(name)?.definition.stamped()
    }
}

impl BaseTables {
    /// Returns wanted rows of a table, found by their key; `None` if the table has another version.
    pub(super) fn read_table(
        &self,
        name: &Arc<str>,
        wanted: &Wanted,
        version: u64,
    ) -> Result<Option<Vec<RecordBatch>>> {
        let same = |(key, table): &(&Arc<str>, &Table)| Arc::ptr_eq(key, name) && table.version() == version;
        match self.get_key_value(name).filter(same) {
            Some((_, table)) => Ok(table.staged_wanted(wanted)?.map(|found| found.rows)),
            None => Ok(None),
        }
    }

    /// Returns the number of rows of a table or a query.
    pub(super) fn content_rows(&self, queries: &Queries, name: &str) -> usize {
        let of_query =
            || queries.query(name).and_then(|query| Results(queries).num_rows(query)).unwrap_or(0) as usize;
        self.get(name).map_or_else(of_query, |table| table.published().num_rows())
    }
}

impl Queries {
    /// Fails if the query of this name, or one that it reads, has rows without an answer.
    pub(super) fn check_readable(&self, name: &str) -> Result<()> {
        let Some(query) = self.query(name) else { return Ok(()) };
        let Some((of, first)) = self.error_of(query, &mut BTreeSet::new()) else { return Ok(()) };
        let (name, text) = (&query.name, first.text());
        let message = if Arc::ptr_eq(name, &of.name) {
            format!("\"{name}\" has errors: {text}")
        } else {
            format!("\"{name}\" reads \"{}\", which has errors: {text}", of.name)
        };
        Err(Error::new(Kind::Invalid, message).hint(format!(
            "SELECT * FROM millstream.errors WHERE query = '{}' shows all. Delete or fix the rows, and it continues by \
             itself; or create it WITH (on_error = 'keep') to read the rest.",
            of.name
        )))
    }

    /// Returns the error that a reader of this query meets, with the query that has it. `on_error = 'keep'` hides a
    /// query's errors and those of the queries below it.
    pub(super) fn error_of<'a>(
        &'a self,
        query: &'a RunningQuery,
        seen: &mut BTreeSet<&'a str>,
    ) -> Option<(&'a RunningQuery, FirstError)> {
        if query.result.on_error() == OnError::Keep || !seen.insert(&query.name) {
            return None;
        }
        if let Some(first) = query.result.errors.first() {
            return Some((query, first));
        }
        let mut inputs = query.reads().filter_map(|name| self.query(name));
        inputs.find_map(|input| self.error_of(input, seen))
    }
}

impl RunningSource {
    /// Returns the status of a source, without regard to readers that hold it back.
    pub(super) fn status(&self, settings: &Settings, limit: Limit, now: Timestamp) -> &'static str {
        match () {
            () if self.has_failed() => "failed",
            () if self.has_ended() => "ended",
            () if self.paused => "paused",
            () if self.health.trouble().is_some() => "restarting",
            () if self.used && self.is_throttled(limit, settings, now) => "throttled",
            () if self.used => "running",
            () => "unused",
        }
    }
}

/// Returns the relations that find the wanted rows by a key, with the columns of the key.
pub(super) fn found_by_key(
    queries: &Queries,
    tables: &BaseTables,
    catalog: &Catalog,
    scope: Scope<'_>,
    asked: &[Asked],
) -> Vec<(Arc<str>, String)> {
    let found = asked.iter().filter(|asked| !asked.wanted.is_empty()).filter_map(|asked| {
        let key = match tables.get(&asked.name) {
            Some(table) => table.staged_wanted(&asked.wanted).ok()??.by,
            None => {
                Results(queries).wanted(queries.query(&asked.name)?, &asked.wanted)?.ok()?;
                scope.key(&asked.name)?
            }
        };
        let schema = catalog.find(&asked.name)?.definition.schema()?;
        let names: Vec<&str> = key.iter().map(|place| schema.field(*place).name().as_str()).collect();
        Some((asked.name.clone(), format!("({})", names.join(", "))))
    });
    found.collect()
}

impl Outputs {
    /// Returns the present problems of all objects.
    pub(super) fn problems(
        &self,
        queries: &[RunningQuery],
        sources: &Sources,
        durability: &Durability,
    ) -> Vec<String> {
        let mut problems: Vec<String> = durability.trouble().into_iter().collect();
        for (name, source) in sources.iter() {
            if let Some(reason) = source.health.trouble() {
                let verb = if source.has_failed() { "failed" } else { "is restarting" };
                problems.push(format!("source \"{name}\" {verb}: {reason}"));
            }
        }
        for query in queries.iter().filter(|query| !query.role.is_temporary()) {
            let name = shown_name(queries, query);
            if let Status::Suspended { reason, epoch } = &query.status {
                problems.push(format!("\"{name}\" is suspended since epoch {epoch}: {}", reason.message));
            } else if query.result.on_error() == OnError::Fail
                && let Some(first) = query.result.errors.first()
            {
                problems.push(format!("\"{name}\" has errors: {}", first.text()));
            }
        }
        for (name, sink) in &self.sinks {
            if let Some(reason) = sink.failure.reason() {
                let attempts = sink.failure.attempts();
                let verb = if sink.failure.is_final() { "failed" } else { "is retried" };
                problems.push(format!("sink \"{name}\" {verb} (attempt {attempts}): {reason}"));
            }
        }
        problems.extend(self.full_subscriptions().map(|(name, _, waiting)| waiting.refusal(name).message));
        problems
    }
}
