//! A source in use: a task that owns it, and what the loop knows of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use arrow::array::{BinaryViewArray, Int64Array, RecordBatch, StringViewArray};
use millstream_connect::{Arrival, BadRow, Error as ConnectError, Limit, More, Source};
use millstream_delta::{Delta, Position, Span};
use millstream_sql::Result;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Loop, current};
use crate::catalog::bad_rows_schema;
use crate::error;
use crate::event::Event;
use crate::settings::ClockKind;

/// Bad rows and their bytes kept a source; older ones are only counted.
const BAD_ROWS_MAX: usize = 10_000;
const BAD_ROW_BYTES_MAX: usize = 16 << 20;

/// Pauses between attempts of a failing source.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What the loop asks of a source's task. Each pull is answered by exactly one arrival.
#[derive(Debug)]
enum Command {
    /// Bring what is there; when nothing is, wait for it, or until the next command.
    Pull { ticket: u64, limit: Limit, wait: bool },
    /// Read a span again.
    Replay { span: Span, limit: Limit },
}

/// A source as the loop sees it.
#[derive(Debug)]
pub(crate) struct RunningSource {
    commands: UnboundedSender<Command>,
    /// Whether something depends on it.
    pub(crate) used: bool,
    /// Whether it ends by itself.
    pub(crate) bounded: bool,
    /// Whether it can be read again.
    pub(crate) replayable: bool,
    /// How far it was taken in.
    pub(crate) position: Position,
    /// Rows taken in.
    pub(crate) rows: u64,
    /// Records that could not be decoded.
    pub(crate) bad: BadRows,
    /// Why it can't be read, now or for good.
    pub(crate) failure: Option<String>,
    failed: bool,
    ready: VecDeque<Arrival>,
    ready_rows: usize,
    ready_bytes: usize,
    more: More,
    /// The number of the newest pull and of the newest answer.
    asked: u64,
    answered: u64,
    /// The first pull whose answer may not wait for rows: someone waits to hear that there is nothing now.
    hurry: Option<u64>,
}

impl RunningSource {
    /// Starts the task of a source.
    pub(crate) fn start(
        name: Arc<str>,
        source: Box<dyn Source>,
        events: Sender<Event>,
        handle: &Handle,
    ) -> RunningSource {
        let (commands, inbox) = unbounded_channel();
        let (bounded, replayable) = (source.bounded(), source.replayable());
        let task = handle.spawn(serve(name.clone(), source, inbox, events.clone()));
        watch(handle, task, events, move |error| Event::Arrived {
            source: name,
            ticket: u64::MAX,
            result: Err(error),
        });
        RunningSource {
            commands,
            used: false,
            bounded,
            replayable,
            position: Position::default(),
            rows: 0,
            bad: BadRows::default(),
            failure: None,
            failed: false,
            ready: VecDeque::new(),
            ready_rows: 0,
            ready_bytes: 0,
            more: More::Now,
            asked: 0,
            answered: 0,
            hurry: None,
        }
    }

    /// Whether it will bring nothing more.
    pub(crate) fn has_ended(&self) -> bool {
        self.failed || self.more == More::Never
    }

    /// Whether another pull may be made beside what waits.
    fn has_room(&self, limit: Limit) -> bool {
        self.ready_rows < limit.rows && self.ready_bytes < limit.bytes
    }

    /// Whether it failed for good.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether something waits to be taken in.
    pub(crate) fn has_rows(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether all that it had when it was last hurried has been taken in.
    pub(crate) fn is_idle(&self) -> bool {
        !self.has_rows() && (self.hurry.is_none() || self.has_ended())
    }

    /// Whether no pull is on its way. Only then may a manual batch begin.
    pub(crate) fn has_answered(&self) -> bool {
        !self.used || self.has_ended() || self.answered == self.asked
    }

    fn pull(&mut self, limit: Limit, wait: bool) {
        self.asked += 1;
        let _ = self.commands.send(Command::Pull { ticket: self.asked, limit, wait });
    }

    /// Lets no answer wait for rows until it has said that there is nothing now.
    pub(crate) fn ask_at_once(&mut self) {
        self.hurry = Some(self.asked + 1);
    }

    /// The arrivals that one epoch takes, as a delta and the spans that were read. The `first` one of an epoch is
    /// taken whatever its size, so that the epoch takes something.
    fn take(&mut self, rows_max: usize, mut first: bool) -> (Delta, Vec<Span>) {
        let (mut delta, mut spans, mut rows) = (Delta::default(), Vec::new(), 0);
        while let Some(arrival) = self.ready.front() {
            let size = rows_of(arrival);
            if !first && rows + size > rows_max {
                break;
            }
            first = false;
            rows += size;
            let Some(arrival) = self.ready.pop_front() else { break };
            self.ready_rows -= size;
            self.ready_bytes -= bytes_of(&arrival);
            self.rows += (size - arrival.bad_rows.len()) as u64;
            self.bad.add(arrival.bad_rows);
            delta.append(Delta::from_iter(arrival.rows));
            arrival.spans.iter().for_each(|span| self.position.advance(span));
            merge_spans(&mut spans, arrival.spans);
        }
        (delta, spans)
    }
}

/// How many records an arrival holds, good and bad.
fn rows_of(arrival: &Arrival) -> usize {
    arrival.rows.iter().map(RecordBatch::num_rows).sum::<usize>() + arrival.bad_rows.len()
}

fn bytes_of(arrival: &Arrival) -> usize {
    let bad: usize = arrival.bad_rows.iter().map(|row| row.bytes.len()).sum();
    arrival.rows.iter().map(RecordBatch::get_array_memory_size).sum::<usize>() + bad
}

/// Adds spans, joining each to the last one where it goes on from there.
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

/// Records of one source that could not be decoded: all are counted, the newest are kept.
#[derive(Debug, Default)]
pub(crate) struct BadRows {
    count: u64,
    kept: VecDeque<BadRow>,
    kept_bytes: usize,
}

impl BadRows {
    fn add(&mut self, rows: Vec<BadRow>) {
        self.count += rows.len() as u64;
        self.kept_bytes += rows.iter().map(|row| row.bytes.len()).sum::<usize>();
        self.kept.extend(rows);
        while (self.kept.len() > BAD_ROWS_MAX || self.kept_bytes > BAD_ROW_BYTES_MAX)
            && let Some(oldest) = self.kept.pop_front()
        {
            self.kept_bytes -= oldest.bytes.len();
        }
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Those that are kept, as rows of [`bad_rows_schema`].
    pub(crate) fn batch(&self) -> Result<RecordBatch> {
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(StringViewArray::from_iter_values(self.kept.iter().map(|row| row.split.as_ref()))),
            Arc::new(Int64Array::from_iter_values(self.kept.iter().map(|row| row.offset as i64))),
            Arc::new(StringViewArray::from_iter_values(self.kept.iter().map(|row| row.reason.as_str()))),
            Arc::new(BinaryViewArray::from_iter_values(self.kept.iter().map(|row| row.bytes.as_slice()))),
        ];
        RecordBatch::try_new(bad_rows_schema(), columns).map_err(error::arrow)
    }
}

/// Answers commands until the loop drops its end.
async fn serve(
    name: Arc<str>,
    mut source: Box<dyn Source>,
    mut inbox: UnboundedReceiver<Command>,
    events: Sender<Event>,
) {
    let mut next = inbox.recv().await;
    while let Some(command) = next.take() {
        match command {
            Command::Pull { ticket, limit, wait } => {
                let result = pull(source.as_mut(), &mut inbox, limit, wait, &mut next).await;
                let pause = result.is_err();
                if events
                    .send(Event::Arrived {
                        source: name.clone(),
                        ticket,
                        result: result.map_err(error::connect),
                    })
                    .is_err()
                {
                    return;
                }
                if pause {
                    tokio::time::sleep(RETRY_MIN).await;
                }
            }
            Command::Replay { span, limit } => {
                let result = source.replay(&span, limit).await.map_err(error::connect);
                if events.send(Event::Replayed { source: name.clone(), result }).is_err() {
                    return;
                }
            }
        }
        if next.is_none() {
            next = inbox.recv().await;
        }
    }
}

/// Tells the loop when a task has panicked: whoever waits for it must hear that it is gone.
pub(super) fn watch(
    handle: &Handle,
    task: tokio::task::JoinHandle<()>,
    events: Sender<Event>,
    event: impl FnOnce(crate::Error) -> Event + Send + 'static,
) {
    handle.spawn(async move {
        if let Err(error) = task.await
            && error.is_panic()
        {
            let _ = events.send(event(crate::Error::bug(format!("its task ended: {error}"))));
        }
    });
}

/// One pull: what is there, or what comes first, more rows or the next command.
async fn pull(
    source: &mut dyn Source,
    inbox: &mut UnboundedReceiver<Command>,
    limit: Limit,
    wait: bool,
    next: &mut Option<Command>,
) -> std::result::Result<Arrival, ConnectError> {
    loop {
        let arrival = source.next(limit).await?;
        let empty = arrival.spans.is_empty() && arrival.rows.is_empty() && arrival.bad_rows.is_empty();
        if !wait || !empty || arrival.more == More::Never {
            return Ok(arrival);
        }
        if arrival.more == More::Now {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            biased;
            command = inbox.recv() => {
                *next = command;
                return Ok(arrival);
            }
            ready = source.ready() => ready?,
        }
    }
}

impl Loop {
    /// Keeps each source in use one pull ahead of the epochs, within the bounds of what may wait.
    pub(super) fn pull_sources(&mut self) {
        if self.held || self.waiters.stopping || self.settings.clock == ClockKind::Manual {
            return;
        }
        let limit = self.limit();
        for source in self.sources.values_mut().filter(|source| source.used && !source.has_ended()) {
            // A pull that waits for rows is overtaken by one that doesn't, when someone waits for an answer.
            let asked = source.asked > source.answered;
            let overtake = source.hurry.is_some_and(|ticket| ticket > source.asked);
            if overtake || (!asked && source.has_room(limit)) {
                // After a failure the next answer may not wait for rows, so that it is known when it has passed.
                source.pull(limit, source.hurry.is_none() && source.failure.is_none());
            }
        }
    }

    /// How much one pull may bring.
    pub(super) fn limit(&self) -> Limit {
        let rows = self.settings.max_batch_rows.unwrap_or(self.budget_rows);
        Limit { rows, bytes: self.settings.max_batch_bytes }
    }

    /// Asks every source what it has for the batch that a manual clock begins.
    pub(super) fn collect_sources(&mut self) {
        let limit = self.limit();
        for source in self.sources.values_mut().filter(|source| source.used && !source.has_ended()) {
            if source.has_room(limit) {
                source.pull(limit, false);
            }
        }
    }

    pub(super) fn arrived(&mut self, name: &Arc<str>, ticket: u64, result: Result<Arrival>) {
        let limit = self.limit();
        let manual = self.clock.is_collecting();
        let Some(source) = current(&mut self.sources, name) else { return };
        source.answered = ticket.min(source.asked);
        match result {
            Ok(arrival) => {
                source.failure = None;
                source.more = arrival.more;
                let empty =
                    arrival.rows.is_empty() && arrival.spans.is_empty() && arrival.bad_rows.is_empty();
                if !empty {
                    source.ready_rows += rows_of(&arrival);
                    source.ready_bytes += bytes_of(&arrival);
                    source.ready.push_back(arrival);
                }
            }
            Err(error) => {
                source.failure = Some(error.message.clone());
                source.failed = error.kind != crate::Kind::External;
                source.more = More::Later;
            }
        }
        if source.more != More::Now && source.hurry.is_some_and(|first| ticket >= first) {
            source.hurry = None;
        }
        let rows = source.ready_rows;
        if manual && source.more == More::Now && rows < limit.rows && source.ready_bytes < limit.bytes {
            source.pull(Limit { rows: limit.rows - rows, bytes: limit.bytes - source.ready_bytes }, false);
        }
    }

    /// What this epoch takes of each source.
    pub(super) fn take_sources(&mut self) -> Vec<(Arc<str>, Delta, Vec<Span>)> {
        let mut left = self.limit().rows;
        let mut taken = Vec::new();
        let mut used: Vec<_> = self.sources.iter_mut().filter(|(_, source)| source.used).collect();
        // Another source comes first in each epoch, so that none takes all the room for ever.
        let count = used.len().max(1);
        used.rotate_left(self.epoch.0 as usize % count);
        for (name, source) in used {
            let (delta, spans) = source.take(left, taken.is_empty());
            left = left.saturating_sub(delta.num_rows());
            if !spans.is_empty() || !delta.is_empty() {
                taken.push((name.clone(), delta, spans));
            }
        }
        taken
    }

    /// Asks a source's task to read a span again, for the replay of a recorded epoch.
    pub(super) fn ask_replay(&self, name: &str, span: Span) {
        if let Some(source) = self.sources.get(name) {
            let _ = source.commands.send(Command::Replay { span, limit: self.limit() });
        }
    }
}

/// The longest pause between attempts; shared with sinks.
pub(super) fn backoff(attempts: u32) -> Duration {
    RETRY_MIN.saturating_mul(1 << attempts.min(8)).min(RETRY_MAX)
}
