//! A sink: a task that owns it, and its place in the log of the relation it delivers.

mod digests;
mod saving;

use std::sync::Arc;
use std::sync::mpsc::Sender;

use millstream_connect::{Delivery, Error as ConnectError, Sink};
use millstream_delta::{Cut, Delta, Epoch, consolidate};
use millstream_durable::protocol::Outside;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub(crate) use digests::Published;
pub(crate) use saving::{entry, of_entry};

use super::durable::Durability;
use super::log::{self, Logs, Place};
use super::receive::backoff;
use super::tasks::Tasks;
use super::{Loop, current};
use crate::event::Event;

/// Epochs handed to a sink at once.
const EPOCHS_MAX: usize = 64;

/// A sink as the loop sees it.
#[derive(Debug)]
pub(crate) struct RunningSink {
    /// The relation it delivers.
    pub(crate) from: Arc<str>,
    /// How many columns of it: there may be more behind them.
    columns: usize,
    work: UnboundedSender<Vec<(Cut, Delta)>>,
    /// What the relation held when the sink was made: the first that it delivers.
    first: Option<(Cut, Delta)>,
    /// Its place in the relation's log; what comes after has not been published.
    place: Place,
    /// How many epochs of the log the task is at work on, where it is.
    busy: Option<usize>,
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
        let task = serve(name.clone(), sink, inbox, tasks.events(), outside.is_some());
        tasks.spawn(task, move |error| Event::SinkFailed {
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
            busy: None,
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
        let Some(outside) = &self.outside else { return };
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
        self.failed || (self.paused && self.busy.is_none()) || self.holds(log::end(logs, &self.from))
    }

    /// Whether it holds all before a place, or can't for now.
    pub(crate) fn is_past(&self, place: Place) -> bool {
        self.has_failed_often(1) || self.paused || self.holds(place)
    }

    /// Whether it failed for good, or as often as this in a row.
    pub(crate) fn has_failed_often(&self, attempts_max: u32) -> bool {
        self.failed || self.failure.as_ref().is_some_and(|(_, attempts)| *attempts >= attempts_max)
    }

    fn deliver(&mut self, logs: &Logs, durability: &Durability) {
        let is_ready = self.outside.as_ref().is_none_or(Outside::may_send);
        if self.busy.is_some() || self.failed || self.paused || !is_ready {
            return;
        }
        self.skip(logs);
        let may_go = |(cut, _): &&(Cut, Delta)| durability.may_deliver(cut.epoch);
        if self.first.as_ref().is_some_and(|first| !may_go(&first)) {
            return;
        }
        let log = logs.get(&self.from).map(|log| log.from(self.place).take(EPOCHS_MAX).take_while(may_go));
        let mut work: Vec<(Cut, Delta)> = log.into_iter().flatten().cloned().collect();
        let epochs = work.len();
        // The content stays until it is published, so that a sink that is still at it isn't taken for done.
        work.splice(0..0, self.first.clone());
        if let Err(error) = log::cut_to_first(&mut work, self.columns) {
            return self.stop_for_good(error.to_string());
        }
        if !work.is_empty() {
            self.busy = Some(epochs);
            let _ = self.work.send(work);
        }
    }
}

/// What an epoch changes in sum, so that a row that left and came back is not shown. Rows of a type that can't be
/// compared go as they are.
pub(crate) fn in_sum(delta: Delta) -> Delta {
    match delta.chunks.first().filter(|_| !delta.is_append_only()) {
        Some(first) => consolidate(delta.clone(), &first.rows.schema()).unwrap_or(delta),
        None => delta,
    }
}

/// Writes and publishes what it is handed. What fails and may pass is tried again, for ever.
async fn serve(
    name: Arc<str>,
    mut sink: Box<dyn Sink>,
    mut inbox: UnboundedReceiver<Vec<(Cut, Delta)>>,
    events: Sender<Event>,
    recovers: bool,
) {
    if recovers && !recover(&name, sink.as_mut(), &inbox, &events).await {
        return;
    }
    while let Some(work) = inbox.recv().await {
        let Some(through) = work.last().map(|(cut, _)| cut.epoch) else { continue };
        let work: Vec<(Cut, Delta)> = work.into_iter().map(|(cut, delta)| (cut, in_sum(delta))).collect();
        let rows = work.iter().map(|(_, delta)| delta.num_rows() as u64).sum();
        let digests = if recovers { digests::of(&work) } else { Vec::new() };
        let mut written = 0;
        let mut attempts = 0;
        loop {
            match publish(sink.as_mut(), &work, &mut written, through).await {
                Ok(()) => break,
                Err(error) => {
                    attempts += 1;
                    let lasting = !matches!(error, ConnectError::External(_));
                    let event = Event::SinkFailed {
                        sink: name.clone(),
                        reason: error.to_string(),
                        attempts,
                        lasting,
                    };
                    if events.send(event).is_err() || lasting || inbox.is_closed() {
                        return;
                    }
                    tokio::time::sleep(backoff(attempts)).await;
                }
            }
        }
        let published = Published { through, rows, digests };
        if events.send(Event::Delivered { sink: name.clone(), published }).is_err() {
            return;
        }
    }
}

/// Asks a sink what it holds, until it knows. False: it never will, or the engine has gone.
async fn recover(
    name: &Arc<str>,
    sink: &mut dyn Sink,
    inbox: &UnboundedReceiver<Vec<(Cut, Delta)>>,
    events: &Sender<Event>,
) -> bool {
    let mut attempts = 0;
    loop {
        let error = match sink.recover().await {
            Ok(held) => return events.send(Event::SinkRecovered { sink: name.clone(), held }).is_ok(),
            Err(error) => error,
        };
        attempts += 1;
        let lasting = !matches!(error, ConnectError::External(_));
        let event = Event::SinkFailed { sink: name.clone(), reason: error.to_string(), attempts, lasting };
        if events.send(event).is_err() || lasting || inbox.is_closed() {
            return false;
        }
        tokio::time::sleep(backoff(attempts)).await;
    }
}

async fn publish(
    sink: &mut dyn Sink,
    work: &[(Cut, Delta)],
    written: &mut usize,
    through: Epoch,
) -> Result<(), ConnectError> {
    for (cut, delta) in &work[*written..] {
        if !delta.is_empty() || sink.takes_empty_batches() {
            sink.write(cut, delta).await?;
        }
        *written += 1;
    }
    sink.commit(through).await
}

impl Loop {
    /// Hands each sink what waits for it.
    pub(super) fn deliver_sinks(&mut self) {
        self.sinks.values_mut().for_each(|sink| sink.deliver(&self.logs, &self.durability));
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
        if let Some(sink) = current(&mut self.sinks, name) {
            let Published { through, rows, digests } = published;
            let digests = digests::after(sink.passed, digests);
            sink.place = sink.place.after(sink.busy.take().unwrap_or(0));
            sink.first = None;
            sink.rows += rows;
            (sink.passed, sink.delivered) = (through, through);
            sink.failure = None;
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
