//! Keys with pane columns, which together have few values at a time, such as time windows.
//!
//! The other columns have an index of their own, which holds each of their keys once, however many panes
//! contain it. Each pane maps the numbers of its keys to slots. So a lookup mostly searches the keys of all
//! panes, which are fewer and outlive their windows.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{partition, take};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::slots::Slots;
use super::{Found, KeyIndex, NO_SLOT};
use crate::{Paged, Result, Spillable, Spilling};

/// The number of slots stored together: those of a cache line.
const RUN: usize = 16;

/// Keys by pane.
#[derive(Debug)]
pub(super) struct PanedKeys {
    /// For each column, true if it is a pane column.
    of_pane: Vec<bool>,
    /// The values of pane columns; their slots number the panes.
    numbers: KeyIndex,
    /// The other columns, each key once.
    keys: KeyIndex,
    /// The number of panes that contain each of these keys.
    uses: Paged<u32>,
    panes: Vec<Pane>,
    /// The pane and the key's number, by slot.
    by_slot: Paged<(u32, u32)>,
    slots: Slots,
}

/// The slots of a pane's keys, by the numbers of the keys.
#[derive(Clone, Debug, Default)]
struct Pane {
    /// The position of each run of slots; [`NO_SLOT`] if the pane has no key of the run.
    runs: Vec<u32>,
    slots: Paged<[u32; RUN]>,
    taken: usize,
}

impl Pane {
    #[inline(always)]
    fn get(&self, key: u32) -> u32 {
        match self.runs.get(key as usize / RUN) {
            Some(run) if *run != NO_SLOT => self.slots[*run as usize][key as usize % RUN],
            _ => NO_SLOT,
        }
    }

    fn put(&mut self, key: u32, slot: u32) {
        let place = key as usize / RUN;
        if place >= self.runs.len() {
            self.runs.resize(place + 1, NO_SLOT);
        }
        if self.runs[place] == NO_SLOT {
            self.runs[place] = self.slots.len() as u32;
            self.slots.resize(self.slots.len() + 1, [NO_SLOT; RUN]);
        }
        self.slots[self.runs[place] as usize][key as usize % RUN] = slot;
        self.taken += 1;
    }

    fn remove(&mut self, key: u32) {
        if let Some(run) = self.runs.get(key as usize / RUN).filter(|run| **run != NO_SLOT) {
            self.slots[*run as usize][key as usize % RUN] = NO_SLOT;
            self.taken -= 1;
        }
    }

    fn memory_bytes(&self) -> usize {
        self.runs.capacity() * size_of::<u32>() + self.slots.memory_bytes()
    }
}

impl PanedKeys {
    /// Returns a copy in memory.
    pub(super) fn try_clone(&self) -> Result<PanedKeys> {
        Ok(PanedKeys {
            of_pane: self.of_pane.clone(),
            numbers: self.numbers.try_clone()?,
            keys: self.keys.try_clone()?,
            uses: self.uses.clone(),
            panes: self.panes.clone(),
            by_slot: self.by_slot.clone(),
            slots: self.slots.clone(),
        })
    }

    /// Returns the keys by slot, which can't be looked up. They read the same memory.
    pub(super) fn share(&self) -> Result<PanedKeys> {
        Ok(PanedKeys {
            of_pane: self.of_pane.clone(),
            numbers: self.numbers.share_keys()?,
            keys: self.keys.share_keys()?,
            uses: Paged::default(),
            panes: Vec::new(),
            by_slot: self.by_slot.share(),
            slots: self.slots.clone(),
        })
    }

    /// Returns an index of keys of these types; `of_pane` marks the pane columns: some, but not all.
    pub(super) fn new(types: &[DataType], of_pane: &[bool]) -> Result<PanedKeys> {
        let some = |pane: bool| {
            let chosen = types.iter().zip(of_pane).filter(|(_, of_pane)| **of_pane == pane);
            KeyIndex::new(chosen.map(|(data_type, _)| data_type.clone()).collect())
        };
        Ok(PanedKeys {
            of_pane: of_pane.to_vec(),
            numbers: some(true)?,
            keys: some(false)?,
            uses: Paged::default(),
            panes: Vec::new(),
            by_slot: Paged::default(),
            slots: Slots::default(),
        })
    }

    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    fn some(&self, columns: &[ArrayRef], pane: bool) -> Vec<ArrayRef> {
        let chosen = columns.iter().zip(&self.of_pane).filter(|(_, of_pane)| **of_pane == pane);
        chosen.map(|(column, _)| column.clone()).collect()
    }

    pub(super) fn insert(&mut self, columns: &[ArrayRef], found: &mut Found) -> Result<()> {
        let (ends, firsts) = runs(&self.some(columns, true))?;
        let (mut panes, mut keys) = (Vec::with_capacity(ends.len()), Vec::with_capacity(columns[0].len()));
        let new = self.numbers.slots(&firsts, &mut panes)?;
        self.panes.resize_with(self.numbers.slots_end(), Pane::default);
        if let Err(error) = self.keys.slots(&self.some(columns, false), &mut keys) {
            new.into_iter().for_each(|pane| self.numbers.free(pane));
            return Err(error);
        }
        self.uses.resize(self.keys.slots_end(), 0);
        let mut row = 0;
        for (number, end) in panes.into_iter().zip(ends) {
            let pane = &mut self.panes[number as usize];
            for key in &keys[row..end] {
                let mut slot = pane.get(*key);
                if slot == NO_SLOT {
                    slot = self.slots.take();
                    found.new.push(slot);
                    pane.put(*key, slot);
                    self.uses[*key as usize] += 1;
                    if slot as usize >= self.by_slot.len() {
                        self.by_slot.resize(slot as usize + 1, (NO_SLOT, NO_SLOT));
                    }
                    self.by_slot[slot as usize] = (number, *key);
                }
                found.slots.push(slot);
            }
            row = end;
        }
        self.slots.check()
    }

    pub(super) fn find(&self, columns: &[ArrayRef], out: &mut Vec<u32>) -> Result<()> {
        let (ends, firsts) = runs(&self.some(columns, true))?;
        let (mut panes, mut keys) = (Vec::with_capacity(ends.len()), Vec::with_capacity(columns[0].len()));
        self.numbers.find(&firsts, &mut panes)?;
        self.keys.find(&self.some(columns, false), &mut keys)?;
        let mut row = 0;
        for (number, end) in panes.into_iter().zip(ends) {
            let keys = keys[row..end].iter();
            match self.panes.get(number as usize) {
                // A missing key has the number [`NO_SLOT`], which no pane contains.
                Some(pane) => out.extend(keys.map(|key| pane.get(*key))),
                None => out.extend(keys.map(|_| NO_SLOT)),
            }
            row = end;
        }
        Ok(())
    }

    pub(super) fn free(&mut self, slot: u32) {
        let (number, key) = self.by_slot[slot as usize];
        let pane = &mut self.panes[number as usize];
        pane.remove(key);
        if pane.taken == 0 {
            *pane = Pane::default();
            self.numbers.free(number);
        }
        let uses = &mut self.uses[key as usize];
        *uses -= 1;
        if *uses == 0 {
            self.keys.free(key);
        }
        self.slots.put(slot);
    }

    pub(super) fn keys(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let of = |slot: &u32| self.by_slot.get(*slot).copied().unwrap_or((NO_SLOT, NO_SLOT));
        let (panes, keys): (Vec<u32>, Vec<u32>) = slots.iter().map(of).unzip();
        let (mut panes, mut keys) =
            (self.numbers.keys(&panes)?.into_iter(), self.keys.keys(&keys)?.into_iter());
        let column = |of_pane: &bool| if *of_pane { panes.next() } else { keys.next() };
        Ok(self.of_pane.iter().filter_map(column).collect())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.numbers.memory_bytes()
            + self.keys.memory_bytes()
            + self.uses.memory_bytes()
            + self.panes.iter().map(Pane::memory_bytes).sum::<usize>()
            + self.panes.capacity() * size_of::<Pane>()
            + self.by_slot.memory_bytes()
            + self.slots.memory_bytes()
    }
}

impl Spillable for PanedKeys {
    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        self.numbers.spill(spilling);
        self.keys.spill(spilling);
        self.uses.spill(spilling);
        self.panes.iter_mut().for_each(|pane| pane.slots.spill(spilling));
        self.by_slot.spill(spilling);
    }

    fn spilled_bytes(&self) -> usize {
        self.numbers.spilled_bytes()
            + self.keys.spilled_bytes()
            + self.uses.spilled_bytes()
            + self.panes.iter().map(|pane| pane.slots.spilled_bytes()).sum::<usize>()
            + self.by_slot.spilled_bytes()
    }
}

/// Returns the ends of the runs of rows that are equal in these columns, and the first row of each run.
fn runs(columns: &[ArrayRef]) -> Result<(Vec<usize>, Vec<ArrayRef>)> {
    let runs = if columns[0].is_empty() { Vec::new() } else { partition(columns)?.ranges() };
    let firsts = UInt32Array::from_iter_values(runs.iter().map(|run| run.start as u32));
    let firsts = columns.iter().map(|column| take(column, &firsts, None));
    let firsts = firsts.collect::<std::result::Result<Vec<_>, ArrowError>>()?;
    Ok((runs.into_iter().map(|run| run.end).collect(), firsts))
}
