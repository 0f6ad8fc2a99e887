//! The sessions that are open: where each begins and ends.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included};

/// Where a session begins, and where it ends: a gap after its last row. Both count the unit of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bounds {
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Bounds {
    pub(super) fn contains(&self, time: i64) -> bool {
        self.start <= time && time < self.end
    }
}

/// Sessions by their partition and their start; those of a partition don't overlap.
#[derive(Debug)]
pub(super) struct Open {
    sessions: BTreeMap<Box<[u8]>, Bounds>,
    /// The same by their ends, where they close.
    ends: Option<BTreeSet<(i64, Box<[u8]>)>>,
}

/// How many bytes of a key the time has.
const TIME: usize = 8;

impl Open {
    /// None yet.
    pub(super) fn new(close: bool) -> Open {
        Open { sessions: BTreeMap::new(), ends: close.then(BTreeSet::new) }
    }

    /// The sessions of a partition that a stretch of time touches, in their order.
    pub(super) fn touched(&self, partition: &[u8], stretch: Bounds) -> Vec<Bounds> {
        let (first, last) = (key(partition, i64::MIN), key(partition, stretch.end));
        let before = self.sessions.range::<[u8], _>((Included(&*first), Excluded(&*last))).rev();
        let mut found: Vec<Bounds> =
            before.map(|(_, bounds)| *bounds).take_while(|bounds| bounds.end > stretch.start).collect();
        found.reverse();
        found
    }

    pub(super) fn add(&mut self, partition: &[u8], bounds: Bounds) {
        let key = key(partition, bounds.start);
        if let Some(ends) = &mut self.ends {
            ends.insert((bounds.end, key.clone()));
        }
        self.sessions.insert(key, bounds);
    }

    pub(super) fn remove(&mut self, partition: &[u8], bounds: Bounds) {
        let key = key(partition, bounds.start);
        self.sessions.remove(&key);
        if let Some(ends) = &mut self.ends {
            ends.remove(&(bounds.end, key));
        }
    }

    /// When the first one ends, where they close.
    pub(super) fn first_end(&self) -> Option<i64> {
        self.ends.as_ref()?.first().map(|(end, _)| *end)
    }

    /// Closes the first session that ends up to a time: its partition, and its bounds.
    pub(super) fn close_next(&mut self, up_to: i64) -> Option<(Box<[u8]>, Bounds)> {
        let ends = self.ends.as_mut()?;
        ends.first().filter(|(end, _)| *end <= up_to)?;
        let (_, key) = ends.pop_first()?;
        let bounds = self.sessions.remove(&key)?;
        let partition = &key[..key.len().checked_sub(TIME)?];
        Some((partition.into(), bounds))
    }

    /// About how many bytes they take.
    pub(super) fn memory_bytes(&self) -> usize {
        let keys: usize = if self.ends.is_some() { 2 } else { 1 };
        let key = self.sessions.first_key_value().map_or(0, |(key, _)| key.len() + size_of::<Box<[u8]>>());
        self.sessions.len() * (keys * key + size_of::<Bounds>())
    }
}

/// Bytes in the order of partitions, and of times within one. What a partition begins with is no other partition.
fn key(partition: &[u8], time: i64) -> Box<[u8]> {
    let mut key = Vec::with_capacity(partition.len() + TIME);
    key.extend_from_slice(partition);
    key.extend_from_slice(&(time ^ i64::MIN).to_be_bytes());
    key.into()
}
