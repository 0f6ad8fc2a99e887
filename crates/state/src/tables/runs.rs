//! Tables of which a checkpoint has only what has changed since the one before.
//!
//! What is kept by slot is told for the slots that something has changed of: table `_slots` says which, and which of them
//! are gone; each row of the others says of which slot it is. Rows with ids are told when they come; table `name._counts`
//! says how many copies there are later, 0 of those that are gone.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt32Type};

use super::Tables;
use crate::lineage::Run;
use crate::{Error, Result};

/// The table of the slots that are told of, and its columns: behind all others where a row is of a slot.
pub(crate) const SLOTS: &str = "_slots";
pub(crate) const SLOT: &str = "_slot";
pub(crate) const GONE: &str = "_gone";
/// The column of a row's id, behind all others.
pub(crate) const ROW: &str = "_row";
/// The table of what has become of rows, behind the name of theirs and a full stop.
pub(crate) const COUNTS: &str = "_counts";
/// The columns that say of which place among those that are saved a row is: where it is one of several of a group, and of
/// a key; and what stands there instead where slots are told.
pub(super) const PLACES: [(&str, &str); 2] = [("_group", "_slot_of_group"), ("_key", "_slot_of_key")];

impl Tables {
    /// Adds a table that is of a run, of which there may be nothing new. What is kept calls it `own`.
    pub(crate) fn put_run(&mut self, name: &str, own: &str, batches: Vec<RecordBatch>, run: &Run) {
        self.put(name, batches);
        self.runs.insert(name.to_string(), (own.to_string(), run.clone()));
    }

    /// The tables, also those of which there is nothing new, each with the run that it is of and what it is called there.
    pub fn parts(&self) -> impl Iterator<Item = (&str, &[RecordBatch], Option<(&str, &Run)>)> {
        let nothing: &[RecordBatch] = &[];
        let tables = self.tables.iter().map(move |(name, batches)| {
            (name.as_str(), &batches[..], self.runs.get(name).map(|(own, run)| (own.as_str(), run)))
        });
        let empty = self.runs.iter().filter(|(name, _)| !self.tables.contains_key(*name));
        tables.chain(empty.map(move |(name, (own, run))| (name.as_str(), nothing, Some((own.as_str(), run)))))
    }

    /// Says that all tables that are there and of no run are what these slots keep, and that others keep nothing any more.
    /// The tables of these names have a row a slot, in their order; others may also say with a column of places of which
    /// slot a row is.
    pub fn put_slots(&mut self, run: &Run, slots: &[u32], gone: &[u32], plain: &[&str]) -> Result<()> {
        let names: Vec<String> =
            self.tables.keys().filter(|name| !self.runs.contains_key(*name)).cloned().collect();
        for name in names {
            let batches = self.take(&name);
            let batches = match plain.contains(&name.as_str()) {
                true => None,
                false => with_slots_for_places(&name, &batches, slots)?,
            }
            .map_or_else(|| with_slots(&name, &batches, slots), Ok)?;
            self.put_run(&name, &name, batches, run);
        }
        let all = |slots: &[u32], is_gone: bool| {
            let fields =
                vec![Field::new(SLOT, DataType::UInt32, false), Field::new(GONE, DataType::Boolean, false)];
            let columns: Vec<ArrayRef> = vec![
                Arc::new(UInt32Array::from(slots.to_vec())),
                Arc::new(BooleanArray::from(vec![is_gone; slots.len()])),
            ];
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        };
        self.put_run(SLOTS, SLOTS, vec![all(slots, false)?, all(gone, true)?], run);
        Ok(())
    }

    /// Lets the rows of a table that is written whole say their slots instead of their places among these.
    pub fn place_by_slots(&mut self, name: &str, slots: impl Fn(usize) -> Option<u32>) -> Result<()> {
        let batches = self.take(name);
        let told = batches.iter().map(|batch| with_slots_for(name, batch, &slots)).collect::<Result<_>>()?;
        self.put(name, told);
        Ok(())
    }
}

/// The column of places that a table has, and which of [`PLACES`] it is.
fn place_column(batch: &RecordBatch) -> Option<(usize, usize)> {
    let schema = batch.schema_ref();
    let is = |at: usize, which: usize, data_type: DataType| {
        let field = schema.fields().get(at)?;
        (field.name() == PLACES[which].0 && *field.data_type() == data_type).then_some((at, which))
    };
    let columns = schema.fields().len();
    let group = (0..columns).find_map(|at| is(at, 0, DataType::UInt32));
    // Behind the key of rows their numbers stand, before the message of a key a column of its own.
    group.or_else(|| (0..columns).rev().find_map(|at| is(at, 1, DataType::Int64)))
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

/// Slots instead of places.
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

/// The numbers of a column that is one of places or slots.
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

/// Other numbers in the place of a column of numbers, of its type and under another name.
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

/// The slots of a table with a row each, as its last column.
fn with_slots(name: &str, batches: &[RecordBatch], slots: &[u32]) -> Result<Vec<RecordBatch>> {
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
        columns.push(Arc::new(UInt32Array::from(slots[start..start + batch.num_rows()].to_vec())));
        start += batch.num_rows();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    };
    batches.iter().map(with).collect()
}
