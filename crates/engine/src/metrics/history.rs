//! The history of an engine's epochs: an hour of seconds and of samples in rings of fixed size, and totals since the
//! start.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::active::{ActiveBatch, Started};
use super::{Metric, MetricValue, Values, definitions, labels_json};
use crate::listener::Batch;
use crate::settings::interval_text;

/// Seconds of history: an hour.
const SECONDS: u64 = 3600;

/// Seconds between two samples.
pub(crate) const SAMPLE_SECONDS: u64 = 10;

/// Samples of the history: an hour of them.
const SAMPLES: usize = (SECONDS / SAMPLE_SECONDS) as usize;

/// The number of epochs that are remembered one by one.
const EPOCHS_MAX: usize = 1000;

/// Maximum number of values of a sample. They take 16 bytes each.
const SAMPLE_VALUES_MAX: usize = 512;

/// Maximum number of operators, and of queries, whose busy time is remembered of a second: the busiest.
const BUSY_MAX: usize = 16;

/// Minimum of seconds over which the keeping up is judged.
const JUDGED_SECONDS_MIN: u64 = 10;

/// The scheduling delay from which on the engine doesn't keep up, in microseconds.
const DELAY_MAX_US: u64 = 10_000_000;

/// Upper bounds of the buckets of a histogram of times, in microseconds.
pub(crate) const BOUNDS_US: [u64; 13] = [
    100, 250, 1_000, 2_500, 10_000, 25_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000,
    60_000_000,
];

/// The epochs that completed within one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// The number of the second since the start, from 0.
    pub number: u64,
    /// Epochs.
    pub epochs: u64,
    /// Rows of sources and tables that they read.
    pub rows_in: u64,
    /// Rows by which the results of queries changed.
    pub rows_out: u64,
    /// The sum of the processing times, in microseconds.
    pub processing_us: u64,
    /// The longest processing time, in microseconds.
    pub processing_max_us: u64,
    /// The longest scheduling delay, in microseconds.
    pub scheduling_max_us: u64,
    /// The longest total delay, in microseconds.
    pub total_max_us: u64,
}

/// The time that a query or one of its operators took within one second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    /// The view, stream or sink.
    pub query: Arc<str>,
    /// The node of the operator; `None`: all operators of the query.
    pub node: Option<usize>,
    /// The time, in microseconds.
    pub time_us: u64,
}

/// The name of a value of samples.
#[derive(Debug)]
pub struct Series {
    /// The metric.
    pub metric: &'static Metric,
    /// The name of its samples.
    pub name: String,
    /// The labels, as a JSON object.
    pub labels: String,
}

/// The values of metrics at one time.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The second since the start.
    pub number: u64,
    /// The values, in the order of the metrics; at most 512 of them.
    pub values: Vec<(Arc<Series>, f64)>,
}

impl Sample {
    /// Returns the value of a metric without labels.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(series, _)| series.name == name).map(|(_, value)| *value)
    }
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

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Epochs.
    pub epochs: u64,
    /// Rows of sources and tables that they read.
    pub rows_in: u64,
    /// Rows by which the results of queries changed.
    pub rows_out: u64,
    /// Intervals merged into a later epoch.
    pub merged_intervals: u64,
    pub(crate) processing: Times,
    pub(crate) scheduling: Times,
}

/// The work of one operator in an epoch.
#[derive(Clone, Debug)]
pub(crate) struct OperatorWork {
    pub(crate) query: Arc<str>,
    pub(crate) node: usize,
    pub(crate) time_us: u64,
    pub(crate) rows_in: u64,
    pub(crate) rows_out: u64,
    /// The time at which its last step ended.
    pub(crate) ended: Option<Instant>,
}

/// Times by query and node; without a node, those of a whole query.
type BusyTimes = BTreeMap<(Arc<str>, Option<usize>), u64>;

/// The rings.
#[derive(Debug)]
struct Rings {
    seconds: Box<[Second]>,
    /// The busiest operators and queries of past seconds, oldest first.
    busy: VecDeque<(u64, Box<[Busy]>)>,
    /// The number of the current second, and its busy times in microseconds.
    current: (u64, BusyTimes),
    samples: VecDeque<Sample>,
    /// The names of values in samples, by metric and labels.
    names: BTreeMap<(String, String), Arc<Series>>,
    totals: Totals,
    /// The last epoch, as a second of its own.
    last: Option<Second>,
    /// The last epochs, oldest first.
    batches: VecDeque<Arc<Batch>>,
}

/// The history of an engine: an hour of seconds and of samples, and totals since the start. A cheap handle, which may
/// outlive the engine.
#[derive(Clone)]
pub struct History {
    began: Instant,
    /// The time of the beginning, in milliseconds since 1970.
    began_ms: u64,
    rings: Arc<Mutex<Rings>>,
    /// The batch that is running.
    active: Arc<Mutex<Option<Started>>>,
}

impl Default for History {
    fn default() -> History {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let rings = Rings {
            seconds: vec![Second::default(); SECONDS as usize].into(),
            busy: VecDeque::new(),
            current: (0, BusyTimes::new()),
            samples: VecDeque::new(),
            names: BTreeMap::new(),
            totals: Totals::default(),
            last: None,
            batches: VecDeque::new(),
        };
        History {
            began: Instant::now(),
            began_ms: since_1970.as_millis() as u64,
            rings: Arc::new(Mutex::new(rings)),
            active: Arc::default(),
        }
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("began_ms", &self.began_ms).finish_non_exhaustive()
    }
}

impl History {
    /// Returns the number of the current second.
    pub fn now(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Returns the time at which the first second began, in milliseconds since 1970.
    pub fn began_ms(&self) -> u64 {
        self.began_ms
    }

    /// Returns the totals since the start.
    pub fn totals(&self) -> Totals {
        self.lock().totals
    }

    /// Returns the batch that is running, if one is, also while the engine is busy.
    pub fn active(&self) -> Option<ActiveBatch> {
        self.lock_active().as_ref().map(Started::now)
    }

    /// Returns the values of the metrics of the batch that is running.
    pub(crate) fn active_values(&self) -> [(&'static Metric, f64); 2] {
        let active = self.active();
        let running = active.as_ref().map_or(0.0, |active| active.running.as_secs_f64());
        let queued = active.map_or(0, |active| active.queued_count) as f64;
        [(&definitions::ACTIVE, running), (&definitions::QUEUED, queued)]
    }

    /// Returns the values of the metrics of epochs, also while the engine is busy.
    pub fn metrics(&self) -> Vec<MetricValue> {
        let mut values = Values::default();
        values.epochs(self);
        values.finish()
    }

    /// Returns the complete seconds from `since` on, at most an hour of them. A second without epochs is zero.
    pub fn seconds(&self, since: u64) -> Vec<Second> {
        self.lock().seconds(since, self.now())
    }

    /// Returns the reason why epochs don't keep up with their input, if they don't. It is judged over ten seconds, or
    /// several intervals where these are longer; `interval` is the setting `batch_interval`, without `auto`.
    pub fn falls_behind(&self, interval: Option<Duration>) -> Option<String> {
        let judged = JUDGED_SECONDS_MIN.max(interval.map_or(0, |interval| 3 * interval.as_secs()));
        let rings = self.lock();
        behind_text(&rings.judged(self.now(), judged), interval)
    }

    /// Returns the busiest operators and queries of the complete seconds from `since` on, oldest first.
    pub fn busy(&self, since: u64) -> Vec<(u64, Box<[Busy]>)> {
        self.busy_between(since, u64::MAX)
    }

    /// Returns those of the complete seconds from one up to another, which is excluded.
    pub fn busy_between(&self, from: u64, to: u64) -> Vec<(u64, Box<[Busy]>)> {
        let mut rings = self.lock();
        let now = self.now();
        rings.begin_second(now);
        let seconds = from.max((now + 1).saturating_sub(SECONDS))..to;
        rings.busy.iter().filter(|(number, _)| seconds.contains(number)).cloned().collect()
    }

    /// Returns those of the last 1,000 epochs that are after `epoch`, oldest first, also while the engine is busy.
    pub fn batches(&self, epoch: u64) -> Vec<Arc<Batch>> {
        self.lock().batches.iter().skip_while(|batch| batch.epoch.0 <= epoch).cloned().collect()
    }

    /// Returns the samples from the second `since` on, oldest first. There is one every 10 seconds.
    pub fn samples(&self, since: u64) -> Vec<Sample> {
        self.lock().samples.iter().filter(|sample| sample.number >= since).cloned().collect()
    }

    /// Notes that an epoch has started.
    pub(crate) fn start(&self, started: Started) {
        *self.lock_active() = Some(started);
    }

    /// Adds an epoch that has just completed, with the work of its operators.
    pub(crate) fn add(&self, batch: &Arc<Batch>, work: &[OperatorWork]) {
        *self.lock_active() = None;
        let now = self.now();
        let mut rings = self.lock();
        rings.add(now, batch);
        rings.add_work(now, work);
        if rings.batches.len() == EPOCHS_MAX {
            rings.batches.pop_front();
        }
        rings.batches.push_back(batch.clone());
    }

    /// Adds a sample; the oldest one leaves when there are too many.
    pub(crate) fn sample(&self, values: &[MetricValue]) {
        let now = self.now();
        self.lock().sample(now, values);
    }

    fn lock_active(&self) -> MutexGuard<'_, Option<Started>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rings {
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
        self.last = Some(Second {
            number: now,
            epochs: 1,
            processing_us: processing,
            processing_max_us: processing,
            scheduling_max_us: scheduling,
            ..Second::default()
        });
        let totals = &mut self.totals;
        totals.epochs += 1;
        totals.rows_in += batch.input_rows();
        totals.rows_out += batch.output_rows;
        totals.merged_intervals += batch.merged_intervals;
        totals.processing.add(processing);
        totals.scheduling.add(scheduling);
    }

    fn add_work(&mut self, now: u64, work: &[OperatorWork]) {
        self.begin_second(now);
        for OperatorWork { query, node, time_us, .. } in work {
            for node in [Some(*node), None] {
                *self.current.1.entry((query.clone(), node)).or_default() += time_us;
            }
        }
    }

    /// Moves the busy times of the current second to the ring, if that second is over.
    fn begin_second(&mut self, now: u64) {
        if now <= self.current.0 {
            return;
        }
        let (number, busy) = std::mem::replace(&mut self.current, (now, BusyTimes::new()));
        let busy = busy.into_iter().filter(|(_, time_us)| *time_us > 0);
        let busy = busy.map(|((query, node), time_us)| Busy { query, node, time_us });
        let (mut operators, mut queries): (Vec<Busy>, Vec<Busy>) = busy.partition(|busy| busy.node.is_some());
        for all in [&mut operators, &mut queries] {
            all.sort_by_key(|busy| std::cmp::Reverse(busy.time_us));
            all.truncate(BUSY_MAX);
        }
        queries.append(&mut operators);
        while self.busy.front().is_some_and(|(oldest, _)| *oldest + SECONDS <= now) {
            self.busy.pop_front();
        }
        if !queries.is_empty() {
            self.busy.push_back((number, queries.into()));
        }
    }

    fn sample(&mut self, now: u64, values: &[MetricValue]) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        let values = values.iter().take(SAMPLE_VALUES_MAX).map(|value| {
            let key = (value.name(), labels_json(&value.labels));
            let series = self.names.entry(key).or_insert_with_key(|(name, labels)| {
                Arc::new(Series { metric: value.metric, name: name.clone(), labels: labels.clone() })
            });
            (series.clone(), value.value)
        });
        let values = values.collect();
        self.samples.push_back(Sample { number: now, values });
        // Names of objects that no sample has any more.
        self.names.retain(|_, series| Arc::strong_count(series) > 1);
    }

    /// Returns the last seconds, the current one included. If no epoch completed in them, it is the last epoch, for as
    /// long as another may take.
    fn judged(&self, now: u64, seconds: u64) -> Vec<Second> {
        let mut recent = self.seconds(now.saturating_sub(seconds), now);
        recent.extend(Some(self.seconds[(now % SECONDS) as usize]).filter(|second| second.number == now));
        if recent.iter().all(|second| second.epochs == 0) {
            let may_take = |last: &Second| seconds + last.processing_us / 1_000_000;
            recent.extend(self.last.filter(|last| now <= last.number + may_take(last)));
        }
        recent
    }

    fn seconds(&self, since: u64, now: u64) -> Vec<Second> {
        // The slot of the current second may still hold the one of an hour ago.
        let oldest = (now + 1).saturating_sub(SECONDS);
        (since.max(oldest)..now)
            .map(|number| {
                let found = self.seconds[(number % SECONDS) as usize];
                if found.number == number { found } else { Second { number, ..Second::default() } }
            })
            .collect()
    }
}

fn behind_text(recent: &[Second], interval: Option<Duration>) -> Option<String> {
    let epochs: u64 = recent.iter().map(|second| second.epochs).sum();
    let processing_us: u64 = recent.iter().map(|second| second.processing_us).sum();
    let delay_us = recent.iter().map(|second| second.scheduling_max_us).max().unwrap_or_default();
    let mean_us = processing_us.checked_div(epochs)?;
    if let Some(interval) = interval
        && u128::from(mean_us) > interval.as_micros()
    {
        return Some(format!(
            "epochs fall behind: one takes {} ms on average, and batch_interval is {}",
            mean_us / 1000,
            interval_text(interval)
        ));
    }
    (delay_us > DELAY_MAX_US)
        .then(|| format!("epochs fall behind: one had to wait {} s before it began", delay_us / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::super::definitions::SOURCE_ROWS;
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

    fn work(query: &str, node: usize, time_us: u64) -> OperatorWork {
        OperatorWork { query: query.into(), node, time_us, rows_in: 1, rows_out: 1, ended: None }
    }

    #[test]
    fn a_second_has_the_sums_and_maxima_of_its_epochs() {
        let history = History::default();
        let mut rings = history.lock();
        rings.add(3, &batch(10, 5, 7));
        rings.add(3, &batch(20, 8, 1));
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
        assert_eq!(rings.seconds(3, 4), [expected]);
    }

    #[test]
    fn seconds_without_epochs_are_zero_and_the_current_one_is_left_out() {
        let history = History::default();
        let mut rings = history.lock();
        rings.add(2, &batch(1, 1, 1));
        rings.add(5, &batch(1, 1, 1));
        let epochs: Vec<(u64, u64)> =
            rings.seconds(0, 5).iter().map(|second| (second.number, second.epochs)).collect();
        assert_eq!(epochs, [(0, 0), (1, 0), (2, 1), (3, 0), (4, 0)]);
        assert_eq!(rings.seconds(9, 5), []);
    }

    #[test]
    fn the_history_ends_an_hour_ago() {
        let history = History::default();
        let mut rings = history.lock();
        for second in 0..2 * SECONDS {
            rings.add(second, &batch(1, 1, 1));
            rings.add_work(second, &[work("q", 0, 1)]);
            rings.sample(second, &[]);
        }
        let now = 2 * SECONDS - 1;
        let seconds = rings.seconds(0, now);
        assert_eq!((seconds.len() as u64, seconds[0].number), (SECONDS - 1, SECONDS));
        assert!(seconds.iter().all(|second| second.epochs == 1));
        // An hour of silence later, nothing of the old seconds is shown.
        assert!(rings.seconds(0, now + 2 * SECONDS).iter().all(|second| second.epochs == 0));
        assert_eq!((rings.samples.len(), rings.seconds.len() as u64), (SAMPLES, SECONDS));
        assert!(rings.busy.len() as u64 <= SECONDS);
        assert_eq!(rings.totals.epochs, 2 * SECONDS);
    }

    #[test]
    fn the_busiest_operators_and_queries_of_a_second_are_remembered() {
        let history = History::default();
        let mut rings = history.lock();
        let all: Vec<OperatorWork> = (0..40).map(|node| work("many", node, 10 + node as u64)).collect();
        rings.add_work(7, &all);
        rings.add_work(7, &[work("one", 0, 5_000), work("one", 0, 5_000), work("idle", 0, 0)]);
        rings.begin_second(9);
        let (number, busy) = &rings.busy[0];
        assert_eq!((*number, busy.len()), (7, 2 + BUSY_MAX));
        let of = |query: &str, node, time_us| Busy { query: query.into(), node, time_us };
        assert_eq!(busy[0], of("one", None, 10_000));
        assert_eq!(busy[1], of("many", None, (10..50).sum()));
        assert_eq!(busy[2..4], [of("one", Some(0), 10_000), of("many", Some(39), 49)]);
    }

    #[test]
    fn samples_share_their_names_and_are_bounded() {
        let history = History::default();
        let mut rings = history.lock();
        let value = |labels: usize| MetricValue {
            metric: &SOURCE_ROWS,
            suffix: "_total",
            labels: vec![("source", labels.to_string())],
            value: 1.5,
        };
        let many: Vec<MetricValue> = (0..2 * SAMPLE_VALUES_MAX).map(value).collect();
        rings.sample(1, &many);
        rings.sample(2, &many[..1]);
        assert_eq!(
            (rings.samples[0].values.len(), rings.names.len()),
            (SAMPLE_VALUES_MAX, SAMPLE_VALUES_MAX)
        );
        let (series, found) = &rings.samples[1].values[0];
        assert!(Arc::ptr_eq(series, &rings.samples[0].values[0].0));
        assert_eq!((series.labels.as_str(), *found), (r#"{"source": "0"}"#, 1.5));
        assert_eq!(rings.samples[1].value("millstream_source_rows_total"), Some(1.5));
        rings.samples.pop_front();
        rings.sample(3, &[]);
        assert_eq!(rings.names.len(), 1);
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
    fn epochs_fall_behind_when_they_take_longer_than_the_interval() {
        let second = |epochs, processing_us, scheduling_max_us| {
            [Second { epochs, processing_us, scheduling_max_us, ..Second::default() }]
        };
        let fixed = Some(Duration::from_millis(100));
        assert_eq!(behind_text(&second(10, 900_000, 0), fixed), None);
        assert_eq!(behind_text(&second(10, 1_500_000, 0), None), None);
        assert_eq!(behind_text(&[], fixed), None);
        assert_eq!(
            behind_text(&second(10, 1_500_000, 0), fixed).unwrap(),
            "epochs fall behind: one takes 150 ms on average, and batch_interval is 100 milliseconds"
        );
        assert_eq!(
            behind_text(&second(1, 5, 11_000_000), None).unwrap(),
            "epochs fall behind: one had to wait 11 s before it began"
        );
    }

    #[test]
    fn epochs_that_take_longer_than_the_judged_seconds_are_behind_all_the_time() {
        let history = History::default();
        let mut rings = history.lock();
        let fixed = Some(Duration::from_secs(1));
        rings.add(30, &batch(1, 30_000, 0));
        for now in 30..70 {
            let said = behind_text(&rings.judged(now, 10), fixed);
            assert!(said.is_some_and(|text| text.contains("one takes 30000 ms")), "{now}");
        }
        assert_eq!(behind_text(&rings.judged(71, 10), fixed), None);
        // A short epoch is a good sign.
        rings.add(72, &batch(1, 5, 0));
        assert_eq!(behind_text(&rings.judged(72, 10), fixed), None);
    }

    #[test]
    fn a_reader_of_an_earlier_second_does_not_end_the_current_one() {
        let history = History::default();
        let mut rings = history.lock();
        rings.add_work(5, &[work("q", 0, 7)]);
        rings.begin_second(4);
        rings.begin_second(5);
        assert_eq!((rings.busy.len(), rings.current.0), (0, 5));
    }
}
