//! The batch that is running now, and those that are queued behind it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millstream_delta::Timestamp;

use crate::listener::Batch;

/// Maximum number of queued batches that are listed.
const QUEUED_MAX: usize = 100;

/// The batch that is running, with those that wait until it completes.
#[derive(Clone, Debug)]
pub struct ActiveBatch {
    /// The batch as it started.
    pub batch: Batch,
    /// How long it has been running.
    pub running: Duration,
    /// The batch times that are due and wait, oldest first; the first 100 of them. Empty unless the interval is fixed.
    pub queued: Vec<Timestamp>,
    /// The number of batches that are due and wait.
    pub queued_count: u64,
    /// The number of intervals that will be merged into the queued batches, because too many of them wait.
    pub merging: u64,
}

/// A batch that has started and not completed.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) batch: Batch,
    pub(crate) at: Instant,
    /// The batches that follow it under a fixed interval.
    pub(crate) queue: Option<Queue>,
}

/// The batch times that follow under a fixed interval, as the loop last saw them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    /// The batch times that were due when the batch started.
    pub(crate) due: Vec<Timestamp>,
    /// The first batch time that was not.
    pub(crate) next: Timestamp,
    /// In microseconds.
    pub(crate) interval_us: i64,
    /// The number of batches that may wait before they are merged; `None`: all run one by one.
    pub(crate) max: Option<usize>,
}

impl Started {
    /// Returns the batch as it is now.
    pub(crate) fn now(&self) -> ActiveBatch {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX));
        let (queued, queued_count, merging) =
            self.queue.as_ref().map_or_else(Default::default, |queue| queue.at(now));
        ActiveBatch { batch: self.batch.clone(), running: self.at.elapsed(), queued, queued_count, merging }
    }
}

impl Queue {
    /// Returns the first batch times that wait at a time, the number of all, and the number of merged intervals.
    fn at(&self, now: Timestamp) -> (Vec<Timestamp>, u64, u64) {
        let interval = self.interval_us.max(1);
        let since = now.0.saturating_sub(self.next.0);
        let further = if since < 0 { 0 } else { (since / interval) as u64 + 1 };
        let due = self.due.len() as u64;
        let all = due + further;
        let merging = self.max.map_or(0, |max| all.saturating_sub(max as u64));
        let time = |at: u64| match self.due.get(at as usize) {
            Some(due) => *due,
            None => Timestamp(self.next.0.saturating_add(interval.saturating_mul((at - due) as i64))),
        };
        let queued = (merging..all).take(QUEUED_MAX).map(time).collect();
        (queued, all - merging, merging)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_queue_up_while_one_runs_and_too_many_are_merged() {
        let queue = |max| Queue {
            due: vec![Timestamp(10), Timestamp(20)],
            next: Timestamp(30),
            interval_us: 10,
            max,
        };
        let at = |queue: Queue, now| {
            let (queued, count, merging) = queue.at(Timestamp(now));
            (queued.iter().map(|time| time.0).collect::<Vec<_>>(), count, merging)
        };
        assert_eq!(at(queue(Some(5)), 29), (vec![10, 20], 2, 0));
        assert_eq!(at(queue(Some(5)), 30), (vec![10, 20, 30], 3, 0));
        assert_eq!(at(queue(Some(3)), 55), (vec![30, 40, 50], 3, 2));
        assert_eq!(at(queue(Some(0)), 55), (vec![], 0, 5));
        let (queued, count, merging) = queue(None).at(Timestamp(10_020));
        assert_eq!((queued.len(), queued[99], count, merging), (100, Timestamp(1000), 1002, 0));
    }
}
