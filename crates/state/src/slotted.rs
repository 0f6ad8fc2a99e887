//! Rows with one row per slot.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::store::Store;
use crate::store::table::{Told, of_told, untold};
use crate::{Error, Paged, Result, Spillable, Spilling, Tables};

/// The id of a missing row.
const NO_ROW: u64 = u64::MAX;

/// Rows of one schema, at most one for each slot of a [`crate::KeyIndex`].
///
/// A replacement is appended, and chunks of mostly dead rows are rewritten. So the cost of a change depends
/// on its size only, whatever the types of the columns.
#[derive(Debug)]
pub struct Slotted {
    store: Store,
    /// The id of each slot's row.
    ids: Paged<u64>,
}

impl Slotted {
    /// Returns an empty set of rows.
    pub fn new(schema: SchemaRef) -> Slotted {
        Slotted { store: Store::new(schema), ids: Paged::default() }
    }

    /// Returns the schema of the rows.
    pub fn schema(&self) -> &SchemaRef {
        self.store.schema()
    }

    /// Returns the rows of those slots that have one, and their indices in `slots`.
    pub fn get(&self, slots: &[u32]) -> Result<(RecordBatch, Vec<usize>)> {
        let (mut ids, mut places) = (Vec::with_capacity(slots.len()), Vec::with_capacity(slots.len()));
        for (place, slot) in slots.iter().enumerate() {
            if let Some(id) = self.id_of(*slot) {
                ids.push(id);
                places.push(place);
            }
        }
        Ok((self.store.gather(&ids)?, places))
    }

    /// Puts rows in slots, each in place of the previous one. `slots` must be distinct. An error leaves the
    /// rows unchanged.
    pub fn put(&mut self, slots: &[u32], rows: &RecordBatch) -> Result<()> {
        let replaced: Vec<(u64, i64)> =
            slots.iter().filter_map(|slot| self.id_of(*slot)).map(|id| (id, 0)).collect();
        let first = self.store.push(rows, None)?;
        self.store.set_counts(&replaced);
        let end = slots.iter().max().map_or(0, |slot| *slot as usize + 1);
        if end > self.ids.len() {
            self.ids.resize(end, NO_ROW);
        }
        for (id, slot) in (first..).zip(slots) {
            self.ids[*slot as usize] = id;
        }
        Ok(())
    }

    /// Removes the row of a slot.
    pub fn free(&mut self, slot: u32) {
        if let Some(id) = self.id_of(slot) {
            self.ids[slot as usize] = NO_ROW;
            self.store.set_counts(&[(id, 0)]);
        }
    }

    /// Adds the rows of some slots as a table. Each row refers to its slot by the slot's index in `slots`.
    pub fn save(&self, slots: &[u32], name: &str, to: &mut Tables) -> Result<()> {
        let placed = (0..).zip(slots).filter_map(|(place, slot)| Some((self.id_of(*slot)?, place)));
        to.put(name, self.store.told(placed)?);
        Ok(())
    }

    /// Loads the rows of such a table, for slots in the same order.
    pub fn load(&mut self, slots: &[u32], name: &str, from: &mut Tables) -> Result<()> {
        from.take(name)?.iter().try_for_each(|batch| self.put_told(slots, name, batch))
    }

    /// Returns the rows of such a table, for slots in the same order, with any columns; `None` if the table
    /// has no rows.
    pub fn loaded(slots: &[u32], name: &str, from: &mut Tables) -> Result<Option<Slotted>> {
        let batches = from.take(name)?;
        let Some(first) = batches.first() else { return Ok(None) };
        let mut loaded = Slotted::new(of_told(&first.schema()));
        batches.iter().try_for_each(|batch| loaded.put_told(slots, name, batch))?;
        Ok(Some(loaded))
    }

    fn put_told(&mut self, slots: &[u32], name: &str, batch: &RecordBatch) -> Result<()> {
        let Told { rows, keys, .. } = untold(batch, self.schema())?;
        let slot = |place: &i64| usize::try_from(*place).ok().and_then(|place| slots.get(place).copied());
        match keys.iter().map(slot).collect::<Option<Vec<u32>>>() {
            Some(of) => self.put(&of, &rows),
            None => Err(Error::Incomplete(format!("a row of table '{name}' has no slot"))),
        }
    }

    /// Returns the approximate memory of the rows in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.store.memory_bytes() + self.ids.memory_bytes()
    }

    fn id_of(&self, slot: u32) -> Option<u64> {
        self.ids.get(slot).copied().filter(|id| *id != NO_ROW)
    }
}

impl Spillable for Slotted {
    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        self.store.spill(spilling);
        self.ids.spill(spilling);
    }

    fn spilled_bytes(&self) -> usize {
        self.store.spilled_bytes() + self.ids.spilled_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{AsArray, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    /// Checks that saved rows can be loaded into other slots.
    fn check_saved(slotted: &Slotted) {
        let mut kept = Tables::default();
        let (slots, others): (Vec<u32>, Vec<u32>) = (3..50).rev().map(|slot| (slot, 2 * slot)).unzip();
        slotted.save(&slots, "rows", &mut kept).unwrap();
        assert!(matches!(Slotted::loaded(&[7], "rows", &mut kept.clone()), Err(Error::Incomplete(_))));
        let mut same = Slotted::new(slotted.schema().clone());
        same.load(&others, "rows", &mut kept.clone()).unwrap();
        assert_eq!(same.get(&others).unwrap(), slotted.get(&slots).unwrap());
        let loaded = Slotted::loaded(&others, "rows", &mut kept).unwrap().unwrap();
        assert_eq!(loaded.get(&others).unwrap(), slotted.get(&slots).unwrap());
        assert_eq!(loaded.get(&[0, 2, 4, 7]).unwrap().1.len(), 0);
        assert!(Slotted::loaded(&others, "rows", &mut kept).unwrap().is_none());
    }

    #[test]
    fn each_slot_has_the_row_that_was_put_last() {
        let schema = Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8, true)]));
        let mut slotted = Slotted::new(schema.clone());
        let mut expected: BTreeMap<u32, String> = BTreeMap::new();
        for round in 0..200u32 {
            let slots: Vec<u32> = (0..50).filter(|slot| (slot * 7 + round * 13) % 11 < 3).collect();
            let texts: Vec<String> =
                slots.iter().map(|slot| format!("row {slot} of round {round}")).collect();
            let rows = StringArray::from_iter_values(&texts);
            slotted
                .put(&slots, &RecordBatch::try_new(schema.clone(), vec![Arc::new(rows)]).unwrap())
                .unwrap();
            expected.extend(slots.iter().copied().zip(texts));
            let gone = round % 50;
            slotted.free(gone);
            expected.remove(&gone);

            let asked: Vec<u32> = (0..60).rev().collect();
            let (rows, places) = slotted.get(&asked).unwrap();
            let rows = rows.column(0).as_string::<i32>();
            let found: BTreeMap<u32, String> = places
                .iter()
                .zip(rows)
                .map(|(place, row)| (asked[*place], row.unwrap().to_string()))
                .collect();
            assert_eq!(found, expected);
        }
        check_saved(&slotted);
        assert!(slotted.memory_bytes() < 40_000, "{}", slotted.memory_bytes());
    }
}
