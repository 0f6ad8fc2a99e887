//! A few dozen neighbouring entries of an ordered tree, in one piece of memory or of a file.

use crate::Spilling;
use crate::sizes::Size as PageSize;
use crate::spill::Values;

/// From how many entries on a leaf is split.
const ENTRIES_MAX: PageSize = PageSize::of(64);
/// Long keys split leaves earlier.
const BYTES_MAX: PageSize = PageSize::from(64 << 10, 64);
/// A page has a multiple of so many bytes, so that what one leaves in a file fits another.
const GRAIN_BYTES: usize = 64;
/// The same where keys differ in length.
const VARIED_GRAIN_BYTES: usize = 512;

/// An entry: a key, what it stands for, and how many copies of it there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The id of the row that has it.
    pub id: u64,
    /// How many copies there are.
    pub copies: u64,
}

/// Entries in the order of their keys.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    /// The ids of all entries; their numbers of copies, and where their keys end, where the layout has them; their keys.
    page: Values<u8>,
    layout: Layout,
    /// How many entries there are.
    len: usize,
    /// How long each key is, if all are as long.
    width: usize,
    /// How many bytes all keys take.
    key_bytes: usize,
}

/// Where what lies in a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Layout {
    /// For how many entries there is room.
    entries: usize,
    /// Whether numbers of copies are there; if not, there is one of each.
    has_copies: bool,
    /// Whether the ends of keys are there; if not, all are as long.
    has_ends: bool,
    /// Where the keys begin.
    keys: usize,
}

impl Layout {
    fn of(entries: usize, has_copies: bool, has_ends: bool) -> Layout {
        let keys = entries * (8 + 8 * usize::from(has_copies) + 4 * usize::from(has_ends));
        Layout { entries, has_copies, has_ends, keys }
    }

    /// Where the numbers of copies begin.
    fn copies(self) -> usize {
        8 * self.entries
    }

    /// Where the ends of keys begin.
    fn ends(self) -> usize {
        8 * self.entries * (1 + usize::from(self.has_copies))
    }

    /// How many bytes a page has that begins so, and goes on with the keys of so many entries that take so many bytes.
    fn page_bytes(self, len: usize, key_bytes: usize) -> usize {
        let keys = match key_bytes < BYTES_MAX.get() {
            // The next ones are as long as these, probably.
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

    /// How many copies of all its keys there are.
    pub(super) fn total(&self) -> u64 {
        self.before(self.len)
    }

    /// How many copies the entries before a place have.
    pub(super) fn before(&self, at: usize) -> u64 {
        if self.layout.has_copies { (0..at).map(|at| self.copies_at(at)).sum() } else { at as u64 }
    }

    /// The place of a key, or the one where it belongs.
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

    /// Whether it and another fit into one that isn't about to be split again.
    pub(super) fn fits_with(&self, other: &Leaf) -> bool {
        self.len + other.len <= ENTRIES_MAX.get() / 2
            && self.key_bytes + other.key_bytes <= BYTES_MAX.get() / 2
    }

    /// Takes the entries from a place on away.
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

    /// Takes in the entries of the leaf after it.
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

    /// What of memory and of files it takes beside what its parent holds of it.
    pub(super) fn size(&self) -> Size {
        Size { memory: self.page.memory_bytes(), files: self.page.spilled_bytes() }
    }

    /// Moves to a file, where it is changed from then on.
    pub(super) fn spill(&mut self, spilling: &mut Spilling<'_>) {
        spilling.move_part(&mut self.page);
    }

    /// Copies entries of another one, from a place on, behind its own. There is room for them, and their keys are counted.
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

    /// Sees to it that there is room for so many entries, whose keys take so many bytes.
    fn make_room(&mut self, has_copies: bool, has_ends: bool, len: usize, key_bytes: usize) {
        let layout = self.layout;
        let fits = layout.entries >= len && layout.keys + key_bytes <= self.page.len();
        if !fits || layout.has_copies != has_copies || layout.has_ends != has_ends {
            let entries = len.next_power_of_two().max(4).min(ENTRIES_MAX.get()).max(len);
            self.lay_out(Layout::of(entries, has_copies, has_ends), len, key_bytes);
        }
    }

    /// Lets go of the memory that a very long key has left.
    fn give_back(&mut self) {
        let is_large = self.page.len() > 2 * BYTES_MAX.get();
        if is_large && self.page.len() > 2 * self.layout.page_bytes(self.len, self.key_bytes) {
            self.lay_out(self.layout, self.len, self.key_bytes);
        }
    }

    /// Moves to another page, in the same place, with room for so many entries whose keys take so many bytes.
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

    /// Where a key begins among the keys, and the one before it ends.
    fn start(&self, at: usize) -> usize {
        if !self.layout.has_ends {
            return at * self.width;
        }
        let end = |before| self.page[self.layout.ends() + 4 * before..].first_chunk();
        at.checked_sub(1).and_then(end).map_or(0, |end| u32::from_ne_bytes(*end) as usize)
    }

    /// Changes where the keys from a place on end, if that is there.
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

    /// The number that begins at a byte.
    fn number(&self, from: usize) -> u64 {
        self.page[from..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }
}

/// Puts bytes at a place, before those that are there up to `end`.
fn put(page: &mut [u8], at: usize, end: usize, bytes: &[u8]) {
    page.copy_within(at..end, at + bytes.len());
    page[at..][..bytes.len()].copy_from_slice(bytes);
}

/// How many bytes something takes.
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
