//! min and max over rows with deletes: the values of each group in order.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, AsArray, BinaryViewBuilder, Int64Array, PrimitiveArray,
    downcast_primitive,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, UInt8Type};
use millstream_delta::OrderedType;
use millstream_state::{Paged, Spillable, Tables};

use super::extreme::{Extreme, extreme};
use super::multiset::{Multiset, Value};
use super::persistence::{GROUP, VALUES, places, slots_of};
use super::slot::{Batch, Mergeable, SlotAggregate, SlotState};
use crate::Result;

/// The text of [`SlotState::keeps`] for ordered values.
pub(super) const KEEPS: &str = "ordered values";

/// The average size in bytes of the values of a group above which threads don't share them.
const SHARED_BYTES_MAX: usize = 256;

/// Returns the least or greatest values of a type; `None` if it has no order here.
pub(super) fn ends(extreme: Extreme, data_type: &DataType) -> Option<Box<dyn SlotAggregate>> {
    macro_rules! primitive {
        ($type:ty) => {
            Some(Box::new(Ends::<Number<$type>>::new(extreme, data_type)))
        };
    }
    downcast_primitive! {
        data_type => (primitive),
        // Booleans have the same order as numbers.
        DataType::Boolean => Some(Box::new(Ends::<Number<UInt8Type>>::new(extreme, data_type))),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
        | DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            Some(Box::new(Ends::<Bytes>::new(extreme, data_type)))
        }
        _ => None,
    }
}

/// The storage of values of some types.
trait Domain: Debug + Send + Sync + 'static {
    type Kept: Value;

    /// Adds the rows' values to the multisets of their slots; returns the growth of these in bytes.
    fn add(sets: &mut Paged<Multiset<Self::Kept>>, batch: &Batch<'_>) -> Result<isize>;

    /// Returns a column of values.
    fn column<'a>(
        values: impl Iterator<Item = Option<&'a Self::Kept>>,
        data_type: &DataType,
    ) -> Result<ArrayRef>;
}

/// Values with a native form: numbers, times, booleans.
#[derive(Debug)]
struct Number<T>(std::marker::PhantomData<fn() -> T>);

/// A stored number.
#[derive(Clone, Copy, Debug)]
struct Native<N>(N);

impl<N: ArrowNativeTypeOp> Value for Native<N> {}

impl<T: OrderedType + Debug> Domain for Number<T> {
    type Kept = Native<T::Native>;

    fn add(sets: &mut Paged<Multiset<Self::Kept>>, batch: &Batch<'_>) -> Result<isize> {
        let truths = (*batch.values[0].data_type() == DataType::Boolean)
            .then(|| cast(&batch.values[0], &T::DATA_TYPE))
            .transpose()?;
        let values = truths.as_ref().unwrap_or(&batch.values[0]).as_primitive::<T>().values();
        let mut grown = 0;
        batch.for_each(|row, slot, weight| {
            let value = values[row];
            grown += sets[slot].add(weight, |other| T::order(other.0, value), || Native(value));
        });
        Ok(grown)
    }

    fn column<'a>(
        values: impl Iterator<Item = Option<&'a Self::Kept>>,
        data_type: &DataType,
    ) -> Result<ArrayRef> {
        let values: PrimitiveArray<T> = values.map(|value| value.map(|value| value.0)).collect();
        match data_type {
            DataType::Boolean => Ok(cast(&values, data_type)?),
            _ => Ok(Arc::new(values.with_data_type(data_type.clone()))),
        }
    }
}

/// Text and binary data, in the order of their bytes.
#[derive(Debug)]
struct Bytes;

impl Domain for Bytes {
    type Kept = Box<[u8]>;

    fn add(sets: &mut Paged<Multiset<Self::Kept>>, batch: &Batch<'_>) -> Result<isize> {
        let values = cast(&batch.values[0], &DataType::BinaryView)?;
        let values = values.as_binary_view();
        let mut grown = 0;
        batch.for_each(|row, slot, weight| {
            let value = values.value(row);
            grown += sets[slot].add(weight, |other| other.as_ref().cmp(value), || value.into());
        });
        Ok(grown)
    }

    fn column<'a>(
        values: impl Iterator<Item = Option<&'a Self::Kept>>,
        data_type: &DataType,
    ) -> Result<ArrayRef> {
        let mut column = BinaryViewBuilder::new();
        values.for_each(|value| column.append_option(value));
        Ok(cast(&column.finish(), data_type)?)
    }
}

/// The values of each group; the result is the value at one end.
#[derive(Debug)]
struct Ends<D: Domain> {
    extreme: Extreme,
    data_type: DataType,
    sets: Paged<Multiset<D::Kept>>,
    /// The heap bytes of the multisets.
    bytes: isize,
}

impl<D: Domain> Ends<D> {
    fn new(extreme: Extreme, data_type: &DataType) -> Ends<D> {
        Ends { extreme, data_type: data_type.clone(), sets: Paged::default(), bytes: 0 }
    }
}

impl<D: Domain> SlotAggregate for Ends<D> {
    fn resize(&mut self, end: usize) {
        self.sets.resize(end, Multiset::default());
    }

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        self.bytes += D::add(&mut self.sets, batch)?;
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let sets = slots.iter().map(|slot| &self.sets[*slot as usize]);
        match self.extreme {
            Extreme::Min => D::column(sets.map(Multiset::first), &self.data_type),
            Extreme::Max => D::column(sets.map(Multiset::last), &self.data_type),
        }
    }

    fn may_fail(&self) -> bool {
        false
    }

    fn free(&mut self, slot: u32) {
        self.bytes += self.sets[slot as usize].clear();
    }
}

impl<D: Domain> SlotState for Ends<D> {
    fn share(&self) -> Option<(&'static str, Box<dyn SlotAggregate>)> {
        // A change copies the sets of a whole page.
        let is_small = self.bytes as usize <= self.sets.len() * SHARED_BYTES_MAX;
        let (extreme, data_type) = (self.extreme, self.data_type.clone());
        let shared = || Ends::<D> { extreme, data_type, sets: self.sets.share(), bytes: self.bytes };
        is_small.then(|| (VALUES, Box::new(shared()) as Box<dyn SlotAggregate>))
    }

    fn save(&self, slots: &[u32]) -> Result<Tables> {
        let sets = || slots.iter().map(|slot| &self.sets[*slot as usize]);
        let all = || sets().flat_map(Multiset::iter);
        let values = D::column(all().map(|(value, _)| Some(value)), &self.data_type)?;
        let counts = Int64Array::from_iter_values(all().map(|(_, count)| count));
        let groups = places(sets().map(|set| set.iter().count()));
        let mut kept = Tables::default();
        let columns: Vec<(&str, ArrayRef)> =
            vec![(GROUP, Arc::new(groups)), ("value", values), ("count", Arc::new(counts))];
        kept.put_columns(VALUES, columns)?;
        Ok(kept)
    }

    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        let columns = kept.take_table(VALUES)?;
        if columns.is_empty() {
            return Ok(());
        }
        let values = columns.typed("value", &self.data_type)?;
        let counts = columns.numbers::<Int64Type>("count")?;
        let slots = slots_of(&columns, slots)?;
        let values = std::slice::from_ref(values);
        self.update(&Batch { slots: &slots, values, valid: None, weights: Some(counts.values()) })
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.sets);
    }

    fn memory_bytes(&self) -> usize {
        self.sets.memory_bytes() + self.bytes as usize
    }

    fn keeps(&self) -> &'static str {
        KEEPS
    }
}

impl<D: Domain> Mergeable for Ends<D> {
    fn of_results(&self) -> Option<Box<dyn SlotAggregate>> {
        extreme(self.extreme, &self.data_type)
    }
}
