//! Who may write below a prefix of an object store: whoever has put the newest claim.
//!
//! Nothing there can be locked. But each object of the journal is put only if there is none of its name, which is the number
//! of its first entry; so of two processes that are about to go on from one entry, one fails. A process that opens the prefix
//! puts an entry of its own behind the last one before it reads anything: a claim. Who wrote before finds it where its own
//! next entry was to be, and knows that it has lost. Claims are never removed; so whoever comes back after years finds it, too.
//! (A lock that is lost by the next write of who had it is a fencing token: Burrows, *The Chubby Lock Service for
//! Loosely-Coupled Distributed Systems*, OSDI 2006, calls it a sequencer.)

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

/// How often a process tries to be faster than the one that writes.
const TRIES: usize = 1000;

/// How often it is looked whether what lies at the next place is one's own.
const LOOKS: u32 = 10;

/// The folder of the journal.
pub(crate) const JOURNAL: &str = "journal";

/// A claim that was put: nobody who wrote before can go on.
#[derive(Debug)]
pub(crate) struct Claim {
    store: Store,
    /// Its entry.
    number: Sequence,
    /// The first entry that isn't known to be written.
    next: AtomicU64,
}

impl Claim {
    /// Puts a claim behind the last entry, which isn't one up to `known`.
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
                    // What was written there may have been removed, since more has been written: then this stops nobody. Who
                    // has the prefix never removes its last segment, so it is there to be seen. It may also be another claim,
                    // for which this one must stay.
                    if protocol::stops_others(number, newest(store)?.map(|(first, _)| first)) {
                        let next = AtomicU64::new(number.next().0);
                        return Ok(Claim { store: store.clone(), number, next });
                    }
                    last = last_entry(store)?.max(known);
                }
                // Somebody has written meanwhile.
                Put::Taken(found) => last = last_in(&name, number, &found)?,
            }
        }
        Err(too_fast(store))
    }

    /// Its entry.
    pub(crate) fn number(&self) -> Sequence {
        self.number
    }

    /// The prefix.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// What comes before this entry is written.
    pub(crate) fn go_on(&self, next: Sequence) {
        self.next.store(next.0, Ordering::Release);
    }

    /// Whether nobody had claimed the prefix since, at some instant during this call. False also where that can't be told.
    pub(crate) fn holds(&self) -> io::Result<bool> {
        for look in 1..=LOOKS {
            // Where nothing is there, nobody has claimed it: a claim stands where this process would go on, and stays.
            if !self.store.has(&object_name(Sequence(self.next.load(Ordering::Acquire))))? {
                return Ok(true);
            }
            // It may be this process's own, whose answer is on its way.
            std::thread::sleep(self.store.pause() / LOOKS * look);
        }
        Ok(false)
    }

    /// The error where another process has the prefix, as far as the store says it.
    pub(crate) fn lost_to(&self) -> Option<Error> {
        let found = self.store.read(&object_name(Sequence(self.next.load(Ordering::Acquire)))).ok()?;
        claimed_by(&found).map(|_| self.lost(&found))
    }

    /// Another process has the prefix: who it is stands in the segment that was found where this one was to go on.
    pub(crate) fn lost(&self, found: &[u8]) -> Error {
        let by = claimed_by(found).unwrap_or_else(|| "another process".into());
        Error::Lost { directory: PathBuf::from(self.store.shown()), by }
    }
}

/// Where the segment lies that begins with an entry.
pub(crate) fn object_name(first: Sequence) -> String {
    format!("{JOURNAL}/{}", segment_name(first))
}

/// A segment of one entry.
fn segment_of(number: Sequence, entry: &Entry) -> Result<Bytes> {
    let salt = Salt::random();
    let framed = frame::frame(number, &entry.encode()?, salt);
    let framed = framed.map_err(|error| Error::disk("writing", "a claim", error))?;
    Ok([frame::head(number, salt), framed].concat().into())
}

/// Who has put a segment that begins with a claim.
pub(crate) fn claimed_by(segment: &[u8]) -> Option<String> {
    let first = Sequence(u64::from_le_bytes(segment.get(12..20)?.try_into().ok()?));
    let head = frame::read_head(segment, first).ok()?;
    let body = frame::framed(segment.get(head.length..)?, head.salt)?.body().ok()?;
    match Entry::decode(&body) {
        Ok(Entry::Claimed { by }) => Some(by),
        _ => None,
    }
}

/// The newest segment of the journal: its first entry and its name.
fn newest(store: &Store) -> Result<Option<(Sequence, String)>> {
    let names = store.list(JOURNAL).map_err(|error| Error::disk("listing", JOURNAL, error))?;
    Ok(names.iter().rev().find_map(|name| first_of(name)).map(|first| (first, object_name(first))))
}

/// The last entry of the journal; 0: it is empty.
fn last_entry(store: &Store) -> Result<Sequence> {
    for _ in 0..TRIES {
        let Some((first, name)) = newest(store)? else { return Ok(Sequence::default()) };
        match store.read(&name) {
            Ok(bytes) => return last_in(&name, first, &bytes),
            // It isn't the newest any more, and was removed.
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

/// The last entry of a segment. An object is put whole, so what isn't whole is damage here.
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

/// A name that no other process has, now or ever, which tells people where to look.
fn name_of_this_process() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let host = if host.trim().is_empty() { "an unnamed machine" } else { host.trim() };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let random = RandomState::new().build_hasher().finish() ^ since.as_nanos() as u64;
    format!("process {} on {host} ({random:016x})", std::process::id())
}
