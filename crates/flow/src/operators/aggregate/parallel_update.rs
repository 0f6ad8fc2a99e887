//! Partitions rows by the part of their groups' slots, so that several threads update groups, each one part
//! at a time.
//!
//! One thread processes all rows of a group in their order, whatever the number of threads.

use millstream_state::{PARTS, Paged, part_of};

use super::slot::Batch;
use crate::parallelism::Threads;

/// The places of rows, sorted by part.
#[derive(Debug)]
pub(super) struct SlotPartitions {
    rows: Vec<u32>,
    /// The end of each part's rows.
    ends: [usize; PARTS],
}

impl SlotPartitions {
    /// Partitions rows with these slots.
    pub(super) fn of(slots: &[u32]) -> SlotPartitions {
        let mut next = [0; PARTS];
        slots.iter().for_each(|slot| next[part_of(*slot)] += 1);
        let mut before = 0;
        for rows in &mut next {
            before += std::mem::replace(rows, before);
        }
        let mut rows = vec![0; slots.len()];
        for (row, slot) in (0..).zip(slots) {
            let place = &mut next[part_of(*slot)];
            rows[*place] = row;
            *place += 1;
        }
        SlotPartitions { rows, ends: next }
    }

    /// Returns the rows of a part, in their order.
    pub(super) fn rows(&self, part: usize) -> &[u32] {
        let from = if part == 0 { 0 } else { self.ends[part - 1] };
        &self.rows[from..self.ends[part]]
    }
}

/// The rows for an aggregate, partitioned.
pub(super) struct PartitionedBatch<'a> {
    pub(super) batch: Batch<'a>,
    pub(super) parted: &'a SlotPartitions,
}

/// Calls `each` for every row that counts, with its slot's value, the number of its batch, its row and its
/// weight.
pub(super) fn update_in_parallel<C: Send + Sync>(
    cells: &mut Paged<C>,
    batches: &[PartitionedBatch<'_>],
    threads: &Threads,
    each: impl Fn(&mut C, usize, usize, i64) + Sync,
) {
    let parts = cells.parts().into_iter().enumerate().collect();
    threads.spread(parts, |(part, mut cells)| {
        for (number, PartitionedBatch { batch, parted }) in batches.iter().enumerate() {
            for row in parted.rows(part).iter().map(|row| *row as usize) {
                if batch.valid.is_none_or(|valid| valid.is_valid(row)) {
                    let weight = batch.weights.map_or(1, |weights| weights[row]);
                    each(cells.at(batch.slots[row]), number, row, weight);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_part_keep_their_order() {
        let slots: Vec<u32> = (0..50_000u32).map(|row| row.wrapping_mul(2_654_435_761) % 100_000).collect();
        let parted = SlotPartitions::of(&slots);
        let mut all = Vec::new();
        for part in 0..PARTS {
            let rows = parted.rows(part);
            assert!(rows.is_sorted() && rows.iter().all(|row| part_of(slots[*row as usize]) == part));
            all.extend_from_slice(rows);
        }
        all.sort_unstable();
        assert!(all.into_iter().eq(0..50_000));
        assert!((0..PARTS).all(|part| SlotPartitions::of(&[]).rows(part).is_empty()));
    }
}
