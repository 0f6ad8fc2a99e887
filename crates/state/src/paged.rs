//! A column of values in memory, addressed by slot, that grows without moving.

use std::ops::{Index, IndexMut};

/// How many values a page has. The last page alone may have to move when it grows.
const PAGE_ROWS: usize = 1 << PAGE_BITS;
const PAGE_BITS: u32 = 12;
/// A page grows by as many values, so that little of the last one lies fallow.
const STEP_ROWS: usize = PAGE_ROWS / 8;

/// Values in pages: what is there never moves but in the last page, however many there are.
#[derive(Debug)]
pub struct Paged<T> {
    pages: Vec<Vec<T>>,
}

impl<T> Default for Paged<T> {
    fn default() -> Paged<T> {
        Paged { pages: Vec::new() }
    }
}

impl<T: Clone> Paged<T> {
    /// Makes room for values below `end`; new ones are `value`. It never shrinks.
    pub fn resize(&mut self, end: usize, value: T) {
        let mut have = self.len();
        while have < end {
            if have.is_multiple_of(PAGE_ROWS) {
                self.pages.push(Vec::new());
            }
            let first = have - have % PAGE_ROWS;
            let rows = (end - first).min(PAGE_ROWS);
            let Some(page) = self.pages.last_mut() else { return };
            if rows > page.capacity() {
                let capacity = match rows {
                    0..STEP_ROWS => rows.next_power_of_two(),
                    rows => rows.next_multiple_of(STEP_ROWS),
                };
                page.reserve_exact(capacity - page.len());
            }
            page.resize(rows, value.clone());
            have = first + rows;
        }
    }

    /// The value of a slot, where there is room for one.
    pub fn get(&self, slot: u32) -> Option<&T> {
        let slot = slot as usize;
        (slot < self.len()).then(|| &self[slot])
    }

    /// How many values there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.pages.len().saturating_sub(1) * PAGE_ROWS + self.pages.last().map_or(0, Vec::len)
    }

    /// How many bytes the values take, without what they own.
    pub fn memory_bytes(&self) -> usize {
        // All pages but the last are full.
        let last = self.pages.last().map_or(0, Vec::capacity);
        let values = self.pages.len().saturating_sub(1) * PAGE_ROWS + last;
        values * size_of::<T>() + self.pages.capacity() * size_of::<Vec<T>>()
    }
}

impl<T: Clone> FromIterator<T> for Paged<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Paged<T> {
        let mut paged = Paged::default();
        values.into_iter().for_each(|value| paged.resize(paged.len() + 1, value));
        paged
    }
}

impl<T> Index<usize> for Paged<T> {
    type Output = T;

    #[inline(always)]
    fn index(&self, slot: usize) -> &T {
        &self.pages[slot >> PAGE_BITS][slot & (PAGE_ROWS - 1)]
    }
}

impl<T> IndexMut<usize> for Paged<T> {
    #[inline(always)]
    fn index_mut(&mut self, slot: usize) -> &mut T {
        &mut self.pages[slot >> PAGE_BITS][slot & (PAGE_ROWS - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_where_they_are() {
        let mut paged = Paged::default();
        let mut end = 0;
        for step in [1, 2, 5, 16_000, 400, 40_000, 1, 100_000] {
            paged.resize(end + step, 7u64);
            assert!((end..end + step).all(|slot| paged[slot] == 7));
            (end..end + step).for_each(|slot| paged[slot] = slot as u64);
            end += step;
            paged.resize(end / 2, 8);
        }
        assert!((0..end).all(|slot| paged[slot] == slot as u64));
        assert_eq!((paged.get(5), paged.get(end as u32)), (Some(&5), None));
        let same: Paged<u64> = (0..end).map(|slot| slot as u64).collect();
        assert!(same.len() == end && (0..end).all(|slot| same[slot] == paged[slot]));
        assert!(paged.memory_bytes() < end * 8 + 8 * STEP_ROWS + 4096, "{}", paged.memory_bytes());
    }
}
