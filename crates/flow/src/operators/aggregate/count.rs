//! count(x)

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};

use super::slot::{Batch, SlotAggregate};
use crate::Result;

/// The number of rows that count.
#[derive(Debug, Default)]
pub(super) struct Count {
    counts: Vec<i64>,
}

impl SlotAggregate for Count {
    fn resize(&mut self, end: usize) {
        self.counts.resize(end, 0);
    }

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        batch.for_each(|_, slot, weight| self.counts[slot] += weight);
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| self.counts[*slot as usize]))))
    }

    fn free(&mut self, slot: u32) {
        self.counts[slot as usize] = 0;
    }

    fn memory_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<i64>()
    }
}
