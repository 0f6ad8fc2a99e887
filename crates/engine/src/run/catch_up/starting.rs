//! The start of queries: at once, or with a backfill until they are current.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use millstream_delta::{Cut, Delta};
use millstream_sql::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::apart::{BeginningMemory, Pieces, begins_apart, take_piece_here};
use super::{CatchUp, HOLD, PIECES_MAX, Reader, close_windows, cut_of_piece, next_since, step_past};
use crate::catalog::Definition;
use crate::event::Event;
use crate::run::backfill::Beginning;
use crate::run::contents::Bases;
use crate::run::crash_notes::may_step;
use crate::run::initial_content::InitialContent;
use crate::run::lagging::{Lag, rebuild_piece};
use crate::run::queries::lagging_of;
use crate::run::query::Status;
use crate::run::sharing::Arranging;
use crate::run::source::{RunningSource, of_feeds};
use crate::run::tasks::watch;
use crate::run::{QueryStarts, QuerySteps};
use crate::source_history::SourceHistory;

impl QueryStarts<'_> {
    /// Starts the queries whose inputs are available.
    pub(in crate::run) fn start_queries(&mut self) {
        for place in 0..self.queries.len() {
            if !matches!(self.queries[place].status, Status::Waiting(_)) {
                continue;
            }
            let inputs: Vec<Arc<str>> = self.queries[place].reads().cloned().collect();
            // A query also waits until its lagging inputs are current.
            let is_starting =
                |name: &Arc<str>| self.queries.query(name).is_some_and(|query| query.status.is_starting());
            if inputs.iter().any(is_starting) || !lagging_of(self.queries, inputs.iter().cloned()).is_empty()
            {
                continue;
            }
            if let Err(reason) = self.start_query(place, &inputs) {
                let epoch = self.clock.epoch;
                self.queries[place].suspend(reason, epoch);
            }
        }
    }

    fn start_query(&mut self, place: usize, inputs: &[Arc<str>]) -> Result<()> {
        if !may_step(self.queries, self.durability, place, self.clock.epoch) {
            return Ok(());
        }
        if self.queries[place].is_per_batch() {
            return self.start_batches(place);
        }
        let at_once = match self.queries[place].status.take_beginning() {
            Beginning::Backfilled(backfilled) => {
                self.finish_backfill(place, *backfilled);
                return Ok(());
            }
            Beginning::AtOnce => true,
            Beginning::FromInputs => false,
        };
        let cut = self.clock.standing_cut(&self.setup.settings, self.watermarks.current());
        let has_past = |name: &&Arc<str>| {
            self.sources.is_read_again(self.tables, name)
                && self.sources.get(*name).is_some_and(RunningSource::has_past)
        };
        let reading: Vec<Arc<str>> = inputs.iter().filter(has_past).cloned().collect();
        // A successor that reads sources again, and whose answer depends on time, takes the kept content when it
        // replaces its predecessor.
        let query = &self.queries[place];
        let later = query.role.is_successor() && !reading.is_empty() && !query.may_lag();
        let mut first = Vec::with_capacity(inputs.len());
        for feed in &self.queries[place].feeds {
            let content = if later {
                Vec::new()
            } else {
                Bases::new(self.tables, self.sources)
                    .contents(self.queries)
                    .first_content(feed)?
                    .batches_now()?
            };
            first.push(Delta::from_iter(content));
        }
        let query = &mut self.queries[place];
        query.progress.start(cut.epoch);
        if !reading.is_empty()
            || (!at_once
                && begins_apart(self.queries, &self.setup.execution, &self.setup.settings, place, &first))
        {
            return self.begin_catching_up(place, inputs, (first, !later), reading);
        }
        let starts = self.durability.is_recovering();
        if starts
            && begins_apart(self.queries, &self.setup.execution, &self.setup.settings, place, &first)
            && self.flow_control().may_lag_at_start(&[place])
        {
            let in_order = self.queries.is_stepped_in_order(place);
            let query = &mut self.queries[place];
            query.flow.tell();
            query.status = Status::Lagging(Box::new(Lag::beginning(&cut, &first).in_order(in_order)));
            return Ok(());
        }
        self.queries.share(
            Bases::new(self.tables, self.sources),
            self.clock.epoch,
            place,
            Arranging::Anew,
        )?;
        let query = &mut self.queries[place];
        query.status = Status::Running;
        query.result.set_unread(false);
        let delta = query.step_stamped(&cut, Ok(first.iter().map(Cow::Borrowed).collect()));
        let name = query.name.clone();
        self.begin_readers(&name, cut, delta);
        Ok(())
    }

    /// Begins to take in, piece by piece, what the inputs of a query hold. Earlier rows are never late, so no window
    /// closes before the query has read all of them.
    fn begin_catching_up(
        &mut self,
        place: usize,
        inputs: &[Arc<str>],
        (first, has_content): (Vec<Delta>, bool),
        reading: Vec<Arc<str>>,
    ) -> Result<()> {
        let pinned = Cut {
            watermarks: Vec::new(),
            ..self.clock.standing_cut(&self.setup.settings, self.watermarks.current())
        };
        let begun = Instant::now();
        let held_until = self.waiters.hold_sources(begun, HOLD, self.queries[place].role.is_temporary());
        let places = inputs.iter().map(|name| self.outputs.logs.end(name)).collect();
        let permits = Arc::new(Semaphore::new(PIECES_MAX));
        let query = &mut self.queries[place];
        // The rows that a sink has brought into a table stay there if the sink is dropped.
        let is_final = self.durability.is_on() || query.into.is_some();
        let holds = !query.result.shows_at_once() && !query.role.is_successor() && is_final;
        let name = query.name.clone();
        let starts = self.durability.is_recovering();
        // Its content waits until the journal says that it became current, or until the engine is live.
        let at_once = starts && !(reading.is_empty() && self.flow_control().may_lag_at_start(&[place]));
        let memory = if starts { None } else { self.setup.shared.upgrade() };
        let memory = memory
            .map(|shared| Arc::new(BeginningMemory::begin(&shared.statements.memory, &self.setup.settings)));
        let (pieces, first) = match at_once {
            true => (Pieces::default(), Some(first)),
            false => (Pieces::beginning_with(first, pinned.now), None),
        };
        self.queries[place].status = Status::CatchingUp(Box::new(CatchUp {
            reading: reading.clone(),
            places,
            permits: permits.clone(),
            held: holds.then(Delta::default),
            pieces,
            has_content,
            pinned: pinned.clone(),
            now: pinned.now,
            held_until,
            memory,
            entry: self.durability.crash_notes.entry(),
            begun,
        }));
        if let Some(first) = first {
            take_piece_here(self.queries, self.outputs, place, &pinned, &first);
        }
        reading.iter().try_for_each(|source| self.steps().read_past(&name, source, permits.clone(), None))
    }

    /// Gives the sinks and subscribers of a new query its content when it becomes visible.
    pub(in crate::run) fn begin_readers(&mut self, name: &Arc<str>, cut: Cut, content: Delta) {
        if let Some(place) = self.queries.iter().position(|query| query.name == *name) {
            self.steps().stage_first(place, cut.epoch.previous(), content.clone());
        }
        for sink in self.outputs.sinks.values_mut().filter(|sink| sink.from == *name) {
            sink.begin_with(InitialContent::of(cut.clone(), content.clone()));
        }
        let durable = self.outputs.subscriptions.durable.values_mut();
        for subscription in durable.filter(|subscription| subscription.from == *name) {
            subscription.begin_with(InitialContent::of(cut.clone(), content.clone()));
        }
        self.outputs.begin_subscription(self.queries, name, cut, content);
    }

    pub(in crate::run) fn caught_up(
        &mut self,
        name: &Arc<str>,
        source: &str,
        piece: Option<Result<Vec<RecordBatch>>>,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let Some(place) = self.queries.iter().position(|query| Arc::ptr_eq(&query.name, name)) else {
            return;
        };
        if self.queries[place].status.lag().is_some() {
            return rebuild_piece(self.queries, self.clock.epoch, place, source, piece, permit);
        }
        let query = &mut self.queries[place];
        let Status::CatchingUp(catch_up) = &mut query.status else { return };
        match piece {
            Some(Err(reason)) => self.queries[place].suspend(reason, self.clock.epoch),
            Some(Ok(rows)) => {
                let delta = Delta::from_iter(rows);
                let pinned = catch_up.pinned.now;
                if self.durability.is_recovering() {
                    let find = |input: &str| if input == source { Some(&delta) } else { None };
                    let cut = cut_of_piece(
                        self.queries,
                        self.durability,
                        self.clock,
                        &self.setup.settings,
                        place,
                        pinned,
                    );
                    return step_past(self.queries, self.outputs, self.durability, place, &cut, find);
                }
                let of = (query.feeds.len(), pinned);
                if let Some(input) = query.feeds.iter().position(|feed| feed.of.as_ref() == source) {
                    catch_up.pieces.push((input, delta), of, permit);
                }
            }
            // A query becomes current when all pieces are taken in. In recovery, the journal says when; for a
            // successor, this is when it replaces its predecessor.
            None => catch_up.reading.retain(|reading| reading.as_ref() != source),
        }
    }

    /// Takes in the changes since the query was pinned, and makes its result visible.
    pub(in crate::run) fn arrive(&mut self, place: usize) {
        let before = self.clock.epoch;
        while let Some((_, inputs)) = next_since(self.queries, self.outputs, place) {
            let relations: Vec<Arc<str>> = self.queries[place].reads().cloned().collect();
            let of = |name: &str| relations.iter().position(|relation| relation.as_ref() == name);
            let now = self.queries[place].status.piece_time();
            let cut =
                cut_of_piece(self.queries, self.durability, self.clock, &self.setup.settings, place, now);
            let find = |name: &str| of(name).and_then(|place| inputs.get(place));
            step_past(self.queries, self.outputs, self.durability, place, &cut, find);
        }
        close_windows(
            self.queries,
            self.outputs,
            self.durability,
            self.clock,
            &self.setup.settings,
            self.watermarks,
            place,
        );
        if !self.queries[place].status.is_suspended() {
            let arrived = std::mem::replace(&mut self.queries[place].status, Status::Running);
            self.queries.share_or_suspend(
                Bases::new(self.tables, self.sources),
                self.clock.epoch,
                place,
                Arranging::Anew,
            );
            if let Status::CatchingUp(mut catch_up) = arrived
                && let Some(held) = catch_up.held.take()
            {
                let (name, cut) = (
                    self.queries[place].name.clone(),
                    self.clock.piece_cut(self.queries, &self.setup.settings),
                );
                if let Err(reason) = self.queries[place].result.keep_held(&cut, &held) {
                    self.queries[place].suspend(reason, cut.epoch);
                }
                self.outputs.log(self.queries, &name, &cut, &held);
                self.steps().stage_first(place, before, held);
            }
            let name = self.queries[place].name.clone();
            self.outputs.begin_subscriptions_at_end(&name);
        }
        let query = &self.queries[place];
        let read = query.role.is_temporary() || self.outputs.have_reader_of(&query.name);
        if query.result.shows_at_once() && read {
            let name = query.name.clone();
            let delta = Delta::from_iter(
                Bases::new(self.tables, self.sources)
                    .contents(self.queries)
                    .answered(&name)
                    .unwrap_or_default(),
            );
            let cut = self.clock.piece_cut(self.queries, &self.setup.settings);
            self.begin_readers(&name, cut, delta);
        }
    }
}

impl QuerySteps<'_> {
    /// Opens a second reader of a source, which sends all rows taken so far. By default they have the columns that the
    /// query reads.
    pub(in crate::run) fn read_past(
        &mut self,
        query: &Arc<str>,
        name: &Arc<str>,
        permits: Arc<Semaphore>,
        wanted: Option<Vec<bool>>,
    ) -> Result<()> {
        let Definition::Source { schema, connector, spec, .. } = &self.setup.catalog.get(name)?.definition
        else {
            return Err(Error::bug(format!("source \"{name}\" is no source in the catalog")));
        };
        let feeds = self.queries.query(query).into_iter().flat_map(|query| &query.feeds);
        let looked_at = || of_feeds(feeds.filter(|feed| feed.of == *name), schema.fields().len());
        let wanted = wanted.unwrap_or_else(looked_at);
        let history = SourceHistory {
            schema: schema.clone(),
            connector: connector.clone(),
            spec: spec.clone(),
            spans: self
                .sources
                .get(name)
                .map_or_else(Vec::new, |source| source.position.taken().spans().collect()),
            put: self.sources.get(name).map_or_else(Vec::new, |source| source.inserts.taken().to_vec()),
            ahead: self
                .sources
                .get(name)
                .map_or_else(Default::default, |source| source.times.ahead().clone()),
            limit: self.sources.budget.limit(&self.setup.settings),
            wanted: Some(wanted),
        };
        let reader = Reader { query: query.clone(), source: name.clone(), history, permits };
        let (query, source) = (query.clone(), name.clone());
        let task = self.tasks.handle.spawn(reader.read(self.tasks.events.clone()));
        watch(&self.tasks.handle, task, self.tasks.events.clone(), move |error| Event::CaughtUp {
            query,
            source,
            piece: Some(Err(error)),
            permit: None,
        });
        Ok(())
    }
}
