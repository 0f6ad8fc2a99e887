//! Sinks into tables: queries whose changes are an input of a table in the same epoch.
//!
//! The changes of a lagging sink are staged in its table like those of a statement, and in pieces if they are large
//! (`apply/brought.rs`). The journal has them as changes of the table. The cut of each epoch records, for each such sink,
//! through which of its epochs the table has its changes. A start steps the sink in every epoch, and omits the changes that
//! the journal has as the table's.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_delta::{Cut, Delta, Epoch, Span};
use millstream_sql::{Error, Result};

use super::dead_letters;
use super::deltas::Deltas;
use super::lagging::Lag;
use crate::catalog::{ALL_LATE_ROWS, late_rows_name};
use crate::run::queries::Queries;
use crate::run::query::RunningQuery;
use crate::run::{QuerySteps, TableIntake};

/// The destination of a query's changes.
#[derive(Clone, Debug)]
pub(crate) struct IntoTable {
    pub(crate) sink: Arc<str>,
    pub(crate) table: Arc<str>,
    /// The number of rows that it has changed.
    pub(crate) rows: u64,
    /// True if the table has a key, so that its rows depend on the order of changes.
    pub(crate) keyed: bool,
    /// The epoch through which the sink's changes are staged, while it lags, or if it lagged when it was suspended.
    pub(crate) staged: Option<Epoch>,
    /// While later changes are being applied in pieces: the epoch through which the sink's changes are staged.
    pub(super) coming: Option<Epoch>,
    /// The epoch through which the table had the sink's changes in the newest epoch.
    brought: Epoch,
    /// True if some staged changes wait for the next epoch.
    pub(super) waits: bool,
    /// By epoch, during a replay: changes that the journal may have as the table's.
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
            coming: None,
            brought: Epoch::default(),
            waits: false,
            again: Vec::new(),
        }
    }

    /// True if, in the newest epoch, the table had all changes up to an epoch. `behind` is given if the sink lags.
    pub(super) fn has_brought(&self, epoch: Epoch, lag: Option<&Lag>) -> bool {
        match self.coming.or(lag.map(Lag::through)) {
            Some(through) => through >= epoch && (!self.waits || self.brought >= epoch),
            None => !self.waits,
        }
    }

    /// True if its changes are being applied to its table in pieces.
    pub(super) fn is_bringing(&self) -> bool {
        self.coming.is_some()
    }

    /// Returns the epoch through which the table has the sink's changes under this cut, if the sink lagged then.
    fn marked_in(&self, cut: &Cut) -> Option<Epoch> {
        let (_, spans) = cut.positions.iter().find(|(name, _)| *name == self.sink)?;
        spans.first().map(|span| Epoch(span.to))
    }
}

impl TableIntake<'_> {
    /// Takes changes of a lagging sink. In a replayed epoch they wait for a later one that contains them.
    pub(super) fn take_lagging(&mut self, place: usize, cut: &Cut, delta: Delta) {
        let recovering = self.durability.is_recovering();
        if !recovering {
            let query = &mut self.queries[place];
            if let Some(into) = query.into.as_ref().filter(|_| self.setup.settings.may_lag())
                && self.tables.takes_in_pieces(into, &delta)
            {
                let before = into.staged.unwrap_or(cut.epoch.previous());
                return self.tables.begin_bringing(query, (before, cut.epoch), delta, self.tasks);
            }
            self.stage_in(place, delta);
        } else if let Some(into) = &mut self.queries[place].into {
            into.again.push((cut.epoch, delta));
        }
        let query = &mut self.queries[place];
        // The table has no changes of the step that suspended the sink.
        let is_suspended = query.status.is_suspended();
        if let Some(into) = query.into.as_mut().filter(|_| !is_suspended) {
            into.staged = Some(cut.epoch);
        }
    }

    /// Stages the changes kept of replayed epochs: the journal has no later changes of the table. None follow those that
    /// the table refuses.
    pub(super) fn stage_again(&mut self, place: usize) {
        let again = self.queries[place].into.as_mut().map(|into| std::mem::take(&mut into.again));
        for (_, delta) in again.into_iter().flatten() {
            if !self.stage_in(place, delta) {
                break;
            }
        }
    }

    pub(super) fn stage_all_again(&mut self) {
        (0..self.queries.len()).for_each(|place| self.stage_again(place));
    }

    /// Applies the changes of a query to its table within an epoch. Readers of the table are stepped later in it.
    pub(super) fn bring_in(&mut self, place: usize, cut: &Cut, delta: Delta, deltas: &mut Deltas) {
        if let Some(into) = &mut self.queries[place].into
            && into.marked_in(cut).is_some()
        {
            return into.again.push((cut.epoch, delta));
        }
        // Its earlier changes were staged before it was stepped on the loop again.
        let stages = self.queries.stage_sinks;
        if !self.durability.is_recovering() {
            self.stage_again(place);
        } else if let Some(into) = &mut self.queries[place].into
            && (stages || !into.again.is_empty())
        {
            return into.again.push((cut.epoch, delta));
        }
        // Changes that wait for the next epoch come first.
        if stages || self.queries[place].into.as_ref().is_some_and(|into| into.waits) {
            self.stage_in(place, delta);
            return;
        }
        let Some(table) = self.queries.table_of(place) else { return };
        self.finish_pieces(&table);
        let Some(of) = self.tables.get_mut(&table) else { return };
        let taken = of.bring_now(delta);
        if let Some(change) = brought(&mut self.queries[place], &table, self.clock.epoch, taken) {
            self.watermarks.note_brought(&self.setup.settings, self.clock, &table, &change);
            deltas.entry(table).or_default().append(change);
        }
    }

    /// Stages changes of a query that isn't current yet. The next epoch takes them in, like those of a statement. Returns
    /// false if the table refuses them.
    fn stage_in(&mut self, place: usize, delta: Delta) -> bool {
        let Some(table) = self.queries.table_of(place) else { return false };
        self.finish_pieces(&table);
        let Some(of) = self.tables.get_mut(&table) else { return false };
        let taken = of.stage_brought(delta);
        let taken = brought(&mut self.queries[place], &table, self.clock.epoch, taken);
        if let Some(into) = &mut self.queries[place].into {
            into.waits |= taken.as_ref().is_some_and(|change| !change.is_empty());
        }
        taken.is_some()
    }
}

impl QuerySteps<'_> {
    /// Stages the first content of a new sink, whose table has none of its changes. In a replay it waits for a later
    /// epoch that contains it.
    pub(super) fn stage_first(&mut self, place: usize, before: Epoch, content: Delta) {
        let recovering = self.durability.is_recovering();
        let Some(into) = &mut self.queries[place].into else { return };
        if recovering {
            if !content.is_empty() {
                into.again.push((before.next(), content));
            }
        } else if self.tables.takes_in_pieces(into, &content)
            && let Some(leaving) = self.flow_control().leaving_with(place)
        {
            leaving.into_iter().for_each(|place| self.queries.leave(place, self.clock.epoch));
            let (query, epochs) = (&mut self.queries[place], (before, self.clock.epoch));
            self.tables.begin_bringing(query, epochs, content, self.tasks);
        } else {
            self.intake().stage_in(place, content);
        }
    }
}

/// Counts the changed rows, or suspends a query whose rows the table can't take.
pub(super) fn brought(
    query: &mut RunningQuery,
    table: &str,
    epoch: Epoch,
    taken: Result<Delta>,
) -> Option<Delta> {
    match taken {
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

impl Queries {
    /// Records in the cut of an epoch, which has taken in all staged changes, through which epochs the tables have the
    /// changes of lagging sinks.
    pub(super) fn mark_lagging_sinks(&mut self, cut: &mut Cut) {
        for query in &mut self.all {
            let through = query.status.lag().map(Lag::through);
            let is_suspended = query.status.is_suspended();
            let Some(into) = &mut query.into else { continue };
            into.staged = into.coming.or(through).or(into.staged.filter(|_| is_suspended));
            into.waits = false;
            if let Some(through) = into.staged {
                into.brought = through;
                let span = Span { split: "".into(), from: 0, to: through.0, done: false };
                cut.positions.push((into.sink.clone(), vec![span]));
            }
        }
    }

    /// True if a relation with positions in a cut is a sink into a table.
    pub(super) fn is_sink_into_table(&self, name: &str) -> bool {
        self.all.iter().filter_map(|query| query.into.as_ref()).any(|into| into.sink.as_ref() == name)
    }

    /// Drops the changes that the journal has as the tables', in a replayed epoch or in those before it.
    pub(super) fn forget_brought(&mut self, cut: &Cut) {
        for into in self.all.iter_mut().filter_map(|query| query.into.as_mut()) {
            let before = cut.epoch.previous();
            let through = into.marked_in(cut).unwrap_or(before);
            into.again.retain(|(epoch, _)| *epoch > through);
            into.waits = false;
        }
    }

    pub(super) fn table_of(&self, place: usize) -> Option<Arc<str>> {
        self.all[place].into.as_ref().map(|into| into.table.clone())
    }
}

/// Orders the newest query, which feeds a table or is a relation itself, before all that read this relation,
/// directly or through others.
pub(super) fn put_newest_before_readers(queries: &mut Queries, relation: &Arc<str>) {
    let Some(newest) = queries.pop() else { return };
    let mut below = BTreeSet::from([relation.clone(), late_rows_name(relation).into()]);
    if newest.result.late.as_ref().is_some() {
        let of_all = dead_letters::below(queries, ALL_LATE_ROWS);
        // A query that depends on all late rows doesn't contribute to them.
        if !newest.reads().any(|name| of_all.contains(name)) {
            below.insert(ALL_LATE_ROWS.into());
        }
    }
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for query in queries.drain(..) {
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
    queries.all = before;
}
