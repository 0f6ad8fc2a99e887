//! Spilling of chunks.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::{Store, Stored};
use crate::spill::{Spillable, Spilled, Spilling};

impl Spillable for Store {
    /// Spills the rows that were not accessed since the previous call.
    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        spilling.take(self);
    }

    fn spilled_bytes(&self) -> usize {
        self.chunks.iter().filter_map(|held| held.chunk.spilled.as_ref()).map(|spilled| spilled.bytes()).sum()
    }
}

impl Store {
    /// Returns the size in bytes of a chunk that may be spilled, else `None`. This is a chunk in memory not
    /// accessed since the last time, or one almost alone in its file, which is then freed.
    pub(crate) fn chunk_to_spill(&self, position: usize, bytes_min: usize) -> Option<usize> {
        let chunk = &self.chunks.get(position)?.chunk;
        if let Some(spilled) = &chunk.spilled {
            return spilled.is_lonely().then_some(0);
        }
        (chunk.bytes >= bytes_min && !chunk.touched.take()).then_some(chunk.bytes)
    }

    pub(crate) fn rows_at(&self, position: usize) -> &RecordBatch {
        &self.chunks[position].chunk.rows
    }

    /// Replaces the rows of a chunk by the same rows read from a file; returns the bytes that this frees.
    /// Readers that hold the rows in memory keep them.
    pub(crate) fn put_spilled(&mut self, position: usize, rows: RecordBatch, spilled: Spilled) -> usize {
        let chunk = &self.chunks[position].chunk;
        let freed = if chunk.spilled.is_some() { 0 } else { chunk.bytes };
        let chunk = Stored {
            rows,
            counts: chunk.counts.clone(),
            tallies: chunk.tallies.clone(),
            offsets: chunk.offsets.clone(),
            bytes: chunk.bytes,
            spilled: Some(Arc::new(spilled)),
            touched: chunk.touched.clone(),
        };
        Arc::make_mut(&mut self.chunks)[position].chunk = Arc::new(chunk);
        freed
    }
}

#[cfg(test)]
impl Store {
    pub(crate) fn chunks_in_memory(&self) -> Vec<bool> {
        self.chunks.iter().map(|held| held.chunk.spilled.is_none()).collect()
    }
}
