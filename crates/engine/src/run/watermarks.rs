//! How far event time has come: the watermarks of sources and tables, which move between epochs and are part of the cut.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::compute::{cast, filter, max};
use arrow::datatypes::{DataType, Int64Type};
use millstream_delta::{Chunk, Cut, Delta};
use millstream_sql::Result;

use super::Loop;
use super::epoch::Deltas;
use crate::error;

impl Loop {
    /// Moves the watermarks by the rows that an epoch takes, so that they are those after it.
    pub(super) fn move_watermarks(&mut self, deltas: &Deltas) -> Vec<(Arc<str>, i64)> {
        for (name, delta) in deltas {
            let Some(definition) = self.catalog.find(name).map(|object| &object.definition) else { continue };
            let (Some(watermark), Some(schema)) = (definition.watermark(), definition.schema()) else {
                continue;
            };
            let delay = watermark.delay_in(schema.field(watermark.column).data_type());
            let newest = match newest(delta, watermark.column) {
                Ok(newest) => newest,
                Err(reason) => {
                    tracing::warn!(relation = %name, reason = %reason, "its watermark can't be moved");
                    None
                }
            };
            if let Some(at) = newest.map(|newest| newest.saturating_sub(delay)) {
                let watermark = self.watermarks.entry(name.clone()).or_insert(at);
                *watermark = at.max(*watermark);
            }
        }
        self.current_watermarks()
    }

    /// The watermarks after the last epoch.
    pub(super) fn current_watermarks(&self) -> Vec<(Arc<str>, i64)> {
        self.watermarks.iter().map(|(name, at)| (name.clone(), *at)).collect()
    }

    /// Takes over the watermarks of an epoch that is decided; a recorded one was decided elsewhere.
    pub(super) fn set_watermarks(&mut self, cut: &Cut) {
        for (name, at) in &cut.watermarks {
            self.watermarks.insert(name.clone(), *at);
        }
    }
}

/// The largest value of a column of timestamps among the rows that come, as a count of its unit.
fn newest(delta: &Delta, column: usize) -> Result<Option<i64>> {
    let mut newest = None;
    for Chunk { rows, weights } in &delta.chunks {
        let times = rows.column(column);
        let coming: ArrayRef = match weights {
            None => times.clone(),
            Some(weights) => {
                let comes: BooleanArray = weights.values().iter().map(|weight| Some(*weight > 0)).collect();
                filter(times, &comes).map_err(error::arrow)?
            }
        };
        let counts = cast(&coming, &DataType::Int64).map_err(error::arrow)?;
        newest = newest.max(max(counts.as_primitive::<Int64Type>()));
    }
    Ok(newest)
}
