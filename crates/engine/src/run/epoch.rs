//! One epoch: decide, step, hand out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use millstream_delta::{Cut, Delta, Epoch};
use millstream_durable::Brought;
use millstream_flow::Cost;
use millstream_sql::{Error, Result};

use super::Loop;
use super::crash_notes::may_step;
use super::dead_letters::add_late_rows;
use super::deltas::Deltas;
use super::durable::{journal_epoch, journal_sequences};
use super::lagging::Lag;
use super::outputs::Outputs;
use super::query::{RunningQuery, Status};
use super::side_by_side::count_side_by_side;
use super::source::Taken;
use super::sources::Sources;
use super::table::Waiting;
use super::waiters::Waiters;
use super::watermarks::marks::Seen;
use crate::Record;
use crate::event::Reply;
use crate::listener::Batch;
use crate::run::QuerySteps;
use crate::run::history::keep_histories;
use crate::run::queries::Queries;
use crate::run::read_view::ReadView;
use crate::settings::ClockKind;

/// During an epoch of so many rows, sources have time to bring rows for the next one. After a smaller epoch they are
/// asked at its end, and rows that have arrived by then are taken at once.
const AHEAD_ROWS: usize = 8192;

impl Loop {
    /// Runs one epoch: drains pending input, then steps every query.
    pub(super) fn run_epoch(&mut self) {
        let begun = Instant::now();
        self.steps().intake().stage_all_again();
        self.steps().let_sinks_leave_pieces();
        let ends = self.waiters.ending.gracefully && self.schedule().rows_are_due();
        let (mut cut, takes_sources) = self.clock.begin_epoch(&self.queries, &self.setup.settings, ends);
        cut.event_time_max = self.watermarks.event_time_max(&self.setup.settings, cut.now);
        let taken = if takes_sources {
            let held = self.flow_control().held_back();
            self.sources.take_for_epoch(&mut self.tables, &self.setup.settings, self.clock.epoch, &held, &cut)
        } else {
            Vec::new()
        };
        let rows: usize = taken.iter().map(|(_, taken)| taken.delta.num_rows()).sum();
        let (mut deltas, seen, brought) = cut_rows(&mut cut, taken);
        let mut replies = Waiting::new();
        let mut changes = Vec::new();
        for (name, table) in self.tables.iter_mut().filter(|(_, table)| table.is_changed()) {
            let (delta, waiting) = table.take();
            replies.extend(waiting);
            if !delta.is_empty() {
                changes.push((name.clone(), delta.clone()));
                deltas.insert(name.clone(), delta);
            }
        }
        self.sources.take_put(&mut self.tables, &mut deltas, &mut changes, &mut replies);
        self.queries.take_corrections(&mut changes, &mut replies);
        self.clock.epoch = self.clock.epoch.next();
        cut.epoch = self.clock.epoch;
        self.watermarks.advance(&self.sources, &self.setup.settings, &mut cut, seen, &changes);
        let from: Vec<Arc<str>> = cut.positions.iter().map(|(name, _)| name.clone()).collect();
        self.steps().departures().let_leave_before(&cut, &changes, &deltas);
        self.queries.mark_lagging_sinks(&mut cut);
        journal_sequences(&self.tables.sequences, &mut self.durability, self.clock.epoch);
        journal_epoch(&mut self.durability, self.clock.epoch, &cut, &changes, brought);
        let batch = self.measures.batch_started(
            &self.clock,
            &self.setup.settings,
            &self.sources,
            &cut,
            begun,
            &deltas,
        );
        if rows >= AHEAD_ROWS {
            self.sources.pull(&self.waiters, &self.durability, &self.setup.settings, &self.clock);
        }
        let standing = Cut { positions: Vec::new(), ..cut.clone() };
        // Work since the last epoch, of queries that are behind.
        self.queries.report_work(&mut self.measures.activity);
        let output_rows = self.decide_and_step(cut, changes, deltas);
        self.sources.acknowledge(&mut self.durability, &from);
        let batch = Batch { processing_time: begun.elapsed(), ..batch };
        let (outputs, queries) = (&mut self.outputs, &mut self.queries);
        self.measures.batch_completed(outputs, queries, &self.setup.settings, &standing, batch, output_rows);
        if !replies.is_empty() {
            self.durability.when_durable(move |done| {
                replies.into_iter().for_each(|(reply, count)| reply.send(done.clone().map(|()| count)));
            });
        }
        self.sources.budget.adapt(
            some_recompute_all(&self.queries),
            &self.setup.settings,
            rows,
            begun.elapsed(),
        );
    }

    /// Runs a decided epoch, which the recorder receives first. Returns the number of changed rows in results.
    pub(super) fn decide_and_step(
        &mut self,
        cut: Cut,
        changes: Vec<(Arc<str>, Delta)>,
        mut deltas: Deltas,
    ) -> u64 {
        self.clock.decided(&cut);
        self.watermarks.apply(&self.setup.settings, &cut);
        let record = Record { cut, changes };
        if let Some(recorder) = &mut self.measures.recorder {
            recorder(&record);
        }
        self.sources.add_bad_rows(&self.queries, &mut deltas);
        self.sources.retain_rows(&record.cut, &deltas);
        self.queries.apply_corrections(&record, &mut deltas);
        keep_histories(
            &mut self.outputs,
            &mut self.queries,
            &self.tables,
            &self.setup.catalog,
            &self.clock,
            &self.setup.settings,
            &record.cut,
        );
        self.queries.begin_epoch();
        let output_rows = self.steps().step_queries_from(0, &record.cut, deltas);
        trim_retained(&mut self.queries, &mut self.sources, &record.cut);
        self.outputs.trim_histories(&self.setup.settings, &record.cut);
        self.clock.stepped = record.cut.now;
        output_rows
    }

    /// Begins to replay a recorded epoch. `replaying.rs` reads its rows from the sources.
    pub(super) fn replay(&mut self, record: Record, reply: Reply<()>) {
        if let Err(error) = self.read_view().check_replay(&record) {
            return reply.send(Err(error));
        }
        self.epoch_replay().begin_replay(record, Vec::new(), reply);
        self.replay_on(None);
    }
}

impl QuerySteps<'_> {
    /// Steps all queries from a place on over the deltas, and adds all deltas to the logs.
    pub(super) fn step_queries_from(&mut self, first: usize, cut: &Cut, mut deltas: Deltas) -> u64 {
        let span = tracing::debug_span!("epoch", epoch = cut.epoch.0);
        let _guard = span.enter();
        let mut output_rows = 0;
        let mut next = first;
        while next < self.queries.len() {
            let place = next;
            next += 1;
            self.queries.suspend_with_inputs(place, cut.epoch);
            let together = count_side_by_side(
                self.queries,
                &self.setup.execution,
                &self.setup.settings,
                place,
                cut,
                &deltas,
            );
            if together > 1 && !self.durability.crash_notes.is_alone() {
                output_rows += self.step_side_by_side(place..place + together, cut, &mut deltas);
                next = place + together;
                (place..next).for_each(|place| add_late_rows(self.queries, place, &mut deltas));
                continue;
            }
            let query = &self.queries[place];
            let inputs = query.inputs(|name| deltas.get(name));
            let waits_in_order = query.status.lag().is_some_and(Lag::is_in_order);
            let takes_all = waits_in_order || query.is_per_batch();
            if inputs.iter().all(|delta| delta.is_empty()) && !takes_all && !query.flow.is_due(cut) {
                continue;
            }
            if query.status.is_running() && !may_step(self.queries, self.durability, place, cut.epoch) {
                continue;
            }
            let unread = self.outputs.is_unread(self.queries, self.waiters, place);
            let query = &mut self.queries[place];
            query.result.set_unread(unread);
            let inputs = query.inputs(|name| deltas.get(name));
            match &mut query.status {
                Status::Running => {
                    let Some(mut delta) = self.step_or_leave(place, cut, &inputs) else { continue };
                    if self.queries[place].status.is_suspended() {
                        delta = self.rebuild(place, cut, &inputs);
                    }
                    let query = &mut self.queries[place];
                    output_rows += query.last_step.changed();
                    if delta.is_empty() {
                        if query.last_step.ended_batch() {
                            let name = query.name.clone();
                            self.outputs.log_empty_batch(&name, cut);
                        }
                    } else if query.into.is_some() {
                        self.intake().bring_in(place, cut, delta, &mut deltas);
                    } else {
                        deltas.entry(query.name.clone()).or_default().append(delta);
                    }
                }
                Status::Lagging(lag) => lag.wait(cut, &inputs),
                // The logs keep the changes for a query that is paused or in backfill.
                Status::CatchingUp(_) | Status::Paused(_) | Status::Waiting(_) | Status::Suspended { .. } => {
                }
            }
            add_late_rows(self.queries, place, &mut deltas);
        }
        self.queries.settle(self.clock.epoch);
        for (name, delta) in &deltas {
            self.outputs.log(self.queries, name, cut, delta);
        }
        output_rows
    }
}

/// Adds the spans of the rows that an epoch takes of sources to its cut. Returns the rows, the event times in them, and
/// the arrivals for the journal, by source.
fn cut_rows(
    cut: &mut Cut,
    taken: Vec<(Arc<str>, Taken)>,
) -> (Deltas, BTreeMap<Arc<str>, Seen>, Vec<Brought>) {
    let (mut deltas, mut seen, mut brought) = (Deltas::new(), BTreeMap::new(), Vec::new());
    for (name, taken) in taken {
        if !taken.journalled.is_empty() {
            brought.push(Brought { source: name.clone(), arrivals: taken.journalled });
        }
        cut.positions.push((name.clone(), taken.spans));
        seen.insert(name.clone(), taken.seen);
        deltas.insert(name, taken.delta);
    }
    (deltas, seen, brought)
}

impl ReadView<'_> {
    fn check_replay(&self, record: &Record) -> Result<()> {
        let waiting = self.clock.is_collecting()
            || self.sources.statements_wait(self.queries, self.tables)
            || !self.tables.applied.is_empty();
        if self.setup.settings.clock != ClockKind::Manual
            || self.flow_control.waiters.replay.is_some()
            || waiting
        {
            return Err(Error::invalid(
                "a recorded epoch can be replayed only under a manual clock, with no other input pending",
            )
            .hint("SET clock = 'manual', and replay one record at a time."));
        }
        if record.cut.epoch <= self.clock.epoch {
            return Err(Error::invalid(format!(
                "the record is of epoch {}, but the next epoch here is {}",
                record.cut.epoch,
                self.clock.epoch.next()
            )));
        }
        for name in record.changes.iter().map(|(name, _)| name) {
            let is_known = self.tables.contains_key(name) || self.sources.contains_key(name);
            if !is_known && !self.queries.is_corrected(name) {
                return Err(Error::invalid(format!(
                    "the record changes table \"{name}\", which doesn't exist here"
                )));
            }
        }
        for name in record.cut.positions.iter().map(|(name, _)| name) {
            let is_replayed = self.sources.get(name).is_some_and(|source| source.is_replayable());
            if !is_replayed && !self.queries.is_sink_into_table(name) {
                return Err(Error::invalid(format!(
                    "the record reads source \"{name}\", which doesn't exist here or can't be read again"
                )));
            }
        }
        Ok(())
    }
}

/// Returns true if a query recomputes everything in each epoch.
fn some_recompute_all(queries: &[RunningQuery]) -> bool {
    queries.iter().any(|query| query.status.is_running() && query.flow.cost() >= Cost::Few)
}

impl Sources {
    /// Adds the rows of an epoch to the retained rows of sources.
    fn retain_rows(&mut self, cut: &Cut, deltas: &Deltas) {
        for (name, source) in self.iter_mut() {
            if let (Some(retained), Some(delta)) = (&mut source.retained, deltas.get(name)) {
                retained.push(cut, delta);
            }
        }
    }
}

impl Queries {
    /// Suspends a query that reads a suspended one.
    pub(super) fn suspend_with_inputs(&mut self, place: usize, epoch: Epoch) {
        let (before, rest) = self.all.split_at_mut(place);
        let Some(query) = rest.first_mut() else { return };
        if query.status.is_suspended() {
            return;
        }
        let suspended = |name: &Arc<str>| {
            let input = before.iter().find(|input| input.name == *name)?;
            match &input.status {
                Status::Suspended { reason, .. } if input.role.is_part() => Some(reason.clone()),
                Status::Suspended { .. } => {
                    Some(Error::invalid(format!("it reads \"{name}\", which is suspended")))
                }
                _ => None,
            }
        };
        let found = query.reads().find_map(suspended);
        if let Some(reason) = found {
            query.suspend(reason, epoch);
        }
    }

    pub(super) fn query(&self, name: &str) -> Option<&RunningQuery> {
        self.all.iter().find(|query| query.name.as_ref() == name)
    }
}

impl Outputs {
    /// Returns true if no later query, sink, subscriber or observer takes the changes of a query's result.
    pub(super) fn is_unread(&self, queries: &[RunningQuery], waiters: &Waiters, place: usize) -> bool {
        let name = &queries[place].name;
        let read = |query: &RunningQuery| query.reads_from(name);
        queries[place].into.is_none()
            && !queries[place + 1..].iter().any(read)
            && self.oldest_reader(queries, name).is_none()
            && !waiters.is_observed(name)
    }
}

/// Drops rows beyond their retention.
fn trim_retained(queries: &mut [RunningQuery], sources: &mut Sources, cut: &Cut) {
    for retained in sources.values_mut().filter_map(|source| source.retained.as_mut()) {
        retained.trim(cut.now);
    }
    for query in queries {
        if let Err(reason) = query.result.trim(cut.now) {
            query.suspend(reason, cut.epoch);
        }
    }
}
