//! UPDATE_STATE: a state for each key, which a function updates in each batch.
//!
//! In each batch the function is called for the keys with rows in it (or for all keys). Its arguments are the
//! array of their values, in order of arrival, and the state so far, NULL for a new key. It returns the new
//! state; NULL drops the key. All keys of a batch are called at once, on columns. A step with rows is a
//! batch, and so is a tick of a fixed interval.
//!
//! A function may return mapped values beside the state: a struct whose first field is the new state. The
//! whole struct is a column of the result, and the operator keeps that of each key's last call.
//!
//! A key without rows for the time-out is dropped when that is over, at the latest in the first batch after
//! it. A function that takes a third argument, which is true then and else false, is called for the last
//! time before that. A key whose call fails keeps its state. That is a failure until its next call succeeds,
//! or the key is dropped: its rows don't come again. If the last call fails, it is repeated in the next step.
//!
//! In a query FOR EACH BATCH the result is the keys called in the batch, with their new states.
//!
//! Deliberately absent: input with deletes; the state isn't a function of the remaining rows.

mod key_timeouts;
mod lower;
mod persistence;
#[cfg(test)]
mod tests;
mod time_out;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, UInt32Array, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{concat, interleave, is_not_null, is_null, nullif, take};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use millstream_delta::{Chunk, Closes, Cut, Delta, Timestamp};
use millstream_state::{KeyIndex, SlotMarks, Slotted, Spillable, Tables};

use crate::driver::evaluate;
use crate::failure::{Failure, keep, reason, row_text, surviving};
use crate::operator::{
    Abilities, Content, Description, Growth, KeepsResult, Operator, Output, Properties, State, Timers,
};
use crate::operators::aggregate::changed;
use crate::{Error, Result};
use key_timeouts::KeyTimeouts;
pub use lower::{Rows, holds_update_state, is_update_state, lower};

/// Keeps one state per key.
#[derive(Debug)]
pub struct UpdateState {
    properties: Properties,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    value: Arc<dyn PhysicalExpr>,
    function: Arc<AggregateFunctionExpr>,
    calls: Calls,
    timeouts: KeyTimeouts,
    index: KeyIndex,
    /// The result of each key's last call: the state, alone or with mapped values.
    results: Slotted,
    /// The keys that had no rows for the time-out and whose last call failed. All are among `failing`.
    overdue: BTreeSet<u32>,
    /// The keys whose last call failed; those that never had a state have a slot all the same.
    failing: BTreeMap<u32, Failure>,
    /// The slots that have changed.
    marks: SlotMarks,
    /// The output of the last batch, if the output is of each batch alone.
    batch: Option<Last>,
}

/// The way in which the function is called.
#[derive(Clone, Debug)]
struct Calls {
    /// The element type of the arrays that the function takes.
    item: FieldRef,
    /// True if a result of the function is a struct of the state and mapped values.
    is_mapped: bool,
    /// True if the function takes a third argument: true in the last call, at the time-out.
    takes_timing_out: bool,
    /// True if it is called for all keys in each batch.
    all_keys: bool,
}

/// The output of the last batch, which the next one retracts.
#[derive(Debug, Default)]
struct Last {
    rows: Delta,
    failures: Vec<Failure>,
}

/// The keys of a batch and their values.
#[derive(Default)]
struct Called {
    slots: Vec<u32>,
    /// The key of each row, by its place among the slots.
    keys: Vec<usize>,
    values: Vec<ArrayRef>,
}

/// The keys of a batch, ready to be called.
struct Batch {
    slots: Vec<u32>,
    arrays: ArrayRef,
    /// The results so far, NULL for new keys.
    old: ArrayRef,
    /// The states in these.
    states: ArrayRef,
    /// True if this is the last call for all keys.
    timing_out: bool,
}

/// The results of calls for some of the keys.
#[derive(Default)]
struct Answers {
    /// The places of the keys with an answer, ascending, and the answers.
    places: Vec<usize>,
    results: Vec<ArrayRef>,
    failed: Vec<(usize, String)>,
}

/// The keys whose calls succeeded, with their previous and new results.
struct Answered {
    slots: Vec<u32>,
    old: ArrayRef,
    new: ArrayRef,
}

impl UpdateState {
    fn result_type(&self) -> &DataType {
        self.results.schema().field(0).data_type()
    }

    /// Returns the states in results of the function.
    fn states_in(&self, results: &ArrayRef) -> Result<ArrayRef> {
        match results.as_struct_opt() {
            Some(mapped) if self.calls.is_mapped => Ok(nullif(mapped.column(0), &is_null(results)?)?),
            _ => Ok(results.clone()),
        }
    }

    /// Groups the rows of a batch by key.
    fn place(&mut self, inputs: &[&Delta], failures: &mut Vec<Failure>) -> Result<Called> {
        let mut called = Called::default();
        let mut place_of: Vec<u32> = vec![u32::MAX; self.index.slots_end()];
        for chunk in inputs.iter().flat_map(|delta| &delta.chunks) {
            let pieces = surviving(without_none(chunk)?, failures, |chunk| {
                let mut columns = evaluate(&self.keys, &chunk.rows)?;
                columns.extend(evaluate(std::slice::from_ref(&self.value), &chunk.rows)?);
                Ok(columns)
            })?;
            for (chunk, mut columns) in pieces {
                let Some(values) = columns.pop() else { continue };
                let mut slots = Vec::with_capacity(chunk.rows.num_rows());
                self.index.slots(&columns, &mut slots)?;
                place_of.resize(self.index.slots_end(), u32::MAX);
                let mut rows = Vec::with_capacity(slots.len());
                for (row, slot) in slots.iter().enumerate() {
                    let weight = chunk.weight(row);
                    if weight < 0 {
                        return Err(Error::Bug("UPDATE_STATE was given retracted rows".into()));
                    }
                    let place = &mut place_of[*slot as usize];
                    if *place == u32::MAX {
                        *place = called.slots.len() as u32;
                        called.slots.push(*slot);
                    }
                    for _ in 0..weight {
                        called.keys.push(*place as usize);
                        rows.push(row as u32);
                    }
                }
                called.values.push(take(&values, &UInt32Array::from(rows), None)?);
            }
        }
        Ok(called)
    }

    /// Returns the arrays and old states of the keys to call.
    fn batch(&self, mut called: Called) -> Result<Batch> {
        if self.calls.all_keys {
            let mut has_rows = vec![false; self.index.slots_end()];
            called.slots.iter().for_each(|slot| has_rows[*slot as usize] = true);
            let others = self.with_states(self.index.live())?.into_iter();
            let is_other = |slot: &u32| !has_rows[*slot as usize] && !self.overdue.contains(slot);
            called.slots.extend(others.filter(is_other));
        }
        let mut sizes = vec![0; called.slots.len()];
        called.keys.iter().for_each(|key| sizes[*key] += 1);
        let mut order: Vec<u32> = (0..called.keys.len() as u32).collect();
        order.sort_by_key(|row| called.keys[*row as usize]);
        let values = match called.values.is_empty() {
            true => new_null_array(self.calls.item.data_type(), 0),
            false => concat(&called.values.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
        };
        let values = take(&values, &UInt32Array::from(order), None)?;
        let offsets = OffsetBuffer::from_lengths(sizes);
        let arrays: ArrayRef = Arc::new(ListArray::try_new(self.calls.item.clone(), offsets, values, None)?);
        self.batch_of(called.slots, arrays, false)
    }

    /// Returns some keys with the arrays of their values, ready to be called.
    fn batch_of(&self, slots: Vec<u32>, arrays: ArrayRef, timing_out: bool) -> Result<Batch> {
        let old = self.results_of(&slots)?;
        let states = self.states_in(&old)?;
        Ok(Batch { slots, arrays, old, states, timing_out })
    }

    /// Returns those of some keys that have a state.
    fn with_states(&self, slots: Vec<u32>) -> Result<Vec<u32>> {
        if self.failing.is_empty() {
            return Ok(slots);
        }
        let (_, places) = self.results.get(&slots)?;
        Ok(places.into_iter().map(|place| slots[place]).collect())
    }

    /// Returns the last results of some keys, NULL for those without a state.
    fn results_of(&self, slots: &[u32]) -> Result<ArrayRef> {
        let (rows, places) = self.results.get(slots)?;
        if places.len() == slots.len() {
            return Ok(rows.column(0).clone());
        }
        let null = new_null_array(self.result_type(), 1);
        let mut from = vec![(0, 0); slots.len()];
        places.iter().enumerate().for_each(|(row, place)| from[*place] = (1, row));
        if places.is_empty() {
            return Ok(new_null_array(self.result_type(), slots.len()));
        }
        Ok(interleave(&[null.as_ref(), rows.column(0).as_ref()], &from)?)
    }

    /// Calls the function for all keys of a batch.
    fn answers(&self, batch: &Batch) -> Result<Answers> {
        let mut answers = Answers::default();
        self.call(batch, 0, batch.slots.len(), &mut answers)?;
        Ok(answers)
    }

    /// Calls the function for the keys from `first` on, in as few calls as failures allow.
    fn call(&self, batch: &Batch, first: usize, count: usize, answers: &mut Answers) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let mut columns = vec![batch.arrays.slice(first, count), batch.states.slice(first, count)];
        if self.calls.takes_timing_out {
            columns.push(Arc::new(BooleanArray::from(vec![batch.timing_out; count])));
        }
        let function = self.function.create_groups_accumulator()?;
        let error = match function.convert_to_state(&columns, None) {
            Ok(results) => {
                answers.places.extend(first..first + count);
                answers.results.extend(results);
                return Ok(());
            }
            Err(error) => Error::from(error),
        };
        let Some(message) = reason(&error) else { return Err(error) };
        if count == 1 {
            answers.failed.push((first, message));
            return Ok(());
        }
        self.call(batch, first, count / 2, answers)?;
        self.call(batch, first + count / 2, count - count / 2, answers)
    }

    /// Records the failures of calls and ends those of the other keys. Returns the keys with an answer; `None`
    /// if all calls failed.
    fn settle(&mut self, batch: &Batch, answers: &Answers, output: &mut Output) -> Result<Option<Answered>> {
        for (place, message) in &answers.failed {
            let slot = batch.slots[*place];
            let failure = Failure { message: message.clone(), row: self.key_text(slot)?, weight: 1 };
            self.mend(slot, output);
            output.failures.push(failure.clone());
            self.failing.insert(slot, failure);
        }
        let Some(first) = answers.results.first() else { return Ok(None) };
        let new = match answers.results.len() {
            1 => first.clone(),
            _ => concat(&answers.results.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
        };
        let places = UInt32Array::from_iter_values(answers.places.iter().map(|place| *place as u32));
        let slots: Vec<u32> = answers.places.iter().map(|place| batch.slots[*place]).collect();
        if !self.failing.is_empty() {
            slots.iter().for_each(|slot| self.mend(*slot, output));
        }
        let old = take(&batch.old, &places, None)?;
        Ok(Some(Answered { slots, old, new }))
    }

    /// Stores the new results and emits the changes.
    fn apply(&mut self, batch: &Batch, answers: &Answers, output: &mut Output) -> Result<()> {
        let Some(Answered { slots, old, new }) = self.settle(batch, answers, output)? else {
            return Ok(());
        };
        let differs = changed(&old, &new)?;
        let rows = |there: &BooleanArray| -> Vec<u32> {
            (0..slots.len() as u32)
                .filter(|row| differs.value(*row as usize) && there.value(*row as usize))
                .collect()
        };
        let has_state = is_not_null(&self.states_in(&new)?)?;
        let (gone, come) = (rows(&is_not_null(&old)?), rows(&has_state));
        if self.batch.is_some() {
            output.rows.push(Chunk::insert(self.called_rows(&slots, &new)?));
        } else {
            output.rows.push(Chunk::delete(self.rows(&slots, &old, gone)?));
            output.rows.push(Chunk::insert(self.rows(&slots, &new, come.clone())?));
        }
        let kept: Vec<u32> = come.iter().map(|row| slots[*row as usize]).collect();
        let results = take(&new, &UInt32Array::from(come), None)?;
        if !kept.is_empty() {
            let rows = RecordBatch::try_new(self.results.schema().clone(), vec![results])?;
            self.results.put(&kept, &rows)?;
        }
        for (row, slot) in slots.iter().enumerate().filter(|(row, _)| !has_state.value(*row)) {
            if old.is_valid(row) {
                self.results.free(*slot);
            }
            self.give_up(*slot);
        }
        Ok(())
    }

    /// Forgets a key and the time of its last rows, which serves the time-out of existing keys.
    fn give_up(&mut self, slot: u32) {
        self.index.free(slot);
        self.timeouts.forget(slot);
        self.overdue.remove(&slot);
        self.marks.touch(slot);
    }

    /// Retracts a key's failure.
    fn mend(&mut self, slot: u32, output: &mut Output) {
        if let Some(failure) = self.failing.remove(&slot) {
            output.failures.push(Failure { weight: -failure.weight, ..failure });
        }
    }

    /// Returns the rows of a batch's output: the keys whose calls returned something.
    fn called_rows(&self, slots: &[u32], results: &ArrayRef) -> Result<RecordBatch> {
        let called = (0..slots.len() as u32).filter(|row| results.is_valid(*row as usize)).collect();
        self.rows(slots, results, called)
    }

    /// Returns rows of the result: the keys of some slots with these results of the function.
    fn rows(&self, slots: &[u32], results: &ArrayRef, at: Vec<u32>) -> Result<RecordBatch> {
        let slots: Vec<u32> = at.iter().map(|row| slots[*row as usize]).collect();
        let mut columns = self.index.keys(&slots)?;
        columns.push(take(results, &UInt32Array::from(at), None)?);
        Ok(RecordBatch::try_new(self.properties.schema.clone(), columns)?)
    }

    fn key_text(&self, slot: u32) -> Result<String> {
        let keys = self.index.keys(&[slot])?;
        let fields: Vec<Field> =
            self.properties.schema.fields()[..keys.len()].iter().map(|f| f.as_ref().clone()).collect();
        row_text(&RecordBatch::try_new(Arc::new(Schema::new(fields)), keys)?, 0)
    }

    /// Returns the output of a step if it is of one batch alone: the last batch's rows and failures are
    /// retracted.
    fn instead(&mut self, mut output: Output) -> Output {
        let Some(last) = &mut self.batch else { return output };
        let failures = output.failures.iter().filter(|failure| failure.weight > 0).cloned().collect();
        let new = Last { rows: output.rows.clone(), failures };
        let old = std::mem::replace(last, new);
        output.failures.retain(|failure| failure.weight > 0);
        let gone = old.failures.into_iter();
        output.failures.extend(gone.map(|failure| Failure { weight: -failure.weight, ..failure }));
        let mut rows = Delta::default();
        old.rows.chunks.into_iter().for_each(|chunk| rows.push(Chunk::delete(chunk.rows)));
        rows.append(output.rows);
        Output { rows, ..output }
    }
}

/// Returns the rows with at least one copy.
fn without_none(chunk: &Chunk) -> Result<Chunk> {
    match &chunk.weights {
        Some(weights) if weights.values().contains(&0) => {
            let there = weights.values().iter().map(|weight| Some(*weight != 0));
            keep(chunk, &BooleanArray::from_iter(there))
        }
        _ => Ok(chunk.clone()),
    }
}

/// Returns the schema of stored results.
fn result_schema(data_type: &DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("state", data_type.clone(), true)]))
}

impl Operator for UpdateState {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let keys: Vec<String> = self.keys.iter().map(|key| key.to_string()).collect();
        let mut detail = format!("{} of {} by {}", self.function.fun().name(), self.value, keys.join(", "));
        if self.calls.all_keys {
            detail.push_str(", for all keys in each batch");
        }
        if self.calls.takes_timing_out {
            detail.push_str(", also at the time-out");
        }
        if let (true, DataType::Struct(fields)) = (self.calls.is_mapped, self.result_type()) {
            let mapped: Vec<&str> = fields.iter().skip(1).map(|field| field.name().as_str()).collect();
            detail.push_str(&format!(", mapped values ({})", mapped.join(", ")));
        }
        if self.batch.is_some() {
            detail.push_str(", the keys called in the batch");
        }
        let growth = Growth::of_values(&self.properties.schema.fields()[..self.keys.len()]);
        let (growth, state) = match self.timeouts.timeout() {
            Some(microseconds) => {
                let seconds = microseconds as f64 / 1e6;
                let growth = Growth::BoundedBy(format!("the keys that had rows in the last {seconds} s"));
                (growth, "one row a key, and when it had rows")
            }
            None => (growth, "one row a key"),
        };
        let why = if self.calls.all_keys { "all_keys calls the function for every key" } else { "" };
        let (state, state_key) = (state.into(), self.properties.key_text());
        Description { name: "UpdateState", detail, state, state_key, growth, why: why.into() }
    }

    fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let mut output = Output::default();
        let called = self.place(inputs, &mut output.failures)?;
        let now = cut.now.0;
        let is_batch = cut.closes == Closes::All || !called.slots.is_empty();
        self.timeouts.touch(&called.slots, self.index.slots_end(), now);
        for slot in &called.slots {
            self.overdue.remove(slot);
        }
        self.marks.touch_all(called.slots.iter().copied());
        self.time_out(now, &mut output)?;
        if is_batch {
            let batch = self.batch(called)?;
            let answers = self.answers(&batch)?;
            self.apply(&batch, &answers, &mut output)?;
            if self.calls.all_keys {
                self.marks.touch_all(batch.slots.iter().copied());
            }
            self.timeouts.trim();
        }
        output.rows.chunks.retain(|chunk| chunk.rows.num_rows() > 0);
        Ok(self.instead(output))
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities { timers: Some(self), result: Some(self), ..Abilities::default() }
    }
}

impl State for UpdateState {
    fn reset(&mut self) -> Result<()> {
        let keys = &self.properties.schema.fields()[..self.keys.len()];
        self.index = KeyIndex::new(keys.iter().map(|field| field.data_type().clone()).collect())?;
        self.results = Slotted::new(self.results.schema().clone());
        self.timeouts.reset();
        self.failing.clear();
        self.overdue.clear();
        self.marks = SlotMarks::default();
        self.batch = self.batch.take().map(|_| Last::default());
        Ok(())
    }

    fn save(&self) -> Result<Tables> {
        self.kept()
    }

    fn save_changed(&self) -> Result<Tables> {
        self.changed()
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.go_on(kept)
    }

    fn state_rows(&self) -> usize {
        self.index.len()
    }

    fn state_bytes(&self) -> usize {
        self.index.memory_bytes() + self.results.memory_bytes() + self.timeouts.memory_bytes()
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.index);
        show(self.timeouts.store());
        show(&mut self.results);
    }
}

impl Timers for UpdateState {
    /// Returns true for a due time-out, and for a tick of a fixed interval, which is a batch even without
    /// rows.
    fn is_due(&self, cut: &Cut) -> bool {
        let tick = cut.closes == Closes::All && (self.calls.all_keys || self.timeouts.timeout().is_some());
        tick || self.wake_at().is_some_and(|time| time <= cut.now)
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.timeouts.wake_at()
    }
}

impl KeepsResult for UpdateState {
    fn content(&self, _input: &dyn Fn(usize) -> Content) -> Content {
        if let Some(last) = &self.batch {
            return Some(Ok(last.rows.chunks.iter().map(|chunk| chunk.rows.clone()).collect()));
        }
        let all = || {
            let live = self.with_states(self.index.live())?;
            let results = self.results_of(&live)?;
            Ok(vec![self.rows(&live, &results, (0..live.len() as u32).collect())?])
        };
        Some(all())
    }

    fn keeps_all(&self) -> bool {
        true
    }
}
