//! The task that owns a sink: it writes epochs, and reports to the loop what is durable outside.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use millstream_connect::{Error as ConnectError, Sink};
use millstream_delta::{Cut, Delta, Digest, Epoch};
use tokio::sync::mpsc::UnboundedReceiver;

use super::SinkReport;
use super::digests::Published;
use crate::event::Event;
use crate::run::deltas::in_sum;
use crate::run::receive::backoff;

/// A command for a sink's task.
#[derive(Debug)]
pub(super) enum Work {
    /// Write these epochs, and publish as the sink sees fit.
    Write(Vec<(Cut, Delta)>),
    /// Publish everything.
    Flush,
}

/// An epoch that the sink has taken and not reported durable yet.
pub(super) struct Taken {
    epoch: Epoch,
    rows: u64,
    digest: Option<Digest>,
}

/// A sink's task.
pub(super) struct Task {
    pub(super) name: Arc<str>,
    pub(super) sink: Box<dyn Sink>,
    pub(super) inbox: UnboundedReceiver<Work>,
    pub(super) events: Sender<Event>,
    /// True if the engine survives crashes.
    pub(super) recovers: bool,
    /// The epochs that it has taken and not reported durable, oldest first.
    pub(super) taken: VecDeque<Taken>,
}

/// The sink has failed for good, or the engine has ended.
struct Ended;

impl Task {
    /// Writes and publishes epochs. It retries failures that may pass without limit.
    pub(super) async fn serve(mut self) {
        if self.recovers && self.recover().await.is_err() {
            return;
        }
        loop {
            let done = tokio::select! {
                work = self.inbox.recv() => match work {
                    None => return,
                    Some(Work::Write(epochs)) => self.write(epochs).await,
                    Some(Work::Flush) => self.publish(&[], true).await,
                },
                () = until(self.sink.commit_due()) => self.publish(&[], false).await,
            };
            if done.is_err() {
                return;
            }
        }
    }

    /// Asks the sink for its newest published epoch, until it answers.
    async fn recover(&mut self) -> Result<(), Ended> {
        let mut attempts = 0;
        loop {
            match self.sink.recover().await {
                Ok(held) => return self.say(SinkReport::Recovered { held }),
                Err(error) => self.failed(&error, &mut attempts).await?,
            }
        }
    }

    /// Hands epochs to the sink.
    async fn write(&mut self, epochs: Vec<(Cut, Delta)>) -> Result<(), Ended> {
        let epochs: Vec<(Cut, Delta)> = epochs.into_iter().map(|(cut, delta)| (cut, in_sum(delta))).collect();
        for (cut, delta) in &epochs {
            let digest = if self.recovers { Digest::of(delta).ok() } else { None };
            self.taken.push_back(Taken { epoch: cut.epoch, rows: delta.num_rows() as u64, digest });
        }
        self.publish(&epochs, false).await
    }

    /// Writes epochs, publishes, and reports to the loop which of the taken epochs are durable outside.
    async fn publish(&mut self, epochs: &[(Cut, Delta)], flush: bool) -> Result<(), Ended> {
        let (mut written, mut attempts) = (0, 0);
        let durable = loop {
            match self.try_to_publish(&epochs[written..], &mut written, flush).await {
                Ok(durable) => break durable,
                Err(error) => self.failed(&error, &mut attempts).await?,
            }
        };
        let mut published = Published { took: !epochs.is_empty(), ..Published::default() };
        while let Some(taken) = self.taken.pop_front_if(|taken| taken.epoch <= durable) {
            published.epochs += 1;
            published.rows += taken.rows;
            published.through = taken.epoch;
            published.digests.push((taken.epoch, taken.digest));
        }
        self.say(SinkReport::Delivered(published))
    }

    async fn try_to_publish(
        &mut self,
        epochs: &[(Cut, Delta)],
        written: &mut usize,
        flush: bool,
    ) -> Result<Epoch, ConnectError> {
        for (cut, delta) in epochs {
            if !delta.is_empty() || self.sink.takes_empty_batches() {
                self.sink.write(cut, delta).await?;
            }
            *written += 1;
        }
        let Some(through) = self.taken.back().map(|taken| taken.epoch) else { return Ok(Epoch::default()) };
        if !flush {
            return self.sink.commit(through).await;
        }
        let durable = self.sink.flush(through).await?;
        if durable < through {
            return Err(ConnectError::Bug(format!(
                "sink '{}' was asked to publish all up to epoch {through}, but says that it holds {durable}",
                self.name
            )));
        }
        Ok(durable)
    }

    /// Reports a failure to the loop, and waits before the next attempt.
    async fn failed(&mut self, error: &ConnectError, attempts: &mut u32) -> Result<(), Ended> {
        *attempts += 1;
        let lasting = !matches!(error, ConnectError::External(_));
        let reason = error.to_string();
        self.say(SinkReport::Failed { reason, attempts: *attempts, lasting })?;
        if lasting || self.inbox.is_closed() {
            return Err(Ended);
        }
        tokio::time::sleep(backoff(*attempts)).await;
        Ok(())
    }

    fn say(&self, report: SinkReport) -> Result<(), Ended> {
        self.events.send(Event::Sink { sink: self.name.clone(), report }).map_err(|_| Ended)
    }
}

/// Waits until a time; without one, for ever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
