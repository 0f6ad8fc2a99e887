//! Adding and removing objects between two epochs.

use std::sync::Arc;

use datafusion::logical_expr::{LogicalPlan, TableScan};
use millstream_connect::Sink;
use millstream_delta::Delta;
use millstream_flow::{Flow, Relation};
use millstream_sql::{Error, RelationTable, Result};

use super::Loop;
use super::log;
use super::query::RunningQuery;
use super::sink::RunningSink;
use super::source::{Opened, RunningSource};
use super::table::Table;
use super::waiters::Changing;
use crate::catalog::{Catalog, Definition, Object};
use crate::error;
use crate::event::{Change, Reply};

/// Something new that is checked and opened but not yet part of the engine.
enum Prepared {
    Source(Arc<Object>, Opened),
    Table(Arc<Object>, Box<Table>),
    View,
    Query(Arc<Object>, Box<RunningQuery>),
    Sink { object: Arc<Object>, from: Arc<str>, sink: Box<dyn Sink>, query: Option<Box<RunningQuery>> },
    Drop(Vec<Arc<str>>),
}

impl Loop {
    /// Carries out a group of changes, all or nothing. `Ok(None)`: the catalog is another one by now.
    pub(super) fn change(&mut self, base: u64, changes: Vec<Change>, reply: Reply<Option<Vec<String>>>) {
        if base != self.catalog.version {
            return reply.send(Ok(None));
        }
        if self.waiters.replay.is_some() {
            let error = Error::external("a recorded epoch is being run again: try again when it is done");
            return reply.send(Err(error));
        }
        let mut catalog = self.catalog.as_ref().clone();
        let mut prepared = Vec::with_capacity(changes.len());
        for change in changes {
            match self.prepare(change, &mut catalog, &prepared) {
                Ok(part) => prepared.push(part),
                Err(error) => return reply.send(Err(error)),
            }
        }
        let mut names = Vec::new();
        let mut notices = Vec::new();
        self.publish_catalog(catalog);
        for part in prepared {
            self.install(part, &mut names, &mut notices);
        }
        self.mark_used_sources();
        self.start_queries();
        self.waiters.changes.push(Changing { names, notices, reply });
    }

    fn prepare(&self, change: Change, catalog: &mut Catalog, before: &[Prepared]) -> Result<Prepared> {
        let (object, source) = match change {
            Change::Drop { names } => {
                names.iter().for_each(|name| catalog.remove(name));
                return Ok(Prepared::Drop(names));
            }
            Change::Create { object, source } => (object, source),
        };
        catalog.add(object.clone())?;
        Ok(match &object.definition {
            Definition::Source { spec, rate_limit, .. } => {
                let source = source.ok_or_else(|| Error::bug("a source comes opened"))?;
                let opened = Opened { source, health: spec.health.clone(), rate_limit: *rate_limit };
                Prepared::Source(object, opened)
            }
            Definition::Table { schema, key } => {
                let table = Table::new(schema, key, self.append_only_tables)?;
                Prepared::Table(object, Box::new(table))
            }
            Definition::View { .. } => Prepared::View,
            Definition::MaterializedView { plan, on_error, .. } => {
                let flow = self.compile(plan, catalog, before)?;
                let on_error = on_error.unwrap_or(self.settings.on_error);
                let query = RunningQuery::new(object.name.clone(), flow, true, on_error)?;
                Prepared::Query(object, Box::new(query))
            }
            Definition::Sink { from, query, connector, spec } => {
                let query = match query {
                    None => None,
                    Some(plan) => Some(Box::new(RunningQuery::new(
                        from.clone(),
                        self.compile(plan, catalog, before)?,
                        false,
                        self.settings.on_error,
                    )?)),
                };
                let mut spec = spec.clone();
                spec.append_only = match &query {
                    Some(query) => query.flow.append_only().map_err(error::flow)?,
                    None => self.append_only(from, catalog, before),
                };
                let sink = connector.sink(&spec).map_err(error::connect)?;
                Prepared::Sink { from: from.clone(), object, sink, query }
            }
        })
    }

    fn install(&mut self, part: Prepared, names: &mut Vec<Arc<str>>, notices: &mut Vec<String>) {
        match part {
            Prepared::Source(object, source) => {
                let running = RunningSource::start(object.name.clone(), source, self.now(), &self.tasks);
                self.sources.insert(object.name.clone(), running);
            }
            Prepared::Table(object, table) => {
                self.tables.insert(object.name.clone(), *table);
            }
            Prepared::View => {}
            Prepared::Query(object, query) => {
                names.push(object.name.clone());
                self.notice_missed(&query, notices);
                self.queries.push(*query);
            }
            Prepared::Sink { object, from, sink, query } => {
                let mut running = RunningSink::start(
                    object.name.clone(),
                    (from.clone(), log::end(&self.logs, &from)),
                    sink,
                    &self.tasks,
                );
                match query {
                    Some(query) => {
                        names.push(from);
                        self.notice_missed(&query, notices);
                        self.queries.push(*query);
                    }
                    None => self.push_content(&mut running),
                }
                self.sinks.insert(object.name.clone(), running);
            }
            Prepared::Drop(dropped) => {
                self.end_subscriptions_to(&dropped);
                self.remove(&dropped);
            }
        }
    }

    /// What the relation holds already is the first that a new sink delivers.
    fn push_content(&self, sink: &mut RunningSink) {
        let content = self.answered(&sink.from).unwrap_or_default();
        sink.begin_with(self.standing_cut(), Delta::from_iter(content));
    }

    /// Says what a query can't see since its source can't be read again.
    pub(super) fn notice_missed(&self, query: &RunningQuery, notices: &mut Vec<String>) {
        for name in query.flow.relations() {
            if let Some(source) = self.sources.get(name)
                && !source.replayable
                && !source.position.splits.is_empty()
            {
                let of = if query.temporary { "the query".into() } else { format!("\"{}\"", query.name) };
                notices
                    .push(format!("source \"{name}\" can't be read again: {of} starts with what comes now"));
            }
        }
    }

    fn remove(&mut self, names: &[Arc<str>]) {
        for name in names {
            self.tables.remove(name);
            self.logs.remove(name);
            self.sources.remove(name);
            if let Some(sink) = self.sinks.remove(name) {
                self.queries
                    .retain(|query| query.name != sink.from || self.catalog.find(&query.name).is_some());
            }
            self.queries.retain(|query| query.name != *name);
        }
    }

    /// A source is read only while something depends on it.
    pub(super) fn mark_used_sources(&mut self) {
        for (name, source) in &mut self.sources {
            let read = self.queries.iter().any(|query| query.flow.relations().contains(name));
            source.used = read || self.sinks.values().any(|sink| sink.from == *name);
        }
    }

    /// Compiles a query over relations that exist or are about to.
    fn compile(&self, plan: &LogicalPlan, catalog: &Catalog, before: &[Prepared]) -> Result<Flow> {
        let resolve = |scan: &TableScan| {
            let provider = millstream_sql::relation_of(scan)?;
            let table = provider.downcast_ref::<RelationTable>()?;
            let schema = catalog.find(table.name())?.definition.schema()?.clone();
            let columns = table.columns().fields().iter().map(|field| schema.index_of(field.name()));
            Some(Relation {
                name: table.name().into(),
                columns: columns.collect::<Result<_, _>>().ok()?,
                schema,
                append_only: self.append_only(table.name(), catalog, before),
                key: self.key(table.name(), catalog, before),
            })
        };
        Flow::compile(plan, &resolve, &self.driver, self.choice, self.settings.limits).map_err(error::flow)
    }

    /// Compiles a query that is not kept.
    pub(super) fn compile_once(&self, plan: &LogicalPlan) -> Result<Flow> {
        self.compile(plan, &self.catalog, &[])
    }

    /// Whether a relation of this catalog only ever gains rows.
    fn append_only(&self, name: &str, catalog: &Catalog, before: &[Prepared]) -> bool {
        match catalog.find(name).map(|object| &object.definition) {
            Some(Definition::Source { .. }) => true,
            Some(Definition::Table { .. }) => self.append_only_tables,
            Some(Definition::MaterializedView { .. }) => {
                let flow = self.flow_of(name, before);
                flow.is_some_and(|flow| flow.append_only().unwrap_or(false))
            }
            _ => false,
        }
    }

    /// Columns that no two rows of a relation of this catalog share, where some are known.
    fn key(&self, name: &str, catalog: &Catalog, before: &[Prepared]) -> Option<Vec<usize>> {
        match &catalog.find(name)?.definition {
            Definition::Table { key, .. } => (!key.is_empty()).then(|| key.clone()),
            Definition::MaterializedView { .. } => self.flow_of(name, before)?.key().map(<[usize]>::to_vec),
            _ => None,
        }
    }

    /// Whether a relation that is there only ever gains rows, and columns that no two of its rows share.
    pub(super) fn traits_of(&self, name: &str) -> (bool, Option<Vec<usize>>) {
        (self.append_only(name, &self.catalog, &[]), self.key(name, &self.catalog, &[]))
    }

    /// The flow of a materialized view. What is about to be dropped may have its name too.
    fn flow_of<'a>(&'a self, name: &str, before: &'a [Prepared]) -> Option<&'a Flow> {
        let prepared = before.iter().rev().find_map(|part| match part {
            Prepared::Query(object, query) if object.name.as_ref() == name => Some(&query.flow),
            _ => None,
        });
        prepared.or_else(|| self.query(name).map(|query| &query.flow))
    }
}
