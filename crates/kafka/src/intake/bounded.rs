//! The partitions of a bounded source: a few are read at a time, each up to the end that it had at the start.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::consumer::base_consumer::PartitionQueue;

use crate::consumer::Context;
use crate::partition::Partition;

/// Most partitions that are read at a time. Each has a queue with a bound of its own.
const QUEUES_MAX: usize = 16;

/// The partitions of a bounded source.
#[derive(Default)]
pub(super) struct Bounded {
    /// The partitions whose end is not reached. Their queues say when the last record was read.
    pub queues: BTreeMap<Partition, PartitionQueue<Context>>,
    /// The partitions that have no queue yet, with their first offsets.
    waiting: BTreeMap<Partition, u64>,
    /// The partitions with nothing to read that the engine doesn't know yet.
    ended: Vec<Partition>,
    /// The partitions that were read to their ends.
    done: BTreeSet<Partition>,
    /// The number of pulls, which decides the partition that comes first.
    pulls: usize,
}

impl Bounded {
    /// Adds a partition to read from an offset to its end, if it has one.
    pub fn add(&mut self, partition: Partition, from: u64, end: Option<u64>) {
        match end {
            Some(end) if from < end => drop(self.waiting.insert(partition, from)),
            _ => self.ended.push(partition),
        }
    }

    /// Returns the next partition to read with its first offset, if there is room for its queue.
    pub fn next_waiting(&mut self) -> Option<(Partition, u64)> {
        if self.queues.len() < QUEUES_MAX { self.waiting.pop_first() } else { None }
    }

    /// Makes another partition the first one.
    pub fn begin_turn(&mut self) {
        self.pulls = self.pulls.wrapping_add(1);
    }

    /// Returns the partitions that are read, in turn.
    pub fn queues_in_turn(&self) -> impl Iterator<Item = (&Partition, &PartitionQueue<Context>)> {
        let first = self.pulls % self.queues.len().max(1);
        self.queues.iter().skip(first).chain(self.queues.iter().take(first))
    }

    /// Reads nothing for now.
    pub fn close(&mut self) {
        self.queues.clear();
        self.waiting.clear();
    }

    /// Returns true if no partition has anything left to read.
    pub fn is_read(&self) -> bool {
        self.queues.is_empty() && self.waiting.is_empty()
    }

    /// Returns the partitions that have ended without a record, once.
    pub fn take_ended(&mut self) -> Vec<Partition> {
        std::mem::take(&mut self.ended)
    }

    /// Notes that partitions were read to their ends.
    pub fn finish(&mut self, partitions: impl IntoIterator<Item = Partition>) {
        self.done.extend(partitions);
    }

    /// Notes that a partition has more to read.
    pub fn reopen(&mut self, partition: &Partition) {
        self.done.remove(partition);
    }

    /// Returns true if a partition was read to its end.
    pub fn is_done(&self, partition: &Partition) -> bool {
        self.done.contains(partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_without_records_ends_at_once() {
        let partition = |number| Partition { topic: "t".into(), number };
        let mut bounded = Bounded::default();
        bounded.add(partition(0), 0, Some(3));
        bounded.add(partition(1), 3, Some(3));
        bounded.add(partition(2), 3, None);
        assert!(!bounded.is_read());
        assert_eq!(bounded.take_ended(), [partition(1), partition(2)]);
        assert!(bounded.take_ended().is_empty());
        assert_eq!(bounded.next_waiting(), Some((partition(0), 0)));
        assert!(bounded.next_waiting().is_none() && bounded.is_read());
        bounded.finish([partition(0)]);
        assert!(bounded.is_done(&partition(0)) && !bounded.is_done(&partition(1)));
        bounded.reopen(&partition(0));
        assert!(!bounded.is_done(&partition(0)));
    }
}
