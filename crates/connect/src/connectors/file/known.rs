//! The files that a source knows: the state of each, and the round in which it checks them for changes.

use std::collections::HashMap;
use std::sync::Arc;

use super::reading::Seen;

/// Maximum number of read files that one listing checks for changes.
const CHECKS_PER_LISTING: usize = 1024;

/// The state of one file.
#[derive(Debug)]
pub(super) struct Known {
    /// The number of the newest reading, from 1.
    pub(super) generation: u32,
    /// The first reading that found the present content.
    pub(super) holds_since: u32,
    pub(super) through: u64,
    pub(super) done: bool,
    /// Length and time when the file was last checked.
    pub(super) seen: Option<Seen>,
    /// True if the file no longer holds what was read.
    pub(super) changed: bool,
    /// True if the file is checked for changes.
    pub(super) watched: bool,
    /// True if a change of this file was already reported.
    pub(super) told: bool,
}

/// The state of a file that a repeated reading must find.
#[derive(Clone, Copy, Debug)]
pub(super) struct Earlier {
    /// The first reading that found the present content.
    pub holds_since: u32,
    pub changed: bool,
    pub through: u64,
    pub seen: Option<Seen>,
}

impl Known {
    pub(super) fn new(generation: u32) -> Known {
        Known {
            generation,
            holds_since: generation,
            through: 0,
            done: false,
            seen: None,
            changed: false,
            watched: false,
            told: false,
        }
    }

    /// Returns the state that a repeated reading must find.
    pub(super) fn earlier(&self) -> Earlier {
        Earlier {
            holds_since: self.holds_since,
            changed: self.changed,
            through: self.through,
            seen: self.seen,
        }
    }
}

/// The known files by path. Those that are watched are checked for changes in turn.
#[derive(Debug, Default)]
pub(super) struct KnownFiles {
    known: HashMap<Arc<str>, Known>,
    watched: Vec<Arc<str>>,
    /// The place of the next file to check.
    next: usize,
    /// The number of changes to files after their end was read.
    changes: u64,
}

impl KnownFiles {
    pub(super) fn get(&self, path: &str) -> Option<&Known> {
        self.known.get(path)
    }

    pub(super) fn get_mut(&mut self, path: &str) -> Option<&mut Known> {
        self.known.get_mut(path)
    }

    /// Returns the state of a file, that of a first reading if it was unknown.
    pub(super) fn get_or_new(&mut self, path: &Arc<str>, generation: u32) -> &mut Known {
        self.known.entry(path.clone()).or_insert_with(|| Known::new(generation))
    }

    pub(super) fn contains(&self, path: &str) -> bool {
        self.known.contains_key(path)
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &Arc<str>> {
        self.known.keys()
    }

    /// Adds a file, and watches it if its state says so.
    pub(super) fn insert(&mut self, path: Arc<str>, known: Known) {
        if known.watched {
            self.watched.push(path.clone());
        }
        self.known.insert(path, known);
    }

    pub(super) fn forget(&mut self, path: &Arc<str>) {
        self.known.remove(path);
        self.watched.retain(|watched| watched != path);
    }

    /// Watches a known file from now on.
    pub(super) fn watch(&mut self, path: &Arc<str>) {
        if let Some(known) = self.known.get_mut(path)
            && !std::mem::replace(&mut known.watched, true)
        {
            self.watched.push(path.clone());
        }
    }

    /// Watches the files that were read to their end, or all of them, in the order of their paths. Returns the others
    /// that are open, in the same order.
    pub(super) fn watch_again(&mut self, all: bool) -> Vec<Arc<str>> {
        let mut open: Vec<Arc<str>> = Vec::new();
        self.watched.clear();
        for (path, known) in &mut self.known {
            known.watched = known.done || all;
            if known.watched {
                self.watched.push(path.clone());
            }
            if !known.done {
                open.push(path.clone());
            }
        }
        self.watched.sort_unstable();
        open.sort_unstable();
        open
    }

    /// Counts a change to a file after its end was read, and returns the number of all.
    pub(super) fn count_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    /// Returns the number of checks of one listing.
    pub(super) fn checks(&self) -> usize {
        self.watched.len().min(CHECKS_PER_LISTING)
    }

    /// Returns the next file to check; after the last one comes the first.
    pub(super) fn next_check(&mut self) -> Option<Arc<str>> {
        let count = self.watched.len();
        let path = self.watched.get(self.next % count.max(1))?.clone();
        self.next = (self.next + 1) % count;
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watched_files_are_checked_in_turn() {
        let mut files = KnownFiles::default();
        assert_eq!((files.checks(), files.next_check()), (0, None));
        for path in ["a", "b", "c"] {
            files.insert(path.into(), Known { watched: path != "b", ..Known::new(1) });
        }
        let mut round = || files.next_check().unwrap().to_string();
        assert_eq!([round(), round(), round()], ["a", "c", "a"]);
        files.watch(&"b".into());
        files.watch(&"b".into());
        assert_eq!((files.checks(), files.next_check().as_deref()), (3, Some("c")));
        files.forget(&"b".into());
        files.forget(&"c".into());
        // The cursor was behind the end.
        assert_eq!((files.checks(), files.next_check().as_deref()), (1, Some("a")));
    }

    #[test]
    fn a_seek_watches_what_is_done() {
        let mut files = KnownFiles::default();
        for path in ["c", "a", "b"] {
            files.get_or_new(&path.into(), 1).done = path != "b";
        }
        assert_eq!(files.watch_again(false), [Arc::from("b")]);
        assert_eq!(files.next_check().as_deref(), Some("a"));
        assert_eq!((files.watch_again(true).len(), files.checks()), (1, 3));
    }
}
