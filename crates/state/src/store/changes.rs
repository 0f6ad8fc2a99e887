//! Rows as a table of a checkpoint: the rows added since the previous checkpoint, and the new counts of older
//! ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema};

use super::{RowsSnapshot, Store};
use crate::lineage::{Marked, Marks, Run};
use crate::tables::{COUNTS, ROW, SLOT, TALLY, WEIGHT};
use crate::{Result, Size, Tables};

/// The number of changed rows that are recorded in any case, however few rows there are.
const NOTED_MIN: Size = Size::of(65_536);

/// The changes between two checkpoints.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The first id of the rows added since.
    from: u64,
    /// The ids of older rows whose number of copies or stored number has changed. A checkpoint shares them.
    noted: Arc<Vec<u64>>,
}

impl Marked for Changes {
    fn begun(next_id: u64) -> Changes {
        Changes { from: next_id, noted: Arc::default() }
    }
}

/// The rows of a chunk to save.
enum Taken {
    /// All rows.
    All,
    /// The index of each row in the chunk, ascending, and its slot.
    Some(Vec<(u32, u32)>),
}

impl Store {
    /// Returns its marks, for other marks of the same lineage.
    pub(crate) fn marks(&self) -> &Marks<Changes> {
        &self.marks
    }

    /// Records changes of rows that the newest checkpoint contains.
    pub(super) fn note(&mut self, changes: &[(u64, i64)]) {
        let rows = self.copies as usize;
        let marks = self.marks.now(self.next_id);
        let from = marks.from;
        if from == 0 {
            return;
        }
        let noted = Arc::make_mut(&mut marks.noted);
        noted.extend(changes.iter().map(|(id, _)| *id).filter(|id| *id < from));
        // From here on, writing everything costs no more.
        if noted.len() > NOTED_MIN.get().max(rows) {
            marks.noted = Arc::default();
            self.marks.bar();
        }
    }

    /// Returns the first id of the rows added since the predecessor of a run.
    pub(crate) fn new_from(&self, run: &Run) -> u64 {
        match run.is_whole() {
            true => 0,
            false => self.marks.since(run).next().map_or(self.next_id, |changes| changes.from),
        }
    }

    /// Adds the rows of a run as tables: the added rows, and the new counts of older ones. The added rows are
    /// those with ids from [`Store::new_from`] on, or those in `of_slots`. This costs a snapshot; a reader of
    /// the tables builds the batches from that.
    pub(crate) fn save_run(&self, run: &Run, of_slots: Option<Vec<(u64, u32)>>, name: &str, to: &mut Tables) {
        let (rows, from) = (self.snapshot(), self.new_from(run));
        let all = rows.clone();
        let added = move || match &of_slots {
            Some(of_slots) => all.batches_of(all.by_chunk_of(of_slots), true),
            None => all.batches_of(all.by_chunk_from(from), false),
        };
        to.put_run(name, name, added, run);
        if run.is_whole() {
            return;
        }
        let noted: Vec<_> = self.marks.since(run).map(|changes| changes.noted.clone()).collect();
        let name = format!("{name}.{COUNTS}");
        to.put_run(&name, &name, move || Ok(vec![rows.counts_of(&noted, from)?]), run);
    }
}

impl RowsSnapshot {
    /// Returns the present numbers of the rows with these ids, as far as the ids are below `from`.
    fn counts_of(&self, noted: &[Arc<Vec<u64>>], from: u64) -> Result<RecordBatch> {
        let mut ids: Vec<u64> =
            noted.iter().flat_map(|ids| ids.iter().copied()).filter(|id| *id < from).collect();
        ids.sort_unstable();
        ids.dedup();
        let number = |id: &u64| match self.find(*id) {
            Some((position, row)) => {
                let chunk = &self.chunks[position].chunk;
                (chunk.count(row), chunk.tally(row))
            }
            None => (0, 0),
        };
        let (counts, tallies): (Vec<i64>, Vec<i64>) = ids.iter().map(number).unzip();
        let numbers = [ids.iter().map(|id| *id as i64).collect(), counts, tallies];
        let schema = numbers_of(&[ROW, WEIGHT, TALLY]);
        let columns = numbers.into_iter().map(|numbers| Arc::new(Int64Array::from(numbers)) as ArrayRef);
        Ok(RecordBatch::try_new(Arc::new(Schema::new(schema)), columns.collect())?)
    }

    /// Returns the chunk with this id, and the row in it, unless the row is gone.
    fn find(&self, id: u64) -> Option<(usize, usize)> {
        let position = self.chunks.partition_point(|held| held.first <= id).checked_sub(1)?;
        let held = &self.chunks[position];
        Some((position, held.chunk.row_at(id - held.first)?))
    }

    /// Groups the rows with these ids by chunk, in the order of their ids.
    fn by_chunk_of(&self, rows: &[(u64, u32)]) -> BTreeMap<usize, Taken> {
        let mut by_chunk: BTreeMap<usize, Vec<(u32, u32)>> = BTreeMap::new();
        for (id, slot) in rows {
            if let Some((position, row)) = self.find(*id) {
                by_chunk.entry(position).or_default().push((row as u32, *slot));
            }
        }
        by_chunk.values_mut().for_each(|rows| rows.sort_unstable());
        by_chunk.into_iter().map(|(position, rows)| (position, Taken::Some(rows))).collect()
    }

    /// Groups all live rows with ids from `from` on by chunk.
    fn by_chunk_from(&self, from: u64) -> BTreeMap<usize, Taken> {
        let mut by_chunk = BTreeMap::new();
        let start = self.chunks.partition_point(|held| held.first <= from).saturating_sub(1);
        for (position, held) in self.chunks.iter().enumerate().skip(start) {
            let chunk = &held.chunk;
            if chunk.dead() == 0 && held.first >= from {
                by_chunk.insert(position, Taken::All);
                continue;
            }
            let id = |row: usize| held.first + u64::from(chunk.offset(row));
            let is_new = |row: &usize| chunk.count(*row) != 0 && id(*row) >= from;
            let rows: Vec<(u32, u32)> =
                (0..chunk.rows.num_rows()).filter(is_new).map(|row| (row as u32, 0)).collect();
            if !rows.is_empty() {
                by_chunk.insert(position, Taken::Some(rows));
            }
        }
        by_chunk
    }

    /// Returns the rows of some chunks as a table.
    fn batches_of(&self, by_chunk: BTreeMap<usize, Taken>, placed: bool) -> Result<Vec<RecordBatch>> {
        let tallied = by_chunk.keys().any(|position| self.chunks[*position].chunk.tallies.is_some());
        by_chunk.into_iter().map(|(at, rows)| self.batch(at, &rows, placed, tallied)).collect()
    }

    fn batch(&self, position: usize, taken: &Taken, placed: bool, tallied: bool) -> Result<RecordBatch> {
        let held = &self.chunks[position];
        let chunk = &held.chunk;
        let batch = match taken {
            Taken::Some(rows) if rows.len() < chunk.rows.num_rows() => {
                let places = UInt32Array::from_iter_values(rows.iter().map(|(row, _)| *row));
                take_record_batch(&chunk.rows, &places)?
            }
            _ => chunk.rows.clone(),
        };
        let mut columns = batch.columns().to_vec();
        let mut names = Vec::new();
        let mut add = |name: &'static str, number: &dyn Fn(usize, u32) -> i64| {
            let numbers: Vec<i64> = match taken {
                Taken::All => (0..chunk.rows.num_rows()).map(|row| number(row, 0)).collect(),
                Taken::Some(rows) => rows.iter().map(|(row, slot)| number(*row as usize, *slot)).collect(),
            };
            names.push(name);
            columns.push(Arc::new(Int64Array::from(numbers)) as ArrayRef);
        };
        if placed {
            add(SLOT, &|_, slot| i64::from(slot));
        }
        add(WEIGHT, &|row, _| chunk.count(row));
        if tallied {
            add(TALLY, &|row, _| chunk.tally(row));
        }
        add(ROW, &|row, _| (held.first + u64::from(chunk.offset(row))) as i64);
        let mut fields: Vec<_> = self.schema.fields().iter().cloned().collect();
        fields.extend(numbers_of(&names).into_iter().map(Arc::new));
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}

fn numbers_of(names: &[&str]) -> Vec<Field> {
    names.iter().map(|name| Field::new(*name, DataType::Int64, false)).collect()
}
