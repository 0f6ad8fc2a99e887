//! Merging several runs of the same tables into one run, which can be merged with earlier and later ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema};

use super::{COUNTS, Family, GONE, ROW, Runs, SLOT, SLOTS, TALLY, Told, WEIGHT};
use super::{changes_of, has, number_column, numbers};
use crate::Result;
use crate::tables::missing;
use crate::tables::runs::slot_table;

/// The changes of rows by id, as returned by `changes_of`.
type Changes = BTreeMap<i64, (i64, i64)>;

impl Runs {
    /// Merges these runs, consecutive ones of one lineage, into the content that the last of them could have
    /// had. The tables have their names within the lineage.
    pub fn into_one(mut self) -> Result<BTreeMap<String, Vec<RecordBatch>>> {
        self.tables.values_mut().for_each(|told| told.sort_by_key(|(of, _)| *of));
        let mut one = BTreeMap::new();
        let slots = self.tables.remove(SLOTS).unwrap_or_default();
        let family = Family::new(SLOTS, &slots)?;
        if !slots.is_empty() {
            one.insert(SLOTS.to_string(), vec![slots_of(&slots)?]);
        }
        let ending = format!(".{COUNTS}");
        let (mut counts, tables): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.tables.into_iter().partition(|(name, _)| name.ends_with(&ending));
        for (name, told) in tables {
            let first = told.iter().flat_map(|(_, batches)| batches).next();
            let Some(last) = first.and_then(|batch| batch.schema_ref().fields().last().cloned()) else {
                continue;
            };
            if last.name() != ROW {
                one.insert(name.clone(), family.newest(&name, told)?);
                continue;
            }
            let of_counts = format!("{name}{ending}");
            let mut changes = changes_of(&name, &counts.remove(&of_counts).unwrap_or_default())?;
            one.insert(name.clone(), rows_left(&name, told, &mut changes)?);
            one.insert(of_counts, vec![told_changes(&changes)?]);
        }
        for (name, told) in counts {
            one.insert(name.clone(), vec![told_changes(&changes_of(&name, &told)?)?]);
        }
        one.values_mut().for_each(|batches| batches.retain(|batch| batch.num_rows() > 0));
        one.retain(|_, batches| !batches.is_empty());
        Ok(one)
    }
}

/// Returns the recorded slots, with a flag for those that hold no state in the end.
fn slots_of(told: &Told) -> Result<RecordBatch> {
    let mut all = BTreeMap::new();
    for batch in told.iter().flat_map(|(_, batches)| batches) {
        let lacks = |column: &str| missing(SLOTS, column);
        let slots = numbers(batch.column_by_name(SLOT).ok_or_else(|| lacks(SLOT))?);
        let gone = batch.column_by_name(GONE).and_then(|gone| gone.as_boolean_opt());
        for (slot, gone) in slots.into_iter().zip(gone.ok_or_else(|| lacks(GONE))?) {
            all.insert(slot.ok_or_else(|| lacks(SLOT))? as u32, gone == Some(true));
        }
    }
    let (slots, gone): (Vec<u32>, Vec<bool>) = all.into_iter().unzip();
    slot_table(slots.into(), gone.into())
}

/// Returns the added rows that still exist. Removes the changes of the others.
fn rows_left(name: &str, told: Told, changes: &mut Changes) -> Result<Vec<RecordBatch>> {
    let batches: Vec<RecordBatch> = told.into_iter().flat_map(|(_, batches)| batches).collect();
    let tallied = batches.iter().any(|batch| has(batch, 2, TALLY));
    let mut left = Vec::with_capacity(batches.len());
    for batch in batches {
        let ids = number_column(name, &batch, ROW)?;
        let is_gone = |id: &i64| changes.get(id).is_some_and(|(weight, _)| *weight == 0);
        let live: BooleanArray = ids.values().iter().map(|id| Some(!is_gone(id))).collect();
        for (id, live) in ids.values().iter().zip(&live) {
            if live == Some(false) {
                changes.remove(id);
            }
        }
        let batch = if tallied { with_tallies(batch)? } else { batch };
        left.push(if live.true_count() == live.len() { batch } else { filter_record_batch(&batch, &live)? });
    }
    Ok(left)
}

/// Returns rows with stored numbers, all 0 if they had none.
fn with_tallies(batch: RecordBatch) -> Result<RecordBatch> {
    if has(&batch, 2, TALLY) {
        return Ok(batch);
    }
    let before = batch.num_columns().saturating_sub(1);
    let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
    let mut columns = batch.columns().to_vec();
    fields.insert(before, Arc::new(Field::new(TALLY, DataType::Int64, false)));
    columns.insert(before, Arc::new(Int64Array::from_value(0, batch.num_rows())));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn told_changes(changes: &Changes) -> Result<RecordBatch> {
    let numbers: [Vec<i64>; 3] = [
        changes.keys().copied().collect(),
        changes.values().map(|(weight, _)| *weight).collect(),
        changes.values().map(|(_, tally)| *tally).collect(),
    ];
    let fields = [ROW, WEIGHT, TALLY].map(|name| Field::new(name, DataType::Int64, false));
    let columns = numbers.into_iter().map(|numbers| Arc::new(Int64Array::from(numbers)) as ArrayRef);
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), columns.collect())?)
}
