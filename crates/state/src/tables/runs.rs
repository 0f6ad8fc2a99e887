//! Tables of which a checkpoint holds only the changes since the previous one.
//!
//! State by slot is saved for the changed slots. The table `_slots` lists them, with a flag for slots that
//! hold no state any more; each row of the other tables refers to its slot. Rows with ids are saved when they
//! are added. The table `name._counts` holds their later numbers of copies, 0 for deleted rows.

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt32Type};

use super::{Batches, Tables};
use crate::lineage::Run;
use crate::{Error, Result};

/// The table of saved slots and its columns. In other tables, the slot column is the last one.
pub(crate) const SLOTS: &str = "_slots";
pub(crate) const SLOT: &str = "_slot";
pub(crate) const GONE: &str = "_gone";
/// The column of a row's id, after all others.
pub(crate) const ROW: &str = "_row";
/// The suffix, after a full stop, of the table with the changes of rows.
pub(crate) const COUNTS: &str = "_counts";
/// The columns that refer to a group or a key by its index among the saved ones. The second names replace
/// them if the table refers to slots.
pub(super) const PLACES: [(&str, &str); 2] = [("_group", "_slot_of_group"), ("_key", "_slot_of_key")];

/// The slots whose state a run saves, ascending, and those that hold no state any more. A reader of the tables may find
/// them.
pub struct RunSlots(LazyLock<Split, Box<dyn FnOnce() -> Split + Send>>);

struct Split {
    saved: UInt32Array,
    gone: UInt32Array,
}

impl RunSlots {
    /// Returns slots that `find` finds when they are needed: those saved, and those gone.
    pub fn later(find: impl FnOnce() -> (Vec<u32>, Vec<u32>) + Send + 'static) -> Arc<RunSlots> {
        let find = move || {
            let (saved, gone) = find();
            Split { saved: saved.into(), gone: gone.into() }
        };
        Arc::new(RunSlots(LazyLock::new(Box::new(find))))
    }

    /// Returns the slots whose state is saved.
    pub fn saved(&self) -> &[u32] {
        self.0.saved.values()
    }
}

impl From<(Vec<u32>, Vec<u32>)> for RunSlots {
    fn from(found: (Vec<u32>, Vec<u32>)) -> RunSlots {
        let (saved, gone) = found;
        RunSlots(LazyLock::new(Box::new(|| Split { saved: saved.into(), gone: gone.into() })))
    }
}

impl fmt::Debug for RunSlots {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RunSlots")
    }
}

impl Tables {
    /// Adds a table whose batches its reader builds, so that a large one holds nobody up. `build` must not depend on
    /// changes made meanwhile.
    pub fn put_later(
        &mut self,
        name: &str,
        build: impl Fn() -> Result<Vec<RecordBatch>> + Send + Sync + 'static,
    ) {
        self.tables.insert(name.to_string(), Batches::deferred(build));
    }

    /// Adds a table that belongs to a run, possibly without changes. `own` is its name within the run. Its
    /// reader builds the batches; `build` must not depend on changes made meanwhile.
    pub(crate) fn put_run(
        &mut self,
        name: &str,
        own: &str,
        build: impl Fn() -> Result<Vec<RecordBatch>> + Send + Sync + 'static,
        run: &Run,
    ) {
        self.put_later(name, build);
        self.runs.insert(name.to_string(), (own.to_string(), run.clone()));
    }

    /// Returns the tables, including those without changes, each with its name within its run, and the run.
    pub fn parts(&self) -> impl Iterator<Item = (&str, &Batches, Option<(&str, &Run)>)> {
        self.tables.iter().map(|(name, batches)| {
            (name.as_str(), batches, self.runs.get(name).map(|(own, run)| (own.as_str(), run)))
        })
    }

    /// Makes all tables that belong to no run the state of these slots. The tables named in `plain` have one row per
    /// slot, in order. Others may refer to slots by a column of indices. The reader of the tables adds the slots to their
    /// rows.
    pub fn put_slots(&mut self, run: &Run, slots: impl Into<Arc<RunSlots>>, plain: &[&str]) {
        let slots = slots.into();
        let of_no_run = |name: &String| !self.runs.contains_key(name);
        let names: Vec<String> = self.tables.keys().filter(|name| of_no_run(name)).cloned().collect();
        for name in names {
            let Some(batches) = self.tables.remove(&name) else { continue };
            let (slots, own, is_plain) = (slots.clone(), name.clone(), plain.contains(&name.as_str()));
            let build = move || of_slots(&own, &batches.get()?, &slots.0.saved, is_plain);
            self.put_run(&name, &name, build, run);
        }
        let build = move || {
            let Split { saved, gone } = &*slots.0;
            Ok(vec![told_slots(saved.clone(), false)?, told_slots(gone.clone(), true)?])
        };
        self.put_run(SLOTS, SLOTS, build, run);
    }

    /// Makes the rows of a table that is written completely refer to slots, instead of indices among these.
    pub fn place_by_slots(&mut self, name: &str, slots: impl Fn(usize) -> Option<u32>) -> Result<()> {
        let batches = self.take(name)?;
        let told = batches.iter().map(|batch| with_slots_for(name, batch, &slots)).collect::<Result<_>>()?;
        self.put(name, told);
        Ok(())
    }
}

/// Returns the table of slots, with a flag that is true for slots that hold no state any more.
fn told_slots(slots: UInt32Array, gone: bool) -> Result<RecordBatch> {
    let gone = match gone {
        true => BooleanBuffer::new_set(slots.len()),
        false => BooleanBuffer::new_unset(slots.len()),
    };
    slot_table(slots, BooleanArray::new(gone, None))
}

/// Returns the table of slots with their flags.
pub(super) fn slot_table(slots: UInt32Array, gone: BooleanArray) -> Result<RecordBatch> {
    let fields = vec![Field::new(SLOT, DataType::UInt32, false), Field::new(GONE, DataType::Boolean, false)];
    let columns: Vec<ArrayRef> = vec![Arc::new(slots), Arc::new(gone)];
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Returns a table of the state of these slots, with a column of slots.
fn of_slots(
    name: &str,
    batches: &[RecordBatch],
    slots: &UInt32Array,
    is_plain: bool,
) -> Result<Vec<RecordBatch>> {
    let with = match is_plain {
        true => None,
        false => with_slots_for_places(name, batches, slots.values())?,
    };
    with.map_or_else(|| with_slots(name, batches, slots), Ok)
}

/// Returns the column of indices of a table, and the [`PLACES`] entry that it is.
fn place_column(batch: &RecordBatch) -> Option<(usize, usize)> {
    let schema = batch.schema_ref();
    let is = |at: usize, which: usize, types: &[DataType]| {
        let field = schema.fields().get(at)?;
        (field.name() == PLACES[which].0 && types.contains(field.data_type())).then_some((at, which))
    };
    let columns = schema.fields().len();
    let group = (0..columns).find_map(|at| is(at, 0, &[DataType::UInt32]));
    // `_key` is not the last column: counts follow it in a table of rows, a message in a table of failed
    // keys. The search from the end skips columns of the rows with that name.
    group.or_else(|| (0..columns).rev().find_map(|at| is(at, 1, &[DataType::Int64, DataType::UInt32])))
}

fn with_slots_for_places(
    name: &str,
    batches: &[RecordBatch],
    slots: &[u32],
) -> Result<Option<Vec<RecordBatch>>> {
    if batches.iter().any(|batch| place_column(batch).is_none()) {
        return Ok(None);
    }
    let slot = |place: usize| slots.get(place).copied();
    batches.iter().map(|batch| with_slots_for(name, batch, slot)).collect::<Result<_>>().map(Some)
}

/// Replaces indices by slots.
fn with_slots_for(
    name: &str,
    batch: &RecordBatch,
    slot: impl Fn(usize) -> Option<u32>,
) -> Result<RecordBatch> {
    let unknown = || Error::Incomplete(format!("a row of table '{name}' is of no slot"));
    let (at, which) = place_column(batch).ok_or_else(unknown)?;
    let told = numbers(batch.column(at)).into_iter().map(|place| slot(place? as usize));
    replaced(batch, at, PLACES[which].1, told.collect::<Option<Vec<u32>>>().ok_or_else(unknown)?)
}

/// Returns the numbers of a column of indices or slots.
pub(super) fn numbers(column: &ArrayRef) -> Vec<Option<u64>> {
    match column.as_primitive_opt::<UInt32Type>() {
        Some(numbers) => numbers.iter().map(|number| number.map(u64::from)).collect(),
        None => match column.as_primitive_opt::<Int64Type>() {
            Some(numbers) => {
                numbers.iter().map(|number| number.and_then(|number| number.try_into().ok())).collect()
            }
            None => vec![None; column.len()],
        },
    }
}

/// Replaces a column of numbers by others of its type, under another name.
pub(super) fn replaced(batch: &RecordBatch, at: usize, name: &str, with: Vec<u32>) -> Result<RecordBatch> {
    let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
    let mut columns = batch.columns().to_vec();
    columns[at] = match fields[at].data_type() {
        DataType::UInt32 => Arc::new(UInt32Array::from(with)),
        _ => Arc::new(Int64Array::from_iter_values(with.into_iter().map(i64::from))),
    };
    fields[at] = Arc::new(fields[at].as_ref().clone().with_name(name));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Appends the slots as the last column of a table with one row per slot.
fn with_slots(name: &str, batches: &[RecordBatch], slots: &UInt32Array) -> Result<Vec<RecordBatch>> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if rows != slots.len() {
        let count = slots.len();
        return Err(Error::Incomplete(format!("table '{name}' has {rows} rows for {count} slots")));
    }
    let mut start = 0;
    let with = |batch: &RecordBatch| {
        let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(SLOT, DataType::UInt32, false)));
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(slots.slice(start, batch.num_rows())));
        start += batch.num_rows();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    };
    batches.iter().map(with).collect()
}
