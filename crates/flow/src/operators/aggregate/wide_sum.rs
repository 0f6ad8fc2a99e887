//! sum of BIGINT: an error of the group if the result is out of the range of its type, whatever the
//! intermediate sums.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, Int64Array, PrimitiveBuilder};
use arrow::datatypes::{DataType, Int64Type, UInt64Type};
use datafusion::common::exec_datafusion_err;
use millstream_delta::sql_type;
use millstream_state::{Paged, Spillable, Tables};

use super::parallel_update::{PartitionedBatch, update_in_parallel};
use super::persistence::{GROUPS, of_groups};
use super::slot::{Absorb, Batch, Mergeable, Pair, SlotAggregate, SlotState, same};
use crate::Result;
use crate::parallelism::Threads;

/// A sum of 128 bits and the number of its values; the sum of none is NULL. Two halves take 24 bytes with the
/// count, an `i128` would take 32.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    low: u64,
    high: i64,
    count: i64,
}

impl Cell {
    fn sum(&self) -> i128 {
        (i128::from(self.high) << 64) | i128::from(self.low)
    }

    #[inline(always)]
    fn add(&mut self, value: i128, count: i64) {
        let sum = self.sum() + value;
        (self.low, self.high) = (sum as u64, (sum >> 64) as i64);
        self.count += count;
    }
}

/// The sums of a type.
#[derive(Debug)]
struct WideSum<T: ArrowPrimitiveType> {
    cells: Paged<Cell>,
    /// True once a sum was out of the type's range.
    exceeded: AtomicBool,
    of: std::marker::PhantomData<fn() -> T>,
}

impl<T: ArrowPrimitiveType> Default for WideSum<T> {
    fn default() -> WideSum<T> {
        WideSum { cells: Paged::default(), exceeded: AtomicBool::new(false), of: std::marker::PhantomData }
    }
}

/// Returns the sums with the result type `output`, a type of 64 bits.
pub(super) fn wide_sum(output: &DataType) -> Option<Box<dyn SlotAggregate>> {
    match output {
        DataType::Int64 => Some(Box::new(WideSum::<Int64Type>::default())),
        DataType::UInt64 => Some(Box::new(WideSum::<UInt64Type>::default())),
        _ => None,
    }
}

impl<T: ArrowPrimitiveType + Debug> WideSum<T>
where
    T::Native: Into<i128> + TryFrom<i128>,
{
    fn of(sum: i128) -> Option<T::Native> {
        T::Native::try_from(sum).ok()
    }

    /// Adds a value `weight` times, and notes if the sum is out of range.
    #[inline(always)]
    fn add(cell: &mut Cell, exceeded: &AtomicBool, value: T::Native, weight: i64) {
        cell.add(value.into() * i128::from(weight), weight);
        Self::note(cell, exceeded);
    }

    #[inline(always)]
    fn note(cell: &Cell, exceeded: &AtomicBool) {
        if Self::of(cell.sum()).is_none() {
            exceeded.store(true, Ordering::Relaxed);
        }
    }
}

impl<T: ArrowPrimitiveType + Debug> SlotAggregate for WideSum<T>
where
    T::Native: Into<i128> + TryFrom<i128>,
{
    fn resize(&mut self, end: usize) {
        self.cells.resize(end, Cell::default());
    }

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        let values = batch.values[0].as_primitive::<T>().values();
        let (cells, exceeded) = (&mut self.cells, &self.exceeded);
        batch.for_each(|row, slot, weight| Self::add(&mut cells[slot], exceeded, values[row], weight));
        Ok(())
    }

    fn update_in_parallel(&mut self, batches: &[PartitionedBatch<'_>], threads: &Threads) -> Result<()> {
        let values =
            |apart: &PartitionedBatch<'_>| apart.batch.values[0].as_primitive::<T>().values().clone();
        let values: Vec<_> = batches.iter().map(values).collect();
        let exceeded = &self.exceeded;
        let add = |cell: &mut Cell, batch: usize, row: usize, weight| {
            Self::add(cell, exceeded, values[batch][row], weight);
        };
        update_in_parallel(&mut self.cells, batches, threads, add);
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let mut sums = PrimitiveBuilder::<T>::with_capacity(slots.len());
        for slot in slots {
            let cell = &self.cells[*slot as usize];
            sums.append_option(match cell.count {
                0 => None,
                _ => Some(Self::of(cell.sum()).ok_or_else(|| {
                    let data_type = sql_type(&T::DATA_TYPE);
                    exec_datafusion_err!("the sum {} is out of the range of {data_type}", cell.sum())
                })?),
            });
        }
        Ok(Arc::new(sums.finish()))
    }

    fn may_fail(&self) -> bool {
        self.exceeded.load(Ordering::Relaxed)
    }

    fn free(&mut self, slot: u32) {
        self.cells[slot as usize] = Cell::default();
    }
}

impl<T: ArrowPrimitiveType + Debug> SlotState for WideSum<T>
where
    T::Native: Into<i128> + TryFrom<i128>,
{
    fn share(&self) -> Option<(&'static str, Box<dyn SlotAggregate>)> {
        Some((GROUPS, Box::new(WideSum::<T> { cells: self.cells.share(), ..WideSum::default() })))
    }

    fn save(&self, slots: &[u32]) -> Result<Tables> {
        let cells = || slots.iter().map(|slot| &self.cells[*slot as usize]);
        let column =
            |of: fn(&Cell) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(cells().map(of))) };
        let low = column(|cell| cell.low as i64);
        of_groups(vec![
            ("sum", low),
            ("high", column(|cell| cell.high)),
            ("count", column(|cell| cell.count)),
        ])
    }

    /// Loads sums; one saved without its higher half has 64 bits.
    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        let columns = kept.take_rows(GROUPS, slots.len())?;
        let (sums, counts) = (columns.numbers::<T>("sum"), columns.numbers::<Int64Type>("count")?);
        if columns.is_empty() || columns.column("high").is_err() {
            for ((slot, sum), count) in slots.iter().zip(sums?.values()).zip(counts.values()) {
                self.cells[*slot as usize].add((*sum).into(), *count);
            }
            return Ok(());
        }
        let (lows, highs) = (columns.numbers::<Int64Type>("sum")?, columns.numbers::<Int64Type>("high")?);
        for (at, slot) in slots.iter().enumerate() {
            let cell = &mut self.cells[*slot as usize];
            *cell = Cell { low: lows.value(at) as u64, high: highs.value(at), count: counts.value(at) };
            Self::note(cell, &self.exceeded);
        }
        Ok(())
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.cells);
    }

    fn memory_bytes(&self) -> usize {
        self.cells.memory_bytes()
    }
}

impl<T: ArrowPrimitiveType + Debug> Mergeable for WideSum<T>
where
    T::Native: Into<i128> + TryFrom<i128>,
{
    fn fresh(&self) -> Option<Box<dyn SlotAggregate>> {
        Some(Box::new(WideSum::<T>::default()))
    }

    fn subtracts(&self) -> bool {
        true
    }

    fn absorb(&mut self, other: &dyn SlotAggregate, pairs: &[Pair], change: Absorb) -> Result<()> {
        let other = same::<Self>(other)?;
        for (from, into) in pairs {
            let (found, cell) = (&other.cells[*from as usize], &mut self.cells[*into as usize]);
            let sign = change.sign();
            cell.add(i128::from(sign) * found.sum(), sign * found.count);
            Self::note(cell, &self.exceeded);
        }
        Ok(())
    }
}
