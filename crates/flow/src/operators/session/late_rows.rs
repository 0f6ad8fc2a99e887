//! Late changes: those of closed sessions.

use arrow::array::{Int64Array, UInt32Array};
use arrow::compute::take_record_batch;
use millstream_delta::Chunk;

use super::{Session, Timed};
use crate::Result;
use crate::late_rows::Late;
use crate::sorted::{Change, Sorted};

/// A late row, with its time if it has one: sessions without one never close.
pub(super) type TooLate<'a> = (Change<'a>, Option<i64>);

impl Session {
    /// Returns the changes of a partition that aren't late, in their order.
    ///
    /// A row that would be in a closed session by itself is in time if it touches an open session, or another
    /// row in time: the rows of one epoch have no order.
    pub(super) fn in_time<'a>(&self, changes: Vec<Timed<'a>>, late: &mut Vec<TooLate<'a>>) -> Vec<Timed<'a>> {
        let Some(closed) = self.closing.up_to() else { return changes };
        if changes.iter().all(|change| self.time.alone(change.time).end > closed) {
            return changes;
        }
        let mut in_time = Vec::with_capacity(changes.len());
        // The end of the preceding rows in time.
        let mut reach = i64::MIN;
        for Timed { change, time } in &changes {
            let alone = self.time.alone(*time);
            let comes = change.weight > 0
                && (alone.end > closed
                    || reach > *time
                    || !self.open.touched(change.partition, alone).is_empty());
            if comes {
                reach = reach.max(alone.end);
            }
            in_time.push(comes);
        }
        // The start of the first following row in time.
        let mut next = i64::MAX;
        for (change, in_time) in changes.iter().zip(&mut in_time).rev() {
            *in_time |= change.change.weight > 0 && self.time.alone(change.time).end > next;
            if *in_time {
                next = change.time;
            }
        }
        let mut kept = Vec::with_capacity(changes.len());
        for (mut timed, in_time) in changes.into_iter().zip(in_time) {
            let weight = timed.change.weight;
            timed.change.weight = match weight {
                // Rows of open sessions can be deleted.
                ..0 => -(weight.unsigned_abs().min(self.rows.copies(timed.change.key)) as i64),
                _ if in_time => weight,
                _ => 0,
            };
            let left = weight - timed.change.weight;
            if timed.change.weight != 0 {
                kept.push(timed);
            }
            if left != 0 {
                timed.change.weight = left;
                late.push((timed.change, Some(timed.time)));
            }
        }
        kept
    }

    /// Returns the late rows, each with the end of the session that it would form by itself.
    pub(super) fn too_late(&mut self, sorted: &Sorted, late: &[TooLate<'_>]) -> Result<Option<Late>> {
        if late.is_empty() {
            return Ok(None);
        }
        let Some(watermark) = self.closing.watermark_or_null()? else { return Ok(None) };
        let places = UInt32Array::from_iter_values(late.iter().map(|(change, _)| change.row));
        let weights = Int64Array::from_iter_values(late.iter().map(|(change, _)| change.weight));
        let end = |(_, time): &TooLate<'_>| time.map(|time| self.time.alone(time).end);
        let windows = self.time.values(late.iter().map(end).collect())?;
        let rows = Chunk { rows: take_record_batch(&sorted.rows, &places)?, weights: Some(weights) };
        let late = Late { input: 0, rows, windows, watermark };
        self.closing.count(&late);
        Ok(Some(late))
    }
}
