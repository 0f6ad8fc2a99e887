//! The approximate time of each key's last touch, and the keys that have been idle for too long.

use std::collections::BTreeMap;

use millstream_delta::Timestamp;

/// The number of pieces of the time to live; a key may live longer by the length of a piece.
const PIECES: i64 = 8;
/// The value for a slot without a key.
const NEVER: i64 = i64::MIN;

/// Keys by slot, each in the piece of time of its last touch.
#[derive(Debug)]
pub(super) struct Idle {
    ttl_us: i64,
    width_us: i64,
    /// The piece of the last touch, by slot.
    last: Vec<i64>,
    /// The slots touched in each piece; those touched again later are skipped at its end.
    pieces: BTreeMap<i64, Vec<u32>>,
}

impl Idle {
    /// Returns no keys; a key untouched for `ttl_us` microseconds is idle.
    pub(super) fn new(ttl_us: i64) -> Idle {
        Idle { ttl_us, width_us: (ttl_us / PIECES).max(1), last: Vec::new(), pieces: BTreeMap::new() }
    }

    /// Records that a row of the key was inserted or deleted.
    pub(super) fn touch(&mut self, slot: u32, now: Timestamp) {
        self.touch_in(slot, now.0.div_euclid(self.width_us));
    }

    /// Does the same, for a piece of time.
    pub(super) fn touch_in(&mut self, slot: u32, piece: i64) {
        if self.last.len() <= slot as usize {
            self.last.resize(slot as usize + 1, NEVER);
        }
        let last = &mut self.last[slot as usize];
        if *last != piece {
            *last = piece;
            self.pieces.entry(piece).or_default().push(slot);
        }
    }

    /// Returns the piece of time of the last touch of the slot's key, if it has one.
    pub(super) fn piece(&self, slot: u32) -> Option<i64> {
        self.last.get(slot as usize).copied().filter(|piece| *piece != NEVER)
    }

    /// Returns the pieces of time in which keys were touched, in order. All keys of a piece may have been
    /// touched again later.
    pub(super) fn pieces(&self) -> impl Iterator<Item = i64> {
        self.pieces.keys().copied()
    }

    /// Adds a piece of time whose keys were touched again later.
    pub(super) fn add(&mut self, piece: i64) {
        self.pieces.entry(piece).or_default();
    }

    /// Returns true if the slot has a key.
    pub(super) fn is_alive(&self, slot: u32) -> bool {
        self.last.get(slot as usize).is_some_and(|last| *last != NEVER)
    }

    /// Records that the slot has no key any more.
    pub(super) fn remove(&mut self, slot: u32) {
        if let Some(last) = self.last.get_mut(slot as usize) {
            *last = NEVER;
        }
    }

    /// Returns the earliest time at which some key may be idle.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.pieces.keys().next().map(|piece| self.end(*piece))
    }

    /// Returns the time at which keys last touched in a piece are idle.
    fn end(&self, piece: i64) -> Timestamp {
        Timestamp(piece.saturating_add(1).saturating_mul(self.width_us).saturating_add(self.ttl_us))
    }

    /// Removes the keys that are idle by now, in the order of their last touch.
    pub(super) fn take(&mut self, now: Timestamp) -> Vec<u32> {
        let mut idle = Vec::new();
        while let Some(piece) = self.pieces.keys().next().copied().filter(|piece| self.end(*piece) <= now) {
            for slot in self.pieces.remove(&piece).unwrap_or_default() {
                if self.last[slot as usize] == piece {
                    self.last[slot as usize] = NEVER;
                    idle.push(slot);
                }
            }
        }
        idle
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let listed: usize = self.pieces.values().map(|slots| slots.capacity() * size_of::<u32>()).sum();
        self.last.capacity() * size_of::<i64>() + listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_idle_after_their_time_and_not_before() {
        let mut idle = Idle::new(80);
        idle.touch(0, Timestamp(5));
        idle.touch(1, Timestamp(9));
        idle.touch(2, Timestamp(12));
        idle.touch(0, Timestamp(30));
        assert_eq!(idle.next(), Some(Timestamp(90)));
        assert_eq!(idle.take(Timestamp(89)), Vec::<u32>::new());
        assert_eq!(idle.take(Timestamp(90)), [1]);
        assert!(!idle.is_alive(1) && idle.is_alive(0) && !idle.is_alive(7));
        idle.remove(2);
        idle.touch(2, Timestamp(13));
        assert_eq!(idle.take(Timestamp(1000)), [2, 0]);
        assert_eq!(idle.next(), None);
    }
}
