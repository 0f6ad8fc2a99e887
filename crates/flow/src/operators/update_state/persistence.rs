//! Saves the keys and their states as tables.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, UInt32Array};
use arrow::datatypes::{Int64Type, UInt32Type};
use millstream_state::{Columns, RunSlots, Tables};

use super::UpdateState;
use crate::Result;
use crate::failure::{put_failures, take_failures};
use crate::persistence::incomplete;

/// The column with the time of a key's last rows.
const LAST: &str = "_last";
/// The column with the key of a row: its place among all keys, from 0 on.
const KEY: &str = "_key";
/// The column that is true for failing keys whose last call, at the time-out, failed. Functions without that
/// call have no such column.
const OVERDUE: &str = "_overdue";

impl UpdateState {
    /// Saves all state. The calls by time are not saved: for the time-out they follow from the times of the
    /// keys' last rows.
    pub(super) fn kept(&self) -> Result<Tables> {
        let live = self.index.live();
        let mut kept = self.of_slots(&live)?;
        let place = |slot: u32| live.binary_search(&slot).ok().map(|place| place as u32);
        kept.put_all(self.failing_keys(place)?);
        self.save_beside(&mut kept)?;
        Ok(kept)
    }

    /// Does the same for a checkpoint: only the changed keys. Failing keys are identified by slot.
    pub(super) fn changed(&self) -> Result<Tables> {
        let run = self.marks.run();
        let changed = self.index.changed_slots(&self.marks, &run);
        let mut kept = self.of_slots(&changed.0)?;
        kept.put_slots(&run, RunSlots::from(changed), &["keys", "calls"]);
        let (there, _) = self.index.live_among(self.failing.keys().copied().collect());
        let mut failing = self.failing_keys(|slot| there.binary_search(&slot).is_ok().then_some(slot))?;
        failing.place_by_slots("failing_keys", |slot| u32::try_from(slot).ok())?;
        kept.put_all(failing);
        self.save_beside(&mut kept)?;
        Ok(kept)
    }

    /// Returns the keys of some slots, the times of their last rows, and their results.
    fn of_slots(&self, slots: &[u32]) -> Result<Tables> {
        let mut kept = Tables::default();
        let names: Vec<&str> =
            self.properties.schema.fields().iter().map(|field| field.name().as_str()).collect();
        self.index.save_some(slots, "keys", &names, &mut kept)?;
        let last = Int64Array::from_iter_values(slots.iter().map(|slot| self.timeouts.last_of(*slot)));
        kept.put_columns("calls", vec![(LAST, Arc::new(last))])?;
        self.results.save(slots, "states", &mut kept)?;
        Ok(kept)
    }

    /// Returns the failing keys, each by its place, and the reasons.
    fn failing_keys(&self, place: impl Fn(u32) -> Option<u32>) -> Result<Tables> {
        let mut kept = Tables::default();
        let (mut places, mut overdue, mut failures) = (Vec::new(), Vec::new(), Vec::new());
        for (slot, failure) in &self.failing {
            let Some(place) = place(*slot) else { continue };
            places.push(place);
            overdue.push(self.overdue.contains(slot));
            failures.push(failure.clone());
        }
        let mut columns: Vec<(&str, ArrayRef)> = vec![(KEY, Arc::new(UInt32Array::from(places)))];
        if self.calls.takes_timing_out {
            columns.push((OVERDUE, Arc::new(BooleanArray::from(overdue))));
        }
        kept.put_columns("failing_keys", columns)?;
        put_failures(&mut kept, "failing", &failures)?;
        Ok(kept)
    }

    fn save_beside(&self, kept: &mut Tables) -> Result<()> {
        if let Some(last) = &self.batch {
            kept.put_delta("batch", &last.rows)?;
            put_failures(kept, "batch_failures", &last.failures)?;
        }
        Ok(())
    }

    pub(super) fn go_on(&mut self, kept: &mut Tables) -> Result<()> {
        let count = self.index.load("keys", kept)?;
        let slots: Vec<u32> = (0..count as u32).collect();
        let failing_keys = kept.take_table("failing_keys")?;
        let failing = slots_of(&failing_keys, &slots)?;
        self.overdue = self.overdue_of(&failing_keys, &failing)?;
        let calls = kept.take_rows("calls", count)?;
        self.timeouts.load(calls.numbers::<Int64Type>(LAST)?.values().iter().copied(), &self.overdue);
        self.results.load(&slots, "states", kept)?;
        self.marks.bar();
        self.failing = failing.into_iter().zip(take_failures(kept, "failing")?).collect();
        if let Some(last) = &mut self.batch {
            last.rows = kept.take_delta("batch")?;
            last.failures = take_failures(kept, "batch_failures")?;
        }
        Ok(())
    }

    /// Returns those of some failing keys whose last call failed.
    fn overdue_of(&self, columns: &Columns, failing: &[u32]) -> Result<BTreeSet<u32>> {
        if !self.calls.takes_timing_out {
            return Ok(BTreeSet::new());
        }
        let overdue = columns.booleans(OVERDUE)?;
        let marked = failing.iter().zip(overdue.values()).filter(|(_, overdue)| *overdue);
        Ok(marked.map(|(slot, _)| *slot).collect())
    }
}

/// Returns the slots of the keys in a column of places.
fn slots_of(columns: &Columns, slots: &[u32]) -> Result<Vec<u32>> {
    let slot = |place: &u32| {
        let slot = slots.get(*place as usize).copied();
        slot.ok_or_else(|| incomplete(format!("there is no key {place} among {}", slots.len())))
    };
    columns.numbers::<UInt32Type>(KEY)?.values().iter().map(slot).collect()
}
