//! A column of values, addressed by slot, that grows without moving.

use std::ops::{Index, IndexMut};

use crate::sizes::Size;
use crate::spill::{Spillable, Spilling, Values};

/// The number of values in a page, a power of two. Marks of one bit per value need at least one word per
/// page.
const PAGE_ROWS: Size = Size::from(1 << 12, 64);

/// Returns the number of values in a page. Only the last page may move when it grows.
#[inline(always)]
pub fn page_rows() -> usize {
    1 << page_bits()
}

#[inline(always)]
fn page_bits() -> u32 {
    PAGE_ROWS.bits()
}

/// Returns the number of values by which a page grows, so that little of the last one is unused.
fn step_rows() -> usize {
    page_rows() / 8
}

/// Values in pages. Growth moves only values of the last page, however many there are. Pages may be spilled.
#[derive(Debug)]
pub struct Paged<T> {
    pages: Vec<Values<T>>,
    /// True if pages were spilled.
    spilled: bool,
}

impl<T> Default for Paged<T> {
    fn default() -> Paged<T> {
        Paged { pages: Vec::new(), spilled: false }
    }
}

impl<T: Clone> Clone for Paged<T> {
    /// Returns the same values in memory.
    fn clone(&self) -> Paged<T> {
        Paged { pages: self.pages.clone(), spilled: false }
    }
}

impl<T: Clone> Paged<T> {
    /// Returns a column that reads the same pages and keeps the present values. The next change of a page in either
    /// column copies the page, unless the other column is gone by then.
    pub fn share(&self) -> Paged<T> {
        Paged { pages: self.pages.iter().map(Values::share).collect(), spilled: false }
    }

    /// Makes room for values below `end`; new ones are `value`. Never shrinks.
    pub fn resize(&mut self, end: usize, value: T) {
        let mut have = self.len();
        while have < end {
            if have.is_multiple_of(page_rows()) {
                self.pages.push(Values::default());
            }
            let first = have - have % page_rows();
            let rows = (end - first).min(page_rows());
            let Some(page) = self.pages.last_mut() else { return };
            // A spilled page returns to memory to grow.
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

    /// Returns the value of a slot, if the column is that long.
    pub fn get(&self, slot: u32) -> Option<&T> {
        let slot = slot as usize;
        (slot < self.len()).then(|| &self[slot])
    }

    /// Returns the number of values.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.pages.len().saturating_sub(1) * page_rows() + self.pages.last().map_or(0, |page| page.len())
    }

    /// Returns the memory of the values in bytes, without what they own.
    pub fn memory_bytes(&self) -> usize {
        // All pages but the last are full.
        let last = self.pages.last().map_or(0, Values::capacity);
        let values = self.pages.len().saturating_sub(1) * page_rows() + last;
        values * size_of::<T>() - self.spilled_bytes() + self.pages.capacity() * size_of::<Values<T>>()
    }
}

impl<T> Spillable for Paged<T> {
    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        self.spilled |= spilling.move_out(&mut self.pages) > 0;
    }

    fn spilled_bytes(&self) -> usize {
        if self.spilled { self.pages.iter().map(Values::spilled_bytes).sum() } else { 0 }
    }
}

/// The number of parts, whatever the number of threads, so that results don't depend on the latter.
pub const PARTS: usize = 8;

/// Every [`PARTS`]th page of a [`Paged`]. One thread can change it while others change the other parts.
#[derive(Debug)]
pub struct PagedPart<'a, T> {
    /// The values of each page; none yet for a shared page.
    pages: Vec<&'a mut [T]>,
    /// The shared pages, which are copied before the first change.
    shared: Vec<Option<&'a mut Values<T>>>,
}

/// The same of a slice that has some elements for each page.
#[derive(Debug)]
pub struct SlicePart<'a, T> {
    pages: Vec<&'a mut [T]>,
}

/// Returns the part of a slot.
#[inline(always)]
pub fn part_of(slot: u32) -> usize {
    (slot >> page_bits()) as usize % PARTS
}

/// Splits `all`, which has `each` elements per page, into parts.
pub fn dealt_out<T>(all: &mut [T], each: usize) -> Vec<SlicePart<'_, T>> {
    dealt(all.chunks_mut(each)).into_iter().map(|pages| SlicePart { pages }).collect()
}

fn dealt<P>(pages: impl Iterator<Item = P>) -> Vec<Vec<P>> {
    let mut parts: Vec<Vec<P>> = (0..PARTS).map(|_| Vec::new()).collect();
    pages.zip((0..PARTS).cycle()).for_each(|(page, part)| parts[part].push(page));
    parts
}

impl<T> Paged<T> {
    /// Returns the parts in order.
    pub fn parts(&mut self) -> Vec<PagedPart<'_, T>> {
        dealt(self.pages.iter_mut()).into_iter().map(PagedPart::of).collect()
    }
}

impl<'a, T> PagedPart<'a, T> {
    fn of(pages: Vec<&'a mut Values<T>>) -> PagedPart<'a, T> {
        let mut part = PagedPart { pages: Vec::with_capacity(pages.len()), shared: Vec::new() };
        for page in pages {
            let is_shared = page.is_shared();
            let (values, shared) = if is_shared { (&mut [][..], Some(page)) } else { (&mut page[..], None) };
            part.pages.push(values);
            part.shared.push(shared);
        }
        part
    }

    /// Returns the value of a slot of this part.
    #[inline(always)]
    pub fn at(&mut self, slot: u32) -> &mut T {
        let (page, row) = ((slot >> page_bits()) as usize / PARTS, slot as usize & (page_rows() - 1));
        if row >= self.pages[page].len() {
            self.unshare(page);
        }
        &mut self.pages[page][row]
    }

    #[cold]
    #[inline(never)]
    fn unshare(&mut self, page: usize) {
        if let Some(values) = self.shared[page].take() {
            self.pages[page] = &mut values[..];
        }
    }
}

impl<T> SlicePart<'_, T> {
    /// Returns the elements for the page of a slot of this part.
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

    /// Owner and reader of shared pages change, grow, and end in any order.
    #[test]
    fn shared_pages_keep_their_values() {
        let mut random = millstream_seeds::Random(7);
        let text = |n: u64| format!("a text of {n}");
        let (mut paged, mut model) = (Paged::default(), Vec::new());
        let mut readers: Vec<(Paged<String>, Vec<String>)> = Vec::new();
        for round in 0..150u64 {
            match random.below(7) {
                0 => {
                    let end = model.len() + random.below(3 * page_rows() as u64 / 2) as usize;
                    model.resize(end.min(4 * page_rows()), text(round));
                    paged.resize(model.len(), text(round));
                }
                1 => readers.push((paged.share(), model.clone())),
                2 if !readers.is_empty() => {
                    let (reader, values) = &readers[random.below(readers.len() as u64) as usize];
                    readers.push((reader.share(), values.clone()));
                }
                3 if !readers.is_empty() => {
                    let reader = readers.swap_remove(random.below(readers.len() as u64) as usize);
                    std::thread::spawn(move || drop(reader)).join().unwrap();
                }
                4 if !readers.is_empty() => {
                    // A reader may change its copy, and take the owner's place.
                    let at = random.below(readers.len() as u64) as usize;
                    let (reader, values) = &mut readers[at];
                    if let Some(slot) = values.len().checked_sub(1) {
                        (reader[slot], values[slot]) = (text(round), text(round));
                    }
                    std::mem::swap(&mut paged, reader);
                    std::mem::swap(&mut model, values);
                }
                _ if !model.is_empty() => {
                    let mut parts = paged.parts();
                    for _ in 0..random.below(4) {
                        let slot = random.below(model.len() as u64) as usize;
                        *parts[part_of(slot as u32)].at(slot as u32) = text(round);
                        model[slot] = text(round);
                    }
                }
                _ => {}
            }
            readers.truncate(5);
            let same = |column: &Paged<String>, values: &Vec<String>| {
                column.len() == values.len() && (0..values.len()).all(|slot| column[slot] == values[slot])
            };
            assert!(same(&paged, &model) && readers.iter().all(|(reader, values)| same(reader, values)));
        }
        drop(paged);
        assert!(readers.iter().all(|(reader, values)| (0..values.len()).all(|at| reader[at] == values[at])));
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
