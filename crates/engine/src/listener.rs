//! Notifications to a program about a running engine.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use millstream_delta::{Epoch, Timestamp, spawn_detached};
use millstream_sql::{Error, Result};

/// The maximum number of notifications that wait for a slow listener. Further ones are counted and dropped.
const WAITING_MAX: usize = 4096;

/// The input, output and timing of one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Its number.
    pub epoch: Epoch,
    /// Its batch time.
    pub time: Timestamp,
    /// Rows taken in, by source and table; those without rows are omitted.
    pub inputs: Vec<(Arc<str>, u64)>,
    /// Rows by which the results of queries changed; 0 until the batch completes.
    pub output_rows: u64,
    /// The time from when it was due, or its first row arrived, until it started.
    pub scheduling_delay: Duration,
    /// Intervals that were merged into it because too many waited.
    pub merged_intervals: u64,
    /// Its run time; zero until it completes.
    pub processing_time: Duration,
}

impl Batch {
    /// Returns the number of rows taken in.
    pub fn input_rows(&self) -> u64 {
        self.inputs.iter().map(|(_, rows)| rows).sum()
    }

    /// Returns the rows taken in by source and table, as a JSON object.
    pub fn inputs_json(&self) -> String {
        let input = |(name, rows): &(Arc<str>, u64)| format!("{}:{rows}", serde_json::Value::from(&**name));
        format!("{{{}}}", self.inputs.iter().map(input).collect::<Vec<_>>().join(","))
    }

    /// Returns the time from when it was due until it completed.
    pub fn total_delay(&self) -> Duration {
        self.scheduling_delay + self.processing_time
    }
}

/// Epochs that a sink delivers together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkDelivery {
    /// The sink.
    pub sink: Arc<str>,
    /// The first of the epochs.
    pub from: Epoch,
    /// The last of the epochs.
    pub through: Epoch,
    /// Rows delivered; 0 until it completes.
    pub rows: u64,
    /// The reason why an attempt failed. The sink tries again, unless `is_lasting`.
    pub failure: Option<String>,
    /// True if the sink has failed for good.
    pub is_lasting: bool,
}

/// The work of an operator in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorStep {
    /// The query, by the name that `EXPLAIN ANALYZE` takes.
    pub query: Arc<str>,
    /// The number of the operator, which `EXPLAIN ANALYZE` shows.
    pub node: usize,
    /// The operator's name.
    pub operator: Arc<str>,
    /// The time at which its step began; if a lagging query took several, as if they had been one that ended with the last.
    pub started: SystemTime,
    /// The duration of its steps.
    pub time: Duration,
    /// The number of rows of its input changes.
    pub rows_in: u64,
    /// The number of rows of its output changes.
    pub rows_out: u64,
}

/// The work of the operators in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchWork {
    /// The time at which the batch started.
    pub started: SystemTime,
    /// The steps of all operators, including those of lagging queries since the last batch; the longest first.
    pub steps: Vec<OperatorStep>,
}

/// A checkpoint that was written, or failed to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointWritten {
    /// The last epoch that it contains.
    pub epoch: Epoch,
    /// The time at which it began.
    pub started: SystemTime,
    /// The time for which the engine stopped to collect the changes of state.
    pub stopped: Duration,
    /// Its duration.
    pub took: Duration,
    /// The number of bytes written; 0 if it failed.
    pub bytes: u64,
    /// The reason why it failed.
    pub failure: Option<String>,
}

/// Receives notifications about an engine. Each listener runs on its own thread, and the engine never waits
/// for it. While 4,096 notifications wait, further ones are dropped, and [`Listener::missed`] receives their
/// number.
pub trait Listener: Send + 'static {
    /// The engine has recovered what its data directory has, if it has one, and begins to run.
    fn engine_started(&mut self, _time: Timestamp) {}

    /// A batch is due. Under a fixed interval it may wait for earlier batches.
    fn batch_submitted(&mut self, _time: Timestamp) {}

    /// A batch has started.
    fn batch_started(&mut self, _batch: &Batch) {}

    /// A batch has completed.
    fn batch_completed(&mut self, _batch: &Batch) {}

    /// Returns true if [`Listener::batch_operators`] is to be called. The engine collects what that needs only then.
    fn wants_operators(&self) -> bool {
        false
    }

    /// The work of all operators in a batch that has completed.
    fn batch_operators(&mut self, _batch: &Batch, _work: &BatchWork) {}

    /// A checkpoint is durable, or has failed; the engine will try again.
    fn checkpoint_completed(&mut self, _checkpoint: &CheckpointWritten) {}

    /// The engine starts to read a source, since something depends on it.
    fn source_started(&mut self, _source: &str) {}

    /// A read of a source failed. The engine retries unless `source_stopped` follows.
    fn source_error(&mut self, _source: &str, _error: &str) {}

    /// A source has ended, failed for good, or nothing depends on it any more.
    fn source_stopped(&mut self, _source: &str) {}

    /// Epochs that change the relation of a sink are handed to it. A sink into a table is part of the batch instead.
    fn sink_started(&mut self, _delivery: &SinkDelivery) {}

    /// All rows of epochs are durable at the target of a sink, or an attempt has failed. A sink that writes large pieces
    /// completes later and for more epochs than it was handed at a time.
    fn sink_completed(&mut self, _delivery: &SinkDelivery) {}

    /// This many notifications were dropped.
    fn missed(&mut self, _count: u64) {}
}

/// A notification.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    EngineStarted(Timestamp),
    Submitted(Timestamp),
    Started(Arc<Batch>),
    Completed(Arc<Batch>),
    Operators(Arc<Batch>, Arc<BatchWork>),
    Checkpoint(CheckpointWritten),
    SourceStarted(Arc<str>),
    SourceError(Arc<str>, String),
    SourceStopped(Arc<str>),
    SinkStarted(SinkDelivery),
    SinkCompleted(SinkDelivery),
    Missed(u64),
}

/// The engine's side of a listener.
#[derive(Debug)]
struct Ear {
    sender: SyncSender<Happening>,
    missed: u64,
}

/// All listeners of one engine.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    ears: Vec<Ear>,
    /// True if they have been notified of the start of the engine.
    is_started: bool,
    /// True if one wants the work of operators.
    pub(crate) want_operators: bool,
}

impl Listeners {
    /// Starts a thread for each listener. The threads end with the engine.
    pub(crate) fn start(listeners: Vec<Box<dyn Listener>>) -> Result<Listeners> {
        let want_operators = listeners.iter().any(|listener| listener.wants_operators());
        let mut ears = Vec::with_capacity(listeners.len());
        for listener in listeners {
            let (sender, inbox) = sync_channel(WAITING_MAX);
            let thread = std::thread::Builder::new().name("millstream-listener".into());
            spawn_detached(thread, move || hear(listener, &inbox))
                .map_err(|error| Error::external(format!("a listener's thread can't be started: {error}")))?;
            ears.push(Ear { sender, missed: 0 });
        }
        Ok(Listeners { ears, is_started: false, want_operators })
    }

    /// Returns true if there is no listener.
    pub(crate) fn is_empty(&self) -> bool {
        self.ears.is_empty()
    }

    /// Notifies all listeners; never blocks.
    pub(crate) fn tell(&mut self, happening: &Happening) {
        self.ears.retain_mut(|ear| ear.tell(happening));
    }

    /// Notifies all listeners, once, that the engine runs.
    pub(crate) fn tell_start(&mut self, now: impl FnOnce() -> Timestamp) {
        if !mem::replace(&mut self.is_started, true) && !self.is_empty() {
            self.tell(&Happening::EngineStarted(now()));
        }
    }
}

impl Ear {
    /// Returns true if the listener still exists.
    fn tell(&mut self, happening: &Happening) -> bool {
        if self.missed > 0 {
            match self.sender.try_send(Happening::Missed(self.missed)) {
                Ok(()) => self.missed = 0,
                Err(TrySendError::Full(_)) => {
                    self.missed += 1;
                    return true;
                }
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        match self.sender.try_send(happening.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.missed += 1;
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

fn hear(mut listener: Box<dyn Listener>, inbox: &Receiver<Happening>) {
    for happening in inbox {
        match happening {
            Happening::EngineStarted(time) => listener.engine_started(time),
            Happening::Submitted(time) => listener.batch_submitted(time),
            Happening::Started(batch) => listener.batch_started(&batch),
            Happening::Completed(batch) => listener.batch_completed(&batch),
            Happening::Operators(batch, work) => listener.batch_operators(&batch, &work),
            Happening::Checkpoint(checkpoint) => listener.checkpoint_completed(&checkpoint),
            Happening::SourceStarted(source) => listener.source_started(&source),
            Happening::SourceError(source, error) => listener.source_error(&source, &error),
            Happening::SourceStopped(source) => listener.source_stopped(&source),
            Happening::SinkStarted(delivery) => listener.sink_started(&delivery),
            Happening::SinkCompleted(delivery) => listener.sink_completed(&delivery),
            Happening::Missed(count) => listener.missed(count),
        }
    }
}

impl fmt::Debug for dyn Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// A listener that blocks until `may` has a message or is closed.
    struct Slow {
        may: Receiver<()>,
        heard: Sender<String>,
    }

    impl Listener for Slow {
        fn batch_submitted(&mut self, time: Timestamp) {
            let _ = self.may.recv();
            let _ = self.heard.send(format!("submitted {}", time.0));
        }

        fn missed(&mut self, count: u64) {
            let _ = self.heard.send(format!("missed {count}"));
        }
    }

    #[test]
    fn a_slow_listener_hears_how_much_it_missed() {
        let ((go, may), (heard, told)) = (channel(), channel());
        let mut listeners = Listeners::start(vec![Box::new(Slow { may, heard })]).unwrap();
        for time in 0..WAITING_MAX as i64 + 100 {
            listeners.tell(&Happening::Submitted(Timestamp(time)));
        }
        drop(go);
        assert_eq!(told.recv().unwrap(), "submitted 0");
        // If the listener received the first one only after others were dropped, `missed` includes those.
        let mut missed = 0;
        while missed < 99 {
            // The listener has room by now, or will have.
            listeners.tell(&Happening::SourceStarted("s".into()));
            let last = told.recv_timeout(Duration::from_secs(60)).unwrap();
            missed += last.strip_prefix("missed ").map_or(0, |count| count.parse::<u64>().unwrap());
        }
    }
}
