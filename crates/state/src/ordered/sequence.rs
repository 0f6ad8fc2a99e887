//! A sorted set of keys.

use super::leaf::Entry;
use super::successor;
use super::tree::Tree;
use crate::{Spillable, Spilling};
use std::ops::Range;

/// A set of byte strings, found by their value and by their position.
#[derive(Debug)]
pub struct Sequence {
    tree: Tree,
}

impl Default for Sequence {
    fn default() -> Sequence {
        Sequence { tree: Tree::new() }
    }
}

impl Sequence {
    /// Adds a key if `there` is true, else removes it. The key may be present or absent before.
    pub fn set(&mut self, key: &[u8], there: bool) {
        self.tree.set(Entry { key, id: 0, copies: u64::from(there) });
    }

    /// Returns true if the set contains a key.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.tree.get(key).is_some()
    }

    /// Returns the number of smaller keys.
    pub fn position(&self, key: &[u8]) -> u64 {
        self.tree.find(key).0
    }

    /// Returns the range of positions of the keys that begin with `prefix`.
    pub fn positions(&self, prefix: &[u8]) -> Range<u64> {
        let end = match successor(prefix) {
            Some(end) => self.position(&end),
            None => self.tree.total(),
        };
        self.position(prefix)..end
    }

    /// Returns the key at a position.
    pub fn key_at(&self, position: u64) -> Option<&[u8]> {
        let mut found = None;
        self.tree.scan(position, &mut |_, entry| {
            found = Some(entry.key);
            false
        });
        found
    }

    /// Returns the approximate memory in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.tree.memory_bytes()
    }
}

impl Spillable for Sequence {
    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        self.tree.spill(spilling);
    }

    fn spilled_bytes(&self) -> usize {
        self.tree.spilled_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_value_and_by_position() {
        let mut sequence = Sequence::default();
        for key in ["ab", "b", "aa", "c", "aa", "ac"] {
            sequence.set(key.as_bytes(), true);
        }
        sequence.set(b"c", false);
        sequence.set(b"d", false);
        assert_eq!(
            (0..5).map(|at| sequence.key_at(at)).collect::<Vec<_>>(),
            [Some(&b"aa"[..]), Some(b"ab"), Some(b"ac"), Some(b"b"), None]
        );
        assert_eq!(sequence.positions(b"a"), 0..3);
        assert_eq!((sequence.position(b"b"), sequence.position(b"zz")), (3, 4));
        assert!(sequence.contains(b"ab") && !sequence.contains(b"c"));
        assert!(sequence.memory_bytes() > 0);
    }
}
