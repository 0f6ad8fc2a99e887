//! Rows of some batches: the meaning of `LAST(…)`, `CHANGES(…)` and a stream's name in a query FOR EACH BATCH.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use millstream_delta::{Chunk, Delta, RowEncoder, Timestamp, consolidate};
use millstream_sql::Result;
use millstream_sql::batches::OPERATION;
use millstream_state::Tables;

use crate::error;
use crate::stamp::{Batch, stamp_all};

/// Maximum of chunks in one part of a window before they are merged.
const CHUNKS_MAX: usize = 64;

/// The kind of a window: its rows at an evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The rows of the batch.
    Batch,
    /// The changes of the batch, in a relation of these columns and with this key.
    Changes { plain: SchemaRef, key: Option<Vec<usize>> },
    /// The rows of the batches within a length of time, in microseconds.
    Last { length: i64, slide: Option<i64> },
}

/// The rows of one relation for a query.
#[derive(Debug)]
pub(crate) struct Window {
    kind: Kind,
    /// The number of the relation's columns that the query knows; the relation may have more.
    known: usize,
    /// True if the query takes each batch at its end, and drops old rows by itself.
    handed_on: bool,
    /// The rows since the last batch.
    open: Delta,
    /// The batches in the window, or to enter it, oldest first.
    closed: VecDeque<Closed>,
    /// The number of these that the query has taken in.
    entered: usize,
}

/// Batches that enter and leave together.
#[derive(Debug)]
struct Closed {
    /// The end of the last batch.
    time: Timestamp,
    rows: Delta,
}

impl Window {
    /// Creates an empty window.
    pub(crate) fn new(kind: Kind, known: usize, handed_on: bool) -> Window {
        Window { kind, known, handed_on, open: Delta::default(), closed: VecDeque::new(), entered: 0 }
    }

    /// Returns the window with its rows, and leaves an empty one.
    pub(crate) fn lend(&mut self) -> Window {
        let empty = Window::new(self.kind.clone(), self.known, self.handed_on);
        std::mem::replace(self, empty)
    }

    /// Returns its kind.
    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Saves the rows by their batches.
    pub(crate) fn save(&self) -> Result<Tables> {
        let mut all = Tables::default();
        all.put_number("entered", self.entered as i64);
        all.put_delta("open", &self.open).map_err(error::state)?;
        let part = |closed: &Closed| {
            let mut part = Tables::default();
            part.put_number("time", closed.time.0);
            part.put_delta("rows", &closed.rows)?;
            Ok(part)
        };
        let parts = self.closed.iter().map(part).collect::<Result<_, _>>().map_err(error::state)?;
        all.put_parts("batches", parts).map_err(error::state)?;
        Ok(all)
    }

    /// Loads the saved rows.
    pub(crate) fn load(&mut self, all: &mut Tables) -> Result<()> {
        self.entered = all.take_number("entered").map_err(error::state)? as usize;
        self.open = all.take_delta("open").map_err(error::state)?;
        let closed = |mut part: Tables| {
            let time = Timestamp(part.take_number("time")?);
            Ok(Closed { time, rows: part.take_delta("rows")? })
        };
        let parts = all.take_parts("batches").map_err(error::state)?;
        self.closed = parts.into_iter().map(closed).collect::<Result<_, _>>().map_err(error::state)?;
        Ok(())
    }

    /// Takes in the changes of the relation in an epoch.
    pub(crate) fn take(&mut self, delta: &Delta) -> Result<()> {
        self.open.append(delta.first_columns(self.known).map_err(error::arrow)?.into_owned());
        Ok(())
    }

    /// Returns the batches that ended, if the query takes them at once and not when it is evaluated.
    pub(crate) fn hand_on(&mut self, at: Timestamp) -> Delta {
        if self.handed_on { self.slide_to(at) } else { Delta::default() }
    }

    /// Returns true if rows have arrived since the last batch.
    pub(crate) fn has_rows(&self) -> bool {
        !self.open.is_empty()
    }

    /// Returns the number of its rows.
    pub(crate) fn num_rows(&self) -> usize {
        self.open.num_rows() + self.closed.iter().map(|closed| closed.rows.num_rows()).sum::<usize>()
    }

    /// Returns the approximate bytes of its rows.
    pub(crate) fn memory_bytes(&self) -> usize {
        let closed: usize = self.closed.iter().map(|closed| closed.rows.memory_bytes()).sum();
        self.open.memory_bytes() + closed
    }

    /// Ends a batch; `stamped` adds the columns of the batch to its rows.
    pub(crate) fn close(&mut self, batch: Batch, stamped: Option<&SchemaRef>) -> Result<()> {
        let mut rows = std::mem::take(&mut self.open);
        if rows.is_empty() {
            return Ok(());
        }
        if let Kind::Changes { plain, key } = &self.kind {
            rows = operations(rows, plain, key.as_deref()).map_err(error::arrow)?;
        }
        if let Some(schema) = stamped {
            rows = stamp_all(&rows, batch, schema)?;
        }
        let waits = self.closed.len() > self.entered;
        match self.closed.back_mut() {
            Some(last) if waits && together(&self.kind, last.time, batch.time) => {
                last.time = batch.time;
                last.rows.append(rows);
                compact(&mut last.rows)?;
            }
            _ => self.closed.push_back(Closed { time: batch.time, rows }),
        }
        Ok(())
    }

    /// Returns the change of the query's rows at an evaluation.
    pub(crate) fn slide_to(&mut self, at: Timestamp) -> Delta {
        let mut change = Delta::default();
        if self.handed_on {
            while self.closed.front().is_some_and(|closed| closed.time <= at) {
                self.closed.pop_front().into_iter().for_each(|closed| change.append(closed.rows));
            }
            return change;
        }
        while let Some(closed) = self.pop_leaving(at) {
            if self.entered > 0 {
                self.entered -= 1;
                for chunk in closed.rows.chunks {
                    let weights: Int64Array = chunk.weights_or_ones().unary(|weight| -weight);
                    change.push(Chunk { rows: chunk.rows, weights: Some(weights) });
                }
            }
        }
        for closed in self.closed.iter().skip(self.entered).take_while(|closed| closed.time <= at) {
            self.entered += 1;
            change.append(closed.rows.clone());
        }
        change
    }

    /// Returns all rows of the window at an evaluation.
    pub(crate) fn rows_at(&mut self, at: Timestamp) -> Delta {
        self.slide_to(at);
        let mut rows = Delta::default();
        self.closed.iter().take(self.entered).for_each(|closed| rows.append(closed.rows.clone()));
        rows
    }

    fn pop_leaving(&mut self, at: Timestamp) -> Option<Closed> {
        let through = match self.kind {
            Kind::Last { length, .. } => Timestamp(at.0.saturating_sub(length)),
            // The rows of the last evaluation are of another batch.
            _ if self.entered > 0 => Timestamp(i64::MAX),
            _ => return None,
        };
        if self.closed.front()?.time <= through { self.closed.pop_front() } else { None }
    }
}

/// Returns true if batches that end at two times enter every window, and leave it, at the same evaluation.
fn together(kind: &Kind, first: Timestamp, second: Timestamp) -> bool {
    match kind {
        Kind::Batch | Kind::Changes { .. } => false,
        Kind::Last { slide: None, .. } => false,
        Kind::Last { length, slide: Some(slide) } => {
            let comes = |time: Timestamp| (time.0 - 1).div_euclid(*slide);
            let leaves = |time: Timestamp| (time.0.saturating_add(*length) - 1).div_euclid(*slide);
            comes(first) == comes(second) && leaves(first) == leaves(second)
        }
    }
}

/// Merges many small chunks.
fn compact(rows: &mut Delta) -> Result<()> {
    if rows.chunks.len() >= CHUNKS_MAX
        && let Some(schema) = rows.chunks.first().map(|chunk| chunk.rows.schema())
    {
        let all = std::mem::take(rows).into_one(&schema).map_err(error::arrow)?;
        *rows = all.map_or_else(Delta::default, Delta::of);
    }
    Ok(())
}

/// Returns changes as inserted rows, each with its operation.
fn operations(changes: Delta, plain: &SchemaRef, key: Option<&[usize]>) -> Result<Delta, ArrowError> {
    // Rows of a type that can't be compared stay as they are: the sum is the same.
    let changes = consolidate(changes.clone(), plain).unwrap_or(changes);
    let (inserts, deletes) = changes.split_by_sign()?;
    let updated = match key {
        Some(key) => Some(Keys::of_both(&inserts, &deletes, plain, key)?),
        None => None,
    };
    let mut rows = Delta::default();
    for (delta, plain_word, update_word) in
        [(deletes, "delete", "update_delete"), (inserts, "insert", "update_insert")]
    {
        for chunk in &delta.chunks {
            let batch = chunk.expand()?;
            let words: ArrayRef = match &updated {
                None => Arc::new(StringViewArray::from(vec![plain_word; batch.num_rows()])),
                Some(keys) => {
                    let both = keys.holds(&batch)?;
                    let word = |both: &bool| if *both { update_word } else { plain_word };
                    Arc::new(StringViewArray::from_iter_values(both.iter().map(word)))
                }
            };
            rows.push(Chunk::insert(with_operation(&batch, words)?));
        }
    }
    Ok(rows)
}

fn with_operation(rows: &RecordBatch, words: ArrayRef) -> Result<RecordBatch, ArrowError> {
    let fields = rows.schema_ref().fields().iter().map(|field| field.as_ref().clone());
    let operation = Field::new(OPERATION, DataType::Utf8View, false);
    let schema = Arc::new(Schema::new(std::iter::once(operation).chain(fields).collect::<Vec<_>>()));
    let columns = std::iter::once(words).chain(rows.columns().iter().cloned()).collect();
    RecordBatch::try_new(schema, columns)
}

/// The keys with both a deleted and an inserted row.
struct Keys<'a> {
    key: &'a [usize],
    encoder: RowEncoder,
    both: HashSet<Vec<u8>>,
}

impl<'a> Keys<'a> {
    fn of_both(
        inserts: &Delta,
        deletes: &Delta,
        plain: &SchemaRef,
        key: &'a [usize],
    ) -> Result<Keys<'a>, ArrowError> {
        let encoder = RowEncoder::new(&Arc::new(plain.project(key)?))?;
        let mut keys = Keys { key, encoder, both: HashSet::new() };
        let gone: HashSet<Vec<u8>> = keys.encoded(deletes)?.collect();
        keys.both = keys.encoded(inserts)?.filter(|key| gone.contains(key)).collect();
        Ok(keys)
    }

    fn encoded(&self, delta: &Delta) -> Result<std::vec::IntoIter<Vec<u8>>, ArrowError> {
        let mut keys = Vec::with_capacity(delta.num_rows());
        for chunk in &delta.chunks {
            let rows = self.encoder.encode(&chunk.rows.project(self.key)?)?;
            keys.extend((0..rows.num_rows()).map(|row| rows.row(row).data().to_vec()));
        }
        Ok(keys.into_iter())
    }

    fn holds(&self, rows: &RecordBatch) -> Result<Vec<bool>, ArrowError> {
        let rows = self.encoder.encode(&rows.project(self.key)?)?;
        Ok((0..rows.num_rows()).map(|row| self.both.contains(rows.row(row).data())).collect())
    }
}

#[cfg(test)]
mod tests {
    use millstream_delta::Epoch;

    use super::*;

    fn rows(values: &[i64]) -> Delta {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        Delta::insert(RecordBatch::try_from_iter([("x", column)]).unwrap())
    }

    fn close(window: &mut Window, time: i64, values: &[i64]) {
        window.take(&rows(values)).unwrap();
        let batch = Batch { id: Epoch(time as u64), time: Timestamp(time), start: Timestamp(0) };
        window.close(batch, None).unwrap();
    }

    /// Returns the sum of inserted values minus that of deleted ones.
    fn net(delta: &Delta) -> i64 {
        let of = |chunk: &Chunk| -> i64 {
            let values = chunk.rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap().clone();
            values.iter().flatten().enumerate().map(|(row, value)| value * chunk.weight(row)).sum()
        };
        delta.chunks.iter().map(of).sum()
    }

    #[test]
    fn batches_come_and_leave() {
        let mut window = Window::new(Kind::Last { length: 20, slide: Some(10) }, 1, false);
        for (time, value) in [(5, 1), (10, 10), (14, 100), (20, 1000), (30, 10_000)] {
            close(&mut window, time, &[value]);
        }
        assert_eq!(window.closed.len(), 3);
        assert_eq!(net(&window.slide_to(Timestamp(10))), 11);
        assert_eq!(net(&window.slide_to(Timestamp(20))), 1100);
        assert_eq!(net(&window.slide_to(Timestamp(30))), 10_000 - 11);
        assert_eq!(net(&window.rows_at(Timestamp(40))), 10_000);
        assert_eq!(net(&window.slide_to(Timestamp(70))), -10_000);
        assert_eq!(window.num_rows(), 0);
    }

    #[test]
    fn what_no_window_saw_leaves_without_a_trace() {
        let mut window = Window::new(Kind::Last { length: 10, slide: Some(30) }, 1, false);
        close(&mut window, 10, &[1]);
        close(&mut window, 25, &[2]);
        assert_eq!(net(&window.slide_to(Timestamp(30))), 2);
        assert_eq!(net(&window.slide_to(Timestamp(60))), -2);
    }

    #[test]
    fn a_batch_makes_way_for_the_next() {
        let mut window = Window::new(Kind::Batch, 1, false);
        close(&mut window, 1, &[1]);
        assert_eq!(net(&window.slide_to(Timestamp(1))), 1);
        close(&mut window, 2, &[20]);
        assert_eq!(net(&window.slide_to(Timestamp(2))), 19);
        assert_eq!(net(&window.slide_to(Timestamp(3))), -20);
        close(&mut window, 4, &[5]);
        assert_eq!(net(&window.rows_at(Timestamp(4))), 5);
        assert_eq!(net(&window.rows_at(Timestamp(5))), 0);
    }

    #[test]
    fn operations_say_what_happened() {
        let plain = rows(&[1]).chunks[0].rows.schema();
        let mut changes = rows(&[1, 2, 2]);
        changes.push(Chunk::delete(rows(&[1, 3]).chunks[0].rows.clone()));
        let words = |key: Option<&[usize]>| {
            let made = operations(changes.clone(), &plain, key).unwrap();
            let mut words = Vec::new();
            for chunk in &made.chunks {
                let text = arrow::util::pretty::pretty_format_batches(std::slice::from_ref(&chunk.rows));
                words.push(text.unwrap().to_string().matches("insert").count());
                assert_eq!(chunk.weights, None);
            }
            words
        };
        assert_eq!(words(None), [0, 2]);
        assert_eq!(words(Some(&[0])), [0, 2]);
    }
}
