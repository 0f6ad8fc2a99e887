//! The gate before an operator whose windows close: it separates late rows from those in time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array};
use arrow::compute::{filter, not};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ScalarValue;
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::{Chunk, Cut, Delta, Timestamp};
use millstream_state::Tables;

use super::Window;
use crate::Result;
use crate::driver::evaluate;
use crate::event_time::{EventTime, count, of_count};
use crate::failure::{keep, surviving_exprs};
use crate::late_rows::{Late, Lateness};
use crate::operator::{Output, Timers};
use crate::persistence::{put_value, take_value};

/// The progress of closing, and the late rows.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The expressions to compute over each input's rows.
    exprs: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    /// The place of the window's time among the expressions.
    column: usize,
    time: EventTime,
    data_type: DataType,
    /// True if rows without a time are late as well, since their window never closes.
    closes_all: bool,
    closed: Option<Closed>,
    late: u64,
    /// The first open window, and the time when it closes if that depends on batch times alone.
    first: Option<i64>,
    closes_at: Option<Timestamp>,
}

/// The progress of closing.
#[derive(Debug)]
struct Closed {
    /// The lower bound of open windows' times.
    below: i64,
    /// The watermark behind the bound.
    watermark: ScalarValue,
}

/// Rows that are in time.
pub(super) struct Entered {
    pub(super) chunk: Chunk,
    /// The values of the expressions.
    pub(super) values: Vec<ArrayRef>,
    /// The times of the rows' windows.
    pub(super) times: Int64Array,
}

impl Gate {
    /// Returns the gate before an operator. `exprs` are the expressions to compute over each input's rows;
    /// the one at `column` is the window's time and has this type.
    pub(crate) fn new(
        exprs: Vec<Vec<Arc<dyn PhysicalExpr>>>,
        column: usize,
        (window, data_type): (&Window, DataType),
        closes_all: bool,
    ) -> Gate {
        let time = window.time.clone();
        let (closed, late, first, closes_at) = (None, 0, None, None);
        Gate { exprs, column, time, data_type, closes_all, closed, late, first, closes_at }
    }

    /// Returns the rows of an input's delta that are in time. Rows for which the expressions fail would fail
    /// in the operator for the same reason: they become failures here, and the operator doesn't get them.
    pub(super) fn enter(&mut self, input: usize, delta: &Delta, output: &mut Output) -> Result<Vec<Entered>> {
        let mut entered = Vec::with_capacity(delta.chunks.len());
        for chunk in delta.chunks.iter().filter(|chunk| chunk.rows.num_rows() > 0) {
            let exprs = &self.exprs[input];
            let pieces = surviving_exprs(exprs, chunk.clone(), &mut output.failures, |chunk| {
                evaluate(exprs, &chunk.rows)
            })?;
            for (chunk, values) in pieces {
                let piece = self.let_in(input, chunk, values, output)?;
                entered.extend((piece.chunk.rows.num_rows() > 0).then_some(piece));
            }
        }
        Ok(entered)
    }

    fn let_in(
        &mut self,
        input: usize,
        chunk: Chunk,
        values: Vec<ArrayRef>,
        output: &mut Output,
    ) -> Result<Entered> {
        let times = count(&values[self.column])?;
        let below = self.closed.as_ref().filter(|_| !self.time.gated).map(|closed| closed.below);
        let is_late = |time: Option<i64>| match time {
            Some(time) => below.is_some_and(|below| time < below),
            None => self.closes_all,
        };
        let all_in_time = match times.null_count() {
            0 => below.is_none_or(|below| times.values().iter().all(|time| *time >= below)),
            _ => false,
        };
        if all_in_time {
            return Ok(Entered { chunk, values, times });
        }
        let in_time: BooleanArray = times.iter().map(|time| Some(!is_late(time))).collect();
        if in_time.true_count() == times.len() {
            return Ok(Entered { chunk, values, times });
        }
        let is_late = not(&in_time)?;
        let windows = filter(&values[self.column], &is_late)?;
        self.put_aside(
            Late { input, rows: keep(&chunk, &is_late)?, windows, watermark: self.watermark()? },
            output,
        );
        let values = values.iter().map(|column| Ok(filter(column, &in_time)?)).collect::<Result<Vec<_>>>()?;
        let times = count(&values[self.column])?;
        Ok(Entered { chunk: keep(&chunk, &in_time)?, values, times })
    }

    /// Emits rows as late.
    pub(crate) fn put_aside(&mut self, late: Late, output: &mut Output) {
        self.late += late.count();
        output.late.push(late);
    }

    /// Returns the watermark that defines late rows; NULL before there is one.
    pub(crate) fn watermark(&self) -> Result<ScalarValue> {
        Ok(match &self.closed {
            Some(closed) => closed.watermark.clone(),
            None => ScalarValue::try_from(&self.time.watermark_type())?,
        })
    }

    /// Follows the watermark at the end of an epoch; if it moved, returns the time below which windows are
    /// now closed.
    pub(crate) fn pass(&mut self, cut: &Cut) -> Result<Option<i64>> {
        let Some(watermark) = self.time.watermark_at(cut)? else { return Ok(None) };
        if let Some(closed) = self.closed.as_ref().filter(|closed| closed.watermark == watermark) {
            // Windows below the bound that were let in close at once.
            return Ok(self.time.gated.then_some(closed.below));
        }
        let Some(below) = self.time.at(cut)? else { return Ok(None) };
        self.closed = Some(Closed { below, watermark });
        Ok(Some(below))
    }

    pub(crate) fn lateness(&self) -> Lateness {
        let watermark = self.time.watermark_type();
        Lateness { rows: self.late, window: self.data_type.clone(), watermark }
    }

    /// Records the first open window after an epoch.
    pub(crate) fn plan(&mut self, first: Option<i64>, cut: &Cut) -> Result<()> {
        if self.first != first {
            self.first = first;
            self.closes_at = match first {
                Some(first) => self.time.passes_at(first, cut.now)?,
                None => None,
            };
        }
        Ok(())
    }

    /// Returns the first open window's time as text.
    pub(super) fn first(&self) -> Option<String> {
        Some(text(self.first?, &self.data_type))
    }

    /// Returns the event that the first open window waits for, in words; `name` is that of the windows.
    pub(crate) fn waiting(&self, name: &str) -> Option<String> {
        let first = self.first()?;
        let when = match (self.closes_at, self.closing_watermark()) {
            (Some(at), _) => format!("at {at}"),
            (None, Some(watermark)) => format!("when the watermark reaches {watermark}"),
            (None, None) => "when the watermark has passed it".into(),
        };
        Some(format!(
            "its windows are emitted when they close: the first open one, of {name} = {first}, {when}"
        ))
    }

    /// Returns the watermark that closes the first open window, as text.
    fn closing_watermark(&self) -> Option<String> {
        let closed = self.closed.as_ref()?;
        let at = self.time.passes_with(self.first?, &closed.watermark).ok()??;
        let count = count(&at.to_array().ok()?).ok()?;
        Some(text(count.iter().next()??, &at.data_type()))
    }

    pub(crate) fn reset(&mut self) {
        (self.closed, self.late, self.first, self.closes_at) = (None, 0, None, None);
    }

    /// Saves the progress of closing and the number of late rows, beside the operator's own state.
    pub(crate) fn save(&self, kept: &mut Tables) -> Result<()> {
        if let Some(Closed { below, watermark }) = &self.closed {
            kept.put_number("closed_below", *below);
            put_value(kept, "watermark", watermark)?;
        }
        kept.put_number("late", self.late as i64);
        kept.put_number_if("first_open", self.first);
        kept.put_number_if("closes_at", self.closes_at.map(|at| at.0));
        Ok(())
    }

    /// Loads the saved state of another gate.
    pub(crate) fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.closed = match kept.take_number_if("closed_below") {
            Some(below) => {
                let watermark = take_value(kept, "watermark", &self.time.watermark_type())?;
                Some(Closed { below, watermark })
            }
            None => None,
        };
        self.late = kept.take_number("late")? as u64;
        self.first = kept.take_number_if("first_open");
        self.closes_at = kept.take_number_if("closes_at").map(Timestamp);
        Ok(())
    }
}

impl Timers for Gate {
    /// Returns true if the watermark has moved: then windows close, and later rows are late even for windows
    /// without rows. By batch time no row is late, so only open windows count.
    fn is_due(&self, cut: &Cut) -> bool {
        if self.time.is_of_batches() {
            return self.first.is_some_and(|first| self.time.at(cut).is_ok_and(|bound| bound > Some(first)));
        }
        let closed = self.closed.as_ref().map(|closed| &closed.watermark);
        self.time.watermark_at(cut).is_ok_and(|watermark| watermark.is_some() && watermark.as_ref() != closed)
    }

    /// Returns the time when the first open window closes, if that depends on batch times alone.
    fn wake_at(&self) -> Option<Timestamp> {
        self.closes_at
    }
}

/// Formats a count of a type's unit.
fn text(count: i64, data_type: &DataType) -> String {
    let shown = of_count(count, data_type).and_then(|value| Ok(value.to_array()?));
    let shown = shown.map(|value| {
        ArrayFormatter::try_new(&value, &FormatOptions::default()).map(|text| text.value(0).to_string())
    });
    match shown {
        Ok(Ok(text)) => text,
        _ => count.to_string(),
    }
}
