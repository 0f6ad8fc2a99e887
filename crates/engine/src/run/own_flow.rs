//! The flow of a query: in the loop, or lent to a thread that steps it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::RecordBatch;
use millstream_delta::{Cut, Delta, Timestamp};
use millstream_flow::{
    Arrangement, Change, Cost, EventTime, Explained, Flow, Meter, Shareable, StateCopy, Succession, Wanted,
    operator_name, part_hashes,
};
use millstream_sql::{Error, Kind, Result};

use super::query::errors::in_words;
use crate::error;
use crate::panics::{PanicTrace, panicked};

/// If the operators keep more bytes than this, the loop doesn't count the rows of the result.
pub(super) const COUNTED_BYTES_MAX: usize = 4 << 20;

/// A query's flow, and facts about it that are available while it is lent.
#[derive(Debug)]
pub(crate) struct OwnFlow {
    flow: Option<Flow>,
    /// The status when the loop lent the flow.
    told: Told,
    /// True if the lent flow is the only reader of its shared arrangements.
    owns_shared: bool,
    append_only: bool,
    key: Option<Vec<usize>>,
    cost: Cost,
    timeless: bool,
    additive: bool,
    times: Vec<(usize, EventTime)>,
    /// A hash for each part that another query may have, too.
    part_hashes: Vec<u64>,
    /// The trace of the panic that ended the last step.
    panic: Option<PanicTrace>,
}

/// The status of a flow after a step.
#[derive(Debug, Default)]
pub(crate) struct Told {
    operators: Vec<Explained>,
    state_bytes: usize,
    /// The number of rows of the result, if the operators keep the result.
    rows: Option<u64>,
    closed: Option<(usize, usize)>,
}

impl Told {
    /// Returns the status of a flow now.
    pub(crate) fn of(flow: &Flow) -> Told {
        Told { rows: counted(flow), ..Told::little_of(flow) }
    }

    /// The same without reading the result: its rows are counted if their number follows from that of the keys.
    pub(crate) fn little_of(flow: &Flow) -> Told {
        Told {
            operators: flow.operators(),
            state_bytes: flow.state_bytes(),
            closed: flow.result().closed(),
            rows: flow.result().rows().map(|rows| rows as u64),
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
            part_hashes: part_hashes(&flow),
            told: Told::default(),
            owns_shared: false,
            flow: Some(flow),
            panic: None,
        })
    }

    /// Returns true if the result is append-only.
    pub(crate) fn append_only(&self) -> bool {
        self.append_only
    }

    /// Returns columns that no two rows of the result share, if known.
    pub(crate) fn key(&self) -> Option<&[usize]> {
        self.key.as_deref()
    }

    /// Returns the cost of the most expensive operator.
    pub(crate) fn cost(&self) -> Cost {
        self.cost
    }

    /// Returns the number of late rows, if the windows of the flow close.
    pub(crate) fn late(&self) -> Option<u64> {
        self.here().and_then(Flow::late)
    }

    /// Returns true if the answer depends on the inputs alone, not on when their changes arrive.
    pub(crate) fn is_timeless(&self) -> bool {
        self.timeless
    }

    /// True if a step may take the sum of several epochs, see [`Flow::is_additive`].
    pub(crate) fn is_additive(&self) -> bool {
        self.additive
    }

    /// Returns the columns of the result with event times.
    pub(crate) fn times(&self) -> &[(usize, EventTime)] {
        &self.times
    }

    /// Returns true if another flow may have a part in common with it.
    pub(crate) fn may_have_parts_of(&self, other: &OwnFlow) -> bool {
        self.part_hashes.iter().any(|hash| other.part_hashes.contains(hash))
    }

    /// Returns the flow, unless it is lent.
    pub(crate) fn here(&self) -> Option<&Flow> {
        self.flow.as_ref()
    }

    /// Returns the flow for changes, unless it is lent.
    pub(crate) fn here_mut(&mut self) -> Option<&mut Flow> {
        self.flow.as_mut()
    }

    /// Lends the flow to a thread.
    pub(crate) fn lend(&mut self) -> Option<Flow> {
        self.flow.take()
    }

    /// Takes the flow back.
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
        flow.map_or(Ok(()), |flow| flow.sharing().own_shared()).map_err(error::flow)
    }

    /// Records the status, for readers that ask while the flow is lent for the first time.
    pub(crate) fn tell(&mut self) {
        self.told = self.flow.as_ref().map_or_else(Told::default, Told::of);
    }

    /// The same without reading the result.
    pub(crate) fn tell_little(&mut self) {
        self.told = self.flow.as_ref().map_or_else(Told::default, Told::little_of);
    }

    /// Steps the flow. If not `read`, rows of the result may be left out.
    pub(crate) fn step(&mut self, cut: &Cut, inputs: &[&Delta], read: bool) -> Result<Change> {
        let flow = self.flow.as_mut().ok_or_else(lent)?;
        let (change, panic) = step(flow, cut, inputs, read);
        self.panic = panic;
        change
    }

    /// Passes the work of each operator since the last call to `each`, unless it is lent.
    pub(crate) fn report(&mut self, mut each: impl FnMut(usize, Meter)) {
        self.flow.iter_mut().for_each(|flow| flow.report(&mut each));
    }

    /// Takes the trace of the panic, or of the broken invariant, that ended the last step. The operators are unusable
    /// then.
    pub(crate) fn take_panic(&mut self) -> Option<PanicTrace> {
        self.panic.take()
    }

    /// Records how a step on a thread ended.
    pub(crate) fn note_panic(&mut self, panic: Option<PanicTrace>) {
        self.panic = panic;
    }

    /// Continues from a copy of another flow's state, see [`Flow::succeed`].
    pub(crate) fn succeed(
        &mut self,
        succession: &Succession,
        copy: StateCopy,
        cut: &Cut,
        contents: &[&Delta],
    ) -> Result<Change> {
        succeed(self.flow.as_mut().ok_or_else(lent)?, succession, copy, cut, contents)
    }

    /// True if an epoch with this cut must be stepped even if no input changes. False for a lent flow: its epochs wait.
    pub(crate) fn is_due(&self, cut: &Cut) -> bool {
        self.here().is_some_and(|flow| flow.is_due(cut))
    }

    /// Returns the time of the next step that is due even if no input changes, if known.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        self.here()?.wake_at()
    }

    /// Returns the time of the answer, if the answer depends on the time.
    pub(crate) fn now(&self) -> Timestamp {
        self.here().map_or_else(Timestamp::default, Flow::now)
    }

    /// Returns the whole result, if the operators keep it.
    pub(crate) fn content(&self) -> Result<Vec<RecordBatch>> {
        let flow = self.here().ok_or_else(lent)?;
        flow.content().unwrap_or(Ok(Vec::new())).map_err(error::flow)
    }

    /// Returns the rows of the result that a reader wants, and perhaps others, if they are found without a scan.
    pub(crate) fn content_wanted(&self, wanted: &Wanted) -> Option<Result<Vec<RecordBatch>>> {
        Some(self.here()?.result().wanted(wanted)?.map_err(error::flow))
    }

    /// Returns the number of rows of the result that the operators keep.
    pub(crate) fn result_rows(&self) -> Option<u64> {
        match self.here() {
            Some(flow) => counted(flow),
            None => self.told.rows,
        }
    }

    /// Returns the number of rows of closed windows that the flow keeps for readers, and their approximate bytes.
    pub(crate) fn closed(&self) -> Option<(usize, usize)> {
        self.here().map_or(self.told.closed, |flow| flow.result().closed())
    }

    /// Returns the parts that its joins may share with other flows.
    pub(crate) fn shareable(&self) -> Vec<Shareable<'_>> {
        self.here().map_or_else(Vec::new, Flow::shareable)
    }

    /// Returns the arrangements that it shares with other flows.
    pub(crate) fn shared(&self) -> Vec<Arc<Arrangement>> {
        self.shareable().into_iter().filter_map(|found| found.shared.cloned()).collect()
    }

    /// Returns the number of columns that the flow knows of the relation at a place; the maximum if it is lent.
    pub(crate) fn columns_known(&self, relation: usize) -> usize {
        self.here().map_or(usize::MAX, |flow| flow.inputs().columns_known(relation))
    }

    /// Returns the operators from the root down, as of now, or of when the loop lent them.
    pub(crate) fn operators(&self) -> Vec<Explained> {
        self.here().map_or_else(|| self.told.operators.clone(), Flow::operators)
    }

    /// Returns the name of the operator at a node; none for an input, or while it is lent.
    pub(crate) fn operator_name(&self, node: usize) -> Option<&'static str> {
        operator_name(self.here()?, node)
    }

    /// Returns the bytes of spilled state.
    pub(crate) fn spilled_bytes(&self) -> usize {
        self.here().map_or_else(|| self.told.operators.iter().map(spilled).sum(), Flow::spilled_bytes)
    }

    /// Returns the approximate bytes of the operators' state.
    pub(crate) fn state_bytes(&self) -> usize {
        self.here().map_or(self.told.state_bytes, Flow::state_bytes)
    }
}

/// Returns the number of rows of the result that operators keep. None for a large result if counting must read it.
fn counted(flow: &Flow) -> Option<u64> {
    if let Some(rows) = flow.result().rows() {
        return Some(rows as u64);
    }
    if flow.state_bytes() > COUNTED_BYTES_MAX {
        return None;
    }
    let rows = flow.content()?.ok()?;
    Some(rows.iter().map(|batch| batch.num_rows() as u64).sum())
}

/// Steps a flow. Errors have the same messages as in a SELECT.
pub(super) fn step(
    flow: &mut Flow,
    cut: &Cut,
    inputs: &[&Delta],
    read: bool,
) -> (Result<Change>, Option<PanicTrace>) {
    caught(|| flow.step_for(cut, inputs, read))
}

/// Makes a flow continue from a copy of another flow's state.
pub(super) fn succeed(
    flow: &mut Flow,
    succession: &Succession,
    copy: StateCopy,
    cut: &Cut,
    contents: &[&Delta],
) -> Result<Change> {
    caught(|| flow.succeed(succession, copy, cut, contents)).0
}

/// Reads the operators of a flow. A panic is an error, and the flow is still usable.
pub(super) fn read<T>(
    what: &str,
    flow: &Flow,
    read: impl FnOnce(&Flow) -> millstream_flow::Result<T>,
) -> Result<T> {
    match std::panic::catch_unwind(AssertUnwindSafe(|| read(flow))) {
        Ok(read) => read.map_err(error::flow),
        Err(said) => Err(panicked(what, said.as_ref())),
    }
}

/// Contains a panic: it ends this query, not the engine, and the flow is not stepped again. The same holds for an
/// operator that finds its state broken.
fn caught(step: impl FnOnce() -> millstream_flow::Result<Change>) -> (Result<Change>, Option<PanicTrace>) {
    let stepped = match std::panic::catch_unwind(AssertUnwindSafe(step)) {
        Ok(stepped) => stepped,
        Err(said) => {
            let error = panicked("a step of the query", said.as_ref());
            // A column that is too large would be too large again after a rebuild, so only bugs leave a trace.
            let trace = (error.kind == Kind::Bug).then(PanicTrace::of_caught);
            return (Err(error), trace);
        }
    };
    let broken = matches!(&stepped, Err(millstream_flow::Error::Bug(_)));
    let change = stepped.map_err(error::flow).and_then(|mut change| {
        change.errors = in_words(change.errors)?;
        Ok(change)
    });
    (change, broken.then(PanicTrace::default))
}

fn spilled(operator: &Explained) -> usize {
    if operator.place.repeated { 0 } else { operator.meter.spilled_bytes }
}

fn lent() -> Error {
    Error::bug("the operators of the query are being stepped elsewhere")
}
