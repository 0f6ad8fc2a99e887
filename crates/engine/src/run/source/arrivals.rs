//! The arrivals of a source that wait for an epoch.

use std::collections::VecDeque;
use std::time::Duration;

use arrow::array::RecordBatch;
use millstream_connect::{Arrival, Limit};
use millstream_delta::Timestamp;

use crate::run::rate::{Bound, Rate, RateLimit};
use crate::settings::Settings;

/// The arrivals of one source that wait for an epoch: released in order, within the rate limit of the source.
pub(super) struct ArrivalQueue {
    arrivals: VecDeque<Arrival>,
    /// The number of their records, good and bad.
    rows: usize,
    bytes: usize,
    limit: RateLimit,
    rate: Rate,
}

impl ArrivalQueue {
    pub(super) fn new(limit: RateLimit, now: Timestamp) -> ArrivalQueue {
        ArrivalQueue { arrivals: VecDeque::new(), rows: 0, bytes: 0, limit, rate: Rate::new(now) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the rate limit of the source.
    pub(super) fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Returns the bound of its rows that is in force.
    pub(super) fn bound(&self, settings: &Settings) -> Option<Bound> {
        self.limit.bound(settings)
    }

    /// Returns the rows a second that it released lately.
    pub(super) fn rows_per_second(&self, now: Timestamp) -> f64 {
        self.rate.measured(now)
    }

    /// Returns the number of rows that a bound lets it release now, at least one.
    pub(super) fn available(&self, bound: &Bound, now: Timestamp) -> usize {
        self.rate.available(bound, now).max(1.0) as usize
    }

    /// Forgets the debt and the savings of an earlier limit.
    pub(super) fn restart_rate(&mut self, now: Timestamp) {
        self.rate.restart(now);
    }

    /// Returns how long the first arrival must wait for an epoch, zero if it may go at `now`; `None` without any.
    pub(super) fn due_in(&self, settings: &Settings, now: Timestamp) -> Option<Duration> {
        let rows = rows_of(self.arrivals.front()?);
        let bound = self.bound(settings);
        Some(bound.map_or_else(Default::default, |bound| self.rate.wait(rows, &bound, now)))
    }

    /// Returns true if there is room for another pull beside the waiting rows.
    pub(super) fn has_room(&self, limit: Limit) -> bool {
        self.rows < limit.rows && self.bytes < limit.bytes
    }

    /// Returns the limit of the next pull, if there is room; its own bound lets `rows_max` rows wait.
    pub(super) fn room(&self, limit: Limit, rows_max: Option<usize>) -> Option<Limit> {
        let Some(rows_max) = rows_max else { return self.has_room(limit).then_some(limit) };
        let rows = limit.rows.min(rows_max).saturating_sub(self.rows);
        (rows > 0 && self.bytes < limit.bytes).then_some(Limit { rows, ..limit })
    }

    /// Returns true if an arrival has more rows than this.
    pub(super) fn has_larger(&self, rows_max: usize) -> bool {
        self.arrivals.iter().any(|arrival| rows_of(arrival) > rows_max)
    }

    pub(super) fn push(&mut self, arrival: Arrival) {
        self.rows += rows_of(&arrival);
        self.bytes += bytes_of(&arrival);
        self.arrivals.push_back(arrival);
    }

    /// Releases the first arrival if its number of rows fits and the bound allows them now.
    pub(super) fn release(
        &mut self,
        fits: impl FnOnce(usize) -> bool,
        bound: Option<&Bound>,
        now: Timestamp,
    ) -> Option<(usize, Arrival)> {
        let size = rows_of(self.arrivals.front()?);
        if bound.is_some_and(|bound| !self.rate.allows(size, bound, now)) || !fits(size) {
            return None;
        }
        let arrival = self.arrivals.pop_front()?;
        self.rate.take(size, bound, now);
        self.rows -= size;
        self.bytes -= bytes_of(&arrival);
        Some((size, arrival))
    }

    /// Takes all arrivals out, for a second reading.
    pub(super) fn drain(&mut self) -> Vec<Arrival> {
        (self.rows, self.bytes) = (0, 0);
        std::mem::take(&mut self.arrivals).into()
    }

    /// Divides the first arrival if it exceeds the rows of a batch under the bound. The last part gets the spans, so
    /// acknowledgements and the position of a start never pass rows that were not taken.
    pub(super) fn divide_first(&mut self, bound: &Bound) {
        let rows_max = bound.batch_rows().max(1);
        let Some(mut rest) = self.arrivals.pop_front() else { return };
        let whole = bytes_of(&rest);
        let first = first_rows(&mut rest, rows_max);
        let parts = bytes_of(&rest) + first.as_ref().map_or(0, bytes_of);
        self.bytes = (self.bytes + parts).saturating_sub(whole);
        self.arrivals.push_front(rest);
        first.into_iter().for_each(|first| self.arrivals.push_front(first));
    }
}

/// Returns the number of an arrival's records, good and bad.
pub(super) fn rows_of(arrival: &Arrival) -> usize {
    arrival.rows.iter().map(RecordBatch::num_rows).sum::<usize>() + arrival.bad_rows.len()
}

fn bytes_of(arrival: &Arrival) -> usize {
    let bad: usize = arrival.bad_rows.iter().map(|row| row.bytes.len()).sum();
    arrival.rows.iter().map(RecordBatch::get_array_memory_size).sum::<usize>() + bad
}

/// Takes the first rows out of an arrival; `None` if it has no more than these.
fn first_rows(arrival: &mut Arrival, rows_max: usize) -> Option<Arrival> {
    let rows: usize = arrival.rows.iter().map(RecordBatch::num_rows).sum();
    if rows <= rows_max {
        return None;
    }
    let mut first = Arrival::nothing(arrival.more);
    let (mut left, mut rest, mut splits) = (rows_max, Vec::new(), Vec::new());
    for (place, batch) in std::mem::take(&mut arrival.rows).into_iter().enumerate() {
        let split = arrival.split_of(place).cloned();
        let taken = batch.num_rows().min(left);
        left -= taken;
        if taken > 0 {
            first.rows.push(batch.slice(0, taken));
            first.splits.extend(split.clone());
        }
        if taken < batch.num_rows() {
            rest.push(batch.slice(taken, batch.num_rows() - taken));
            splits.extend(split);
        }
    }
    (arrival.rows, arrival.splits) = (rest, splits);
    Some(first)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use millstream_connect::More;
    use millstream_delta::Span;

    use super::*;
    use crate::settings::{ClockKind, Pace};

    fn batch(numbers: Range<i64>) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
        RecordBatch::try_from_iter([("n", column)]).unwrap()
    }

    fn numbers(arrival: &Arrival) -> Vec<i64> {
        let values = |rows: &RecordBatch| rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        arrival.rows.iter().flat_map(values).collect()
    }

    #[test]
    fn an_arrival_is_divided_in_the_order_of_its_rows() {
        let mut rest = Arrival::nothing(More::Now);
        rest.rows = vec![batch(0..3), batch(3..4), batch(4..9)];
        rest.splits = ["a", "b", "a"].map(Arc::from).to_vec();
        rest.spans = vec![Span { split: "a".into(), from: 0, to: 9, done: false }];
        let mut shown = Vec::new();
        while let Some(first) = first_rows(&mut rest, 4) {
            assert!(first.spans.is_empty());
            assert_eq!(first.rows.len(), first.splits.len());
            shown.push(numbers(&first));
        }
        assert_eq!((shown, numbers(&rest)), (vec![vec![0, 1, 2, 3], vec![4, 5, 6, 7]], vec![8]));
        assert_eq!((rest.spans.len(), rest.splits.as_slice()), (1, &["a".into()][..]));
    }

    #[test]
    fn arrivals_leave_within_the_rate_and_count_as_room_again() {
        let settings = Settings {
            pace: Pace::Fixed(Duration::from_secs(1)),
            clock: ClockKind::Manual,
            ..Settings::default()
        };
        let mut queue = ArrivalQueue::new(RateLimit::new(Some(2.0), 1), Timestamp(0));
        assert_eq!(queue.due_in(&settings, Timestamp(0)), None);
        let mut arrival = Arrival::nothing(More::Now);
        arrival.rows = vec![batch(0..5)];
        queue.push(arrival);
        let limit = Limit { rows: 5, bytes: usize::MAX };
        assert!(queue.has_larger(4) && !queue.has_room(limit) && queue.room(limit, Some(9)).is_none());
        let bound = queue.bound(&settings).unwrap();
        queue.divide_first(&bound);
        // Sums of fractions may lack a millionth of a row.
        assert_eq!(queue.due_in(&settings, Timestamp(0)).map(|wait| wait.as_millis()), Some(999));
        assert!(queue.release(|_| true, Some(&bound), Timestamp(0)).is_none());
        assert!(queue.release(|_| false, Some(&bound), Timestamp(1_000_000)).is_none());
        let (size, first) = queue.release(|_| true, Some(&bound), Timestamp(1_000_000)).unwrap();
        assert_eq!((size, numbers(&first), queue.rows()), (2, vec![0, 1], 3));
        assert_eq!(queue.room(limit, Some(4)).map(|room| room.rows), Some(1));
        // Without a bound, everything leaves at once.
        assert_eq!(queue.drain().len(), 1);
        assert_eq!((queue.rows(), queue.bytes(), queue.is_empty()), (0, 0, true));
    }
}
