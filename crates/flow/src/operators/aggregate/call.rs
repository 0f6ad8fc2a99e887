//! A call of an aggregate function: its arguments and its state.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::prep_null_mask_filter;
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::Chunk;
use millstream_state::Spillable;

use super::Placed;
use super::groups::Touched;
use super::parallel_update::PartitionedBatch;
use super::slot::{Batch, SlotAggregate};
use crate::driver::evaluate;
use crate::failure::keep;
use crate::parallelism::Threads;
use crate::{Error, Result};

/// A call of an aggregate function.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) text: String,
    pub(super) arguments: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) filter: Option<Arc<dyn PhysicalExpr>>,
    /// True if rows with a NULL argument count, too.
    pub(super) takes_nulls: bool,
    pub(super) kept: CallState,
}

/// The state of a call.
#[derive(Debug)]
pub(super) enum CallState {
    /// The number of the group's rows, which the groups count anyway.
    Rows,
    Slots(Box<dyn SlotAggregate>),
}

/// The arguments of a call over some rows.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    values: Vec<ArrayRef>,
    valid: Option<NullBuffer>,
    weights: Option<Int64Array>,
    count: usize,
}

impl Arguments {
    /// Returns the rows with these slots.
    pub(super) fn batch<'a>(&'a self, slots: &'a [u32]) -> Batch<'a> {
        let weights = self.weights.as_ref().map(|weights| &weights.values()[..]);
        Batch { slots: &slots[..self.count], values: &self.values, valid: self.valid.as_ref(), weights }
    }
}

impl Call {
    /// Evaluates the arguments and the filter. `global` is true if there are no groups.
    pub(super) fn evaluate(&self, chunk: &Chunk, global: bool) -> Result<Arguments> {
        if let CallState::Rows = self.kept {
            return Ok(Arguments::default());
        }
        let passed = self.filter.as_ref().map(|filter| passed(filter, &chunk.rows)).transpose()?;
        // As in a batch query: without groups, arguments aren't evaluated for rows that the filter drops, and
        // can't fail for them; with groups they are evaluated for all.
        let mut filtered = None;
        let (chunk, passed) = match passed {
            Some(passed) if global => (&*filtered.insert(keep(chunk, &passed)?), None),
            passed => (chunk, passed.map(|passed| NullBuffer::new(passed.values().clone()))),
        };
        let values = evaluate(&self.arguments, &chunk.rows)?;
        let mut valid = passed;
        if !self.takes_nulls {
            for value in &values {
                valid = NullBuffer::union(valid.as_ref(), value.logical_nulls().as_ref());
            }
        }
        let valid = valid.filter(|valid| valid.null_count() > 0);
        Ok(Arguments { values, valid, weights: chunk.weights.clone(), count: chunk.rows.num_rows() })
    }

    /// Adds rows, whose arguments of this call are at place `at`.
    pub(super) fn take(&mut self, placed: &[Placed], at: usize, threads: &Threads) -> Result<()> {
        let CallState::Slots(kept) = &mut self.kept else { return Ok(()) };
        let mut apart = Vec::new();
        for Placed { slots, arguments, parted } in placed {
            for (list, slots) in slots.iter().enumerate() {
                let batch = arguments[at].batch(slots);
                match parted.get(list) {
                    Some(parted) => apart.push(PartitionedBatch { batch, parted }),
                    None => kept.update(&batch)?,
                }
            }
        }
        kept.update_in_parallel(&apart, threads)
    }

    /// Returns the results for some groups.
    pub(super) fn results(&self, groups: &[Touched], slots: &[u32]) -> Result<ArrayRef> {
        match &self.kept {
            CallState::Rows => {
                Ok(Arc::new(Int64Array::from_iter_values(groups.iter().map(|group| group.rows))))
            }
            CallState::Slots(kept) => kept.evaluate(slots),
        }
    }

    /// Returns true if the result is the number of the group's rows.
    pub(super) fn counts_rows(&self) -> bool {
        matches!(self.kept, CallState::Rows)
    }

    /// Returns true if a group may have no result.
    pub(super) fn may_fail(&self) -> bool {
        match &self.kept {
            CallState::Rows => false,
            CallState::Slots(kept) => kept.may_fail(),
        }
    }

    pub(super) fn resize(&mut self, end: usize) {
        if let CallState::Slots(kept) = &mut self.kept {
            kept.resize(end);
        }
    }

    pub(super) fn free(&mut self, slot: u32) {
        if let CallState::Slots(kept) = &mut self.kept {
            kept.free(slot);
        }
    }

    /// Forgets groups whose rows weren't retracted.
    pub(super) fn forget_slots(&mut self, slots: &[u32]) {
        if let CallState::Slots(kept) = &mut self.kept {
            kept.forget_slots(slots);
        }
    }

    /// Forgets all rows; their groups had these slots.
    pub(super) fn clear(&mut self, slots: &[u32]) {
        if let CallState::Slots(kept) = &mut self.kept {
            kept.forget();
            slots.iter().for_each(|slot| kept.free(*slot));
        }
    }

    /// Returns true if a result is computed from all rows of the group.
    pub(super) fn takes_all(&self) -> bool {
        match &self.kept {
            CallState::Rows => false,
            CallState::Slots(kept) => kept.takes_all(),
        }
    }

    /// Returns the state besides one value per group, in words; empty if there is none.
    pub(super) fn keeps(&self) -> &'static str {
        match &self.kept {
            CallState::Rows => "",
            CallState::Slots(kept) => kept.keeps(),
        }
    }

    pub(super) fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        if let CallState::Slots(kept) = &mut self.kept {
            kept.each_store(show);
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match &self.kept {
            CallState::Rows => 0,
            CallState::Slots(kept) => kept.memory_bytes(),
        }
    }
}

/// Returns a mask of the rows for which a filter is true.
fn passed(filter: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<BooleanArray> {
    let mask = filter.evaluate(rows)?.into_array(rows.num_rows())?;
    let mask = mask.as_boolean_opt().ok_or_else(|| Error::Bug("a filter gave no booleans".into()))?;
    Ok(if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() })
}
