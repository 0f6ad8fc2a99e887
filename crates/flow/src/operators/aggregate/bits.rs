//! bit_and, bit_or and bit_xor.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, Int64Array, PrimitiveArray, UInt64Array};
use arrow::datatypes::{
    DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use millstream_state::{Lists, Paged, Spillable, Tables};

use super::persistence::{GROUPS, of_groups};
use super::slot::{Batch, Mergeable, SlotAggregate, SlotState};
use crate::Result;
use crate::persistence::incomplete;

/// The bitwise operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    And,
    Or,
    Xor,
}

/// An integer type as 64 bits; the sign is extended.
trait Integer: ArrowPrimitiveType {
    fn to_bits(value: Self::Native) -> u64;
    fn from_bits(bits: u64) -> Self::Native;
}

macro_rules! integers {
    ($($data_type:ty, $native:ty);*) => {$(
        impl Integer for $data_type {
            fn to_bits(value: $native) -> u64 {
                value as u64
            }

            fn from_bits(bits: u64) -> $native {
                bits as $native
            }
        }
    )*};
}

integers!(
    Int8Type, i8; Int16Type, i16; Int32Type, i32; Int64Type, i64;
    UInt8Type, u8; UInt16Type, u16; UInt32Type, u32; UInt64Type, u64
);

/// Returns the slots of an operation over integers; `None` for other types.
pub(super) fn bits(
    operation: Operation,
    data_type: &DataType,
    append_only: bool,
) -> Option<Box<dyn SlotAggregate>> {
    fn of<T: Integer + Debug>(operation: Operation, append_only: bool) -> Option<Box<dyn SlotAggregate>> {
        Some(if append_only || operation == Operation::Xor {
            Box::new(Folded::<T> { operation, cells: Paged::default(), integer: std::marker::PhantomData })
        } else {
            Box::new(Counted::<T> { operation, cells: Paged::default(), integer: std::marker::PhantomData })
        })
    }
    match data_type {
        DataType::Int8 => of::<Int8Type>(operation, append_only),
        DataType::Int16 => of::<Int16Type>(operation, append_only),
        DataType::Int32 => of::<Int32Type>(operation, append_only),
        DataType::Int64 => of::<Int64Type>(operation, append_only),
        DataType::UInt8 => of::<UInt8Type>(operation, append_only),
        DataType::UInt16 => of::<UInt16Type>(operation, append_only),
        DataType::UInt32 => of::<UInt32Type>(operation, append_only),
        DataType::UInt64 => of::<UInt64Type>(operation, append_only),
        _ => None,
    }
}

/// The result so far, and the number of values.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    bits: u64,
    count: i64,
}

/// Keeps just the result: for append-only rows, or for XOR, which is its own inverse.
#[derive(Debug)]
struct Folded<T> {
    operation: Operation,
    cells: Paged<Cell>,
    integer: std::marker::PhantomData<fn() -> T>,
}

impl<T: Integer + Debug> SlotAggregate for Folded<T> {
    fn resize(&mut self, end: usize) {
        self.cells.resize(end, Cell::default());
    }

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        let values = batch.values[0].as_primitive::<T>().values();
        let operation = self.operation;
        batch.for_each(|row, slot, weight| {
            let (cell, bits) = (&mut self.cells[slot], T::to_bits(values[row]));
            cell.bits = match operation {
                Operation::Xor if weight % 2 == 0 => cell.bits,
                Operation::Xor => cell.bits ^ bits,
                _ if weight == 0 => cell.bits,
                Operation::Or => cell.bits | bits,
                Operation::And if cell.count == 0 => bits,
                Operation::And => cell.bits & bits,
            };
            cell.count += weight;
        });
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let cells = slots.iter().map(|slot| &self.cells[*slot as usize]);
        let values = cells.map(|cell| (cell.count != 0).then_some(T::from_bits(cell.bits)));
        Ok(Arc::new(values.collect::<PrimitiveArray<T>>()))
    }

    fn free(&mut self, slot: u32) {
        self.cells[slot as usize] = Cell::default();
    }
}

impl<T: Integer + Debug> SlotState for Folded<T> {
    fn share(&self) -> Option<(&'static str, Box<dyn SlotAggregate>)> {
        let (operation, cells, integer) = (self.operation, self.cells.share(), self.integer);
        Some((GROUPS, Box::new(Folded::<T> { operation, cells, integer })))
    }

    fn save(&self, slots: &[u32]) -> Result<Tables> {
        let cells = || slots.iter().map(|slot| &self.cells[*slot as usize]);
        let bits = UInt64Array::from_iter_values(cells().map(|cell| cell.bits));
        let counts = Int64Array::from_iter_values(cells().map(|cell| cell.count));
        of_groups(vec![("bits", Arc::new(bits)), ("count", Arc::new(counts))])
    }

    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        let columns = kept.take_rows(GROUPS, slots.len())?;
        let (bits, counts) = (columns.numbers::<UInt64Type>("bits")?, columns.numbers::<Int64Type>("count")?);
        for ((slot, bits), count) in slots.iter().zip(bits.values()).zip(counts.values()) {
            self.cells[*slot as usize] = Cell { bits: *bits, count: *count };
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

impl<T: Integer + Debug> Mergeable for Folded<T> {
    fn of_results(&self) -> Option<Box<dyn SlotAggregate>> {
        let (operation, cells) = (self.operation, Paged::default());
        Some(Box::new(Folded::<T> { operation, cells, integer: std::marker::PhantomData }))
    }
}

/// The number of values with each bit, and the number of all values.
#[derive(Clone, Debug, Default)]
struct Counts {
    count: i64,
    /// One count for each bit of the type, allocated with the group's first value.
    set: Box<[i64]>,
}

/// Counts bits, so that rows can be retracted.
#[derive(Debug)]
struct Counted<T> {
    operation: Operation,
    cells: Paged<Counts>,
    integer: std::marker::PhantomData<fn() -> T>,
}

impl<T: Integer> Counted<T> {
    const WIDTH: usize = size_of::<T::Native>() * 8;
}

impl<T: Integer + Debug> SlotAggregate for Counted<T> {
    fn resize(&mut self, end: usize) {
        self.cells.resize(end, Counts::default());
    }

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        let values = batch.values[0].as_primitive::<T>().values();
        batch.for_each(|row, slot, weight| {
            let (cell, bits) = (&mut self.cells[slot], T::to_bits(values[row]));
            cell.count += weight;
            if cell.set.is_empty() {
                cell.set = vec![0; Self::WIDTH].into();
            }
            cell.set
                .iter_mut()
                .enumerate()
                .for_each(|(bit, count)| *count += weight * (bits >> bit & 1) as i64);
        });
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let value = |slot: &u32| {
            let cell = &self.cells[*slot as usize];
            let is_set = |count: i64| match self.operation {
                Operation::And => count == cell.count,
                _ => count != 0,
            };
            let bits = cell.set.iter().enumerate().map(|(bit, count)| u64::from(is_set(*count)) << bit);
            (cell.count != 0).then(|| T::from_bits(bits.sum()))
        };
        Ok(Arc::new(slots.iter().map(value).collect::<PrimitiveArray<T>>()))
    }

    fn free(&mut self, slot: u32) {
        self.cells[slot as usize] = Counts::default();
    }
}

impl<T: Integer + Debug> SlotState for Counted<T> {
    fn share(&self) -> Option<(&'static str, Box<dyn SlotAggregate>)> {
        let (operation, cells, integer) = (self.operation, self.cells.share(), self.integer);
        Some((GROUPS, Box::new(Counted::<T> { operation, cells, integer })))
    }

    fn save(&self, slots: &[u32]) -> Result<Tables> {
        let cells = || slots.iter().map(|slot| &self.cells[*slot as usize]);
        let counts = Int64Array::from_iter_values(cells().map(|cell| cell.count));
        let mut set = Lists::<Int64Type>::default();
        cells().for_each(|cell| set.push(|list| list.extend_from_slice(&cell.set)));
        of_groups(vec![("count", Arc::new(counts)), ("set", set.column()?)])
    }

    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        let columns = kept.take_rows(GROUPS, slots.len())?;
        let (counts, sets) = (columns.numbers::<Int64Type>("count")?, columns.lists::<Int64Type>("set")?);
        for ((slot, count), set) in slots.iter().zip(counts.values()).zip(sets.iter()) {
            if !set.is_empty() && set.len() != Self::WIDTH {
                return Err(incomplete(format!("there are counts of {} bits", set.len())));
            }
            self.cells[*slot as usize] = Counts { count: *count, set: set.into() };
        }
        Ok(())
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.cells);
    }

    fn memory_bytes(&self) -> usize {
        // Finding the groups that had a value would visit every group, so all are assumed to have had one.
        self.cells.memory_bytes() + self.cells.len() * Self::WIDTH * size_of::<i64>()
    }

    fn keeps(&self) -> &'static str {
        "counts of bits"
    }
}

impl<T: Integer + Debug> Mergeable for Counted<T> {
    fn of_results(&self) -> Option<Box<dyn SlotAggregate>> {
        let (operation, cells) = (self.operation, Paged::default());
        Some(Box::new(Folded::<T> { operation, cells, integer: std::marker::PhantomData }))
    }
}
