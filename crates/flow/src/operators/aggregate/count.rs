//! count(x)

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, UInt64Array};
use arrow::datatypes::Int64Type;
use millstream_state::{Paged, Spillable, Tables};

use super::parallel_update::{PartitionedBatch, update_in_parallel};
use super::persistence::{GROUPS, of_groups};
use super::slot::{Absorb, Batch, Mergeable, Pair, SlotAggregate, SlotState, same};
use crate::Result;
use crate::parallelism::Threads;

/// The number of rows that count.
#[derive(Debug, Default)]
pub(super) struct Count {
    counts: Paged<i64>,
    unsigned: bool,
}

impl Count {
    /// Returns a count with an unsigned result type.
    pub(super) fn unsigned() -> Count {
        Count { counts: Paged::default(), unsigned: true }
    }
}

impl SlotAggregate for Count {
    fn resize(&mut self, end: usize) {
        self.counts.resize(end, 0);
    }

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        batch.for_each(|_, slot, weight| self.counts[slot] += weight);
        Ok(())
    }

    fn update_in_parallel(&mut self, batches: &[PartitionedBatch<'_>], threads: &Threads) -> Result<()> {
        update_in_parallel(&mut self.counts, batches, threads, |count, _, _, weight| *count += weight);
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let counts = slots.iter().map(|slot| self.counts[*slot as usize]);
        if self.unsigned {
            return Ok(Arc::new(UInt64Array::from_iter_values(counts.map(|count| count as u64))));
        }
        Ok(Arc::new(Int64Array::from_iter_values(counts)))
    }

    fn may_fail(&self) -> bool {
        false
    }

    fn free(&mut self, slot: u32) {
        self.counts[slot as usize] = 0;
    }
}

impl SlotState for Count {
    fn share(&self) -> Option<(&'static str, Box<dyn SlotAggregate>)> {
        Some((GROUPS, Box::new(Count { counts: self.counts.share(), unsigned: self.unsigned })))
    }

    fn save(&self, slots: &[u32]) -> Result<Tables> {
        let counts = slots.iter().map(|slot| self.counts[*slot as usize]);
        of_groups(vec![("count", Arc::new(Int64Array::from_iter_values(counts)))])
    }

    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        let counts = kept.take_rows(GROUPS, slots.len())?.numbers::<Int64Type>("count")?;
        slots.iter().zip(counts.values()).for_each(|(slot, count)| self.counts[*slot as usize] = *count);
        Ok(())
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.counts);
    }

    fn memory_bytes(&self) -> usize {
        self.counts.memory_bytes()
    }
}

impl Mergeable for Count {
    fn fresh(&self) -> Option<Box<dyn SlotAggregate>> {
        Some(Box::new(Count { counts: Paged::default(), unsigned: self.unsigned }))
    }

    fn subtracts(&self) -> bool {
        true
    }

    fn absorb(&mut self, other: &dyn SlotAggregate, pairs: &[Pair], change: Absorb) -> Result<()> {
        let other = same::<Count>(other)?;
        for (from, into) in pairs {
            self.counts[*into as usize] += change.sign() * other.counts[*from as usize];
        }
        Ok(())
    }
}
