//! The output: rows with the bounds of their sessions.

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use millstream_delta::{Chunk, Delta};
use millstream_state::Size;

use super::open_sessions::Bounds;
use super::{Session, Side, Timed};
use crate::sorted::{Change, Sorted};
use crate::{Error, Result};

/// The maximum number of rows of one output batch.
const OUTPUT_ROWS: Size = Size::of(16_384);

/// Rows to emit: rows of the change by place, kept rows by id.
#[derive(Debug, Default)]
pub(super) struct Lines {
    fresh: List,
    kept: List,
}

#[derive(Debug, Default)]
struct List {
    places: Vec<u64>,
    weights: Vec<i64>,
    bounds: Vec<Option<Bounds>>,
}

impl List {
    fn push(&mut self, place: u64, weight: i64, bounds: Option<Bounds>) {
        self.places.push(place);
        self.weights.push(weight);
        self.bounds.push(bounds);
    }
}

impl Lines {
    /// Adds a changed row.
    pub(super) fn fresh(&mut self, change: &Change<'_>, bounds: Option<Bounds>) {
        self.fresh.push(u64::from(change.row), change.weight, bounds);
    }

    /// Adds a kept row.
    pub(super) fn kept(&mut self, id: u64, weight: i64, bounds: Bounds) {
        self.kept.push(id, weight, Some(bounds));
    }
}

impl Session {
    /// Adds the changes of a partition's rows after the change was applied. In a session with unchanged
    /// bounds these are the changed rows; of other sessions all rows, with retractions of the old ones. Of
    /// sessions with only late_members (`left`) no row remains.
    pub(super) fn difference(
        &self,
        changes: &[Timed<'_>],
        old: &[Bounds],
        (new, left): (&[Bounds], &[Bounds]),
        lines: &mut Lines,
    ) -> Result<()> {
        let Some(partition) = changes.first().map(|first| first.change.partition) else { return Ok(()) };
        let mut settled = vec![false; changes.len()];
        let fresh = new.iter().filter(|bounds| old.binary_search(bounds).is_err());
        for (bounds, stays) in fresh.map(|bounds| (bounds, true)).chain(left.iter().map(|left| (left, false)))
        {
            let mut rows: Vec<(Box<[u8]>, u64, u64)> = Vec::new();
            self.each(partition, *bounds, &mut |key, id, copies| rows.push((key.into(), id, copies)))?;
            let times = self.times(rows.iter().map(|(key, ..)| &key[partition.len()..]))?;
            for ((key, id, copies), time) in rows.iter().zip(times.values()) {
                let change = changes.binary_search_by(|change| change.change.key.cmp(key)).ok();
                let came = change.map_or(0, |at| changes[at].change.weight);
                let before = *copies as i64 - came;
                if let (true, Some(old)) = (before > 0, session_of(old, *time)) {
                    lines.kept(*id, -before, old);
                }
                if stays {
                    lines.kept(*id, *copies as i64, *bounds);
                }
                change.into_iter().for_each(|at| settled[at] = true);
            }
        }
        for (Timed { change, time }, _) in changes.iter().zip(settled).filter(|(_, settled)| !settled) {
            // The row is in an unchanged session, or it was the last copy.
            let bounds = session_of(old, *time);
            lines.fresh(change, Some(bounds.ok_or_else(|| Error::Bug("a row of no session".into()))?));
        }
        Ok(())
    }

    /// Emits rows of a change and kept rows, with their sessions.
    pub(super) fn put_out(&self, lines: Lines, sorted: Option<&Sorted>, output: &mut Delta) -> Result<()> {
        if let Some(sorted) = sorted {
            self.list(&lines.fresh, output, |places| {
                let places = UInt32Array::from_iter_values(places.iter().map(|place| *place as u32));
                Ok(take_record_batch(&sorted.rows, &places)?)
            })?;
        }
        self.list(&lines.kept, output, |ids| Ok(self.rows.gather(ids)?))
    }

    fn list(
        &self,
        list: &List,
        output: &mut Delta,
        rows: impl Fn(&[u64]) -> Result<RecordBatch>,
    ) -> Result<()> {
        for start in (0..list.places.len()).step_by(OUTPUT_ROWS.get()) {
            let some = start..list.places.len().min(start + OUTPUT_ROWS.get());
            let mut columns: Vec<ArrayRef> = rows(&list.places[some.clone()])?.columns().to_vec();
            for side in &self.sides {
                let of = |bounds: &Option<Bounds>| {
                    bounds.map(|bounds| match side {
                        Side::Start => bounds.start,
                        Side::End => bounds.end,
                    })
                };
                columns.push(self.time.values(list.bounds[some.clone()].iter().map(of).collect())?);
            }
            let weights = &list.weights[some];
            let weights =
                weights.iter().any(|weight| *weight != 1).then(|| Int64Array::from(weights.to_vec()));
            let rows = RecordBatch::try_new(self.properties.schema.clone(), columns)?;
            output.push(Chunk { rows, weights });
        }
        Ok(())
    }
}

/// Returns the session that contains a time; the sessions are in order.
fn session_of(sessions: &[Bounds], time: i64) -> Option<Bounds> {
    let after = sessions.partition_point(|bounds| bounds.start <= time);
    sessions.get(after.checked_sub(1)?).copied().filter(|bounds| bounds.contains(time))
}
