//! sum and avg of floats, exact and rounded once: the result doesn't depend on batches, order or deletes.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::{Float64Type, Int64Type};
use millstream_delta::Expansion;
use millstream_state::{Lists, Paged, Spillable, Tables};

use super::parallel_update::{PartitionedBatch, update_in_parallel};
use super::persistence::{GROUPS, of_groups};
use super::slot::{Absorb, Batch, Mergeable, Pair, SlotAggregate, SlotState, same};
use crate::Result;
use crate::parallelism::Threads;
use crate::persistence::incomplete;

/// The result computed from a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Sum,
    /// The rounded sum, divided by the number of values.
    Average,
}

#[derive(Clone, Debug, Default)]
struct Cell {
    sum: Expansion,
    count: i64,
}

impl Cell {
    #[inline(always)]
    fn add(&mut self, value: f64) {
        self.sum.add(value);
        self.count += 1;
    }

    #[inline(always)]
    fn add_times(&mut self, value: f64, weight: i64) {
        self.sum.add_times(value, weight);
        self.count += weight;
    }
}

/// The sums or averages of Float64.
#[derive(Debug)]
pub(super) struct Floats {
    outcome: Outcome,
    cells: Paged<Cell>,
}

impl Floats {
    pub(super) fn new(outcome: Outcome) -> Floats {
        Floats { outcome, cells: Paged::default() }
    }

    fn outcome(&self, cell: &Cell) -> Option<f64> {
        match self.outcome {
            _ if cell.count == 0 => None,
            Outcome::Sum => Some(cell.sum.value()),
            Outcome::Average => Some(cell.sum.value() / cell.count as f64),
        }
    }
}

impl SlotAggregate for Floats {
    fn resize(&mut self, end: usize) {
        self.cells.resize(end, Cell::default());
    }

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        let values = batch.values[0].as_primitive::<Float64Type>().values();
        match batch.weights {
            None => batch.for_each(|row, slot, _| self.cells[slot].add(values[row])),
            Some(_) => batch.for_each(|row, slot, weight| self.cells[slot].add_times(values[row], weight)),
        }
        Ok(())
    }

    fn update_in_parallel(&mut self, batches: &[PartitionedBatch<'_>], threads: &Threads) -> Result<()> {
        let values = |apart: &PartitionedBatch<'_>| {
            apart.batch.values[0].as_primitive::<Float64Type>().values().clone()
        };
        let values: Vec<_> = batches.iter().map(values).collect();
        let add = |cell: &mut Cell, batch: usize, row: usize, weight| match weight {
            1 => cell.add(values[batch][row]),
            weight => cell.add_times(values[batch][row], weight),
        };
        update_in_parallel(&mut self.cells, batches, threads, add);
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let values: Float64Array =
            slots.iter().map(|slot| self.outcome(&self.cells[*slot as usize])).collect();
        Ok(Arc::new(values))
    }

    fn may_fail(&self) -> bool {
        false
    }

    fn free(&mut self, slot: u32) {
        self.cells[slot as usize] = Cell::default();
    }
}

impl SlotState for Floats {
    /// Saves each sum as its terms and counts of NaN and infinities, see [`Expansion::encode`].
    fn share(&self) -> Option<(&'static str, Box<dyn SlotAggregate>)> {
        Some((GROUPS, Box::new(Floats { outcome: self.outcome, cells: self.cells.share() })))
    }

    fn save(&self, slots: &[u32]) -> Result<Tables> {
        let mut sums = Lists::<Float64Type>::default();
        slots.iter().for_each(|slot| sums.push(|list| self.cells[*slot as usize].sum.encode(list)));
        let counts = slots.iter().map(|slot| self.cells[*slot as usize].count);
        let counts = Int64Array::from_iter_values(counts);
        of_groups(vec![("sum", sums.column()?), ("count", Arc::new(counts))])
    }

    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        let columns = kept.take_rows(GROUPS, slots.len())?;
        let (sums, counts) = (columns.lists::<Float64Type>("sum")?, columns.numbers::<Int64Type>("count")?);
        for ((slot, terms), count) in slots.iter().zip(sums.iter()).zip(counts.values()) {
            let sum = Expansion::decode(terms).ok_or_else(|| incomplete("no sum has such terms".into()))?;
            self.cells[*slot as usize] = Cell { sum, count: *count };
        }
        Ok(())
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.cells);
    }

    fn memory_bytes(&self) -> usize {
        // Terms on the heap are rare, and finding them would visit every group.
        self.cells.memory_bytes()
    }
}

impl Mergeable for Floats {
    fn fresh(&self) -> Option<Box<dyn SlotAggregate>> {
        Some(Box::new(Floats::new(self.outcome)))
    }

    fn subtracts(&self) -> bool {
        true
    }

    fn absorb(&mut self, other: &dyn SlotAggregate, pairs: &[Pair], change: Absorb) -> Result<()> {
        let other = same::<Floats>(other)?;
        for (from, into) in pairs {
            let (found, cell) = (&other.cells[*from as usize], &mut self.cells[*into as usize]);
            match change {
                Absorb::Add => cell.sum.merge(&found.sum),
                Absorb::Subtract => cell.sum.subtract(&found.sum),
            }
            cell.count += change.sign() * found.count;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;
    use millstream_seeds::Random;

    use super::*;

    #[test]
    fn the_sum_is_exact_whatever_comes_and_goes() {
        let mut random = Random(3);
        let mut random = || random.bits() >> 11;
        let numbers: Vec<f64> = (0..400)
            .map(|n| match n % 40 {
                0 => 1e300,
                1 => f64::INFINITY,
                2 => f64::NAN,
                _ => (random() as f64 - 4.5e15) * 0.1f64.powi((random() % 40) as i32),
            })
            .collect();
        let values: ArrayRef = Arc::new(Float64Array::from(numbers.clone()));
        let slots: Vec<u32> = (0..400).map(|n| n % 7).collect();
        let (mut sums, mut averages) = (Floats::new(Outcome::Sum), Floats::new(Outcome::Average));
        // All values are inserted twice; then one copy is deleted, of the special ones both.
        let back: Vec<i64> = (0..400).map(|n| if n % 40 < 3 { -2 } else { -1 }).collect();
        for floats in [&mut sums, &mut averages] {
            floats.resize(7);
            for weights in [None, None, Some(&back[..])] {
                floats
                    .update(&Batch {
                        slots: &slots,
                        values: std::slice::from_ref(&values),
                        valid: None,
                        weights,
                    })
                    .unwrap();
            }
        }
        for slot in 0..7u32 {
            let mut expected = Cell::default();
            for n in (0..400).filter(|n| slots[*n] == slot && n % 40 >= 3) {
                expected.sum.add(numbers[n]);
                expected.count += 1;
            }
            let get =
                |floats: &Floats| floats.evaluate(&[slot]).unwrap().as_primitive::<Float64Type>().value(0);
            assert_eq!(get(&sums), expected.sum.value());
            assert_eq!(get(&averages), expected.sum.value() / expected.count as f64);
        }
        sums.free(3);
        assert_eq!(sums.evaluate(&[3]).unwrap().null_count(), 1);
    }

    #[test]
    fn what_is_saved_goes_on_to_the_last_bit() {
        let numbers = [1e300, 1e-300, 0.1, f64::MAX, f64::MAX, f64::NAN, f64::INFINITY, -1e300, -0.0];
        let values: ArrayRef = Arc::new(Float64Array::from(numbers.to_vec()));
        let update = |floats: &mut Floats, slot: u32, sign: i64, rows: std::ops::Range<usize>| {
            let (slots, weights) = (vec![slot; rows.len()], vec![sign; rows.len()]);
            let values = [values.slice(rows.start, rows.len())];
            floats
                .update(&Batch { slots: &slots, values: &values, valid: None, weights: Some(&weights) })
                .unwrap();
        };
        let mut floats = Floats::new(Outcome::Sum);
        floats.resize(5);
        update(&mut floats, 1, 3, 0..9);
        update(&mut floats, 4, 1, 0..3);
        update(&mut floats, 2, 1, 8..9);
        update(&mut floats, 0, -1, 5..7);
        let mut kept = floats.save(&[4, 2, 1, 3, 0]).unwrap();
        let mut other = Floats::new(Outcome::Sum);
        other.resize(9);
        other.load(&[8, 0, 3, 5, 6], &mut kept).unwrap();
        assert_eq!(kept.left(), None);
        let bits = |floats: &Floats, slot: u32| {
            let sums = floats.evaluate(&[slot]).unwrap();
            let sums = sums.as_primitive::<Float64Type>();
            sums.is_valid(0).then(|| sums.value(0).to_bits())
        };
        for (here, there) in [(4, 8), (2, 0), (1, 3), (3, 5), (0, 6)] {
            assert_eq!(bits(&floats, here), bits(&other, there));
            // Added values can still be retracted, from the largest down to the least.
            for rows in [6..7, 5..6, 0..2, 3..5, 7..8] {
                update(&mut floats, here, -3, rows.clone());
                update(&mut other, there, -3, rows);
                assert_eq!(bits(&floats, here), bits(&other, there));
            }
        }
        let wrong = Tables::default();
        assert!(other.load(&[0], &mut wrong.clone()).is_err());
    }
}
