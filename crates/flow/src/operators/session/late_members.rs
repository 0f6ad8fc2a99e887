//! LateMembers: rows that would be late by themselves, but touched an open session when they arrived.
//!
//! If a delete splits that session, only late_members may remain in a session that the clock has passed. It is no
//! session of its own: one with the same bounds may have closed before, and no session is emitted twice. That
//! can't be if one of its rows was in time by itself, since a closing session takes all rows within its span
//! with it. So these late_members are late then.

use std::collections::BTreeSet;

use arrow::array::Int64Array;
use millstream_delta::Chunk;

use super::open_sessions::Bounds;
use super::{Session, Timed};
use crate::Result;
use crate::late_rows::Late;
use crate::operator::Output;

/// The keys of late_members.
pub(super) type LateMembers = BTreeSet<Box<[u8]>>;

impl Session {
    /// Records changes before they are applied: new late_members, and late_members that are deleted.
    pub(super) fn note_late_members(&mut self, changes: &[Timed<'_>]) {
        let Some(closed) = self.closing.up_to() else { return };
        for Timed { change, time } in changes {
            if change.weight < 0 {
                let goes = || change.weight.unsigned_abs() >= self.rows.copies(change.key);
                if !self.late_members.is_empty() && goes() {
                    self.late_members.remove(change.key);
                }
            } else if self.time.alone(*time).end <= closed && self.rows.copies(change.key) == 0 {
                self.late_members.insert(change.key.into());
            }
        }
    }

    /// Removes from the new sessions those that the clock has passed and that contain only late_members, if they
    /// didn't exist before; returns them.
    pub(super) fn left_by_hosts(
        &self,
        partition: &[u8],
        old: &[Bounds],
        new: &mut Vec<Bounds>,
    ) -> Result<Vec<Bounds>> {
        let Some(closed) = self.closing.up_to().filter(|_| !self.late_members.is_empty()) else {
            return Ok(Vec::new());
        };
        let (mut left, mut stays) = (Vec::new(), Vec::with_capacity(new.len()));
        for bounds in new.drain(..) {
            let mut only_guests = bounds.end <= closed && old.binary_search(&bounds).is_err();
            if only_guests {
                self.each(partition, bounds, &mut |key, _, _| {
                    only_guests &= self.late_members.contains(key)
                })?;
            }
            if only_guests { left.push(bounds) } else { stays.push(bounds) }
        }
        *new = stays;
        Ok(left)
    }

    /// Drops the rows of such a session, as late.
    pub(super) fn turn_away(&mut self, partition: &[u8], bounds: Bounds, output: &mut Output) -> Result<()> {
        let Some(watermark) = self.closing.watermark() else { return Ok(()) };
        let (mut ids, mut weights) = (Vec::new(), Vec::new());
        self.each(partition, bounds, &mut |_, id, copies| {
            ids.push(id);
            weights.push(copies as i64);
        })?;
        let windows = self.time.values(Int64Array::from_value(bounds.end, ids.len()))?;
        let rows = Chunk { rows: self.rows.gather(&ids)?, weights: Some(Int64Array::from(weights)) };
        let late = Late { input: 0, rows, windows, watermark };
        self.closing.count(&late);
        output.late.push(late);
        self.forget_rows(partition, bounds)
    }

    /// Drops the rows of a session.
    pub(super) fn forget_rows(&mut self, partition: &[u8], bounds: Bounds) -> Result<()> {
        if !self.late_members.is_empty() {
            let mut gone: Vec<Box<[u8]>> = Vec::new();
            self.each(partition, bounds, &mut |key, _, _| gone.push(key.into()))?;
            gone.iter().for_each(|key| _ = self.late_members.remove(key));
        }
        let (from, end) = (self.place(partition, bounds.start)?, self.place(partition, bounds.end)?);
        self.rows.remove(from..end);
        Ok(())
    }
}
