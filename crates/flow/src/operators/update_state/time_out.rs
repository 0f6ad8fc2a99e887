//! The end of keys that had no rows for the time-out.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, new_empty_array};
use arrow::buffer::OffsetBuffer;
use millstream_delta::Chunk;

use super::{Answered, UpdateState};
use crate::Result;
use crate::operator::Output;

impl UpdateState {
    /// Drops the keys that had no rows for too long, after their last call if the function takes one.
    pub(super) fn time_out(&mut self, now: i64, output: &mut Output) -> Result<()> {
        let mut due = self.timeouts.take_due(now);
        due.extend(std::mem::take(&mut self.overdue));
        if due.is_empty() {
            return Ok(());
        }
        due.sort_unstable();
        let failing: Vec<u32> = due.iter().filter(|slot| self.failing.contains_key(slot)).copied().collect();
        for slot in failing {
            let has_state = !self.results.get(&[slot])?.1.is_empty();
            // Otherwise the last call ends the failure, or replaces it.
            if !has_state || !self.calls.takes_timing_out {
                self.mend(slot, output);
            }
            if !has_state {
                self.give_up(slot);
            }
        }
        // A slot may have been freed since: then it has no state.
        let (_, places) = self.results.get(&due)?;
        let due: Vec<u32> = places.into_iter().map(|place| due[place]).collect();
        match due.is_empty() {
            true => Ok(()),
            false if self.calls.takes_timing_out => self.call_last(due, output),
            false => {
                let results = self.results_of(&due)?;
                self.drop_keys(due, &results, output)
            }
        }
    }

    /// Calls the function for keys that are about to be dropped. Those whose call fails stay.
    fn call_last(&mut self, due: Vec<u32>, output: &mut Output) -> Result<()> {
        let offsets = OffsetBuffer::from_lengths(vec![0; due.len()]);
        let values = new_empty_array(self.calls.item.data_type());
        let arrays: ArrayRef = Arc::new(ListArray::try_new(self.calls.item.clone(), offsets, values, None)?);
        let batch = self.batch_of(due, arrays, true)?;
        let answers = self.answers(&batch)?;
        self.overdue.extend(answers.failed.iter().map(|(place, _)| batch.slots[*place]));
        let Some(Answered { slots, old, new }) = self.settle(&batch, &answers, output)? else {
            return Ok(());
        };
        if self.batch.is_some() {
            output.rows.push(Chunk::insert(self.called_rows(&slots, &new)?));
        }
        self.drop_keys(slots, &old, output)
    }

    /// Drops keys with these last results.
    fn drop_keys(&mut self, slots: Vec<u32>, results: &ArrayRef, output: &mut Output) -> Result<()> {
        if self.batch.is_none() {
            let all = (0..slots.len() as u32).collect();
            output.rows.push(Chunk::delete(self.rows(&slots, results, all)?));
        }
        for slot in slots {
            self.results.free(slot);
            self.give_up(slot);
        }
        Ok(())
    }
}
