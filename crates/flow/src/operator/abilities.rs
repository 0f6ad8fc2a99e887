//! The abilities that only some operators have: a small trait each, found through
//! [`Operator::abilities`](super::Operator::abilities) or an accessor of its own if it changes the operator.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::{Chunk, Cut, Delta, Timestamp};
use millstream_state::Rows;

use crate::Result;
use crate::arrangement::{Arrangement, By};
use crate::failing_rows::StageOver;
use crate::failure::Failure;
use crate::late_rows::Lateness;
use crate::point_lookup::Wanted;

/// The abilities of an operator that don't change it; `None` for those that it lacks.
#[derive(Clone, Copy, Default)]
pub struct Abilities<'a> {
    /// Makes each output row of one input row.
    pub row_by_row: Option<&'a dyn RowByRow>,
    /// Has steps that are due by time.
    pub timers: Option<&'a dyn Timers>,
    /// Closes windows.
    pub windows: Option<&'a dyn ClosesWindows>,
    /// Expires idle keys.
    pub expiry: Option<&'a dyn ExpiresKeys>,
    /// Keeps its result.
    pub result: Option<&'a dyn KeepsResult>,
}

impl Abilities<'_> {
    /// Returns true if a step is due in this epoch even if no input changes.
    pub fn is_due(&self, cut: &Cut) -> bool {
        self.timers.is_some_and(|timers| timers.is_due(cut))
    }

    /// Returns the time of the next step that is due even if no input changes, if known.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.timers?.wake_at()
    }

    /// Describes the late rows, if windows close.
    pub fn late(&self) -> Option<Lateness> {
        self.windows.map(|windows| windows.late())
    }

    /// Returns the event that held rows wait for, in words.
    pub fn waiting(&self) -> Option<String> {
        self.windows?.waiting()
    }

    /// Returns the content of a kept result: see [`KeepsResult::content`].
    pub fn content(&self, input: &dyn Fn(usize) -> Content) -> Content {
        self.result?.content(input)
    }

    /// Returns the wanted rows of a kept result: see [`KeepsResult::content_wanted`].
    pub fn content_wanted(&self, wanted: &Wanted, input: &dyn Fn(usize, &Wanted) -> Content) -> Content {
        self.result?.content_wanted(wanted, input)
    }
}

/// Makes each output row of one input row, whatever other rows there are, and keeps no state.
pub trait RowByRow {
    /// Returns the output rows of some input rows; each has the weight of its row.
    fn run_rows(&self, rows: &Chunk) -> Result<Vec<Chunk>>;
    /// Returns the stages in which rows may fail.
    fn stages(&self) -> &[Arc<StageOver>] {
        &[]
    }
}

/// Has steps that are due by time.
pub trait Timers {
    /// Returns true if it must be stepped in this epoch even if no input changes.
    fn is_due(&self, cut: &Cut) -> bool;
    /// Returns the time of the next step that is due even if no input changes, if known.
    fn wake_at(&self) -> Option<Timestamp> {
        None
    }
}

/// Closes windows by event time. Only the steps of such an operator may return late rows
/// ([`super::Output::late`]).
pub trait ClosesWindows {
    /// Describes the late rows.
    fn late(&self) -> Lateness;
    /// Returns the event that the operator waits for before it emits held rows, in words; `None` if it holds
    /// none.
    fn waiting(&self) -> Option<String> {
        None
    }
    /// Returns the rows retained by [`RetainsClosed::retain_closed`].
    fn closed(&self) -> Option<&Rows> {
        None
    }
}

/// Can retain results of closed windows.
pub trait RetainsClosed {
    /// Retains (or no longer retains) results of closed windows for readers, if they are not kept anyway.
    /// Called before the first step, or to drop them.
    fn retain_closed(&mut self, retain: bool);
}

/// Expires idle keys.
pub trait ExpiresKeys {
    /// Returns what it has forgotten.
    fn counted(&self) -> Counted;
}

/// Counts of keys and rows forgotten by `state_ttl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// The number of forgotten keys.
    pub keys: u64,
    /// The number of deletes of forgotten rows.
    pub deletes: u64,
}

/// All rows of a result, if they are kept.
pub type Content = Option<Result<Vec<RecordBatch>>>;

/// Keeps its result, or computes it from a kept result of its inputs.
pub trait KeepsResult {
    /// Returns all rows of the result, if it follows from the state; n copies are n rows. `input` returns the
    /// content of the input at a place, if that is kept.
    fn content(&self, input: &dyn Fn(usize) -> Content) -> Content;
    /// Returns true if the operator keeps the whole result itself, and needs no content of its inputs.
    fn keeps_all(&self) -> bool {
        false
    }
    /// Returns the rows of the result that a reader wants, and perhaps others, if they are found without a
    /// scan. `input` returns those of the input at a place.
    fn content_wanted(&self, _wanted: &Wanted, _input: &dyn Fn(usize, &Wanted) -> Content) -> Content {
        None
    }
    /// Returns the number of rows of the result, if it is known without reading them.
    fn result_rows(&self) -> Option<usize> {
        None
    }
}

/// Keeps its state by key, and can forget keys one by one.
pub trait KeyedState {
    /// Returns the key of the state.
    fn keyed_by(&self) -> Result<KeyedBy>;
    /// Forgets keys as if their rows had never existed, and outputs nothing. There is one array for each key
    /// column; each key occurs once.
    fn forget(&mut self, keys: &[ArrayRef]) -> Result<Forgotten>;
    /// Declares that these key columns together have few values at a time, such as windows that close; called
    /// before the first step.
    fn has_few(&mut self, _columns: &[usize]) {}
    /// Asks the operator to report new keys from now on; returns false if it can't. A key that was deleted
    /// and inserted again is new.
    fn tell_opened(&mut self) -> bool {
        false
    }
}

/// The key of an operator's state.
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
}

/// The outputs of forgotten keys.
#[derive(Debug, Default)]
pub struct Forgotten {
    /// Rows, each with the place of its key among the forgotten keys; only if [`KeyedBy::remembers`].
    pub rows: Vec<(RecordBatch, Vec<u32>)>,
    /// The failures of the keys, which are retracted.
    pub failures: Vec<Failure>,
}

/// Keeps the rows of its inputs, its *sides*, by key: in itself, or in arrangements that several operators
/// share.
pub trait ArrangesSides {
    /// Moves the rows of a side to an arrangement, or from one to another that has them; `columns` are the
    /// places of the side's columns there.
    fn move_out(&mut self, at: usize, arrangement: &Arc<Arrangement>, columns: Vec<usize>) -> Result<()>;
    /// Moves the rows of a side into the operator.
    fn move_in(&mut self, at: usize, rows: Delta) -> Result<()>;
    /// Returns an arrangement of the rows of a side that the operator keeps itself: the columns at these
    /// places, of which `columns` are the numbers in the relation. `None` if the keys must be inserted anew.
    fn arranged(
        &self,
        at: usize,
        by: By,
        columns: Vec<usize>,
        places: &[usize],
    ) -> Result<Option<Arrangement>>;
    /// Returns all rows of a side that the operator keeps itself.
    fn content_of(&self, at: usize) -> Result<Delta>;
    /// Sets whether the operator accounts for the arrangement of a side in its state.
    fn count_elsewhere(&mut self, at: usize, counted: bool);
}
