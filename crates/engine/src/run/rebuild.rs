//! Rebuilding a query whose step panicked, once.
//!
//! A panic leaves the operators in an unknown state. The query gets new operators, which take in the inputs as of
//! before the step, and repeats the step. It returns the change that the failed step would have returned, so sinks and
//! the queries that read the relation continue undisturbed. Small inputs are taken in at once; large ones, and sources
//! that are read again, outside the loop, as a lagging query (`lagging/rebuild.rs`).
//!
//! A second panic suspends the query. `RESUME` rebuilds a suspended query, and the suspended queries that read it.
//!
//! A query that reads parts which it shares with others, or such a part, is rebuilt at once or not at all: the rows of
//! these parts are computed from their inputs (`fresh.rs`).
//!
//! Deliberately absent: queries whose answer depends on how their input was cut, or on rows that nobody has any more.
//! They are suspended at once.

mod fresh;

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_delta::{Cut, Delta, Epoch, Timestamp};
use millstream_flow::{Flow, Limits};
use millstream_sql::{Error, Result};

use fresh::{Fresh, PartContents};

use super::change::queries_of;
use super::compile::Scope;
use super::deltas::in_sum;
use super::durable::Durability;
use super::lagging::LARGE_ROWS;
use super::outputs::Outputs;
use super::own_flow::OwnFlow;
use super::query::{Keep, RunningQuery, Status};
use super::query_names::{SharedParts, shown_name};
use super::query_replacement::check_can_be_read;
use super::source::RunningSource;
use super::sources::Sources;
use super::system::{Lines, NULL};
use super::tables::BaseTables;
use crate::catalog::{Catalog, Definition};
use crate::panics::PanicTrace;
use crate::run::contents::{Bases, Contents, Results};
use crate::run::flow_control::FlowControl;
use crate::run::queries::{Queries, QueryGraph};
use crate::run::{CatalogChanges, QuerySteps};
use crate::settings::{ClockKind, Settings};

/// The panics of a query since its creation or its last RESUME.
#[derive(Debug, Default)]
pub(crate) struct Panics {
    last: Option<LastPanic>,
    /// The epoch whose step the rebuilt query repeated.
    rebuilt: Option<Epoch>,
    /// The limits of the lost operators.
    limits: Option<Limits>,
}

#[derive(Debug)]
struct LastPanic {
    message: String,
    trace: PanicTrace,
}

impl Panics {
    /// Records a panic.
    pub(super) fn note(&mut self, reason: &Error, trace: PanicTrace) {
        self.last = Some(LastPanic { message: reason.message.clone(), trace });
    }

    /// Returns the text of the newest backtrace, once that is known.
    pub(super) fn backtrace(&self) -> Option<&str> {
        self.last.as_ref().and_then(|last| last.trace.text())
    }

    /// Returns a row of `millstream.errors` for a query that was rebuilt after a panic.
    pub(super) fn lines(&self, name: &str) -> Lines {
        let Some((last, epoch)) = self.last.as_ref().zip(self.rebuilt) else { return Lines::new() };
        let message = format!("{}; the query was rebuilt from its inputs in epoch {epoch}", last.message);
        let backtrace = self.backtrace().map_or(NULL, Into::into);
        vec![vec![name.into(), NULL, message.into(), NULL, 1i64.into(), backtrace]]
    }
}

impl QuerySteps<'_> {
    /// Rebuilds a query whose step over these inputs has just failed, if a panic was the reason and it is the first.
    /// Returns the change of the repeated step; nothing if that happens later, or never.
    pub(super) fn rebuild(&mut self, place: usize, cut: &Cut, inputs: &[&Delta]) -> Delta {
        let Some((reason, broken)) = self.queries.take_panic(place) else { return Delta::default() };
        let fresh = match self.flow_control().rebuilt_operators(place, broken.as_ref(), false) {
            Ok(fresh) => fresh,
            Err(why) => {
                let reason = not_rebuilt(self.queries, place, reason, &why);
                self.queries[place].suspend(reason, cut.epoch);
                return Delta::default();
            }
        };
        drop(broken);
        let Fresh { flow, parts } = fresh;
        self.queries[place].flow = flow;
        // Another query may have to take over the arrangements that it shared.
        self.queries.readers_left();
        self.queries.note_rebuilt(place, cut.epoch, &reason);
        if is_rebuilt_apart(
            self.queries,
            self.tables,
            self.sources,
            self.durability,
            &self.setup.settings,
            place,
        ) && let Some(leaving) = self.flow_control().leaving_within_epoch(place)
        {
            self.queries.rebuild_apart(&leaving, cut, inputs);
            return Delta::default();
        }
        let bases = Bases::new(self.tables, self.sources);
        self.queries.rebuild_here(bases, place, cut, (inputs, parts)).unwrap_or_else(|reason| {
            suspend_again(self.queries, place, reason, cut.epoch);
            Delta::default()
        })
    }
}

impl CatalogChanges<'_> {
    /// Resumes a suspended query, and all suspended queries that read it: recreates them from their inputs.
    pub(super) fn resume_suspended(&mut self, place: usize) -> Result<()> {
        let name = shown_name(self.queries, &self.queries[place]).to_string();
        let suspended = |query: &&RunningQuery| query.status.is_suspended();
        for (input, _) in SharedParts::of(self.queries).base_feeds(&self.queries[place]) {
            if self.queries.query(&input).as_ref().is_some_and(suspended) {
                return Err(Error::invalid(format!("\"{name}\" reads \"{input}\", which is suspended"))
                    .hint(format!("RESUME {input}: what reads it is resumed with it.")));
            }
        }
        let mut names = BTreeSet::from([self.queries[place].name.clone()]);
        let mut places = vec![place];
        for (later, query) in self.queries.iter().enumerate().skip(place + 1) {
            if query.status.is_suspended() && query.reads().any(|name| names.contains(name)) {
                names.insert(query.name.clone());
                // What reads a part computes it itself again.
                if !query.role.is_part() {
                    places.push(later);
                }
            }
        }
        let mut anew = Vec::with_capacity(places.len());
        for place in &places {
            check_resumable(
                self.queries,
                self.tables,
                self.sources,
                self.outputs,
                &self.setup.catalog,
                *place,
            )?;
            // A start recreates a query with the limits of its creation.
            let query = &self.queries[*place];
            let limits = query.flow.here().map(Flow::limits).or(query.panics.limits);
            let scope = Scope::new(self.setup, self.queries);
            let scope = Scope { limits: limits.unwrap_or(scope.limits), ..scope };
            anew.push((
                *place,
                query_anew(self.queries, &self.setup.catalog, &self.setup.settings, *place, &scope)?,
            ));
        }
        for (place, query) in anew {
            let query = self.durability.as_it_began(query);
            let old = &mut self.queries[place];
            let (on_error, is_temporary) = (old.result.on_error(), old.role.is_temporary());
            *old = query;
            old.result.set_on_error(on_error);
            old.role.set_temporary(is_temporary);
            let name = old.name.clone();
            // Its old log and history don't belong to its new content.
            self.outputs.logs.histories.remove(&name);
            self.outputs.logs.remove(&name);
        }
        // This drops the queries of its readers, so places in `queries` change.
        self.delivery().end_subscriptions_to(&names.into_iter().collect::<Vec<_>>(), "was rebuilt");
        self.queries.readers_left();
        self.sources.mark_used(self.measures, self.queries, self.tables, self.outputs);
        self.starts().start_queries();
        Ok(())
    }
}

impl Contents<'_> {
    /// Returns the rows of a query's inputs without the changes `since`, by input. It reads no parts.
    pub(super) fn contents_before(&self, place: usize, since: &[&Delta]) -> Result<Vec<Delta>> {
        let cut = Cut::new(Epoch::default(), Timestamp::default());
        self.contents_and_parts_before(place, since, &cut, PartContents::default())
    }

    /// The same for a query that may read parts. `cut` is of the epoch whose end the content is as of.
    fn contents_and_parts_before(
        &self,
        place: usize,
        since: &[&Delta],
        cut: &Cut,
        mut parts: PartContents,
    ) -> Result<Vec<Delta>> {
        let feeds = self.queries[place].feeds.iter().zip(since);
        let contents = feeds.map(|(feed, delta)| {
            let mut content = match parts.of(&feed.of, *self, cut) {
                Some(content) => content?,
                None => Delta::from_iter(self.first_content(feed)?.batches_now()?),
            };
            if !delta.is_empty() && !self.bases.sources.is_read_again(self.bases.tables, &feed.of) {
                content.append((*delta).clone().negated());
                content = in_sum(content);
            }
            Ok(content)
        });
        contents.collect()
    }
}

impl FlowControl<'_> {
    /// Returns new operators for a query. Fails with the reason if it must not be rebuilt automatically. `lags`: it is
    /// stepped beside the loop.
    pub(super) fn rebuilt_operators(&self, place: usize, broken: Option<&Flow>, lags: bool) -> Result<Fresh> {
        let query = &self.queries[place];
        let shares = query.role.is_part() || !query.role.parts().is_empty();
        let apart = |queries| {
            let (tables, sources, settings) = (self.tables, self.sources, &self.setup.settings);
            lags || is_rebuilt_apart(queries, tables, sources, self.durability, settings, place)
        };
        if shares && apart(self.queries) {
            return Err(Error::invalid(
                "it has a part in common with other queries, and rebuilding it takes long",
            ));
        }
        if let Some(epoch) = query.panics.rebuilt {
            return Err(Error::invalid(format!(
                "it was rebuilt from its inputs in epoch {epoch}, after a panic"
            )));
        }
        if query.is_per_batch()
            || !query.flow.is_timeless()
            || !query.feeds.iter().all(|feed| feed.is_plain())
        {
            return Err(Error::invalid("its result depends on when its rows arrived"));
        }
        if let Some(reader) = self.queries.reader_of_batches(place) {
            return Err(Error::invalid(reader));
        }
        check_can_be_read(self.queries, self.tables, self.sources, &query.name, query)?;
        let apart = reads_sources_again(self.queries, self.tables, self.sources, place);
        if apart && self.leaving_within_epoch(place).is_none() {
            return Err(Error::invalid(
                "rebuilding it reads a source again, which takes longer than queries that need each epoch can wait",
            ));
        }
        fresh_operators(
            self.queries,
            &self.setup.catalog,
            &self.setup.settings,
            Scope::new(self.setup, self.queries),
            place,
            broken,
        )
    }
}

impl QueryGraph {
    /// Steps the new operators over the inputs as of before the step, then repeats the step.
    fn rebuild_here(
        &mut self,
        bases: Bases<'_>,
        place: usize,
        cut: &Cut,
        (inputs, parts): (&[&Delta], PartContents),
    ) -> Result<Delta> {
        let past = Cut { positions: Vec::new(), ..cut.clone() };
        let contents = bases.contents(&self.queries);
        let before = contents.contents_and_parts_before(place, inputs, &past, parts)?;
        let query = &mut self.queries[place];
        query.status = Status::Running;
        // Readers have this change already.
        query.flow.step(&past, &before.iter().collect::<Vec<_>>(), false)?;
        let delta = query.step(cut, inputs);
        match &query.status {
            Status::Suspended { reason, .. } => Err(reason.clone()),
            _ => Ok(delta),
        }
    }
}

impl Queries {
    /// Takes the suspension reason and the operators of a query, if its last step ended with a panic.
    pub(super) fn take_panic(&mut self, place: usize) -> Option<(Error, Option<Flow>)> {
        let query = &mut self.all[place];
        let trace = query.flow.take_panic()?;
        let broken = query.flow.lend();
        query.panics.limits = broken.as_ref().map(Flow::limits);
        let Status::Suspended { reason, .. } = &query.status else { return None };
        let reason = reason.clone();
        query.panics.note(&reason, trace);
        Some((reason, broken))
    }

    /// Returns the reason why a query that is a part of another one can't be rebuilt.
    fn reader_of_batches(&self, place: usize) -> Option<&'static str> {
        let query = &self.all[place];
        (query.role.owner().is_some() || query.role.is_successor()).then_some("it is a part of another query")
    }

    /// Records that a query is rebuilt after a panic, for the log and `millstream.errors`.
    pub(super) fn note_rebuilt(&mut self, place: usize, epoch: Epoch, reason: &Error) {
        let query = &mut self.all[place];
        query.panics.rebuilt = Some(epoch);
        tracing::warn!(
            query = %query.name, epoch = epoch.0, reason = %reason,
            "a query panicked and is rebuilt from its inputs"
        );
    }
}

/// Fails if a sink or a durable subscription has taken changes of a suspended query: the difference to its next
/// answer is unknown.
fn check_resumable(
    queries: &Queries,
    tables: &BaseTables,
    sources: &Sources,
    outputs: &Outputs,
    catalog: &Catalog,
    place: usize,
) -> Result<()> {
    let query = &queries[place];
    let (name, shown) = (&query.name, shown_name(queries, query));
    check_can_be_read(queries, tables, sources, shown, query)?;
    let sinks = outputs.sinks.iter().filter(|(_, sink)| sink.from == *name).map(|(sink, _)| sink);
    let into = query.into.as_ref().map(|into| &into.sink);
    let durable = outputs.subscriptions.durable.iter().filter(|(_, durable)| durable.from == *name);
    let Some(taker) = sinks.chain(into).chain(durable.map(|(durable, _)| durable)).next() else {
        return Ok(());
    };
    let kind = catalog.get(taker)?.definition.kind();
    Err(Error::invalid(format!(
        "{kind} \"{taker}\" has received changes of \"{shown}\" from before it was suspended, and the difference is \
         unknown"
    ))
    .hint(format!("DROP {} {taker}, then RESUME again, and create it again.", kind.to_uppercase())))
}

/// True if a query's inputs are too large to be taken in while others wait.
fn is_rebuilt_apart(
    queries: &Queries,
    tables: &BaseTables,
    sources: &Sources,
    durability: &Durability,
    settings: &Settings,
    place: usize,
) -> bool {
    if reads_sources_again(queries, tables, sources, place) {
        return true;
    }
    if settings.clock != ClockKind::System || durability.is_recovering() {
        return false;
    }
    let rows = |name: &Arc<str>| match (tables.get(name), queries.query(name)) {
        (Some(table), _) => table.size().0,
        (None, Some(query)) => Results(queries).num_rows(query).unwrap_or(0) as usize,
        (None, None) => 0,
    };
    let feeds = SharedParts::of(queries).base_feeds(&queries[place]);
    feeds.iter().map(|(name, _)| rows(name)).sum::<usize>() > LARGE_ROWS
}

/// Returns new operators for a query. Fails if its statement makes different ones now.
fn fresh_operators(
    queries: &[RunningQuery],
    catalog: &Catalog,
    settings: &Settings,
    scope: Scope<'_>,
    place: usize,
    broken: Option<&Flow>,
) -> Result<Fresh> {
    let changed = || Error::invalid("an object that it depends on was altered after it was created");
    let broken = broken.ok_or_else(|| Error::invalid("its operators were lost"))?;
    let scope = Scope { limits: broken.limits(), ..scope };
    let query = &queries[place];
    // A part is made by the statement of any of its readers.
    let reads = |reader: &RunningQuery| reader.role.parts().iter().any(|read| read.name == query.name);
    let (part, of) = match query.role.is_part() {
        true => (Some(&*query.name), queries.iter().position(reads).ok_or_else(changed)?),
        false => (None, place),
    };
    let mut fresh = query_anew(queries, catalog, settings, of, &scope)?;
    let whole = fresh.flow.lend().ok_or_else(changed)?;
    let (flow, parts) = Fresh::divided(whole, &queries[of], part)?;
    let alike =
        flow.is_made_like(broken) && (part.is_some() || fresh.result.rows.is_stored_like(&query.result.rows));
    if alike { Ok(Fresh { flow: OwnFlow::new(flow)?, parts }) } else { Err(changed()) }
}

/// Returns a query as its statement makes it, not started.
fn query_anew(
    queries: &[RunningQuery],
    catalog: &Catalog,
    settings: &Settings,
    place: usize,
    scope: &Scope<'_>,
) -> Result<RunningQuery> {
    let query = &queries[place];
    let object = catalog.get(shown_name(queries, query))?;
    let made = match &object.definition {
        Definition::Sink { from, query: Some(runs), .. } => {
            scope.queries(from, runs, &|_| Keep::Nothing, query.result.on_error())?
        }
        Definition::SinkInto { query: plan, .. } => {
            let lowered = scope.lower(plan)?;
            vec![RunningQuery::new(query.name.clone(), lowered, Keep::Nothing, query.result.on_error())?]
        }
        _ => queries_of(settings, object, scope)?,
    };
    let own = made.into_iter().find(|made| made.name == query.name);
    own.ok_or_else(|| Error::invalid("its statement would be planned differently now"))
}

/// Suspends a query that has failed again during or after its rebuild.
pub(super) fn suspend_again(queries: &mut Queries, place: usize, reason: Error, epoch: Epoch) {
    let query = &mut queries[place];
    if let Some(trace) = query.flow.take_panic() {
        query.panics.note(&reason, trace);
    }
    drop(query.flow.lend());
    let why = Error::invalid("that happened while it was being rebuilt from its inputs, after a panic");
    let reason = not_rebuilt(queries, place, reason, &why);
    queries[place].suspend(reason, epoch);
}

fn reads_sources_again(queries: &Queries, tables: &BaseTables, sources: &Sources, place: usize) -> bool {
    let has_past = |name: &Arc<str>| {
        sources.is_read_again(tables, name) && sources.get(name).is_some_and(RunningSource::has_past)
    };
    SharedParts::of(queries).base_feeds(&queries[place]).iter().any(|(name, _)| has_past(name))
}

/// Returns the reason why a query stays suspended after a panic.
pub(super) fn not_rebuilt(queries: &[RunningQuery], place: usize, reason: Error, why: &Error) -> Error {
    let name = shown_name(queries, &queries[place]);
    let hint = format!("Fix the query or its input, then RESUME {name}: RESUME rebuilds it from its inputs.");
    let message = format!("{}: it is suspended, since {}", reason.message, why.message);
    Error { message, hint: Some(hint), ..reason }
}
