//! The open sessions with their bounds.

use millstream_state::{Sequence, Spillable};

/// The start and end of a session; it ends a gap after its last row. Both count the time's unit.
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
pub(super) struct OpenSessions {
    /// Each session as its partition, start and end.
    sessions: Sequence,
    /// The sessions by their ends, if they close: the end, the partition, the start.
    ends: Option<Sequence>,
}

/// The number of bytes of a time in a key.
const TIME: usize = 8;

impl OpenSessions {
    /// Returns no sessions.
    pub(super) fn new(close: bool) -> OpenSessions {
        OpenSessions { sessions: Sequence::default(), ends: close.then(Sequence::default) }
    }

    /// Returns the sessions of a partition that a stretch of time touches, in their order.
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

    /// Returns the end of the first session to end, if sessions close.
    pub(super) fn first_end(&self) -> Option<i64> {
        let (end, _) = self.ends.as_ref()?.key_at(0)?.split_first_chunk()?;
        Some(time(*end))
    }

    /// Closes the first session that ends by `up_to`; returns its partition and bounds.
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

    /// Returns the approximate size in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.sessions.memory_bytes() + self.ends.as_ref().map_or(0, Sequence::memory_bytes)
    }

    /// Shows the parts that may be spilled.
    pub(super) fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.sessions);
        if let Some(ends) = &mut self.ends {
            show(ends);
        }
    }
}

/// Returns bytes in the order of times.
fn in_order(time: i64) -> [u8; TIME] {
    (time ^ i64::MIN).to_be_bytes()
}

fn time(in_order: [u8; TIME]) -> i64 {
    i64::from_be_bytes(in_order) ^ i64::MIN
}

/// Returns the session of a key, if it is in this partition. No partition's bytes are a prefix of another's.
fn of_partition(key: &[u8], partition: &[u8]) -> Option<Bounds> {
    let (start, end) = key.strip_prefix(partition)?.split_first_chunk()?;
    Some(Bounds { start: time(*start), end: time(*end.first_chunk()?) })
}
