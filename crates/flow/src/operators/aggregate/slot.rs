//! What one aggregate keeps: a value for each group, addressed by the group's slot.

use std::any::Any;
use std::fmt::Debug;

use arrow::array::ArrayRef;
use arrow::buffer::NullBuffer;
use millstream_state::Tables;

use super::apart::Apart;
use crate::spread::Threads;
use crate::{Error, Result};

/// One aggregate's values, a slot a group.
pub(super) trait SlotAggregate: Any + Debug + Send + Sync {
    /// Makes room for slots below `end`; new ones hold the aggregate of no rows.
    fn resize(&mut self, end: usize);
    /// Takes rows in, or back where their weight is negative.
    fn update(&mut self, batch: &Batch<'_>) -> Result<()>;
    /// The same for many rows, by the threads that are free.
    fn update_apart(&mut self, batches: &[Apart<'_>], _threads: &Threads) -> Result<()> {
        batches.iter().try_for_each(|apart| self.update(&apart.batch))
    }
    /// The aggregate's results for these groups.
    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef>;
    /// Whether some values have no result.
    fn may_fail(&self) -> bool {
        true
    }
    /// Makes a slot hold the aggregate of no rows again.
    fn free(&mut self, slot: u32);
    /// Makes slots hold the aggregate of no rows although their rows weren't taken back.
    fn forget_slots(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.free(*slot));
    }
    /// Forgets what is kept besides a value a group; that goes with [`SlotAggregate::free`].
    fn forget(&mut self) {}
    /// About how many bytes the values take.
    fn memory_bytes(&self) -> usize;
    /// What is kept of slots, in their order, as tables.
    fn save(&self, slots: &[u32]) -> Result<Tables>;
    /// Whether that is of these slots alone, whatever others keep: then it is right, too, together with what is kept of others
    /// that was saved before.
    fn saves_some(&self) -> bool {
        true
    }
    /// Takes that in for slots in the same order, which there is room for and which hold the aggregate of no rows.
    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()>;
    /// What is kept besides a value a group, in words; empty if nothing is.
    fn keeps(&self) -> &'static str {
        ""
    }
    /// Whether a result is made from all rows of the group.
    fn takes_all(&self) -> bool {
        false
    }
    /// Whether rows are kept besides.
    fn keeps_rows(&self) -> bool {
        false
    }
    /// The same aggregate without slots, where its values can be put together.
    fn fresh(&self) -> Option<Box<dyn SlotAggregate>> {
        None
    }
    /// Whether what was added can be taken away again.
    fn subtracts(&self) -> bool {
        false
    }
    /// What makes one result of those of several parts of a group, where these tell it: it takes them in as rows.
    fn of_results(&self) -> Option<Box<dyn SlotAggregate>> {
        None
    }
    /// Puts the values of another column of the same aggregate to those of this one: each pair is a slot there and
    /// one here. Only for aggregates that have a fresh one.
    fn absorb(&mut self, _other: &dyn SlotAggregate, _pairs: &[Pair], _change: Absorb) -> Result<()> {
        Err(Error::Bug(format!("{self:?} can't be put together")))
    }
}

/// A slot of the column that is absorbed, and one of the column that absorbs it.
pub(super) type Pair = (u32, u32);

/// What is done with values that are absorbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absorb {
    /// They are added.
    Add,
    /// They are taken away, by aggregates that can.
    Subtract,
}

impl Absorb {
    /// What values and counts are multiplied by.
    pub(super) fn sign(self) -> i64 {
        match self {
            Absorb::Add => 1,
            Absorb::Subtract => -1,
        }
    }
}

/// The other column, which is of the same aggregate.
pub(super) fn same<T: SlotAggregate>(other: &dyn SlotAggregate) -> Result<&T> {
    (other as &dyn Any)
        .downcast_ref()
        .ok_or_else(|| Error::Bug("another aggregate was to be absorbed".into()))
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
