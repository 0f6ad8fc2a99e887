//! The journal's thread of a process.

use std::collections::BTreeMap;

use super::world::{Item, Segment};
use crate::Sequence;
use crate::protocol::End;

type Journal = BTreeMap<Sequence, Segment>;

/// Writes entries in groups: appends and syncs them in a folder, puts them on a store. Removes segments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Writer {
    /// Entries that are appended, and entries that are being written.
    waiting: Vec<Item>,
    group: Vec<Item>,
    /// The first entry not known to be written.
    next: Sequence,
    /// The current segment of a folder; `ends` is true if it is to end.
    segment: Sequence,
    ends: bool,
    /// True if the group is in the file, and not yet synced.
    appended: bool,
    /// Segments to remove, which a checkpoint covers.
    forgetting: Vec<Sequence>,
}

impl Writer {
    pub fn new(next: Sequence) -> Writer {
        Writer {
            waiting: Vec::new(),
            group: Vec::new(),
            next,
            segment: next,
            ends: false,
            appended: false,
            forgetting: Vec::new(),
        }
    }

    pub fn push(&mut self, item: Item) {
        self.waiting.push(item);
    }

    /// Returns the first entry not known to be written.
    pub fn next(&self) -> Sequence {
        self.next
    }

    /// Returns true if entries are to be written.
    pub fn has_entries(&self) -> bool {
        !self.group.is_empty() || !self.waiting.is_empty()
    }

    /// Returns true if entries are in the file, and not yet synced.
    pub fn is_unsynced(&self) -> bool {
        self.appended
    }

    /// Appends the waiting entries to the current segment, or to a new one.
    pub fn append(&mut self, journal: &mut Journal) {
        self.group = std::mem::take(&mut self.waiting);
        let is_empty = journal.get(&self.segment).is_none_or(|segment| segment.items.is_empty());
        if std::mem::take(&mut self.ends) && !is_empty {
            self.segment = self.next;
        }
        journal.entry(self.segment).or_default().items.extend(&self.group);
        self.appended = true;
    }

    /// Puts the waiting entries as one object, atomically. Without an answer, the process puts the same bytes again.
    pub fn put(&mut self, journal: &mut Journal, if_absent: bool) -> Result<(), End> {
        if self.group.is_empty() {
            self.group = std::mem::take(&mut self.waiting);
        }
        let there = journal.get(&self.next).filter(|_| if_absent);
        if there.is_some_and(|segment| segment.items != self.group) {
            return Err(End::Lost);
        }
        let segment = Segment { items: self.group.clone(), synced: self.group.len(), forgotten: false };
        journal.insert(self.next, segment);
        Ok(())
    }

    /// Syncs the segment. Entries appended before a failed sync stay lost, because the system takes them for written.
    pub fn sync(&mut self, journal: &mut Journal) {
        let segment = journal.get_mut(&self.segment).expect("it is being written");
        if !segment.forgotten {
            segment.synced = segment.items.len();
        }
        self.appended = false;
    }

    pub fn fail_sync(&self, journal: &mut Journal) {
        journal.get_mut(&self.segment).expect("it is being written").forgotten = true;
    }

    /// Records that the group is written, and returns its last entry.
    pub fn written(&mut self) -> Sequence {
        let count = std::mem::take(&mut self.group).len() as u64;
        self.next = Sequence(self.next.0 + count);
        Sequence(self.next.0 - 1)
    }

    /// Begins another segment, and removes these ones, except for the open one of a folder.
    pub fn forget(&mut self, segments: Vec<Sequence>, stays_open: bool) {
        self.forgetting = segments;
        self.forgetting.retain(|first| !stays_open || *first != self.segment);
        self.ends = true;
    }

    /// Returns true if it has segments to remove.
    pub fn is_forgetting(&self) -> bool {
        !self.forgetting.is_empty()
    }

    /// Returns the next segment to remove.
    pub fn next_to_forget(&mut self) -> Sequence {
        self.forgetting.remove(0)
    }
}
