//! A query that is maintained.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringViewArray};
use millstream_delta::{Chunk, Cut, Delta, Epoch, consolidate};
use millstream_flow::{ERRORS, Explained, Flow, Growth, Meter};
use millstream_sql::{Error, Kind, Result};
use millstream_state::Rows;

use super::NOTHING;
use super::catch_up::CatchUp;
use super::log::Place;
use crate::error;
use crate::settings::OnError;

/// One materialized view, or the query of a sink.
#[derive(Debug)]
pub(crate) struct RunningQuery {
    /// The name of its result.
    pub(crate) name: Arc<str>,
    pub(crate) flow: Flow,
    pub(crate) status: Status,
    /// Whether its result can be read; a sink's own query only hands its changes on.
    pub(crate) keeps: bool,
    /// Whether it is a subscriber's own, which no statement can name.
    pub(crate) temporary: bool,
    /// What reading it does while it has errors.
    pub(crate) on_error: OnError,
    /// Its result, where that isn't kept by its operators.
    content: Option<Rows>,
    /// The rows, or keys, that it has no answer for.
    errors: Rows,
    /// Whether nobody takes the changes of its result, so that it need not put them out.
    pub(crate) unread: bool,
    /// The last epoch it took in.
    pub(crate) epoch: Epoch,
    /// How many epochs, and pieces of the past, it took in.
    pub(crate) steps: u64,
}

/// An error of a query, of all its errors the first in their order as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FirstError {
    message: String,
    row: String,
    /// How many there are in all.
    count: usize,
}

impl FirstError {
    /// `division by zero for (3, 0), and 2 more`
    pub(crate) fn text(&self) -> String {
        let for_row = if self.row.is_empty() { String::new() } else { format!(" for {}", self.row) };
        let more = if self.count > 1 { format!(", and {} more", self.count - 1) } else { String::new() };
        format!("{}{for_row}{more}", self.message)
    }
}

/// One of the errors of a query.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowError {
    pub(crate) operator: String,
    pub(crate) message: String,
    pub(crate) row: String,
    pub(crate) count: i64,
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
    pub(crate) fn new(name: Arc<str>, flow: Flow, keep: bool, on_error: OnError) -> Result<RunningQuery> {
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
            temporary: false,
            on_error,
            content,
            errors: Rows::new(ERRORS.clone()),
            unread: false,
            epoch: Epoch::default(),
            steps: 0,
        })
    }

    /// Stops keeping its result: from now on it only hands its changes on.
    pub(crate) fn forget_result(&mut self) {
        self.keeps = false;
        self.content = None;
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
        let read = !self.unread || self.content.is_some();
        let step = AssertUnwindSafe(|| self.flow.step_for(cut, inputs, read));
        let change = std::panic::catch_unwind(step)
            .map_err(|_| Error::bug("a step of the query panicked"))?
            .map_err(error::flow)?;
        if let Some(rows) = &mut self.content {
            rows.apply(&change.rows).map_err(error::state)?;
        }
        self.errors.apply(&in_words(change.errors)?).map_err(error::state)?;
        self.epoch = cut.epoch;
        self.steps += 1;
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

    /// All rows of its result that have an answer.
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

    /// How many rows, or keys, it has no answer for.
    pub(crate) fn errors(&self) -> usize {
        self.errors.num_rows()
    }

    /// The first of its errors, where it has some.
    pub(crate) fn first_error(&self) -> Option<FirstError> {
        let count = self.errors.num_rows();
        if count == 0 {
            return None;
        }
        let batches = self.errors.snapshot().batches().ok()?;
        let texts = |batch: &RecordBatch, row: usize| {
            let text = |column: usize| batch.column(column).as_string_view().value(row).to_string();
            (text(1), text(2))
        };
        let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| texts(batch, row)));
        rows.min().map(|(message, row)| FirstError { message, row, count })
    }

    /// All its errors, in their order as text.
    pub(crate) fn all_errors(&self) -> Result<Vec<RowError>> {
        let all = Delta::from_iter(self.errors.snapshot().batches().map_err(error::arrow)?);
        let mut errors = Vec::new();
        for chunk in &consolidate(all, &ERRORS).map_err(error::arrow)?.chunks {
            let text = |column: usize, row| chunk.rows.column(column).as_string_view().value(row).to_string();
            errors.extend((0..chunk.rows.num_rows()).map(|row| RowError {
                operator: text(0, row),
                message: text(1, row),
                row: text(2, row),
                count: chunk.weight(row),
            }));
        }
        errors.sort();
        Ok(errors)
    }

    /// Its operators from the root down, below its result where that is kept beside them.
    pub(crate) fn operators(&self) -> Vec<Explained> {
        let mut operators = self.flow.operators();
        let Some(rows) = &self.content else { return operators };
        operators.iter_mut().for_each(|operator| operator.depth += 1);
        let result = Explained {
            depth: 0,
            node: operators.len(),
            repeated: false,
            title: "Result".into(),
            cost: None,
            append_only: self.flow.append_only().unwrap_or(false),
            key: operators.first().and_then(|root| root.key.clone()),
            state: "its rows".into(),
            state_key: None,
            growth: Growth::With("the result".into()),
            why: String::new(),
            state_rows: rows.num_rows(),
            state_bytes: rows.memory_bytes(),
            meter: Meter::default(),
        };
        operators.insert(0, result);
        operators
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
        let beside = self.content.as_ref().map_or(0, Rows::memory_bytes) + self.errors.memory_bytes();
        self.flow.state_bytes() + beside
    }
}

/// Errors with the messages that a SELECT would have: of one message always the same, so that sums stay sums.
fn in_words(errors: Delta) -> Result<Delta> {
    let mut worded = Delta::default();
    for Chunk { rows, weights } in errors.chunks {
        let messages = rows.column(1).as_string_view().iter().flatten();
        let messages: ArrayRef =
            Arc::new(StringViewArray::from_iter_values(messages.map(millstream_sql::of_data)));
        let columns = vec![rows.column(0).clone(), messages, rows.column(2).clone()];
        let rows = RecordBatch::try_new(ERRORS.clone(), columns).map_err(error::arrow)?;
        worded.push(Chunk { rows, weights });
    }
    Ok(worded)
}
