//! Numbers for keys, used again when their keys are gone.

use crate::{Error, Result};

/// Which slots are taken.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    end: usize,
    free: Vec<u32>,
}

impl Slots {
    /// A slot that was freed, or else the next one.
    pub(crate) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.end += 1;
            (self.end - 1) as u32
        })
    }

    pub(crate) fn put(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// Fails when more slots were taken than there are numbers; asked once a batch.
    pub(crate) fn check(&self) -> Result<()> {
        if self.end >= u32::MAX as usize { Err(Error::Full(self.end)) } else { Ok(()) }
    }

    /// Slots are below this.
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    pub(super) fn taken(&self) -> usize {
        self.end - self.free.len()
    }

    /// The slots that are taken, ascending.
    pub(super) fn live(&self) -> Vec<u32> {
        if self.free.is_empty() {
            return (0..self.end as u32).collect();
        }
        let free = self.free_bits();
        let mut live = Vec::with_capacity(self.taken());
        live.extend((0..self.end as u32).filter(|slot| !is_set(&free, *slot)));
        live
    }

    /// Which of these slots, ascending, are taken, and which aren't.
    pub(super) fn live_among(&self, mut slots: Vec<u32>) -> (Vec<u32>, Vec<u32>) {
        slots.truncate(slots.partition_point(|slot| (*slot as usize) < self.end));
        let free = self.free_bits();
        slots.into_iter().partition(|slot| !is_set(&free, *slot))
    }

    /// A bit a slot, set where it is free.
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
