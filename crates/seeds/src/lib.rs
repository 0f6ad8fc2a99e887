//! Random input for the tests of all crates: a generator that its seed determines, and how many seeds a test takes.
//!
//! Deliberately absent: distributions (see the crate `rand`), and any dependency, so that the lowest crates can use it.

use std::ops::Range;

/// A linear congruential generator (Knuth, volume 2, 3.2.1), seeded by its first value.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// Returns a number below `bound`, or 0 if the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }

    /// Returns a place in a list of this length, or 0 if the list is empty.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// Returns a number from 0 on, below `bound`, of the type of SQL's integers.
    pub fn number(&mut self, bound: u64) -> i64 {
        self.below(bound) as i64
    }

    /// Puts items into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in 1..items.len() {
            items.swap(at, self.index(at + 1));
        }
    }

    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        (0..3).fold(0, |bits, _| bits << 22 | self.below(1 << 31) >> 9)
    }
}

/// The variable that makes tests take all of their seeds: `MILLSTREAM_SEEDS=all`.
const VARIABLE: &str = "MILLSTREAM_SEEDS";

/// Returns true if tests take all of their seeds, rather than a few.
pub fn all_seeds() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|wished| wished == "all")
}

/// Returns the seeds of a test: by default a few, which together cover each of its kinds of runs.
pub fn seeds(few: &[u64], all: Range<u64>) -> Vec<u64> {
    if all_seeds() { all.collect() } else { few.to_vec() }
}

/// Returns the seeds of a test whose seeds are all alike: by default the first few.
pub fn first_seeds(few: u64, all: Range<u64>) -> Range<u64> {
    all.start..if all_seeds() { all.end } else { all.end.min(all.start + few) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_numbers() {
        let numbers = |seed| {
            let mut random = Random(seed);
            [random.below(10), random.index(1000) as u64, random.bits(), random.below(0)]
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        assert_eq!(numbers(7)[3], 0);
    }

    #[test]
    fn each_bit_is_random() {
        let mut random = Random(1);
        let (mut ones, mut zeros) = (0, 0);
        for _ in 0..100 {
            let bits = random.bits();
            (ones, zeros) = (ones | bits, zeros | !bits);
        }
        assert_eq!((ones, zeros), (u64::MAX, u64::MAX));
    }
}
