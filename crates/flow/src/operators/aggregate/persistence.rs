//! Saves the groups of an aggregate, and their values, as tables.
//!
//! The state of slots is saved for the slots with a group, in their order; a load may give the groups other
//! slots.
//!
//! A checkpoint of many changed groups shares the memory of keys and values with the thread that writes it, and the
//! aggregate copies a page before it changes the page.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, UInt32Array};
use arrow::datatypes::{DataType, Int64Type, UInt32Type};
use arrow::error::ArrowError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use millstream_state::{Columns, Paged, Run, RunSlots, SavedKeys, Tables};

use super::Aggregate;
use super::call::{Call, CallState};
use super::groups::Groups;
use super::slot::SlotAggregate;
use crate::Result;
use crate::persistence::incomplete;

/// The table with a row for each group.
pub(super) const GROUPS: &str = "groups";
/// The table with a row for each value of a group.
pub(super) const VALUES: &str = "values";
/// The table of the groups' keys.
const KEYS: &str = "keys";
/// The column with the number of a group's rows.
const ROWS: &str = "_rows";
/// The column with the group of a value: its place among the saved groups, from 0 on.
pub(super) const GROUP: &str = "_group";

/// Returns a table with a row for each group.
pub(super) fn of_groups(columns: Vec<(&str, ArrayRef)>) -> Result<Tables> {
    let mut kept = Tables::default();
    kept.put_columns(GROUPS, columns)?;
    Ok(kept)
}

/// Returns the numbers of rows of the groups with these slots.
fn numbers_of_rows(rows: &Paged<i64>, slots: &[u32]) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| rows[*slot as usize])))
}

/// Returns the place of each group, repeated `counts` times.
pub(super) fn places(counts: impl Iterator<Item = usize>) -> UInt32Array {
    let repeated = counts.zip(0..).flat_map(|(count, place)| std::iter::repeat_n(place, count));
    UInt32Array::from_iter_values(repeated)
}

/// Returns the slots of the groups in a column of places among `slots`.
pub(super) fn slots_of(columns: &Columns, slots: &[u32]) -> Result<Vec<u32>> {
    let slot = |place: &u32| {
        let slot = slots.get(*place as usize).copied();
        slot.ok_or_else(|| incomplete(format!("there is no group {place} among {}", slots.len())))
    };
    columns.numbers::<UInt32Type>(GROUP)?.values().iter().map(slot).collect()
}

impl Groups {
    /// Saves the keys of all groups and their numbers of rows. Returns the groups' slots.
    pub(super) fn save(&self, kept: &mut Tables) -> Result<Vec<u32>> {
        let slots = self.live_slots();
        self.save_of(&slots, kept)?;
        Ok(slots)
    }

    /// Does the same for the groups with these slots.
    fn save_of(&self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        if let Some(index) = &self.index {
            index.save_some(slots, KEYS, &self.key_names(), kept)?;
        }
        kept.put_columns(GROUPS, vec![(ROWS, numbers_of_rows(&self.rows, slots))])?;
        Ok(())
    }

    /// Returns the names of the key columns, and of that of the sets' ids.
    fn key_names(&self) -> Vec<String> {
        let name = |key: &Arc<dyn PhysicalExpr>| match key.downcast_ref::<Column>() {
            Some(column) => column.name().to_string(),
            None => key.to_string(),
        };
        self.grouping.keys.iter().map(name).chain(["_grouping_set".into()]).collect()
    }

    /// Returns the slots of the groups that a run needs, and those of removed groups.
    fn changed(&self, run: &Run) -> (Vec<u32>, Vec<u32>) {
        match &self.index {
            Some(index) => index.changed_slots(&self.marks, run),
            None if run.is_whole() => (self.live_slots(), Vec::new()),
            None => (self.marks.touched(run), Vec::new()),
        }
    }

    /// Does the same as [`Groups::save_of`] for these keys, in the thread that reads the tables.
    fn save_later(&self, keys: Arc<SavedKeys>, kept: &mut Tables) -> Arc<RunSlots> {
        let slots = keys.put(KEYS, kept);
        let (rows, of) = (self.rows.share(), slots.clone());
        kept.put_later(GROUPS, move || {
            let mut groups = Tables::default();
            groups.put_columns(GROUPS, vec![(ROWS, numbers_of_rows(&rows, of.saved()))])?;
            groups.take(GROUPS)
        });
        slots
    }

    /// Loads saved groups; before there are only those that always exist, which are the first. Returns the
    /// slots of the saved groups.
    pub(super) fn load(&mut self, kept: &mut Tables) -> Result<Vec<u32>> {
        let count = match &mut self.index {
            Some(index) => index.load(KEYS, kept)?,
            None => 1,
        };
        self.resize();
        self.marks.bar();
        let rows = kept.take_rows(GROUPS, count)?.numbers::<Int64Type>(ROWS)?;
        rows.values().iter().enumerate().for_each(|(slot, rows)| self.rows[slot] = *rows);
        Ok((0..count as u32).collect())
    }
}

impl Aggregate {
    /// Saves the groups, and the values of those calls that are `wanted`.
    pub(super) fn save_some(&self, wanted: impl Fn(&dyn SlotAggregate) -> bool) -> Result<Tables> {
        self.save_of(&self.groups.live_slots(), wanted)
    }

    /// Saves the groups changed since the newest checkpoint with their values, or all groups if a full save
    /// is due.
    pub(super) fn changed_groups(&self) -> Result<Tables> {
        let saves_some = |call: &Call| match &call.kept {
            CallState::Slots(values) => values.saves_some(),
            CallState::Rows => true,
        };
        if !self.calls.iter().all(saves_some) {
            return self.save_some(|_| true);
        }
        let run = self.groups.marks.run();
        let keys = match &self.groups.index {
            Some(index) => index.saved_later(&self.groups.marks, &run, &self.groups.key_names())?,
            None => None,
        };
        let (mut kept, slots) = match keys {
            Some(keys) => self.save_later(keys)?,
            None => {
                let changed = self.groups.changed(&run);
                (self.save_of(&changed.0, |_| true)?, Arc::new(changed.into()))
            }
        };
        kept.put_slots(&run, slots, &[KEYS, GROUPS]);
        Ok(kept)
    }

    /// Saves the groups with these keys in the thread that reads the tables, except the values that can't be shared.
    fn save_later(&self, keys: Arc<SavedKeys>) -> Result<(Tables, Arc<RunSlots>)> {
        let mut kept = Tables::default();
        kept.put_number("stepped", self.steps as i64);
        let slots = self.groups.save_later(keys, &mut kept);
        for (place, call) in self.calls.iter().enumerate() {
            let CallState::Slots(values) = &call.kept else { continue };
            let mut of_call = Tables::default();
            match values.share() {
                Some((table, values)) => {
                    let of = slots.clone();
                    of_call.put_later(table, move || {
                        let saved = values.save(of.saved());
                        saved.map_err(|error| ArrowError::from_external_error(Box::new(error)))?.take(table)
                    });
                }
                None => of_call = values.save(slots.saved())?,
            }
            kept.put_part(&part(place), of_call);
        }
        Ok((kept, slots))
    }

    fn save_of(&self, slots: &[u32], wanted: impl Fn(&dyn SlotAggregate) -> bool) -> Result<Tables> {
        let mut kept = Tables::default();
        kept.put_number("stepped", self.steps as i64);
        self.groups.save_of(slots, &mut kept)?;
        for (place, call) in self.calls.iter().enumerate() {
            if let CallState::Slots(values) = &call.kept
                && wanted(values.as_ref())
            {
                kept.put_part(&part(place), values.save(slots)?);
            }
        }
        Ok(kept)
    }

    /// Loads them; the values of other calls are those of no rows. Returns the slots of the groups.
    pub(super) fn load_some(
        &mut self,
        kept: &mut Tables,
        wanted: impl Fn(&dyn SlotAggregate) -> bool,
    ) -> Result<Vec<u32>> {
        self.steps = kept.take_number("stepped")? as u64;
        let slots = self.groups.load(kept)?;
        self.resize();
        for (place, call) in self.calls.iter_mut().enumerate() {
            if let CallState::Slots(values) = &mut call.kept
                && wanted(values.as_ref())
            {
                load_part(values.as_mut(), &slots, kept, &part(place))?;
            }
        }
        Ok(slots)
    }
}

/// Returns the name of a call's saved state.
pub(super) fn part(place: usize) -> String {
    format!("call{place}")
}

/// Loads the saved state of an aggregate from a part.
pub(super) fn load_part(
    values: &mut dyn SlotAggregate,
    slots: &[u32],
    kept: &mut Tables,
    part: &str,
) -> Result<()> {
    in_part(kept, part, |of| values.load(slots, of))
}

/// Loads a part. Tables that `load` leaves stay in `kept`, so that the caller can report them.
pub(super) fn in_part<R>(
    kept: &mut Tables,
    part: &str,
    load: impl FnOnce(&mut Tables) -> Result<R>,
) -> Result<R> {
    let mut of = kept.take_part(part);
    let loaded = load(&mut of)?;
    kept.put_part(part, of);
    Ok(loaded)
}

/// Fails if something is left of one of several parts.
pub(super) fn all_taken(kept: &Tables) -> Result<()> {
    match kept.left() {
        None => Ok(()),
        Some(left) => Err(incomplete(format!("nobody knows '{left}'"))),
    }
}

/// Returns the type that holds every sum of a type: a decimal's sum may have more digits than the type
/// allows.
pub(super) fn widest(data_type: &DataType) -> DataType {
    use arrow::datatypes::{
        DECIMAL32_MAX_PRECISION, DECIMAL64_MAX_PRECISION, DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION,
    };
    match data_type {
        DataType::Decimal32(_, scale) => DataType::Decimal32(DECIMAL32_MAX_PRECISION, *scale),
        DataType::Decimal64(_, scale) => DataType::Decimal64(DECIMAL64_MAX_PRECISION, *scale),
        DataType::Decimal128(_, scale) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale),
        DataType::Decimal256(_, scale) => DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale),
        other => other.clone(),
    }
}
