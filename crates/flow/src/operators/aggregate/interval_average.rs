//! avg of intervals: the sums of their parts, and their number.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Int64Array, IntervalMonthDayNanoArray};
use arrow::datatypes::{Decimal128Type, Int64Type, IntervalMonthDayNanoType};
use millstream_delta::IntervalTotal;
use millstream_state::{Paged, Spillable, Tables};

use super::parallel_update::{PartitionedBatch, update_in_parallel};
use super::persistence::{GROUPS, of_groups};
use super::slot::{Absorb, Batch, Mergeable, Pair, SlotAggregate, SlotState, same};
use crate::Result;
use crate::parallelism::Threads;

/// The sums of intervals.
#[derive(Debug, Default)]
pub(super) struct IntervalAverages {
    totals: Paged<IntervalTotal>,
}

impl SlotAggregate for IntervalAverages {
    fn resize(&mut self, end: usize) {
        self.totals.resize(end, IntervalTotal::default());
    }

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        let values = batch.values[0].as_primitive::<IntervalMonthDayNanoType>().values();
        batch.for_each(|row, slot, weight| self.totals[slot].add(values[row], weight));
        Ok(())
    }

    fn update_in_parallel(&mut self, batches: &[PartitionedBatch<'_>], threads: &Threads) -> Result<()> {
        let values: Vec<_> = batches
            .iter()
            .map(|apart| apart.batch.values[0].as_primitive::<IntervalMonthDayNanoType>().values())
            .collect();
        let add = |total: &mut IntervalTotal, batch: usize, row: usize, weight| {
            total.add(values[batch][row], weight);
        };
        update_in_parallel(&mut self.totals, batches, threads, add);
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let averages = slots.iter().map(|slot| self.totals[*slot as usize].average());
        Ok(Arc::new(averages.collect::<IntervalMonthDayNanoArray>()))
    }

    fn may_fail(&self) -> bool {
        false
    }

    fn free(&mut self, slot: u32) {
        self.totals[slot as usize] = IntervalTotal::default();
    }
}

impl SlotState for IntervalAverages {
    fn share(&self) -> Option<(&'static str, Box<dyn SlotAggregate>)> {
        Some((GROUPS, Box::new(IntervalAverages { totals: self.totals.share() })))
    }

    fn save(&self, slots: &[u32]) -> Result<Tables> {
        let totals = || slots.iter().map(|slot| &self.totals[*slot as usize]);
        let nanoseconds = Decimal128Array::from_iter_values(totals().map(|total| total.nanoseconds));
        of_groups(vec![
            ("months", Arc::new(Int64Array::from_iter_values(totals().map(|total| total.months)))),
            ("days", Arc::new(Int64Array::from_iter_values(totals().map(|total| total.days)))),
            ("nanoseconds", Arc::new(nanoseconds.with_precision_and_scale(38, 0)?)),
            ("count", Arc::new(Int64Array::from_iter_values(totals().map(|total| total.count)))),
        ])
    }

    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        let columns = kept.take_rows(GROUPS, slots.len())?;
        let (months, days) = (columns.numbers::<Int64Type>("months")?, columns.numbers::<Int64Type>("days")?);
        let nanoseconds = columns.numbers::<Decimal128Type>("nanoseconds")?;
        let counts = columns.numbers::<Int64Type>("count")?;
        for (row, slot) in slots.iter().enumerate() {
            self.totals[*slot as usize] = IntervalTotal {
                months: months.value(row),
                days: days.value(row),
                nanoseconds: nanoseconds.value(row),
                count: counts.value(row),
            };
        }
        Ok(())
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.totals);
    }

    fn memory_bytes(&self) -> usize {
        self.totals.memory_bytes()
    }
}

impl Mergeable for IntervalAverages {
    fn fresh(&self) -> Option<Box<dyn SlotAggregate>> {
        Some(Box::<IntervalAverages>::default())
    }

    fn subtracts(&self) -> bool {
        true
    }

    fn absorb(&mut self, other: &dyn SlotAggregate, pairs: &[Pair], change: Absorb) -> Result<()> {
        let other = same::<Self>(other)?;
        for (from, into) in pairs {
            let found = other.totals[*from as usize];
            self.totals[*into as usize].merge(&found, change.sign());
        }
        Ok(())
    }
}
