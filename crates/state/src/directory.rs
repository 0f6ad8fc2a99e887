//! Maps a hash to a part of a hash table that grows by splitting one part at a time.
//!
//! The first bits of a hash determine its part. A full part is split in two by one more bit. The cost of a
//! split does not depend on the total number of entries (extendible hashing: Fagin, Nievergelt, Pippenger,
//! Strong, *Extendible Hashing: A Fast Access Method for Dynamic Files*, ACM TODS 1979).

/// The maximum number of bits that select a part. The other bits locate an entry within a part.
const DEPTH_MAX: u32 = 19;

/// The part of each hash.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    /// The number of bits that select a part.
    depth: u32,
    /// The part of the hashes that begin with these bits.
    parts: Vec<u32>,
}

impl Default for Directory {
    /// All hashes are in part 0.
    fn default() -> Directory {
        Directory { depth: 0, parts: vec![0] }
    }
}

impl Directory {
    /// Returns the part of a hash.
    #[inline(always)]
    pub(crate) fn part(&self, hash: u32) -> usize {
        // A 32-bit shift by 32 bits would not shift at all.
        self.parts[(u64::from(hash) << self.depth >> 32) as usize] as usize
    }

    /// Returns true if a part whose hashes share their first `depth` bits can be split.
    pub(crate) fn may_split(depth: u32) -> bool {
        depth < DEPTH_MAX
    }

    /// Returns the half of a part, 0 or 1, that a hash is in. The hashes of the part share their first
    /// `depth` bits.
    #[inline(always)]
    pub(crate) fn half(hash: u32, depth: u32) -> usize {
        (hash >> (31 - depth) & 1) as usize
    }

    /// Splits a part whose hashes share their first `depth` bits: its second half becomes the part `added`.
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
