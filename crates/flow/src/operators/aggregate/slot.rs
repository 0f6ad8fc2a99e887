//! The state of one aggregate: a value for each group, addressed by the group's slot.

use std::any::Any;
use std::fmt::Debug;

use arrow::array::ArrayRef;
use arrow::buffer::NullBuffer;
use millstream_state::{Spillable, Tables};

use super::parallel_update::PartitionedBatch;
use crate::parallelism::Threads;
use crate::{Error, Result};

/// One aggregate's values, one slot per group.
pub(super) trait SlotAggregate: SlotState + Mergeable + Any + Debug + Send + Sync {
    /// Grows to slots below `end`; new ones hold the aggregate of no rows.
    fn resize(&mut self, end: usize);
    /// Adds rows, or retracts those with a negative weight.
    fn update(&mut self, batch: &Batch<'_>) -> Result<()>;
    /// Does the same for many rows, on the free threads.
    fn update_in_parallel(&mut self, batches: &[PartitionedBatch<'_>], _threads: &Threads) -> Result<()> {
        batches.iter().try_for_each(|apart| self.update(&apart.batch))
    }
    /// Returns the aggregate's results for these groups.
    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef>;
    /// Returns true if some values may have no result.
    fn may_fail(&self) -> bool {
        true
    }
    /// Returns true if a result is computed from all rows of the group.
    fn takes_all(&self) -> bool {
        false
    }
    /// Resets a slot to the aggregate of no rows.
    fn free(&mut self, slot: u32);
    /// Resets slots to the aggregate of no rows although their rows weren't retracted.
    fn forget_slots(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.free(*slot));
    }
    /// Drops state other than values; [`SlotAggregate::free`] resets the values.
    fn forget(&mut self) {}
}

/// The state of an aggregate.
pub(super) trait SlotState {
    /// Returns the state besides one value per group, in words; empty if there is none.
    fn keeps(&self) -> &'static str {
        ""
    }
    /// Returns true if it also stores rows.
    fn keeps_rows(&self) -> bool {
        false
    }
    /// Returns the approximate bytes of the values.
    fn memory_bytes(&self) -> usize;
    /// Shows the parts that may be spilled.
    fn each_store(&mut self, _show: &mut dyn FnMut(&mut dyn Spillable)) {}
    /// Saves the state of slots, in their order, as tables.
    fn save(&self, slots: &[u32]) -> Result<Tables>;
    /// Returns an aggregate that reads the same values, for another thread that saves them, and the name of the table
    /// that [`SlotState::save`] makes of them. `None` if it makes others, or if copying what changes meanwhile costs more.
    fn share(&self) -> Option<(&'static str, Box<dyn SlotAggregate>)> {
        None
    }
    /// Returns true if the saved state of slots is independent of other slots. It then can be combined with
    /// an older saved state of the others.
    fn saves_some(&self) -> bool {
        true
    }
    /// Loads saved state for slots in the same order, which exist and hold the aggregate of no rows.
    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()>;
}

/// The merging of values; by default they can't be merged.
pub(super) trait Mergeable: Debug {
    /// Returns the same aggregate without slots, if its values can be merged.
    fn fresh(&self) -> Option<Box<dyn SlotAggregate>> {
        None
    }
    /// Returns true if added values can be subtracted again.
    fn subtracts(&self) -> bool {
        false
    }
    /// Returns the aggregate that merges the results of several parts of a group, taking them in as rows, if
    /// they can be merged.
    fn of_results(&self) -> Option<Box<dyn SlotAggregate>> {
        None
    }
    /// Merges the values of another column of the same aggregate into this one: each pair is a slot there and
    /// one here. Only for aggregates with [`Mergeable::fresh`].
    fn absorb(&mut self, _other: &dyn SlotAggregate, _pairs: &[Pair], _change: Absorb) -> Result<()> {
        Err(Error::Bug(format!("{self:?} can't be merged")))
    }
}

/// A slot of the other column, and one of the column that absorbs it.
pub(super) type Pair = (u32, u32);

/// The way in which values are absorbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absorb {
    /// The values are added.
    Add,
    /// The values are subtracted, by aggregates that can.
    Subtract,
}

impl Absorb {
    /// Returns the factor for values and counts.
    pub(super) fn sign(self) -> i64 {
        match self {
            Absorb::Add => 1,
            Absorb::Subtract => -1,
        }
    }
}

/// Returns the other column, which must be of the same aggregate.
pub(super) fn same<T: SlotAggregate>(other: &dyn SlotAggregate) -> Result<&T> {
    (other as &dyn Any)
        .downcast_ref()
        .ok_or_else(|| Error::Bug("another aggregate was to be absorbed".into()))
}

/// Rows for an aggregate.
pub(super) struct Batch<'a> {
    /// The group of each row.
    pub(super) slots: &'a [u32],
    /// The values of the arguments.
    pub(super) values: &'a [ArrayRef],
    /// The rows that count: they pass the filter, and no argument is NULL unless the aggregate takes NULLs.
    /// `None`: all.
    pub(super) valid: Option<&'a NullBuffer>,
    /// Each row's weight. `None`: all are 1.
    pub(super) weights: Option<&'a [i64]>,
}

impl Batch<'_> {
    /// Calls `each` with row, slot and weight for every row that counts.
    #[inline(always)]
    pub(super) fn for_each(&self, mut each: impl FnMut(usize, usize, i64)) {
        let slots = self.slots.iter().map(|slot| *slot as usize).enumerate();
        match (self.valid, self.weights) {
            (None, None) => slots.for_each(|(row, slot)| each(row, slot, 1)),
            (None, Some(weights)) => {
                slots.zip(weights).for_each(|((row, slot), weight)| each(row, slot, *weight));
            }
            (Some(valid), None) => {
                slots.filter(|(row, _)| valid.is_valid(*row)).for_each(|(row, slot)| each(row, slot, 1));
            }
            (Some(valid), Some(weights)) => slots
                .zip(weights)
                .filter(|((row, _), _)| valid.is_valid(*row))
                .for_each(|((row, slot), weight)| each(row, slot, *weight)),
        }
    }
}
