//! Which rows are in time: what stands before an operator whose windows close.

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
use crate::drive::evaluate;
use crate::event_time::{EventTime, count, of_count};
use crate::failure::{keep, surviving_exprs};
use crate::late::{Late, Lateness};
use crate::operator::Output;
use crate::saving::{put_value, take_value};

/// How far windows have closed, and what came too late.
#[derive(Debug)]
pub(crate) struct Gate {
    /// For each input what is computed of its rows.
    exprs: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    /// Which of these is the window's time.
    column: usize,
    time: EventTime,
    data_type: DataType,
    /// Whether rows without a time are kept aside as well: their window never closes.
    closes_all: bool,
    closed: Option<Closed>,
    late: u64,
    /// The first window that is open, and when it closes, where that follows from the time alone.
    first: Option<i64>,
    closes_at: Option<Timestamp>,
}

/// How far windows have closed.
#[derive(Debug)]
struct Closed {
    /// Windows whose time is below it are closed.
    below: i64,
    /// The watermark from which that follows.
    watermark: ScalarValue,
}

/// Rows that are in time.
pub(super) struct Entered {
    pub(super) chunk: Chunk,
    /// What was computed of them.
    pub(super) values: Vec<ArrayRef>,
    /// The times of their windows.
    pub(super) times: Int64Array,
}

impl Gate {
    /// Before an operator; `exprs` are for each input what is to be computed of its rows, of which one is the window's
    /// time and has this type.
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

    /// The rows of an input's delta that are in time. Those for which what is computed fails are the operator's
    /// failures as well, for the same reason: it need not see them.
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

    /// Puts rows out as late.
    pub(crate) fn put_aside(&mut self, late: Late, output: &mut Output) {
        self.late += late.count();
        output.late.push(late);
    }

    /// The watermark from which it follows what is late; NULL before there is one.
    pub(crate) fn watermark(&self) -> Result<ScalarValue> {
        Ok(match &self.closed {
            Some(closed) => closed.watermark.clone(),
            None => ScalarValue::try_from(&self.time.watermark_type())?,
        })
    }

    /// Moves on with the watermark at the end of an epoch: below which time windows are closed by now, if it moved.
    pub(crate) fn pass(&mut self, cut: &Cut) -> Result<Option<i64>> {
        let Some(watermark) = self.time.watermark_at(cut)? else { return Ok(None) };
        if let Some(closed) = self.closed.as_ref().filter(|closed| closed.watermark == watermark) {
            // What was let in below it closes at once.
            return Ok(self.time.gated.then_some(closed.below));
        }
        let Some(below) = self.time.at(cut)? else { return Ok(None) };
        self.closed = Some(Closed { below, watermark });
        Ok(Some(below))
    }

    /// Whether the watermark has moved: then windows close, and what comes later is late even for those that nothing
    /// had come for. No row is late by the time of its batch.
    pub(crate) fn is_due(&self, cut: &Cut) -> bool {
        if self.time.is_of_batches() {
            return self.first.is_some_and(|first| self.time.at(cut).is_ok_and(|bound| bound > Some(first)));
        }
        let closed = self.closed.as_ref().map(|closed| &closed.watermark);
        self.time.watermark_at(cut).is_ok_and(|watermark| watermark.is_some() && watermark.as_ref() != closed)
    }

    pub(crate) fn lateness(&self) -> Lateness {
        let watermark = self.time.watermark_type();
        Lateness { rows: self.late, window: self.data_type.clone(), watermark }
    }

    /// Takes note of the first window that is open after an epoch.
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

    /// When that one closes, where it follows from the time alone.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        self.closes_at
    }

    /// That one's time, as it is shown.
    pub(super) fn first(&self) -> Option<String> {
        Some(text(self.first?, &self.data_type))
    }

    /// What that one waits for, in words; `name` is that of the windows.
    pub(crate) fn waiting(&self, name: &str) -> Option<String> {
        let first = self.first()?;
        let when = match self.closes_at {
            Some(at) => format!("at {at}"),
            None => "when the watermark has passed it".into(),
        };
        Some(format!(
            "its windows are put out when they close: the first that is open, of {name} = {first}, {when}"
        ))
    }

    pub(crate) fn reset(&mut self) {
        (self.closed, self.late, self.first, self.closes_at) = (None, 0, None, None);
    }

    /// How far windows have closed, and what came too late, beside what else its operator keeps.
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

    /// Goes on where another one stood that had saved this.
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

/// A count of a type's unit, as it is shown.
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
