//! A hash table from hashes to slots that grows a bounded piece at a time.
//!
//! Keys lie elsewhere, addressed by slot: an entry is the 32 bits that are kept of a key's hash, and its slot.
//! Entries lie in segments, and a full segment is split in two, see [`Directory`].
//! Within a segment collisions go to the next place, and what is removed is closed up (Knuth, volume 3, 6.4,
//! algorithms L and R).

use super::NO_SLOT;
use crate::directory::Directory;

/// No entry: no slot has this number.
const EMPTY: u64 = u64::MAX;
/// How many places a segment has at first.
const PLACES_MIN: usize = 16;
/// A segment with as many places is split instead of growing.
const PLACES_MAX: usize = 8192;

/// Hashes and slots.
#[derive(Debug)]
pub(super) struct SlotTable {
    directory: Directory,
    segments: Vec<Segment>,
    /// How many places all segments have.
    places: usize,
}

#[derive(Debug)]
struct Segment {
    /// Hash and slot; as many as a power of two.
    places: Box<[u64]>,
    taken: usize,
    /// How many bits all its hashes begin with.
    depth: u32,
}

impl Default for SlotTable {
    fn default() -> SlotTable {
        let segments = vec![Segment::new(PLACES_MIN, 0)];
        SlotTable { directory: Directory::default(), segments, places: PLACES_MIN }
    }
}

fn entry(hash: u32, slot: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(slot)
}

#[inline(always)]
fn hash_of(entry: u64) -> u32 {
    (entry >> 32) as u32
}

impl SlotTable {
    #[inline(always)]
    fn segment(&self, hash: u32) -> &Segment {
        &self.segments[self.directory.part(hash)]
    }

    /// For each hash the first slot that has it, or [`NO_SLOT`]. Whether the keys are equal too is for the caller to
    /// say.
    pub(super) fn first(&self, hashes: &[u32], slots: &mut [u32]) {
        // Loads that don't wait for each other bring the places near; then they are looked at.
        for (hash, slot) in hashes.iter().zip(slots.iter_mut()) {
            let segment = self.segment(*hash);
            *slot = segment.places[segment.home(*hash)] as u32;
        }
        for (hash, slot) in hashes.iter().zip(slots) {
            let segment = self.segment(*hash);
            let mut place = segment.home(*hash);
            *slot = loop {
                let found = segment.places[place];
                if found == EMPTY {
                    break NO_SLOT;
                }
                if hash_of(found) == *hash {
                    break found as u32;
                }
                place = segment.after(place);
            };
        }
    }

    /// The slot with this hash for which `is` is true.
    pub(super) fn find(&self, hash: u32, is: impl FnMut(u32) -> bool) -> Option<u32> {
        let segment = self.segment(hash);
        Some(segment.places[segment.position(hash, is)?] as u32)
    }

    /// Adds a slot; it must not be there.
    pub(super) fn insert(&mut self, hash: u32, slot: u32) {
        while self.segments[self.directory.part(hash)].is_full() {
            self.make_room(self.directory.part(hash));
        }
        let number = self.directory.part(hash);
        self.segments[number].insert(entry(hash, slot));
    }

    /// Removes a slot.
    pub(super) fn remove(&mut self, hash: u32, slot: u32) {
        let number = self.directory.part(hash);
        self.segments[number].remove(hash, slot);
    }

    fn make_room(&mut self, number: usize) {
        let segment = &self.segments[number];
        let (places, depth) = (segment.places.len(), segment.depth);
        // Twice as large, or two of the size.
        self.places += places;
        if places < PLACES_MAX || !Directory::may_split(depth) {
            let mut larger = Segment::new(2 * places, depth);
            segment.entries().for_each(|entry| larger.insert(entry));
            self.segments[number] = larger;
            return;
        }
        let mut halves = [Segment::new(places, depth + 1), Segment::new(places, depth + 1)];
        for entry in segment.entries() {
            halves[Directory::half(hash_of(entry), depth)].insert(entry);
        }
        self.directory.split(number, depth, self.segments.len());
        let [first, second] = halves;
        self.segments[number] = first;
        self.segments.push(second);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.places * size_of::<u64>()
            + self.segments.capacity() * size_of::<Segment>()
            + self.directory.memory_bytes()
    }
}

impl Segment {
    fn new(places: usize, depth: u32) -> Segment {
        Segment { places: vec![EMPTY; places].into(), taken: 0, depth }
    }

    #[inline(always)]
    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.places.len() - 1)
    }

    #[inline(always)]
    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.places.len() - 1)
    }

    fn is_full(&self) -> bool {
        self.taken >= self.places.len() / 8 * 7
    }

    fn entries(&self) -> impl Iterator<Item = u64> {
        self.places.iter().copied().filter(|entry| *entry != EMPTY)
    }

    #[inline]
    fn position(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<usize> {
        let mut place = self.home(hash);
        loop {
            let found = self.places[place];
            if found == EMPTY {
                return None;
            }
            if hash_of(found) == hash && is(found as u32) {
                return Some(place);
            }
            place = self.after(place);
        }
    }

    fn insert(&mut self, entry: u64) {
        let mut place = self.home(hash_of(entry));
        while self.places[place] != EMPTY {
            place = self.after(place);
        }
        self.places[place] = entry;
        self.taken += 1;
    }

    fn remove(&mut self, hash: u32, slot: u32) {
        let Some(mut hole) = self.position(hash, |found| found == slot) else { return };
        self.taken -= 1;
        let mask = self.places.len() - 1;
        let mut place = hole;
        loop {
            self.places[hole] = EMPTY;
            loop {
                place = self.after(place);
                let found = self.places[place];
                if found == EMPTY {
                    return;
                }
                // It may move up to the hole unless its home lies behind that.
                let (from_home, from_hole) =
                    (place.wrapping_sub(self.home(hash_of(found))) & mask, place.wrapping_sub(hole) & mask);
                if from_home >= from_hole {
                    self.places[hole] = found;
                    hole = place;
                    break;
                }
            }
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

    /// Slots come and go, under hashes that `of` gives.
    fn check(count: u32, of: fn(u32) -> u32) {
        let mut table = SlotTable::default();
        let mut expected: HashMap<u32, u32> = HashMap::new();
        for slot in 0..count {
            table.insert(of(slot), slot);
            expected.insert(slot, of(slot));
            // A third goes again, somewhat later.
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
        // All in one segment: it can't be split, and grows.
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
