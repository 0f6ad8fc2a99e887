//! Merging of tables in runs. The result equals the state saved at once.

mod one;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{filter_record_batch, interleave_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use super::runs::{COUNTS, GONE, PLACES, ROW, SLOT, SLOTS, numbers, replaced};
use super::{TALLY, Tables, WEIGHT};
use crate::{Error, Result, Size};

/// Number of rows merged into one batch.
const MERGED_ROWS: Size = Size::of(65_536);

/// The content of tables in several checkpoints.
#[derive(Debug, Default)]
pub struct Runs {
    tables: BTreeMap<String, Told>,
}

/// The content of a table, with the number of the checkpoint that wrote each piece, oldest first.
type Told = Vec<(u64, Vec<RecordBatch>)>;

/// The state of slots.
#[derive(Debug, Default)]
struct Family {
    /// The last checkpoint that wrote a slot, if the slot holds state.
    of: Vec<Option<u64>>,
    /// The index of the slot among those slots.
    places: Vec<u32>,
}

impl Runs {
    /// Adds a table's content in a checkpoint.
    pub fn put(&mut self, name: &str, of: u64, batches: Vec<RecordBatch>) {
        self.tables.entry(name.to_string()).or_default().push((of, batches));
    }

    /// Merges all tables and adds them to `to`. Tables of `to` may refer to these slots, too.
    pub fn merge_into(mut self, to: &mut Tables) -> Result<()> {
        self.tables.values_mut().for_each(|told| told.sort_by_key(|(of, _)| *of));
        let is_family = |name: &String| name == SLOTS || name.ends_with(&format!(".{SLOTS}"));
        let names: Vec<String> = self.tables.keys().filter(|name| is_family(name)).cloned().collect();
        let mut families = BTreeMap::new();
        for name in names {
            let told = self.tables.remove(&name).unwrap_or_default();
            families.insert(name[..name.len() - SLOTS.len()].to_string(), Family::new(&name, &told)?);
        }
        let family = |name: &str| {
            let ends = name.rmatch_indices('.').map(|(at, _)| at + 1).chain([0]);
            ends.filter_map(|end| families.get(&name[..end])).next()
        };
        for (name, batches) in &mut to.tables {
            let Some(family) = family(name) else { continue };
            let told = batches.get()?.into_owned();
            if let Some((_, Some(_))) = told.first().and_then(slot_column) {
                let placed =
                    told.iter().map(|batch| family.placed(name, batch)).collect::<Result<Vec<_>>>()?;
                *batches = placed.into();
            }
        }
        let counts = format!(".{COUNTS}");
        let (counts, tables): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.tables.into_iter().partition(|(name, _)| name.ends_with(&counts));
        for (name, told) in tables {
            let first = told.iter().flat_map(|(_, batches)| batches).next();
            let Some(last) = first.and_then(|batch| batch.schema_ref().fields().last().cloned()) else {
                continue;
            };
            let batches = match (last.name() == ROW, family(&name)) {
                (true, family) => {
                    let counts = counts.get(&format!("{name}.{COUNTS}"));
                    merge_rows(&name, told, counts.map_or(&[], |counts| counts), family)?
                }
                (false, Some(family)) => family.merge(&name, told)?,
                (false, None) => {
                    return Err(Error::Incomplete(format!("nothing tells of the slots of table '{name}'")));
                }
            };
            to.put(&name, batches);
        }
        Ok(())
    }
}

/// Returns the slot column, and the index of the [`PLACES`] entry that it replaces.
fn slot_column(batch: &RecordBatch) -> Option<(usize, Option<usize>)> {
    let fields = batch.schema_ref().fields();
    let last = fields.len().checked_sub(1)?;
    if fields[last].name() == SLOT {
        return Some((last, None));
    }
    let which = |name: &str| PLACES.iter().position(|(_, slots)| *slots == name);
    fields.iter().enumerate().rev().find_map(|(at, field)| Some((at, Some(which(field.name())?))))
}

impl Family {
    fn new(name: &str, told: &Told) -> Result<Family> {
        let mut of: Vec<Option<u64>> = Vec::new();
        for (run, batches) in told {
            for batch in batches {
                let lacks = |column: &str| super::missing(name, column);
                let slots = numbers(batch.column_by_name(SLOT).ok_or_else(|| lacks(SLOT))?);
                let gone = batch.column_by_name(GONE).and_then(|gone| gone.as_boolean_opt());
                let gone = gone.ok_or_else(|| lacks(GONE))?;
                for (slot, gone) in slots.into_iter().zip(gone) {
                    let slot = slot.ok_or_else(|| lacks(SLOT))? as usize;
                    if slot >= of.len() {
                        of.resize(slot + 1, None);
                    }
                    of[slot] = (gone != Some(true)).then_some(*run);
                }
            }
        }
        let mut next = 0;
        let place = |of: &Option<u64>| {
            let place = next;
            next += u32::from(of.is_some());
            place
        };
        let places = of.iter().map(place).collect();
        Ok(Family { of, places })
    }

    /// Returns the index of a slot that holds state.
    fn place(&self, slot: Option<u64>) -> Option<u32> {
        let slot = slot? as usize;
        self.of.get(slot).copied().flatten()?;
        self.places.get(slot).copied()
    }

    /// Returns the rows of a table from the last checkpoint that wrote their slot, in the order of the slots.
    fn newest(&self, name: &str, told: Told) -> Result<Vec<RecordBatch>> {
        let (mut batches, mut rows, mut all) = (Vec::new(), Vec::new(), 0);
        for (run, some) in told {
            for batch in some {
                let (at, _) = slot_column(&batch).ok_or_else(|| super::missing(name, SLOT))?;
                for (row, slot) in numbers(batch.column(at)).into_iter().enumerate() {
                    let slot = slot.ok_or_else(|| super::missing(name, SLOT))? as usize;
                    if self.of.get(slot) == Some(&Some(run)) {
                        rows.push((slot as u32, batches.len() as u32, row as u32));
                    }
                }
                all += batch.num_rows();
                batches.push(batch);
            }
        }
        if rows.len() < all || !rows.is_sorted_by_key(|(slot, ..)| *slot) {
            // The sort is stable, so a slot's rows stay in order. Each checkpoint's rows are sorted already.
            rows.sort_by_key(|(slot, ..)| *slot);
            let from: Vec<&RecordBatch> = batches.iter().collect();
            let piece = |some: &[(u32, u32, u32)]| {
                let places: Vec<(usize, usize)> =
                    some.iter().map(|(_, batch, row)| (*batch as usize, *row as usize)).collect();
                Ok(interleave_record_batch(&from, &places)?)
            };
            batches = rows.chunks(MERGED_ROWS.get()).map(piece).collect::<Result<_>>()?;
        }
        Ok(batches)
    }

    /// Like [`Family::newest`], with indices instead of slots.
    fn merge(&self, name: &str, told: Told) -> Result<Vec<RecordBatch>> {
        self.newest(name, told)?.iter().map(|batch| self.placed(name, batch)).collect()
    }

    /// Replaces slots by indices.
    fn placed(&self, name: &str, batch: &RecordBatch) -> Result<RecordBatch> {
        let (at, which) = slot_column(batch).ok_or_else(|| super::missing(name, SLOT))?;
        let Some(which) = which else {
            return super::without_last(batch, SLOT)
                .map(|(rows, _)| rows)
                .ok_or_else(|| super::missing(name, SLOT));
        };
        let places = numbers(batch.column(at)).into_iter().map(|slot| self.place(slot));
        let places = places.collect::<Option<Vec<u32>>>();
        replaced(batch, at, PLACES[which].0, places.ok_or_else(|| of_no_slot(name))?)
    }
}

fn of_no_slot(name: &str) -> Error {
    Error::Incomplete(format!("a row of table '{name}' is of a slot that keeps nothing"))
}

/// Returns the changes of rows by id: the number of copies, and the stored number.
fn changes_of(name: &str, counts: &[(u64, Vec<RecordBatch>)]) -> Result<BTreeMap<i64, (i64, i64)>> {
    let mut changes = BTreeMap::new();
    for batch in counts.iter().flat_map(|(_, batches)| batches) {
        let column = |column: &str| number_column(name, batch, column);
        let (rows, weights, tallies) = (column(ROW)?, column(WEIGHT)?, column(TALLY)?);
        for ((row, weight), tally) in rows.values().iter().zip(weights.values()).zip(tallies.values()) {
            changes.insert(*row, (*weight, *tally));
        }
    }
    Ok(changes)
}

fn number_column(name: &str, batch: &RecordBatch, column: &str) -> Result<Int64Array> {
    // Rows may have columns of such names, too; these come before the added ones.
    let place = batch.schema_ref().fields().iter().rposition(|field| field.name() == column);
    let found = place.and_then(|place| batch.column(place).as_primitive_opt::<Int64Type>());
    found.filter(|found| found.null_count() == 0).cloned().ok_or_else(|| super::missing(name, column))
}

/// Returns the remaining rows in the order of their ids, which is the order in checkpoints.
fn merge_rows(
    name: &str,
    told: Told,
    counts: &[(u64, Vec<RecordBatch>)],
    family: Option<&Family>,
) -> Result<Vec<RecordBatch>> {
    let changes = changes_of(name, counts)?;
    let batches: Vec<RecordBatch> = told.into_iter().flat_map(|(_, batches)| batches).collect();
    let tallied =
        changes.values().any(|(_, tally)| *tally != 0) || batches.iter().any(|batch| has(batch, 2, TALLY));
    batches.iter().map(|batch| left_of(name, batch, &changes, family, tallied)).collect()
}

/// Returns true if the column at an index, counted from the end, has this name.
fn has(batch: &RecordBatch, from_end: usize, name: &str) -> bool {
    let fields = batch.schema_ref().fields();
    fields.len().checked_sub(from_end).is_some_and(|at| fields[at].name() == name)
}

/// Returns the remaining rows of a batch, with their owner's key, number of copies and stored number.
fn left_of(
    name: &str,
    batch: &RecordBatch,
    changes: &BTreeMap<i64, (i64, i64)>,
    family: Option<&Family>,
    tallied: bool,
) -> Result<RecordBatch> {
    let ids = number_column(name, batch, ROW)?;
    let mut weights = number_column(name, batch, WEIGHT)?.values().to_vec();
    let told = has(batch, 2, TALLY);
    let mut tallies = match told {
        true => number_column(name, batch, TALLY)?.values().to_vec(),
        false => vec![0; batch.num_rows()],
    };
    if let (Some(first), Some(last)) = (ids.values().first(), ids.values().last())
        && first <= last
    {
        for (id, (weight, tally)) in changes.range(*first..=*last) {
            if let Ok(row) = ids.values().binary_search(id) {
                (weights[row], tallies[row]) = (*weight, *tally);
            }
        }
    }
    let before = 2 + usize::from(told);
    let slots = has(batch, before + 1, SLOT);
    let own = batch.num_columns().saturating_sub(before + usize::from(slots));
    let live: BooleanArray = weights.iter().map(|weight| Some(*weight != 0)).collect();
    let mut fields: Vec<_> = batch.schema().fields().iter().take(own).cloned().collect();
    let mut columns = batch.columns()[..own].to_vec();
    let mut add = |name: &str, numbers: Vec<i64>| {
        fields.push(Arc::new(Field::new(name, DataType::Int64, false)));
        columns.push(Arc::new(Int64Array::from(numbers)) as ArrayRef);
    };
    if slots {
        let slots = numbers(batch.column(own));
        let place = |(slot, weight): (Option<u64>, &i64)| match family {
            // The slot of a deleted row may be gone, too.
            Some(_) if *weight == 0 => Some(0),
            Some(family) => family.place(slot).map(i64::from),
            None => slot.map(|slot| slot as i64),
        };
        let places: Option<Vec<i64>> = slots.into_iter().zip(&weights).map(place).collect();
        add(PLACES[1].0, places.ok_or_else(|| of_no_slot(name))?);
    }
    add(WEIGHT, weights);
    if tallied && slots {
        add(TALLY, tallies);
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    if live.true_count() == live.len() { Ok(batch) } else { Ok(filter_record_batch(&batch, &live)?) }
}
