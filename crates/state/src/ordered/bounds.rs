//! Where the children of an inner node of an ordered tree begin.

/// For each child a key that is not above any of its keys, and above all of the child before.
///
/// A key is looked for in one piece of memory, among the eight bytes of each bound that follow what all have in common;
/// whole bounds, which lie elsewhere, are compared where these are the same. (Bayer and Unterauer, Prefix B-trees, 1977;
/// Lomet, The Evolution of Effective B-tree Page Organization and Techniques, 2001.)
#[derive(Debug)]
pub(super) struct Bounds {
    /// The first isn't compared with anything: what is below the second belongs to the first child.
    firsts: Vec<Box<[u8]>>,
    /// What all but the first begin with.
    common: Vec<u8>,
    /// The eight bytes after it, zeros behind its end.
    heads: Vec<u64>,
    /// How many bytes the bounds take.
    bytes: usize,
}

impl Bounds {
    /// Of two children, of which the second begins here.
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

    /// The child that has a key, or would have it.
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

    /// A child comes, and begins here.
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

    /// A child goes.
    pub(super) fn remove(&mut self, at: usize) -> Box<[u8]> {
        self.heads.remove(at);
        let first = self.firsts.remove(at);
        self.bytes -= first.len();
        first
    }

    /// Takes the children from a place on away, and says where the first of them begins.
    pub(super) fn split_off(&mut self, at: usize) -> (Box<[u8]>, Bounds) {
        let mut right = self.firsts.split_off(at);
        let first = std::mem::take(&mut right[0]);
        *self = Bounds::from(std::mem::take(&mut self.firsts));
        (first, Bounds::from(right))
    }

    /// Takes in the children of the node after it, the first of which begins here.
    pub(super) fn append(&mut self, mut other: Bounds, first: Box<[u8]>) {
        if let Some(bound) = other.firsts.first_mut() {
            *bound = first;
        }
        self.firsts.append(&mut other.firsts);
        *self = Bounds::from(std::mem::take(&mut self.firsts));
    }

    /// Finds out what they have in common, and what follows it.
    fn look_again(&mut self) {
        let compared = self.firsts.get(1..).unwrap_or_default();
        // They are in their order: what the least and the greatest share, all share.
        self.common = match compared {
            [least, .., greatest] => {
                least.iter().zip(greatest.iter()).take_while(|(a, b)| a == b).map(|(a, _)| *a).collect()
            }
            // One alone shares all with itself; the next one hardly does.
            _ => Vec::new(),
        };
        let common = self.common.len();
        self.heads.clear();
        self.heads.extend(self.firsts.iter().map(|first| first.get(common..).map_or(0, head)));
    }
}

/// The first eight bytes, as a number that is in their order.
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
