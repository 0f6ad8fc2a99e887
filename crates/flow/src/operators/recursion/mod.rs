//! A recursive query whose rounds process only new rows.
//!
//! The recursive term is a flow of its own, which reads the working table as a relation. A step gives it the
//! changes of its other relations and the new rows of the working table. Its output is new in turn, round
//! after round, until there is none: semi-naive evaluation (Bancilhon and Ramakrishnan, 1986), over the
//! flow's arrangements instead of whole relations.
//!
//! The term reads the working table once, in a place where the answer to all rows is the sum of the answers
//! to each. So UNION ALL supports deletes too: the rows derived from a deleted row are retracted in the same
//! rounds. Under UNION a row may have several derivations, and derive itself in a cycle: see [`derived`].

mod derived;
#[cfg(test)]
mod tests;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use millstream_delta::{Chunk, Cut, Delta, consolidate};
use millstream_state::{KeyIndex, Spillable, Tables};

use crate::dag::Advance;
use crate::failing_rows::FailingRows;
use crate::limits::Limits;
use crate::operator::{Description, Growth, Operator, Output, Properties, State};
use crate::recursion::endless;
use crate::{Error, Flow, Result, interrupt};
use derived::Derived;

/// The parts of a Recursion operator.
#[derive(Debug)]
pub struct RecursionSpec {
    /// The properties of the output.
    pub properties: Properties,
    /// The name of the query.
    pub name: String,
    /// True if a row counts once: UNION, not UNION ALL.
    pub distinct: bool,
    /// The recursive term.
    pub term: Flow,
    /// The relations of the term, in its order: the place of an input of the operator, or `None` for the
    /// working table.
    pub reads: Vec<Option<usize>>,
    /// Limits of its rounds.
    pub limits: Limits,
}

/// Maintains a recursive query. Its first input is the initial term.
#[derive(Debug)]
pub struct Recursion {
    properties: Properties,
    name: String,
    term: Flow,
    reads: Vec<Option<usize>>,
    seen: Seen,
    limits: Limits,
}

/// The name of the saved table of rows.
const ROWS: &str = "rows";

/// The state of the existing rows.
#[derive(Debug)]
enum Seen {
    /// No state: each copy counts.
    Nothing,
    /// Each row counts once, and none is deleted.
    Once(KeyIndex),
    /// Each row counts once, and may be deleted.
    Derived(Derived),
}

impl Seen {
    fn new(properties: &Properties, distinct: bool) -> Result<Seen> {
        let types = properties.schema.fields().iter().map(|field| field.data_type().clone());
        Ok(match (distinct, properties.append_only) {
            (false, _) => Seen::Nothing,
            (true, true) => Seen::Once(KeyIndex::new(types.collect())?.tracked()),
            (true, false) => {
                Seen::Derived(Derived::new(properties.schema.clone(), KeyIndex::new(types.collect())?))
            }
        })
    }
}

impl Recursion {
    /// Returns the operator without rows; fails if rows of these types can't be indexed.
    pub fn new(parts: RecursionSpec) -> Result<Recursion> {
        let RecursionSpec { properties, name, distinct, term, reads, limits } = parts;
        let seen = Seen::new(&properties, distinct)?;
        Ok(Recursion { properties, name, term, reads, seen, limits })
    }

    /// Returns the inserted or deleted rows that change the working table.
    fn fresh(&mut self, delta: Delta) -> Result<Delta> {
        let delta = delta.with_schema(&self.properties.schema)?;
        let Seen::Once(seen) = &mut self.seen else {
            return Ok(match delta.is_append_only() {
                true => delta,
                false => consolidate(delta, &self.properties.schema)?,
            });
        };
        let mut fresh = Delta::default();
        for chunk in delta.chunks {
            let mut slots = Vec::with_capacity(chunk.rows.num_rows());
            let new = seen.slots(chunk.rows.columns(), &mut slots)?;
            fresh.push(Chunk::insert(first_rows(&chunk.rows, &slots, &new)?));
        }
        Ok(fresh)
    }

    /// Returns the term's output for changes of the working table and of its other relations.
    fn follow(
        &mut self,
        cut: &Cut,
        working: &Delta,
        inputs: Option<&[&Delta]>,
        output: &mut Output,
    ) -> Result<Delta> {
        let nothing = Delta::default();
        let given: Vec<&Delta> = self
            .reads
            .iter()
            .map(|read| match (read, inputs) {
                (None, _) => working,
                (Some(input), Some(inputs)) => inputs[*input],
                (Some(_), None) => &nothing,
            })
            .collect();
        let Advance { rows, failures, failing, .. } = self.term.dag.advance(cut, &given, true)?;
        output.failures.extend(failures.into_iter().map(|(_, failure)| failure));
        for FailingRows { stage, rows } in failing {
            output.failures.append(&mut stage.failures(&rows)?);
        }
        Ok(rows)
    }

    /// Inserts rows round by round; each copy counts, or each row once, and none is deleted.
    fn add(&mut self, cut: &Cut, inputs: &[&Delta], output: &mut Output) -> Result<()> {
        let mut fresh = self.fresh(inputs[0].clone())?;
        for round in 0.. {
            self.check_round(round)?;
            output.rows.append(fresh.clone());
            self.limits.check_output(output.rows.num_rows())?;
            let rows = self.follow(cut, &fresh, (round == 0).then_some(inputs), output)?;
            fresh = self.fresh(rows)?;
            if fresh.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Deletes rows that have lost a derivation, with the rows derived from them, and reinserts those with
    /// another one.
    fn rederive(&mut self, cut: &Cut, inputs: &[&Delta], output: &mut Output) -> Result<()> {
        self.derived()?.begin(inputs[0].clone())?;
        let rows = self.follow(cut, &Delta::default(), Some(inputs), output)?;
        self.derived()?.follow(rows)?;
        for put in [Derived::take_out as fn(&mut Derived) -> Result<Delta>, Derived::put_in] {
            for round in 0.. {
                let working = put(self.derived()?)?;
                if working.is_empty() {
                    break;
                }
                self.check_round(round)?;
                self.limits.check_output(working.num_rows())?;
                let rows = self.follow(cut, &working, None, output)?;
                self.derived()?.follow(rows)?;
            }
        }
        output.rows = self.derived()?.end()?;
        Ok(())
    }

    fn derived(&mut self) -> Result<&mut Derived> {
        match &mut self.seen {
            Seen::Derived(derived) => Ok(derived),
            _ => Err(Error::Bug("a recursive query that keeps no ways takes rows back".into())),
        }
    }

    fn check_round(&self, round: usize) -> Result<()> {
        interrupt::check()?;
        if round < self.limits.recursion_max {
            return Ok(());
        }
        Err(Error::Limit(endless(&self.name, round)))
    }
}

/// Returns the names of the columns of rows that are saved as keys.
fn names(schema: &SchemaRef) -> Vec<&str> {
    schema.fields().iter().map(|field| field.name().as_str()).collect()
}

/// Returns the first row of each new slot.
fn first_rows(rows: &RecordBatch, slots: &[u32], new: &[u32]) -> Result<RecordBatch> {
    let mut new = new.iter().peekable();
    let first = (0..slots.len() as u32).filter(|row| new.next_if_eq(&&slots[*row as usize]).is_some());
    Ok(take_record_batch(rows, &UInt32Array::from_iter_values(first))?)
}

impl Operator for Recursion {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let operators = self.term.operators().into_iter().filter(|operator| operator.cost.is_some());
        let titles: Vec<String> = operators.map(|operator| operator.title).collect();
        let union = if let Seen::Nothing = self.seen { "UNION ALL" } else { "UNION" };
        Description {
            name: "Recursion",
            detail: format!("{}, {union} by {}", self.name, titles.join(", ")),
            state: match &self.seen {
                Seen::Nothing => "the state of its term".into(),
                Seen::Once(_) => "its rows, the state of its term".into(),
                Seen::Derived(_) => "its rows with derivation counts, the state of its term".into(),
            },
            state_key: None,
            growth: Growth::With("its inputs and its result".into()),
            why: String::new(),
        }
    }

    fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let mut output = Output::default();
        match self.seen {
            Seen::Derived(_) => self.rederive(cut, inputs, &mut output)?,
            _ => self.add(cut, inputs, &mut output)?,
        }
        Ok(output)
    }
}

impl State for Recursion {
    fn reset(&mut self) -> Result<()> {
        let distinct = !matches!(self.seen, Seen::Nothing);
        self.seen = Seen::new(&self.properties, distinct)?;
        self.term.reset()
    }

    fn save(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        kept.put_part("term", self.term.save()?);
        match &self.seen {
            Seen::Nothing => {}
            Seen::Once(rows) => _ = rows.save(ROWS, &names(&self.properties.schema), &mut kept)?,
            Seen::Derived(derived) => derived.save(&mut kept)?,
        }
        Ok(kept)
    }

    fn save_changed(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        kept.put_part("term", self.term.save_changed(&[])?);
        match &self.seen {
            Seen::Nothing => {}
            Seen::Once(rows) => rows.save_changed(ROWS, &names(&self.properties.schema), &mut kept)?,
            Seen::Derived(derived) => kept.put_all(derived.changed()?),
        }
        Ok(kept)
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.term.load(kept.take_part("term"), &[])?;
        match &mut self.seen {
            Seen::Nothing => Ok(()),
            Seen::Once(rows) => Ok(rows.load(ROWS, kept).map(|_| ())?),
            Seen::Derived(derived) => derived.load(kept),
        }
    }

    fn state_rows(&self) -> usize {
        let seen = match &self.seen {
            Seen::Nothing => 0,
            Seen::Once(index) => index.len(),
            Seen::Derived(derived) => derived.len(),
        };
        self.term.state_rows() + seen
    }

    fn state_bytes(&self) -> usize {
        let seen = match &self.seen {
            Seen::Nothing => 0,
            Seen::Once(index) => index.memory_bytes(),
            Seen::Derived(derived) => derived.memory_bytes(),
        };
        self.term.state_bytes() + seen
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        match &mut self.seen {
            Seen::Nothing => {}
            Seen::Once(index) => show(index),
            Seen::Derived(derived) => derived.each_store(show),
        }
        self.term.each_store(show);
    }
}
