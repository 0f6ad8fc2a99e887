//! Sinks into tables: queries whose changes are an input of a table in the same epoch.
//!
//! The changes of a sink that is behind are staged in its table like those of a statement, and the journal has them as
//! changes of the table. The cut of each epoch says for each such sink through which of its epochs the table has its
//! changes. A start steps the sink in every epoch, and leaves out what the journal has in that way.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_delta::{Cut, Delta, Epoch, Span};
use millstream_sql::{Error, Result};

use super::Loop;
use super::behind::Behind;
use super::epoch::Deltas;
use crate::catalog::{ALL_LATE_ROWS, late_rows_name};

/// Where the changes of a query go.
#[derive(Clone, Debug)]
pub(crate) struct IntoTable {
    /// The sink's name.
    pub(crate) sink: Arc<str>,
    pub(crate) table: Arc<str>,
    /// How many rows it has changed.
    pub(crate) rows: u64,
    /// True if the table has a key: it depends on the order in which changes come which rows it has.
    pub(crate) keyed: bool,
    /// While the sink is behind, or was when it was suspended: the epoch through which its changes are staged.
    pub(crate) staged: Option<Epoch>,
    /// The epoch through which the table had its changes in the newest epoch.
    brought: Epoch,
    /// True if some of what is staged waits for the next epoch.
    waits: bool,
    /// By epoch, while a journal is run again: changes that the journal may have as those of the table.
    again: Vec<(Epoch, Delta)>,
}

impl IntoTable {
    pub(crate) fn new(sink: Arc<str>, table: Arc<str>, keyed: bool) -> IntoTable {
        IntoTable {
            sink,
            table,
            rows: 0,
            keyed,
            staged: None,
            brought: Epoch::default(),
            waits: false,
            again: Vec::new(),
        }
    }

    /// True if the table had all changes up to an epoch in the newest one; `behind` if the sink is behind.
    pub(super) fn has_brought(&self, epoch: Epoch, behind: Option<&Behind>) -> bool {
        match behind {
            Some(behind) => behind.through() >= epoch && (!self.waits || self.brought >= epoch),
            None => !self.waits,
        }
    }

    /// The epoch through which the table has its changes in an epoch with this cut, if the sink was behind then.
    fn marked_in(&self, cut: &Cut) -> Option<Epoch> {
        let (_, spans) = cut.positions.iter().find(|(name, _)| *name == self.sink)?;
        spans.first().map(|span| Epoch(span.to))
    }
}

impl Loop {
    /// Says in the cut of an epoch, which has taken in all that was staged, how far the tables have the changes of sinks that
    /// are behind.
    pub(super) fn mark_sinks_behind(&mut self, cut: &mut Cut) {
        for query in &mut self.queries {
            let through = query.behind().map(Behind::through);
            let is_suspended = query.is_suspended();
            let Some(into) = &mut query.into else { continue };
            into.staged = through.or(into.staged.filter(|_| is_suspended));
            into.waits = false;
            if let Some(through) = into.staged {
                into.brought = through;
                let span = Span { split: "".into(), from: 0, to: through.0, done: false };
                cut.positions.push((into.sink.clone(), vec![span]));
            }
        }
    }

    /// True if a relation that a cut has positions of is a sink into a table.
    pub(super) fn is_sink_into_table(&self, name: &str) -> bool {
        self.queries.iter().filter_map(|query| query.into.as_ref()).any(|into| into.sink.as_ref() == name)
    }

    /// Forgets what is part of the tables' changes in an epoch that is run again, and in those before it.
    pub(super) fn forget_brought(&mut self, cut: &Cut) {
        for into in self.queries.iter_mut().filter_map(|query| query.into.as_mut()) {
            let before = Epoch(cut.epoch.0.saturating_sub(1));
            let through = into.marked_in(cut).unwrap_or(before);
            into.again.retain(|(epoch, _)| *epoch > through);
            into.waits = false;
        }
    }

    /// Takes changes of a sink that is behind. In an epoch that is run again they wait for a later one that has them.
    pub(super) fn take_behind(&mut self, place: usize, cut: &Cut, delta: Delta) {
        let recovering = self.durability.is_recovering();
        if !recovering {
            self.stage_in(place, delta);
        } else if let Some(into) = &mut self.queries[place].into {
            into.again.push((cut.epoch, delta));
        }
        let query = &mut self.queries[place];
        // The table has nothing of what made one fail.
        let is_suspended = query.is_suspended();
        if let Some(into) = query.into.as_mut().filter(|_| !is_suspended) {
            into.staged = Some(cut.epoch);
        }
    }

    /// Stages what was kept of epochs that were run again: the journal has no later changes of the table.
    pub(super) fn stage_again(&mut self, place: usize) {
        let again = self.queries[place].into.as_mut().map(|into| std::mem::take(&mut into.again));
        again.into_iter().flatten().for_each(|(_, delta)| self.stage_in(place, delta));
    }

    pub(super) fn stage_all_again(&mut self) {
        (0..self.queries.len()).for_each(|place| self.stage_again(place));
    }

    /// Takes the changes of a query into its table, within an epoch: who reads the table comes later in it.
    pub(super) fn bring_in(&mut self, place: usize, cut: &Cut, delta: Delta, deltas: &mut Deltas) {
        if let Some(into) = &mut self.queries[place].into
            && into.marked_in(cut).is_some()
        {
            return into.again.push((cut.epoch, delta));
        }
        // What it changed before was staged by the time that it was stepped in the loop again.
        self.stage_again(place);
        // Between two epochs: what waits comes first.
        if self.queries[place].into.as_ref().is_some_and(|into| into.waits) {
            return self.stage_in(place, delta);
        }
        let Some(table) = self.table_of(place) else { return };
        let taken = self.tables.get_mut(&table).map(|table| table.bring_now(delta));
        if let Some(change) = self.brought(place, &table, taken) {
            self.watch_brought(&table, &change);
            deltas.entry(table).or_default().append(change);
        }
    }

    /// Takes changes of a query that isn't at the present yet: the next epoch has them, as if a statement had made
    /// them.
    pub(super) fn stage_in(&mut self, place: usize, delta: Delta) {
        let Some(table) = self.table_of(place) else { return };
        let taken = self.tables.get_mut(&table).map(|table| table.stage_brought(delta));
        let changed = self.brought(place, &table, taken).is_some_and(|change| !change.is_empty());
        if let Some(into) = &mut self.queries[place].into {
            into.waits |= changed;
        }
    }

    fn table_of(&self, place: usize) -> Option<Arc<str>> {
        self.queries[place].into.as_ref().map(|into| into.table.clone())
    }

    /// Counts what was taken; a query whose rows the table can't take is suspended.
    fn brought(&mut self, place: usize, table: &str, taken: Option<Result<Delta>>) -> Option<Delta> {
        let epoch = self.epoch;
        let query = &mut self.queries[place];
        match taken? {
            Ok(change) => {
                if let Some(into) = &mut query.into {
                    into.rows += change.num_rows() as u64;
                }
                Some(change)
            }
            Err(error) => {
                let message = format!("table \"{table}\" can't take its rows: {}", error.message);
                query.suspend(Error { message, ..error }, epoch);
                None
            }
        }
    }

    /// Puts the newest query, which feeds a table or is a relation itself, before all that read that, directly or through
    /// others.
    pub(super) fn put_newest_before_readers(&mut self, relation: &Arc<str>) {
        let Some(newest) = self.queries.pop() else { return };
        let mut below = BTreeSet::from([relation.clone(), late_rows_name(relation).into()]);
        if newest.late().is_some() {
            let of_all = self.below(ALL_LATE_ROWS);
            // What depends on all late rows isn't among those whose late rows it reads.
            if !newest.reads().any(|name| of_all.contains(name)) {
                below.insert(ALL_LATE_ROWS.into());
            }
        }
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for query in self.queries.drain(..) {
            if query.reads().any(|name| below.contains(name)) {
                below.insert(query.name.clone());
                below.extend(query.into.as_ref().map(|into| into.table.clone()));
                after.push(query);
            } else {
                before.push(query);
            }
        }
        before.push(newest);
        before.extend(after);
        self.queries = before;
    }
}
