//! Reads the files of a source in order, each once, and notices files that change later.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use millstream_delta::{Pool, Position, Span};

use super::known::{Earlier, Known, KnownFiles};
use super::listing::Listings;
use super::on_change::OnChange;
use super::paths::Paths;
use super::reading::{FileReader, Framed, Layout, Piece, Seen, is_younger, seen, stat, unreadable};
use crate::{Arrival, BadRow, Error, Health, Limit, More, Result};

/// Maximum number of files that one pull opens, so that many empty files don't make it long.
const FILES_PER_PULL: usize = 1024;

/// Minimum size of a pull that is decoded on several threads.
const DECODED_APART_FROM_BYTES: usize = 1 << 20;

/// The threads that help to decode, shared by all sources.
static DECODERS: OnceLock<Pool> = OnceLock::new();

/// A split that stands for no file. It records that the files which `start = 'new'` leaves out were noted.
const START_NOTED: &str = "";

/// The order in which new files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Name,
    Modified,
}

/// The settings for following a source's files.
#[derive(Debug)]
pub(super) struct Settings {
    pub source: String,
    pub order: Order,
    /// True if files that exist at the start are left out.
    pub only_new: bool,
    pub bounded: bool,
    pub settle_time: Duration,
    /// Time since a file's last change that an incomplete end of the file must wait.
    pub tail_timeout: Duration,
    pub on_change: OnChange,
    pub poll_interval: Duration,
    /// Receives the share that was read.
    pub health: Health,
}

impl Settings {
    /// Returns the separator between a file's path and the number of its reading, from the second reading
    /// on. A path may contain it only if no file is read again automatically; otherwise it is one that
    /// hardly any path contains.
    fn separator(&self) -> &'static str {
        if self.on_change == OnChange::Reread { "#" } else { "##" }
    }

    /// Returns the name of a split: the file's path, with a number from the second reading on.
    fn split_name(&self, path: &Arc<str>, generation: u32) -> Arc<str> {
        if generation <= 1 { path.clone() } else { format!("{path}{}{generation}", self.separator()).into() }
    }

    /// Returns the file of a split and the number of the reading.
    pub fn parse_split(&self, split: &str) -> (Arc<str>, u32) {
        if let Some((path, number)) = split.rsplit_once(self.separator())
            && let Ok(generation @ 2..) = number.parse()
        {
            return (path.into(), generation);
        }
        (split.into(), 1)
    }
}

/// The state of reading. All of its methods may block.
pub(super) struct Intake {
    settings: Arc<Settings>,
    layout: Arc<Layout>,
    paths: Paths,
    /// True for each column to read; `None` reads all.
    wanted: Option<Arc<[bool]>>,
    pub(super) files: KnownFiles,
    listings: Listings,
    /// Files with an incomplete end, with their length and time then.
    waiting: BTreeMap<Arc<str>, Seen>,
    pub(super) queue: VecDeque<Arc<str>>,
    pub(super) current: Option<(Arc<str>, FileReader)>,
    /// Spans of files that are left out, of the note about them, and of growing files that aren't begun
    /// yet.
    noted: Vec<Span>,
    failure: Option<Error>,
    share: ReadShare,
}

/// The share of its files that a bounded source has read, in bytes.
#[derive(Debug, Default)]
struct ReadShare {
    /// The bytes of all files, from the one listing.
    listed: u64,
    /// The bytes of the files that were read to their end.
    done: u64,
}

impl ReadShare {
    /// Reports the share, with `partly` bytes of the file that is being read.
    fn tell(&self, health: &Health, partly: u64) {
        if self.listed > 0 {
            health.has_read(self.done + partly, self.listed);
        }
    }
}

impl Intake {
    /// Creates an intake that has read nothing.
    pub fn new(settings: Arc<Settings>, layout: Arc<Layout>, paths: Paths) -> Intake {
        Intake {
            settings,
            layout,
            paths,
            wanted: None,
            files: KnownFiles::default(),
            listings: Listings::new(),
            waiting: BTreeMap::new(),
            queue: VecDeque::new(),
            current: None,
            noted: Vec::new(),
            failure: None,
            share: ReadShare::default(),
        }
    }

    /// Returns the time of the next listing.
    pub fn listing_due(&self) -> Instant {
        self.listings.due()
    }

    /// Restricts further reading to these columns.
    pub fn want(&mut self, columns: Arc<[bool]>) {
        self.wanted = Some(columns);
        if let Some((path, _)) = self.current.take() {
            self.queue.push_front(path);
        }
    }

    /// Returns true for each column to read; `None` if all are read.
    pub fn wanted(&self) -> Option<Arc<[bool]>> {
        self.wanted.clone()
    }

    /// Returns the state found by the newest reading of `path`, if there was one.
    pub fn earlier(&self, path: &str) -> Option<Earlier> {
        self.files.get(path).map(Known::earlier)
    }

    /// Continues after `position`.
    pub fn seek(&mut self, position: &Position) {
        for (split, progress) in &position.splits {
            self.listings.note_start();
            if split.as_ref() == START_NOTED {
                continue;
            }
            let (path, generation) = self.settings.parse_split(split);
            let known = self.files.get_or_new(&path, generation);
            if generation >= known.generation {
                *known = Known { through: progress.through, done: progress.done, ..Known::new(generation) };
                if self.settings.on_change != OnChange::Reread {
                    known.holds_since = 1;
                }
            }
        }
        self.queue = self.files.watch_again(self.layout.grows).into();
    }

    /// Returns the available rows, within `limit`.
    pub fn next(&mut self, limit: Limit) -> Result<Arrival> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let mut arrival = Arrival::nothing(More::Later);
        match self.take(limit, &mut arrival) {
            Ok(()) => {}
            // The rows read before the failure are kept; the next call returns the failure.
            Err(failure) if !arrival.spans.is_empty() => self.failure = Some(failure),
            Err(failure) => return Err(failure),
        }
        self.tell_share();
        arrival.more = if self.current.is_some() || !self.queue.is_empty() || self.failure.is_some() {
            More::Now
        } else if self.settings.bounded && self.listings.have_succeeded() {
            More::Never
        } else {
            More::Later
        };
        Ok(arrival)
    }

    /// Reports the share of its files that a bounded source has read. A file without byte positions, such
    /// as a compressed one, counts only at its end.
    fn tell_share(&self) {
        if !self.settings.bounded {
            return;
        }
        let partly = self.current.as_ref().map_or(0, |(path, reader)| {
            let counted = self.layout.positions_are_bytes(path);
            let through = self.files.get(path).map_or(0, |known| known.through);
            if counted { through.min(reader.seen().0) } else { 0 }
        });
        self.share.tell(&self.settings.health, partly);
    }

    fn take(&mut self, limit: Limit, arrival: &mut Arrival) -> Result<()> {
        let mut framed: Vec<(Arc<str>, Framed)> = Vec::new();
        let taken = self.frame(limit, arrival, &mut framed);
        let (splits, framed): (Vec<Arc<str>>, Vec<Framed>) = framed.into_iter().unzip();
        for (split, piece) in splits.into_iter().zip(decoded(framed)) {
            let piece = piece.inspect_err(|_| arrival.spans.clear())?;
            arrival.bad_rows.extend(piece.bad.into_iter().map(|bad| BadRow::of(&split, bad)));
            arrival.splits.extend(piece.batch.as_ref().map(|_| split));
            arrival.rows.extend(piece.batch);
        }
        taken
    }

    /// Reads the available records without decoding them, with their splits.
    fn frame(&mut self, limit: Limit, arrival: &mut Arrival, to: &mut Vec<(Arc<str>, Framed)>) -> Result<()> {
        let (mut rows, mut bytes, mut files) = (0, 0, 0);
        while rows < limit.rows && bytes < limit.bytes && files < FILES_PER_PULL {
            if self.current.is_none() && self.queue.is_empty() && !self.list_when_due()? {
                break;
            }
            arrival.spans.append(&mut self.noted);
            if !self.open_next()? {
                files += 1;
                continue;
            }
            let Some((path, reader)) = &mut self.current else { continue };
            let path = path.clone();
            let framed = match reader.frame(Limit { rows: limit.rows - rows, bytes: limit.bytes - bytes }) {
                Ok(framed) => framed,
                Err(error) => {
                    self.queue.push_front(path);
                    self.current = None;
                    self.listings.wait(self.settings.poll_interval);
                    return Err(error);
                }
            };
            rows += framed.rows();
            bytes += framed.piece().bytes;
            let stays = !framed.piece().done && framed.piece().to > framed.piece().from;
            if !stays && !framed.piece().done && !self.layout.grows {
                self.waiting.insert(path.clone(), reader.seen());
            }
            to.extend(self.note(&path, framed.piece(), arrival).map(|split| (split, framed)));
            if !stays {
                self.current = None;
                files += 1;
            }
        }
        Ok(())
    }

    /// Adds the span of `piece` to the arrival and to the state of the file `path`. Returns the split.
    fn note(&mut self, path: &Arc<str>, piece: &Piece, arrival: &mut Arrival) -> Option<Arc<str>> {
        let known = self.files.get_mut(path)?;
        let split = self.settings.split_name(path, known.generation);
        known.through = piece.to;
        known.done = piece.done;
        if piece.done {
            self.share.done += known.seen.map_or(0, |(length, _)| length);
            self.files.watch(path);
        }
        if piece.done || piece.to > piece.from {
            let split = split.clone();
            push_span(&mut arrival.spans, Span { split, from: piece.from, to: piece.to, done: piece.done });
        }
        Some(split)
    }

    /// Opens the next file of the queue. Returns true if a file is open now.
    fn open_next(&mut self) -> Result<bool> {
        if self.current.is_some() {
            return Ok(true);
        }
        let Some(path) = self.queue.pop_front() else { return Ok(false) };
        let known = self.files.get_or_new(&path, 1);
        let from = known.through;
        let timeout = if self.settings.bounded { Duration::ZERO } else { self.settings.tail_timeout };
        match FileReader::open(&self.layout, self.wanted.as_deref(), &path, (from, None), timeout) {
            Ok(reader) => {
                // The state of the open file. Later changes at this path count as changes.
                let (before, now) = (known.seen.replace(reader.seen()), reader.seen());
                let holds = |before| self.layout.still_holds(&path, from, before, now);
                known.changed |= from > 0 && !before.is_none_or(holds);
                self.current = Some((path, reader));
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && from == 0 && !self.settings.bounded => {
                tracing::warn!(source = self.settings.source, file = %path, "a file was removed before it was read");
                self.files.forget(&path);
                Ok(false)
            }
            Err(error) if self.layout.grows && from > 0 && is_rotated(&error) => {
                let source = &self.settings.source;
                tracing::warn!(source, file = %path, %error, "a file was moved or cut before its end was read");
                // Forget the state, so that a new file at this path is read.
                known.seen = None;
                Ok(false)
            }
            Err(error) => {
                let error = unreadable(&path, &error);
                self.queue.push_front(path);
                self.listings.wait(self.settings.poll_interval);
                Err(error)
            }
        }
    }

    /// Lists the directories when it is due. Returns true if there are files to read or spans to report.
    fn list_when_due(&mut self) -> Result<bool> {
        if (self.listings.have_succeeded() && self.settings.bounded) || Instant::now() < self.listings.due() {
            return Ok(false);
        }
        self.listings.wait(self.settings.poll_interval);
        self.check_waiting();
        self.check_watched()?;
        let mut found: Vec<(Option<SystemTime>, Arc<str>)> = Vec::new();
        let files = &self.files;
        let mut fresh: Vec<Arc<str>> = Vec::new();
        let mut visit = |path: Arc<str>| {
            if !files.contains(&path) {
                fresh.push(path);
            }
        };
        let source = &self.settings.source;
        self.paths.list(&mut visit).map_err(|error| {
            Error::External(format!("source '{source}' could not list its files: {error}"))
        })?;
        // Unsettled files stay until a listing succeeds: a failed listing returns nothing.
        let fresh = self.listings.fresh(fresh);
        let leave_out = self.listings.leave_out(&self.settings);
        for path in fresh {
            if leave_out {
                self.noted.push(Span { split: path.clone(), from: 0, to: 0, done: true });
                self.files.insert(path, Known { done: true, watched: true, ..Known::new(1) });
                continue;
            }
            let Some(modified) = self.listings.settled(&self.settings, &path) else { continue };
            found.push((modified, path));
        }
        if leave_out {
            self.noted.push(Span { split: START_NOTED.into(), from: 0, to: 0, done: true });
        }
        self.listings.succeed();
        found.sort_unstable();
        for (_, path) in found {
            if self.settings.bounded {
                self.share.listed += stat(&path).map_or(0, |found| seen(&found).0);
            }
            self.files.insert(path.clone(), Known { watched: self.layout.grows, ..Known::new(1) });
            if self.layout.grows {
                // The file holds the watermark back from now on, although files before it are read first.
                self.noted.push(Span { split: path.clone(), from: 0, to: 0, done: false });
            }
            self.queue.push_back(path);
        }
        Ok(!self.queue.is_empty() || !self.noted.is_empty())
    }

    /// Queues files with an incomplete end that have changed since, or haven't changed for long enough.
    fn check_waiting(&mut self) {
        let timeout = self.settings.tail_timeout;
        let is_due = |path: &Arc<str>, before: &Seen| {
            stat(path).map_or(true, |found| seen(&found) != *before || !is_younger(*before, timeout))
        };
        let due: Vec<Arc<str>> = self
            .waiting
            .iter()
            .filter(|(path, before)| is_due(path, before))
            .map(|(path, _)| path.clone())
            .collect();
        for path in due {
            self.waiting.remove(&path);
            if !self.queue.contains(&path) {
                self.queue.push_back(path);
            }
        }
    }

    /// Checks some of the files that were read for changes.
    fn check_watched(&mut self) -> Result<()> {
        for _ in 0..self.files.checks() {
            let Some(path) = self.files.next_check() else { break };
            // A file that was read may be removed.
            let Ok(found) = stat(&path) else { continue };
            let now = seen(&found);
            let compares_length = self.layout.ends_at_its_length(&path);
            let Some(known) = self.files.get_mut(&path) else { continue };
            let before = known.seen;
            // A file that was left out, or is one bad record, stays so however it grows.
            let kept = if known.done { before.map_or(0, |(length, _)| length) } else { known.through };
            if self.layout.grows && now.0 >= kept {
                let grew = before != Some(now) && now.0 > known.through;
                if grew && !known.done && !self.queue.contains(&path) {
                    self.queue.push_back(path.clone());
                }
                known.seen = Some(now);
                continue;
            }
            let changed = match before {
                Some(before) => before != now,
                None => self.layout.grows || (compares_length && known.through > 0 && known.through != now.0),
            };
            if changed {
                self.changed(&path, now)?;
            } else {
                known.seen = Some(now);
            }
        }
        Ok(())
    }

    fn changed(&mut self, path: &Arc<str>, now: Seen) -> Result<()> {
        let changes = self.files.count_change();
        self.settings.health.changed_after_its_end();
        let Some(known) = self.files.get_mut(path) else { return Ok(()) };
        let is_first = !std::mem::replace(&mut known.told, true);
        let source = &self.settings.source;
        match self.settings.on_change {
            OnChange::Append
                if self.layout.positions_are_bytes(path) && known.through > 0 && now.0 > known.through =>
            {
                let (holds_since, through) = (known.holds_since, known.through);
                *known = Known {
                    holds_since,
                    through,
                    seen: Some(now),
                    watched: true,
                    ..Known::new(known.generation + 1)
                };
                self.queue.push_back(path.clone());
                return Ok(());
            }
            OnChange::Ignore | OnChange::Append => {
                let before = known.seen.unwrap_or((known.through, None));
                known.changed |= !self.layout.still_holds(path, known.through, before, now);
                known.seen = Some(now);
            }
            OnChange::Error => {
                return Err(Error::External(format!(
                    "file '{path}' of source '{source}' changed after it was read: it has {} bytes now. \
                     Restore it, or set on_change = 'ignore' or 'reread'",
                    now.0
                )));
            }
            OnChange::Reread => {
                *known = Known { seen: Some(now), watched: true, ..Known::new(known.generation + 1) };
                self.queue.push_back(path.clone());
            }
        }
        if is_first {
            let on_change = self.settings.on_change.consequence();
            tracing::warn!(source, file = %path, changes, "a file changed after its end was read: {on_change}");
        }
        Ok(())
    }
}

/// Decodes pieces in parallel if they are large enough for that to pay. Keeps their order.
fn decoded(framed: Vec<Framed>) -> Vec<Result<Piece>> {
    let bytes: usize = framed.iter().map(|framed| framed.piece().bytes).sum();
    if bytes < DECODED_APART_FROM_BYTES {
        return framed.into_iter().map(Framed::decode).collect();
    }
    let others = || std::thread::available_parallelism().map_or(1, usize::from) - 1;
    let pool = DECODERS.get_or_init(|| Pool::new("millstream-decode", others()));
    let helpers = pool.threads().min(framed.len() - 1);
    pool.spread(framed, vec![(); helpers], Framed::decode)
}

/// Returns true if a file is gone from its path, or is shorter there than the part that was read.
fn is_rotated(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}

/// Adds `span`, merging it into the previous one if it continues that.
fn push_span(spans: &mut Vec<Span>, span: Span) {
    match spans.last_mut() {
        Some(last) if last.split == span.split && last.to == span.from && !last.done => {
            last.to = span.to;
            last.done = span.done;
        }
        _ => spans.push(span),
    }
}
