//! What one aggregate keeps: a value for each group, addressed by the group's slot.

use std::fmt::Debug;

use arrow::array::ArrayRef;
use arrow::buffer::NullBuffer;

use crate::Result;

/// One aggregate's values, a slot a group.
pub(super) trait SlotAggregate: Debug + Send {
    /// Makes room for slots below `end`; new ones hold the aggregate of no rows.
    fn resize(&mut self, end: usize);
    /// Takes rows in, or back where their weight is negative.
    fn update(&mut self, batch: &Batch<'_>) -> Result<()>;
    /// The aggregate's results for these groups.
    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef>;
    /// Whether some values have no result.
    fn may_fail(&self) -> bool {
        true
    }
    /// Makes a slot hold the aggregate of no rows again.
    fn free(&mut self, slot: u32);
    /// Forgets what is kept besides a value a group; that goes with [`SlotAggregate::free`].
    fn forget(&mut self) {}
    /// About how many bytes the values take.
    fn memory_bytes(&self) -> usize;
    /// What is kept besides a value a group, in words; empty if nothing is.
    fn keeps(&self) -> &'static str {
        ""
    }
}

/// Rows for an aggregate.
pub(super) struct Batch<'a> {
    /// Each row's group.
    pub(super) slots: &'a [u32],
    /// The values of the arguments.
    pub(super) values: &'a [ArrayRef],
    /// The rows that count: the filter lets them through, and no argument is NULL unless the aggregate takes NULLs.
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
