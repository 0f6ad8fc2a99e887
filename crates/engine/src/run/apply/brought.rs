//! Large changes that sinks bring into tables.
//!
//! The step of a lagging sink ends when its table has all changes of the step. Until then the sink is not stepped again,
//! stays a lagging query, and the cuts of epochs record the epoch before the step. A thread makes the changes fit the
//! table; then the loop applies them in pieces. Statements that have waited for the table come before, and later ones
//! after them, so neither waits for ever.
//!
//! Deliberately absent: pieces under a manual clock, and at a start. No sink may lag then, and the loop applies all at
//! once.

use std::sync::Arc;

use millstream_delta::{Delta, Epoch};
use millstream_sql::Result;

use super::{Applying, Owner, ROWS_MAX, Stage};
use crate::run::QuerySteps;
use crate::run::into_table::{IntoTable, brought};
use crate::run::queries::Queries;
use crate::run::query::RunningQuery;
use crate::run::table::{Table, ToBring};
use crate::run::tables::BaseTables;
use crate::run::tasks::Tasks;

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

impl Bringing {
    /// Publishes the changes for the next epoch, or suspends the sink if its table can't take them.
    pub(super) fn end(
        self,
        tables: &mut BaseTables,
        queries: &mut Queries,
        epoch: Epoch,
        done: Result<(Vec<Delta>, u64)>,
    ) {
        let Some(query) = queries.iter_mut().find(|query| query.name == self.query) else { return };
        let Some(table) = query.into.as_ref().map(|into| into.table.clone()) else { return };
        let taken = done.map(|(deltas, _)| deltas.into_iter().next().unwrap_or_default());
        if let (Ok(delta), Some(of)) = (&taken, tables.get_mut(&table)) {
            of.publish(delta.clone());
        }
        let taken = brought(query, &table, epoch, taken);
        let Some(into) = &mut query.into else { return };
        into.coming = None;
        if let Some(change) = taken {
            into.staged = Some(self.through);
            into.waits |= !change.is_empty();
        }
    }
}

impl BaseTables {
    /// True if changes of a sink are applied in pieces, where they may.
    pub(in crate::run) fn takes_in_pieces(&self, into: &IntoTable, delta: &Delta) -> bool {
        let Some(table) = self.get(&into.table) else { return false };
        let must_index = || !delta.is_append_only() && table.must_index();
        let is_large = || delta.num_rows() > ROWS_MAX.get() || must_index();
        !delta.is_empty() && (table.applying().is_some() || is_large())
    }

    /// Begins to bring changes of a lagging sink into its table, which has its changes up to the epoch `before`.
    pub(in crate::run) fn begin_bringing(
        &mut self,
        query: &mut RunningQuery,
        (before, through): (Epoch, Epoch),
        delta: Delta,
        tasks: &Tasks,
    ) {
        let Some(into) = &mut query.into else { return };
        let Some(table) = self.all.get(&into.table) else { return };
        let to_bring = ToBring::of(table, delta);
        match tasks.on_a_thread(move || to_bring.into_change()) {
            Ok(change) => {
                into.coming = Some(before);
                let tables = vec![into.table.clone()];
                let owner = Owner::Sink(Bringing { query: query.name.clone(), through });
                let stage = Stage::Fitting(change);
                self.applied.all.push(Applying { tables, owner, is_fed: true, stage });
            }
            Err(reason) => query.suspend(reason, through),
        }
    }

    /// Begins to apply the changes of sinks whose turn it is.
    pub(super) fn begin_brought(&mut self) {
        let statements_wait = self.reserved.looks().is_some();
        for applying in &mut self.applied.all {
            let Stage::Ready(_, turn) = &mut applying.stage else { continue };
            match turn {
                Turn::Free if statements_wait => *turn = Turn::AfterStatements,
                Turn::AfterStatements => *turn = Turn::Next,
                Turn::Free | Turn::Next => {}
            }
        }
        while let Some(place) = self.applied.all.iter().position(|applying| self.is_ready(applying)) {
            let Applying { tables, owner, is_fed, stage } = self.applied.all.remove(place);
            let Stage::Ready(change, _) = stage else { continue };
            let begin = |table: &Arc<str>| self.table(table)?.begin(change);
            let stage = match tables.first().map_or(Ok(()), begin) {
                Ok(()) => Stage::Pieces,
                Err(error) => Stage::Ended(Err(error)),
            };
            self.applied.all.push(Applying { tables, owner, is_fed, stage });
        }
    }

    /// True if the changes of a sink can begin to be applied.
    pub(super) fn is_ready(&self, applying: &Applying) -> bool {
        let is_next = matches!(applying.stage, Stage::Ready(_, Turn::Free | Turn::Next));
        let is_free = |table: &Arc<str>| self.get(table).is_none_or(|table| table.applying().is_none());
        is_next && applying.tables.iter().all(is_free)
    }

    /// True if a query feeds a table that is being changed in pieces, or that a statement has read under a reservation, so
    /// that it must lag.
    pub(in crate::run) fn keep_lagging(&self, query: &RunningQuery) -> bool {
        let Some(into) = &query.into else { return false };
        let is_changed = || self.get(&into.table).is_some_and(|table| table.applying().is_some());
        into.coming.is_some() || is_changed() || self.reserved.excludes_sinks_into(&into.table)
    }

    /// True if the changes of a sink may delete rows of its table, which must index many rows first.
    pub(in crate::run) fn may_index_for(&self, query: &RunningQuery) -> bool {
        let table = query.into.as_ref().and_then(|into| self.get(&into.table));
        !query.append_only() && table.is_some_and(Table::must_index)
    }
}

impl QuerySteps<'_> {
    /// Makes sinks leave before an epoch if their tables are being changed in pieces, or are reserved. If a sink can't
    /// leave, the change of its table is finished instead.
    pub(in crate::run) fn let_sinks_leave_pieces(&mut self) {
        if self.tables.applied.is_empty() && !self.tables.reserved.excludes_any_sink() {
            return;
        }
        for place in 0..self.queries.len() {
            let query = &self.queries[place];
            if !query.status.is_running() || !self.tables.keep_lagging(query) {
                continue;
            }
            let wanted = self.flow_control().wanted_at_present();
            let leaving = self.flow_control().leaving_with(place);
            let stays = |place: &usize| wanted.contains(&self.queries[*place].name);
            match leaving.filter(|leaving| !leaving.iter().any(stays)) {
                Some(leaving) => {
                    leaving.into_iter().for_each(|place| self.queries.leave(place, self.clock.epoch))
                }
                None => {
                    let table = self.queries.table_of(place);
                    table.into_iter().for_each(|table| self.intake().finish_pieces(&table));
                }
            }
        }
    }
}
