//! Backpressure: the sources that an epoch doesn't read because a reader has no room for their rows.
//!
//! A reader holds back the sources that feed it, directly or through queries and sinks into tables:
//!
//! | reader | is full at | holds back |
//! | --- | --- | --- |
//! | a sink | 64 MiB or 1,024 epochs | the sources that no other reader needs |
//! | a sink | `sink_buffer_max` | all sources that feed it |
//! | a query that is paused | 64 MiB or 1,024 epochs | all sources that feed it |
//! | a query in backfill | 256 MiB, in its first second, and at its end if rows outpace it | all sources that feed it |
//! | a lagging query | 64 MiB | all sources that feed it |
//! | a durable subscription with `when_full = 'wait'` | its own bound | all sources that feed it |
//!
//! Statements and transactions that change a table which feeds a lagging query, or one in backfill, wait while more than
//! 256 MiB wait for the query. Others go on.
//!
//! Timers are not held back: they add little.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use millstream_connect::Limit;
use millstream_delta::Timestamp;

use super::execution::Execution;
use super::lagging::Lag;
use super::log::{BACKLOG_BYTES_MAX, Logs, STATEMENTS_BYTES_MAX, Waiting};
use super::query::{RunningQuery, Status};
use super::query_names::shown_name;
use super::source::RunningSource;
use super::sources::Sources;
use crate::event::Event;
use crate::run::flow_control::FlowControl;
use crate::run::outputs::Outputs;
use crate::run::queries::Queries;
use crate::run::tables::BaseTables;
use crate::settings::{ClockKind, Settings};

/// The sources that are held back, each with a reader that has no room.
pub(super) type HeldBack = BTreeMap<Arc<str>, Holder>;

/// The sinks that leave much undelivered, and how much.
type FullSinks = BTreeMap<Arc<str>, Waiting>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Sink { name: Arc<str>, waiting: Waiting, is_needed: bool },
    Query(Arc<str>),
    Subscription(Arc<str>),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Sink { name, .. } => write!(f, "sink \"{name}\""),
            Holder::Query(name) => write!(f, "query \"{name}\""),
            Holder::Subscription(name) => write!(f, "subscription \"{name}\""),
        }
    }
}

impl FlowControl<'_> {
    /// Returns the sources that are held back now. None under a manual clock, which waits for nobody.
    pub(super) fn held_back(&self) -> HeldBack {
        let mut held = HeldBack::new();
        if self.setup.settings.clock == ClockKind::Manual {
            return held;
        }
        let at_present = |query: &&RunningQuery| query.status.is_running() || query.status.is_suspended();
        let wanted = if self.queries.some_lag() { self.wanted_at_present() } else { BTreeSet::new() };
        for query in self.queries.iter().filter(|query| !at_present(query)) {
            // A query stepped in order would never become current if rows arrived as fast as it takes them.
            let holds = |lag: &Lag| {
                lag.bytes() > BACKLOG_BYTES_MAX || (lag.is_in_order() && wanted.contains(&query.name))
            };
            let is_lagging = query.status.lag().is_some_and(holds);
            let full = query.reads().filter(|name| is_lagging || self.outputs.logs.has_no_room(query, name));
            for relation in full {
                hold_back_readers(self.queries, self.sources, &mut held, relation, |_| {
                    Some(Holder::Query(shown_name(self.queries, query).into()))
                });
            }
        }
        for (name, subscription, _) in self.outputs.full_subscriptions() {
            hold_back_readers(self.queries, self.sources, &mut held, &subscription.from, |_| {
                Some(Holder::Subscription(name.clone()))
            });
        }
        let full: FullSinks = self
            .outputs
            .sinks
            .keys()
            .filter_map(|name| Some((name.clone(), self.outputs.waiting_for(name)?)))
            .filter(|(name, waiting)| {
                let is_much = self.outputs.untaken_by(name).is_some_and(Waiting::is_much);
                is_much || self.setup.settings.is_beyond_buffer(*waiting)
            })
            .collect();
        for (name, sink) in &self.outputs.sinks {
            let Some(waiting) = full.get(name).copied() else { continue };
            let is_beyond = self.setup.settings.is_beyond_buffer(waiting);
            hold_back_readers(self.queries, self.sources, &mut held, &sink.from, |source| {
                let is_needed =
                    is_needed(self.queries, self.sources, self.tables, self.outputs, source, &full);
                let holds = is_beyond || !is_needed;
                holds.then(|| Holder::Sink { name: name.clone(), waiting, is_needed })
            });
        }
        held
    }
}

impl Outputs {
    /// Returns true if a source waits for a reader without progress: a sink that has failed so often in a row, or a
    /// subscription without a reader.
    pub(super) fn is_stuck(&self, source: &Arc<str>, held: &HeldBack, attempts_max: u32) -> bool {
        match held.get(source) {
            Some(Holder::Sink { name, .. }) => {
                self.sinks.get(name).is_some_and(|sink| sink.has_failed_often(attempts_max))
            }
            Some(Holder::Subscription(name)) => !self.subscriptions.has_reader(name),
            Some(Holder::Query(_)) | None => false,
        }
    }
}

impl Execution {
    /// True unless so much waits for a query that statements which feed it must wait.
    pub(super) fn has_room_for_statements(&self, query: &RunningQuery, logs: &Logs) -> bool {
        let waiting = match query.status.lag() {
            Some(lag) => lag.bytes(),
            None if query.status.since_bytes() > 0 => query.status.since_bytes() + logs.logged_for(query),
            None => 0,
        };
        waiting <= self.options.statement_bytes.unwrap_or(STATEMENTS_BYTES_MAX)
    }

    /// Returns the queries that have no room for the changes of a statement or transaction, which must wait for them. None
    /// under a manual clock.
    pub(super) fn without_room_for(
        &self,
        queries: &Queries,
        outputs: &Outputs,
        settings: &Settings,
        event: &Event,
    ) -> Vec<Arc<str>> {
        let tables: Vec<&str> = match event {
            Event::Modify { modification, reply, .. } if !reply.is_closed() => vec![modification.table()],
            Event::Commit { writes, reply, .. } if !reply.is_closed() => {
                writes.iter().map(|write| write.table.as_ref()).collect()
            }
            _ => return Vec::new(),
        };
        let is_fed = |query: &&RunningQuery| {
            let mut seen = BTreeSet::new();
            query.reads().for_each(|input| queries.feeding(input, &mut seen));
            tables.iter().any(|table| seen.contains(table))
        };
        if settings.clock == ClockKind::Manual {
            return Vec::new();
        }
        let full = queries.iter().filter(|query| !self.has_room_for_statements(query, &outputs.logs));
        full.filter(is_fed).map(|query| query.name.clone()).collect()
    }
}

impl Settings {
    fn is_beyond_buffer(&self, waiting: Waiting) -> bool {
        waiting.memory_bytes() > self.readers.sink_buffer_max
    }
}

impl Logs {
    /// Returns true if a query that is paused or in backfill leaves too much of a relation unread.
    fn has_no_room(&self, query: &RunningQuery, relation: &str) -> bool {
        let Some(place) = query.place_in(relation) else { return false };
        if matches!(&query.status, Status::CatchingUp(catch_up) if catch_up.holds_back()) {
            return true;
        }
        self.get(relation).is_some_and(|log| log.waiting(place).is_much())
    }
}

impl Queries {
    /// Adds a relation and everything that it is computed from.
    fn feeding<'a>(&'a self, relation: &'a str, seen: &mut BTreeSet<&'a str>) {
        if !seen.insert(relation) {
            return;
        }
        let is_made_by = |query: &&RunningQuery| {
            let into = query.into.as_ref().is_some_and(|into| into.table.as_ref() == relation);
            into || query.name.as_ref() == relation
        };
        for query in self.all.iter().filter(is_made_by) {
            query.reads().for_each(|input| self.feeding(input, seen));
        }
    }
}

/// Returns a sentence that names the sources that a sink holds back, and why.
pub(super) fn holds_back(held: &HeldBack, sink: &Arc<str>) -> Option<String> {
    let of_sink = held.iter().filter_map(|(source, holder)| match holder {
        Holder::Sink { name, waiting, is_needed } if name == sink => Some((source, waiting, is_needed)),
        _ => None,
    });
    let all: Vec<_> = of_sink.collect();
    let (_, waiting, is_needed) = *all.first()?;
    let sources: Vec<String> = all.iter().map(|(source, ..)| format!("\"{source}\"")).collect();
    let noun = if sources.len() == 1 { "source" } else { "sources" };
    let why = if *is_needed { "which is more than sink_buffer_max" } else { "and no other query needs it" };
    Some(format!(
        "it holds back {noun} {}: {} epochs ({} bytes) wait to be delivered, {why}",
        sources.join(", "),
        waiting.epochs,
        waiting.bytes
    ))
}

/// Returns true if a reader other than these sinks reads a relation, or a result computed from it. A source that keeps its
/// rows for readers, as a table with a connector does, is one itself.
fn is_needed(
    queries: &[RunningQuery],
    sources: &Sources,
    tables: &BaseTables,
    outputs: &Outputs,
    relation: &str,
    full: &FullSinks,
) -> bool {
    let is_kept = sources
        .get(relation)
        .is_some_and(|source| source.retained.is_some() || tables.contains_key(relation));
    let by_sink = outputs
        .sinks
        .iter()
        .any(|(name, sink)| !full.contains_key(name) && sink.place_in(relation).is_some());
    let by_reader = outputs.subscriptions.values().any(|reader| reader.place_in(relation).is_some())
        || outputs.subscriptions.durable.values().any(|reader| reader.place_in(relation).is_some());
    is_kept || by_sink || by_reader || {
        let mut readers =
            queries.iter().filter(|query| query.reads_from(relation) && !query.status.is_suspended());
        readers.any(|query| {
            query.result.is_readable()
                || query.role.is_temporary()
                || query.into.is_some()
                || is_needed(queries, sources, tables, outputs, &query.name, full)
        })
    }
}

/// Returns the status of a source as shown to users, with its reason.
pub(super) fn shown_status(
    settings: &Settings,
    limit: Limit,
    now: Timestamp,
    name: &Arc<str>,
    source: &RunningSource,
    held: &HeldBack,
) -> (&'static str, Option<String>) {
    let (status, trouble) = (source.status(settings, limit, now), source.health.trouble());
    match held.get(name) {
        Some(holder) if status == "running" || status == "throttled" => {
            ("throttled", trouble.or_else(|| Some(format!("{holder} has no room for its rows"))))
        }
        _ => (status, trouble),
    }
}

/// Adds the sources that feed a relation and for which `holder` returns a holder.
fn hold_back_readers(
    queries: &Queries,
    sources: &Sources,
    held: &mut HeldBack,
    relation: &str,
    holder: impl Fn(&str) -> Option<Holder>,
) {
    let mut seen = BTreeSet::new();
    queries.feeding(relation, &mut seen);
    for source in sources.keys().filter(|source| seen.contains(&***source)) {
        if !held.contains_key(source)
            && let Some(holder) = holder(source)
        {
            held.insert(source.clone(), holder);
        }
    }
}
