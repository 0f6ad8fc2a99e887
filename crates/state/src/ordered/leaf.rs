//! A leaf of an ordered tree: a few dozen neighbouring entries, in one piece of memory or of a file.

use crate::Spilling;
use crate::sizes::Size as PageSize;
use crate::spill::Values;

/// The number of entries from which a leaf is split.
const ENTRIES_MAX: PageSize = PageSize::of(64);
/// The size of the keys from which a leaf is split.
const BYTES_MAX: PageSize = PageSize::from(64 << 10, 64);
/// The size of a page is a multiple of this, so that the space that one page frees in a file fits another.
const GRAIN_BYTES: usize = 64;
/// The same for pages with keys of different lengths.
const VARIED_GRAIN_BYTES: usize = 512;

/// An entry: a key, the id of its row, and the number of copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The id of its row.
    pub id: u64,
    /// The number of copies.
    pub copies: u64,
}

/// Entries in the order of their keys.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    /// The ids of all entries; their numbers of copies and the ends of their keys, if the layout has them;
    /// their keys.
    page: Values<u8>,
    layout: Layout,
    /// The number of entries.
    len: usize,
    /// The length of each key, if all have the same length.
    width: usize,
    /// The total size of the keys in bytes.
    key_bytes: usize,
}

/// The layout of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Layout {
    /// The capacity in entries.
    entries: usize,
    /// True if the page stores numbers of copies; if not, each is one.
    has_copies: bool,
    /// True if the page stores the ends of keys; if not, all keys have the same length.
    has_ends: bool,
    /// The offset of the keys.
    keys: usize,
}

impl Layout {
    fn of(entries: usize, has_copies: bool, has_ends: bool) -> Layout {
        let keys = entries * (8 + 8 * usize::from(has_copies) + 4 * usize::from(has_ends));
        Layout { entries, has_copies, has_ends, keys }
    }

    /// Returns the offset of the numbers of copies.
    fn copies(self) -> usize {
        8 * self.entries
    }

    /// Returns the offset of the ends of keys.
    fn ends(self) -> usize {
        8 * self.entries * (1 + usize::from(self.has_copies))
    }

    /// Returns the size in bytes of a page of this layout with `len` entries, whose keys take `key_bytes`.
    fn page_bytes(self, len: usize, key_bytes: usize) -> usize {
        let keys = match key_bytes < BYTES_MAX.get() {
            // Assume that the next keys are as long as these.
            true => (key_bytes * self.entries).div_ceil(len.max(1)).min(BYTES_MAX.get()),
            false => key_bytes,
        };
        (self.keys + keys).next_multiple_of(if self.has_ends { VARIED_GRAIN_BYTES } else { GRAIN_BYTES })
    }
}

impl Leaf {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn entry(&self, at: usize) -> Entry<'_> {
        Entry { key: self.key(at), id: self.id(at), copies: self.copies_at(at) }
    }

    /// Returns the number of copies of all its keys.
    pub(super) fn total(&self) -> u64 {
        self.before(self.len)
    }

    /// Returns the number of copies of the entries before an index.
    pub(super) fn before(&self, at: usize) -> u64 {
        if self.layout.has_copies { (0..at).map(|at| self.copies_at(at)).sum() } else { at as u64 }
    }

    /// Returns the index of a key, or the index at which it belongs.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = (low + high) / 2;
            match self.key(middle).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    pub(super) fn insert(&mut self, at: usize, entry: Entry<'_>) {
        let length = entry.key.len();
        if self.len == 0 {
            self.width = length;
        }
        let has_copies = self.layout.has_copies || entry.copies != 1;
        let has_ends = self.layout.has_ends || length != self.width;
        self.make_room(has_copies, has_ends, self.len + 1, self.key_bytes + length);
        let (start, len, layout) = (self.start(at), self.len, self.layout);
        let page = &mut self.page[..];
        put(page, layout.keys + start, layout.keys + self.key_bytes, entry.key);
        put(page, 8 * at, 8 * len, &entry.id.to_ne_bytes());
        if layout.has_copies {
            let from = layout.copies();
            put(page, from + 8 * at, from + 8 * len, &entry.copies.to_ne_bytes());
        }
        if layout.has_ends {
            let from = layout.ends();
            put(page, from + 4 * at, from + 4 * len, &(start as u32).to_ne_bytes());
        }
        self.len += 1;
        self.key_bytes += length;
        self.move_ends(at, |end| end + length as u32);
    }

    pub(super) fn set_copies(&mut self, at: usize, copies: u64) {
        self.make_room(true, self.layout.has_ends, self.len, self.key_bytes);
        let from = self.layout.copies() + 8 * at;
        self.page[from..][..8].copy_from_slice(&copies.to_ne_bytes());
    }

    pub(super) fn remove(&mut self, at: usize) {
        let (start, end) = (self.start(at), self.start(at + 1));
        let (len, layout) = (self.len, self.layout);
        let page = &mut self.page[..];
        page.copy_within(layout.keys + end..layout.keys + self.key_bytes, layout.keys + start);
        page.copy_within(8 * at + 8..8 * len, 8 * at);
        if layout.has_copies {
            let from = layout.copies();
            page.copy_within(from + 8 * at + 8..from + 8 * len, from + 8 * at);
        }
        if layout.has_ends {
            let from = layout.ends();
            page.copy_within(from + 4 * at + 4..from + 4 * len, from + 4 * at);
        }
        self.len -= 1;
        self.key_bytes -= end - start;
        self.move_ends(at, |later| later - (end - start) as u32);
        self.give_back();
    }

    pub(super) fn is_full(&self) -> bool {
        self.len >= ENTRIES_MAX.get() || (self.len > 1 && self.key_bytes > BYTES_MAX.get())
    }

    /// Returns true if two leaves fit into one that does not soon need a split.
    pub(super) fn fits_with(&self, other: &Leaf) -> bool {
        self.len + other.len <= ENTRIES_MAX.get() / 2
            && self.key_bytes + other.key_bytes <= BYTES_MAX.get() / 2
    }

    /// Removes and returns the entries from an index on.
    pub(super) fn split_off(&mut self, at: usize) -> Leaf {
        let mut right = Leaf { width: self.width, layout: self.layout, ..Leaf::default() };
        right.key_bytes = self.key_bytes - self.start(at);
        let bytes = self.layout.page_bytes(self.len - at, right.key_bytes);
        right.page = self.page.beside(bytes, 0);
        right.take_from(self, at);
        self.key_bytes = self.start(at);
        self.len = at;
        self.give_back();
        right
    }

    /// Appends the entries of the next leaf.
    pub(super) fn append(&mut self, other: Leaf) {
        if self.len == 0 {
            *self = other;
            return;
        }
        let has_copies = self.layout.has_copies || other.layout.has_copies;
        let has_ends = self.layout.has_ends || other.layout.has_ends || self.width != other.width;
        self.make_room(has_copies, has_ends, self.len + other.len, self.key_bytes + other.key_bytes);
        self.key_bytes += other.key_bytes;
        self.take_from(&other, 0);
    }

    /// Returns its memory and file bytes, apart from its place in its parent.
    pub(super) fn size(&self) -> Size {
        Size { memory: self.page.memory_bytes(), files: self.page.spilled_bytes() }
    }

    /// Moves to a file; later changes happen there.
    pub(super) fn spill(&mut self, spilling: &mut Spilling<'_>) {
        spilling.move_part(&mut self.page);
    }

    /// Appends the entries of another leaf from an index on. The page has room for them, and `key_bytes`
    /// includes their keys.
    fn take_from(&mut self, other: &Leaf, from: usize) {
        let (layout, keys) = (self.layout, &other.keys()[other.start(from)..]);
        let shift = self.key_bytes - keys.len();
        self.page[layout.keys + shift..][..keys.len()].copy_from_slice(keys);
        for at in from..other.len {
            let to = self.len;
            self.page[8 * to..][..8].copy_from_slice(&other.id(at).to_ne_bytes());
            if layout.has_copies {
                self.page[layout.copies() + 8 * to..][..8]
                    .copy_from_slice(&other.copies_at(at).to_ne_bytes());
            }
            if layout.has_ends {
                let end = (shift + other.start(at + 1) - other.start(from)) as u32;
                self.page[layout.ends() + 4 * to..][..4].copy_from_slice(&end.to_ne_bytes());
            }
            self.len += 1;
        }
    }

    /// Makes room for `len` entries whose keys take `key_bytes`.
    fn make_room(&mut self, has_copies: bool, has_ends: bool, len: usize, key_bytes: usize) {
        let layout = self.layout;
        let fits = layout.entries >= len && layout.keys + key_bytes <= self.page.len();
        if !fits || layout.has_copies != has_copies || layout.has_ends != has_ends {
            let entries = len.next_power_of_two().max(4).min(ENTRIES_MAX.get()).max(len);
            self.lay_out(Layout::of(entries, has_copies, has_ends), len, key_bytes);
        }
    }

    /// Frees the memory that a removed very long key leaves unused.
    fn give_back(&mut self) {
        let is_large = self.page.len() > 2 * BYTES_MAX.get();
        if is_large && self.page.len() > 2 * self.layout.page_bytes(self.len, self.key_bytes) {
            self.lay_out(self.layout, self.len, self.key_bytes);
        }
    }

    /// Moves to a new page in the same place, memory or file, with room for `len` entries whose keys take
    /// `key_bytes`.
    fn lay_out(&mut self, layout: Layout, len: usize, key_bytes: usize) {
        let page = self.page.beside(layout.page_bytes(len, key_bytes), 0);
        let before = Leaf { width: self.width, ..std::mem::take(self) };
        *self = Leaf { page, layout, len: 0, width: before.width, key_bytes: before.key_bytes };
        self.take_from(&before, 0);
    }

    fn keys(&self) -> &[u8] {
        &self.page[self.layout.keys..][..self.key_bytes]
    }

    fn key(&self, at: usize) -> &[u8] {
        let keys = self.layout.keys;
        &self.page[keys + self.start(at)..keys + self.start(at + 1)]
    }

    /// Returns the offset of a key among the keys, which is the end of the previous one.
    fn start(&self, at: usize) -> usize {
        if !self.layout.has_ends {
            return at * self.width;
        }
        let end = |before| self.page[self.layout.ends() + 4 * before..].first_chunk();
        at.checked_sub(1).and_then(end).map_or(0, |end| u32::from_ne_bytes(*end) as usize)
    }

    /// Changes the ends of the keys from an index on, if the page stores ends.
    fn move_ends(&mut self, at: usize, moved: impl Fn(u32) -> u32) {
        if self.layout.has_ends {
            let from = self.layout.ends();
            let ends = &mut self.page[from + 4 * at..from + 4 * self.len];
            ends.as_chunks_mut()
                .0
                .iter_mut()
                .for_each(|end| *end = moved(u32::from_ne_bytes(*end)).to_ne_bytes());
        }
    }

    fn id(&self, at: usize) -> u64 {
        self.number(8 * at)
    }

    fn copies_at(&self, at: usize) -> u64 {
        if self.layout.has_copies { self.number(self.layout.copies() + 8 * at) } else { 1 }
    }

    /// Returns the number at a byte offset.
    fn number(&self, from: usize) -> u64 {
        self.page[from..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }
}

/// Inserts bytes at an offset, and shifts the bytes from there to `end`.
fn put(page: &mut [u8], at: usize, end: usize, bytes: &[u8]) {
    page.copy_within(at..end, at + bytes.len());
    page[at..][..bytes.len()].copy_from_slice(bytes);
}

/// A size in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) memory: usize,
    pub(super) files: usize,
}

impl std::ops::AddAssign for Size {
    fn add_assign(&mut self, more: Size) {
        self.memory += more.memory;
        self.files += more.files;
    }
}

impl std::ops::SubAssign for Size {
    fn sub_assign(&mut self, less: Size) {
        self.memory -= less.memory;
        self.files -= less.files;
    }
}

impl std::iter::Sum for Size {
    fn sum<I: Iterator<Item = Size>>(sizes: I) -> Size {
        let mut sum = Size::default();
        sizes.for_each(|size| sum += size);
        sum
    }
}
