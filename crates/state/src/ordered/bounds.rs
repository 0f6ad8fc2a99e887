//! The lower bounds of the children of an inner node of an ordered tree.

/// For each child, a key that is not above any of its keys, and above all keys of the previous child.
///
/// A search compares the eight bytes of each bound after their common prefix; these lie in one piece of
/// memory. If they are equal, it compares whole bounds, which lie elsewhere. (Bayer and Unterauer, Prefix
/// B-trees, 1977; Lomet, The Evolution of Effective B-tree Page Organization and Techniques, 2001.)
#[derive(Debug)]
pub(super) struct Bounds {
    /// The bounds. The first is never compared: keys below the second belong to the first child.
    firsts: Vec<Box<[u8]>>,
    /// The common prefix of all bounds but the first.
    common: Vec<u8>,
    /// The eight bytes after it, padded with zeros.
    heads: Vec<u64>,
    /// The total size of the bounds in bytes.
    bytes: usize,
}

impl Bounds {
    /// Returns the bounds of two children; `second` is the bound of the second one.
    pub(super) fn of(second: Box<[u8]>) -> Bounds {
        Bounds::from(vec![Box::default(), second])
    }

    fn from(firsts: Vec<Box<[u8]>>) -> Bounds {
        let mut bounds = Bounds { bytes: 0, firsts, common: Vec::new(), heads: Vec::new() };
        bounds.bytes = bounds.firsts.iter().map(|first| first.len()).sum();
        bounds.look_again();
        bounds
    }

    pub(super) fn memory_bytes(&self) -> usize {
        16 * self.firsts.capacity() + 8 * self.heads.capacity() + self.common.capacity() + self.bytes
    }

    /// Returns the child that contains a key, or would contain it.
    pub(super) fn child(&self, key: &[u8]) -> usize {
        let last = self.firsts.len().saturating_sub(1);
        let Some((start, rest)) = key.split_at_checked(self.common.len()) else {
            return if *key < *self.common { 0 } else { last };
        };
        match start.cmp(&self.common) {
            std::cmp::Ordering::Less => return 0,
            std::cmp::Ordering::Greater => return last,
            std::cmp::Ordering::Equal => {}
        }
        let head = head(rest);
        let Some(heads) = self.heads.get(1..) else { return 0 };
        let below = heads.partition_point(|other| *other < head);
        let same = heads[below..].partition_point(|other| *other == head);
        below + self.firsts[1 + below..][..same].partition_point(|first| **first <= *key)
    }

    /// Inserts a child with this bound.
    pub(super) fn insert(&mut self, at: usize, first: Box<[u8]>) {
        self.bytes += first.len();
        match first.strip_prefix(&*self.common) {
            Some(rest) if at > 0 && self.firsts.len() > 1 => {
                self.heads.insert(at, head(rest));
                self.firsts.insert(at, first);
            }
            _ => {
                self.firsts.insert(at, first);
                self.look_again();
            }
        }
    }

    /// Removes a child and returns its bound.
    pub(super) fn remove(&mut self, at: usize) -> Box<[u8]> {
        self.heads.remove(at);
        let first = self.firsts.remove(at);
        self.bytes -= first.len();
        first
    }

    /// Removes the children from an index on, and returns the bound of the first of them.
    pub(super) fn split_off(&mut self, at: usize) -> (Box<[u8]>, Bounds) {
        let mut right = self.firsts.split_off(at);
        let first = std::mem::take(&mut right[0]);
        *self = Bounds::from(std::mem::take(&mut self.firsts));
        (first, Bounds::from(right))
    }

    /// Appends the children of the next node; `first` is the bound of the first of them.
    pub(super) fn append(&mut self, mut other: Bounds, first: Box<[u8]>) {
        if let Some(bound) = other.firsts.first_mut() {
            *bound = first;
        }
        self.firsts.append(&mut other.firsts);
        *self = Bounds::from(std::mem::take(&mut self.firsts));
    }

    /// Recomputes the common prefix and the bytes after it.
    fn look_again(&mut self) {
        let compared = self.firsts.get(1..).unwrap_or_default();
        // The bounds are sorted: a prefix of the least and the greatest is a prefix of all.
        self.common = match compared {
            [least, .., greatest] => {
                least.iter().zip(greatest.iter()).take_while(|(a, b)| a == b).map(|(a, _)| *a).collect()
            }
            // A single bound is its own prefix, which the next bound would hardly share.
            _ => Vec::new(),
        };
        let common = self.common.len();
        self.heads.clear();
        self.heads.extend(self.firsts.iter().map(|first| first.get(common..).map_or(0, head)));
    }
}

/// Returns the first eight bytes as a number of the same order.
fn head(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(eight) => u64::from_be_bytes(*eight),
        None => {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            u64::from_be_bytes(padded)
        }
    }
}
