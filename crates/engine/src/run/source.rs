//! A running source as the loop sees it: its arrivals, its limits, and the rows that an epoch takes of it.

mod intake;
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
use super::rate::{Bound, Rate};
use super::receive::{Command, Receiving};
use super::retained::Retained;
use super::source_inserts::SourceInserts;
use super::table::Table;
use super::tasks::Tasks;
use super::watermarks::ahead::{Ahead, merge};
use super::watermarks::column::TimeColumn;
use super::watermarks::marks::Seen;
use crate::event::Event;
use crate::settings::Settings;
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
    pub(crate) inserts: SourceInserts,
    /// True if it ends by itself.
    pub(crate) bounded: bool,
    /// True if it can be read again.
    pub(crate) replayable: bool,
    /// True if its rows are changes by key.
    brings_changes: bool,
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
    pub(super) health: Health,
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
            inserts: SourceInserts::default(),
            bounded: properties.bounded,
            replayable: properties.replayable,
            brings_changes: properties.brings_changes,
            reliable: properties.reliable,
            one_arrival_a_batch: properties.one_arrival_a_batch,
            partitions: properties.partitions,
            side_by_side: match properties.reading {
                Reading::InTurn => None,
                Reading::SideBySide(splits) => Some(splits),
            },
            time: None,
            ahead: Ahead::new(properties.position_column),
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
        !self.position.splits.is_empty() || !self.inserts.taken().is_empty()
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

    /// Handles the answer to a pull. `manual`: a manual clock collects the rows of a batch.
    pub(super) fn answer(
        &mut self,
        ticket: u64,
        result: Result<Arrival>,
        manual: bool,
        limit: Limit,
        settings: &Settings,
        now: Timestamp,
    ) {
        self.answered = ticket.min(self.asked).max(self.answered);
        match result {
            Ok(arrival) if ticket <= self.wanted.stale => self.bring_again(vec![arrival]),
            Ok(arrival) => self.receive(arrival),
            Err(error) => self.fail(error),
        }
        if self.more != More::Now && self.hurry.is_some_and(|first| ticket >= first) {
            self.hurry = None;
        }
        let another = manual && self.more == More::Now && !(self.one_arrival_a_batch && self.has_rows());
        let bound = self.bound(settings);
        let rows_max = bound.map_or(limit.rows, |bound| self.rate.available(&bound, now).max(1.0) as usize);
        if another && let Some(room) = self.room(limit, Some(rows_max)) {
            let bytes = limit.bytes - self.ready_bytes;
            self.pull(Limit { bytes, ..room }, false, true);
        }
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
        if table.is_none_or(|table| !table.is_keyed()) {
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
        let seen = self.ahead.take_out(arrival, self.time.as_ref(), self.brings_changes, latest)?;
        self.upserted.rows_in += (size - arrival.bad_rows.len()) as u64;
        let delta = match table {
            Some(table) if self.brings_changes => follow(table, arrival)?,
            Some(table) => table.follow_rows(&Delta::from_iter(std::mem::take(&mut arrival.rows)))?,
            None => Delta::from_iter(std::mem::take(&mut arrival.rows)),
        };
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

/// Returns the changes that an arrival of a change feed makes. Deletions of missing rows become bad rows of the arrival.
fn follow(table: &mut Table, arrival: &mut Arrival) -> Result<Delta> {
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
