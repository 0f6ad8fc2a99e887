//! Writing the journal: entries are handed over, and written and synced by a thread of its own, as many at a time as wait.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use millstream_delta::Delta;

use crate::disk::{Disk, Growing};
use crate::entry::{Brought, Entry};
use crate::frame::{self, Sequence, segment_name};
use crate::{DataDirectory, Error, Result};

/// A segment that has so many bytes is followed by another.
const SEGMENT_BYTES: u64 = 64 << 20;

/// How many bytes are written before they are synced, about.
const GROUP_BYTES: usize = 8 << 20;

/// How long a full disk is left alone before it is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(200);

/// What the journal tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// All entries up to this one survive a crash.
    Durable(Sequence),
    /// The disk is full: what was appended waits, and is written when there is room again.
    Full(String),
    /// Something failed of which nobody knows what it left behind. Nothing is written any more.
    Failed(String),
}

/// A journal that is being written.
pub struct Journal {
    /// None while it is let go.
    entries: Option<Sender<(Sequence, Entry)>>,
    last: Sequence,
    waiting: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Nobody else opens it as long as this is written.
    _directory: DataDirectory,
}

impl Journal {
    /// Goes on behind the entry `after`, which is the last one that was read, in a segment of its own. `report` is called
    /// on the journal's thread.
    pub fn start(
        directory: DataDirectory,
        after: Sequence,
        report: impl FnMut(Report) + Send + 'static,
    ) -> Result<Journal> {
        let disk = directory.journal().clone();
        let name = segment_name(after.next());
        let failed = |error| Error::disk("creating", &name, error);
        let before = disk.list().map_err(failed)?;
        // A crash right after it was begun may have left one that holds nothing.
        if before.contains(&name) {
            disk.remove(&name).map_err(failed)?;
        }
        // What was read may have been written without being synced: from here on others rely on it.
        if let Some(last) =
            before.iter().rfind(|before| frame::first_of(before).is_some() && **before != name)
        {
            disk.sync(last).map_err(failed)?;
        }
        let (waiting, ending) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let segment = Segment::create(disk.as_ref(), after.next()).map_err(failed)?;
        let writer = Writer {
            disk,
            segment,
            report: Box::new(report),
            waiting: waiting.clone(),
            ending: ending.clone(),
        };
        let (entries, inbox) = channel();
        let thread = std::thread::Builder::new().name("millstream-journal".into());
        let thread = thread.spawn(move || writer.run(&inbox)).map_err(failed)?;
        let _directory = directory;
        Ok(Journal { entries: Some(entries), last: after, waiting, ending, thread: Some(thread), _directory })
    }

    /// Adds an entry; it is durable when a report says so.
    pub fn append(&mut self, entry: Entry) -> Sequence {
        self.last = self.last.next();
        self.waiting.fetch_add(bytes_of(&entry), Ordering::Relaxed);
        if let Some(entries) = &self.entries {
            // The thread ends before this only after it has said that it failed.
            let _ = entries.send((self.last, entry));
        }
        self.last
    }

    /// The number of the newest entry.
    pub fn last(&self) -> Sequence {
        self.last
    }

    /// How many bytes, about, were appended and are not written yet.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("last", &self.last).finish_non_exhaustive()
    }
}

impl Drop for Journal {
    /// Writes what waits; but for room on a full disk nobody waits any more.
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        drop(self.entries.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The memory of an entry's rows, about, and something for the entry itself.
fn bytes_of(entry: &Entry) -> usize {
    const SELF: usize = 256;
    let Entry::Epoch(recorded) = entry else { return SELF };
    let changed: usize = recorded.changes.iter().map(|(_, delta): &(_, Delta)| delta.memory_bytes()).sum();
    let brought = |brought: &Brought| -> usize {
        let rows = brought.arrivals.iter().flat_map(|arrival| &arrival.rows);
        rows.map(|rows| rows.get_array_memory_size()).sum()
    };
    SELF + changed + recorded.brought.iter().map(brought).sum::<usize>()
}

/// The segment that is written now.
struct Segment {
    name: String,
    file: Box<dyn Growing>,
    /// How many bytes of it are whole entries.
    length: u64,
}

impl Segment {
    fn create(disk: &dyn Disk, first: Sequence) -> io::Result<Segment> {
        let name = segment_name(first);
        let mut file = disk.create(&name)?;
        let head = frame::head(first);
        file.append(&head)?;
        Ok(Segment { name, file, length: head.len() as u64 })
    }
}

/// What the journal's thread has.
struct Writer {
    disk: Arc<dyn Disk>,
    segment: Segment,
    report: Box<dyn FnMut(Report) + Send>,
    waiting: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<(Sequence, Entry)>) {
        while let Ok(first) = inbox.recv() {
            let (mut group, mut size, mut last) = (Vec::new(), 0, first.0);
            let begins = first.0;
            for (sequence, entry) in std::iter::once(first).chain(inbox.try_iter()) {
                let framed = entry.encode().map_err(|error| error.to_string());
                let framed =
                    framed.and_then(|body| frame::frame(sequence, &body).map_err(|error| error.to_string()));
                match framed {
                    Ok(bytes) => group.extend(bytes),
                    Err(reason) => return (self.report)(Report::Failed(reason)),
                }
                size += bytes_of(&entry);
                last = sequence;
                if group.len() >= GROUP_BYTES {
                    break;
                }
            }
            if let Err(reason) = self.write(begins, &group) {
                return (self.report)(Report::Failed(reason));
            }
            self.waiting.fetch_sub(size, Ordering::Relaxed);
            (self.report)(Report::Durable(last));
        }
    }

    /// Writes whole entries, of which the first is `begins`, so that they survive a crash.
    fn write(&mut self, begins: Sequence, group: &[u8]) -> Result<(), String> {
        if self.segment.length >= SEGMENT_BYTES {
            self.segment = self.unless_full(
                |writer| Segment::create(writer.disk.as_ref(), begins),
                |writer| {
                    let name = segment_name(begins);
                    match writer.disk.list()?.contains(&name) {
                        true => writer.disk.remove(&name),
                        false => Ok(()),
                    }
                },
            )?;
        }
        self.unless_full(
            |writer| writer.segment.file.append(group),
            |writer| writer.segment.file.shorten(writer.segment.length),
        )?;
        let name = &self.segment.name;
        self.segment.file.sync().map_err(|error| format!("syncing journal '{name}' failed: {error}"))?;
        self.segment.length += group.len() as u64;
        Ok(())
    }

    /// Does something, again and again while the disk is full; what it has left behind is taken back in between.
    fn unless_full<T>(
        &mut self,
        mut work: impl FnMut(&mut Writer) -> io::Result<T>,
        mut undo: impl FnMut(&mut Writer) -> io::Result<()>,
    ) -> Result<T, String> {
        let failed = |writer: &Writer, error: &io::Error| {
            format!("writing journal '{}' failed: {error}", writer.segment.name)
        };
        loop {
            let error = match work(self) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            if !is_full || self.ending.load(Ordering::Relaxed) {
                return Err(failed(self, &error));
            }
            undo(self).map_err(|error| failed(self, &error))?;
            let reason = failed(self, &error);
            (self.report)(Report::Full(reason));
            std::thread::sleep(FULL_PAUSE);
        }
    }
}
