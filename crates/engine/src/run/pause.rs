//! Paused objects. A paused source leaves its rows outside. The epochs that a paused query or sink doesn't take in wait
//! in the logs, from its position on.

use std::collections::VecDeque;
use std::sync::Arc;

use millstream_delta::{Cut, Delta};
use millstream_sql::{Error, Result};

use super::catch_up::{CatchUp, has_many_to_resume, next_since};
use super::crash_notes::may_step;
use super::dead_letters::add_late_rows;
use super::deltas::{Deltas, in_sum};
use super::lagging::{Lag, all_changes, together};
use super::log;
use super::log::Logs;
use super::query::{RunningQuery, Status};
use super::query_names::shown_name;
use super::sharing::Arranging;
use super::sources::Sources;
use crate::run::CatalogChanges;
use crate::run::clock::Clock;
use crate::run::contents::Bases;
use crate::run::flow_control::FlowControl;
use crate::run::outputs::Outputs;
use crate::run::queries::{Queries, QueryGraph};
use crate::settings::{ClockKind, Settings};

impl CatalogChanges<'_> {
    /// Pauses or resumes an object; without a name, all that it can. Returns notices about the others, with the reason.
    pub(super) fn pause(&mut self, name: Option<&str>, pause: bool) -> Result<Vec<String>> {
        if let Some(name) = name {
            let object = self.setup.catalog.get(name)?.clone();
            self.pause_object(&object.name, pause, true)?;
            // A resumed query may fail again.
            return Ok(match self.queries.query(&object.name).map(|query| &query.status) {
                Some(Status::Suspended { reason, .. }) => {
                    vec![format!("\"{name}\" is suspended again: {}", reason.message)]
                }
                _ => Vec::new(),
            });
        }
        let queries = self.queries.iter().filter(|query| !query.role.is_temporary() && !query.role.is_part());
        let mut names: Vec<Arc<str>> = queries.map(|query| shown_name(self.queries, query).into()).collect();
        // Queries resume in their order, so each one sees the changes of the queries that it reads.
        names.extend(self.sources.keys().chain(self.outputs.sinks.keys()).cloned());
        let mut notices = Vec::new();
        for name in names {
            let suspended = |query: &RunningQuery| query.status.is_suspended();
            if !pause && self.queries.query(&name).is_some_and(suspended) {
                notices.push(format!(
                    "\"{name}\" is still suspended: RESUME {name} rebuilds it from its inputs"
                ));
                continue;
            }
            if let Err(error) = self.pause_object(&name, pause, false) {
                notices.push(error.message);
            }
        }
        Ok(notices)
    }

    /// Pauses or resumes one object. With `apart`, a query with many waiting rows is resumed as a lagging query.
    fn pause_object(&mut self, name: &Arc<str>, pause: bool, apart: bool) -> Result<()> {
        if let Some(source) = self.sources.get_mut(name) {
            source.paused = pause;
            return Ok(());
        }
        if let Some(sink) = self.outputs.sinks.get_mut(name) {
            sink.paused = pause;
            return Ok(());
        }
        let feeds = |query: &RunningQuery| query.into.as_ref().is_some_and(|into| into.sink == *name);
        let Some(place) = self.queries.iter().position(|query| query.name == *name || feeds(query)) else {
            let kind = self.setup.catalog.get(name)?.definition.kind();
            return Err(Error::invalid(format!("\"{name}\" is a {kind}: there is nothing to pause"))
                .hint("PAUSE and RESUME take a source, a materialized view, a stream, a sink, or ALL."));
        };
        match pause {
            true => pause_query(self.queries, self.outputs, place, name),
            false => self.resume_query(place, apart),
        }
    }

    /// Applies the epochs that wait in the logs for a query, one by one if possible; its readers get the changes.
    /// A query FOR EACH BATCH runs the batches that have rows for it, under their own times.
    fn resume_query(&mut self, place: usize, apart: bool) -> Result<()> {
        if self.queries[place].status.is_suspended() {
            return self.resume_suspended(place);
        }
        if !matches!(self.queries[place].status, Status::Paused(_)) {
            return Ok(());
        }
        if apart && let Some(leaving) = self.flow_control().resumes_apart(place) {
            resume_apart(self.queries, self.outputs, self.clock, &self.setup.settings, place, leaving);
            return Ok(());
        }
        let mut waiting = all_to_resume(self.queries, self.outputs, place);
        while let Some((batch, inputs)) = waiting.pop_front() {
            let cut = Cut {
                watermarks: batch.watermarks.clone(),
                ..self.clock.piece_cut(self.queries, &self.setup.settings)
            };
            if !may_step(self.queries, self.durability, place, cut.epoch) {
                break;
            }
            let query = &mut self.queries[place];
            query.result.set_unread(false);
            let of = if query.is_per_batch() { &batch } else { &cut };
            // Each batch has the content of tables and views as of its end.
            let later = match query.reads_contents() {
                true => all_changes(query.feeds.len(), waiting.iter().map(|(_, inputs)| inputs)),
                false => Vec::new(),
            };
            let delta = self.queries.step_one(
                Bases::new(self.tables, self.sources),
                place,
                of,
                &inputs.iter().collect::<Vec<_>>(),
                &later,
            );
            let mut deltas = Deltas::new();
            add_late_rows(self.queries, place, &mut deltas);
            let query = &self.queries[place];
            if delta.is_empty() {
                if deltas.is_empty() {
                    continue;
                }
            } else if query.into.is_some() {
                self.intake().bring_in(place, &cut, delta, &mut deltas);
            } else {
                deltas.insert(query.name.clone(), delta);
            }
            self.steps().step_queries_from(place + 1, &cut, deltas);
        }
        if matches!(self.queries[place].status, Status::Paused(_)) {
            self.queries[place].status = Status::Running;
            self.queries.share_or_suspend(
                Bases::new(self.tables, self.sources),
                self.clock.epoch,
                place,
                Arranging::Anew,
            );
        }
        Ok(())
    }
}

/// Makes a paused query lag: the epochs that it left in the logs wait for it.
fn resume_apart(
    queries: &mut QueryGraph,
    outputs: &Outputs,
    clock: &mut Clock,
    settings: &Settings,
    place: usize,
    leaving: Vec<usize>,
) {
    let before = clock.epoch;
    let mut lag = Lag::new(before).in_order(queries.is_stepped_in_order(place));
    for (batch, inputs) in all_to_resume(queries, outputs, place) {
        let cut = Cut { watermarks: batch.watermarks.clone(), ..clock.piece_cut(queries, settings) };
        lag.wait(&cut, &inputs.iter().collect::<Vec<_>>());
        if queries[place].is_per_batch() {
            lag.runs_as(cut.epoch, batch);
        }
    }
    let query = &mut queries[place];
    query.flow.tell();
    if let Some(into) = &mut query.into {
        into.staged = Some(before);
    }
    query.status = Status::Lagging(Box::new(lag));
    leaving.into_iter().skip(1).for_each(|place| queries.leave(place, before));
}

impl FlowControl<'_> {
    /// Returns a paused query with more waiting rows than the loop takes in at once, and the readers that leave the
    /// loop with it.
    fn resumes_apart(&self, place: usize) -> Option<Vec<usize>> {
        let query = &self.queries[place];
        // What a lagging sink brings into its table is part of a later epoch.
        let stages = self.setup.settings.clock == ClockKind::System;
        let is_large =
            || stages && (query.reads_contents() || has_many_to_resume(self.queries, self.outputs, place));
        let can = !self.durability.is_recovering() && (query.into.is_none() || stages);
        if !can || !(self.setup.execution.options.apart.is_some() || is_large()) {
            return None;
        }
        let leaving = if stages { self.leaving_with(place) } else { self.leaving_within_epoch(place) }?;
        let wanted = self.wanted_at_present();
        // Readers that wait for this query's present want it there, which it is once it has taken all in.
        (!leaving.iter().skip(1).any(|place| wanted.contains(&self.queries[*place].name))).then_some(leaving)
    }

    /// Returns the paused queries in their order, if one would be resumed as a lagging query.
    pub(super) fn paused_with_much(&self) -> Vec<Arc<str>> {
        let paused = |place: &usize| matches!(self.queries[*place].status, Status::Paused(_));
        let paused: Vec<usize> = (0..self.queries.len()).filter(paused).collect();
        if !paused.iter().any(|place| self.resumes_apart(*place).is_some()) {
            return Vec::new();
        }
        paused.into_iter().map(|place| shown_name(self.queries, &self.queries[place]).into()).collect()
    }
}

impl Outputs {
    /// Returns the backlog of a sink without the part that its task has taken and is collecting.
    pub(super) fn untaken_by(&self, sink: &str) -> Option<log::Waiting> {
        let sink = self.sinks.get(sink)?;
        Some(self.logs.waiting_from(&sink.from, sink.waits_at(&sink.from)?))
    }

    /// Returns the backlog that the log keeps for a sink.
    pub(super) fn waiting_for(&self, sink: &str) -> Option<log::Waiting> {
        let sink = self.sinks.get(sink)?;
        Some(self.logs.waiting_from(&sink.from, sink.place_in(&sink.from)?))
    }

    /// Returns an error if a table must not take rows, since a sink or a durable subscription that reads it has too
    /// large a backlog.
    pub(super) fn check_sinks_of(&self, queries: &Queries, settings: &Settings, table: &str) -> Result<()> {
        for (name, sink) in &self.sinks {
            let Some((reason, waiting)) = sink.failure.reason().zip(self.waiting_for(name)) else {
                continue;
            };
            if waiting.bytes <= settings.readers.sink_buffer_max || !queries.is_made_of(&sink.from, table) {
                continue;
            }
            return Err(Error::external(format!(
                "sink \"{name}\" can't deliver ({}), and {} bytes wait for it, more than sink_buffer_max: no more rows \
                 are accepted for it",
                reason, waiting.bytes
            ))
            .hint(format!("Fix its target, raise sink_buffer_max, or DROP SINK {name}.")));
        }
        for (name, subscription, waiting) in self.full_subscriptions() {
            if queries.is_made_of(&subscription.from, table) {
                return Err(waiting.refusal(name));
            }
        }
        Ok(())
    }

    /// Returns true if an object is paused.
    pub(super) fn is_paused(&self, queries: &[RunningQuery], sources: &Sources, name: &Arc<str>) -> bool {
        let of_query = |query: &RunningQuery| {
            matches!(query.status, Status::Paused(_))
                && (query.name == *name || query.into.as_ref().is_some_and(|into| into.sink == *name))
        };
        sources.get(name).is_some_and(|source| source.paused)
            || self.sinks.get(name).is_some_and(|sink| sink.paused)
            || queries.iter().any(of_query)
    }
}

impl Logs {
    fn waiting_from(&self, relation: &str, place: log::Place) -> log::Waiting {
        let log = self.get(relation);
        log.map_or(log::Waiting { epochs: 0, bytes: 0 }, |log| log.waiting(place))
    }
}

impl Queries {
    /// Returns true if a relation is `of`, or derives from it.
    fn is_made_of(&self, name: &str, of: &str) -> bool {
        if name == of {
            return true;
        }
        let feeding = self.all.iter().filter(|query| {
            query.name.as_ref() == name || query.into.as_ref().is_some_and(|into| into.table.as_ref() == name)
        });
        feeding.flat_map(RunningQuery::reads).any(|input| self.is_made_of(input, of))
    }
}

fn pause_query(queries: &mut QueryGraph, outputs: &Outputs, place: usize, name: &str) -> Result<()> {
    match &queries[place].status {
        Status::Paused(_) => Ok(()),
        Status::Running => {
            queries.unshare(place, false)?;
            queries.keep_own_rows(place)?;
            let places = queries[place].reads().map(|name| outputs.logs.end(name)).collect();
            queries[place].status = Status::Paused(Box::new(CatchUp::standing(places)));
            Ok(())
        }
        Status::Waiting(_) | Status::CatchingUp(_) => Err(Error::external(format!(
            "\"{name}\" is still reading the existing rows of its inputs: pause it later"
        ))),
        Status::Lagging(_) => Err(Error::bug(format!("\"{name}\" is to be paused at the present"))),
        Status::Suspended { reason, .. } => {
            Err(Error::invalid(format!("\"{name}\" is suspended: {}", reason.message)))
        }
    }
}

/// Returns all that waits for a paused query, in order.
fn all_to_resume(queries: &mut Queries, outputs: &Outputs, place: usize) -> VecDeque<(Cut, Vec<Delta>)> {
    std::iter::from_fn(|| next_to_resume(queries, outputs, place)).collect()
}

/// Returns the next input of a paused query. Some queries that it reads may have stepped over several epochs at
/// once meanwhile, each over different ones. Only at the end are all as of one epoch.
fn next_to_resume(queries: &mut Queries, outputs: &Outputs, place: usize) -> Option<(Cut, Vec<Delta>)> {
    let query = &queries[place];
    let at_once =
        query.may_lag() && query.reads().any(|name| queries.query(name).is_some_and(RunningQuery::may_lag));
    if !at_once {
        return next_since(queries, outputs, place);
    }
    let (cut, inputs) = together(std::iter::from_fn(|| next_since(queries, outputs, place)))?;
    Some((cut, inputs.into_iter().map(in_sum).collect()))
}
