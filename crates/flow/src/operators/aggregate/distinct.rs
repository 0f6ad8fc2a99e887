//! DISTINCT arguments: a table of groups and values before an aggregate, which gets each value once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Int64Type, UInt32Type};
use millstream_state::{KeyIndex, Paged, Spillable, Tables};

use super::persistence::{GROUP, VALUES, load_part, slots_of};
use super::slot::{Batch, Mergeable, SlotAggregate, SlotState};
use crate::persistence::incomplete;
use crate::{Error, Result};

/// The column with the number of copies of a value.
const COPIES: &str = "_copies";

/// Counts the copies of each value of each group. The inner aggregate gets only values whose count becomes
/// positive or zero.
#[derive(Debug)]
pub(super) struct Distinct {
    /// The slot of the group, then the values.
    index: KeyIndex,
    copies: Paged<i64>,
    /// A bit for each value, set while the current batch has touched it.
    touched: Vec<u64>,
    inner: Box<dyn SlotAggregate>,
}

impl Distinct {
    /// Returns the table before `inner`, whose arguments have these types.
    pub(super) fn new(inner: Box<dyn SlotAggregate>, arguments: &[DataType]) -> Result<Distinct> {
        let mut types = vec![DataType::UInt32];
        types.extend_from_slice(arguments);
        Ok(Distinct { index: KeyIndex::new(types)?, copies: Paged::default(), touched: Vec::new(), inner })
    }

    /// Counts the copies of rows' values; returns the touched values with their previous numbers of copies.
    fn count(&mut self, entries: &[u32], weights: Option<&[i64]>) -> Vec<(u32, i64)> {
        let mut touched = Vec::new();
        for (row, entry) in entries.iter().enumerate() {
            let copies = &mut self.copies[*entry as usize];
            let (mark, bit) = (&mut self.touched[*entry as usize / 64], 1 << (entry % 64));
            if *mark & bit == 0 {
                *mark |= bit;
                touched.push((*entry, *copies));
            }
            *copies += weights.map_or(1, |weights| weights[row]);
        }
        touched.iter().for_each(|(entry, _)| self.touched[*entry as usize / 64] = 0);
        touched
    }
}

impl SlotAggregate for Distinct {
    fn resize(&mut self, end: usize) {
        self.inner.resize(end);
    }

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from(batch.slots.to_vec()))];
        columns.extend_from_slice(batch.values);
        let mut weights = batch.weights.map(<[i64]>::to_vec);
        if let Some(valid) = batch.valid {
            let mask = BooleanArray::new(valid.inner().clone(), None);
            for column in &mut columns {
                *column = filter(column, &mask)?;
            }
            weights = weights.map(|weights| {
                weights
                    .into_iter()
                    .zip(mask.values())
                    .filter(|(_, passed)| *passed)
                    .map(|(weight, _)| weight)
                    .collect()
            });
        }
        let mut entries = Vec::with_capacity(columns[0].len());
        self.index.slots(&columns, &mut entries)?;
        self.copies.resize(self.index.slots_end(), 0);
        self.touched.resize(self.index.slots_end().div_ceil(64), 0);
        let touched = self.count(&entries, weights.as_deref());
        let (mut changed, mut changes) = (Vec::new(), Vec::new());
        for (entry, before) in &touched {
            let now = self.copies[*entry as usize];
            if (*before > 0) != (now > 0) {
                changed.push(*entry);
                changes.push(if now > 0 { 1 } else { -1 });
            }
        }
        if !changed.is_empty() {
            let keys = self.index.keys(&changed)?;
            let slots = keys[0].as_primitive::<UInt32Type>().values();
            let weights = changes.contains(&-1).then_some(&changes[..]);
            self.inner.update(&Batch { slots, values: &keys[1..], valid: None, weights })?;
        }
        for (entry, _) in &touched {
            if self.copies[*entry as usize] == 0 {
                self.index.free(*entry);
            }
        }
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        self.inner.evaluate(slots)
    }

    fn free(&mut self, slot: u32) {
        self.inner.free(slot);
    }

    /// Scans all values: keys are forgotten rarely, and many at once.
    fn forget_slots(&mut self, slots: &[u32]) {
        let gone: HashSet<u32> = slots.iter().copied().collect();
        let live = self.index.live();
        if let Ok(keys) = self.index.keys(&live) {
            let of = keys[0].as_primitive::<UInt32Type>().values();
            for (entry, _) in live.iter().zip(of).filter(|(_, slot)| gone.contains(slot)) {
                self.copies[*entry as usize] = 0;
                self.index.free(*entry);
            }
        }
        self.inner.forget_slots(slots);
    }

    fn forget(&mut self) {
        for entry in self.index.live() {
            self.copies[entry as usize] = 0;
            self.index.free(entry);
        }
        self.inner.forget();
    }

    fn takes_all(&self) -> bool {
        self.inner.takes_all()
    }
}

impl SlotState for Distinct {
    fn save(&self, slots: &[u32]) -> Result<Tables> {
        let mut keys = self.index.live_keys()?.into_iter();
        let of = keys.next().ok_or_else(|| Error::Bug("values without a group".into()))?;
        let place_of: HashMap<u32, u32> = slots.iter().copied().zip(0..).collect();
        let place = |slot: Option<u32>| place_of.get(&slot?).copied();
        let groups: UInt32Array = of.as_primitive::<UInt32Type>().iter().map(place).collect();
        let live = self.index.live();
        let copies = Int64Array::from_iter_values(live.iter().map(|entry| self.copies[*entry as usize]));
        // Drops the values of groups that weren't requested.
        let wanted = arrow::compute::is_not_null(&groups)?;
        let groups = arrow::compute::filter(&groups, &wanted)?;
        let copies = arrow::compute::filter(&copies, &wanted)?;
        let keys = keys.map(|values| arrow::compute::filter(&values, &wanted));
        let keys = keys.collect::<std::result::Result<Vec<ArrayRef>, _>>()?;
        let mut columns: Vec<(&str, ArrayRef)> = vec![(GROUP, groups), (COPIES, copies)];
        let names: Vec<String> = (0..keys.len()).map(|place| format!("value{place}")).collect();
        columns.extend(names.iter().map(String::as_str).zip(keys));
        let mut kept = Tables::default();
        kept.put_columns(VALUES, columns)?;
        kept.put_part("inner", self.inner.save(slots)?);
        Ok(kept)
    }

    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        let columns = kept.take_table(VALUES)?;
        if !columns.is_empty() {
            let mut keys: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from(slots_of(&columns, slots)?))];
            keys.extend_from_slice(columns.all().get(2..).unwrap_or_default());
            let types = self.index.live_keys()?;
            if !types.iter().map(|column| column.data_type()).eq(keys.iter().map(|column| column.data_type()))
            {
                return Err(incomplete("distinct values have another type".into()));
            }
            let mut entries = Vec::with_capacity(columns.num_rows());
            let new = self.index.slots(&keys, &mut entries)?;
            if new.len() < entries.len() {
                return Err(incomplete("a group has a value twice".into()));
            }
            self.copies.resize(self.index.slots_end(), 0);
            self.touched.resize(self.index.slots_end().div_ceil(64), 0);
            let copies = columns.numbers::<Int64Type>(COPIES)?;
            for (entry, copies) in entries.iter().zip(copies.values()) {
                self.copies[*entry as usize] = *copies;
            }
        }
        load_part(self.inner.as_mut(), slots, kept, "inner")
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.index);
        show(&mut self.copies);
        self.inner.each_store(show);
    }

    fn memory_bytes(&self) -> usize {
        self.index.memory_bytes()
            + self.copies.memory_bytes()
            + self.touched.capacity() * size_of::<u64>()
            + self.inner.memory_bytes()
    }

    fn keeps(&self) -> &'static str {
        "distinct values"
    }
}

impl Mergeable for Distinct {}
