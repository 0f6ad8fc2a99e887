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

/// What the thread is asked to do.
enum Job {
    /// To write an entry.
    Write(Sequence, Entry),
    /// To remove what nobody reads any more: all up to an entry.
    Forget(Sequence),
}

/// A journal that is being written.
pub struct Journal {
    /// None while it is let go.
    jobs: Option<Sender<Job>>,
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
            ends: false,
            report: Box::new(report),
            waiting: waiting.clone(),
            ending: ending.clone(),
        };
        let (jobs, inbox) = channel();
        let thread = std::thread::Builder::new().name("millstream-journal".into());
        let thread = thread.spawn(move || writer.run(&inbox)).map_err(failed)?;
        let _directory = directory;
        Ok(Journal { jobs: Some(jobs), last: after, waiting, ending, thread: Some(thread), _directory })
    }

    /// Adds an entry; it is durable when a report says so.
    pub fn append(&mut self, entry: Entry) -> Sequence {
        self.last = self.last.next();
        self.waiting.fetch_add(bytes_of(&entry), Ordering::Relaxed);
        self.ask(Job::Write(self.last, entry));
        self.last
    }

    /// Removes the segments whose entries all are up to this one: a checkpoint stands for them. The one that is being
    /// written is ended first.
    pub fn forget(&self, through: Sequence) {
        self.ask(Job::Forget(through));
    }

    fn ask(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // The thread ends before this only after it has said that it failed.
            let _ = jobs.send(job);
        }
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
        drop(self.jobs.take());
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

/// Entries that are written at once.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    /// The memory that they take, about.
    size: usize,
    /// The first and the last of them.
    entries: Option<(Sequence, Sequence)>,
}

impl Group {
    fn add(&mut self, sequence: Sequence, entry: &Entry) -> Result<(), String> {
        let body = entry.encode().map_err(|error| error.to_string())?;
        self.bytes.extend(frame::frame(sequence, &body).map_err(|error| error.to_string())?);
        self.size += bytes_of(entry);
        self.entries = Some((self.entries.map_or(sequence, |(first, _)| first), sequence));
        Ok(())
    }
}

/// What the journal's thread has.
struct Writer {
    disk: Arc<dyn Disk>,
    segment: Segment,
    /// Whether the segment is to be followed by another.
    ends: bool,
    report: Box<dyn FnMut(Report) + Send>,
    waiting: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Job>) {
        while let Ok(first) = inbox.recv() {
            let mut group = Group::default();
            let mut forgotten = None;
            for job in std::iter::once(first).chain(inbox.try_iter()) {
                match job {
                    Job::Write(sequence, entry) => {
                        if let Err(reason) = group.add(sequence, &entry) {
                            return (self.report)(Report::Failed(reason));
                        }
                    }
                    Job::Forget(through) => {
                        forgotten = Some(through);
                        break;
                    }
                }
                if group.bytes.len() >= GROUP_BYTES {
                    break;
                }
            }
            if let Some((begins, last)) = group.entries {
                if let Err(reason) = self.write(begins, &group.bytes) {
                    return (self.report)(Report::Failed(reason));
                }
                self.waiting.fetch_sub(group.size, Ordering::Relaxed);
                (self.report)(Report::Durable(last));
            }
            if let Some(through) = forgotten
                && let Err(error) = self.forget(through)
            {
                // It takes room and does no harm: the next one tries again.
                tracing::warn!(%error, "segments of the journal that nobody needs can't be removed");
            }
        }
    }

    /// Lets the segment that is written end, and removes those of which no entry comes after `through`.
    fn forget(&mut self, through: Sequence) -> io::Result<()> {
        self.ends = self.segment.length > frame::HEAD as u64;
        let names = self.disk.list()?;
        let segments: Vec<&String> = names.iter().filter(|name| frame::first_of(name).is_some()).collect();
        for pair in segments.windows(2) {
            if frame::first_of(pair[1]).is_some_and(|next| next <= through.next())
                && *pair[0] != self.segment.name
            {
                self.disk.remove(pair[0])?;
            }
        }
        Ok(())
    }

    /// Writes whole entries, of which the first is `begins`, so that they survive a crash.
    fn write(&mut self, begins: Sequence, group: &[u8]) -> Result<(), String> {
        if std::mem::take(&mut self.ends) || self.segment.length >= SEGMENT_BYTES {
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
