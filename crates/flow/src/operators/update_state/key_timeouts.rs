//! The time-out of keys without rows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use millstream_delta::Timestamp;
use millstream_state::{Paged, Spillable};

/// The time of the last rows of each slot's key, and the keys that had no rows for too long.
#[derive(Debug)]
pub(super) struct KeyTimeouts {
    /// The time-out in microseconds, if there is one.
    timeout: Option<i64>,
    /// The time of the last rows of each slot's key.
    last: Paged<i64>,
    /// The keys with rows, by time.
    calls: VecDeque<(i64, Vec<u32>)>,
}

impl KeyTimeouts {
    pub(super) fn new(timeout: Option<i64>) -> KeyTimeouts {
        KeyTimeouts { timeout, last: Paged::default(), calls: VecDeque::new() }
    }

    /// Forgets all times.
    pub(super) fn reset(&mut self) {
        *self = KeyTimeouts::new(self.timeout);
    }

    pub(super) fn timeout(&self) -> Option<i64> {
        self.timeout
    }

    /// Records that keys have rows now. `slots_end`: all slots are lower.
    pub(super) fn touch(&mut self, slots: &[u32], slots_end: usize, now: i64) {
        self.last.resize(slots_end, i64::MIN);
        slots.iter().for_each(|slot| self.last[*slot as usize] = now);
        if self.timeout.is_some() && !slots.is_empty() {
            self.calls.push_back((now, slots.to_vec()));
        }
    }

    /// Forgets a key, whose slot becomes free.
    pub(super) fn forget(&mut self, slot: u32) {
        self.last[slot as usize] = i64::MIN;
    }

    /// Returns the time of a key's last rows.
    pub(super) fn last_of(&self, slot: u32) -> i64 {
        self.last.get(slot).copied().unwrap_or(i64::MIN)
    }

    /// Takes the keys that had no rows for the time-out, each once. A slot may have been freed since.
    pub(super) fn take_due(&mut self, now: i64) -> Vec<u32> {
        let Some(timeout) = self.timeout else { return Vec::new() };
        let mut due = Vec::new();
        while let Some((time, slots)) =
            self.calls.pop_front_if(|(time, _)| time.saturating_add(timeout) <= now)
        {
            due.extend(slots.into_iter().filter(|slot| self.last[*slot as usize] == time));
        }
        // Two batches at the same time may have rows of the same key.
        due.sort_unstable();
        due.dedup();
        self.trim();
        due
    }

    /// Drops the oldest calls if all their keys were called again.
    pub(super) fn trim(&mut self) {
        while let Some((time, slots)) = self.calls.front()
            && slots.iter().all(|slot| self.last[*slot as usize] != *time)
        {
            self.calls.pop_front();
        }
    }

    /// Returns the time at which the next key may be due.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        let (time, _) = self.calls.front()?;
        Some(Timestamp(time.saturating_add(self.timeout?)))
    }

    /// Loads the time of each slot's last rows. The calls follow from them, except for the keys in `taken`, which
    /// have been due.
    pub(super) fn load(&mut self, last: impl Iterator<Item = i64>, taken: &BTreeSet<u32>) {
        self.last = last.collect();
        if self.timeout.is_none() {
            return;
        }
        let mut calls: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for slot in (0..self.last.len() as u32).filter(|slot| !taken.contains(slot)) {
            calls.entry(self.last_of(slot)).or_default().push(slot);
        }
        self.calls = calls.into_iter().collect();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let calls: usize = self.calls.iter().map(|(_, slots)| slots.capacity() * size_of::<u32>()).sum();
        self.last.memory_bytes() + calls
    }

    /// Returns the part that can be spilled.
    pub(super) fn store(&mut self) -> &mut dyn Spillable {
        &mut self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_without_rows_for_the_timeout_are_due_once() {
        let mut keys = KeyTimeouts::new(Some(10));
        keys.touch(&[0, 1], 2, 100);
        keys.touch(&[1, 2], 3, 100);
        keys.touch(&[2], 3, 105);
        assert_eq!((keys.wake_at(), keys.take_due(109)), (Some(Timestamp(110)), vec![]));
        assert_eq!(keys.take_due(110), [0, 1]);
        assert_eq!(keys.wake_at(), Some(Timestamp(115)));
        // A key that is called again waits anew.
        keys.touch(&[2], 3, 112);
        keys.trim();
        assert_eq!((keys.wake_at(), keys.last_of(2)), (Some(Timestamp(122)), 112));
        let mut loaded = KeyTimeouts::new(Some(10));
        loaded.load([100, 90, 112].into_iter(), &BTreeSet::new());
        assert_eq!((loaded.wake_at(), loaded.take_due(111)), (Some(Timestamp(100)), vec![0, 1]));
        loaded.load([100, 90, 112].into_iter(), &BTreeSet::from([1]));
        assert_eq!((loaded.wake_at(), loaded.take_due(111)), (Some(Timestamp(110)), vec![0]));
    }

    #[test]
    fn without_a_timeout_nothing_is_due() {
        let mut keys = KeyTimeouts::new(None);
        keys.touch(&[0], 1, 100);
        assert_eq!((keys.wake_at(), keys.take_due(i64::MAX), keys.last_of(0)), (None, vec![], 100));
        keys.forget(0);
        assert_eq!((keys.last_of(0), keys.last_of(7)), (i64::MIN, i64::MIN));
    }
}
