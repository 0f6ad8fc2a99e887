//! Write access to a prefix of an object store: the newest claim wins.
//!
//! An object store has no locks. But each object of the journal is put only if no object has its name, which
//! is the number of its first entry. So if two processes continue from the same entry, one of them fails.
//!
//! A process that opens the prefix puts an entry after the last one before it reads anything: a claim. The
//! previous owner finds the claim at the number of its own next entry, and stops. Claims are never removed,
//! so an owner that resumes after years finds it, too. (This makes the claim a fencing token: Burrows, *The
//! Chubby Lock Service for Loosely-Coupled Distributed Systems*, OSDI 2006, calls it a sequencer.)

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::entry::Entry;
use crate::frame::{self, Salt, Sequence, first_of, segment_name};
use crate::store::{Put, Store};
use crate::{Error, Result, protocol};

/// Number of attempts to put a claim before the owner writes its next entry.
const TRIES: usize = 1000;

/// Number of checks that the next slot is still empty.
const LOOKS: u32 = 10;

/// The folder of the journal.
pub(crate) const JOURNAL: &str = "journal";

/// A claim that was put: no previous owner can continue.
#[derive(Debug)]
pub(crate) struct Claim {
    store: Store,
    /// The entry of the claim.
    number: Sequence,
    /// The first entry not known to be written.
    next: AtomicU64,
}

impl Claim {
    /// Puts a claim after the last entry. The last entry is after `known`, or `known` itself.
    pub(crate) fn take(store: &Store, known: Sequence) -> Result<Claim> {
        let entry = Entry::Claimed { by: name_of_this_process() };
        let mut last = last_entry(store)?.max(known);
        for _ in 0..TRIES {
            let number = last.next();
            let name = object_name(number);
            let bytes = segment_of(number, &entry)?;
            let put = store.put_new_surely(&name, &bytes);
            match put.map_err(|error| Error::disk("writing", &name, error))? {
                Put::Done => {
                    // The claim may have landed in the slot of a removed segment, since more was written
                    // after it; then it fences nobody off. The owner never removes its last segment, so the
                    // listing shows it. The newer segment may also be another claim, for which this one must
                    // stay.
                    if protocol::stops_others(number, newest(store)?.map(|(first, _)| first)) {
                        let next = AtomicU64::new(number.next().0);
                        return Ok(Claim { store: store.clone(), number, next });
                    }
                    last = last_entry(store)?.max(known);
                }
                // Another process has written meanwhile.
                Put::Taken(found) => last = last_in(&name, number, &found)?,
            }
        }
        Err(too_fast(store))
    }

    /// Returns the entry of the claim.
    pub(crate) fn number(&self) -> Sequence {
        self.number
    }

    /// Returns the prefix.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Records that all entries before `next` are written.
    pub(crate) fn go_on(&self, next: Sequence) {
        self.next.store(next.0, Ordering::Release);
    }

    /// Returns true if at some instant during this call no other process had claimed the prefix. False also
    /// if that cannot be determined.
    pub(crate) fn holds(&self) -> io::Result<bool> {
        for look in 1..=LOOKS {
            // An empty slot proves it: another claim would occupy the slot of this process's next entry, and
            // claims stay.
            if !self.store.has(&object_name(Sequence(self.next.load(Ordering::Acquire))))? {
                return Ok(true);
            }
            // The object may be this process's own, whose put is not yet acknowledged.
            std::thread::sleep(self.store.pause() / LOOKS * look);
        }
        Ok(false)
    }

    /// Returns the error if another process has claimed the prefix, as far as the store answers.
    pub(crate) fn lost_to(&self) -> Option<Error> {
        let found = self.store.read(&object_name(Sequence(self.next.load(Ordering::Acquire)))).ok()?;
        claimed_by(&found).map(|_| self.lost(&found))
    }

    /// Returns the error that another process has the prefix. `found` is the segment in the slot of this
    /// process's next entry; it names that process.
    pub(crate) fn lost(&self, found: &[u8]) -> Error {
        let by = claimed_by(found).unwrap_or_else(|| "another process".into());
        Error::Lost { directory: PathBuf::from(self.store.shown()), by }
    }
}

/// Returns the name of the segment object that begins with an entry.
pub(crate) fn object_name(first: Sequence) -> String {
    format!("{JOURNAL}/{}", segment_name(first))
}

/// Encodes a segment of one entry.
fn segment_of(number: Sequence, entry: &Entry) -> Result<Bytes> {
    let salt = Salt::random();
    let framed = frame::frame(number, &entry.encode()?, salt);
    let framed = framed.map_err(|error| Error::disk("writing", "a claim", error))?;
    Ok([frame::head(number, salt), framed].concat().into())
}

/// Returns the name of the process whose claim begins a segment, if the segment begins with one.
pub(crate) fn claimed_by(segment: &[u8]) -> Option<String> {
    let first = Sequence(u64::from_le_bytes(segment.get(12..20)?.try_into().ok()?));
    let head = frame::read_head(segment, first).ok()?;
    let body = frame::framed(segment.get(head.length..)?, head.salt)?.body().ok()?;
    match Entry::decode(&body) {
        Ok(Entry::Claimed { by }) => Some(by),
        _ => None,
    }
}

/// Returns the first entry and the name of the newest segment.
fn newest(store: &Store) -> Result<Option<(Sequence, String)>> {
    let names = store.list(JOURNAL).map_err(|error| Error::disk("listing", JOURNAL, error))?;
    Ok(names.iter().rev().find_map(|name| first_of(name)).map(|first| (first, object_name(first))))
}

/// Returns the last entry of the journal, or 0 if the journal is empty.
fn last_entry(store: &Store) -> Result<Sequence> {
    for _ in 0..TRIES {
        let Some((first, name)) = newest(store)? else { return Ok(Sequence::default()) };
        match store.read(&name) {
            Ok(bytes) => return last_in(&name, first, &bytes),
            // The segment is no longer the newest one, and was removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::disk("reading", &name, error)),
        }
    }
    Err(too_fast(store))
}

fn too_fast(store: &Store) -> Error {
    let error = io::Error::other("the process that has it writes faster than this one can take it over");
    Error::disk("claiming", store.shown(), error)
}

/// Returns the last entry of a segment. Objects are put atomically, so an incomplete frame is damage.
fn last_in(name: &str, first: Sequence, bytes: &[u8]) -> Result<Sequence> {
    let corrupt =
        |offset: usize, reason: String| Error::Corrupt { name: name.into(), offset: offset as u64, reason };
    let head = frame::read_head(bytes, first).map_err(|reason| corrupt(0, reason))?;
    let (mut at, mut next) = (head.length, first);
    while at < bytes.len() {
        let framed = frame::framed(&bytes[at..], head.salt).filter(|framed| framed.sequence == next);
        let framed = framed.ok_or_else(|| corrupt(at, format!("entry {next} isn't whole")))?;
        at += framed.length;
        next = next.next();
    }
    if next == first {
        return Err(corrupt(at, format!("entry {first} was expected, but the segment is empty")));
    }
    Ok(Sequence(next.0 - 1))
}

/// Returns a name unique to this process, from which an administrator can find the process.
fn name_of_this_process() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let host = if host.trim().is_empty() { "an unnamed machine" } else { host.trim() };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let random = RandomState::new().build_hasher().finish() ^ since.as_nanos() as u64;
    format!("process {} on {host} ({random:016x})", std::process::id())
}
