//! The rows of a recursive query under UNION, over rows that come and go: delete and rederive.
//!
//! Of each row is kept in how many ways it follows at once from what begins the query, and from the rows that are there.
//! That number alone doesn't say whether a row stays, since rows of a cycle hold each other up. So a row that has lost a
//! way is taken out first, unless what begins the query has it, and with it all that follows from it; what is left then
//! stands without what was lost. Rows that follow from that are put back, round by round (Gupta, Mumick and Subrahmanian,
//! *Maintaining Views Incrementally*, SIGMOD 1993).

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_delta::{Chunk, Delta, consolidate};
use millstream_state::{KeyIndex, Paged, SlotMarks, Spillable, Tables};

use super::{ROWS, names};
use crate::Result;
use crate::saving::incomplete;

/// The table of the ways.
const WAYS: &str = "ways";

/// The rows by slot, and the ways in which they follow.
#[derive(Debug)]
pub(super) struct Derived {
    schema: SchemaRef,
    index: KeyIndex,
    ways: Paged<Ways>,
    /// The slots whose row, or number of ways, has changed.
    marks: SlotMarks,
    /// Of the step: which rows were there before, of those that came or went.
    before: BTreeMap<u32, bool>,
    /// Of the step: the rows that have lost a way, and those that have gained one, or have one left.
    lost: Vec<u32>,
    gained: Vec<u32>,
}

/// In how many ways a row follows.
#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    /// From what begins the query.
    begun: i64,
    /// From rows that are there, at once.
    followed: i64,
    /// Whether the row is there.
    there: bool,
}

impl Ways {
    fn any(self) -> bool {
        self.begun > 0 || self.followed > 0
    }
}

impl Derived {
    /// No rows.
    pub(super) fn new(schema: SchemaRef, index: KeyIndex) -> Derived {
        let (before, lost, gained) = (BTreeMap::new(), Vec::new(), Vec::new());
        Derived { schema, index, ways: Paged::default(), marks: SlotMarks::default(), before, lost, gained }
    }

    /// Takes changes of what begins the query.
    pub(super) fn begin(&mut self, delta: Delta) -> Result<()> {
        let delta = consolidate(delta.with_schema(&self.schema)?, &self.schema)?;
        self.absorb(delta, |ways, weight| ways.begun += weight)
    }

    /// Takes changes of what follows from rows that are there. Each way that is lost must be among them, even where
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

    /// Takes out the rows that have lost a way; they are what goes of the working table.
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

    /// Puts in the rows that follow and aren't there; they are what comes to the working table.
    pub(super) fn put_in(&mut self) -> Result<Delta> {
        let mut slots = std::mem::take(&mut self.gained);
        slots.retain(|slot| {
            let ways = &mut self.ways[*slot as usize];
            ways.any() && !std::mem::replace(&mut ways.there, true)
        });
        Ok(Delta::of(Chunk::insert(self.rows(&slots)?)))
    }

    /// Ends a step: what has changed of the rows. Those that don't follow any longer leave nothing behind.
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

    /// The rows, and in how many ways each follows. Between two steps all are there.
    pub(super) fn save(&self, to: &mut Tables) -> Result<()> {
        self.save_of(&self.index.live(), to)
    }

    /// The same of those of which something has changed since the newest checkpoint.
    pub(super) fn changed(&self) -> Result<Tables> {
        let run = self.marks.run();
        let (slots, gone) = match run.is_whole() {
            true => (self.index.live(), Vec::new()),
            false => self.index.live_among(self.marks.touched(&run)),
        };
        let mut kept = Tables::default();
        self.save_of(&slots, &mut kept)?;
        kept.put_slots(&run, &slots, &gone, &[ROWS, WAYS])?;
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

    /// Takes them in again.
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
