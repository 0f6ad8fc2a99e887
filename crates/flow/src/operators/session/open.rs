//! The sessions that are open: where each begins and ends.

use millstream_state::{Sequence, Spillable};

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
    /// Each as its partition, its start and its end.
    sessions: Sequence,
    /// The same by their ends, where they close: the end, the partition, the start.
    ends: Option<Sequence>,
}

/// How many bytes of a key a time has.
const TIME: usize = 8;

impl Open {
    /// None yet.
    pub(super) fn new(close: bool) -> Open {
        Open { sessions: Sequence::default(), ends: close.then(Sequence::default) }
    }

    /// The sessions of a partition that a stretch of time touches, in their order.
    pub(super) fn touched(&self, partition: &[u8], stretch: Bounds) -> Vec<Bounds> {
        let mut found = Vec::new();
        let mut position = self.sessions.position(&[partition, &in_order(stretch.end)].concat());
        while let Some(before) = position.checked_sub(1)
            && let Some(bounds) = self.sessions.key_at(before).and_then(|key| of_partition(key, partition))
            && bounds.end > stretch.start
        {
            found.push(bounds);
            position = before;
        }
        found.reverse();
        found
    }

    pub(super) fn add(&mut self, partition: &[u8], bounds: Bounds) {
        self.set(partition, bounds, true);
    }

    pub(super) fn remove(&mut self, partition: &[u8], bounds: Bounds) {
        self.set(partition, bounds, false);
    }

    fn set(&mut self, partition: &[u8], bounds: Bounds, there: bool) {
        let [start, end] = [bounds.start, bounds.end].map(in_order);
        self.sessions.set(&[partition, &start, &end].concat(), there);
        if let Some(ends) = &mut self.ends {
            ends.set(&[&end, partition, &start].concat(), there);
        }
    }

    /// When the first one ends, where they close.
    pub(super) fn first_end(&self) -> Option<i64> {
        let (end, _) = self.ends.as_ref()?.key_at(0)?.split_first_chunk()?;
        Some(time(*end))
    }

    /// Closes the first session that ends up to a time: its partition, and its bounds.
    pub(super) fn close_next(&mut self, up_to: i64) -> Option<(Box<[u8]>, Bounds)> {
        let (end, rest) = self.ends.as_ref()?.key_at(0)?.split_first_chunk()?;
        let (partition, start) = rest.split_last_chunk()?;
        let (partition, bounds): (Box<[u8]>, _) =
            (partition.into(), Bounds { start: time(*start), end: time(*end) });
        if bounds.end > up_to {
            return None;
        }
        self.remove(&partition, bounds);
        Some((partition, bounds))
    }

    /// About how many bytes they take.
    pub(super) fn memory_bytes(&self) -> usize {
        self.sessions.memory_bytes() + self.ends.as_ref().map_or(0, Sequence::memory_bytes)
    }

    /// Shows all that may lie in files.
    pub(super) fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.sessions);
        if let Some(ends) = &mut self.ends {
            show(ends);
        }
    }
}

/// Bytes in the order of times.
fn in_order(time: i64) -> [u8; TIME] {
    (time ^ i64::MIN).to_be_bytes()
}

fn time(in_order: [u8; TIME]) -> i64 {
    i64::from_be_bytes(in_order) ^ i64::MIN
}

/// The session that a key stands for, if it is this partition's. What a partition begins with is no other partition.
fn of_partition(key: &[u8], partition: &[u8]) -> Option<Bounds> {
    let (start, end) = key.strip_prefix(partition)?.split_first_chunk()?;
    Some(Bounds { start: time(*start), end: time(*end.first_chunk()?) })
}
