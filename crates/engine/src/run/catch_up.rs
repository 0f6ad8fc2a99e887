//! Backfill of new queries in the loop: they read the content of their inputs, and replayable sources from the start.

mod apart;
mod inherited;
mod starting;
mod status;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use futures::StreamExt;
use millstream_delta::{Cut, Delta, Epoch, Timestamp};
use millstream_durable::Sequence;
use millstream_sql::Result;
use tokio::sync::Semaphore;

use super::crash_notes::may_step;
use super::feed::Feed;
use super::log::Place;
use super::outputs::Outputs;
use super::query::Status;
use super::rename::Names;
use super::sources::Sources;
use super::tables::BaseTables;
use crate::content::Content;
use crate::event::Event;
use crate::run::clock::Clock;
use crate::run::contents::Contents;
use crate::run::durable::Durability;
use crate::run::queries::Queries;
use crate::run::watermarks::Watermarks;
use crate::settings::Settings;
use crate::source_history::SourceHistory;
pub(super) use apart::BeginningMemory;
pub(crate) use apart::PartRows;
use apart::Pieces;
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
        true => Cut { now, ..queries[place].status.pinned(queries[place].progress.epoch()) },
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
    query.result.hide_backfill();
    let delta = query.step(cut, &inputs);
    put_out_past(queries, outputs, place, cut, delta);
}

impl Contents<'_> {
    /// Returns the content of an input for a new query before its log continues; nothing for a source that can be read
    /// again.
    pub(super) fn first_content(&self, feed: &Feed) -> Result<Content> {
        match self.bases.sources.get(&feed.of).filter(|_| !self.bases.tables.contains_key(&feed.of)) {
            Some(source) if source.is_replayable() || source.retained.is_none() => {
                Ok(Content::Batches(Vec::new()))
            }
            _ => self.content_as(&feed.of, feed.stamped.as_ref()),
        }
    }
}

impl Sources {
    /// Returns true if the earlier rows of a relation are read again from its source.
    pub(super) fn is_read_again(&self, tables: &BaseTables, name: &str) -> bool {
        !tables.contains_key(name) && self.get(name).is_some_and(|source| source.is_replayable())
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
    } else if !query.result.shows_at_once() && !query.role.is_successor() {
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
