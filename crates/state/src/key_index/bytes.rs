//! Keys of bytes of any length: short ones in the table itself, long ones in pages.
//!
//! Both grow, and give room back, a bounded piece at a time.

use std::hash::Hasher;

use hashbrown::hash_table::Entry as TableEntry;

use super::slots::{Slots, spread};
use super::{Found, NO_SLOT, hasher};
use crate::segmented::Segmented;
use crate::{Paged, Result};

/// A page is closed when the next key doesn't fit; a longer key has a page of its own.
const PAGE_BYTES: usize = 64 * 1024;
/// The longest key that lies in the table itself.
const SHORT_BYTES_MAX: usize = 12;

/// A key as Arrow's views have it: four bytes of length, then the bytes if there are at most twelve, or else
/// the first four of them and where all of them lie.
type View = [u8; 16];

/// A key that is looked for.
#[derive(Clone, Copy)]
pub(super) struct Probe<'a> {
    view: View,
    hash: u32,
    /// All bytes of a long key.
    long: &'a [u8],
}

impl<'a> Probe<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Probe<'a> {
        if bytes.len() > SHORT_BYTES_MAX {
            return Probe::long(bytes);
        }
        let mut view = [0; 16];
        view[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        view[4..4 + bytes.len()].copy_from_slice(bytes);
        Probe::short(u128::from_le_bytes(view))
    }

    /// The key that lies in `values` from `start` on; faster than a slice since short keys of different lengths
    /// are read alike.
    pub(super) fn at(values: &'a [u8], start: usize, len: usize) -> Probe<'a> {
        match values[start..].first_chunk::<SHORT_BYTES_MAX>() {
            Some(chunk) if len <= SHORT_BYTES_MAX => {
                let mut view = [0; 16];
                view[4..].copy_from_slice(chunk);
                Probe::short(u128::from_le_bytes(view) | len as u128)
            }
            _ => Probe::new(&values[start..start + len]),
        }
    }

    /// A short key from a view, of which only as many bytes count as its length says.
    pub(super) fn short(view: u128) -> Probe<'a> {
        let bits = 32 + 8 * (view as u32).min(SHORT_BYTES_MAX as u32);
        let view = view & (u128::MAX >> (128 - bits));
        let mut hasher = hasher();
        hasher.write_u128(view);
        Probe { view: view.to_le_bytes(), hash: hasher.finish() as u32, long: &[] }
    }

    fn long(bytes: &'a [u8]) -> Probe<'a> {
        let mut view = [0; 16];
        view[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        view[4..8].copy_from_slice(&bytes[..4]);
        let mut hasher = hasher();
        hasher.write(bytes);
        Probe { view, hash: hasher.finish() as u32, long: bytes }
    }
}

fn len(view: &View) -> usize {
    u32::from_le_bytes([view[0], view[1], view[2], view[3]]) as usize
}

/// Keys in one page.
#[derive(Debug, Default)]
struct Page {
    bytes: Vec<u8>,
    /// The slots of the keys that were put here, in their order, and perhaps went again.
    slots: Vec<u32>,
    /// How many bytes of keys are here that are gone.
    garbage: usize,
}

/// Bytes in pages, so that nothing has to move when they grow.
#[derive(Debug, Default)]
struct Pages {
    pages: Vec<Page>,
    /// The page that keys are put into.
    last: Option<usize>,
    /// Pages that hold nothing.
    empty: Vec<usize>,
}

/// The page of a long key, and where in it the key begins.
fn place(view: &View) -> (usize, usize) {
    let page = u32::from_le_bytes([view[8], view[9], view[10], view[11]]) as usize;
    let start = u32::from_le_bytes([view[12], view[13], view[14], view[15]]) as usize;
    (page, start)
}

impl Pages {
    /// Keeps these bytes and completes the view with where they are.
    fn push(&mut self, bytes: &[u8], view: &mut View, slot: u32) {
        let fits = |number: &usize| self.pages[*number].bytes.len() + bytes.len() <= PAGE_BYTES;
        let number = self.last.filter(fits).unwrap_or_else(|| {
            self.empty.pop().unwrap_or_else(|| {
                self.pages.push(Page::default());
                self.pages.len() - 1
            })
        });
        self.last = Some(number);
        let page = &mut self.pages[number];
        view[8..12].copy_from_slice(&(number as u32).to_le_bytes());
        view[12..].copy_from_slice(&(page.bytes.len() as u32).to_le_bytes());
        page.bytes.extend_from_slice(bytes);
        page.slots.push(slot);
    }

    fn get(&self, view: &View) -> &[u8] {
        let (page, start) = place(view);
        &self.pages[page].bytes[start..start + len(view)]
    }

    /// A key is gone. Gives its page out of hand where too little of it is left: that must be put elsewhere, and the page
    /// is [`Pages::reuse`]d then.
    fn remove(&mut self, view: &View) -> Option<(usize, Page)> {
        let (number, _) = place(view);
        let page = &mut self.pages[number];
        page.garbage += len(view);
        if self.last == Some(number) && page.garbage == page.bytes.len() {
            page.bytes.clear();
            page.slots.clear();
            page.garbage = 0;
            return None;
        }
        if page.garbage <= page.bytes.len() / 2 {
            return None;
        }
        self.last = self.last.filter(|last| *last != number);
        Some((number, std::mem::take(page)))
    }

    fn reuse(&mut self, number: usize) {
        self.empty.push(number);
    }

    fn memory_bytes(&self) -> usize {
        let of = |page: &Page| page.bytes.capacity() + page.slots.capacity() * size_of::<u32>();
        self.pages.iter().map(of).sum::<usize>() + self.pages.capacity() * size_of::<Page>()
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    view: View,
    slot: u32,
    hash: u32,
}

/// Keys of bytes.
#[derive(Debug, Default)]
pub(super) struct BytesTable {
    table: Segmented<Entry>,
    by_slot: Paged<View>,
    pages: Pages,
    null_slot: Option<u32>,
    slots: Slots,
}

impl BytesTable {
    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    #[inline]
    fn is(pages: &Pages, entry: &Entry, probe: &Probe<'_>) -> bool {
        if probe.long.is_empty() {
            return entry.view == probe.view;
        }
        entry.hash == probe.hash && entry.view[..8] == probe.view[..8] && pages.get(&entry.view) == probe.long
    }

    /// Takes up keys, `None` for NULL.
    pub(super) fn insert(&mut self, probes: &[Option<Probe<'_>>], found: &mut Found) -> Result<()> {
        for probe in probes {
            let slot = match probe {
                Some(probe) => self.insert_one(probe, &mut found.new),
                None => *self.null_slot.get_or_insert_with(|| {
                    let slot = self.slots.take();
                    found.new.push(slot);
                    slot
                }),
            };
            found.slots.push(slot);
        }
        self.slots.check()
    }

    #[inline]
    fn insert_one(&mut self, probe: &Probe<'_>, new: &mut Vec<u32>) -> u32 {
        let pages = &self.pages;
        let same = |entry: &Entry| Self::is(pages, entry, probe);
        let (hash, hash_of) = (spread(probe.hash), |entry: &Entry| spread(entry.hash));
        match self.table.with_room(hash, hash_of).entry(hash, same, hash_of) {
            TableEntry::Occupied(entry) => entry.get().slot,
            TableEntry::Vacant(vacant) => {
                let slot = self.slots.take();
                let mut view = probe.view;
                if !probe.long.is_empty() {
                    self.pages.push(probe.long, &mut view, slot);
                }
                vacant.insert(Entry { view, slot, hash: probe.hash });
                if slot as usize >= self.by_slot.len() {
                    self.by_slot.resize(slot as usize + 1, [0; 16]);
                }
                self.by_slot[slot as usize] = view;
                new.push(slot);
                slot
            }
        }
    }

    pub(super) fn find(&self, probes: &[Option<Probe<'_>>], out: &mut Vec<u32>) {
        out.extend(probes.iter().map(|probe| match probe {
            None => self.null_slot.unwrap_or(NO_SLOT),
            Some(probe) => {
                let same = |entry: &Entry| Self::is(&self.pages, entry, probe);
                let hash = spread(probe.hash);
                self.table.table(hash).find(hash, same).map_or(NO_SLOT, |entry| entry.slot)
            }
        }));
    }

    pub(super) fn free(&mut self, slot: u32) {
        if self.null_slot == Some(slot) {
            self.null_slot = None;
            self.slots.put(slot);
            return;
        }
        let Some(bytes) = self.get(slot) else { return };
        let hash = spread(Probe::new(bytes).hash);
        let table = self.table.table_mut(hash);
        let Ok(entry) = table.find_entry(hash, |entry| entry.slot == slot) else { return };
        entry.remove();
        self.slots.put(slot);
        let view = std::mem::take(&mut self.by_slot[slot as usize]);
        if len(&view) > SHORT_BYTES_MAX
            && let Some((number, page)) = self.pages.remove(&view)
        {
            self.put_elsewhere(number, &page);
        }
    }

    /// Copies what is left of a page into others: the deletes before have paid for it.
    fn put_elsewhere(&mut self, number: usize, page: &Page) {
        for slot in &page.slots {
            let mut view = self.by_slot[*slot as usize];
            let (here, start) = place(&view);
            // The slot may stand for another key by now, or have been moved already.
            if len(&view) <= SHORT_BYTES_MAX || here != number {
                continue;
            }
            let bytes = &page.bytes[start..start + len(&view)];
            self.pages.push(bytes, &mut view, *slot);
            self.by_slot[*slot as usize] = view;
            let hash = spread(Probe::new(bytes).hash);
            if let Some(entry) = self.table.table_mut(hash).find_mut(hash, |entry| entry.slot == *slot) {
                entry.view = view;
            }
        }
        self.pages.reuse(number);
    }

    /// The bytes of a key; `None` for NULL.
    #[inline]
    pub(super) fn get(&self, slot: u32) -> Option<&[u8]> {
        if self.null_slot == Some(slot) || slot as usize >= self.by_slot.len() {
            return None;
        }
        let view = &self.by_slot[slot as usize];
        let len = len(view);
        Some(if len > SHORT_BYTES_MAX { self.pages.get(view) } else { &view[4..4 + len] })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.table.memory_bytes()
            + self.by_slot.memory_bytes()
            + self.pages.memory_bytes()
            + self.slots.memory_bytes()
    }
}
