//! The possible effects of a change: for each partition the stretches around changed rows, before and after
//! it.

use std::ops::Range;
use std::sync::Mutex;

use millstream_state::{Ordered, Sequence};

use super::answer::{Functions, Number, Stretch};
use super::extent::{Bounds, Of, Places};
use super::running::{Checkpoints, States};
use crate::parallelism::lock;
use crate::sorted::{Change, Sorter};
use crate::{Error, Result};

/// The maximum number of rows between changes that are processed together.
const NEAR_ROWS: u64 = if cfg!(test) { 1 } else { 16 };

/// The changes of one partition.
pub(super) struct Part<'a> {
    pub(super) prefix: &'a [u8],
    pub(super) changes: &'a [Change<'a>],
    pub(super) clusters: Vec<Cluster<'a>>,
    /// True if the partition had no answer.
    pub(super) had_failed: bool,
    /// The reason why it has no answer now.
    pub(super) fails: Option<String>,
    /// Its positions before the change.
    pub(super) old: Range<u64>,
}

/// Changes so close that the rows between them may have new answers.
#[derive(Default)]
pub(super) struct Cluster<'a> {
    pub(super) changes: &'a [Change<'a>],
    /// The positions of each changed row before and after the change.
    pub(super) spots: Vec<Spot>,
    /// The positions of all rows whose answers may change.
    pub(super) old: Range<u64>,
    pub(super) new: Range<u64>,
    /// The states of running functions before the row that follows the last changed one.
    pub(super) old_states: Option<States>,
    /// The growth of the number of groups of peers up to here.
    pub(super) groups_shift: i64,
}

/// The positions of a changed row's copies.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) old: Range<u64>,
    pub(super) new: Range<u64>,
}

/// Read access to the operator's state.
#[derive(Clone, Copy)]
pub(super) struct StateView<'a> {
    pub(super) functions: &'a Functions,
    pub(super) rows: &'a Ordered,
    pub(super) groups: &'a Sequence,
    pub(super) sorter: &'a Sorter,
    pub(super) checkpoints: &'a Mutex<Checkpoints>,
}

impl<'a> StateView<'a> {
    pub(super) fn places(&self) -> Places<'a> {
        Places { rows: self.rows, groups: self.groups, sorter: self.sorter }
    }

    /// Returns the clusters of one partition's changes before these are applied; `shift` is the shift of the
    /// partition.
    pub(super) fn part<'b>(
        &self,
        changes: &'b [Change<'b>],
        shift: i64,
        had_failed: bool,
    ) -> Result<Part<'b>> {
        let prefix = changes[0].partition;
        let bounds = self.places().bounds(prefix);
        let mut part = Part {
            prefix,
            changes,
            clusters: Vec::new(),
            had_failed,
            fails: None,
            old: bounds.range.clone(),
        };
        if had_failed {
            return Ok(part);
        }
        let (mut shift, mut firsts) = (shift, Vec::new());
        for (at, change) in changes.iter().enumerate() {
            // A new partition needs no lookups.
            let (position, had) = match bounds.range.is_empty() {
                true => (bounds.range.start, 0),
                false => self.rows.place(change.key),
            };
            let has = had.saturating_add_signed(change.weight);
            let moved = position.saturating_add_signed(shift);
            let spot = Spot { old: position..position + had, new: moved..moved + has };
            shift += change.weight;
            let reach = &self.functions.reach;
            let (from, to) = match bounds.range.is_empty() {
                true => (position, position),
                false => (
                    self.places().back(&reach.after, &bounds, spot.old.start, change.key, Of::Change)?,
                    self.places().ahead(&reach.before, &bounds, spot.old.end, change.key, Of::Change)?,
                ),
            };
            let mut cluster = Cluster { changes, spots: vec![spot], old: from..to, ..Cluster::default() };
            let mut first = at;
            let near = |last: &Cluster<'_>, start: u64| start <= last.old.end.saturating_add(NEAR_ROWS);
            while let Some(mut last) = part.clusters.pop_if(|last| near(last, cluster.old.start)) {
                last.spots.append(&mut cluster.spots);
                last.old = last.old.start.min(cluster.old.start)..last.old.end.max(cluster.old.end);
                (cluster, first) = (last, firsts.pop().unwrap_or(0));
            }
            cluster.changes = &changes[first..=at];
            part.clusters.push(cluster);
            firsts.push(first);
        }
        Ok(part)
    }

    /// Returns the rows to read for the answers of some rows. States of running functions are valid before
    /// `limit`, if given: the later ones are from before the change.
    pub(super) fn stretch<'b>(
        &self,
        bounds: Bounds<'b>,
        asked: Range<u64>,
        noted: Option<u64>,
        limit: Option<&[u8]>,
    ) -> Result<Stretch<'b>> {
        let places = self.places();
        let reach = &self.functions.reach;
        let first = self.key_within(&bounds, asked.start);
        let start = match first {
            Some(key) if !asked.is_empty() => {
                places.back(&reach.before, &bounds, asked.start, key, Of::Answer)?
            }
            _ => asked.start,
        };
        let start = noted.map_or(start, |noted| start.min(noted));
        let last = asked.end.checked_sub(1).filter(|_| !asked.is_empty());
        let end = match last.and_then(|last| self.key_within(&bounds, last)) {
            Some(key) => places.ahead(&reach.after, &bounds, asked.end, key, Of::Answer)?,
            None => asked.end,
        };
        let end = noted.map_or(end, |noted| end.max(noted));
        let mut slice = start..end;
        let mut seed = None;
        if self.functions.is_running() {
            let key = self.key_within(&bounds, start);
            // The key of a deleted row may lie between them.
            let key = match (key, limit) {
                (Some(key), Some(limit)) => Some(key.min(limit)),
                (key, limit) => key.or(limit),
            };
            slice.start = bounds.range.start;
            if let Some((known, states)) = self.checkpoint(bounds.prefix, key) {
                slice.start = self.rows.position(&known) + self.rows.copies(&known);
                seed = Some((Some(known), states));
            }
        }
        Ok(Stretch { bounds, asked, slice, seed, noted })
    }

    /// Returns the last state of running functions before a key of a partition, or before its end.
    fn checkpoint(&self, prefix: &[u8], key: Option<&[u8]>) -> Option<(Box<[u8]>, States)> {
        let checkpoints = lock(self.checkpoints);
        checkpoints.last_before(prefix, key).map(|(known, states)| (known.into(), states.clone()))
    }

    /// Returns the key at a position of a partition, if there is one.
    pub(super) fn key_within(&self, bounds: &Bounds<'_>, position: u64) -> Option<&'a [u8]> {
        if bounds.range.contains(&position) { self.places().key_at(position) } else { None }
    }

    /// Returns the end position of the copies of the row before a position.
    pub(super) fn entry_end(&self, position: u64) -> u64 {
        let mut end = position;
        self.rows.scan(position.saturating_sub(1), &mut |start, entry| {
            end = start + entry.copies;
            false
        });
        end
    }

    /// Returns all rows of a partition.
    pub(super) fn whole<'b>(&self, prefix: &'b [u8]) -> Stretch<'b> {
        let bounds = self.places().bounds(prefix);
        let all = bounds.range.clone();
        Stretch { bounds, asked: all.clone(), slice: all, seed: None, noted: None }
    }

    /// Returns the stretch of a cluster before the change.
    pub(super) fn old_stretch<'b>(&self, part: &Part<'b>, cluster: &Cluster<'b>) -> Result<Stretch<'b>> {
        let noted = self.functions.is_running().then(|| cluster.spots.last().map(|spot| spot.old.end));
        let bounds = Bounds { prefix: part.prefix, range: part.old.clone() };
        self.stretch(bounds, cluster.old.clone(), noted.flatten(), None)
    }

    /// Returns the stretch of a cluster after the change.
    pub(super) fn new_stretch<'b>(&self, part: &Part<'b>, cluster: &mut Cluster<'b>) -> Result<Stretch<'b>> {
        let bounds = self.places().bounds(part.prefix);
        let bug = || Error::Bug("changes of a partition lie outside of it".into());
        let (first, last) = cluster.spots.first().zip(cluster.spots.last()).ok_or_else(bug)?;
        // The rows around the changed ones are the same as before.
        let before = first.old.start.checked_sub(cluster.old.start).ok_or_else(bug)?;
        let after = cluster.old.end.checked_sub(last.old.end).ok_or_else(bug)?;
        let start = first.new.start.checked_sub(before).ok_or_else(bug)?;
        cluster.new = start..last.new.end + after;
        if cluster.new.start < bounds.range.start || cluster.new.end > bounds.range.end {
            return Err(bug());
        }
        let noted = self.functions.is_running().then_some(last.new.end);
        let limit = cluster.changes.first().map(|change| change.key);
        self.stretch(bounds, cluster.new.clone(), noted, limit)
    }

    /// Returns the change of the row numbers after a cluster.
    pub(super) fn shifts(&self, part: &Part<'_>, cluster: &Cluster<'_>, bounds: &Bounds<'_>) -> Shifts {
        let rows = cluster.spots.last().map_or(0, |spot| {
            let (old, new) = (spot.old.end - part.old.start, spot.new.end - bounds.range.start);
            new as i64 - old as i64
        });
        Shifts { rows, groups: cluster.groups_shift }
    }
}

/// The change of row numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shifts {
    rows: i64,
    groups: i64,
}

impl Shifts {
    pub(super) fn of(self, number: Number) -> i64 {
        match number {
            Number::Row | Number::Rank => self.rows,
            Number::Dense => self.groups,
        }
    }
}
