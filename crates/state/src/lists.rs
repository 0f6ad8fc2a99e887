//! Lists of row ids, one per slot.

use crate::paged::Paged;
use crate::sizes::Size;
use crate::spill::Values;
use crate::{Error, Result, Spillable, Spilling};

/// The capacity of the rooms that share a segment, a power of two; larger rooms have a segment of their own.
const SEGMENT: Size = Size::of(1 << 12);

/// Returns the class of the largest rooms that share a segment.
#[inline(always)]
fn segment_class() -> u8 {
    SEGMENT.bits() as u8
}

/// Returns the number of ids in a segment.
fn segment_ids() -> usize {
    1 << segment_class()
}

/// Lists of ids, each in order of arrival.
///
/// A single id is stored inline. More ids share a room, and a list that outgrows its room moves to one of
/// twice the size; the old room is reused. Nothing else ever moves, however many lists there are.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// By slot: the only id, or the location of the room if there are more.
    words: Paged<u64>,
    lens: Paged<u32>,
    segments: Vec<Values<u64>>,
    /// The number of their spilled bytes.
    spilled: usize,
    /// The segment from which small rooms are allocated.
    filling: Option<u32>,
    /// Numbers of unused segments.
    unused: Vec<u32>,
    /// Unused rooms, by class.
    free: Vec<Vec<u64>>,
}

impl Clone for Lists {
    /// Returns the same lists in memory.
    fn clone(&self) -> Lists {
        Lists {
            words: self.words.clone(),
            lens: self.lens.clone(),
            segments: self.segments.clone(),
            spilled: 0,
            filling: self.filling,
            unused: self.unused.clone(),
            free: self.free.clone(),
        }
    }
}

/// The location of a list of more than one id.
#[derive(Clone, Copy)]
struct Room {
    segment: u32,
    offset: u32,
    /// The base-2 logarithm of its capacity.
    class: u8,
}

impl Room {
    fn of(word: u64) -> Room {
        Room { segment: (word >> 32) as u32, offset: (word >> 8) as u32 & 0xff_ffff, class: word as u8 }
    }

    fn word(self) -> u64 {
        u64::from(self.segment) << 32 | u64::from(self.offset) << 8 | u64::from(self.class)
    }
}

impl Lists {
    /// Returns the ids of a slot in order of arrival.
    pub(crate) fn get(&self, slot: u32) -> &[u64] {
        match self.len(slot) {
            0 => &[],
            1 => std::slice::from_ref(&self.words[slot as usize]),
            len => {
                let room = Room::of(self.words[slot as usize]);
                &self.segments[room.segment as usize][room.offset as usize..][..len]
            }
        }
    }

    /// Returns the number of ids of a slot.
    pub(crate) fn len(&self, slot: u32) -> usize {
        if (slot as usize) < self.lens.len() { self.lens[slot as usize] as usize } else { 0 }
    }

    /// Appends an id to a slot's list.
    pub(crate) fn push(&mut self, slot: u32, id: u64) -> Result<()> {
        let at = slot as usize;
        self.words.resize(at + 1, 0);
        self.lens.resize(at + 1, 0);
        let len = self.lens[at] as usize;
        match len {
            0 => self.words[at] = id,
            1 => {
                let first = self.words[at];
                let room = self.room(1)?;
                self.ids(room)[..2].copy_from_slice(&[first, id]);
                self.words[at] = room.word();
            }
            _ => {
                let mut room = Room::of(self.words[at]);
                if len == 1 << room.class {
                    room = self.move_to(slot, room.class + 1)?;
                }
                self.ids(room)[len] = id;
            }
        }
        self.lens[at] += 1;
        Ok(())
    }

    /// Removes the ids at these indices, ascending, from a slot's list.
    pub(crate) fn remove(&mut self, slot: u32, places: &[u32]) -> Result<()> {
        let (at, len) = (slot as usize, self.len(slot));
        if len <= 1 {
            self.lens[at] = (len - places.len()) as u32;
            return Ok(());
        }
        let room = Room::of(self.words[at]);
        let ids = &mut self.ids(room)[..len];
        let mut gone = places.iter().copied().peekable();
        let mut kept = 0;
        for place in 0..len {
            if gone.next_if_eq(&(place as u32)).is_none() {
                ids[kept] = ids[place];
                kept += 1;
            }
        }
        let first = ids[0];
        self.lens[at] = kept as u32;
        if kept <= 1 {
            self.words[at] = first;
            self.give_back(room);
        } else if room.class > 1 && kept <= 1 << (room.class - 2) {
            self.move_to(slot, room.class - 1)?;
        }
        Ok(())
    }

    /// Moves a list of more than one id to another room.
    fn move_to(&mut self, slot: u32, class: u8) -> Result<Room> {
        let ids = self.get(slot).to_vec();
        let from = Room::of(self.words[slot as usize]);
        let room = self.room(class)?;
        self.ids(room)[..ids.len()].copy_from_slice(&ids);
        self.give_back(from);
        self.words[slot as usize] = room.word();
        Ok(room)
    }

    fn ids(&mut self, room: Room) -> &mut [u64] {
        &mut self.segments[room.segment as usize][room.offset as usize..][..1 << room.class]
    }

    fn room(&mut self, class: u8) -> Result<Room> {
        if class > segment_class() {
            let segment = self.segment()?;
            self.put(segment, vec![0; 1 << class]);
            return Ok(Room { segment, offset: 0, class });
        }
        if let Some(room) = self.free.get_mut(class as usize).and_then(Vec::pop) {
            return Ok(Room::of(room));
        }
        let size = 1 << class;
        let fits = |segment: &u32| self.segments[*segment as usize].len() + size <= segment_ids();
        let segment = match self.filling.filter(fits) {
            Some(segment) => segment,
            None => {
                self.keep_rest();
                let segment = self.segment()?;
                *self.filling.insert(segment)
            }
        };
        let offset = self.segments[segment as usize].len() as u32;
        self.grow(segment, offset as usize + size);
        Ok(Room { segment, offset, class })
    }

    /// Extends a segment. If it is spilled, it returns to memory.
    fn grow(&mut self, segment: u32, len: usize) {
        let ids = &mut self.segments[segment as usize];
        self.spilled -= ids.spilled_bytes();
        ids.as_vec(|ids| ids.resize(len, 0));
    }

    fn put(&mut self, segment: u32, ids: Vec<u64>) {
        let segment = &mut self.segments[segment as usize];
        self.spilled -= segment.spilled_bytes();
        *segment = ids.into();
    }

    /// Returns an empty segment.
    fn segment(&mut self) -> Result<u32> {
        if let Some(segment) = self.unused.pop() {
            return Ok(segment);
        }
        let number = u32::try_from(self.segments.len()).map_err(|_| Error::Full(self.segments.len()))?;
        self.segments.push(Values::default());
        Ok(number)
    }

    /// Closes the segment being filled: its rest becomes free rooms.
    fn keep_rest(&mut self) {
        let Some(segment) = self.filling.take() else { return };
        let mut offset = self.segments[segment as usize].len();
        self.grow(segment, segment_ids());
        while offset < segment_ids() {
            // The largest room that can begin here; a rest of less than two ids is lost.
            let class = offset.trailing_zeros().min((segment_ids() - offset).ilog2()) as u8;
            if class > 0 {
                self.give_back(Room { segment, offset: offset as u32, class });
            }
            offset += 1 << class;
        }
    }

    fn give_back(&mut self, room: Room) {
        if room.class > segment_class() {
            self.put(room.segment, Vec::new());
            self.unused.push(room.segment);
            return;
        }
        if self.free.len() <= room.class as usize {
            self.free.resize(room.class as usize + 1, Vec::new());
        }
        self.free[room.class as usize].push(room.word());
    }

    /// Returns the approximate memory of the lists in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let free: usize = self.free.iter().map(|rooms| rooms.capacity() * size_of::<u64>()).sum();
        let ids: usize = self.segments.iter().map(Values::memory_bytes).sum();
        let segments = self.segments.capacity() * size_of::<Values<u64>>();
        self.words.memory_bytes() + self.lens.memory_bytes() + ids + segments + free
    }
}

impl Spillable for Lists {
    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        self.words.spill(spilling);
        self.lens.spill(spilling);
        self.spilled += spilling.move_out(&mut self.segments);
    }

    fn spilled_bytes(&self) -> usize {
        self.words.spilled_bytes() + self.lens.spilled_bytes() + self.spilled
    }
}

#[cfg(test)]
mod tests {
    use millstream_seeds::Random;

    use super::*;

    #[test]
    fn one_id_a_slot_takes_no_more_than_its_words() {
        let mut lists = Lists::default();
        (0..100_000).for_each(|slot| lists.push(slot, u64::from(slot) << 40).unwrap());
        assert!(lists.memory_bytes() < 13 * 100_000, "{}", lists.memory_bytes());
        assert!((0..100_000).all(|slot| lists.get(slot) == [u64::from(slot) << 40]));
    }

    #[test]
    fn long_lists_grow_and_leave() {
        let mut lists = Lists::default();
        for slot in [3, 3, 9] {
            let len = lists.len(slot) as u64;
            (len..len + 50_000).for_each(|id| lists.push(slot, id).unwrap());
        }
        assert!(lists.get(3).iter().copied().eq(0..100_000));
        let all: Vec<u32> = (0..100_000).filter(|place| *place != 70_000).collect();
        lists.remove(3, &all).unwrap();
        assert_eq!(lists.get(3), [70_000]);
        lists.remove(3, &[0]).unwrap();
        assert_eq!(lists.len(3), 0);
        assert!(lists.get(9).iter().copied().eq(0..50_000));
        assert!(lists.memory_bytes() < 8 * 80_000, "{}", lists.memory_bytes());
    }

    #[test]
    fn lists_keep_their_order_and_rooms_are_used_again() {
        let mut lists = Lists::default();
        let mut expected: Vec<Vec<u64>> = vec![Vec::new(); 50];
        let mut random = Random(7);
        let mut below = |bound| random.below(bound);
        let mut bytes = 0;
        for id in 0..60_000u64 {
            let slot = below(50) as usize;
            if below(3) > 0 {
                lists.push(slot as u32, id).unwrap();
                expected[slot].push(id);
            } else if !expected[slot].is_empty() {
                let share = below(4);
                let gone: Vec<u32> = (0..expected[slot].len() as u32).filter(|_| below(4) <= share).collect();
                for at in gone.iter().rev() {
                    expected[slot].remove(*at as usize);
                }
                lists.remove(slot as u32, &gone).unwrap();
            }
            assert_eq!(lists.get(slot as u32), expected[slot]);
            assert_eq!(lists.len(slot as u32), expected[slot].len());
            if id == 30_000 {
                bytes = lists.memory_bytes();
            }
        }
        assert!((0..50).all(|slot| lists.get(slot) == expected[slot as usize]));
        assert!(lists.memory_bytes() < 2 * bytes, "{} after {bytes}", lists.memory_bytes());
        assert!(lists.get(77).is_empty());
    }
}
