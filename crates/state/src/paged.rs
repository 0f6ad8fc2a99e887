//! A column of values, addressed by slot, that grows without moving.

use std::ops::{Index, IndexMut};

use crate::sizes::Size;
use crate::spill::{Spillable, Spilling, Values};

/// A power of two; marks that take a bit a value ask for a word a page at least.
const PAGE_ROWS: Size = Size::from(1 << 12, 64);

/// How many values a page has. The last page alone may have to move when it grows.
#[inline(always)]
pub fn page_rows() -> usize {
    1 << page_bits()
}

#[inline(always)]
fn page_bits() -> u32 {
    PAGE_ROWS.bits()
}

/// A page grows by as many values, so that little of the last one lies fallow.
fn step_rows() -> usize {
    page_rows() / 8
}

/// Values in pages: what is there never moves but in the last page, however many there are. Pages may lie in files.
#[derive(Debug)]
pub struct Paged<T> {
    pages: Vec<Values<T>>,
    /// How many bytes of the pages are in files.
    spilled: usize,
}

impl<T> Default for Paged<T> {
    fn default() -> Paged<T> {
        Paged { pages: Vec::new(), spilled: 0 }
    }
}

impl<T: Clone> Paged<T> {
    /// Makes room for values below `end`; new ones are `value`. It never shrinks.
    pub fn resize(&mut self, end: usize, value: T) {
        let mut have = self.len();
        while have < end {
            if have.is_multiple_of(page_rows()) {
                self.pages.push(Values::default());
            }
            let first = have - have % page_rows();
            let rows = (end - first).min(page_rows());
            let Some(page) = self.pages.last_mut() else { return };
            // What is in a file comes back to grow.
            self.spilled -= page.spilled_bytes();
            page.as_vec(|values| {
                if rows > values.capacity() {
                    let capacity = match rows < step_rows() {
                        true => rows.next_power_of_two(),
                        false => rows.next_multiple_of(step_rows()),
                    };
                    values.reserve_exact(capacity - values.len());
                }
                values.resize(rows, value.clone());
            });
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
        self.pages.len().saturating_sub(1) * page_rows() + self.pages.last().map_or(0, |page| page.len())
    }

    /// How many bytes of memory the values take, without what they own.
    pub fn memory_bytes(&self) -> usize {
        // All pages but the last are full.
        let last = self.pages.last().map_or(0, Values::capacity);
        let values = self.pages.len().saturating_sub(1) * page_rows() + last;
        values * size_of::<T>() - self.spilled + self.pages.capacity() * size_of::<Values<T>>()
    }
}

impl<T> Spillable for Paged<T> {
    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        self.spilled += spilling.move_out(&mut self.pages);
    }

    fn spilled_bytes(&self) -> usize {
        self.spilled
    }
}

/// Into how many parts pages are dealt out, whatever the number of threads, so that nothing depends on that.
pub const PARTS: usize = 8;

/// Every [`PARTS`]th page of [`Paged`], which one thread may change beside those that have the other parts.
#[derive(Debug)]
pub struct PagedPart<'a, T> {
    pages: Vec<&'a mut [T]>,
}

/// Which part a slot is in.
#[inline(always)]
pub fn part_of(slot: u32) -> usize {
    (slot >> page_bits()) as usize % PARTS
}

/// Deals out what there is for each page, which is `each` of `all`.
pub fn dealt_out<T>(all: &mut [T], each: usize) -> Vec<PagedPart<'_, T>> {
    dealt(all.chunks_mut(each))
}

fn dealt<'a, T: 'a>(pages: impl Iterator<Item = &'a mut [T]>) -> Vec<PagedPart<'a, T>> {
    let mut parts: Vec<PagedPart<'a, T>> = (0..PARTS).map(|_| PagedPart { pages: Vec::new() }).collect();
    pages.zip((0..PARTS).cycle()).for_each(|(page, part)| parts[part].pages.push(page));
    parts
}

impl<T> Paged<T> {
    /// The parts, in their order.
    pub fn parts(&mut self) -> Vec<PagedPart<'_, T>> {
        dealt(self.pages.iter_mut().map(|page| &mut page[..]))
    }
}

impl<T> PagedPart<'_, T> {
    /// The value of a slot of this part.
    #[inline(always)]
    pub fn at(&mut self, slot: u32) -> &mut T {
        &mut self.page(slot)[slot as usize & (page_rows() - 1)]
    }

    /// What there is for the page that a slot of this part is in.
    #[inline(always)]
    pub fn page(&mut self, slot: u32) -> &mut [T] {
        self.pages[(slot >> page_bits()) as usize / PARTS]
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
        &self.pages[slot >> page_bits()][slot & (page_rows() - 1)]
    }
}

impl<T> IndexMut<usize> for Paged<T> {
    #[inline(always)]
    fn index_mut(&mut self, slot: usize) -> &mut T {
        &mut self.pages[slot >> page_bits()][slot & (page_rows() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_is_in_one_part() {
        let mut paged: Paged<u32> = (0..100_000).collect();
        let mut parts = paged.parts();
        (0..100_000).for_each(|slot| *parts[part_of(slot)].at(slot) += slot);
        let mut marks = vec![0u64; 100_000usize.div_ceil(64)];
        let mut dealt = dealt_out(&mut marks, page_rows() / 64);
        for slot in (0..100_000).step_by(3) {
            dealt[part_of(slot)].page(slot)[slot as usize % page_rows() / 64] |= 1 << (slot % 64);
        }
        for slot in 0..100_000 {
            assert_eq!(paged[slot], 2 * slot as u32);
            assert_eq!(marks[slot / 64] >> (slot % 64) & 1 == 1, slot % 3 == 0, "{slot}");
        }
    }

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
        assert!(paged.memory_bytes() < end * 8 + 8 * step_rows() + 4096, "{}", paged.memory_bytes());
    }
}
