//! GROUP BY over a window of recent batches, evaluated periodically. The cost is that of the arriving rows
//! and of the groups of arriving and leaving rows.
//!
//! The operator keeps no rows: it aggregates each pane of time by itself and keeps only the values of the
//! pane's groups. (A pane is the longest span of which both the window's length and its slide are multiples.)
//! The window's value of a group is merged from those of its panes, see [`window`].
//!
//! A row belongs to the batch in which it arrives, at the cut's time; a window that ends at T has the rows of
//! batches in (T - length, T]. It is evaluated in steps that end a batch and whose time is a multiple of the
//! slide: such a step must come, with or without rows. Nothing changes in between.
//!
//! Deliberately absent: DISTINCT arguments, bits; anything but plain aggregates of append-only rows.

mod persistence;
#[cfg(test)]
mod tests;
mod window;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::logical_expr::{Aggregate as AggregatePlan, LogicalPlan};
use millstream_delta::{Chunk, Closes, Cut, Delta};
use millstream_state::{Spillable, Tables};

use super::call::{Call, CallState};
use super::groups::{Groups, Touched};
use super::lower::{Rows, lower_over};
use super::slot::{Absorb, SlotAggregate};
use super::{Aggregate, Evaluated};
use crate::failure::{Failure, surviving};
use crate::operator::{
    Abilities, Content, Description, Growth, KeepsResult, Operator, Output, Properties, State,
};
use crate::{BatchWindow, Driver, Error, Result, Threads};
use window::{Block, Column, Window, fresh};

/// Keeps the aggregates of a window of recent batches.
#[derive(Debug)]
pub struct SlidingAggregate {
    span: BatchWindow,
    /// The groups with their values over the window, as of its last evaluation.
    total: Aggregate,
    window: Window,
    /// The pane that takes new rows.
    open: Option<Pane>,
    /// Complete panes that are not yet in the window.
    closed: Vec<Pane>,
    types: Vec<DataType>,
}

/// A pane of time.
#[derive(Debug)]
struct Pane {
    end: i64,
    groups: Groups,
    columns: Vec<Column>,
    failures: Vec<Failure>,
}

impl BatchWindow {
    /// Returns the length of a pane; without a slide each batch is a pane.
    fn pane(self) -> Option<i64> {
        let (mut a, mut b) = (self.length, self.slide?);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        Some(a)
    }

    /// Returns the end of the pane of a batch.
    fn pane_end(self, time: i64) -> i64 {
        let Some(pane) = self.pane() else { return time };
        time.div_euclid(pane) * pane + if time.rem_euclid(pane) == 0 { 0 } else { pane }
    }

    /// Returns true if a window ends with the batch of this cut.
    fn ends(self, cut: &Cut) -> bool {
        cut.closes != Closes::None && self.slide.is_none_or(|slide| cut.now.0.rem_euclid(slide) == 0)
    }
}

/// Returns the operator for `node` over the rows of a window, or the reason why there is none.
pub fn lower(
    plan: &LogicalPlan,
    node: &AggregatePlan,
    span: BatchWindow,
    driver: &Driver,
) -> Result<std::result::Result<SlidingAggregate, String>> {
    match lower_over(plan, node, Rows::Leave, driver)? {
        Ok(total) => Ok(SlidingAggregate::new(total, span)),
        Err(reason) => Ok(Err(reason)),
    }
}

impl SlidingAggregate {
    fn new(mut total: Aggregate, span: BatchWindow) -> std::result::Result<SlidingAggregate, String> {
        if span.length <= 0 || span.slide.is_some_and(|slide| slide <= 0) {
            return Err("a window needs a length and a slide above zero".into());
        }
        let columns: Vec<Option<&dyn SlotAggregate>> = total.calls.iter().map(slots_of).collect();
        if let Some(place) = columns.iter().position(|column| column.is_some_and(|c| c.fresh().is_none())) {
            return Err(format!("{} can't be merged from parts", total.calls[place].text));
        }
        let mut window = Window::new(span.length, &columns).map_err(|error| error.to_string())?;
        window.resize(total.groups.end());
        let grouping = &total.groups.grouping;
        let keys = grouping.keys.len() + usize::from(!grouping.sets.is_empty());
        let fields = &total.properties.schema.fields()[..keys];
        let types = fields.iter().map(|field| field.data_type().clone()).collect();
        total.properties.append_only = false;
        total.properties.slides = true;
        Ok(SlidingAggregate { span, total, window, open: None, closed: Vec::new(), types })
    }

    fn pane(&self, end: i64) -> Result<Pane> {
        let groups = Groups::new(self.total.groups.grouping.clone(), &self.types)?;
        let room = groups.end();
        let columns = self.total.calls.iter().map(|call| slots_of(call).map(|c| fresh(c, room)).transpose());
        Ok(Pane { end, groups, columns: columns.collect::<Result<_>>()?, failures: Vec::new() })
    }

    /// Adds the rows of the batch at `now` to its pane.
    fn add(&mut self, now: i64, inputs: &[&Delta]) -> Result<()> {
        let chunks: Vec<&Chunk> = inputs.iter().flat_map(|delta| &delta.chunks).collect();
        if chunks.is_empty() {
            return Ok(());
        }
        let end = self.span.pane_end(now);
        let mut pane = match self.open.take() {
            Some(pane) if pane.end == end => pane,
            other => {
                self.closed.extend(other);
                self.pane(end)?
            }
        };
        for chunk in chunks {
            if chunk.weights.is_some() {
                return Err(Error::Bug("a window was given rows with weights".into()));
            }
            let total = &self.total;
            let pieces = surviving(chunk.clone(), &mut pane.failures, |chunk| total.evaluate(chunk))?;
            for (chunk, evaluated) in pieces {
                pane.update(&chunk, &evaluated)?;
            }
        }
        self.open = Some(pane);
        Ok(())
    }

    /// Returns the block of a pane, whose groups get slots of the window.
    fn block(&mut self, pane: Pane) -> Result<Block> {
        let live: Vec<Touched> = pane.groups.live().into_iter().filter(|group| group.rows > 0).collect();
        let local: Vec<u32> = live.iter().map(|group| group.slot).collect();
        let keys = pane.groups.keys(&local)?;
        let slots = self.total.groups.slots(&keys, live.len())?;
        let pairs: Vec<(u32, u32)> = local.iter().zip(0..).map(|(slot, place)| (*slot, place)).collect();
        let compact = pairs.iter().all(|(slot, place)| slot == place);
        let columns = pane.columns.into_iter().map(|column| match column {
            Some(column) if !compact => {
                let mut packed = fresh(column.as_ref(), pairs.len())?;
                packed.absorb(column.as_ref(), &pairs, Absorb::Add)?;
                Ok(Some(packed))
            }
            other => Ok(other),
        });
        Ok(Block {
            end: pane.end,
            slots,
            rows: live.iter().map(|group| group.rows).collect(),
            columns: columns.collect::<Result<_>>()?,
            failures: pane.failures,
        })
    }

    /// Moves the window's end to `now` and emits the changes, unless nobody reads them.
    fn evaluate(&mut self, now: i64, read: bool) -> Result<Output> {
        self.closed.extend(self.open.take());
        self.total.steps += 1;
        let mut entering = Vec::with_capacity(self.closed.len());
        for pane in std::mem::take(&mut self.closed) {
            // If windows don't overlap, some panes may be in no window.
            if pane.end > now - self.span.length {
                entering.push(self.block(pane)?);
            }
        }
        self.total.resize();
        self.window.resize(self.total.groups.end());

        let (mut touched, mut failures) = (Vec::new(), Vec::new());
        if self.total.steps == 1 {
            self.total.groups.touch_standing(&mut touched);
        }
        for block in &entering {
            self.total.groups.count(&block.slots, Some(&block.rows), &mut touched);
            failures.extend(block.failures.iter().cloned());
        }
        for block in self.window.leaving(now) {
            let gone: Vec<i64> = block.rows.iter().map(|rows| -rows).collect();
            self.total.groups.count(&block.slots, Some(&gone), &mut touched);
            failures.extend(block.failures.iter().cloned().map(|f| Failure { weight: -f.weight, ..f }));
        }
        let before = self.total.before(&touched, read)?;
        self.slide(now, entering, &touched)?;
        let output = self.total.after(&touched, &before, failures)?;
        self.total.end_step(&touched)?;
        Ok(output)
    }

    fn slide(&mut self, now: i64, entering: Vec<Block>, touched: &[Touched]) -> Result<()> {
        let mut sums: Vec<Column> = self.total.calls.iter_mut().map(take_slots).collect();
        let mut moved = Ok(());
        for block in entering {
            moved = moved.and_then(|()| self.window.enter(block, &mut sums));
        }
        let slots: Vec<u32> = touched.iter().map(|group| group.slot).collect();
        moved = moved.and_then(|()| self.window.leave(now, &mut sums));
        moved = moved.and_then(|()| self.window.total(&slots, &mut sums));
        for (call, sum) in self.total.calls.iter_mut().zip(sums) {
            call.kept = sum.map_or(CallState::Rows, CallState::Slots);
        }
        moved
    }
}

impl Pane {
    fn update(&mut self, chunk: &Chunk, evaluated: &Evaluated) -> Result<()> {
        let keys: &[ArrayRef] = &evaluated.keys;
        let placed = self.groups.place(keys, chunk.rows.num_rows())?;
        let mut touched = Vec::new();
        placed.iter().for_each(|slots| self.groups.count(slots, None, &mut touched));
        // Panes emit nothing, so the touched groups are not needed.
        self.groups.end_step(&touched, &Threads::one(), |_| {})?;
        let end = self.groups.end();
        for (column, arguments) in self.columns.iter_mut().zip(&evaluated.arguments) {
            let Some(column) = column else { continue };
            column.resize(end);
            for slots in &placed {
                column.update(&arguments.batch(slots))?;
            }
        }
        Ok(())
    }
}

fn slots_of(call: &Call) -> Option<&dyn SlotAggregate> {
    match &call.kept {
        CallState::Rows => None,
        CallState::Slots(slots) => Some(slots.as_ref()),
    }
}

fn take_slots(call: &mut Call) -> Column {
    match std::mem::replace(&mut call.kept, CallState::Rows) {
        CallState::Rows => None,
        CallState::Slots(slots) => Some(slots),
    }
}

/// Formats a length of time for people: `1h 30m`.
fn time_text(mut microseconds: i64) -> String {
    let mut parts = Vec::new();
    for (unit, size) in [
        ("d", 86_400_000_000),
        ("h", 3_600_000_000),
        ("m", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1000),
        ("us", 1),
    ] {
        if microseconds >= size {
            parts.push(format!("{}{unit}", microseconds / size));
            microseconds %= size;
        }
    }
    parts.join(" ")
}

impl Operator for SlidingAggregate {
    fn properties(&self) -> &Properties {
        &self.total.properties
    }

    fn describe(&self) -> Description {
        let BatchWindow { length, slide } = self.span;
        let inner = self.total.describe();
        let subtracted = self.total.calls.iter().filter(|call| slots_of(call).is_none_or(|c| c.subtracts()));
        let subtracted: Vec<&str> = subtracted.map(|call| call.text.as_str()).collect();
        let mut detail = format!("{} over the last {}", inner.detail, time_text(length));
        if let Some(slide) = slide {
            detail.push_str(&format!(" every {}", time_text(slide)));
        }
        if !subtracted.is_empty() {
            detail.push_str(&format!("; leaving panes subtracted from {}", subtracted.join(", ")));
        }
        let (mut state, growth) = match self.span.pane() {
            Some(pane) => {
                (String::from("one row a group and pane"), format!("the window's {} panes", length / pane))
            }
            None => (String::from("one row a group and batch"), "the window's batches".into()),
        };
        let keeps_rows = |call: &&Call| slots_of(call).is_some_and(|values| values.keeps_rows());
        for call in self.total.calls.iter().filter(keeps_rows) {
            state.push_str(&format!(", rows for {}", call.text));
        }
        Description {
            name: "SlidingAggregate",
            detail,
            state,
            state_key: inner.state_key,
            growth: Growth::BoundedBy(growth),
            ..Description::default()
        }
    }

    fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let now = cut.now.0;
        self.add(now, inputs)?;
        if self.span.ends(cut) { self.evaluate(now, true) } else { Ok(Output::default()) }
    }

    fn step_unread(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let now = cut.now.0;
        self.add(now, inputs)?;
        // Failing groups show only in their results.
        let read = self.total.calls.iter().any(Call::may_fail);
        if self.span.ends(cut) { self.evaluate(now, read) } else { Ok(Output::default()) }
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities { result: Some(self), ..Abilities::default() }
    }
}

impl State for SlidingAggregate {
    fn reset(&mut self) -> Result<()> {
        self.total.reset()?;
        let columns: Vec<Option<&dyn SlotAggregate>> = self.total.calls.iter().map(slots_of).collect();
        self.window = Window::new(self.span.length, &columns)?;
        self.window.resize(self.total.groups.end());
        self.open = None;
        self.closed.clear();
        Ok(())
    }

    fn save(&self) -> Result<Tables> {
        self.kept()
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.go_on(kept)
    }

    fn state_rows(&self) -> usize {
        self.total.state_rows() + self.window.len()
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        self.total.each_store(show);
        for pane in self.open.iter_mut().chain(&mut self.closed) {
            pane.groups.each_store(show);
            pane.columns.iter_mut().flatten().for_each(|column| column.each_store(show));
        }
    }

    fn state_bytes(&self) -> usize {
        let panes = self.open.iter().chain(&self.closed).map(|pane| {
            let columns: usize = pane.columns.iter().flatten().map(|column| column.memory_bytes()).sum();
            pane.groups.memory_bytes() + columns
        });
        self.total.state_bytes() + self.window.memory_bytes() + panes.sum::<usize>()
    }
}

impl KeepsResult for SlidingAggregate {
    fn content(&self, _input: &dyn Fn(usize) -> Content) -> Content {
        Some(self.total.all())
    }

    fn keeps_all(&self) -> bool {
        true
    }
}
