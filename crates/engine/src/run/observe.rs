//! EXPLAIN of running queries: their operators now, and the work of these in the next epochs (EXPLAIN ANALYZE).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_flow::{Explained, Meter};
use millstream_sql::{Error, Result};

use super::Loop;
use super::clock::Clock;
use super::compile::Scope;
use super::feed::Feed;
use super::query::{Lowered, RunningQuery};
use super::query_names::SharedParts;
use super::rename::Names;
use super::sources::Sources;
use super::tables::BaseTables;
use super::waiters::Waiters;
use crate::catalog::{Catalog, Definition};
use crate::event::{Advance, Compiled, Explaining, Reply};
use crate::run::queries::Queries;
use crate::settings::{ClockKind, Settings};
use crate::statements::own_relation;

/// An EXPLAIN ANALYZE that waits for epochs.
#[derive(Debug)]
pub(crate) struct Observing {
    /// The query's own `name`, the same `Arc`: `is_observed` compares pointers.
    query: Arc<str>,
    /// The name that users know.
    shown: Arc<str>,
    /// The meters of the operators at the beginning.
    before: Vec<Meter>,
    /// The query's number of epochs at which the observation ends.
    until: u64,
    /// The number of batches of a manual clock that the observation may still start.
    batches: u64,
    deadline: Instant,
    reply: Reply<Vec<Explained>>,
}

impl Observing {
    /// Applies a rename.
    pub(super) fn rename(&mut self, names: &Names) {
        names.put_all([&mut self.query, &mut self.shown]);
    }
}

impl Loop {
    /// Compiles a query that runs once, together with the current content of its relations.
    pub(super) fn compile_with_content(
        &mut self,
        plan: &datafusion::logical_expr::LogicalPlan,
    ) -> Result<Compiled> {
        let Lowered { flow, feeds, .. } = Scope::new(&self.setup, &self.queries).lower(plan)?;
        feeds.iter().try_for_each(|feed| self.queries.check_readable(&feed.of))?;
        let content = |feed: &Feed| self.content_beside(&feed.of, feed.stamped.as_ref());
        let inputs = feeds.iter().map(content).collect::<Result<_>>()?;
        Ok(Compiled {
            flow,
            inputs,
            cut: self.clock.standing_cut(&self.setup.settings, self.watermarks.current()),
        })
    }
}

impl Waiters {
    /// Answers the observations that are complete.
    pub(super) fn answer_observations(
        &mut self,
        clock: &mut Clock,
        queries: &Queries,
        tables: &BaseTables,
        sources: &Sources,
        settings: &Settings,
    ) {
        for mut observing in std::mem::take(&mut self.observing) {
            if goes_on(clock, queries, tables, sources, settings, &mut observing) {
                self.observing.push(observing);
            } else {
                let seen = queries.seen(&observing);
                observing.reply.send(seen);
            }
        }
    }
}

impl Waiters {
    /// Returns true if an EXPLAIN ANALYZE observes the query.
    pub(super) fn is_observed(&self, query: &Arc<str>) -> bool {
        self.observing.iter().any(|observing| Arc::ptr_eq(&observing.query, query))
    }

    /// Returns the time at which the loop must check the observations even without an event.
    pub(super) fn observations_end(&self, clock: &Clock) -> Option<Instant> {
        if clock.is_moving() && !clock.is_collecting() {
            return Some(Instant::now());
        }
        self.observing.iter().map(|observing| observing.deadline).min()
    }

    /// Answers with the work of a query's operators in its next `epochs`, or in `time` at most. Under a manual clock,
    /// it runs batches while input waits.
    pub(super) fn observe(
        &mut self,
        queries: &Queries,
        catalog: &Catalog,
        name: &str,
        epochs: u64,
        time: Duration,
        reply: Reply<Vec<Explained>>,
    ) {
        let query = match query_behind(queries, catalog, name) {
            Ok(query) => query,
            Err(error) => return reply.send(Err(error)),
        };
        let observing = Observing {
            query: query.name.clone(),
            shown: name.into(),
            before: SharedParts::of(queries)
                .operators_of(query)
                .iter()
                .map(|operator| operator.meter)
                .collect(),
            until: query.progress.steps().saturating_add(epochs),
            batches: epochs,
            deadline: Instant::now() + time,
            reply,
        };
        self.observing.push(observing);
    }
}

impl Queries {
    fn seen(&self, observing: &Observing) -> Result<Vec<Explained>> {
        let query = self.all.iter().find(|query| Arc::ptr_eq(&query.name, &observing.query));
        let Some(query) = query else {
            return Err(Error::invalid(format!("\"{}\" was dropped meanwhile", observing.shown)));
        };
        let mut operators = SharedParts::of(self).operators_of(query);
        for (operator, before) in operators.iter_mut().zip(&observing.before) {
            operator.meter = operator.meter.since(before);
        }
        Ok(operators)
    }
}

fn goes_on(
    clock: &mut Clock,
    queries: &[RunningQuery],
    tables: &BaseTables,
    sources: &Sources,
    settings: &Settings,
    observing: &mut Observing,
) -> bool {
    let query = queries.iter().find(|query| Arc::ptr_eq(&query.name, &observing.query));
    let Some(query) = query else { return false };
    let done = query.progress.steps() >= observing.until || query.status.is_suspended();
    if done || observing.reply.is_closed() {
        return false;
    }
    if settings.clock == ClockKind::System {
        return Instant::now() < observing.deadline;
    }
    if clock.is_moving() {
        return true;
    }
    if observing.batches == 0 || !sources.something_waits(queries, tables) {
        return false;
    }
    observing.batches -= 1;
    // Nothing waits for the batch itself.
    clock.advance(settings, Advance::Batches(1), Reply::new().0);
    true
}

/// Returns the operators of a plan, or of the query that maintains an object.
pub(super) fn explain_what(
    queries: &Queries,
    tables: &BaseTables,
    sources: &Sources,
    catalog: &Catalog,
    scope: Scope<'_>,
    what: Explaining,
) -> Result<Vec<Explained>> {
    let operators = match what {
        Explaining::Plan(plan, keeping, on_close) => {
            scope.keeping(keeping).closing(on_close).lower(&plan)?.operators()
        }
        Explaining::Batches(query) => scope.lower_batches(&query, &BTreeMap::new())?.operators(),
        Explaining::Object(name) => {
            SharedParts::of(queries).operators_of(query_behind(queries, catalog, &name)?)
        }
    };
    Ok(sources.with_upserts(tables, catalog, operators))
}

/// Returns the query that maintains an object.
pub(super) fn query_behind<'a>(
    queries: &'a Queries,
    catalog: &Catalog,
    name: &str,
) -> Result<&'a RunningQuery> {
    let object = catalog.get(name)?;
    let of = match &object.definition {
        Definition::Sink { from, .. } => from.clone(),
        Definition::SinkInto { .. } => own_relation(name),
        _ => object.name.clone(),
    };
    queries.query(&of).ok_or_else(|| match &object.definition {
        Definition::Sink { from, .. } => {
            Error::invalid(format!("sink \"{name}\" delivers \"{from}\", which no query maintains"))
        }
        other => Error::invalid(format!("\"{name}\" is a {}: no query maintains it", other.kind()))
            .hint("EXPLAIN takes a materialized view, a stream, a sink, or a query."),
    })
}
