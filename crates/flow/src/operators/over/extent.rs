//! How far from a row the rows lie that its answer looks at: so far, in the other direction, does a change reach.

use std::ops::Range;

use arrow::compute::SortOptions;
use datafusion::scalar::ScalarValue;
use millstream_state::{Ordered, Sequence};

use crate::Result;
use crate::sorted::Sorter;

/// A distance from a row, in one direction: the farthest of what is said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extent {
    /// To the partition's end.
    pub all: bool,
    /// So many rows.
    pub rows: u64,
    /// So many groups of peers beside its own; 0: to the end of its own.
    pub groups: Option<u64>,
    /// To values of the one expression of the order that differ by so much.
    pub values: Vec<ScalarValue>,
}

/// Which rows an answer looks at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reach {
    /// Towards the partition's first row.
    pub before: Extent,
    /// Towards its last.
    pub after: Extent,
}

impl Extent {
    /// To the partition's end.
    pub fn all() -> Extent {
        Extent { all: true, ..Extent::default() }
    }

    /// So many rows.
    pub fn rows(rows: u64) -> Extent {
        Extent { rows, ..Extent::default() }
    }

    /// So many groups of peers.
    pub fn groups(groups: u64) -> Extent {
        Extent { groups: Some(groups), ..Extent::default() }
    }

    fn and(&mut self, other: &Extent) {
        self.all |= other.all;
        self.rows = self.rows.max(other.rows);
        self.groups = self.groups.max(other.groups);
        self.values.extend(other.values.iter().filter(|value| !value.is_null()).cloned());
    }
}

impl Reach {
    /// To all rows of the partition.
    pub fn all() -> Reach {
        Reach { before: Extent::all(), after: Extent::all() }
    }

    /// To the rows that are equal in the order.
    pub fn peers() -> Reach {
        Reach { before: Extent::groups(0), after: Extent::groups(0) }
    }

    /// The farther of both.
    pub fn and(&mut self, other: &Reach) {
        self.before.and(&other.before);
        self.after.and(&other.after);
    }

    /// Whether peers are asked for.
    pub fn asks_for_peers(&self) -> bool {
        [&self.before, &self.after].iter().any(|extent| extent.groups.is_some() || !extent.values.is_empty())
    }

    /// Whether groups of peers are counted.
    pub fn counts_groups(&self) -> bool {
        [&self.before, &self.after].iter().any(|extent| extent.groups.is_some_and(|groups| groups > 0))
    }
}

/// Whose extent is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// The rows that a row's answer looks at. Where its value is NULL, these are its peers.
    Answer,
    /// The rows whose answers look at a changed row. A NULL may count for those whose frame would end at a value that
    /// their type doesn't have.
    Change,
}

/// The rows of a partition.
#[derive(Clone, Debug)]
pub(super) struct Bounds<'a> {
    /// What all their keys begin with.
    pub(super) prefix: &'a [u8],
    /// Their positions.
    pub(super) range: Range<u64>,
}

/// Where rows are found.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) rows: &'a Ordered,
    /// The groups of peers, where they are counted.
    pub(super) groups: &'a Sequence,
    pub(super) sorter: &'a Sorter,
}

impl<'a> Places<'a> {
    pub(super) fn bounds<'b>(&self, prefix: &'b [u8]) -> Bounds<'b> {
        Bounds { prefix, range: self.rows.positions(prefix) }
    }

    /// The key of the row at a position.
    pub(super) fn key_at(&self, position: u64) -> Option<&'a [u8]> {
        let mut found = None;
        self.rows.scan(position, &mut |_, entry| {
            found = Some(entry.key);
            false
        });
        found
    }

    /// The position of the first row that lies within an extent before the one at `position`, which has `key` or would
    /// have it.
    pub(super) fn back(
        &self,
        extent: &Extent,
        bounds: &Bounds<'_>,
        position: u64,
        key: &[u8],
        of: Of,
    ) -> Result<u64> {
        let Range { start, .. } = bounds.range;
        if extent.all {
            return Ok(start);
        }
        let mut first = position.saturating_sub(extent.rows).max(start);
        if let Some(groups) = extent.groups {
            let peers = self.sorter.peers(key);
            first = first.min(match groups {
                0 => self.rows.position(peers),
                _ => {
                    let least = self.groups.position(bounds.prefix);
                    let group = self.groups.position(peers).saturating_sub(groups).max(least);
                    self.start_of(group).min(self.rows.position(peers))
                }
            });
        }
        for distance in &extent.values {
            let reached = self.shifted(bounds, key, distance, (false, of))?;
            first = first.min(reached.map_or(start, |bound| self.rows.position(&bound)));
        }
        Ok(first.clamp(start, bounds.range.end))
    }

    /// The position behind the last row that lies within an extent after the one that ends at `end`, which has `key` or
    /// would have it.
    pub(super) fn ahead(
        &self,
        extent: &Extent,
        bounds: &Bounds<'_>,
        end: u64,
        key: &[u8],
        of: Of,
    ) -> Result<u64> {
        let all = bounds.range.end;
        if extent.all {
            return Ok(all);
        }
        let mut last = end.saturating_add(extent.rows).min(all);
        if let Some(groups) = extent.groups {
            let peers = self.sorter.peers(key);
            last = last.max(match groups {
                0 => self.rows.positions(peers).end,
                _ => {
                    let own = u64::from(self.groups.contains(peers));
                    let group = self.groups.position(peers).saturating_add(own).saturating_add(groups);
                    match group < self.groups.positions(bounds.prefix).end {
                        true => self.start_of(group),
                        false => all,
                    }
                }
            });
        }
        for distance in &extent.values {
            let reached = self.shifted(bounds, key, distance, (true, of))?;
            last = last.max(reached.map_or(all, |bound| self.rows.positions(&bound).end));
        }
        Ok(last.clamp(bounds.range.start, all))
    }

    /// The position of the first row of a group of peers.
    fn start_of(&self, group: u64) -> u64 {
        self.groups.key_at(group).map_or(u64::MAX, |peers| self.rows.position(peers))
    }

    /// What the keys begin with whose value in the order is so far from that of a key; none where there is no such
    /// value, or it has no place in the order of numbers.
    fn shifted(
        &self,
        bounds: &Bounds<'_>,
        key: &[u8],
        distance: &ScalarValue,
        (ahead, of): (bool, Of),
    ) -> Result<Option<Vec<u8>>> {
        let peers = self.sorter.peers(key);
        let Some(SortOptions { descending, .. }) = self.sorter.options().first().copied() else {
            return Ok(None);
        };
        let values = self.sorter.order_values(&peers[bounds.prefix.len()..])?;
        let [value] = &values[..] else { return Ok(None) };
        let value = ScalarValue::try_from_array(value, 0)?;
        if value.is_null() {
            return Ok((of == Of::Answer).then(|| peers.to_vec()));
        }
        let moved = match ahead != descending {
            true => value.add_checked(distance),
            false => value.sub_checked(distance),
        };
        let Ok(moved) = moved else { return Ok(None) };
        if moved.data_type() != value.data_type() || moved.is_null() {
            return Ok(None);
        }
        let mut bound = bounds.prefix.to_vec();
        bound.extend(self.sorter.order_bytes(&[moved.to_array()?])?);
        Ok(Some(bound))
    }
}
