//! GROUP BY, GROUPING SETS and DISTINCT: one row per group, at the cost of the change.
//!
//! Each group has a slot, a small number for its key. An aggregate keeps its state of a group at that place
//! of a column and updates it in place; or the state is that of an accumulator, which is merged with those of
//! new rows. A step finds the slots of all its rows, notes the results of the groups that it will touch, and
//! takes the rows in. Then it emits the old results with weight -1 and the new ones with +1 if they differ. A
//! group without rows leaves no state. A row for which an expression fails counts nowhere, and a group whose
//! results can't be computed has no row: both are failures.
//!
//! Deliberately absent: aggregates over updating rows that neither have slots nor depend on the order of rows
//! alone, such as user-defined ones.

mod bits;
mod booleans;
mod call;
mod count;
mod distinct;
mod emit;
mod extreme;
mod float;
mod grouping;
mod groups;
pub(crate) mod hopping;
mod interval_average;
mod lower;
mod mergeable;
mod min_max;
mod moments;
mod multiset;
mod ordered;
mod parallel_update;
mod persistence;
mod retractable;
pub mod sliding;
mod slot;
mod sum;
#[cfg(test)]
mod tests;
mod wide_sum;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::{Chunk, Cut, Delta};
use millstream_state::{Size, Spillable, Tables};

use crate::Result;
use crate::driver::evaluate;
use crate::failure::{Failure, surviving_exprs};
use crate::operator::{
    Abilities, Content, Cost, Description, Forgotten, Growth, KeepsResult, KeyedBy, KeyedState, Operator,
    Output, Properties, State,
};
use crate::parallelism::Threads;
use crate::point_lookup::Wanted;
use call::{Arguments, Call};
pub(crate) use emit::changed;
pub(crate) use grouping::keys_of;
use groups::{Counted, Grouping, Groups, Touched};
pub use lower::lower;
pub(crate) use lower::{gives_matches, is_known};
use parallel_update::SlotPartitions;

/// The number of groups of one output batch.
const OUTPUT_ROWS: Size = Size::of(8192);

/// Keeps one row per group, or one row in all if there are no group columns.
#[derive(Debug)]
pub struct Aggregate {
    properties: Properties,
    calls: Vec<Call>,
    groups: Groups,
    steps: u64,
    /// The threads that look up groups and compute results, if there are many.
    threads: Threads,
    /// True if steps report new groups.
    tells: bool,
    /// The reason why no cheaper operator applies.
    why: String,
}

/// The evaluated rows of a chunk.
struct Evaluated {
    keys: Vec<ArrayRef>,
    /// The arguments of each call.
    arguments: Vec<Arguments>,
}

/// Rows with their groups: a list of slots for each grouping set, and the arguments of each call.
#[derive(Default)]
struct Placed {
    slots: Vec<Vec<u32>>,
    arguments: Vec<Arguments>,
    /// The rows of each list by the parts of their slots, if several threads are to take them in.
    parted: Vec<SlotPartitions>,
}

/// Rows with the slots of existing groups.
struct Found {
    chunk: Chunk,
    evaluated: Evaluated,
    slots: Vec<Vec<u32>>,
}

/// The rows of an epoch, before they are taken in.
#[derive(Default)]
struct RoutedRows {
    touched: Vec<Touched>,
    placed: Vec<Placed>,
    failures: Vec<Failure>,
}

impl Aggregate {
    fn new(grouping: Grouping, calls: Vec<Call>, schema: SchemaRef, append_only: bool) -> Result<Aggregate> {
        let columns = grouping.keys.len() + usize::from(!grouping.sets.is_empty());
        let types: Vec<DataType> =
            schema.fields()[..columns].iter().map(|field| field.data_type().clone()).collect();
        let groups = Groups::new(grouping, &types)?;
        // DISTINCT over append-only rows is append-only.
        let append_only = append_only && calls.is_empty() && !groups.is_global();
        let key = Some((0..columns).collect());
        let cost = if calls.iter().any(Call::takes_all) { Cost::Keys } else { Cost::Delta };
        let properties = Properties { append_only, key, cost, ..Properties::of(schema) };
        let (threads, tells, why) = (Threads::one(), false, String::new());
        let mut aggregate = Aggregate { properties, calls, groups, steps: 0, threads, tells, why };
        aggregate.resize();
        Ok(aggregate)
    }

    /// Returns the operator with these threads for large changes.
    fn on_threads(mut self, threads: Threads) -> Aggregate {
        self.threads = threads;
        self
    }

    /// Returns the operator with the reason why no cheaper one applies.
    pub(crate) fn because(mut self, why: String) -> Aggregate {
        self.why = why;
        self
    }

    fn resize(&mut self) {
        let end = self.groups.end();
        self.calls.iter_mut().for_each(|call| call.resize(end));
    }

    /// Evaluates everything that can fail for a row at once, so that a row counts everywhere or nowhere.
    fn evaluate(&self, chunk: &Chunk) -> Result<Evaluated> {
        let global = self.groups.is_global();
        Ok(Evaluated {
            keys: evaluate(&self.groups.grouping.keys, &chunk.rows)?,
            arguments: self.calls.iter().map(|call| call.evaluate(chunk, global)).collect::<Result<_>>()?,
        })
    }

    /// Returns the expressions that it evaluates for every row, in their order.
    fn exprs(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        let mut exprs = self.groups.grouping.keys.clone();
        for call in self.calls.iter().filter(|call| !call.counts_rows()) {
            exprs.extend(call.filter.clone());
            if call.filter.is_some() && self.groups.is_global() {
                break;
            }
            exprs.extend(call.arguments.iter().cloned());
        }
        exprs
    }

    /// Finds the groups of an epoch's rows; [`Aggregate::update`] takes the rows in.
    fn take(&mut self, inputs: &[&Delta]) -> Result<RoutedRows> {
        self.steps += 1;
        let mut taken = RoutedRows::default();
        if self.steps == 1 {
            self.groups.touch_standing(&mut taken.touched);
        }
        // An accumulator may round at each step, so the cut into pieces must not depend on the threads.
        let chunks = self.threads.cut(inputs);
        let rows = inputs.iter().map(|delta| delta.num_rows()).sum();
        if self.threads.share(rows) {
            self.take_side_by_side(chunks, &mut taken)?;
            return Ok(taken);
        }
        for chunk in chunks {
            let pieces =
                surviving_exprs(&self.exprs(), chunk, &mut taken.failures, |chunk| self.evaluate(chunk))?;
            for (chunk, evaluated) in pieces {
                let slots = self.place(&chunk, &evaluated.keys, &mut taken.touched)?;
                let Evaluated { arguments, .. } = evaluated;
                taken.placed.push(Placed { slots, arguments, parted: Vec::new() });
            }
        }
        Ok(taken)
    }

    /// Does the same for many rows: threads evaluate and look up pieces in parallel. One thread gives slots
    /// to new groups, in row order, so the slots are the same as with one thread.
    fn take_side_by_side(&mut self, pieces: Vec<Chunk>, taken: &mut RoutedRows) -> Result<()> {
        let mut weights: Vec<Option<Int64Array>> = Vec::new();
        for found in self.threads.spread(pieces, |chunk| self.find(chunk)) {
            let (found, mut failures) = found?;
            taken.failures.append(&mut failures);
            for Found { chunk, evaluated: Evaluated { keys, arguments }, mut slots } in found {
                self.groups.settle(&keys, &mut slots)?;
                weights.push(chunk.weights);
                taken.placed.push(Placed { slots, arguments, parted: Vec::new() });
            }
        }
        self.resize();
        let weights = weights.iter().map(|weights| weights.as_ref().map(|weights| &weights.values()[..]));
        if self.groups.is_global() {
            for (placed, weights) in taken.placed.iter().zip(weights) {
                placed.slots.iter().for_each(|slots| self.groups.count(slots, weights, &mut taken.touched));
            }
            return Ok(());
        }
        let part = |placed: &mut Placed| {
            placed.parted = placed.slots.iter().map(|slots| SlotPartitions::of(slots)).collect();
        };
        self.threads.spread(taken.placed.iter_mut().collect(), part);
        let counted = taken.placed.iter().zip(weights).flat_map(|(placed, weights)| {
            let lists = placed.slots.iter().zip(&placed.parted);
            lists.map(move |(slots, parted)| Counted { slots, weights, parted })
        });
        self.groups.count_apart(&counted.collect::<Vec<_>>(), &self.threads, &mut taken.touched);
        Ok(())
    }

    /// Evaluates a chunk's rows and looks up their groups.
    fn find(&self, chunk: Chunk) -> Result<(Vec<Found>, Vec<Failure>)> {
        let mut failures = Vec::new();
        let pieces = surviving_exprs(&self.exprs(), chunk, &mut failures, |chunk| self.evaluate(chunk))?;
        let found = pieces.into_iter().map(|(chunk, evaluated)| {
            let slots = self.groups.find(&evaluated.keys, chunk.rows.num_rows())?;
            Ok(Found { chunk, evaluated, slots })
        });
        Ok((found.collect::<Result<_>>()?, failures))
    }

    /// Adds rows to the calls, in parallel.
    fn update(&mut self, placed: &[Placed]) -> Result<()> {
        let rows = placed.iter().flat_map(|placed| &placed.slots).map(Vec::len).sum();
        let calls = self.calls.iter_mut().enumerate().filter(|(_, call)| !call.counts_rows()).collect();
        let threads = &self.threads;
        let updated =
            threads.spread_over(rows, calls, |(at, call): (usize, &mut Call)| call.take(placed, at, threads));
        updated.into_iter().collect()
    }

    fn end_step(&mut self, touched: &[Touched]) -> Result<()> {
        let (calls, threads) = (&mut self.calls, &self.threads);
        self.groups.end_step(touched, threads, |slot| calls.iter_mut().for_each(|call| call.free(slot)))
    }

    /// Returns the slots of a chunk's rows, one list for each grouping set, and counts the rows to their
    /// groups.
    fn place(
        &mut self,
        chunk: &Chunk,
        keys: &[ArrayRef],
        touched: &mut Vec<Touched>,
    ) -> Result<Vec<Vec<u32>>> {
        let placed = self.groups.place(keys, chunk.rows.num_rows())?;
        self.count(chunk, &placed, touched);
        Ok(placed)
    }

    /// Counts a chunk's rows to their groups.
    fn count(&mut self, chunk: &Chunk, placed: &[Vec<u32>], touched: &mut Vec<Touched>) {
        self.resize();
        let weights = chunk.weights.as_ref().map(|weights| &weights.values()[..]);
        placed.iter().for_each(|slots| self.groups.count(slots, weights, touched));
    }

    fn advance(&mut self, inputs: &[&Delta], read: bool) -> Result<Output> {
        let RoutedRows { touched, placed, failures } = self.take(inputs)?;
        let opened = if self.tells { Some(self.groups.opened(&touched)?) } else { None };
        let before = self.before(&touched, read)?;
        self.update(&placed)?;
        let output = self.after(&touched, &before, failures)?;
        self.end_step(&touched)?;
        Ok(Output { opened, ..output })
    }
}

impl Operator for Aggregate {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let calls: Vec<&str> = self.calls.iter().map(|call| call.text.as_str()).collect();
        let mut detail = calls.join(", ");
        if !self.groups.is_global() {
            let by = format!("by {}", self.groups.grouping.describe());
            detail = if detail.is_empty() { by } else { format!("{detail} {by}") };
        }
        let mut state = String::from(if self.groups.is_global() { "one row" } else { "one row a group" });
        let mut growth: Vec<String> = Vec::new();
        let of_groups = match self.groups.is_global() {
            true => Growth::Bounded,
            false => Growth::of_values(&self.properties.schema.fields()[..self.groups.grouping.keys.len()]),
        };
        if let Growth::With(values) = &of_groups {
            growth.push(values.clone());
        }
        for call in &self.calls {
            let keeps = call.keeps();
            if !keeps.is_empty() && !growth.iter().any(|other| other == keeps) {
                state.push_str(", ");
                state.push_str(keeps);
                growth.push(keeps.into());
            }
        }
        let growth = if growth.is_empty() { of_groups } else { Growth::With(growth.join(" and ")) };
        let state_key = self.properties.key_text();
        Description { name: "Aggregate", detail, state, state_key, growth, why: self.why.clone() }
    }

    fn step(&mut self, _cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        self.advance(inputs, true)
    }

    fn step_unread(&mut self, _cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        // Failing groups show only in their results.
        self.advance(inputs, self.calls.iter().any(Call::may_fail))
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities { result: Some(self), ..Abilities::default() }
    }

    fn as_keyed(&mut self) -> Option<&mut dyn KeyedState> {
        (!self.groups.is_global()).then_some(self as _)
    }
}

impl State for Aggregate {
    fn reset(&mut self) -> Result<()> {
        self.steps = 0;
        let slots = self.groups.clear();
        self.calls.iter_mut().for_each(|call| call.clear(&slots));
        Ok(())
    }

    fn save(&self) -> Result<Tables> {
        self.save_some(|_| true)
    }

    fn save_changed(&self) -> Result<Tables> {
        self.changed_groups()
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.load_some(kept, |_| true)?;
        Ok(())
    }

    fn state_rows(&self) -> usize {
        self.groups.len()
    }

    fn state_bytes(&self) -> usize {
        self.groups.memory_bytes() + self.calls.iter().map(Call::memory_bytes).sum::<usize>()
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        self.groups.each_store(show);
        self.calls.iter_mut().for_each(|call| call.each_store(show));
    }
}

impl KeyedState for Aggregate {
    fn keyed_by(&self) -> Result<KeyedBy> {
        let keys = self.groups.grouping.keys.clone();
        let columns = keys.len() + usize::from(!self.groups.grouping.sets.is_empty());
        let fields = &self.properties.schema.fields()[..columns];
        let types = fields.iter().map(|field| field.data_type().clone()).collect();
        // For DISTINCT the key is the whole state, and it stays in the result.
        let is_result = self.calls.is_empty();
        Ok(KeyedBy { types, keys: vec![keys], nulls_apart: false, remembers: true, is_result })
    }

    fn has_few(&mut self, columns: &[usize]) {
        self.groups.has_few(columns);
    }

    fn tell_opened(&mut self) -> bool {
        self.tells = true;
        true
    }

    fn forget(&mut self, keys: &[ArrayRef]) -> Result<Forgotten> {
        let (groups, places) = self.groups.there(keys)?;
        let forgotten = self.forgotten(&groups, &places)?;
        self.groups.forget(&groups);
        let slots: Vec<u32> = groups.iter().map(|group| group.slot).collect();
        self.calls.iter_mut().for_each(|call| call.forget_slots(&slots));
        Ok(forgotten)
    }
}

impl KeepsResult for Aggregate {
    fn content(&self, _input: &dyn Fn(usize) -> Content) -> Content {
        Some(self.all())
    }

    fn keeps_all(&self) -> bool {
        true
    }

    fn content_wanted(&self, wanted: &Wanted, _input: &dyn Fn(usize, &Wanted) -> Content) -> Content {
        let found = self.groups.wanted(wanted)?;
        Some(found.and_then(|groups| self.of(&groups)))
    }

    fn result_rows(&self) -> Option<usize> {
        // Failing groups have state and no row.
        let one_row_each = !self.groups.is_global() && !self.calls.iter().any(Call::may_fail);
        one_row_each.then(|| self.groups.len())
    }
}
