//! New queries that take in what their inputs hold outside of the loop.
//!
//! A query over much is pinned at one epoch: the loop hands out its operators and the rows that its inputs hold, and
//! keeps the logs of these from then on. A worker of the query pool takes the rows in, then what has come since, and
//! the statement that makes the query comes with it when that is little. Until then nothing of it is in the catalog or
//! in the journal, so a statement that is given up leaves nothing behind.
//!
//! Deliberately absent: queries whose answer depends on when, or in which epochs, their input comes. The loop takes in
//! their inputs when it makes them. So it does while it reads its journal, with the same result.

use std::sync::{Arc, Mutex, PoisonError};

use millstream_delta::{Cut, Delta};
use millstream_flow::Cost;
use millstream_sql::{Error, Result, sqlstate};

use super::Loop;
use super::behind::together;
use super::catch_up::CatchUp;
use super::log::{self, Place};
use super::query::{RunningQuery, Status};
use super::transact::OpenTransaction;
use crate::catalog::{Definition, Object};
use crate::event::Content;
use crate::settings::{ClockKind, OnError};
use crate::transaction::Guard;

/// Rows that the loop takes in itself: where an epoch costs as much as its rows, and where it may cost more.
pub(super) const LOOP_ROWS_MAX: usize = 8192;
pub(super) const LOOP_ROWS_DEAR_MAX: usize = 256;

/// Rows that the loop is left to take in at the end, and how often there may be more.
pub(crate) const REST_ROWS_MAX: usize = 1024;
pub(crate) const ROUNDS_MAX: usize = 64;

/// Epochs that are handed out at once of those that came since the pin.
pub(crate) const EPOCHS_MAX: usize = 256;

/// A query that takes in what its inputs hold outside of the loop.
#[derive(Debug)]
pub(crate) struct Backfill {
    pub(crate) query: RunningQuery,
    pub(crate) pin: Pin,
    /// By input, what it held at the pin; taken out when it is read.
    pub(crate) inputs: Vec<Content>,
    /// What the result has become, where somebody wants that beside what the query keeps.
    pub(crate) output: Delta,
}

/// The epoch at which a new query's inputs are read, and where their logs go on after it.
#[derive(Debug)]
pub(crate) struct Pin {
    pub(crate) cut: Cut,
    pub(crate) places: Vec<Place>,
    /// Lets the logs go that are kept for it.
    pub(crate) guard: Guard,
}

/// What the loop needs to go on with a query that was backfilled.
#[derive(Debug)]
pub(crate) struct Backfilled {
    pin: Pin,
    output: Delta,
}

/// How a query begins.
#[derive(Debug, Default)]
pub(super) enum Beginning {
    /// With what its inputs hold: at once where that is little.
    #[default]
    FromInputs,
    /// With that, at once: it did so before a start.
    AtOnce,
    /// Where it has come to outside of the loop.
    Backfilled(Box<Backfilled>),
}

/// A backfill on its way to the loop, which takes it unless the catalog is another one by now.
pub(crate) type Handover = Arc<Mutex<Option<Box<Backfill>>>>;

/// What came in the logs of a backfill's inputs since it last asked, by epoch.
pub(crate) struct Since {
    pub(crate) epochs: Vec<(Cut, Vec<Delta>)>,
    pub(crate) places: Vec<Place>,
}

/// Takes a backfill over.
pub(super) fn taken(handover: &Handover) -> Option<Box<Backfill>> {
    handover.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Loop {
    /// A new query, which begins as it did where the journal has it.
    pub(super) fn as_it_began(&self, mut query: RunningQuery) -> RunningQuery {
        if self.durability.is_recovering() && self.durability.begins_at_once {
            query.beginning = Beginning::AtOnce;
        }
        query
    }

    /// Begins to backfill a new query, where that is better done outside of the loop.
    pub(super) fn backfill(&mut self, base: u64, object: &Object) -> Result<Option<Box<Backfill>>> {
        let plain = matches!(
            object.definition,
            Definition::MaterializedView { .. } | Definition::Sink { query: Some(_), .. }
        );
        let forced = self.apart.is_some();
        let steady = self.durability.is_recovering() || self.held || self.waiters.replay.is_some();
        if !plain || steady || base != self.catalog.version {
            return Ok(None);
        }
        if !forced && self.settings.clock != ClockKind::System {
            return Ok(None);
        }
        let scope = self.scope();
        let queries = match &object.definition {
            Definition::Sink { from, query: Some(query), .. } => {
                let nothing = |_| super::query::Keep::Nothing;
                scope.queries(from, query, &nothing, self.settings.on_error)?
            }
            _ => self.queries_of(object, &scope)?,
        };
        let Ok([query]) = <[RunningQuery; 1]>::try_from(queries) else { return Ok(None) };
        if !query.may_be_behind() || !query.reads().all(|name| self.can_be_pinned(name)) {
            return Ok(None);
        }
        let inputs = query.reads().map(|name| self.whole_content(name)).collect::<Result<Vec<_>>>()?;
        let rows: usize = inputs.iter().map(Content::num_rows).sum();
        let rows_max = if query.flow.cost() > Cost::Delta { LOOP_ROWS_DEAR_MAX } else { LOOP_ROWS_MAX };
        if rows <= rows_max && !(forced && rows > 0) {
            return Ok(None);
        }
        let pin = self.pin_logs(&query);
        Ok(Some(Box::new(Backfill { query, pin, inputs, output: Delta::default() })))
    }

    /// True if all that a relation holds is at hand, as of the present.
    fn can_be_pinned(&self, name: &Arc<str>) -> bool {
        match self.query(name) {
            Some(query) => query.is_running() && query.shows_at_once(),
            None => self.tables.contains_key(name),
        }
    }

    fn whole_content(&self, name: &Arc<str>) -> Result<Content> {
        match self.tables.get(name) {
            Some(table) => Ok(Content::Snapshot(table.published())),
            None => self.answered(name).map(Content::Batches),
        }
    }

    /// Keeps the logs of a query's inputs from now on.
    fn pin_logs(&mut self, query: &RunningQuery) -> Pin {
        self.transacted += 1;
        let number = self.transacted;
        let names: Vec<Arc<str>> = query.reads().cloned().collect();
        let places: Vec<Place> = names.iter().map(|name| log::end(&self.logs, name)).collect();
        let kept = names.into_iter().zip(places.iter().copied()).collect();
        self.transactions.insert(number, OpenTransaction::keeping(kept, self.epoch));
        let cut = Cut { watermarks: Vec::new(), ..self.standing_cut() };
        Pin { cut, places, guard: Guard { number, events: self.events.clone() } }
    }

    /// What has come in the logs of a backfill's inputs from some places on.
    pub(super) fn backfill_since(
        &mut self,
        number: u64,
        names: &[Arc<str>],
        mut places: Vec<Place>,
    ) -> Result<Since> {
        self.check_pinned(number)?;
        let mut epochs = Vec::new();
        while epochs.len() < EPOCHS_MAX
            && let Some(epoch) = log::next_epoch(&self.logs, names, &mut places)
        {
            epochs.push(epoch);
        }
        let kept = names.iter().cloned().zip(places.iter().copied()).collect();
        self.transactions.insert(number, OpenTransaction::keeping(kept, self.epoch));
        Ok(Since { epochs, places })
    }

    /// Fails if the logs that a backfill needs are no longer kept.
    pub(super) fn check_pinned(&self, number: u64) -> Result<()> {
        if self.transactions.get(&number).is_some_and(OpenTransaction::is_kept) {
            return Ok(());
        }
        let error = "more has changed in the relations that the query reads than is kept while it takes in what they hold";
        Err(Error::external(error)
            .hint("Try again when less changes, or raise subscription_buffer_max.")
            .code(sqlstate::SNAPSHOT_TOO_OLD))
    }

    /// Brings a query that was backfilled to the present.
    pub(super) fn finish_backfill(&mut self, place: usize, backfilled: Backfilled) {
        let Backfilled { pin: Pin { cut, places, guard }, mut output } = backfilled;
        let query = &mut self.queries[place];
        query.since = cut.epoch;
        query.status = Status::CatchingUp(Box::new(CatchUp::standing(places)));
        if let Some((_, inputs)) = together(std::iter::from_fn(|| self.next_since(place))) {
            let cut = self.standing_cut();
            let query = &mut self.queries[place];
            query.unread = false;
            output.append(query.step(&cut, &inputs.iter().collect::<Vec<_>>()));
        }
        drop(guard);
        if !self.queries[place].is_suspended() {
            self.queries[place].status = Status::Running;
            self.share_or_suspend(place);
        }
        let (name, cut) = (self.queries[place].name.clone(), self.standing_cut());
        // What is kept was put out to nobody while it was taken in.
        let content = match self.queries[place].shows_at_once() {
            true if self.is_awaited(&name) => Delta::from_iter(self.answered(&name).unwrap_or_default()),
            true => Delta::default(),
            false => output,
        };
        self.begin_readers(&name, cut, content);
    }

    /// True if something that was made meanwhile begins with what a query holds.
    fn is_awaited(&self, name: &Arc<str>) -> bool {
        self.sinks.values().any(|sink| sink.from == *name)
            || self.durable_subscriptions.values().any(|durable| durable.from == *name)
    }
}

impl Backfilled {
    /// Where the logs of its inputs go on.
    pub(super) fn places(&self) -> &[Place] {
        &self.pin.places
    }
}

impl Backfill {
    /// The query, which knows where it goes on.
    pub(super) fn into_query(self, on_error: OnError) -> RunningQuery {
        let Backfill { mut query, pin, output, .. } = self;
        query.on_error = on_error;
        if !query.is_suspended() {
            query.beginning = Beginning::Backfilled(Box::new(Backfilled { pin, output }));
        }
        query
    }

    /// Takes in rows of some inputs; nothing once the query is suspended.
    pub(crate) fn step(&mut self, inputs: &[&Delta]) {
        if self.query.is_suspended() {
            return;
        }
        let shown = self.query.shows_at_once();
        self.query.unread = shown;
        let delta = self.query.step(&self.pin.cut, inputs);
        if !shown {
            self.output.append(delta);
        }
    }

    /// True if an epoch of few rows costs as much as one of many.
    pub(crate) fn costs_the_whole(&self) -> bool {
        self.query.flow.cost() >= Cost::Few
    }

    /// How many bytes it keeps, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.query.state_bytes() + self.output.memory_bytes()
    }

    /// The relations that it reads, by input.
    pub(crate) fn reads(&self) -> Vec<Arc<str>> {
        self.query.reads().cloned().collect()
    }
}
