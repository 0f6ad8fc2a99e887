//! Slot numbers for keys, reused when their keys are freed.

use crate::{Error, Result};

/// The set of slots in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    end: usize,
    free: Vec<u32>,
}

impl Slots {
    /// Returns a freed slot, or else the next one.
    pub(crate) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.end += 1;
            (self.end - 1) as u32
        })
    }

    pub(crate) fn put(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// Fails if more slots are in use than there are numbers. Called once per batch.
    pub(crate) fn check(&self) -> Result<()> {
        if self.end >= u32::MAX as usize { Err(Error::Full(self.end)) } else { Ok(()) }
    }

    /// Returns the end of the slots: every slot is below it.
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    pub(super) fn taken(&self) -> usize {
        self.end - self.free.len()
    }

    /// Returns the slots in use, ascending.
    pub(super) fn live(&self) -> Vec<u32> {
        if self.free.is_empty() {
            return (0..self.end as u32).collect();
        }
        let free = self.free_bits();
        let mut live = Vec::with_capacity(self.taken());
        live.extend((0..self.end as u32).filter(|slot| !is_set(&free, *slot)));
        live
    }

    /// Splits these slots, ascending, into those in use and those free.
    pub(super) fn live_among(&self, mut slots: Vec<u32>) -> (Vec<u32>, Vec<u32>) {
        slots.truncate(slots.partition_point(|slot| (*slot as usize) < self.end));
        let free = self.free_bits();
        slots.into_iter().partition(|slot| !is_set(&free, *slot))
    }

    /// Returns one bit per slot, set if the slot is free.
    fn free_bits(&self) -> Vec<u64> {
        let mut free = vec![0; self.end.div_ceil(64)];
        self.free.iter().for_each(|slot| free[*slot as usize / 64] |= 1 << (slot % 64));
        free
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.free.capacity() * size_of::<u32>()
    }
}

fn is_set(bits: &[u64], slot: u32) -> bool {
    bits[slot as usize / 64] >> (slot % 64) & 1 == 1
}
