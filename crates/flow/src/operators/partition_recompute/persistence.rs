//! Saves keys, their rows and the reasons of failures, as tables.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use millstream_state::Tables;

use super::PartitionRecompute;
use crate::Result;
use crate::persistence::{incomplete, texts};

impl PartitionRecompute {
    /// Saves all state.
    pub(super) fn told(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        let slots = self.index.save("keys", &self.key_names(), &mut kept)?;
        for (at, input) in self.inputs.iter().enumerate() {
            input.rows.save(&slots, &format!("input{at}"), &mut kept)?;
        }
        self.save_failed(
            |slot| {
                let place = slots.binary_search(&slot);
                Ok(place.map_err(|_| crate::Error::Bug("a key fails that isn't there".into()))? as i64)
            },
            &mut kept,
        )?;
        Ok(kept)
    }

    /// Does the same for a checkpoint: only the changes of keys and rows. Failing keys are identified by
    /// slot.
    pub(super) fn changed(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        self.index.save_changed("keys", &self.key_names(), &mut kept)?;
        for (at, input) in self.inputs.iter().enumerate() {
            input.rows.save_changed(|| self.index.live(), &format!("input{at}"), &mut kept)?;
        }
        let mut failed = Tables::default();
        self.save_failed(|slot| Ok(i64::from(slot)), &mut failed)?;
        failed.place_by_slots("failed", |slot| u32::try_from(slot).ok())?;
        kept.put_all(failed);
        Ok(kept)
    }

    fn key_names(&self) -> Vec<&str> {
        self.key_schema.fields().iter().map(|field| field.name().as_str()).collect()
    }

    /// Saves the reasons of failing keys, each key by its place.
    fn save_failed(&self, place: impl Fn(u32) -> Result<i64>, kept: &mut Tables) -> Result<()> {
        let failed = self.failed.keys().map(|slot| place(*slot)).collect::<Result<Vec<_>>>()?;
        let failed: ArrayRef = Arc::new(Int64Array::from(failed));
        let messages: ArrayRef = Arc::new(StringArray::from_iter_values(self.failed.values()));
        Ok(kept.put_columns("failed", vec![("_key", failed), ("message", messages)])?)
    }

    /// Loads saved state. The rows of each key keep their order of arrival, so that its answer is the one
    /// that was emitted.
    pub(super) fn resume(&mut self, kept: &mut Tables) -> Result<()> {
        let slots = self.index.load("keys", kept)?;
        for (at, input) in self.inputs.iter_mut().enumerate() {
            input.rows.load(slots, &format!("input{at}"), kept)?;
        }
        let failed = kept.take_columns("failed", &[DataType::Int64, DataType::Utf8])?;
        let messages = texts(&failed[1])?;
        for (key, message) in failed[0].as_primitive::<Int64Type>().iter().zip(messages) {
            let slot = key.and_then(|key| u32::try_from(key).ok()).filter(|slot| (*slot as usize) < slots);
            let slot = slot.ok_or_else(|| incomplete("a key fails that isn't there".into()))?;
            self.failed.insert(slot, message);
        }
        Ok(())
    }
}
