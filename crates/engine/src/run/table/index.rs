//! The indexes of a table: they find rows by other columns than the key, and refuse rows that violate a UNIQUE constraint.
//!
//! An index has a slot for each distinct value of its columns, and the rows of each slot: of a table with a key their keys
//! and values, of another one the rows themselves. It changes with the table's rows, and is built again at a start.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use millstream_delta::{Chunk, Delta};
use millstream_flow::{Wanted, keys_wanted};
use millstream_sql::{Error, Result, TableIndex, row_text, sqlstate};
use millstream_state::{Arranged, KeyIndex, NO_SLOT, Placed, RowsSnapshot, Size, Spillable, Spilling};

use super::extended::extended;
use crate::error;

/// The most rows that an index finds for one reader on the loop. A reader that needs more reads the whole table.
const FOUND_ROWS_MAX: Size = Size::of(4096);

/// The indexes of a table.
#[derive(Debug, Default)]
pub(crate) struct Indexes {
    /// The name of the table, for messages.
    table: Arc<str>,
    all: Vec<RowIndex>,
}

/// One index.
#[derive(Debug)]
struct RowIndex {
    index: TableIndex,
    keys: KeyIndex,
    rows: Arranged,
    /// The columns of the table that `rows` has.
    stored: Vec<usize>,
    /// The number of columns in the table's key.
    key_columns: usize,
}

/// The entries of an index for some values.
pub(super) enum Entries {
    /// Their keys in the table.
    Keys(Vec<ArrayRef>),
    Rows(Vec<RecordBatch>),
}

impl Indexes {
    /// Returns the empty indexes of a table. `key` is empty if it has no primary key.
    pub(crate) fn new(
        table: &str,
        indexes: Vec<TableIndex>,
        columns: &SchemaRef,
        key: &[usize],
    ) -> Result<Indexes> {
        let all = indexes.into_iter().map(|index| RowIndex::new(index, columns, key));
        Ok(Indexes { table: table.into(), all: all.collect::<Result<_>>()? })
    }

    /// Adds rows. Fails if they violate a constraint.
    pub(crate) fn insert(&mut self, rows: RecordBatch) -> Result<()> {
        match self.all.is_empty() {
            true => Ok(()),
            false => self.apply(&Delta::insert(rows)),
        }
    }

    /// Builds the indexes again, over these rows.
    pub(super) fn rebuild(&mut self, columns: &SchemaRef, key: &[usize], rows: &RowsSnapshot) -> Result<()> {
        if self.all.is_empty() {
            return Ok(());
        }
        let indexes = self.all.iter().map(|of| of.index.clone()).collect();
        *self = Indexes::new(&self.table, indexes, columns, key)?;
        rows.batches().map_err(error::arrow)?.into_iter().try_for_each(|rows| self.insert(rows))
    }

    pub(crate) fn rename(&mut self, table: &str) {
        self.table = table.into();
    }

    pub(super) fn has_unique(&self) -> bool {
        self.all.iter().any(|of| of.index.is_unique())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.all.iter().map(|of| of.keys.memory_bytes() + of.rows.memory_bytes()).sum()
    }

    /// Takes in the changes of the table's rows: all indexes, or none if one fails.
    pub(super) fn apply(&mut self, delta: &Delta) -> Result<()> {
        for place in 0..self.all.len() {
            if let Err(error) = self.all[place].apply(delta, &self.table) {
                self.take_back(place, delta);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Undoes changes that were taken in.
    pub(super) fn undo(&mut self, delta: &Delta) {
        self.take_back(self.all.len(), delta);
    }

    /// Undoes changes in the first indexes. They were there before, so nothing of this fails.
    fn take_back(&mut self, count: usize, delta: &Delta) {
        if count == 0 {
            return;
        }
        let back = delta.clone().negated();
        for index in &mut self.all[..count] {
            let _ = index.apply(&back, &self.table);
        }
    }

    /// Returns the rows that an INSERT with ON CONFLICT DO NOTHING adds as far as UNIQUE constraints are concerned: those
    /// with new values, and of several new ones with the same values the first. `is_there` marks rows that are skipped for
    /// another reason.
    pub(super) fn without_conflicts(&self, rows: &RecordBatch, is_there: &[bool]) -> Result<RecordBatch> {
        let mut kept: Vec<bool> = is_there.iter().map(|there| !there).collect();
        let unique = self.all.iter().filter(|of| of.index.is_unique());
        let slots = unique.map(|of| of.distinct(rows)).collect::<Result<Vec<_>>>()?;
        let mut taken: Vec<HashSet<u32>> = vec![HashSet::new(); slots.len()];
        for (row, kept) in kept.iter_mut().enumerate().filter(|(_, kept)| **kept) {
            let conflicts = slots.iter().zip(&taken).any(|(of, taken)| match of.values[row] {
                Some(value) => of.taken[row] || taken.contains(&value),
                None => false,
            });
            *kept = !conflicts;
            if !conflicts {
                for (of, taken) in slots.iter().zip(&mut taken) {
                    of.values[row].into_iter().for_each(|value| _ = taken.insert(value));
                }
            }
        }
        filter_record_batch(rows, &BooleanArray::from(kept)).map_err(error::arrow)
    }

    /// Returns the entries that an index finds, and its columns; `None` if none does, or if there are too many.
    pub(super) fn find(&self, wanted: &Wanted) -> Result<Option<(Entries, &[usize])>> {
        let mut best: Option<(usize, &RowIndex, Vec<u32>)> = None;
        for of in &self.all {
            let Some(keys) = keys_wanted(wanted, of.index.columns.iter().copied()) else { continue };
            let mut slots = Vec::new();
            of.keys.find(&keys.map_err(error::flow)?, &mut slots).map_err(error::change)?;
            slots.retain(|slot| *slot != NO_SLOT);
            slots.sort_unstable();
            slots.dedup();
            let rows: usize = slots.iter().map(|slot| of.rows.rows_of(*slot)).sum();
            if best.as_ref().is_none_or(|(fewest, ..)| rows < *fewest) {
                best = Some((rows, of, slots));
            }
        }
        let Some((_, of, slots)) = best.filter(|(rows, ..)| *rows <= FOUND_ROWS_MAX.get()) else {
            return Ok(None);
        };
        Ok(Some((of.entries(&slots)?, &of.index.columns)))
    }

    /// Returns the indexes of the same rows with other columns: those that are there stay, and `new` has the others.
    pub(super) fn altered(
        &self,
        columns: &SchemaRef,
        key: &[usize],
        added: &[ScalarValue],
        mut new: Indexes,
    ) -> Result<Vec<AlteredIndex>> {
        let mut altered = Vec::new();
        let mut kept = vec![false; self.all.len()];
        for index in TableIndex::all(columns) {
            let stored = stored(&index, columns, key);
            let source =
                match new.all.iter().position(|of| of.index == index) {
                    Some(place) => IndexSource::Built(Box::new(new.all.remove(place))),
                    None => {
                        let same = |(place, of): &(usize, &RowIndex)| {
                            let is_same = of.index.columns == index.columns;
                            is_same && of.index.is_unique() == index.is_unique() && !kept[*place]
                        };
                        let (place, old) =
                            self.all.iter().enumerate().find(same).ok_or_else(|| {
                                Error::bug(format!("index \"{}\" was not built", index.name))
                            })?;
                        kept[place] = true;
                        IndexSource::Kept { place, rows: old.rows_under(&stored, columns, added)? }
                    }
                };
            altered.push(AlteredIndex { index, stored, key_columns: key.len(), source });
        }
        Ok(altered)
    }

    /// Takes over altered indexes; those that are kept move there.
    pub(super) fn install(&mut self, altered: Vec<AlteredIndex>) {
        let mut old: Vec<Option<RowIndex>> = std::mem::take(&mut self.all).into_iter().map(Some).collect();
        for AlteredIndex { index, stored, key_columns, source } in altered {
            let of = match source {
                IndexSource::Built(of) => Some(*of),
                IndexSource::Kept { place, rows } => old[place].take().map(|of| RowIndex {
                    rows: rows.map_or(of.rows, |rows| *rows),
                    index,
                    stored,
                    key_columns,
                    keys: of.keys,
                }),
            };
            self.all.extend(of);
        }
    }
}

/// An index of a table that is altered.
pub(super) struct AlteredIndex {
    index: TableIndex,
    stored: Vec<usize>,
    key_columns: usize,
    source: IndexSource,
}

enum IndexSource {
    Built(Box<RowIndex>),
    /// One that is there, with other rows if their columns change.
    Kept {
        place: usize,
        rows: Option<Box<Arranged>>,
    },
}

/// The values of some rows in the columns of an index.
struct DistinctValues {
    /// A number for each value; none if it differs from all others.
    values: Vec<Option<u32>>,
    /// True if a row of the table has the value.
    taken: Vec<bool>,
}

/// Returns the columns of the table that an index has: those of the key come first.
fn stored(index: &TableIndex, columns: &SchemaRef, key: &[usize]) -> Vec<usize> {
    match key.is_empty() {
        true => (0..columns.fields().len()).collect(),
        false => {
            key.iter().chain(index.columns.iter().filter(|place| !key.contains(place))).copied().collect()
        }
    }
}

impl RowIndex {
    fn new(index: TableIndex, columns: &SchemaRef, key: &[usize]) -> Result<RowIndex> {
        let stored = stored(&index, columns, key);
        let types = index.columns.iter().map(|place| columns.field(*place).data_type().clone()).collect();
        let schema = Arc::new(columns.project(&stored).map_err(error::arrow)?);
        let keys = KeyIndex::new(types).map_err(error::state)?;
        Ok(RowIndex { index, keys, rows: Arranged::new(schema), stored, key_columns: key.len() })
    }

    /// Returns the rows with other columns; `None` if they stay as they are.
    fn rows_under(
        &self,
        stored: &[usize],
        columns: &SchemaRef,
        added: &[ScalarValue],
    ) -> Result<Option<Box<Arranged>>> {
        let schema: SchemaRef = Arc::new(columns.project(stored).map_err(error::arrow)?);
        let nullable = |schema: &SchemaRef| -> Vec<bool> {
            schema.fields().iter().map(|field| field.is_nullable()).collect()
        };
        if nullable(&schema) == nullable(self.rows.schema()) {
            return Ok(None);
        }
        let add = |rows: &RecordBatch| {
            extended(rows, &schema, added).map_err(|error| ArrowError::from_external_error(Box::new(error)))
        };
        self.rows.with_columns(&schema, &add).map(|rows| Some(Box::new(rows))).map_err(error::state)
    }

    fn values(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.index.columns.iter().map(|place| rows.column(*place).clone()).collect()
    }

    /// Returns true for each row that can't violate the constraint, since a value is NULL.
    fn differs(&self, values: &[ArrayRef], row: usize) -> bool {
        self.index.nulls_distinct && values.iter().any(|column| column.is_null(row))
    }

    fn apply(&mut self, delta: &Delta, table: &str) -> Result<()> {
        let mut changes = Vec::with_capacity(delta.chunks.len());
        let mut new = Vec::new();
        for chunk in &delta.chunks {
            let mut slots = Vec::with_capacity(chunk.rows.num_rows());
            new.extend(self.keys.slots(&self.values(&chunk.rows), &mut slots).map_err(error::change)?);
            let rows = chunk.rows.project(&self.stored).map_err(error::arrow)?;
            changes.push(Placed {
                chunk: Chunk { rows, weights: chunk.weights.clone() },
                slots,
                tallies: None,
            });
        }
        let slots: Vec<u32> = changes.iter().flat_map(|placed| &placed.slots).copied().collect();
        let done = match self.check(delta, &changes, table) {
            Ok(()) => self.rows.apply(changes).map_err(error::change),
            Err(error) => Err(error),
        };
        let candidates = if done.is_ok() { slots } else { new };
        self.free(candidates);
        done
    }

    /// Fails if two rows would have the same values.
    fn check(&self, delta: &Delta, changes: &[Placed], table: &str) -> Result<()> {
        if !self.index.is_unique() {
            return Ok(());
        }
        let mut counts: HashMap<u32, i64> = HashMap::new();
        for (chunk, placed) in delta.chunks.iter().zip(changes) {
            let values = self.values(&chunk.rows);
            for (row, slot) in placed.slots.iter().enumerate().filter(|(row, _)| !self.differs(&values, *row))
            {
                *counts.entry(*slot).or_insert_with(|| self.copies(*slot)) += chunk.weight(row);
            }
        }
        for (chunk, placed) in delta.chunks.iter().zip(changes) {
            let values = self.values(&chunk.rows);
            let comes = |row: usize| chunk.weight(row) > 0 && !self.differs(&values, row);
            let violates =
                |(row, slot): &(usize, &u32)| comes(*row) && counts.get(slot).is_some_and(|count| *count > 1);
            // The last row of several with the same values is the one too many.
            if let Some((row, _)) = placed.slots.iter().enumerate().rev().find(violates) {
                return Err(self.violated(&chunk.rows, row, table));
            }
        }
        Ok(())
    }

    /// Returns the number of rows of a slot, with each copy counted.
    fn copies(&self, slot: u32) -> i64 {
        self.rows.ids(slot).iter().map(|id| self.rows.count(*id)).sum()
    }

    fn violated(&self, rows: &RecordBatch, row: usize, table: &str) -> Error {
        let columns = self.index.columns.iter().map(|place| rows.schema_ref().field(*place).name().as_str());
        let columns = columns.collect::<Vec<_>>().join(", ");
        let values = row_text(&self.values(rows), row);
        let name = self.index.name_in(table);
        Error::invalid(format!(
            "duplicate key value violates unique constraint \"{name}\": there is a row with ({columns}) = ({values})"
        ))
        .code(sqlstate::UNIQUE_VIOLATION)
    }

    /// Frees the slots that have no rows any more.
    fn free(&mut self, mut slots: Vec<u32>) {
        slots.sort_unstable();
        slots.dedup();
        slots.into_iter().filter(|slot| self.rows.rows_of(*slot) == 0).for_each(|slot| self.keys.free(slot));
    }

    fn distinct(&self, rows: &RecordBatch) -> Result<DistinctValues> {
        let values = self.values(rows);
        let mut slots = Vec::new();
        self.keys.find(&values, &mut slots).map_err(error::change)?;
        let types = self.keys.types().to_vec();
        let mut numbers = Vec::new();
        KeyIndex::new(types).and_then(|mut all| all.slots(&values, &mut numbers)).map_err(error::change)?;
        let number = |(row, number): (usize, u32)| (!self.differs(&values, row)).then_some(number);
        Ok(DistinctValues {
            values: numbers.into_iter().enumerate().map(number).collect(),
            taken: slots.into_iter().map(|slot| slot != NO_SLOT && self.rows.rows_of(slot) > 0).collect(),
        })
    }

    fn entries(&self, slots: &[u32]) -> Result<Entries> {
        let rows = self.rows.gather(slots).map_err(error::state)?;
        if self.key_columns == 0 {
            return Ok(Entries::Rows(rows));
        }
        let keys = concat_batches(self.rows.schema(), &rows).map_err(error::arrow)?;
        Ok(Entries::Keys(keys.columns()[..self.key_columns].to_vec()))
    }
}

impl Spillable for Indexes {
    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        for of in &mut self.all {
            of.rows.spill(spilling);
            of.keys.spill(spilling);
        }
    }

    fn spilled_bytes(&self) -> usize {
        self.all.iter().map(|of| of.rows.spilled_bytes() + of.keys.spilled_bytes()).sum()
    }
}
