//! Keys of bytes of any length: short ones in the table itself, long ones in pages.

use std::hash::Hasher;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;

use super::slots::{Slots, spread};
use super::{Found, NO_SLOT, hasher};
use crate::Result;

/// A page is closed when the next key doesn't fit; a longer key has a page of its own.
const PAGE_BYTES: usize = 64 * 1024;
/// As many bytes of keys that are gone are left in the pages at least.
const GARBAGE_BYTES_MIN: usize = 1 << 20;
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

/// Bytes in pages, so that nothing has to move when they grow.
#[derive(Debug, Default)]
struct Pages {
    pages: Vec<Vec<u8>>,
    bytes: usize,
    garbage: usize,
}

impl Pages {
    /// Keeps these bytes and completes the view with where they are.
    fn push(&mut self, bytes: &[u8], view: &mut View) {
        let fits = self.pages.last().is_some_and(|page| page.len() + bytes.len() <= PAGE_BYTES);
        if !fits {
            self.pages.push(Vec::new());
        }
        let number = self.pages.len() - 1;
        let page = &mut self.pages[number];
        view[8..12].copy_from_slice(&(number as u32).to_le_bytes());
        view[12..].copy_from_slice(&(page.len() as u32).to_le_bytes());
        page.extend_from_slice(bytes);
        self.bytes += bytes.len();
    }

    fn get(&self, view: &View) -> &[u8] {
        let page = u32::from_le_bytes([view[8], view[9], view[10], view[11]]) as usize;
        let start = u32::from_le_bytes([view[12], view[13], view[14], view[15]]) as usize;
        &self.pages[page][start..start + len(view)]
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
    table: HashTable<Entry>,
    by_slot: Vec<View>,
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
        match self.table.entry(spread(probe.hash), same, |entry| spread(entry.hash)) {
            TableEntry::Occupied(entry) => entry.get().slot,
            TableEntry::Vacant(vacant) => {
                let slot = self.slots.take();
                let mut view = probe.view;
                if !probe.long.is_empty() {
                    self.pages.push(probe.long, &mut view);
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
                self.table.find(spread(probe.hash), same).map_or(NO_SLOT, |entry| entry.slot)
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
        let probe = Probe::new(bytes);
        let (hash, long) = (spread(probe.hash), probe.long.len());
        let Ok(entry) = self.table.find_entry(hash, |entry| entry.slot == slot) else { return };
        entry.remove();
        self.slots.put(slot);
        self.pages.garbage += long;
        if self.pages.garbage > GARBAGE_BYTES_MIN && self.pages.garbage > self.pages.bytes / 2 {
            self.rewrite_pages();
        }
    }

    /// Copies the keys that are left into new pages: the deletes before have paid for it.
    fn rewrite_pages(&mut self) {
        let old = std::mem::take(&mut self.pages);
        for entry in self.table.iter_mut() {
            if len(&entry.view) > SHORT_BYTES_MAX {
                let bytes = old.get(&entry.view);
                self.pages.push(bytes, &mut entry.view);
                self.by_slot[entry.slot as usize] = entry.view;
            }
        }
    }

    /// The bytes of a key; `None` for NULL.
    #[inline]
    pub(super) fn get(&self, slot: u32) -> Option<&[u8]> {
        let view = self.by_slot.get(slot as usize).filter(|_| self.null_slot != Some(slot))?;
        let len = len(view);
        Some(if len > SHORT_BYTES_MAX { self.pages.get(view) } else { &view[4..4 + len] })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let pages: usize = self.pages.pages.iter().map(|page| page.capacity()).sum();
        self.table.allocation_size()
            + self.by_slot.capacity() * size_of::<View>()
            + pages
            + self.slots.memory_bytes()
    }
}
