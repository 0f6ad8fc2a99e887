//! Writes the journal. A thread of its own writes and syncs entries, in groups of all that are waiting (group
//! commit).

mod files;
mod objects;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millstream_delta::Delta;

use crate::entry::{Brought, Entry};
use crate::frame::{self, Salt, Sequence};
use crate::{DataDirectory, Error, Result, protocol};
use files::Files;
use objects::Objects;

/// Approximate number of bytes written before a sync.
const GROUP_BYTES: usize = 8 << 20;

/// The default interval between two groups on an object store, where each costs a request.
const STORE_INTERVAL: Duration = Duration::from_millis(100);

/// How often a waiting thread checks if it must end.
const LOOK: Duration = Duration::from_millis(20);

/// A status report of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// All entries up to this one survive a crash.
    Durable(Sequence),
    /// The disk is full, or the object store is unreachable. Appended entries wait, and are written once that
    /// is over.
    Waits(String),
    /// A write failed with unknown outcome. The journal writes nothing any more.
    Failed(String),
    /// Another process has claimed the object store prefix. Entries not reported durable are absent, and the
    /// journal writes nothing any more.
    Lost(String),
}

/// A request to the journal's thread.
enum Job {
    /// Write an entry.
    Write(Sequence, Entry),
    /// Remove entries that no reader needs: all up to this one.
    Forget(Sequence),
}

/// A journal open for writing.
pub struct Journal {
    /// The requests to the thread; `None` while the journal is dropped.
    jobs: Option<Sender<Job>>,
    last: Sequence,
    waiting: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
    /// The default interval between two groups.
    interval: Duration,
    interval_us: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    /// Locks the directory while the journal is open.
    _directory: DataDirectory,
}

impl Journal {
    /// Continues after the entry `after`, the last one read, in a new segment. The journal's thread calls
    /// `report`. On an object store, fails if another process has claimed the prefix since.
    pub fn start(
        directory: DataDirectory,
        after: Sequence,
        report: impl FnMut(Report) + Send + 'static,
    ) -> Result<Journal> {
        let (waiting, ending) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        // All segments of a process share one salt: an entry is framed before its segment is known.
        let salt = Salt::random();
        let (segments, interval): (Box<dyn Segments>, _) = match directory.claim() {
            Some(claim) => (Box::new(Objects::begin(claim.clone(), after)?), STORE_INTERVAL),
            None => (Box::new(Files::begin(directory.journal().clone(), after, salt)?), Duration::ZERO),
        };
        let interval_us = Arc::<AtomicU64>::default();
        let writer = Writer {
            segments,
            salt,
            told: Told { report: Box::new(report), ending: ending.clone() },
            waiting: waiting.clone(),
            interval_us: interval_us.clone(),
        };
        let (jobs, inbox) = channel();
        let thread = std::thread::Builder::new().name("millstream-journal".into());
        let thread = thread.spawn(move || writer.run(&inbox));
        let thread = thread.map_err(|error| Error::disk("starting a thread for", "the journal", error))?;
        let journal = Journal {
            jobs: Some(jobs),
            last: after,
            waiting,
            ending,
            interval,
            interval_us,
            thread: Some(thread),
            _directory: directory,
        };
        journal.set_interval(None);
        Ok(journal)
    }

    /// Appends an entry. It is durable once a report says so.
    pub fn append(&mut self, entry: Entry) -> Sequence {
        self.last = self.last.next();
        self.waiting.fetch_add(bytes_of(&entry), Ordering::Relaxed);
        self.ask(Job::Write(self.last, entry));
        self.last
    }

    /// Removes the segments whose entries all are up to `through`, which a checkpoint covers. Ends the
    /// current segment first.
    pub fn forget(&self, through: Sequence) {
        self.ask(Job::Forget(through));
    }

    /// Sets the minimum interval between the starts of two writes; entries that arrive in between are written
    /// together. `None` sets the default: zero in a folder, 100 ms on an object store.
    pub fn set_interval(&self, interval: Option<Duration>) {
        let us = interval.unwrap_or(self.interval).as_micros();
        self.interval_us.store(u64::try_from(us).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn ask(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // The thread ends before this only after it has reported a failure.
            let _ = jobs.send(job);
        }
    }

    /// Returns the number of the newest entry.
    pub fn last(&self) -> Sequence {
        self.last
    }

    /// Returns the approximate number of bytes appended and not yet written.
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
    /// Writes the waiting entries, but no longer waits for a full disk or an unreachable store.
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Returns the approximate memory of an entry's rows, plus a constant for the entry itself.
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

/// The segments of a journal. The last one is being written.
trait Segments: Send {
    /// Writes whole framed entries durably. `entries` are the first and the last of them; `group` holds their
    /// bytes and the salt of their frames.
    fn write(
        &mut self,
        entries: (Sequence, Sequence),
        group: (&[u8], Salt),
        told: &mut Told,
    ) -> Result<(), Ended>;
    /// Removes entries that no reader needs: all up to `through`.
    fn forget(&mut self, through: Sequence) -> io::Result<()>;
}

/// The reason why the journal writes nothing any more.
enum Ended {
    Failed(String),
    Lost(String),
}

/// The receiver of the reports.
struct Told {
    report: Box<dyn FnMut(Report) + Send>,
    ending: Arc<AtomicBool>,
}

impl Told {
    /// Returns true if the journal is being dropped.
    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Reports why nothing is written for now, and sleeps.
    fn wait(&mut self, reason: String, time: Duration) {
        (self.report)(Report::Waits(reason));
        let until = Instant::now() + time;
        while !self.is_ending() && Instant::now() < until {
            std::thread::sleep(LOOK.min(time));
        }
        if self.is_ending() {
            std::thread::sleep(LOOK.min(time));
        }
    }
}

/// Returns the name and the first entry of each segment that has no entry after `through`.
fn passed(names: &[String], through: Sequence) -> Vec<(&String, Sequence)> {
    let segments: Vec<_> = names.iter().filter_map(|name| Some((name, frame::first_of(name)?))).collect();
    let firsts: Vec<Sequence> = segments.iter().map(|(_, first)| *first).collect();
    protocol::passed(&firsts, through).map(|place| segments[place]).collect()
}

/// Entries that are written together.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    /// Their approximate memory.
    size: usize,
    /// The first and the last of them.
    entries: Option<(Sequence, Sequence)>,
}

impl Group {
    fn add(&mut self, sequence: Sequence, entry: &Entry, salt: Salt) -> Result<(), String> {
        let body = entry.encode().map_err(|error| error.to_string())?;
        self.bytes.extend(frame::frame(sequence, &body, salt).map_err(|error| error.to_string())?);
        self.size += bytes_of(entry);
        self.entries = Some((self.entries.map_or(sequence, |(first, _)| first), sequence));
        Ok(())
    }
}

/// The state of the journal's thread.
struct Writer {
    segments: Box<dyn Segments>,
    salt: Salt,
    told: Told,
    waiting: Arc<AtomicUsize>,
    /// The minimum interval between the starts of two groups, in microseconds.
    interval_us: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Job>) {
        let mut begun: Option<Instant> = None;
        while let Ok(first) = inbox.recv() {
            let interval = Duration::from_micros(self.interval_us.load(Ordering::Relaxed));
            let due = begun.and_then(|begun| begun.checked_add(interval));
            let mut group = Group::default();
            let mut forgotten = None;
            let mut next = Some(first);
            while let Some(job) = next.take() {
                match job {
                    Job::Write(sequence, entry) => {
                        if let Err(reason) = group.add(sequence, &entry, self.salt) {
                            return (self.told.report)(Report::Failed(reason));
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
                next = next_job(inbox, due);
            }
            if let Some((begins, last)) = group.entries {
                begun = Some(Instant::now());
                match self.segments.write((begins, last), (&group.bytes, self.salt), &mut self.told) {
                    Ok(()) => {}
                    Err(Ended::Failed(reason)) => return (self.told.report)(Report::Failed(reason)),
                    Err(Ended::Lost(reason)) => return (self.told.report)(Report::Lost(reason)),
                }
                self.waiting.fetch_sub(group.size, Ordering::Relaxed);
                (self.told.report)(Report::Durable(last));
            }
            if let Some(through) = forgotten
                && let Err(error) = self.segments.forget(through)
            {
                // The segments take space and do no harm: the next call tries again.
                tracing::warn!(%error, "unneeded segments of the journal can't be removed");
            }
        }
    }
}

/// Returns the next job that arrives before a group is due; `None` also if the journal is closed.
fn next_job(inbox: &Receiver<Job>, due: Option<Instant>) -> Option<Job> {
    let rest = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()));
    match rest.is_zero() {
        true => inbox.try_recv().ok(),
        false => inbox.recv_timeout(rest).ok(),
    }
}
