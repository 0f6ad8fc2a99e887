//! The part of a query's result that the query keeps for readers: its rows, its errors, its late rows.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_delta::{Cut, Delta, Timestamp};
use millstream_flow::{FailingRows, Flow, RowStages};
use millstream_sql::{Error, Result};
use millstream_state::{Rows, Tables};

use super::beside::Beside;
use super::errors::QueryErrors;
use super::saving::{put_rows, take_rows};
use crate::content::Content;
use crate::error;
use crate::run::late_rows::LateRows;
use crate::run::own_flow::OwnFlow;
use crate::run::retained::Retained;
use crate::settings::OnError;

/// The retention of the errors of a query FOR EACH BATCH whose rows nobody keeps.
const ERRORS_LENGTH: Duration = Duration::from_secs(600);

/// The part of a query's result that readers will ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Nothing: it only passes its changes on.
    Nothing,
    /// Its result.
    Result,
    /// Its newest rows; it is append-only.
    Newest(Duration),
}

/// The rows of the result that a query keeps, and their place.
#[derive(Debug)]
pub(in crate::run) enum ResultRows {
    Nothing,
    /// The result, by its operators.
    Operators,
    /// The result, by the part that it reads: its operators compute each row of the part by itself.
    Part(RowStages),
    /// The result, beside its operators.
    Beside(Beside),
    /// The newest rows.
    Newest(Retained),
}

/// Keeps a query's result, errors and late rows for readers. It knows neither the operators nor their inputs: a step
/// gives it the changes.
#[derive(Debug)]
pub(crate) struct ResultStore {
    pub(in crate::run) rows: ResultRows,
    /// The rows, or keys, without an answer.
    pub(in crate::run) errors: QueryErrors,
    /// The errors by batch, if the query keeps them as long as the rows of their batch.
    errors_of: Option<Retained>,
    /// The late rows, if its windows close.
    pub(in crate::run) late: Option<LateRows>,
    /// The behaviour of reads while there are errors.
    on_error: OnError,
    /// True if nobody takes the changes of the result, so the operators may leave them out.
    is_unread: bool,
}

impl ResultStore {
    /// Creates the empty store of a query with these operators, which keep the result themselves if they can.
    pub(super) fn new(
        flow: &mut Flow,
        keep: Keep,
        is_per_batch: bool,
        on_error: OnError,
    ) -> Result<ResultStore> {
        let rows = match keep {
            Keep::Nothing => ResultRows::Nothing,
            Keep::Result if flow.keep_result() => ResultRows::Operators,
            Keep::Result => {
                ResultRows::Beside(Beside::Here(Rows::new(flow.schema().map_err(error::flow)?.clone())))
            }
            Keep::Newest(length) => ResultRows::Newest(Retained::new(length)),
        };
        let errors_of = match keep {
            Keep::Newest(length) => Some(Retained::new(length)),
            _ if is_per_batch => Some(Retained::new(ERRORS_LENGTH)),
            _ => None,
        };
        let late = flow.late_schema().cloned().map(LateRows::new);
        let errors = QueryErrors::default();
        Ok(ResultStore { rows, errors, errors_of, late, on_error, is_unread: false })
    }

    /// Returns the behaviour of reads while there are errors.
    pub(crate) fn on_error(&self) -> OnError {
        self.on_error
    }

    /// Sets the behaviour of reads while there are errors.
    pub(in crate::run) fn set_on_error(&mut self, on_error: OnError) {
        self.on_error = on_error;
    }

    /// Sets if nobody takes the changes of the next steps, so the operators may leave them out.
    pub(in crate::run) fn set_unread(&mut self, is_unread: bool) {
        self.is_unread = is_unread;
    }

    /// Leaves out the changes of a backfill, unless readers see rows as they arrive.
    pub(in crate::run) fn hide_backfill(&mut self) {
        self.is_unread = self.shows_at_once();
    }

    /// Returns true if anybody takes the changes of the operators' result, including this store.
    pub(super) fn needs_changes(&self) -> bool {
        !self.is_unread || matches!(self.rows, ResultRows::Beside(_) | ResultRows::Newest(_))
    }

    /// Stops keeping the rows: from now on the query only passes its changes on.
    pub(in crate::run) fn forget_rows(&mut self) {
        self.rows = ResultRows::Nothing;
    }

    /// Keeps the rows beside the operators from now on, since those of the operators are no longer right.
    pub(in crate::run) fn move_beside(&mut self, flow: &mut OwnFlow) -> Result<()> {
        if !matches!(self.rows, ResultRows::Operators) {
            return Ok(());
        }
        let content = flow.content()?;
        self.keep_beside(flow, content)
    }

    /// Keeps these rows beside the operators from now on.
    pub(in crate::run) fn keep_beside(
        &mut self,
        flow: &mut OwnFlow,
        content: Vec<RecordBatch>,
    ) -> Result<()> {
        let flow = flow.here_mut().ok_or_else(|| Error::bug("the operators of a query are elsewhere"))?;
        let mut rows = Rows::new(flow.schema().map_err(error::flow)?.clone());
        rows.apply(&Delta::from_iter(content)).map_err(error::state)?;
        flow.forget_closed();
        self.rows = ResultRows::Beside(Beside::Here(rows));
        Ok(())
    }

    /// Returns true if the result can be read; a sink's own query only passes its changes on.
    pub(crate) fn is_readable(&self) -> bool {
        !matches!(self.rows, ResultRows::Nothing)
    }

    /// Returns true if readers see the result only once it is complete; other queries pass rows on as they arrive.
    pub(crate) fn shows_at_once(&self) -> bool {
        matches!(self.rows, ResultRows::Operators | ResultRows::Part(_) | ResultRows::Beside(_))
    }

    /// Returns the newest rows, if the query keeps only these.
    pub(crate) fn newest(&self) -> Option<&Retained> {
        if let ResultRows::Newest(rows) = &self.rows { Some(rows) } else { None }
    }

    /// Returns true if errors are kept as long as the rows of their batch.
    pub(super) fn keeps_errors_by_batch(&self) -> bool {
        self.errors_of.is_some()
    }

    /// Keeps the changes of an epoch. `is_kept`: rows beside the operators have these changes already. `is_held`: the
    /// newest rows and their errors are kept when the backfill ends.
    pub(super) fn keep(
        &mut self,
        cut: &Cut,
        (rows, is_kept): (&Delta, bool),
        is_held: bool,
        (errors, failing): (&Delta, &[FailingRows]),
    ) -> Result<()> {
        match &mut self.rows {
            ResultRows::Beside(kept) if !is_kept => kept.here_mut()?.apply(rows).map_err(error::state)?,
            ResultRows::Newest(kept) if !is_held => kept.push(cut, rows),
            ResultRows::Newest(_) | ResultRows::Beside(_) | ResultRows::Nothing => {}
            ResultRows::Operators | ResultRows::Part(_) => {}
        }
        self.errors.apply(errors, failing)?;
        if let Some(errors_of) = self.errors_of.as_mut().filter(|_| !is_held) {
            errors_of.push(cut, errors);
        }
        Ok(())
    }

    /// Keeps the held rows of a backfill as one batch, if the query keeps the newest rows; likewise its errors.
    pub(in crate::run) fn keep_held(&mut self, cut: &Cut, held: &Delta) -> Result<()> {
        if let ResultRows::Newest(rows) = &mut self.rows {
            rows.push(cut, held);
        }
        if let Some(errors_of) = &mut self.errors_of {
            errors_of.push(cut, &self.errors.snapshot().texts()?);
        }
        Ok(())
    }

    /// Drops rows and errors older than their retention.
    pub(in crate::run) fn trim(&mut self, now: Timestamp) -> Result<()> {
        if let ResultRows::Newest(rows) = &mut self.rows {
            rows.trim(now);
        }
        for mut gone in self.errors_of.as_mut().map_or_else(Vec::new, |errors| errors.trim(now)) {
            for chunk in &mut gone.chunks {
                chunk.weights = Some(chunk.weights_or_ones().unary(|weight| -weight));
            }
            self.errors.apply(&gone, &[])?;
        }
        Ok(())
    }

    /// Copies the rows of the query that this one replaces and whose operators' state it continues.
    pub(in crate::run) fn copy_rows(&mut self, before: &ResultStore, flow: &OwnFlow) -> Result<()> {
        if let ResultRows::Beside(rows) = &mut self.rows {
            let before = before.rows.content(flow, None)?.batches_now()?;
            rows.here_mut()?.apply(&Delta::from_iter(before)).map_err(error::state)?;
        }
        Ok(())
    }

    /// Takes over the newest rows of the query that this one replaces: readers have seen these.
    pub(in crate::run) fn take_newest(&mut self, before: &mut ResultStore) {
        if let (ResultRows::Newest(own), ResultRows::Newest(put_out)) = (&mut self.rows, &mut before.rows) {
            std::mem::swap(own, put_out);
        }
    }

    /// Adds the changes since the newest checkpoint.
    pub(super) fn save(&self, all: &mut Tables) -> Result<()> {
        match &self.rows {
            ResultRows::Nothing | ResultRows::Operators | ResultRows::Part(_) => {}
            ResultRows::Beside(rows) => put_rows(all, "result", rows.here()?)?,
            ResultRows::Newest(rows) => all.put_part("newest", rows.save()?),
        }
        self.errors.save(all)?;
        if let Some(errors_of) = &self.errors_of {
            all.put_part("errors_of", errors_of.save()?);
        }
        if let Some(late) = &self.late {
            all.put_part("late", late.save());
        }
        Ok(())
    }

    /// Loads the saved result of these operators.
    pub(super) fn load(&mut self, all: &mut Tables, flow: &Flow) -> Result<()> {
        match &mut self.rows {
            ResultRows::Nothing | ResultRows::Operators | ResultRows::Part(_) => {}
            ResultRows::Beside(rows) => take_rows(all, "result", rows.here_mut()?)?,
            ResultRows::Newest(rows) => rows.load(&mut all.take_part("newest"))?,
        }
        self.errors.load(all, flow)?;
        if let Some(errors_of) = &mut self.errors_of {
            errors_of.load(&mut all.take_part("errors_of"))?;
        }
        if let Some(late) = &mut self.late {
            late.load(&mut all.take_part("late"))?;
        }
        Ok(())
    }

    /// Returns the approximate memory in bytes; `closed` is the operators' share of closed windows: rows and bytes.
    pub(super) fn memory_bytes(&self, closed: Option<(usize, usize)>) -> usize {
        let rows = match &self.rows {
            ResultRows::Nothing | ResultRows::Part(_) => 0,
            ResultRows::Operators => closed.map_or(0, |(_, bytes)| bytes),
            ResultRows::Beside(rows) => rows.memory_bytes(),
            ResultRows::Newest(rows) => rows.memory_bytes(),
        };
        let errors_of = self.errors_of.as_ref().map_or(0, Retained::memory_bytes);
        rows + self.errors.memory_bytes() + errors_of + self.late.as_ref().map_or(0, LateRows::memory_bytes)
    }
}

impl ResultRows {
    /// Returns all rows of the result that have an answer. Of the newest rows, `stamped` adds the columns of their
    /// batch, at its end.
    pub(in crate::run) fn content(&self, flow: &OwnFlow, stamped: Option<&SchemaRef>) -> Result<Content> {
        match self {
            ResultRows::Nothing => Ok(Content::Batches(Vec::new())),
            ResultRows::Operators => flow.content().map(Content::Batches),
            ResultRows::Part(_) => Err(Error::bug("the rows of a result are in another query")),
            ResultRows::Beside(rows) => Ok(Content::Snapshot(rows.snapshot())),
            ResultRows::Newest(rows) => rows.batches(stamped).map(Content::Batches),
        }
    }

    /// Returns the number of rows of the result, if the query keeps it.
    pub(in crate::run) fn num_rows(&self, flow: &OwnFlow) -> Option<u64> {
        match self {
            ResultRows::Newest(rows) => Some(rows.num_rows() as u64),
            ResultRows::Operators => flow.result_rows(),
            ResultRows::Part(_) => None,
            ResultRows::Beside(rows) => Some(rows.num_rows() as u64),
            ResultRows::Nothing => Some(0),
        }
    }

    /// Exchanges results that are kept beside the operators.
    pub(in crate::run) fn exchange(&mut self, other: &mut ResultRows) {
        if let (ResultRows::Beside(own), ResultRows::Beside(rows)) = (self, other) {
            std::mem::swap(own, rows);
        }
    }

    /// Returns false if one of the results is kept in the operators, and the other beside them.
    pub(in crate::run) fn is_stored_like(&self, other: &ResultRows) -> bool {
        !matches!(
            (self, other),
            (ResultRows::Operators | ResultRows::Part(_), ResultRows::Beside(_))
                | (ResultRows::Beside(_), ResultRows::Operators | ResultRows::Part(_))
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
    use millstream_delta::{Chunk, Epoch};
    use millstream_flow::ERRORS;

    use super::*;

    fn store() -> ResultStore {
        let retained = || Retained::new(Duration::from_micros(10));
        let (rows, errors_of) = (ResultRows::Newest(retained()), Some(retained()));
        let (errors, on_error) = (QueryErrors::default(), OnError::Fail);
        ResultStore { rows, errors, errors_of, late: None, on_error, is_unread: false }
    }

    fn rows() -> Delta {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        Delta::of(Chunk { rows: RecordBatch::try_from_iter([("x", column)]).unwrap(), weights: None })
    }

    fn an_error() -> Delta {
        let text = |text: &str| Arc::new(StringViewArray::from(vec![text])) as ArrayRef;
        let columns = vec![text("Projection"), text("division by zero"), text("(1, 0)")];
        Delta::of(Chunk { rows: RecordBatch::try_new(ERRORS.clone(), columns).unwrap(), weights: None })
    }

    fn at(time: i64) -> Cut {
        Cut::new(Epoch(time as u64), Timestamp(time))
    }

    fn num_rows(store: &ResultStore) -> usize {
        store.newest().map_or(0, Retained::num_rows)
    }

    #[test]
    fn rows_and_their_errors_expire_together() {
        let mut store = store();
        store.keep(&at(1), (&rows(), false), false, (&an_error(), &[])).unwrap();
        store.trim(Timestamp(10)).unwrap();
        assert_eq!((num_rows(&store), store.errors.count()), (2, 1));
        store.trim(Timestamp(11)).unwrap();
        assert_eq!((num_rows(&store), store.errors.count()), (0, 0));
    }

    #[test]
    fn held_rows_are_one_batch_at_the_end_of_the_backfill() {
        let mut store = store();
        store.keep(&at(1), (&rows(), false), true, (&an_error(), &[])).unwrap();
        assert_eq!((num_rows(&store), store.errors.count()), (0, 1));
        store.keep_held(&at(5), &rows()).unwrap();
        assert_eq!(num_rows(&store), 2);
        // The errors expire with the held rows, not with the epochs that they came in.
        store.trim(Timestamp(14)).unwrap();
        assert_eq!((num_rows(&store), store.errors.count()), (2, 1));
        store.trim(Timestamp(15)).unwrap();
        assert_eq!((num_rows(&store), store.errors.count()), (0, 0));
    }

    #[test]
    fn a_store_without_rows_cannot_be_read() {
        let mut store = store();
        assert!(store.is_readable() && !store.shows_at_once());
        store.forget_rows();
        assert!(!store.is_readable() && store.newest().is_none());
    }
}
