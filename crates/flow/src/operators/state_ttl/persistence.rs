//! Saves the keys with their facts, the hashes of rows, and the output of forgotten keys.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, UInt32Array, UInt64Array};
use arrow::datatypes::{Int64Type, UInt32Type, UInt64Type};
use millstream_state::Tables;

use super::{Hashes, StateTtl, hash};
use crate::operator::Counted;
use crate::persistence::incomplete;
use crate::{Error, Result};

/// The column with a row's key: its place in the table of keys.
const KEY: &str = "_key";

impl StateTtl {
    /// Adds this state to the saved state of the wrapped operator.
    pub(super) fn saved(&self, inner: Tables) -> Result<Tables> {
        let mut kept = Tables::default();
        kept.put_part("inner", inner);
        let live = self.index.save("keys", &[], &mut kept)?;
        let touched: Int64Array = live.iter().map(|slot| self.idle.piece(*slot)).collect();
        let counts = Int64Array::from_iter_values(live.iter().map(|slot| self.counts[*slot as usize]));
        let columns: Vec<(&str, ArrayRef)> =
            vec![("touched_in", Arc::new(touched)), ("rows", Arc::new(counts))];
        kept.put_columns("of_keys", columns)?;
        // Pieces without keys are saved too: they determine when idle keys are looked for.
        let pieces = Int64Array::from_iter_values(self.idle.pieces());
        kept.put_columns("pieces", vec![("piece", Arc::new(pieces))])?;
        for (at, input) in self.inputs.iter().enumerate() {
            if let Some(hashes) = &input.rows {
                kept.put_columns(&hashes_of(at), hashes.columns(&live)?)?;
            }
        }
        kept.put_number("hashes_like", hashes_like());
        self.remembered.save(&live, "remembered", &mut kept)?;
        kept.put_number("forgotten_keys", self.counted.keys as i64);
        kept.put_number("forgotten_deletes", self.counted.deletes as i64);
        kept.put_number("stepped", i64::from(self.stepped));
        Ok(kept)
    }

    pub(super) fn load_saved(&mut self, kept: &mut Tables) -> Result<()> {
        let keys = self.index.load("keys", kept)?;
        self.load_keys(keys, kept)?;
        if kept.take_number("hashes_like")? != hashes_like() {
            return Err(incomplete("rows were hashed in another way, so that none is known again".into()));
        }
        for (at, input) in self.inputs.iter_mut().enumerate() {
            if let Some(hashes) = &mut input.rows {
                hashes.load(&hashes_of(at), keys, kept)?;
            }
        }
        self.remembered.load(keys, "remembered", kept)?;
        self.counted = Counted {
            keys: kept.take_number("forgotten_keys")? as u64,
            deletes: kept.take_number("forgotten_deletes")? as u64,
        };
        self.stepped = kept.take_number("stepped")? != 0;
        Ok(())
    }

    /// Loads the facts about each key.
    fn load_keys(&mut self, keys: usize, kept: &mut Tables) -> Result<()> {
        let known = kept.take_rows("of_keys", keys)?;
        let touched = known.numbers::<Int64Type>("touched_in")?;
        for (slot, piece) in touched.iter().enumerate().filter_map(|(slot, piece)| Some((slot, piece?))) {
            self.idle.touch_in(slot as u32, piece);
        }
        self.counts = known.numbers::<Int64Type>("rows")?.values().iter().copied().collect();
        let pieces = kept.take_table("pieces")?.numbers::<Int64Type>("piece")?;
        pieces.values().iter().for_each(|piece| self.idle.add(*piece));
        Ok(())
    }
}

impl Hashes {
    fn columns(&self, live: &[u32]) -> Result<Vec<(&'static str, ArrayRef)>> {
        let mut places = Vec::with_capacity(self.counts.len());
        for (slot, _) in self.counts.keys() {
            let place = live.binary_search(slot).map_err(|_| Error::Bug("a row of no key".into()))?;
            places.push(place as u32);
        }
        let half = |shift: u32| {
            UInt64Array::from_iter_values(self.counts.keys().map(|(_, hash)| (hash >> shift) as u64))
        };
        Ok(vec![
            (KEY, Arc::new(UInt32Array::from(places))),
            ("hash_high", Arc::new(half(64))),
            ("hash_low", Arc::new(half(0))),
            ("rows", Arc::new(Int64Array::from_iter_values(self.counts.values().copied()))),
        ])
    }

    fn load(&mut self, name: &str, keys: usize, kept: &mut Tables) -> Result<()> {
        let hashes = kept.take_table(name)?;
        let places = hashes.numbers::<UInt32Type>(KEY)?;
        let high = hashes.numbers::<UInt64Type>("hash_high")?;
        let low = hashes.numbers::<UInt64Type>("hash_low")?;
        let counts = hashes.numbers::<Int64Type>("rows")?;
        if places.values().iter().any(|slot| *slot as usize >= keys) {
            return Err(incomplete(format!("rows of '{name}' are of keys that aren't there")));
        }
        self.counts = (0..places.len())
            .map(|row| {
                let hash = u128::from(high.value(row)) << 64 | u128::from(low.value(row));
                ((places.value(row), hash), counts.value(row))
            })
            .collect();
        Ok(())
    }
}

fn hashes_of(input: usize) -> String {
    format!("hashes{input}")
}

/// Returns a number that depends on the hash function: hashes saved under another number are useless.
fn hashes_like() -> i64 {
    let bytes: Vec<u8> = (0..250).collect();
    let lengths = [0, 3, 8, 16, 30, 100, 250];
    let of = |length: usize| hash(&bytes[..length]);
    let all = lengths.iter().fold(0_u128, |all, length| all.rotate_left(9) ^ of(*length));
    ((all >> 64) ^ all) as i64
}
