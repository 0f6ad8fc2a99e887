//! Saving and loading keys as a table.
//!
//! If many keys are to be saved, the index shares its memory with the thread that writes the table. So a save takes time
//! in proportion to the pages, not to the keys.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};

use super::{KeyIndex, cast_to};
use crate::{Error, Result, Run, RunSlots, Size, SlotMarks, Tables, TouchedSlots};

/// Number of keys in a batch.
const KEYS: Size = Size::of(65_536);

/// As many changed keys or more are saved by the thread that writes the table.
const LATER: Size = Size::of(16_384);

/// The keys of an index as of one moment. The index and they read the same memory; the index copies a page of it before
/// it changes the page.
#[derive(Debug)]
pub struct SavedKeys {
    keys: KeyIndex,
    names: Vec<String>,
    /// The slots that a checkpoint needs; `None`: all.
    touched: Option<TouchedSlots>,
}

impl KeyIndex {
    /// Adds all keys as a table, with these column names as far as given, and returns their slots. Save other
    /// data by slot in the order of these slots, which is the order of the table.
    pub fn save(&self, name: &str, names: &[&str], to: &mut Tables) -> Result<Vec<u32>> {
        let slots = self.live();
        self.save_some(&slots, name, names, to)?;
        Ok(slots)
    }

    /// Like [`KeyIndex::save`], for the keys of these slots, each of which has one.
    pub fn save_some(
        &self,
        slots: &[u32],
        name: &str,
        names: &[impl AsRef<str>],
        to: &mut Tables,
    ) -> Result<()> {
        to.put(name, self.batches(slots, names)?);
        Ok(())
    }

    /// Returns the keys of these slots as a table with these column names as far as given.
    fn batches(&self, slots: &[u32], names: &[impl AsRef<str>]) -> Result<Vec<RecordBatch>> {
        let field = |(at, data_type): (usize, &DataType)| {
            let name = names.get(at).map_or_else(|| format!("key{at}"), |name| name.as_ref().to_string());
            Field::new(name, data_type.clone(), true)
        };
        let schema = Arc::new(Schema::new(self.kept.iter().enumerate().map(field).collect::<Vec<_>>()));
        let mut batches = Vec::with_capacity(slots.len().div_ceil(KEYS.get()));
        for some in slots.chunks(KEYS.get()) {
            // Dictionaries are decoded: their key type may be too small for so many values at once.
            let columns = self.kept_keys(some)?.into_iter().zip(&self.kept);
            let columns = columns.map(|(column, kept)| cast_to(column, kept)).collect::<Result<Vec<_>>>()?;
            batches.push(RecordBatch::try_new(schema.clone(), columns)?);
        }
        Ok(batches)
    }

    /// Returns the slots that a run saves of the state by key: those with a key, and those without.
    pub fn changed_slots(&self, marks: &SlotMarks, run: &Run) -> (Vec<u32>, Vec<u32>) {
        match run.is_whole() {
            true => (self.live(), Vec::new()),
            false => self.live_among(marks.touched(run)),
        }
    }

    /// Returns the keys for a thread that saves those that a run needs, if they are many. The column names are given as
    /// for [`KeyIndex::save`].
    pub fn saved_later(
        &self,
        marks: &SlotMarks,
        run: &Run,
        names: &[impl AsRef<str>],
    ) -> Result<Option<Arc<SavedKeys>>> {
        let touched = (!run.is_whole()).then(|| marks.touched_bits(run));
        if touched.as_ref().map_or(self.len(), TouchedSlots::count) < LATER.get() {
            return Ok(None);
        }
        let names = names.iter().map(|name| name.as_ref().to_string()).collect();
        Ok(Some(Arc::new(SavedKeys { keys: self.share_keys()?, names, touched })))
    }

    /// Adds the keys added and freed since the newest checkpoint as tables, or all keys if the checkpoint
    /// holds the complete state. The index must be tracked.
    pub fn save_changed(&self, name: &str, names: &[&str], to: &mut Tables) -> Result<()> {
        let none_beside = |_: &[u32], _: &mut Tables| Ok(());
        let Some(marks) = &self.marks else { return self.save_changed_with(name, names, none_beside, to) };
        let run = marks.run();
        let mut saved = Tables::default();
        match self.saved_later(marks, &run, names)? {
            Some(keys) => {
                let slots = keys.put(name, &mut saved);
                saved.put_slots(&run, slots, &[name]);
            }
            None => {
                let changed = self.changed_slots(marks, &run);
                self.save_some(&changed.0, name, names, &mut saved)?;
                saved.put_slots(&run, RunSlots::from(changed), &[name]);
            }
        }
        to.put_all(saved);
        Ok(())
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
        let changed = self.changed_slots(marks, &run);
        let mut keys = Tables::default();
        self.save_some(&changed.0, name, names, &mut keys)?;
        beside(&changed.0, &mut keys)?;
        keys.put_slots(&run, RunSlots::from(changed), &[name]);
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

impl SavedKeys {
    /// Adds the keys as a table that its reader builds, and returns their slots, which are found then. Others can save
    /// more state of these slots in the same way.
    pub fn put(self: Arc<SavedKeys>, name: &str, to: &mut Tables) -> Arc<RunSlots> {
        let keys = self.clone();
        let slots = RunSlots::later(move || match &keys.touched {
            None => (keys.keys.live(), Vec::new()),
            Some(touched) => keys.keys.live_among(touched.slots()),
        });
        let of = slots.clone();
        to.put_later(name, move || self.keys.batches(of.saved(), &self.names));
        slots
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, DictionaryArray, Float64Array, Int64Array, StringArray};
    use arrow::datatypes::Int8Type;

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
