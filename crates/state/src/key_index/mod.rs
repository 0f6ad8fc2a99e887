//! Distinct keys, numbered.

mod bytes;
mod encoded;
mod fixed;
mod paned;
mod saving;
mod slots;
mod table;
mod text;

use std::hash::BuildHasher;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use foldhash::fast::{FixedState, FoldHasher};

use crate::{Result, Size, SlotMarks, Spillable, Spilling};
use encoded::EncodedKeys;
use fixed::{FixedKeys, Layout};
use paned::PanedKeys;
pub use saving::SavedKeys;
pub(crate) use slots::Slots;
pub(crate) use table::SlotTable;
use text::TextKeys;

/// The slot of a missing key.
pub const NO_SLOT: u32 = u32::MAX;

/// Number of rows hashed before they are looked up.
const WINDOW_ROWS: Size = Size::of(1024);

/// A fixed seed, so that runs are reproducible.
const HASHES: FixedState = FixedState::with_seed(0x6b65_7973);

#[inline]
fn hasher() -> FoldHasher<'static> {
    HASHES.build_hasher()
}

/// Numbers the distinct keys of one or more columns. Each key has a *slot*, a small number by which its owner
/// addresses columns of its own.
///
/// NULL is a key like any other, 0.0 and -0.0 are one key, and so are all NaNs. Slots depend on the order in
/// which keys are added and freed, never on their hashes. Slots of freed keys are reused.
///
/// Keys of fixed width up to 32 bytes are stored in pages by slot, and so are short texts; longer keys are
/// stored in pages of their own. A hash table returns the candidate slots of a key. Columns of panes are
/// separated first, see [`KeyIndex::tell_apart`]. All structures grow and shrink by a bounded amount at a
/// time, and may be spilled.
#[derive(Debug)]
pub struct KeyIndex {
    /// The types of the columns in arguments and results.
    types: Vec<DataType>,
    /// The types stored: a dictionary's value type instead of a dictionary.
    kept: Vec<DataType>,
    /// The indices of the pane columns.
    panes: Vec<usize>,
    keys: Keys,
    /// The slots whose keys were added or freed since checkpoints, if the index is tracked.
    marks: Option<SlotMarks>,
}

#[derive(Debug)]
enum Keys {
    One(FixedKeys<1>),
    Two(FixedKeys<2>),
    Three(FixedKeys<3>),
    Four(FixedKeys<4>),
    Text(TextKeys),
    Encoded(EncodedKeys),
    Paned(Box<PanedKeys>),
}

/// The result for a batch of keys.
#[derive(Default)]
struct Found {
    slots: Vec<u32>,
    new: Vec<u32>,
}

impl KeyIndex {
    /// Returns an index of keys of these types, at least one.
    pub fn new(types: Vec<DataType>) -> Result<KeyIndex> {
        let kept: Vec<DataType> =
            types.iter().map(|data_type| dictionary_values(data_type).clone()).collect();
        let layout = Layout::of(&kept);
        let text = if let [data_type] = &kept[..] { TextKeys::of(data_type) } else { None };
        let keys = match (layout, text) {
            (Some(layout), _) if layout.words == 1 => Keys::One(FixedKeys::new(layout)),
            (Some(layout), _) if layout.words == 2 => Keys::Two(FixedKeys::new(layout)),
            (Some(layout), _) if layout.words == 3 => Keys::Three(FixedKeys::new(layout)),
            (Some(layout), _) => Keys::Four(FixedKeys::new(layout)),
            (None, Some(text)) => Keys::Text(text),
            (None, None) => Keys::Encoded(EncodedKeys::new(&kept)?),
        };
        Ok(KeyIndex { types, kept, panes: Vec::new(), keys, marks: None })
    }

    /// Returns a copy in memory with the same slots. A copy that tracks changes begins with the complete state.
    pub fn try_clone(&self) -> Result<KeyIndex> {
        let keys = match &self.keys {
            Keys::One(keys) => Keys::One(keys.clone()),
            Keys::Two(keys) => Keys::Two(keys.clone()),
            Keys::Three(keys) => Keys::Three(keys.clone()),
            Keys::Four(keys) => Keys::Four(keys.clone()),
            Keys::Text(keys) => Keys::Text(keys.clone()),
            Keys::Encoded(keys) => Keys::Encoded(keys.try_clone(&self.kept)?),
            Keys::Paned(keys) => Keys::Paned(Box::new(keys.try_clone()?)),
        };
        let (types, kept, panes) = (self.types.clone(), self.kept.clone(), self.panes.clone());
        Ok(KeyIndex { types, kept, panes, keys, marks: self.marks.as_ref().map(|_| SlotMarks::default()) })
    }

    /// Returns an index that reads the same keys by slot but finds none, and that tracks no changes.
    fn share_keys(&self) -> Result<KeyIndex> {
        let keys = match &self.keys {
            Keys::One(keys) => Keys::One(keys.share()),
            Keys::Two(keys) => Keys::Two(keys.share()),
            Keys::Three(keys) => Keys::Three(keys.share()),
            Keys::Four(keys) => Keys::Four(keys.share()),
            Keys::Text(keys) => Keys::Text(keys.share()),
            Keys::Encoded(keys) => Keys::Encoded(keys.share(&self.kept)?),
            Keys::Paned(keys) => Keys::Paned(Box::new(keys.share()?)),
        };
        let (types, kept, panes) = (self.types.clone(), self.kept.clone(), self.panes.clone());
        Ok(KeyIndex { types, kept, panes, keys, marks: None })
    }

    /// Returns the types of the key's columns.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Makes the index track changes since checkpoints.
    pub fn tracked(mut self) -> KeyIndex {
        self.marks = Some(SlotMarks::default());
        self
    }

    /// Separates keys first by the columns at these indices, which together have few values at a time, such
    /// as time windows. The index must be empty.
    pub fn tell_apart(&mut self, columns: &[usize]) {
        let of_pane: Vec<bool> = (0..self.types.len()).map(|column| columns.contains(&column)).collect();
        if of_pane.contains(&true)
            && of_pane.contains(&false)
            && let Ok(keys) = PanedKeys::new(&self.kept, &of_pane)
        {
            (self.keys, self.panes) = (Keys::Paned(Box::new(keys)), columns.to_vec());
        }
    }

    /// Finds the slots of all rows and appends them to `out`; new keys get a slot. Returns the new slots in
    /// order of appearance. An error leaves the keys unchanged.
    pub fn slots(&mut self, columns: &[ArrayRef], out: &mut Vec<u32>) -> Result<Vec<u32>> {
        let columns = self.kept_columns(columns)?;
        let mut found = Found { slots: std::mem::take(out), new: Vec::new() };
        found.slots.reserve(columns[0].len());
        let done = match &mut self.keys {
            Keys::One(keys) => keys.insert(&columns, &mut found),
            Keys::Two(keys) => keys.insert(&columns, &mut found),
            Keys::Three(keys) => keys.insert(&columns, &mut found),
            Keys::Four(keys) => keys.insert(&columns, &mut found),
            Keys::Text(keys) => keys.insert(&columns[0], &mut found),
            Keys::Encoded(keys) => keys.insert(&columns, &mut found),
            Keys::Paned(keys) => keys.insert(&columns, &mut found),
        };
        *out = found.slots;
        if let Err(error) = done {
            found.new.iter().for_each(|slot| self.free(*slot));
            return Err(error);
        }
        if let Some(marks) = self.marks.as_mut().filter(|_| !found.new.is_empty()) {
            marks.touch_all(found.new.iter().copied());
        }
        Ok(found.new)
    }

    /// Finds the slots of all rows and appends them to `out`, with [`NO_SLOT`] for missing keys.
    pub fn find(&self, columns: &[ArrayRef], out: &mut Vec<u32>) -> Result<()> {
        let columns = self.kept_columns(columns)?;
        match &self.keys {
            Keys::One(keys) => keys.find(&columns, out),
            Keys::Two(keys) => keys.find(&columns, out),
            Keys::Three(keys) => keys.find(&columns, out),
            Keys::Four(keys) => keys.find(&columns, out),
            Keys::Text(keys) => keys.find(&columns[0], out)?,
            Keys::Encoded(keys) => keys.find(&columns, out)?,
            Keys::Paned(keys) => keys.find(&columns, out)?,
        }
        Ok(())
    }

    /// Assigns slots to the keys of those rows that [`KeyIndex::find`] found no slot for, in the order of the
    /// rows.
    pub fn settle(&mut self, columns: &[ArrayRef], slots: &mut [u32]) -> Result<()> {
        let missing: Vec<u32> =
            (0..slots.len() as u32).filter(|row| slots[*row as usize] == NO_SLOT).collect();
        let mut found = Vec::with_capacity(missing.len());
        if missing.len() == slots.len() {
            self.slots(columns, &mut found)?;
        } else if !missing.is_empty() {
            let rows = UInt32Array::from(missing.clone());
            let columns = columns.iter().map(|column| take(column, &rows, None));
            let columns = columns.collect::<std::result::Result<Vec<_>, ArrowError>>()?;
            self.slots(&columns, &mut found)?;
        }
        missing.iter().zip(found).for_each(|(row, slot)| slots[*row as usize] = slot);
        Ok(())
    }

    /// Removes a key. Its slot will be reused.
    pub fn free(&mut self, slot: u32) {
        if let Some(marks) = &mut self.marks {
            marks.touch(slot);
        }
        match &mut self.keys {
            Keys::One(keys) => keys.free(slot),
            Keys::Two(keys) => keys.free(slot),
            Keys::Three(keys) => keys.free(slot),
            Keys::Four(keys) => keys.free(slot),
            Keys::Text(keys) => keys.table.free(slot),
            Keys::Encoded(keys) => keys.table.free(slot),
            Keys::Paned(keys) => keys.free(slot),
        }
    }

    /// Returns the key columns of these slots, in their original types.
    pub fn keys(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let columns = self.kept_keys(slots)?.into_iter();
        columns.zip(&self.types).map(|(column, data_type)| cast_to(column, data_type)).collect()
    }

    fn kept_keys(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        match &self.keys {
            Keys::One(keys) => keys.keys(slots),
            Keys::Two(keys) => keys.keys(slots),
            Keys::Three(keys) => keys.keys(slots),
            Keys::Four(keys) => keys.keys(slots),
            Keys::Text(keys) => keys.keys(slots),
            Keys::Encoded(keys) => keys.keys(slots),
            Keys::Paned(keys) => keys.keys(slots),
        }
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.taken().taken()
    }

    /// Returns true if the index has no keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the end of the slots: every slot is below it.
    pub fn slots_end(&self) -> usize {
        self.taken().end()
    }

    /// Returns the slots of all keys, ascending.
    pub fn live(&self) -> Vec<u32> {
        self.taken().live()
    }

    /// Splits these slots, ascending, into those with a key and those without.
    pub fn live_among(&self, slots: Vec<u32>) -> (Vec<u32>, Vec<u32>) {
        self.taken().live_among(slots)
    }

    /// Returns the approximate memory of the index in bytes.
    pub fn memory_bytes(&self) -> usize {
        match &self.keys {
            Keys::One(keys) => keys.memory_bytes(),
            Keys::Two(keys) => keys.memory_bytes(),
            Keys::Three(keys) => keys.memory_bytes(),
            Keys::Four(keys) => keys.memory_bytes(),
            Keys::Text(keys) => keys.table.memory_bytes(),
            Keys::Encoded(keys) => keys.table.memory_bytes(),
            Keys::Paned(keys) => keys.memory_bytes(),
        }
    }

    fn taken(&self) -> &Slots {
        match &self.keys {
            Keys::One(keys) => keys.slots(),
            Keys::Two(keys) => keys.slots(),
            Keys::Three(keys) => keys.slots(),
            Keys::Four(keys) => keys.slots(),
            Keys::Text(keys) => keys.table.slots(),
            Keys::Encoded(keys) => keys.table.slots(),
            Keys::Paned(keys) => keys.slots(),
        }
    }

    fn kept_columns(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        columns.iter().zip(&self.kept).map(|(column, kept)| cast_to(column.clone(), kept)).collect()
    }
}

impl Spillable for KeyIndex {
    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        match &mut self.keys {
            Keys::One(keys) => keys.spill(spilling),
            Keys::Two(keys) => keys.spill(spilling),
            Keys::Three(keys) => keys.spill(spilling),
            Keys::Four(keys) => keys.spill(spilling),
            Keys::Text(keys) => keys.table.spill(spilling),
            Keys::Encoded(keys) => keys.table.spill(spilling),
            Keys::Paned(keys) => keys.spill(spilling),
        }
    }

    fn spilled_bytes(&self) -> usize {
        match &self.keys {
            Keys::One(keys) => keys.spilled_bytes(),
            Keys::Two(keys) => keys.spilled_bytes(),
            Keys::Three(keys) => keys.spilled_bytes(),
            Keys::Four(keys) => keys.spilled_bytes(),
            Keys::Text(keys) => keys.table.spilled_bytes(),
            Keys::Encoded(keys) => keys.table.spilled_bytes(),
            Keys::Paned(keys) => keys.spilled_bytes(),
        }
    }
}

fn dictionary_values(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => dictionary_values(values),
        data_type => data_type,
    }
}

fn cast_to(column: ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    Ok(if column.data_type() == data_type { column } else { cast(&column, data_type)? })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray, StructArray};
    use arrow::datatypes::{Field, IntervalUnit, TimeUnit};
    use arrow::util::display::{ArrayFormatter, FormatOptions};

    use super::*;
    use millstream_seeds::Random;

    /// Returns values of a type, with NULLs; the same number gives the same value.
    fn column(data_type: &DataType, numbers: &[Option<u64>]) -> ArrayRef {
        if data_type.is_floating() {
            let special =
                [0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::from_bits(0x7ff8_0000_0000_0001)];
            let values: Float64Array = numbers
                .iter()
                .map(|n| n.map(|n| special.get(n as usize).copied().unwrap_or(n as f64 / 4.0)))
                .collect();
            return cast(&values, data_type).unwrap();
        }
        if let DataType::Struct(fields) = data_type {
            let columns = fields.iter().map(|field| column(field.data_type(), numbers)).collect();
            let nulls = numbers.iter().map(|n| n.is_some()).collect();
            return Arc::new(StructArray::new(fields.clone(), columns, Some(nulls)));
        }
        let text: StringArray = numbers
            .iter()
            .map(|n| n.map(|n| if n % 3 == 0 { format!("{n}") } else { format!("a text that is long, {n}") }))
            .collect();
        let integers: Int64Array = numbers.iter().map(|n| n.map(|n| n as i64 % 100 - 3)).collect();
        match dictionary_values(data_type) {
            DataType::Null => arrow::array::new_null_array(data_type, numbers.len()),
            DataType::Boolean => cast(&cast(&integers, &DataType::Int32).unwrap(), data_type).unwrap(),
            DataType::Interval(_) => {
                let months = cast(&integers, &DataType::Int32).unwrap();
                let months = cast(&months, &DataType::Interval(IntervalUnit::YearMonth)).unwrap();
                cast(&months, data_type).unwrap()
            }
            DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView => cast(&text, data_type).unwrap(),
            DataType::Date32 | DataType::Time32(_) => {
                cast(&cast(&integers, &DataType::Int32).unwrap(), data_type).unwrap()
            }
            _ => cast(&integers, data_type).unwrap(),
        }
    }

    fn combinations() -> Vec<Vec<DataType>> {
        use DataType::*;
        let dictionary = Dictionary(Box::new(Int8), Box::new(Utf8));
        let nested = Struct(vec![Field::new("x", Float64, true), Field::new("t", Utf8View, true)].into());
        vec![
            vec![Int64],
            vec![Boolean],
            vec![UInt8],
            vec![Int16],
            vec![Float16],
            vec![Float32],
            vec![Float64],
            vec![Date32],
            vec![Timestamp(TimeUnit::Microsecond, Some("+01:00".into()))],
            vec![Interval(IntervalUnit::MonthDayNano)],
            vec![Decimal128(12, 2)],
            vec![Decimal256(50, 2)],
            vec![Utf8],
            vec![LargeUtf8],
            vec![Utf8View],
            vec![Binary],
            vec![LargeBinary],
            vec![BinaryView],
            vec![dictionary.clone()],
            vec![Int32, Int16],
            vec![Int8, Float64, Boolean],
            vec![Int64, Int64],
            vec![Decimal128(12, 2), Int64, Float32],
            vec![Int64, Utf8],
            vec![Int64, Utf8, Int16, Decimal128(12, 2)],
            vec![Float64, dictionary],
            vec![nested.clone()],
            vec![nested, Null],
        ]
    }

    /// Returns the keys as text, equal for equal keys.
    fn plain(columns: &[ArrayRef]) -> Vec<String> {
        let options = FormatOptions::new().with_null("NULL");
        let formats: Vec<_> = columns
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
            .collect();
        let value = |format: &ArrayFormatter<'_>, row| match format.value(row).to_string().as_str() {
            "-0" => "0".to_string(),
            text => text.replace("-0.0", "0.0").replace("-NaN", "NaN"),
        };
        let row = |row| formats.iter().map(|format| value(format, row)).collect::<Vec<_>>().join("|");
        (0..columns[0].len()).map(row).collect()
    }

    #[test]
    fn keys_of_every_type_keep_their_slots_until_they_are_freed() {
        let panes = |types: &Vec<DataType>| {
            let few = |of: &DataType| matches!(of, DataType::Int16 | DataType::Int64 | DataType::Boolean);
            types.iter().enumerate().filter(|(_, of)| few(of)).map(|(at, _)| at).collect::<Vec<_>>()
        };
        let plain_and_paned = combinations()
            .into_iter()
            .flat_map(|types| [(types.clone(), vec![]), (types.clone(), panes(&types))]);
        for (seed, (types, panes)) in plain_and_paned.enumerate() {
            let mut random = Random(seed as u64);
            let mut index = KeyIndex::new(types.clone()).unwrap();
            index.tell_apart(&panes);
            let mut expected: HashMap<String, u32> = HashMap::new();
            for round in 0..12 {
                let rows = [0, 1, 30, 3000][random.below(4) as usize];
                let columns: Vec<ArrayRef> = types
                    .iter()
                    .map(|data_type| {
                        let mut number = || Some(random.below(90)).filter(|n| *n != 17);
                        let numbers: Vec<_> = (0..rows + 2).map(|_| number()).collect();
                        // The slice tests that offsets are respected.
                        column(data_type, &numbers).slice(1, rows)
                    })
                    .collect();
                let names = plain(&columns);

                let mut found = Vec::new();
                index.find(&columns, &mut found).unwrap();
                let known: Vec<u32> =
                    names.iter().map(|n| expected.get(n).copied().unwrap_or(NO_SLOT)).collect();
                assert_eq!(found, known, "{types:?}, round {round}");

                let mut slots = vec![77];
                let new = if round % 2 == 0 {
                    index.slots(&columns, &mut slots).unwrap()
                } else {
                    let (mut settled, before) = (found.clone(), index.live());
                    index.settle(&columns, &mut settled).unwrap();
                    slots.extend(&settled);
                    let mut new: Vec<u32> = Vec::new();
                    for slot in settled.into_iter().filter(|slot| before.binary_search(slot).is_err()) {
                        if !new.contains(&slot) {
                            new.push(slot);
                        }
                    }
                    new
                };
                assert_eq!((slots.remove(0), slots.len()), (77, rows));
                let mut appeared = Vec::new();
                for (name, slot) in names.iter().zip(&slots) {
                    if expected.insert(name.clone(), *slot).is_none() {
                        appeared.push(*slot);
                    }
                    assert_eq!(expected[name], *slot, "{types:?}, {name}");
                }
                assert_eq!(new, appeared, "{types:?}");
                let mut distinct: Vec<u32> = expected.values().copied().collect();
                distinct.sort_unstable();
                assert_eq!(index.live(), distinct, "{types:?}");
                assert_eq!(index.len(), distinct.len());

                let keys = index.keys(&slots).unwrap();
                assert_eq!(plain(&keys), names, "{types:?}");
                assert!(keys.iter().zip(&types).all(|(key, data_type)| key.data_type() == data_type));

                expected.retain(|_, slot| {
                    let kept = random.below(3) > 0;
                    if !kept {
                        index.free(*slot);
                    }
                    kept
                });
                // A copy goes on as the index itself would; what the index does then is nothing to it.
                let copy = index.try_clone().unwrap();
                assert_eq!(copy.live(), index.live());
                for slot in index.live() {
                    index.free(slot);
                }
                index = copy;
            }
            assert!(index.memory_bytes() > 0);
        }
    }

    #[test]
    fn keys_that_are_gone_leave_no_memory_behind() {
        let mut index = KeyIndex::new(vec![DataType::Utf8]).unwrap();
        let mut bytes = Vec::new();
        for round in 0..60u64 {
            let keys: StringArray = (0..2000).map(|n| Some(format!("{:>100}", round * 2000 + n))).collect();
            let mut slots = Vec::new();
            index.slots(&[Arc::new(keys.clone())], &mut slots).unwrap();
            let back = index.keys(&slots).unwrap();
            assert_eq!(back[0].as_ref(), &keys as &dyn Array);
            slots.iter().skip(1).for_each(|slot| index.free(*slot));
            bytes.push(index.memory_bytes());
        }
        assert_eq!(index.len(), 60);
        assert!(bytes[59] < 3 << 20, "{bytes:?}");
    }

    #[test]
    fn zero_and_not_a_number_are_one_key_each() {
        let values = Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]);
        for types in [vec![DataType::Float64], vec![DataType::Float64, DataType::Utf8]] {
            let text: ArrayRef = Arc::new(StringArray::from(vec!["t"; 4]));
            let columns = [Arc::new(values.clone()) as ArrayRef, text];
            let mut index = KeyIndex::new(types.clone()).unwrap();
            let mut slots = Vec::new();
            index.slots(&columns[..types.len()], &mut slots).unwrap();
            assert_eq!(slots, [0, 0, 1, 1]);
            let keys = index.keys(&[0]).unwrap();
            let zero = Float64Array::from(keys[0].to_data()).value(0);
            assert!(zero == 0.0 && zero.is_sign_positive());
        }
    }
}
