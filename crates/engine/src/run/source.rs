//! A running source as the loop sees it: its arrivals, its limits, and the rows that an epoch takes of it.

mod limited;
mod replay;
mod saving;
mod wanted;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use millstream_connect::{Arrival, Health, Inlet, Limit, More, Reading, Source};
use millstream_delta::{Cut, Delta, Position, Span, Timestamp};
use millstream_flow::Meter;
use millstream_sql::{Error, Result};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::bad_rows::BadRows;
use super::deltas::in_sum;
use super::put::Put;
use super::rate::{Bound, Rate};
use super::receive::{Command, Receiving};
use super::retained::Retained;
use super::table::Table;
use super::tasks::Tasks;
use super::watermarks::ahead::{Ahead, merge};
use super::watermarks::column::TimeColumn;
use super::watermarks::marks::Seen;
use super::{Loop, current};
use crate::event::Event;
use crate::settings::{ClockKind, Pace, Settings};
use wanted::Wanted;
pub(super) use wanted::of_feeds;

/// A source as the loop sees it.
pub(crate) struct RunningSource {
    commands: UnboundedSender<Command>,
    /// True if something depends on it.
    pub(crate) used: bool,
    /// True if it is paused.
    pub(crate) paused: bool,
    /// The rows that statements have inserted into it.
    pub(crate) put: Put,
    /// True if it ends by itself.
    pub(crate) bounded: bool,
    /// True if it can be read again.
    pub(crate) replayable: bool,
    /// True if its sender gets an acknowledgement of durable rows.
    reliable: bool,
    /// True if each arrival is a batch of its own.
    one_arrival_a_batch: bool,
    /// The number of its receivers.
    partitions: usize,
    /// The splits that exist from the beginning, if several are read at a time.
    pub(crate) side_by_side: Option<Vec<Arc<str>>>,
    /// The column of its watermark, if it has one.
    pub(crate) time: Option<TimeColumn>,
    /// Its rows that are too far ahead of the clock.
    pub(crate) ahead: Ahead,
    /// The target of INSERT.
    pub(crate) inlet: Option<Arc<dyn Inlet>>,
    /// The health of its receivers.
    health: Health,
    /// Its own limit of rows a second and receiver.
    rate_limit: Option<f64>,
    rate: Rate,
    /// The position up to which epochs have taken it.
    pub(crate) position: Position,
    /// The newest rows, if it has a retention.
    pub(crate) retained: Option<Retained>,
    /// The position up to which it has arrived, if it may deliver rows again.
    received: Position,
    /// The number of rows taken.
    pub(crate) rows: u64,
    /// The records that it could not decode.
    pub(crate) bad: BadRows,
    /// The counters of its Upsert, if it is a change feed.
    pub(crate) upserted: Meter,
    /// The number of rows that arrived again and were dropped.
    pub(crate) duplicates: u64,
    /// The reason why it can't be read, now or for good, and the number of failures in a row.
    failure: Option<(String, u32)>,
    /// The number of retries after a failure.
    retries: u64,
    failed: bool,
    /// The columns that its task was told to read.
    wanted: Wanted,
    ready: VecDeque<Arrival>,
    pub(crate) ready_rows: usize,
    pub(crate) ready_bytes: usize,
    more: More,
    /// The numbers of the newest pull and of the newest answer.
    asked: u64,
    answered: u64,
    /// The first pull whose answer must not wait for rows, since someone waits for the news that there are none now.
    hurry: Option<u64>,
}

/// An opened source, with the state that the engine keeps beside it.
pub(crate) struct Opened {
    pub(crate) source: Box<dyn Source>,
    pub(crate) health: Health,
    pub(crate) rate_limit: Option<f64>,
}

/// The part of a source that an epoch takes.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) delta: Delta,
    pub(crate) spans: Vec<Span>,
    /// The newest event time by split.
    pub(crate) seen: Seen,
    /// The arrivals as they came, if the journal must have them.
    pub(crate) journalled: Vec<Arrival>,
}

impl RunningSource {
    /// Starts the task of a source.
    pub(crate) fn start(name: Arc<str>, opened: Opened, now: Timestamp, tasks: &Tasks) -> RunningSource {
        let (commands, inbox) = unbounded_channel();
        let Opened { source, health, rate_limit } = opened;
        let properties = source.properties();
        let running = RunningSource {
            commands,
            used: false,
            paused: false,
            put: Put::default(),
            bounded: properties.bounded,
            replayable: properties.replayable,
            reliable: properties.reliable,
            one_arrival_a_batch: properties.one_arrival_a_batch,
            partitions: properties.partitions,
            side_by_side: match properties.reading {
                Reading::InTurn => None,
                Reading::SideBySide(splits) => Some(splits),
            },
            time: None,
            ahead: Ahead::default(),
            inlet: source.inlet(),
            health,
            rate_limit,
            rate: Rate::new(now),
            position: Position::default(),
            retained: None,
            received: Position::default(),
            rows: 0,
            bad: BadRows::default(),
            upserted: Meter::default(),
            duplicates: 0,
            failure: None,
            retries: 0,
            failed: false,
            wanted: Wanted::new(
                properties.prunes_columns && properties.replayable,
                source.schema().fields().len(),
            ),
            ready: VecDeque::new(),
            ready_rows: 0,
            ready_bytes: 0,
            more: More::Now,
            asked: 0,
            answered: 0,
            hurry: None,
        };
        let receiving = Receiving::new(name.clone(), source, inbox, tasks.events());
        tasks.spawn(receiving.serve(), move |error| Event::Arrived {
            source: name,
            ticket: u64::MAX,
            result: Err(error),
            at: Instant::now(),
        });
        running
    }

    /// Returns true if epochs have taken rows of it.
    pub(crate) fn has_past(&self) -> bool {
        !self.position.splits.is_empty() || !self.put.taken().is_empty()
    }

    /// Returns true if epochs take its rows.
    pub(crate) fn is_read(&self) -> bool {
        self.used && !self.paused
    }

    /// Returns true if nothing more will arrive.
    pub(crate) fn has_ended(&self) -> bool {
        self.failed || self.more == More::Never
    }

    /// Returns true if it has ended, and epochs have taken all its rows.
    pub(crate) fn is_at_end(&self) -> bool {
        self.more == More::Never && !self.has_rows()
    }

    /// Returns true if it failed for good.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Returns the present failure.
    pub(crate) fn trouble(&self) -> Option<String> {
        match &self.failure {
            Some((reason, _)) if self.failed => Some(reason.clone()),
            Some((reason, attempts)) => Some(format!("{reason} (attempt {attempts})")),
            None => self.health.reason(),
        }
    }

    /// Returns the share of it that was read, if it is bounded and knows its end.
    pub(crate) fn share(&self) -> Option<f64> {
        self.health.share().filter(|_| self.bounded)
    }

    /// Returns how often files changed after their end was read.
    pub(crate) fn changes(&self) -> u64 {
        self.health.changes()
    }

    /// Returns how often it, or a receiver of it, was restarted.
    pub(crate) fn restarts(&self) -> u64 {
        self.retries + self.health.restarts()
    }

    /// Returns true if arrivals wait for an epoch.
    pub(crate) fn has_rows(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Returns true if epochs have taken all rows that it had when it was last hurried.
    pub(crate) fn is_idle(&self) -> bool {
        !self.has_rows() && (self.hurry.is_none() || self.has_ended())
    }

    /// Returns true if no pull is on its way. Only then may a manual batch begin.
    pub(crate) fn has_answered(&self) -> bool {
        !self.is_read() || self.has_ended() || self.answered == self.asked
    }

    /// Returns the limit of its rows that is in force.
    pub(crate) fn bound(&self, settings: &Settings) -> Option<Bound> {
        Some(Bound::new(self.rate_limit(settings)?, settings))
    }

    /// Returns the rows a second that it delivered lately.
    pub(crate) fn rows_per_second(&self, now: Timestamp) -> f64 {
        self.rate.measured(now)
    }

    /// Returns true if it delivers, or could deliver, more than epochs take.
    pub(crate) fn is_throttled(&self, limit: Limit, settings: &Settings, now: Timestamp) -> bool {
        let held_back = self.due_in(settings, now).is_some_and(|wait| !wait.is_zero());
        held_back || (self.has_rows() && !self.has_room(limit))
    }

    /// Returns how long its rows must wait for an epoch, zero if one may take some at `now`; `None` without rows.
    pub(crate) fn due_in(&self, settings: &Settings, now: Timestamp) -> Option<std::time::Duration> {
        let rows = rows_of(self.ready.front()?);
        let bound = self.bound(settings);
        Some(bound.map_or_else(Default::default, |bound| self.rate.wait(rows, &bound, now)))
    }

    /// Returns true if there is room for another pull beside the waiting rows.
    fn has_room(&self, limit: Limit) -> bool {
        self.ready_rows < limit.rows && self.ready_bytes < limit.bytes
    }

    /// Returns the limit of the next pull, if there is room; its own bound lets `rows_max` rows wait.
    fn room(&self, limit: Limit, rows_max: Option<usize>) -> Option<Limit> {
        let Some(rows_max) = rows_max else { return self.has_room(limit).then_some(limit) };
        let rows = limit.rows.min(rows_max).saturating_sub(self.ready_rows);
        (rows > 0 && self.ready_bytes < limit.bytes).then_some(Limit { rows, ..limit })
    }

    fn pull(&mut self, limit: Limit, wait: bool, hurry: bool) {
        self.asked += 1;
        let _ = self.commands.send(Command::Pull { ticket: self.asked, limit, wait, hurry });
    }

    /// Lets no further answer wait for rows, until an answer says that there are none now.
    pub(crate) fn ask_at_once(&mut self) {
        self.hurry = Some(self.asked + 1);
    }

    /// Records an arrival.
    fn receive(&mut self, arrival: Arrival) {
        if self.failure.take().is_some() {
            self.retries += 1;
        }
        self.more = arrival.more;
        let size = rows_of(&arrival);
        if size == 0 && arrival.spans.is_empty() {
            return;
        }
        if self.reliable {
            match seen_before(&self.received, &arrival.spans) {
                Ok(false) => arrival.spans.iter().for_each(|span| self.received.advance(span)),
                Ok(true) => {
                    self.duplicates += size as u64;
                    return;
                }
                Err(error) => return self.fail(error),
            }
        }
        self.ready_rows += size;
        self.ready_bytes += bytes_of(&arrival);
        self.ready.push_back(arrival);
    }

    /// Records a failure.
    pub(super) fn fail(&mut self, error: Error) {
        let attempts = self.failure.take().map_or(0, |(_, attempts)| attempts) + 1;
        self.retries += u64::from(attempts > 1);
        self.failure = Some((error.message, attempts));
        self.failed = error.kind != crate::Kind::External;
        self.more = More::Later;
    }

    /// Takes arrivals for one epoch. The `first` arrival of an epoch is taken whatever its size, so that the epoch
    /// makes progress. The source's `table` applies changes of a change feed.
    fn take(
        &mut self,
        mut table: Option<&mut Table>,
        rows_max: usize,
        mut first: bool,
        bound: Option<Bound>,
        cut: &Cut,
    ) -> Taken {
        let (begun, now) = (Instant::now(), cut.now);
        let (mut delta, mut spans, mut rows) = (Delta::default(), Vec::new(), 0);
        let (mut seen, mut journalled) = (Seen::new(), Vec::new());
        loop {
            if let Some(bound) = &bound {
                self.divide_first(bound);
            }
            let Some(arrival) = self.ready.front() else { break };
            let size = rows_of(arrival);
            let held_back = bound.is_some_and(|bound| !self.rate.allows(size, &bound, now));
            if held_back {
                break;
            }
            if !first && !self.one_arrival_a_batch && rows + size > rows_max {
                break;
            }
            first = false;
            rows += size;
            let Some(mut arrival) = self.ready.pop_front() else { break };
            self.rate.take(size, bound.as_ref(), now);
            self.ready_rows -= size;
            self.ready_bytes -= bytes_of(&arrival);
            if !self.replayable {
                journalled.push(arrival.clone());
            }
            match self.take_in(table.as_deref_mut(), &mut arrival, cut.event_time_max) {
                Ok((rows, more)) => {
                    more.into_iter().for_each(|(split, newest)| merge(&mut seen, split, newest));
                    delta.append(rows);
                }
                Err(error) => {
                    self.fail(error);
                    break;
                }
            }
            merge_spans(&mut spans, arrival.spans);
            if self.one_arrival_a_batch {
                break;
            }
        }
        if table.is_none() {
            return Taken { delta, spans, seen, journalled };
        }
        let delta = in_sum(delta);
        self.upserted.steps += u64::from(!spans.is_empty());
        self.upserted.rows_out += delta.num_rows() as u64;
        self.upserted.time += begun.elapsed();
        Taken { delta, spans, seen, journalled }
    }

    /// Takes an arrival in. Returns its delta, and the newest event time by split. Rows with an event time after
    /// `latest` become bad rows.
    pub(super) fn take_in(
        &mut self,
        table: Option<&mut Table>,
        arrival: &mut Arrival,
        latest: Option<Timestamp>,
    ) -> Result<(Delta, Seen)> {
        let size = rows_of(arrival);
        let seen = self.ahead.take_out(arrival, self.time.as_ref(), table.is_some(), latest)?;
        self.upserted.rows_in += (size - arrival.bad_rows.len()) as u64;
        let delta = follow(table, arrival)?;
        self.rows += (size - arrival.bad_rows.len()) as u64;
        self.bad.receive(std::mem::take(&mut arrival.bad_rows));
        arrival.spans.iter().for_each(|span| self.position.advance(span));
        Ok((delta, seen))
    }

    /// Continues after the rows that were taken in before the engine was started.
    pub(super) fn go_on(&mut self) {
        self.received = self.position.clone();
        if !self.position.splits.is_empty() {
            let _ = self.commands.send(Command::Seek(self.position.clone()));
            // Its sender may not have heard of them before the crash; rows that it sends again are skipped.
            if self.reliable {
                let _ = self.commands.send(Command::Acknowledge(self.position.clone()));
            }
        }
    }
}

/// Returns the rows of an arrival; of a change feed, the changes that they make. Deletions of missing rows become bad
/// rows of the arrival.
fn follow(table: Option<&mut Table>, arrival: &mut Arrival) -> Result<Delta> {
    let Some(table) = table else { return Ok(Delta::from_iter(std::mem::take(&mut arrival.rows))) };
    let (delta, missing) = table.follow(&arrival.rows)?;
    if !missing.is_empty() {
        arrival.bad_rows.extend(missing);
        arrival.bad_rows.sort_by(|a, b| (&a.split, a.offset).cmp(&(&b.split, b.offset)));
    }
    Ok(delta)
}

/// Returns true if a reliable source has delivered all of this before; fails if it has delivered only a part.
fn seen_before(received: &Position, spans: &[Span]) -> Result<bool> {
    let through = |span: &Span| received.splits.get(&span.split).map_or(0, |progress| progress.through);
    let old = spans.iter().filter(|span| span.from < span.to && span.to <= through(span)).count();
    if old > 0 && old == spans.len() {
        return Ok(true);
    }
    match spans.iter().find(|span| span.from < through(span)) {
        None => Ok(false),
        Some(span) => Err(Error::invalid(format!(
            "it delivered {}..{} of split '{}' after it had delivered that up to {}: repeated rows must be delivered \
             separately from new ones",
            span.from,
            span.to,
            span.split,
            through(span)
        ))),
    }
}

/// Returns the number of an arrival's records, good and bad.
fn rows_of(arrival: &Arrival) -> usize {
    arrival.rows.iter().map(RecordBatch::num_rows).sum::<usize>() + arrival.bad_rows.len()
}

fn bytes_of(arrival: &Arrival) -> usize {
    let bad: usize = arrival.bad_rows.iter().map(|row| row.bytes.len()).sum();
    arrival.rows.iter().map(RecordBatch::get_array_memory_size).sum::<usize>() + bad
}

/// Adds spans, joining each to the last one if it continues that.
fn merge_spans(spans: &mut Vec<Span>, more: Vec<Span>) {
    for span in more {
        match spans.last_mut() {
            Some(last) if last.split == span.split && last.to == span.from => {
                last.to = span.to;
                last.done |= span.done;
            }
            _ => spans.push(span),
        }
    }
}

impl Loop {
    /// Keeps each source in use one pull ahead of the epochs, within the bounds of waiting rows.
    pub(super) fn pull_sources(&mut self) {
        let is_off = self.clock.held || self.waiters.stopping || self.durability.failure().is_some();
        if is_off || self.settings.clock == ClockKind::Manual {
            return;
        }
        let limit = self.limit();
        // Under a fixed interval, the rows of the next batch wait already while one is running. That shows when a batch
        // is late.
        let batches = if matches!(self.settings.pace, Pace::Fixed(_)) { 2 } else { 1 };
        let ahead = Limit { rows: limit.rows * batches, bytes: limit.bytes * batches };
        for source in self.sources.values_mut().filter(|source| source.is_read() && !source.has_ended()) {
            // If someone waits for an answer, a pull that doesn't wait for rows overtakes one that does.
            let asked = source.asked > source.answered;
            let overtake = source.hurry.is_some_and(|ticket| ticket > source.asked) && !source.awaits_stale();
            let bound = source.bound(&self.settings);
            let room = source.room(ahead, bound.map(|bound| bound.batch_rows()));
            let room = room
                .map(|room| Limit { rows: room.rows.min(limit.rows), bytes: room.bytes.min(limit.bytes) });
            if overtake {
                source.pull(room.unwrap_or(Limit { rows: 1, ..limit }), false, true);
            } else if let (false, Some(room)) = (asked, room) {
                // After a failure, the next answer must not wait for rows: it shows that the failure has passed.
                source.pull(room, source.hurry.is_none() && source.failure.is_none(), source.hurry.is_some());
            }
        }
    }

    /// Returns the limit of one pull.
    pub(super) fn limit(&self) -> Limit {
        let rows = self.settings.max_batch_rows.unwrap_or(self.budget.rows);
        Limit { rows, bytes: self.settings.max_batch_bytes }
    }

    /// Pulls rows of every source for the batch that a manual clock begins.
    pub(super) fn collect_sources(&mut self) {
        let (limit, now) = (self.limit(), self.now());
        for source in self.sources.values_mut().filter(|source| source.is_read() && !source.has_ended()) {
            let bound = source.bound(&self.settings);
            let rows_max = bound.map(|bound| source.rate.available(&bound, now).max(1.0) as usize);
            if let Some(room) = source.room(limit, rows_max) {
                source.pull(room, false, true);
            }
        }
    }

    pub(super) fn arrived(&mut self, name: &Arc<str>, ticket: u64, result: Result<Arrival>) {
        let (limit, now) = (self.limit(), self.now());
        let manual = self.clock.is_collecting();
        let Some(source) = current(&mut self.sources, name) else { return };
        source.answered = ticket.min(source.asked).max(source.answered);
        match result {
            Ok(arrival) if ticket <= source.wanted.stale => source.bring_again(vec![arrival]),
            Ok(arrival) => source.receive(arrival),
            Err(error) => source.fail(error),
        }
        if source.more != More::Now && source.hurry.is_some_and(|first| ticket >= first) {
            source.hurry = None;
        }
        let another =
            manual && source.more == More::Now && !(source.one_arrival_a_batch && source.has_rows());
        let bound = source.bound(&self.settings);
        let rows_max = bound.map_or(limit.rows, |bound| source.rate.available(&bound, now).max(1.0) as usize);
        if another && let Some(room) = source.room(limit, Some(rows_max)) {
            let bytes = limit.bytes - source.ready_bytes;
            source.pull(Limit { bytes, ..room }, false, true);
        }
    }

    /// Takes the rows of each source for an epoch with this cut.
    pub(super) fn take_sources(&mut self, cut: &Cut) -> Vec<(Arc<str>, Taken)> {
        let mut left = self.limit().rows;
        let mut taken = Vec::new();
        let held = self.held_back();
        let open = self.sources.iter_mut().filter(|(name, _)| !held.contains_key(*name));
        let mut used: Vec<_> = open.filter(|(_, source)| source.is_read()).collect();
        // Another source comes first in each epoch, so that none takes all the room for ever.
        let count = used.len().max(1);
        used.rotate_left(self.epoch.0 as usize % count);
        for (name, source) in used {
            let bound = source.bound(&self.settings);
            let table = self.tables.get_mut(name);
            let of_source = source.take(table, left, taken.is_empty(), bound, cut);
            left = left.saturating_sub(of_source.delta.num_rows());
            let journals = !of_source.journalled.is_empty();
            if journals || !of_source.spans.is_empty() || !of_source.delta.is_empty() {
                taken.push((name.clone(), of_source));
            }
        }
        taken
    }

    /// Acknowledges to reliable sources what is durable; without a journal, that is as soon as the epoch is done.
    pub(super) fn acknowledge(&mut self, taken: &[Arc<str>]) {
        let reliable =
            taken.iter().filter_map(|name| self.sources.get(name)).filter(|source| source.reliable);
        for source in reliable {
            let (commands, position) = (source.commands.clone(), source.position.clone());
            self.durability.when_durable(move |done| {
                if done.is_ok() {
                    let _ = commands.send(Command::Acknowledge(position));
                }
            });
        }
    }

    /// Asks a source's task to read a span again, for the replay of an epoch.
    pub(super) fn ask_replay(&self, name: &str, span: Span) {
        if let Some(source) = self.sources.get(name) {
            let _ = source.commands.send(Command::Replay { span, limit: self.limit() });
        }
    }
}
