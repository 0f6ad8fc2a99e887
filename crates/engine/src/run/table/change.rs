//! Changing a table by a statement or a transaction: all or nothing, and in pieces if the change is large.
//!
//! Between two pieces the loop handles other events. Until the last piece is applied, everyone sees the rows as before,
//! and epochs take in what was staged earlier. Statements that would change the table wait (`run/apply.rs`).

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use millstream_delta::{Chunk, Delta};
use millstream_sql::{Error, Result};
use millstream_state::{Conflict, RowsSnapshot, Size};

use super::{Content, Indexes, Table};
use crate::error;
use crate::transaction::{Found, Write, conflict};

/// Maximum of rows in a piece.
const PIECE_ROWS: Size = Size::of(2048);

/// Most rows that a change indexes at once.
const INDEXED_MAX: Size = Size::of(32 * 1024);

/// Rows to delete and to insert, in order.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Checks to make before any change.
    checks: VecDeque<Check>,
    pieces: VecDeque<Piece>,
    /// The name of the statement, if an APPEND ONLY table refuses it.
    refused: Option<&'static str>,
}

#[derive(Debug)]
enum Piece {
    /// Rows to delete, each once: all must exist.
    Delete(RecordBatch),
    /// Keys to delete; they need not exist.
    DeleteKeys(Vec<ArrayRef>),
    /// Weighted rows for a table without a key. Rows to delete must exist.
    Weighted(Chunk),
    /// The same, from a sink.
    Brought(Chunk),
    /// Rows to insert. If the key exists, the statement's rule applies, or else the table's.
    Insert { rows: RecordBatch, on_conflict: Option<Conflict>, counted: bool },
}

impl Piece {
    fn deletes(&self) -> bool {
        match self {
            Piece::Delete(_) | Piece::DeleteKeys(_) => true,
            Piece::Weighted(chunk) | Piece::Brought(chunk) => chunk
                .weights
                .as_ref()
                .is_some_and(|weights| weights.values().iter().any(|weight| *weight < 0)),
            Piece::Insert { .. } => false,
        }
    }
}

/// Keys with the row that each must still have: a transaction has changed them by what it read.
#[derive(Debug)]
struct Check {
    keys: Vec<ArrayRef>,
    base: Found,
}

impl Change {
    /// Makes a change that replaces rows in several pieces delete all of these first: a new row may have the unique values
    /// of one that a later piece replaces.
    fn freeing(mut self, rows: &Content, indexes: &Indexes, otherwise: Conflict) -> Change {
        if rows.key_columns().is_empty() || !indexes.has_unique() {
            return self;
        }
        let gone = |piece: &Piece| match piece {
            Piece::Insert { rows: new, on_conflict, .. }
                if on_conflict.unwrap_or(otherwise) == Conflict::Replace =>
            {
                Some(Piece::DeleteKeys(rows.keys_of(new)))
            }
            _ => None,
        };
        let gone: Vec<Piece> = self.pieces.iter().filter_map(gone).collect();
        if gone.len() < 2 {
            return self;
        }
        gone.into_iter().rev().for_each(|piece| self.pieces.push_front(piece));
        self
    }

    /// True if it deletes rows of a table that must index many before.
    pub(crate) fn must_index(&self, table: &Table) -> bool {
        table.must_index() && self.pieces.iter().any(Piece::deletes)
    }

    fn of(pieces: VecDeque<Piece>, refused: Option<&'static str>) -> Change {
        Change { checks: VecDeque::new(), pieces, refused }
    }

    /// Inserts rows.
    pub(crate) fn insert(rows: &[RecordBatch], on_conflict: Option<Conflict>) -> Result<Change> {
        let insert = |rows| Piece::Insert { rows, on_conflict, counted: true };
        Ok(Change::of(pieces(rows)?.into_iter().map(insert).collect(), None))
    }

    /// Deletes rows, each once.
    pub(crate) fn delete(rows: &[RecordBatch]) -> Result<Change> {
        let pieces: VecDeque<Piece> = pieces(rows)?.into_iter().map(Piece::Delete).collect();
        let refused = (!pieces.is_empty()).then_some("DELETE");
        Ok(Change::of(pieces, refused))
    }

    /// Replaces rows by others, one for one.
    pub(crate) fn update(old: &[RecordBatch], new: &[RecordBatch]) -> Result<Change> {
        let mut change = Change::delete(old)?;
        let insert = |rows| Piece::Insert { rows, on_conflict: Some(Conflict::Fail), counted: false };
        change.pieces.extend(pieces(new)?.into_iter().map(insert));
        change.refused = change.refused.map(|_| "UPDATE");
        Ok(change)
    }

    /// Deletes rows, replaces others one for one, and inserts more: their keys must be free.
    pub(crate) fn replace(
        old: &[RecordBatch],
        updated: &[RecordBatch],
        inserted: &[RecordBatch],
    ) -> Result<Change> {
        let mut change = Change::update(old, updated)?;
        let insert = |rows| Piece::Insert { rows, on_conflict: Some(Conflict::Fail), counted: true };
        change.pieces.extend(pieces(inserted)?.into_iter().map(insert));
        change.refused = change.refused.map(|_| "MERGE with UPDATE or DELETE");
        Ok(change)
    }

    /// Inserts rows with distinct keys; `old` and `new` are the rows before and after, for keys that exist.
    pub(crate) fn merge(rows: &[RecordBatch], old: &[RecordBatch], new: &[RecordBatch]) -> Result<Change> {
        let mut change = Change::insert(rows, Some(Conflict::Keep))?;
        change.pieces.extend(Change::update(old, new)?.pieces);
        change.refused = Some("ON CONFLICT DO UPDATE");
        Ok(change)
    }

    /// Brings the changes of a sink, which fit the table. A table with a key first deletes by key, then inserts by its
    /// rule for conflicts. Another table gets new rows first, since one of them may be deleted, too.
    pub(super) fn bring(delta: Delta, is_keyed: bool) -> Result<Change> {
        let (inserts, deletes) = delta.split_by_sign().map_err(error::arrow)?;
        if !is_keyed {
            let all = inserts.chunks.into_iter().chain(deletes.negated().chunks);
            return Ok(Change::of(all.flat_map(slices).map(Piece::Brought).collect(), None));
        }
        let rows =
            |delta: Delta| pieces(&delta.chunks.into_iter().map(|chunk| chunk.rows).collect::<Vec<_>>());
        let gone = rows(deletes)?.into_iter().map(Piece::Delete);
        let insert = |rows| Piece::Insert { rows, on_conflict: None, counted: false };
        Ok(Change::of(gone.chain(rows(inserts)?.into_iter().map(insert)).collect(), None))
    }

    /// Returns the number of rows to check, delete and insert.
    pub(crate) fn num_rows(&self) -> usize {
        let rows = |piece: &Piece| match piece {
            Piece::Delete(rows) | Piece::Insert { rows, .. } => rows.num_rows(),
            Piece::DeleteKeys(keys) => num_keys(keys),
            Piece::Weighted(chunk) | Piece::Brought(chunk) => chunk.rows.num_rows(),
        };
        let checked = |check: &Check| num_keys(&check.keys);
        self.pieces.iter().map(rows).sum::<usize>() + self.checks.iter().map(checked).sum::<usize>()
    }
}

/// The changes that a transaction makes in one table.
#[derive(Debug)]
pub(crate) struct TableWrite {
    pub(crate) table: Arc<str>,
    pub(crate) is_keyed: bool,
    /// The inserted rows.
    pub(crate) inserts: Vec<RecordBatch>,
    /// Fails if another transaction has changed the same rows since.
    pub(crate) change: Change,
}

impl TableWrite {
    /// Cuts the changes of a transaction into pieces. That takes time for each row, so sessions do it.
    pub(crate) fn of(write: Write) -> Result<TableWrite> {
        let mut change = Change::default();
        let found = &mut change.pieces;
        match write {
            Write::Keyed { table, keys, base, gone, rows } => {
                for (from, keys) in key_pieces(&keys) {
                    let base = base.get(from..from + num_keys(&keys)).unwrap_or_default().to_vec();
                    change.checks.push_back(Check { keys, base });
                }
                found.extend(key_pieces(&gone).into_iter().map(|(_, keys)| Piece::DeleteKeys(keys)));
                let replace =
                    |rows| Piece::Insert { rows, on_conflict: Some(Conflict::Replace), counted: false };
                found.extend(pieces(&rows)?.into_iter().map(replace));
                Ok(TableWrite { table, is_keyed: true, inserts: rows, change })
            }
            Write::Bag { table, delta } => {
                let (inserts, _) = delta.split_by_sign().map_err(error::arrow)?;
                let inserts = inserts.chunks.into_iter().map(|chunk| chunk.rows).collect();
                found.extend(delta.chunks.into_iter().flat_map(slices).map(Piece::Weighted));
                Ok(TableWrite { table, is_keyed: false, inserts, change })
            }
        }
    }
}

/// Returns a chunk in pieces.
fn slices(chunk: Chunk) -> Vec<Chunk> {
    let rows = chunk.rows.num_rows();
    let slice = |from| chunk.slice(from, PIECE_ROWS.get().min(rows - from));
    (0..rows).step_by(PIECE_ROWS.get()).map(slice).collect()
}

fn num_keys(keys: &[ArrayRef]) -> usize {
    keys.first().map_or(0, |column| column.len())
}

/// Returns the keys in pieces, each with the place of its first key.
fn key_pieces(keys: &[ArrayRef]) -> Vec<(usize, Vec<ArrayRef>)> {
    let count = num_keys(keys);
    let piece = |from: usize| {
        let rows = PIECE_ROWS.get().min(count - from);
        (from, keys.iter().map(|column| column.slice(from, rows)).collect())
    };
    (0..count).step_by(PIECE_ROWS.get()).map(piece).collect()
}

/// Returns the same rows in batches that are neither small nor large.
fn pieces(batches: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    let rows_max = PIECE_ROWS.get();
    let (mut pieces, mut small, mut rows) = (Vec::new(), Vec::new(), 0);
    for batch in batches {
        let mut from = 0;
        while from < batch.num_rows() {
            let count = (rows_max - rows).min(batch.num_rows() - from);
            small.push(batch.slice(from, count));
            (from, rows) = (from + count, rows + count);
            if rows == rows_max {
                pieces.push(as_one(std::mem::take(&mut small))?);
                rows = 0;
            }
        }
    }
    if rows > 0 {
        pieces.push(as_one(small)?);
    }
    Ok(pieces)
}

fn as_one(mut batches: Vec<RecordBatch>) -> Result<RecordBatch> {
    match batches.len() {
        1 => Ok(batches.remove(0)),
        _ => concat_batches(&batches[0].schema(), &batches).map_err(error::arrow),
    }
}

/// Returns the error of a transaction that deletes a row which isn't there any more.
fn of_transaction(failed: millstream_state::Error) -> Error {
    match failed {
        millstream_state::Error::Negative(_) => conflict(),
        other => error::change(other),
    }
}

/// A change that is applied a piece at a time.
#[derive(Debug)]
pub(crate) struct Applying {
    /// The rows that everyone sees until all pieces are applied.
    pub(super) before: RowsSnapshot,
    /// The number that the next new row would have had.
    pub(super) next_id: u64,
    checks: VecDeque<Check>,
    left: VecDeque<Piece>,
    done: Delta,
    count: u64,
    /// The error for which the applied pieces are undone.
    failed: Option<Error>,
}

impl Applying {
    /// Returns the error for which the applied pieces are undone.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Indexes some rows if the next piece, or the undo of one, deletes rows and many are not indexed. Returns true if
    /// the piece must still wait.
    fn index_first(&self, rows: &mut Content) -> Result<bool> {
        let next = || self.left.front().is_some_and(Piece::deletes);
        let undoes = || self.failed.is_some() && !self.done.chunks.is_empty();
        match rows {
            Content::Bag(rows) if rows.num_unindexed() > PIECE_ROWS.get() && (undoes() || next()) => {
                rows.index_some().map(|done| !done).map_err(error::state)
            }
            _ => Ok(false),
        }
    }
}

impl Table {
    /// Changes rows, all or none, and returns the number of rows for the statement.
    pub(crate) fn change(&mut self, change: Change) -> Result<u64> {
        self.check_takes(&change)?;
        let change = change.freeing(&self.rows, &self.indexes, self.intake.on_conflict);
        self.stage();
        let (mut done, mut count) = (Delta::default(), 0);
        for piece in change.pieces {
            match self.rows.change(&mut self.indexes, piece, self.intake.on_conflict) {
                Ok((delta, counted)) => {
                    self.sequences.pass_all(&delta);
                    done.append(delta);
                    count += counted;
                }
                Err(error) => {
                    self.rows.undo(&mut self.indexes, done);
                    return Err(error);
                }
            }
        }
        self.pending.append(done);
        Ok(count)
    }

    /// True if the next delete must index many rows first. A table with a key always has its index.
    pub(crate) fn must_index(&self) -> bool {
        matches!(&self.rows, Content::Bag(rows) if rows.num_unindexed() > INDEXED_MAX.get())
    }

    /// Begins to change rows a piece at a time.
    pub(crate) fn begin(&mut self, change: Change) -> Result<()> {
        self.check_takes(&change)?;
        let change = change.freeing(&self.rows, &self.indexes, self.intake.on_conflict);
        let next_id = self.next_id();
        self.applying = Some(Box::new(Applying {
            before: self.rows.snapshot(),
            next_id,
            checks: change.checks,
            left: change.pieces,
            done: Delta::default(),
            count: 0,
            failed: None,
        }));
        Ok(())
    }

    /// Fails if another transaction has changed the rows that this one changes.
    pub(crate) fn check(&self, change: &Change) -> Result<()> {
        change.checks.iter().try_for_each(|check| self.rows.check(check))
    }

    /// Makes the next check of a change in pieces; returns true if none is left.
    pub(crate) fn check_next(&mut self) -> bool {
        let Some(mut applying) = self.applying.take() else { return true };
        let check = applying.checks.pop_front().filter(|_| applying.failed.is_none());
        if let Some(Err(error)) = check.as_ref().map(|check| self.rows.check(check)) {
            applying.failed = Some(error);
        }
        self.applying = Some(applying);
        check.is_none()
    }

    /// Applies the next piece or, after a failure, undoes one. Returns true if none is left.
    pub(crate) fn apply_next(&mut self) -> bool {
        let Some(mut applying) = self.applying.take() else { return true };
        match applying.index_first(&mut self.rows) {
            Ok(false) => {}
            Ok(true) => {
                self.applying = Some(applying);
                return false;
            }
            Err(error) => drop(applying.failed.get_or_insert(error)),
        }
        let mut ended = false;
        if applying.failed.is_some() {
            match applying.done.chunks.pop() {
                Some(chunk) => self.rows.undo(&mut self.indexes, Delta::of(chunk)),
                None => ended = true,
            }
        } else if let Some(piece) = applying.left.pop_front() {
            match self.rows.change(&mut self.indexes, piece, self.intake.on_conflict) {
                Ok((delta, counted)) => {
                    self.sequences.pass_all(&delta);
                    applying.done.append(delta);
                    applying.count += counted;
                }
                Err(error) => applying.failed = Some(error),
            }
        } else {
            ended = true;
        }
        self.applying = Some(applying);
        ended
    }

    /// Returns the change that is being applied a piece at a time.
    pub(crate) fn applying(&self) -> Option<&Applying> {
        self.applying.as_deref()
    }

    /// Undoes the applied pieces from the next call on.
    pub(crate) fn give_up(&mut self, error: Error) {
        if let Some(applying) = &mut self.applying {
            applying.failed.get_or_insert(error);
        }
    }

    /// Returns the changes of all pieces, and the number of rows for the statement. Fails if the pieces were undone.
    pub(crate) fn applied(&mut self) -> Result<(Delta, u64)> {
        let Some(applying) = &mut self.applying else {
            return Err(Error::bug("a change was applied that had not begun"));
        };
        if let Some(error) = applying.failed.take() {
            self.applying = None;
            return Err(error);
        }
        Ok((applying.done.clone(), applying.count))
    }

    /// Publishes the changes of all pieces; `delta` is their consolidated sum.
    pub(crate) fn publish(&mut self, delta: Delta) {
        let Some(applying) = self.applying.take() else { return };
        self.version += 1;
        self.published.get_or_insert(applying.before);
        let first = self.pending.chunks.is_empty();
        self.pending.append(delta);
        self.summed = if first { self.pending.chunks.len() } else { 0 };
    }

    fn check_takes(&self, change: &Change) -> Result<()> {
        let Some(what) = change.refused.filter(|_| self.intake.append_only) else { return Ok(()) };
        Err(Error::invalid(format!("it is APPEND ONLY, which doesn't allow {what}")))
    }
}

impl Content {
    /// Changes rows and indexes, and returns how many rows count. `otherwise`: the table's own conflict rule.
    fn change(&mut self, indexes: &mut Indexes, piece: Piece, otherwise: Conflict) -> Result<(Delta, u64)> {
        let piece = self.without_conflicts(indexes, piece)?;
        let (delta, count) = self.apply(piece, otherwise)?;
        Ok((self.index(indexes, delta)?, count))
    }

    /// Adds changes of the rows to the indexes and returns them. Undoes them if they violate a constraint.
    pub(super) fn index(&mut self, indexes: &mut Indexes, done: Delta) -> Result<Delta> {
        if let Err(error) = indexes.apply(&done) {
            self.take_back(done);
            return Err(error);
        }
        Ok(done)
    }

    /// Returns the values of some rows in the columns of the key.
    fn keys_of(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.key_columns().iter().map(|place| rows.column(*place).clone()).collect()
    }

    /// Undoes changes of rows and indexes.
    pub(super) fn undo(&mut self, indexes: &mut Indexes, done: Delta) {
        indexes.undo(&done);
        self.take_back(done);
    }

    /// Leaves out new rows that violate a UNIQUE constraint, if the statement says so.
    fn without_conflicts(&self, indexes: &Indexes, piece: Piece) -> Result<Piece> {
        match piece {
            Piece::Insert { rows, on_conflict: Some(Conflict::Keep), counted } if indexes.has_unique() => {
                let mut is_there: Vec<bool> =
                    self.look_up(&self.keys_of(&rows))?.iter().map(Option::is_some).collect();
                is_there.resize(rows.num_rows(), false);
                let rows = indexes.without_conflicts(&rows, &is_there)?;
                Ok(Piece::Insert { rows, on_conflict: Some(Conflict::Keep), counted })
            }
            other => Ok(other),
        }
    }

    fn check(&self, check: &Check) -> Result<()> {
        if self.look_up(&check.keys)? == check.base { Ok(()) } else { Err(conflict()) }
    }

    /// The same for the rows alone.
    fn apply(&mut self, piece: Piece, otherwise: Conflict) -> Result<(Delta, u64)> {
        let (rows, on_conflict, counted) = match piece {
            Piece::Delete(rows) => {
                let count = rows.num_rows() as u64;
                return Ok((self.remove(rows)?, count));
            }
            Piece::DeleteKeys(keys) => return Ok((self.remove_keys(&keys)?, 0)),
            Piece::Weighted(chunk) => return Ok((self.apply_weighted(chunk, of_transaction)?, 0)),
            Piece::Brought(chunk) => return Ok((self.apply_weighted(chunk, error::change)?, 0)),
            Piece::Insert { rows, on_conflict, counted } => (rows, on_conflict, counted),
        };
        let given = rows.num_rows() as u64;
        let on_conflict = on_conflict.unwrap_or(otherwise);
        let delta = match self {
            Content::Bag(kept) => {
                let delta = Delta::insert(rows);
                kept.apply(&delta).map_err(error::change)?;
                delta
            }
            Content::Keyed(kept) => kept.upsert(&rows, on_conflict).map_err(error::change)?,
        };
        let come = delta.chunks.iter().filter(|chunk| chunk.weights.is_none());
        let taken = come.map(|chunk| chunk.rows.num_rows() as u64).sum();
        let count = if on_conflict == Conflict::Keep { taken } else { given };
        Ok((delta, if counted { count } else { 0 }))
    }

    fn remove_keys(&mut self, keys: &[ArrayRef]) -> Result<Delta> {
        match self {
            Content::Bag(_) => Err(Error::bug("keys go from a table that has none")),
            Content::Keyed(kept) => kept.delete_keys(keys).map_err(error::change),
        }
    }

    fn apply_weighted(
        &mut self,
        chunk: Chunk,
        failed: fn(millstream_state::Error) -> Error,
    ) -> Result<Delta> {
        let delta = Delta::of(chunk);
        match self {
            Content::Bag(rows) => rows.apply(&delta).map_err(failed)?,
            Content::Keyed(_) => return Err(Error::bug("rows go from a table with a key without it")),
        }
        Ok(delta)
    }

    fn remove(&mut self, rows: RecordBatch) -> Result<Delta> {
        match self {
            Content::Bag(kept) => {
                let delta = Delta::of(Chunk::delete(rows));
                kept.apply(&delta).map_err(error::change)?;
                Ok(delta)
            }
            Content::Keyed(kept) => kept.delete(&rows).map_err(error::change),
        }
    }

    /// Undoes changes. Rows just inserted exist, and rows just deleted fit again, so nothing of this fails.
    pub(super) fn take_back(&mut self, done: Delta) {
        match self {
            Content::Bag(rows) => {
                let _ = rows.apply(&done.negated());
            }
            Content::Keyed(rows) => {
                for chunk in done.chunks.into_iter().rev() {
                    let gone =
                        chunk.weights.as_ref().is_some_and(|weights| weights.iter().flatten().any(|w| w < 0));
                    let _ = match gone {
                        true => rows.upsert(&chunk.rows, Conflict::Replace),
                        false => rows.delete(&chunk.rows),
                    };
                }
            }
        }
    }
}
