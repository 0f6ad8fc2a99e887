//! Functions whose frames begin with the partition. Their states are kept at some rows, so an answer doesn't
//! read the rows before.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::mem::size_of_val;
use std::ops::{Bound, Range};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter;
use arrow::datatypes::DataType;
use datafusion::common::utils::get_row_at_idx;
use datafusion::logical_expr::Accumulator;
use datafusion::logical_expr::window_state::WindowFrameContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::window::{PlainAggregateWindowExpr, WindowExpr};
use datafusion::scalar::ScalarValue;
use millstream_state::successor;

use crate::{Error, Result};

/// The states of some functions: for each the state of its accumulator.
pub(super) type States = Vec<Vec<ScalarValue>>;

/// A function over a frame that begins with the partition.
#[derive(Clone, Debug)]
pub struct Running {
    /// The call as DataFusion evaluates it, with the arguments, the order and the frame.
    pub call: Arc<dyn WindowExpr>,
    /// FILTER (WHERE …).
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// The kind of its state.
    pub taken: RunningKind,
}

/// The kind of a running function's state.
#[derive(Clone, Debug)]
pub enum RunningKind {
    /// The state of an aggregate function.
    Aggregate,
    /// The n-th row, counted from 1; if the flag is true, among rows with a value that isn't NULL.
    Nth(u64, bool),
    /// The last row whose value isn't NULL.
    LastValid,
}

/// Consecutive rows of one partition to evaluate a function over.
pub(super) struct Span<'a> {
    pub(super) rows: &'a RecordBatch,
    /// The requested rows.
    pub(super) asked: Range<usize>,
    /// True if the first row is the partition's first.
    pub(super) is_first: bool,
    /// The rows after which states are requested, ascending.
    pub(super) marks: &'a [usize],
}

impl Running {
    /// Returns the function's values for the requested rows, and its states after the marks. `seed` is its
    /// state before the span; `None` at the partition's start.
    pub(super) fn evaluate(
        &self,
        span: &Span<'_>,
        seed: Option<&[ScalarValue]>,
    ) -> Result<(ArrayRef, Vec<Vec<ScalarValue>>)> {
        let Span { rows, ref asked, is_first, marks } = *span;
        let count = rows.num_rows();
        let data_type = self.call.field()?.data_type().clone();
        let mut intake = Intake {
            values: self.call.evaluate_args(rows)?,
            mask: self.mask(rows)?,
            accumulator: self.accumulator(&data_type)?,
            taken: 0,
            marks,
            states: Vec::with_capacity(marks.len()),
        };
        if let Some(seed) = seed {
            let state = seed.iter().map(|value| Ok(value.to_array()?)).collect::<Result<Vec<_>>>()?;
            intake.accumulator.merge_batch(&state)?;
        }
        let columns = self.call.order_by_columns(rows)?;
        let options = self.call.order_by().iter().map(|sort| sort.options).collect();
        let columns: Vec<ArrayRef> = columns.into_iter().map(|column| column.values).collect();
        let mut frame = WindowFrameContext::new(Arc::clone(self.call.get_window_frame()), options);
        let mut last = 0..0;
        let mut values = Vec::with_capacity(asked.len());
        for row in 0..asked.end {
            let range = frame.calculate_range(&columns, &last, count, row)?;
            if asked.contains(&row) {
                let is_empty = is_first && range.end == 0;
                intake.through(range.end)?;
                values.push(match is_empty {
                    true => self.of_nothing(&data_type)?,
                    false => intake.accumulator.evaluate()?,
                });
            }
            last = 0..range.end;
        }
        intake.through(count)?;
        let values = match values.is_empty() {
            true => arrow::array::new_empty_array(&data_type),
            false => ScalarValue::iter_to_array(values)?,
        };
        Ok((values, intake.states))
    }

    fn mask(&self, rows: &RecordBatch) -> Result<Option<BooleanArray>> {
        let Some(filter) = &self.filter else { return Ok(None) };
        let mask = filter.evaluate(rows)?.into_array(rows.num_rows())?;
        let mask = mask.as_any().downcast_ref::<BooleanArray>();
        Ok(Some(mask.ok_or_else(|| Error::Bug("a FILTER is no boolean".into()))?.clone()))
    }

    fn accumulator(&self, data_type: &DataType) -> Result<Box<dyn Accumulator>> {
        let null = ScalarValue::try_from(data_type)?;
        Ok(match self.taken {
            RunningKind::Aggregate => self.aggregate()?.get_aggregate_expr().create_accumulator()?,
            RunningKind::Nth(n, valid) => Box::new(Nth { n, valid, seen: 0, value: null }),
            RunningKind::LastValid => Box::new(LastValid { value: null }),
        })
    }

    /// Returns the value for an empty frame.
    fn of_nothing(&self, data_type: &DataType) -> Result<ScalarValue> {
        Ok(match self.taken {
            RunningKind::Aggregate => self.aggregate()?.get_aggregate_expr().default_value(data_type)?,
            _ => ScalarValue::try_from(data_type)?,
        })
    }

    fn aggregate(&self) -> Result<&PlainAggregateWindowExpr> {
        let found = self.call.as_any().downcast_ref::<PlainAggregateWindowExpr>();
        found.ok_or_else(|| Error::Bug("a running aggregate whose frame slides".into()))
    }
}

/// Adds rows to the state, stretch by stretch.
struct Intake<'a> {
    values: Vec<ArrayRef>,
    mask: Option<BooleanArray>,
    accumulator: Box<dyn Accumulator>,
    /// The number of rows added so far.
    taken: usize,
    marks: &'a [usize],
    states: Vec<Vec<ScalarValue>>,
}

impl Intake<'_> {
    /// Adds the rows before `end`, and records the requested states.
    fn through(&mut self, end: usize) -> Result<()> {
        while let Some(mark) = self.marks.get(self.states.len()).copied().filter(|mark| *mark <= end) {
            self.take(mark)?;
            self.states.push(self.accumulator.state()?);
        }
        self.take(end)
    }

    fn take(&mut self, end: usize) -> Result<()> {
        if end <= self.taken {
            return Ok(());
        }
        let (from, count) = (self.taken, end - self.taken);
        let mask = self.mask.as_ref().map(|mask| mask.slice(from, count));
        let mut values = Vec::with_capacity(self.values.len());
        for column in &self.values {
            let column = column.slice(from, count);
            values.push(match &mask {
                Some(mask) => filter(&column, mask)?,
                None => column,
            });
        }
        self.accumulator.update_batch(&values)?;
        self.taken = end;
        Ok(())
    }
}

/// The n-th row.
#[derive(Debug)]
struct Nth {
    n: u64,
    /// True if only values that aren't NULL count.
    valid: bool,
    seen: u64,
    value: ScalarValue,
}

impl Accumulator for Nth {
    fn update_batch(&mut self, values: &[ArrayRef]) -> datafusion::error::Result<()> {
        let Some(column) = values.first() else { return Ok(()) };
        for row in 0..column.len() {
            if self.seen >= self.n {
                return Ok(());
            }
            if self.valid && column.is_null(row) {
                continue;
            }
            self.seen += 1;
            if self.seen == self.n {
                self.value = one(column, row)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> datafusion::error::Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.value.size()
    }

    fn state(&mut self) -> datafusion::error::Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::from(self.seen), self.value.clone()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> datafusion::error::Result<()> {
        if let [seen, value] = states
            && let ScalarValue::UInt64(Some(seen)) = ScalarValue::try_from_array(seen, 0)?
        {
            (self.seen, self.value) = (seen, one(value, 0)?);
        }
        Ok(())
    }
}

/// The last row whose value isn't NULL.
#[derive(Debug)]
struct LastValid {
    value: ScalarValue,
}

impl Accumulator for LastValid {
    fn update_batch(&mut self, values: &[ArrayRef]) -> datafusion::error::Result<()> {
        let Some(column) = values.first() else { return Ok(()) };
        if let Some(row) = (0..column.len()).rev().find(|row| !column.is_null(*row)) {
            self.value = one(column, row)?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> datafusion::error::Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.value.size()
    }

    fn state(&mut self) -> datafusion::error::Result<Vec<ScalarValue>> {
        Ok(vec![self.value.clone()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> datafusion::error::Result<()> {
        if let [value] = states {
            self.value = one(value, 0)?;
        }
        Ok(())
    }
}

/// Returns a value without a reference to its column.
fn one(column: &ArrayRef, row: usize) -> datafusion::error::Result<ScalarValue> {
    let mut values = get_row_at_idx(std::slice::from_ref(column), row)?;
    let mut value = values.swap_remove(0);
    value.compact();
    Ok(value)
}

/// States of running functions at some rows: each includes the row of its key and all rows before.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    states: BTreeMap<Box<[u8]>, States>,
    bytes: usize,
}

impl Checkpoints {
    /// Returns the last state of a partition before a key, or before the partition's end.
    pub(super) fn last_before(&self, prefix: &[u8], key: Option<&[u8]>) -> Option<(&[u8], &States)> {
        let end = successor(prefix);
        let end = match (key, &end) {
            (Some(key), _) => Bound::Excluded(key),
            (None, Some(end)) => Bound::Excluded(&end[..]),
            (None, None) => Bound::Unbounded,
        };
        let mut range = self.states.range::<[u8], _>((Bound::Included(prefix), end));
        range.next_back().map(|(key, states)| (&**key, states))
    }

    /// Replaces the states after `after` (or from the partition's start) and before `before` (or up to its
    /// end).
    pub(super) fn replace(
        &mut self,
        prefix: &[u8],
        after: Option<&[u8]>,
        before: Option<&[u8]>,
        states: Vec<(Box<[u8]>, States)>,
    ) {
        let start = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let end = successor(prefix);
        let end = match (before, &end) {
            (Some(before), _) => Bound::Excluded(before),
            (None, Some(end)) => Bound::Excluded(&end[..]),
            (None, None) => Bound::Unbounded,
        };
        let old: Vec<Box<[u8]>> =
            self.states.range::<[u8], _>((start, end)).map(|(key, _)| key.clone()).collect();
        for key in old {
            if let Some(states) = self.states.remove(&key) {
                self.bytes -= bytes(&key, &states);
            }
        }
        for (key, states) in states {
            self.bytes += bytes(&key, &states);
            if let Some(old) = self.states.insert(key.clone(), states) {
                self.bytes -= bytes(&key, &old);
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes
    }
}

fn bytes(key: &[u8], states: &States) -> usize {
    let of =
        |state: &Vec<ScalarValue>| size_of_val(state) + state.iter().map(ScalarValue::size).sum::<usize>();
    key.len() + size_of_val(states) + 16 + states.iter().map(of).sum::<usize>()
}
