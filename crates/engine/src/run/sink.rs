//! A sink: a task that owns it, and its place in the log of the relation it delivers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use millstream_connect::{Error as ConnectError, Sink};
use millstream_delta::{Cut, Delta, Epoch, consolidate};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Loop;
use super::source::backoff;
use crate::event::Event;

/// Epochs handed to a sink at once.
const EPOCHS_MAX: usize = 64;

/// Bytes that may wait for a sink before no more rows are taken of sources.
const BACKLOG_BYTES_MAX: usize = 64 << 20;

/// Epochs that may wait for a sink before no more rows are taken of sources.
const BACKLOG_EPOCHS_MAX: usize = 1024;

/// A relation's deltas by epoch, kept back to where a reader stands.
#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: VecDeque<(Cut, Delta)>,
    bytes: usize,
}

impl Log {
    /// Adds an epoch.
    pub(crate) fn push(&mut self, cut: Cut, delta: Delta) {
        self.bytes += delta.memory_bytes();
        self.entries.push_back((cut, delta));
    }

    /// Takes the oldest epoch away.
    pub(crate) fn pop(&mut self) -> Option<(Cut, Delta)> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.1.memory_bytes();
        Some(entry)
    }
}

/// A sink as the loop sees it.
#[derive(Debug)]
pub(crate) struct RunningSink {
    /// The relation it delivers.
    pub(crate) from: Arc<str>,
    work: UnboundedSender<Vec<(Cut, Delta)>>,
    log: Log,
    /// How many epochs the task is at work on: the oldest of the log.
    busy: usize,
    /// The newest epoch that it published.
    pub(crate) delivered: Epoch,
    pub(crate) rows: u64,
    /// Why it can't deliver now, and how often it has tried.
    pub(crate) failure: Option<(String, u32)>,
    pub(crate) failed: bool,
}

impl RunningSink {
    /// Starts the task of a sink.
    pub(crate) fn start(
        name: Arc<str>,
        from: Arc<str>,
        sink: Box<dyn Sink>,
        events: Sender<Event>,
        handle: &Handle,
    ) -> RunningSink {
        let (work, inbox) = unbounded_channel();
        handle.spawn(serve(name, sink, inbox, events));
        RunningSink {
            from,
            work,
            log: Log::default(),
            busy: 0,
            delivered: Epoch::default(),
            rows: 0,
            failure: None,
            failed: false,
        }
    }

    /// Lets it deliver an epoch of its relation: what changed in sum, so that a row that left and came back is not
    /// shown. Rows of a type that can't be compared go as they are.
    pub(crate) fn push(&mut self, cut: &Cut, delta: &Delta) {
        let mut delta = delta.clone();
        if let Some(first) = delta.chunks.first().filter(|_| !delta.is_append_only()) {
            delta = consolidate(delta.clone(), &first.rows.schema()).unwrap_or(delta);
        }
        if !delta.is_empty() && !self.failed {
            self.log.push(cut.clone(), delta);
        }
    }

    /// Whether it holds everything.
    fn is_done(&self) -> bool {
        self.failed || self.log.entries.is_empty()
    }

    fn deliver(&mut self) {
        if self.busy > 0 || self.failed {
            return;
        }
        let work: Vec<(Cut, Delta)> = self.log.entries.iter().take(EPOCHS_MAX).cloned().collect();
        if !work.is_empty() {
            self.busy = work.len();
            let _ = self.work.send(work);
        }
    }
}

/// Writes and publishes what it is handed. What fails and may pass is tried again, for ever.
async fn serve(
    name: Arc<str>,
    mut sink: Box<dyn Sink>,
    mut inbox: UnboundedReceiver<Vec<(Cut, Delta)>>,
    events: Sender<Event>,
) {
    while let Some(work) = inbox.recv().await {
        let Some(through) = work.last().map(|(cut, _)| cut.epoch) else { continue };
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
        if events.send(Event::Delivered { sink: name.clone(), through }).is_err() {
            return;
        }
    }
}

async fn publish(
    sink: &mut dyn Sink,
    work: &[(Cut, Delta)],
    written: &mut usize,
    through: Epoch,
) -> Result<(), ConnectError> {
    for (cut, delta) in &work[*written..] {
        sink.write(cut, delta).await?;
        *written += 1;
    }
    sink.commit(through).await
}

impl Loop {
    /// Hands each sink what waits for it.
    pub(super) fn deliver_sinks(&mut self) {
        self.sinks.values_mut().for_each(RunningSink::deliver);
    }

    /// Whether so much waits for some sink, or for a query that reads the past, that no more rows may be taken of
    /// sources.
    pub(super) fn backlog_is_full(&self) -> bool {
        let sink_is_behind = |sink: &RunningSink| {
            sink.log.bytes > BACKLOG_BYTES_MAX || sink.log.entries.len() > BACKLOG_EPOCHS_MAX
        };
        self.sinks.values().any(sink_is_behind)
            || self.queries.iter().any(|query| query.backlog_bytes() > BACKLOG_BYTES_MAX)
    }

    /// Whether every sink holds everything, or has failed for good, or as often as `attempts_max`.
    pub(super) fn sinks_are_done(&self, attempts_max: u32) -> bool {
        self.sinks.values().all(|sink| {
            sink.is_done() || sink.failure.as_ref().is_some_and(|(_, attempts)| *attempts >= attempts_max)
        })
    }

    pub(super) fn delivered(&mut self, name: &str, through: Epoch) {
        if let Some(sink) = self.sinks.get_mut(name) {
            for _ in 0..std::mem::take(&mut sink.busy) {
                let delivered = sink.log.pop();
                sink.rows += delivered.map_or(0, |(_, delta)| delta.num_rows() as u64);
            }
            sink.delivered = through;
            sink.failure = None;
        }
    }

    pub(super) fn sink_failed(&mut self, name: &str, reason: String, attempts: u32, lasting: bool) {
        if let Some(sink) = self.sinks.get_mut(name) {
            sink.failure = Some((reason, attempts));
            if lasting {
                sink.failed = true;
                sink.log = Log::default();
            }
        }
    }
}
