//! Any aggregate with mergeable states, over append-only rows.
//!
//! The state of a group is the state row of its accumulator. Fresh accumulators take in the new rows, and
//! their states are merged with those of their groups. The order of rows doesn't matter: an aggregate that
//! orders its rows has the order in its state.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, UInt32Array, new_empty_array};
use arrow::compute::{SortColumn, SortOptions, cast, concat, lexsort_to_indices, take};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{ScalarValue, exec_datafusion_err};
use datafusion::logical_expr::EmitTo;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use millstream_state::{Slotted, Spillable, Tables};

use super::persistence::{GROUP, slots_of};
use super::slot::{Absorb, Batch, Mergeable, Pair, SlotAggregate, SlotState, same};
use crate::failure::reason;
use crate::{Error, Result};

/// The states of an aggregate, one row per group.
pub(super) struct MergeableStates {
    function: Arc<AggregateFunctionExpr>,
    output: DataType,
    /// The arguments to order rows by, for accumulators that rely on the order.
    order: Vec<(usize, SortOptions)>,
    /// True if there is an accumulator over many groups.
    vectorised: bool,
    /// The states; `None` before the first one.
    states: Option<Slotted>,
    /// The groups whose accumulator failed, with the reason: rows are never deleted, so the failure is
    /// permanent.
    failed: HashMap<u32, String>,
}

impl fmt::Debug for MergeableStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergeableStates").field("function", &self.function.name()).finish_non_exhaustive()
    }
}

/// Rows by group.
struct Grouped {
    /// The slot of each group.
    slots: Vec<u32>,
    /// The group of each row.
    groups: Vec<usize>,
    values: Vec<ArrayRef>,
}

impl MergeableStates {
    /// Returns the states of `function`, whose results have the type `output`; fails if it has no
    /// accumulator.
    pub(super) fn new(function: Arc<AggregateFunctionExpr>, output: DataType) -> Result<MergeableStates> {
        function.create_accumulator()?;
        let first = function.expressions().len();
        let ordered_by = function.order_bys().iter().enumerate();
        let order = match function.order_sensitivity().hard_requires() {
            true => ordered_by.map(|(place, order)| (first + place, order.options)).collect(),
            false => Vec::new(),
        };
        let vectorised = function.groups_accumulator_supported();
        Ok(MergeableStates { function, output, order, vectorised, states: None, failed: HashMap::new() })
    }

    /// Returns the arguments of accumulators: the function's own and its ORDER BY expressions.
    pub(super) fn arguments(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        let mut arguments = self.function.expressions();
        arguments.extend(self.function.order_bys().iter().map(|order| order.expr.clone()));
        arguments
    }

    /// Returns the rows that count, with as many copies as their weights say.
    fn grouped(&self, batch: &Batch<'_>) -> Result<Grouped> {
        let (mut slots, mut numbers): (Vec<u32>, HashMap<u32, usize>) = Default::default();
        let (mut groups, mut rows) = (Vec::new(), Vec::new());
        let mut negative = false;
        batch.for_each(|row, slot, weight| {
            negative |= weight < 0;
            let group = *numbers.entry(slot as u32).or_insert_with(|| {
                slots.push(slot as u32);
                slots.len() - 1
            });
            for _ in 0..weight {
                groups.push(group);
                rows.push(row as u32);
            }
        });
        if negative {
            return Err(Error::Bug(format!("{} can't retract a row", self.function.name())));
        }
        let mut rows = UInt32Array::from(rows);
        let mut values = batch.values.to_vec();
        let all = batch.weights.is_none() && batch.valid.is_none();
        if !all {
            values = taken(&values, &rows)?;
        }
        if !self.order.is_empty() && !rows.is_empty() {
            let columns: Vec<SortColumn> = self
                .order
                .iter()
                .map(|(place, options)| SortColumn {
                    values: values[*place].clone(),
                    options: Some(*options),
                })
                .collect();
            rows = lexsort_to_indices(&columns, None)?;
            groups = rows.values().iter().map(|row| groups[*row as usize]).collect();
            values = taken(&values, &rows)?;
        }
        Ok(Grouped { slots, groups, values })
    }

    /// Returns the states of groups after some rows.
    fn after(&self, rows: &Grouped) -> Result<Vec<ArrayRef>> {
        let count = rows.slots.len();
        let (old, places) = match &self.states {
            Some(states) => states.get(&rows.slots)?,
            None => (RecordBatch::new_empty(Arc::new(Schema::empty())), Vec::new()),
        };
        if self.vectorised {
            let mut fresh = self.function.create_groups_accumulator()?;
            fresh.update_batch(&rows.values, &rows.groups, None, count)?;
            let fresh = fresh.state(EmitTo::All)?;
            if places.is_empty() {
                return Ok(fresh);
            }
            let mut merged = self.function.create_groups_accumulator()?;
            merged.merge_batch(old.columns(), &places, count)?;
            merged.merge_batch(&fresh, &(0..count).collect::<Vec<_>>(), count)?;
            return Ok(merged.state(EmitTo::All)?);
        }
        let mut old_of = vec![None; count];
        places.into_iter().enumerate().for_each(|(row, place)| old_of[place] = Some(row));
        let (values, ranges) = by_group(rows)?;
        let mut states: Vec<Vec<ScalarValue>> = Vec::new();
        for (range, old_row) in ranges.into_iter().zip(old_of) {
            let mut fresh = self.function.create_accumulator()?;
            fresh.update_batch(&sliced(&values, &range))?;
            let mut state = fresh.state()?;
            if let Some(row) = old_row {
                let columns = old.columns().iter().zip(state);
                let both: Vec<ArrayRef> = columns
                    .map(|(old, new)| Ok(concat(&[&old.slice(row, 1), &new.to_array()?])?))
                    .collect::<Result<_>>()?;
                let mut merged = self.function.create_accumulator()?;
                merged.merge_batch(&both)?;
                state = merged.state()?;
            }
            states.resize_with(state.len(), Vec::new);
            states.iter_mut().zip(state).for_each(|(states, state)| states.push(state));
        }
        states.into_iter().map(|states| Ok(ScalarValue::iter_to_array(states)?)).collect()
    }

    fn put(&mut self, slots: &[u32], states: Vec<ArrayRef>) -> Result<()> {
        let kept = self.states.get_or_insert_with(|| {
            let fields = states
                .iter()
                .enumerate()
                .map(|(place, state)| Field::new(format!("state {place}"), state.data_type().clone(), true));
            Slotted::new(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
        });
        let schema = kept.schema().clone();
        let states = states.into_iter().zip(schema.fields());
        let states = states.map(|(state, field)| as_type(state, field.data_type())).collect::<Result<_>>()?;
        Ok(kept.put(slots, &RecordBatch::try_new(schema, states)?)?)
    }

    /// Merges the states of another column.
    fn absorb_all(&mut self, other: &MergeableStates, pairs: &[Pair]) -> Result<()> {
        let Some(theirs) = &other.states else { return Ok(()) };
        let from: Vec<u32> = pairs.iter().map(|(from, _)| *from).collect();
        let (rows, places) = theirs.get(&from)?;
        if places.is_empty() {
            return Ok(());
        }
        let into: Vec<u32> = places.iter().map(|place| pairs[*place].1).collect();
        let (old, old_places) = match &self.states {
            Some(states) => states.get(&into)?,
            None => (RecordBatch::new_empty(Arc::new(Schema::empty())), Vec::new()),
        };
        if old_places.is_empty() {
            return self.put(&into, rows.columns().to_vec());
        }
        if self.vectorised {
            let mut merged = self.function.create_groups_accumulator()?;
            merged.merge_batch(old.columns(), &old_places, into.len())?;
            merged.merge_batch(rows.columns(), &(0..into.len()).collect::<Vec<_>>(), into.len())?;
            let states = merged.state(EmitTo::All)?;
            return self.put(&into, states);
        }
        let mut states: Vec<Vec<ScalarValue>> = Vec::new();
        let mut olds = old_places.iter().enumerate().peekable();
        for row in 0..into.len() {
            let mut merged = self.function.create_accumulator()?;
            if let Some((old_row, _)) = olds.next_if(|(_, place)| **place == row) {
                merged.merge_batch(&sliced(old.columns(), &(old_row..old_row + 1)))?;
            }
            merged.merge_batch(&sliced(rows.columns(), &(row..row + 1)))?;
            let state = merged.state()?;
            states.resize_with(state.len(), Vec::new);
            states.iter_mut().zip(state).for_each(|(states, state)| states.push(state));
        }
        let states = states.into_iter().map(|states| Ok(ScalarValue::iter_to_array(states)?));
        let states = states.collect::<Result<_>>()?;
        self.put(&into, states)
    }

    fn evaluate_each(&self, count: usize, old: &[ArrayRef], places: &[usize]) -> Result<ArrayRef> {
        let mut rows = places.iter().enumerate().peekable();
        let results = (0..count).map(|place| {
            let mut accumulator = self.function.create_accumulator()?;
            if let Some((row, _)) = rows.next_if(|(_, at)| **at == place) {
                accumulator.merge_batch(&sliced(old, &(row..row + 1)))?;
            }
            accumulator.evaluate()
        });
        let results = results.collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(ScalarValue::iter_to_array(results)?)
    }
}

impl SlotAggregate for MergeableStates {
    fn resize(&mut self, _end: usize) {}

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        let rows = self.grouped(batch)?;
        if rows.groups.is_empty() {
            return Ok(());
        }
        match self.after(&rows) {
            Ok(states) => self.put(&rows.slots, states),
            Err(error) if reason(&error).is_none() => Err(error),
            // Some group's accumulator can't take its rows; the others can.
            Err(_) => {
                let (values, ranges) = by_group(&rows)?;
                for (slot, range) in rows.slots.iter().zip(ranges) {
                    let values = sliced(&values, &range);
                    let one = Grouped { slots: vec![*slot], groups: vec![0; range.len()], values };
                    match self.after(&one) {
                        Ok(states) => self.put(&one.slots, states)?,
                        Err(error) => {
                            let message = reason(&error).ok_or(error)?;
                            self.failed.entry(*slot).or_insert(message);
                        }
                    }
                }
                Ok(())
            }
        }
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        if slots.is_empty() {
            return Ok(new_empty_array(&self.output));
        }
        let mut failed =
            slots.iter().filter_map(|slot| self.failed.get(slot)).take(usize::from(!self.failed.is_empty()));
        if let Some(message) = failed.next() {
            return Err(exec_datafusion_err!("{message}").into());
        }
        let (old, places) = match &self.states {
            Some(states) => states.get(slots)?,
            None => (RecordBatch::new_empty(Arc::new(Schema::empty())), Vec::new()),
        };
        let results = if self.vectorised && !places.is_empty() {
            let mut accumulator = self.function.create_groups_accumulator()?;
            accumulator.merge_batch(old.columns(), &places, slots.len())?;
            accumulator.evaluate(EmitTo::All)?
        } else {
            self.evaluate_each(slots.len(), old.columns(), &places)?
        };
        if results.len() != slots.len() {
            let (name, found) = (self.function.name(), results.len());
            return Err(Error::Bug(format!("{name} gave {found} results for {} groups", slots.len())));
        }
        as_type(results, &self.output)
    }

    fn free(&mut self, slot: u32) {
        self.failed.remove(&slot);
        if let Some(states) = &mut self.states {
            states.free(slot);
        }
    }
}

impl SlotState for MergeableStates {
    fn save(&self, slots: &[u32]) -> Result<Tables> {
        let mut kept = Tables::default();
        if let Some(states) = &self.states {
            states.save(slots, "states", &mut kept)?;
        }
        let failed = slots.iter().zip(0..).filter_map(|(slot, place)| Some((place, self.failed.get(slot)?)));
        let (places, messages): (Vec<u32>, Vec<&String>) = failed.unzip();
        let messages = StringArray::from_iter_values(messages);
        let columns: Vec<(&str, ArrayRef)> =
            vec![(GROUP, Arc::new(UInt32Array::from(places))), ("message", Arc::new(messages))];
        kept.put_columns("failed", columns)?;
        Ok(kept)
    }

    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        self.states = Slotted::loaded(slots, "states", kept)?;
        let failed = kept.take_table("failed")?;
        let messages = failed.texts("message")?;
        let messages = messages.iter().flatten().map(str::to_string);
        self.failed = slots_of(&failed, slots)?.into_iter().zip(messages).collect();
        Ok(())
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        self.states.iter_mut().for_each(|states| show(states));
    }

    fn memory_bytes(&self) -> usize {
        self.states.as_ref().map_or(0, Slotted::memory_bytes)
    }

    fn keeps(&self) -> &'static str {
        "merged states"
    }
}

impl Mergeable for MergeableStates {
    fn fresh(&self) -> Option<Box<dyn SlotAggregate>> {
        let MergeableStates { function, output, order, vectorised, .. } = self;
        Some(Box::new(MergeableStates {
            function: function.clone(),
            output: output.clone(),
            order: order.clone(),
            vectorised: *vectorised,
            states: None,
            failed: HashMap::new(),
        }))
    }

    fn absorb(&mut self, other: &dyn SlotAggregate, pairs: &[Pair], _change: Absorb) -> Result<()> {
        let other = same::<MergeableStates>(other)?;
        for (from, into) in pairs.iter().filter(|_| !other.failed.is_empty()) {
            if let Some(message) = other.failed.get(from) {
                self.failed.entry(*into).or_insert_with(|| message.clone());
            }
        }
        match self.absorb_all(other, pairs) {
            Err(error) if reason(&error).is_some() => {
                for pair in pairs {
                    if let Err(error) = self.absorb_all(other, &[*pair]) {
                        let message = reason(&error).ok_or(error)?;
                        self.failed.entry(pair.1).or_insert(message);
                    }
                }
                Ok(())
            }
            done => done,
        }
    }
}

/// Returns the values sorted by group, and the range of each group.
fn by_group(rows: &Grouped) -> Result<(Vec<ArrayRef>, Vec<Range<usize>>)> {
    let mut counts = vec![0; rows.slots.len()];
    rows.groups.iter().for_each(|group| counts[*group] += 1);
    let mut ranges = Vec::with_capacity(counts.len());
    let mut end = 0;
    for count in counts {
        ranges.push(end..end + count);
        end += count;
    }
    let mut next: Vec<usize> = ranges.iter().map(|range| range.start).collect();
    let mut order = vec![0; rows.groups.len()];
    for (row, group) in rows.groups.iter().enumerate() {
        order[next[*group]] = row as u32;
        next[*group] += 1;
    }
    Ok((taken(&rows.values, &UInt32Array::from(order))?, ranges))
}

fn taken(values: &[ArrayRef], rows: &UInt32Array) -> Result<Vec<ArrayRef>> {
    values.iter().map(|values| Ok(take(values, rows, None)?)).collect()
}

fn sliced(values: &[ArrayRef], range: &Range<usize>) -> Vec<ArrayRef> {
    values.iter().map(|values| values.slice(range.start, range.len())).collect()
}

/// Casts to the stored type: accumulators name the fields of nested types in different ways.
fn as_type(values: ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    Ok(if values.data_type() == data_type { values } else { cast(&values, data_type)? })
}
