//! The numbers of copies of the rows of a chunk.
//!
//! A reader's snapshot shares chunks, and the first change of a chunk afterwards copies its counts. So an
//! epoch that deletes scattered rows copies the counts of as many chunks. Most rows have one copy or none, so
//! one bit per row stores the count, a sixty-fourth of a number.

use std::collections::BTreeMap;

/// Counts that are not all one.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    kept: Kept,
    dead: usize,
}

#[derive(Clone, Debug)]
enum Kept {
    /// A bit for each live row, and the counts of the few rows with several copies.
    Bits { rows: usize, there: Box<[u64]>, several: BTreeMap<u32, i64> },
    /// A number for each row.
    Numbers(Vec<i64>),
}

impl Counts {
    /// Returns counts of one for each row.
    pub(super) fn ones(rows: usize) -> Counts {
        let there = vec![u64::MAX; rows.div_ceil(64)].into_boxed_slice();
        Counts { kept: Kept::Bits { rows, there, several: BTreeMap::new() }, dead: 0 }
    }

    /// Returns these counts; `None` if all are one.
    pub(super) fn of(counts: &[i64]) -> Option<Counts> {
        let mut of = None;
        for (row, count) in counts.iter().enumerate().filter(|(_, count)| **count != 1) {
            of.get_or_insert_with(|| Counts::ones(counts.len())).set(row, *count);
        }
        of
    }

    /// Returns the number of copies of a row.
    pub(super) fn get(&self, row: usize) -> i64 {
        match &self.kept {
            Kept::Bits { there, several, .. } => {
                let is_there = there[row / 64] >> (row % 64) & 1 == 1;
                match several.is_empty() {
                    true => i64::from(is_there),
                    false => several.get(&(row as u32)).copied().unwrap_or(i64::from(is_there)),
                }
            }
            Kept::Numbers(counts) => counts[row],
        }
    }

    /// Sets the number of copies of a row.
    pub(super) fn set(&mut self, row: usize, count: i64) {
        let was_dead = self.get(row) == 0;
        self.dead = self.dead + usize::from(count == 0) - usize::from(was_dead);
        match &mut self.kept {
            Kept::Numbers(counts) => counts[row] = count,
            Kept::Bits { rows, there, several } => {
                let bit = 1 << (row % 64);
                if count == 0 {
                    there[row / 64] &= !bit;
                } else {
                    there[row / 64] |= bit;
                }
                if matches!(count, 0 | 1) {
                    several.remove(&(row as u32));
                } else {
                    several.insert(row as u32, count);
                }
                if several.len() * 16 > *rows {
                    self.kept = Kept::Numbers(self.to_vec());
                }
            }
        }
    }

    /// Returns the number of dead rows.
    pub(super) fn dead(&self) -> usize {
        self.dead
    }

    /// Returns the counts as one number per row.
    pub(super) fn to_vec(&self) -> Vec<i64> {
        match &self.kept {
            Kept::Bits { rows, .. } => (0..*rows).map(|row| self.get(row)).collect(),
            Kept::Numbers(counts) => counts.clone(),
        }
    }

    /// Returns their approximate memory in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        match &self.kept {
            Kept::Bits { there, several, .. } => 8 * there.len() + 16 * several.len(),
            Kept::Numbers(counts) => 8 * counts.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_seeds::Random;

    use super::*;

    #[test]
    fn counts_are_those_that_were_set() {
        let mut random = Random(5);
        let mut below = |bound| random.below(bound);
        for (rows, largest) in [(1, 3), (64, 2), (130, 2), (1000, 2), (1000, 5)] {
            let mut counts = Counts::ones(rows);
            let mut expected = vec![1i64; rows];
            for _ in 0..3000 {
                let (row, count) = (below(rows as u64) as usize, below(largest) as i64);
                counts.set(row, count);
                expected[row] = count;
                assert_eq!(counts.get(row), count);
            }
            assert_eq!(counts.to_vec(), expected);
            assert_eq!(counts.dead(), expected.iter().filter(|count| **count == 0).count());
            let made = Counts::of(&expected);
            assert_eq!(made.is_none(), expected.iter().all(|count| *count == 1));
            assert_eq!(made.map_or_else(|| vec![1; rows], |counts| counts.to_vec()), expected);
            assert!(largest > 2 || counts.memory_bytes() <= 8 * rows.div_ceil(64));
        }
        assert!(Counts::of(&[1, 1]).is_none());
    }
}
