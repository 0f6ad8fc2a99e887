//! Saving and loading keys as a table.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};

use super::{KeyIndex, cast_to};
use crate::{Error, Result, Size, SlotMarks, Tables};

/// Number of keys in a batch.
const KEYS: Size = Size::of(65_536);

impl KeyIndex {
    /// Adds all keys as a table, with these column names as far as given, and returns their slots. Save other
    /// data by slot in the order of these slots, which is the order of the table.
    pub fn save(&self, name: &str, names: &[&str], to: &mut Tables) -> Result<Vec<u32>> {
        let slots = self.live();
        self.save_some(&slots, name, names, to)?;
        Ok(slots)
    }

    /// Like [`KeyIndex::save`], for the keys of these slots, each of which has one.
    pub fn save_some(&self, slots: &[u32], name: &str, names: &[&str], to: &mut Tables) -> Result<()> {
        let field = |(at, data_type)| match names.get(at) {
            Some(name) => Field::new(*name, Clone::clone(data_type), true),
            None => Field::new(format!("key{at}"), Clone::clone(data_type), true),
        };
        let schema = Arc::new(Schema::new(self.kept.iter().enumerate().map(field).collect::<Vec<_>>()));
        let mut batches = Vec::with_capacity(slots.len().div_ceil(KEYS.get()));
        for some in slots.chunks(KEYS.get()) {
            // Dictionaries are decoded: their key type may be too small for so many values at once.
            let columns = self.kept_keys(some)?.into_iter().zip(&self.kept);
            let columns = columns.map(|(column, kept)| cast_to(column, kept)).collect::<Result<Vec<_>>>()?;
            batches.push(RecordBatch::try_new(schema.clone(), columns)?);
        }
        to.put(name, batches);
        Ok(())
    }

    /// Adds the keys added and freed since the newest checkpoint as tables, or all keys if the checkpoint
    /// holds the complete state. The index must be tracked.
    pub fn save_changed(&self, name: &str, names: &[&str], to: &mut Tables) -> Result<()> {
        self.save_changed_with(name, names, |_, _| Ok(()), to)
    }

    /// Like [`KeyIndex::save_changed`], with data that changes only for touched keys: `beside` adds tables
    /// with one row for each of some slots.
    pub fn save_changed_with(
        &self,
        name: &str,
        names: &[&str],
        beside: impl FnOnce(&[u32], &mut Tables) -> Result<()>,
        to: &mut Tables,
    ) -> Result<()> {
        let Some(marks) = &self.marks else {
            let slots = self.save(name, names, to)?;
            return beside(&slots, to);
        };
        let run = marks.run();
        let (slots, gone) = match run.is_whole() {
            true => (self.live(), Vec::new()),
            false => self.live_among(marks.touched(&run)),
        };
        let mut keys = Tables::default();
        self.save_some(&slots, name, names, &mut keys)?;
        beside(&slots, &mut keys)?;
        keys.put_slots(&run, slots, gone, &[name]);
        to.put_all(keys);
        Ok(())
    }

    /// Records that data stored with the keys of these slots has changed.
    pub fn touch_all(&mut self, slots: impl IntoIterator<Item = u32>) {
        if let Some(marks) = &mut self.marks {
            marks.touch_all(slots);
        }
    }

    /// Returns the columns of all keys, in the order of [`KeyIndex::live`], for tables of other data by key.
    /// Dictionaries are decoded, see [`KeyIndex::save`].
    pub fn live_keys(&self) -> Result<Vec<ArrayRef>> {
        let columns = self.kept_keys(&self.live())?.into_iter().zip(&self.kept);
        columns.map(|(column, kept)| cast_to(column, kept)).collect()
    }

    /// Replaces the keys with those of such a table, and returns their number. They get the slots 0, 1, 2 and
    /// so on, in the table's order.
    pub fn load(&mut self, name: &str, from: &mut Tables) -> Result<usize> {
        // Otherwise freed slots would be assigned first.
        let (panes, marks) = (std::mem::take(&mut self.panes), self.marks.take());
        *self = KeyIndex::new(self.types.clone())?;
        self.tell_apart(&panes);
        self.marks = marks.map(|_| SlotMarks::default());
        let mut slots = Vec::new();
        for batch in from.take(name)? {
            let types = batch.columns().iter().map(|column| column.data_type());
            if !types.eq(&self.kept) {
                return Err(Error::Incomplete(format!("table '{name}' has keys of other types")));
            }
            let columns: Vec<ArrayRef> = batch.columns().to_vec();
            self.slots(&columns, &mut slots)?;
        }
        if !slots.iter().copied().eq(0..self.len() as u32) {
            return Err(Error::Incomplete(format!("table '{name}' has a key twice")));
        }
        Ok(slots.len())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, DictionaryArray, Float64Array, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Int8Type};

    use super::*;

    #[test]
    fn keys_that_were_there_leave_nothing() {
        let keys = |keys: Vec<i64>| vec![Arc::new(Int64Array::from(keys)) as ArrayRef];
        let mut index = KeyIndex::new(vec![DataType::Int64]).unwrap();
        let mut slots = Vec::new();
        index.slots(&keys(vec![5, -2, 9]), &mut slots).unwrap();
        let mut all = Tables::default();
        assert_eq!(index.save("keys", &["k"], &mut all).unwrap(), [0, 1, 2]);
        slots.iter().for_each(|slot| index.free(*slot));
        assert_eq!(index.load("keys", &mut all).unwrap(), 3);
        let mut found = Vec::new();
        index.find(&keys(vec![9, 5, 7]), &mut found).unwrap();
        assert_eq!(found, [2, 0, crate::NO_SLOT]);
    }

    /// Adds and frees keys, so that some slots are unused.
    fn filled(types: Vec<DataType>, columns: &[ArrayRef]) -> KeyIndex {
        let mut index = KeyIndex::new(types).unwrap();
        let mut slots = Vec::new();
        index.slots(columns, &mut slots).unwrap();
        slots.iter().step_by(3).for_each(|slot| index.free(*slot));
        index
            .slots(&columns.iter().map(|column| column.slice(0, 1)).collect::<Vec<_>>(), &mut slots)
            .unwrap();
        index
    }

    #[test]
    fn keys_come_back_in_the_order_of_their_slots() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None, Some(9), Some(1), Some(2)]));
        let floats: ArrayRef =
            Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(-0.0), None, Some(1.5), Some(2.0)]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![
            Some("a text that is rather long"),
            Some(""),
            None,
            Some("c"),
            Some("d"),
        ]));
        let listed: DictionaryArray<Int8Type> =
            texts.as_any().downcast_ref::<StringArray>().unwrap().iter().collect();
        let listed: ArrayRef = Arc::new(listed);
        let all: [&[ArrayRef]; 6] = [
            std::slice::from_ref(&numbers),
            std::slice::from_ref(&floats),
            std::slice::from_ref(&texts),
            std::slice::from_ref(&listed),
            &[numbers.clone(), floats.clone(), numbers.clone()],
            &[numbers.clone(), texts.clone(), floats.clone(), listed.clone()],
        ];
        for columns in all {
            let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
            let index = filled(types.clone(), columns);
            let mut tables = Tables::default();
            let slots = index.save("keys", &["first"], &mut tables).unwrap();
            assert_eq!(slots, index.live());
            assert_eq!(tables.tables().next().unwrap().1.get().unwrap()[0].schema().field(0).name(), "first");
            let mut new = KeyIndex::new(types).unwrap();
            new.tell_apart(&[1]);
            assert_eq!(new.load("keys", &mut tables).unwrap(), slots.len());
            assert_eq!(new.live(), (0..slots.len() as u32).collect::<Vec<_>>());
            assert_eq!(new.keys(&new.live()).unwrap(), index.keys(&slots).unwrap());
            assert_eq!(tables.left(), None);
        }
    }

    #[test]
    fn more_keys_than_a_dictionary_has_numbers_are_kept() {
        let data_type = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let mut index = KeyIndex::new(vec![data_type.clone()]).unwrap();
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..300).map(|key| format!("{key}"))));
        index.slots(&[texts], &mut Vec::new()).unwrap();
        let mut tables = Tables::default();
        index.save("keys", &[], &mut tables).unwrap();
        let mut new = KeyIndex::new(vec![data_type]).unwrap();
        assert_eq!(new.load("keys", &mut tables).unwrap(), 300);
    }

    #[test]
    fn what_does_not_fit_is_no_key() {
        let index = filled(vec![DataType::Int64], &[Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef]);
        let mut tables = Tables::default();
        index.save("keys", &[], &mut tables).unwrap();
        let mut other = KeyIndex::new(vec![DataType::Utf8]).unwrap();
        assert!(matches!(other.load("keys", &mut tables.clone()), Err(Error::Incomplete(_))));
        let mut batches = tables.take("keys").unwrap();
        batches.extend(batches.clone());
        tables.put("keys", batches);
        let mut twice = KeyIndex::new(vec![DataType::Int64]).unwrap();
        assert!(matches!(twice.load("keys", &mut tables), Err(Error::Incomplete(_))));
        let none = KeyIndex::new(vec![DataType::Int64]).unwrap();
        assert!(none.save("keys", &[], &mut tables).unwrap().is_empty());
        assert_eq!(KeyIndex::new(vec![DataType::Int64]).unwrap().load("keys", &mut tables).unwrap(), 0);
    }
}
