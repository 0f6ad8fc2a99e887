//! A sink: a task that owns it, and its position in the log of the relation that it delivers.

mod backlog;
mod digests;
mod saving;
mod task;

use std::collections::VecDeque;
use std::sync::Arc;

use millstream_connect::{Delivery, Sink};
use millstream_delta::Epoch;
use millstream_durable::protocol::Outside;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use backlog::Backlog;
use digests::Published;
pub(crate) use saving::{entry, entry_of, of_entry};
use task::{Task, Work};

use super::current;
use super::durable::Durability;
use super::initial_content::InitialContent;
use super::log::{Logs, Place};
use super::task_failure::TaskFailure;
use super::tasks::Tasks;
use crate::event::Event;
use crate::listener::SinkDelivery;
use crate::run::outputs::Outputs;

/// A sink as the loop sees it: hands the changes of a relation to the sink's task, and keeps them until they are durable.
#[derive(Debug)]
pub(crate) struct RunningSink {
    /// The relation that it delivers.
    pub(crate) from: Arc<str>,
    work: UnboundedSender<Work>,
    backlog: Backlog,
    /// The newest epoch that it published.
    pub(crate) delivered: Epoch,
    pub(crate) rows: u64,
    pub(crate) failure: TaskFailure,
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

/// A report of a sink's task.
#[derive(Debug)]
pub(crate) enum SinkReport {
    /// The epoch that the sink held when it was opened.
    Recovered { held: Epoch },
    /// The sink has published changes.
    Delivered(Published),
    /// The sink failed. If `lasting`, it failed for good, else it retries.
    Failed { reason: String, attempts: u32, lasting: bool },
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
        tasks.spawn(task.serve(), move |error| Event::Sink {
            sink: name,
            report: SinkReport::Failed { reason: error.message, attempts: 1, lasting: true },
        });
        RunningSink {
            from,
            work,
            backlog: Backlog::new(columns, place, passed),
            delivered: Epoch::default(),
            rows: 0,
            failure: TaskFailure::default(),
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

    /// Records a failure. One that is final stays so.
    fn fail(&mut self, reason: String, attempts: u32, is_final: bool) {
        let is_final = is_final || self.failure.is_final();
        self.failure.fail(reason, attempts, is_final);
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
        let Some(outside) = self.outside.as_ref().filter(|_| self.backlog.is_in_hand()) else { return };
        self.backlog.skip(outside.published(), logs.get(&self.from));
    }

    /// Delivers the content of its relation before it follows the log.
    pub(crate) fn begin_with(&mut self, content: InitialContent) {
        self.backlog.begin_with(content);
    }

    /// Takes the content that a thread has read.
    pub(super) fn take_awaited(&mut self) {
        self.backlog.take_awaited();
    }

    /// True while a thread reads the content that it delivers first.
    pub(super) fn is_awaited(&self) -> bool {
        self.backlog.is_awaited()
    }

    /// Returns its position in the log of a relation that it follows.
    pub(crate) fn place_in(&self, name: &str) -> Option<Place> {
        self.follows(name).then_some(self.backlog.place())
    }

    /// The same, but after the epochs that its task has written: the start of its backlog.
    pub(crate) fn waits_at(&self, name: &str) -> Option<Place> {
        self.follows(name).then(|| self.backlog.unwritten())
    }

    fn follows(&self, name: &str) -> bool {
        !self.failure.is_final() && self.from.as_ref() == name
    }

    /// Returns true if it takes batches of a relation that have no rows.
    pub(crate) fn wants_empty_batches_of(&self, name: &str) -> bool {
        self.takes_empty_batches && self.follows(name)
    }

    /// Returns true if everything is durable outside, or it failed for good, or is paused.
    fn is_done(&self, logs: &Logs) -> bool {
        self.failure.is_final()
            || (self.paused && self.backlog.is_in_hand())
            || self.backlog.is_past(logs.end(&self.from))
    }

    /// Returns true if everything before a position is durable outside, or it can't deliver for now.
    pub(crate) fn is_past(&self, place: Place) -> bool {
        self.has_failed_often(1) || self.paused || self.backlog.is_past(place)
    }

    /// Returns true if it failed for good, or at least so many times in a row.
    pub(crate) fn has_failed_often(&self, attempts_max: u32) -> bool {
        self.failure.is_final() || self.failure.reason().is_some() && self.failure.attempts() >= attempts_max
    }

    /// Hands its backlog to the task, and returns the first and the last epoch of it. `flush`: a reader waits until all
    /// of that is durable outside.
    fn deliver(&mut self, logs: &Logs, durability: &Durability, flush: bool) -> Option<(Epoch, Epoch)> {
        let may_send = self.outside.as_ref().is_none_or(Outside::may_send);
        if !may_send || self.failure.is_final() || !self.backlog.accepts() {
            return None;
        }
        let written = if self.paused { None } else { self.write(logs, durability) };
        if self.backlog.begin_flush(logs.get(&self.from), flush) {
            let _ = self.work.send(Work::Flush);
        }
        written
    }

    fn write(&mut self, logs: &Logs, durability: &Durability) -> Option<(Epoch, Epoch)> {
        self.skip(logs);
        match self.backlog.hand_over(logs.get(&self.from), |epoch| durability.may_deliver(epoch)) {
            Ok(epochs) => {
                let written = (epochs.first()?.0.epoch, epochs.last()?.0.epoch);
                let _ = self.work.send(Work::Write(epochs));
                Some(written)
            }
            Err(error) => {
                self.stop_for_good(error.to_string());
                None
            }
        }
    }

    /// Returns the first and the last of the epochs that it was handed and has not delivered; without any, twice the last
    /// one that it has delivered.
    pub(super) fn undelivered(&self, logs: &Logs) -> (Epoch, Epoch) {
        self.backlog.undelivered(logs.get(&self.from))
    }
}

impl Outputs {
    /// Handles a report of a sink's task.
    pub(super) fn hear(&mut self, durability: &mut Durability, sink: &Arc<str>, report: SinkReport) {
        match report {
            SinkReport::Recovered { held } => self.sink_recovered(durability, sink, held),
            SinkReport::Delivered(published) => self.delivered(durability, sink, published),
            SinkReport::Failed { reason, attempts, lasting } => {
                self.sink_failed(sink, reason, attempts, lasting);
            }
        }
    }

    fn sink_failed(&mut self, name: &Arc<str>, reason: String, attempts: u32, lasting: bool) {
        if let Some(sink) = current(&mut self.sinks, name) {
            sink.fail(reason, attempts, lasting);
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
        for sink in self.sinks.values_mut().filter(|sink| !sink.failure.is_final()) {
            if let Some(reason) = sink.is_of_another() {
                sink.fail(reason, 1, true);
            }
        }
    }

    fn delivered(&mut self, durability: &mut Durability, name: &Arc<str>, published: Published) {
        let Some(sink) = current(&mut self.sinks, name) else { return };
        let Published { took, epochs, through, rows, digests } = published;
        sink.backlog.answer(took);
        sink.failure.pass();
        if epochs > 0 {
            let digests = digests::after(sink.backlog.passed(), digests);
            sink.backlog.publish(epochs, through);
            sink.rows += rows;
            sink.delivered = through;
            durability.note_delivered(name, through, digests);
        }
    }

    fn sink_recovered(&mut self, durability: &Durability, name: &Arc<str>, held: Epoch) {
        let Some(sink) = current(&mut self.sinks, name) else { return };
        if let Some(outside) = &mut sink.outside {
            outside.holds(held);
        }
        if !sink.failure.is_final() {
            sink.failure.pass();
        }
        self.check_sinks(durability);
    }
}
