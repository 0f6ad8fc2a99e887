//! Windows that close: an aggregate by windows of event time, each of which gets its last answer when the watermark
//! passes its end.
//!
//! It stands around the aggregate. What comes for a window that has closed is late: it is put out as such and goes no
//! further. At the end of the epoch that moves the watermark, the windows that it passes are closed: the aggregate forgets
//! them. Where windows are put out once, when they close, that is when their rows come; else changes are put out as
//! they come, and the last ones stay.
//!
//! What a window's answer is follows from the cuts: it is the batch answer over all that was taken up to the epoch that
//! closed it.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, BooleanArray};
use datafusion::common::ScalarValue;
use millstream_delta::{Chunk, Cut, Delta};
use millstream_state::KeyIndex;

use crate::Result;
use crate::drive::evaluate;
use crate::event_time::{EventTime, count};
use crate::failure::{keep, surviving};
use crate::late::{Late, Lateness};
use crate::operator::{Content, Description, Forgotten, Growth, KeyedBy, Operator, Output, Properties};

/// How many keys are closed at once.
const KEYS: usize = 8192;

/// An aggregate whose windows close.
#[derive(Debug)]
pub struct Closing {
    inner: Box<dyn Operator>,
    properties: Properties,
    by: KeyedBy,
    /// Which of the key's columns is the window's.
    column: usize,
    time: EventTime,
    /// Whether windows are put out once, when they close.
    on_close: bool,
    /// The keys of open windows.
    index: KeyIndex,
    /// Their slots by the window's time.
    open: BTreeMap<i64, Vec<u32>>,
    closed: Option<Closed>,
    late: u64,
}

/// How far windows have closed.
#[derive(Debug)]
struct Closed {
    /// Windows whose time is below it are closed.
    below: i64,
    /// The watermark from which that follows.
    watermark: ScalarValue,
}

impl Closing {
    /// Puts it around an aggregate, of whose key one column is the time of windows; the operator itself where its keys
    /// can't be told apart.
    pub fn around(
        inner: Box<dyn Operator>,
        column: usize,
        time: EventTime,
        on_close: bool,
    ) -> std::result::Result<Box<dyn Operator>, Box<dyn Operator>> {
        let Some(by) = inner.keyed_by().filter(|by| by.remembers && by.keys.len() == 1) else {
            return Err(inner);
        };
        let Ok(index) = KeyIndex::new(by.types.clone()) else { return Err(inner) };
        let mut properties = inner.properties().clone();
        properties.append_only = on_close;
        Ok(Box::new(Closing {
            inner,
            properties,
            by,
            column,
            time,
            on_close,
            index,
            open: BTreeMap::new(),
            closed: None,
            late: 0,
        }))
    }

    /// What the aggregate is given of a delta: all but what is late.
    fn take(&mut self, delta: &Delta, output: &mut Output) -> Result<Delta> {
        let mut taken = Delta::default();
        let exprs = self.by.keys[0].clone();
        for chunk in &delta.chunks {
            // A row whose key fails is the aggregate's failure as well, for the same reason: it need not see it.
            for (chunk, keys) in
                surviving(chunk.clone(), &mut output.failures, |chunk| evaluate(&exprs, &chunk.rows))?
            {
                let times = count(&keys[self.column])?;
                let below = self.closed.as_ref().map(|closed| closed.below);
                let is_late = |time: Option<i64>| time.zip(below).is_some_and(|(time, below)| time < below);
                let in_time: BooleanArray = times.iter().map(|time| Some(!is_late(time))).collect();
                let (chunk, keys, times) = if in_time.true_count() == times.len() {
                    (chunk, keys, times)
                } else {
                    output.late.extend(self.too_late(&chunk, &keys[self.column], &in_time)?);
                    let kept = keys.iter().map(|key| Ok(arrow::compute::filter(key, &in_time)?));
                    let kept = kept.collect::<Result<Vec<_>>>()?;
                    let times = count(&kept[self.column])?;
                    (keep(&chunk, &in_time)?, kept, times)
                };
                let mut slots = Vec::with_capacity(times.len());
                let new = self.index.slots(&keys, &mut slots)?;
                self.open_new(&slots, &new, |row| times.is_valid(row).then(|| times.value(row)));
                taken.push(chunk);
            }
        }
        Ok(taken)
    }

    /// The rows that are not in time.
    fn too_late(
        &mut self,
        chunk: &Chunk,
        windows: &ArrayRef,
        in_time: &BooleanArray,
    ) -> Result<Option<Late>> {
        let Some(closed) = &self.closed else { return Ok(None) };
        let is_late = arrow::compute::not(in_time)?;
        let late = Late {
            input: 0,
            rows: keep(chunk, &is_late)?,
            windows: arrow::compute::filter(windows, &is_late)?,
            watermark: closed.watermark.clone(),
        };
        self.late += late.count();
        Ok(Some(late))
    }

    /// Remembers when keys close that are new, in the order in which their first rows come. A window without a time
    /// never closes.
    fn open_new(&mut self, slots: &[u32], new: &[u32], time: impl Fn(usize) -> Option<i64>) {
        let mut waiting = new.iter().peekable();
        for (row, slot) in slots.iter().enumerate() {
            let Some(next) = waiting.peek() else { break };
            if slot == *next {
                waiting.next();
                if let Some(time) = time(row) {
                    self.open.entry(time).or_default().push(*slot);
                }
            }
        }
    }

    /// Closes the windows that the watermark has passed.
    fn close(&mut self, cut: &Cut, rows: &mut Delta) -> Result<()> {
        let Some(bound) = self.time.at(cut)? else { return Ok(()) };
        let Some(watermark) = self.time.watermark_at(cut)? else { return Ok(()) };
        if self.closed.as_ref().is_some_and(|closed| bound < closed.below) {
            return Ok(());
        }
        self.closed = Some(Closed { below: bound, watermark });
        let still_open = self.open.split_off(&bound);
        let closing: Vec<u32> =
            std::mem::replace(&mut self.open, still_open).into_values().flatten().collect();
        for slots in closing.chunks(KEYS) {
            // What fails of a window when it closes fails for good.
            let Forgotten { rows: last, failures: _ } = self.inner.forget(&self.index.keys(slots)?)?;
            if self.on_close {
                last.into_iter().for_each(|(batch, _)| rows.push(Chunk::insert(batch)));
            }
            slots.iter().for_each(|slot| self.index.free(*slot));
        }
        Ok(())
    }

    fn advance(&mut self, cut: &Cut, inputs: &[&Delta], read: bool) -> Result<Output> {
        let mut told = Output::default();
        let taken = self.take(inputs[0], &mut told)?;
        let mut output = match read && !self.on_close {
            true => self.inner.step(cut, &[&taken])?,
            false => self.inner.step_unread(cut, &[&taken])?,
        };
        output.failures.extend(told.failures);
        output.late = told.late;
        if self.on_close {
            (output.rows, output.left_out) = (Delta::default(), 0);
        }
        self.close(cut, &mut output.rows)?;
        Ok(output)
    }
}

impl Operator for Closing {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let mut about = self.inner.describe();
        let name = self.properties.schema.field(self.column).name();
        about.state.push_str(match self.on_close {
            true => "; put out when windows close",
            false => "; forgotten when windows close",
        });
        about.growth = Growth::BoundedBy(format!("the windows by {name} that are open"));
        about
    }

    fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        self.advance(cut, inputs, true)
    }

    fn step_unread(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        self.advance(cut, inputs, self.on_close)
    }

    /// Whenever the watermark moves: what comes later for a window that nothing had come for is late, too.
    fn is_due(&self, cut: &Cut) -> bool {
        let closed = self.closed.as_ref().map(|closed| &closed.watermark);
        self.time.watermark_at(cut).is_ok_and(|watermark| watermark.as_ref() != closed)
    }

    fn reset(&mut self) -> Result<()> {
        self.inner.reset()?;
        self.index = KeyIndex::new(self.by.types.clone())?;
        (self.open, self.closed, self.late) = (BTreeMap::new(), None, 0);
        Ok(())
    }

    /// What closed windows have put out is not kept here.
    fn content(&self, _input: &dyn Fn(usize) -> Content) -> Content {
        None
    }

    fn late(&self) -> Option<Lateness> {
        let window = self.by.types[self.column].clone();
        Some(Lateness { rows: self.late, window, watermark: self.time.watermark_type() })
    }

    fn state_rows(&self) -> usize {
        self.inner.state_rows()
    }

    fn state_bytes(&self) -> usize {
        let slots: usize = self.open.values().map(|slots| slots.capacity() * size_of::<u32>()).sum();
        self.inner.state_bytes() + self.index.memory_bytes() + slots
    }
}
