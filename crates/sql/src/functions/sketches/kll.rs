//! A KLL sketch, which estimates ranks and quantiles.
//!
//! Karnin, Lang and Liberty, "Optimal Quantile Approximation in Streams" (2016), with the levels and the binary format of
//! Apache DataSketches. There, compaction flips a coin. Here the coin follows from the number of values and the level,
//! since a query must give the same bytes again.

use std::cmp::Ordering;

use crate::error::{Error, Result};

/// The least capacity of a level.
const LEVEL_MIN: usize = 8;
/// The most levels.
const LEVELS_MAX: usize = 60;
const FAMILY: u8 = 15;
const IS_EMPTY: u8 = 1;
const IS_SINGLE: u8 = 4;

/// A value of a sketch.
pub(super) trait Item: Copy + PartialOrd + std::fmt::Display + Send + Sync {
    /// The end of the functions' names.
    const KIND: &'static str;
    /// The bytes of a value.
    const SIZE: usize;

    /// Returns 0 for -0, which is equal to it.
    fn one_form(self) -> Self;
    fn put(self, out: &mut Vec<u8>);
    /// Reads a value of `SIZE` bytes; none if it has no place in the order.
    fn get(bytes: &[u8]) -> Option<Self>;
}

macro_rules! item {
    ($of:ty, $kind:expr, $orders:expr) => {
        impl Item for $of {
            const KIND: &'static str = $kind;
            const SIZE: usize = size_of::<$of>();

            fn one_form(self) -> $of {
                self + <$of>::default()
            }

            fn put(self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }

            fn get(bytes: &[u8]) -> Option<$of> {
                let orders: fn(&$of) -> bool = $orders;
                bytes.try_into().ok().map(<$of>::from_le_bytes).filter(orders)
            }
        }
    };
}

item!(i64, "bigint", |_| true);
item!(f64, "double", |value| !value.is_nan());
item!(f32, "float", |value| !value.is_nan());

fn order<T: Item>(one: &T, other: &T) -> Ordering {
    one.partial_cmp(other).unwrap_or(Ordering::Equal)
}

/// The sketch. A value in level h stands for 2^h values.
#[derive(Debug, PartialEq)]
pub(super) struct Kll<T> {
    size: u16,
    /// The least size of the sketches that were merged.
    size_min: u16,
    count: u64,
    levels: Vec<Vec<T>>,
    /// The number of values that the levels have room for.
    fits: usize,
    /// The least and the greatest value.
    bounds: Option<(T, T)>,
}

impl<T: Item> Kll<T> {
    pub(super) fn new(size: u16) -> Kll<T> {
        let levels = vec![Vec::new()];
        let mut sketch = Kll { size, size_min: size, count: 0, levels, fits: 0, bounds: None };
        sketch.measure();
        sketch
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    fn widen(&mut self, value: T) {
        self.bounds = Some(match self.bounds {
            Some((least, most)) => {
                (if value < least { value } else { least }, if value > most { value } else { most })
            }
            None => (value, value),
        });
    }

    pub(super) fn update(&mut self, value: T) {
        let value = value.one_form();
        self.widen(value);
        self.count += 1;
        self.levels[0].push(value);
        self.compress();
    }

    pub(super) fn merge(&mut self, other: &Kll<T>) {
        if let Some((least, most)) = other.bounds {
            self.widen(least);
            self.widen(most);
        }
        self.count = self.count.saturating_add(other.count);
        self.size_min = self.size_min.min(other.size_min);
        if self.levels.len() < other.levels.len() {
            self.levels.resize(other.levels.len(), Vec::new());
            self.measure();
        }
        for (level, values) in self.levels.iter_mut().zip(&other.levels) {
            level.extend(values);
        }
        self.compress();
    }

    /// Returns the capacity of a level: two thirds of the one above.
    fn capacity(&self, level: usize) -> usize {
        let depth = i32::try_from(self.levels.len() - 1 - level).unwrap_or(i32::MAX);
        let capacity = (f64::from(self.size) * (2.0_f64 / 3.0).powi(depth)).round() as usize;
        capacity.max(LEVEL_MIN)
    }

    /// Determines the room that the levels have. Their number changed.
    fn measure(&mut self) {
        self.fits = (0..self.levels.len()).map(|level| self.capacity(level)).sum();
    }

    fn held(&self) -> usize {
        self.levels.iter().map(Vec::len).sum()
    }

    /// Moves values up until all of them fit.
    fn compress(&mut self) {
        while self.held() > self.fits {
            let full = (0..self.levels.len()).find(|at| self.levels[*at].len() > self.capacity(*at));
            let Some(level) = full else { return };
            if level + 1 == self.levels.len() {
                if self.levels.len() == LEVELS_MAX {
                    return;
                }
                self.levels.push(Vec::new());
                self.measure();
            }
            self.compact(level);
        }
    }

    /// Moves every second value of a level to the next one.
    fn compact(&mut self, level: usize) {
        let mut values = std::mem::take(&mut self.levels[level]);
        values.sort_by(order);
        // With an odd number, one stays.
        if values.len() % 2 == 1 {
            self.levels[level].push(values.remove(0));
        }
        let skipped = usize::from(coin(self.count, level));
        self.levels[level + 1].extend(values.into_iter().skip(skipped).step_by(2));
    }

    /// Returns the values in order, each with the number of values that it stands for.
    fn weighted(&self) -> Vec<(T, u64)> {
        let levels = self.levels.iter().enumerate();
        let values = levels.flat_map(|(level, values)| values.iter().map(move |value| (*value, 1 << level)));
        let mut values: Vec<(T, u64)> = values.collect();
        values.sort_by(|(one, _), (other, _)| order(one, other));
        values
    }

    /// Returns the share of values up to one, itself included; none of an empty sketch.
    pub(super) fn rank(&self, value: T) -> Option<f64> {
        let all = self.levels.iter().enumerate();
        let below = all.map(|(level, values)| {
            let below = values.iter().filter(|known| **known <= value).count();
            (below as u64) << level
        });
        (self.count > 0).then(|| below.sum::<u64>() as f64 / self.count as f64)
    }

    /// Returns the least value whose rank is at least that of a share; none of an empty sketch.
    pub(super) fn quantile(&self, rank: f64) -> Option<T> {
        let (least, most) = self.bounds?;
        if rank <= 0.0 || rank >= 1.0 {
            return Some(if rank <= 0.0 { least } else { most });
        }
        let wanted = (rank * self.count as f64).ceil() as u64;
        let mut below = 0;
        let found = self.weighted().into_iter().find(|(_, weight)| {
            below += weight;
            below >= wanted
        });
        Some(found.map_or(most, |(value, _)| value))
    }

    pub(super) fn summary(&self) -> String {
        let (size, count, levels, held) = (self.size, self.count, self.levels.len(), self.held());
        let bounds = match self.bounds {
            Some((least, most)) => format!("\n   Min Item: {least}\n   Max Item: {most}"),
            None => String::new(),
        };
        format!(
            "### KLL sketch of {}\n   K: {size}\n   N: {count}\n   Levels: {levels}\n   Retained Items: {held}{bounds}",
            T::KIND
        )
    }

    pub(super) fn serialize(&self) -> Vec<u8> {
        let (preamble, version, flags) = match self.count {
            0 => (2, 1, IS_EMPTY),
            1 => (2, 2, IS_SINGLE),
            _ => (5, 1, 0),
        };
        let mut out = vec![preamble, version, FAMILY, flags];
        out.extend(self.size.to_le_bytes());
        out.extend([LEVEL_MIN as u8, 0]);
        if self.count > 1 {
            out.extend(self.count.to_le_bytes());
            out.extend(self.size_min.to_le_bytes());
            out.extend([self.levels.len() as u8, 0]);
            // A level begins behind the free places of the first one.
            let mut begin = self.fits.saturating_sub(self.held()) as u32;
            for level in &self.levels {
                out.extend(begin.to_le_bytes());
                begin += level.len() as u32;
            }
            if let Some((least, most)) = self.bounds {
                least.put(&mut out);
                most.put(&mut out);
            }
        }
        self.levels.iter().flatten().for_each(|value| value.put(&mut out));
        out
    }

    pub(super) fn deserialize(name: &str, bytes: &[u8]) -> Result<Kll<T>> {
        Kll::read(bytes).ok_or_else(|| {
            Error::invalid(format!("{name} can't read a sketch of {} bytes", bytes.len()))
                .hint(format!("It takes sketches that kll_sketch_agg_{} makes.", T::KIND))
        })
    }

    fn read(bytes: &[u8]) -> Option<Kll<T>> {
        let [_, _, FAMILY, flags, size @ ..] = bytes else { return None };
        let size = u16::from_le_bytes(size.first_chunk().copied()?);
        let mut sketch = Kll::new(size);
        if size < LEVEL_MIN as u16 {
            return None;
        }
        if flags & IS_EMPTY != 0 {
            return Some(sketch);
        }
        if flags & IS_SINGLE != 0 {
            sketch.update(T::get(bytes.get(8..8 + T::SIZE)?)?);
            return Some(sketch);
        }
        sketch.count = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
        sketch.size_min = u16::from_le_bytes(bytes.get(16..18)?.try_into().ok()?);
        let levels = usize::from(*bytes.get(18)?);
        if !(1..=LEVELS_MAX).contains(&levels) {
            return None;
        }
        let mut rest = bytes.get(20..)?;
        let begins: Vec<usize> = rest
            .get(..4 * levels)?
            .as_chunks::<4>()
            .0
            .iter()
            .filter_map(|begin| usize::try_from(u32::from_le_bytes(*begin)).ok())
            .collect();
        rest = &rest[4 * levels..];
        let values = rest.chunks(T::SIZE).map(T::get).collect::<Option<Vec<T>>>()?;
        let (bounds, values) = values.split_first_chunk::<2>()?;
        sketch.bounds = Some((bounds[0], bounds[1]));
        let end = begins.first()? + values.len();
        let mut at = 0;
        sketch.levels.clear();
        for (level, begin) in begins.iter().enumerate() {
            let length = begins.get(level + 1).copied().unwrap_or(end).checked_sub(*begin)?;
            sketch.levels.push(values.get(at..at + length)?.to_vec());
            at += length;
        }
        sketch.measure();
        let counted = sketch.levels.iter().enumerate();
        let counted: u128 = counted.map(|(level, values)| (values.len() as u128) << level).sum();
        (counted == u128::from(sketch.count)).then_some(sketch)
    }
}

/// Returns a bit of a number and a level, by the finalizer of SplitMix64.
fn coin(count: u64, level: usize) -> bool {
    let mut bits = count.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(level as u64);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ (bits >> 31)) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_close_and_bytes_are_read_again() {
        let mut sketch = Kll::<i64>::new(200);
        for value in 0..100_000 {
            // 7,919 is prime: all values in another order.
            sketch.update(value * 7_919 % 100_000);
        }
        assert_eq!(sketch.count(), 100_000);
        let held: usize = sketch.levels.iter().map(Vec::len).sum();
        assert!(held < 700, "{held}");
        for wanted in [0.01, 0.25, 0.5, 0.75, 0.99] {
            let value = sketch.quantile(wanted).unwrap();
            assert!((value as f64 / 100_000.0 - wanted).abs() < 0.02, "{wanted}: {value}");
            assert!((sketch.rank(value).unwrap() - wanted).abs() < 0.02, "{wanted}");
        }
        assert_eq!((sketch.quantile(0.0), sketch.quantile(1.0)), (Some(0), Some(99_999)));
        let bytes = sketch.serialize();
        assert_eq!(Kll::deserialize("f", &bytes).unwrap(), sketch);
        let mut both = Kll::deserialize("f", &bytes).unwrap();
        both.merge(&sketch);
        assert_eq!(both.count(), 200_000);
        assert_eq!(Kll::deserialize("f", &both.serialize()).unwrap(), both);
    }

    #[test]
    fn broken_bytes_are_refused() {
        let mut sketch = Kll::<f64>::new(8);
        [1.0, 2.0, 3.0].into_iter().for_each(|value| sketch.update(value));
        let bytes = sketch.serialize();
        assert_eq!(Kll::deserialize("f", &bytes).unwrap(), sketch);
        for length in 0..bytes.len() {
            assert!(Kll::<f64>::deserialize("f", &bytes[..length]).is_err(), "{length}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0xff;
            // Any answer will do, but no panic.
            if let Ok(read) = Kll::<f64>::deserialize("f", &changed) {
                let _ = (read.quantile(0.5), read.rank(2.0), read.summary());
            }
        }
    }
}
