//! A rate limit that changes while a source runs.
//!
//! Waiting arrivals were read before the new limit, and may hold the rows of an hour under it. An epoch takes an
//! arrival whole. So a replayable source reads them again in pieces that fit; for any other, the loop divides them.

use arrow::array::RecordBatch;
use millstream_connect::Arrival;
use millstream_delta::Timestamp;

use super::{RunningSource, bytes_of, rows_of};
use crate::run::rate::Bound;
use crate::run::sources::Sources;
use crate::settings::Settings;

impl RunningSource {
    /// Returns the rows a second that epochs may take of it, if they are limited.
    pub(in crate::run) fn rate_limit(&self, settings: &crate::settings::Settings) -> Option<f64> {
        let per_second = self.rate_limit.or(settings.source_rate_limit)?;
        Some(per_second * self.partitions as f64)
    }

    /// Restarts the count of its rows under another limit.
    fn limit_anew(&mut self, bound: Option<Bound>, now: Timestamp) {
        self.rate.restart(now);
        let Some(rows_max) = bound.map(|bound| bound.batch_rows().max(1)) else { return };
        if !self.replayable || self.reliable {
            return;
        }
        let is_large = self.ready.iter().any(|arrival| rows_of(arrival) > rows_max);
        if is_large || self.asked > self.answered {
            self.read_waiting_again();
        }
    }

    /// Divides the first waiting arrival if it exceeds the rows of a batch under the limit. The last part gets the
    /// spans, so acknowledgements and the position of a start never pass rows that were not taken.
    pub(super) fn divide_first(&mut self, bound: &Bound) {
        let rows_max = bound.batch_rows().max(1);
        if self.replayable || self.reliable || self.one_arrival_a_batch {
            return;
        }
        let Some(mut rest) = self.ready.pop_front() else { return };
        let whole = bytes_of(&rest);
        let first = first_rows(&mut rest, rows_max);
        let parts = bytes_of(&rest) + first.as_ref().map_or(0, bytes_of);
        self.ready_bytes = (self.ready_bytes + parts).saturating_sub(whole);
        self.ready.push_front(rest);
        first.into_iter().for_each(|first| self.ready.push_front(first));
    }
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

impl Sources {
    /// Applies the setting to sources without a limit of their own.
    pub(in crate::run) fn limit_all_anew(&mut self, settings: &Settings, now: Timestamp) {
        for source in self.values_mut().filter(|source| source.rate_limit.is_none()) {
            let bound = source.bound(settings);
            source.limit_anew(bound, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use millstream_connect::More;
    use millstream_delta::Span;

    use super::*;

    #[test]
    fn an_arrival_is_divided_in_the_order_of_its_rows() {
        let batch = |numbers: std::ops::Range<i64>| {
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
            RecordBatch::try_from_iter([("n", column)]).unwrap()
        };
        let mut rest = Arrival::nothing(More::Now);
        rest.rows = vec![batch(0..3), batch(3..4), batch(4..9)];
        rest.splits = ["a", "b", "a"].map(Arc::from).to_vec();
        rest.spans = vec![Span { split: "a".into(), from: 0, to: 9, done: false }];
        let mut shown = Vec::new();
        let numbers = |arrival: &Arrival| -> Vec<i64> {
            arrival
                .rows
                .iter()
                .flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec())
                .collect()
        };
        while let Some(first) = first_rows(&mut rest, 4) {
            assert!(first.spans.is_empty());
            assert_eq!(first.rows.len(), first.splits.len());
            shown.push(numbers(&first));
        }
        assert_eq!((shown, numbers(&rest)), (vec![vec![0, 1, 2, 3], vec![4, 5, 6, 7]], vec![8]));
        assert_eq!((rest.spans.len(), rest.splits.as_slice()), (1, &["a".into()][..]));
    }
}
