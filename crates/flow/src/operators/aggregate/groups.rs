//! The groups of an aggregate: their keys, slots and numbers of rows.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::physical_expr::PhysicalExpr;
use millstream_state::{KeyIndex, NO_SLOT, PARTS, Paged, SlotMarks, Spillable, dealt_out, page_rows};

use super::parallel_update::SlotPartitions;
use crate::parallelism::Threads;
use crate::point_lookup::{Wanted, keys_wanted};
use crate::{Error, Result};

/// The keys of rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Grouping {
    pub(super) keys: Vec<Arc<dyn PhysicalExpr>>,
    /// The sets of GROUPING SETS, ROLLUP and CUBE; empty: one set of all keys.
    pub(super) sets: Vec<GroupingSet>,
}

/// One of several sets of keys by which the same rows are grouped.
#[derive(Clone, Debug)]
pub(super) struct GroupingSet {
    /// True for the keys that it lacks: their columns are NULL.
    pub(super) absent: Vec<bool>,
    /// The id that separates its groups from those of other sets.
    pub(super) id: ScalarValue,
}

impl Grouping {
    /// Describes the keys for EXPLAIN.
    pub(super) fn describe(&self) -> String {
        let list = |absent: &[bool]| {
            let names = self.keys.iter().zip(absent).filter(|(_, absent)| !**absent);
            names.map(|(key, _)| key.to_string()).collect::<Vec<_>>().join(", ")
        };
        if self.sets.is_empty() {
            return list(&vec![false; self.keys.len()]);
        }
        let sets: Vec<String> = self.sets.iter().map(|set| format!("({})", list(&set.absent))).collect();
        format!("sets {}", sets.join(", "))
    }

    /// Returns the key columns of one set, from those of all keys.
    fn columns(&self, set: &GroupingSet, keys: &[ArrayRef], count: usize) -> Result<Vec<ArrayRef>> {
        let mut columns: Vec<ArrayRef> = keys
            .iter()
            .zip(&set.absent)
            .map(|(key, absent)| if *absent { new_null_array(key.data_type(), count) } else { key.clone() })
            .collect();
        columns.push(set.id.to_array_of_size(count)?);
        Ok(columns)
    }
}

/// A group that a step touches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touched {
    pub(super) slot: u32,
    /// The number of rows before the step.
    pub(super) rows: i64,
}

/// Rows to be counted to their groups.
pub(super) struct Counted<'a> {
    pub(super) slots: &'a [u32],
    pub(super) weights: Option<&'a [i64]>,
    pub(super) parted: &'a SlotPartitions,
}

/// Merges the groups of all parts whose first row is within a range, in row order.
fn by_row(first: &[Vec<(usize, Touched)>], range: Range<usize>) -> Vec<Touched> {
    let (from, mut part_at) = (range.start, vec![PARTS as u8; range.len()]);
    let mut of_parts: Vec<_> = first
        .iter()
        .map(|first| {
            let place = |row: usize| first.partition_point(|(at, _)| *at < row);
            &first[place(range.start)..place(range.end)]
        })
        .collect();
    for (part, first) in (0..).zip(&of_parts) {
        first.iter().for_each(|(row, _)| part_at[row - from] = part);
    }
    let mut groups = Vec::with_capacity(of_parts.iter().map(|first| first.len()).sum());
    groups.extend(part_at.into_iter().filter_map(|part| {
        let first = of_parts.get_mut(usize::from(part))?;
        let ((_, group), rest) = first.split_first()?;
        *first = rest;
        Some(*group)
    }));
    groups
}

/// All groups, each with a slot.
#[derive(Debug)]
pub(super) struct Groups {
    pub(super) grouping: Grouping,
    /// `None` without group columns: then slot 0 is the only one.
    pub(super) index: Option<KeyIndex>,
    pub(super) rows: Paged<i64>,
    /// A bit for each slot, set while the current step has touched it.
    touched: Vec<u64>,
    /// True if each touched group has more rows than before, except groups that always exist.
    only_grew: bool,
    /// Groups with slots below this exist even without rows: those without keys.
    standing: u32,
    /// Values that all groups share, if the index has only some of the key columns: one for each key column,
    /// or `None` for the index's next column.
    shared: Vec<Option<ScalarValue>>,
    /// The groups that have changed since checkpoints.
    pub(super) marks: SlotMarks,
}

impl Groups {
    /// Returns no groups except those that always exist. The types are those of the key columns; with
    /// grouping sets the type of the sets' ids is the last.
    pub(super) fn new(grouping: Grouping, types: &[DataType]) -> Result<Groups> {
        let global = grouping.keys.is_empty() && grouping.sets.is_empty();
        let index = if global { None } else { Some(KeyIndex::new(types.to_vec())?) };
        let (touched, shared, marks) = Default::default();
        let (rows, only_grew) = (Paged::default(), true);
        let mut groups = Groups { grouping, index, rows, touched, only_grew, standing: 0, shared, marks };
        if global {
            groups.standing = 1;
        } else if let Some(index) = &mut groups.index {
            let keys: Vec<ArrayRef> = types.iter().map(|data_type| new_null_array(data_type, 1)).collect();
            // Without sets the index may contain only some of the keys.
            let keys = &keys[..groups.grouping.keys.len().min(keys.len())];
            for set in groups.grouping.sets.iter().filter(|set| set.absent.iter().all(|absent| *absent)) {
                let mut slots = Vec::new();
                index.slots(&groups.grouping.columns(set, keys, 1)?, &mut slots)?;
                groups.standing += 1;
            }
        }
        groups.resize();
        Ok(groups)
    }

    /// Declares key columns that together have few values at a time; called before there are groups.
    pub(super) fn has_few(&mut self, columns: &[usize]) {
        if let Some(index) = self.index.as_mut().filter(|index| index.is_empty()) {
            index.tell_apart(columns);
        }
    }

    /// Returns true if there is only one group, of all rows.
    pub(super) fn is_global(&self) -> bool {
        self.index.is_none()
    }

    /// Returns the number of groups that always exist.
    pub(super) fn standing(&self) -> u32 {
        self.standing
    }

    /// Returns an upper bound of all slots.
    pub(super) fn end(&self) -> usize {
        self.index.as_ref().map_or(1, KeyIndex::slots_end)
    }

    /// Returns the number of groups.
    pub(super) fn len(&self) -> usize {
        self.index.as_ref().map_or(1, KeyIndex::len)
    }

    pub(super) fn resize(&mut self) {
        let end = self.end();
        self.rows.resize(end, 0);
        self.touched.resize(end.div_ceil(64), 0);
    }

    /// Returns the slots of rows with these key values: one list of slots for each set.
    pub(super) fn place(&mut self, keys: &[ArrayRef], count: usize) -> Result<Vec<Vec<u32>>> {
        let Some(index) = &mut self.index else { return Ok(vec![vec![0; count]]) };
        let mut placed = Vec::new();
        if self.grouping.sets.is_empty() {
            placed.push(Vec::with_capacity(count));
            index.slots(keys, &mut placed[0])?;
        }
        for set in &self.grouping.sets {
            let mut slots = Vec::with_capacity(count);
            index.slots(&self.grouping.columns(set, keys, count)?, &mut slots)?;
            placed.push(slots);
        }
        self.resize();
        Ok(placed)
    }

    /// Does the same for existing groups; rows of others get [`NO_SLOT`], until [`Groups::settle`] gives them
    /// one.
    pub(super) fn find(&self, keys: &[ArrayRef], count: usize) -> Result<Vec<Vec<u32>>> {
        let Some(index) = &self.index else { return Ok(vec![vec![0; count]]) };
        let find = |columns: &[ArrayRef]| {
            let mut slots = Vec::with_capacity(count);
            index.find(columns, &mut slots)?;
            Ok(slots)
        };
        if self.grouping.sets.is_empty() {
            return Ok(vec![find(keys)?]);
        }
        self.grouping.sets.iter().map(|set| find(&self.grouping.columns(set, keys, count)?)).collect()
    }

    /// Gives slots to the groups that [`Groups::find`] hasn't found.
    pub(super) fn settle(&mut self, keys: &[ArrayRef], found: &mut [Vec<u32>]) -> Result<()> {
        let Some(index) = &mut self.index else { return Ok(()) };
        for (place, slots) in found.iter_mut().enumerate() {
            if !slots.contains(&NO_SLOT) {
                continue;
            }
            match self.grouping.sets.get(place) {
                None => index.settle(keys, slots)?,
                Some(set) => index.settle(&self.grouping.columns(set, keys, slots.len())?, slots)?,
            }
        }
        self.resize();
        Ok(())
    }

    /// Returns the slots of groups by their key columns, including that of the sets' ids.
    pub(super) fn slots(&mut self, keys: &[ArrayRef], count: usize) -> Result<Vec<u32>> {
        let Some(index) = &mut self.index else { return Ok(vec![0; count]) };
        let mut slots = Vec::with_capacity(count);
        index.slots(keys, &mut slots)?;
        self.resize();
        Ok(slots)
    }

    /// Counts rows to their groups, and adds groups that this step hasn't touched before to `touched`.
    pub(super) fn count(&mut self, slots: &[u32], weights: Option<&[i64]>, touched: &mut Vec<Touched>) {
        self.only_grew &= weights.is_none();
        match weights {
            None => slots.iter().for_each(|slot| self.touch(*slot, 1, touched)),
            Some(weights) => {
                slots.iter().zip(weights).for_each(|(slot, weight)| self.touch(*slot, *weight, touched));
            }
        }
    }

    /// Does the same for partitioned lists of slots, on the free threads: groups are added to `touched` in
    /// row order.
    pub(super) fn count_apart(
        &mut self,
        rows: &[Counted<'_>],
        threads: &Threads,
        touched: &mut Vec<Touched>,
    ) {
        self.only_grew &= rows.iter().all(|counted| counted.weights.is_none());
        let marks = dealt_out(&mut self.touched, page_rows() / 64);
        let parts = self.rows.parts().into_iter().zip(marks).enumerate().collect();
        let first = threads.spread(parts, |(part, (mut counts, mut marks))| {
            let (mut first, mut before) = (Vec::new(), 0);
            for Counted { slots, weights, parted } in rows {
                for row in parted.rows(part).iter().map(|row| *row as usize) {
                    let slot = slots[row];
                    let mark = &mut marks.page(slot)[slot as usize % page_rows() / 64];
                    let (count, bit) = (counts.at(slot), 1 << (slot % 64));
                    if *mark & bit == 0 {
                        *mark |= bit;
                        first.push((before + row, Touched { slot, rows: *count }));
                    }
                    *count += weights.map_or(1, |weights| weights[row]);
                }
                before += slots.len();
            }
            first
        });
        let all = rows.iter().map(|counted| counted.slots.len()).sum();
        let merged = threads.spread(threads.ranges(all), |range| by_row(&first, range));
        touched.reserve(merged.iter().map(Vec::len).sum());
        merged.into_iter().for_each(|mut groups| touched.append(&mut groups));
    }

    /// Adds the groups that always exist to `touched`.
    pub(super) fn touch_standing(&mut self, touched: &mut Vec<Touched>) {
        (0..self.standing).for_each(|slot| self.touch(slot, 0, touched));
    }

    #[inline(always)]
    fn touch(&mut self, slot: u32, weight: i64, touched: &mut Vec<Touched>) {
        let (mark, bit) = (&mut self.touched[slot as usize / 64], 1 << (slot % 64));
        let rows = &mut self.rows[slot as usize];
        if *mark & bit == 0 {
            *mark |= bit;
            touched.push(Touched { slot, rows: *rows });
        }
        *rows += weight;
    }

    /// Returns true if no touched group can be empty or unchanged.
    pub(super) fn only_grew(&self) -> bool {
        self.only_grew
    }

    /// Returns a touched group with its current number of rows.
    #[inline(always)]
    pub(super) fn now(&self, touched: &Touched) -> Touched {
        Touched { slot: touched.slot, rows: self.rows[touched.slot as usize] }
    }

    /// Ends a step: fails if a group has a negative number of rows, and drops empty groups, passing each slot
    /// to `free`.
    pub(super) fn end_step(
        &mut self,
        touched: &[Touched],
        threads: &Threads,
        mut free: impl FnMut(u32),
    ) -> Result<()> {
        // If many slots are touched, marking whole words is faster than single slots.
        if touched.len() >= self.touched.len() {
            self.marks.touch_words(&self.touched);
            self.touched.fill(0);
        } else {
            self.marks.touch_all(touched.iter().map(|group| group.slot));
            touched.iter().for_each(|group| self.touched[group.slot as usize / 64] = 0);
        }
        if std::mem::replace(&mut self.only_grew, true) {
            return Ok(());
        }
        let now = |touched: &[Touched]| -> Vec<Touched> {
            touched.iter().map(|group| self.now(group)).filter(|group| group.rows <= 0).collect()
        };
        let empty = threads.spread_over(touched.len(), touched.chunks(threads.piece_rows()).collect(), now);
        for Touched { slot, rows } in empty.into_iter().flatten() {
            if rows < 0 {
                let message = format!("a group has {rows} rows: more were deleted than inserted");
                return Err(Error::Bug(message));
            }
            if let Some(index) = &mut self.index
                && slot >= self.standing
            {
                index.free(slot);
                free(slot);
            }
        }
        Ok(())
    }

    /// Returns the keys of touched groups that had no rows before and have some now.
    pub(super) fn opened(&self, touched: &[Touched]) -> Result<Vec<ArrayRef>> {
        let is_new = |group: &&Touched| group.rows == 0 && self.now(group).rows > 0;
        self.keys(&touched.iter().filter(is_new).map(|group| group.slot).collect::<Vec<_>>())
    }

    /// Returns the existing groups with these keys, each with the place of its key.
    pub(super) fn there(&self, keys: &[ArrayRef]) -> Result<(Vec<Touched>, Vec<u32>)> {
        let mut slots = Vec::new();
        if let Some(index) = &self.index {
            index.find(keys, &mut slots)?;
        }
        let there = slots.into_iter().enumerate().filter(|(_, slot)| *slot != NO_SLOT);
        let group = |(place, slot)| (self.now(&Touched { slot, rows: 0 }), place as u32);
        Ok(there.map(group).unzip())
    }

    /// Forgets groups.
    pub(super) fn forget(&mut self, groups: &[Touched]) {
        self.marks.touch_all(groups.iter().map(|group| group.slot));
        for Touched { slot, .. } in groups {
            self.rows[*slot as usize] = 0;
            if let Some(index) = &mut self.index {
                index.free(*slot);
            }
        }
    }

    /// Forgets all rows; returns the slots in use.
    pub(super) fn clear(&mut self) -> Vec<u32> {
        self.marks.bar();
        let slots = self.live_slots();
        for slot in &slots {
            self.rows[*slot as usize] = 0;
            if let Some(index) = &mut self.index
                && *slot >= self.standing
            {
                index.free(*slot);
            }
        }
        slots
    }

    /// Returns the slots of the existing groups, ascending.
    pub(super) fn live_slots(&self) -> Vec<u32> {
        self.index.as_ref().map_or(vec![0], KeyIndex::live)
    }

    /// Returns the existing groups, ascending by slot.
    pub(super) fn live(&self) -> Vec<Touched> {
        self.live_slots().into_iter().map(|slot| self.now(&Touched { slot, rows: 0 })).collect()
    }

    /// Returns the groups that have only wanted values; `None` unless all keys, which are the first columns,
    /// have wanted values.
    pub(super) fn wanted(&self, wanted: &Wanted) -> Option<Result<Vec<Touched>>> {
        let index = self.index.as_ref().filter(|_| self.grouping.sets.is_empty())?;
        Some(keys_wanted(wanted, 0..self.grouping.keys.len())?.and_then(|keys| {
            let mut slots = Vec::new();
            index.find(&keys, &mut slots)?;
            slots.retain(|slot| *slot != NO_SLOT);
            slots.sort_unstable();
            slots.dedup();
            Ok(slots.into_iter().map(|slot| self.now(&Touched { slot, rows: 0 })).collect())
        }))
    }

    /// Returns the key columns of these groups.
    pub(super) fn keys(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let columns = match &self.index {
            Some(index) => index.keys(slots)?,
            None => Vec::new(),
        };
        if self.shared.is_empty() {
            return Ok(columns);
        }
        let mut columns = columns.into_iter();
        let column = |shared: &Option<ScalarValue>| match shared {
            Some(value) => Ok(value.to_array_of_size(slots.len())?),
            None => columns.next().ok_or_else(|| Error::Bug("a key lacks a column".into())),
        };
        self.shared.iter().map(column).collect()
    }

    /// Sets values of some key columns that all groups share; the index has the other columns, in their
    /// order.
    pub(super) fn share(&mut self, shared: Vec<Option<ScalarValue>>) {
        self.shared = shared;
    }

    /// Adds rows to a group, which stays even if it is empty.
    #[inline(always)]
    pub(super) fn add(&mut self, slot: u32, rows: i64) {
        self.rows[slot as usize] += rows;
    }

    pub(super) fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        self.index.iter_mut().for_each(|index| show(index));
        show(&mut self.rows);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.index.as_ref().map_or(0, KeyIndex::memory_bytes)
            + self.rows.memory_bytes()
            + self.touched.capacity() * size_of::<u64>()
    }
}
