//! What decides an epoch.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The number of a micro-batch. The first epoch is 1; 0 stands for "before everything".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
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
    /// Whole milliseconds since 1970, rounded down.
    pub fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

/// As SQL shows it: `1970-01-01 00:00:05.25` in UTC.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match arrow::temporal_conversions::timestamp_us_to_datetime(self.0) {
            Some(time) => write!(f, "{time}"),
            None => write!(f, "{} us since 1970", self.0),
        }
    }
}

/// What was read of one split (a file, a partition) of a source: the half-open range `from..to`, in units that
/// the source chooses (bytes, rows, offsets).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The split's name, unique in its source.
    pub split: Arc<str>,
    /// Where reading began.
    pub from: u64,
    /// Where reading stopped; nothing at or after it was taken.
    pub to: u64,
    /// Whether the split is read to its end and will give nothing more.
    pub done: bool,
}

/// How far one split has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The end of what was taken.
    pub through: u64,
    /// Whether the split is read to its end.
    pub done: bool,
}

/// How far a source has been read: the fold of all its [`Span`]s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// By the split's name.
    pub splits: BTreeMap<Arc<str>, Progress>,
}

impl Position {
    /// Moves the position past `span`.
    pub fn advance(&mut self, span: &Span) {
        let progress = self.splits.entry(span.split.clone()).or_default();
        progress.through = progress.through.max(span.to);
        progress.done |= span.done;
    }

    /// All that was read up to here, as one span a split.
    pub fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        self.splits.iter().map(|(split, progress)| Span {
            split: split.clone(),
            from: 0,
            to: progress.through,
            done: progress.done,
        })
    }
}

/// Which batches an epoch ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Closes {
    /// None: between two ticks of a fixed interval it takes in what statements change.
    #[default]
    None,
    /// Those of the queries that it brings rows for.
    Filled,
    /// Those of all queries, empty ones too.
    All,
}

/// How a partition of a relation with a watermark stands after an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The epoch has rows of it, or is the first that knows of it.
    Active,
    /// It has had no rows for so long that it is left aside until it has some again.
    Idle,
    /// It gives nothing more.
    Ended,
}

/// What an epoch changes of one partition of a relation with a watermark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The partition; empty for that of a relation which has one alone.
    pub partition: Arc<str>,
    /// The newest event time that it has brought so far, in the unit of its column.
    pub newest: Option<i64>,
    /// How it stands.
    pub standing: Standing,
}

/// What decides an epoch: everything else is a function of it and of the state before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Which epoch.
    pub epoch: Epoch,
    /// Its batch time; strictly increasing from epoch to epoch.
    pub now: Timestamp,
    /// When the batch began that it is part of: the batch time of the last epoch that closed one.
    pub started: Timestamp,
    /// Which batches it ends.
    pub closes: Closes,
    /// What the epoch takes of each source, by the source's name; sources that give nothing are left out.
    pub positions: Vec<(Arc<str>, Vec<Span>)>,
    /// The watermark of each relation that has one by now, after this epoch: no row is expected any more whose event
    /// time is below it. In the unit of its column.
    pub watermarks: Vec<(Arc<str>, i64)>,
    /// What it changes of the partitions of each of these relations, of which the watermarks are made.
    pub marks: Vec<(Arc<str>, Vec<Mark>)>,
    /// Rows of sources whose event time is later are bad rows of this epoch; none: it may be any.
    pub event_time_max: Option<Timestamp>,
}

impl Cut {
    /// An epoch that takes nothing of sources, closes no batch and has no watermark.
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

    /// The watermark of a relation, where it has one by now.
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
