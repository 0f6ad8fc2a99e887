//! Different keys in their order.

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
    /// Adds a key, or takes it out; it doesn't matter whether it is there.
    pub fn set(&mut self, key: &[u8], there: bool) {
        self.tree.set(Entry { key, id: 0, copies: u64::from(there) });
    }

    /// Whether a key is there.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.tree.get(key).is_some()
    }

    /// How many keys are below this one.
    pub fn position(&self, key: &[u8]) -> u64 {
        self.tree.find(key).0
    }

    /// How many keys are below all that begin with `prefix`, and how many are not above them.
    pub fn positions(&self, prefix: &[u8]) -> Range<u64> {
        let end = match successor(prefix) {
            Some(end) => self.position(&end),
            None => self.tree.total(),
        };
        self.position(prefix)..end
    }

    /// The key at a position.
    pub fn key_at(&self, position: u64) -> Option<&[u8]> {
        let mut found = None;
        self.tree.scan(position, &mut |_, entry| {
            found = Some(entry.key);
            false
        });
        found
    }

    /// About how many bytes it takes.
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
