//! Late rows that a statement puts into their windows.
//!
//! The operators drop a window's state when it closes, so they can't change its result. The statement computes the
//! result twice outside the loop, over the whole inputs: without any late row, and with the rows that it puts in. The
//! difference is the correction of the view. An epoch takes it in like the changes of a table: the journal contains it,
//! so a replay need not read anything again.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use millstream_delta::{Chunk, Cut, Delta};
use millstream_flow::Flow;
use millstream_sql::{Error, Result};

use super::compile::Scope;
use super::deltas::Deltas;
use super::durable::Durability;
use super::feed::Feed;
use super::late_rows::LateRows;
use super::query::{Lowered, RunningQuery};
use super::table::Waiting;
use crate::catalog::{Definition, late_rows_of};
use crate::event::{PinnedLate, Reply};
use crate::run::Pins;
use crate::run::queries::Queries;
use crate::settings::{ClockKind, Settings};
use crate::{Record, error};

/// The changes that putting late rows into their windows makes.
#[derive(Debug)]
pub(crate) struct Correction {
    /// The view that they were late for.
    pub(crate) view: Arc<str>,
    /// The late rows, with the columns of `late_rows`.
    pub(crate) late: Vec<RecordBatch>,
    /// The changes of the view.
    pub(crate) rows: Delta,
    /// How often late rows had been put into the view's windows when the correction was computed.
    pub(crate) times_put: u64,
}

/// A correction that waits for its epoch, and the statements that wait for it.
#[derive(Debug)]
pub(crate) struct StagedCorrection {
    correction: Correction,
    replies: Waiting,
}

impl Pins<'_> {
    /// Returns the inputs for recomputing a view's windows, between two epochs. Fails if that is impossible.
    pub(super) fn pin_late(&mut self, name: &Arc<str>, wanted: &[RecordBatch]) -> Result<PinnedLate> {
        let cant = format!("late rows can't be put into \"{name}\"");
        let definition = &self.setup.catalog.get(name)?.definition;
        let Definition::MaterializedView { plan, .. } = definition else {
            return Err(Error::invalid(format!(
                "{cant}: it is a {}, which emits its rows and can't retract them",
                definition.kind()
            ))
            .hint("Put them into a materialized view of the same query."));
        };
        let query =
            self.queries.query(name).ok_or_else(|| Error::bug("a view in the catalog has a query"))?;
        let (flow, late) = correctable(query)
            .map_err(|reason| Error { message: format!("{cant}: {}", reason.message), ..reason })?;
        let parted = late.parted(wanted)?;
        let windows = wanted.iter().filter_map(|rows| rows.column_by_name("_window"));
        if windows.into_iter().any(|windows| windows.null_count() > 0) {
            return Err(Error::invalid(format!("{cant}: some have no time, and so are in no window"))
                .hint("Leave them out: WHERE _window IS NOT NULL."));
        }
        let scope = Scope { limits: flow.limits(), ..Scope::new(self.setup, self.queries) };
        let Lowered { flow: anew, feeds, .. } = scope.lower(plan)?;
        if titles(&anew) != titles(flow) || anew.late_schema() != flow.late_schema() {
            return Err(Error::invalid(format!(
                "{cant}: its operators would be different now, since one of its inputs was altered after it was created"
            ))
            .hint("Drop the view and create it again: it then includes these rows, if its inputs still have them."));
        }
        let cut = self.clock.standing_cut(&self.setup.settings, self.watermarks.current());
        let shown = shown_window(query, &cut)?.ok_or_else(|| {
            Error::invalid(format!("{cant}: it shows no column of its windows"))
                .hint("Select window_start or window_end beside the answers.")
        })?;
        let (appends, times_put) = (query.append_only(), late.times_put());
        let input = |feed: &Feed| self.pin_input(&feed.of, feed.stamped.as_ref(), &cant);
        let inputs = feeds.iter().map(input).collect::<Result<_>>()?;
        let rows = self.departures().input_beside(name, None)?;
        Ok(PinnedLate { flow: anew, cut, inputs, rows, parted, shown, appends, times_put })
    }
}

impl Queries {
    /// Adds the staged corrections to the changes of an epoch.
    pub(super) fn take_corrections(&mut self, changes: &mut Vec<(Arc<str>, Delta)>, replies: &mut Waiting) {
        for staged in self.all.iter_mut().filter_map(|query| query.correction.take()) {
            let Correction { view, late, rows, .. } = staged.correction;
            let mut gone = Delta::default();
            late.into_iter().for_each(|rows| gone.push(Chunk::delete(rows)));
            changes.push((format!("late_rows('{view}')").into(), gone));
            changes.push((view, rows));
            replies.extend(staged.replies);
        }
    }

    /// Applies the corrections of an epoch to the results of views and to their late rows.
    pub(super) fn apply_corrections(&mut self, record: &Record, deltas: &mut Deltas) {
        for (late, gone) in &record.changes {
            let Some(view) = late_rows_of(late) else { continue };
            let Some(query) = self.all.iter_mut().find(|query| query.name.as_ref() == view) else {
                continue;
            };
            let of_view = record.changes.iter().find(|(name, _)| *name == query.name);
            let rows = of_view.map(|(_, rows)| rows.clone()).unwrap_or_default();
            match query.correct(&record.cut, &rows, gone) {
                Ok(()) => deltas.entry(query.name.clone()).or_default().append(rows),
                Err(reason) => query.suspend(reason, record.cut.epoch),
            }
        }
    }

    /// Returns true if a record may change this relation although it is no table: late rows, or their view.
    pub(super) fn is_corrected(&self, name: &str) -> bool {
        self.query(late_rows_of(name).unwrap_or(name))
            .is_some_and(|query| query.result.late.as_ref().is_some())
    }
}

impl RunningQuery {
    /// Changes the result, and removes the late rows that the change put into their windows.
    fn correct(&mut self, cut: &Cut, rows: &Delta, gone: &Delta) -> Result<()> {
        self.result.move_beside(&mut self.flow)?;
        self.keep(cut, (rows, false), &Delta::default(), &[])?;
        let gone: Vec<RecordBatch> = gone.chunks.iter().map(|chunk| chunk.rows.clone()).collect();
        self.result.late.as_mut().map_or(Ok(()), |late| late.put(&gone))
    }
}

/// Stages a correction for the next epoch.
pub(super) fn correct(
    queries: &mut Queries,
    durability: &Durability,
    settings: &Settings,
    correction: Correction,
    reply: Reply<u64>,
) {
    if let Err(error) = durability.check_journal() {
        return reply.send(Err(error));
    }
    let count = correction.late.iter().map(|rows| rows.num_rows() as u64).sum();
    let manual = settings.clock == ClockKind::Manual;
    let meanwhile = || {
        Error::external(format!(
            "late rows were put into \"{}\" or dropped meanwhile: try again",
            correction.view
        ))
    };
    let query = queries.iter_mut().find(|query| query.name == correction.view);
    let Some(query) = query.filter(|query| query.status.is_running() && query.correction.is_none()) else {
        return reply.send(Err(meanwhile()));
    };
    let still = query.result.late.as_ref().is_some_and(|late| {
        late.times_put() == correction.times_put && late.parted(&correction.late).is_ok()
    });
    if !still {
        return reply.send(Err(meanwhile()));
    }
    let mut replies = Waiting::new();
    match manual {
        true => reply.send(Ok(count)),
        false => replies.push((reply, count)),
    }
    query.correction = Some(StagedCorrection { correction, replies });
}

/// Returns the operators and late rows of a query whose closed windows can be recomputed.
fn correctable(query: &RunningQuery) -> Result<(&Flow, &LateRows)> {
    if let Some(first) = query.result.errors.first() {
        return Err(
            Error::invalid(format!("it has errors: {}", first.text())).hint("Delete or fix the rows first.")
        );
    }
    if query.correction.is_some() {
        return Err(Error::invalid("other late rows wait to be put in").hint("ADVANCE BATCH applies them."));
    }
    let (true, Some(flow), Some(late)) =
        (query.status.is_running(), query.flow.here(), query.result.late.as_ref())
    else {
        return Err(Error::invalid("it isn't running").hint("SHOW MATERIALIZED VIEWS says why."));
    };
    if let Some(beside) = flow.keeps_beside_windows() {
        return Err(Error::invalid(format!(
            "its result for a closed window depends on more than the rows in it, because of its operator {beside}"
        ))
        .hint("Create a view of the windows alone, and put the rows into that."));
    }
    if late.given_up() > 0 {
        return Err(Error::invalid(format!(
            "{} of its late rows are no longer kept, so the content of its windows is unknown",
            late.given_up()
        )));
    }
    Ok((flow, late))
}

/// Returns the column of a result that tells windows apart, and the value below which they are closed, in its unit.
pub(super) fn shown_window(query: &RunningQuery, cut: &Cut) -> Result<Option<(usize, Option<i64>)>> {
    match query.flow.times().iter().max_by_key(|(_, time)| time.edge) {
        Some((column, time)) => Ok(Some((*column, time.at(cut).map_err(error::flow)?))),
        None => Ok(None),
    }
}

/// Returns the titles of a flow's operators.
fn titles(flow: &Flow) -> Vec<String> {
    flow.operators().into_iter().map(|operator| operator.title).collect()
}
