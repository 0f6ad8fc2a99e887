//! The task that owns a source: it pulls when the loop asks, and retries failures.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use millstream_connect::{Arrival, Error as ConnectError, Jump, Limit, More, Source};
use millstream_delta::{Position, Span};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::error;
use crate::event::{Event, Reply};
use crate::source_history::rest_of;

/// Bounds of the pause between attempts of a failing source or sink.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A command of the loop to a source's task. Each pull gets exactly one arrival.
#[derive(Debug)]
pub(crate) enum Command {
    /// Pull rows. If there are none and `wait` is set, wait for rows or the next pull. After a failure the task pauses
    /// first, unless the answer is awaited: `hurry`.
    Pull { ticket: u64, limit: Limit, wait: bool, hurry: bool },
    /// Read a span again.
    Replay { span: Span, limit: Limit },
    /// Continue at another place.
    Jump { to: Jump, reply: Reply<usize> },
    /// Read these columns from now on.
    Want(Vec<bool>),
    /// Read these spans again, before any new rows.
    Again(Vec<Span>),
    /// Continue after this position; sent before the first pull.
    Seek(Position),
    /// Everything up to this position is durable.
    Acknowledge(Position),
}

/// Returns the pause after a number of attempts; shared with sinks.
pub(super) fn backoff(attempts: u32) -> Duration {
    RETRY_MIN.saturating_mul(1 << attempts.min(8)).min(RETRY_MAX)
}

/// A source's task.
pub(super) struct Receiving {
    name: Arc<str>,
    source: Box<dyn Source>,
    inbox: UnboundedReceiver<Command>,
    events: Sender<Event>,
    /// A command that arrived while another ran.
    next: Option<Command>,
    /// The spans to read again.
    again: VecDeque<Span>,
    /// The number of failures in a row.
    attempts: u32,
}

impl Receiving {
    /// Creates a task, not started.
    pub(super) fn new(
        name: Arc<str>,
        source: Box<dyn Source>,
        inbox: UnboundedReceiver<Command>,
        events: Sender<Event>,
    ) -> Receiving {
        Receiving { name, source, inbox, events, next: None, again: VecDeque::new(), attempts: 0 }
    }

    /// Executes commands until the loop drops its end.
    pub(super) async fn serve(mut self) {
        loop {
            let command = match self.next.take() {
                Some(command) => Some(command),
                None => self.inbox.recv().await,
            };
            let event = match command {
                None => return,
                Some(Command::Pull { ticket, limit, wait, hurry }) => {
                    if !hurry {
                        self.pause().await;
                    }
                    let result = self.pull(limit, wait).await;
                    self.attempts = if result.is_ok() { 0 } else { self.attempts.saturating_add(1) };
                    let result = result.map_err(error::connect);
                    Event::Arrived { source: self.name.clone(), ticket, result, at: Instant::now() }
                }
                Some(Command::Replay { span, limit }) => {
                    let result = self.source.replay(&span, limit).await.map_err(error::connect);
                    Event::Replayed { source: self.name.clone(), result }
                }
                Some(Command::Jump { to, reply }) => {
                    let result = self.source.jump(&to).await.map_err(error::connect);
                    Event::Jumped { source: self.name.clone(), result, reply }
                }
                Some(Command::Acknowledge(through)) => {
                    self.acknowledge(&through).await;
                    continue;
                }
                Some(Command::Again(spans)) => {
                    spans.into_iter().for_each(|span| self.queue_again(span));
                    continue;
                }
                Some(Command::Want(columns)) => match self.source.want(&columns).await {
                    Ok(()) => continue,
                    Err(error) => self.failed(error),
                },
                Some(Command::Seek(after)) => match self.source.seek(&after).await {
                    Ok(()) => continue,
                    Err(error) => self.failed(error),
                },
            };
            if self.events.send(event).is_err() {
                return;
            }
        }
    }

    /// Queues a span to be read again, in the order of its split: rests of other spans may follow it there.
    fn queue_again(&mut self, span: Span) {
        let behind = |queued: &Span| queued.split == span.split && queued.from > span.from;
        let place = self.again.iter().position(behind).unwrap_or(self.again.len());
        self.again.insert(place, span);
    }

    /// Returns the event for a failure outside a pull.
    fn failed(&self, error: ConnectError) -> Event {
        let result = Err(error::connect(error));
        Event::Arrived { source: self.name.clone(), ticket: 0, result, at: Instant::now() }
    }

    /// Pauses after a failure, until another command arrives.
    async fn pause(&mut self) {
        if self.attempts == 0 {
            return;
        }
        let mut pause = std::pin::pin!(tokio::time::sleep(backoff(self.attempts - 1)));
        while self.next.is_none() {
            tokio::select! {
                () = &mut pause => return,
                command = self.inbox.recv() => match command {
                    Some(Command::Acknowledge(through)) => self.acknowledge(&through).await,
                    Some(command) => self.next = Some(command),
                    None => return,
                }
            }
        }
    }

    /// Performs one pull: returns the rows that are there, or waits for rows or the next command.
    async fn pull(&mut self, limit: Limit, wait: bool) -> Result<Arrival, ConnectError> {
        if let Some(span) = self.again.front() {
            let arrival = self.source.replay(span, limit).await?;
            match rest_of(span, &arrival) {
                Some(rest) => self.again[0] = rest,
                None => drop(self.again.pop_front()),
            }
            return Ok(Arrival { more: More::Now, ..arrival });
        }
        loop {
            let arrival = self.source.next(limit).await?;
            let empty = arrival.spans.is_empty() && arrival.rows.is_empty() && arrival.bad_rows.is_empty();
            if !wait || !empty || arrival.more == More::Never || self.next.is_some() {
                return Ok(arrival);
            }
            if arrival.more == More::Now {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                biased;
                command = self.inbox.recv() => match command {
                    Some(Command::Acknowledge(through)) => self.acknowledge(&through).await,
                    command => {
                        self.next = command;
                        return Ok(arrival);
                    }
                },
                ready = self.source.ready() => ready?,
            }
        }
    }

    /// Acknowledges to the sender. It sends again what it has no acknowledgement for, so a failure is only logged.
    async fn acknowledge(&mut self, through: &Position) {
        if let Err(error) = self.source.acknowledge(through).await {
            tracing::warn!(source = %self.name, %error, "an acknowledgement failed");
        }
    }
}
