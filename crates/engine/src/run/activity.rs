//! The work of operators in each epoch: `millstream.epoch_operators`, and the busy times of the history.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use millstream_delta::Epoch;
use millstream_flow::Meter;

use crate::metrics::OperatorWork;

/// The number of epochs that are remembered.
const EPOCHS_MAX: usize = 1000;

/// Maximum number of operators that are remembered of an epoch: the slowest. They take 64 bytes each.
const OPERATORS_MAX: usize = 64;

/// The number of dropped queries whose totals are not worth a search.
const DROPPED_MAX: usize = 16;

/// The work of operators in past epochs.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    epochs: VecDeque<(Epoch, Box<[OperatorWork]>)>,
    /// The work since the last epoch.
    current: Vec<OperatorWork>,
    /// The time that the operators of each query took since the start.
    busy: BTreeMap<Arc<str>, Duration>,
}

impl Activity {
    /// Counts the work of an operator in the current epoch.
    pub(super) fn count(&mut self, query: &Arc<str>, node: usize, meter: &Meter) {
        match self.busy.get_mut(query) {
            Some(busy) => *busy += meter.time,
            None => {
                self.busy.insert(query.clone(), meter.time);
            }
        }
        self.current.push(OperatorWork {
            query: query.clone(),
            node,
            time_us: meter.time.as_micros() as u64,
            rows_in: meter.rows_in,
            rows_out: meter.rows_out,
            ended: meter.ended,
        });
    }

    /// Ends an epoch. Returns the work of all its operators, the slowest first.
    pub(super) fn end_epoch(&mut self, epoch: Epoch) -> &[OperatorWork] {
        self.current.sort_by_key(|work| std::cmp::Reverse(work.time_us));
        if self.epochs.len() == EPOCHS_MAX {
            self.epochs.pop_front();
        }
        let slowest = &self.current[..self.current.len().min(OPERATORS_MAX)];
        self.epochs.push_back((epoch, slowest.into()));
        &self.current
    }

    /// Forgets the current epoch's work, which has been reported.
    pub(super) fn clear(&mut self) {
        self.current.clear();
    }

    /// Forgets the totals of queries that no longer exist, once these outnumber the others. `count` is the number of
    /// queries that exist.
    pub(super) fn forget_dropped(&mut self, count: usize, exists: impl Fn(&str) -> bool) {
        if self.busy.len() > 2 * count + DROPPED_MAX {
            self.busy.retain(|query, _| exists(query));
        }
    }

    /// Returns the slowest operators of the remembered epochs, oldest first.
    pub(super) fn epochs(&self) -> impl Iterator<Item = (Epoch, &OperatorWork)> {
        self.epochs.iter().flat_map(|(epoch, all)| all.iter().map(|work| (*epoch, work)))
    }

    /// Returns the time that a query's operators took since the start.
    pub(super) fn busy(&self, query: &str) -> Duration {
        self.busy.get(query).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(time_us: u64, rows_in: u64) -> Meter {
        Meter { time: Duration::from_micros(time_us), rows_in, ..Meter::default() }
    }

    #[test]
    fn the_slowest_operators_of_the_last_epochs_are_remembered() {
        let mut activity = Activity::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        for epoch in 1..=EPOCHS_MAX as u64 + 5 {
            for node in 0..OPERATORS_MAX {
                activity.count(&a, node, &meter(1, 2));
            }
            activity.count(&b, 7, &meter(1000, epoch));
            assert_eq!(activity.end_epoch(Epoch(epoch)).len(), OPERATORS_MAX + 1);
            activity.clear();
        }
        let all: Vec<_> = activity.epochs().collect();
        assert_eq!(all.len(), EPOCHS_MAX * OPERATORS_MAX);
        let (epoch, slowest) = all[0];
        assert_eq!((epoch, &*slowest.query, slowest.node, slowest.rows_in), (Epoch(6), "b", 7, 6));
        assert_eq!(activity.busy("b"), Duration::from_millis(1005));
        activity.forget_dropped(1, |query| query == "a");
        assert_eq!(activity.busy("b"), Duration::from_millis(1005));
        for other in 0..=2 + DROPPED_MAX {
            activity.count(&other.to_string().into(), 0, &meter(0, 0));
        }
        activity.forget_dropped(1, |query| query == "a");
        assert_eq!((activity.busy("b"), activity.busy.len()), (Duration::ZERO, 1));
    }
}
