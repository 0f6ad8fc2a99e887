//! Variances, covariances, correlations and regressions of floats, exact and rounded once: the result doesn't
//! depend on batches, order or deletes.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, UInt64Array};
use arrow::datatypes::Float64Type;
use millstream_delta::{Moments, Statistic};
use millstream_state::{Lists, Paged, Spillable, Tables};

use super::parallel_update::{PartitionedBatch, update_in_parallel};
use super::persistence::{GROUPS, of_groups};
use super::slot::{Absorb, Batch, Mergeable, Pair, SlotAggregate, SlotState, same};
use crate::Result;
use crate::parallelism::Threads;
use crate::persistence::incomplete;

/// The statistics of Float64 values or pairs.
#[derive(Debug)]
pub(super) struct Spreads {
    statistic: Statistic,
    cells: Paged<Moments>,
}

impl Spreads {
    pub(super) fn new(statistic: Statistic) -> Spreads {
        Spreads { statistic, cells: Paged::default() }
    }
}

impl SlotAggregate for Spreads {
    fn resize(&mut self, end: usize) {
        self.cells.resize(end, Moments::default());
    }

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        let first = batch.values[0].as_primitive::<Float64Type>().values();
        match batch.values.get(1) {
            None => batch.for_each(|row, slot, weight| self.cells[slot].add(first[row], weight)),
            Some(second) => {
                let second = second.as_primitive::<Float64Type>().values();
                batch.for_each(|row, slot, weight| {
                    self.cells[slot].add_pair(first[row], second[row], weight);
                });
            }
        }
        Ok(())
    }

    fn update_in_parallel(&mut self, batches: &[PartitionedBatch<'_>], threads: &Threads) -> Result<()> {
        let column = |apart: &PartitionedBatch<'_>, place: usize| {
            apart.batch.values.get(place).map(|values| values.as_primitive::<Float64Type>().values().clone())
        };
        let first: Vec<_> = batches.iter().filter_map(|apart| column(apart, 0)).collect();
        let second: Vec<_> = batches.iter().map(|apart| column(apart, 1)).collect();
        let add = |cell: &mut Moments, batch: usize, row: usize, weight| match &second[batch] {
            None => cell.add(first[batch][row], weight),
            Some(second) => cell.add_pair(first[batch][row], second[row], weight),
        };
        update_in_parallel(&mut self.cells, batches, threads, add);
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let cells = slots.iter().map(|slot| &self.cells[*slot as usize]);
        if self.statistic == Statistic::RegrCount {
            return Ok(Arc::new(UInt64Array::from_iter_values(cells.map(|cell| cell.count() as u64))));
        }
        let values: Float64Array = cells.map(|cell| self.statistic.of(cell)).collect();
        Ok(Arc::new(values))
    }

    fn free(&mut self, slot: u32) {
        self.cells[slot as usize] = Moments::default();
    }
}

impl SlotState for Spreads {
    fn share(&self) -> Option<(&'static str, Box<dyn SlotAggregate>)> {
        Some((GROUPS, Box::new(Spreads { statistic: self.statistic, cells: self.cells.share() })))
    }

    fn save(&self, slots: &[u32]) -> Result<Tables> {
        let mut moments = Lists::<Float64Type>::default();
        slots.iter().for_each(|slot| moments.push(|list| self.cells[*slot as usize].encode(list)));
        of_groups(vec![("moments", moments.column()?)])
    }

    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        let lists = kept.take_rows(GROUPS, slots.len())?.lists::<Float64Type>("moments")?;
        for (slot, list) in slots.iter().zip(lists.iter()) {
            let moments = Moments::decode(list);
            self.cells[*slot as usize] = moments.ok_or_else(|| incomplete("no moments are such".into()))?;
        }
        Ok(())
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.cells);
    }

    fn memory_bytes(&self) -> usize {
        // Heap sizes are about the same for every group; finding them would visit all groups.
        self.cells.memory_bytes()
    }
}

impl Mergeable for Spreads {
    fn fresh(&self) -> Option<Box<dyn SlotAggregate>> {
        Some(Box::new(Spreads::new(self.statistic)))
    }

    fn subtracts(&self) -> bool {
        true
    }

    fn absorb(&mut self, other: &dyn SlotAggregate, pairs: &[Pair], change: Absorb) -> Result<()> {
        let other = same::<Spreads>(other)?;
        for (from, into) in pairs {
            let (found, cell) = (&other.cells[*from as usize], &mut self.cells[*into as usize]);
            match change {
                Absorb::Add => cell.merge(found),
                Absorb::Subtract => cell.subtract(found),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;

    use super::*;

    #[test]
    fn weights_count_and_what_goes_leaves_nothing() {
        let first: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0, f64::NAN, 1e300, 5.0]));
        let second: ArrayRef = Arc::new(Float64Array::from(vec![3.0, 5.0, 1.0, f64::INFINITY, 5.0]));
        let values = [first, second];
        for (statistic, _) in Statistic::ALL {
            let mut spreads = Spreads::new(statistic);
            spreads.resize(2);
            let values = if statistic.is_of_pairs() { &values[..] } else { &values[..1] };
            for weights in [None, Some(&[0, 1, -1, -1, 0][..])] {
                spreads.update(&Batch { slots: &[0, 0, 0, 0, 1], values, valid: None, weights }).unwrap();
            }
            let mut expected = Moments::default();
            for (y, x) in [(1.0, 3.0), (2.0, 5.0), (2.0, 5.0)] {
                if statistic.is_of_pairs() { expected.add_pair(y, x, 1) } else { expected.add(y, 1) }
            }
            let found = spreads.evaluate(&[0]).unwrap();
            match statistic {
                Statistic::RegrCount => assert_eq!(found.as_ref(), &UInt64Array::from(vec![3])),
                _ => assert_eq!(found.as_ref(), &Float64Array::from(vec![statistic.of(&expected)])),
            }
            spreads.free(1);
            assert_eq!(spreads.evaluate(&[1]).unwrap().is_null(0), statistic != Statistic::RegrCount);
        }
    }
}
