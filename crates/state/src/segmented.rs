//! A hash table of values that grows a bounded piece at a time: a [`Directory`] of small tables.
//!
//! What is looked for and what is equal is for the caller to say, as in `hashbrown::HashTable`.

use hashbrown::HashTable;

use crate::directory::Directory;

/// A table with as many values is split instead of growing: what `hashbrown` puts into 8,192 places.
const VALUES_MAX: usize = 7168;

/// Values by their hashes.
#[derive(Debug)]
pub(crate) struct Segmented<T> {
    directory: Directory,
    segments: Vec<Segment<T>>,
}

#[derive(Debug)]
struct Segment<T> {
    table: HashTable<T>,
    /// How many bits all its hashes begin with.
    depth: u32,
}

impl<T> Default for Segmented<T> {
    fn default() -> Segmented<T> {
        let segments = vec![Segment { table: HashTable::new(), depth: 0 }];
        Segmented { directory: Directory::default(), segments }
    }
}

/// The bits by which segments are told apart: neither the lowest nor the highest, which tell values within one apart.
#[inline(always)]
fn bits(hash: u64) -> u32 {
    (hash >> 16) as u32
}

impl<T> Segmented<T> {
    #[inline(always)]
    fn segment(&self, hash: u64) -> &Segment<T> {
        &self.segments[self.directory.part(bits(hash))]
    }

    /// The table in which a value with this hash is, if it is there.
    #[inline(always)]
    pub(crate) fn table(&self, hash: u64) -> &HashTable<T> {
        &self.segment(hash).table
    }

    /// The same, to change a value or to take it out. Values are added to what [`Segmented::with_room`] gives.
    #[inline(always)]
    pub(crate) fn table_mut(&mut self, hash: u64) -> &mut HashTable<T> {
        let part = self.directory.part(bits(hash));
        &mut self.segments[part].table
    }

    /// The table to which a value with this hash can be added.
    #[inline(always)]
    pub(crate) fn with_room(&mut self, hash: u64, hash_of: impl Fn(&T) -> u64) -> &mut HashTable<T> {
        if self.segment(hash).is_full() {
            self.split(hash, hash_of);
        }
        self.table_mut(hash)
    }

    #[inline(never)]
    fn split(&mut self, hash: u64, hash_of: impl Fn(&T) -> u64) {
        while self.segment(hash).is_full() {
            let part = self.directory.part(bits(hash));
            let depth = self.segments[part].depth;
            let mut halves = [(); 2].map(|()| Segment { table: HashTable::new(), depth: depth + 1 });
            for value in std::mem::take(&mut self.segments[part].table) {
                let hash = hash_of(&value);
                halves[Directory::half(bits(hash), depth)].table.insert_unique(hash, value, &hash_of);
            }
            self.directory.split(part, depth, self.segments.len());
            let [first, second] = halves;
            self.segments[part] = first;
            self.segments.push(second);
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let tables: usize = self.segments.iter().map(|segment| segment.table.allocation_size()).sum();
        tables + self.segments.capacity() * size_of::<Segment<T>>() + self.directory.memory_bytes()
    }
}

impl<T> Segment<T> {
    #[inline(always)]
    fn is_full(&self) -> bool {
        self.table.len() >= VALUES_MAX && Directory::may_split(self.depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed(number: u32) -> u64 {
        u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)
    }

    fn check(count: u32, of: fn(u32) -> u64) {
        let mut table = Segmented::default();
        for number in 0..count {
            table
                .with_room(of(number), |known| of(*known))
                .insert_unique(of(number), number, |known| of(*known));
            // A third goes again, somewhat later.
            let gone = number.wrapping_sub(1000);
            if gone < number && gone % 3 == 0 {
                table.table_mut(of(gone)).find_entry(of(gone), |known| *known == gone).unwrap().remove();
            }
        }
        for number in 0..count {
            let found = table.table(of(number)).find(of(number), |known| *known == number);
            let stays = number % 3 != 0 || number + 1000 >= count;
            assert_eq!(found.is_some(), stays, "{number}");
        }
    }

    #[test]
    fn what_is_there_is_found_and_what_is_gone_is_not() {
        check(10, mixed);
        check(200_000, mixed);
    }

    #[test]
    fn hashes_may_collide() {
        check(5_000, |number| mixed(number % 700));
        // All in one segment: it is split as often as may be, and grows then.
        let (mut table, of) = (Segmented::default(), |_: &usize| mixed(1));
        for number in 0..VALUES_MAX + 100 {
            table.with_room(mixed(1), of).insert_unique(mixed(1), number, of);
        }
        let found = |wanted| table.table(mixed(1)).find(mixed(1), |known| *known == wanted).is_some();
        assert!(found(0) && found(VALUES_MAX + 99) && !found(VALUES_MAX + 100));
    }

    #[test]
    fn segments_stay_small() {
        let mut table = Segmented::default();
        for number in 0..500_000 {
            let of = |known: &u32| mixed(*known);
            table.with_room(mixed(number), of).insert_unique(mixed(number), number, of);
        }
        assert!(table.segments.iter().all(|segment| segment.table.len() <= VALUES_MAX));
        assert!(table.segments.len() > 500_000 / VALUES_MAX);
    }
}
