//! The history of an engine's epochs: an hour of seconds in a ring of fixed size, and totals since the start.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millstream_engine::{Batch, Listener};
use serde_json::{Value, json};

/// Seconds of history: an hour.
pub(crate) const SECONDS: u64 = 3600;

/// Seconds between two samples of memory.
pub(crate) const SAMPLE_SECONDS: u64 = 5;

/// Samples of memory: an hour of them.
const SAMPLES: usize = (SECONDS / SAMPLE_SECONDS) as usize;

/// Upper bounds of the buckets of a histogram of times, in microseconds.
pub(crate) const BOUNDS_US: [u64; 13] = [
    100, 250, 1_000, 2_500, 10_000, 25_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000,
    60_000_000,
];

/// The epochs that completed within one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Second {
    /// Seconds since the history began, at which this second begins.
    pub(crate) number: u64,
    pub(crate) epochs: u64,
    pub(crate) rows_in: u64,
    pub(crate) rows_out: u64,
    pub(crate) processing_us: u64,
    pub(crate) processing_max_us: u64,
    pub(crate) scheduling_max_us: u64,
    pub(crate) total_max_us: u64,
}

/// A sample of memory and of the checkpoint's age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) number: u64,
    pub(crate) state_bytes: u64,
    pub(crate) spilled_bytes: u64,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) checkpoint_age_ms: Option<u64>,
}

/// A histogram of times with fixed buckets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// Times up to each bound; the last bucket has the longer ones.
    pub(crate) buckets: [u64; BOUNDS_US.len() + 1],
    pub(crate) sum_us: u64,
}

impl Times {
    fn add(&mut self, us: u64) {
        self.buckets[BOUNDS_US.partition_point(|bound| *bound < us)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }
}

/// Totals since the history began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) epochs: u64,
    pub(crate) rows_in: u64,
    pub(crate) rows_out: u64,
    pub(crate) merged_intervals: u64,
    pub(crate) missed: u64,
    pub(crate) processing: Times,
    pub(crate) scheduling: Times,
}

/// An hour of seconds, an hour of samples, and totals.
#[derive(Debug)]
pub(crate) struct History {
    began: Instant,
    /// The time of the beginning, in milliseconds since 1970.
    began_ms: u64,
    seconds: Box<[Second]>,
    samples: VecDeque<Sample>,
    totals: Totals,
}

impl History {
    fn new() -> History {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        History {
            began: Instant::now(),
            began_ms: since_1970.as_millis() as u64,
            seconds: vec![Second::default(); SECONDS as usize].into(),
            samples: VecDeque::with_capacity(SAMPLES),
            totals: Totals::default(),
        }
    }

    /// Returns the number of the current second.
    pub(crate) fn now(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Returns the time at which the history began, in milliseconds since 1970.
    pub(crate) fn began_ms(&self) -> u64 {
        self.began_ms
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// Adds an epoch that completed in the second `now`.
    fn add(&mut self, now: u64, batch: &Batch) {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (processing, scheduling) = (us(batch.processing_time), us(batch.scheduling_delay));
        let second = &mut self.seconds[(now % SECONDS) as usize];
        if second.number != now {
            *second = Second { number: now, ..Second::default() };
        }
        second.epochs += 1;
        second.rows_in += batch.input_rows();
        second.rows_out += batch.output_rows;
        second.processing_us = second.processing_us.saturating_add(processing);
        second.processing_max_us = second.processing_max_us.max(processing);
        second.scheduling_max_us = second.scheduling_max_us.max(scheduling);
        second.total_max_us = second.total_max_us.max(processing.saturating_add(scheduling));
        let totals = &mut self.totals;
        totals.epochs += 1;
        totals.rows_in += batch.input_rows();
        totals.rows_out += batch.output_rows;
        totals.merged_intervals += batch.merged_intervals;
        totals.processing.add(processing);
        totals.scheduling.add(scheduling);
    }

    /// Adds a sample; the oldest one leaves when there are too many.
    pub(crate) fn sample(&mut self, sample: Sample) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Returns the complete seconds from `since` on, at most an hour of them. A second without epochs is zero.
    pub(crate) fn seconds(&self, since: u64, now: u64) -> Vec<Second> {
        // The slot of the current second may still hold the one of an hour ago.
        let oldest = (now + 1).saturating_sub(SECONDS);
        (since.max(oldest)..now)
            .map(|number| {
                let found = self.seconds[(number % SECONDS) as usize];
                if found.number == number { found } else { Second { number, ..Second::default() } }
            })
            .collect()
    }

    /// Returns the seconds from `since` on in columns, as JSON.
    pub(crate) fn seconds_json(&self, since: u64, now: u64) -> Value {
        let seconds = self.seconds(since, now);
        let column = |of: fn(&Second) -> u64| seconds.iter().map(of).collect::<Vec<u64>>();
        json!({
            "from": seconds.first().map_or(now, |second| second.number),
            "next": now,
            "epochs": column(|second| second.epochs),
            "rows_in": column(|second| second.rows_in),
            "rows_out": column(|second| second.rows_out),
            "processing_us": column(|second| second.processing_us),
            "processing_max_us": column(|second| second.processing_max_us),
            "scheduling_max_us": column(|second| second.scheduling_max_us),
            "total_max_us": column(|second| second.total_max_us),
        })
    }

    /// Returns the samples from `since` on in columns, as JSON.
    pub(crate) fn samples_json(&self, since: u64) -> Value {
        let samples: Vec<&Sample> = self.samples.iter().filter(|sample| sample.number >= since).collect();
        let column = |of: fn(&Sample) -> Option<u64>| {
            samples.iter().map(|sample| of(sample)).collect::<Vec<Option<u64>>>()
        };
        json!({
            "at": column(|sample| Some(sample.number)),
            "state_bytes": column(|sample| Some(sample.state_bytes)),
            "spilled_bytes": column(|sample| Some(sample.spilled_bytes)),
            "resident_bytes": column(|sample| sample.resident_bytes),
            "checkpoint_age_ms": column(|sample| sample.checkpoint_age_ms),
        })
    }
}

/// A history that a listener writes and readers share.
#[derive(Clone, Debug)]
pub(crate) struct SharedHistory(Arc<Mutex<History>>);

impl SharedHistory {
    pub(crate) fn new() -> SharedHistory {
        SharedHistory(Arc::new(Mutex::new(History::new())))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for SharedHistory {
    fn batch_completed(&mut self, batch: &Batch) {
        let mut history = self.lock();
        let now = history.now();
        history.add(now, batch);
    }

    fn missed(&mut self, count: u64) {
        self.lock().totals.missed += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(rows: u64, processing_ms: u64, waited_ms: u64) -> Batch {
        Batch {
            inputs: vec![("a".into(), rows), ("b".into(), 1)],
            output_rows: 2 * rows,
            processing_time: Duration::from_millis(processing_ms),
            scheduling_delay: Duration::from_millis(waited_ms),
            ..Batch::default()
        }
    }

    #[test]
    fn a_second_has_the_sums_and_maxima_of_its_epochs() {
        let mut history = History::new();
        history.add(3, &batch(10, 5, 7));
        history.add(3, &batch(20, 8, 1));
        let expected = Second {
            number: 3,
            epochs: 2,
            rows_in: 32,
            rows_out: 60,
            processing_us: 13_000,
            processing_max_us: 8_000,
            scheduling_max_us: 7_000,
            total_max_us: 12_000,
        };
        assert_eq!(history.seconds(3, 4), [expected]);
    }

    #[test]
    fn seconds_without_epochs_are_zero_and_the_current_one_is_left_out() {
        let mut history = History::new();
        history.add(2, &batch(1, 1, 1));
        history.add(5, &batch(1, 1, 1));
        let epochs: Vec<(u64, u64)> =
            history.seconds(0, 5).iter().map(|second| (second.number, second.epochs)).collect();
        assert_eq!(epochs, [(0, 0), (1, 0), (2, 1), (3, 0), (4, 0)]);
        assert_eq!(history.seconds(9, 5), []);
    }

    #[test]
    fn the_history_ends_an_hour_ago() {
        let mut history = History::new();
        for second in 0..2 * SECONDS {
            history.add(second, &batch(1, 1, 1));
            history.sample(Sample { number: second, ..Sample::default() });
        }
        let now = 2 * SECONDS - 1;
        let seconds = history.seconds(0, now);
        assert_eq!((seconds.len() as u64, seconds[0].number), (SECONDS - 1, SECONDS));
        assert!(seconds.iter().all(|second| second.epochs == 1));
        // An hour of silence later, nothing of the old seconds is shown.
        assert!(history.seconds(0, now + 2 * SECONDS).iter().all(|second| second.epochs == 0));
        assert_eq!((history.samples.len(), history.seconds.len() as u64), (SAMPLES, SECONDS));
        assert_eq!(history.totals().epochs, 2 * SECONDS);
    }

    #[test]
    fn a_time_is_counted_in_the_bucket_of_its_bound() {
        let mut times = Times::default();
        [0, 100, 101, 60_000_000, 60_000_001].into_iter().for_each(|us| times.add(us));
        assert_eq!((times.buckets[0], times.buckets[1]), (2, 1));
        assert_eq!((times.buckets[BOUNDS_US.len() - 1], times.buckets[BOUNDS_US.len()]), (1, 1));
        assert_eq!(times.sum_us, 120_000_202);
    }

    #[test]
    fn json_has_a_column_for_each_figure() {
        let mut history = History::new();
        history.add(1, &batch(4, 2, 3));
        let json = history.seconds_json(1, 3);
        assert_eq!((&json["from"], &json["next"]), (&json!(1), &json!(3)));
        assert_eq!((&json["rows_in"], &json["total_max_us"]), (&json!([5, 0]), &json!([5_000, 0])));
        history.sample(Sample { number: 5, state_bytes: 7, ..Sample::default() });
        let json = history.samples_json(5);
        assert_eq!((&json["state_bytes"], &json["resident_bytes"]), (&json!([7]), &json!([null])));
        assert_eq!(history.samples_json(6)["at"], json!([]));
    }
}
