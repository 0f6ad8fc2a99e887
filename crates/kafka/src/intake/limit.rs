//! The limit of each partition: a token bucket. A partition whose bucket is empty is paused, so that librdkafka fetches
//! nothing of it meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::partition::Partition;

/// The buckets of the partitions.
#[derive(Debug)]
pub(super) struct Limits {
    /// Records a second. A bucket holds those of one second.
    per_second: f64,
    /// The records that a partition may still bring, and the time of that.
    left: BTreeMap<Partition, (f64, Instant)>,
    /// The partitions that bring nothing for now.
    paused: BTreeSet<Partition>,
}

impl Limits {
    pub fn new(per_second: f64) -> Limits {
        Limits { per_second, left: BTreeMap::new(), paused: BTreeSet::new() }
    }

    /// Counts a record. Returns true if the partition must pause.
    pub fn take(&mut self, partition: &Partition, now: Instant) -> bool {
        let left = self.available(partition, now) - 1.0;
        self.left.insert(partition.clone(), (left, now));
        left < 1.0 && self.paused.insert(partition.clone())
    }

    /// Returns true if a partition may bring a record.
    pub fn allows(&self, partition: &Partition, now: Instant) -> bool {
        self.available(partition, now) >= 1.0
    }

    /// Returns the paused partitions that may bring records again: those of a full bucket, or of a whole one.
    pub fn resumed(&mut self, now: Instant) -> Vec<Partition> {
        let enough = (self.per_second / 2.0).max(1.0);
        let is_due = |partition: &&Partition| self.available(partition, now) >= enough;
        let due: BTreeSet<Partition> = self.paused.iter().filter(is_due).cloned().collect();
        self.paused.retain(|partition| !due.contains(partition));
        due.into_iter().collect()
    }

    /// Forgets which partitions are paused: a new consumer reads all.
    pub fn restart(&mut self) {
        self.paused.clear();
    }

    fn available(&self, partition: &Partition, now: Instant) -> f64 {
        let most = self.per_second.max(1.0);
        match self.left.get(partition) {
            Some((left, since)) => {
                let seconds = now.saturating_duration_since(*since).as_secs_f64();
                (left + self.per_second * seconds).min(most)
            }
            None => most,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_partition_brings_its_records_a_second() {
        let (one, other) =
            (Partition { topic: "t".into(), number: 1 }, Partition { topic: "t".into(), number: 2 });
        let begun = Instant::now();
        let mut limits = Limits::new(4.0);
        let mut taken = [0; 2];
        for tick in 0..100 {
            let now = begun + Duration::from_millis(100 * tick);
            limits.resumed(now);
            for (place, partition) in [&one, &other].into_iter().enumerate() {
                // The other one has a record at a time only.
                let most = if place == 0 { 1000 } else { u64::from(tick % 10 == 0) };
                for _ in 0..most {
                    if limits.paused.contains(partition) {
                        break;
                    }
                    limits.take(partition, now);
                    taken[place] += 1;
                }
            }
        }
        // 10 seconds of 4, and a full bucket at the start.
        assert!((40..=44).contains(&taken[0]), "{taken:?}");
        assert_eq!(taken[1], 10);
    }

    #[test]
    fn less_than_a_record_a_second_is_a_record_now_and_then() {
        let partition = Partition { topic: "t".into(), number: 1 };
        let (begun, mut limits) = (Instant::now(), Limits::new(0.5));
        assert!(limits.take(&partition, begun));
        assert!(limits.resumed(begun + Duration::from_millis(1900)).is_empty());
        assert!(!limits.allows(&partition, begun + Duration::from_millis(1900)));
        assert_eq!(limits.resumed(begun + Duration::from_millis(2100)), [partition]);
    }
}
