//! Reads of large results that operators keep. A thread reads the operators, and the query lags meanwhile.
//!
//! Reading copies every row, and so would hold up all epochs. The read is as of the epoch that the query has
//! reached. The query returns to the loop as soon as the thread is done, unless much waits for it by then.
//!
//! A query that shares arrangements gets a copy of their keys and lists when it leaves, some 40 bytes a key; the rows
//! stay shared. It reads the shared arrangements again when it returns (`sharing.rs`).
//!
//! Some reads are put off; nobody but their readers waits. A read does not begin
//!
//! - while a checkpoint is due that only steps, reads or small statements keep waiting. Reads that have waited begin as
//!   soon as the loop has handed the checkpoint to its thread, or has failed to, so checkpoints and reads take turns.
//! - while an event waits until the query, or one that leaves with it, is current.
//!
//! Deliberately absent, so the loop itself reads:
//!
//! - queries under a manual clock: each epoch is decided with all of its results,
//! - queries with a reader that may not lag,
//! - queries with a reader that is still starting, and queries that a starting query or a successor needs at present:
//!   that may take long, and the reads need not wait so long.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_delta::{Cut, Epoch};
use millstream_flow::{Change, Flow};
use millstream_sql::Result;

use super::{Done, GivenUp, Lag, Step, Work};
use crate::content::{AwaitedRows, Content, ThroughPart};
use crate::event::{Asked, Reply};
use crate::run::Departures;
use crate::run::contents::{Bases, Results};
use crate::run::flow_control::FlowControl;
use crate::run::own_flow::{self, Told};
use crate::run::queries::{Queries, QueryGraph, wanted_by_events};
use crate::run::query::ResultRows;
use crate::run::tasks::Tasks;
use crate::settings::ClockKind;

/// A result that operators keep in more bytes is read on a thread.
const READ_BYTES: usize = 8 << 20;

/// A query returns to the loop after a read if fewer bytes wait for it.
const RETURN_BYTES: usize = 1 << 20;

impl Lag {
    /// True while a thread reads its result.
    pub(in crate::run) fn is_being_read(&self) -> bool {
        self.step.as_ref().is_some_and(Step::is_read)
    }

    /// True if it lags for a read alone, and little waits for it.
    pub(super) fn returns_after_read(&self) -> bool {
        self.for_read
            && self.bytes() < RETURN_BYTES
            && (!self.is_in_order() || self.waiting.changing() <= RETURN_EPOCHS)
    }
}

/// Most waiting epochs with which a query that is stepped in order returns to the loop after a read.
const RETURN_EPOCHS: usize = 8;

/// A result that is read on a thread.
struct Large {
    /// The query whose operators keep it.
    place: usize,
    /// The queries that leave the loop for the read: itself and its readers. None if it lags already.
    leaving: Vec<usize>,
    through: Option<ThroughPart>,
}

impl Departures<'_> {
    /// Lets a thread read the result of a query whose operators keep much, as of the epoch that it has reached. None
    /// for other relations, and for queries that may not lag.
    pub(in crate::run) fn read_apart(&mut self, name: &str) -> Result<Option<AwaitedRows>> {
        if let Some(rows) = self.queries.rows_being_read(name) {
            return Ok(Some(rows));
        }
        let Some(Large { place, leaving, through }) = self.flow_control().large_result(name) else {
            return Ok(None);
        };
        let (reply, rows) = Reply::new();
        let lent = self.queries.lend_to_read(self.tasks, self.clock.epoch, place, leaving, move |flow| {
            reply.send(result_of(flow))
        })?;
        let rows = AwaitedRows::new(rows);
        if let Some(step) =
            self.queries[place].status.lag_mut().and_then(|lag| lag.step.as_mut()).filter(|_| lent)
        {
            step.work = Work::Read(Some(rows.clone()));
        }
        Ok(lent.then(|| rows.through(through)))
    }

    /// Returns the rows of a relation that a query may read, for a reader beside the loop.
    pub(in crate::run) fn input_beside(
        &mut self,
        name: &str,
        stamped: Option<&SchemaRef>,
    ) -> Result<Content> {
        match self.read_apart(name)? {
            Some(rows) => Ok(Content::Awaited(rows)),
            None => Bases::new(self.tables, self.sources).contents(self.queries).content_as(name, stamped),
        }
    }
}

impl QueryGraph {
    /// Returns a result that follows from a part, if a thread reads the part. Another reader of the part, in the same
    /// statement, has asked for it.
    fn rows_being_read(&self, name: &str) -> Option<AwaitedRows> {
        let (results, query) = (Results(&self.queries), self.queries.query(name)?);
        let Work::Read(rows) = &results.keeper(query).status.lag()?.step.as_ref()?.work else { return None };
        Some(rows.as_ref()?.through(Some(results.through(query)?)))
    }

    /// Lends the operators of a query to a thread that reads them. It lags until then, together with `leaving`, if it
    /// doesn't yet. Returns false if its operators are elsewhere.
    pub(in crate::run) fn lend_to_read(
        &mut self,
        tasks: &Tasks,
        epoch: Epoch,
        place: usize,
        leaving: Vec<usize>,
        read: impl FnOnce(&Flow) + Send + 'static,
    ) -> Result<bool> {
        let is_running = self.queries[place].status.is_running();
        for place in leaving.into_iter().filter(|_| is_running) {
            if !self.queries[place].status.is_running() {
                continue;
            }
            let speed = self.queries[place].last_step.speed();
            let unshared = self.unshare(place, false);
            // The loop reads no result, not even to count its rows.
            self.queries[place].flow.tell_little();
            self.queries.left(place, epoch, unshared);
            let query = &mut self.queries[place];
            query.last_step.set_speed(speed);
            query.status.lag_mut().into_iter().for_each(|lag| lag.for_read = true);
        }
        let query = &mut self.queries[place];
        let Some(through) = query.status.lag().map(Lag::through) else { return Ok(false) };
        let Some(flow) = query.flow.lend() else { return Ok(false) };
        let cut = Cut::new(through, flow.now());
        let done = tasks.on_a_thread_for(Arc::default(), move || {
            let begun = Instant::now();
            read(&flow);
            let (told, change) = (Told::little_of(&flow), Ok(Change::default()));
            let took = begun.elapsed();
            Done { flow, told, change, result: None, batches: None, panic: None, took, rows: 0 }
        });
        let done = done.inspect_err(|reason| {
            // The operators went with the thread.
            self.queries[place].suspend(reason.clone(), through);
        })?;
        if let Some(lag) = self.queries[place].status.lag_mut() {
            let (begun, _given_up) = (Instant::now(), GivenUp::default());
            lag.step = Some(Step { through, begun, cut, done, work: Work::Read(None), _given_up });
        }
        Ok(true)
    }
}

impl FlowControl<'_> {
    /// Returns a query whose operators keep much, if it may lag.
    fn large_result(&self, name: &str) -> Option<Large> {
        let (results, of) = (Results(self.queries), self.queries.query(name)?);
        let (query, through) = (results.keeper(of), results.through(of));
        let place = self.queries.iter().position(|other| other.name == query.name)?;
        let forced = self.setup.execution.options.apart.is_some();
        let may = forced || self.setup.settings.clock == ClockKind::System;
        // A start repeats every epoch on the loop.
        let may = may && !self.durability.is_recovering() && self.waiters.replay.is_none();
        let by_operators = through.is_some() || matches!(query.result.rows, ResultRows::Operators);
        let by_operators = by_operators && !query.is_per_batch();
        let bytes_max = self.setup.execution.options.read_bytes.unwrap_or(READ_BYTES);
        let is_large = |flow: &Flow| forced || flow.result().bytes() > bytes_max;
        if !may || !by_operators || !query.flow.here().is_some_and(is_large) {
            return None;
        }
        let leaving = match query.status.lag() {
            Some(_) => Vec::new(),
            None if query.status.is_running() => self.leaving_with(place)?,
            None => return None,
        };
        // Events have their turn soon. All others may need the query for long.
        let wanted = self.wanted_at_present();
        let of_events = wanted_by_events(self.queries, self.waiters);
        let stays = |place: &usize| {
            let name = &self.queries[*place].name;
            wanted.contains(name) && !of_events.contains(name)
        };
        (!leaving.iter().any(stays)).then_some(Large { place, leaving, through })
    }

    /// True if a thread must read a relation, but not now: a checkpoint is due, or an event waits until the query, or one
    /// that leaves the loop with it, is current. A read that has begun goes on before events, which may wait for it.
    pub(in crate::run) fn read_waits(&self, asked: &Asked, has_begun: bool) -> bool {
        let Some(large) = self.large_result(&asked.name) else { return false };
        let is_wanted = || {
            let wanted = wanted_by_events(self.queries, self.waiters);
            large.leaving.iter().any(|place| wanted.contains(&self.queries[*place].name))
        };
        let waits = self.reads_wait().is_some() || (!has_begun && is_wanted());
        // The loop finds rows by their key at once.
        let wanted = |query| Results(self.queries).wanted(query, &asked.wanted);
        let by_key =
            || !asked.wanted.is_empty() && self.queries.query(&asked.name).and_then(wanted).is_some();
        waits && !by_key()
    }
}

/// True if one of these queries, for which an event waits, is about to return after a read. Another read of it would begin
/// before the event again and again.
pub(in crate::run) fn returns_for_event(
    queries: &Queries,
    lag: &[Arc<str>],
    wanted: &BTreeSet<Arc<str>>,
) -> bool {
    let returns = |name: &Arc<str>| {
        let lag = queries.query(name).and_then(|query| query.status.lag());
        lag.is_some_and(Lag::returns_after_read)
    };
    lag.iter().any(|name| wanted.contains(name) && returns(name))
}

/// Reads the result of a flow.
pub(in crate::run) fn result_of(flow: &Flow) -> Result<Vec<RecordBatch>> {
    own_flow::read("reading the result of the query", flow, |flow| flow.content().unwrap_or(Ok(Vec::new())))
}
