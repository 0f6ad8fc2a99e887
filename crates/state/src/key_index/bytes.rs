//! Keys of bytes of any length: short ones in a column by slot, long ones in pages.
//!
//! Both grow and shrink by a bounded amount at a time.

use std::hash::Hasher;

use super::slots::Slots;
use super::table::SlotTable;
use super::{Found, NO_SLOT, hasher};
use crate::sizes::Size;
use crate::spill::Values;
use crate::{Paged, Result, Spillable, Spilling};

/// A page is closed when the next key doesn't fit; a longer key has a page of its own.
const PAGE_BYTES: Size = Size::from(64 * 1024, 64);
/// The longest key stored in the column itself.
const SHORT_BYTES_MAX: usize = 12;

/// A key in the format of Arrow's views: four bytes of length, then the bytes if there are at most twelve.
/// For a longer key, the view holds its first four bytes and the location of all of them.
type View = [u8; 16];

/// A key to look up.
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

    /// Returns the probe of the key in `values` at `start`. Faster than from a slice, since short keys of
    /// different lengths are read alike.
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

    /// Returns the probe of a short key from a view; bytes after its length are ignored.
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
#[derive(Clone, Debug, Default)]
struct Page {
    bytes: Values<u8>,
    /// The slots of the keys added to this page, in order. Some keys may have been removed.
    slots: Values<u32>,
    /// The number of bytes of removed keys.
    garbage: usize,
}

/// Bytes in pages, so that nothing moves when they grow.
#[derive(Debug, Default)]
struct Pages {
    pages: Vec<Page>,
    /// The page that receives new keys.
    last: Option<usize>,
    /// Empty pages.
    empty: Vec<usize>,
    /// The number of spilled bytes of all pages.
    spilled: usize,
}

impl Clone for Pages {
    /// Returns the same pages in memory.
    fn clone(&self) -> Pages {
        Pages { pages: self.pages.clone(), last: self.last, empty: self.empty.clone(), spilled: 0 }
    }
}

impl Page {
    /// Returns a page that reads the same bytes.
    fn share(&self) -> Page {
        Page { bytes: self.bytes.share(), slots: Values::default(), garbage: self.garbage }
    }

    fn spilled_bytes(&self) -> usize {
        self.bytes.spilled_bytes() + self.slots.spilled_bytes()
    }
}

/// Returns the page of a long key, and the offset of the key in it.
fn place(view: &View) -> (usize, usize) {
    let page = u32::from_le_bytes([view[8], view[9], view[10], view[11]]) as usize;
    let start = u32::from_le_bytes([view[12], view[13], view[14], view[15]]) as usize;
    (page, start)
}

impl Pages {
    /// Stores these bytes and writes their location into the view.
    fn push(&mut self, bytes: &[u8], view: &mut View, slot: u32) {
        let fits = |number: &usize| self.pages[*number].bytes.len() + bytes.len() <= PAGE_BYTES.get();
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
        // A spilled page returns to memory to grow.
        self.spilled -= page.spilled_bytes();
        page.bytes.as_vec(|all| all.extend_from_slice(bytes));
        page.slots.as_vec(|all| all.push(slot));
    }

    fn get(&self, view: &View) -> &[u8] {
        let (page, start) = place(view);
        &self.pages[page].bytes[start..start + len(view)]
    }

    /// Removes a key. If too little of its page is left, returns the page. The caller must move the remaining
    /// keys elsewhere and then call [`Pages::reuse`].
    fn remove(&mut self, view: &View) -> Option<(usize, Page)> {
        let (number, _) = place(view);
        let page = &mut self.pages[number];
        page.garbage += len(view);
        if self.last == Some(number) && page.garbage == page.bytes.len() {
            self.spilled -= page.spilled_bytes();
            page.bytes.as_vec(Vec::clear);
            page.slots.as_vec(Vec::clear);
            page.garbage = 0;
            return None;
        }
        if page.garbage <= page.bytes.len() / 2 {
            return None;
        }
        self.last = self.last.filter(|last| *last != number);
        self.spilled -= page.spilled_bytes();
        Some((number, std::mem::take(page)))
    }

    fn reuse(&mut self, number: usize) {
        self.empty.push(number);
    }

    fn memory_bytes(&self) -> usize {
        let of = |page: &Page| page.bytes.memory_bytes() + page.slots.memory_bytes();
        self.pages.iter().map(of).sum::<usize>() + self.pages.capacity() * size_of::<Page>()
    }
}

/// Keys of bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct BytesTable {
    table: SlotTable,
    by_slot: Paged<View>,
    pages: Pages,
    null_slot: Option<u32>,
    slots: Slots,
}

impl BytesTable {
    /// Returns the keys by slot, which can't be looked up. They read the same memory.
    pub(super) fn share(&self) -> BytesTable {
        BytesTable {
            table: SlotTable::default(),
            by_slot: self.by_slot.share(),
            pages: Pages { pages: self.pages.pages.iter().map(Page::share).collect(), ..Pages::default() },
            null_slot: self.null_slot,
            slots: self.slots.clone(),
        }
    }

    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Returns true if the key of a slot, found by its hash, equals the probe.
    #[inline(always)]
    fn is(&self, slot: u32, probe: &Probe<'_>) -> bool {
        let view = &self.by_slot[slot as usize];
        match probe.long {
            [] => *view == probe.view,
            long => view[..8] == probe.view[..8] && self.pages.get(view) == long,
        }
    }

    fn slot_of(&self, probe: &Probe<'_>) -> Option<u32> {
        self.table.find(probe.hash, |slot| self.is(slot, probe))
    }

    /// Appends, for each key, the first slot with its hash or [`NO_SLOT`]. Returns the index of the first one
    /// appended.
    fn first(&self, probes: &[Option<Probe<'_>>], slots: &mut Vec<u32>) -> usize {
        let hashes: Vec<u32> = probes.iter().map(|probe| probe.map_or(0, |probe| probe.hash)).collect();
        let first = slots.len();
        slots.resize(first + hashes.len(), NO_SLOT);
        self.table.first(&hashes, &mut slots[first..]);
        first
    }

    /// Inserts keys; `None` is NULL.
    pub(super) fn insert(&mut self, probes: &[Option<Probe<'_>>], found: &mut Found) -> Result<()> {
        let first = self.first(probes, &mut found.slots);
        for (slot, probe) in found.slots[first..].iter_mut().zip(probes) {
            match probe {
                Some(probe) if *slot != NO_SLOT && self.is(*slot, probe) => {}
                Some(probe) => *slot = self.insert_one(probe, &mut found.new),
                None => {
                    *slot = *self.null_slot.get_or_insert_with(|| {
                        let slot = self.slots.take();
                        found.new.push(slot);
                        slot
                    });
                }
            }
        }
        self.slots.check()
    }

    #[inline(never)]
    fn insert_one(&mut self, probe: &Probe<'_>, new: &mut Vec<u32>) -> u32 {
        // An earlier row of the batch may have inserted the same key.
        if let Some(slot) = self.slot_of(probe) {
            return slot;
        }
        let slot = self.slots.take();
        new.push(slot);
        let mut view = probe.view;
        if !probe.long.is_empty() {
            self.pages.push(probe.long, &mut view, slot);
        }
        self.table.insert(probe.hash, slot);
        if slot as usize >= self.by_slot.len() {
            self.by_slot.resize(slot as usize + 1, [0; 16]);
        }
        self.by_slot[slot as usize] = view;
        slot
    }

    pub(super) fn find(&self, probes: &[Option<Probe<'_>>], out: &mut Vec<u32>) {
        let first = self.first(probes, out);
        for (slot, probe) in out[first..].iter_mut().zip(probes) {
            match probe {
                None => *slot = self.null_slot.unwrap_or(NO_SLOT),
                Some(probe) if *slot != NO_SLOT && !self.is(*slot, probe) => {
                    *slot = self.slot_of(probe).unwrap_or(NO_SLOT);
                }
                Some(_) => {}
            }
        }
    }

    pub(super) fn free(&mut self, slot: u32) {
        if self.null_slot == Some(slot) {
            self.null_slot = None;
            self.slots.put(slot);
            return;
        }
        let Some(bytes) = self.get(slot) else { return };
        self.table.remove(Probe::new(bytes).hash, slot);
        self.slots.put(slot);
        let view = std::mem::take(&mut self.by_slot[slot as usize]);
        if len(&view) > SHORT_BYTES_MAX
            && let Some((number, page)) = self.pages.remove(&view)
        {
            self.put_elsewhere(number, &page);
        }
    }

    /// Moves the remaining keys of a page to others. The preceding deletes have paid for the cost.
    fn put_elsewhere(&mut self, number: usize, page: &Page) {
        for slot in page.slots.iter() {
            let mut view = self.by_slot[*slot as usize];
            let (here, start) = place(&view);
            // The slot may hold another key by now, or its key may have been moved already.
            if len(&view) <= SHORT_BYTES_MAX || here != number {
                continue;
            }
            let bytes = &page.bytes[start..start + len(&view)];
            self.pages.push(bytes, &mut view, *slot);
            self.by_slot[*slot as usize] = view;
        }
        self.pages.reuse(number);
    }

    /// Returns the bytes of a key; `None` for NULL.
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

impl Spillable for BytesTable {
    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        self.table.spill(spilling);
        self.by_slot.spill(spilling);
        let pages = &mut self.pages;
        pages.spilled += spilling.move_out(pages.pages.iter_mut().map(|page| &mut page.bytes));
        pages.spilled += spilling.move_out(pages.pages.iter_mut().map(|page| &mut page.slots));
    }

    fn spilled_bytes(&self) -> usize {
        self.table.spilled_bytes() + self.by_slot.spilled_bytes() + self.pages.spilled
    }
}
