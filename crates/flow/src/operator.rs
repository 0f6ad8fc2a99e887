//! The interface of an incremental operator.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::{Chunk, Cut, Delta, Timestamp};
use millstream_state::{Rows, Spillable, Tables};

use crate::failing_rows::{FailingRows, StageOver};
use crate::failure::Failure;
use crate::late::{Late, Lateness};
use crate::operators::join::Join;
use crate::point::Wanted;
use crate::{Error, Result};

/// The cost of an epoch, cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cost {
    /// The rows of the delta.
    Delta,
    /// The rows of the keys that the delta touches.
    Keys,
    /// The rows of the delta times those of a join's other side.
    Pairs,
    /// The rows of the delta, or the whole input where the few rows of one side change.
    Few,
    /// The whole input.
    Whole,
}

impl Cost {
    /// Returns the cost's name in EXPLAIN.
    pub fn name(self) -> &'static str {
        match self {
            Cost::Delta => "delta",
            Cost::Keys => "touched keys",
            Cost::Pairs => "delta times the other side",
            Cost::Few => "delta, or whole",
            Cost::Whole => "whole",
        }
    }
}

/// The static properties of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// The columns of the output.
    pub schema: SchemaRef,
    /// True if the output is append-only.
    pub append_only: bool,
    /// Columns that together are unique in the output, if known. Empty: the output has at most one row.
    pub key: Option<Vec<usize>>,
    /// The cost of an epoch.
    pub cost: Cost,
}

impl Properties {
    /// Returns the names of the key's columns: `(a, b)`.
    pub fn key_text(&self) -> Option<String> {
        let names: Vec<&str> =
            self.key.as_ref()?.iter().map(|at| self.schema.field(*at).name().as_str()).collect();
        Some(format!("({})", names.join(", ")))
    }
}

/// The growth of an operator's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Growth {
    /// The operator keeps no state.
    #[default]
    Nothing,
    /// The state has a fixed bound.
    Bounded,
    /// The state has a bound, for this reason.
    BoundedBy(String),
    /// The state grows with this quantity.
    With(String),
}

impl Growth {
    /// Returns the growth of state that is kept once for each distinct value of these columns.
    pub fn of_values(columns: &[FieldRef]) -> Growth {
        let names: Vec<&str> = columns.iter().map(|column| column.name().as_str()).collect();
        let name = names.join(", ");
        let boolean = columns.iter().all(|column| *column.data_type() == DataType::Boolean);
        match (boolean, names.len()) {
            (_, 0) => Growth::Bounded,
            (true, 1) => Growth::BoundedBy(format!("{name} is boolean")),
            (true, _) => Growth::BoundedBy(format!("({name}) are boolean")),
            (false, 1) => Growth::With(format!("the distinct values of {name}")),
            (false, _) => Growth::With(format!("the distinct values of ({name})")),
        }
    }

    /// Returns the growth as EXPLAIN shows it; empty if there is no state.
    pub fn text(&self) -> String {
        match self {
            Growth::Nothing => String::new(),
            Growth::Bounded => "bounded".into(),
            Growth::BoundedBy(why) => format!("bounded: {why}"),
            Growth::With(what) => format!("unbounded: grows with {what}"),
        }
    }
}

/// An operator as EXPLAIN shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// The operator's name.
    pub name: &'static str,
    /// Its expressions.
    pub detail: String,
    /// The operator's state, in words; empty if it keeps none.
    pub state: String,
    /// The columns of the state's key, as `(a, b)`, if there is one.
    pub state_key: Option<String>,
    /// The growth of the state.
    pub growth: Growth,
    /// The reason why no cheaper operator applies; empty for the cheapest.
    pub why: String,
}

/// The output of a step.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The change of the operator's rows.
    pub rows: Delta,
    /// The rows and keys without an answer; with a negative weight those that have one again.
    pub failures: Vec<Failure>,
    /// Rows without an answer, by the stage in which they fail.
    pub failing: Vec<FailingRows>,
    /// The number of further rows, left out since nobody reads them: see [`Operator::step_unread`].
    pub left_out: u64,
    /// The late rows, dropped since their windows had closed. See [`Operator::late`].
    pub late: Vec<Late>,
    /// The keys that have rows since this step, if requested: see [`Operator::tell_opened`].
    pub opened: Option<Vec<ArrayRef>>,
}

impl From<Delta> for Output {
    fn from(rows: Delta) -> Output {
        Output { rows, ..Output::default() }
    }
}

/// All rows of a result, if they are kept.
pub type Content = Option<Result<Vec<RecordBatch>>>;

/// The key of an operator's state, if the operator can forget keys one by one.
#[derive(Clone, Debug)]
pub struct KeyedBy {
    /// The types of the key's columns.
    pub types: Vec<DataType>,
    /// The key of a row of each input. There are fewer columns than types if a row has a key in each of
    /// several grouping sets. The keys of a set then have NULL for the columns that it lacks, and end with a
    /// column that identifies the set.
    pub keys: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    /// True if no state is kept of rows with a NULL in their key.
    pub nulls_apart: bool,
    /// True if the key's output, at most one row, stays in the result when the key is forgotten, and is
    /// retracted when the key returns. The result then begins with the key's columns, if it is kept.
    pub remembers: bool,
    /// True if the state of a key is just its output: forgetting idle keys then saves nothing.
    pub is_result: bool,
    /// True if each key that has state has one row of the result.
    pub one_row_each: bool,
}

/// The outputs of forgotten keys.
#[derive(Debug, Default)]
pub struct Forgotten {
    /// Rows, each with the place of its key among the forgotten keys; only if [`KeyedBy::remembers`].
    pub rows: Vec<(RecordBatch, Vec<u32>)>,
    /// The failures of the keys, which are retracted.
    pub failures: Vec<Failure>,
}

/// Counts of keys and rows forgotten by `state_ttl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// The number of forgotten keys.
    pub keys: u64,
    /// The number of deletes of forgotten rows.
    pub deletes: u64,
}

/// An operator without state that makes each output row of one input row, whatever other rows there are.
pub trait RowByRow {
    /// Returns the output rows of some input rows; each has the weight of its row.
    fn run_rows(&self, rows: &Chunk) -> Result<Vec<Chunk>>;
    /// Returns the stages in which rows may fail.
    fn stages(&self) -> &[Arc<StageOver>] {
        &[]
    }
}

/// One node of a flow: turns the deltas of its inputs into the delta of its output.
///
/// After every step the sum of all output deltas equals the batch answer over the sum of all input deltas. A
/// step is a function of (state, cut, input deltas). Rows for which an expression fails are not part of the
/// answer: they are failures, which are summed in the same way and retracted with the rows.
pub trait Operator: Send + Debug {
    /// Returns the properties derived when the operator was made.
    fn properties(&self) -> &Properties;
    /// Describes the operator for EXPLAIN.
    fn describe(&self) -> Description;
    /// Steps one epoch. The first call comes when the query is created, with the content of the inputs,
    /// perhaps empty: an operator whose answer over no input has rows emits them then. Later calls come only
    /// if an input changes. An error, never one of data, leaves the state unknown.
    fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output>;
    /// Steps one epoch if nobody reads the rows. An operator that keeps its result anyway may leave the rows
    /// out and return their number, but it never leaves out a failure.
    fn step_unread(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        self.step(cut, inputs)
    }
    /// Returns the columns that it reads of an input, ascending; `None`: all of them.
    fn columns_read(&self, _input: usize) -> Option<Vec<usize>> {
        None
    }
    /// Returns true if the operator outputs one row for each input row and keeps no state. If nobody reads
    /// its rows, it needs no input.
    fn hands_on(&self) -> bool {
        false
    }
    /// Returns the operator as one that makes each output row of one input row, if it is one.
    fn as_row_by_row(&self) -> Option<&dyn RowByRow> {
        None
    }
    /// Returns true if the operator takes the batches of a window ([`crate::BatchWindow`]) as they end and
    /// drops them by itself. It is stepped with each batch at the batch's time, and whenever the window is
    /// evaluated, even without rows. Its answer is that over the batches of the window that ends at the cut's
    /// time.
    fn slides(&self) -> bool {
        false
    }
    /// Returns true if the output depends on how rows are cut into epochs.
    fn depends_on_cuts(&self) -> bool {
        false
    }
    /// Returns true if it must be stepped in this epoch even if no input changes.
    fn is_due(&self, _cut: &Cut) -> bool {
        false
    }
    /// Returns the time of the next step that is due even if no input changes, if known.
    fn wake_at(&self) -> Option<Timestamp> {
        None
    }
    /// Returns true if the answer depends on the time of the epoch, not on the rows of the inputs alone.
    fn follows_time(&self) -> bool {
        false
    }
    /// Returns the key of the state, if the operator can forget keys one by one.
    fn keyed_by(&self) -> Option<KeyedBy> {
        None
    }
    /// Declares that these key columns together have few values at a time, such as windows that close; called
    /// before the first step.
    fn has_few(&mut self, _columns: &[usize]) {}
    /// Asks the operator to report new keys from now on; returns false if it can't. A key that was deleted
    /// and inserted again is new.
    fn tell_opened(&mut self) -> bool {
        false
    }
    /// Forgets keys as if their rows had never existed, and outputs nothing. There is one array for each key
    /// column; each key occurs once.
    fn forget(&mut self, _keys: &[ArrayRef]) -> Result<Forgotten> {
        Err(Error::Bug(format!("{} can't expire keys", self.describe().name)))
    }
    /// Returns what it has forgotten, if it forgets keys.
    fn counted(&self) -> Option<Counted> {
        None
    }
    /// Describes the late rows, if the operator's windows close; only then its steps may return
    /// [`Output::late`].
    fn late(&self) -> Option<Lateness> {
        None
    }
    /// Returns true if all state belongs to open windows, each with an answer that depends on its own rows
    /// alone.
    fn keeps_open_windows(&self) -> bool {
        false
    }
    /// Returns the event that the operator waits for before it emits held rows, in words; `None` if it holds
    /// none.
    fn waiting(&self) -> Option<String> {
        None
    }
    /// Drops all state, as if it had never been stepped.
    fn reset(&mut self) -> Result<()>;
    /// Saves all state as tables.
    fn save(&self) -> Result<Tables>;
    /// Saves the state for a checkpoint: parts that track their changes save only these, as a
    /// [`millstream_state::Run`]. Before a load the caller merges them with earlier checkpoints.
    fn save_changed(&self) -> Result<Tables> {
        self.save()
    }
    /// Loads state that an equal operator has saved. The operator outputs nothing, and its next answers are
    /// those that the other operator would give. Called before the first step; removes all tables that it
    /// uses from `kept`.
    fn load(&mut self, kept: &mut Tables) -> Result<()>;
    /// Returns all rows of the maintained result, if it follows from the state; n copies are n rows. `input`
    /// returns the content of the input at a place, if that is kept.
    fn content(&self, input: &dyn Fn(usize) -> Content) -> Content;
    /// Retains (or no longer retains) results of closed windows for readers, if they are not kept anyway.
    /// Called before the first step, or to drop them.
    fn keep_closed(&mut self, _keep: bool) {}
    /// Returns the rows retained by [`Operator::keep_closed`].
    fn closed(&self) -> Option<&Rows> {
        None
    }
    /// Returns the rows of the result that a reader wants, and perhaps others, if they are found without a
    /// scan. `input` returns those of the input at a place.
    fn content_wanted(&self, _wanted: &Wanted, _input: &dyn Fn(usize, &Wanted) -> Content) -> Content {
        None
    }
    /// Returns the operator as a join whose sides may be in shared arrangements, if it is one.
    fn as_join(&mut self) -> Option<&mut Join> {
        None
    }
    /// Returns the number of rows of state.
    fn state_rows(&self) -> usize;
    /// Returns the approximate bytes of memory of its state.
    fn state_bytes(&self) -> usize;
    /// Shows the parts of the state that may be spilled, if any.
    fn each_store(&mut self, _show: &mut dyn FnMut(&mut dyn Spillable)) {}
}
