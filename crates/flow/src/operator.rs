//! The interface of an incremental operator.

mod abilities;

use std::fmt::Debug;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use millstream_delta::{Cut, Delta};
use millstream_state::{Spillable, Tables};

use crate::failing_rows::FailingRows;
use crate::failure::Failure;
use crate::late_rows::Late;
use crate::{Error, Result};
pub use abilities::{
    Abilities, ArrangesSides, ClosesWindows, Content, Counted, ExpiresKeys, Forgotten, KeepsResult, KeyedBy,
    KeyedState, RetainsClosed, RowByRow, Timers,
};

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
    /// The columns that the operator reads of each input, ascending; `None`: all.
    pub columns_read: Option<Vec<Vec<usize>>>,
    /// True if the operator outputs one row for each input row and keeps no state. If nobody reads its rows,
    /// it needs no input.
    pub hands_on: bool,
    /// True if the operator takes the batches of a window ([`crate::BatchWindow`]) as they end and drops them
    /// by itself. It is stepped with each batch at the batch's time, and whenever the window is evaluated,
    /// even without rows. Its answer is that over the batches of the window that ends at the cut's time.
    pub slides: bool,
    /// True if the output depends on how rows are cut into epochs.
    pub depends_on_cuts: bool,
    /// True if the answer depends on the time of the epoch, not on the rows of the inputs alone.
    pub follows_time: bool,
    /// True if all state belongs to open windows, each with an answer that depends on its own rows alone.
    pub keeps_open_windows: bool,
}

impl Properties {
    /// Returns the properties of most operators with these columns: an updating output without a known key,
    /// and an epoch that costs the rows of its delta.
    pub fn of(schema: SchemaRef) -> Properties {
        Properties {
            schema,
            append_only: false,
            key: None,
            cost: Cost::Delta,
            columns_read: None,
            hands_on: false,
            slides: false,
            depends_on_cuts: false,
            follows_time: false,
            keeps_open_windows: false,
        }
    }

    /// Returns true if the answer depends on when rows arrive or how they are cut into epochs.
    pub fn is_timed(&self) -> bool {
        self.slides || self.depends_on_cuts || self.follows_time
    }

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
    /// The late rows, dropped since their windows had closed. See [`ClosesWindows::late`].
    pub late: Vec<Late>,
    /// The keys that have rows since this step, if requested: see [`KeyedState::tell_opened`].
    pub opened: Option<Vec<ArrayRef>>,
}

impl From<Delta> for Output {
    fn from(rows: Delta) -> Output {
        Output { rows, ..Output::default() }
    }
}

/// One node of a flow: turns the deltas of its inputs into the delta of its output.
///
/// After every step the sum of all output deltas equals the batch answer over the sum of all input deltas. A
/// step is a function of (state, cut, input deltas). Rows for which an expression fails are not part of the
/// answer: they are failures, which are summed in the same way and retracted with the rows.
///
/// Facts known when the operator is made are in its [`Properties`]. Abilities that only some operators have
/// are traits of their own. A wrapper of another operator decides on each of them: the default is to lack it.
pub trait Operator: State + Send + Debug {
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
    /// Returns the abilities that don't change the operator.
    fn abilities(&self) -> Abilities<'_> {
        Abilities::default()
    }
    /// Returns the operator as one that can forget keys, if it is one.
    fn as_keyed(&mut self) -> Option<&mut dyn KeyedState> {
        None
    }
    /// Returns the operator as one that can retain results of closed windows, if it is one.
    fn as_retaining(&mut self) -> Option<&mut dyn RetainsClosed> {
        None
    }
    /// Returns the operator as one whose sides may be in shared arrangements, if it is one.
    fn as_arranging(&mut self) -> Option<&mut dyn ArrangesSides> {
        None
    }
}

/// Forgets keys of an operator that can: see [`KeyedState::forget`].
pub(crate) fn forget(operator: &mut dyn Operator, keys: &[ArrayRef]) -> Result<Forgotten> {
    match operator.as_keyed() {
        Some(keyed) => keyed.forget(keys),
        None => Err(Error::Bug(format!("{} can't expire keys", operator.describe().name))),
    }
}

/// The state of an operator.
pub trait State {
    /// Drops all state, as if the operator had never been stepped.
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
    /// Returns the number of rows of state.
    fn state_rows(&self) -> usize;
    /// Returns the approximate bytes of memory of the state.
    fn state_bytes(&self) -> usize;
    /// Shows the parts of the state that may be spilled, if any.
    fn each_store(&mut self, _show: &mut dyn FnMut(&mut dyn Spillable)) {}
}

/// An operator without state.
pub(crate) trait NoState {}

impl<T: NoState> State for T {
    fn reset(&mut self) -> Result<()> {
        Ok(())
    }

    fn save(&self) -> Result<Tables> {
        Ok(Tables::default())
    }

    fn load(&mut self, _kept: &mut Tables) -> Result<()> {
        Ok(())
    }

    fn state_rows(&self) -> usize {
        0
    }

    fn state_bytes(&self) -> usize {
        0
    }
}
