//! Sessions: rows of a key whose times are less than a gap apart, each with the start and end of its session.
//!
//! Rows are kept in the order of their key and time, and beside them the start and end of each session. An
//! insert may extend a session, or merge two; a delete may shorten it, or split it. Only the rows of sessions
//! with new bounds are retracted and emitted again: the others cost nothing. (Merging windows: Akidau et al.,
//! *The Dataflow Model*, VLDB 2015.)
//!
//! If the time has a clock, a session closes at the end of the epoch in which the clock reaches its end: its
//! rows are dropped. A row of such a session is late, unless it touches an open session, and so is the delete
//! of a dropped row. If sessions are emitted when they close, their rows are emitted only then. No session of
//! a key is emitted twice ([`late_members`]).
//!
//! Deliberately absent: gaps without a fixed length, such as months; see `lower`.

mod closing;
mod emit;
mod late_members;
mod late_rows;
mod open_sessions;
mod persistence;
#[cfg(test)]
mod tests;
mod time;

use std::sync::Arc;

use arrow::array::{Array, Int64Array};
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::{Cut, Delta};
use millstream_state::{Moved, Ordered, Spillable, Tables};

use crate::event_time::{EventTime, count};
use crate::failure::{Failure, row_text};
use crate::late_rows::Lateness;
use crate::operator::{
    Abilities, ClosesWindows, Description, Growth, Operator, Output, Properties, State, Timers,
};
use crate::parallelism::Threads;
use crate::sorted::{Change, Ordering, Sorted, Sorter};
use crate::{Error, Result};
use closing::SessionClosing;
use emit::Lines;
use late_members::LateMembers;
use open_sessions::{Bounds, OpenSessions};
use time::SessionTime;

/// The bound of a row's session that a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The start.
    Start,
    /// The end.
    End,
}

/// The parts of a Session operator.
#[derive(Debug)]
pub struct SessionSpec {
    /// The properties of the output: the input's columns, and those of the session.
    pub properties: Properties,
    /// The input's columns.
    pub schema: SchemaRef,
    /// The order of rows: by the key, and by the time alone.
    pub ordering: Ordering,
    /// The time.
    pub time: Arc<dyn PhysicalExpr>,
    /// The minimum distance of rows of different sessions, as a count of the time's unit; positive.
    pub gap: i64,
    /// The bounds of sessions to show.
    pub sides: Vec<Side>,
    /// The event time, if sessions close.
    pub clock: Option<EventTime>,
    /// True if sessions are emitted when they close.
    pub on_close: bool,
    /// The detail for EXPLAIN.
    pub detail: String,
    /// The key's expressions as text.
    pub partition: Vec<String>,
    /// The threads for large changes.
    pub threads: Threads,
}

/// Maintains sessions.
#[derive(Debug)]
pub struct Session {
    properties: Properties,
    sorter: Sorter,
    time: SessionTime,
    sides: Vec<Side>,
    rows: Ordered,
    open: OpenSessions,
    closing: SessionClosing,
    late_members: LateMembers,
    detail: String,
    partition: Vec<String>,
}

/// A row that changes.
#[derive(Clone, Copy, Debug)]
struct Timed<'a> {
    change: Change<'a>,
    time: i64,
}

impl Session {
    /// Returns the operator; `None` if values of some type have no order in bytes.
    pub fn new(parts: SessionSpec) -> Result<Option<Session>> {
        let SessionSpec { properties, schema, ordering, time, gap, sides, clock, on_close, .. } = parts;
        let Some(sorter) = Sorter::new(ordering, &schema, parts.threads)? else { return Ok(None) };
        Ok(Some(Session {
            properties,
            sorter,
            time: SessionTime::new(time, gap, &schema)?,
            sides,
            rows: Ordered::new(schema),
            open: OpenSessions::new(clock.is_some()),
            closing: SessionClosing::new(clock, on_close),
            late_members: LateMembers::new(),
            detail: parts.detail,
            partition: parts.partition,
        }))
    }

    /// Processes the changes of an epoch.
    fn take(&mut self, sorted: &Sorted, output: &mut Output) -> Result<()> {
        let times = self.time.of(&sorted.rows)?;
        let changes = sorted.changes();
        let (mut lines, mut late) = (Lines::default(), Vec::new());
        let mut taken: Vec<Timed<'_>> = Vec::with_capacity(changes.len());
        for changes in changes.chunk_by(|left, right| left.partition == right.partition) {
            let mut timed = Vec::with_capacity(changes.len());
            for change in changes {
                let row = change.row as usize;
                match times.is_valid(row) {
                    true => timed.push(Timed { change: *change, time: times.value(row) }),
                    // A row without a time is in no session, so it has no bounds and never closes.
                    false if self.closing.is_on_close() => late.push((*change, None)),
                    false => lines.fresh(change, None),
                }
            }
            timed.retain(|change| {
                let has_end = self.time.has_end(change.time);
                if !has_end {
                    output.failures.push(too_far(sorted, &change.change));
                }
                has_end
            });
            taken.extend(self.in_time(timed, &mut late));
        }
        output.late.extend(self.too_late(sorted, &late)?);
        self.note_late_members(&taken);
        let moved: Vec<Moved<'_>> = taken
            .iter()
            .map(|Timed { change, .. }| Moved { key: change.key, row: change.row, weight: change.weight })
            .collect();
        self.rows.apply(&sorted.rows, &moved)?;
        let mut left = Vec::new();
        for changes in taken.chunk_by(|left, right| left.change.partition == right.change.partition) {
            let partition = changes[0].change.partition;
            left.extend(self.settle(changes, &mut lines)?.into_iter().map(|bounds| (partition, bounds)));
        }
        self.put_out(lines, Some(sorted), &mut output.rows)?;
        left.into_iter().try_for_each(|(partition, bounds)| self.turn_away(partition, bounds, output))
    }

    /// Updates the sessions of a partition with changed rows, and emits the effects. Returns the sessions
    /// with only late_members left.
    fn settle(&mut self, changes: &[Timed<'_>], lines: &mut Lines) -> Result<Vec<Bounds>> {
        let Some(first) = changes.first() else { return Ok(Vec::new()) };
        let partition = first.change.partition;
        let mut old: Vec<Bounds> = Vec::new();
        let mut stretches: Vec<Bounds> = Vec::new();
        for Timed { change, time } in changes {
            let alone = self.time.alone(*time);
            // The changes are in the order of their times, and so are the sessions that they touch.
            for bounds in self.open.touched(partition, alone) {
                if old.last().is_none_or(|last| *last < bounds) {
                    old.push(bounds);
                }
            }
            if change.weight > 0 {
                stretches.push(alone);
            }
        }
        for bounds in &old {
            let loses = changes.iter().any(|change| change.change.weight < 0 && bounds.contains(change.time));
            match loses {
                true => stretches.extend(self.stretches(partition, *bounds)?),
                false => stretches.push(*bounds),
            }
        }
        let mut new = united(stretches);
        let left = self.left_by_hosts(partition, &old, &mut new)?;
        if !self.closing.is_on_close() {
            self.difference(changes, &old, (&new, &left), lines)?;
        }
        for bounds in old.iter().filter(|bounds| new.binary_search(bounds).is_err()) {
            self.open.remove(partition, *bounds);
        }
        for bounds in new.iter().filter(|bounds| old.binary_search(bounds).is_err()) {
            self.open.add(partition, *bounds);
        }
        Ok(left)
    }

    /// Returns the sessions that the remaining rows of a session form after deletes.
    fn stretches(&self, partition: &[u8], bounds: Bounds) -> Result<Vec<Bounds>> {
        let mut times = Vec::new();
        self.each(partition, bounds, &mut |key, _, _| times.push(key[partition.len()..].to_vec()))?;
        let times = self.times(times.iter().map(Vec::as_slice))?;
        Ok(united(times.iter().flatten().map(|time| self.time.alone(time)).collect()))
    }

    /// Returns the times at the beginning of the keys' bytes, which follow the partition.
    fn times<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Result<Int64Array> {
        let width = self.order_bytes(0)?.len();
        let times = self.sorter.order_values_of(keys.map(|key| &key[..width.min(key.len())]))?;
        times.first().map_or_else(|| Err(Error::Bug("an order of no time".into())), count)
    }

    fn order_bytes(&self, time: i64) -> Result<Vec<u8>> {
        self.sorter.order_bytes(&[self.time.values(Int64Array::from(vec![time]))?])
    }

    /// Returns the number of copies of rows before a time in the order.
    fn place(&self, partition: &[u8], time: i64) -> Result<u64> {
        let mut key = partition.to_vec();
        key.extend(self.order_bytes(time)?);
        Ok(self.rows.position(&key))
    }

    /// Shows the rows between two times in their order: their keys, ids and copies.
    fn each(&self, partition: &[u8], bounds: Bounds, show: &mut dyn FnMut(&[u8], u64, u64)) -> Result<()> {
        let (from, end) = (self.place(partition, bounds.start)?, self.place(partition, bounds.end)?);
        if from < end {
            self.rows.scan(from, &mut |position, entry| {
                show(entry.key, entry.id, entry.copies);
                position + entry.copies < end
            });
        }
        Ok(())
    }

    /// Closes the sessions whose end the clock has reached.
    fn close(&mut self, cut: &Cut, output: &mut Delta) -> Result<()> {
        let Some(now) = self.closing.advance(cut)? else { return Ok(()) };
        let (mut closing, mut lines) = (Vec::new(), Lines::default());
        while let Some((partition, bounds)) = self.open.close_next(now) {
            if self.closing.is_on_close() {
                self.each(&partition, bounds, &mut |_, id, copies| lines.kept(id, copies as i64, bounds))?;
            }
            closing.push((partition, bounds));
        }
        self.put_out(lines, None, output)?;
        for (partition, bounds) in closing {
            self.forget_rows(&partition, bounds)?;
        }
        Ok(())
    }
}

/// Merges overlapping stretches of time. One that begins where another ends stays separate.
fn united(mut stretches: Vec<Bounds>) -> Vec<Bounds> {
    stretches.sort_unstable();
    let mut united: Vec<Bounds> = Vec::with_capacity(stretches.len());
    for stretch in stretches {
        match united.last_mut().filter(|last| stretch.start < last.end) {
            Some(last) => last.end = last.end.max(stretch.end),
            None => united.push(stretch),
        }
    }
    united
}

/// Returns the failure of a row whose session would end beyond the range of its type.
fn too_far(sorted: &Sorted, change: &Change<'_>) -> Failure {
    Failure {
        message: "a session with this time would end outside the range of its type".into(),
        row: row_text(&sorted.rows, change.row as usize).unwrap_or_default(),
        weight: change.weight,
    }
}

impl Operator for Session {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let by = self.partition.join(", ");
        let (state, growth) = match (self.closing.closes(), self.closing.is_on_close()) {
            (false, _) => {
                ("its input in order, and where sessions begin and end", Growth::With("its input".into()))
            }
            (true, false) => (
                "rows in order, and where sessions begin and end; dropped when sessions close",
                Growth::BoundedBy("the open sessions".into()),
            ),
            (true, true) => (
                "rows in order, and where sessions begin and end; emitted when sessions close",
                Growth::BoundedBy("the open sessions".into()),
            ),
        };
        Description {
            name: "Session",
            detail: self.detail.clone(),
            state: state.into(),
            state_key: (!self.partition.is_empty()).then(|| format!("({by})")),
            growth,
            why: String::new(),
        }
    }

    fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let [input] = inputs else { return Err(Error::Bug("Session has one input".into())) };
        let mut output = Output::default();
        if let Some(sorted) = self.sorter.sort_together(input, &mut output.failures)? {
            self.take(&sorted, &mut output)?;
        }
        self.close(cut, &mut output.rows)?;
        Ok(output)
    }

    fn abilities(&self) -> Abilities<'_> {
        match self.closing.closes() {
            true => Abilities { timers: Some(self), windows: Some(self), ..Abilities::default() },
            false => Abilities::default(),
        }
    }
}

impl State for Session {
    fn reset(&mut self) -> Result<()> {
        self.rows = Ordered::new(self.rows.schema().clone());
        self.open = OpenSessions::new(self.closing.closes());
        self.closing.reset();
        self.late_members.clear();
        Ok(())
    }

    fn save(&self) -> Result<Tables> {
        self.saved()
    }

    fn save_changed(&self) -> Result<Tables> {
        self.changed()
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.load_saved(kept)
    }

    fn state_rows(&self) -> usize {
        self.rows.num_rows()
    }

    fn state_bytes(&self) -> usize {
        let late_members: usize =
            self.late_members.iter().map(|key| key.len() + size_of::<Box<[u8]>>()).sum();
        self.rows.memory_bytes() + self.open.memory_bytes() + late_members
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.rows);
        self.open.each_store(show);
    }
}

impl Timers for Session {
    fn is_due(&self, cut: &Cut) -> bool {
        self.open.first_end().is_some_and(|first| self.closing.is_due(cut, first))
    }
}

impl ClosesWindows for Session {
    fn late(&self) -> Lateness {
        let (rows, watermark) = (self.closing.late(), self.closing.watermark_type());
        Lateness { rows, window: self.time.data_type().clone(), watermark }
    }
}
