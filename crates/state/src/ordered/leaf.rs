//! A few dozen neighbouring entries of an ordered tree, in one piece of memory.

/// From how many entries on a leaf is split.
const ENTRIES_MAX: usize = 64;
/// Long keys split leaves earlier.
const BYTES_MAX: usize = 64 << 10;

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
    /// All keys, one after the other.
    bytes: Vec<u8>,
    /// How long each key is, if all are as long.
    width: u32,
    /// Where each key ends, if not all are as long.
    ends: Vec<u32>,
    ids: Vec<u64>,
    /// Empty: there is one of each.
    copies: Vec<u64>,
}

impl Leaf {
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn entry(&self, at: usize) -> Entry<'_> {
        Entry { key: self.key(at), id: self.ids[at], copies: self.copies_at(at) }
    }

    /// How many copies of all its keys there are.
    pub(super) fn total(&self) -> u64 {
        if self.copies.is_empty() { self.len() as u64 } else { self.copies.iter().sum() }
    }

    /// How many copies the entries before a place have.
    pub(super) fn before(&self, at: usize) -> u64 {
        if self.copies.is_empty() { at as u64 } else { self.copies[..at].iter().sum() }
    }

    /// The place of a key, or the one where it belongs.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
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
        let length = entry.key.len() as u32;
        if self.len() == 0 {
            self.ends.clear();
            self.width = length;
        }
        let start = self.start(at);
        if !self.ends.is_empty() || length != self.width {
            self.ends = self.all_ends();
            self.ends.insert(at, start as u32);
            self.ends[at..].iter_mut().for_each(|end| *end += length);
        }
        self.bytes.splice(start..start, entry.key.iter().copied());
        self.ids.insert(at, entry.id);
        if self.copies.is_empty() && entry.copies != 1 {
            self.copies = vec![1; self.len() - 1];
        }
        if entry.copies != 1 || !self.copies.is_empty() {
            self.copies.insert(at, entry.copies);
        }
    }

    pub(super) fn set_copies(&mut self, at: usize, copies: u64) {
        if self.copies.is_empty() {
            self.copies = vec![1; self.len()];
        }
        self.copies[at] = copies;
    }

    pub(super) fn remove(&mut self, at: usize) {
        let (start, end) = (self.start(at), self.start(at + 1));
        self.bytes.drain(start..end);
        if !self.ends.is_empty() {
            self.ends.remove(at);
            self.ends[at..].iter_mut().for_each(|later| *later -= (end - start) as u32);
        }
        self.ids.remove(at);
        if !self.copies.is_empty() {
            self.copies.remove(at);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= ENTRIES_MAX || (self.len() > 1 && self.bytes.len() > BYTES_MAX)
    }

    /// Whether it and another fit into one that isn't about to be split again.
    pub(super) fn fits_with(&self, other: &Leaf) -> bool {
        self.len() + other.len() <= ENTRIES_MAX / 2 && self.bytes.len() + other.bytes.len() <= BYTES_MAX / 2
    }

    /// Takes the entries from a place on away.
    pub(super) fn split_off(&mut self, at: usize) -> Leaf {
        let start = self.start(at);
        let shifted = self.ends.iter().skip(at).map(|end| end - start as u32).collect();
        let right = Leaf {
            bytes: self.bytes[start..].to_vec(),
            width: self.width,
            ends: shifted,
            ids: self.ids[at..].to_vec(),
            copies: self.copies.get(at..).map(<[u64]>::to_vec).unwrap_or_default(),
        };
        self.bytes.truncate(start);
        self.bytes.shrink_to_fit();
        self.ends.truncate(at);
        self.ids.truncate(at);
        self.copies.truncate(at);
        right
    }

    /// Takes in the entries of the leaf after it.
    pub(super) fn append(&mut self, mut other: Leaf) {
        if !(self.copies.is_empty() && other.copies.is_empty()) {
            let mut copies: Vec<u64> = (0..self.len()).map(|at| self.copies_at(at)).collect();
            copies.extend((0..other.len()).map(|at| other.copies_at(at)));
            self.copies = copies;
        }
        if !(self.ends.is_empty() && other.ends.is_empty() && self.width == other.width) {
            let shift = self.bytes.len() as u32;
            self.ends = self.all_ends();
            self.ends.extend(other.all_ends().iter().map(|end| end + shift));
        }
        self.bytes.extend_from_slice(&other.bytes);
        self.ids.extend_from_slice(&other.ids);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + 4 * self.ends.capacity() + 8 * (self.ids.capacity() + self.copies.capacity())
    }

    fn key(&self, at: usize) -> &[u8] {
        &self.bytes[self.start(at)..self.start(at + 1)]
    }

    /// Where a key begins, and the one before it ends.
    fn start(&self, at: usize) -> usize {
        if self.ends.is_empty() {
            return at * self.width as usize;
        }
        at.checked_sub(1).map_or(0, |before| self.ends[before] as usize)
    }

    fn all_ends(&mut self) -> Vec<u32> {
        match self.ends.is_empty() {
            true => (1..=self.len() as u32).map(|end| end * self.width).collect(),
            false => std::mem::take(&mut self.ends),
        }
    }

    fn copies_at(&self, at: usize) -> u64 {
        self.copies.get(at).copied().unwrap_or(1)
    }
}
