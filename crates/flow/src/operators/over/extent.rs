//! The extent of the rows that an answer reads. In the opposite direction it is the extent of a change's
//! effect.

use std::ops::Range;

use arrow::compute::SortOptions;
use datafusion::scalar::ScalarValue;
use millstream_state::{Ordered, Sequence};

use crate::Result;
use crate::sorted::Sorter;

/// A distance from a row, in one direction: the maximum of its fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extent {
    /// True if it extends to the partition's end.
    pub all: bool,
    /// A number of rows.
    pub rows: u64,
    /// A number of groups of peers besides its own; 0: to the end of its own.
    pub groups: Option<u64>,
    /// Differences from the value of the only ORDER BY expression.
    pub values: Vec<ScalarValue>,
}

/// The rows that an answer reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reach {
    /// The extent towards the partition's first row.
    pub before: Extent,
    /// The extent towards the partition's last row.
    pub after: Extent,
}

impl Extent {
    /// Returns the extent to the partition's end.
    pub fn all() -> Extent {
        Extent { all: true, ..Extent::default() }
    }

    /// Returns the extent of a number of rows.
    pub fn rows(rows: u64) -> Extent {
        Extent { rows, ..Extent::default() }
    }

    /// Returns the extent of a number of groups of peers.
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
    /// Returns the reach over all rows of the partition.
    pub fn all() -> Reach {
        Reach { before: Extent::all(), after: Extent::all() }
    }

    /// Returns the reach over the rows that are equal in the order.
    pub fn peers() -> Reach {
        Reach { before: Extent::groups(0), after: Extent::groups(0) }
    }

    /// Extends this reach by another one.
    pub fn and(&mut self, other: &Reach) {
        self.before.and(&other.before);
        self.after.and(&other.after);
    }

    /// Returns true if peers are needed.
    pub fn asks_for_peers(&self) -> bool {
        [&self.before, &self.after].iter().any(|extent| extent.groups.is_some() || !extent.values.is_empty())
    }

    /// Returns true if groups of peers are counted.
    pub fn counts_groups(&self) -> bool {
        [&self.before, &self.after].iter().any(|extent| extent.groups.is_some_and(|groups| groups > 0))
    }
}

/// The side whose extent is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// The rows that a row's answer reads. For a NULL value these are its peers.
    Answer,
    /// The rows whose answers read a changed row. A NULL may matter to rows whose frame would end at a value
    /// outside of its type.
    Change,
}

/// The rows of a partition.
#[derive(Clone, Debug)]
pub(super) struct Bounds<'a> {
    /// The common prefix of all their keys.
    pub(super) prefix: &'a [u8],
    /// Their positions.
    pub(super) range: Range<u64>,
}

/// Lookup of rows by position and key.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) rows: &'a Ordered,
    /// The groups of peers, if they are counted.
    pub(super) groups: &'a Sequence,
    pub(super) sorter: &'a Sorter,
}

impl<'a> Places<'a> {
    pub(super) fn bounds<'b>(&self, prefix: &'b [u8]) -> Bounds<'b> {
        Bounds { prefix, range: self.rows.positions(prefix) }
    }

    /// Returns the key of the row at a position.
    pub(super) fn key_at(&self, position: u64) -> Option<&'a [u8]> {
        let mut found = None;
        self.rows.scan(position, &mut |_, entry| {
            found = Some(entry.key);
            false
        });
        found
    }

    /// Returns the position of the first row within an extent before the row at `position`, which has `key`
    /// or would have it.
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

    /// Returns the end position of the last row within an extent after the row that ends at `end`, which has
    /// `key` or would have it.
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

    /// Returns the position of the first row of a group of peers.
    fn start_of(&self, group: u64) -> u64 {
        self.groups.key_at(group).map_or(u64::MAX, |peers| self.rows.position(peers))
    }

    /// Returns the prefix of keys whose value in the order has this distance from a key's; `None` if there is
    /// no such value, or if it has no place in the order of numbers.
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
