//! Saving all state of an engine as a checkpoint, and loading it.

use std::sync::Arc;

use millstream_delta::{Cut, Delta};
use millstream_durable::{Checkpoint, Entry, Sequence};
use millstream_flow::{Arrangement, PersistedArrangement};
use millstream_sql::{Error, Kind, Result};
use millstream_state::Tables;

use super::lagging::Lag;
use super::log::{Log, Logs, Place};
use super::outputs::Outputs;
use super::query::{ResultRows, RunningQuery, Status};
use super::query_names::SharedParts;
use super::query_names::shown_name;
use super::sharing::Arranging;
use super::sink::{RunningSink, entry, of_entry};
use super::sources::Sources;
use super::subscription::DurableSubscription;
use super::tables::BaseTables;
use super::waiters::Waiters;
use crate::error;
use crate::plan::VERSION;
use crate::run::Restoration;
use crate::run::contents::Bases;
use crate::run::queries::Queries;
use crate::run::read_view::ReadView;

impl Restoration<'_> {
    /// Loads a checkpoint. The same objects exist already, and nothing has been taken in.
    pub(super) fn load(&mut self, mut checkpoint: Checkpoint) -> Result<()> {
        // Each version makes its own operators from the same plans. If they don't fit, the error names both versions.
        let version = checkpoint.version.take().map_or_else(
            || "a version before there were plans".to_string(),
            |version| format!("version {version}"),
        );
        self.load_all(checkpoint).map_err(|error| {
            let message = format!("{}; {version} wrote it, this is version {VERSION}", error.message);
            Error { message, ..error }
        })
    }

    fn load_all(&mut self, checkpoint: Checkpoint) -> Result<()> {
        let Checkpoint { cut, logs: entries, mut state, .. } = checkpoint;
        let mut catalog = self.setup.catalog.as_ref().clone();
        let mut numbers = state.take_part("catalog");
        catalog.load(&mut numbers)?;
        if let Some(left) = numbers.left() {
            return Err(corrupt(format!("'{left}' of its catalog belongs to no known object")));
        }
        self.setup.publish_catalog(catalog);
        self.clock.load(&mut state.take_part("clock"))?;
        self.tables.sequences.load(&mut state.take_part("sequences"));
        self.clock.epoch = cut.epoch;
        self.clock.stepped = self.clock.last();
        self.outputs.transactions.expired = cut.epoch;
        for (place, (name, table)) in self.tables.iter_mut().enumerate() {
            let part = part("table", place, name);
            table.load(&mut state.take_part(&part)).map_err(|error| of_part(&part, error))?;
        }
        for (place, (name, source)) in self.sources.iter_mut().enumerate() {
            let part = part("source", place, name);
            let taken = cut.positions.iter().find(|(of, _)| of == name).map_or(&[][..], |(_, spans)| spans);
            source.load(&mut state.take_part(&part), taken).map_err(|error| of_part(&part, error))?;
        }
        for (place, (name, watched)) in self.watermarks.iter_mut().enumerate() {
            let mut of = state.take_part(&part("watermark", place, name));
            watched.brought = of.take_number_if("brought");
            watched.marks.load(&mut of)?;
        }
        self.outputs.logs.load(&mut state, &entries)?;
        self.outputs.load_histories(&self.setup.catalog, &mut state)?;
        self.load_queries(&mut state, &entries)?;
        for (place, (name, sink)) in self.outputs.sinks.iter_mut().enumerate() {
            let part = part("sink", place, name);
            sink.load(&mut state.take_part(&part), &entries).map_err(|error| of_part(&part, error))?;
        }
        for (place, (name, subscription)) in self.outputs.subscriptions.durable.iter_mut().enumerate() {
            let part = part("subscription", place, name);
            let mut of = state.take_part(&part);
            subscription.load(&mut of, &entries).map_err(|error| of_part(&part, error))?;
        }
        self.watermarks.plan_moves(&self.setup.settings);
        self.queries.keep_every_epoch = self.setup.settings.keeps_history();
        match state.left() {
            None => Ok(()),
            Some(left) => Err(corrupt(format!("'{left}' of it belongs to no known object"))),
        }
    }

    fn load_queries(&mut self, state: &mut Tables, entries: &[Entry]) -> Result<()> {
        self.queries.load_parts(state)?;
        self.queries.order_as_saved(state)?;
        // Older checkpoints have no shared arrangements: each reader saved its own.
        let count = state.take_number_if("arrangements").unwrap_or_default();
        let saved = |place| PersistedArrangement::load(&mut state.take_part(&arrangement_part(place)));
        let shared: Vec<PersistedArrangement> =
            (0..count as usize).map(saved).collect::<Result<_, _>>().map_err(error::flow)?;
        let queries = self.queries.iter_mut().filter(|query| !query.role.is_temporary());
        for (place, query) in queries.enumerate() {
            let part = part("query", place, &query.name);
            let mut of = state.take_part(&part);
            query.load(&mut of, &shared).map_err(|error| of_part(&part, error))?;
            let reads = query.reads().count();
            // A query that was suspended while paused, and recreated with its input, is no longer paused.
            if matches!(query.status, Status::Paused(_)) && reads > 0 && !of.has_number("place0") {
                query.status = Status::Running;
            }
            if let (Status::Paused(_), ResultRows::Part(_)) = (&query.status, &query.result.rows) {
                // It keeps its rows itself, and a checkpoint has no table for no rows.
                query.result.keep_beside(&mut query.flow, Vec::new())?;
            }
            if let Status::Paused(catch_up) = &mut query.status {
                let places = (0..reads).map(|place| take_place(&mut of, &format!("place{place}")));
                catch_up.places = places.collect::<Result<_>>()?;
            }
            if let Some(lag) = Lag::load(&mut of, entries, reads)? {
                query.status = Status::Lagging(Box::new(lag));
            }
            if let Some(left) = of.left() {
                return Err(corrupt(format!("'{left}' of \"{}\" belongs to no known part", query.name)));
            }
        }
        // Queries share equal rows again.
        for place in 0..self.queries.len() {
            if self.queries[place].status.is_running() {
                self.queries.share_or_suspend(
                    Bases::new(self.tables, self.sources),
                    self.clock.epoch,
                    place,
                    Arranging::Anew,
                );
            }
        }
        Ok(())
    }
}

impl ReadView<'_> {
    /// Returns a checkpoint of all state, between two epochs, after an entry of the journal.
    pub(super) fn save(&self, through: Sequence) -> Result<Checkpoint> {
        let (mut state, mut entries) = (Tables::default(), Vec::new());
        state.put_part("clock", self.clock.save());
        state.put_part("catalog", self.setup.catalog.save());
        state.put_part("sequences", self.tables.sequences.save());
        for (place, (name, table)) in self.tables.iter().enumerate() {
            state.put_part(&part("table", place, name), table.save()?);
        }
        for (place, (name, source)) in self.sources.iter().enumerate() {
            state.put_part(&part("source", place, name), source.save()?);
        }
        for (place, (name, watched)) in self.watermarks.iter().enumerate() {
            let mut of = watched.marks.save()?;
            of.put_number_if("brought", watched.brought);
            state.put_part(&part("watermark", place, name), of);
        }
        SharedParts::of(self.queries).save(&mut state);
        let shared = self.queries.saved_arrangements();
        state.put_number_if("arrangements", (!shared.is_empty()).then_some(shared.len() as i64));
        for (place, arrangement) in shared.iter().enumerate() {
            state.put_part(&arrangement_part(place), arrangement.save().map_err(error::flow)?);
        }
        for (place, query) in self.queries.saved_queries().enumerate() {
            let failed = |error: Error| Error {
                message: format!("\"{}\" can't be saved: {}", shown_name(self.queries, query), error.message),
                ..error
            };
            let mut of = query.save(&shared).map_err(failed)?;
            if let Status::Paused(_) = &query.status {
                self.outputs.save_places(self.queries, query, &mut of);
            }
            if let Some(lag) = query.status.lag() {
                lag.save(&mut of, &mut entries);
            }
            state.put_text_if(&format!("query{place}"), Some(&query.name));
            state.put_part(&part("query", place, &query.name), of);
        }
        for (place, (name, sink)) in self.outputs.sinks.iter().enumerate() {
            let log =
                self.outputs.logs.get(&sink.from).zip(self.outputs.oldest_kept(self.queries, &sink.from));
            state.put_part(&part("sink", place, name), sink.save(log, &mut entries));
        }
        for (place, (name, subscription)) in self.outputs.subscriptions.durable.iter().enumerate() {
            let log = self
                .outputs
                .logs
                .get(&subscription.from)
                .zip(self.outputs.oldest_kept(self.queries, &subscription.from));
            let of = subscription.save(log, &mut entries);
            state.put_part(&part("subscription", place, name), of);
        }
        self.outputs.save_logs(self.queries, &mut state, &mut entries);
        self.outputs.save_histories(self.queries, &mut state);
        let position = |(name, source): (&Arc<str>, &super::RunningSource)| {
            (name.clone(), source.position.taken().spans().collect())
        };
        let positions = self.sources.iter().map(position).collect();
        let cut = Cut { positions, ..Cut::new(self.clock.epoch, self.clock.last()) };
        let (catalog, done) = self.durability.catalog_entries();
        let version = Some(VERSION.into());
        Ok(Checkpoint { through, version, cut, catalog, logs: entries, done, state })
    }
}

impl Outputs {
    /// Saves a paused query's positions in the logs of its inputs, relative to the saved part of each log.
    fn save_places(&self, queries: &[RunningQuery], query: &RunningQuery, to: &mut Tables) {
        for (place, name) in query.reads().enumerate() {
            let at = query.place_in(name).unwrap_or_default();
            let log = self.logs.get(name).zip(self.oldest_kept(queries, name));
            put_place(to, &format!("place{place}"), log, at);
        }
    }

    /// Saves the log entries that sinks, durable subscriptions and paused queries have yet to take.
    fn save_logs(&self, queries: &[RunningQuery], state: &mut Tables, entries: &mut Vec<Entry>) {
        for (place, (name, log)) in self.logs.iter().enumerate() {
            let Some(from) = self.oldest_kept(queries, name) else { continue };
            let part = part("log", place, name);
            state.put_text_if(&format!("{part}.of"), Some(name));
            state.put_number(&format!("{part}.from"), entries.len() as i64);
            entries.extend(log.from(from).map(|(cut, delta)| entry(cut, delta)));
            state.put_number(&format!("{part}.to"), entries.len() as i64);
        }
    }
}

impl Logs {
    fn load(&mut self, state: &mut Tables, entries: &[Entry]) -> Result<()> {
        self.clear();
        // Logs without entries were not saved, so the numbers have gaps.
        let parts: Vec<String> = state.texts().map(|(name, _)| name.to_string()).collect();
        for part in
            parts.iter().filter_map(|name| name.strip_suffix(".of")).filter(|name| name.starts_with("log"))
        {
            let name: Arc<str> = state.take_text_if(&format!("{part}.of")).unwrap_or_default().into();
            let mut number = |end: &str| state.take_number(&format!("{part}.{end}")).map_err(error::state);
            let (from, to) = (number("from")? as usize, number("to")? as usize);
            let log = self.entry(name).or_default();
            for place in from..to {
                let (cut, delta) = of_entry(entries.get(place))?;
                log.push(cut, delta);
            }
        }
        Ok(())
    }
}

impl Queries {
    /// Returns the queries that a start recreates.
    fn saved_queries(&self) -> impl Iterator<Item = &RunningQuery> {
        self.all.iter().filter(|query| !query.role.is_temporary())
    }

    /// Returns the arrangements that several queries share, each once, in the order of their readers.
    fn saved_arrangements(&self) -> Vec<Arc<Arrangement>> {
        let mut all: Vec<Arc<Arrangement>> = Vec::new();
        // A suspended query saves no rows.
        let queries = self.saved_queries().filter(|query| !matches!(query.status, Status::Suspended { .. }));
        for query in queries {
            let shared: Vec<_> =
                query.flow.shareable().iter().filter_map(|found| found.shared.cloned()).collect();
            for arrangement in shared {
                if !all.iter().any(|known| Arc::ptr_eq(known, &arrangement)) {
                    all.push(arrangement);
                }
            }
        }
        all
    }

    /// Puts the queries into the order in which they were saved. A start may recreate them in another order, since
    /// dropped objects may have moved others.
    fn order_as_saved(&mut self, state: &mut Tables) -> Result<()> {
        let count = self.saved_queries().count();
        let mut rest = std::mem::take(&mut self.all);
        for place in 0..count {
            let name = state.take_text_if(&format!("query{place}"));
            let found = rest.iter().position(|query| Some(query.name.as_ref()) == name.as_deref());
            let Some(found) = found else {
                let name = name.unwrap_or_default();
                return Err(corrupt(format!("query {place} of it is \"{name}\", which does not exist")));
            };
            self.all.push(rest.remove(found));
        }
        self.all.append(&mut rest);
        Ok(())
    }
}

/// Returns true if no checkpoint can be taken now: changes wait for an epoch, or a query backfills or is stepped
/// elsewhere.
pub(super) fn is_unsettled(
    queries: &Queries,
    tables: &BaseTables,
    sources: &Sources,
    outputs: &Outputs,
    waiters: &Waiters,
) -> bool {
    queries.saved_queries().any(RunningQuery::is_away)
        || is_unsettled_here(queries, tables, sources, outputs, waiters)
}

/// The same without regard to queries that are stepped elsewhere.
pub(super) fn is_unsettled_here(
    queries: &Queries,
    tables: &BaseTables,
    sources: &Sources,
    outputs: &Outputs,
    waiters: &Waiters,
) -> bool {
    let replays = waiters.replay.is_some();
    sources.statements_wait(queries, tables)
        || !tables.applied.is_empty()
        || replays
        || outputs.sinks.values().any(RunningSink::is_awaited)
        || outputs.subscriptions.durable.values().any(DurableSubscription::is_awaited)
        || queries.saved_queries().any(RunningQuery::is_unsettled)
}

/// Takes a number that must exist.
pub(super) fn number(all: &mut Tables, name: &str) -> Result<i64> {
    all.take_number(name).map_err(error::state)
}

/// Saves a position in a log, relative to the first saved entry.
pub(super) fn put_place(all: &mut Tables, name: &str, log: Option<(&Log, Place)>, place: Place) {
    all.put_number(name, log.map_or(0, |(log, from)| log.between(from, place)) as i64);
}

/// Takes a position saved like that.
pub(super) fn take_place(all: &mut Tables, name: &str) -> Result<Place> {
    Ok(Place::default().after(number(all, name)? as usize))
}

/// Saves the content that a reader gets before the entries of a log.
pub(super) fn put_first(all: &mut Tables, first: Option<&(Cut, Delta)>, entries: &mut Vec<Entry>) {
    if let Some((cut, delta)) = first {
        all.put_number("first", entries.len() as i64);
        entries.push(entry(cut, delta));
    }
}

/// Takes a content saved like that.
pub(super) fn take_first(all: &mut Tables, entries: &[Entry]) -> Result<Option<(Cut, Delta)>> {
    let first = all.take_number_if("first");
    first.map(|place| of_entry(entries.get(place as usize))).transpose()
}

/// Returns the name under which an object is saved. The number tells apart objects whose names begin alike.
pub(super) fn part(kind: &str, place: usize, name: &str) -> String {
    format!("{kind}{place}.{}", name.trim_start_matches('\0'))
}

/// Returns the name under which a shared arrangement is saved.
fn arrangement_part(place: usize) -> String {
    format!("arrangement{place}")
}

fn corrupt(what: String) -> Error {
    Error::new(Kind::Corrupt, what)
        .hint("The checkpoint has other objects than this version creates from the same statements.")
}

fn of_part(part: &str, error: Error) -> Error {
    Error { message: format!("'{part}' of the checkpoint doesn't fit: {}", error.message), ..error }
}
