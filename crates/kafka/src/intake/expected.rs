//! The records that are still expected: those before the ends that the partitions had when their reading began.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::partition::Partition;

/// For how long after the newest record the rest up to the known ends is still expected: FLUSH waits for it. Records of a
/// transaction that is open do not come.
const QUIET: Duration = Duration::from_secs(2);

/// The ends up to which records are expected.
#[derive(Debug)]
pub(super) struct Expected {
    /// The end of each partition at the start of its reading, unless it was reached. A bounded source ends there.
    ends: BTreeMap<Partition, u64>,
    /// The time of the newest record, or of the connection.
    newest: Instant,
}

impl Expected {
    pub fn new(now: Instant) -> Expected {
        Expected { ends: BTreeMap::new(), newest: now }
    }

    /// Expects the records before an end, unless an earlier one is known: a record that is appended later is not expected.
    pub fn note(&mut self, partition: &Partition, end: u64) {
        self.ends.entry(partition.clone()).or_insert(end);
    }

    /// Returns the end of a partition.
    pub fn end_of(&self, partition: &Partition) -> Option<u64> {
        self.ends.get(partition).copied()
    }

    /// Expects no more records of a partition.
    pub fn forget(&mut self, partition: &Partition) {
        self.ends.remove(partition);
    }

    /// Notes that records have come, or may come soon.
    pub fn is_busy(&mut self, now: Instant) {
        self.newest = now;
    }

    /// Returns true if a partition's end is still expected to be reached. `is_before` returns true if a partition is before an
    /// end. `forgets`: ends that were reached are expected no longer.
    pub fn are_due(
        &mut self,
        now: Instant,
        forgets: bool,
        is_before: impl Fn(&Partition, u64) -> bool,
    ) -> bool {
        if now.saturating_duration_since(self.newest) > QUIET {
            return false;
        }
        if forgets {
            self.ends.retain(|partition, end| is_before(partition, *end));
        }
        self.ends.iter().any(|(partition, end)| is_before(partition, *end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_expected_up_to_the_first_known_end_until_it_is_quiet() {
        let partition = |number| Partition { topic: "t".into(), number };
        let begun = Instant::now();
        let mut expected = Expected::new(begun);
        for (number, end) in [(0, 5), (0, 9), (1, 3)] {
            expected.note(&partition(number), end);
        }
        assert_eq!(expected.end_of(&partition(0)), Some(5));
        let read =
            |zero: u64| move |of: &Partition, end: u64| if of.number == 0 { zero < end } else { 3 < end };
        assert!(expected.are_due(begun, false, read(4)));
        assert!(!expected.are_due(begun + QUIET + Duration::from_millis(1), false, read(4)));
        expected.is_busy(begun + QUIET);
        assert!(expected.are_due(begun + QUIET * 2, true, read(4)));
        assert_eq!((expected.end_of(&partition(0)), expected.end_of(&partition(1))), (Some(5), None));
        assert!(!expected.are_due(begun + QUIET, true, read(5)));
        expected.note(&partition(1), 8);
        expected.forget(&partition(1));
        assert_eq!(expected.end_of(&partition(1)), None);
    }
}
