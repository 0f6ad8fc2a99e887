//! The cut: the value that determines an epoch.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The number of a micro-batch. The first epoch is 1; 0 means "before everything".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Returns the epoch after this one.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }

    /// Returns the epoch before this one; epoch 0 has none and returns itself.
    pub fn previous(self) -> Epoch {
        Epoch(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in time: microseconds since 1970-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Returns the whole milliseconds since 1970, rounded down.
    pub fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

/// Formats the time as SQL does: `1970-01-01 00:00:05.25` in UTC.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match arrow::temporal_conversions::timestamp_us_to_datetime(self.0) {
            Some(time) => write!(f, "{time}"),
            None => write!(f, "{} us since 1970", self.0),
        }
    }
}

/// The half-open range `from..to` read from one split (a file, a partition) of a source, in units that the
/// source chooses (bytes, rows, offsets).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The split's name, unique in its source.
    pub split: Arc<str>,
    /// The start of the range.
    pub from: u64,
    /// The end of the range, exclusive.
    pub to: u64,
    /// True if the split is read to its end and will produce no more rows.
    pub done: bool,
}

/// The progress of reading one split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The end of the last range taken.
    pub through: u64,
    /// True if the split is read to its end.
    pub done: bool,
}

/// The position of a source: the fold of all its [`Span`]s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The progress of each split, by the split's name.
    pub splits: BTreeMap<Arc<str>, Progress>,
}

impl Position {
    /// Moves the position past `span`.
    pub fn advance(&mut self, span: &Span) {
        let progress = self.splits.entry(span.split.clone()).or_default();
        progress.through = progress.through.max(span.to);
        progress.done |= span.done;
    }

    /// Returns everything read so far as one span per split.
    pub fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        self.splits.iter().map(|(split, progress)| Span {
            split: split.clone(),
            from: 0,
            to: progress.through,
            done: progress.done,
        })
    }
}

/// The batches that an epoch ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Closes {
    /// No batch: between two ticks of a fixed interval, the epoch takes in changes by statements.
    #[default]
    None,
    /// The batches of the queries that it brings rows for.
    Filled,
    /// The batches of all queries, including empty ones.
    All,
}

/// The state of a partition of a relation with a watermark, after an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The epoch has rows of it, or is the first epoch that includes it.
    Active,
    /// It has had no rows for so long that the watermark ignores it until it has some again.
    Idle,
    /// It produces no more rows.
    Ended,
}

/// The change of one partition of a relation with a watermark, in one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The partition; empty if the relation has only one.
    pub partition: Arc<str>,
    /// The newest event time of its rows so far, in the unit of its column.
    pub newest: Option<i64>,
    /// Its state.
    pub standing: Standing,
}

/// The value that determines an epoch: everything else is a function of it and of the state before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The epoch.
    pub epoch: Epoch,
    /// The batch time; it strictly increases from epoch to epoch.
    pub now: Timestamp,
    /// The start of the current batch: the batch time of the last epoch that closed one.
    pub started: Timestamp,
    /// The batches that the epoch ends.
    pub closes: Closes,
    /// The spans taken of each source, by the source's name. Sources without new rows are omitted.
    pub positions: Vec<(Arc<str>, Vec<Span>)>,
    /// The watermarks of all relations that have one, after this epoch, in the unit of the column. No row
    /// with an older event time is expected.
    pub watermarks: Vec<(Arc<str>, i64)>,
    /// The changes of the partitions of these relations, from which the watermarks are computed.
    pub marks: Vec<(Arc<str>, Vec<Mark>)>,
    /// The latest valid event time: later rows of sources are bad rows of this epoch. `None` means no limit.
    pub event_time_max: Option<Timestamp>,
}

impl Cut {
    /// Returns a cut that takes nothing from sources, closes no batch and has no watermark.
    pub fn new(epoch: Epoch, now: Timestamp) -> Cut {
        Cut {
            epoch,
            now,
            started: Timestamp::default(),
            closes: Closes::None,
            positions: Vec::new(),
            watermarks: Vec::new(),
            marks: Vec::new(),
            event_time_max: None,
        }
    }

    /// Returns the watermark of a relation, if it has one.
    pub fn watermark(&self, relation: &str) -> Option<i64> {
        self.watermarks.iter().find(|(name, _)| name.as_ref() == relation).map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_the_fold_of_its_spans() {
        let span = |split: &str, from, to, done| Span { split: split.into(), from, to, done };
        let mut position = Position::default();
        for span in [span("a", 0, 10, false), span("b", 0, 4, true), span("a", 10, 25, true)] {
            position.advance(&span);
        }
        let all: Vec<_> = position.spans().collect();
        assert_eq!(all, [span("a", 0, 25, true), span("b", 0, 4, true)]);
    }
}
