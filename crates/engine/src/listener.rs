//! What a program may hear of an engine while it runs.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use millstream_delta::{Epoch, Timestamp};
use millstream_sql::{Error, Result};

/// Happenings that may wait for a slow listener; more are counted and left out.
const WAITING_MAX: usize = 4096;

/// What one epoch took in, put out and needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Its number.
    pub epoch: Epoch,
    /// Its batch time.
    pub time: Timestamp,
    /// Rows taken in, by source and table; those that gave none are left out.
    pub inputs: Vec<(Arc<str>, u64)>,
    /// Rows by which the results of queries changed; 0 until it is completed.
    pub output_rows: u64,
    /// From when it was due, or its first row was there, until it started.
    pub scheduling_delay: Duration,
    /// Intervals that came due before it and were merged into it, since too many waited.
    pub merged_intervals: u64,
    /// How long it ran; zero until it is completed.
    pub processing_time: Duration,
}

impl Batch {
    /// Rows taken in.
    pub fn input_rows(&self) -> u64 {
        self.inputs.iter().map(|(_, rows)| rows).sum()
    }

    /// From when it was due until it was completed.
    pub fn total_delay(&self) -> Duration {
        self.scheduling_delay + self.processing_time
    }
}

/// Hears what an engine does. Each listener is called on a thread of its own, so that it may take its time: the engine
/// never waits for it. What comes while 4,096 happenings wait for it is left out, and [`Listener::missed`] says how
/// many that were.
pub trait Listener: Send + 'static {
    /// A batch is due; under a fixed interval it may have to wait for those before it.
    fn batch_submitted(&mut self, _time: Timestamp) {}

    /// A batch has started.
    fn batch_started(&mut self, _batch: &Batch) {}

    /// A batch is done.
    fn batch_completed(&mut self, _batch: &Batch) {}

    /// A source is read from now on, since something depends on it.
    fn source_started(&mut self, _source: &str) {}

    /// A source could not be read; it is tried again unless it stops too.
    fn source_error(&mut self, _source: &str, _error: &str) {}

    /// A source has ended, failed for good, or nothing depends on it any more.
    fn source_stopped(&mut self, _source: &str) {}

    /// So many happenings were left out.
    fn missed(&mut self, _count: u64) {}
}

/// Something that listeners hear.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    Submitted(Timestamp),
    Started(Arc<Batch>),
    Completed(Arc<Batch>),
    SourceStarted(Arc<str>),
    SourceError(Arc<str>, String),
    SourceStopped(Arc<str>),
    Missed(u64),
}

/// The engine's end of a listener.
#[derive(Debug)]
struct Ear {
    sender: SyncSender<Happening>,
    missed: u64,
}

/// All that listen to one engine.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Vec<Ear>);

impl Listeners {
    /// Gives each listener its thread, which ends with the engine.
    pub(crate) fn start(listeners: Vec<Box<dyn Listener>>) -> Result<Listeners> {
        let mut ears = Vec::with_capacity(listeners.len());
        for listener in listeners {
            let (sender, inbox) = sync_channel(WAITING_MAX);
            std::thread::Builder::new()
                .name("millstream-listener".into())
                .spawn(move || hear(listener, &inbox))
                .map_err(|error| Error::external(format!("a listener's thread can't be started: {error}")))?;
            ears.push(Ear { sender, missed: 0 });
        }
        Ok(Listeners(ears))
    }

    /// Whether nobody listens.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells all; never waits.
    pub(crate) fn tell(&mut self, happening: &Happening) {
        self.0.retain_mut(|ear| ear.tell(happening));
    }
}

impl Ear {
    /// Whether there still is a listener.
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
            Happening::Submitted(time) => listener.batch_submitted(time),
            Happening::Started(batch) => listener.batch_started(&batch),
            Happening::Completed(batch) => listener.batch_completed(&batch),
            Happening::SourceStarted(source) => listener.source_started(&source),
            Happening::SourceError(source, error) => listener.source_error(&source, &error),
            Happening::SourceStopped(source) => listener.source_stopped(&source),
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

    /// Says what it hears once it may.
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
        // If it took the first only when others had been missed already, it hears of those before.
        let mut missed = 0;
        while missed < 99 {
            // It has room by now, or will have.
            listeners.tell(&Happening::SourceStarted("s".into()));
            let last = told.recv_timeout(Duration::from_secs(60)).unwrap();
            missed += last.strip_prefix("missed ").map_or(0, |count| count.parse::<u64>().unwrap());
        }
    }
}
