//! A successor that begins with the state of the query that it replaces, on threads.
//!
//! One thread reads the old query's operators. That query lags until the copy exists, and then continues. Another
//! thread makes the successor's operators of the copy: this is the first piece of its backfill. The changes since then
//! follow from the logs, as for any query in backfill.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use millstream_delta::{Cut, Delta};
use millstream_flow::{Change, Flow, StateCopy, Succession};
use millstream_sql::{Error, Result};
use millstream_state::Rows;

use super::CatchUp;
use super::apart::{BeginningMemory, Pieces, Watched};
use crate::content::Content;
use crate::error;
use crate::run::QueryStarts;
use crate::run::catch_up::apart::statement_creating;
use crate::run::contents::Bases;
use crate::run::lagging::{Done, GivenUp};
use crate::run::own_flow::{self, Told};
use crate::run::query::{ResultRows, Status};

/// The state that a successor begins with.
pub(in crate::run) struct Inherited {
    /// The place of the old query.
    pub(in crate::run) from: usize,
    /// The queries that lag while a thread reads the old query's operators: that query and its readers.
    pub(in crate::run) leaving: Vec<usize>,
    pub(in crate::run) succession: Arc<Succession>,
}

/// The parts of which a thread makes the successor's operators.
struct Parts {
    copy: Receiver<Result<StateCopy>>,
    succession: Arc<Succession>,
    /// The content of each input, if it is needed.
    contents: Vec<Content>,
    /// The columns of the result, if it is kept beside the operators.
    beside: Option<SchemaRef>,
}

impl QueryStarts<'_> {
    /// Makes threads copy the state of the old query, and a new query of the copy.
    pub(in crate::run) fn inherit(&mut self, place: usize, inherited: Inherited) -> Result<()> {
        let Inherited { from, leaving, succession } = inherited;
        let pinned = Cut {
            watermarks: Vec::new(),
            ..self.clock.standing_cut(&self.setup.settings, self.watermarks.current())
        };
        let (query, old) = (&self.queries[place], &self.queries[from]);
        let feeds = query.feeds.iter().enumerate();
        let contents = feeds.map(|(relation, feed)| match succession.needs(relation) {
            true => Bases::new(self.tables, self.sources).contents(self.queries).first_content(feed),
            false => Ok(Content::Batches(Vec::new())),
        });
        let contents = contents.collect::<Result<_>>()?;
        let places = query.reads().map(|name| self.outputs.logs.end(name)).collect();
        let memory = self.setup.shared.upgrade();
        let memory = memory
            .map(|shared| Arc::new(BeginningMemory::begin(&shared.statements.memory, &self.setup.settings)));
        let given_up = GivenUp::default();
        let cancelled = given_up.interrupt();
        let job = statement_creating(self.queries, self.waiters, &self.outputs.successors, place);
        let watched = Watched { given_up: cancelled.clone(), memory: memory.clone(), job };
        // Spilled state is in memory while it is copied.
        watched.count(0, old.flow.state_bytes() + old.flow.spilled_bytes())?;
        let (copied, copy) = channel();
        let query = &mut self.queries[place];
        query.flow.tell_little();
        let flow = query.flow.lend().ok_or_else(|| Error::bug("the operators of a new query are gone"))?;
        let beside = match &query.result.rows {
            ResultRows::Beside(rows) => Some(rows.schema().clone()),
            _ => None,
        };
        let (of, parts) = (pinned.clone(), Parts { copy, succession: succession.clone(), contents, beside });
        let done = self.tasks.on_a_thread(given_up.ends(move || take_over(flow, &of, parts, &watched)))?;
        let pieces = Pieces::inheriting(pinned.clone(), done, given_up);
        let mut catch_up = CatchUp::standing(places);
        (catch_up.pieces, catch_up.memory) = (pieces, memory);
        (catch_up.now, catch_up.pinned) = (pinned.now, pinned);
        let query = &mut self.queries[place];
        query.progress.start(self.clock.epoch);
        query.result.hide_backfill();
        query.status = Status::CatchingUp(Box::new(catch_up));
        let lent = self.queries.lend_to_read(self.tasks, self.clock.epoch, from, leaving, move |flow| {
            if cancelled.is_raised() {
                return;
            }
            let copy = own_flow::read("copying the state of the query", flow, |flow| {
                StateCopy::of(flow, &succession)
            });
            // If the statement was cancelled, nobody receives it.
            let _ = copied.send(copy);
        })?;
        if lent { Ok(()) } else { Err(Error::bug("the operators of the old query are elsewhere")) }
    }
}

/// Makes the operators of a successor on a thread.
fn take_over(mut flow: Flow, cut: &Cut, parts: Parts, watched: &Watched) -> Done {
    let begun = Instant::now();
    let (change, result) = match parts.take_over(&mut flow, cut, watched) {
        Ok((change, result)) => (Ok(change), result),
        Err(reason) => (Err(reason), None),
    };
    // After a panic the operators are inconsistent.
    let told = if change.is_ok() { Told::little_of(&flow) } else { Told::default() };
    Done { flow, told, change, result, batches: None, panic: None, took: begun.elapsed(), rows: 0 }
}

impl Parts {
    /// Returns the change without rows, since nobody takes them before the switch, and the result, if it is kept beside
    /// the operators.
    fn take_over(self, flow: &mut Flow, cut: &Cut, watched: &Watched) -> Result<(Change, Option<Rows>)> {
        let lost = |_| Error::external("the old query, whose state it keeps, has ended");
        let copy = self.copy.recv().map_err(lost)??;
        if watched.given_up.is_raised() {
            return Ok((Change::default(), None));
        }
        let contents = self.contents.into_iter().map(|content| content.batches_now().map(Delta::from_iter));
        let contents = contents.collect::<Result<Vec<_>>>()?;
        let rows = contents.iter().map(Delta::num_rows).sum();
        let contents: Vec<&Delta> = contents.iter().collect();
        let mut change = own_flow::succeed(flow, &self.succession, copy, cut, &contents)?;
        watched.count(rows, flow.state_bytes())?;
        let answer = std::mem::take(&mut change.rows);
        let Some(schema) = self.beside else { return Ok((change, None)) };
        let mut result = Rows::new(schema);
        result.apply(&answer).map_err(error::state)?;
        watched.count(0, flow.state_bytes() + result.memory_bytes())?;
        Ok((change, Some(result)))
    }
}
