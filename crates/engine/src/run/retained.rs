//! The rows that a retention keeps of an append-only relation: those of each epoch, for a length of batch time.

use std::collections::VecDeque;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_delta::{Cut, Delta, Epoch, Timestamp};
use millstream_sql::Result;
use millstream_state::Tables;

use crate::error;
use crate::stamp::{Batch, stamp};

/// The newest rows of a relation, each with its batch.
#[derive(Debug)]
pub(crate) struct Retained {
    length: Duration,
    entries: VecDeque<(Batch, Delta)>,
    /// True if rows have expired since its creation.
    pub(crate) has_lost: bool,
}

impl Retained {
    /// Creates an empty retention that keeps rows for `length`.
    pub(crate) fn new(length: Duration) -> Retained {
        Retained { length, entries: VecDeque::new(), has_lost: false }
    }

    /// Returns how long it keeps rows.
    pub(crate) fn length(&self) -> Duration {
        self.length
    }

    /// Saves the rows with their batches.
    pub(crate) fn save(&self) -> Result<Tables> {
        let mut all = Tables::default();
        all.put_number("has_lost", i64::from(self.has_lost));
        let part = |(batch, delta): &(Batch, Delta)| {
            let mut part = Tables::default();
            part.put_number("id", batch.id.0 as i64);
            part.put_number("time", batch.time.0);
            part.put_number("start", batch.start.0);
            part.put_delta("rows", delta)?;
            Ok(part)
        };
        let parts = self.entries.iter().map(part).collect::<Result<_, _>>().map_err(error::state)?;
        all.put_parts("batches", parts).map_err(error::state)?;
        Ok(all)
    }

    /// Loads the saved rows.
    pub(crate) fn load(&mut self, all: &mut Tables) -> Result<()> {
        self.has_lost = all.take_number("has_lost").map_err(error::state)? != 0;
        let entry = |mut part: Tables| {
            let mut number = |name: &str| part.take_number(name);
            let batch = Batch {
                id: Epoch(number("id")? as u64),
                time: Timestamp(number("time")?),
                start: Timestamp(number("start")?),
            };
            Ok((batch, part.take_delta("rows")?))
        };
        let parts = all.take_parts("batches").map_err(error::state)?;
        self.entries = parts.into_iter().map(entry).collect::<Result<_, _>>().map_err(error::state)?;
        Ok(())
    }

    /// Adds the rows of an epoch.
    pub(crate) fn push(&mut self, cut: &Cut, delta: &Delta) {
        if !delta.is_empty() {
            self.entries.push_back((Batch::from(cut), delta.clone()));
        }
    }

    /// Drops and returns the rows that are too old at a batch time.
    pub(crate) fn trim(&mut self, now: Timestamp) -> Vec<Delta> {
        let length = i64::try_from(self.length.as_micros()).unwrap_or(i64::MAX);
        let through = now.0.saturating_sub(length);
        let mut gone = Vec::new();
        while self.entries.front().is_some_and(|(batch, _)| batch.time.0 <= through) {
            gone.extend(self.entries.pop_front().map(|(_, delta)| delta));
            self.has_lost = true;
        }
        gone
    }

    /// Returns the number of rows.
    pub(crate) fn num_rows(&self) -> usize {
        self.entries.iter().map(|(_, delta)| delta.num_rows()).sum()
    }

    /// Returns the approximate bytes of the rows.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.iter().map(|(_, delta)| delta.memory_bytes()).sum()
    }

    /// Returns all rows; `stamped` adds the columns of the batch that it ends with.
    pub(crate) fn batches(&self, stamped: Option<&SchemaRef>) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        for (batch, delta) in &self.entries {
            for chunk in &delta.chunks {
                let rows = chunk.expand().map_err(error::arrow)?;
                batches.push(match stamped {
                    Some(schema) => stamp(&rows, *batch, schema)?,
                    None => rows,
                });
            }
        }
        Ok(batches)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use millstream_delta::Chunk;

    use super::*;

    #[test]
    fn rows_are_saved_with_their_batches() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let rows = RecordBatch::try_from_iter([("x", column)]).unwrap();
        let mut retained = Retained::new(Duration::from_micros(10));
        for time in [1, 5, 11] {
            let weights = (time > 1).then(|| Int64Array::from(vec![1, time]));
            let delta = Delta::of(Chunk { rows: rows.clone(), weights });
            retained.push(&Cut::new(Epoch(time as u64), Timestamp(time)), &delta);
        }
        retained.trim(Timestamp(11));
        let mut all = retained.save().unwrap();
        let mut loaded = Retained::new(Duration::from_micros(10));
        loaded.load(&mut all).unwrap();
        assert_eq!(all.left(), None);
        let shown = |retained: &Retained| format!("{:?} {}", retained.entries, retained.has_lost);
        assert_eq!(shown(&loaded), shown(&retained));
    }

    #[test]
    fn rows_leave_when_their_batch_is_too_old() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let rows = RecordBatch::try_from_iter([("x", column)]).unwrap();
        let mut retained = Retained::new(Duration::from_micros(10));
        for time in [1, 5, 11] {
            retained.push(&Cut::new(Epoch(time as u64), Timestamp(time)), &Delta::insert(rows.clone()));
        }
        assert_eq!((retained.trim(Timestamp(10)).len(), retained.has_lost), (0, false));
        assert_eq!((retained.trim(Timestamp(11)).len(), retained.has_lost), (1, true));
        assert_eq!(retained.num_rows(), 4);
        assert_eq!(retained.batches(None).unwrap().len(), 2);
    }
}
