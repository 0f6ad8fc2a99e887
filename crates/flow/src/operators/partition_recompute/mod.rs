//! A fragment that is independent per key: computes the answers of the keys that a change touches, and of no
//! others.
//!
//! PartitionRecompute (PerKey in EXPLAIN) keeps the rows of its inputs by key. A step finds the keys of its rows and runs the fragment in
//! DataFusion over the old and the new rows of those keys. It emits the difference. A key's old answer is not
//! kept: it follows from the key's old rows. A key whose answer fails has one failure and no rows in the
//! result, until it has an answer again.
//!
//! Keys are classes of values: all NULLs are one, 0.0 and -0.0 are one. A class may be wider than equality in
//! the fragment, never narrower.
//!
//! Deliberately absent: finding the fragments that are independent per key; see `lower`.

mod fragments;
mod persistence;
#[cfg(test)]
mod tests;
mod touched_keys;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use millstream_delta::{Chunk, Cut, Delta, consolidate, under_schema};
use millstream_state::{Arranged, KeyIndex, NO_SLOT, Placed, Size, Spillable, Tables};

use crate::driver::evaluate;
use crate::failure::{Failure, reason, row_text, surviving_exprs};
use crate::leaf::Slot;
use crate::operator::{
    Description, Forgotten, Growth, KeyedBy, KeyedState, Operator, Output, Properties, State,
};
use crate::operators::full_recompute::fragment_text;
use crate::{Driver, Error, Result};
use fragments::Fragments;
use touched_keys::{StepMarks, TouchedKeys};

/// The approximate number of input rows of one run of the fragment, unless a key has more.
const RUN_ROWS: Size = Size::of(16_384);

/// The parts of a PartitionRecompute operator.
#[derive(Debug)]
pub struct PartitionRecomputeSpec {
    /// The properties of the output.
    pub properties: Properties,
    /// The key's expressions as text, with their types.
    pub keys: Vec<(String, DataType)>,
    /// One for each of its inputs.
    pub inputs: Vec<PartitionInput>,
    /// The fragment, whose leaves read the slots of the inputs.
    pub plan: Arc<dyn ExecutionPlan>,
    /// True if a key has one row in the result, which represents it.
    pub one_row: bool,
    /// The reason why no cheaper operator applies.
    pub why: String,
    /// A change of the query that would bound the state; empty if none is known.
    pub bound: &'static str,
}

/// One input: its rows by key, and the slots from which the fragment reads them.
#[derive(Debug)]
pub struct PartitionInput {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    rows: Arranged,
    slots: Vec<Slot>,
}

/// Maintains a fragment key by key.
#[derive(Debug)]
pub struct PartitionRecompute {
    properties: Properties,
    index: KeyIndex,
    key_schema: SchemaRef,
    inputs: Vec<PartitionInput>,
    fragments: Fragments,
    /// The keys without an answer, with the reason.
    failed: BTreeMap<u32, String>,
    marks: StepMarks,
    driver: Driver,
    one_row: bool,
    why: String,
    bound: &'static str,
}

/// The outcome for keys that are run together.
struct RunResult {
    rows: Delta,
    failed: BTreeMap<u32, String>,
}

impl PartitionInput {
    /// Returns an empty input with rows of `schema`; `keys` are expressions over them.
    pub fn new(schema: SchemaRef, keys: Vec<Arc<dyn PhysicalExpr>>, slots: Vec<Slot>) -> PartitionInput {
        PartitionInput { keys, rows: Arranged::new(schema), slots }
    }
}

impl PartitionRecompute {
    /// The operator's name in EXPLAIN.
    pub const NAME: &str = "PerKey";

    /// Returns the operator; fails if keys of these types can't be indexed.
    pub fn new(parts: PartitionRecomputeSpec, driver: &Driver) -> Result<PartitionRecompute> {
        let PartitionRecomputeSpec { properties, keys, mut inputs, plan, one_row, why, bound } = parts;
        let index = KeyIndex::new(keys.iter().map(|(_, data_type)| data_type.clone()).collect())?.tracked();
        let fields: Vec<Field> =
            keys.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect();
        let slots = inputs.iter_mut().map(|input| std::mem::take(&mut input.slots)).collect();
        Ok(PartitionRecompute {
            properties,
            index,
            key_schema: Arc::new(Schema::new(fields)),
            inputs,
            fragments: Fragments::new(plan, slots),
            failed: BTreeMap::new(),
            marks: StepMarks::default(),
            driver: driver.clone(),
            one_row,
            why,
            bound,
        })
    }

    /// Looks up the keys of an input's changes. Rows whose key can't be computed become failures.
    fn place(
        &mut self,
        input: usize,
        delta: &Delta,
        touched: &mut TouchedKeys,
        failures: &mut Vec<Failure>,
    ) -> Result<Vec<Placed>> {
        let mut all = Vec::with_capacity(delta.chunks.len());
        let (threads, rows) = (self.driver.threads(), delta.num_rows());
        // Lookups change nothing, so threads share them. One thread then gives new keys slots, in row order.
        let (exprs, index, looks) = (&self.inputs[input].keys, &self.index, threads.share(rows));
        let found = threads.spread_over(rows, threads.cut(&[delta]), |chunk| {
            let mut failures = Vec::new();
            let pieces = surviving_exprs(exprs, chunk, &mut failures, |chunk| evaluate(exprs, &chunk.rows))?;
            let mut found = Vec::with_capacity(pieces.len());
            for (chunk, keys) in pieces.into_iter().filter(|(chunk, _)| chunk.rows.num_rows() > 0) {
                let mut slots = Vec::with_capacity(chunk.rows.num_rows());
                if looks {
                    index.find(&keys, &mut slots)?;
                }
                found.push((chunk, keys, slots));
            }
            Ok::<_, Error>((found, failures))
        });
        for found in found {
            let (found, mut failed) = found?;
            failures.append(&mut failed);
            for (chunk, keys, mut slots) in found {
                match looks {
                    true => self.index.settle(&keys, &mut slots)?,
                    false => _ = self.index.slots(&keys, &mut slots)?,
                }
                self.marks.touch(&slots, self.index.slots_end(), touched);
                all.push(Placed { chunk, slots, tallies: None });
            }
        }
        Ok(all)
    }

    /// Returns the answers of some keys, in as few runs as failures allow. Keys that fail are added to
    /// `failed`.
    fn answers(&self, slots: &[u32], failed: &mut BTreeMap<u32, String>) -> Result<Vec<RecordBatch>> {
        if slots.is_empty() {
            return Ok(Vec::new());
        }
        let error = match self.run(slots) {
            Ok(batches) => return Ok(batches),
            Err(error) => error,
        };
        let Some(message) = reason(&error) else { return Err(error) };
        if let [slot] = slots {
            failed.insert(*slot, message);
            return Ok(Vec::new());
        }
        let (left, right) = slots.split_at(slots.len() / 2);
        let mut answers = self.answers(left, failed)?;
        answers.extend(self.answers(right, failed)?);
        Ok(answers)
    }

    fn run(&self, slots: &[u32]) -> Result<Vec<RecordBatch>> {
        let batches =
            self.fragments.run(&self.driver, |input| Ok(self.inputs[input].rows.gather(slots)?))?;
        let full = batches.into_iter().filter(|batch| batch.num_rows() > 0);
        full.map(|batch| Ok(under_schema(&batch, &self.properties.schema)?)).collect()
    }

    /// Returns the touched keys in pieces that are run together.
    fn runs<'a>(&self, touched: &'a TouchedKeys) -> Vec<&'a [u32]> {
        let (mut runs, mut start, mut rows) = (Vec::new(), 0, 0);
        let enough = self.driver.threads().at_once(RUN_ROWS.get());
        for (place, slot) in touched.slots.iter().enumerate() {
            rows += touched.rows[place] as usize + self.rows_of(*slot);
            if rows >= enough || place + 1 == touched.slots.len() {
                runs.push(&touched.slots[start..=place]);
                (start, rows) = (place + 1, 0);
            }
        }
        runs
    }

    /// Returns the outcome for keys whose old answer is `old`.
    fn make(&self, slots: &[u32], old: Vec<RecordBatch>) -> Result<RunResult> {
        let there: Vec<u32> = slots.iter().copied().filter(|slot| self.rows_of(*slot) > 0).collect();
        let mut failed = BTreeMap::new();
        let new = self.answers(&there, &mut failed)?;
        Ok(RunResult { rows: self.difference(old, new)?, failed })
    }

    fn old_answers(&self, slots: &[u32]) -> Result<Vec<RecordBatch>> {
        let answered = |slot: &u32| self.rows_of(*slot) > 0 && !self.failed.contains_key(slot);
        let slots: Vec<u32> = slots.iter().copied().filter(answered).collect();
        let mut failed = BTreeMap::new();
        let answers = self.answers(&slots, &mut failed)?;
        match failed.into_values().next() {
            None => Ok(answers),
            Some(message) => {
                Err(Error::Bug(format!("a key's answer fails that had not failed before: {message}")))
            }
        }
    }

    /// Returns the number of rows of a key over all inputs.
    fn rows_of(&self, slot: u32) -> usize {
        self.inputs.iter().map(|input| input.rows.rows_of(slot)).sum()
    }

    /// Emits the failures of keys that failed before or fail now.
    fn settle(
        &mut self,
        slots: &[u32],
        now: BTreeMap<u32, String>,
        failures: &mut Vec<Failure>,
    ) -> Result<()> {
        for slot in slots {
            let old = self.failed.get(slot);
            let new = now.get(slot);
            if old == new {
                continue;
            }
            let row = self.key_text(*slot)?;
            let of =
                |message: &String, weight| Failure { message: message.clone(), row: row.clone(), weight };
            failures.extend(old.map(|message| of(message, -1)));
            failures.extend(new.map(|message| of(message, 1)));
            match new {
                Some(message) => self.failed.insert(*slot, message.clone()),
                None => self.failed.remove(slot),
            };
        }
        Ok(())
    }

    fn key_text(&self, slot: u32) -> Result<String> {
        row_text(&RecordBatch::try_new(self.key_schema.clone(), self.index.keys(&[slot])?)?, 0)
    }

    fn difference(&self, old: Vec<RecordBatch>, new: Vec<RecordBatch>) -> Result<Delta> {
        let fresh = old.is_empty();
        let mut delta = Delta::default();
        old.into_iter().for_each(|rows| delta.push(Chunk::delete(rows)));
        new.into_iter().for_each(|rows| delta.push(Chunk::insert(rows)));
        if fresh {
            return Ok(delta);
        }
        let mut delta = consolidate(delta, &self.properties.schema)?;
        if self.properties.append_only {
            for chunk in &mut delta.chunks {
                *chunk = Chunk::insert(chunk.expand()?);
            }
        }
        Ok(delta)
    }
}

impl Operator for PartitionRecompute {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let keys: Vec<&str> = self.key_schema.fields().iter().map(|field| field.name().as_str()).collect();
        Description {
            name: PartitionRecompute::NAME,
            detail: format!("{} by {}", fragment_text(self.fragments.plan()), keys.join(", ")),
            state: "its input by key".into(),
            state_key: Some(format!("({})", keys.join(", "))),
            growth: Growth::With(match self.bound {
                "" => "its input".into(),
                bound => format!("its input; {bound}"),
            }),
            why: self.why.clone(),
        }
    }

    fn step(&mut self, _cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let mut output = Output::default();
        let mut touched = self.marks.begin();
        let mut changes = Vec::with_capacity(inputs.len());
        for (input, delta) in inputs.iter().enumerate() {
            changes.push(self.place(input, delta, &mut touched, &mut output.failures)?);
        }
        let runs = self.runs(&touched);
        let old = self.driver.threads().spread(runs.clone(), |slots| self.old_answers(slots));
        let old = old.into_iter().collect::<Result<Vec<_>>>()?;
        for (input, changes) in self.inputs.iter_mut().zip(changes) {
            input.rows.apply(changes)?;
        }
        let threads = self.driver.threads();
        let made = threads.spread(runs.iter().zip(old).collect(), |(slots, old)| self.make(slots, old));
        for (slots, made) in runs.into_iter().zip(made) {
            let RunResult { rows, failed } = made?;
            self.settle(slots, failed, &mut output.failures)?;
            output.rows.append(rows);
        }
        for slot in &touched.slots {
            if self.rows_of(*slot) == 0 {
                self.index.free(*slot);
            }
        }
        Ok(output)
    }

    fn as_keyed(&mut self) -> Option<&mut dyn KeyedState> {
        Some(self)
    }
}

impl State for PartitionRecompute {
    fn reset(&mut self) -> Result<()> {
        let keys = self.key_schema.fields().iter().map(|field| field.data_type().clone());
        self.index = KeyIndex::new(keys.collect())?.tracked();
        self.inputs.iter_mut().for_each(|input| input.rows = Arranged::new(input.rows.schema().clone()));
        self.failed.clear();
        self.marks = StepMarks::default();
        Ok(())
    }

    fn save(&self) -> Result<Tables> {
        self.told()
    }

    fn save_changed(&self) -> Result<Tables> {
        self.changed()
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.resume(kept)
    }

    fn state_rows(&self) -> usize {
        self.inputs.iter().map(|input| input.rows.num_rows()).sum()
    }

    fn state_bytes(&self) -> usize {
        let inputs: usize = self.inputs.iter().map(|input| input.rows.memory_bytes()).sum();
        inputs + self.index.memory_bytes() + self.marks.memory_bytes()
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.index);
        show(self.marks.store());
        self.inputs.iter_mut().for_each(|input| show(&mut input.rows));
    }
}

impl KeyedState for PartitionRecompute {
    fn keyed_by(&self) -> Result<KeyedBy> {
        Ok(KeyedBy {
            types: self.key_schema.fields().iter().map(|field| field.data_type().clone()).collect(),
            keys: self.inputs.iter().map(|input| input.keys.clone()).collect(),
            nulls_apart: false,
            remembers: self.one_row,
            is_result: false,
        })
    }

    fn forget(&mut self, keys: &[ArrayRef]) -> Result<Forgotten> {
        let mut slots = Vec::new();
        self.index.find(keys, &mut slots)?;
        let mut forgotten = Forgotten::default();
        for (place, slot) in slots.iter().enumerate().filter(|(_, slot)| **slot != NO_SLOT) {
            if let Some(message) = self.failed.remove(slot) {
                let row = self.key_text(*slot)?;
                forgotten.failures.push(Failure { message, row, weight: -1 });
            } else if self.one_row {
                for rows in self.old_answers(&[*slot])? {
                    let of = vec![place as u32; rows.num_rows()];
                    forgotten.rows.push((rows, of));
                }
            }
        }
        slots.retain(|slot| *slot != NO_SLOT);
        self.inputs.iter_mut().try_for_each(|input| input.rows.forget(&slots))?;
        slots.iter().for_each(|slot| self.index.free(*slot));
        Ok(forgotten)
    }
}
