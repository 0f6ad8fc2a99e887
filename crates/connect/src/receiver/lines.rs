//! The source side of receivers: returns the rows of all connections in turn.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream_delta::{Position, Span};
use tokio::sync::Notify;

use super::feed::{End, Feed};
use super::layout::Layout;
use super::stop::Stop;
use crate::formats::decode::{Decode, decode_run};
use crate::formats::framing::{BadRecord, Framer, Run};
use crate::{Arrival, BadRow, Error, Limit, More, Reading, Result, Source, SourceProperties};

/// Maximum rows in one batch.
const BATCH_ROWS: usize = 16 * 1024;

/// The end of all receivers of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// There is nothing more.
    Ended,
    /// They failed for good, for this reason.
    Failed(String),
}

/// The connections opened by the threads of receivers.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    arrived: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    opened: Vec<Arc<Feed>>,
    finish: Option<Finish>,
}

impl Inbox {
    /// Adds a new connection.
    pub fn open(&self, split: &Arc<str>, peer: Arc<str>) -> Arc<Feed> {
        let feed = Arc::new(Feed::new(split.clone(), peer, self.arrived.clone()));
        self.state().opened.push(feed.clone());
        feed
    }

    /// Notes that no further connection follows.
    pub fn finish(&self, finish: Finish) {
        self.state().finish = Some(finish);
        self.arrived.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the threads of a source's receivers.
pub(crate) type Start = Box<dyn FnOnce(&Arc<Inbox>, &Arc<Stop>) -> Result<()> + Send + Sync>;

/// A source of the lines that receivers read. The receivers start with the first pull and end when it is
/// dropped.
pub(crate) struct Lines {
    layout: Layout,
    bounded: bool,
    /// The splits of its receivers, if there are several.
    splits: Vec<Arc<str>>,
    start: Option<Start>,
    inbox: Arc<Inbox>,
    stop: Arc<Stop>,
    /// The connections; the front one is read next.
    streams: VecDeque<Stream>,
    read: BTreeMap<Arc<str>, Read>,
}

/// The number of bytes read of a split, and the number returned in arrivals.
#[derive(Default)]
struct Read {
    through: u64,
    given: u64,
    /// True if the current arrival has rows or bad rows of the split.
    touched: bool,
}

impl Lines {
    /// Creates a source of the lines read by the receivers that `start` starts, with these splits if there
    /// are several.
    pub fn new(layout: Layout, bounded: bool, splits: Vec<Arc<str>>, start: Start) -> Lines {
        Lines {
            layout,
            bounded,
            splits,
            start: Some(start),
            inbox: Arc::default(),
            stop: Arc::default(),
            streams: VecDeque::new(),
            read: BTreeMap::new(),
        }
    }

    /// Returns the available rows of all connections in turn.
    fn take(&mut self, limit: Limit) -> Result<Arrival> {
        let finish = {
            let mut state = self.inbox.state();
            self.streams.extend(state.opened.drain(..).map(|feed| Stream::new(&self.layout, feed)));
            state.finish.clone()
        };
        let mut arrival = Arrival::nothing(More::Later);
        let (mut rows, mut bytes, mut quiet) = (0, 0, 0);
        while quiet < self.streams.len() {
            if rows >= limit.rows.max(1) || bytes >= limit.bytes.max(1) {
                arrival.more = More::Now;
                break;
            }
            let Some(mut stream) = self.streams.pop_front() else { break };
            let left = Limit { rows: limit.rows.max(1) - rows, bytes: limit.bytes.max(1) - bytes };
            let piece = stream.next(&self.layout, left)?;
            let read = self.read.entry(stream.feed.split.clone()).or_default();
            read.through += piece.bytes as u64;
            quiet = if piece.is_empty() { quiet + 1 } else { 0 };
            read.touched |= !piece.is_empty();
            rows += piece.rows();
            bytes += piece.bytes;
            arrival.splits.extend(piece.batch.as_ref().map(|_| stream.feed.split.clone()));
            arrival.rows.extend(piece.batch);
            let peer = &stream.feed.peer;
            arrival.bad_rows.extend(piece.bad.into_iter().map(|bad| BadRow::of(peer, bad)));
            if !stream.done {
                self.streams.push_back(stream);
            }
        }
        self.span(&mut arrival);
        if let Some(finish) = finish.filter(|_| self.streams.is_empty()) {
            match finish {
                Finish::Ended => arrival.more = More::Never,
                Finish::Failed(reason) if rows == 0 => return Err(Error::Invalid(reason)),
                Finish::Failed(_) => arrival.more = More::Now,
            }
        }
        Ok(arrival)
    }

    /// Adds the spans of an arrival.
    fn span(&mut self, arrival: &mut Arrival) {
        for (split, read) in self.read.iter_mut().filter(|(_, read)| read.touched) {
            arrival.spans.push(Span {
                split: split.clone(),
                from: read.given,
                to: read.through,
                done: false,
            });
            read.given = read.through;
            read.touched = false;
        }
    }
}

#[async_trait]
impl Source for Lines {
    fn schema(&self) -> &SchemaRef {
        &self.layout.columns
    }

    fn properties(&self) -> SourceProperties {
        let reading = match self.splits.len() {
            0 | 1 => Reading::InTurn,
            _ => Reading::SideBySide(self.splits.clone()),
        };
        SourceProperties {
            brings_changes: self.layout.brings_changes(),
            bounded: self.bounded,
            partitions: self.splits.len().max(1),
            reading,
            ..SourceProperties::default()
        }
    }

    async fn seek(&mut self, after: &Position) -> Result<()> {
        for (split, progress) in &after.splits {
            let read = Read { through: progress.through, given: progress.through, touched: false };
            self.read.insert(split.clone(), read);
        }
        Ok(())
    }

    async fn next(&mut self, limit: Limit) -> Result<Arrival> {
        if let Some(start) = self.start.take() {
            start(&self.inbox, &self.stop)?;
        }
        self.take(limit)
    }

    async fn ready(&mut self) -> Result<()> {
        self.inbox.arrived.notified().await;
        Ok(())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.stop.stop();
        self.streams.iter().for_each(|stream| stream.feed.close());
        self.inbox.state().opened.iter().for_each(|feed| feed.close());
    }
}

/// One connection, split into records.
struct Stream {
    feed: Arc<Feed>,
    framer: Framer,
    /// The decoder; `None` until the header has arrived.
    decoder: Option<Box<dyn Decode>>,
    end: Option<End>,
    /// True if the connection returns nothing more.
    done: bool,
}

/// The result of one pull of a connection.
#[derive(Default)]
struct Piece {
    batch: Option<RecordBatch>,
    bad: Vec<BadRecord>,
    /// Number of bytes read for it.
    bytes: usize,
}

impl Piece {
    fn is_empty(&self) -> bool {
        self.batch.is_none() && self.bad.is_empty()
    }

    fn rows(&self) -> usize {
        self.batch.as_ref().map_or(0, RecordBatch::num_rows) + self.bad.len()
    }
}

impl Stream {
    fn new(layout: &Layout, feed: Arc<Feed>) -> Stream {
        // Columns that don't fit the format are rejected when the source is created.
        let decoder = layout.decoder().ok().flatten();
        Stream { feed, framer: layout.framer(), decoder, end: None, done: false }
    }

    fn next(&mut self, layout: &Layout, limit: Limit) -> Result<Piece> {
        let from = self.framer.position();
        let mut piece = Piece::default();
        while piece.is_empty() && !self.done {
            let rows = if self.decoder.is_some() { limit.rows.min(BATCH_ROWS) } else { 1 };
            let run = self.framer.next_run(rows, limit.bytes);
            let run = run.map_err(|error| Error::Bug(format!("bytes in memory can't be read: {error}")))?;
            if !run.records.is_empty() || !run.bad.is_empty() {
                self.decode(layout, run, &mut piece)?;
            } else if !self.fetch(&mut piece) {
                break;
            }
        }
        piece.bytes = (self.framer.position() - from) as usize;
        Ok(piece)
    }

    fn decode(&mut self, layout: &Layout, run: Run, piece: &mut Piece) -> Result<()> {
        let Some(decoder) = &self.decoder else {
            match header(layout, &run) {
                Ok(decoder) => self.decoder = Some(decoder),
                Err(bad) => {
                    piece.bad.push(bad);
                    self.feed.close();
                    self.done = true;
                }
            }
            return Ok(());
        };
        let (block, offset) = (run.block.clone(), run.offset);
        let mut decoded = decode_run(decoder.as_ref(), run).map_err(|error| {
            Error::Bug(format!("records from {} decode one by one only: {error}", self.feed.peer))
        })?;
        piece.bad = std::mem::take(&mut decoded.bad);
        if !decoded.records.is_empty() {
            piece.batch = Some(layout.batch(decoded, (&block, offset), &self.feed.peer)?);
        }
        Ok(())
    }

    /// Fetches more bytes or the end. Returns false if there is nothing now.
    fn fetch(&mut self, piece: &mut Piece) -> bool {
        match &self.end {
            Some(End::Broken(reason)) if !self.framer.unread().is_empty() => {
                let reason = format!("the connection broke inside of this record: {reason}");
                piece.bad.push(BadRecord::new(self.framer.position(), reason, self.framer.unread()));
                self.done = true;
                return true;
            }
            Some(_) => {
                self.done = true;
                return false;
            }
            None => {}
        }
        let (bytes, end) = self.feed.take(self.framer.unread().len());
        if bytes.is_empty() && end.is_none() {
            return false;
        }
        if !bytes.is_empty() {
            self.framer.push(bytes);
        }
        if end == Some(End::Whole) {
            self.framer.end();
        }
        self.end = end;
        true
    }
}

/// Returns the decoder of the records after the header in `run`, or the header as a bad record.
fn header(layout: &Layout, run: &Run) -> Result<Box<dyn Decode>, BadRecord> {
    let Some(record) = run.records.first() else {
        return Err(run.bad.first().cloned().unwrap_or_else(|| BadRecord::new(0, "there is no header", b"")));
    };
    let header = &run.block[record.start as usize..record.end as usize];
    let offset = run.offset + u64::from(record.start);
    layout.decoder_with(header).map_err(|reason| BadRecord::new(offset, reason, header))
}
