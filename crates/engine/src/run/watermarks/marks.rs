//! The watermark of one relation: the minimum of its partitions', as of the last epoch.
//!
//! A partition's watermark trails the newest event time of its rows. A partition without a row so far holds the
//! relation's watermark back. A partition counts until it ends; one without rows for too long is idle, and doesn't
//! count until it has rows again. If no partition counts, the watermark stays, or moves with the clock
//! (`silence.rs`). It never goes back.
//!
//! Deliberately absent: rows, and clocks. The changes of partitions in an epoch ([`Mark`]) are part of its cut.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use millstream_delta::{Mark, Standing, Timestamp};
use millstream_sql::Result;
use millstream_state::Tables;

use crate::error;

/// The newest event time by partition; `None` if all its rows had NULL.
pub(crate) type Seen = BTreeMap<Arc<str>, Option<i64>>;

/// The watermark of a relation, with its partitions.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    partitions: BTreeMap<Arc<str>, Partition>,
    at: Option<i64>,
    /// The time of the last epoch with rows, or with a partition that was new or ended.
    arrived: Option<Timestamp>,
    /// The watermark after that epoch, or else the first one after it.
    at_arrival: Option<i64>,
}

/// The last epoch with rows of a relation, or with a partition that was new or ended, once there is a watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastRows {
    /// The watermark after the epoch, or else the first one after it, in the unit of the column.
    pub(crate) watermark: i64,
    /// The time of the epoch.
    pub(crate) arrived: Timestamp,
}

/// The progress of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// The newest event time so far.
    pub(crate) newest: Option<i64>,
    /// The time at which its last rows arrived, or at which it became known.
    pub(crate) since: Timestamp,
    /// True if it is idle.
    pub(crate) idle: bool,
}

/// The input of an epoch for a relation's watermark.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    /// The newest times of partitions that had rows.
    pub(crate) seen: Seen,
    /// Partitions that exist, with or without rows.
    pub(crate) known: Vec<Arc<str>>,
    /// Partitions that have ended.
    pub(crate) ended: Vec<Arc<str>>,
}

impl Marks {
    /// Saves the watermark and its partitions.
    pub(crate) fn save(&self) -> Result<Tables> {
        let mut all = Tables::default();
        all.put_number_if("at", self.at);
        all.put_number_if("arrived", self.arrived.map(|arrived| arrived.0));
        all.put_number_if("at_arrival", self.at_arrival);
        let parts = || self.partitions.values();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("partition", Arc::new(StringArray::from_iter_values(self.partitions.keys().map(AsRef::as_ref)))),
            ("newest", Arc::new(Int64Array::from_iter(parts().map(|partition| partition.newest)))),
            ("since", Arc::new(Int64Array::from_iter_values(parts().map(|partition| partition.since.0)))),
            ("idle", Arc::new(BooleanArray::from_iter(parts().map(|partition| Some(partition.idle))))),
        ];
        all.put_columns("partitions", columns).map_err(error::state)?;
        Ok(all)
    }

    /// Loads the saved watermark.
    pub(crate) fn load(&mut self, all: &mut Tables) -> Result<()> {
        self.at = all.take_number_if("at");
        // Older checkpoints lack these: the next rows set them.
        self.arrived = all.take_number_if("arrived").map(Timestamp);
        self.at_arrival = all.take_number_if("at_arrival");
        let types = [DataType::Utf8, DataType::Int64, DataType::Int64, DataType::Boolean];
        let columns = all.take_columns("partitions", &types).map_err(error::state)?;
        let (names, newest) = (columns[0].as_string::<i32>(), columns[1].as_primitive::<Int64Type>());
        let (since, idle) = (columns[2].as_primitive::<Int64Type>(), columns[3].as_boolean());
        for row in 0..names.len() {
            let partition = Partition {
                newest: newest.is_valid(row).then(|| newest.value(row)),
                since: Timestamp(since.value(row)),
                idle: idle.value(row),
            };
            self.partitions.insert(names.value(row).into(), partition);
        }
        Ok(())
    }

    /// Returns the watermark, if there is one by now.
    pub(crate) fn at(&self) -> Option<i64> {
        self.at
    }

    /// Returns the last epoch with rows, if there is a watermark by now.
    pub(crate) fn last_rows(&self) -> Option<LastRows> {
        Some(LastRows { watermark: self.at_arrival?, arrived: self.arrived? })
    }

    /// Returns the partitions that may still have rows.
    pub(crate) fn partitions(&self) -> &BTreeMap<Arc<str>, Partition> {
        &self.partitions
    }

    /// Sets the watermark that was decided.
    pub(crate) fn set(&mut self, at: i64) {
        self.at = self.at.max(Some(at));
    }

    /// Returns the changes of partitions in an epoch at `now`.
    pub(crate) fn changes(&self, brought: Brought, now: Timestamp, timeout: Duration) -> Vec<Mark> {
        let Brought { mut seen, known, ended } = brought;
        for partition in known {
            if !self.partitions.contains_key(&partition) {
                seen.entry(partition).or_insert(None);
            }
        }
        let mut marks: Vec<Mark> = Vec::new();
        for (name, partition) in &self.partitions {
            let is_idle = idle_at(partition, timeout) <= now && !partition.idle;
            if !seen.contains_key(name) && (is_idle || ended.contains(name)) {
                marks.push(Mark {
                    partition: name.clone(),
                    newest: partition.newest,
                    standing: Standing::Idle,
                });
            }
        }
        for (partition, newest) in seen {
            let before = self.partitions.get(&partition).and_then(|partition| partition.newest);
            marks.push(Mark { partition, newest: newest.max(before), standing: Standing::Active });
        }
        for mark in marks.iter_mut().filter(|mark| ended.contains(&mark.partition)) {
            mark.standing = Standing::Ended;
        }
        marks.sort_by(|a, b| a.partition.cmp(&b.partition));
        marks
    }

    /// Applies the changes of partitions in an epoch.
    pub(crate) fn apply(&mut self, marks: &[Mark], now: Timestamp) {
        for Mark { partition, newest, standing } in marks {
            match standing {
                Standing::Active => {
                    let active = Partition { newest: *newest, since: now, idle: false };
                    self.partitions.insert(partition.clone(), active);
                }
                Standing::Idle => {
                    if let Some(known) = self.partitions.get_mut(partition) {
                        known.idle = true;
                    }
                }
                Standing::Ended => {
                    self.partitions.remove(partition);
                }
            }
        }
    }

    /// Records an epoch if it has rows, once its watermark is set. The marks tell, so a replay finds the same.
    pub(crate) fn note_rows(&mut self, marks: &[Mark], now: Timestamp) {
        if marks.iter().any(|mark| mark.standing != Standing::Idle) {
            (self.arrived, self.at_arrival) = (Some(now), self.at);
        }
        self.at_arrival = self.at_arrival.or(self.at);
    }

    /// Returns the watermark after an epoch with these marks, which have been applied. `of` returns the watermark of the
    /// newest event time.
    pub(crate) fn after(&self, marks: &[Mark], of: impl Fn(i64) -> Option<i64>) -> Option<i64> {
        let open = self.partitions.values().filter(|partition| !partition.idle);
        let newest = match smallest(open) {
            Some(newest) => newest,
            // All open partitions have ended: their last rows count.
            None => marks
                .iter()
                .filter(|mark| mark.standing == Standing::Ended)
                .map(|mark| mark.newest)
                .max()
                .flatten(),
        };
        newest.and_then(of).max(self.at)
    }

    /// Returns the time at which the watermark moves without rows: when the partitions that hold it back become idle. `of`
    /// returns the watermark of the newest event time.
    pub(crate) fn moves_at(&self, timeout: Duration, of: impl Fn(i64) -> Option<i64>) -> Option<Timestamp> {
        let mut open: Vec<&Partition> =
            self.partitions.values().filter(|partition| !partition.idle).collect();
        open.sort_by_key(|partition| partition.since);
        // Computed from the newest partition on: the minimum of the rest once all before it are idle.
        let mut left: Vec<Option<i64>> = Vec::with_capacity(open.len());
        let mut least: Option<Option<i64>> = None;
        for partition in open.iter().rev() {
            least = Some(least.map_or(partition.newest, |least| least.min(partition.newest)));
            left.push(least.flatten());
        }
        left.reverse();
        let moves = |place: &usize| {
            let later = left.get(place + 1).copied().flatten();
            let alike = open.get(place + 1).is_some_and(|next| next.since == open[*place].since);
            !alike && later.is_some_and(|newest| of(newest) > self.at)
        };
        (0..open.len()).find(moves).map(|place| idle_at(open[place], timeout))
    }

    /// Returns the partitions that hold the watermark back.
    pub(crate) fn holders(&self) -> Vec<(&Arc<str>, &Partition)> {
        let open = || self.partitions.iter().filter(|(_, partition)| !partition.idle);
        let least = open().map(|(_, partition)| partition.newest).min();
        open().filter(|(_, partition)| Some(partition.newest) == least).collect()
    }
}

/// Returns the time at which a partition becomes idle without further rows.
pub(crate) fn idle_at(partition: &Partition, timeout: Duration) -> Timestamp {
    later(partition.since, timeout)
}

/// Returns a time that is later by a length of time.
pub(crate) fn later(time: Timestamp, by: Duration) -> Timestamp {
    let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    Timestamp(time.0.saturating_add(by))
}

/// Returns the minimum of the partitions' event times, if there are any; `Some(None)` if one of them had no time.
fn smallest<'a>(partitions: impl Iterator<Item = &'a Partition>) -> Option<Option<i64>> {
    partitions.map(|partition| partition.newest).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_micros(100);

    fn five_behind(newest: i64) -> Option<i64> {
        Some(newest - 5)
    }

    /// Applies an epoch: rows by partition, known partitions, and partitions that end.
    fn epoch(
        marks: &mut Marks,
        now: i64,
        rows: &[(&str, i64)],
        known: &[&str],
        ended: &[&str],
    ) -> Option<i64> {
        let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        let seen = rows.iter().map(|(name, newest)| (Arc::from(*name), Some(*newest))).collect();
        let brought = Brought { seen, known: names(known), ended: names(ended) };
        let changes = marks.changes(brought, Timestamp(now), TIMEOUT);
        marks.apply(&changes, Timestamp(now));
        if let Some(at) = marks.after(&changes, five_behind) {
            marks.set(at);
        }
        marks.at()
    }

    #[test]
    fn the_slowest_partition_counts() {
        let mut marks = Marks::default();
        assert_eq!(epoch(&mut marks, 0, &[("a", 50)], &["a", "b"], &[]), None);
        assert_eq!(epoch(&mut marks, 1, &[("b", 20)], &["a", "b"], &[]), Some(15));
        assert_eq!(epoch(&mut marks, 2, &[("b", 90)], &[], &[]), Some(45));
        // A later partition can't move it back.
        assert_eq!(epoch(&mut marks, 3, &[("c", 7)], &[], &[]), Some(45));
        assert_eq!(epoch(&mut marks, 4, &[("a", 60), ("c", 8)], &[], &[]), Some(45));
    }

    #[test]
    fn an_idle_partition_is_left_aside_until_it_has_rows_again() {
        let mut marks = Marks::default();
        epoch(&mut marks, 0, &[("a", 50)], &["a", "b"], &[]);
        assert_eq!(marks.moves_at(TIMEOUT, five_behind), None, "both are idle at the same time");
        assert_eq!(epoch(&mut marks, 40, &[("a", 60)], &[], &[]), None);
        assert_eq!(marks.moves_at(TIMEOUT, five_behind), Some(Timestamp(100)));
        assert_eq!(epoch(&mut marks, 100, &[], &[], &[]), Some(55));
        assert_eq!(marks.moves_at(TIMEOUT, five_behind), None);
        // All are idle: the watermark stays.
        assert_eq!(epoch(&mut marks, 900, &[], &[], &[]), Some(55));
        assert_eq!(epoch(&mut marks, 901, &[("b", 61)], &[], &[]), Some(56));
        assert_eq!(epoch(&mut marks, 902, &[("a", 99)], &[], &[]), Some(56));
        assert_eq!(marks.holders()[0].0.as_ref(), "b");
    }

    #[test]
    fn a_time_without_a_watermark_leaves_it() {
        let mut marks = Marks::default();
        assert_eq!(epoch(&mut marks, 0, &[("a", 50)], &[], &[]), Some(45));
        let seen = BTreeMap::from([("a".into(), Some(90))]);
        let changes = marks.changes(Brought { seen, ..Brought::default() }, Timestamp(1), TIMEOUT);
        marks.apply(&changes, Timestamp(1));
        assert_eq!(marks.after(&changes, |_| None), Some(45));
        assert_eq!(marks.after(&changes, |newest| Some(newest / 20 * 20)), Some(80));
    }

    #[test]
    fn the_last_rows_survive_a_checkpoint() {
        let mut marks = Marks::default();
        let mut note = |now: i64, rows: &[(&str, i64)], ended: &[&str]| {
            let seen = rows.iter().map(|(name, newest)| (Arc::from(*name), Some(*newest))).collect();
            let ended = ended.iter().map(|name| Arc::from(*name)).collect();
            let brought = Brought { seen, ended, ..Brought::default() };
            let changes = marks.changes(brought, Timestamp(now), TIMEOUT);
            marks.apply(&changes, Timestamp(now));
            if let Some(at) = marks.after(&changes, five_behind) {
                marks.set(at);
            }
            marks.note_rows(&changes, Timestamp(now));
            let mut loaded = Marks::default();
            loaded.load(&mut marks.save().unwrap()).unwrap();
            assert_eq!((loaded.at(), loaded.last_rows()), (marks.at(), marks.last_rows()));
            marks.last_rows().map(|last| (last.watermark, last.arrived.0))
        };
        assert_eq!(note(0, &[], &[]), None);
        assert_eq!(note(1, &[("a", 50)], &[]), Some((45, 1)));
        // An epoch without rows, and one in which the partition becomes idle.
        assert_eq!(note(2, &[], &[]), Some((45, 1)));
        assert_eq!(note(300, &[], &[]), Some((45, 1)));
        assert_eq!(note(301, &[], &["a"]), Some((45, 301)));
        assert_eq!(note(302, &[("b", 10)], &[]), Some((45, 302)));
    }

    #[test]
    fn the_first_watermark_may_come_after_the_last_rows() {
        let mut marks = Marks::default();
        let seen = BTreeMap::from([("a".into(), Some(50))]);
        let brought = Brought { seen, known: vec!["b".into()], ended: Vec::new() };
        let changes = marks.changes(brought, Timestamp(1), TIMEOUT);
        marks.apply(&changes, Timestamp(1));
        assert_eq!(marks.after(&changes, five_behind), None);
        marks.note_rows(&changes, Timestamp(1));
        assert_eq!(marks.last_rows(), None);
        let changes = marks.changes(Brought::default(), Timestamp(101), TIMEOUT);
        marks.set(45);
        marks.note_rows(&changes, Timestamp(101));
        assert_eq!(marks.last_rows(), Some(LastRows { watermark: 45, arrived: Timestamp(1) }));
    }

    #[test]
    fn a_partition_counts_until_its_end() {
        let mut marks = Marks::default();
        epoch(&mut marks, 0, &[("a", 50), ("b", 10)], &[], &[]);
        assert_eq!(marks.at(), Some(5));
        assert_eq!(epoch(&mut marks, 1, &[("b", 20)], &[], &["b"]), Some(45));
        // The last one to end counts with its rows.
        assert_eq!(epoch(&mut marks, 2, &[("a", 70)], &[], &["a"]), Some(65));
        assert_eq!(epoch(&mut marks, 3, &[("c", 100)], &[], &["c"]), Some(95));
    }
}
