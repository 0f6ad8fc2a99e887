//! The keys of open windows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat, filter, is_null, not, or, take};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use millstream_state::{KeyIndex, Size, Tables};

use crate::Result;
use crate::event_time::count;
use crate::persistence::incomplete;

/// The maximum number of keys to close at once.
const KEYS: Size = Size::of(8192);

/// The keys of open windows, by the window's time. A window without a time never closes: its keys aren't
/// here.
#[derive(Debug)]
pub(super) struct OpenKeys {
    types: Vec<DataType>,
    /// The place of the window's time in the key.
    column: usize,
    kept: WindowKeys,
}

#[derive(Debug)]
enum WindowKeys {
    /// The new keys that the operator reports, in order of arrival, possibly with duplicates.
    Reported(BTreeMap<i64, Vec<Vec<ArrayRef>>>),
    /// The keys of the rows, if the operator doesn't report them: each once, with slots by the window's time.
    Indexed(Box<KeyIndex>, BTreeMap<i64, Vec<u32>>),
}

impl OpenKeys {
    /// Returns an empty set. `told` is true if the operator reports new keys.
    pub(super) fn new(types: Vec<DataType>, column: usize, told: bool) -> Result<OpenKeys> {
        let kept = match told {
            true => WindowKeys::Reported(BTreeMap::new()),
            false => WindowKeys::Indexed(Box::new(KeyIndex::new(types.clone())?), BTreeMap::new()),
        };
        Ok(OpenKeys { types, column, kept })
    }

    /// Records keys that the operator has reported.
    pub(super) fn told(&mut self, keys: Vec<ArrayRef>) -> Result<()> {
        let WindowKeys::Reported(open) = &mut self.kept else { return Ok(()) };
        let times = count(&keys[self.column])?;
        let mut rows: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (row, time) in times.iter().enumerate().filter_map(|(row, time)| Some((row, time?))) {
            rows.entry(time).or_default().push(row as u32);
        }
        for (time, rows) in rows {
            let rows = UInt32Array::from(rows);
            let some = keys.iter().map(|key| Ok(take(key, &rows, None)?)).collect::<Result<_>>()?;
            open.entry(time).or_default().push(some);
        }
        Ok(())
    }

    /// Records the keys of rows, if the operator doesn't report them; if `nulls_apart`, except those with a
    /// NULL.
    pub(super) fn see(&mut self, keys: &[ArrayRef], times: &Int64Array, nulls_apart: bool) -> Result<()> {
        let WindowKeys::Indexed(index, open) = &mut self.kept else { return Ok(()) };
        let mut slots = Vec::with_capacity(times.len());
        let apart = if nulls_apart { without_null(keys)? } else { None };
        let Some(kept) = apart else {
            let new = index.slots(keys, &mut slots)?;
            first_seen(&slots, &new, |row| times.is_valid(row).then(|| times.value(row)), open);
            return Ok(());
        };
        let keys = keys.iter().map(|key| Ok(filter(key, &kept)?)).collect::<Result<Vec<_>>>()?;
        let new = index.slots(&keys, &mut slots)?;
        let rows: Vec<usize> = (0..times.len()).filter(|row| kept.value(*row)).collect();
        first_seen(&slots, &new, |row| Some(times.value(rows[row])), open);
        Ok(())
    }

    /// Passes the keys of windows below a bound to `each`, some at a time and each once, in the order of the
    /// windows, and drops them.
    pub(super) fn close(
        &mut self,
        bound: i64,
        mut each: impl FnMut(&[ArrayRef]) -> Result<()>,
    ) -> Result<()> {
        match &mut self.kept {
            WindowKeys::Reported(open) => {
                let still_open = open.split_off(&bound);
                let closing: Vec<Vec<ArrayRef>> =
                    std::mem::replace(open, still_open).into_values().flatten().collect();
                if closing.is_empty() {
                    return Ok(());
                }
                // A group that was deleted and inserted again was reported twice.
                let mut once = KeyIndex::new(self.types.clone())?;
                let column = |at: usize| {
                    let parts: Vec<&dyn Array> = closing.iter().map(|keys| keys[at].as_ref()).collect();
                    Ok(concat(&parts)?)
                };
                let keys = (0..self.types.len()).map(column).collect::<Result<Vec<ArrayRef>>>()?;
                once.slots(&keys, &mut Vec::new())?;
                once.live().chunks(KEYS.get()).try_for_each(|slots| each(&once.keys(slots)?))
            }
            WindowKeys::Indexed(index, open) => {
                let still_open = open.split_off(&bound);
                let closing: Vec<u32> = std::mem::replace(open, still_open).into_values().flatten().collect();
                closing.chunks(KEYS.get()).try_for_each(|slots| {
                    each(&index.keys(slots)?)?;
                    slots.iter().for_each(|slot| index.free(*slot));
                    Ok(())
                })
            }
        }
    }

    /// Returns the time of the first open window.
    pub(super) fn first(&self) -> Option<i64> {
        match &self.kept {
            WindowKeys::Reported(open) => open.keys().next().copied(),
            WindowKeys::Indexed(_, open) => open.keys().next().copied(),
        }
    }

    /// Saves the keys, possibly with duplicates if the operator reports them.
    pub(super) fn save(&self, kept: &mut Tables) -> Result<()> {
        match &self.kept {
            WindowKeys::Reported(open) => {
                let field = |(at, data_type): (usize, &DataType)| {
                    Field::new(format!("key{at}"), data_type.clone(), true)
                };
                let schema =
                    Arc::new(Schema::new(self.types.iter().enumerate().map(field).collect::<Vec<_>>()));
                let batch = |keys: &Vec<ArrayRef>| RecordBatch::try_new(schema.clone(), keys.clone());
                let batches = open.values().flatten().map(batch).collect::<Result<_, ArrowError>>()?;
                kept.put("open_keys", batches);
            }
            WindowKeys::Indexed(index, _) => {
                index.save("open_keys", &[], kept)?;
            }
        }
        Ok(())
    }

    /// Loads saved keys. A key contains the time of its window.
    pub(super) fn load(&mut self, kept: &mut Tables) -> Result<()> {
        match &mut self.kept {
            WindowKeys::Reported(_) => {
                for batch in kept.take("open_keys")? {
                    let keys = batch.columns().to_vec();
                    if !keys.iter().map(|key| key.data_type()).eq(&self.types) {
                        return Err(incomplete("the keys of open windows have other types".into()));
                    }
                    self.told(keys)?;
                }
            }
            WindowKeys::Indexed(index, open) => {
                index.load("open_keys", kept)?;
                for slots in index.live().chunks(KEYS.get()) {
                    let times = count(&index.keys(slots)?[self.column])?;
                    for (slot, time) in
                        slots.iter().zip(&times).filter_map(|(slot, time)| Some((slot, time?)))
                    {
                        open.entry(time).or_default().push(*slot);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn reset(&mut self) -> Result<()> {
        let told = matches!(self.kept, WindowKeys::Reported(_));
        *self = OpenKeys::new(self.types.clone(), self.column, told)?;
        Ok(())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match &self.kept {
            WindowKeys::Reported(open) => {
                let arrays = open.values().flatten().flatten();
                arrays.map(|array| array.get_array_memory_size()).sum()
            }
            WindowKeys::Indexed(index, open) => {
                let slots: usize = open.values().map(|slots| slots.capacity() * size_of::<u32>()).sum();
                index.memory_bytes() + slots
            }
        }
    }
}

/// Records the windows' times for new keys, in the order of their first rows.
fn first_seen(
    slots: &[u32],
    new: &[u32],
    time: impl Fn(usize) -> Option<i64>,
    open: &mut BTreeMap<i64, Vec<u32>>,
) {
    let mut waiting = new.iter().peekable();
    for (row, slot) in slots.iter().enumerate() {
        let Some(next) = waiting.peek() else { break };
        if slot == *next {
            waiting.next();
            if let Some(time) = time(row) {
                open.entry(time).or_default().push(*slot);
            }
        }
    }
}

/// Returns a mask of the rows without a NULL in their key; `None` if that is all rows.
fn without_null(keys: &[ArrayRef]) -> Result<Option<BooleanArray>> {
    let mut null: Option<BooleanArray> = None;
    for key in keys.iter().filter(|key| key.logical_null_count() > 0) {
        let is_null = is_null(key)?;
        null = Some(match null {
            Some(null) => or(&null, &is_null)?,
            None => is_null,
        });
    }
    Ok(null.map(|null| not(&null)).transpose()?)
}
