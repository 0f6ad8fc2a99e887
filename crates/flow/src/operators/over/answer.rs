//! Computes the answers of some stretches of rows from these rows and some around them.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt64Array, new_null_array};
use arrow::compute::kernels::numeric::sub_wrapping;
use arrow::compute::{cast, concat, interleave};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::window::WindowExpr;
use millstream_state::Entry;

use super::change::Shifts;
use super::extent::{Bounds, Places, Reach};
use super::running::{Running, Span, States};
use crate::Result;

/// The distance of rows in a partition after which the states of running functions are kept.
const CHECKPOINT_ROWS: u64 = if cfg!(test) { 3 } else { 64 };

/// A function and the way in which it is computed.
#[derive(Clone, Debug)]
pub enum Function {
    /// From the row's position.
    Number(Number),
    /// The value of the row at an offset before it; negative: after it.
    Shift {
        /// The value.
        value: Arc<dyn PhysicalExpr>,
        /// The offset.
        offset: i64,
        /// The default, a single value, if there is no such row.
        default: ArrayRef,
    },
    /// By DataFusion, over the rows that it reads.
    Near(Arc<dyn WindowExpr>),
    /// From the state of the rows so far.
    Running(Running),
}

/// A value that follows from a row's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// The row's number: `row_number`.
    Row,
    /// The number of the first of its peers: `rank`.
    Rank,
    /// The number of its group of peers: `dense_rank`.
    Dense,
}

/// A function with the rows that it reads.
#[derive(Clone, Debug)]
pub struct Call {
    /// The function.
    pub function: Function,
    /// The rows that it reads; for a running function, besides those in its state.
    pub reach: Reach,
}

/// Consecutive rows of one partition whose answers are requested.
pub(super) struct Stretch<'a> {
    pub(super) bounds: Bounds<'a>,
    /// The positions of the requested rows.
    pub(super) asked: Range<u64>,
    /// The positions of all rows to read.
    pub(super) slice: Range<u64>,
    /// The state of running functions before the slice, and its key; `None` at the partition's start.
    pub(super) seed: Option<(Option<Box<[u8]>>, States)>,
    /// The row before which their states are requested.
    pub(super) noted: Option<u64>,
}

/// The rows of some stretches with their answers.
pub(super) struct Answers {
    /// All rows that were read.
    pub(super) rows: RecordBatch,
    /// The functions' values for these; only those of requested rows are valid.
    pub(super) values: Vec<ArrayRef>,
    /// The places of each stretch's requested rows.
    pub(super) asked: Vec<Range<usize>>,
    /// The states of running functions for each stretch.
    pub(super) taken: Vec<TakenIn>,
}

/// The states of running functions.
#[derive(Debug, Default)]
pub(super) struct TakenIn {
    /// The states before the requested row.
    pub(super) noted: Option<States>,
    /// The states that include some rows, by the rows' keys.
    pub(super) checkpoints: Vec<(Box<[u8]>, States)>,
}

/// The functions of an OVER.
#[derive(Debug)]
pub(super) struct Functions {
    pub(super) calls: Vec<Call>,
    /// The reach of all functions that read nearby rows.
    pub(super) reach: Reach,
    /// The schema of the input's columns and the values.
    pub(super) schema: SchemaRef,
}

/// The rows of some stretches during the search.
#[derive(Default)]
struct Found {
    ids: Vec<u64>,
    /// The places of each stretch's rows.
    slices: Vec<Range<usize>>,
    row_numbers: Vec<u64>,
    ranks: Vec<u64>,
    dense_ranks: Vec<u64>,
    /// For each stretch the rows after which a state is kept, and their keys.
    marks: Vec<Vec<(usize, Box<[u8]>)>>,
}

impl Functions {
    pub(super) fn new(calls: Vec<Call>, schema: SchemaRef) -> Functions {
        let mut reach = Reach::default();
        calls.iter().for_each(|call| reach.and(&call.reach));
        Functions { calls, reach, schema }
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &Running> {
        self.calls.iter().filter_map(|call| match &call.function {
            Function::Running(running) => Some(running),
            _ => None,
        })
    }

    pub(super) fn is_running(&self) -> bool {
        self.running().next().is_some()
    }

    pub(super) fn has(&self, number: Number) -> bool {
        self.calls.iter().any(|call| matches!(call.function, Function::Number(found) if found == number))
    }

    /// Returns true if groups of peers are counted.
    pub(super) fn counts_groups(&self) -> bool {
        self.has(Number::Dense) || self.reach.counts_groups()
    }

    /// Returns the answers of stretches.
    pub(super) fn answers(&self, places: Places<'_>, stretches: &[Stretch<'_>]) -> Result<Answers> {
        let mut found = Found::default();
        for stretch in stretches {
            self.find(places, stretch, &mut found);
        }
        let rows = places.rows.gather(&found.ids)?;
        let taken = found.marks.iter_mut().map(|marks| TakenIn {
            noted: None,
            checkpoints: marks.iter_mut().map(|(_, key)| (std::mem::take(key), Vec::new())).collect(),
        });
        let mut taken: Vec<TakenIn> = taken.collect();
        let mut values = Vec::with_capacity(self.calls.len());
        for (at, call) in self.calls.iter().enumerate() {
            let column = match &call.function {
                Function::Number(number) => self.number(&found, *number, at)?,
                Function::Shift { value, offset, default } => shift(&rows, &found, value, *offset, default)?,
                Function::Near(function) => near(&rows, &found, function, || self.null(at, 0))?,
                Function::Running(running) => {
                    self.run(&rows, &found, stretches, (running, at), &mut taken)?
                }
            };
            values.push(column);
        }
        let asked = |(stretch, slice): (&Stretch<'_>, &Range<usize>)| {
            let from = slice.start + (stretch.asked.start - stretch.slice.start) as usize;
            from..from + (stretch.asked.end - stretch.asked.start) as usize
        };
        let asked = stretches.iter().zip(&found.slices).map(asked).collect();
        Ok(Answers { rows, values, asked, taken })
    }

    fn find(&self, places: Places<'_>, stretch: &Stretch<'_>, found: &mut Found) {
        let Found { ids, slices, row_numbers, ranks, dense_ranks, marks: all_marks } = found;
        let (slice, start) = (&stretch.slice, ids.len());
        let (by_peers, dense) = (self.has(Number::Rank) || self.has(Number::Dense), self.has(Number::Dense));
        let (by_rows, running) = (self.has(Number::Row), self.is_running());
        let first = stretch.bounds.range.start;
        let groups = if dense { places.groups.position(stretch.bounds.prefix) } else { 0 };
        let (mut marks, mut kept) = (Vec::new(), slice.start);
        let mut group: Option<(&[u8], u64, u64)> = None;
        let mut take = |position: u64, entry: Entry<'_>, end: u64| {
            let range = position.max(slice.start)..end.min(slice.end);
            ids.extend(range.clone().map(|_| entry.id));
            if by_rows {
                row_numbers.extend(range.clone().map(|at| at - first + 1));
            }
            if running && end <= slice.end && end - kept >= CHECKPOINT_ROWS {
                marks.push(((end - slice.start) as usize, entry.key.into()));
                kept = end;
            }
            range.end - range.start
        };
        if !slice.is_empty() {
            places.rows.scan(slice.start, &mut |position, entry| {
                let end = position + entry.copies;
                let copies = take(position, entry, end);
                if by_peers {
                    let peers = places.sorter.peers(entry.key);
                    let (rank, number) = match group {
                        Some((known, rank, number)) if known == peers => (rank, number),
                        Some((_, _, number)) => (position - first + 1, number + 1),
                        // The first row may have peers before it.
                        None => {
                            let before = if dense { places.groups.position(peers) - groups } else { 0 };
                            (places.rows.position(peers) - first + 1, before + 1)
                        }
                    };
                    group = Some((peers, rank, number));
                    ranks.extend((0..copies).map(|_| rank));
                    dense_ranks.extend((0..copies).map(|_| number));
                }
                end < slice.end
            });
        }
        slices.push(start..ids.len());
        all_marks.push(marks);
    }

    fn number(&self, found: &Found, number: Number, at: usize) -> Result<ArrayRef> {
        let numbers = match number {
            Number::Row => &found.row_numbers,
            Number::Rank => &found.ranks,
            Number::Dense => &found.dense_ranks,
        };
        self.typed(Arc::new(UInt64Array::from(numbers.clone())), at)
    }

    /// Returns true if numbers of rows have changed.
    pub(super) fn moves(&self, shifts: Shifts) -> bool {
        self.calls
            .iter()
            .any(|call| matches!(call.function, Function::Number(number) if shifts.of(number) != 0))
    }

    /// Returns numbers as they were before the change.
    pub(super) fn shift_back(&self, values: &mut [ArrayRef], shifts: Shifts) -> Result<()> {
        for (at, call) in self.calls.iter().enumerate() {
            if let Function::Number(number) = call.function {
                let shift = Int64Array::new_scalar(shifts.of(number));
                let numbers = cast(&values[at], &DataType::Int64)?;
                values[at] = self.typed(sub_wrapping(&numbers, &shift)?, at)?;
            }
        }
        Ok(())
    }

    /// Casts numbers to the type that the plan gives them.
    fn typed(&self, numbers: ArrayRef, at: usize) -> Result<ArrayRef> {
        Ok(cast(&numbers, self.field(at).data_type())?)
    }

    fn field(&self, at: usize) -> &arrow::datatypes::FieldRef {
        let first = self.schema.fields().len() - self.calls.len();
        &self.schema.fields()[first + at]
    }

    fn null(&self, at: usize, count: usize) -> ArrayRef {
        new_null_array(self.field(at).data_type(), count)
    }

    /// Returns the values of a running function, and its states.
    fn run(
        &self,
        rows: &RecordBatch,
        found: &Found,
        stretches: &[Stretch<'_>],
        (running, at): (&Running, usize),
        taken: &mut [TakenIn],
    ) -> Result<ArrayRef> {
        let place = self.calls[..at].iter().filter(|call| matches!(call.function, Function::Running(_)));
        let place = place.count();
        let mut columns = Vec::with_capacity(3 * stretches.len());
        for (number, stretch) in stretches.iter().enumerate() {
            let slice = &found.slices[number];
            let asked = (stretch.asked.start - stretch.slice.start) as usize;
            let asked = asked..asked + (stretch.asked.end - stretch.asked.start) as usize;
            let mut marks: Vec<usize> = found.marks[number].iter().map(|(end, _)| *end).collect();
            let noted = stretch.noted.map(|noted| (noted - stretch.slice.start) as usize);
            let inserted = noted.map(|noted| {
                let place = marks.partition_point(|mark| *mark < noted);
                marks.insert(place, noted);
                place
            });
            let span = Span {
                rows: &rows.slice(slice.start, slice.len()),
                asked: asked.clone(),
                is_first: stretch.slice.start == stretch.bounds.range.start,
                marks: &marks,
            };
            let seed = stretch.seed.as_ref().map(|(_, states)| &states[place][..]);
            let (values, mut states) = running.evaluate(&span, seed)?;
            if let Some(inserted) = inserted {
                taken[number].noted.get_or_insert_default().push(states.remove(inserted));
            }
            for ((_, kept), state) in taken[number].checkpoints.iter_mut().zip(states) {
                kept.push(state);
            }
            columns.extend([self.null(at, asked.start), values, self.null(at, slice.len() - asked.end)]);
        }
        let columns: Vec<_> = columns.iter().map(|column| column.as_ref()).collect();
        if columns.is_empty() { Ok(self.null(at, 0)) } else { Ok(concat(&columns)?) }
    }

    /// Returns the values of running functions for one stretch's rows, given other states before it, and
    /// their states before the requested row.
    pub(super) fn rerun(
        &self,
        answers: &Answers,
        stretch: &Stretch<'_>,
    ) -> Result<(Vec<ArrayRef>, Option<States>)> {
        let found = Found {
            slices: std::iter::once(0..answers.rows.num_rows()).collect(),
            marks: vec![Vec::new()],
            ..Found::default()
        };
        let (mut values, mut taken) = (answers.values.clone(), [TakenIn::default()]);
        for (at, call) in self.calls.iter().enumerate() {
            if let Function::Running(running) = &call.function {
                let one = std::slice::from_ref(stretch);
                values[at] = self.run(&answers.rows, &found, one, (running, at), &mut taken)?;
            }
        }
        let [TakenIn { noted, .. }] = taken;
        Ok((values, noted))
    }
}

/// Returns the values of rows at an offset before.
fn shift(
    rows: &RecordBatch,
    found: &Found,
    value: &Arc<dyn PhysicalExpr>,
    offset: i64,
    default: &ArrayRef,
) -> Result<ArrayRef> {
    let values = value.evaluate(rows)?.into_array(rows.num_rows())?;
    let mut places = Vec::with_capacity(rows.num_rows());
    for slice in &found.slices {
        for row in slice.clone() {
            let place = (row as i64).checked_sub(offset).and_then(|place| usize::try_from(place).ok());
            places.push(match place.filter(|place| slice.contains(place)) {
                Some(place) => (0, place),
                None => (1, 0),
            });
        }
    }
    Ok(interleave(&[values.as_ref(), default.as_ref()], &places)?)
}

/// Returns DataFusion's values for each stretch.
fn near(
    rows: &RecordBatch,
    found: &Found,
    function: &Arc<dyn WindowExpr>,
    nothing: impl Fn() -> ArrayRef,
) -> Result<ArrayRef> {
    let mut columns = Vec::with_capacity(found.slices.len());
    for slice in found.slices.iter().filter(|slice| !slice.is_empty()) {
        columns.push(function.evaluate(&rows.slice(slice.start, slice.len()))?);
    }
    match &columns[..] {
        [] => Ok(nothing()),
        [column] => Ok(Arc::clone(column)),
        columns => Ok(concat(&columns.iter().map(|column| column.as_ref()).collect::<Vec<_>>())?),
    }
}
