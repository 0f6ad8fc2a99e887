//! The watermark of one relation: the smallest of its partitions', as of the last epoch.
//!
//! A partition's watermark trails the newest event time that it has brought. One that had no row yet holds the
//! relation's back, one that ends counts until then, and one without rows for too long is left aside until it has some
//! again. Where none is left that could say anything the watermark stays, and it never goes back.
//!
//! Deliberately absent: rows, and clocks. What an epoch changes of the partitions ([`Mark`]) is part of its cut.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use millstream_delta::{Mark, Standing, Timestamp};
use millstream_sql::Result;
use millstream_state::Tables;

use crate::error;

/// The newest event time that rows of a partition had; none where all were NULL.
pub(crate) type Seen = BTreeMap<Arc<str>, Option<i64>>;

/// How far event time has come in a relation.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    partitions: BTreeMap<Arc<str>, Partition>,
    at: Option<i64>,
}

/// How far it has come in a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// The newest event time so far.
    pub(crate) newest: Option<i64>,
    /// When rows of it came last, or when it was first known.
    pub(crate) since: Timestamp,
    /// Whether it is left aside.
    pub(crate) idle: bool,
}

/// What an epoch brings of a relation.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    /// By partition, where rows came.
    pub(crate) seen: Seen,
    /// Partitions that are there, rows or not.
    pub(crate) known: Vec<Arc<str>>,
    /// Partitions that give nothing more.
    pub(crate) ended: Vec<Arc<str>>,
}

impl Marks {
    /// How far it has come, as tables.
    pub(crate) fn save(&self) -> Result<Tables> {
        let mut all = Tables::default();
        all.put_number_if("at", self.at);
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

    /// What was saved.
    pub(crate) fn load(&mut self, all: &mut Tables) -> Result<()> {
        self.at = all.take_number_if("at");
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

    /// The watermark, where there is one by now.
    pub(crate) fn at(&self) -> Option<i64> {
        self.at
    }

    /// The partitions that may still have rows.
    pub(crate) fn partitions(&self) -> &BTreeMap<Arc<str>, Partition> {
        &self.partitions
    }

    /// Sets the watermark that was decided.
    pub(crate) fn set(&mut self, at: i64) {
        self.at = self.at.max(Some(at));
    }

    /// What an epoch at `now` changes of the partitions.
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

    /// Takes over what an epoch changes of the partitions.
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

    /// The watermark after an epoch with these marks, which have been applied.
    pub(crate) fn after(&self, marks: &[Mark], delay: i64) -> Option<i64> {
        let open = self.partitions.values().filter(|partition| !partition.idle);
        let newest = match smallest(open) {
            Some(newest) => newest,
            // All that were left have ended: what they brought at the end counts.
            None => marks
                .iter()
                .filter(|mark| mark.standing == Standing::Ended)
                .map(|mark| mark.newest)
                .max()
                .flatten(),
        };
        newest.map(|newest| newest.saturating_sub(delay)).max(self.at)
    }

    /// When the watermark moves if no rows come: when what holds it back is left aside.
    pub(crate) fn moves_at(&self, timeout: Duration, delay: i64) -> Option<Timestamp> {
        let mut open: Vec<&Partition> =
            self.partitions.values().filter(|partition| !partition.idle).collect();
        open.sort_by_key(|partition| partition.since);
        // From the newest on: what is left when all before it are idle.
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
            !alike && later.is_some_and(|newest| Some(newest.saturating_sub(delay)) > self.at)
        };
        (0..open.len()).find(moves).map(|place| idle_at(open[place], timeout))
    }

    /// The partitions that hold the watermark back.
    pub(crate) fn holders(&self) -> Vec<(&Arc<str>, &Partition)> {
        let open = || self.partitions.iter().filter(|(_, partition)| !partition.idle);
        let least = open().map(|(_, partition)| partition.newest).min();
        open().filter(|(_, partition)| Some(partition.newest) == least).collect()
    }
}

/// When a partition without further rows is left aside.
pub(crate) fn idle_at(partition: &Partition, timeout: Duration) -> Timestamp {
    let timeout = i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX);
    Timestamp(partition.since.0.saturating_add(timeout))
}

/// The smallest event time that partitions have come to, where there are some; none where one had none.
fn smallest<'a>(partitions: impl Iterator<Item = &'a Partition>) -> Option<Option<i64>> {
    partitions.map(|partition| partition.newest).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_micros(100);

    /// Takes an epoch at a time: rows by partition, partitions that are known, and that end.
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
        if let Some(at) = marks.after(&changes, 5) {
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
        // One that comes later can't take it back.
        assert_eq!(epoch(&mut marks, 3, &[("c", 7)], &[], &[]), Some(45));
        assert_eq!(epoch(&mut marks, 4, &[("a", 60), ("c", 8)], &[], &[]), Some(45));
    }

    #[test]
    fn an_idle_partition_is_left_aside_until_it_has_rows_again() {
        let mut marks = Marks::default();
        epoch(&mut marks, 0, &[("a", 50)], &["a", "b"], &[]);
        assert_eq!(marks.moves_at(TIMEOUT, 5), None, "both are idle at the same time");
        assert_eq!(epoch(&mut marks, 40, &[("a", 60)], &[], &[]), None);
        assert_eq!(marks.moves_at(TIMEOUT, 5), Some(Timestamp(100)));
        assert_eq!(epoch(&mut marks, 100, &[], &[], &[]), Some(55));
        assert_eq!(marks.moves_at(TIMEOUT, 5), None);
        // All are idle: it stays.
        assert_eq!(epoch(&mut marks, 900, &[], &[], &[]), Some(55));
        assert_eq!(epoch(&mut marks, 901, &[("b", 61)], &[], &[]), Some(56));
        assert_eq!(epoch(&mut marks, 902, &[("a", 99)], &[], &[]), Some(56));
        assert_eq!(marks.holders()[0].0.as_ref(), "b");
    }

    #[test]
    fn a_partition_counts_until_its_end() {
        let mut marks = Marks::default();
        epoch(&mut marks, 0, &[("a", 50), ("b", 10)], &[], &[]);
        assert_eq!(marks.at(), Some(5));
        assert_eq!(epoch(&mut marks, 1, &[("b", 20)], &[], &["b"]), Some(45));
        // The last one to end counts with what it brought.
        assert_eq!(epoch(&mut marks, 2, &[("a", 70)], &[], &["a"]), Some(65));
        assert_eq!(epoch(&mut marks, 3, &[("c", 100)], &[], &["c"]), Some(95));
    }
}
