//! A running source as the loop sees it: its arrivals, its limits, and the rows that an epoch takes of it.

mod arrivals;
mod counts;
mod health;
mod intake;
mod limited;
mod position;
mod pulls;
mod replay;
mod saving;
mod wanted;

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_connect::{Arrival, Health, Limit, More, Reading, Source, SourceProperties};
use millstream_delta::{Cut, Delta, Span, Timestamp};
use millstream_sql::{Error, Result};
use tokio::sync::mpsc::unbounded_channel;

use super::bad_rows::BadRows;
use super::deltas::in_sum;
use super::rate::{Bound, RateLimit};
use super::receive::{Command, Receiving};
use super::retained::Retained;
use super::source_inserts::SourceInserts;
use super::table::Table;
use super::tasks::Tasks;
use super::watermarks::ahead::merge;
use super::watermarks::marks::Seen;
use super::watermarks::time_check::TimeCheck;
use crate::event::Event;
use crate::settings::Settings;
use arrivals::{ArrivalQueue, rows_of};
use counts::SourceCounts;
use health::SourceHealth;
use position::SourcePosition;
use pulls::Pulls;
use wanted::Wanted;
pub(super) use wanted::of_feeds;

/// A source as the loop sees it: pulls arrivals from its task, and gives them to epochs.
pub(crate) struct RunningSource {
    /// True if something depends on it.
    pub(super) used: bool,
    /// True if it is paused.
    pub(super) paused: bool,
    properties: SourceProperties,
    pulls: Pulls,
    waiting: ArrivalQueue,
    /// The event time of its rows.
    pub(super) times: TimeCheck,
    pub(super) position: SourcePosition,
    pub(super) counts: SourceCounts,
    pub(super) health: SourceHealth,
    /// The records that it could not decode.
    pub(super) bad: BadRows,
    /// The newest rows, if it has a retention.
    pub(super) retained: Option<Retained>,
    /// The target of INSERT, and the rows that statements have inserted.
    pub(super) inserts: SourceInserts,
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
        let columns = source.schema().fields().len();
        let wanted = Wanted::new(properties.prunes_columns && properties.replayable, columns);
        let running = RunningSource {
            used: false,
            paused: false,
            pulls: Pulls::new(commands, wanted),
            waiting: ArrivalQueue::new(RateLimit::new(rate_limit, properties.partitions), now),
            times: TimeCheck::new(properties.position_column),
            position: SourcePosition::default(),
            counts: SourceCounts::default(),
            health: SourceHealth::new(health),
            bad: BadRows::default(),
            retained: None,
            inserts: SourceInserts::new(source.inlet()),
            properties,
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

    /// Returns true if it ends by itself.
    pub(super) fn is_bounded(&self) -> bool {
        self.properties.bounded
    }

    /// Returns true if it can be read again.
    pub(super) fn is_replayable(&self) -> bool {
        self.properties.replayable
    }

    /// Returns the splits that exist from the beginning, if several are read at a time.
    pub(super) fn side_by_side(&self) -> Option<&[Arc<str>]> {
        match &self.properties.reading {
            Reading::InTurn => None,
            Reading::SideBySide(splits) => Some(splits),
        }
    }

    /// Returns true if epochs have taken rows of it.
    pub(crate) fn has_past(&self) -> bool {
        !self.position.is_start() || !self.inserts.taken().is_empty()
    }

    /// Returns true if epochs take its rows.
    pub(crate) fn is_read(&self) -> bool {
        self.used && !self.paused
    }

    /// Returns true if nothing more will arrive.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_failed() || self.pulls.more() == More::Never
    }

    /// Returns true if it has ended, and epochs have taken all its rows.
    pub(crate) fn is_at_end(&self) -> bool {
        self.pulls.more() == More::Never && !self.has_rows()
    }

    /// Returns true if it failed for good.
    pub(crate) fn has_failed(&self) -> bool {
        self.health.has_failed()
    }

    /// Returns the share of it that was read, if it is bounded and knows its end.
    pub(crate) fn share(&self) -> Option<f64> {
        self.health.share().filter(|_| self.properties.bounded)
    }

    /// Returns true if arrivals wait for an epoch.
    pub(crate) fn has_rows(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns the number of rows and bytes that wait for an epoch.
    pub(super) fn waiting_size(&self) -> (usize, usize) {
        (self.waiting.rows(), self.waiting.bytes())
    }

    /// Returns true if epochs have taken all rows that it had when it was last hurried.
    pub(crate) fn is_idle(&self) -> bool {
        !self.has_rows() && (!self.pulls.is_hurried() || self.has_ended())
    }

    /// Returns true if no pull is on its way. Only then may a manual batch begin.
    pub(crate) fn has_answered(&self) -> bool {
        !self.is_read() || self.has_ended() || self.pulls.are_answered()
    }

    /// Returns the rows a second that it delivered lately.
    pub(crate) fn rows_per_second(&self, now: Timestamp) -> f64 {
        self.waiting.rows_per_second(now)
    }

    /// Returns true if it delivers, or could deliver, more than epochs take.
    pub(crate) fn is_throttled(&self, limit: Limit, settings: &Settings, now: Timestamp) -> bool {
        let held_back = self.due_in(settings, now).is_some_and(|wait| !wait.is_zero());
        held_back || (self.has_rows() && !self.waiting.has_room(limit))
    }

    /// Returns how long its rows must wait for an epoch, zero if one may take some at `now`; `None` without rows.
    pub(crate) fn due_in(&self, settings: &Settings, now: Timestamp) -> Option<Duration> {
        self.waiting.due_in(settings, now)
    }

    /// Lets no further answer wait for rows, until an answer says that there are none now.
    pub(crate) fn ask_at_once(&mut self) {
        self.pulls.ask_at_once();
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
        let counts = self.pulls.answer(ticket);
        match result {
            Ok(arrival) if !counts => self.pulls.read_again(arrival.spans),
            Ok(arrival) => self.receive(arrival),
            Err(error) => self.fail(error),
        }
        self.pulls.settle(ticket);
        let is_whole = self.properties.one_arrival_a_batch && self.has_rows();
        let another = manual && self.pulls.more() == More::Now && !is_whole;
        let bound = self.waiting.bound(settings);
        let rows_max = bound.map_or(limit.rows, |bound| self.waiting.available(&bound, now));
        if another && let Some(room) = self.waiting.room(limit, Some(rows_max)) {
            let bytes = limit.bytes - self.waiting.bytes();
            self.pulls.ask(Limit { bytes, ..room });
        }
    }

    /// Records an arrival.
    fn receive(&mut self, arrival: Arrival) {
        self.health.pass();
        self.pulls.set_more(arrival.more);
        let size = rows_of(&arrival);
        if size == 0 && arrival.spans.is_empty() {
            return;
        }
        if self.properties.reliable {
            match self.position.receive(&arrival.spans, size) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.fail(error),
            }
        }
        self.waiting.push(arrival);
    }

    /// Records a failure.
    pub(super) fn fail(&mut self, error: Error) {
        self.health.fail(error);
        self.pulls.set_more(More::Later);
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
        let is_one = self.properties.one_arrival_a_batch;
        loop {
            if let Some(bound) = bound.as_ref().filter(|_| self.divides_arrivals()) {
                self.waiting.divide_first(bound);
            }
            let fits = |size: usize| first || is_one || rows + size <= rows_max;
            let Some((size, mut arrival)) = self.waiting.release(fits, bound.as_ref(), now) else { break };
            first = false;
            rows += size;
            if !self.properties.replayable {
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
            if is_one {
                break;
            }
        }
        if table.is_none_or(|table| !table.is_keyed()) {
            return Taken { delta, spans, seen, journalled };
        }
        let delta = in_sum(delta);
        self.counts.step(spans.is_empty(), delta.num_rows(), begun.elapsed());
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
        let brings_changes = self.properties.brings_changes;
        let seen = self.times.take_out(arrival, brings_changes, latest)?;
        self.counts.read((size - arrival.bad_rows.len()) as u64);
        let delta = match table {
            Some(table) if brings_changes => follow(table, arrival)?,
            Some(table) => table.follow_rows(&Delta::from_iter(std::mem::take(&mut arrival.rows)))?,
            None => Delta::from_iter(std::mem::take(&mut arrival.rows)),
        };
        self.counts.apply((size - arrival.bad_rows.len()) as u64);
        self.bad.receive(std::mem::take(&mut arrival.bad_rows));
        self.position.take(&arrival.spans);
        Ok((delta, seen))
    }

    /// Continues after the rows that were taken in before the engine was started.
    pub(super) fn go_on(&mut self) {
        self.position.go_on();
        if !self.position.is_start() {
            self.pulls.send(Command::Seek(self.position.taken().clone()));
            // Its sender may not have heard of them before the crash; rows that it sends again are skipped.
            if self.properties.reliable {
                self.pulls.send(Command::Acknowledge(self.position.taken().clone()));
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
