//! min and max over append-only rows.

use std::cmp::Ordering;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryViewBuilder, BooleanArray, PrimitiveArray, downcast_primitive};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use millstream_delta::{OrderedType, TotalOrder};
use millstream_state::{Paged, Spillable, Tables};

use super::parallel_update::{PartitionedBatch, update_in_parallel};
use super::persistence::{GROUPS, of_groups};
use super::slot::{Absorb, Batch, Mergeable, Pair, SlotAggregate, SlotState, same};
use crate::Result;
use crate::parallelism::Threads;

/// The name of the column of saved values.
const VALUE: &str = "value";

/// The end of the order that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extreme {
    Min,
    Max,
}

/// Returns the least or greatest value of a type; `None` if it has no order here.
pub(super) fn extreme(extreme: Extreme, data_type: &DataType) -> Option<Box<dyn SlotAggregate>> {
    macro_rules! primitive {
        ($type:ty) => {
            match extreme {
                Extreme::Min => Some(Box::new(Primitive::<$type, false>::new(data_type))),
                Extreme::Max => Some(Box::new(Primitive::<$type, true>::new(data_type))),
            }
        };
    }
    downcast_primitive! {
        data_type => (primitive),
        DataType::Boolean => Some(Box::new(Booleans { extreme, values: Paged::default() })),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
        | DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            Some(Box::new(Bytes { extreme, data_type: data_type.clone(), values: Paged::default(), bytes: 0 }))
        }
        _ => None,
    }
}

#[derive(Debug)]
struct Primitive<T: OrderedType, const MAX: bool> {
    data_type: DataType,
    values: Paged<Option<T::Native>>,
}

impl<T: OrderedType, const MAX: bool> Primitive<T, MAX> {
    fn new(data_type: &DataType) -> Primitive<T, MAX> {
        Primitive { data_type: data_type.clone(), values: Paged::default() }
    }
}

/// Adds a value.
#[inline(always)]
fn put<N: TotalOrder, const MAX: bool>(kept: &mut Option<N>, value: N, weight: i64) {
    let wanted = if MAX { Ordering::Greater } else { Ordering::Less };
    if weight != 0 && kept.is_none_or(|kept| value.total_order(kept) == wanted) {
        *kept = Some(value);
    }
}

impl<T: OrderedType + Debug, const MAX: bool> SlotAggregate for Primitive<T, MAX> {
    fn resize(&mut self, end: usize) {
        self.values.resize(end, None);
    }

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        let values = batch.values[0].as_primitive::<T>().values();
        batch.for_each(|row, slot, weight| put::<_, MAX>(&mut self.values[slot], values[row], weight));
        Ok(())
    }

    fn update_in_parallel(&mut self, batches: &[PartitionedBatch<'_>], threads: &Threads) -> Result<()> {
        let values =
            |apart: &PartitionedBatch<'_>| apart.batch.values[0].as_primitive::<T>().values().clone();
        let values: Vec<_> = batches.iter().map(values).collect();
        let put = |kept: &mut Option<T::Native>, batch: usize, row: usize, weight| {
            put::<_, MAX>(kept, values[batch][row], weight);
        };
        update_in_parallel(&mut self.values, batches, threads, put);
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let values: PrimitiveArray<T> = slots.iter().map(|slot| self.values[*slot as usize]).collect();
        Ok(Arc::new(values.with_data_type(self.data_type.clone())))
    }

    fn may_fail(&self) -> bool {
        false
    }

    fn free(&mut self, slot: u32) {
        self.values[slot as usize] = None;
    }
}

impl<T: OrderedType + Debug, const MAX: bool> SlotState for Primitive<T, MAX> {
    fn share(&self) -> Option<(&'static str, Box<dyn SlotAggregate>)> {
        let (data_type, values) = (self.data_type.clone(), self.values.share());
        Some((GROUPS, Box::new(Primitive::<T, MAX> { data_type, values })))
    }

    fn save(&self, slots: &[u32]) -> Result<Tables> {
        of_groups(vec![(VALUE, self.evaluate(slots)?)])
    }

    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        let values = kept.take_rows(GROUPS, slots.len())?.numbers::<T>(VALUE)?;
        slots.iter().zip(&values).for_each(|(slot, value)| self.values[*slot as usize] = value);
        Ok(())
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.values);
    }

    fn memory_bytes(&self) -> usize {
        self.values.memory_bytes()
    }
}

impl<T: OrderedType + Debug, const MAX: bool> Mergeable for Primitive<T, MAX> {
    fn fresh(&self) -> Option<Box<dyn SlotAggregate>> {
        Some(Box::new(Primitive::<T, MAX>::new(&self.data_type)))
    }

    fn of_results(&self) -> Option<Box<dyn SlotAggregate>> {
        self.fresh()
    }

    fn absorb(&mut self, other: &dyn SlotAggregate, pairs: &[Pair], _change: Absorb) -> Result<()> {
        let other = same::<Self>(other)?;
        let wanted = if MAX { Ordering::Greater } else { Ordering::Less };
        for (from, into) in pairs {
            let kept = &mut self.values[*into as usize];
            if let Some(found) = other.values[*from as usize]
                && kept.is_none_or(|kept| found.total_order(kept) == wanted)
            {
                *kept = Some(found);
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Booleans {
    extreme: Extreme,
    values: Paged<Option<bool>>,
}

impl SlotAggregate for Booleans {
    fn resize(&mut self, end: usize) {
        self.values.resize(end, None);
    }

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        let values = batch.values[0].as_boolean();
        let wanted = self.extreme == Extreme::Max;
        batch.for_each(|row, slot, weight| {
            let kept = &mut self.values[slot];
            let value = values.value(row);
            if weight != 0 && (kept.is_none() || value == wanted) {
                *kept = Some(value);
            }
        });
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let values: BooleanArray = slots.iter().map(|slot| self.values[*slot as usize]).collect();
        Ok(Arc::new(values))
    }

    fn may_fail(&self) -> bool {
        false
    }

    fn free(&mut self, slot: u32) {
        self.values[slot as usize] = None;
    }
}

impl SlotState for Booleans {
    fn share(&self) -> Option<(&'static str, Box<dyn SlotAggregate>)> {
        Some((GROUPS, Box::new(Booleans { extreme: self.extreme, values: self.values.share() })))
    }

    fn save(&self, slots: &[u32]) -> Result<Tables> {
        of_groups(vec![(VALUE, self.evaluate(slots)?)])
    }

    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        let values = kept.take_rows(GROUPS, slots.len())?.booleans(VALUE)?;
        slots.iter().zip(&values).for_each(|(slot, value)| self.values[*slot as usize] = value);
        Ok(())
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.values);
    }

    fn memory_bytes(&self) -> usize {
        self.values.memory_bytes()
    }
}

impl Mergeable for Booleans {
    fn fresh(&self) -> Option<Box<dyn SlotAggregate>> {
        Some(Box::new(Booleans { extreme: self.extreme, values: Paged::default() }))
    }

    fn of_results(&self) -> Option<Box<dyn SlotAggregate>> {
        self.fresh()
    }

    fn absorb(&mut self, other: &dyn SlotAggregate, pairs: &[Pair], _change: Absorb) -> Result<()> {
        let other = same::<Self>(other)?;
        let wanted = self.extreme == Extreme::Max;
        for (from, into) in pairs {
            let kept = &mut self.values[*into as usize];
            if let Some(found) = other.values[*from as usize]
                && (kept.is_none() || found == wanted)
            {
                *kept = Some(found);
            }
        }
        Ok(())
    }
}

/// Text and binary data, in the order of their bytes.
#[derive(Debug)]
struct Bytes {
    extreme: Extreme,
    data_type: DataType,
    values: Paged<Option<Vec<u8>>>,
    /// The heap bytes of the values.
    bytes: usize,
}

impl Bytes {
    #[inline(always)]
    fn take(&mut self, slot: usize, value: &[u8]) {
        let wanted = if self.extreme == Extreme::Max { Ordering::Greater } else { Ordering::Less };
        match &mut self.values[slot] {
            Some(kept) if value.cmp(kept) != wanted => {}
            kept => {
                let kept = kept.get_or_insert_default();
                self.bytes -= kept.capacity();
                kept.clear();
                kept.extend_from_slice(value);
                self.bytes += kept.capacity();
            }
        }
    }
}

impl SlotAggregate for Bytes {
    fn resize(&mut self, end: usize) {
        self.values.resize(end, None);
    }

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        let values = cast(&batch.values[0], &DataType::BinaryView)?;
        let values = values.as_binary_view();
        batch.for_each(|row, slot, weight| {
            if weight != 0 {
                self.take(slot, values.value(row));
            }
        });
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let mut values = BinaryViewBuilder::with_capacity(slots.len());
        slots.iter().for_each(|slot| values.append_option(self.values[*slot as usize].as_deref()));
        Ok(cast(&values.finish(), &self.data_type)?)
    }

    fn may_fail(&self) -> bool {
        false
    }

    fn free(&mut self, slot: u32) {
        let value = self.values[slot as usize].take();
        self.bytes -= value.map_or(0, |value| value.capacity());
    }
}

impl SlotState for Bytes {
    fn share(&self) -> Option<(&'static str, Box<dyn SlotAggregate>)> {
        let (extreme, data_type, values) = (self.extreme, self.data_type.clone(), self.values.share());
        Some((GROUPS, Box::new(Bytes { extreme, data_type, values, bytes: self.bytes })))
    }

    fn save(&self, slots: &[u32]) -> Result<Tables> {
        of_groups(vec![(VALUE, self.evaluate(slots)?)])
    }

    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        let columns = kept.take_rows(GROUPS, slots.len())?;
        if columns.is_empty() {
            return Ok(());
        }
        let values = cast(columns.typed(VALUE, &self.data_type)?, &DataType::BinaryView)?;
        for (slot, value) in slots.iter().zip(values.as_binary_view()) {
            if let Some(value) = value {
                self.take(*slot as usize, value);
            }
        }
        Ok(())
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.values);
    }

    fn memory_bytes(&self) -> usize {
        self.values.memory_bytes() + self.bytes
    }
}

impl Mergeable for Bytes {
    fn fresh(&self) -> Option<Box<dyn SlotAggregate>> {
        let (extreme, data_type) = (self.extreme, self.data_type.clone());
        Some(Box::new(Bytes { extreme, data_type, values: Paged::default(), bytes: 0 }))
    }

    fn of_results(&self) -> Option<Box<dyn SlotAggregate>> {
        self.fresh()
    }

    fn absorb(&mut self, other: &dyn SlotAggregate, pairs: &[Pair], _change: Absorb) -> Result<()> {
        let other = same::<Self>(other)?;
        for (from, into) in pairs {
            if let Some(found) = &other.values[*from as usize] {
                self.take(*into as usize, found);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Float64Array;
    use arrow::datatypes::Float64Type;

    use super::*;

    #[test]
    fn not_a_number_is_above_all_numbers_and_infinities_count() {
        let cases: [(&[f64], f64, f64); 4] = [
            (&[1.0, f64::NAN, 2.0], 1.0, f64::NAN),
            (&[-f64::NAN, 3.0], 3.0, f64::NAN),
            (&[f64::NEG_INFINITY, f64::NEG_INFINITY], f64::NEG_INFINITY, f64::NEG_INFINITY),
            (&[0.0, -0.0, f64::INFINITY], -0.0, f64::INFINITY),
        ];
        for (values, least, greatest) in cases {
            for (end, expected) in [(Extreme::Min, least), (Extreme::Max, greatest)] {
                let mut kept = extreme(end, &DataType::Float64).unwrap();
                kept.resize(1);
                let column: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
                let slots = vec![0; values.len()];
                kept.update(&Batch { slots: &slots, values: &[column], valid: None, weights: None }).unwrap();
                let found = kept.evaluate(&[0]).unwrap().as_primitive::<Float64Type>().value(0);
                let equal = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
                assert!(equal, "{end:?} of {values:?} is {found}");
            }
        }
    }
}
