//! A query that is maintained.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use millstream_delta::{Cut, Delta, Epoch};
use millstream_flow::{ERRORS, Flow};
use millstream_sql::{Error, Kind, Result};
use millstream_state::Rows;

use super::NOTHING;
use super::catch_up::CatchUp;
use super::log::Place;
use crate::error;

/// One materialized view, or the query of a sink.
#[derive(Debug)]
pub(crate) struct RunningQuery {
    /// The name of its result.
    pub(crate) name: Arc<str>,
    pub(crate) flow: Flow,
    pub(crate) status: Status,
    /// Whether its result can be read; a sink's own query only hands its changes on.
    pub(crate) keeps: bool,
    /// Its result, where that isn't kept by its operators.
    content: Option<Rows>,
    /// The rows, or keys, that it has no answer for.
    errors: Rows,
    /// The last epoch it took in.
    pub(crate) epoch: Epoch,
}

/// Where a query stands.
#[derive(Debug)]
pub(crate) enum Status {
    /// It waits for the queries it reads.
    Waiting,
    /// It reads what its inputs held before it was made.
    CatchingUp(Box<CatchUp>),
    /// It takes in each epoch.
    Running,
    /// It failed and is not stepped again.
    Suspended {
        /// Why.
        reason: Error,
        /// When.
        epoch: Epoch,
    },
}

impl RunningQuery {
    /// A query that is not started; `keep` where readers will ask for its result.
    pub(crate) fn new(name: Arc<str>, flow: Flow, keep: bool) -> Result<RunningQuery> {
        let content = if keep && flow.content().is_none() {
            Some(Rows::new(flow.schema().map_err(error::flow)?.clone()))
        } else {
            None
        };
        Ok(RunningQuery {
            name,
            flow,
            status: Status::Waiting,
            keeps: keep,
            content,
            errors: Rows::new(ERRORS.clone()),
            epoch: Epoch::default(),
        })
    }

    /// Whether its result is not there yet.
    pub(crate) fn is_starting(&self) -> bool {
        matches!(self.status, Status::Waiting | Status::CatchingUp(_))
    }

    /// Whether it takes in epochs.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.status, Status::Running)
    }

    /// Whether it failed and is not stepped again.
    pub(crate) fn is_suspended(&self) -> bool {
        matches!(self.status, Status::Suspended { .. })
    }

    /// Its place in the log of a relation, where it still reads that.
    pub(crate) fn place_in(&self, name: &str) -> Option<Place> {
        let Status::CatchingUp(catch_up) = &self.status else { return None };
        let relation = self.flow.relations().iter().position(|relation| relation.as_ref() == name)?;
        catch_up.places.get(relation).copied()
    }

    /// Takes in one epoch, or a piece of what its inputs held before. A failure suspends it, and it alone.
    pub(crate) fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Delta {
        match self.try_step(cut, inputs) {
            Ok(delta) => delta,
            Err(reason) => {
                self.suspend(reason, cut.epoch);
                Delta::default()
            }
        }
    }

    fn try_step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Delta> {
        // A panic in a kernel ends this query, not the engine; the flow is not stepped again after it.
        let step = AssertUnwindSafe(|| self.flow.step(cut, inputs));
        let change = std::panic::catch_unwind(step)
            .map_err(|_| Error::bug("a step of the query panicked"))?
            .map_err(error::flow)?;
        if let Some(rows) = &mut self.content {
            rows.apply(&change.rows).map_err(error::state)?;
        }
        self.errors.apply(&change.errors).map_err(error::state)?;
        self.epoch = cut.epoch;
        Ok(change.rows)
    }

    /// Stops it for good.
    pub(crate) fn suspend(&mut self, reason: Error, epoch: Epoch) {
        tracing::warn!(query = %self.name, epoch = epoch.0, reason = %reason, "a query is suspended");
        self.status = Status::Suspended { reason, epoch };
    }

    /// The deltas of its inputs out of those of an epoch.
    pub(crate) fn inputs<'a>(&self, find: impl Fn(&str) -> Option<&'a Delta>) -> Vec<&'a Delta> {
        self.flow.relations().iter().map(|name| find(name).unwrap_or(&NOTHING)).collect()
    }

    /// All rows of its result.
    pub(crate) fn read(&self) -> Result<Vec<RecordBatch>> {
        match &self.status {
            Status::Suspended { reason, epoch } => Err(Error::new(
                Kind::Invalid,
                format!("\"{}\" is suspended since epoch {epoch}: {}", self.name, reason.message),
            )
            .hint("Mend the query or its input, then drop the view and create it again.")),
            Status::Waiting | Status::CatchingUp(_) => Err(Error::external(format!(
                "\"{}\" is still reading what its inputs held before it was made: try again later",
                self.name
            ))),
            Status::Running => self.batches(),
        }
    }

    /// Fails with one of its errors, where it has some.
    pub(crate) fn check_errors(&self) -> Result<()> {
        let count = self.errors.num_rows();
        if count == 0 {
            return Ok(());
        }
        let batches = self.errors.snapshot().batches().map_err(error::arrow)?;
        let batch = batches.iter().find(|batch| batch.num_rows() > 0);
        let text = |column: usize| batch.map_or("", |batch| batch.column(column).as_string_view().value(0));
        let (message, row) = (text(1), text(2));
        let for_row = if row.is_empty() { String::new() } else { format!(" for {row}") };
        let more = if count > 1 { format!(", and {} more", count - 1) } else { String::new() };
        Err(Error::new(Kind::Invalid, format!("\"{}\" has errors: {message}{for_row}{more}", self.name))
            .hint("Delete or mend the rows; the view then goes on by itself."))
    }

    fn batches(&self) -> Result<Vec<RecordBatch>> {
        match (&self.content, self.flow.content()) {
            (Some(rows), _) => rows.snapshot().batches().map_err(error::arrow),
            (None, Some(content)) => content.map_err(error::flow),
            (None, None) => Ok(Vec::new()),
        }
    }

    /// How many rows its result has, where it is kept.
    pub(crate) fn result_rows(&self) -> Option<u64> {
        self.batches().ok().map(|batches| batches.iter().map(|batch| batch.num_rows() as u64).sum())
    }

    /// How many bytes it keeps, about.
    pub(crate) fn state_bytes(&self) -> usize {
        self.flow.state_bytes() + self.content.as_ref().map_or(0, Rows::memory_bytes)
    }
}
