//! Which part of a hash table a hash is in, for tables that grow by splitting one part at a time.
//!
//! The first bits of a hash say in which part it is. A part that is full is split in two, by one bit more, which costs
//! the same however many entries there are in all (extendible hashing: Fagin, Nievergelt, Pippenger, Strong, *Extendible
//! Hashing: A Fast Access Method for Dynamic Files*, ACM TODS 1979).

/// Parts can't be told by more bits than this: the others say where an entry lies within one.
const DEPTH_MAX: u32 = 19;

/// The part of each hash.
#[derive(Debug)]
pub(crate) struct Directory {
    /// By how many bits parts are told apart.
    depth: u32,
    /// The part of hashes that begin with these bits.
    parts: Vec<u32>,
}

impl Default for Directory {
    /// All hashes are in part 0.
    fn default() -> Directory {
        Directory { depth: 0, parts: vec![0] }
    }
}

impl Directory {
    /// The part of a hash.
    #[inline(always)]
    pub(crate) fn part(&self, hash: u32) -> usize {
        // A shift by all 32 bits would be no shift.
        self.parts[(u64::from(hash) << self.depth >> 32) as usize] as usize
    }

    /// Whether a part whose hashes begin with so many equal bits can be split.
    pub(crate) fn may_split(depth: u32) -> bool {
        depth < DEPTH_MAX
    }

    /// In which half of a part, whose hashes begin with so many equal bits, a hash is.
    #[inline(always)]
    pub(crate) fn half(hash: u32, depth: u32) -> usize {
        (hash >> (31 - depth) & 1) as usize
    }

    /// Splits a part whose hashes begin with `depth` equal bits: its second half becomes the part `added`.
    pub(crate) fn split(&mut self, part: usize, depth: u32, added: usize) {
        if depth == self.depth {
            self.parts = self.parts.iter().flat_map(|part| [*part; 2]).collect();
            self.depth += 1;
        }
        let from = self.parts.iter().position(|known| *known == part as u32).unwrap_or(0);
        let span = 1 << (self.depth - depth);
        self.parts[from + span / 2..from + span].fill(added as u32);
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.parts.capacity() * size_of::<u32>()
    }
}
