//! Backfill of new queries in the loop: they read the content of their inputs, and replayable sources from the start.

mod apart;
mod inherited;
mod status;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use futures::StreamExt;
use millstream_delta::{Cut, Delta, Epoch, Timestamp};
use millstream_durable::Sequence;
use millstream_sql::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Loop;
use super::backfill::Beginning;
use super::crash_notes::may_step;
use super::feed::Feed;
use super::initial_content::InitialContent;
use super::lagging::{Lag, rebuild_piece};
use super::log::Place;
use super::outputs::Outputs;
use super::queries::lagging_of;
use super::query::Status;
use super::rename::Names;
use super::sharing::Arranging;
use super::source::{RunningSource, of_feeds};
use super::sources::Sources;
use super::tables::BaseTables;
use super::tasks::watch;
use crate::catalog::Definition;
use crate::content::Content;
use crate::event::Event;
use crate::run::clock::Clock;
use crate::run::durable::Durability;
use crate::run::queries::Queries;
use crate::run::read_view::ReadView;
use crate::run::watermarks::Watermarks;
use crate::settings::Settings;
use crate::source_history::SourceHistory;
pub(super) use apart::BeginningMemory;
pub(crate) use apart::PartRows;
use apart::Pieces;
use apart::take_piece_here;
pub(super) use apart::{begin_past_pieces, take_waiting_pieces};
pub(super) use apart::{begins_apart, has_many_to_resume};
pub(super) use inherited::Inherited;

/// Most pieces of earlier rows that may wait for the loop.
pub(super) const PIECES_MAX: usize = 2;

/// The time for which the sources of a new query wait for it at its start.
const HOLD: Duration = Duration::from_secs(1);

/// A new query in backfill. It is pinned at one epoch, and reads in bounded pieces what its inputs held then. After
/// that, it reads the changes since.
#[derive(Debug)]
pub(crate) struct CatchUp {
    /// The sources that are still being read again.
    reading: Vec<Arc<str>>,
    /// The place in each input's log after the epoch of the pin.
    pub(crate) places: Vec<Place>,
    /// Lets the readers of the sources continue.
    permits: Arc<Semaphore>,
    /// The output so far, if no reader may have any of it before the backfill ends. After a crash the pieces would
    /// differ, and in a table the output of a cancelled query would stay.
    held: Option<Delta>,
    /// The pieces that are left to take in.
    pieces: Pieces,
    /// True if these pieces include the content that the engine keeps of the inputs.
    has_content: bool,
    /// The cut of the backfill: earlier rows have its batch, whenever they are read.
    pinned: Cut,
    /// The batch time up to which it has taken in its inputs. It does not depend on crashes in the meantime.
    now: Timestamp,
    /// The time until which its sources wait for it.
    held_until: Option<Instant>,
    /// The memory of the statement that waits for it; `None` during recovery.
    memory: Option<Arc<BeginningMemory>>,
    /// The entry with which it began, if a start repeats that entry.
    entry: Option<Sequence>,
    begun: Instant,
}

impl CatchUp {
    /// Returns the places of a query that has nothing to read again.
    pub(crate) fn standing(places: Vec<Place>) -> CatchUp {
        CatchUp {
            reading: Vec::new(),
            places,
            permits: Arc::new(Semaphore::new(0)),
            held: None,
            pieces: Pieces::default(),
            has_content: true,
            pinned: Cut::new(Epoch::default(), Timestamp::default()),
            now: Timestamp::default(),
            held_until: None,
            memory: None,
            entry: None,
            begun: Instant::now(),
        }
    }

    /// Renames the sources that are still being read again.
    pub(super) fn rename_read(&mut self, names: &Names) {
        names.put_all(&mut self.reading);
        self.pieces.rename(names);
    }

    /// True if its output is kept until the backfill ends.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Returns true if it has read and taken in all earlier rows.
    pub(crate) fn has_read(&self) -> bool {
        self.reading.is_empty() && self.pieces.is_empty()
    }

    /// Returns true if sources must wait for it. Most queries become current in a moment, without a growing backlog.
    pub(super) fn holds_back(&self) -> bool {
        self.pieces.is_overtaken() || self.hold_ends().is_some()
    }

    /// Returns the time from which on its sources no longer wait for it as a new query.
    pub(super) fn hold_ends(&self) -> Option<Instant> {
        self.held_until.filter(|until| *until > Instant::now())
    }

    /// Returns true if it has taken in the kept content of its inputs, so that it lacks only the changes since.
    pub(super) fn has_content(&self) -> bool {
        self.has_content
    }
}

impl Drop for CatchUp {
    /// Ends the readers of the sources: nobody waits for their rows.
    fn drop(&mut self) {
        self.permits.close();
    }
}

impl Loop {
    /// Starts the queries whose inputs are available.
    pub(super) fn start_queries(&mut self) {
        for place in 0..self.queries.len() {
            if !matches!(self.queries[place].status, Status::Waiting) {
                continue;
            }
            let inputs: Vec<Arc<str>> = self.queries[place].reads().cloned().collect();
            // A query also waits until its lagging inputs are current.
            let is_starting =
                |name: &Arc<str>| self.queries.query(name).is_some_and(|query| query.status.is_starting());
            if inputs.iter().any(is_starting) || !lagging_of(&self.queries, inputs.iter().cloned()).is_empty()
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
        if !may_step(&mut self.queries, &mut self.durability, place, self.clock.epoch) {
            return Ok(());
        }
        if self.queries[place].is_per_batch() {
            return self.start_batches(place);
        }
        let at_once = match std::mem::take(&mut self.queries[place].beginning) {
            Beginning::Backfilled(backfilled) => {
                self.finish_backfill(place, *backfilled);
                return Ok(());
            }
            Beginning::AtOnce => true,
            Beginning::FromInputs => false,
        };
        let cut = self.clock.standing_cut(&self.settings, self.watermarks.current());
        let has_past = |name: &&Arc<str>| {
            self.sources.is_read_again(&self.tables, name)
                && self.sources.get(*name).is_some_and(RunningSource::has_past)
        };
        let reading: Vec<Arc<str>> = inputs.iter().filter(has_past).cloned().collect();
        // A successor that reads sources again, and whose answer depends on time, takes the kept content when it
        // replaces its predecessor.
        let query = &self.queries[place];
        let later = query.succeeds && !reading.is_empty() && !query.may_lag();
        let mut first = Vec::with_capacity(inputs.len());
        for feed in &self.queries[place].feeds {
            let content =
                if later { Vec::new() } else { self.read_view().first_content(feed)?.batches_now()? };
            first.push(Delta::from_iter(content));
        }
        let query = &mut self.queries[place];
        query.since = cut.epoch;
        if !reading.is_empty()
            || (!at_once && begins_apart(&self.queries, &self.execution, &self.settings, place, &first))
        {
            return self.begin_catching_up(place, inputs, (first, !later), reading);
        }
        let starts = self.durability.is_recovering();
        if starts
            && begins_apart(&self.queries, &self.execution, &self.settings, place, &first)
            && self.flow_control().may_lag_at_start(&[place])
        {
            let in_order = self.queries.is_stepped_in_order(place);
            let query = &mut self.queries[place];
            query.flow.tell();
            query.status = Status::Lagging(Box::new(Lag::beginning(&cut, &first).in_order(in_order)));
            return Ok(());
        }
        self.share(place, Arranging::Anew)?;
        let query = &mut self.queries[place];
        query.status = Status::Running;
        query.unread = false;
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
            ..self.clock.standing_cut(&self.settings, self.watermarks.current())
        };
        let begun = Instant::now();
        let held_until = self.waiters.hold_sources(begun, HOLD, self.queries[place].temporary);
        let places = inputs.iter().map(|name| self.outputs.logs.end(name)).collect();
        let permits = Arc::new(Semaphore::new(PIECES_MAX));
        let query = &mut self.queries[place];
        // The rows that a sink has brought into a table stay there if the sink is dropped.
        let is_final = self.durability.is_on() || query.into.is_some();
        let holds = !query.result.shows_at_once() && !query.succeeds && is_final;
        let name = query.name.clone();
        let starts = self.durability.is_recovering();
        // Its content waits until the journal says that it became current, or until the engine is live.
        let at_once = starts && !(reading.is_empty() && self.flow_control().may_lag_at_start(&[place]));
        let memory = if starts { None } else { self.shared.upgrade() };
        let memory = memory.map(|shared| Arc::new(BeginningMemory::begin(&shared.memory, &self.settings)));
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
            take_piece_here(&mut self.queries, &mut self.outputs, place, &pinned, &first);
        }
        reading.iter().try_for_each(|source| self.read_past(&name, source, permits.clone(), None))
    }

    /// Gives the sinks and subscribers of a new query its content when it becomes visible.
    pub(super) fn begin_readers(&mut self, name: &Arc<str>, cut: Cut, content: Delta) {
        if let Some(place) = self.queries.iter().position(|query| query.name == *name) {
            self.stage_first(place, cut.epoch.previous(), content.clone());
        }
        for sink in self.outputs.sinks.values_mut().filter(|sink| sink.from == *name) {
            sink.begin_with(InitialContent::of(cut.clone(), content.clone()));
        }
        let durable = self.outputs.subscriptions.durable.values_mut();
        for subscription in durable.filter(|subscription| subscription.from == *name) {
            subscription.begin_with(InitialContent::of(cut.clone(), content.clone()));
        }
        self.outputs.begin_subscription(&mut self.queries, name, cut, content);
    }

    /// Opens a second reader of a source, which sends all rows taken so far. By default they have the columns that the
    /// query reads.
    pub(super) fn read_past(
        &mut self,
        query: &Arc<str>,
        name: &Arc<str>,
        permits: Arc<Semaphore>,
        wanted: Option<Vec<bool>>,
    ) -> Result<()> {
        let Definition::Source { schema, connector, spec, .. } = &self.catalog.get(name)?.definition else {
            return Err(Error::bug(format!("source \"{name}\" is no source in the catalog")));
        };
        let feeds = self.queries.query(query).into_iter().flat_map(|query| &query.feeds);
        let looked_at = || of_feeds(feeds.filter(|feed| feed.of == *name), schema.fields().len());
        let wanted = wanted.unwrap_or_else(looked_at);
        let history = SourceHistory {
            schema: schema.clone(),
            connector: connector.clone(),
            spec: spec.clone(),
            spans: self.sources.get(name).map_or_else(Vec::new, |source| source.position.spans().collect()),
            put: self.sources.get(name).map_or_else(Vec::new, |source| source.inserts.taken().to_vec()),
            ahead: self.sources.get(name).map_or_else(Default::default, |source| source.ahead.clone()),
            limit: self.budget.limit(&self.settings),
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

    pub(super) fn caught_up(
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
            return rebuild_piece(&mut self.queries, self.clock.epoch, place, source, piece, permit);
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
                        &self.queries,
                        &self.durability,
                        &mut self.clock,
                        &self.settings,
                        place,
                        pinned,
                    );
                    return step_past(
                        &mut self.queries,
                        &mut self.outputs,
                        &mut self.durability,
                        place,
                        &cut,
                        find,
                    );
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
    pub(super) fn arrive(&mut self, place: usize) {
        let before = self.clock.epoch;
        while let Some((_, inputs)) = next_since(&mut self.queries, &self.outputs, place) {
            let relations: Vec<Arc<str>> = self.queries[place].reads().cloned().collect();
            let of = |name: &str| relations.iter().position(|relation| relation.as_ref() == name);
            let now = self.queries[place].status.piece_time();
            let cut =
                cut_of_piece(&self.queries, &self.durability, &mut self.clock, &self.settings, place, now);
            let find = |name: &str| of(name).and_then(|place| inputs.get(place));
            step_past(&mut self.queries, &mut self.outputs, &mut self.durability, place, &cut, find);
        }
        close_windows(
            &mut self.queries,
            &mut self.outputs,
            &mut self.durability,
            &mut self.clock,
            &self.settings,
            &self.watermarks,
            place,
        );
        if !self.queries[place].status.is_suspended() {
            let arrived = std::mem::replace(&mut self.queries[place].status, Status::Running);
            self.share_or_suspend(place, Arranging::Anew);
            if let Status::CatchingUp(mut catch_up) = arrived
                && let Some(held) = catch_up.held.take()
            {
                let (name, cut) =
                    (self.queries[place].name.clone(), self.clock.piece_cut(&self.queries, &self.settings));
                if let Err(reason) = self.queries[place].result.keep_held(&cut, &held) {
                    self.queries[place].suspend(reason, cut.epoch);
                }
                self.outputs.log(&self.queries, &name, &cut, &held);
                self.stage_first(place, before, held);
            }
            let name = self.queries[place].name.clone();
            self.outputs.begin_subscriptions_at_end(&name);
        }
        let query = &self.queries[place];
        let read = query.temporary || self.outputs.have_reader_of(&query.name);
        if query.result.shows_at_once() && read {
            let name = query.name.clone();
            let delta = Delta::from_iter(self.read_view().answered(&name).unwrap_or_default());
            let cut = self.clock.piece_cut(&self.queries, &self.settings);
            self.begin_readers(&name, cut, delta);
        }
    }
}

/// Closes the windows that the watermarks have passed during the backfill. None of their rows was late.
fn close_windows(
    queries: &mut Queries,
    outputs: &mut Outputs,
    durability: &mut Durability,
    clock: &mut Clock,
    settings: &Settings,
    watermarks: &Watermarks,
    place: usize,
) {
    let standing = clock.standing_cut(settings, watermarks.current());
    if !queries[place].status.is_suspended() && queries[place].flow.is_due(&standing) {
        let cut = Cut { watermarks: standing.watermarks, ..clock.piece_cut(queries, settings) };
        step_past(queries, outputs, durability, place, &cut, |_| None);
    }
}

/// Returns the cut of a piece of earlier rows. A kept result becomes visible when the backfill ends; one that is only
/// passed on is passed on at once.
fn cut_of_piece(
    queries: &Queries,
    durability: &Durability,
    clock: &mut Clock,
    settings: &Settings,
    place: usize,
    now: Timestamp,
) -> Cut {
    // The number and the times of pieces differ after a crash, so with a journal they get no epochs of their own.
    match durability.is_on() {
        true => Cut { now, ..queries[place].status.pinned(queries[place].epoch) },
        false => clock.piece_cut(queries, settings),
    }
}

impl Clock {
    /// Returns the cut of a piece of earlier rows. Sinks identify epochs by their numbers, so each piece that they may
    /// see has one of its own.
    pub(super) fn piece_cut(&mut self, queries: &Queries, settings: &Settings) -> Cut {
        self.epoch = self.epoch.next();
        let at = self.time_between(queries, settings, self.now(settings));
        Cut { started: self.batch(), ..Cut::new(self.epoch, self.stamp(at)) }
    }
}

/// Takes in a piece under a cut; see [`cut_of_piece`].
pub(super) fn step_past<'a>(
    queries: &mut Queries,
    outputs: &mut Outputs,
    durability: &mut Durability,
    place: usize,
    cut: &Cut,
    find: impl Fn(&str) -> Option<&'a Delta>,
) {
    if !may_step(queries, durability, place, cut.epoch) {
        return;
    }
    let query = &mut queries[place];
    let inputs = query.inputs(find);
    query.unread = query.result.shows_at_once();
    let delta = query.step(cut, &inputs);
    put_out_past(queries, outputs, place, cut, delta);
}

impl ReadView<'_> {
    /// Returns the content of an input for a new query before its log continues; nothing for a source that can be read
    /// again.
    pub(super) fn first_content(&self, feed: &Feed) -> Result<Content> {
        match self.sources.get(&feed.of).filter(|_| !self.tables.contains_key(&feed.of)) {
            Some(source) if source.replayable || source.retained.is_none() => {
                Ok(Content::Batches(Vec::new()))
            }
            _ => self.content_as(&feed.of, feed.stamped.as_ref()),
        }
    }
}

impl Sources {
    /// Returns true if the earlier rows of a relation are read again from its source.
    pub(super) fn is_read_again(&self, tables: &BaseTables, name: &str) -> bool {
        !tables.contains_key(name) && self.get(name).is_some_and(|source| source.replayable)
    }
}

impl Queries {
    /// Returns true if a query has read all earlier rows and can become current.
    pub(super) fn has_read_the_past(&self, place: usize) -> bool {
        matches!(&self.all[place].status, Status::CatchingUp(catch_up) if catch_up.has_read())
    }
}

/// Passes on the output of a backfill, or keeps it until the backfill ends.
fn put_out_past(queries: &mut Queries, outputs: &mut Outputs, place: usize, cut: &Cut, delta: Delta) {
    let query = &mut queries[place];
    if let Status::CatchingUp(catch_up) = &mut query.status
        && let Some(held) = &mut catch_up.held
    {
        held.append(delta);
    } else if !query.result.shows_at_once() && !query.succeeds {
        let name = query.name.clone();
        outputs.log(queries, &name, cut, &delta);
    }
}

/// Takes the next epoch out of the logs of a query's inputs, by input.
pub(super) fn next_since(
    queries: &mut Queries,
    outputs: &Outputs,
    place: usize,
) -> Option<(Cut, Vec<Delta>)> {
    let query = &mut queries[place];
    let relations: Vec<Arc<str>> = query.reads().cloned().collect();
    let (Status::CatchingUp(catch_up) | Status::Paused(catch_up)) = &mut query.status else {
        return None;
    };
    let (cut, inputs) = outputs.logs.next_epoch(&relations, &mut catch_up.places)?;
    catch_up.now = catch_up.now.max(cut.now);
    // The rows belong to this batch, whenever they are taken in.
    let of_batch = |(feed, delta): (&Feed, Delta)| match feed.stamp(&delta, (&cut).into()) {
        Ok(Cow::Owned(stamped)) => stamped,
        Ok(Cow::Borrowed(_)) | Err(_) => delta,
    };
    let inputs = query.feeds.iter().zip(inputs).map(of_batch).collect();
    Some((cut, inputs))
}

struct Reader {
    query: Arc<str>,
    source: Arc<str>,
    history: SourceHistory,
    permits: Arc<Semaphore>,
}

impl Reader {
    async fn read(self, events: std::sync::mpsc::Sender<Event>) {
        let Reader { query, source, history, permits } = self;
        let piece =
            |piece, permit| Event::CaughtUp { query: query.clone(), source: source.clone(), piece, permit };
        let rows_max = history.limit.rows;
        let mut pieces = std::pin::pin!(history.pieces());
        // Small splits are collected, so that the query takes as few steps as possible.
        let (mut rows, mut size) = (Vec::new(), 0);
        loop {
            let next = pieces.next().await;
            let ended = next.is_none();
            match next {
                Some(Ok(batches)) => {
                    size += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
                    rows.extend(batches);
                }
                Some(Err(error)) => {
                    let _ = events.send(piece(Some(Err(error)), None));
                    return;
                }
                None => {}
            }
            if size >= rows_max || (ended && size > 0) {
                // Closed: the query was dropped.
                let Ok(permit) = permits.clone().acquire_owned().await else { return };
                size = 0;
                if events.send(piece(Some(Ok(std::mem::take(&mut rows))), Some(permit))).is_err() {
                    return;
                }
            }
            if ended {
                break;
            }
        }
        let _ = events.send(piece(None, None));
    }
}
