//! The contract of an incremental operator.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::{Chunk, Cut, Delta, Timestamp};
use millstream_state::{Rows, Spillable, Tables};

use crate::failure::Failure;
use crate::late::{Late, Lateness};
use crate::operators::join::Join;
use crate::point::Wanted;
use crate::{Error, Result};

/// What an epoch costs, cheapest first.
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
    /// As EXPLAIN shows it.
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

/// What is known of an operator before it runs; derived once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// The columns of its output.
    pub schema: SchemaRef,
    /// Whether its output only ever inserts.
    pub append_only: bool,
    /// Columns that no two rows of its output share, where they are known; empty: it has one row at most.
    pub key: Option<Vec<usize>>,
    /// What an epoch costs.
    pub cost: Cost,
}

impl Properties {
    /// The key's columns by name: `(a, b)`.
    pub fn key_text(&self) -> Option<String> {
        let names: Vec<&str> =
            self.key.as_ref()?.iter().map(|at| self.schema.field(*at).name().as_str()).collect();
        Some(format!("({})", names.join(", ")))
    }
}

/// How what an operator keeps grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Growth {
    /// It keeps nothing.
    #[default]
    Nothing,
    /// It stays below a bound, whatever comes.
    Bounded,
    /// The same, for a reason that is said in words.
    BoundedBy(String),
    /// It grows with something, which is said in words.
    With(String),
}

impl Growth {
    /// Of what is kept once for each distinct value of these columns.
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

    /// As EXPLAIN shows it; empty where nothing is kept.
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
    /// What it keeps, in words; empty where it keeps nothing.
    pub state: String,
    /// The columns by which it is kept, as `(a, b)`, where it is kept by key.
    pub state_key: Option<String>,
    /// How that grows.
    pub growth: Growth,
    /// Why no cheaper operator serves; empty for the cheapest.
    pub why: String,
}

/// What a step puts out.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The change of its rows.
    pub rows: Delta,
    /// What it could not answer for, or what is mended, with a negative weight.
    pub failures: Vec<Failure>,
    /// How many more rows it would have put out had somebody taken them, see [`Operator::step_unread`].
    pub left_out: u64,
    /// What it did not take since it came too late: for windows that had closed. See [`Operator::late`].
    pub late: Vec<Late>,
    /// The keys of which it has rows since this step, where it was asked to tell: see [`Operator::tell_opened`].
    pub opened: Option<Vec<ArrayRef>>,
}

impl From<Delta> for Output {
    fn from(rows: Delta) -> Output {
        Output { rows, ..Output::default() }
    }
}

/// All rows of a result, where they are kept.
pub type Content = Option<Result<Vec<RecordBatch>>>;

/// By what an operator keeps its state, where it can forget keys one by one.
#[derive(Clone, Debug)]
pub struct KeyedBy {
    /// The types of the key's columns.
    pub types: Vec<DataType>,
    /// For each input what the key is of its rows. Fewer columns than types where a row has a key in each of several
    /// sets of them: a set's own then has NULL for the columns that aren't in it, and behind them what tells it from
    /// others.
    pub keys: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    /// Whether nothing is kept of rows whose key holds a NULL.
    pub nulls_apart: bool,
    /// Whether what it puts out of a key, a row at most, stands for the key: it is taken back when a key returns that
    /// was forgotten. The result begins with the key's columns then, where it is kept.
    pub remembers: bool,
    /// Whether all that is kept of a key is what it has put out: forgetting keys that are idle gains nothing then.
    pub is_result: bool,
}

/// What keys had put out that were forgotten.
#[derive(Debug, Default)]
pub struct Forgotten {
    /// Rows, each with the place of its key among those that were forgotten; where [`KeyedBy::remembers`] says so.
    pub rows: Vec<(RecordBatch, Vec<u32>)>,
    /// Failures of the keys, which go.
    pub failures: Vec<Failure>,
}

/// What was forgotten so far for `state_ttl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Keys.
    pub keys: u64,
    /// Deletes of rows that had been forgotten.
    pub deletes: u64,
}

/// One node of a maintained query: turns the deltas of its inputs into the delta of its output.
///
/// The sum of all deltas that an operator has put out equals the batch answer over the sum of all deltas it was
/// given, after every step. A step is a function of (state, cut, input deltas). Rows for which an expression fails
/// are not part of the answer: they are failures, summed in the same way, and go when the rows go.
pub trait Operator: Send + Debug {
    /// What was derived when it was made.
    fn properties(&self) -> &Properties;
    /// For EXPLAIN.
    fn describe(&self) -> Description;
    /// Takes one epoch. The first call comes at the query's creation, with whatever its inputs hold, perhaps
    /// nothing: an operator whose answer over no input has rows puts them out then. Later calls come only when an
    /// input changes. An error, which is never one of data, leaves the state unknown.
    fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output>;
    /// The same where nobody takes the rows: an operator that keeps its result anyway may leave them out and say how
    /// many they are, though never a failure.
    fn step_unread(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        self.step(cut, inputs)
    }
    /// Which columns of an input it looks at, ascending; `None`: all of them.
    fn columns_read(&self, _input: usize) -> Option<Vec<usize>> {
        None
    }
    /// Whether it puts out one row for each that it takes, whatever they are, and keeps nothing: where nobody takes its
    /// rows it need not be given any.
    fn hands_on(&self) -> bool {
        false
    }
    /// Returns true if it makes each row of its output of one row of an input, whatever other rows there are, and keeps
    /// nothing.
    fn is_row_by_row(&self) -> bool {
        false
    }
    /// The rows that an operator that is row by row makes of some rows of an input, each with the weight of its row.
    fn run_rows(&self, _rows: &Chunk) -> Result<Vec<Chunk>> {
        Ok(Vec::new())
    }
    /// Whether it takes the batches of a window ([`crate::BatchWindow`]) as they end and lets them go by itself: it
    /// is stepped with each batch at the batch's time, and whenever the window is looked at, rows or not. Its answer
    /// is that over the batches of the time up to the cut's.
    fn slides(&self) -> bool {
        false
    }
    /// Whether what it puts out depends on which rows come in one epoch.
    fn depends_on_cuts(&self) -> bool {
        false
    }
    /// Whether it must be stepped in this epoch even if no input changes.
    fn is_due(&self, _cut: &Cut) -> bool {
        false
    }
    /// When it must be stepped next even if no input changes, where it knows that.
    fn wake_at(&self) -> Option<Timestamp> {
        None
    }
    /// Whether its answer depends on the time of the epoch, not on the rows of its inputs alone.
    fn follows_time(&self) -> bool {
        false
    }
    /// By what it keeps its state, where it can forget keys one by one.
    fn keyed_by(&self) -> Option<KeyedBy> {
        None
    }
    /// Says that these of its key's columns together have few values at a time, as windows have that close; before its
    /// first step.
    fn has_few(&mut self, _columns: &[usize]) {}
    /// Asks it to tell from now on which keys are new; false: it doesn't know. A key that went and came again is new.
    fn tell_opened(&mut self) -> bool {
        false
    }
    /// Forgets keys, one array a column, each once, as though their rows had never come, and puts nothing out.
    fn forget(&mut self, _keys: &[ArrayRef]) -> Result<Forgotten> {
        Err(Error::Bug(format!("{} can't forget keys", self.describe().name)))
    }
    /// What it has forgotten, where it forgets.
    fn counted(&self) -> Option<Counted> {
        None
    }
    /// What is told of rows that came for windows that had closed, where its windows close; only then its steps may put
    /// out [`Output::late`].
    fn late(&self) -> Option<Lateness> {
        None
    }
    /// Whether all that it keeps is of windows that are open, each of which has an answer of its own: that to the rows
    /// in it, whatever comes for others.
    fn keeps_open_windows(&self) -> bool {
        false
    }
    /// What it waits for to put out what it holds back, in words; none where it holds nothing back.
    fn waiting(&self) -> Option<String> {
        None
    }
    /// Forgets everything, as if it had never been stepped.
    fn reset(&mut self) -> Result<()>;
    /// All that it keeps, as tables.
    fn save(&self) -> Result<Tables>;
    /// The same for a checkpoint: of what can tell what has changed only that, as [`millstream_state::Run`] has it. Whoever
    /// loads it has put it together with what checkpoints before have.
    fn save_changed(&self) -> Result<Tables> {
        self.save()
    }
    /// Goes on where another one of the same make stood that had saved this: puts nothing out, and answers from here on
    /// as that one would have. Called before its first step; takes out all that it knows of.
    fn load(&mut self, kept: &mut Tables) -> Result<()>;
    /// The result it maintains, where that follows from what is kept anyway: all its rows, n copies as n rows.
    /// `input` gives the content of the input at a place, where that is kept.
    fn content(&self, input: &dyn Fn(usize) -> Content) -> Content;
    /// Whether it keeps from now on, for readers, what it gives of windows that have closed, where else nothing of them is
    /// kept; asked before its first step, or that it be forgotten.
    fn keep_closed(&mut self, _keep: bool) {}
    /// What it keeps so.
    fn closed(&self) -> Option<&Rows> {
        None
    }
    /// The rows of that result that a reader wants, and perhaps others, where they are found without looking at all:
    /// `input` gives those of the input at a place.
    fn content_wanted(&self, _wanted: &Wanted, _input: &dyn Fn(usize, &Wanted) -> Content) -> Content {
        None
    }
    /// The join that it is, whose sides may be kept elsewhere.
    fn as_join(&mut self) -> Option<&mut Join> {
        None
    }
    /// How many rows it keeps.
    fn state_rows(&self) -> usize;
    /// How many bytes of memory its state takes, about.
    fn state_bytes(&self) -> usize;
    /// Shows what of its state may lie in files, where some may.
    fn each_store(&mut self, _show: &mut dyn FnMut(&mut dyn Spillable)) {}
}
