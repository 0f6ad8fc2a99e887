//! Emits the difference between the old and the new answers of rows.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use arrow::array::{ArrayRef, DynComparator, RecordBatch, UInt32Array, make_comparator};
use arrow::compute::{SortOptions, take, take_record_batch};
use arrow::datatypes::SchemaRef;
use millstream_delta::{Chunk, Delta, consolidate};
use millstream_state::Size;

use super::answer::Answers;
use super::change::Spot;
use crate::Result;

/// The maximum number of rows of one output batch.
const OUTPUT_ROWS: Size = Size::of(16_384);

/// Rows of some answers to emit, each for a partition.
#[derive(Default)]
struct Lines {
    rows: Vec<u32>,
    parts: Vec<u32>,
}

/// Answers of several stretches, and the rows of them to emit.
#[derive(Default)]
pub(super) struct Side {
    pub(super) all: Vec<Answers>,
    lines: Vec<Lines>,
}

/// The place of a stretch's answers: the number of the answers, and of the stretch in them.
pub(super) type Where = (usize, usize);

/// The answers before and after a change.
#[derive(Default)]
pub(super) struct Difference {
    pub(super) old: Side,
    pub(super) new: Side,
    comparators: HashMap<(usize, usize), Vec<Option<DynComparator>>>,
    /// The chunks that are ready, each for a partition.
    done: Vec<(u32, Chunk)>,
    /// The previous rows of partitions that fail now.
    pub(super) failing: Side,
    /// True if values have a type that can't be compared, so that a row may be deleted and inserted
    /// unchanged.
    is_unsure: bool,
}

impl Side {
    /// Adds answers; returns their number.
    pub(super) fn push(&mut self, answers: Answers) -> usize {
        self.all.push(answers);
        self.lines.push(Lines::default());
        self.all.len() - 1
    }

    fn put(&mut self, which: usize, part: usize, row: usize) {
        self.lines[which].rows.push(row as u32);
        self.lines[which].parts.push(part as u32);
    }

    /// Emits all rows of a stretch.
    pub(super) fn put_all(&mut self, (which, stretch): Where, part: usize) {
        for row in self.all[which].asked[stretch].clone() {
            self.put(which, part, row);
        }
    }
}

impl Difference {
    /// Emits the difference between the new and old rows of a cluster; the `from` values are the positions of
    /// the first requested rows.
    pub(super) fn compare(
        &mut self,
        part: usize,
        spots: &[Spot],
        (old_from, new_from): (u64, u64),
        (old, new): (Where, Where),
    ) -> Result<()> {
        let (old_rows, new_rows) =
            (self.old.all[old.0].asked[old.1].clone(), self.new.all[new.0].asked[new.1].clone());
        let pair = (old.0, new.0);
        if let Entry::Vacant(vacant) = self.comparators.entry(pair) {
            let comparators = comparators(&self.old.all[old.0].values, &self.new.all[new.0].values);
            self.is_unsure |= comparators.iter().any(Option::is_none);
            vacant.insert(comparators);
        }
        let comparators = &self.comparators[&pair];
        let (mut was, mut is) = (old_rows.start, new_rows.start);
        let place = |rows: &Range<usize>, from: u64, position: u64| rows.start + (position - from) as usize;
        let end = Spot { old: 0..0, new: 0..0 };
        for (at, spot) in spots.iter().chain(std::iter::once(&end)).enumerate() {
            let (until, kept) = match at < spots.len() {
                true => (
                    place(&old_rows, old_from, spot.old.start),
                    (spot.old.end - spot.old.start).min(spot.new.end - spot.new.start) as usize,
                ),
                false => (old_rows.end, 0),
            };
            // Remaining copies are like the rows between.
            while was < until + kept {
                if differ(comparators, was, is) {
                    self.old.put(old.0, part, was);
                    self.new.put(new.0, part, is);
                }
                (was, is) = (was + 1, is + 1);
            }
            if at == spots.len() {
                break;
            }
            while was < place(&old_rows, old_from, spot.old.end) {
                self.old.put(old.0, part, was);
                was += 1;
            }
            while is < place(&new_rows, new_from, spot.new.end) {
                self.new.put(new.0, part, is);
                is += 1;
            }
        }
        Ok(())
    }

    /// Emits the rows of a stretch whose values have changed.
    pub(super) fn revalue(
        &mut self,
        part: usize,
        answers: &Answers,
        old: &[ArrayRef],
        schema: &SchemaRef,
    ) -> Result<()> {
        let comparators = comparators(old, &answers.values);
        self.is_unsure |= comparators.iter().any(Option::is_none);
        let asked = answers.asked.first().cloned().unwrap_or_default();
        let rows: Vec<u32> =
            asked.filter(|row| differ(&comparators, *row, *row)).map(|row| row as u32).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let was = shown(&answers.rows, old, &rows, schema)?;
        let is = shown(&answers.rows, &answers.values, &rows, schema)?;
        self.done.push((part as u32, Chunk::delete(was)));
        self.done.push((part as u32, Chunk::insert(is)));
        Ok(())
    }

    /// Returns the whole output except that of some partitions.
    pub(super) fn into_delta(self, leave: &dyn Fn(usize) -> bool, schema: &SchemaRef) -> Result<Delta> {
        let mut delta = Delta::default();
        let keep = |_: usize| false;
        type Made<'a> = (Side, fn(RecordBatch) -> Chunk, &'a dyn Fn(usize) -> bool);
        let sides: [Made<'_>; 3] = [
            (self.old, Chunk::delete, leave),
            (self.new, Chunk::insert, leave),
            (self.failing, Chunk::delete, &keep),
        ];
        for (side, chunk, leave) in sides {
            for (answers, lines) in side.all.iter().zip(side.lines) {
                let kept = lines.rows.iter().zip(&lines.parts).filter(|(_, part)| !leave(**part as usize));
                let rows: Vec<u32> = kept.map(|(row, _)| *row).collect();
                for rows in rows.chunks(OUTPUT_ROWS.get()) {
                    delta.push(chunk(shown(&answers.rows, &answers.values, rows, schema)?));
                }
            }
        }
        for (_, chunk) in self.done.into_iter().filter(|(part, _)| !leave(*part as usize)) {
            delta.push(chunk);
        }
        if self.is_unsure {
            return Ok(consolidate(delta, schema)?);
        }
        Ok(delta)
    }
}

fn shown(batch: &RecordBatch, values: &[ArrayRef], rows: &[u32], schema: &SchemaRef) -> Result<RecordBatch> {
    let rows = UInt32Array::from(rows.to_vec());
    let mut columns = take_record_batch(batch, &rows)?.columns().to_vec();
    for column in values {
        columns.push(take(column, &rows, None)?);
    }
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// Returns comparators of values at two places; `None` for types without an order.
fn comparators(old: &[ArrayRef], new: &[ArrayRef]) -> Vec<Option<DynComparator>> {
    let pairs = old.iter().zip(new);
    pairs.map(|(old, new)| make_comparator(old, new, SortOptions::default()).ok()).collect()
}

fn differ(comparators: &[Option<DynComparator>], old: usize, new: usize) -> bool {
    let equal = |compare: &Option<DynComparator>| {
        compare.as_ref().is_some_and(|compare| compare(old, new) == Ordering::Equal)
    };
    !comparators.iter().all(equal)
}
