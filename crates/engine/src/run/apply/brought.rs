//! Large changes that sinks bring into tables.
//!
//! The step of a lagging sink ends when its table has all changes of the step. Until then the sink is not stepped again,
//! stays a lagging query, and the cuts of epochs record the epoch before the step. A thread makes the changes fit the
//! table; then the loop applies them in pieces. Statements that have waited for the table come before, and later ones
//! after them, so neither waits for ever.
//!
//! Deliberately absent: pieces under a manual clock, while the engine keeps history, and at a start. Nothing may lag
//! then, and the loop applies all at once.

use std::sync::Arc;
use std::time::Instant;

use millstream_delta::{Delta, Epoch};
use millstream_sql::Result;

use super::{Applying, Owner, ROWS_MAX, Stage};
use crate::run::Loop;
use crate::run::query::RunningQuery;
use crate::run::table::Table;
use crate::run::tables::BaseTables;
use crate::settings::ClockKind;

/// The changes of a sink that are being brought into its table.
pub(super) struct Bringing {
    /// The query of the sink.
    query: Arc<str>,
    /// The epoch through which the table then has the changes of the sink.
    through: Epoch,
}

/// The turn of a sink's changes among all that change the table.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Turn {
    /// As soon as the table is free.
    Free,
    /// After the statements that have waited for the table.
    AfterStatements,
    /// Before all statements.
    Next,
}

impl Loop {
    /// True if changes of a sink are applied in pieces.
    pub(in crate::run) fn comes_in_pieces(&self, place: usize, delta: &Delta) -> bool {
        let into = self.queries[place].into.as_ref();
        let Some(table) = into.and_then(|into| self.tables.get(&into.table)) else { return false };
        let may = self.settings.clock == ClockKind::System
            && !self.durability.is_recovering()
            && !self.settings.keeps_history();
        let is_large = || {
            delta.num_rows() > ROWS_MAX.get()
                || (table.num_unindexed() > ROWS_MAX.get() && !delta.is_append_only())
        };
        may && !delta.is_empty() && (table.is_applying() || is_large())
    }

    /// Begins to bring changes of a lagging sink into its table, which has its changes up to the epoch `before`.
    pub(in crate::run) fn begin_bringing(
        &mut self,
        place: usize,
        before: Epoch,
        through: Epoch,
        delta: Delta,
    ) {
        let query = &mut self.queries[place];
        let Some(into) = &mut query.into else { return };
        let Some(table) = self.tables.get(&into.table) else { return };
        let to_bring = table.to_bring(delta);
        match self.tasks.on_a_thread(move || to_bring.into_change()) {
            Ok(change) => {
                into.coming = Some(before);
                let tables = vec![into.table.clone()];
                let owner = Owner::Sink(Bringing { query: query.name.clone(), through });
                let stage = Stage::Fitting(change);
                self.tables.applied.all.push(Applying { tables, owner, is_fed: true, stage });
            }
            Err(reason) => query.suspend(reason, through),
        }
    }

    /// Begins to apply the changes of sinks whose turn it is.
    pub(super) fn begin_brought(&mut self) {
        let statements_wait = self.tables.reserved.looks().is_some();
        for applying in &mut self.tables.applied.all {
            let Stage::Ready(_, turn) = &mut applying.stage else { continue };
            match turn {
                Turn::Free if statements_wait => *turn = Turn::AfterStatements,
                Turn::AfterStatements => *turn = Turn::Next,
                Turn::Free | Turn::Next => {}
            }
        }
        while let Some(place) = self.tables.next_ready() {
            let applying = self.tables.applied.all.remove(place);
            self.begin_ready(applying);
        }
    }

    fn begin_ready(&mut self, applying: Applying) {
        let Applying { tables, owner, is_fed, stage: Stage::Ready(change, _) } = applying else { return };
        let begin = |table: &Arc<str>| self.tables.table(table)?.begin(change);
        let stage = match tables.first().map_or(Ok(()), begin) {
            Ok(()) => Stage::Pieces,
            Err(error) => Stage::Ended(Err(error)),
        };
        self.tables.applied.all.push(Applying { tables, owner, is_fed, stage });
    }

    /// Publishes the changes of a sink for the next epoch, or suspends the sink if its table can't take them.
    pub(super) fn end_bringing(&mut self, bringing: Bringing, done: Result<(Vec<Delta>, u64)>) {
        let Bringing { query, through } = bringing;
        let Some(place) = self.queries.iter().position(|found| found.name == query) else { return };
        let Some(table) = self.queries.table_of(place) else { return };
        let taken = done.map(|(deltas, _)| deltas.into_iter().next().unwrap_or_default());
        if let (Ok(delta), Some(of)) = (&taken, self.tables.get_mut(&table)) {
            of.publish(delta.clone());
            self.measures.rows_wait_since(Instant::now());
        }
        let taken = self.brought(place, &table, Some(taken));
        let Some(into) = &mut self.queries[place].into else { return };
        into.coming = None;
        if let Some(change) = taken {
            into.staged = Some(through);
            into.waits |= !change.is_empty();
        }
    }

    /// True if a query feeds a table that is being changed in pieces, so that it must lag.
    pub(in crate::run) fn waits_for_its_table(&self, query: &RunningQuery) -> bool {
        let Some(into) = &query.into else { return false };
        into.coming.is_some() || self.tables.get(&into.table).is_some_and(Table::is_applying)
    }

    /// Makes sinks leave before an epoch if their tables are being changed in pieces. If a sink can't leave, the change of
    /// its table is finished instead.
    pub(in crate::run) fn let_sinks_leave_pieces(&mut self) {
        if self.tables.applied.is_empty() {
            return;
        }
        for place in 0..self.queries.len() {
            let query = &self.queries[place];
            if !query.is_running() || !self.waits_for_its_table(query) {
                continue;
            }
            let wanted = self.wanted_at_present();
            let leaving = self.leaving_with(place);
            let stays = |place: &usize| wanted.contains(&self.queries[*place].name);
            match leaving.filter(|leaving| !leaving.iter().any(stays)) {
                Some(leaving) => leaving.into_iter().for_each(|place| self.leave(place, self.epoch)),
                None => {
                    let table = self.queries.table_of(place);
                    table.into_iter().for_each(|table| self.finish_pieces(&table));
                }
            }
        }
    }
}

impl BaseTables {
    /// True if the changes of a sink can begin to be applied.
    pub(super) fn is_ready(&self, applying: &Applying) -> bool {
        let is_next = matches!(applying.stage, Stage::Ready(_, Turn::Free | Turn::Next));
        let is_free = |table: &Arc<str>| !self.get(table).is_some_and(Table::is_applying);
        is_next && applying.tables.iter().all(is_free)
    }

    fn next_ready(&self) -> Option<usize> {
        self.applied.all.iter().position(|applying| self.is_ready(applying))
    }
}
