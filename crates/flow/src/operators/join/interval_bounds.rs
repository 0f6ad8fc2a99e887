//! Interval joins: rows expire when event time has passed all rows that they could match.
//!
//! A condition such as `b.ts <= a.ts` bounds the times of one side by a value of the other. Once the clock of
//! `b.ts` has passed the `a.ts` of a row, no expected row can match it: the row is dropped, without a change
//! of the result. To make that exact, a row or delete below its own side's clock as of the epoch before is
//! *late* and is left out. So the result is the batch answer over all changes in time.
//!
//! A side with deletes keeps a row until its delete would be late, too.
//!
//! If a result must be append-only, an unmatched row is emitted when it expires
//! ([`super::Alone::OnLeaving`]).

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::not;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::{Chunk, Cut, Delta};
use millstream_state::{Arranged, Size, Tables};

use super::{Alone, Join, no_rows, some_weights};
use crate::Result;
use crate::driver::evaluate;
use crate::event_time::{EventTime, count};
use crate::failure::keep;
use crate::late_rows::{Late, Lateness};
use crate::operator::{ClosesWindows, Growth, Output, Timers};
use crate::persistence::{put_value, take_value};

/// The maximum number of rows to evaluate at once.
const ROWS: Size = Size::of(8192);

/// The time until which a row of one side may still be matched.
#[derive(Clone, Debug)]
pub struct Until {
    /// A value over the side's rows, which is an upper bound of the times of matching rows of the other side.
    pub value: Arc<dyn PhysicalExpr>,
    /// The event time of the other side.
    pub passed: EventTime,
    /// Both as text for people.
    pub text: String,
}

/// The time by which rows of a side are late.
#[derive(Clone, Debug)]
pub struct Own {
    /// The time, over the side's rows.
    pub value: Arc<dyn PhysicalExpr>,
    /// Its type.
    pub data_type: DataType,
    /// The event time.
    pub clock: EventTime,
}

/// The progress of a side's event time as of the last epoch.
#[derive(Clone, Debug)]
struct Closed {
    /// The time below which rows are late.
    below: i64,
    /// The watermark behind the bound.
    watermark: ScalarValue,
}

/// Kept rows in the order of their expiry times, each with its slot and its id.
type Waiting = BinaryHeap<Reverse<(i64, u32, u64)>>;

/// The expiry state of one side.
#[derive(Debug)]
pub struct Side {
    /// The rule by which rows expire; `None`: they stay.
    until: Option<Until>,
    own: Option<Own>,
    /// True if the side's rows may be deleted.
    updates: bool,
    /// Rows that may still be matched.
    waiting: Waiting,
    /// Rows that can't be matched any more, but may be deleted.
    lingering: Waiting,
    /// The progress of the awaited event time, and of the side's own, as of the last epoch.
    passed: Option<i64>,
    closed: Option<Closed>,
}

impl Side {
    /// Returns a side without rows.
    pub fn new(until: Option<Until>, own: Option<Own>, updates: bool) -> Side {
        Side {
            until,
            own,
            updates,
            waiting: Waiting::new(),
            lingering: Waiting::new(),
            passed: None,
            closed: None,
        }
    }

    fn reset(&mut self) {
        (self.waiting, self.lingering) = (Waiting::new(), Waiting::new());
        (self.passed, self.closed) = (None, None);
    }

    /// Returns the rows of a delta of side `input` that are in time, and adds the others to `late`.
    fn in_time<'a>(&self, input: usize, delta: &'a Delta, late: &mut Vec<Late>) -> Result<Cow<'a, Delta>> {
        let (Some(own), Some(closed)) = (&self.own, &self.closed) else { return Ok(Cow::Borrowed(delta)) };
        let mut taken = Delta::default();
        for chunk in &delta.chunks {
            let times = values(&own.value, &chunk.rows)?.0;
            let in_time: BooleanArray =
                times.iter().map(|time| Some(time.is_none_or(|time| time >= closed.below))).collect();
            if in_time.true_count() == in_time.len() {
                taken.push(chunk.clone());
                continue;
            }
            let rows = keep(chunk, &not(&in_time)?)?;
            let windows = evaluate(std::slice::from_ref(&own.value), &rows.rows)?.swap_remove(0);
            late.push(Late { input, rows, windows, watermark: closed.watermark.clone() });
            taken.push(keep(chunk, &in_time)?);
        }
        Ok(Cow::Owned(taken))
    }

    /// Records the progress of the side's own event time.
    fn close(&mut self, cut: &Cut) -> Result<()> {
        let Some(own) = &self.own else { return Ok(()) };
        let (Some(below), Some(watermark)) = (own.clock.at(cut)?, own.clock.watermark_at(cut)?) else {
            return Ok(());
        };
        if self.closed.as_ref().is_none_or(|closed| closed.below <= below) {
            self.closed = Some(Closed { below, watermark });
        }
        Ok(())
    }

    fn below(&self) -> Option<i64> {
        self.closed.as_ref().map(|closed| closed.below)
    }

    /// Removes and returns the rows below a bound that still exist, ascending by slot and id.
    fn leaving(waiting: &mut Waiting, bound: Option<i64>, rows: &Arranged) -> Vec<(u32, u64)> {
        let mut leaving = Vec::new();
        let Some(bound) = bound else { return leaving };
        while let Some(Reverse((_, slot, id))) = waiting.peek().copied().filter(|next| next.0.0 < bound) {
            waiting.pop();
            if rows.holds(slot, id) {
                leaving.push((slot, id));
            }
        }
        leaving.sort_unstable();
        leaving
    }

    /// Saves the progress of event times. The waiting rows follow from it and from the kept rows.
    fn save(&self, to: &mut Tables) -> Result<()> {
        to.put_number_if("passed", self.passed);
        if let Some(Closed { below, watermark }) = &self.closed {
            to.put_number("closed_below", *below);
            put_value(to, "watermark", watermark)?;
        }
        Ok(())
    }

    fn load(&mut self, from: &mut Tables) -> Result<()> {
        self.passed = from.take_number_if("passed");
        if let (Some(own), Some(below)) = (&self.own, from.take_number_if("closed_below")) {
            let watermark = take_value(from, "watermark", &own.clock.watermark_type())?;
            self.closed = Some(Closed { below, watermark });
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        (self.waiting.capacity() + self.lingering.capacity()) * size_of::<Reverse<(i64, u32, u64)>>()
    }
}

/// The expiry of the rows of both sides.
#[derive(Debug)]
pub struct IntervalBounds {
    sides: [Side; 2],
    late: u64,
}

/// The new rows of a side in a step: the slots of their keys, and their first id.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    pub(super) slots: Vec<u32>,
    from: u64,
}

impl IntervalBounds {
    /// Returns the expiry of two sides, the left one first.
    pub fn new(sides: [Side; 2]) -> IntervalBounds {
        IntervalBounds { sides, late: 0 }
    }

    /// Returns true if rows of a side expire.
    pub fn is_bounded(&self, at: usize) -> bool {
        self.sides[at].until.is_some()
    }

    /// Returns the growth of the state.
    pub(super) fn growth(&self) -> Growth {
        let of = |at: usize| {
            let until = self.sides[at].until.as_ref()?;
            Some(format!("those of the {} when {}", NAMES[at], until.text))
        };
        match (of(0), of(1)) {
            (Some(left), Some(right)) => {
                Growth::BoundedBy(format!("rows expire by the watermarks, {left}, {right}"))
            }
            (None, None) => Growth::With("its inputs".into()),
            (left, right) => {
                let (kept, other) = if left.is_none() { (NAMES[0], NAMES[1]) } else { (NAMES[1], NAMES[0]) };
                let goes = left.or(right).unwrap_or_default();
                Growth::With(format!(
                    "the rows of its {kept} side ({goes}): a condition that keeps a time of the {other} side, which has a \
                     watermark, at or below one of the {kept} would bound them; a {kept} side whose rows may be deleted \
                     needs a watermark, too"
                ))
            }
        }
    }

    /// Returns the sides as ones whose rows may be late, if any has a time of its own.
    pub(super) fn windows(&self) -> Option<&dyn ClosesWindows> {
        let timed = self.sides.iter().any(|side| side.own.is_some());
        timed.then_some(self as &dyn ClosesWindows)
    }

    /// Saves the state beside the rows.
    pub(super) fn save(&self, to: &mut Tables) -> Result<()> {
        to.put_number("late", self.late as i64);
        for (side, name) in self.sides.iter().zip(NAMES) {
            let mut part = Tables::default();
            side.save(&mut part)?;
            to.put_part(name, part);
        }
        Ok(())
    }

    /// Loads it.
    pub(super) fn load(&mut self, from: &mut Tables) -> Result<()> {
        self.late = from.take_number("late")? as u64;
        for (side, name) in self.sides.iter_mut().zip(NAMES) {
            let mut part = from.take_part(name);
            side.load(&mut part)?;
            from.put_part(name, part);
        }
        Ok(())
    }

    pub(super) fn reset(&mut self) {
        self.late = 0;
        self.sides.iter_mut().for_each(Side::reset);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.sides.iter().map(Side::memory_bytes).sum()
    }
}

impl Timers for IntervalBounds {
    /// Returns true if a clock has moved.
    fn is_due(&self, cut: &Cut) -> bool {
        let moved = |time: &EventTime, last: Option<i64>| time.at(cut).is_ok_and(|now| now > last);
        self.sides.iter().any(|side| {
            side.own.as_ref().is_some_and(|own| moved(&own.clock, side.below()))
                || side.until.as_ref().is_some_and(|until| moved(&until.passed, side.passed))
        })
    }
}

impl ClosesWindows for IntervalBounds {
    fn late(&self) -> Lateness {
        let own = || self.sides.iter().filter_map(|side| side.own.as_ref());
        // Sides with different types show both as text.
        let same = |types: Vec<DataType>| match &types[..] {
            [first, rest @ ..] if rest.iter().all(|other| other == first) => first.clone(),
            _ => DataType::Utf8View,
        };
        let window = same(own().map(|own| own.data_type.clone()).collect());
        let watermark = same(own().map(|own| own.clock.watermark_type()).collect());
        Lateness { rows: self.late, window, watermark }
    }
}

/// The names of the sides.
pub(super) const NAMES: [&str; 2] = ["left", "right"];

impl Join {
    /// Steps a join with expiring rows.
    pub(super) fn step_ageing(
        &mut self,
        interval_bounds: &mut IntervalBounds,
        cut: &Cut,
        inputs: &[&Delta],
    ) -> Result<Output> {
        let [left, right] = inputs else { return Err(crate::Error::Bug("a join has two inputs".into())) };
        let mut late = Vec::new();
        let left = interval_bounds.sides[0].in_time(0, left, &mut late)?;
        let right = interval_bounds.sides[1].in_time(1, right, &mut late)?;
        interval_bounds.late += late.iter().map(Late::count).sum::<u64>();
        let mut arrived = [0, 1].map(|at| {
            let rows = self.sides[at].rows.as_ref();
            Arrived { slots: Vec::new(), from: rows.map_or(0, Arranged::next_id) }
        });
        let mut output = self.advance(&[&left, &right], Some(&mut arrived))?;
        for (at, arrived) in arrived.into_iter().enumerate() {
            self.remember(at, &mut interval_bounds.sides[at], arrived)?;
        }
        for at in [0, 1] {
            self.let_go(at, &mut interval_bounds.sides[at], cut, &mut output)?;
        }
        output.late = late;
        Ok(output)
    }

    /// Records the expiry times of new rows.
    fn remember(&self, at: usize, side: &mut Side, mut arrived: Arrived) -> Result<()> {
        let (Some(until), Some(rows)) = (&side.until, &self.sides[at].rows) else { return Ok(()) };
        arrived.slots.sort_unstable();
        arrived.slots.dedup();
        let mut new = Vec::new();
        for slot in arrived.slots {
            let ids = rows.ids(slot);
            let first = ids.partition_point(|id| *id < arrived.from);
            new.extend(ids[first..].iter().map(|id| (slot, *id)));
        }
        for some in new.chunks(ROWS.get()) {
            let (batch, _) = self.some(at, some)?;
            let (times, failed) = values(&until.value, &batch)?;
            for (row, (slot, id)) in some.iter().enumerate() {
                let time = times.is_valid(row).then(|| times.value(row));
                // A row without a time matches nothing. It expires first, unless it may be deleted: such a
                // delete is never late. A failing row may fail again with every new row.
                match time {
                    Some(time) => side.waiting.push(Reverse((time, *slot, *id))),
                    None if !failed[row] && !side.updates => {
                        side.waiting.push(Reverse((i64::MIN, *slot, *id)));
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Records when deletes of some rows become late: rows that can't be matched any more but may be deleted.
    fn linger(&self, at: usize, side: &mut Side, rows: &[(u32, u64)]) -> Result<()> {
        let Some(own) = &side.own else { return Ok(()) };
        for some in rows.chunks(ROWS.get()) {
            let times = values(&own.value, &self.some(at, some)?.0)?.0;
            let known = some.iter().zip(times.iter()).filter_map(|(row, time)| Some((row, time?)));
            known.for_each(|((slot, id), time)| side.lingering.push(Reverse((time, *slot, *id))));
        }
        Ok(())
    }

    /// Rebuilds the expiry times after a restart: rows that time had not passed wait; the others were
    /// dropped, or linger.
    pub(super) fn resume_ageing(&self, interval_bounds: &mut IntervalBounds) -> Result<()> {
        for (at, side) in
            interval_bounds.sides.iter_mut().enumerate().filter(|(_, side)| side.until.is_some())
        {
            self.remember(at, side, Arrived { slots: self.live(), from: 0 })?;
            let rows = self.sides[at].rows.as_ref().ok_or_else(no_rows)?;
            let passed = Side::leaving(&mut side.waiting, side.passed, rows);
            self.linger(at, side, &passed)?;
        }
        Ok(())
    }

    /// Returns rows of a side, and the number of copies of each.
    fn some(&self, at: usize, some: &[(u32, u64)]) -> Result<(RecordBatch, Vec<i64>)> {
        let ids: Vec<u64> = some.iter().map(|(_, id)| *id).collect();
        let rows = self.sides[at].rows.as_ref().ok_or_else(no_rows)?;
        Ok(rows.gather_counted(&ids, &self.sides[at].columns)?)
    }

    /// Drops the rows of a side that no row in time can match or delete any more.
    fn let_go(&mut self, at: usize, side: &mut Side, cut: &Cut, output: &mut Output) -> Result<()> {
        side.close(cut)?;
        let Some(until) = &side.until else { return Ok(()) };
        side.passed = until.passed.at(cut)?.max(side.passed);
        let rows = self.sides[at].rows.as_ref().ok_or_else(no_rows)?;
        let mut gone = Side::leaving(&mut side.waiting, side.passed, rows);
        if self.shape.alone[at] == Alone::OnLeaving {
            gone.chunks(ROWS.get()).try_for_each(|some| self.put_unmatched(at, some, output))?;
        }
        if side.own.is_some() && side.updates {
            self.linger(at, side, &gone)?;
            let rows = self.sides[at].rows.as_ref().ok_or_else(no_rows)?;
            let below = side.below();
            gone = Side::leaving(&mut side.lingering, below, rows);
        }
        for some in gone.chunks(ROWS.get()) {
            self.sides[at].rows.as_mut().ok_or_else(no_rows)?.remove(some)?;
        }
        let mut slots: Vec<u32> = gone.iter().map(|(slot, _)| *slot).collect();
        slots.dedup();
        self.keys.free_empty(&slots, |slot| self.sides.iter().all(|side| side.is_empty(slot)));
        Ok(())
    }

    /// Emits rows at once that can't have a match.
    pub(super) fn put_apart(&self, at: usize, chunk: &Chunk, into: &mut Delta) -> Result<()> {
        let count = chunk.rows.num_rows();
        let weights = (0..count).map(|row| chunk.weight(row)).collect();
        self.put_weighed(at, &chunk.rows, &vec![false; count], weights, into)
    }

    /// Emits unmatched rows that expire.
    fn put_unmatched(&self, at: usize, some: &[(u32, u64)], output: &mut Output) -> Result<()> {
        let rows = self.sides[at].rows.as_ref().ok_or_else(no_rows)?;
        let some: Vec<(u32, u64)> = some.iter().filter(|(_, id)| rows.tally(*id) == 0).copied().collect();
        if some.is_empty() {
            return Ok(());
        }
        let (rows, counts) = self.some(at, &some)?;
        let rows = self.shape.single(at, &rows, &vec![false; some.len()])?;
        self.put(Chunk { rows, weights: some_weights(counts) }, &mut output.rows)
    }
}

/// Returns times as counts of their unit, and for each row true if it fails.
fn values(of: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<(Int64Array, Vec<bool>)> {
    let of = std::slice::from_ref(of);
    if let Ok(values) = evaluate(of, rows) {
        return Ok((count(&values[0])?, vec![false; rows.num_rows()]));
    }
    let mut times = Vec::with_capacity(rows.num_rows());
    let mut failed = Vec::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        let value = evaluate(of, &rows.slice(row, 1));
        failed.push(value.is_err());
        times.push(match value {
            Ok(values) => count(&values[0])?.iter().next().flatten(),
            Err(_) => None,
        });
    }
    Ok((Int64Array::from(times), failed))
}
