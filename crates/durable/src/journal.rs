//! Writing the journal: entries are handed over, and written and synced by a thread of its own, as many at a time as wait.

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

/// How many bytes are written before they are synced, about.
const GROUP_BYTES: usize = 8 << 20;

/// How much time lies between two groups on an object store, where each costs a request.
const STORE_INTERVAL: Duration = Duration::from_millis(100);

/// How often a thread that waits looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// What the journal tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// All entries up to this one survive a crash.
    Durable(Sequence),
    /// The disk is full, or the object store is away: what was appended waits, and is written when that is over.
    Waits(String),
    /// Something failed of which nobody knows what it left behind. Nothing is written any more.
    Failed(String),
    /// Another process has taken over the object store's prefix: what wasn't said to be durable isn't there, and nothing is
    /// written any more.
    Lost(String),
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
    /// How much time lies between two groups where nobody says it.
    interval: Duration,
    interval_us: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    /// Nobody else opens it as long as this is written.
    _directory: DataDirectory,
}

impl Journal {
    /// Goes on behind the entry `after`, which is the last one that was read, in a segment of its own. `report` is called
    /// on the journal's thread. On an object store it fails where another process has claimed the prefix since.
    pub fn start(
        directory: DataDirectory,
        after: Sequence,
        report: impl FnMut(Report) + Send + 'static,
    ) -> Result<Journal> {
        let (waiting, ending) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        // All segments of a process have one: an entry is framed before it is known which it goes to.
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

    /// How much time lies between the beginnings of two writes at least: what comes meanwhile is written together. Without a
    /// number, what suits the place: none in a folder, 100 ms on an object store.
    pub fn set_interval(&self, interval: Option<Duration>) {
        let us = interval.unwrap_or(self.interval).as_micros();
        self.interval_us.store(u64::try_from(us).unwrap_or(u64::MAX), Ordering::Relaxed);
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
    /// Writes what waits; but for room on a full disk, or a store that is away, nobody waits any more.
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

/// The segments of a journal, of which the last is being written.
trait Segments: Send {
    /// Writes whole entries, with the salt of their frames, the first and the last of which are given, so that they survive a crash.
    fn write(
        &mut self,
        entries: (Sequence, Sequence),
        group: (&[u8], Salt),
        told: &mut Told,
    ) -> Result<(), Ended>;
    /// Removes what nobody reads any more: all up to an entry.
    fn forget(&mut self, through: Sequence) -> io::Result<()>;
}

/// Why nothing is written any more.
enum Ended {
    Failed(String),
    Lost(String),
}

/// Who hears how it goes.
struct Told {
    report: Box<dyn FnMut(Report) + Send>,
    ending: Arc<AtomicBool>,
}

impl Told {
    /// Whether the journal is being let go.
    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Says why nothing is written for now, and lets some time pass.
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

/// Segments of which no entry comes after `through`: the name and the first entry.
fn passed(names: &[String], through: Sequence) -> Vec<(&String, Sequence)> {
    let segments: Vec<_> = names.iter().filter_map(|name| Some((name, frame::first_of(name)?))).collect();
    let firsts: Vec<Sequence> = segments.iter().map(|(_, first)| *first).collect();
    protocol::passed(&firsts, through).map(|place| segments[place]).collect()
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
    fn add(&mut self, sequence: Sequence, entry: &Entry, salt: Salt) -> Result<(), String> {
        let body = entry.encode().map_err(|error| error.to_string())?;
        self.bytes.extend(frame::frame(sequence, &body, salt).map_err(|error| error.to_string())?);
        self.size += bytes_of(entry);
        self.entries = Some((self.entries.map_or(sequence, |(first, _)| first), sequence));
        Ok(())
    }
}

/// What the journal's thread has.
struct Writer {
    segments: Box<dyn Segments>,
    salt: Salt,
    told: Told,
    waiting: Arc<AtomicUsize>,
    /// How much time lies between the beginnings of two groups at least, in microseconds.
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
                // It takes room and does no harm: the next one tries again.
                tracing::warn!(%error, "segments of the journal that nobody needs can't be removed");
            }
        }
    }
}

/// What is asked by now, or comes until a group is due; none also where nothing more will come.
fn next_job(inbox: &Receiver<Job>, due: Option<Instant>) -> Option<Job> {
    let rest = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()));
    match rest.is_zero() {
        true => inbox.try_recv().ok(),
        false => inbox.recv_timeout(rest).ok(),
    }
}
