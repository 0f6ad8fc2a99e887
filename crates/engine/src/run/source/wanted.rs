//! The columns of a source that queries read: a source that can leave out the others need not read them.
//!
//! Waiting arrivals were read with the columns wanted then. If further columns are wanted, these arrivals are read
//! again before any new rows, so epochs take the same rows in the same order.

use std::sync::Arc;

use millstream_connect::{Arrival, More};

use super::RunningSource;
use crate::run::feed::Feed;
use crate::run::outputs::Outputs;
use crate::run::query::RunningQuery;
use crate::run::receive::Command;
use crate::run::sources::Sources;
use crate::run::tables::BaseTables;

/// The columns that a source was told to read.
#[derive(Debug)]
pub(super) struct Wanted {
    /// True if the source can leave out columns.
    heeded: bool,
    /// One flag for each column of its schema.
    columns: Vec<bool>,
    /// Answers up to this pull were read with fewer columns.
    pub(super) stale: u64,
}

impl Wanted {
    /// All columns, for a source that has no command yet.
    pub(super) fn new(heeded: bool, columns: usize) -> Wanted {
        Wanted { heeded, columns: vec![true; columns], stale: 0 }
    }
}

impl RunningSource {
    /// True if rows arrived, from the source or by a statement.
    pub(in crate::run) fn has_brought(&self) -> bool {
        !self.position.splits.is_empty() || self.rows > 0
    }

    /// Returns the columns that its rows come with.
    pub(in crate::run) fn wanted_columns(&self) -> Vec<bool> {
        self.wanted.columns.clone()
    }

    /// Returns true if an answer is on its way that was read with fewer columns.
    pub(super) fn awaits_stale(&self) -> bool {
        self.answered < self.wanted.stale
    }

    /// Reads these columns from now on, and the waiting arrivals again if they lack some of them.
    fn want(&mut self, columns: Vec<bool>) {
        if columns == self.wanted.columns {
            return;
        }
        let lacks = columns.iter().zip(&self.wanted.columns).any(|(wanted, had)| *wanted && !had);
        let _ = self.commands.send(Command::Want(columns.clone()));
        self.wanted.columns = columns;
        if lacks {
            self.read_waiting_again();
        }
    }

    /// Reads the waiting arrivals, and those on their way, again.
    pub(super) fn read_waiting_again(&mut self) {
        self.wanted.stale = self.asked;
        let waiting = std::mem::take(&mut self.ready).into();
        (self.ready_rows, self.ready_bytes) = (0, 0);
        self.bring_again(waiting);
    }

    /// Reads the spans of these arrivals again.
    pub(super) fn bring_again(&mut self, arrivals: Vec<Arrival>) {
        let spans: Vec<_> = arrivals.into_iter().flat_map(|arrival| arrival.spans).collect();
        // The awaited answer may be one that waits for rows: any command wakes it.
        if !spans.is_empty() || self.awaits_stale() {
            self.more = More::Now;
            self.ask_at_once();
            let _ = self.commands.send(Command::Again(spans));
        }
    }
}

/// Returns which of a source's first `count` columns the feeds read.
pub(in crate::run) fn of_feeds<'a>(feeds: impl Iterator<Item = &'a Feed>, count: usize) -> Vec<bool> {
    let mut wanted = vec![false; count];
    for feed in feeds {
        match &feed.columns {
            // The columns of the batch follow its own.
            Some(columns) => columns.iter().filter(|at| **at < count).for_each(|at| wanted[*at] = true),
            None => wanted.fill(true),
        }
    }
    wanted
}

impl Sources {
    /// Tells sources which of their columns to read.
    pub(in crate::run) fn tell_wanted(
        &mut self,
        queries: &[RunningQuery],
        tables: &BaseTables,
        outputs: &Outputs,
    ) {
        let choosing = self.iter().filter(|(_, source)| source.wanted.heeded && source.used);
        let wanted =
            choosing.map(|(name, source)| (name.clone(), wanted_of(queries, tables, outputs, name, source)));
        for (name, columns) in wanted.collect::<Vec<_>>() {
            if let Some(source) = self.get_mut(&name) {
                source.want(columns);
            }
        }
    }
}

/// Returns the columns of a source that anything reads.
fn wanted_of(
    queries: &[RunningQuery],
    tables: &BaseTables,
    outputs: &Outputs,
    name: &Arc<str>,
    source: &RunningSource,
) -> Vec<bool> {
    let count = source.wanted.columns.len();
    let keeps = source.retained.is_some() || tables.contains_key(name);
    if keeps || outputs.sinks.values().any(|sink| sink.from == *name) {
        return vec![true; count];
    }
    let feeds = queries.iter().flat_map(|query| &query.feeds).filter(|feed| feed.of == *name);
    let mut wanted = of_feeds(feeds, count);
    if let Some(time) = &source.time {
        wanted[time.place()] = true;
    }
    wanted
}
