//! The source side of receivers: rows of all their connections, in turn.

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
use crate::{Arrival, BadRow, Error, Limit, More, Reading, Result, Source};

/// Rows in one batch at most.
const BATCH_ROWS: usize = 16 * 1024;

/// How all receivers of a source ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// There is nothing more.
    Ended,
    /// They failed for good, for this reason.
    Failed(String),
}

/// Where the threads of receivers leave their connections.
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
    /// A new connection.
    pub fn open(&self, split: &Arc<str>, peer: Arc<str>) -> Arc<Feed> {
        let feed = Arc::new(Feed::new(split.clone(), peer, self.arrived.clone()));
        self.state().opened.push(feed.clone());
        feed
    }

    /// No connection follows.
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

/// A source of the lines that receivers read; they start with the first pull and end when it is dropped.
pub(crate) struct Lines {
    layout: Layout,
    bounded: bool,
    /// The splits of its receivers, where there are several.
    splits: Vec<Arc<str>>,
    start: Option<Start>,
    inbox: Arc<Inbox>,
    stop: Arc<Stop>,
    /// The next one to be asked comes first.
    streams: VecDeque<Stream>,
    read: BTreeMap<Arc<str>, Read>,
}

/// How far a split was read, and how far by what was given.
#[derive(Default)]
struct Read {
    through: u64,
    given: u64,
    /// Whether this arrival has rows or bad rows of it.
    touched: bool,
}

impl Lines {
    /// A source of what the receivers that `start` starts read; several of them have these splits.
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

    /// Takes what is there, of all connections in turn.
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
            arrival.bad_rows.extend(piece.bad.into_iter().map(|bad| BadRow {
                split: peer.clone(),
                offset: bad.offset,
                reason: bad.reason,
                bytes: bad.bytes,
            }));
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

    /// Says what was read for an arrival.
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

    fn replayable(&self) -> bool {
        false
    }

    fn brings_changes(&self) -> bool {
        self.layout.brings_changes()
    }

    fn bounded(&self) -> bool {
        self.bounded
    }

    fn partitions(&self) -> usize {
        self.splits.len().max(1)
    }

    fn reading(&self) -> Reading {
        match self.splits.len() {
            0 | 1 => Reading::InTurn,
            _ => Reading::SideBySide(self.splits.clone()),
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

    async fn replay(&mut self, _span: &Span, _limit: Limit) -> Result<Arrival> {
        Err(Error::Bug("a receiver can't read again, and says so".into()))
    }

    async fn acknowledge(&mut self, _through: &Position) -> Result<()> {
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

/// One connection, as records.
struct Stream {
    feed: Arc<Feed>,
    framer: Framer,
    /// `None` until the header is there.
    decoder: Option<Box<dyn Decode>>,
    end: Option<End>,
    /// Whether it gives nothing more.
    done: bool,
}

/// What one connection gives at once.
#[derive(Default)]
struct Piece {
    batch: Option<RecordBatch>,
    bad: Vec<BadRecord>,
    /// How many bytes were read for it.
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
        // Columns that don't fit the format are refused when the source is made.
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

    /// Gets more bytes, or the end; `false` where there is nothing now.
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

/// The decoder of what follows the header in `run`, or the header as a bad record.
fn header(layout: &Layout, run: &Run) -> Result<Box<dyn Decode>, BadRecord> {
    let Some(record) = run.records.first() else {
        return Err(run.bad.first().cloned().unwrap_or_else(|| BadRecord::new(0, "there is no header", b"")));
    };
    let header = &run.block[record.start as usize..record.end as usize];
    let offset = run.offset + u64::from(record.start);
    layout.decoder_with(header).map_err(|reason| BadRecord::new(offset, reason, header))
}
