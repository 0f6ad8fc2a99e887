//! A sink: a task that owns it, and its place in the log of the relation it delivers.

mod digests;
mod saving;
mod task;

use std::collections::VecDeque;
use std::sync::Arc;

use millstream_connect::{Delivery, Sink};
use millstream_delta::{Cut, Delta, Epoch};
use millstream_durable::protocol::Outside;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

pub(crate) use digests::Published;
pub(crate) use saving::{entry, entry_of, of_entry};
pub(crate) use task::in_sum;
use task::{Task, Work};

use super::durable::Durability;
use super::log::{self, Logs, Place};
use super::tasks::Tasks;
use super::{Loop, current};
use crate::event::Event;

/// Epochs handed to a sink at once.
const EPOCHS_MAX: usize = 64;

/// How many bytes of rows are kept for a sink that has taken them and doesn't name them as durable, before it is told to
/// publish them.
const HELD_BYTES_MAX: usize = 256 << 20;

/// A sink as the loop sees it.
#[derive(Debug)]
pub(crate) struct RunningSink {
    /// The relation it delivers.
    pub(crate) from: Arc<str>,
    /// How many columns of it: there may be more behind them.
    columns: usize,
    work: UnboundedSender<Work>,
    /// What the relation held when the sink was made: the first that it delivers, until that is durable outside.
    first: Option<(Cut, Delta)>,
    /// Its place in the relation's log; what comes after is not durable outside.
    place: Place,
    /// How many epochs from there on, `first` among them, the task was handed.
    handed: usize,
    /// How many of these it hasn't taken yet.
    at_work: usize,
    /// Whether it was told to publish all that it was handed, and hasn't answered.
    flushing: bool,
    /// The epoch of what comes before its place: published by this engine, or passed over.
    passed: Epoch,
    /// The newest epoch that it published.
    pub(crate) delivered: Epoch,
    pub(crate) rows: u64,
    /// Why it can't deliver now, and how often it has tried.
    pub(crate) failure: Option<(String, u32)>,
    pub(crate) failed: bool,
    /// Why nothing more is sent, in this run and in those after it: what it was sent comes out otherwise when it is made again.
    differs: Option<String>,
    /// Whether it stands still.
    pub(crate) paused: bool,
    /// Whether it wants batches without rows.
    takes_empty_batches: bool,
    /// What was published of it before, where the engine survives a crash.
    outside: Option<Outside>,
}

impl RunningSink {
    /// Starts the task of a sink that follows the log of `from` from `place` on, of which it delivers the first `columns`.
    pub(crate) fn start(
        name: Arc<str>,
        (from, columns, place): (Arc<str>, usize, Place),
        sink: Box<dyn Sink>,
        tasks: &Tasks,
        made: Option<Epoch>,
    ) -> RunningSink {
        let (work, inbox) = unbounded_channel();
        let takes_empty_batches = sink.takes_empty_batches();
        let tells = sink.delivery() == Delivery::ExactlyOnce;
        let outside = made.map(|made| Outside::of(made, tells));
        // Whoever had this name before had published no later epoch.
        let passed = Epoch(made.map_or(0, |made| made.0.saturating_sub(1)));
        let task = Task {
            name: name.clone(),
            sink,
            inbox,
            events: tasks.events(),
            recovers: outside.is_some(),
            taken: VecDeque::new(),
        };
        tasks.spawn(task.serve(), move |error| Event::SinkFailed {
            sink: name,
            reason: error.message,
            attempts: 1,
            lasting: true,
        });
        RunningSink {
            from,
            columns,
            work,
            first: None,
            place,
            handed: 0,
            at_work: 0,
            flushing: false,
            passed,
            delivered: Epoch::default(),
            rows: 0,
            failure: None,
            failed: false,
            differs: None,
            paused: false,
            takes_empty_batches,
            outside,
        }
    }

    /// The engine was started again, and has come to this epoch.
    pub(crate) fn go_on(&mut self, through: Epoch) {
        if let Some(outside) = &mut self.outside {
            outside.go_on(through);
        }
    }

    /// The journal says that it has published all up to this epoch.
    pub(crate) fn was_delivered(&mut self, through: Epoch) {
        if let Some(outside) = &mut self.outside {
            outside.was_delivered(through);
        }
    }

    /// Why what it holds can't be what this engine has put out.
    fn is_of_another(&self) -> Option<String> {
        let outside = self.outside.as_ref()?;
        let (held, through) = (outside.too_much()?, outside.possible());
        let of = if outside.is_of_before() { "this data directory has come to" } else { "it is made as of" };
        Some(format!(
            "it holds epoch {held} already, but {of} epoch {through}: what is there is of another run; move it away \
             or deliver to another place"
        ))
    }

    /// Passes over what was published before the engine was started.
    fn skip(&mut self, logs: &Logs) {
        // What it was handed it holds, or names later.
        let Some(outside) = self.outside.as_ref().filter(|_| self.handed == 0) else { return };
        let through = outside.published();
        if let Some((cut, _)) = self.first.take_if(|(cut, _)| cut.epoch <= through) {
            self.passed = cut.epoch;
        }
        let Some(log) = logs.get(&self.from) else { return };
        for (cut, _) in log.from(self.place).take_while(|(cut, _)| cut.epoch <= through) {
            (self.place, self.passed) = (self.place.after(1), cut.epoch);
        }
    }

    /// Lets it deliver what its relation held before it follows the log.
    pub(crate) fn begin_with(&mut self, cut: Cut, content: Delta) {
        self.first = Some((cut, content)).filter(|(_, content)| !content.is_empty());
    }

    /// Its place in the log of a relation, where it follows that.
    pub(crate) fn place_in(&self, name: &str) -> Option<Place> {
        (!self.failed && self.from.as_ref() == name).then_some(self.place)
    }

    /// The same, but after what it has taken: what waits for it.
    pub(crate) fn waits_at(&self, name: &str) -> Option<Place> {
        let of_log = self.handed - usize::from(self.first.is_some() && self.handed > 0);
        Some(self.place_in(name)?.after(of_log.saturating_sub(self.at_work)))
    }

    /// Whether it wants to hear of a relation's batches that have no rows.
    pub(crate) fn wants_empty_batches_of(&self, name: &str) -> bool {
        self.takes_empty_batches && self.place_in(name).is_some()
    }

    /// Whether it holds all before a place.
    fn holds(&self, place: Place) -> bool {
        self.first.is_none() && self.place >= place
    }

    /// Whether it holds everything, failed for good, or stands still.
    fn is_done(&self, logs: &Logs) -> bool {
        self.failed || (self.paused && self.handed == 0) || self.holds(log::end(logs, &self.from))
    }

    /// Whether it holds all before a place, or can't for now.
    pub(crate) fn is_past(&self, place: Place) -> bool {
        self.has_failed_often(1) || self.paused || self.holds(place)
    }

    /// Whether it failed for good, or as often as this in a row.
    pub(crate) fn has_failed_often(&self, attempts_max: u32) -> bool {
        self.failed || self.failure.as_ref().is_some_and(|(_, attempts)| *attempts >= attempts_max)
    }

    /// Hands it what waits for it; `flush`: somebody waits until all of that is durable outside.
    fn deliver(&mut self, logs: &Logs, durability: &Durability, flush: bool) {
        let is_ready = self.outside.as_ref().is_none_or(Outside::may_send);
        if self.at_work > 0 || self.failed || !is_ready {
            return;
        }
        if !self.paused {
            self.write(logs, durability);
        }
        let log = logs.get(&self.from);
        let held = log.map_or(0, |log| log.bytes_between(self.place, self.place.after(self.handed)));
        if self.at_work == 0 && self.handed > 0 && !self.flushing && (flush || held > HELD_BYTES_MAX) {
            self.flushing = true;
            let _ = self.work.send(Work::Flush);
        }
    }

    fn write(&mut self, logs: &Logs, durability: &Durability) {
        self.skip(logs);
        let may_go = |(cut, _): &&(Cut, Delta)| durability.may_deliver(cut.epoch);
        let log = logs.get(&self.from).into_iter().flat_map(|log| log.from(self.place));
        let waiting = self.first.iter().chain(log).skip(self.handed).take_while(may_go);
        let mut epochs: Vec<(Cut, Delta)> = waiting.take(EPOCHS_MAX).cloned().collect();
        if let Err(error) = log::cut_to_first(&mut epochs, self.columns) {
            return self.stop_for_good(error.to_string());
        }
        if !epochs.is_empty() {
            (self.handed, self.at_work) = (self.handed + epochs.len(), epochs.len());
            let _ = self.work.send(Work::Write(epochs));
        }
    }

    /// The oldest epochs that it was handed are durable outside.
    fn were_published(&mut self, epochs: usize) {
        self.handed = self.handed.saturating_sub(epochs);
        let of_log = epochs - usize::from(epochs > 0 && self.first.take_if(|_| epochs > 0).is_some());
        self.place = self.place.after(of_log);
    }
}

impl Loop {
    /// Hands each sink what waits for it; `flush`: somebody waits until all of that is durable outside.
    pub(super) fn deliver_sinks(&mut self, flush: bool) {
        self.sinks.values_mut().for_each(|sink| sink.deliver(&self.logs, &self.durability, flush));
    }

    /// Lets go of what sinks have published before the engine was started.
    pub(super) fn skip_delivered(&mut self) {
        self.sinks.values_mut().for_each(|sink| sink.skip(&self.logs));
    }

    pub(super) fn sink_recovered(&mut self, name: &Arc<str>, held: Epoch) {
        let Some(sink) = current(&mut self.sinks, name) else { return };
        if let Some(outside) = &mut sink.outside {
            outside.holds(held);
        }
        if !sink.failed {
            sink.failure = None;
        }
        self.check_sinks();
    }

    /// Stops sinks that hold what this engine can't have put out.
    pub(super) fn check_sinks(&mut self) {
        if self.durability.is_recovering() {
            return;
        }
        for sink in self.sinks.values_mut().filter(|sink| !sink.failed) {
            if let Some(reason) = sink.is_of_another() {
                sink.failure = Some((reason, 1));
                sink.failed = true;
            }
        }
    }

    /// Whether every sink holds everything, or has failed for good, or as often as `attempts_max`.
    pub(super) fn sinks_are_done(&self, attempts_max: u32) -> bool {
        self.sinks.values().all(|sink| sink.is_done(&self.logs) || sink.has_failed_often(attempts_max))
    }

    pub(super) fn delivered(&mut self, name: &Arc<str>, published: Published) {
        let Some(sink) = current(&mut self.sinks, name) else { return };
        let Published { took, epochs, through, rows, digests } = published;
        if took {
            sink.at_work = 0;
        }
        // One that was handed more in between is told again.
        sink.flushing = false;
        sink.failure = None;
        if epochs > 0 {
            let digests = digests::after(sink.passed, digests);
            sink.were_published(epochs);
            sink.rows += rows;
            (sink.passed, sink.delivered) = (through, through);
            self.note_delivered(name, through, digests);
        }
    }

    pub(super) fn sink_failed(&mut self, name: &Arc<str>, reason: String, attempts: u32, lasting: bool) {
        if let Some(sink) = current(&mut self.sinks, name) {
            sink.failure = Some((reason, attempts));
            if lasting {
                sink.failed = true;
            }
        }
    }
}
