//! GROUP BY, GROUPING SETS and DISTINCT: one row a group, at the cost of the change.
//!
//! Each group has a slot, a small number given by its key. What an aggregate keeps of a group lies at that place
//! in a column, and is changed where it lies; or it is the state of an accumulator, which is merged with those of
//! new rows. A step finds the slots of all its rows, sets down the results of the groups it will touch, takes the
//! rows in, and puts out the old rows with weight -1 and the new ones with +1 where they differ. A group without
//! rows leaves nothing behind. A row that an expression fails for counts nowhere, and a group whose results can't
//! be told has no row: both are failures.
//!
//! Deliberately absent: min, max and merged aggregates of rows that may be taken back.

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
mod lower;
mod merged;
mod moments;
mod moving;
pub mod sliding;
mod slot;
mod sum;
#[cfg(test)]
mod tests;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use millstream_delta::{Chunk, Cut, Delta};

use crate::Result;
use crate::drive::evaluate;
use crate::failure::{Failure, surviving};
use crate::operator::{Content, Cost, Description, Growth, Operator, Output, Properties};
use crate::point::Wanted;
use call::{Arguments, Call};
pub(crate) use emit::changed;
use emit::{Emitted, Results};
use groups::{Grouping, Groups, Touched};
pub use lower::lower;

/// How many groups are put out in one batch.
const OUTPUT_ROWS: usize = 8192;

/// Keeps one row a group, or one row in all where there are no group columns.
#[derive(Debug)]
pub struct Aggregate {
    properties: Properties,
    calls: Vec<Call>,
    groups: Groups,
    steps: u64,
}

/// What a chunk's rows come to.
struct Evaluated {
    keys: Vec<ArrayRef>,
    /// One a call.
    arguments: Vec<Arguments>,
}

/// Rows whose groups are found: their slots, a list for each grouping set, and what they give each call.
type Placed = (Vec<Vec<u32>>, Vec<Arguments>);

/// What an epoch's rows are, before they are taken in.
#[derive(Default)]
struct Taken {
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
        // DISTINCT over rows that stay only gains rows.
        let append_only = append_only && calls.is_empty() && !groups.is_global();
        let key = Some((0..columns).collect());
        let properties = Properties { schema, append_only, key, cost: Cost::Delta };
        let mut aggregate = Aggregate { properties, calls, groups, steps: 0 };
        aggregate.resize();
        Ok(aggregate)
    }

    fn resize(&mut self) {
        let end = self.groups.end();
        self.calls.iter_mut().for_each(|call| call.resize(end));
    }

    /// Everything that can fail for a row is evaluated at once, so that a row counts everywhere or nowhere.
    fn evaluate(&self, chunk: &Chunk) -> Result<Evaluated> {
        let global = self.groups.is_global();
        Ok(Evaluated {
            keys: evaluate(&self.groups.grouping.keys, &chunk.rows)?,
            arguments: self.calls.iter().map(|call| call.evaluate(chunk, global)).collect::<Result<_>>()?,
        })
    }

    /// Finds the groups of an epoch's rows, which [`Aggregate::update`] takes in.
    fn take(&mut self, inputs: &[&Delta]) -> Result<Taken> {
        self.steps += 1;
        let mut taken = Taken::default();
        if self.steps == 1 {
            self.groups.touch_standing(&mut taken.touched);
        }
        for chunk in inputs.iter().flat_map(|delta| &delta.chunks) {
            let pieces = surviving(chunk.clone(), &mut taken.failures, |chunk| self.evaluate(chunk))?;
            for (chunk, evaluated) in pieces {
                let slots = self.place(&chunk, &evaluated.keys, &mut taken.touched)?;
                taken.placed.push((slots, evaluated.arguments));
            }
        }
        Ok(taken)
    }

    fn update(&mut self, placed: &[Placed]) -> Result<()> {
        for (sets, arguments) in placed {
            for (call, arguments) in self.calls.iter_mut().zip(arguments) {
                sets.iter().try_for_each(|slots| call.update(slots, arguments))?;
            }
        }
        Ok(())
    }

    fn end_step(&mut self, touched: &[Touched]) -> Result<()> {
        let calls = &mut self.calls;
        self.groups.end_step(touched, |slot| calls.iter_mut().for_each(|call| call.free(slot)))
    }

    /// Finds the slots of a chunk's rows and counts them to their groups: a list of slots for each grouping set.
    fn place(
        &mut self,
        chunk: &Chunk,
        keys: &[ArrayRef],
        touched: &mut Vec<Touched>,
    ) -> Result<Vec<Vec<u32>>> {
        let placed = self.groups.place(keys, chunk.rows.num_rows())?;
        self.resize();
        let weights = chunk.weights.as_ref().map(|weights| &weights.values()[..]);
        placed.iter().for_each(|slots| self.groups.count(slots, weights, touched));
        Ok(placed)
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
        Description { name: "Aggregate", detail, state, state_key, growth, ..Description::default() }
    }

    fn step(&mut self, _cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let Taken { touched, placed, failures } = self.take(inputs)?;
        let old: Vec<Results> = touched
            .chunks(OUTPUT_ROWS)
            .map(|groups| self.results(&self.there_before(groups)))
            .collect::<Result<_>>()?;
        self.update(&placed)?;
        let mut output = Emitted::default();
        for (groups, old) in touched.chunks(OUTPUT_ROWS).zip(&old) {
            self.emit(groups, old, &mut output)?;
        }
        self.end_step(&touched)?;
        Ok(output.output(failures))
    }

    fn step_unread(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        // Which groups fail is seen in their results only.
        if self.calls.iter().any(Call::may_fail) {
            return self.step(cut, inputs);
        }
        let Taken { touched, placed, failures } = self.take(inputs)?;
        self.update(&placed)?;
        self.end_step(&touched)?;
        Ok(Output { rows: Delta::default(), failures })
    }

    fn reset(&mut self) -> Result<()> {
        self.steps = 0;
        let slots = self.groups.clear();
        self.calls.iter_mut().for_each(|call| call.clear(&slots));
        Ok(())
    }

    fn content(&self, _input: &dyn Fn(usize) -> Content) -> Content {
        Some(self.all())
    }

    fn content_wanted(&self, wanted: &Wanted, _input: &dyn Fn(usize, &Wanted) -> Content) -> Content {
        let found = self.groups.wanted(wanted)?;
        Some(found.and_then(|groups| self.of(&groups)))
    }

    fn state_rows(&self) -> usize {
        self.groups.len()
    }

    fn state_bytes(&self) -> usize {
        self.groups.memory_bytes() + self.calls.iter().map(Call::memory_bytes).sum::<usize>()
    }
}
