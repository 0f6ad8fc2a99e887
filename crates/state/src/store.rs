//! Rows in immutable chunks, each row with a stable id.

mod changes;
mod counts;
mod spilling;
pub(crate) mod table;

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, RecordBatchOptions, UInt32Array, new_empty_array};
use arrow::compute::{concat_batches, interleave_record_batch, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use millstream_delta::{Chunk, Delta};

pub(crate) use changes::Changes;
use counts::Counts;

use crate::compact::compact;
use crate::lineage::Marks;
use crate::sizes::Size;
use crate::spill::{Spilled, Touched};

/// Neighbouring chunks are merged if together they have at most this number of rows.
const MERGED_ROWS_MAX: Size = Size::of(16_384);
/// Wide rows stop merging earlier.
const MERGED_BYTES_MAX: usize = 8 << 20;
/// The maximum number of rows in a batch of copies.
const EXPANDED_ROWS_MAX: Size = Size::of(65_536);

/// Rows with their ids and their counts.
#[derive(Clone, Debug)]
struct Stored {
    rows: RecordBatch,
    /// The number of copies of each row, 0 if it is dead. `None`: one of each.
    counts: Option<Counts>,
    /// A number that the owner stores with each row. `None`: 0 for each.
    tallies: Option<Vec<i64>>,
    /// The distance of each row's id from the chunk's first, ascending. `None`: 0, 1, 2 and so on.
    offsets: Option<Vec<u32>>,
    /// The size of the rows.
    bytes: usize,
    /// The file of the rows, if they are spilled.
    spilled: Option<Arc<Spilled>>,
    touched: Touched,
}

impl Stored {
    fn new(
        rows: RecordBatch,
        counts: Option<Vec<i64>>,
        tallies: Option<Vec<i64>>,
        offsets: Option<Vec<u32>>,
    ) -> Stored {
        let counts = counts.and_then(|counts| Counts::of(&counts));
        let tallies = tallies.filter(|tallies| tallies.iter().any(|tally| *tally != 0));
        let bytes = rows.get_array_memory_size();
        Stored { rows, counts, tallies, offsets, bytes, spilled: None, touched: Touched::default() }
    }

    fn dead(&self) -> usize {
        self.counts.as_ref().map_or(0, Counts::dead)
    }

    fn live(&self) -> usize {
        self.rows.num_rows() - self.dead()
    }

    /// Returns its approximate memory in bytes.
    fn memory_bytes(&self) -> usize {
        let rows = if self.spilled.is_some() { 0 } else { self.bytes };
        rows + self.tallied_bytes() + self.counts.as_ref().map_or(0, Counts::memory_bytes)
    }

    fn tallied_bytes(&self) -> usize {
        8 * self.tallies.as_ref().map_or(0, Vec::len)
    }

    fn count(&self, row: usize) -> i64 {
        self.counts.as_ref().map_or(1, |counts| counts.get(row))
    }

    fn tally(&self, row: usize) -> i64 {
        self.tallies.as_ref().map_or(0, |tallies| tallies[row])
    }

    fn offset(&self, row: usize) -> u32 {
        self.offsets.as_ref().map_or(row as u32, |offsets| offsets[row])
    }

    fn row_at(&self, offset: u64) -> Option<usize> {
        match &self.offsets {
            None => Some(offset as usize).filter(|row| *row < self.rows.num_rows()),
            Some(offsets) => offsets.binary_search(&u32::try_from(offset).ok()?).ok(),
        }
    }

    fn set_count(&mut self, row: usize, count: i64) {
        self.counts.get_or_insert_with(|| Counts::ones(self.rows.num_rows())).set(row, count);
    }

    fn set_tally(&mut self, row: usize, tally: i64) {
        self.tallies.get_or_insert_with(|| vec![0; self.rows.num_rows()])[row] = tally;
    }

    /// Returns the chunk without its dead rows.
    fn without_dead(&self) -> Result<Stored, ArrowError> {
        let live: Vec<u32> =
            (0..self.rows.num_rows()).filter(|row| self.count(*row) != 0).map(|row| row as u32).collect();
        let counts = live.iter().map(|row| self.count(*row as usize)).collect();
        let tallies =
            self.tallies.is_some().then(|| live.iter().map(|row| self.tally(*row as usize)).collect());
        let offsets = live.iter().map(|row| self.offset(*row as usize)).collect();
        let rows = compact(&take_record_batch(&self.rows, &UInt32Array::from(live))?)?;
        Ok(Stored::new(rows, Some(counts), tallies, Some(offsets)))
    }

    /// Returns this chunk followed by `other`, whose first id is `distance` after this one's.
    fn merged(&self, other: &Stored, distance: u32) -> Result<Stored, ArrowError> {
        let rows = concat_batches(&self.rows.schema(), [&self.rows, &other.rows])?;
        let both = [self, other];
        let all = |number: fn(&Stored, usize) -> i64| {
            both.iter().flat_map(|part| (0..part.rows.num_rows()).map(|row| number(part, row))).collect()
        };
        let counts = both.iter().any(|part| part.counts.is_some()).then(|| all(Stored::count));
        let tallies = both.iter().any(|part| part.tallies.is_some()).then(|| all(Stored::tally));
        let plain =
            both.iter().all(|part| part.offsets.is_none()) && distance as usize == self.rows.num_rows();
        let offsets = (!plain).then(|| {
            let first = (0..self.rows.num_rows()).map(|row| self.offset(row));
            first.chain((0..other.rows.num_rows()).map(|row| distance + other.offset(row))).collect()
        });
        Ok(Stored::new(compact(&rows)?, counts, tallies, offsets))
    }
}

#[derive(Clone, Debug)]
struct Held {
    first: u64,
    chunk: Arc<Stored>,
}

/// Returns rows with additional columns.
pub type AddColumns<'a> = dyn Fn(&RecordBatch) -> Result<RecordBatch, ArrowError> + 'a;

fn with_columns(chunks: &[Held], add: &AddColumns<'_>) -> Result<Arc<Vec<Held>>, ArrowError> {
    let wider = |held: &Held| {
        let rows = add(&held.chunk.rows)?;
        let bytes = rows.get_array_memory_size();
        let chunk = Arc::new(Stored { rows, bytes, ..held.chunk.as_ref().clone() });
        Ok(Held { first: held.first, chunk })
    };
    Ok(Arc::new(chunks.iter().map(wider).collect::<Result<_, ArrowError>>()?))
}

/// Chunks of rows in the order of their ids: the storage of every structure that keeps rows.
#[derive(Debug)]
pub struct Store {
    schema: SchemaRef,
    chunks: Arc<Vec<Held>>,
    next_id: u64,
    copies: u64,
    /// The changes since checkpoints.
    marks: Marks<Changes>,
}

/// Live rows of one chunk.
pub(crate) struct Piece {
    pub(crate) rows: RecordBatch,
    pub(crate) ids: Vec<u64>,
    pub(crate) counts: Vec<i64>,
}

impl Store {
    pub(crate) fn new(schema: SchemaRef) -> Store {
        Store { schema, chunks: Arc::default(), next_id: 0, copies: 0, marks: Marks::default() }
    }

    /// Returns a store with some columns of the same rows under the same ids. They share the memory of the rows.
    pub(crate) fn project(&self, columns: &[usize]) -> Result<Store, ArrowError> {
        let project = |held: &Held| {
            let rows = held.chunk.rows.project(columns)?;
            let bytes = rows.get_array_memory_size();
            let chunk = Arc::new(Stored { rows, bytes, ..held.chunk.as_ref().clone() });
            Ok(Held { first: held.first, chunk })
        };
        let chunks = self.chunks.iter().map(project).collect::<Result<Vec<_>, ArrowError>>()?;
        Ok(Store {
            schema: Arc::new(self.schema.project(columns)?),
            chunks: Arc::new(chunks),
            next_id: self.next_id,
            copies: self.copies,
            marks: Marks::default(),
        })
    }

    /// Returns a store with more columns of the same rows under the same ids: `add` adds the columns to a chunk. The old
    /// columns share their memory. The next checkpoint holds the complete state.
    pub(crate) fn with_columns(&self, schema: &SchemaRef, add: &AddColumns<'_>) -> Result<Store, ArrowError> {
        // Rows that are gone may lack a value that the others need.
        let chunks = if self.copies == 0 { Arc::default() } else { with_columns(&self.chunks, add)? };
        let (next_id, copies) = (self.next_id, self.copies);
        Ok(Store { schema: schema.clone(), chunks, next_id, copies, marks: Marks::default() })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the id of the next row.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id
    }

    pub(crate) fn copies(&self) -> u64 {
        self.copies
    }

    /// Replaces the marks of changes by new ones, and returns these.
    pub(crate) fn track_anew(&mut self) -> &Marks<Changes> {
        self.marks = Marks::default();
        &self.marks
    }

    /// Returns true if there is one copy of each row.
    pub(crate) fn is_plain(&self) -> bool {
        let rows: usize = self.chunks.iter().map(|held| held.chunk.live()).sum();
        self.copies == rows as u64
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.chunks
            .iter()
            .map(|held| held.chunk.memory_bytes() + size_of::<Held>() + size_of::<Stored>())
            .sum()
    }

    pub(crate) fn snapshot(&self) -> RowsSnapshot {
        RowsSnapshot { schema: self.schema.clone(), chunks: self.chunks.clone(), copies: self.copies }
    }

    /// Appends rows, each with a positive count, and returns the id of the first. The other ids are
    /// consecutive.
    pub(crate) fn push(&mut self, rows: &RecordBatch, counts: Option<Vec<i64>>) -> Result<u64, ArrowError> {
        self.push_with(rows, counts, None)
    }

    /// Like [`Store::push`], with a number stored with each row.
    pub(crate) fn push_with(
        &mut self,
        rows: &RecordBatch,
        counts: Option<Vec<i64>>,
        tallies: Option<Vec<i64>>,
    ) -> Result<u64, ArrowError> {
        let first = self.next_id;
        self.marks.now(first);
        if rows.num_rows() == 0 {
            return Ok(first);
        }
        let copies: u64 = counts
            .as_ref()
            .map_or(rows.num_rows() as u64, |counts| counts.iter().map(|count| *count as u64).sum());
        // Producers choose names and nullability of columns freely; the stored rows have one schema.
        let rows = RecordBatch::try_new(self.schema.clone(), compact(rows)?.columns().to_vec())?;
        let chunk = Arc::new(Stored::new(rows, counts, tallies, None));
        self.next_id += chunk.rows.num_rows() as u64;
        self.copies += copies;
        Arc::make_mut(&mut self.chunks).push(Held { first, chunk });
        // Merging only reduces the number of chunks. If two can't be merged, for instance because the keys of
        // a dictionary are too small for both, they stay as they are; the rows are stored anyway.
        let _ = self.merge_tail();
        Ok(first)
    }

    /// Merges the last chunks, so that sizes at least halve from one to the next. So a row is copied a
    /// logarithmic number of times, and a million epochs of one row leave few chunks. An error leaves the
    /// rows unchanged.
    fn merge_tail(&mut self) -> Result<(), ArrowError> {
        while let [.., before, last] = &self.chunks[..] {
            if before.chunk.rows.num_rows() >= 2 * last.chunk.rows.num_rows() {
                return Ok(());
            }
            if !self.merge_at(self.chunks.len() - 2)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Merges the chunk at `position` with the next one, if the result isn't too large.
    fn merge_at(&mut self, position: usize) -> Result<bool, ArrowError> {
        let Some([before, after]) = self.chunks.get(position..position + 2) else { return Ok(false) };
        let tallied = before.chunk.tallied_bytes() + after.chunk.tallied_bytes();
        let too_large = before.chunk.rows.num_rows() + after.chunk.rows.num_rows() > MERGED_ROWS_MAX.get()
            || before.chunk.bytes + after.chunk.bytes + tallied > MERGED_BYTES_MAX;
        let last_offset = after.first - before.first + after.chunk.rows.num_rows() as u64;
        let reaches = after.chunk.offsets.as_ref().and_then(|offsets| offsets.last()).copied().unwrap_or(0);
        if too_large || last_offset + u64::from(reaches) > u64::from(u32::MAX) {
            return Ok(false);
        }
        let chunk = Arc::new(before.chunk.merged(&after.chunk, (after.first - before.first) as u32)?);
        let first = before.first;
        let chunks = Arc::make_mut(&mut self.chunks);
        chunks[position] = Held { first, chunk };
        chunks.remove(position + 1);
        Ok(true)
    }

    /// Returns the chunk with this id, and the row in it.
    fn locate(&self, id: u64) -> (usize, usize) {
        let position = self.chunks.partition_point(|held| held.first <= id).saturating_sub(1);
        let held = &self.chunks[position];
        let row = held.chunk.row_at(id - held.first).expect("only ids of rows that are kept are looked up");
        (position, row)
    }

    pub(crate) fn count(&self, id: u64) -> i64 {
        let (position, row) = self.locate(id);
        self.chunks[position].chunk.count(row)
    }

    /// Returns the number stored with a row.
    pub(crate) fn tally(&self, id: u64) -> i64 {
        let (position, row) = self.locate(id);
        self.chunks[position].chunk.tally(row)
    }

    /// Sets the numbers stored with some rows.
    pub(crate) fn set_tallies(&mut self, changes: &[(u64, i64)]) {
        self.note(changes);
        for (id, tally) in changes {
            let (position, row) = self.locate(*id);
            Arc::make_mut(&mut Arc::make_mut(&mut self.chunks)[position].chunk).set_tally(row, *tally);
        }
    }

    /// Sets the counts of some rows. A count of zero removes the row: its id must not be used again.
    pub(crate) fn set_counts(&mut self, changes: &[(u64, i64)]) {
        self.note(changes);
        let mut touched = Vec::new();
        for (id, count) in changes {
            let (position, row) = self.locate(*id);
            let chunk = Arc::make_mut(&mut Arc::make_mut(&mut self.chunks)[position].chunk);
            self.copies = self.copies.wrapping_add_signed(count - chunk.count(row));
            chunk.set_count(row, *count);
            if touched.last() != Some(&position) {
                touched.push(position);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for position in touched.into_iter().rev() {
            // This only frees memory. A chunk that can't be rewritten stays as it is, and its dead rows stay
            // dead.
            let _ = self.drop_dead(position);
        }
    }

    /// Rewrites a chunk that is more than half dead; the deletes have paid for the cost. An error leaves the
    /// rows unchanged.
    fn drop_dead(&mut self, position: usize) -> Result<(), ArrowError> {
        let chunk = &self.chunks[position].chunk;
        if chunk.live() == 0 {
            Arc::make_mut(&mut self.chunks).remove(position);
            return Ok(());
        }
        if chunk.dead() <= chunk.live() {
            return Ok(());
        }
        let chunk = Arc::new(chunk.without_dead()?);
        Arc::make_mut(&mut self.chunks)[position].chunk = chunk;
        self.merge_at(position)?;
        if position > 0 {
            self.merge_at(position - 1)?;
        }
        Ok(())
    }

    /// Returns the rows with these ids, in that order.
    pub(crate) fn gather(&self, ids: &[u64]) -> Result<RecordBatch, ArrowError> {
        self.gathered(ids, |_, _| 1)
    }

    /// Returns the rows with these ids, in that order, each repeated by its count.
    pub(crate) fn gather_copies(&self, ids: &[u64]) -> Result<RecordBatch, ArrowError> {
        self.gathered(ids, |chunk, row| chunk.count(row).max(0) as usize)
    }

    /// Returns some columns of the rows with these ids, in that order, and the number of copies of each row.
    pub(crate) fn gather_counted(
        &self,
        ids: &[u64],
        columns: &[usize],
    ) -> Result<(RecordBatch, Vec<i64>), ArrowError> {
        let mut dense = vec![u32::MAX; self.chunks.len()];
        let mut batches = Vec::new();
        let (mut indices, mut counts) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
        for id in ids {
            let (position, row) = self.locate(*id);
            let chunk = &self.chunks[position].chunk;
            if dense[position] == u32::MAX {
                dense[position] = batches.len() as u32;
                chunk.touched.touch();
                batches.push(chunk.rows.project(columns)?);
            }
            indices.push((dense[position] as usize, row));
            counts.push(chunk.count(row));
        }
        if columns.is_empty() || indices.is_empty() {
            let schema = Arc::new(self.schema.project(columns)?);
            let columns = schema.fields().iter().map(|field| new_empty_array(field.data_type())).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(indices.len()));
            return Ok((RecordBatch::try_new_with_options(schema, columns, &options)?, counts));
        }
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        Ok((interleave_record_batch(&batches, &indices)?, counts))
    }

    fn gathered(&self, ids: &[u64], copies: fn(&Stored, usize) -> usize) -> Result<RecordBatch, ArrowError> {
        // Kernels inspect every batch they are given, so pass only those needed.
        let mut dense = vec![u32::MAX; self.chunks.len()];
        let mut batches: Vec<&RecordBatch> = Vec::new();
        let mut indices = Vec::with_capacity(ids.len());
        for id in ids {
            let (position, row) = self.locate(*id);
            let chunk = &self.chunks[position].chunk;
            if dense[position] == u32::MAX {
                dense[position] = batches.len() as u32;
                chunk.touched.touch();
                batches.push(&chunk.rows);
            }
            indices.extend(std::iter::repeat_n((dense[position] as usize, row), copies(chunk, row)));
        }
        if indices.is_empty() {
            return Ok(RecordBatch::new_empty(self.schema.clone()));
        }
        interleave_record_batch(&batches, &indices)
    }

    /// Returns at most `rows_max` live rows of one chunk with ids from `from` on; `None` if there are no
    /// more.
    pub(crate) fn piece(&self, from: u64, rows_max: usize) -> Result<Option<Piece>, ArrowError> {
        let start = self.chunks.partition_point(|held| held.first <= from).saturating_sub(1);
        for held in &self.chunks[start.min(self.chunks.len())..] {
            let chunk = &held.chunk;
            let id = |row: usize| held.first + u64::from(chunk.offset(row));
            let live = (0..chunk.rows.num_rows()).filter(|row| id(*row) >= from && chunk.count(*row) != 0);
            let taken: Vec<u32> = live.take(rows_max).map(|row| row as u32).collect();
            if taken.is_empty() {
                continue;
            }
            let ids = taken.iter().map(|row| id(*row as usize)).collect();
            let counts = taken.iter().map(|row| chunk.count(*row as usize)).collect();
            let (first, last) = (taken[0] as usize, taken[taken.len() - 1] as usize);
            let rows = if last - first + 1 == taken.len() {
                chunk.rows.slice(first, taken.len())
            } else {
                take_record_batch(&chunk.rows, &UInt32Array::from(taken))?
            };
            return Ok(Some(Piece { rows, ids, counts }));
        }
        Ok(None)
    }

    /// Returns the number of chunks.
    pub(crate) fn num_chunks(&self) -> usize {
        self.chunks.len()
    }
}

/// A snapshot of rows: later changes don't affect it.
#[derive(Clone, Debug)]
pub struct RowsSnapshot {
    schema: SchemaRef,
    chunks: Arc<Vec<Held>>,
    copies: u64,
}

impl RowsSnapshot {
    /// Returns a snapshot with more columns of the same rows: `add` adds the columns to a chunk.
    pub fn with_columns(&self, schema: &SchemaRef, add: &AddColumns<'_>) -> Result<RowsSnapshot, ArrowError> {
        let chunks = with_columns(&self.chunks, add)?;
        Ok(RowsSnapshot { schema: schema.clone(), chunks, copies: self.copies })
    }

    /// Returns a snapshot of `copies` rows that have no columns.
    pub(crate) fn without_columns(schema: SchemaRef, copies: u64) -> RowsSnapshot {
        RowsSnapshot { schema, chunks: Arc::default(), copies }
    }

    /// Returns the schema of the rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the number of rows, with each copy counted.
    pub fn num_rows(&self) -> usize {
        self.copies as usize
    }

    /// Returns the rows in order of arrival, n copies as n rows. Copies nothing of a chunk whose rows all
    /// have one copy.
    pub fn batches(&self) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut batches = Vec::with_capacity(self.chunks.len());
        if self.schema.fields().is_empty() && self.copies > 0 {
            batches.push(empty_rows(&self.schema, self.copies as usize)?);
        }
        for Held { chunk, .. } in self.chunks.iter() {
            let Some(counts) = &chunk.counts else {
                batches.push(chunk.rows.clone());
                continue;
            };
            let copies = |row: usize| std::iter::repeat_n(row as u32, counts.get(row).max(0) as usize);
            let mut indices = (0..chunk.rows.num_rows()).flat_map(copies);
            loop {
                let some: Vec<u32> = indices.by_ref().take(EXPANDED_ROWS_MAX.get()).collect();
                if some.is_empty() {
                    break;
                }
                batches.push(take_record_batch(&chunk.rows, &UInt32Array::from(some))?);
            }
        }
        Ok(batches)
    }

    /// Returns the delta that inserts all rows.
    pub fn delta(&self) -> Result<Delta, ArrowError> {
        self.first_rows(usize::MAX)
    }

    /// Returns the delta that inserts the first rows: at least `count` distinct ones if there are so many, and
    /// at most a chunk more.
    pub fn first_rows(&self, count: usize) -> Result<Delta, ArrowError> {
        let (mut delta, mut left) = (Delta::default(), count);
        if self.schema.fields().is_empty() && self.copies > 0 {
            let weights = (self.copies > 1).then(|| Int64Array::from(vec![self.copies as i64]));
            delta.push(Chunk { rows: empty_rows(&self.schema, 1)?, weights });
        }
        for Held { chunk, .. } in self.chunks.iter() {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(chunk.rows.num_rows() - chunk.dead());
            if chunk.counts.is_none() {
                delta.push(Chunk::insert(chunk.rows.clone()));
                continue;
            }
            let chunk = if chunk.dead() > 0 { &chunk.without_dead()? } else { &**chunk };
            delta.push(Chunk {
                rows: chunk.rows.clone(),
                weights: chunk.counts.as_ref().map(|counts| Int64Array::from(counts.to_vec())),
            });
        }
        Ok(delta)
    }
}

fn empty_rows(schema: &SchemaRef, rows: usize) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), Vec::new(), &options)
}
