//! Which columns of a source anyone looks at: a source that can leave the others out need not read them.
//!
//! What waits to be taken by an epoch was read with the columns that were wanted then. When others are wanted besides, it is
//! read again before anything new, so that epochs take the same rows in the same order.

use std::sync::Arc;

use millstream_connect::{Arrival, More};

use super::RunningSource;
use crate::run::Loop;
use crate::run::feed::Feed;
use crate::run::receive::Command;

/// The columns that a source was told to read.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Whether it heeds that.
    heeded: bool,
    /// By column of its schema.
    columns: Vec<bool>,
    /// Answers up to this pull were read with fewer columns.
    pub(super) stale: u64,
}

impl Wanted {
    /// Of a source that was told nothing.
    pub(super) fn new(heeded: bool, columns: usize) -> Wanted {
        Wanted { heeded, columns: vec![true; columns], stale: 0 }
    }
}

impl RunningSource {
    /// True once rows came, from the source or by a statement.
    pub(in crate::run) fn has_brought(&self) -> bool {
        !self.position.splits.is_empty() || self.rows > 0
    }

    /// The columns that its rows come with.
    pub(in crate::run) fn wanted_columns(&self) -> Vec<bool> {
        self.wanted.columns.clone()
    }

    /// Whether an answer is on its way that was read with fewer columns.
    pub(super) fn awaits_stale(&self) -> bool {
        self.answered < self.wanted.stale
    }

    /// Lets it read these columns from now on, and what waits to be taken again where that lacks some of them.
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

    /// Has what waits to be taken, and what is on its way, read again.
    pub(super) fn read_waiting_again(&mut self) {
        self.wanted.stale = self.asked;
        let waiting = std::mem::take(&mut self.ready).into();
        (self.ready_rows, self.ready_bytes) = (0, 0);
        self.bring_again(waiting);
    }

    /// Has what these arrivals brought read again.
    pub(super) fn bring_again(&mut self, arrivals: Vec<Arrival>) {
        let spans: Vec<_> = arrivals.into_iter().flat_map(|arrival| arrival.spans).collect();
        // Where an answer is awaited it may be one that waits for rows: being told anything wakes it.
        if !spans.is_empty() || self.awaits_stale() {
            self.more = More::Now;
            self.ask_at_once();
            let _ = self.commands.send(Command::Again(spans));
        }
    }
}

impl Loop {
    /// Tells sources which of their columns are looked at.
    pub(in crate::run) fn tell_wanted(&mut self) {
        let choosing = self.sources.iter().filter(|(_, source)| source.wanted.heeded && source.used);
        let wanted = choosing.map(|(name, source)| (name.clone(), self.wanted_of(name, source)));
        for (name, columns) in wanted.collect::<Vec<_>>() {
            if let Some(source) = self.sources.get_mut(&name) {
                source.want(columns);
            }
        }
    }

    /// Which columns of a source anyone looks at.
    fn wanted_of(&self, name: &Arc<str>, source: &RunningSource) -> Vec<bool> {
        let count = source.wanted.columns.len();
        let keeps = source.retained.is_some() || self.tables.contains_key(name);
        if keeps || self.sinks.values().any(|sink| sink.from == *name) {
            return vec![true; count];
        }
        let feeds = self.queries.iter().flat_map(|query| &query.feeds).filter(|feed| feed.of == *name);
        let mut wanted = of_feeds(feeds, count);
        if let Some(time) = &source.time {
            wanted[time.place()] = true;
        }
        wanted
    }
}

/// Which of so many columns of a source are looked at by what takes its rows.
pub(in crate::run) fn of_feeds<'a>(feeds: impl Iterator<Item = &'a Feed>, count: usize) -> Vec<bool> {
    let mut wanted = vec![false; count];
    for feed in feeds {
        match &feed.columns {
            // Behind its own are those of the batch.
            Some(columns) => columns.iter().filter(|at| **at < count).for_each(|at| wanted[*at] = true),
            None => wanted.fill(true),
        }
    }
    wanted
}
