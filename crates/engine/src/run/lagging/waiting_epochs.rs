//! The epochs that wait for a lagging query.

use std::collections::{BTreeMap, BTreeSet};

use millstream_delta::{Cut, Delta, Epoch, Timestamp};

use super::merging::compacted;
use super::{all_changes, bytes_of, together};

/// Most epochs that wait separately; more are merged.
const EPOCHS_MAX: usize = 1024;

/// The approximate size in bytes of a waiting epoch without changes.
const CUT_BYTES: usize = 512;

/// An epoch's cut, and its changes by input.
type Waiting = (Cut, Vec<Delta>);

/// The changes of a lagging query's inputs since its result, by epoch. If they are stepped one epoch after the other, epochs
/// without changes wait too; else many epochs are merged.
#[derive(Debug)]
pub(in crate::run) struct WaitingEpochs {
    epochs: BTreeMap<Epoch, Waiting>,
    /// The size of the changes.
    bytes: usize,
    /// The number of epochs above which they are merged.
    merged_at: usize,
    /// The merged runs of epochs: the first epoch of each, by the last.
    merged: BTreeMap<Epoch, Epoch>,
    in_order: bool,
}

impl WaitingEpochs {
    pub(super) fn new() -> WaitingEpochs {
        WaitingEpochs {
            epochs: BTreeMap::new(),
            bytes: 0,
            merged_at: EPOCHS_MAX,
            merged: BTreeMap::new(),
            in_order: false,
        }
    }

    /// Sets if epochs are stepped one after the other.
    pub(super) fn set_in_order(&mut self, in_order: bool) {
        self.in_order = in_order;
    }

    /// Returns true if epochs are stepped one after the other.
    pub(super) fn are_in_order(&self) -> bool {
        self.in_order
    }

    pub(super) fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }

    /// Returns the approximate size in bytes of the changes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Epoch, &Waiting)> {
        self.epochs.iter()
    }

    /// Returns the epochs up to one.
    pub(super) fn up_to(&self, through: Epoch) -> impl Iterator<Item = (&Epoch, &Waiting)> {
        self.epochs.range(..=through)
    }

    /// Returns true if an epoch up to this one waits.
    pub(super) fn have_up_to(&self, through: Epoch) -> bool {
        self.epochs.first_key_value().is_some_and(|(epoch, _)| *epoch <= through)
    }

    /// Returns the batch time of the first epoch.
    pub(super) fn first_time(&self) -> Option<Timestamp> {
        self.epochs.first_key_value().map(|(_, (cut, _))| cut.now)
    }

    /// Returns the number of epochs that change something.
    pub(super) fn changing(&self) -> usize {
        let has_rows = |(_, inputs): &&Waiting| inputs.iter().any(|delta| !delta.is_empty());
        self.epochs.values().filter(has_rows).count()
    }

    /// Returns all changes by input, of which there are `inputs`.
    pub(super) fn changes(&self, inputs: usize) -> Vec<Delta> {
        all_changes(inputs, self.epochs.values().map(|(_, waiting)| waiting))
    }

    /// Adds an epoch's changes.
    pub(super) fn add(&mut self, cut: &Cut, inputs: &[&Delta]) {
        if !self.epochs.contains_key(&cut.epoch) {
            self.bytes += self.cut_bytes();
            let kept = (self.kept_of(cut), vec![Delta::default(); inputs.len()]);
            self.epochs.insert(cut.epoch, kept);
        }
        let waiting = self.epochs.get_mut(&cut.epoch).into_iter().flat_map(|(_, waiting)| waiting);
        for (waiting, delta) in waiting.zip(inputs) {
            self.bytes += delta.memory_bytes();
            waiting.append((*delta).clone());
        }
    }

    /// Adds changes that were taken before, of the epochs from one to another, as those of the last one.
    pub(super) fn put_back(&mut self, [first, last]: [Epoch; 2], cut: Cut, inputs: Vec<Delta>) {
        if first < last {
            self.merged.insert(last, first);
        }
        self.bytes += bytes_of(&inputs);
        self.epochs.insert(last, (cut, inputs));
    }

    /// Takes all changes up to an epoch, with the cut of the last of them.
    pub(super) fn take(&mut self, through: Epoch) -> Option<Waiting> {
        let later = self.epochs.split_off(&through.next());
        let taken = std::mem::replace(&mut self.epochs, later);
        self.merged = self.merged.split_off(&through.next());
        let bytes: usize = taken.values().map(|(_, inputs)| bytes_of(inputs) + self.cut_bytes()).sum();
        self.bytes = if self.epochs.is_empty() { 0 } else { self.bytes.saturating_sub(bytes) };
        let (cut, inputs) = together(taken.into_values())?;
        // The result is as of that epoch, even if nothing has changed in it.
        Some((Cut { epoch: through, ..cut }, inputs))
    }

    /// Returns true if so many epochs wait that they should be merged.
    pub(super) fn are_many(&self) -> bool {
        !self.in_order && self.epochs.len() > self.merged_at
    }

    /// Merges epochs, except those at which a reader may stop.
    pub(super) fn merge(&mut self, stops: &BTreeSet<Epoch>) {
        let mut rest = std::mem::take(&mut self.epochs);
        while let Some((first, _)) = rest.first_key_value() {
            let stop = stops.range(*first..).next();
            let later = stop.map_or_else(BTreeMap::new, |stop| rest.split_off(&stop.next()));
            let run = std::mem::replace(&mut rest, later);
            if let (Some(first), Some(last), true) =
                (run.first_key_value(), run.last_key_value(), run.len() > 1)
            {
                let first = self.merged.get(first.0).copied().unwrap_or(*first.0);
                self.merged.retain(|merged, _| !run.contains_key(merged));
                self.merged.insert(*last.0, first);
            }
            if let Some((cut, inputs)) = together(run.into_values()) {
                let inputs = inputs.into_iter().map(compacted).collect();
                self.epochs.insert(cut.epoch, (cut, inputs));
            }
        }
        self.bytes = self.epochs.values().map(|(_, inputs)| bytes_of(inputs)).sum();
        self.merged_at = EPOCHS_MAX.max(2 * self.epochs.len());
    }

    /// Returns true if an epoch was merged into a later one.
    pub(super) fn have_merged(&self, epoch: Epoch) -> bool {
        self.merged.iter().any(|(last, first)| *first <= epoch && epoch < *last)
    }

    /// Returns the merged runs of epochs: the first and the last of each.
    pub(super) fn merged(&self) -> impl ExactSizeIterator<Item = (Epoch, Epoch)> {
        self.merged.iter().map(|(last, first)| (*first, *last))
    }

    /// Loads the merged runs of epochs.
    pub(super) fn load_merged(&mut self, runs: impl IntoIterator<Item = (Epoch, Epoch)>) {
        self.merged = runs.into_iter().map(|(first, last)| (last, first)).collect();
    }

    /// Returns the approximate size in bytes of an epoch besides its rows.
    fn cut_bytes(&self) -> usize {
        if self.in_order { CUT_BYTES } else { 0 }
    }

    /// Returns the part of an epoch's cut that it keeps.
    fn kept_of(&self, cut: &Cut) -> Cut {
        match self.in_order {
            // Operators don't read positions and marks.
            true => {
                Cut { positions: Vec::new(), marks: Vec::new(), watermarks: cut.watermarks.clone(), ..*cut }
            }
            false => cut.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;

    fn delta(number: i64) -> Delta {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![number]));
        Delta::insert(RecordBatch::try_from_iter([("n", column)]).unwrap())
    }

    fn cut(epoch: u64) -> Cut {
        Cut::new(Epoch(epoch), Timestamp(epoch as i64))
    }

    fn waiting(epochs: impl IntoIterator<Item = u64>) -> WaitingEpochs {
        let mut waiting = WaitingEpochs::new();
        epochs.into_iter().for_each(|epoch| waiting.add(&cut(epoch), &[&delta(epoch as i64)]));
        waiting
    }

    #[test]
    fn epochs_are_taken_in_sum_and_put_back_as_one() {
        let mut waiting = waiting(3..6);
        assert!(waiting.have_up_to(Epoch(3)) && !waiting.have_up_to(Epoch(2)) && waiting.bytes() > 0);
        let (cut, inputs) = waiting.take(Epoch(4)).unwrap();
        assert_eq!(
            (cut.epoch, inputs[0].num_rows(), waiting.first_time()),
            (Epoch(4), 2, Some(Timestamp(5)))
        );
        waiting.put_back([Epoch(3), Epoch(4)], cut, inputs);
        assert!(waiting.have_merged(Epoch(3)) && !waiting.have_merged(Epoch(4)));
        assert_eq!((waiting.changing(), waiting.changes(1)[0].num_rows()), (2, 3));
        // The result is as of the asked epoch; nothing is left.
        assert_eq!(waiting.take(Epoch(9)).map(|(cut, _)| cut.epoch), Some(Epoch(9)));
        assert!(waiting.is_empty() && waiting.bytes() == 0 && waiting.take(Epoch(9)).is_none());
    }

    #[test]
    fn many_epochs_are_merged_except_where_readers_stop() {
        let last = EPOCHS_MAX as u64 + 2;
        let mut many = waiting(1..=last);
        assert!(many.are_many());
        many.merge(&BTreeSet::from([Epoch(10)]));
        let epochs: Vec<u64> = many.iter().map(|(epoch, _)| epoch.0).collect();
        assert_eq!((epochs, many.are_many()), (vec![10, last], false));
        assert_eq!(many.merged().collect::<Vec<_>>(), [(Epoch(1), Epoch(10)), (Epoch(11), Epoch(last))]);
        let mut in_order = waiting(1..=last);
        in_order.set_in_order(true);
        assert!(!in_order.are_many());
    }
}
