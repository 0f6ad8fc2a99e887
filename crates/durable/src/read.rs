//! Reads the journal, and distinguishes a torn write from damage.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::disk::Disk;
use crate::entry::Entry;
use crate::frame::{self, Head, Salt, Sequence, first_of};
use crate::{DataDirectory, Error, Result};

/// The torn end of a segment: a write that a crash cut short and that was never reported durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment.
    pub name: String,
    /// The offset at which it begins.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// The entries of a journal, in order. After the last one, [`Entries::through`] returns where to continue.
#[derive(Debug)]
pub struct Entries {
    disk: Arc<dyn Disk>,
    segments: VecDeque<(Sequence, String)>,
    /// The bytes of the first of them, as far as they were read ahead.
    ahead: VecDeque<Vec<u8>>,
    current: Option<Segment>,
    /// The entry up to which the iterator skips.
    after: Sequence,
    last: Sequence,
    torn: Vec<Torn>,
}

#[derive(Debug)]
struct Segment {
    name: String,
    bytes: Vec<u8>,
    at: usize,
    salt: Salt,
}

impl Entries {
    /// Opens the journal of a directory after the entry `after`. A new directory's journal is empty.
    pub fn open(directory: &DataDirectory, after: Sequence) -> Result<Entries> {
        let disk = directory.journal().clone();
        let names = disk.list().map_err(|error| Error::disk("listing", "journal", error))?;
        let mut segments: VecDeque<(Sequence, String)> =
            names.into_iter().filter_map(|name| Some((first_of(&name)?, name))).collect();
        while segments.get(1).is_some_and(|(first, _)| *first <= after.next()) {
            segments.pop_front();
        }
        // A segment that begins later fails when it is read: the entries before it are missing.
        let begins = segments.front().map_or(after.next(), |(first, _)| (*first).min(after.next()));
        let last = Sequence(begins.0.saturating_sub(1));
        let ahead = VecDeque::new();
        Ok(Entries { disk, segments, ahead, current: None, after, last, torn: Vec::new() })
    }

    /// Returns the names and sizes of the segments not yet read.
    pub(crate) fn segments(&self) -> Result<Vec<(String, u64)>> {
        let size = |(_, name): &(Sequence, String)| {
            let bytes = self.disk.read(name).map_err(|error| Error::disk("reading", name, error))?;
            Ok((name.clone(), bytes.len() as u64))
        };
        self.segments.iter().map(size).collect()
    }

    /// Returns the number of the last entry read so far.
    pub fn through(&self) -> Sequence {
        self.last.max(self.after)
    }

    /// Returns the torn writes found so far.
    pub fn torn(&self) -> &[Torn] {
        &self.torn
    }

    /// Returns the bytes of the segment just taken from the list.
    fn bytes_of(&mut self, name: &str) -> Result<Vec<u8>> {
        if let Some(bytes) = self.ahead.pop_front() {
            return Ok(bytes);
        }
        let behind = self.segments.iter().map(|(_, name)| name.as_str());
        let names: Vec<&str> = std::iter::once(name).chain(behind).collect();
        let failed = |error| Error::disk("reading", name, error);
        self.ahead = self.disk.read_some(&names).map_err(failed)?.into();
        self.ahead.pop_front().ok_or_else(|| failed(std::io::ErrorKind::UnexpectedEof.into()))
    }

    /// Opens the next segment, if there is one.
    fn next_segment(&mut self) -> Result<bool> {
        let Some((first, name)) = self.segments.pop_front() else { return Ok(false) };
        let expected = self.last.next();
        if first != expected {
            let reason =
                format!("it begins with entry {first}, but {expected} was expected: a segment is missing");
            return Err(Error::Corrupt { name, offset: 0, reason });
        }
        let bytes = self.bytes_of(&name)?;
        match frame::read_head(&bytes, first) {
            Ok(Head { length, salt }) => self.current = Some(Segment { name, bytes, at: length, salt }),
            // A crash came before anything in it was durable.
            Err(_) if self.segments.is_empty() && !frame::has_frames(&bytes, expected) => {
                self.torn.push(Torn { name, offset: 0, bytes: bytes.len() as u64 });
            }
            Err(reason) => return Err(Error::Corrupt { name, offset: 0, reason }),
        }
        Ok(true)
    }

    fn read(&mut self) -> Result<Option<(Sequence, Entry)>> {
        loop {
            let Some(segment) = &mut self.current else {
                if self.next_segment()? {
                    continue;
                }
                return Ok(None);
            };
            let rest = &segment.bytes[segment.at..];
            let offset = segment.at as u64;
            let corrupt = |reason: String| Error::Corrupt { name: segment.name.clone(), offset, reason };
            let expected = self.last.next();
            match frame::framed(rest, segment.salt) {
                Some(framed) if framed.sequence == expected => {
                    let entry = framed.body().and_then(|body| Entry::decode(&body));
                    let entry = entry
                        .map_err(|reason| corrupt(format!("entry {expected} can't be read: {reason}")))?;
                    segment.at += framed.length;
                    self.last = expected;
                    return Ok(Some((expected, entry)));
                }
                Some(framed) => {
                    let found = framed.sequence;
                    return Err(corrupt(format!("entry {found} is there, but {expected} was expected")));
                }
                None if frame::has_later(rest, expected, segment.salt) => {
                    let reason = format!("entry {expected} isn't whole, but others follow it");
                    return Err(corrupt(reason));
                }
                None => {
                    if !rest.is_empty() {
                        let torn = Torn { name: segment.name.clone(), offset, bytes: rest.len() as u64 };
                        self.torn.push(torn);
                    }
                    self.current = None;
                }
            }
        }
    }
}

impl Iterator for Entries {
    type Item = Result<(Sequence, Entry)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.read().transpose()? {
                Ok((sequence, _)) if sequence <= self.after => {}
                other => return Some(other),
            }
        }
    }
}
