//! The flow of a query: here, or lent to a thread that steps it.

use std::panic::AssertUnwindSafe;

use arrow::array::RecordBatch;
use millstream_delta::{Cut, Delta, Timestamp};
use millstream_flow::{Change, Cost, EventTime, Explained, Flow, Shareable, Succession, Wanted};
use millstream_sql::{Error, Kind, Result};

use super::query::in_words;
use crate::error;
use crate::panics::{PanicTrace, panicked};

/// The rows of a result are counted where the operators keep no more than this.
const COUNTED_BYTES_MAX: usize = 4 << 20;

/// A query's flow, and what is known of it whether it is here or not.
#[derive(Debug)]
pub(crate) struct OwnFlow {
    flow: Option<Flow>,
    /// How it stood when it was lent.
    told: Told,
    /// True if the lent flow is the only reader of its shared arrangements.
    owns_shared: bool,
    append_only: bool,
    key: Option<Vec<usize>>,
    cost: Cost,
    timeless: bool,
    additive: bool,
    times: Vec<(usize, EventTime)>,
    /// The trace of the panic that its last step ended with.
    panic: Option<PanicTrace>,
}

/// How a flow stands after a step.
#[derive(Debug, Default)]
pub(crate) struct Told {
    operators: Vec<Explained>,
    state_bytes: usize,
    /// How many rows its result has, where its operators keep that.
    rows: Option<u64>,
    closed: Option<(usize, usize)>,
}

impl Told {
    /// Of a flow as it is now; the rows of a large result aren't counted, which takes as long as reading them.
    pub(crate) fn of(flow: &Flow) -> Told {
        if flow.state_bytes() > COUNTED_BYTES_MAX {
            return Told::little_of(flow);
        }
        let rows = flow.content().and_then(|rows| rows.ok());
        let rows = rows.map(|rows| rows.iter().map(|batch| batch.num_rows() as u64).sum());
        Told { rows, ..Told::little_of(flow) }
    }

    /// The same of one whose result nobody can read yet.
    pub(crate) fn little_of(flow: &Flow) -> Told {
        Told {
            operators: flow.operators(),
            state_bytes: flow.state_bytes(),
            closed: flow.closed(),
            rows: None,
        }
    }
}

impl OwnFlow {
    pub(crate) fn new(flow: Flow) -> Result<OwnFlow> {
        Ok(OwnFlow {
            append_only: flow.append_only().map_err(error::flow)?,
            key: flow.key().map(<[usize]>::to_vec),
            cost: flow.cost(),
            timeless: flow.is_timeless(),
            additive: flow.is_additive(),
            times: flow.times().to_vec(),
            told: Told::default(),
            owns_shared: false,
            flow: Some(flow),
            panic: None,
        })
    }

    /// Whether its result only ever gains rows.
    pub(crate) fn append_only(&self) -> bool {
        self.append_only
    }

    /// Columns that no two rows of its result share, where some are known.
    pub(crate) fn key(&self) -> Option<&[usize]> {
        self.key.as_deref()
    }

    /// The dearest operator's cost.
    pub(crate) fn cost(&self) -> Cost {
        self.cost
    }

    /// How many rows came for windows that had closed, where its windows close.
    pub(crate) fn late(&self) -> Option<u64> {
        self.here().and_then(Flow::late)
    }

    /// Whether its answer follows from its inputs alone, whenever their changes come.
    pub(crate) fn is_timeless(&self) -> bool {
        self.timeless
    }

    /// True if it may take several epochs in sum, see [`Flow::is_additive`].
    pub(crate) fn is_additive(&self) -> bool {
        self.additive
    }

    /// The columns of its result of which it is known how far event time has come.
    pub(crate) fn times(&self) -> &[(usize, EventTime)] {
        &self.times
    }

    /// The flow, unless a thread has it.
    pub(crate) fn here(&self) -> Option<&Flow> {
        self.flow.as_ref()
    }

    /// The same, to be changed.
    pub(crate) fn here_mut(&mut self) -> Option<&mut Flow> {
        self.flow.as_mut()
    }

    /// Gives it to a thread.
    pub(crate) fn lend(&mut self) -> Option<Flow> {
        self.flow.take()
    }

    /// Takes it back.
    pub(crate) fn take_back(&mut self, flow: Flow, told: Told) {
        (self.flow, self.told) = (Some(flow), told);
    }

    /// Marks a lent flow as the only reader of its shared arrangements.
    pub(crate) fn shares_no_more(&mut self) {
        self.owns_shared = true;
    }

    /// Turns the shared arrangements of a returned flow into its own, if it is their only reader.
    pub(crate) fn own_shared(&mut self) -> Result<()> {
        let flow = self.flow.as_mut().filter(|_| std::mem::take(&mut self.owns_shared));
        flow.map_or(Ok(()), Flow::own_shared).map_err(error::flow)
    }

    /// Remembers how it stands now, for those who ask while it is lent for the first time.
    pub(crate) fn tell(&mut self) {
        self.told = self.flow.as_ref().map_or_else(Told::default, Told::of);
    }

    /// The same where nobody can read its result yet.
    pub(crate) fn tell_little(&mut self) {
        self.told = self.flow.as_ref().map_or_else(Told::default, Told::little_of);
    }

    /// Steps it, where nobody may take the rows of its result under `read`.
    pub(crate) fn step(&mut self, cut: &Cut, inputs: &[&Delta], read: bool) -> Result<Change> {
        let flow = self.flow.as_mut().ok_or_else(lent)?;
        let (change, panic) = step(flow, cut, inputs, read);
        self.panic = panic;
        change
    }

    /// The trace of the panic, or of the broken invariant, that the last step ended with: the operators are not as they
    /// should be.
    pub(crate) fn take_panic(&mut self) -> Option<PanicTrace> {
        self.panic.take()
    }

    /// Notes how a step on a thread ended.
    pub(crate) fn note_panic(&mut self, panic: Option<PanicTrace>) {
        self.panic = panic;
    }

    /// Goes on where another flow stands, see [`Flow::succeed`]; that one stays as it is.
    pub(crate) fn succeed(
        &mut self,
        before: &Flow,
        succession: Succession,
        cut: &Cut,
        contents: &[&Delta],
    ) -> Result<Change> {
        let flow = self.flow.as_mut().ok_or_else(lent)?;
        caught(|| flow.succeed(before, succession, cut, contents)).0
    }

    /// True if an epoch with this cut must be stepped even if no input changes. Not known of one that is lent: its epochs wait.
    pub(crate) fn is_due(&self, cut: &Cut) -> bool {
        self.here().is_some_and(|flow| flow.is_due(cut))
    }

    /// When it must be stepped next even if no input changes, where it knows that.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        self.here()?.wake_at()
    }

    /// As of when its answer is, where that depends on the time.
    pub(crate) fn now(&self) -> Timestamp {
        self.here().map_or_else(Timestamp::default, Flow::now)
    }

    /// The whole result, where its operators keep that.
    pub(crate) fn content(&self) -> Result<Vec<RecordBatch>> {
        let flow = self.here().ok_or_else(lent)?;
        flow.content().unwrap_or(Ok(Vec::new())).map_err(error::flow)
    }

    /// The rows of the result that a reader wants, and perhaps others, where they are found without looking at all.
    pub(crate) fn content_wanted(&self, wanted: &Wanted) -> Option<Result<Vec<RecordBatch>>> {
        Some(self.here()?.content_wanted(wanted)?.map_err(error::flow))
    }

    /// How many rows its operators keep of its result.
    pub(crate) fn result_rows(&self) -> Option<u64> {
        match self.here() {
            Some(_) => self.content().ok().map(|rows| rows.iter().map(|batch| batch.num_rows() as u64).sum()),
            None => self.told.rows,
        }
    }

    /// How many rows it keeps of closed windows for readers, and about how many bytes these take.
    pub(crate) fn closed(&self) -> Option<(usize, usize)> {
        self.here().map_or(self.told.closed, Flow::closed)
    }

    /// What its joins find by key that others may find as well.
    pub(crate) fn shareable(&self) -> Vec<Shareable<'_>> {
        self.here().map_or_else(Vec::new, Flow::shareable)
    }

    /// How many columns it knows of the relation at a place; of a flow that is lent, none is looked for.
    pub(crate) fn columns_known(&self, relation: usize) -> usize {
        self.here().map_or(usize::MAX, |flow| flow.columns_known(relation))
    }

    /// Its operators from the root down, as they stand or stood when it was lent.
    pub(crate) fn operators(&self) -> Vec<Explained> {
        self.here().map_or_else(|| self.told.operators.clone(), Flow::operators)
    }

    /// How many bytes of its operators' rows are in files.
    pub(crate) fn spilled_bytes(&self) -> usize {
        self.here().map_or_else(|| self.told.operators.iter().map(spilled).sum(), Flow::spilled_bytes)
    }

    /// How many bytes its operators keep, about.
    pub(crate) fn state_bytes(&self) -> usize {
        self.here().map_or(self.told.state_bytes, Flow::state_bytes)
    }
}

/// Steps a flow; errors come with the messages that a SELECT would have.
pub(super) fn step(
    flow: &mut Flow,
    cut: &Cut,
    inputs: &[&Delta],
    read: bool,
) -> (Result<Change>, Option<PanicTrace>) {
    caught(|| flow.step_for(cut, inputs, read))
}

/// A panic in a kernel ends this query, not the engine; the flow is not stepped again after it. The same goes for an
/// operator that finds what it keeps broken.
fn caught(step: impl FnOnce() -> millstream_flow::Result<Change>) -> (Result<Change>, Option<PanicTrace>) {
    let stepped = match std::panic::catch_unwind(AssertUnwindSafe(step)) {
        Ok(stepped) => stepped,
        Err(said) => {
            let error = panicked("a step of the query", said.as_ref());
            // A column that is too large is so again when the query is made anew.
            let trace = (error.kind == Kind::Bug).then(PanicTrace::of_caught);
            return (Err(error), trace);
        }
    };
    let broken = matches!(&stepped, Err(millstream_flow::Error::Bug(_)));
    let change = stepped.map_err(error::flow).and_then(|Change { rows, errors, left_out, late }| {
        Ok(Change { rows, errors: in_words(errors)?, left_out, late })
    });
    (change, broken.then(PanicTrace::default))
}

fn spilled(operator: &Explained) -> usize {
    if operator.repeated { 0 } else { operator.meter.spilled_bytes }
}

fn lent() -> Error {
    Error::bug("the operators of the query are being stepped elsewhere")
}
