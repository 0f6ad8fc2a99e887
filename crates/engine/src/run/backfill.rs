//! Backfill of new queries outside of the loop.
//!
//! A query with large inputs is pinned at one epoch. The loop hands out its operators and the rows of its inputs, and
//! keeps the logs of the inputs from then on. A worker of the query pool takes the rows in, then the changes since.
//! When few of these are left, the statement that creates the query hands it to the loop. Until then neither the
//! catalog nor the journal names the query, so a cancelled statement leaves nothing behind.
//!
//! Deliberately absent: queries whose answer depends on the time or the epochs of their input. The loop reads their
//! inputs when it creates them. During recovery it does so for every query, with the same result.

use std::sync::{Arc, Mutex, PoisonError};

use millstream_delta::{Cut, Delta, Epoch};
use millstream_flow::Cost;
use millstream_sql::{Error, Result, sqlstate};

use super::catch_up::{CatchUp, next_since};
use super::change::queries_of;
use super::compile::Scope;
use super::durable::Durability;
use super::lagging::together;
use super::log::{Logs, Place};
use super::queries::Queries;
use super::query::{RunningQuery, Status};
use super::sharing::Arranging;
use super::tables::BaseTables;
use super::transact::OpenTransaction;
use super::transactions::Transactions;
use crate::catalog::{Definition, Object};
use crate::content::Content;
use crate::run::contents::Bases;
use crate::run::{Pins, QueryStarts};
use crate::settings::{ClockKind, OnError};
use crate::transaction::Guard;

/// Most rows that the loop backfills itself: if an epoch costs as much as its rows, and if it may cost more.
pub(super) const LOOP_ROWS_MAX: usize = 8192;
pub(super) const LOOP_ROWS_DEAR_MAX: usize = 256;

/// Most rows that a backfill leaves to the loop at the end, and most rounds to get there.
pub(crate) const REST_ROWS_MAX: usize = 1024;
pub(crate) const ROUNDS_MAX: usize = 64;

/// Most epochs since the pin that are handed out at once.
pub(crate) const EPOCHS_MAX: usize = 256;

/// A query that is backfilled outside of the loop.
#[derive(Debug)]
pub(crate) struct Backfill {
    pub(crate) query: RunningQuery,
    pub(crate) pin: Pin,
    /// The content of each input at the pin; reading an input takes it out.
    pub(crate) inputs: Vec<Content>,
    /// The output so far, if the query does not keep its result itself.
    pub(crate) output: Delta,
}

/// The epoch at which a new query's inputs are read, and the places in their logs after it.
#[derive(Debug)]
pub(crate) struct Pin {
    pub(crate) cut: Cut,
    pub(crate) places: Vec<Place>,
    /// Releases the logs that are kept for the backfill.
    pub(crate) guard: Guard,
}

/// The part of a finished backfill that the loop needs.
#[derive(Debug)]
pub(crate) struct Backfilled {
    pin: Pin,
    output: Delta,
}

/// The way in which a query takes in the content of its inputs.
#[derive(Debug, Default)]
pub(crate) enum Beginning {
    /// From its inputs: at once if they are small.
    #[default]
    FromInputs,
    /// From its inputs, at once: it did so before a restart.
    AtOnce,
    /// From the state that a backfill outside of the loop has reached.
    Backfilled(Box<Backfilled>),
}

/// A backfill on its way to the loop. The loop takes it unless the catalog has changed.
pub(crate) type Handover = Arc<Mutex<Option<Box<Backfill>>>>;

/// The changes of a backfill's inputs since its last request, by epoch.
pub(crate) struct Since {
    pub(crate) epochs: Vec<(Cut, Vec<Delta>)>,
    pub(crate) places: Vec<Place>,
}

/// Takes a backfill out of its handover.
pub(super) fn taken(handover: &Handover) -> Option<Box<Backfill>> {
    handover.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Pins<'_> {
    /// Begins to backfill a new query. None if the loop should read the inputs itself.
    pub(super) fn backfill(&mut self, base: u64, object: &Object) -> Result<Option<Box<Backfill>>> {
        let plain = matches!(
            object.definition,
            Definition::MaterializedView { .. } | Definition::Sink { query: Some(_), .. }
        );
        let forced = self.setup.execution.options.apart.is_some();
        let steady = self.durability.is_recovering() || self.clock.held || self.waiters.replay.is_some();
        if !plain || steady || base != self.setup.catalog.version {
            return Ok(None);
        }
        if !forced && self.setup.settings.clock != ClockKind::System {
            return Ok(None);
        }
        let scope = Scope::new(self.setup, self.queries);
        let queries = match &object.definition {
            Definition::Sink { from, query: Some(query), .. } => {
                let nothing = |_| super::query::Keep::Nothing;
                scope.queries(from, query, &nothing, self.setup.settings.on_error)?
            }
            _ => queries_of(&self.setup.settings, object, &scope)?,
        };
        let Ok([query]) = <[RunningQuery; 1]>::try_from(queries) else { return Ok(None) };
        if !query.may_lag() || !query.reads().all(|name| can_be_pinned(self.queries, self.tables, name)) {
            return Ok(None);
        }
        let inputs = query
            .reads()
            .map(|name| self.departures().input_beside(name, None))
            .collect::<Result<Vec<_>>>()?;
        let rows: Option<usize> = inputs.iter().map(Content::num_rows).sum();
        let rows_max = if query.flow.cost() > Cost::Delta { LOOP_ROWS_DEAR_MAX } else { LOOP_ROWS_MAX };
        if rows.is_some_and(|rows| rows <= rows_max && !(forced && rows > 0)) {
            return Ok(None);
        }
        let pin = self.pin_logs(&query);
        Ok(Some(Box::new(Backfill { query, pin, inputs, output: Delta::default() })))
    }

    fn pin_logs(&mut self, query: &RunningQuery) -> Pin {
        self.outputs.transactions.last += 1;
        let number = self.outputs.transactions.last;
        let names: Vec<Arc<str>> = query.reads().cloned().collect();
        let places: Vec<Place> = names.iter().map(|name| self.outputs.logs.end(name)).collect();
        let kept = names.into_iter().zip(places.iter().copied()).collect();
        self.outputs.transactions.insert(number, OpenTransaction::keeping(kept, self.clock.epoch));
        let cut = Cut {
            watermarks: Vec::new(),
            ..self.clock.standing_cut(&self.setup.settings, self.watermarks.current())
        };
        Pin { cut, places, guard: Guard { number, events: self.tasks.events.clone() } }
    }
}

impl QueryStarts<'_> {
    /// Makes a backfilled query current.
    pub(super) fn finish_backfill(&mut self, place: usize, backfilled: Backfilled) {
        let Backfilled { pin: Pin { cut, places, guard }, mut output } = backfilled;
        let query = &mut self.queries[place];
        query.progress.start(cut.epoch);
        query.status = Status::CatchingUp(Box::new(CatchUp::standing(places)));
        if let Some((_, inputs)) =
            together(std::iter::from_fn(|| next_since(self.queries, self.outputs, place)))
        {
            let cut = self.clock.standing_cut(&self.setup.settings, self.watermarks.current());
            let query = &mut self.queries[place];
            query.result.set_unread(false);
            output.append(query.step(&cut, &inputs.iter().collect::<Vec<_>>()));
        }
        drop(guard);
        if !self.queries[place].status.is_suspended() {
            self.queries[place].status = Status::Running;
            self.queries.share_or_suspend(
                Bases::new(self.tables, self.sources),
                self.clock.epoch,
                place,
                Arranging::Anew,
            );
        }
        let (name, cut) = (
            self.queries[place].name.clone(),
            self.clock.standing_cut(&self.setup.settings, self.watermarks.current()),
        );
        // Readers received nothing of a kept result during the backfill.
        let content = match self.queries[place].result.shows_at_once() {
            true if self.outputs.have_reader_of(&name) => Delta::from_iter(
                Bases::new(self.tables, self.sources)
                    .contents(self.queries)
                    .answered(&name)
                    .unwrap_or_default(),
            ),
            true => Delta::default(),
            false => output,
        };
        self.begin_readers(&name, cut, content);
    }
}

impl Transactions {
    pub(super) fn check_pinned(&self, number: u64) -> Result<()> {
        if self.get(&number).is_some_and(OpenTransaction::is_kept) {
            return Ok(());
        }
        let error =
            "the inputs of the query changed more during its backfill than subscription_buffer_max allows";
        Err(Error::external(error)
            .hint("Try again when the inputs change less, or raise subscription_buffer_max.")
            .code(sqlstate::SNAPSHOT_TOO_OLD))
    }

    /// Returns the changes in the logs of a backfill's inputs from some places on.
    pub(super) fn backfill_since(
        &mut self,
        logs: &Logs,
        epoch: Epoch,
        number: u64,
        names: &[Arc<str>],
        mut places: Vec<Place>,
    ) -> Result<Since> {
        self.check_pinned(number)?;
        let mut epochs = Vec::new();
        while epochs.len() < EPOCHS_MAX
            && let Some(epoch) = logs.next_epoch(names, &mut places)
        {
            epochs.push(epoch);
        }
        let kept = names.iter().cloned().zip(places.iter().copied()).collect();
        self.insert(number, OpenTransaction::keeping(kept, epoch));
        Ok(Since { epochs, places })
    }
}

impl Durability {
    /// Returns a new query. In recovery it begins as the journal records.
    pub(super) fn as_it_began(&self, mut query: RunningQuery) -> RunningQuery {
        if self.is_recovering() && self.begins_at_once {
            query.status.begin_by(Beginning::AtOnce);
        }
        query
    }
}

impl Backfilled {
    /// Returns the places in the logs of its inputs after the pin.
    pub(super) fn places(&self) -> &[Place] {
        &self.pin.places
    }
}

impl Backfill {
    /// Returns the query, with the places at which it continues.
    pub(super) fn into_query(self, on_error: OnError) -> RunningQuery {
        let Backfill { mut query, pin, output, .. } = self;
        query.result.set_on_error(on_error);
        query.status.begin_by(Beginning::Backfilled(Box::new(Backfilled { pin, output })));
        query
    }

    /// Steps the query over rows of its inputs, unless it is suspended.
    pub(crate) fn step(&mut self, inputs: &[&Delta]) {
        if self.query.status.is_suspended() {
            return;
        }
        let shown = self.query.result.shows_at_once();
        self.query.result.set_unread(shown);
        let delta = self.query.step(&self.pin.cut, inputs);
        if !shown {
            self.output.append(delta);
        }
    }

    /// True if an epoch of few rows costs as much as an epoch of many.
    pub(crate) fn costs_the_whole(&self) -> bool {
        self.query.flow.cost() >= Cost::Few
    }

    /// Returns its approximate size in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.query.state_bytes() + self.output.memory_bytes()
    }

    /// Returns the relations that it reads, by input.
    pub(crate) fn reads(&self) -> Vec<Arc<str>> {
        self.query.reads().cloned().collect()
    }
}

/// True if the full content of a relation is available and current.
fn can_be_pinned(queries: &Queries, tables: &BaseTables, name: &Arc<str>) -> bool {
    match queries.query(name) {
        Some(query) => query.status.is_running() && query.result.shows_at_once(),
        None => tables.contains_key(name),
    }
}
