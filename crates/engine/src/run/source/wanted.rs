//! The columns of a source that queries read: a source that can leave out the others need not read them.
//!
//! Waiting arrivals were read with the columns wanted then. If further columns are wanted, these arrivals are read
//! again before any new rows, so epochs take the same rows in the same order.

use std::sync::Arc;

use super::RunningSource;
use crate::run::feed::Feed;
use crate::run::outputs::Outputs;
use crate::run::query::RunningQuery;
use crate::run::sources::Sources;
use crate::run::tables::BaseTables;

/// The columns that a source was told to read.
#[derive(Debug)]
pub(super) struct Wanted {
    /// True if the source can leave out columns.
    heeded: bool,
    /// One flag for each column of its schema.
    columns: Vec<bool>,
}

impl Wanted {
    /// All columns, for a source that has no command yet.
    pub(super) fn new(heeded: bool, columns: usize) -> Wanted {
        Wanted { heeded, columns: vec![true; columns] }
    }

    /// Reads these columns from now on. Returns `None` if nothing changes, else true if some of them were not read.
    pub(super) fn change(&mut self, columns: &[bool]) -> Option<bool> {
        if columns == self.columns {
            return None;
        }
        let lacks = columns.iter().zip(&self.columns).any(|(wanted, had)| *wanted && !had);
        columns.clone_into(&mut self.columns);
        Some(lacks)
    }
}

impl RunningSource {
    /// True if rows arrived, from the source or by a statement.
    pub(in crate::run) fn has_brought(&self) -> bool {
        !self.position.is_start() || self.counts.rows() > 0
    }

    /// Returns the columns that its rows come with.
    pub(in crate::run) fn wanted_columns(&self) -> Vec<bool> {
        self.pulls.wanted().columns.clone()
    }

    /// Reads the waiting arrivals, and those on their way, again.
    pub(super) fn read_waiting_again(&mut self) {
        self.pulls.expire();
        let waiting = self.waiting.drain();
        self.pulls.read_again(waiting.into_iter().flat_map(|arrival| arrival.spans).collect());
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
        let choosing = self.iter().filter(|(_, source)| source.pulls.wanted().heeded && source.used);
        let wanted =
            choosing.map(|(name, source)| (name.clone(), wanted_of(queries, tables, outputs, name, source)));
        for (name, columns) in wanted.collect::<Vec<_>>() {
            if let Some(source) = self.get_mut(&name)
                && source.pulls.want(columns)
            {
                source.read_waiting_again();
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
    let count = source.pulls.wanted().columns.len();
    let keeps = source.retained.is_some() || tables.contains_key(name);
    if keeps || outputs.sinks.values().any(|sink| sink.from == *name) {
        return vec![true; count];
    }
    let feeds = queries.iter().flat_map(|query| &query.feeds).filter(|feed| feed.of == *name);
    let mut wanted = of_feeds(feeds, count);
    if let Some(time) = source.times.column() {
        wanted[time.place()] = true;
    }
    wanted
}
