//! A transaction's changes of one table, kept beside the table's snapshot.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter_record_batch, take};
use arrow::datatypes::SchemaRef;
use millstream_delta::{Chunk, Delta, consolidate};
use millstream_sql::{Error, Result, sqlstate};
use millstream_state::{Conflict, KeyIndex, Keyed, NO_SLOT, RowsSnapshot};

use super::PinnedTable;
use crate::error;

/// The ids of the rows that have these keys now, as found by the loop.
pub(crate) type Found = Vec<Option<u64>>;

/// The changes of one table to commit, as the transaction keeps them.
#[derive(Debug)]
pub(crate) enum Write {
    /// A table with a key.
    Keyed {
        table: Arc<str>,
        /// All keys whose rows the transaction may have changed.
        keys: Vec<ArrayRef>,
        /// The row of each key in the snapshot.
        base: Found,
        /// The keys to delete.
        gone: Vec<ArrayRef>,
        /// The rows to insert or replace.
        rows: Vec<RecordBatch>,
    },
    /// A table without a key.
    Bag {
        table: Arc<str>,
        /// The inserted and deleted rows.
        delta: Delta,
    },
}

/// The changes of one table so far.
#[derive(Debug)]
pub(super) enum Own {
    /// A table with a key.
    Keyed(Box<OwnKeyed>),
    /// A table without a key.
    Bag(Delta),
}

/// Rows by key.
#[derive(Debug)]
pub(super) struct OwnKeyed {
    /// The inserted and replacing rows.
    rows: Keyed,
    /// The keys whose rows in the snapshot are superseded.
    touched: KeyIndex,
    /// The facts about each touched key, by slot.
    known: Vec<Option<Touched>>,
    /// The first id of rows inserted after the snapshot.
    next_id: u64,
}

#[derive(Clone, Copy, Debug)]
struct Touched {
    /// The key's row in the snapshot.
    base: Option<u64>,
    /// The number of earlier savepoints.
    level: u32,
}

/// The changes as of a savepoint.
#[derive(Debug)]
pub(super) enum Frozen {
    Keyed(RowsSnapshot),
    Bag(usize),
}

impl Own {
    pub(super) fn new(table: &PinnedTable) -> Result<Own> {
        if table.key.is_empty() {
            return Ok(Own::Bag(Delta::default()));
        }
        let types = table.key.iter().map(|place| table.schema.field(*place).data_type().clone()).collect();
        Ok(Own::Keyed(Box::new(OwnKeyed {
            rows: Keyed::new(table.schema.clone(), table.key.clone()).map_err(error::state)?,
            touched: KeyIndex::new(types).map_err(error::state)?,
            known: Vec::new(),
            next_id: table.next_id,
        })))
    }

    /// Inserts rows; `found` has the present row of each key. Returns the number of inserted rows.
    pub(super) fn insert(
        &mut self,
        rows: RecordBatch,
        found: &[Option<u64>],
        conflict: Conflict,
        level: u32,
    ) -> Result<u64> {
        match self {
            Own::Keyed(own) => own.insert(rows, found, conflict, level),
            Own::Bag(delta) => {
                let count = rows.num_rows() as u64;
                delta.push(Chunk::insert(rows));
                Ok(count)
            }
        }
    }

    /// Deletes rows, each once. Under `strict` all must be in the snapshot or be its own.
    pub(super) fn delete(
        &mut self,
        rows: RecordBatch,
        found: &[Option<u64>],
        strict: bool,
        level: u32,
    ) -> Result<u64> {
        let count = rows.num_rows() as u64;
        match self {
            Own::Keyed(own) => own.delete(&rows, found, strict, level)?,
            Own::Bag(delta) => delta.push(Chunk::delete(rows)),
        }
        Ok(count)
    }

    /// Returns the table's content, given its snapshot `base`. If `base` has only some rows, the result
    /// covers at least those.
    pub(super) fn over(&self, base: Vec<RecordBatch>, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        match self {
            Own::Keyed(own) => own.over(base),
            Own::Bag(delta) => added(base, delta.clone(), schema),
        }
    }

    pub(super) fn freeze(&self) -> Frozen {
        match self {
            Own::Keyed(own) => Frozen::Keyed(own.rows.snapshot()),
            Own::Bag(delta) => Frozen::Bag(delta.chunks.len()),
        }
    }

    /// Rolls back to a savepoint of this level.
    pub(super) fn restore(&mut self, frozen: &Frozen, level: u32) -> Result<()> {
        match (self, frozen) {
            (Own::Keyed(own), Frozen::Keyed(rows)) => own.restore(rows, level),
            (Own::Bag(delta), Frozen::Bag(chunks)) => {
                delta.chunks.truncate(*chunks);
                Ok(())
            }
            _ => Err(Error::bug("a table had a key at a savepoint and has none now")),
        }
    }

    /// Returns the changes to commit, if any.
    pub(super) fn write(self, table: Arc<str>) -> Result<Option<Write>> {
        match self {
            Own::Keyed(own) => own.write(table),
            Own::Bag(delta) if delta.is_empty() => Ok(None),
            Own::Bag(delta) => Ok(Some(Write::Bag { table, delta })),
        }
    }
}

/// Applies changes to rows. Deletions beyond the number of copies are ignored.
fn added(mut batches: Vec<RecordBatch>, delta: Delta, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    if delta.is_append_only() {
        batches.extend(delta.chunks.into_iter().map(|chunk| chunk.rows));
        return Ok(batches);
    }
    let mut all = Delta::from_iter(batches);
    all.append(delta);
    let all = consolidate(all, schema).map_err(error::arrow)?;
    all.chunks.iter().map(|chunk| chunk.expand().map_err(error::arrow)).collect()
}

impl OwnKeyed {
    fn insert(
        &mut self,
        rows: RecordBatch,
        found: &[Option<u64>],
        conflict: Conflict,
        level: u32,
    ) -> Result<u64> {
        let keys = self.keys_of(&rows);
        let untouched = self.check_untouched(&keys, found, false)?;
        let own = self.rows.lookup(&keys).map_err(error::change)?;
        let is_there = |row: usize| if untouched[row] { found[row].is_some() } else { own[row].is_some() };
        let taken = (0..rows.num_rows()).map(|row| !is_there(row));
        let (rows, found) = match conflict {
            // The transaction has merged the rows with those of its snapshot.
            Conflict::Replace | Conflict::Merge => (rows, found.to_vec()),
            Conflict::Keep => {
                let taken = BooleanArray::from_iter(taken.map(Some));
                let kept = found.iter().zip(taken.values()).filter(|(_, taken)| *taken);
                let kept = kept.map(|(found, _)| *found).collect();
                (filter_record_batch(&rows, &taken).map_err(error::arrow)?, kept)
            }
            Conflict::Fail => {
                if let Some(row) = (0..rows.num_rows()).find(|row| is_there(*row)) {
                    return Err(error::change(millstream_state::Error::DuplicateKey { row }));
                }
                (rows, found.to_vec())
            }
        };
        let changed = self.rows.upsert(&rows, conflict).map_err(error::change)?;
        self.touch(&self.keys_of(&rows), &found, level)?;
        Ok(if conflict == Conflict::Keep {
            let inserts = changed.chunks.iter().filter(|chunk| chunk.weights.is_none());
            inserts.map(|chunk| chunk.rows.num_rows() as u64).sum()
        } else {
            rows.num_rows() as u64
        })
    }

    fn delete(&mut self, rows: &RecordBatch, found: &[Option<u64>], strict: bool, level: u32) -> Result<()> {
        let keys = self.keys_of(rows);
        self.check_untouched(&keys, found, strict)?;
        self.rows.delete(rows).map_err(error::change)?;
        self.touch(&keys, found, level)
    }

    fn keys_of(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.rows.key_columns().iter().map(|place| rows.column(*place).clone()).collect()
    }

    /// Returns, for each key, true if it is unchanged since the snapshot. Fails if another transaction
    /// changed it first; under `strict` also if another deleted it.
    fn check_untouched(&self, keys: &[ArrayRef], found: &[Option<u64>], strict: bool) -> Result<Vec<bool>> {
        let mut slots = Vec::with_capacity(found.len());
        self.touched.find(keys, &mut slots).map_err(error::change)?;
        let untouched: Vec<bool> = slots.into_iter().map(|slot| slot == NO_SLOT).collect();
        let changed = |found: &Option<u64>| found.map_or(strict, |id| id >= self.next_id);
        match untouched.iter().zip(found).any(|(untouched, found)| *untouched && changed(found)) {
            true => Err(conflict()),
            false => Ok(untouched),
        }
    }

    /// Records the rows that these keys had, unless recorded before.
    fn touch(&mut self, keys: &[ArrayRef], found: &[Option<u64>], level: u32) -> Result<()> {
        let mut slots = Vec::with_capacity(found.len());
        self.touched.slots(keys, &mut slots).map_err(error::change)?;
        self.known.resize(self.touched.slots_end(), None);
        for (slot, base) in slots.into_iter().zip(found) {
            self.known[slot as usize].get_or_insert(Touched { base: *base, level });
        }
        Ok(())
    }

    fn over(&self, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        if self.touched.is_empty() {
            return Ok(batches);
        }
        let mut all = Vec::with_capacity(batches.len() + 1);
        for batch in batches {
            let mut slots = Vec::with_capacity(batch.num_rows());
            self.touched.find(&self.keys_of(&batch), &mut slots).map_err(error::state)?;
            if slots.iter().all(|slot| *slot == NO_SLOT) {
                all.push(batch);
                continue;
            }
            let kept = BooleanArray::from_iter(slots.into_iter().map(|slot| Some(slot == NO_SLOT)));
            all.push(filter_record_batch(&batch, &kept).map_err(error::arrow)?);
        }
        all.extend(self.rows.snapshot().batches().map_err(error::arrow)?);
        Ok(all)
    }

    fn restore(&mut self, rows: &RowsSnapshot, level: u32) -> Result<()> {
        let key = self.rows.key_columns().to_vec();
        self.rows = Keyed::new(self.rows.schema().clone(), key).map_err(error::state)?;
        for batch in rows.batches().map_err(error::arrow)? {
            self.rows.upsert(&batch, Conflict::Replace).map_err(error::state)?;
        }
        for (slot, known) in self.known.iter_mut().enumerate() {
            if known.is_some_and(|known| known.level > level) {
                *known = None;
                self.touched.free(slot as u32);
            }
        }
        Ok(())
    }

    fn write(self, table: Arc<str>) -> Result<Option<Write>> {
        let slots = self.touched.live();
        if slots.is_empty() {
            return Ok(None);
        }
        let keys = self.touched.keys(&slots).map_err(error::state)?;
        let base: Found =
            slots.iter().map(|slot| self.known[*slot as usize].and_then(|known| known.base)).collect();
        let own = self.rows.lookup(&keys).map_err(error::state)?;
        let gone =
            own.iter().zip(&base).enumerate().filter(|(_, (own, base))| own.is_none() && base.is_some());
        let gone = UInt32Array::from_iter_values(gone.map(|(row, _)| row as u32));
        let gone = match gone.is_empty() {
            true => Vec::new(),
            false => keys
                .iter()
                .map(|column| take(column, &gone, None).map_err(error::arrow))
                .collect::<Result<_>>()?,
        };
        let rows = self.rows.snapshot().batches().map_err(error::arrow)?;
        Ok(Some(Write::Keyed { table, keys, base, gone, rows }))
    }
}

/// Returns the error for a table that was altered since the snapshot.
pub(crate) fn altered(table: &str) -> Error {
    Error::external(format!(
        "table \"{table}\" was altered, renamed or recreated since the transaction began"
    ))
    .hint("Use ROLLBACK and run the transaction again.")
    .code(sqlstate::SERIALIZATION_FAILURE)
}

/// Returns the error for rows that another transaction changed and committed first.
pub(crate) fn conflict() -> Error {
    Error::external("another transaction has changed the same rows meanwhile")
        .hint("Use ROLLBACK and run the transaction again.")
        .code(sqlstate::SERIALIZATION_FAILURE)
}
