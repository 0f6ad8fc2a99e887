//! A sink: a task that owns it, and its position in the log of the relation that it delivers.

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
use task::{Task, Work};

use super::current;
use super::durable::Durability;
use super::initial_content::InitialContent;
use super::log::{self, Logs, Place};
use super::tasks::Tasks;
use crate::event::Event;
use crate::listener::SinkDelivery;
use crate::run::outputs::Outputs;

/// Maximum of epochs that one command hands to a sink.
const EPOCHS_MAX: usize = 64;

/// Maximum of bytes kept for a sink that has taken them and not yet reported them durable. Above it, the loop makes the
/// sink publish them.
const HELD_BYTES_MAX: usize = 256 << 20;

/// A sink as the loop sees it.
#[derive(Debug)]
pub(crate) struct RunningSink {
    /// The relation that it delivers.
    pub(crate) from: Arc<str>,
    /// The number of its first columns that it delivers; the relation may have more.
    columns: usize,
    work: UnboundedSender<Work>,
    /// The content of the relation when the sink was created: delivered first, and kept until that is durable outside.
    first: InitialContent,
    /// Its position in the relation's log; later entries are not durable outside.
    place: Place,
    /// The number of epochs from the position on, including `first`, that the task was handed.
    handed: usize,
    /// The number of these that the task has not written yet.
    at_work: usize,
    /// True if the task was told to publish everything, and has not answered.
    flushing: bool,
    /// The epoch before its position: published by this engine, or skipped.
    passed: Epoch,
    /// The newest epoch that it published.
    pub(crate) delivered: Epoch,
    pub(crate) rows: u64,
    /// The reason why it can't deliver now, and the number of attempts.
    pub(crate) failure: Option<(String, u32)>,
    pub(crate) failed: bool,
    /// The reason why it never sends anything again, in later runs either: a replay gives other rows than it was sent.
    differs: Option<String>,
    /// True if it is paused.
    pub(crate) paused: bool,
    /// True if it takes batches without rows.
    takes_empty_batches: bool,
    /// True if each row is delivered exactly once, through crashes.
    pub(crate) delivers_once: bool,
    /// The state of its target before this start, if the engine survives a crash.
    outside: Option<Outside>,
}

impl RunningSink {
    /// Starts the task of a sink that follows the log of `from` from `place` on, and delivers its first `columns`.
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
        // An earlier sink of this name had published no later epoch.
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
            first: InitialContent::default(),
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
            delivers_once: tells && outside.is_some(),
            outside,
        }
    }

    /// Continues after a restart of the engine, which has reached this epoch.
    pub(crate) fn go_on(&mut self, through: Epoch) {
        if let Some(outside) = &mut self.outside {
            outside.go_on(through);
        }
    }

    /// Records that it has published everything up to this epoch, by the journal.
    pub(crate) fn was_delivered(&mut self, through: Epoch) {
        if let Some(outside) = &mut self.outside {
            outside.was_delivered(through);
        }
    }

    /// Returns why its target can't be the output of this engine.
    fn is_of_another(&self) -> Option<String> {
        let outside = self.outside.as_ref()?;
        let (held, through) = (outside.too_much()?, outside.possible());
        let of =
            if outside.is_of_before() { "this data directory is at" } else { "the sink is created as of" };
        Some(format!(
            "it holds epoch {held} already, but {of} epoch {through}: its content is from another run; move it away \
             or deliver to another place"
        ))
    }

    /// Skips epochs that were published before the engine was started.
    fn skip(&mut self, logs: &Logs) {
        // Epochs that it was handed are durable outside, or will be reported so.
        let Some(outside) = self.outside.as_ref().filter(|_| self.handed == 0) else { return };
        let through = outside.published();
        if let Some(epoch) = self.first.drop_if(|cut| cut.epoch <= through) {
            self.passed = epoch;
        }
        let Some(log) = logs.get(&self.from) else { return };
        for (cut, _) in log.from(self.place).take_while(|(cut, _)| cut.epoch <= through) {
            (self.place, self.passed) = (self.place.after(1), cut.epoch);
        }
    }

    /// Delivers the content of its relation before it follows the log.
    pub(crate) fn begin_with(&mut self, content: InitialContent) {
        self.first = content;
    }

    /// Takes the content that a thread has read.
    pub(super) fn take_awaited(&mut self) {
        self.first.take_awaited();
    }

    /// True while a thread reads the content that it delivers first.
    pub(super) fn is_awaited(&self) -> bool {
        self.first.is_awaited()
    }

    /// Returns its position in the log of a relation that it follows.
    pub(crate) fn place_in(&self, name: &str) -> Option<Place> {
        (!self.failed && self.from.as_ref() == name).then_some(self.place)
    }

    /// The same, but after the epochs that its task has written: the start of its backlog.
    pub(crate) fn waits_at(&self, name: &str) -> Option<Place> {
        let of_log = self.handed - usize::from(self.first.rows.is_some() && self.handed > 0);
        Some(self.place_in(name)?.after(of_log.saturating_sub(self.at_work)))
    }

    /// Returns true if it takes batches of a relation that have no rows.
    pub(crate) fn wants_empty_batches_of(&self, name: &str) -> bool {
        self.takes_empty_batches && self.place_in(name).is_some()
    }

    /// Returns true if everything before a position is durable outside.
    fn holds(&self, place: Place) -> bool {
        self.first.is_taken() && self.place >= place
    }

    /// Returns true if everything is durable outside, or it failed for good, or is paused.
    fn is_done(&self, logs: &Logs) -> bool {
        self.failed || (self.paused && self.handed == 0) || self.holds(logs.end(&self.from))
    }

    /// Returns true if everything before a position is durable outside, or it can't deliver for now.
    pub(crate) fn is_past(&self, place: Place) -> bool {
        self.has_failed_often(1) || self.paused || self.holds(place)
    }

    /// Returns true if it failed for good, or at least so many times in a row.
    pub(crate) fn has_failed_often(&self, attempts_max: u32) -> bool {
        self.failed || self.failure.as_ref().is_some_and(|(_, attempts)| *attempts >= attempts_max)
    }

    /// Hands its backlog to the task, and returns the first and the last epoch of it. `flush`: a reader waits until all
    /// of that is durable outside.
    fn deliver(&mut self, logs: &Logs, durability: &Durability, flush: bool) -> Option<(Epoch, Epoch)> {
        let is_ready = self.outside.as_ref().is_none_or(Outside::may_send);
        if self.at_work > 0 || self.failed || !is_ready || self.first.is_awaited() {
            return None;
        }
        let written = if self.paused { None } else { self.write(logs, durability) };
        let log = logs.get(&self.from);
        let held = log.map_or(0, |log| log.bytes_between(self.place, self.place.after(self.handed)));
        if self.at_work == 0 && self.handed > 0 && !self.flushing && (flush || held > HELD_BYTES_MAX) {
            self.flushing = true;
            let _ = self.work.send(Work::Flush);
        }
        written
    }

    fn write(&mut self, logs: &Logs, durability: &Durability) -> Option<(Epoch, Epoch)> {
        self.skip(logs);
        let may_go = |(cut, _): &&(Cut, Delta)| durability.may_deliver(cut.epoch);
        let log = logs.get(&self.from).into_iter().flat_map(|log| log.from(self.place));
        let waiting = self.first.rows.iter().chain(log).skip(self.handed).take_while(may_go);
        let mut epochs: Vec<(Cut, Delta)> = waiting.take(EPOCHS_MAX).cloned().collect();
        if let Err(error) = log::cut_to_first(&mut epochs, self.columns) {
            self.stop_for_good(error.to_string());
            return None;
        }
        let written = (epochs.first()?.0.epoch, epochs.last()?.0.epoch);
        (self.handed, self.at_work) = (self.handed + epochs.len(), epochs.len());
        let _ = self.work.send(Work::Write(epochs));
        Some(written)
    }

    /// Returns the first and the last of the epochs that it was handed and has not delivered; without any, twice the last
    /// one that it has delivered.
    pub(super) fn undelivered(&self, logs: &Logs) -> (Epoch, Epoch) {
        let log = logs.get(&self.from).into_iter().flat_map(|log| log.from(self.place));
        let handed = self.first.rows.iter().chain(log).take(self.handed);
        let mut epochs = handed.map(|(cut, _)| cut.epoch);
        let first = epochs.next().unwrap_or(self.passed);
        (first, epochs.last().unwrap_or(first))
    }

    /// Records that the oldest epochs that it was handed are durable outside.
    fn were_published(&mut self, epochs: usize) {
        self.handed = self.handed.saturating_sub(epochs);
        let of_log = epochs - usize::from(epochs > 0 && self.first.rows.take_if(|_| epochs > 0).is_some());
        self.place = self.place.after(of_log);
    }
}

impl Outputs {
    /// Handles a report of a sink's task.
    pub(super) fn hear(&mut self, durability: &mut Durability, report: Event) {
        match report {
            Event::SinkRecovered { sink, held } => self.sink_recovered(durability, &sink, held),
            Event::Delivered { sink, published } => self.delivered(durability, &sink, published),
            Event::SinkFailed { sink, reason, attempts, lasting } => {
                self.sink_failed(&sink, reason, attempts, lasting);
            }
            _ => {}
        }
    }

    fn sink_failed(&mut self, name: &Arc<str>, reason: String, attempts: u32, lasting: bool) {
        if let Some(sink) = current(&mut self.sinks, name) {
            sink.failure = Some((reason, attempts));
            if lasting {
                sink.failed = true;
            }
        }
    }

    /// Returns true if every sink is done, has failed for good, or has failed `attempts_max` times.
    pub(super) fn sinks_are_done(&self, attempts_max: u32) -> bool {
        self.sinks.values().all(|sink| sink.is_done(&self.logs) || sink.has_failed_often(attempts_max))
    }

    /// Skips epochs that sinks published before the engine was started.
    pub(super) fn skip_delivered(&mut self) {
        self.sinks.values_mut().for_each(|sink| sink.skip(&self.logs));
    }

    /// Hands each sink its backlog. `flush`: a reader waits until all of that is durable outside.
    pub(super) fn deliver_sinks(&mut self, durability: &Durability, flush: bool) {
        for (name, sink) in &mut self.sinks {
            let Some((from, through)) = sink.deliver(&self.logs, durability, flush) else { continue };
            self.begun.push(SinkDelivery {
                sink: name.clone(),
                from,
                through,
                rows: 0,
                failure: None,
                is_lasting: false,
            });
        }
    }

    /// Stops sinks whose target holds rows that this engine can't have sent.
    pub(super) fn check_sinks(&mut self, durability: &Durability) {
        if durability.is_recovering() {
            return;
        }
        for sink in self.sinks.values_mut().filter(|sink| !sink.failed) {
            if let Some(reason) = sink.is_of_another() {
                sink.failure = Some((reason, 1));
                sink.failed = true;
            }
        }
    }

    fn delivered(&mut self, durability: &mut Durability, name: &Arc<str>, published: Published) {
        let Some(sink) = current(&mut self.sinks, name) else { return };
        let Published { took, epochs, through, rows, digests } = published;
        if took {
            sink.at_work = 0;
        }
        // If it was handed more meanwhile, it gets another flush.
        sink.flushing = false;
        sink.failure = None;
        if epochs > 0 {
            let digests = digests::after(sink.passed, digests);
            sink.were_published(epochs);
            sink.rows += rows;
            (sink.passed, sink.delivered) = (through, through);
            durability.note_delivered(name, through, digests);
        }
    }

    fn sink_recovered(&mut self, durability: &Durability, name: &Arc<str>, held: Epoch) {
        let Some(sink) = current(&mut self.sinks, name) else { return };
        if let Some(outside) = &mut sink.outside {
            outside.holds(held);
        }
        if !sink.failed {
            sink.failure = None;
        }
        self.check_sinks(durability);
    }
}
