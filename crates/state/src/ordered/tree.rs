//! A counting B+ tree: sorted keys, each with the number of copies of all keys before it.
//!
//! Looking up a key, the position of a key or the key at a position, and changing a key take logarithmic
//! time.

use super::bounds::Bounds;
use super::leaf::{Entry, Leaf, Size};
use crate::Spilling;
use crate::sizes::Size as PageSize;

/// The maximum number of children of an inner node.
const CHILDREN_MAX: PageSize = PageSize::of(64);

/// A multiset of byte strings with an id each.
#[derive(Debug)]
pub(super) struct Tree {
    root: Node,
    entries: u64,
}

#[derive(Debug)]
enum Node {
    Leaf(Leaf),
    Inner(Inner),
}

#[derive(Debug)]
struct Inner {
    children: Vec<Node>,
    /// The bounds between the children.
    bounds: Bounds,
    /// The number of copies of each child.
    totals: Vec<u64>,
    /// The number of copies of all children.
    total: u64,
    /// The size of all children.
    size: Size,
}

/// The part of a node that no longer fits, with its first key.
type Split = Option<(Box<[u8]>, Node)>;

impl Tree {
    pub(super) fn new() -> Tree {
        Tree { root: Node::Leaf(Leaf::default()), entries: 0 }
    }

    /// Returns the number of copies of all keys.
    pub(super) fn total(&self) -> u64 {
        self.root.total()
    }

    /// Returns the number of distinct keys.
    #[cfg(test)]
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.root.size().memory
    }

    /// Returns the number of its bytes in files.
    pub(super) fn spilled_bytes(&self) -> usize {
        self.root.size().files
    }

    /// Spills leaves, if the round takes pages and the leaves together are large enough.
    pub(super) fn spill(&mut self, spilling: &mut Spilling<'_>) {
        if spilling.takes_pages_of(self.memory_bytes()) {
            self.root.spill(spilling);
        }
    }

    /// Returns the entry of a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<Entry<'_>> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Inner(inner) => node = &inner.children[inner.bounds.child(key)],
                Node::Leaf(leaf) => return leaf.find(key).ok().map(|at| leaf.entry(at)),
            }
        }
    }

    /// Returns the number of copies of the smaller keys, and the entry of a key.
    pub(super) fn find(&self, key: &[u8]) -> (u64, Option<Entry<'_>>) {
        let (mut node, mut before) = (&self.root, 0);
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.bounds.child(key);
                    before += inner.totals[..at].iter().sum::<u64>();
                    node = &inner.children[at];
                }
                Node::Leaf(leaf) => {
                    let (at, found) = match leaf.find(key) {
                        Ok(at) => (at, Some(leaf.entry(at))),
                        Err(at) => (at, None),
                    };
                    return (before + leaf.before(at), found);
                }
            }
        }
    }

    /// Sets the number of copies of a present or absent key; zero removes it.
    pub(super) fn set(&mut self, entry: Entry<'_>) {
        let (had, split) = self.root.set(entry);
        self.entries =
            self.entries + u64::from(!had && entry.copies > 0) - u64::from(had && entry.copies == 0);
        if let Some((first, right)) = split {
            let left = std::mem::replace(&mut self.root, Node::Leaf(Leaf::default()));
            self.root = Node::Inner(Inner::of(vec![left, right], Bounds::of(first)));
        }
        while let Node::Inner(inner) = &mut self.root
            && inner.children.len() <= 1
        {
            self.root = inner.children.pop().unwrap_or(Node::Leaf(Leaf::default()));
        }
    }

    /// Calls `take` with the entries in order, each with the position of its first copy. Begins at the entry
    /// that has the copy at `position`, and ends when `take` returns false.
    pub(super) fn scan<'a>(&'a self, position: u64, take: &mut dyn FnMut(u64, Entry<'a>) -> bool) {
        self.root.scan(0, position, take);
    }
}

impl Node {
    fn total(&self) -> u64 {
        match self {
            Node::Leaf(leaf) => leaf.total(),
            Node::Inner(inner) => inner.total,
        }
    }

    /// Returns its size, apart from its place in its parent.
    fn size(&self) -> Size {
        match self {
            Node::Leaf(leaf) => leaf.size(),
            Node::Inner(inner) => inner.size(),
        }
    }

    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        match self {
            Node::Leaf(leaf) => leaf.spill(spilling),
            Node::Inner(inner) => inner.spill(spilling),
        }
    }

    /// Returns true if the key was present, and the part that no longer fits.
    fn set(&mut self, entry: Entry<'_>) -> (bool, Split) {
        match self {
            Node::Leaf(leaf) => set_in_leaf(leaf, entry),
            Node::Inner(inner) => inner.set(entry),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.len() == 0,
            Node::Inner(inner) => inner.children.is_empty(),
        }
    }

    /// Returns true if the next node may be merged into it.
    fn fits_with(&self, other: &Node) -> bool {
        match (self, other) {
            (Node::Leaf(left), Node::Leaf(right)) => left.fits_with(right),
            (Node::Inner(left), Node::Inner(right)) => {
                left.children.len() + right.children.len() <= CHILDREN_MAX.get() / 2
            }
            _ => false,
        }
    }

    fn append(&mut self, other: Node, first: Box<[u8]>) {
        match (self, other) {
            (Node::Leaf(left), Node::Leaf(right)) => left.append(right),
            (Node::Inner(left), Node::Inner(mut right)) => {
                left.children.append(&mut right.children);
                left.bounds.append(right.bounds, first);
                left.totals.append(&mut right.totals);
                left.total += right.total;
                left.size += right.size;
            }
            // Neighbours always have the same height.
            _ => {}
        }
    }

    fn scan<'a>(&'a self, start: u64, position: u64, take: &mut dyn FnMut(u64, Entry<'a>) -> bool) -> bool {
        let mut start = start;
        match self {
            Node::Leaf(leaf) => {
                for at in 0..leaf.len() {
                    let entry = leaf.entry(at);
                    if start + entry.copies > position && !take(start, entry) {
                        return false;
                    }
                    start += entry.copies;
                }
            }
            Node::Inner(inner) => {
                for (child, total) in inner.children.iter().zip(&inner.totals) {
                    if start + total > position && !child.scan(start, position, take) {
                        return false;
                    }
                    start += total;
                }
            }
        }
        true
    }
}

fn set_in_leaf(leaf: &mut Leaf, entry: Entry<'_>) -> (bool, Split) {
    let at = match leaf.find(entry.key) {
        Ok(at) if entry.copies == 0 => {
            leaf.remove(at);
            return (true, None);
        }
        Ok(at) => {
            leaf.set_copies(at, entry.copies);
            return (true, None);
        }
        Err(_) if entry.copies == 0 => return (false, None),
        Err(at) => at,
    };
    leaf.insert(at, entry);
    if !leaf.is_full() {
        return (false, None);
    }
    // Ascending inserts fill leaves completely.
    let middle = if at + 1 == leaf.len() { at } else { leaf.len() / 2 };
    let right = leaf.split_off(middle);
    (false, Some((between(leaf.entry(middle - 1).key, right.entry(0).key), Node::Leaf(right))))
}

/// Returns the shortest prefix of a key that is above the previous key; it suffices to separate two leaves.
fn between(before: &[u8], key: &[u8]) -> Box<[u8]> {
    let common = before.iter().zip(key).take_while(|(a, b)| a == b).count();
    key.get(..=common).unwrap_or(key).into()
}

impl Inner {
    fn of(children: Vec<Node>, bounds: Bounds) -> Inner {
        let totals: Vec<u64> = children.iter().map(Node::total).collect();
        let (total, size) = (totals.iter().sum(), children.iter().map(Node::size).sum());
        Inner { children, bounds, totals, total, size }
    }

    fn size(&self) -> Size {
        let held = size_of::<Node>() * self.children.capacity() + 8 * self.totals.capacity();
        Size { memory: held + self.bounds.memory_bytes() + self.size.memory, files: self.size.files }
    }

    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        for child in &mut self.children {
            if spilling.is_over() {
                break;
            }
            let before = child.size();
            child.spill(spilling);
            self.size -= before;
            self.size += child.size();
        }
    }

    fn set(&mut self, entry: Entry<'_>) -> (bool, Split) {
        let at = self.bounds.child(entry.key);
        let child = &mut self.children[at];
        let (size, total) = (child.size(), child.total());
        let (had, split) = child.set(entry);
        self.totals[at] = child.total();
        self.total = self.total - total + child.total();
        self.size -= size;
        self.size += child.size();
        if let Some((first, right)) = split {
            self.totals.insert(at + 1, right.total());
            self.total += right.total();
            self.size += right.size();
            make_room(&mut self.children);
            self.children.insert(at + 1, right);
            self.bounds.insert(at + 1, first);
        } else if had && entry.copies == 0 {
            self.shrink(at);
        }
        if self.children.len() <= CHILDREN_MAX.get() {
            return (had, None);
        }
        let middle =
            if at + 2 >= self.children.len() { self.children.len() - 1 } else { CHILDREN_MAX.get() / 2 };
        let (first, bounds) = self.bounds.split_off(middle);
        let right = Inner::of(self.children.split_off(middle), bounds);
        self.totals.truncate(middle);
        self.total -= right.total;
        self.size -= right.size;
        (had, Some((first, Node::Inner(right))))
    }

    /// Restores the node after a removal from a child: drops an empty child, merges small neighbours.
    fn shrink(&mut self, at: usize) {
        if self.children[at].is_empty() {
            self.size -= self.children.remove(at).size();
            self.bounds.remove(at);
            self.totals.remove(at);
            return;
        }
        for left in [at.checked_sub(1), Some(at)].into_iter().flatten() {
            let [first, second, ..] = &self.children[left..] else { continue };
            if first.fits_with(second) {
                let sizes = [first.size(), second.size()];
                let (right, first) = (self.children.remove(left + 1), self.bounds.remove(left + 1));
                self.totals[left] += self.totals.remove(left + 1);
                self.children[left].append(right, first);
                sizes.into_iter().for_each(|size| self.size -= size);
                self.size += self.children[left].size();
                return;
            }
        }
    }
}

/// Makes room for one more child, without capacity beyond the maximum.
fn make_room(children: &mut Vec<Node>) {
    let len = children.len();
    if len == children.capacity() {
        children.reserve_exact(len.max(4).min((CHILDREN_MAX.get() + 1).saturating_sub(len)).max(1));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use millstream_seeds::{Random, first_seeds};

    /// Returns the size of a node, computed from its leaves.
    fn counted(node: &Node) -> Size {
        let Node::Inner(inner) = node else { return node.size() };
        assert_eq!(inner.total, inner.children.iter().map(Node::total).sum::<u64>());
        let mut size = inner.size();
        size -= inner.size;
        size += inner.children.iter().map(counted).sum();
        size
    }

    fn check(tree: &Tree, expected: &BTreeMap<Vec<u8>, (u64, u64)>, random: &mut Random) {
        assert_eq!(tree.total(), expected.values().map(|(_, copies)| copies).sum::<u64>());
        assert_eq!(tree.entries(), expected.len() as u64);
        assert_eq!(tree.root.size(), counted(&tree.root));
        let mut all = Vec::new();
        tree.scan(0, &mut |start, entry| {
            all.push((start, entry.key.to_vec(), entry.id, entry.copies));
            true
        });
        let mut start = 0;
        assert_eq!(all.len(), expected.len());
        for ((found, key, id, copies), (expected, of)) in all.iter().zip(expected) {
            assert_eq!((found, key, (*id, *copies)), (&start, expected, *of));
            assert_eq!((tree.find(key).0, tree.get(key).map(|entry| entry.id)), (start, Some(*id)));
            start += copies;
        }
        if start > 0 {
            let position = random.below(start);
            let mut found = None;
            tree.scan(position, &mut |start, entry| {
                found = Some((start, entry.key));
                false
            });
            let last = all.iter().rev().find(|(start, ..)| *start <= position).unwrap();
            assert_eq!(found, Some((last.0, &last.1[..])));
        }
    }

    #[test]
    fn it_is_an_ordered_map_that_counts() {
        for seed in first_seeds(3, 0..12) {
            let mut random = Random(seed);
            let variety = [50, 3_000, 60_000][seed as usize % 3];
            let (mut tree, mut expected) = (Tree::new(), BTreeMap::new());
            for round in 0..20 {
                let grows = round < 10;
                for _ in 0..1_500 {
                    let number = random.below(variety);
                    // Some keys share prefixes, and some are prefixes of others.
                    let mut key = vec![b'p'; 5 * (number % 4) as usize];
                    key.extend_from_slice(&(number / 3).to_be_bytes());
                    key.extend(std::iter::repeat_n([0, 0, 7][(number % 3) as usize], (number % 40) as usize));
                    let copies =
                        if random.below(10) < if grows { 2 } else { 9 } { 0 } else { 1 + random.below(3) };
                    let there = expected.get(&key).map(|(id, _)| *id);
                    let id = there.unwrap_or(number * 3);
                    tree.set(Entry { key: &key, id, copies });
                    if copies == 0 {
                        expected.remove(&key);
                    } else {
                        expected.insert(key, (id, copies));
                    }
                }
                check(&tree, &expected, &mut random);
            }
            for key in expected.keys() {
                tree.set(Entry { key, id: 0, copies: 0 });
            }
            check(&tree, &BTreeMap::new(), &mut random);
        }
    }

    #[test]
    fn keys_in_their_order_fill_leaves() {
        let mut tree = Tree::new();
        for number in 0..100_000u64 {
            tree.set(Entry { key: &number.to_be_bytes(), id: number, copies: 1 });
        }
        assert!(tree.memory_bytes() < 100_000 * 30, "{}", tree.memory_bytes());
    }
}
