//! Folds the rows of a frame, or of a window over time, in arrival order. With MINVFUNC it retracts them in
//! that order.
//!
//! Rows that may be retracted are kept, since MINVFUNC may return NULL if it can't compute the state before a
//! row. The state is then recomputed from the remaining rows. Without rows, the state is the initial one.

use std::collections::VecDeque;
use std::fmt;

use arrow::array::{Array, ArrayRef};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;
use datafusion::scalar::ScalarValue;

use super::super::fold::{Fold, States};
use super::{Machine, MovingMachine};
use crate::error::Error;

/// The state of one group.
pub(super) struct SlidingFrame {
    machine: Machine,
    inverse: Option<Fold>,
    /// The sort options for rows that arrive together. Their keys come after the arguments.
    order: Vec<SortOptions>,
    states: States,
    /// The number of rows in the state, without those that a strict function skips.
    counted: usize,
    /// True if the state must be recomputed.
    stale: bool,
    /// Rows that may be retracted, oldest first.
    rows: VecDeque<Vec<ArrayRef>>,
}

impl SlidingFrame {
    /// Creates a state without retraction.
    pub(super) fn growing(machine: Machine, order: Vec<SortOptions>) -> Result<SlidingFrame> {
        SlidingFrame::new(machine, None, order)
    }

    /// Creates a state with retraction.
    pub(super) fn taking_back(moving: MovingMachine) -> Result<SlidingFrame> {
        SlidingFrame::new(moving.machine, Some(moving.inverse), Vec::new())
    }

    /// Adds sort options for rows that arrive together.
    pub(super) fn sorting(self, order: Vec<SortOptions>) -> SlidingFrame {
        SlidingFrame { order, ..self }
    }

    fn new(machine: Machine, inverse: Option<Fold>, order: Vec<SortOptions>) -> Result<SlidingFrame> {
        let states = first(&machine)?;
        Ok(SlidingFrame { machine, inverse, order, states, counted: 0, stale: false, rows: VecDeque::new() })
    }

    /// Returns the sorted arguments of rows that arrive together.
    fn sorted(&self, values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let (arguments, keys) = values.split_at(self.machine.inputs.len().min(values.len()));
        if self.order.is_empty() || values[0].len() < 2 {
            return Ok(arguments.to_vec());
        }
        let keys = keys.iter().zip(&self.order);
        let keys: Vec<SortColumn> =
            keys.map(|(key, order)| SortColumn { values: key.clone(), options: Some(*order) }).collect();
        let order = lexsort_to_indices(&keys, None)?;
        Ok(arguments.iter().map(|column| take(column, &order, None)).collect::<Result<_, _>>()?)
    }

    /// True unless a strict function skips the row.
    fn counts(&self, rows: &[ArrayRef], row: usize) -> bool {
        !self.machine.step.strict || rows.iter().all(|column| column.is_valid(row))
    }

    /// Retracts the oldest rows from the state.
    fn take_back(&mut self, rows: &[ArrayRef]) -> Result<()> {
        let Some(inverse) = self.inverse.clone() else {
            return Err(Error::bug("rows that stay are taken back").into());
        };
        for row in 0..length(rows) {
            if !self.counts(rows, row) {
                continue;
            }
            if self.counted <= 1 {
                (self.counted, self.stale) = (0, false);
                self.states = first(&self.machine)?;
                continue;
            }
            self.counted -= 1;
            if !self.stale {
                let row: Vec<ArrayRef> = rows.iter().map(|column| column.slice(row, 1)).collect();
                inverse.fold(&mut self.states, &row, &[0])?;
                self.stale = self.states.values.is_null(0);
            }
        }
        Ok(())
    }
}

/// Returns the initial state.
fn first(machine: &Machine) -> Result<States> {
    Ok(States { values: machine.initial.to_array_of_size(1)?, begun: vec![false] })
}

fn length(rows: &[ArrayRef]) -> usize {
    rows.first().map_or(0, Array::len)
}

impl fmt::Debug for SlidingFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlidingFrame({} rows)", self.counted)
    }
}

impl Accumulator for SlidingFrame {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = self.sorted(values)?;
        let count = length(&rows);
        if count == 0 {
            return Ok(());
        }
        if !self.stale {
            self.machine.step.fold(&mut self.states, &rows, &vec![0; count])?;
        }
        self.counted += (0..count).filter(|row| self.counts(&rows, *row)).count();
        if self.inverse.is_some() {
            self.rows.push_back(rows);
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let mut left = length(values);
        while left > 0 {
            let Some(mut oldest) = self.rows.pop_front() else {
                return Err(Error::bug("a row leaves a frame that it isn't in").into());
            };
            let held = length(&oldest);
            if held > left {
                self.rows.push_front(oldest.iter().map(|column| column.slice(left, held - left)).collect());
                oldest = oldest.iter().map(|column| column.slice(0, left)).collect();
            }
            left -= held.min(left);
            self.take_back(&oldest)?;
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        self.inverse.is_some()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.stale {
            let mut states = first(&self.machine)?;
            for rows in &self.rows {
                self.machine.step.fold(&mut states, rows, &vec![0; length(rows)])?;
            }
            (self.states, self.stale) = (states, false);
        }
        ScalarValue::try_from_array(&self.machine.results(self.states.values.clone())?, 0)
    }

    fn size(&self) -> usize {
        let columns = self.rows.iter().flatten();
        size_of_val(self) + columns.map(|column| column.get_array_memory_size()).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Err(Error::bug("a frame is never split").into())
    }

    fn merge_batch(&mut self, _states: &[ArrayRef]) -> Result<()> {
        Err(Error::bug("a frame is never split").into())
    }
}
