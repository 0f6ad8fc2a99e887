//! A hash table from hashes to slots that grows by a bounded amount at a time.
//!
//! Keys are stored elsewhere, addressed by slot. An entry is 32 bits of a key's hash, and its slot. Entries
//! are in segments, and a full segment is split in two, see [`Directory`]. Within a segment they are in
//! groups of one cache line, compared at once. If its own group is full, an entry goes to the next one with
//! room (buckets with linear probing: Knuth, volume 3, 6.4). Removal closes the gap, so that a search ends at
//! the first group that isn't full.

use super::NO_SLOT;
use crate::directory::Directory;
use crate::sizes::Size;
use crate::spill::{Spillable, Spilling, Values};

/// The number of entries in a group.
const WAYS: usize = 8;
/// A segment with this number of groups is split instead of grown.
const GROUPS_MAX: Size = Size::from(1024, 16);
/// The number of entries from which the table exceeds the innermost cache.
const FAR_PLACES: Size = Size::of(1 << 11);

/// Hashes and slots.
#[derive(Debug)]
pub(crate) struct SlotTable {
    directory: Directory,
    segments: Vec<Segment>,
    /// The number of groups of all segments.
    groups: usize,
    /// The number of their spilled bytes.
    spilled: usize,
}

#[derive(Clone, Debug)]
struct Segment {
    /// The groups; their number is a power of two.
    groups: Values<Group>,
    taken: usize,
    /// The number of first bits that all its hashes share.
    depth: u32,
}

/// Entries whose hashes are compared at once. Empty entries come last; their slots are [`NO_SLOT`].
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Group {
    hashes: [u32; WAYS],
    slots: [u32; WAYS],
}

impl Default for SlotTable {
    fn default() -> SlotTable {
        let segments = vec![Segment { groups: vec![Group::EMPTY].into(), taken: 0, depth: 0 }];
        SlotTable { directory: Directory::default(), segments, groups: 1, spilled: 0 }
    }
}

impl Clone for SlotTable {
    /// Returns the same table in memory.
    fn clone(&self) -> SlotTable {
        let (directory, segments) = (self.directory.clone(), self.segments.clone());
        SlotTable { directory, segments, groups: self.groups, spilled: 0 }
    }
}

impl SlotTable {
    #[inline(always)]
    fn segment(&self, hash: u32) -> &Segment {
        &self.segments[self.directory.part(hash)]
    }

    /// Writes, for each hash, the first slot that has it, or [`NO_SLOT`]. The caller must compare the keys.
    pub(super) fn first(&self, hashes: &[u32], slots: &mut [u32]) {
        if self.groups * WAYS >= FAR_PLACES.get() {
            // Independent loads prefetch the groups.
            for (hash, slot) in hashes.iter().zip(slots.iter_mut()) {
                let segment = self.segment(*hash);
                *slot = segment.groups[segment.home(*hash)].slots[0];
            }
        }
        for (hash, slot) in hashes.iter().zip(slots) {
            let segment = self.segment(*hash);
            let mut place = segment.home(*hash);
            *slot = loop {
                let group = &segment.groups[place];
                if let Some(way) = group.first(*hash) {
                    break group.slots[way];
                }
                if !group.is_full() {
                    break NO_SLOT;
                }
                place = segment.after(place);
            };
        }
    }

    /// Returns the slot with this hash for which `is` returns true.
    pub(crate) fn find(&self, hash: u32, is: impl FnMut(u32) -> bool) -> Option<u32> {
        let segment = self.segment(hash);
        segment.position(hash, is).map(|(place, way)| segment.groups[place].slots[way])
    }

    /// Adds a slot, which must be absent.
    pub(crate) fn insert(&mut self, hash: u32, slot: u32) {
        while self.segments[self.directory.part(hash)].is_full() {
            self.make_room(self.directory.part(hash));
        }
        let number = self.directory.part(hash);
        self.segments[number].insert(hash, slot);
    }

    /// Removes a slot.
    pub(crate) fn remove(&mut self, hash: u32, slot: u32) {
        let number = self.directory.part(hash);
        self.segments[number].remove(hash, slot);
    }

    fn make_room(&mut self, number: usize) {
        let segment = &self.segments[number];
        let (groups, depth) = (segment.groups.len(), segment.depth);
        // Doubles the segment, or splits it into two of its size.
        self.groups += groups;
        if groups < GROUPS_MAX.get() || !Directory::may_split(depth) {
            let mut larger = segment.beside(2 * groups, depth);
            segment.entries().for_each(|(hash, slot)| larger.insert(hash, slot));
            self.put(number, larger);
            return;
        }
        let mut halves = [segment.beside(groups, depth + 1), segment.beside(groups, depth + 1)];
        for (hash, slot) in segment.entries() {
            halves[Directory::half(hash, depth)].insert(hash, slot);
        }
        self.directory.split(number, depth, self.segments.len());
        let [first, second] = halves;
        self.put(number, first);
        self.spilled += second.groups.spilled_bytes();
        self.segments.push(second);
    }

    fn put(&mut self, number: usize, segment: Segment) {
        self.spilled += segment.groups.spilled_bytes();
        self.spilled -= self.segments[number].groups.spilled_bytes();
        self.segments[number] = segment;
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.groups * size_of::<Group>() - self.spilled
            + self.segments.capacity() * size_of::<Segment>()
            + self.directory.memory_bytes()
    }
}

impl Spillable for SlotTable {
    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        self.spilled += spilling.move_out(self.segments.iter_mut().map(|segment| &mut segment.groups));
    }

    fn spilled_bytes(&self) -> usize {
        self.spilled
    }
}

impl Group {
    const EMPTY: Group = Group { hashes: [0; WAYS], slots: [NO_SLOT; WAYS] };

    /// Returns the entries with this hash as bits. They may include an empty entry after the used ones.
    #[inline(always)]
    fn with(&self, hash: u32) -> u32 {
        let with = |bits, (way, found): (usize, &u32)| bits | u32::from(*found == hash) << way;
        self.hashes.iter().enumerate().fold(0, with)
    }

    /// Returns the first entry with this hash; it may be an empty one if no used entry matches.
    #[inline(always)]
    fn first(&self, hash: u32) -> Option<usize> {
        let way = self.with(hash).trailing_zeros() as usize;
        (way < WAYS).then_some(way)
    }

    #[inline(always)]
    fn is_full(&self) -> bool {
        self.slots[WAYS - 1] != NO_SLOT
    }

    fn taken(&self) -> usize {
        self.slots.iter().position(|slot| *slot == NO_SLOT).unwrap_or(WAYS)
    }

    fn put(&mut self, way: usize, hash: u32, slot: u32) {
        (self.hashes[way], self.slots[way]) = (hash, slot);
    }

    /// Removes an entry; the last one takes its place.
    fn take(&mut self, way: usize) {
        let last = self.taken() - 1;
        self.put(way, self.hashes[last], self.slots[last]);
        self.put(last, 0, NO_SLOT);
    }
}

impl Segment {
    /// Returns an empty segment in the same place: memory or file.
    fn beside(&self, groups: usize, depth: u32) -> Segment {
        Segment { groups: self.groups.beside(groups, Group::EMPTY), taken: 0, depth }
    }

    #[inline(always)]
    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.groups.len() - 1)
    }

    #[inline(always)]
    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.groups.len() - 1)
    }

    /// Returns true if the segment accepts no more entries. Some group always has room, where searches end.
    fn is_full(&self) -> bool {
        self.taken >= self.groups.len() * (WAYS - 1)
    }

    fn entries(&self) -> impl Iterator<Item = (u32, u32)> {
        let all = self.groups.iter().flat_map(|group| group.hashes.into_iter().zip(group.slots));
        all.filter(|(_, slot)| *slot != NO_SLOT)
    }

    #[inline]
    fn position(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<(usize, usize)> {
        let mut place = self.home(hash);
        loop {
            let group = &self.groups[place];
            let mut ways = group.with(hash);
            while ways != 0 {
                let way = ways.trailing_zeros() as usize;
                if group.slots[way] != NO_SLOT && is(group.slots[way]) {
                    return Some((place, way));
                }
                ways &= ways - 1;
            }
            if !group.is_full() {
                return None;
            }
            place = self.after(place);
        }
    }

    fn insert(&mut self, hash: u32, slot: u32) {
        let mut place = self.home(hash);
        while self.groups[place].is_full() {
            place = self.after(place);
        }
        let group = &mut self.groups[place];
        group.put(group.taken(), hash, slot);
        self.taken += 1;
    }

    fn remove(&mut self, hash: u32, slot: u32) {
        let Some((mut place, mut way)) = self.position(hash, |found| found == slot) else { return };
        self.taken -= 1;
        loop {
            let was_full = self.groups[place].is_full();
            self.groups[place].take(way);
            let Some(moved) = was_full.then(|| self.passed(place)).flatten() else { return };
            let (from, at) = moved;
            let (hash, slot) = (self.groups[from].hashes[at], self.groups[from].slots[at]);
            self.groups[place].put(WAYS - 1, hash, slot);
            (place, way) = moved;
        }
    }

    /// Returns an entry that was placed after a group because that group was full.
    fn passed(&self, place: usize) -> Option<(usize, usize)> {
        let mask = self.groups.len() - 1;
        let mut at = self.after(place);
        loop {
            let group = &self.groups[at];
            let span = at.wrapping_sub(place) & mask;
            let passed = |hash: &u32| at.wrapping_sub(self.home(*hash)) & mask >= span;
            if let Some(way) = group.hashes[..group.taken()].iter().position(passed) {
                return Some((at, way));
            }
            if !group.is_full() {
                return None;
            }
            at = self.after(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn mixed(number: u32) -> u32 {
        (u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
    }

    /// Adds and removes slots under the hashes of `of`.
    fn check(count: u32, of: fn(u32) -> u32) {
        let mut table = SlotTable::default();
        let mut expected: HashMap<u32, u32> = HashMap::new();
        for slot in 0..count {
            table.insert(of(slot), slot);
            expected.insert(slot, of(slot));
            // Removes a third of them somewhat later.
            let gone = slot.wrapping_sub(1000);
            if gone % 3 == 0 && expected.remove(&gone).is_some() {
                table.remove(of(gone), gone);
            }
        }
        for slot in 0..count {
            let found = table.find(of(slot), |found| found == slot);
            assert_eq!(found.is_some(), expected.contains_key(&slot), "slot {slot}");
        }
        let hashes: Vec<u32> = (0..count).map(of).collect();
        let mut first = vec![0; hashes.len()];
        table.first(&hashes, &mut first);
        for (hash, slot) in hashes.iter().zip(first) {
            assert!(slot == NO_SLOT || expected[&slot] == *hash);
        }
        let taken: usize = table.segments.iter().map(|segment| segment.taken).sum();
        assert_eq!(taken, expected.len());
    }

    #[test]
    fn what_is_there_is_found_and_what_is_gone_is_not() {
        check(10, mixed);
        check(200_000, mixed);
    }

    #[test]
    fn hashes_may_collide() {
        check(30_000, |slot| mixed(slot / 20));
        // All hashes share one segment, which can't be split and so grows.
        check(3_000, |slot| slot % 7);
        check(20_000, |slot| slot / 2 % 8192);
    }

    #[test]
    fn a_place_takes_less_than_twenty_bytes_a_key() {
        let mut table = SlotTable::default();
        for slot in 0..1_000_000 {
            table.insert(mixed(slot), slot);
            let keys = slot as usize + 1;
            assert!(keys < 10_000 || table.memory_bytes() < keys * 20, "{} for {keys}", table.memory_bytes());
        }
    }
}
