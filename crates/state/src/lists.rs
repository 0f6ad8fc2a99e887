//! Lists of row ids, one for each slot, in one block of memory.

use crate::{Error, Result};

/// A list: where its ids lie.
#[derive(Clone, Copy, Debug, Default)]
struct List {
    start: u32,
    len: u32,
    /// Its room is two to the power of this; there is none when the list is empty.
    class: u8,
}

/// Lists of ids. Each lies in one piece; one that outgrows its room moves to twice as much, and what it leaves is
/// used again.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    ids: Vec<u64>,
    lists: Vec<List>,
    /// Rooms that nobody uses, by class.
    free: Vec<Vec<u32>>,
}

impl Lists {
    /// The ids of a slot, in the order in which they came.
    pub(crate) fn get(&self, slot: u32) -> &[u64] {
        match self.lists.get(slot as usize) {
            Some(list) => &self.ids[list.start as usize..][..list.len as usize],
            None => &[],
        }
    }

    /// How many ids a slot has.
    pub(crate) fn len(&self, slot: u32) -> usize {
        self.lists.get(slot as usize).map_or(0, |list| list.len as usize)
    }

    /// Adds an id to a slot's end.
    pub(crate) fn push(&mut self, slot: u32, id: u64) -> Result<()> {
        if slot as usize >= self.lists.len() {
            self.lists.resize(slot as usize + 1, List::default());
        }
        let list = self.lists[slot as usize];
        if list.len == 0 {
            let start = self.room(0)?;
            self.lists[slot as usize] = List { start, len: 0, class: 0 };
        } else if list.len == 1 << list.class {
            self.move_to(slot, list.class + 1)?;
        }
        let list = &mut self.lists[slot as usize];
        self.ids[(list.start + list.len) as usize] = id;
        list.len += 1;
        Ok(())
    }

    /// Takes the ids at these places, ascending, out of a slot's list.
    pub(crate) fn remove(&mut self, slot: u32, places: &[u32]) -> Result<()> {
        let list = self.lists[slot as usize];
        let ids = &mut self.ids[list.start as usize..][..list.len as usize];
        let mut gone = places.iter().copied().peekable();
        let mut kept = 0;
        for at in 0..ids.len() {
            if gone.next_if_eq(&(at as u32)).is_none() {
                ids[kept] = ids[at];
                kept += 1;
            }
        }
        self.lists[slot as usize].len = kept as u32;
        if kept == 0 {
            self.give_back(list.start, list.class);
        } else if list.class > 1 && kept <= 1 << (list.class - 2) {
            self.move_to(slot, list.class - 1)?;
        }
        Ok(())
    }

    /// Gives a list, which has ids, another room.
    fn move_to(&mut self, slot: u32, class: u8) -> Result<()> {
        let start = self.room(class)?;
        let list = self.lists[slot as usize];
        let from = list.start as usize;
        self.ids.copy_within(from..from + list.len as usize, start as usize);
        self.give_back(list.start, list.class);
        self.lists[slot as usize] = List { start, len: list.len, class };
        Ok(())
    }

    fn room(&mut self, class: u8) -> Result<u32> {
        if let Some(start) = self.free.get_mut(class as usize).and_then(Vec::pop) {
            return Ok(start);
        }
        let start = self.ids.len();
        let end = start + (1 << class);
        if end > u32::MAX as usize {
            return Err(Error::Full(start));
        }
        self.ids.resize(end, 0);
        Ok(start as u32)
    }

    fn give_back(&mut self, start: u32, class: u8) {
        if self.free.len() <= class as usize {
            self.free.resize(class as usize + 1, Vec::new());
        }
        self.free[class as usize].push(start);
    }

    /// About how many bytes the lists take.
    pub(crate) fn memory_bytes(&self) -> usize {
        let free: usize = self.free.iter().map(|rooms| rooms.capacity() * size_of::<u32>()).sum();
        self.ids.capacity() * size_of::<u64>() + self.lists.capacity() * size_of::<List>() + free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_their_order_and_rooms_are_used_again() {
        let mut lists = Lists::default();
        let mut expected: Vec<Vec<u64>> = vec![Vec::new(); 50];
        let mut random = 7u64;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
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
