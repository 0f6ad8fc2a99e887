//! The rows of a recursive query under UNION, with inserts and deletes: delete and rederive.
//!
//! For each row the operator keeps its number of immediate derivations: from the initial term, and from
//! existing rows. That number alone doesn't tell if a row stays, since the rows of a cycle derive each other.
//! So a row that has lost a derivation is deleted first, unless the initial term has it, together with all
//! rows derived from it. The remaining rows are independent of the lost ones. Rows derived from these are
//! inserted again, round by round (Gupta, Mumick and Subrahmanian, *Maintaining Views Incrementally*, SIGMOD
//! 1993).

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_delta::{Chunk, Delta, consolidate};
use millstream_state::{KeyIndex, Paged, RunSlots, SlotMarks, Spillable, Tables};

use super::{ROWS, names};
use crate::Result;
use crate::persistence::incomplete;

/// The table of the derivations.
const WAYS: &str = "ways";

/// The rows by slot, and their derivations.
#[derive(Debug)]
pub(super) struct Derived {
    schema: SchemaRef,
    index: KeyIndex,
    ways: Paged<Ways>,
    /// The slots whose row, or number of derivations, has changed.
    marks: SlotMarks,
    /// For the rows inserted or deleted in this step: true if the row existed before.
    before: BTreeMap<u32, bool>,
    /// The rows that have lost a derivation in this step, and those that have gained or kept one.
    lost: Vec<u32>,
    gained: Vec<u32>,
}

/// The number of a row's derivations.
#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    /// From the initial term.
    begun: i64,
    /// From existing rows, immediately.
    followed: i64,
    /// True if the row exists.
    there: bool,
}

impl Ways {
    fn any(self) -> bool {
        self.begun > 0 || self.followed > 0
    }
}

impl Derived {
    /// Returns an empty set of rows.
    pub(super) fn new(schema: SchemaRef, index: KeyIndex) -> Derived {
        let (before, lost, gained) = (BTreeMap::new(), Vec::new(), Vec::new());
        Derived { schema, index, ways: Paged::default(), marks: SlotMarks::default(), before, lost, gained }
    }

    /// Adds changes of the initial term.
    pub(super) fn begin(&mut self, delta: Delta) -> Result<()> {
        let delta = consolidate(delta.with_schema(&self.schema)?, &self.schema)?;
        self.absorb(delta, |ways, weight| ways.begun += weight)
    }

    /// Adds changes of rows derived from existing rows. They must contain each lost derivation, even if
    /// another one is gained.
    pub(super) fn follow(&mut self, delta: Delta) -> Result<()> {
        self.absorb(delta.with_schema(&self.schema)?, |ways, weight| ways.followed += weight)
    }

    fn absorb(&mut self, delta: Delta, add: impl Fn(&mut Ways, i64)) -> Result<()> {
        for chunk in &delta.chunks {
            let mut slots = Vec::with_capacity(chunk.rows.num_rows());
            self.index.slots(chunk.rows.columns(), &mut slots)?;
            self.ways.resize(self.index.slots_end(), Ways::default());
            for (row, slot) in slots.into_iter().enumerate() {
                let weight = chunk.weight(row);
                let ways = &mut self.ways[slot as usize];
                add(ways, weight);
                self.before.entry(slot).or_insert(ways.there);
                if weight < 0 { &mut self.lost } else { &mut self.gained }.push(slot);
            }
        }
        Ok(())
    }

    /// Deletes the rows that have lost a derivation; returns these changes of the working table.
    pub(super) fn take_out(&mut self) -> Result<Delta> {
        let mut slots = std::mem::take(&mut self.lost);
        slots.retain(|slot| {
            let ways = &mut self.ways[*slot as usize];
            let goes = ways.there && ways.begun == 0;
            ways.there &= !goes;
            goes
        });
        self.gained.extend_from_slice(&slots);
        Ok(Delta::of(Chunk::delete(self.rows(&slots)?)))
    }

    /// Inserts the derived rows that don't exist; returns these changes of the working table.
    pub(super) fn put_in(&mut self) -> Result<Delta> {
        let mut slots = std::mem::take(&mut self.gained);
        slots.retain(|slot| {
            let ways = &mut self.ways[*slot as usize];
            ways.any() && !std::mem::replace(&mut ways.there, true)
        });
        Ok(Delta::of(Chunk::insert(self.rows(&slots)?)))
    }

    /// Ends a step: returns the changes of the rows. Drops the state of rows without derivations.
    pub(super) fn end(&mut self) -> Result<Delta> {
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        let touched = std::mem::take(&mut self.before);
        self.marks.touch_all(touched.keys().copied());
        for (slot, before) in &touched {
            match (before, self.ways[*slot as usize].there) {
                (true, false) => gone.push(*slot),
                (false, true) => come.push(*slot),
                _ => {}
            }
        }
        let mut delta = Delta::of(Chunk::delete(self.rows(&gone)?));
        delta.push(Chunk::insert(self.rows(&come)?));
        for slot in touched.into_keys() {
            if !self.ways[slot as usize].there {
                self.ways[slot as usize] = Ways::default();
                self.index.free(slot);
            }
        }
        Ok(delta)
    }

    fn rows(&self, slots: &[u32]) -> Result<RecordBatch> {
        Ok(RecordBatch::try_new(self.schema.clone(), self.index.keys(slots)?)?)
    }

    /// Saves the rows, and the number of derivations of each. Between two steps all rows exist.
    pub(super) fn save(&self, to: &mut Tables) -> Result<()> {
        self.save_of(&self.index.live(), to)
    }

    /// Does the same for rows changed since the newest checkpoint.
    pub(super) fn changed(&self) -> Result<Tables> {
        let run = self.marks.run();
        let changed = self.index.changed_slots(&self.marks, &run);
        let mut kept = Tables::default();
        self.save_of(&changed.0, &mut kept)?;
        kept.put_slots(&run, RunSlots::from(changed), &[ROWS, WAYS]);
        Ok(kept)
    }

    fn save_of(&self, slots: &[u32], to: &mut Tables) -> Result<()> {
        self.index.save_some(slots, ROWS, &names(&self.schema), to)?;
        let ways = |of: fn(Ways) -> i64| {
            slots.iter().map(|slot| of(self.ways.get(*slot).copied().unwrap_or_default())).collect()
        };
        let (begun, followed) = (ways(|ways| ways.begun), ways(|ways| ways.followed));
        Ok(to.put_numbers(WAYS, vec![("begun", begun), ("followed", followed)])?)
    }

    /// Loads saved rows.
    pub(super) fn load(&mut self, from: &mut Tables) -> Result<()> {
        let rows = self.index.load(ROWS, from)?;
        self.marks.bar();
        let [begun, followed] = &from.take_numbers(WAYS, 2)?[..] else {
            return Err(incomplete("ways are two numbers".into()));
        };
        if begun.len() != rows {
            return Err(incomplete(format!("{rows} rows follow in {} ways", begun.len())));
        }
        let ways = begun.iter().zip(followed);
        self.ways =
            ways.map(|(begun, followed)| Ways { begun: *begun, followed: *followed, there: true }).collect();
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.index);
        show(&mut self.ways);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.index.memory_bytes() + self.ways.memory_bytes()
    }
}
